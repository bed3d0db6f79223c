/* A run from START to FINISHED. A step is ready once everything it depends on has ended; a step
 * that ends is put on a list, and passing its end on to its dependents may end more of them: all
 * by lists, nothing by recursion.
 *
 * The first step that fails turns the run from going to failing: what has been handed out finishes
 * (with its retries and elements), what depends on the failed step is skipped, nothing new starts,
 * and what is left is cancelled at the end. Only mp_graph_step_move() changes a step's state.
 *
 * A step that ended well may have to run again because its result was lost (see held.c): its end is
 * then taken back, and passed on a second time to the steps that read it. */
#include "src/core/graph/graph_internal.h"

#define MOVE(state) (1u << (state))

static const unsigned moves[MP_GRAPH_STATES] = {
    /* What is preset is done from the start. */
    [MP_GRAPH_PENDING] = MOVE(MP_GRAPH_READY) | MOVE(MP_GRAPH_DONE) | MOVE(MP_GRAPH_SKIPPED) |
                         MOVE(MP_GRAPH_STOPPED),
    [MP_GRAPH_READY] = MOVE(MP_GRAPH_PENDING) | MOVE(MP_GRAPH_ACTIVE) | MOVE(MP_GRAPH_DONE) |
                       MOVE(MP_GRAPH_BROKEN) | MOVE(MP_GRAPH_SKIPPED) | MOVE(MP_GRAPH_STOPPED),
    [MP_GRAPH_ACTIVE] = MOVE(MP_GRAPH_DONE) | MOVE(MP_GRAPH_BROKEN) | MOVE(MP_GRAPH_SKIPPED) |
                        MOVE(MP_GRAPH_STOPPED) | MOVE(MP_GRAPH_LATE),
    [MP_GRAPH_DONE] = MOVE(MP_GRAPH_PENDING),
};

void mp_graph_step_move(struct mp_graph *g, uint32_t step, enum mp_graph_state state)
{
    struct mp_graph_step_record *s = &g->steps[step];
    mp_assert(moves[s->state] & MOVE(state));
    mp_assert(g->counts[s->state] != 0);
    g->counts[s->state]--;
    s->state = state;
    g->counts[state]++;
}

static bool has_ended(const struct mp_graph_step_record *s)
{
    return s->state >= MP_GRAPH_DONE;
}

#ifdef MP_SLOW_CHECKS
static bool adds_up(const struct mp_graph *g)
{
    uint32_t counts[MP_GRAPH_STATES] = {0};
    uint32_t out = 0;
    size_t kept = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        counts[g->steps[i].state]++;
        kept += g->steps[i].result.size;
        kept += g->steps[i].items ? g->steps[i].items->values.size : 0;
    }
    for (uint32_t i = 0; i < g->calls_count; i++)
        out +=
            g->calls[i].state == MP_GRAPH_CALL_OUT || g->calls[i].state == MP_GRAPH_CALL_GIVEN_UP;
    return memcmp(counts, g->counts, sizeof(counts)) == 0 && out == g->outstanding &&
           kept == g->kept_bytes;
}
#endif

/* --- ends of steps --- */

void mp_graph_step_queue(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    if (s->is_queued)
        return;
    s->is_queued = true;
    s->queue_next = MP_GRAPH_NONE;
    if (g->ready_first == MP_GRAPH_NONE)
        g->ready_first = step;
    else
        g->steps[g->ready_last].queue_next = step;
    g->ready_last = step;
}

void mp_graph_step_look_again(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    if (s->is_listed)
        return;
    s->is_listed = true;
    s->again_next = MP_GRAPH_NONE;
    if (g->again_first == MP_GRAPH_NONE)
        g->again_first = step;
    else
        g->steps[g->again_last].again_next = step;
    g->again_last = step;
}

static void unqueue_first(struct mp_graph *g)
{
    struct mp_graph_step_record *s = &g->steps[g->ready_first];
    mp_assert(s->is_queued);
    s->is_queued = false;
    g->ready_first = s->queue_next;
}

static bool may_shrink(const struct mp_graph_step_record *s)
{
    return s->state == MP_GRAPH_DONE && s->readers == 0 && !s->is_output_needed && !s->is_shrunk &&
           !s->is_held && s->result.size > MP_TRACE_RESULT_MAX;
}

/* A large result that no step and no output will read again is shown by its $large form from the
 * machine's next step on: until then whoever drives it may want to keep it. Small ones stay, since
 * a run that fails later returns them. */
static void let_ebb(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    if (s->is_ebbing || !may_shrink(s))
        return;
    s->is_ebbing = true;
    s->ebb_next = g->ebb_first;
    g->ebb_first = step;
}

