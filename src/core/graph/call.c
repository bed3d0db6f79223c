/* Calls: one record for everything that is handed out or waits for its next attempt. An
 * invocation's number carries the place of its record, so an answer finds it without a search; a
 * record whose answer nobody wants any more stays until that answer has come. */
#include "src/core/graph/graph_internal.h"

static bool is_out(const struct mp_graph_call *c)
{
    return c->state == MP_GRAPH_CALL_OUT || c->state == MP_GRAPH_CALL_GIVEN_UP;
}

bool mp_graph_call_has_room(const struct mp_graph *g)
{
    return g->outstanding < MP_GRAPH_OUTSTANDING_MAX &&
           (g->outstanding == 0 || g->outstanding_bytes < MP_GRAPH_ARGS_BYTES_MAX);
}

/* --- records --- */

static void list_add(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    struct mp_graph_each *e = g->steps[c->step].items;
    c->list_prev = MP_GRAPH_NONE;
    c->list_next = MP_GRAPH_NONE;
    if (c->index == 0)
        return;
    c->list_next = e->calls_first;
    if (e->calls_first != MP_GRAPH_NONE)
        g->calls[e->calls_first].list_prev = call;
    e->calls_first = call;
}

static void list_remove(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    if (c->index == 0)
        return;
    struct mp_graph_each *e = g->steps[c->step].items;
    if (c->list_prev != MP_GRAPH_NONE)
        g->calls[c->list_prev].list_next = c->list_next;
    else if (e->calls_first == call)
        e->calls_first = c->list_next;
    if (c->list_next != MP_GRAPH_NONE)
        g->calls[c->list_next].list_prev = c->list_prev;
    c->list_prev = MP_GRAPH_NONE;
    c->list_next = MP_GRAPH_NONE;
}

static enum mp_err call_new(struct mp_graph *g, struct mp_graph_call fields, uint32_t *call)
{
    if (g->calls_free == MP_GRAPH_NONE) {
        struct mp_graph_call *calls =
            mp_graph_grow(g, g->calls, &g->calls_capacity, sizeof(*calls), g->calls_count + 1);
        if (!calls)
            return MP_ENOMEM;
        g->calls = calls;
        uint32_t *places = mp_graph_grow(g, g->timer_places, &g->places_capacity, sizeof(*places),
                                         g->calls_count + 1);
        if (!places)
            return MP_ENOMEM;
        g->timer_places = places;
        g->calls_free = g->calls_count++;
        g->calls[g->calls_free].next = MP_GRAPH_NONE;
    }
    *call = g->calls_free;
    g->calls_free = g->calls[*call].next;
    g->calls[*call] = fields;
    g->timer_places[*call] = MP_HEAP_NONE;
    list_add(g, *call);
    return MP_OK;
}

void mp_graph_call_free(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    mp_assert(c->state != MP_GRAPH_CALL_FREE);
    if (is_out(c)) {
        mp_assert(g->outstanding != 0 && g->outstanding_bytes >= c->args_bytes);
        g->outstanding--;
        g->outstanding_bytes -= c->args_bytes;
        g->steps[c->step].out--;
    }
    if (c->state != MP_GRAPH_CALL_GIVEN_UP)
        list_remove(g, call);
    mp_heap_remove(&g->timers, g->timer_places, call);
    c->state = MP_GRAPH_CALL_FREE;
    c->next = g->calls_free;
    g->calls_free = call;
}

enum mp_err mp_graph_call_cancel(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_CANCEL);
    if (!e)
        return MP_ENOMEM;
    e->cancel.invocation = g->calls[call].invocation;
    return MP_OK;
}

enum mp_err mp_graph_call_give_up(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    if (c->state == MP_GRAPH_CALL_OUT) {
        enum mp_err err = mp_graph_call_cancel(g, call);
        if (err != MP_OK)
            return err;
        list_remove(g, call);
        mp_heap_remove(&g->timers, g->timer_places, call);
        c->state = MP_GRAPH_CALL_GIVEN_UP;
    } else if (c->state == MP_GRAPH_CALL_QUEUED) {
        /* It stands in the queue for its next attempt, which frees it. */
        list_remove(g, call);
        c->state = MP_GRAPH_CALL_DROPPED;
    } else {
        mp_graph_call_free(g, call);
    }
    return MP_OK;
}

