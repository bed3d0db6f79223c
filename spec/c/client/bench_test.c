/* The load generator against a server in threads: what it counts, and when it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "spec/support/fake_node.h"
#include "src/client/bench.h"

struct world {
    struct fake_node node;
    struct spec_alloc counter;
    struct mp_alloc alloc;
    struct mp_buf error;
    struct mp_load_result result;
    const char *nodes[2];
};

static int set_up(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    w->counter.fail_at = SPEC_NEVER;
    w->alloc = spec_alloc_of(&w->counter);
    mp_buf_init(&w->error, &w->alloc, 0);
    *state = w;
    return fake_node_start(&w->node);
}

static int tear_down(void **state)
{
    struct world *w = (struct world *)*state;
    fake_node_stop(&w->node);
    mp_buf_fini(&w->error);
    assert_int_equal(w->counter.live_bytes, 0);
    free(w);
    return 0;
}

static struct mp_bench_config config_of(struct world *w, const char *fun, uint32_t outstanding,
                                        uint32_t connections, uint64_t ms)
{
    w->nodes[0] = "127.0.0.1:1"; /* nobody there: the next is taken */
    w->nodes[1] = w->node.addr;
    return (struct mp_bench_config){.alloc = &w->alloc,
                                    .nodes = w->nodes,
                                    .nodes_count = 2,
                                    .call = {.fun = mp_slice_str(fun)},
                                    .payload = mp_slice_str("\x91\xa5hello"),
                                    .outstanding = outstanding,
                                    .connections = connections,
                                    .duration = MP_MS(ms)};
}

static uint64_t errors_of(const struct world *w, const char *kind)
{
    for (uint32_t i = 0; i < w->result.kinds_count; i++)
        if (strcmp(w->result.kinds[i].name, kind) == 0)
            return w->result.kinds[i].count;
    return 0;
}

static void run(struct world *w, const struct mp_bench_config *config)
{
    assert_int_equal(mp_bench_run(config, &w->result, &w->error), MP_OK);
}

static void every_call_is_counted_once(void **state)
{
    struct world *w = (struct world *)*state;
    const uint32_t shapes[][2] = {{1, 1}, {64, 1}, {7, 3}, {64, 16}};
    for (int i = 0; i < 4; i++) {
        const struct mp_bench_config config =
            config_of(w, "test.echo", shapes[i][0], shapes[i][1], 30);
        run(w, &config);
        assert_true(w->result.calls > 0);
        assert_int_equal(w->result.errors, 0);
        assert_int_equal(w->result.latencies.count, w->result.calls);
        assert_true(w->result.elapsed >= w->result.latencies.max);
    }
}

static void large_requests_travel_whole(void **state)
{
    struct world *w = (struct world *)*state;
    size_t size = 1u << 20;
    uint8_t *payload = (uint8_t *)calloc(1, size);
    struct mp_bench_config config = config_of(w, "test.echo", 5, 2, 50);
    config.payload = mp_slice_of(payload, size);
    run(w, &config);
    assert_true(w->result.calls >= 5);
    assert_int_equal(w->result.errors, 0);
    free(payload);
}

static void errors_are_told_apart(void **state)
{
    struct world *w = (struct world *)*state;
    const struct mp_bench_config config = config_of(w, "test.third", 8, 2, 30);
    run(w, &config);
    assert_true(w->result.calls > 0);
    assert_true(w->result.errors > 0);
    assert_int_equal(errors_of(w, "UNAVAILABLE/THIRD"), w->result.errors);
    assert_int_equal(w->result.latencies.count, w->result.calls);
}

static void a_run_that_failed_is_an_error(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_bench_config config = config_of(w, "", 4, 1, 20);
    config.is_run = true;
    config.payload = mp_slice_str("\x82\xa6status\xa6"
                                  "failed\xa5"
                                  "error\x82\xa4"
                                  "code\xa8INTERNAL"
                                  "\xa6reason\xa4"
                                  "BOOM");
    run(w, &config);
    assert_int_equal(w->result.calls, 0);
    assert_true(w->result.errors > 0);
    assert_int_equal(errors_of(w, "INTERNAL/BOOM"), w->result.errors);
    config.payload = mp_slice_str("\x81\xa6status\xa9succeeded");
    run(w, &config);
    assert_true(w->result.calls > 0);
    assert_int_equal(w->result.errors, 0);
}

