/* A stub of AXERA's joint API (see ax_sys_api.h): a network with one input and one output, which
   contains sums of the input's bytes. */
#pragma once
#include "ax_interpreter_external_api.h"
#include "ax_sys_api.h"

typedef AX_VOID* AX_JOINT_HANDLE;
typedef AX_VOID* AX_JOINT_EXECUTION_CONTEXT;
typedef enum { JOINT_TENSOR_LAYOUT_NHWC = 1, JOINT_TENSOR_LAYOUT_NCHW = 2 } AX_JOINT_TENSOR_LAYOUT_T;
typedef enum { AX_JOINT_MT_PHYSICAL = 1, AX_JOINT_MT_VIRTUAL = 2 } AX_JOINT_MEMORY_TYPE_T;
typedef enum { AX_JOINT_DT_UINT8 = 1, AX_JOINT_DT_FLOAT32 = 3 } AX_JOINT_DATA_TYPE_T;
typedef enum { AX_JOINT_ABST_DEFAULT = 0, AX_JOINT_ABST_CACHED = 1 } AX_JOINT_ALLOC_BUFFER_STRATEGY_T;

typedef struct {
    AX_NPU_SDK_EX_HARD_MODE_T eNpuMode;
} AX_JOINT_SDK_ATTR_T;
typedef struct {
    AX_U32 nBatchSize;
    AX_BOOL bNoCacheMem;
} AX_JOINT_EXECUTION_CONTEXT_SETTING_T;
typedef struct {
    AX_U32 nWbtIndex;
} AX_JOINT_IO_SETTING_T;
typedef struct {
    AX_CHAR* pName;
    AX_S32* pShape;
    AX_U8 nShapeSize;
    AX_JOINT_TENSOR_LAYOUT_T eLayout;
    AX_JOINT_MEMORY_TYPE_T eMemoryType;
    AX_JOINT_DATA_TYPE_T eDataType;
    AX_U32 nSize;
    AX_U32 nQuantizationValue;
    AX_S32* pStride;
} AX_JOINT_IOMETA_T;
typedef struct {
    AX_JOINT_IOMETA_T* pInputs;
    AX_U32 nInputSize;
    AX_JOINT_IOMETA_T* pOutputs;
    AX_U32 nOutputSize;
    AX_U32 nMaxBatchSize;
    AX_BOOL bDynamicBatchSize;
} AX_JOINT_IO_INFO_T;
typedef struct {
    AX_ADDR phyAddr;
    AX_VOID* pVirAddr;
    AX_U32 nSize;
    AX_S32* pStride;
    AX_U8 nStrideSize;
} AX_JOINT_IO_BUFFER_T;
typedef struct {
    AX_JOINT_IO_BUFFER_T* pInputs;
    AX_U32 nInputSize;
    AX_JOINT_IO_BUFFER_T* pOutputs;
    AX_U32 nOutputSize;
    AX_U32 nBatchSize;
    AX_JOINT_IO_SETTING_T* pIoSetting;
} AX_JOINT_IO_T;

static AX_CHAR stub_image[] = "image", stub_logits[] = "logits";
static AX_JOINT_IOMETA_T stub_input = {
    stub_image, nullptr, 0, JOINT_TENSOR_LAYOUT_NHWC, AX_JOINT_MT_PHYSICAL, AX_JOINT_DT_UINT8,
    STUB_INPUT, 0, nullptr};
static AX_JOINT_IOMETA_T stub_output = {
    stub_logits, nullptr, 0, JOINT_TENSOR_LAYOUT_NHWC, AX_JOINT_MT_PHYSICAL, AX_JOINT_DT_FLOAT32,
    12, 0, nullptr};
static AX_JOINT_IO_INFO_T stub_info = {&stub_input, 1, &stub_output, 1, 1, AX_FALSE};

extern "C" {
inline AX_S32 AX_JOINT_GetJointModelType(const AX_CHAR* data, AX_U32 size,
                                         AX_NPU_SDK_EX_MODEL_TYPE_T* type) {
    *type = AX_NPU_MODEL_TYPE_1_1_1;
    return data && size ? 0 : 0x82;
}
inline AX_S32 AX_JOINT_Adv_Init(AX_JOINT_SDK_ATTR_T* attributes) {
    return attributes->eNpuMode == AX_NPU_VIRTUAL_1_1 ? 0 : 0x81;
}
inline AX_S32 AX_JOINT_Adv_Deinit(AX_VOID) { return 0; }
inline AX_S32 AX_JOINT_CreateHandle(AX_JOINT_HANDLE* handle, const AX_VOID* data, AX_U32 size) {
    *handle = &stub_info;
    return data && size == 5 ? 0 : 0x80;
}
inline const AX_JOINT_IO_INFO_T* AX_JOINT_GetIOInfo(AX_JOINT_HANDLE) { return &stub_info; }
inline AX_S32 AX_JOINT_CreateExecutionContextV2(AX_JOINT_HANDLE, AX_JOINT_EXECUTION_CONTEXT* context,
                                                AX_JOINT_EXECUTION_CONTEXT_SETTING_T* setting) {
    *context = &stub_info;
    return setting ? 0 : 0x85;
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
inline AX_S32 AX_JOINT_RunSync(AX_JOINT_HANDLE, AX_JOINT_EXECUTION_CONTEXT context,
                               AX_JOINT_IO_T* io) {
    stub_run(io->pInputs[0].pVirAddr, STUB_INPUT, io->pOutputs[0].pVirAddr);
    return context ? 0 : 0x86;
}
inline AX_S32 AX_JOINT_DestroyExecutionContext(AX_JOINT_EXECUTION_CONTEXT) { return 0; }
inline AX_S32 AX_JOINT_DestroyHandle(AX_JOINT_HANDLE) { return 0; }
}
