/* Entries of the history as they come and go: taken in, kept on the disk, compared with other
 * nodes. What could not be kept is kept later: an entry that others know as well is not lost with
 * it. */
#include "src/base/assert.h"
#include "src/core/node/deploys_internal.h"
#include "src/wire/msgpack.h"

static void log_ahead(struct mp_node *n, const struct mp_deploy_effects *out)
{
    char bytes[256];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "changes of deployed modules are not taken in: their stamps are over 10 s "
                       "ahead of this node's clock, by ");
    mp_text_put_uint(&text, out->ahead_epoch / 1024 - (uint64_t)mp_node_wall(n, n->now));
    mp_text_put(&text, " ms");
    mp_node_log(n, 2, mp_text_slice(&text));
}

bool mp_node_entries_are_known(const struct mp_node *n, struct mp_slice entries)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    if (mp_mp_get_array(entries, &count, &r) != MP_OK)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice item;
        struct mp_deploy_entry e;
        if (mp_mp_take(&r, &item) == MP_OK && mp_deploy_read_entry(item, &e) == MP_OK &&
            !mp_deploy_knows(n->deploy, e.module, e.is_pipeline, &e.stamp))
            return false;
    }
    return true;
}

/* Takes entries in. */
struct mp_deploy_effects mp_node_entries_merge(struct mp_node *n, mp_time now,
                                               struct mp_slice entries, bool is_restored)
{
    struct mp_deploy_effects out = {0};
    const struct mp_deploy_event ev = {.kind = is_restored ? MP_DEPLOY_RESTORED : MP_DEPLOY_ENTRIES,
                                       .wall_ms = mp_node_wall(n, now),
                                       .entries = entries};
    if (mp_deploy_step(n->deploy, &ev, &out) != MP_OK)
        n->is_out_of_memory = true;
    if (out.dropped) {
        char bytes[256];
        struct mp_text text;
        mp_text_init(&text, bytes, sizeof(bytes));
        mp_text_put(&text, "a change of deployed modules is left out: ");
        mp_text_put(&text, out.dropped);
        mp_node_log(n, 2, mp_text_slice(&text));
    }
    if (out.ahead_count != 0)
        log_ahead(n, &out);
    return out;
}

static void keep_entries(struct mp_node *n, struct mp_slice entries)
{
    struct mp_slice kept = {0};
    if (mp_node_make_room(n))
        kept = mp_node_keep(n, entries);
    if (kept.size == 0) {
        n->is_unkept = true;
        return;
    }
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_KEEP_ENTRIES);
    e->id = mp_node_ticket(MP_NODE_TICKET_ENTRIES, 0, 0);
    e->payload.bytes = kept;
}

/* Some entry is not on the disk, and which one is not known: all are kept once more, which does no
 * harm. */
void mp_node_entries_keep_again(struct mp_node *n)
{
    bool ignored;
    mp_buf_clear(&n->build);
    enum mp_err err =
        mp_deploy_put_differences(n->deploy, mp_slice_str("\x90"), SIZE_MAX, &n->build, &ignored);
    if (err == MP_ENOMEM) {
        n->is_out_of_memory = true;
        return;
    }
    n->is_unkept = false;
    if (err == MP_OK)
        keep_entries(n, mp_buf_slice(&n->build));
}

void mp_node_deploy_merge(struct mp_node *n, mp_time now, struct mp_slice entries, bool is_restored)
{
    const struct mp_deploy_effects out = mp_node_entries_merge(n, now, entries, is_restored);
    if (out.new_count == 0)
        return;
    if (out.fresh.size != 0)
        keep_entries(n, out.fresh);
    mp_node_release_refresh(n, now);
}

void mp_node_entries_kept(struct mp_node *n, const struct mp_node_event *ev)
{
    struct mp_fault fault;
    if (!ev->stored.is_error)
        return;
    n->is_unkept = true;
    if (mp_fault_read(ev->stored.bytes, &fault) != MP_OK)
        fault.message = mp_slice_str("nobody says why");
    char bytes[512];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "changes of deployed modules could not be kept, this is tried again: ");
    mp_text_put_slice(&text, fault.message);
    mp_node_log(n, 3, mp_text_slice(&text));
}

/* --- comparing with others --- */

static void send_stage(struct mp_node *n, uint32_t link, uint64_t stage, enum mp_err err)
{
    struct mp_slice bytes = {0};
    if (err == MP_OK)
        bytes = mp_node_keep(n, mp_buf_slice(&n->build));
    if (bytes.size != 0)
        mp_node_send_frame(n, n->links[link].client, MP_FRAME_SYNC, stage, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = bytes});
}

void mp_node_deploy_summary(struct mp_node *n, uint32_t link, uint64_t stage)
{
    mp_buf_clear(&n->build);
    send_stage(n, link, stage, mp_deploy_put_summary(n->deploy, &n->build));
}

void mp_node_deploy_sync(struct mp_node *n, mp_time now, uint32_t link, uint64_t stage,
                         struct mp_slice payload)
{
    bool differs = false;
    if (stage == 6) {
        mp_node_deploy_merge(n, now, payload, false);
        return;
    }
    mp_buf_clear(&n->build);
    enum mp_err err =
        mp_deploy_put_differences(n->deploy, payload, MP_HAVE_BYTES_MAX, &n->build, &differs);
    send_stage(n, link, 6, err);
    if (err != MP_ECORRUPT && differs && stage == 5)
        mp_node_deploy_summary(n, link, 7);
}
