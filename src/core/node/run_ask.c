/* Requests about runs that are over, answered from their records: at once if memory has it, else
 * when the disk gave it. What waits is a struct mp_node_run_ask; FOUND goes on with it. To resume a
 * run its large results are read one after the other, and then the new run begins. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/runs_internal.h"
#include "src/wire/msgpack.h"

/* --- answering --- */

void mp_node_ask_refuse(struct mp_node *n, const struct mp_node_run_ask *a, enum mp_code code,
                        const char *reason, const char *message, const char *hint)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .hint = mp_slice_str(hint),
                                   .node = n->catalog.node};
    mp_node_reply(n, a->client, a->id, MP_FRAME_ERROR, mp_node_error(n, &fault));
}

void mp_node_ask_no_memory(struct mp_node *n, const struct mp_node_run_ask *a)
{
    mp_node_ask_refuse(n, a, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                       "the node has no memory to answer", "");
}

void mp_node_ask_unknown(struct mp_node *n, const struct mp_node_run_ask *a)
{
    char bytes[160];
    struct mp_text message;
    mp_text_init(&message, bytes, sizeof(bytes));
    mp_text_put(&message, "there is no run ");
    mp_text_put(&message, a->run_id);
    mp_text_put(&message, ", or it is kept no longer");
    mp_node_ask_refuse(n, a, MP_CODE_NOT_FOUND, "UNKNOWN_RUN", message.data,
                       "mpreg runs lists those that there are");
}

void mp_node_ask_answer(struct mp_node *n, const struct mp_node_run_ask *a, enum mp_err err,
                        struct mp_slice bytes)
{
    if (err == MP_ECORRUPT)
        mp_node_ask_refuse(n, a, MP_CODE_DATA_LOSS, "BAD_RECORD",
                           "what was kept of this run is damaged", "");
    else if (err != MP_OK)
        mp_node_ask_no_memory(n, a);
    else
        mp_node_reply(n, a->client, a->id, MP_FRAME_RESULT, mp_node_keep(n, bytes));
}

struct mp_slice mp_node_value_of(struct mp_slice map, const char *key)
{
    struct mp_slice value = {0};
    if (map.size == 0 || mp_mp_map_get(map, mp_slice_str(key), &value) != MP_OK ||
        mp_mp_type_of(value) == MP_MP_NIL)
        return (struct mp_slice){0};
    return value;
}

void mp_node_run_refuse_step(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice steps,
                             struct mp_slice name)
{
    char message_bytes[160];
    char hint_bytes[160];
    struct mp_text message;
    struct mp_text hint;
    struct mp_slice best = {0};
    unsigned distance = 4; /* what is further off is no slip of the finger */
    uint32_t count = 0;
    struct mp_mp_reader r;
    struct mp_slice step;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    for (uint32_t i = mp_mp_get_array(steps, &count, &r) == MP_OK ? count : 0; i > 0; i--) {
        if (mp_mp_take(&r, &step) != MP_OK)
            break;
        struct mp_slice candidate = mp_node_text_of(step, "name");
        unsigned edits = mp_slice_distance(candidate, name);
        best = edits < distance ? candidate : best;
        distance = edits < distance ? edits : distance;
    }
    mp_text_put(&message, "the run has no step ");
    mp_text_put_slice(&message, name);
    if (best.size != 0) {
        mp_text_put(&hint, "did you mean ");
        mp_text_put_slice(&hint, best);
        mp_text_put(&hint, "?");
    }
    const struct mp_fault fault = {.code = MP_CODE_INVALID_ARGUMENT,
                                   .reason = mp_slice_str("UNKNOWN_STEP"),
                                   .message = mp_text_slice(&message),
                                   .hint = mp_text_slice(&hint),
                                   .step = name,
                                   .node = n->catalog.node};
    mp_node_reply(n, client, id, MP_FRAME_ERROR, mp_node_error(n, &fault));
}

/* --- requests that wait for the disk --- */

static struct mp_node_run_ask **asks_of(const struct mp_node *n, uint32_t *count)
{
    *count = (uint32_t)(n->run_asks.size / sizeof(struct mp_node_run_ask *));
    return (struct mp_node_run_ask **)(void *)n->run_asks.data;
}

static void free_ask(struct mp_node *n, struct mp_node_run_ask *a)
{
    mp_alloc_free(n->alloc, a->own_topic, a->topic.size);
    mp_alloc_free(n->alloc, a->own_record, a->record_size);
    mp_buf_fini(&a->whole);
    mp_alloc_free(n->alloc, a, sizeof(*a));
}