void mp_graph_call_queue(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    c->state = MP_GRAPH_CALL_QUEUED;
    c->next = MP_GRAPH_NONE;
    if (g->retry_first == MP_GRAPH_NONE)
        g->retry_first = call;
    else
        g->calls[g->retry_last].next = call;
    g->retry_last = call;
}

/* --- handing out --- */

static struct mp_graph_pieces *bound_of(struct mp_graph *g, const struct mp_graph_call *c)
{
    return c->index != 0 ? &g->steps[c->step].items->args : &g->bound;
}

/* Arguments that lie in scratch. */
struct built {
    size_t offset;
    size_t size;
    bool has_holes;
};

/* Joins what was bound for the call. */
static enum mp_err build(struct mp_graph *g, const struct mp_graph_call *c, struct built *args,
                         struct mp_graph_miss *miss)
{
    uint32_t holes = g->holes;
    args->offset = g->scratch.size;
    enum mp_err err = mp_graph_template_join(g, bound_of(g, c), c->item, c->index,
                                             g->config.value_bytes_max, &g->scratch, miss);
    args->size = g->scratch.size - args->offset;
    args->has_holes = g->holes != holes;
    return err;
}

/* The call is handed out now; after an earlier attempt it was waiting for that. */
static void note_handed(struct mp_graph *g, struct mp_graph_call *c)
{
    struct mp_graph_step_record *s = &g->steps[c->step];
    if (c->handed_at == MP_NEVER) {
        c->began_at = g->now;
    } else {
        c->retry += g->now - c->handed_at;
        s->retry += g->now - c->handed_at;
    }
    c->handed_at = g->now;
    if (c->index == 0)
        s->handed_at = g->now;
    if (s->ready_at != MP_NEVER)
        s->wait = g->now - s->ready_at;
    s->ready_at = MP_NEVER;
}

static enum mp_err invoke(struct mp_graph *g, uint32_t call, struct built args)
{
    struct mp_graph_call *c = &g->calls[call];
    struct mp_graph_step_record *s = &g->steps[c->step];
    struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_INVOKE);
    if (!e)
        return MP_ENOMEM;
    g->offsets[g->effects_count - 1] = args.offset;
    mp_duration limit = s->timeout != 0 ? s->timeout : MP_NEVER;
    c->deadline = mp_time_add(g->now, limit);
    c->deadline = g->deadline < c->deadline ? g->deadline : c->deadline;
    if (s->timeout != 0) {
        mp_time late = mp_time_add(c->deadline, MP_MS(MP_GRAPH_ANSWER_GRACE_MS));
        enum mp_err err = mp_heap_set(&g->timers, g->timer_places, call, late);
        if (err != MP_OK)
            return err;
    }
    c->invocation = (uint64_t)++g->invocations << 32 | call;
    c->state = MP_GRAPH_CALL_OUT;
    c->attempt++;
    c->serial = g->serial;
    note_handed(g, c);
    c->args_bytes = args.size;
    c->has_holes = args.has_holes;
    g->outstanding++;
    g->outstanding_bytes += args.size;
    s->out++;
    s->attempts++;
    e->invoke.invocation = c->invocation;
    e->invoke.step = c->step;
    e->invoke.name = s->name;
    e->invoke.index = c->index;
    e->invoke.attempt = c->attempt;
    e->invoke.fun = s->fun;
    e->invoke.args.size = args.size;
    e->invoke.has_holes = args.has_holes;
    e->invoke.version = s->version_wanted;
    e->invoke.on = s->on;
    e->invoke.cluster = s->cluster;
    e->invoke.needs = s->needs.count != 0 ? g->needs + s->needs.first : NULL;
    e->invoke.needs_count = s->needs.count;
    e->invoke.deadline = c->deadline;
    return MP_OK;
}

