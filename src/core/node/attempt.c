/* Attempts: where a call goes, and how it comes back. Each attempt of a call picks a provider anew:
 * this node's pool, or another node over a link. A node that turns a call down before it began (it
 * is about to stop, its entry was stale, no link to it can be had) costs no attempt: the next
 * candidate is tried. Whatever may have begun is never sent again from here; that is for rpc to
 * decide, which knows what the caller and the function allow.
 *
 * Nothing here steps rpc while rpc's effects are being read: every end is put off (node.c). */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

static uint32_t slot_of(uint64_t call)
{
    return (uint32_t)call;
}

struct mp_node_attempt *mp_node_attempt_of(const struct mp_node *n, uint64_t call)
{
    uint32_t slot = slot_of(call);
    if (slot >= n->attempt_capacity || n->attempts[slot].call != call)
        return NULL;
    return &n->attempts[slot];
}

/* The record of a call, new at its first attempt; NULL without memory. */
static struct mp_node_attempt *take_attempt(struct mp_node *n, uint64_t call)
{
    uint32_t slot = slot_of(call);
    if (slot >= n->attempt_capacity) {
        uint32_t capacity = n->attempt_capacity == 0 ? 256 : n->attempt_capacity;
        while (capacity <= slot)
            capacity *= 2;
        struct mp_node_attempt *grown =
            n->alloc->resize(n->alloc->context, n->attempts, n->attempt_capacity * sizeof(*grown),
                             capacity * sizeof(*grown));
        if (!grown)
            return NULL;
        memset(grown + n->attempt_capacity, 0, (capacity - n->attempt_capacity) * sizeof(*grown));
        n->attempts = grown;
        n->attempt_capacity = capacity;
    }
    struct mp_node_attempt *a = &n->attempts[slot];
    if (a->call != call) {
        mp_assert(!a->kept);
        const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
        *a = (struct mp_node_attempt){
            .call = call, .out = MP_NODE_NONE, .marks = c->marks, .tag = c->tag};
    }
    return a;
}

/* --- what a function gave, while calls that it left behind have not ended --- */

struct mp_node_kept {
    struct mp_node_completion completion;
    size_t size; /* of its bytes, which stand behind it unless it has a handle */
};

static void free_kept(struct mp_node *n, struct mp_node_attempt *a)
{
    if (a->kept)
        mp_alloc_free(n->alloc, a->kept, sizeof(*a->kept) + a->kept->size);
    a->kept = NULL;
}

void mp_node_attempts_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->attempt_capacity; i++) {
        mp_node_fill_free(n, &n->attempts[i]);
        free_kept(n, &n->attempts[i]);
    }
    mp_alloc_free(n->alloc, n->attempts, n->attempt_capacity * sizeof(*n->attempts));
}

void mp_node_kept_put(struct mp_node *n, uint64_t call)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    struct mp_node_completion *c = &n->completion;
    mp_assert(a && !a->kept && c->is_set && c->call == call);
    size_t size = c->payload.handle != 0 ? 0 : c->payload.bytes.size;
    a->kept = mp_alloc_take(n->alloc, sizeof(*a->kept) + size);
    if (!a->kept)
        return; /* the answer will have no payload, and say so */
    *a->kept = (struct mp_node_kept){.completion = *c, .size = size};
    if (size != 0)
        memcpy(a->kept + 1, c->payload.bytes.data, size);
    c->payload.handle = 0;
}

bool mp_node_is_kept(const struct mp_node *n, uint64_t call)
{
    const struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    return a && a->kept;
}

bool mp_node_kept_take(struct mp_node *n, uint64_t call)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    if (!a || !a->kept)
        return false;
    struct mp_node_completion kept = a->kept->completion;
    bool has_bytes = kept.payload.handle != 0;
    if (!has_bytes) {
        kept.payload.bytes = mp_node_keep(n, mp_slice_of(a->kept + 1, a->kept->size));
        has_bytes = kept.payload.bytes.size == a->kept->size;
    }
    if (has_bytes)
        n->completion = kept;
    free_kept(n, a);
    return has_bytes;
}

