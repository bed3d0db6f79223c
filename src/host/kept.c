/* Between the machine and the store. What the store answers comes from the loop, never while
 * effects are being carried out. */
#include "src/host/kept.h"

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/store.h"

void mp_kept_restore(struct mp_host *h, const struct mp_store_restored *restored)
{
    const struct mp_node_event entries = {.kind = MP_NODE_RESTORED,
                                          .stored = {.bytes = mp_buf_slice(&restored->entries)}};
    const struct mp_node_event runs = {
        .kind = MP_NODE_RESTORED_RUNS,
        .stored = {.wall_ms = mp_host_wall_ms(), .bytes = mp_buf_slice(&restored->heads)}};
    const struct mp_node_event messages = {
        .kind = MP_NODE_RESTORED_MESSAGES,
        .stored = {.wall_ms = mp_host_wall_ms(), .bytes = mp_buf_slice(&restored->messages)}};
    mp_host_tell(h, &entries);
    mp_host_tell(h, &runs);
    mp_host_tell(h, &messages);
}

static void tell(struct mp_host *h, enum mp_node_event_kind kind, uint64_t ticket,
                 const struct mp_store_answer *a)
{
    const struct mp_node_event ev = {.kind = kind,
                                     .stored = {.ticket = ticket,
                                                .is_missing = a->is_missing,
                                                .is_error = a->is_error,
                                                .bytes = a->is_error ? a->error : a->found}};
    mp_host_woken(h);
    mp_host_tell(h, &ev);
}

static void on_kept(void *context, uint64_t ticket, const struct mp_store_answer *a)
{
    tell((struct mp_host *)context, MP_NODE_KEPT, ticket, a);
}

static void on_found(void *context, uint64_t ticket, const struct mp_store_answer *a)
{
    tell((struct mp_host *)context, MP_NODE_FOUND, ticket, a);
}

void mp_kept_carry_out(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_store *s = h->store;
    struct mp_slice bytes = e->payload.bytes;
    switch (e->kind) {
    case MP_NODE_KEEP_UNIT:
        mp_store_keep_unit(s, e->id, bytes, e->context, on_kept);
        break;
    case MP_NODE_KEEP_ENTRIES:
        mp_store_keep_entries(s, e->id, bytes, on_kept);
        break;
    case MP_NODE_READ_UNIT:
        mp_store_read_unit(s, e->id, bytes, on_found);
        break;
    case MP_NODE_KEEP_RUN:
        mp_store_keep_run(s, e->id, e->context, bytes, on_kept);
        break;
    case MP_NODE_KEEP_RUN_PART:
        mp_store_keep_run_part(s, e->id, e->context, bytes, on_kept);
        break;
    case MP_NODE_FORGET_RUN:
        mp_store_forget_run(s, e->context);
        break;
    case MP_NODE_READ_RUN:
        mp_store_read_run(s, e->id, e->context, on_found);
        break;
    case MP_NODE_READ_RUN_PART:
        mp_store_read_run_part(s, e->id, e->context, on_found);
        break;
    case MP_NODE_KEEP_MESSAGES:
        mp_store_keep_messages(s, e->id, bytes, on_kept);
        break;
    default:
        mp_assert(e->kind == MP_NODE_FORGET_MESSAGES);
        mp_store_forget_messages(s, bytes);
        break;
    }
}
