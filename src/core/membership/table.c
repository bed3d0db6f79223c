/* The table of members: dense numbers, an index by name, and what depends on a member's state.
 *
 * A state changes in mp_swim_move() alone. It reserves first all that the change may need, so a
 * change happens as a whole or not at all, and keeps four things true: the digest sums hold each
 * member that is not aged exactly once; `live` counts the alive and the suspected; a suspect has a
 * suspicion and a dead, departed or forgotten member a death, both found through `mark`; and each
 * change that can be seen from outside has its effect.
 *
 * Arrays grow by a 16th, not by doubling: members are many, and a slack of half would not fit the
 * bound on memory. */
#include "src/core/membership/membership_internal.h"

#define STAMP_SHIFT 26 /* 67 ms: 32 bits of it last nine years */

static uint64_t name_hash(struct mp_slice name)
{
    return mp_slice_hash(name, 0);
}

struct mp_address mp_swim_address(const struct mp_membership *m, uint32_t n)
{
    const uint8_t *record = m->arena + m->members[n].record;
    struct mp_address addr = {.size = record[1]};
    memcpy(addr.bytes, record + 2 + record[0], record[1]);
    return addr;
}

bool mp_swim_is_at(const struct mp_membership *m, uint32_t n, const struct mp_address *addr)
{
    const uint8_t *record = m->arena + m->members[n].record;
    return mp_slice_equal(mp_slice_of(record + 2 + record[0], record[1]), mp_address_slice(addr));
}

/* The slot of the index that holds name, or the empty one where it would go. */
static uint32_t find_slot(const struct mp_membership *m, struct mp_slice name)
{
    uint32_t slot = (uint32_t)(name_hash(name) >> 32) & (m->slots - 1);
    while (m->index[slot] != 0 && !mp_slice_equal(mp_swim_name(m, m->index[slot] - 1), name))
        slot = (slot + 1) & (m->slots - 1);
    return slot;
}

uint32_t mp_swim_find(const struct mp_membership *m, struct mp_slice name)
{
    uint32_t found = m->slots == 0 ? 0 : m->index[find_slot(m, name)];
    return found == 0 ? MP_MEMBER_NONE : found - 1;
}

uint32_t mp_swim_stamp(const struct mp_membership *m, mp_time t)
{
    uint64_t stamp = t <= m->base ? 0 : (t - m->base) >> STAMP_SHIFT;
    return stamp > UINT32_MAX ? UINT32_MAX : (uint32_t)stamp;
}

static mp_time since(const struct mp_membership *m, uint32_t n)
{
    const struct mp_swim_member *e = &m->members[n];
    if (e->state == MP_GOSSIP_ALIVE)
        return m->base + ((mp_time)e->mark << STAMP_SHIFT);
    return e->state == MP_GOSSIP_SUSPECT ? m->suspicions[e->mark].since : m->deaths[e->mark].since;
}

struct mp_gossip_member mp_swim_statement(const struct mp_membership *m, mp_time now, uint32_t n)
{
    const struct mp_swim_member *e = &m->members[n];
    struct mp_gossip_member s = {.state = (enum mp_gossip_state)e->state,
                                 .name = mp_swim_name(m, n),
                                 .generation = e->generation,
                                 .incarnation = e->incarnation,
                                 .flags = e->bits & MP_SWIM_FLAGS,
                                 .addr = mp_swim_address(m, n)};
    mp_time at = since(m, n);
    uint64_t age_s = now > at ? (now - at) / MP_SECONDS(1) : 0;
    s.age_s = age_s > UINT32_MAX ? UINT32_MAX : (uint32_t)age_s;
    return s;
}

static uint64_t digest(const struct mp_membership *m, uint32_t n)
{
    const struct mp_swim_member *e = &m->members[n];
    uint8_t bytes[16 + MP_NODE_NAME_BYTES_MAX + MP_ADDRESS_BYTES_MAX + 2];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(e->generation >> (8 * i));
    for (unsigned i = 0; i < 4; i++)
        bytes[8 + i] = (uint8_t)(e->incarnation >> (8 * i));
    /* Suspicions come and go faster than digests are compared. */
    bytes[12] = e->state == MP_GOSSIP_SUSPECT ? MP_GOSSIP_ALIVE : e->state;
    const uint8_t *record = m->arena + e->record;
    size_t size = 2u + record[0] + record[1];
    memcpy(bytes + 13, record, size);
    return mp_slice_hash(mp_slice_of(bytes, 13 + size), 0);
}

static uint64_t *sum_of(struct mp_membership *m, uint32_t n)
{
    return &m->sums[name_hash(mp_swim_name(m, n)) % MP_SYNC_BUCKETS];
}

