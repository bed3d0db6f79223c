/* Results that stay where they were made. A step's record then has the $large form in the place of
 * its result, and knows who holds it under what number. From there a value goes one of two ways:
 *
 *   As a hole in the arguments of the steps that read it: whoever runs these gets it from its
 *   holder. That is how it moves once, past the coordinator.
 *   Here, because something is decided by its content (a condition, a list for `each`, a default
 *   that may be needed) or the output shows it: one FETCH however many wait, after which the record
 *   is as if the value had never been elsewhere.
 *
 * A step that waits for a value stays pending; one that runs already holds its next calls back.
 * Either is looked at again when the answer has come.
 *
 * A holder that is lost takes its values along. If a step still needs one, the step that made it
 * runs again, provided that its function may: its end is taken back, the steps that read it wait
 * for it a second time, and what it reads itself is looked for in the same way. This goes on from
 * step to step over the list of those to be looked at again, not by recursion. A step that may not
 * run again fails, and with it the run; whatever its `on_error` says, since others may have gone on
 * with the value that is lost. */
#include "src/core/graph/graph_internal.h"

static bool has_ended(const struct mp_graph_step_record *s)
{
    return s->state >= MP_GRAPH_DONE;
}

/* The value is nowhere. */
static bool is_gone(const struct mp_graph_step_record *s)
{
    return s->is_shrunk || (s->is_held && s->is_lost);
}

/* --- losing results --- */

/* An ERROR in g->fault that names the step which is lost, or fails because of one, and its holder.
 */
static enum mp_err make_lost(struct mp_graph *g, uint32_t lost, uint32_t step,
                             struct mp_slice *error)
{
    const struct mp_graph_step_record *s = &g->steps[lost];
    struct mp_slice node = mp_graph_interned(g, s->is_held ? s->holder : s->node);
    struct mp_out o = mp_graph_message(g);
    if (s->is_held)
        mp_out_say(&o, "the result of %s was lost with the node %s", s->name, node);
    else
        mp_out_say(&o, "the result of %s is needed again, but was not kept", s->name);
    struct mp_fault f = {.code = MP_CODE_DATA_LOSS,
                         .reason = mp_slice_str("RESULT_LOST"),
                         .message = mp_buf_slice(&g->message),
                         .fun = g->steps[step].fun,
                         .step = g->steps[step].name,
                         .node = node};
    if (o.err != MP_OK)
        return o.err;
    mp_buf_clear(&g->fault);
    enum mp_err err = mp_fault_put(&g->fault, &f);
    *error = mp_buf_slice(&g->fault);
    return err;
}

/* Takes a step's end back. Steps that read it and have not ended wait for it again; it waits for
 * inputs of its own that run again. */
static void take_back(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    mp_assert(s->state == MP_GRAPH_DONE && s->fetch == 0);
    mp_assert(g->ended_first == MP_GRAPH_NONE); /* its end has been passed on */
    mp_graph_step_move(g, step, MP_GRAPH_PENDING);
    g->has_rerun = true;
    g->ended--;
    g->level_left[s->level]++;
    g->levels_undone += s->level < g->levels_done;
    g->kept_bytes -= s->result.size;
    mp_graph_drop(g, &s->result);
    mp_graph_drop(g, &s->error);
    mp_graph_each_free(g, step);
    s->is_held = s->is_lost = s->is_shrunk = s->is_defaulted = false;
    s->holder = 0;
    s->ended_seq = 0;
    s->waiting = 0;
    for (uint32_t k = s->deps.first; k < s->deps.first + s->deps.count; k++) {
        struct mp_graph_step_record *d = &g->steps[g->edges[k] & MP_GRAPH_EDGE_STEP];
        if (!(g->edges[k] & MP_GRAPH_EDGE_REF))
            continue;
        d->readers++;
        s->waiting += !has_ended(d);
    }
    for (uint32_t k = s->dependents.first; k < s->dependents.first + s->dependents.count; k++) {
        uint32_t to = g->dependents[k] & MP_GRAPH_EDGE_STEP;
        struct mp_graph_step_record *d = &g->steps[to];
        if (!(g->dependents[k] & MP_GRAPH_EDGE_REF) || has_ended(d))
            continue;
        d->waiting++;
        if (d->state == MP_GRAPH_READY)
            mp_graph_step_move(g, to, MP_GRAPH_PENDING);
    }
}

