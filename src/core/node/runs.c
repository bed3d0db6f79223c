/* Runs: graph machines driven by calls. A run's machine is stepped only from here, and never while
 * its own effects are being read: answers to its calls are put off (see node.c). */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

static struct mp_node_run *find_run(struct mp_node *n, uint64_t number)
{
    uint32_t place = (uint32_t)number;
    if (place >= n->run_capacity || !n->runs[place].graph || n->runs[place].number != number ||
        n->runs[place].is_over)
        return NULL;
    return &n->runs[place];
}

static void reply(struct mp_node *n, struct mp_node_run *run, uint8_t frame, struct mp_slice bytes)
{
    if (run->is_answered)
        return;
    run->is_answered = frame != MP_FRAME_EVENT;
    mp_node_reply(n, run->client, run->id, frame, bytes);
}

static void release(struct mp_node *n, struct mp_node_run *run);

/* Nobody waits for the run's calls any more. */
static void end_run(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    const struct mp_rpc_event gone = {.kind = MP_RPC_OWNER_GONE,
                                      .origin = {.kind = MP_RPC_RUN, .owner = run->number}};
    run->is_over = true;
    mp_node_step_rpc(n, now, &gone, NULL);
    release(n, run);
}

static void out_of_memory(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    const struct mp_fault fault = {
        .code = MP_CODE_RESOURCE_EXHAUSTED,
        .reason = mp_slice_str("OUT_OF_MEMORY"),
        .message = mp_slice_str("the node has no memory to go on with this run"),
        .node = n->catalog.node};
    reply(n, run, MP_FRAME_ERROR, mp_node_error(n, &fault));
    end_run(n, now, run);
}

/* --- effects of a graph --- */

static struct mp_slice put_context(struct mp_node *n, struct mp_node_run *run,
                                   const struct mp_graph_effect *e)
{
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_put_array(&b, 4);
    if (err == MP_OK)
        err = mp_mp_put_text(&b, run->run_id);
    if (err == MP_OK)
        err = mp_mp_put_str(&b, e->invoke.name);
    if (err == MP_OK)
        err = e->invoke.index != 0 ? mp_mp_put_uint(&b, e->invoke.index) : mp_mp_put_nil(&b);
    if (err == MP_OK)
        err = mp_mp_put_uint(&b, e->invoke.attempt);
    struct mp_slice kept = err == MP_OK ? mp_node_keep(n, mp_buf_slice(&b)) : mp_slice_of(NULL, 0);
    mp_buf_fini(&b);
    return kept;
}

/* An invocation that could not even begin. */
static void fail_invocation(struct mp_node *n, struct mp_node_run *run,
                            const struct mp_graph_effect *e, struct mp_slice error)
{
    struct mp_node_work *w = mp_node_put_off(n, MP_NODE_WORK_RUN_ANSWER, 0);
    w->answer.answer.answer = MP_RPC_ERROR;
    w->answer.answer.function = MP_RPC_NONE;
    w->answer.answer.origin = (struct mp_rpc_origin){
        .kind = MP_RPC_RUN, .owner = run->number, .id = e->invoke.invocation};
    w->payload = error;
}

static void invoke(struct mp_node *n, mp_time now, struct mp_node_run *run,
                   const struct mp_graph_effect *e)
{
    const struct mp_catalog_query q = {
        .fun = e->invoke.fun,
        .pin = mp_node_release_pin(n, run->release, e->invoke.fun, false),
        .version = e->invoke.version,
        .on = e->invoke.on,
        .cluster = e->invoke.cluster,
        .needs = e->invoke.needs,
        .needs_count = e->invoke.needs_count};
    bool is_ours = q.cluster.size == 0 || mp_slice_equal(q.cluster, n->catalog.cluster);
    struct mp_slice key = mp_node_key(n, &q);
    const struct mp_catalog_function *f = is_ours ? mp_node_find(n, key) : NULL;
    if (!mp_node_make_room(n)) {
        out_of_memory(n, now, run);
        return;
    }
    if (!f) {
        fail_invocation(n, run, e, mp_node_explain(n, &q));
        return;
    }
    mp_time deadline = e->invoke.deadline;
    const struct mp_rpc_event begin = {
        .kind = MP_RPC_BEGIN,
        .begin = {.origin = {.kind = MP_RPC_RUN, .owner = run->number, .id = e->invoke.invocation},
                  .target = mp_node_target(f),
                  .args = {.bytes = e->invoke.args},
                  .context = put_context(n, run, e),
                  .query = key,
                  .marks = e->invoke.has_holes ? MP_NODE_HAS_HOLES : 0,
                  .release = run->release,
                  .deadline = deadline},
    };
    n->route_hint = n->route_found;
    if (mp_node_step_rpc(n, now, &begin, NULL))
        return;
    const struct mp_fault fault = {.code = MP_CODE_RESOURCE_EXHAUSTED,
                                   .reason = mp_slice_str("OUT_OF_MEMORY"),
                                   .message =
                                       mp_slice_str("the node has no memory for another call"),
                                   .node = n->catalog.node};
    fail_invocation(n, run, e, mp_node_error(n, &fault));
}