enum mp_err mp_graph_call_begin(struct mp_graph *g, uint32_t step, uint32_t index,
                                struct mp_slice item, struct mp_graph_miss *miss)
{
    struct mp_graph_call fields = {.state = MP_GRAPH_CALL_QUEUED,
                                   .step = step,
                                   .index = index,
                                   .item = item,
                                   .handed_at = MP_NEVER};
    struct built args;
    uint32_t call;
    enum mp_err err = build(g, &fields, &args, miss);
    if (err != MP_OK)
        return err;
    if (g->steps[step].reruns != 0 && index == 0) {
        fields.attempt = fields.uncounted = g->steps[step].attempts;
        fields.handed_at = g->steps[step].handed_at;
    }
    if (g->steps[step].state == MP_GRAPH_READY)
        mp_graph_step_begin(g, step);
    err = call_new(g, fields, &call);
    return err != MP_OK ? err : invoke(g, call, args);
}

/* Inputs of the call are missing again. Either it waits for them, or its step has ended. */
static void park(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    if (c->state != MP_GRAPH_CALL_QUEUED || g->steps[c->step].state != MP_GRAPH_ACTIVE) {
        mp_graph_call_free(g, call);
        return;
    }
    c->state = MP_GRAPH_CALL_PARKED;
    if (c->index == 0)
        g->steps[c->step].parked = call + 1;
}

enum mp_err mp_graph_call_again(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    uint32_t step = c->step;
    uint32_t index = c->index;
    struct mp_graph_miss miss;
    struct built args;
    enum mp_err err = MP_OK;
    bool may = true;
    mp_assert(c->state == MP_GRAPH_CALL_QUEUED);
    if (g->has_held)
        err = g->steps[step].waiting != 0 ? MP_OK : mp_graph_held_may_call(g, step, &may);
    if (err == MP_OK && (!may || g->steps[step].waiting != 0)) {
        park(g, call);
        return MP_OK;
    }
    if (err == MP_OK && index == 0) {
        g->bound.count = 0;
        err = mp_graph_template_bind(g, g->steps[step].args, MP_GRAPH_BIND_ARGS, &g->bound, &miss);
    }
    if (err == MP_OK)
        err = build(g, c, &args, &miss);
    if (err == MP_OK)
        return invoke(g, call, args);
    /* It could be built before: inputs change only where they were held. */
    mp_assert(err == MP_ENOMEM || g->has_held);
    mp_graph_call_free(g, call);
    return index != 0 ? mp_graph_each_fail_args(g, step, index, err, &miss)
                      : mp_graph_step_fail_args(g, step, err, &miss);
}

/* --- answers --- */

static bool find_call(const struct mp_graph *g, uint64_t invocation, uint32_t *call)
{
    *call = (uint32_t)invocation;
    return *call < g->calls_count && g->calls[*call].invocation == invocation &&
           is_out(&g->calls[*call]);
}

struct answer {
    struct mp_slice node;
    struct mp_slice version;
    uint32_t worker;
    uint64_t bytes_in;
    uint64_t bytes_moved;
    struct mp_graph_timing timing;
    uint32_t node_id; /* interned, by note_answer */
};

static void add_timing(struct mp_graph_timing *sum, const struct mp_graph_timing *t)
{
    sum->queue += t->queue;
    sum->network += t->network;
    sum->run += t->run;
}

static enum mp_err note_answer(struct mp_graph *g, struct mp_graph_call *c, struct answer *a)
{
    struct mp_graph_step_record *s = &g->steps[c->step];
    uint32_t node;
    uint32_t version;
    enum mp_err err = mp_graph_intern_near(g, a->node, s->plan_node, &node);
    if (err == MP_OK)
        err = mp_graph_intern_near(g, a->version, s->plan_version, &version);
    if (err != MP_OK)
        return err;
    add_timing(&s->timing, &a->timing);
    add_timing(&c->timing, &a->timing);
    a->node_id = c->node = node;
    c->worker = a->worker;
    s->bytes_in += a->bytes_in;
    g->bytes_moved += a->bytes_moved;
    if (version != 0)
        s->version = version;
    if (a->worker != 0)
        s->worker = a->worker;
    if (node == 0)
        return MP_OK;
    s->node = node;
    g->remote_calls += !mp_slice_equal(a->node, g->config.node);
    return c->index != 0 ? mp_graph_each_ran_on(g, c->step, node) : MP_OK;
}

