/* What watchers of a run are told as it happens: maps with event, run_id, seq, at_ms first. Steps
 * with `each` are told as one step, with some progress, not element by element. */
#include "src/core/graph/graph_internal.h"

#define HEAD_PAIRS 4

struct telling {
    struct mp_graph *g;
    struct mp_graph_effect *effect;
    size_t before;
    struct mp_out o;
};

static bool tell_begin(struct mp_graph *g, struct telling *t, const char *event, uint32_t pairs)
{
    t->g = g;
    t->before = g->scratch.size;
    t->o = mp_out_of(&g->scratch);
    t->effect = mp_graph_effect_add(g, MP_GRAPH_EVENT);
    if (!t->effect)
        return false;
    mp_out_map(&t->o, HEAD_PAIRS + pairs);
    mp_out_text(&t->o, "event");
    mp_out_text(&t->o, event);
    mp_out_text(&t->o, "run_id");
    mp_out_str(&t->o, g->config.run_id);
    mp_out_text(&t->o, "seq");
    mp_out_uint(&t->o, ++g->event_seq);
    mp_out_text(&t->o, "at_ms");
    mp_out_ms(&t->o, g->now - g->began_at);
    return true;
}

/* An event that could not be written never happened: numbers stay without gaps. */
static enum mp_err tell_end(struct telling *t)
{
    if (t->o.err == MP_OK) {
        t->effect->event.body.size = t->g->scratch.size - t->before;
        return MP_OK;
    }
    t->g->scratch.size = t->before;
    t->g->effects_count--;
    t->g->event_seq--;
    return t->o.err;
}

static void put_text(struct mp_out *o, const char *key, struct mp_slice value)
{
    mp_out_text(o, key);
    mp_out_str_or_nil(o, value);
}

static void put_uint(struct mp_out *o, const char *key, uint64_t value)
{
    mp_out_text(o, key);
    mp_out_uint(o, value);
}

enum mp_err mp_graph_tell_run_started(struct mp_graph *g)
{
    struct telling t;
    if (!g->config.has_events)
        return MP_OK;
    if (!tell_begin(g, &t, "run_started", 3))
        return MP_ENOMEM;
    put_text(&t.o, "name", g->name);
    put_uint(&t.o, "steps", g->count);
    put_uint(&t.o, "levels", g->levels);
    return tell_end(&t);
}

enum mp_err mp_graph_tell_step_started(struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    struct telling t;
    if (!g->config.has_events)
        return MP_OK;
    if (!tell_begin(g, &t, "step_started", 5 + s->has_each))
        return MP_ENOMEM;
    put_text(&t.o, "step", s->name);
    put_text(&t.o, "call", s->fun);
    put_uint(&t.o, "level", s->level);
    put_text(&t.o, "node", mp_graph_interned(g, s->plan_node));
    put_uint(&t.o, "attempt", 1);
    if (s->has_each)
        put_uint(&t.o, "total", s->items->total);
    return tell_end(&t);
}

static enum mp_err tell_succeeded(struct mp_graph *g, const struct mp_graph_step_record *s)
{
    struct telling t;
    if (!tell_begin(g, &t, "step_succeeded", 11u + s->is_defaulted + (s->error.size != 0)))
        return MP_ENOMEM;
    put_text(&t.o, "step", s->name);
    put_uint(&t.o, "level", s->level);
    put_text(&t.o, "node", mp_graph_interned(g, s->node));
    put_uint(&t.o, "worker", s->worker);
    put_uint(&t.o, "attempts", s->attempts);
    mp_out_text(&t.o, "queue_ms");
    mp_out_ms(&t.o, s->timing.queue);
    mp_out_text(&t.o, "network_ms");
    mp_out_ms(&t.o, s->timing.network);
    mp_out_text(&t.o, "run_ms");
    mp_out_ms(&t.o, s->timing.run);
    put_uint(&t.o, "bytes_in", s->bytes_in);
    put_uint(&t.o, "bytes_out", s->bytes_out);
    mp_out_text(&t.o, "result");
    mp_graph_put_result(&t.o, s);
    if (s->is_defaulted) {
        mp_out_text(&t.o, "defaulted");
        mp_out_bool(&t.o, true);
    }
    if (s->error.size != 0) {
        mp_out_text(&t.o, "error");
        mp_out_raw(&t.o, s->error);
    }
    return tell_end(&t);
}

