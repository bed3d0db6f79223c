/* MessagePack → JSON text: one pass over the bytes with frames of our own.
 *
 * The pretty form tries each container on one line first, by the same walk with a limit on what
 * it may write; if it does not fit, it is printed again with a line for each element. A try costs
 * at most a line's worth, so this stays linear.
 *
 * Sorted keys need to know where the pairs of a map begin, so each map is passed over once when it
 * is opened: the work is then the size times the depth. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/json/json_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/path.h"

#define PRINT_DEPTH_MAX (MP_DEPTH_MAX + 8)
#define LINE_COLUMNS    80
#define INDENT_COLUMNS  2

enum layout { LAYOUT_DENSE, LAYOUT_LINE, LAYOUT_BLOCK };

struct pair {
    struct mp_slice key; /* encoded */
    const uint8_t *value;
};

struct level {
    uint32_t total;
    uint32_t index; /* of the entry in hand, from 1; 0 before the first */
    bool is_map;
    bool is_graph;       /* its contents are a template, no data */
    bool has_wrapper;    /* it stands in a {"$lit": } that closes with it */
    struct mp_slice key; /* the text of the entry in hand */
    size_t first_pair;   /* in pairs, if sorted */
    const uint8_t *end;  /* of the map's bytes, if sorted */
};

struct printer {
    struct mp_buf *out;
    const struct mp_json_options *opt;
    struct mp_json_error *error;
    struct mp_mp_reader reader;
    enum layout layout;
    size_t size_limit;   /* LAYOUT_LINE: give up beyond */
    size_t line_start;   /* in out, for columns */
    unsigned depth;      /* open levels */
    unsigned depth_base; /* of these, those around what is tried on one line */
    struct pair *pairs;
    size_t pair_count;
    size_t pair_capacity;
    struct level levels[PRINT_DEPTH_MAX];
};

static enum mp_err print_value(struct printer *p);
static enum mp_err fail(struct printer *p, enum mp_err err, const char *message);
static void fail_buffer(struct printer *p, enum mp_err err);

/* Does not fit on the line: inside of this file only. */
#define TOO_LONG MP_EAGAIN
/* What is longer encoded is longer than a line in print: no token is shorter in print than by this
 * factor (a float of 9 bytes may print as `0.5`, an empty array of 5 bytes as `[]`). */
#define LINE_ENCODED_BYTES (LINE_COLUMNS * 5)

enum mp_err mp_json_from_msgpack(struct mp_slice value, struct mp_buf *out,
                                 const struct mp_json_options *opt, struct mp_json_error *error)
{
    static const struct mp_json_options defaults = {0};
    struct mp_json_error unused;
    struct printer p;
    p.out = out;
    p.opt = opt ? opt : &defaults;
    p.error = error ? error : &unused;
    p.reader = mp_mp_reader_of(value);
    p.layout = p.opt->pretty ? LAYOUT_BLOCK : LAYOUT_DENSE;
    p.size_limit = 0;
    p.line_start = out->size;
    p.depth = 0;
    p.depth_base = 0;
    p.pairs = NULL;
    p.pair_count = 0;
    p.pair_capacity = 0;
    size_t size = out->size;
    p.error->message[0] = '\0';
    enum mp_err err = print_value(&p);
    if (err == MP_OK && !mp_mp_is_at_end(&p.reader))
        err = fail(&p, MP_ECORRUPT, "there are bytes behind the value");
    else if (err != MP_OK && p.error->message[0] == '\0')
        fail_buffer(&p, err);
    mp_alloc_free(out->alloc, p.pairs, p.pair_capacity * sizeof(*p.pairs));
    if (err != MP_OK)
        out->size = size;
    return err;
}

