/* Invented workers. One has one processor: what holds it keeps it until it finishes, sleeps, calls
 * on or spins; then what is ready goes on, and else the oldest call of the ring begins. What it
 * says leaves in order and a moment later; what it had said before it died still counts. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

#define START_LONGEST   MP_MS(20)
#define TURN_LONGEST    MP_MS(8)
#define TURN_HEALED     MP_US(500) /* so that no function's timeout stands in the way */
#define SLEEP_LONGEST   MP_MS(200)
#define MESSAGE_LONGEST MP_US(200)
#define DEATH_LONGEST   MP_MS(3)
#define FULL_LONGEST    MP_MS(20)
#define CANCEL_TRAVELS  MP_MS(100)
#define HUGE_BYTES      70000

static struct mp_world_worker *worker_at(struct mp_world *w, struct mp_world_node *n,
                                         uint32_t place)
{
    n->workers = (struct mp_world_worker **)mp_world_grow(w, n->workers, &n->worker_capacity,
                                                          place + 1, sizeof(*n->workers));
    if (!n->workers[place]) {
        n->workers[place] = (struct mp_world_worker *)mp_world_take(w, sizeof(*n->workers[place]));
        n->workers[place]->place = place;
    }
    return n->workers[place];
}

static void plan(struct mp_world *w, const struct mp_world_node *n, const struct mp_world_worker *k,
                 mp_duration after, enum mp_world_happening_kind kind, uint64_t call)
{
    mp_world_plan(w, after,
                  (struct mp_world_happening){.kind = kind,
                                              .node = n->number,
                                              .place = k->place,
                                              .number = k->incarnation,
                                              .extra = call});
}

static struct mp_world_task *find_task(struct mp_world_worker *k, uint64_t call)
{
    for (uint32_t i = 0; i < k->task_count; i++)
        if (k->tasks[i].call == call)
            return &k->tasks[i];
    return NULL;
}

/* Nobody waits for what the task had asked for. */
static void forget_nested(struct mp_world_worker *k, uint64_t call)
{
    for (uint32_t i = 0; i < k->nested_count; i++)
        if (k->nested[i].parent == call)
            k->nested[i].parent = 0;
}

static void remove_task(struct mp_world_worker *k, struct mp_world_task *t)
{
    uint32_t i = (uint32_t)(t - k->tasks);
    forget_nested(k, t->call);
    k->task_count--;
    memmove(t, t + 1, (k->task_count - i) * sizeof(*t));
}

static void say(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                struct mp_world_message m)
{
    k->messages = (struct mp_world_message *)mp_world_grow(
        w, k->messages, &k->message_capacity, k->message_count + 1, sizeof(*k->messages));
    k->messages[k->message_count++] = m;
    if (k->is_outbox_due)
        return;
    k->is_outbox_due = true;
    plan(w, n, k, mp_world_latency(w, MESSAGE_LONGEST), MP_WORLD_MESSAGES, 0);
}

/* --- what functions do --- */

static void begin_turn(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                       struct mp_world_task *t)
{
    t->state = MP_WORLD_RUNNING;
    k->running = t->call;
    k->running_since = w->now;
    if (!t->is_cancelled && mp_world_chance(w, w->cfg.chances.spins))
        return; /* until it is killed */
    plan(w, n, k, mp_world_latency(w, w->is_healed ? TURN_HEALED : TURN_LONGEST),
         MP_WORLD_TURN_ENDS, t->call);
}

/* Its caller cancelled it long enough ago for that to have come here. */
static void check_cancelled(struct mp_world *w, const struct mp_world_task *t)
{
    mp_time cancelled_at = w->serials[t->serial].cancelled_at;
    if (!t->is_cancelled && !w->has_network_faults && cancelled_at != 0 &&
        w->now > cancelled_at + CANCEL_TRAVELS)
        mp_world_violation(w, "cancel-travels", "a cancelled call goes on", t->serial);
}