static void lost_connections_end_the_measurement(void **state)
{
    struct world *w = (struct world *)*state;
    const struct mp_bench_config config = config_of(w, "test.drop", 4, 2, 60000);
    run(w, &config);
    /* the first call of all was made before the clock started */
    assert_int_equal(w->result.calls, 2 * (FAKE_NODE_DROP_AT - 1) - 1);
    assert_int_equal(errors_of(w, "UNAVAILABLE/CONNECTION_LOST"), 4);
    assert_int_equal(w->result.errors, 4);
}

static void a_rate_is_kept(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_bench_config config = config_of(w, "test.echo", 16, 2, 200);
    config.rate = 1000;
    run(w, &config);
    assert_int_equal(w->result.calls + w->result.unsent, 200);
    assert_int_equal(w->result.errors, 0);
}

/* What could not be sent in time counts as unsent, and is waited for from when it was due. */
static void at_a_rate_silence_is_not_hidden(void **state)
{
    struct world *w = (struct world *)*state;
    volatile sig_atomic_t interrupts = 0;
    struct mp_bench_config config = config_of(w, "test.silent", 1, 1, 30);
    config.rate = 100;
    config.interrupts = &interrupts;
    config.call.timeout_ms = 1;
    run(w, &config);
    assert_int_equal(w->result.calls, 1);
    assert_int_equal(errors_of(w, "DEADLINE_EXCEEDED/NO_ANSWER"), 1);
}

static void what_cannot_run_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_fault f;
    struct mp_bench_config config = config_of(w, "test.fail", 1, 1, 1000);
    assert_int_equal(mp_bench_run(&config, &w->result, &w->error), MP_ECLOSED);
    assert_int_equal(mp_fault_read(mp_buf_slice(&w->error), &f), MP_OK);
    assert_int_equal(f.code, MP_CODE_NOT_FOUND);
    config.nodes_count = 1;
    assert_int_equal(mp_bench_run(&config, &w->result, &w->error), MP_ECLOSED);
    assert_int_equal(mp_fault_read(mp_buf_slice(&w->error), &f), MP_OK);
    assert_true(mp_slice_is(f.reason, "NO_NODE"));
    config.connections = 2;
    assert_int_equal(mp_bench_run(&config, &w->result, &w->error), MP_EINVAL);
}

static void an_interrupt_before_the_start_ends_it(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_fault f;
    volatile sig_atomic_t interrupts = 1;
    struct mp_bench_config config = config_of(w, "test.echo", 1, 1, 60000);
    config.interrupts = &interrupts;
    assert_int_equal(mp_bench_run(&config, &w->result, &w->error), MP_ECLOSED);
    assert_int_equal(mp_fault_read(mp_buf_slice(&w->error), &f), MP_OK);
    assert_true(mp_slice_is(f.reason, "INTERRUPTED"));
}

static volatile sig_atomic_t interrupts;

static void on_alarm(int number)
{
    (void)number;
    interrupts++;
}

static void an_interrupt_gives_what_there_is(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_bench_config config = config_of(w, "test.echo", 4, 1, 3600000);
    const struct sigaction action = {.sa_handler = on_alarm};
    interrupts = 0;
    config.interrupts = &interrupts;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    ualarm(100000, 0);
    run(w, &config);
    assert_true(w->result.is_interrupted);
    assert_true(w->result.calls > 0);
    assert_int_equal(w->result.errors, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_call_is_counted_once),
        TEST(large_requests_travel_whole),
        TEST(errors_are_told_apart),
        TEST(a_run_that_failed_is_an_error),
        TEST(lost_connections_end_the_measurement),
        TEST(a_rate_is_kept),
        TEST(at_a_rate_silence_is_not_hidden),
        TEST(what_cannot_run_is_refused),
        TEST(an_interrupt_before_the_start_ends_it),
        TEST(an_interrupt_gives_what_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