static enum mp_err fail(struct printer *p, enum mp_err err, const char *message)
{
    struct mp_path path;
    mp_path_init(&path, p->error->path, sizeof(p->error->path));
    for (unsigned d = 0; d < p->depth; d++) {
        const struct level *l = &p->levels[d];
        if (l->index == 0)
            continue;
        if (l->is_map)
            mp_path_add_key(&path, l->key);
        else
            mp_path_add_index(&path, l->index);
    }
    snprintf(p->error->message, sizeof(p->error->message), "%s", message);
    p->error->line = 0;
    p->error->column = 0;
    return err;
}

static void fail_buffer(struct printer *p, enum mp_err err)
{
    char message[80];
    snprintf(message, sizeof(message), "the text is larger than %zu bytes", p->out->size_max);
    p->depth = 0;
    fail(p, err, err == MP_ETOOLARGE ? message : mp_err_text(err));
}

static enum mp_err put(struct printer *p, const char *text, size_t size)
{
    return mp_buf_append(p->out, mp_slice_of(text, size));
}

/* --- scalars --- */

/* 0: as it is, 1: escaped, 2: may begin a control character of U+0080 to U+009F */
static const uint8_t classes[256] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,         1,          1,          1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ['"'] = 1, ['\\'] = 1, [0x7f] = 1, [0xC2] = 2};

static enum mp_err put_escape(struct printer *p, unsigned c)
{
    static const char digits[] = "0123456789abcdef";
    static const char letters[] = "\bb\tt\nn\ff\rr\"\"\\\\";
    for (size_t i = 0; i + 1 < sizeof(letters); i += 2) {
        if ((unsigned char)letters[i] != c)
            continue;
        char text[2] = {'\\', letters[i + 1]};
        return put(p, text, 2);
    }
    char text[6] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
    return put(p, text, 6);
}

static enum mp_err put_text(struct printer *p, struct mp_slice s)
{
    enum mp_err err = mp_buf_reserve(p->out, s.size + 2);
    if (err != MP_OK)
        return err;
    p->out->data[p->out->size++] = '"';
    size_t start = 0;
    for (size_t i = 0; err == MP_OK && i < s.size; i++) {
        unsigned class = classes[s.data[i]];
        if (MP_LIKELY(class == 0) || (class == 2 && s.data[i + 1] >= 0xA0))
            continue;
        err = mp_buf_append(p->out, mp_slice_of(s.data + start, i - start));
        if (err == MP_OK)
            err = put_escape(p, class == 2 ? s.data[i + 1] : s.data[i]);
        i += class == 2;
        start = i + 1;
    }
    if (err == MP_OK)
        err = mp_buf_append(p->out, mp_slice_of(s.data + start, s.size - start));
    return err == MP_OK ? mp_buf_append_byte(p->out, '"') : err;
}

static enum mp_err put_bytes(struct printer *p, struct mp_slice s)
{
    bool is_dense = p->layout == LAYOUT_DENSE;
    size_t digits = (s.size + 2) / 3 * 4;
    enum mp_err err = is_dense ? put(p, "{\"$bytes\":\"", 11) : put(p, "{\"$bytes\": \"", 12);
    if (err == MP_OK)
        err = mp_buf_reserve(p->out, digits);
    if (err != MP_OK)
        return err;
    mp_json_base64_print(s, p->out->data + p->out->size);
    p->out->size += digits;
    return put(p, "\"}", 2);
}

static enum mp_err put_int(struct printer *p, bool is_negative, uint64_t magnitude)
{
    bool is_plain = magnitude <= MP_JSON_EXACT_MAX;
    char text[64];
    size_t size = 0;
    if (!is_plain) {
        size = p->layout == LAYOUT_DENSE ? 9 : 10;
        memcpy(text, size == 9 ? "{\"$int\":\"" : "{\"$int\": \"", size);
    }
    if (is_negative)
        text[size++] = '-';
    size += mp_json_uint_print(magnitude, text + size);
    if (!is_plain) {
        text[size++] = '"';
        text[size++] = '}';
    }
    return put(p, text, size);
}

