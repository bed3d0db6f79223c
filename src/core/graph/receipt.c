/* What a cancel came to, step by step. The machine takes nobody's word for an end but the worker's:
 * a call whose answer is still to come, or came from somebody who could not know, may go on. */
#include "src/core/graph/graph_internal.h"

static const char *outcome(const struct mp_graph_step_record *s)
{
    switch (s->state) {
    case MP_GRAPH_DONE:
    case MP_GRAPH_BROKEN:
    case MP_GRAPH_LATE:
        return "done";
    case MP_GRAPH_SKIPPED:
        return s->has_run ? "done" : "never_started"; /* it ran if its own error skips it */
    default:
        break;
    }
    if (s->out != 0 || s->unconfirmed != 0)
        return "unreachable";
    if (!s->has_run)
        return "never_started";
    return s->has_failed ? "done" : "stopped";
}

void mp_graph_receipts_put(const struct mp_graph *g, struct mp_out *o)
{
    mp_out_array(o, g->count);
    for (uint32_t i = 0; i < g->count; i++) {
        mp_out_map(o, 2);
        mp_out_text(o, "name");
        mp_out_str(o, g->steps[i].name);
        mp_out_text(o, "outcome");
        mp_out_text(o, outcome(&g->steps[i]));
    }
}

enum mp_err mp_graph_put_receipts(const struct mp_graph *g, struct mp_buf *out)
{
    size_t before = out->size;
    struct mp_out o = mp_out_of(out);
    if (!g->has_begun || g->phase == MP_GRAPH_PHASE_DEAD)
        return MP_EINVAL;
    mp_graph_receipts_put(g, &o);
    if (o.err != MP_OK)
        out->size = before;
    return o.err;
}