void mp_node_kept_drop(struct mp_node *n, uint64_t call)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    if (!a || !a->kept)
        return;
    if (a->kept->completion.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = a->kept->completion.payload;
    free_kept(n, a);
}

void mp_node_attempt_close(struct mp_node *n, mp_time now, uint64_t call, bool is_measured)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    if (!a || a->state == MP_NODE_ATTEMPT_NONE)
        return;
    if (a->is_picked) {
        struct mp_router_effects out;
        const struct mp_router_event ended = {.kind = MP_ROUTER_ENDED,
                                              .ended = {.node = a->member,
                                                        .function = a->function,
                                                        .is_measured = is_measured,
                                                        .took = now - a->sent_at}};
        enum mp_err err = mp_router_step(n->router, now, &ended, &out);
        (void)err; /* only ROUTE and PICK fail */
    }
    a->is_picked = false;
    a->state = MP_NODE_ATTEMPT_NONE;
    a->out = MP_NODE_NONE;
    mp_node_fill_free(n, a);
}

void mp_node_attempt_end(struct mp_node *n, uint64_t call, struct mp_slice error, bool has_begun,
                         bool may_rerun)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    if (a && a->is_ending)
        return; /* it was lost, and is now not wanted either, or the other way round */
    if (a)
        a->is_ending = true;
    struct mp_node_work *w = mp_node_put_off(n, MP_NODE_WORK_ATTEMPT_END, call);
    w->payload = error;
    w->has_begun = has_begun;
    w->may_rerun = may_rerun;
}

void mp_node_attempt_ended(struct mp_node *n, mp_time now, const struct mp_node_work *work)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, work->call);
    struct mp_node_attempt *a = mp_node_attempt_of(n, work->call);
    if (a)
        a->is_ending = false;
    mp_node_attempt_close(n, now, work->call, false);
    if (!c)
        return;
    /* What had begun was lost with the link to its node: it may go on there. */
    if (!mp_node_is_wanted(c)) {
        mp_node_ended(n, now, work->call, work->has_begun, work->has_begun);
        return;
    }
    mp_node_outcome_error(n, now, work->call, work->payload,
                          (struct mp_node_outcome){.is_neighbour = work->may_rerun,
                                                   .has_begun = work->has_begun,
                                                   .is_unsure = work->has_begun});
}

/* --- choosing --- */

static void avoid(struct mp_node_attempt *a, uint32_t member)
{
    if (a->avoid_count < MP_ROUTER_AVOID_MAX)
        a->avoid[a->avoid_count++] = member;
}

static bool is_avoided(const struct mp_node_attempt *a, uint32_t member)
{
    for (uint32_t i = 0; i < a->avoid_count; i++)
        if (a->avoid[i] == member)
            return true;
    return false;
}

/* While all workers here are blocked, only a call that nobody else can take waits for them: how
 * busy the others are says nothing then. */
static bool pick(struct mp_node *n, struct mp_node_attempt *a, uint32_t route,
                 struct mp_router_provider *provider)
{
    bool is_blocked = a->avoid_count < MP_ROUTER_AVOID_MAX && mp_pool_is_blocked(&n->pool);
    struct mp_router_effects out;
    struct mp_router_event ev = {.kind = MP_ROUTER_PICK,
                                 .pick = {.route = route,
                                          .is_local_busy = mp_pool_is_busy(&n->pool),
                                          .avoid_count = a->avoid_count}};
    memcpy(ev.pick.avoid, a->avoid, a->avoid_count * sizeof(a->avoid[0]));
    if (is_blocked)
        ev.pick.avoid[ev.pick.avoid_count++] = MP_MEMBER_SELF;
    if (mp_router_step(n->router, n->now, &ev, &out) != MP_OK)
        return false;
    if (!out.is_picked && is_blocked) {
        ev.pick.avoid_count--;
        if (mp_router_step(n->router, n->now, &ev, &out) != MP_OK)
            return false;
    }
    if (!out.is_picked)
        return false;
    *provider = out.provider;
    a->is_picked = true;
    return true;
}

