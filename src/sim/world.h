/* A world for one node in virtual time: invented clients that call, run, cancel and leave, and
 * invented workers that compute, call on, sleep, fail, give up and die. Everything is drawn from
 * one seed, so the same configuration gives the same run to the last byte, and a broken promise of
 * the node is a seed that anyone can replay.
 *
 * What is watched: every request gets exactly one final reply, and nothing after that or after its
 * client left; a call is answered by its deadline; a result belongs to the call that it answers; a
 * shared block goes out as often as it came in; a call is with one worker at a time, begins no more
 * often than its caller and its function allow, and is sent only to a worker that is ready; when
 * all is quiet nothing is left over. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/time.h"

#define MP_WORLD_VIOLATIONS_MAX 8 /* more are only counted */

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
    /* of a worker */
    uint16_t start_fails;
    uint16_t is_full;
    uint16_t begins_meanwhile; /* a call that is asked back was begun a moment ago */
};

struct mp_world_config {
    uint64_t seed;
    uint32_t workers;
    uint32_t clients;
    uint32_t requests;
    uint32_t out_of_memory; /* allocations of the node that fail, of a million */
    bool is_drained;        /* the node is told to stop halfway */
    struct mp_world_chances chances;
};

struct mp_world_violation {
    mp_time at;
    char text[160];
};

struct mp_world_report {
    uint64_t digest; /* of all effects of the node, in order */
    mp_time virtual_time;
    uint64_t requests;
    uint64_t answers;
    uint64_t calls_begun;
    uint64_t nested;
    uint64_t worker_deaths;
    uint64_t failed_allocations;
    uint64_t runs;
    uint64_t runs_succeeded;
    uint64_t runs_lost;
    uint64_t runs_duplicated;
    uint32_t violation_count; /* 0: all promises were kept */
    struct mp_world_violation violations[MP_WORLD_VIOLATIONS_MAX];
};

/* Chances with a bit of everything; each seed leans another way. */
void mp_world_defaults(struct mp_world_config *cfg, uint64_t seed);
/* Lives the whole life of a world and fills in the report. Memory comes from `a`, which must not
 * fail; all of it is given back. */
void mp_world_live(const struct mp_world_config *cfg, struct mp_alloc *a,
                   struct mp_world_report *report);
