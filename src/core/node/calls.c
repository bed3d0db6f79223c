/* Calls: from a request to an attempt in the worker pool and back to whoever asked. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/msgpack.h"

#define CLOCK_AHEAD_MAX MP_SECONDS(1)

static const char args_too_large[] = "the arguments are larger than --value-max allows";

struct mp_rpc_target mp_node_target(const struct mp_catalog_function *f)
{
    return (struct mp_rpc_target){.function = f->key,
                                  .concurrency = f->concurrency,
                                  .is_idempotent = f->is_idempotent,
                                  .timeout = f->timeout};
}

/* --- stepping the machines --- */

struct mp_slice mp_node_context_of(struct mp_node *n, const struct mp_rpc_call *c)
{
    if (c->attempt <= 1)
        return c->context;
    struct mp_buf b;
    struct mp_mp_reader r;
    uint32_t count = 0;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_put_array(&b, 5);
    if (mp_mp_get_array(c->context, &count, &r) != MP_OK)
        count = 0;
    for (uint32_t i = 0; err == MP_OK && i < 5; i++) {
        struct mp_slice item = {0};
        if (i < count && mp_mp_take(&r, &item) != MP_OK)
            item.size = 0;
        err = i == 3           ? mp_mp_put_uint(&b, c->attempt)
              : item.size != 0 ? mp_mp_put_raw(&b, item)
                               : mp_mp_put_nil(&b);
    }
    struct mp_slice kept = err == MP_OK ? mp_node_keep(n, mp_buf_slice(&b)) : c->context;
    mp_buf_fini(&b);
    return kept;
}

static void send(struct mp_node *n, const struct mp_pool_effect *e)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, e->task);
    const struct mp_node_attempt *a = mp_node_attempt_of(n, e->task);
    mp_assert(c && a && a->function < n->catalog.function_count);
    const struct mp_catalog_function *f = &n->catalog.functions[a->function];
    struct mp_node_effect *out = mp_node_emit(n, MP_NODE_SEND);
    out->worker = e->worker;
    out->id = c->id;
    out->module = n->catalog.modules[f->module].host_module;
    out->function = f->index;
    out->release = c->release;
    out->deadline = c->attempt_deadline;
    out->payload = c->args;
    if (a->fill)
        out->payload = (struct mp_rpc_payload){.bytes = mp_node_filled(a)};
    if (c->context.size != 0 || c->attempt > 1) {
        struct mp_slice context = mp_node_context_of(n, c);
        n->effects[n->effect_count - 1].context = context;
    }
}

static void tell_cancelled(struct mp_node *n, const struct mp_pool_effect *e)
{
    const struct mp_fault fault = {.code = MP_CODE_CANCELLED,
                                   .reason = mp_slice_str("CANCELLED"),
                                   .message = mp_slice_str("nobody waits for this call any more")};
    struct mp_slice error = mp_node_error(n, &fault);
    struct mp_node_effect *out = mp_node_emit(n, MP_NODE_CANCEL_CALL);
    out->worker = e->worker;
    out->id = e->task;
    out->payload.bytes = error;
}

bool mp_node_step_pool(struct mp_node *n, mp_time now, const struct mp_pool_event *ev)
{
    static const enum mp_node_effect_kind same[] = {
        [MP_POOL_REVOKE] = MP_NODE_REVOKE,      [MP_POOL_PROBE] = MP_NODE_PROBE,
        [MP_POOL_START] = MP_NODE_WORKER_START, [MP_POOL_STOP] = MP_NODE_WORKER_STOP,
        [MP_POOL_KILL] = MP_NODE_WORKER_KILL,
    };
    struct mp_pool_effects out;
    if (mp_pool_step(&n->pool, now, ev, &out) != MP_OK) {
        n->is_out_of_memory = true;
        return false;
    }
    for (uint32_t i = 0; i < out.count; i++) {
        const struct mp_pool_effect *e = &out.items[i];
        if (e->kind == MP_POOL_SEND) {
            send(n, e);
        } else if (e->kind == MP_POOL_END) {
            mp_node_put_off(n, MP_NODE_WORK_POOL_END, e->task)->end = e->end;
        } else if (e->kind == MP_POOL_CANCEL_CALL) {
            tell_cancelled(n, e);
        } else {
            struct mp_node_effect *effect = mp_node_emit(n, same[e->kind]);
            effect->worker = e->worker;
            effect->id = e->task;
        }
    }
    return true;
}

