/* Who is asked for life, and what its silence means.
 *
 *   sent_at       PING to the member
 *   late_at       no ack: PING_REQ to three others, and something over a link (PROBE_TCP)
 *   end_at        nothing heard by any way: suspicion. Only helpers answered: it is reached `via`
 * one
 *
 * The first to be asked names the target, and only the target acks: another node that has taken
 * over its address does not. An ack that comes through a helper counts as life but does not end the
 * probe, since the direct one may be on its way and decides about `via`.
 *
 * The pings that this node sends for others are in the same array; for them `late_at` is the moment
 * of the NACK. Both are few: the array is scanned. */
#include "src/core/membership/membership_internal.h"

static uint64_t target_hash(struct mp_slice name)
{
    return mp_slice_hash(name, 1);
}

/* --- round trips --- */

const struct mp_swim_rtt *mp_swim_rtt(const struct mp_membership *m, uint32_t n)
{
    if (m->rtt_count == 0)
        return NULL;
    const struct mp_swim_rtt *r = &m->rtts[n & (m->rtt_count - 1)];
    return r->member == n && r->srtt_us != 0 ? r : NULL;
}

static void smooth(struct mp_swim_rtt *r, uint32_t n, uint32_t us)
{
    if (r->member != n || r->srtt_us == 0) {
        *r = (struct mp_swim_rtt){.member = n, .srtt_us = us, .var_us = us / 2};
        return;
    }
    uint32_t error = us > r->srtt_us ? us - r->srtt_us : r->srtt_us - us;
    r->var_us = (uint32_t)(((uint64_t)r->var_us * 3 + error) / 4);
    r->srtt_us = (uint32_t)(((uint64_t)r->srtt_us * 7 + us) / 8);
    if (r->srtt_us == 0)
        r->srtt_us = 1;
}

/* The table of round trips grows with the members up to a bound; then members share places. */
static void measure(struct mp_membership *m, uint32_t n, mp_duration rtt)
{
    uint32_t us = rtt / 1000 > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)(rtt / 1000);
    us += us == 0;
    smooth(&m->rtt_all, 0, us);
    uint32_t wanted = m->rtt_count == 0 ? 8 : m->rtt_count;
    while (wanted < m->end && wanted < MP_SWIM_RTTS)
        wanted *= 2;
    if (wanted != m->rtt_count) {
        struct mp_swim_rtt *rtts = mp_alloc_take(&m->alloc, wanted * sizeof(*rtts));
        if (rtts) {
            memset(rtts, 0, wanted * sizeof(*rtts));
            for (uint32_t i = 0; i < m->rtt_count; i++)
                rtts[m->rtts[i].member & (wanted - 1)] = m->rtts[i];
            mp_alloc_free(&m->alloc, m->rtts, m->rtt_count * sizeof(*m->rtts));
            m->rtts = rtts;
            m->rtt_count = wanted;
        }
    }
    if (m->rtt_count != 0)
        smooth(&m->rtts[n & (m->rtt_count - 1)], n, us);
}

static mp_duration ping_timeout(const struct mp_membership *m, uint32_t n)
{
    const struct mp_swim_rtt *r = n == MP_MEMBER_NONE ? NULL : mp_swim_rtt(m, n);
    if (!r && m->rtt_all.srtt_us != 0)
        r = &m->rtt_all;
    mp_duration rto = r ? MP_US(r->srtt_us + 4 * (uint64_t)r->var_us) : MP_SWIM_RTO_GUESS;
    return rto < MP_SWIM_RTO_MIN ? MP_SWIM_RTO_MIN : rto > MP_SWIM_RTO_MAX ? MP_SWIM_RTO_MAX : rto;
}

/* --- relays: who is reached through whom --- */