/* One that came from its holder is held there as before. */
static void shrink_result(struct mp_graph *g, struct mp_graph_step_record *s)
{
    if (!may_shrink(s))
        return;
    struct mp_slice small;
    mp_buf_clear(&g->message);
    struct mp_out o = mp_out_of(&g->message);
    mp_graph_put_large(&o, s->result);
    /* Without memory for the small form the large one simply stays. */
    if (o.err != MP_OK || mp_graph_copy(g, mp_buf_slice(&g->message), &small) != MP_OK)
        return;
    g->kept_bytes -= s->result.size - small.size;
    mp_graph_drop(g, &s->result);
    s->result = small;
    s->is_held = s->holder != 0;
    s->is_shrunk = !s->is_held;
}

void mp_graph_ebb(struct mp_graph *g)
{
    while (g->ebb_first != MP_GRAPH_NONE) {
        struct mp_graph_step_record *s = &g->steps[g->ebb_first];
        g->ebb_first = s->ebb_next;
        s->is_ebbing = false;
        shrink_result(g, s);
    }
}

static void release_inputs(struct mp_graph *g, const struct mp_graph_step_record *s)
{
    for (uint32_t k = s->deps.first; k < s->deps.first + s->deps.count; k++) {
        if (!(g->edges[k] & MP_GRAPH_EDGE_REF))
            continue;
        uint32_t input = g->edges[k] & MP_GRAPH_EDGE_STEP;
        mp_assert(g->steps[input].readers != 0);
        g->steps[input].readers--;
        let_ebb(g, input);
    }
}

/* It failed, or was skipped because another one did. */
static bool has_failed(const struct mp_graph_step_record *s)
{
    return s->state == MP_GRAPH_BROKEN || s->state == MP_GRAPH_LATE ||
           (s->state == MP_GRAPH_SKIPPED && s->because == MP_GRAPH_BECAUSE_FAILURE);
}

static void end_step(struct mp_graph *g, uint32_t step, enum mp_graph_state state)
{
    struct mp_graph_step_record *s = &g->steps[step];
    mp_graph_step_move(g, step, state);
    mp_assert(has_ended(s));
    mp_graph_each_settle(g, step);
    s->ended_at = g->now;
    s->ended_seq = ++g->ends;
    g->ended++;
    if (state == MP_GRAPH_DONE || state == MP_GRAPH_SKIPPED) {
        g->level_left[s->level]--;
        g->levels_undone -= s->level < g->levels_done;
    }
    s->ended_next = MP_GRAPH_NONE;
    if (g->ended_first == MP_GRAPH_NONE)
        g->ended_first = step;
    else
        g->steps[g->ended_last].ended_next = step;
    g->ended_last = step;
    mp_graph_tell_step_ended(g, step);
    /* Who goes on with this run when it is over wants to hand it out again, so its inputs stay. */
    if (!has_failed(s))
        release_inputs(g, s);
    let_ebb(g, step);
}

bool mp_graph_keep(struct mp_graph *g, size_t bytes)
{
    if (g->config.kept_bytes_max != 0 && bytes > g->config.kept_bytes_max - g->kept_bytes)
        return false;
    g->kept_bytes += bytes;
    return true;
}

void mp_graph_step_succeed(struct mp_graph *g, uint32_t step, struct mp_slice own_result)
{
    struct mp_graph_step_record *s = &g->steps[step];
    mp_assert(s->result.size == 0 && own_result.size != 0);
    s->result = own_result;
    s->bytes_out = s->is_held ? s->held_bytes : own_result.size;
    end_step(g, step, MP_GRAPH_DONE);
}

void mp_graph_step_skip(struct mp_graph *g, uint32_t step, enum mp_graph_because because,
                        uint32_t because_step)
{
    g->steps[step].because = because;
    g->steps[step].because_step = because_step;
    end_step(g, step, MP_GRAPH_SKIPPED);
}

void mp_graph_step_stop(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    mp_graph_step_move(g, step, MP_GRAPH_STOPPED);
    mp_graph_each_settle(g, step);
    s->ended_at = g->now;
    s->ended_seq = ++g->ends;
    g->ended++;
}

static enum mp_err take_default(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_miss miss;
    struct mp_slice value;
    g->bound.count = 0;
    enum mp_err err =
        mp_graph_template_bind(g, s->on_error_value, MP_GRAPH_BIND_VALUE, &g->bound, &miss);
    mp_buf_clear(&g->message);
    if (err == MP_OK)
        err = mp_graph_template_join(g, &g->bound, (struct mp_slice){0}, 0, SIZE_MAX, &g->message,
                                     &miss);
    mp_assert(err != MP_ENOENT);
    if (err == MP_OK)
        err = mp_graph_copy(g, mp_buf_slice(&g->message), &value);
    if (err != MP_OK)
        return err;
    g->kept_bytes += value.size;
    s->is_defaulted = true;
    mp_graph_step_succeed(g, step, value);
    return MP_OK;
}

