/* Stand-ins of our own for the modes of AXERA's NPU. */
#pragma once
typedef enum { AX_NPU_VIRTUAL_DISABLE = 0, AX_NPU_VIRTUAL_1_1 = 4 } AX_NPU_SDK_EX_HARD_MODE_T;
typedef enum {
    AX_NPU_MODEL_TYPE_DEFUALT = 0,
    AX_NPU_MODEL_TYPE_1_1_1 = 6,
    AX_NPU_MODEL_TYPE_1_1_2 = 7
} AX_NPU_SDK_EX_MODEL_TYPE_T;
