/* A kept record as people get to see it. What the record of a finished run lacks are its levels,
 * which follow from its steps. That of a run whose node died has no run object at all: it is put
 * together from the graph and from the events that were kept while it went on. */
#include "src/base/assert.h"
#include "src/core/graph/out.h"
#include "src/core/node/runs_internal.h"

/* One step, as far as levels need it; times in ms since the run began, negative: none. */
struct row {
    struct mp_slice name;
    struct mp_slice call; /* these three: of a lost run */
    struct mp_slice deps;
    struct mp_slice started; /* the event that told of its beginning; empty: none */
    struct mp_slice ended;   /* of its end */
    struct mp_slice result;  /* empty: none */
    double started_ms;
    double ended_ms;
    uint32_t level;
    bool is_done;   /* succeeded */
    bool is_passed; /* succeeded or skipped */
    bool is_skipped;
};

struct rows {
    struct mp_alloc *alloc;
    struct row *items;
    uint32_t count;
    uint32_t levels;
    uint32_t *order; /* steps by level, then in their order; behind them where each level begins */
    double now_ms;   /* of the last thing that is known */
};

static double get_ms(struct mp_slice map, const char *key)
{
    double ms = -1;
    struct mp_slice value = mp_node_value_of(map, key);
    return value.size != 0 && mp_mp_get_number(value, &ms) == MP_OK ? ms : -1;
}

static uint32_t get_uint(struct mp_slice map, const char *key)
{
    int64_t i = 0;
    struct mp_slice value = mp_node_value_of(map, key);
    return value.size != 0 && mp_mp_get_int(value, &i) == MP_OK && i > 0 && i < UINT32_MAX
               ? (uint32_t)i
               : 0;
}

static enum mp_err make_rows(struct rows *t, struct mp_slice steps, struct mp_mp_reader *r)
{
    if (mp_mp_get_array(steps, &t->count, r) != MP_OK || t->count == 0)
        return MP_ECORRUPT;
    t->items = mp_alloc_take(t->alloc, t->count * sizeof(*t->items));
    if (!t->items)
        return MP_ENOMEM;
    memset(t->items, 0, t->count * sizeof(*t->items));
    return MP_OK;
}

static size_t order_size(const struct rows *t)
{
    return ((size_t)t->count + t->levels + 1) * sizeof(*t->order);
}

static void free_rows(struct rows *t)
{
    if (t->order)
        mp_alloc_free(t->alloc, t->order, order_size(t));
    mp_alloc_free(t->alloc, t->items, t->count * sizeof(*t->items));
}

static uint32_t first_of(const struct rows *t, uint32_t level)
{
    return t->order[t->count + level];
}

/* Counts the steps of each level, and lists them by it. MP_ECORRUPT: a level is out of bounds. */
static enum mp_err order_rows(struct rows *t)
{
    if (t->levels == 0 || t->levels > t->count)
        return MP_ECORRUPT;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->items[i].level >= t->levels)
            return MP_ECORRUPT;
    t->order = mp_alloc_take(t->alloc, order_size(t));
    if (!t->order)
        return MP_ENOMEM;
    uint32_t *first = t->order + t->count;
    memset(first, 0, ((size_t)t->levels + 1) * sizeof(*first));
    for (uint32_t i = 0; i < t->count; i++)
        first[t->items[i].level + 1]++;
    for (uint32_t k = 1; k <= t->levels; k++)
        first[k] += first[k - 1];
    for (uint32_t i = 0; i < t->count; i++)
        t->order[first[t->items[i].level]++] = i;
    for (uint32_t k = t->levels; k > 0; k--)
        first[k] = first[k - 1];
    first[0] = 0;
    return MP_OK;
}

/* --- levels --- */

/* Levels in which every step succeeded or was skipped, and so all before. */
static uint32_t count_complete(const struct rows *t)
{
    uint32_t complete = t->levels;
    for (uint32_t i = 0; i < t->count; i++)
        if (!t->items[i].is_passed && t->items[i].level < complete)
            complete = t->items[i].level;
    return complete;
}

static uint32_t count_shown(const struct rows *t, uint32_t complete)
{
    uint32_t shown = complete;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->items[i].started_ms >= 0 && t->items[i].level >= shown)
            shown = t->items[i].level + 1;
    return shown;
}

