/* Who watches runs. A watcher has its place in the run's log of events and is told what it lacks,
 * as fast as its connection takes it: so a slow one lags behind, a late one catches up, and neither
 * costs the run anything. What happens within a millisecond of a connection's last telling is told
 * together, so that short steps do not cost their watchers a wake-up each. Events are made when
 * they are told, once for all who are told in one step. A watcher's last word is the run object,
 * once it has had all events. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/runs_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

static struct mp_node_watch *watches_of(const struct mp_node_run *run, uint32_t *count)
{
    *count = (uint32_t)(run->watches.size / sizeof(struct mp_node_watch));
    return (struct mp_node_watch *)(void *)run->watches.data;
}

static void remove_watch(struct mp_node *n, struct mp_node_run *run, uint32_t at)
{
    uint32_t count;
    struct mp_node_watch *all = watches_of(run, &count);
    memmove(&all[at], &all[at + 1], (count - at - 1) * sizeof(*all));
    run->watches.size -= sizeof(*all);
    n->watch_count--;
    n->is_over_fresh = n->is_over_fresh || run->is_over;
}

bool mp_node_watch_add(struct mp_node *n, struct mp_node_run *run, const struct mp_node_watch *w)
{
    if (n->watch_count >= MP_WATCHES_MAX ||
        mp_buf_append(&run->watches, mp_slice_of(w, sizeof(*w))) != MP_OK)
        return false;
    run->has_follower = run->has_follower || w->is_follow;
    n->watch_count++;
    return true;
}

void mp_node_watch_drop(struct mp_node *n, struct mp_node_run *run)
{
    n->watch_count -= (uint32_t)(run->watches.size / sizeof(struct mp_node_watch));
    mp_buf_clear(&run->watches);
}

/* --- connections with much unread --- */

static uint32_t find_high(const struct mp_node *n, uint64_t client)
{
    const uint64_t *all = (const uint64_t *)(const void *)n->high.data;
    uint32_t count = (uint32_t)(n->high.size / sizeof(*all));
    uint32_t at = 0;
    while (at < count && all[at] != client)
        at++;
    return at < count ? at : MP_NODE_NONE;
}

static void forget_high(struct mp_node *n, uint64_t client)
{
    uint32_t at = find_high(n, client);
    uint64_t *all = (uint64_t *)(void *)n->high.data;
    if (at == MP_NODE_NONE)
        return;
    n->high.size -= sizeof(*all);
    all[at] = all[n->high.size / sizeof(*all)];
}

/* The defect: what a watcher lacks is passed over. */
static void skip_events(struct mp_node_run *run, uint64_t client)
{
    uint32_t count;
    struct mp_node_watch *all = watches_of(run, &count);
    uint64_t last = mp_graph_event_count(run->graph);
    for (uint32_t i = 0; i < count; i++)
        if (all[i].client == client && all[i].next < last)
            all[i].next = last;
}

/* Watchers of a connection go on when it has been read. One that could not be noted as unread is
 * told on, which costs memory, not correctness. */
void mp_node_watch_pressure(struct mp_node *n, mp_time now, uint64_t client, bool is_high)
{
    if (is_high) {
        if (find_high(n, client) == MP_NODE_NONE &&
            mp_buf_append(&n->high, mp_slice_of(&client, sizeof(client))) != MP_OK)
            n->is_out_of_memory = true;
        return;
    }
    forget_high(n, client);
    for (uint32_t i = 0; n->watch_count != 0 && i < n->run_capacity; i++) {
        if (!n->runs[i].graph || n->runs[i].watches.size == 0)
            continue;
        if (mp_has_defect(n->cfg.defects, MP_DEFECT_SKIP_EVENTS))
            skip_events(&n->runs[i], client);
        mp_node_watch_tell(n, now, &n->runs[i]);
    }
}

/* --- telling --- */

static void tell_again(struct mp_node *n, mp_time at)
{
    n->watch_at = at < n->watch_at ? at : n->watch_at;
}

/* Events that were made in this step: those who watch the same run lack the same ones. Where only
 * one watches there is none (NULL). */
struct made {
    uint64_t seq[16];
    struct mp_slice bytes[16];
};

