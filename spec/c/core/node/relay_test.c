/* Nodes that reach each other only through others: calls, answers, cancels, held results and
 * queries pass through helpers, never in circles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"
#include "spec/support/tiny_json.h"

static void cut(struct spec_cluster *c, uint32_t one, uint32_t other, bool is_cut)
{
    c->is_cut[one][other] = c->is_cut[other][one] = is_cut;
}

/* A line of nodes in which each reaches only its neighbours. */
static struct spec_cluster *begin(uint32_t count, uint32_t with_module, uint64_t *client)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    struct spec_cluster *c = cluster_new(5);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k + 1 < i; k++)
            cut(c, i, k, true);
    for (uint32_t i = 0; i < count; i++) {
        cluster_boot(c, i, &(struct spec_boot){.name = names[i]});
        if ((with_module >> i & 1) != 0)
            cluster_add_module(c, i, "m");
        if (i != 0)
            cluster_seed(c, i, 0, cluster_address(i - 1));
    }
    cluster_run(c, MP_SECONDS(15));
    *client = cluster_client(c, 0);
    return c;
}

/* On which connection between two nodes the last request went. */
static void break_between(struct spec_cluster *c, uint32_t one, uint32_t other)
{
    for (uint32_t i = 1; i <= c->conn_count; i++) {
        struct spec_conn *k = &c->conns[i];
        if ((k->node[0] == one && k->node[1] == other) ||
            (k->node[0] == other && k->node[1] == one))
            cluster_break(c, 1ull << 32 | i);
    }
}

static void a_call_passes_through_the_middle(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(3, 4, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo", .payload_bytes = 100000});
    cluster_call(c, client, 2, &(struct spec_call){.fun = "m.fail"});
    cluster_run(c, MP_MS(20));
    assert_result(c, client, 1);
    assert_true(cluster_answer(c, client, 1)->size > 100000);
    assert_reason(c, client, 2, "ERROR");
    assert_true(c->frames[MP_FRAME_FORWARD] >= 2);
    cluster_end(c);
}

static bool is_via(const struct spec_cluster *c, uint32_t node, const char *whom,
                   const char *helper)
{
    const struct mp_membership *m = mp_node_membership(c->nodes[node].node);
    struct mp_member_info info;
    return mp_membership_get(m, mp_membership_find(m, mp_slice_str(whom)), &info) &&
           info.state == MP_MEMBER_ALIVE && info.via != MP_MEMBER_NONE &&
           info.via == mp_membership_find(m, mp_slice_str(helper));
}

/* a knows d through b, which has just lost it and knows it through c. */
static void a_call_passes_two_helpers(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(4, 8, &client);
    cut(c, 1, 3, false);
    for (uint32_t i = 0; i < 1000 && !is_via(c, 0, "d", "b"); i++)
        cluster_run(c, MP_MS(100));
    cut(c, 1, 3, true);
    break_between(c, 1, 3);
    for (uint32_t i = 0; i < 1000 && !is_via(c, 1, "d", "c"); i++)
        cluster_run(c, MP_MS(5));
    assert_true(is_via(c, 0, "d", "b"));
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo", .on = "d"});
    uint32_t forwards = c->frames[MP_FRAME_FORWARD];
    cluster_run(c, MP_MS(20));
    assert_result(c, client, 1);
    assert_true(c->frames[MP_FRAME_FORWARD] > forwards);
    cluster_end(c);
}

static void a_cancel_takes_the_same_way(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(3, 4, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow"});
    cluster_run(c, MP_MS(10));
    assert_non_null(cluster_task_of(c, 2, SPEC_SLOW));
    assert_int_equal(mp_node_outstanding(c->nodes[1].node), 1);
    cluster_cancel(c, client, 1);
    cluster_run(c, MP_MS(10));
    assert_reason(c, client, 1, "CANCELLED");
    assert_null(cluster_task_of(c, 2, SPEC_SLOW));
    cluster_end(c);
}

static void a_helper_may_lose_either_link(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t client;
        struct spec_cluster *c = begin(3, 4, &client);
        cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow"});
        cluster_call(c, client, 2, &(struct spec_call){.fun = "m.idem"});
        cluster_run(c, MP_MS(10));
        break_between(c, i, i + 1);
        cluster_run(c, MP_MS(50));
        assert_reason(c, client, 1, "NODE_LOST");
        /* What may run again does: once more, over a new link. */
        assert_null(cluster_answer(c, client, 2));
        assert_int_equal(c->nodes[2].begins[SPEC_IDEM], 2);
        while (cluster_finish(c, 2, SPEC_IDEM))
            cluster_run(c, MP_MS(10));
        assert_result(c, client, 2);
        cluster_end(c);
    }
}

/* A request that has passed enough nodes, or that comes back, is refused at once. */
static void nothing_goes_in_circles(void **state)
{
    (void)state;
    static const char *const lists[] = {"[\"a\",\"c\"]", "[\"a\",\"b\"]", "[\"x\",\"y\",\"z\"]",
                                        "[]"};
    uint64_t client;
    struct spec_cluster *c = begin(3, 4, &client);
    cluster_kill(c, 2); /* b still believes in it: it has no link, and waits for one */
    for (uint32_t i = 0; i < 4; i++) {
        struct spec_alloc counted = {.fail_at = SPEC_NEVER};
        struct mp_alloc alloc = spec_alloc_of(&counted);
        struct mp_buf b;
        mp_buf_init(&b, &alloc, 0);
        MUST(mp_mp_put_array(&b, 4) == MP_OK &&
             mp_mp_put_text(&b, i == 3 ? "nobody" : "c") == MP_OK);
        (void)tiny_read(lists[i], &b);
        MUST(mp_mp_put_uint(&b, i == 2 ? MP_FRAME_HELLO : MP_FRAME_CALL) == MP_OK &&
             mp_mp_put_bin(&b, mp_slice_str("meta")) == MP_OK);
        const struct mp_node_link *l = cluster_link(c, 1, "a");
        assert_non_null(l);
        const struct mp_node_event ev = {.kind = MP_NODE_FRAME,
                                         .frame = {.client = l->client,
                                                   .type = MP_FRAME_FORWARD,
                                                   .id = 1000 + i,
                                                   .meta = mp_buf_slice(&b)}};
        uint32_t errors = c->frames[MP_FRAME_ERROR];
        cluster_step(c, 1, &ev);
        cluster_run(c, MP_MS(50));
        assert_int_equal(c->frames[MP_FRAME_ERROR], errors + 1);
        mp_buf_fini(&b);
    }
    cluster_end(c);
}

static void held_results_are_released_through_helpers(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(3, 6, &client);
    uint64_t at_b = cluster_client(c, 1);
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    /* A run of b, with the same number, holds something on c. */
    (void)tiny_read("{\"output\":{\"$ref\":\"s\"},\"steps\":["
                    "{\"name\":\"x\",\"call\":\"m.big\",\"on\":\"c\"},"
                    "{\"name\":\"w\",\"call\":\"m.slow\",\"on\":\"b\"},"
                    "{\"name\":\"s\",\"call\":\"m.size\",\"on\":\"c\",\"after\":[\"w\"],"
                    "\"args\":[{\"$ref\":\"x\"}]}]}",
                    &b);
    cluster_request(c, at_b, MP_NODE_RUN, 1, mp_slice_of("\x91\x80", 2), mp_buf_slice(&b));
    mp_buf_clear(&b);
    (void)tiny_read(
        "{\"output\":{\"$ref\":\"s\"},\"steps\":["
        "{\"name\":\"x\",\"call\":\"m.big\",\"on\":\"c\"},"
        "{\"name\":\"s\",\"call\":\"m.size\",\"on\":\"c\",\"args\":[{\"$ref\":\"x\"}]}]}",
        &b);
    cluster_request(c, client, MP_NODE_RUN, 1, mp_slice_of("\x91\x80", 2), mp_buf_slice(&b));
    mp_buf_fini(&b);
    cluster_run(c, MP_MS(50));
    assert_result(c, client, 1);
    assert_int_equal(mp_node_held_count(c->nodes[2].node), 1); /* that of b alone */
    assert_true(cluster_finish(c, 1, SPEC_SLOW));
    cluster_run(c, MP_MS(50));
    assert_result(c, at_b, 1);
    const struct spec_reply *r = cluster_answer(c, at_b, 1);
    struct mp_slice value;
    struct mp_slice status;
    assert_int_equal(mp_mp_map_get(cluster_bytes(r), mp_slice_str("status"), &value), MP_OK);
    assert_int_equal(mp_mp_get_str(value, &status), MP_OK);
    assert_true(mp_slice_is(status, "succeeded"));
    cluster_end(c);
}

static void query(struct spec_cluster *c, uint64_t client, uint64_t id, const char *meta)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    (void)tiny_read(meta, &b);
    cluster_request(c, client, MP_NODE_QUERY, id, mp_buf_slice(&b), (struct mp_slice){0});
    mp_buf_fini(&b);
}

