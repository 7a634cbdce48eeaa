/* A stub of AXERA's engine API: see ax_sys_api.h. */
#pragma once
#include "ax_sys_api.h"

typedef AX_VOID* AX_ENGINE_HANDLE;
typedef enum {
    AX_ENGINE_VIRTUAL_NPU_DISABLE = 0,
    AX_ENGINE_VIRTUAL_NPU_ENABLE = 1
} AX_ENGINE_NPU_MODE_T;
typedef struct {
    AX_ENGINE_NPU_MODE_T eHardMode;
    AX_U32 reserve[8];
} AX_ENGINE_NPU_ATTR_T;
typedef struct {
    AX_CHAR* pName;
    AX_S32* pShape;
    AX_U8 nShapeSize;
    AX_U32 nSize;
} AX_ENGINE_IOMETA_T;
typedef struct {
    AX_ENGINE_IOMETA_T* pInputs;
    AX_U32 nInputSize;
    AX_ENGINE_IOMETA_T* pOutputs;
    AX_U32 nOutputSize;
} AX_ENGINE_IO_INFO_T;
typedef struct {
    AX_U64 phyAddr;
    AX_VOID* pVirAddr;
    AX_U32 nSize;
} AX_ENGINE_IO_BUFFER_T;
typedef struct {
    AX_ENGINE_IO_BUFFER_T* pInputs;
    AX_U32 nInputSize;
    AX_ENGINE_IO_BUFFER_T* pOutputs;
    AX_U32 nOutputSize;
} AX_ENGINE_IO_T;

static AX_CHAR stub_image[] = "image", stub_logits[] = "logits";
static AX_ENGINE_IOMETA_T stub_input = {stub_image, nullptr, 0, STUB_INPUT};
static AX_ENGINE_IOMETA_T stub_output = {stub_logits, nullptr, 0, 12};
static AX_ENGINE_IO_INFO_T stub_info = {&stub_input, 1, &stub_output, 1};

extern "C" {
#ifdef STUB_NO_ATTRIBUTES
inline AX_S32 AX_ENGINE_Init(AX_VOID) { return 0; }
#else
inline AX_S32 AX_ENGINE_Init(AX_ENGINE_NPU_ATTR_T* attributes) { return attributes ? 0 : 1; }
#endif
inline AX_S32 AX_ENGINE_Deinit(AX_VOID) { return 0; }
inline AX_S32 AX_ENGINE_CreateHandle(AX_ENGINE_HANDLE* handle, const AX_VOID* data, AX_U32 size) {
    *handle = &stub_info;
    return data && size == 5 ? 0 : 0x80;
}
inline AX_S32 AX_ENGINE_DestroyHandle(AX_ENGINE_HANDLE) { return 0; }
inline AX_S32 AX_ENGINE_CreateContext(AX_ENGINE_HANDLE) { return 0; }
inline AX_S32 AX_ENGINE_GetIOInfo(AX_ENGINE_HANDLE, AX_ENGINE_IO_INFO_T** info) {
    *info = &stub_info;
    return 0;
}
inline AX_S32 AX_ENGINE_RunSync(AX_ENGINE_HANDLE, AX_ENGINE_IO_T* io) {
    stub_run(io->pInputs[0].pVirAddr, STUB_INPUT, io->pOutputs[0].pVirAddr);
    return 0;
}
}
