/* What the programs for AXERA's boards have in common: reading an image, printing what it is.
   contract.h, beside this file, says what the network takes and gives. */
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

inline bool failed(const char* what, long code) {
    if (code) std::fprintf(stderr, "%s failed: 0x%lx\n", what, static_cast<unsigned long>(code));
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
    for (size_t got; (got = std::fread(block, 1, sizeof block, file)) > 0;)
        data.insert(data.end(), block, block + got);
    bool whole = !std::ferror(file);
    std::fclose(file);
    if (!whole) std::fprintf(stderr, "cannot read %s\n", path);
    return whole;
}

/* The header of a binary PPM (P6) or PGM (P5) file of 8 bits a sample; 0 where it is none. */
inline size_t pnm_header(const std::vector<uint8_t>& data, int& channels, long& width, long& height) {
    if (data.size() < 2 || data[0] != 'P' || (data[1] != '5' && data[1] != '6')) return 0;
    channels = data[1] == '6' ? 3 : 1;
    long numbers[3] = {0, 0, 0};
    size_t at = 2;
    for (long& number : numbers) {
        for (;; ++at) {
            if (at >= data.size()) return 0;
            if (data[at] == '#')
                while (at < data.size() && data[at] != '\n') ++at;
            else if (!std::strchr(" \t\r\n", data[at]))
                break;
        }
        for (; at < data.size() && data[at] >= '0' && data[at] <= '9'; ++at) {
            number = number * 10 + (data[at] - '0');
            if (number > 65535) return 0;
        }
    }
    width = numbers[0];
    height = numbers[1];
    return numbers[2] == 255 && at < data.size() ? at + 1 : 0;
}

/* The bytes that the network's input takes, of a file that holds just these, or of an image that
   has the network's size: its colours are put in the network's order. */
inline bool read_input(const char* path, size_t bytes, std::vector<uint8_t>& input) {
    std::vector<uint8_t> data;
    if (!read_file(path, data)) return false;
    int channels = 0;
    long width = 0, height = 0;
    size_t start = INPUT_IS_IMAGE ? pnm_header(data, channels, width, height) : 0;
    if (start) {
        size_t count = static_cast<size_t>(width) * height * channels;
        if (width != INPUT_WIDTH || height != INPUT_HEIGHT || channels != INPUT_CHANNELS ||
            data.size() - start < count) {
            std::fprintf(stderr, "%s: %ldx%ld of %d channels, but the network takes %dx%d of %d\n",
                         path, width, height, channels, INPUT_WIDTH, INPUT_HEIGHT, INPUT_CHANNELS);
            return false;
        }
        data.assign(data.begin() + start, data.begin() + start + count);
        if (INPUT_IS_BGR)
            for (size_t pixel = 0; pixel + 2 < count; pixel += 3)
                std::swap(data[pixel], data[pixel + 2]);
    }
    if (data.size() != bytes) {
        std::fprintf(stderr, "%s: %zu bytes, but the network takes %zu\n", path, data.size(), bytes);
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

/* Print what an output says: each label with its probability or value, the largest first. */
inline void print_output(const char* name, const float* values, size_t count) {
    const Output* known = find_output(name);
    std::vector<double> shown(values, values + count);
    if (known && known->activation == Activation::softmax && count) {
        double top = *std::max_element(shown.begin(), shown.end()), sum = 0;
        for (double& value : shown) sum += value = std::exp(value - top);
        for (double& value : shown) value /= sum;
    } else if (known && known->activation == Activation::sigmoid) {
        for (double& value : shown) value = 1 / (1 + std::exp(-value));
    }
    bool labelled = known && known->labels && known->count == count;
    std::vector<size_t> order(count);
    for (size_t index = 0; index < count; ++index) order[index] = index;
    if (labelled)
        std::stable_sort(order.begin(), order.end(),
                         [&](size_t a, size_t b) { return shown[a] > shown[b]; });
    for (size_t index : order) {
        std::string word = labelled ? known->labels[index] : std::to_string(index);
        std::printf("%s\t%s\t%.6g\n", name, word.c_str(), shown[index]);
    }
}

/* Keep an output's numbers as they lie in memory, to be compared elsewhere. */
inline bool keep_output(const std::string& folder, const char* name, const void* data, size_t bytes) {
    std::string path = folder + "/" + name + ".bin";
    std::FILE* file = std::fopen(path.c_str(), "wb");
    bool kept = file && std::fwrite(data, 1, bytes, file) == bytes;
    if (file) kept = !std::fclose(file) && kept;
    if (!kept) std::fprintf(stderr, "cannot write %s\n", path.c_str());
    return kept;
}

/* Print each output, and keep it if there is a folder to keep it in; `meta` names and measures them. */
template <typename Meta, typename Buffer>
bool give_outputs(const Meta* meta, const std::vector<Buffer>& buffers, const char* folder) {
    for (size_t index = 0; index < buffers.size(); ++index) {
        const void* data = buffers[index].pVirAddr;
        if (folder && !keep_output(folder, meta[index].pName, data, meta[index].nSize)) return false;
        print_output(meta[index].pName, static_cast<const float*>(data), meta[index].nSize / 4);
    }
    return true;
}

}  // namespace network
