/* Two nodes of one name. A name is refused only if its older holder answers a direct probe:
 *
 *   - Whoever meets a claimant while it sees the holder alive elsewhere pings the holder. It
 *     answers: the claimant gets REFUSED, with the holder's address. It does not: the claimant's
 *     statement counts if its generation is the higher one; else the holder is declared dead, and
 *     the claimant, hearing that of its name, takes a higher generation itself.
 *   - A node that hears of its own name elsewhere pings there. It is answered: its name is taken.
 *     It is not, and the other generation is as high: it takes a higher one.
 *
 * A node is provisional (JOINING in its datagrams and in HELLO) for a while after its first
 * contact. Which of two that both answer has to end is the same seen from either side, or both
 * would:
 *
 *   - one that has settled is the older holder of a provisional one;
 *   - of two that have settled (two halves met, or one took the name while the other was silent)
 *     the one of the higher generation stays;
 *   - of two provisional ones the one of the lower generation stays: it booted first;
 *   - at an equal generation the lower address decides.
 *
 * A rank only rises: a node settles once and its generation grows. So whoever yields to what the
 * other was yields to what it is, also when it knows that from an answer that was under way. For
 * the same reason a provisional holder refuses nobody through a third party, which cannot tell how
 * the claimant stands to it; the claimant will ask again. And one that has settled is not refused
 * by a third party's word: it pings the other itself, as does a holder that hears so of a claimant
 * that has settled too. */
#include "src/core/membership/membership_internal.h"

static struct mp_swim_clash *add_clash(struct mp_membership *m, mp_time now, uint32_t n)
{
    for (uint32_t i = 0; i < m->clash_count; i++)
        if (m->clashes[i].member == n)
            return NULL;
    if (m->clash_count == MP_MEMBER_CLASHES_MAX || !m->is_started)
        return NULL;
    void *clashes =
        mp_swim_grow(m, m->clashes, sizeof(*m->clashes), &m->clash_capacity, m->clash_count + 1);
    if (!clashes) {
        m->is_short = true;
        return NULL;
    }
    m->clashes = (struct mp_swim_clash *)clashes;
    struct mp_swim_clash *c = &m->clashes[m->clash_count++];
    *c = (struct mp_swim_clash){.next_at = now, .member = n, .seq = ++m->seq};
    return c;
}

void mp_swim_clash(struct mp_membership *m, mp_time now, uint32_t n,
                   const struct mp_gossip_member *s, const struct mp_address *reply)
{
    struct mp_swim_clash *c = add_clash(m, now, n);
    if (!c)
        return;
    c->holder = mp_swim_address(m, n);
    c->challenger = s->addr;
    c->reply = reply->size != 0 ? *reply : s->addr;
    c->generation = s->generation;
    c->flags = s->flags;
}

bool mp_membership_is_provisional(const struct mp_membership *m)
{
    return !m->is_settled;
}

bool mp_membership_yields(const struct mp_membership *m, uint64_t generation,
                          const struct mp_address *addr, bool is_provisional)
{
    uint64_t ours = mp_membership_generation(m);
    struct mp_address here = mp_swim_address(m, MP_MEMBER_SELF);
    if (m->is_settled == is_provisional)
        return !is_provisional;
    if (generation != ours)
        return (generation > ours) == m->is_settled;
    return mp_slice_compare(mp_address_slice(addr), mp_address_slice(&here)) < 0;
}

void mp_swim_clash_self(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s)
{
    bool is_yielding = mp_membership_yields(m, s->generation, &s->addr, false);
    bool is_joining = (s->flags & MP_GOSSIP_JOINING) != 0;
    /* It ends, but what it said of itself by that name under the same number must be the older. */
    if (m->is_settled && s->generation == mp_membership_generation(m) &&
        (is_joining || !is_yielding)) {
        mp_swim_raise_generation(m, now, s->generation);
        return;
    }
    if (!is_yielding)
        return; /* however it stands */
    struct mp_swim_clash *c = add_clash(m, now, MP_MEMBER_SELF);
    if (!c)
        return;
    c->holder = s->addr;
    c->generation = s->generation;
}

static void taken(struct mp_membership *m, const struct mp_address *holder)
{
    struct mp_membership_effect *e = mp_swim_emit(m, MP_MEMBERSHIP_NAME_TAKEN, MP_MEMBER_SELF);
    if (!e)
        return; /* it will be told again */
    e->taken.addr = *holder;
    m->is_left = true; /* what it said from now on would be said in another's name */
}

void mp_swim_on_refused(struct mp_membership *m, mp_time now, const struct mp_gossip *g)
{
    /* What was meant for an earlier boot at this address, by whatever name, is not for this one. */
    if (mp_swim_is_at(m, MP_MEMBER_SELF, &g->addr) || g->claimed != mp_membership_generation(m) ||
        !mp_slice_equal(g->target, mp_swim_name(m, MP_MEMBER_SELF)))
        return;
    if (m->is_settled) {
        const struct mp_gossip_member s = {.generation = g->holder_generation, .addr = g->addr};
        mp_swim_clash_self(m, now, &s);
    } else {
        taken(m, &g->addr);
    }
}

