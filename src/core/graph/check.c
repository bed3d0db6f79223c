/* Loading a graph: bytes from outside become steps, or faults. Nothing here stops at the first
 * fault; a step with one is passed over by the resolver, and no graph with one ever starts.
 *
 * Two passes over the steps: names first, so that a reference may point at a later step, then
 * everything else. */
#include "src/core/graph/graph_internal.h"

enum option {
    OPTION_NAME,
    OPTION_CALL,
    OPTION_ARGS,
    OPTION_NEEDS,
    OPTION_VERSION,
    OPTION_CLUSTER,
    OPTION_ON,
    OPTION_TIMEOUT,
    OPTION_RETRIES,
    OPTION_BACKOFF,
    OPTION_WHEN,
    OPTION_UNLESS,
    OPTION_ON_ERROR,
    OPTION_EACH,
    OPTION_CONCURRENCY,
    OPTION_AFTER,
    OPTION_COUNT
};

static const char *const option_names[OPTION_COUNT] = {
    "name",    "call",       "args", "needs",  "version",  "cluster", "on",          "timeout_ms",
    "retries", "backoff_ms", "when", "unless", "on_error", "each",    "concurrency", "after"};

enum key { KEY_NAME, KEY_INPUT, KEY_TIMEOUT, KEY_STEPS, KEY_OUTPUT, KEY_TRACE, KEY_COUNT };

static const char *const key_names[KEY_COUNT] = {"name",  "input",  "timeout_ms",
                                                 "steps", "output", "trace"};

static enum mp_err fault(struct mp_graph *g, uint32_t at, const char *reason, const char *text,
                         struct mp_slice about)
{
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, text, about);
    return o.err != MP_OK ? o.err : mp_graph_fault_add(g, at, reason);
}

static enum mp_err bad_option(struct mp_graph *g, uint32_t at, const char *name, const char *what)
{
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "`%t` must be %t", name, what);
    return o.err != MP_OK ? o.err : mp_graph_fault_add(g, at, "BAD_OPTION");
}

static enum mp_err unknown_option(struct mp_graph *g, uint32_t at, struct mp_slice name,
                                  const char *const *known, uint32_t count, const char *where)
{
    struct mp_slice best = {0};
    unsigned distance = 4;
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "%t has no option `%s`", where, name);
    for (uint32_t i = 0; i < count; i++)
        mp_graph_guess(g, name, mp_slice_str(known[i]), &best, &distance);
    enum mp_err err = o.err != MP_OK ? o.err : mp_graph_hint(g, best);
    return err != MP_OK ? err : mp_graph_fault_add(g, at, "UNKNOWN_OPTION");
}

static uint32_t find_option(struct mp_slice name, const char *const *known, uint32_t count)
{
    uint32_t k = 0;
    /* The first letter spares most comparisons. */
    while (k < count &&
           !(name.size != 0 && known[k][0] == (char)name.data[0] && mp_slice_is(name, known[k])))
        k++;
    return k;
}

/* Sorts a map's values by their keys into `values`, empty slices where there is none. */
static enum mp_err read_options(struct mp_graph *g, uint32_t at, struct mp_slice map,
                                const char *const *known, uint32_t known_count, const char *where,
                                struct mp_slice *values)
{
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_mp_get_map(map, &count, &r);
    mp_assert(err == MP_OK);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice key;
        struct mp_slice value;
        struct mp_slice name = mp_slice_str("(no string)");
        bool is_well_formed = mp_mp_take(&r, &key) == MP_OK && mp_mp_take(&r, &value) == MP_OK;
        mp_assert(is_well_formed);
        uint32_t k = mp_mp_get_str(key, &name) == MP_OK ? find_option(name, known, known_count)
                                                        : known_count;
        if (k == known_count)
            err = unknown_option(g, at, name, known, known_count, where);
        else if (values[k].size != 0)
            err = fault(g, at, "BAD_OPTION", "`%s` is given twice", name);
        else
            values[k] = value;
    }
    return err;
}

/* A list; an empty map is an empty one. */
static bool is_list(struct mp_slice value, uint32_t *count, struct mp_mp_reader *r)
{
    if (mp_mp_get_array(value, count, r) == MP_OK)
        return true;
    return mp_mp_get_map(value, count, r) == MP_OK && *count == 0;
}

