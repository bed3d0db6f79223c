/* SWIM with Lifeguard; see membership.h for the papers. This file: life, events and effects.
 *
 *   table.c    the members, their states and digests      hear.c     what is said of whom, and
 * counts probe.c    who is asked for life, directly or not     suspect.c  suspicions and their end
 *   gossip.c   what is told, how often, to whom           dead.c     redialling, ageing, forgetting
 *   sync.c     entries, and when to compare digests       clash.c    two nodes of one name
 *
 * Deviations from the papers, each for a reason:
 *   - The first transmission of an item leaves at once when the last gossip is 100 ms old: an idle
 *     cluster passes a suspicion on in a few network hops, not in as many ticks.
 *   - A share of those who hear a suspicion probe the suspect at once instead of in their turn:
 *     confirmations and refutations then come in one round trip.
 *   - Probes may overlap: one that waits for its helpers does not hold up the next.
 *   - The round is a keyed permutation of the numbers instead of a shuffled list: it takes no
 *     memory, and a new member's number falls at a random place of it.
 *   - An unhealthy node waits longer also for the end of its own suspicions: it may be the one that
 *     hears late.
 *   - A generation above the incarnation, since a node that was restarted is another one for its
 *     callers; and tombstones, so that what was forgotten stays so.
 *
 * After each step `expected` is what mp_membership_deadline() says. A step that comes much later
 * was preceded by a stop of this process, and what was not heard meanwhile counts against nobody.
 */
#include "src/core/membership/membership_internal.h"

static void *counted_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct mp_membership *m = (struct mp_membership *)context;
    void *q = m->outer->resize(m->outer->context, p, old_size, new_size);
    if (q || new_size == 0)
        m->bytes += new_size - old_size;
    return q;
}

void *mp_swim_grow(struct mp_membership *m, void *items, size_t unit, uint32_t *capacity,
                   uint32_t wanted)
{
    if (wanted <= *capacity)
        return items;
    uint32_t grown = wanted + wanted / 16 + 3;
    void *p = m->alloc.resize(m->alloc.context, items, *capacity * unit, grown * unit);
    if (p)
        *capacity = grown;
    return p;
}

enum mp_err mp_swim_reserve_effects(struct mp_membership *m, uint32_t extra)
{
    uint32_t wanted = m->effect_count + extra;
    if (wanted > m->effect_capacity)
        wanted += wanted / 2; /* they come in bursts */
    void *effects = mp_swim_grow(m, m->effects, sizeof(*m->effects), &m->effect_capacity, wanted);
    if (!effects)
        return MP_ENOMEM;
    m->effects = (struct mp_membership_effect *)effects;
    void *offsets = mp_swim_grow(m, m->offsets, sizeof(*m->offsets), &m->offset_capacity, wanted);
    if (!offsets)
        return MP_ENOMEM;
    m->offsets = (size_t *)offsets;
    return MP_OK;
}

struct mp_membership_effect *mp_swim_emit(struct mp_membership *m,
                                          enum mp_membership_effect_kind kind, uint32_t member)
{
    if (mp_swim_reserve_effects(m, 1) != MP_OK) {
        m->is_short = true;
        return NULL;
    }
    m->offsets[m->effect_count] = 0;
    struct mp_membership_effect *e = &m->effects[m->effect_count++];
    *e = (struct mp_membership_effect){.kind = kind, .member = member};
    return e;
}

static struct mp_slice *bytes_of(struct mp_membership_effect *e)
{
    switch (e->kind) {
    case MP_MEMBERSHIP_SEND:
        return &e->send.bytes;
    case MP_MEMBERSHIP_HEARD:
        return &e->news.bytes;
    case MP_MEMBERSHIP_LOG:
        return &e->log.text;
    default:
        return NULL;
    }
}

struct mp_membership_effect *mp_swim_emit_bytes(struct mp_membership *m,
                                                enum mp_membership_effect_kind kind,
                                                uint32_t member, struct mp_slice bytes)
{
    size_t at = m->out.size;
    if (mp_buf_append(&m->out, bytes) != MP_OK) {
        m->is_short = true;
        return NULL;
    }
    struct mp_membership_effect *e = mp_swim_emit(m, kind, member);
    if (!e)
        return NULL;
    m->offsets[m->effect_count - 1] = at;
    bytes_of(e)->size = bytes.size;
    return e;
}

void mp_swim_log(struct mp_membership *m, const char *text, struct mp_slice detail)
{
    char line[160];
    struct mp_text t;
    mp_text_init(&t, line, sizeof(line));
    mp_text_put(&t, text);
    mp_text_put_slice(&t, detail);
    struct mp_membership_effect *e =
        mp_swim_emit_bytes(m, MP_MEMBERSHIP_LOG, MP_MEMBER_SELF, mp_text_slice(&t));
    if (e)
        e->log.level = 2; /* a warning */
}