static void mark_begun(struct mp_world *w, struct mp_world_task *t)
{
    struct mp_world_serial *s = &w->serials[t->serial];
    t->begun_at = w->now;
    check_cancelled(w, t);
    t->actions_left = w->is_healed ? 0 : (uint32_t)mp_rng_below(&w->rng, 4);
    w->report->calls_begun++;
    if (++s->begins > s->begins_max)
        mp_world_violation(w, "begins", "a call began more often than it may", t->serial);
}

/* Gives the processor to whoever is next. */
static void go_on(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k)
{
    if (k->state != MP_WORLD_WORKER_READY || k->running != 0)
        return;
    for (uint32_t i = 0; i < k->task_count; i++)
        if (k->tasks[i].state == MP_WORLD_READY) {
            begin_turn(w, n, k, &k->tasks[i]);
            return;
        }
    for (uint32_t i = 0; i < k->task_count; i++)
        if (k->tasks[i].state == MP_WORLD_UNBEGUN) {
            mark_begun(w, &k->tasks[i]);
            begin_turn(w, n, k, &k->tasks[i]);
            return;
        }
}

static void die(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                mp_duration after)
{
    if (k->state == MP_WORLD_WORKER_ENDING)
        return;
    k->state = MP_WORLD_WORKER_ENDING;
    plan(w, n, k, after, MP_WORLD_WORKER_DIES, 0);
}

static void finish(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                   struct mp_world_task *t)
{
    bool is_error = t->is_cancelled || mp_world_chance(w, w->cfg.chances.fails);
    check_cancelled(w, t);
    say(w, n, k,
        (struct mp_world_message){.kind = MP_NODE_COMPLETED,
                                  .call = t->call,
                                  .serial = t->serial,
                                  .is_error = is_error,
                                  .begun_at = t->begun_at,
                                  .ended_at = w->now,
                                  .run = t->run});
    remove_task(k, t);
}

static void call_on(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                    struct mp_world_task *t)
{
    t->calling = 1 + (uint32_t)mp_rng_below(&w->rng, 3);
    t->state = MP_WORLD_CALLING;
    for (uint32_t i = 0; i < t->calling; i++) {
        k->nested = (struct mp_world_nested *)mp_world_grow(
            w, k->nested, &k->nested_capacity, k->nested_count + 1, sizeof(*k->nested));
        k->nested[k->nested_count++] = (struct mp_world_nested){.parent = t->call};
        say(w, n, k,
            (struct mp_world_message){
                .kind = MP_NODE_NESTED, .call = t->call, .nested = k->nested_count});
    }
}

static void end_turn(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                     uint64_t call)
{
    struct mp_world_task *t = find_task(k, call);
    mp_assert(t && k->running == call);
    k->running = 0;
    t->run += w->now - k->running_since;
    if (t->is_cancelled || t->actions_left == 0) {
        finish(w, n, k, t);
        return;
    }
    t->actions_left--;
    t->state = MP_WORLD_READY;
    if (mp_world_chance(w, w->cfg.chances.dies)) {
        k->running = call;
        t->state = MP_WORLD_RUNNING;
        die(w, n, k, 0);
    } else if (mp_world_chance(w, w->cfg.chances.calls_on)) {
        call_on(w, n, k, t);
    } else if (mp_world_chance(w, w->cfg.chances.sleeps)) {
        t->state = MP_WORLD_ASLEEP;
        plan(w, n, k, mp_world_latency(w, SLEEP_LONGEST), MP_WORLD_WAKES, call);
    }
}

/* --- what workers say --- */

