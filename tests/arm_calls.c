/* Calls kernels with arguments from a file, and writes their results to another file.
 *
 * A record has the kernel's index, the number of arguments, and for each argument its kind, its
 * size in bytes, and its bytes unless it is blank. The last argument is the result. Each argument
 * has its own pages, and ends as close to their end as the alignment of vectors allows. The page
 * after it can be neither read nor written.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MAX_ARGUMENTS = 24, VECTOR = 16, MARK = 0xa5 };
enum { INPUT, BLANK };

typedef struct {
    unsigned char *start, *data;
    uint64_t nbytes, usable_bytes, mapped;
    uint32_t kind;
    unsigned char *copy;
} argument;

typedef int (*body)(int task, void *environment, void *data);

static int run_tasks(body run, void *data, int tasks)
{
    struct { void *handle; int tasks; } environment = {0, TASKS};
    int status = 0;
    (void)tasks;
    for (int task = 0; task < environment.tasks; task++)
        status |= run(task, &environment, data);
    return status;
}
int (*LAUNCH)(body, void *, int) = run_tasks;

static void require(int condition, const char *message)
{
    if (!condition) {
        fprintf(stderr, "%s\n", message);
        exit(1);
    }
}

static void read_bytes(void *to, size_t size, FILE *file)
{
    require(fread(to, 1, size, file) == size, "the calls end early");
}

#ifdef __SANITIZE_ADDRESS__ /* which protects memory around allocations itself */
static void allocate_argument(argument *a)
{
    a->usable_bytes = a->nbytes;
    require(!posix_memalign((void **)&a->start, VECTOR, a->nbytes), "no memory");
    a->data = a->start;
    memset(a->start, MARK, a->usable_bytes);
}

static void release(argument *a)
{
    free(a->start);
}
#else
static void allocate_argument(argument *a)
{
    uint64_t page = 4096;
    a->usable_bytes = (a->nbytes + VECTOR + page - 1) / page * page;
    a->mapped = a->usable_bytes + page;
    a->start = mmap(NULL, a->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(a->start != MAP_FAILED, "no memory");
    require(!mprotect(a->start + a->usable_bytes, page, PROT_NONE), "no guard");
    memset(a->start, MARK, a->usable_bytes);
    a->data = a->start + (a->usable_bytes - a->nbytes) / VECTOR * VECTOR;
}

static void release(argument *a)
{
    munmap(a->start, a->mapped);
}
#endif

static argument read_argument(FILE *calls)
{
    argument a = {0};
    read_bytes(&a.kind, sizeof a.kind, calls);
    read_bytes(&a.nbytes, sizeof a.nbytes, calls);
    allocate_argument(&a);
    if (a.kind == INPUT) {
        read_bytes(a.data, a.nbytes, calls);
        a.copy = malloc(a.nbytes + 1);
        require(a.copy != NULL, "no memory");
        memcpy(a.copy, a.data, a.nbytes);
    }
    return a;
}

/* Return whether the memory around an argument, and an input itself, are unchanged. */
static int is_untouched(const argument *a)
{
    for (const unsigned char *byte = a->start; byte < a->data; byte++)
        if (*byte != MARK)
            return 0;
    const unsigned char *end = a->start + a->usable_bytes;
    for (const unsigned char *byte = a->data + a->nbytes; byte < end; byte++)
        if (*byte != MARK)
            return 0;
    return a->kind == BLANK || !memcmp(a->copy, a->data, a->nbytes);
}

#define P(i) (void *)arguments[i].data
static int call_kernel(int (*kernel)(), const argument *arguments)
{
    return ((int (*)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                     void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                     void *, void *, void *, void *))kernel)(
        P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), P(9), P(10), P(11), P(12), P(13),
        P(14), P(15), P(16), P(17), P(18), P(19), P(20), P(21), P(22), P(23));
}

int main(int count, char **paths)
{
    require(count == 3, "usage: calls CALLS RESULTS");
    FILE *calls = fopen(paths[1], "rb"), *results = fopen(paths[2], "wb");
    require(calls && results, "a file cannot be opened");
    uint32_t head[2];
    while (fread(head, sizeof head, 1, calls) == 1) {
        argument arguments[MAX_ARGUMENTS] = {{0}};
        require(head[1] >= 1 && head[1] <= MAX_ARGUMENTS, "too many arguments");
        for (uint32_t i = 0; i < head[1]; i++)
            arguments[i] = read_argument(calls);
        uint32_t status = call_kernel(kernels[head[0]], arguments) ? 1 : 0;
        for (uint32_t i = 0; i < head[1]; i++)
            status |= is_untouched(&arguments[i]) ? 0 : 2;
        const argument *result = &arguments[head[1] - 1];
        require(fwrite(&status, sizeof status, 1, results) == 1, "a result cannot be written");
        require(fwrite(result->data, 1, result->nbytes, results) == result->nbytes,
                "a result cannot be written");
        for (uint32_t i = 0; i < head[1]; i++) {
            free(arguments[i].copy);
            release(&arguments[i]);
        }
    }
    return fclose(results) ? 1 : 0;
}
