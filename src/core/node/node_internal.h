/* What the files of core/node share. */
#pragma once

#include "src/base/rng.h"
#include "src/core/graph/graph.h"
#include "src/core/node/node.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"

#define MP_NODE_NONE UINT32_MAX

/* Chunks of memory for what effects point to; all of it is given back at the next step. */
struct mp_node_chunk {
    struct mp_node_chunk *next;
    size_t size;
    size_t used;
};

/* Work that an effect of one machine makes for another is put off until the list at hand is done:
 * a machine is never stepped while its effects are being read. */
enum mp_node_work_kind { MP_NODE_WORK_POOL_END, MP_NODE_WORK_RUN_ANSWER };

struct mp_node_work {
    enum mp_node_work_kind kind;
    uint64_t call;
    enum mp_pool_end end;
    struct mp_rpc_effect answer;
    struct mp_slice payload; /* stays good during the step */
    struct mp_graph_timing timing;
    uint32_t worker; /* from 1; 0: none */
    uint64_t bytes_in;
};

/* The answer that a worker gave and that this step is about. */
struct mp_node_completion {
    bool is_set;
    bool is_error;
    uint64_t call;
    uint32_t worker;
    mp_time submitted_at;
    mp_time begun_at;
    mp_time ended_at;
    uint64_t bytes_in;
    struct mp_rpc_payload payload; /* handle 0 once somebody took it */
};

struct mp_node_run {
    struct mp_graph *graph; /* NULL: the place is free */
    uint64_t number;        /* low half: place */
    uint64_t client;
    uint64_t id; /* of the client's request */
    bool has_events;
    bool is_detached;
    bool is_plan;
    bool is_answered;
    bool is_over; /* freed at the next step */
    char run_id[27];
    uint8_t *own_graph; /* the graph and its input; the machine borrows them */
    size_t own_graph_size;
    struct mp_slice graph_bytes;
    struct mp_slice input;
};

struct mp_node {
    struct mp_node_config cfg;
    struct mp_alloc *alloc;
    struct mp_buf names;
    struct mp_catalog catalog;
    struct mp_pool pool;
    struct mp_rpc rpc;
    struct mp_node_run *runs;
    uint32_t run_capacity;
    uint32_t run_count;
    struct mp_rng rng;
    uint32_t identity; /* the first random bits of run ids */
    bool is_draining;
    bool is_drained_told;
    uint64_t calls;
    uint64_t errors;
    mp_time started_at;
    struct mp_slice death_how; /* during WORKER_DIED */
    struct mp_slice death_fun;
    struct mp_node_completion completion;
    struct mp_node_work *work;
    uint32_t work_first;
    uint32_t work_count;
    uint32_t work_capacity;
    struct mp_node_effect *effects;
    uint32_t effect_count;
    uint32_t effect_capacity;
    struct mp_node_chunk *chunks;
    bool is_out_of_memory; /* an effect could not be listed in this step */
};

/* Memory until the next step; NULL (and is_out_of_memory) if there is none. */
uint8_t *mp_node_scratch(struct mp_node *n, size_t size);
/* A copy in scratch memory; empty if there is none. */
struct mp_slice mp_node_keep(struct mp_node *n, struct mp_slice bytes);
/* Makes room for all effects and work that the calls under way, and one more, can still cause in
 * this step. Whatever begins a call, or lists an effect that nobody waits for, asks first and does
 * without if there is none: so the effects that somebody waits for always fit. */
bool mp_node_make_room(struct mp_node *n);
/* A new effect, or a dummy that nobody sees when memory is out. */
struct mp_node_effect *mp_node_emit(struct mp_node *n, enum mp_node_effect_kind kind);
/* Work for the end of this step; a dummy that nobody sees when memory is out. */
struct mp_node_work *mp_node_put_off(struct mp_node *n, enum mp_node_work_kind kind, uint64_t call);
void mp_node_log(struct mp_node *n, uint8_t level, struct mp_slice text);
/* `payload` is a value; an empty one, for which there was no memory, is told as an error. */
void mp_node_reply(struct mp_node *n, uint64_t client, uint64_t id, uint8_t frame,
                   struct mp_slice payload);
/* Encodes a failure into scratch memory; without memory it is another failure, that one. */
struct mp_slice mp_node_error(struct mp_node *n, const struct mp_fault *fault);
/* `error` with fun, node, version and attempt added where it lacks them. */
struct mp_slice mp_node_error_of_call(struct mp_node *n, struct mp_slice error, uint32_t function,
                                      uint32_t attempt);
void mp_node_refuse(struct mp_node *n, uint64_t client, uint64_t id, enum mp_code code,
                    const char *reason, const char *message);
/* The ERROR map of an answer that no worker gave: DEADLINE or CANCELLED. */
struct mp_slice mp_node_answer_error(struct mp_node *n, const struct mp_rpc_effect *answer);

/* calls.c */
/* The ERROR map that says why no provider was found. */
struct mp_slice mp_node_explain(struct mp_node *n, const struct mp_catalog_query *q);
void mp_node_call(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_nested(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_completed(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_pool_end(struct mp_node *n, mp_time now, const struct mp_node_work *work);
void mp_node_retry_waiting(struct mp_node *n, mp_time now);
/* Steps of the machines, with their effects carried out. False: no memory (of BEGIN, SUBMIT). */
bool mp_node_step_rpc(struct mp_node *n, mp_time now, const struct mp_rpc_event *ev,
                      uint64_t *begun);
bool mp_node_step_pool(struct mp_node *n, mp_time now, const struct mp_pool_event *ev);
struct mp_rpc_target mp_node_target(const struct mp_catalog_function *f);

/* runs.c */
void mp_node_run(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_plan(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_run_answer(struct mp_node *n, mp_time now, const struct mp_node_work *work);
bool mp_node_run_cancel(struct mp_node *n, mp_time now, uint64_t client, uint64_t id);
void mp_node_runs_of_client_gone(struct mp_node *n, mp_time now, uint64_t client);
void mp_node_runs_tick(struct mp_node *n, mp_time now);
mp_time mp_node_runs_deadline(const struct mp_node *n);
void mp_node_runs_sweep(struct mp_node *n);
void mp_node_runs_fini(struct mp_node *n);

/* queries.c */
void mp_node_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