/* [serial, …] as a result, or an ERROR map. */
static struct mp_slice put_answer(struct mp_world *w, const struct mp_world_message *m,
                                  struct mp_buf *b)
{
    static const enum mp_code codes[] = {MP_CODE_UNKNOWN, MP_CODE_INVALID_ARGUMENT,
                                         MP_CODE_RESOURCE_EXHAUSTED};
    enum mp_err err;
    if (m->is_error) {
        const struct mp_fault fault = {.code = codes[mp_rng_below(&w->rng, 3)],
                                       .reason = mp_slice_str("FUNCTION_ERROR"),
                                       .message = mp_slice_str("it failed"),
                                       .is_final = mp_world_chance(w, 100)};
        err = mp_fault_put(b, &fault);
    } else {
        static const uint8_t zeros[HUGE_BYTES];
        bool is_huge = mp_world_chance(w, w->cfg.chances.is_huge);
        err = mp_mp_put_array(b, 2);
        if (err == MP_OK)
            err = mp_mp_put_uint(b, m->serial);
        if (err == MP_OK)
            err = mp_mp_put_bin(b, mp_slice_of(zeros, is_huge ? sizeof(zeros) : 6));
    }
    mp_assert(err == MP_OK);
    return mp_buf_slice(b);
}

static void say_completed(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                          const struct mp_world_message *m)
{
    struct mp_buf b;
    uint32_t place = k->place;
    if (!mp_node_worker_has(n->node, place, m->call)) {
        mp_world_violation(w, "workers", "the node does not know what its worker has", m->call);
        return;
    }
    mp_buf_init(&b, w->alloc, 0);
    struct mp_slice answer = put_answer(w, m, &b);
    const struct mp_node_event ev = {
        .kind = MP_NODE_COMPLETED,
        .completed = {.worker = place,
                      .call = m->call,
                      .is_error = m->is_error,
                      .is_retiring = mp_world_chance(w, w->cfg.chances.retires),
                      .begun_at = m->begun_at + n->clock,
                      .ended_at = m->ended_at + n->clock,
                      .run = m->run,
                      .payload = answer.size >= HUGE_BYTES ? mp_world_shared(w, n, answer)
                                                           : mp_world_payload(w, n, answer)}};
    mp_world_step(w, n, &ev);
    mp_buf_fini(&b);
}

static enum mp_err put_nested_options(struct mp_world *w, struct mp_buf *b, uint32_t *retries)
{
    bool has_timeout = mp_world_chance(w, 300);
    bool is_bad = mp_world_chance(w, w->cfg.chances.malformed);
    *retries = (uint32_t)mp_rng_below(&w->rng, 3);
    enum mp_err err = mp_mp_put_map(b, 1u + has_timeout + is_bad);
    if (err == MP_OK)
        err = mp_mp_put_text(b, "retries");
    if (err == MP_OK)
        err = mp_mp_put_uint(b, *retries);
    if (err == MP_OK && has_timeout)
        err = mp_mp_put_text(b, "timeout_ms");
    if (err == MP_OK && has_timeout)
        err = mp_mp_put_uint(b, 1 + mp_rng_below(&w->rng, 300));
    if (err == MP_OK && is_bad)
        err = mp_mp_put_text(b, "retrys");
    return err == MP_OK && is_bad ? mp_mp_put_nil(b) : err;
}

static void say_nested(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                       const struct mp_world_message *m)
{
    const struct mp_world_function *f = &mp_world_functions[mp_rng_below(&w->rng, 10)];
    struct mp_buf options;
    struct mp_buf args;
    char name[32];
    struct mp_text text;
    uint32_t retries;
    mp_buf_init(&options, w->alloc, 0);
    mp_buf_init(&args, w->alloc, 0);
    mp_text_init(&text, name, sizeof(name));
    mp_world_put_function_name(f, &text);
    if (mp_world_chance(w, w->cfg.chances.malformed))
        mp_text_put(&text, "!");
    enum mp_err err = put_nested_options(w, &options, &retries);
    const struct mp_world_task *parent = find_task(k, m->call);
    uint32_t root = parent ? w->serials[parent->serial].root : 0;
    uint32_t serial =
        mp_world_new_serial(w, n->number, f, mp_world_begins_max(w, f, retries), root);
    k->nested[m->nested - 1].serial = serial;
    w->serials[serial].step = parent ? w->serials[parent->serial].step : 0;
    if (err == MP_OK)
        err = mp_mp_put_array(&args, 1);
    if (err == MP_OK)
        err = mp_mp_put_uint(&args, serial);
    mp_assert(err == MP_OK);
    const struct mp_node_event ev = {
        .kind = MP_NODE_NESTED,
        .nested = {.worker = k->place,
                   .incarnation = k->incarnation,
                   .parent = m->call,
                   .nested = m->nested,
                   .options = mp_buf_slice(&options),
                   .fun = mp_text_slice(&text),
                   .args = mp_world_payload(w, n, mp_buf_slice(&args))}};
    w->report->nested++;
    mp_world_step(w, n, &ev);
    mp_buf_fini(&options);
    mp_buf_fini(&args);
}

