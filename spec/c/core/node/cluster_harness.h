/* A few nodes in virtual time for specs: reliable connections with latency, datagrams that arrive,
 * and scripted workers. Whoever uses it decides when a worker of `slow` and `idem` answers, cuts
 * and closes connections, and says what clients say; everything else happens by itself in
 * cluster_run(). Blocks are real memory that is freed when the node gives them back, so that
 * whoever still reads one is caught. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/c/core/node/cluster_disk.h"
#include "spec/support/alloc.h"
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

#define SPEC_NODES_MAX  4
#define SPEC_CONNS_MAX  8192
#define SPEC_BLOCKS_MAX 4096
#define SPEC_REPLIES    65536
#define SPEC_TASKS      512
#define SPEC_BIG_BYTES  100000
#define SPEC_BLOCK_FROM 65536 /* larger payloads come in blocks */

enum spec_function { SPEC_ECHO, SPEC_BIG, SPEC_FAIL, SPEC_SLOW, SPEC_IDEM, SPEC_SIZE, SPEC_GPU };

struct spec_block {
    uint64_t handle; /* 0: free */
    uint8_t *data;
};

struct spec_task {
    uint64_t call; /* 0: free */
    uint32_t worker;
    uint32_t function;
    mp_time begun_at;
    bool is_cancelled;
};

struct spec_node {
    struct mp_node *node; /* NULL: not running */
    char name[16];
    struct mp_address addr;
    struct spec_alloc counted;
    struct mp_alloc alloc;
    struct spec_block blocks[SPEC_BLOCKS_MAX];
    uint32_t blocks_used;
    struct spec_task tasks[SPEC_TASKS];
    uint32_t begins[8]; /* how often each function began */
    bool is_drained;
    bool is_stopped;
    char stop_text[256];
    uint64_t generation;
    uint32_t logs;
    char log[512]; /* the last line */
    struct spec_disk disk;
};

struct spec_conn {
    bool is_closing;
    bool is_gone[2];   /* that end heard that it is */
    uint32_t node[2];  /* of both ends; SPEC_NODES_MAX: a client outside */
    mp_time latest[2]; /* arrival of the last thing on its way to that end */
};

struct spec_reply {
    mp_time at;
    uint64_t client;
    uint64_t id;
    uint8_t frame;
    uint8_t *data;
    size_t size;
};

enum spec_what {
    SPEC_FRAME,
    SPEC_GONE,
    SPEC_DIALED,
    SPEC_DATAGRAM,
    SPEC_DONE,
    SPEC_READY,
    SPEC_DIED,
    SPEC_RETURNED,
    SPEC_PROBED,
    SPEC_DISK /* meta and payload: an effect's; type: its kind */
};

struct spec_happening {
    struct spec_happening *next;
    mp_time at;
    enum spec_what what;
    uint32_t node;
    uint32_t boot; /* of the node that it is meant for */
    uint64_t client;
    uint64_t id;
    uint32_t worker;
    uint8_t type;
    bool is_error;
    struct mp_address from;
    size_t meta_size;
    size_t size;
    uint8_t bytes[]; /* meta, payload */
};

struct spec_cluster {
    mp_time now;
    struct mp_rng rng;
    mp_duration latency;     /* of everything */
    mp_duration latency_max; /* if higher: drawn */
    uint32_t count;
    uint32_t boots[SPEC_NODES_MAX];
    struct spec_node nodes[SPEC_NODES_MAX];
    struct spec_conn conns[SPEC_CONNS_MAX];
    uint32_t conn_count; /* a connection's number is its client at both ends */
    struct spec_happening *first;
    struct spec_reply replies[SPEC_REPLIES];
    uint32_t reply_count;
    uint64_t handles;
    uint32_t errors; /* of the harness: a promise of node.h that was broken */
    char error[256];
    bool is_cut[SPEC_NODES_MAX][SPEC_NODES_MAX]; /* neither dials nor datagrams get through */
    bool has_frames_lost[SPEC_NODES_MAX][SPEC_NODES_MAX];
    uint32_t frames[256]; /* sent, by type */
    uint32_t dials;
    mp_duration disk_latency;
    uint32_t disk_reads;
    bool is_open;                      /* strangers answer at every address */
    size_t fail_until[SPEC_NODES_MAX]; /* so many allocations, after which there is memory again */
    bool takes_anything;               /* arguments need not be well-formed */
    bool is_deaf;                      /* `slow` and `idem` go on when they are cancelled */
    struct mp_peer_answer answer;      /* of the last RESULT or ERROR from node to node */
};

