/* The cost of one call to another node inside core/node: CALL at the first node, its frame at the
 * second, COMPLETED there, the answer's frame at the first. The two are joined by hand, and frames
 * are handed over as they are: no sockets, no rings. Prints nanoseconds a call for both nodes
 * together, of the quickest of many blocks, and the bytes that a call puts on the link. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/c/bench.h"
#include "src/wire/frame.h"

#define CALLS_A_BLOCK   4096u
#define BLOCKS          200u
#define OUTSTANDING_MAX 1024u
#define CLIENT          ((1ull << 32) | 7)
#define LINK            ((1ull << 32) | 3) /* how each numbers its end of the link */

static struct mp_node *nodes[2];
static mp_time now = MP_SECONDS(1);
static uint64_t link_bytes;

/* What one node wants sent, copied: it is good until the node's next step only. */
struct message {
    struct message *next;
    uint32_t to;
    enum mp_node_effect_kind kind;
    uint8_t type;
    uint64_t id;
    struct mp_address from;
    size_t meta_size;
    size_t payload_size;
    uint8_t bytes[];
};

static struct message *first;
static struct message **last = &first;

static void keep(uint32_t to, const struct mp_node_effect *e, const struct mp_address *from)
{
    struct message *m = malloc(sizeof(*m) + e->context.size + e->payload.bytes.size);
    *m = (struct message){.to = to,
                          .kind = e->kind,
                          .type = e->frame,
                          .id = e->id,
                          .from = *from,
                          .meta_size = e->context.size,
                          .payload_size = e->payload.bytes.size};
    if (e->context.size != 0)
        memcpy(m->bytes, e->context.data, e->context.size);
    if (e->payload.bytes.size != 0)
        memcpy(m->bytes + m->meta_size, e->payload.bytes.data, e->payload.bytes.size);
    *last = m;
    last = &m->next;
}

static struct mp_address address_of(uint32_t node)
{
    return (struct mp_address){.size = 6, .bytes = {127, 0, 0, 1, 0, (uint8_t)(node + 1)}};
}

/* While the two get to know each other, everything they say is carried. */
static void step(uint32_t node, const struct mp_node_event *ev)
{
    struct mp_node_effects out;
    struct mp_address from = address_of(node);
    if (mp_node_step(nodes[node], now, ev, &out) != MP_OK)
        abort();
    for (uint32_t i = 0; i < out.count; i++) {
        enum mp_node_effect_kind kind = out.items[i].kind;
        if (kind == MP_NODE_DIAL || kind == MP_NODE_SEND_FRAME || kind == MP_NODE_SEND_DATAGRAM)
            keep(kind == MP_NODE_DIAL ? node : 1 - node, &out.items[i], &from);
    }
}

static void carry(const struct message *m)
{
    struct mp_slice meta = mp_slice_of(m->bytes, m->meta_size);
    struct mp_slice payload = mp_slice_of(m->bytes + m->meta_size, m->payload_size);
    struct mp_node_event ev = {0};
    if (m->kind == MP_NODE_DIAL) {
        ev.kind = MP_NODE_DIALED;
        ev.dialed.dial = m->id;
        ev.dialed.client = LINK;
    } else if (m->kind == MP_NODE_SEND_DATAGRAM) {
        ev.kind = MP_NODE_DATAGRAM;
        ev.datagram.from = m->from;
        ev.datagram.bytes = payload;
    } else {
        ev.kind = MP_NODE_FRAME;
        ev.frame.client = LINK;
        ev.frame.type = m->type;
        ev.frame.id = m->id;
        ev.frame.meta = meta;
        ev.frame.payload.bytes = payload;
    }
    step(m->to, &ev);
}

static void settle(void)
{
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    for (uint32_t i = 0; i < 300; i++, now += MP_MS(10)) {
        while (first) {
            struct message *m = first;
            first = m->next;
            if (!first)
                last = &first;
            carry(m);
            free(m);
        }
        step(0, &timer);
        step(1, &timer);
    }
}