static bool get_duration(struct mp_slice value, double ms_min, uint64_t ms_max, mp_duration *d)
{
    double ms;
    if (mp_mp_get_number(value, &ms) != MP_OK || !(ms >= ms_min && ms <= (double)ms_max))
        return false;
    *d = (mp_duration)(ms * 1e6 + 0.5);
    return true;
}

static bool get_count(struct mp_slice value, int64_t min, int64_t max, uint32_t *count)
{
    int64_t n;
    if (mp_mp_get_int(value, &n) != MP_OK || n < min || n > max)
        return false;
    *count = (uint32_t)n;
    return true;
}

/* --- first pass: names --- */

static enum mp_err load_name(struct mp_graph *g, uint32_t i, struct mp_slice body)
{
    struct mp_slice value;
    struct mp_slice name;
    struct mp_out o = mp_graph_message(g);
    enum mp_err err = mp_mp_map_get(body, mp_slice_str("name"), &value);
    if (err != MP_OK) {
        mp_out_say(&o, err == MP_ETYPE ? "step %u is no map" : "step %u has no name",
                   (uint64_t)(i + 1));
        if (o.err != MP_OK)
            return o.err;
        return mp_graph_fault_add(g, MP_GRAPH_AT_STEP(i),
                                  err == MP_ETYPE ? "BAD_GRAPH" : "BAD_NAME");
    }
    if (mp_mp_get_str(value, &name) != MP_OK || !mp_slice_is_name(name)) {
        mp_out_say(&o, "the name of step %u, `%s`, is none: letters, digits, _ and -, at most 64",
                   (uint64_t)(i + 1),
                   mp_mp_get_str(value, &name) == MP_OK ? name : mp_slice_str("(no string)"));
        return o.err != MP_OK ? o.err : mp_graph_fault_add(g, MP_GRAPH_AT_STEP(i), "BAD_NAME");
    }
    g->steps[i].name = name;
    if (mp_slice_is(name, "input"))
        return fault(g, MP_GRAPH_AT_STEP(i), "BAD_NAME",
                     "`%s` is no name for a step: it is the run's input", name);
    uint32_t first;
    if (!mp_map_get(&g->by_name, name, &first))
        return mp_map_set(&g->by_name, name, i);
    mp_out_say(&o, "step %u and step %u are both called `%s`", (uint64_t)(first + 1),
               (uint64_t)(i + 1), name);
    return o.err != MP_OK ? o.err : mp_graph_fault_add(g, MP_GRAPH_AT_STEP(i), "DUPLICATE_STEP");
}

static enum mp_err load_names(struct mp_graph *g, struct mp_slice list)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (!is_list(list, &count, &r))
        return fault(g, MP_GRAPH_AT_GRAPH, "BAD_GRAPH", "`steps` must be a list",
                     (struct mp_slice){0});
    if (count == 0)
        return fault(g, MP_GRAPH_AT_GRAPH, "EMPTY_GRAPH", "the graph has no steps",
                     (struct mp_slice){0});
    if (count > g->config.steps_max) {
        struct mp_out o = mp_graph_message(g);
        mp_out_say(&o, "the graph has %u steps, the limit is %u", (uint64_t)count,
                   (uint64_t)g->config.steps_max);
        return o.err != MP_OK ? o.err : mp_graph_fault_add(g, MP_GRAPH_AT_GRAPH, "TOO_LARGE");
    }
    g->steps = mp_alloc_take(g->alloc, count * sizeof(*g->steps));
    if (!g->steps)
        return MP_ENOMEM;
    memset(g->steps, 0, count * sizeof(*g->steps));
    g->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice body;
        enum mp_err err = mp_mp_take(&r, &body);
        mp_assert(err == MP_OK);
        g->steps[i].started_at = MP_NEVER;
        g->steps[i].ready_at = MP_NEVER;
        g->steps[i].result = body; /* until the second pass */
        err = load_name(g, i, body);
        if (err != MP_OK)
            return err;
    }
    g->dependents = mp_graph_grow(g, NULL, &g->dependents_capacity, sizeof(uint32_t), count);
    if (!g->dependents)
        return MP_ENOMEM;
    memset(g->dependents, 0xff, (size_t)g->dependents_capacity * sizeof(uint32_t));
    return MP_OK;
}

