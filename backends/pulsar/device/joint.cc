/* Runs a .joint file on an AX620A:   classify model.joint input [folder for raw outputs]

   Build on the board: g++ -O2 -std=c++11 -DCHIP_AX620 -I/opt/include classify.cc -o classify \
       -L/opt/lib -lax_run_joint -lax_interpreter_external -lax_interpreter -lax_sys -laxsyslog \
       -lstdc++fs -lpthread -ldl */
#include "ax_interpreter_external_api.h"
#include "ax_sys_api.h"
#include "joint.h"
#include "joint_adv.h"

#include "network_io.h"

using network::failed;

/* Set the NPU mode that the file was compiled for: the engine must start with it. */
static bool read_npu_mode(const std::vector<uint8_t>& model, AX_JOINT_SDK_ATTR_T& attributes) {
    AX_NPU_SDK_EX_MODEL_TYPE_T type;
    const AX_CHAR* data = reinterpret_cast<const AX_CHAR*>(model.data());
    if (failed("AX_JOINT_GetJointModelType",
               AX_JOINT_GetJointModelType(data, static_cast<AX_U32>(model.size()), &type)))
        return false;
    bool half = type == AX_NPU_MODEL_TYPE_1_1_1 || type == AX_NPU_MODEL_TYPE_1_1_2;
    attributes.eNpuMode = half ? AX_NPU_VIRTUAL_1_1 : AX_NPU_VIRTUAL_DISABLE;
    return true;
}

struct Buffers {
    std::vector<AX_JOINT_IO_BUFFER_T> inputs, outputs;
    ~Buffers() {
        for (auto* group : {&inputs, &outputs})
            for (auto& buffer : *group) AX_JOINT_FreeBuffer(&buffer);
    }
};

static bool allocate(const AX_JOINT_IOMETA_T* meta, size_t count,
                     std::vector<AX_JOINT_IO_BUFFER_T>& buffers) {
    for (size_t index = 0; index < count; ++index) {
        AX_JOINT_IO_BUFFER_T buffer;
        std::memset(&buffer, 0, sizeof buffer);
        if (failed("AX_JOINT_AllocBuffer",
                   AX_JOINT_AllocBuffer(meta + index, &buffer, AX_JOINT_ABST_DEFAULT)))
            return false;
        buffers.push_back(buffer);
    }
    return true;
}

static int infer(AX_JOINT_HANDLE handle, AX_JOINT_EXECUTION_CONTEXT context, const char* path,
                 const char* folder) {
    const AX_JOINT_IO_INFO_T* info = AX_JOINT_GetIOInfo(handle);
    if (!info || info->nInputSize != 1) {
        std::fprintf(stderr, "the model must have exactly one input\n");
        return 1;
    }
    Buffers buffers;
    std::vector<uint8_t> input;
    if (!allocate(info->pInputs, info->nInputSize, buffers.inputs) ||
        !allocate(info->pOutputs, info->nOutputSize, buffers.outputs) ||
        !network::read_input(path, info->pInputs[0].nSize, input))
        return 1;
    std::memcpy(buffers.inputs[0].pVirAddr, input.data(), input.size());

    AX_JOINT_IO_SETTING_T settings;
    AX_JOINT_IO_T io;
    std::memset(&settings, 0, sizeof settings);
    std::memset(&io, 0, sizeof io);
    io.nInputSize = info->nInputSize;
    io.pInputs = buffers.inputs.data();
    io.nOutputSize = info->nOutputSize;
    io.pOutputs = buffers.outputs.data();
    io.pIoSetting = &settings;
    if (failed("AX_JOINT_RunSync", AX_JOINT_RunSync(handle, context, &io))) return 1;

    return network::report_outputs(info->pOutputs, buffers.outputs, folder) ? 0 : 1;
}

static int run(const std::vector<uint8_t>& model, const char* path, const char* folder) {
    AX_JOINT_SDK_ATTR_T attributes;
    std::memset(&attributes, 0, sizeof attributes);
    if (!read_npu_mode(model, attributes)) return 1;
    if (failed("AX_JOINT_Adv_Init", AX_JOINT_Adv_Init(&attributes))) return 1;
    int code = 1;
    AX_JOINT_HANDLE handle;
    if (!failed("AX_JOINT_CreateHandle",
                AX_JOINT_CreateHandle(&handle, model.data(),
                                      static_cast<AX_U32>(model.size())))) {
        AX_JOINT_EXECUTION_CONTEXT context;
        AX_JOINT_EXECUTION_CONTEXT_SETTING_T settings;
        std::memset(&context, 0, sizeof context);
        std::memset(&settings, 0, sizeof settings);
        if (!failed("AX_JOINT_CreateExecutionContextV2",
                    AX_JOINT_CreateExecutionContextV2(handle, &context, &settings))) {
            code = infer(handle, context, path, folder);
            AX_JOINT_DestroyExecutionContext(context);
        }
        AX_JOINT_DestroyHandle(handle);
    }
    AX_JOINT_Adv_Deinit();
    return code;
}

int main(int count, char** arguments) {
    if (count < 3 || count > 4) {
        std::fprintf(stderr, "usage: %s model.joint input [folder for raw outputs]\n",
                     arguments[0]);
        return 2;
    }
    std::vector<uint8_t> model;
    if (!network::read_file(arguments[1], model)) return 2;
    if (failed("AX_SYS_Init", AX_SYS_Init())) return 1;
    int code = run(model, arguments[2], count > 3 ? arguments[3] : nullptr);
    AX_SYS_Deinit();
    return code;
}
