// The network in C++: its memory, its instance and its errors as an object's.
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

    // Raw outputs of an input of @UPPER@_INPUT_SIZE elements.
    std::vector<float> run(const std::vector<@NAME@_input> &input)
    {
        std::vector<float> output(@UPPER@_OUTPUT_SIZE);
        check(input.size() == @UPPER@_INPUT_SIZE
                  ? @NAME@_run(instance_.get(), input.data(), output.data())
                  : @UPPER@_BAD_ARGUMENT);
        return output;
    }

    // Activated outputs of an image: red, green and blue of each pixel, row by row.
    std::vector<float> classify(const std::vector<std::uint8_t> &rgb, int width, int height)
    {
        std::vector<float> output(@UPPER@_OUTPUT_SIZE);
        check(@NAME@_classify(instance_.get(), rgb.data(), width, height, output.data()));
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
    const @NAME@_output &row = @NAME@_outputs[0];
    std::size_t best = 0; // the largest raw value of the first output
    for (std::size_t i = 1; i < row.size; i++)
        if (output[i] > output[best])
            best = i;
    std::printf("%s: %s %f\n", row.name, best < row.label_count ? row.labels[best] : "no label",
                output[best]);
}
