#include "src/binding/libc_alloc.h"

#include <stdlib.h>

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}

struct mp_alloc mp_libc_alloc = {.resize = resize};