static void end_ask(struct mp_node *n, uint32_t at)
{
    uint32_t count;
    struct mp_node_run_ask **all = asks_of(n, &count);
    struct mp_node_run_ask *a = all[at];
    all[at] = all[count - 1];
    n->run_asks.size -= sizeof(a);
    free_ask(n, a);
}

static void end_this(struct mp_node *n, const struct mp_node_run_ask *a)
{
    uint32_t count;
    struct mp_node_run_ask **all = asks_of(n, &count);
    uint32_t at = 0;
    while (all[at] != a)
        at++;
    end_ask(n, at);
}

/* The request as one that may wait; NULL: it was refused, for there is no memory, or there are too
 * many. */
static struct mp_node_run_ask *put_aside(struct mp_node *n, const struct mp_node_run_ask *asked)
{
    uint32_t count;
    (void)asks_of(n, &count);
    struct mp_node_run_ask *a = NULL;
    if (count >= MP_RUN_ASKS_MAX) {
        mp_node_ask_refuse(n, asked, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                           "too many requests wait for records of runs", "");
        return NULL;
    }
    if (mp_buf_reserve(&n->run_asks, sizeof(a)) == MP_OK)
        a = mp_alloc_take(n->alloc, sizeof(*a));
    if (!a) {
        mp_node_ask_no_memory(n, asked);
        return NULL;
    }
    *a = *asked;
    mp_buf_init(&a->whole, n->alloc, 0);
    if (a->topic.size != 0)
        a->own_topic = mp_alloc_take(n->alloc, a->topic.size);
    if (a->topic.size != 0 && !a->own_topic) {
        mp_alloc_free(n->alloc, a, sizeof(*a));
        mp_node_ask_no_memory(n, asked);
        return NULL;
    }
    if (a->topic.size != 0)
        memcpy(a->own_topic, asked->topic.data, asked->topic.size);
    a->topic.data = a->own_topic;
    enum mp_err err = mp_buf_append(&n->run_asks, mp_slice_of(&a, sizeof(a)));
    mp_assert(err == MP_OK); /* there was room */
    return a;
}

/* Has something read; FOUND follows. False: no memory. `part` NULL: the record. */
static bool read(struct mp_node *n, struct mp_node_run_ask *a, const struct mp_text *part)
{
    struct mp_buf b;
    struct mp_slice run_id = mp_slice_str(a->run_id);
    struct mp_slice context = {0};
    mp_buf_init(&b, n->alloc, 0);
    if (!part) {
        context = mp_node_keep(n, run_id);
    } else if (mp_mp_put_array(&b, 2) == MP_OK && mp_mp_put_str(&b, run_id) == MP_OK &&
               mp_mp_put_str(&b, mp_text_slice(part)) == MP_OK) {
        context = mp_node_keep(n, mp_buf_slice(&b));
    }
    mp_buf_fini(&b);
    if (context.size == 0 || !mp_node_make_room(n))
        return false;
    n->run_ask_tickets = n->run_ask_tickets == UINT32_MAX ? 1 : n->run_ask_tickets + 1;
    a->ticket = n->run_ask_tickets;
    a->is_part = part != NULL;
    struct mp_node_effect *e = mp_node_emit(n, part ? MP_NODE_READ_RUN_PART : MP_NODE_READ_RUN);
    e->id = mp_node_ticket(MP_NODE_TICKET_RUN, 1, a->ticket);
    e->context = context;
    return true;
}

static void name_result(struct mp_text *part, struct mp_slice step)
{
    mp_text_put(part, "result/");
    mp_text_put_slice(part, step);
}

/* --- what is asked of a record --- */

struct mp_slice mp_node_record_results(struct mp_slice body, struct mp_slice run)
{
    struct mp_slice results = mp_node_value_of(body, "results");
    return results.size != 0 ? results : mp_node_value_of(run, "results");
}

bool mp_node_ask_find_step(struct mp_slice run, struct mp_slice name, struct mp_slice *step)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    for (uint32_t i = mp_mp_get_array(mp_node_value_of(run, "steps"), &count, &r) == MP_OK ? count
                                                                                           : 0;
         i > 0; i--)
        if (mp_mp_take(&r, step) != MP_OK)
            return false;
        else if (mp_slice_equal(mp_node_text_of(*step, "name"), name))
            return true;
    return false;
}