static enum mp_err put_float(struct printer *p, double v)
{
    if (isnan(v))
        return fail(p, MP_EINVAL, "JSON has no NaN");
    if (isinf(v))
        return fail(p, MP_EINVAL, "JSON has no infinity");
    if (fabs(v) <= (double)MP_JSON_EXACT_MAX && v == floor(v) && !(v == 0 && signbit(v)))
        return put_int(p, v < 0, (uint64_t)fabs(v));
    char text[MP_JSON_NUMBER_BYTES];
    return put(p, text, mp_json_number_print(v, text));
}

static enum mp_err put_scalar(struct printer *p, const struct mp_mp_token *t)
{
    bool is_text = t->type == MP_MP_STR || t->type == MP_MP_BIN;
    if (p->layout == LAYOUT_LINE && is_text && t->bytes.size > LINE_COLUMNS)
        return TOO_LONG;
    switch (t->type) {
    case MP_MP_NIL:
        return put(p, "null", 4);
    case MP_MP_BOOL:
        return t->b ? put(p, "true", 4) : put(p, "false", 5);
    case MP_MP_UINT:
        return put_int(p, false, t->u);
    case MP_MP_INT:
        return put_int(p, true, 0 - (uint64_t)t->i);
    case MP_MP_FLOAT:
        return put_float(p, t->f);
    case MP_MP_STR:
        return mp_slice_is_utf8(t->bytes) ? put_text(p, t->bytes) : put_bytes(p, t->bytes);
    case MP_MP_BIN:
        return put_bytes(p, t->bytes);
    default:
        return fail(p, MP_EINVAL, "JSON has no form for a MessagePack extension");
    }
}

/* --- containers --- */

static int compare_pairs(const void *a, const void *b)
{
    const struct pair *x = (const struct pair *)a;
    const struct pair *y = (const struct pair *)b;
    struct mp_mp_reader rx = mp_mp_reader_of(x->key);
    struct mp_mp_reader ry = mp_mp_reader_of(y->key);
    struct mp_mp_token tx;
    struct mp_mp_token ty;
    if (mp_mp_next(&rx, &tx) == MP_OK && mp_mp_next(&ry, &ty) == MP_OK && tx.type == MP_MP_STR &&
        ty.type == MP_MP_STR) {
        int order = mp_slice_compare(tx.bytes, ty.bytes);
        if (order != 0)
            return order;
    }
    /* equal or wrong keys: as they come */
    return x->value < y->value ? -1 : x->value > y->value;
}

static enum mp_err take_pair(struct printer *p, const struct pair *pair)
{
    if (p->pair_count == p->pair_capacity) {
        size_t capacity = p->pair_capacity == 0 ? 64 : p->pair_capacity * 2;
        struct mp_alloc *a = p->out->alloc;
        void *pairs = a->resize(a->context, p->pairs, p->pair_capacity * sizeof(*p->pairs),
                                capacity * sizeof(*p->pairs));
        if (!pairs)
            return MP_ENOMEM;
        p->pairs = (struct pair *)pairs;
        p->pair_capacity = capacity;
    }
    p->pairs[p->pair_count++] = *pair;
    return MP_OK;
}

/* Finds and sorts the pairs of the map whose header was just read. */
static enum mp_err sort_map(struct printer *p, struct level *l)
{
    struct mp_mp_reader r = p->reader;
    l->first_pair = p->pair_count;
    for (uint32_t i = 0; i < l->total; i++) {
        struct pair pair;
        if (mp_mp_take(&r, &pair.key) != MP_OK)
            return MP_ECORRUPT;
        pair.value = r.at;
        if (mp_mp_skip(&r) != MP_OK)
            return MP_ECORRUPT;
        enum mp_err err = take_pair(p, &pair);
        if (err != MP_OK)
            return err;
    }
    l->end = r.at;
    if (l->total > 1)
        qsort(p->pairs + l->first_pair, l->total, sizeof(*p->pairs), compare_pairs);
    return MP_OK;
}

