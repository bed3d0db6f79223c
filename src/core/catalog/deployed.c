/* Deployed modules. They come and go with what is live, and with the calls that still name an older
 * one; so, other than those of entries, they are taken out again, and the places that they had in
 * the tables, of modules and of functions, go to their successors. Whoever keeps such a number
 * keeps the module from being retired. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"

static struct mp_catalog_identity identity_of(const struct mp_catalog_deployed *d)
{
    return (struct mp_catalog_identity){.name = d->name,
                                        .version = d->version,
                                        .hash = d->hash,
                                        .unit = d->unit,
                                        .is_pipeline = d->is_pipeline};
}

uint32_t mp_catalog_find_deployed(const struct mp_catalog *c, const struct mp_catalog_deployed *d)
{
    uint32_t module;
    const struct mp_catalog_identity i = identity_of(d);
    return mp_catalog_get_module(c, &i, &module) && !c->records[module].is_retired
               ? module
               : MP_CATALOG_NONE;
}

static const char *check(struct mp_catalog *c, const struct mp_catalog_deployed *d,
                         const struct mp_catalog_identity *i)
{
    const char *why = mp_catalog_check_identity(c, i);
    if (why)
        return why;
    if (d->unit.size == 0 || d->unit.size > MP_UNIT_HASH_BYTES)
        return "its unit is not told by a hash";
    if (d->metadata.size == 0 || mp_mp_type_of(d->metadata) != MP_MP_MAP)
        return "nothing describes it";
    if (d->metadata.size > MP_CATALOG_METADATA_BYTES_MAX ||
        c->metadata_bytes > MP_CATALOG_METADATA_BYTES_MAX - d->metadata.size)
        return "the descriptions of all modules are too large together";
    return mp_catalog_check_functions(c, d->metadata);
}

enum mp_err mp_catalog_deploy(struct mp_catalog *c, const struct mp_catalog_deployed *d,
                              const char **why)
{
    uint32_t module;
    const struct mp_catalog_identity i = identity_of(d);
    *why = check(c, d, &i);
    if (*why)
        return MP_OK;
    bool is_known = mp_catalog_get_module(c, &i, &module);
    if (is_known && !c->records[module].is_retired) {
        c->modules[module].host_module = d->host_module;
        return MP_OK;
    }
    enum mp_err err = MP_OK;
    if (is_known) {
        c->records[module].is_retired = false;
        c->retired_count--;
    } else {
        err = mp_catalog_new_module(c, &i, &module);
    }
    if (err == MP_EFULL) {
        *why = "there are too many modules";
        return MP_OK;
    }
    if (err != MP_OK)
        return err;
    err = mp_catalog_describe(c, module, d->metadata);
    if (err != MP_OK) {
        c->records[module].is_retired = true;
        c->retired_count++;
        return err;
    }
    c->modules[module].host_module = d->host_module;
    return MP_OK;
}

/* --- scopes --- */

static void free_scope(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_module *m = &c->modules[module];
    mp_alloc_free(c->alloc, (void *)(uintptr_t)m->scope.data, c->records[module].scope_size);
    m->scope = mp_slice_of(NULL, 0);
    m->is_scoped = false;
    c->records[module].scope_size = 0;
}

static enum mp_err set_scope(struct mp_catalog *c, const struct mp_catalog_live *l)
{
    struct mp_catalog_module *m = &c->modules[l->module];
    if (mp_slice_equal(m->scope, l->scope)) {
        m->is_scope_excluded = l->is_scope_excluded;
        return MP_OK;
    }
    uint8_t *copy = NULL;
    if (l->scope.size != 0) {
        copy = mp_alloc_take(c->alloc, l->scope.size);
        if (!copy)
            return MP_ENOMEM;
        memcpy(copy, l->scope.data, l->scope.size);
    }
    free_scope(c, l->module);
    m->scope = mp_slice_of(copy, l->scope.size);
    m->is_scoped = l->scope.size != 0;
    m->is_scope_excluded = l->is_scope_excluded;
    c->records[l->module].scope_size = l->scope.size;
    return MP_OK;
}

bool mp_catalog_is_in_scope(const struct mp_catalog *c, uint32_t module, uint32_t node)
{
    const struct mp_catalog_module *m = &c->modules[module];
    uint32_t count;
    struct mp_mp_reader r;
    if (node >= c->member_capacity || !c->members[node].has_entry)
        return false;
    if (!m->is_scoped)
        return true;
    bool is_listed = false;
    if (mp_mp_get_array(m->scope, &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; !is_listed && i < count; i++) {
        struct mp_slice name;
        if (mp_catalog_take_str(&r, &name) != MP_OK)
            break;
        is_listed = mp_slice_equal(name, c->members[node].name);
    }
    return is_listed != m->is_scope_excluded;
}

/* --- what is live, and what is no more --- */

void mp_catalog_retire(struct mp_catalog *c, uint32_t module)
{
    mp_assert(c->modules[module].is_deployed && !c->modules[module].is_live &&
              !c->records[module].is_retired);
    free_scope(c, module);
    mp_catalog_undescribe(c, module);
    c->modules[module].host_module = MP_CATALOG_NONE;
    c->records[module].is_retired = true;
    c->retired_count++;
}

bool mp_catalog_is_hidden(const struct mp_catalog *c, uint32_t module)
{
    const struct mp_catalog_module *m = &c->modules[module];
    uint32_t left = m->is_deployed ? 0 : c->live_count;
    for (uint32_t i = 0; left != 0 && i < c->module_count; i++) {
        const struct mp_catalog_module *other = &c->modules[i];
        if (!other->is_live)
            continue;
        if (other->is_pipeline == m->is_pipeline && mp_slice_equal(other->name, m->name))
            return true;
        left--;
    }
    return false;
}

enum mp_err mp_catalog_set_live(struct mp_catalog *c, const struct mp_catalog_live *items,
                                uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        MP_TRY(set_scope(c, &items[i]));
    for (uint32_t i = 0; i < c->module_count; i++)
        c->modules[i].is_live = false;
    for (uint32_t i = 0; i < count; i++)
        c->modules[items[i].module].is_live = true;
    c->live_count = count;
    for (uint32_t i = 0; i < c->module_count; i++)
        c->modules[i].is_shadowed = mp_catalog_is_hidden(c, i);
    return MP_OK;
}