static struct mp_slice find_made(const struct made *made, uint64_t seq)
{
    size_t at = seq % MP_ARRAY_SIZE(made->seq);
    return made && made->seq[at] == seq ? made->bytes[at] : (struct mp_slice){0};
}

static void note_made(struct made *made, uint64_t seq, struct mp_slice bytes)
{
    size_t at = seq % MP_ARRAY_SIZE(made->seq);
    made->seq[at] = seq;
    made->bytes[at] = bytes;
}

/* A rare large one does not keep its memory. */
static void clear_events(struct mp_node *n)
{
    if (n->event.capacity > MP_WATCH_STEP_BYTES)
        mp_buf_fini(&n->event);
    else
        mp_buf_clear(&n->event);
}

/* So much was told in this step that the rest has to wait: the driver shall see first what it does
 * to the connections. */
static bool is_enough(const struct mp_node *n, const struct mp_node_watch *w)
{
    return (n->told_in == n->steps && n->told_bytes >= MP_WATCHES_STEP_BYTES) ||
           (w->told_in == n->steps && w->told_bytes >= MP_WATCH_STEP_BYTES);
}

static bool may_be_told(const struct mp_node *n, const struct mp_node_watch *w)
{
    return !w->is_paused && (n->high.size == 0 || find_high(n, w->client) == MP_NODE_NONE);
}

/* When one may be told more: at the run's end at once. Runs that are watched over one connection
 * share its writes: what it was told of others before now counts as well. */
static mp_time told_next_at(const struct mp_node *n, const struct mp_node_run *run,
                            const struct mp_node_watch *w)
{
    size_t place = w->client % MP_ARRAY_SIZE(n->told);
    mp_time last = w->told_at;
    if (n->told[place].client == w->client && n->told[place].at != n->now)
        last = n->told[place].at > last ? n->told[place].at : last;
    return run->is_over || last == 0 ? 0 : mp_time_add(last, MP_MS(MP_WATCH_GATHER_MS));
}

static void note_told(struct mp_node *n, struct mp_node_watch *w)
{
    size_t place = w->client % MP_ARRAY_SIZE(n->told);
    w->told_at = n->now;
    n->told[place].client = w->client;
    n->told[place].at = n->now;
}

static void count_told(struct mp_node *n, struct mp_node_watch *w, size_t size)
{
    if (w->told_in != n->steps) {
        w->told_in = n->steps;
        w->told_bytes = 0;
    }
    if (n->told_in != n->steps) {
        n->told_in = n->steps;
        n->told_bytes = 0;
    }
    w->told_bytes += size;
    n->told_bytes += size;
}

/* Appends the frame of an event to those that this watcher is told; its size, 0 without memory. */
static size_t put_frame(struct mp_node *n, const struct mp_node_run *run,
                        const struct mp_node_watch *w, const struct made *made)
{
    size_t before = n->event.size;
    struct mp_slice event = find_made(made, w->next);
    enum mp_err err = mp_buf_reserve(&n->event, MP_FRAME_HEADER_BYTES + event.size);
    if (err != MP_OK)
        return 0;
    n->event.size += MP_FRAME_HEADER_BYTES;
    err = event.size != 0 ? mp_buf_append(&n->event, event)
                          : mp_graph_put_event(run->graph, w->next, &n->event);
    if (err != MP_OK) {
        n->event.size = before;
        return 0;
    }
    size_t size = n->event.size - before;
    const struct mp_frame_header h = {
        .size = (uint32_t)(size - MP_FRAME_HEADER_BYTES), .type = MP_FRAME_EVENT, .id = w->id};
    mp_frame_write_header(n->event.data + before, &h);
    return size;
}

/* What was put for a watcher goes out; others who are told the same copy it from there. */
static bool send_events(struct mp_node *n, struct mp_node_watch *w, uint64_t first,
                        struct made *made)
{
    struct mp_node_effect events = {.kind = MP_NODE_EVENTS, .client = w->client};
    events.payload.bytes = mp_node_keep(n, mp_buf_slice(&n->event));
    if (events.payload.bytes.size == 0) {
        w->next = first;
        return false;
    }
    if (!mp_node_is_gone(n, w->client))
        *mp_node_emit(n, MP_NODE_EVENTS) = events;
    struct mp_node_effect one;
    if (made)
        for (uint64_t seq = first; mp_node_next_event(&events, &one); seq++)
            note_made(made, seq, one.payload.bytes);
    return true;
}