/* A provider for the next attempt. This node alone is the usual case, and needs no choice. */
static bool choose(struct mp_node *n, struct mp_node_attempt *a, const struct mp_rpc_call *c,
                   struct mp_router_provider *provider)
{
    if (c->query.size == 0) {
        *provider =
            (struct mp_router_provider){.node = MP_MEMBER_SELF, .function = c->target.function};
        return true;
    }
    uint32_t route = n->route_hint;
    uint32_t count = 0;
    n->route_hint = MP_ROUTER_NONE;
    if (route == MP_ROUTER_NONE)
        route = mp_node_route(n, c->query);
    if (route == MP_ROUTER_NONE)
        return false;
    const struct mp_router_provider *first = mp_router_candidates(n->router, route, &count);
    if (count == 0)
        return false;
    if (count == 1 && first->node == MP_MEMBER_SELF && !is_avoided(a, MP_MEMBER_SELF)) {
        *provider = *first;
        return true;
    }
    return pick(n, a, route, provider);
}

/* All candidates turned it down, or there are none any more. */
static void nobody(struct mp_node *n, const struct mp_rpc_call *c, const struct mp_node_attempt *a)
{
    struct mp_slice needs[MP_NEEDS_MAX];
    struct mp_catalog_query q;
    uint32_t count = 0;
    uint32_t route = mp_node_route(n, c->query);
    if (route != MP_ROUTER_NONE)
        (void)mp_router_candidates(n->router, route, &count);
    mp_node_key_read(c->query, &q, needs);
    if (count == 0) {
        mp_node_attempt_end(n, c->id, mp_node_explain(n, &q), false, false);
        return;
    }
    char bytes[512];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    for (uint32_t i = 0; i < a->avoid_count; i++) {
        mp_text_put(&text, i == 0 ? "" : ", ");
        mp_text_put_slice(&text, mp_node_member_name(n, a->avoid[i]));
    }
    mp_text_put(&text, a->avoid_count == 0 ? "no node that has " : " cannot be reached or takes ");
    mp_text_put(&text, a->avoid_count == 0 ? "the function takes it now" : "no call now");
    const struct mp_fault fault = {.code = MP_CODE_UNAVAILABLE,
                                   .reason = mp_slice_str("NODE_LOST"),
                                   .message = mp_text_slice(&text),
                                   .fun = q.fun,
                                   .node = n->catalog.node};
    mp_node_attempt_end(n, c->id, mp_node_error(n, &fault), false, false);
}

/* --- here --- */

static void submit_here(struct mp_node *n, mp_time now, struct mp_node_attempt *a)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, a->call);
    bool is_nested = c->origin.kind == MP_RPC_NESTED || (c->marks & MP_NODE_IS_CHILD) != 0;
    const struct mp_pool_event ev = {
        .kind = MP_POOL_SUBMIT,
        .task = a->call,
        .submit = {.function = a->function,
                   .concurrency = n->catalog.functions[a->function].concurrency,
                   .is_nested = is_nested}};
    a->state = MP_NODE_ATTEMPT_LOCAL;
    if (!mp_node_step_pool(n, now, &ev))
        mp_node_put_off(n, MP_NODE_WORK_POOL_END, a->call)->end = MP_POOL_QUEUE_FULL;
}

void mp_node_attempt_filled(struct mp_node *n, mp_time now, uint64_t call)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
    if (!a || a->state != MP_NODE_ATTEMPT_FILLING)
        return;
    if (!mp_node_is_wanted(c))
        mp_node_attempt_end(n, call, (struct mp_slice){0}, false, false);
    else
        submit_here(n, now, a);
}

/* --- elsewhere --- */

static void send_away(struct mp_node *n, struct mp_node_attempt *a)
{
    struct mp_node_out *o =
        mp_node_out_new(n, MP_NODE_OUT_CALL, MP_FRAME_CALL, a->member, a->call, 0,
                        (struct mp_slice){0}, (struct mp_slice){0}, (struct mp_rpc_payload){0});
    if (!o) {
        const struct mp_fault fault = {
            .code = MP_CODE_RESOURCE_EXHAUSTED,
            .reason = mp_slice_str("QUEUE_FULL"),
            .message = mp_slice_str("the node has too many requests to other nodes"),
            .node = n->catalog.node};
        mp_node_attempt_end(n, a->call, mp_node_error(n, &fault), false, false);
        return;
    }
    a->out = (uint32_t)o->id;
    mp_node_outs_flush(n, o->link);
}

