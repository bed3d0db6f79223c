/* Patterns by their words, and which of them match a topic.
 *
 * A node is what a pattern begins with; from it a child for each word, one for `*`, one for `#`.
 * A topic is matched by walking with the set of all nodes that its words so far may have led to:
 * `#` stays in the set and adds what follows it at once. A node is in the set at most once for each
 * word, however many ways lead there, so the cost is bounded by nodes times words (32), and each
 * receiver is found once. Nodes that no beginning of the topic leads to are never looked at: a
 * match costs with the number of patterns whose beginnings match, not with that of all.
 *
 * Everything that matching writes to is taken when patterns come: it never fails. */
#include "src/core/topic/topic_internal.h"

#define ROOT        0u
#define WORD_STAR   (UINT32_MAX - 1)
#define WORD_HASH   (UINT32_MAX - 2)
#define SLOTS_LEAST 64u

/* --- words --- */

static enum mp_err word_take(struct mp_topic *t, struct mp_slice text, uint32_t *word)
{
    struct mp_topic_trie *r = &t->trie;
    if (mp_map_get(&r->by_word, text, word)) {
        r->words[*word].refs++;
        return MP_OK;
    }
    if (r->word_free == MP_TOPIC_NONE)
        MP_TRY(mp_topic_grow(t->alloc, (void **)&r->words, &r->word_capacity, r->word_count + 1,
                             sizeof(*r->words)));
    uint8_t *bytes = mp_alloc_take(t->alloc, text.size);
    if (!bytes)
        return MP_ENOMEM;
    memcpy(bytes, text.data, text.size);
    uint32_t place = r->word_free == MP_TOPIC_NONE ? r->word_count : r->word_free;
    if (mp_map_set(&r->by_word, mp_slice_of(bytes, text.size), place) != MP_OK) {
        mp_alloc_free(t->alloc, bytes, text.size);
        return MP_ENOMEM;
    }
    if (place == r->word_count)
        r->word_count++;
    else
        r->word_free = r->words[place].refs;
    r->words[place] =
        (struct mp_topic_word){.bytes = bytes, .size = (uint32_t)text.size, .refs = 1};
    *word = place;
    return MP_OK;
}

static void word_release(struct mp_topic *t, uint32_t word)
{
    struct mp_topic_trie *r = &t->trie;
    struct mp_topic_word *w = &r->words[word];
    if (--w->refs != 0)
        return;
    bool is_there = mp_map_remove(&r->by_word, mp_slice_of(w->bytes, w->size));
    mp_assert(is_there);
    mp_alloc_free(t->alloc, w->bytes, w->size);
    *w = (struct mp_topic_word){.refs = r->word_free};
    r->word_free = word;
}

/* --- edges --- */

static uint32_t edge_home(const struct mp_topic_trie *r, uint32_t node, uint32_t word)
{
    uint64_t mixed = ((uint64_t)node << 32 | word) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(mixed >> 32) & (r->edge_slots - 1);
}

/* The slot of an edge, or the empty one where it would go. */
static uint32_t edge_slot(const struct mp_topic_trie *r, uint32_t node, uint32_t word)
{
    uint32_t slot = edge_home(r, node, word);
    while (r->edges[slot].node != MP_TOPIC_NONE &&
           (r->edges[slot].node != node || r->edges[slot].word != word))
        slot = (slot + 1) & (r->edge_slots - 1);
    return slot;
}

static enum mp_err edges_reserve(struct mp_topic *t)
{
    struct mp_topic_trie *r = &t->trie;
    if (2 * (r->edge_count + 1) < r->edge_slots)
        return MP_OK;
    uint32_t old_slots = r->edge_slots;
    struct mp_topic_edge *old = r->edges;
    uint32_t slots = old_slots == 0 ? SLOTS_LEAST : old_slots * 2;
    struct mp_topic_edge *edges = mp_alloc_take(t->alloc, slots * sizeof(*edges));
    if (!edges)
        return MP_ENOMEM;
    for (uint32_t i = 0; i < slots; i++)
        edges[i].node = MP_TOPIC_NONE;
    r->edges = edges;
    r->edge_slots = slots;
    for (uint32_t i = 0; i < old_slots; i++)
        if (old[i].node != MP_TOPIC_NONE)
            edges[edge_slot(r, old[i].node, old[i].word)] = old[i];
    mp_alloc_free(t->alloc, old, old_slots * sizeof(*old));
    return MP_OK;
}