enum mp_err mp_graph_step_fail(struct mp_graph *g, uint32_t step, struct mp_slice error,
                               enum mp_code code, bool is_fatal)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice own;
    enum mp_err err = mp_graph_copy(g, error, &own);
    if (err != MP_OK)
        return err;
    mp_graph_drop(g, &s->error);
    s->error = own;
    if (g->mode == MP_GRAPH_CANCELLING) {
        s->has_failed = code != MP_CODE_CANCELLED;
        mp_graph_step_stop(g, step);
        return MP_OK;
    }
    if (!is_fatal && s->on_error == MP_GRAPH_ON_ERROR_SKIP) {
        mp_graph_step_skip(g, step, MP_GRAPH_BECAUSE_ERROR, MP_GRAPH_NONE);
        return MP_OK;
    }
    if (!is_fatal && s->on_error == MP_GRAPH_ON_ERROR_DEFAULT)
        return take_default(g, step);
    if (g->mode == MP_GRAPH_GOING) {
        err = mp_graph_copy(g, own, &g->error);
        if (err != MP_OK)
            return err;
        g->mode = MP_GRAPH_FAILING;
    }
    bool is_late = code == MP_CODE_DEADLINE_EXCEEDED && s->state == MP_GRAPH_ACTIVE;
    end_step(g, step, is_late ? MP_GRAPH_LATE : MP_GRAPH_BROKEN);
    return MP_OK;
}

enum mp_err mp_graph_step_fail_large(struct mp_graph *g, uint32_t step, uint32_t index,
                                     const char *what)
{
    struct mp_slice error;
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "%t over the limit of %u bytes", what, (uint64_t)g->config.value_bytes_max);
    enum mp_err err = o.err;
    if (err == MP_OK)
        err = mp_graph_make_error(g, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE", step, index, &error);
    if (err != MP_OK)
        return err;
    return index != 0
               ? mp_graph_each_failed(g, step, index, error, MP_CODE_RESOURCE_EXHAUSTED, false)
               : mp_graph_step_fail(g, step, error, MP_CODE_RESOURCE_EXHAUSTED, false);
}

enum mp_err mp_graph_step_fail_kept(struct mp_graph *g, uint32_t step)
{
    struct mp_slice error;
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "the results of this run are over the limit of %u bytes",
               (uint64_t)g->config.kept_bytes_max);
    enum mp_err err = o.err;
    if (err == MP_OK)
        err = mp_graph_make_error(g, MP_CODE_RESOURCE_EXHAUSTED, "RUN_TOO_LARGE", step, 0, &error);
    return err != MP_OK ? err
                        : mp_graph_step_fail(g, step, error, MP_CODE_RESOURCE_EXHAUSTED, true);
}

/* --- readiness --- */

static enum mp_err test(struct mp_graph *g, struct mp_graph_range condition, bool *is_true,
                        struct mp_graph_miss *miss)
{
    g->bound.count = 0;
    enum mp_err err = mp_graph_template_bind(g, condition, MP_GRAPH_BIND_VALUE, &g->bound, miss);
    if (err == MP_ENOENT && !miss->is_skipped) {
        *is_true = false;
        return MP_OK;
    }
    if (err != MP_OK)
        return err;
    mp_assert(g->bound.count != 0 && g->bound.items[0].text.size != 0);
    uint8_t first = g->bound.items[0].text.data[0];
    *is_true = first != 0xc0 && first != 0xc2;
    return MP_OK;
}

/* Whether the values that the step's conditions, or its list and arguments, need are there. */
static enum mp_err has_values(struct mp_graph *g, uint32_t step, bool has_begun, bool *has_all)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    enum mp_graph_held_state state = MP_GRAPH_HELD_READY;
    enum mp_err err = MP_OK;
    if (!has_begun) {
        err = mp_graph_held_prepare(g, s->when, false, &state);
        if (err == MP_OK)
            err = mp_graph_held_prepare(g, s->unless, false, &state);
    } else {
        err = mp_graph_held_prepare(g, s->each, false, &state);
        if (err == MP_OK)
            err = mp_graph_held_prepare(g, s->args, true, &state);
    }
    *has_all = state == MP_GRAPH_HELD_READY;
    return err;
}