/* A value that stayed where it was made is wanted whole. */
static void fetch(struct mp_node *n, struct mp_node_run *run, const struct mp_graph_effect *e)
{
    const struct mp_peer_fetch f = {.held = e->fetch.held};
    uint32_t member = mp_membership_find(n->membership, e->fetch.node);
    struct mp_node_out *o = NULL;
    mp_buf_clear(&n->build);
    if (member != MP_MEMBER_NONE && member != MP_MEMBER_SELF &&
        mp_peer_fetch_put(&n->build, &f) == MP_OK)
        o = mp_node_out_new(n, MP_NODE_OUT_RUN_FETCH, MP_FRAME_FETCH, member, run->number,
                            e->fetch.fetch, (struct mp_slice){0}, mp_buf_slice(&n->build),
                            (struct mp_rpc_payload){0});
    if (o) {
        mp_node_outs_flush(n, o->link);
        return;
    }
    struct mp_node_work *w = mp_node_put_off(n, MP_NODE_WORK_FETCHED, run->number);
    w->fetch = e->fetch.fetch;
    w->is_lost = true;
}

/* Remembers who holds something for the run; without memory it is said to everybody. */
static void note_holder(struct mp_node_run *run, uint32_t member)
{
    if (run->is_held_anywhere)
        return;
    for (size_t at = 0; at < run->holders.size; at += sizeof(member))
        if (memcmp(run->holders.data + at, &member, sizeof(member)) == 0)
            return;
    if (mp_buf_append(&run->holders, mp_slice_of(&member, sizeof(member))) != MP_OK)
        run->is_held_anywhere = true;
}

void mp_node_run_note_holder(struct mp_node *n, uint64_t number, uint32_t member)
{
    struct mp_node_run *run = find_run(n, number);
    if (run)
        note_holder(run, member);
}

static void say_release(struct mp_node *n, uint64_t run, uint32_t member)
{
    struct mp_member_info info;
    if (member == MP_MEMBER_SELF || !mp_membership_get(n->membership, member, &info) ||
        info.state == MP_MEMBER_DEAD)
        return;
    mp_buf_clear(&n->build);
    const struct mp_peer_release r = {.run = run, .coordinator = n->catalog.node};
    if (mp_peer_release_put(&n->build, &r) != MP_OK) {
        n->is_out_of_memory = true;
        return;
    }
    struct mp_node_out *o =
        mp_node_out_new(n, MP_NODE_OUT_RELEASE, MP_FRAME_RELEASE, member, run, 0,
                        (struct mp_slice){0}, mp_buf_slice(&n->build), (struct mp_rpc_payload){0});
    if (o)
        mp_node_outs_flush(n, o->link);
}

/* What was kept for the run, here and elsewhere, is given back. */
static void release(struct mp_node *n, struct mp_node_run *run)
{
    mp_node_outs_of_run_over(n, run->number);
    mp_node_release_run(n, MP_MEMBER_SELF, run->number);
    for (size_t at = 0; !run->is_held_anywhere && at < run->holders.size; at += sizeof(uint32_t)) {
        uint32_t member;
        memcpy(&member, run->holders.data + at, sizeof(member));
        say_release(n, run->number, member);
    }
    for (uint32_t i = 1; run->is_held_anywhere && i < mp_membership_end(n->membership); i++)
        say_release(n, run->number, i);
    mp_buf_clear(&run->holders);
    run->is_held_anywhere = false;
}

