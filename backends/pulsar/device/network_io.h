/* Shared code of the programs for AXERA's boards: reads the input and prints the outputs.
   contract.h, next to this file, describes the network's input and outputs. */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "contract.h"

namespace network {

inline bool failed(const char* call, long code) {
    if (code) std::fprintf(stderr, "%s failed: 0x%lx\n", call, static_cast<unsigned long>(code));
    return code != 0;
}

inline bool read_file(const char* path, std::vector<uint8_t>& data) {
    std::FILE* file = std::fopen(path, "rb");
    if (!file) {
        std::fprintf(stderr, "cannot open %s\n", path);
        return false;
    }
    uint8_t block[1 << 16];
    data.clear();
    for (size_t count; (count = std::fread(block, 1, sizeof block, file)) > 0;)
        data.insert(data.end(), block, block + count);
    bool is_complete = !std::ferror(file);
    std::fclose(file);
    if (!is_complete) std::fprintf(stderr, "cannot read %s\n", path);
    return is_complete;
}

/* Return the header size of a binary PPM (P6) or PGM (P5) file with 8 bits per sample, or 0. */
inline size_t read_pnm_header(const std::vector<uint8_t>& data, int& channels, long& width,
                              long& height) {
    if (data.size() < 2 || data[0] != 'P' || (data[1] != '5' && data[1] != '6')) return 0;
    channels = data[1] == '6' ? 3 : 1;
    long numbers[3] = {0, 0, 0};
    size_t position = 2;
    for (long& number : numbers) {
        for (;; ++position) {
            if (position >= data.size()) return 0;
            if (data[position] == '#')
                while (position < data.size() && data[position] != '\n') ++position;
            else if (!std::strchr(" \t\r\n", data[position]))
                break;
        }
        for (; position < data.size() && data[position] >= '0' && data[position] <= '9';
             ++position) {
            number = number * 10 + (data[position] - '0');
            if (number > 65535) return 0;
        }
    }
    width = numbers[0];
    height = numbers[1];
    return numbers[2] == 255 && position < data.size() ? position + 1 : 0;
}

/* Read the network's input: from a raw file of exactly its size, or from an image of its width and
   height, whose colours are put in the network's order. */
inline bool read_input(const char* path, size_t bytes, std::vector<uint8_t>& input) {
    std::vector<uint8_t> data;
    if (!read_file(path, data)) return false;
    int channels = 0;
    long width = 0, height = 0;
    size_t start = INPUT_IS_IMAGE ? read_pnm_header(data, channels, width, height) : 0;
    if (start) {
        size_t count = static_cast<size_t>(width) * height * channels;
        if (width != INPUT_WIDTH || height != INPUT_HEIGHT || channels != INPUT_CHANNELS ||
            data.size() - start < count) {
            std::fprintf(stderr,
                         "%s: image is %ldx%ld with %d channels, but the network needs "
                         "%dx%d with %d\n",
                         path, width, height, channels, INPUT_WIDTH, INPUT_HEIGHT, INPUT_CHANNELS);
            return false;
        }
        data.assign(data.begin() + start, data.begin() + start + count);
        if (INPUT_IS_BGR)
            for (size_t pixel = 0; pixel + 2 < count; pixel += 3)
                std::swap(data[pixel], data[pixel + 2]);
    }
    if (data.size() != bytes) {
        std::fprintf(stderr, "%s: file has %zu bytes, but the network needs %zu\n", path,
                     data.size(), bytes);
        return false;
    }
    input.swap(data);
    return true;
}

inline const Output* find_output(const char* name) {
    for (const Output& output : OUTPUTS)
        if (!std::strcmp(output.name, name)) return &output;
    return nullptr;
}

/* Print an output: each label with its probability or value, the largest first. */
inline void print_output(const char* name, const float* values, size_t count) {
    const Output* contract = find_output(name);
    std::vector<double> probabilities(values, values + count);
    if (contract && contract->activation == Activation::softmax && count) {
        double top = *std::max_element(probabilities.begin(), probabilities.end()), sum = 0;
        for (double& value : probabilities) sum += value = std::exp(value - top);
        for (double& value : probabilities) value /= sum;
    } else if (contract && contract->activation == Activation::sigmoid) {
        for (double& value : probabilities) value = 1 / (1 + std::exp(-value));
    }
    bool labelled = contract && contract->labels && contract->count == count;
    std::vector<size_t> order(count);
    for (size_t index = 0; index < count; ++index) order[index] = index;
    if (labelled)
        std::stable_sort(order.begin(), order.end(),
                         [&](size_t a, size_t b) { return probabilities[a] > probabilities[b]; });
    for (size_t index : order) {
        std::string label = labelled ? contract->labels[index] : std::to_string(index);
        std::printf("%s\t%s\t%.6g\n", name, label.c_str(), probabilities[index]);
    }
}

/* Write an output's values to a file, in memory order. */
inline bool write_output(const std::string& folder, const char* name, const void* data,
                         size_t bytes) {
    std::string path = folder + "/" + name + ".bin";
    std::FILE* file = std::fopen(path.c_str(), "wb");
    bool is_written = file && std::fwrite(data, 1, bytes, file) == bytes;
    if (file) is_written = !std::fclose(file) && is_written;
    if (!is_written) std::fprintf(stderr, "cannot write %s\n", path.c_str());
    return is_written;
}

/* Print each output, and write it to `folder` if there is one; `meta` has its name and size. */
template <typename Meta, typename Buffer>
bool report_outputs(const Meta* meta, const std::vector<Buffer>& buffers, const char* folder) {
    for (size_t index = 0; index < buffers.size(); ++index) {
        const void* data = buffers[index].pVirAddr;
        if (folder && !write_output(folder, meta[index].pName, data, meta[index].nSize))
            return false;
        print_output(meta[index].pName, static_cast<const float*>(data), meta[index].nSize / 4);
    }
    return true;
}

}  // namespace network