static enum mp_err go_ready(struct mp_graph *g, uint32_t step)
{
    bool has_all = true;
    enum mp_err err = g->has_held ? has_values(g, step, true, &has_all) : MP_OK;
    if (err != MP_OK || !has_all)
        return err;
    mp_graph_step_move(g, step, MP_GRAPH_READY);
    if (g->steps[step].started_at == MP_NEVER)
        g->steps[step].ready_at = g->now;
    mp_graph_step_queue(g, step);
    return MP_OK;
}

/* Everything it depends on has ended, and none of it skips it. It stays pending while values are
 * fetched that must be here; a step that runs again was let through before. */
static enum mp_err make_ready(struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_miss miss;
    bool is_true = true;
    if (s->reruns != 0)
        return go_ready(g, step);
    if (g->has_held) {
        enum mp_err missing = has_values(g, step, false, &is_true);
        if (missing != MP_OK || !is_true)
            return missing;
    }
    enum mp_graph_because because = MP_GRAPH_BECAUSE_WHEN;
    enum mp_err err = s->when.count != 0 ? test(g, s->when, &is_true, &miss) : MP_OK;
    if (err == MP_OK && is_true && s->unless.count != 0) {
        because = MP_GRAPH_BECAUSE_UNLESS;
        err = test(g, s->unless, &is_true, &miss);
        is_true = !is_true;
    }
    if (err == MP_OK && is_true)
        return go_ready(g, step);
    if (err == MP_OK)
        mp_graph_step_skip(g, step, because, MP_GRAPH_NONE);
    else if (err == MP_ENOENT)
        mp_graph_step_skip(g, step, MP_GRAPH_BECAUSE_INPUT, miss.step);
    return err == MP_ENOENT ? MP_OK : err;
}

/* The end of a step that ran again. Its first end was passed on too: what only comes after it waits
 * no more; what reads it may run already. */
static void pass_rerun_to(struct mp_graph *g, uint32_t from, uint32_t edge, bool is_failure)
{
    uint32_t to = edge & MP_GRAPH_EDGE_STEP;
    struct mp_graph_step_record *d = &g->steps[to];
    if (is_failure && d->state == MP_GRAPH_ACTIVE)
        return; /* what is out finishes */
    if (is_failure && d->state == MP_GRAPH_PENDING) {
        mp_graph_step_skip(g, to, MP_GRAPH_BECAUSE_FAILURE, from);
        return;
    }
    if (!(edge & MP_GRAPH_EDGE_REF))
        return;
    mp_assert((d->state == MP_GRAPH_PENDING || d->state == MP_GRAPH_ACTIVE) && d->waiting != 0);
    if (g->steps[from].state == MP_GRAPH_SKIPPED && (edge & MP_GRAPH_EDGE_STRICT) &&
        d->state == MP_GRAPH_PENDING)
        mp_graph_step_skip(g, to, MP_GRAPH_BECAUSE_INPUT, from);
    else if (--d->waiting == 0)
        mp_graph_step_look_again(g, to);
}

static enum mp_err pass_end_to(struct mp_graph *g, uint32_t from, uint32_t edge)
{
    const struct mp_graph_step_record *s = &g->steps[from];
    uint32_t to = edge & MP_GRAPH_EDGE_STEP;
    struct mp_graph_step_record *d = &g->steps[to];
    bool is_failure = has_failed(s);
    if (has_ended(d))
        return MP_OK;
    if (s->reruns != 0) {
        pass_rerun_to(g, from, edge, is_failure);
        return MP_OK;
    }
    mp_assert(d->state == MP_GRAPH_PENDING && d->waiting != 0);
    if (is_failure || (s->state == MP_GRAPH_SKIPPED && (edge & MP_GRAPH_EDGE_STRICT))) {
        mp_graph_step_skip(g, to, is_failure ? MP_GRAPH_BECAUSE_FAILURE : MP_GRAPH_BECAUSE_INPUT,
                           from);
        return MP_OK;
    }
    if (--d->waiting != 0 || g->mode != MP_GRAPH_GOING)
        return MP_OK;
    if (!g->has_held)
        return make_ready(g, to);
    /* A lost input takes the end of a step back, which is passed on first. */
    mp_graph_step_look_again(g, to);
    return MP_OK;
}

static enum mp_err pass_ends_on(struct mp_graph *g)
{
    while (g->ended_first != MP_GRAPH_NONE) {
        uint32_t step = g->ended_first;
        g->ended_first = g->steps[step].ended_next;
        const struct mp_graph_range to = g->steps[step].dependents;
        for (uint32_t k = to.first; k < to.first + to.count; k++) {
            enum mp_err err = pass_end_to(g, step, g->dependents[k]);
            if (err != MP_OK)
                return err;
        }
    }
    return MP_OK;
}

