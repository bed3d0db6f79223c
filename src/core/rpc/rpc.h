/* What a caller was promised: one answer, by its deadline, after as many attempts as it allowed;
 * and the tree of calls that hang on each other, so that cancelling one cancels what it asked for.
 *
 * A call is in one of these states: WAITING (no provider yet, the caller asked to wait), ACTIVE (an
 * attempt is under way), PAUSED (before the next attempt), ENDING (its answer is known, and given
 * once nothing of it runs any more), ZOMBIE (answered, but something of it has not ended yet).
 * Every call gives exactly one ANSWER effect unless its parent is gone, and its number stays in use
 * until its last attempt, and all calls below it, have ended.
 *
 * Whoever asks for a step of a run, or sends a call here from another node, counts on what the
 * answer says of the end: is_confirmed means that nothing of the call runs anywhere any more. So
 * those two are ENDING in between when they are cancelled; the second also when its time is up
 * (where it comes from, there is a timer as well), and when it leaves calls behind; the first
 * leaves none behind if it failed, or if it is only a part of its step. Clients and functions are
 * answered at once. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/heap.h"
#include "src/base/rng.h"
#include "src/base/slice.h"
#include "src/base/time.h"

#define MP_RPC_NONE         UINT32_MAX
#define MP_RPC_INLINE_BYTES 128

/* Who asked. The low 32 bits of an owner's number are small and dense, the high ones tell it apart
 * from those that had the place before. */
enum mp_rpc_origin_kind {
    MP_RPC_CLIENT, /* owner: the client's number, id: its request */
    MP_RPC_NESTED, /* owner: the worker's incarnation, id: its number for the call */
    MP_RPC_RUN,    /* owner: the run's number, id: the invocation */
    MP_RPC_PEER,   /* owner: the connection to another node, id: its request */
    MP_RPC_TOPIC,  /* owner: the same for all, id: counts them; nobody waits */
    MP_RPC_ORIGIN_KINDS
};

struct mp_rpc_origin {
    enum mp_rpc_origin_kind kind;
    uint64_t owner;
    uint64_t id;
};

/* A payload: bytes, and the handle of the shared block they lie in (0: none). Whoever holds a
 * handle gives it back through RELEASE exactly once. */
struct mp_rpc_payload {
    struct mp_slice bytes;
    uint64_t handle;
};

enum mp_rpc_event_kind {
    MP_RPC_BEGIN,
    MP_RPC_RESOLVED,      /* a waiting call has a provider now */
    MP_RPC_OUTCOME,       /* the attempt under way ended */
    MP_RPC_ENDED,         /* the attempt of a call that is answered, or ENDING, is over: `outcome`
                             says whether it had begun, and whether that is sure */
    MP_RPC_CANCEL,        /* the caller no longer wants it */
    MP_RPC_CANCEL_ORIGIN, /* the same by who asked; owner and id */
    MP_RPC_OWNER_GONE,    /* all calls of a client or worker incarnation */
    MP_RPC_TIMER
};

/* What calling a function takes; key MP_RPC_NONE: there is no provider yet. */
struct mp_rpc_target {
    uint32_t function;
    uint32_t concurrency;
    bool is_idempotent;
    mp_duration timeout; /* the function's own limit on one attempt; 0: none */
};

struct mp_rpc_event {
    enum mp_rpc_event_kind kind;
    uint64_t call;
    union {
        struct {
            struct mp_rpc_origin origin;
            struct mp_rpc_target target;
            uint64_t parent; /* the call that made it; 0: none */
            struct mp_rpc_payload args;
            struct mp_slice context; /* copied; for the function */
            struct mp_slice query;   /* copied; what finds a provider, now and again */
            uint32_t marks;          /* of the driver's own; kept */
            uint32_t release;        /* the same */
            uint64_t tag;            /* the same */
            mp_time deadline;
            uint32_t retries;
            bool is_patient; /* its caller waits for a provider, also when the last one goes away */
            bool is_part;    /* of a run, of a step that may be cancelled after it has succeeded */
            uint32_t depth;  /* of nesting, 0 for a call from outside */
        } begin;
        struct {
            struct mp_rpc_target target;
            uint32_t release;      /* what it resolved in */
            struct mp_slice query; /* in place of the one that it had, no longer than that; empty:
                                      the same */
        } resolved;
        struct {
            bool is_error;
            bool is_retryable; /* the error's code is among those that `retries` covers */
            bool is_neighbour; /* lost because of another call: an idempotent one runs again */
            bool has_begun;    /* its function was entered */
            bool is_absent;    /* nobody was there to take it */
            bool is_unsure;    /* something of it may still run where nobody can look */
        } outcome;
        struct mp_rpc_origin origin;
    };
};

enum mp_rpc_answer { MP_RPC_RESULT, MP_RPC_ERROR, MP_RPC_DEADLINE, MP_RPC_CANCELLED };

enum mp_rpc_effect_kind {
    MP_RPC_SUBMIT,  /* run an attempt of the call; OUTCOME follows */
    MP_RPC_ABANDON, /* the attempt is of no use any more; ENDED (or OUTCOME) follows */
    MP_RPC_ANSWER,  /* tell the caller; RESULT and ERROR: with the payload of the OUTCOME event */
    MP_RPC_KEEP,    /* that payload is wanted later: ANSWER or DROP follows */
    MP_RPC_DROP,    /* what was kept is not wanted any more */
    MP_RPC_RELEASE  /* give a shared block back */
};

