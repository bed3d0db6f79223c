/* Links between nodes: who is let in, what becomes of two that dial each other, and what is told
 * when nobody can be reached. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"

static uint32_t up_connections(const struct spec_cluster *c)
{
    uint32_t count = 0;
    for (uint32_t i = 1; i <= c->conn_count; i++)
        count += !c->conns[i].is_closing && c->conns[i].node[0] < SPEC_NODES_MAX;
    return count;
}

static void two_nodes_are_one_cluster(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(1);
    cluster_boot_all(c, 2, 2);
    assert_int_equal(mp_node_link_count(c->nodes[0].node), 1);
    assert_int_equal(mp_node_link_count(c->nodes[1].node), 1);
    assert_int_equal(up_connections(c), 1);
    uint64_t client = cluster_client(c, 0);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo"});
    cluster_run(c, MP_MS(10));
    assert_result(c, client, 1);
    assert_true(cluster_is_quiet(c));
    cluster_free(c);
}

/* Both name each other, so both dial: whatever comes first, calls go through, and in the end one
 * connection is left. */
static void one_link_stays_when_two_dial_each_other(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct spec_cluster *c = cluster_new(seed);
        c->latency_max = MP_MS(4);
        cluster_boot(c, 0, &(struct spec_boot){.name = seed % 2 == 0 ? "a" : "b"});
        cluster_boot(c, 1, &(struct spec_boot){.name = seed % 2 == 0 ? "b" : "a"});
        cluster_add_module(c, 0, "m0");
        cluster_add_module(c, 1, "m1");
        cluster_seed(c, 0, 0, cluster_address(1));
        cluster_run(c, mp_rng_below(&c->rng, MP_MS(6)));
        cluster_seed(c, 1, 0, cluster_address(0));
        uint64_t clients[2] = {cluster_client(c, 0), cluster_client(c, 1)};
        uint32_t calls = 0;
        for (uint32_t i = 0; i < 60; i++) {
            cluster_run(c, MP_US(500));
            calls++;
            cluster_call(c, clients[0], calls,
                         &(struct spec_call){.fun = "m1.echo", .is_waiting = true});
            cluster_call(c, clients[1], calls,
                         &(struct spec_call){.fun = "m0.echo", .is_waiting = true});
        }
        cluster_run(c, MP_SECONDS(5));
        for (uint32_t i = 1; i <= calls; i++) {
            assert_result(c, clients[0], i);
            assert_result(c, clients[1], i);
        }
        assert_int_equal(c->nodes[0].begins[SPEC_ECHO], calls);
        assert_int_equal(c->nodes[1].begins[SPEC_ECHO], calls);
        cluster_run(c, MP_SECONDS(60));
        assert_int_equal(up_connections(c), 1);
        assert_int_equal(mp_node_link_count(c->nodes[0].node), 1);
        assert_int_equal(mp_node_link_count(c->nodes[1].node), 1);
        assert_true(cluster_is_quiet(c));
        cluster_free(c);
    }
}

static void nodes_of_another_cluster_are_refused(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_boot(c, 1, &(struct spec_boot){.name = "b", .cluster = "other"});
    cluster_seed(c, 1, 0, cluster_address(0));
    cluster_run(c, MP_SECONDS(60));
    assert_int_equal(mp_node_link_count(c->nodes[0].node), 0);
    assert_int_equal(mp_membership_live_count(mp_node_membership(c->nodes[0].node)), 1);
    assert_non_null(strstr(c->nodes[1].log, "clusters do not mix"));
    assert_in_range(c->dials, 3, 30); /* it is tried again, seldom */
    assert_int_equal(up_connections(c), 0);
    cluster_free(c);
}

static void a_seed_that_is_the_node_itself_is_told_once(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_seed(c, 0, 0, cluster_address(0));
    cluster_run(c, MP_SECONDS(60));
    assert_int_equal(c->dials, 1);
    assert_int_equal(c->nodes[0].logs, 1);
    assert_non_null(strstr(c->nodes[0].log, "this node itself"));
    assert_int_equal(up_connections(c), 0);
    cluster_free(c);
}

