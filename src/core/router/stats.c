/* What was learnt of a function on a node, in a hash table of bounded size.
 *
 * The time that a function takes is an exponentially weighted average over the last eight answers
 * or so. Three things are believed less than an average would believe them:
 *  - The first answers: a link is made, code is loaded and compiled. Of the first few only the
 *    fastest counts, and until they are in nobody compares unfavourably (router.c).
 *  - A single answer that took many times as long as usual: it counts as four times the usual. More
 *    such answers to calls that were on their way at that moment tell of the same stall, and count
 *    for nothing.
 *  - What has not been seen for long. While nothing is sent there, the time halves again and again,
 *    and the average stands for fewer answers, so that the next one counts for more. So each is
 *    tried again, and one that has become fast again is believed at its first answer. A half-life
 *    is eight picks that were lost (otherwise a function that is called seldom would spend half of
 *    its calls on finding out), and eight times what the call would cost (otherwise one that takes
 *    a second would be tried every few milliseconds), of which more than half a second is forgiven.
 * And one thing is believed early: if calls are outstanding there and no answer has come for longer
 * than usual, then it takes at least that long. A node that hangs shows in this way at once.
 *
 * Invariants: an item is among the idle exactly while no call is outstanding there; only idle ones
 * make room. The index holds at most half as many items as slots. */
#include <stddef.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/router/router_internal.h"

#define WEIGHT_MAX 7u           /* the next answer counts for an eighth */
#define OUTLIER    4u           /* a longer time counts as so many times the usual */
#define PARTS      8u           /* a half-life is counted in eighths */
#define PARTS_MAX  480u         /* 60 half-lives: nothing is left */
#define IDLE_COST  8u           /* half-life without use, in times of the function, … */
#define IDLE_MAX   MP_MS(500)   /* … and not more than that, unless it takes longer itself */
#define TIME_MAX   (1ull << 42) /* more than an hour is an hour; its product with 2^20 calls fits */

static uint32_t home_of(const struct mp_router_stats *s, uint32_t node, uint32_t function)
{
    uint64_t h = ((uint64_t)node << 32 | function) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) & (s->slots - 1);
}

/* The slot that holds it, or the empty one where it would go. */
static uint32_t find_slot(const struct mp_router_stats *s, uint32_t node, uint32_t function)
{
    uint32_t slot = home_of(s, node, function);
    while (s->index[slot] != 0) {
        const struct mp_router_stat *t = &s->items[s->index[slot] - 1];
        if (t->node == node && t->function == function)
            break;
        slot = (slot + 1) & (s->slots - 1);
    }
    return slot;
}

static void link_idle(struct mp_router_stats *s, uint32_t item)
{
    struct mp_router_stat *t = &s->items[item];
    t->previous = MP_ROUTER_NO_STAT;
    t->next = s->idle_first;
    if (s->idle_first == MP_ROUTER_NO_STAT)
        s->idle_last = item;
    else
        s->items[s->idle_first].previous = item;
    s->idle_first = item;
}

static void unlink_idle(struct mp_router_stats *s, const struct mp_router_stat *t)
{
    if (t->previous == MP_ROUTER_NO_STAT)
        s->idle_first = t->next;
    else
        s->items[t->previous].next = t->next;
    if (t->next == MP_ROUTER_NO_STAT)
        s->idle_last = t->previous;
    else
        s->items[t->next].previous = t->previous;
}

void mp_router_stats_init(struct mp_router_stats *s, struct mp_alloc *a)
{
    *s = (struct mp_router_stats){
        .alloc = a, .idle_first = MP_ROUTER_NO_STAT, .idle_last = MP_ROUTER_NO_STAT};
}

void mp_router_stats_fini(struct mp_router_stats *s)
{
    if (s->alloc) {
        mp_alloc_free(s->alloc, s->index, s->slots * sizeof(*s->index));
        mp_alloc_free(s->alloc, s->items, s->capacity * sizeof(*s->items));
    }
    mp_router_stats_init(s, s->alloc);
}

struct mp_router_stat *mp_router_stats_find(const struct mp_router_stats *s, uint32_t node,
                                            uint32_t function)
{
    if (s->count == 0)
        return NULL;
    uint32_t found = s->index[find_slot(s, node, function)];
    return found == 0 ? NULL : &s->items[found - 1];
}

static enum mp_err grow(struct mp_router_stats *s)
{
    static_assert((MP_ROUTER_STATS_MAX & (MP_ROUTER_STATS_MAX - 1)) == 0 &&
                      MP_ROUTER_STATS_MAX >= 64,
                  "the table grows by doubling");
    uint32_t capacity = s->capacity == 0 ? 64 : s->capacity * 2;
    uint32_t slots = capacity * 2;
    uint32_t *index = mp_alloc_take(s->alloc, slots * sizeof(*index));
    if (!index)
        return MP_ENOMEM;
    void *items = s->alloc->resize(s->alloc->context, s->items, s->capacity * sizeof(*s->items),
                                   capacity * sizeof(*s->items));
    if (!items) {
        mp_alloc_free(s->alloc, index, slots * sizeof(*index));
        return MP_ENOMEM;
    }
    mp_alloc_free(s->alloc, s->index, s->slots * sizeof(*s->index));
    memset(index, 0, slots * sizeof(*index));
    s->items = (struct mp_router_stat *)items;
    s->capacity = capacity;
    s->index = index;
    s->slots = slots;
    for (uint32_t i = 0; i < s->count; i++)
        index[find_slot(s, s->items[i].node, s->items[i].function)] = i + 1;
    return MP_OK;
}

