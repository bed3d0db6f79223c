/* Invented clients: what they ask, and the answers that they are owed. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/sim/world_internal.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define GAP_LONGEST    MP_MS(100)
#define GAP_ASKING     MP_MS(2) /* between requests that must succeed */
#define CANCEL_LONGEST MP_MS(400)
#define CHANGE_WITHIN  MP_SECONDS(12) /* checking, staging and switching have limits */
#define STEPS_MAX      8
#define EACH_MAX       4
#define FRONT_BYTES    12 /* of a graph: may be spoilt without changing what its steps are */
#define LATE_FUNCTION  9  /* of mp_world_functions[]: the late module's */
#define INVENTED_FIRST 16 /* as workers number the modules that appear one by one */
#define HASH_DIGITS    64
#define RERUNS_MAX     64 /* an idempotent call may run again, but not for ever */

const char *const mp_world_modules[MP_WORLD_MODULES] = {"alpha", "beta", "late"};
const char *const mp_world_resources[MP_WORLD_RESOURCES] = {"gpu", "disk", "lab"};

const struct mp_world_function mp_world_functions[MP_WORLD_FUNCTIONS] = {
    {0, "a", false, 0, 0},  {0, "b", true, 0, 0},  {0, "c", false, 2, 0}, {0, "d", false, 0, 50},
    {0, "e", true, 1, 200}, {1, "a", false, 0, 0}, {1, "b", true, 0, 30}, {1, "c", false, 0, 0},
    {1, "d", false, 3, 0},  {2, "a", false, 0, 0},
};

uint32_t mp_world_begins_max(const struct mp_world *w, const struct mp_world_function *f,
                             uint32_t retries)
{
    if (f->is_idempotent && w->cfg.nodes > 1)
        return RERUNS_MAX;
    /* An idempotent one runs again, once, if it was lost because of another call. */
    return retries + (f->is_idempotent ? 2 : 1);
}

void mp_world_put_function_name(const struct mp_world_function *f, struct mp_text *text)
{
    mp_text_put(text, mp_world_modules[f->module]);
    mp_text_put(text, ".");
    mp_text_put(text, f->name);
}

const char *const mp_world_subscribes[MP_WORLD_SUBSCRIBES] = {"#.c", "a.#"};

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

/* --- modules --- */

static void put_function(struct mp_buf *b, const struct mp_world_function *f)
{
    bool is_subscribed = f == &mp_world_functions[0];
    check(mp_mp_put_map(b, 2u + f->is_idempotent + (f->timeout_ms != 0) + is_subscribed));
    put_key_text(b, "name", f->name);
    put_key_uint(b, "concurrency", f->concurrency);
    if (f->is_idempotent) {
        check(mp_mp_put_text(b, "idempotent"));
        check(mp_mp_put_bool(b, true));
    }
    if (f->timeout_ms != 0)
        put_key_uint(b, "timeout_ms", f->timeout_ms);
    if (!is_subscribed)
        return;
    check(mp_mp_put_text(b, "subscribe"));
    check(mp_mp_put_array(b, MP_WORLD_SUBSCRIBES));
    for (uint32_t i = 0; i < MP_WORLD_SUBSCRIBES; i++)
        check(mp_mp_put_text(b, mp_world_subscribes[i]));
}

static void put_module(struct mp_buf *b, uint32_t pairs, const char *version, uint32_t functions)
{
    check(mp_mp_put_map(b, pairs));
    put_key_text(b, "kind", "module");
    put_key_text(b, "version", version);
    check(mp_mp_put_text(b, "functions"));
    check(mp_mp_put_array(b, functions));
}

void mp_world_put_metadata(struct mp_buf *b, uint32_t module, const char *version, uint64_t salt,
                           size_t padding)
{
    static const uint8_t zeros[32768];
    uint32_t count = 0;
    mp_assert(padding <= sizeof(zeros));
    for (uint32_t i = 0; i < MP_WORLD_FUNCTIONS; i++)
        count += mp_world_functions[i].module == module;
    put_module(b, 3u + (salt != 0) + (padding != 0), version, count);
    for (uint32_t i = 0; i < MP_WORLD_FUNCTIONS; i++)
        if (mp_world_functions[i].module == module)
            put_function(b, &mp_world_functions[i]);
    if (salt != 0)
        put_key_uint(b, "salt", salt);
    if (padding != 0) {
        check(mp_mp_put_text(b, "padding"));
        check(mp_mp_put_bin(b, mp_slice_of(zeros, padding)));
    }
}