void mp_node_run_may_be_held(struct mp_node *n, uint64_t number, uint32_t member)
{
    struct mp_node_run *run = find_run(n, number);
    if (run)
        note_holder(run, member);
    else
        say_release(n, number, member);
}

enum mp_err mp_node_put_runs(const struct mp_node *n, struct mp_buf *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->run_capacity; i++)
        count += n->runs[i].graph && !n->runs[i].is_over;
    enum mp_err err = mp_mp_put_array(b, count);
    for (uint32_t i = 0; err == MP_OK && i < n->run_capacity; i++)
        if (n->runs[i].graph && !n->runs[i].is_over)
            err = mp_mp_put_uint(b, n->runs[i].number);
    return err;
}

/* An event is left out when there is no memory for it: nothing depends on it. */
static void tell_event(struct mp_node *n, struct mp_node_run *run, struct mp_slice body)
{
    if (!run->has_events || run->is_detached || !mp_node_make_room(n))
        return;
    struct mp_slice kept = mp_node_keep(n, body);
    if (kept.size != 0)
        reply(n, run, MP_FRAME_EVENT, kept);
}

static void carry_out(struct mp_node *n, mp_time now, struct mp_node_run *run,
                      const struct mp_graph_effect *e)
{
    const struct mp_rpc_event cancel = {
        .kind = MP_RPC_CANCEL_ORIGIN,
        .origin = {.kind = MP_RPC_RUN, .owner = run->number, .id = e->cancel.invocation}};
    switch (e->kind) {
    case MP_GRAPH_INVOKE:
        invoke(n, now, run, e);
        break;
    case MP_GRAPH_CANCEL:
        mp_node_step_rpc(n, now, &cancel, NULL);
        break;
    case MP_GRAPH_FETCH:
        fetch(n, run, e);
        break;
    case MP_GRAPH_EVENT:
        tell_event(n, run, e->event.body);
        break;
    case MP_GRAPH_REFUSED:
        reply(n, run, MP_FRAME_ERROR, e->refused.error);
        end_run(n, now, run);
        break;
    case MP_GRAPH_FINISHED:
        reply(n, run, MP_FRAME_RESULT, e->finished.run);
        end_run(n, now, run);
        break;
    case MP_GRAPH_RESOLVE:
        break; /* taken up by resolve_all */
    }
}

static void step_graph(struct mp_node *n, mp_time now, struct mp_node_run *run,
                       const struct mp_graph_event *ev)
{
    struct mp_graph_effects out;
    if (mp_graph_step(run->graph, now, ev, &out) != MP_OK) {
        out_of_memory(n, now, run);
        return;
    }
    for (uint32_t i = 0; i < out.count && !run->is_over; i++)
        carry_out(n, now, run, &out.items[i]);
}

/* --- beginning a run --- */

/* Where a call would go now, without one going there. */
static struct mp_router_provider plan_provider(struct mp_node *n, uint32_t route)
{
    uint32_t count = 0;
    const struct mp_router_provider *all = mp_router_candidates(n->router, route, &count);
    struct mp_router_provider provider = all[0];
    struct mp_router_effects out;
    const struct mp_router_event pick = {
        .kind = MP_ROUTER_PICK,
        .pick = {.route = route, .is_local_busy = mp_pool_is_busy(&n->pool)}};
    if (count == 1 || mp_router_step(n->router, n->now, &pick, &out) != MP_OK || !out.is_picked)
        return provider;
    provider = out.provider;
    const struct mp_router_event ended = {
        .kind = MP_ROUTER_ENDED, .ended = {.node = provider.node, .function = provider.function}};
    if (mp_router_step(n->router, n->now, &ended, &out) != MP_OK)
        n->is_out_of_memory = true;
    return provider;
}

/* Workers of all candidates together. */
static uint32_t workers_of(struct mp_node *n, uint32_t route)
{
    uint32_t count = 0;
    uint32_t workers = 0;
    const struct mp_router_provider *all = mp_router_candidates(n->router, route, &count);
    for (uint32_t i = 0; i < count && i < MP_PLAN_PROVIDERS_MAX; i++) {
        struct mp_catalog_about about;
        if (mp_catalog_about(&n->catalog, all[i].node, &about))
            workers += about.workers;
    }
    return workers != 0 ? workers : 1;
}

