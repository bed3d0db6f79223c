/* How a value over 64 KiB is shown: its size, its type, and its beginning as text that looks like
 * JSON. The text is cut after a fixed number of bytes, so only that much of the value is read. */
#include "src/core/graph/graph_internal.h"

#define STACK_MAX (MP_DEPTH_MAX + 9)

struct open {
    uint64_t left;
    bool is_map;
};

struct preview {
    struct mp_buf *text;
    struct mp_out o;
    struct open stack[STACK_MAX];
    uint32_t depth;
};

static const char *type_name(enum mp_mp_type type)
{
    static const char *const names[] = {
        [MP_MP_NIL] = "null",     [MP_MP_BOOL] = "boolean", [MP_MP_UINT] = "number",
        [MP_MP_INT] = "number",   [MP_MP_FLOAT] = "number", [MP_MP_STR] = "string",
        [MP_MP_BIN] = "bytes",    [MP_MP_ARRAY] = "list",   [MP_MP_MAP] = "map",
        [MP_MP_EXT] = "extension"};
    return names[type];
}

static bool is_full(const struct preview *p)
{
    return p->o.err != MP_OK || p->text->size >= MP_GRAPH_PREVIEW_BYTES;
}

/* Looks only at what can be shown. */
static bool is_text(struct mp_slice s)
{
    size_t size = s.size < MP_GRAPH_PREVIEW_BYTES ? s.size : MP_GRAPH_PREVIEW_BYTES;
    while (size < s.size && size > 0 && (s.data[size] & 0xc0) == 0x80)
        size--;
    return mp_slice_is_utf8(mp_slice_of(s.data, size));
}

static void put_scalar(struct preview *p, const struct mp_mp_token *t)
{
    switch (t->type) {
    case MP_MP_NIL:
        mp_out_say(&p->o, "null");
        break;
    case MP_MP_BOOL:
        mp_out_say(&p->o, t->b ? "true" : "false");
        break;
    case MP_MP_UINT:
        mp_out_say(&p->o, "%u", t->u);
        break;
    case MP_MP_INT:
        mp_out_say(&p->o, "-%u", 0 - (uint64_t)t->i);
        break;
    case MP_MP_FLOAT:
        mp_out_number(&p->o, t->f);
        break;
    case MP_MP_STR:
        mp_out_say(&p->o, is_text(t->bytes) ? "\"%s\"" : "(bytes)", t->bytes);
        break;
    default:
        mp_out_say(&p->o, "(bytes)");
        break;
    }
}

static void put_value(struct preview *p, struct mp_mp_reader *r)
{
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(r, &t);
    mp_assert(err == MP_OK);
    bool is_map = t.type == MP_MP_MAP;
    if (!is_map && t.type != MP_MP_ARRAY) {
        put_scalar(p, &t);
        return;
    }
    mp_assert(p->depth + 1 < STACK_MAX);
    p->stack[++p->depth] =
        (struct open){.left = is_map ? 2 * (uint64_t)t.count : t.count, .is_map = is_map};
    mp_out_say(&p->o, is_map ? "{" : "[");
}

/* Closes what is complete and writes what stands between two values. */
static void put_between(struct preview *p, bool *is_first)
{
    while (p->depth > 0 && p->stack[p->depth].left == 0) {
        mp_out_say(&p->o, p->stack[p->depth].is_map ? "}" : "]");
        p->depth--;
        *is_first = false;
    }
    const struct open *top = &p->stack[p->depth];
    if (p->depth > 0 && !*is_first)
        mp_out_say(&p->o, top->is_map && top->left % 2 == 1 ? ":" : ",");
}

static void put_text(struct mp_out *out, struct mp_buf *text, struct mp_slice value)
{
    struct preview p;
    struct mp_mp_reader r = mp_mp_reader_of(value);
    p.text = text;
    p.o = mp_out_of(text);
    p.depth = 0;
    p.stack[0] = (struct open){.left = 1};
    bool is_first = true;
    while (!is_full(&p) && p.stack[0].left + p.depth != 0) {
        put_between(&p, &is_first);
        if (p.stack[p.depth].left == 0)
            break;
        p.stack[p.depth].left--;
        uint32_t depth = p.depth;
        put_value(&p, &r);
        is_first = p.depth > depth;
    }
    if (is_full(&p))
        mp_out_say(&p.o, "…");
    out->err = out->err != MP_OK ? out->err : p.o.err;
}

void mp_graph_put_large(struct mp_out *o, struct mp_slice value)
{
    struct mp_buf text;
    mp_buf_init(&text, o->b->alloc, 0);
    put_text(o, &text, value);
    mp_out_map(o, 1);
    mp_out_text(o, "$large");
    mp_out_map(o, 3);
    mp_out_text(o, "bytes");
    mp_out_uint(o, value.size);
    mp_out_text(o, "type");
    mp_out_text(o, type_name(mp_mp_type_of(value)));
    mp_out_text(o, "preview");
    mp_out_str(o, mp_buf_slice(&text));
    mp_buf_fini(&text);
}
