/* JSON text → MessagePack: one pass of yajl's events over the text, and seldom a second one over
 * what it wrote.
 *
 * MessagePack wants counts before elements, JSON tells them after. A container is begun with a
 * header of one byte, into which the count is written when it ends: right for up to 15 elements,
 * and most documents have no longer container. At the first 16th element the document becomes
 * *wide*: the headers of the open containers (and of all to come) are given 5 bytes. A wide
 * document is settled at the end: a walk in place that rewrites each header in its shortest form,
 * which never grows. So each byte moves at most twice, however deep and wide the text is.
 *
 * Settling also reads the $ forms, if any was seen: only then all counts are known, and whether
 * `$lit` is alone in its object decides how the object in it is read, and so on inwards. Its
 * failures are found by the ordinal of their container, as the walk has no text; the text is then
 * read once more, up to that container, to tell line and column.
 *
 * yajl checks the grammar. It does not check UTF-8 strictly and turns lone surrogate escapes into
 * question marks, so both are checked here; it has no depth limit, so that is ours too. It does not
 * survive a failed allocation: it has an arena on our stack, which a document without very long
 * strings with escapes never leaves, and malloc with an abort behind it. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yajl/yajl_parse.h>

#include "src/base/assert.h"
#include "src/json/json_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/path.h"

/* each level of a value may be wrapped in a $lit, and a $int or $bytes is no level */
#define TEXT_DEPTH_MAX (2 * MP_DEPTH_MAX + 1)
#define FIX_COUNT_MAX  15
#define WIDE_EXTRA     4  /* a wide header's bytes over a narrow one's */
#define KEYS_INLINE    32 /* keys of open objects before memory is taken */
#define KEYS_SCANNED   16 /* keys of one object before they are hashed */
#define ARENA_BYTES    6144
#define NO_KEY         UINT32_MAX

struct key {
    size_t at; /* in out */
    uint32_t size;
    uint32_t hash;
    uint32_t next; /* of its bucket, towards older keys */
};

struct frame {
    size_t header; /* where it begins in out */
    uint32_t count;
    uint32_t first_key; /* its first one in keys; of an object */
    uint32_t ordinal;   /* of the container in the text */
    bool is_object;
    bool is_hashed;
};

struct arena_block {
    size_t size;
    size_t unused; /* keeps what follows aligned to 16 */
};

struct parser {
    struct mp_slice text;
    struct mp_buf *out;
    size_t out_start;
    const struct mp_json_options *opt;
    struct mp_json_error *error;
    yajl_handle yajl;
    enum mp_err err; /* why a callback stopped the parser */
    bool is_at_end;  /* yajl has all of the text, and is told so */
    bool is_wide;
    bool has_forms;
    unsigned depth;
    unsigned depth_max; /* seen */
    uint32_t containers;
    /* reading again, to find the place of this container: 0 if not */
    uint32_t ordinal_sought;
    /* keys of the open objects, oldest first */
    struct key *keys;
    uint32_t key_count;
    uint32_t key_capacity;
    uint32_t *buckets;
    uint32_t bucket_count; /* a power of two, or 0 */
    uint64_t seed;
    size_t arena_used;
    struct frame frames[TEXT_DEPTH_MAX];
    struct key keys_inline[KEYS_INLINE];
    _Alignas(16) unsigned char arena[ARENA_BYTES];
};

static enum mp_err parse(struct parser *p);
static enum mp_err settle(struct parser *p);

enum mp_err mp_json_to_msgpack(struct mp_slice text, struct mp_buf *out,
                               const struct mp_json_options *opt, struct mp_json_error *error)
{
    static const struct mp_json_options defaults = {0};
    struct mp_json_error unused;
    struct parser p;
    p.text = text;
    p.out = out;
    p.out_start = out->size;
    p.opt = opt ? opt : &defaults;
    p.error = error ? error : &unused;
    p.ordinal_sought = 0;
    enum mp_err err = parse(&p);
    if (err == MP_OK && (p.is_wide || p.has_forms || p.depth_max > MP_DEPTH_MAX))
        err = settle(&p);
    if (err != MP_OK)
        out->size = p.out_start;
    return err;
}

/* --- failures --- */

static void tell_place(struct parser *p, size_t offset)
{
    offset = offset < p->text.size ? offset : p->text.size;
    uint32_t line = 1;
    uint32_t column = 1;
    for (size_t i = 0; i < offset; i++) {
        uint8_t c = p->text.data[i];
        if (c == '\n') {
            line++;
            column = 1;
        } else if ((c & 0xC0) != 0x80) {
            column++;
        }
    }
    p->error->line = line;
    p->error->column = column;
}

