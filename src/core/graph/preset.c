/* What a run that goes on with an earlier one has already. A step whose result is given counts as
 * succeeded and is never handed out. A result may be known only by its $large form, since it could
 * not be kept: its step runs again if somebody wants it, that is a step that runs, or the output.
 */
#include "src/core/graph/graph_internal.h"

static bool depends_on_again(const struct mp_graph *g, const struct mp_graph_step_record *s)
{
    for (uint32_t k = s->deps.first; k < s->deps.first + s->deps.count; k++)
        if (g->steps[g->edges[k] & MP_GRAPH_EDGE_STEP].is_again)
            return true;
    return false;
}

enum mp_err mp_graph_preset_from(struct mp_graph *g, const struct mp_graph_event *ev)
{
    uint32_t from;
    if (!mp_map_get(&g->by_name, ev->from.name, &from))
        return MP_ENOENT;
    g->steps[from].is_again = true;
    /* What a step depends on stands on a lower level. A graph with faults has no levels. */
    for (uint32_t i = 0; g->levels != 0 && i < g->count; i++) {
        struct mp_graph_step_record *s = &g->steps[g->by_level[i]];
        s->is_again = s->is_again || depends_on_again(g, s);
    }
    return MP_OK;
}

enum mp_err mp_graph_preset(struct mp_graph *g, const struct mp_graph_event *ev)
{
    uint32_t i;
    struct mp_slice value = ev->preset.value;
    if (!mp_map_get(&g->by_name, ev->preset.name, &i))
        return MP_ENOENT;
    struct mp_graph_step_record *s = &g->steps[i];
    if (s->is_again)
        return MP_OK;
    if (s->is_preset || mp_graph_depth_check(value, MP_DEPTH_MAX) != MP_OK)
        return MP_EINVAL;
    if (value.size > g->config.value_bytes_max || !mp_graph_keep(g, value.size))
        return MP_ETOOLARGE;
    enum mp_err err = mp_graph_copy(g, value, &s->result);
    if (err != MP_OK) {
        g->kept_bytes -= value.size;
        return err;
    }
    s->is_preset = true;
    s->is_gone = ev->preset.is_gone;
    s->bytes_out = ev->preset.bytes;
    if (s->is_refused && !s->is_gone)
        mp_graph_fault_drop_resolver(g, i);
    err = mp_graph_intern(g, ev->preset.node, &s->node);
    return err != MP_OK ? err : mp_graph_intern(g, ev->preset.version, &s->version);
}

static bool is_wanted(const struct mp_graph *g, const struct mp_graph_step_record *s)
{
    const struct mp_graph_range to = s->dependents;
    for (uint32_t k = to.first; k < to.first + to.count; k++)
        if ((g->dependents[k] & MP_GRAPH_EDGE_REF) &&
            !g->steps[g->dependents[k] & MP_GRAPH_EDGE_STEP].is_preset)
            return true;
    return s->is_output_needed;
}

/* From the last level back: a step that runs again wants its own inputs. */
void mp_graph_preset_settle(struct mp_graph *g)
{
    for (uint32_t k = g->levels != 0 ? g->count : 0; k > 0; k--) {
        struct mp_graph_step_record *s = &g->steps[g->by_level[k - 1]];
        if (!s->is_gone)
            continue;
        if (!is_wanted(g, s)) {
            if (s->is_refused)
                mp_graph_fault_drop_resolver(g, g->by_level[k - 1]);
            continue;
        }
        g->kept_bytes -= s->result.size;
        mp_graph_drop(g, &s->result);
        s->is_preset = false;
        s->bytes_out = 0;
        s->node = 0;
        s->version = 0;
        g->gone_rerun++;
    }
}

void mp_graph_preset_put_rerun(const struct mp_graph *g, struct mp_out *o)
{
    mp_out_array(o, g->gone_rerun);
    for (uint32_t i = 0; i < g->count; i++)
        if (g->steps[i].is_gone && !g->steps[i].is_preset)
            mp_out_str(o, g->steps[i].name);
}
