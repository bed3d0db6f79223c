/* One whole node as a sans-I/O machine: the composition of catalog, calls, worker pool and runs. It
 * is the only place that sees all of them; it routes events to the machines and joins their
 * effects. Whoever drives it (the host, a simulator) carries out the effects in order.
 *
 * Payloads are opaque here: bytes, and the handle of a shared block that they may lie in. A handle
 * that comes in with an event goes out with exactly one effect: with REPLY or RESULT that carries
 * it, or with RELEASE.
 *
 * Other nodes are reached over links and with datagrams. A link is a connection whose two ends have
 * introduced themselves with HELLO frames; the driver knows only connections (a client's and a
 * peer's are numbered alike), exchanges prefaces, and passes frames on: the requests of
 * clients as CALL, RUN, CANCEL, QUERY, PUBLISH and SUBSCRIBE events, every other frame as FRAME.
 * What it dials for the machine (DIAL) is a connection too, once DIALED has said so; when any
 * connection ends, CLIENT_GONE. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/base/time.h"
#include "src/core/catalog/catalog.h"
#include "src/core/deploy/deploy.h"
#include "src/core/membership/membership.h"
#include "src/core/pool/pool.h"
#include "src/core/rpc/rpc.h"
#include "src/wire/address.h"

struct mp_node;

struct mp_node_config {
    struct mp_slice name;
    struct mp_slice cluster;
    const struct mp_slice *resources;
    uint32_t resource_count;
    bool is_insecure;
    bool is_kept;        /* messages that it accepts are to outlive it: KEEP_MESSAGES */
    uint64_t generation; /* of this boot: higher than that of any boot before */
    uint64_t defects;    /* see base/defects.h; 0 */
    uint32_t workers;
    mp_duration call_timeout;
    mp_duration run_timeout;
    size_t value_bytes_max;
    uint32_t calls_begun_max;
    uint32_t calls_queued_max;
    uint32_t call_depth_max;
    uint32_t graph_steps_max;
    /* Records of runs: at most so many, so many bytes, and no older ones. */
    uint32_t runs_kept;
    uint64_t runs_kept_bytes;
    mp_duration runs_kept_age;
};

enum mp_node_event_kind {
    MP_NODE_START,  /* start the workers */
    MP_NODE_MODULE, /* a worker described a module */
    MP_NODE_CALL,
    MP_NODE_RUN,
    MP_NODE_CANCEL,
    MP_NODE_QUERY,
    MP_NODE_PUBLISH, /* request: `client` 0: a function of this node publishes, which hears nothing
                      */
    MP_NODE_SUBSCRIBE,
    MP_NODE_CLIENT_GONE,
    MP_NODE_NESTED,
    MP_NODE_NESTED_CANCEL,
    MP_NODE_COMPLETED,
    MP_NODE_RETURNED, /* as MP_POOL_RETURNED */
    MP_NODE_PROBED,
    MP_NODE_WORKER_READY,
    MP_NODE_WORKER_DIED,
    MP_NODE_DRAIN,    /* take nothing new; DRAINED follows when all work has ended */
    MP_NODE_SEED,     /* seed: where `--join` points now; may be told again at any time */
    MP_NODE_DATAGRAM, /* datagram */
    MP_NODE_DIALED,   /* dialed: the end of a DIAL effect */
    MP_NODE_FRAME,    /* frame: one that no client sends */
    MP_NODE_PRESSURE, /* pressure: unsent bytes of a connection, a client's or a peer's, passed the
                         bound, or fell below it */
    MP_NODE_RESTORED, /* stored: what KEEP_ENTRIES kept before; told once, before START */
    MP_NODE_RESTORED_RUNS,     /* stored: an array of the heads that KEEP_RUN kept before, oldest
                                  first; told once, after RESTORED and before START */
    MP_NODE_RESTORED_MESSAGES, /* stored: likewise what KEEP_MESSAGES kept, an array in the order
                                  of seq */
    MP_NODE_CHECKED,           /* stored: the end of CHECK_UNIT */
    MP_NODE_KEPT,              /* stored: the end of each KEEP_… */
    MP_NODE_FOUND,             /* stored: the end of each READ_… */
    MP_NODE_LOADED,            /* stored: the end of LOAD_UNIT */
    MP_NODE_TIMER
};

