/* The documents of the commands: what live nodes have, in order of name, the highest version first,
 * whatever order modules and nodes came in: all nodes that know the same print the same. */
#include "src/base/assert.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"

/* --- orders --- */

static bool is_function_after(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    return mp_slice_compare(c->by_name.entries[a].key, c->by_name.entries[b].key) > 0;
}

static bool is_node_after(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    return mp_slice_compare(c->members[a].name, c->members[b].name) > 0;
}

/* By name, the highest version first, as functions are; then by content. */
static bool is_module_after(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    const struct mp_catalog_module *x = &c->modules[a];
    const struct mp_catalog_module *y = &c->modules[b];
    int order = mp_slice_compare(x->name, y->name);
    if (order != 0)
        return order > 0;
    order = mp_version_compare(&x->version, &y->version);
    if (order != 0)
        return order < 0;
    order = mp_slice_compare(x->hash, y->hash);
    if (order != 0)
        return order > 0;
    order = mp_slice_compare(x->version_text, y->version_text);
    return order != 0 ? order > 0 : x->is_pipeline && !y->is_pipeline;
}

/* What a document is written with. Nodes are listed through a set of their ranks by name, so that
 * no list has to be sorted by itself. */
struct view {
    const struct mp_catalog *c;
    uint32_t *items; /* functions' places in by_name, or modules, in order */
    uint32_t item_count;
    uint32_t *nodes; /* live ones, in order of name */
    uint32_t node_count;
    uint32_t *ranks; /* by number */
    uint64_t *set;   /* of ranks */
    uint32_t set_words;
    uint32_t capacity; /* of nodes and ranks */
};

static void close_view(struct view *v)
{
    struct mp_alloc *a = v->c->alloc;
    mp_alloc_free(a, v->set, v->set_words * sizeof(*v->set));
    mp_alloc_free(a, v->ranks, v->capacity * sizeof(*v->ranks));
    mp_alloc_free(a, v->nodes, v->capacity * sizeof(*v->nodes));
    mp_alloc_free(a, v->items, v->item_count * sizeof(*v->items));
}

static enum mp_err open_view(struct view *v, const struct mp_catalog *c, uint32_t count,
                             mp_catalog_is_after *after)
{
    *v = (struct view){.c = c, .item_count = count, .capacity = c->member_capacity};
    v->set_words = v->capacity / 64 + 1;
    v->nodes = mp_alloc_take(c->alloc, v->capacity * sizeof(*v->nodes));
    v->ranks = mp_alloc_take(c->alloc, v->capacity * sizeof(*v->ranks));
    v->set = mp_alloc_take(c->alloc, v->set_words * sizeof(*v->set));
    if (count != 0)
        v->items = mp_alloc_take(c->alloc, count * sizeof(*v->items));
    if (!v->nodes || !v->ranks || !v->set || (count != 0 && !v->items)) {
        close_view(v);
        return MP_ENOMEM;
    }
    for (uint32_t i = 0; i < c->member_capacity; i++)
        if (c->members[i].has_entry && mp_catalog_is_live(c, i))
            v->nodes[v->node_count++] = i;
    mp_catalog_sort(c, v->nodes, v->node_count, is_node_after);
    for (uint32_t i = 0; i < v->node_count; i++)
        v->ranks[v->nodes[i]] = i;
    for (uint32_t i = 0; i < count; i++)
        v->items[i] = i;
    mp_catalog_sort(c, v->items, count, after);
    return MP_OK;
}

/* --- parts --- */