static mp_duration pause_before(struct mp_graph *g, mp_duration first, uint32_t attempt)
{
    mp_duration d = first;
    for (uint32_t i = 1; i < attempt && d < MP_MS(MP_BACKOFF_MS_MAX); i++)
        d *= 2;
    if (d > MP_MS(MP_BACKOFF_MS_MAX))
        d = MP_MS(MP_BACKOFF_MS_MAX);
    return d / 2 + mp_rng_below(&g->rng, d - d / 2 + 1);
}

static struct mp_graph_try try_of(const struct mp_graph_call *c, const struct answer *a)
{
    return (struct mp_graph_try){.attempt = c->attempt,
                                 .index = c->index,
                                 .node = a->node_id,
                                 .worker = a->worker,
                                 .handed_at = c->handed_at,
                                 .timing = a->timing};
}

/* Keeps how the attempt failed, and what time it took for nothing. `delay` comes before the next.
 */
static enum mp_err note_failure(struct mp_graph *g, uint32_t call, const struct answer *a,
                                struct mp_slice error, mp_duration delay, uint32_t *try)
{
    struct mp_graph_call *c = &g->calls[call];
    struct mp_graph_try t = try_of(c, a);
    t.delay = delay;
    enum mp_err err = mp_graph_try_add(g, c->step, t, error, try);
    if (err != MP_OK)
        return err;
    c->retry += g->now - c->handed_at;
    g->steps[c->step].retry += g->now - c->handed_at;
    c->handed_at = g->now;
    return MP_OK;
}

/* The call, which is in no queue and not out, gets another attempt after `delay`. */
static enum mp_err pause(struct mp_graph *g, uint32_t call, const struct answer *a,
                         struct mp_slice error, mp_duration delay)
{
    struct mp_graph_call *c = &g->calls[call];
    uint32_t try;
    enum mp_err err = note_failure(g, call, a, error, delay, &try);
    if (err != MP_OK)
        return err;
    mp_graph_tell_retried(g, c->step, c->attempt, try);
    c->state = MP_GRAPH_CALL_PAUSED;
    return mp_heap_set(&g->timers, g->timer_places, call, mp_time_add(g->now, delay));
}

/* An element has ended: it may be the slowest so far. */
static void note_element(struct mp_graph *g, const struct mp_graph_call *c)
{
    struct mp_graph_element *slowest = &g->steps[c->step].items->slowest;
    if (slowest->index != 0 && g->now - c->began_at <= slowest->ended_at - slowest->began_at)
        return;
    *slowest = (struct mp_graph_element){.index = c->index,
                                         .node = c->node,
                                         .worker = c->worker,
                                         .attempts = c->attempt,
                                         .began_at = c->began_at,
                                         .ended_at = g->now,
                                         .timing = c->timing,
                                         .retry = c->retry};
}

/* Of a step that needed several attempts the one that succeeded is kept too. */
static enum mp_err note_success(struct mp_graph *g, const struct mp_graph_call *c,
                                const struct answer *a)
{
    uint32_t try;
    if (c->index != 0)
        note_element(g, c);
    else if (g->steps[c->step].tries)
        return mp_graph_try_add(g, c->step, try_of(c, a), (struct mp_slice){0}, &try);
    return MP_OK;
}

/* The attempt failed; `error` is the ERROR map as it will be shown. The call is in no queue and not
 * out. */
static enum mp_err attempt_failed(struct mp_graph *g, uint32_t call, const struct answer *a,
                                  struct mp_slice error, enum mp_code code, bool is_final)
{
    struct mp_graph_call *c = &g->calls[call];
    struct mp_graph_step_record *s = &g->steps[c->step];
    uint32_t try;
    if (g->mode != MP_GRAPH_CANCELLING && !is_final && mp_code_is_retried(code) &&
        c->attempt - c->uncounted <= s->retries) {
        mp_duration delay = pause_before(g, s->backoff, c->attempt - c->uncounted);
        s->retries_made++;
        if (c->index != 0 && c->attempt == 1)
            s->items->retried++;
        return pause(g, call, a, error, delay);
    }
    enum mp_err err = note_failure(g, call, a, error, 0, &try);
    if (err != MP_OK)
        return err;
    uint32_t step = c->step;
    uint32_t index = c->index;
    if (index != 0)
        note_element(g, c);
    mp_graph_call_free(g, call);
    return index != 0 ? mp_graph_each_failed(g, step, index, error, code, false)
                      : mp_graph_step_fail(g, step, error, code, false);
}

