/* What is kept of a run. While it goes on: what it runs, once it lasts longer than a moment, and
 * its events, in parts; so what had finished is known if this node dies. At its end the record
 * takes the place of all that: the run object with every result. Results that are too large for it
 * are kept beside it as they come, or are fetched from where they are held when the run is over.
 *
 * A record's body is a map: `run` (the run object as it was answered; nil while it goes on),
 * `results` (nil: they are in `run`), `graph`, `input` (nil: the graph's own) and `pipeline` (nil:
 * the graph came with the request). */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/runs_internal.h"
#include "src/wire/msgpack.h"

#define RESULT_PART   "result/"
#define PROGRESS_PART "progress/"

/* --- the archive --- */

static struct mp_slice put_pair(struct mp_node *n, struct mp_slice a, struct mp_slice b,
                                bool is_text)
{
    struct mp_buf pair;
    struct mp_slice kept = {0};
    mp_buf_init(&pair, n->alloc, 0);
    enum mp_err err = mp_mp_put_array(&pair, 2);
    if (err == MP_OK)
        err = is_text ? mp_mp_put_str(&pair, a) : mp_mp_put_raw(&pair, a);
    if (err == MP_OK)
        err = is_text ? mp_mp_put_str(&pair, b) : mp_mp_put_raw(&pair, b);
    if (err == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&pair));
    mp_buf_fini(&pair);
    return kept;
}

/* An effect for one of the archive's; false without memory. */
static bool carry_one(struct mp_node *n, const struct mp_archive_effect *a)
{
    struct mp_slice run_id = mp_slice_of(a->run_id, MP_RUN_ID_BYTES);
    struct mp_node_effect e = {.kind = MP_NODE_FORGET_RUN,
                               .id = mp_node_ticket(MP_NODE_TICKET_RUN, 0, (uint32_t)a->ticket)};
    if (a->kind == MP_ARCHIVE_KEEP) {
        e.kind = MP_NODE_KEEP_RUN;
        e.payload.bytes = put_pair(n, a->head, a->body, false);
    } else if (a->kind == MP_ARCHIVE_KEEP_PART) {
        e.kind = MP_NODE_KEEP_RUN_PART;
        e.payload.bytes = mp_node_keep(n, a->body);
    }
    e.context = a->kind == MP_ARCHIVE_KEEP_PART ? put_pair(n, run_id, a->name, true)
                                                : mp_node_keep(n, run_id);
    if (e.context.size == 0 || (a->kind != MP_ARCHIVE_FORGET && e.payload.bytes.size == 0) ||
        !mp_node_make_room(n))
        return false;
    *mp_node_emit(n, e.kind) = e;
    return true;
}

static enum mp_err step_archive(struct mp_node *n, mp_time now, const struct mp_archive_event *ev)
{
    uint32_t failed[MP_ARCHIVE_STEP_RECORDS];
    uint32_t failed_count = 0;
    struct mp_archive_effects out;
    enum mp_err err = mp_archive_step(n->archive, now, ev, &out);
    for (uint32_t i = 0; i < out.count; i++)
        if (!carry_one(n, &out.items[i]) && out.items[i].kind != MP_ARCHIVE_FORGET)
            failed[failed_count++] = (uint32_t)out.items[i].ticket;
    for (uint32_t i = 0; i < failed_count; i++) {
        const struct mp_archive_event unkept = {.kind = MP_ARCHIVE_KEPT,
                                                .kept = {.ticket = failed[i], .is_error = true}};
        struct mp_archive_effects none;
        if (mp_archive_step(n->archive, now, &unkept, &none) != MP_OK)
            err = MP_ENOMEM;
    }
    n->records_at = mp_archive_deadline(n->archive);
    return err;
}

static enum mp_err put_part(struct mp_node *n, mp_time now, const struct mp_node_run *run,
                            const struct mp_text *name, struct mp_slice bytes, bool is_progress)
{
    const struct mp_archive_event part = {
        .kind = MP_ARCHIVE_PUT_PART,
        .wall_ms = mp_node_wall(n, now),
        .part = {.run_id = mp_slice_of(run->run_id, MP_RUN_ID_BYTES),
                 .name = mp_text_slice(name),
                 .bytes = bytes,
                 .is_progress = is_progress}};
    return step_archive(n, now, &part);
}

