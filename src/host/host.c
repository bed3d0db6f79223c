/* The loop of a node.
 *
 * One turn: read every ready socket once, take what workers answered, fire what is due, publish to
 * the rings, write to the sockets. Then, if there is nothing: spin for a moment while calls are
 * outstanding, else sleep until a socket, a worker or a deadline.
 *
 * Spinning yields the processor in every turn, so it costs nothing when somebody else wants it. Its
 * length adapts: full after a hit, a quarter after a miss, nothing after a few; and because a
 * length of nothing could never find out that times have changed, every 16th sleep (or four short
 * ones in a row) tries again. A yield that took long says that the core is wanted: then the host
 * sleeps. */
#include "src/host/host.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/check.h"
#include "src/host/host_internal.h"
#include "src/host/kept.h"
#include "src/host/sessions.h"
#include "src/host/store.h"
#include "src/host/units.h"

#define SPIN_MAX        MP_US(50)
#define SPIN_POLL_EVERY MP_US(5)
#define YIELD_LONG      MP_US(3)
#define HOG_YIELD       MP_MS(1)
#define HOG_PAUSE       MP_MS(20)
#define HOG_PAUSE_MAX   MP_SECONDS(1)
#define PROBE_SLEEPS    16
#define PROBE_SHORT     4
#define HOUSEKEEPING_MS 500
#define LOAD_CHECK_MS   100
#define BACKED_UP_MS    1
#define ARENA_BYTES_MIN (512ull << 20)

int64_t mp_host_wall_ms(void)
{
    uv_timeval64_t tv;
    return uv_gettimeofday(&tv) == 0 ? tv.tv_sec * 1000 + tv.tv_usec / 1000 : 0;
}

mp_time mp_host_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (mp_time)now.tv_sec * 1000000000u + (mp_time)now.tv_nsec;
}

void mp_host_release(struct mp_host *h, uint64_t handle)
{
    if (handle & MP_HANDLE_WORKER) {
        mp_workers_release(h, handle);
        return;
    }
    bool is_given = mp_arena_give(h->arena, handle & (MP_HANDLE_HOST - 1));
    mp_assert(is_given);
}

/* --- effects --- */

static void log_effect(const struct mp_node_effect *e)
{
    mp_log(e->level, "%.*s", (int)e->payload.bytes.size, (const char *)e->payload.bytes.data);
}

/* The machine found that this node must end, and says why. */
static void stop_at_once(struct mp_host *h, struct mp_slice why)
{
    mp_log(3, "%.*s", (int)why.size, (const char *)why.data);
    h->is_over = true;
    h->exit_code = 1;
}

/* What an event sets off that must not happen while its effects are being carried out (a REVOKE is
 * answered by an event, and the list of effects lives until the next step) waits in this queue. */
static void reply(struct mp_host *h, const struct mp_node_effect *e)
{
    const struct mp_outgoing_frame o = {.type = e->frame,
                                        .id = e->id,
                                        .meta = e->context,
                                        .payload = e->payload.bytes,
                                        .handle = e->payload.handle};
    mp_net_reply(h, e->client, &o);
}

