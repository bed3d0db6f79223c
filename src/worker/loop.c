/* The worker's loop: read what the host sent, run, answer, wait.
 *
 * All records that are there are one batch: read under one protected call, their answers published
 * together (at most so many, see outbox.c; and before a function that computes). Waiting follows a
 * measured policy: look again and again, giving the core away each time (sched_yield), for a time
 * that shrinks when it was in vain and is tried anew now and then; then sleep on the eventfd. The
 * announcement of sleep and the host's look at it are a store-load handshake (ring.h). */
#include <errno.h>
#include <lauxlib.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/worker/worker_internal.h"

#define SPIN_NS_MAX        200000u
#define PROBE_SLEEPS       16
#define PROBE_SHORT_SLEEPS 4
#define HOG_YIELD_NS       1000000
#define HOG_PAUSE_NS       20000000
#define HOG_PAUSE_NS_MAX   1000000000
#define ROOM_WAIT_NS       1000000 /* the host does not tell when it made room */
#define TIDY_IDLE_NS       50000000
#define TIDY_LATEST_NS     5000000000
#define RELEASE_BYTES      (128u << 10)

uint64_t mp_worker_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void mp_worker_die(const char *why)
{
    fprintf(stderr, "mpreg worker %d: %s\n", (int)getpid(), why);
    _exit(1);
}

struct mp_slice mp_worker_body(struct mp_ring_record *record, size_t least)
{
    struct mp_slice body =
        mp_slice_of(mp_ring_body(record), record->size - sizeof(struct mp_ring_record));
    if (body.size < least)
        mp_worker_die("the host sent a message that is too short");
    return body;
}

static void read_release(struct mp_worker *w, struct mp_ring_record *record)
{
    struct mp_msg_release m;
    memcpy(&m, mp_worker_body(record, sizeof(m)).data, sizeof(m));
    if (!mp_arena_give(w->arena, m.at))
        mp_worker_die("the host gave back a block that it does not have");
}

static void handle(struct mp_worker *w, struct mp_ring_record *record)
{
    if (!w->is_configured && record->kind != MP_MSG_CONFIG)
        mp_worker_die("the host sent something before the configuration");
    if (w->load_first && (record->kind == MP_MSG_INVOKE || record->kind == MP_MSG_STOP ||
                          record->kind == MP_MSG_UNLOAD))
        mp_module_load_pending(w);
    switch (record->kind) {
    case MP_MSG_INVOKE:
        mp_call_invoke(w, record);
        break;
    case MP_MSG_RESULT:
        mp_call_result(w, record);
        break;
    case MP_MSG_CANCEL:
        mp_call_cancel(w, record);
        break;
    case MP_MSG_LOAD:
        mp_module_read(w, record);
        break;
    case MP_MSG_UNLOAD:
        mp_module_unload(w, record);
        break;
    case MP_MSG_OPEN_RELEASE:
        mp_module_open_release(w, record);
        break;
    case MP_MSG_CLOSE_RELEASE:
        mp_module_close_release(w, record);
        break;
    case MP_MSG_RELEASE:
        read_release(w, record);
        break;
    case MP_MSG_CONFIG:
        mp_worker_configure(w, record);
        break;
    case MP_MSG_STOP:
        w->is_stopping = true;
        break;
    default:
        mp_worker_die("the host sent a message of an unknown kind");
    }
}

/* One batch, under the protected call. */
static int turn(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, 1);
    struct mp_ring *ring = &w->channel.to_worker;
    if (w->wants_collect) {
        w->wants_collect = false;
        (void)mp_state_recover(&w->state);
    }
    w->now = mp_worker_now();
    while (mp_outbox_flush(w)) {
        if (w->now >= mp_heap_first(&w->timers))
            mp_call_fire_timers(w);
        struct mp_ring_record *record = mp_ring_next(ring);
        if (!record)
            break;
        handle(w, record);
        if (ring->head - ring->released >= RELEASE_BYTES)
            mp_ring_release(ring);
        w->did_something = true;
    }
    mp_ring_release(ring);
    if (w->load_first && (!w->is_set_open || w->now >= w->set_until) && mp_ring_is_empty(ring))
        mp_module_load_pending(w);
    return 0;
}

static void take_turn(struct mp_worker *w)
{
    lua_State *L = w->state.L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->turn_ref);
    lua_pushlightuserdata(L, w);
    if (lua_pcall(L, 1, 0, 0) != 0) {
        lua_settop(L, 0);
        mp_call_recover(w);
        w->did_something = true;
    }
    mp_ring_release(&w->channel.to_worker);
    mp_outbox_publish(w);
    if (w->channel.to_worker.is_broken)
        mp_worker_die("the host's ring is broken");
    atomic_store_explicit(&w->channel.status->memory_bytes, w->state.bytes, memory_order_relaxed);
}

/* When the loop must go on even if nothing comes. */
static uint64_t wake_time(const struct mp_worker *w)
{
    uint64_t at = mp_heap_first(&w->timers);
    uint64_t room = w->outbox.first ? w->now + ROOM_WAIT_NS : MP_NEVER;
    if (w->load_first && w->set_until < at)
        at = w->set_until;
    return at < room ? at : room;
}

/* A yield gave the core to somebody who computes, for a whole slice of time: with every spin a call
 * would wait that long again. A sleeper, though, gets the core when it is woken. */