static inline void cluster_must(bool is_so, const char *what)
{
    if (is_so)
        return;
    fprintf(stderr, "cluster: %s\n", what);
    abort();
}

#define MUST(condition) cluster_must((condition), #condition)

static inline void cluster_error(struct spec_cluster *c, const char *what)
{
    c->errors++;
    snprintf(c->error, sizeof(c->error), "%s", what);
}

/* --- what is on its way --- */

static inline mp_duration cluster_latency(struct spec_cluster *c)
{
    if (c->latency_max <= c->latency)
        return c->latency;
    return c->latency + mp_rng_below(&c->rng, c->latency_max - c->latency);
}

static inline struct spec_happening *cluster_plan(struct spec_cluster *c, mp_time at,
                                                  enum spec_what what, uint32_t node,
                                                  struct mp_slice meta, struct mp_slice payload)
{
    struct spec_happening *h =
        (struct spec_happening *)calloc(1, sizeof(*h) + meta.size + payload.size + 1);
    h->at = at;
    h->what = what;
    h->node = node;
    h->boot = node < SPEC_NODES_MAX ? c->boots[node] : 0;
    h->meta_size = meta.size;
    h->size = payload.size;
    if (meta.size != 0)
        memcpy(h->bytes, meta.data, meta.size);
    if (payload.size != 0)
        memcpy(h->bytes + meta.size, payload.data, payload.size);
    struct spec_happening **place = &c->first;
    while (*place && (*place)->at <= at)
        place = &(*place)->next;
    h->next = *place;
    *place = h;
    return h;
}

/* --- blocks --- */

static inline struct mp_rpc_payload cluster_payload(struct spec_cluster *c, uint32_t node,
                                                    struct mp_slice bytes)
{
    struct spec_node *n = &c->nodes[node];
    if (bytes.size < SPEC_BLOCK_FROM)
        return (struct mp_rpc_payload){.bytes = bytes};
    for (uint32_t i = 0; i < SPEC_BLOCKS_MAX; i++) {
        struct spec_block *b = &n->blocks[i];
        if (b->handle != 0)
            continue;
        b->handle = ++c->handles << 16 | i;
        b->data = (uint8_t *)malloc(bytes.size);
        memcpy(b->data, bytes.data, bytes.size);
        n->blocks_used++;
        return (struct mp_rpc_payload){.bytes = mp_slice_of(b->data, bytes.size),
                                       .handle = b->handle};
    }
    abort();
}

static inline void cluster_release(struct spec_cluster *c, uint32_t node, uint64_t handle)
{
    struct spec_node *n = &c->nodes[node];
    struct spec_block *b = &n->blocks[handle & 0xffff];
    if ((handle & 0xffff) >= SPEC_BLOCKS_MAX || b->handle != handle) {
        cluster_error(c, "a block was given back twice");
        return;
    }
    free(b->data);
    *b = (struct spec_block){0};
    n->blocks_used--;
}

/* --- connections --- */

static inline uint64_t cluster_connect(struct spec_cluster *c, uint32_t from, uint32_t to)
{
    MUST(c->conn_count + 1 < SPEC_CONNS_MAX);
    uint32_t place = ++c->conn_count;
    c->conns[place] = (struct spec_conn){.node = {from, to}};
    return 1ull << 32 | place;
}

static inline struct spec_conn *cluster_conn(struct spec_cluster *c, uint64_t client)
{
    return &c->conns[(uint32_t)client];
}

/* Arrives behind whatever is on its way to that end. */
static inline mp_time cluster_arrival(struct spec_cluster *c, struct spec_conn *k, uint32_t end)
{
    mp_time at = c->now + cluster_latency(c);
    if (at < k->latest[end])
        at = k->latest[end];
    k->latest[end] = at;
    return at;
}

/* Both ends hear of it, after what is on its way to them. */
static inline void cluster_close(struct spec_cluster *c, uint64_t client)
{
    struct spec_conn *k = cluster_conn(c, client);
    if (k->is_closing)
        return;
    k->is_closing = true;
    for (uint32_t end = 0; end < 2; end++)
        if (k->node[end] < SPEC_NODES_MAX)
            cluster_plan(c, cluster_arrival(c, k, end), SPEC_GONE, k->node[end],
                         (struct mp_slice){0}, (struct mp_slice){0})
                ->client = client;
}

/* The same, but what is on its way to either end is lost. */
static inline void cluster_break(struct spec_cluster *c, uint64_t client)
{
    struct spec_happening **at = &c->first;
    while (*at) {
        struct spec_happening *h = *at;
        if (h->what == SPEC_FRAME && h->client == client) {
            *at = h->next;
            free(h);
        } else {
            at = &h->next;
        }
    }
    cluster_close(c, client);
}