static void carry_out(struct mp_host *h, const struct mp_node_effect *e)
{
    switch (e->kind) {
    case MP_NODE_REPLY:
        reply(h, e);
        break;
    case MP_NODE_EVENTS:
        mp_net_events(h, e->client, e->payload.bytes);
        break;
    case MP_NODE_SEND:
        mp_workers_send(h, e);
        break;
    case MP_NODE_REVOKE:
        mp_workers_revoke(h, e->worker, e->id);
        break;
    case MP_NODE_CANCEL_CALL:
        mp_workers_cancel(h, e);
        break;
    case MP_NODE_RESULT:
        mp_workers_result(h, e);
        break;
    case MP_NODE_PROBE:
        mp_workers_probe(h, e->worker);
        break;
    case MP_NODE_WORKER_START:
        mp_workers_start(h, e->worker);
        break;
    case MP_NODE_WORKER_STOP:
        mp_workers_stop(h, e->worker);
        break;
    case MP_NODE_WORKER_KILL:
        mp_workers_kill(h, e->worker);
        break;
    case MP_NODE_RELEASE:
        mp_host_release(h, e->payload.handle);
        break;
    case MP_NODE_LOG:
        log_effect(e);
        break;
    case MP_NODE_DRAINED:
        h->is_drained = true;
        break;
    case MP_NODE_SEND_DATAGRAM:
        mp_udp_send(h, &e->addr, e->payload.bytes);
        break;
    case MP_NODE_DIAL:
        mp_dial(h, e->id, &e->addr);
        break;
    case MP_NODE_SEND_FRAME:
        mp_net_send_frame(h, e);
        break;
    case MP_NODE_CLOSE:
        mp_net_close(h, e->client);
        break;
    case MP_NODE_PERSIST:
        mp_data_persist(h->data, &h->loop, e->id);
        break;
    case MP_NODE_STOP:
        stop_at_once(h, e->payload.bytes);
        break;
    case MP_NODE_CHECK_UNIT:
        mp_check_unit(h, e);
        break;
    case MP_NODE_KEEP_UNIT:
    case MP_NODE_KEEP_ENTRIES:
    case MP_NODE_READ_UNIT:
    case MP_NODE_KEEP_RUN:
    case MP_NODE_KEEP_RUN_PART:
    case MP_NODE_FORGET_RUN:
    case MP_NODE_READ_RUN:
    case MP_NODE_READ_RUN_PART:
    case MP_NODE_KEEP_MESSAGES:
    case MP_NODE_FORGET_MESSAGES:
        mp_kept_carry_out(h, e);
        break;
    case MP_NODE_READ_MODULE:
        mp_units_read_module(h, e);
        break;
    case MP_NODE_LOAD_UNIT:
        mp_units_load(h, e);
        break;
    case MP_NODE_UNLOAD_UNIT:
        mp_units_unload(h, e);
        break;
    case MP_NODE_OPEN_RELEASE:
        mp_units_open_release(h, e);
        break;
    case MP_NODE_CLOSE_RELEASE:
        mp_units_close_release(h, e);
        break;
    }
}

static void step_now(struct mp_host *h, const struct mp_node_event *ev)
{
    struct mp_node_effects out;
    enum mp_err err = mp_node_step(h->node, h->now, ev, &out);
    if (err != MP_OK)
        mp_log(3, "out of memory while handling an event");
    for (uint32_t i = 0; i < out.count; i++)
        carry_out(h, &out.items[i]);
}

void mp_host_woken(struct mp_host *h)
{
    if (!h->had_input)
        h->now = mp_host_clock();
    h->had_input = true;
}

/* Events that come up while effects are carried out: small ones, without borrowed bytes. */
void mp_host_step(struct mp_host *h, const struct mp_node_event *ev)
{
    if (h->is_stepping) {
        if (h->event_count == h->event_capacity) {
            uint32_t capacity = h->event_capacity == 0 ? 64 : h->event_capacity * 2;
            struct mp_node_event *grown = mp_xalloc(capacity * sizeof(*grown));
            if (h->event_count != 0)
                memcpy(grown, h->events, h->event_count * sizeof(*grown));
            free(h->events);
            h->events = grown;
            h->event_capacity = capacity;
        }
        h->events[h->event_count++] = *ev;
        return;
    }
    h->is_stepping = true;
    step_now(h, ev);
    for (uint32_t i = 0; i < h->event_count; i++) {
        const struct mp_node_event next = h->events[i];
        step_now(h, &next);
    }
    h->event_count = 0;
    h->is_stepping = false;
}

void mp_host_tell(struct mp_host *h, const struct mp_node_event *ev)
{
    mp_assert(!h->is_stepping);
    mp_host_step(h, ev);
}

/* --- time --- */

/* libuv fires timers before it polls: one that is due when the loop is entered would leave nothing
 * to end the poll. uv_stop makes that poll return at once. */
static void on_timer(uv_timer_t *timer)
{
    struct mp_host *h = (struct mp_host *)timer->data;
    h->timer_at = MP_NEVER;
    uv_stop(&h->loop);
}

