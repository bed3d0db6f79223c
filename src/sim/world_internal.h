/* What the files of the simulator's world share. */
#pragma once

#include "src/base/heap.h"
#include "src/base/rng.h"
#include "src/core/node/node.h"
#include "src/sim/world.h"

#define MP_WORLD_FUNCTIONS 10
#define MP_WORLD_MODULES   3
#define MP_WORLD_DEPLOYED  2 /* modules, the first ones, that are deployed now and then */
#define MP_WORLD_RESOURCES 3
#define MP_WORLD_NONE      UINT32_MAX
#define MP_WORLD_CUTS_MAX  16
#define MP_WORLD_EXTRAS    2 /* nodes beyond those of the configuration, that take others' names */
#define MP_WORLD_BEGINS_AT MP_SECONDS(1000)
/* The nodes' defaults, for requests that name no deadline. */
#define MP_WORLD_CALL_TIMEOUT MP_SECONDS(5)
#define MP_WORLD_RUN_TIMEOUT  MP_SECONDS(20)
#define MP_WORLD_RUNS_KEPT    50

struct mp_world_function;

/* --- what is known about requests, calls and blocks --- */

enum mp_world_request_kind {
    MP_WORLD_CALL,
    MP_WORLD_RUN,
    MP_WORLD_QUERY,
    MP_WORLD_ASK,    /* about a run */
    MP_WORLD_CHANGE, /* a deploy, rollback or undeploy */
    MP_WORLD_PUBLISH,
    MP_WORLD_SUBSCRIBE
};

enum mp_world_ask_kind {
    MP_WORLD_ASK_WATCH,
    MP_WORLD_ASK_TRACE,
    MP_WORLD_ASK_CANCEL,
    MP_WORLD_ASK_RUNS
};

/* What a client asks of a run that it knows: a query, or a RUN that resumes it. */
struct mp_world_ask {
    enum mp_node_event_kind kind;
    enum mp_world_ask_kind what;
    uint32_t run;        /* its number, from 1 */
    uint32_t from;       /* a step; MP_WORLD_NONE: what had not succeeded */
    uint32_t kept;       /* bits: steps that must not run again */
    uint32_t first_step; /* as of the run */
};

/* A run that some client knows. */
struct mp_world_run {
    char id[MP_RUN_ID_BYTES];
    uint32_t node; /* its coordinator */
    uint32_t boot;
    uint32_t first_step;
    mp_time begun_at; /* or when it was heard of first */
    uint64_t runs_before;
    bool is_resumed;  /* it goes on with another */
    bool was_resumed; /* another was asked to go on with it */
    bool is_over;     /* as its client was told */
    bool is_kept;     /* its node ended, and what it kept has to have it */
    bool is_listed;
    bool is_lost;
    uint32_t succeeded; /* bits: steps, with small results */
    uint32_t event_capacity;
    uint64_t *events; /* hashes by number - 1; 0: nobody was told */
};

struct mp_world_request {
    enum mp_world_request_kind kind;
    uint32_t node;
    uint64_t client;
    uint32_t serial;     /* of a call; 0: none */
    uint32_t first_step; /* of a run: the serial of its first step, before those of the others */
    mp_time due_at;      /* its deadline; MP_NEVER: not watched */
    uint32_t answers;
    uint32_t message; /* of PUBLISH: the first; MP_WORLD_NONE: it is to be refused */
    uint32_t run;     /* of ASK, and of a RUN that resumes one: which, from 1 */
    uint32_t own_run; /* which run it began, or watches, as it was told; 0: not yet */
    uint32_t kept;    /* as of its mp_world_ask */
    enum mp_world_ask_kind what;
    int64_t seq;        /* of the last event that it was told */
    bool is_end_told;   /* that was the run's last one */
    bool is_plain;      /* a call without wishes: who has alpha or beta has what it wants */
    bool is_made;       /* of a change of what is deployed: it was answered with success */
    bool is_refused;    /* the same, with an error */
    bool is_gone;       /* its client left, or its node ended */
    bool is_to_succeed; /* nothing stands in its way */
    bool may_time_out;  /* but its function's own, short time limit */
};