static bool may_run_again(const struct mp_graph_step_record *s)
{
    return s->is_idempotent && s->reruns < MP_GRAPH_RERUNS_MAX;
}

/* The value is needed and gone: the step runs again, or the run fails. */
static enum mp_err make_again(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice error;
    uint32_t try;
    mp_assert(g->mode == MP_GRAPH_GOING);
    bool may = may_run_again(s);
    enum mp_err err = make_lost(g, step, step, &error);
    if (s->started_at == MP_NEVER)
        s->handed_at = s->ended_at; /* it was preset, or its default stood for it */
    if (err == MP_OK)
        err = mp_graph_try_lose(g, step, error, &try);
    if (err != MP_OK)
        return err;
    s->retry += s->ended_at - s->handed_at;
    s->handed_at = g->now;
    take_back(g, step);
    s->reruns++;
    if (!may) {
        mp_graph_step_move(g, step, MP_GRAPH_READY);
        return mp_graph_step_fail(g, step, error, MP_CODE_DATA_LOSS, true);
    }
    s->retries_made++;
    mp_graph_step_look_again(g, step);
    mp_graph_tell_retried(g, step, s->attempts, try);
    return MP_OK;
}

/* The holder of a result lost it. Who needs it and has not begun is seen at once; who runs, or
 * might do without, when it comes to that. */
static enum mp_err lose_result(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    bool is_needed = s->is_output_needed;
    bool is_strict = s->is_output_strict;
    for (uint32_t k = s->dependents.first; k < s->dependents.first + s->dependents.count; k++) {
        uint32_t edge = g->dependents[k];
        enum mp_graph_state state = g->steps[edge & MP_GRAPH_EDGE_STEP].state;
        if (!(edge & MP_GRAPH_EDGE_REF) || (state != MP_GRAPH_PENDING && state != MP_GRAPH_READY))
            continue;
        is_needed = true;
        is_strict |= (edge & MP_GRAPH_EDGE_STRICT) != 0;
    }
    return is_strict || (is_needed && may_run_again(s)) ? make_again(g, step) : MP_OK;
}

enum mp_err mp_graph_held_lost(struct mp_graph *g, struct mp_slice node)
{
    uint32_t holder;
    enum mp_err err = MP_OK;
    if (node.size == 0 || !mp_map_get(&g->interned, node, &holder))
        return MP_OK;
    for (uint32_t i = 0; i < g->count; i++)
        g->steps[i].is_lost |= g->steps[i].holder == holder;
    for (uint32_t i = 0; err == MP_OK && g->mode == MP_GRAPH_GOING && i < g->count; i++) {
        const struct mp_graph_step_record *s = &g->steps[i];
        /* A fetch that is under way is answered, perhaps with the value. */
        if (s->state == MP_GRAPH_DONE && s->is_held && s->holder == holder && s->fetch == 0)
            err = lose_result(g, i);
    }
    return err;
}

bool mp_graph_held_has_lost(const struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_range args = g->steps[step].args;
    for (uint32_t i = args.first; i < args.first + args.count; i++) {
        const struct mp_graph_piece *p = &g->pieces.items[i];
        if (p->kind != MP_GRAPH_PIECE_REF || p->step == MP_GRAPH_INPUT)
            continue;
        if (is_gone(&g->steps[p->step]) || !has_ended(&g->steps[p->step]))
            return true;
    }
    return false;
}

/* --- getting what is needed --- */

enum mp_err mp_graph_held_fetch(struct mp_graph *g, uint32_t key, uint32_t holder, uint64_t held,
                                uint64_t bytes, uint64_t *fetch)
{
    struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_FETCH);
    if (!e)
        return MP_ENOMEM;
    *fetch = (uint64_t)++g->fetches << 32 | key;
    g->fetches_open++;
    e->fetch.fetch = *fetch;
    e->fetch.node = mp_graph_interned(g, holder);
    e->fetch.held = held;
    e->fetch.bytes = bytes;
    return MP_OK;
}

