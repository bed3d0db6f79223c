/* MessagePack (the 2013 format with str and bin): a reader that walks bytes without building
 * anything, and a writer onto an mp_buf. The reader never reads past its end, never allocates, and
 * never believes a count: a container of n elements needs at least n bytes (2n for a map). */
#pragma once

#include <stdbool.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

enum mp_mp_type {
    MP_MP_NIL,
    MP_MP_BOOL,
    MP_MP_UINT, /* token.u: any non-negative integer */
    MP_MP_INT,  /* token.i: a negative integer */
    MP_MP_FLOAT,
    MP_MP_STR,
    MP_MP_BIN,
    MP_MP_ARRAY,
    MP_MP_MAP,
    MP_MP_EXT
};

struct mp_mp_token {
    enum mp_mp_type type;
    union {
        bool b;
        uint64_t u;
        int64_t i;
        double f;
        uint32_t count;        /* ARRAY: elements; MAP: pairs */
        struct mp_slice bytes; /* STR, BIN, EXT (without its type) */
    };
    int8_t ext_type;
};

struct mp_mp_reader {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct mp_mp_reader mp_mp_reader_of(struct mp_slice s)
{
    return (struct mp_mp_reader){.at = s.data, .end = s.data + s.size};
}

static inline bool mp_mp_is_at_end(const struct mp_mp_reader *r)
{
    return r->at == r->end;
}

/* Reads one token: a scalar whole, or a container's header (its elements follow).
 * MP_ECORRUPT on truncation, on 0xc1, or when a count exceeds the bytes left. */
MP_MUST_USE enum mp_err mp_mp_next(struct mp_mp_reader *r, struct mp_mp_token *token);
/* Passes over one whole value without recursion. MP_EDEPTH over MP_DEPTH_MAX + 8 containers. */
MP_MUST_USE enum mp_err mp_mp_skip(struct mp_mp_reader *r);
/* Reads one whole value as the slice of its bytes. */
MP_MUST_USE enum mp_err mp_mp_take(struct mp_mp_reader *r, struct mp_slice *value);
/* Whether `value` is exactly one well-formed value, at most MP_DEPTH_MAX + 8 deep. */
MP_MUST_USE enum mp_err mp_mp_check(struct mp_slice value);

/* The type of the value that starts a non-empty slice; MP_MP_EXT for the reserved byte. */
enum mp_mp_type mp_mp_type_of(struct mp_slice value);
/* The value under a string key of a map: its bytes. MP_ETYPE if `map` is no map, MP_ENOENT. With a
 * repeated key the first one counts. */
MP_MUST_USE enum mp_err mp_mp_map_get(struct mp_slice map, struct mp_slice key,
                                      struct mp_slice *value);
/* Element `index` from 0 of an array. MP_ETYPE, MP_ENOENT. */
MP_MUST_USE enum mp_err mp_mp_array_get(struct mp_slice array, uint32_t index,
                                        struct mp_slice *value);
/* Scalars out of a value's bytes; MP_ETYPE otherwise. An integral float counts as an integer. */
MP_MUST_USE enum mp_err mp_mp_get_str(struct mp_slice value, struct mp_slice *text);
MP_MUST_USE enum mp_err mp_mp_get_bool(struct mp_slice value, bool *b);
MP_MUST_USE enum mp_err mp_mp_get_int(struct mp_slice value, int64_t *i); /* also MP_ERANGE */
MP_MUST_USE enum mp_err mp_mp_get_number(struct mp_slice value, double *f);
/* Elements of an array, or pairs of a map; MP_ETYPE. */
MP_MUST_USE enum mp_err mp_mp_get_array(struct mp_slice value, uint32_t *count,
                                        struct mp_mp_reader *elements);
MP_MUST_USE enum mp_err mp_mp_get_map(struct mp_slice value, uint32_t *count,
                                      struct mp_mp_reader *pairs);

/* Writers into room that is there, of MP_MP_HEAD_MAX bytes at least: the shortest form of a number,
 * or what stands before the bytes of a string, elements or pairs. They give where what follows
 * goes. */
#define MP_MP_HEAD_MAX 9
uint8_t *mp_mp_write_uint(uint8_t *at, uint64_t v);
uint8_t *mp_mp_write_str_head(uint8_t *at, uint32_t size);
uint8_t *mp_mp_write_array(uint8_t *at, uint32_t count);
uint8_t *mp_mp_write_map(uint8_t *at, uint32_t pairs);

/* Writers: the shortest form. Errors are those of mp_buf_append; the buffer may then hold a part.
 */
MP_MUST_USE enum mp_err mp_mp_put_nil(struct mp_buf *b);
MP_MUST_USE enum mp_err mp_mp_put_bool(struct mp_buf *b, bool v);
MP_MUST_USE enum mp_err mp_mp_put_uint(struct mp_buf *b, uint64_t v);
MP_MUST_USE enum mp_err mp_mp_put_int(struct mp_buf *b, int64_t v);
MP_MUST_USE enum mp_err mp_mp_put_float(struct mp_buf *b, double v);
MP_MUST_USE enum mp_err mp_mp_put_str(struct mp_buf *b, struct mp_slice v);
MP_MUST_USE enum mp_err mp_mp_put_text(struct mp_buf *b, const char *v);
MP_MUST_USE enum mp_err mp_mp_put_bin(struct mp_buf *b, struct mp_slice v);
MP_MUST_USE enum mp_err mp_mp_put_array(struct mp_buf *b, uint32_t count);
MP_MUST_USE enum mp_err mp_mp_put_map(struct mp_buf *b, uint32_t pairs);
/* A pair of a map. */
MP_MUST_USE enum mp_err mp_mp_put_bool_pair(struct mp_buf *b, const char *key, bool v);
MP_MUST_USE enum mp_err mp_mp_put_uint_pair(struct mp_buf *b, const char *key, uint64_t v);
MP_MUST_USE enum mp_err mp_mp_put_str_pair(struct mp_buf *b, const char *key, struct mp_slice v);
/* Already encoded bytes, as they are. */
MP_MUST_USE enum mp_err mp_mp_put_raw(struct mp_buf *b, struct mp_slice v);
