/* A world of whole nodes in virtual time: the network between them, invented clients that call,
 * run, cancel and leave, and invented workers that compute, call on, sleep, fail, give up and die.
 * Everything is drawn from one seed, so the same configuration gives the same life to the last
 * byte, and a broken promise of a node is a seed that anyone can replay.
 *
 * A life has two phases: under faults nothing unsafe may ever happen; then everything is healed and
 * must converge within a stated time. What is watched has a name, which a violation carries:
 *
 *   one-answer      every request gets exactly one final reply, and nothing after that or after
 *                   its client left (the clients of a node that crashes are excused)
 *   deadline        a call is answered by its deadline, a cancelled one at once
 *   right-result    a result belongs to the call that it answers
 *   begins          a call begins no more often, over all nodes, than its caller and its function
 *                   allow: 1 + retries unless it is idempotent
 *   workers         a call is with one worker of a node at a time and is sent only to one that is
 *                   ready
 *   blocks          a shared block goes out as often as it came in
 *   cancel-travels  without faults of the network a cancelled call is soon cancelled where it runs
 *   memory          a node gives back all its memory
 *   progress        no step fails, and none goes on for ever without time passing
 *   views           what a node knows of a member (generation, incarnation, state) never goes back
 *   own-word        nobody hears of a generation or incarnation that the member itself never had
 *   remembered      a dead member is not forgotten unless somebody asked for it
 *   false-death     a node that is up, reachable and not slow is not taken for dead (where no
 *                   faults but a little loss are drawn)
 *   names           a node ends because of its name only if the name was taken; one holder stays
 *   datagrams       no datagram is larger than 1,200 bytes
 *   routing-loop    a call passes at most 3 nodes and none twice
 *   dead-ends       no call is sent to a node that the sender knows to be dead
 *   members         healed: all nodes list the same members, and their digests are equal
 *   catalog         healed: all nodes know the same functions, and their digests are equal
 *   forgotten       healed: what somebody asked to forget has not come back
 *   links           healed: no link leads to a node that is gone, and none is doubled
 *   callable        healed: each function can be called from each node, and answers
 *   stopped         a step of a cancelled run that is said to have stopped has no call left with
 *                   any worker, nor has what it called; one that never started never began
 *   events          whoever watches a run is told its events 1, 2, 3 … without a gap until its end,
 *                   from whatever node and however slowly it is read; all are told the same
 *   resumed         a run that goes on with another does not do again what had succeeded in that
 *                   one, unless it was asked to, or the result was too large to be kept for sure
 *   runs            a node lists no more runs than it keeps, none of an earlier boot as if it went
 *                   on, and each that had gone on for a while when it crashed
 *   quiet           when all is done nothing is left over: no call, no run, no number, no block, no
 *                   result held for a run, no task with a worker, no deploy, and no release and no
 *                   unit but those that are live
 *   releases        a call that a worker gets is of a release that is open, and of the code that
 *                   this one has under the module's name; what is closed or unloaded was open or
 *                   loaded, and nothing under way names it
 *   one-version     a call and all that it calls, or a run and all its steps, use one version of
 *                   each deployed module, on all nodes
 *   deploys-harm-nobody  without faults no call fails because of a deploy; one that succeeded is
 *                   live on all nodes that its answer lists as live
 *   history         healed: all nodes have the same history of deploys, the same marks in it, and
 *                   take for live what follows from it; that is loaded; a deploy that succeeded is
 *                   in it, one that was refused is not
 *   topic-match     a subscriber gets what somebody published, nothing that it did not ask for
 *   topic-order     one publisher's messages come in the order of their numbers, without gaps in
 *                   the numbers
 *   topic-once      none comes twice
 *   topic-lost      what does not come is told, unless its publisher ended or could not know
 *   topic-since     a subscription with a past gets all of it that is kept, and nothing older
 *   topic-pressure  who takes nothing gets nothing
 *   topic-interest  without faults a message goes only to nodes that want it
 *   topic-called    healed: a message calls a function that subscribes, once in the cluster */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/base/time.h"

#define MP_WORLD_VIOLATIONS_MAX 8    /* more are only counted */
#define MP_WORLD_SAMPLES_MAX    4096 /* more are not kept */
#define MP_WORLD_CHANGED_UP_TO  60   /* nodes; in larger worlds nothing is deployed */

enum mp_world_scenario {
    MP_WORLD_MEMBERSHIP,
    MP_WORLD_CATALOG,
    MP_WORLD_ROUTING,
    MP_WORLD_GRAPH,
    MP_WORLD_MIXED,
    MP_WORLD_DEPLOY,
    MP_WORLD_TOPICS,
    MP_WORLD_SCENARIOS
};

/* Chances in 1,000. */
struct mp_world_chances {
    /* of a request */
    uint16_t run;
    uint16_t query;
    uint16_t malformed;
    uint16_t cancelled;
    uint16_t client_leaves;
    /* of a function, each time it gives the processor back */
    uint16_t calls_on;
    uint16_t sleeps;
    uint16_t fails;
    uint16_t dies;
    uint16_t spins; /* computes until it is killed */
    uint16_t retires;
    uint16_t is_large; /* a payload in a shared block */
    uint16_t is_huge;  /* a result that is too large to travel with its answer */
    /* of a worker */
    uint16_t start_fails;
    uint16_t is_full;
    uint16_t begins_meanwhile; /* a call that is asked back was begun a moment ago */
    /* of code */
    uint16_t change;    /* of a request: a deploy, rollback or undeploy */
    uint16_t disk_full; /* when something is to be kept, for a while */
    uint16_t load_fails;
    uint16_t ask; /* of a request: about a run, or to go on with it */
};

