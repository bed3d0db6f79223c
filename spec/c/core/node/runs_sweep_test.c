/* Memory runs out at each single point of lives with runs that are watched, asked about, cancelled,
 * kept, lost and resumed. Every request is answered once, nothing is left over, and whoever watches
 * is told events in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/runs_harness.h"

#define LARGE                                                                                      \
    GRAPH("{\"name\":\"x\",\"call\":\"m.big\",\"on\":\"a\"},"                                      \
          "{\"name\":\"y\",\"call\":\"m.big\",\"on\":\"b\"}," STEP("z", "slow", "b",               \
                                                                   REF("x.n") "," REF("y.n")))

struct sweep {
    struct spec_cluster *c;
    uint64_t clients[2];
    uint64_t asked[2]; /* requests have the ids from 1 on */
    size_t fail_at;    /* SPEC_NEVER: none */
    size_t fail_count;
    size_t before; /* allocations when that began to count */
};

static void begin_failing(struct sweep *s)
{
    struct spec_alloc *counted = &s->c->nodes[0].counted;
    s->before = counted->count;
    if (s->fail_at == SPEC_NEVER)
        return;
    counted->fail_at = s->before + s->fail_at;
    s->c->fail_until[0] = s->before + s->fail_at + s->fail_count;
}

static void end_slow(struct sweep *s, bool fails)
{
    for (uint32_t i = 0; i < 2; i++)
        for (struct spec_task *t = cluster_task_of(s->c, i, SPEC_SLOW); t;
             t = cluster_task_of(s->c, i, SPEC_SLOW)) {
            if (fails)
                cluster_fail_task(s->c, i, t, MP_CODE_INTERNAL, "ERROR");
            else
                (void)cluster_finish(s->c, i, SPEC_SLOW);
            cluster_run(s->c, MP_MS(1));
        }
}

static uint64_t next(struct sweep *s, uint32_t client)
{
    return ++s->asked[client];
}

/* The run of a request; or, without an answer that names it, one that there is not. */
static struct spec_id run_or_none(struct sweep *s, uint64_t id)
{
    struct spec_id none = {"01AAAAAAAA7777777777777777"};
    const struct spec_reply *r = cluster_answer(s->c, s->clients[0], id);
    struct mp_slice value;
    if (!r || mp_mp_map_get(cluster_bytes(r), mp_slice_str("run_id"), &value) != MP_OK)
        return none;
    return id_in(cluster_bytes(r));
}

/* Runs are begun, asked about from both nodes, and ended. */
static void ask_everything(struct sweep *s, struct spec_id run)
{
    static const char *const what[] = {"trace", "watch", "runs"};
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t k = 0; k < MP_ARRAY_SIZE(what); k++)
            ask(s->c, s->clients[i], next(s, i), what[k], run);
        ask_result(s->c, s->clients[i], next(s, i), run, "x");
        ask_result(s->c, s->clients[i], next(s, i), run, "y");
        ask_result(s->c, s->clients[i], next(s, i), run, "nobody");
    }
}

static void live_while_it_goes_on(struct sweep *s)
{
    struct spec_cluster *c = s->c;
    begin_failing(s);
    begin_with(c, s->clients[0], next(s, 0), CHAIN, "{\"detach\":true}");
    struct spec_id run = run_or_none(s, s->asked[0]);
    begin_with(c, s->clients[0], next(s, 0), CHAIN, "{\"follow\":true}");
    cluster_run(c, MP_MS(30));
    ask_everything(s, run);
    cluster_run(c, MP_MS(2));
    press(c, 0, s->clients[0], true);
    press(c, 1, s->clients[1], true);
    ask(c, s->clients[1], next(s, 1), "watch", run);
    cluster_run(c, MP_MS(200));
    end_slow(s, false);
    press(c, 0, s->clients[0], false);
    press(c, 1, s->clients[1], false);
    cluster_run(c, MP_MS(20));
    begin_with(c, s->clients[0], next(s, 0), CHAIN, "{\"detach\":true}");
    run = run_or_none(s, s->asked[0]);
    cluster_run(c, MP_MS(200));
    for (uint32_t i = 0; i < 2; i++)
        ask(c, s->clients[i], next(s, i), "cancel", run);
    cluster_run(c, MP_MS(20));
    ask_everything(s, run);
}

