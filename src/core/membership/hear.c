/* What is said of whom, and whether it counts: statements are ordered by (generation, incarnation,
 * state), and the greater one wins, whoever passed it on. Of two namesakes that died at equal
 * numbers the lower address is kept, so that all nodes keep the same. Three exceptions:
 *
 *   - Of itself a node believes nobody: it answers what is worse than ALIVE with a greater
 *     incarnation, and what is above its generation with a greater generation, unless another node
 *     holds its name (clash.c). Nobody else raises either of a member's numbers.
 *   - A death learned from a whole list (two halves of a healed partition compare theirs) is a
 *     suspicion of whom we see alive: it may refute before anybody acts on it.
 *   - A claim to the name of a live member at another address is first checked (clash.c), also
 *     when it stands in a list, which may be the claimant's own. What a third party gossips of such
 *     a change has been checked there.
 *
 * A datagram is also a statement of its sender: alive, at the numbers in its header. */
#include "src/core/membership/membership_internal.h"

/* Above 0: s is greater than what is known of n. */
static int compare(const struct mp_membership *m, uint32_t n, const struct mp_gossip_member *s)
{
    const struct mp_swim_member *e = &m->members[n];
    if (e->generation != s->generation) {
        if (mp_has_defect(m->defects, MP_DEFECT_IGNORE_GENERATION))
            return 1;
        return s->generation > e->generation ? 1 : -1;
    }
    if (e->state == MP_SWIM_FORGOTTEN && s->state != MP_GOSSIP_FORGOTTEN &&
        mp_has_defect(m->defects, MP_DEFECT_STALE_TOMBSTONE))
        return 1;
    if (e->incarnation != s->incarnation)
        return s->incarnation > e->incarnation ? 1 : -1;
    if (e->state != s->state || e->state < MP_GOSSIP_DEAD || mp_swim_is_at(m, n, &s->addr))
        return (int)s->state - (int)e->state;
    struct mp_address known = mp_swim_address(m, n);
    return mp_slice_compare(mp_address_slice(&known), mp_address_slice(&s->addr));
}

/* What follows from n being in another state than before. */
static void after_move(struct mp_membership *m, mp_time now, uint32_t n, bool was_live)
{
    bool is_live = mp_swim_is_live(m, n);
    if (is_live == was_live || n == MP_MEMBER_SELF)
        return;
    if (!is_live) {
        mp_swim_probe_forget(m, now, n);
        mp_swim_clash_forget(m, n);
    }
}

bool mp_swim_declare(struct mp_membership *m, mp_time now, uint32_t n,
                     const struct mp_gossip_member *s)
{
    if (s->state == MP_GOSSIP_DEAD && mp_has_defect(m->defects, MP_DEFECT_FORGET_DEAD)) {
        mp_swim_probe_forget(m, now, n);
        mp_swim_clash_forget(m, n);
        mp_swim_emit(m, MP_MEMBERSHIP_GONE, n);
        mp_swim_drop(m, n);
        return true;
    }
    bool was_live = mp_swim_is_live(m, n);
    uint32_t accuser = MP_MEMBER_NONE; /* found now: s may borrow from the table */
    if (s->state == MP_GOSSIP_SUSPECT && s->accuser.size != 0)
        accuser = mp_swim_find(m, s->accuser);
    if (mp_swim_move(m, now, n, s) != MP_OK) {
        m->is_short = true;
        return false;
    }
    after_move(m, now, n, was_live);
    if (s->state == MP_GOSSIP_SUSPECT && accuser != MP_MEMBER_NONE)
        mp_swim_confirm(m, n, accuser);
    mp_swim_tell(m, now, n, accuser);
    return true;
}

/* This node's own numbers change. */
static void restate(struct mp_membership *m, mp_time now, uint64_t generation, uint32_t incarnation)
{
    struct mp_gossip_member self = mp_swim_statement(m, now, MP_MEMBER_SELF);
    self.generation = generation;
    self.incarnation = incarnation;
    mp_swim_declare(m, now, MP_MEMBER_SELF, &self);
}