static inline uint32_t cluster_node_at(struct spec_cluster *c, const struct mp_address *addr)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->nodes[i].node && mp_address_equal(&c->nodes[i].addr, addr))
            return i;
    return SPEC_NODES_MAX;
}

/* --- effects --- */

static inline void cluster_frame(struct spec_cluster *c, uint32_t node,
                                 const struct mp_node_effect *e, uint8_t type)
{
    struct spec_conn *k = cluster_conn(c, e->client);
    uint32_t end = k->node[0] == node ? 1 : 0;
    if ((uint32_t)e->client > c->conn_count || k->node[1 - end] != node || k->is_gone[1 - end]) {
        cluster_error(c, "a frame for a connection that is not there");
        return;
    }
    c->frames[type]++;
    struct mp_peer_answer answer; /* of a call; other answers have another meta part, or none */
    if ((type == MP_FRAME_RESULT || type == MP_FRAME_ERROR) && e->context.size != 0 &&
        mp_peer_answer_read(e->context, &answer) == MP_OK)
        c->answer = answer;
    if (k->is_closing || k->node[end] >= SPEC_NODES_MAX)
        return;
    if (c->has_frames_lost[node][k->node[end]])
        return;
    struct spec_happening *h = cluster_plan(c, cluster_arrival(c, k, end), SPEC_FRAME, k->node[end],
                                            e->context, e->payload.bytes);
    h->client = e->client;
    h->type = type;
    h->id = e->id;
}

static inline void cluster_reply(struct spec_cluster *c, uint32_t node,
                                 const struct mp_node_effect *e)
{
    struct spec_conn *k = cluster_conn(c, e->client);
    if (k->node[0] < SPEC_NODES_MAX) {
        cluster_frame(c, node, e, e->frame);
        return;
    }
    MUST(c->reply_count < SPEC_REPLIES);
    if (k->is_gone[1])
        cluster_error(c, "an answer to a client that is gone");
    struct spec_reply *r = &c->replies[c->reply_count++];
    *r = (struct spec_reply){.at = c->now,
                             .client = e->client,
                             .id = e->id,
                             .frame = e->frame,
                             .size = e->payload.bytes.size};
    r->data = (uint8_t *)malloc(r->size + 1);
    if (r->size != 0)
        memcpy(r->data, e->payload.bytes.data, r->size);
}

static inline void cluster_dial(struct spec_cluster *c, uint32_t node,
                                const struct mp_node_effect *e)
{
    uint32_t to = cluster_node_at(c, &e->addr);
    bool is_cut = to >= SPEC_NODES_MAX || c->is_cut[node][to];
    c->dials++;
    struct spec_happening *h = cluster_plan(c, c->now + 2 * cluster_latency(c), SPEC_DIALED, node,
                                            (struct mp_slice){0}, (struct mp_slice){0});
    h->id = e->id;
    h->client = is_cut && !c->is_open ? 0 : cluster_connect(c, node, to);
    if (h->client != 0) /* nothing comes before it is known to be there */
        cluster_conn(c, h->client)->latest[0] = h->at;
}

static inline void cluster_datagram(struct spec_cluster *c, uint32_t node,
                                    const struct mp_node_effect *e)
{
    uint32_t to = cluster_node_at(c, &e->addr);
    if (to >= SPEC_NODES_MAX || c->is_cut[node][to])
        return;
    cluster_plan(c, c->now + cluster_latency(c), SPEC_DATAGRAM, to, (struct mp_slice){0},
                 e->payload.bytes)
        ->from = c->nodes[node].addr;
}

/* --- workers --- */

static inline struct spec_task *cluster_task(struct spec_node *n, uint64_t call)
{
    for (uint32_t i = 0; i < SPEC_TASKS; i++)
        if (n->tasks[i].call == call)
            return &n->tasks[i];
    return NULL;
}

/* The task of a function that waits for cluster_finish(); NULL if there is none. */
static inline struct spec_task *cluster_task_of(struct spec_cluster *c, uint32_t node,
                                                enum spec_function function)
{
    for (uint32_t i = 0; i < SPEC_TASKS; i++) {
        struct spec_task *t = &c->nodes[node].tasks[i];
        if (t->call != 0 && t->function == (uint32_t)function)
            return t;
    }
    return NULL;
}

static inline void cluster_done(struct spec_cluster *c, uint32_t node, const struct spec_task *t,
                                mp_duration after, bool is_error, struct mp_slice value)
{
    struct spec_happening *h =
        cluster_plan(c, c->now + after, SPEC_DONE, node, (struct mp_slice){0}, value);
    h->id = t->call;
    h->worker = t->worker;
    h->is_error = is_error;
}

