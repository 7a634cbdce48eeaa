/* Stand-ins of our own for AXERA's system API, and the network that the other stand-ins have. */
#pragma once
#include <cstdint>
#include <cstdlib>

typedef char AX_CHAR;
typedef signed char AX_S8;
typedef unsigned char AX_U8;
typedef int32_t AX_S32;
typedef uint32_t AX_U32;
typedef uint64_t AX_U64;
typedef void AX_VOID;

inline AX_S32 AX_SYS_Init() { return 0; }
inline AX_S32 AX_SYS_Deinit() { return 0; }
inline void* stub_memory(AX_U32 size) { return std::malloc(size); }
inline void stub_release(void* memory) { std::free(memory); }
inline AX_S32 AX_SYS_MemAlloc(AX_U64*, AX_VOID** memory, AX_U32 size, AX_U32, const AX_S8*) {
    *memory = stub_memory(size);
    return 0;
}
inline AX_S32 AX_SYS_MemFree(AX_U64, AX_VOID* memory) {
    stub_release(memory);
    return 0;
}
/* The sums of the bytes at places 0, 3, ..., at 1, 4, ... and at 2, 5, ..., as shares of 1000. */
inline void stub_run(const void* input, AX_U32 size, void* output) {
    float sums[3] = {0, 0, 0};
    for (AX_U32 at = 0; at < size; ++at) sums[at % 3] += ((const AX_U8*)input)[at] / 1000.0f;
    for (int each = 0; each < 3; ++each) ((float*)output)[each] = sums[each];
}
