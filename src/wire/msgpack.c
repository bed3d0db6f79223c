/* See msgpack.h. The walker keeps a counter of values still to pass instead of a stack where it
 * can: depth is bounded by an explicit array, so hostile nesting costs nothing. */
#include "src/wire/msgpack.h"

#include "src/base/limits.h"

#define WALK_DEPTH_MAX (MP_DEPTH_MAX + 8)

static uint64_t load_be(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static enum mp_err take_be(struct mp_mp_reader *r, unsigned bytes, uint64_t *v)
{
    if ((size_t)(r->end - r->at) < bytes)
        return MP_ECORRUPT;
    *v = load_be(r->at, bytes);
    r->at += bytes;
    return MP_OK;
}

static enum mp_err take_bytes(struct mp_mp_reader *r, uint64_t size, struct mp_slice *bytes)
{
    if ((uint64_t)(r->end - r->at) < size)
        return MP_ECORRUPT;
    *bytes = mp_slice_of(r->at, (size_t)size);
    r->at += size;
    return MP_OK;
}

static enum mp_err take_sized(struct mp_mp_reader *r, unsigned length_bytes, enum mp_mp_type type,
                              struct mp_mp_token *t)
{
    uint64_t size;
    enum mp_err err = take_be(r, length_bytes, &size);
    if (err != MP_OK)
        return err;
    t->type = type;
    return take_bytes(r, size, &t->bytes);
}

static enum mp_err take_container(struct mp_mp_reader *r, uint64_t count, enum mp_mp_type type,
                                  struct mp_mp_token *t)
{
    uint64_t needed = type == MP_MP_MAP ? count * 2 : count;
    if (needed > (uint64_t)(r->end - r->at))
        return MP_ECORRUPT;
    t->type = type;
    t->count = (uint32_t)count;
    return MP_OK;
}

static enum mp_err take_sized_container(struct mp_mp_reader *r, unsigned length_bytes,
                                        enum mp_mp_type type, struct mp_mp_token *t)
{
    uint64_t count;
    enum mp_err err = take_be(r, length_bytes, &count);
    return err != MP_OK ? err : take_container(r, count, type, t);
}

static enum mp_err take_uint(struct mp_mp_reader *r, unsigned bytes, struct mp_mp_token *t)
{
    t->type = MP_MP_UINT;
    return take_be(r, bytes, &t->u);
}

static enum mp_err take_int(struct mp_mp_reader *r, unsigned bytes, struct mp_mp_token *t)
{
    uint64_t raw;
    enum mp_err err = take_be(r, bytes, &raw);
    if (err != MP_OK)
        return err;
    unsigned shift = 64 - bytes * 8;
    int64_t v = (int64_t)(raw << shift) >> shift;
    if (v >= 0) {
        t->type = MP_MP_UINT;
        t->u = (uint64_t)v;
    } else {
        t->type = MP_MP_INT;
        t->i = v;
    }
    return MP_OK;
}

static enum mp_err take_float(struct mp_mp_reader *r, unsigned bytes, struct mp_mp_token *t)
{
    uint64_t raw;
    enum mp_err err = take_be(r, bytes, &raw);
    if (err != MP_OK)
        return err;
    t->type = MP_MP_FLOAT;
    if (bytes == 4) {
        uint32_t narrow = (uint32_t)raw;
        float f;
        memcpy(&f, &narrow, 4);
        t->f = (double)f;
    } else {
        memcpy(&t->f, &raw, 8);
    }
    return MP_OK;
}

static enum mp_err take_ext(struct mp_mp_reader *r, uint64_t size, struct mp_mp_token *t)
{
    uint64_t type;
    enum mp_err err = take_be(r, 1, &type);
    if (err != MP_OK)
        return err;
    t->type = MP_MP_EXT;
    t->ext_type = (int8_t)type;
    return take_bytes(r, size, &t->bytes);
}

static enum mp_err take_sized_ext(struct mp_mp_reader *r, unsigned length_bytes,
                                  struct mp_mp_token *t)
{
    uint64_t size;
    enum mp_err err = take_be(r, length_bytes, &size);
    return err != MP_OK ? err : take_ext(r, size, t);
}

static enum mp_err next_marked(struct mp_mp_reader *r, uint8_t c, struct mp_mp_token *t)
{
    switch (c) {
    case 0xc0:
        t->type = MP_MP_NIL;
        return MP_OK;
    case 0xc2:
    case 0xc3:
        t->type = MP_MP_BOOL;
        t->b = c == 0xc3;
        return MP_OK;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return take_sized(r, 1u << (c - 0xc4), MP_MP_BIN, t);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return take_sized_ext(r, 1u << (c - 0xc7), t);
    case 0xca:
    case 0xcb:
        return take_float(r, 4u << (c - 0xca), t);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return take_uint(r, 1u << (c - 0xcc), t);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return take_int(r, 1u << (c - 0xd0), t);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return take_ext(r, 1u << (c - 0xd4), t);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return take_sized(r, 1u << (c - 0xd9), MP_MP_STR, t);
    case 0xdc:
    case 0xdd:
        return take_sized_container(r, 2u << (c - 0xdc), MP_MP_ARRAY, t);
    case 0xde:
    case 0xdf:
        return take_sized_container(r, 2u << (c - 0xde), MP_MP_MAP, t);
    default:
        return MP_ECORRUPT;
    }
}

enum mp_err mp_mp_next(struct mp_mp_reader *r, struct mp_mp_token *token)
{
    if (r->at == r->end)
        return MP_ECORRUPT;
    const uint8_t *start = r->at;
    uint8_t c = *r->at++;
    enum mp_err err = MP_OK;
    if (c <= 0x7f) {
        token->type = MP_MP_UINT;
        token->u = c;
    } else if (c >= 0xe0) {
        token->type = MP_MP_INT;
        token->i = (int8_t)c;
    } else if (c <= 0x8f) {
        err = take_container(r, c & 0x0f, MP_MP_MAP, token);
    } else if (c <= 0x9f) {
        err = take_container(r, c & 0x0f, MP_MP_ARRAY, token);
    } else if (c <= 0xbf) {
        token->type = MP_MP_STR;
        err = take_bytes(r, c & 0x1f, &token->bytes);
    } else {
        err = next_marked(r, c, token);
    }
    if (err != MP_OK)
        r->at = start;
    return err;
}

enum mp_err mp_mp_skip(struct mp_mp_reader *r)
{
    /* left[d] values are still to come at depth d */
    uint64_t left[WALK_DEPTH_MAX + 1];
    unsigned depth = 0;
    const uint8_t *start = r->at;
    left[0] = 1;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0)
                return MP_OK;
            depth--;
        }
        left[depth]--;
        struct mp_mp_token t;
        enum mp_err err = mp_mp_next(r, &t);
        if (err == MP_OK && (t.type == MP_MP_ARRAY || t.type == MP_MP_MAP) && t.count != 0) {
            if (depth == WALK_DEPTH_MAX)
                err = MP_EDEPTH;
            else
                left[++depth] = t.type == MP_MP_MAP ? (uint64_t)t.count * 2 : t.count;
        }
        if (err != MP_OK) {
            r->at = start;
            return err;
        }
    }
}

