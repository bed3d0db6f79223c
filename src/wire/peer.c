/* See peer.h. A reader takes the elements one by one and remembers the first failure, so that each
 * message reads as the list of its fields. The bytes are walked once: a field is checked when it is
 * taken, what stands behind the known ones at the end. */
#include "src/wire/peer.h"

#include "src/wire/msgpack.h"

struct fields {
    struct mp_mp_reader r;
    uint32_t further; /* elements behind those that are known */
    bool is_bad;
};

static struct fields fields_of(struct mp_slice meta, uint32_t count_known)
{
    struct fields f = {.r = mp_mp_reader_of(meta)};
    struct mp_mp_token t;
    f.is_bad = mp_mp_next(&f.r, &t) != MP_OK || t.type != MP_MP_ARRAY || t.count < count_known;
    if (!f.is_bad)
        f.further = t.count - count_known;
    return f;
}

/* Whether all known fields were sound, and what follows is. */
static bool is_sound(struct fields *f)
{
    for (; !f->is_bad && f->further != 0; f->further--)
        f->is_bad = mp_mp_skip(&f->r) != MP_OK;
    return !f->is_bad && mp_mp_is_at_end(&f->r);
}

static struct mp_mp_token take(struct fields *f, enum mp_mp_type type)
{
    struct mp_mp_token t = {0};
    if (!f->is_bad && (mp_mp_next(&f->r, &t) != MP_OK || t.type != type))
        f->is_bad = true;
    return f->is_bad ? (struct mp_mp_token){0} : t;
}

static uint64_t take_uint(struct fields *f, uint64_t max)
{
    uint64_t value = take(f, MP_MP_UINT).u;
    f->is_bad = f->is_bad || value > max;
    return f->is_bad ? 0 : value;
}

static struct mp_slice take_str(struct fields *f, size_t size_max)
{
    struct mp_slice text = take(f, MP_MP_STR).bytes;
    f->is_bad = f->is_bad || text.size > size_max;
    return f->is_bad ? (struct mp_slice){0} : text;
}

static struct mp_slice take_name(struct fields *f)
{
    struct mp_slice name = take_str(f, 64);
    f->is_bad = f->is_bad || !mp_slice_is_name(name);
    return name;
}

static uint32_t take_names(struct fields *f, struct mp_slice *names, uint32_t count_max)
{
    uint32_t count = take(f, MP_MP_ARRAY).count;
    f->is_bad = f->is_bad || count > count_max;
    for (uint32_t i = 0; !f->is_bad && i < count; i++)
        names[i] = take_name(f);
    return f->is_bad ? 0 : count;
}

static enum mp_err put_names(struct mp_buf *b, const struct mp_slice *names, uint32_t count)
{
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < count; i++)
        MP_TRY(mp_mp_put_str(b, names[i]));
    return MP_OK;
}

enum mp_err mp_peer_hello_put(struct mp_buf *b, const struct mp_peer_hello *h)
{
    MP_TRY(mp_mp_put_array(b, 6));
    MP_TRY(mp_mp_put_str(b, h->cluster));
    MP_TRY(mp_mp_put_str(b, h->name));
    MP_TRY(mp_mp_put_uint(b, h->generation));
    MP_TRY(mp_mp_put_bin(b, mp_address_slice(&h->addr)));
    MP_TRY(mp_mp_put_uint(b, h->flags));
    return mp_mp_put_str(b, h->version);
}

enum mp_err mp_peer_hello_read(struct mp_slice meta, struct mp_peer_hello *h)
{
    struct fields f = fields_of(meta, 6);
    struct mp_peer_hello out = {0};
    out.cluster = take_name(&f);
    out.name = take_name(&f);
    out.generation = take_uint(&f, UINT64_MAX);
    struct mp_slice addr = take(&f, MP_MP_BIN).bytes;
    f.is_bad = f.is_bad || mp_address_of_bytes(addr, &out.addr) != MP_OK || out.generation == 0;
    out.flags = (uint8_t)take_uint(&f, UINT8_MAX);
    out.version = take_str(&f, 64);
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *h = out;
    return MP_OK;
}

enum mp_err mp_peer_call_put(struct mp_buf *b, const struct mp_peer_call *c)
{
    MP_TRY(mp_mp_put_array(b, 11));
    MP_TRY(mp_mp_put_str(b, c->fun));
    MP_TRY(mp_mp_put_uint(b, c->remaining_ns));
    MP_TRY(mp_mp_put_str(b, c->version));
    MP_TRY(put_names(b, c->needs, c->needs_count));
    MP_TRY(mp_mp_put_uint(b, c->attempt));
    MP_TRY(mp_mp_put_uint(b, c->depth));
    MP_TRY(c->context.size != 0 ? mp_mp_put_raw(b, c->context) : mp_mp_put_nil(b));
    MP_TRY(mp_mp_put_uint(b, c->flags));
    MP_TRY(mp_mp_put_uint(b, c->run));
    MP_TRY(mp_mp_put_str(b, c->coordinator));
    return mp_mp_put_bin(b, c->release);
}

