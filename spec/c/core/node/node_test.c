/* A node in invented worlds: hundreds of seeds, each with hundreds of requests, worker deaths,
 * cancels and departures in virtual time, and the promises of src/sim/world.h kept in all of them.
 * MPREG_SEED=S lives through one of them again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/sim/world.h"

#define SEEDS      300
#define FIRST_SEED 1000

static struct mp_world_report live(const struct mp_world_config *cfg)
{
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_world_report report;
    mp_world_live(cfg, &alloc, &report);
    assert_int_equal(a.live_bytes, 0);
    return report;
}

static void assert_kept(uint64_t seed, const struct mp_world_report *r)
{
    for (uint32_t i = 0; i < r->violation_count && i < MP_WORLD_VIOLATIONS_MAX; i++)
        print_error("MPREG_SEED=%llu, at %.3f ms: %s\n", (unsigned long long)seed,
                    (double)r->violations[i].at / 1e6, r->violations[i].text);
    assert_int_equal(r->violation_count, 0);
}

/* Calls `check` with each seed, or with the one of MPREG_SEED. */
static void each_seed(uint32_t count, void (*check)(uint64_t seed, struct mp_world_report *sum))
{
    struct mp_world_report sum = {0};
    const char *given = getenv("MPREG_SEED");
    if (given) {
        check(strtoull(given, NULL, 10), &sum);
    } else {
        for (uint64_t seed = FIRST_SEED; seed < FIRST_SEED + count; seed++)
            check(seed, &sum);
        /* What never happens is not tested. */
        assert_true(sum.calls_begun > 20 * count && sum.worker_deaths > count);
        assert_true(sum.nested > count && sum.runs_succeeded > count);
    }
}

static void add(struct mp_world_report *sum, const struct mp_world_report *r)
{
    sum->calls_begun += r->calls_begun;
    sum->worker_deaths += r->worker_deaths;
    sum->nested += r->nested;
    sum->runs_succeeded += r->runs_succeeded;
    sum->failed_allocations += r->failed_allocations;
}

static void check_promises(uint64_t seed, struct mp_world_report *sum)
{
    struct mp_world_config cfg;
    mp_world_defaults(&cfg, seed);
    const struct mp_world_report r = live(&cfg);
    assert_kept(seed, &r);
    add(sum, &r);
}

static void keeps_its_promises_in_every_world(void **state)
{
    (void)state;
    each_seed(SEEDS, check_promises);
}

static void check_digest(uint64_t seed, struct mp_world_report *sum)
{
    struct mp_world_config cfg;
    mp_world_defaults(&cfg, seed);
    const struct mp_world_report first = live(&cfg);
    const struct mp_world_report second = live(&cfg);
    assert_true(first.digest == second.digest);
    assert_true(first.virtual_time == second.virtual_time);
    mp_world_defaults(&cfg, seed + 1);
    const struct mp_world_report other = live(&cfg);
    assert_true(first.digest != other.digest);
    add(sum, &first);
}

static void does_the_same_again_for_the_same_seed(void **state)
{
    (void)state;
    each_seed(SEEDS / 6, check_digest);
}

static void check_without_memory(uint64_t seed, struct mp_world_report *sum)
{
    struct mp_world_config cfg;
    mp_world_defaults(&cfg, seed);
    cfg.out_of_memory = seed % 3 == 0 ? 200 : seed % 3 == 1 ? 5000 : 100000;
    const struct mp_world_report r = live(&cfg);
    assert_kept(seed, &r);
    add(sum, &r);
}

static void survives_without_memory(void **state)
{
    (void)state;
    each_seed(SEEDS / 2, check_without_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_its_promises_in_every_world),
        cmocka_unit_test(does_the_same_again_for_the_same_seed),
        cmocka_unit_test(survives_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
