/* What happens in a run, in order: a log that is always kept, since a watcher may come at any time,
 * also after the end, and is told the same as one who was there. An entry is a kind, a step and two
 * numbers; the map that a watcher gets is made of it and of the step's record, which does not
 * change any more once its end is told. So telling costs next to nothing, and nothing at all is
 * made for nobody.
 *
 * Steps with `each` are told as one step, with some progress, not element by element. Room for what
 * every step has to tell is there from the start; for the rest the log grows, and what finds no
 * room is left out: nothing depends on it, but on the end, which always finds some. */
#include "src/core/graph/graph_internal.h"

#define HEAD_PAIRS 4

#define NAME(text)                                                                                 \
    {                                                                                              \
        .data = (const uint8_t *)(text), .size = sizeof(text) - 1                                  \
    }

static const struct mp_slice names[] = {[MP_GRAPH_TOLD_RUN_STARTED] = NAME("run_started"),
                                        [MP_GRAPH_TOLD_STEP_STARTED] = NAME("step_started"),
                                        [MP_GRAPH_TOLD_STEP_SUCCEEDED] = NAME("step_succeeded"),
                                        [MP_GRAPH_TOLD_STEP_FAILED] = NAME("step_failed"),
                                        [MP_GRAPH_TOLD_STEP_SKIPPED] = NAME("step_skipped"),
                                        [MP_GRAPH_TOLD_STEP_RETRIED] = NAME("step_retried"),
                                        [MP_GRAPH_TOLD_STEP_PROGRESS] = NAME("step_progress"),
                                        [MP_GRAPH_TOLD_LEVEL_COMPLETED] = NAME("level_completed"),
                                        [MP_GRAPH_TOLD_RUN_FINISHED] = NAME("run_finished")};

/* --- telling --- */

void mp_graph_log_reserve(struct mp_graph *g)
{
    uint32_t need = 2 * g->count + g->levels + 2;
    struct mp_graph_told *log = mp_graph_grow(g, g->log, &g->log_capacity, sizeof(*log), need);
    g->log = log ? log : g->log;
}

/* The last place is the end's: whoever was told anything is told that, too. */
static void tell(struct mp_graph *g, enum mp_graph_told_kind kind, uint32_t step, uint32_t a,
                 uint32_t b)
{
    uint32_t need = kind == MP_GRAPH_TOLD_RUN_FINISHED ? 1 : 2;
    if (g->log_capacity - g->log_count < need) {
        struct mp_graph_told *log =
            mp_graph_grow(g, g->log, &g->log_capacity, sizeof(*log), g->log_count + need);
        if (!log)
            return;
        g->log = log;
    }
    g->log[g->log_count++] =
        (struct mp_graph_told){.at = g->now, .kind = (uint8_t)kind, .step = step, .a = a, .b = b};
}

void mp_graph_tell_run_started(struct mp_graph *g)
{
    tell(g, MP_GRAPH_TOLD_RUN_STARTED, 0, 0, 0);
}

void mp_graph_tell_step_started(struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    tell(g, MP_GRAPH_TOLD_STEP_STARTED, step, s->has_each ? s->items->total : 0, 0);
}

void mp_graph_tell_step_ended(struct mp_graph *g, uint32_t step)
{
    enum mp_graph_state state = g->steps[step].state;
    tell(g,
         state == MP_GRAPH_DONE      ? MP_GRAPH_TOLD_STEP_SUCCEEDED
         : state == MP_GRAPH_SKIPPED ? MP_GRAPH_TOLD_STEP_SKIPPED
                                     : MP_GRAPH_TOLD_STEP_FAILED,
         step, 0, 0);
}

void mp_graph_tell_retried(struct mp_graph *g, uint32_t step, uint32_t attempt, uint32_t try)
{
    struct mp_graph_step_record *s = &g->steps[step];
    /* A list whose every element fails would drown the rest. */
    if (g->tries[try].index != 0 && s->retries_told++ >= MP_GRAPH_PROGRESS_PARTS)
        return;
    if (g->retries_told >= MP_GRAPH_RETRIES_TOLD)
        return;
    uint32_t before = g->log_count;
    tell(g, MP_GRAPH_TOLD_STEP_RETRIED, step, try, attempt);
    g->tries[try].is_told = g->log_count != before;
    g->retries_told += g->tries[try].is_told;
}

void mp_graph_tell_progress(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_each *e = g->steps[step].items;
    uint64_t done = (uint64_t)e->succeeded + e->failed + e->skipped;
    uint32_t part = (uint32_t)(done * MP_GRAPH_PROGRESS_PARTS / e->total);
    if (part <= e->told || done == e->total)
        return;
    e->told = part;
    tell(g, MP_GRAPH_TOLD_STEP_PROGRESS, step, (uint32_t)done, e->total);
}

