/* Faults, of two kinds. Those of a graph that fails its check are collected, all of them, and told
 * together in the order of the steps, a step's own before what the resolver said about it. Those of
 * a running step are made one at a time. Messages are written into g->message first. */
#include "src/core/graph/graph_internal.h"

struct mp_out mp_graph_message(struct mp_graph *g)
{
    mp_buf_clear(&g->message);
    mp_buf_clear(&g->hint);
    return mp_out_of(&g->message);
}

void mp_graph_guess(struct mp_graph *g, struct mp_slice wanted, struct mp_slice candidate,
                    struct mp_slice *best, unsigned *distance)
{
    size_t longer = wanted.size > candidate.size ? wanted.size : candidate.size;
    size_t shorter = wanted.size + candidate.size - longer;
    if (g->guesses_left == 0 || longer - shorter >= *distance)
        return;
    g->guesses_left--;
    unsigned d = mp_slice_distance(wanted, candidate);
    if (d < *distance && d < longer) {
        *distance = d;
        *best = candidate;
    }
}

enum mp_err mp_graph_hint(struct mp_graph *g, struct mp_slice best)
{
    if (best.size == 0)
        return MP_OK;
    mp_buf_clear(&g->hint);
    struct mp_out o = mp_out_of(&g->hint);
    mp_out_say(&o, "did you mean %s?", best);
    return o.err;
}

static struct mp_slice step_name(const struct mp_graph *g, uint32_t step)
{
    return step < g->count ? g->steps[step].name : (struct mp_slice){0};
}

static enum mp_err fault_store(struct mp_graph *g, uint32_t at, bool is_resolver,
                               const struct mp_fault *f)
{
    if (g->faults_count >= 2 * MP_GRAPH_FAULTS_MAX) {
        g->faults_dropped++;
        return MP_OK;
    }
    struct mp_graph_fault_entry *faults =
        mp_graph_grow(g, g->faults, &g->faults_capacity, sizeof(*faults), g->faults_count + 1);
    if (!faults)
        return MP_ENOMEM;
    g->faults = faults;
    size_t before = g->fault_bytes.size;
    enum mp_err err = mp_fault_put(&g->fault_bytes, f);
    if (err != MP_OK)
        return err;
    /* Kept sorted: faults come nearly in order, so this moves little. */
    uint32_t i = g->faults_count++;
    while (i > 0 && (faults[i - 1].step > at ||
                     (faults[i - 1].step == at && faults[i - 1].is_resolver && !is_resolver))) {
        faults[i] = faults[i - 1];
        i--;
    }
    faults[i] = (struct mp_graph_fault_entry){.step = at,
                                              .is_resolver = is_resolver,
                                              .offset = before,
                                              .size = g->fault_bytes.size - before};
    return MP_OK;
}

enum mp_err mp_graph_fault_add(struct mp_graph *g, uint32_t at, const char *reason)
{
    struct mp_fault f = {.code = MP_CODE_INVALID_ARGUMENT,
                         .reason = mp_slice_str(reason),
                         .message = mp_buf_slice(&g->message),
                         .hint = mp_buf_slice(&g->hint)};
    if (at != MP_GRAPH_AT_GRAPH && at != MP_GRAPH_AT_OUTPUT) {
        f.step = step_name(g, at - 1);
        if (at - 1 < g->count)
            g->steps[at - 1].has_fault = true;
    }
    return fault_store(g, at, false, &f);
}

enum mp_err mp_graph_fault_add_resolver(struct mp_graph *g, uint32_t step, const struct mp_fault *f)
{
    struct mp_fault own = *f;
    own.step = step_name(g, step);
    if (own.fun.size == 0)
        own.fun = g->steps[step].fun;
    return fault_store(g, MP_GRAPH_AT_STEP(step), true, &own);
}

void mp_graph_fault_drop_resolver(struct mp_graph *g, uint32_t step)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->faults_count; i++)
        if (!g->faults[i].is_resolver || g->faults[i].step != MP_GRAPH_AT_STEP(step))
            g->faults[kept++] = g->faults[i];
    g->faults_count = kept;
}

enum mp_err mp_graph_fault_put_all(struct mp_graph *g, struct mp_buf *out)
{
    mp_assert(g->faults_count != 0);
    struct mp_buf list;
    mp_buf_init(&list, g->alloc, 0);
    uint32_t count = g->faults_count < MP_GRAPH_FAULTS_MAX ? g->faults_count : MP_GRAPH_FAULTS_MAX;
    enum mp_err err = mp_mp_put_array(&list, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++)
        err = mp_buf_append(
            &list, mp_slice_of(g->fault_bytes.data + g->faults[i].offset, g->faults[i].size));
    struct mp_fault first;
    if (err == MP_OK)
        err = mp_fault_read(
            mp_slice_of(g->fault_bytes.data + g->faults[0].offset, g->faults[0].size), &first);
    if (err == MP_OK) {
        first.faults = mp_buf_slice(&list);
        err = mp_fault_put(out, &first);
    }
    mp_buf_fini(&list);
    return err;
}

enum mp_err mp_graph_make_error(struct mp_graph *g, enum mp_code code, const char *reason,
                                uint32_t step, uint32_t index, struct mp_slice *error)
{
    struct mp_fault f = {.code = code,
                         .reason = mp_slice_str(reason),
                         .message = mp_buf_slice(&g->message),
                         .hint = mp_buf_slice(&g->hint),
                         .step = step_name(g, step),
                         .index = index};
    if (step < g->count)
        f.fun = g->steps[step].fun;
    mp_buf_clear(&g->fault);
    enum mp_err err = mp_fault_put(&g->fault, &f);
    if (err == MP_OK)
        *error = mp_buf_slice(&g->fault);
    return err;
}

