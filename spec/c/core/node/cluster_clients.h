/* What clients of the cluster harness say and hear, and what there is to see of a node. The harness
 * includes it. */
#pragma once

#include "spec/c/core/node/cluster_harness.h"

static inline uint64_t cluster_client(struct spec_cluster *c, uint32_t node)
{
    return cluster_connect(c, SPEC_NODES_MAX, node);
}

static inline void cluster_request(struct spec_cluster *c, uint64_t client,
                                   enum mp_node_event_kind kind, uint64_t id, struct mp_slice meta,
                                   struct mp_slice payload)
{
    uint32_t node = cluster_conn(c, client)->node[1];
    const struct mp_node_event ev = {.kind = kind,
                                     .request = {.client = client,
                                                 .id = id,
                                                 .meta = meta,
                                                 .payload = cluster_payload(c, node, payload),
                                                 .wall_ms = cluster_wall(c)}};
    cluster_step(c, node, &ev);
}

struct spec_call {
    const char *fun;
    const char *on;
    uint64_t timeout_ms;
    uint32_t retries;
    uint32_t payload_bytes; /* of one binary argument; 0: [1] */
    bool is_waiting;
};

static inline void cluster_call(struct spec_cluster *c, uint64_t client, uint64_t id,
                                const struct spec_call *call)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf meta;
    struct mp_buf args;
    mp_buf_init(&meta, &alloc, 0);
    mp_buf_init(&args, &alloc, 0);
    const struct mp_call_options o = {.fun = mp_slice_str(call->fun),
                                      .on = mp_slice_str(call->on ? call->on : ""),
                                      .timeout_ms = call->timeout_ms,
                                      .retries = call->retries,
                                      .is_waiting = call->is_waiting};
    MUST(mp_call_options_put(&meta, &o) == MP_OK && mp_mp_put_array(&args, 1) == MP_OK);
    uint8_t *bytes = (uint8_t *)calloc(1, call->payload_bytes + 1u);
    if (call->payload_bytes != 0)
        MUST(mp_mp_put_bin(&args, mp_slice_of(bytes, call->payload_bytes)) == MP_OK);
    else
        MUST(mp_mp_put_uint(&args, 1) == MP_OK);
    free(bytes);
    cluster_request(c, client, MP_NODE_CALL, id, mp_buf_slice(&meta), mp_buf_slice(&args));
    mp_buf_fini(&meta);
    mp_buf_fini(&args);
}

static inline void cluster_cancel(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    const struct mp_slice none = {0};
    cluster_request(c, client, MP_NODE_CANCEL, id, none, none);
}

/* The one answer to a request; NULL: none yet. Two are a broken promise. */
static inline const struct spec_reply *cluster_answer(struct spec_cluster *c, uint64_t client,
                                                      uint64_t id)
{
    const struct spec_reply *found = NULL;
    for (uint32_t i = 0; i < c->reply_count; i++) {
        const struct spec_reply *r = &c->replies[i];
        bool is_last = r->frame != MP_FRAME_EVENT && r->frame != MP_FRAME_MESSAGES;
        if (r->client != client || r->id != id || !is_last)
            continue;
        if (found)
            cluster_error(c, "a request was answered twice");
        found = r;
    }
    return found;
}

static inline struct mp_slice cluster_bytes(const struct spec_reply *r)
{
    return mp_slice_of(r->data, r->size);
}

/* `count` nodes a, b, …; those whose bit is set have the module; and a client of a. */
static inline struct spec_cluster *cluster_begin(uint32_t count, uint32_t with_module,
                                                 uint64_t *client)
{
    struct spec_cluster *c = cluster_new(7);
    cluster_boot_all(c, count, with_module);
    *client = cluster_client(c, 0);
    return c;
}

/* The link of a node to another one by name, which must be up; NULL: there is none. */
static inline const struct mp_node_link *cluster_link(const struct spec_cluster *c, uint32_t node,
                                                      const char *name)
{
    const struct mp_node *n = c->nodes[node].node;
    uint32_t member = mp_membership_find(n->membership, mp_slice_str(name));
    for (uint32_t i = 0; i < n->link_used; i++)
        if (member != MP_MEMBER_NONE && n->links[i].state == MP_NODE_LINK_UP &&
            n->links[i].member == member)
            return &n->links[i];
    return NULL;
}

/* Nothing is under way, and nothing is kept that should not be. */
static inline bool cluster_is_quiet(struct spec_cluster *c)
{
    bool is_quiet = true;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct spec_node *n = &c->nodes[i];
        if (!n->node)
            continue;
        if (n->blocks_used != 0 || mp_node_outstanding(n->node) != 0 ||
            mp_node_numbers_in_use(n->node) != 0 || mp_node_held_count(n->node) != 0 ||
            n->node->out_count != 0) {
            fprintf(stderr, "node %s: %u blocks, %u outstanding, %u numbers, %u held, %u outs\n",
                    n->name, n->blocks_used, mp_node_outstanding(n->node),
                    mp_node_numbers_in_use(n->node), mp_node_held_count(n->node),
                    n->node->out_count);
            is_quiet = false;
        }
    }
    return is_quiet;
}
