/* The catalog's life, and this node's own entry, which grows with each module that is added. It is
 * never taken from others: whoever claims to know a newer one is passed over, and membership deals
 * with nodes of one name. Its stamp rises with each change, so every copy elsewhere is older. */
#include "src/core/catalog/catalog.h"

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"

#define NEWS_BYTES_MAX 160u

/* What mp_catalog_write_news() writes: an array, the name, two numbers. */
static_assert(1 + 2 + 64 + 9 + 9 <= NEWS_BYTES_MAX, "news fit into a datagram beside others");

static struct mp_catalog_member *self_of(struct mp_catalog *c)
{
    return &c->members[MP_CATALOG_SELF];
}

/* --- life --- */

static enum mp_err copy_into(struct mp_catalog *c, struct mp_slice source, struct mp_slice *target)
{
    *target = mp_slice_of(c->names.data + c->names.size, source.size);
    return mp_buf_append(&c->names, source);
}

/* What the node says of itself, into one buffer that does not move any more. */
static enum mp_err copy_names(struct mp_catalog *c, const struct mp_catalog_config *cfg)
{
    size_t total = cfg->node.size + cfg->cluster.size + cfg->version.size + 16;
    for (uint32_t i = 0; i < cfg->resource_count; i++)
        total += cfg->resources[i].size + 5;
    enum mp_err err = mp_buf_reserve(&c->names, total);
    if (err == MP_OK)
        err = copy_into(c, cfg->node, &c->node);
    if (err == MP_OK)
        err = copy_into(c, cfg->cluster, &c->cluster);
    struct mp_catalog_about *said = err == MP_OK ? &self_of(c)->said : NULL;
    if (err == MP_OK)
        err = copy_into(c, cfg->version, &said->version);
    size_t start = c->names.size;
    if (err == MP_OK)
        err = mp_mp_put_array(&c->names, cfg->resource_count);
    for (uint32_t i = 0; err == MP_OK && i < cfg->resource_count; i++)
        err = mp_mp_put_str(&c->names, cfg->resources[i]);
    if (err != MP_OK)
        return err;
    said->workers = cfg->workers;
    said->resources = mp_slice_of(c->names.data + start, c->names.size - start);
    return MP_OK;
}

static enum mp_err use_resources(struct mp_catalog *c, const struct mp_catalog_config *cfg)
{
    struct mp_catalog_member *self = self_of(c);
    if (cfg->resource_count == 0)
        return MP_OK;
    self->block_size = cfg->resource_count * sizeof(*self->resources);
    self->resources = mp_alloc_take(c->alloc, self->block_size);
    if (!self->resources)
        return MP_ENOMEM;
    for (uint32_t i = 0; i < cfg->resource_count; i++) {
        enum mp_err err =
            mp_catalog_use_resource(c, cfg->resources[i], &self->resources[self->resource_count]);
        if (err != MP_OK)
            return err;
        self->resource_count++;
    }
    self->resource_count = mp_catalog_sort_unique(c, self->resources, self->resource_count);
    return MP_OK;
}

/* Two nodes that claim one name in one generation begin their entries at different counters, so
 * that their stamps differ and each hears of the other's. */
static uint64_t first_counter(uint64_t seed)
{
    return 1 + (seed >> 34);
}

static enum mp_err init_self(struct mp_catalog *c, const struct mp_catalog_config *cfg,
                             uint64_t seed)
{
    const struct mp_catalog_event ev = {
        .kind = MP_CATALOG_NODE,
        .node = {MP_CATALOG_SELF, cfg->node, MP_CATALOG_NODE_LIVE},
    };
    bool changed;
    enum mp_err err = mp_buf_reserve(&c->news, NEWS_BYTES_MAX);
    if (err == MP_OK)
        err = mp_catalog_set_member(c, 0, &ev, &changed);
    if (err == MP_OK)
        err = copy_names(c, cfg);
    if (err == MP_OK)
        err = use_resources(c, cfg);
    if (err != MP_OK)
        return err;
    self_of(c)->generation = cfg->generation;
    self_of(c)->counter = first_counter(seed);
    self_of(c)->has_entry = true;
    mp_catalog_count_in(c, MP_CATALOG_SELF);
    return MP_OK;
}

enum mp_err mp_catalog_init(struct mp_catalog *c, const struct mp_catalog_config *cfg,
                            struct mp_alloc *a, uint64_t seed)
{
    *c = (struct mp_catalog){.alloc = a, .defects = cfg->defects, .resource_free = MP_CATALOG_NONE};
    struct mp_map *maps[] = {&c->by_name,   &c->pipelines,   &c->identities,  &c->by_hash,
                             &c->by_member, &c->by_resource, &c->by_tombstone};
    for (size_t i = 0; i < sizeof(maps) / sizeof(*maps); i++)
        mp_map_init(maps[i], a);
    mp_buf_init(&c->names, a, 0);
    mp_buf_init(&c->news, a, 0);
    mp_buf_init(&c->topics, a, 0);
    bool is_good = cfg->node.size != 0 && cfg->resource_count <= MP_CATALOG_RESOURCES_MAX &&
                   cfg->version.size <= MP_VERSION_BYTES_MAX;
    enum mp_err err = is_good ? init_self(c, cfg, seed) : MP_EINVAL;
    if (err != MP_OK)
        mp_catalog_fini(c);
    return err;
}

