/* Calls functions as standard input says, each array at a page that must not be touched.
 *
 * For each call: the function's index, 1 to put arrays behind a page or 0 before one, the number of
 * arguments; for each argument a kind (0 a number, 1 an array, 2 an array to write back) and the
 * number or the size, then the array's bytes. All int32. Exits with 3 where bytes beside an array
 * have changed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void (*function)(intptr_t, intptr_t, intptr_t, intptr_t, intptr_t, intptr_t, intptr_t,
                         intptr_t, intptr_t, intptr_t, intptr_t, intptr_t);
/* FUNCTIONS */

typedef struct {
    uint8_t *whole, *at;
    size_t pages, size;
} array;

static int32_t number(void)
{
    int32_t value;
    if (fread(&value, sizeof value, 1, stdin) != 1)
        exit(0);
    return value;
}

static array placed(size_t size, int behind)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (size + page) / page * page;
    array made = {NULL, NULL, inner + 2 * page, size};
    made.whole = mmap(NULL, made.pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made.whole == MAP_FAILED || mprotect(made.whole + page, inner, PROT_READ | PROT_WRITE))
        exit(4);
    memset(made.whole + page, 0xA5, inner);
    made.at = made.whole + page + (behind ? 0 : inner - size);
    if (size && fread(made.at, 1, size, stdin) != size)
        exit(5);
    return made;
}

static void returned(array *made, int wanted)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint8_t *p = made->whole + page; p < made->whole + made->pages - page; p++)
        if ((p < made->at || p >= made->at + made->size) && *p != 0xA5)
            exit(3);
    if (wanted)
        fwrite(made->at, 1, made->size, stdout);
    munmap(made->whole, made->pages);
}

int main(void)
{
    for (;;) {
        function called = functions[number()];
        int behind = number(), count = number();
        array arrays[12] = {{0}};
        int kinds[12] = {0};
        intptr_t given[12] = {0};
        for (int i = 0; i < count; i++) {
            kinds[i] = number();
            given[i] = number();
            if (kinds[i]) {
                arrays[i] = placed((size_t)given[i], behind);
                given[i] = (intptr_t)arrays[i].at;
            }
        }
        called(given[0], given[1], given[2], given[3], given[4], given[5], given[6], given[7],
               given[8], given[9], given[10], given[11]);
        for (int i = 0; i < count; i++)
            if (kinds[i])
                returned(&arrays[i], kinds[i] == 2);
    }
}