void mp_node_submit(struct mp_node *n, mp_time now, uint64_t call)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
    struct mp_node_attempt *a = take_attempt(n, call);
    struct mp_router_provider provider;
    if (!a) {
        mp_node_put_off(n, MP_NODE_WORK_POOL_END, call)->end = MP_POOL_QUEUE_FULL;
        return;
    }
    mp_assert(a->state == MP_NODE_ATTEMPT_NONE);
    bool is_found = choose(n, a, c, &provider);
    if (!is_found && a->avoid_count != 0 && c->attempt > 1) {
        /* A retry may go where it failed before, if there is nobody else. */
        a->avoid_count = 0;
        is_found = choose(n, a, c, &provider);
    }
    if (!is_found) {
        nobody(n, c, a);
        return;
    }
    a->member = provider.node;
    a->function = provider.function;
    a->sent_at = now;
    a->moved = 0;
    a->moves_copy = false;
    a->was_listed = false;
    if (a->member != MP_MEMBER_SELF) {
        a->state = MP_NODE_ATTEMPT_OUT;
        send_away(n, a);
    } else if ((c->marks & MP_NODE_HAS_HOLES) != 0) {
        a->state = MP_NODE_ATTEMPT_FILLING;
        mp_node_fill(n, call);
    } else {
        submit_here(n, now, a);
    }
}

void mp_node_abandon(struct mp_node *n, mp_time now, uint64_t call)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    const struct mp_pool_event cancel = {.kind = MP_POOL_CANCEL, .task = call};
    if (a && a->state == MP_NODE_ATTEMPT_FILLING) {
        mp_node_fill_free(n, a);
        mp_node_attempt_end(n, call, (struct mp_slice){0}, false, false);
    } else if (a && a->state == MP_NODE_ATTEMPT_LISTING) {
        if (a->out != MP_NODE_NONE)
            mp_node_out_give_up(n, &n->outs[a->out]);
        a->out = MP_NODE_NONE;
        mp_node_attempt_end(n, call, (struct mp_slice){0}, false, false);
    } else if (a && a->state == MP_NODE_ATTEMPT_OUT) {
        struct mp_node_out *o = a->out == MP_NODE_NONE ? NULL : &n->outs[a->out];
        if (o && o->state == MP_NODE_OUT_SENT) {
            /* Its node answers the CANCEL, or its link ends: until then the number is in use. */
            if (!mp_has_defect(n->cfg.defects, MP_DEFECT_IGNORE_CANCEL))
                mp_node_send_frame(n, n->links[o->link].client, MP_FRAME_CANCEL, o->id,
                                   (struct mp_slice){0}, (struct mp_rpc_payload){0});
            return;
        }
        if (o)
            mp_node_out_give_up(n, o);
        a->out = MP_NODE_NONE;
        mp_node_attempt_end(n, call, (struct mp_slice){0}, false, false);
    } else if (a && a->state == MP_NODE_ATTEMPT_LOCAL) {
        mp_node_step_pool(n, now, &cancel);
    }
}

static enum mp_err put_call(struct mp_node *n, const struct mp_node_attempt *a,
                            const struct mp_rpc_call *c)
{
    struct mp_catalog_query q;
    struct mp_peer_call out = {.attempt = c->attempt,
                               .depth = c->depth,
                               .context = mp_node_context_of(n, c),
                               .run = c->origin.owner};
    mp_node_key_read(c->query, &q, out.needs);
    out.needs_count = q.needs_count;
    out.release = mp_node_release_id(n, c->release);
    out.fun = n->catalog.functions[a->function].name;
    out.version = n->catalog.modules[n->catalog.functions[a->function].module].version_text;
    out.remaining_ns = c->attempt_deadline == MP_NEVER ? MP_NEVER
                       : c->attempt_deadline > n->now  ? c->attempt_deadline - n->now
                                                       : 1;
    if (c->origin.kind == MP_RPC_RUN) {
        out.flags |= MP_PEER_MAY_HOLD;
        out.coordinator = n->catalog.node;
    }
    if ((c->marks & MP_NODE_HAS_HOLES) != 0)
        out.flags |= MP_PEER_HAS_HOLES;
    if (c->origin.kind == MP_RPC_NESTED)
        out.flags |= MP_PEER_IS_NESTED;
    mp_buf_clear(&n->build);
    return mp_peer_call_put(&n->build, &out);
}