/* The place of n in `relays`, or where it would stand. */
static uint32_t relay_place(const struct mp_membership *m, uint32_t n)
{
    uint32_t low = 0;
    uint32_t high = m->relay_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (m->relays[middle].member < n)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t mp_swim_via(const struct mp_membership *m, uint32_t n)
{
    return (m->members[n].bits & MP_SWIM_VIA) == 0 ? MP_MEMBER_NONE
                                                   : m->relays[relay_place(m, n)].helper;
}

void mp_swim_via_set(struct mp_membership *m, uint32_t n, uint32_t helper)
{
    if (mp_swim_via(m, n) == helper)
        return;
    if (mp_swim_reserve_effects(m, 1) != MP_OK) {
        m->is_short = true;
        return;
    }
    uint32_t place = relay_place(m, n);
    bool has_relay = (m->members[n].bits & MP_SWIM_VIA) != 0;
    if (helper == MP_MEMBER_NONE) {
        m->relay_count--;
        memmove(&m->relays[place], &m->relays[place + 1],
                (m->relay_count - place) * sizeof(*m->relays));
        m->members[n].bits &= (uint8_t)~MP_SWIM_VIA;
    } else if (has_relay) {
        m->relays[place].helper = helper;
    } else {
        void *relays =
            mp_swim_grow(m, m->relays, sizeof(*m->relays), &m->relay_capacity, m->relay_count + 1);
        if (!relays) {
            m->is_short = true;
            return;
        }
        m->relays = (struct mp_swim_relay *)relays;
        memmove(&m->relays[place + 1], &m->relays[place],
                (m->relay_count - place) * sizeof(*m->relays));
        m->relays[place] = (struct mp_swim_relay){.member = n, .helper = helper};
        m->relay_count++;
        m->members[n].bits |= MP_SWIM_VIA;
    }
    mp_swim_emit(m, MP_MEMBERSHIP_VIA, n);
}

/* --- pings --- */

static mp_time due(const struct mp_swim_ping *p)
{
    return p->late_at < p->end_at ? p->late_at : p->end_at;
}

static struct mp_swim_ping *add_ping(struct mp_membership *m, const struct mp_swim_ping *p)
{
    if (m->ping_count >= MP_MEMBER_PINGS_MAX)
        return NULL;
    void *pings =
        mp_swim_grow(m, m->pings, sizeof(*m->pings), &m->ping_capacity, m->ping_count + 1);
    if (!pings) {
        m->is_short = true;
        return NULL;
    }
    m->pings = (struct mp_swim_ping *)pings;
    m->pings[m->ping_count] = *p;
    m->ping_at = due(p) < m->ping_at ? due(p) : m->ping_at;
    return &m->pings[m->ping_count++];
}

static void remove_ping(struct mp_membership *m, uint32_t i)
{
    m->pings[i] = m->pings[--m->ping_count];
}

static uint32_t find_ping(const struct mp_membership *m, uint32_t seq)
{
    for (uint32_t i = 0; i < m->ping_count; i++)
        if (m->pings[i].seq == seq)
            return i;
    return MP_MEMBER_NONE;
}

static void send_ping(struct mp_membership *m, mp_time now, uint32_t seq, struct mp_slice target,
                      uint32_t about, const struct mp_address *to)
{
    mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_PING, .seq = seq, .target = target},
                 about, to, 1);
}

/* A suspect hears first that it is one (Lifeguard's buddy system). */
static uint32_t accusation(const struct mp_membership *m, uint32_t n)
{
    return m->members[n].state == MP_GOSSIP_ALIVE ? MP_MEMBER_NONE : n;
}

/* An unhealthy node waits for an answer longer than a suspicion lasts: where n's turn comes again
 * meanwhile, one lost datagram must not decide. */
static void ping_again(struct mp_membership *m, mp_time now, struct mp_swim_ping *p)
{
    if (now < p->late_at && p->late_at != MP_NEVER)
        return; /* the answer may be on its way */
    struct mp_address to = mp_swim_address(m, p->member);
    p->is_again = true;
    send_ping(m, now, p->seq, mp_swim_name(m, p->member), accusation(m, p->member), &to);
}

