/* Runs an .axmodel file on an AX650, AX620E, AX630C or AX620Q:
       classify compiled.axmodel input [folder for raw outputs]

   Build on the board: g++ -O2 -std=c++11 -I/soc/include classify.cc -o classify -L/soc/lib \
       -lax_engine -lax_interpreter -lax_sys */
#include "ax_engine_api.h"
#include "ax_sys_api.h"

#include "network_io.h"

static const unsigned ALIGNMENT = 128;

using network::failed;

/* AX_ENGINE_Init has a parameter, but not in some releases for the AX620E. Overloading selects the
   form that the board's header declares. */
static inline long start(AX_S32 (*init)(AX_ENGINE_NPU_ATTR_T*)) {
    AX_ENGINE_NPU_ATTR_T attributes;
    std::memset(&attributes, 0, sizeof attributes);
    attributes.eHardMode = AX_ENGINE_VIRTUAL_NPU_DISABLE;
    return init(&attributes);
}
static inline long start(AX_S32 (*init)()) { return init(); }

struct Buffers {
    std::vector<AX_ENGINE_IO_BUFFER_T> inputs, outputs;
    ~Buffers() {
        for (auto* group : {&inputs, &outputs})
            for (auto& buffer : *group) AX_SYS_MemFree(buffer.phyAddr, buffer.pVirAddr);
    }
};

static bool allocate(const AX_ENGINE_IOMETA_T* meta, size_t count,
                     std::vector<AX_ENGINE_IO_BUFFER_T>& buffers) {
    for (size_t index = 0; index < count; ++index) {
        AX_ENGINE_IO_BUFFER_T buffer;
        std::memset(&buffer, 0, sizeof buffer);
        buffer.nSize = meta[index].nSize;
        const AX_S8* owner = reinterpret_cast<const AX_S8*>("tcc");
        if (failed("AX_SYS_MemAlloc", AX_SYS_MemAlloc(&buffer.phyAddr, &buffer.pVirAddr,
                                                      buffer.nSize, ALIGNMENT, owner)))
            return false;
        buffers.push_back(buffer);
    }
    return true;
}

static int infer(AX_ENGINE_HANDLE handle, const char* path, const char* folder) {
    AX_ENGINE_IO_INFO_T* info = nullptr;
    if (failed("AX_ENGINE_GetIOInfo", AX_ENGINE_GetIOInfo(handle, &info))) return 1;
    if (info->nInputSize != 1) {
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

    AX_ENGINE_IO_T io;
    std::memset(&io, 0, sizeof io);
    io.nInputSize = info->nInputSize;
    io.pInputs = buffers.inputs.data();
    io.nOutputSize = info->nOutputSize;
    io.pOutputs = buffers.outputs.data();
    if (failed("AX_ENGINE_RunSync", AX_ENGINE_RunSync(handle, &io))) return 1;

    return network::report_outputs(info->pOutputs, buffers.outputs, folder) ? 0 : 1;
}

static int run(const std::vector<uint8_t>& model, const char* path, const char* folder) {
    AX_ENGINE_HANDLE handle;
    if (failed("AX_ENGINE_CreateHandle",
               AX_ENGINE_CreateHandle(&handle, model.data(), static_cast<AX_U32>(model.size()))))
        return 1;
    int code = 1;
    if (!failed("AX_ENGINE_CreateContext", AX_ENGINE_CreateContext(handle)))
        code = infer(handle, path, folder);
    AX_ENGINE_DestroyHandle(handle);
    return code;
}

int main(int count, char** arguments) {
    if (count < 3 || count > 4) {
        std::fprintf(stderr, "usage: %s compiled.axmodel input [folder for raw outputs]\n",
                     arguments[0]);
        return 2;
    }
    std::vector<uint8_t> model;
    if (!network::read_file(arguments[1], model)) return 2;
    if (failed("AX_SYS_Init", AX_SYS_Init())) return 1;
    int code = 1;
    if (!failed("AX_ENGINE_Init", start(AX_ENGINE_Init))) {
        code = run(model, arguments[2], count > 3 ? arguments[3] : nullptr);
        AX_ENGINE_Deinit();
    }
    AX_SYS_Deinit();
    return code;
}
