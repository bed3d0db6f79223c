/* What clients ask about runs. A run's id names its coordinator, so any node knows whom to ask, and
 * passes the request on. A run that goes on, or ended a moment ago, is asked itself; any other is
 * looked for among what is kept (run_ask.c). */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/runs_internal.h"
#include "src/wire/msgpack.h"

static const char *const ask_names[MP_NODE_ASK_KINDS] = {[MP_NODE_ASK_TRACE] = "trace",
                                                         [MP_NODE_ASK_RESULT] = "result",
                                                         [MP_NODE_ASK_WATCH] = "watch",
                                                         [MP_NODE_ASK_CANCEL] = "cancel",
                                                         [MP_NODE_ASK_RESUME] = "resume"};

/* --- runs in memory --- */

static void trace_of(struct mp_node *n, mp_time now, const struct mp_node_run_ask *a,
                     struct mp_node_run *run)
{
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_graph_put_trace(run->graph, now, &b);
    mp_node_ask_answer(n, a, err, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void refuse_step(struct mp_node *n, const struct mp_node_run_ask *a, struct mp_node_run *run,
                        struct mp_slice name)
{
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_graph_put_run(run->graph, n->now, &b);
    if (err == MP_OK)
        mp_node_run_refuse_step(n, a->client, a->id, mp_node_value_of(mp_buf_slice(&b), "steps"),
                                name);
    else
        mp_node_ask_no_memory(n, a);
    mp_buf_fini(&b);
}

static void result_of(struct mp_node *n, const struct mp_node_run_ask *a, struct mp_node_run *run)
{
    uint32_t step;
    struct mp_graph_result result;
    struct mp_slice name = mp_slice_of(a->step, a->step_size);
    if (!mp_graph_find_step(run->graph, name, &step))
        refuse_step(n, a, run, name);
    else if (mp_graph_result_at(run->graph, step, &result) != MP_OK)
        mp_node_ask_refuse(n, a, MP_CODE_FAILED_PRECONDITION, "NO_RESULT",
                           run->is_over ? "the step did not succeed, so it has no result"
                                        : "the step has no result yet",
                           "mpreg trace shows how far the run is");
    else if (result.is_here)
        mp_node_ask_answer(n, a, MP_OK, result.value);
    else if (!result.is_held || !mp_node_record_ask(n, run, step, a->client, a->id))
        mp_node_ask_part(n, a, name);
}

static void cancel_run(struct mp_node *n, mp_time now, const struct mp_node_run_ask *a,
                       struct mp_node_run *run)
{
    const struct mp_graph_event cancel = {.kind = MP_GRAPH_CANCEL_RUN};
    const struct mp_node_receipt r = {.client = a->client, .id = a->id};
    if (mp_buf_append(&run->receipts, mp_slice_of(&r, sizeof(r))) != MP_OK)
        mp_node_ask_no_memory(n, a);
    else if (run->is_over)
        mp_node_receipts_end(n, run);
    else
        mp_node_run_step(n, now, run, &cancel);
}

void mp_node_receipts_end(struct mp_node *n, struct mp_node_run *run)
{
    const struct mp_node_receipt *all =
        (const struct mp_node_receipt *)(const void *)run->receipts.data;
    uint32_t count = (uint32_t)(run->receipts.size / sizeof(*all));
    struct mp_buf b;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err =
        count == 0 ? MP_OK
                   : mp_node_ask_put_cancelled(&b, mp_slice_str(run->run_id),
                                               mp_slice_str(mp_graph_status_text(run->graph)));
    if (err == MP_OK && count != 0)
        err = mp_graph_put_receipts(run->graph, &b);
    for (uint32_t i = 0; i < count; i++) {
        const struct mp_node_run_ask a = {.client = all[i].client, .id = all[i].id};
        mp_node_ask_answer(n, &a, err, mp_buf_slice(&b));
    }
    mp_buf_clear(&run->receipts);
    mp_buf_fini(&b);
}

void mp_node_run_waiters_gone(struct mp_node *n, uint64_t client)
{
    for (uint32_t r = 0; r < n->run_capacity; r++) {
        struct mp_node_run *run = &n->runs[r];
        struct mp_node_receipt *all = (struct mp_node_receipt *)(void *)run->receipts.data;
        struct mp_node_run_gather *gathers = (struct mp_node_run_gather *)(void *)run->gathers.data;
        uint32_t count = run->graph ? (uint32_t)(run->receipts.size / sizeof(*all)) : 0;
        uint32_t asked = run->graph ? (uint32_t)(run->gathers.size / sizeof(*gathers)) : 0;
        for (uint32_t i = count; i-- > 0;)
            if (all[i].client == client) {
                all[i] = all[--count];
                run->receipts.size -= sizeof(*all);
            }
        for (uint32_t i = 0; i < asked; i++)
            if (gathers[i].client == client)
                gathers[i].client = 0;
    }
}

static void watch(struct mp_node *n, mp_time now, const struct mp_node_run_ask *a,
                  struct mp_node_run *run)
{
    const struct mp_node_watch w = {
        .client = a->client, .id = a->id, .next = a->after + 1, .is_paused = a->is_paused};
    if (mp_node_watch_add(n, run, &w))
        mp_node_watch_tell(n, now, run);
    else
        mp_node_ask_refuse(n, a, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                           "the node has as many watchers of runs as it takes at once", "");
}

/* A request about a run of this node. */
static void ask_here(struct mp_node *n, mp_time now, const struct mp_node_run_ask *a)
{
    struct mp_node_run *run = mp_node_run_by_id(n, mp_slice_str(a->run_id));
    if (!run || run->is_dead || (a->kind == MP_NODE_ASK_RESUME && run->is_over)) {
        if (run && run->is_closing)
            mp_node_ask_later(n, a);
        else
            mp_node_ask_archive(n, now, a);
        return;
    }
    switch (a->kind) {
    case MP_NODE_ASK_TRACE:
        trace_of(n, now, a, run);
        break;
    case MP_NODE_ASK_RESULT:
        result_of(n, a, run);
        break;
    case MP_NODE_ASK_WATCH:
        watch(n, now, a, run);
        break;
    case MP_NODE_ASK_CANCEL:
        cancel_run(n, now, a, run);
        break;
    case MP_NODE_ASK_RESUME:
    case MP_NODE_ASK_KINDS:
        mp_node_ask_refuse(n, a, MP_CODE_FAILED_PRECONDITION, "RUN_GOES_ON", "the run goes on",
                           "mpreg cancel ends it, mpreg trace --follow watches it");
        break;
    }
}

/* --- of whatever node --- */

/* The member that a run id names: alive, or what is left of it. MP_MEMBER_NONE: no node of that
 * name is known. */
static uint32_t find_coordinator(const struct mp_node *n, uint32_t identity, bool *is_there)
{
    uint32_t found = MP_MEMBER_NONE;
    *is_there = false;
    for (uint32_t i = 0; i < mp_membership_end(n->membership) && !*is_there; i++) {
        struct mp_member_info info;
        if (!mp_membership_get(n->membership, i, &info) ||
            mp_node_run_identity(info.name) != identity)
            continue;
        found = i;
        *is_there = info.state < MP_MEMBER_DEAD;
    }
    return found;
}

static void refuse_lost(struct mp_node *n, const struct mp_node_run_ask *a, struct mp_slice node)
{
    char bytes[256];
    struct mp_text message;
    mp_text_init(&message, bytes, sizeof(bytes));
    mp_text_put(&message, "node ");
    mp_text_put_slice(&message, node);
    mp_text_put(&message, " began this run, and is gone");
    const struct mp_fault fault = {
        .code = MP_CODE_UNAVAILABLE,
        .reason = mp_slice_str("COORDINATOR_LOST"),
        .message = mp_text_slice(&message),
        .hint = mp_slice_str("started again with its --data folder it knows its runs"),
        .node = node};
    mp_node_reply(n, a->client, a->id, MP_FRAME_ERROR, mp_node_error(n, &fault));
}

/* Whether the request is for this node; else it was passed on (`*is_sent`) or answered. */
static bool is_ours(struct mp_node *n, const struct mp_node_event *ev, uint8_t frame,
                    const struct mp_node_run_ask *a, uint32_t identity, bool *is_sent)
{
    bool is_there;
    bool is_peers = mp_node_link_of_client(n, ev->request.client) != MP_NODE_NONE;
    *is_sent = false;
    if (identity == n->identity)
        return true;
    uint32_t member = find_coordinator(n, identity, &is_there);
    if (member == MP_MEMBER_NONE || is_peers) {
        mp_node_ask_unknown(n, a);
        return false;
    }
    if (!is_there)
        refuse_lost(n, a, mp_node_member_name(n, member));
    else
        *is_sent = mp_node_relay_run(n, ev, frame, member);
    return false;
}

static bool read_step(struct mp_slice map, const char *key, struct mp_node_run_ask *a)
{
    struct mp_slice value = mp_node_value_of(map, key);
    struct mp_slice name;
    if (value.size == 0)
        return true;
    if (mp_mp_get_str(value, &name) != MP_OK || name.size > sizeof(a->step))
        return false;
    memcpy(a->step, name.data, name.size);
    a->step_size = name.size;
    return true;
}

/* `after` and `pause` of a watch. */
static bool read_watch(struct mp_node *n, struct mp_slice options, struct mp_node_run_ask *a)
{
    int64_t after = 0;
    struct mp_slice value = mp_node_value_of(options, "after");
    struct mp_slice pause = mp_node_value_of(options, "pause");
    if (value.size != 0 && (mp_mp_get_int(value, &after) != MP_OK || after < 0)) {
        mp_node_ask_refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
                           "after: expected the number of an event", "");
        return false;
    }
    if (pause.size != 0 && mp_mp_get_bool(pause, &a->is_paused) != MP_OK) {
        mp_node_ask_refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
                           "pause: expected true or false", "");
        return false;
    }
    a->after = (uint64_t)after;
    return true;
}

