/* The summary of a run: what took how long, and what the time hung on.
 *
 * A step's own time is queue + network + run. For a step with `each` these are sums over its
 * elements, which run side by side, so on the critical path it counts at most from its start to its
 * end. The critical path goes back from the step that ended last; of several inputs, the one that
 * ended last is the one that was waited for. Order of ending is counted, so equal times do not make
 * it ambiguous. */
#include "src/core/graph/graph_internal.h"

static mp_duration own_time(const struct mp_graph_step_record *s)
{
    if (s->started_at == MP_NEVER)
        return 0;
    mp_duration sum = s->timing.queue + s->timing.network + s->timing.run;
    mp_duration span = s->ended_at - s->started_at;
    return s->has_each && span < sum ? span : sum;
}

static uint32_t last_to_end(const struct mp_graph *g)
{
    uint32_t last = MP_GRAPH_NONE;
    for (uint32_t i = 0; i < g->count; i++) {
        const struct mp_graph_step_record *s = &g->steps[i];
        if (s->started_at == MP_NEVER || s->ended_seq == 0)
            continue;
        if (last == MP_GRAPH_NONE || s->ended_at > g->steps[last].ended_at ||
            (s->ended_at == g->steps[last].ended_at && s->ended_seq > g->steps[last].ended_seq))
            last = i;
    }
    return last;
}

static uint32_t last_input(const struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_range deps = g->steps[step].deps;
    uint32_t last = MP_GRAPH_NONE;
    for (uint32_t k = deps.first; k < deps.first + deps.count; k++) {
        uint32_t i = g->edges[k] & MP_GRAPH_EDGE_STEP;
        if (last == MP_GRAPH_NONE || g->steps[i].ended_seq > g->steps[last].ended_seq)
            last = i;
    }
    return last;
}

struct critical {
    uint32_t count;
    uint32_t bottleneck;
    mp_duration time;
};

/* The path is left in `path` from its end to its beginning. */
static struct critical find_critical(const struct mp_graph *g, uint32_t *path)
{
    struct critical c = {.bottleneck = MP_GRAPH_NONE};
    for (uint32_t i = last_to_end(g); i != MP_GRAPH_NONE; i = last_input(g, i)) {
        mp_assert(c.count < g->count);
        path[c.count++] = i;
        c.time += own_time(&g->steps[i]);
        if (g->steps[i].started_at != MP_NEVER &&
            (c.bottleneck == MP_GRAPH_NONE ||
             own_time(&g->steps[i]) >= own_time(&g->steps[c.bottleneck])))
            c.bottleneck = i;
    }
    return c;
}

static void put_uint(struct mp_out *o, const char *key, uint64_t value)
{
    mp_out_text(o, key);
    mp_out_uint(o, value);
}

static void put_critical(struct mp_graph *g, struct mp_out *o, const uint32_t *path,
                         struct critical c)
{
    bool has_any = c.bottleneck != MP_GRAPH_NONE;
    mp_out_text(o, "bottleneck_level");
    if (has_any)
        mp_out_uint(o, g->steps[c.bottleneck].level);
    else
        mp_out_nil(o);
    mp_out_text(o, "bottleneck_step");
    if (has_any)
        mp_out_str(o, g->steps[c.bottleneck].name);
    else
        mp_out_nil(o);
    mp_out_text(o, "critical_path");
    mp_out_array(o, c.count);
    for (uint32_t i = c.count; i > 0; i--)
        mp_out_str(o, g->steps[path[i - 1]].name);
    mp_out_text(o, "critical_path_ms");
    mp_out_ms(o, c.time);
}

/* Names of nodes where steps ran, sorted: marks by interned number, then an insertion sort, since
 * nodes are few. */
