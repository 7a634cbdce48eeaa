/* Which form of each micro-kernel runs, by what an x86-64 processor can do.
 *
 * A file that includes this has DISPATCH(name) for each function: code of that name that jumps to
 * one of the pointers `name_forms`, in the order of the enum. All forms take the same arguments, in
 * memory of the same layout, so that the choice may change at any time.
 */
#ifndef ISA_H
#define ISA_H

#include <cpuid.h>
#include <stdint.h>
#include <string.h>

enum { V2, V3, V3_VNNI, V4, V4_VNNI, ISA_COUNT };

static const char *const isa_names[ISA_COUNT] = {"x86-64-v2", "x86-64-v3", "x86-64-v3-vnni",
                                                 "x86-64-v4", "x86-64-v4-vnni"};

/* What runs; what is known before this is chosen is that any processor has the first. */
__attribute__((used)) static int32_t micro_isa = V2;

typedef void (*isa_form)(void);

/* rax and r11 hold no argument. */
#define DISPATCH(name) \
    __asm__(".pushsection .text." #name ",\"ax\",@progbits\n" \
            ".globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n" \
            "movslq micro_isa(%rip), %rax\n" \
            "leaq " #name "_forms(%rip), %r11\n" \
            "jmpq *(%r11,%rax,8)\n" \
            ".size " #name ", .-" #name "\n.popsection\n")

static int has(unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; }

/* Return the best that this processor and its system have: leaves 1, 7 and 0x80000001 of cpuid, and
 * which registers the system saves. */
static int32_t isa_found(void)
{
    unsigned a, b, c, d, features, extended, more = 0, low = 0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C |
                                                       bit_MOVBE))
        return V2;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, bit_LZCNT) || !has(low, 0x06))
        return V2;
    if (!__get_cpuid_count(7, 0, &a, &features, &extended, &d) ||
        !has(features, bit_AVX2 | bit_BMI | bit_BMI2))
        return V2;
    if (a > 0)
        __cpuid_count(7, 1, more, b, c, d);
    if (has(features, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL) &&
        has(low, 0xe6))
        return has(extended, bit_AVX512VNNI) ? V4_VNNI : V4;
    return has(more, 1u << 4) ? V3_VNNI : V3; /* AVX-VNNI */
}

/* Whether a processor that has the one has the other. */
static int isa_includes(int32_t found, int32_t isa)
{
    if (isa == V3_VNNI) { /* which is AVX-VNNI, and not implied by AVX512-VNNI */
        unsigned a, b, c, d;
        if (found < V3 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1)
            return 0;
        __cpuid_count(7, 1, a, b, c, d);
        return has(a, 1u << 4);
    }
    return isa <= found;
}

/* Return the name of what runs. */
const char *micro_isa_name(void) { return isa_names[__atomic_load_n(&micro_isa, __ATOMIC_RELAXED)]; }

/* Choose what runs; NULL: the best that there is. Returns whether the processor has it. */
int micro_isa_choose(const char *name)
{
    int32_t found = isa_found(), isa = 0;
    while (name && isa < ISA_COUNT && strcmp(name, isa_names[isa]))
        isa++;
    if (!name)
        isa = found;
    if (isa == ISA_COUNT || !isa_includes(found, isa))
        return 0;
    __atomic_store_n(&micro_isa, isa, __ATOMIC_RELAXED);
    return 1;
}

__attribute__((constructor)) static void isa_choose_best(void) { micro_isa_choose(NULL); }

#endif
