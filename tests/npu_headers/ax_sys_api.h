/* A stub of AXERA's system API, and the network that the other stubs run. Names, types and
   signatures are the same as in the vendor's public headers (docs/pulsar.md lists them). The bodies
   are written for these tests. Reserved members are omitted: nothing reads them. */
#pragma once
#include <cstdlib>

typedef char AX_CHAR;
typedef signed char AX_S8;
typedef unsigned char AX_U8;
typedef int AX_S32;
typedef unsigned int AX_U32;
typedef unsigned long long int AX_U64;
typedef unsigned long AX_ADDR;
typedef void AX_VOID;
typedef enum { AX_FALSE = 0, AX_TRUE = 1 } AX_BOOL;

inline void* stub_memory(AX_U32 size) { return std::malloc(size); }
inline void stub_release(void* memory) { std::free(memory); }
/* Write three sums of bytes, at offsets 0, 3, ..., at 1, 4, ... and at 2, 5, ..., each divided by
   1000. */
inline void stub_run(const void* input, AX_U32 size, void* output) {
    float sums[3] = {0, 0, 0};
    for (AX_U32 offset = 0; offset < size; ++offset)
        sums[offset % 3] += static_cast<float>(static_cast<const AX_U8*>(input)[offset]) / 1000.0f;
    for (int i = 0; i < 3; ++i) static_cast<float*>(output)[i] = sums[i];
}

extern "C" {
inline AX_S32 AX_SYS_Init(AX_VOID) { return 0; }
inline AX_S32 AX_SYS_Deinit(AX_VOID) { return 0; }
inline AX_S32 AX_SYS_MemAlloc(AX_U64* physical, AX_VOID** memory, AX_U32 size, AX_U32 alignment,
                              const AX_S8* token) {
    *physical = 0;
    *memory = stub_memory(size);
    return token && alignment ? 0 : 0x80;
}
inline AX_S32 AX_SYS_MemFree(AX_U64, AX_VOID* memory) {
    stub_release(memory);
    return 0;
}
}