/* The call is no longer out, though its record stays. */
static void bring_in(struct mp_graph *g, uint32_t call)
{
    struct mp_graph_call *c = &g->calls[call];
    mp_assert(c->state == MP_GRAPH_CALL_OUT);
    g->outstanding--;
    g->outstanding_bytes -= c->args_bytes;
    g->steps[c->step].out--;
    mp_heap_remove(&g->timers, g->timer_places, call);
    c->state = MP_GRAPH_CALL_PAUSED;
}

/* A call that failed without anybody having measured it, such as one over its deadline, still took
 * its time: waiting, if it provably never began, else running. */
static struct mp_graph_timing time_of_failure(const struct mp_graph *g,
                                              const struct mp_graph_call *c,
                                              struct mp_graph_timing measured, bool never_began)
{
    if (measured.queue != 0 || measured.network != 0 || measured.run != 0)
        return measured;
    mp_duration elapsed = g->now - c->handed_at;
    return never_began ? (struct mp_graph_timing){.queue = elapsed}
                       : (struct mp_graph_timing){.run = elapsed};
}

/* Copies an ERROR map without what only this machine knows: numbers of a caller in between would
 * stand in the way of its own. */
static enum mp_err strip_error(struct mp_slice error, struct mp_buf *out)
{
    static const char *const ours[] = {"step", "index", "attempt"};
    uint32_t count;
    uint32_t kept = 0;
    struct mp_mp_reader r;
    struct mp_slice pairs[2 * MP_GRAPH_ERROR_KEYS_MAX];
    enum mp_err err = mp_mp_get_map(error, &count, &r);
    for (uint32_t i = 0; err == MP_OK && i < count && kept < MP_GRAPH_ERROR_KEYS_MAX; i++) {
        struct mp_slice name = {0};
        err = mp_mp_take(&r, &pairs[2 * kept]);
        if (err == MP_OK)
            err = mp_mp_take(&r, &pairs[2 * kept + 1]);
        bool is_ours = false;
        if (err == MP_OK && mp_mp_get_str(pairs[2 * kept], &name) == MP_OK)
            for (size_t k = 0; k < MP_ARRAY_SIZE(ours); k++)
                is_ours |= mp_slice_is(name, ours[k]);
        kept += !is_ours;
    }
    if (err == MP_OK)
        err = mp_mp_put_map(out, kept);
    for (uint32_t i = 0; err == MP_OK && i < 2 * kept; i++)
        err = mp_buf_append(out, pairs[i]);
    return err;
}

/* Adds what the machine knows to an ERROR map; the result is in g->fault. */
static enum mp_err extend_error(struct mp_graph *g, const struct mp_graph_call *c,
                                const struct answer *a, struct mp_slice error,
                                struct mp_slice *extended)
{
    const struct mp_graph_step_record *s = &g->steps[c->step];
    struct mp_fault extra = {.step = s->name,
                             .fun = s->fun,
                             .index = c->index,
                             .node = a->node,
                             .version = a->version,
                             .attempt = c->attempt};
    mp_buf_clear(&g->fault);
    mp_buf_clear(&g->hint);
    enum mp_err err = strip_error(error, &g->hint);
    if (err == MP_OK)
        err = mp_fault_put_extended(&g->fault, mp_buf_slice(&g->hint), &extra);
    *extended = mp_buf_slice(&g->fault);
    return err;
}

static enum mp_err fail_with(struct mp_graph *g, uint32_t call, const struct answer *a,
                             enum mp_code code, const char *reason, const char *message)
{
    struct mp_fault f = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str(message)};
    struct mp_slice error;
    mp_buf_clear(&g->message);
    enum mp_err err = mp_fault_put(&g->message, &f);
    if (err == MP_OK)
        err = extend_error(g, &g->calls[call], a, mp_buf_slice(&g->message), &error);
    return err != MP_OK ? err : attempt_failed(g, call, a, error, code, false);
}