enum mp_world_fault {
    MP_WORLD_CUT,       /* one pair, one way or both */
    MP_WORLD_PARTITION, /* all nodes in two halves */
    MP_WORLD_STALL,     /* a node stands still, again and again */
    MP_WORLD_LAG,       /* a node gets everything late */
    MP_WORLD_CLOCK,     /* a node's clock jumps ahead */
    MP_WORLD_CRASH,     /* with or without its disk; some come back under another name */
    MP_WORLD_LEAVE,     /* a node is told to stop, and comes back or not */
    MP_WORLD_CLASH,     /* another node takes a name that is in use */
    MP_WORLD_PRESSURE,  /* a connection takes no more for a while */
    MP_WORLD_FORGET,    /* somebody asks to forget a dead member */
    MP_WORLD_FAULTS
};

struct mp_world_faults {
    uint16_t loss; /* of 1,000 datagrams; so below */
    uint16_t duplicated;
    uint16_t late;    /* by up to late_longest, which reorders */
    uint16_t garbage; /* followed by a truncated copy, or by bytes of no meaning */
    mp_duration late_longest;
    uint16_t weights[MP_WORLD_FAULTS]; /* of the others; all 0: none */
    mp_duration gap;                   /* between two of them, on average */
    bool is_seed_lost;                 /* the node that all joined goes, for good */
};

/* Told what happens, as people read it; `node` counts from 1, 0: the world itself. */
typedef void mp_world_on_log(void *context, mp_time at, uint32_t node, const char *what,
                             struct mp_slice text);

struct mp_world_config {
    uint64_t seed;
    enum mp_world_scenario scenario;
    uint32_t nodes;
    uint32_t workers; /* of each node */
    uint32_t clients;
    uint32_t requests;
    uint32_t out_of_memory; /* allocations of the nodes that fail, of a million */
    uint32_t slow;          /* nodes that are slow all the time */
    uint32_t crashes;       /* MEMBERSHIP: measured one by one */
    uint32_t additions;     /* CATALOG: modules that appear, measured one by one */
    uint32_t deploys;       /* DEPLOY: of one module, one after another, and nothing else */
    uint32_t crash_step;    /* DEPLOY: a node dies right before so many steps of a deploy, from 1 */
    uint32_t crash_node;    /* which one; the first is asked for the deploy */
    uint64_t defects;       /* see base/defects.h */
    bool is_drained;        /* of one node: it is told to stop halfway */
    mp_duration latency_longest;
    mp_duration faults_last; /* the first phase */
    mp_duration idle_last;   /* MEMBERSHIP: how long it is watched before the first crash */
    mp_duration partition;   /* MEMBERSHIP: one that lasts so long; 0: none */
    struct mp_world_chances chances;
    struct mp_world_faults faults;
    mp_world_on_log *on_log; /* NULL: nobody wants to know */
    void *log_context;
};

struct mp_world_violation {
    mp_time at; /* since the world began */
    const char *invariant;
    char text[160];
};

struct mp_world_report {
    uint64_t digest; /* of all effects of all nodes, in order */
    mp_time virtual_time;
    uint64_t steps;
    uint64_t requests;
    uint64_t answers;
    uint64_t calls_begun;
    uint64_t nested;
    uint64_t worker_deaths;
    uint64_t failed_allocations;
    uint64_t runs;
    uint64_t runs_succeeded;
    uint64_t steps_stopped; /* of cancelled runs, as they said */
    uint64_t steps_unreachable;
    uint64_t watched;   /* requests to watch a run */
    uint64_t events;    /* that clients were told */
    uint64_t resumed;   /* runs that went on with another one */
    uint64_t lost_runs; /* that were listed as lost after their node ended */
    uint64_t runs_lost;
    uint64_t runs_duplicated;
    uint64_t crashes;
    uint64_t faults;
    uint64_t remote_calls;  /* frames that carried a call to another node */
    uint64_t relayed_calls; /* those that came from neither end */
    uint64_t changes;       /* deploys, rollbacks and undeploys that were answered with success */
    uint64_t changes_refused;
    uint64_t published; /* messages, */
    uint64_t delivered; /* to subscribers, each counted for each of them, */
    uint64_t dropped;   /* and lost, as they were told */
    uint64_t false_deaths;
    double converged_ms;      /* from the last start until all listed all; < 0: never */
    double healed_ms;         /* from the end of all faults until all agreed; < 0: never */
    double bytes_per_node_s;  /* sent, over the idle time */
    double node_bytes;        /* memory of a node after the idle time, on average */
    uint32_t sample_count;    /* how long until a crash was known, or a module was visible, in ms */
    uint32_t violation_count; /* 0: all promises were kept */
    struct mp_world_violation violations[MP_WORLD_VIOLATIONS_MAX];
    double samples[MP_WORLD_SAMPLES_MAX];
};

/* One node, with a bit of everything that can happen to one; each seed leans another way. */
void mp_world_defaults(struct mp_world_config *cfg, uint64_t seed);
/* A scenario with that many nodes; GRAPH with one node is mp_world_defaults() with many runs. */
void mp_world_draw(struct mp_world_config *cfg, enum mp_world_scenario scenario, uint32_t nodes,
                   uint64_t seed);
/* Lives the whole life of a world and fills in the report. Memory comes from `a`, which must not
 * fail; all of it is given back. */
void mp_world_live(const struct mp_world_config *cfg, struct mp_alloc *a,
                   struct mp_world_report *report);
