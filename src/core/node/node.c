/* The composition's frame: one step takes one event, hands it to the machine that it concerns, and
 * works off what that makes for the others until nothing is left. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"

#define CHUNK_BYTES      (16u << 10)
#define BUILD_BYTES_KEPT (16u << 10)
#define ROOM_BASE        64u /* effects and work of an event itself */
#define ROOM_EFFECTS                                                                               \
    6u               /* of a call in one step: sent, taken back, told, answered, blocks released */
#define ROOM_WORK 3u /* of a call in one step: its attempt's ends, its run's answer */

/* The ERROR map for when there is no memory to make one. */
static struct mp_slice no_memory(void)
{
    static const char map[] = "\x83"
                              "\xa4"
                              "code"
                              "\xb2"
                              "RESOURCE_EXHAUSTED"
                              "\xa6"
                              "reason"
                              "\xad"
                              "OUT_OF_MEMORY"
                              "\xa7"
                              "message"
                              "\xb9"
                              "the node is out of memory";
    return mp_slice_of(map, sizeof(map) - 1);
}

/* --- scratch memory and effects --- */

uint8_t *mp_node_scratch(struct mp_node *n, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct mp_node_chunk *c = n->chunks;
    if (!c || c->size - c->used < size) {
        size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        c = mp_alloc_take(n->alloc, sizeof(*c) + room);
        if (!c) {
            n->is_out_of_memory = true;
            return NULL;
        }
        *c = (struct mp_node_chunk){.next = n->chunks, .size = room};
        n->chunks = c;
    }
    uint8_t *at = (uint8_t *)(c + 1) + c->used;
    c->used += size;
    return at;
}

/* One chunk stays for the next step. */
static void reset_scratch(struct mp_node *n)
{
    if (n->build.capacity > BUILD_BYTES_KEPT)
        mp_buf_fini(&n->build); /* lists of all members are told in the beginning only */
    while (n->chunks && (n->chunks->next || n->chunks->size > CHUNK_BYTES)) {
        struct mp_node_chunk *c = n->chunks;
        n->chunks = c->next;
        mp_alloc_free(n->alloc, c, sizeof(*c) + c->size);
    }
    if (n->chunks)
        n->chunks->used = 0;
}

struct mp_slice mp_node_keep(struct mp_node *n, struct mp_slice bytes)
{
    uint8_t *at = mp_node_scratch(n, bytes.size);
    if (!at)
        return mp_slice_of(NULL, 0);
    if (bytes.size != 0)
        memcpy(at, bytes.data, bytes.size);
    return mp_slice_of(at, bytes.size);
}

/* An array of effects or work with at least `wanted` places. */
static bool grow(struct mp_node *n, void **array, uint32_t *capacity, uint32_t wanted, size_t item)
{
    if (wanted <= *capacity)
        return true;
    uint32_t next = *capacity == 0 ? 256 : *capacity;
    while (next < wanted)
        next *= 2;
    void *grown = n->alloc->resize(n->alloc->context, *array, *capacity * item, next * item);
    if (!grown) {
        n->is_out_of_memory = true;
        return false;
    }
    *array = grown;
    *capacity = next;
    return true;
}

bool mp_node_make_room(struct mp_node *n)
{
    uint32_t calls = n->rpc.used + n->out_count + 1;
    uint32_t places = n->cfg.workers + n->pool.worker_count + n->run_count + n->held_count +
                      n->link_used + n->deploy_count + n->unit_capacity + n->watch_count;
    uint32_t effects = n->effect_count + ROOM_BASE + ROOM_EFFECTS * (calls + places);
    uint32_t work = n->work_count + ROOM_BASE + ROOM_WORK * calls;
    return grow(n, (void **)&n->effects, &n->effect_capacity, effects, sizeof(*n->effects)) &&
           grow(n, (void **)&n->work, &n->work_capacity, work, sizeof(*n->work));
}