static void say_all(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k)
{
    uint64_t incarnation = k->incarnation;
    /* An effect may make it say more meanwhile. */
    for (uint32_t i = 0; i < k->message_count && k->incarnation == incarnation; i++) {
        const struct mp_world_message m = k->messages[i];
        const struct mp_node_event cancel = {
            .kind = MP_NODE_NESTED_CANCEL,
            .nested = {.worker = k->place, .incarnation = incarnation, .nested = m.nested}};
        if (m.kind == MP_NODE_COMPLETED)
            say_completed(w, n, k, &m);
        else if (m.kind == MP_NODE_NESTED)
            say_nested(w, n, k, &m);
        else
            mp_world_step(w, n, &cancel);
    }
    k->message_count = 0;
    k->is_outbox_due = false;
}

/* --- life and death --- */

static void started(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k)
{
    if (mp_world_chance(w, w->cfg.chances.start_fails)) {
        die(w, n, k, 0);
        return;
    }
    const struct mp_node_event ready = {.kind = MP_NODE_WORKER_READY,
                                        .worker = {.worker = k->place}};
    k->state = MP_WORLD_WORKER_READY;
    mp_world_step(w, n, &ready);
}

static void died(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k)
{
    say_all(w, n, k);
    uint32_t unbegun_count = 0;
    uint32_t task_count = k->task_count;
    uint64_t *unbegun = mp_alloc_take(w->alloc, (task_count + 1) * sizeof(*unbegun));
    mp_assert(unbegun);
    for (uint32_t i = 0; i < task_count; i++)
        if (k->tasks[i].state == MP_WORLD_UNBEGUN)
            unbegun[unbegun_count++] = k->tasks[i].call;
    const struct mp_node_event ev = {.kind = MP_NODE_WORKER_DIED,
                                     .worker = {.worker = k->place,
                                                .incarnation = k->incarnation,
                                                .running = k->running,
                                                .unbegun = unbegun,
                                                .unbegun_count = unbegun_count,
                                                .how = mp_slice_str("signal 9 (SIGKILL)")}};
    k->state = MP_WORLD_WORKER_NONE;
    k->incarnation = 0;
    k->running = 0;
    k->task_count = 0;
    k->nested_count = 0;
    k->is_outbox_due = false;
    w->report->worker_deaths++;
    mp_world_step(w, n, &ev);
    mp_alloc_free(w->alloc, unbegun, (task_count + 1) * sizeof(*unbegun));
}

void mp_world_worker_happening(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_node *n = &w->nodes[h->node];
    struct mp_world_worker *k = n->workers[h->place];
    struct mp_world_task *t;
    if (k->incarnation != h->number)
        return;
    if (mp_world_is_paused(w, n) && h->kind != MP_WORLD_TURN_ENDS && h->kind != MP_WORLD_WAKES) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    if (h->kind == MP_WORLD_WORKER_DIES) {
        died(w, n, k);
        return;
    }
    if (k->state == MP_WORLD_WORKER_ENDING)
        return;
    switch (h->kind) {
    case MP_WORLD_WORKER_STARTED:
        started(w, n, k);
        break;
    case MP_WORLD_TURN_ENDS:
        end_turn(w, n, k, h->extra);
        break;
    case MP_WORLD_MESSAGES:
        say_all(w, n, k);
        break;
    default:
        t = find_task(k, h->extra);
        if (t && t->state == MP_WORLD_ASLEEP)
            t->state = MP_WORLD_READY;
        break;
    }
    go_on(w, n, k);
}