void mp_swim_probe(struct mp_membership *m, mp_time now, uint32_t n)
{
    if (!mp_swim_is_live(m, n) || n == MP_MEMBER_SELF)
        return;
    for (uint32_t i = 0; i < m->ping_count; i++)
        if (m->pings[i].asker.size == 0 && m->pings[i].member == n) {
            ping_again(m, now, &m->pings[i]);
            return;
        }
    uint32_t patience = 1 + m->health;
    mp_duration timeout = ping_timeout(m, n) * patience;
    mp_duration whole = MP_SWIM_PERIOD * patience;
    if (whole < timeout * MP_SWIM_PROBE_RTOS)
        whole = timeout * MP_SWIM_PROBE_RTOS;
    struct mp_address to = mp_swim_address(m, n);
    struct mp_slice name = mp_swim_name(m, n);
    const struct mp_swim_ping p = {.sent_at = now,
                                   .late_at = now + timeout,
                                   .end_at = now + whole,
                                   .target = target_hash(name),
                                   .seq = ++m->seq,
                                   .member = n,
                                   .helper = MP_MEMBER_NONE};
    if (add_ping(m, &p))
        send_ping(m, now, p.seq, name, accusation(m, n), &to);
}

/* A step of a bijection on [0, round_size) that the keys choose. */
static uint32_t permuted(const struct mp_membership *m, uint32_t x)
{
    uint32_t mask = m->round_size - 1;
    unsigned half = 1;
    while ((1u << (2 * half)) < m->round_size)
        half++;
    for (unsigned i = 0; i < MP_ARRAY_SIZE(m->round_keys); i++) {
        x = (x * (m->round_keys[i] | 1) + (m->round_keys[i] >> 16)) & mask;
        x ^= x >> half;
    }
    return x;
}

static void begin_round(struct mp_membership *m)
{
    m->round_size = 4;
    while (m->round_size < m->end)
        m->round_size *= 2;
    m->round_next = 0;
    for (unsigned i = 0; i < MP_ARRAY_SIZE(m->round_keys); i++)
        m->round_keys[i] = (uint32_t)mp_rng_next(&m->rng);
}

static void probe_next(struct mp_membership *m, mp_time now)
{
    if (m->live < 2)
        return;
    if (m->end > m->round_size)
        begin_round(m);
    for (uint32_t i = 0; i < 2 * m->round_size; i++) {
        if (m->round_next == m->round_size)
            begin_round(m);
        uint32_t n = permuted(m, m->round_next++);
        if (n == MP_MEMBER_SELF || n >= m->end || !mp_swim_is_live(m, n))
            continue;
        mp_swim_probe(m, now, n);
        return;
    }
}

void mp_swim_probe_run(struct mp_membership *m, mp_time now)
{
    if (now < m->probe_at)
        return;
    m->probe_at = now + MP_SWIM_PERIOD * (1 + m->health);
    probe_next(m, now);
    mp_swim_deaths_run(m, now);
}

static void ask_helpers(struct mp_membership *m, mp_time now, struct mp_swim_ping *p)
{
    uint32_t n = p->member;
    struct mp_gossip g = {.kind = MP_GOSSIP_PING_REQ,
                          .seq = p->seq,
                          .target = mp_swim_name(m, n),
                          .addr = mp_swim_address(m, n)};
    uint32_t helpers[MP_SWIM_HELPERS];
    uint32_t count = 0;
    struct mp_address to[MP_SWIM_HELPERS];
    uint32_t known = mp_swim_via(m, n); /* who reached it the last time */
    for (uint32_t tries = 0; count < MP_SWIM_HELPERS && tries < 4 * MP_SWIM_HELPERS; tries++) {
        uint32_t helper = tries == 0 && known != MP_MEMBER_NONE ? known : mp_swim_random_live(m, n);
        bool is_new = helper != MP_MEMBER_NONE && mp_swim_is_live(m, helper);
        for (uint32_t i = 0; i < count; i++)
            is_new = is_new && helpers[i] != helper;
        if (!is_new)
            continue;
        helpers[count] = helper;
        to[count++] = mp_swim_address(m, helper);
    }
    for (uint32_t i = 0; i < count; i++) /* a suspect's silence is no sign of our own health */
        p->nacks_wanted += m->members[helpers[i]].state == MP_GOSSIP_ALIVE;
    if (count != 0)
        mp_swim_send(m, now, &g, accusation(m, n), to, count);
    mp_swim_emit(m, MP_MEMBERSHIP_PROBE_TCP, n);
}

