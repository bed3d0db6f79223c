/* The invented disk for runs and messages behaves as the host's store, and loses what a power cut
 * may take: the last moments, as a whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/sim/world_internal.h"
#include "src/wire/msgpack.h"

struct disk {
    struct mp_world world;
    struct mp_world_node node;
    struct spec_alloc counted;
    struct mp_alloc alloc;
};

static int set_up(void **state)
{
    struct disk *d = (struct disk *)calloc(1, sizeof(*d));
    d->counted.fail_at = SPEC_NEVER;
    d->alloc = spec_alloc_of(&d->counted);
    d->world.alloc = &d->alloc;
    d->world.now = MP_SECONDS(100);
    mp_rng_init(&d->world.rng, 1);
    *state = d;
    return 0;
}

static int tear_down(void **state)
{
    struct disk *d = (struct disk *)*state;
    mp_world_records_fini(&d->world, &d->node);
    assert_int_equal(d->counted.live_bytes, 0);
    free(d);
    return 0;
}

/* Pieces are "text" for a str, "[2" for an array's header, "#7" for a number. */
static void put(struct mp_buf *b, const char *const *pieces)
{
    for (; *pieces; pieces++)
        if (**pieces == '[')
            assert_int_equal(mp_mp_put_array(b, (uint32_t)(*pieces)[1] - '0'), MP_OK);
        else if (**pieces == '#')
            assert_int_equal(mp_mp_put_uint(b, (uint64_t)(*pieces)[1] - '0'), MP_OK);
        else
            assert_int_equal(mp_mp_put_text(b, *pieces), MP_OK);
}
#define PIECES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* `run` is the context as it is, or else `which` as pieces. */
static void ask(struct disk *d, enum mp_node_effect_kind kind, const char *run,
                const char *const *which, const char *const *payload)
{
    struct mp_world_job j = {.kind = kind};
    mp_buf_init(&j.context, d->world.alloc, 0);
    mp_buf_init(&j.bytes, d->world.alloc, 0);
    if (run)
        assert_int_equal(mp_buf_append(&j.context, mp_slice_str(run)), MP_OK);
    if (which)
        put(&j.context, which);
    if (payload)
        put(&j.bytes, payload);
    mp_world_record(&d->world, &d->node, &j);
    mp_buf_fini(&j.context);
    mp_buf_fini(&j.bytes);
}

static void assert_is(struct disk *d, const struct mp_buf *found, const char *const *expected)
{
    struct mp_buf b;
    mp_buf_init(&b, d->world.alloc, 0);
    put(&b, expected);
    assert_int_equal(found->size, b.size);
    assert_memory_equal(found->data, b.data, b.size);
    mp_buf_fini(&b);
}

static void assert_all(struct disk *d, enum mp_world_record_kind kind, const char *const *expected)
{
    struct mp_buf found;
    mp_buf_init(&found, d->world.alloc, 0);
    mp_world_records_put(&d->node, kind, &found);
    assert_is(d, &found, expected);
    mp_buf_fini(&found);
}

/* `expected` NULL: it is missing. */
static void assert_part(struct disk *d, const char *const *which, const char *const *expected)
{
    struct mp_world_job j = {.kind = MP_NODE_READ_RUN_PART};
    struct mp_buf found;
    mp_buf_init(&j.context, d->world.alloc, 0);
    mp_buf_init(&found, d->world.alloc, 0);
    put(&j.context, which);
    assert_int_equal(mp_world_record_read(&d->node, &j, &found), expected != NULL);
    if (expected)
        assert_is(d, &found, expected);
    mp_buf_fini(&j.context);
    mp_buf_fini(&found);
}

/* How many progress parts a run has; -1: it is missing. */
static int64_t progress_of(struct disk *d, const char *run)
{
    struct mp_world_job j = {.kind = MP_NODE_READ_RUN};
    struct mp_buf found;
    struct mp_slice parts;
    struct mp_mp_reader r;
    uint32_t count = 0;
    mp_buf_init(&j.context, d->world.alloc, 0);
    mp_buf_init(&found, d->world.alloc, 0);
    assert_int_equal(mp_buf_append(&j.context, mp_slice_str(run)), MP_OK);
    bool is_there = mp_world_record_read(&d->node, &j, &found);
    if (is_there) {
        assert_int_equal(mp_mp_array_get(mp_buf_slice(&found), 2, &parts), MP_OK);
        assert_int_equal(mp_mp_get_array(parts, &count, &r), MP_OK);
    }
    mp_buf_fini(&j.context);
    mp_buf_fini(&found);
    return is_there ? (int64_t)count : -1;
}