static bool is_large(struct mp_slice step)
{
    int64_t size = 0;
    return mp_mp_get_int(mp_node_value_of(step, "bytes_out"), &size) == MP_OK &&
           size > MP_TRACE_RESULT_MAX;
}

bool mp_node_ask_has_succeeded(struct mp_slice step)
{
    return mp_slice_is(mp_node_text_of(step, "status"), "succeeded");
}

/* True: it waits for the disk now. */
static bool result_of_record(struct mp_node *n, struct mp_node_run_ask *a, struct mp_slice body,
                             struct mp_slice run)
{
    char bytes[MP_NODE_STEP_BYTES_MAX + 16];
    struct mp_text part;
    struct mp_slice step;
    struct mp_slice value;
    struct mp_slice name = mp_slice_of(a->step, a->step_size);
    if (!mp_node_ask_find_step(run, name, &step)) {
        mp_node_run_refuse_step(n, a->client, a->id, mp_node_value_of(run, "steps"), name);
    } else if (!mp_node_ask_has_succeeded(step)) {
        mp_node_ask_refuse(n, a, MP_CODE_FAILED_PRECONDITION, "NO_RESULT",
                           "the step did not succeed, so it has no result",
                           "mpreg why says what happened");
    } else if (is_large(step)) {
        mp_text_init(&part, bytes, sizeof(bytes));
        name_result(&part, name);
        if (read(n, a, &part))
            return true;
        mp_node_ask_no_memory(n, a);
    } else if (mp_mp_map_get(mp_node_record_results(body, run), name, &value) == MP_OK) {
        mp_node_ask_answer(n, a, MP_OK, value);
    } else {
        mp_node_ask_answer(n, a, MP_ECORRUPT, (struct mp_slice){0});
    }
    return false;
}

/* Of a lost run nobody knows what began after its last events were kept. */
static const char *outcome_of(struct mp_slice step, bool is_lost)
{
    struct mp_slice status = mp_node_text_of(step, "status");
    bool has_ended = mp_slice_is(status, "succeeded") || mp_slice_is(status, "failed") ||
                     mp_slice_is(status, "timed_out");
    if (has_ended)
        return "done";
    return is_lost && !mp_slice_is(status, "skipped") ? "unreachable" : "never_started";
}

static enum mp_err put_outcomes(struct mp_slice run, struct mp_buf *b)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    bool is_lost = mp_slice_is(mp_node_text_of(run, "status"), "lost");
    struct mp_slice receipts = mp_node_value_of(run, "receipts");
    if (receipts.size != 0)
        return mp_mp_put_raw(b, receipts);
    MP_TRY(mp_mp_get_array(mp_node_value_of(run, "steps"), &count, &r));
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice step;
        MP_TRY(mp_mp_take(&r, &step));
        MP_TRY(mp_mp_put_map(b, 2));
        MP_TRY(mp_mp_put_str_pair(b, "name", mp_node_text_of(step, "name")));
        MP_TRY(mp_mp_put_str_pair(b, "outcome", mp_slice_str(outcome_of(step, is_lost))));
    }
    return MP_OK;
}

enum mp_err mp_node_ask_put_cancelled(struct mp_buf *b, struct mp_slice run_id,
                                      struct mp_slice status)
{
    MP_TRY(mp_mp_put_map(b, 3));
    MP_TRY(mp_mp_put_str_pair(b, "run_id", run_id));
    MP_TRY(mp_mp_put_str_pair(b, "status", status));
    return mp_mp_put_text(b, "steps");
}