struct mp_node_event {
    enum mp_node_event_kind kind;
    union {
        struct {
            struct mp_address addr; /* as others reach it */
            int64_t wall_ms;        /* Unix time */
        } start;
        struct {
            uint32_t number; /* which --join */
            struct mp_address addr;
        } seed;
        struct {
            struct mp_address from;
            struct mp_slice bytes;
        } datagram;
        struct {
            uint64_t dial;
            uint64_t client;     /* the connection, its prefaces exchanged; 0: it failed */
            struct mp_slice why; /* of a failure, for people */
        } dialed;
        struct {
            uint64_t client;
            uint8_t type;
            uint64_t id;
            struct mp_slice meta;
            struct mp_rpc_payload payload;
            int64_t wall_ms; /* Unix time */
        } frame;
        struct {
            uint64_t client;
            bool is_high; /* more is unsent than should be */
        } pressure;
        struct {
            uint32_t host_module;
            struct mp_slice name;
            struct mp_slice hash;
            struct mp_slice metadata;
        } module;
        struct {
            uint64_t client; /* low half: dense place; high half: generation */
            uint64_t id;
            struct mp_slice meta;
            struct mp_rpc_payload payload;
            int64_t wall_ms;       /* Unix time; of RUN, QUERY, PUBLISH and SUBSCRIBE */
            struct mp_slice facts; /* of QUERY, what only the driver knows: a MessagePack array with
                                      [pid, resident bytes] for each worker's place */
        } request;                 /* CALL, RUN, CANCEL, QUERY, PUBLISH, SUBSCRIBE, CLIENT_GONE */
        struct {
            uint32_t worker;
            uint64_t incarnation; /* low half: the worker's place */
            uint64_t parent;
            uint64_t nested;
            struct mp_slice options;
            struct mp_slice fun;
            struct mp_rpc_payload args;
        } nested;
        struct {
            uint32_t worker;
            uint64_t call;
            bool is_error;
            bool is_retiring;
            mp_time begun_at;
            mp_time ended_at;
            mp_duration run;
            struct mp_rpc_payload payload;
        } completed;
        struct {
            uint32_t worker;
            uint64_t call;
            bool is_back;
            bool is_full;
        } returned;
        struct {
            uint32_t worker;
            uint64_t running;
            mp_time since;
            uint64_t progress;
            bool has_unread;
            bool has_room;
        } probed; /* as in pool.h */
        struct {
            uint32_t worker;
            uint64_t incarnation;
            uint64_t running;
            const uint64_t *unbegun;
            uint32_t unbegun_count;
            struct mp_slice how; /* "signal 11 (SIGSEGV)", for people */
        } worker;                /* WORKER_READY: only worker */
        struct {
            uint64_t ticket;       /* of the effect that this ends */
            int64_t wall_ms;       /* RESTORED_RUNS, RESTORED_MESSAGES: Unix time */
            bool is_missing;       /* FOUND, LOADED: what was asked for is not kept */
            bool is_error;         /* `bytes` is an ERROR map */
            uint32_t unit;         /* LOADED: the driver's number for it, until UNLOAD_UNIT */
            uint32_t first_module; /* LOADED: its modules are host modules from here on, in order */
            uint8_t hash[MP_UNIT_HASH_BYTES]; /* CHECKED: of the unit */
            struct mp_slice bytes;            /* RESTORED…: an array; CHECKED, LOADED: the unit's
                                                 description; FOUND: what was asked for */
        } stored;
    };
};

