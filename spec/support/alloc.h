/* An allocator for specs: counts what lives, and fails the n-th allocation on request. */
#pragma once

#include <stdlib.h>

#include "src/base/alloc.h"

#define SPEC_NEVER ((size_t)-1)

struct spec_alloc {
    size_t fail_at; /* this allocation (from 0) and all later ones fail; SPEC_NEVER: none */
    size_t count;   /* growing requests so far */
    size_t live_bytes;
};

static inline void *spec_alloc_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct spec_alloc *a = (struct spec_alloc *)context;
    if (new_size == 0) {
        free(p);
        a->live_bytes -= old_size;
        return NULL;
    }
    if (new_size > old_size && a->count++ >= a->fail_at)
        return NULL;
    void *q = realloc(p, new_size);
    if (q)
        a->live_bytes += new_size - old_size;
    return q;
}

static inline struct mp_alloc spec_alloc_of(struct spec_alloc *a)
{
    return (struct mp_alloc){.resize = spec_alloc_resize, .context = a};
}
