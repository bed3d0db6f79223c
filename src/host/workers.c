/* Worker processes: starting them, and the messages in both directions. Nothing that a worker
 * writes is believed: sizes are checked against the record, calls against the pool, blocks against
 * the arena; a worker that breaks the rules is killed. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/json/json.h"
#include "src/wire/msgpack.h"

#define ARENA_BYTES_MIN   (256ull << 20)
#define PENDING_BYTES_MAX (64u << 20) /* messages waiting for room in a ring */
#define DRAIN_MAX         1024        /* messages of one worker taken in a turn */

/* --- writing to a ring --- */

/* A message made of a fixed part and up to three slices. */
struct outgoing {
    uint16_t kind;
    uint16_t flags;
    struct mp_slice parts[4];
};

static uint32_t body_size(const struct outgoing *o)
{
    size_t size = 0;
    for (int i = 0; i < 4; i++)
        size += o->parts[i].size;
    return (uint32_t)size;
}

static struct mp_ring_record *put_record(struct mp_worker_process *w, const struct outgoing *o)
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
static void post(struct mp_worker_process *w, const struct outgoing *o)
{
    if (w->pending.size == 0 && put_record(w, o))
        return;
    const uint32_t head[2] = {body_size(o), (uint32_t)o->kind << 16 | o->flags};
    enum mp_err err = mp_buf_append(&w->pending, mp_slice_of(head, sizeof(head)));
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
        const struct outgoing o = {.kind = (uint16_t)(head[1] >> 16),
                                   .flags = (uint16_t)head[1],
                                   .parts = {mp_slice_of(w->pending.data + at + 8, head[0])}};
        if (!put_record(w, &o))
            break;
        at += 8 + head[0];
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

/* --- blocks --- */

static uint64_t arena_handle(uint32_t arena, uint64_t at)
{
    return MP_HANDLE_WORKER | (uint64_t)arena << 44 | at;
}

static void arena_close_if_unused(struct mp_worker_arena *a)
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
        arena_close_if_unused(a);
        return;
    }
    const struct mp_msg_release body = {.at = handle & ((1ull << 44) - 1)};
    const struct outgoing o = {.kind = MP_MSG_RELEASE, .parts = {mp_slice_of(&body, sizeof(body))}};
    post(a->worker, &o);
}

static bool arena_open(struct mp_host *h, struct mp_worker_process *w, int fd)
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
static bool payload_of(struct mp_worker_process *w, const struct mp_ring_record *record,
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

static struct mp_sent *sent_of(struct mp_host *h, uint64_t call)
{
    uint32_t slot = (uint32_t)call;
    if (slot >= h->sent_capacity || h->sent[slot].call != call)
        return NULL;
    return &h->sent[slot];
}

static void forget_sent(struct mp_host *h, struct mp_sent *s)
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
static bool share_args(struct mp_host *h, struct mp_slice args, uint64_t *at)
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
                                 .deadline = e->deadline,
                                 .context_size = (uint32_t)e->context.size,
                                 .args_size = (uint32_t)e->payload.bytes.size};
    bool has_room = w->pending.size == 0;
    if (has_room && is_large && e->payload.handle == 0) {
        has_room = share_args(h, e->payload.bytes, &block);
        at = block;
    }
    body.at = is_large ? at : 0;
    const struct outgoing o = {.kind = MP_MSG_INVOKE,
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
static bool take_back(struct mp_worker_process *w, const struct mp_sent *s)
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
    struct mp_sent *s = sent_of(h, call);
    if (!w || !s || s->worker != place)
        return; /* its way back is told already */
    bool is_back = take_back(w, s);
    if (is_back)
        forget_sent(h, s);
    returned(h, place, call, is_back, false);
}

void mp_workers_cancel(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_worker_process *w = h->workers[e->worker];
    const struct mp_msg_cancel body = {.id = e->id, .size = (uint32_t)e->payload.bytes.size};
    const struct outgoing o = {.kind = MP_MSG_CANCEL,
                               .flags = MP_RING_ERROR,
                               .parts = {mp_slice_of(&body, sizeof(body)), e->payload.bytes}};
    if (w)
        post(w, &o);
}