/* The next moment at which there is something to do without anybody asking. */
static mp_time next_deadline(struct mp_host *h)
{
    mp_time at = mp_node_deadline(h->node);
    if (h->is_draining && h->drain_at < at)
        at = h->drain_at;
    if (mp_workers_are_loading(h) && h->now + MP_MS(LOAD_CHECK_MS) < at)
        at = h->now + MP_MS(LOAD_CHECK_MS);
    if (mp_workers_are_backed_up(h) && h->now + MP_MS(BACKED_UP_MS) < at)
        at = h->now + MP_MS(BACKED_UP_MS);
    if (h->conn_undecided != 0 && h->now + MP_MS(HOUSEKEEPING_MS) < at)
        at = h->now + MP_MS(HOUSEKEEPING_MS);
    mp_time dial = mp_dial_deadline(h);
    mp_time seeds = mp_seeds_deadline(h);
    mp_time sessions = mp_sessions_deadline(h);
    mp_time units = mp_units_deadline(h);
    mp_time checks = mp_checks_deadline(h);
    at = dial < at ? dial : at;
    at = sessions < at ? sessions : at;
    at = units < at ? units : at;
    at = checks < at ? checks : at;
    return seeds < at ? seeds : at;
}

/* The timer may fire early (a deadline that has gone away since): that costs one empty turn, which
 * is cheaper than moving it with every call. */
static void arm_timer(struct mp_host *h)
{
    mp_time at = next_deadline(h);
    if (at == MP_NEVER || at >= h->timer_at)
        return;
    uint64_t ms = at <= h->now ? 0 : (at - h->now + MP_MS(1) - 1) / MP_MS(1);
    h->timer_at = at;
    uv_update_time(&h->loop);
    uv_timer_start(&h->timer, on_timer, ms, 0);
}

static void fire_due(struct mp_host *h)
{
    if (mp_node_deadline(h->node) <= h->now) {
        const struct mp_node_event due = {.kind = MP_NODE_TIMER};
        mp_host_step(h, &due);
    }
    if (mp_workers_are_loading(h))
        mp_workers_check_loads(h);
    if (h->conn_undecided != 0)
        mp_net_housekeeping(h);
    if (h->conn_starved != 0)
        mp_net_feed_starved(h);
    mp_dial_check(h);
    mp_seeds_check(h);
    mp_sessions_check(h);
    mp_units_check(h);
    mp_checks_check(h);
    if (h->is_drained && !mp_sessions_are_running(h))
        h->is_over = true;
    if (h->is_draining && h->now >= h->drain_at && !h->is_over) {
        mp_log(2, "what still runs is given up: --drain is over");
        h->is_over = true;
    }
}

/* --- turns --- */

static void flush(struct mp_host *h)
{
    mp_workers_flush(h);
    if (h->dirty)
        mp_net_flush(h);
    mp_udp_flush(h);
}

static void turn(struct mp_host *h)
{
    h->now = mp_host_clock();
    h->yields_left = YIELDS_A_TURN;
    mp_workers_drain(h);
    fire_due(h);
    flush(h);
}

/* A yield gave the core to somebody who computes, for a whole slice of time: with every spin a call
 * would wait that long again. A sleeper, though, gets the core when it is woken. */
static void meet_hog(struct mp_host *h, mp_time now)
{
    bool is_again = h->hog_pause != 0 && now - h->hog_until < 8 * h->hog_pause;
    h->hog_pause = is_again ? h->hog_pause * 2 : HOG_PAUSE;
    if (h->hog_pause > HOG_PAUSE_MAX)
        h->hog_pause = HOG_PAUSE_MAX;
    h->hog_until = now + h->hog_pause;
}

bool mp_host_give_way(struct mp_host *h)
{
    mp_time before = mp_host_clock();
    if (h->yields_left == 0 || before < h->hog_until)
        return false;
    h->yields_left--;
    sched_yield();
    mp_time after = mp_host_clock();
    if (after - before > HOG_YIELD)
        meet_hog(h, after);
    return true;
}

/* Whether something came while spinning. */
static bool spin(struct mp_host *h)
{
    mp_time start = mp_host_clock();
    mp_time polled = start;
    mp_time now = start;
    if (now < h->hog_until)
        return mp_workers_have_messages(h);
    while (now - start < h->spin) {
        if (mp_workers_have_messages(h))
            return true;
        if (now - polled >= SPIN_POLL_EVERY) {
            h->had_input = false;
            uv_run(&h->loop, UV_RUN_NOWAIT);
            if (h->had_input)
                return true;
            polled = mp_host_clock();
            now = polled;
        }
        sched_yield();
        mp_time after = mp_host_clock();
        if (after - now > HOG_YIELD)
            meet_hog(h, after);
        if (after - now > YIELD_LONG)
            return false;
        now = after;
    }
    h->spin = h->spin < SPIN_MAX / 8 ? 0 : h->spin / 4;
    return false;
}