/* Looks at the steps that were waiting for something: until one ends, which is passed on first. */
static enum mp_err look_again(struct mp_graph *g)
{
    enum mp_err err = MP_OK;
    while (err == MP_OK && g->again_first != MP_GRAPH_NONE && g->ended_first == MP_GRAPH_NONE) {
        uint32_t step = g->again_first;
        struct mp_graph_step_record *s = &g->steps[step];
        g->again_first = s->again_next;
        s->is_listed = false;
        if (s->waiting != 0 || g->mode == MP_GRAPH_CANCELLING)
            continue;
        if (s->state == MP_GRAPH_PENDING && g->mode == MP_GRAPH_GOING) {
            err = make_ready(g, step);
        } else if (s->state == MP_GRAPH_ACTIVE && s->has_each) {
            s->is_blocked = false;
            err = mp_graph_each_resume(g, step);
        } else if (s->state == MP_GRAPH_ACTIVE && s->parked != 0) {
            s->is_blocked = false;
            mp_graph_call_queue(g, s->parked - 1);
            s->parked = 0;
        }
    }
    return err;
}

static void report_levels(struct mp_graph *g)
{
    while (g->levels_done < g->levels && g->level_left[g->levels_done] == 0 &&
           g->levels_undone == 0)
        mp_graph_tell_level(g, g->levels_done++);
}

/* --- handing out --- */

void mp_graph_step_begin(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    mp_graph_step_move(g, step, MP_GRAPH_ACTIVE);
    if (s->started_at != MP_NEVER)
        return;
    s->started_at = g->now;
    mp_graph_tell_step_started(g, step);
}

enum mp_err mp_graph_step_fail_args(struct mp_graph *g, uint32_t step, enum mp_err why,
                                    const struct mp_graph_miss *miss)
{
    struct mp_slice error;
    if (why == MP_ETOOLARGE)
        return mp_graph_step_fail_large(g, step, 0, "the arguments are");
    if (why != MP_ENOENT)
        return why;
    if (miss->is_skipped) {
        mp_graph_step_skip(g, step, MP_GRAPH_BECAUSE_INPUT, miss->step);
        return MP_OK;
    }
    enum mp_err err = mp_graph_make_missing(g, miss, step, 0, &error);
    return err != MP_OK ? err : mp_graph_step_fail(g, step, error, MP_CODE_INVALID_ARGUMENT, false);
}

static enum mp_err begin_plain(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_miss miss;
    g->bound.count = 0;
    enum mp_err err =
        mp_graph_template_bind(g, g->steps[step].args, MP_GRAPH_BIND_ARGS, &g->bound, &miss);
    if (err == MP_OK)
        err = mp_graph_call_begin(g, step, 0, (struct mp_slice){0}, &miss);
    return err != MP_OK ? mp_graph_step_fail_args(g, step, err, &miss) : MP_OK;
}

/* Serves the first of the ready queue: a step that has not begun, or one with more elements. */
static enum mp_err serve_first(struct mp_graph *g)
{
    uint32_t step = g->ready_first;
    const struct mp_graph_step_record *s = &g->steps[step];
    if (s->state == MP_GRAPH_ACTIVE) {
        mp_assert(s->has_each);
        enum mp_err err = mp_graph_each_go_on(g, step);
        if (!mp_graph_each_has_more(g, step))
            unqueue_first(g);
        return err;
    }
    unqueue_first(g);
    if (s->state != MP_GRAPH_READY || g->mode != MP_GRAPH_GOING)
        return MP_OK;
    if (g->has_held) {
        bool may;
        enum mp_err err = mp_graph_held_may_call(g, step, &may);
        if (err != MP_OK || !may)
            return err;
    }
    return s->has_each ? mp_graph_each_begin(g, step) : begin_plain(g, step);
}

static enum mp_err hand_out(struct mp_graph *g)
{
    enum mp_err err = MP_OK;
    if (g->mode == MP_GRAPH_CANCELLING)
        return MP_OK;
    while (err == MP_OK && g->retry_first != MP_GRAPH_NONE && mp_graph_call_has_room(g)) {
        uint32_t call = g->retry_first;
        g->retry_first = g->calls[call].next;
        if (g->calls[call].state == MP_GRAPH_CALL_QUEUED)
            err = mp_graph_call_again(g, call);
        else
            mp_graph_call_free(g, call);
        if (g->ended_first != MP_GRAPH_NONE)
            return err;
    }
    while (err == MP_OK && g->ready_first != MP_GRAPH_NONE && mp_graph_call_has_room(g)) {
        err = serve_first(g);
        /* An end is passed on before anything else is served. */
        if (g->ended_first != MP_GRAPH_NONE)
            break;
    }
    return err;
}

