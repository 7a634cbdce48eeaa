/* Calls kernels with arguments from a file, and writes their results into another.
 *
 * A record is: which kernel, how many arguments, and for each its kind, its size in bytes, and its
 * bytes unless it is blank. The last argument is the result. Each lies alone, as close to the end
 * of its pages as vectors may begin; the page behind it can neither be read nor written.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST = 24, VECTOR = 16, MARK = 0xa5 };
enum { GIVEN, BLANK };

typedef struct {
    unsigned char *start, *data;
    uint64_t nbytes, room, mapped;
    uint32_t kind;
    unsigned char *copy;
} argument;

typedef int (*body)(int task, void *environment, void *data);

static int launch(body run, void *data, int tasks)
{
    struct { void *handle; int tasks; } environment = {0, TASKS};
    int status = 0;
    (void)tasks;
    for (int task = 0; task < environment.tasks; task++)
        status |= run(task, &environment, data);
    return status;
}
int (*LAUNCH)(body, void *, int) = launch;

static void need(int fine, const char *what)
{
    if (!fine) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static void get(void *to, size_t size, FILE *file)
{
    need(fread(to, 1, size, file) == size, "the calls end early");
}

#ifdef __SANITIZE_ADDRESS__ /* which itself keeps away from what is around memory */
static void lay(argument *a)
{
    a->room = a->nbytes;
    need(!posix_memalign((void **)&a->start, VECTOR, a->nbytes), "no memory");
    a->data = a->start;
    memset(a->start, MARK, a->room);
}

static void release(argument *a)
{
    free(a->start);
}
#else
static void lay(argument *a)
{
    uint64_t page = 4096;
    a->room = (a->nbytes + VECTOR + page - 1) / page * page;
    a->mapped = a->room + page;
    a->start = mmap(NULL, a->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(a->start != MAP_FAILED, "no memory");
    need(!mprotect(a->start + a->room, page, PROT_NONE), "no guard");
    memset(a->start, MARK, a->room);
    a->data = a->start + (a->room - a->nbytes) / VECTOR * VECTOR;
}

static void release(argument *a)
{
    munmap(a->start, a->mapped);
}
#endif

static argument taken(FILE *calls)
{
    argument a = {0};
    get(&a.kind, sizeof a.kind, calls);
    get(&a.nbytes, sizeof a.nbytes, calls);
    lay(&a);
    if (a.kind == GIVEN) {
        get(a.data, a.nbytes, calls);
        a.copy = malloc(a.nbytes + 1);
        need(a.copy != NULL, "no memory");
        memcpy(a.copy, a.data, a.nbytes);
    }
    return a;
}

/* Whether nothing around an argument was written, nor what is read alone. */
static int whole(const argument *a)
{
    for (const unsigned char *at = a->start; at < a->data; at++)
        if (*at != MARK)
            return 0;
    for (const unsigned char *at = a->data + a->nbytes; at < a->start + a->room; at++)
        if (*at != MARK)
            return 0;
    return a->kind == BLANK || !memcmp(a->copy, a->data, a->nbytes);
}

#define P(i) (void *)given[i].data
static int call(int (*kernel)(), const argument *given)
{
    return ((int (*)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                     void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                     void *, void *, void *, void *))kernel)(
        P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), P(9), P(10), P(11), P(12), P(13),
        P(14), P(15), P(16), P(17), P(18), P(19), P(20), P(21), P(22), P(23));
}

int main(int count, char **paths)
{
    need(count == 3, "usage: calls CALLS RESULTS");
    FILE *calls = fopen(paths[1], "rb"), *results = fopen(paths[2], "wb");
    need(calls && results, "a file cannot be opened");
    uint32_t head[2];
    while (fread(head, sizeof head, 1, calls) == 1) {
        argument given[MOST] = {{0}};
        need(head[1] >= 1 && head[1] <= MOST, "too many arguments");
        for (uint32_t i = 0; i < head[1]; i++)
            given[i] = taken(calls);
        uint32_t status = call(kernels[head[0]], given) ? 1 : 0;
        for (uint32_t i = 0; i < head[1]; i++)
            status |= whole(&given[i]) ? 0 : 2;
        const argument *result = &given[head[1] - 1];
        need(fwrite(&status, sizeof status, 1, results) == 1, "a result cannot be written");
        need(fwrite(result->data, 1, result->nbytes, results) == result->nbytes,
             "a result cannot be written");
        for (uint32_t i = 0; i < head[1]; i++) {
            free(given[i].copy);
            release(&given[i]);
        }
    }
    return fclose(results) ? 1 : 0;
}
