/* See router.h. Routes are slots in an array, found by key through a map and chained by last use;
 * FLUSH only counts the epoch up, and what is of an older one is stale: it keeps its memory until
 * its key is worked out again or it is the least recently used when room is needed, which stale
 * ones are before all others.
 *
 * A pick draws two candidates and compares them. Let l be the calls that a node has outstanding:
 * ours, what it said of itself beyond ours (which fades, as nobody takes it back), and this one.
 * Let t be the time that the function takes there (stats.c).
 *  - If neither t is more than twice the other, both are the same as far as anybody can tell, and
 *    the smaller l is taken. With equal l it is a coin toss: no order by tiny
 *    differences, or all nodes of a cluster would run after the same one, and the estimate of the
 *    other would never be corrected.
 *  - Else the smaller l × t is taken.
 * One that has not given a few answers yet is compared as if it took no longer than the other.
 *
 * Invariants: `outstanding` of a node is the number of its picks that have not ended, also when the
 * node is gone. The map holds exactly the slots that are in the chain. Nothing is allocated between
 * the growth of a table and its bound. */
#include "src/core/router/router.h"

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/router/router_internal.h"

#define FEW        16u           /* so many candidates are looked at one by one */
#define ALIKE      2u            /* times that differ by no more than this factor */
#define LOAD_FADES MP_SECONDS(1) /* half-life of what a node said of itself */
#define LOAD_LATE  MP_MS(500)    /* what a node says of itself may be as old as that */
#define LOAD_MAX   (1u << 20)
#define LOCAL_NODE 0u
#define NO_INDEX   UINT32_MAX

static_assert(MP_ROUTER_NONE == UINT32_MAX, "an empty link of the chain is MP_ROUTER_NONE");

struct route {
    uint8_t *key;
    uint32_t key_size;
    struct mp_router_provider *providers;
    uint32_t count;
    uint32_t capacity;
    uint32_t concurrency;
    uint32_t local; /* place of this node among the candidates, or NO_INDEX */
    uint64_t epoch;
    uint32_t previous; /* by last use, the last one first */
    uint32_t next;
};

struct node {
    uint32_t outstanding; /* calls of ours */
    uint32_t peak;        /* the most of them since peak_at, … */
    uint32_t peak_before; /* … and in the time before */
    mp_time peak_at;
    uint32_t others; /* calls of others, as it said at others_at */
    mp_time others_at;
    uint32_t generation; /* counts GONE: what was learnt of an older one is void */
};

struct mp_router {
    struct mp_alloc *alloc;
    struct mp_rng rng;
    uint32_t routes_max;
    uint64_t epoch;
    struct route *routes;
    uint32_t route_count; /* all of them in the chain */
    uint32_t route_capacity;
    uint32_t first; /* of the chain */
    uint32_t last;
    uint64_t candidates; /* room for so many in all routes */
    struct mp_map by_key;
    struct node *nodes;
    uint32_t node_count;
    struct mp_router_stats stats;
};

/* A candidate that is looked at. */
struct choice {
    uint32_t index; /* among the candidates */
    struct mp_router_stat *stat;
};

/* Two choices of those that were found, or the one. */
struct pair {
    uint32_t count; /* found */
    struct choice items[2];
};

static enum mp_err set_route(struct mp_router *r, const struct mp_router_event *ev,
                             struct mp_router_effects *out);
static enum mp_err pick(struct mp_router *r, mp_time now, const struct mp_router_event *ev,
                        struct mp_router_effects *out);
static void end(struct mp_router *r, mp_time now, const struct mp_router_event *ev);
static void hear_load(struct mp_router *r, mp_time now, const struct mp_router_event *ev);
static void forget(struct mp_router *r, uint32_t node);

