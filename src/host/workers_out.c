/* Messages to workers, and the shared blocks that large payloads lie in. A message that finds its
 * ring full waits (bounded) in order; a call that does goes back to the pool at once. */
#include <stdlib.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/workers_internal.h"

#define PENDING_HEAD 8 /* size, kind and flags before each waiting message */

/* --- writing to a ring --- */

static uint32_t body_size(const struct mp_outgoing *o)
{
    size_t size = 0;
    for (int i = 0; i < 4; i++)
        size += o->parts[i].size;
    return (uint32_t)size;
}

static struct mp_ring_record *put_record(struct mp_worker_process *w, const struct mp_outgoing *o)
{
    uint32_t size = body_size(o);
    if (size > mp_ring_body_max(&w->channel.to_worker))
        return NULL;
    struct mp_ring_record *record = mp_ring_reserve(&w->channel.to_worker, size, o->kind, o->flags);
    if (!record)
        return NULL;
    uint8_t *at = mp_ring_body(record);
    for (int i = 0; i < 4; i++) {
        if (o->parts[i].size != 0)
            memcpy(at, o->parts[i].data, o->parts[i].size);
        at += o->parts[i].size;
    }
    w->is_dirty = true;
    return record;
}

/* Sends, or keeps until there is room; order is kept. */
void mp_worker_post(struct mp_worker_process *w, const struct mp_outgoing *o)
{
    if (w->pending.size == 0 && put_record(w, o))
        return;
    const uint32_t head[2] = {body_size(o), (uint32_t)o->kind << 16 | o->flags};
    /* Whole or not at all: half a message would be read as another one. */
    enum mp_err err = mp_buf_reserve(&w->pending, sizeof(head) + head[0]);
    if (err == MP_OK)
        err = mp_buf_append(&w->pending, mp_slice_of(head, sizeof(head)));
    for (int i = 0; err == MP_OK && i < 4; i++)
        err = mp_buf_append(&w->pending, o->parts[i]);
    if (err != MP_OK) {
        mp_log(3, "worker %u does not read its ring: killed", w->place + 1);
        mp_workers_kill(w->host, w->place);
    }
}

static void post_pending(struct mp_worker_process *w)
{
    size_t at = 0;
    while (at < w->pending.size) {
        uint32_t head[2];
        memcpy(head, w->pending.data + at, sizeof(head));
        const struct mp_outgoing o = {
            .kind = (uint16_t)(head[1] >> 16),
            .flags = (uint16_t)head[1],
            .parts = {mp_slice_of(w->pending.data + at + PENDING_HEAD, head[0])}};
        if (!put_record(w, &o))
            break;
        at += PENDING_HEAD + head[0];
    }
    mp_buf_drop(&w->pending, at);
}

void mp_workers_flush(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++) {
        struct mp_worker_process *w = h->workers[i];
        if (!w)
            continue;
        if (w->pending.size != 0)
            post_pending(w);
        if (!w->is_dirty)
            continue;
        w->is_dirty = false;
        if (mp_ring_publish(&w->channel.to_worker)) {
            const uint64_t one = 1;
            ssize_t written = write(w->wake_fd, &one, sizeof(one));
            (void)written; /* a full counter wakes as well */
        }
    }
}

/* --- modules --- */

static void expect_loaded(struct mp_worker_process *w, uint32_t module, uint64_t serial)
{
    if (w->load_count == w->load_capacity) {
        uint32_t capacity = w->load_capacity == 0 ? 16 : w->load_capacity * 2;
        struct mp_load *grown = mp_xalloc(capacity * sizeof(*grown));
        if (w->load_count != 0)
            memcpy(grown, w->loads, w->load_count * sizeof(*grown));
        free(w->loads);
        w->loads = grown;
        w->load_capacity = capacity;
    }
    w->loads[w->load_count++] = (struct mp_load){.module = module, .serial = serial};
}