static void keep_run(struct disk *d, const char *run, const char *head)
{
    ask(d, MP_NODE_KEEP_RUN, run, NULL, PIECES("[2", head, "body"));
}

static void runs_are_kept_replaced_and_forgotten(void **state)
{
    struct disk *d = (struct disk *)*state;
    keep_run(d, "r1", "running");
    keep_run(d, "r2", "other");
    ask(d, MP_NODE_KEEP_RUN_PART, NULL, PIECES("[2", "r1", "progress/2"), PIECES("two"));
    ask(d, MP_NODE_KEEP_RUN_PART, NULL, PIECES("[2", "r1", "progress/1"), PIECES("one"));
    ask(d, MP_NODE_KEEP_RUN_PART, NULL, PIECES("[2", "r1", "result/x"), PIECES("#1"));
    ask(d, MP_NODE_KEEP_RUN_PART, NULL, PIECES("[2", "r1", "result/x"), PIECES("#2"));
    assert_int_equal(progress_of(d, "r1"), 2);
    assert_part(d, PIECES("[2", "r1", "result/x"), PIECES("#2"));
    keep_run(d, "r1", "over");
    assert_int_equal(progress_of(d, "r1"), 0);
    assert_part(d, PIECES("[2", "r1", "result/x"), PIECES("#2"));
    assert_all(d, MP_WORLD_RECORD_HEAD, PIECES("[2", "over", "other"));
    ask(d, MP_NODE_FORGET_RUN, "r1", NULL, NULL);
    assert_int_equal(progress_of(d, "r1"), -1);
    assert_part(d, PIECES("[2", "r1", "result/x"), NULL);
    assert_all(d, MP_WORLD_RECORD_HEAD, PIECES("[1", "other"));
}

static void messages_are_in_the_order_of_seq(void **state)
{
    struct disk *d = (struct disk *)*state;
    ask(d, MP_NODE_KEEP_MESSAGES, NULL, NULL,
        PIECES("[3", "[4", "b", "#3", "#9", "x", "[4", "a", "#1", "#9", "x", "[4", "a", "#2", "#9",
               "x"));
    assert_all(d, MP_WORLD_RECORD_MESSAGE,
               PIECES("[3", "[4", "a", "#1", "#9", "x", "[4", "a", "#2", "#9", "x", "[4", "b", "#3",
                      "#9", "x"));
    ask(d, MP_NODE_FORGET_MESSAGES, NULL, NULL, PIECES("[2", "[2", "a", "#1", "[2", "c", "#9"));
    assert_all(d, MP_WORLD_RECORD_MESSAGE,
               PIECES("[2", "[4", "a", "#2", "#9", "x", "[4", "b", "#3", "#9", "x"));
}

/* A run each tenth of a second, which takes the place of the one before it. */
static void a_power_cut_takes_the_last_moments_and_nothing_else(void **state)
{
    struct disk *d = (struct disk *)*state;
    static const char *const names[] = {"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"};
    bool is_lost = false;
    for (uint32_t round = 0; round < 50; round++) {
        for (uint32_t i = 0; i < 9; i++)
            ask(d, MP_NODE_FORGET_RUN, names[i], NULL, NULL);
        keep_run(d, "r9", "r9");
        d->world.now += MP_SECONDS(3);
        for (uint32_t i = 0; i < 10; i++) {
            d->world.now += MP_MS(100);
            keep_run(d, names[i], names[i]);
            ask(d, MP_NODE_FORGET_RUN, names[(i + 9) % 10], NULL, NULL);
        }
        mp_world_records_power_cut(&d->world, &d->node);
        struct mp_buf found;
        mp_buf_init(&found, d->world.alloc, 0);
        mp_world_records_put(&d->node, MP_WORLD_RECORD_HEAD, &found);
        /* However far back it went: one run, whole. */
        assert_int_equal(found.size, 1 + 3);
        is_lost = is_lost || found.data[3] != '9';
        mp_buf_fini(&found);
    }
    assert_true(is_lost);
    keep_run(d, "r9", "old");
    d->world.now += MP_SECONDS(3);
    mp_world_records_power_cut(&d->world, &d->node);
    assert_int_equal(progress_of(d, "r9"), 0);
    /* What is long gone takes no room. */
    assert_true(d->node.records.capacity <= 256);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(runs_are_kept_replaced_and_forgotten),
        TEST(messages_are_in_the_order_of_seq),
        TEST(a_power_cut_takes_the_last_moments_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