/* The name of the piece of a path that is missing, without its dot or brackets. */
static struct mp_slice missing_key(struct mp_slice path, size_t at)
{
    size_t end = at;
    if (at < path.size && path.data[at] == '.')
        at = ++end;
    if (end < path.size && path.data[end] == '[')
        return (struct mp_slice){0};
    while (end < path.size && path.data[end] != '.' && path.data[end] != '[')
        end++;
    return mp_slice_of(path.data + at, end - at);
}

/* Without `g` nothing is suggested. */
static void say_keys(struct mp_graph *g, struct mp_out *o, struct mp_slice map,
                     struct mp_slice wanted)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice best = {0};
    unsigned distance = 3;
    if (mp_mp_get_map(map, &count, &r) != MP_OK)
        return;
    mp_out_say(o, count == 0 ? "; there are no keys" : "; the keys there: ");
    for (uint32_t i = 0; i < count && i < MP_GRAPH_KEYS_SHOWN_MAX; i++) {
        struct mp_slice key;
        struct mp_slice text;
        if (mp_mp_take(&r, &key) != MP_OK || mp_mp_skip(&r) != MP_OK)
            break;
        if (mp_mp_get_str(key, &text) != MP_OK)
            text = mp_slice_str("?");
        mp_out_say(o, i == 0 ? "%s" : ", %s", text);
        if (g)
            mp_graph_guess(g, wanted, text, &best, &distance);
    }
    if (count > MP_GRAPH_KEYS_SHOWN_MAX)
        mp_out_say(o, " and %u more", (uint64_t)(count - MP_GRAPH_KEYS_SHOWN_MAX));
    if (g && o->err == MP_OK)
        o->err = mp_graph_hint(g, best);
}

static void say_what_is_there(struct mp_graph *g, struct mp_out *o,
                              const struct mp_graph_miss *miss)
{
    static const char *const names[] = {
        [MP_MP_NIL] = "null",       [MP_MP_BOOL] = "a boolean",
        [MP_MP_UINT] = "a number",  [MP_MP_INT] = "a number",
        [MP_MP_FLOAT] = "a number", [MP_MP_STR] = "a string",
        [MP_MP_BIN] = "bytes",      [MP_MP_ARRAY] = "a list",
        [MP_MP_MAP] = "a map",      [MP_MP_EXT] = "a value without fields"};
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice key = missing_key(miss->path, miss->path_at);
    enum mp_mp_type type = miss->inside.size != 0 ? mp_mp_type_of(miss->inside) : MP_MP_NIL;
    if (type == MP_MP_MAP && key.size == 0 && miss->path.data[miss->path_at] == '[' &&
        miss->path.data[miss->path_at + 1] != '"')
        mp_out_say(o, "; there is a map, not a list");
    if (type == MP_MP_MAP)
        say_keys(g, o, miss->inside, key);
    else if (mp_mp_get_array(miss->inside, &count, &r) == MP_OK)
        mp_out_say(o, "; there is a list of %u", (uint64_t)count);
    else
        mp_out_say(o, "; there is %t", names[type]);
}

static void say_missing(struct mp_graph *g, struct mp_out *o, struct mp_slice base, bool is_bare,
                        const struct mp_graph_miss *miss)
{
    struct mp_slice parent = mp_slice_of(miss->path.data, miss->path_at);
    mp_out_say(o, is_bare ? "%s.%s is missing" : "%s%s is missing", base, miss->path);
    if (parent.size != 0)
        mp_out_say(o, is_bare ? " in %s.%s" : " in %s%s", base, parent);
    say_what_is_there(g, o, miss);
}

enum mp_err mp_graph_cut(struct mp_slice value, struct mp_slice path, struct mp_slice *found,
                         struct mp_buf *message)
{
    struct mp_graph_miss miss = {.path = path};
    mp_buf_clear(message);
    if (!mp_graph_path_is_valid(path, false))
        return MP_EINVAL;
    enum mp_err err = mp_graph_path_walk(value, path, found, &miss.path_at, &miss.inside);
    if (err != MP_ENOENT)
        return err;
    struct mp_out o = mp_out_of(message);
    say_missing(NULL, &o, (struct mp_slice){0}, false, &miss);
    return o.err != MP_OK ? o.err : MP_ENOENT;
}

enum mp_err mp_graph_make_missing(struct mp_graph *g, const struct mp_graph_miss *miss,
                                  uint32_t step, uint32_t index, struct mp_slice *error)
{
    struct mp_slice base = miss->step == MP_GRAPH_NONE    ? mp_slice_str("$item")
                           : miss->step == MP_GRAPH_INPUT ? mp_slice_str("input")
                                                          : step_name(g, miss->step);
    bool is_bare = miss->step == MP_GRAPH_NONE && miss->path.size != 0 && miss->path.data[0] != '[';
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, step == MP_GRAPH_NONE ? "output: " : "");
    say_missing(g, &o, base, is_bare, miss);
    if (o.err != MP_OK)
        return o.err;
    return mp_graph_make_error(g, MP_CODE_INVALID_ARGUMENT, "MISSING_FIELD", step, index, error);
}
