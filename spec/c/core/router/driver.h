/* A router under test: events in one line each. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"
#include "src/core/router/router.h"

#define FUNCTION 7u

static struct spec_alloc memory;
static struct mp_alloc alloc;
static struct mp_router *router;
static mp_time now;
static struct mp_router_effects seen;

static void open_router(uint32_t routes_max, uint64_t seed)
{
    memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&memory);
    now = MP_SECONDS(1000);
    const struct mp_router_config cfg = {.routes_max = routes_max};
    assert_int_equal(MP_OK, mp_router_new(&router, &cfg, &alloc, seed));
}

static void close_router(void)
{
    mp_router_free(router);
    router = NULL;
    assert_int_equal(0, memory.live_bytes);
}

static enum mp_err step(const struct mp_router_event *ev)
{
    enum mp_err err = mp_router_step(router, now, ev, &seen);
    assert_int_equal(MP_NEVER, mp_router_deadline(router));
    return err;
}

static inline enum mp_err try_route(const char *key, const struct mp_router_provider *providers,
                                    uint32_t count, uint32_t concurrency)
{
    return step(&(struct mp_router_event){.kind = MP_ROUTER_ROUTE,
                                          .route = {.key = mp_slice_str(key),
                                                    .providers = providers,
                                                    .count = count,
                                                    .concurrency = concurrency}});
}

/* FUNCTION on the nodes first … first + count - 1. */
static inline uint32_t route_to(const char *key, uint32_t first, uint32_t count,
                                uint32_t concurrency)
{
    struct mp_router_provider *providers = calloc(count + 1, sizeof(*providers));
    assert_non_null(providers);
    for (uint32_t i = 0; i < count; i++)
        providers[i] = (struct mp_router_provider){.node = first + i, .function = FUNCTION};
    assert_int_equal(MP_OK, try_route(key, providers, count, concurrency));
    free(providers);
    return seen.route;
}

static inline enum mp_err try_pick(uint32_t route)
{
    return step(&(struct mp_router_event){.kind = MP_ROUTER_PICK,
                                          .pick = {.route = route, .is_local_busy = true}});
}

/* The node that was picked. */
static inline uint32_t pick(uint32_t route)
{
    assert_int_equal(MP_OK, try_pick(route));
    assert_true(seen.is_picked);
    return seen.provider.node;
}

static inline void ended(uint32_t node, mp_duration took)
{
    step(&(struct mp_router_event){
        .kind = MP_ROUTER_ENDED,
        .ended = {.node = node, .function = FUNCTION, .is_measured = true, .took = took}});
}

static inline void given_up(uint32_t node)
{
    step(&(struct mp_router_event){.kind = MP_ROUTER_ENDED,
                                   .ended = {.node = node, .function = FUNCTION}});
}

static inline void told_load(uint32_t node, uint32_t load)
{
    step(&(struct mp_router_event){.kind = MP_ROUTER_LOAD, .load = {.node = node, .load = load}});
}

static inline void gone(uint32_t node)
{
    step(&(struct mp_router_event){.kind = MP_ROUTER_GONE, .node = node});
}

static inline void flush(void)
{
    step(&(struct mp_router_event){.kind = MP_ROUTER_FLUSH});
}
