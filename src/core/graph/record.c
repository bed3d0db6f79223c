/* The run object. It is written once, in one pass over the steps, from what the steps carry; values
 * are copied as they are, large ones shown by their size, type and beginning. */
#include "src/core/graph/graph_internal.h"

const char *mp_graph_state_name(enum mp_graph_state state)
{
    static const char *const names[MP_GRAPH_STATES] = {
        [MP_GRAPH_PENDING] = "pending",   [MP_GRAPH_READY] = "pending",
        [MP_GRAPH_ACTIVE] = "running",    [MP_GRAPH_DONE] = "succeeded",
        [MP_GRAPH_BROKEN] = "failed",     [MP_GRAPH_SKIPPED] = "skipped",
        [MP_GRAPH_STOPPED] = "cancelled", [MP_GRAPH_LATE] = "timed_out"};
    return names[state];
}

const char *mp_graph_status_name(enum mp_graph_status status)
{
    static const char *const names[] = {[MP_GRAPH_RUNNING] = "running",
                                        [MP_GRAPH_SUCCEEDED] = "succeeded",
                                        [MP_GRAPH_FAILED] = "failed",
                                        [MP_GRAPH_CANCELLED] = "cancelled",
                                        [MP_GRAPH_TIMED_OUT] = "timed_out"};
    return names[status];
}

const char *mp_graph_because_name(enum mp_graph_because because)
{
    static const char *const names[] = {
        [MP_GRAPH_BECAUSE_NONE] = "",           [MP_GRAPH_BECAUSE_WHEN] = "when",
        [MP_GRAPH_BECAUSE_UNLESS] = "unless",   [MP_GRAPH_BECAUSE_INPUT] = "input",
        [MP_GRAPH_BECAUSE_FAILURE] = "failure", [MP_GRAPH_BECAUSE_ERROR] = "error"};
    return names[because];
}

/* --- values --- */

void mp_graph_put_result(struct mp_out *o, const struct mp_graph_step_record *s)
{
    if (s->result.size > MP_TRACE_RESULT_MAX)
        mp_graph_put_large(o, s->result);
    else
        mp_out_raw(o, s->result);
}

static void put_results(struct mp_graph *g, struct mp_out *o)
{
    mp_out_map(o, g->counts[MP_GRAPH_DONE]);
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->steps[i].state != MP_GRAPH_DONE)
            continue;
        mp_out_str(o, g->steps[i].name);
        mp_graph_put_result(o, &g->steps[i]);
    }
}

/* --- levels --- */

uint32_t mp_graph_level_pairs(const struct mp_graph *g)
{
    return g->count > MP_TRACE_AVAILABLE_STEPS ? 7 : 8;
}

/* Names that were written: those of the next level come behind them. */
struct available {
    const struct mp_buf *in;
    size_t at;
    size_t size;
    uint32_t end; /* in by_level */
};

/* The names of steps [from, end) of by_level; `is_done`: of those that succeeded. */
static void put_names(struct mp_graph *g, struct mp_out *o, uint32_t from, uint32_t end,
                      bool is_done)
{
    size_t most = 0;
    for (uint32_t i = from; i < end; i++)
        most += MP_AT_STR_MAX(g->steps[g->by_level[i]].name);
    uint8_t *at = mp_out_begin(o, most);
    if (!at)
        return;
    for (uint32_t i = from; i < end; i++)
        if (!is_done || g->steps[g->by_level[i]].state == MP_GRAPH_DONE)
            at = mp_at_str(at, g->steps[g->by_level[i]].name);
    mp_out_end(o, at);
}

static void put_available(struct mp_graph *g, struct mp_out *o, struct available *a, uint32_t count,
                          uint32_t end)
{
    mp_out_text(o, "available");
    mp_out_array(o, count);
    size_t at = o->b->size;
    uint8_t *names = mp_out_room(o, a->size);
    if (names && a->size != 0)
        memcpy(names, a->in->data + a->at, a->size);
    put_names(g, o, a->end, end, true);
    *a = (struct available){.in = o->b, .at = at, .size = o->b->size - at, .end = end};
}

