/* Worker processes: starting them, and what to do when one ends. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/units.h"
#include "src/host/workers_internal.h"
#include "src/wire/msgpack.h"

#define ARENA_BYTES_MIN   (256ull << 20)
#define PENDING_BYTES_MAX (64u << 20) /* messages waiting for room in a ring */

/* --- the end of a worker --- */

const char *mp_signal_name(int number)
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
        if (s->call != 0 && s->worker == w->place && mp_worker_take_back(w, s))
            list[count++] = s->call;
    }
    return count;
}

static void fail_module(struct mp_host *h, uint32_t module, const char *how)
{
    if (module >= h->modules.own_count || h->modules.items[module].state == MP_MODULE_FAILED)
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
        mp_worker_arena_close(a);
    }
    mp_channel_close(&w->channel);
    mp_buf_fini(&w->pending);
    free(w->loads);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    h->workers[w->place] = NULL;
    free(w);
}

static void worker_died(struct mp_worker_process *w, const char *how)
{
    struct mp_host *h = w->host;
    uint64_t running = atomic_load(&w->channel.status->running);
    bool is_loading = (running & MP_CHANNEL_LOADING) != 0;
    uint32_t module = is_loading ? (uint32_t)(running & ~MP_CHANNEL_LOADING) : UINT32_MAX;
    const char *why = w->is_killed_for_load ? "it did not finish within 2 s" : how;
    if (is_loading)
        fail_module(h, module, why);
    mp_units_worker_died(h, w, module, why);
    if (h->describer == w->incarnation)
        h->describer = UINT64_MAX;
    uint64_t *unbegun = mp_xalloc((h->sent_capacity + 1) * sizeof(uint64_t));
    uint32_t count = list_unbegun(h, w, unbegun);
    for (uint32_t i = 0; i < h->sent_capacity; i++)
        if (h->sent[i].call != 0 && h->sent[i].worker == w->place)
            mp_workers_forget(h, &h->sent[i]);
    const struct mp_node_event ev = {.kind = MP_NODE_WORKER_DIED,
                                     .worker = {.worker = w->place,
                                                .incarnation = w->incarnation,
                                                .running = is_loading ? 0 : running,
                                                .unbegun = unbegun,
                                                .unbegun_count = count,
                                                .how = mp_slice_str(how)}};
    for (uint32_t i = h->lent_count; i-- > 0;)
        if (h->lent[i].incarnation == w->incarnation)
            mp_workers_unlend(h, i);
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
    mp_host_woken(w->host);
    if (signal != 0)
        snprintf(how, sizeof(how), "signal %d (%s)", signal, mp_signal_name(signal));
    else
        snprintf(how, sizeof(how), "exit status %lld", (long long)status);
    bool is_clean = signal == 0 && status == 0;
    mp_log(is_clean || w->host->is_over ? 0 : 2, "worker %u (pid %d) ended: %s", w->place + 1,
           process->pid, how);
    /* What it had said before it died still counts. */
    while (mp_workers_drain(w->host)) {
    }
    uv_close((uv_handle_t *)process, on_process_closed);
    worker_died(w, how);
}

void mp_workers_kill(struct mp_host *h, uint32_t place)
{
    if (h->workers[place])
        uv_process_kill(h->workers[place]->process, SIGKILL);
}

void mp_workers_stop(struct mp_host *h, uint32_t place)
{
    const struct mp_outgoing o = {.kind = MP_MSG_STOP};
    if (h->workers[place])
        mp_worker_post(h->workers[place], &o);
}

void mp_workers_kill_all(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        mp_workers_kill(h, i);
}

/* --- what is told of them --- */