static void worsen(enum mp_graph_held_state *state, enum mp_graph_held_state to)
{
    *state = to > *state ? to : *state;
}

static enum mp_err prepare_one(struct mp_graph *g, uint32_t step, bool is_hole,
                               enum mp_graph_held_state *state)
{
    struct mp_graph_step_record *s = &g->steps[step];
    if (!is_gone(s) && (is_hole || !s->is_held))
        return MP_OK;
    if (is_gone(s) && s->fetch == 0 && g->mode != MP_GRAPH_GOING) {
        g->lost_input = step;
        worsen(state, MP_GRAPH_HELD_LOST);
        return MP_OK;
    }
    worsen(state, MP_GRAPH_HELD_WAIT);
    if (s->fetch != 0)
        return MP_OK;
    return is_gone(s) ? make_again(g, step)
                      : mp_graph_held_fetch(g, step, s->holder, s->held, s->held_bytes, &s->fetch);
}

/* Which references to held results may stay holes. */
enum holes {
    NO_HOLES,
    WHOLE_VALUES, /* which cannot miss */
    ALL_HOLES     /* but those that a default may stand in for */
};

static bool may_be_hole(const struct mp_graph_piece *p, enum holes holes)
{
    return holes != NO_HOLES && (p->text.size == 0 || (holes == ALL_HOLES && !p->has_default));
}

/* `*skip` becomes the place of a reference that skips the step, where looking ends. */
static enum mp_err prepare(struct mp_graph *g, struct mp_graph_range range, enum holes holes,
                           enum mp_graph_held_state *state, uint32_t *skip)
{
    enum mp_err err = MP_OK;
    for (uint32_t i = range.first; err == MP_OK && i < range.first + range.count; i++) {
        const struct mp_graph_piece *p = &g->pieces.items[i];
        if (p->kind != MP_GRAPH_PIECE_REF)
            continue;
        bool is_step = p->step != MP_GRAPH_INPUT;
        const struct mp_graph_step_record *s = is_step ? &g->steps[p->step] : NULL;
        if (s && s->state == MP_GRAPH_SKIPPED && (p->has_default || holes == NO_HOLES))
            continue; /* its default counts, or null */
        if (s && s->state == MP_GRAPH_SKIPPED) {
            *skip = i;
            break;
        }
        if (s && s->state != MP_GRAPH_DONE) {
            worsen(state, MP_GRAPH_HELD_WAIT); /* just taken back */
            i += p->default_count;
        } else if (s && (s->is_held || s->is_shrunk)) {
            i += p->default_count;
            err = prepare_one(g, p->step, may_be_hole(p, holes), state);
        } else if (p->has_default && mp_graph_template_holds(g, p)) {
            i += p->default_count;
        }
    }
    return err;
}

enum mp_err mp_graph_held_prepare(struct mp_graph *g, struct mp_graph_range range,
                                  bool may_be_holes, enum mp_graph_held_state *state)
{
    uint32_t skip = MP_GRAPH_NONE;
    enum mp_err err = prepare(g, range, may_be_holes ? ALL_HOLES : NO_HOLES, state, &skip);
    if (err != MP_OK || skip == MP_GRAPH_NONE)
        return err;
    /* A field that is missing before that place fails the step instead: this has to be known. */
    range.count = skip - range.first;
    return prepare(g, range, WHOLE_VALUES, state, &skip);
}

