/* A stub of the modes of AXERA's NPU: see ax_sys_api.h. */
#pragma once
typedef enum {
    AX_NPU_VIRTUAL_DISABLE = 0,
    AX_NPU_VIRTUAL_3_1 = 1,
    AX_NPU_VIRTUAL_2_2 = 2,
    AX_NPU_VIRTUAL_1_1 = 3
} AX_NPU_SDK_EX_HARD_MODE_T;
typedef enum {
    AX_NPU_MODEL_TYPE_DEFUALT = 0,
    AX_NPU_MODEL_TYPE_3_1_1 = 1,
    AX_NPU_MODEL_TYPE_3_1_2 = 2,
    AX_NPU_MODEL_TYPE_2_2_1 = 3,
    AX_NPU_MODEL_TYPE_2_2_2 = 4,
    AX_NPU_MODEL_TYPE_1_1_1 = 5,
    AX_NPU_MODEL_TYPE_1_1_2 = 6
} AX_NPU_SDK_EX_MODEL_TYPE_T;