static void seeds_are_tried_again_with_growing_pauses(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_seed(c, 0, 0, cluster_address(1));
    cluster_seed(c, 0, 1, cluster_address(2));
    cluster_seed(c, 0, MP_SEEDS_MAX, cluster_address(2)); /* one too many: passed over */
    cluster_run(c, MP_SECONDS(1));
    uint32_t first = c->dials;
    assert_in_range(first, 4, 20);
    cluster_run(c, MP_SECONDS(60));
    assert_in_range(c->dials - first, 8, 40);
    assert_in_range(c->nodes[0].logs, 2, 2); /* once for each */
    cluster_boot(c, 2, &(struct spec_boot){.name = "c"});
    cluster_run(c, MP_SECONDS(15));
    assert_non_null(cluster_link(c, 0, "c"));
    /* The first one may be somewhere else now. */
    cluster_boot(c, 3, &(struct spec_boot){.name = "d"});
    cluster_seed(c, 0, 0, cluster_address(3));
    cluster_run(c, MP_SECONDS(5));
    assert_int_equal(mp_membership_live_count(mp_node_membership(c->nodes[2].node)), 3);
    cluster_free(c);
}

static void a_name_in_use_stops_the_newcomer(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot_all(c, 2, 0);
    cluster_boot(c, 2, &(struct spec_boot){.name = "a", .generation = 9});
    cluster_seed(c, 2, 0, cluster_address(1));
    cluster_run(c, MP_SECONDS(5));
    assert_true(c->nodes[2].is_stopped);
    assert_non_null(strstr(c->nodes[2].stop_text, "name"));
    assert_false(c->nodes[0].is_stopped);
    cluster_free(c);
}

static void a_namesake_that_joins_the_other_is_stopped(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot_all(c, 2, 0);
    cluster_boot(c, 2, &(struct spec_boot){.name = "a", .generation = 9});
    cluster_seed(c, 2, 0, cluster_address(0));
    cluster_run(c, MP_SECONDS(5));
    assert_true(c->nodes[2].is_stopped);
    assert_false(c->nodes[0].is_stopped);
    cluster_free(c);
}

static void take_frame(struct spec_cluster *c, uint64_t client, uint8_t type, struct mp_slice meta)
{
    const struct mp_node_event ev = {
        .kind = MP_NODE_FRAME, .frame = {.client = client, .type = type, .id = 1, .meta = meta}};
    cluster_step(c, cluster_conn(c, client)->node[1], &ev);
}

static void what_is_no_hello_is_refused(void **state)
{
    (void)state;
    static const char *const metas[] = {"", "\xc0", "\x96\x01\x02\x03\x04\x05\x06",
                                        "\x96\xa7"
                                        "default\xa1"
                                        "b\x01\xc4\x01\x00\x00\xa1"
                                        "1"};
    struct spec_cluster *c = cluster_new(2);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    for (uint32_t i = 0; i < MP_ARRAY_SIZE(metas); i++) {
        uint64_t client = cluster_client(c, 0);
        uint32_t refused = c->frames[MP_FRAME_REFUSED];
        take_frame(c, client, MP_FRAME_HELLO, mp_slice_str(metas[i]));
        assert_int_equal(c->frames[MP_FRAME_REFUSED], refused + 1);
        assert_true(cluster_conn(c, client)->is_closing);
    }
    uint64_t client = cluster_client(c, 0);
    take_frame(c, client, MP_FRAME_FORWARD, mp_slice_str("\xc0"));
    assert_true(cluster_conn(c, client)->is_closing);
    cluster_run(c, MP_SECONDS(1));
    assert_int_equal(c->nodes[0].node->link_used, 0);
    cluster_free(c);
}

/* It accepts connections and ends them at once: calls are told, and it is not dialled in a loop. */
static void a_node_that_hangs_up_is_not_dialled_in_a_loop(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot_all(c, 2, 2);
    uint64_t client = cluster_client(c, 0);
    /* b was replaced by a node of another cluster, and nobody has noticed. */
    cluster_kill(c, 1);
    cluster_boot(c, 1, &(struct spec_boot){.name = "b", .cluster = "other"});
    cluster_run(c, MP_MS(1));
    uint32_t dials = c->dials;
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo"});
    cluster_run(c, MP_MS(100));
    assert_reason(c, client, 1, "NODE_LOST");
    assert_in_range(c->dials - dials, 1, 3);
    cluster_run(c, MP_SECONDS(10));
    assert_true(cluster_is_quiet(c));
    cluster_free(c);
}