static void remove_clash(struct mp_membership *m, uint32_t i)
{
    m->clashes[i] = m->clashes[--m->clash_count];
}

/* Others have found out meanwhile, and told us. */
static bool is_settled_elsewhere(const struct mp_membership *m, const struct mp_swim_clash *c)
{
    if (c->member == MP_MEMBER_SELF)
        return false;
    return !mp_swim_is_at(m, c->member, &c->holder);
}

bool mp_swim_clash_ack(struct mp_membership *m, mp_time now, const struct mp_gossip *g)
{
    uint32_t i = 0;
    while (i < m->clash_count && m->clashes[i].seq != g->seq)
        i++;
    if (i == m->clash_count)
        return false;
    struct mp_swim_clash c = m->clashes[i];
    if (!mp_slice_equal(g->name, mp_swim_name(m, c.member)) ||
        !mp_address_equal(&g->sender, &c.holder))
        return true;
    bool is_provisional = (g->flags & MP_GOSSIP_JOINING) != 0;
    remove_clash(m, i);
    if (is_settled_elsewhere(m, &c))
        return true;
    if (c.member == MP_MEMBER_SELF) {
        if (mp_membership_yields(m, g->generation, &c.holder, is_provisional))
            taken(m, &c.holder);
        return true;
    }
    if (is_provisional)
        return true;
    mp_swim_send(m, now,
                 &(struct mp_gossip){.kind = MP_GOSSIP_REFUSED,
                                     .target = g->name,
                                     .claimed = c.generation,
                                     .holder_generation = g->generation,
                                     .addr = c.holder},
                 c.member, &c.reply, 1);
    if (c.generation >= g->generation)
        mp_swim_send(m, now,
                     &(struct mp_gossip){.kind = MP_GOSSIP_REFUSED,
                                         .target = g->name,
                                         .claimed = g->generation,
                                         .holder_generation = c.generation,
                                         .addr = c.challenger},
                     MP_MEMBER_NONE, &c.holder, 1);
    return true;
}

/* The holder did not answer. */
static void concede(struct mp_membership *m, mp_time now, const struct mp_swim_clash *c)
{
    uint32_t n = c->member;
    if (is_settled_elsewhere(m, c))
        return;
    if (n == MP_MEMBER_SELF) {
        if (c->generation >= mp_membership_generation(m) && c->generation < UINT64_MAX - 2)
            mp_swim_raise_generation(m, now, c->generation);
        return;
    }
    struct mp_gossip_member s = mp_swim_statement(m, now, n);
    s.age_s = 0;
    if (c->generation > s.generation) {
        s.state = MP_GOSSIP_ALIVE;
        s.generation = c->generation;
        s.incarnation = 0;
        s.flags = c->flags;
        s.addr = c->challenger;
    } else {
        s.state = MP_GOSSIP_DEAD;
    }
    if (mp_swim_declare(m, now, n, &s) && s.state == MP_GOSSIP_DEAD &&
        m->members[n].state == MP_GOSSIP_DEAD)
        mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_GOSSIP}, n, &c->reply, 1);
}

void mp_swim_clashes_run(struct mp_membership *m, mp_time now)
{
    for (uint32_t i = 0; i < m->clash_count;) {
        struct mp_swim_clash *c = &m->clashes[i];
        if (now < c->next_at) {
            i++;
            continue;
        }
        if (c->tries == MP_SWIM_CLASH_PINGS) {
            struct mp_swim_clash ended = *c;
            remove_clash(m, i);
            concede(m, now, &ended);
            i = 0; /* a death may have ended others */
            continue;
        }
        c->tries++;
        c->next_at = now + MP_SWIM_CLASH_PAUSE;
        mp_swim_send(m, now,
                     &(struct mp_gossip){.kind = MP_GOSSIP_PING,
                                         .seq = c->seq,
                                         .target = mp_swim_name(m, c->member)},
                     MP_MEMBER_NONE, &c->holder, 1);
        i++;
    }
}

mp_time mp_swim_clash_at(const struct mp_membership *m)
{
    mp_time at = MP_NEVER;
    for (uint32_t i = 0; i < m->clash_count; i++)
        at = m->clashes[i].next_at < at ? m->clashes[i].next_at : at;
    return at;
}

void mp_swim_clash_forget(struct mp_membership *m, uint32_t n)
{
    for (uint32_t i = 0; i < m->clash_count;) {
        if (m->clashes[i].member == n)
            remove_clash(m, i);
        else
            i++;
    }
}

void mp_swim_clash_fini(struct mp_membership *m)
{
    mp_alloc_free(&m->alloc, m->clashes, m->clash_capacity * sizeof(*m->clashes));
}