void mp_graph_tell_level(struct mp_graph *g, uint32_t level)
{
    tell(g, MP_GRAPH_TOLD_LEVEL_COMPLETED, level, g->done_before, 0);
    g->done_before += mp_graph_count_done(g, level);
}

void mp_graph_tell_run_finished(struct mp_graph *g)
{
    tell(g, MP_GRAPH_TOLD_RUN_FINISHED, 0, 0, 0);
}

/* --- bodies --- */

static inline void put_text(struct mp_out *o, const char *key, struct mp_slice value)
{
    mp_out_text(o, key);
    mp_out_str_or_nil(o, value);
}

static inline void put_uint(struct mp_out *o, const char *key, uint64_t value)
{
    mp_out_text(o, key);
    mp_out_uint(o, value);
}

static inline uint8_t *at_text(uint8_t *at, const char *key, struct mp_slice value)
{
    return mp_at_str_or_nil(mp_at_text(at, key), value);
}

static inline uint8_t *at_uint(uint8_t *at, const char *key, uint64_t value)
{
    return mp_at_uint(mp_at_text(at, key), value);
}

static inline uint8_t *at_ms(uint8_t *at, const char *key, mp_duration value)
{
    return mp_at_ms(mp_at_text(at, key), value);
}

/* An event's keys and numbers take less than this, besides its texts. */
#define FIXED_BYTES 320

static inline uint8_t *at_head(struct mp_graph *g, uint8_t *at, uint64_t seq, uint32_t pairs)
{
    const struct mp_graph_told *t = &g->log[seq - 1];
    at = mp_at_map(at, HEAD_PAIRS + pairs);
    at = at_text(at, "event", names[t->kind]);
    at = at_text(at, "run_id", g->config.run_id);
    at = at_uint(at, "seq", seq);
    return at_ms(at, "at_ms", t->at - g->began_at);
}

static void put_head(struct mp_graph *g, struct mp_out *o, uint64_t seq, uint32_t pairs)
{
    uint8_t *at = mp_out_begin(o, FIXED_BYTES + MP_AT_STR_MAX(g->config.run_id));
    if (at)
        mp_out_end(o, at_head(g, at, seq, pairs));
}

static void put_run_started(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    bool is_resumed = g->config.resumed_from.size != 0;
    put_head(g, o, seq, 3 + is_resumed);
    put_text(o, "name", g->name);
    put_uint(o, "steps", g->count);
    put_uint(o, "levels", g->levels);
    if (is_resumed)
        put_text(o, "resumed_from", g->config.resumed_from);
}

static void put_step_started(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_step_record *s = &g->steps[g->log[seq - 1].step];
    const struct mp_slice node = mp_graph_interned(g, s->plan_node);
    uint8_t *at =
        mp_out_begin(o, FIXED_BYTES + MP_AT_STR_MAX(g->config.run_id) + MP_AT_STR_MAX(s->name) +
                            MP_AT_STR_MAX(s->fun) + MP_AT_STR_MAX(node));
    if (!at)
        return;
    at = at_head(g, at, seq, 5 + s->has_each);
    at = at_text(at, "step", s->name);
    at = at_text(at, "call", s->fun);
    at = at_uint(at, "level", s->level);
    at = at_text(at, "node", node);
    at = at_uint(at, "attempt", 1);
    if (s->has_each)
        at = at_uint(at, "total", g->log[seq - 1].a);
    mp_out_end(o, at);
}

static void put_succeeded(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_step_record *s = &g->steps[g->log[seq - 1].step];
    const struct mp_slice node = mp_graph_interned(g, s->node);
    uint8_t *at = mp_out_begin(o, FIXED_BYTES + MP_AT_STR_MAX(g->config.run_id) +
                                      MP_AT_STR_MAX(s->name) + MP_AT_STR_MAX(node));
    if (!at)
        return;
    uint32_t pairs = 11u + s->is_defaulted + (s->error.size != 0);
    at = at_head(g, at, seq, pairs);
    at = at_text(at, "step", s->name);
    at = at_uint(at, "level", s->level);
    at = at_text(at, "node", node);
    at = at_uint(at, "worker", s->worker);
    at = at_uint(at, "attempts", s->attempts);
    at = at_ms(at, "queue_ms", s->timing.queue);
    at = at_ms(at, "network_ms", s->timing.network);
    at = at_ms(at, "run_ms", s->timing.run);
    at = at_uint(at, "bytes_in", s->bytes_in);
    at = at_uint(at, "bytes_out", s->bytes_out);
    mp_out_end(o, mp_at_text(at, "result"));
    mp_graph_put_result(o, s);
    if (s->is_defaulted) {
        mp_out_text(o, "defaulted");
        mp_out_bool(o, true);
    }
    if (s->error.size != 0) {
        mp_out_text(o, "error");
        mp_out_raw(o, s->error);
    }
}