struct mp_node_effect *mp_node_emit(struct mp_node *n, enum mp_node_effect_kind kind)
{
    static struct mp_node_effect nowhere;
    if (!grow(n, (void **)&n->effects, &n->effect_capacity, n->effect_count + 1,
              sizeof(*n->effects)))
        return &nowhere;
    struct mp_node_effect *e = &n->effects[n->effect_count++];
    *e = (struct mp_node_effect){.kind = kind};
    return e;
}

struct mp_node_work *mp_node_put_off(struct mp_node *n, enum mp_node_work_kind kind, uint64_t call)
{
    static struct mp_node_work nowhere;
    if (!grow(n, (void **)&n->work, &n->work_capacity, n->work_count + 1, sizeof(*n->work)))
        return &nowhere;
    struct mp_node_work *w = &n->work[n->work_count++];
    *w = (struct mp_node_work){.kind = kind, .call = call};
    return w;
}

void mp_node_log(struct mp_node *n, uint8_t level, struct mp_slice text)
{
    if (!mp_node_make_room(n))
        return;
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_LOG);
    e->level = level;
    e->payload.bytes = mp_node_keep(n, text);
}

bool mp_node_is_gone(const struct mp_node *n, uint64_t client)
{
    const uint64_t *closed = (const uint64_t *)(const void *)n->closed.data;
    for (size_t i = 0; i < n->closed.size / sizeof(*closed); i++)
        if (closed[i] == client)
            return true;
    return client == n->client_gone;
}

void mp_node_reply(struct mp_node *n, uint64_t client, uint64_t id, uint8_t frame,
                   struct mp_slice payload)
{
    if (mp_node_is_gone(n, client))
        return;
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_REPLY);
    e->client = client;
    e->id = id;
    e->frame = payload.size != 0 ? frame : MP_FRAME_ERROR;
    e->payload.bytes = payload.size != 0 ? payload : no_memory();
}

bool mp_node_next_event(struct mp_node_effect *events, struct mp_node_effect *out)
{
    struct mp_frame_header h;
    struct mp_slice all = events->payload.bytes;
    if (mp_frame_read_header(all, UINT32_MAX, &h) != MP_OK ||
        all.size - MP_FRAME_HEADER_BYTES < h.size)
        return false;
    *out = *events;
    out->kind = MP_NODE_REPLY;
    out->frame = h.type;
    out->id = h.id;
    out->payload.bytes = mp_slice_of(all.data + MP_FRAME_HEADER_BYTES, h.size);
    size_t size = MP_FRAME_HEADER_BYTES + (size_t)h.size;
    events->payload.bytes = mp_slice_of(all.data + size, all.size - size);
    return true;
}

/* --- errors --- */

struct mp_slice mp_node_error(struct mp_node *n, const struct mp_fault *fault)
{
    struct mp_buf b;
    struct mp_slice kept = {0};
    mp_buf_init(&b, n->alloc, 0);
    if (mp_fault_put(&b, fault) == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&b));
    else
        n->is_out_of_memory = true;
    mp_buf_fini(&b);
    return kept.size != 0 ? kept : no_memory();
}

struct mp_slice mp_node_error_of_call(struct mp_node *n, struct mp_slice error, uint32_t function,
                                      uint32_t attempt)
{
    struct mp_fault extra = {.node = n->catalog.node, .attempt = attempt};
    if (function != MP_RPC_NONE) {
        const struct mp_catalog_function *f = &n->catalog.functions[function];
        extra.fun = f->name;
        extra.version = n->catalog.modules[f->module].version_text;
    }
    struct mp_buf b;
    struct mp_slice kept = {0};
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_fault_put_extended(&b, error, &extra);
    if (err != MP_OK && err != MP_ENOMEM) {
        /* A worker that sent no map is broken; its caller still gets a sound error. */
        extra.code = MP_CODE_INTERNAL;
        extra.reason = mp_slice_str("BAD_ERROR");
        extra.message = mp_slice_str("the worker answered with something that is no error object");
        mp_buf_clear(&b);
        err = mp_fault_put(&b, &extra);
    }
    if (err == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&b));
    else
        n->is_out_of_memory = true;
    mp_buf_fini(&b);
    return kept.size != 0 ? kept : no_memory();
}