/* A block that only this worker uses, until it says that it is done or dies. */
static void lend(struct mp_host *h, const struct mp_worker_process *w, uint64_t at)
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
    struct outgoing o = {.kind = MP_MSG_RESULT,
                         .flags = e->is_error ? MP_RING_ERROR : 0,
                         .parts = {mp_slice_of(NULL, 0), e->payload.bytes}};
    bool is_large = e->payload.bytes.size >= MP_VALUE_INLINE_MAX;
    if (w && is_large) {
        /* The other worker's arena is not mapped there: it goes through the host's. */
        if (share_args(h, e->payload.bytes, &body.at)) {
            lend(h, w, body.at);
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
        post(w, &o);
    if (e->payload.handle != 0)
        mp_host_release(h, e->payload.handle);
}

void mp_workers_probe(struct mp_host *h, uint32_t place)
{
    struct mp_worker_process *w = h->workers[place];
    struct mp_node_event ev = {.kind = MP_NODE_PROBED, .probed = {.worker = place}};
    if (w) {
        ev.probed.running = atomic_load(&w->channel.status->running);
        ev.probed.since = atomic_load(&w->channel.status->running_since);
    }
    if (ev.probed.since > h->now)
        ev.probed.since = h->now;
    if (ev.probed.running & MP_CHANNEL_LOADING)
        ev.probed.running = 0;
    mp_host_step(h, &ev);
}

/* --- the end of a worker --- */

static const char *signal_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } known[] = {{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"},   {SIGABRT, "SIGABRT"},
                 {SIGKILL, "SIGKILL"}, {SIGILL, "SIGILL"},   {SIGFPE, "SIGFPE"},
                 {SIGTERM, "SIGTERM"}, {SIGTRAP, "SIGTRAP"}, {SIGXCPU, "SIGXCPU"}};
    for (size_t i = 0; i < MP_ARRAY_SIZE(known); i++)
        if (known[i].number == number)
            return known[i].name;
    return "a signal";
}

/* Calls that the worker never began: their records are still READY, and stay so from now on. */
static uint32_t list_unbegun(struct mp_host *h, struct mp_worker_process *w, uint64_t *list)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < h->sent_capacity; i++) {
        struct mp_sent *s = &h->sent[i];
        if (s->call != 0 && s->worker == w->place && take_back(w, s))
            list[count++] = s->call;
    }
    return count;
}

static void fail_module(struct mp_host *h, uint64_t running, const char *how)
{
    uint32_t module = (uint32_t)(running & ~MP_CHANNEL_LOADING);
    if (module >= h->modules.count || h->modules.items[module].state == MP_MODULE_FAILED)
        return;
    h->modules.items[module].state = MP_MODULE_FAILED;
    mp_log(3, "module %s is left out: %s while it was loaded", h->modules.items[module].name, how);
}

static void worker_free(struct mp_worker_process *w)
{
    struct mp_host *h = w->host;
    struct mp_worker_arena *a = &h->arenas[w->arena];
    if (a->worker == w) {
        a->worker = NULL;
        arena_close_if_unused(a);
    }
    mp_channel_close(&w->channel);
    mp_buf_fini(&w->pending);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    h->workers[w->place] = NULL;
    free(w);
}

static void worker_died(struct mp_worker_process *w, const char *how)
{
    struct mp_host *h = w->host;
    uint64_t running = atomic_load(&w->channel.status->running);
    if ((running & MP_CHANNEL_LOADING) != 0)
        fail_module(h, running, w->is_killed_for_load ? "it did not finish within 2 s" : how);
    if (h->describer == w->incarnation)
        h->describer = UINT64_MAX;
    uint64_t *unbegun = mp_xalloc((h->sent_capacity + 1) * sizeof(uint64_t));
    uint32_t count = list_unbegun(h, w, unbegun);
    for (uint32_t i = 0; i < h->sent_capacity; i++)
        if (h->sent[i].call != 0 && h->sent[i].worker == w->place)
            forget_sent(h, &h->sent[i]);
    const struct mp_node_event ev = {
        .kind = MP_NODE_WORKER_DIED,
        .worker = {.worker = w->place,
                   .incarnation = w->incarnation,
                   .running = running & MP_CHANNEL_LOADING ? 0 : running,
                   .unbegun = unbegun,
                   .unbegun_count = count,
                   .how = mp_slice_str(how)}};
    for (uint32_t i = h->lent_count; i-- > 0;)
        if (h->lent[i].incarnation == w->incarnation) {
            mp_host_release(h, MP_HANDLE_HOST | h->lent[i].at);
            h->lent[i] = h->lent[--h->lent_count];
        }
    h->workers_alive--;
    worker_free(w);
    mp_host_step(h, &ev);
    free(unbegun);
}