/* --- the end --- */

static enum mp_err put_leaves(struct mp_graph *g, struct mp_out *o)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < g->count; i++)
        count += !g->steps[i].is_referred && g->steps[i].state == MP_GRAPH_DONE;
    mp_out_map(o, count);
    for (uint32_t i = 0; i < g->count; i++) {
        const struct mp_graph_step_record *s = &g->steps[i];
        if (s->is_referred || s->state != MP_GRAPH_DONE)
            continue;
        if (o->b->size + s->result.size > g->config.value_bytes_max)
            return MP_ETOOLARGE;
        mp_out_str(o, s->name);
        mp_out_raw(o, s->result);
    }
    return o->err;
}

static enum mp_err put_output(struct mp_graph *g, struct mp_graph_miss *miss)
{
    struct mp_out o = mp_out_of(&g->output_bytes);
    if (!g->has_output)
        return put_leaves(g, &o);
    g->bound.count = 0;
    enum mp_err err = mp_graph_template_bind(g, g->output, MP_GRAPH_BIND_OUTPUT, &g->bound, miss);
    if (err == MP_OK)
        err = mp_graph_template_join(g, &g->bound, (struct mp_slice){0}, 0,
                                     g->config.value_bytes_max, &g->output_bytes, miss);
    return err != MP_OK ? err : mp_graph_depth_check(mp_buf_slice(&g->output_bytes), MP_DEPTH_MAX);
}

static enum mp_err make_output_error(struct mp_graph *g, enum mp_err why, struct mp_slice *error)
{
    bool is_deep = why == MP_EDEPTH;
    struct mp_out o = mp_graph_message(g);
    if (is_deep)
        mp_out_say(&o, "the output is nested deeper than %u", (uint64_t)MP_DEPTH_MAX);
    else
        mp_out_say(&o, "the output is over the limit of %u bytes",
                   (uint64_t)g->config.value_bytes_max);
    return o.err != MP_OK ? o.err
                          : mp_graph_make_error(
                                g, is_deep ? MP_CODE_INVALID_ARGUMENT : MP_CODE_RESOURCE_EXHAUSTED,
                                is_deep ? "UNENCODABLE" : "TOO_LARGE", MP_GRAPH_NONE, 0, error);
}

/* Every step has ended well; only the output can still fail. */
static enum mp_err succeed(struct mp_graph *g)
{
    struct mp_graph_miss miss;
    struct mp_slice error;
    enum mp_err err = put_output(g, &miss);
    if (err == MP_OK) {
        g->status = MP_GRAPH_SUCCEEDED;
        return MP_OK;
    }
    mp_buf_clear(&g->output_bytes);
    g->status = MP_GRAPH_FAILED;
    if (err == MP_ENOENT)
        err = mp_graph_make_missing(g, &miss, MP_GRAPH_NONE, 0, &error);
    else if (err == MP_ETOOLARGE || err == MP_EDEPTH)
        err = make_output_error(g, err, &error);
    return err != MP_OK ? err : mp_graph_copy(g, error, &g->error);
}

/* Ends what has not ended; `active` is what becomes of running steps. */
static void stop_rest(struct mp_graph *g, enum mp_graph_state active)
{
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->steps[i].state == MP_GRAPH_ACTIVE && active == MP_GRAPH_LATE) {
            mp_graph_step_move(g, i, MP_GRAPH_LATE);
            mp_graph_each_settle(g, i);
            g->steps[i].ended_at = g->now;
            g->steps[i].ended_seq = ++g->ends;
            g->ended++;
        } else if (!has_ended(&g->steps[i])) {
            mp_graph_step_stop(g, i);
        }
    }
    mp_assert(g->ended == g->count);
}

static enum mp_err put_finished(struct mp_graph *g)
{
    g->ended_at = g->now;
    g->phase = MP_GRAPH_PHASE_OVER;
    struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_FINISHED);
    if (!e)
        return MP_ENOMEM;
    size_t before = g->scratch.size;
    enum mp_err err = mp_graph_record_put(g, MP_GRAPH_RECORD_ANSWER, &g->scratch);
    e->finished.status = g->status;
    e->finished.run.size = g->scratch.size - before;
    if (err == MP_OK)
        mp_graph_tell_run_finished(g);
    return err;
}

static enum mp_err make_run_error(struct mp_graph *g, enum mp_code code, const char *reason)
{
    struct mp_slice error;
    enum mp_err err = mp_graph_make_error(g, code, reason, MP_GRAPH_NONE, 0, &error);
    return err != MP_OK ? err : mp_graph_copy(g, error, &g->error);
}

