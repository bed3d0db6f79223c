/* JSON to MessagePack and back for specs of the core, which link no JSON library: enough for what a
 * spec writes down, no more. A text that is not JSON ends the program. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/wire/msgpack.h"

static inline void tiny_check(bool is_good)
{
    if (!is_good) {
        fprintf(stderr, "tiny_json: no good\n");
        abort();
    }
}

static inline const char *tiny_space(const char *s)
{
    while (*s == ' ' || *s == '\n' || *s == ',' || *s == ':')
        s++;
    return s;
}

static inline const char *tiny_string(const char *s, struct mp_buf *out)
{
    char text[4096];
    size_t size = 0;
    tiny_check(*s == '"');
    for (s++; *s != '"'; s++) {
        tiny_check(*s != '\0' && size < sizeof(text));
        s += *s == '\\';
        text[size++] = *s;
    }
    tiny_check(mp_mp_put_str(out, mp_slice_of(text, size)) == MP_OK);
    return s + 1;
}

static inline const char *tiny_scalar(const char *s, struct mp_buf *out)
{
    char *end;
    if (strncmp(s, "true", 4) == 0 || strncmp(s, "null", 4) == 0) {
        tiny_check((*s == 't' ? mp_mp_put_bool(out, true) : mp_mp_put_nil(out)) == MP_OK);
        return s + 4;
    }
    if (strncmp(s, "false", 5) == 0) {
        tiny_check(mp_mp_put_bool(out, false) == MP_OK);
        return s + 5;
    }
    double f = strtod(s, &end);
    tiny_check(end != s);
    if (f == (double)(int64_t)f)
        tiny_check(mp_mp_put_int(out, (int64_t)f) == MP_OK);
    else
        tiny_check(mp_mp_put_float(out, f) == MP_OK);
    return end;
}

/* Appends one value; returns what follows it. */
static inline const char *tiny_read(const char *s, struct mp_buf *out)
{
    s = tiny_space(s);
    if (*s == '"')
        return tiny_string(s, out);
    if (*s != '[' && *s != '{')
        return tiny_scalar(s, out);
    bool is_map = *s == '{';
    char close = is_map ? '}' : ']';
    uint32_t count = 0;
    struct mp_buf inside;
    mp_buf_init(&inside, out->alloc, 0);
    for (s = tiny_space(s + 1); *s != close; s = tiny_space(s)) {
        tiny_check(*s != '\0');
        s = tiny_read(s, &inside);
        count++;
    }
    tiny_check((is_map ? mp_mp_put_map(out, count / 2) : mp_mp_put_array(out, count)) == MP_OK);
    tiny_check(mp_buf_append(out, mp_buf_slice(&inside)) == MP_OK);
    mp_buf_fini(&inside);
    return s + 1;
}

struct tiny_text {
    char *at;
    size_t left;
};

static inline void tiny_put(struct tiny_text *t, const char *s, size_t size)
{
    tiny_check(size < t->left);
    memcpy(t->at, s, size);
    t->at += size;
    t->left -= size;
    *t->at = '\0';
}

static inline void tiny_write(struct tiny_text *t, struct mp_mp_reader *r)
{
    struct mp_mp_token k;
    char number[40];
    tiny_check(mp_mp_next(r, &k) == MP_OK);
    switch (k.type) {
    case MP_MP_STR:
        tiny_put(t, "\"", 1);
        tiny_put(t, (const char *)k.bytes.data, k.bytes.size);
        tiny_put(t, "\"", 1);
        break;
    case MP_MP_UINT:
        tiny_put(t, number,
                 (size_t)snprintf(number, sizeof(number), "%llu", (unsigned long long)k.u));
        break;
    case MP_MP_INT:
        tiny_put(t, number, (size_t)snprintf(number, sizeof(number), "%lld", (long long)k.i));
        break;
    case MP_MP_FLOAT:
        tiny_put(t, number, (size_t)snprintf(number, sizeof(number), "%.9g", k.f));
        break;
    case MP_MP_BOOL:
        tiny_put(t, k.b ? "true" : "false", k.b ? 4 : 5);
        break;
    case MP_MP_ARRAY:
    case MP_MP_MAP:
        tiny_put(t, k.type == MP_MP_MAP ? "{" : "[", 1);
        for (uint32_t i = 0; i < k.count; i++) {
            if (i != 0)
                tiny_put(t, ",", 1);
            tiny_write(t, r);
            if (k.type == MP_MP_MAP) {
                tiny_put(t, ":", 1);
                tiny_write(t, r);
            }
        }
        tiny_put(t, k.type == MP_MP_MAP ? "}" : "]", 1);
        break;
    case MP_MP_EXT: {
        struct mp_mp_reader inside = mp_mp_reader_of(k.bytes);
        tiny_put(t, number, (size_t)snprintf(number, sizeof(number), "ext%d", k.ext_type));
        tiny_write(t, &inside);
        break;
    }
    default:
        tiny_put(t, "null", 4);
    }
}