static void on_process_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_exit_of_worker(uv_process_t *process, int64_t status, int signal)
{
    struct mp_worker_process *w = (struct mp_worker_process *)process->data;
    char how[64];
    if (signal != 0)
        snprintf(how, sizeof(how), "signal %d (%s)", signal, signal_name(signal));
    else
        snprintf(how, sizeof(how), "exit status %lld", (long long)status);
    bool is_clean = signal == 0 && status == 0;
    mp_log(is_clean || w->host->is_over ? 0 : 2, "worker %u (pid %d) ended: %s", w->place + 1,
           process->pid, how);
    /* What it had said before it died still counts. */
    while (mp_workers_drain(w->host)) {
    }
    uv_close((uv_handle_t *)process, on_process_closed);
    w->host->had_input = true;
    worker_died(w, how);
}

void mp_workers_kill(struct mp_host *h, uint32_t place)
{
    if (h->workers[place])
        uv_process_kill(h->workers[place]->process, SIGKILL);
}

void mp_workers_stop(struct mp_host *h, uint32_t place)
{
    const struct outgoing o = {.kind = MP_MSG_STOP};
    if (h->workers[place])
        post(h->workers[place], &o);
}

void mp_workers_kill_all(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        mp_workers_kill(h, i);
}

/* --- starting --- */

static uint64_t arena_bytes(const struct mp_host *h)
{
    uint64_t bytes = 3 * (h->cfg->value_max + MP_FRAME_SLACK_BYTES);
    return bytes < ARENA_BYTES_MIN ? ARENA_BYTES_MIN : bytes;
}

static enum mp_err put_pair(struct mp_buf *b, const char *key, struct mp_slice text)
{
    enum mp_err err = mp_mp_put_text(b, key);
    return err != MP_OK ? err : mp_mp_put_str(b, text);
}

static enum mp_err put_number(struct mp_buf *b, const char *key, uint64_t number)
{
    enum mp_err err = mp_mp_put_text(b, key);
    return err != MP_OK ? err : mp_mp_put_uint(b, number);
}

static enum mp_err put_config(struct mp_host *h, struct mp_worker_process *w, struct mp_buf *b)
{
    const struct mp_host_config *cfg = h->cfg;
    char lua_path[2 * PATH_MAX + 32];
    snprintf(lua_path, sizeof(lua_path), "%s/?.lua;%s/?/init.lua", cfg->lua_dir, cfg->lua_dir);
    enum mp_err err = mp_mp_put_map(b, 8);
    if (err == MP_OK)
        err = put_pair(b, "node", mp_slice_str(cfg->name));
    if (err == MP_OK)
        err = put_pair(b, "cluster", mp_slice_str(cfg->cluster));
    if (err == MP_OK)
        err = put_pair(b, "addr", mp_slice_str(h->addr));
    if (err == MP_OK)
        err = put_pair(b, "lua_path", mp_slice_str(lua_path));
    if (err == MP_OK)
        err = put_number(b, "worker", w->place + 1);
    if (err == MP_OK)
        err = put_number(b, "memory_bytes_max", cfg->worker_memory);
    if (err == MP_OK)
        err = put_number(b, "value_bytes_max", cfg->value_max);
    if (err == MP_OK)
        err = mp_mp_put_text(b, "resources");
    if (err == MP_OK)
        err = mp_mp_put_map(b, cfg->resource_count);
    for (uint32_t i = 0; err == MP_OK && i < cfg->resource_count; i++) {
        err = mp_mp_put_str(b, cfg->resources[i].name);
        if (err == MP_OK && cfg->resources[i].value.size != 0)
            err = mp_mp_put_raw(b, cfg->resources[i].value);
        else if (err == MP_OK)
            err = mp_mp_put_bool(b, true);
    }
    return err;
}