void mp_node_refuse(struct mp_node *n, uint64_t client, uint64_t id, enum mp_code code,
                    const char *reason, const char *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = n->catalog.node};
    mp_node_reply(n, client, id, MP_FRAME_ERROR, mp_node_error(n, &fault));
}

/* --- life --- */

static enum mp_err new_machines(struct mp_node *n, const struct mp_node_config *cfg)
{
    struct mp_alloc *a = n->alloc;
    const struct mp_catalog_config catalog = {.node = cfg->name,
                                              .cluster = cfg->cluster,
                                              .resources = cfg->resources,
                                              .resource_count = cfg->resource_count,
                                              .workers = cfg->workers,
                                              .version = mp_slice_str(MPREG_VERSION),
                                              .generation = cfg->generation,
                                              .defects = cfg->defects};
    const struct mp_pool_config pool = {.begun_max = cfg->calls_begun_max,
                                        .queued_max = cfg->calls_queued_max};
    const struct mp_rpc_config rpc = {.waiting_max = cfg->calls_queued_max,
                                      .defects = cfg->defects};
    const struct mp_router_config router = {.routes_max = MP_ROUTER_ROUTES_MAX,
                                            .defects = cfg->defects};
    const struct mp_membership_config membership = {.name = cfg->name,
                                                    .cluster = cfg->cluster,
                                                    .generation = cfg->generation,
                                                    .flags =
                                                        cfg->is_insecure ? MP_MEMBER_INSECURE : 0,
                                                    .members_max = MP_MEMBERS_MAX,
                                                    .defects = cfg->defects};
    enum mp_err err = mp_catalog_init(&n->catalog, &catalog, a, mp_rng_next(&n->rng));
    if (err == MP_OK)
        err = mp_pool_init(&n->pool, &pool, a, mp_rng_next(&n->rng));
    if (err == MP_OK)
        err = mp_rpc_init(&n->rpc, &rpc, a, mp_rng_next(&n->rng));
    if (err == MP_OK)
        err = mp_router_new(&n->router, &router, a, mp_rng_next(&n->rng));
    if (err == MP_OK)
        err = mp_membership_new(&n->membership, &membership, a, mp_rng_next(&n->rng));
    const struct mp_deploy_config deploy = {.node = cfg->name, .defects = cfg->defects};
    if (err == MP_OK)
        err = mp_deploy_new(&n->deploy, &deploy, a);
    return err;
}

enum mp_err mp_node_new(struct mp_node **own_out, const struct mp_node_config *cfg,
                        struct mp_alloc *a, uint64_t seed)
{
    struct mp_node *n = mp_alloc_take(a, sizeof(*n));
    if (!n)
        return MP_ENOMEM;
    mp_assert(cfg->generation != 0);
    memset(n, 0, sizeof(*n));
    n->alloc = a;
    n->cfg = *cfg;
    n->cfg.resources = NULL;
    n->out_free = MP_NODE_NONE;
    n->link_free = MP_NODE_NONE;
    n->held_free = MP_NODE_NONE;
    n->fill_first = MP_NODE_NONE;
    n->links_at = MP_NEVER;
    mp_rng_init(&n->rng, seed);
    mp_buf_init(&n->key, a, 0);
    mp_buf_init(&n->providers, a, 0);
    mp_buf_init(&n->build, a, 0);
    mp_buf_init(&n->announce, a, 0);
    mp_map_init(&n->copies, a);
    mp_buf_init(&n->asked, a, 0);
    mp_buf_init(&n->high, a, 0);
    mp_buf_init(&n->closed, a, 0);
    mp_buf_init(&n->released, a, 0);
    mp_buf_init(&n->run_asks, a, 0);
    n->code_at = MP_NEVER;
    n->watch_at = MP_NEVER;
    n->records_at = MP_NEVER;
    n->held_at = MP_NEVER;
    enum mp_err err = new_machines(n, cfg);
    if (err == MP_OK)
        err = mp_node_releases_init(n);
    if (err == MP_OK)
        err = mp_node_records_init(n);
    if (err == MP_OK)
        err = mp_node_topics_init(n);
    n->cfg.name = n->catalog.node;
    n->cfg.cluster = n->catalog.cluster;
    n->identity = mp_node_run_identity(n->catalog.node);
    n->held_generation = (uint32_t)mp_rng_next(&n->rng);
    if (err == MP_OK && !mp_node_make_room(n))
        err = MP_ENOMEM;
    if (err != MP_OK) {
        mp_node_free(n);
        return err;
    }
    *own_out = n;
    return MP_OK;
}

