/* A growable byte buffer over an mp_alloc. Zeroed it is valid and empty once `alloc` is set. */
#pragma once

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

struct mp_buf {
    /* read */
    uint8_t *data;
    size_t size;
    /* private */
    size_t capacity;
    size_t size_max; /* 0: no limit */
    struct mp_alloc *alloc;
};

void mp_buf_init(struct mp_buf *b, struct mp_alloc *a, size_t size_max);
void mp_buf_fini(struct mp_buf *b);
/* mp_buf_reserve where there is no room yet. */
MP_MUST_USE enum mp_err mp_buf_grow(struct mp_buf *b, size_t extra);
/* Makes room for `extra` more bytes. MP_ENOMEM, or MP_ETOOLARGE over size_max; b is then as before.
 */
MP_MUST_USE static inline enum mp_err mp_buf_reserve(struct mp_buf *b, size_t extra)
{
    return extra <= b->capacity - b->size ? MP_OK : mp_buf_grow(b, extra);
}
MP_MUST_USE enum mp_err mp_buf_append(struct mp_buf *b, struct mp_slice s);
MP_MUST_USE static inline enum mp_err mp_buf_append_byte(struct mp_buf *b, uint8_t byte)
{
    enum mp_err err = mp_buf_reserve(b, 1);
    if (err == MP_OK)
        b->data[b->size++] = byte;
    return err;
}
/* Drops the first `count` bytes (count <= size), moving the rest to the front. */
void mp_buf_drop(struct mp_buf *b, size_t count);

static inline struct mp_slice mp_buf_slice(const struct mp_buf *b)
{
    return (struct mp_slice){.data = b->data, .size = b->size};
}

static inline void mp_buf_clear(struct mp_buf *b)
{
    b->size = 0;
}