enum mp_err mp_mp_take(struct mp_mp_reader *r, struct mp_slice *value)
{
    const uint8_t *start = r->at;
    enum mp_err err = mp_mp_skip(r);
    if (err == MP_OK)
        *value = mp_slice_of(start, (size_t)(r->at - start));
    return err;
}

enum mp_err mp_mp_check(struct mp_slice value)
{
    struct mp_mp_reader r = mp_mp_reader_of(value);
    enum mp_err err = mp_mp_skip(&r);
    if (err != MP_OK)
        return err;
    return mp_mp_is_at_end(&r) ? MP_OK : MP_ECORRUPT;
}

enum mp_mp_type mp_mp_type_of(struct mp_slice value)
{
    struct mp_mp_reader r = mp_mp_reader_of(value);
    struct mp_mp_token t;
    return mp_mp_next(&r, &t) == MP_OK ? t.type : MP_MP_EXT;
}

enum mp_err mp_mp_map_get(struct mp_slice map, struct mp_slice key, struct mp_slice *value)
{
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_mp_get_map(map, &count, &r);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_mp_reader at_key = r;
        struct mp_mp_token t;
        err = mp_mp_skip(&r);
        if (err != MP_OK)
            return err;
        err = mp_mp_next(&at_key, &t);
        if (err != MP_OK)
            return err;
        if (t.type == MP_MP_STR && mp_slice_equal(t.bytes, key))
            return mp_mp_take(&r, value);
        err = mp_mp_skip(&r);
    }
    return err != MP_OK ? err : MP_ENOENT;
}

enum mp_err mp_mp_array_get(struct mp_slice array, uint32_t index, struct mp_slice *value)
{
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_mp_get_array(array, &count, &r);
    if (err != MP_OK)
        return err;
    if (index >= count)
        return MP_ENOENT;
    for (uint32_t i = 0; i < index; i++) {
        err = mp_mp_skip(&r);
        if (err != MP_OK)
            return err;
    }
    return mp_mp_take(&r, value);
}

