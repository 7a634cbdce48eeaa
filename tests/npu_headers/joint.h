/* Stand-ins of our own for the names of AXERA's joint API that the runner uses: types, and functions
   that give a network of one input and one output, whose values are sums of the input's bytes. */
#pragma once
#include "ax_sys_api.h"

typedef void* AX_JOINT_HANDLE;
typedef void* AX_JOINT_EXECUTION_CONTEXT;
typedef struct { int unused; } AX_JOINT_EXECUTION_CONTEXT_SETTING_T;
typedef struct { AX_U32 nWbtIndex; } AX_JOINT_IO_SETTING_T;
typedef struct {
    const AX_CHAR* pName;
    AX_S32* pShape;
    AX_U8 nShapeSize;
    AX_U32 nSize;
} AX_JOINT_IOMETA_T;
typedef struct {
    AX_JOINT_IOMETA_T* pInputs;
    AX_U32 nInputSize;
    AX_JOINT_IOMETA_T* pOutputs;
    AX_U32 nOutputSize;
} AX_JOINT_IO_INFO_T;
typedef struct {
    AX_U64 phyAddr;
    AX_VOID* pVirAddr;
    AX_U32 nSize;
} AX_JOINT_IO_BUFFER_T;
typedef struct {
    AX_JOINT_IO_BUFFER_T* pInputs;
    AX_U32 nInputSize;
    AX_JOINT_IO_BUFFER_T* pOutputs;
    AX_U32 nOutputSize;
    AX_JOINT_IO_SETTING_T* pIoSetting;
} AX_JOINT_IO_T;
typedef enum { AX_JOINT_ABST_DEFAULT = 0 } AX_JOINT_ALLOC_BUFFER_STRATEGY_T;

static AX_JOINT_IOMETA_T stub_input = {"image", 0, 0, STUB_INPUT};
static AX_JOINT_IOMETA_T stub_output = {"logits", 0, 0, 12};
static AX_JOINT_IO_INFO_T stub_info = {&stub_input, 1, &stub_output, 1};

inline AX_S32 AX_JOINT_CreateHandle(AX_JOINT_HANDLE* handle, const void* data, AX_U32 size) {
    *handle = &stub_info;
    return data && size == 5 ? 0 : 0x80;
}
inline const AX_JOINT_IO_INFO_T* AX_JOINT_GetIOInfo(AX_JOINT_HANDLE) { return &stub_info; }
inline AX_S32 AX_JOINT_CreateExecutionContextV2(AX_JOINT_HANDLE, AX_JOINT_EXECUTION_CONTEXT*,
                                                AX_JOINT_EXECUTION_CONTEXT_SETTING_T*) {
    return 0;
}
inline AX_S32 AX_JOINT_AllocBuffer(const AX_JOINT_IOMETA_T* meta, AX_JOINT_IO_BUFFER_T* buffer,
                                   AX_JOINT_ALLOC_BUFFER_STRATEGY_T) {
    buffer->nSize = meta->nSize;
    buffer->pVirAddr = stub_memory(meta->nSize);
    return 0;
}
inline AX_S32 AX_JOINT_FreeBuffer(AX_JOINT_IO_BUFFER_T* buffer) {
    stub_release(buffer->pVirAddr);
    return 0;
}
inline AX_S32 AX_JOINT_RunSync(AX_JOINT_HANDLE, AX_JOINT_EXECUTION_CONTEXT, AX_JOINT_IO_T* io) {
    stub_run(io->pInputs[0].pVirAddr, STUB_INPUT, io->pOutputs[0].pVirAddr);
    return 0;
}
inline AX_S32 AX_JOINT_DestroyExecutionContext(AX_JOINT_EXECUTION_CONTEXT) { return 0; }
inline AX_S32 AX_JOINT_DestroyHandle(AX_JOINT_HANDLE) { return 0; }