bool mp_node_attempt_send(struct mp_node *n, struct mp_node_out *o, struct mp_slice *meta,
                          struct mp_rpc_payload *payload)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, o->owner);
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, o->owner);
    mp_assert(a && c);
    if (put_call(n, a, c) != MP_OK) {
        n->is_out_of_memory = true;
        return false;
    }
    *meta = mp_buf_slice(&n->build);
    if (c->origin.kind == MP_RPC_RUN)
        mp_node_run_note_holder(n, c->origin.owner, a->member);
    /* The call keeps its arguments for another attempt, so the frame carries a copy. */
    *payload = (struct mp_rpc_payload){.bytes = c->args.bytes};
    return true;
}

/* The node that had it says that it never began there. */
static void turned_down(struct mp_node *n, mp_time now, struct mp_node_attempt *a,
                        const struct mp_rpc_call *c, struct mp_slice error)
{
    uint64_t call = a->call;
    uint32_t member = a->member;
    mp_node_attempt_close(n, now, call, false);
    avoid(a, member);
    if (mp_node_is_wanted(c) && a->avoid_count < MP_REROUTES_MAX)
        mp_node_put_off(n, MP_NODE_WORK_RESUBMIT, call);
    else
        mp_node_attempt_end(n, call, error, false, false);
}

/* Whether a node keeps something of an attempt that nobody waits for any more. */
static bool may_keep(const struct mp_node_attempt *a, uint32_t flags)
{
    return (flags & MP_PEER_IS_HELD) != 0 || (a->marks & MP_NODE_HAS_HOLES) != 0;
}

/* What the call's release is, for the node that does not know its id. */
static bool tell_release(struct mp_node *n, struct mp_node_attempt *a, const struct mp_rpc_call *c)
{
    struct mp_node_out *o =
        mp_node_out_new(n, MP_NODE_OUT_LIST, MP_FRAME_LIST, a->member, a->call, 0,
                        (struct mp_slice){0}, (struct mp_slice){0},
                        (struct mp_rpc_payload){.bytes = mp_node_release_list(n, c->release)});
    if (!o)
        return false;
    a->out = (uint32_t)o->id;
    a->was_listed = true;
    mp_node_outs_flush(n, o->link);
    return true;
}

void mp_node_attempt_listed(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, w->call);
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, w->call);
    if (!a || !c || a->state != MP_NODE_ATTEMPT_LISTING)
        return;
    a->out = MP_NODE_NONE;
    if (!mp_node_is_wanted(c)) {
        mp_node_attempt_end(n, w->call, (struct mp_slice){0}, false, false);
        return;
    }
    if (!w->is_lost && !w->has_begun) {
        a->state = MP_NODE_ATTEMPT_OUT;
        send_away(n, a);
        return;
    }
    const struct mp_fault fault = {.code = MP_CODE_UNAVAILABLE,
                                   .reason = mp_slice_str("NODE_LOST"),
                                   .message = mp_slice_str("the node that should run it was lost"),
                                   .node = mp_node_member_name(n, a->member)};
    a->was_listed = false;
    turned_down(n, now, a, c, w->is_lost ? mp_node_error(n, &fault) : mp_node_keep(n, w->payload));
}

