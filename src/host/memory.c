/* The host's allocator: what the core asks for on every call (copies of arguments, tables) comes in
 * a few sizes again and again, so freed blocks up to 4 KiB are kept in lists by size class. Blocks
 * are never split or merged; each class keeps at most a bounded number.
 *
 * Larger ones are malloc's. glibc gives memory back to the system as it thinks fit, and moves its
 * own limits for that with the sizes it has seen: a value of 1 MiB then is mapped, filled with zero
 * pages by 256 faults and unmapped for each call, or not at all, as chance had it. So the limits
 * are fixed. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/host/host_internal.h"

#define CLASS_BYTES_MAX 4096u
#define CLASS_COUNT     8 /* 32, 64, … 4096 */
#define KEPT_MAX        1024
#define MAPPED_BYTES    (8 << 20)   /* blocks that are returned to the system when they are freed */
#define TRIMMED_BYTES   (16 << 20)  /* free memory at the end of the heap that is returned */
#define UNTRIMMED_BYTES (256 << 10) /* of what is kept for long: freed, before it is returned */

struct free_block {
    struct free_block *next;
};

static struct {
    struct free_block *first[CLASS_COUNT];
    uint32_t count[CLASS_COUNT];
} kept;

static unsigned class_of(size_t size)
{
    unsigned class = 0;
    for (size_t bytes = 32; bytes < size; bytes *= 2)
        class ++;
    return class;
}

static void *take(size_t size)
{
    if (size > CLASS_BYTES_MAX)
        return malloc(size);
    unsigned class = class_of(size);
    struct free_block *block = kept.first[class];
    if (!block)
        return malloc(32u << class);
    kept.first[class] = block->next;
    kept.count[class]--;
    return block;
}

static void give(void *p, size_t size)
{
    if (size > CLASS_BYTES_MAX || kept.count[class_of(size)] == KEPT_MAX) {
        free(p);
        return;
    }
    unsigned class = class_of(size);
    struct free_block *block = (struct free_block *)p;
    block->next = kept.first[class];
    kept.first[class] = block;
    kept.count[class]++;
}

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    if (new_size == 0) {
        if (p)
            give(p, old_size);
        return NULL;
    }
    if (!p)
        return take(new_size);
    if (old_size > CLASS_BYTES_MAX && new_size > CLASS_BYTES_MAX)
        return realloc(p, new_size);
    if (old_size <= CLASS_BYTES_MAX && new_size <= CLASS_BYTES_MAX &&
        class_of(old_size) == class_of(new_size))
        return p;
    void *q = take(new_size);
    if (!q)
        return NULL;
    memcpy(q, p, old_size < new_size ? old_size : new_size);
    give(p, old_size);
    return q;
}

void mp_host_memory_init(void)
{
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(M_TRIM_THRESHOLD, TRIMMED_BYTES);
#endif
}

void mp_host_memory_freed(size_t size)
{
#ifdef M_MMAP_THRESHOLD
    static size_t freed;
    freed += size;
    if (freed < UNTRIMMED_BYTES)
        return;
    freed = 0;
    malloc_trim(0);
#else
    (void)size;
#endif
}

struct mp_alloc *mp_host_alloc(void)
{
    static struct mp_alloc alloc = {.resize = resize};
    return &alloc;
}

void *mp_xalloc(size_t size)
{
    void *p = calloc(1, size);
    if (!p) {
        fputs("mpreg: out of memory\n", stderr);
        abort();
    }
    return p;
}
