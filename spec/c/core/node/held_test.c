/* Results that stay on the node that made them: fetched once, whole or in part, given back at the
 * end of their run, whatever becomes of the nodes and the connections between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"
#include "spec/support/tiny_json.h"

#define BIG(name, on) "{\"name\":\"" name "\",\"call\":\"m.big\",\"on\":\"" on "\"}"
#define REF(path)     "{\"$ref\":\"" path "\"}"
#define STEP(name, fun, on, args)                                                                  \
    "{\"name\":\"" name "\",\"call\":\"m." fun "\",\"on\":\"" on "\",\"args\":[" args "]}"

static void run(struct spec_cluster *c, uint64_t client, uint64_t id, const char *graph)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    struct mp_buf meta;
    mp_buf_init(&b, &alloc, 0);
    mp_buf_init(&meta, &alloc, 0);
    (void)tiny_read(graph, &b);
    const struct mp_run_options o = {0};
    MUST(mp_run_options_put(&meta, &o) == MP_OK);
    cluster_request(c, client, MP_NODE_RUN, id, mp_buf_slice(&meta), mp_buf_slice(&b));
    mp_buf_fini(&b);
    mp_buf_fini(&meta);
}

/* A text of the run object, such as its status. */
static struct mp_slice text_of(struct spec_cluster *c, uint64_t client, uint64_t id,
                               const char *key)
{
    const struct spec_reply *r = cluster_answer(c, client, id);
    struct mp_slice value = {0};
    struct mp_slice text = {0};
    assert_non_null(r);
    assert_int_equal(r->frame, MP_FRAME_RESULT);
    assert_int_equal(mp_mp_map_get(cluster_bytes(r), mp_slice_str(key), &value), MP_OK);
    (void)!mp_mp_get_str(value, &text);
    return text;
}

static void assert_status(struct spec_cluster *c, uint64_t client, uint64_t id, const char *status)
{
    struct mp_slice text = text_of(c, client, id, "status");
    if (!mp_slice_is(text, status))
        fail_msg("run %d: %.*s", (int)id, (int)text.size, (const char *)text.data);
}

static int64_t output_of(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    struct mp_slice value;
    int64_t number = -1;
    const struct spec_reply *r = cluster_answer(c, client, id);
    assert_int_equal(mp_mp_map_get(cluster_bytes(r), mp_slice_str("output"), &value), MP_OK);
    (void)!mp_mp_get_int(value, &number);
    return number;
}

/* As if its RELEASE had come by another link, before the result was there. */
static void what_came_after_its_release_is_given_back(void **state)
{
    (void)state;
    static uint8_t bytes[100000];
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    struct mp_node *b = c->nodes[1].node;
    uint32_t coordinator = mp_membership_find(b->membership, mp_slice_str("a"));
    struct mp_rpc_payload payload = {.bytes = mp_slice_of(bytes, sizeof(bytes))};
    assert_int_not_equal(0, mp_node_hold(b, coordinator, 77, &payload));
    assert_int_equal(1, mp_node_held_count(b));
    cluster_run(c, MP_SECONDS(3));
    assert_int_equal(0, mp_node_held_count(b));
    cluster_end(c);
}

static void a_value_moves_once_and_is_given_back(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    run(c, client, 1,
        "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," STEP(
            "s", "size", "c", REF("x")) "," STEP("t", "size", "c",
                                                 REF("x")) "," STEP("u", "size", "b",
                                                                    REF("x.data")) "]}");
    cluster_run(c, MP_MS(50));
    assert_status(c, client, 1, "succeeded");
    assert_true(output_of(c, client, 1) > SPEC_BIG_BYTES);
    assert_int_equal(c->frames[MP_FRAME_FETCH], 1); /* c asked b, once for two calls */
    assert_true(c->frames[MP_FRAME_RELEASE] >= 2);
    cluster_run(c, MP_MS(10));
    assert_true(cluster_is_quiet(c));
    cluster_end(c);
}