enum mp_err mp_router_new(struct mp_router **own_out, const struct mp_router_config *cfg,
                          struct mp_alloc *a, uint64_t seed)
{
    mp_assert(cfg->routes_max != 0);
    struct mp_router *r = mp_alloc_take(a, sizeof(*r));
    if (!r)
        return MP_ENOMEM;
    *r = (struct mp_router){.alloc = a,
                            .routes_max = cfg->routes_max < MP_ROUTER_ROUTES_MAX
                                              ? cfg->routes_max
                                              : MP_ROUTER_ROUTES_MAX,
                            .epoch = 1,
                            .first = MP_ROUTER_NONE,
                            .last = MP_ROUTER_NONE};
    mp_rng_init(&r->rng, seed);
    mp_map_init(&r->by_key, a);
    mp_router_stats_init(&r->stats, a);
    *own_out = r;
    return MP_OK;
}

enum mp_err mp_router_step(struct mp_router *r, mp_time now, const struct mp_router_event *ev,
                           struct mp_router_effects *out)
{
    *out = (struct mp_router_effects){.route = MP_ROUTER_NONE};
    switch (ev->kind) {
    case MP_ROUTER_ROUTE:
        return set_route(r, ev, out);
    case MP_ROUTER_FLUSH:
        r->epoch++;
        return MP_OK;
    case MP_ROUTER_PICK:
        return pick(r, now, ev, out);
    case MP_ROUTER_ENDED:
        end(r, now, ev);
        return MP_OK;
    case MP_ROUTER_LOAD:
        hear_load(r, now, ev);
        return MP_OK;
    case MP_ROUTER_GONE:
        forget(r, ev->node);
        return MP_OK;
    }
    mp_assert(!"an event that does not exist");
    return MP_EINVAL;
}

mp_time mp_router_deadline(const struct mp_router *r)
{
    (void)r;
    return MP_NEVER; /* what fades is worked out when it is looked at */
}

static void free_route(struct mp_router *r, struct route *route)
{
    mp_alloc_free(r->alloc, route->key, route->key_size);
    mp_alloc_free(r->alloc, route->providers, route->capacity * sizeof(*route->providers));
}

void mp_router_free(struct mp_router *r)
{
    if (!r)
        return;
    mp_router_stats_fini(&r->stats);
    mp_alloc_free(r->alloc, r->nodes, r->node_count * sizeof(*r->nodes));
    mp_map_fini(&r->by_key);
    for (uint32_t i = 0; i < r->route_count; i++)
        free_route(r, &r->routes[i]);
    mp_alloc_free(r->alloc, r->routes, r->route_capacity * sizeof(*r->routes));
    mp_alloc_free(r->alloc, r, sizeof(*r));
}

uint32_t mp_router_find(const struct mp_router *r, struct mp_slice key)
{
    uint32_t route;
    if (!mp_map_get(&r->by_key, key, &route) || r->routes[route].epoch != r->epoch)
        return MP_ROUTER_NONE;
    return route;
}

static struct route *route_at(const struct mp_router *r, uint32_t route)
{
    mp_assert(route < r->route_count);
    mp_assert(r->routes[route].epoch == r->epoch);
    return &r->routes[route];
}

const struct mp_router_provider *mp_router_candidates(const struct mp_router *r, uint32_t route,
                                                      uint32_t *count)
{
    const struct route *found = route_at(r, route);
    *count = found->count;
    return found->providers;
}

uint32_t mp_router_outstanding(const struct mp_router *r, uint32_t node)
{
    return node < r->node_count ? r->nodes[node].outstanding : 0;
}

/* --- routes --- */

static void unlink_route(struct mp_router *r, const struct route *route)
{
    if (route->previous == MP_ROUTER_NONE)
        r->first = route->next;
    else
        r->routes[route->previous].next = route->next;
    if (route->next == MP_ROUTER_NONE)
        r->last = route->previous;
    else
        r->routes[route->next].previous = route->previous;
}

static void link_route(struct mp_router *r, uint32_t at)
{
    struct route *route = &r->routes[at];
    route->previous = MP_ROUTER_NONE;
    route->next = r->first;
    if (r->first == MP_ROUTER_NONE)
        r->last = at;
    else
        r->routes[r->first].previous = at;
    r->first = at;
}

static void use_route(struct mp_router *r, uint32_t at)
{
    if (r->first == at)
        return;
    unlink_route(r, &r->routes[at]);
    link_route(r, at);
}

