/* What the files of the simulator's world share. */
#pragma once

#include "src/base/heap.h"
#include "src/base/rng.h"
#include "src/core/node/node.h"
#include "src/sim/world.h"

#define MP_WORLD_FUNCTIONS 10
#define MP_WORLD_NONE      UINT32_MAX
/* The node's defaults, for requests that name no deadline. */
#define MP_WORLD_CALL_TIMEOUT MP_SECONDS(5)
#define MP_WORLD_RUN_TIMEOUT  MP_SECONDS(20)

/* --- what is known about requests, calls and blocks --- */

enum mp_world_request_kind { MP_WORLD_CALL, MP_WORLD_RUN, MP_WORLD_QUERY };

struct mp_world_request {
    enum mp_world_request_kind kind;
    uint64_t client;
    uint32_t serial; /* of a call; 0: none */
    mp_time due_at;  /* its deadline; MP_NEVER: not watched */
    uint32_t answers;
    bool is_gone; /* its client left */
};

/* One thing that somebody asked a function to do; its number travels in the arguments. */
struct mp_world_serial {
    uint32_t begins;
    uint32_t begins_max;
};

/* A payload in a shared block: its bytes stay good until its handle went out. */
struct mp_world_block {
    uint8_t *bytes; /* NULL: it went out */
    size_t size;
};

/* --- workers --- */

enum mp_world_task_state {
    MP_WORLD_UNBEGUN,
    MP_WORLD_READY, /* wants the processor */
    MP_WORLD_RUNNING,
    MP_WORLD_ASLEEP,
    MP_WORLD_CALLING /* waits for calls that it made */
};

struct mp_world_task {
    uint64_t call;
    uint32_t serial;
    uint32_t actions_left; /* until it ends */
    uint32_t calling;      /* calls that it waits for */
    enum mp_world_task_state state;
    bool is_cancelled;
    mp_time begun_at;
    mp_duration run;
};

/* A call that a task made. */
struct mp_world_nested {
    uint64_t parent; /* 0: nobody waits any more */
    uint32_t serial;
    bool is_answered;
};

struct mp_world_message {
    enum mp_node_event_kind kind; /* COMPLETED, NESTED, NESTED_CANCEL */
    uint64_t call;
    uint64_t nested;
    uint32_t serial;
    bool is_error;
    mp_time begun_at;
    mp_time ended_at;
    mp_duration run;
};

enum mp_world_worker_state {
    MP_WORLD_WORKER_NONE,
    MP_WORLD_WORKER_STARTING,
    MP_WORLD_WORKER_READY,
    MP_WORLD_WORKER_ENDING
};

struct mp_world_worker {
    enum mp_world_worker_state state;
    uint64_t incarnation;
    uint64_t running; /* the call that has the processor; 0: none */
    mp_time running_since;
    mp_time full_until; /* its ring has no room */
    bool is_outbox_due;
    uint32_t task_count;
    uint32_t task_capacity;
    struct mp_world_task *tasks; /* oldest first */
    uint32_t nested_count;
    uint32_t nested_capacity;
    struct mp_world_nested *nested; /* by number - 1 */
    uint32_t message_count;
    uint32_t message_capacity;
    struct mp_world_message *messages;
};

/* --- time --- */

enum mp_world_happening_kind {
    MP_WORLD_REQUEST_DUE,
    MP_WORLD_CANCEL_DUE, /* number: the request */
    MP_WORLD_LATE_MODULE,
    MP_WORLD_DRAIN,
    MP_WORLD_WORKER_STARTED, /* place, number: incarnation; so below */
    MP_WORLD_WORKER_DIES,
    MP_WORLD_TURN_ENDS,
    MP_WORLD_MESSAGES,
    MP_WORLD_WAKES /* extra: the call */
};

struct mp_world_happening {
    enum mp_world_happening_kind kind;
    uint32_t place;
    uint64_t number;
    uint64_t extra;
};