/* Another node has the address now. */
static void an_address_may_have_changed_hands(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot_all(c, 2, 2);
    uint64_t client = cluster_client(c, 0);
    cluster_kill(c, 1);
    cluster_boot(c, 1, &(struct spec_boot){.name = "x"});
    cluster_run(c, MP_MS(1));
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo"});
    cluster_run(c, MP_MS(50));
    assert_reason(c, client, 1, "NODE_LOST");
    cluster_run(c, MP_SECONDS(10));
    assert_true(mp_membership_find(mp_node_membership(c->nodes[0].node), mp_slice_str("x")) !=
                MP_MEMBER_NONE);
    cluster_free(c);
}

static void who_drains_says_goodbye(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot_all(c, 2, 3);
    uint64_t client = cluster_client(c, 1);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow", .on = "b"});
    cluster_run(c, MP_MS(1));
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    cluster_step(c, 1, &drain);
    assert_false(c->nodes[1].is_drained); /* there is a call left */
    cluster_run(c, MP_MS(1));
    struct mp_member_info info;
    const struct mp_membership *m = mp_node_membership(c->nodes[0].node);
    assert_true(mp_membership_get(m, mp_membership_find(m, mp_slice_str("b")), &info));
    assert_int_equal(info.state, MP_MEMBER_LEFT);
    assert_true(cluster_finish(c, 1, SPEC_SLOW));
    cluster_run(c, MP_MS(1));
    assert_result(c, client, 1);
    assert_true(c->nodes[1].is_drained);
    cluster_free(c);
}

/* Nodes that nobody knows say HELLO, and are taken for dialled and idle; `first`: their first
 * connection. */
static void strangers_are_let_in(struct spec_cluster *c, uint32_t node, uint32_t count,
                                 uint64_t *first)
{
    struct mp_node *n = c->nodes[node].node;
    *first = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct spec_alloc counted = {.fail_at = SPEC_NEVER};
        struct mp_alloc alloc = spec_alloc_of(&counted);
        char name[16];
        struct mp_buf b;
        snprintf(name, sizeof(name), "n%u", i);
        struct mp_peer_hello hello = {.cluster = mp_slice_str("default"),
                                      .name = mp_slice_str(name),
                                      .generation = 1,
                                      .addr = cluster_address(100),
                                      .version = mp_slice_str("1")};
        hello.addr.bytes[2] = (uint8_t)i;
        mp_buf_init(&b, &alloc, 0);
        assert_int_equal(mp_peer_hello_put(&b, &hello), MP_OK);
        uint64_t conn = cluster_client(c, node);
        *first = *first != 0 ? *first : conn;
        take_frame(c, conn, MP_FRAME_HELLO, mp_buf_slice(&b));
        mp_buf_fini(&b);
    }
    for (uint32_t i = 0; i < n->link_used; i++)
        n->links[i].is_ours = true;
    c->now += MP_SECONDS(15); /* as if nothing had been said for long; nobody is dead of it */
}

static void sweep_links(struct spec_cluster *c, uint32_t node)
{
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    c->nodes[node].node->links_at = c->now;
    cluster_step(c, node, &timer);
}

static void say_pong(struct spec_cluster *c, uint64_t conn, uint64_t id)
{
    const struct mp_node_event pong = {.kind = MP_NODE_FRAME,
                                       .frame = {.client = conn, .type = MP_FRAME_PONG, .id = id}};
    cluster_step(c, cluster_conn(c, conn)->node[1], &pong);
}

