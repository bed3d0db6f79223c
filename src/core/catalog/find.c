/* Which nodes can serve a query. Functions of one name are tried version by version, from the
 * highest down; contents of the same version count alike. The work is in proportion to the holders
 * of the versions that are looked at. */
#include "src/base/defects.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"

/* The numbers of resources that a call needs. */
struct needs {
    uint32_t items[2 * MP_NEEDS_MAX];
    uint32_t count;
};

bool mp_catalog_need_at(const struct mp_catalog_function *f, const struct mp_catalog_query *q,
                        uint32_t n, struct mp_slice *name)
{
    uint32_t own = 0;
    struct mp_mp_reader r;
    if (f->needs.size != 0 && mp_mp_get_array(f->needs, &own, &r) != MP_OK)
        own = 0;
    if (n >= own) {
        if (n - own >= q->needs_count)
            return false;
        *name = q->needs[n - own];
        return true;
    }
    struct mp_slice value;
    return mp_mp_array_get(f->needs, n, &value) == MP_OK && mp_mp_get_str(value, name) == MP_OK;
}

bool mp_catalog_fits(const struct mp_catalog *c, const struct mp_catalog_function *f,
                     struct mp_slice constraint)
{
    /* Another node asks for the very version: nothing has to be read. */
    const struct mp_catalog_module *m = &c->modules[f->module];
    return constraint.size == 0 || mp_slice_equal(constraint, m->version_text) ||
           mp_version_matches(constraint, &m->version);
}

/* False if some resource is on no node, or there are more than a call may need. */
static bool find_needs(const struct mp_catalog *c, const struct mp_catalog_function *f,
                       const struct mp_catalog_query *q, struct needs *needs)
{
    struct mp_slice name;
    needs->count = 0;
    if (f->needs.size == 0 && q->needs_count == 0)
        return true;
    for (uint32_t n = 0; mp_catalog_need_at(f, q, n, &name); n++)
        if (n == 2 * MP_NEEDS_MAX ||
            !mp_map_get(&c->by_resource, name, &needs->items[needs->count++]))
            return false;
    return true;
}

static bool has_needs(const struct mp_catalog *c, uint32_t node, const struct needs *needs)
{
    for (uint32_t i = 0; i < needs->count; i++)
        if (!mp_catalog_has_resource(c, node, needs->items[i]))
            return false;
    return true;
}

static bool is_served(const struct mp_catalog *c, uint32_t node)
{
    return mp_catalog_is_live(c, node) || mp_has_defect(c->defects, MP_DEFECT_ROUTE_TO_DEAD);
}

static bool is_our_cluster(const struct mp_catalog *c, const struct mp_catalog_query *q)
{
    return q->cluster.size == 0 || mp_slice_equal(q->cluster, c->cluster);
}

static enum mp_err put_provider(uint32_t node, uint32_t function, struct mp_buf *out)
{
    const struct mp_catalog_provider p = {.node = node, .function = function};
    return mp_buf_append(out, mp_slice_of(&p, sizeof(p)));
}

/* Appends who can serve this very function. */
static enum mp_err put_providers(const struct mp_catalog *c, const struct mp_catalog_function *f,
                                 const struct mp_catalog_query *q, uint32_t on, struct mp_buf *out)
{
    struct needs needs;
    if (!find_needs(c, f, q, &needs))
        return MP_OK;
    if (on != MP_CATALOG_NONE)
        return mp_catalog_is_holder(c, f->module, on) && is_served(c, on) &&
                       has_needs(c, on, &needs)
                   ? put_provider(on, f->key, out)
                   : MP_OK;
    uint32_t cursor = 0;
    uint32_t node;
    while (mp_catalog_next_holder(c, f->module, &cursor, &node)) {
        if (!is_served(c, node) || !has_needs(c, node, &needs))
            continue;
        enum mp_err err = put_provider(node, f->key, out);
        if (err != MP_OK)
            return err;
    }
    return MP_OK;
}

enum mp_err mp_catalog_find(const struct mp_catalog *c, const struct mp_catalog_query *q,
                            struct mp_buf *out)
{
    uint32_t key;
    uint32_t on = MP_CATALOG_NONE;
    const size_t before = out->size;
    const struct mp_catalog_module *last = NULL;
    if (!is_our_cluster(c, q) || !mp_map_get(&c->by_name, q->fun, &key) ||
        (q->on.size != 0 && !mp_map_get(&c->by_member, q->on, &on)))
        return MP_ENOENT;
    for (; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        const struct mp_catalog_function *f = &c->functions[key];
        const struct mp_catalog_module *m = &c->modules[f->module];
        /* A module that names a function twice has the first. */
        if (m == last || !mp_catalog_is_meant(c, f->module, q->pin) ||
            !mp_catalog_fits(c, f, q->version))
            continue;
        if (last && out->size != before && mp_version_compare(&last->version, &m->version) != 0)
            break;
        enum mp_err err = put_providers(c, f, q, on, out);
        if (err != MP_OK) {
            out->size = before;
            return err;
        }
        last = m;
    }
    return out->size == before ? MP_ENOENT : MP_OK;
}

const struct mp_catalog_function *mp_catalog_find_here(const struct mp_catalog *c,
                                                       const struct mp_catalog_query *q)
{
    uint32_t key;
    struct needs needs;
    if (!is_our_cluster(c, q) || (q->on.size != 0 && !mp_slice_equal(q->on, c->node)) ||
        !mp_map_get(&c->by_name, q->fun, &key))
        return NULL;
    for (; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        const struct mp_catalog_function *f = &c->functions[key];
        if (c->modules[f->module].host_module != MP_CATALOG_NONE &&
            mp_catalog_is_meant(c, f->module, q->pin) && mp_catalog_fits(c, f, q->version) &&
            find_needs(c, f, q, &needs) && has_needs(c, MP_CATALOG_SELF, &needs))
            return f;
    }
    return NULL;
}

bool mp_catalog_may_appear(const struct mp_catalog *c, const struct mp_catalog_query *q)
{
    return mp_slice_is_dotted_name(q->fun) && mp_version_constraint_is_valid(q->version) &&
           is_our_cluster(c, q);
}