/* --- second pass --- */

static enum mp_err load_call(struct mp_graph *g, uint32_t i, struct mp_slice value)
{
    struct mp_slice fun;
    uint32_t at = MP_GRAPH_AT_STEP(i);
    if (value.size == 0)
        return fault(g, at, "BAD_OPTION", "`call` is missing: the function, module.function",
                     (struct mp_slice){0});
    if (mp_mp_get_str(value, &fun) != MP_OK)
        return bad_option(g, at, "call", "a string, module.function");
    if (fun.size > MP_FUNCTION_BYTES_MAX || !mp_slice_is_dotted_name(fun))
        return fault(g, at, "BAD_NAME", "`%s` is no name of a function, module.function", fun);
    g->steps[i].fun = fun;
    return MP_OK;
}

static enum mp_err load_needs(struct mp_graph *g, uint32_t i, struct mp_slice value)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_graph_step_record *s = &g->steps[i];
    if (!is_list(value, &count, &r) || count > MP_NEEDS_MAX)
        return bad_option(g, MP_GRAPH_AT_STEP(i), "needs", "a list of at most 32 resources");
    struct mp_slice *needs =
        mp_graph_grow(g, g->needs, &g->needs_capacity, sizeof(*needs), g->needs_count + count + 1);
    if (!needs)
        return MP_ENOMEM;
    g->needs = needs;
    s->needs = (struct mp_graph_range){.first = g->needs_count};
    for (uint32_t k = 0; k < count; k++) {
        struct mp_slice one;
        struct mp_slice name;
        enum mp_err err = mp_mp_take(&r, &one);
        mp_assert(err == MP_OK);
        if (mp_mp_get_str(one, &name) != MP_OK)
            return bad_option(g, MP_GRAPH_AT_STEP(i), "needs", "a list of strings");
        if (!mp_slice_is_name(name))
            return fault(g, MP_GRAPH_AT_STEP(i), "BAD_NAME", "`%s` is no name of a resource", name);
        needs[g->needs_count++] = name;
        s->needs.count++;
    }
    return MP_OK;
}

static enum mp_err load_text(struct mp_graph *g, uint32_t i, enum option option,
                             struct mp_slice value, bool is_name, struct mp_slice *text)
{
    struct mp_slice found;
    if (value.size == 0)
        return MP_OK;
    if (mp_mp_get_str(value, &found) != MP_OK || found.size == 0)
        return bad_option(g, MP_GRAPH_AT_STEP(i), option_names[option], "a string");
    if (is_name && !mp_slice_is_name(found))
        return fault(g, MP_GRAPH_AT_STEP(i), "BAD_NAME",
                     option == OPTION_ON ? "`%s` is no name of a node"
                                         : "`%s` is no name of a cluster",
                     found);
    *text = found;
    return MP_OK;
}

static enum mp_err load_numbers(struct mp_graph *g, uint32_t i, const struct mp_slice *values)
{
    struct mp_graph_step_record *s = &g->steps[i];
    uint32_t at = MP_GRAPH_AT_STEP(i);
    enum mp_err err = MP_OK;
    s->backoff = MP_MS(MP_BACKOFF_MS);
    if (values[OPTION_TIMEOUT].size != 0 &&
        !get_duration(values[OPTION_TIMEOUT], 0.001, MP_TIMEOUT_MS_MAX, &s->timeout))
        err = bad_option(g, at, "timeout_ms", "a number over 0, in milliseconds, at most a year");
    if (err == MP_OK && values[OPTION_RETRIES].size != 0 &&
        !get_count(values[OPTION_RETRIES], 0, MP_RETRIES_MAX, &s->retries))
        err = bad_option(g, at, "retries", "a whole number from 0 to 1000");
    if (err == MP_OK && values[OPTION_BACKOFF].size != 0 &&
        !get_duration(values[OPTION_BACKOFF], 0, MP_BACKOFF_MS_MAX, &s->backoff))
        err = bad_option(g, at, "backoff_ms", "a number from 0 to 30000, in milliseconds");
    if (err != MP_OK || values[OPTION_CONCURRENCY].size == 0)
        return err;
    if (!get_count(values[OPTION_CONCURRENCY], 1, MP_GRAPH_EACH_MAX, &s->concurrency))
        return bad_option(g, at, "concurrency", "a whole number from 1 to 1000000");
    if (!s->has_each)
        return fault(g, at, "BAD_OPTION", "`concurrency` is for a step with `each`",
                     (struct mp_slice){0});
    return MP_OK;
}