void mp_swim_raise_generation(struct mp_membership *m, mp_time now, uint64_t above)
{
    mp_assert(above < UINT64_MAX - 1 && above >= mp_membership_generation(m));
    restate(m, now, above + 1, 0);
    if (mp_membership_generation(m) <= above)
        return; /* no memory; it will be said again */
    struct mp_membership_effect *e = mp_swim_emit(m, MP_MEMBERSHIP_PERSIST, MP_MEMBER_SELF);
    if (e)
        e->generation = mp_membership_generation(m);
}

static void hear_of_self(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s)
{
    const struct mp_swim_member *self = &m->members[MP_MEMBER_SELF];
    bool is_here = mp_swim_is_at(m, MP_MEMBER_SELF, &s->addr);
    if (s->generation >= UINT64_MAX - 2)
        return; /* nothing could be above it: nobody booted that often */
    if (!is_here && s->state <= MP_GOSSIP_SUSPECT) {
        mp_swim_clash_self(m, now, s);
        return;
    }
    if (s->generation < self->generation)
        return;
    if (s->generation > self->generation || s->incarnation == UINT32_MAX || !is_here) {
        mp_swim_raise_generation(m, now, s->generation);
        return;
    }
    if (s->state == MP_GOSSIP_ALIVE) {
        /* An earlier boot of this node, under the same number. */
        if (s->incarnation > self->incarnation)
            restate(m, now, self->generation, s->incarnation + 1);
        return;
    }
    if (s->incarnation < self->incarnation)
        return;
    mp_swim_health(m, 1); /* others had reason: perhaps this node is slow */
    uint32_t incarnation = s->incarnation + 1;
    if (mp_has_defect(m->defects, MP_DEFECT_REFUTE_WITHOUT_INCARNATION))
        incarnation = self->incarnation;
    restate(m, now, self->generation, incarnation);
}

/* Some of those who hear of a suspicion look for themselves. */
static void witness(struct mp_membership *m, mp_time now, uint32_t n)
{
    if (m->is_started &&
        (m->live <= MP_SWIM_WITNESSES || mp_swim_random(m, m->live) < MP_SWIM_WITNESSES))
        mp_swim_probe(m, now, n);
}

static void hear_of_new(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s,
                        enum mp_swim_source source)
{
    if (s->state >= MP_GOSSIP_DEAD && s->age_s >= MP_MEMBER_DEAD_KEPT_S)
        return;
    if (s->state == MP_GOSSIP_DEAD && mp_has_defect(m->defects, MP_DEFECT_FORGET_DEAD))
        return;
    uint32_t n = MP_MEMBER_NONE;
    enum mp_err err = mp_swim_add(m, now, s, &n);
    if (err == MP_ENOMEM)
        m->is_short = true;
    if (err == MP_OK && (source != MP_SWIM_ENTRIES || m->update_count < MP_GOSSIP_ENTRIES_TOLD))
        mp_swim_tell(m, now, n, MP_MEMBER_NONE);
}

static void hear_of(struct mp_membership *m, mp_time now, uint32_t n,
                    const struct mp_gossip_member *s, enum mp_swim_source source)
{
    int order = compare(m, n, s);
    if (order == 0 && s->state == MP_GOSSIP_SUSPECT && s->accuser.size != 0) {
        uint32_t accuser = mp_swim_find(m, s->accuser);
        if (accuser != MP_MEMBER_NONE && accuser != n && mp_swim_confirm(m, n, accuser))
            mp_swim_tell(m, now, n, accuser);
    }
    if (order <= 0)
        return;
    bool was_live = mp_swim_is_live(m, n);
    struct mp_gossip_member said = *s;
    if (s->state == MP_GOSSIP_SUSPECT && was_live &&
        mp_has_defect(m->defects, MP_DEFECT_REVIVE_OTHERS)) {
        said.state = MP_GOSSIP_ALIVE;
        said.incarnation++;
    }
    if (!mp_swim_declare(m, now, n, &said))
        return;
    if (said.state == MP_GOSSIP_SUSPECT)
        witness(m, now, n);
    else if (said.state == MP_GOSSIP_ALIVE && !was_live && source == MP_SWIM_DIRECT)
        mp_swim_revived(m, now, n);
}