static bool read_run_id(struct mp_node *n, struct mp_slice map, const char *key,
                        struct mp_node_run_ask *a, uint32_t *identity)
{
    struct mp_slice text = mp_node_text_of(map, key);
    if (mp_node_run_id_read(text, a->run_id, identity))
        return true;
    mp_node_ask_refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_RUN_ID",
                       "a run id is 26 digits and letters, as run --detach and runs print it", "");
    return false;
}

/* Runs whose records are not whole yet, the newest first, in scratch memory. NULL without. */
static struct mp_node_run **list_open(struct mp_node *n, uint32_t *count)
{
    struct mp_node_run **open = (struct mp_node_run **)(void *)mp_node_scratch(
        n, (n->run_capacity + 1) * sizeof(struct mp_node_run *));
    *count = 0;
    for (uint32_t i = 0; open && i < n->run_capacity; i++) {
        struct mp_node_run *run = &n->runs[i];
        if (!run->graph || run->is_plan || run->is_dead || !run->is_begun ||
            (run->is_over && !run->is_closing))
            continue;
        uint32_t at = (*count)++;
        for (; at > 0 && open[at - 1]->started_ms < run->started_ms; at--)
            open[at] = open[at - 1];
        open[at] = run;
    }
    return open;
}

/* The next kept run whose record is whole, from `place` on. */
static uint32_t next_kept(const struct mp_node *n, uint32_t place, struct mp_archive_run *kept)
{
    for (; place != MP_ARCHIVE_NONE; place = mp_archive_older(n->archive, place)) {
        mp_archive_get(n->archive, place, kept);
        if (!kept->goes_on)
            break;
    }
    return place;
}