/* A value that stayed with its holder: all that is kept of it is the form in its place. */
static enum mp_err take_held(struct mp_graph *g, uint32_t step, const struct mp_graph_event *ev)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice own;
    uint32_t holder;
    if (!mp_graph_keep(g, ev->completed.value.size))
        return mp_graph_step_fail_kept(g, step);
    enum mp_err err = mp_graph_intern_near(g, ev->completed.node, s->node, &holder);
    if (err == MP_OK)
        err = mp_graph_copy(g, ev->completed.value, &own);
    if (err != MP_OK)
        return err;
    g->has_held = true;
    s->is_held = true;
    s->is_lost = false;
    s->holder = holder;
    s->held = ev->completed.held;
    s->held_bytes = ev->completed.held_bytes;
    mp_graph_step_succeed(g, step, own);
    return MP_OK;
}

/* An element's value that stayed with its holder has to come: it is a part of the step's. */
static enum mp_err fetch_element(struct mp_graph *g, uint32_t call, const struct mp_graph_event *ev)
{
    struct mp_graph_call *c = &g->calls[call];
    enum mp_err err = mp_graph_intern(g, ev->completed.node, &c->holder);
    if (err == MP_OK)
        err = mp_graph_held_fetch(g, call | MP_GRAPH_FETCH_CALL, c->holder, ev->completed.held,
                                  ev->completed.held_bytes, &c->fetch);
    c->state = MP_GRAPH_CALL_FETCHED;
    return err;
}

static enum mp_err take_result(struct mp_graph *g, uint32_t call, const struct answer *a,
                               struct mp_slice value)
{
    uint32_t step = g->calls[call].step;
    uint32_t index = g->calls[call].index;
    enum mp_err err = note_success(g, &g->calls[call], a);
    if (err != MP_OK)
        return err;
    mp_graph_call_free(g, call);
    if (value.size > g->config.value_bytes_max)
        return mp_graph_step_fail_large(g, step, index, "the result is");
    if (index != 0)
        return mp_graph_each_completed(g, step, index, value);
    struct mp_slice own;
    if (!mp_graph_keep(g, value.size))
        return mp_graph_step_fail_kept(g, step);
    err = mp_graph_copy(g, value, &own);
    if (err == MP_OK)
        mp_graph_step_succeed(g, step, own);
    return err;
}

enum mp_err mp_graph_call_completed(struct mp_graph *g, const struct mp_graph_event *ev)
{
    uint32_t call;
    struct answer a = {.node = ev->completed.node,
                       .version = ev->completed.version,
                       .worker = ev->completed.worker,
                       .bytes_in = ev->completed.bytes_in,
                       .bytes_moved = ev->completed.bytes_moved,
                       .timing = ev->completed.timing};
    if (!find_call(g, ev->completed.invocation, &call))
        return MP_EINVAL;
    mp_assert(!ev->completed.is_held || a.node.size != 0);
    g->steps[g->calls[call].step].has_run = true;
    g->steps[g->calls[call].step].unconfirmed += ev->completed.is_unconfirmed;
    if (g->calls[call].state == MP_GRAPH_CALL_GIVEN_UP) {
        g->bytes_moved += a.bytes_moved;
        mp_graph_call_free(g, call);
        return MP_OK;
    }
    bring_in(g, call);
    enum mp_err err = note_answer(g, &g->calls[call], &a);
    if (err != MP_OK)
        return err;
    /* A worker's memory may be broken; a value that is none must not break the whole record. */
    if (ev->completed.value.size <= g->config.value_bytes_max &&
        mp_graph_depth_check(ev->completed.value, MP_DEPTH_MAX) != MP_OK)
        return fail_with(g, call, &a, MP_CODE_INTERNAL, "BAD_RESULT",
                         "the result is not one well-formed value, or nested too deep");
    if (!ev->completed.is_held)
        return take_result(g, call, &a, ev->completed.value);
    uint32_t step = g->calls[call].step;
    uint32_t index = g->calls[call].index;
    bool is_large = ev->completed.held_bytes > g->config.value_bytes_max;
    if (index != 0 && !is_large)
        return fetch_element(g, call, ev);
    err = note_success(g, &g->calls[call], &a);
    if (err != MP_OK)
        return err;
    mp_graph_call_free(g, call);
    return is_large ? mp_graph_step_fail_large(g, step, index, "the result is")
                    : take_held(g, step, ev);
}