/* The path of the current entries of the open containers. */
static void tell_path(struct parser *p, struct mp_path *path)
{
    mp_path_init(path, p->error->path, sizeof(p->error->path));
    for (unsigned d = 0; d < p->depth; d++) {
        const struct frame *f = &p->frames[d];
        if (f->count == 0)
            continue;
        if (!f->is_object) {
            mp_path_add_index(path, f->count);
            continue;
        }
        uint32_t last = d + 1 < p->depth ? p->frames[d + 1].first_key : p->key_count;
        const struct key *key = &p->keys[last - 1];
        mp_path_add_key(path, mp_slice_of(p->out->data + key->at, key->size));
    }
}

static enum mp_err fail(struct parser *p, enum mp_err err, size_t offset, const char *message)
{
    mp_assert(err != MP_OK);
    struct mp_path path;
    tell_path(p, &path);
    tell_place(p, offset);
    snprintf(p->error->message, sizeof(p->error->message), "%s", message);
    p->err = err;
    return err;
}

static enum mp_err fail_buffer(struct parser *p, enum mp_err err)
{
    char message[80];
    snprintf(message, sizeof(message), "the value is larger than %zu bytes", p->out->size_max);
    return fail(p, err, 0, err == MP_ETOOLARGE ? message : mp_err_text(err));
}

/* How far yajl has read. */
static size_t bytes_read(const struct parser *p)
{
    return p->is_at_end ? p->text.size : yajl_get_bytes_consumed(p->yajl);
}

static bool is_word_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '-' || c == '.' || c == '_';
}

/* Where the token begins that ends before `end`: a string, a word or number, or one byte. */
static size_t token_start(struct mp_slice text, size_t end)
{
    size_t i = end;
    while (i != 0 && memchr(" \t\r\n", text.data[i - 1], 4))
        i--;
    if (i == 0)
        return 0;
    i--;
    if (text.data[i] == '"') {
        size_t quote = i;
        while (quote-- > 0) {
            if (text.data[quote] != '"')
                continue;
            size_t slashes = 0;
            while (slashes < quote && text.data[quote - 1 - slashes] == '\\')
                slashes++;
            if (slashes % 2 == 0)
                return quote;
        }
        return i;
    }
    while (is_word_byte(text.data[i]) && i != 0 && is_word_byte(text.data[i - 1]))
        i--;
    return i;
}

/* Here yajl has gone back by the length of the token, but by that of its text alone if it is
 * a string: so it may stand behind the opening quote. It does not if the quote opens a value. */
static size_t token_behind_value(struct mp_slice text, size_t at)
{
    if (at < 2 || text.data[at - 2] != '"')
        return at;
    size_t before = at - 2;
    while (before != 0 && memchr(" \t\r\n", text.data[before - 1], 4))
        before--;
    return before != 0 && text.data[before - 1] == ':' ? at : at - 2;
}

/* Where the token in hand begins; `data` is its text, in place or rewritten. */
static size_t token_offset(const struct parser *p, const void *data)
{
    uintptr_t at = (uintptr_t)data;
    uintptr_t start = (uintptr_t)p->text.data;
    if (at >= start && at < start + p->text.size)
        return (size_t)(at - start);
    return token_start(p->text, bytes_read(p));
}

static enum mp_err fail_nesting(struct parser *p, size_t offset)
{
    char message[48];
    snprintf(message, sizeof(message), "nesting is over %d", MP_DEPTH_MAX);
    return fail(p, MP_EDEPTH, offset, message);
}

/* --- keys --- */

static struct mp_slice key_text(const struct parser *p, const struct key *key)
{
    return mp_slice_of(p->out->data + key->at, key->size);
}

static void hash_key(struct parser *p, uint32_t i)
{
    uint32_t bucket = p->keys[i].hash & (p->bucket_count - 1);
    p->keys[i].next = p->buckets[bucket];
    p->buckets[bucket] = i;
}

/* Each object's keys hash differently, so that the same keys in many objects share no bucket. */
static uint32_t hash_of(const struct parser *p, const struct frame *f, struct mp_slice text)
{
    return (uint32_t)mp_slice_hash(text, p->seed + f->ordinal);
}

/* Doubles the buckets and hashes all keys that are hashed anew, oldest first: a bucket's newest key
 * is its head, so that closing an object only takes heads away. */