/* The newest first, give or take MP_RUN_KEEP_FIRST_MS: that is how kept ones are in order. */
static enum mp_err put_heads(struct mp_node *n, mp_time now, uint32_t limit, struct mp_buf *heads,
                             uint32_t *count)
{
    struct mp_archive_run kept;
    uint32_t open_count;
    struct mp_node_run **open = list_open(n, &open_count);
    uint32_t place = next_kept(n, mp_archive_newest(n->archive), &kept);
    if (!open)
        return MP_ENOMEM;
    for (uint32_t at = 0; *count < limit && (at < open_count || place != MP_ARCHIVE_NONE);
         ++*count) {
        if (at < open_count &&
            (place == MP_ARCHIVE_NONE || open[at]->started_ms >= kept.started_ms)) {
            MP_TRY(mp_node_record_put_head(n, now, open[at++], 0, heads));
            continue;
        }
        bool is_lost = kept.is_lost && !mp_has_defect(n->cfg.defects, MP_DEFECT_LOST_GOES_ON);
        MP_TRY(is_lost ? mp_node_record_put_lost_head(kept.head, heads)
                       : mp_mp_put_raw(heads, kept.head));
        place = next_kept(n, mp_archive_older(n->archive, place), &kept);
    }
    return MP_OK;
}

