/* Growth doubles from 64 bytes, so appending n bytes copies O(n). */
#include "src/base/buf.h"

#include "src/base/assert.h"

#define CAPACITY_FIRST 64

void mp_buf_init(struct mp_buf *b, struct mp_alloc *a, size_t size_max)
{
    *b = (struct mp_buf){.alloc = a, .size_max = size_max};
}

void mp_buf_fini(struct mp_buf *b)
{
    if (b->alloc)
        mp_alloc_free(b->alloc, b->data, b->capacity);
    b->data = NULL;
    b->size = 0;
    b->capacity = 0;
}

enum mp_err mp_buf_grow(struct mp_buf *b, size_t extra)
{
    if (extra > SIZE_MAX / 4 || (b->size_max != 0 && extra > b->size_max - b->size))
        return MP_ETOOLARGE;
    size_t capacity = b->capacity == 0 ? CAPACITY_FIRST : b->capacity;
    while (capacity < b->size + extra)
        capacity *= 2;
    /* never beyond the limit, so that room at hand is room within the limit */
    if (b->size_max != 0 && capacity > b->size_max)
        capacity = b->size_max;
    void *data = b->alloc->resize(b->alloc->context, b->data, b->capacity, capacity);
    if (!data)
        return MP_ENOMEM;
    b->data = (uint8_t *)data;
    b->capacity = capacity;
    return MP_OK;
}

enum mp_err mp_buf_append(struct mp_buf *b, struct mp_slice s)
{
    enum mp_err err = mp_buf_reserve(b, s.size);
    if (err != MP_OK)
        return err;
    if (s.size != 0)
        memcpy(b->data + b->size, s.data, s.size);
    b->size += s.size;
    return MP_OK;
}

void mp_buf_drop(struct mp_buf *b, size_t count)
{
    mp_assert(count <= b->size);
    b->size -= count;
    if (b->size != 0 && count != 0)
        memmove(b->data, b->data + count, b->size);
}