/* --- records --- */

enum mp_err mp_node_record_put_head(struct mp_node *n, mp_time now, struct mp_node_run *run,
                                    size_t body_size, struct mp_buf *b)
{
    bool is_resumed = run->resumed_from.size != 0;
    MP_TRY(mp_mp_put_map(b, 4u + MP_GRAPH_HEAD_PAIRS + is_resumed));
    MP_TRY(mp_mp_put_str_pair(b, "run_id", mp_slice_str(run->run_id)));
    MP_TRY(mp_graph_put_head(run->graph, now, b));
    MP_TRY(mp_mp_put_str_pair(b, "node", n->catalog.node));
    MP_TRY(mp_mp_put_uint_pair(b, "started_at", (uint64_t)run->started_ms));
    MP_TRY(mp_mp_put_uint_pair(b, "bytes", run->kept_bytes + body_size));
    return is_resumed ? mp_mp_put_str_pair(b, "resumed_from", run->resumed_from) : MP_OK;
}

static bool is_ended(const struct mp_node_run *run)
{
    return mp_graph_status_of(run->graph) != MP_GRAPH_RUNNING;
}

static enum mp_err put_value_pair(struct mp_buf *b, const char *key, struct mp_slice value)
{
    MP_TRY(mp_mp_put_text(b, key));
    return value.size != 0 ? mp_mp_put_raw(b, value) : mp_mp_put_nil(b);
}

static enum mp_err put_body(struct mp_node_run *run, struct mp_buf *b)
{
    bool has_results = mp_graph_status_of(run->graph) == MP_GRAPH_SUCCEEDED;
    MP_TRY(mp_mp_put_map(b, 5));
    MP_TRY(put_value_pair(b, "run", run->answer));
    MP_TRY(mp_mp_put_text(b, "results"));
    MP_TRY(has_results ? mp_graph_put_results(run->graph, b) : mp_mp_put_nil(b));
    MP_TRY(put_value_pair(b, "graph", run->graph_bytes));
    MP_TRY(put_value_pair(b, "input", run->input));
    MP_TRY(mp_mp_put_text(b, "pipeline"));
    return run->pipeline.size != 0 ? mp_mp_put_str(b, run->pipeline) : mp_mp_put_nil(b);
}

/* The head as it was kept while the run went on, with another status. */
enum mp_err mp_node_record_put_lost_head(struct mp_slice head, struct mp_buf *b)
{
    uint32_t pairs;
    struct mp_mp_reader r;
    MP_TRY(mp_mp_get_map(head, &pairs, &r));
    MP_TRY(mp_mp_put_map(b, pairs));
    for (uint32_t i = 0; i < pairs; i++) {
        struct mp_slice key;
        struct mp_slice value;
        struct mp_slice text;
        MP_TRY(mp_mp_take(&r, &key));
        MP_TRY(mp_mp_take(&r, &value));
        bool is_status = mp_mp_get_str(key, &text) == MP_OK && mp_slice_is(text, "status");
        MP_TRY(mp_mp_put_raw(b, key));
        MP_TRY(is_status ? mp_mp_put_text(b, "lost") : mp_mp_put_raw(b, value));
    }
    return MP_OK;
}

void mp_node_record_lost(struct mp_node *n, mp_time now, const struct mp_node_run *run)
{
    const struct mp_archive_event lost = {
        .kind = MP_ARCHIVE_LOST,
        .wall_ms = mp_node_wall(n, now),
        .lost = {.run_id = mp_slice_of(run->run_id, MP_RUN_ID_BYTES)}};
    if (run->is_kept)
        (void)!step_archive(n, now, &lost); /* it needs no memory */
}

/* Gives the archive what is known of the run now. Without memory for it the run is kept later, or
 * not at all: it goes on undisturbed. */
static void put_run(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    struct mp_buf *b = &n->record;
    mp_buf_clear(b);
    enum mp_err err = put_body(run, b);
    size_t body_size = b->size;
    if (err == MP_OK)
        err = mp_node_record_put_head(n, now, run, body_size, b);
    if (err == MP_OK) {
        const struct mp_archive_event put = {
            .kind = MP_ARCHIVE_PUT,
            .wall_ms = mp_node_wall(n, now),
            .put = {.run_id = mp_slice_of(run->run_id, MP_RUN_ID_BYTES),
                    .started_ms = run->started_ms,
                    .goes_on = !is_ended(run),
                    .head = mp_slice_of(b->data + body_size, b->size - body_size),
                    .body = mp_slice_of(b->data, body_size)}};
        err = step_archive(n, now, &put);
    }
    if (err != MP_OK && is_ended(run))
        mp_node_record_lost(n, now, run);
    run->is_kept = run->is_kept || err == MP_OK;
    if (b->size > MP_RUN_PART_BYTES)
        mp_buf_fini(b); /* a rare one */
}

