/* One run of one graph: checks it, hands its steps out as soon as their own inputs are there, and
 * keeps the record that is the run object. A sans-I/O machine like every core: time, entropy and
 * memory come in, what is to be done comes out as effects, carried out in order by the driver.
 *
 * Life of a machine: LOAD (graph bytes) -> RESOLVE effects, one for each step (what it calls and
 * needs), answered by RESOLVED events, and perhaps PRESET events -> START -> INVOKE / CANCEL /
 * FETCH effects, answered by COMPLETED, FAILED_CALL and FETCHED events -> FINISHED, the last
 * effect. A graph with faults of its own still asks to resolve its sound steps, so that all faults
 * are told together: START then gives REFUSED and nothing ran. Each INVOKE is answered by exactly
 * one COMPLETED or FAILED_CALL, also after CANCEL.
 *
 * From START until fini the machine knows all events of the run: how many, and each of them by its
 * number. What a driver tells its watchers, and when, is its own affair.
 */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/base/time.h"
#include "src/wire/error.h"

struct mp_graph; /* opaque; its size is mp_graph_size() so that the caller can place it */

enum mp_graph_status {
    MP_GRAPH_RUNNING,
    MP_GRAPH_SUCCEEDED,
    MP_GRAPH_FAILED,
    MP_GRAPH_CANCELLED,
    MP_GRAPH_TIMED_OUT
};

struct mp_graph_config {
    struct mp_slice run_id;       /* copied */
    struct mp_slice node;         /* the coordinator's name; copied */
    struct mp_slice resumed_from; /* the run that this one goes on with; copied; empty: none */
    uint32_t steps_max;
    size_t value_bytes_max; /* of one value, also of `output` */
    size_t kept_bytes_max;  /* of all results held at once; over it the run fails with
                               RESOURCE_EXHAUSTED/RUN_TOO_LARGE */
    mp_duration timeout;    /* of the run, where the graph names none (or a longer one) */
    bool has_trace;         /* `levels` with results in the run object */
    bool is_plan;           /* only checked and planned, never started */
};

/* How an attempt went, as whoever carried it out measured it. */
struct mp_graph_timing {
    mp_duration queue;   /* waiting for a worker */
    mp_duration network; /* between nodes and processes */
    mp_duration run;     /* in the function */
};

enum mp_graph_event_kind {
    MP_GRAPH_LOAD,
    MP_GRAPH_RESOLVED,
    MP_GRAPH_FROM,   /* what is to run in any case: before the first PRESET */
    MP_GRAPH_PRESET, /* a step's result is known: before START, before or after RESOLVED */
    MP_GRAPH_START,
    MP_GRAPH_COMPLETED,
    MP_GRAPH_FAILED_CALL,
    MP_GRAPH_CANCEL_RUN,
    MP_GRAPH_FETCHED, /* answer to FETCH, exactly one, also after the run ended */
    MP_GRAPH_LOST,    /* a node that may hold results is gone */
    MP_GRAPH_TIMER
};

struct mp_graph_event {
    enum mp_graph_event_kind kind;
    union {
        struct {
            struct mp_slice graph; /* MessagePack; borrowed until the machine's end */
            struct mp_slice input; /* replaces the graph's own input unless empty; borrowed too */
        } load;
        struct {
            uint32_t step;
            bool is_refused;         /* then `fault` says why (UNKNOWN_FUNCTION …) */
            struct mp_fault fault;   /* its step field is filled in by the machine */
            struct mp_slice version; /* of the module; copied */
            struct mp_slice node;    /* where the router would send it now; copied */
            uint32_t workers;        /* of all providers together: 4 times it bounds `each` */
            bool is_idempotent;      /* it may run again if its result is lost */
        } resolved;
        /* The step counts as succeeded from the start, with no attempts. It is never handed out and
         * needs no provider. MP_ENOENT: there is no such step; MP_EINVAL: it has been preset, or
         * the value is not one well-formed value; MP_ETOOLARGE: the value is over value_bytes_max,
         * or all are over kept_bytes_max. */
        struct {
            struct mp_slice name;
            struct mp_slice value;   /* copied */
            struct mp_slice node;    /* where it ran; copied */
            struct mp_slice version; /* what ran; copied */
            /* The value, of so many bytes, could not be kept: `value` is its $large form. If some
             * step or the output wants it, the step runs again after all. */
            bool is_gone;
            uint64_t bytes;
        } preset;
        /* The step and all that depend on it run, whatever is preset for them. MP_ENOENT: there is
         * no such step. */
        struct {
            struct mp_slice name;
        } from;
        struct {
            uint64_t invocation;
            struct mp_slice value;   /* copied */
            struct mp_slice node;    /* where it ran; copied */
            struct mp_slice version; /* what ran; copied */
            uint32_t worker;         /* from 1 */
            uint64_t bytes_in;
            uint64_t
                bytes_moved; /* between nodes, for this call: arguments, result, what was fetched */
            struct mp_graph_timing timing;
            /* The value stayed on the node where it was made: then `value` is its $large form. */
            bool is_held;
            uint64_t held;       /* under which `node` holds it; unique there */
            uint64_t held_bytes; /* its size */
            bool is_unconfirmed; /* something that it asked for may go on */
        } completed;
        struct {
            uint64_t invocation;
            struct mp_slice error; /* an ERROR map; copied */
            struct mp_slice node;
            struct mp_slice version;
            uint32_t worker; /* 0: it reached none */
            uint64_t bytes_in;
            uint64_t bytes_moved;
            struct mp_graph_timing timing;
            bool never_began;  /* it provably never began: no attempt is counted against it */
            bool is_confirmed; /* nothing of it goes on: a worker ended it, or it never began */
        } failed;
        struct {
            uint64_t fetch;
            bool is_lost;          /* its holder does not have it any more, or is gone */
            struct mp_slice value; /* copied */
        } fetched;
        struct {
            struct mp_slice node; /* is dead: what it held is lost */
        } lost;
    };
};

