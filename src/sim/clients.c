/* Invented clients: what they ask, and the answers that they are owed. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/sim/world_internal.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define GAP_LONGEST    MP_MS(100)
#define CANCEL_LONGEST MP_MS(400)
#define STEPS_MAX      8
#define EACH_MAX       4
#define FRONT_BYTES    12 /* of a graph: may be spoilt without changing what its steps are */
#define LATE_MODULE    2  /* of modules[]: it appears only after a while */
#define LATE_FUNCTION  9  /* of mp_world_functions[]: the late module's */

const struct mp_world_function mp_world_functions[MP_WORLD_FUNCTIONS] = {
    {"alpha", "a", false, 0, 0},  {"alpha", "b", true, 0, 0},   {"alpha", "c", false, 2, 0},
    {"alpha", "d", false, 0, 50}, {"alpha", "e", true, 1, 200}, {"beta", "a", false, 0, 0},
    {"beta", "b", true, 0, 30},   {"beta", "c", false, 0, 0},   {"beta", "d", false, 3, 0},
    {"late", "a", false, 0, 0},
};

static const char *const modules[] = {"alpha", "beta", "late"};

uint32_t mp_world_begins_max(const struct mp_world_function *f, uint32_t retries)
{
    /* An idempotent one runs again, once, if it was lost because of another call. */
    return retries + (f->is_idempotent ? 2 : 1);
}

/* --- writing: memory is always there, so the first error would be a fault of this file --- */

static void check(enum mp_err err)
{
    mp_assert(err == MP_OK);
}

static void put_key_text(struct mp_buf *b, const char *key, const char *value)
{
    check(mp_mp_put_text(b, key));
    check(mp_mp_put_text(b, value));
}

static void put_key_uint(struct mp_buf *b, const char *key, uint64_t value)
{
    check(mp_mp_put_text(b, key));
    check(mp_mp_put_uint(b, value));
}

static void put_name(const struct mp_world_function *f, struct mp_text *out, char *data,
                     size_t size)
{
    mp_text_init(out, data, size);
    mp_text_put(out, f->module);
    mp_text_put(out, ".");
    mp_text_put(out, f->name);
}

/* --- modules --- */

static void put_function(struct mp_buf *b, const struct mp_world_function *f)
{
    check(mp_mp_put_map(b, 2u + f->is_idempotent + (f->timeout_ms != 0)));
    put_key_text(b, "name", f->name);
    put_key_uint(b, "concurrency", f->concurrency);
    if (f->is_idempotent) {
        check(mp_mp_put_text(b, "idempotent"));
        check(mp_mp_put_bool(b, true));
    }
    if (f->timeout_ms != 0)
        put_key_uint(b, "timeout_ms", f->timeout_ms);
}

static void add_module(struct mp_world *w, uint32_t number)
{
    struct mp_buf b;
    uint32_t count = 0;
    mp_buf_init(&b, w->alloc, 0);
    for (uint32_t i = 0; i < MP_WORLD_FUNCTIONS; i++)
        count += mp_slice_is(mp_slice_str(modules[number]), mp_world_functions[i].module);
    check(mp_mp_put_map(&b, 3));
    put_key_text(&b, "kind", "module");
    put_key_text(&b, "version", "1.0.0");
    check(mp_mp_put_text(&b, "functions"));
    check(mp_mp_put_array(&b, count));
    for (uint32_t i = 0; i < MP_WORLD_FUNCTIONS; i++)
        if (mp_slice_is(mp_slice_str(modules[number]), mp_world_functions[i].module))
            put_function(&b, &mp_world_functions[i]);
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = number,
                                                .name = mp_slice_str(modules[number]),
                                                .hash = mp_slice_str("00"),
                                                .metadata = mp_buf_slice(&b)}};
    mp_world_step_surely(w, &ev);
    mp_buf_fini(&b);
}

void mp_world_add_modules(struct mp_world *w)
{
    for (uint32_t i = 0; i < LATE_MODULE; i++)
        add_module(w, i);
}

/* --- requests --- */