void mp_catalog_fini(struct mp_catalog *c)
{
    if (!c->alloc)
        return;
    mp_catalog_free_members(c);
    mp_catalog_free_modules(c);
    mp_buf_fini(&c->names);
    mp_buf_fini(&c->news);
    mp_buf_fini(&c->topics);
    *c = (struct mp_catalog){0};
}

mp_time mp_catalog_deadline(const struct mp_catalog *c)
{
    (void)c;
    return MP_NEVER;
}

/* --- effects --- */

static void tell(struct mp_catalog_effects *out, enum mp_catalog_effect_kind kind, const char *why)
{
    mp_assert(out->count < MP_CATALOG_EFFECTS_MAX);
    out->items[out->count++] = (struct mp_catalog_effect){.kind = kind, .why = why};
}

static void announce(struct mp_catalog *c, struct mp_catalog_effects *out)
{
    mp_catalog_write_news(c);
    mp_assert(c->news.size <= NEWS_BYTES_MAX);
    tell(out, MP_CATALOG_ANNOUNCE, NULL);
    out->items[out->count - 1].news = mp_buf_slice(&c->news);
}

/* --- adding a module --- */

/* The module of that name and version which this node has, or NULL. */
static const struct mp_catalog_module *same_version(struct mp_catalog *c,
                                                    const struct mp_catalog_identity *i)
{
    const struct mp_catalog_member *self = self_of(c);
    struct mp_version version;
    enum mp_err err = mp_version_read(i->version, &version);
    mp_assert(err == MP_OK);
    for (uint32_t k = 0; k < self->module_count; k++) {
        const struct mp_catalog_module *m = &c->modules[self->modules[k]];
        if (mp_slice_equal(m->name, i->name) && mp_version_compare(&m->version, &version) == 0)
            return m;
    }
    return NULL;
}

/* Why a module is not added; NULL if it may be. */
static const char *check_new(struct mp_catalog *c, const struct mp_catalog_identity *i,
                             struct mp_slice metadata)
{
    const char *why = mp_catalog_check_identity(c, i);
    if (why)
        return why;
    const struct mp_catalog_module *same = same_version(c, i);
    if (same) {
        struct mp_text text;
        mp_text_init(&text, c->why, sizeof(c->why));
        mp_text_put(&text, "version ");
        mp_text_put_slice(&text, i->version);
        mp_text_put(&text, mp_slice_equal(same->hash, i->hash)
                               ? " is loaded already, with the same content"
                               : " is loaded already, with other content: the first one stays");
        return c->why;
    }
    if (metadata.size == 0)
        return "nothing describes it";
    why = mp_catalog_check_functions(c, metadata);
    if (why)
        return why;
    uint32_t known;
    if (mp_catalog_get_module(c, i, &known) && c->modules[known].metadata.size != 0 &&
        !mp_catalog_has_functions(c, known, metadata))
        return "another node describes the same content with other functions";
    return NULL;
}

/* A module that nobody knew, described; or none. */
static enum mp_err add_described(struct mp_catalog *c, const struct mp_catalog_identity *i,
                                 struct mp_slice metadata, uint32_t *module)
{
    bool is_new = !mp_catalog_get_module(c, i, module);
    enum mp_err err = is_new ? mp_catalog_new_module(c, i, module) : MP_OK;
    if (err != MP_OK)
        return err;
    err = mp_catalog_reserve_holder(c, *module);
    if (err == MP_OK && c->modules[*module].metadata.size == 0)
        err = mp_catalog_describe(c, *module, metadata);
    /* One in the place of another stays, unheld, until its place is needed. */
    if (err != MP_OK && is_new && *module == c->module_count - 1)
        mp_catalog_drop_module(c);
    return err;
}

