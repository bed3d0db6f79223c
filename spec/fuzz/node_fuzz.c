/* Two nodes with a link between them, and strangers at connections of their own. The input is a
 * list of things that happen: frames with any bytes on any connection (also as if one node had sent
 * them to the other), datagrams, clients, connections that end, pressure, time. Whatever it is, no
 * promise of node.h is broken: handles come back, nothing is left under way, no memory is kept. */
#include <stdint.h>
#include <stdlib.h>

#include "spec/c/core/node/cluster_harness.h"

#define THINGS_MAX 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t byte_of(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

static struct mp_slice bytes_of(struct input *in)
{
    size_t size = byte_of(in);
    if (size == 255)
        size = byte_of(in) * 16u;
    size = size < in->left ? size : in->left;
    const struct mp_slice bytes = mp_slice_of(in->at, size);
    in->at += size;
    in->left -= size;
    return bytes;
}

/* A connection that `node` has not heard the end of; 0: none. */
static uint64_t client_of(struct spec_cluster *c, struct input *in, uint32_t *node)
{
    uint32_t place = 1 + byte_of(in) % (c->conn_count + 1);
    if (place > c->conn_count)
        return 0;
    const struct spec_conn *k = &c->conns[place];
    uint32_t end =
        k->node[0] < SPEC_NODES_MAX && (k->node[1] >= SPEC_NODES_MAX || in->left % 2) ? 0 : 1;
    *node = k->node[end];
    /* What was dialled is not there before its dialler knows it. */
    if (k->is_closing || k->is_gone[end] || (end == 0 && k->latest[0] > c->now))
        return 0;
    return 1ull << 32 | place;
}

/* Small numbers, or the numbers of what the node waits for. */
static uint64_t id_of(struct spec_cluster *c, struct input *in, uint32_t node)
{
    uint8_t id = byte_of(in);
    const struct mp_node *n = c->nodes[node].node;
    if (id < 128 || n->out_used == 0)
        return 1 + id;
    return n->outs[id % n->out_used].id;
}

/* A payload of that size, or as it stands. */
static void take(struct spec_cluster *c, uint32_t node, uint64_t client, uint8_t type, uint64_t id,
                 struct mp_slice meta, struct mp_slice payload)
{
    struct spec_happening *h = cluster_plan(c, 0, SPEC_FRAME, node, meta, payload);
    h->client = client;
    h->type = type;
    h->id = id;
    c->first = h->next; /* at time 0 it is the first one */
    cluster_take(c, h);
    free(h);
}

static void any_frame(struct spec_cluster *c, struct input *in)
{
    uint32_t node = 0;
    uint64_t client = client_of(c, in, &node);
    uint8_t type = byte_of(in) % (MP_FRAME_RUNS + 2);
    struct mp_slice meta;
    struct mp_slice payload;
    if (client == 0)
        return;
    uint64_t id = id_of(c, in, node);
    meta = bytes_of(in);
    payload = bytes_of(in);
    static uint8_t large[SPEC_BLOCK_FROM + 1];
    if (payload.size == 1 && payload.data[0] == 0xc1)
        payload = mp_slice_of(large, sizeof(large));
    take(c, node, client, type, id, meta, payload);
}

static void hello(struct spec_cluster *c, struct input *in)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    uint32_t node = 0;
    uint64_t client = client_of(c, in, &node);
    uint8_t who = byte_of(in);
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    const struct mp_peer_hello h = {.cluster = mp_slice_str("default"),
                                    .name = mp_slice_str(names[who % 4]),
                                    .generation = 1u + who / 4 % 3,
                                    .addr = cluster_address(who / 16),
                                    .version = mp_slice_str("1")};
    if (client == 0)
        return;
    mp_buf_init(&b, &alloc, 0);
    MUST(mp_peer_hello_put(&b, &h) == MP_OK);
    take(c, node, client, MP_FRAME_HELLO, 0, mp_buf_slice(&b), (struct mp_slice){0});
    mp_buf_fini(&b);
}

static void peer_call(struct spec_cluster *c, struct input *in)
{
    static const char *const funs[] = {"m.echo", "m.big", "m.slow", "m.idem", "n.echo", "no.f"};
    uint32_t node = 0;
    uint64_t client = client_of(c, in, &node);
    uint8_t what = byte_of(in);
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    const struct mp_peer_call call = {.fun = mp_slice_str(funs[what % 6]),
                                      .remaining_ns = MP_SECONDS(1),
                                      .attempt = 1,
                                      .flags = what / 6 % 8,
                                      .run = 1ull << 32,
                                      .coordinator = mp_slice_str(what & 128 ? "b" : "c")};
    if (client == 0)
        return;
    mp_buf_init(&b, &alloc, 0);
    MUST(mp_peer_call_put(&b, &call) == MP_OK);
    struct mp_buf f;
    mp_buf_init(&f, &alloc, 0);
    uint8_t type = MP_FRAME_CALL;
    if ((what & 64) != 0) {
        const struct mp_peer_forward forward = {.target = mp_slice_str(what & 128 ? "a" : "b"),
                                                .passed_count = 1,
                                                .passed = {mp_slice_str("c")},
                                                .type = type,
                                                .meta = mp_buf_slice(&b)};
        MUST(mp_peer_forward_put(&f, &forward) == MP_OK);
        type = MP_FRAME_FORWARD;
    }
    uint64_t id = id_of(c, in, node);
    take(c, node, client, type, id, mp_buf_slice((what & 64) != 0 ? &f : &b), bytes_of(in));
    mp_buf_fini(&b);
    mp_buf_fini(&f);
}