enum mp_err mp_graph_held_may_call(struct mp_graph *g, uint32_t step, bool *may)
{
    struct mp_graph_step_record *s = &g->steps[step];
    enum mp_graph_held_state state = MP_GRAPH_HELD_READY;
    struct mp_slice error;
    mp_assert(s->state == MP_GRAPH_READY || s->state == MP_GRAPH_ACTIVE);
    enum mp_err err = mp_graph_held_prepare(g, s->args, true, &state);
    *may = state == MP_GRAPH_HELD_READY;
    if (err != MP_OK || *may)
        return err;
    if (state == MP_GRAPH_HELD_LOST && s->waiting == 0) {
        err = make_lost(g, g->lost_input, step, &error);
        if (err == MP_OK && s->has_each)
            err = mp_graph_each_give_up(g, step);
        return err != MP_OK ? err : mp_graph_step_fail(g, step, error, MP_CODE_DATA_LOSS, true);
    }
    if (s->state == MP_GRAPH_READY)
        mp_graph_step_move(g, step, MP_GRAPH_PENDING);
    s->is_blocked = s->state == MP_GRAPH_ACTIVE;
    return MP_OK;
}

enum mp_err mp_graph_held_prepare_output(struct mp_graph *g, bool *is_ready)
{
    enum mp_graph_held_state state = MP_GRAPH_HELD_READY;
    enum mp_err err = MP_OK;
    if (g->has_output)
        err = mp_graph_held_prepare(g, g->output, false, &state);
    for (uint32_t i = 0; err == MP_OK && !g->has_output && i < g->count; i++)
        if (!g->steps[i].is_referred && g->steps[i].state == MP_GRAPH_DONE)
            err = prepare_one(g, i, false, &state);
    *is_ready = state == MP_GRAPH_HELD_READY;
    return err;
}

/* --- what came --- */

/* The step's value came, but cannot be kept: it ends as failed. In a run that fails already it is
 * as good as lost. */
static enum mp_err refuse_value(struct mp_graph *g, uint32_t step, bool is_too_much)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice error;
    if (g->mode != MP_GRAPH_GOING) {
        s->is_lost = true;
        return MP_OK;
    }
    take_back(g, step);
    s->reruns++;
    mp_graph_step_move(g, step, MP_GRAPH_READY);
    if (is_too_much)
        return mp_graph_step_fail_kept(g, step);
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "the result is not one well-formed value, or too large, or nested too deep");
    enum mp_err err = o.err;
    if (err == MP_OK)
        err = mp_graph_make_error(g, MP_CODE_INTERNAL, "BAD_RESULT", step, 0, &error);
    return err != MP_OK ? err : mp_graph_step_fail(g, step, error, MP_CODE_INTERNAL, true);
}

static enum mp_err take_value(struct mp_graph *g, uint32_t step, struct mp_slice value)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice own;
    if (g->mode == MP_GRAPH_CANCELLING || (s->readers == 0 && !s->is_output_needed))
        return MP_OK; /* nobody needs it any more */
    if (value.size > g->config.value_bytes_max ||
        mp_graph_depth_check(value, MP_DEPTH_MAX) != MP_OK)
        return refuse_value(g, step, false);
    enum mp_err err = mp_graph_copy(g, value, &own);
    if (err != MP_OK)
        return err;
    if (!mp_graph_keep(g, own.size)) {
        mp_graph_drop(g, &own);
        return refuse_value(g, step, true);
    }
    g->kept_bytes -= s->result.size;
    mp_graph_drop(g, &s->result);
    s->result = own;
    s->is_held = false;
    return MP_OK;
}

static void wake_readers(struct mp_graph *g, const struct mp_graph_step_record *s)
{
    for (uint32_t k = s->dependents.first; k < s->dependents.first + s->dependents.count; k++) {
        uint32_t to = g->dependents[k] & MP_GRAPH_EDGE_STEP;
        const struct mp_graph_step_record *d = &g->steps[to];
        if (d->waiting == 0 && (d->state == MP_GRAPH_PENDING || d->is_blocked))
            mp_graph_step_look_again(g, to);
    }
}