/* `active` is what becomes of steps that still run. */
static enum mp_err finish(struct mp_graph *g, enum mp_graph_state active)
{
    enum mp_err err = MP_OK;
    if (g->mode == MP_GRAPH_GOING) {
        mp_assert(g->ended == g->count);
        err = succeed(g);
    } else if (g->error.size != 0) {
        g->status = MP_GRAPH_FAILED;
    } else {
        g->status = MP_GRAPH_CANCELLED;
        struct mp_out o = mp_graph_message(g);
        mp_out_say(&o, "the run was cancelled");
        err = o.err != MP_OK ? o.err : make_run_error(g, MP_CODE_CANCELLED, "RUN_CANCELLED");
    }
    stop_rest(g, active);
    return err != MP_OK ? err : put_finished(g);
}

static bool is_over(const struct mp_graph *g)
{
    switch (g->mode) {
    case MP_GRAPH_GOING:
        return g->ended == g->count;
    case MP_GRAPH_FAILING:
        return g->counts[MP_GRAPH_ACTIVE] == 0;
    case MP_GRAPH_CANCELLING:
        /* Also for calls of steps that have ended: what is over goes on nowhere. */
        return g->outstanding == 0 || g->now >= g->cancel_give_up;
    }
    return false;
}

/* In a failing run nothing starts, also not again: what has begun and waits for that ends. */
static enum mp_err stop_parked(struct mp_graph *g)
{
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++) {
        struct mp_graph_step_record *s = &g->steps[i];
        if (s->state != MP_GRAPH_ACTIVE || s->waiting == 0)
            continue;
        if (s->has_each ? !mp_graph_each_is_parked(g, i) : s->parked == 0)
            continue;
        if (s->has_each)
            err = mp_graph_each_give_up(g, i);
        else
            mp_graph_call_free(g, s->parked - 1);
        s->parked = 0;
        mp_graph_step_stop(g, i);
    }
    return err;
}

static bool has_more_to_do(const struct mp_graph *g)
{
    return g->ended_first != MP_GRAPH_NONE || g->again_first != MP_GRAPH_NONE;
}

static enum mp_err go_on(struct mp_graph *g)
{
    enum mp_err err;
    do {
        err = pass_ends_on(g);
        if (err == MP_OK && g->again_first != MP_GRAPH_NONE)
            err = look_again(g);
        if (err == MP_OK)
            report_levels(g);
        if (err == MP_OK && g->ended_first == MP_GRAPH_NONE)
            err = hand_out(g);
    } while (err == MP_OK && has_more_to_do(g));
    if (err == MP_OK && g->mode == MP_GRAPH_FAILING && g->has_rerun)
        err = stop_parked(g);
    return err;
}

enum mp_err mp_graph_advance(struct mp_graph *g)
{
    do {
        bool is_ready = true;
        enum mp_err err = go_on(g);
        if (err != MP_OK)
            return err;
        mp_assert_slow(adds_up(g));
        if (!is_over(g))
            break;
        if (g->has_held && g->mode == MP_GRAPH_GOING)
            err = mp_graph_held_prepare_output(g, &is_ready);
        if (err != MP_OK)
            return err;
        if (is_ready)
            return finish(g, MP_GRAPH_STOPPED);
    } while (has_more_to_do(g));
    /* A run that goes on waits for something. */
    mp_assert(g->outstanding != 0 || g->fetches_open != 0 || mp_heap_first(&g->timers) != MP_NEVER);
    return MP_OK;
}

static void begin_preset(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice value = s->result;
    uint64_t bytes = s->bytes_out;
    s->result = (struct mp_slice){0};
    s->is_shrunk = s->is_gone;
    mp_graph_step_succeed(g, step, value);
    if (s->is_gone)
        s->bytes_out = bytes;
}

enum mp_err mp_graph_start(struct mp_graph *g)
{
    mp_assert(g->count != 0 && g->levels != 0);
    g->phase = MP_GRAPH_PHASE_RUNNING;
    g->has_begun = true;
    g->guesses_left = MP_GRAPH_GUESSES_MAX;
    g->began_at = g->now;
    g->counts[MP_GRAPH_PENDING] = g->count;
    mp_duration limit = g->config.timeout != 0 ? g->config.timeout : MP_NEVER;
    if (g->timeout != 0 && g->timeout < limit)
        limit = g->timeout;
    g->deadline = mp_time_add(g->now, limit);
    mp_graph_log_reserve(g);
    mp_graph_tell_run_started(g);
    for (uint32_t i = 0; i < g->count; i++)
        if (g->steps[i].is_preset)
            begin_preset(g, i);
    report_levels(g);
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++)
        if (g->steps[i].waiting == 0 && g->steps[i].state == MP_GRAPH_PENDING)
            err = make_ready(g, i);
    return err != MP_OK ? err : mp_graph_advance(g);
}

