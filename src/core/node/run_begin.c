/* How a run begins: what it runs is found, the graph machine is made, and what an earlier run had
 * already is put into it.
 *
 * A run's id is a ULID (github.com/ulid/spec): 48 bits of Unix milliseconds and 80 random ones, of
 * which the first 32 are a hash of the coordinator's name; so any node knows whom to ask about it,
 * also after a restart. Written in Crockford's base 32. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/runs_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

/* --- ids --- */

#define IDENTITY_SEED 0x72756e73u /* another table than any other hash of names */
#define ID_BYTES      16u

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

uint32_t mp_node_run_identity(struct mp_slice node)
{
    return (uint32_t)mp_slice_hash(node, IDENTITY_SEED);
}

void mp_node_run_id_make(struct mp_node *n, int64_t wall_ms, char out[MP_RUN_ID_BYTES + 1])
{
    uint8_t bytes[ID_BYTES];
    uint64_t random = mp_rng_next(&n->rng);
    for (int i = 0; i < 6; i++)
        bytes[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
    for (int i = 0; i < 4; i++)
        bytes[6 + i] = (uint8_t)(n->identity >> (24 - 8 * i));
    for (int i = 0; i < 6; i++)
        bytes[10 + i] = (uint8_t)(random >> (8 * i));
    /* 128 bits as 26 digits of 5: the first digit holds the top 3. */
    unsigned bit = 0;
    for (unsigned i = 0; i < MP_RUN_ID_BYTES; i++) {
        unsigned take = i == 0 ? 3 : 5;
        unsigned value = 0;
        for (unsigned k = 0; k < take; k++, bit++)
            value = value << 1 | (bytes[bit / 8] >> (7 - bit % 8) & 1u);
        out[i] = digits[value];
    }
    out[MP_RUN_ID_BYTES] = '\0';
}

bool mp_node_run_id_read(struct mp_slice text, char out[MP_RUN_ID_BYTES + 1], uint32_t *identity)
{
    uint8_t bytes[ID_BYTES] = {0};
    unsigned bit = 0;
    if (text.size != MP_RUN_ID_BYTES)
        return false;
    for (unsigned i = 0; i < MP_RUN_ID_BYTES; i++) {
        char c = (char)text.data[i];
        unsigned value = 0;
        if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        while (value < 32 && digits[value] != c)
            value++;
        if (value == 32 || (i == 0 && value > 7))
            return false;
        out[i] = c;
        unsigned take = i == 0 ? 3 : 5;
        for (unsigned k = 0; k < take; k++, bit++)
            bytes[bit / 8] |= (uint8_t)((value >> (take - 1 - k) & 1u) << (7 - bit % 8));
    }
    out[MP_RUN_ID_BYTES] = '\0';
    *identity =
        (uint32_t)bytes[6] << 24 | (uint32_t)bytes[7] << 16 | (uint32_t)bytes[8] << 8 | bytes[9];
    return true;
}

/* --- what is run --- */

/* Whoever asked for a run, and how. */
struct asked {
    uint64_t client;
    uint64_t id;
    int64_t wall_ms;
    const struct mp_run_options *options;
    struct mp_slice graph;
    struct mp_slice input;    /* empty: the graph's own */
    struct mp_slice pipeline; /* its name; empty: the graph came with the request */
    struct mp_slice resumed_from;
    bool is_plan;
};

static void refuse(struct mp_node *n, const struct asked *a, enum mp_code code, const char *reason,
                   const char *message)
{
    mp_node_refuse(n, a->client, a->id, code, reason, message);
}

/* The graph of the pipeline that is live here. False: refused. */
static bool find_pipeline(struct mp_node *n, struct asked *a)
{
    char message_bytes[256];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    uint32_t pin = mp_node_release_pin(n, n->release, a->pipeline, true);
    if (mp_catalog_pipeline(&n->catalog, a->pipeline, pin, &a->graph, &fault, &message, &hint))
        return true;
    fault.node = n->catalog.node;
    mp_node_reply(n, a->client, a->id, MP_FRAME_ERROR, mp_node_error(n, &fault));
    return false;
}

static bool has_key(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    return mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK;
}

/* What a RUN's payload asks for, in one pass over it: a graph has no such keys, and is the rule. */
enum form { FORM_MALFORMED, FORM_GRAPH, FORM_PIPELINE, FORM_RESUME };

static enum form form_of(struct mp_slice payload)
{
    uint32_t pairs;
    struct mp_mp_reader r;
    enum form form = FORM_GRAPH;
    if (mp_mp_check(payload) != MP_OK)
        return FORM_MALFORMED;
    if (mp_mp_get_map(payload, &pairs, &r) != MP_OK)
        return FORM_GRAPH;
    for (uint32_t i = 0; i < pairs; i++) {
        struct mp_slice key;
        struct mp_slice text;
        if (mp_mp_take(&r, &key) != MP_OK || mp_mp_get_str(key, &text) != MP_OK)
            return FORM_GRAPH;
        if (mp_slice_is(text, "steps"))
            return FORM_GRAPH;
        if (mp_slice_is(text, "pipeline") || mp_slice_is(text, "resume"))
            form = mp_slice_is(text, "resume") ? FORM_RESUME : FORM_PIPELINE;
        if (mp_mp_skip(&r) != MP_OK)
            return FORM_MALFORMED;
    }
    return form;
}

/* The graph and the input that a RUN's payload names: itself, or a pipeline's. False: refused. */
static bool find_graph(struct mp_node *n, struct mp_slice payload, enum form form, struct asked *a)
{
    struct mp_slice value;
    uint32_t pairs;
    struct mp_mp_reader r;
    a->graph = payload;
    if (form == FORM_MALFORMED) {
        refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
               "the graph is no well-formed MessagePack");
        return false;
    }
    if (form != FORM_PIPELINE)
        return true;
    if (mp_mp_get_map(payload, &pairs, &r) == MP_OK &&
        pairs > (has_key(payload, "input") ? 2u : 1u)) {
        refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
               "unknown key beside pipeline (known: input)");
        return false;
    }
    if (mp_mp_map_get(payload, mp_slice_str("pipeline"), &value) != MP_OK ||
        mp_mp_get_str(value, &a->pipeline) != MP_OK) {
        refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", "pipeline: expected a name");
        return false;
    }
    if (!find_pipeline(n, a))
        return false;
    if (mp_mp_map_get(payload, mp_slice_str("input"), &value) == MP_OK)
        a->input = value;
    return true;
}

