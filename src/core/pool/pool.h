/* Which worker process of this node runs what, when, and what happens when one misbehaves.
 *
 * A task is one attempt at one call. Its number comes from the caller (low 32 bits: a dense slot;
 * high 32 bits: a generation) and stays in use until the pool has ended it. Every task that was
 * submitted ends exactly once: by a DONE event that the pool accepts, or by an END effect.
 *
 * Dispatch weighs by time, not by count: each function has a moving average of the time it holds
 * the CPU, each worker the sum over what was sent to it and has not given way yet. A worker known
 * to compute for longer than a moment, or not to run at all, gets nothing new, and what it has not
 * begun goes to another one as soon as one is free. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/time.h"

#define MP_POOL_NONE        UINT32_MAX
#define MP_POOL_WORKERS_MAX (2 * MP_WORKERS_MAX) /* live ones and those on their way out */

enum mp_pool_event_kind {
    MP_POOL_SUBMIT,
    MP_POOL_CANCEL,   /* nobody waits for the task any more */
    MP_POOL_DONE,     /* the worker answered */
    MP_POOL_RETURNED, /* answer to REVOKE: whether the task came back before it was begun; also
                         unasked, when the worker's ring had no room (is_full) */
    MP_POOL_READY,    /* a worker has loaded all modules */
    MP_POOL_DIED,     /* a worker's process is gone */
    MP_POOL_PROBED,   /* answer to PROBE */
    MP_POOL_YIELDED,  /* a message showed that the task gave way, and now waits */
    MP_POOL_RESIZE,   /* start that many workers */
    MP_POOL_FORGET,   /* forget: what is known of a function; its key stands for another one now */
    MP_POOL_TIMER
};

struct mp_pool_event {
    enum mp_pool_event_kind kind;
    uint32_t worker;
    uint64_t task;
    union {
        struct {
            uint32_t function;    /* dense key */
            uint32_t concurrency; /* of the function at once; 0: no limit */
            bool is_nested; /* past the limits: a parent that waits must not starve its child */
        } submit;
        struct {
            mp_duration run; /* it had the CPU */
            bool is_retiring;
        } done;
        uint32_t forget; /* a function that no task calls */
        struct {
            bool is_back;
            bool is_full;
        } returned;
        struct {
            uint64_t running;        /* the task that had the CPU; 0: none */
            const uint64_t *unbegun; /* sent, but never read by the worker */
            uint32_t unbegun_count;
        } died;
        struct {
            uint64_t running; /* 0: none */
            mp_time since;
            uint64_t progress; /* any number that changes whenever the worker gets on */
            bool has_unread;   /* something was sent that it has not read */
            bool has_room;     /* its ring takes more */
        } probed;
        struct {
            uint32_t workers;
        } resize;
    };
};

enum mp_pool_end {
    MP_POOL_GONE,           /* cancelled, and nothing of it runs any more */
    MP_POOL_TAKEN_BACK,     /* cancelled before it began */
    MP_POOL_LOST_SUSPECT,   /* its worker died while it had the CPU */
    MP_POOL_LOST_NEIGHBOUR, /* its worker died because of another call */
    MP_POOL_QUEUE_FULL,
    MP_POOL_CRASH_LOOP /* its function kills workers: refused for a while */
};

enum mp_pool_effect_kind {
    MP_POOL_SEND,
    MP_POOL_REVOKE,      /* take the task back if the worker has not begun it; answer RETURNED */
    MP_POOL_CANCEL_CALL, /* tell the worker that the task is no longer wanted */
    MP_POOL_PROBE,       /* look which task has the CPU; answer PROBED */
    MP_POOL_START,       /* start a process in that place; READY or DIED follows */
    MP_POOL_STOP,        /* let it end by itself; DIED follows */
    MP_POOL_KILL,        /* end it now; DIED follows */
    MP_POOL_END
};

struct mp_pool_effect {
    enum mp_pool_effect_kind kind;
    uint32_t worker;
    uint64_t task;
    enum mp_pool_end end;
};

struct mp_pool_effects {
    const struct mp_pool_effect *items; /* valid until the next step */
    uint32_t count;
};