/* Its result is lost before it came. */
static enum mp_err lose_element(struct mp_graph *g, uint32_t call, const struct answer *a)
{
    struct mp_graph_call *c = &g->calls[call];
    struct mp_graph_step_record *s = &g->steps[c->step];
    struct mp_fault f = {.code = MP_CODE_DATA_LOSS,
                         .reason = mp_slice_str("RESULT_LOST"),
                         .message = mp_slice_str("its result was lost with the node that had it")};
    struct mp_slice error;
    mp_buf_clear(&g->message);
    enum mp_err err = mp_fault_put(&g->message, &f);
    if (err == MP_OK)
        err = extend_error(g, c, a, mp_buf_slice(&g->message), &error);
    if (err != MP_OK)
        return err;
    if (g->mode == MP_GRAPH_CANCELLING || !s->is_idempotent || c->losses >= MP_GRAPH_RERUNS_MAX)
        return attempt_failed(g, call, a, error, MP_CODE_DATA_LOSS, false);
    c->losses++;
    c->uncounted++;
    s->retries_made++;
    if (c->attempt == 1)
        s->items->retried++;
    return pause(g, call, a, error, 0);
}

enum mp_err mp_graph_call_fetched(struct mp_graph *g, uint32_t call,
                                  const struct mp_graph_event *ev)
{
    if (call >= g->calls_count || g->calls[call].state != MP_GRAPH_CALL_FETCHED ||
        g->calls[call].fetch != ev->fetched.fetch)
        return MP_OK; /* nobody wants it any more */
    struct mp_graph_call *c = &g->calls[call];
    struct answer a = {
        .node = mp_graph_interned(g, c->holder), .node_id = c->node, .worker = c->worker};
    if (ev->fetched.is_lost)
        return lose_element(g, call, &a);
    if (!mp_slice_equal(a.node, g->config.node))
        g->bytes_moved += ev->fetched.value.size;
    if (ev->fetched.value.size <= g->config.value_bytes_max &&
        mp_graph_depth_check(ev->fetched.value, MP_DEPTH_MAX) != MP_OK)
        return fail_with(g, call, &a, MP_CODE_INTERNAL, "BAD_RESULT",
                         "the result is not one well-formed value, or nested too deep");
    return take_result(g, call, &a, ev->fetched.value);
}

/* The call could not get a value that stands for a hole. If its holder is known to be lost, the
 * step that made it runs again as soon as this one is to be handed out; else either that becomes
 * known or the value can be had, a little later. */
static enum mp_err lose_input(struct mp_graph *g, uint32_t call, const struct answer *a,
                              struct mp_slice error, bool never_began)
{
    struct mp_graph_call *c = &g->calls[call];
    bool is_known = mp_graph_held_has_lost(g, c->step);
    if (g->mode == MP_GRAPH_CANCELLING || c->losses >= MP_GRAPH_LOST_PAUSES_MAX)
        return attempt_failed(g, call, a, error, MP_CODE_DATA_LOSS, true);
    c->losses++;
    enum mp_err err = pause(g, call, a, error, is_known ? 0 : MP_MS(MP_GRAPH_LOST_PAUSE_MS));
    if (never_began)
        c->attempt--;
    else
        c->uncounted++;
    return err;
}

/* A held value lacks what a reference names. The step fails as if that had been seen here, all of
 * it: the holes of every element are the same. */