static enum mp_err load_on_error(struct mp_graph *g, uint32_t i, struct mp_slice value)
{
    struct mp_graph_step_record *s = &g->steps[i];
    struct mp_slice text;
    struct mp_slice fallback;
    uint32_t count;
    struct mp_mp_reader r;
    if (value.size == 0)
        return MP_OK;
    if (mp_mp_get_str(value, &text) == MP_OK && mp_slice_is(text, "fail"))
        return MP_OK;
    if (mp_mp_get_str(value, &text) == MP_OK && mp_slice_is(text, "skip")) {
        s->on_error = MP_GRAPH_ON_ERROR_SKIP;
        return MP_OK;
    }
    if (mp_mp_get_map(value, &count, &r) != MP_OK || count != 1 ||
        mp_mp_map_get(value, mp_slice_str("default"), &fallback) != MP_OK)
        return bad_option(g, MP_GRAPH_AT_STEP(i), "on_error",
                          "\"fail\", \"skip\" or {\"default\": value}");
    s->on_error = MP_GRAPH_ON_ERROR_DEFAULT;
    return mp_graph_template_compile(g, MP_GRAPH_AT_STEP(i), MP_GRAPH_PLACE_DATA, fallback,
                                     &s->on_error_value);
}

static enum mp_err load_after_name(struct mp_graph *g, uint32_t i, struct mp_slice name)
{
    struct mp_graph_step_record *s = &g->steps[i];
    uint32_t target;
    struct mp_slice best = {0};
    unsigned distance = 4;
    if (!mp_map_get(&g->by_name, name, &target)) {
        struct mp_out o = mp_graph_message(g);
        mp_out_say(&o, "`after` names the step `%s`, which is not there", name);
        for (uint32_t k = 0; k < g->count && g->guesses_left != 0; k++)
            mp_graph_guess(g, name, g->steps[k].name, &best, &distance);
        enum mp_err err = o.err != MP_OK ? o.err : mp_graph_hint(g, best);
        return err != MP_OK ? err : mp_graph_fault_add(g, MP_GRAPH_AT_STEP(i), "UNKNOWN_STEP");
    }
    if (target == i)
        return fault(g, MP_GRAPH_AT_STEP(i), "SELF_REFERENCE", "the step `%s` is after itself",
                     s->name);
    return mp_graph_order_add(g, i, target, 0);
}

static enum mp_err load_after(struct mp_graph *g, uint32_t i, struct mp_slice value)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (value.size == 0)
        return MP_OK;
    if (!is_list(value, &count, &r))
        return bad_option(g, MP_GRAPH_AT_STEP(i), "after", "a list of steps");
    enum mp_err err = MP_OK;
    for (uint32_t k = 0; err == MP_OK && k < count; k++) {
        struct mp_slice one;
        struct mp_slice name;
        bool is_well_formed = mp_mp_take(&r, &one) == MP_OK;
        mp_assert(is_well_formed);
        if (mp_mp_get_str(one, &name) != MP_OK)
            return bad_option(g, MP_GRAPH_AT_STEP(i), "after", "a list of strings");
        err = load_after_name(g, i, name);
    }
    return err;
}

static enum mp_err load_condition(struct mp_graph *g, uint32_t i, enum option option,
                                  struct mp_slice value, struct mp_graph_range *range)
{
    if (value.size == 0)
        return MP_OK;
    if (!mp_graph_template_is_ref(value))
        return bad_option(g, MP_GRAPH_AT_STEP(i), option_names[option],
                          "a reference, {\"$ref\": \"step.path\"}");
    return mp_graph_template_compile(g, MP_GRAPH_AT_STEP(i), MP_GRAPH_PLACE_VALUE, value, range);
}