static inline void cluster_fail_task(struct spec_cluster *c, uint32_t node,
                                     const struct spec_task *t, enum mp_code code,
                                     const char *reason)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str("it went wrong"),
                                   .traceback = mp_slice_str("\xa6"
                                                             "line 1")};
    MUST(mp_fault_put(&b, &fault) == MP_OK);
    cluster_done(c, node, t, MP_US(50), true, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* {data: SPEC_BIG_BYTES bytes, n: 7} */
static inline void cluster_put_big(struct mp_buf *b)
{
    uint8_t *zeros = (uint8_t *)calloc(1, SPEC_BIG_BYTES);
    MUST(mp_mp_put_map(b, 2) == MP_OK && mp_mp_put_text(b, "data") == MP_OK &&
         mp_mp_put_bin(b, mp_slice_of(zeros, SPEC_BIG_BYTES)) == MP_OK &&
         mp_mp_put_text(b, "n") == MP_OK && mp_mp_put_uint(b, 7) == MP_OK);
    free(zeros);
}

static inline void cluster_send(struct spec_cluster *c, uint32_t node,
                                const struct mp_node_effect *e)
{
    struct spec_node *n = &c->nodes[node];
    struct spec_task *t = cluster_task(n, 0);
    MUST(t && e->function < 8);
    *t = (struct spec_task){
        .call = e->id, .worker = e->worker, .function = e->function, .begun_at = c->now};
    n->begins[e->function]++;
    if (!c->takes_anything && mp_mp_check(e->payload.bytes) != MP_OK)
        cluster_error(c, "a function got malformed arguments");
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    if (t->function == SPEC_ECHO || t->function == SPEC_GPU) {
        cluster_done(c, node, t, MP_US(100), false, e->payload.bytes);
    } else if (t->function == SPEC_BIG) {
        cluster_put_big(&b);
        cluster_done(c, node, t, MP_US(100), false, mp_buf_slice(&b));
    } else if (t->function == SPEC_FAIL) {
        cluster_fail_task(c, node, t, MP_CODE_INTERNAL, "ERROR");
    } else if (t->function == SPEC_SIZE) {
        MUST(mp_mp_put_uint(&b, e->payload.bytes.size) == MP_OK);
        cluster_done(c, node, t, MP_US(100), false, mp_buf_slice(&b));
    }
    mp_buf_fini(&b);
}

/* `slow` or `idem` ends now, with nil. False: there is no such call. */
static inline bool cluster_finish(struct spec_cluster *c, uint32_t node,
                                  enum spec_function function)
{
    static const uint8_t nil[] = {0xc0};
    struct spec_task *t = cluster_task_of(c, node, function);
    if (!t)
        return false;
    cluster_done(c, node, t, 0, false, mp_slice_of(nil, 1));
    return true;
}

static inline void cluster_cancel_task(struct spec_cluster *c, uint32_t node, uint64_t call)
{
    struct spec_task *t = cluster_task(&c->nodes[node], call);
    if (!t || t->is_cancelled)
        return;
    t->is_cancelled = true;
    if ((t->function == SPEC_SLOW || t->function == SPEC_IDEM) && !c->is_deaf)
        cluster_fail_task(c, node, t, MP_CODE_CANCELLED, "CANCELLED");
}

/* --- disks --- */

static inline void cluster_disk(struct spec_cluster *c, uint32_t node,
                                const struct mp_node_effect *e)
{
    struct spec_happening *h =
        cluster_plan(c, c->now + c->disk_latency, SPEC_DISK, node, e->context, e->payload.bytes);
    h->type = (uint8_t)e->kind;
    h->id = e->id;
}

/* --- stepping --- */

static inline void cluster_step(struct spec_cluster *c, uint32_t node,
                                const struct mp_node_event *ev);

static inline void cluster_effect(struct spec_cluster *c, uint32_t node,
                                  const struct mp_node_effect *e)
{
    struct spec_node *n = &c->nodes[node];
    struct mp_slice none = {0};
    struct mp_slice text = e->payload.bytes;
    struct mp_node_effect events = *e;
    struct mp_node_effect event;
    switch (e->kind) {
    case MP_NODE_REPLY:
        cluster_reply(c, node, e);
        break;
    case MP_NODE_EVENTS:
        while (mp_node_next_event(&events, &event))
            cluster_reply(c, node, &event);
        MUST(events.payload.bytes.size == 0);
        break;
    case MP_NODE_SEND:
        cluster_send(c, node, e);
        return; /* the block stays the call's */
    case MP_NODE_CANCEL_CALL:
        cluster_cancel_task(c, node, e->id);
        break;
    case MP_NODE_PROBE:
        cluster_plan(c, c->now + MP_US(20), SPEC_PROBED, node, none, none)->worker = e->worker;
        break;
    case MP_NODE_REVOKE: {
        struct spec_happening *h =
            cluster_plan(c, c->now + MP_US(20), SPEC_RETURNED, node, none, none);
        h->worker = e->worker;
        h->id = e->id;
        break;
    }
    case MP_NODE_RESULT:
        break;
    case MP_NODE_WORKER_START:
        cluster_plan(c, c->now + MP_MS(1), SPEC_READY, node, none, none)->worker = e->worker;
        break;
    case MP_NODE_WORKER_STOP:
    case MP_NODE_WORKER_KILL:
        cluster_plan(c, c->now + MP_MS(1), SPEC_DIED, node, none, none)->worker = e->worker;
        break;
    case MP_NODE_RELEASE:
        break;
    case MP_NODE_LOG:
        n->logs++;
        snprintf(n->log, sizeof(n->log), "%.*s", (int)text.size, (const char *)text.data);
        if (getenv("SPEC_LOG"))
            fprintf(stderr, "%9.3f %s: %s\n", (double)c->now / 1e6, n->name, n->log);
        break;
    case MP_NODE_DRAINED:
        n->is_drained = true;
        break;
    case MP_NODE_SEND_DATAGRAM:
        cluster_datagram(c, node, e);
        break;
    case MP_NODE_DIAL:
        cluster_dial(c, node, e);
        break;
    case MP_NODE_SEND_FRAME:
        cluster_frame(c, node, e, e->frame);
        break;
    case MP_NODE_CLOSE:
        cluster_close(c, e->client);
        break;
    case MP_NODE_PERSIST:
        n->generation = e->id;
        break;
    case MP_NODE_STOP:
        n->is_stopped = true;
        snprintf(n->stop_text, sizeof(n->stop_text), "%.*s", (int)text.size,
                 (const char *)text.data);
        break;
    case MP_NODE_KEEP_RUN:
    case MP_NODE_KEEP_RUN_PART:
    case MP_NODE_FORGET_RUN:
    case MP_NODE_READ_RUN:
    case MP_NODE_READ_RUN_PART:
        cluster_disk(c, node, e);
        break;
    case MP_NODE_CHECK_UNIT:
    case MP_NODE_KEEP_UNIT:
    case MP_NODE_KEEP_ENTRIES:
    case MP_NODE_READ_UNIT:
    case MP_NODE_READ_MODULE:
    case MP_NODE_KEEP_MESSAGES:
    case MP_NODE_FORGET_MESSAGES:
    case MP_NODE_LOAD_UNIT:
    case MP_NODE_UNLOAD_UNIT:
    case MP_NODE_OPEN_RELEASE:
    case MP_NODE_CLOSE_RELEASE:
        cluster_error(c, "nothing is deployed in this world");
        break;
    }
    if (e->payload.handle != 0)
        cluster_release(c, node, e->payload.handle);
}

static inline void cluster_step(struct spec_cluster *c, uint32_t node,
                                const struct mp_node_event *ev)
{
    struct mp_node_effects out;
    if (!c->nodes[node].node)
        return;
    struct spec_alloc *counted = &c->nodes[node].counted;
    enum mp_err err = mp_node_step(c->nodes[node].node, c->now, ev, &out);
    if (counted->count >= c->fail_until[node] && c->fail_until[node] != 0)
        counted->fail_at = SPEC_NEVER;
    else if (err != MP_OK && counted->fail_at == SPEC_NEVER)
        cluster_error(c, "a step failed without a reason");
    for (uint32_t i = 0; i < out.count; i++)
        cluster_effect(c, node, &out.items[i]);
}

static inline int64_t cluster_wall(const struct spec_cluster *c)
{
    return (int64_t)(c->now / MP_MS(1)) + 1000;
}

static inline void cluster_take_frame(struct spec_cluster *c, const struct spec_happening *h)
{
    struct mp_slice meta = mp_slice_of(h->bytes, h->meta_size);
    struct mp_rpc_payload payload =
        cluster_payload(c, h->node, mp_slice_of(h->bytes + h->meta_size, h->size));
    static const enum mp_node_event_kind kinds[] = {[MP_FRAME_CALL] = MP_NODE_CALL,
                                                    [MP_FRAME_RUN] = MP_NODE_RUN,
                                                    [MP_FRAME_CANCEL] = MP_NODE_CANCEL,
                                                    [MP_FRAME_QUERY] = MP_NODE_QUERY};
    struct mp_node_event ev = {.kind = MP_NODE_FRAME};
    if (h->type >= MP_FRAME_CALL && h->type <= MP_FRAME_QUERY) {
        ev.kind = kinds[h->type];
        ev.request.client = h->client;
        ev.request.id = h->id;
        ev.request.meta = meta;
        ev.request.payload = payload;
        ev.request.wall_ms = cluster_wall(c);
    } else {
        ev.frame.client = h->client;
        ev.frame.type = h->type;
        ev.frame.id = h->id;
        ev.frame.meta = meta;
        ev.frame.payload = payload;
        ev.frame.wall_ms = cluster_wall(c);
    }
    cluster_step(c, h->node, &ev);
}

static inline void cluster_take_done(struct spec_cluster *c, const struct spec_happening *h)
{
    struct spec_node *n = &c->nodes[h->node];
    struct spec_task *t = cluster_task(n, h->id);
    if (!t)
        return;
    mp_time begun_at = t->begun_at;
    t->call = 0;
    if (!mp_node_worker_has(n->node, h->worker, h->id))
        return;
    const struct mp_node_event ev = {
        .kind = MP_NODE_COMPLETED,
        .completed = {.worker = h->worker,
                      .call = h->id,
                      .is_error = h->is_error,
                      .begun_at = begun_at,
                      .ended_at = c->now,
                      .run = c->now - begun_at,
                      .payload = cluster_payload(c, h->node, mp_slice_of(h->bytes, h->size))}};
    cluster_step(c, h->node, &ev);
}

static inline void cluster_take_disk(struct spec_cluster *c, const struct spec_happening *h)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf found;
    enum mp_node_effect_kind kind = (enum mp_node_effect_kind)h->type;
    bool is_read = kind == MP_NODE_READ_RUN || kind == MP_NODE_READ_RUN_PART;
    mp_buf_init(&found, &alloc, 0);
    bool is_done = disk_do(&c->nodes[h->node].disk, kind, mp_slice_of(h->bytes, h->meta_size),
                           mp_slice_of(h->bytes + h->meta_size, h->size), &found);
    c->disk_reads += is_read;
    const struct mp_node_event ev = {.kind = is_read ? MP_NODE_FOUND : MP_NODE_KEPT,
                                     .stored = {.ticket = h->id,
                                                .is_missing = is_read && !is_done,
                                                .is_error = !is_read && !is_done,
                                                .bytes = is_read
                                                             ? mp_buf_slice(&found)
                                                             : mp_slice_str("\x81\xa7message\xa4"
                                                                            "full")}};
    if (kind != MP_NODE_FORGET_RUN)
        cluster_step(c, h->node, &ev);
    mp_buf_fini(&found);
}