/* Whether a map of one pair must be wrapped in a $lit, as its key would be read as a form. */
static bool needs_wrapper(const struct printer *p, bool is_graph, bool *is_operator)
{
    struct mp_mp_reader r = p->reader;
    struct mp_mp_token key;
    if (mp_mp_next(&r, &key) != MP_OK || key.type != MP_MP_STR)
        return false;
    enum mp_json_form form = mp_json_form_of(key.bytes);
    *is_operator = is_graph && form == MP_JSON_LIT;
    return form != MP_JSON_PLAIN && !*is_operator;
}

static enum mp_err open_container(struct printer *p, const struct mp_mp_token *t)
{
    if (p->depth == PRINT_DEPTH_MAX)
        return fail(p, MP_EDEPTH, "nesting is too deep");
    const struct level *parent = p->depth != 0 ? &p->levels[p->depth - 1] : NULL;
    bool is_graph = parent ? parent->is_graph : p->opt->graph;
    bool is_map = t->type == MP_MP_MAP;
    /* what a graph's $lit or `input` holds is data */
    bool is_protected = is_graph && parent && parent->is_map && parent->total == 1 &&
                        mp_slice_is(parent->key, "$lit");
    if (is_protected ||
        (is_graph && p->depth == 1 && parent->is_map && mp_slice_is(parent->key, "input")))
        is_graph = false;
    bool is_operator = false;
    bool has_wrapper =
        is_map && t->count == 1 && !is_protected && needs_wrapper(p, is_graph, &is_operator);
    struct level *l = &p->levels[p->depth++];
    *l = (struct level){.total = t->count,
                        .is_map = is_map,
                        .is_graph = is_graph && !has_wrapper,
                        .has_wrapper = has_wrapper};
    if (is_map && p->opt->sort_keys) {
        enum mp_err err = sort_map(p, l);
        if (err != MP_OK)
            return err == MP_ECORRUPT ? fail(p, err, "this is no MessagePack") : err;
    }
    enum mp_err err = MP_OK;
    if (has_wrapper)
        err = p->layout == LAYOUT_DENSE ? put(p, "{\"$lit\":", 8) : put(p, "{\"$lit\": ", 9);
    return err == MP_OK ? mp_buf_append_byte(p->out, is_map ? '{' : '[') : err;
}

static enum mp_err break_line(struct printer *p, unsigned indent)
{
    size_t spaces = (size_t)indent * INDENT_COLUMNS;
    enum mp_err err = mp_buf_reserve(p->out, spaces + 1);
    if (err != MP_OK)
        return err;
    p->out->data[p->out->size++] = '\n';
    p->line_start = p->out->size;
    memset(p->out->data + p->out->size, ' ', spaces);
    p->out->size += spaces;
    return MP_OK;
}

static enum mp_err close_container(struct printer *p)
{
    struct level *l = &p->levels[p->depth - 1];
    enum mp_err err = MP_OK;
    if (p->layout == LAYOUT_BLOCK && l->total != 0)
        err = break_line(p, p->depth - 1);
    if (err == MP_OK)
        err = put(p, l->is_map ? "}}" : "]", 1u + l->has_wrapper);
    if (l->is_map && p->opt->sort_keys) {
        p->reader.at = l->end;
        p->pair_count = l->first_pair;
    }
    p->depth--;
    return err;
}