static void client_call(struct spec_cluster *c, struct input *in)
{
    static const char *const funs[] = {"n.echo", "n.big", "n.slow", "n.idem", "m.slow", "n.fail"};
    uint32_t node = byte_of(in) % 2;
    uint8_t what = byte_of(in);
    cluster_call(c, cluster_client(c, node), 1,
                 &(struct spec_call){.fun = funs[what % 6],
                                     .retries = what / 6 % 3,
                                     .timeout_ms = 100,
                                     .payload_bytes = (what & 128) != 0 ? 70000 : 0});
}

static void client_run(struct spec_cluster *c, struct input *in)
{
    /* {steps: [{name: x, call: n.big}, {name: s, call: X.size, args: [x]}], output: s} */
    static const char graph[] = "\x82\xa5steps\x92\x82\xa4name\xa1x\xa4"
                                "call\xa5n.big"
                                "\x83\xa4name\xa1s\xa4"
                                "call\xa6m.size\xa4"
                                "args\x91\x81\xa4$ref\xa1x"
                                "\xa6output\x81\xa4$ref\xa1s";
    char bytes[sizeof(graph)];
    memcpy(bytes, graph, sizeof(graph));
    uint8_t what = byte_of(in);
    char *module = strstr(bytes + 40, "m.size");
    if (module && (what & 1) != 0)
        *module = 'n';
    cluster_request(c, cluster_client(c, what / 2 % 2), MP_NODE_RUN, 1, mp_slice_of("\x91\x80", 2),
                    mp_slice_of(bytes, sizeof(bytes) - 1));
}

static void pressure(struct spec_cluster *c, struct input *in)
{
    uint32_t node = 0;
    uint64_t client = client_of(c, in, &node);
    const struct mp_node_event ev = {
        .kind = MP_NODE_PRESSURE, .pressure = {.client = client, .is_high = byte_of(in) % 2 != 0}};
    if (client != 0)
        cluster_step(c, node, &ev);
}

static void happens(struct spec_cluster *c, struct input *in)
{
    struct mp_node_event ev = {.kind = MP_NODE_DATAGRAM};
    uint32_t node = 0;
    uint64_t client;
    switch (byte_of(in) % 12) {
    case 0:
    case 1:
        any_frame(c, in);
        break;
    case 2:
        hello(c, in);
        break;
    case 3:
        peer_call(c, in);
        break;
    case 4:
        client_call(c, in);
        break;
    case 5:
        client_run(c, in);
        break;
    case 6:
        pressure(c, in);
        break;
    case 7:
        client = client_of(c, in, &node);
        if (client != 0)
            cluster_close(c, client);
        break;
    case 8:
        (void)cluster_client(c, byte_of(in) % 2);
        break;
    case 9:
        ev.datagram.from = cluster_address(byte_of(in) % 4);
        ev.datagram.bytes = bytes_of(in);
        cluster_step(c, ev.datagram.from.bytes[3] % 2, &ev);
        break;
    case 10:
        node = byte_of(in);
        cluster_finish(c, node % 2, (node & 2) != 0 ? SPEC_SLOW : SPEC_IDEM);
        break;
    default:
        cluster_run(c, MP_US(50) << byte_of(in) % 14);
        break;
    }
}

static void finish(struct spec_cluster *c)
{
    for (uint32_t i = 1; i <= c->conn_count; i++)
        if (!c->conns[i].is_closing)
            cluster_close(c, 1ull << 32 | i);
    c->is_open = false;
    for (uint32_t k = 0; k < 40; k++) {
        for (uint32_t node = 0; node < 2; node++)
            while (cluster_finish(c, node, SPEC_SLOW) || cluster_finish(c, node, SPEC_IDEM))
                cluster_run(c, MP_MS(1));
        cluster_run(c, MP_SECONDS(2));
    }
    for (uint32_t node = 0; node < 2; node++) {
        const struct spec_node *n = &c->nodes[node];
        MUST(mp_node_outstanding(n->node) == 0);
        MUST(mp_node_numbers_in_use(n->node) == 0);
        MUST(n->blocks_used <= mp_node_held_count(n->node));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.at = data, .left = size};
    struct spec_cluster *c = cluster_new(1);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_boot(c, 1, &(struct spec_boot){.name = "b"});
    cluster_add_module(c, 0, "m");
    cluster_add_module(c, 1, "n");
    cluster_seed(c, 1, 0, cluster_address(0));
    cluster_run(c, MP_MS(200));
    c->is_open = true;
    c->takes_anything = true;
    for (uint32_t i = 0; i < THINGS_MAX && in.left != 0; i++)
        happens(c, &in);
    finish(c);
    cluster_free(c);
    return 0;
}