static void sleep_until_woken(struct mp_host *h)
{
    if (!mp_workers_prepare_sleep(h)) {
        mp_workers_wake(h);
        return;
    }
    arm_timer(h);
    mp_time start = mp_host_clock();
    uv_run(&h->loop, UV_RUN_ONCE);
    mp_workers_wake(h);
    if (h->spin != 0)
        return;
    h->sleeps_since_hit++;
    h->short_sleeps = mp_host_clock() - start < SPIN_MAX ? h->short_sleeps + 1 : 0;
    if (h->sleeps_since_hit >= PROBE_SLEEPS || h->short_sleeps >= PROBE_SHORT) {
        h->sleeps_since_hit = 0;
        h->short_sleeps = 0;
        h->spin = SPIN_MAX;
    }
}

static void tell_ready(struct mp_host *h)
{
    if (h->is_ready_told || h->is_draining || h->is_over || !mp_workers_all_ready(h) ||
        mp_units_are_loading(h) || !mp_node_has_code(h->node))
        return;
    h->is_ready_told = true;
    mp_net_accept(h);
    mp_udp_start(h);
    mp_seeds_start(h);
    printf("{\"event\":\"ready\",\"node\":\"%s\",\"cluster\":\"%s\",\"addr\":\"%s\",\"pid\":%d}\n",
           h->cfg->name, h->cfg->cluster, h->addr, (int)getpid());
    fflush(stdout);
    mp_log(1, "ready on %s with %u workers%s", h->addr, h->cfg->workers,
           h->cfg->is_insecure ? " (insecure)" : "");
}

/* Sockets are asked once a turn, and not again right after a spin or a sleep that has just done so:
 * the lone caller's answer leaves one system call earlier. */
static void run(struct mp_host *h)
{
    bool is_polled = false;
    while (!h->is_over) {
        if (!is_polled) {
            h->had_input = false;
            uv_run(&h->loop, UV_RUN_NOWAIT);
        }
        turn(h);
        if (!h->is_ready_told)
            tell_ready(h);
        bool has_more = (h->had_input && !is_polled) || mp_workers_have_messages(h);
        is_polled = !has_more;
        if (h->is_over || has_more)
            continue;
        if (h->spin != 0 && mp_node_outstanding(h->node) != 0 && spin(h)) {
            h->spin = SPIN_MAX;
            continue;
        }
        h->had_input = false;
        sleep_until_woken(h);
    }
}

/* --- stopping --- */

static void stop(struct mp_host *h, int signal_number)
{
    if (h->is_draining) {
        h->is_over = true;
        h->exit_code = 128 + signal_number;
        return;
    }
    h->is_draining = true;
    h->drain_at = mp_host_clock() + MP_MS(h->cfg->drain_ms);
    mp_log(1, "stopping: no new work is taken, what runs may finish within %llu ms",
           (unsigned long long)h->cfg->drain_ms);
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    mp_net_goaway(h);
    mp_host_step(h, &drain);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct mp_host *h = (struct mp_host *)handle->data;
    mp_host_woken(h);
    stop(h, number);
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct mp_host *h = (struct mp_host *)poll->data;
    uint64_t count;
    (void)status;
    (void)events;
    mp_host_woken(h);
    ssize_t size = read(h->wake_fd, &count, sizeof(count));
    (void)size; /* nothing to read: somebody else's wake-up was meant */
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle) && handle->type != UV_PROCESS)
        uv_close(handle, NULL);
}

/* What was said right before the end, a goodbye or a last answer, still leaves; but nobody who does
 * not read keeps the node from ending. */
static void write_out(struct mp_host *h)
{
    flush(h);
    mp_time until = mp_host_clock() + MP_MS(MP_LAST_WORDS_MS);
    while (mp_net_has_unsent(h) && h->now < until) {
        h->timer_at = until;
        uv_update_time(&h->loop);
        uv_timer_start(&h->timer, on_timer, (until - h->now + MP_MS(1) - 1) / MP_MS(1), 0);
        uv_run(&h->loop, UV_RUN_ONCE);
        h->now = mp_host_clock();
        flush(h);
    }
}