static enum mp_err print_key(struct printer *p, struct level *l)
{
    struct mp_mp_reader sorted;
    struct mp_mp_reader *r = &p->reader;
    if (p->opt->sort_keys) {
        const struct pair *pair = &p->pairs[l->first_pair + l->index];
        sorted = mp_mp_reader_of(pair->key);
        r = &sorted;
        p->reader.at = pair->value;
    }
    struct mp_mp_token t;
    if (mp_mp_next(r, &t) != MP_OK || t.type == MP_MP_EXT) {
        l->index = 0;
        return fail(p, MP_ECORRUPT, "this is no MessagePack");
    }
    if (t.type != MP_MP_STR || !mp_slice_is_utf8(t.bytes)) {
        l->index = 0;
        return fail(p, MP_EINVAL,
                    t.type == MP_MP_STR || t.type == MP_MP_BIN
                        ? "a key that is not valid UTF-8 has no JSON form"
                        : "a key that is no string has no JSON form");
    }
    l->key = t.bytes;
    enum mp_err err = put_text(p, t.bytes);
    return err != MP_OK ? err : put(p, ": ", p->layout == LAYOUT_DENSE ? 1 : 2);
}

/* What stands before the next entry of the innermost level. */
static enum mp_err begin_entry(struct printer *p, struct level *l)
{
    enum mp_err err = MP_OK;
    if (l->index != 0)
        err = put(p, ", ", p->layout == LAYOUT_LINE ? 2 : 1);
    if (err == MP_OK && p->layout == LAYOUT_BLOCK)
        err = break_line(p, p->depth);
    if (err == MP_OK && l->is_map)
        err = print_key(p, l);
    l->index++;
    return err;
}

/* Prints one container, whose header is next, on this line, or leaves everything as it was. */
static enum mp_err print_on_line(struct printer *p, bool *is_done)
{
    struct mp_mp_reader reader = p->reader;
    size_t size = p->out->size;
    size_t pairs = p->pair_count;
    unsigned depth = p->depth;
    unsigned base = p->depth_base;
    if (p->opt->sort_keys) {
        /* sorting looks at all of it, however little of it would be printed */
        struct mp_slice bytes;
        if (mp_mp_take(&reader, &bytes) == MP_OK && bytes.size > LINE_ENCODED_BYTES) {
            *is_done = false;
            return MP_OK;
        }
        reader = p->reader;
    }
    p->layout = LAYOUT_LINE;
    /* a comma may follow */
    p->size_limit = p->line_start + LINE_COLUMNS - 1;
    p->depth_base = depth;
    enum mp_err err = print_value(p);
    p->layout = LAYOUT_BLOCK;
    p->depth_base = base;
    *is_done = err == MP_OK;
    if (err != TOO_LONG)
        return err;
    p->reader = reader;
    p->out->size = size;
    p->pair_count = pairs;
    p->depth = depth;
    return MP_OK;
}

/* One value: a scalar whole, a container's begin (or all of it, if it fits on the line). */
static enum mp_err begin_value(struct printer *p)
{
    struct mp_mp_reader r = p->reader;
    struct mp_mp_token t;
    if (mp_mp_next(&r, &t) != MP_OK)
        return fail(p, MP_ECORRUPT, "the bytes end early or are no MessagePack");
    if (t.type != MP_MP_ARRAY && t.type != MP_MP_MAP) {
        p->reader = r;
        return put_scalar(p, &t);
    }
    if (p->layout == LAYOUT_BLOCK) {
        bool is_done;
        enum mp_err err = print_on_line(p, &is_done);
        if (err != MP_OK || is_done)
            return err;
    }
    p->reader = r;
    return open_container(p, &t);
}

/* Recurses once at most: from the block layout into that of a line. */
static enum mp_err print_value(struct printer *p)
{
    enum mp_err err = begin_value(p);
    while (err == MP_OK && p->depth > p->depth_base) {
        struct level *l = &p->levels[p->depth - 1];
        if (p->layout == LAYOUT_LINE && p->out->size > p->size_limit)
            return TOO_LONG;
        if (l->index == l->total) {
            err = close_container(p);
            continue;
        }
        err = begin_entry(p, l);
        if (err == MP_OK)
            err = begin_value(p);
    }
    if (err == MP_OK && p->layout == LAYOUT_LINE && p->out->size > p->size_limit)
        return TOO_LONG;
    return err;
}