/* --- while it goes on --- */

static void name_part(struct mp_text *name, uint32_t number)
{
    mp_text_put(name, PROGRESS_PART);
    for (uint32_t unit = 1000000; unit > 1 && number < unit; unit /= 10)
        mp_text_put(name, "0");
    mp_text_put_uint(name, number);
}

/* Events from run->kept on, up to about MP_RUN_PART_BYTES, as an array. */
static enum mp_err put_events(struct mp_node *n, struct mp_node_run *run, struct mp_buf *b,
                              uint64_t *last)
{
    struct mp_buf events;
    uint32_t count = 0;
    enum mp_err err = MP_OK;
    mp_buf_init(&events, n->alloc, 0);
    *last = run->kept;
    while (err == MP_OK && *last < mp_graph_event_count(run->graph) &&
           events.size < MP_RUN_PART_BYTES) {
        err = mp_graph_put_event(run->graph, ++*last, &events);
        count++;
    }
    if (err == MP_OK)
        err = mp_mp_put_array(b, count);
    if (err == MP_OK)
        err = mp_mp_put_raw(b, mp_buf_slice(&events));
    mp_buf_fini(&events);
    return err;
}

void mp_node_record_progress(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    char bytes[64];
    struct mp_text name;
    struct mp_buf part;
    uint64_t last;
    run->keep_at = MP_NEVER;
    if (run->is_plan || run->parts >= MP_RUN_PARTS_MAX)
        return;
    if (!run->is_kept)
        put_run(n, now, run);
    if (!run->is_kept)
        return;
    mp_buf_init(&part, n->alloc, 0);
    mp_text_init(&name, bytes, sizeof(bytes));
    name_part(&name, run->parts);
    if (put_events(n, run, &part, &last) == MP_OK &&
        put_part(n, now, run, &name, mp_buf_slice(&part), true) == MP_OK) {
        run->parts++;
        run->kept = last;
    }
    mp_buf_fini(&part);
    if (run->kept < mp_graph_event_count(run->graph))
        run->keep_at = mp_time_add(now, MP_MS(MP_RUN_KEEP_EACH_MS));
}

/* A large result that is here is kept at once: it is let go when nobody reads it any more. */
static void keep_large(struct mp_node *n, mp_time now, struct mp_node_run *run, uint32_t step,
                       struct mp_slice value)
{
    char bytes[MP_NODE_STEP_BYTES_MAX + sizeof(RESULT_PART)];
    struct mp_text name;
    if (value.size > MP_RUN_LARGE_BYTES_MAX - run->kept_bytes ||
        value.size > mp_archive_room(n->archive))
        return;
    if (!run->is_kept)
        put_run(n, now, run);
    mp_text_init(&name, bytes, sizeof(bytes));
    mp_text_put(&name, RESULT_PART);
    mp_text_put_slice(&name, mp_graph_step_name(run->graph, step));
    if (run->is_kept && put_part(n, now, run, &name, value, false) == MP_OK)
        run->kept_bytes += value.size;
}

void mp_node_record_events(struct mp_node *n, mp_time now, struct mp_node_run *run, uint64_t from)
{
    uint64_t last = mp_graph_event_count(run->graph);
    uint32_t step;
    struct mp_graph_result result;
    for (uint64_t seq = from + 1; seq <= last; seq++)
        if (mp_graph_event_is_success(run->graph, seq, &step) &&
            mp_graph_result_at(run->graph, step, &result) == MP_OK && result.is_here &&
            result.bytes > MP_TRACE_RESULT_MAX)
            keep_large(n, now, run, step, result.value);
    if (run->keep_at != MP_NEVER)
        return;
    mp_time first = mp_time_add(run->started_at, MP_MS(MP_RUN_KEEP_FIRST_MS));
    mp_time next = mp_time_add(now, MP_MS(MP_RUN_KEEP_EACH_MS));
    run->keep_at = run->parts == 0 ? first : next;
}

