/* Selects the variant of each micro-kernel that runs, by the features of the x86-64 processor.
 *
 * A file that includes this uses DISPATCH(name) for each function: code with that name that jumps
 * to one of the pointers `name_forms`, in the order of the enum. All variants have the same
 * arguments and memory layouts, so the choice can change at any time.
 */
#ifndef ISA_H
#define ISA_H

#include <cpuid.h>
#include <stdint.h>
#include <string.h>

enum { V2, V3, V3_VNNI, V4, V4_VNNI, ISA_COUNT };

static const char *const isa_names[ISA_COUNT] = {"x86-64-v2", "x86-64-v3", "x86-64-v3-vnni",
                                                 "x86-64-v4", "x86-64-v4-vnni"};

/* The current variant; before one is chosen, the first, which runs on every processor. */
__attribute__((used)) static int32_t micro_isa = V2;

typedef void (*isa_form)(void);

/* rax and r11 contain no argument. */
#define DISPATCH(name) \
    __asm__(".pushsection .text." #name ",\"ax\",@progbits\n" \
            ".globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n" \
            "movslq micro_isa(%rip), %rax\n" \
            "leaq " #name "_forms(%rip), %r11\n" \
            "jmpq *(%r11,%rax,8)\n" \
            ".size " #name ", .-" #name "\n.popsection\n")

static int has_bits(unsigned bits, unsigned mask) { return (bits & mask) == mask; }

/* Return the best variant that this processor and its system support: leaves 1, 7 and 0x80000001 of
 * cpuid, and the registers that the system saves. */
static int32_t isa_detect(void)
{
    unsigned a, b, c, d, features, extended, leaf7_1 = 0, low = 0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_bits(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C |
                                                       bit_MOVBE))
        return V2;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has_bits(c, bit_LZCNT) || !has_bits(low, 0x06))
        return V2;
    if (!__get_cpuid_count(7, 0, &a, &features, &extended, &d) ||
        !has_bits(features, bit_AVX2 | bit_BMI | bit_BMI2))
        return V2;
    if (a > 0)
        __cpuid_count(7, 1, leaf7_1, b, c, d);
    if (has_bits(features,
                 bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL) &&
        has_bits(low, 0xe6))
        return has_bits(extended, bit_AVX512VNNI) ? V4_VNNI : V4;
    return has_bits(leaf7_1, 1u << 4) ? V3_VNNI : V3; /* AVX-VNNI */
}

/* Return whether a processor with the best variant `best` supports `isa`. */
static int isa_includes(int32_t best, int32_t isa)
{
    if (isa == V3_VNNI) { /* AVX-VNNI, which AVX512-VNNI does not imply */
        unsigned a, b, c, d;
        if (best < V3 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1)
            return 0;
        __cpuid_count(7, 1, a, b, c, d);
        return has_bits(a, 1u << 4);
    }
    return isa <= best;
}

/* Return the name of the current variant. */
const char *micro_isa_name(void)
{
    return isa_names[__atomic_load_n(&micro_isa, __ATOMIC_RELAXED)];
}

/* Choose a variant; NULL: the best one. Returns whether the processor supports it. */
int micro_isa_choose(const char *name)
{
    int32_t best = isa_detect(), isa = 0;
    while (name && isa < ISA_COUNT && strcmp(name, isa_names[isa]))
        isa++;
    if (!name)
        isa = best;
    if (isa == ISA_COUNT || !isa_includes(best, isa))
        return 0;
    __atomic_store_n(&micro_isa, isa, __ATOMIC_RELAXED);
    return 1;
}

__attribute__((constructor)) static void isa_choose_best(void) { micro_isa_choose(NULL); }

#endif