void mp_node_attempt_answered(struct mp_node *n, mp_time now, struct mp_node_out *o, bool is_error,
                              struct mp_slice meta, struct mp_rpc_payload payload)
{
    uint64_t call = o->owner;
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, call);
    struct mp_peer_answer peer = {0};
    struct mp_router_effects routed;
    mp_assert(a && c && a->state == MP_NODE_ATTEMPT_OUT);
    if (mp_peer_answer_read(meta, &peer) != MP_OK)
        peer = (struct mp_peer_answer){.flags = MP_PEER_HAS_BEGUN};
    const struct mp_router_event load = {.kind = MP_ROUTER_LOAD,
                                         .load = {.node = a->member, .load = peer.load}};
    if (mp_router_step(n->router, now, &load, &routed) != MP_OK)
        n->is_out_of_memory = true;
    n->completion = (struct mp_node_completion){.is_set = true,
                                                .is_error = is_error,
                                                .call = call,
                                                .member = a->member,
                                                .worker = peer.worker,
                                                .submitted_at = a->sent_at,
                                                .bytes_in = c->args.bytes.size,
                                                .peer = peer,
                                                .payload = payload};
    /* A helper that lost it cannot know either. */
    const struct mp_node_outcome how = {
        .is_neighbour = (peer.flags & MP_PEER_IS_LOST) != 0,
        .has_begun = (peer.flags & MP_PEER_HAS_BEGUN) != 0,
        .is_unsure = (peer.flags & (MP_PEER_IS_LOST | MP_PEER_IS_UNSURE)) != 0};
    bool is_wanted = mp_node_is_wanted(c) || (c->state == MP_RPC_ENDING && !is_error);
    if (c->origin.kind == MP_RPC_RUN && !is_wanted && may_keep(a, peer.flags))
        mp_node_run_may_be_held(n, c->origin.owner, a->member);
    if (!is_wanted) {
        mp_node_attempt_close(n, now, call, false);
        mp_node_ended(n, now, call, how.has_begun, how.is_unsure);
    } else if (is_error && (peer.flags & MP_PEER_NO_RELEASE) != 0 && c->release != 0 &&
               !a->was_listed && tell_release(n, a, c)) {
        a->state = MP_NODE_ATTEMPT_LISTING;
    } else if (is_error && (peer.flags & MP_PEER_NOT_HERE) != 0) {
        turned_down(n, now, a, c, mp_node_keep(n, payload.bytes));
    } else {
        /* A failure says nothing about how quick the node is. */
        mp_node_attempt_close(n, now, call, !is_error);
        mp_node_outcome(n, now, call, is_error, how);
    }
}

void mp_node_attempt_lost(struct mp_node *n, struct mp_node_out *o, bool was_sent)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, o->owner);
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, o->owner);
    mp_assert(a && c && a->state == MP_NODE_ATTEMPT_OUT);
    a->out = MP_NODE_NONE;
    char bytes[256];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, was_sent ? "the connection to node " : "no connection to node ");
    mp_text_put_slice(&text, mp_node_member_name(n, a->member));
    mp_text_put(&text, was_sent ? " ended while it had the call" : " can be had");
    const struct mp_fault fault = {.code = MP_CODE_UNAVAILABLE,
                                   .reason = mp_slice_str("NODE_LOST"),
                                   .message = mp_text_slice(&text),
                                   .fun = n->catalog.functions[a->function].name,
                                   .node = mp_node_member_name(n, a->member)};
    struct mp_slice error = mp_node_error(n, &fault);
    /* Its last word may have been lost: that it keeps a result. */
    if (was_sent && c->origin.kind == MP_RPC_RUN)
        mp_node_run_may_be_held(n, c->origin.owner, a->member);
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_RETRY_AFTER_BEGIN))
        was_sent = false;
    if (!was_sent) {
        turned_down(n, n->now, a, c, error);
        return;
    }
    avoid(a, a->member);
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_FORGET_CALLS_OF_LINK))
        return;
    mp_node_attempt_end(n, o->owner, error, true, true);
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_ANSWER_TWICE) && c->origin.kind == MP_RPC_CLIENT)
        mp_node_reply(n, c->origin.owner, c->origin.id, MP_FRAME_ERROR, error);
}

/* --- calls from other nodes --- */

static void refuse(struct mp_node *n, const struct mp_node_event *ev, const struct mp_fault *fault,
                   uint32_t flags)
{
    struct mp_slice error = mp_node_error(n, fault);
    const struct mp_peer_answer answer = {.load = n->rpc.live, .flags = flags};
    if (ev->request.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->request.payload;
    mp_buf_clear(&n->build);
    if (mp_peer_answer_put(&n->build, &answer) != MP_OK)
        mp_buf_clear(&n->build);
    mp_node_send_frame(n, ev->request.client, MP_FRAME_ERROR, ev->request.id,
                       mp_node_keep(n, mp_buf_slice(&n->build)),
                       (struct mp_rpc_payload){.bytes = error});
}

static void refuse_text(struct mp_node *n, const struct mp_node_event *ev, enum mp_code code,
                        const char *reason, const char *message, bool is_elsewhere)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = n->catalog.node};
    refuse(n, ev, &fault, is_elsewhere ? MP_PEER_NOT_HERE : 0);
}

