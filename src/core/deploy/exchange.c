/* What is said to other nodes. A name's digest is a sum over the hashes of the entries' bytes, of
 * the module and of the pipeline that have it, so it does not depend on the order in which they
 * came. A summary has them all, by name, and whoever
 * reads it walks along its own modules beside it: where the digests differ, it sends what it has.
 * Two nodes that do so in turn end with the union. */
#include "src/base/assert.h"
#include "src/core/deploy/deploy_internal.h"
#include "src/wire/msgpack.h"

uint64_t mp_deploy_digest(const struct mp_deploy *d)
{
    return d->digest;
}

/* What has one name, from a place in the order on. */
struct group {
    struct mp_slice name;
    uint32_t end; /* the place behind it */
    uint32_t count;
    uint64_t digest;
    size_t bytes;
};

static struct group group_at(const struct mp_deploy *d, uint32_t place)
{
    struct group g = {.name = d->modules[d->order[place]].name, .end = place};
    while (g.end < d->module_count) {
        const struct mp_deploy_module *m = &d->modules[d->order[g.end]];
        if (!mp_slice_equal(m->name, g.name))
            break;
        g.count += m->count;
        g.digest += m->digest;
        g.bytes += m->bytes;
        g.end++;
    }
    return g;
}

/* --- the summary --- */

static enum mp_err put_summary(const struct mp_deploy *d, struct mp_buf *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < d->module_count; i = group_at(d, i).end)
        count++;
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < d->module_count;) {
        const struct group g = group_at(d, i);
        MP_TRY(mp_mp_put_array(out, 2));
        MP_TRY(mp_mp_put_str(out, g.name));
        MP_TRY(mp_mp_put_uint(out, g.digest));
        i = g.end;
    }
    return MP_OK;
}

enum mp_err mp_deploy_put_summary(const struct mp_deploy *d, struct mp_buf *out)
{
    size_t before = out->size;
    enum mp_err err = put_summary(d, out);
    if (err != MP_OK)
        out->size = before;
    return err;
}

/* --- what differs --- */

/* A summary that is read, one item ahead. */
struct summary {
    struct mp_mp_reader r;
    uint32_t left; /* items behind the one at hand */
    bool has_item;
    struct mp_slice name;
    uint64_t digest;
};

static enum mp_err next_item(struct summary *s)
{
    struct mp_mp_token t;
    struct mp_slice before = s->name;
    bool is_first = !s->has_item;
    s->has_item = s->left != 0;
    if (!s->has_item)
        return mp_mp_is_at_end(&s->r) ? MP_OK : MP_ECORRUPT;
    s->left--;
    if (mp_mp_next(&s->r, &t) != MP_OK || t.type != MP_MP_ARRAY || t.count != 2 ||
        mp_mp_next(&s->r, &t) != MP_OK || t.type != MP_MP_STR)
        return MP_ECORRUPT;
    s->name = t.bytes;
    if (!is_first && mp_slice_compare(before, s->name) >= 0)
        return MP_ECORRUPT;
    if (mp_mp_next(&s->r, &t) != MP_OK || t.type != MP_MP_UINT)
        return MP_ECORRUPT;
    s->digest = t.u;
    return MP_OK;
}

static enum mp_err open_summary(struct mp_slice bytes, struct summary *s)
{
    *s = (struct summary){0};
    if (bytes.size == 0 || mp_mp_get_array(bytes, &s->left, &s->r) != MP_OK)
        return MP_ECORRUPT;
    return next_item(s);
}

/* Passes over what comes before one of our names; whether the summary says the same of it. */
static enum mp_err find_item(struct summary *s, const struct group *g, bool *differs, bool *is_same)
{
    int order = -1;
    while (s->has_item && (order = mp_slice_compare(s->name, g->name)) < 0) {
        *differs = true;
        MP_TRY(next_item(s));
    }
    *is_same = false;
    if (!s->has_item || order != 0)
        return MP_OK;
    *is_same = s->digest == g->digest;
    if (!*is_same)
        *differs = true;
    return next_item(s);
}

/* Reads the summary to its end. Of the names in which it differs those before place `end` fit. */
static enum mp_err choose(const struct mp_deploy *d, struct mp_slice bytes, size_t bytes_max,
                          uint32_t *end, uint32_t *count, bool *differs)
{
    struct summary s;
    size_t size = 0;
    bool is_full = false;
    MP_TRY(open_summary(bytes, &s));
    for (uint32_t i = 0; i < d->module_count;) {
        const struct group g = group_at(d, i);
        bool is_same;
        MP_TRY(find_item(&s, &g, differs, &is_same));
        i = g.end;
        if (is_same || is_full)
            continue;
        is_full = *count != 0 && (size >= bytes_max || g.bytes > bytes_max - size);
        if (is_full)
            continue;
        size += g.bytes;
        *count += g.count;
        *end = g.end;
    }
    while (s.has_item) {
        *differs = true;
        MP_TRY(next_item(&s));
    }
    return MP_OK;
}

static enum mp_err put_module(const struct mp_deploy_module *m, struct mp_buf *out)
{
    for (uint32_t i = 0; i < m->count; i++)
        MP_TRY(mp_mp_put_raw(out, mp_slice_of(m->records[i]->bytes, m->records[i]->size)));
    return MP_OK;
}

static enum mp_err put_modules(const struct mp_deploy *d, struct mp_slice bytes, uint32_t end,
                               uint32_t count, struct mp_buf *out)
{
    struct summary s;
    bool differs = false;
    MP_TRY(open_summary(bytes, &s));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < end;) {
        const struct group g = group_at(d, i);
        bool is_same;
        MP_TRY(find_item(&s, &g, &differs, &is_same));
        for (; i < g.end; i++)
            if (!is_same)
                MP_TRY(put_module(&d->modules[d->order[i]], out));
    }
    return MP_OK;
}

enum mp_err mp_deploy_put_differences(const struct mp_deploy *d, struct mp_slice summary,
                                      size_t bytes_max, struct mp_buf *out, bool *differs)
{
    uint32_t end = 0;
    uint32_t count = 0;
    bool is_other = false;
    size_t before = out->size;
    MP_TRY(choose(d, summary, bytes_max, &end, &count, &is_other));
    enum mp_err err = count != 0 ? put_modules(d, summary, end, count, out) : MP_ENOENT;
    if (err != MP_OK)
        out->size = before;
    if (err == MP_OK || err == MP_ENOENT)
        *differs = is_other;
    return err;
}