static enum mp_err put_nodes(const struct view *v, uint32_t module, struct mp_buf *out)
{
    uint32_t cursor = 0;
    uint32_t node;
    uint32_t count = 0;
    memset(v->set, 0, v->set_words * sizeof(*v->set));
    while (mp_catalog_next_holder(v->c, module, &cursor, &node)) {
        if (!mp_catalog_is_live(v->c, node))
            continue;
        uint32_t rank = v->ranks[node];
        v->set[rank / 64] |= 1ull << rank % 64;
        count++;
    }
    MP_TRY(mp_mp_put_text(out, "nodes"));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t word = 0; word < v->set_words; word++)
        for (uint32_t bit = 0; bit < 64 && v->set[word] >> bit != 0; bit++)
            if ((v->set[word] >> bit & 1) != 0)
                MP_TRY(mp_mp_put_str(out, v->c->members[v->nodes[word * 64 + bit]].name));
    return MP_OK;
}

/* `key` of the metadata, or `otherwise` (encoded) if it is not there. */
static enum mp_err put_from(struct mp_buf *out, struct mp_slice metadata, const char *key,
                            struct mp_slice otherwise)
{
    struct mp_slice value = otherwise;
    if (metadata.size == 0 || mp_mp_map_get(metadata, mp_slice_str(key), &value) != MP_OK)
        value = otherwise;
    MP_TRY(mp_mp_put_text(out, key));
    return mp_mp_put_raw(out, value);
}

/* --- functions --- */

static enum mp_err put_function(const struct view *v, const struct mp_catalog_function *f,
                                struct mp_buf *out)
{
    static const uint8_t nil[] = {0xc0};
    static const uint8_t empty[] = {0x90};
    const struct mp_catalog_module *m = &v->c->modules[f->module];
    MP_TRY(mp_mp_put_map(out, f->refused_ms != 0 ? 9 : 8));
    MP_TRY(mp_mp_put_str_pair(out, "name", f->name));
    MP_TRY(mp_mp_put_str_pair(out, "module", m->name));
    MP_TRY(mp_mp_put_str_pair(out, "version", m->version_text));
    MP_TRY(put_nodes(v, f->module, out));
    MP_TRY(put_from(out, f->metadata, "needs", mp_slice_of(empty, 1)));
    MP_TRY(put_from(out, f->metadata, "doc", mp_slice_of(nil, 1)));
    MP_TRY(put_from(out, f->metadata, "params", mp_slice_of(empty, 1)));
    if (f->refused_ms != 0) {
        MP_TRY(mp_mp_put_text(out, "refused_ms"));
        MP_TRY(mp_mp_put_uint(out, f->refused_ms));
    }
    return put_from(out, f->metadata, "returns", mp_slice_of(nil, 1));
}

static enum mp_err put_functions(const struct view *v, struct mp_buf *out)
{
    const struct mp_catalog *c = v->c;
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->module_count; i++)
        if (c->modules[i].function_count != 0 && mp_catalog_is_offered(c, i))
            count += c->modules[i].function_count;
    MP_TRY(mp_mp_put_map(out, 1));
    MP_TRY(mp_mp_put_text(out, "functions"));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < v->item_count; i++)
        for (uint32_t key = c->by_name.entries[v->items[i]].value; key != MP_CATALOG_NONE;
             key = c->functions[key].next)
            if (mp_catalog_is_offered(c, c->functions[key].module))
                MP_TRY(put_function(v, &c->functions[key], out));
    return MP_OK;
}

enum mp_err mp_catalog_put_functions(const struct mp_catalog *c, struct mp_buf *out)
{
    struct view v;
    enum mp_err err = open_view(&v, c, c->by_name.count, is_function_after);
    if (err != MP_OK)
        return err;
    err = put_functions(&v, out);
    close_view(&v);
    return err;
}

/* --- modules --- */

static bool is_same_version(const struct mp_catalog_module *x, const struct mp_catalog_module *y)
{
    return x->is_pipeline == y->is_pipeline && mp_slice_equal(x->name, y->name) &&
           mp_version_compare(&x->version, &y->version) == 0 &&
           mp_slice_equal(x->version.build, y->version.build);
}

/* Whether another content has the same name and version on a live node. The others are beside it in
 * the order, so far as name and rank of the version are the same. */
