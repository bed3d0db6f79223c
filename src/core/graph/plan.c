/* The plan: what would run where, without running it; and the run object on demand. */
#include "src/core/graph/graph_internal.h"

static void put_step(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s)
{
    mp_out_map(o, 8);
    mp_out_text(o, "name");
    mp_out_str(o, s->name);
    mp_out_text(o, "call");
    mp_out_str(o, s->fun);
    mp_out_text(o, "version");
    mp_out_str_or_nil(o, mp_graph_interned(g, s->plan_version));
    mp_out_text(o, "node");
    mp_out_str_or_nil(o, mp_graph_interned(g, s->plan_node));
    mp_out_text(o, "level");
    mp_out_uint(o, s->level);
    mp_graph_put_deps(g, o, s);
    mp_out_text(o, "each");
    mp_out_bool(o, s->has_each);
    mp_out_text(o, "needs");
    mp_out_array(o, s->needs.count);
    for (uint32_t k = 0; k < s->needs.count; k++)
        mp_out_str(o, g->needs[s->needs.first + k]);
}

enum mp_err mp_graph_put_plan(struct mp_graph *g, struct mp_buf *out)
{
    if (g->phase != MP_GRAPH_PHASE_LOADED || g->faults_count != 0 || g->resolves_left != 0)
        return MP_EINVAL;
    struct mp_out o = mp_out_of(out);
    mp_out_map(&o, 3);
    mp_out_text(&o, "name");
    mp_out_str_or_nil(&o, g->name);
    mp_out_text(&o, "levels");
    mp_out_array(&o, g->levels);
    for (uint32_t k = 0; k < g->levels; k++) {
        mp_out_array(&o, g->level_first[k + 1] - g->level_first[k]);
        for (uint32_t i = g->level_first[k]; i < g->level_first[k + 1]; i++)
            mp_out_str(&o, g->steps[g->by_level[i]].name);
    }
    mp_out_text(&o, "steps");
    mp_out_array(&o, g->count);
    for (uint32_t i = 0; i < g->count; i++)
        put_step(g, &o, &g->steps[i]);
    return o.err;
}

static enum mp_err put_record(struct mp_graph *g, mp_time now, enum mp_graph_record kind,
                              struct mp_buf *out)
{
    size_t before = out->size;
    if (!g->has_begun || g->phase == MP_GRAPH_PHASE_DEAD)
        return MP_EINVAL;
    mp_assert(now >= g->now);
    g->now = now;
    enum mp_err err = mp_graph_record_put(g, kind, out);
    if (err != MP_OK)
        out->size = before;
    return err;
}

enum mp_err mp_graph_put_shape(struct mp_graph *g, struct mp_buf *out)
{
    if (g->phase != MP_GRAPH_PHASE_LOADED)
        return MP_EINVAL;
    for (uint32_t i = 0; i < g->faults_count; i++)
        if (!g->faults[i].is_resolver)
            return MP_EINVAL;
    struct mp_out o = mp_out_of(out);
    mp_out_array(&o, g->count);
    for (uint32_t i = 0; i < g->count; i++) {
        const struct mp_graph_step_record *s = &g->steps[i];
        mp_out_map(&o, 5);
        mp_out_text(&o, "name");
        mp_out_str(&o, s->name);
        mp_out_text(&o, "call");
        mp_out_str(&o, s->fun);
        mp_graph_put_deps(g, &o, s);
        mp_out_text(&o, "level");
        mp_out_uint(&o, s->level);
        mp_out_text(&o, "each");
        mp_out_bool(&o, s->has_each);
    }
    return o.err;
}

enum mp_err mp_graph_put_run(struct mp_graph *g, mp_time now, struct mp_buf *out)
{
    return put_record(g, now, MP_GRAPH_RECORD_ANSWER, out);
}

enum mp_err mp_graph_put_record(struct mp_graph *g, mp_time now, struct mp_buf *out)
{
    return put_record(g, now, MP_GRAPH_RECORD_KEPT, out);
}

enum mp_err mp_graph_put_trace(struct mp_graph *g, mp_time now, struct mp_buf *out)
{
    return put_record(g, now, MP_GRAPH_RECORD_TRACE, out);
}

enum mp_err mp_graph_put_head(const struct mp_graph *g, mp_time now, struct mp_buf *out)
{
    struct mp_out o = mp_out_of(out);
    mp_time end = g->phase == MP_GRAPH_PHASE_OVER ? g->ended_at : now;
    mp_out_text(&o, "name");
    mp_out_str_or_nil(&o, g->name);
    mp_out_text(&o, "status");
    mp_out_text(&o, mp_graph_status_name(g->status));
    mp_out_text(&o, "total_ms");
    mp_out_ms(&o, end - g->began_at);
    mp_out_text(&o, "steps");
    mp_out_uint(&o, g->count);
    mp_out_text(&o, "succeeded");
    mp_out_uint(&o, g->counts[MP_GRAPH_DONE]);
    mp_out_text(&o, "failed");
    mp_out_uint(&o, g->counts[MP_GRAPH_BROKEN] + g->counts[MP_GRAPH_LATE]);
    return o.err;
}

const char *mp_graph_status_text(const struct mp_graph *g)
{
    return mp_graph_status_name(g->status);
}

uint32_t mp_graph_step_count(const struct mp_graph *g)
{
    return g->count;
}

struct mp_slice mp_graph_step_name(const struct mp_graph *g, uint32_t step)
{
    mp_assert(step < g->count);
    return g->steps[step].name;
}

bool mp_graph_find_step(const struct mp_graph *g, struct mp_slice name, uint32_t *step)
{
    return mp_map_get(&g->by_name, name, step);
}

size_t mp_graph_memory(const struct mp_graph *g)
{
    return sizeof(*g) + g->kept_bytes + g->count * (sizeof(*g->steps) + 64) +
           g->calls_capacity * sizeof(*g->calls);
}
