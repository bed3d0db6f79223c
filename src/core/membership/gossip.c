/* What is told, to whom, how often. Updates name a member, and what is told of it is read from the
 * table when a datagram is filled, so that nothing outdated leaves; news carry their bytes.
 *
 * Both queues are rings: what is new enters in front, what was told goes to the back, and what was
 * told often enough drops out; so the least told goes first. Every datagram that leaves takes from
 * them what has room.
 *
 * News are opaque, so whether they were heard before is told by their hash, for the last
 * MP_GOSSIP_SEEN_MAX of them; one that falls out of that memory while it still travels could
 * circle, which its hops end. Under one key the queue holds only the news with the highest stamp (a
 * logical clock): that another key's owner restarted with a lower clock costs speed, since digests
 * find what gossip does not tell. */
#include "src/core/membership/membership_internal.h"

static uint32_t spread(const struct mp_membership *m)
{
    return (MP_SWIM_SPREAD * mp_swim_log10_milli(m->live + 1) + 999) / 1000;
}

static void wake(struct mp_membership *m, mp_time now)
{
    mp_time at = mp_time_add(m->gossiped_at, MP_SWIM_GOSSIP_PAUSE);
    if (m->gossip_at == MP_NEVER && m->is_started)
        m->gossip_at = at > now ? at : now;
}

/* --- updates --- */

static struct mp_swim_update *update_at(const struct mp_membership *m, uint32_t i)
{
    return &m->updates[(m->update_first + i) % m->update_capacity];
}

static void remove_updates(struct mp_membership *m, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->update_count; i++) {
        struct mp_swim_update u = *update_at(m, i);
        if (u.member != n)
            *update_at(m, kept++) = u;
    }
    m->update_count = kept;
    m->members[n].bits &= (uint8_t)~MP_SWIM_QUEUED;
}

static bool reserve_updates(struct mp_membership *m)
{
    if (m->update_count < m->update_capacity)
        return true;
    uint32_t capacity = m->update_capacity == 0 ? 8 : m->update_capacity * 2;
    struct mp_swim_update *updates = mp_alloc_take(&m->alloc, capacity * sizeof(*updates));
    if (!updates)
        return false;
    for (uint32_t i = 0; i < m->update_count; i++)
        updates[i] = *update_at(m, i);
    mp_alloc_free(&m->alloc, m->updates, m->update_capacity * sizeof(*updates));
    m->updates = updates;
    m->update_capacity = capacity;
    m->update_first = 0;
    return true;
}

void mp_swim_tell(struct mp_membership *m, mp_time now, uint32_t n, uint32_t accuser)
{
    bool is_confirmation = accuser != MP_MEMBER_NONE && m->members[n].state == MP_GOSSIP_SUSPECT &&
                           m->suspicions[m->members[n].mark].accuser_count > 1;
    if (!is_confirmation && (m->members[n].bits & MP_SWIM_QUEUED) != 0)
        remove_updates(m, n);
    if (m->update_count == MP_GOSSIP_UPDATES_MAX)
        m->update_count--; /* the most told */
    if (!reserve_updates(m)) {
        m->is_short = true;
        return;
    }
    m->update_first = m->update_first == 0 ? m->update_capacity - 1 : m->update_first - 1;
    m->update_count++;
    *update_at(m, 0) = (struct mp_swim_update){.member = n, .accuser = accuser};
    m->members[n].bits |= MP_SWIM_QUEUED;
    wake(m, now);
}

static bool put_member(struct mp_membership *m, mp_time now, struct mp_gossip_writer *w, uint32_t n,
                       uint32_t accuser)
{
    struct mp_gossip_member s = mp_swim_statement(m, now, n);
    if (s.state == MP_GOSSIP_SUSPECT && accuser != MP_MEMBER_NONE && mp_swim_is_visible(m, accuser))
        s.accuser = mp_swim_name(m, accuser);
    return mp_gossip_put_member(w, &s);
}

static void fill_updates(struct mp_membership *m, mp_time now, struct mp_gossip_writer *w,
                         uint32_t but, uint32_t copies)
{
    uint32_t limit = m->update_count == 0 ? 0 : spread(m);
    for (uint32_t left = m->update_count; left != 0; left--) {
        struct mp_swim_update u = *update_at(m, 0);
        bool is_there = u.member < m->end && m->members[u.member].state != MP_SWIM_FREE;
        if (is_there && u.member != but && !put_member(m, now, w, u.member, u.accuser))
            return;
        m->update_first = (m->update_first + 1) % m->update_capacity;
        m->update_count--;
        u.sent += copies;
        if (is_there && u.sent < limit)
            *update_at(m, m->update_count++) = u;
    }
}

/* --- news --- */

static size_t news_bytes(const struct mp_swim_news *n)
{
    return sizeof(*n) + n->key_size + n->size;
}