static enum mp_err add(struct mp_catalog *c, const struct mp_catalog_event *ev,
                       struct mp_catalog_effects *out)
{
    struct mp_catalog_member *self = self_of(c);
    const struct mp_catalog_identity i =
        mp_catalog_identity_of(ev->add.name, ev->add.hash, ev->add.metadata);
    const char *why = check_new(c, &i, ev->add.metadata);
    uint32_t module;
    enum mp_err err = MP_OK;
    if (!why) {
        err = mp_catalog_grow(c->alloc, (void **)&self->modules, &self->module_capacity,
                              self->module_count + 1, sizeof(*self->modules));
        if (err == MP_OK)
            err = add_described(c, &i, ev->add.metadata, &module);
        if (err == MP_EFULL)
            why = "there are too many modules";
        else if (err != MP_OK)
            return err;
    }
    if (why) {
        tell(out, MP_CATALOG_REFUSED, why);
        return MP_OK;
    }
    c->modules[module].host_module = ev->add.host_module;
    mp_catalog_add_holder(c, module, MP_CATALOG_SELF);
    mp_catalog_count_out(c, MP_CATALOG_SELF);
    self->modules[self->module_count++] = module;
    self->counter++;
    mp_catalog_count_in(c, MP_CATALOG_SELF);
    tell(out, MP_CATALOG_CHANGED, NULL);
    announce(c, out);
    return MP_OK;
}

/* --- the other events --- */

static enum mp_err set_topics(struct mp_catalog *c, struct mp_slice topics,
                              struct mp_catalog_effects *out)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_catalog_member *self = self_of(c);
    mp_assert(mp_mp_get_array(topics, &count, &r) == MP_OK && count <= MP_TOPIC_INTEREST_MAX);
    if (count == 0)
        topics = (struct mp_slice){0};
    if (mp_slice_equal(topics, self->said.topics))
        return MP_OK;
    if (topics.size > c->topics.size)
        MP_TRY(mp_buf_reserve(&c->topics, topics.size - c->topics.size));
    mp_buf_clear(&c->topics);
    enum mp_err err = mp_buf_append(&c->topics, topics);
    mp_assert(err == MP_OK); /* there is room */
    self->said.topics = mp_buf_slice(&c->topics);
    mp_catalog_count_out(c, MP_CATALOG_SELF);
    self->counter++;
    mp_catalog_count_in(c, MP_CATALOG_SELF);
    announce(c, out);
    return MP_OK;
}

static void raise_generation(struct mp_catalog *c, uint64_t generation,
                             struct mp_catalog_effects *out)
{
    if (generation <= self_of(c)->generation)
        return;
    mp_catalog_count_out(c, MP_CATALOG_SELF);
    self_of(c)->generation = generation;
    mp_catalog_count_in(c, MP_CATALOG_SELF);
    announce(c, out);
}

static enum mp_err merge(struct mp_catalog *c, struct mp_slice bytes,
                         struct mp_catalog_effects *out)
{
    struct mp_catalog_merged merged = {0};
    enum mp_err err = mp_catalog_merge(c, bytes, &merged);
    if (merged.is_changed)
        tell(out, MP_CATALOG_CHANGED, NULL);
    if (merged.is_outdone)
        announce(c, out);
    if (merged.is_missing)
        tell(out, MP_CATALOG_MISSING, NULL);
    if (merged.dropped)
        tell(out, MP_CATALOG_DROPPED, merged.dropped);
    return err;
}

enum mp_err mp_catalog_step(struct mp_catalog *c, mp_time now, const struct mp_catalog_event *ev,
                            struct mp_catalog_effects *out)
{
    bool changed = false;
    const char *why = NULL;
    enum mp_err err = MP_OK;
    out->count = 0;
    switch (ev->kind) {
    case MP_CATALOG_ADD:
        return add(c, ev, out);
    case MP_CATALOG_NODE:
        err = mp_catalog_set_member(c, now, ev, &changed);
        break;
    case MP_CATALOG_NODE_GONE:
        err = mp_catalog_forget_member(c, ev->number, &changed);
        break;
    case MP_CATALOG_ENTRIES:
        return merge(c, ev->entries.bytes, out);
    case MP_CATALOG_GENERATION:
        raise_generation(c, ev->generation, out);
        break;
    case MP_CATALOG_DEPLOY:
        err = mp_catalog_deploy(c, &ev->deploy, &why);
        changed = !why && err == MP_OK;
        if (why)
            tell(out, MP_CATALOG_REFUSED, why);
        break;
    case MP_CATALOG_RETIRE:
        mp_catalog_retire(c, ev->number);
        changed = true;
        break;
    case MP_CATALOG_TOPICS:
        return set_topics(c, ev->topics, out);
    case MP_CATALOG_LIVE:
        err = mp_catalog_set_live(c, ev->live.items, ev->live.count);
        changed = true;
        break;
    }
    if (changed)
        tell(out, MP_CATALOG_CHANGED, NULL);
    /* What nobody asked for while its node was dead is wanted now. */
    if (changed && ev->kind == MP_CATALOG_NODE && mp_catalog_is_missing_any(c))
        tell(out, MP_CATALOG_MISSING, NULL);
    return err;
}

bool mp_catalog_about(const struct mp_catalog *c, uint32_t node, struct mp_catalog_about *out)
{
    if (node >= c->member_capacity || !c->members[node].has_entry)
        return false;
    *out = c->members[node].said;
    return true;
}
