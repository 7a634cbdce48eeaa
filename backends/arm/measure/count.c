/* A plugin for qemu's user mode that counts how often each block of a program's instructions runs.
 *
 *     qemu-arm -plugin ./count.so,out=FILE PROGRAM
 *
 * FILE has these lines:
 *
 *     mark clock|open|end     the program read the clock, opened a file, or ended
 *     INDEX COUNT             after a mark: the runs of a block since the previous mark
 *     heap BYTES              after the last mark: the peak of the program's requested memory
 *     block INDEX INSTRUCTIONS HEX    at the end: the code of each block
 *
 * The program itself needs no changes to be counted. qemu ships no header for its plugins: the
 * parts of its API that are used are declared here. API is 1 up to qemu 8, and 2 from 9 on. Counts
 * are exact only for programs with one thread.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    /* more fields follow */
} plugin_info;

typedef void (*translated_call)(plugin_id, struct qemu_plugin_tb *);
typedef void (*run_call)(unsigned, void *);
typedef void (*system_call)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                            uint64_t, uint64_t, uint64_t, uint64_t);
typedef void (*returned_call)(plugin_id, unsigned, int64_t, int64_t);
typedef void (*ended_call)(plugin_id, void *);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_call);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, run_call, int, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, system_call);
extern void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, returned_call);
extern void qemu_plugin_register_atexit_cb(plugin_id, ended_call, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern void qemu_plugin_insn_data(void); /* its signature depends on the version */

typedef const void *(*data_until_2)(const struct qemu_plugin_insn *);
typedef size_t (*data_from_3)(const struct qemu_plugin_insn *, void *, size_t);

EXPORT int qemu_plugin_version = API;

/* The numbers of the relevant system calls by target. */
typedef struct {
    const char *target;
    int64_t clock, clock64, open, openat, brk, mmap, munmap;
} calls;
static const calls known_targets[] = {
    {"arm", 263, 403, 5, 322, 45, 192, 91},
    {"aarch64", 113, 113, 56, 56, 214, 222, 215},
    {"x86_64", 228, 228, 2, 257, 12, 9, 11},
};
static const calls *numbers;

typedef struct block {
    struct block *next;
    uint64_t count;
    uint32_t index, instructions, bytes;
    unsigned char code[];
} block;

static block *blocks;
static uint32_t block_count;
static FILE *out;
static int version;
/* the memory of the program: start and end of its heap, and the size of its maps */
static uint64_t heap_start, heap_end, mapped, peak, requested_bytes;
static int64_t pending_call;

static void count_block(unsigned cpu, void *data)
{
    (void)cpu;
    ((block *)data)->count++;
}

static void copy_code(const struct qemu_plugin_insn *from, void *to, size_t size)
{
    if (version >= 3)
        ((data_from_3)qemu_plugin_insn_data)(from, to, size);
    else
        memcpy(to, ((data_until_2)qemu_plugin_insn_data)(from), size);
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *from)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(from), size = 0;
    for (size_t i = 0; i < count; i++)
        size += qemu_plugin_insn_size(qemu_plugin_tb_get_insn(from, i));
    block *basic_block = calloc(1, sizeof *basic_block + size);
    if (!basic_block)
        abort();
    unsigned char *to = basic_block->code;
    for (size_t i = 0; i < count; i++) {
        const struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(from, i);
        copy_code(instruction, to, qemu_plugin_insn_size(instruction));
        to += qemu_plugin_insn_size(instruction);
    }
    basic_block->index = block_count++;
    basic_block->instructions = (uint32_t)count;
    basic_block->bytes = (uint32_t)size;
    basic_block->next = blocks;
    blocks = basic_block;
    qemu_plugin_register_vcpu_tb_exec_cb(from, count_block, 0, basic_block);
}

static void mark(const char *name)
{
    fprintf(out, "mark %s\n", name);
    for (block *basic_block = blocks; basic_block; basic_block = basic_block->next) {
        if (basic_block->count)
            fprintf(out, "%" PRIu32 " %" PRIu64 "\n", basic_block->index, basic_block->count);
        basic_block->count = 0;
    }
}

static void on_syscall(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b,
                       uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == numbers->clock || number == numbers->clock64)
        mark("clock");
    else if (number == numbers->open || number == numbers->openat)
        mark("open");
    pending_call = number;
    requested_bytes = b;
}

static void on_syscall_return(plugin_id id, unsigned cpu, int64_t number, int64_t result)
{
    (void)id, (void)cpu;
    if (number == numbers->brk && result > 0) {
        if (!heap_start)
            heap_start = (uint64_t)result;
        heap_end = (uint64_t)result;
    } else if (number == numbers->mmap && pending_call == number &&
               (result < -4095 || result > 0)) {
        mapped += requested_bytes;
    } else if (number == numbers->munmap && pending_call == number && result == 0) {
        mapped -= requested_bytes < mapped ? requested_bytes : mapped;
    }
    uint64_t in_use = mapped + (heap_end > heap_start ? heap_end - heap_start : 0);
    peak = in_use > peak ? in_use : peak;
}

static void on_program_exit(plugin_id id, void *unused)
{
    (void)id, (void)unused;
    mark("end");
    fprintf(out, "heap %" PRIu64 "\n", peak);
    for (block *basic_block = blocks; basic_block; basic_block = basic_block->next) {
        fprintf(out, "block %" PRIu32 " %" PRIu32 " ", basic_block->index,
                basic_block->instructions);
        for (uint32_t i = 0; i < basic_block->bytes; i++)
            fprintf(out, "%02x", basic_block->code[i]);
        fputc('\n', out);
    }
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int count, char **arguments)
{
    for (size_t i = 0; i < sizeof known_targets / sizeof *known_targets; i++)
        if (!strcmp(info->target_name, known_targets[i].target))
            numbers = &known_targets[i];
    if (!numbers || count != 1 || strncmp(arguments[0], "out=", 4))
        return 1;
    out = fopen(arguments[0] + 4, "w");
    if (!out)
        return 1;
    version = info->version.cur;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_syscall_return);
    qemu_plugin_register_atexit_cb(id, on_program_exit, NULL);
    return 0;
}