/* Tells a node of a module; it is the same, with the same hash, on all. */
static void tell_module(struct mp_world *w, struct mp_world_node *n, uint32_t host_module,
                        struct mp_slice name, const struct mp_buf *metadata)
{
    static const char digits[] = "0123456789abcdef";
    char hash[HASH_DIGITS];
    uint64_t bits = mp_slice_hash(name, 1);
    for (uint32_t i = 0; i < HASH_DIGITS; i++) {
        hash[i] = digits[bits & 15];
        bits = i % 16 == 15 ? mp_slice_hash(name, i) : bits >> 4;
    }
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = host_module,
                                                .name = name,
                                                .hash = mp_slice_of(hash, sizeof(hash)),
                                                .metadata = mp_buf_slice(metadata)}};
    mp_world_step_surely(w, n, &ev);
}

void mp_world_add_module(struct mp_world *w, struct mp_world_node *n, uint32_t number)
{
    struct mp_buf b;
    mp_buf_init(&b, w->alloc, 0);
    mp_world_put_metadata(&b, number, "1.0.0", 0, 0);
    tell_module(w, n, number, mp_slice_str(mp_world_modules[number]), &b);
    mp_buf_fini(&b);
}

struct mp_slice mp_world_invented_name(uint32_t number, char *data, size_t size)
{
    struct mp_text text;
    mp_text_init(&text, data, size);
    mp_text_put(&text, "m");
    mp_text_put_uint(&text, number);
    mp_text_put(&text, ".f");
    return mp_text_slice(&text);
}

void mp_world_add_invented(struct mp_world *w, struct mp_world_node *n, uint32_t number)
{
    const struct mp_world_function f = {.name = "f"};
    struct mp_buf b;
    char data[32];
    struct mp_slice name = mp_world_invented_name(number, data, sizeof(data));
    mp_buf_init(&b, w->alloc, 0);
    put_module(&b, 3, "1.0.0", 1);
    put_function(&b, &f);
    tell_module(w, n, INVENTED_FIRST + number, mp_slice_of(name.data, name.size - 2), &b);
    mp_buf_fini(&b);
}

/* --- clients --- */

void mp_world_clients_init(struct mp_world *w)
{
    w->clients =
        (struct mp_world_client *)mp_world_take(w, (w->cfg.clients + 1) * sizeof(*w->clients));
}

void mp_world_clients_fini(struct mp_world *w)
{
    mp_alloc_free(w->alloc, w->clients, (w->cfg.clients + 1) * sizeof(*w->clients));
    mp_alloc_free(w->alloc, w->requests, w->request_capacity * sizeof(*w->requests));
    mp_world_runs_fini(w);
}

/* The client's node; another one if that is gone. NULL: none can be asked now. */
static struct mp_world_node *node_of(struct mp_world *w, struct mp_world_client *c)
{
    struct mp_world_node *n = &w->nodes[c->node];
    if (c->conn == 0 || !n->node || n->boot != c->boot) {
        if (w->cfg.nodes > 1)
            n = mp_world_any_node(w);
        if (!n || !n->node)
            return NULL;
        c->node = n->number;
        c->boot = n->boot;
        c->conn = mp_world_conn_open(w, n, MP_WORLD_CONN_CLIENT);
    }
    return mp_world_is_paused(w, n) ? NULL : n;
}

void mp_world_clients_lost(struct mp_world *w, const struct mp_world_node *n)
{
    for (uint32_t i = 0; i < w->request_count; i++)
        if (w->requests[i].node == n->number)
            w->requests[i].is_gone = true;
    for (uint32_t i = 0; i < w->cfg.clients; i++)
        if (w->clients[i].node == n->number)
            w->clients[i].conn = 0;
    for (uint32_t i = 0; i < n->conn_count; i++)
        if (n->conns[i].kind == MP_WORLD_CONN_CLIENT)
            mp_world_conn_close(&w->nodes[n->number], (uint64_t)n->conns[i].generation << 32 | i);
}