static void meet_hog(struct mp_worker *w, uint64_t now)
{
    bool is_again = w->hog_pause != 0 && now - w->hog_until < 8 * w->hog_pause;
    w->hog_pause = is_again ? w->hog_pause * 2 : HOG_PAUSE_NS;
    if (w->hog_pause > HOG_PAUSE_NS_MAX)
        w->hog_pause = HOG_PAUSE_NS_MAX;
    w->hog_until = now + w->hog_pause;
}

/* True if there is work. A yield that lasts longer than the whole budget says that somebody
 * computes on this core: then the worker sleeps, and its budget stays, because nothing was learnt
 * about the caller. (A shorter long yield is the caller's own work, and must not end the spin.) */
static bool spin(struct mp_worker *w)
{
    uint64_t began = mp_worker_now();
    uint64_t budget = w->spin_ns;
    uint64_t wake = wake_time(w);
    uint64_t now = began;
    if (now < w->hog_until)
        return !mp_ring_is_empty(&w->channel.to_worker) || w->channel.to_worker.is_broken;
    while (now - began < budget) {
        if (!mp_ring_is_empty(&w->channel.to_worker)) {
            w->spin_ns = SPIN_NS_MAX;
            return true;
        }
        if (now >= wake || w->channel.to_worker.is_broken)
            return true;
        sched_yield();
        uint64_t after = mp_worker_now();
        if (after - now > HOG_YIELD_NS)
            meet_hog(w, after);
        if (after - now > SPIN_NS_MAX)
            return !mp_ring_is_empty(&w->channel.to_worker);
        now = after;
    }
    if (budget != 0)
        w->spin_ns = budget < SPIN_NS_MAX / 8 ? 0 : budget / 4;
    return false;
}

static void await_wake(struct mp_worker *w)
{
    uint64_t wake = wake_time(w);
    uint64_t tidy = w->wants_tidying ? mp_worker_now() + TIDY_IDLE_NS : MP_NEVER;
    wake = tidy < wake ? tidy : wake;
    struct pollfd p = {.fd = MP_WORKER_FD_WAKE, .events = POLLIN};
    uint64_t value;
    if (wake != MP_NEVER) {
        uint64_t now = mp_worker_now();
        uint64_t left = wake > now ? wake - now : 0;
        struct timespec t = {.tv_sec = (time_t)(left / 1000000000u),
                             .tv_nsec = (long)(left % 1000000000u)};
        if (ppoll(&p, 1, &t, NULL) <= 0)
            return;
    }
    while (read(MP_WORKER_FD_WAKE, &value, sizeof(value)) < 0) {
        if (errno == EAGAIN)
            (void)(poll(&p, 1, -1) != 0);
        else if (errno != EINTR)
            mp_worker_die("the wake-up descriptor is gone");
    }
}

/* A budget that fell to nothing is tried anew, lest another kind of load never gets it back. */
static void probe(struct mp_worker *w, uint64_t slept_ns)
{
    w->sleeps++;
    w->short_sleeps = slept_ns < SPIN_NS_MAX ? w->short_sleeps + 1 : 0;
    if (w->spin_ns != 0)
        return;
    if (w->sleeps < PROBE_SLEEPS && w->short_sleeps < PROBE_SHORT_SLEEPS)
        return;
    w->spin_ns = SPIN_NS_MAX;
    w->sleeps = 0;
    w->short_sleeps = 0;
}

/* Loading and unloading leave garbage that no call would collect soon. It takes milliseconds to
 * collect it all, so that waits until nothing came for a while: a deploy comes in several messages,
 * and other nodes of the machine load the same code meanwhile. A worker that is never idle for so
 * long does it in the end between two calls. */
void mp_worker_want_tidying(struct mp_worker *w)
{
    if (!w->wants_tidying)
        w->untidy_since = mp_worker_now();
    w->wants_tidying = true;
}

static int tidy(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

static void tidy_up(struct mp_worker *w)
{
    w->wants_tidying = false;
    if (lua_cpcall(w->state.L, tidy, NULL) != 0)
        lua_settop(w->state.L, 0);
    malloc_trim(0);
}

static void await_work(struct mp_worker *w)
{
    if (spin(w))
        return;
    uint64_t began = mp_worker_now();
    if (w->wants_tidying && began - w->untidy_since >= TIDY_LATEST_NS)
        tidy_up(w);
    if (!mp_ring_prepare_sleep(&w->channel.to_worker))
        return;
    await_wake(w);
    mp_ring_wake(&w->channel.to_worker);
    uint64_t slept_ns = mp_worker_now() - began;
    probe(w, slept_ns);
    if (w->wants_tidying && slept_ns >= TIDY_IDLE_NS && mp_ring_is_empty(&w->channel.to_worker))
        tidy_up(w);
}

int mp_worker_loop(struct mp_worker *w)
{
    lua_State *L = w->state.L;
    w->spin_ns = SPIN_NS_MAX;
    lua_pushcfunction(L, turn);
    w->turn_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    for (;;) {
        w->did_something = false;
        take_turn(w);
        if (w->is_stopping && w->running_count == 0 && !w->outbox.first && !w->load_first)
            return 0;
        if (!w->did_something)
            await_work(w);
    }
}