/* Who is told of by that name; a node cannot be the coordinator of what it gets from another. */
static uint32_t coordinator_of(const struct mp_node *n, const struct mp_peer_call *call)
{
    struct mp_member_info info;
    uint32_t member = mp_membership_find(n->membership, call->coordinator);
    if (member == MP_MEMBER_NONE || member == MP_MEMBER_SELF ||
        !mp_membership_get(n->membership, member, &info) || info.state == MP_MEMBER_DEAD)
        return MP_MEMBER_NONE;
    return member;
}

/* The coordinator's number stands above the marks. */
static uint32_t marks_of(const struct mp_node *n, const struct mp_peer_call *call)
{
    uint32_t coordinator = coordinator_of(n, call);
    uint32_t marks = coordinator == MP_MEMBER_NONE ? 0 : coordinator << MP_NODE_MARKS_BITS;
    return marks | ((call->flags & MP_PEER_HAS_HOLES) != 0 ? MP_NODE_HAS_HOLES : 0u) |
           ((call->flags & MP_PEER_MAY_HOLD) != 0 && coordinator != MP_MEMBER_NONE
                ? MP_NODE_MAY_HOLD
                : 0u) |
           ((call->flags & MP_PEER_IS_NESTED) != 0 ? MP_NODE_IS_CHILD : 0u);
}

static void begin(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                  const struct mp_peer_call *call, const struct mp_catalog_function *f,
                  uint32_t release)
{
    mp_time deadline = mp_time_add(now, call->remaining_ns);
    const struct mp_rpc_event begin = {
        .kind = MP_RPC_BEGIN,
        .begin = {
            .origin = {.kind = MP_RPC_PEER, .owner = ev->request.client, .id = ev->request.id},
            .target = mp_node_target(f),
            .args = ev->request.payload,
            .context = call->context,
            .marks = marks_of(n, call),
            .tag = call->run,
            .release = release,
            .deadline = deadline,
            .depth = call->depth}};
    if (!mp_node_make_room(n) || !mp_node_step_rpc(n, now, &begin, NULL))
        refuse_text(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                    "the node has no memory for another call", false);
}

void mp_node_peer_call(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_peer_call call;
    if (mp_node_link_of_client(n, ev->request.client) == MP_NODE_NONE) {
        refuse_text(n, ev, MP_CODE_UNAVAILABLE, "NOT_HERE",
                    "the two nodes are still being introduced", true);
        return;
    }
    if (mp_peer_call_read(ev->request.meta, &call) != MP_OK) {
        refuse_text(n, ev, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", "a peer's call is malformed",
                    false);
        return;
    }
    if (n->is_draining) {
        refuse_text(n, ev, MP_CODE_UNAVAILABLE, "DRAINING", "the node is about to stop", true);
        return;
    }
    if (ev->request.payload.bytes.size > n->cfg.value_bytes_max) {
        refuse_text(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                    "the arguments are larger than --value-max allows", false);
        return;
    }
    if (call.depth > n->cfg.call_depth_max) {
        refuse_text(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "CALL_DEPTH",
                    "calls are nested deeper than --call-depth-max allows", false);
        return;
    }
    if ((call.flags & MP_PEER_HAS_HOLES) != 0 && coordinator_of(n, &call) == MP_MEMBER_NONE) {
        refuse_text(n, ev, MP_CODE_UNAVAILABLE, "NODE_LOST",
                    "the node that coordinates the run is not known here", true);
        return;
    }
    uint32_t release = mp_node_release_by_id(n, call.release);
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_RELEASE_IGNORED))
        release = n->release;
    if (release == MP_NODE_NONE) {
        const struct mp_fault fault = {
            .code = MP_CODE_UNAVAILABLE,
            .reason = mp_slice_str("NO_RELEASE"),
            .message = mp_slice_str("the node does not know what was deployed when the call began"),
            .fun = call.fun,
            .node = n->catalog.node};
        refuse(n, ev, &fault, MP_PEER_NOT_HERE | MP_PEER_NO_RELEASE);
        return;
    }
    const struct mp_catalog_query q = {.fun = call.fun,
                                       .pin = mp_node_release_pin(n, release, call.fun, false),
                                       .version = call.version,
                                       .needs = call.needs,
                                       .needs_count = call.needs_count};
    const struct mp_catalog_function *f = mp_catalog_find_here(&n->catalog, &q);
    if ((call.flags & MP_PEER_HAS_HOLES) != 0 &&
        mp_membership_find(n->membership, call.coordinator) == MP_MEMBER_NONE)
        f = NULL; /* nobody would say when the parts may go */
    if (f) {
        begin(n, now, ev, &call, f, release);
        return;
    }
    /* Who sent it here believed an old entry of ours. */
    const struct mp_fault fault = {.code = MP_CODE_UNAVAILABLE,
                                   .reason = mp_slice_str("NOT_HERE"),
                                   .message =
                                       mp_slice_str("the node does not have the function any more"),
                                   .fun = call.fun,
                                   .node = n->catalog.node};
    refuse(n, ev, &fault, MP_PEER_NOT_HERE);
}

