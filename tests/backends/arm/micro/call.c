/* Calls functions with arguments from standard input; each array is next to a protected page.
 *
 * For each call: the function's index, 1 to put arrays after a protected page or 0 before one, and
 * the number of arguments. For each argument: its kind (0 a number, 1 an array, 2 an array to write
 * back), and the number or the size, then the array's bytes. All are int32. Exits with 3 if bytes
 * around an array have changed.
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
    uint8_t *mapping, *data;
    size_t pages, size;
} array;

static int32_t read_number(void)
{
    int32_t value;
    if (fread(&value, sizeof value, 1, stdin) != 1)
        exit(0);
    return value;
}

static array read_array(size_t size, int behind)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (size + page) / page * page;
    array buffer = {NULL, NULL, inner + 2 * page, size};
    buffer.mapping = mmap(NULL, buffer.pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer.mapping == MAP_FAILED ||
        mprotect(buffer.mapping + page, inner, PROT_READ | PROT_WRITE))
        exit(4);
    memset(buffer.mapping + page, 0xA5, inner);
    buffer.data = buffer.mapping + page + (behind ? 0 : inner - size);
    if (size && fread(buffer.data, 1, size, stdin) != size)
        exit(5);
    return buffer;
}

static void write_array(array *buffer, int is_output)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint8_t *p = buffer->mapping + page; p < buffer->mapping + buffer->pages - page; p++)
        if ((p < buffer->data || p >= buffer->data + buffer->size) && *p != 0xA5)
            exit(3);
    if (is_output)
        fwrite(buffer->data, 1, buffer->size, stdout);
    munmap(buffer->mapping, buffer->pages);
}

int main(void)
{
    for (;;) {
        function callee = functions[read_number()];
        int behind = read_number(), count = read_number();
        array arrays[12] = {{0}};
        int kinds[12] = {0};
        intptr_t arguments[12] = {0};
        for (int i = 0; i < count; i++) {
            kinds[i] = read_number();
            arguments[i] = read_number();
            if (kinds[i]) {
                arrays[i] = read_array((size_t)arguments[i], behind);
                arguments[i] = (intptr_t)arrays[i].data;
            }
        }
        callee(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5],
               arguments[6], arguments[7], arguments[8], arguments[9], arguments[10],
               arguments[11]);
        for (int i = 0; i < count; i++)
            if (kinds[i])
                write_array(&arrays[i], kinds[i] == 2);
    }
}