/* --- the machine --- */

/* Copies what the machine, and the run, borrow as long as they live. */
static bool copy_texts(struct mp_node *n, struct mp_node_run *run, const struct asked *a)
{
    const struct mp_slice parts[] = {a->graph, a->input, a->pipeline, a->resumed_from,
                                     a->options->topic};
    struct mp_slice *const places[] = {&run->graph_bytes, &run->input, &run->pipeline,
                                       &run->resumed_from, &run->topic};
    size_t size = 1;
    for (size_t i = 0; i < MP_ARRAY_SIZE(parts); i++)
        size += parts[i].size;
    uint8_t *bytes = mp_alloc_take(n->alloc, size);
    if (!bytes)
        return false;
    run->own_graph = bytes;
    run->own_graph_size = size;
    for (size_t i = 0; i < MP_ARRAY_SIZE(parts); i++) {
        if (parts[i].size != 0)
            memcpy(bytes, parts[i].data, parts[i].size);
        *places[i] = mp_slice_of(bytes, parts[i].size);
        bytes += parts[i].size;
    }
    return true;
}

static bool init_graph(struct mp_node *n, struct mp_node_run *run, const struct mp_run_options *o)
{
    const struct mp_graph_config cfg = {
        .run_id = mp_slice_str(run->run_id),
        .node = n->catalog.node,
        .resumed_from = run->resumed_from,
        .steps_max = n->cfg.graph_steps_max,
        .value_bytes_max = n->cfg.value_bytes_max,
        .kept_bytes_max = MP_RUN_KEPT_BYTES_MAX,
        .timeout = o->timeout_ms != 0 ? MP_MS(o->timeout_ms) : n->cfg.run_timeout,
        .has_trace = o->has_trace,
        .is_plan = run->is_plan,
    };
    run->graph = (struct mp_graph *)mp_alloc_take(n->alloc, mp_graph_size());
    if (!run->graph)
        return false;
    if (mp_graph_init(run->graph, &cfg, n->alloc, mp_rng_next(&n->rng)) == MP_OK)
        return true;
    mp_alloc_free(n->alloc, run->graph, mp_graph_size());
    run->graph = NULL;
    return false;
}