static enum mp_err grow_buckets(struct parser *p)
{
    uint32_t count = p->bucket_count == 0 ? 64 : p->bucket_count * 2;
    struct mp_alloc *a = p->out->alloc;
    void *buckets = a->resize(a->context, p->buckets, p->bucket_count * sizeof(*p->buckets),
                              count * sizeof(*p->buckets));
    if (!buckets)
        return MP_ENOMEM;
    p->buckets = (uint32_t *)buckets;
    p->bucket_count = count;
    memset(p->buckets, 0xff, count * sizeof(*p->buckets));
    for (unsigned d = 0; d < p->depth; d++) {
        const struct frame *f = &p->frames[d];
        uint32_t last = d + 1 < p->depth ? p->frames[d + 1].first_key : p->key_count;
        for (uint32_t i = f->first_key; f->is_hashed && i < last; i++)
            hash_key(p, i);
    }
    return MP_OK;
}

static enum mp_err grow_keys(struct parser *p)
{
    if (p->key_capacity >= UINT32_MAX / 4)
        return MP_ENOMEM;
    struct mp_alloc *a = p->out->alloc;
    bool is_inline = p->keys == p->keys_inline;
    size_t old_size = p->key_capacity * sizeof(*p->keys);
    void *keys =
        a->resize(a->context, is_inline ? NULL : p->keys, is_inline ? 0 : old_size, old_size * 2);
    if (!keys)
        return MP_ENOMEM;
    if (is_inline)
        memcpy(keys, p->keys_inline, old_size);
    p->keys = (struct key *)keys;
    p->key_capacity *= 2;
    return MP_OK;
}

static bool has_key(struct parser *p, const struct frame *f, struct mp_slice text, uint32_t hash)
{
    if (!f->is_hashed) {
        for (uint32_t i = f->first_key; i < p->key_count; i++)
            if (mp_slice_equal(key_text(p, &p->keys[i]), text))
                return true;
        return false;
    }
    uint32_t i = p->buckets[hash & (p->bucket_count - 1)];
    for (; i != NO_KEY; i = p->keys[i].next)
        if (i >= f->first_key && p->keys[i].hash == hash &&
            mp_slice_equal(key_text(p, &p->keys[i]), text))
            return true;
    return false;
}

static enum mp_err start_hashing(struct parser *p, struct frame *f)
{
    for (uint32_t i = f->first_key; i < p->key_count; i++)
        p->keys[i].hash = hash_of(p, f, key_text(p, &p->keys[i]));
    enum mp_err err = MP_OK;
    if (p->bucket_count == 0)
        err = grow_buckets(p);
    if (err != MP_OK)
        return err;
    f->is_hashed = true;
    for (uint32_t i = f->first_key; i < p->key_count; i++)
        hash_key(p, i);
    return MP_OK;
}

/* Notes the key that was written at the end of out. */
static enum mp_err note_key(struct parser *p, struct frame *f, uint32_t size, uint32_t hash)
{
    enum mp_err err = MP_OK;
    if (p->key_count == p->key_capacity)
        err = grow_keys(p);
    if (err == MP_OK && f->is_hashed && p->key_count >= p->bucket_count)
        err = grow_buckets(p);
    if (err != MP_OK)
        return err;
    uint32_t i = p->key_count++;
    p->keys[i] = (struct key){.at = p->out->size - size, .size = size, .hash = hash};
    if (f->is_hashed)
        hash_key(p, i);
    return MP_OK;
}

static void drop_keys(struct parser *p, const struct frame *f)
{
    if (f->is_hashed) {
        for (uint32_t i = p->key_count; i-- > f->first_key;) {
            uint32_t bucket = p->keys[i].hash & (p->bucket_count - 1);
            mp_assert(p->buckets[bucket] == i);
            p->buckets[bucket] = p->keys[i].next;
        }
    }
    p->key_count = f->first_key;
}

/* --- events --- */

