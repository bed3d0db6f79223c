/* What a node tells about itself: the documents behind the commands that list things. */
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/msgpack.h"

static enum mp_err put_ms_pair(struct mp_buf *b, const char *key, mp_duration d)
{
    MP_TRY(mp_mp_put_text(b, key));
    return mp_mp_put_float(b, (double)(d / 1000) / 1000);
}

static const char *const state_names[] = {[MP_MEMBER_ALIVE] = "alive",
                                          [MP_MEMBER_SUSPECT] = "suspect",
                                          [MP_MEMBER_DEAD] = "dead",
                                          [MP_MEMBER_LEFT] = "left"};

static enum mp_err put_member(struct mp_node *n, mp_time now, struct mp_buf *b, uint32_t member,
                              const struct mp_member_info *info)
{
    char bytes[MP_ADDRESS_TEXT_MAX];
    struct mp_text addr;
    struct mp_catalog_about about = {0};
    bool is_self = member == MP_MEMBER_SELF;
    bool is_known = mp_catalog_about(&n->catalog, member, &about);
    bool has_via = info->via != MP_MEMBER_NONE && info->via != MP_MEMBER_SELF && !is_self;
    mp_text_init(&addr, bytes, sizeof(bytes));
    mp_address_put(&addr, &info->addr);
    MP_TRY(mp_mp_put_map(b, 12u + has_via));
    MP_TRY(mp_mp_put_str_pair(b, "name", info->name));
    MP_TRY(mp_mp_put_str_pair(b, "cluster", n->catalog.cluster));
    MP_TRY(mp_mp_put_str_pair(b, "addr", mp_text_slice(&addr)));
    MP_TRY(mp_mp_put_str_pair(b, "state", mp_slice_str(state_names[info->state])));
    MP_TRY(mp_mp_put_text(b, "resources"));
    MP_TRY(is_known && about.resources.size != 0 ? mp_mp_put_raw(b, about.resources)
                                                 : mp_mp_put_array(b, 0));
    MP_TRY(mp_mp_put_uint_pair(b, "workers", about.workers));
    MP_TRY(mp_mp_put_uint_pair(b, "load", is_self ? n->rpc.live : info->load));
    MP_TRY(mp_mp_put_str_pair(b, "version", about.version));
    MP_TRY(put_ms_pair(b, "rtt_ms", info->rtt));
    MP_TRY(mp_mp_put_bool_pair(b, "insecure", (info->flags & MP_MEMBER_INSECURE) != 0));
    MP_TRY(mp_mp_put_uint_pair(b, "generation", info->generation));
    MP_TRY(
        mp_mp_put_uint_pair(b, "since_ms", now > info->since ? (now - info->since) / MP_MS(1) : 0));
    return has_via ? mp_mp_put_str_pair(b, "via", mp_node_member_name(n, info->via)) : MP_OK;
}

static enum mp_err put_nodes(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                             struct mp_buf *b)
{
    struct mp_member_info info;
    uint32_t count = 0;
    uint32_t end = mp_membership_end(n->membership);
    (void)ev;
    for (uint32_t i = 0; i < end; i++)
        count += mp_membership_get(n->membership, i, &info);
    MP_TRY(mp_mp_put_map(b, 1));
    MP_TRY(mp_mp_put_text(b, "nodes"));
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < end; i++)
        if (mp_membership_get(n->membership, i, &info))
            MP_TRY(put_member(n, now, b, i, &info));
    return MP_OK;
}

/* [pid, resident bytes] of a worker's place; nil where the driver said nothing. */
static enum mp_err put_fact(struct mp_buf *b, const char *key, struct mp_slice facts,
                            uint32_t place, uint32_t which)
{
    struct mp_slice pair;
    struct mp_slice value;
    MP_TRY(mp_mp_put_text(b, key));
    if (facts.size != 0 && mp_mp_array_get(facts, place, &pair) == MP_OK &&
        mp_mp_array_get(pair, which, &value) == MP_OK)
        return mp_mp_put_raw(b, value);
    return mp_mp_put_nil(b);
}

static const char *const worker_states[] = {[MP_POOL_WORKER_STARTING] = "starting",
                                            [MP_POOL_WORKER_READY] = "ready",
                                            [MP_POOL_WORKER_SUSPECT] = "suspect",
                                            [MP_POOL_WORKER_RETIRING] = "retiring",
                                            [MP_POOL_WORKER_ENDING] = "ending"};

static bool is_worker(const struct mp_pool_worker *w)
{
    return w->state != MP_POOL_WORKER_NONE;
}