enum mp_graph_effect_kind {
    MP_GRAPH_RESOLVE, /* find a provider for step `resolve.step`; answer with RESOLVED */
    MP_GRAPH_REFUSED, /* the graph has faults; `refused.error` is the ERROR map; the last effect */
    MP_GRAPH_INVOKE,  /* call a function; answer with COMPLETED or FAILED_CALL */
    MP_GRAPH_CANCEL,  /* that invocation is no longer wanted; still answer it */
    MP_GRAPH_FETCH,   /* get a held value whole; answer with FETCHED */
    MP_GRAPH_FINISHED /* `finished.run` is the run object; the last effect */
};

struct mp_graph_effect {
    enum mp_graph_effect_kind kind;
    union {
        struct {
            uint32_t step;
            struct mp_slice name;
            struct mp_slice fun;
            struct mp_slice version; /* constraint; empty: none */
            struct mp_slice on;      /* node; empty: any */
            struct mp_slice cluster; /* empty: this one */
            const struct mp_slice *needs;
            uint32_t needs_count;
        } resolve;
        struct {
            struct mp_slice error;
        } refused;
        struct {
            uint64_t invocation; /* unique in the run */
            uint32_t step;
            struct mp_slice name; /* of the step */
            uint32_t index;       /* element of `each`, from 1; 0: none */
            uint32_t attempt;     /* from 1 */
            struct mp_slice fun;
            struct mp_slice args; /* MessagePack array; with holes, see below, if has_holes */
            bool has_holes;
            struct mp_slice version;
            struct mp_slice on;
            struct mp_slice cluster;
            const struct mp_slice *needs;
            uint32_t needs_count;
            mp_time deadline; /* of this attempt: the earlier of its own and the run's */
        } invoke;
        struct {
            uint64_t invocation;
        } cancel;
        struct {
            uint64_t fetch; /* unique in the run */
            struct mp_slice node;
            uint64_t held;
            uint64_t bytes;
        } fetch;
        struct {
            enum mp_graph_status status;
            struct mp_slice run;
        } finished;
    };
};

/* Effects of one step, in order. The list and all slices in it are valid until the next step or
 * fini of the same machine. */
struct mp_graph_effects {
    const struct mp_graph_effect *items;
    uint32_t count;
};

/* A value that stays where it was made stands in arguments as a hole: a MessagePack extension of
 * this type, around the array [node, held, path]. Extensions are refused in values from outside, so
 * a hole is never data. Whoever runs the call gets the parts from their holders, straight from
 * there, and fills them in. */
#define MP_GRAPH_HOLE_EXT 0x48

/* The part of a value at `path`. MP_ENOENT: `message` (cleared first) says which field is missing
 * and which are there, as a step that cannot find it says; MP_EINVAL: no path. */
MP_MUST_USE enum mp_err mp_graph_cut(struct mp_slice value, struct mp_slice path,
                                     struct mp_slice *found, struct mp_buf *message);
/* Appends the $large form of a value: {"$large": {"bytes", "type", "preview"}}. MP_ECORRUPT,
 * MP_EDEPTH: it is not one well-formed value, or nested too deep to be a result. */
MP_MUST_USE enum mp_err mp_graph_put_large_form(struct mp_slice value, struct mp_buf *out);

/* Bytes and alignment (16) that init wants. */
size_t mp_graph_size(void);
/* `g` points at mp_graph_size() bytes. MP_ENOMEM leaves nothing behind. */
MP_MUST_USE enum mp_err mp_graph_init(struct mp_graph *g, const struct mp_graph_config *cfg,
                                      struct mp_alloc *a, uint64_t seed);
/* Takes one event. Any MP_ENOMEM inside does not break the machine: the run ends as failed with
 * RESOURCE_EXHAUSTED/OUT_OF_MEMORY, and if even that cannot be built the call returns MP_ENOMEM,
 * the machine is dead (only fini remains) and the driver answers for it. `now` never goes back. */
MP_MUST_USE enum mp_err mp_graph_step(struct mp_graph *g, mp_time now,
                                      const struct mp_graph_event *ev,
                                      struct mp_graph_effects *out);
/* When a TIMER event is due (timeouts, backoff); MP_NEVER when idle. */
mp_time mp_graph_deadline(const struct mp_graph *g);
void mp_graph_fini(struct mp_graph *g);