/* The nodes' table covers all nodes that candidates name, so that a pick need not grow it. */
static enum mp_err cover_nodes(struct mp_router *r, const struct mp_router_provider *providers,
                               uint32_t count)
{
    uint32_t highest = 0;
    for (uint32_t i = 0; i < count; i++)
        highest = providers[i].node > highest ? providers[i].node : highest;
    if (highest < r->node_count)
        return MP_OK;
    mp_assert(highest < MP_ROUTER_NODES_MAX);
    uint32_t wanted = r->node_count == 0 ? 16 : r->node_count;
    while (wanted <= highest)
        wanted *= 2;
    void *grown = r->alloc->resize(r->alloc->context, r->nodes, r->node_count * sizeof(*r->nodes),
                                   wanted * sizeof(*r->nodes));
    if (!grown)
        return MP_ENOMEM;
    r->nodes = (struct node *)grown;
    memset(r->nodes + r->node_count, 0, (wanted - r->node_count) * sizeof(*r->nodes));
    r->node_count = wanted;
    return MP_OK;
}

static enum mp_err cover_routes(struct mp_router *r)
{
    if (r->route_count < r->route_capacity || r->route_count == r->routes_max)
        return MP_OK;
    uint32_t capacity = r->route_capacity == 0 ? 16 : r->route_capacity * 2;
    capacity = capacity < r->routes_max ? capacity : r->routes_max;
    void *grown =
        r->alloc->resize(r->alloc->context, r->routes, r->route_capacity * sizeof(*r->routes),
                         capacity * sizeof(*r->routes));
    if (!grown)
        return MP_ENOMEM;
    r->routes = (struct route *)grown;
    r->route_capacity = capacity;
    return MP_OK;
}

/* The least recently used route goes; the last slot moves into its place. */
static void evict(struct mp_router *r)
{
    uint32_t at = r->last;
    mp_assert(at != MP_ROUTER_NONE);
    struct route *route = &r->routes[at];
    bool was_there = mp_map_remove(&r->by_key, mp_slice_of(route->key, route->key_size));
    mp_assert(was_there);
    unlink_route(r, route);
    r->candidates -= route->capacity;
    free_route(r, route);
    uint32_t moved = --r->route_count;
    if (moved == at)
        return;
    *route = r->routes[moved];
    if (route->previous == MP_ROUTER_NONE)
        r->first = at;
    else
        r->routes[route->previous].next = at;
    if (route->next == MP_ROUTER_NONE)
        r->last = at;
    else
        r->routes[route->next].previous = at;
    /* It replaces what is there: nothing is allocated. */
    enum mp_err err = mp_map_set(&r->by_key, mp_slice_of(route->key, route->key_size), at);
    mp_assert(err == MP_OK);
}

/* Room for the candidates of a route that exists. */
static enum mp_err resize_route(struct mp_router *r, struct route *route, uint32_t count)
{
    /* A list that has become much shorter gives its memory back. */
    if (count <= route->capacity && count >= route->capacity / 4)
        return MP_OK;
    if (count == 0) {
        mp_alloc_free(r->alloc, route->providers, route->capacity * sizeof(*route->providers));
        route->providers = NULL;
    } else {
        void *grown = r->alloc->resize(r->alloc->context, route->providers,
                                       route->capacity * sizeof(*route->providers),
                                       count * sizeof(*route->providers));
        if (!grown)
            return count <= route->capacity ? MP_OK : MP_ENOMEM;
        route->providers = (struct mp_router_provider *)grown;
    }
    r->candidates += count;
    r->candidates -= route->capacity;
    route->capacity = count;
    return MP_OK;
}

