/* The cost of choosing a provider: the route found by its key, a PICK and the ENDED that answers
 * it, with nothing around them. Prints nanoseconds a call with 1, 3 and 1,000 candidates. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/c/bench.h"
#include "src/core/router/router.h"

#define OUTSTANDING 64

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size != 0)
        return realloc(p, new_size);
    free(p);
    return NULL;
}

static struct mp_alloc alloc = {.resize = resize};

/* Nodes from `first` on; with first 0 this node is one of them, and not busy. */
static struct mp_router *make_router(struct mp_slice key, uint32_t first, uint32_t count,
                                     uint32_t concurrency)
{
    struct mp_router *r = NULL;
    struct mp_router_effects out;
    const struct mp_router_config cfg = {.routes_max = 1024};
    struct mp_router_provider *providers = calloc(count, sizeof(*providers));
    for (uint32_t i = 0; providers && i < count; i++)
        providers[i] = (struct mp_router_provider){.node = first + i, .function = 7};
    const struct mp_router_event route = {
        .kind = MP_ROUTER_ROUTE,
        .route = {.key = key, .providers = providers, .count = count, .concurrency = concurrency}};
    if (!providers || mp_router_new(&r, &cfg, &alloc, 1) != MP_OK ||
        mp_router_step(r, 1, &route, &out) != MP_OK)
        abort();
    free(providers);
    return r;
}

/* So many calls are outstanding at a time; each is answered in its turn. */
static void run(struct mp_router *r, struct mp_slice key, uint32_t count)
{
    static struct mp_router_provider calls[OUTSTANDING];
    struct mp_router_effects out;
    mp_time now = MP_SECONDS(1);
    for (uint32_t i = 0; i < count + OUTSTANDING; i++) {
        struct mp_router_provider *call = &calls[i % OUTSTANDING];
        now += 500;
        if (i >= OUTSTANDING) {
            const struct mp_router_event ended = {
                .kind = MP_ROUTER_ENDED,
                .ended = {.node = call->node,
                          .function = call->function,
                          .is_measured = true,
                          .took = OUTSTANDING * 500 + (i * 2654435761u >> 16)}};
            if (mp_router_step(r, now, &ended, &out) != MP_OK)
                abort();
        }
        if (i >= count)
            continue;
        const struct mp_router_event pick = {.kind = MP_ROUTER_PICK,
                                             .pick = {.route = mp_router_find(r, key)}};
        if (mp_router_step(r, now, &pick, &out) != MP_OK || !out.is_picked)
            abort();
        *call = out.provider;
    }
}

static void measure(const char *what, uint32_t first, uint32_t count, uint32_t concurrency)
{
    const struct mp_slice key = mp_slice_str("quakes.filter");
    const uint32_t calls = 5000000;
    struct mp_router *r = make_router(key, first, count, concurrency);
    run(r, key, 100000);
    double began = bench_seconds();
    run(r, key, calls);
    printf("%5u candidates%s: %.0f ns a call\n", count, what,
           (bench_seconds() - began) * 1e9 / calls);
    mp_router_free(r);
}

int main(void)
{
    measure("", 1, 1, 0);
    measure("", 1, 3, 0);
    measure("", 1, 1000, 0);
    measure(", one of them here", 0, 3, 0);
    measure(", at most 100 calls each", 1, 3, 100);
    measure(", at most 100 calls each", 1, 1000, 100);
    return 0;
}