static void edge_remove(struct mp_topic_trie *r, uint32_t node, uint32_t word)
{
    uint32_t hole = edge_slot(r, node, word);
    uint32_t mask = r->edge_slots - 1;
    mp_assert(r->edges[hole].node == node);
    /* close the gap in the probe sequences */
    for (uint32_t next = (hole + 1) & mask; r->edges[next].node != MP_TOPIC_NONE;
         next = (next + 1) & mask) {
        uint32_t home = edge_home(r, r->edges[next].node, r->edges[next].word);
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            r->edges[hole] = r->edges[next];
            hole = next;
        }
    }
    r->edges[hole].node = MP_TOPIC_NONE;
    r->edge_count--;
}

static uint32_t literal_child(const struct mp_topic_trie *r, uint32_t node, uint32_t word)
{
    if (r->edge_count == 0)
        return MP_TOPIC_NONE;
    const struct mp_topic_edge *e = &r->edges[edge_slot(r, node, word)];
    return e->node == MP_TOPIC_NONE ? MP_TOPIC_NONE : e->child;
}

/* --- nodes --- */

static enum mp_err nodes_reserve(struct mp_topic *t)
{
    struct mp_topic_trie *r = &t->trie;
    uint32_t wanted = r->node_count + 1;
    MP_TRY(mp_topic_grow(t->alloc, (void **)&r->nodes, &r->node_capacity, wanted,
                         sizeof(struct mp_topic_node *)));
    MP_TRY(mp_topic_grow(t->alloc, (void **)&r->free_nodes, &r->free_node_capacity, wanted,
                         sizeof(*r->free_nodes)));
    for (uint32_t i = 0; i < 2; i++)
        MP_TRY(mp_topic_grow(t->alloc, (void **)&r->sets[i], &r->set_capacity[i], wanted,
                             sizeof(uint32_t)));
    return MP_OK;
}

static enum mp_err node_new(struct mp_topic *t, uint32_t parent, uint32_t word, uint32_t *place)
{
    struct mp_topic_trie *r = &t->trie;
    if (r->free_node_count == 0)
        MP_TRY(nodes_reserve(t));
    struct mp_topic_node *n = mp_alloc_take(t->alloc, sizeof(*n));
    if (!n)
        return MP_ENOMEM;
    *n = (struct mp_topic_node){
        .parent = parent, .word = word, .star = MP_TOPIC_NONE, .hash = MP_TOPIC_NONE};
    mp_topic_list_init(&n->entries);
    *place = r->free_node_count != 0 ? r->free_nodes[--r->free_node_count] : r->node_count++;
    r->nodes[*place] = n;
    return MP_OK;
}

static enum mp_err literal_new(struct mp_topic *t, uint32_t parent, struct mp_slice text,
                               uint32_t *child)
{
    struct mp_topic_trie *r = &t->trie;
    uint32_t word;
    MP_TRY(edges_reserve(t));
    MP_TRY(word_take(t, text, &word));
    enum mp_err err = node_new(t, parent, word, child);
    if (err != MP_OK) {
        word_release(t, word);
        return err;
    }
    r->edges[edge_slot(r, parent, word)] =
        (struct mp_topic_edge){.node = parent, .word = word, .child = *child};
    r->edge_count++;
    r->nodes[parent]->literals++;
    return MP_OK;
}

/* The child of a node for a word of a pattern, made if there is none. */
static enum mp_err child_of(struct mp_topic *t, uint32_t parent, struct mp_slice text,
                            uint32_t *child)
{
    struct mp_topic_trie *r = &t->trie;
    uint32_t word;
    if (mp_slice_is(text, "*")) {
        *child = r->nodes[parent]->star;
        if (*child == MP_TOPIC_NONE) {
            MP_TRY(node_new(t, parent, WORD_STAR, child));
            r->nodes[parent]->star = *child;
        }
        return MP_OK;
    }
    if (mp_slice_is(text, "#")) {
        *child = r->nodes[parent]->hash;
        if (*child == MP_TOPIC_NONE) {
            MP_TRY(node_new(t, parent, WORD_HASH, child));
            r->nodes[parent]->hash = *child;
        }
        return MP_OK;
    }
    *child = mp_map_get(&r->by_word, text, &word) ? literal_child(r, parent, word) : MP_TOPIC_NONE;
    return *child != MP_TOPIC_NONE ? MP_OK : literal_new(t, parent, text, child);
}