void mp_swim_sum_add(struct mp_membership *m, uint32_t n)
{
    if ((m->members[n].bits & MP_SWIM_AGED) == 0)
        *sum_of(m, n) += digest(m, n);
}

void mp_swim_sum_remove(struct mp_membership *m, uint32_t n)
{
    if ((m->members[n].bits & MP_SWIM_AGED) == 0)
        *sum_of(m, n) -= digest(m, n);
}

/* Lookups stay short up to 7/8 full. */
static enum mp_err reserve_index(struct mp_membership *m)
{
    if ((uint64_t)(m->used + 1) * 8 <= (uint64_t)m->slots * 7)
        return MP_OK;
    uint32_t slots = m->slots == 0 ? 16 : m->slots * 2;
    uint32_t *index = mp_alloc_take(&m->alloc, slots * sizeof(*index));
    if (!index)
        return MP_ENOMEM;
    memset(index, 0, slots * sizeof(*index));
    mp_alloc_free(&m->alloc, m->index, m->slots * sizeof(*m->index));
    m->index = index;
    m->slots = slots;
    for (uint32_t n = 0; n < m->end; n++)
        if (m->members[n].state != MP_SWIM_FREE)
            index[find_slot(m, mp_swim_name(m, n))] = n + 1;
    return MP_OK;
}

static void unindex(struct mp_membership *m, uint32_t n)
{
    uint32_t mask = m->slots - 1;
    uint32_t hole = find_slot(m, mp_swim_name(m, n));
    mp_assert(m->index[hole] == n + 1);
    for (uint32_t next = (hole + 1) & mask; m->index[next] != 0; next = (next + 1) & mask) {
        uint32_t home = (uint32_t)(name_hash(mp_swim_name(m, m->index[next] - 1)) >> 32) & mask;
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            m->index[hole] = m->index[next];
            hole = next;
        }
    }
    m->index[hole] = 0;
}

/* Records are moved together once a quarter of the arena is waste. */
static enum mp_err reserve_arena(struct mp_membership *m, uint32_t extra)
{
    bool is_wasteful = m->arena_waste > 1024 && m->arena_waste > m->arena_size / 4;
    if (!is_wasteful) {
        uint8_t *arena = mp_swim_grow(m, m->arena, 1, &m->arena_capacity, m->arena_size + extra);
        if (!arena)
            return MP_ENOMEM;
        m->arena = arena;
        return MP_OK;
    }
    uint32_t capacity = m->arena_size - m->arena_waste + extra;
    uint8_t *arena = mp_alloc_take(&m->alloc, capacity);
    if (!arena)
        return MP_ENOMEM;
    uint32_t size = 0;
    for (uint32_t n = 0; n < m->end; n++) {
        struct mp_swim_member *e = &m->members[n];
        if (e->state == MP_SWIM_FREE)
            continue;
        const uint8_t *record = m->arena + e->record;
        uint32_t record_size = 2u + record[0] + record[1];
        memcpy(arena + size, record, record_size);
        e->record = size;
        size += record_size;
    }
    mp_alloc_free(&m->alloc, m->arena, m->arena_capacity);
    m->arena = arena;
    m->arena_capacity = capacity;
    m->arena_size = size;
    m->arena_waste = 0;
    return MP_OK;
}

static uint32_t put_record(struct mp_membership *m, struct mp_slice name,
                           const struct mp_address *addr)
{
    uint32_t at = m->arena_size;
    uint8_t *record = m->arena + at;
    record[0] = (uint8_t)name.size;
    record[1] = addr->size;
    memcpy(record + 2, name.data, name.size);
    memcpy(record + 2 + name.size, addr->bytes, addr->size);
    m->arena_size += 2u + (uint32_t)name.size + addr->size;
    mp_assert(m->arena_size <= m->arena_capacity);
    return at;
}

static enum mp_err reserve_state(struct mp_membership *m, enum mp_gossip_state state)
{
    if (state == MP_GOSSIP_SUSPECT)
        return mp_swim_suspicion_reserve(m);
    return state >= MP_GOSSIP_DEAD ? mp_swim_death_reserve(m) : MP_OK;
}

/* The side table of the state that n has now. */
static void enter(struct mp_membership *m, mp_time now, uint32_t n, uint32_t age_s)
{
    struct mp_swim_member *e = &m->members[n];
    mp_duration age = MP_SECONDS(age_s);
    if (e->state == MP_GOSSIP_ALIVE)
        e->mark = mp_swim_stamp(m, now);
    else if (e->state == MP_GOSSIP_SUSPECT)
        e->mark = mp_swim_suspicion_start(m, now, n);
    else
        e->mark = mp_swim_death_add(m, now, age > now ? 0 : now - age, n);
    m->live += mp_swim_is_live(m, n);
    m->forgotten_count += e->state == MP_SWIM_FORGOTTEN;
}