void mp_worker_load(struct mp_worker_process *w, uint32_t module, uint64_t serial, uint64_t at,
                    uint16_t flags)
{
    const struct mp_host_module *m = &w->host->modules.items[module];
    bool is_large = at != MP_ARENA_NONE;
    const struct mp_msg_load body = {.module = module,
                                     .unit = m->unit,
                                     .name_size = (uint32_t)strlen(m->name),
                                     .expected_size = (uint32_t)m->expected.size,
                                     .source_size = (uint32_t)m->source_size,
                                     .at = is_large ? at : 0};
    const struct mp_slice none = {0};
    const struct mp_outgoing o = {
        .kind = MP_MSG_LOAD,
        .flags = (uint16_t)(flags | (is_large ? MP_RING_LARGE : 0)),
        .parts = {mp_slice_of(&body, sizeof(body)), mp_slice_str(m->name),
                  mp_buf_slice(&m->expected),
                  is_large ? none : mp_slice_of(m->source, m->source_size)}};
    expect_loaded(w, module, serial);
    mp_worker_post(w, &o);
}

/* --- blocks --- */

static uint64_t arena_handle(uint32_t arena, uint64_t at)
{
    return MP_HANDLE_WORKER | (uint64_t)arena << 44 | at;
}

void mp_worker_arena_close(struct mp_worker_arena *a)
{
    if (!a->worker && a->users == 0)
        mp_arena_view_close(&a->view);
}

void mp_workers_release(struct mp_host *h, uint64_t handle)
{
    struct mp_worker_arena *a = &h->arenas[handle >> 44 & 0xffff];
    mp_assert(a->users > 0);
    a->users--;
    if (!a->worker) {
        mp_worker_arena_close(a);
        return;
    }
    const struct mp_msg_release body = {.at = handle & ((1ull << 44) - 1)};
    const struct mp_outgoing o = {.kind = MP_MSG_RELEASE,
                                  .parts = {mp_slice_of(&body, sizeof(body))}};
    mp_worker_post(a->worker, &o);
}

bool mp_worker_arena_open(struct mp_host *h, struct mp_worker_process *w, int fd)
{
    uint32_t i = 0;
    while (i < h->arena_count && (h->arenas[i].worker || h->arenas[i].users != 0))
        i++;
    if (i == h->arena_count) {
        struct mp_worker_arena *grown = realloc(h->arenas, (i + 1) * sizeof(*grown));
        if (!grown)
            return false;
        h->arenas = grown;
        h->arenas[i] = (struct mp_worker_arena){0};
        h->arena_count++;
    }
    if (mp_arena_view_open(&h->arenas[i].view, fd) != MP_OK)
        return false;
    h->arenas[i].worker = w;
    w->arena = i;
    return true;
}

/* The bytes of a payload that a worker announced; false if they are not where it says. */
bool mp_worker_payload(struct mp_worker_process *w, const struct mp_ring_record *record,
                       struct mp_slice inline_bytes, uint32_t size, uint64_t at,
                       struct mp_rpc_payload *payload)
{
    *payload = (struct mp_rpc_payload){0};
    if ((record->flags & MP_RING_LARGE) == 0) {
        if (size > inline_bytes.size)
            return false;
        payload->bytes = mp_slice_of(inline_bytes.data, size);
        return true;
    }
    struct mp_worker_arena *a = &w->host->arenas[w->arena];
    if (at >= 1ull << 44 || !mp_arena_view_get(&a->view, at, size, &payload->bytes))
        return false;
    payload->handle = arena_handle(w->arena, at);
    a->users++;
    return true;
}

/* --- what was sent --- */

struct mp_sent *mp_workers_sent(struct mp_host *h, uint64_t call)
{
    uint32_t slot = (uint32_t)call;
    if (slot >= h->sent_capacity || h->sent[slot].call != call)
        return NULL;
    return &h->sent[slot];
}

void mp_workers_forget(struct mp_host *h, struct mp_sent *s)
{
    if (s->block != MP_ARENA_NONE)
        mp_host_release(h, MP_HANDLE_HOST | s->block);
    *s = (struct mp_sent){.block = MP_ARENA_NONE};
}