struct mp_pool_config {
    uint32_t begun_max;  /* per worker */
    uint32_t queued_max; /* all tasks that no worker has yet */
};

enum mp_pool_worker_state {
    MP_POOL_WORKER_NONE,
    MP_POOL_WORKER_STARTING,
    MP_POOL_WORKER_READY,
    MP_POOL_WORKER_SUSPECT,  /* computes past a deadline: will be killed unless that ends */
    MP_POOL_WORKER_RETIRING, /* gets nothing new, ends when it has nothing left */
    MP_POOL_WORKER_ENDING    /* told to stop, or killed */
};

struct mp_pool_worker {
    /* read */
    enum mp_pool_worker_state state;
    uint32_t sent;     /* tasks it has */
    uint64_t done;     /* tasks it has answered */
    uint64_t restarts; /* processes that ended in this place before it */
    uint64_t load_ns;  /* expected CPU time of what it has */
    bool is_computing; /* one call has held the CPU for more than a moment */
    bool is_stuck;     /* it reads nothing although no call has its CPU: stopped, or starved */
    /* private */
    bool is_full;       /* its ring had no room */
    bool is_tail_begun; /* its newest task was begun: there is nothing to take back */
    uint32_t first;     /* its tasks, oldest first */
    uint32_t last;
    uint32_t zombies;  /* tasks that nobody waits for */
    mp_time active_at; /* last sign of progress */
    mp_time probe_at;
    mp_time kill_at;
    mp_time start_at;
    mp_time retired_at;
    uint64_t progress;   /* at the last probe */
    mp_time still_since; /* it has been so */
    uint64_t suspect;    /* the task that made it a suspect */
};

struct mp_pool_task;
struct mp_pool_function;

struct mp_pool {
    /* read */
    uint32_t worker_count; /* places in use, some maybe NONE */
    uint32_t workers_wanted;
    uint32_t queued; /* tasks that no worker has yet */
    uint32_t live;   /* tasks that have not ended */
    uint64_t restarts;
    struct mp_pool_worker workers[MP_POOL_WORKERS_MAX];
    /* private */
    struct mp_pool_config cfg;
    struct mp_alloc *alloc;
    struct mp_pool_task *tasks; /* by slot */
    uint32_t task_capacity;
    struct mp_pool_function *functions; /* by key */
    uint32_t function_capacity;
    uint32_t queue_first[2]; /* nested calls, others */
    uint32_t queue_last[2];
    struct mp_pool_effect *effects;
    uint32_t effect_count;
    uint32_t effect_capacity;
    uint32_t failed_starts;
    bool is_cut; /* a dispatch was cut short: it goes on with the next step */
};

MP_MUST_USE enum mp_err mp_pool_init(struct mp_pool *p, const struct mp_pool_config *cfg,
                                     struct mp_alloc *a, uint64_t seed);
/* MP_ENOMEM only from SUBMIT and RESIZE, which then have no effect. */
MP_MUST_USE enum mp_err mp_pool_step(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev,
                                     struct mp_pool_effects *out);
mp_time mp_pool_deadline(const struct mp_pool *p);
void mp_pool_fini(struct mp_pool *p);

/* Whether `worker` has this task now: an answer for any other is not to be believed. */
bool mp_pool_has(const struct mp_pool *p, uint32_t worker, uint64_t task);
/* The worker that has the task now, or MP_POOL_NONE. */
uint32_t mp_pool_where(const struct mp_pool *p, uint64_t task);
/* Until when a function is refused for killing workers; 0 if it is not. */
mp_time mp_pool_refused_until(const struct mp_pool *p, uint32_t function, mp_time now);
/* Workers that take calls. */
uint32_t mp_pool_ready_count(const struct mp_pool *p);
/* Whether a call that came now would wait for longer than a moment. */
bool mp_pool_is_busy(const struct mp_pool *p);
/* Whether a call that came now would wait for no one knows how long: all workers compute, do not
 * answer, or are not there yet. */
bool mp_pool_is_blocked(const struct mp_pool *p);
