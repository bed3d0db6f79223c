/* From what a caller wishes to who can do it. The wish (function, version, node, resources) is
 * written as a key: under it the router keeps the candidates, and a call keeps it, so that each
 * attempt can look again. A key is the deployed module that is meant (4 bytes), then lengths and
 * texts behind each other; nothing in it is trusted to be a name, so a strange function cannot pass
 * for another wish. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"

static uint8_t *put_text(uint8_t *at, struct mp_slice text)
{
    mp_assert(text.size <= UINT16_MAX);
    *at++ = (uint8_t)text.size;
    *at++ = (uint8_t)(text.size >> 8);
    if (text.size != 0)
        memcpy(at, text.data, text.size);
    return at + text.size;
}

static struct mp_slice take_text(struct mp_slice *key)
{
    mp_assert(key->size >= 2);
    size_t size = (size_t)(key->data[0] | key->data[1] << 8);
    mp_assert(key->size >= 2 + size);
    struct mp_slice text = mp_slice_of(key->data + 2, size);
    *key = mp_slice_of(key->data + 2 + size, key->size - 2 - size);
    return text;
}

struct mp_slice mp_node_key(struct mp_node *n, const struct mp_catalog_query *q)
{
    struct mp_buf *b = &n->key;
    size_t size = 4 + 6 + q->fun.size + q->version.size + q->on.size;
    for (uint32_t i = 0; i < q->needs_count; i++)
        size += 2 + q->needs[i].size;
    mp_buf_clear(b);
    if (mp_buf_reserve(b, size) != MP_OK) {
        n->is_out_of_memory = true;
        return (struct mp_slice){0};
    }
    for (int i = 0; i < 4; i++)
        b->data[i] = (uint8_t)(q->pin >> (8 * i));
    uint8_t *at = put_text(put_text(put_text(b->data + 4, q->fun), q->version), q->on);
    for (uint32_t i = 0; i < q->needs_count; i++)
        at = put_text(at, q->needs[i]);
    b->size = size;
    return mp_buf_slice(b);
}

void mp_node_key_read(struct mp_slice key, struct mp_catalog_query *q, struct mp_slice *needs)
{
    *q = (struct mp_catalog_query){.needs = needs};
    mp_assert(key.size >= 4);
    for (int i = 0; i < 4; i++)
        q->pin |= (uint32_t)key.data[i] << (8 * i);
    key = mp_slice_of(key.data + 4, key.size - 4);
    q->fun = take_text(&key);
    q->version = take_text(&key);
    q->on = take_text(&key);
    while (key.size != 0) {
        mp_assert(q->needs_count < MP_NEEDS_MAX);
        needs[q->needs_count++] = take_text(&key);
    }
}

/* The two structures are the same pair of numbers; the machines do not know each other. */
static_assert(sizeof(struct mp_router_provider) == sizeof(struct mp_catalog_provider) &&
                  offsetof(struct mp_router_provider, node) ==
                      offsetof(struct mp_catalog_provider, node) &&
                  offsetof(struct mp_router_provider, function) ==
                      offsetof(struct mp_catalog_provider, function),
              "a provider is a provider");

static uint32_t work_out(struct mp_node *n, struct mp_slice key)
{
    struct mp_slice needs[MP_NEEDS_MAX];
    struct mp_catalog_query q;
    struct mp_router_effects out;
    mp_node_key_read(key, &q, needs);
    mp_buf_clear(&n->providers);
    enum mp_err err = mp_catalog_find(&n->catalog, &q, &n->providers);
    if (err == MP_OK || err == MP_ENOENT) {
        struct mp_router_event ev = {.kind = MP_ROUTER_ROUTE, .route = {.key = key}};
        if (err == MP_OK) {
            ev.route.providers = (const struct mp_router_provider *)(const void *)n->providers.data;
            ev.route.count = (uint32_t)(n->providers.size / sizeof(struct mp_catalog_provider));
            ev.route.concurrency = n->catalog.functions[ev.route.providers[0].function].concurrency;
        }
        err = mp_router_step(n->router, n->now, &ev, &out);
    }
    if (err == MP_OK)
        return out.route;
    n->is_out_of_memory = true;
    return MP_ROUTER_NONE;
}

uint32_t mp_node_route(struct mp_node *n, struct mp_slice key)
{
    if (key.size == 0)
        return MP_ROUTER_NONE;
    uint32_t route = mp_router_find(n->router, key);
    return route != MP_ROUTER_NONE ? route : work_out(n, key);
}

const struct mp_catalog_function *mp_node_find(struct mp_node *n, struct mp_slice key)
{
    uint32_t count = 0;
    uint32_t route = mp_node_route(n, key);
    n->route_found = route;
    if (route == MP_ROUTER_NONE)
        return NULL;
    const struct mp_router_provider *first = mp_router_candidates(n->router, route, &count);
    return count != 0 ? &n->catalog.functions[first->function] : NULL;
}

struct mp_slice mp_node_member_name(const struct mp_node *n, uint32_t member)
{
    struct mp_member_info info;
    if (member == MP_MEMBER_SELF)
        return n->catalog.node;
    return mp_membership_get(n->membership, member, &info) ? info.name : mp_slice_str("?");
}

struct mp_slice mp_node_explain(struct mp_node *n, const struct mp_catalog_query *q)
{
    char message_bytes[1024];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    mp_catalog_explain(&n->catalog, n->now, q, &fault, &message, &hint);
    fault.node = n->catalog.node;
    return mp_node_error(n, &fault);
}