enum mp_err mp_graph_held_fetched(struct mp_graph *g, const struct mp_graph_event *ev)
{
    uint32_t key = (uint32_t)ev->fetched.fetch;
    uint64_t serial = ev->fetched.fetch >> 32;
    if (serial == 0 || serial > g->fetches || g->fetches_open == 0)
        return MP_EINVAL;
    g->fetches_open--;
    if (key & MP_GRAPH_FETCH_CALL)
        return mp_graph_call_fetched(g, key & ~MP_GRAPH_FETCH_CALL, ev);
    if (key >= g->count || g->steps[key].fetch != ev->fetched.fetch)
        return MP_EINVAL;
    struct mp_graph_step_record *s = &g->steps[key];
    mp_assert(s->state == MP_GRAPH_DONE && s->is_held);
    s->fetch = 0;
    enum mp_err err = MP_OK;
    if (ev->fetched.is_lost) {
        s->is_lost = true;
        if (g->mode == MP_GRAPH_GOING)
            err = lose_result(g, key);
    } else {
        if (!mp_slice_equal(mp_graph_interned(g, s->holder), g->config.node))
            g->bytes_moved += ev->fetched.value.size;
        err = take_value(g, key, ev->fetched.value);
    }
    wake_readers(g, s);
    return err;
}

/* --- holes --- */

enum mp_err mp_graph_held_put_hole(struct mp_graph *g, const struct mp_graph_step_record *s,
                                   struct mp_slice path)
{
    uint8_t head[6] = {0xc9}; /* ext 32 */
    mp_buf_clear(&g->hole);
    enum mp_err err = mp_buf_append(&g->hole, mp_slice_of(head, sizeof(head)));
    if (err == MP_OK)
        err = mp_mp_put_array(&g->hole, 3);
    if (err == MP_OK)
        err = mp_mp_put_str(&g->hole, mp_graph_interned(g, s->holder));
    if (err == MP_OK)
        err = mp_mp_put_uint(&g->hole, s->held);
    if (err == MP_OK)
        err = mp_mp_put_str(&g->hole, path);
    if (err != MP_OK)
        return err;
    size_t size = g->hole.size - sizeof(head);
    for (unsigned i = 0; i < 4; i++)
        g->hole.data[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    g->hole.data[5] = MP_GRAPH_HOLE_EXT;
    return MP_OK;
}

static const char is_missing[] = " is missing";
static const char in[] = " in ";

static struct mp_slice after(struct mp_slice text, size_t count)
{
    return mp_slice_of(text.data + count, text.size - count);
}

static bool starts_with(struct mp_slice text, struct mp_slice start)
{
    return text.size >= start.size && memcmp(text.data, start.data, start.size) == 0;
}

/* The reference whose path a message begins with, as mp_graph_cut() makes it; NULL if none does. */
static const struct mp_graph_piece *find_missing(const struct mp_graph *g, uint32_t step,
                                                 struct mp_slice message)
{
    const struct mp_graph_range args = g->steps[step].args;
    for (uint32_t i = args.first; i < args.first + args.count; i++) {
        const struct mp_graph_piece *p = &g->pieces.items[i];
        if (p->kind == MP_GRAPH_PIECE_REF && p->step != MP_GRAPH_INPUT && p->text.size != 0 &&
            starts_with(message, p->text) &&
            starts_with(after(message, p->text.size), mp_slice_str(is_missing)))
            return p;
    }
    return NULL;
}

enum mp_err mp_graph_held_make_missing(struct mp_graph *g, uint32_t step, const struct mp_fault *f,
                                       struct mp_slice *error)
{
    const struct mp_graph_piece *p = find_missing(g, step, f->message);
    struct mp_slice rest = f->message;
    struct mp_out o = mp_graph_message(g);
    if (p) {
        rest = after(rest, p->text.size + sizeof(is_missing) - 1);
        mp_out_say(&o, "%s%s is missing", g->steps[p->step].name, p->text);
    }
    if (p && starts_with(rest, mp_slice_str(in))) {
        rest = after(rest, sizeof(in) - 1);
        mp_out_say(&o, " in %s", g->steps[p->step].name);
    }
    mp_out_bytes(&o, rest);
    if (o.err == MP_OK)
        o.err = mp_buf_append(&g->hint, f->hint);
    return o.err != MP_OK
               ? o.err
               : mp_graph_make_error(g, MP_CODE_INVALID_ARGUMENT, "MISSING_FIELD", step, 0, error);
}