/* From the first start to the last end among a level's steps. */
mp_duration mp_graph_level_duration(const struct mp_graph *g, uint32_t level)
{
    mp_time first = MP_NEVER;
    mp_time last = 0;
    for (uint32_t i = g->level_first[level]; i < g->level_first[level + 1]; i++) {
        const struct mp_graph_step_record *s = &g->steps[g->by_level[i]];
        if (s->started_at == MP_NEVER)
            continue;
        mp_time end = s->state >= MP_GRAPH_DONE ? s->ended_at : g->now;
        first = s->started_at < first ? s->started_at : first;
        last = end > last ? end : last;
    }
    return first == MP_NEVER ? 0 : last - first;
}

uint32_t mp_graph_count_done(const struct mp_graph *g, uint32_t level)
{
    uint32_t count = 0;
    for (uint32_t i = g->level_first[level]; i < g->level_first[level + 1]; i++)
        count += g->steps[g->by_level[i]].state == MP_GRAPH_DONE;
    return count;
}

#define LEVEL_FIXED_BYTES 128 /* keys and numbers take less */

/* `before` succeeded in the levels before this one. */
static void put_level(struct mp_graph *g, struct mp_out *o, uint32_t level, uint32_t before,
                      struct available *a)
{
    uint32_t first = g->level_first[level];
    uint32_t end = g->level_first[level + 1];
    uint32_t done = mp_graph_count_done(g, level);
    uint32_t complete = level < g->levels_done ? level + 1 : g->levels_done;
    uint8_t *at = mp_out_begin(o, LEVEL_FIXED_BYTES);
    if (!at)
        return;
    at = mp_at_uint(mp_at_text(at, "level"), level);
    at = mp_at_uint(mp_at_text(at, "total_levels"), g->levels);
    mp_out_end(o, mp_at_text(at, "steps"));
    mp_out_array(o, end - first);
    put_names(g, o, first, end, false);
    mp_out_text(o, "results");
    mp_out_map(o, done);
    for (uint32_t i = first; i < end; i++) {
        const struct mp_graph_step_record *s = &g->steps[g->by_level[i]];
        if (s->state != MP_GRAPH_DONE)
            continue;
        mp_out_str(o, s->name);
        mp_graph_put_result(o, s);
    }
    if (g->count <= MP_TRACE_AVAILABLE_STEPS)
        put_available(g, o, a, before + done, end);
    at = mp_out_begin(o, LEVEL_FIXED_BYTES);
    if (!at)
        return;
    at = mp_at_uint(mp_at_text(at, "available_count"), before + done);
    at = mp_at_float(mp_at_text(at, "progress"), 100.0 * complete / g->levels);
    at = mp_at_ms(mp_at_text(at, "duration_ms"), mp_graph_level_duration(g, level));
    mp_out_end(o, at);
}

/* Levels are told one after the other: the names that were told already are at hand. */
void mp_graph_put_level(struct mp_graph *g, struct mp_out *o, uint32_t level, uint32_t before)
{
    for (uint32_t k = 0; g->has_rerun && k < level; k++)
        before = (k == 0 ? 0 : before) + mp_graph_count_done(g, k);
    struct mp_buf *told = &g->told_names;
    struct available a = {.in = told, .size = told->size, .end = g->told_end};
    if (g->has_rerun || g->told_end > g->level_first[level])
        a = (struct available){0};
    bool is_next = a.end == g->level_first[level] && !g->has_rerun;
    put_level(g, o, level, before, &a);
    if (!is_next || o->err != MP_OK || a.size < told->size)
        return;
    const struct mp_slice more = mp_slice_of(o->b->data + a.at + told->size, a.size - told->size);
    if (mp_buf_append(told, more) == MP_OK)
        g->told_end = a.end;
}

/* Complete levels, and on up to the last one where something has begun. */
static uint32_t count_shown(const struct mp_graph *g)
{
    uint32_t shown = g->levels_done;
    for (uint32_t i = 0; i < g->count; i++)
        if (g->steps[i].started_at != MP_NEVER && g->steps[i].level >= shown)
            shown = g->steps[i].level + 1;
    return shown;
}

static void put_levels(struct mp_graph *g, struct mp_out *o)
{
    uint32_t shown = count_shown(g);
    uint32_t before = 0;
    struct available available = {0};
    mp_out_text(o, "levels");
    mp_out_array(o, shown);
    for (uint32_t k = 0; k < shown; k++) {
        bool is_complete = k < g->levels_done;
        mp_out_map(o, mp_graph_level_pairs(g) + !is_complete);
        put_level(g, o, k, before, &available);
        if (!is_complete) {
            mp_out_text(o, "complete");
            mp_out_bool(o, false);
        }
        before += mp_graph_count_done(g, k);
    }
}