static void put_nodes(struct mp_graph *g, struct mp_out *o, uint32_t *ids)
{
    uint32_t count = 0;
    memset(ids, 0, ((size_t)g->interned_count + 1) * sizeof(*ids));
    for (uint32_t i = 0; i < g->count; i++) {
        const struct mp_graph_step_record *s = &g->steps[i];
        if (!s->is_preset)
            ids[s->node] = 1;
        for (uint32_t k = 0; s->items && k < s->items->nodes_count; k++)
            ids[s->items->nodes[k]] = 1;
    }
    for (uint32_t id = 1; id <= g->interned_count; id++) {
        if (ids[id] == 0)
            continue;
        uint32_t at = count++;
        while (at > 0 &&
               mp_slice_compare(mp_graph_interned(g, ids[at - 1]), mp_graph_interned(g, id)) > 0) {
            ids[at] = ids[at - 1];
            at--;
        }
        ids[at] = id;
    }
    mp_out_text(o, "nodes");
    mp_out_array(o, count);
    for (uint32_t i = 0; i < count; i++)
        mp_out_str(o, mp_graph_interned(g, ids[i]));
}

static void put_counts(struct mp_graph *g, struct mp_out *o)
{
    uint64_t retries = 0;
    for (uint32_t i = 0; i < g->count; i++)
        retries += g->steps[i].retries_made;
    put_uint(o, "steps", g->count);
    put_uint(o, "succeeded", g->counts[MP_GRAPH_DONE]);
    put_uint(o, "failed", g->counts[MP_GRAPH_BROKEN]);
    put_uint(o, "skipped", g->counts[MP_GRAPH_SKIPPED]);
    put_uint(o, "cancelled", g->counts[MP_GRAPH_STOPPED]);
    put_uint(o, "timed_out", g->counts[MP_GRAPH_LATE]);
    put_uint(o, "retries", retries);
}

static double parallelism(const struct mp_graph *g, mp_duration total)
{
    mp_duration sum = 0;
    for (uint32_t i = 0; i < g->count; i++)
        sum += g->steps[i].timing.run;
    return total == 0 ? 0 : (double)sum / (double)total;
}

static void put_all(struct mp_graph *g, struct mp_out *o, uint32_t *memory)
{
    mp_time end = g->phase == MP_GRAPH_PHASE_OVER ? g->ended_at : g->now;
    mp_duration total = end - g->began_at;
    mp_out_map(o, 19);
    mp_out_text(o, "total_ms");
    mp_out_ms(o, total);
    put_uint(o, "levels", g->levels);
    mp_out_text(o, "level_ms");
    mp_out_array(o, g->levels);
    for (uint32_t k = 0; k < g->levels; k++)
        mp_out_ms(o, mp_graph_level_duration(g, k));
    put_counts(g, o);
    put_critical(g, o, memory, find_critical(g, memory));
    mp_out_text(o, "parallelism");
    mp_out_float(o, parallelism(g, total));
    put_nodes(g, o, memory);
    put_uint(o, "remote_calls", g->remote_calls);
    put_uint(o, "bytes_moved", g->bytes_moved);
    put_uint(o, "cross_cluster_hops", 0);
}

enum mp_err mp_graph_summary_put(struct mp_graph *g, struct mp_out *o)
{
    if (g->summary_size != 0 && o->b != &g->scratch) {
        mp_out_bytes(o, mp_slice_of(g->scratch.data + g->summary_at, g->summary_size));
        return o->err;
    }
    size_t before = o->b->size;
    uint32_t places = (g->count > g->interned_count ? g->count : g->interned_count) + 1;
    uint32_t *memory = mp_alloc_take(g->alloc, places * sizeof(*memory));
    if (!memory) {
        o->err = o->err != MP_OK ? o->err : MP_ENOMEM;
        return MP_ENOMEM;
    }
    put_all(g, o, memory);
    mp_alloc_free(g->alloc, memory, places * sizeof(*memory));
    if (g->phase == MP_GRAPH_PHASE_OVER && o->b == &g->scratch && o->err == MP_OK) {
        g->summary_at = before;
        g->summary_size = o->b->size - before;
    }
    return o->err;
}