void mp_node_free(struct mp_node *n)
{
    if (!n)
        return;
    mp_node_runs_fini(n);
    mp_node_run_asks_fini(n);
    mp_node_records_fini(n);
    mp_buf_fini(&n->high);
    mp_buf_fini(&n->closed);
    mp_node_attempts_fini(n);
    mp_node_outs_fini(n);
    mp_node_links_fini(n);
    mp_node_held_fini(n);
    mp_node_deploys_fini(n);
    mp_node_releases_fini(n);
    mp_node_units_fini(n);
    mp_node_topics_fini(n);
    mp_membership_free(n->membership);
    mp_router_free(n->router);
    mp_rpc_fini(&n->rpc);
    mp_pool_fini(&n->pool);
    mp_catalog_fini(&n->catalog);
    while (n->chunks) {
        struct mp_node_chunk *c = n->chunks;
        n->chunks = c->next;
        mp_alloc_free(n->alloc, c, sizeof(*c) + c->size);
    }
    mp_alloc_free(n->alloc, n->effects, n->effect_capacity * sizeof(*n->effects));
    mp_alloc_free(n->alloc, n->work, n->work_capacity * sizeof(*n->work));
    mp_buf_fini(&n->key);
    mp_buf_fini(&n->providers);
    mp_buf_fini(&n->build);
    mp_buf_fini(&n->announce);
    mp_alloc_free(n->alloc, n->states, n->state_capacity);
    mp_alloc_free(n->alloc, n, sizeof(*n));
}

/* --- events --- */

static void start(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    n->started_at = now;
    mp_node_wall_is(n, now, ev->start.wall_ms);
    const struct mp_membership_event begin = {.kind = MP_MEMBERSHIP_START,
                                              .start = {.addr = ev->start.addr}};
    const struct mp_pool_event resize = {.kind = MP_POOL_RESIZE,
                                         .resize = {.workers = n->cfg.workers}};
    mp_node_step_membership(n, now, &begin);
    mp_node_step_pool(n, now, &resize);
}

static void module(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_catalog_effects out;
    const struct mp_catalog_event add = {.kind = MP_CATALOG_ADD,
                                         .add = {.host_module = ev->module.host_module,
                                                 .name = ev->module.name,
                                                 .hash = ev->module.hash,
                                                 .metadata = ev->module.metadata}};
    mp_node_step_catalog(n, now, &add, &out);
    for (uint32_t i = 0; i < out.count; i++) {
        char line[512];
        struct mp_text text;
        if (out.items[i].kind != MP_CATALOG_REFUSED)
            continue;
        mp_text_init(&text, line, sizeof(line));
        mp_text_put(&text, "module ");
        mp_text_put_slice(&text, ev->module.name);
        mp_text_put(&text, " is left out: ");
        mp_text_put(&text, out.items[i].why);
        mp_node_log(n, 3, mp_text_slice(&text));
    }
}

static void cancel(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    bool is_peer = mp_node_link_of_client(n, ev->request.client) != MP_NODE_NONE;
    if (mp_node_outs_cancel(n, ev->request.client, ev->request.id) ||
        mp_node_watch_cancel(n, ev->request.client, ev->request.id) ||
        mp_node_run_ask_cancel(n, ev->request.client, ev->request.id) ||
        mp_node_run_cancel(n, now, ev->request.client, ev->request.id) ||
        (!is_peer && mp_node_topics_cancel(n, now, ev->request.client, ev->request.id)))
        return;
    const struct mp_rpc_event cancelled = {.kind = MP_RPC_CANCEL_ORIGIN,
                                           .origin = {.kind = is_peer ? MP_RPC_PEER : MP_RPC_CLIENT,
                                                      .owner = ev->request.client,
                                                      .id = ev->request.id}};
    mp_node_step_rpc(n, now, &cancelled, NULL);
}