/* A run that is over cannot be cancelled any more: how it ended is the answer. */
static void receipts_of_record(struct mp_node *n, const struct mp_node_run_ask *a,
                               struct mp_slice run)
{
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err =
        mp_node_ask_put_cancelled(&b, mp_slice_str(a->run_id), mp_node_text_of(run, "status"));
    if (err == MP_OK)
        err = put_outcomes(run, &b);
    mp_node_ask_answer(n, a, err, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* The run object without `levels`, as a run answers when it ends. */
static void end_of_record(struct mp_node *n, const struct mp_node_run_ask *a, struct mp_slice run)
{
    struct mp_buf b;
    uint32_t pairs = 0;
    struct mp_mp_reader r;
    struct mp_slice key;
    struct mp_slice value;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_get_map(run, &pairs, &r);
    if (err == MP_OK)
        err = mp_mp_put_map(&b, pairs - (mp_node_value_of(run, "levels").size != 0));
    for (uint32_t i = 0; err == MP_OK && i < pairs; i++) {
        struct mp_slice text = {0};
        err = mp_mp_take(&r, &key);
        if (err == MP_OK)
            err = mp_mp_take(&r, &value);
        if (err != MP_OK || (mp_mp_get_str(key, &text) == MP_OK && mp_slice_is(text, "levels")))
            continue;
        err = mp_mp_put_raw(&b, key);
        if (err == MP_OK)
            err = mp_mp_put_raw(&b, value);
    }
    mp_node_ask_answer(n, a, err, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* --- resuming --- */

static void begin_resumed(struct mp_node *n, mp_time now, struct mp_node_run_ask *a)
{
    struct mp_buf whole;
    struct mp_run_options o = a->options;
    if (n->is_draining) { /* since it was asked for */
        mp_node_ask_refuse(n, a, MP_CODE_UNAVAILABLE, "DRAINING", "the node is about to stop", "");
        return;
    }
    mp_buf_init(&whole, n->alloc, 0);
    enum mp_err err = mp_mp_put_map(&whole, a->whole_count);
    if (err == MP_OK)
        err = mp_mp_put_raw(&whole, mp_buf_slice(&a->whole));
    o.topic = a->topic;
    a->resume.whole = mp_buf_slice(&whole);
    if (err == MP_OK)
        mp_node_run_resume(n, now, a->client, a->id, a->wall_ms, &o, &a->resume);
    else
        mp_node_ask_no_memory(n, a);
    mp_buf_fini(&whole);
}

/* Reads the next large result of a step that succeeded, or begins. True: it waits for the disk. */
static bool go_on(struct mp_node *n, mp_time now, struct mp_node_run_ask *a)
{
    char bytes[MP_NODE_STEP_BYTES_MAX + 16];
    struct mp_text part;
    struct mp_slice step;
    while (!mp_mp_is_at_end(&a->steps) && mp_mp_take(&a->steps, &step) == MP_OK) {
        if (!mp_node_ask_has_succeeded(step) || !is_large(step))
            continue;
        a->reading = mp_node_text_of(step, "name");
        mp_text_init(&part, bytes, sizeof(bytes));
        name_result(&part, a->reading);
        if (read(n, a, &part))
            return true;
        mp_node_ask_no_memory(n, a);
        return false;
    }
    begin_resumed(n, now, a);
    return false;
}

/* Copies what the new run needs of the record. False: no memory. */
static bool keep_record(struct mp_node *n, struct mp_node_run_ask *a, struct mp_slice body,
                        struct mp_slice run)
{
    const struct mp_slice parts[] = {
        mp_node_value_of(body, "graph"), mp_node_value_of(body, "input"),
        mp_node_text_of(body, "pipeline"), mp_node_value_of(run, "steps"),
        mp_node_record_results(body, run)};
    struct mp_slice *const places[] = {&a->resume.graph, &a->resume.input, &a->resume.pipeline,
                                       &a->resume.steps, &a->resume.results};
    uint32_t count;
    for (size_t i = 0; i < MP_ARRAY_SIZE(parts); i++)
        a->record_size += parts[i].size;
    a->own_record = mp_alloc_take(n->alloc, a->record_size + 1);
    if (!a->own_record) {
        a->record_size = 0;
        return false;
    }
    uint8_t *at = a->own_record;
    a->record_size++;
    for (size_t i = 0; i < MP_ARRAY_SIZE(parts); i++) {
        if (parts[i].size != 0)
            memcpy(at, parts[i].data, parts[i].size);
        *places[i] = mp_slice_of(at, parts[i].size);
        at += parts[i].size;
    }
    a->resume.run_id = mp_slice_str(a->run_id);
    a->resume.from = mp_slice_of(a->step, a->step_size);
    return mp_mp_get_array(a->resume.steps, &count, &a->steps) == MP_OK;
}

static bool may_resume(struct mp_node *n, const struct mp_node_run_ask *a, struct mp_slice run)
{
    bool is_whole = mp_slice_is(mp_node_text_of(run, "status"), "succeeded");
    struct mp_slice step;
    struct mp_slice from = mp_slice_of(a->step, a->step_size);
    if (is_whole && from.size == 0) {
        mp_node_ask_refuse(n, a, MP_CODE_FAILED_PRECONDITION, "RUN_SUCCEEDED",
                           "the run succeeded: nothing is left to be done",
                           "--from STEP runs it again from a step on");
        return false;
    }
    if (from.size != 0 && !mp_node_ask_find_step(run, from, &step)) {
        mp_node_run_refuse_step(n, a->client, a->id, mp_node_value_of(run, "steps"), from);
        return false;
    }
    return true;
}

/* The run object of a record; of a lost run it is made of what was kept. */
static enum mp_err run_of(struct mp_node *n, struct mp_slice head, struct mp_slice body,
                          struct mp_slice progress, struct mp_buf *made, struct mp_slice *run)
{
    if (mp_mp_check(body) != MP_OK || mp_mp_type_of(body) != MP_MP_MAP)
        return MP_ECORRUPT;
    *run = mp_node_value_of(body, "run");
    if (run->size != 0)
        return MP_OK;
    enum mp_err err = mp_node_trace_put(n, head, body, progress, made);
    *run = mp_buf_slice(made);
    return err;
}

/* True: the request goes on waiting. */
static bool resume_record(struct mp_node *n, mp_time now, struct mp_node_run_ask *a,
                          struct mp_slice body, struct mp_slice run)
{
    if (!may_resume(n, a, run))
        return false;
    if (keep_record(n, a, body, run))
        return go_on(n, now, a);
    mp_node_ask_no_memory(n, a);
    return false;
}

/* What is asked is answered from a record. True: the request goes on waiting. */
static bool with_record(struct mp_node *n, mp_time now, struct mp_node_run_ask *a,
                        struct mp_slice head, struct mp_slice body, struct mp_slice progress)
{
    struct mp_buf made;
    struct mp_slice run;
    bool is_waiting = false;
    mp_buf_init(&made, n->alloc, 0);
    enum mp_err err = a->kind == MP_NODE_ASK_TRACE
                          ? mp_node_trace_put(n, head, body, progress, &made)
                          : run_of(n, head, body, progress, &made, &run);
    if (err != MP_OK || a->kind == MP_NODE_ASK_TRACE)
        mp_node_ask_answer(n, a, err, mp_buf_slice(&made));
    else if (a->kind == MP_NODE_ASK_RESULT)
        is_waiting = result_of_record(n, a, body, run);
    else if (a->kind == MP_NODE_ASK_CANCEL)
        receipts_of_record(n, a, run);
    else if (a->kind == MP_NODE_ASK_WATCH)
        end_of_record(n, a, run);
    else
        is_waiting = resume_record(n, now, a, body, run);
    mp_buf_fini(&made);
    return is_waiting;
}

/* --- what the disk gave --- */

static bool put_found(struct mp_buf *b, struct mp_slice name, struct mp_slice value)
{
    size_t before = b->size;
    if (mp_mp_check(value) == MP_OK && mp_mp_put_str(b, name) == MP_OK &&
        mp_mp_put_raw(b, value) == MP_OK)
        return true;
    b->size = before;
    return false;
}

/* True: the request goes on waiting. */
static bool found_part(struct mp_node *n, mp_time now, struct mp_node_run_ask *a,
                       const struct mp_node_event *ev)
{
    bool is_there = !ev->stored.is_missing && !ev->stored.is_error;
    a->ticket = 0;
    if (a->kind == MP_NODE_ASK_RESUME) {
        /* Without it its step runs again, if anybody needs it. */
        if (is_there && put_found(&a->whole, a->reading, ev->stored.bytes))
            a->whole_count++;
        return go_on(n, now, a);
    }
    if (is_there && mp_mp_check(ev->stored.bytes) == MP_OK)
        mp_node_ask_answer(n, a, MP_OK, ev->stored.bytes);
    else
        mp_node_ask_refuse(n, a, MP_CODE_DATA_LOSS, "RESULT_LOST",
                           "this large result is not kept: there was no room for it, or no time",
                           "mpreg resume --from runs its step again");
    return false;
}

static bool found_record(struct mp_node *n, mp_time now, struct mp_node_run_ask *a,
                         const struct mp_node_event *ev)
{
    struct mp_slice head;
    struct mp_slice body;
    struct mp_slice progress = {0};
    struct mp_slice record = ev->stored.bytes;
    a->ticket = 0;
    if (ev->stored.is_error) {
        mp_node_reply(n, a->client, a->id, MP_FRAME_ERROR, mp_node_keep(n, record));
    } else if (ev->stored.is_missing) {
        mp_node_ask_unknown(n, a);
    } else if (mp_mp_check(record) != MP_OK || mp_mp_array_get(record, 0, &head) != MP_OK ||
               mp_mp_array_get(record, 1, &body) != MP_OK) {
        mp_node_ask_answer(n, a, MP_ECORRUPT, (struct mp_slice){0});
    } else {
        if (mp_mp_array_get(record, 2, &progress) != MP_OK)
            progress = (struct mp_slice){0};
        return with_record(n, now, a, head, body, progress);
    }
    return false;
}

void mp_node_runs_found(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint32_t count;
    struct mp_node_run_ask **all = asks_of(n, &count);
    uint32_t at = 0;
    while (at < count && all[at]->ticket != (uint32_t)ev->stored.ticket)
        at++;
    if (at == count)
        return; /* whoever asked is gone */
    struct mp_node_run_ask *a = all[at];
    if (!(a->is_part ? found_part(n, now, a, ev) : found_record(n, now, a, ev)))
        end_this(n, a);
}

bool mp_node_run_ask_cancel(struct mp_node *n, uint64_t client, uint64_t id)
{
    uint32_t count;
    struct mp_node_run_ask **all = asks_of(n, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (all[i]->client != client || all[i]->id != id)
            continue;
        mp_node_ask_refuse(n, all[i], MP_CODE_CANCELLED, "CANCELLED", "it was cancelled", "");
        end_ask(n, i);
        return true;
    }
    return false;
}

void mp_node_run_asks_client_gone(struct mp_node *n, uint64_t client)
{
    uint32_t count;
    struct mp_node_run_ask **all = asks_of(n, &count);
    for (uint32_t i = count; i-- > 0;)
        if (all[i]->client == client)
            end_ask(n, i);
}

void mp_node_run_asks_fini(struct mp_node *n)
{
    uint32_t count;
    (void)asks_of(n, &count);
    while (count > 0)
        end_ask(n, --count);
    mp_buf_fini(&n->run_asks);
}

/* The run's record answers the request: now, or when the disk gave it. */
static void ask_record(struct mp_node *n, mp_time now, struct mp_node_run_ask *a)
{
    uint32_t place = mp_archive_find(n->archive, mp_slice_str(a->run_id));
    struct mp_archive_run kept = {0};
    bool is_waiting = false;
    if (place != MP_ARCHIVE_NONE)
        mp_archive_get(n->archive, place, &kept);
    if (place == MP_ARCHIVE_NONE)
        mp_node_ask_unknown(n, a);
    else if (kept.is_bodyless)
        mp_node_ask_refuse(n, a, MP_CODE_DATA_LOSS, "RECORD_LOST",
                           "the disk was too slow to keep the record of this run", "");
    else if (kept.body.size != 0 && !kept.is_lost)
        is_waiting = with_record(n, now, a, kept.head, kept.body, (struct mp_slice){0});
    else if (read(n, a, NULL))
        is_waiting = true;
    else
        mp_node_ask_no_memory(n, a);
    if (!is_waiting)
        end_this(n, a);
}

void mp_node_ask_archive(struct mp_node *n, mp_time now, const struct mp_node_run_ask *asked)
{
    struct mp_node_run_ask *a = put_aside(n, asked);
    if (a)
        ask_record(n, now, a);
}

void mp_node_ask_part(struct mp_node *n, const struct mp_node_run_ask *asked, struct mp_slice step)
{
    char bytes[MP_NODE_STEP_BYTES_MAX + 16];
    struct mp_text part;
    struct mp_node_run_ask *a = put_aside(n, asked);
    mp_text_init(&part, bytes, sizeof(bytes));
    name_result(&part, step);
    if (!a || read(n, a, &part))
        return;
    mp_node_ask_no_memory(n, a);
    end_this(n, a);
}

void mp_node_ask_later(struct mp_node *n, const struct mp_node_run_ask *asked)
{
    (void)put_aside(n, asked);
}

void mp_node_asks_of_run(struct mp_node *n, mp_time now, struct mp_slice run_id)
{
    uint32_t count;
    struct mp_node_run_ask **all = asks_of(n, &count);
    for (uint32_t i = count; i-- > 0;)
        if (all[i]->ticket == 0 && mp_slice_is(run_id, all[i]->run_id)) {
            ask_record(n, now, all[i]);
            all = asks_of(n, &count);
        }
}
