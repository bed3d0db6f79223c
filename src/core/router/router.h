/* Which provider gets a call. The candidates for a wish (function, version, resources, node) are
 * worked out by whoever knows the catalog and kept here as a route until FLUSH; each call then
 * picks one: this node while it is not busy, else the better of two drawn at random (Mitzenmacher,
 * "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001), where better
 * means fewer calls outstanding and less time taken lately.
 *
 * Nodes have the dense numbers of core/membership, 0 being this node; functions those of
 * core/catalog. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/map.h"
#include "src/base/rng.h"
#include "src/base/slice.h"
#include "src/base/time.h"

#define MP_ROUTER_NONE      UINT32_MAX
#define MP_ROUTER_AVOID_MAX 8u

struct mp_router;

struct mp_router_provider {
    uint32_t node;
    uint32_t function;
};

struct mp_router_config {
    uint32_t routes_max; /* kept at once; the least recently used one makes room */
    uint64_t defects;
};

enum mp_router_event_kind {
    MP_ROUTER_ROUTE, /* route: the candidates for a key. An empty list is kept too */
    MP_ROUTER_FLUSH, /* the catalog or the membership changed: no route holds any more */
    MP_ROUTER_PICK,  /* pick: one candidate, which counts as outstanding from now on */
    MP_ROUTER_ENDED, /* ended: a call that was picked has its answer, or was given up */
    MP_ROUTER_LOAD,  /* load: what a node said of itself */
    MP_ROUTER_GONE   /* node: it is dead; what was learnt of it is forgotten */
};

struct mp_router_event {
    enum mp_router_event_kind kind;
    union {
        struct {
            struct mp_slice key; /* copied */
            const struct mp_router_provider *providers;
            uint32_t count;
            uint32_t concurrency; /* of the function at once on a node; 0: no limit */
        } route;
        struct {
            uint32_t route;
            bool is_local_busy; /* this node would let it wait */
            uint32_t avoid_count;
            uint32_t avoid[MP_ROUTER_AVOID_MAX]; /* nodes that were tried already */
        } pick;
        struct {
            uint32_t node;
            uint32_t function;
            bool is_measured; /* took says how long it was away: an answer came */
            mp_duration took;
        } ended;
        struct {
            uint32_t node;
            uint32_t load; /* calls outstanding there */
        } load;
        uint32_t node;
    };
};

struct mp_router_effects {
    bool is_picked; /* after PICK: there is one that need not be avoided */
    struct mp_router_provider provider;
    uint32_t route; /* after ROUTE: its number, good until FLUSH or the next ROUTE */
};

MP_MUST_USE enum mp_err mp_router_new(struct mp_router **own_out,
                                      const struct mp_router_config *cfg, struct mp_alloc *a,
                                      uint64_t seed);
/* MP_ENOMEM only from ROUTE, which then has no effect, and from the first PICK of a provider, which
 * then picks nothing. */
MP_MUST_USE enum mp_err mp_router_step(struct mp_router *r, mp_time now,
                                       const struct mp_router_event *ev,
                                       struct mp_router_effects *out);
mp_time mp_router_deadline(const struct mp_router *r); /* MP_NEVER: it never wants to be woken */
void mp_router_free(struct mp_router *r);

/* The route of a key; MP_ROUTER_NONE if it has to be worked out. */
uint32_t mp_router_find(const struct mp_router *r, struct mp_slice key);
/* Its candidates, borrowed until the next step. */
const struct mp_router_provider *mp_router_candidates(const struct mp_router *r, uint32_t route,
                                                      uint32_t *count);
/* Calls picked for a node that have not ended. */
uint32_t mp_router_outstanding(const struct mp_router *r, uint32_t node);
