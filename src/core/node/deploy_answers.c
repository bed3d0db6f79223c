/* What a deploy holds, whether the rules of versions allow it, and what its client is told. */
#include "src/base/assert.h"
#include "src/core/node/deploys_internal.h"
#include "src/wire/msgpack.h"

/* --- what a unit holds --- */

struct mp_slice mp_node_text_of(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    struct mp_slice text;
    if (mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK &&
        mp_mp_get_str(value, &text) == MP_OK)
        return text;
    return (struct mp_slice){0};
}

/* The name of a unit's module. */
static struct mp_slice name_in(struct mp_slice unit, uint32_t place)
{
    struct mp_slice item;
    struct mp_slice value;
    struct mp_slice name = {0};
    if (mp_mp_array_get(unit, place, &item) == MP_OK && mp_mp_array_get(item, 0, &value) == MP_OK &&
        mp_mp_get_str(value, &name) != MP_OK)
        name = (struct mp_slice){0};
    return name;
}

/* One module of a unit as a wish; false: the description is not one of this unit. */
bool mp_node_deploy_wish(const struct mp_node_deploy *d, uint32_t place, struct mp_deploy_wish *w)
{
    struct mp_slice hash;
    struct mp_slice metadata;
    const struct mp_slice description = mp_slice_of(d->own_description, d->description_size);
    if (!mp_node_unit_describes(description, place, &hash, &metadata))
        return false;
    *w = (struct mp_deploy_wish){.module = name_in(d->unit_bytes, place),
                                 .version = mp_node_text_of(metadata, "version"),
                                 .hash = hash,
                                 .unit = mp_slice_of(d->hash, sizeof(d->hash)),
                                 .expect = d->expect,
                                 .is_pipeline =
                                     mp_slice_is(mp_node_text_of(metadata, "kind"), "pipeline"),
                                 .is_forced = d->is_forced};
    struct mp_slice own = mp_node_text_of(metadata, "name");
    if (w->is_pipeline && own.size != 0)
        w->module = own;
    return w->module.size != 0;
}

uint32_t mp_node_count_of(struct mp_slice array)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    return mp_mp_get_array(array, &count, &r) == MP_OK ? count : 0;
}

/* Whether the rules allow all of it; else the deploy is refused. */
bool mp_node_deploy_obeys(struct mp_node *n, struct mp_node_deploy *d)
{
    char message_bytes[512];
    char hint_bytes[256];
    uint32_t count = mp_node_count_of(d->unit_bytes);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_deploy_wish w;
        struct mp_text message;
        struct mp_text hint;
        struct mp_fault fault = {0};
        mp_text_init(&message, message_bytes, sizeof(message_bytes));
        mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
        if (!mp_node_deploy_wish(d, i, &w)) {
            mp_node_deploy_refuse_text(n, d, MP_CODE_INTERNAL, "BAD_DESCRIPTION",
                                       "what was said of the code does not belong to it");
            return false;
        }
        if (!mp_deploy_is_allowed(n->deploy, &w, &fault, &message, &hint)) {
            mp_node_deploy_refuse_fault(n, d, &fault);
            return false;
        }
    }
    return true;
}

/* Whether that very content is live already. */
bool mp_node_deploy_is_unchanged(const struct mp_node *n, const struct mp_node_deploy *d)
{
    uint32_t count = mp_node_count_of(d->unit_bytes);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_deploy_wish w;
        struct mp_deploy_entry e;
        if (!mp_node_deploy_wish(d, i, &w) ||
            !mp_deploy_find(n->deploy, w.module, w.is_pipeline, &e) ||
            e.action == MP_DEPLOY_UNDEPLOY || !mp_slice_equal(e.unit, w.unit) ||
            e.scope != d->scope || !mp_slice_equal(e.nodes, d->nodes))
            return false;
    }
    return true;
}

/* --- the answer to a client --- */

static const char *const member_states[] = {
    [MP_NODE_DEPLOY_ASKED] = "staged",  [MP_NODE_DEPLOY_STAGED] = "staged",
    [MP_NODE_DEPLOY_LIVE] = "live",     [MP_NODE_DEPLOY_FAILED] = "failed",
    [MP_NODE_DEPLOY_BEHIND] = "behind",
};

enum mp_err mp_node_put_hex(struct mp_buf *b, const char *key, struct mp_slice bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hex[2 * MP_UNIT_HASH_BYTES];
    MP_TRY(mp_mp_put_text(b, key));
    if (bytes.size == 0 || bytes.size > MP_UNIT_HASH_BYTES)
        return mp_mp_put_nil(b);
    for (size_t i = 0; i < bytes.size; i++) {
        hex[2 * i] = (uint8_t)digits[bytes.data[i] >> 4];
        hex[2 * i + 1] = (uint8_t)digits[bytes.data[i] & 15];
    }
    return mp_mp_put_str(b, mp_slice_of(hex, 2 * bytes.size));
}