/* 0 if it has just ended. */
static uint64_t resident_bytes(int pid)
{
    char path[32];
    unsigned long long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static enum mp_err put_worker_facts(struct mp_buf *b, const struct mp_worker_process *w)
{
    if (!w)
        return mp_mp_put_nil(b);
    int pid = uv_process_get_pid(w->process);
    enum mp_err err = mp_mp_put_array(b, 2);
    if (err == MP_OK)
        err = mp_mp_put_uint(b, (uint64_t)pid);
    return err != MP_OK ? err : mp_mp_put_uint(b, resident_bytes(pid));
}

struct mp_slice mp_workers_facts(struct mp_host *h)
{
    mp_buf_clear(&h->facts);
    enum mp_err err = mp_mp_put_array(&h->facts, h->worker_count);
    for (uint32_t i = 0; err == MP_OK && i < h->worker_count; i++)
        err = put_worker_facts(&h->facts, h->workers[i]);
    return err == MP_OK ? mp_buf_slice(&h->facts) : mp_slice_of(NULL, 0);
}

/* --- starting --- */

static uint64_t arena_bytes(const struct mp_host *h)
{
    uint64_t bytes = 3 * (h->cfg->value_max + MP_FRAME_SLACK_BYTES);
    return bytes < ARENA_BYTES_MIN ? ARENA_BYTES_MIN : bytes;
}

enum mp_err mp_workers_put_config(const struct mp_host *h, uint32_t number, struct mp_buf *b)
{
    const struct mp_host_config *cfg = h->cfg;
    char lua_path[2 * PATH_MAX + 32];
    snprintf(lua_path, sizeof(lua_path), "%s/?.lua;%s/?/init.lua", cfg->lua_dir, cfg->lua_dir);
    enum mp_err err = mp_mp_put_map(b, 8);
    if (err == MP_OK)
        err = mp_mp_put_str_pair(b, "node", mp_slice_str(cfg->name));
    if (err == MP_OK)
        err = mp_mp_put_str_pair(b, "cluster", mp_slice_str(cfg->cluster));
    if (err == MP_OK)
        err = mp_mp_put_str_pair(b, "addr", mp_slice_str(h->reach_text));
    if (err == MP_OK)
        err = mp_mp_put_str_pair(b, "lua_path", mp_slice_str(lua_path));
    if (err == MP_OK)
        err = mp_mp_put_uint_pair(b, "worker", number);
    if (err == MP_OK)
        err = mp_mp_put_uint_pair(b, "memory_bytes_max", cfg->worker_memory);
    if (err == MP_OK)
        err = mp_mp_put_uint_pair(b, "value_bytes_max", cfg->value_max);
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
    if (mp_workers_put_config(h, w->place + 1, &b) == MP_OK) {
        const struct mp_msg_config body = {.size = (uint32_t)b.size};
        const struct mp_outgoing o = {
            .kind = MP_MSG_CONFIG, .parts = {mp_slice_of(&body, sizeof(body)), mp_buf_slice(&b)}};
        mp_worker_post(w, &o);
    }
    mp_buf_fini(&b);
}

static void send_module(struct mp_host *h, struct mp_worker_process *w, uint32_t i, bool is_last)
{
    struct mp_host_module *m = &h->modules.items[i];
    uint64_t at = MP_ARENA_NONE;
    uint16_t flags = is_last ? 0 : MP_RING_MORE;
    if (m->state == MP_MODULE_UNKNOWN && h->describer == w->incarnation)
        flags |= MP_RING_DESCRIBE;
    if (m->source_size >= MP_VALUE_INLINE_MAX) {
        if (!mp_workers_share(h, mp_slice_of(m->source, m->source_size), &at)) {
            mp_log(3, "module %s is left out: no shared memory for its source", m->name);
            m->state = MP_MODULE_FAILED;
            return;
        }
        mp_workers_lend(h, w, at);
    }
    mp_worker_load(w, i, 0, at, flags);
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
    return mp_worker_arena_open(h, w, *arena_fd);
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
    uint32_t last = 0;
    for (uint32_t i = 0; i < h->modules.own_count; i++)
        if (h->modules.items[i].state != MP_MODULE_FAILED)
            last = i;
    for (uint32_t i = 0; i < h->modules.own_count; i++)
        if (h->modules.items[i].state != MP_MODULE_FAILED)
            send_module(h, w, i, i == last);
    mp_units_feed(h, w);
}