/* Nothing of a node outlives its host: every worker is gone before this returns. */
static void shut_down(struct mp_host *h)
{
    /* A further signal finds nobody to handle it any more: it must not decide the exit code. */
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGINT);
    sigprocmask(SIG_BLOCK, &both, NULL);
    if (h->exit_code < 128)
        write_out(h);
    mp_seeds_stop(h);
    mp_net_close_all(h);
    mp_workers_kill_all(h);
    mp_store_stop(h->store); /* what was to be kept is kept */
    while (mp_sessions_kill_all(h) || mp_checks_kill_all(h) || h->workers_alive != 0) {
        uv_run(&h->loop, UV_RUN_ONCE);
        h->now = mp_host_clock();
        mp_workers_kill_all(h);
    }
    mp_net_close_all(h); /* what was dialled meanwhile */
    uv_walk(&h->loop, close_handle, NULL);
    uv_run(&h->loop, UV_RUN_NOWAIT);
    while (mp_data_is_busy(h->data))
        uv_run(&h->loop, UV_RUN_ONCE);
    if (mp_seeds_are_busy(h))
        return; /* see mp_host_run */
    uv_run(&h->loop, UV_RUN_DEFAULT);
    int err = uv_loop_close(&h->loop);
    if (err != 0)
        mp_log(0, "the loop was left with open handles: %s", uv_strerror(err));
}