/* Gives the open containers' headers the width that all later ones have. */
static enum mp_err go_wide(struct parser *p)
{
    enum mp_err err = mp_buf_reserve(p->out, (size_t)p->depth * WIDE_EXTRA);
    if (err != MP_OK)
        return err;
    uint8_t *data = p->out->data;
    size_t end = p->out->size;
    for (unsigned d = p->depth; d-- > 0;) {
        struct frame *f = &p->frames[d];
        size_t shift = (size_t)(d + 1) * WIDE_EXTRA;
        memmove(data + f->header + 1 + shift, data + f->header + 1, end - f->header - 1);
        end = f->header + 1;
        uint32_t last = d + 1 < p->depth ? p->frames[d + 1].first_key : p->key_count;
        for (uint32_t i = f->first_key; i < last; i++)
            p->keys[i].at += shift;
        f->header += shift - WIDE_EXTRA;
    }
    for (unsigned d = 0; d < p->depth; d++)
        data[p->frames[d].header] = p->frames[d].is_object ? 0xdf : 0xdd;
    p->out->size += (size_t)p->depth * WIDE_EXTRA;
    p->is_wide = true;
    return MP_OK;
}

static enum mp_err count_entry(struct parser *p, struct frame *f)
{
    if (f->count == UINT32_MAX)
        return MP_ETOOLARGE;
    f->count++;
    return f->count > FIX_COUNT_MAX && !p->is_wide ? go_wide(p) : MP_OK;
}

/* A value begins: an array counts it, an object has counted its key. */
static bool begin_value(struct parser *p)
{
    if (p->depth == 0 || p->frames[p->depth - 1].is_object)
        return true;
    enum mp_err err = count_entry(p, &p->frames[p->depth - 1]);
    if (err != MP_OK)
        fail_buffer(p, err);
    return err == MP_OK;
}

static int end_put(struct parser *p, enum mp_err err)
{
    if (err != MP_OK)
        fail_buffer(p, err);
    return err == MP_OK;
}

static int on_null(void *context)
{
    struct parser *p = (struct parser *)context;
    return begin_value(p) && end_put(p, mp_mp_put_nil(p->out));
}

static int on_boolean(void *context, int v)
{
    struct parser *p = (struct parser *)context;
    return begin_value(p) && end_put(p, mp_mp_put_bool(p->out, v));
}

/* An integer of 20 digits or less as (sign, magnitude); false if it is more or no integer. */
static bool read_plain(const char *text, size_t size, bool *is_negative, uint64_t *magnitude)
{
    *is_negative = text[0] == '-';
    uint64_t v = 0;
    size_t i = *is_negative;
    if (size - i > 19)
        return false;
    for (; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(text[i] - '0');
    }
    *magnitude = v;
    return true;
}

/* Whether the double prints as exactly these digits. */
static bool is_exact(const char *text, size_t size, double v)
{
    char digits[512];
    if (!isfinite(v) || size >= sizeof(digits))
        return false;
    int printed = snprintf(digits, sizeof(digits), "%.0f", v);
    return printed == (int)size && memcmp(digits, text, size) == 0;
}

static enum mp_err put_double(struct parser *p, double v)
{
    bool is_integral = fabs(v) <= (double)MP_JSON_EXACT_MAX && v == floor(v);
    if (is_integral && !(v == 0 && signbit(v)))
        return mp_mp_put_int(p->out, (int64_t)v);
    return mp_mp_put_float(p->out, v);
}