void mp_world_clients_wait(struct mp_world *w, const struct mp_world_node *n, mp_duration how_long)
{
    for (uint32_t i = 0; i < w->request_count; i++) {
        struct mp_world_request *r = &w->requests[i];
        if (r->node == n->number && r->kind == MP_WORLD_CHANGE && r->answers == 0)
            r->due_at += how_long;
    }
}

/* --- requests --- */

static struct mp_world_request *new_request(struct mp_world *w, enum mp_world_request_kind kind,
                                            const struct mp_world_client *c)
{
    w->requests = (struct mp_world_request *)mp_world_grow(
        w, w->requests, &w->request_capacity, w->request_count + 1, sizeof(*w->requests));
    struct mp_world_request *r = &w->requests[w->request_count++];
    *r = (struct mp_world_request){
        .kind = kind, .node = c->node, .client = c->conn, .due_at = MP_NEVER};
    w->report->requests++;
    return r;
}

static void send(struct mp_world *w, enum mp_node_event_kind kind, const struct mp_buf *meta,
                 const struct mp_buf *payload)
{
    uint32_t number = w->request_count - 1;
    struct mp_world_node *n = &w->nodes[w->requests[number].node];
    const struct mp_node_event ev = {
        .kind = kind,
        .request = {.client = w->requests[number].client,
                    .id = number + 1,
                    .meta = mp_buf_slice(meta),
                    .payload = mp_world_payload(w, n, mp_buf_slice(payload)),
                    .wall_ms = mp_world_wall(w, n)}};
    if (mp_world_chance(w, w->cfg.chances.cancelled) && !w->requests[number].is_to_succeed)
        mp_world_plan(w, mp_world_latency(w, CANCEL_LONGEST),
                      (struct mp_world_happening){.kind = MP_WORLD_CANCEL_DUE, .number = number});
    mp_world_step(w, n, &ev);
}

/* Where and with what a call must run; often that is possible. `name` has 16 bytes. */
static void draw_place(struct mp_world *w, struct mp_call_options *o, char *name)
{
    if (mp_world_chance(w, 100)) {
        o->needs_count = 1;
        o->needs[0] = mp_slice_str(mp_world_chance(w, 700) ? "gpu" : "disk");
    }
    if (w->cfg.nodes == 1)
        return;
    if (mp_world_chance(w, 100)) {
        o->needs_count = 2;
        o->needs[0] = mp_slice_str("disk");
        o->needs[1] = mp_slice_str("lab");
    }
    if (mp_world_chance(w, 150))
        o->on = mp_world_name_of((uint32_t)mp_rng_below(&w->rng, w->name_count + 1u), name);
}

static void request_call(struct mp_world *w, const struct mp_world_client *c, struct mp_buf *meta,
                         struct mp_buf *payload)
{
    uint32_t number = (uint32_t)mp_rng_below(&w->rng, MP_WORLD_FUNCTIONS);
    const struct mp_world_function *f = &mp_world_functions[number];
    char data[32];
    char on[16];
    struct mp_text text;
    mp_text_init(&text, data, sizeof(data));
    mp_world_put_function_name(f, &text);
    if (mp_world_chance(w, w->cfg.chances.malformed))
        mp_text_put(&text, mp_world_chance(w, 500) ? "x" : "/");
    struct mp_call_options o = {.fun = mp_text_slice(&text)};
    struct mp_world_request *r = new_request(w, MP_WORLD_CALL, c);
    o.retries = mp_world_chance(w, 300) ? (uint32_t)mp_rng_below(&w->rng, 4) : 0;
    o.timeout_ms = mp_world_chance(w, 500) ? 1 + mp_rng_below(&w->rng, 1500) : 0;
    o.is_waiting = mp_world_chance(w, 300);
    if (mp_world_chance(w, 100))
        o.version = mp_slice_str(mp_world_chance(w, 700) ? "^1.0" : ">=2");
    draw_place(w, &o, on);
    r->due_at = w->now + (o.timeout_ms != 0 ? MP_MS(o.timeout_ms) : MP_WORLD_CALL_TIMEOUT);
    r->serial = mp_world_new_serial(w, c->node, f, mp_world_begins_max(w, f, o.retries), 0);
    r->is_plain = o.needs_count == 0 && o.on.size == 0 && o.version.size == 0;
    check(mp_call_options_put(meta, &o));
    check(mp_mp_put_array(payload, 1));
    check(mp_mp_put_uint(payload, r->serial));
    if (mp_world_chance(w, w->cfg.chances.malformed))
        mp_buf_drop(meta, mp_rng_below(&w->rng, meta->size));
    send(w, MP_NODE_CALL, meta, payload);
}

