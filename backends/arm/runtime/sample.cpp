// The network as a C++ class that owns its memory and throws errors as exceptions.
//
// c++ -I. sample.cpp lib@NAME@.a -lpthread -lm -o sample
#include <cstddef>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

#include "@NAME@.h"

class Network {
public:
    explicit Network(int threads = 1)
        : arena_(@UPPER@_ARENA_SIZE),
          instance_(@NAME@_create(arena_.data(), arena_.size()), @NAME@_destroy)
    {
        check(@NAME@_set_threads(instance_.get(), threads));
    }

    // Return the raw outputs for an input of @UPPER@_INPUT_SIZE elements.
    std::vector<float> run(const std::vector<@NAME@_input> &input)
    {
        std::vector<float> output(@UPPER@_OUTPUT_SIZE);
        check(input.size() == @UPPER@_INPUT_SIZE
                  ? @NAME@_run(instance_.get(), input.data(), output.data())
                  : @UPPER@_BAD_ARGUMENT);
        return output;
    }

    // Return the decisions from raw outputs: 1 for each class that is decided on.
    static std::vector<unsigned char> decide(const std::vector<float> &output)
    {
        std::vector<unsigned char> decisions(@UPPER@_OUTPUT_SIZE);
        check(output.size() == decisions.size() ? @NAME@_decide(output.data(), decisions.data())
                                                : @UPPER@_BAD_ARGUMENT);
        return decisions;
    }

    // Return the activated outputs for an image: red, green and blue of each pixel, row by row.
    // `decisions` gets the decisions.
    std::vector<float> predict(const std::vector<std::uint8_t> &rgb, int width, int height,
                               std::vector<unsigned char> &decisions)
    {
        std::vector<float> output(@UPPER@_OUTPUT_SIZE);
        decisions.resize(@UPPER@_OUTPUT_SIZE);
        check(@NAME@_predict(instance_.get(), rgb.data(), width, height, output.data(),
                             decisions.data()));
        return output;
    }

private:
    static void check(int status)
    {
        if (status != @UPPER@_OK)
            throw std::runtime_error(@NAME@_message(status));
    }

    std::vector<unsigned char> arena_;
    std::unique_ptr<@NAME@_instance, decltype(&@NAME@_destroy)> instance_;
};

int main()
{
    Network network;
    std::vector<float> output = network.run(std::vector<@NAME@_input>(@UPPER@_INPUT_SIZE));
    std::vector<unsigned char> decisions = Network::decide(output);
    const @NAME@_output &first = @NAME@_outputs[0];
    std::printf("%s\n", first.name);
    for (std::size_t i = 0; i < first.size; i++)
        if (decisions[i])
            std::printf("  %s\n", i < first.label_count ? first.labels[i] : "unnamed class");
}