void mp_swim_health(struct mp_membership *m, int change)
{
    int health = (int)m->health + change;
    m->health = health < 0                         ? 0
                : health > (int)MP_SWIM_HEALTH_MAX ? MP_SWIM_HEALTH_MAX
                                                   : (uint32_t)health;
}

uint32_t mp_swim_random(struct mp_membership *m, uint32_t below)
{
    return (uint32_t)mp_rng_below(&m->rng, below);
}

enum mp_err mp_membership_new(struct mp_membership **own_out,
                              const struct mp_membership_config *cfg, struct mp_alloc *a,
                              uint64_t seed)
{
    mp_assert(mp_slice_is_name(cfg->name) && cfg->generation != 0 && cfg->members_max != 0);
    struct mp_membership *m = mp_alloc_take(a, sizeof(*m));
    if (!m)
        return MP_ENOMEM;
    *m = (struct mp_membership){.outer = a,
                                .bytes = sizeof(*m),
                                .defects = cfg->defects,
                                .cluster = mp_slice_hash(cfg->cluster, 0),
                                .members_max = cfg->members_max,
                                .settled_at = MP_NEVER,
                                .expected = MP_NEVER,
                                .free_first = MP_MEMBER_NONE,
                                .freed_first = MP_MEMBER_NONE,
                                .suspicion_free = MP_MEMBER_NONE,
                                .redial_at = MP_NEVER,
                                .ping_at = MP_NEVER,
                                .probe_at = MP_NEVER,
                                .gossip_at = MP_NEVER,
                                .sync_at = MP_NEVER};
    m->alloc = (struct mp_alloc){.resize = counted_resize, .context = m};
    mp_rng_init(&m->rng, seed);
    mp_heap_init(&m->expiries, &m->alloc);
    mp_buf_init(&m->out, &m->alloc, 0);
    const struct mp_gossip_member self = {.state = MP_GOSSIP_ALIVE,
                                          .name = cfg->name,
                                          .generation = cfg->generation,
                                          .flags = cfg->flags,
                                          .addr = cfg->addr};
    uint32_t n = MP_MEMBER_NONE;
    if (mp_swim_add(m, 0, &self, &n) != MP_OK) {
        mp_membership_free(m);
        return MP_ENOMEM;
    }
    mp_assert(n == MP_MEMBER_SELF);
    *own_out = m;
    return MP_OK;
}

void mp_membership_free(struct mp_membership *m)
{
    if (!m)
        return;
    mp_swim_clash_fini(m);
    mp_swim_gossip_fini(m);
    mp_swim_probe_fini(m);
    mp_alloc_free(&m->alloc, m->deaths, m->death_capacity * sizeof(*m->deaths));
    mp_swim_suspicions_fini(m);
    mp_swim_table_fini(m);
    mp_buf_fini(&m->out);
    mp_alloc_free(&m->alloc, m->effects, m->effect_capacity * sizeof(*m->effects));
    mp_alloc_free(&m->alloc, m->offsets, m->offset_capacity * sizeof(*m->offsets));
    mp_assert(m->bytes == sizeof(*m));
    mp_alloc_free(m->outer, m, sizeof(*m));
}

/* Numbers that were told to be free in the last step can be used from now on. */
static void release_numbers(struct mp_membership *m)
{
    while (m->freed_first != MP_MEMBER_NONE) {
        uint32_t n = m->freed_first;
        m->freed_first = m->members[n].record;
        m->members[n].record = m->free_first;
        m->free_first = n;
    }
}

static void start(struct mp_membership *m, mp_time now, const struct mp_address *addr)
{
    bool is_first = !m->is_started;
    if (is_first) {
        m->is_started = true;
        m->base = now;
        m->members[MP_MEMBER_SELF].mark = 0;
        /* Nodes that start together do not probe together. */
        m->probe_at = now + mp_swim_random(m, (uint32_t)MP_SWIM_PERIOD);
        m->sync_at = now + mp_swim_random(m, (uint32_t)MP_SWIM_SYNC_PAUSE);
        m->redial_at = now + MP_SWIM_REDIAL_RANDOM;
        m->gossiped_at = now > MP_SWIM_GOSSIP_PAUSE ? now - MP_SWIM_GOSSIP_PAUSE : 0;
    }
    struct mp_gossip_member self = mp_swim_statement(m, now, MP_MEMBER_SELF);
    if (addr->size != 0)
        self.addr = *addr;
    mp_assert(self.addr.size != 0);
    /* Without memory it has not started: it would give an address that is not its own. */
    if (!mp_swim_declare(m, now, MP_MEMBER_SELF, &self) && is_first)
        m->is_started = false;
}

static void after_stop(struct mp_membership *m, mp_time now)
{
    m->health = MP_SWIM_HEALTH_MAX;
    mp_swim_suspicions_shift(m, now - m->last);
    mp_swim_probes_restart(m, now);
}