static void live_and_resume(struct sweep *s)
{
    struct spec_cluster *c = s->c;
    begin_failing(s);
    begin_run(c, s->clients[0], next(s, 0), LARGE);
    cluster_run(c, MP_MS(50));
    end_slow(s, true);
    struct spec_id run = run_or_none(s, s->asked[0]);
    cluster_run(c, MP_MS(200));
    resume(c, s->clients[0], next(s, 0), run, NULL);
    cluster_run(c, MP_MS(20));
    resume(c, s->clients[1], next(s, 1), run, "x");
    cluster_run(c, MP_MS(20));
    resume(c, s->clients[1], next(s, 1), run, "nobody");
    ask_everything(s, run);
    end_slow(s, false);
    cluster_run(c, MP_MS(200));
}

static void live_after_a_boot(struct sweep *s)
{
    struct spec_cluster *c = s->c;
    struct spec_id runs[2];
    runs[0] = begin_detached(c, s->clients[0], next(s, 0), LARGE);
    cluster_run(c, MP_MS(300));
    cluster_kill(c, 0);
    end_slow(s, true);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_add_module(c, 0, "m");
    cluster_seed(c, 0, 0, cluster_address(1));
    cluster_run(c, MP_SECONDS(2));
    s->clients[0] = cluster_client(c, 0);
    begin_failing(s);
    ask_everything(s, runs[0]);
    cluster_run(c, MP_MS(20));
    resume(c, s->clients[0], next(s, 0), runs[0], NULL);
    resume(c, s->clients[1], next(s, 1), runs[0], NULL);
    cluster_run(c, MP_MS(300));
    end_slow(s, false);
    runs[1] = run_or_none(s, s->asked[0]);
    ask_everything(s, runs[1]);
    cluster_run(c, MP_MS(300));
}

static size_t live(void (*life)(struct sweep *), bool has_boot, size_t fail_at, size_t count,
                   uint32_t *successes)
{
    struct sweep s = {.fail_at = fail_at, .fail_count = count};
    s.c = cluster_begin(2, 3, &s.clients[0]);
    struct spec_cluster *c = s.c;
    struct spec_alloc *counted = &c->nodes[0].counted;
    s.clients[1] = cluster_client(c, 1);
    uint32_t first = c->reply_count;
    life(&s);
    counted->fail_at = SPEC_NEVER;
    for (uint32_t k = 0; k < 20; k++) {
        end_slow(&s, false);
        cluster_run(c, MP_SECONDS(1));
    }
    cluster_run(c, MP_SECONDS(100)); /* calls whose answers found no memory run into deadlines */
    end_slow(&s, false);
    cluster_run(c, MP_SECONDS(10));
    for (uint32_t i = 0; i < 2; i++)
        for (uint64_t id = has_boot && i == 0 ? 2 : 1; id <= s.asked[i]; id++) {
            const struct spec_reply *r = cluster_answer(c, s.clients[i], id);
            if (!r)
                fail_msg("allocation %zu: request %u of client %u has no answer", fail_at,
                         (uint32_t)id, i);
            *successes += r->frame == MP_FRAME_RESULT;
            int64_t last = 0; /* an event may be missing, but none is told twice */
            for (uint32_t n = first; n < c->reply_count; n++) {
                const struct spec_reply *e = &c->replies[n];
                if (e->client != s.clients[i] || e->id != id || e->frame != MP_FRAME_EVENT)
                    continue;
                assert_true(seq_of(e) > last);
                last = seq_of(e);
            }
        }
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    assert_int_equal(c->nodes[0].node->run_asks.size, 0);
    if (!cluster_is_quiet(c))
        fail_msg("allocation %zu: something is left over", fail_at);
    size_t taken = counted->count - s.before;
    cluster_free(c);
    return taken;
}

/* Of all allocations so many fail, one world each. */
#ifdef MP_SANITIZE
#define PLACES 100 /* each world takes eight times as long */
#else
#define PLACES 300
#endif

static void sweep(void (*life)(struct sweep *), bool has_boot)
{
    uint32_t all_successes = 0;
    uint32_t successes = 0;
    size_t all = live(life, has_boot, SPEC_NEVER, 0, &all_successes);
    size_t step = getenv("SPEC_ALL") ? 1 : 1 + all / PLACES;
    assert_true(all_successes >= 8);
    for (size_t i = 0; i < all; i += step) {
        (void)live(life, has_boot, i, 1, &successes);
        (void)live(life, has_boot, i, 30, &successes);
    }
    assert_true(successes > all / step * all_successes);
}

static void while_runs_go_on(void **state)
{
    (void)state;
    sweep(live_while_it_goes_on, false);
}

static void while_runs_are_resumed(void **state)
{
    (void)state;
    sweep(live_and_resume, false);
}

static void after_a_boot(void **state)
{
    (void)state;
    sweep(live_after_a_boot, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_runs_go_on),
        cmocka_unit_test(while_runs_are_resumed),
        cmocka_unit_test(after_a_boot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