/* A run with its graph loaded and its steps resolved; NULL: it was answered. */
static struct mp_node_run *begin(struct mp_node *n, mp_time now, const struct asked *a)
{
    struct mp_node_run *run = mp_node_make_room(n) ? mp_node_run_take_place(n) : NULL;
    if (!run) {
        refuse(n, a, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
               "the node has as many runs as it takes at once");
        return NULL;
    }
    uint64_t number = run->number + (1ull << 32);
    *run = (struct mp_node_run){.number = number,
                                .client = a->client,
                                .id = a->id,
                                .release = n->release,
                                .is_plan = a->is_plan,
                                .started_ms = a->wall_ms,
                                .started_at = now,
                                .keep_at = MP_NEVER};
    mp_buf_init(&run->holders, n->alloc, 0);
    mp_buf_init(&run->watches, n->alloc, 0);
    mp_buf_init(&run->receipts, n->alloc, 0);
    mp_buf_init(&run->gathers, n->alloc, 0);
    mp_node_run_id_make(n, a->wall_ms, run->run_id);
    if (!copy_texts(n, run, a) || !init_graph(n, run, a->options)) {
        mp_alloc_free(n->alloc, run->own_graph, run->own_graph_size);
        run->own_graph = NULL;
        refuse(n, a, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
               "the node has no memory for another run");
        return NULL;
    }
    n->run_count++;
    if (!mp_node_run_load(n, now, run))
        return NULL;
    const struct mp_node_watch w = {.client = a->client, .id = a->id, .next = 1, .is_follow = true};
    if (a->options->has_events && !a->options->is_detached && !a->is_plan &&
        !mp_node_watch_add(n, run, &w)) {
        refuse(n, a, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
               "the node has as many watchers of runs as it takes at once");
        run->is_answered = true;
        mp_node_run_end(n, now, run);
        return NULL;
    }
    return run;
}

static void tell_run_id(struct mp_node *n, struct mp_node_run *run)
{
    struct mp_buf b;
    struct mp_slice told = {0};
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_put_map(&b, 1);
    if (err == MP_OK)
        err = mp_mp_put_str_pair(&b, "run_id", mp_slice_str(run->run_id));
    if (err == MP_OK)
        told = mp_node_keep(n, mp_buf_slice(&b));
    mp_node_run_reply(n, run, MP_FRAME_RESULT, told);
    mp_buf_fini(&b);
}

static void start(struct mp_node *n, mp_time now, struct mp_node_run *run, bool is_detached)
{
    const struct mp_graph_event start = {.kind = MP_GRAPH_START};
    uint64_t number = run->number;
    mp_node_run_step(n, now, run, &start);
    run = &n->runs[(uint32_t)number];
    if (!is_detached || run->number != number || !run->graph || run->is_answered)
        return;
    /* What is refused is told at once; only what began is left alone. */
    tell_run_id(n, run);
    run->is_detached = true;
}