static enum mp_err put_workers(struct mp_node *n, struct mp_slice facts, struct mp_buf *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->pool.worker_count; i++)
        count += is_worker(&n->pool.workers[i]);
    MP_TRY(mp_mp_put_text(b, "workers"));
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < n->pool.worker_count; i++) {
        const struct mp_pool_worker *w = &n->pool.workers[i];
        if (!is_worker(w))
            continue;
        MP_TRY(mp_mp_put_map(b, 7));
        MP_TRY(put_fact(b, "pid", facts, i, 0));
        MP_TRY(mp_mp_put_str_pair(b, "state", mp_slice_str(worker_states[w->state])));
        MP_TRY(mp_mp_put_uint_pair(b, "begun", w->sent));
        MP_TRY(mp_mp_put_uint_pair(b, "queued", i == 0 ? n->pool.queued : 0));
        MP_TRY(mp_mp_put_uint_pair(b, "calls", w->done));
        MP_TRY(mp_mp_put_uint_pair(b, "restarts", w->restarts));
        MP_TRY(put_fact(b, "memory_bytes", facts, i, 1));
    }
    return MP_OK;
}

static enum mp_err put_states(struct mp_node *n, struct mp_buf *b)
{
    struct mp_member_info info;
    uint32_t counts[MP_ARRAY_SIZE(state_names)] = {0};
    for (uint32_t i = 0; i < mp_membership_end(n->membership); i++)
        if (mp_membership_get(n->membership, i, &info))
            counts[info.state]++;
    MP_TRY(mp_mp_put_text(b, "members"));
    MP_TRY(mp_mp_put_map(b, MP_ARRAY_SIZE(state_names)));
    for (size_t i = 0; i < MP_ARRAY_SIZE(state_names); i++)
        MP_TRY(mp_mp_put_uint_pair(b, state_names[i], counts[i]));
    return MP_OK;
}

static enum mp_err put_status(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                              struct mp_buf *b)
{
    struct mp_member_info self;
    struct mp_slice facts = ev->request.facts;
    if (!mp_membership_get(n->membership, MP_MEMBER_SELF, &self))
        return MP_ENOENT;
    if (facts.size != 0 && mp_mp_check(facts) != MP_OK)
        facts = (struct mp_slice){0};
    MP_TRY(mp_mp_put_map(b, 10));
    MP_TRY(mp_mp_put_text(b, "node"));
    MP_TRY(put_member(n, now, b, MP_MEMBER_SELF, &self));
    MP_TRY(mp_mp_put_text(b, "uptime_s"));
    MP_TRY(mp_mp_put_float(b, (double)((now - n->started_at) / MP_MS(1)) / 1000));
    MP_TRY(put_workers(n, facts, b));
    MP_TRY(mp_mp_put_uint_pair(b, "calls", n->calls));
    MP_TRY(mp_mp_put_uint_pair(b, "errors", n->errors));
    MP_TRY(mp_mp_put_uint_pair(b, "links", n->links_up));
    MP_TRY(put_states(n, b));
    MP_TRY(mp_mp_put_uint_pair(b, "queued", n->pool.queued));
    MP_TRY(mp_node_put_topics(n, b));
    MP_TRY(mp_mp_put_text(b, "held"));
    MP_TRY(mp_mp_put_map(b, 2));
    MP_TRY(mp_mp_put_uint_pair(b, "count", n->held_count));
    return mp_mp_put_uint_pair(b, "bytes", n->held_bytes);
}

static bool is_shown(const struct mp_node_link *l)
{
    return l->member != MP_NODE_NONE && l->state >= MP_NODE_LINK_DIALLING;
}

static enum mp_err put_link(struct mp_node *n, const struct mp_node_link *l, struct mp_buf *b)
{
    char bytes[MP_ADDRESS_TEXT_MAX];
    struct mp_text addr;
    struct mp_member_info info = {0};
    (void)mp_membership_get(n->membership, l->member, &info);
    mp_text_init(&addr, bytes, sizeof(bytes));
    mp_address_put(&addr, &info.addr);
    MP_TRY(mp_mp_put_map(b, 6));
    MP_TRY(mp_mp_put_str_pair(b, "node", info.name));
    MP_TRY(mp_mp_put_str_pair(b, "addr", mp_text_slice(&addr)));
    MP_TRY(mp_mp_put_str_pair(b, "state",
                              mp_slice_str(l->state == MP_NODE_LINK_UP ? "up" : "dialling")));
    MP_TRY(put_ms_pair(b, "rtt_ms", info.rtt));
    MP_TRY(mp_mp_put_uint_pair(b, "outstanding", l->out_count));
    return mp_mp_put_str_pair(b, "dialled_by", l->is_ours ? n->catalog.node : info.name);
}

static enum mp_err put_links(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                             struct mp_buf *b)
{
    uint32_t count = 0;
    (void)now;
    (void)ev;
    for (uint32_t i = 0; i < n->link_used; i++)
        count += is_shown(&n->links[i]);
    MP_TRY(mp_mp_put_map(b, 2));
    MP_TRY(mp_mp_put_str_pair(b, "node", n->catalog.node));
    MP_TRY(mp_mp_put_text(b, "links"));
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < n->link_used; i++)
        if (is_shown(&n->links[i]))
            MP_TRY(put_link(n, &n->links[i], b));
    return MP_OK;
}