static enum mp_err first_token(struct mp_slice value, struct mp_mp_token *t)
{
    struct mp_mp_reader r = mp_mp_reader_of(value);
    return mp_mp_next(&r, t);
}

enum mp_err mp_mp_get_str(struct mp_slice value, struct mp_slice *text)
{
    struct mp_mp_token t;
    enum mp_err err = first_token(value, &t);
    if (err != MP_OK)
        return err;
    if (t.type != MP_MP_STR)
        return MP_ETYPE;
    *text = t.bytes;
    return MP_OK;
}

enum mp_err mp_mp_get_bool(struct mp_slice value, bool *b)
{
    struct mp_mp_token t;
    enum mp_err err = first_token(value, &t);
    if (err != MP_OK)
        return err;
    if (t.type != MP_MP_BOOL)
        return MP_ETYPE;
    *b = t.b;
    return MP_OK;
}

enum mp_err mp_mp_get_int(struct mp_slice value, int64_t *i)
{
    struct mp_mp_token t;
    enum mp_err err = first_token(value, &t);
    if (err != MP_OK)
        return err;
    switch (t.type) {
    case MP_MP_UINT:
        if (t.u > INT64_MAX)
            return MP_ERANGE;
        *i = (int64_t)t.u;
        return MP_OK;
    case MP_MP_INT:
        *i = t.i;
        return MP_OK;
    case MP_MP_FLOAT:
        if (!(t.f >= -9007199254740992.0 && t.f <= 9007199254740992.0))
            return MP_ERANGE;
        if (t.f != (double)(int64_t)t.f)
            return MP_ETYPE;
        *i = (int64_t)t.f;
        return MP_OK;
    default:
        return MP_ETYPE;
    }
}

enum mp_err mp_mp_get_number(struct mp_slice value, double *f)
{
    struct mp_mp_token t;
    enum mp_err err = first_token(value, &t);
    if (err != MP_OK)
        return err;
    if (t.type == MP_MP_UINT)
        *f = (double)t.u;
    else if (t.type == MP_MP_INT)
        *f = (double)t.i;
    else if (t.type == MP_MP_FLOAT)
        *f = t.f;
    else
        return MP_ETYPE;
    return MP_OK;
}

static enum mp_err get_container(struct mp_slice value, enum mp_mp_type type, uint32_t *count,
                                 struct mp_mp_reader *inside)
{
    struct mp_mp_reader r = mp_mp_reader_of(value);
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(&r, &t);
    if (err != MP_OK)
        return err;
    if (t.type != type)
        return MP_ETYPE;
    *count = t.count;
    *inside = r;
    return MP_OK;
}

enum mp_err mp_mp_get_array(struct mp_slice value, uint32_t *count, struct mp_mp_reader *elements)
{
    return get_container(value, MP_MP_ARRAY, count, elements);
}

enum mp_err mp_mp_get_map(struct mp_slice value, uint32_t *count, struct mp_mp_reader *pairs)
{
    return get_container(value, MP_MP_MAP, count, pairs);
}

/* --- writing --- */

/* One marker byte and `bytes` big-endian bytes of v. */
static uint8_t *write_marked(uint8_t *at, uint8_t marker, uint64_t v, unsigned bytes)
{
    *at++ = marker;
    while (bytes-- > 0)
        *at++ = (uint8_t)(v >> (8 * bytes));
    return at;
}

uint8_t *mp_mp_write_uint(uint8_t *at, uint64_t v)
{
    if (v <= 0x7f) {
        *at = (uint8_t)v;
        return at + 1;
    }
    if (v <= UINT8_MAX)
        return write_marked(at, 0xcc, v, 1);
    if (v <= UINT16_MAX)
        return write_marked(at, 0xcd, v, 2);
    return v <= UINT32_MAX ? write_marked(at, 0xce, v, 4) : write_marked(at, 0xcf, v, 8);
}

uint8_t *mp_mp_write_str_head(uint8_t *at, uint32_t size)
{
    if (size <= 31) {
        *at = (uint8_t)(0xa0 | size);
        return at + 1;
    }
    if (size <= UINT8_MAX)
        return write_marked(at, 0xd9, size, 1);
    return size <= UINT16_MAX ? write_marked(at, 0xda, size, 2) : write_marked(at, 0xdb, size, 4);
}

/* `fixed` is the marker of up to 15, `marked` that of a count in two bytes; the next, in four. */
static uint8_t *write_count(uint8_t *at, uint8_t fixed, uint8_t marked, uint32_t count)
{
    if (count <= 15) {
        *at = (uint8_t)(fixed | count);
        return at + 1;
    }
    if (count <= UINT16_MAX)
        return write_marked(at, marked, count, 2);
    return write_marked(at, (uint8_t)(marked + 1), count, 4);
}

