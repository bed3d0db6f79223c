/* Results of single steps, for whoever shows one, keeps it, or goes on with the run later. */
#include "src/core/graph/graph_internal.h"

enum mp_err mp_graph_result_of(const struct mp_graph *g, struct mp_slice step,
                               struct mp_graph_result *out)
{
    uint32_t i;
    return mp_map_get(&g->by_name, step, &i) ? mp_graph_result_at(g, i, out) : MP_ENOENT;
}

enum mp_err mp_graph_result_at(const struct mp_graph *g, uint32_t step, struct mp_graph_result *out)
{
    mp_assert(step < g->count);
    const struct mp_graph_step_record *s = &g->steps[step];
    if (s->state != MP_GRAPH_DONE || s->result.size == 0)
        return MP_ENOENT;
    *out = (struct mp_graph_result){.is_here = !s->is_held && !s->is_shrunk,
                                    .is_held = s->is_held && !s->is_lost,
                                    .bytes = s->bytes_out};
    if (out->is_here)
        out->value = s->result;
    if (out->is_held) {
        out->node = mp_graph_interned(g, s->holder);
        out->held = s->held;
    }
    return MP_OK;
}

bool mp_graph_has_held(const struct mp_graph *g)
{
    return g->has_held;
}

bool mp_graph_wants_result(const struct mp_graph *g, struct mp_slice step)
{
    uint32_t i;
    if (!mp_map_get(&g->by_name, step, &i))
        return false;
    const struct mp_graph_range to = g->steps[i].dependents;
    for (uint32_t k = to.first; k < to.first + to.count; k++) {
        uint32_t edge = g->dependents[k];
        if ((edge & MP_GRAPH_EDGE_REF) &&
            g->steps[edge & MP_GRAPH_EDGE_STEP].state != MP_GRAPH_DONE)
            return true;
    }
    return false;
}
