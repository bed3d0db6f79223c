/* Members that are not live: dead ones are redialled, old ones go, forgotten ones stay as
 * tombstones so that no stale copy revives them.
 *
 * Once a period a few deaths are looked at in turn and one that is due is dialled. A redial is a
 * ping that carries first what we think of its target: if that lives, it refutes, and its ack says
 * so. Nothing waits for it. */
#include "src/core/membership/membership_internal.h"

enum mp_err mp_swim_death_reserve(struct mp_membership *m)
{
    void *deaths =
        mp_swim_grow(m, m->deaths, sizeof(*m->deaths), &m->death_capacity, m->death_count + 1);
    if (!deaths)
        return MP_ENOMEM;
    m->deaths = (struct mp_swim_death *)deaths;
    return MP_OK;
}

static mp_duration jittered(struct mp_membership *m, mp_duration d)
{
    return d - d / 4 + mp_rng_below(&m->rng, d / 2);
}

uint32_t mp_swim_death_add(struct mp_membership *m, mp_time now, mp_time since, uint32_t n)
{
    mp_assert(m->death_count < m->death_capacity);
    uint32_t slot = m->death_count++;
    m->deaths[slot] = (struct mp_swim_death){.since = since,
                                             .due = now + jittered(m, MP_SWIM_REDIAL_MIN),
                                             .pause = MP_SWIM_REDIAL_MIN,
                                             .member = n};
    return slot;
}

void mp_swim_death_remove(struct mp_membership *m, uint32_t slot)
{
    mp_assert(slot < m->death_count);
    m->death_count--;
    if (slot == m->death_count)
        return;
    m->deaths[slot] = m->deaths[m->death_count];
    m->members[m->deaths[slot].member].mark = slot;
}

static void redial(struct mp_membership *m, mp_time now, uint32_t n)
{
    struct mp_address to = mp_swim_address(m, n);
    mp_swim_send(
        m, now,
        &(struct mp_gossip){.kind = MP_GOSSIP_PING, .seq = ++m->seq, .target = mp_swim_name(m, n)},
        n, &to, 1);
}

static void redial_random(struct mp_membership *m, mp_time now)
{
    m->redial_at = now + jittered(m, MP_SWIM_REDIAL_RANDOM);
    for (uint32_t i = 0; i < MP_SWIM_REDIAL_LOOK && m->death_count != 0; i++) {
        uint32_t n = m->deaths[mp_swim_random(m, m->death_count)].member;
        if (m->members[n].state != MP_GOSSIP_DEAD)
            continue;
        redial(m, now, n);
        return;
    }
}

/* Old enough: not told any more; beyond the most recent: gone. True if the slot has changed. */
static bool grow_old(struct mp_membership *m, mp_time now, uint32_t slot)
{
    struct mp_swim_death *d = &m->deaths[slot];
    uint32_t n = d->member;
    bool is_tombstone = m->members[n].state == MP_SWIM_FORGOTTEN;
    bool is_old = now > d->since && now - d->since >= MP_SECONDS(MP_MEMBER_DEAD_KEPT_S);
    if (is_tombstone && (is_old || m->forgotten_count > MP_MEMBERS_FORGOTTEN_MAX)) {
        mp_swim_drop(m, n);
        return true;
    }
    if (is_tombstone || !is_old)
        return false;
    if ((m->members[n].bits & MP_SWIM_AGED) == 0) {
        mp_swim_sum_remove(m, n);
        m->members[n].bits |= MP_SWIM_AGED;
    }
    if (m->death_count - m->forgotten_count <= MP_MEMBERS_DEAD_KEPT)
        return false;
    if (mp_swim_reserve_effects(m, 1) != MP_OK) {
        m->is_short = true;
        return false;
    }
    mp_swim_emit(m, MP_MEMBERSHIP_GONE, n);
    mp_swim_drop(m, n);
    return true;
}

void mp_swim_deaths_run(struct mp_membership *m, mp_time now)
{
    bool is_dialling = !mp_has_defect(m->defects, MP_DEFECT_NEVER_REDIAL);
    if (now >= m->redial_at && is_dialling)
        redial_random(m, now);
    for (uint32_t i = 0; i < MP_SWIM_REDIAL_LOOK && i < m->death_count; i++) {
        m->death_cursor = m->death_cursor + 1 < m->death_count ? m->death_cursor + 1 : 0;
        if (grow_old(m, now, m->death_cursor))
            continue;
        struct mp_swim_death *d = &m->deaths[m->death_cursor];
        if (!is_dialling || now < d->due || m->members[d->member].state != MP_GOSSIP_DEAD)
            continue;
        d->due = now + jittered(m, d->pause);
        d->pause = d->pause * 2 > MP_SWIM_REDIAL_MAX ? MP_SWIM_REDIAL_MAX : d->pause * 2;
        is_dialling = false; /* one a period */
        redial(m, now, d->member);
    }
}

void mp_swim_forget(struct mp_membership *m, mp_time now, struct mp_slice name)
{
    uint32_t n = mp_swim_find(m, name);
    if (n == MP_MEMBER_NONE || n == MP_MEMBER_SELF ||
        (m->members[n].state != MP_GOSSIP_DEAD && m->members[n].state != MP_GOSSIP_LEFT))
        return;
    struct mp_gossip_member s = mp_swim_statement(m, now, n);
    s.state = MP_GOSSIP_FORGOTTEN;
    s.incarnation = UINT32_MAX; /* above all that was said of this boot */
    s.age_s = 0;
    mp_swim_declare(m, now, n, &s);
}