static bool has_only_digits(const char *text, size_t size)
{
    for (size_t i = text[0] == '-'; i < size; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

static int on_number(void *context, const char *text, size_t size)
{
    struct parser *p = (struct parser *)context;
    if (!begin_value(p))
        return 0;
    bool is_negative;
    uint64_t magnitude;
    if (read_plain(text, size, &is_negative, &magnitude) &&
        magnitude <= (uint64_t)INT64_MAX + is_negative && !(is_negative && magnitude == 0))
        return end_put(p, is_negative ? mp_mp_put_int(p->out, (int64_t)(0 - magnitude))
                                      : mp_mp_put_uint(p->out, magnitude));
    double v = mp_json_number_read(text, size);
    size_t offset = token_offset(p, text);
    if (has_only_digits(text, size) && !(v == 0) && !is_exact(text, size, v)) {
        fail(p, MP_EINVAL, offset,
             "neither 64 bits nor a double hold this integer exactly (write it as a string)");
        return 0;
    }
    if (!isfinite(v)) {
        fail(p, MP_EINVAL, offset, "this number is too large for a double");
        return 0;
    }
    return end_put(p, put_double(p, v));
}

static bool check_text(struct parser *p, struct mp_slice s)
{
    if (mp_slice_is_utf8(s))
        return true;
    fail(p, MP_EINVAL, token_offset(p, s.data),
         "this string is not valid UTF-8 (bytes are written as {\"$bytes\": \"base64\"})");
    return false;
}

static int on_string(void *context, const unsigned char *data, size_t size)
{
    struct parser *p = (struct parser *)context;
    struct mp_slice s = mp_slice_of(data, size);
    return begin_value(p) && check_text(p, s) && end_put(p, mp_mp_put_str(p->out, s));
}

static int on_key(void *context, const unsigned char *data, size_t size)
{
    struct parser *p = (struct parser *)context;
    struct frame *f = &p->frames[p->depth - 1];
    struct mp_slice text = mp_slice_of(data, size);
    if (!mp_slice_is_utf8(text)) {
        f->count = 0; /* so that the path ends before this key */
        return check_text(p, text);
    }
    enum mp_err err = MP_OK;
    if (f->count == KEYS_SCANNED && !f->is_hashed)
        err = start_hashing(p, f);
    uint32_t hash = f->is_hashed ? hash_of(p, f, text) : 0;
    bool is_repeated = has_key(p, f, text, hash);
    if (err == MP_OK)
        err = count_entry(p, f);
    if (err == MP_OK)
        err = mp_mp_put_str(p->out, text);
    if (err == MP_OK)
        err = note_key(p, f, (uint32_t)size, hash);
    if (err != MP_OK) {
        f->count = 0;
        return end_put(p, err);
    }
    if (is_repeated) {
        fail(p, MP_EINVAL, token_offset(p, data), "this key is there twice");
        return 0;
    }
    p->has_forms |=
        f->count == 1 && size != 0 && data[0] == '$' && mp_json_form_of(text) != MP_JSON_PLAIN;
    return 1;
}

static int start_container(struct parser *p, bool is_object)
{
    if (!begin_value(p))
        return 0;
    size_t consumed = bytes_read(p);
    if (p->depth == TEXT_DEPTH_MAX) {
        fail_nesting(p, consumed - 1);
        return 0;
    }
    if (++p->containers == p->ordinal_sought) {
        tell_place(p, consumed - 1);
        return 0;
    }
    p->frames[p->depth++] = (struct frame){.header = p->out->size,
                                           .first_key = p->key_count,
                                           .ordinal = p->containers,
                                           .is_object = is_object};
    p->depth_max = p->depth > p->depth_max ? p->depth : p->depth_max;
    if (!p->is_wide)
        return end_put(p, mp_buf_append_byte(p->out, is_object ? 0x80 : 0x90));
    uint8_t header[5] = {is_object ? 0xdf : 0xdd};
    return end_put(p, mp_buf_append(p->out, mp_slice_of(header, sizeof(header))));
}

static int end_container(struct parser *p)
{
    struct frame *f = &p->frames[p->depth - 1];
    uint8_t *header = p->out->data + f->header;
    if (p->is_wide) {
        for (unsigned i = 0; i < 4; i++)
            header[1 + i] = (uint8_t)(f->count >> (24 - 8 * i));
    } else {
        *header = (uint8_t)(*header | f->count);
    }
    if (f->is_object)
        drop_keys(p, f);
    p->depth--;
    return 1;
}

static int on_start_object(void *context)
{
    return start_container((struct parser *)context, true);
}

static int on_start_array(void *context)
{
    return start_container((struct parser *)context, false);
}

static int on_end(void *context)
{
    return end_container((struct parser *)context);
}

/* --- yajl --- */

static void *arena_take(void *context, size_t size)
{
    struct parser *p = (struct parser *)context;
    size_t needed = sizeof(struct arena_block) + ((size + 15) & ~(size_t)15);
    void *p_new;
    if (needed <= ARENA_BYTES - p->arena_used) {
        p_new = p->arena + p->arena_used;
        p->arena_used += needed;
    } else {
        p_new = malloc(needed);
        if (!p_new)
            abort();
    }
    struct arena_block *block = (struct arena_block *)p_new;
    block->size = size;
    return block + 1;
}

static void arena_free(void *context, void *data)
{
    struct parser *p = (struct parser *)context;
    struct arena_block *block = (struct arena_block *)data - 1;
    uintptr_t at = (uintptr_t)block;
    uintptr_t start = (uintptr_t)p->arena;
    if (data && !(at >= start && at < start + ARENA_BYTES))
        free(block);
}

static void *arena_resize(void *context, void *data, size_t size)
{
    if (!data)
        return arena_take(context, size);
    struct arena_block *block = (struct arena_block *)data - 1;
    if (size <= block->size)
        return data;
    void *larger = arena_take(context, size);
    memcpy(larger, data, block->size);
    arena_free(context, data);
    return larger;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_object,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end,
};

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The code unit of a \uXXXX at `at`, or -1. */
static int escaped_unit(struct mp_slice text, size_t at)
{
    if (text.size - at < 6 || text.data[at] != '\\' || text.data[at + 1] != 'u')
        return -1;
    int unit = 0;
    for (size_t i = 2; i < 6; i++) {
        int digit = hex_digit(text.data[at + i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Finds a surrogate that is not half of a pair; returns its offset or the text's size. A backslash
 * outside of strings is an error anyway, so strings need not be told apart here. */
static size_t find_lone_surrogate(struct mp_slice text)
{
    size_t i = 0;
    while (i < text.size) {
        const void *found = memchr(text.data + i, '\\', text.size - i);
        if (!found)
            return text.size;
        i = (size_t)((const uint8_t *)found - text.data);
        int unit = escaped_unit(text, i);
        if (unit < 0xD800 || unit > 0xDFFF) {
            i += 2;
            continue;
        }
        int low = i + 6 <= text.size ? escaped_unit(text, i + 6) : -1;
        if (unit > 0xDBFF || low < 0xDC00 || low > 0xDFFF)
            return i;
        i += 12;
    }
    return text.size;
}

/* Where a failure is, from where yajl stopped. */
enum place { PLACE_TOKEN, PLACE_HERE, PLACE_END, PLACE_BACK };

/* yajl's texts, and what we say. */
static const struct {
    const char *theirs;
    const char *ours;
    enum place place;
} messages[] = {
    {"trailing garbage", "there is something behind the value"},
    {"premature EOF", "the text ends in the middle of a value", PLACE_END},
    {"unallowed token", "this is not expected here"},
    {"after array element", "expected a comma or ] after this element"},
    {"after key and value", "expected a comma or } after this value", PLACE_BACK},
    {"must be separated by a colon", "expected a colon after this key"},
    {"invalid object key", "an object's keys are strings in double quotes"},
    {"invalid char in json text", "this is no JSON value (strings stand in double quotes)"},
    {"invalid string in json text", "this is no JSON value (strings stand in double quotes)"},
    {"before a character which it may not", "a backslash stands before a wrong character",
     PLACE_HERE},
    {"non-hex", "\\u wants four hexadecimal digits", PLACE_HERE},
    {"invalid character inside string",
     "a control character in a string must be escaped (or the string lacks its closing quote)",
     PLACE_HERE},
    {"invalid bytes in UTF8", "this string is not valid UTF-8"},
    {"after the decimal point", "a digit must follow the decimal point"},
    {"after the exponent", "a digit must follow the exponent"},
    {"after the minus sign", "a digit must follow the minus sign"},
    {"comment", "comments are no JSON"},
};

static enum mp_err fail_syntax(struct parser *p)
{
    unsigned char *text = yajl_get_error(p->yajl, 0, p->text.data, p->text.size);
    const char *message = "this is no JSON";
    enum place place = PLACE_TOKEN;
    for (size_t i = 0; text && i < MP_ARRAY_SIZE(messages); i++) {
        if (!strstr((const char *)text, messages[i].theirs))
            continue;
        message = messages[i].ours;
        place = messages[i].place;
        break;
    }
    size_t offset = bytes_read(p);
    if (place == PLACE_END)
        offset = p->text.size;
    else if (place == PLACE_TOKEN)
        offset = token_start(p->text, offset);
    else if (place == PLACE_BACK)
        offset = token_behind_value(p->text, offset);
    fail(p, MP_EINVAL, offset, message);
    if (text)
        yajl_free_error(p->yajl, text);
    return MP_EINVAL;
}

static bool is_blank(struct mp_slice text)
{
    for (size_t i = 0; i < text.size; i++)
        if (!memchr(" \t\r\n", text.data[i], 4))
            return false;
    return true;
}

static enum mp_err run_yajl(struct parser *p)
{
    yajl_alloc_funcs functions = {arena_take, arena_resize, arena_free, p};
    p->yajl = yajl_alloc(&callbacks, &functions, p);
    /* ours is stricter */
    (void)yajl_config(p->yajl, yajl_dont_validate_strings, 1);
    yajl_status status = yajl_parse(p->yajl, p->text.data, p->text.size);
    if (status == yajl_status_ok) {
        p->is_at_end = true;
        status = yajl_complete_parse(p->yajl);
    }
    enum mp_err err = MP_OK;
    if (status == yajl_status_client_canceled)
        err = p->err;
    else if (status != yajl_status_ok)
        err = fail_syntax(p);
    yajl_free(p->yajl);
    return err;
}

static enum mp_err parse(struct parser *p)
{
    p->err = MP_OK;
    p->is_at_end = false;
    p->is_wide = false;
    p->has_forms = false;
    p->depth = 0;
    p->depth_max = 0;
    p->containers = 0;
    p->keys = p->keys_inline;
    p->key_count = 0;
    p->key_capacity = KEYS_INLINE;
    p->buckets = NULL;
    p->bucket_count = 0;
    p->arena_used = 0;
    /* where things lie in this process is as much secret as collisions in a table ask for */
    p->seed = (uintptr_t)p ^ (uintptr_t)p->text.data << 16;
    if (is_blank(p->text))
        return fail(p, MP_EINVAL, p->text.size, "there is no JSON, the text is empty");
    size_t lone = find_lone_surrogate(p->text);
    if (lone != p->text.size)
        return fail(p, MP_EINVAL, lone, "half of a surrogate pair is no character");
    enum mp_err err = run_yajl(p);
    struct mp_alloc *a = p->out->alloc;
    if (p->keys != p->keys_inline)
        mp_alloc_free(a, p->keys, p->key_capacity * sizeof(*p->keys));
    mp_alloc_free(a, p->buckets, p->bucket_count * sizeof(*p->buckets));
    return err;
}

/* --- settling --- */

struct level {
    uint64_t left; /* values, of a map keys too */
    uint32_t total;
    bool is_map;
    bool is_graph; /* its contents are a template, no data */
    struct mp_slice key;
};

struct settler {
    struct parser *p;
    struct mp_mp_reader reader;
    struct mp_buf to;  /* writes over what the reader has passed */
    uint32_t ordinal;  /* of the last container read */
    bool is_protected; /* the next value stands in a $lit */
    unsigned depth;
    struct level levels[MP_DEPTH_MAX];
};

static void tell_settled_path(struct settler *s)
{
    struct mp_path path;
    mp_path_init(&path, s->p->error->path, sizeof(s->p->error->path));
    for (unsigned d = 0; d < s->depth; d++) {
        const struct level *l = &s->levels[d];
        if (l->is_map)
            mp_path_add_key(&path, l->key);
        else
            mp_path_add_index(&path, l->total - l->left);
    }
}

/* Fails at the container that was read last. What was written so far is of no use any more. */
static enum mp_err fail_settling(struct settler *s, enum mp_err err, const char *message)
{
    struct parser *p = s->p;
    tell_settled_path(s);
    p->out->size = p->out_start;
    char path[sizeof(p->error->path)];
    memcpy(path, p->error->path, sizeof(path));
    p->ordinal_sought = s->ordinal;
    (void)(parse(p) != MP_OK);
    memcpy(p->error->path, path, sizeof(path));
    snprintf(p->error->message, sizeof(p->error->message), "%s", message);
    return err;
}

static enum mp_err put_int_form(struct settler *s, struct mp_slice text)
{
    bool is_negative;
    uint64_t bits;
    if (!mp_json_int_read(text, &is_negative, &bits))
        return fail_settling(s, MP_EINVAL,
                             "$int wants a string with an integer from -2^63 to 2^64-1");
    return is_negative ? mp_mp_put_int(&s->to, (int64_t)bits) : mp_mp_put_uint(&s->to, bits);
}

static enum mp_err put_bytes_form(struct settler *s, struct mp_slice text)
{
    /* decoded where it lies, then put: the put may overlap its source */
    uint8_t *bytes = (uint8_t *)(uintptr_t)text.data;
    size_t size;
    if (!mp_json_base64_read(text, bytes, &size))
        return fail_settling(s, MP_EINVAL, "$bytes wants a string in base64, with padding");
    uint8_t header[5];
    unsigned length = size <= UINT8_MAX ? 1 : size <= UINT16_MAX ? 2 : 4;
    header[0] = (uint8_t)(length == 1 ? 0xc4 : length == 2 ? 0xc5 : 0xc6);
    for (unsigned i = 0; i < length; i++)
        header[1 + i] = (uint8_t)(size >> (8 * (length - 1 - i)));
    uint8_t *at = s->to.data + s->to.size;
    memmove(at + 1 + length, bytes, size);
    memcpy(at, header, 1 + length);
    s->to.size += 1 + length + size;
    return MP_OK;
}

/* Looks at an object of one key. *is_done: it was a form and is written, or (a $lit in data) its
 * header is passed over. */
static enum mp_err settle_form(struct settler *s, bool is_graph, bool *is_done)
{
    struct mp_mp_reader inside = s->reader;
    struct mp_mp_token key;
    struct mp_mp_token value;
    if (mp_mp_next(&inside, &key) != MP_OK || key.type != MP_MP_STR)
        return MP_ECORRUPT;
    enum mp_json_form form = mp_json_form_of(key.bytes);
    if (form == MP_JSON_PLAIN || (form == MP_JSON_LIT && is_graph))
        return MP_OK;
    *is_done = true;
    if (form == MP_JSON_LIT) {
        s->reader = inside;
        s->is_protected = true;
        return MP_OK;
    }
    bool is_string = mp_mp_next(&inside, &value) == MP_OK && value.type == MP_MP_STR;
    /* what is no string fails like a wrong one */
    struct mp_slice text = is_string ? value.bytes : mp_slice_of("?", 1);
    if (is_string)
        s->reader = inside;
    return form == MP_JSON_INT ? put_int_form(s, text) : put_bytes_form(s, text);
}

static enum mp_err settle_container(struct settler *s, const struct mp_mp_token *t)
{
    struct level *parent = s->depth != 0 ? &s->levels[s->depth - 1] : NULL;
    bool is_graph = parent ? parent->is_graph : s->p->opt->graph;
    bool is_map = t->type == MP_MP_MAP;
    bool is_protected = s->is_protected;
    bool is_operator = is_graph && parent && parent->is_map && parent->total == 1 &&
                       mp_json_form_of(parent->key) == MP_JSON_LIT;
    bool is_input =
        is_graph && s->depth == 1 && parent->is_map && mp_slice_is(parent->key, "input");
    s->ordinal++;
    s->is_protected = false;
    is_graph = is_graph && !is_operator && !is_input;
    if (is_map && t->count == 1 && !is_protected && !is_operator) {
        bool is_done = false;
        enum mp_err err = settle_form(s, is_graph, &is_done);
        if (err != MP_OK || is_done)
            return err;
    }
    if (s->depth == MP_DEPTH_MAX) {
        char message[48];
        snprintf(message, sizeof(message), "nesting is over %d", MP_DEPTH_MAX);
        return fail_settling(s, MP_EDEPTH, message);
    }
    s->levels[s->depth++] = (struct level){.left = is_map ? (uint64_t)t->count * 2 : t->count,
                                           .total = t->count,
                                           .is_map = is_map,
                                           .is_graph = is_graph};
    return is_map ? mp_mp_put_map(&s->to, t->count) : mp_mp_put_array(&s->to, t->count);
}

static enum mp_err settle_value(struct settler *s)
{
    const uint8_t *start = s->reader.at;
    struct mp_mp_token t;
    if (mp_mp_next(&s->reader, &t) != MP_OK)
        return MP_ECORRUPT;
    if (t.type == MP_MP_MAP || t.type == MP_MP_ARRAY)
        return settle_container(s, &t);
    s->is_protected = false;
    size_t size = (size_t)(s->reader.at - start);
    uint8_t *to = s->to.data + s->to.size;
    memmove(to, start, size);
    s->to.size += size;
    struct level *l = s->depth != 0 ? &s->levels[s->depth - 1] : NULL;
    if (l && l->is_map && l->left % 2 != 0)
        l->key = mp_slice_of(to + (size - t.bytes.size), t.bytes.size);
    return MP_OK;
}

static enum mp_err settle(struct parser *p)
{
    struct settler s;
    s.p = p;
    s.reader =
        mp_mp_reader_of(mp_slice_of(p->out->data + p->out_start, p->out->size - p->out_start));
    s.to = *p->out;
    s.to.size = p->out_start;
    s.ordinal = 0;
    s.is_protected = false;
    s.depth = 0;
    do {
        /* what is read begins behind what is written, so a put needs no more room */
        mp_assert_slow(s.to.data + s.to.size <= s.reader.at);
        if (s.depth != 0 && !s.is_protected)
            s.levels[s.depth - 1].left--;
        enum mp_err err = settle_value(&s);
        if (err != MP_OK)
            return err;
        while (s.depth != 0 && !s.is_protected && s.levels[s.depth - 1].left == 0)
            s.depth--;
    } while (s.depth != 0 || s.is_protected);
    mp_assert(s.to.data == p->out->data && mp_mp_is_at_end(&s.reader));
    p->out->size = s.to.size;
    return MP_OK;
}