enum mp_err mp_peer_call_read(struct mp_slice meta, struct mp_peer_call *c)
{
    struct fields f = fields_of(meta, 10);
    memset(c, 0, offsetof(struct mp_peer_call, needs));
    c->fun = take_str(&f, MP_FUNCTION_BYTES_MAX);
    c->remaining_ns = take_uint(&f, UINT64_MAX);
    c->version = take_str(&f, MP_FUNCTION_BYTES_MAX);
    c->needs_count = take_names(&f, c->needs, MP_NEEDS_MAX);
    c->attempt = (uint32_t)take_uint(&f, UINT32_MAX);
    c->depth = (uint32_t)take_uint(&f, UINT32_MAX);
    c->context = (struct mp_slice){0};
    if (!f.is_bad && mp_mp_take(&f.r, &c->context) != MP_OK)
        f.is_bad = true;
    if (!f.is_bad && mp_mp_type_of(c->context) == MP_MP_NIL)
        c->context = (struct mp_slice){0};
    c->flags = (uint32_t)take_uint(&f, UINT32_MAX);
    c->run = take_uint(&f, UINT64_MAX);
    c->coordinator = take_str(&f, 64);
    c->release = (struct mp_slice){0};
    if (f.further != 0) {
        f.further--;
        c->release = take(&f, MP_MP_BIN).bytes;
    }
    f.is_bad = f.is_bad || (c->release.size != 0 && c->release.size != MP_RELEASE_BYTES);
    return is_sound(&f) ? MP_OK : MP_ECORRUPT;
}

enum mp_err mp_peer_answer_put(struct mp_buf *b, const struct mp_peer_answer *a)
{
    MP_TRY(mp_mp_put_array(b, 8));
    MP_TRY(mp_mp_put_uint(b, a->load));
    MP_TRY(mp_mp_put_uint(b, a->queue_ns));
    MP_TRY(mp_mp_put_uint(b, a->run_ns));
    MP_TRY(mp_mp_put_uint(b, a->worker));
    MP_TRY(mp_mp_put_uint(b, a->flags));
    MP_TRY(mp_mp_put_uint(b, a->held));
    MP_TRY(mp_mp_put_uint(b, a->held_bytes));
    return mp_mp_put_uint(b, a->moved);
}

enum mp_err mp_peer_answer_read(struct mp_slice meta, struct mp_peer_answer *a)
{
    struct fields f = fields_of(meta, 8);
    struct mp_peer_answer out = {0};
    out.load = (uint32_t)take_uint(&f, UINT32_MAX);
    out.queue_ns = take_uint(&f, UINT64_MAX);
    out.run_ns = take_uint(&f, UINT64_MAX);
    out.worker = (uint32_t)take_uint(&f, UINT32_MAX);
    out.flags = (uint32_t)take_uint(&f, UINT32_MAX);
    out.held = take_uint(&f, UINT64_MAX);
    out.held_bytes = take_uint(&f, UINT64_MAX);
    out.moved = take_uint(&f, UINT64_MAX);
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *a = out;
    return MP_OK;
}

enum mp_err mp_peer_forward_put(struct mp_buf *b, const struct mp_peer_forward *f)
{
    MP_TRY(mp_mp_put_array(b, 4));
    MP_TRY(mp_mp_put_str(b, f->target));
    MP_TRY(put_names(b, f->passed, f->passed_count));
    MP_TRY(mp_mp_put_uint(b, f->type));
    return mp_mp_put_bin(b, f->meta);
}

enum mp_err mp_peer_forward_read(struct mp_slice meta, struct mp_peer_forward *out)
{
    struct fields f = fields_of(meta, 4);
    struct mp_peer_forward read = {0};
    read.target = take_name(&f);
    read.passed_count = take_names(&f, read.passed, MP_RELAY_NODES_MAX);
    read.type = (uint8_t)take_uint(&f, UINT8_MAX);
    read.meta = take(&f, MP_MP_BIN).bytes;
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *out = read;
    return MP_OK;
}

enum mp_err mp_peer_fetch_put(struct mp_buf *b, const struct mp_peer_fetch *f)
{
    MP_TRY(mp_mp_put_array(b, 2u + f->is_late));
    MP_TRY(mp_mp_put_uint(b, f->held));
    MP_TRY(mp_mp_put_str(b, f->path));
    return f->is_late ? mp_mp_put_uint(b, 1) : MP_OK;
}

enum mp_err mp_peer_fetch_read(struct mp_slice meta, struct mp_peer_fetch *out)
{
    struct fields f = fields_of(meta, 2);
    struct mp_peer_fetch read = {0};
    read.held = take_uint(&f, UINT64_MAX);
    read.path = take_str(&f, MP_FRAME_META_BYTES_MAX);
    if (!f.is_bad && f.further != 0) {
        read.is_late = take_uint(&f, UINT64_MAX) == 1;
        f.further--;
    }
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *out = read;
    return MP_OK;
}

