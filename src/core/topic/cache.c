/* Which receivers the trie found for a topic lately. A topic has two places, by its hash; the one
 * that was not used for longer gives way. A pattern that comes or goes makes all that is known
 * void, by a new generation: what is void is replaced when it is asked for. A lack of memory costs
 * only speed. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/topic.h"

static_assert((MP_TOPIC_CACHE_TOPICS & (MP_TOPIC_CACHE_TOPICS - 1)) == 0, "it is a mask");

static size_t bytes_of(const struct mp_topic_cached *c)
{
    return c->count * sizeof(struct mp_topic_sink *) + c->topic_size;
}

static void forget(struct mp_topic *t, struct mp_topic_cached *c)
{
    if (!c->sinks)
        return;
    mp_alloc_free(t->alloc, c->sinks, bytes_of(c));
    t->cache.total -= c->count;
    *c = (struct mp_topic_cached){0};
}

static void forget_all(struct mp_topic *t)
{
    for (uint32_t i = 0; t->cache.slots && i < MP_TOPIC_CACHE_TOPICS; i++)
        forget(t, &t->cache.slots[i]);
    t->cache.last = NULL;
}

void mp_topic_cache_fini(struct mp_topic *t)
{
    forget_all(t);
    mp_alloc_free(t->alloc, t->cache.slots, MP_TOPIC_CACHE_TOPICS * sizeof(*t->cache.slots));
    t->cache.slots = NULL;
}

static bool is_of(const struct mp_topic *t, const struct mp_topic_cached *c, struct mp_slice topic)
{
    return c->sinks && c->generation == t->trie.generation && c->topic_size == topic.size &&
           memcmp(c->sinks + c->count, topic.data, topic.size) == 0;
}

static struct mp_topic_matches use(struct mp_topic *t, struct mp_topic_cached *c)
{
    c->used_at = ++t->cache.uses;
    t->cache.last = c;
    return (struct mp_topic_matches){.sinks = c->sinks, .count = c->count};
}

bool mp_topic_cache_find(struct mp_topic *t, struct mp_slice topic, uint64_t hash,
                         struct mp_topic_matches *m)
{
    if (!t->cache.slots)
        return false;
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t slot = ((uint32_t)hash ^ i) & (MP_TOPIC_CACHE_TOPICS - 1);
        struct mp_topic_cached *c = &t->cache.slots[slot];
        if (c->hash == hash && is_of(t, c, topic)) {
            *m = use(t, c);
            return true;
        }
    }
    return false;
}

static bool is_worse(const struct mp_topic *t, const struct mp_topic_cached *a,
                     const struct mp_topic_cached *b)
{
    bool is_void = a->generation != t->trie.generation;
    if (is_void != (b->generation != t->trie.generation))
        return is_void;
    return a->used_at < b->used_at;
}

/* Remembers what the trie says of a topic; NULL: it cannot be. */
static struct mp_topic_cached *remember(struct mp_topic *t, struct mp_slice topic, uint64_t hash,
                                        uint32_t count)
{
    struct mp_topic_cache *cache = &t->cache;
    if (!cache->slots) {
        cache->slots = mp_alloc_take(t->alloc, MP_TOPIC_CACHE_TOPICS * sizeof(*cache->slots));
        if (!cache->slots)
            return NULL;
        memset(cache->slots, 0, MP_TOPIC_CACHE_TOPICS * sizeof(*cache->slots));
    }
    struct mp_topic_cached *c = &cache->slots[hash & (MP_TOPIC_CACHE_TOPICS - 1)];
    struct mp_topic_cached *other = &cache->slots[(hash ^ 1) & (MP_TOPIC_CACHE_TOPICS - 1)];
    if (is_worse(t, other, c))
        c = other;
    forget(t, c);
    if (cache->total + count > MP_TOPIC_CACHE_MATCHES_MAX)
        forget_all(t);
    struct mp_topic_cached made = {.count = count,
                                   .topic_size = (uint32_t)topic.size,
                                   .hash = hash,
                                   .generation = t->trie.generation};
    made.sinks = mp_alloc_take(t->alloc, bytes_of(&made));
    if (!made.sinks)
        return NULL;
    if (count != 0)
        memcpy(made.sinks, t->trie.matches, count * sizeof(*made.sinks));
    memcpy(made.sinks + count, topic.data, topic.size);
    cache->total += count;
    *c = made;
    return c;
}

struct mp_topic_matches mp_topic_matches_of(struct mp_topic *t, struct mp_slice topic)
{
    struct mp_topic_matches m;
    if (t->cache.last && is_of(t, t->cache.last, topic))
        return (struct mp_topic_matches){.sinks = t->cache.last->sinks,
                                         .count = t->cache.last->count};
    uint64_t hash = mp_slice_hash(topic, 0);
    if (mp_topic_cache_find(t, topic, hash, &m))
        return m;
    uint32_t count = mp_topic_trie_match(t, topic);
    struct mp_topic_cached *c = remember(t, topic, hash, count);
    if (c)
        return use(t, c);
    return (struct mp_topic_matches){.sinks = t->trie.matches, .count = count};
}

bool mp_topic_is_wanted(struct mp_topic *t, struct mp_slice topic)
{
    struct mp_topic_matches m;
    if (t->trie.entry_count == 0)
        return false;
    if (mp_topic_cache_find(t, topic, mp_slice_hash(topic, 0), &m))
        return m.count != 0;
    char room[256];
    struct mp_text why;
    mp_text_init(&why, room, sizeof(room));
    return mp_topic_name_check(topic, &why) == MP_OK && mp_topic_matches_of(t, topic).count != 0;
}