static void contact(struct mp_membership *m, mp_time now, const struct mp_membership_event *ev)
{
    const struct mp_gossip_member s = {.state = MP_GOSSIP_ALIVE,
                                       .name = ev->contact.name,
                                       .generation = ev->contact.generation,
                                       .flags = ev->contact.flags,
                                       .addr = ev->contact.addr};
    if (!mp_slice_is_name(s.name) || s.addr.size == 0 || s.generation == 0 ||
        s.generation == UINT64_MAX)
        return;
    uint32_t n = mp_swim_meet(m, now, &s, &s.addr);
    if (n == MP_MEMBER_NONE)
        return;
    struct mp_gossip_member said = s;
    said.incarnation = m->members[n].incarnation; /* a link does not tell it */
    /* It has to hear what is held against it, and it may not be listening to anybody else yet. */
    if (mp_swim_is_owed(m, n, &said))
        mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_GOSSIP}, n, &s.addr, 1);
}

static void leave(struct mp_membership *m, mp_time now)
{
    struct mp_gossip_member self = mp_swim_statement(m, now, MP_MEMBER_SELF);
    self.state = MP_GOSSIP_LEFT;
    self.age_s = 0;
    if (mp_swim_move(m, now, MP_MEMBER_SELF, &self) != MP_OK)
        m->is_short = true;
    mp_swim_goodbye(m, now);
    m->is_left = true;
}

static void handle(struct mp_membership *m, mp_time now, const struct mp_membership_event *ev)
{
    switch (ev->kind) {
    case MP_MEMBERSHIP_START:
        start(m, now, &ev->start.addr);
        break;
    case MP_MEMBERSHIP_DATAGRAM:
        mp_swim_datagram(m, now, &ev->datagram.from, ev->datagram.bytes);
        break;
    case MP_MEMBERSHIP_CONTACT:
        contact(m, now, ev);
        break;
    case MP_MEMBERSHIP_ENTRIES:
        mp_swim_entries(m, now, ev->entries.bytes);
        break;
    case MP_MEMBERSHIP_TCP_ACK:
        if (ev->member < m->end && mp_swim_is_visible(m, ev->member))
            mp_swim_on_link(m, ev->member);
        break;
    case MP_MEMBERSHIP_NEWS:
        mp_swim_publish(m, now, ev->news.key, ev->news.bytes);
        break;
    case MP_MEMBERSHIP_LOAD:
        m->load = ev->load;
        break;
    case MP_MEMBERSHIP_FORGET:
        mp_swim_forget(m, now, ev->name);
        break;
    case MP_MEMBERSHIP_LEAVE:
        leave(m, now);
        break;
    case MP_MEMBERSHIP_TIMER:
        break;
    }
}

static void run_timers(struct mp_membership *m, mp_time now)
{
    if (!m->is_settled && now >= m->settled_at)
        m->is_settled = true;
    mp_swim_clashes_run(m, now);
    mp_swim_pings_run(m, now);
    mp_swim_suspicions_run(m, now);
    mp_swim_probe_run(m, now);
    mp_swim_sync_run(m, now);
    mp_swim_gossip_run(m, now); /* last: what was just found out leaves at once */
}

static mp_time deadline(const struct mp_membership *m)
{
    if (!m->is_started || m->is_left)
        return MP_NEVER;
    mp_time first = mp_time_earlier(m->probe_at, m->gossip_at);
    first = mp_time_earlier(first, mp_time_earlier(m->sync_at, m->ping_at));
    return mp_time_earlier(first,
                           mp_time_earlier(mp_heap_first(&m->expiries), mp_swim_clash_at(m)));
}

enum mp_err mp_membership_step(struct mp_membership *m, mp_time now,
                               const struct mp_membership_event *ev,
                               struct mp_membership_effects *out)
{
    m->effect_count = 0;
    mp_buf_clear(&m->out);
    m->is_short = false;
    release_numbers(m);
    if (!m->is_left) {
        if (m->expected != MP_NEVER && now > m->expected && now - m->expected >= MP_SWIM_PAUSE_MIN)
            after_stop(m, now);
        m->last = now;
        handle(m, now, ev);
    }
    if (m->is_started && !m->is_left)
        run_timers(m, now);
    m->expected = deadline(m);
    for (uint32_t i = 0; i < m->effect_count; i++) {
        struct mp_slice *bytes = bytes_of(&m->effects[i]);
        if (bytes && bytes->size != 0)
            bytes->data = m->out.data + m->offsets[i];
    }
    mp_assert(m->live >= 1 || m->is_left);
    mp_assert(m->used <= m->members_max);
    *out = (struct mp_membership_effects){.items = m->effects, .count = m->effect_count};
    return m->is_short ? MP_ENOMEM : MP_OK;
}

mp_time mp_membership_deadline(const struct mp_membership *m)
{
    return m->expected;
}

uint64_t mp_membership_generation(const struct mp_membership *m)
{
    return m->members[MP_MEMBER_SELF].generation;
}

uint64_t mp_membership_dropped(const struct mp_membership *m)
{
    return m->dropped;
}

size_t mp_membership_bytes(const struct mp_membership *m)
{
    return m->bytes / m->used;
}
