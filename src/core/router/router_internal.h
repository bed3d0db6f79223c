/* What was learnt of a function on a node: how long it took there lately, and how many calls of
 * ours are there. Between router.c and stats.c only. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/time.h"

#define MP_ROUTER_NO_STAT UINT32_MAX

struct mp_router_stat {
    uint32_t node;
    uint32_t function;
    uint64_t usual;       /* moving average of the time taken; 0: no answer yet */
    mp_time stalled_at;   /* of the last answer that was far later than usual, and counted */
    mp_time since;        /* outstanding: of the last answer or first pick; else of the last use */
    uint32_t outstanding; /* calls of ours */
    uint32_t generation;  /* of its node when this was learnt */
    uint32_t previous;    /* among the idle, which may make room: the last used is first */
    uint32_t next;
    uint16_t passed; /* picks that it lost since its last use; 0 with calls outstanding */
    uint8_t weight;  /* answers that the average still stands for */
    uint8_t trials;  /* answers so far, up to MP_ROUTER_TRIALS */
};

struct mp_router_stats {
    /* read */
    uint32_t count;
    struct mp_router_stat *items;
    /* private */
    uint32_t capacity;
    uint32_t slots;  /* power of two, or 0 */
    uint32_t *index; /* slot -> item + 1, 0 empty */
    uint32_t idle_first;
    uint32_t idle_last;
    struct mp_alloc *alloc;
};

void mp_router_stats_init(struct mp_router_stats *s, struct mp_alloc *a);
void mp_router_stats_fini(struct mp_router_stats *s);
/* NULL if nothing is known. */
struct mp_router_stat *mp_router_stats_find(const struct mp_router_stats *s, uint32_t node,
                                            uint32_t function);
/* Makes one that is not there; pointers to others are invalid then. *out is NULL if the table is
 * full of functions with calls outstanding: such a provider is not measured. */
MP_MUST_USE enum mp_err mp_router_stats_add(struct mp_router_stats *s, uint32_t node,
                                            uint32_t function, struct mp_router_stat **out);
/* A call of ours goes there. */
void mp_router_stats_begin(struct mp_router_stats *s, struct mp_router_stat *t, mp_time now);
/* A call of ours is over; `took` is its time if an answer came, else 0. */
void mp_router_stats_end(struct mp_router_stats *s, struct mp_router_stat *t, mp_time now,
                         mp_duration took);
/* It was compared and not taken. */
void mp_router_stat_pass(struct mp_router_stat *t);
/* Everything learnt is forgotten, but not the calls. */
void mp_router_stat_forget(struct mp_router_stat *t, uint32_t generation);
/* How long a call there is believed to take; 0: nobody knows. */
uint64_t mp_router_stat_time(const struct mp_router_stat *t, mp_time now);
/* How long calls have been outstanding there without an answer; 0 if there are none. */
uint64_t mp_router_stat_silence(const struct mp_router_stat *t, mp_time now);