/* Nothing stands in its way: it must succeed. */
static void request_surely(struct mp_world *w, const struct mp_world_client *c,
                           const struct mp_world_function *f)
{
    struct mp_buf meta;
    struct mp_buf payload;
    char data[32];
    struct mp_text text;
    mp_buf_init(&meta, w->alloc, 0);
    mp_buf_init(&payload, w->alloc, 0);
    mp_text_init(&text, data, sizeof(data));
    mp_world_put_function_name(f, &text);
    const struct mp_call_options o = {.fun = mp_text_slice(&text)};
    struct mp_world_request *r = new_request(w, MP_WORLD_CALL, c);
    r->is_to_succeed = true;
    r->may_time_out = f->timeout_ms != 0;
    r->due_at = w->now + MP_WORLD_CALL_TIMEOUT;
    r->serial = mp_world_new_serial(w, c->node, f, mp_world_begins_max(w, f, 0), 0);
    check(mp_call_options_put(&meta, &o));
    check(mp_mp_put_array(&payload, 1));
    check(mp_mp_put_uint(&payload, r->serial));
    send(w, MP_NODE_CALL, &meta, &payload);
    mp_buf_fini(&meta);
    mp_buf_fini(&payload);
}

static bool has_function(const struct mp_world *w, const struct mp_world_node *n,
                         const struct mp_world_function *f)
{
    if (mp_world_is_deployed(n, f->module))
        return true;
    for (uint32_t i = 0; i < w->node_count; i++)
        if (mp_world_is_up(&w->nodes[i]) && mp_world_has_module(&w->nodes[i], f->module))
            return true;
    return false;
}

void mp_world_ask_everything(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct mp_world_node *n = &w->nodes[i];
        if (!mp_world_is_up(n))
            continue;
        struct mp_world_client c = {.node = i, .boot = n->boot};
        c.conn = mp_world_conn_open(w, n, MP_WORLD_CONN_CLIENT);
        for (uint32_t k = 0; k < MP_WORLD_FUNCTIONS; k++) {
            if (!has_function(w, n, &mp_world_functions[k]))
                continue;
            mp_world_run(w, w->now + GAP_ASKING);
            request_surely(w, &c, &mp_world_functions[k]);
        }
    }
}

static void put_step_name(struct mp_buf *b, uint32_t step)
{
    const char name[2] = {'s', (char)('a' + step)};
    check(mp_mp_put_str(b, mp_slice_of(name, sizeof(name))));
}