enum mp_err mp_graph_cancel(struct mp_graph *g)
{
    enum mp_err err = MP_OK;
    if (g->mode == MP_GRAPH_CANCELLING)
        return MP_OK;
    g->mode = MP_GRAPH_CANCELLING;
    g->cancel_give_up = mp_time_add(g->now, MP_MS(MP_GRAPH_CANCEL_GRACE_MS));
    g->retry_first = MP_GRAPH_NONE;
    for (uint32_t i = 0; err == MP_OK && i < g->calls_count; i++) {
        struct mp_graph_call *c = &g->calls[i];
        struct mp_graph_step_record *s = &g->steps[c->step];
        if (c->state == MP_GRAPH_CALL_OUT) {
            err = mp_graph_call_cancel(g, i);
        } else if (c->state == MP_GRAPH_CALL_DROPPED) {
            mp_graph_call_free(g, i);
        } else if (c->state != MP_GRAPH_CALL_FREE && c->state != MP_GRAPH_CALL_GIVEN_UP) {
            uint32_t step = c->step;
            mp_graph_call_free(g, i);
            s->parked = 0;
            if (s->has_each)
                s->items->active--;
            else
                mp_graph_step_stop(g, step);
        }
    }
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++)
        if (g->steps[i].state == MP_GRAPH_ACTIVE && g->steps[i].has_each &&
            g->steps[i].items->active == 0)
            mp_graph_step_stop(g, i);
    return err;
}

static enum mp_err cancel_calls(struct mp_graph *g)
{
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < g->calls_count; i++)
        if (g->calls[i].state == MP_GRAPH_CALL_OUT && g->calls[i].serial != g->serial)
            err = mp_graph_call_cancel(g, i);
    return err;
}

enum mp_err mp_graph_time_out(struct mp_graph *g)
{
    struct mp_slice error;
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "the run was not done after ");
    mp_out_number(&o, (double)(g->deadline - g->began_at) / 1e6);
    mp_out_say(&o, " ms");
    enum mp_err err = o.err != MP_OK ? o.err : cancel_calls(g);
    if (err == MP_OK && g->error.size == 0 && g->mode != MP_GRAPH_CANCELLING)
        err = make_run_error(g, MP_CODE_DEADLINE_EXCEEDED, "RUN_TIMEOUT");
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++) {
        if (g->steps[i].state != MP_GRAPH_ACTIVE)
            continue;
        mp_graph_drop(g, &g->steps[i].error); /* of an element that was left out */
        err = mp_graph_make_error(g, MP_CODE_DEADLINE_EXCEEDED, "RUN_TIMEOUT", i, 0, &error);
        if (err == MP_OK)
            err = mp_graph_copy(g, error, &g->steps[i].error);
    }
    if (err != MP_OK)
        return err;
    if (g->mode == MP_GRAPH_FAILING)
        return finish(g, MP_GRAPH_LATE);
    if (g->mode == MP_GRAPH_CANCELLING)
        return finish(g, MP_GRAPH_STOPPED);
    g->status = MP_GRAPH_TIMED_OUT;
    stop_rest(g, MP_GRAPH_LATE);
    return put_finished(g);
}

static void drop_scratch(struct mp_graph *g)
{
    mp_buf_fini(&g->scratch);
    g->summary_size = 0;
}

static void drop_results(struct mp_graph *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        mp_graph_drop(g, &g->steps[i].result);
    g->kept_bytes = 0;
    g->has_lost_results = true;
    mp_buf_fini(&g->output_bytes);
    drop_scratch(g);
}

enum mp_err mp_graph_collapse(struct mp_graph *g)
{
    g->status = MP_GRAPH_FAILED;
    stop_rest(g, MP_GRAPH_STOPPED);
    mp_buf_clear(&g->output_bytes);
    /* What nobody hears is answered all the same, and the answer passed over. */
    if (cancel_calls(g) != MP_OK)
        g->effects_count = 0;
    for (int attempt = 0; attempt < 2; attempt++) {
        uint32_t effects = g->effects_count;
        drop_scratch(g);
        struct mp_out o = mp_graph_message(g);
        mp_out_say(&o, "there is not enough memory for this run");
        mp_graph_drop(g, &g->error);
        enum mp_err err = o.err;
        if (err == MP_OK)
            err = make_run_error(g, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY");
        if (err == MP_OK)
            err = put_finished(g);
        if (err == MP_OK)
            return MP_OK;
        g->effects_count = effects;
        drop_results(g);
    }
    return MP_ENOMEM;
}
