/* What the files of core/node share. */
#pragma once

#include "src/base/defects.h"
#include "src/base/rng.h"
#include "src/core/archive/archive.h"
#include "src/core/deploy/deploy.h"
#include "src/core/graph/graph.h"
#include "src/core/node/node.h"
#include "src/core/router/router.h"
#include "src/core/topic/topic.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/peer.h"

#define MP_NODE_NONE UINT32_MAX

/* Marks of rpc calls. */
#define MP_NODE_HAS_HOLES  1u /* its arguments have parts that other nodes hold */
#define MP_NODE_MAY_HOLD   2u /* its result may stay here, if it is large */
#define MP_NODE_IS_CHILD   4u /* a function on another node waits for it */
#define MP_NODE_MARKS_BITS 8u /* above them: the member that coordinates the run */

/* Chunks of memory for what effects point to; all of it is given back at the next step. */
struct mp_node_chunk {
    struct mp_node_chunk *next;
    size_t size;
    size_t used;
};

/* Work that an effect of one machine makes for another is put off until the list at hand is done:
 * a machine is never stepped while its effects are being read. */
enum mp_node_work_kind {
    MP_NODE_WORK_POOL_END,
    MP_NODE_WORK_RUN_ANSWER,
    MP_NODE_WORK_ATTEMPT_END, /* an attempt that has not come to a worker here is over */
    MP_NODE_WORK_RESUBMIT,    /* it never began: another node may do it */
    MP_NODE_WORK_FILLED,      /* the arguments of an attempt are whole now */
    MP_NODE_WORK_FETCHED,     /* a run's FETCH is over */
    MP_NODE_WORK_TCP_ACK,     /* a member showed life on a link */
    MP_NODE_WORK_SYNC,        /* digests are to be compared with a member */
    MP_NODE_WORK_PROBE,       /* a member is to be spoken to over a link */
    MP_NODE_WORK_UNIT,        /* a unit is loaded, or cannot be had: `call` is its place */
    MP_NODE_WORK_LISTED,  /* a LIST was answered, or lost (is_lost); `call`: which had to wait */
    MP_NODE_WORK_CLOSED,  /* who asks about runs over the connection `call` hears no more of them */
    MP_NODE_WORK_STAGED,  /* a STAGE or SWITCH of a deploy (`call`) was answered, or lost */
    MP_NODE_WORK_CODE,    /* the same of a CODE; `call` is the unit's ticket */
    MP_NODE_WORK_GATHERED /* the same of a BACKLOG; `call` is the gathering, `member` was asked */
};

struct mp_node_work {
    enum mp_node_work_kind kind;
    uint64_t call; /* FETCHED: the run; TCP_ACK, SYNC, PROBE: the member */
    enum mp_pool_end end;
    struct mp_rpc_effect answer;
    struct mp_slice payload; /* stays good during the step */
    struct mp_graph_timing timing;
    uint32_t member; /* where it ran */
    uint32_t worker; /* from 1; 0: none */
    uint64_t bytes_in;
    uint64_t moved;
    uint64_t held;
    uint64_t held_bytes;
    uint64_t fetch;
    uint64_t upto_seq;
    bool is_held;
    bool has_copies; /* it ran with what it fetched from others, and keeps that */
    bool is_lost;
    bool has_begun;
    bool may_rerun; /* ATTEMPT_END: lost without its own fault */
};

/* The answer that a worker gave and that this step is about. */
struct mp_node_completion {
    bool is_set;
    bool is_error;
    uint64_t call;
    uint32_t member; /* that gave it */
    uint32_t worker;
    mp_time submitted_at;
    mp_time begun_at;
    mp_time ended_at;
    uint64_t bytes_in;
    struct mp_peer_answer peer;    /* of another node's answer */
    struct mp_rpc_payload payload; /* handle 0 once somebody took it */
};

/* --- attempts (attempt.c): where the attempt under way of each call is --- */

enum mp_node_attempt_state {
    MP_NODE_ATTEMPT_NONE,
    MP_NODE_ATTEMPT_LOCAL,   /* the pool has it */
    MP_NODE_ATTEMPT_FILLING, /* its arguments are being gathered */
    MP_NODE_ATTEMPT_OUT,     /* on its way to another node, or there */
    MP_NODE_ATTEMPT_LISTING  /* the other node is being told what the release is */
};

struct mp_node_fill;
struct mp_node_run; /* runs_internal.h */

struct mp_node_attempt {
    uint64_t call; /* 0: never used */
    enum mp_node_attempt_state state;
    bool is_picked; /* the router counts it as outstanding */
    bool is_ending; /* its end is put off already */
    uint32_t marks; /* of the call, which may be gone already when its answer goes out */
    uint64_t tag;
    uint32_t member;
    uint32_t function;
    bool was_listed; /* the member was told what its release is */
    uint32_t out;
    uint32_t avoid_count; /* nodes that turned it down */
    uint32_t avoid[MP_ROUTER_AVOID_MAX];
    mp_time sent_at;
    uint64_t moved;            /* bytes fetched for it */
    bool moves_copy;           /* it was the first to ask for what it waits for */
    struct mp_node_fill *fill; /* NULL, or the arguments in the making */
    struct mp_node_kept *kept; /* NULL, or what it gave: the answer waits for calls left behind */
};

/* --- requests to other nodes (out.c) --- */

enum mp_node_out_kind {
    MP_NODE_OUT_CALL,      /* owner: the call */
    MP_NODE_OUT_FETCH,     /* owner: the copy that it fills */
    MP_NODE_OUT_RUN_FETCH, /* owner: the run, owner_id: the fetch */
    MP_NODE_OUT_RELEASE,   /* owner: the run */
    MP_NODE_OUT_RELAY,     /* owner: the connection it came from, owner_id: its id there */
    MP_NODE_OUT_LIST,      /* owner: the call that needs it there */
    MP_NODE_OUT_STAGE,     /* owner: the deploy's ticket, owner_id: the place of the member in it */
    MP_NODE_OUT_SWITCH,    /* the same */
    MP_NODE_OUT_CODE,      /* owner: the unit's ticket */
    MP_NODE_OUT_PUBLISHED,
    MP_NODE_OUT_BACKLOG /* owner: the gathering */
};

