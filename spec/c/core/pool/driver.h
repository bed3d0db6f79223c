/* A pool in virtual time, for the specs of this folder: one step at a time, and what it wanted. */
#pragma once

#include "src/core/pool/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spec/support/alloc.h"

static struct spec_alloc counted;
static struct mp_alloc alloc;
static struct mp_pool *pool;
static mp_time now;
static struct mp_pool_effect seen[8192];
static uint32_t seen_count;

static enum mp_err step(const struct mp_pool_event *ev)
{
    struct mp_pool_effects out = {0};
    enum mp_err err = mp_pool_step(pool, now, ev, &out);
    assert_true(out.count <= 8192);
    memcpy(seen, out.items, out.count * sizeof(*seen));
    seen_count = out.count;
    return err;
}

static uint32_t count_of(enum mp_pool_effect_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < seen_count; i++)
        count += seen[i].kind == kind;
    return count;
}

static void open_pool(uint32_t workers, uint32_t begun_max, uint32_t queued_max)
{
    const struct mp_pool_config cfg = {.begun_max = begun_max, .queued_max = queued_max};
    counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&counted);
    pool = malloc(sizeof(*pool));
    assert_non_null(pool);
    now = MP_SECONDS(1000);
    assert_int_equal(MP_OK, mp_pool_init(pool, &cfg, &alloc, 1));
    assert_int_equal(MP_OK, step(&(struct mp_pool_event){.kind = MP_POOL_RESIZE,
                                                         .resize = {.workers = workers}}));
    assert_int_equal(workers, count_of(MP_POOL_START));
    for (uint32_t i = 0; i < workers; i++)
        assert_int_equal(MP_OK, step(&(struct mp_pool_event){.kind = MP_POOL_READY, .worker = i}));
    assert_int_equal(workers, mp_pool_ready_count(pool));
}

static int close_pool(void **state)
{
    (void)state;
    mp_pool_fini(pool);
    mp_pool_fini(pool); /* a second time is harmless */
    free(pool);
    pool = NULL;
    return counted.live_bytes == 0 ? 0 : -1;
}
