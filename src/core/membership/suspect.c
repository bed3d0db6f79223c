/* Suspicions: Lifeguard's timeout, from 6 times the minimum down to the minimum by independent
 * confirmations, but not below what this node's own health allows: whoever hears late has to wait
 * for the refutation. So the deadline is computed when it is looked at.
 *
 * A suspicion keeps its slot while it lasts, since the heap of deadlines knows it by that. */
#include "src/core/membership/membership_internal.h"

uint32_t mp_swim_log10_milli(uint32_t n)
{
    mp_assert(n != 0);
    uint32_t whole = 0;
    while (whole < 31 && n >> (whole + 1) != 0)
        whole++;
    /* n / 2^whole in [1, 2) with 30 bits; each squaring yields one bit of the logarithm. */
    uint64_t x = ((uint64_t)n << 30) >> whole;
    uint32_t log2 = whole;
    for (int i = 0; i < 12; i++) {
        x = x * x >> 30;
        log2 <<= 1;
        if (x >> 31 != 0) {
            x >>= 1;
            log2 |= 1;
        }
    }
    return (uint32_t)(((uint64_t)log2 * 30103) / 100 / 4096);
}

/* 1000 log(c + 1) / log(k + 1) for c confirmations of k wanted. */
static const uint16_t shortening[MP_SWIM_CONFIRMATIONS + 1][MP_SWIM_CONFIRMATIONS + 1] = {
    {1000, 1000, 1000, 1000}, {0, 1000, 1000, 1000}, {0, 631, 1000, 1000}, {0, 500, 792, 1000}};

/* Who could confirm a suspicion at all: whoever is suspected too is rather gone as well, and where
 * most die at once there is nobody to wait for. */
static uint32_t witnesses(const struct mp_membership *m)
{
    mp_assert(m->live + 1 >= m->suspects);
    return m->live > m->suspects + 1 ? m->live - m->suspects - 1 : 0;
}

static mp_duration timeout(const struct mp_membership *m, const struct mp_swim_suspicion *s)
{
    uint32_t scale = mp_swim_log10_milli(m->live + 1) / 2;
    mp_duration shortest = MP_SWIM_SUSPICION_MIN / 1000 * (scale < 1000 ? 1000 : scale);
    uint32_t wanted = s->wanted < witnesses(m) ? s->wanted : witnesses(m);
    uint32_t confirmations = s->accuser_count == 0 ? 0 : s->accuser_count - 1;
    confirmations = confirmations < wanted ? confirmations : wanted;
    mp_duration spread = shortest * (MP_SWIM_SUSPICION_MAX - 1);
    mp_duration whole = shortest + spread / 1000 * (1000u - shortening[wanted][confirmations]);
    mp_duration patience = shortest * (1 + m->health);
    return whole > patience ? whole : patience;
}

enum mp_err mp_swim_suspicion_reserve(struct mp_membership *m)
{
    if (m->suspicion_free != MP_MEMBER_NONE)
        return MP_OK;
    uint32_t wanted = m->suspicion_count + 1;
    void *places =
        mp_swim_grow(m, m->expiry_places, sizeof(*m->expiry_places), &m->expiry_capacity, wanted);
    if (!places)
        return MP_ENOMEM;
    m->expiry_places = (uint32_t *)places;
    void *suspicions =
        mp_swim_grow(m, m->suspicions, sizeof(*m->suspicions), &m->suspicion_capacity, wanted);
    if (!suspicions)
        return MP_ENOMEM;
    m->suspicions = (struct mp_swim_suspicion *)suspicions;
    /* The heap has room for each slot that was ever used, so it does not fail later. */
    uint32_t slot = m->suspicion_count;
    m->expiry_places[slot] = MP_HEAP_NONE;
    if (mp_heap_set(&m->expiries, m->expiry_places, slot, MP_NEVER) != MP_OK)
        return MP_ENOMEM;
    m->suspicions[slot] =
        (struct mp_swim_suspicion){.member = MP_MEMBER_NONE, .next = MP_MEMBER_NONE};
    m->suspicion_free = slot;
    m->suspicion_count++;
    return MP_OK;
}

static void set_expiry(struct mp_membership *m, uint32_t slot, mp_time at)
{
    enum mp_err err = mp_heap_set(&m->expiries, m->expiry_places, slot, at);
    mp_assert(err == MP_OK);
}

static mp_time expiry(const struct mp_membership *m, uint32_t slot)
{
    const struct mp_swim_suspicion *s = &m->suspicions[slot];
    return mp_time_add(s->start, timeout(m, s));
}