/* --- steps --- */

#define STEP_FIXED_BYTES 256 /* keys and numbers take less */

/* A time that may not have come. */
static uint8_t *at_when(const struct mp_graph *g, uint8_t *at, mp_time when, bool is_known)
{
    if (is_known)
        return mp_at_ms(at, when - g->began_at);
    return mp_at_nil(at);
}

static void put_times(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s)
{
    uint8_t *at = mp_out_begin(o, STEP_FIXED_BYTES);
    if (!at)
        return;
    at = mp_at_text(at, "started_ms");
    at = at_when(g, at, s->started_at, s->started_at != MP_NEVER);
    at = mp_at_ms(mp_at_text(at, "queue_ms"), s->timing.queue);
    at = mp_at_ms(mp_at_text(at, "network_ms"), s->timing.network);
    at = mp_at_ms(mp_at_text(at, "run_ms"), s->timing.run);
    at = mp_at_uint(mp_at_text(at, "bytes_in"), s->bytes_in);
    at = mp_at_uint(mp_at_text(at, "bytes_out"), s->bytes_out);
    mp_out_end(o, at);
}

static void put_items(struct mp_graph *g, struct mp_out *o, const struct mp_graph_each *e)
{
    mp_out_text(o, "items");
    mp_out_map(o, 5);
    mp_out_text(o, "total");
    mp_out_uint(o, e->total);
    mp_out_text(o, "succeeded");
    mp_out_uint(o, e->succeeded);
    mp_out_text(o, "failed");
    mp_out_uint(o, e->failed);
    mp_out_text(o, "skipped");
    mp_out_uint(o, e->skipped);
    mp_out_text(o, "retried");
    mp_out_uint(o, e->retried);
    mp_out_text(o, "nodes");
    mp_out_array(o, e->nodes_count);
    for (uint32_t i = 0; i < e->nodes_count; i++)
        mp_out_str(o, mp_graph_interned(g, e->nodes[i]));
}

static bool has_slowest(const struct mp_graph_step_record *s)
{
    return s->items && s->items->slowest.index != 0;
}

/* When it ended, what its time went into, and what only some records have. */
static void put_extras(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s)
{
    uint8_t *at = mp_out_begin(o, STEP_FIXED_BYTES);
    if (!at)
        return;
    at = at_when(g, mp_at_text(at, "ended_ms"), s->ended_at, s->state >= MP_GRAPH_DONE);
    at = mp_at_ms(mp_at_text(at, "wait_ms"), s->wait);
    at = mp_at_ms(mp_at_text(at, "retry_ms"), s->retry);
    mp_out_end(o, at);
    if (s->tries)
        mp_graph_put_tries(g, o, s);
    if (s->is_defaulted) {
        mp_out_text(o, "defaulted");
        mp_out_bool(o, true);
    }
    if (s->items)
        put_items(g, o, s->items);
    if (has_slowest(s))
        mp_graph_put_slowest(g, o, s->items);
    if (s->because != MP_GRAPH_BECAUSE_NONE) {
        mp_out_text(o, "because");
        mp_out_text(o, mp_graph_because_name(s->because));
    }
    if (s->because != MP_GRAPH_BECAUSE_NONE && s->because_step < g->count) {
        mp_out_text(o, "because_step");
        mp_out_str(o, g->steps[s->because_step].name);
    }
}

/* Where it ran; while its first attempt runs, where that was meant to go. */
static uint32_t node_of(const struct mp_graph_step_record *s)
{
    return s->node == 0 && s->state == MP_GRAPH_ACTIVE ? s->plan_node : s->node;
}

