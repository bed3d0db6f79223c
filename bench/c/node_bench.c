/* The cost of one call inside core/node: a CALL event and the COMPLETED event that answers it, with
 * nothing around them. Prints nanoseconds a call with 1, 64 and 1,024 outstanding, of the quickest
 * of many blocks: the others were disturbed. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/c/bench.h"
#include "src/wire/msgpack.h"

#define CALLS_A_BLOCK 4096u

static struct mp_node *make_node(void)
{
    struct mp_node *n = bench_node("n1", 1);
    struct mp_node_effects out;
    static const uint8_t metadata[] = "\x82\xa7version\xa5"
                                      "1.0.0\xa9"
                                      "functions\x91\x82\xa4name\xa4"
                                      "echo\xaaidempotent\xc3";
    const struct mp_node_event start = {
        .kind = MP_NODE_START, .start = {.addr = {.size = 6, .bytes = {127, 0, 0, 1, 0, 1}}}};
    const struct mp_node_event module = {
        .kind = MP_NODE_MODULE,
        .module = {.name = mp_slice_str("mpreg"),
                   .metadata = mp_slice_of(metadata, sizeof(metadata) - 1)}};
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    const struct mp_node_event ready = {.kind = MP_NODE_WORKER_READY};
    if (mp_node_step(n, 1, &start, &out) != MP_OK || mp_node_step(n, 1, &module, &out) != MP_OK ||
        mp_node_step(n, 1, &timer, &out) != MP_OK || mp_node_step(n, 1, &ready, &out) != MP_OK)
        abort();
    return n;
}

static void round_of(struct mp_node *n, mp_time now, uint64_t *calls, uint32_t outstanding)
{
    static const uint8_t meta[] = "\x91\xaampreg.echo";
    static const uint8_t args[] = "\x91\xd9\x20"
                                  "abcdefghijklmnopqrstuvwxyz012345";
    struct mp_node_effects out;
    for (uint32_t i = 0; i < outstanding; i++) {
        const struct mp_node_event call = {
            .kind = MP_NODE_CALL,
            .request = {.client = 1ull << 32,
                        .id = i + 1,
                        .meta = mp_slice_of(meta, sizeof(meta) - 1),
                        .payload = {.bytes = mp_slice_of(args, sizeof(args) - 1)}}};
        if (mp_node_step(n, now, &call, &out) != MP_OK || out.count != 1 ||
            out.items[0].kind != MP_NODE_SEND)
            abort();
        calls[i] = out.items[0].id;
    }
    for (uint32_t i = 0; i < outstanding; i++) {
        const struct mp_node_event done = {
            .kind = MP_NODE_COMPLETED,
            .completed = {.call = calls[i],
                          .begun_at = now,
                          .ended_at = now,
                          .run = 200,
                          .payload = {.bytes = mp_slice_of(args + 1, sizeof(args) - 2)}}};
        if (mp_node_step(n, now, &done, &out) != MP_OK || out.count != 1)
            abort();
    }
}

static void measure(struct mp_node *n, uint32_t outstanding, uint32_t blocks)
{
    uint64_t *calls = calloc(outstanding, sizeof(*calls));
    uint32_t rounds = CALLS_A_BLOCK / outstanding;
    double least = 1e9;
    mp_time now = MP_SECONDS(1);
    for (uint32_t block = 0; block < blocks; block++) {
        double began = bench_seconds();
        for (uint32_t round = 0; round < rounds; round++, now += MP_US(10))
            round_of(n, now, calls, outstanding);
        double took = bench_seconds() - began;
        least = took < least ? took : least;
    }
    printf("%5u outstanding: %.0f ns a call\n", outstanding,
           least * 1e9 / ((double)outstanding * rounds));
    free(calls);
}

int main(void)
{
    struct mp_node *n = make_node();
    measure(n, 1, 300);
    measure(n, 64, 300);
    measure(n, 1024, 300);
    mp_node_free(n);
    return 0;
}