static void leave_runs(struct mp_node *n, mp_time now, uint64_t client)
{
    mp_node_watch_client_gone(n, client);
    mp_node_run_asks_client_gone(n, client);
    mp_node_run_waiters_gone(n, client);
    mp_node_runs_of_client_gone(n, now, client);
}

static void client_gone(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint64_t client = ev->request.client;
    const struct mp_rpc_event client_gone = {.kind = MP_RPC_OWNER_GONE,
                                             .origin = {.kind = MP_RPC_CLIENT, .owner = client}};
    const struct mp_rpc_event peer_gone = {.kind = MP_RPC_OWNER_GONE,
                                           .origin = {.kind = MP_RPC_PEER, .owner = client}};
    n->client_gone = client;
    leave_runs(n, now, client);
    mp_node_topics_client_gone(n, now, client);
    mp_node_step_rpc(n, now, &client_gone, NULL);
    mp_node_step_rpc(n, now, &peer_gone, NULL);
    mp_node_deploys_client_gone(n, client);
    mp_node_releases_client_gone(n, client);
    mp_node_outs_of_client_gone(n, client);
    mp_node_link_gone(n, now, client);
}

static void datagram(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_membership_event arrived = {
        .kind = MP_MEMBERSHIP_DATAGRAM,
        .datagram = {.from = ev->datagram.from, .bytes = ev->datagram.bytes}};
    mp_node_step_membership(n, now, &arrived);
}

/* From now on nobody shall count on this node: goodbye is said at once, and what runs goes on. */
static void drain(struct mp_node *n, mp_time now)
{
    const struct mp_membership_event leave = {.kind = MP_MEMBERSHIP_LEAVE};
    if (n->is_draining)
        return;
    n->is_draining = true;
    mp_node_step_membership(n, now, &leave);
    mp_node_links_goodbye(n, now);
}

static void nested_cancel(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_rpc_event cancelled = {.kind = MP_RPC_CANCEL_ORIGIN,
                                           .origin = {.kind = MP_RPC_NESTED,
                                                      .owner = ev->nested.incarnation,
                                                      .id = ev->nested.nested}};
    mp_node_step_rpc(n, now, &cancelled, NULL);
}

static void worker_died(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, ev->worker.running);
    n->death_how = ev->worker.how;
    n->death_fun = (struct mp_slice){0};
    if (c && c->target.function != MP_RPC_NONE)
        n->death_fun = n->catalog.functions[c->target.function].name;
    const struct mp_pool_event died = {.kind = MP_POOL_DIED,
                                       .worker = ev->worker.worker,
                                       .died = {.running = ev->worker.running,
                                                .unbegun = ev->worker.unbegun,
                                                .unbegun_count = ev->worker.unbegun_count}};
    mp_node_step_pool(n, now, &died);
    const struct mp_rpc_event gone = {
        .kind = MP_RPC_OWNER_GONE,
        .origin = {.kind = MP_RPC_NESTED, .owner = ev->worker.incarnation}};
    mp_node_step_rpc(n, now, &gone, NULL);
}

static void pool_event(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_pool_event e = {0};
    if (ev->kind == MP_NODE_RETURNED) {
        e.kind = MP_POOL_RETURNED;
        e.worker = ev->returned.worker;
        e.task = ev->returned.call;
        e.returned.is_back = ev->returned.is_back;
        e.returned.is_full = ev->returned.is_full;
    } else if (ev->kind == MP_NODE_PROBED) {
        e.kind = MP_POOL_PROBED;
        e.worker = ev->probed.worker;
        e.probed.running = ev->probed.running;
        e.probed.since = ev->probed.since;
        e.probed.progress = ev->probed.progress;
        e.probed.has_unread = ev->probed.has_unread;
        e.probed.has_room = ev->probed.has_room;
    } else {
        e.kind = MP_POOL_READY;
        e.worker = ev->worker.worker;
    }
    mp_node_step_pool(n, now, &e);
}