/* Removes a node and those above it for as long as nothing needs them. */
static void prune(struct mp_topic *t, uint32_t place)
{
    struct mp_topic_trie *r = &t->trie;
    while (place != ROOT) {
        struct mp_topic_node *n = r->nodes[place];
        if (!mp_topic_list_is_empty(&n->entries) || n->star != MP_TOPIC_NONE ||
            n->hash != MP_TOPIC_NONE || n->literals != 0)
            return;
        mp_assert(n->clients == 0 && !n->client_link.next);
        uint32_t parent = n->parent;
        if (n->word == WORD_STAR) {
            r->nodes[parent]->star = MP_TOPIC_NONE;
        } else if (n->word == WORD_HASH) {
            r->nodes[parent]->hash = MP_TOPIC_NONE;
        } else {
            edge_remove(r, parent, n->word);
            r->nodes[parent]->literals--;
            word_release(t, n->word);
        }
        mp_alloc_free(t->alloc, n, sizeof(*n));
        r->nodes[place] = NULL;
        r->free_nodes[r->free_node_count++] = place;
        place = parent;
    }
}

/* --- patterns come and go --- */

void mp_topic_trie_init(struct mp_topic *t)
{
    t->trie = (struct mp_topic_trie){.word_free = MP_TOPIC_NONE, .generation = 1};
    mp_map_init(&t->trie.by_word, t->alloc);
    mp_topic_list_init(&t->trie.clients);
}

void mp_topic_trie_fini(struct mp_topic *t)
{
    struct mp_topic_trie *r = &t->trie;
    mp_assert(r->entry_count == 0);
    if (r->node_count != 0)
        mp_alloc_free(t->alloc, r->nodes[ROOT], sizeof(struct mp_topic_node));
    mp_alloc_free(t->alloc, r->nodes, r->node_capacity * sizeof(struct mp_topic_node *));
    mp_alloc_free(t->alloc, r->free_nodes, r->free_node_capacity * sizeof(uint32_t));
    mp_alloc_free(t->alloc, r->words, r->word_capacity * sizeof(*r->words));
    mp_map_fini(&r->by_word);
    mp_alloc_free(t->alloc, r->edges, r->edge_slots * sizeof(*r->edges));
    for (uint32_t i = 0; i < 2; i++)
        mp_alloc_free(t->alloc, r->sets[i], r->set_capacity[i] * sizeof(uint32_t));
    mp_alloc_free(t->alloc, r->matches, r->match_capacity * sizeof(struct mp_topic_sink *));
}

static struct mp_slice next_word(struct mp_slice text, size_t *at)
{
    size_t start = *at;
    size_t end = start;
    while (end < text.size && text.data[end] != '.')
        end++;
    *at = end + 1;
    return mp_slice_of(text.data + start, end - start);
}

static enum mp_err node_of(struct mp_topic *t, struct mp_slice pattern, uint32_t *node)
{
    uint32_t place = ROOT;
    if (t->trie.node_count == 0)
        MP_TRY(node_new(t, MP_TOPIC_NONE, MP_TOPIC_NONE, &place));
    for (size_t at = 0; at <= pattern.size;) {
        uint32_t child;
        enum mp_err err = child_of(t, place, next_word(pattern, &at), &child);
        if (err != MP_OK) {
            prune(t, place);
            return err;
        }
        place = child;
    }
    *node = place;
    return MP_OK;
}

enum mp_err mp_topic_trie_add(struct mp_topic *t, struct mp_slice pattern, struct mp_topic_entry *e)
{
    struct mp_topic_trie *r = &t->trie;
    if (r->entry_count == MP_TOPIC_PATTERNS_MAX)
        return MP_EFULL;
    MP_TRY(mp_topic_grow(t->alloc, (void **)&r->matches, &r->match_capacity, r->entry_count + 1,
                         sizeof(struct mp_topic_sink *)));
    MP_TRY(node_of(t, pattern, &e->node));
    struct mp_topic_node *n = r->nodes[e->node];
    mp_topic_list_add(&n->entries, &e->link);
    if (e->sink->kind == MP_TOPIC_SINK_CLIENT && n->clients++ == 0) {
        mp_topic_list_add(&r->clients, &n->client_link);
        r->client_nodes++;
        r->client_bytes += pattern.size;
        t->is_interest_changed = true;
    }
    r->entry_count++;
    r->generation++;
    return MP_OK;
}