static struct mp_world_request *new_request(struct mp_world *w, enum mp_world_request_kind kind,
                                            uint64_t client)
{
    w->requests = (struct mp_world_request *)mp_world_grow(
        w, w->requests, &w->request_capacity, w->request_count + 1, sizeof(*w->requests));
    struct mp_world_request *r = &w->requests[w->request_count++];
    *r = (struct mp_world_request){.kind = kind, .client = client, .due_at = MP_NEVER};
    w->report->requests++;
    return r;
}

static void send(struct mp_world *w, enum mp_node_event_kind kind, uint64_t client,
                 const struct mp_buf *meta, const struct mp_buf *payload)
{
    const struct mp_node_event ev = {
        .kind = kind,
        .request = {.client = client,
                    .id = w->request_count,
                    .meta = mp_buf_slice(meta),
                    .payload = mp_world_payload(w, mp_buf_slice(payload)),
                    .wall_ms = 1700000000000 + (int64_t)(w->now / MP_MS(1))}};
    if (mp_world_chance(w, w->cfg.chances.cancelled))
        mp_world_plan(w, mp_world_latency(w, CANCEL_LONGEST),
                      (struct mp_world_happening){.kind = MP_WORLD_CANCEL_DUE,
                                                  .number = w->request_count - 1});
    mp_world_step(w, &ev);
}

static void request_call(struct mp_world *w, uint64_t client, struct mp_buf *meta,
                         struct mp_buf *payload)
{
    uint32_t number = (uint32_t)mp_rng_below(&w->rng, MP_WORLD_FUNCTIONS);
    const struct mp_world_function *f = &mp_world_functions[number];
    char name[32];
    struct mp_text text;
    put_name(f, &text, name, sizeof(name));
    if (mp_world_chance(w, w->cfg.chances.malformed))
        mp_text_put(&text, mp_world_chance(w, 500) ? "x" : "/");
    struct mp_call_options o = {.fun = mp_text_slice(&text)};
    struct mp_world_request *r = new_request(w, MP_WORLD_CALL, client);
    o.retries = mp_world_chance(w, 300) ? (uint32_t)mp_rng_below(&w->rng, 4) : 0;
    o.timeout_ms = mp_world_chance(w, 500) ? 1 + mp_rng_below(&w->rng, 1500) : 0;
    o.is_waiting = mp_world_chance(w, 300);
    if (mp_world_chance(w, 100))
        o.version = mp_slice_str(mp_world_chance(w, 700) ? "^1.0" : ">=2");
    if (mp_world_chance(w, 100)) {
        o.needs_count = 1;
        o.needs[0] = mp_slice_str(mp_world_chance(w, 700) ? "gpu" : "disk");
    }
    r->due_at = w->now + (o.timeout_ms != 0 ? MP_MS(o.timeout_ms) : MP_WORLD_CALL_TIMEOUT);
    r->serial = mp_world_new_serial(w, mp_world_begins_max(f, o.retries));
    check(mp_call_options_put(meta, &o));
    check(mp_mp_put_array(payload, 1));
    check(mp_mp_put_uint(payload, r->serial));
    if (mp_world_chance(w, w->cfg.chances.malformed))
        mp_buf_drop(meta, mp_rng_below(&w->rng, meta->size));
    send(w, MP_NODE_CALL, client, meta, payload);
}

static void put_step_name(struct mp_buf *b, uint32_t step)
{
    const char name[2] = {'s', (char)('a' + step)};
    check(mp_mp_put_str(b, mp_slice_of(name, sizeof(name))));
}

