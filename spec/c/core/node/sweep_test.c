/* Memory runs out at each single point of a life with another node: joining, calls there and back,
 * a run whose value is held elsewhere, a lost link. Every request is still answered once, nothing
 * breaks, and all memory comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"
#include "spec/support/tiny_json.h"

#define REQUESTS 8

static void run(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    (void)tiny_read(
        "{\"output\":{\"$ref\":\"s\"},\"steps\":["
        "{\"name\":\"x\",\"call\":\"m.big\"},{\"name\":\"y\",\"call\":\"n.big\"},"
        "{\"name\":\"s\",\"call\":\"m.size\",\"args\":[{\"$ref\":\"x\"},{\"$ref\":\"y.data\"}]},"
        "{\"name\":\"t\",\"call\":\"n.size\",\"args\":[{\"$ref\":\"x\"},{\"$ref\":\"y.n\"}]}]}",
        &b);
    cluster_request(c, client, MP_NODE_RUN, id, mp_slice_of("\x91\x81\xa5trace\xc3", 8),
                    mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void finish_all(struct spec_cluster *c)
{
    for (uint32_t i = 0; i < 2; i++)
        while (cluster_finish(c, i, SPEC_SLOW) || cluster_finish(c, i, SPEC_IDEM))
            cluster_run(c, MP_MS(1));
}

/* The allocation `fail_at` of `node` fails, and the `count` after it. Returns how many there were.
 */
static size_t live(uint32_t node, size_t fail_at, size_t count, uint32_t *successes)
{
    struct spec_cluster *c = cluster_new(11);
    uint64_t clients[2];
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_boot(c, 1, &(struct spec_boot){.name = "b"});
    cluster_add_module(c, 0, "n");
    cluster_add_module(c, 1, "m");
    struct spec_alloc *counted = &c->nodes[node].counted;
    size_t before = counted->count;
    counted->fail_at = fail_at == SPEC_NEVER ? SPEC_NEVER : before + fail_at;
    c->fail_until[node] = fail_at == SPEC_NEVER ? 0 : before + fail_at + count;
    cluster_seed(c, 1, 0, cluster_address(0));
    cluster_run(c, MP_SECONDS(3));
    for (uint32_t i = 0; i < 2; i++) {
        clients[i] = cluster_client(c, i);
        const char *there = i == 0 ? "m.echo" : "n.echo";
        const char *slow = i == 0 ? "m.slow" : "n.slow";
        const char *idem = i == 0 ? "m.idem" : "n.idem";
        cluster_call(c, clients[i], 1, &(struct spec_call){.fun = there, .payload_bytes = 70000});
        cluster_call(c, clients[i], 2, &(struct spec_call){.fun = slow, .timeout_ms = 500});
        cluster_call(c, clients[i], 3, &(struct spec_call){.fun = idem});
        cluster_call(c, clients[i], 4, &(struct spec_call){.fun = slow, .retries = 1});
        run(c, clients[i], 5);
        cluster_call(c, clients[i], 6, &(struct spec_call){.fun = "m.echo"});
        cluster_call(c, clients[i], 7, &(struct spec_call){.fun = slow});
    }
    cluster_run(c, MP_MS(10));
    cluster_cancel(c, clients[0], 7);
    for (uint32_t i = 1; i <= c->conn_count; i++)
        if (c->conns[i].node[0] < 2)
            cluster_break(c, 1ull << 32 | i);
    run(c, clients[0], 8);
    run(c, clients[1], 8);
    cluster_run(c, MP_SECONDS(1));
    for (uint32_t k = 0; k < 40; k++) {
        finish_all(c);
        cluster_run(c, MP_SECONDS(2));
    }
    for (uint32_t i = 0; i < 2; i++)
        for (uint64_t id = 1; id <= REQUESTS; id++) {
            const struct spec_reply *r = cluster_answer(c, clients[i], id);
            if (!r)
                fail_msg("allocation %zu of node %u: request %u of client %u has no answer",
                         fail_at, node, (uint32_t)id, i);
            *successes += r->frame == MP_FRAME_RESULT;
        }
    for (uint32_t i = 0; i < 2; i++) {
        struct mp_node *n = c->nodes[i].node;
        if (mp_node_outstanding(n) != 0 || mp_node_numbers_in_use(n) != 0 ||
            c->nodes[i].blocks_used > mp_node_held_count(n))
            fail_msg("allocation %zu of node %u: node %u has %u outstanding, %u numbers, %u blocks",
                     fail_at, node, i, mp_node_outstanding(n), mp_node_numbers_in_use(n),
                     c->nodes[i].blocks_used);
    }
    size_t taken = counted->count - before;
    counted->fail_at = SPEC_NEVER;
    cluster_free(c);
    return taken;
}

static void every_request_is_answered(uint32_t node, size_t count)
{
    uint32_t successes = 0;
    size_t all = live(node, SPEC_NEVER, 0, &successes);
    assert_true(successes >= 8);
    successes = 0;
    size_t step = getenv("SPEC_ALL") ? 1 : 1 + all / 400;
    for (size_t i = 0; i < all; i += step)
        (void)live(node, i, count, &successes);
    assert_true(successes > all / step);
}

static void one_fails(void **state)
{
    (void)state;
    every_request_is_answered(0, 1);
    every_request_is_answered(1, 1);
}

static void many_fail(void **state)
{
    (void)state;
    every_request_is_answered(0, 40);
    every_request_is_answered(1, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_fails),
        cmocka_unit_test(many_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