/* The plan after all RESOLVED events, without starting: appends a map {"name", "levels":
 * [["step"…]…], "steps": [{name, call, version, node, level, depends_on, each, needs}]}, or
 * MP_EINVAL when the graph has faults (then START gives them). */
MP_MUST_USE enum mp_err mp_graph_put_plan(struct mp_graph *g, struct mp_buf *out);
/* Appends the run object as it stands now (status "running" if it runs). MP_EINVAL: it has not
 * begun. */
MP_MUST_USE enum mp_err mp_graph_put_run(struct mp_graph *g, mp_time now, struct mp_buf *out);
/* The same to be kept: without `levels`, and whatever the status with the `results` of all steps
 * that succeeded, large ones in their $large form. */
MP_MUST_USE enum mp_err mp_graph_put_record(struct mp_graph *g, mp_time now, struct mp_buf *out);
/* Appends the results of all steps that succeeded, as put_record has them under `results`. */
MP_MUST_USE enum mp_err mp_graph_put_results(struct mp_graph *g, struct mp_buf *out);
/* The same as put_run, with `levels` also if they were not asked for. */
MP_MUST_USE enum mp_err mp_graph_put_trace(struct mp_graph *g, mp_time now, struct mp_buf *out);
/* Appends MP_GRAPH_HEAD_PAIRS pairs of a map, for a list of runs: name, status, total_ms, steps,
 * succeeded, failed. */
#define MP_GRAPH_HEAD_PAIRS 6
MP_MUST_USE enum mp_err mp_graph_put_head(const struct mp_graph *g, mp_time now,
                                          struct mp_buf *out);
/* Appends what the graph asks for, once it is loaded: an array of {name, call, depends_on, level,
 * each}. MP_EINVAL: it has faults of its own. */
MP_MUST_USE enum mp_err mp_graph_put_shape(struct mp_graph *g, struct mp_buf *out);
enum mp_graph_status mp_graph_status_of(const struct mp_graph *g);
const char *mp_graph_status_text(const struct mp_graph *g);
uint32_t mp_graph_step_count(const struct mp_graph *g);
struct mp_slice mp_graph_step_name(const struct mp_graph *g, uint32_t step);
bool mp_graph_find_step(const struct mp_graph *g, struct mp_slice name, uint32_t *step);
/* About how many bytes the machine has. */
size_t mp_graph_memory(const struct mp_graph *g);

/* --- events: what has happened since START, in order, numbered from 1 without gaps --- */

/* How many there are so far. An event for which there is no memory is left out. */
uint64_t mp_graph_event_count(const struct mp_graph *g);
/* "run_started", "step_started" …; 1 <= seq <= mp_graph_event_count(). The text is static. */
const char *mp_graph_event_name(const struct mp_graph *g, uint64_t seq);
/* The names that there are, by a number from 0 on; NULL behind the last one. */
const char *mp_graph_event_name_of(uint32_t number);
/* Whether it tells that a step succeeded: then that is `*step`. */
bool mp_graph_event_is_success(const struct mp_graph *g, uint64_t seq, uint32_t *step);
/* Appends the event as watchers get it: a map {event, run_id, seq, at_ms, …}. It may be asked for
 * at any time until fini, also while effects are being read, and is always the same; only that of a
 * step that ran again because its result was lost shows what the step's record has now.
 * MP_EINVAL: there is no such event, or the machine is dead; then, and at MP_ENOMEM, `out` is as
 * before. */
MP_MUST_USE enum mp_err mp_graph_put_event(struct mp_graph *g, uint64_t seq, struct mp_buf *out);

/* --- results --- */

struct mp_graph_result {
    bool is_here; /* as `value`, whole; borrowed until the next step or fini */
    struct mp_slice value;
    bool is_held; /* else by `node` (borrowed too) under `held`; neither: nobody has it any more */
    struct mp_slice node;
    uint64_t held;
    uint64_t bytes; /* its size */
};

/* MP_ENOENT: there is no such step, or it has not succeeded. */
MP_MUST_USE enum mp_err mp_graph_result_of(const struct mp_graph *g, struct mp_slice step,
                                           struct mp_graph_result *out);
/* The same of the step at a place. */
MP_MUST_USE enum mp_err mp_graph_result_at(const struct mp_graph *g, uint32_t step,
                                           struct mp_graph_result *out);
/* Whether any result was held elsewhere. */
bool mp_graph_has_held(const struct mp_graph *g);
/* Whether a step that has not succeeded, so far or at the end, refers to this one's result. */
bool mp_graph_wants_result(const struct mp_graph *g, struct mp_slice step);

/* Appends what a cancel came to: an array of {"name", "outcome"} for all steps in order.
 *
 *   done           it had ended, or did so before the cancel came to it
 *   stopped        it ran, and every call of it is confirmed to have ended
 *   never_started  nothing of it began; skipped steps too
 *   unreachable    a call of it may go on: nobody confirmed its end, so far or in time
 *
 * MP_EINVAL: the run has not begun. */
MP_MUST_USE enum mp_err mp_graph_put_receipts(const struct mp_graph *g, struct mp_buf *out);