/* n: the number of the one that s is about. */
static void hear(struct mp_membership *m, mp_time now, uint32_t n, const struct mp_gossip_member *s,
                 enum mp_swim_source source)
{
    if (n == MP_MEMBER_SELF) {
        hear_of_self(m, now, s);
        return;
    }
    if (n == MP_MEMBER_NONE) {
        hear_of_new(m, now, s, source);
        return;
    }
    if (source == MP_SWIM_ENTRIES && s->state <= MP_GOSSIP_SUSPECT && mp_swim_is_live(m, n) &&
        s->generation > m->members[n].generation && !mp_swim_is_at(m, n, &s->addr)) {
        mp_swim_clash(m, now, n, s, &s->addr);
        return;
    }
    struct mp_gossip_member said = *s;
    if (source == MP_SWIM_ENTRIES && s->state == MP_GOSSIP_DEAD && mp_swim_is_live(m, n))
        said.state = MP_GOSSIP_SUSPECT;
    hear_of(m, now, n, &said, source);
}

void mp_swim_hear(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s,
                  enum mp_swim_source source)
{
    hear(m, now, mp_swim_find(m, s->name), s, source);
}

uint32_t mp_swim_meet(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s,
                      const struct mp_address *reply)
{
    mp_assert(s->state == MP_GOSSIP_ALIVE);
    if (mp_swim_is_at(m, MP_MEMBER_SELF, &s->addr))
        return MP_MEMBER_NONE; /* our own echo */
    if (m->settled_at == MP_NEVER)
        m->settled_at = now + MP_SWIM_SETTLE;
    uint32_t n = mp_swim_find(m, s->name);
    if (n != MP_MEMBER_NONE && n != MP_MEMBER_SELF && mp_swim_is_live(m, n) &&
        !mp_swim_is_at(m, n, &s->addr)) {
        mp_swim_clash(m, now, n, s, reply);
        return MP_MEMBER_NONE;
    }
    hear(m, now, n, s, MP_SWIM_DIRECT);
    if (n == MP_MEMBER_NONE)
        n = mp_swim_find(m, s->name); /* it was new */
    return n == MP_MEMBER_SELF ? MP_MEMBER_NONE : n;
}

bool mp_swim_is_owed(const struct mp_membership *m, uint32_t n, const struct mp_gossip_member *s)
{
    const struct mp_swim_member *e = &m->members[n];
    return e->state != MP_GOSSIP_ALIVE || e->generation > s->generation ||
           (e->generation == s->generation && e->incarnation > s->incarnation);
}

/* `from` is the sender, MP_MEMBER_NONE if its claim to its name is not believed: then it is no
 * third party that could speak for it. */
static void hear_items(struct mp_membership *m, mp_time now, const struct mp_gossip *g,
                       uint32_t from)
{
    struct mp_slice items = g->items;
    struct mp_gossip_item item;
    while (mp_gossip_next(&items, &item)) {
        if (item.is_news)
            mp_swim_hear_news(m, now, &item.news, from);
        else if (from != MP_MEMBER_NONE || !mp_slice_equal(item.member.name, g->name))
            mp_swim_hear(m, now, &item.member, MP_SWIM_GOSSIP);
    }
}

static void hear_load(struct mp_membership *m, uint32_t n, uint32_t load)
{
    uint16_t kept = load > UINT16_MAX ? UINT16_MAX : (uint16_t)load;
    if (m->members[n].load == kept)
        return;
    struct mp_membership_effect *e = mp_swim_emit(m, MP_MEMBERSHIP_LOADED, n);
    if (!e)
        return;
    m->members[n].load = kept;
    e->load = load;
}