/* --- what the node asks of them --- */

static void tell_returned(struct mp_world *w, const struct mp_node_effect *e, bool is_back,
                          bool is_full)
{
    const struct mp_node_event ev = {
        .kind = MP_NODE_RETURNED,
        .returned = {.worker = e->worker, .call = e->id, .is_back = is_back, .is_full = is_full}};
    mp_world_answer(w, &ev);
}

static void on_send(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                    const struct mp_node_effect *e)
{
    uint32_t serial = mp_world_serial_in(e->payload.bytes);
    if (k->state == MP_WORLD_WORKER_NONE || k->state == MP_WORLD_WORKER_STARTING)
        mp_world_violation(w, "workers", "SEND to a worker that is not ready", e->worker);
    if (serial == 0 || serial >= w->serial_count) {
        mp_world_violation(w, "right-result", "SEND with arguments that nobody gave", e->id);
        return;
    }
    mp_world_code_sent(w, n, e, serial);
    for (uint32_t i = 0; i < n->worker_capacity; i++)
        if (n->workers[i] && n->workers[i]->task_count != 0 && find_task(n->workers[i], e->id))
            mp_world_violation(w, "workers", "SEND of a call that a worker has", e->id);
    if (w->now >= k->full_until && mp_world_chance(w, w->cfg.chances.is_full))
        k->full_until = w->now + mp_world_latency(w, FULL_LONGEST);
    if (w->now < k->full_until) {
        tell_returned(w, e, true, true);
        return;
    }
    k->tasks = (struct mp_world_task *)mp_world_grow(w, k->tasks, &k->task_capacity,
                                                     k->task_count + 1, sizeof(*k->tasks));
    k->tasks[k->task_count++] = (struct mp_world_task){
        .call = e->id, .serial = serial, .module = e->module, .release = e->release};
    go_on(w, n, k);
}

static void on_revoke(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                      const struct mp_node_effect *e)
{
    struct mp_world_task *t = find_task(k, e->id);
    if (t && t->state == MP_WORLD_UNBEGUN && k->state == MP_WORLD_WORKER_READY &&
        mp_world_chance(w, w->cfg.chances.begins_meanwhile)) {
        mark_begun(w, t);
        t->state = MP_WORLD_READY;
        go_on(w, n, k);
    }
    bool is_back = t && t->state == MP_WORLD_UNBEGUN;
    if (is_back)
        remove_task(k, t);
    /* A call that was not even taken (is_full) is on its way back already. */
    for (uint32_t i = w->event_first; i < w->event_count; i++)
        if (w->events[i].kind == MP_NODE_RETURNED && w->events[i].returned.call == e->id)
            return;
    if (is_back || mp_node_worker_has(n->node, e->worker, e->id))
        tell_returned(w, e, is_back, false);
}

static void on_cancel_call(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                           const struct mp_node_effect *e)
{
    struct mp_world_task *t = find_task(k, e->id);
    if (!t)
        return; /* its answer is on its way */
    t->is_cancelled = true;
    if (t->state != MP_WORLD_ASLEEP && t->state != MP_WORLD_CALLING)
        return;
    t->state = MP_WORLD_READY;
    forget_nested(k, t->call);
    go_on(w, n, k);
}