static void send_config(struct mp_host *h, struct mp_worker_process *w)
{
    struct mp_buf b;
    mp_buf_init(&b, mp_host_alloc(), 0);
    if (put_config(h, w, &b) == MP_OK) {
        const struct mp_msg_config body = {.size = (uint32_t)b.size};
        const struct outgoing o = {.kind = MP_MSG_CONFIG,
                                   .parts = {mp_slice_of(&body, sizeof(body)), mp_buf_slice(&b)}};
        post(w, &o);
    }
    mp_buf_fini(&b);
}

static void send_module(struct mp_host *h, struct mp_worker_process *w, uint32_t i)
{
    struct mp_host_module *m = &h->modules.items[i];
    struct mp_msg_load body = {.module = i,
                               .name_size = (uint32_t)strlen(m->name),
                               .expected_size = (uint32_t)m->expected.size,
                               .source_size = (uint32_t)m->source_size};
    uint16_t flags = 0;
    if (m->state == MP_MODULE_UNKNOWN && h->describer == w->incarnation)
        flags |= MP_RING_DESCRIBE;
    struct mp_slice source = mp_slice_of(m->source, m->source_size);
    if (m->source_size >= MP_VALUE_INLINE_MAX) {
        if (!share_args(h, source, &body.at)) {
            mp_log(3, "module %s is left out: no shared memory for its source", m->name);
            m->state = MP_MODULE_FAILED;
            return;
        }
        lend(h, w, body.at);
        flags |= MP_RING_LARGE;
        source = mp_slice_of(NULL, 0);
    }
    const struct outgoing o = {.kind = MP_MSG_LOAD,
                               .flags = flags,
                               .parts = {mp_slice_of(&body, sizeof(body)), mp_slice_str(m->name),
                                         mp_buf_slice(&m->expected), source}};
    w->loads_pending++;
    post(w, &o);
}

static bool spawn(struct mp_host *h, struct mp_worker_process *w, int channel_fd, int arena_fd)
{
    char host_pid[16];
    char name[] = "mpreg-worker";
    char *args[] = {name, host_pid, NULL};
    snprintf(host_pid, sizeof(host_pid), "%d", (int)getpid());
    const int fds[] = {-1, 2, 2, channel_fd, w->wake_fd, h->wake_fd, h->arena_fd, arena_fd};
    uv_stdio_container_t stdio[MP_ARRAY_SIZE(fds)];
    for (size_t i = 0; i < MP_ARRAY_SIZE(fds); i++) {
        stdio[i].flags = fds[i] < 0 ? UV_IGNORE : UV_INHERIT_FD;
        stdio[i].data.fd = fds[i];
    }
    const uv_process_options_t options = {.file = "/proc/self/exe",
                                          .args = args,
                                          .stdio = stdio,
                                          .stdio_count = MP_ARRAY_SIZE(fds),
                                          .exit_cb = on_exit_of_worker};
    w->process = mp_xalloc(sizeof(*w->process));
    w->process->data = w;
    int err = uv_spawn(&h->loop, w->process, &options);
    if (err == 0)
        return true;
    mp_log(3, "a worker process could not be started: %s", uv_strerror(err));
    uv_close((uv_handle_t *)w->process, on_process_closed);
    return false;
}

static bool prepare(struct mp_host *h, struct mp_worker_process *w, int *channel_fd, int *arena_fd)
{
    w->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (w->wake_fd < 0 || mp_channel_create(channel_fd) != MP_OK)
        return false;
    if (mp_channel_open(&w->channel, *channel_fd) != MP_OK ||
        mp_arena_make_file(arena_bytes(h), arena_fd) != MP_OK)
        return false;
    return arena_open(h, w, *arena_fd);
}

static void start_failed(struct mp_host *h, uint32_t place)
{
    const struct mp_node_event ev = {.kind = MP_NODE_WORKER_DIED,
                                     .worker = {.worker = place,
                                                .incarnation = UINT32_MAX - 1,
                                                .how = mp_slice_str("it could not be started")}};
    mp_host_step(h, &ev);
}