static inline void cluster_take(struct spec_cluster *c, const struct spec_happening *h)
{
    struct spec_node *n = &c->nodes[h->node];
    struct mp_node_event ev = {0};
    if (!n->node || h->boot != c->boots[h->node])
        return;
    if (h->what == SPEC_FRAME) {
        cluster_take_frame(c, h);
        return;
    }
    if (h->what == SPEC_DONE) {
        cluster_take_done(c, h);
        return;
    }
    if (h->what == SPEC_DISK) {
        cluster_take_disk(c, h);
        return;
    }
    if (h->what == SPEC_GONE) {
        struct spec_conn *k = cluster_conn(c, h->client);
        ev.kind = MP_NODE_CLIENT_GONE;
        ev.request.client = h->client;
        k->is_gone[k->node[0] == h->node ? 0 : 1] = true;
    } else if (h->what == SPEC_DIALED) {
        ev.kind = MP_NODE_DIALED;
        ev.dialed.dial = h->id;
        ev.dialed.client = h->client;
        ev.dialed.why = mp_slice_str("nobody is there");
    } else if (h->what == SPEC_DATAGRAM) {
        ev.kind = MP_NODE_DATAGRAM;
        ev.datagram.from = h->from;
        ev.datagram.bytes = mp_slice_of(h->bytes, h->size);
    } else if (h->what == SPEC_RETURNED) {
        if (!mp_node_worker_has(n->node, h->worker, h->id))
            return;
        ev.kind = MP_NODE_RETURNED; /* all begin at once, so it never comes back */
        ev.returned.worker = h->worker;
        ev.returned.call = h->id;
    } else if (h->what == SPEC_PROBED) {
        ev.kind = MP_NODE_PROBED;
        ev.probed.worker = h->worker;
        ev.probed.progress = c->now;
        ev.probed.has_room = true;
    } else if (h->what == SPEC_READY) {
        ev.kind = MP_NODE_WORKER_READY;
        ev.worker.worker = h->worker;
    } else {
        ev.kind = MP_NODE_WORKER_DIED;
        ev.worker.worker = h->worker;
        ev.worker.how = mp_slice_str("signal 9");
    }
    cluster_step(c, h->node, &ev);
}