static void queries_are_answered_here_and_elsewhere(void **state)
{
    (void)state;
    static const char *const whats[] = {"nodes", "status", "links", "functions", "modules"};
    uint64_t client;
    struct spec_cluster *c = begin(3, 4, &client);
    uint64_t id = 0;
    for (uint32_t on = 0; on < 3; on++)
        for (uint32_t i = 0; i < 5; i++) {
            char meta[100];
            snprintf(meta, sizeof(meta), "[\"%s\",{\"on\":\"%c\"}]", whats[i], 'a' + (int)on);
            query(c, client, ++id, meta);
            cluster_run(c, MP_MS(20));
            assert_result(c, client, id);
            assert_int_equal(mp_mp_check(cluster_bytes(cluster_answer(c, client, id))), MP_OK);
        }
    query(c, client, ++id, "[\"nodes\",{\"on\":\"nobody\"}]");
    assert_int_equal(cluster_answer(c, client, id)->frame, MP_FRAME_ERROR);
    query(c, client, ++id, "[\"unheard\"]");
    assert_reason(c, client, id, "UNKNOWN_QUERY");
    query(c, client, ++id, "[7]");
    assert_reason(c, client, id, "BAD_REQUEST");
    query(c, client, ++id, "[\"forget\",{\"name\":\"b\"}]");
    assert_reason(c, client, id, "NODE_ALIVE");
    query(c, client, ++id, "[\"forget\",{\"name\":\"nobody\"}]");
    assert_reason(c, client, id, "UNKNOWN_NODE");
    cluster_kill(c, 2);
    cluster_run(c, MP_SECONDS(20));
    query(c, client, ++id, "[\"forget\",{\"name\":\"c\"}]");
    cluster_run(c, MP_MS(20));
    assert_result(c, client, id);
    assert_int_equal(mp_membership_find(mp_node_membership(c->nodes[0].node), mp_slice_str("c")),
                     MP_MEMBER_NONE);
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_passes_through_the_middle),
        cmocka_unit_test(a_call_passes_two_helpers),
        cmocka_unit_test(a_cancel_takes_the_same_way),
        cmocka_unit_test(a_helper_may_lose_either_link),
        cmocka_unit_test(nothing_goes_in_circles),
        cmocka_unit_test(held_results_are_released_through_helpers),
        cmocka_unit_test(queries_are_answered_here_and_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
