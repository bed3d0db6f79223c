/* The order of a graph: edges, levels, cycles. Everything is linear in steps plus edges, and works
 * on flat arrays: a chain of any length needs no stack of ours or the machine's. */
#include "src/core/graph/graph_internal.h"

/* Names of a step's references come in any number of times; each becomes one edge. The edge that a
 * target already has is found through `dependents`, which until the order is made holds for every
 * step where in `edges` the step now loading refers to it. */
enum mp_err mp_graph_order_add(struct mp_graph *g, uint32_t step, uint32_t target, uint32_t flags)
{
    struct mp_graph_range *deps = &g->steps[step].deps;
    mp_assert(target < g->count && target != step);
    mp_assert(deps->first + deps->count == g->edges_count);
    uint32_t known = g->dependents[target];
    if (known >= deps->first && known < g->edges_count &&
        (g->edges[known] & MP_GRAPH_EDGE_STEP) == target) {
        g->edges[known] |= flags;
        return MP_OK;
    }
    uint32_t *edges =
        mp_graph_grow(g, g->edges, &g->edges_capacity, sizeof(*edges), g->edges_count + 1);
    if (!edges)
        return MP_ENOMEM;
    g->edges = edges;
    g->dependents[target] = g->edges_count;
    g->edges[g->edges_count++] = target | flags;
    deps->count++;
    return MP_OK;
}

static enum mp_err turn_edges(struct mp_graph *g)
{
    uint32_t *dependents = mp_graph_grow(g, g->dependents, &g->dependents_capacity,
                                         sizeof(*dependents), g->edges_count);
    if (!dependents)
        return MP_ENOMEM;
    g->dependents = dependents;
    for (uint32_t i = 0; i < g->edges_count; i++)
        g->steps[g->edges[i] & MP_GRAPH_EDGE_STEP].dependents.count++;
    uint32_t at = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        g->steps[i].dependents.first = at;
        at += g->steps[i].dependents.count;
        g->steps[i].dependents.count = 0;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        const struct mp_graph_range deps = g->steps[i].deps;
        for (uint32_t k = deps.first; k < deps.first + deps.count; k++) {
            struct mp_graph_step_record *t = &g->steps[g->edges[k] & MP_GRAPH_EDGE_STEP];
            uint32_t flags = g->edges[k] & ~MP_GRAPH_EDGE_STEP;
            dependents[t->dependents.first + t->dependents.count++] = i | flags;
            t->readers += (flags & MP_GRAPH_EDGE_REF) != 0;
        }
    }
    return MP_OK;
}

/* Kahn's algorithm; the level of a step is the longest way to it. Returns how many steps have one:
 * the others are in cycles or behind them, and keep waiting > 0. */
static uint32_t find_levels(struct mp_graph *g, uint32_t *queue)
{
    uint32_t tail = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        g->steps[i].waiting = g->steps[i].deps.count;
        if (g->steps[i].waiting == 0)
            queue[tail++] = i;
    }
    for (uint32_t head = 0; head < tail; head++) {
        const struct mp_graph_step_record *s = &g->steps[queue[head]];
        for (uint32_t k = 0; k < s->dependents.count; k++) {
            uint32_t i = g->dependents[s->dependents.first + k] & MP_GRAPH_EDGE_STEP;
            struct mp_graph_step_record *d = &g->steps[i];
            d->level = d->level > s->level + 1 ? d->level : s->level + 1;
            if (--d->waiting == 0)
                queue[tail++] = i;
        }
    }
    return tail;
}

static enum mp_err sort_by_level(struct mp_graph *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        g->levels = g->steps[i].level + 1 > g->levels ? g->steps[i].level + 1 : g->levels;
    g->level_first = mp_alloc_take(g->alloc, ((size_t)g->levels + 1) * sizeof(uint32_t));
    g->level_left = mp_alloc_take(g->alloc, (size_t)g->levels * sizeof(uint32_t));
    g->by_level = mp_alloc_take(g->alloc, (size_t)g->count * sizeof(uint32_t));
    if (!g->level_first || !g->level_left || !g->by_level)
        return MP_ENOMEM;
    memset(g->level_left, 0, (size_t)g->levels * sizeof(uint32_t));
    for (uint32_t i = 0; i < g->count; i++)
        g->level_left[g->steps[i].level]++;
    uint32_t at = 0;
    for (uint32_t k = 0; k < g->levels; k++) {
        g->level_first[k] = at;
        at += g->level_left[k];
        g->level_left[k] = g->level_first[k];
    }
    g->level_first[g->levels] = at;
    for (uint32_t i = 0; i < g->count; i++)
        g->by_level[g->level_left[g->steps[i].level]++] = i;
    for (uint32_t k = 0; k < g->levels; k++)
        g->level_left[k] = g->level_first[k + 1] - g->level_first[k];
    return MP_OK;
}

/* --- cycles: Tarjan's strongly connected components with an explicit stack --- */

struct tarjan {
    uint32_t *number; /* order of discovery from 1; 0 not seen */
    uint32_t *low;
    uint32_t *component; /* from 1; 0 not yet in one */
    uint32_t *edge;      /* the next dependency to look at */
    uint32_t *path;      /* the walk from its root to here */
    uint32_t *open;      /* seen, not yet in a component */
    uint32_t path_count;
    uint32_t open_count;
    uint32_t numbers;
    uint32_t components;
};