/* The first failure of several sometimes ends the wait for the others. */
static void give_up_waiting(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                            uint64_t call)
{
    for (uint32_t i = 0; i < k->nested_count; i++)
        if (k->nested[i].parent == call && !k->nested[i].is_answered)
            say(w, n, k,
                (struct mp_world_message){
                    .kind = MP_NODE_NESTED_CANCEL, .call = call, .nested = i + 1});
    forget_nested(k, call);
}

static void take_result(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    struct mp_world_worker *k = worker_at(w, n, (uint32_t)e->client);
    if (k->incarnation != e->client)
        return; /* a moment too late */
    if (e->id == 0 || e->id > k->nested_count || k->nested[e->id - 1].is_answered) {
        mp_world_violation(w, "one-answer", "RESULT twice, or of no call", e->id);
        return;
    }
    struct mp_world_nested *nested = &k->nested[e->id - 1];
    nested->is_answered = true;
    if (!e->is_error && mp_world_serial_in(e->payload.bytes) != nested->serial)
        mp_world_violation(w, "right-result", "RESULT of another call", nested->serial);
    if (e->is_error && mp_world_is_harm(w, e->payload.bytes, w->serials[nested->serial].function)) {
        mp_world_log(w, n, "harms", e->payload.bytes);
        mp_world_violation(w, "deploys-harm-nobody", "a call that a function made failed",
                           nested->serial);
    }
    struct mp_world_task *t = nested->parent != 0 ? find_task(k, nested->parent) : NULL;
    if (!t || t->state != MP_WORLD_CALLING)
        return;
    t->calling--;
    bool is_given_up = e->is_error && t->calling != 0 && mp_world_chance(w, 500);
    if (is_given_up)
        give_up_waiting(w, n, k, t->call);
    if (is_given_up || t->calling == 0)
        t->state = MP_WORLD_READY;
    go_on(w, n, k);
}

static void on_result(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    take_result(w, n, e);
    mp_world_give_block(w, n, e->payload.handle);
}

static void on_probe(struct mp_world *w, const struct mp_world_node *n,
                     const struct mp_world_worker *k, uint32_t place)
{
    struct mp_node_event ev = {.kind = MP_NODE_PROBED,
                               .probed = {.worker = place,
                                          .running = k->running,
                                          .since = k->running_since + n->clock,
                                          .progress = w->now, /* it is never stopped */
                                          .has_room = w->now >= k->full_until}};
    for (uint32_t i = 0; i < k->task_count; i++)
        ev.probed.has_unread = ev.probed.has_unread || k->tasks[i].state == MP_WORLD_UNBEGUN;
    mp_world_answer(w, &ev);
}

static void on_start(struct mp_world *w, struct mp_world_node *n, struct mp_world_worker *k,
                     uint32_t place)
{
    if (k->state != MP_WORLD_WORKER_NONE)
        mp_world_violation(w, "workers", "a worker is started where one is", place);
    k->state = MP_WORLD_WORKER_STARTING;
    k->incarnation = ++w->incarnations << 32 | place;
    plan(w, n, k, mp_world_latency(w, START_LONGEST), MP_WORLD_WORKER_STARTED, 0);
}

void mp_world_worker_effect(struct mp_world *w, struct mp_world_node *n,
                            const struct mp_node_effect *e)
{
    if (e->kind == MP_NODE_RESULT) {
        on_result(w, n, e);
        return;
    }
    if (e->worker >= MP_POOL_WORKERS_MAX) {
        mp_world_violation(w, "workers", "there is no such worker", e->worker);
        return;
    }
    struct mp_world_worker *k = worker_at(w, n, e->worker);
    switch (e->kind) {
    case MP_NODE_SEND:
        on_send(w, n, k, e);
        break;
    case MP_NODE_REVOKE:
        on_revoke(w, n, k, e);
        break;
    case MP_NODE_CANCEL_CALL:
        on_cancel_call(w, n, k, e);
        break;
    case MP_NODE_PROBE:
        on_probe(w, n, k, e->worker);
        break;
    case MP_NODE_WORKER_START:
        on_start(w, n, k, e->worker);
        break;
    case MP_NODE_WORKER_STOP:
        if (k->task_count != 0)
            mp_world_violation(w, "workers", "STOP of a worker that has calls", e->worker);
        die(w, n, k, mp_world_latency(w, DEATH_LONGEST));
        break;
    case MP_NODE_WORKER_KILL:
        die(w, n, k, mp_world_latency(w, DEATH_LONGEST));
        break;
    default:
        mp_world_violation(w, "workers", "an effect that no worker knows", e->kind);
        break;
    }
}