/* The end of our own probe; p is already taken out of the array. */
static void conclude(struct mp_membership *m, mp_time now, const struct mp_swim_ping *p)
{
    uint32_t n = p->member;
    if (p->is_linked || p->helper != MP_MEMBER_NONE) {
        if (!p->is_linked && mp_swim_is_live(m, p->helper))
            mp_swim_via_set(m, n, p->helper);
        return;
    }
    /* Helpers that did not even say NACK: rather this node's fault than the target's. That a
     * suspect stays silent says nothing about this node. */
    if (m->members[n].state == MP_GOSSIP_ALIVE)
        mp_swim_health(m, p->nacks_wanted != 0 ? p->nacks_wanted - p->nacks : 1);
    if (mp_swim_is_live(m, n))
        mp_swim_suspect(m, now, n);
}

void mp_swim_pings_run(struct mp_membership *m, mp_time now)
{
    if (now < m->ping_at)
        return;
    for (uint32_t i = 0; i < m->ping_count;) {
        struct mp_swim_ping *p = &m->pings[i];
        bool is_ours = p->asker.size == 0;
        if (now >= p->late_at && now < p->end_at) {
            p->late_at = MP_NEVER;
            if (is_ours)
                ask_helpers(m, now, p);
            else
                mp_swim_send(m, now,
                             &(struct mp_gossip){.kind = MP_GOSSIP_NACK, .seq = p->asker_seq},
                             MP_MEMBER_NONE, &p->asker, 1);
        }
        if (now < p->end_at) {
            i++;
            continue;
        }
        struct mp_swim_ping ended = *p;
        remove_ping(m, i);
        if (!is_ours)
            continue;
        conclude(m, now, &ended);
        i = 0; /* a suspicion may have changed the array */
    }
    m->ping_at = MP_NEVER;
    for (uint32_t i = 0; i < m->ping_count; i++)
        m->ping_at = due(&m->pings[i]) < m->ping_at ? due(&m->pings[i]) : m->ping_at;
}

void mp_swim_on_ack(struct mp_membership *m, mp_time now, const struct mp_gossip *g)
{
    uint32_t i = find_ping(m, g->seq);
    if (i == MP_MEMBER_NONE || m->pings[i].target != target_hash(g->name))
        return;
    struct mp_swim_ping p = m->pings[i];
    remove_ping(m, i);
    if (p.asker.size != 0) {
        uint32_t n = mp_swim_find(m, g->name);
        if (n != MP_MEMBER_NONE && !mp_swim_is_visible(m, n))
            n = MP_MEMBER_NONE;
        mp_swim_send(
            m, now,
            &(struct mp_gossip){.kind = MP_GOSSIP_RELAYED, .seq = p.asker_seq, .target = g->name},
            n, &p.asker, 1);
        return;
    }
    if (!mp_swim_is_live(m, p.member))
        return;
    mp_swim_health(m, -1);
    if (!p.is_again) /* which of the two was answered is not known (Karn's algorithm) */
        measure(m, p.member, now - p.sent_at);
    mp_swim_via_set(m, p.member, MP_MEMBER_NONE);
}

