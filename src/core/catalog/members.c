/* Nodes, their resources, and those that are forgotten. A node whose state is not LIVE keeps its
 * entry: it tells who had what, and digests of nodes that disagree on its state are still equal.
 *
 * Resources are numbered, and a node's are a sorted list of numbers, so that to find providers is a
 * matter of comparing integers. A number is free again when no node has the resource.
 *
 * A forgotten node leaves a tombstone: the same stamp of it or an older one is refused until
 * membership lists it again. If it lives, the same stamp is good (it was forgotten in error, and
 * will not raise its stamp by itself) and an older one is not. */
#include "src/base/assert.h"
#include "src/base/defects.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"

/* --- sorted lists of numbers --- */

static void sift_down(const struct mp_catalog *c, mp_catalog_is_after *after, uint32_t *items,
                      uint32_t i, uint32_t count)
{
    for (uint32_t child = 2 * i + 1; child < count; child = 2 * i + 1) {
        if (child + 1 < count && after(c, items[child + 1], items[child]))
            child++;
        if (!after(c, items[child], items[i]))
            return;
        uint32_t moved = items[i];
        items[i] = items[child];
        items[child] = moved;
        i = child;
    }
}

void mp_catalog_sort(const struct mp_catalog *c, uint32_t *items, uint32_t count,
                     mp_catalog_is_after *after)
{
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(c, after, items, i, count);
    for (uint32_t last = count; last-- > 1;) {
        uint32_t largest = items[0];
        items[0] = items[last];
        items[last] = largest;
        sift_down(c, after, items, 0, last);
    }
}

static bool is_greater(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    (void)c;
    return a > b;
}

void mp_catalog_sort_numbers(const struct mp_catalog *c, uint32_t *items, uint32_t count)
{
    mp_catalog_sort(c, items, count, is_greater);
}

uint32_t mp_catalog_sort_unique(const struct mp_catalog *c, uint32_t *items, uint32_t count)
{
    uint32_t kept = 0;
    mp_catalog_sort_numbers(c, items, count);
    for (uint32_t i = 0; i < count; i++)
        if (kept == 0 || items[kept - 1] != items[i])
            items[kept++] = items[i];
    return kept;
}

uint32_t mp_catalog_search(const uint32_t *items, uint32_t count, uint32_t item)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (items[middle] < item)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* --- names in blocks of their own --- */

static enum mp_err copy_name(struct mp_catalog *c, struct mp_slice name, struct mp_slice *out)
{
    mp_assert(name.size != 0);
    uint8_t *block = mp_alloc_take(c->alloc, name.size);
    if (!block)
        return MP_ENOMEM;
    memcpy(block, name.data, name.size);
    *out = mp_slice_of(block, name.size);
    return MP_OK;
}

static void free_name(struct mp_catalog *c, struct mp_slice *name)
{
    mp_alloc_free(c->alloc, (void *)(uintptr_t)name->data, name->size);
    *name = mp_slice_of(NULL, 0);
}

/* --- resources --- */

enum mp_err mp_catalog_use_resource(struct mp_catalog *c, struct mp_slice name, uint32_t *resource)
{
    if (mp_map_get(&c->by_resource, name, resource)) {
        c->resources[*resource].uses++;
        return MP_OK;
    }
    uint32_t place = c->resource_free != MP_CATALOG_NONE ? c->resource_free : c->resource_count;
    struct mp_slice copy;
    enum mp_err err = mp_catalog_grow(c->alloc, (void **)&c->resources, &c->resource_capacity,
                                      place + 1, sizeof(*c->resources));
    if (err == MP_OK)
        err = copy_name(c, name, &copy);
    if (err != MP_OK)
        return err;
    err = mp_map_set(&c->by_resource, copy, place);
    if (err != MP_OK) {
        free_name(c, &copy);
        return err;
    }
    if (place == c->resource_count)
        c->resource_count++;
    else
        c->resource_free = c->resources[place].next_free;
    c->resources[place] =
        (struct mp_catalog_resource){.name = copy, .uses = 1, .next_free = MP_CATALOG_NONE};
    *resource = place;
    return MP_OK;
}

void mp_catalog_release_resource(struct mp_catalog *c, uint32_t resource)
{
    struct mp_catalog_resource *r = &c->resources[resource];
    mp_assert(r->uses != 0);
    if (--r->uses != 0)
        return;
    (void)mp_map_remove(&c->by_resource, r->name);
    free_name(c, &r->name);
    r->next_free = c->resource_free;
    c->resource_free = resource;
}

bool mp_catalog_has_resource(const struct mp_catalog *c, uint32_t node, uint32_t resource)
{
    const struct mp_catalog_member *m = &c->members[node];
    uint32_t at = mp_catalog_search(m->resources, m->resource_count, resource);
    return at < m->resource_count && m->resources[at] == resource;
}