/* Closes the gap in the probe sequences (backward-shift deletion). */
static void drop_index(struct mp_router_stats *s, uint32_t item)
{
    uint32_t mask = s->slots - 1;
    uint32_t hole = find_slot(s, s->items[item].node, s->items[item].function);
    mp_assert(s->index[hole] == item + 1);
    for (uint32_t next = (hole + 1) & mask; s->index[next] != 0; next = (next + 1) & mask) {
        const struct mp_router_stat *t = &s->items[s->index[next] - 1];
        uint32_t home = home_of(s, t->node, t->function);
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            s->index[hole] = s->index[next];
            hole = next;
        }
    }
    s->index[hole] = 0;
}

enum mp_err mp_router_stats_add(struct mp_router_stats *s, uint32_t node, uint32_t function,
                                struct mp_router_stat **out)
{
    if (s->count == s->capacity && s->capacity < MP_ROUTER_STATS_MAX) {
        enum mp_err err = grow(s);
        if (err != MP_OK)
            return err;
    }
    uint32_t item = s->count;
    if (s->count == s->capacity) {
        item = s->idle_last;
        if (item == MP_ROUTER_NO_STAT) {
            *out = NULL;
            return MP_OK;
        }
        drop_index(s, item);
        unlink_idle(s, &s->items[item]);
    } else {
        s->count++;
    }
    struct mp_router_stat *t = &s->items[item];
    *t = (struct mp_router_stat){.node = node, .function = function};
    uint32_t slot = find_slot(s, node, function);
    mp_assert(s->index[slot] == 0);
    s->index[slot] = item + 1;
    link_idle(s, item);
    *out = t;
    return MP_OK;
}

static mp_duration span(mp_time from, mp_time to)
{
    return to > from ? to - from : 0;
}

/* Half-lives without use, in eighths. */
static uint32_t faded(const struct mp_router_stat *t, mp_time now)
{
    if (t->passed == 0)
        return 0;
    mp_assert(t->outstanding == 0);
    uint64_t half_life = t->usual * IDLE_COST;
    if (half_life > IDLE_MAX)
        half_life = t->usual > IDLE_MAX ? t->usual : IDLE_MAX;
    mp_duration idle = span(t->since, now);
    if (idle / PARTS_MAX >= half_life / PARTS)
        return t->passed;
    uint64_t parts = idle * PARTS / half_life;
    return parts < t->passed ? (uint32_t)parts : t->passed;
}

uint64_t mp_router_stat_time(const struct mp_router_stat *t, mp_time now)
{
    if (t->usual == 0)
        return 0;
    uint32_t parts = faded(t, now);
    uint64_t time = t->usual >> parts / PARTS;
    time -= time * (parts % PARTS) / (2 * PARTS);
    return time == 0 ? 1 : time;
}

uint64_t mp_router_stat_silence(const struct mp_router_stat *t, mp_time now)
{
    if (t->outstanding == 0)
        return 0;
    mp_duration silent = span(t->since, now);
    return silent < TIME_MAX ? silent : TIME_MAX;
}

void mp_router_stats_begin(struct mp_router_stats *s, struct mp_router_stat *t, mp_time now)
{
    if (t->outstanding == 0) {
        t->weight = (uint8_t)(t->weight >> faded(t, now) / PARTS);
        t->passed = 0;
        t->since = now;
        unlink_idle(s, t);
    }
    t->outstanding++;
}

/* Whether an answer that comes now tells of a stall that is known: it is late, and its call was on
 * its way when an earlier one was. */
static bool is_same_stall(struct mp_router_stat *t, mp_time now, mp_duration took)
{
    if (t->trials < MP_ROUTER_TRIALS || took <= t->usual * OUTLIER)
        return false;
    if (t->stalled_at != 0 && span(t->stalled_at, now) < took)
        return true;
    t->stalled_at = now;
    return false;
}

static void learn(struct mp_router_stat *t, mp_duration took)
{
    took = took == 0 ? 1 : took < TIME_MAX ? took : TIME_MAX;
    if (t->trials < MP_ROUTER_TRIALS) {
        t->trials++;
        if (t->usual == 0 || took < t->usual)
            t->usual = took;
    } else {
        if (took > t->usual * OUTLIER)
            took = t->usual * OUTLIER;
        t->usual = (t->usual * t->weight + took) / (t->weight + 1u);
    }
    if (t->weight < WEIGHT_MAX)
        t->weight++;
    mp_assert(t->usual != 0);
}

void mp_router_stats_end(struct mp_router_stats *s, struct mp_router_stat *t, mp_time now,
                         mp_duration took)
{
    /* A call that began while the table was full is not in the count. */
    if (t->outstanding != 0 && --t->outstanding == 0) {
        link_idle(s, (uint32_t)(t - s->items));
        t->since = now;
    }
    if (took != 0) {
        if (!is_same_stall(t, now, took))
            learn(t, took);
        t->since = now;
    }
}

void mp_router_stat_pass(struct mp_router_stat *t)
{
    if (t->outstanding == 0 && t->passed < PARTS_MAX)
        t->passed++;
}

void mp_router_stat_forget(struct mp_router_stat *t, uint32_t generation)
{
    t->generation = generation;
    t->usual = 0;
    t->passed = 0;
    t->weight = 0;
    t->trials = 0;
    t->stalled_at = 0;
}