/* One thing happens, if anything does before `until`. */
static inline bool cluster_next(struct spec_cluster *c, mp_time until)
{
    uint32_t due = SPEC_NODES_MAX;
    mp_time at = c->first ? c->first->at : MP_NEVER;
    for (uint32_t i = 0; i < c->count; i++) {
        mp_time deadline = c->nodes[i].node ? mp_node_deadline(c->nodes[i].node) : MP_NEVER;
        if (deadline < at) {
            at = deadline;
            due = i;
        }
    }
    if (at > until)
        return false;
    if (at > c->now)
        c->now = at;
    if (due < SPEC_NODES_MAX) {
        const struct mp_node_event ev = {.kind = MP_NODE_TIMER};
        cluster_step(c, due, &ev);
        return true;
    }
    struct spec_happening *h = c->first;
    c->first = h->next;
    cluster_take(c, h);
    free(h);
    return true;
}

static inline void cluster_run(struct spec_cluster *c, mp_duration d)
{
    mp_time until = c->now + d;
    for (uint32_t i = 0; cluster_next(c, until); i++)
        MUST(i < 10000000);
    c->now = until;
}

/* --- nodes --- */

static inline struct mp_address cluster_address(uint32_t node)
{
    struct mp_address addr = {.size = 6, .bytes = {10, 0, 0, (uint8_t)(node + 1), 0x1c, 0xe8}};
    return addr;
}