static void join(void)
{
    static const uint8_t metadata[] = "\x82\xa7version\xa5"
                                      "1.0.0\xa9"
                                      "functions\x91\x81\xa4name\xa4"
                                      "echo";
    const struct mp_node_event module = {
        .kind = MP_NODE_MODULE,
        .module = {.name = mp_slice_str("far"),
                   .hash = mp_slice_str("0123456789abcdef0123456789abcdef"),
                   .metadata = mp_slice_of(metadata, sizeof(metadata) - 1)}};
    const struct mp_node_event ready = {.kind = MP_NODE_WORKER_READY};
    const struct mp_node_event seed = {.kind = MP_NODE_SEED, .seed = {.addr = address_of(1)}};
    nodes[0] = bench_node("n1", 1);
    nodes[1] = bench_node("n2", 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct mp_node_event start = {.kind = MP_NODE_START,
                                            .start = {.addr = address_of(i)}};
        step(i, &start);
        step(i, &ready);
    }
    step(1, &module);
    step(0, &seed);
    settle();
}

/* One step that must list exactly one effect, which is given. */
static const struct mp_node_effect *only(uint32_t node, const struct mp_node_event *ev,
                                         enum mp_node_effect_kind kind)
{
    struct mp_node_effects out;
    if (mp_node_step(nodes[node], now, ev, &out) != MP_OK || out.count != 1 ||
        out.items[0].kind != kind)
        abort();
    return &out.items[0];
}

/* Neither node is stepped between a frame's effect and its event at the other: nothing is copied.
 */
static void begin(uint64_t *sent, uint64_t request)
{
    static const uint8_t meta[] = "\x91\xa8"
                                  "far.echo";
    static const uint8_t args[] = "\x91\xd9\x20"
                                  "abcdefghijklmnopqrstuvwxyz012345";
    const struct mp_node_event call = {
        .kind = MP_NODE_CALL,
        .request = {.client = CLIENT,
                    .id = request,
                    .meta = mp_slice_of(meta, sizeof(meta) - 1),
                    .payload = {.bytes = mp_slice_of(args, sizeof(args) - 1)}}};
    const struct mp_node_effect *frame = only(0, &call, MP_NODE_SEND_FRAME);
    link_bytes += MP_FRAME_HEADER_BYTES + frame->context.size + frame->payload.bytes.size;
    const struct mp_node_event arrived = {
        .kind = MP_NODE_CALL,
        .request = {
            .client = LINK, .id = frame->id, .meta = frame->context, .payload = frame->payload}};
    *sent = only(1, &arrived, MP_NODE_SEND)->id;
}

static void finish(uint64_t sent)
{
    static const uint8_t result[] = "\xd9\x20"
                                    "abcdefghijklmnopqrstuvwxyz012345";
    const struct mp_node_event done = {
        .kind = MP_NODE_COMPLETED,
        .completed = {.call = sent,
                      .begun_at = now,
                      .ended_at = now,
                      .run = 200,
                      .payload = {.bytes = mp_slice_of(result, sizeof(result) - 1)}}};
    const struct mp_node_effect *frame = only(1, &done, MP_NODE_SEND_FRAME);
    link_bytes += MP_FRAME_HEADER_BYTES + frame->context.size + frame->payload.bytes.size;
    const struct mp_node_event answer = {.kind = MP_NODE_FRAME,
                                         .frame = {.client = LINK,
                                                   .type = frame->frame,
                                                   .id = frame->id,
                                                   .meta = frame->context,
                                                   .payload = frame->payload}};
    only(0, &answer, MP_NODE_REPLY);
}

static void measure(uint32_t outstanding)
{
    static uint64_t sent[OUTSTANDING_MAX];
    uint32_t rounds = CALLS_A_BLOCK / outstanding;
    double least = 1e9;
    link_bytes = 0;
    for (uint32_t block = 0; block < BLOCKS; block++) {
        double began = bench_seconds();
        for (uint32_t round = 0; round < rounds; round++) {
            for (uint32_t i = 0; i < outstanding; i++)
                begin(&sent[i], i + 1);
            for (uint32_t i = 0; i < outstanding; i++)
                finish(sent[i]);
        }
        double took = bench_seconds() - began;
        least = took < least ? took : least;
    }
    printf("%5u outstanding: %.0f ns a call, %.0f bytes on the link\n", outstanding,
           least * 1e9 / ((double)outstanding * rounds),
           (double)link_bytes / ((double)outstanding * rounds * BLOCKS));
}

int main(void)
{
    join();
    measure(1);
    measure(64);
    measure(OUTSTANDING_MAX);
    mp_node_free(nodes[0]);
    mp_node_free(nodes[1]);
    while (first) {
        struct message *m = first;
        first = m->next;
        free(m);
    }
    return 0;
}