/* One step: it may refer to any before it. */
static void put_step(struct mp_world *w, struct mp_buf *b, uint32_t step)
{
    const struct mp_world_function *f =
        &mp_world_functions[mp_rng_below(&w->rng, w->is_late_module_there ? 10 : LATE_FUNCTION)];
    char name[32];
    struct mp_text text;
    uint32_t retries = (uint32_t)mp_rng_below(&w->rng, 3);
    uint32_t references = step == 0 ? 0 : (uint32_t)mp_rng_below(&w->rng, 3);
    uint32_t each = mp_world_chance(w, 200) ? 1 + (uint32_t)mp_rng_below(&w->rng, EACH_MAX) : 0;
    bool has_timeout = mp_world_chance(w, 200);
    bool is_skipped = mp_world_chance(w, 300);
    /* Each retry of a run's step is a call of its own, which may be run again once. */
    uint32_t begins = (1 + retries) * mp_world_begins_max(f, 0) * (each == 0 ? 1 : each);
    uint32_t serial = mp_world_new_serial(w, begins);
    put_name(f, &text, name, sizeof(name));
    check(mp_mp_put_map(b, 4u + has_timeout + is_skipped + (each != 0)));
    check(mp_mp_put_text(b, "name"));
    put_step_name(b, step);
    put_key_text(b, "call", name);
    put_key_uint(b, "retries", retries);
    check(mp_mp_put_text(b, "args"));
    check(mp_mp_put_array(b, 1 + references));
    check(mp_mp_put_uint(b, serial));
    for (uint32_t i = 0; i < references; i++) {
        check(mp_mp_put_map(b, 1));
        check(mp_mp_put_text(b, "$ref"));
        put_step_name(b, (uint32_t)mp_rng_below(&w->rng, step));
    }
    if (has_timeout)
        put_key_uint(b, "timeout_ms", 1 + mp_rng_below(&w->rng, 200));
    if (is_skipped)
        put_key_text(b, "on_error", "skip");
    if (each == 0)
        return;
    check(mp_mp_put_text(b, "each"));
    check(mp_mp_put_array(b, each));
    for (uint32_t i = 0; i < each; i++)
        check(mp_mp_put_uint(b, i));
}

static void put_graph(struct mp_world *w, struct mp_buf *b)
{
    uint32_t steps = 1 + (uint32_t)mp_rng_below(&w->rng, STEPS_MAX);
    check(mp_mp_put_map(b, 2));
    put_key_text(b, "name", "invented");
    check(mp_mp_put_text(b, "steps"));
    check(mp_mp_put_array(b, steps));
    for (uint32_t i = 0; i < steps; i++)
        put_step(w, b, i);
    if (mp_world_chance(w, w->cfg.chances.malformed))
        b->data[mp_rng_below(&w->rng, FRONT_BYTES)] = (uint8_t)mp_rng_next(&w->rng);
}

static void request_run(struct mp_world *w, uint64_t client, struct mp_buf *meta,
                        struct mp_buf *payload)
{
    struct mp_world_request *r = new_request(w, MP_WORLD_RUN, client);
    const struct mp_run_options o = {
        .timeout_ms = mp_world_chance(w, 200) ? 1 + mp_rng_below(&w->rng, 1000) : 0,
        .has_trace = mp_world_chance(w, 300),
        .has_events = mp_world_chance(w, 300),
        .is_detached = mp_world_chance(w, 100)};
    r->due_at = w->now + (o.timeout_ms != 0 ? MP_MS(o.timeout_ms) : MP_WORLD_RUN_TIMEOUT) +
                MP_MS(MP_GRAPH_CANCEL_GRACE_MS);
    check(mp_run_options_put(meta, &o));
    put_graph(w, payload);
    w->report->runs++;
    send(w, MP_NODE_RUN, client, meta, payload);
}

static void request_query(struct mp_world *w, uint64_t client, struct mp_buf *meta,
                          struct mp_buf *payload)
{
    static const char *const what[] = {"functions", "modules", "nodes", "plan", "weather"};
    const char *asked = what[mp_rng_below(&w->rng, MP_ARRAY_SIZE(what))];
    struct mp_world_request *r = new_request(w, MP_WORLD_QUERY, client);
    r->due_at = w->now;
    check(mp_mp_put_array(meta, 1));
    check(mp_mp_put_text(meta, asked));
    put_graph(w, payload);
    send(w, MP_NODE_QUERY, client, meta, payload);
}

static void client_leaves(struct mp_world *w, uint32_t place)
{
    const struct mp_node_event ev = {.kind = MP_NODE_CLIENT_GONE,
                                     .request = {.client = w->clients[place]}};
    for (uint32_t i = 0; i < w->request_count; i++)
        if (w->requests[i].client == w->clients[place])
            w->requests[i].is_gone = true;
    mp_world_step(w, &ev);
    w->clients[place] += 1ull << 32;
}