void mp_workers_start(struct mp_host *h, uint32_t place)
{
    int channel_fd = -1;
    int arena_fd = -1;
    struct mp_worker_process *w = mp_xalloc(sizeof(*w));
    mp_assert(!h->workers[place]);
    w->host = h;
    w->place = place;
    w->wake_fd = -1;
    w->arena = UINT32_MAX;
    w->incarnation = ++h->incarnations << 32 | place;
    mp_buf_init(&w->pending, mp_host_alloc(), PENDING_BYTES_MAX);
    bool is_started = prepare(h, w, &channel_fd, &arena_fd) && spawn(h, w, channel_fd, arena_fd);
    if (channel_fd >= 0)
        close(channel_fd);
    if (arena_fd >= 0)
        close(arena_fd);
    h->workers[place] = w;
    h->worker_count = place >= h->worker_count ? place + 1 : h->worker_count;
    if (!is_started) {
        if (w->arena == UINT32_MAX) {
            mp_log(3, "a worker could not be prepared: %s", strerror(errno));
            mp_channel_close(&w->channel);
            if (w->wake_fd >= 0)
                close(w->wake_fd);
            h->workers[place] = NULL;
            free(w);
        } else {
            worker_free(w);
        }
        start_failed(h, place);
        return;
    }
    h->workers_alive++;
    if (h->describer == UINT64_MAX)
        h->describer = w->incarnation;
    send_config(h, w);
    for (uint32_t i = 0; i < h->modules.count; i++)
        if (h->modules.items[i].state != MP_MODULE_FAILED)
            send_module(h, w, i);
}

/* --- what workers say --- */

static void broke_rules(struct mp_worker_process *w, const char *what)
{
    mp_log(3, "worker %u sent %s: killed", w->place + 1, what);
    w->channel.to_host.is_broken = true;
    mp_workers_kill(w->host, w->place);
}

/* The rest of a body behind its fixed part; false if it is not even that long. */
static bool split_body(struct mp_ring_record *record, void *fixed, size_t fixed_size,
                       struct mp_slice *rest)
{
    size_t size = *(volatile uint32_t *)&record->size - sizeof(*record);
    if (size < fixed_size)
        return false;
    memcpy(fixed, mp_ring_body(record), fixed_size);
    *rest = mp_slice_of(mp_ring_body(record) + fixed_size, size - fixed_size);
    return true;
}

static bool on_completed(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_host *h = w->host;
    struct mp_msg_completed m;
    struct mp_slice rest;
    struct mp_node_event ev = {.kind = MP_NODE_COMPLETED};
    if (!split_body(record, &m, sizeof(m), &rest) || !sent_of(h, m.call) ||
        !mp_node_worker_has(h->node, w->place, m.call) ||
        !payload_of(w, record, rest, m.size, m.at, &ev.completed.payload))
        return false;
    forget_sent(h, sent_of(h, m.call));
    ev.completed.worker = w->place;
    ev.completed.call = m.call;
    ev.completed.is_error = (record->flags & MP_RING_ERROR) != 0;
    ev.completed.is_retiring = (record->flags & MP_RING_RETIRE) != 0;
    ev.completed.begun_at = m.begun_at;
    ev.completed.ended_at = m.ended_at;
    ev.completed.run = m.run_ns;
    mp_host_step(h, &ev);
    return true;
}

static bool on_nested(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_nested m;
    struct mp_slice rest;
    struct mp_node_event ev = {.kind = MP_NODE_NESTED};
    if (!split_body(record, &m, sizeof(m), &rest) || m.options_size > rest.size ||
        m.fun_size > rest.size - m.options_size)
        return false;
    size_t before = (size_t)m.options_size + m.fun_size;
    struct mp_slice inline_args = mp_slice_of(rest.data + before, rest.size - before);
    if (!payload_of(w, record, inline_args, m.args_size, m.at, &ev.nested.args))
        return false;
    ev.nested.worker = w->place;
    ev.nested.incarnation = w->incarnation;
    ev.nested.parent = m.parent;
    ev.nested.nested = m.nested;
    ev.nested.options = mp_slice_of(rest.data, m.options_size);
    ev.nested.fun = mp_slice_of(rest.data + m.options_size, m.fun_size);
    /* Another worker does not see this one's arena: large arguments move to the host's. */
    uint64_t handle = ev.nested.args.handle;
    uint64_t at = MP_ARENA_NONE;
    if (handle != 0) {
        bool is_shared = share_args(w->host, ev.nested.args.bytes, &at);
        if (is_shared)
            ev.nested.args.bytes =
                mp_slice_of(mp_arena_at(w->host->arena, at), ev.nested.args.bytes.size);
        ev.nested.args.handle = is_shared ? MP_HANDLE_HOST | at : 0;
    }
    mp_host_step(w->host, &ev);
    if (handle != 0)
        mp_host_release(w->host, handle);
    return true;
}