static struct mp_sent *new_sent(struct mp_host *h, uint64_t call)
{
    uint32_t slot = (uint32_t)call;
    if (slot >= h->sent_capacity) {
        uint32_t capacity = h->sent_capacity == 0 ? 1024 : h->sent_capacity;
        while (capacity <= slot)
            capacity *= 2;
        struct mp_sent *grown = mp_xalloc(capacity * sizeof(*grown));
        if (h->sent_capacity != 0)
            memcpy(grown, h->sent, h->sent_capacity * sizeof(*grown));
        for (uint32_t i = h->sent_capacity; i < capacity; i++)
            grown[i].block = MP_ARENA_NONE;
        free(h->sent);
        h->sent = grown;
        h->sent_capacity = capacity;
    }
    return &h->sent[slot];
}

static void returned(struct mp_host *h, uint32_t place, uint64_t call, bool is_back, bool is_full)
{
    const struct mp_node_event ev = {
        .kind = MP_NODE_RETURNED,
        .returned = {.worker = place, .call = call, .is_back = is_back, .is_full = is_full}};
    mp_host_step(h, &ev);
}

/* Arguments too large for a ring that are not in a shared block yet (those of a run's steps). */
bool mp_workers_share(struct mp_host *h, struct mp_slice args, uint64_t *at)
{
    *at = mp_arena_take(h->arena, args.size, 6);
    if (*at == MP_ARENA_NONE)
        return false;
    memcpy(mp_arena_at(h->arena, *at), args.data, args.size);
    return true;
}

void mp_workers_send(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_worker_process *w = h->workers[e->worker];
    mp_assert(w);
    bool is_large = e->payload.handle != 0 || e->payload.bytes.size >= MP_VALUE_INLINE_MAX;
    uint64_t block = MP_ARENA_NONE;
    uint64_t at = e->payload.handle & (MP_HANDLE_HOST - 1);
    struct mp_msg_invoke body = {.call = e->id,
                                 .module = e->module,
                                 .function = e->function,
                                 .release = e->release,
                                 .deadline = e->deadline,
                                 .context_size = (uint32_t)e->context.size,
                                 .args_size = (uint32_t)e->payload.bytes.size};
    bool has_room = w->pending.size == 0;
    if (has_room && is_large && e->payload.handle == 0) {
        has_room = mp_workers_share(h, e->payload.bytes, &block);
        at = block;
    }
    body.at = is_large ? at : 0;
    const struct mp_outgoing o = {.kind = MP_MSG_INVOKE,
                                  .flags = is_large ? MP_RING_LARGE : 0,
                                  .parts = {mp_slice_of(&body, sizeof(body)), e->context,
                                            is_large ? mp_slice_of(NULL, 0) : e->payload.bytes}};
    uint64_t position = w->channel.to_worker.tail;
    struct mp_ring_record *record = has_room ? put_record(w, &o) : NULL;
    if (!record) {
        if (block != MP_ARENA_NONE)
            mp_host_release(h, MP_HANDLE_HOST | block);
        returned(h, e->worker, e->id, true, true);
        return;
    }
    *new_sent(h, e->id) = (struct mp_sent){
        .call = e->id, .position = position, .record = record, .block = block, .worker = e->worker};
}

/* Whether the worker has not begun the call; then it never will. */
bool mp_worker_take_back(struct mp_worker_process *w, const struct mp_sent *s)
{
    uint64_t head = atomic_load_explicit(&w->channel.to_worker.shared->head, memory_order_acquire);
    if (s->position < head || s->position >= w->channel.to_worker.tail)
        return false;
    uint32_t expected = MP_RING_READY;
    return atomic_compare_exchange_strong(&s->record->state, &expected, MP_RING_REVOKED);
}

void mp_workers_revoke(struct mp_host *h, uint32_t place, uint64_t call)
{
    struct mp_worker_process *w = h->workers[place];
    struct mp_sent *s = mp_workers_sent(h, call);
    if (!w || !s || s->worker != place)
        return; /* its way back is told already */
    bool is_back = mp_worker_take_back(w, s);
    if (is_back)
        mp_workers_forget(h, s);
    returned(h, place, call, is_back, false);
}

