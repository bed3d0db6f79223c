/* Runs: graph machines driven by calls. A run's machine is stepped only from here, and never while
 * its own effects are being read: answers to its calls are put off (see node.c).
 *
 * A run that is over keeps its place for a while, with its machine: the log in it is what watchers
 * are told from, and some may lag behind or come late. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/runs_internal.h"
#include "src/wire/msgpack.h"

static struct mp_node_run *find_run(struct mp_node *n, uint64_t number)
{
    uint32_t place = (uint32_t)number;
    if (place >= n->run_capacity || !n->runs[place].graph || n->runs[place].number != number ||
        n->runs[place].is_over)
        return NULL;
    return &n->runs[place];
}

struct mp_node_run *mp_node_run_by_id(struct mp_node *n, struct mp_slice run_id)
{
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (n->runs[i].graph && !n->runs[i].is_plan && n->runs[i].is_begun &&
            mp_slice_is(run_id, n->runs[i].run_id))
            return &n->runs[i];
    return NULL;
}

void mp_node_run_reply(struct mp_node *n, struct mp_node_run *run, uint8_t frame,
                       struct mp_slice bytes)
{
    if (run->is_answered)
        return;
    run->is_answered = true;
    mp_node_reply(n, run->client, run->id, frame, bytes);
}

/* Nobody waits for the run's calls any more. */
void mp_node_run_end(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    const struct mp_rpc_event gone = {.kind = MP_RPC_OWNER_GONE,
                                      .origin = {.kind = MP_RPC_RUN, .owner = run->number}};
    if (run->is_over)
        return;
    run->is_over = true;
    if (!run->is_begun) { /* nothing happened in it */
        run->is_dead = true;
        mp_node_watch_drop(n, run);
    }
    run->ended_at = now;
    run->memory = mp_graph_memory(run->graph) + run->own_graph_size;
    run->over_next = MP_NODE_NONE;
    uint32_t place = (uint32_t)run->number;
    if (n->over_count++ == 0)
        n->over_first = place;
    else
        n->runs[n->over_last].over_next = place;
    n->over_last = place;
    n->is_over_fresh = true;
    n->run_count--;
    mp_node_step_rpc(n, now, &gone, NULL);
    if (!run->is_closing)
        mp_node_run_release(n, run);
}