static void resolve_one(struct mp_node *n, const struct mp_node_run *run,
                        const struct mp_graph_effect *e, struct mp_graph_event *ev)
{
    const struct mp_catalog_query q = {
        .fun = e->resolve.fun,
        .pin = mp_node_release_pin(n, run->release, e->resolve.fun, false),
        .version = e->resolve.version,
        .on = e->resolve.on,
        .cluster = e->resolve.cluster,
        .needs = e->resolve.needs,
        .needs_count = e->resolve.needs_count};
    bool is_ours = q.cluster.size == 0 || mp_slice_equal(q.cluster, n->catalog.cluster);
    struct mp_slice key = mp_node_key(n, &q);
    const struct mp_catalog_function *f = is_ours ? mp_node_find(n, key) : NULL;
    *ev = (struct mp_graph_event){.kind = MP_GRAPH_RESOLVED};
    ev->resolved.step = e->resolve.step;
    if (f) {
        uint32_t route = mp_node_route(n, key);
        ev->resolved.version = n->catalog.modules[f->module].version_text;
        ev->resolved.node = mp_node_member_name(n, plan_provider(n, route).node);
        ev->resolved.workers = workers_of(n, route);
        ev->resolved.is_idempotent = f->is_idempotent;
        return;
    }
    /* Read back from its encoded form, so that all its texts lie in scratch memory. */
    ev->resolved.is_refused = true;
    struct mp_slice error = mp_node_explain(n, &q);
    if (mp_fault_read(error, &ev->resolved.fault) != MP_OK)
        ev->resolved.fault = (struct mp_fault){.code = MP_CODE_RESOURCE_EXHAUSTED,
                                               .reason = mp_slice_str("OUT_OF_MEMORY")};
}

/* LOAD, and an answer to each RESOLVE. False if the run is over already. */
static bool load(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    struct mp_graph_effects out;
    const struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD,
                                      .load = {.graph = run->graph_bytes, .input = run->input}};
    if (mp_graph_step(run->graph, now, &ev, &out) != MP_OK) {
        out_of_memory(n, now, run);
        return false;
    }
    uint32_t count = 0;
    struct mp_graph_event *answers = NULL;
    if (out.count != 0)
        answers = (struct mp_graph_event *)(void *)mp_node_scratch(
            n, out.count * sizeof(struct mp_graph_event));
    if (out.count != 0 && !answers) {
        out_of_memory(n, now, run);
        return false;
    }
    for (uint32_t i = 0; i < out.count; i++)
        if (out.items[i].kind == MP_GRAPH_RESOLVE)
            resolve_one(n, run, &out.items[i], &answers[count++]);
        else
            carry_out(n, now, run, &out.items[i]);
    for (uint32_t i = 0; i < count && !run->is_over; i++)
        step_graph(n, now, run, &answers[i]);
    return !run->is_over;
}

/* ULID (github.com/ulid/spec): 48 bits of Unix milliseconds, 80 random bits, of which the first 32
 * name the coordinator; Crockford's base 32. */
static void make_run_id(struct mp_node *n, int64_t wall_ms, char out[27])
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    uint8_t bytes[16];
    uint64_t random = mp_rng_next(&n->rng);
    for (int i = 0; i < 6; i++)
        bytes[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
    for (int i = 0; i < 4; i++)
        bytes[6 + i] = (uint8_t)(n->identity >> (24 - 8 * i));
    for (int i = 0; i < 6; i++)
        bytes[10 + i] = (uint8_t)(random >> (8 * i));
    /* 128 bits as 26 digits of 5: the first digit holds the top 3. */
    unsigned bit = 0;
    for (int i = 0; i < 26; i++) {
        unsigned take = i == 0 ? 3 : 5;
        unsigned value = 0;
        for (unsigned k = 0; k < take; k++, bit++)
            value = value << 1 | (bytes[bit / 8] >> (7 - bit % 8) & 1u);
        out[i] = digits[value];
    }
    out[26] = '\0';
}