static enum mp_err tell_failed(struct mp_graph *g, const struct mp_graph_step_record *s)
{
    struct telling t;
    if (!tell_begin(g, &t, "step_failed", 6))
        return MP_ENOMEM;
    put_text(&t.o, "step", s->name);
    put_uint(&t.o, "level", s->level);
    put_text(&t.o, "node", mp_graph_interned(g, s->node));
    put_uint(&t.o, "attempts", s->attempts);
    put_text(&t.o, "status", mp_slice_str(mp_graph_state_name(s->state)));
    mp_out_text(&t.o, "error");
    mp_out_raw(&t.o, s->error);
    return tell_end(&t);
}

static enum mp_err tell_skipped(struct mp_graph *g, const struct mp_graph_step_record *s)
{
    struct telling t;
    bool has_error = s->error.size != 0;
    if (!tell_begin(g, &t, "step_skipped", 3 + (s->because_step < g->count) + has_error))
        return MP_ENOMEM;
    put_text(&t.o, "step", s->name);
    put_uint(&t.o, "level", s->level);
    put_text(&t.o, "because", mp_slice_str(mp_graph_because_name(s->because)));
    if (s->because_step < g->count)
        put_text(&t.o, "because_step", g->steps[s->because_step].name);
    if (has_error) {
        mp_out_text(&t.o, "error");
        mp_out_raw(&t.o, s->error);
    }
    return tell_end(&t);
}

enum mp_err mp_graph_tell_step_ended(struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    if (!g->config.has_events)
        return MP_OK;
    if (s->state == MP_GRAPH_DONE)
        return tell_succeeded(g, s);
    return s->state == MP_GRAPH_SKIPPED ? tell_skipped(g, s) : tell_failed(g, s);
}

enum mp_err mp_graph_tell_retried(struct mp_graph *g, const struct mp_graph_call *c,
                                  struct mp_slice error, mp_duration delay)
{
    struct mp_graph_step_record *s = &g->steps[c->step];
    struct telling t;
    if (!g->config.has_events)
        return MP_OK;
    /* A list whose every element fails would drown the rest. */
    if (c->index != 0 && s->retries_told++ >= MP_GRAPH_PROGRESS_PARTS)
        return MP_OK;
    if (!tell_begin(g, &t, "step_retried", 4 + (c->index != 0)))
        return MP_ENOMEM;
    put_text(&t.o, "step", s->name);
    if (c->index != 0)
        put_uint(&t.o, "index", c->index);
    put_uint(&t.o, "attempt", c->attempt);
    mp_out_text(&t.o, "error");
    mp_out_raw(&t.o, error);
    mp_out_text(&t.o, "delay_ms");
    mp_out_ms(&t.o, delay);
    return tell_end(&t);
}

enum mp_err mp_graph_tell_progress(struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_each *e = s->items;
    struct telling t;
    uint64_t done = (uint64_t)e->succeeded + e->failed + e->skipped;
    uint32_t part = (uint32_t)(done * MP_GRAPH_PROGRESS_PARTS / e->total);
    if (!g->config.has_events || part <= e->told || done == e->total)
        return MP_OK;
    e->told = part;
    if (!tell_begin(g, &t, "step_progress", 3))
        return MP_ENOMEM;
    put_text(&t.o, "step", s->name);
    put_uint(&t.o, "done", done);
    put_uint(&t.o, "total", e->total);
    return tell_end(&t);
}

enum mp_err mp_graph_tell_level(struct mp_graph *g, uint32_t level)
{
    struct telling t;
    if (!g->config.has_events)
        return MP_OK;
    if (!tell_begin(g, &t, "level_completed", mp_graph_level_pairs(g)))
        return MP_ENOMEM;
    mp_graph_put_level(g, &t.o, level);
    return tell_end(&t);
}

enum mp_err mp_graph_tell_run_finished(struct mp_graph *g)
{
    struct telling t;
    if (!g->config.has_events)
        return MP_OK;
    if (!tell_begin(g, &t, "run_finished", 4))
        return MP_ENOMEM;
    put_text(&t.o, "status", mp_slice_str(mp_graph_status_name(g->status)));
    mp_out_text(&t.o, "output");
    mp_out_raw(&t.o, mp_buf_slice(&g->output_bytes));
    mp_out_text(&t.o, "error");
    mp_out_raw(&t.o, g->error);
    mp_out_text(&t.o, "summary");
    if (mp_graph_summary_put(g, &t.o) != MP_OK)
        mp_assert(t.o.err != MP_OK);
    return tell_end(&t);
}
