/* A plugin of qemu's user mode: how often each block of a program's instructions ran.
 *
 *     qemu-arm -plugin ./count.so,out=FILE PROGRAM
 *
 * FILE gets lines of words:
 *
 *     mark clock|open|end     the program asked for the time, opened a file, or ended
 *     INDEX COUNT             behind a mark: how often a block ran since the mark before it
 *     heap BYTES              behind the last mark: the most memory that the program asked for
 *     block INDEX INSTRUCTIONS HEX    and what each block is
 *
 * So nothing in the program is there for the sake of being counted. qemu ships no header for its
 * plugins: what is used of its API is declared here. API is 1 up to qemu 8, 2 from 9 on.
 * Only programs of one thread are counted exactly.
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
    /* more follows */
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

/* The numbers of the system's calls that matter, on 32-bit ARM and on all newer architectures. */
typedef struct {
    const char *target;
    int64_t clock, clock64, open, openat, brk, mmap, munmap;
} calls;
static const calls known[] = {
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
/* what the program asked for: the first and last end of its heap, and its maps */
static uint64_t heap_start, heap_end, mapped, most, asked;
static int64_t asking;

static void ran(unsigned cpu, void *data)
{
    (void)cpu;
    ((block *)data)->count++;
}

static void copy(const struct qemu_plugin_insn *from, void *to, size_t size)
{
    if (version >= 3)
        ((data_from_3)qemu_plugin_insn_data)(from, to, size);
    else
        memcpy(to, ((data_until_2)qemu_plugin_insn_data)(from), size);
}

static void translated(plugin_id id, struct qemu_plugin_tb *from)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(from), size = 0;
    for (size_t i = 0; i < count; i++)
        size += qemu_plugin_insn_size(qemu_plugin_tb_get_insn(from, i));
    block *made = calloc(1, sizeof *made + size);
    if (!made)
        abort();
    unsigned char *to = made->code;
    for (size_t i = 0; i < count; i++) {
        const struct qemu_plugin_insn *each = qemu_plugin_tb_get_insn(from, i);
        copy(each, to, qemu_plugin_insn_size(each));
        to += qemu_plugin_insn_size(each);
    }
    made->index = block_count++;
    made->instructions = (uint32_t)count;
    made->bytes = (uint32_t)size;
    made->next = blocks;
    blocks = made;
    qemu_plugin_register_vcpu_tb_exec_cb(from, ran, 0, made);
}

static void mark(const char *what)
{
    fprintf(out, "mark %s\n", what);
    for (block *each = blocks; each; each = each->next) {
        if (each->count)
            fprintf(out, "%" PRIu32 " %" PRIu64 "\n", each->index, each->count);
        each->count = 0;
    }
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == numbers->clock || number == numbers->clock64)
        mark("clock");
    else if (number == numbers->open || number == numbers->openat)
        mark("open");
    asking = number;
    asked = b;
}

static void returned(plugin_id id, unsigned cpu, int64_t number, int64_t result)
{
    (void)id, (void)cpu;
    if (number == numbers->brk && result > 0) {
        if (!heap_start)
            heap_start = (uint64_t)result;
        heap_end = (uint64_t)result;
    } else if (number == numbers->mmap && asking == number && (result < -4095 || result > 0)) {
        mapped += asked;
    } else if (number == numbers->munmap && asking == number && result == 0) {
        mapped -= asked < mapped ? asked : mapped;
    }
    uint64_t now = mapped + (heap_end > heap_start ? heap_end - heap_start : 0);
    most = now > most ? now : most;
}

static void ended(plugin_id id, void *unused)
{
    (void)id, (void)unused;
    mark("end");
    fprintf(out, "heap %" PRIu64 "\n", most);
    for (block *each = blocks; each; each = each->next) {
        fprintf(out, "block %" PRIu32 " %" PRIu32 " ", each->index, each->instructions);
        for (uint32_t i = 0; i < each->bytes; i++)
            fprintf(out, "%02x", each->code[i]);
        fputc('\n', out);
    }
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int count, char **arguments)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(info->target_name, known[i].target))
            numbers = &known[i];
    if (!numbers || count != 1 || strncmp(arguments[0], "out=", 4))
        return 1;
    out = fopen(arguments[0] + 4, "w");
    if (!out)
        return 1;
    version = info->version.cur;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, returned);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