/* --- at its end --- */

static bool begin_gather(struct mp_node *n, struct mp_node_run *run,
                         const struct mp_graph_result *result, const struct mp_node_run_gather *g)
{
    if (mp_buf_reserve(&run->gathers, sizeof(*g)) != MP_OK ||
        !mp_node_run_fetch(n, run->number, g->fetch, result->node, result->held))
        return false;
    enum mp_err err = mp_buf_append(&run->gathers, mp_slice_of(g, sizeof(*g)));
    mp_assert(err == MP_OK); /* there was room */
    return true;
}

/* Large results that others hold, of a run that did not succeed: those that unfinished steps refer
 * to. With them the run can be resumed. */
static void gather(struct mp_node *n, struct mp_node_run *run)
{
    size_t left = MP_RUN_LARGE_BYTES_MAX - run->kept_bytes;
    for (uint32_t step = 0; step < mp_graph_step_count(run->graph); step++) {
        struct mp_graph_result result;
        const struct mp_node_run_gather g = {.fetch = ++n->gathers, .step = step};
        if (mp_graph_result_at(run->graph, step, &result) == MP_OK && result.is_held &&
            result.bytes <= left && result.bytes <= mp_archive_room(n->archive) &&
            mp_graph_wants_result(run->graph, mp_graph_step_name(run->graph, step)) &&
            begin_gather(n, run, &result, &g))
            left -= result.bytes;
    }
    run->is_closing = run->gathers.size != 0;
}

bool mp_node_record_ask(struct mp_node *n, struct mp_node_run *run, uint32_t step, uint64_t client,
                        uint64_t id)
{
    struct mp_graph_result result;
    const struct mp_node_run_gather g = {
        .fetch = ++n->gathers, .step = step, .is_asked = true, .client = client, .id = id};
    return mp_graph_result_at(run->graph, step, &result) == MP_OK && result.is_held &&
           begin_gather(n, run, &result, &g);
}

void mp_node_record_ended(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    if (run->is_plan)
        return;
    run->keep_at = MP_NEVER;
    if (mp_graph_has_held(run->graph) && mp_graph_status_of(run->graph) != MP_GRAPH_SUCCEEDED)
        gather(n, run);
    if (!run->is_closing)
        put_run(n, now, run);
}

static bool has_closing(const struct mp_node_run *run)
{
    const struct mp_node_run_gather *all =
        (const struct mp_node_run_gather *)(const void *)run->gathers.data;
    for (size_t i = 0; i < run->gathers.size / sizeof(*all); i++)
        if (!all[i].is_asked)
            return true;
    return false;
}

/* What its holder has let go of may have been kept. */
static void tell_asked(struct mp_node *n, const struct mp_node_run *run,
                       const struct mp_node_run_gather *g, bool is_lost, struct mp_slice value)
{
    struct mp_node_run_ask a = {.kind = MP_NODE_ASK_RESULT, .client = g->client, .id = g->id};
    if (g->client == 0)
        return; /* it is gone */
    if (!is_lost) {
        mp_node_reply(n, g->client, g->id, MP_FRAME_RESULT, mp_node_keep(n, value));
        return;
    }
    memcpy(a.run_id, run->run_id, sizeof(a.run_id));
    mp_node_ask_part(n, &a, mp_graph_step_name(run->graph, g->step));
}

/* All that can be had for the record is there. */
static void close_run(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    run->is_closing = false;
    put_run(n, now, run);
    mp_node_run_release(n, run);
    mp_node_asks_of_run(n, now, mp_slice_of(run->run_id, MP_RUN_ID_BYTES));
}

void mp_node_record_gathered(struct mp_node *n, struct mp_node_run *run, uint64_t fetch,
                             bool is_lost, struct mp_slice value)
{
    struct mp_node_run_gather *all = (struct mp_node_run_gather *)(void *)run->gathers.data;
    uint32_t count = (uint32_t)(run->gathers.size / sizeof(*all));
    uint32_t i = 0;
    while (i < count && all[i].fetch != fetch)
        i++;
    if (i == count)
        return;
    const struct mp_node_run_gather g = all[i];
    all[i] = all[count - 1];
    run->gathers.size -= sizeof(*all);
    is_lost = is_lost || mp_mp_check(value) != MP_OK;
    if (g.is_asked)
        tell_asked(n, run, &g, is_lost, value);
    else if (!is_lost)
        keep_large(n, n->now, run, g.step, value);
    n->is_over_fresh = true;
    if (run->is_closing && !has_closing(run))
        close_run(n, n->now, run);
}