/* The payload of the answer at hand: the worker's, or an ERROR map of our own. */
static struct mp_slice answer_bytes(struct mp_node *n, const struct mp_rpc_effect *e)
{
    if (e->answer.answer == MP_RPC_RESULT)
        return n->completion.payload.bytes;
    if (e->answer.answer != MP_RPC_ERROR)
        return mp_node_answer_error(n, e);
    /* Which attempt it was, the node where the call came from knows. */
    bool is_counted = e->answer.has_begun && e->answer.origin.kind != MP_RPC_PEER;
    return mp_node_error_of_call(n, n->completion.payload.bytes, e->answer.function,
                                 is_counted ? e->answer.attempt : 0);
}

/* A large result goes on in its shared block; an error was encoded anew. */
static uint64_t take_handle(struct mp_node *n, const struct mp_rpc_effect *e)
{
    if (e->answer.answer != MP_RPC_RESULT)
        return 0;
    uint64_t handle = n->completion.payload.handle;
    n->completion.payload.handle = 0;
    return handle;
}

/* Where the time went, of an answer that another node gave. */
static void time_away(mp_time now, const struct mp_node_completion *c, struct mp_node_work *w)
{
    mp_duration all = now > c->submitted_at ? now - c->submitted_at : 0;
    bool is_sound = c->peer.run_ns <= all && c->peer.queue_ns <= all - c->peer.run_ns;
    w->moved = c->bytes_in + c->peer.moved;
    w->is_held = (c->peer.flags & MP_PEER_IS_HELD) != 0 && !c->is_error;
    w->held = c->peer.held;
    w->held_bytes = c->peer.held_bytes;
    if (!w->is_held)
        w->moved += c->payload.bytes.size;
    if (is_sound)
        w->timing = (struct mp_graph_timing){.queue = c->peer.queue_ns,
                                             .run = c->peer.run_ns,
                                             .network = all - c->peer.run_ns - c->peer.queue_ns};
}

static void answer_run(struct mp_node *n, mp_time now, const struct mp_rpc_effect *e)
{
    struct mp_slice bytes = answer_bytes(n, e);
    struct mp_node_work *w = mp_node_put_off(n, MP_NODE_WORK_RUN_ANSWER, e->call);
    const struct mp_node_completion *c = &n->completion;
    const struct mp_node_attempt *a = mp_node_attempt_of(n, e->call);
    w->answer = *e;
    w->payload = bytes;
    w->member = a ? a->member : MP_MEMBER_SELF;
    w->has_copies = a && (a->marks & MP_NODE_HAS_HOLES) != 0;
    if (!c->is_set || c->call != e->call) {
        /* Its time was up, or it never began: no worker has answered, but one may have it. */
        uint32_t worker =
            w->member == MP_MEMBER_SELF ? mp_pool_where(&n->pool, e->call) : MP_POOL_NONE;
        w->worker = worker == MP_POOL_NONE ? 0 : worker + 1;
        return;
    }
    w->worker = c->worker;
    w->bytes_in = c->bytes_in;
    w->moved = a ? a->moved : 0;
    if (c->member != MP_MEMBER_SELF) {
        time_away(now, c, w);
        return;
    }
    /* A turn's `now` was read before it took the answers, so an end may lie a little ahead of it.
     */
    if (c->begun_at == 0 || c->ended_at < c->begun_at || c->ended_at > now + CLOCK_AHEAD_MAX)
        return; /* lost before it began, or a worker's clock that is not to be believed */
    w->timing.queue = c->begun_at > c->submitted_at ? c->begun_at - c->submitted_at : 0;
    w->timing.run = c->ended_at - c->begun_at;
    w->timing.network = now > c->ended_at ? now - c->ended_at : 0;
}

