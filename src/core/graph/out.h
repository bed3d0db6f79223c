/* Writing long maps and messages without checking every single put: the first error sticks, and is
 * looked at once, at the end. */
#pragma once

#include "src/base/assert.h"
#include "src/base/buf.h"
#include "src/base/time.h"
#include "src/wire/msgpack.h"

#define MP_OUT_SHORT_MAX 31 /* bytes of a string whose length fits into its first byte */

/* --- where there is room --- */

#define MP_AT_HEAD_MAX       MP_MP_HEAD_MAX
#define MP_AT_MS_MAX         9
#define MP_AT_STR_MAX(slice) (MP_AT_HEAD_MAX + (slice).size)

/* Each writes a value at `at`, where there is room for it, and gives where the next one goes. */
static inline uint8_t *mp_at_nil(uint8_t *at)
{
    *at = 0xc0;
    return at + 1;
}

static inline uint8_t *mp_at_uint(uint8_t *at, uint64_t v)
{
    if (v > 0x7f)
        return mp_mp_write_uint(at, v);
    *at = (uint8_t)v;
    return at + 1;
}

/* A key that is known when this is compiled, of MP_OUT_SHORT_MAX bytes at most: two stores. */
static inline uint8_t *mp_at_text(uint8_t *at, const char *text)
{
    size_t size = strlen(text);
    *at = (uint8_t)(0xa0 | size);
    memcpy(at + 1, text, size);
    return at + 1 + size;
}

static inline uint8_t *mp_at_map(uint8_t *at, uint32_t pairs)
{
    if (pairs > 15)
        return mp_mp_write_map(at, pairs);
    *at = (uint8_t)(0x80 | pairs);
    return at + 1;
}

static inline uint8_t *mp_at_array(uint8_t *at, uint32_t count)
{
    if (count > 15)
        return mp_mp_write_array(at, count);
    *at = (uint8_t)(0x90 | count);
    return at + 1;
}

/* Names are short: without a call of memcpy for each. */
static inline uint8_t *mp_at_copy(uint8_t *at, struct mp_slice s)
{
    if (s.size > 32) {
        memcpy(at, s.data, s.size);
    } else if (s.size >= 16) {
        memcpy(at, s.data, 16);
        memcpy(at + s.size - 16, s.data + s.size - 16, 16);
    } else if (s.size >= 8) {
        memcpy(at, s.data, 8);
        memcpy(at + s.size - 8, s.data + s.size - 8, 8);
    } else {
        for (size_t i = 0; i < s.size; i++)
            at[i] = s.data[i];
    }
    return at + s.size;
}

static inline uint8_t *mp_at_str(uint8_t *at, struct mp_slice s)
{
    if (s.size > MP_OUT_SHORT_MAX)
        return mp_at_copy(mp_mp_write_str_head(at, (uint32_t)s.size), s);
    *at = (uint8_t)(0xa0 | s.size);
    return mp_at_copy(at + 1, s);
}

/* An empty slice is nil. */
static inline uint8_t *mp_at_str_or_nil(uint8_t *at, struct mp_slice s)
{
    return s.size != 0 ? mp_at_str(at, s) : mp_at_nil(at);
}

static inline uint8_t *mp_at_float(uint8_t *at, double v)
{
    uint64_t raw;
    memcpy(&raw, &v, 8);
    /* Written out, so that it becomes one store: a record is full of times. */
    at[0] = 0xcb;
    at[1] = (uint8_t)(raw >> 56);
    at[2] = (uint8_t)(raw >> 48);
    at[3] = (uint8_t)(raw >> 40);
    at[4] = (uint8_t)(raw >> 32);
    at[5] = (uint8_t)(raw >> 24);
    at[6] = (uint8_t)(raw >> 16);
    at[7] = (uint8_t)(raw >> 8);
    at[8] = (uint8_t)raw;
    return at + 9;
}

/* Milliseconds, rounded to a microsecond. */
static inline uint8_t *mp_at_ms(uint8_t *at, mp_duration d)
{
    return mp_at_float(at, d == 0 ? 0 : (double)((d + 500) / 1000) / 1000.0);
}

/* --- into a buffer --- */

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

/* Room for `most` bytes, of which mp_out_end() says how many were written: for many fields of which
 * none looks for room again. NULL after an error. */
static inline uint8_t *mp_out_begin(struct mp_out *o, size_t most)
{
    if (o->err == MP_OK)
        o->err = mp_buf_reserve(o->b, most);
    return o->err == MP_OK ? o->b->data + o->b->size : NULL;
}

static inline void mp_out_end(struct mp_out *o, const uint8_t *at)
{
    o->b->size = (size_t)(at - o->b->data);
    mp_assert(o->b->size <= o->b->capacity);
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
static inline void mp_out_uint(struct mp_out *o, uint64_t v)
{
    uint8_t *at = mp_out_begin(o, MP_AT_HEAD_MAX);
    if (at)
        mp_out_end(o, mp_at_uint(at, v));
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
    if (at)
        mp_at_text(at, text);
}
/* An empty slice is nil. */
static inline void mp_out_str_or_nil(struct mp_out *o, struct mp_slice s)
{
    if (s.size == 0)
        mp_out_nil(o);
    else
        mp_out_str(o, s);
}
static inline void mp_out_array(struct mp_out *o, uint32_t count)
{
    uint8_t *at = mp_out_begin(o, MP_AT_HEAD_MAX);
    if (at)
        mp_out_end(o, mp_at_array(at, count));
}
static inline void mp_out_map(struct mp_out *o, uint32_t pairs)
{
    uint8_t *at = mp_out_begin(o, MP_AT_HEAD_MAX);
    if (at)
        mp_out_end(o, mp_at_map(at, pairs));
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

/* --- text --- */

/* Plain text: %s a struct mp_slice (cut if it is long), %t a const char *, %u a uint64_t. */
void mp_out_say(struct mp_out *o, const char *format, ...);
/* A number as text: integers whole, others with at most six decimals. */
void mp_out_number(struct mp_out *o, double v);