/* A literal that can be no list is told now, not when the run has come so far. */
static enum mp_err load_each(struct mp_graph *g, uint32_t i, struct mp_slice value)
{
    struct mp_graph_step_record *s = &g->steps[i];
    uint32_t count;
    struct mp_mp_reader r;
    if (value.size == 0)
        return MP_OK;
    s->has_each = true;
    if (mp_mp_type_of(value) != MP_MP_MAP && !is_list(value, &count, &r))
        return bad_option(g, MP_GRAPH_AT_STEP(i), "each", "a list or a reference to one");
    return mp_graph_template_compile(g, MP_GRAPH_AT_STEP(i), MP_GRAPH_PLACE_VALUE, value, &s->each);
}

static enum mp_err load_args(struct mp_graph *g, uint32_t i, struct mp_slice value)
{
    static const uint8_t none = 0x90;
    struct mp_graph_step_record *s = &g->steps[i];
    uint32_t count;
    struct mp_mp_reader r;
    if (value.size == 0 || (mp_mp_get_map(value, &count, &r) == MP_OK && count == 0))
        value = mp_slice_of(&none, 1);
    if (mp_mp_get_array(value, &count, &r) != MP_OK)
        return bad_option(g, MP_GRAPH_AT_STEP(i), "args", "a list");
    return mp_graph_template_compile(g, MP_GRAPH_AT_STEP(i),
                                     s->has_each ? MP_GRAPH_PLACE_EACH_ARGS : MP_GRAPH_PLACE_ARGS,
                                     value, &s->args);
}

static enum mp_err load_step(struct mp_graph *g, uint32_t i)
{
    struct mp_graph_step_record *s = &g->steps[i];
    struct mp_slice body = s->result;
    struct mp_slice v[OPTION_COUNT] = {{0}};
    s->result = (struct mp_slice){0};
    s->deps.first = g->edges_count;
    if (mp_mp_type_of(body) != MP_MP_MAP)
        return MP_OK;
    enum mp_err err =
        read_options(g, MP_GRAPH_AT_STEP(i), body, option_names, OPTION_COUNT, "a step", v);
    if (err == MP_OK)
        err = load_call(g, i, v[OPTION_CALL]);
    if (err == MP_OK)
        err = load_each(g, i, v[OPTION_EACH]);
    if (err == MP_OK)
        err = load_args(g, i, v[OPTION_ARGS]);
    if (err == MP_OK)
        err = load_condition(g, i, OPTION_WHEN, v[OPTION_WHEN], &s->when);
    if (err == MP_OK)
        err = load_condition(g, i, OPTION_UNLESS, v[OPTION_UNLESS], &s->unless);
    if (err == MP_OK)
        err = load_after(g, i, v[OPTION_AFTER]);
    if (err == MP_OK && v[OPTION_NEEDS].size != 0)
        err = load_needs(g, i, v[OPTION_NEEDS]);
    if (err == MP_OK)
        err = load_text(g, i, OPTION_VERSION, v[OPTION_VERSION], false, &s->version_wanted);
    if (err == MP_OK)
        err = load_text(g, i, OPTION_ON, v[OPTION_ON], true, &s->on);
    if (err == MP_OK)
        err = load_text(g, i, OPTION_CLUSTER, v[OPTION_CLUSTER], true, &s->cluster);
    if (err == MP_OK)
        err = load_numbers(g, i, v);
    return err == MP_OK ? load_on_error(g, i, v[OPTION_ON_ERROR]) : err;
}

/* --- the graph itself --- */

static enum mp_err load_head(struct mp_graph *g, const struct mp_slice *v)
{
    bool has_trace;
    enum mp_err err = MP_OK;
    if (v[KEY_NAME].size != 0 &&
        (mp_mp_get_str(v[KEY_NAME], &g->name) != MP_OK || g->name.size > MP_GRAPH_NAME_BYTES_MAX)) {
        g->name = (struct mp_slice){0};
        err = bad_option(g, MP_GRAPH_AT_GRAPH, "name", "a string of at most 256 bytes");
    }
    if (err == MP_OK && v[KEY_TIMEOUT].size != 0 &&
        !get_duration(v[KEY_TIMEOUT], 0.001, MP_TIMEOUT_MS_MAX, &g->timeout))
        err = bad_option(g, MP_GRAPH_AT_GRAPH, "timeout_ms",
                         "a number over 0, in milliseconds, at most a year");
    if (err == MP_OK && v[KEY_TRACE].size != 0) {
        if (mp_mp_get_bool(v[KEY_TRACE], &has_trace) != MP_OK)
            err = bad_option(g, MP_GRAPH_AT_GRAPH, "trace", "true or false");
        else
            g->config.has_trace |= has_trace;
    }
    return err;
}

