/* What a node tells about itself: the documents behind the commands that list things. */
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

#define TRY(expression)                                                                            \
    do {                                                                                           \
        enum mp_err try_err = (expression);                                                        \
        if (try_err != MP_OK)                                                                      \
            return try_err;                                                                        \
    } while (0)

static enum mp_err put_text_pair(struct mp_buf *b, const char *key, struct mp_slice value)
{
    TRY(mp_mp_put_text(b, key));
    return mp_mp_put_str(b, value);
}

static enum mp_err put_uint_pair(struct mp_buf *b, const char *key, uint64_t value)
{
    TRY(mp_mp_put_text(b, key));
    return mp_mp_put_uint(b, value);
}

static enum mp_err put_nodes(struct mp_node *n, mp_time now, struct mp_buf *b)
{
    (void)now;
    TRY(mp_mp_put_map(b, 1));
    TRY(mp_mp_put_text(b, "nodes"));
    TRY(mp_mp_put_array(b, 1));
    TRY(mp_mp_put_map(b, 10));
    TRY(put_text_pair(b, "name", n->catalog.node));
    TRY(put_text_pair(b, "cluster", n->catalog.cluster));
    TRY(put_text_pair(b, "addr", n->cfg.addr));
    TRY(put_text_pair(b, "state", mp_slice_str("alive")));
    TRY(mp_mp_put_text(b, "resources"));
    TRY(mp_catalog_put_resources(&n->catalog, b));
    TRY(put_uint_pair(b, "workers", n->cfg.workers));
    TRY(put_uint_pair(b, "load", n->rpc.live));
    TRY(put_text_pair(b, "version", mp_slice_str(MPREG_VERSION)));
    TRY(put_uint_pair(b, "rtt_ms", 0));
    TRY(mp_mp_put_text(b, "insecure"));
    return mp_mp_put_bool(b, n->cfg.is_insecure);
}

static enum mp_err put_functions(struct mp_node *n, mp_time now, struct mp_buf *b)
{
    for (uint32_t key = 0; key < n->catalog.function_count; key++) {
        mp_time until = mp_pool_refused_until(&n->pool, key, now);
        n->catalog.functions[key].refused_ms =
            until == 0 ? 0 : (until - now + MP_MS(1) - 1) / MP_MS(1);
    }
    return mp_catalog_put_functions(&n->catalog, b);
}

static enum mp_err put_modules(struct mp_node *n, mp_time now, struct mp_buf *b)
{
    (void)now;
    return mp_catalog_put_modules(&n->catalog, b);
}

struct query {
    const char *what;
    enum mp_err (*put)(struct mp_node *n, mp_time now, struct mp_buf *b);
};

static const struct query queries[] = {
    {"functions", put_functions},
    {"modules", put_modules},
    {"nodes", put_nodes},
};

static bool read_what(struct mp_slice meta, struct mp_slice *what)
{
    struct mp_slice value;
    return mp_mp_check(meta) == MP_OK && mp_mp_array_get(meta, 0, &value) == MP_OK &&
           mp_mp_get_str(value, what) == MP_OK;
}

static void answer(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                   const struct query *q)
{
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    if (q->put(n, now, &b) == MP_OK)
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_RESULT,
                      mp_node_keep(n, mp_buf_slice(&b)));
    else
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory to answer");
    mp_buf_fini(&b);
}

void mp_node_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_slice what;
    if (!read_what(ev->request.meta, &what)) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", "meta: expected [what]");
    } else if (mp_slice_is(what, "plan")) {
        mp_node_plan(n, now, ev);
    } else {
        const struct query *found = NULL;
        for (size_t i = 0; i < MP_ARRAY_SIZE(queries); i++)
            if (mp_slice_is(what, queries[i].what))
                found = &queries[i];
        if (found)
            answer(n, now, ev, found);
        else
            mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNIMPLEMENTED,
                           "UNKNOWN_QUERY", "known: functions, modules, nodes, plan");
    }
    if (ev->request.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->request.payload;
}