/* A new route without candidates yet, first in the chain. */
static enum mp_err add_route(struct mp_router *r, struct mp_slice key, uint32_t count,
                             uint32_t *route)
{
    mp_assert(key.size <= UINT32_MAX);
    struct route made = {.key_size = (uint32_t)key.size, .capacity = count};
    enum mp_err err = cover_routes(r);
    if (err != MP_OK)
        return err;
    if (count != 0 && !(made.providers = mp_alloc_take(r->alloc, count * sizeof(*made.providers))))
        return MP_ENOMEM;
    if (key.size != 0) {
        made.key = mp_alloc_take(r->alloc, key.size);
        if (!made.key)
            goto fail;
        memcpy(made.key, key.data, key.size);
    }
    /* Either one of the map's places becomes free, or it may have to grow: never both. */
    if (r->route_count == r->routes_max)
        evict(r);
    *route = r->route_count;
    if (mp_map_set(&r->by_key, mp_slice_of(made.key, key.size), *route) != MP_OK)
        goto fail;
    r->routes[*route] = made;
    r->route_count++;
    r->candidates += count;
    link_route(r, *route);
    return MP_OK;
fail:
    free_route(r, &made);
    return MP_ENOMEM;
}

static enum mp_err set_route(struct mp_router *r, const struct mp_router_event *ev,
                             struct mp_router_effects *out)
{
    struct mp_slice key = ev->route.key;
    uint32_t count = ev->route.count;
    enum mp_err err = cover_nodes(r, ev->route.providers, count);
    if (err != MP_OK)
        return err;
    uint32_t at;
    if (mp_map_get(&r->by_key, key, &at)) {
        err = resize_route(r, &r->routes[at], count);
        if (err == MP_OK)
            use_route(r, at);
    } else {
        err = add_route(r, key, count, &at);
    }
    if (err != MP_OK)
        return err;
    while (r->candidates > MP_ROUTER_CANDIDATES_MAX && r->route_count > 1)
        evict(r);
    at = r->first; /* it may have moved */
    struct route *route = &r->routes[at];
    if (count != 0)
        memcpy(route->providers, ev->route.providers, count * sizeof(*route->providers));
    route->count = count;
    route->concurrency = ev->route.concurrency;
    route->epoch = r->epoch;
    route->local = NO_INDEX;
    for (uint32_t i = count; i-- > 0;)
        if (route->providers[i].node == LOCAL_NODE)
            route->local = i;
    out->route = at;
    return MP_OK;
}

/* --- choosing --- */

/* Uniform but for one part in 2^32 / bound, and without the division of an exact one. */
static uint32_t draw_below(uint32_t random, uint32_t bound)
{
    return (uint32_t)((uint64_t)random * bound >> 32);
}

static bool is_avoided(const struct mp_router_event *ev, uint32_t node)
{
    for (uint32_t i = 0; i < ev->pick.avoid_count; i++)
        if (ev->pick.avoid[i] == node)
            return true;
    return false;
}

static struct choice look(const struct mp_router *r, const struct route *route, uint32_t index)
{
    const struct mp_router_provider *p = &route->providers[index];
    struct mp_router_stat *stat = mp_router_stats_find(&r->stats, p->node, p->function);
    if (stat && stat->generation != r->nodes[p->node].generation)
        mp_router_stat_forget(stat, r->nodes[p->node].generation);
    return (struct choice){.index = index, .stat = stat};
}

static bool is_full(const struct route *route, const struct choice *c)
{
    return route->concurrency != 0 && c->stat && c->stat->outstanding >= route->concurrency;
}

/* Keeps two of those seen so far, each with the same chance (reservoir sampling). */
static void sample(struct mp_router *r, struct pair *p, struct choice c)
{
    p->count++;
    if (p->count <= 2) {
        p->items[p->count - 1] = c;
        return;
    }
    uint32_t place = draw_below((uint32_t)mp_rng_next(&r->rng), p->count);
    if (place < 2)
        p->items[place] = c;
}

/* One by one from a random place: two that are free, else two that are full. */
static struct pair scan(struct mp_router *r, const struct route *route,
                        const struct mp_router_event *ev)
{
    struct pair is_free = {0};
    struct pair is_taken = {0};
    uint32_t start = draw_below((uint32_t)mp_rng_next(&r->rng), route->count);
    uint32_t looked = 0;
    for (uint32_t i = 0; i < route->count && looked < MP_ROUTER_SCAN_MAX; i++) {
        uint32_t at = i < route->count - start ? start + i : i - (route->count - start);
        if (is_avoided(ev, route->providers[at].node))
            continue;
        struct choice c = look(r, route, at);
        looked++;
        sample(r, is_full(route, &c) ? &is_taken : &is_free, c);
        if (route->count > FEW && is_free.count == 2)
            break;
    }
    return is_free.count != 0 ? is_free : is_taken;
}