void mp_swim_on_relayed(struct mp_membership *m, const struct mp_gossip *g, uint32_t helper)
{
    uint32_t i = find_ping(m, g->seq);
    if (i == MP_MEMBER_NONE || m->pings[i].asker.size != 0 ||
        m->pings[i].target != target_hash(g->target) || m->pings[i].member == helper)
        return;
    struct mp_swim_ping *p = &m->pings[i];
    if (p->helper == MP_MEMBER_NONE)
        mp_swim_health(m, -1);
    /* A helper that is known to work stays. */
    if (p->helper == MP_MEMBER_NONE || mp_swim_via(m, p->member) == helper)
        p->helper = helper;
}

void mp_swim_on_nack(struct mp_membership *m, const struct mp_gossip *g)
{
    uint32_t i = find_ping(m, g->seq);
    if (i != MP_MEMBER_NONE && m->pings[i].asker.size == 0 &&
        m->pings[i].nacks < m->pings[i].nacks_wanted)
        m->pings[i].nacks++;
}

void mp_swim_on_ping_req(struct mp_membership *m, mp_time now, const struct mp_gossip *g,
                         const struct mp_address *from)
{
    if (from->size == 0)
        return;
    uint32_t n = mp_swim_find(m, g->target);
    if (n == MP_MEMBER_SELF) { /* the asker has another address for us than we have */
        mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_ACK, .seq = g->seq},
                     MP_MEMBER_NONE, from, 1);
        return;
    }
    bool is_known = n != MP_MEMBER_NONE && mp_swim_is_visible(m, n);
    mp_duration timeout = ping_timeout(m, is_known ? n : MP_MEMBER_NONE);
    const struct mp_swim_ping p = {.sent_at = now,
                                   .late_at = now + timeout,
                                   .end_at = now + MP_SWIM_PERIOD * (1 + MP_SWIM_HEALTH_MAX),
                                   .target = target_hash(g->target),
                                   .seq = ++m->seq,
                                   .member = MP_MEMBER_NONE,
                                   .helper = MP_MEMBER_NONE,
                                   .asker_seq = g->seq,
                                   .asker = *from};
    if (add_ping(m, &p))
        send_ping(m, now, p.seq, g->target, is_known ? accusation(m, n) : MP_MEMBER_NONE, &g->addr);
}

void mp_swim_on_link(struct mp_membership *m, uint32_t n)
{
    for (uint32_t i = 0; i < m->ping_count; i++)
        if (m->pings[i].asker.size == 0 && m->pings[i].member == n)
            m->pings[i].is_linked = true;
    mp_swim_via_set(m, n, MP_MEMBER_NONE);
}

void mp_swim_probe_forget(struct mp_membership *m, mp_time now, uint32_t n)
{
    for (uint32_t i = 0; i < m->ping_count;) {
        if (m->pings[i].helper == n)
            m->pings[i].helper = MP_MEMBER_NONE;
        if (m->pings[i].member == n && m->pings[i].asker.size == 0)
            remove_ping(m, i);
        else
            i++;
    }
    mp_swim_via_set(m, n, MP_MEMBER_NONE);
    /* Whom it helped to reach has to find another helper, not only in its turn. */
    for (uint32_t i = 0; i < m->relay_count;) {
        uint32_t member = m->relays[i].member;
        if (m->relays[i].helper != n) {
            i++;
            continue;
        }
        uint32_t count = m->relay_count;
        mp_swim_via_set(m, member, MP_MEMBER_NONE);
        if (m->relay_count == count)
            break; /* no memory for the effect */
        mp_swim_probe(m, now, member);
    }
}

void mp_swim_probes_restart(struct mp_membership *m, mp_time now)
{
    for (uint32_t i = 0; i < m->ping_count;) {
        if (m->pings[i].asker.size == 0)
            remove_ping(m, i);
        else
            i++;
    }
    m->probe_at = now;
}

void mp_swim_probe_fini(struct mp_membership *m)
{
    mp_alloc_free(&m->alloc, m->relays, m->relay_capacity * sizeof(*m->relays));
    mp_alloc_free(&m->alloc, m->rtts, m->rtt_count * sizeof(*m->rtts));
    mp_alloc_free(&m->alloc, m->pings, m->ping_capacity * sizeof(*m->pings));
}