struct mp_world {
    struct mp_world_config cfg;
    struct mp_world_report *report;
    struct mp_alloc *alloc;
    struct mp_alloc node_alloc; /* counts, and fails on request */
    size_t node_bytes;
    bool may_fail;
    struct mp_rng rng;
    struct mp_rng failures;
    struct mp_node *node;
    mp_time now;
    uint32_t steps_at_now;
    /* happenings by time; equal times in the order of their places */
    struct mp_heap heap;
    uint32_t happening_capacity;
    uint32_t happening_free; /* chained through `place` */
    struct mp_world_happening *happenings;
    uint32_t *places;
    /* events that answer effects, taken when the effects are done */
    uint32_t event_first; /* those before it were taken */
    uint32_t event_count;
    uint32_t event_capacity;
    struct mp_node_event *events;
    /* books */
    uint32_t request_count;
    uint32_t request_capacity;
    struct mp_world_request *requests;
    uint32_t serial_count;
    uint32_t serial_capacity;
    struct mp_world_serial *serials;
    uint32_t block_count; /* shared blocks so far; a handle is a number from 1 */
    uint32_t block_capacity;
    uint32_t blocks_live;
    struct mp_world_block *blocks;
    uint64_t *clients;
    struct mp_world_worker workers[MP_POOL_WORKERS_MAX];
    uint64_t incarnations;
    bool is_late_module_there;
    bool is_draining;
    uint32_t drained;
};

/* world.c */
/* Memory that is always there. */
void *mp_world_grow(struct mp_world *w, void *array, uint32_t *capacity, uint32_t wanted,
                    size_t item);
void mp_world_violation(struct mp_world *w, const char *what, uint64_t number);
void mp_world_plan(struct mp_world *w, mp_duration after, struct mp_world_happening h);
/* Hands an event to the node and carries out what comes of it. */
void mp_world_step(struct mp_world *w, const struct mp_node_event *ev);
/* The same for what is told only once, at the start: there is memory for it. */
void mp_world_step_surely(struct mp_world *w, const struct mp_node_event *ev);
/* Queues an event for when the effects at hand are carried out. */
void mp_world_answer(struct mp_world *w, const struct mp_node_event *ev);
bool mp_world_chance(struct mp_world *w, uint16_t of_1000);
/* Spread over the orders of magnitude below `longest`. */
mp_duration mp_world_latency(struct mp_world *w, mp_duration longest);
uint32_t mp_world_new_serial(struct mp_world *w, uint32_t begins_max);
/* A payload with these bytes: as they are, or copied into a shared block. */
struct mp_rpc_payload mp_world_payload(struct mp_world *w, struct mp_slice bytes);
/* A handle went out: nobody reads the block any more. */
void mp_world_give_block(struct mp_world *w, uint64_t handle);
/* [serial] at the front of arguments or a result; 0 if it is not there. */
uint32_t mp_world_serial_in(struct mp_slice bytes);

/* workers.c */
void mp_world_worker_effect(struct mp_world *w, const struct mp_node_effect *e);
void mp_world_worker_happening(struct mp_world *w, const struct mp_world_happening *h);
void mp_world_workers_check_idle(struct mp_world *w);
void mp_world_workers_fini(struct mp_world *w);

/* clients.c */
/* The functions that all workers have: a row for each, in the order of their module. */
struct mp_world_function {
    const char *module;
    const char *name;
    bool is_idempotent;
    uint32_t concurrency;
    uint32_t timeout_ms;
};
extern const struct mp_world_function mp_world_functions[MP_WORLD_FUNCTIONS];
void mp_world_add_modules(struct mp_world *w);
void mp_world_client_happening(struct mp_world *w, const struct mp_world_happening *h);
void mp_world_reply(struct mp_world *w, const struct mp_node_effect *e);
void mp_world_clients_check_answered(struct mp_world *w);
/* How often a call of f may begin for a caller that allows so many retries. */
uint32_t mp_world_begins_max(const struct mp_world_function *f, uint32_t retries);