static struct mp_node_run *take_place(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (!n->runs[i].graph)
            return &n->runs[i];
    if (n->run_capacity >= MP_RUNS_MAX)
        return NULL;
    uint32_t capacity = n->run_capacity == 0 ? 8 : n->run_capacity * 2;
    void *grown = n->alloc->resize(n->alloc->context, n->runs, n->run_capacity * sizeof(*n->runs),
                                   capacity * sizeof(*n->runs));
    if (!grown)
        return NULL;
    n->runs = (struct mp_node_run *)grown;
    memset(n->runs + n->run_capacity, 0, (capacity - n->run_capacity) * sizeof(*n->runs));
    for (uint32_t i = n->run_capacity; i < capacity; i++)
        n->runs[i].number = i;
    struct mp_node_run *run = &n->runs[n->run_capacity];
    n->run_capacity = capacity;
    return run;
}

static void free_run(struct mp_node *n, struct mp_node_run *run)
{
    mp_graph_fini(run->graph);
    mp_buf_fini(&run->holders);
    mp_alloc_free(n->alloc, run->graph, mp_graph_size());
    mp_alloc_free(n->alloc, run->own_graph, run->own_graph_size);
    run->graph = NULL;
    run->own_graph = NULL;
    n->run_count--;
}

/* Copies graph and input, which the machine borrows as long as it lives. */
static bool copy_graph(struct mp_node *n, struct mp_node_run *run, struct mp_slice graph,
                       struct mp_slice input)
{
    size_t size = graph.size + input.size;
    uint8_t *bytes = mp_alloc_take(n->alloc, size + 1);
    if (!bytes)
        return false;
    if (graph.size != 0)
        memcpy(bytes, graph.data, graph.size);
    if (input.size != 0)
        memcpy(bytes + graph.size, input.data, input.size);
    run->own_graph = bytes;
    run->own_graph_size = size + 1;
    run->graph_bytes = mp_slice_of(bytes, graph.size);
    run->input = mp_slice_of(bytes + graph.size, input.size);
    return true;
}

static bool init_graph(struct mp_node *n, struct mp_node_run *run, const struct mp_run_options *o)
{
    const struct mp_graph_config cfg = {
        .run_id = mp_slice_str(run->run_id),
        .node = n->catalog.node,
        .steps_max = n->cfg.graph_steps_max,
        .value_bytes_max = n->cfg.value_bytes_max,
        .kept_bytes_max = MP_RUN_KEPT_BYTES_MAX,
        .timeout = o->timeout_ms != 0 ? MP_MS(o->timeout_ms) : n->cfg.run_timeout,
        .has_trace = o->has_trace,
        .has_events = o->has_events,
        .is_plan = run->is_plan,
    };
    run->graph = (struct mp_graph *)mp_alloc_take(n->alloc, mp_graph_size());
    if (!run->graph)
        return false;
    if (mp_graph_init(run->graph, &cfg, n->alloc, mp_rng_next(&n->rng)) == MP_OK)
        return true;
    mp_alloc_free(n->alloc, run->graph, mp_graph_size());
    run->graph = NULL;
    return false;
}

static bool has_key(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    return mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK;
}

/* The graph and the input that a RUN's payload names: itself, or a pipeline's. False: refused. */
static bool find_graph(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice *graph,
                       struct mp_slice *input)
{
    struct mp_slice payload = ev->request.payload.bytes;
    struct mp_slice value;
    struct mp_slice name;
    *input = (struct mp_slice){0};
    *graph = payload;
    if (mp_mp_check(payload) != MP_OK) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", "the graph is no well-formed MessagePack");
        return false;
    }
    if (mp_mp_map_get(payload, mp_slice_str("pipeline"), &value) != MP_OK)
        return true;
    uint32_t pairs;
    struct mp_mp_reader r;
    if (mp_mp_get_map(payload, &pairs, &r) == MP_OK &&
        pairs > (has_key(payload, "input") ? 2u : 1u)) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", "unknown key beside pipeline (known: input)");
        return false;
    }
    if (mp_mp_get_str(value, &name) != MP_OK) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", "pipeline: expected a name");
        return false;
    }
    char message_bytes[256];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    uint32_t pin = mp_node_release_pin(n, n->release, name, true);
    if (!mp_catalog_pipeline(&n->catalog, name, pin, graph, &fault, &message, &hint)) {
        fault.node = n->catalog.node;
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR,
                      mp_node_error(n, &fault));
        return false;
    }
    if (mp_mp_map_get(payload, mp_slice_str("input"), &value) == MP_OK)
        *input = value;
    return true;
}