bool mp_catalog_has_named(const struct mp_catalog *c, uint32_t node, struct mp_slice resource)
{
    uint32_t number;
    return mp_map_get(&c->by_resource, resource, &number) &&
           mp_catalog_has_resource(c, node, number);
}

/* --- digests --- */

int mp_catalog_compare_stamps(uint64_t generation_a, uint64_t counter_a, uint64_t generation_b,
                              uint64_t counter_b)
{
    if (generation_a != generation_b)
        return generation_a < generation_b ? -1 : 1;
    return (counter_a > counter_b) - (counter_a < counter_b);
}

/* The finish of splitmix64: each bit of the stamp matters to each bit of the sum. */
static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

static uint64_t fingerprint(const struct mp_catalog_member *m)
{
    return mix(mix(mp_slice_hash(m->name, 1) + m->generation) + m->counter);
}

static uint64_t *bucket_of(struct mp_catalog *c, const struct mp_catalog_member *m)
{
    return &c->digests[mp_slice_hash(m->name, 0) % MP_CATALOG_BUCKETS];
}

void mp_catalog_count_in(struct mp_catalog *c, uint32_t node)
{
    *bucket_of(c, &c->members[node]) += fingerprint(&c->members[node]);
}

void mp_catalog_count_out(struct mp_catalog *c, uint32_t node)
{
    *bucket_of(c, &c->members[node]) -= fingerprint(&c->members[node]);
}

/* --- tombstones --- */

bool mp_catalog_is_stale(const struct mp_catalog *c, struct mp_slice owner, uint64_t generation,
                         uint64_t counter)
{
    uint32_t place;
    uint32_t node;
    if (!mp_map_get(&c->by_tombstone, owner, &place) ||
        mp_has_defect(c->defects, MP_DEFECT_STALE_TOMBSTONE))
        return false;
    const struct mp_catalog_tombstone *t = &c->tombstones[place];
    int order = mp_catalog_compare_stamps(generation, counter, t->generation, t->counter);
    if (!mp_map_get(&c->by_member, owner, &node))
        return order <= 0;
    /* Who is listed as dead offers nothing, so an old entry does no harm; refused, it would make
     * the digests of two nodes differ for ever. */
    return order < 0 && mp_catalog_is_live(c, node);
}

void mp_catalog_drop_tombstone(struct mp_catalog *c, struct mp_slice owner)
{
    uint32_t place;
    if (!mp_map_get(&c->by_tombstone, owner, &place))
        return;
    (void)mp_map_remove(&c->by_tombstone, owner);
    free_name(c, &c->tombstones[place].name);
}

/* Moves the name of a node, which is about to be forgotten, into a tombstone. */
static enum mp_err bury(struct mp_catalog *c, struct mp_catalog_member *m)
{
    uint32_t place = c->tombstone_count;
    if (place == MP_CATALOG_TOMBSTONES_MAX)
        place = c->tombstone_next;
    enum mp_err err = mp_catalog_grow(c->alloc, (void **)&c->tombstones, &c->tombstone_capacity,
                                      place + 1, sizeof(*c->tombstones));
    if (err != MP_OK)
        return err;
    mp_catalog_drop_tombstone(c, m->name);
    bool is_new = place == c->tombstone_count;
    if (!is_new && c->tombstones[place].name.size != 0)
        mp_catalog_drop_tombstone(c, c->tombstones[place].name);
    err = mp_map_set(&c->by_tombstone, m->name, place);
    if (err != MP_OK)
        return err;
    c->tombstones[place] = (struct mp_catalog_tombstone){
        .name = m->name, .generation = m->generation, .counter = m->counter};
    c->tombstone_count += is_new;
    if (!is_new)
        c->tombstone_next = (c->tombstone_next + 1) % MP_CATALOG_TOMBSTONES_MAX;
    return MP_OK;
}

/* --- members --- */

static enum mp_err grow_members(struct mp_catalog *c, uint32_t wanted)
{
    uint32_t before = c->member_capacity;
    if (wanted <= before)
        return MP_OK;
    /* By a 16th, not by doubling: members are many and large. */
    uint32_t capacity = wanted + wanted / 16 + 3;
    void *grown = c->alloc->resize(c->alloc->context, c->members, before * sizeof(*c->members),
                                   capacity * sizeof(*c->members));
    if (!grown)
        return MP_ENOMEM;
    c->members = (struct mp_catalog_member *)grown;
    c->member_capacity = capacity;
    memset(c->members + before, 0, (capacity - before) * sizeof(*c->members));
    return MP_OK;
}