static void a_part_is_cut_where_the_whole_is(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    run(c, client, 1,
        "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," STEP("s", "size", "c",
                                                                      REF("x.n")) "]}");
    run(c, client, 2,
        "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," STEP("s", "size", "c",
                                                                      REF("x.none")) "]}");
    cluster_run(c, MP_MS(50));
    assert_status(c, client, 1, "succeeded");
    assert_int_equal(output_of(c, client, 1), 2);
    assert_status(c, client, 2, "failed");
    cluster_end(c);
}

static void the_coordinator_fetches_what_it_shows(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    run(c, client, 1, "{\"output\":" REF("x.n") ",\"steps\":[" BIG("x", "b") "]}");
    cluster_run(c, MP_MS(50));
    assert_status(c, client, 1, "succeeded");
    assert_int_equal(output_of(c, client, 1), 7);
    cluster_end(c);
}

/* Where the run is cancelled at each moment, nothing stays held anywhere. */
static void nothing_stays_when_a_run_is_cancelled(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    uint64_t id = 0;
    for (mp_duration after = 0; after < MP_MS(3); after += MP_US(50)) {
        run(c, client, ++id,
            "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," BIG("y", "c") "," STEP(
                "s", "size", "c", REF("x") "," REF("y")) "," STEP("t", "size", "b",
                                                                  REF("x") "," REF("y")) "]}");
        cluster_run(c, after);
        cluster_cancel(c, client, id);
        cluster_run(c, MP_SECONDS(2));
        assert_non_null(cluster_answer(c, client, id));
        assert_true(cluster_is_quiet(c));
    }
    cluster_end(c);
}

/* The same where a connection breaks at each moment: between which two, the number says. */
static void nothing_stays_when_a_link_breaks(void **state)
{
    (void)state;
    static const uint32_t pairs[3][2] = {{0, 1}, {0, 2}, {1, 2}};
    for (uint32_t pair = 0; pair < 3; pair++)
        for (mp_duration after = 0; after < MP_MS(2); after += MP_US(50)) {
            uint64_t client;
            struct spec_cluster *c = cluster_begin(3, 6, &client);
            run(c, client, 1,
                "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," BIG("y", "c") "," STEP(
                    "s", "size", "c", REF("x") "," REF("y")) "," STEP("t", "size", "b",
                                                                      REF("x") "," REF("y")) "]}");
            cluster_run(c, after);
            for (uint32_t i = 1; i <= c->conn_count; i++)
                if (c->conns[i].node[0] < 3 &&
                    c->conns[i].node[0] + c->conns[i].node[1] == pairs[pair][0] + pairs[pair][1])
                    cluster_break(c, 1ull << 32 | i);
            cluster_run(c, MP_SECONDS(10));
            assert_non_null(cluster_answer(c, client, 1));
            assert_true(cluster_is_quiet(c));
            cluster_end(c);
        }
}

/* The coordinator dies at each moment. */
static void nothing_stays_when_the_coordinator_dies(void **state)
{
    (void)state;
    for (mp_duration after = 0; after < MP_MS(2); after += MP_US(50)) {
        uint64_t client;
        struct spec_cluster *c = cluster_begin(3, 6, &client);
        run(c, client, 1,
            "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," BIG("y", "c") "," STEP(
                "s", "size", "c", REF("x") "," REF("y")) "," STEP("t", "slow", "b",
                                                                  REF("x") "," REF("y")) "]}");
        cluster_run(c, after);
        cluster_kill(c, 0);
        cluster_run(c, MP_SECONDS(20));
        assert_true(cluster_is_quiet(c));
        cluster_end(c);
    }
}

/* It boots again before anybody has noticed. */
static void nothing_stays_when_the_coordinator_boots_again(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    run(c, client, 1,
        "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," STEP("s", "slow", "c",
                                                                      REF("x")) "]}");
    cluster_run(c, MP_MS(20));
    assert_int_equal(mp_node_held_count(c->nodes[1].node), 1);
    assert_int_equal(mp_node_held_count(c->nodes[2].node), 1); /* a copy */
    cluster_kill(c, 0);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_seed(c, 0, 0, cluster_address(1));
    cluster_run(c, MP_MS(400));
    assert_int_equal(mp_node_held_count(c->nodes[1].node), 0);
    assert_int_equal(mp_node_held_count(c->nodes[2].node), 0);
    cluster_end(c);
}