static void put_failed(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_step_record *s = &g->steps[g->log[seq - 1].step];
    put_head(g, o, seq, 6);
    put_text(o, "step", s->name);
    put_uint(o, "level", s->level);
    put_text(o, "node", mp_graph_interned(g, s->node));
    put_uint(o, "attempts", s->attempts);
    put_text(o, "status", mp_slice_str(mp_graph_state_name(s->state)));
    mp_out_text(o, "error");
    mp_out_raw(o, s->error);
}

static void put_skipped(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_step_record *s = &g->steps[g->log[seq - 1].step];
    bool has_error = s->error.size != 0;
    put_head(g, o, seq, 3 + (s->because_step < g->count) + has_error);
    put_text(o, "step", s->name);
    put_uint(o, "level", s->level);
    put_text(o, "because", mp_slice_str(mp_graph_because_name(s->because)));
    if (s->because_step < g->count)
        put_text(o, "because_step", g->steps[s->because_step].name);
    if (has_error) {
        mp_out_text(o, "error");
        mp_out_raw(o, s->error);
    }
}

static void put_retried(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_told *t = &g->log[seq - 1];
    const struct mp_graph_try *try = &g->tries[t->a];
    put_head(g, o, seq, 4 + (try->index != 0));
    put_text(o, "step", g->steps[t->step].name);
    if (try->index != 0)
        put_uint(o, "index", try->index);
    put_uint(o, "attempt", t->b);
    mp_out_text(o, "error");
    mp_out_raw(o, try->error);
    mp_out_text(o, "delay_ms");
    mp_out_ms(o, try->delay);
}

static void put_progress(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_told *t = &g->log[seq - 1];
    put_head(g, o, seq, 3);
    put_text(o, "step", g->steps[t->step].name);
    put_uint(o, "done", t->a);
    put_uint(o, "total", t->b);
}

static void put_level(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    const struct mp_graph_told *t = &g->log[seq - 1];
    put_head(g, o, seq, mp_graph_level_pairs(g));
    mp_graph_put_level(g, o, t->step, t->a);
}

static void put_run_finished(struct mp_graph *g, struct mp_out *o, uint64_t seq)
{
    put_head(g, o, seq, 4);
    put_text(o, "status", mp_slice_str(mp_graph_status_name(g->status)));
    mp_out_text(o, "output");
    mp_out_raw(o, mp_buf_slice(&g->output_bytes));
    mp_out_text(o, "error");
    mp_out_raw(o, g->error);
    mp_out_text(o, "summary");
    if (mp_graph_summary_put(g, o) != MP_OK)
        mp_assert(o->err != MP_OK);
}

uint64_t mp_graph_event_count(const struct mp_graph *g)
{
    return g->log_count;
}

const char *mp_graph_event_name(const struct mp_graph *g, uint64_t seq)
{
    mp_assert(seq >= 1 && seq <= g->log_count);
    return (const char *)names[g->log[seq - 1].kind].data;
}

const char *mp_graph_event_name_of(uint32_t number)
{
    return number < MP_ARRAY_SIZE(names) ? (const char *)names[number].data : NULL;
}

bool mp_graph_event_is_success(const struct mp_graph *g, uint64_t seq, uint32_t *step)
{
    mp_assert(seq >= 1 && seq <= g->log_count);
    *step = g->log[seq - 1].step;
    return g->log[seq - 1].kind == MP_GRAPH_TOLD_STEP_SUCCEEDED;
}

enum mp_err mp_graph_put_event(struct mp_graph *g, uint64_t seq, struct mp_buf *out)
{
    static void (*const put[])(struct mp_graph *, struct mp_out *,
                               uint64_t) = {[MP_GRAPH_TOLD_RUN_STARTED] = put_run_started,
                                            [MP_GRAPH_TOLD_STEP_STARTED] = put_step_started,
                                            [MP_GRAPH_TOLD_STEP_SUCCEEDED] = put_succeeded,
                                            [MP_GRAPH_TOLD_STEP_FAILED] = put_failed,
                                            [MP_GRAPH_TOLD_STEP_SKIPPED] = put_skipped,
                                            [MP_GRAPH_TOLD_STEP_RETRIED] = put_retried,
                                            [MP_GRAPH_TOLD_STEP_PROGRESS] = put_progress,
                                            [MP_GRAPH_TOLD_LEVEL_COMPLETED] = put_level,
                                            [MP_GRAPH_TOLD_RUN_FINISHED] = put_run_finished};
    size_t before = out->size;
    struct mp_out o = mp_out_of(out);
    if (seq == 0 || seq > g->log_count || g->phase == MP_GRAPH_PHASE_DEAD)
        return MP_EINVAL;
    put[g->log[seq - 1].kind](g, &o, seq);
    if (o.err != MP_OK)
        out->size = before;
    return o.err;
}