/* --- the archive's life --- */

enum mp_err mp_node_records_init(struct mp_node *n)
{
    const struct mp_archive_config cfg = {.count_max = n->cfg.runs_kept,
                                          .bytes_max = n->cfg.runs_kept_bytes,
                                          .age_ms_max = n->cfg.runs_kept_age / MP_MS(1)};
    mp_buf_init(&n->record, n->alloc, 0);
    mp_buf_init(&n->event, n->alloc, 0);
    n->gathers = MP_NODE_GATHER_FIRST;
    return mp_archive_new(&n->archive, &cfg, n->alloc);
}

void mp_node_records_fini(struct mp_node *n)
{
    mp_archive_free(n->archive);
    mp_buf_fini(&n->record);
    mp_buf_fini(&n->event);
}

/* Heads that the disk had. A run that went on then is lost. */
void mp_node_runs_restored(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_check(ev->stored.bytes) != MP_OK ||
        mp_mp_get_array(ev->stored.bytes, &count, &r) != MP_OK)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice head;
        struct mp_slice value;
        int64_t bytes = 0;
        struct mp_archive_event put = {.kind = MP_ARCHIVE_RESTORED,
                                       .wall_ms = mp_node_wall(n, now)};
        if (mp_mp_take(&r, &head) != MP_OK)
            return;
        put.put.head = head;
        if (mp_mp_map_get(head, mp_slice_str("run_id"), &value) != MP_OK ||
            mp_mp_get_str(value, &put.put.run_id) != MP_OK ||
            put.put.run_id.size != MP_RUN_ID_BYTES ||
            mp_mp_map_get(head, mp_slice_str("started_at"), &value) != MP_OK ||
            mp_mp_get_int(value, &put.put.started_ms) != MP_OK)
            continue;
        put.put.goes_on = mp_slice_is(mp_node_text_of(head, "status"), "running");
        if (mp_mp_map_get(head, mp_slice_str("bytes"), &value) == MP_OK &&
            mp_mp_get_int(value, &bytes) == MP_OK && bytes > 0)
            put.put.bytes = (uint64_t)bytes;
        if (step_archive(n, now, &put) != MP_OK)
            n->is_out_of_memory = true;
    }
}

void mp_node_runs_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    const struct mp_archive_event kept = {
        .kind = MP_ARCHIVE_KEPT,
        .kept = {.ticket = (uint32_t)ev->stored.ticket, .is_error = ev->stored.is_error}};
    (void)step_archive(n, now, &kept);
    if (!ev->stored.is_error ||
        (n->unkept_told_at != 0 && now < mp_time_add(n->unkept_told_at, MP_SECONDS(60))))
        return;
    char bytes[512];
    struct mp_text line;
    n->unkept_told_at = now;
    mp_text_init(&line, bytes, sizeof(bytes));
    mp_text_put(&line, "records of runs are not kept: ");
    mp_text_put_slice(&line, mp_node_text_of(ev->stored.bytes, "message"));
    mp_node_log(n, 2, mp_text_slice(&line));
}

void mp_node_records_tick(struct mp_node *n, mp_time now)
{
    const struct mp_archive_event due = {.kind = MP_ARCHIVE_TIMER, .wall_ms = mp_node_wall(n, now)};
    (void)step_archive(n, now, &due);
}

/* What cannot be given to the disk, for want of memory, is gone with this node; and so are large
 * results that are still on their way here. */
void mp_node_records_flush(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (n->runs[i].graph && n->runs[i].is_closing)
            close_run(n, now, &n->runs[i]);
    const struct mp_archive_event flush = {.kind = MP_ARCHIVE_FLUSH,
                                           .wall_ms = mp_node_wall(n, now)};
    uint64_t dropped = mp_archive_dropped(n->archive);
    while (!mp_archive_is_flushed(n->archive) && mp_archive_dropped(n->archive) == dropped)
        if (step_archive(n, now, &flush) != MP_OK)
            return;
}