bool mp_world_workers_are_idle(const struct mp_world *w, const struct mp_world_node *n)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < n->worker_capacity; i++) {
        const struct mp_world_worker *k = n->workers[i];
        if (!k)
            continue;
        ready += k->state == MP_WORLD_WORKER_READY;
        if (k->task_count != 0 || mp_node_pool(n->node)->workers[i].sent != 0)
            return false;
    }
    return ready == w->cfg.workers;
}

bool mp_world_workers_have_step(const struct mp_world *w, uint32_t step)
{
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct mp_world_node *n = &w->nodes[i];
        for (uint32_t k = 0; n->node && k < n->worker_capacity; k++)
            for (uint32_t t = 0; n->workers[k] && t < n->workers[k]->task_count; t++)
                if (w->serials[n->workers[k]->tasks[t].serial].step == step)
                    return true;
    }
    return false;
}

bool mp_world_workers_name(const struct mp_world_node *n, uint32_t release, uint32_t first_module,
                           uint32_t module_count)
{
    for (uint32_t i = 0; i < n->worker_capacity; i++) {
        const struct mp_world_worker *k = n->workers[i];
        for (uint32_t t = 0; k && t < k->task_count; t++)
            if ((release != 0 && k->tasks[t].release == release) ||
                (k->tasks[t].module >= first_module &&
                 k->tasks[t].module - first_module < module_count))
                return true;
    }
    return false;
}

void mp_world_workers_check_idle(struct mp_world *w, struct mp_world_node *n)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < n->worker_capacity; i++) {
        const struct mp_world_worker *k = n->workers[i];
        if (!k)
            continue;
        ready += k->state == MP_WORLD_WORKER_READY;
        if (k->task_count != 0)
            mp_world_violation(w, "quiet", "calls left with a worker", i);
        if (mp_node_pool(n->node)->workers[i].sent != 0)
            mp_world_violation(w, "quiet", "the pool thinks that a worker has calls", i);
    }
    if (ready != w->cfg.workers)
        mp_world_violation(w, "quiet", "workers that serve, in the end", ready);
}

static void reset(struct mp_world_worker *k)
{
    k->state = MP_WORLD_WORKER_NONE;
    k->incarnation = 0;
    k->running = 0;
    k->task_count = 0;
    k->nested_count = 0;
    k->message_count = 0;
    k->full_until = 0;
    k->is_outbox_due = false;
}

void mp_world_workers_lost(struct mp_world_node *n)
{
    for (uint32_t i = 0; i < n->worker_capacity; i++)
        if (n->workers[i])
            reset(n->workers[i]);
}

void mp_world_workers_fini(struct mp_world *w, struct mp_world_node *n)
{
    for (uint32_t i = 0; i < n->worker_capacity; i++) {
        struct mp_world_worker *k = n->workers[i];
        if (!k)
            continue;
        mp_alloc_free(w->alloc, k->tasks, k->task_capacity * sizeof(*k->tasks));
        mp_alloc_free(w->alloc, k->nested, k->nested_capacity * sizeof(*k->nested));
        mp_alloc_free(w->alloc, k->messages, k->message_capacity * sizeof(*k->messages));
        mp_alloc_free(w->alloc, k, sizeof(*k));
    }
    mp_alloc_free(w->alloc, n->workers, n->worker_capacity * sizeof(*n->workers));
}