static void leave(struct mp_membership *m, uint32_t n)
{
    struct mp_swim_member *e = &m->members[n];
    m->live -= mp_swim_is_live(m, n);
    m->forgotten_count -= e->state == MP_SWIM_FORGOTTEN;
    if (e->state == MP_GOSSIP_SUSPECT)
        mp_swim_suspicion_end(m, e->mark);
    else if (e->state >= MP_GOSSIP_DEAD)
        mp_swim_death_remove(m, e->mark);
}

static enum mp_err reserve_member(struct mp_membership *m, const struct mp_gossip_member *s)
{
    if (m->used >= m->members_max) {
        if (!m->is_full_told)
            mp_swim_log(m, "the member table is full; refused: ", s->name);
        m->is_full_told = true;
        return MP_EFULL;
    }
    if (m->free_first == MP_MEMBER_NONE) {
        struct mp_swim_member *members =
            mp_swim_grow(m, m->members, sizeof(*members), &m->capacity, m->end + 1);
        if (!members)
            return MP_ENOMEM;
        m->members = members;
    }
    if (reserve_state(m, s->state) != MP_OK || mp_swim_reserve_effects(m, 1) != MP_OK ||
        reserve_arena(m, 2u + (uint32_t)s->name.size + s->addr.size) != MP_OK)
        return MP_ENOMEM;
    return reserve_index(m);
}

enum mp_err mp_swim_add(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s,
                        uint32_t *n_out)
{
    enum mp_err err = reserve_member(m, s);
    if (err != MP_OK)
        return err;
    uint32_t n = m->free_first;
    if (n != MP_MEMBER_NONE)
        m->free_first = m->members[n].record;
    else
        n = m->end++;
    struct mp_swim_member *e = &m->members[n];
    *e = (struct mp_swim_member){.generation = s->generation,
                                 .incarnation = s->incarnation,
                                 .record = put_record(m, s->name, &s->addr),
                                 .state = (uint8_t)s->state,
                                 .bits = s->flags & MP_SWIM_FLAGS};
    uint32_t slot = find_slot(m, s->name);
    mp_assert(m->index[slot] == 0);
    m->index[slot] = n + 1;
    m->used++;
    m->changes++;
    enter(m, now, n, s->age_s);
    mp_swim_sum_add(m, n);
    if (mp_swim_is_visible(m, n))
        mp_swim_emit(m, MP_MEMBERSHIP_CHANGED, n);
    *n_out = n;
    return MP_OK;
}

static void put_address(struct mp_membership *m, uint32_t n, const struct mp_address *addr)
{
    uint8_t *record = m->arena + m->members[n].record;
    if (record[1] == addr->size) {
        memcpy(record + 2 + record[0], addr->bytes, addr->size);
        return;
    }
    m->arena_waste += 2u + record[0] + record[1];
    m->members[n].record = put_record(m, mp_swim_name(m, n), addr);
}

enum mp_err mp_swim_move(struct mp_membership *m, mp_time now, uint32_t n,
                         const struct mp_gossip_member *s)
{
    mp_assert(n != MP_MEMBER_SELF || s->state == MP_GOSSIP_ALIVE || s->state == MP_GOSSIP_LEFT);
    if (reserve_state(m, s->state) != MP_OK || mp_swim_reserve_effects(m, 1) != MP_OK ||
        reserve_arena(m, 2u + MP_NODE_NAME_BYTES_MAX + MP_ADDRESS_BYTES_MAX) != MP_OK)
        return MP_ENOMEM;
    struct mp_swim_member *e = &m->members[n];
    uint8_t flags = s->flags & MP_SWIM_FLAGS;
    bool was_visible = mp_swim_is_visible(m, n);
    bool is_same_state = e->state == s->state;
    bool is_changed = !is_same_state || e->generation != s->generation ||
                      (e->bits & MP_SWIM_FLAGS) != flags || !mp_swim_is_at(m, n, &s->addr);
    mp_swim_sum_remove(m, n);
    bool is_staying = is_same_state && e->state != MP_GOSSIP_SUSPECT;
    if (!is_staying)
        leave(m, n);
    e->generation = s->generation;
    e->incarnation = s->incarnation;
    e->state = (uint8_t)s->state;
    e->bits = (uint8_t)((e->bits & ~(MP_SWIM_FLAGS | MP_SWIM_AGED)) | flags);
    put_address(m, n, &s->addr);
    m->changes++;
    if (!is_staying)
        enter(m, now, n, s->age_s);
    mp_swim_sum_add(m, n);
    if (mp_swim_is_visible(m, n) ? is_changed : was_visible)
        mp_swim_emit(m, mp_swim_is_visible(m, n) ? MP_MEMBERSHIP_CHANGED : MP_MEMBERSHIP_GONE, n);
    return MP_OK;
}