/* False: memory is out. */
static bool tell_all(struct mp_node *n, struct mp_node_run *run, struct mp_node_watch *w,
                     struct made *made)
{
    uint64_t last = mp_graph_event_count(run->graph);
    uint64_t first = w->next;
    bool has_memory = mp_node_make_room(n);
    clear_events(n);
    while (has_memory && w->next <= last && may_be_told(n, w) && !is_enough(n, w)) {
        size_t size = put_frame(n, run, w, made);
        has_memory = size != 0;
        count_told(n, w, size);
        w->next += has_memory;
    }
    return (w->next == first || send_events(n, w, first, made)) && has_memory;
}

/* False: memory is out. */
static bool tell_each(struct mp_node *n, mp_time now, struct mp_node_run *run, struct made *made)
{
    uint32_t count;
    struct mp_node_watch *all = watches_of(run, &count);
    uint64_t last = mp_graph_event_count(run->graph);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_node_watch *w = &all[i];
        mp_time at = told_next_at(n, run, w);
        if (w->next > last)
            continue;
        if (now < at) {
            tell_again(n, at);
            continue;
        }
        if (!tell_all(n, run, w, made))
            return false;
        if (w->next > last)
            note_told(n, w);
    }
    return true;
}

static bool tell_events(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    if (run->watches.size == sizeof(struct mp_node_watch))
        return tell_each(n, now, run, NULL);
    struct made made = {0};
    return tell_each(n, now, run, &made);
}

/* The run object for those who have had all events. */
static void tell_end(struct mp_node *n, struct mp_node_run *run)
{
    uint32_t count;
    struct mp_node_watch *all = watches_of(run, &count);
    uint64_t last = mp_graph_event_count(run->graph);
    for (uint32_t i = count; i-- > 0;) {
        if (all[i].next <= last)
            continue;
        if (all[i].is_follow)
            mp_node_run_reply(n, run, MP_FRAME_RESULT, run->answer);
        else
            mp_node_reply(n, all[i].client, all[i].id, MP_FRAME_RESULT, run->answer);
        remove_watch(n, run, i);
    }
}

void mp_node_watch_tell(struct mp_node *n, mp_time now, struct mp_node_run *run)
{
    uint32_t count;
    const struct mp_node_watch *all = watches_of(run, &count);
    if (count == 0 || run->is_dead)
        return;
    mp_assert(run->is_begun);
    if (!tell_events(n, now, run)) {
        tell_again(n, mp_time_add(now, MP_MS(MP_WATCH_AGAIN_MS)));
        return;
    }
    uint64_t last = mp_graph_event_count(run->graph);
    for (uint32_t i = 0; i < count; i++)
        if (all[i].next <= last && is_enough(n, &all[i]) && may_be_told(n, &all[i]))
            tell_again(n, now);
    if (!run->is_over)
        return;
    tell_end(n, run);
    if (run->watches.size != 0)
        tell_again(n, mp_time_add(run->ended_at, MP_MS(MP_WATCH_BEHIND_MS)));
}

void mp_node_watch_end(struct mp_node *n, struct mp_node_run *run, enum mp_code code,
                       const char *reason, const char *message)
{
    uint32_t count;
    const struct mp_node_watch *all = watches_of(run, &count);
    for (uint32_t i = count; i-- > 0;) {
        if (!all[i].is_follow)
            mp_node_refuse(n, all[i].client, all[i].id, code, reason, message);
        else if (!run->is_answered) {
            run->is_answered = true;
            mp_node_refuse(n, all[i].client, all[i].id, code, reason, message);
        }
        remove_watch(n, run, i);
    }
}

/* --- topics --- */

#define TOPIC_BYTES_MAX 64 /* run, a run's id, an event */

static void name_topic(struct mp_text *topic, const struct mp_node_run *run, const char *event)
{
    mp_text_put(topic, "run.");
    mp_text_put(topic, run->run_id);
    mp_text_put(topic, ".");
    mp_text_put(topic, event);
}