static void put_step(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s)
{
    bool is_skipped = s->because != MP_GRAPH_BECAUSE_NONE;
    const struct mp_slice version =
        mp_graph_interned(g, s->version != 0 ? s->version : s->plan_version);
    const struct mp_slice node = mp_graph_interned(g, node_of(s));
    uint8_t *at =
        mp_out_begin(o, STEP_FIXED_BYTES + MP_AT_STR_MAX(s->name) + MP_AT_STR_MAX(s->fun) +
                            MP_AT_STR_MAX(version) + MP_AT_STR_MAX(node));
    if (!at)
        return;
    at =
        mp_at_map(at, 19u + (s->tries ? 1 : 0) + s->is_defaulted + (s->items ? 2 : 0) +
                          has_slowest(s) + is_skipped + (is_skipped && s->because_step < g->count));
    at = mp_at_str(mp_at_text(at, "name"), s->name);
    at = mp_at_str(mp_at_text(at, "call"), s->fun);
    at = mp_at_str_or_nil(mp_at_text(at, "version"), version);
    at = mp_at_str(mp_at_text(at, "status"), mp_slice_str(mp_graph_state_name(s->state)));
    at = mp_at_str_or_nil(mp_at_text(at, "node"), node);
    at = mp_at_text(at, "worker");
    at = s->worker == 0 ? mp_at_nil(at) : mp_at_uint(at, s->worker);
    at = mp_at_uint(mp_at_text(at, "level"), s->level);
    at = mp_at_uint(mp_at_text(at, "attempts"), s->attempts);
    mp_out_end(o, at);
    mp_graph_put_deps(g, o, s);
    put_times(g, o, s);
    mp_out_text(o, "error");
    mp_out_raw(o, s->error);
    put_extras(g, o, s);
}

void mp_graph_put_deps(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s)
{
    mp_out_text(o, "depends_on");
    mp_out_array(o, s->deps.count);
    for (uint32_t k = s->deps.first; k < s->deps.first + s->deps.count; k++)
        mp_out_str(o, g->steps[g->edges[k] & MP_GRAPH_EDGE_STEP].name);
}

enum mp_err mp_graph_put_large_form(struct mp_slice value, struct mp_buf *out)
{
    struct mp_out o = mp_out_of(out);
    enum mp_err err = mp_graph_depth_check(value, MP_DEPTH_MAX);
    if (err != MP_OK)
        return err;
    mp_graph_put_large(&o, value);
    return o.err;
}

/* What comes after everything that every run object has. */
static void put_run_extras(struct mp_graph *g, struct mp_out *o, bool has_results)
{
    if (has_results) {
        mp_out_text(o, "results");
        put_results(g, o);
    }
    if (g->config.resumed_from.size != 0) {
        mp_out_text(o, "resumed_from");
        mp_out_str(o, g->config.resumed_from);
    }
    if (g->gone_rerun != 0) {
        mp_out_text(o, "lost_results");
        mp_graph_preset_put_rerun(g, o);
    }
    if (g->status == MP_GRAPH_CANCELLED) {
        mp_out_text(o, "receipts");
        mp_graph_receipts_put(g, o);
    }
}

enum mp_err mp_graph_put_results(struct mp_graph *g, struct mp_buf *out)
{
    struct mp_out o = mp_out_of(out);
    put_results(g, &o);
    return o.err;
}

enum mp_err mp_graph_record_put(struct mp_graph *g, enum mp_graph_record kind, struct mp_buf *out)
{
    struct mp_out o = mp_out_of(out);
    bool is_kept = kind == MP_GRAPH_RECORD_KEPT;
    bool has_failed = g->status != MP_GRAPH_RUNNING && g->status != MP_GRAPH_SUCCEEDED;
    bool has_results = (is_kept || has_failed) && !g->has_lost_results;
    bool has_levels =
        (g->config.has_trace || kind == MP_GRAPH_RECORD_TRACE) && !is_kept && !g->has_lost_results;
    mp_out_map(&o, 7u + has_levels + has_results + (g->config.resumed_from.size != 0) +
                       (g->gone_rerun != 0) + (g->status == MP_GRAPH_CANCELLED));
    mp_out_text(&o, "run_id");
    mp_out_str(&o, g->config.run_id);
    mp_out_text(&o, "status");
    mp_out_text(&o, mp_graph_status_name(g->status));
    mp_out_text(&o, "output");
    mp_out_raw(&o, mp_buf_slice(&g->output_bytes));
    mp_out_text(&o, "error");
    mp_out_raw(&o, g->error);
    if (has_levels)
        put_levels(g, &o);
    mp_out_text(&o, "steps");
    mp_out_array(&o, g->count);
    for (uint32_t i = 0; o.err == MP_OK && i < g->count; i++)
        put_step(g, &o, &g->steps[i]);
    mp_out_text(&o, "summary");
    enum mp_err err = mp_graph_summary_put(g, &o);
    mp_out_text(&o, "name");
    mp_out_str_or_nil(&o, g->name);
    put_run_extras(g, &o, has_results);
    return o.err != MP_OK ? o.err : err;
}