static void remove_news(struct mp_membership *m, uint32_t i)
{
    mp_alloc_free(&m->alloc, m->news[i], news_bytes(m->news[i]));
    m->news_count--;
    memmove(&m->news[i], &m->news[i + 1], (m->news_count - i) * sizeof(struct mp_swim_news *));
}

static void fill_news(struct mp_membership *m, struct mp_gossip_writer *w, uint32_t copies)
{
    uint32_t limit = m->news_count == 0 ? 0 : spread(m);
    for (uint32_t left = m->news_count; left != 0; left--) {
        struct mp_swim_news *n = m->news[0];
        const struct mp_gossip_news item = {.key = mp_slice_of(n->data, n->key_size),
                                            .stamp = n->stamp,
                                            .hops = n->hops,
                                            .bytes = mp_slice_of(n->data + n->key_size, n->size)};
        if (!mp_gossip_put_news(w, &item))
            return;
        n->sent += copies;
        if (n->sent >= limit) {
            remove_news(m, 0);
            continue;
        }
        memmove(&m->news[0], &m->news[1], (m->news_count - 1) * sizeof(struct mp_swim_news *));
        m->news[m->news_count - 1] = n;
    }
}

static void queue_news(struct mp_membership *m, mp_time now, const struct mp_gossip_news *news)
{
    for (uint32_t i = 0; i < m->news_count; i++) {
        const struct mp_swim_news *n = m->news[i];
        if (!mp_slice_equal(news->key, mp_slice_of(n->data, n->key_size)))
            continue;
        if (n->stamp > news->stamp)
            return;
        remove_news(m, i);
        break;
    }
    if (m->news_count == MP_GOSSIP_NEWS_MAX)
        remove_news(m, m->news_count - 1);
    void *all = mp_swim_grow(m, m->news, sizeof(*m->news), &m->news_capacity, m->news_count + 1);
    if (!all) {
        m->is_short = true;
        return;
    }
    m->news = (struct mp_swim_news **)all;
    struct mp_swim_news *n =
        mp_alloc_take(&m->alloc, sizeof(*n) + news->key.size + news->bytes.size);
    if (!n) {
        m->is_short = true;
        return;
    }
    *n = (struct mp_swim_news){.stamp = news->stamp,
                               .hops = news->hops,
                               .key_size = (uint8_t)news->key.size,
                               .size = (uint8_t)news->bytes.size};
    memcpy(n->data, news->key.data, news->key.size);
    if (news->bytes.size != 0)
        memcpy(n->data + news->key.size, news->bytes.data, news->bytes.size);
    memmove(&m->news[1], &m->news[0], m->news_count * sizeof(struct mp_swim_news *));
    m->news[0] = n;
    m->news_count++;
    wake(m, now);
}

/* False if it was remembered already. */
static bool remember(struct mp_membership *m, struct mp_slice key, struct mp_slice bytes)
{
    uint64_t hash = mp_slice_hash(bytes, mp_slice_hash(key, 0));
    for (uint32_t i = 0; i < m->seen_count; i++)
        if (m->seen[i] == hash)
            return false;
    if (m->seen_count < MP_GOSSIP_SEEN_MAX) {
        void *seen =
            mp_swim_grow(m, m->seen, sizeof(*m->seen), &m->seen_capacity, m->seen_count + 1);
        if (!seen) {
            m->is_short = true;
            return false; /* the digests will find it */
        }
        m->seen = (uint64_t *)seen;
        m->seen[m->seen_count++] = hash;
        return true;
    }
    m->seen[m->seen_next] = hash;
    m->seen_next = (m->seen_next + 1) % MP_GOSSIP_SEEN_MAX;
    return true;
}

void mp_swim_publish(struct mp_membership *m, mp_time now, struct mp_slice key,
                     struct mp_slice bytes)
{
    mp_assert(key.size != 0 && key.size <= MP_NODE_NAME_BYTES_MAX);
    mp_assert(bytes.size <= MP_NEWS_BYTES_MAX);
    (void)remember(m, key, bytes); /* told again on purpose if it was */
    const struct mp_gossip_news news = {.key = key, .stamp = ++m->clock, .bytes = bytes};
    queue_news(m, now, &news);
}

void mp_swim_hear_news(struct mp_membership *m, mp_time now, const struct mp_gossip_news *news,
                       uint32_t from)
{
    if (!remember(m, news->key, news->bytes))
        return;
    if (news->stamp > m->clock && news->stamp != UINT64_MAX)
        m->clock = news->stamp;
    uint32_t about = mp_membership_find(m, news->key);
    if (about == MP_MEMBER_SELF)
        return; /* of an earlier boot, or a lie: what is new here nobody knows better */
    mp_swim_emit_bytes(m, MP_MEMBERSHIP_HEARD, about != MP_MEMBER_NONE ? about : from, news->bytes);
    if (news->hops >= MP_GOSSIP_HOPS_MAX)
        return;
    struct mp_gossip_news passed = *news;
    passed.hops++;
    queue_news(m, now, &passed);
}