static double duration_of(const struct rows *t, uint32_t level)
{
    double first = -1;
    double last = 0;
    for (uint32_t i = first_of(t, level); i < first_of(t, level + 1); i++) {
        const struct row *s = &t->items[t->order[i]];
        if (s->started_ms < 0)
            continue;
        double end = s->ended_ms >= 0 ? s->ended_ms : t->now_ms;
        first = first < 0 || s->started_ms < first ? s->started_ms : first;
        last = end > last ? end : last;
    }
    return first < 0 ? 0 : last - first;
}

/* Milliseconds as everywhere: rounded to a microsecond. */
static void put_ms(struct mp_out *o, double ms)
{
    mp_out_ms(o, ms > 0 ? (mp_duration)(ms * 1000 + 0.5) * 1000 : 0);
}

static void put_available(struct mp_out *o, const struct rows *t, uint32_t end, uint32_t count)
{
    mp_out_text(o, "available");
    mp_out_array(o, count);
    for (uint32_t i = 0; i < end; i++)
        if (t->items[t->order[i]].is_done)
            mp_out_str(o, t->items[t->order[i]].name);
}

/* `available` counts on over the levels. */
static void put_level(struct mp_out *o, const struct rows *t, uint32_t level, uint32_t complete,
                      uint32_t *available)
{
    uint32_t first = first_of(t, level);
    uint32_t end = first_of(t, level + 1);
    uint32_t done = 0;
    bool is_small = t->count <= MP_TRACE_AVAILABLE_STEPS;
    for (uint32_t i = first; i < end; i++)
        done += t->items[t->order[i]].is_done;
    *available += done;
    mp_out_map(o, 7u + is_small + (level >= complete));
    mp_out_text(o, "level");
    mp_out_uint(o, level);
    mp_out_text(o, "total_levels");
    mp_out_uint(o, t->levels);
    mp_out_text(o, "steps");
    mp_out_array(o, end - first);
    for (uint32_t i = first; i < end; i++)
        mp_out_str(o, t->items[t->order[i]].name);
    mp_out_text(o, "results");
    mp_out_map(o, done);
    for (uint32_t i = first; i < end; i++)
        if (t->items[t->order[i]].is_done) {
            mp_out_str(o, t->items[t->order[i]].name);
            mp_out_raw(o, t->items[t->order[i]].result);
        }
    if (is_small)
        put_available(o, t, end, *available);
    mp_out_text(o, "available_count");
    mp_out_uint(o, *available);
    mp_out_text(o, "progress");
    mp_out_float(o, 100.0 * (level < complete ? level + 1 : complete) / t->levels);
    mp_out_text(o, "duration_ms");
    put_ms(o, duration_of(t, level));
    if (level >= complete) {
        mp_out_text(o, "complete");
        mp_out_bool(o, false);
    }
}

static void put_levels(struct mp_out *o, const struct rows *t)
{
    uint32_t complete = count_complete(t);
    uint32_t shown = count_shown(t, complete);
    uint32_t available = 0;
    mp_out_text(o, "levels");
    mp_out_array(o, shown);
    for (uint32_t k = 0; o->err == MP_OK && k < shown; k++)
        put_level(o, t, k, complete, &available);
}

/* --- of a run that ended --- */

/* The next value of a map whose keys come in the order of the steps, if it is that step's. */
static struct mp_slice take_result(struct mp_mp_reader *r, struct mp_slice name)
{
    struct mp_mp_reader at = *r;
    struct mp_slice key;
    struct mp_slice text;
    struct mp_slice value;
    if (mp_mp_is_at_end(&at) || mp_mp_take(&at, &key) != MP_OK ||
        mp_mp_get_str(key, &text) != MP_OK || !mp_slice_equal(text, name) ||
        mp_mp_take(&at, &value) != MP_OK)
        return (struct mp_slice){0};
    *r = at;
    return value;
}

static enum mp_err read_steps(struct rows *t, struct mp_slice run, struct mp_slice values)
{
    struct mp_mp_reader r;
    struct mp_mp_reader results = {0};
    uint32_t pairs;
    MP_TRY(make_rows(t, mp_node_value_of(run, "steps"), &r));
    if (mp_mp_get_map(values, &pairs, &results) != MP_OK)
        results = (struct mp_mp_reader){0};
    t->levels = get_uint(mp_node_value_of(run, "summary"), "levels");
    t->now_ms = get_ms(mp_node_value_of(run, "summary"), "total_ms");
    for (uint32_t i = 0; i < t->count; i++) {
        struct mp_slice step;
        struct row *s = &t->items[i];
        MP_TRY(mp_mp_take(&r, &step));
        struct mp_slice status = mp_node_text_of(step, "status");
        s->name = mp_node_text_of(step, "name");
        s->level = get_uint(step, "level");
        s->started_ms = get_ms(step, "started_ms");
        s->ended_ms = get_ms(step, "ended_ms");
        s->is_done = mp_slice_is(status, "succeeded");
        s->is_passed = s->is_done || mp_slice_is(status, "skipped");
        if (s->is_done)
            s->result = take_result(&results, s->name);
    }
    return order_rows(t);
}