struct mp_rpc_effect {
    enum mp_rpc_effect_kind kind;
    uint64_t call;
    union {
        struct {
            enum mp_rpc_answer answer;
            struct mp_rpc_origin origin;
            uint32_t function; /* MP_RPC_NONE if it never had a provider */
            uint32_t attempt;  /* from 1; 0: none */
            bool has_begun;
            bool is_confirmed;   /* nothing of it runs any more, nor of what it asked for */
            mp_duration timeout; /* what it had: the whole call, or the last attempt alone */
        } answer;
        uint64_t handle;
    };
};

struct mp_rpc_effects {
    const struct mp_rpc_effect *items; /* valid until the next step */
    uint32_t count;
    uint64_t begun; /* after BEGIN: the call's number */
};

enum mp_rpc_state {
    MP_RPC_FREE,
    MP_RPC_WAITING,
    MP_RPC_ACTIVE,
    MP_RPC_PAUSED,
    MP_RPC_ENDING,
    MP_RPC_ZOMBIE
};

struct mp_rpc_call {
    /* read */
    uint64_t id;
    enum mp_rpc_state state;
    bool has_begun;
    bool was_rerun;
    bool is_patient;
    bool is_part;
    uint32_t attempt;
    uint32_t retries;
    uint32_t depth;
    struct mp_rpc_target target;
    struct mp_rpc_origin origin;
    struct mp_rpc_payload args;
    struct mp_slice context;
    struct mp_slice query;
    uint32_t marks;
    uint32_t release;
    uint64_t tag;
    mp_time deadline;
    mp_time attempt_deadline;
    mp_time begun_at;
    mp_time submitted_at;
    /* private */
    uint32_t parent; /* slot, or MP_RPC_NONE; ZOMBIE children stay until they are over */
    uint32_t first_child;
    uint32_t next_sibling;
    uint32_t previous_sibling;
    uint32_t next_owned; /* calls of one owner, those about to be retired, or the free list */
    uint32_t previous_owned;
    bool is_owned;
    bool is_timed_out;    /* the attempt under way was abandoned; another may follow */
    bool is_attempt_over; /* none is under way */
    bool is_unsure;       /* of an attempt, or of a call below, it is not known that it ended */
    bool is_kept;         /* KEEP was said */
    enum mp_rpc_answer pending; /* of an ENDING call */
    mp_duration backoff;
    mp_time resume_at; /* PAUSED: the next attempt; ENDING: it is answered all the same */
    mp_time timer_at;
    uint8_t *own_bytes; /* args, context and query that did not fit in place */
    size_t own_bytes_size;
    uint8_t in_place[MP_RPC_INLINE_BYTES];
};

struct mp_rpc_owner;

struct mp_rpc_owners {
    struct mp_rpc_owner *items; /* by the low half of their number */
    uint32_t capacity;
};

struct mp_rpc {
    /* read */
    uint32_t live;    /* calls that are not answered yet */
    uint32_t used;    /* numbers in use */
    uint32_t waiting; /* for a provider */
    /* private */
    uint32_t capacity;
    uint32_t free_first;
    struct mp_rpc_call **calls; /* by slot; each allocated on its own, so that they never move */
    uint32_t *places;           /* in the heap of timers */
    struct mp_heap timers;
    struct mp_rpc_owners owners[MP_RPC_ORIGIN_KINDS];
    struct mp_rpc_effect *effects;
    uint32_t effect_count;
    uint32_t effect_capacity;
    struct mp_rng rng;
    struct mp_alloc *alloc;
    uint32_t waiting_max;
    uint64_t defects;
};

struct mp_rpc_config {
    uint32_t waiting_max; /* calls that wait for a provider; one more: BEGIN gives MP_EFULL */
    uint64_t defects;     /* see base/defects.h */
};

MP_MUST_USE enum mp_err mp_rpc_init(struct mp_rpc *r, const struct mp_rpc_config *cfg,
                                    struct mp_alloc *a, uint64_t seed);
/* Only BEGIN fails, with MP_ENOMEM or MP_EFULL: the call then does not exist, and args.handle is
 * still the caller's. */
MP_MUST_USE enum mp_err mp_rpc_step(struct mp_rpc *r, mp_time now, const struct mp_rpc_event *ev,
                                    struct mp_rpc_effects *out);
mp_time mp_rpc_deadline(const struct mp_rpc *r);
void mp_rpc_fini(struct mp_rpc *r);

/* The call of that number, or NULL. */
const struct mp_rpc_call *mp_rpc_get(const struct mp_rpc *r, uint64_t call);
/* Calls whose numbers are in use, one by one, as below. */
const struct mp_rpc_call *mp_rpc_next(const struct mp_rpc *r, uint32_t *slot);
/* Waiting calls one by one: the first with a slot >= *slot, which moves behind it; NULL at the end.
 */
const struct mp_rpc_call *mp_rpc_next_waiting(const struct mp_rpc *r, uint32_t *slot);