static void release_request(struct mp_node *n, const struct mp_node_event *ev)
{
    if (ev->request.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->request.payload;
}

/* Whether the events may go to the topic that was asked for; else it was refused. */
static bool may_publish(struct mp_node *n, const struct asked *a)
{
    char bytes[256];
    struct mp_text why;
    struct mp_slice topic = a->options->topic;
    mp_text_init(&why, bytes, sizeof(bytes));
    if (topic.size == 0)
        return true;
    bool may = mp_topic_name_check(topic, &why) == MP_OK;
    if (may && mp_topic_is_reserved(topic)) {
        may = false;
        mp_text_put(&why, "topics that begin with run. are those of runs");
    }
    if (!may)
        refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_TOPIC", bytes);
    return may;
}

void mp_node_run(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_run_options o;
    const char *why = "";
    enum form form = form_of(ev->request.payload.bytes);
    struct asked a = {.client = ev->request.client,
                      .id = ev->request.id,
                      .wall_ms = ev->request.wall_ms,
                      .options = &o};
    struct mp_node_run *run = NULL;
    if (n->is_draining) {
        refuse(n, &a, MP_CODE_UNAVAILABLE, "DRAINING", "the node is about to stop");
    } else if (mp_run_options_read(ev->request.meta, &o, &why) != MP_OK) {
        refuse(n, &a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", why);
    } else if (!may_publish(n, &a)) {
        ; /* it was refused */
    } else if (form == FORM_RESUME) {
        if (mp_node_run_ask_resume(n, now, ev, &o))
            return; /* it went to another node, payload and all */
    } else if (find_graph(n, ev->request.payload.bytes, form, &a)) {
        run = begin(n, now, &a);
    }
    release_request(n, ev);
    if (run)
        start(n, now, run, o.is_detached);
}

void mp_node_plan(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_run_options o = {0};
    struct asked a = {.client = ev->request.client,
                      .id = ev->request.id,
                      .wall_ms = ev->request.wall_ms,
                      .options = &o,
                      .is_plan = true};
    struct mp_node_run *run = NULL;
    struct mp_slice payload = ev->request.payload.bytes;
    if (find_graph(n, payload, form_of(payload), &a))
        run = begin(n, now, &a);
    if (!run)
        return;
    struct mp_buf plan;
    mp_buf_init(&plan, n->alloc, 0);
    enum mp_err err = mp_graph_put_plan(run->graph, &plan);
    if (err == MP_OK) {
        mp_node_run_reply(n, run, MP_FRAME_RESULT, mp_node_keep(n, mp_buf_slice(&plan)));
        mp_node_run_end(n, now, run);
    } else if (err == MP_EINVAL) {
        const struct mp_graph_event start = {.kind = MP_GRAPH_START};
        mp_node_run_step(n, now, run, &start); /* it has faults, so this refuses */
    } else {
        mp_node_run_out_of_memory(n, now, run);
    }
    mp_buf_fini(&plan);
}

/* --- resuming --- */

/* The step of an array of steps that has this name; `near` is where it probably stands. */
static bool step_named(struct mp_slice steps, struct mp_slice name, struct mp_mp_reader *near,
                       struct mp_slice *step)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (!mp_mp_is_at_end(near) && mp_mp_take(near, step) == MP_OK &&
        mp_slice_equal(mp_node_text_of(*step, "name"), name))
        return true;
    if (mp_mp_get_array(steps, &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (mp_mp_take(&r, step) != MP_OK)
            return false;
        else if (mp_slice_equal(mp_node_text_of(*step, "name"), name))
            return true;
    return false;
}

/* What became different in a step, or NULL. */
static const char *difference(struct mp_slice before, struct mp_slice after)
{
    bool is_each = false;
    if (!mp_slice_equal(mp_node_text_of(before, "call"), mp_node_text_of(after, "call")))
        return " calls another function now";
    if (!mp_slice_equal(mp_node_value_of(before, "depends_on"),
                        mp_node_value_of(after, "depends_on")))
        return " depends on other steps now";
    if (mp_mp_get_bool(mp_node_value_of(after, "each"), &is_each) != MP_OK)
        is_each = false;
    if (mp_slice_is(mp_node_text_of(before, "status"), "succeeded") &&
        has_key(before, "items") != is_each)
        return is_each ? " is made for each element of a list now" : " is one call now";
    return NULL;
}

/* Whether the graph asks for the same as when the earlier run began; else `why` names a step. */
static bool is_same_shape(struct mp_slice before, struct mp_slice after, struct mp_text *why)
{
    uint32_t count_before;
    uint32_t count_after;
    struct mp_mp_reader r;
    struct mp_mp_reader near;
    struct mp_slice step;
    struct mp_slice other;
    if (mp_mp_get_array(before, &count_before, &near) != MP_OK ||
        mp_mp_get_array(after, &count_after, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count_after; i++) {
        if (mp_mp_take(&r, &step) != MP_OK)
            return false;
        struct mp_slice name = mp_node_text_of(step, "name");
        const char *what = step_named(before, name, &near, &other) ? difference(other, step)
                                                                   : " was not there before";
        if (!what)
            continue;
        mp_text_put(why, "step ");
        mp_text_put_slice(why, name);
        mp_text_put(why, what);
        return false;
    }
    if (count_after != count_before)
        mp_text_put(why, "some steps are not there any more");
    return count_after == count_before;
}

static void refuse_changed(struct mp_node *n, const struct asked *a, const struct mp_text *why)
{
    char bytes[512];
    struct mp_text message;
    mp_text_init(&message, bytes, sizeof(bytes));
    mp_text_put(&message, "the graph is not the one that the run began with: ");
    mp_text_put_slice(&message, mp_text_slice(why));
    const struct mp_fault fault = {
        .code = MP_CODE_FAILED_PRECONDITION,
        .reason = mp_slice_str("GRAPH_CHANGED"),
        .message = mp_text_slice(&message),
        .hint = mp_slice_str("begin a new run; results of another graph cannot be taken over"),
        .node = n->catalog.node};
    mp_node_reply(n, a->client, a->id, MP_FRAME_ERROR, mp_node_error(n, &fault));
}

/* Whether the graph that was loaded may go on from the record; else it was answered. A graph with
 * faults of its own may: START refuses it. */
static bool may_resume(struct mp_node *n, struct mp_node_run *run, const struct asked *a,
                       const struct mp_node_resume *r)
{
    char bytes[256];
    struct mp_text why;
    struct mp_buf shape;
    mp_text_init(&why, bytes, sizeof(bytes));
    mp_buf_init(&shape, n->alloc, 0);
    enum mp_err err = mp_graph_put_shape(run->graph, &shape);
    bool may = err == MP_EINVAL;
    if (err == MP_OK)
        may = is_same_shape(r->steps, mp_buf_slice(&shape), &why);
    mp_buf_fini(&shape);
    if (may)
        return true;
    if (err == MP_OK)
        refuse_changed(n, a, &why);
    else
        refuse(n, a, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
               "the node has no memory for another run");
    return false;
}

/* The next pair of a map whose keys come in the order of the steps, if its key is `name`. */
static bool next_value(struct mp_mp_reader *pairs, struct mp_slice name, struct mp_slice *value)
{
    struct mp_mp_reader at = *pairs;
    struct mp_slice key;
    struct mp_slice text;
    if (mp_mp_is_at_end(&at) || mp_mp_take(&at, &key) != MP_OK ||
        mp_mp_get_str(key, &text) != MP_OK || !mp_slice_equal(text, name) ||
        mp_mp_take(&at, value) != MP_OK)
        return false;
    *pairs = at;
    return true;
}

/* Nothing is carried out before START, but that the machine found no memory and gave up. */
static enum mp_err step_before_start(struct mp_node_run *run, mp_time now,
                                     const struct mp_graph_event *ev)
{
    struct mp_graph_effects out;
    MP_TRY(mp_graph_step(run->graph, now, ev, &out));
    return out.count == 0 ? MP_OK : MP_ENOMEM;
}

/* Puts in what the earlier run had. MP_ENOENT: there is no step `from`. */
static enum mp_err preset(mp_time now, struct mp_node_run *run, const struct mp_node_resume *r,
                          uint64_t defects)
{
    bool is_first_done = mp_has_defect(defects, MP_DEFECT_RESUME_ALL);
    uint32_t count = 0;
    uint32_t pairs;
    struct mp_mp_reader steps;
    struct mp_mp_reader results = {0};
    struct mp_mp_reader whole = {0};
    if (mp_mp_get_array(r->steps, &count, &steps) != MP_OK ||
        mp_mp_get_map(r->results, &pairs, &results) != MP_OK)
        count = 0;
    if (mp_mp_get_map(r->whole, &pairs, &whole) != MP_OK)
        whole = (struct mp_mp_reader){0};
    if (r->from.size != 0) {
        const struct mp_graph_event from = {.kind = MP_GRAPH_FROM, .from = {.name = r->from}};
        MP_TRY(step_before_start(run, now, &from));
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice step;
        int64_t size = 0;
        if (mp_mp_take(&steps, &step) != MP_OK)
            break;
        struct mp_graph_event ev = {.kind = MP_GRAPH_PRESET};
        ev.preset.name = mp_node_text_of(step, "name");
        ev.preset.node = mp_node_text_of(step, "node");
        ev.preset.version = mp_node_text_of(step, "version");
        if (mp_mp_get_int(mp_node_value_of(step, "bytes_out"), &size) != MP_OK)
            size = 0;
        if (!mp_slice_is(mp_node_text_of(step, "status"), "succeeded") ||
            !next_value(&results, ev.preset.name, &ev.preset.value))
            continue;
        if (is_first_done) {
            is_first_done = false;
            continue;
        }
        ev.preset.bytes = size > 0 ? (uint64_t)size : 0;
        ev.preset.is_gone =
            size > MP_TRACE_RESULT_MAX && !next_value(&whole, ev.preset.name, &ev.preset.value);
        enum mp_err err = step_before_start(run, now, &ev);
        if (err != MP_OK && err != MP_ENOENT)
            return err;
    }
    return MP_OK;
}

void mp_node_run_resume(struct mp_node *n, mp_time now, uint64_t client, uint64_t id,
                        int64_t wall_ms, const struct mp_run_options *o,
                        const struct mp_node_resume *r)
{
    struct asked a = {.client = client,
                      .id = id,
                      .wall_ms = wall_ms,
                      .options = o,
                      .graph = r->graph,
                      .input = r->input,
                      .pipeline = r->pipeline,
                      .resumed_from = r->run_id};
    if (a.pipeline.size != 0 && !find_pipeline(n, &a))
        return;
    struct mp_node_run *run = begin(n, now, &a);
    if (!run)
        return;
    enum mp_err err = MP_OK;
    bool may = may_resume(n, run, &a, r);
    if (may)
        err = preset(now, run, r, n->cfg.defects);
    if (err == MP_ENOENT)
        mp_node_run_refuse_step(n, client, id, r->steps, r->from);
    else if (err != MP_OK)
        refuse(n, &a, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
               "the node has no memory for another run");
    if (may && err == MP_OK) {
        start(n, now, run, o->is_detached);
        return;
    }
    run->is_answered = true;
    mp_node_run_end(n, now, run);
}
