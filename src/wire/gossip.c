/* See gossip.h. A reader never runs past its end: each take checks what is left, and a datagram is
 * checked as a whole before anybody acts on a part of it, so a garbled tail costs nothing but the
 * datagram. A writer reserves nothing: a put that does not fit restores the size. */
#include "src/wire/gossip.h"

#include "src/base/assert.h"

#define MAGIC_0      0x9eu
#define VERSION      1u
#define CHECKSUM_AT  4u
#define CHECKED_FROM 8u
#define TAG_NEWS     6u /* below: 1 + state of a member */

static_assert(1 + MP_GOSSIP_FORGOTTEN < TAG_NEWS, "tags are distinct");

static uint32_t checksum(struct mp_slice s)
{
    uint32_t hash = 0x811c9dc5u;
    for (size_t i = 0; i < s.size; i++)
        hash = (hash ^ s.data[i]) * 0x01000193u;
    return hash;
}

static bool take_fixed(struct mp_slice *s, unsigned size, uint64_t *out)
{
    if (s->size < size)
        return false;
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)s->data[i] << (8 * i);
    *s = mp_slice_of(s->data + size, s->size - size);
    *out = v;
    return true;
}

static bool take_byte(struct mp_slice *s, uint8_t *out)
{
    if (s->size == 0)
        return false;
    *out = s->data[0];
    *s = mp_slice_of(s->data + 1, s->size - 1);
    return true;
}

static bool take_number(struct mp_slice *s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    size_t size = s->size < 10 ? s->size : 10;
    for (size_t i = 0; i < size; i++) {
        uint64_t byte = s->data[i];
        v |= (byte & 0x7fu) << (7 * i);
        if (byte >= 0x80u)
            continue;
        if (i == 9 && byte > 1)
            return false; /* beyond 64 bits */
        *s = mp_slice_of(s->data + i + 1, s->size - i - 1);
        *out = v;
        return v <= max;
    }
    return false;
}