enum mp_node_out_state {
    MP_NODE_OUT_FREE,
    MP_NODE_OUT_QUEUED, /* until its link takes it */
    MP_NODE_OUT_SENT,
    MP_NODE_OUT_GIVEN_UP /* sent; nobody wants the answer, which frees the number */
};

struct mp_node_out {
    uint64_t id; /* low half: place; high half: generation */
    enum mp_node_out_kind kind;
    enum mp_node_out_state state;
    uint8_t type;    /* of its frame */
    uint32_t member; /* for whom it is */
    uint32_t link;   /* which has it */
    uint32_t next;   /* of the same link, oldest first; or the free list */
    uint32_t previous;
    uint64_t owner;
    uint64_t owner_id;
    bool is_peers;  /* RELAY: the owner is another node, not a client */
    bool is_of_run; /* RELAY: it goes to a run's coordinator */
    bool is_watch;  /* RELAY: events come before the answer; it is asked again if it must be */
    bool is_paused; /* is_watch: it only keeps the place of one that was given up */
    bool is_ending; /* is_watch: CANCEL was said; `other` goes on with it */
    bool is_wanted; /* is_paused: events are to come again once `other` has ended */
    uint64_t other; /* is_paused: the one that is ending, or 0 */
    uint64_t told;  /* is_watch: the last event that passed, as the run counts them */
    char run_id[MP_RUN_ID_BYTES]; /* is_watch */
    uint64_t sent_in;   /* number of the step; what the driver has not seen yet was not sent */
    uint8_t *own_bytes; /* passed, meta, payload, behind each other */
    size_t own_size;
    struct mp_slice passed; /* an array of names: the nodes that it came through */
    struct mp_slice meta;
    struct mp_rpc_payload payload;
};

/* --- links (link.c) --- */

enum mp_node_link_state {
    MP_NODE_LINK_FREE,
    MP_NODE_LINK_WAITING, /* until it is dialled again */
    MP_NODE_LINK_DIALLING,
    MP_NODE_LINK_GREETING, /* HELLO has not been said by both */
    MP_NODE_LINK_UP
};

struct mp_node_link {
    enum mp_node_link_state state;
    uint32_t member;      /* MP_NODE_NONE: not known yet */
    uint32_t seed;        /* which --join it follows, or MP_NODE_NONE */
    uint64_t client;      /* the connection, from GREETING on */
    uint64_t client_last; /* the same; stays when that ended */
    uint64_t dial;        /* low half: place */
    bool is_ours;         /* we dialled */
    bool was_seed;        /* in order to join */
    bool is_high;         /* its unsent bytes are above the bound */
    bool wants_sync;      /* once it is up */
    bool is_told;         /* that this node stops; its PONG is awaited */
    bool is_asked;        /* whether it may be closed; the same */
    bool is_held_back;    /* the other end wants to close it: nothing new is sent */
    uint32_t failures;
    uint32_t next_free;
    uint64_t generation; /* as its HELLO said */
    mp_time due_at;
    mp_time used_at;
    uint32_t out_first;
    uint32_t out_last;
    uint32_t out_count;
};

struct mp_node_seed {
    bool is_set;
    bool is_dialled;
    struct mp_address addr;
    uint32_t failures;
    mp_time due_at;
};

/* --- what stays here for runs elsewhere (held.c) --- */

struct mp_node_held {
    uint64_t id; /* low half: place; 0: free */
    uint32_t next_free;
    bool is_copy;         /* of what another node holds; found by `key` */
    bool is_released;     /* its run is over: it stays a while for who wants to see it */
    uint32_t coordinator; /* member whose run it is for */
    uint64_t generation;  /* of that member's boot */
    mp_time since;
    uint64_t run;
    struct mp_rpc_payload payload; /* own bytes if there is no handle */
    struct mp_slice key;           /* owned */
};

/* --- code (units.c, releases.c, deploys.c) --- */

enum mp_node_unit_state {
    MP_NODE_UNIT_FREE,
    MP_NODE_UNIT_ASKED,    /* LOAD_UNIT is under way */
    MP_NODE_UNIT_FETCHING, /* it is not kept here: another node was asked for it */
    MP_NODE_UNIT_CHECKING, /* CHECK_UNIT is under way */
    MP_NODE_UNIT_KEEPING,  /* KEEP_UNIT is under way */
    MP_NODE_UNIT_LOADED,
    MP_NODE_UNIT_FAILED /* it could not be had, as `own_why` says */
};

struct mp_node_unit {
    enum mp_node_unit_state state;
    uint32_t generation; /* with the place: the ticket */
    uint8_t hash[MP_UNIT_HASH_BYTES];
    uint32_t number; /* the driver's; LOADED */
    uint32_t first_module;
    uint32_t module_count;
    bool was_named;  /* by a release, since it was last wanted */
    uint32_t tries;  /* members that were asked for it */
    uint64_t fetch;  /* the request to one, while FETCHING */
    mp_time used_at; /* something named it */
    mp_time failed_at;
    uint8_t *own_bytes; /* the unit, until it is kept */
    size_t size;
    uint8_t *own_description; /* once it is checked or LOADED */
    size_t description_size;
    uint8_t *own_why; /* an ERROR map */
    size_t why_size;
};

struct mp_node_release_item {
    struct mp_slice name; /* points into the list, as the others do */
    struct mp_slice version;
    struct mp_slice hash;
    struct mp_slice unit_hash;
    struct mp_slice scope; /* an array of names, or empty */
    uint32_t place;        /* in the unit */
    uint32_t unit;         /* its place here, once the release is open */
    uint32_t module;       /* in the catalog, the same */
    bool is_pipeline;
    bool is_scope_excluded;
};

/* Somebody waits until a release is open: another node, for its LIST. */
struct mp_node_release_waiter {
    uint64_t client;
    uint64_t id;
    mp_time until;
};

/* What calls find under the names of deployed modules. Number 0 is the one without any. */
struct mp_node_release {
    bool is_used;
    bool is_open; /* all units are loaded, and the driver knows it */
    uint8_t id[MP_RELEASE_BYTES];
    struct mp_slice list; /* owned */
    struct mp_node_release_item *items;
    uint32_t item_count;
    mp_time used_at;
    struct mp_buf waiters; /* struct mp_node_release_waiter */
};