static enum mp_err put_runs(struct mp_node *n, mp_time now, uint32_t limit, struct mp_buf *b)
{
    struct mp_buf heads;
    uint32_t count = 0;
    mp_buf_init(&heads, n->alloc, 0);
    enum mp_err err = put_heads(n, now, limit, &heads, &count);
    if (err == MP_OK)
        err = mp_mp_put_map(b, 3);
    if (err == MP_OK)
        err = mp_mp_put_str_pair(b, "node", n->catalog.node);
    if (err == MP_OK)
        err = mp_mp_put_uint_pair(b, "dropped", mp_archive_dropped(n->archive));
    if (err == MP_OK)
        err = mp_mp_put_text(b, "runs");
    if (err == MP_OK)
        err = mp_mp_put_array(b, count);
    if (err == MP_OK)
        err = mp_mp_put_raw(b, mp_buf_slice(&heads));
    mp_buf_fini(&heads);
    return err;
}

static void list_runs(struct mp_node *n, mp_time now, const struct mp_node_run_ask *a,
                      struct mp_slice options)
{
    int64_t limit = 0;
    struct mp_buf b;
    struct mp_slice value = mp_node_value_of(options, "limit");
    if (value.size != 0 && (mp_mp_get_int(value, &limit) != MP_OK || limit < 0)) {
        mp_node_ask_refuse(n, a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
                           "limit: expected a number", "");
        return;
    }
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err =
        put_runs(n, now, limit > 0 && limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX, &b);
    mp_node_ask_answer(n, a, err, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

bool mp_node_run_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                       struct mp_slice what, struct mp_slice options, bool *is_sent)
{
    struct mp_node_run_ask a = {.kind = MP_NODE_ASK_KINDS,
                                .client = ev->request.client,
                                .id = ev->request.id,
                                .wall_ms = ev->request.wall_ms};
    uint32_t identity;
    *is_sent = false;
    if (mp_slice_is(what, "runs")) {
        list_runs(n, now, &a, options);
        return true;
    }
    for (int kind = 0; kind < MP_NODE_ASK_RESUME; kind++)
        if (mp_slice_is(what, ask_names[kind]))
            a.kind = (enum mp_node_ask_kind)kind;
    if (a.kind == MP_NODE_ASK_KINDS)
        return false;
    if (!read_run_id(n, options, "run", &a, &identity))
        return true;
    if (!read_step(options, "step", &a) || (a.kind == MP_NODE_ASK_RESULT && a.step_size == 0))
        mp_node_ask_refuse(n, &a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
                           "step: expected a step's name", "");
    else if (!read_watch(n, options, &a))
        return true;
    else if (is_ours(n, ev, MP_FRAME_QUERY, &a, identity, is_sent))
        ask_here(n, now, &a);
    return true;
}

bool mp_node_run_ask_resume(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                            const struct mp_run_options *o)
{
    struct mp_slice payload = ev->request.payload.bytes;
    struct mp_node_run_ask a = {.kind = MP_NODE_ASK_RESUME,
                                .client = ev->request.client,
                                .id = ev->request.id,
                                .wall_ms = ev->request.wall_ms,
                                .options = *o,
                                .topic = o->topic};
    uint32_t identity;
    bool is_sent = false;
    if (!read_run_id(n, payload, "resume", &a, &identity))
        return false;
    if (!read_step(payload, "from", &a))
        mp_node_ask_refuse(n, &a, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
                           "from: expected a step's name", "");
    else if (is_ours(n, ev, MP_FRAME_RUN, &a, identity, &is_sent))
        ask_here(n, now, &a);
    return is_sent;
}