void mp_workers_cancel(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_worker_process *w = h->workers[e->worker];
    const struct mp_msg_cancel body = {.id = e->id, .size = (uint32_t)e->payload.bytes.size};
    const struct mp_outgoing o = {.kind = MP_MSG_CANCEL,
                                  .flags = MP_RING_ERROR,
                                  .parts = {mp_slice_of(&body, sizeof(body)), e->payload.bytes}};
    if (w)
        mp_worker_post(w, &o);
}

void mp_workers_lend(struct mp_host *h, const struct mp_worker_process *w, uint64_t at)
{
    if (h->lent_count == h->lent_capacity) {
        uint32_t capacity = h->lent_capacity == 0 ? 16 : h->lent_capacity * 2;
        struct mp_lent *grown = mp_xalloc(capacity * sizeof(*grown));
        if (h->lent_count != 0)
            memcpy(grown, h->lent, h->lent_count * sizeof(*grown));
        free(h->lent);
        h->lent = grown;
        h->lent_capacity = capacity;
    }
    h->lent[h->lent_count++] = (struct mp_lent){.at = at, .incarnation = w->incarnation};
}

void mp_workers_unlend(struct mp_host *h, uint32_t index)
{
    uint64_t at = h->lent[index].at;
    h->lent[index] = h->lent[--h->lent_count];
    for (uint32_t i = 0; i < h->lent_count; i++)
        if (h->lent[i].at == at)
            return;
    mp_host_release(h, MP_HANDLE_HOST | at);
}

/* The worker of that incarnation, or NULL if it is gone. */
static struct mp_worker_process *worker_of(struct mp_host *h, uint64_t incarnation)
{
    struct mp_worker_process *w = h->workers[(uint32_t)incarnation];
    return w && w->incarnation == incarnation ? w : NULL;
}

void mp_workers_result(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_worker_process *w = worker_of(h, e->client);
    struct mp_msg_result body = {.nested = e->id, .size = (uint32_t)e->payload.bytes.size};
    struct mp_outgoing o = {.kind = MP_MSG_RESULT,
                            .flags = e->is_error ? MP_RING_ERROR : 0,
                            .parts = {mp_slice_of(NULL, 0), e->payload.bytes}};
    bool is_large = e->payload.bytes.size >= MP_VALUE_INLINE_MAX;
    if (w && is_large) {
        /* The other worker's arena is not mapped there: it goes through the host's. */
        if (mp_workers_share(h, e->payload.bytes, &body.at)) {
            mp_workers_lend(h, w, body.at);
            o.flags |= MP_RING_LARGE;
            o.parts[1] = mp_slice_of(NULL, 0);
        } else {
            static const uint8_t full[] = "\x83\xa4"
                                          "code\xb2RESOURCE_EXHAUSTED\xa6reason\xa9TOO_LARGE"
                                          "\xa7message\xd9\x2b"
                                          "no shared memory is left for a large result";
            o.flags = MP_RING_ERROR;
            o.parts[1] = mp_slice_of(full, sizeof(full) - 1);
            body.size = (uint32_t)o.parts[1].size;
        }
    }
    o.parts[0] = mp_slice_of(&body, sizeof(body));
    if (w)
        mp_worker_post(w, &o);
    if (e->payload.handle != 0)
        mp_host_release(h, e->payload.handle);
}

void mp_workers_probe(struct mp_host *h, uint32_t place)
{
    struct mp_worker_process *w = h->workers[place];
    struct mp_node_event ev = {.kind = MP_NODE_PROBED, .probed = {.worker = place}};
    if (w) {
        const struct mp_ring *ring = &w->channel.to_worker;
        uint64_t head = atomic_load(&ring->shared->head);
        ev.probed.running = atomic_load(&w->channel.status->running);
        ev.probed.since = atomic_load(&w->channel.status->running_since);
        ev.probed.progress = head + atomic_load(&w->channel.status->turns);
        ev.probed.has_unread = head != ring->tail || w->pending.size != 0;
        ev.probed.has_room = w->pending.size == 0 && ring->tail - head <= ring->capacity / 2;
    }
    if (ev.probed.since > h->now)
        ev.probed.since = h->now;
    if (ev.probed.running & MP_CHANNEL_LOADING)
        ev.probed.running = 0;
    mp_host_step(h, &ev);
}
