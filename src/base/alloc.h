/* Memory comes in as an argument: core code never calls malloc. */
#pragma once

#include <stddef.h>

struct mp_alloc {
    /* Like realloc with the old size told: `p` NULL and `old_size` 0 allocate, `new_size` 0 frees
     * (and returns NULL). Returns NULL on failure, `p` then being untouched. Alignment is 16. */
    void *(*resize)(void *context, void *p, size_t old_size, size_t new_size);
    void *context;
};

static inline void *mp_alloc_take(struct mp_alloc *a, size_t size)
{
    return a->resize(a->context, NULL, 0, size);
}

static inline void mp_alloc_free(struct mp_alloc *a, void *p, size_t size)
{
    if (p)
        a->resize(a->context, p, size, 0);
}