static bool differs(const struct view *v, uint32_t place)
{
    const struct mp_catalog *c = v->c;
    const struct mp_catalog_module *m = &c->modules[v->items[place]];
    for (int step = -1; step <= 1; step += 2)
        for (uint32_t i = place + (uint32_t)step; i < v->item_count; i += (uint32_t)step) {
            const struct mp_catalog_module *other = &c->modules[v->items[i]];
            if (!mp_slice_equal(other->name, m->name) ||
                mp_version_compare(&other->version, &m->version) != 0)
                break;
            if (!m->is_deployed && !other->is_deployed && is_same_version(m, other) &&
                !mp_slice_equal(m->hash, other->hash) && mp_catalog_is_provided(c, v->items[i]))
                return true;
        }
    return false;
}

/* Hash, origin and live. */
static enum mp_err put_origin(const struct mp_catalog_module *m, struct mp_buf *out)
{
    MP_TRY(mp_mp_put_str_pair(out, "hash", m->hash));
    MP_TRY(mp_mp_put_str_pair(out, "origin", mp_slice_str(m->is_deployed ? "deployed" : "loaded")));
    return mp_mp_put_bool_pair(out, "live", m->is_deployed ? m->is_live : !m->is_shadowed);
}

static enum mp_err put_module(const struct view *v, uint32_t place, struct mp_buf *out)
{
    const struct mp_catalog_module *m = &v->c->modules[v->items[place]];
    MP_TRY(mp_mp_put_map(out, 9));
    MP_TRY(mp_mp_put_str_pair(out, "name", m->name));
    MP_TRY(mp_mp_put_str_pair(out, "version", m->version_text));
    MP_TRY(put_origin(m, out));
    MP_TRY(put_nodes(v, v->items[place], out));
    MP_TRY(mp_mp_put_bool_pair(out, "shadowed", m->is_shadowed));
    MP_TRY(mp_mp_put_bool_pair(out, "differs", differs(v, place)));
    return mp_mp_put_bool_pair(out, "overtaken", m->is_overtaken);
}

static enum mp_err put_pipeline(const struct view *v, uint32_t place, struct mp_buf *out)
{
    static const uint8_t nil[] = {0xc0};
    const struct mp_catalog_module *m = &v->c->modules[v->items[place]];
    MP_TRY(mp_mp_put_map(out, 7));
    MP_TRY(mp_mp_put_str_pair(out, "name", m->name));
    MP_TRY(put_origin(m, out));
    MP_TRY(put_nodes(v, v->items[place], out));
    MP_TRY(mp_mp_put_bool_pair(out, "shadowed", m->is_shadowed));
    return put_from(out, m->metadata, "doc", mp_slice_of(nil, 1));
}

static bool is_listed(const struct view *v, uint32_t place, bool is_pipeline)
{
    uint32_t module = v->items[place];
    return v->c->modules[module].is_pipeline == is_pipeline && mp_catalog_is_provided(v->c, module);
}

static enum mp_err put_list(const struct view *v, bool is_pipeline, struct mp_buf *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < v->item_count; i++)
        count += is_listed(v, i, is_pipeline);
    MP_TRY(mp_mp_put_text(out, is_pipeline ? "pipelines" : "modules"));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < v->item_count; i++)
        if (is_listed(v, i, is_pipeline))
            MP_TRY(is_pipeline ? put_pipeline(v, i, out) : put_module(v, i, out));
    return MP_OK;
}

/* A pipeline comes in a file as a module does, but is none: it is listed apart. */
static enum mp_err put_modules(const struct view *v, struct mp_buf *out)
{
    MP_TRY(mp_mp_put_map(out, 2));
    MP_TRY(put_list(v, false, out));
    return put_list(v, true, out);
}

enum mp_err mp_catalog_put_modules(const struct mp_catalog *c, struct mp_buf *out)
{
    struct view v;
    enum mp_err err = open_view(&v, c, c->module_count, is_module_after);
    if (err != MP_OK)
        return err;
    err = put_modules(&v, out);
    close_view(&v);
    return err;
}