enum mp_node_effect_kind {
    MP_NODE_REPLY,
    MP_NODE_EVENTS, /* to `client`: payload.bytes, whole EVENT frames one behind the other, as they
                       go over the connection; mp_node_next_event takes them apart */
    MP_NODE_SEND,
    MP_NODE_REVOKE,
    MP_NODE_CANCEL_CALL, /* bytes: the ERROR map that the function gets */
    MP_NODE_RESULT,      /* to a worker: the end of a nested call */
    MP_NODE_PROBE,
    MP_NODE_WORKER_START,
    MP_NODE_WORKER_STOP,
    MP_NODE_WORKER_KILL,
    MP_NODE_RELEASE,
    MP_NODE_LOG, /* bytes: a line; level as in message.h */
    MP_NODE_DRAINED,
    MP_NODE_SEND_DATAGRAM, /* payload.bytes to `addr` */
    MP_NODE_DIAL,          /* connect to `addr`; id: the dial. DIALED follows, always */
    MP_NODE_SEND_FRAME, /* over the connection `client`: frame, id, context (the meta part), payload
                         */
    MP_NODE_CLOSE,      /* end the connection `client` once what was sent is written; CLIENT_GONE
                           follows unless it is gone already */
    MP_NODE_PERSIST,    /* id: this boot's generation is raised to that; keep it */
    MP_NODE_STOP,       /* this node must end, as payload.bytes says: its name is taken */
    /* Code. `id` is a ticket; the event named follows, always. payload.bytes: see each. */
    MP_NODE_CHECK_UNIT, /* load this unit where it can harm nobody; CHECKED. It may require what is
                           in `release` besides */
    MP_NODE_KEEP_UNIT,  /* keep this unit for ever, by its hash, with the description in
                           `context`; KEPT once it cannot be lost */
    MP_NODE_KEEP_ENTRIES, /* keep this array of entries behind those kept before; KEPT */
    MP_NODE_READ_UNIT,    /* the unit of this hash; FOUND */
    MP_NODE_READ_MODULE,  /* module: the source of a module that the node has loaded; FOUND */
    MP_NODE_LOAD_UNIT,    /* have the workers load the unit of this hash beside all others; LOADED
                             once those that do not compute have it. Calls that are sent to it
                             afterwards find it in any worker */
    /* Runs and messages. `id` is a ticket; the event named follows, always. They are kept in the
     * order of these effects, behind the units and entries that wait: an end of the process loses
     * nothing that was answered, a power cut may lose the last moments, in order. */
    MP_NODE_KEEP_RUN,      /* context: a run's id. payload: the array [head, body], in place of
                              what was kept under that id, its progress parts too; KEPT */
    MP_NODE_KEEP_RUN_PART, /* context: the array [run's id, part's name]; payload: any bytes, in
                              place of what the part was; KEPT. A part of which no head is kept
                              when the node starts again is dropped then */
    MP_NODE_READ_RUN,      /* context: a run's id; FOUND: the array [head, body, array of all
                              parts "progress/…" by name, each as bin] */
    MP_NODE_READ_RUN_PART, /* context: as of KEEP_RUN_PART; FOUND: the part's bytes */
    MP_NODE_KEEP_MESSAGES, /* payload: an array of [topic, seq, at, data]; KEPT */
    /* Without an event: */
    MP_NODE_FORGET_RUN,      /* context: a run's id: its head, its body and all parts */
    MP_NODE_FORGET_MESSAGES, /* payload: an array of [topic, seq]: that topic's messages up to and
                                with seq */
    MP_NODE_UNLOAD_UNIT,     /* unit: nothing calls it any more; its numbers may be given anew */
    MP_NODE_OPEN_RELEASE,    /* release: what its calls find under `require`: an array of
                                [module's name, unit's number, the module's place in it] */
    MP_NODE_CLOSE_RELEASE    /* release: no call has it any more; the number may be opened anew */
};