/* A holder that boots again within the run has other values under other numbers. */
static void a_number_from_before_a_boot_means_nothing(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    run(c, client, 1,
        "{\"output\":" REF("s") ",\"steps\":[" BIG("x", "b") "," STEP(
            "w", "slow", "c",
            "") ","
                "{\"name\":\"s\",\"call\":\"m.size\",\"on\":\"c\",\"after\":[\"w\"],\"args\":[" REF(
                    "x") "]}]}");
    cluster_run(c, MP_MS(20));
    uint64_t before = c->nodes[1].node->held[0].id;
    cluster_kill(c, 1);
    cluster_boot(c, 1, &(struct spec_boot){.name = "b"});
    cluster_add_module(c, 1, "m");
    cluster_seed(c, 1, 0, cluster_address(0));
    cluster_run(c, MP_SECONDS(1));
    run(c, client, 2,
        "{\"output\":" REF("w") ",\"steps\":[" BIG("x", "b") "," STEP("w", "slow", "c", "") "]}");
    cluster_run(c, MP_MS(20));
    assert_int_equal(mp_node_held_count(c->nodes[1].node), 1);
    assert_true(c->nodes[1].node->held[0].id != before);
    while (cluster_finish(c, 2, SPEC_SLOW))
        cluster_run(c, MP_SECONDS(2));
    cluster_run(c, MP_SECONDS(10));
    assert_non_null(cluster_answer(c, client, 1));
    assert_status(c, client, 1, "failed"); /* m.big may not run again */
    cluster_end(c);
}

static void what_does_not_fit_is_sent_instead(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    c->nodes[1].node->held_bytes += MP_HELD_BYTES_MAX; /* as if there were others */
    run(c, client, 1, "{\"output\":" REF("x.n") ",\"steps\":[" BIG("x", "b") "]}");
    cluster_run(c, MP_MS(50));
    assert_status(c, client, 1, "succeeded");
    assert_int_equal(output_of(c, client, 1), 7);
    assert_int_equal(c->frames[MP_FRAME_FETCH], 0);
    c->nodes[1].node->held_bytes -= MP_HELD_BYTES_MAX;
    cluster_end(c);
}

static void a_node_stops_in_the_middle_of_a_run(void **state)
{
    (void)state;
    for (mp_duration after = 0; after < MP_MS(2); after += MP_US(50)) {
        uint64_t client;
        struct spec_cluster *c = cluster_begin(3, 6, &client);
        run(c, client, 1,
            "{\"output\":" REF("t") ",\"steps\":["
                                    "{\"name\":\"x\",\"call\":\"m.big\"},"
                                    "{\"name\":\"s\",\"call\":\"m.size\",\"args\":[" REF(
                                        "x") "]},"
                                             "{\"name\":\"t\",\"call\":\"m.size\",\"args\":[" REF(
                                                 "x") "," REF("s") "]}]}");
        cluster_run(c, after);
        cluster_kill(c, 1 + (uint32_t)(after / MP_US(50)) % 2);
        cluster_run(c, MP_SECONDS(20));
        assert_non_null(cluster_answer(c, client, 1));
        assert_true(cluster_is_quiet(c));
        cluster_end(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_after_its_release_is_given_back),
        cmocka_unit_test(a_value_moves_once_and_is_given_back),
        cmocka_unit_test(a_part_is_cut_where_the_whole_is),
        cmocka_unit_test(the_coordinator_fetches_what_it_shows),
        cmocka_unit_test(nothing_stays_when_a_run_is_cancelled),
        cmocka_unit_test(nothing_stays_when_a_link_breaks),
        cmocka_unit_test(nothing_stays_when_the_coordinator_dies),
        cmocka_unit_test(nothing_stays_when_the_coordinator_boots_again),
        cmocka_unit_test(a_number_from_before_a_boot_means_nothing),
        cmocka_unit_test(what_does_not_fit_is_sent_instead),
        cmocka_unit_test(a_node_stops_in_the_middle_of_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