/* Who waits for what the driver reads: another node, for a unit; or a client, for the source of a
 * module. */
struct mp_node_asked {
    uint64_t client;
    uint64_t id;
    uint64_t ticket;
    bool is_source;
    uint32_t place;  /* source: in the unit that is read */
    uint32_t loaded; /* source: the catalog's module whose file is read; MP_CATALOG_NONE: a unit */
    uint32_t version_size;
    char version[MP_VERSION_BYTES_MAX];
    uint8_t hash[MP_UNIT_HASH_BYTES]; /* source: of a deployed one */
};

enum mp_node_deploy_state {
    MP_NODE_DEPLOY_FREE,
    MP_NODE_DEPLOY_CHECKING,
    MP_NODE_DEPLOY_STAGING,
    MP_NODE_DEPLOY_KEEPING,
    MP_NODE_DEPLOY_SWITCHING
};

enum mp_node_deploy_member_state {
    MP_NODE_DEPLOY_ASKED,
    MP_NODE_DEPLOY_STAGED,
    MP_NODE_DEPLOY_LIVE,
    MP_NODE_DEPLOY_FAILED,
    MP_NODE_DEPLOY_BEHIND, /* it was not there, or is no more */
    MP_NODE_DEPLOY_OUTSIDE /* not in the scope: it only hears of it */
};

/* What a node has to do with a deploy; the first is this node. */
struct mp_node_deploy_member {
    uint32_t member;
    enum mp_node_deploy_member_state state;
    uint64_t out; /* the request to it */
    mp_duration took;
    uint8_t *own_error; /* FAILED: an ERROR map */
    size_t error_size;
};

/* A deploy, rollback or undeploy that this node was asked for; or, with is_peers, a unit that
 * another node stages here, or entries that it sends. */
struct mp_node_deploy {
    enum mp_node_deploy_state state;
    uint32_t generation; /* with the place: the ticket */
    bool is_peers;
    bool is_unanswered;
    uint64_t client;
    uint64_t id;
    enum mp_deploy_action action;
    bool is_forced;
    bool is_rule_free; /* no rules of versions: a rollback */
    bool is_same;      /* nothing is changed by it */
    bool is_unknown;   /* SWITCHING: its entries are kept, and not in the history yet */
    uint64_t epoch;    /* of its entries */
    int64_t wall_ms;   /* when it was asked for: the others compared their clocks with that */
    mp_time began_at;
    mp_time until;        /* of the state */
    uint8_t *own_request; /* what the slices below point into, and the unit */
    size_t request_size;
    struct mp_slice module; /* ROLLBACK, UNDEPLOY */
    struct mp_slice expect;
    struct mp_slice by;
    struct mp_slice unit_bytes;
    struct mp_slice nodes; /* of the scope */
    enum mp_deploy_scope scope;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    uint8_t *own_description;
    size_t description_size;
    struct mp_deploy_stamp origin; /* of ROLLBACK; its node is in own_request */
    struct mp_buf version; /* ROLLBACK: entries that are to be live again; UNDEPLOY: to end */
    struct mp_buf members; /* struct mp_node_deploy_member */
    struct mp_buf entries; /* as they are made */
};

/* --- topics (topics.c, subscribed.c) --- */

/* What the log is told of at most once a second. */
struct mp_node_told {
    mp_time next_at;
    uint64_t hidden; /* since the last line */
};

/* Another node, as one that messages go to and come from. */
struct mp_node_topic_member {
    uint64_t out;        /* the PUBLISHED under way; 0: none */
    bool is_ended;       /* it ended, which the machine has not been told yet */
    bool is_lost;        /* and how */
    uint64_t generation; /* of the last batch that came from it, */
    uint64_t seq;        /* and its first seq */
};

struct mp_node_topic_function {
    uint8_t *own_name; /* NULL: the place is free */
    size_t name_size;
    uint64_t patterns; /* their hash, as the machine was told; 0: not yet */
    bool is_there;     /* while all are gone through */
};

/* A subscription asks other nodes for what they have kept. */
struct mp_node_gather {
    uint64_t number;
    uint32_t left; /* answers; 0: the place is free */
};

struct mp_node_topics {
    struct mp_topic *machine;
    bool is_stepping;         /* its effects are being carried out */
    bool has_borrowed;        /* effects of this step point into it */
    bool is_interest_changed; /* others are to be told, once it is tell_at */
    bool is_room_changed;     /* calls of functions began or ended */
    bool are_functions_stale; /* the catalog has changed */
    bool is_keep_lost;        /* there was no memory to have messages kept */
    mp_time machine_at;       /* its deadline */
    mp_time tell_at;
    mp_time retry_at;   /* of interest that there was no memory for */
    mp_time refresh_at; /* the same of functions */
    mp_time told_until; /* this node stops: so long it waits for what is under way; 0: not yet */
    uint64_t functions_digest;
    struct mp_node_topic_member *members; /* by number */
    uint32_t member_capacity;
    uint32_t forwards; /* PUBLISHED under way */
    uint32_t ended;    /* and those whose end was not told yet */
    struct mp_node_topic_function *functions;
    uint32_t function_capacity;
    uint32_t calls; /* of functions, under way */
    uint64_t calls_begun;
    struct mp_node_gather *gathers;
    uint32_t gather_capacity;
    struct mp_buf build; /* what the machine is told, or another node */
    struct mp_buf args;  /* of a call */
    struct mp_node_told error_told;
    struct mp_node_told missed_told;
    struct mp_node_told publish_told;
    struct mp_node_told keep_told;
};