/* Answers what the datagram asks. True if that told the sender all that it has to know. */
static bool answer(struct mp_membership *m, mp_time now, const struct mp_gossip *g, uint32_t n,
                   const struct mp_address *from, uint32_t about)
{
    switch (g->kind) {
    case MP_GOSSIP_PING:
        if (!mp_slice_equal(g->target, mp_swim_name(m, MP_MEMBER_SELF)))
            return false;
        mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_ACK, .seq = g->seq}, about, from,
                     1);
        return true;
    case MP_GOSSIP_ACK:
        if (!mp_swim_clash_ack(m, now, g))
            mp_swim_on_ack(m, now, g);
        return false;
    case MP_GOSSIP_PING_REQ:
        mp_swim_on_ping_req(m, now, g, from);
        return false;
    case MP_GOSSIP_NACK:
        mp_swim_on_nack(m, g);
        return false;
    case MP_GOSSIP_RELAYED:
        if (n != MP_MEMBER_NONE)
            mp_swim_on_relayed(m, g, n);
        return false;
    case MP_GOSSIP_REFUSED:
        mp_swim_on_refused(m, now, g);
        return true;
    case MP_GOSSIP_GOSSIP:
        return false;
    }
    return false;
}

void mp_swim_datagram(struct mp_membership *m, mp_time now, const struct mp_address *from,
                      struct mp_slice bytes)
{
    struct mp_gossip g;
    if (mp_gossip_read(bytes, &g) != MP_OK || g.cluster != m->cluster) {
        m->dropped++;
        return;
    }
    if (!m->is_started || mp_swim_is_at(m, MP_MEMBER_SELF, &g.sender))
        return;
    const struct mp_swim_member *self = &m->members[MP_MEMBER_SELF];
    uint64_t generation = self->generation;
    uint32_t incarnation = self->incarnation;
    const struct mp_gossip_member sender = {.state = MP_GOSSIP_ALIVE,
                                            .name = g.name,
                                            .generation = g.generation,
                                            .incarnation = g.incarnation,
                                            .flags = g.flags & (MP_SWIM_FLAGS | MP_GOSSIP_JOINING),
                                            .addr = g.sender};
    bool is_namesake = mp_slice_equal(g.name, mp_swim_name(m, MP_MEMBER_SELF));
    uint32_t n = MP_MEMBER_NONE;
    /* A namesake that has only just come does not put our own claim in question. */
    if (!is_namesake || (g.flags & MP_GOSSIP_JOINING) == 0)
        n = mp_swim_meet(m, now, &sender, from);
    hear_items(m, now, &g, n);
    if (n != MP_MEMBER_NONE && m->members[n].state == MP_SWIM_FREE)
        n = MP_MEMBER_NONE; /* an item had it forgotten */
    if (n != MP_MEMBER_NONE && mp_swim_is_live(m, n))
        hear_load(m, n, g.load);
    uint32_t about = n != MP_MEMBER_NONE && mp_swim_is_owed(m, n, &sender) ? n : MP_MEMBER_NONE;
    bool is_told = answer(m, now, &g, n, from, about);
    self = &m->members[MP_MEMBER_SELF]; /* the table may have grown */
    bool is_restated = generation != self->generation || incarnation != self->incarnation;
    /* The sender is told what is held against it, and what this node answers to it. Two who hold
     * something against each other do not tell each other so without end. */
    if (about != MP_MEMBER_NONE && g.kind == MP_GOSSIP_GOSSIP && !is_restated) {
        is_told = is_told || (m->told_at != 0 && now - m->told_at < MP_SWIM_GOSSIP_PAUSE);
        m->told_at = is_told ? m->told_at : now;
    }
    if (!is_told && !is_namesake && (about != MP_MEMBER_NONE || is_restated))
        mp_swim_send(m, now, &(struct mp_gossip){.kind = MP_GOSSIP_GOSSIP}, about, from, 1);
}