enum mp_err mp_peer_release_put(struct mp_buf *b, const struct mp_peer_release *r)
{
    MP_TRY(mp_mp_put_array(b, 2));
    MP_TRY(mp_mp_put_uint(b, r->run));
    return mp_mp_put_str(b, r->coordinator);
}

enum mp_err mp_peer_release_read(struct mp_slice meta, struct mp_peer_release *out)
{
    struct fields f = fields_of(meta, 2);
    struct mp_peer_release read = {0};
    read.run = take_uint(&f, UINT64_MAX);
    read.coordinator = take_name(&f);
    if (f.is_bad)
        return MP_ECORRUPT;
    *out = read;
    return MP_OK;
}

static struct mp_slice take_unit(struct fields *f)
{
    struct mp_slice hash = take(f, MP_MP_BIN).bytes;
    f->is_bad = f->is_bad || hash.size != MP_UNIT_HASH_BYTES;
    return hash;
}

enum mp_err mp_peer_stage_put(struct mp_buf *b, const struct mp_peer_stage *s)
{
    MP_TRY(mp_mp_put_array(b, 4));
    MP_TRY(mp_mp_put_bin(b, s->unit));
    MP_TRY(mp_mp_put_uint(b, s->flags));
    MP_TRY(mp_mp_put_uint(b, s->epoch));
    return mp_mp_put_str(b, s->expect);
}

enum mp_err mp_peer_stage_read(struct mp_slice meta, struct mp_peer_stage *s)
{
    struct fields f = fields_of(meta, 4);
    struct mp_peer_stage out = {.unit = take_unit(&f)};
    out.flags = (uint32_t)take_uint(&f, UINT32_MAX);
    out.epoch = take_uint(&f, UINT64_MAX);
    out.expect = take_str(&f, 2 * MP_HASH_BYTES_MAX);
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *s = out;
    return MP_OK;
}

enum mp_err mp_peer_code_put(struct mp_buf *b, const struct mp_peer_code *c)
{
    MP_TRY(mp_mp_put_array(b, 1));
    return mp_mp_put_bin(b, c->unit);
}

enum mp_err mp_peer_code_read(struct mp_slice meta, struct mp_peer_code *c)
{
    struct fields f = fields_of(meta, 1);
    struct mp_peer_code out = {.unit = take_unit(&f)};
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *c = out;
    return MP_OK;
}

enum mp_err mp_peer_messages_put(struct mp_buf *b, const struct mp_peer_messages *m)
{
    MP_TRY(mp_mp_put_array(b, m->generation != 0 ? 4 : 3));
    MP_TRY(mp_mp_put_str(b, m->publisher));
    MP_TRY(mp_mp_put_uint(b, m->dropped));
    MP_TRY(mp_mp_put_uint(b, m->after_seq));
    return m->generation != 0 ? mp_mp_put_uint(b, m->generation) : MP_OK;
}

enum mp_err mp_peer_messages_read(struct mp_slice meta, struct mp_peer_messages *m)
{
    struct fields f = fields_of(meta, 3);
    struct mp_peer_messages out = {.publisher = take_name(&f)};
    out.dropped = take_uint(&f, UINT64_MAX);
    out.after_seq = take_uint(&f, UINT64_MAX);
    if (f.further != 0) {
        f.further--;
        out.generation = take_uint(&f, UINT64_MAX);
    }
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *m = out;
    return MP_OK;
}

enum mp_err mp_peer_backlog_put(struct mp_buf *b, const struct mp_peer_backlog *q)
{
    MP_TRY(mp_mp_put_array(b, 3));
    MP_TRY(mp_mp_put_str(b, q->pattern));
    MP_TRY(mp_mp_put_uint(b, q->since_ms));
    return mp_mp_put_str(b, q->asker);
}

enum mp_err mp_peer_backlog_read(struct mp_slice meta, struct mp_peer_backlog *q)
{
    struct fields f = fields_of(meta, 3);
    struct mp_peer_backlog out = {.pattern = take_str(&f, MP_FRAME_META_BYTES_MAX)};
    out.since_ms = take_uint(&f, INT64_MAX);
    out.asker = take_name(&f);
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *q = out;
    return MP_OK;
}

enum mp_err mp_peer_upto_put(struct mp_buf *b, const struct mp_peer_upto *u)
{
    MP_TRY(mp_mp_put_array(b, 1));
    return mp_mp_put_uint(b, u->seq);
}

enum mp_err mp_peer_upto_read(struct mp_slice meta, struct mp_peer_upto *u)
{
    struct fields f = fields_of(meta, 1);
    struct mp_peer_upto out = {.seq = take_uint(&f, UINT64_MAX)};
    if (!is_sound(&f))
        return MP_ECORRUPT;
    *u = out;
    return MP_OK;
}