/* --- starting --- */

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool open_loop(struct mp_host *h)
{
    static const int numbers[2] = {SIGTERM, SIGINT};
    if (uv_loop_init(&h->loop) != 0 || uv_timer_init(&h->loop, &h->timer) != 0)
        return false;
    h->timer.data = h;
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->wake_fd < 0 || uv_poll_init(&h->loop, &h->wake, h->wake_fd) != 0)
        return false;
    h->wake.data = h;
    uv_poll_start(&h->wake, UV_READABLE, on_wake);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&h->loop, &h->signals[i]);
        h->signals[i].data = h;
        uv_signal_start(&h->signals[i], on_signal, numbers[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    return true;
}

static bool open_data(struct mp_host *h)
{
    char text[1024];
    struct mp_text why;
    mp_text_init(&why, text, sizeof(text));
    if (!mp_data_open(&h->data, h->cfg->data_dir, mp_host_wall_ms(), &why)) {
        mp_log(3, "--data: %s", text);
        return false;
    }
    if (mp_data_is_temporary(h->data))
        mp_log(1, "the data folder is %s, removed at the end (--data DIR keeps one)",
               mp_data_dir(h->data));
    return true;
}

static bool open_store(struct mp_host *h, struct mp_store_restored *restored)
{
    char text[4 * PATH_MAX];
    struct mp_text why;
    mp_text_init(&why, text, sizeof(text));
    if (!mp_store_open(&h->store, mp_data_dir(h->data), mp_data_is_temporary(h->data), restored,
                       &why) ||
        !mp_store_start(h->store, &h->loop, h->cfg->name, h, &why)) {
        mp_log(3, "%s", text);
        return false;
    }
    mp_units_init(h);
    mp_checks_init(h);
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct mp_slice *left = a;
    const struct mp_slice *right = b;
    return mp_slice_compare(*left, *right);
}

static bool new_node(struct mp_host *h)
{
    const struct mp_host_config *cfg = h->cfg;
    struct mp_slice *names = mp_xalloc((cfg->resource_count + 1) * sizeof(*names));
    for (uint32_t i = 0; i < cfg->resource_count; i++)
        names[i] = cfg->resources[i].name;
    qsort(names, cfg->resource_count, sizeof(*names), compare_names);
    const struct mp_node_config node = {
        .name = mp_slice_str(cfg->name),
        .cluster = mp_slice_str(cfg->cluster),
        .resources = names,
        .resource_count = cfg->resource_count,
        .is_insecure = cfg->is_insecure,
        .is_kept = !mp_data_is_temporary(h->data),
        .generation = mp_data_generation(h->data),
        .workers = cfg->workers,
        .call_timeout = MP_MS(cfg->call_timeout_ms),
        .run_timeout = MP_MS(cfg->run_timeout_ms),
        .value_bytes_max = cfg->value_max,
        .calls_begun_max = cfg->calls_begun_max,
        .calls_queued_max = cfg->calls_queued_max,
        .call_depth_max = cfg->call_depth_max,
        .graph_steps_max = cfg->graph_steps_max,
        .runs_kept = cfg->runs_kept,
        .runs_kept_bytes = cfg->runs_kept_bytes,
        .runs_kept_age = MP_MS(cfg->runs_kept_age_ms),
    };
    uint64_t seed = mp_host_clock() ^ (uint64_t)getpid() << 40;
    enum mp_err err = mp_node_new(&h->node, &node, mp_host_alloc(), seed);
    free(names);
    return err == MP_OK;
}

static bool load_modules(struct mp_host *h)
{
    bool is_there = mp_modules_add(&h->modules, h->cfg->modules_dir);
    for (uint32_t i = 0; i < h->cfg->load_count; i++)
        is_there = mp_modules_add(&h->modules, h->cfg->load[i]) && is_there;
    return is_there;
}

static bool open_arena(struct mp_host *h)
{
    uint64_t bytes = 6 * (h->cfg->value_max + MP_FRAME_SLACK_BYTES);
    if (bytes < ARENA_BYTES_MIN)
        bytes = ARENA_BYTES_MIN;
    return mp_arena_create(&h->arena, bytes, &h->arena_fd) == MP_OK;
}

static void free_host(struct mp_host *h)
{
    mp_node_free(h->node);
    mp_units_fini(h);
    mp_checks_fini(h);
    mp_modules_fini(&h->modules);
    mp_arena_free(h->arena);
    while (h->spare_parts) {
        struct mp_out_part *p = h->spare_parts;
        h->spare_parts = p->next;
        free(p);
    }
    if (h->listen_fd >= 0)
        close(h->listen_fd);
    if (h->wake_fd >= 0)
        close(h->wake_fd);
    free(h->arenas);
    free(h->lent);
    free(h->sent);
    free(h->conns);
    free(h->conn_generations);
    free(h->events);
    free(h->read_buffer);
    mp_buf_fini(&h->facts);
    mp_buf_fini(&h->published);
    mp_udp_free(h);
    mp_seeds_free(h);
    mp_store_close(h->store);
    mp_data_close(h->data);
    free(h);
}

/* The resolver may still work on a name; nobody can stop it, and a clean end would wait for it,
 * possibly for long. */
static void leave_resolver(const struct mp_host *h)
{
    if (!mp_seeds_are_busy(h))
        return;
    fflush(NULL);
    _exit(h->exit_code);
}

int mp_host_run(const struct mp_host_config *cfg)
{
    mp_host_memory_init();
    struct mp_host *h = mp_xalloc(sizeof(*h));
    h->cfg = cfg;
    h->listen_fd = -1;
    h->wake_fd = -1;
    h->describer = UINT64_MAX;
    h->timer_at = MP_NEVER;
    h->spin = SPIN_MAX;
    mp_buf_init(&h->facts, mp_host_alloc(), 0);
    mp_buf_init(&h->published, mp_host_alloc(), 0);
    mp_log_init(cfg->log_level, cfg->is_log_json, cfg->name);
    raise_file_limit();
    struct mp_store_restored restored;
    mp_store_restored_init(&restored);
    if (!open_loop(h) || !open_data(h) || !open_store(h, &restored) || !mp_net_listen(h) ||
        !load_modules(h) || !open_arena(h) || !new_node(h)) {
        mp_log(3, "the node could not start");
        mp_store_restored_fini(&restored);
        mp_store_stop(h->store);
        if (h->read_buffer || h->wake_fd >= 0) {
            uv_walk(&h->loop, close_handle, NULL);
            uv_run(&h->loop, UV_RUN_DEFAULT);
            uv_loop_close(&h->loop);
        }
        free_host(h);
        return 1;
    }
    h->now = mp_host_clock();
    mp_kept_restore(h, &restored);
    mp_store_restored_fini(&restored);
    const struct mp_node_event start = {.kind = MP_NODE_START,
                                        .start = {.addr = h->reach, .wall_ms = mp_host_wall_ms()}};
    mp_host_step(h, &start);
    run(h);
    shut_down(h);
    mp_store_close(h->store);
    h->store = NULL;
    mp_data_close(h->data);
    h->data = NULL;
    mp_log(1, "stopped");
    leave_resolver(h);
    int exit_code = h->exit_code;
    free_host(h);
    return exit_code;
}