struct mp_node_effect {
    enum mp_node_effect_kind kind;
    uint8_t frame;     /* REPLY: MP_FRAME_RESULT, _ERROR, _EVENT or _MESSAGES; SEND_FRAME: any */
    bool is_error;     /* RESULT */
    uint8_t level;     /* LOG */
    uint32_t worker;   /* of the worker effects */
    uint32_t module;   /* SEND, READ_MODULE: as workers number it */
    uint32_t function; /* SEND */
    uint32_t release;  /* SEND, CHECK_UNIT, OPEN_RELEASE, CLOSE_RELEASE; 0: the one without
                          entries */
    uint32_t unit;     /* UNLOAD_UNIT */
    uint8_t hash[MP_UNIT_HASH_BYTES]; /* KEEP_UNIT */
    uint64_t client;  /* REPLY, EVENTS, SEND_FRAME, CLOSE; RESULT: the worker's incarnation */
    uint64_t id;      /* REPLY: request; RESULT: nested number; SEND…: the call */
    mp_time deadline; /* SEND */
    struct mp_slice context; /* SEND; SEND_FRAME, and REPLY with MESSAGES: the meta part; KEEP_UNIT
                                and the effects of runs: as said there */
    struct mp_address addr;  /* SEND_DATAGRAM, DIAL */
    struct mp_rpc_payload payload;
};

struct mp_node_effects {
    const struct mp_node_effect *items; /* valid, with all slices, until the next step */
    uint32_t count;
};

/* Allocates the machine; MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_node_new(struct mp_node **own_out, const struct mp_node_config *cfg,
                                    struct mp_alloc *a, uint64_t seed);
/* MP_ENOMEM: memory ran out on the way. What is in `out` is carried out all the same: requests are
 * answered with RESOURCE_EXHAUSTED, and nothing that somebody waits for is lost; a module, a line
 * of the log or an event of a run may be. */
MP_MUST_USE enum mp_err mp_node_step(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                                     struct mp_node_effects *out);
mp_time mp_node_deadline(const struct mp_node *n);
void mp_node_free(struct mp_node *n);

/* The first of what EVENTS still holds, as a REPLY; false: it holds none. */
bool mp_node_next_event(struct mp_node_effect *events, struct mp_node_effect *out);

/* Whether a worker has this call now; an answer for any other is not to be believed. */
bool mp_node_worker_has(const struct mp_node *n, uint32_t worker, uint64_t call);
/* Calls and runs under way: while there are some, the host may spin for answers. */
uint32_t mp_node_outstanding(const struct mp_node *n);
/* Numbers of calls in use, also of those that were answered while an attempt had not ended yet. */
uint32_t mp_node_numbers_in_use(const struct mp_node *n);
/* The name of the function that a call calls; empty if there is no such call. */
struct mp_slice mp_node_function_of(const struct mp_node *n, uint64_t call);
/* Whether all code is loaded that was live when the node last ended, as far as it is kept here. */
bool mp_node_has_code(const struct mp_node *n);
/* Whether calls that begin here have what is live by the history, which is not so while its code is
 * gathered. */
bool mp_node_is_up_to_date(const struct mp_node *n);
const struct mp_catalog *mp_node_catalog(const struct mp_node *n);
const struct mp_deploy *mp_node_deploy(const struct mp_node *n);
const struct mp_pool *mp_node_pool(const struct mp_node *n);
const struct mp_membership *mp_node_membership(const struct mp_node *n);
/* Links to other nodes that are up now. */
uint32_t mp_node_link_count(const struct mp_node *n);
/* Results that this node holds for runs, its own or of others: how many, and their bytes. */
uint32_t mp_node_held_count(const struct mp_node *n);
uint64_t mp_node_held_bytes(const struct mp_node *n);
/* The release of calls that begin here, as the driver numbers it; and how a query of the catalog
 * names a function in it. */
uint32_t mp_node_release(const struct mp_node *n);
uint32_t mp_node_pin(const struct mp_node *n, struct mp_slice fun);
/* Deploys under way, also of other nodes; releases without number 0; units that are loaded or on
 * their way. */
uint32_t mp_node_deploy_count(const struct mp_node *n);
uint32_t mp_node_release_count(const struct mp_node *n);
uint32_t mp_node_unit_count(const struct mp_node *n);