/* A large result of a run's step stays here; its $large form goes instead. Not if the coordinator
 * died meanwhile: nobody would ever give it back. */
static bool hold(struct mp_node *n, const struct mp_node_attempt *a, struct mp_rpc_payload *payload,
                 struct mp_peer_answer *answer)
{
    struct mp_buf form;
    struct mp_member_info info;
    if (!a || !mp_membership_get(n->membership, a->marks >> MP_NODE_MARKS_BITS, &info) ||
        info.state == MP_MEMBER_DEAD || (a->marks & MP_NODE_MAY_HOLD) == 0 ||
        payload->bytes.size <= MP_VALUE_INLINE_MAX)
        return false;
    mp_buf_init(&form, n->alloc, 0);
    struct mp_slice kept = {0};
    if (mp_graph_put_large_form(payload->bytes, &form) == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&form));
    mp_buf_fini(&form);
    size_t size = payload->bytes.size;
    if (kept.size == 0)
        return false;
    answer->held = mp_node_hold(n, a->marks >> MP_NODE_MARKS_BITS, a->tag, payload);
    if (answer->held == 0)
        return false;
    answer->held_bytes = size;
    answer->flags |= MP_PEER_IS_HELD;
    *payload = (struct mp_rpc_payload){.bytes = kept};
    return true;
}

void mp_node_peer_answer(struct mp_node *n, mp_time now, const struct mp_rpc_effect *e,
                         struct mp_slice bytes, uint64_t handle)
{
    const struct mp_node_completion *done = &n->completion;
    const struct mp_node_attempt *a = mp_node_attempt_of(n, e->call);
    bool is_error = e->answer.answer != MP_RPC_RESULT;
    struct mp_rpc_payload payload = {.bytes = bytes, .handle = handle};
    struct mp_peer_answer answer = {.load = n->rpc.live};
    (void)now;
    if (e->answer.has_begun)
        answer.flags |= MP_PEER_HAS_BEGUN;
    if (!e->answer.is_confirmed)
        answer.flags |= MP_PEER_IS_UNSURE;
    if (done->is_set && done->call == e->call) {
        answer.worker = done->worker;
        if (done->begun_at != 0 && done->ended_at >= done->begun_at) {
            answer.run_ns = done->ended_at - done->begun_at;
            answer.queue_ns =
                done->begun_at > done->submitted_at ? done->begun_at - done->submitted_at : 0;
        }
    }
    if (a)
        answer.moved = a->moved;
    if (!is_error)
        (void)hold(n, a, &payload, &answer);
    mp_buf_clear(&n->build);
    if (mp_peer_answer_put(&n->build, &answer) != MP_OK)
        mp_buf_clear(&n->build);
    mp_node_send_frame(n, e->answer.origin.owner, is_error ? MP_FRAME_ERROR : MP_FRAME_RESULT,
                       e->answer.origin.id, mp_node_keep(n, mp_buf_slice(&n->build)), payload);
}
