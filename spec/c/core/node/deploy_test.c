/* Deploys in invented worlds: one node dies right before each single step of a deploy; hundreds of
 * deploys one after another; and worlds without much memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/sim/world.h"

#define NODES          3
#define SWEEPS         4 /* seeds: what happens at the same time as the deploy differs */
#define STEPS_MIN      6 /* STAGE, checked, kept, loaded, SWITCH, kept */
#define STEPS_MAX      1000
#define DEPLOYS        300
#define GROWTH_MAX     400 /* bytes of a node for each deploy: the entry in its history */
#define MEMORYLESS     60  /* worlds */
#define ALLOCATIONS_OF 1000000

static struct mp_world_report live(const struct mp_world_config *cfg)
{
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_world_report report;
    mp_world_live(cfg, &alloc, &report);
    assert_int_equal(a.live_bytes, 0);
    for (uint32_t i = 0; i < report.violation_count && i < MP_WORLD_VIOLATIONS_MAX; i++)
        print_error("seed %llu, step %u of node %u, at %.3f ms: %s\n",
                    (unsigned long long)cfg->seed, cfg->crash_step, cfg->crash_node,
                    (double)report.violations[i].at / 1e6, report.violations[i].text);
    assert_int_equal(report.violation_count, 0);
    return report;
}

static struct mp_world_config undisturbed(uint64_t seed)
{
    struct mp_world_config cfg;
    mp_world_defaults(&cfg, seed);
    cfg.scenario = MP_WORLD_DEPLOY;
    cfg.nodes = NODES;
    cfg.is_drained = false;
    cfg.requests = 0;
    cfg.chances = (struct mp_world_chances){.change = 1};
    return cfg;
}

/* The world itself looks whether all nodes agree afterwards, and whether all have the new version
 * or none has it; all, if the client was told so. */
static void sweep(uint32_t node)
{
    for (uint64_t seed = 1; seed <= SWEEPS; seed++) {
        struct mp_world_config cfg = undisturbed(seed);
        uint64_t kept = 0;
        uint64_t crashes = 1;
        cfg.crash_node = node;
        for (cfg.crash_step = 1; crashes != 0; cfg.crash_step++) {
            assert_true(cfg.crash_step < STEPS_MAX);
            const struct mp_world_report r = live(&cfg);
            crashes = r.crashes - NODES; /* all of them, in the end */
            kept += r.changes == 2;      /* the first one is before anything dies */
        }
        assert_true(cfg.crash_step > STEPS_MIN);
        assert_true(kept != 0);
    }
}

static void is_made_or_not_whichever_step_the_node_that_deploys_dies_at(void **state)
{
    (void)state;
    sweep(0);
}

static void is_made_or_not_whichever_step_another_node_dies_at(void **state)
{
    (void)state;
    sweep(1);
}

static void takes_no_memory_but_for_the_history(void **state)
{
    (void)state;
    struct mp_world_config cfg = undisturbed(1);
    cfg.deploys = DEPLOYS;
    const struct mp_world_report r = live(&cfg);
    assert_int_equal(r.changes, DEPLOYS);
    assert_int_equal(r.sample_count, 2);
    assert_true(r.samples[1] - r.samples[0] <= (double)GROWTH_MAX * (DEPLOYS - DEPLOYS / 2));
}

static void survives_without_memory(void **state)
{
    (void)state;
    uint64_t failed = 0;
    for (uint64_t seed = 1; seed <= MEMORYLESS; seed++) {
        struct mp_world_config cfg;
        mp_world_draw(&cfg, MP_WORLD_DEPLOY, NODES, seed);
        cfg.out_of_memory = ALLOCATIONS_OF / (seed % 3 == 0 ? 50 : seed % 3 == 1 ? 500 : 5000);
        failed += live(&cfg).failed_allocations;
    }
    assert_true(failed > MEMORYLESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_made_or_not_whichever_step_the_node_that_deploys_dies_at),
        cmocka_unit_test(is_made_or_not_whichever_step_another_node_dies_at),
        cmocka_unit_test(takes_no_memory_but_for_the_history),
        cmocka_unit_test(survives_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