uint32_t mp_swim_suspicion_start(struct mp_membership *m, mp_time now, uint32_t n)
{
    uint32_t slot = m->suspicion_free;
    mp_assert(slot != MP_MEMBER_NONE);
    struct mp_swim_suspicion *s = &m->suspicions[slot];
    m->suspicion_free = s->next;
    uint32_t wanted = m->live + 1 < 3 ? 0 : m->live - 1; /* `live` is without n just now */
    *s = (struct mp_swim_suspicion){.since = now,
                                    .start = now,
                                    .member = n,
                                    .next = MP_MEMBER_NONE,
                                    .wanted = wanted > MP_SWIM_CONFIRMATIONS ? MP_SWIM_CONFIRMATIONS
                                                                             : wanted};
    m->suspects++;
    set_expiry(m, slot, expiry(m, slot));
    /* `live` is without n just now. */
    for (uint32_t i = 0;
         m->live < m->suspects + MP_SWIM_CONFIRMATIONS + 1 && i < m->suspicion_count; i++)
        if (m->suspicions[i].member != MP_MEMBER_NONE)
            set_expiry(m, i, expiry(m, i));
    return slot;
}

void mp_swim_suspicion_end(struct mp_membership *m, uint32_t slot)
{
    struct mp_swim_suspicion *s = &m->suspicions[slot];
    mp_assert(s->member != MP_MEMBER_NONE);
    m->suspects--;
    s->member = MP_MEMBER_NONE;
    s->next = m->suspicion_free;
    m->suspicion_free = slot;
    set_expiry(m, slot, MP_NEVER);
}

bool mp_swim_confirm(struct mp_membership *m, uint32_t n, uint32_t accuser)
{
    mp_assert(m->members[n].state == MP_GOSSIP_SUSPECT);
    uint32_t slot = m->members[n].mark;
    struct mp_swim_suspicion *s = &m->suspicions[slot];
    if (s->accuser_count > s->wanted)
        return false;
    for (uint32_t i = 0; i < s->accuser_count; i++)
        if (s->accusers[i] == accuser)
            return false;
    s->accusers[s->accuser_count++] = accuser;
    set_expiry(m, slot, expiry(m, slot));
    return true;
}

/* Our own probe of n had no answer. */
void mp_swim_suspect(struct mp_membership *m, mp_time now, uint32_t n)
{
    struct mp_gossip_member s = mp_swim_statement(m, now, n);
    s.accuser = mp_swim_name(m, MP_MEMBER_SELF);
    if (m->members[n].state == MP_GOSSIP_SUSPECT) {
        if (mp_swim_confirm(m, n, MP_MEMBER_SELF))
            mp_swim_tell(m, now, n, MP_MEMBER_SELF);
        return;
    }
    if (m->members[n].state != MP_GOSSIP_ALIVE)
        return;
    s.state = MP_GOSSIP_SUSPECT;
    if (mp_has_defect(m->defects, MP_DEFECT_SUSPECT_IS_DEAD))
        s.state = MP_GOSSIP_DEAD;
    s.age_s = 0;
    mp_swim_declare(m, now, n, &s);
}

void mp_swim_suspicions_run(struct mp_membership *m, mp_time now)
{
    while (mp_heap_first(&m->expiries) <= now) {
        uint32_t slot = mp_heap_first_key(&m->expiries);
        mp_time at = expiry(m, slot);
        if (at > now) { /* this node has become less healthy meanwhile */
            set_expiry(m, slot, at);
            continue;
        }
        uint32_t n = m->suspicions[slot].member;
        struct mp_gossip_member s = mp_swim_statement(m, now, n);
        s.state = MP_GOSSIP_DEAD;
        s.age_s = 0;
        if (!mp_swim_declare(m, now, n, &s))
            set_expiry(m, slot, now + MP_SWIM_PERIOD); /* no memory: later */
    }
}

void mp_swim_suspicions_shift(struct mp_membership *m, mp_duration by)
{
    for (uint32_t slot = 0; slot < m->suspicion_count; slot++) {
        struct mp_swim_suspicion *s = &m->suspicions[slot];
        if (s->member == MP_MEMBER_NONE)
            continue;
        s->start = mp_time_add(s->start, by);
        set_expiry(m, slot, expiry(m, slot));
    }
}

void mp_swim_suspicions_fini(struct mp_membership *m)
{
    mp_heap_fini(&m->expiries);
    mp_alloc_free(&m->alloc, m->expiry_places, m->expiry_capacity * sizeof(*m->expiry_places));
    mp_alloc_free(&m->alloc, m->suspicions, m->suspicion_capacity * sizeof(*m->suspicions));
}