/* Up to two candidates that need not be avoided; full ones only if no other was found. */
static struct pair draw(struct mp_router *r, const struct route *route,
                        const struct mp_router_event *ev)
{
    struct pair p = {0};
    bool is_any_good = ev->pick.avoid_count == 0 && route->concurrency == 0;
    if (is_any_good && route->count > 1) {
        uint64_t random = mp_rng_next(&r->rng);
        uint32_t one = draw_below((uint32_t)random, route->count);
        uint32_t other = draw_below((uint32_t)(random >> 32), route->count - 1);
        p.items[0] = look(r, route, one);
        p.items[1] = look(r, route, other + (other >= one));
        p.count = 2;
        return p;
    }
    if (route->count == 0)
        return p;
    if (route->count <= FEW)
        return scan(r, route, ev);
    for (uint32_t i = 0; i < MP_ROUTER_DRAWS_MAX && p.count < 2; i++) {
        uint32_t at = draw_below((uint32_t)mp_rng_next(&r->rng), route->count);
        bool is_again = p.count == 1 && p.items[0].index == at;
        if (is_again || is_avoided(ev, route->providers[at].node))
            continue;
        struct choice c = look(r, route, at);
        if (!is_full(route, &c))
            p.items[p.count++] = c;
    }
    return p.count != 0 ? p : scan(r, route, ev);
}

/* The calls of others on a node, as far as what it said still holds. */
static uint32_t others_of(const struct node *n, mp_time now)
{
    if (n->others == 0 || now <= n->others_at)
        return n->others;
    mp_duration age = now - n->others_at;
    if (age >= 32 * LOAD_FADES)
        return 0;
    uint32_t left = n->others >> age / LOAD_FADES;
    return left - (uint32_t)(left * (age % LOAD_FADES) / (2 * LOAD_FADES));
}

static uint64_t load_of(const struct mp_router *r, uint32_t node, mp_time now)
{
    const struct node *n = &r->nodes[node];
    uint64_t load = (uint64_t)n->outstanding + others_of(n, now) + 1;
    return load < LOAD_MAX ? load : LOAD_MAX;
}

/* Whether it may be taken for no slower than any other. */
static bool is_on_trial(const struct choice *c)
{
    return !c->stat || c->stat->trials < MP_ROUTER_TRIALS;
}

static void compare_times(const struct choice *a, const struct choice *b, mp_time now,
                          uint64_t times[2])
{
    uint64_t ta = a->stat ? mp_router_stat_time(a->stat, now) : 0;
    uint64_t tb = b->stat ? mp_router_stat_time(b->stat, now) : 0;
    if (ta == 0 || (is_on_trial(a) && tb != 0 && tb < ta))
        ta = tb;
    if (tb == 0 || (is_on_trial(b) && ta < tb))
        tb = ta;
    uint64_t sa = a->stat ? mp_router_stat_silence(a->stat, now) : 0;
    uint64_t sb = b->stat ? mp_router_stat_silence(b->stat, now) : 0;
    ta = ta > sa ? ta : sa;
    tb = tb > sb ? tb : sb;
    times[0] = ta == 0 ? 1 : ta;
    times[1] = tb == 0 ? 1 : tb;
}

static bool is_first_better(struct mp_router *r, const struct route *route, const struct pair *p,
                            mp_time now)
{
    uint64_t times[2];
    compare_times(&p->items[0], &p->items[1], now, times);
    uint64_t loads[2] = {load_of(r, route->providers[p->items[0].index].node, now),
                         load_of(r, route->providers[p->items[1].index].node, now)};
    bool is_alike = times[0] <= ALIKE * times[1] && times[1] <= ALIKE * times[0];
    if (is_alike && loads[0] != loads[1])
        return loads[0] < loads[1];
    uint64_t first = loads[0] * times[0];
    uint64_t second = loads[1] * times[1];
    if (!is_alike && first != second)
        return first < second;
    return mp_rng_below(&r->rng, 2) == 0;
}