struct mp_node {
    /* what is looked at in every step: together, since a step is short */
    mp_time links_at;     /* when a link or seed wants something */
    mp_time code_at;      /* when code wants to be looked at */
    mp_time watch_at;     /* when watchers want to be looked at */
    mp_time records_at;   /* the archive */
    mp_time held_at;      /* what was released */
    uint64_t steps;       /* so far */
    uint64_t client_gone; /* during CLIENT_GONE; else 0 */
    struct mp_membership *membership;
    struct mp_node_work *work;
    struct mp_node_effect *effects;
    struct mp_node_chunk *chunks;
    struct mp_node_unit *units;
    struct mp_node_release *releases;
    mp_time now;         /* of this step */
    uint32_t route_hint; /* of the call that begins now: it need not be looked up again */
    uint32_t work_first;
    uint32_t work_count;
    uint32_t work_capacity;
    uint32_t effect_count;
    uint32_t effect_capacity;
    uint32_t run_count;   /* runs that go on */
    uint32_t watch_count; /* of all runs */
    uint32_t link_used;
    uint32_t held_count;
    uint32_t unit_capacity;
    uint32_t release_capacity;
    uint32_t release_count;  /* in use, number 0 included */
    uint32_t release;        /* of calls that begin here */
    uint32_t release_wanted; /* what is live by the history: it is taken up once it is open */
    uint32_t deploy_count;   /* under way */
    uint32_t load_told;
    bool has_announce;
    bool is_catalog_changed; /* who waits for a provider may try again */
    bool is_out_of_memory;   /* an effect could not be listed in this step */
    bool is_over_fresh;      /* the place of some run may be given back */
    bool is_unkept;          /* some entry of the history could not be kept on the disk */
    bool has_entries;        /* of the history: what is live is to be worked out anew */
    bool is_draining;
    bool is_drained_told;
    bool is_catalog_behind; /* it missed that a member is there, for want of memory */
    struct mp_node_config cfg;
    struct mp_alloc *alloc;
    struct mp_catalog catalog;
    struct mp_pool pool;
    struct mp_rpc rpc;
    struct mp_node_run *runs;
    uint32_t run_capacity;
    uint32_t over_first; /* runs that are over, the oldest first */
    uint32_t over_last;
    uint32_t over_count;
    uint64_t told_in; /* number of the step in which they were told `told_bytes` */
    size_t told_bytes;
    struct {
        uint64_t client;
        mp_time at;
    } told[MP_WATCH_TOLD_PLACES]; /* events, to whom and when last; by the client's number */
    struct mp_buf high;           /* clients, uint64_t each, that have much unread */
    struct mp_buf closed;         /* the same: connections that this step closed */
    struct mp_archive *archive;
    uint64_t gathers;       /* numbers of fetches for records, from MP_NODE_GATHER_FIRST on */
    struct mp_buf event;    /* the same, of a run */
    struct mp_buf record;   /* one in the making */
    mp_time unkept_told_at; /* when the log said that records are not kept */
    struct mp_buf run_asks; /* struct mp_node_run_ask *: requests that wait for the disk */
    uint32_t run_ask_tickets;
    struct mp_rng rng;
    uint32_t identity;     /* in run ids: of this node's name */
    mp_time goodbye_until; /* others are waited for no longer */
    uint64_t calls;
    uint64_t errors;
    mp_time started_at;
    struct mp_router *router;
    struct mp_buf key;       /* of the wish at hand */
    struct mp_buf providers; /* as the catalog found them */
    struct mp_buf build;     /* a frame's meta part or payload in the making */
    struct mp_buf announce;  /* news of our own catalog entry */
    uint32_t route_found;    /* by the last mp_node_find() */
    uint8_t *states;         /* of members, as they were logged, + 1; 0: not yet */
    uint32_t state_capacity;
    bool is_missing;                  /* metadata of modules is wanted from whoever spoke last */
    bool is_stopped;                  /* STOP was said */
    struct mp_node_attempt *attempts; /* by slot of the call */
    uint32_t attempt_capacity;
    struct mp_node_out *outs;
    uint32_t out_capacity;
    uint32_t out_used; /* places ever used */
    uint32_t out_count;
    uint32_t relay_count; /* of them, those for others */
    uint32_t run_fetch_count;
    uint32_t out_free;
    struct mp_node_link *links;
    uint32_t link_capacity;
    uint32_t link_free;
    uint32_t links_up;
    uint32_t syncs;    /* times that digests were to be compared with anybody */
    bool has_differed; /* the last comparison found something */
    uint64_t dials;
    uint32_t *link_of_member;   /* place + 1; 0: none */
    uint32_t member_capacity;   /* of link_of_member */
    uint32_t *link_of_client;   /* by the low half; place + 1 */
    uint32_t client_capacity;   /* of link_of_client */
    struct mp_node_seed *seeds; /* MP_SEEDS_MAX of them, or NULL */
    struct mp_node_held *held;
    uint32_t held_capacity;
    uint32_t held_used;
    uint32_t held_free;
    uint64_t held_bytes;
    uint32_t held_generation; /* of the first numbers of places */
    struct mp_buf released;   /* uint64_t: numbers of what was released, the oldest first */
    uint64_t released_bytes;
    struct mp_map copies;      /* key -> place in held */
    uint32_t fill_first;       /* calls whose arguments are being gathered: slots, chained */
    struct mp_slice death_how; /* during WORKER_DIED */
    struct mp_slice death_fun;
    struct mp_node_completion completion;
    struct mp_deploy *deploy;
    uint32_t release_told; /* 0, or the wanted one, of which the log says why it cannot be had */
    struct mp_buf asked;   /* struct mp_node_asked */
    uint64_t reads;
    struct mp_node_deploy *deploys;
    uint32_t deploy_capacity;
    int64_t wall_ms; /* Unix time at wall_at */
    mp_time wall_at;
    struct mp_node_topics topics;
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
/* The connection ended, or was closed, in this very step: nothing is said to it any more. */
bool mp_node_is_gone(const struct mp_node *n, uint64_t client);
/* `payload` is a value; an empty one, for which there was no memory, is told as an error. */
void mp_node_reply(struct mp_node *n, uint64_t client, uint64_t id, uint8_t frame,
                   struct mp_slice payload);
/* Encodes a failure into scratch memory; without memory it is another failure, that one. */
struct mp_slice mp_node_error(struct mp_node *n, const struct mp_fault *fault);
/* `error` with fun, node, version and attempt added where it lacks them. */
struct mp_slice mp_node_error_of_call(struct mp_node *n, struct mp_slice error, uint32_t function,
                                      uint32_t attempt);
/* The text under a key of a map, or nothing. */
struct mp_slice mp_node_text_of(struct mp_slice map, const char *key);
void mp_node_refuse(struct mp_node *n, uint64_t client, uint64_t id, enum mp_code code,
                    const char *reason, const char *message);
/* The ERROR map of an answer that no worker gave: DEADLINE or CANCELLED. */
struct mp_slice mp_node_answer_error(struct mp_node *n, const struct mp_rpc_effect *answer);

/* calls.c: requests, and the machines that carry them out */
void mp_node_call(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_nested(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_completed(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_pool_end(struct mp_node *n, mp_time now, const struct mp_node_work *work);
void mp_node_retry_waiting(struct mp_node *n, mp_time now);
/* The context that a function may ask for: as given when the call began, with the attempt at hand.
 */
struct mp_slice mp_node_context_of(struct mp_node *n, const struct mp_rpc_call *c);
/* Steps of the machines, with their effects carried out. False: no memory (of BEGIN, SUBMIT). */
bool mp_node_step_rpc(struct mp_node *n, mp_time now, const struct mp_rpc_event *ev,
                      uint64_t *begun);
bool mp_node_step_pool(struct mp_node *n, mp_time now, const struct mp_pool_event *ev);
struct mp_rpc_target mp_node_target(const struct mp_catalog_function *f);
/* How an attempt ended, besides what it gave. */
struct mp_node_outcome {
    bool is_neighbour; /* lost without its own fault */
    bool has_begun;
    bool is_unsure; /* something of it may still run where nobody can look */
};
/* Whether somebody waits for the attempt under way; `c` may be NULL. */
bool mp_node_is_wanted(const struct mp_rpc_call *c);
/* The completion at hand becomes the OUTCOME of a call's attempt. */
void mp_node_outcome(struct mp_node *n, mp_time now, uint64_t call, bool is_error,
                     struct mp_node_outcome how);
/* The same with an ERROR map of our own. */
void mp_node_outcome_error(struct mp_node *n, mp_time now, uint64_t call, struct mp_slice error,
                           struct mp_node_outcome how);
/* The attempt of a call that is not wanted any more is over. */
void mp_node_ended(struct mp_node *n, mp_time now, uint64_t call, bool has_begun, bool is_unsure);

/* route.c: who can do what is wished for */
/* Bytes under which the router keeps a wish; valid until the next key. Empty without memory. */
struct mp_slice mp_node_key(struct mp_node *n, const struct mp_catalog_query *q);
/* The wish again; `needs` has room for MP_NEEDS_MAX. */
void mp_node_key_read(struct mp_slice key, struct mp_catalog_query *q, struct mp_slice *needs);
/* The route of a key, worked out if need be; MP_ROUTER_NONE without memory. */
uint32_t mp_node_route(struct mp_node *n, struct mp_slice key);
/* The function that a wish leads to, for what is the same on all providers; NULL if there is none.
 */
const struct mp_catalog_function *mp_node_find(struct mp_node *n, struct mp_slice key);
/* The ERROR map that says why no provider was found. */
struct mp_slice mp_node_explain(struct mp_node *n, const struct mp_catalog_query *q);
struct mp_slice mp_node_member_name(const struct mp_node *n, uint32_t member);

/* attempt.c */
void mp_node_submit(struct mp_node *n, mp_time now, uint64_t call);
void mp_node_abandon(struct mp_node *n, mp_time now, uint64_t call);
/* The attempt under way; NULL if there is none. */
struct mp_node_attempt *mp_node_attempt_of(const struct mp_node *n, uint64_t call);
/* The attempt is over: the router hears, what it held is given back. */
void mp_node_attempt_close(struct mp_node *n, mp_time now, uint64_t call, bool is_measured);
/* Puts off the end of an attempt that is nowhere any more. */
void mp_node_attempt_end(struct mp_node *n, uint64_t call, struct mp_slice error, bool has_begun,
                         bool may_rerun);
void mp_node_attempt_ended(struct mp_node *n, mp_time now, const struct mp_node_work *work);
void mp_node_attempt_filled(struct mp_node *n, mp_time now, uint64_t call);
/* Sends the frame of an attempt; false if it could not be built. */
bool mp_node_attempt_send(struct mp_node *n, struct mp_node_out *o, struct mp_slice *meta,
                          struct mp_rpc_payload *payload);
void mp_node_attempt_answered(struct mp_node *n, mp_time now, struct mp_node_out *o, bool is_error,
                              struct mp_slice meta, struct mp_rpc_payload payload);
/* The member that did not know the call's release does now, or will not. */
void mp_node_attempt_listed(struct mp_node *n, mp_time now, const struct mp_node_work *w);
void mp_node_attempt_lost(struct mp_node *n, struct mp_node_out *o, bool was_sent);
void mp_node_attempts_fini(struct mp_node *n);
/* The completion at hand, which is the call's, is wanted when its answer is due. Without memory
 * that answer says so. */
void mp_node_kept_put(struct mp_node *n, uint64_t call);
bool mp_node_is_kept(const struct mp_node *n, uint64_t call);
/* Makes what was kept for the call the completion at hand; false: nothing was, or there is no
 * memory for its bytes. It is kept no longer. */
bool mp_node_kept_take(struct mp_node *n, uint64_t call);
void mp_node_kept_drop(struct mp_node *n, uint64_t call);
/* A call that another node sent here. */
void mp_node_peer_call(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* The answer to it. */
void mp_node_peer_answer(struct mp_node *n, mp_time now, const struct mp_rpc_effect *e,
                         struct mp_slice bytes, uint64_t handle);

/* out.c */
/* A request for `member`, queued and sent as soon as may be. `meta` and `payload` are copied (a
 * handle is taken over); `passed`: an array of names, or empty. NULL without memory. */
struct mp_node_out *mp_node_out_new(struct mp_node *n, enum mp_node_out_kind kind, uint8_t type,
                                    uint32_t member, uint64_t owner, uint64_t owner_id,
                                    struct mp_slice passed, struct mp_slice meta,
                                    struct mp_rpc_payload payload);
void mp_node_out_give_up(struct mp_node *n, struct mp_node_out *o);
struct mp_node_out *mp_node_out_get(const struct mp_node *n, uint64_t id);
/* RESULT or ERROR from a link. The payload's handle is taken if *payload.handle becomes 0. */
void mp_node_out_answer(struct mp_node *n, mp_time now, uint32_t link, uint8_t type, uint64_t id,
                        struct mp_slice meta, struct mp_rpc_payload *payload);
/* Sends what is queued on a link that takes it. */
void mp_node_outs_flush(struct mp_node *n, uint32_t link);
/* The link is gone, or cannot be had: what it had is lost, or goes another way. */
void mp_node_outs_lost(struct mp_node *n, mp_time now, uint32_t link);
/* Moves what is queued for a member to the link of its helper. */
void mp_node_outs_reroute(struct mp_node *n, uint32_t link);
/* A connection is gone: what it asked for through here is cancelled. */
void mp_node_outs_of_client_gone(struct mp_node *n, uint64_t client);
bool mp_node_outs_cancel(struct mp_node *n, uint64_t client, uint64_t id);
/* A run needs no held values any more; its records may (see MP_NODE_GATHER_FIRST). */
void mp_node_outs_of_run_over(struct mp_node *n, uint64_t run);
#define MP_NODE_GATHER_FIRST (1ull << 63) /* fetches for records; a machine's are below */
/* A request about code, from a link or out of a FORWARD; false: it is another frame. */
bool mp_node_code_request(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_forward(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* A request of a client for another node. False: there is no such node (and it was said). */
bool mp_node_relay_query(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice on);
/* The same for a request about a run, to its coordinator. False: it could not be sent. */
bool mp_node_relay_run(struct mp_node *n, const struct mp_node_event *ev, uint8_t frame,
                       uint32_t member);
/* EVENT from a link: whoever asked through here is told. */
void mp_node_out_event(struct mp_node *n, uint32_t link, uint64_t id,
                       struct mp_rpc_payload *payload);
void mp_node_outs_fini(struct mp_node *n);

/* run_relay.c: watches of runs that pass through this node */
/* A query that is passed on may be one. */
void mp_node_out_note_watch(struct mp_node_out *o);
/* An event of it passed. */
void mp_node_out_told(struct mp_node *n, struct mp_node_out *o, uint64_t seq);
/* It has ended. True: another request goes on with it, or did, so nobody is to be told. */
bool mp_node_out_goes_on(struct mp_node *n, const struct mp_node_out *o, bool is_result);
/* A connection has much unread, or has read it: what watches through here pauses, or goes on. */
void mp_node_outs_pressure(struct mp_node *n, uint64_t client, bool is_high);

/* link.c */
/* The link to a member, dialled if there is none; MP_NODE_NONE without memory. */
uint32_t mp_node_link_to(struct mp_node *n, uint32_t member);
/* The link that is up over this connection, or MP_NODE_NONE. */
uint32_t mp_node_link_of_client(const struct mp_node *n, uint64_t client);
/* Whether a connection is another node's, introduced or about to be. */
bool mp_node_is_peer(const struct mp_node *n, uint64_t client);
bool mp_node_link_is_up(const struct mp_node *n, uint32_t member);
/* A random one of the links that are up, if there are MP_SYNC_LINKS_MIN; else MP_NODE_NONE. */
uint32_t mp_node_link_any(struct mp_node *n);
/* A request came over it, if it is a link. */
void mp_node_link_used(struct mp_node *n, uint64_t client);
/* This node stops: says so on all links. */
void mp_node_links_goodbye(struct mp_node *n, mp_time now);
/* Nobody sends anything any more who still believed that this node serves. */
bool mp_node_links_have_heard(const struct mp_node *n);
/* The link to the member itself, if there is one that is up; else MP_NODE_NONE. */
uint32_t mp_node_link_direct(const struct mp_node *n, uint32_t member);
void mp_node_send_frame(struct mp_node *n, uint64_t client, uint8_t type, uint64_t id,
                        struct mp_slice meta, struct mp_rpc_payload payload);
void mp_node_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_dialed(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_link_gone(struct mp_node *n, mp_time now, uint64_t client);
void mp_node_pressure(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_seed(struct mp_node *n, const struct mp_node_event *ev);
void mp_node_links_tick(struct mp_node *n, mp_time now);
/* PING and PONG on a link that is up. */
void mp_node_link_ping(struct mp_node *n, uint32_t link, uint64_t id);
void mp_node_link_pong(struct mp_node *n, mp_time now, uint32_t link, uint64_t id);
/* What a change of a member means for its link. */
void mp_node_link_member_changed(struct mp_node *n, mp_time now, uint32_t member);
/* A member is reached by another way now: what waits for a link to it may go there. */
void mp_node_link_via_changed(struct mp_node *n, uint32_t member);
void mp_node_link_member_gone(struct mp_node *n, mp_time now, uint32_t member);
void mp_node_links_fini(struct mp_node *n);
/* Makes links_at no later than `at`. */
void mp_node_links_wake(struct mp_node *n, mp_time at);

/* link.c, for greet.c and seeds.c; greet.c, for link.c */
#define MP_NODE_SEED_SATISFIED MP_SECONDS(30)  /* a seed that is a live member: looked at again */
#define MP_NODE_SEED_IS_SELF   MP_SECONDS(600) /* or when it is this node */
#define MP_NODE_IDLE_SWEEP     MP_SECONDS(5)
#define MP_NODE_GOODBYE_ID     1 /* of the PING behind a goodbye */
#define MP_NODE_HANG_UP_ID     2 /* of a PING: may this link be closed? of its PONG: it may */
#define MP_NODE_STAY_ID        3 /* of a PONG: it may not; of a PING: it is not closed after all */
mp_duration mp_node_link_backoff(struct mp_node *n, uint32_t failures);
uint32_t mp_node_link_of_member(const struct mp_node *n, uint32_t member);
uint32_t mp_node_any_link(const struct mp_node *n, uint64_t client);
void mp_node_link_due(struct mp_node *n, struct mp_node_link *l, mp_time at);
uint32_t mp_node_link_new(struct mp_node *n);
void mp_node_link_free(struct mp_node *n, uint32_t link);
bool mp_node_link_bind_client(struct mp_node *n, uint32_t link, uint64_t client);
bool mp_node_link_bind_member(struct mp_node *n, uint32_t link, uint32_t member);
void mp_node_seed_again(struct mp_node *n, uint32_t number);
void mp_node_close_client(struct mp_node *n, uint64_t client);
void mp_node_link_refuse(struct mp_node *n, uint64_t client, enum mp_code code, const char *reason,
                         const struct mp_text *message);
void mp_node_link_dial_member(struct mp_node *n, uint32_t link);
void mp_node_link_dial(struct mp_node *n, uint32_t link, const struct mp_address *addr);
void mp_node_link_end(struct mp_node *n, mp_time now, uint32_t link);
bool mp_node_link_is_any(const struct mp_node_link *l);
void mp_node_say_hello(struct mp_node *n, uint64_t client);
void mp_node_hello_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_refused_frame(struct mp_node *n, mp_time now, uint32_t link, struct mp_slice payload);
void mp_node_link_set_up(struct mp_node *n, uint32_t link, uint32_t member);

/* cluster.c */
void mp_node_step_membership(struct mp_node *n, mp_time now, const struct mp_membership_event *ev);
/* False: memory ran out on the way. */
bool mp_node_step_catalog(struct mp_node *n, mp_time now, const struct mp_catalog_event *ev,
                          struct mp_catalog_effects *out);
/* Compares digests with the node at the other end. */
void mp_node_sync(struct mp_node *n, uint32_t link);
/* Says over a link that this node has left. */
void mp_node_sync_goodbye(struct mp_node *n, uint32_t link);
void mp_node_sync_frame(struct mp_node *n, mp_time now, uint32_t link, uint64_t stage,
                        struct mp_slice payload);
void mp_node_want_frame(struct mp_node *n, uint32_t link, struct mp_slice payload);
void mp_node_have_frame(struct mp_node *n, mp_time now, uint32_t link, struct mp_slice payload);
void mp_node_cluster_settle(struct mp_node *n, mp_time now);
/* Tells the catalog of all members again. */
void mp_node_catalog_catch_up(struct mp_node *n, mp_time now);
void mp_node_sync_member(struct mp_node *n, uint32_t member);
void mp_node_probe_member(struct mp_node *n, uint32_t member);
void mp_node_tcp_ack(struct mp_node *n, mp_time now, uint32_t member);
/* FORGET of a client: an ERROR map, or empty if it was done. */
struct mp_slice mp_node_forget(struct mp_node *n, mp_time now, struct mp_slice name);
void mp_node_stop(struct mp_node *n, const struct mp_address *addr);

/* held.c */
/* Gathers the parts of the arguments; the attempt ends, or FILLED follows. */
void mp_node_fill(struct mp_node *n, uint64_t call);
void mp_node_fill_free(struct mp_node *n, struct mp_node_attempt *a);
/* The whole arguments. */
struct mp_slice mp_node_filled(const struct mp_node_attempt *a);
void mp_node_fill_answered(struct mp_node *n, struct mp_node_out *o, bool is_error,
                           struct mp_rpc_payload *payload);
void mp_node_fill_lost(struct mp_node *n, struct mp_node_out *o);
/* Keeps a result for a run of `coordinator`; 0 if there is no room, `payload` then being as it was.
 */
uint64_t mp_node_hold(struct mp_node *n, uint32_t coordinator, uint64_t run,
                      struct mp_rpc_payload *payload);
void mp_node_fetch_frame(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice meta);
void mp_node_release_frame(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice meta);
/* RUNS with an odd id asks for the receiver's; the answer has the even id below it: the time at
 * which it was asked. The one behind HELLO has 0. */
#define MP_NODE_RUNS_ASKS 1u
/* A coordinator told which of its runs go on: nothing is kept for others, unless it came to be kept
 * after this node had asked. */
void mp_node_runs_frame(struct mp_node *n, uint32_t coordinator, uint64_t id, struct mp_slice runs);
void mp_node_say_runs(struct mp_node *n, uint64_t client, uint64_t id);
/* A live member that something is kept for, rather one that no link leads to; or MP_NODE_NONE. */
uint32_t mp_node_held_for(struct mp_node *n);
void mp_node_release_run(struct mp_node *n, uint32_t coordinator, uint64_t run);
/* Everything for runs of a member, or of its boots before a generation. */
void mp_node_release_all(struct mp_node *n, uint32_t coordinator);
void mp_node_release_older(struct mp_node *n, uint32_t coordinator, uint64_t generation);
/* Lets go of what was released a while ago. */
void mp_node_held_tick(struct mp_node *n, mp_time now);
void mp_node_held_fini(struct mp_node *n);

/* runs.c, run_begin.c */
/* The 32 bits by which run ids name a node. */
uint32_t mp_node_run_identity(struct mp_slice node);
void mp_node_run(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_plan(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_run_answer(struct mp_node *n, mp_time now, const struct mp_node_work *work);
/* A node may keep something for a run, which may be over: it will be told when. */
void mp_node_run_may_be_held(struct mp_node *n, uint64_t number, uint32_t member);
/* Appends the numbers of the runs that go on here. */
MP_MUST_USE enum mp_err mp_node_put_runs(const struct mp_node *n, struct mp_buf *b);
void mp_node_run_fetched(struct mp_node *n, mp_time now, const struct mp_node_work *work);
/* A node is dead: what it held for runs of this one is lost. */
void mp_node_runs_lost(struct mp_node *n, mp_time now, struct mp_slice node);
/* A node may come to hold something for a run of this one. */
void mp_node_run_note_holder(struct mp_node *n, uint64_t run, uint32_t member);
bool mp_node_run_cancel(struct mp_node *n, mp_time now, uint64_t client, uint64_t id);
void mp_node_runs_of_client_gone(struct mp_node *n, mp_time now, uint64_t client);
void mp_node_runs_tick(struct mp_node *n, mp_time now);
mp_time mp_node_runs_deadline(const struct mp_node *n);
void mp_node_runs_sweep(struct mp_node *n);
void mp_node_runs_fini(struct mp_node *n);

/* run_record.c: runs that are kept */
MP_MUST_USE enum mp_err mp_node_records_init(struct mp_node *n);
void mp_node_records_fini(struct mp_node *n);
void mp_node_runs_restored(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_runs_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_records_tick(struct mp_node *n, mp_time now);
/* This node ends: what is to be kept sets out now. */
void mp_node_records_flush(struct mp_node *n, mp_time now);

/* run_ask.c, run_queries.c: what clients ask about runs */
void mp_node_runs_found(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* The queries about runs; false: it is none of them. `*is_sent`: another node has it now, with its
 * payload. */
bool mp_node_run_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                       struct mp_slice what, struct mp_slice options, bool *is_sent);
void mp_node_run_asks_client_gone(struct mp_node *n, uint64_t client);
/* A request that waits for the disk is wanted no more; false: there is none. */
bool mp_node_run_ask_cancel(struct mp_node *n, uint64_t client, uint64_t id);
void mp_node_run_waiters_gone(struct mp_node *n, uint64_t client);
void mp_node_run_asks_fini(struct mp_node *n);

/* run_watch.c: who is told of runs */
void mp_node_watch_pressure(struct mp_node *n, mp_time now, uint64_t client, bool is_high);
/* The client wants to be told no more; false: it is no watcher. */
bool mp_node_watch_cancel(struct mp_node *n, uint64_t client, uint64_t id);
void mp_node_watch_client_gone(struct mp_node *n, uint64_t client);
void mp_node_watch_tick(struct mp_node *n, mp_time now);

/* queries.c */
void mp_node_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev);

/* units.c: code by its hash, wherever it is gathered from */
/* A number for what the driver, or another node, is asked and answers later. */
#define MP_NODE_TICKET_UNIT     1u
#define MP_NODE_TICKET_DEPLOY   2u
#define MP_NODE_TICKET_ENTRIES  3u
#define MP_NODE_TICKET_READ     4u
#define MP_NODE_TICKET_RUN      5u
#define MP_NODE_TICKET_MESSAGES 6u
uint64_t mp_node_ticket(uint32_t kind, uint32_t generation, uint32_t place);
uint32_t mp_node_ticket_kind(uint64_t ticket);
/* A unit that is wanted here: its place, or MP_NODE_NONE if there are too many. It is gathered if
 * it is neither loaded nor on its way; WORK_UNIT tells of its end. `bytes`, `description`: the
 * unit, checked, if whoever asks has it. A FAILED one is tried again after a while, or at once with
 * bytes. */
uint32_t mp_node_unit_want(struct mp_node *n, const uint8_t *hash, struct mp_slice bytes,
                           struct mp_slice description);
struct mp_node_unit *mp_node_unit_find(const struct mp_node *n, const uint8_t *hash);
/* The description of one of its modules; false if there is none. */
bool mp_node_unit_describes(struct mp_slice description, uint32_t place, struct mp_slice *hash,
                            struct mp_slice *metadata);
void mp_node_unit_checked(struct mp_node *n, const struct mp_node_event *ev);
void mp_node_unit_kept(struct mp_node *n, const struct mp_node_event *ev);
void mp_node_unit_loaded(struct mp_node *n, const struct mp_node_event *ev);
void mp_node_unit_fetched(struct mp_node *n, const struct mp_node_work *w);
/* Another node asks for a unit; and what the driver found. */
void mp_node_code_frame(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice meta);
void mp_node_source_found(struct mp_node *n, const struct mp_node_asked *asked,
                          const struct mp_node_event *ev);
void mp_node_code_found(struct mp_node *n, const struct mp_node_event *ev);
/* Lets go of units that nothing names. */
void mp_node_units_sweep(struct mp_node *n, mp_time now);
bool mp_node_units_are_idle(const struct mp_node *n);
void mp_node_units_fini(struct mp_node *n);

/* releases.c: what calls find under the names of deployed modules */
/* The number of a release by its id; MP_NODE_NONE if it is not known or not open. */
uint32_t mp_node_release_by_id(struct mp_node *n, struct mp_slice id);
/* The id, as peers know it; empty for number 0. */
struct mp_slice mp_node_release_id(const struct mp_node *n, uint32_t release);
struct mp_slice mp_node_release_list(const struct mp_node *n, uint32_t release);
/* How a query names what `name` stands for in a release: a function, or a pipeline; 0: nothing. */
uint32_t mp_node_release_pin(const struct mp_node *n, uint32_t release, struct mp_slice name,
                             bool is_pipeline);
/* The history changed: what is live is worked out anew. */
void mp_node_release_refresh(struct mp_node *n, mp_time now);
/* A unit is there, or cannot be had. */
void mp_node_releases_unit(struct mp_node *n, mp_time now);
void mp_node_list_frame(struct mp_node *n, mp_time now, uint64_t client, uint64_t id,
                        struct mp_slice list);
/* Timers: lets go of releases that no call has, gives up waiters. */
void mp_node_releases_sweep(struct mp_node *n, mp_time now);
bool mp_node_releases_are_idle(const struct mp_node *n);
/* Whether a release names a unit. */
bool mp_node_releases_name(const struct mp_node *n, const uint8_t *hash);
void mp_node_releases_client_gone(struct mp_node *n, uint64_t client);
enum mp_err mp_node_releases_init(struct mp_node *n);
void mp_node_releases_fini(struct mp_node *n);

/* deploys.c: changes of what is live */
int64_t mp_node_wall(const struct mp_node *n, mp_time now);
void mp_node_wall_is(struct mp_node *n, mp_time now, int64_t wall_ms);
/* The queries deploy, rollback, undeploy, history and source; false: it is none of them. */
bool mp_node_deploy_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                          struct mp_slice what, struct mp_slice options);
void mp_node_deploy_checked(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_deploy_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* Units came or could not be had; the release changed; time passed: deploys go on. */
void mp_node_deploys_go_on(struct mp_node *n, mp_time now);
void mp_node_deploy_answered(struct mp_node *n, mp_time now, const struct mp_node_work *w);
void mp_node_stage_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_switch_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* Entries of another node, or of this node's store. */
void mp_node_deploy_merge(struct mp_node *n, mp_time now, struct mp_slice entries,
                          bool is_restored);
/* A member's state changed: it blocks nothing any more if it is not alive. */
void mp_node_deploys_member(struct mp_node *n, mp_time now, uint32_t member);
void mp_node_deploys_client_gone(struct mp_node *n, uint64_t client);
/* SYNC 1's third element, 5 to 7. */
void mp_node_deploy_summary(struct mp_node *n, uint32_t link, uint64_t stage);
void mp_node_deploy_sync(struct mp_node *n, mp_time now, uint32_t link, uint64_t stage,
                         struct mp_slice payload);
mp_time mp_node_code_deadline(const struct mp_node *n);
void mp_node_code_tick(struct mp_node *n, mp_time now);
void mp_node_deploys_fini(struct mp_node *n);