/* This node's load travels with whatever membership sends next. */
static void tell_load(struct mp_node *n, mp_time now)
{
    if (n->load_told == n->rpc.live)
        return;
    n->load_told = n->rpc.live;
    const struct mp_membership_event load = {.kind = MP_MEMBERSHIP_LOAD, .load = n->load_told};
    mp_node_step_membership(n, now, &load);
}

static void timer(struct mp_node *n, mp_time now)
{
    if (n->is_catalog_behind)
        mp_node_catalog_catch_up(n, now);
    if (mp_membership_deadline(n->membership) <= now) {
        const struct mp_membership_event due = {.kind = MP_MEMBERSHIP_TIMER};
        tell_load(n, now);
        mp_node_step_membership(n, now, &due);
    }
    if (n->links_at <= now)
        mp_node_links_tick(n, now);
    if (mp_rpc_deadline(&n->rpc) <= now) {
        const struct mp_rpc_event due = {.kind = MP_RPC_TIMER};
        mp_node_step_rpc(n, now, &due, NULL);
    }
    if (mp_pool_deadline(&n->pool) <= now) {
        const struct mp_pool_event due = {.kind = MP_POOL_TIMER};
        mp_node_step_pool(n, now, &due);
    }
    if (mp_node_runs_deadline(n) <= now)
        mp_node_runs_tick(n, now);
    if (n->watch_at <= now)
        mp_node_watch_tick(n, now);
    if (n->held_at <= now)
        mp_node_held_tick(n, now);
    if (n->records_at <= now)
        mp_node_records_tick(n, now);
    mp_node_topics_tick(n, now);
}

static void kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    switch (mp_node_ticket_kind(ev->stored.ticket)) {
    case MP_NODE_TICKET_RUN:
        mp_node_runs_kept(n, now, ev);
        break;
    case MP_NODE_TICKET_MESSAGES:
        mp_node_topics_kept(n, now, ev);
        break;
    default:
        mp_node_unit_kept(n, ev);
        mp_node_deploy_kept(n, now, ev);
        break;
    }
}

static void route(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    switch (ev->kind) {
    case MP_NODE_START:
        start(n, now, ev);
        break;
    case MP_NODE_MODULE:
        module(n, now, ev);
        break;
    case MP_NODE_CALL:
        mp_node_link_used(n, ev->request.client);
        mp_node_call(n, now, ev);
        break;
    case MP_NODE_RUN:
        mp_node_run(n, now, ev);
        break;
    case MP_NODE_CANCEL:
        cancel(n, now, ev);
        break;
    case MP_NODE_QUERY:
        mp_node_query(n, now, ev);
        break;
    case MP_NODE_PUBLISH:
        mp_node_publish(n, now, ev);
        break;
    case MP_NODE_SUBSCRIBE:
        mp_node_subscribe(n, now, ev);
        break;
    case MP_NODE_CLIENT_GONE:
        client_gone(n, now, ev);
        break;
    case MP_NODE_NESTED:
        mp_node_nested(n, now, ev);
        break;
    case MP_NODE_NESTED_CANCEL:
        nested_cancel(n, now, ev);
        break;
    case MP_NODE_COMPLETED:
        mp_node_completed(n, now, ev);
        break;
    case MP_NODE_RETURNED:
    case MP_NODE_PROBED:
    case MP_NODE_WORKER_READY:
        pool_event(n, now, ev);
        break;
    case MP_NODE_WORKER_DIED:
        worker_died(n, now, ev);
        break;
    case MP_NODE_DRAIN:
        drain(n, now);
        break;
    case MP_NODE_SEED:
        mp_node_seed(n, ev);
        break;
    case MP_NODE_DATAGRAM:
        datagram(n, now, ev);
        break;
    case MP_NODE_DIALED:
        mp_node_dialed(n, now, ev);
        break;
    case MP_NODE_FRAME:
        mp_node_frame(n, now, ev);
        break;
    case MP_NODE_PRESSURE:
        mp_node_pressure(n, now, ev);
        mp_node_watch_pressure(n, now, ev->pressure.client, ev->pressure.is_high);
        mp_node_outs_pressure(n, ev->pressure.client, ev->pressure.is_high);
        break;
    case MP_NODE_RESTORED:
        mp_node_deploy_merge(n, now, ev->stored.bytes, true);
        break;
    case MP_NODE_CHECKED:
        mp_node_unit_checked(n, ev);
        mp_node_deploy_checked(n, now, ev);
        break;
    case MP_NODE_RESTORED_RUNS:
        mp_node_wall_is(n, now, ev->stored.wall_ms);
        mp_node_runs_restored(n, now, ev);
        break;
    case MP_NODE_RESTORED_MESSAGES:
        mp_node_topics_restored(n, now, ev);
        break;
    case MP_NODE_KEPT:
        kept(n, now, ev);
        break;
    case MP_NODE_FOUND:
        if (mp_node_ticket_kind(ev->stored.ticket) == MP_NODE_TICKET_RUN)
            mp_node_runs_found(n, now, ev);
        else
            mp_node_code_found(n, ev);
        break;
    case MP_NODE_LOADED:
        mp_node_unit_loaded(n, ev);
        break;
    case MP_NODE_TIMER:
        timer(n, now);
        break;
    }
}