static enum mp_err miss_input(struct mp_graph *g, uint32_t call, const struct answer *a,
                              const struct mp_fault *f)
{
    uint32_t step = g->calls[call].step;
    uint32_t try;
    struct mp_slice error;
    enum mp_err err = mp_graph_held_make_missing(g, step, f, &error);
    if (err == MP_OK)
        err = note_failure(g, call, a, error, 0, &try);
    if (err == MP_OK && g->calls[call].index != 0)
        err = mp_graph_each_give_up(g, step);
    else if (err == MP_OK)
        mp_graph_call_free(g, call);
    return err != MP_OK ? err : mp_graph_step_fail(g, step, error, MP_CODE_INVALID_ARGUMENT, false);
}

enum mp_err mp_graph_call_failed(struct mp_graph *g, const struct mp_graph_event *ev)
{
    uint32_t call;
    struct mp_fault f;
    struct mp_slice error;
    struct answer a = {.node = ev->failed.node,
                       .version = ev->failed.version,
                       .worker = ev->failed.worker,
                       .bytes_in = ev->failed.bytes_in,
                       .bytes_moved = ev->failed.bytes_moved};
    if (!find_call(g, ev->failed.invocation, &call))
        return MP_EINVAL;
    struct mp_graph_call *c = &g->calls[call];
    g->steps[c->step].has_run |= !ev->failed.never_began;
    g->steps[c->step].unconfirmed += !ev->failed.is_confirmed && !ev->failed.never_began;
    if (c->state == MP_GRAPH_CALL_GIVEN_UP) {
        g->bytes_moved += a.bytes_moved;
        mp_graph_call_free(g, call);
        return MP_OK;
    }
    bring_in(g, call);
    a.timing = time_of_failure(g, c, ev->failed.timing, ev->failed.never_began);
    if (ev->failed.never_began) {
        g->steps[c->step].attempts--;
        a.node = (struct mp_slice){0};
        a.worker = 0;
    }
    enum mp_err err = note_answer(g, c, &a);
    if (err != MP_OK)
        return err;
    if (mp_graph_depth_check(ev->failed.error, MP_GRAPH_ERROR_DEPTH_MAX) != MP_OK ||
        mp_fault_read(ev->failed.error, &f) != MP_OK)
        return fail_with(g, call, &a, MP_CODE_INTERNAL, "BAD_ERROR",
                         "the call failed with an error that cannot be read");
    if (c->has_holes && ev->failed.never_began && f.code == MP_CODE_INVALID_ARGUMENT &&
        mp_slice_is(f.reason, "MISSING_FIELD"))
        return miss_input(g, call, &a, &f);
    err = extend_error(g, c, &a, ev->failed.error, &error);
    if (err != MP_OK)
        return err;
    bool may_repeat = ev->failed.never_began || g->steps[c->step].is_idempotent;
    if (c->has_holes && may_repeat && f.code == MP_CODE_DATA_LOSS &&
        mp_slice_is(f.reason, "RESULT_LOST"))
        return lose_input(g, call, &a, error, ev->failed.never_began);
    return attempt_failed(g, call, &a, error, f.code, f.is_final);
}

/* --- time --- */

/* No answer came even after the deadline: the attempt is lost, its record stays for the answer. */
static enum mp_err lose_attempt(struct mp_graph *g, uint32_t call)
{
    struct answer a = {0};
    struct mp_graph_call again = g->calls[call];
    uint32_t other;
    enum mp_err err = mp_graph_call_give_up(g, call);
    if (err != MP_OK)
        return err;
    again.state = MP_GRAPH_CALL_PAUSED;
    err = call_new(g, again, &other);
    return err != MP_OK ? err
                        : fail_with(g, other, &a, MP_CODE_DEADLINE_EXCEEDED, "STEP_TIMEOUT",
                                    "there was no answer by the step's deadline");
}

enum mp_err mp_graph_call_timers(struct mp_graph *g)
{
    uint32_t call;
    enum mp_err err = MP_OK;
    while (err == MP_OK && mp_heap_pop(&g->timers, g->timer_places, g->now, &call)) {
        struct mp_graph_call *c = &g->calls[call];
        if (c->state == MP_GRAPH_CALL_OUT) {
            err = lose_attempt(g, call);
            continue;
        }
        mp_assert(c->state == MP_GRAPH_CALL_PAUSED);
        mp_graph_call_queue(g, call);
    }
    return err;
}