static void give_answer(struct mp_node *n, mp_time now, const struct mp_rpc_effect *e)
{
    n->calls++;
    n->errors += e->answer.answer != MP_RPC_RESULT;
    if (e->answer.origin.kind == MP_RPC_RUN) {
        answer_run(n, now, e);
        return;
    }
    struct mp_slice bytes = answer_bytes(n, e);
    if (e->answer.origin.kind == MP_RPC_TOPIC) {
        mp_node_subscribed_answer(n, e, bytes);
        return;
    }
    if (e->answer.origin.kind == MP_RPC_PEER) {
        mp_node_peer_answer(n, now, e, bytes, take_handle(n, e));
        return;
    }
    bool is_error = e->answer.answer != MP_RPC_RESULT;
    bool is_client = e->answer.origin.kind == MP_RPC_CLIENT;
    struct mp_node_effect *out = mp_node_emit(n, is_client ? MP_NODE_REPLY : MP_NODE_RESULT);
    out->client = e->answer.origin.owner;
    out->id = e->answer.origin.id;
    out->frame = is_error ? MP_FRAME_ERROR : MP_FRAME_RESULT;
    out->is_error = is_error;
    out->payload.bytes = bytes;
    out->payload.handle = take_handle(n, e);
}

/* What a function gave could not be kept until its answer was due. */
static void give_nothing(struct mp_node *n, mp_time now, const struct mp_rpc_effect *e)
{
    const struct mp_fault fault = {.code = MP_CODE_RESOURCE_EXHAUSTED,
                                   .reason = mp_slice_str("OUT_OF_MEMORY"),
                                   .message =
                                       mp_slice_str("the node had no memory to keep the result"),
                                   .node = n->catalog.node};
    struct mp_rpc_effect failed = *e;
    failed.answer.answer = MP_RPC_ERROR;
    n->completion = (struct mp_node_completion){.is_set = true,
                                                .is_error = true,
                                                .call = e->call,
                                                .submitted_at = now,
                                                .payload = {.bytes = mp_node_error(n, &fault)}};
    give_answer(n, now, &failed);
}