/* A call that came to a node from another one, with the nodes that it had passed before. */
#define MP_WORLD_PATH_MAX 6
#define MP_WORLD_HOPS_MAX 3 /* nodes that a call may pass before the one that serves it */
struct mp_world_arrival {
    uint32_t next; /* of the same serial */
    uint32_t node;
    uint32_t path_count;
    uint32_t path[MP_WORLD_PATH_MAX];
};

/* One thing that somebody asked a function to do; its number travels in the arguments. */
struct mp_world_serial {
    uint32_t function; /* of mp_world_functions[] */
    uint32_t root;     /* the first serial of all that hangs together with it */
    uint32_t step;     /* the serial of the run's step that it belongs to; 0: none */
    uint64_t units[MP_WORLD_DEPLOYED]; /* of a root: the code of each module; 0: none was used */
    uint32_t begins;
    uint32_t begins_max;
    uint32_t begins_run;    /* of a step: in one run */
    uint32_t origin;        /* the node that was asked */
    uint32_t first_arrival; /* MP_WORLD_NONE: none */
    mp_time cancelled_at;   /* 0: never */
};

/* A payload in a shared block: its bytes stay good until its handle went out. */
struct mp_world_block {
    uint8_t *bytes; /* NULL: it went out */
    size_t size;
    uint32_t node; /* to which it was given */
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
    uint32_t module; /* as workers number it */
    uint32_t release;
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
    uint32_t place;
    uint64_t incarnation; /* unique in the world */
    uint64_t running;     /* the call that has the processor; 0: none */
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

/* --- the network --- */

enum mp_world_conn_kind { MP_WORLD_CONN_FREE, MP_WORLD_CONN_CLIENT, MP_WORLD_CONN_LINK };

/* A connection as its node numbers it: low half the place, high half `generation`. */
struct mp_world_conn {
    enum mp_world_conn_kind kind;
    uint32_t generation;
    uint32_t link; /* or the next free place */
    uint32_t side;
    bool is_high; /* PRESSURE was told */
};

/* A call that travels by way of a node in between. */
#define MP_WORLD_FRAME_FORWARD 41

struct mp_world_datagram {
    uint32_t from;
    uint32_t to; /* or the next free one */
    uint8_t *bytes;
    size_t size;
};

struct mp_world_frame {
    struct mp_world_frame *next;
    size_t own_size; /* of all of this */
    mp_time due;
    bool is_end; /* the connection ended: nothing follows */
    bool is_shared;
    uint8_t type;
    uint64_t id;
    uint32_t meta_size;
    size_t payload_size;
    uint8_t bytes[]; /* meta, payload */
};

struct mp_world_end {
    uint32_t node;
    uint32_t boot;
    uint64_t conn;
    bool is_open;
    bool is_due; /* a happening comes for what is on its way here */
    bool is_watched;
    mp_time stalled_since;        /* what it sent is not acknowledged; 0: it is */
    struct mp_world_frame *first; /* on their way to this end */
    struct mp_world_frame *last;
};

struct mp_world_link {
    bool is_used;
    uint32_t generation;
    uint32_t next_free;
    struct mp_world_end ends[2]; /* 0: who dialled */
};

struct mp_world_cut {
    uint32_t from;
    uint32_t to;
    mp_time until;
};

/* --- code --- */

struct mp_world_unit {
    uint8_t hash[MP_UNIT_HASH_BYTES];
    struct mp_buf bytes;
    struct mp_buf description;
};

/* What a store keeps; it outlives its node, unless that gets another disk. */
struct mp_world_store {
    uint32_t unit_count;
    uint32_t unit_capacity;
    struct mp_world_unit *units;
    uint32_t entry_count;
    struct mp_buf entries; /* in the order in which they were kept */
};

/* What is kept of runs and messages; it outlives its node too. */
enum mp_world_record_kind { MP_WORLD_RECORD_HEAD, MP_WORLD_RECORD_PART, MP_WORLD_RECORD_MESSAGE };

struct mp_world_record {
    enum mp_world_record_kind kind;
    uint64_t order;     /* of a message its seq, of a head when that run was kept first */
    struct mp_buf name; /* run or topic */
    struct mp_buf part; /* of a body: empty */
    struct mp_buf value;
    mp_time kept_at;
    mp_time gone_at; /* replaced or forgotten then; MP_NEVER: it is there */
};

struct mp_world_records {
    uint32_t count;
    uint32_t capacity;
    struct mp_world_record *items;
    uint64_t added;
};

/* An effect that is answered later. */
struct mp_world_job {
    enum mp_node_effect_kind kind;
    uint64_t ticket;
    mp_time due;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    struct mp_buf bytes;
    struct mp_buf context;
};

/* A unit that the workers have; its place + 1 is the driver's number for it. */
struct mp_world_loaded {
    bool is_used;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    uint32_t module_count;
    struct mp_buf description;
};

struct mp_world_release {
    bool is_open;
    struct mp_buf list;
};

/* One change of one module that some node kept. */
struct mp_world_entry {
    struct mp_buf bytes;
    uint32_t request; /* who asked for it, from 1; 0: nobody knows */
    uint64_t keepers; /* bits: nodes that have it in their stores */
};

/* --- nodes --- */

/* What a node knew of a member when it was last looked at. */
struct mp_world_view {
    uint64_t generation;
    uint32_t incarnation;
    uint32_t stamp; /* of the look that saw it */
    uint8_t state;
    bool is_there;
};

enum mp_world_node_state {
    MP_WORLD_NODE_DOWN, /* its process is gone, its machine answers */
    MP_WORLD_NODE_OFF,  /* its machine is gone too */
    MP_WORLD_NODE_UP,
    MP_WORLD_NODE_LEAVING /* told to stop */
};

struct mp_world_node {
    struct mp_world *world;
    uint32_t number; /* its place in the world, and its address */
    uint32_t name;   /* number of its name */
    enum mp_world_node_state state;
    bool is_removed; /* it does not come back */
    bool is_slow;    /* all the time */
    bool is_known;   /* since its start it listed everybody */
    bool is_late_module_there;
    uint32_t boot;
    struct mp_node *node;  /* NULL: it is not running */
    struct mp_alloc alloc; /* counts, and fails on request */
    size_t bytes;
    uint64_t bytes_sent;
    uint64_t disk; /* the last generation it kept; 0: an empty disk */
    struct mp_world_store store;
    int64_t wall_error_ms;
    mp_time disk_full_until;
    mp_time store_due; /* what the store was asked last is done then */
    struct mp_world_records records;
    mp_time records_due; /* the same of runs and messages */
    uint32_t job_count;
    uint32_t job_capacity;
    struct mp_world_job *jobs; /* oldest first */
    uint32_t loaded_capacity;
    struct mp_world_loaded *loaded;
    uint32_t release_capacity;
    struct mp_world_release *releases;
    mp_duration clock; /* ahead of the world's */
    mp_time started_at;
    mp_time paused_from;
    mp_time paused_until;
    mp_time stalls_until; /* it stands still again and again until then */
    mp_time lags_until;
    mp_duration lag_longest;
    mp_time falsely_dead_until; /* others who say so too are not counted */
    uint32_t drained;
    uint32_t changes_seen; /* by its membership, as of the last look */
    uint32_t unseen;       /* members to look at since then */
    uint32_t last_live;    /* members alive at the last step */
    uint32_t view_cursor;
    uint32_t modules;   /* bits: of mp_world_modules[] */
    uint32_t resources; /* bits */
    uint32_t conn_count;
    uint32_t conn_capacity;
    uint32_t conn_free;
    struct mp_world_conn *conns;
    uint32_t worker_capacity;
    struct mp_world_worker **workers; /* by place; NULL: never started */
    uint32_t view_capacity;
    struct mp_world_view *views; /* by name */
};

/* A name, and what its holders said of themselves: incarnations by generation. */
struct mp_world_word {
    uint64_t generation;
    uint32_t incarnation;
};

struct mp_world_name {
    uint32_t word_count;
    uint32_t word_capacity;
    struct mp_world_word *words;
    bool is_forgotten;             /* somebody asked for it: */
    uint32_t forgotten_by;         /* this node, */
    uint32_t forgotten_in;         /* in this boot, */
    uint64_t forgotten_generation; /* which knew of this boot of the member */
    mp_time lost_at;               /* a holder crashed or left */
};

struct mp_world_client {
    uint32_t node;
    uint32_t boot;
    uint64_t conn;
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
    MP_WORLD_WAKES,        /* extra: the call */
    MP_WORLD_DATAGRAM_DUE, /* number: the datagram */
    MP_WORLD_DIAL_DUE,     /* place: the address, number: the dial, extra: boot and attempt */
    MP_WORLD_LINK_DUE,     /* place: link, number: its generation, extra: side; so below */
    MP_WORLD_LINK_WATCHED,
    MP_WORLD_LINK_ALONE,
    MP_WORLD_NODE_STARTS,
    MP_WORLD_NODE_ENDS, /* number: boot */
    MP_WORLD_NODE_STALLS,
    MP_WORLD_EASED,    /* place: connection's place, number: its number */
    MP_WORLD_CODE_DUE, /* number: boot */
    MP_WORLD_FAULT_DUE,
    MP_WORLD_TOPIC_DUE
};

struct mp_world_happening {
    enum mp_world_happening_kind kind;
    uint32_t node;
    uint32_t place;
    uint64_t number;
    uint64_t extra;
};

struct mp_world {
    struct mp_world_config cfg;
    struct mp_world_report *report;
    struct mp_alloc *alloc;
    bool may_fail;
    bool is_healed;
    bool is_broken; /* it goes in circles: nothing more is done */
    bool is_asking; /* requests are due */
    bool has_network_faults;
    bool is_death_watched; /* nothing explains a death but a crash */
    bool is_calm;          /* no faults but those of functions and workers */
    struct mp_rng rng;
    struct mp_rng failures;
    mp_time now;
    mp_time faults_until;
    uint32_t steps_at_now;
    /* nodes; those past cfg.nodes take others' names */
    uint32_t node_count;
    struct mp_world_node *nodes;
    struct mp_heap timers; /* nodes by their deadlines */
    uint32_t *timer_places;
    uint32_t name_count;
    uint32_t name_capacity;
    struct mp_world_name *names; /* by number; names are n1, n2, … */
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
    /* the network */
    uint32_t cut_count;
    struct mp_world_cut cuts[MP_WORLD_CUTS_MAX];
    mp_time parted_until;
    uint8_t *sides; /* of the partition, by node */
    uint32_t datagram_count;
    uint32_t datagram_capacity;
    uint32_t datagram_free;
    struct mp_world_datagram *datagrams;
    uint32_t link_count;
    uint32_t link_capacity;
    uint32_t link_free;
    struct mp_world_link *links;
    /* books */
    uint32_t request_count;
    uint32_t request_capacity;
    struct mp_world_request *requests;
    uint32_t serial_count;
    uint32_t serial_capacity;
    struct mp_world_serial *serials;
    uint32_t arrival_count;
    uint32_t arrival_capacity;
    struct mp_world_arrival *arrivals;
    uint32_t block_count; /* shared blocks so far; a handle is a number from 1 */
    uint32_t block_capacity;
    uint32_t blocks_live;
    struct mp_world_block *blocks;
    struct mp_world_client *clients;
    uint32_t run_count;
    uint32_t run_capacity;
    struct mp_world_run *runs; /* that some client knows */
    uint64_t incarnations;
    uint32_t late_modules; /* nodes that have it */
    uint32_t entry_count;
    uint32_t entry_capacity;
    struct mp_world_entry *entries;       /* every change that was kept anywhere */
    uint32_t versions[MP_WORLD_DEPLOYED]; /* the highest that was deployed: 1.0.k */
    uint32_t victim; /* dies right before so many steps; MP_WORLD_NONE: nobody */
    uint32_t victim_steps;
    struct mp_world_topics *topics; /* NULL in other scenarios */
};

/* world.c */
/* Memory that is always there. */
void *mp_world_take(struct mp_world *w, size_t size);
void *mp_world_grow(struct mp_world *w, void *array, uint32_t *capacity, uint32_t wanted,
                    size_t item);
void mp_world_violation(struct mp_world *w, const char *invariant, const char *what,
                        uint64_t number);
/* For those who live through a seed again. */
void mp_world_log(struct mp_world *w, const struct mp_world_node *n, const char *what,
                  struct mp_slice text);
void mp_world_log_time(struct mp_world *w, const struct mp_world_node *n, const char *what,
                       mp_duration how_long);
void mp_world_plan(struct mp_world *w, mp_duration after, struct mp_world_happening h);
/* Hands an event to a node and carries out what comes of it. */
void mp_world_step(struct mp_world *w, struct mp_world_node *n, const struct mp_node_event *ev);
/* The same for what is told only once, at the start: there is memory for it. */
void mp_world_step_surely(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_event *ev);
/* Queues an event of the node at hand for when the effects at hand are carried out. */
void mp_world_answer(struct mp_world *w, const struct mp_node_event *ev);
/* A node's deadline changed, or it stands still. */
void mp_world_set_timer(struct mp_world *w, struct mp_world_node *n);
/* Lives on until then. */
void mp_world_run(struct mp_world *w, mp_time until);
bool mp_world_chance(struct mp_world *w, uint16_t of_1000);
/* Spread over the orders of magnitude below `longest`. */
mp_duration mp_world_latency(struct mp_world *w, mp_duration longest);
/* `root`: the serial that it hangs together with; 0: itself. */
uint32_t mp_world_new_serial(struct mp_world *w, uint32_t origin, const struct mp_world_function *f,
                             uint32_t begins_max, uint32_t root);
/* A payload with these bytes for a node: as they are, or copied into a shared block. */
struct mp_rpc_payload mp_world_payload(struct mp_world *w, const struct mp_world_node *n,
                                       struct mp_slice bytes);
struct mp_rpc_payload mp_world_shared(struct mp_world *w, const struct mp_world_node *n,
                                      struct mp_slice bytes);
/* A handle went out of a node: nobody reads the block any more. */
void mp_world_give_block(struct mp_world *w, const struct mp_world_node *n, uint64_t handle);
void mp_world_drop_blocks(struct mp_world *w, const struct mp_world_node *n);
/* [serial] at the front of arguments or a result; 0 if it is not there. */
uint32_t mp_world_serial_in(struct mp_slice bytes);

/* life.c: the two phases, and what scenarios measure */
void mp_world_scenario(struct mp_world *w);

/* nodes.c */
void mp_world_nodes_init(struct mp_world *w);
void mp_world_nodes_fini(struct mp_world *w);
mp_time mp_world_clock(const struct mp_world *w, const struct mp_world_node *n);
static inline bool mp_world_is_up(const struct mp_world_node *n)
{
    return n->state == MP_WORLD_NODE_UP;
}
/* A node whose process stands still hears nothing until it goes on. */
static inline bool mp_world_is_paused(const struct mp_world *w, const struct mp_world_node *n)
{
    return w->now < n->paused_until;
}
/* Whether a node has a module now, if it runs. */
bool mp_world_has_module(const struct mp_world_node *n, uint32_t module);
uint32_t mp_world_new_name(struct mp_world *w);
/* "n17" into `data` (16 bytes), and back (MP_WORLD_NONE: no such name). */
struct mp_slice mp_world_name_of(uint32_t name, char *data);
uint32_t mp_world_name_in(const struct mp_world *w, struct mp_slice text);
struct mp_address mp_world_address_of(uint32_t node);
/* The node at an address, or MP_WORLD_NONE. */
uint32_t mp_world_node_at(const struct mp_world *w, const struct mp_address *a);
void mp_world_node_start(struct mp_world *w, struct mp_world_node *n);
/* Its process ends now; is_off: so does its machine. */
void mp_world_node_crash(struct mp_world *w, struct mp_world_node *n, bool is_off);
void mp_world_node_leave(struct mp_world *w, struct mp_world_node *n);
/* Some may have come back when nobody was left who knew them, and have only a seed that is gone:
 * they are told another. */
void mp_world_introduce_strangers(struct mp_world *w);
void mp_world_node_pause(struct mp_world *w, struct mp_world_node *n, mp_duration how_long);
void mp_world_node_happening(struct mp_world *w, const struct mp_world_happening *h);
/* Carries out one effect. */
void mp_world_node_effect(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_effect *e);
/* A node that is up, or NULL. */
struct mp_world_node *mp_world_any_node(struct mp_world *w);

/* network.c */
uint64_t mp_world_conn_open(struct mp_world *w, struct mp_world_node *n,
                            enum mp_world_conn_kind kind);
void mp_world_conn_close(struct mp_world_node *n, uint64_t number);
struct mp_world_conn *mp_world_conn(const struct mp_world_node *n, uint64_t number);
bool mp_world_is_cut(const struct mp_world *w, uint32_t from, uint32_t to);
void mp_world_send_datagram(struct mp_world *w, struct mp_world_node *n,
                            const struct mp_node_effect *e);
void mp_world_dial(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e);
/* Also what goes to another node as a reply. */
void mp_world_send_frame(struct mp_world *w, struct mp_world_node *n,
                         const struct mp_node_effect *e);
void mp_world_close(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e);
/* All connections of a node end with it. */
void mp_world_network_lost(struct mp_world *w, struct mp_world_node *n, bool is_off);
void mp_world_network_happening(struct mp_world *w, const struct mp_world_happening *h);
void mp_world_network_heal(struct mp_world *w);
void mp_world_keep_links_alive(struct mp_world *w, mp_duration how_long);
void mp_world_network_fini(struct mp_world *w);

/* faults.c */
void mp_world_fault_due(struct mp_world *w);
void mp_world_stall(struct mp_world *w, struct mp_world_node *n);
void mp_world_heal(struct mp_world *w);

/* watch.c: promises that concern several nodes */
/* After each step of a node. */
void mp_world_watch_step(struct mp_world *w, struct mp_world_node *n);
/* A call goes to another node, and comes there. */
void mp_world_watch_sent(struct mp_world *w, struct mp_world_node *n, uint32_t to,
                         const struct mp_world_frame *f);
void mp_world_watch_came(struct mp_world *w, struct mp_world_node *n, uint32_t from,
                         const struct mp_world_frame *f);
/* Whether all nodes that are up list each other, and nothing else as alive. */
bool mp_world_is_everybody_known(const struct mp_world *w);
/* Whether all agree on everything; else, if `is_told`, it is a violation. */
bool mp_world_check_agreed(struct mp_world *w, bool is_told);
/* What node n lists member `name` as; false if it does not list it. */
bool mp_world_view(const struct mp_world_node *n, uint32_t name, struct mp_member_info *info);

/* code.c: what hosts do for code */
int64_t mp_world_wall(const struct mp_world *w, const struct mp_world_node *n);
void mp_world_code_init(struct mp_world *w, struct mp_world_node *n);
void mp_world_code_fini(struct mp_world *w, struct mp_world_node *n);
/* Its node is about to start: tells it what it kept. */
void mp_world_code_restore(struct mp_world *w, struct mp_world_node *n);
/* It ended: what was not answered is lost. */
void mp_world_code_lost(struct mp_world *w, struct mp_world_node *n);
/* Its disk is another one. */
void mp_world_disk_lost(struct mp_world *w, struct mp_world_node *n);
/* Whether it is one of the effects of code, which is carried out. */
bool mp_world_code_effect(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_effect *e);
void mp_world_code_happening(struct mp_world *w, const struct mp_world_happening *h);
/* A call comes to a worker. */
void mp_world_code_sent(struct mp_world *w, const struct mp_world_node *n,
                        const struct mp_node_effect *e, uint32_t serial);
/* What a release of the driver has under a name: the unit's hash; NULL: nothing. */
const uint8_t *mp_world_release_unit(const struct mp_world_node *n, uint32_t release,
                                     struct mp_slice name);
uint32_t mp_world_loaded_count(const struct mp_world_node *n);
uint32_t mp_world_open_count(const struct mp_world_node *n);
bool mp_world_is_stored(const struct mp_world_node *n, const uint8_t *hash);

/* records.c: what hosts do for runs and messages */
/* Does what one of their effects, which have waited as jobs, says. */
void mp_world_record(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j);
/* Appends what a READ_RUN or READ_RUN_PART finds; false: nothing. */
bool mp_world_record_read(const struct mp_world_node *n, const struct mp_world_job *j,
                          struct mp_buf *out);
/* Appends an array of all heads, or messages, in their order. */
void mp_world_records_put(const struct mp_world_node *n, enum mp_world_record_kind kind,
                          struct mp_buf *out);
/* Its node is about to start: tells it what it kept. */
void mp_world_records_restore(struct mp_world *w, struct mp_world_node *n);
/* Its machine went off: the last moments may be lost. */
void mp_world_records_power_cut(struct mp_world *w, struct mp_world_node *n);
void mp_world_records_fini(struct mp_world *w, struct mp_world_node *n);

/* runs.c: what clients ask about runs, and are told */
/* Draws a request about a run, or one that resumes it; false: no run is known. */
bool mp_world_draw_ask(struct mp_world *w, struct mp_world_ask *a, struct mp_buf *meta,
                       struct mp_buf *payload);
void mp_world_run_event(struct mp_world *w, struct mp_world_request *r,
                        const struct mp_node_effect *e);
/* The answer to a RUN, or to a request about one. */
void mp_world_run_answered(struct mp_world *w, struct mp_world_node *n, struct mp_world_request *r,
                           const struct mp_node_effect *e);
/* A node ends; its disk is another one. */
void mp_world_runs_lost(struct mp_world *w, const struct mp_world_node *n, bool is_off);
void mp_world_runs_disk_lost(struct mp_world *w, const struct mp_world_node *n);
void mp_world_runs_fini(struct mp_world *w);

/* deploys.c: changes of what is deployed, and that all agree on them */
void mp_world_request_change(struct mp_world *w, struct mp_world_node *n, uint32_t number,
                             struct mp_buf *meta, struct mp_buf *payload);
void mp_world_change_answered(struct mp_world *w, struct mp_world_node *n,
                              const struct mp_node_effect *e);
/* An entry is in a node's store now. */
void mp_world_entry_kept(struct mp_world *w, const struct mp_world_node *n, struct mp_slice entry);
/* Whether an error is one that a deploy must not cause. */
bool mp_world_is_harm(const struct mp_world *w, struct mp_slice error, uint32_t function);
bool mp_world_check_code(struct mp_world *w, const struct mp_world_node *first,
                         const struct mp_world_node *n, bool is_told);
bool mp_world_code_is_quiet(const struct mp_world *w, const struct mp_world_node *n);
/* Whether a deployed module is live on a node. */
bool mp_world_is_deployed(const struct mp_world_node *n, uint32_t module);
/* Lives in which one deploy after another is measured, or one is disturbed. */
void mp_world_live_deploys(struct mp_world *w);
void mp_world_live_sweep(struct mp_world *w);
void mp_world_deploys_fini(struct mp_world *w);

/* life.c, for deploys.c */
void mp_world_start_all(struct mp_world *w);
double mp_world_wait_until_agreed(struct mp_world *w, mp_duration within);
void mp_world_wait_until_quiet(struct mp_world *w, mp_duration within);

/* topics.c: publishers and subscribers, in a scenario of their own */
void mp_world_topics_init(struct mp_world *w);
void mp_world_topics_fini(struct mp_world *w);
void mp_world_topic_due(struct mp_world *w);
/* A node ends, or is told to; a client's connection ended, or takes more again. */
void mp_world_topics_node_ended(struct mp_world *w, const struct mp_world_node *n);
void mp_world_topics_client_gone(struct mp_world *w, uint32_t node, uint64_t client);
void mp_world_topics_eased(struct mp_world *w, const struct mp_world_node *n, uint64_t client);
/* After each step of a node, and when a frame comes to one. */
void mp_world_topics_watch(struct mp_world *w, const struct mp_world_node *n);
void mp_world_topics_came(struct mp_world *w, const struct mp_world_node *n, uint8_t type,
                          struct mp_slice payload);
/* Answers. */
void mp_world_published(struct mp_world *w, struct mp_world_node *n,
                        const struct mp_world_request *r, const struct mp_node_effect *e);
void mp_world_subscriber_told(struct mp_world *w, const struct mp_node_effect *e);
/* When all is healed: who had to get what, has it; then nobody subscribes any more. */
void mp_world_topics_end(struct mp_world *w);

/* workers.c */
void mp_world_worker_effect(struct mp_world *w, struct mp_world_node *n,
                            const struct mp_node_effect *e);
void mp_world_worker_happening(struct mp_world *w, const struct mp_world_happening *h);
bool mp_world_workers_are_idle(const struct mp_world *w, const struct mp_world_node *n);
void mp_world_workers_check_idle(struct mp_world *w, struct mp_world_node *n);
/* Whether a worker of any node that runs has a call of a run's step, or one below it. */
bool mp_world_workers_have_step(const struct mp_world *w, uint32_t step);
/* Whether a worker has a call of that release, or of one of those modules. */
bool mp_world_workers_name(const struct mp_world_node *n, uint32_t release, uint32_t first_module,
                           uint32_t module_count);
/* They end with their node. */
void mp_world_workers_lost(struct mp_world_node *n);
void mp_world_workers_fini(struct mp_world *w, struct mp_world_node *n);

/* clients.c */
/* The functions of the modules: a row for each, in the order of their module. */
struct mp_world_function {
    uint32_t module;
    const char *name;
    bool is_idempotent;
    uint32_t concurrency;
    uint32_t timeout_ms;
};
extern const struct mp_world_function mp_world_functions[MP_WORLD_FUNCTIONS];
extern const char *const mp_world_modules[MP_WORLD_MODULES];
extern const char *const mp_world_resources[MP_WORLD_RESOURCES];
#define MP_WORLD_MODULE_LATE 2 /* appears only after a while */
/* The patterns of the first of these functions, which subscribes to topics. */
#define MP_WORLD_SUBSCRIBES 2
extern const char *const mp_world_subscribes[MP_WORLD_SUBSCRIBES];

void mp_world_clients_init(struct mp_world *w);
void mp_world_clients_fini(struct mp_world *w);
void mp_world_add_module(struct mp_world *w, struct mp_world_node *n, uint32_t number);
/* What describes a module of that version, with the functions that it always has; `salt`, unless 0,
 * makes it another one, and `padding` larger. */
void mp_world_put_metadata(struct mp_buf *b, uint32_t module, const char *version, uint64_t salt,
                           size_t padding);
/* A module that only this scenario has: "m17", with one function "m17.f". */
void mp_world_add_invented(struct mp_world *w, struct mp_world_node *n, uint32_t number);
struct mp_slice mp_world_invented_name(uint32_t number, char *data, size_t size);
void mp_world_client_happening(struct mp_world *w, const struct mp_world_happening *h);
/* Each node is asked for each function that somebody has; all of it must succeed. */
void mp_world_ask_everything(struct mp_world *w);
void mp_world_forget(struct mp_world *w, struct mp_world_node *n, uint32_t name);
void mp_world_reply(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e);
/* The clients of a node lose it: nobody owes them anything. */
void mp_world_clients_lost(struct mp_world *w, const struct mp_world_node *n);
/* The node stands still: what it has limits of its own for, one after another, takes longer. */
void mp_world_clients_wait(struct mp_world *w, const struct mp_world_node *n, mp_duration how_long);
bool mp_world_clients_are_answered(const struct mp_world *w);
/* Asks a node for a change, and gives the request's number, from 1. */
uint32_t mp_world_ask_change(struct mp_world *w, struct mp_world_node *n, const struct mp_buf *meta,
                             const struct mp_buf *payload);
void mp_world_clients_check_answered(struct mp_world *w);
/* PUBLISH with this payload, or SUBSCRIBE with this meta part. */
void mp_world_ask_topic(struct mp_world *w, struct mp_world_node *n, uint64_t client,
                        enum mp_world_request_kind kind, uint32_t message,
                        const struct mp_buf *bytes);
void mp_world_client_leaves(struct mp_world *w, uint32_t node, uint64_t client);
/* How often a call of f may begin for a caller that allows so many retries. */
uint32_t mp_world_begins_max(const struct mp_world *w, const struct mp_world_function *f,
                             uint32_t retries);
void mp_world_put_function_name(const struct mp_world_function *f, struct mp_text *text);