/* Five pairs: module, version, hash, previous, kind. What is unchanged was live before. */
static enum mp_err put_change(struct mp_buf *b, const struct mp_deploy_entry *e, bool is_same)
{
    MP_TRY(mp_mp_put_str_pair(b, "module", e->module));
    MP_TRY(mp_mp_put_text(b, "version"));
    MP_TRY(e->version.size != 0 ? mp_mp_put_str(b, e->version) : mp_mp_put_nil(b));
    MP_TRY(mp_node_put_hex(b, "hash", e->hash));
    MP_TRY(mp_node_put_hex(b, "previous", is_same ? e->hash : e->previous));
    MP_TRY(mp_mp_put_text(b, "kind"));
    return mp_mp_put_text(b, e->is_pipeline ? "pipeline" : "module");
}

static enum mp_err put_member(struct mp_node *n, struct mp_buf *b,
                              const struct mp_node_deploy_member *m)
{
    MP_TRY(mp_mp_put_map(b, 3));
    MP_TRY(mp_mp_put_str_pair(b, "node", mp_node_member_name(n, m->member)));
    MP_TRY(mp_mp_put_text(b, "state"));
    MP_TRY(mp_mp_put_text(b, member_states[m->state]));
    MP_TRY(mp_mp_put_text(b, "ms"));
    if (m->state == MP_NODE_DEPLOY_BEHIND)
        return mp_mp_put_nil(b);
    return mp_mp_put_float(b, (double)(m->took / 1000) / 1000.0);
}

/* The nodes in the order of their names. */
static enum mp_err put_members(struct mp_node *n, struct mp_node_deploy *d, struct mp_buf *b)
{
    uint32_t count;
    uint32_t shown = 0;
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_member_info info;
        if (!mp_membership_get(n->membership, m[i].member, &info))
            m[i].state = MP_NODE_DEPLOY_OUTSIDE; /* it was forgotten meanwhile */
        shown += m[i].state != MP_NODE_DEPLOY_OUTSIDE;
    }
    MP_TRY(mp_mp_put_array(b, shown));
    struct mp_slice last = {0};
    for (; shown != 0; shown--) {
        const struct mp_node_deploy_member *next = NULL;
        struct mp_slice next_name = {0};
        for (uint32_t i = 0; i < count; i++) {
            struct mp_slice name = mp_node_member_name(n, m[i].member);
            if (m[i].state != MP_NODE_DEPLOY_OUTSIDE &&
                (last.size == 0 || mp_slice_compare(name, last) > 0) &&
                (!next || mp_slice_compare(name, next_name) < 0)) {
                next = &m[i];
                next_name = name;
            }
        }
        if (!next)
            return MP_ECORRUPT;
        MP_TRY(put_member(n, b, next));
        last = next_name;
    }
    return MP_OK;
}

/* `entries` are what was made, or what is live already. */
static enum mp_err put_result(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice entries,
                              bool is_same, struct mp_buf *b)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice item;
    struct mp_deploy_entry e;
    MP_TRY(mp_mp_array_get(entries, 0, &item));
    MP_TRY(mp_deploy_read_entry(item, &e));
    MP_TRY(mp_mp_put_map(b, 10));
    MP_TRY(put_change(b, &e, is_same));
    MP_TRY(mp_mp_put_uint_pair(b, "epoch", e.stamp.epoch));
    MP_TRY(mp_mp_put_text(b, "ms"));
    MP_TRY(mp_mp_put_float(b, (double)((n->now - d->began_at) / 1000) / 1000.0));
    MP_TRY(mp_mp_put_text(b, "nodes"));
    MP_TRY(put_members(n, d, b));
    MP_TRY(mp_mp_put_text(b, "modules"));
    MP_TRY(mp_mp_get_array(entries, &count, &r));
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < count; i++) {
        MP_TRY(mp_mp_take(&r, &item));
        MP_TRY(mp_deploy_read_entry(item, &e));
        MP_TRY(mp_mp_put_map(b, 5));
        MP_TRY(put_change(b, &e, is_same));
    }
    return mp_mp_put_bool_pair(b, "unchanged", is_same);
}

void mp_node_deploy_finish(struct mp_node *n, struct mp_node_deploy *d)
{
    struct mp_buf b;
    struct mp_slice kept = {0};
    mp_buf_init(&b, n->alloc, 0);
    if (d->is_peers)
        kept = mp_slice_str("\xc0");
    else if (put_result(n, d, mp_buf_slice(&d->entries), d->is_same, &b) == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&b));
    mp_buf_fini(&b);
    if (kept.size == 0)
        n->is_out_of_memory = true; /* it has happened, and is told with the next sweep */
    else
        mp_node_deploy_answer(n, d, false, kept);
}