static bool take_u32(struct mp_slice *s, uint32_t *out)
{
    uint64_t v;
    if (!take_number(s, UINT32_MAX, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

static bool take_bytes(struct mp_slice *s, size_t max, struct mp_slice *out)
{
    uint8_t size;
    if (!take_byte(s, &size) || size > max || size > s->size)
        return false;
    *out = mp_slice_of(s->data, size);
    *s = mp_slice_of(s->data + size, s->size - size);
    return true;
}

static bool take_name(struct mp_slice *s, struct mp_slice *out)
{
    return take_bytes(s, MP_NODE_NAME_BYTES_MAX, out) && mp_slice_is_name(*out);
}

static bool take_address(struct mp_slice *s, struct mp_address *out)
{
    struct mp_slice bytes;
    return take_bytes(s, MP_ADDRESS_BYTES_MAX, &bytes) && mp_address_of_bytes(bytes, out) == MP_OK;
}

static bool take_member(struct mp_slice *s, enum mp_gossip_state state, struct mp_gossip_member *m)
{
    *m = (struct mp_gossip_member){.state = state};
    if (!take_name(s, &m->name) || !take_number(s, UINT64_MAX - 1, &m->generation) ||
        m->generation == 0 || !take_u32(s, &m->incarnation) || !take_byte(s, &m->flags) ||
        !take_address(s, &m->addr))
        return false;
    if (state == MP_GOSSIP_SUSPECT)
        return take_bytes(s, MP_NODE_NAME_BYTES_MAX, &m->accuser) &&
               (m->accuser.size == 0 || mp_slice_is_name(m->accuser));
    return state < MP_GOSSIP_DEAD || take_u32(s, &m->age_s);
}

static bool take_item(struct mp_slice *s, struct mp_gossip_item *item)
{
    uint8_t tag;
    if (!take_byte(s, &tag) || tag == 0 || tag > TAG_NEWS)
        return false;
    item->is_news = tag == TAG_NEWS;
    if (!item->is_news)
        return take_member(s, (enum mp_gossip_state)(tag - 1), &item->member);
    struct mp_gossip_news *n = &item->news;
    return take_bytes(s, MP_NODE_NAME_BYTES_MAX, &n->key) && n->key.size != 0 &&
           take_number(s, UINT64_MAX, &n->stamp) && take_byte(s, &n->hops) &&
           take_bytes(s, MP_GOSSIP_NEWS_BYTES, &n->bytes);
}

static bool take_header(struct mp_slice *s, struct mp_gossip *g)
{
    return take_fixed(s, 8, &g->cluster) && take_name(s, &g->name) &&
           take_number(s, UINT64_MAX - 1, &g->generation) && g->generation != 0 &&
           take_u32(s, &g->incarnation) && take_byte(s, &g->flags) && take_u32(s, &g->load) &&
           take_address(s, &g->sender);
}

static bool take_message(struct mp_slice *s, struct mp_gossip *g)
{
    uint8_t kind;
    if (!take_byte(s, &kind))
        return false;
    g->kind = (enum mp_gossip_kind)kind;
    switch (kind) {
    case MP_GOSSIP_ACK:
    case MP_GOSSIP_NACK:
        return take_u32(s, &g->seq);
    case MP_GOSSIP_PING:
    case MP_GOSSIP_RELAYED:
        return take_u32(s, &g->seq) && take_name(s, &g->target);
    case MP_GOSSIP_PING_REQ:
        return take_u32(s, &g->seq) && take_name(s, &g->target) && take_address(s, &g->addr);
    case MP_GOSSIP_REFUSED:
        return take_name(s, &g->target) && take_number(s, UINT64_MAX - 1, &g->claimed) &&
               take_number(s, UINT64_MAX - 1, &g->holder_generation) && take_address(s, &g->addr);
    case MP_GOSSIP_GOSSIP:
        return true;
    default:
        return false;
    }
}

enum mp_err mp_gossip_read(struct mp_slice bytes, struct mp_gossip *g)
{
    if (bytes.size > MP_DATAGRAM_BYTES_MAX)
        return MP_ETOOLARGE;
    if (bytes.size < CHECKED_FROM || bytes.data[0] != MAGIC_0 || bytes.data[1] != 'm' ||
        bytes.data[2] != 'p' || bytes.data[3] != VERSION)
        return MP_ECORRUPT;
    struct mp_slice s = mp_slice_of(bytes.data + CHECKSUM_AT, bytes.size - CHECKSUM_AT);
    uint64_t sum = 0;
    struct mp_gossip read = {0};
    if (!take_fixed(&s, 4, &sum) || sum != checksum(s) || !take_header(&s, &read) ||
        !take_message(&s, &read) || mp_gossip_check(s) != MP_OK)
        return MP_ECORRUPT;
    read.items = s;
    *g = read;
    return MP_OK;
}

bool mp_gossip_next(struct mp_slice *items, struct mp_gossip_item *item)
{
    if (items->size == 0)
        return false;
    bool is_there = take_item(items, item);
    mp_assert(is_there);
    return true;
}

enum mp_err mp_gossip_check(struct mp_slice items)
{
    struct mp_gossip_item item;
    while (items.size != 0)
        if (!take_item(&items, &item))
            return MP_ECORRUPT;
    return MP_OK;
}

static void put_byte(struct mp_gossip_writer *w, uint8_t byte)
{
    if (w->size < sizeof(w->data))
        w->data[w->size] = byte;
    w->size++; /* past the end: the caller takes it all back */
}

static void put_number(struct mp_gossip_writer *w, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        put_byte(w, (uint8_t)(v | 0x80));
    put_byte(w, (uint8_t)v);
}

static void put_fixed(struct mp_gossip_writer *w, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        put_byte(w, (uint8_t)(v >> (8 * i)));
}

static void put_bytes(struct mp_gossip_writer *w, struct mp_slice s)
{
    mp_assert(s.size <= UINT8_MAX);
    put_byte(w, (uint8_t)s.size);
    if (s.size != 0 && w->size + s.size <= sizeof(w->data))
        memcpy(w->data + w->size, s.data, s.size);
    w->size += s.size;
}

static bool is_kept(struct mp_gossip_writer *w, size_t size_before)
{
    if (w->size <= sizeof(w->data))
        return true;
    w->size = size_before;
    return false;
}

void mp_gossip_begin(struct mp_gossip_writer *w, const struct mp_gossip *g)
{
    w->size = 0;
    put_byte(w, MAGIC_0);
    put_byte(w, 'm');
    put_byte(w, 'p');
    put_byte(w, VERSION);
    put_fixed(w, 0, 4); /* the checksum, at the end */
    put_fixed(w, g->cluster, 8);
    put_bytes(w, g->name);
    put_number(w, g->generation);
    put_number(w, g->incarnation);
    put_byte(w, g->flags);
    put_number(w, g->load);
    put_bytes(w, mp_address_slice(&g->sender));
    put_byte(w, (uint8_t)g->kind);
    if (g->kind != MP_GOSSIP_GOSSIP && g->kind != MP_GOSSIP_REFUSED)
        put_number(w, g->seq);
    if (g->kind == MP_GOSSIP_PING || g->kind == MP_GOSSIP_PING_REQ ||
        g->kind == MP_GOSSIP_RELAYED || g->kind == MP_GOSSIP_REFUSED)
        put_bytes(w, g->target);
    if (g->kind == MP_GOSSIP_REFUSED) {
        put_number(w, g->claimed);
        put_number(w, g->holder_generation);
    }
    if (g->kind == MP_GOSSIP_PING_REQ || g->kind == MP_GOSSIP_REFUSED)
        put_bytes(w, mp_address_slice(&g->addr));
    mp_assert(w->size < sizeof(w->data) / 2);
}

bool mp_gossip_put_member(struct mp_gossip_writer *w, const struct mp_gossip_member *member)
{
    size_t before = w->size;
    put_byte(w, (uint8_t)(1 + member->state));
    put_bytes(w, member->name);
    put_number(w, member->generation);
    put_number(w, member->incarnation);
    put_byte(w, member->flags);
    put_bytes(w, mp_address_slice(&member->addr));
    if (member->state == MP_GOSSIP_SUSPECT)
        put_bytes(w, member->accuser);
    else if (member->state >= MP_GOSSIP_DEAD)
        put_number(w, member->age_s);
    return is_kept(w, before);
}

bool mp_gossip_put_news(struct mp_gossip_writer *w, const struct mp_gossip_news *news)
{
    mp_assert(news->key.size != 0 && news->key.size <= MP_NODE_NAME_BYTES_MAX);
    mp_assert(news->bytes.size <= MP_GOSSIP_NEWS_BYTES);
    size_t before = w->size;
    put_byte(w, TAG_NEWS);
    put_bytes(w, news->key);
    put_number(w, news->stamp);
    put_byte(w, news->hops);
    put_bytes(w, news->bytes);
    return is_kept(w, before);
}

struct mp_slice mp_gossip_end(struct mp_gossip_writer *w)
{
    uint32_t sum = checksum(mp_slice_of(w->data + CHECKED_FROM, w->size - CHECKED_FROM));
    for (unsigned i = 0; i < 4; i++)
        w->data[CHECKSUM_AT + i] = (uint8_t)(sum >> (8 * i));
    return mp_slice_of(w->data, w->size);
}

enum mp_err mp_gossip_append(struct mp_buf *out, const struct mp_gossip_member *member)
{
    struct mp_gossip_writer w;
    w.size = 0;
    bool is_fitting = mp_gossip_put_member(&w, member);
    mp_assert(is_fitting);
    return mp_buf_append(out, mp_slice_of(w.data, w.size));
}