/* The payload of an answer is what this step is about, or it was kept. */
static void answer(struct mp_node *n, mp_time now, const struct mp_rpc_effect *e)
{
    bool has_payload = e->answer.answer == MP_RPC_RESULT || e->answer.answer == MP_RPC_ERROR;
    bool is_here = n->completion.is_set && n->completion.call == e->call;
    if (!has_payload || (is_here && !mp_node_is_kept(n, e->call))) {
        give_answer(n, now, e);
        return;
    }
    const struct mp_node_completion current = n->completion;
    if (mp_node_kept_take(n, e->call))
        give_answer(n, now, e);
    else
        give_nothing(n, now, e);
    if (n->completion.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = n->completion.payload;
    n->completion = current;
}

bool mp_node_step_rpc(struct mp_node *n, mp_time now, const struct mp_rpc_event *ev,
                      uint64_t *begun)
{
    struct mp_rpc_effects out;
    if (mp_rpc_step(&n->rpc, now, ev, &out) != MP_OK) {
        n->is_out_of_memory = true;
        return false;
    }
    if (begun)
        *begun = out.begun;
    for (uint32_t i = 0; i < out.count; i++) {
        const struct mp_rpc_effect *e = &out.items[i];
        if (e->kind == MP_RPC_SUBMIT) {
            mp_node_submit(n, now, e->call);
        } else if (e->kind == MP_RPC_ANSWER) {
            answer(n, now, e);
        } else if (e->kind == MP_RPC_ABANDON) {
            mp_node_abandon(n, now, e->call);
        } else if (e->kind == MP_RPC_KEEP) {
            mp_node_kept_put(n, e->call);
        } else if (e->kind == MP_RPC_DROP) {
            mp_node_kept_drop(n, e->call);
        } else {
            mp_node_emit(n, MP_NODE_RELEASE)->payload.handle = e->handle;
        }
    }
    n->route_hint = MP_ROUTER_NONE; /* it was for what began in this step of rpc */
    return true;
}

/* --- requests --- */

static void release_args(struct mp_node *n, struct mp_rpc_payload args)
{
    if (args.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = args;
}

static mp_time deadline_of(const struct mp_node *n, mp_time now, uint64_t timeout_ms)
{
    return mp_time_add(now, timeout_ms != 0 ? MP_MS(timeout_ms) : n->cfg.call_timeout);
}

/* What is wished for in a release. */
static struct mp_catalog_query query_of(const struct mp_node *n, const struct mp_call_options *o,
                                        uint32_t release)
{
    return (struct mp_catalog_query){.fun = o->fun,
                                     .pin = mp_node_release_pin(n, release, o->fun, false),
                                     .version = o->version,
                                     .on = o->on,
                                     .cluster = o->cluster,
                                     .needs = o->needs,
                                     .needs_count = o->needs_count};
}

static void refuse_args(struct mp_node *n, const struct mp_node_event *ev, enum mp_code code,
                        const char *reason, const char *message)
{
    release_args(n, ev->request.payload);
    mp_node_refuse(n, ev->request.client, ev->request.id, code, reason, message);
}

/* A cluster of another name is never looked into. */
static const struct mp_catalog_function *find(struct mp_node *n, const struct mp_catalog_query *q,
                                              struct mp_slice key)
{
    if (q->cluster.size != 0 && !mp_slice_equal(q->cluster, n->catalog.cluster))
        return NULL;
    return mp_node_find(n, key);
}

void mp_node_call(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_call_options o;
    const char *why = "";
    if (mp_node_is_peer(n, ev->request.client)) {
        mp_node_peer_call(n, now, ev);
        return;
    }
    if (n->is_draining) {
        refuse_args(n, ev, MP_CODE_UNAVAILABLE, "DRAINING", "the node is about to stop");
        return;
    }
    if (mp_call_options_read(ev->request.meta, &o, &why) != MP_OK) {
        refuse_args(n, ev, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", why);
        return;
    }
    if (ev->request.payload.bytes.size > n->cfg.value_bytes_max) {
        refuse_args(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE", args_too_large);
        return;
    }
    const struct mp_catalog_query q = query_of(n, &o, n->release);
    struct mp_slice key = mp_node_key(n, &q);
    const struct mp_catalog_function *f = find(n, &q, key);
    if (key.size == 0) {
        refuse_args(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                    "the node has no memory for another call");
        return;
    }
    if (!f && !(o.is_waiting && mp_catalog_may_appear(&n->catalog, &q))) {
        release_args(n, ev->request.payload);
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR,
                      mp_node_explain(n, &q));
        return;
    }
    if (!f && n->rpc.waiting >= n->cfg.calls_queued_max) {
        refuse_args(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                    "too many calls wait for a provider already");
        return;
    }
    struct mp_rpc_event begin = {
        .kind = MP_RPC_BEGIN,
        .begin = {.origin = {.kind = MP_RPC_CLIENT,
                             .owner = ev->request.client,
                             .id = ev->request.id},
                  .target = {.function = MP_RPC_NONE},
                  .args = ev->request.payload,
                  .query = key,
                  .release = n->release,
                  .deadline = deadline_of(n, now, o.timeout_ms),
                  .is_patient = o.is_waiting,
                  .retries = o.retries},
    };
    if (f)
        begin.begin.target = mp_node_target(f);
    n->route_hint = n->route_found;
    if (!mp_node_make_room(n) || !mp_node_step_rpc(n, now, &begin, NULL))
        refuse_args(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                    "the node has no memory for another call");
}

void mp_node_retry_waiting(struct mp_node *n, mp_time now)
{
    uint32_t slot = 0;
    const struct mp_rpc_call *c = mp_rpc_next_waiting(&n->rpc, &slot);
    for (; c; c = mp_rpc_next_waiting(&n->rpc, &slot)) {
        struct mp_slice needs[MP_NEEDS_MAX];
        struct mp_catalog_query q;
        struct mp_slice key = c->query;
        uint32_t release = c->release;
        if (c->attempt == 0 && release != n->release) {
            /* It waits for what is not there yet: that may be deployed since. */
            release = n->release;
            mp_node_key_read(key, &q, needs);
            q.pin = mp_node_release_pin(n, release, q.fun, false);
            key = mp_node_key(n, &q);
        }
        const struct mp_catalog_function *f = mp_node_find(n, key);
        if (!f)
            continue;
        const struct mp_rpc_event resolved = {
            .kind = MP_RPC_RESOLVED,
            .call = c->id,
            .resolved = {.target = mp_node_target(f), .release = release, .query = key}};
        n->route_hint = n->route_found;
        mp_node_step_rpc(n, now, &resolved, NULL);
    }
}

/* --- calls that functions make --- */

static void nested_error(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice error)
{
    release_args(n, ev->nested.args);
    struct mp_node_effect *out = mp_node_emit(n, MP_NODE_RESULT);
    out->client = ev->nested.incarnation;
    out->id = ev->nested.nested;
    out->is_error = true;
    out->payload.bytes = error;
}

static void nested_refuse(struct mp_node *n, const struct mp_node_event *ev, enum mp_code code,
                          const char *reason, const char *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .fun = ev->nested.fun,
                                   .node = n->catalog.node};
    nested_error(n, ev, mp_node_error(n, &fault));
}

/* [run_id, step, index] of the parent, attempt 1, and the parent's function as the caller. */
static enum mp_err put_nested_context(struct mp_node *n, const struct mp_rpc_call *parent,
                                      struct mp_buf *b)
{
    struct mp_mp_reader r;
    uint32_t count = 0;
    if (parent->context.size == 0 || mp_mp_get_array(parent->context, &count, &r) != MP_OK)
        count = 0;
    enum mp_err err = mp_mp_put_array(b, 5);
    for (uint32_t i = 0; err == MP_OK && i < 3; i++) {
        struct mp_slice item = {0};
        if (i < count && mp_mp_take(&r, &item) == MP_OK)
            err = mp_mp_put_raw(b, item);
        else
            err = mp_mp_put_nil(b);
    }
    if (err == MP_OK)
        err = mp_mp_put_uint(b, 1);
    return err != MP_OK ? err
                        : mp_mp_put_str(b, n->catalog.functions[parent->target.function].name);
}

static void nested_begin(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                         const struct mp_rpc_call *parent, const struct mp_call_options *o,
                         const struct mp_catalog_function *f, struct mp_slice key)
{
    struct mp_buf context;
    mp_buf_init(&context, n->alloc, 0);
    mp_time deadline = o->timeout_ms != 0 ? deadline_of(n, now, o->timeout_ms) : MP_NEVER;
    struct mp_rpc_event begin = {
        .kind = MP_RPC_BEGIN,
        .begin = {.origin = {.kind = MP_RPC_NESTED,
                             .owner = ev->nested.incarnation,
                             .id = ev->nested.nested},
                  .target = mp_node_target(f),
                  .parent = parent->id,
                  .release = parent->release,
                  .args = ev->nested.args,
                  .query = key,
                  .deadline =
                      deadline < parent->attempt_deadline ? deadline : parent->attempt_deadline,
                  .retries = o->retries,
                  .depth = parent->depth + 1},
    };
    bool is_begun = put_nested_context(n, parent, &context) == MP_OK;
    begin.begin.context = mp_buf_slice(&context);
    n->route_hint = n->route_found;
    is_begun = is_begun && mp_node_make_room(n) && mp_node_step_rpc(n, now, &begin, NULL);
    mp_buf_fini(&context);
    if (!is_begun)
        nested_refuse(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                      "the node has no memory for another call");
}

void mp_node_nested(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_call_options o = {0};
    const char *why = "";
    const struct mp_pool_event yielded = {
        .kind = MP_POOL_YIELDED, .worker = ev->nested.worker, .task = ev->nested.parent};
    mp_node_step_pool(n, now, &yielded);
    const struct mp_rpc_call *parent = mp_rpc_get(&n->rpc, ev->nested.parent);
    if (!parent || parent->state != MP_RPC_ACTIVE || parent->is_timed_out ||
        !mp_pool_has(&n->pool, ev->nested.worker, ev->nested.parent)) {
        nested_refuse(n, ev, MP_CODE_CANCELLED, "CANCELLED", "nobody waits for this call any more");
        return;
    }
    if (mp_call_options_read_map(ev->nested.options, &o, &why) != MP_OK) {
        nested_refuse(n, ev, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", why);
        return;
    }
    if (ev->nested.args.bytes.size > n->cfg.value_bytes_max) {
        nested_refuse(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE", args_too_large);
        return;
    }
    if (parent->depth + 1 > n->cfg.call_depth_max) {
        nested_refuse(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "CALL_DEPTH",
                      "calls are nested deeper than --call-depth-max allows");
        return;
    }
    o.fun = ev->nested.fun;
    const struct mp_catalog_query q = query_of(n, &o, parent->release);
    struct mp_slice key = mp_node_key(n, &q);
    const struct mp_catalog_function *f = find(n, &q, key);
    if (!f)
        nested_error(n, ev, mp_node_explain(n, &q));
    else
        nested_begin(n, now, ev, parent, &o, f, key);
}

/* --- ends of attempts --- */

void mp_node_ended(struct mp_node *n, mp_time now, uint64_t call, bool has_begun, bool is_unsure)
{
    const struct mp_rpc_event ended = {
        .kind = MP_RPC_ENDED,
        .call = call,
        .outcome = {.is_error = true, .has_begun = has_begun, .is_unsure = is_unsure}};
    mp_node_step_rpc(n, now, &ended, NULL);
}

bool mp_node_is_wanted(const struct mp_rpc_call *c)
{
    return c && c->state == MP_RPC_ACTIVE && !c->is_timed_out;
}

void mp_node_outcome(struct mp_node *n, mp_time now, uint64_t call, bool is_error,
                     struct mp_node_outcome how)
{
    struct mp_rpc_event ev = {.kind = MP_RPC_OUTCOME,
                              .call = call,
                              .outcome = {.is_error = is_error,
                                          .is_neighbour = how.is_neighbour,
                                          .has_begun = how.has_begun,
                                          .is_unsure = how.is_unsure}};
    struct mp_fault fault;
    if (is_error) {
        bool is_read = mp_fault_read(n->completion.payload.bytes, &fault) == MP_OK;
        ev.outcome.is_retryable = !is_read || (mp_code_is_retried(fault.code) && !fault.is_final);
        ev.outcome.is_absent =
            is_read && !how.has_begun &&
            (fault.code == MP_CODE_UNAVAILABLE || fault.code == MP_CODE_NOT_FOUND ||
             fault.code == MP_CODE_FAILED_PRECONDITION);
    }
    mp_node_step_rpc(n, now, &ev, NULL);
}

void mp_node_completed(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, ev->completed.call);
    mp_assert(c && mp_pool_has(&n->pool, ev->completed.worker, ev->completed.call));
    n->completion = (struct mp_node_completion){.is_set = true,
                                                .is_error = ev->completed.is_error,
                                                .call = c->id,
                                                .worker = ev->completed.worker + 1,
                                                .submitted_at = c->submitted_at,
                                                .begun_at = ev->completed.begun_at,
                                                .ended_at = ev->completed.ended_at,
                                                .bytes_in = c->args.bytes.size,
                                                .payload = ev->completed.payload};
    const struct mp_pool_event done = {
        .kind = MP_POOL_DONE,
        .worker = ev->completed.worker,
        .task = ev->completed.call,
        .done = {.run = ev->completed.run, .is_retiring = ev->completed.is_retiring}};
    /* One that had ended before it heard of its cancellation has a result all the same. */
    bool is_wanted = mp_node_is_wanted(c) || (c->state == MP_RPC_ENDING && !ev->completed.is_error);
    mp_node_step_pool(n, now, &done);
    if (!is_wanted)
        return; /* the pool's END follows */
    mp_node_attempt_close(n, now, ev->completed.call, !ev->completed.is_error);
    mp_node_outcome(n, now, ev->completed.call, ev->completed.is_error,
                    (struct mp_node_outcome){.has_begun = true});
}

void mp_node_outcome_error(struct mp_node *n, mp_time now, uint64_t call, struct mp_slice error,
                           struct mp_node_outcome how)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
    if (n->completion.is_set && n->completion.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = n->completion.payload;
    n->completion = (struct mp_node_completion){.is_set = true,
                                                .is_error = true,
                                                .call = call,
                                                .bytes_in = c->args.bytes.size,
                                                .submitted_at = now,
                                                .payload = {.bytes = error}};
    mp_node_outcome(n, now, call, true, how);
}

static void put_duration(struct mp_text *t, mp_duration d)
{
    uint64_t ms = (d + MP_MS(1) - 1) / MP_MS(1);
    mp_text_put_uint(t, ms % 1000 == 0 && ms != 0 ? ms / 1000 : ms);
    mp_text_put(t, ms % 1000 == 0 && ms != 0 ? " s" : " ms");
}

static void put_function(struct mp_node *n, struct mp_text *t, uint32_t function)
{
    if (function == MP_RPC_NONE)
        mp_text_put(t, "a provider");
    else
        mp_text_put_slice(t, n->catalog.functions[function].name);
}

struct mp_slice mp_node_answer_error(struct mp_node *n, const struct mp_rpc_effect *e)
{
    char bytes[256];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    const struct mp_node_attempt *a = mp_node_attempt_of(n, e->call);
    bool is_away = a && a->member != MP_MEMBER_SELF;
    struct mp_fault fault = {.node = is_away ? mp_node_member_name(n, a->member) : n->catalog.node};
    if (e->answer.answer == MP_RPC_CANCELLED) {
        fault.code = MP_CODE_CANCELLED;
        fault.reason = mp_slice_str("CANCELLED");
        mp_text_put(&text, "the call was cancelled");
    } else {
        static const char *const reasons[MP_RPC_ORIGIN_KINDS] = {
            [MP_RPC_CLIENT] = "DEADLINE_EXCEEDED", [MP_RPC_NESTED] = "CALL_TIMEOUT",
            [MP_RPC_RUN] = "STEP_TIMEOUT",         [MP_RPC_PEER] = "DEADLINE_EXCEEDED",
            [MP_RPC_TOPIC] = "CALL_TIMEOUT",
        };
        fault.code = MP_CODE_DEADLINE_EXCEEDED;
        fault.reason = mp_slice_str(reasons[e->answer.origin.kind]);
        put_function(n, &text, e->answer.function);
        mp_text_put(&text, e->answer.function == MP_RPC_NONE ? " did not appear within "
                                                             : " did not answer within ");
        put_duration(&text, e->answer.timeout);
    }
    if (e->answer.function != MP_RPC_NONE)
        fault.fun = n->catalog.functions[e->answer.function].name;
    fault.message = mp_text_slice(&text);
    return mp_node_error(n, &fault);
}

static void explain_end(struct mp_node *n, mp_time now, enum mp_pool_end end, uint32_t function,
                        struct mp_fault *fault, struct mp_text *text)
{
    fault->code = MP_CODE_UNAVAILABLE;
    fault->reason = mp_slice_str("WORKER_LOST");
    if (end == MP_POOL_LOST_SUSPECT) {
        mp_text_put(text, "its worker process died while it had the CPU: ");
        mp_text_put_slice(text, n->death_how);
    } else if (end == MP_POOL_LOST_NEIGHBOUR) {
        mp_text_put(text, "its worker process died because of another call");
        if (n->death_fun.size != 0) {
            mp_text_put(text, ", of ");
            mp_text_put_slice(text, n->death_fun);
        }
        mp_text_put(text, ": ");
        mp_text_put_slice(text, n->death_how);
        fault->hint = mp_slice_str("a function marked idempotent would have run again");
    } else if (end == MP_POOL_CRASH_LOOP) {
        fault->code = MP_CODE_RESOURCE_EXHAUSTED;
        fault->reason = mp_slice_str("CRASH_LOOP");
        mp_text_put(text, "it has killed 5 worker processes within a minute and is refused for ");
        put_duration(text, mp_pool_refused_until(&n->pool, function, now) - now);
    } else {
        fault->code = MP_CODE_RESOURCE_EXHAUSTED;
        fault->reason = mp_slice_str("QUEUE_FULL");
        mp_text_put(text, "the node has ");
        mp_text_put_uint(text, n->cfg.calls_queued_max);
        mp_text_put(text, " calls waiting for a worker and takes no more");
    }
}

void mp_node_pool_end(struct mp_node *n, mp_time now, const struct mp_node_work *work)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, work->call);
    const struct mp_node_attempt *a = mp_node_attempt_of(n, work->call);
    if (!c || (a && a->state != MP_NODE_ATTEMPT_LOCAL))
        return; /* it was cancelled, and had a result all the same */
    mp_node_attempt_close(n, now, work->call, false);
    bool is_cancelled = work->end == MP_POOL_GONE || work->end == MP_POOL_TAKEN_BACK;
    bool has_begun = work->end == MP_POOL_GONE || work->end == MP_POOL_LOST_SUSPECT ||
                     work->end == MP_POOL_LOST_NEIGHBOUR;
    if (is_cancelled || !mp_node_is_wanted(c)) {
        mp_node_ended(n, now, work->call, has_begun, false);
        return;
    }
    char bytes[512];
    struct mp_text text;
    struct mp_fault fault = {0};
    mp_text_init(&text, bytes, sizeof(bytes));
    explain_end(n, now, work->end, c->target.function, &fault, &text);
    fault.message = mp_text_slice(&text);
    mp_node_outcome_error(
        n, now, work->call, mp_node_error(n, &fault),
        (struct mp_node_outcome){.is_neighbour = work->end == MP_POOL_LOST_NEIGHBOUR,
                                 .has_begun = has_begun});
}