static enum mp_err put_functions(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                                 struct mp_buf *b)
{
    (void)ev;
    for (uint32_t key = 0; key < n->catalog.function_count; key++) {
        mp_time until = mp_pool_refused_until(&n->pool, key, now);
        n->catalog.functions[key].refused_ms =
            until == 0 ? 0 : (until - now + MP_MS(1) - 1) / MP_MS(1);
    }
    return mp_catalog_put_functions(&n->catalog, b);
}

static enum mp_err put_modules(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                               struct mp_buf *b)
{
    (void)ev;
    for (uint32_t i = 0; i < n->catalog.module_count; i++) {
        struct mp_catalog_module *m = &n->catalog.modules[i];
        m->is_overtaken =
            m->is_live &&
            mp_deploy_is_overtaken_lately(n->deploy, m->name, m->is_pipeline, mp_node_wall(n, now));
    }
    return mp_catalog_put_modules(&n->catalog, b);
}

struct query {
    const char *what;
    enum mp_err (*put)(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                       struct mp_buf *b);
};

static const struct query queries[] = {
    {"functions", put_functions}, {"links", put_links},   {"modules", put_modules},
    {"nodes", put_nodes},         {"status", put_status},
};

/* A query's meta part: [what], or [what, {on, name}]. */
struct asked {
    struct mp_slice what;
    struct mp_slice on;
    struct mp_slice name;
    struct mp_slice options; /* the map, or empty */
};

static bool read_option(struct mp_slice options, const char *key, struct mp_slice *name)
{
    struct mp_slice value;
    if (mp_mp_map_get(options, mp_slice_str(key), &value) != MP_OK ||
        mp_mp_type_of(value) == MP_MP_NIL)
        return true;
    return mp_mp_get_str(value, name) == MP_OK && mp_slice_is_name(*name);
}

static bool read_asked(struct mp_slice meta, struct asked *a)
{
    struct mp_slice value;
    *a = (struct asked){0};
    if (mp_mp_check(meta) != MP_OK || mp_mp_array_get(meta, 0, &value) != MP_OK ||
        mp_mp_get_str(value, &a->what) != MP_OK)
        return false;
    if (mp_mp_array_get(meta, 1, &value) != MP_OK || mp_mp_type_of(value) == MP_MP_NIL)
        return true;
    a->options = value;
    return mp_mp_type_of(value) == MP_MP_MAP && read_option(value, "on", &a->on) &&
           read_option(value, "name", &a->name);
}

static void answer(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                   const struct query *q)
{
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    if (q->put(n, now, ev, &b) == MP_OK)
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_RESULT,
                      mp_node_keep(n, mp_buf_slice(&b)));
    else
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory to answer");
    mp_buf_fini(&b);
}

static void forget(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                   struct mp_slice name)
{
    struct mp_buf b;
    struct mp_slice error = mp_node_forget(n, now, name);
    if (error.size != 0) {
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR, error);
        return;
    }
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_put_map(&b, 1);
    if (err == MP_OK)
        err = mp_mp_put_str_pair(&b, "forgotten", name);
    mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_RESULT,
                  err == MP_OK ? mp_node_keep(n, mp_buf_slice(&b)) : (struct mp_slice){0});
    mp_buf_fini(&b);
}

/* True: another node has it now, with its payload. */
static bool answer_here(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                        const struct asked *a)
{
    const struct query *found = NULL;
    bool is_sent = false;
    for (size_t i = 0; i < MP_ARRAY_SIZE(queries); i++)
        if (mp_slice_is(a->what, queries[i].what))
            found = &queries[i];
    if (mp_node_deploy_query(n, now, ev, a->what, a->options) ||
        mp_node_run_query(n, now, ev, a->what, a->options, &is_sent))
        return is_sent;
    if (mp_slice_is(a->what, "plan"))
        mp_node_plan(n, now, ev);
    else if (mp_slice_is(a->what, "forget"))
        forget(n, now, ev, a->name);
    else if (found)
        answer(n, now, ev, found);
    else
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNIMPLEMENTED,
                       "UNKNOWN_QUERY",
                       "known: cancel, deploy, forget, functions, history, links, modules, nodes, "
                       "plan, result, rollback, runs, source, status, trace, undeploy, watch");
    return false;
}

void mp_node_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct asked a;
    mp_node_wall_is(n, now, ev->request.wall_ms);
    if (!read_asked(ev->request.meta, &a)) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", "meta: expected [what, {on, name}]");
    } else if (a.on.size != 0 && !mp_slice_equal(a.on, n->catalog.node)) {
        if (mp_node_link_of_client(n, ev->request.client) == MP_NODE_NONE) {
            if (mp_node_relay_query(n, ev, a.on))
                return;
        } else {
            mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNAVAILABLE, "NO_NODE",
                           "this is not the node that was asked for");
        }
    } else if (answer_here(n, now, ev, &a)) {
        return;
    }
    if (ev->request.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->request.payload;
}