/* Whether anybody wants any event of the run: looked at again only when subscriptions changed. */
static bool is_wanted(struct mp_node *n, struct mp_node_run *run)
{
    uint64_t generation = mp_node_topics_generation(n);
    if (mp_node_topics_are_unwanted(n))
        return false;
    if (run->topics_generation == generation + 1)
        return run->is_topic_wanted;
    run->topics_generation = generation + 1; /* 0: it was never asked */
    run->is_topic_wanted = false;
    for (uint32_t i = 0; mp_graph_event_name_of(i) && !run->is_topic_wanted; i++) {
        char bytes[TOPIC_BYTES_MAX];
        struct mp_text topic;
        mp_text_init(&topic, bytes, sizeof(bytes));
        name_topic(&topic, run, mp_graph_event_name_of(i));
        run->is_topic_wanted = mp_node_topics_wants(n, mp_text_slice(&topic));
    }
    return run->is_topic_wanted;
}

void mp_node_run_publish(struct mp_node *n, mp_time now, struct mp_node_run *run, uint64_t from)
{
    bool is_any = is_wanted(n, run);
    if (run->is_dead || (!is_any && run->topic.size == 0))
        return;
    for (uint64_t seq = from + 1; seq <= mp_graph_event_count(run->graph); seq++) {
        char bytes[TOPIC_BYTES_MAX];
        struct mp_text topic;
        mp_text_init(&topic, bytes, sizeof(bytes));
        name_topic(&topic, run, mp_graph_event_name(run->graph, seq));
        bool is_this = is_any && mp_node_topics_wants(n, mp_text_slice(&topic));
        if (!is_this && run->topic.size == 0)
            continue;
        clear_events(n);
        if (mp_graph_put_event(run->graph, seq, &n->event) != MP_OK)
            continue;
        struct mp_slice event = mp_node_keep(n, mp_buf_slice(&n->event));
        if (event.size != 0 && is_this)
            mp_node_topics_publish(n, now, mp_text_slice(&topic), event);
        if (event.size != 0 && run->topic.size != 0)
            mp_node_topics_publish(n, now, run->topic, event);
    }
}

/* --- whoever watched is gone, or has seen enough --- */

bool mp_node_watch_cancel(struct mp_node *n, uint64_t client, uint64_t id)
{
    for (uint32_t r = 0; n->watch_count != 0 && r < n->run_capacity; r++) {
        uint32_t count;
        const struct mp_node_watch *all = watches_of(&n->runs[r], &count);
        for (uint32_t i = 0; n->runs[r].graph && i < count; i++) {
            if (all[i].client != client || all[i].id != id || all[i].is_follow)
                continue;
            remove_watch(n, &n->runs[r], i);
            mp_node_refuse(n, client, id, MP_CODE_CANCELLED, "CANCELLED",
                           "the run is watched no longer");
            return true;
        }
    }
    return false;
}

void mp_node_watch_client_gone(struct mp_node *n, uint64_t client)
{
    forget_high(n, client);
    for (uint32_t r = 0; n->watch_count != 0 && r < n->run_capacity; r++) {
        uint32_t count;
        const struct mp_node_watch *all = watches_of(&n->runs[r], &count);
        for (uint32_t i = n->runs[r].graph ? count : 0; i-- > 0;)
            if (all[i].client == client)
                remove_watch(n, &n->runs[r], i);
    }
}

/* Of a run that is over: a watcher that does not read is given up in the end. */
void mp_node_watch_tick(struct mp_node *n, mp_time now)
{
    n->watch_at = MP_NEVER;
    for (uint32_t i = 0; n->watch_count != 0 && i < n->run_capacity; i++) {
        struct mp_node_run *run = &n->runs[i];
        if (!run->graph || run->watches.size == 0)
            continue;
        mp_node_watch_tell(n, now, run);
        if (run->is_over && run->ended_at + MP_MS(MP_WATCH_BEHIND_MS) <= now)
            mp_node_watch_end(n, run, MP_CODE_RESOURCE_EXHAUSTED, "WATCHER_BEHIND",
                              "the run ended a while ago, and what was told of it is not read");
    }
}