static enum mp_err put_ended(struct mp_node *n, struct mp_slice body, struct mp_slice run,
                             struct mp_buf *out)
{
    struct rows t = {.alloc = n->alloc};
    struct mp_out o = mp_out_of(out);
    struct mp_mp_reader r;
    uint32_t pairs;
    enum mp_err err = mp_mp_get_map(run, &pairs, &r);
    if (err == MP_OK && mp_node_value_of(run, "levels").size != 0)
        return mp_mp_put_raw(out, run); /* whoever began it had asked for them */
    if (err == MP_OK)
        err = read_steps(&t, run, mp_node_record_results(body, run));
    if (err == MP_OK) {
        mp_out_map(&o, pairs + 1);
        mp_out_bytes(&o, mp_slice_of(r.at, (size_t)(r.end - r.at)));
        put_levels(&o, &t);
        err = o.err;
    }
    free_rows(&t);
    return err;
}

/* --- of a run whose node died --- */

static enum mp_err load_shape(struct mp_node *n, struct mp_slice graph, struct mp_buf *shape)
{
    struct mp_graph_effects out;
    const struct mp_graph_config cfg = {.node = n->catalog.node,
                                        .steps_max = n->cfg.graph_steps_max,
                                        .value_bytes_max = n->cfg.value_bytes_max,
                                        .is_plan = true};
    const struct mp_graph_event load = {.kind = MP_GRAPH_LOAD, .load = {.graph = graph}};
    struct mp_graph *g = (struct mp_graph *)mp_alloc_take(n->alloc, mp_graph_size());
    if (!g)
        return MP_ENOMEM;
    enum mp_err err = mp_graph_init(g, &cfg, n->alloc, 1);
    if (err == MP_OK) {
        err = mp_graph_step(g, n->now, &load, &out);
        if (err == MP_OK)
            err = mp_graph_put_shape(g, shape);
        mp_graph_fini(g);
    }
    mp_alloc_free(n->alloc, g, mp_graph_size());
    return err == MP_EINVAL ? MP_ECORRUPT : err;
}

static enum mp_err read_shape(struct rows *t, struct mp_slice shape, struct mp_map *by_name)
{
    struct mp_mp_reader r;
    MP_TRY(make_rows(t, shape, &r));
    for (uint32_t i = 0; i < t->count; i++) {
        struct mp_slice step;
        struct row *s = &t->items[i];
        MP_TRY(mp_mp_take(&r, &step));
        s->name = mp_node_text_of(step, "name");
        s->call = mp_node_text_of(step, "call");
        s->deps = mp_node_value_of(step, "depends_on");
        s->level = get_uint(step, "level");
        s->started_ms = -1;
        s->ended_ms = -1;
        t->levels = s->level >= t->levels ? s->level + 1 : t->levels;
        MP_TRY(mp_map_set(by_name, s->name, i));
    }
    return order_rows(t);
}

static void read_event(struct rows *t, const struct mp_map *by_name, struct mp_slice event)
{
    uint32_t at;
    struct mp_slice kind = mp_node_text_of(event, "event");
    double at_ms = get_ms(event, "at_ms");
    t->now_ms = at_ms > t->now_ms ? at_ms : t->now_ms;
    if (!mp_map_get(by_name, mp_node_text_of(event, "step"), &at))
        return;
    struct row *s = &t->items[at];
    if (mp_slice_is(kind, "step_started")) {
        s->started = event;
        s->started_ms = at_ms;
        return;
    }
    bool is_done = mp_slice_is(kind, "step_succeeded");
    bool is_skipped = mp_slice_is(kind, "step_skipped");
    if (!is_done && !is_skipped && !mp_slice_is(kind, "step_failed"))
        return;
    s->ended = event;
    s->ended_ms = at_ms;
    s->is_done = is_done;
    s->is_skipped = is_skipped;
    s->is_passed = is_done || is_skipped;
    s->result = is_done ? mp_node_value_of(event, "result") : (struct mp_slice){0};
}

