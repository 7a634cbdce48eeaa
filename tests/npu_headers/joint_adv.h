/* Stand-ins of our own for the rest of AXERA's joint API. */
#pragma once
#include "ax_interpreter_external_api.h"
#include "joint.h"

typedef struct { AX_NPU_SDK_EX_HARD_MODE_T eNpuMode; } AX_JOINT_SDK_ATTR_T;
inline AX_S32 AX_JOINT_GetJointModelType(const void*, AX_U32, AX_NPU_SDK_EX_MODEL_TYPE_T* type) {
    *type = AX_NPU_MODEL_TYPE_1_1_1;
    return 0;
}
inline AX_S32 AX_JOINT_Adv_Init(const AX_JOINT_SDK_ATTR_T* attributes) {
    return attributes->eNpuMode == AX_NPU_VIRTUAL_1_1 ? 0 : 0x81;
}
inline AX_S32 AX_JOINT_Adv_Deinit() { return 0; }