/* The most calls of ours that the node had lately. */
static uint32_t peak_of(struct node *n, mp_time now)
{
    if (now > n->peak_at && now - n->peak_at >= LOAD_LATE) {
        n->peak_before = now - n->peak_at < 2 * LOAD_LATE ? n->peak : n->outstanding;
        n->peak = n->outstanding;
        n->peak_at = now;
    }
    if (n->peak < n->outstanding)
        n->peak = n->outstanding;
    return n->peak > n->peak_before ? n->peak : n->peak_before;
}

/* Counts a pick of that candidate. */
static enum mp_err begin(struct mp_router *r, mp_time now, const struct mp_router_provider *p,
                         struct mp_router_stat *stat, struct mp_router_effects *out)
{
    struct node *n = &r->nodes[p->node];
    if (!stat) {
        enum mp_err err = mp_router_stats_add(&r->stats, p->node, p->function, &stat);
        if (err != MP_OK)
            return err;
        if (stat)
            stat->generation = n->generation;
    }
    if (stat)
        mp_router_stats_begin(&r->stats, stat, now);
    mp_assert(n->outstanding != UINT32_MAX);
    n->outstanding++;
    (void)peak_of(n, now);
    out->is_picked = true;
    out->provider = *p;
    return MP_OK;
}

static enum mp_err pick(struct mp_router *r, mp_time now, const struct mp_router_event *ev,
                        struct mp_router_effects *out)
{
    mp_assert(ev->pick.avoid_count <= MP_ROUTER_AVOID_MAX);
    const struct route *route = route_at(r, ev->pick.route);
    use_route(r, ev->pick.route);
    if (route->local != NO_INDEX && !ev->pick.is_local_busy && !is_avoided(ev, LOCAL_NODE)) {
        struct choice local = look(r, route, route->local);
        if (!is_full(route, &local))
            return begin(r, now, &route->providers[local.index], local.stat, out);
    }
    struct pair p = draw(r, route, ev);
    if (p.count == 0)
        return MP_OK;
    uint32_t taken = p.count == 1 || is_first_better(r, route, &p, now) ? 0 : 1;
    if (p.count > 1 && p.items[1 - taken].stat)
        mp_router_stat_pass(p.items[1 - taken].stat);
    const struct choice *c = &p.items[taken];
    return begin(r, now, &route->providers[c->index], c->stat, out);
}

/* --- what is learnt --- */

static void end(struct mp_router *r, mp_time now, const struct mp_router_event *ev)
{
    mp_assert(ev->ended.node < r->node_count);
    struct node *n = &r->nodes[ev->ended.node];
    mp_assert(n->outstanding != 0);
    n->outstanding--;
    struct mp_router_stat *stat =
        mp_router_stats_find(&r->stats, ev->ended.node, ev->ended.function);
    if (!stat)
        return;
    if (stat->generation != n->generation)
        mp_router_stat_forget(stat, n->generation);
    mp_duration took = ev->ended.took == 0 ? 1 : ev->ended.took;
    mp_router_stats_end(&r->stats, stat, now, ev->ended.is_measured ? took : 0);
}

/* Of a node that no route has named nothing is kept: it says it again soon. What it said was true a
 * moment ago, and the calls of ours that it counted then may have ended since: taken for calls of
 * others, they would keep us away from the node until it speaks again, when it is most idle. */
static void hear_load(struct mp_router *r, mp_time now, const struct mp_router_event *ev)
{
    if (ev->load.node >= r->node_count)
        return;
    struct node *n = &r->nodes[ev->load.node];
    uint32_t ours = peak_of(n, now);
    n->others = ev->load.load > ours ? ev->load.load - ours : 0;
    n->others_at = now;
}

/* What was learnt of its functions is void from now on; its calls still end one by one. */
static void forget(struct mp_router *r, uint32_t node)
{
    if (node >= r->node_count)
        return;
    r->nodes[node].generation++;
    r->nodes[node].others = 0;
}