void mp_topic_trie_remove(struct mp_topic *t, struct mp_topic_entry *e)
{
    struct mp_topic_trie *r = &t->trie;
    struct mp_topic_node *n = r->nodes[e->node];
    mp_topic_list_remove(&e->link);
    if (e->sink->kind == MP_TOPIC_SINK_CLIENT && --n->clients == 0) {
        uint8_t room[MP_TOPIC_BYTES_MAX];
        mp_topic_list_remove(&n->client_link);
        r->client_nodes--;
        r->client_bytes -= mp_topic_trie_pattern(r, e->node, room);
        t->is_interest_changed = true;
    }
    prune(t, e->node);
    r->entry_count--;
    r->generation++;
}

static struct mp_slice word_text(const struct mp_topic_trie *r, uint32_t word)
{
    if (word == WORD_STAR)
        return mp_slice_str("*");
    if (word == WORD_HASH)
        return mp_slice_str("#");
    return mp_slice_of(r->words[word].bytes, r->words[word].size);
}

size_t mp_topic_trie_pattern(const struct mp_topic_trie *r, uint32_t node, uint8_t *room)
{
    size_t start = MP_TOPIC_BYTES_MAX;
    for (; node != ROOT; node = r->nodes[node]->parent) {
        struct mp_slice text = word_text(r, r->nodes[node]->word);
        if (start != MP_TOPIC_BYTES_MAX)
            room[--start] = '.';
        mp_assert(start >= text.size);
        start -= text.size;
        memcpy(room + start, text.data, text.size);
    }
    memmove(room, room + start, MP_TOPIC_BYTES_MAX - start);
    return MP_TOPIC_BYTES_MAX - start;
}

/* --- matching --- */

/* Adds a node to the set that is being made, and what it leads to by `#` for no word. */
static uint32_t enter(struct mp_topic_trie *r, uint32_t *set, uint32_t count, uint32_t place)
{
    while (place != MP_TOPIC_NONE) {
        struct mp_topic_node *n = r->nodes[place];
        if (n->mark == r->mark)
            break;
        n->mark = r->mark;
        set[count++] = place;
        place = n->hash;
    }
    return count;
}

static uint32_t walk(struct mp_topic_trie *r, const uint32_t *from, uint32_t from_count,
                     uint32_t *to, struct mp_slice text)
{
    uint32_t count = 0;
    uint32_t word;
    bool is_known = mp_map_get(&r->by_word, text, &word);
    r->mark++;
    for (uint32_t i = 0; i < from_count; i++) {
        const struct mp_topic_node *n = r->nodes[from[i]];
        if (n->word == WORD_HASH)
            count = enter(r, to, count, from[i]);
        count = enter(r, to, count, n->star);
        if (is_known && n->literals != 0)
            count = enter(r, to, count, literal_child(r, from[i], word));
    }
    return count;
}

static uint32_t collect(struct mp_topic_trie *r, const uint32_t *set, uint32_t set_count)
{
    uint32_t count = 0;
    r->match_mark++;
    for (uint32_t i = 0; i < set_count; i++) {
        struct mp_topic_node *n = r->nodes[set[i]];
        for (struct mp_topic_link *l = n->entries.next; l != &n->entries; l = l->next) {
            struct mp_topic_sink *s = MP_TOPIC_OF(l, struct mp_topic_entry, link)->sink;
            if (s->mark == r->match_mark)
                continue;
            s->mark = r->match_mark;
            r->matches[count++] = s;
        }
    }
    return count;
}

uint32_t mp_topic_trie_match(struct mp_topic *t, struct mp_slice topic)
{
    struct mp_topic_trie *r = &t->trie;
    if (r->entry_count == 0)
        return 0;
    r->mark++;
    uint32_t count = enter(r, r->sets[0], 0, ROOT);
    uint32_t which = 0;
    for (size_t at = 0; at <= topic.size && count != 0; which ^= 1)
        count = walk(r, r->sets[which], count, r->sets[which ^ 1], next_word(topic, &at));
    count = collect(r, r->sets[which], count);
    mp_assert(count <= r->entry_count);
    return count;
}