void mp_node_run_out_of_memory(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    const struct mp_fault fault = {
        .code = MP_CODE_RESOURCE_EXHAUSTED,
        .reason = mp_slice_str("OUT_OF_MEMORY"),
        .message = mp_slice_str("the node has no memory to go on with this run"),
        .node = n->catalog.node};
    mp_node_run_reply(n, run, MP_FRAME_ERROR, mp_node_error(n, &fault));
    mp_node_watch_end(n, run, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                      "the node has no memory to go on with this run");
    mp_node_receipts_end(n, run);
    mp_node_record_lost(n, now, run);
    run->is_dead = true;
    mp_node_run_end(n, now, run);
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
    w->answer.answer.is_confirmed = true;
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
        mp_node_run_out_of_memory(n, now, run);
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
                  .is_part = e->invoke.index != 0,
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

bool mp_node_run_fetch(struct mp_node *n, uint64_t number, uint64_t fetch, struct mp_slice node,
                       uint64_t held)
{
    const struct mp_peer_fetch f = {.held = held, .is_late = fetch >= MP_NODE_GATHER_FIRST};
    uint32_t member = mp_membership_find(n->membership, node);
    struct mp_node_out *o = NULL;
    mp_buf_clear(&n->build);
    if (member != MP_MEMBER_NONE && member != MP_MEMBER_SELF &&
        mp_peer_fetch_put(&n->build, &f) == MP_OK)
        o = mp_node_out_new(n, MP_NODE_OUT_RUN_FETCH, MP_FRAME_FETCH, member, number, fetch,
                            (struct mp_slice){0}, mp_buf_slice(&n->build),
                            (struct mp_rpc_payload){0});
    if (o)
        mp_node_outs_flush(n, o->link);
    return o != NULL;
}

/* A value that stayed where it was made is wanted whole. */
static void fetch(struct mp_node *n, struct mp_node_run *run, const struct mp_graph_effect *e)
{
    if (mp_node_run_fetch(n, run->number, e->fetch.fetch, e->fetch.node, e->fetch.held))
        return;
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

void mp_node_run_release(struct mp_node *n, struct mp_node_run *run)
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

/* Whether others have to go on holding results for it. */
static bool wants_held(const struct mp_node_run *run)
{
    return run->graph && (!run->is_over || run->is_closing);
}

enum mp_err mp_node_put_runs(const struct mp_node *n, struct mp_buf *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->run_capacity; i++)
        count += wants_held(&n->runs[i]);
    enum mp_err err = mp_mp_put_array(b, count);
    for (uint32_t i = 0; err == MP_OK && i < n->run_capacity; i++)
        if (wants_held(&n->runs[i]))
            err = mp_mp_put_uint(b, n->runs[i].number);
    return err;
}

/* The last effect. Who follows is told of the end behind all events. */
static void finish(struct mp_node *n, mp_time now, struct mp_node_run *run,
                   const struct mp_graph_effect *e)
{
    run->answer = e->finished.run; /* the machine is not stepped any more: it stays */
    if (!run->has_follower)
        mp_node_run_reply(n, run, MP_FRAME_RESULT, run->answer);
    mp_node_receipts_end(n, run);
    mp_node_record_ended(n, now, run);
    mp_node_run_end(n, now, run);
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
    case MP_GRAPH_REFUSED:
        mp_node_run_reply(n, run, MP_FRAME_ERROR, e->refused.error);
        mp_node_run_end(n, now, run);
        break;
    case MP_GRAPH_FINISHED:
        finish(n, now, run, e);
        break;
    case MP_GRAPH_RESOLVE:
        break; /* taken up by resolve_all */
    }
}

void mp_node_run_step(struct mp_node *n, mp_time now, struct mp_node_run *run,
                      const struct mp_graph_event *ev)
{
    struct mp_graph_effects out;
    uint64_t before = mp_graph_event_count(run->graph);
    if (mp_graph_step(run->graph, now, ev, &out) != MP_OK) {
        mp_node_run_out_of_memory(n, now, run);
        return;
    }
    run->is_begun = run->is_begun || mp_graph_event_count(run->graph) != 0;
    if (run->is_begun && mp_graph_event_count(run->graph) != before)
        mp_node_record_events(n, now, run, before);
    for (uint32_t i = 0; i < out.count && !run->is_over; i++)
        carry_out(n, now, run, &out.items[i]);
    if (run->watches.size != 0)
        mp_node_watch_tell(n, now, run);
    if (run->is_begun)
        mp_node_run_publish(n, now, run, before);
}

/* --- resolving --- */

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
bool mp_node_run_load(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    struct mp_graph_effects out;
    const struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD,
                                      .load = {.graph = run->graph_bytes, .input = run->input}};
    if (mp_graph_step(run->graph, now, &ev, &out) != MP_OK) {
        mp_node_run_out_of_memory(n, now, run);
        return false;
    }
    uint32_t count = 0;
    struct mp_graph_event *answers = NULL;
    if (out.count != 0)
        answers = (struct mp_graph_event *)(void *)mp_node_scratch(
            n, out.count * sizeof(struct mp_graph_event));
    if (out.count != 0 && !answers) {
        mp_node_run_out_of_memory(n, now, run);
        return false;
    }
    for (uint32_t i = 0; i < out.count; i++)
        if (out.items[i].kind == MP_GRAPH_RESOLVE)
            resolve_one(n, run, &out.items[i], &answers[count++]);
        else
            carry_out(n, now, run, &out.items[i]);
    for (uint32_t i = 0; i < count && !run->is_over; i++)
        mp_node_run_step(n, now, run, &answers[i]);
    return !run->is_over;
}

/* --- places --- */