uint8_t *mp_mp_write_array(uint8_t *at, uint32_t count)
{
    return write_count(at, 0x90, 0xdc, count);
}

uint8_t *mp_mp_write_map(uint8_t *at, uint32_t pairs)
{
    return write_count(at, 0x80, 0xde, pairs);
}

/* What was written at `head`, up to `end`. */
static enum mp_err put_head(struct mp_buf *b, const uint8_t *head, const uint8_t *end)
{
    return mp_buf_append(b, mp_slice_of(head, (size_t)(end - head)));
}

static enum mp_err put_marked(struct mp_buf *b, uint8_t marker, uint64_t v, unsigned bytes)
{
    uint8_t head[MP_MP_HEAD_MAX];
    return put_head(b, head, write_marked(head, marker, v, bytes));
}

enum mp_err mp_mp_put_nil(struct mp_buf *b)
{
    return mp_buf_append_byte(b, 0xc0);
}

enum mp_err mp_mp_put_bool(struct mp_buf *b, bool v)
{
    return mp_buf_append_byte(b, v ? 0xc3 : 0xc2);
}

enum mp_err mp_mp_put_uint(struct mp_buf *b, uint64_t v)
{
    uint8_t head[MP_MP_HEAD_MAX];
    if (v <= 0x7f)
        return mp_buf_append_byte(b, (uint8_t)v);
    return put_head(b, head, mp_mp_write_uint(head, v));
}

enum mp_err mp_mp_put_int(struct mp_buf *b, int64_t v)
{
    if (v >= 0)
        return mp_mp_put_uint(b, (uint64_t)v);
    if (v >= -32)
        return mp_buf_append_byte(b, (uint8_t)v);
    if (v >= INT8_MIN)
        return put_marked(b, 0xd0, (uint64_t)v, 1);
    if (v >= INT16_MIN)
        return put_marked(b, 0xd1, (uint64_t)v, 2);
    return v >= INT32_MIN ? put_marked(b, 0xd2, (uint64_t)v, 4)
                          : put_marked(b, 0xd3, (uint64_t)v, 8);
}

enum mp_err mp_mp_put_float(struct mp_buf *b, double v)
{
    uint64_t raw;
    memcpy(&raw, &v, 8);
    return put_marked(b, 0xcb, raw, 8);
}

enum mp_err mp_mp_put_str(struct mp_buf *b, struct mp_slice v)
{
    uint8_t head[MP_MP_HEAD_MAX];
    if (v.size > UINT32_MAX)
        return MP_ETOOLARGE;
    enum mp_err err = put_head(b, head, mp_mp_write_str_head(head, (uint32_t)v.size));
    return err != MP_OK ? err : mp_buf_append(b, v);
}

enum mp_err mp_mp_put_text(struct mp_buf *b, const char *v)
{
    return mp_mp_put_str(b, mp_slice_str(v));
}

enum mp_err mp_mp_put_bin(struct mp_buf *b, struct mp_slice v)
{
    enum mp_err err = v.size <= UINT8_MAX    ? put_marked(b, 0xc4, v.size, 1)
                      : v.size <= UINT16_MAX ? put_marked(b, 0xc5, v.size, 2)
                      : v.size <= UINT32_MAX ? put_marked(b, 0xc6, v.size, 4)
                                             : MP_ETOOLARGE;
    return err != MP_OK ? err : mp_buf_append(b, v);
}

enum mp_err mp_mp_put_array(struct mp_buf *b, uint32_t count)
{
    uint8_t head[MP_MP_HEAD_MAX];
    return put_head(b, head, mp_mp_write_array(head, count));
}

enum mp_err mp_mp_put_map(struct mp_buf *b, uint32_t pairs)
{
    uint8_t head[MP_MP_HEAD_MAX];
    return put_head(b, head, mp_mp_write_map(head, pairs));
}

enum mp_err mp_mp_put_bool_pair(struct mp_buf *b, const char *key, bool v)
{
    MP_TRY(mp_mp_put_text(b, key));
    return mp_mp_put_bool(b, v);
}

enum mp_err mp_mp_put_uint_pair(struct mp_buf *b, const char *key, uint64_t v)
{
    MP_TRY(mp_mp_put_text(b, key));
    return mp_mp_put_uint(b, v);
}

enum mp_err mp_mp_put_str_pair(struct mp_buf *b, const char *key, struct mp_slice v)
{
    MP_TRY(mp_mp_put_text(b, key));
    return mp_mp_put_str(b, v);
}

enum mp_err mp_mp_put_raw(struct mp_buf *b, struct mp_slice v)
{
    return mp_buf_append(b, v);
}