static struct mp_node_run *begin_run(struct mp_node *n, const struct mp_node_event *ev,
                                     const struct mp_run_options *o, bool is_plan)
{
    struct mp_slice graph;
    struct mp_slice input;
    if (!find_graph(n, ev, &graph, &input))
        return NULL;
    struct mp_node_run *run = mp_node_make_room(n) ? take_place(n) : NULL;
    if (!run) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "QUEUE_FULL", "the node has as many runs as it takes at once");
        return NULL;
    }
    uint64_t number = run->number + (1ull << 32);
    *run = (struct mp_node_run){.number = number,
                                .client = ev->request.client,
                                .id = ev->request.id,
                                .has_events = o->has_events,
                                .is_detached = o->is_detached,
                                .release = n->release,
                                .is_plan = is_plan};
    mp_buf_init(&run->holders, n->alloc, 0);
    make_run_id(n, ev->request.wall_ms, run->run_id);
    if (!copy_graph(n, run, graph, input) || !init_graph(n, run, o)) {
        mp_alloc_free(n->alloc, run->own_graph, run->own_graph_size);
        run->own_graph = NULL;
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory for another run");
        return NULL;
    }
    n->run_count++;
    return run;
}

static void tell_run_id(struct mp_node *n, struct mp_node_run *run)
{
    struct mp_buf b;
    struct mp_slice told = {0};
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_put_map(&b, 1);
    if (err == MP_OK)
        err = mp_mp_put_text(&b, "run_id");
    if (err == MP_OK)
        err = mp_mp_put_text(&b, run->run_id);
    if (err == MP_OK)
        told = mp_node_keep(n, mp_buf_slice(&b));
    reply(n, run, MP_FRAME_RESULT, told);
    mp_buf_fini(&b);
}

static void release_request(struct mp_node *n, const struct mp_node_event *ev)
{
    if (ev->request.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->request.payload;
}

void mp_node_run(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_run_options o;
    const char *why = "";
    struct mp_node_run *run = NULL;
    if (n->is_draining)
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNAVAILABLE, "DRAINING",
                       "the node is about to stop");
    else if (mp_run_options_read(ev->request.meta, &o, &why) != MP_OK)
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", why);
    else
        run = begin_run(n, ev, &o, false);
    release_request(n, ev);
    if (!run || !load(n, now, run))
        return;
    uint64_t number = run->number;
    const struct mp_graph_event start = {.kind = MP_GRAPH_START};
    if (run->is_detached) {
        /* What is refused is told at once; only what began is left alone. */
        run->is_detached = false;
        step_graph(n, now, run, &start);
        run = &n->runs[(uint32_t)number];
        if (run->number != number || run->is_answered)
            return;
        tell_run_id(n, run);
        run->is_detached = true;
        return;
    }
    step_graph(n, now, run, &start);
}

void mp_node_plan(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_run_options o = {0};
    struct mp_node_run *run = begin_run(n, ev, &o, true);
    if (!run || !load(n, now, run))
        return;
    struct mp_buf plan;
    mp_buf_init(&plan, n->alloc, 0);
    enum mp_err err = mp_graph_put_plan(run->graph, &plan);
    if (err == MP_OK) {
        reply(n, run, MP_FRAME_RESULT, mp_node_keep(n, mp_buf_slice(&plan)));
        run->is_over = true;
    } else if (err == MP_EINVAL) {
        const struct mp_graph_event start = {.kind = MP_GRAPH_START};
        step_graph(n, now, run, &start); /* it has faults, so this refuses */
        run->is_over = true;
    } else {
        out_of_memory(n, now, run);
    }
    mp_buf_fini(&plan);
}

/* --- going on --- */