struct mp_node_run *mp_node_run_take_place(struct mp_node *n)
{
    if (n->run_count >= MP_RUNS_MAX)
        return NULL;
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (!n->runs[i].graph)
            return &n->runs[i];
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
    n->watch_count -= (uint32_t)(run->watches.size / sizeof(struct mp_node_watch));
    mp_buf_fini(&run->holders);
    mp_buf_fini(&run->watches);
    mp_buf_fini(&run->receipts);
    mp_buf_fini(&run->gathers);
    mp_alloc_free(n->alloc, run->graph, mp_graph_size());
    mp_alloc_free(n->alloc, run->own_graph, run->own_graph_size);
    run->graph = NULL;
    run->own_graph = NULL;
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
        ev.completed.is_unconfirmed = !w->answer.answer.is_confirmed;
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
        ev.failed.is_confirmed = w->answer.answer.is_confirmed;
        ev.failed.never_began =
            !w->answer.answer.has_begun &&
            (w->answer.answer.answer == MP_RPC_ERROR ||
             (w->answer.answer.answer == MP_RPC_CANCELLED && w->answer.answer.is_confirmed));
    }
    mp_node_run_step(n, now, run, &ev);
}

void mp_node_run_fetched(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_run *run = find_run(n, w->call);
    const struct mp_graph_event ev = {
        .kind = MP_GRAPH_FETCHED,
        .fetched = {.fetch = w->fetch, .is_lost = w->is_lost, .value = w->payload}};
    uint32_t place = (uint32_t)w->call;
    if (w->fetch < MP_NODE_GATHER_FIRST) {
        if (run)
            mp_node_run_step(n, now, run, &ev);
    } else if (place < n->run_capacity && n->runs[place].number == w->call &&
               n->runs[place].graph) {
        mp_node_record_gathered(n, &n->runs[place], w->fetch, w->is_lost, w->payload);
    }
}

void mp_node_runs_lost(struct mp_node *n, mp_time now, struct mp_slice node)
{
    for (uint32_t i = 0; n->run_count != 0 && i < n->run_capacity; i++) {
        const struct mp_graph_event lost = {.kind = MP_GRAPH_LOST, .lost = {.node = node}};
        if (n->runs[i].graph && !n->runs[i].is_over)
            mp_node_run_step(n, now, &n->runs[i], &lost);
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
        mp_node_run_step(n, now, run, &cancel);
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
        mp_node_run_step(n, now, run, &cancel);
    }
}

void mp_node_runs_tick(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 0; i < n->run_capacity; i++) {
        struct mp_node_run *run = &n->runs[i];
        if (!run->graph || run->is_over)
            continue;
        if (run->keep_at <= now)
            mp_node_record_progress(n, now, run);
        if (mp_graph_deadline(run->graph) > now)
            continue;
        const struct mp_graph_event due = {.kind = MP_GRAPH_TIMER};
        mp_node_run_step(n, now, run, &due);
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
        at = n->runs[i].keep_at < at ? n->runs[i].keep_at : at;
    }
    return at;
}

/* Whether nobody needs the place of a run that is over. */
static bool is_done(const struct mp_node *n, const struct mp_node_run *run)
{
    if (run->gathers.size != 0 || run->watches.size != 0)
        return false;
    return run->is_plan || run->is_dead || n->over_count > MP_RUNS_RECENT_MAX ||
           run->memory > MP_RUNS_RECENT_BYTES;
}

void mp_node_runs_sweep(struct mp_node *n)
{
    uint32_t last = MP_NODE_NONE;
    n->is_over_fresh = false;
    for (uint32_t place = n->over_count != 0 ? n->over_first : MP_NODE_NONE;
         place != MP_NODE_NONE;) {
        struct mp_node_run *run = &n->runs[place];
        uint32_t next = run->over_next;
        if (!is_done(n, run)) {
            last = place;
        } else {
            if (last == MP_NODE_NONE)
                n->over_first = next;
            else
                n->runs[last].over_next = next;
            free_run(n, run);
            n->over_count--;
        }
        place = next;
    }
    n->over_last = last;
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