enum mp_err mp_catalog_set_member(struct mp_catalog *c, mp_time now,
                                  const struct mp_catalog_event *ev, bool *changed)
{
    uint32_t node = ev->node.number;
    struct mp_slice name;
    mp_assert(node < MP_CATALOG_NODES_MAX && ev->node.name.size != 0);
    *changed = false;
    enum mp_err err = grow_members(c, node + 1);
    if (err != MP_OK)
        return err;
    struct mp_catalog_member *m = &c->members[node];
    if (m->name.size != 0) {
        mp_assert(mp_slice_equal(m->name, ev->node.name)); /* GONE comes before another name */
        m->listed = ev->node.generation;
        if (m->state == ev->node.state || node == MP_CATALOG_SELF)
            return MP_OK;
        m->state = ev->node.state;
        m->since = now;
        if (m->state != MP_CATALOG_NODE_LIVE ||
            !mp_has_defect(c->defects, MP_DEFECT_INTEREST_FORGOTTEN))
            mp_catalog_note_interest(c, node);
        *changed = m->has_entry;
        return MP_OK;
    }
    uint32_t other;
    if (mp_map_get(&c->by_member, ev->node.name, &other))
        return MP_OK; /* a namesake, of this node at most: membership is about to settle it */
    err = copy_name(c, ev->node.name, &name);
    if (err != MP_OK)
        return err;
    err = mp_map_set(&c->by_member, name, node);
    if (err != MP_OK) {
        free_name(c, &name);
        return err;
    }
    *m = (struct mp_catalog_member){
        .name = name, .state = ev->node.state, .since = now, .listed = ev->node.generation};
    return MP_OK;
}

void mp_catalog_clear_entry(struct mp_catalog *c, uint32_t node)
{
    struct mp_catalog_member *m = &c->members[node];
    if (!m->has_entry)
        return;
    mp_catalog_count_out(c, node);
    for (uint32_t i = 0; i < m->module_count; i++)
        mp_catalog_remove_holder(c, m->modules[i], node);
    for (uint32_t i = 0; i < m->resource_count; i++)
        mp_catalog_release_resource(c, m->resources[i]);
    mp_alloc_free(c->alloc, m->block, m->block_size);
    *m = (struct mp_catalog_member){.name = m->name,
                                    .state = m->state,
                                    .since = m->since,
                                    .listed = m->listed,
                                    .has_news = m->has_news};
}

enum mp_err mp_catalog_forget_member(struct mp_catalog *c, uint32_t node, bool *changed)
{
    *changed = false;
    if (node == MP_CATALOG_SELF || node >= c->member_capacity || c->members[node].name.size == 0)
        return MP_OK;
    struct mp_catalog_member *m = &c->members[node];
    *changed = m->has_entry;
    /* Without memory for a tombstone it goes without one: its number may be another's next. */
    bool is_buried = m->has_entry && bury(c, m) == MP_OK;
    (void)mp_map_remove(&c->by_member, m->name);
    mp_catalog_clear_entry(c, node);
    c->news_count -= m->has_news;
    if (!is_buried)
        free_name(c, &m->name);
    *m = (struct mp_catalog_member){0};
    return MP_OK;
}

/* --- topics --- */

void mp_catalog_note_interest(struct mp_catalog *c, uint32_t node)
{
    c->news_count += !c->members[node].has_news;
    c->members[node].has_news = true;
    if (node < c->news_first)
        c->news_first = node;
}

bool mp_catalog_take_interest(struct mp_catalog *c, struct mp_catalog_interest *out)
{
    if (c->news_count == 0)
        return false;
    uint32_t i = c->news_first;
    while (!c->members[i].has_news)
        i++;
    struct mp_catalog_member *m = &c->members[i];
    c->news_first = i + 1;
    c->news_count--;
    m->has_news = false;
    *out = (struct mp_catalog_interest){.node = i, .is_live = mp_catalog_is_live(c, i)};
    if (out->is_live)
        out->topics = m->said.topics;
    return true;
}

void mp_catalog_free_members(struct mp_catalog *c)
{
    for (uint32_t i = 0; i < c->member_capacity; i++) {
        struct mp_catalog_member *m = &c->members[i];
        if (i == MP_CATALOG_SELF) {
            mp_alloc_free(c->alloc, m->modules, m->module_capacity * sizeof(*m->modules));
            mp_alloc_free(c->alloc, m->resources, m->block_size);
        } else {
            mp_alloc_free(c->alloc, m->block, m->block_size);
        }
        free_name(c, &m->name);
    }
    for (uint32_t i = 0; i < c->resource_count; i++)
        free_name(c, &c->resources[i].name);
    for (uint32_t i = 0; i < c->tombstone_count; i++)
        free_name(c, &c->tombstones[i].name);
    mp_alloc_free(c->alloc, c->members, c->member_capacity * sizeof(*c->members));
    mp_alloc_free(c->alloc, c->resources, c->resource_capacity * sizeof(*c->resources));
    mp_alloc_free(c->alloc, c->tombstones, c->tombstone_capacity * sizeof(*c->tombstones));
    mp_map_fini(&c->by_member);
    mp_map_fini(&c->by_resource);
    mp_map_fini(&c->by_tombstone);
}