void mp_node_run_answer(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_run *run = find_run(n, w->answer.answer.origin.owner);
    /* Also if the run has ended a moment ago. */
    if (w->member != MP_MEMBER_SELF && (w->is_held || w->has_copies))
        mp_node_run_may_be_held(n, w->answer.answer.origin.owner, w->member);
    if (!run)
        return;
    struct mp_graph_event ev = {0};
    struct mp_slice version = {0};
    uint32_t function = w->answer.answer.function;
    if (function != MP_RPC_NONE)
        version = n->catalog.modules[n->catalog.functions[function].module].version_text;
    if (w->answer.answer.answer == MP_RPC_RESULT) {
        ev.kind = MP_GRAPH_COMPLETED;
        ev.completed.invocation = w->answer.answer.origin.id;
        ev.completed.value = w->payload;
        ev.completed.node = mp_node_member_name(n, w->member);
        ev.completed.bytes_moved = w->moved;
        ev.completed.is_held = w->is_held;
        ev.completed.held = w->held;
        ev.completed.held_bytes = w->held_bytes;
        ev.completed.version = version;
        ev.completed.worker = w->worker;
        ev.completed.bytes_in = w->bytes_in;
        ev.completed.timing = w->timing;
    } else {
        ev.kind = MP_GRAPH_FAILED_CALL;
        ev.failed.invocation = w->answer.answer.origin.id;
        ev.failed.error = w->payload;
        ev.failed.node = mp_node_member_name(n, w->member);
        ev.failed.bytes_moved = w->moved;
        ev.failed.version = version;
        ev.failed.worker = w->worker;
        ev.failed.bytes_in = w->bytes_in;
        ev.failed.timing = w->timing;
        ev.failed.never_began =
            !w->answer.answer.has_begun && w->answer.answer.answer == MP_RPC_ERROR;
    }
    step_graph(n, now, run, &ev);
}

void mp_node_run_fetched(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_run *run = find_run(n, w->call);
    const struct mp_graph_event ev = {
        .kind = MP_GRAPH_FETCHED,
        .fetched = {.fetch = w->fetch, .is_lost = w->is_lost, .value = w->payload}};
    if (run)
        step_graph(n, now, run, &ev);
}

void mp_node_runs_lost(struct mp_node *n, mp_time now, struct mp_slice node)
{
    for (uint32_t i = 0; n->run_count != 0 && i < n->run_capacity; i++) {
        const struct mp_graph_event lost = {.kind = MP_GRAPH_LOST, .lost = {.node = node}};
        if (n->runs[i].graph && !n->runs[i].is_over)
            step_graph(n, now, &n->runs[i], &lost);
    }
}

bool mp_node_run_cancel(struct mp_node *n, mp_time now, uint64_t client, uint64_t id)
{
    for (uint32_t i = 0; i < n->run_capacity; i++) {
        struct mp_node_run *run = &n->runs[i];
        if (!run->graph || run->is_over || run->is_answered || run->client != client ||
            run->id != id)
            continue;
        const struct mp_graph_event cancel = {.kind = MP_GRAPH_CANCEL_RUN};
        step_graph(n, now, run, &cancel);
        return true;
    }
    return false;
}

void mp_node_runs_of_client_gone(struct mp_node *n, mp_time now, uint64_t client)
{
    for (uint32_t i = 0; i < n->run_capacity; i++) {
        struct mp_node_run *run = &n->runs[i];
        if (!run->graph || run->is_over || run->is_detached || run->client != client)
            continue;
        const struct mp_graph_event cancel = {.kind = MP_GRAPH_CANCEL_RUN};
        run->is_answered = true;
        step_graph(n, now, run, &cancel);
    }
}

void mp_node_runs_tick(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 0; i < n->run_capacity; i++) {
        struct mp_node_run *run = &n->runs[i];
        if (!run->graph || run->is_over || mp_graph_deadline(run->graph) > now)
            continue;
        const struct mp_graph_event due = {.kind = MP_GRAPH_TIMER};
        step_graph(n, now, run, &due);
    }
}

mp_time mp_node_runs_deadline(const struct mp_node *n)
{
    mp_time at = MP_NEVER;
    for (uint32_t i = 0; n->run_count != 0 && i < n->run_capacity; i++) {
        if (!n->runs[i].graph || n->runs[i].is_over)
            continue;
        mp_time deadline = mp_graph_deadline(n->runs[i].graph);
        at = deadline < at ? deadline : at;
    }
    return at;
}

void mp_node_runs_sweep(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (n->runs[i].graph && n->runs[i].is_over)
            free_run(n, &n->runs[i]);
}

void mp_node_runs_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (n->runs[i].graph)
            free_run(n, &n->runs[i]);
    mp_alloc_free(n->alloc, n->runs, n->run_capacity * sizeof(*n->runs));
    n->runs = NULL;
    n->run_capacity = 0;
}