/* One step: it may refer to any before it. */
static void put_step(struct mp_world *w, uint32_t node, struct mp_buf *b, uint32_t step,
                     uint32_t *root)
{
    const struct mp_world_function *f =
        &mp_world_functions[mp_rng_below(&w->rng, w->late_modules != 0 ? 10 : LATE_FUNCTION)];
    char name[32];
    struct mp_text text;
    mp_text_init(&text, name, sizeof(name));
    uint32_t retries = (uint32_t)mp_rng_below(&w->rng, 3);
    uint32_t references = step == 0 ? 0 : (uint32_t)mp_rng_below(&w->rng, 3);
    uint32_t each = mp_world_chance(w, 200) ? 1 + (uint32_t)mp_rng_below(&w->rng, EACH_MAX) : 0;
    bool has_timeout = mp_world_chance(w, 200);
    bool is_skipped = mp_world_chance(w, 300);
    /* Each retry of a run's step is a call of its own, which may be run again once. */
    uint32_t begins = (1 + retries) * mp_world_begins_max(w, f, 0) * (each == 0 ? 1 : each);
    uint32_t serial = mp_world_new_serial(w, node, f, begins, *root);
    *root = w->serials[serial].root;
    w->serials[serial].step = serial;
    w->serials[serial].begins_run = begins;
    mp_world_put_function_name(f, &text);
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

/* Gives the serial of its first step; those of the others follow. */
static uint32_t put_graph(struct mp_world *w, uint32_t node, struct mp_buf *b)
{
    uint32_t steps = 1 + (uint32_t)mp_rng_below(&w->rng, STEPS_MAX);
    uint32_t root = 0;
    check(mp_mp_put_map(b, 2));
    put_key_text(b, "name", "invented");
    check(mp_mp_put_text(b, "steps"));
    check(mp_mp_put_array(b, steps));
    for (uint32_t i = 0; i < steps; i++)
        put_step(w, node, b, i, &root);
    if (mp_world_chance(w, w->cfg.chances.malformed))
        b->data[mp_rng_below(&w->rng, FRONT_BYTES)] = (uint8_t)mp_rng_next(&w->rng);
    return root;
}

static void request_run(struct mp_world *w, const struct mp_world_client *c, struct mp_buf *meta,
                        struct mp_buf *payload)
{
    struct mp_world_request *r = new_request(w, MP_WORLD_RUN, c);
    const struct mp_run_options o = {
        .timeout_ms = mp_world_chance(w, 200) ? 1 + mp_rng_below(&w->rng, 1000) : 0,
        .has_trace = mp_world_chance(w, 300),
        .has_events = mp_world_chance(w, 300),
        .is_detached = mp_world_chance(w, 100)};
    r->due_at = w->now + (o.timeout_ms != 0 ? MP_MS(o.timeout_ms) : MP_WORLD_RUN_TIMEOUT) +
                MP_MS(MP_GRAPH_CANCEL_GRACE_MS);
    check(mp_run_options_put(meta, &o));
    r->first_step = put_graph(w, c->node, payload);
    w->report->runs++;
    send(w, MP_NODE_RUN, meta, payload);
}

static void request_query(struct mp_world *w, const struct mp_world_client *c, struct mp_buf *meta,
                          struct mp_buf *payload)
{
    static const char *const what[] = {"functions", "modules", "nodes", "plan", "weather"};
    const char *asked = what[mp_rng_below(&w->rng, MP_ARRAY_SIZE(what))];
    struct mp_world_request *r = new_request(w, MP_WORLD_QUERY, c);
    r->due_at = w->now;
    check(mp_mp_put_array(meta, 1));
    check(mp_mp_put_text(meta, asked));
    (void)put_graph(w, c->node, payload);
    send(w, MP_NODE_QUERY, meta, payload);
}

/* False: there is none to ask about. */
static bool request_ask(struct mp_world *w, const struct mp_world_client *c, struct mp_buf *meta,
                        struct mp_buf *payload)
{
    struct mp_world_ask a;
    if (!mp_world_draw_ask(w, &a, meta, payload))
        return false;
    bool is_run = a.kind == MP_NODE_RUN;
    struct mp_world_request *r = new_request(w, is_run ? MP_WORLD_RUN : MP_WORLD_ASK, c);
    r->run = a.run;
    r->what = a.what;
    r->kept = a.kept;
    r->first_step = a.first_step;
    w->report->runs += is_run;
    send(w, a.kind, meta, payload);
    return true;
}

static void request_change(struct mp_world *w, const struct mp_world_client *c, struct mp_buf *meta,
                           struct mp_buf *payload)
{
    struct mp_world_request *r = new_request(w, MP_WORLD_CHANGE, c);
    r->due_at = w->now + CHANGE_WITHIN;
    mp_world_request_change(w, &w->nodes[c->node], w->request_count, meta, payload);
    send(w, MP_NODE_QUERY, meta, payload);
}

uint32_t mp_world_ask_change(struct mp_world *w, struct mp_world_node *n, const struct mp_buf *meta,
                             const struct mp_buf *payload)
{
    const struct mp_world_client c = {.node = n->number,
                                      .conn = mp_world_conn_open(w, n, MP_WORLD_CONN_CLIENT)};
    new_request(w, MP_WORLD_CHANGE, &c)->due_at = w->now + CHANGE_WITHIN;
    uint32_t number = w->request_count;
    send(w, MP_NODE_QUERY, meta, payload);
    return number;
}

void mp_world_ask_topic(struct mp_world *w, struct mp_world_node *n, uint64_t client,
                        enum mp_world_request_kind kind, uint32_t message,
                        const struct mp_buf *bytes)
{
    const struct mp_world_client c = {.node = n->number, .conn = client};
    bool is_publish = kind == MP_WORLD_PUBLISH;
    new_request(w, kind, &c)->message = message;
    struct mp_node_event ev = {
        .kind = is_publish ? MP_NODE_PUBLISH : MP_NODE_SUBSCRIBE,
        .request = {.client = client, .id = w->request_count, .wall_ms = mp_world_wall(w, n)}};
    if (is_publish)
        ev.request.payload = mp_world_payload(w, n, mp_buf_slice(bytes));
    else
        ev.request.meta = mp_buf_slice(bytes);
    mp_world_step(w, n, &ev);
}

void mp_world_forget(struct mp_world *w, struct mp_world_node *n, uint32_t name)
{
    const struct mp_world_client c = {.node = n->number,
                                      .conn = mp_world_conn_open(w, n, MP_WORLD_CONN_CLIENT)};
    struct mp_buf meta;
    struct mp_buf payload;
    struct mp_member_info info;
    char data[16];
    mp_buf_init(&meta, w->alloc, 0);
    mp_buf_init(&payload, w->alloc, 0);
    new_request(w, MP_WORLD_QUERY, &c)->is_to_succeed = true;
    check(mp_mp_put_array(&meta, 2));
    check(mp_mp_put_text(&meta, "forget"));
    check(mp_mp_put_map(&meta, 1));
    check(mp_mp_put_text(&meta, "name"));
    check(mp_mp_put_str(&meta, mp_world_name_of(name, data)));
    w->names[name].is_forgotten = true;
    w->names[name].forgotten_by = n->number;
    w->names[name].forgotten_in = n->boot;
    w->names[name].forgotten_generation =
        mp_world_view(n, name, &info) ? info.generation : UINT64_MAX;
    send(w, MP_NODE_QUERY, &meta, &payload);
    mp_buf_fini(&meta);
    mp_buf_fini(&payload);
}

void mp_world_client_leaves(struct mp_world *w, uint32_t node, uint64_t client)
{
    struct mp_world_node *n = &w->nodes[node];
    const struct mp_node_event ev = {.kind = MP_NODE_CLIENT_GONE, .request = {.client = client}};
    for (uint32_t i = 0; i < w->request_count; i++)
        if (w->requests[i].node == node && w->requests[i].client == client)
            w->requests[i].is_gone = true;
    mp_world_topics_client_gone(w, node, client);
    mp_world_conn_close(n, client);
    mp_world_step(w, n, &ev);
}

static void client_leaves(struct mp_world *w, struct mp_world_client *c)
{
    uint64_t client = c->conn;
    c->conn = 0;
    mp_world_client_leaves(w, c->node, client);
}

static void request_something(struct mp_world *w)
{
    const struct mp_world_chances *ch = &w->cfg.chances;
    struct mp_world_client *c = &w->clients[mp_rng_below(&w->rng, w->cfg.clients)];
    struct mp_buf meta;
    struct mp_buf payload;
    if (!node_of(w, c))
        return;
    if (mp_world_chance(w, ch->client_leaves)) {
        client_leaves(w, c);
        if (!node_of(w, c))
            return;
    }
    mp_buf_init(&meta, w->alloc, 0);
    mp_buf_init(&payload, w->alloc, 0);
    if (ch->change != 0 && mp_world_chance(w, ch->change))
        request_change(w, c, &meta, &payload);
    else if (ch->ask != 0 && mp_world_chance(w, ch->ask) && request_ask(w, c, &meta, &payload))
        ; /* about a run */
    else if (mp_world_chance(w, ch->query))
        request_query(w, c, &meta, &payload);
    else if (mp_world_chance(w, ch->run))
        request_run(w, c, &meta, &payload);
    else
        request_call(w, c, &meta, &payload);
    mp_buf_fini(&meta);
    mp_buf_fini(&payload);
}

/* Often several at once; with many nodes they fill the time of the faults. */
static mp_duration next_gap(struct mp_world *w)
{
    if (mp_world_chance(w, 400))
        return 0;
    if (w->cfg.nodes == 1)
        return mp_world_latency(w, GAP_LONGEST);
    return mp_rng_below(&w->rng, 4 * (w->cfg.faults_last / (w->cfg.requests + 1)) + 1);
}

static void next_request(struct mp_world *w)
{
    if (!w->is_asking || w->request_count >= w->cfg.requests) {
        w->is_asking = false;
        return;
    }
    uint32_t before = w->request_count;
    request_something(w);
    if (w->cfg.is_drained && w->request_count != before && w->request_count == w->cfg.requests / 2)
        mp_world_plan(w, 0, (struct mp_world_happening){.kind = MP_WORLD_DRAIN});
    mp_duration gap = w->request_count != before ? next_gap(w) : GAP_LONGEST;
    mp_world_plan(w, gap, (struct mp_world_happening){.kind = MP_WORLD_REQUEST_DUE});
}

static void cancel(struct mp_world *w, const struct mp_world_happening *h)
{
    const struct mp_world_request *r = &w->requests[h->number];
    struct mp_world_node *n = &w->nodes[r->node];
    const struct mp_node_event ev = {.kind = MP_NODE_CANCEL,
                                     .request = {.client = r->client, .id = h->number + 1}};
    if (r->is_gone || !n->node)
        return;
    if (mp_world_is_paused(w, n)) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    if (r->serial != 0 && r->answers == 0)
        w->serials[r->serial].cancelled_at = w->now;
    mp_world_step(w, n, &ev);
    r = &w->requests[h->number];
    if (r->kind == MP_WORLD_CALL && !r->is_gone && r->answers != 1)
        mp_world_violation(w, "deadline", "a call was cancelled and not answered", h->number + 1);
}

void mp_world_client_happening(struct mp_world *w, const struct mp_world_happening *h)
{
    if (h->kind == MP_WORLD_REQUEST_DUE)
        next_request(w);
    else
        cancel(w, h);
}

/* --- answers --- */

static bool is_success(struct mp_slice run)
{
    struct mp_slice value;
    struct mp_slice status;
    return mp_mp_map_get(run, mp_slice_str("status"), &value) == MP_OK &&
           mp_mp_get_str(value, &status) == MP_OK && mp_slice_is(status, "succeeded");
}

/* What one receipt says of its step has to be so. */
static void check_receipt(struct mp_world *w, const struct mp_world_request *r,
                          struct mp_slice receipt)
{
    struct mp_slice value;
    struct mp_slice name;
    struct mp_slice outcome;
    if (mp_mp_map_get(receipt, mp_slice_str("name"), &value) != MP_OK ||
        mp_mp_get_str(value, &name) != MP_OK || name.size != 2 ||
        mp_mp_map_get(receipt, mp_slice_str("outcome"), &value) != MP_OK ||
        mp_mp_get_str(value, &outcome) != MP_OK) {
        mp_world_violation(w, "stopped", "a receipt that cannot be read", r->first_step);
        return;
    }
    uint32_t step = r->first_step + (uint32_t)(name.data[1] - 'a');
    bool has_stopped = mp_slice_is(outcome, "stopped");
    w->report->steps_stopped += has_stopped;
    w->report->steps_unreachable += mp_slice_is(outcome, "unreachable");
    if (has_stopped && mp_world_workers_have_step(w, step))
        mp_world_violation(w, "stopped", "a step that is said to have stopped goes on", step);
    if (mp_slice_is(outcome, "never_started") && w->serials[step].begins != 0)
        mp_world_violation(w, "stopped", "a step that is said never to have begun did", step);
}

static void check_receipts(struct mp_world *w, const struct mp_world_request *r,
                           struct mp_slice run)
{
    struct mp_slice value;
    struct mp_slice receipt;
    struct mp_mp_reader reader;
    uint32_t count;
    if (mp_mp_map_get(run, mp_slice_str("receipts"), &value) != MP_OK ||
        mp_mp_get_array(value, &count, &reader) != MP_OK)
        return;
    while (count-- > 0 && mp_mp_take(&reader, &receipt) == MP_OK)
        check_receipt(w, r, receipt);
}

/* Whether no other run does the same steps. */
static bool is_alone(const struct mp_world *w, const struct mp_world_request *r)
{
    return r->run == 0 && (r->own_run == 0 || !w->runs[r->own_run - 1].was_resumed);
}

/* Its function killed too many workers, before all was healed. */
static bool is_refused_for_crashes(struct mp_slice error)
{
    struct mp_fault fault;
    return mp_fault_read(error, &fault) == MP_OK && mp_slice_is(fault.reason, "CRASH_LOOP");
}

/* A node that stood still at the deadline answers as soon as it goes on. */
static bool is_explained(const struct mp_world_request *r, struct mp_slice error)
{
    struct mp_fault fault;
    return is_refused_for_crashes(error) ||
           (r->may_time_out && mp_fault_read(error, &fault) == MP_OK &&
            fault.code == MP_CODE_DEADLINE_EXCEEDED);
}

static bool is_late(const struct mp_world *w, const struct mp_world_node *n, mp_time due_at)
{
    if (n->paused_from <= due_at && due_at < n->paused_until)
        due_at = n->paused_until;
    return w->now > due_at;
}

void mp_world_reply(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    if (e->id == 0 || e->id > w->request_count || w->requests[e->id - 1].node != n->number ||
        w->requests[e->id - 1].client != e->client) {
        mp_world_violation(w, "one-answer", "REPLY to nobody", e->id);
        return;
    }
    struct mp_world_request *r = &w->requests[e->id - 1];
    if (r->is_gone)
        mp_world_violation(w, "one-answer", "REPLY to a client that left", e->id);
    if (r->answers != 0)
        mp_world_violation(w, "one-answer", "REPLY after the last one", e->id);
    if (mp_mp_check(e->payload.bytes) != MP_OK)
        mp_world_violation(w, "right-result", "REPLY that is no value", e->id);
    if (r->kind == MP_WORLD_SUBSCRIBE)
        mp_world_subscriber_told(w, e);
    else if (e->frame == MP_FRAME_EVENT)
        mp_world_run_event(w, r, e);
    if (e->frame == MP_FRAME_EVENT || e->frame == MP_FRAME_MESSAGES)
        return;
    if (r->kind == MP_WORLD_PUBLISH)
        mp_world_published(w, n, r, e);
    r->answers++;
    w->report->answers++;
    if (is_late(w, n, r->due_at))
        mp_world_violation(w, "deadline", "REPLY after the deadline", e->id);
    if (r->kind == MP_WORLD_RUN || r->kind == MP_WORLD_ASK)
        mp_world_run_answered(w, n, r, e);
    if (e->frame != MP_FRAME_RESULT) {
        mp_world_log(w, n, r->is_to_succeed ? "must not answer" : "answers", e->payload.bytes);
        if (r->is_to_succeed && !is_explained(r, e->payload.bytes))
            mp_world_violation(w, "callable", "REPLY with an error that nothing explains", e->id);
        if (r->is_plain && mp_world_is_harm(w, e->payload.bytes, w->serials[r->serial].function))
            mp_world_violation(w, "deploys-harm-nobody", "REPLY to a call that must not fail",
                               e->id);
        if (r->kind == MP_WORLD_CHANGE)
            mp_world_change_answered(w, n, e);
        return;
    }
    if (r->kind == MP_WORLD_CHANGE)
        mp_world_change_answered(w, n, e);
    if (r->kind == MP_WORLD_CALL && mp_world_serial_in(e->payload.bytes) != r->serial)
        mp_world_violation(w, "right-result", "REPLY with the result of another call", e->id);
    if (r->kind == MP_WORLD_RUN) {
        w->report->runs_succeeded += is_success(e->payload.bytes);
        if (is_alone(w, r))
            check_receipts(w, r, e->payload.bytes);
    }
}

bool mp_world_clients_are_answered(const struct mp_world *w)
{
    for (uint32_t i = 0; i < w->request_count; i++)
        if (w->requests[i].answers == 0 && !w->requests[i].is_gone)
            return false;
    return true;
}

void mp_world_clients_check_answered(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->request_count; i++) {
        const struct mp_world_request *r = &w->requests[i];
        bool is_lost = r->answers == 0 && !r->is_gone;
        if (is_lost)
            mp_world_violation(w, "one-answer", "a request was never answered", i + 1);
        if (r->kind == MP_WORLD_RUN) {
            w->report->runs_lost += is_lost;
            w->report->runs_duplicated += r->answers > 1;
        }
    }
}