static void idle_links_are_closed_beyond_a_number_if_the_other_end_agrees(void **state)
{
    (void)state;
    uint64_t first;
    struct spec_cluster *c = cluster_new(2);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    strangers_are_let_in(c, 0, 200, &first);
    struct mp_node *n = c->nodes[0].node;
    uint32_t pings = c->frames[MP_FRAME_PING];
    sweep_links(c, 0);
    uint32_t asked = c->frames[MP_FRAME_PING] - pings;
    assert_in_range(asked, 200 - MP_LINKS_IDLE_MAX, 200);
    assert_int_equal(mp_node_link_count(n), 200);
    for (uint32_t i = 0; i < 200; i++) /* half of them agree; the rest were maybe not asked */
        say_pong(c, first + i, i % 2 == 0 ? MP_NODE_HANG_UP_ID : MP_NODE_STAY_ID);
    assert_in_range(mp_node_link_count(n), 100, 200 - asked / 2 + MP_LINKS_IDLE_MAX);
    uint32_t count = mp_node_link_count(n);
    say_pong(c, first + 1, MP_NODE_HANG_UP_ID); /* it was not asked again */
    assert_int_equal(mp_node_link_count(n), count);
    c->now += MP_SECONDS(15);
    sweep_links(c, 0);
    for (uint32_t i = 0; i < 200; i++)
        if (mp_node_is_peer(n, first + i))
            say_pong(c, first + i, MP_NODE_HANG_UP_ID);
    assert_in_range(mp_node_link_count(n), 0, MP_LINKS_IDLE_MAX);
    cluster_free(c);
}

/* b wants to close its link to a, and a calls b: before, meanwhile, or after. */
static void a_call_that_crosses_the_end_of_its_link_is_not_lost(void **state)
{
    (void)state;
    uint32_t closed = 0;
    for (int32_t after = -500; after <= 500; after += 20) { /* us */
        uint64_t client;
        uint64_t first;
        struct spec_cluster *c = cluster_begin(2, 2, &client);
        strangers_are_let_in(c, 1, 40, &first);
        c->nodes[1].node->links[0].used_at = 0; /* the longest idle */
        uint32_t begun = c->nodes[1].begins[SPEC_ECHO];
        if (after >= 0)
            sweep_links(c, 1);
        cluster_run(c, after >= 0 ? MP_US((uint32_t)after) : 0);
        cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo"});
        cluster_run(c, after < 0 ? MP_US((uint32_t)-after) : 0);
        if (after < 0)
            sweep_links(c, 1);
        cluster_run(c, MP_MS(10));
        assert_result(c, client, 1);
        assert_int_equal(c->nodes[1].begins[SPEC_ECHO] - begun, 1);
        closed += cluster_link(c, 0, "b")->is_ours; /* a dialled anew */
        cluster_free(c);
    }
    assert_in_range(closed, 5, 50); /* of 51; both happened */
}

/* A call takes long, and nobody says anything meanwhile. */
static void a_link_that_somebody_waits_for_is_not_closed(void **state)
{
    (void)state;
    uint64_t client;
    uint64_t first;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow"});
    cluster_run(c, MP_MS(1));
    strangers_are_let_in(c, 1, 40, &first);
    c->nodes[1].node->links[0].used_at = 0;
    sweep_links(c, 1);
    cluster_run(c, MP_MS(10));
    assert_non_null(cluster_link(c, 0, "b"));
    assert_true(cluster_finish(c, 1, SPEC_SLOW));
    cluster_run(c, MP_MS(1));
    assert_result(c, client, 1);
    cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_nodes_are_one_cluster),
        cmocka_unit_test(one_link_stays_when_two_dial_each_other),
        cmocka_unit_test(nodes_of_another_cluster_are_refused),
        cmocka_unit_test(a_seed_that_is_the_node_itself_is_told_once),
        cmocka_unit_test(seeds_are_tried_again_with_growing_pauses),
        cmocka_unit_test(a_name_in_use_stops_the_newcomer),
        cmocka_unit_test(a_namesake_that_joins_the_other_is_stopped),
        cmocka_unit_test(what_is_no_hello_is_refused),
        cmocka_unit_test(a_node_that_hangs_up_is_not_dialled_in_a_loop),
        cmocka_unit_test(an_address_may_have_changed_hands),
        cmocka_unit_test(who_drains_says_goodbye),
        cmocka_unit_test(idle_links_are_closed_beyond_a_number_if_the_other_end_agrees),
        cmocka_unit_test(a_call_that_crosses_the_end_of_its_link_is_not_lost),
        cmocka_unit_test(a_link_that_somebody_waits_for_is_not_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