/* `progress`: an array of parts, each the bytes of an array of events. */
static void read_progress(struct rows *t, const struct mp_map *by_name, struct mp_slice progress)
{
    uint32_t parts = 0;
    struct mp_mp_reader p;
    if (progress.size == 0 || mp_mp_get_array(progress, &parts, &p) != MP_OK)
        return;
    for (uint32_t i = 0; i < parts; i++) {
        uint32_t count;
        struct mp_mp_token part;
        struct mp_mp_reader r;
        if (mp_mp_next(&p, &part) != MP_OK || part.type != MP_MP_BIN ||
            mp_mp_check(part.bytes) != MP_OK)
            return;
        for (uint32_t k = mp_mp_get_array(part.bytes, &count, &r) == MP_OK ? count : 0; k > 0;
             k--) {
            struct mp_slice event;
            if (mp_mp_take(&r, &event) != MP_OK)
                return;
            read_event(t, by_name, event);
        }
    }
}

static void put_key(struct mp_out *o, const char *key, struct mp_slice value)
{
    mp_out_text(o, key);
    mp_out_raw(o, value);
}

static void put_key_uint(struct mp_out *o, const char *key, uint64_t value)
{
    mp_out_text(o, key);
    mp_out_uint(o, value);
}

static void put_key_ms(struct mp_out *o, const char *key, double ms)
{
    mp_out_text(o, key);
    if (ms < 0)
        mp_out_nil(o);
    else
        put_ms(o, ms);
}

static void put_step(struct mp_out *o, const struct row *s)
{
    struct mp_slice failed = mp_node_value_of(s->ended, "status");
    struct mp_slice node = mp_node_value_of(s->ended, "node");
    mp_out_map(o, 17);
    mp_out_text(o, "name");
    mp_out_str(o, s->name);
    mp_out_text(o, "call");
    mp_out_str(o, s->call);
    put_key(o, "version", mp_node_value_of(s->ended, "version"));
    mp_out_text(o, "status");
    if (failed.size != 0)
        mp_out_raw(o, failed);
    else
        mp_out_text(o, s->is_done             ? "succeeded"
                       : s->is_skipped        ? "skipped"
                       : s->started.size != 0 ? "running"
                                              : "pending");
    put_key(o, "node", node.size != 0 ? node : mp_node_value_of(s->started, "node"));
    put_key(o, "worker", mp_node_value_of(s->ended, "worker"));
    put_key_uint(o, "level", s->level);
    put_key_uint(o, "attempts", get_uint(s->ended, "attempts"));
    put_key(o, "depends_on", s->deps);
    put_key_ms(o, "started_ms", s->started_ms);
    put_key_ms(o, "ended_ms", s->ended_ms);
    put_key_ms(o, "queue_ms", s->is_done ? get_ms(s->ended, "queue_ms") : 0);
    put_key_ms(o, "network_ms", s->is_done ? get_ms(s->ended, "network_ms") : 0);
    put_key_ms(o, "run_ms", s->is_done ? get_ms(s->ended, "run_ms") : 0);
    put_key_uint(o, "bytes_in", get_uint(s->ended, "bytes_in"));
    put_key_uint(o, "bytes_out", get_uint(s->ended, "bytes_out"));
    put_key(o, "error", mp_node_value_of(s->ended, "error"));
}

static void put_nodes(struct mp_out *o, const struct rows *t)
{
    uint32_t count = 0;
    const struct row *shown[64];
    for (uint32_t i = 0; i < t->count && count < MP_ARRAY_SIZE(shown); i++) {
        struct mp_slice node = mp_node_text_of(t->items[i].ended, "node");
        uint32_t k = 0;
        while (k < count && !mp_slice_equal(mp_node_text_of(shown[k]->ended, "node"), node))
            k++;
        if (node.size != 0 && k == count)
            shown[count++] = &t->items[i];
    }
    mp_out_text(o, "nodes");
    mp_out_array(o, count);
    for (uint32_t i = 0; i < count; i++)
        mp_out_str(o, mp_node_text_of(shown[i]->ended, "node"));
}