static void resubmit(struct mp_node *n, mp_time now, uint64_t call)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
    if (mp_node_is_wanted(c))
        mp_node_submit(n, now, call);
    else if (c)
        mp_node_ended(n, now, call, false, false);
}

static void work_one(struct mp_node *n, mp_time now, const struct mp_node_work *work)
{
    switch (work->kind) {
    case MP_NODE_WORK_POOL_END:
        mp_node_pool_end(n, now, work);
        break;
    case MP_NODE_WORK_RUN_ANSWER:
        mp_node_run_answer(n, now, work);
        break;
    case MP_NODE_WORK_ATTEMPT_END:
        mp_node_attempt_ended(n, now, work);
        break;
    case MP_NODE_WORK_RESUBMIT:
        resubmit(n, now, work->call);
        break;
    case MP_NODE_WORK_FILLED:
        mp_node_attempt_filled(n, now, work->call);
        break;
    case MP_NODE_WORK_FETCHED:
        mp_node_run_fetched(n, now, work);
        break;
    case MP_NODE_WORK_TCP_ACK:
        mp_node_tcp_ack(n, now, (uint32_t)work->call);
        break;
    case MP_NODE_WORK_SYNC:
        mp_node_sync_member(n, (uint32_t)work->call);
        break;
    case MP_NODE_WORK_PROBE:
        mp_node_probe_member(n, (uint32_t)work->call);
        break;
    case MP_NODE_WORK_UNIT:
        mp_node_releases_unit(n, now);
        mp_node_deploys_go_on(n, now);
        break;
    case MP_NODE_WORK_LISTED:
        mp_node_attempt_listed(n, now, work);
        break;
    case MP_NODE_WORK_CLOSED:
        leave_runs(n, now, work->call);
        break;
    case MP_NODE_WORK_STAGED:
        mp_node_deploy_answered(n, now, work);
        break;
    case MP_NODE_WORK_CODE:
        mp_node_unit_fetched(n, work);
        break;
    case MP_NODE_WORK_GATHERED:
        mp_node_topics_gathered(n, now, work);
        break;
    }
}

/* What was put off, until there is no more; it may put more off. */
static void work_off(struct mp_node *n, mp_time now)
{
    if (n->work_count == 0 && !n->has_announce && !n->is_catalog_changed &&
        !mp_node_topics_are_due(n))
        return;
    do {
        while (n->work_first < n->work_count) {
            const struct mp_node_work work = n->work[n->work_first++];
            work_one(n, now, &work);
        }
        n->work_first = 0;
        n->work_count = 0;
        if (mp_node_topics_are_due(n))
            mp_node_topics_settle(n, now);
        if (n->has_announce || n->is_catalog_changed)
            mp_node_cluster_settle(n, now);
    } while (n->work_count != 0 || mp_node_topics_are_due(n));
}