static inline void cluster_put_module(struct mp_buf *b, uint32_t function_count)
{
    static const char *const names[] = {"echo", "big", "fail", "slow", "idem", "size", "gpu"};
    bool is_good = mp_mp_put_map(b, 3) == MP_OK && mp_mp_put_text(b, "kind") == MP_OK &&
                   mp_mp_put_text(b, "module") == MP_OK && mp_mp_put_text(b, "version") == MP_OK &&
                   mp_mp_put_text(b, "1.0.0") == MP_OK && mp_mp_put_text(b, "functions") == MP_OK &&
                   mp_mp_put_array(b, function_count) == MP_OK;
    for (uint32_t i = 0; i < function_count; i++) {
        bool is_idempotent = i == SPEC_IDEM || i == SPEC_SIZE;
        is_good = is_good && mp_mp_put_map(b, 2) == MP_OK && mp_mp_put_text(b, "name") == MP_OK &&
                  mp_mp_put_text(b, names[i]) == MP_OK &&
                  mp_mp_put_text(b, "idempotent") == MP_OK &&
                  mp_mp_put_bool(b, is_idempotent) == MP_OK;
    }
    MUST(is_good);
}

/* All nodes with the module have the same one: m.echo, m.big … */
static inline void cluster_add_module(struct spec_cluster *c, uint32_t node, const char *name)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    char hash[65] = "00000000000000000000000000000000000000000000000000000000000000";
    snprintf(hash + 48, 17, "%016llx", (unsigned long long)mp_slice_hash(mp_slice_str(name), 1));
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    cluster_put_module(&b, 7);
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = 0,
                                                .name = mp_slice_str(name),
                                                .hash = mp_slice_of(hash, 64),
                                                .metadata = mp_buf_slice(&b)}};
    cluster_step(c, node, &ev);
    mp_buf_fini(&b);
}

static inline void cluster_restore(struct spec_cluster *c, uint32_t node)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf heads;
    mp_buf_init(&heads, &alloc, 0);
    disk_put_heads(&c->nodes[node].disk, &heads);
    const struct mp_node_event ev = {.kind = MP_NODE_RESTORED_RUNS,
                                     .stored = {.bytes = mp_buf_slice(&heads)}};
    cluster_step(c, node, &ev);
    mp_buf_fini(&heads);
}

struct spec_boot {
    const char *name;
    const char *cluster;  /* NULL: "default" */
    const char *resource; /* NULL: none */
    uint64_t generation;  /* 0: one more than before */
    uint32_t queued_max;
    uint32_t runs_kept; /* 0: 100 */
    uint64_t defects;
};