/* The graph's own input is data, in which $lit is undone; one given for the run replaces it. */
static enum mp_err load_input(struct mp_graph *g, struct mp_slice own, struct mp_slice given)
{
    static const uint8_t nil = 0xc0;
    struct mp_graph_range range;
    g->input = given.size != 0 ? given : mp_slice_of(&nil, 1);
    if (own.size == 0)
        return MP_OK;
    enum mp_err err =
        mp_graph_template_compile(g, MP_GRAPH_AT_GRAPH, MP_GRAPH_PLACE_DATA, own, &range);
    if (err != MP_OK || given.size != 0)
        return err;
    struct mp_graph_pieces pieces = mp_graph_pieces_of(&g->pieces, range);
    struct mp_graph_miss miss;
    err = mp_graph_template_join(g, &pieces, (struct mp_slice){0}, 0, SIZE_MAX, &g->input_bytes,
                                 &miss);
    mp_assert(err == MP_OK || err == MP_ENOMEM);
    if (err == MP_OK && g->input_bytes.size != 0)
        g->input = mp_buf_slice(&g->input_bytes);
    return err;
}

static enum mp_err load_all(struct mp_graph *g, struct mp_slice graph, struct mp_slice input)
{
    struct mp_slice v[KEY_COUNT] = {{0}};
    enum mp_err err = read_options(g, MP_GRAPH_AT_GRAPH, graph, key_names, KEY_COUNT, "a graph", v);
    if (err == MP_OK)
        err = load_head(g, v);
    if (err == MP_OK)
        err = load_input(g, v[KEY_INPUT], input);
    if (err == MP_OK && v[KEY_STEPS].size == 0)
        err = fault(g, MP_GRAPH_AT_GRAPH, "EMPTY_GRAPH", "the graph has no `steps`",
                    (struct mp_slice){0});
    else if (err == MP_OK)
        err = load_names(g, v[KEY_STEPS]);
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++)
        err = load_step(g, i);
    if (err == MP_OK && v[KEY_OUTPUT].size != 0) {
        g->has_output = true;
        err = mp_graph_template_compile(g, MP_GRAPH_AT_OUTPUT, MP_GRAPH_PLACE_OUTPUT, v[KEY_OUTPUT],
                                        &g->output);
    }
    if (err == MP_OK)
        err = mp_graph_order_all(g);
    for (uint32_t i = 0; i < g->count && !g->has_output; i++)
        g->steps[i].is_output_needed = g->steps[i].is_output_strict = !g->steps[i].is_referred;
    return err;
}

enum mp_err mp_graph_load(struct mp_graph *g, struct mp_slice graph, struct mp_slice input)
{
    g->guesses_left = MP_GRAPH_GUESSES_MAX;
    g->defaults_left = MP_GRAPH_DEFAULTS_BYTES + 8 * (uint64_t)graph.size;
    enum mp_err err = mp_graph_depth_check(graph, MP_DEPTH_MAX);
    if (err == MP_EDEPTH)
        return fault(g, MP_GRAPH_AT_GRAPH, "BAD_GRAPH", "the graph is nested too deep",
                     (struct mp_slice){0});
    if (err != MP_OK || (input.size != 0 && mp_graph_depth_check(input, MP_DEPTH_MAX) != MP_OK))
        return fault(g, MP_GRAPH_AT_GRAPH, "BAD_GRAPH",
                     "the graph or its input is not one well-formed value, or nested too deep",
                     (struct mp_slice){0});
    if (mp_mp_type_of(graph) != MP_MP_MAP)
        return fault(g, MP_GRAPH_AT_GRAPH, "BAD_GRAPH", "a graph is a map with `steps`",
                     (struct mp_slice){0});
    return load_all(g, graph, input);
}