enum mp_err mp_node_step(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                         struct mp_node_effects *out)
{
    n->effect_count = 0;
    n->is_out_of_memory = false;
    n->completion.is_set = false;
    n->now = now;
    n->steps++;
    n->client_gone = 0;
    n->closed.size = 0;
    n->route_hint = MP_ROUTER_NONE;
    if (n->chunks && (n->chunks->used != 0 || n->chunks->next))
        reset_scratch(n);
    if (n->is_over_fresh)
        mp_node_runs_sweep(n);
    route(n, now, ev);
    work_off(n, now);
    mp_node_code_tick(n, now);
    work_off(n, now);
    if (n->completion.is_set && n->completion.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = n->completion.payload;
    if (n->is_draining && !n->is_drained_told && mp_node_outstanding(n) == 0 &&
        mp_node_links_have_heard(n) && mp_node_topics_are_told(n)) {
        n->is_drained_told = true;
        mp_node_records_flush(n, now);
        mp_node_topics_end(n, now);
        mp_node_emit(n, MP_NODE_DRAINED);
    }
    *out = (struct mp_node_effects){.items = n->effects, .count = n->effect_count};
    return n->is_out_of_memory ? MP_ENOMEM : MP_OK;
}

mp_time mp_node_deadline(const struct mp_node *n)
{
    mp_time at = mp_rpc_deadline(&n->rpc);
    mp_time pool = mp_pool_deadline(&n->pool);
    mp_time membership = mp_membership_deadline(n->membership);
    at = pool < at ? pool : at;
    at = membership < at ? membership : at;
    at = n->links_at < at ? n->links_at : at;
    at = n->code_at < at ? n->code_at : at;
    at = n->watch_at < at ? n->watch_at : at;
    at = n->held_at < at ? n->held_at : at;
    at = n->records_at < at ? n->records_at : at;
    mp_time topics = mp_node_topics_deadline(n);
    at = topics < at ? topics : at;
    if (n->run_count == 0)
        return at;
    mp_time runs = mp_node_runs_deadline(n);
    return runs < at ? runs : at;
}

bool mp_node_worker_has(const struct mp_node *n, uint32_t worker, uint64_t call)
{
    return mp_pool_has(&n->pool, worker, call);
}

uint32_t mp_node_outstanding(const struct mp_node *n)
{
    /* What other nodes asked for through here counts as well. */
    return n->rpc.live + n->run_count + n->relay_count + n->deploy_count;
}

uint32_t mp_node_numbers_in_use(const struct mp_node *n)
{
    return n->rpc.used;
}

const struct mp_catalog *mp_node_catalog(const struct mp_node *n)
{
    return &n->catalog;
}

const struct mp_pool *mp_node_pool(const struct mp_node *n)
{
    return &n->pool;
}

const struct mp_membership *mp_node_membership(const struct mp_node *n)
{
    return n->membership;
}

struct mp_slice mp_node_function_of(const struct mp_node *n, uint64_t call)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
    if (!c || c->target.function == MP_RPC_NONE)
        return (struct mp_slice){0};
    return n->catalog.functions[c->target.function].name;
}

const struct mp_deploy *mp_node_deploy(const struct mp_node *n)
{
    return n->deploy;
}

bool mp_node_is_up_to_date(const struct mp_node *n)
{
    return n->release == n->release_wanted && !n->has_entries;
}

uint32_t mp_node_release(const struct mp_node *n)
{
    return n->release;
}

uint32_t mp_node_pin(const struct mp_node *n, struct mp_slice fun)
{
    return mp_node_release_pin(n, n->release, fun, false);
}

uint32_t mp_node_deploy_count(const struct mp_node *n)
{
    return n->deploy_count;
}

uint32_t mp_node_release_count(const struct mp_node *n)
{
    return n->release_count - 1; /* number 0 is no release */
}

uint32_t mp_node_unit_count(const struct mp_node *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->unit_capacity; i++)
        count += n->units[i].state != MP_NODE_UNIT_FREE;
    return count;
}