static enum mp_err tell_cycle(struct mp_graph *g, const struct tarjan *t, uint32_t first,
                              uint32_t *place)
{
    /* From the component's first step along dependencies inside it until one comes again. */
    uint32_t *walk = t->path;
    uint32_t count = 0;
    uint32_t at = first;
    while (place[at] == MP_GRAPH_NONE) {
        place[at] = count;
        walk[count++] = at;
        const struct mp_graph_range deps = g->steps[at].deps;
        uint32_t next = MP_GRAPH_NONE;
        for (uint32_t k = deps.first; k < deps.first + deps.count && next == MP_GRAPH_NONE; k++)
            if (t->component[g->edges[k] & MP_GRAPH_EDGE_STEP] == t->component[at])
                next = g->edges[k] & MP_GRAPH_EDGE_STEP;
        mp_assert(next != MP_GRAPH_NONE);
        at = next;
    }
    uint32_t start = place[at];
    uint32_t length = count - start;
    uint32_t least = start;
    for (uint32_t i = start; i < count; i++)
        least = walk[i] < walk[least] ? i : least;
    struct mp_out o = mp_graph_message(g);
    /* Told the way results would flow: each step feeds the next. */
    for (uint32_t i = 0; i <= length; i++) {
        if (i == MP_GRAPH_CYCLE_SHOWN_MAX && length > MP_GRAPH_CYCLE_SHOWN_MAX) {
            mp_out_say(&o, " -> (%u more)", (uint64_t)(length - i));
            i = length;
        }
        uint32_t step = walk[start + (least - start + length - i % length) % length];
        mp_out_say(&o, i == 0 ? "%s" : " -> %s", g->steps[step].name);
    }
    return o.err != MP_OK ? o.err : mp_graph_fault_add(g, MP_GRAPH_AT_STEP(walk[least]), "CYCLE");
}

static void close_component(struct tarjan *t, uint32_t root)
{
    uint32_t member;
    t->components++;
    do {
        member = t->open[--t->open_count];
        t->component[member] = t->components;
    } while (member != root);
}

static void visit(struct tarjan *t, uint32_t step)
{
    t->number[step] = ++t->numbers;
    t->low[step] = t->numbers;
    t->path[t->path_count++] = step;
    t->open[t->open_count++] = step;
}

static void search(struct mp_graph *g, struct tarjan *t, uint32_t root)
{
    visit(t, root);
    while (t->path_count != 0) {
        uint32_t at = t->path[t->path_count - 1];
        if (t->edge[at] < g->steps[at].deps.count) {
            uint32_t next = g->edges[g->steps[at].deps.first + t->edge[at]++] & MP_GRAPH_EDGE_STEP;
            if (t->number[next] == 0)
                visit(t, next);
            else if (t->component[next] == 0 && t->number[next] < t->low[at])
                t->low[at] = t->number[next];
            continue;
        }
        t->path_count--;
        if (t->low[at] == t->number[at])
            close_component(t, at);
        if (t->path_count != 0) {
            uint32_t parent = t->path[t->path_count - 1];
            t->low[parent] = t->low[at] < t->low[parent] ? t->low[at] : t->low[parent];
        }
    }
}

static enum mp_err tell_cycles(struct mp_graph *g)
{
    size_t bytes = 6 * (size_t)g->count * sizeof(uint32_t);
    uint32_t *memory = mp_alloc_take(g->alloc, bytes);
    if (!memory)
        return MP_ENOMEM;
    memset(memory, 0, bytes);
    struct tarjan t = {.number = memory,
                       .low = memory + g->count,
                       .component = memory + 2 * (size_t)g->count,
                       .edge = memory + 3 * (size_t)g->count,
                       .path = memory + 4 * (size_t)g->count,
                       .open = memory + 5 * (size_t)g->count};
    for (uint32_t i = 0; i < g->count; i++)
        if (t.number[i] == 0)
            search(g, &t, i);
    /* Sizes of components, then the first step of each that has more than one. */
    memset(t.low, 0, (size_t)g->count * sizeof(uint32_t));
    memset(t.open, 0xff, (size_t)g->count * sizeof(uint32_t));
    for (uint32_t i = 0; i < g->count; i++)
        t.low[t.component[i] - 1]++;
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++) {
        uint32_t *size = &t.low[t.component[i] - 1];
        if (*size > 1)
            err = tell_cycle(g, &t, i, t.open);
        *size = 0;
    }
    mp_alloc_free(g->alloc, memory, bytes);
    return err;
}

enum mp_err mp_graph_order_all(struct mp_graph *g)
{
    enum mp_err err = turn_edges(g);
    if (err != MP_OK || g->count == 0)
        return err;
    uint32_t *queue = mp_alloc_take(g->alloc, (size_t)g->count * sizeof(*queue));
    if (!queue)
        return MP_ENOMEM;
    uint32_t ordered = find_levels(g, queue);
    mp_alloc_free(g->alloc, queue, (size_t)g->count * sizeof(*queue));
    if (ordered != g->count)
        return tell_cycles(g);
    for (uint32_t i = 0; i < g->count; i++)
        g->steps[i].waiting = g->steps[i].deps.count;
    return sort_by_level(g);
}