static bool on_nested_cancel(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_cancel m;
    struct mp_slice rest;
    if (!split_body(record, &m, sizeof(m), &rest))
        return false;
    const struct mp_node_event ev = {
        .kind = MP_NODE_NESTED_CANCEL,
        .nested = {.worker = w->place, .incarnation = w->incarnation, .nested = m.id}};
    mp_host_step(w->host, &ev);
    return true;
}

static void log_load_error(const struct mp_host_module *module, struct mp_slice error)
{
    struct mp_fault fault;
    if (mp_fault_read(error, &fault) != MP_OK)
        fault = (struct mp_fault){.reason = mp_slice_str("LOAD_ERROR")};
    mp_log(3, "module %s is left out: %.*s: %.*s", module->name, (int)fault.reason.size,
           (const char *)fault.reason.data, (int)fault.message.size,
           (const char *)fault.message.data);
}

/* The names of a module's functions in their order, for workers that load it later. */
static void keep_expected(struct mp_host_module *module, struct mp_slice metadata)
{
    struct mp_slice list;
    struct mp_mp_reader r;
    uint32_t count;
    if (mp_mp_map_get(metadata, mp_slice_str("functions"), &list) != MP_OK ||
        mp_mp_get_array(list, &count, &r) != MP_OK)
        return;
    enum mp_err err = mp_mp_put_array(&module->expected, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice function;
        struct mp_slice name;
        err = mp_mp_take(&r, &function);
        if (err == MP_OK)
            err = mp_mp_map_get(function, mp_slice_str("name"), &name);
        if (err == MP_OK)
            err = mp_mp_put_raw(&module->expected, name);
    }
    if (err != MP_OK)
        mp_buf_clear(&module->expected);
}

static void describe(struct mp_host *h, uint32_t i, struct mp_slice metadata)
{
    struct mp_host_module *module = &h->modules.items[i];
    module->state = MP_MODULE_KNOWN;
    keep_expected(module, metadata);
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = i,
                                                .name = mp_slice_str(module->name),
                                                .hash = mp_slice_str(module->hash),
                                                .metadata = metadata}};
    mp_host_step(h, &ev);
}

static bool on_loaded(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_host *h = w->host;
    struct mp_msg_loaded m;
    struct mp_slice rest;
    struct mp_rpc_payload payload;
    if (!split_body(record, &m, sizeof(m), &rest) || m.module >= h->modules.count ||
        w->loads_pending == 0 || !payload_of(w, record, rest, m.size, m.at, &payload))
        return false;
    struct mp_host_module *module = &h->modules.items[m.module];
    if (module->state == MP_MODULE_UNKNOWN && (record->flags & MP_RING_ERROR) != 0) {
        module->state = MP_MODULE_FAILED;
        log_load_error(module, payload.bytes);
    } else if (module->state == MP_MODULE_UNKNOWN && payload.bytes.size != 0 &&
               mp_mp_check(payload.bytes) == MP_OK && mp_mp_type_of(payload.bytes) == MP_MP_MAP) {
        describe(h, m.module, payload.bytes);
    }
    if (payload.handle != 0)
        mp_host_release(h, payload.handle);
    if (--w->loads_pending == 0) {
        const struct mp_node_event ev = {.kind = MP_NODE_WORKER_READY,
                                         .worker = {.worker = w->place}};
        w->is_ready = true;
        mp_host_step(h, &ev);
    }
    return true;
}

static const char *function_name(struct mp_host *h, uint64_t call, char *out, size_t size)
{
    struct mp_slice name = mp_node_function_of(h->node, call);
    snprintf(out, size, "%.*s", (int)name.size, name.size ? (const char *)name.data : "");
    return out;
}