void mp_swim_drop(struct mp_membership *m, uint32_t n)
{
    mp_assert(n != MP_MEMBER_SELF);
    struct mp_swim_member *e = &m->members[n];
    mp_swim_sum_remove(m, n);
    leave(m, n);
    unindex(m, n);
    const uint8_t *record = m->arena + e->record;
    m->arena_waste += 2u + record[0] + record[1];
    *e = (struct mp_swim_member){.state = MP_SWIM_FREE, .record = m->freed_first};
    m->freed_first = n;
    m->used--;
    m->changes++;
}

uint32_t mp_swim_random_live(struct mp_membership *m, uint32_t but)
{
    uint32_t others = m->live - mp_swim_is_live(m, MP_MEMBER_SELF);
    if (others == 0)
        return MP_MEMBER_NONE;
    uint32_t n = 0;
    /* Most are live, as a rule; where most are dead, the walk is longer than fair, but ends. */
    for (uint32_t i = 0; i < 32; i++) {
        n = mp_swim_random(m, m->end);
        if (n != MP_MEMBER_SELF && n != but && mp_swim_is_live(m, n))
            return n;
    }
    for (uint32_t i = 0; i < m->end; i++) {
        n = n + 1 < m->end ? n + 1 : 0;
        if (n != MP_MEMBER_SELF && n != but && mp_swim_is_live(m, n))
            return n;
    }
    return MP_MEMBER_NONE;
}

bool mp_membership_get(const struct mp_membership *m, uint32_t member, struct mp_member_info *out)
{
    if (member >= m->end || !mp_swim_is_visible(m, member))
        return false;
    const struct mp_swim_member *e = &m->members[member];
    const struct mp_swim_rtt *rtt = mp_swim_rtt(m, member);
    *out = (struct mp_member_info){
        .name = mp_swim_name(m, member),
        .addr = mp_swim_address(m, member),
        .state = (enum mp_member_state)e->state,
        .generation = e->generation,
        .incarnation = e->incarnation,
        .flags = e->bits & MP_SWIM_FLAGS,
        .load = member == MP_MEMBER_SELF ? m->load : e->load,
        .since = since(m, member),
        .via = mp_swim_via(m, member),
        .rtt = rtt ? MP_US(rtt->srtt_us) : 0,
    };
    return true;
}

uint32_t mp_membership_end(const struct mp_membership *m)
{
    return m->end;
}

uint32_t mp_membership_find(const struct mp_membership *m, struct mp_slice name)
{
    uint32_t n = mp_swim_find(m, name);
    return n != MP_MEMBER_NONE && mp_swim_is_visible(m, n) ? n : MP_MEMBER_NONE;
}

uint32_t mp_membership_changes(const struct mp_membership *m)
{
    return m->changes;
}

uint32_t mp_membership_live_count(const struct mp_membership *m)
{
    return m->live;
}

void mp_membership_digests(const struct mp_membership *m, uint64_t out[MP_SYNC_BUCKETS])
{
    memcpy(out, m->sums, sizeof(m->sums));
}

uint64_t mp_membership_bucket(const struct mp_membership *m, uint32_t member)
{
    return (uint64_t)1 << name_hash(mp_swim_name(m, member)) % MP_SYNC_BUCKETS;
}

enum mp_err mp_membership_put_entries(const struct mp_membership *m, uint64_t mask,
                                      struct mp_buf *out)
{
    size_t before = out->size;
    for (uint32_t n = 0; n < m->end; n++) {
        const struct mp_swim_member *e = &m->members[n];
        if (e->state == MP_SWIM_FREE || (e->bits & MP_SWIM_AGED) != 0 ||
            (mask >> (name_hash(mp_swim_name(m, n)) % MP_SYNC_BUCKETS) & 1) == 0)
            continue;
        struct mp_gossip_member s = mp_swim_statement(m, m->last, n);
        if (s.addr.size == 0)
            continue;
        if (s.state == MP_GOSSIP_SUSPECT)
            s.state = MP_GOSSIP_ALIVE; /* as the digests have it */
        enum mp_err err = mp_gossip_append(out, &s);
        if (err != MP_OK) {
            out->size = before;
            return err;
        }
    }
    return MP_OK;
}

void mp_swim_table_fini(struct mp_membership *m)
{
    mp_alloc_free(&m->alloc, m->index, m->slots * sizeof(*m->index));
    mp_alloc_free(&m->alloc, m->arena, m->arena_capacity);
    mp_alloc_free(&m->alloc, m->members, m->capacity * sizeof(*m->members));
}