static void request_something(struct mp_world *w)
{
    const struct mp_world_chances *c = &w->cfg.chances;
    uint32_t place = (uint32_t)mp_rng_below(&w->rng, w->cfg.clients);
    struct mp_buf meta;
    struct mp_buf payload;
    mp_buf_init(&meta, w->alloc, 0);
    mp_buf_init(&payload, w->alloc, 0);
    if (mp_world_chance(w, c->client_leaves))
        client_leaves(w, place);
    if (mp_world_chance(w, c->query))
        request_query(w, w->clients[place], &meta, &payload);
    else if (mp_world_chance(w, c->run))
        request_run(w, w->clients[place], &meta, &payload);
    else
        request_call(w, w->clients[place], &meta, &payload);
    mp_buf_fini(&meta);
    mp_buf_fini(&payload);
}

static void next_request(struct mp_world *w)
{
    if (w->request_count >= w->cfg.requests)
        return;
    request_something(w);
    if (w->cfg.is_drained && w->request_count == w->cfg.requests / 2)
        mp_world_plan(w, 0, (struct mp_world_happening){.kind = MP_WORLD_DRAIN});
    /* Often several at once. */
    mp_duration gap = mp_world_chance(w, 400) ? 0 : mp_world_latency(w, GAP_LONGEST);
    mp_world_plan(w, gap, (struct mp_world_happening){.kind = MP_WORLD_REQUEST_DUE});
}

void mp_world_client_happening(struct mp_world *w, const struct mp_world_happening *h)
{
    if (h->kind == MP_WORLD_REQUEST_DUE) {
        next_request(w);
    } else if (h->kind == MP_WORLD_LATE_MODULE) {
        w->is_late_module_there = true;
        add_module(w, LATE_MODULE);
    } else {
        const struct mp_world_request *r = &w->requests[h->number];
        const struct mp_node_event ev = {.kind = MP_NODE_CANCEL,
                                         .request = {.client = r->client, .id = h->number + 1}};
        bool is_call = r->kind == MP_WORLD_CALL && !r->is_gone;
        mp_world_step(w, &ev);
        if (is_call && w->requests[h->number].answers != 1)
            mp_world_violation(w, "a call was cancelled and not answered", h->number + 1);
    }
}

/* --- answers --- */

static bool is_success(struct mp_slice run)
{
    struct mp_slice value;
    struct mp_slice status;
    return mp_mp_map_get(run, mp_slice_str("status"), &value) == MP_OK &&
           mp_mp_get_str(value, &status) == MP_OK && mp_slice_is(status, "succeeded");
}

void mp_world_reply(struct mp_world *w, const struct mp_node_effect *e)
{
    if (e->id == 0 || e->id > w->request_count || w->requests[e->id - 1].client != e->client) {
        mp_world_violation(w, "REPLY to nobody", e->id);
        return;
    }
    struct mp_world_request *r = &w->requests[e->id - 1];
    if (r->is_gone)
        mp_world_violation(w, "REPLY to a client that left", e->id);
    if (r->answers != 0)
        mp_world_violation(w, "REPLY after the last one", e->id);
    if (mp_mp_check(e->payload.bytes) != MP_OK)
        mp_world_violation(w, "REPLY that is no value", e->id);
    if (e->frame == MP_FRAME_EVENT)
        return;
    r->answers++;
    w->report->answers++;
    if (w->now > r->due_at)
        mp_world_violation(w, "REPLY after the deadline", e->id);
    if (e->frame != MP_FRAME_RESULT)
        return;
    if (r->kind == MP_WORLD_CALL && mp_world_serial_in(e->payload.bytes) != r->serial)
        mp_world_violation(w, "REPLY with the result of another call", e->id);
    if (r->kind == MP_WORLD_RUN)
        w->report->runs_succeeded += is_success(e->payload.bytes);
}

void mp_world_clients_check_answered(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->request_count; i++) {
        const struct mp_world_request *r = &w->requests[i];
        bool is_lost = r->answers == 0 && !r->is_gone;
        if (is_lost)
            mp_world_violation(w, "a request was never answered", i + 1);
        if (r->kind == MP_WORLD_RUN) {
            w->report->runs_lost += is_lost;
            w->report->runs_duplicated += r->answers > 1;
        }
    }
}