static bool on_log(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_log m;
    struct mp_slice rest;
    struct mp_slice value;
    struct mp_slice message = {0};
    char fun[MP_FUNCTION_BYTES_MAX + 1];
    if (!split_body(record, &m, sizeof(m), &rest) || m.size > rest.size || m.level > 3)
        return false;
    struct mp_slice map = mp_slice_of(rest.data, m.size);
    if (mp_mp_check(map) != MP_OK)
        return false;
    if (mp_mp_map_get(map, mp_slice_str("message"), &value) == MP_OK &&
        mp_mp_get_str(value, &message) != MP_OK)
        message = mp_slice_of(NULL, 0);
    struct mp_buf fields;
    struct mp_json_error error;
    mp_buf_init(&fields, mp_host_alloc(), 0);
    if (mp_mp_map_get(map, mp_slice_str("fields"), &value) != MP_OK ||
        mp_json_from_msgpack(value, &fields, NULL, &error) != MP_OK)
        mp_buf_clear(&fields);
    mp_log_function((int)m.level, function_name(w->host, m.call, fun, sizeof(fun)), w->place + 1,
                    message, mp_buf_slice(&fields));
    mp_buf_fini(&fields);
    return true;
}

/* Arguments of calls are given back when the call ends, because an attempt may have to be repeated:
 * a worker that is done with them says so in vain. */
static bool on_release(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_release m;
    struct mp_slice rest;
    struct mp_host *h = w->host;
    if (!split_body(record, &m, sizeof(m), &rest))
        return false;
    for (uint32_t i = 0; i < h->lent_count; i++)
        if (h->lent[i].at == m.at && h->lent[i].incarnation == w->incarnation) {
            h->lent[i] = h->lent[--h->lent_count];
            mp_host_release(h, MP_HANDLE_HOST | m.at);
            break;
        }
    return true;
}

static bool on_message(struct mp_worker_process *w, struct mp_ring_record *record)
{
    switch ((enum mp_ring_kind)record->kind) {
    case MP_MSG_COMPLETED:
        return on_completed(w, record);
    case MP_MSG_NESTED:
        return on_nested(w, record);
    case MP_MSG_NESTED_CANCEL:
        return on_nested_cancel(w, record);
    case MP_MSG_LOADED:
        return on_loaded(w, record);
    case MP_MSG_LOG:
        return on_log(w, record);
    case MP_MSG_RELEASE:
        return on_release(w, record);
    default:
        return false;
    }
}

static bool drain_one(struct mp_worker_process *w)
{
    struct mp_ring *ring = &w->channel.to_host;
    uint32_t taken = 0;
    while (taken < DRAIN_MAX) {
        struct mp_ring_record *record = mp_ring_next(ring);
        if (!record)
            break;
        taken++;
        if (!on_message(w, record)) {
            broke_rules(w, "a message that cannot be right");
            break;
        }
    }
    if (ring->is_broken && taken == 0)
        return false;
    mp_ring_release(ring);
    return taken != 0;
}

bool mp_workers_drain(struct mp_host *h)
{
    bool was_any = false;
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i])
            was_any = drain_one(h->workers[i]) || was_any;
    return was_any;
}

bool mp_workers_have_messages(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && !mp_ring_is_empty(&h->workers[i]->channel.to_host))
            return true;
    return false;
}

bool mp_workers_prepare_sleep(struct mp_host *h)
{
    bool may_sleep = true;
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && !mp_ring_prepare_sleep(&h->workers[i]->channel.to_host))
            may_sleep = false;
    return may_sleep;
}

void mp_workers_wake(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i])
            mp_ring_wake(&h->workers[i]->channel.to_host);
}

/* Whether one waits for room in its ring: then the host looks again soon. */
bool mp_workers_are_backed_up(const struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && h->workers[i]->pending.size != 0)
            return true;
    return false;
}

void mp_workers_check_loads(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++) {
        struct mp_worker_process *w = h->workers[i];
        if (!w || w->loads_pending == 0 || w->is_killed_for_load)
            continue;
        uint64_t running = atomic_load(&w->channel.status->running);
        uint64_t since = atomic_load(&w->channel.status->running_since);
        if ((running & MP_CHANNEL_LOADING) != 0 && since != 0 && h->now > since &&
            h->now - since > MP_MS(MP_LOAD_TIMEOUT_MS)) {
            w->is_killed_for_load = true;
            mp_workers_kill(h, i);
        }
    }
}

bool mp_workers_are_loading(const struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && h->workers[i]->loads_pending != 0)
            return true;
    return false;
}

bool mp_workers_all_ready(const struct mp_host *h)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < h->worker_count; i++)
        ready += h->workers[i] && h->workers[i]->is_ready;
    return ready >= h->cfg->workers;
}
