/* What is live, what was overtaken, and the document of a module's history.
 *
 * An entry is overtaken if the parent of a later one is earlier than it. So a walk from the newest
 * entry to the oldest needs to know the earliest parent so far, and nothing else. */
#include "src/base/assert.h"
#include "src/core/deploy/deploy_internal.h"
#include "src/wire/msgpack.h"

/* --- what is live --- */

bool mp_deploy_find(const struct mp_deploy *d, struct mp_slice name, bool is_pipeline,
                    struct mp_deploy_entry *e)
{
    const struct mp_deploy_module *m = mp_deploy_module_of(d, name, is_pipeline);
    if (!m || !m->live)
        return false;
    mp_deploy_entry_of(m->live, e);
    return true;
}

bool mp_deploy_live_at(const struct mp_deploy *d, uint32_t index, struct mp_deploy_entry *e)
{
    if (index >= d->live_count)
        return false;
    mp_deploy_entry_of(d->modules[d->live[index]].live, e);
    return true;
}

uint32_t mp_deploy_live_count(const struct mp_deploy *d)
{
    return d->live_count;
}

bool mp_deploy_knows(const struct mp_deploy *d, struct mp_slice module, bool is_pipeline,
                     const struct mp_deploy_stamp *stamp)
{
    const struct mp_deploy_module *m = mp_deploy_module_of(d, module, is_pipeline);
    return m && mp_deploy_record_at(m, stamp);
}

/* --- what was overtaken --- */

/* A walk over a module's records, the newest first. */
struct walk {
    const struct mp_deploy_module *module;
    uint32_t left; /* records before the one that was read last */
    const struct mp_deploy_record *record;
    struct mp_deploy_entry entry;
    struct mp_deploy_stamp earliest; /* parent of the later ones; 0 without a node: none */
    bool has_later;
    bool is_overtaken;
};

static struct walk walk_of(const struct mp_deploy_module *m)
{
    return (struct walk){.module = m, .left = m->count};
}

static bool next(struct walk *w)
{
    if (w->left == 0)
        return false;
    if (w->record && (!w->has_later || mp_deploy_compare(&w->entry.parent, &w->earliest) < 0)) {
        w->earliest = w->entry.parent;
        w->has_later = true;
    }
    w->record = w->module->records[--w->left];
    mp_deploy_entry_of(w->record, &w->entry);
    w->is_overtaken = w->has_later && mp_deploy_compare(&w->earliest, &w->entry.stamp) < 0;
    return true;
}

bool mp_deploy_is_overtaken(const struct mp_deploy *d, struct mp_slice name, bool is_pipeline,
                            const struct mp_deploy_stamp *stamp)
{
    const struct mp_deploy_module *m = mp_deploy_module_of(d, name, is_pipeline);
    const struct mp_deploy_record *record = m ? mp_deploy_record_at(m, stamp) : NULL;
    if (!record)
        return false;
    struct walk w = walk_of(m);
    while (w.record != record && next(&w))
        continue;
    return w.is_overtaken;
}

bool mp_deploy_is_overtaken_lately(const struct mp_deploy *d, struct mp_slice name,
                                   bool is_pipeline, int64_t wall_ms)
{
    const struct mp_deploy_module *m = mp_deploy_module_of(d, name, is_pipeline);
    uint64_t clock_ms = wall_ms > 0 ? (uint64_t)wall_ms : 0;
    if (!m)
        return false;
    struct walk w = walk_of(m);
    while (next(&w) && w.record->epoch / 1024 + MP_DEPLOY_MARKED_MS >= clock_ms)
        if (w.is_overtaken)
            return true;
    return false;
}

/* --- the document --- */

static enum mp_err put_hash(struct mp_buf *out, const char *key, struct mp_slice hash)
{
    MP_TRY(mp_mp_put_text(out, key));
    return hash.size != 0 ? mp_deploy_put_hex(out, hash) : mp_mp_put_nil(out);
}

static enum mp_err put_entry(const struct walk *w, struct mp_buf *out)
{
    static const char *const actions[] = {"deploy", "rollback", "undeploy"};
    const struct mp_deploy_entry *e = &w->entry;
    const char *state = w->record == w->module->live ? "live"
                        : w->is_overtaken            ? "overtaken"
                                                     : "superseded";
    MP_TRY(mp_mp_put_map(out, e->scope == MP_DEPLOY_EVERYWHERE ? 10 : 12));
    MP_TRY(mp_mp_put_uint_pair(out, "epoch", e->stamp.epoch));
    MP_TRY(mp_mp_put_uint_pair(out, "at", e->stamp.epoch / 1024));
    MP_TRY(mp_mp_put_str_pair(out, "action", mp_slice_str(actions[e->action])));
    MP_TRY(mp_mp_put_text(out, "kind"));
    MP_TRY(mp_mp_put_text(out, e->is_pipeline ? "pipeline" : "module"));
    MP_TRY(mp_mp_put_text(out, "version"));
    MP_TRY(e->version.size != 0 ? mp_mp_put_str(out, e->version) : mp_mp_put_nil(out));
    MP_TRY(put_hash(out, "hash", e->hash));
    MP_TRY(put_hash(out, "previous", e->previous));
    MP_TRY(mp_mp_put_str_pair(out, "by", e->by));
    MP_TRY(mp_mp_put_str_pair(out, "node", e->stamp.node));
    MP_TRY(mp_mp_put_str_pair(out, "state", mp_slice_str(state)));
    if (e->scope == MP_DEPLOY_EVERYWHERE)
        return MP_OK;
    const char *scope = e->scope == MP_DEPLOY_ONLY ? "only" : "skip";
    MP_TRY(mp_mp_put_str_pair(out, "scope", mp_slice_str(scope)));
    MP_TRY(mp_mp_put_text(out, "nodes"));
    return mp_mp_put_raw(out, e->nodes);
}

/* The entries of both, the newest first; of two with one stamp that of the first. */
static enum mp_err put_entries(struct walk *a, struct walk *b, struct mp_buf *out)
{
    bool has_a = next(a);
    bool has_b = next(b);
    while (has_a || has_b) {
        bool is_a = has_a && (!has_b || mp_deploy_compare(&a->entry.stamp, &b->entry.stamp) >= 0);
        MP_TRY(put_entry(is_a ? a : b, out));
        if (is_a)
            has_a = next(a);
        else
            has_b = next(b);
    }
    return MP_OK;
}

static enum mp_err put_history(const struct mp_deploy_module *module,
                               const struct mp_deploy_module *pipeline, struct mp_buf *out)
{
    static const struct mp_deploy_module none;
    struct walk a = walk_of(module ? module : &none);
    struct walk b = walk_of(pipeline ? pipeline : &none);
    MP_TRY(mp_mp_put_map(out, 2));
    MP_TRY(mp_mp_put_str_pair(out, "module", module ? module->name : pipeline->name));
    MP_TRY(mp_mp_put_text(out, "entries"));
    MP_TRY(mp_mp_put_array(out, a.left + b.left));
    return put_entries(&a, &b, out);
}

enum mp_err mp_deploy_put_history(const struct mp_deploy *d, struct mp_slice name,
                                  struct mp_buf *out)
{
    const struct mp_deploy_module *module = mp_deploy_module_of(d, name, false);
    const struct mp_deploy_module *pipeline = mp_deploy_module_of(d, name, true);
    size_t before = out->size;
    if (!module && !pipeline)
        return MP_ENOENT;
    enum mp_err err = put_history(module, pipeline, out);
    if (err != MP_OK)
        out->size = before;
    return err;
}