static void put_summary(struct mp_out *o, const struct rows *t)
{
    static const char *const unknown[] = {"cancelled",    "timed_out",   "retries",
                                          "remote_calls", "bytes_moved", "cross_cluster_hops"};
    uint32_t done = 0;
    uint32_t skipped = 0;
    uint32_t failed = 0;
    double run_ms = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        const struct row *s = &t->items[i];
        double ms = s->is_done ? get_ms(s->ended, "run_ms") : 0;
        done += s->is_done;
        skipped += s->is_skipped;
        failed += s->ended.size != 0 && !s->is_passed;
        run_ms += ms > 0 ? ms : 0;
    }
    mp_out_text(o, "summary");
    mp_out_map(o, 13 + MP_ARRAY_SIZE(unknown));
    put_key_ms(o, "total_ms", t->now_ms);
    put_key_uint(o, "levels", t->levels);
    mp_out_text(o, "level_ms");
    mp_out_array(o, t->levels);
    for (uint32_t k = 0; k < t->levels; k++)
        put_ms(o, duration_of(t, k));
    put_key_uint(o, "steps", t->count);
    put_key_uint(o, "succeeded", done);
    put_key_uint(o, "failed", failed);
    put_key_uint(o, "skipped", skipped);
    for (size_t i = 0; i < MP_ARRAY_SIZE(unknown); i++)
        put_key_uint(o, unknown[i], 0);
    put_key(o, "bottleneck_level", (struct mp_slice){0});
    put_key(o, "bottleneck_step", (struct mp_slice){0});
    mp_out_text(o, "critical_path");
    mp_out_array(o, 0);
    put_key_ms(o, "critical_path_ms", 0);
    mp_out_text(o, "parallelism");
    mp_out_float(o, t->now_ms > 0 ? run_ms / t->now_ms : 0);
    put_nodes(o, t);
}

static void put_error(struct mp_node *n, struct mp_out *o)
{
    const struct mp_fault fault = {
        .code = MP_CODE_UNAVAILABLE,
        .reason = mp_slice_str("COORDINATOR_LOST"),
        .message = mp_slice_str("the node that ran it ended before the run did"),
        .hint = mp_slice_str("mpreg resume goes on with what had finished"),
        .node = n->catalog.node};
    mp_out_text(o, "error");
    mp_out_raw(o, mp_node_error(n, &fault));
}

static void put_lost_run(struct mp_node *n, struct mp_out *o, const struct rows *t,
                         struct mp_slice head)
{
    struct mp_slice resumed = mp_node_value_of(head, "resumed_from");
    uint32_t done = 0;
    for (uint32_t i = 0; i < t->count; i++)
        done += t->items[i].is_done;
    mp_out_map(o, 9u + (resumed.size != 0));
    put_key(o, "run_id", mp_node_value_of(head, "run_id"));
    mp_out_text(o, "status");
    mp_out_text(o, "lost");
    put_key(o, "output", (struct mp_slice){0});
    put_error(n, o);
    put_levels(o, t);
    mp_out_text(o, "steps");
    mp_out_array(o, t->count);
    for (uint32_t i = 0; i < t->count; i++)
        put_step(o, &t->items[i]);
    put_summary(o, t);
    put_key(o, "name", mp_node_value_of(head, "name"));
    if (resumed.size != 0)
        put_key(o, "resumed_from", resumed);
    mp_out_text(o, "results");
    mp_out_map(o, done);
    for (uint32_t i = 0; i < t->count; i++)
        if (t->items[i].is_done) {
            mp_out_str(o, t->items[i].name);
            mp_out_raw(o, t->items[i].result);
        }
}

static enum mp_err put_lost(struct mp_node *n, struct mp_slice head, struct mp_slice graph,
                            struct mp_slice progress, struct mp_buf *out)
{
    struct rows t = {.alloc = n->alloc};
    struct mp_out o = mp_out_of(out);
    struct mp_buf shape;
    struct mp_map by_name;
    mp_buf_init(&shape, n->alloc, 0);
    mp_map_init(&by_name, n->alloc);
    enum mp_err err = load_shape(n, graph, &shape);
    if (err == MP_OK)
        err = read_shape(&t, mp_buf_slice(&shape), &by_name);
    if (err == MP_OK) {
        read_progress(&t, &by_name, progress);
        put_lost_run(n, &o, &t, head);
        err = o.err;
    }
    free_rows(&t);
    mp_map_fini(&by_name);
    mp_buf_fini(&shape);
    return err;
}

enum mp_err mp_node_trace_put(struct mp_node *n, struct mp_slice head, struct mp_slice body,
                              struct mp_slice progress, struct mp_buf *out)
{
    if (mp_mp_check(head) != MP_OK || mp_mp_check(body) != MP_OK)
        return MP_ECORRUPT;
    if (progress.size != 0 && mp_mp_check(progress) != MP_OK)
        return MP_ECORRUPT;
    struct mp_slice run = mp_node_value_of(body, "run");
    if (run.size != 0 && mp_mp_type_of(run) == MP_MP_MAP)
        return put_ended(n, body, run, out);
    return put_lost(n, head, mp_node_value_of(body, "graph"), progress, out);
}