/* --- datagrams --- */

static uint32_t first_accuser(const struct mp_membership *m, uint32_t n)
{
    if (m->members[n].state != MP_GOSSIP_SUSPECT)
        return MP_MEMBER_NONE;
    const struct mp_swim_suspicion *s = &m->suspicions[m->members[n].mark];
    return s->accuser_count != 0 ? s->accusers[0] : MP_MEMBER_NONE;
}

void mp_swim_send(struct mp_membership *m, mp_time now, const struct mp_gossip *g, uint32_t about,
                  const struct mp_address *to, uint32_t to_count)
{
    if (!m->is_started || m->is_left)
        return;
    struct mp_gossip head = *g;
    head.cluster = m->cluster;
    head.name = mp_swim_name(m, MP_MEMBER_SELF);
    head.generation = m->members[MP_MEMBER_SELF].generation;
    head.incarnation = m->members[MP_MEMBER_SELF].incarnation;
    head.flags = m->members[MP_MEMBER_SELF].bits & MP_SWIM_FLAGS;
    if (!m->is_settled)
        head.flags |= MP_GOSSIP_JOINING;
    head.load = m->load;
    head.sender = mp_swim_address(m, MP_MEMBER_SELF);
    struct mp_gossip_writer w;
    mp_gossip_begin(&w, &head);
    if (about != MP_MEMBER_NONE)
        (void)put_member(m, now, &w, about, first_accuser(m, about));
    fill_updates(m, now, &w, about, to_count);
    fill_news(m, &w, to_count);
    struct mp_slice bytes = mp_gossip_end(&w);
    size_t at = m->out.size;
    for (uint32_t i = 0; i < to_count; i++) {
        struct mp_membership_effect *e = NULL;
        if (i == 0) {
            e = mp_swim_emit_bytes(m, MP_MEMBERSHIP_SEND, MP_MEMBER_NONE, bytes);
        } else if ((e = mp_swim_emit(m, MP_MEMBERSHIP_SEND, MP_MEMBER_NONE)) != NULL) {
            m->offsets[m->effect_count - 1] = at;
            e->send.bytes.size = bytes.size;
        }
        if (!e)
            return;
        e->send.to = to[i];
    }
}

static uint32_t choose_live(struct mp_membership *m, struct mp_address *to, uint32_t wanted)
{
    uint32_t chosen[MP_SWIM_GOODBYES];
    uint32_t count = 0;
    mp_assert(wanted <= MP_SWIM_GOODBYES);
    for (uint32_t tries = 0; tries < 3 * wanted && count < wanted; tries++) {
        uint32_t n = mp_swim_random_live(m, MP_MEMBER_NONE);
        bool is_new = n != MP_MEMBER_NONE;
        for (uint32_t i = 0; i < count; i++)
            is_new = is_new && chosen[i] != n;
        if (!is_new)
            continue;
        chosen[count] = n;
        to[count++] = mp_swim_address(m, n);
    }
    return count;
}

void mp_swim_gossip_run(struct mp_membership *m, mp_time now)
{
    if (now < m->gossip_at)
        return;
    m->gossip_at = MP_NEVER;
    if (m->update_count == 0 && m->news_count == 0)
        return;
    struct mp_address to[MP_SWIM_GOODBYES];
    uint32_t count = choose_live(m, to, MP_SWIM_FANOUT);
    m->gossiped_at = now;
    if (count == 0)
        return; /* it waits for somebody: whoever comes wakes it */
    mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_GOSSIP}, MP_MEMBER_NONE, to, count);
    if (m->update_count != 0 || m->news_count != 0)
        m->gossip_at = now + MP_SWIM_GOSSIP_PAUSE;
}

void mp_swim_goodbye(struct mp_membership *m, mp_time now)
{
    struct mp_address to[MP_SWIM_GOODBYES];
    uint32_t count = choose_live(m, to, MP_SWIM_GOODBYES);
    if (count != 0)
        mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_GOSSIP}, MP_MEMBER_SELF, to,
                     count);
}

void mp_swim_gossip_fini(struct mp_membership *m)
{
    while (m->news_count != 0)
        remove_news(m, m->news_count - 1);
    mp_alloc_free(&m->alloc, m->news, m->news_capacity * sizeof(*m->news));
    mp_alloc_free(&m->alloc, m->updates, m->update_capacity * sizeof(*m->updates));
    mp_alloc_free(&m->alloc, m->seen, m->seen_capacity * sizeof(*m->seen));
}
