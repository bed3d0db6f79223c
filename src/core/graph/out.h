/* Writing long maps and messages without checking every single put: the first error sticks, and is
 * looked at once, at the end. */
#pragma once

#include "src/base/buf.h"
#include "src/base/time.h"
#include "src/wire/msgpack.h"

#define MP_OUT_SHORT_MAX 31 /* bytes of a string whose length fits into its first byte */

struct mp_out {
    struct mp_buf *b;
    enum mp_err err;
};

static inline struct mp_out mp_out_of(struct mp_buf *b)
{
    return (struct mp_out){.b = b, .err = MP_OK};
}

/* Room for `size` more bytes, which then count as written; NULL after an error. Records are mostly
 * short keys and numbers: writing them in one go is what makes a step cheap to tell about. */
static inline uint8_t *mp_out_room(struct mp_out *o, size_t size)
{
    if (o->err == MP_OK)
        o->err = mp_buf_reserve(o->b, size);
    if (o->err != MP_OK)
        return NULL;
    uint8_t *at = o->b->data + o->b->size;
    o->b->size += size;
    return at;
}

static inline void mp_out_byte(struct mp_out *o, uint8_t byte)
{
    uint8_t *at = mp_out_room(o, 1);
    if (at)
        *at = byte;
}

/* MessagePack; most numbers and maps are small: one byte, which is written in place. */
static inline void mp_out_nil(struct mp_out *o)
{
    mp_out_byte(o, 0xc0);
}
static inline void mp_out_bool(struct mp_out *o, bool v)
{
    mp_out_byte(o, v ? 0xc3 : 0xc2);
}
void mp_out_large_uint(struct mp_out *o, uint64_t v);
static inline void mp_out_uint(struct mp_out *o, uint64_t v)
{
    if (v <= 0x7f)
        mp_out_byte(o, (uint8_t)v);
    else
        mp_out_large_uint(o, v);
}
void mp_out_float(struct mp_out *o, double v);
void mp_out_str(struct mp_out *o, struct mp_slice s);
/* A key, mostly: where it is known when this is compiled, it is two stores. */
static inline void mp_out_text(struct mp_out *o, const char *text)
{
    size_t size = strlen(text);
    if (!__builtin_constant_p(size) || size > MP_OUT_SHORT_MAX) {
        mp_out_str(o, mp_slice_of(text, size));
        return;
    }
    uint8_t *at = mp_out_room(o, 1 + size);
    if (!at)
        return;
    *at = (uint8_t)(0xa0 | size);
    memcpy(at + 1, text, size);
}
/* An empty slice is nil. */
static inline void mp_out_str_or_nil(struct mp_out *o, struct mp_slice s)
{
    if (s.size == 0)
        mp_out_nil(o);
    else
        mp_out_str(o, s);
}
void mp_out_array(struct mp_out *o, uint32_t count);
void mp_out_large_map(struct mp_out *o, uint32_t pairs);
static inline void mp_out_map(struct mp_out *o, uint32_t pairs)
{
    if (pairs <= 15)
        mp_out_byte(o, (uint8_t)(0x80 | pairs));
    else
        mp_out_large_map(o, pairs);
}
void mp_out_bytes(struct mp_out *o, struct mp_slice s);
/* An encoded value; nil for an empty slice. */
static inline void mp_out_raw(struct mp_out *o, struct mp_slice s)
{
    if (s.size == 0)
        mp_out_nil(o);
    else
        mp_out_bytes(o, s);
}
/* Milliseconds, rounded to a microsecond. */
void mp_out_ms(struct mp_out *o, mp_duration d);

/* Plain text: %s a struct mp_slice (cut if it is long), %t a const char *, %u a uint64_t. */
void mp_out_say(struct mp_out *o, const char *format, ...);
/* A number as text: integers whole, others with at most six decimals. */
void mp_out_number(struct mp_out *o, double v);