static inline void cluster_boot(struct spec_cluster *c, uint32_t node, const struct spec_boot *b)
{
    struct spec_node *n = &c->nodes[node];
    MUST(!n->node && n->blocks_used == 0);
    memset(n->tasks, 0, sizeof(n->tasks));
    snprintf(n->name, sizeof(n->name), "%s", b->name);
    n->addr = cluster_address(node);
    n->generation = b->generation != 0 ? b->generation : n->generation + 1;
    n->is_drained = n->is_stopped = false;
    n->counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    n->alloc = spec_alloc_of(&n->counted);
    c->boots[node]++;
    if (node >= c->count)
        c->count = node + 1;
    const struct mp_slice resource = mp_slice_str(b->resource ? b->resource : "");
    const struct mp_node_config cfg = {.name = mp_slice_str(n->name),
                                       .cluster = mp_slice_str(b->cluster ? b->cluster : "default"),
                                       .resources = &resource,
                                       .resource_count = b->resource ? 1 : 0,
                                       .generation = n->generation,
                                       .defects = b->defects,
                                       .workers = 1,
                                       .call_timeout = MP_SECONDS(30),
                                       .run_timeout = MP_SECONDS(60),
                                       .value_bytes_max = 1u << 20,
                                       .calls_begun_max = 64,
                                       .calls_queued_max =
                                           b->queued_max != 0 ? b->queued_max : 1000,
                                       .call_depth_max = 8,
                                       .graph_steps_max = 1000,
                                       .runs_kept = b->runs_kept != 0 ? b->runs_kept : 100,
                                       .runs_kept_bytes = 64u << 20,
                                       .runs_kept_age = MP_SECONDS(3600)};
    MUST(mp_node_new(&n->node, &cfg, &n->alloc, mp_rng_next(&c->rng)) == MP_OK);
    cluster_restore(c, node);
    const struct mp_node_event start = {.kind = MP_NODE_START,
                                        .start = {.addr = n->addr, .wall_ms = cluster_wall(c)}};
    cluster_step(c, node, &start);
}

static inline void cluster_seed(struct spec_cluster *c, uint32_t node, uint32_t number,
                                struct mp_address addr)
{
    const struct mp_node_event ev = {.kind = MP_NODE_SEED,
                                     .seed = {.number = number, .addr = addr}};
    cluster_step(c, node, &ev);
}

/* It ends at once, without a word; its connections end. All its memory must have come back. */
static inline void cluster_kill(struct spec_cluster *c, uint32_t node)
{
    struct spec_node *n = &c->nodes[node];
    if (!n->node)
        return;
    mp_node_free(n->node);
    n->node = NULL;
    c->boots[node]++;
    if (n->counted.live_bytes != 0)
        cluster_error(c, "a node kept memory");
    for (uint32_t i = 0; i < SPEC_BLOCKS_MAX; i++)
        if (n->blocks[i].handle != 0)
            cluster_release(c, node, n->blocks[i].handle);
    for (uint32_t i = 1; i <= c->conn_count; i++) {
        struct spec_conn *k = &c->conns[i];
        if (!k->is_closing && (k->node[0] == node || k->node[1] == node))
            cluster_break(c, 1ull << 32 | i);
    }
}

static inline struct spec_cluster *cluster_new(uint64_t seed)
{
    struct spec_cluster *c = (struct spec_cluster *)calloc(1, sizeof(*c));
    mp_rng_init(&c->rng, seed);
    c->now = MP_SECONDS(1);
    c->latency = MP_US(100);
    c->disk_latency = MP_MS(1);
    return c;
}

/* Node i is named "a", "b" … and has the module "m" if bit i of `with_module` is set. */
static inline void cluster_boot_all(struct spec_cluster *c, uint32_t count, uint32_t with_module)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    for (uint32_t i = 0; i < count; i++) {
        const struct spec_boot boot = {.name = names[i]};
        cluster_boot(c, i, &boot);
        if ((with_module >> i & 1) != 0)
            cluster_add_module(c, i, "m");
        if (i != 0)
            cluster_seed(c, i, 0, cluster_address(0));
    }
    cluster_run(c, MP_SECONDS(3));
}

static inline void cluster_free(struct spec_cluster *c)
{
    for (uint32_t i = 0; i < SPEC_NODES_MAX; i++) {
        cluster_kill(c, i);
        disk_free(&c->nodes[i].disk);
    }
    while (c->first) {
        struct spec_happening *h = c->first;
        c->first = h->next;
        free(h);
    }
    for (uint32_t i = 0; i < c->reply_count; i++)
        free(c->replies[i].data);
    if (c->errors != 0)
        fprintf(stderr, "cluster: %s\n", c->error);
    bool is_good = c->errors == 0;
    free(c);
    cluster_must(is_good, "promises were broken");
}

#include "spec/c/core/node/cluster_clients.h"
