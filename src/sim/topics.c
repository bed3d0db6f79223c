/* Invented publishers and subscribers, and the promises of topics that they hold the nodes to. A
 * message's data is a serial, so it is known wherever it turns up: to a subscriber, in a frame
 * between nodes, or in a worker as an argument of a function that subscribes.
 *
 * What may be missing at a subscriber in the end: what it was told that it lost; what was published
 * before its subscription was known to the publisher; what its publisher took with it when it
 * ended; and what was on its way to a node that the publisher took for dead. In a world without
 * faults the last two do not happen, and the first only to those who are slow. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/sim/world_internal.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"
#include "src/wire/peer.h"
#include "src/wire/topic.h"

#define LETTERS          3
#define TOPICS           (LETTERS + LETTERS * LETTERS + LETTERS * LETTERS * LETTERS)
#define TEXT_MAX         32
#define GAP_LONGEST      MP_MS(60)
#define GAP_IN_THE_END   MP_MS(2)
#define BATCH_MAX        8
#define SUBSCRIBERS_MAX  24 /* at once, and some for each node */
#define BLOCKED_LONGEST  MP_SECONDS(3)
#define SINCE_LONGEST    MP_SECONDS(40)
#define IN_FORCE_WITHIN  MP_SECONDS(1) /* on all nodes */
#define NO_MORE_WITHIN   MP_SECONDS(2) /* after the last one has left, where nothing is lost */
#define ASKED_WITHIN     MP_MS(MP_TOPIC_ASKED_MS)
#define UNDER_WAY        MP_SECONDS(20) /* a message that has not come by then was lost */
#define DELIVERED_WITHIN MP_SECONDS(5)  /* when all is healed */

/* --- books --- */

struct mp_world_topic_message {
    uint32_t serial; /* of the world's; ascending */
    uint32_t node;   /* which accepted it, */
    uint32_t boot;   /* in this life */
    uint32_t topic;
    uint64_t seq; /* 0: not known yet */
    mp_time at;
    int64_t at_ms;
    bool is_refused;
    bool is_in_the_end; /* published when all was healed */
    uint64_t reached;   /* bits: nodes of which the publisher knew that they want it */
};

/* Messages of a node that a subscriber was told to have lost: those between these two, each in a
 * life of the node. */
struct mp_world_topic_gap {
    uint32_t node;
    uint32_t after_boot;
    uint64_t after_seq;
    uint32_t before_boot; /* UINT32_MAX: until the next one comes */
    uint64_t before_seq;
};

struct mp_world_topic_heard {
    uint32_t boot;
    uint64_t seq;
};

struct mp_world_subscriber {
    uint32_t request; /* number, from 1 */
    uint32_t node;
    uint32_t boot;
    uint64_t client;
    char pattern[TEXT_MAX];
    bool is_in_force;
    bool has_since;
    mp_time asked_at;
    int64_t since_ms;
    mp_time ended_at;   /* MP_NEVER */
    mp_time blocked_at; /* 0: it takes what comes */
    mp_time unblocked_at;
    uint32_t gap_count;
    uint32_t gap_capacity;
    struct mp_world_topic_gap *gaps;
    uint32_t got_capacity;
    uint8_t *got;                       /* by message */
    struct mp_world_topic_heard *heard; /* by node */
};

/* A node's life, or the time for which one took another one for dead. */
struct mp_world_topic_span {
    uint32_t node;
    uint32_t other; /* MP_WORLD_NONE: a life; the boot stands in `boot` */
    uint32_t boot;
    mp_time from;
    mp_time until; /* MP_NEVER */
};

struct mp_world_topics {
    uint32_t message_count;
    uint32_t message_capacity;
    struct mp_world_topic_message *messages;
    uint32_t subscriber_count;
    uint32_t subscriber_capacity;
    struct mp_world_subscriber *subscribers;
    uint32_t span_count;
    uint32_t span_capacity;
    struct mp_world_topic_span *spans;
    uint8_t *is_gone;       /* by node and other node: a span is open */
    uint32_t *changes_seen; /* by node: of its members, when it was looked at */
    uint64_t *last_seq;     /* by node, in this life of it: */
    uint32_t *last_boot;
    struct mp_world_client *publishers; /* by node: a connection of one */
    bool is_over;                       /* nobody subscribes any more */
    mp_time over_at;
};

static void check(enum mp_err err)
{
    mp_assert(err == MP_OK);
}

void mp_world_topics_init(struct mp_world *w)
{
    if (w->cfg.scenario != MP_WORLD_TOPICS)
        return;
    struct mp_world_topics *t = (struct mp_world_topics *)mp_world_take(w, sizeof(*t));
    w->topics = t;
    t->is_gone = (uint8_t *)mp_world_take(w, (size_t)w->node_count * w->node_count);
    t->changes_seen = (uint32_t *)mp_world_take(w, w->node_count * sizeof(*t->changes_seen));
    t->last_seq = (uint64_t *)mp_world_take(w, w->node_count * sizeof(*t->last_seq));
    t->last_boot = (uint32_t *)mp_world_take(w, w->node_count * sizeof(*t->last_boot));
    t->publishers =
        (struct mp_world_client *)mp_world_take(w, w->node_count * sizeof(*t->publishers));
}

void mp_world_topics_fini(struct mp_world *w)
{
    struct mp_world_topics *t = w->topics;
    if (!t)
        return;
    for (uint32_t i = 0; i < t->subscriber_count; i++) {
        struct mp_world_subscriber *s = &t->subscribers[i];
        mp_alloc_free(w->alloc, s->gaps, s->gap_capacity * sizeof(*s->gaps));
        mp_alloc_free(w->alloc, s->got, s->got_capacity);
        mp_alloc_free(w->alloc, s->heard, w->node_count * sizeof(*s->heard));
    }
    mp_alloc_free(w->alloc, t->subscribers, t->subscriber_capacity * sizeof(*t->subscribers));
    mp_alloc_free(w->alloc, t->messages, t->message_capacity * sizeof(*t->messages));
    mp_alloc_free(w->alloc, t->spans, t->span_capacity * sizeof(*t->spans));
    mp_alloc_free(w->alloc, t->is_gone, (size_t)w->node_count * w->node_count);
    mp_alloc_free(w->alloc, t->changes_seen, w->node_count * sizeof(*t->changes_seen));
    mp_alloc_free(w->alloc, t->last_seq, w->node_count * sizeof(*t->last_seq));
    mp_alloc_free(w->alloc, t->last_boot, w->node_count * sizeof(*t->last_boot));
    mp_alloc_free(w->alloc, t->publishers, w->node_count * sizeof(*t->publishers));
    mp_alloc_free(w->alloc, t, sizeof(*t));
    w->topics = NULL;
}

static bool is_in_order(const struct mp_world *w)
{
    return !w->has_network_faults && w->report->failed_allocations == 0;
}

/* --- names --- */

/* The words of a topic: "b", "a.c", "c.c.a". */
static struct mp_slice topic_of(uint32_t topic, char *data)
{
    uint32_t words = 1;
    uint32_t count = LETTERS;
    for (; topic >= count; words++) {
        topic -= count;
        count *= LETTERS;
    }
    size_t size = 0;
    for (uint32_t i = 0; i < words; i++) {
        if (i != 0)
            data[size++] = '.';
        data[size++] = (char)('a' + topic % LETTERS);
        topic /= LETTERS;
    }
    return mp_slice_of(data, size);
}

static void draw_pattern(struct mp_world *w, char *out)
{
    static const char words[] = "abc*#";
    uint32_t count = 1 + (uint32_t)mp_rng_below(&w->rng, 3);
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i != 0)
            out[size++] = '.';
        out[size++] = words[mp_rng_below(&w->rng, sizeof(words) - 1)];
    }
    out[size] = '\0';
}

static bool is_match(const char *pattern, uint32_t topic)
{
    char data[TEXT_MAX];
    return mp_topic_is_match(mp_slice_str(pattern), topic_of(topic, data));
}

/* Whether a function of the world is called with it. */
static bool is_called(uint32_t topic)
{
    for (uint32_t i = 0; i < MP_WORLD_SUBSCRIBES; i++)
        if (is_match(mp_world_subscribes[i], topic))
            return true;
    return false;
}

static struct mp_world_topic_message *message_of(struct mp_world_topics *t, uint64_t serial)
{
    uint32_t first = 0;
    uint32_t end = t->message_count;
    while (first < end) {
        uint32_t middle = first + (end - first) / 2;
        if (t->messages[middle].serial < serial)
            first = middle + 1;
        else
            end = middle;
    }
    return first < t->message_count && t->messages[first].serial == serial ? &t->messages[first]
                                                                           : NULL;
}

/* --- lives and deaths --- */

static void open_span(struct mp_world *w, struct mp_world_topic_span s)
{
    struct mp_world_topics *t = w->topics;
    t->spans = (struct mp_world_topic_span *)mp_world_grow(w, t->spans, &t->span_capacity,
                                                           t->span_count + 1, sizeof(*t->spans));
    t->spans[t->span_count++] = s;
}

/* It takes nothing any more: it ended, or is about to. */
void mp_world_topics_node_ended(struct mp_world *w, const struct mp_world_node *n)
{
    struct mp_world_topics *t = w->topics;
    if (!t)
        return;
    for (uint32_t i = 0; i < t->span_count; i++)
        if (t->spans[i].other == MP_WORLD_NONE && t->spans[i].node == n->number &&
            t->spans[i].boot == n->boot)
            return;
    open_span(w, (struct mp_world_topic_span){.node = n->number,
                                              .other = MP_WORLD_NONE,
                                              .boot = n->boot,
                                              .from = w->now,
                                              .until = MP_NEVER});
    for (uint32_t i = 0; i < t->subscriber_count; i++) {
        struct mp_world_subscriber *s = &t->subscribers[i];
        if (s->node == n->number && s->boot == n->boot && s->ended_at == MP_NEVER)
            s->ended_at = w->now;
    }
    for (uint32_t i = 0; i < w->node_count; i++)
        t->is_gone[n->number * w->node_count + i] = 0;
    t->changes_seen[n->number] = 0;
}

/* Looks whom a node takes for dead, or does not know. */
void mp_world_topics_watch(struct mp_world *w, const struct mp_world_node *n)
{
    struct mp_world_topics *t = w->topics;
    if (!t || is_in_order(w))
        return;
    uint32_t changes = mp_membership_changes(mp_node_membership(n->node));
    if (t->changes_seen[n->number] == changes)
        return;
    t->changes_seen[n->number] = changes;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct mp_member_info info;
        uint8_t *is_gone = &t->is_gone[n->number * w->node_count + i];
        bool is_now = i != n->number &&
                      (!mp_world_view(n, w->nodes[i].name, &info) || info.state >= MP_MEMBER_DEAD);
        if (is_now && *is_gone == 0)
            open_span(w, (struct mp_world_topic_span){
                             .node = n->number, .other = i, .from = w->now, .until = MP_NEVER});
        for (uint32_t k = t->span_count; !is_now && *is_gone != 0 && k-- > 0;)
            if (t->spans[k].node == n->number && t->spans[k].other == i) {
                t->spans[k].until = w->now;
                break;
            }
        *is_gone = is_now;
    }
}

/* Whether the publisher of a message took that node for gone while it may have been on its way, or
 * was gone itself. */
static bool is_excused(const struct mp_world *w, const struct mp_world_topic_message *m,
                       uint32_t node)
{
    const struct mp_world_topics *t = w->topics;
    for (uint32_t i = 0; i < t->span_count; i++) {
        const struct mp_world_topic_span *s = &t->spans[i];
        bool is_life = s->other == MP_WORLD_NONE;
        if (s->node != m->node || (is_life ? s->boot != m->boot : s->other != node))
            continue;
        if (s->from <= m->at + UNDER_WAY && (is_life || s->until + MP_SECONDS(1) >= m->at))
            return true;
    }
    return false;
}

/* --- publishing --- */

/* Nodes that the publisher knows to want a topic. */
static uint64_t reached_by(struct mp_world *w, struct mp_world_node *n, struct mp_slice topic)
{
    uint64_t reached = 1ull << n->number;
    for (uint32_t i = 0; i < w->node_count && i < 64; i++) {
        struct mp_catalog_about about;
        struct mp_member_info info;
        struct mp_mp_reader r;
        char data[16];
        uint32_t count = 0;
        const struct mp_membership *m = mp_node_membership(n->node);
        if (w->nodes[i].name == MP_WORLD_NONE)
            continue;
        uint32_t member = mp_membership_find(m, mp_world_name_of(w->nodes[i].name, data));
        if (member == MP_MEMBER_NONE || !mp_membership_get(m, member, &info) ||
            info.state >= MP_MEMBER_DEAD ||
            !mp_catalog_about(mp_node_catalog(n->node), member, &about) || about.topics.size == 0 ||
            mp_mp_get_array(about.topics, &count, &r) != MP_OK)
            continue;
        for (uint32_t k = 0; k < count; k++) {
            struct mp_mp_token pattern;
            if (mp_mp_next(&r, &pattern) == MP_OK && mp_topic_is_match(pattern.bytes, topic))
                reached |= 1ull << i;
        }
    }
    return reached;
}

static void new_message(struct mp_world *w, struct mp_world_node *n, uint32_t topic)
{
    struct mp_world_topics *t = w->topics;
    char data[TEXT_MAX];
    uint32_t serial =
        mp_world_new_serial(w, n->number, &mp_world_functions[0], is_called(topic) ? 1 : 0, 0);
    t->messages = (struct mp_world_topic_message *)mp_world_grow(
        w, t->messages, &t->message_capacity, t->message_count + 1, sizeof(*t->messages));
    t->messages[t->message_count++] =
        (struct mp_world_topic_message){.serial = serial,
                                        .node = n->number,
                                        .boot = n->boot,
                                        .topic = topic,
                                        .at = w->now,
                                        .at_ms = mp_world_wall(w, n),
                                        .is_in_the_end = w->is_healed,
                                        .reached = reached_by(w, n, topic_of(topic, data))};
    w->report->published++;
}

static void put_message(struct mp_buf *b, const struct mp_world_topic_message *m)
{
    char data[TEXT_MAX];
    check(mp_mp_put_array(b, 2));
    check(mp_mp_put_str(b, topic_of(m->topic, data)));
    check(mp_mp_put_uint(b, m->serial));
}

/* The connection of a node's publisher. */
static uint64_t publisher_of(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_world_client *c = &w->topics->publishers[n->number];
    if (c->boot != n->boot)
        *c = (struct mp_world_client){.node = n->number,
                                      .boot = n->boot,
                                      .conn = mp_world_conn_open(w, n, MP_WORLD_CONN_CLIENT)};
    return c->conn;
}

/* The seq that a message turns out to have; all that a node published before and after fits. */
static void note_seq(struct mp_world *w, struct mp_world_topic_message *m, uint64_t seq)
{
    if (m->seq != 0 && m->seq != seq)
        mp_world_violation(w, "topic-order", "a message has two numbers", m->serial);
    m->seq = seq;
}

/* Publishes `count` messages at once; those of a function hear nothing of it. */
static void publish(struct mp_world *w, struct mp_world_node *n, uint32_t count, uint32_t topic)
{
    struct mp_world_topics *t = w->topics;
    bool has_base = t->last_boot[n->number] == n->boot && w->cfg.out_of_memory == 0;
    bool is_of_function = has_base && mp_world_chance(w, 100);
    struct mp_buf payload;
    uint32_t first = t->message_count;
    mp_buf_init(&payload, w->alloc, 0);
    check(mp_mp_put_array(&payload, count));
    for (uint32_t i = 0; i < count; i++) {
        new_message(w, n, topic != MP_WORLD_NONE ? topic : (uint32_t)mp_rng_below(&w->rng, TOPICS));
        put_message(&payload, &t->messages[first + i]);
        if (is_of_function)
            t->messages[first + i].seq = ++t->last_seq[n->number];
    }
    if (is_of_function) {
        const struct mp_node_event ev = {
            .kind = MP_NODE_PUBLISH,
            .request = {.payload = mp_world_payload(w, n, mp_buf_slice(&payload)),
                        .wall_ms = mp_world_wall(w, n)}};
        mp_world_step(w, n, &ev);
    } else {
        mp_world_ask_topic(w, n, publisher_of(w, n), MP_WORLD_PUBLISH, first, &payload);
    }
    mp_buf_fini(&payload);
}

/* What no node may accept. */
static void publish_badly(struct mp_world *w, struct mp_world_node *n)
{
    static const char *const bad[] = {"", "a..b", "a.*", "#", "run.x", "a b"};
    struct mp_buf payload;
    mp_buf_init(&payload, w->alloc, 0);
    check(mp_mp_put_array(&payload, 2));
    check(mp_mp_put_array(&payload, 2));
    check(mp_mp_put_text(&payload, "a"));
    check(mp_mp_put_nil(&payload));
    check(mp_mp_put_array(&payload, 2));
    check(mp_mp_put_text(&payload, bad[mp_rng_below(&w->rng, MP_ARRAY_SIZE(bad))]));
    check(mp_mp_put_nil(&payload));
    mp_world_ask_topic(w, n, publisher_of(w, n), MP_WORLD_PUBLISH, MP_WORLD_NONE, &payload);
    mp_buf_fini(&payload);
}

static int64_t number_in(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    int64_t number;
    if (mp_mp_map_get(map, mp_slice_str(key), &value) != MP_OK ||
        mp_mp_get_int(value, &number) != MP_OK)
        return -1;
    return number;
}

void mp_world_published(struct mp_world *w, struct mp_world_node *n,
                        const struct mp_world_request *r, const struct mp_node_effect *e)
{
    struct mp_world_topics *t = w->topics;
    bool is_bad = r->message == MP_WORLD_NONE;
    if (e->frame != MP_FRAME_RESULT) {
        for (uint32_t i = r->message; !is_bad && i < t->message_count; i++)
            t->messages[i].is_refused = true;
        if (!is_bad && is_in_order(w) && n->state == MP_WORLD_NODE_UP)
            mp_world_violation(w, "topic-lost", "good messages are refused by node",
                               n->number + 1u);
        return;
    }
    int64_t count = number_in(e->payload.bytes, "count");
    int64_t seq = number_in(e->payload.bytes, "seq");
    if (is_bad || count != t->message_count - r->message || seq < count) {
        mp_world_violation(w, "topic-order", "the answer to PUBLISH does not fit it", e->id);
        return;
    }
    for (uint32_t i = r->message; i < t->message_count; i++)
        note_seq(w, &t->messages[i], (uint64_t)(seq - count + 1) + (i - r->message));
    if (t->last_boot[n->number] == n->boot && (uint64_t)(seq - count) != t->last_seq[n->number])
        mp_world_violation(w, "topic-order", "a node left out numbers of messages", e->id);
    t->last_boot[n->number] = n->boot;
    t->last_seq[n->number] = (uint64_t)seq;
}

/* --- subscribing --- */

static struct mp_world_subscriber *any_subscriber(struct mp_world *w)
{
    struct mp_world_topics *t = w->topics;
    for (uint32_t tries = 0; tries < 8 && t->subscriber_count != 0; tries++) {
        struct mp_world_subscriber *s = &t->subscribers[mp_rng_below(&w->rng, t->subscriber_count)];
        const struct mp_world_node *n = &w->nodes[s->node];
        if (s->ended_at == MP_NEVER && n->node && n->boot == s->boot && !mp_world_is_paused(w, n))
            return s;
    }
    return NULL;
}

static void subscribe(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_world_topics *t = w->topics;
    struct mp_subscribe_options o = {0};
    struct mp_world_subscriber *friend = mp_world_chance(w, 300) ? any_subscriber(w) : NULL;
    struct mp_buf meta;
    bool is_bad = mp_world_chance(w, 30);
    uint64_t client = 0;
    if (friend && friend->blocked_at == 0) {
        n = &w->nodes[friend->node];
        client = friend->client;
    }
    if (!mp_world_is_up(n))
        return;
    t->subscribers = (struct mp_world_subscriber *)mp_world_grow(
        w, t->subscribers, &t->subscriber_capacity, t->subscriber_count + 1,
        sizeof(*t->subscribers));
    struct mp_world_subscriber *s = &t->subscribers[t->subscriber_count++];
    *s = (struct mp_world_subscriber){
        .node = n->number, .boot = n->boot, .asked_at = w->now, .ended_at = MP_NEVER};
    s->heard = (struct mp_world_topic_heard *)mp_world_take(w, w->node_count * sizeof(*s->heard));
    draw_pattern(w, s->pattern);
    if (mp_world_chance(w, 400)) {
        o.since_ms = 1 + mp_rng_below(&w->rng, SINCE_LONGEST / MP_MS(1));
        s->has_since = true;
        s->since_ms = mp_world_wall(w, n) - (int64_t)o.since_ms;
    }
    if (mp_world_chance(w, 300))
        o.queue = 1 + mp_rng_below(&w->rng, 20);
    o.pattern = is_bad ? mp_slice_str("a.b*") : mp_slice_str(s->pattern);
    mp_buf_init(&meta, w->alloc, 0);
    check(mp_subscribe_options_put(&meta, &o));
    s->client = client != 0 ? client : mp_world_conn_open(w, n, MP_WORLD_CONN_CLIENT);
    s->request = w->request_count + 1;
    mp_world_ask_topic(w, n, s->client, MP_WORLD_SUBSCRIBE, 0, &meta);
    mp_buf_fini(&meta);
}

static void unsubscribe(struct mp_world *w, struct mp_world_subscriber *s)
{
    struct mp_world_node *n = &w->nodes[s->node];
    const struct mp_node_event ev = {.kind = MP_NODE_CANCEL,
                                     .request = {.client = s->client, .id = s->request}};
    uint32_t request = s->request;
    s->ended_at = w->now;
    mp_world_step(w, n, &ev);
    if (w->requests[request - 1].answers != 1)
        mp_world_violation(w, "one-answer", "a subscription was cancelled and did not end",
                           request);
}

static void press(struct mp_world *w, struct mp_world_subscriber *s)
{
    struct mp_world_topics *t = w->topics;
    struct mp_world_node *n = &w->nodes[s->node];
    uint64_t client = s->client;
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                                     .pressure = {.client = client, .is_high = true}};
    if (s->blocked_at != 0)
        return;
    for (uint32_t i = 0; i < t->subscriber_count; i++)
        if (t->subscribers[i].client == client && t->subscribers[i].node == n->number &&
            t->subscribers[i].ended_at == MP_NEVER)
            t->subscribers[i].blocked_at = w->now;
    mp_world_conn(n, client)->is_high = true;
    mp_world_step(w, n, &ev);
    mp_world_plan(
        w, mp_world_latency(w, BLOCKED_LONGEST),
        (struct mp_world_happening){.kind = MP_WORLD_EASED, .node = n->number, .number = client});
}

void mp_world_topics_eased(struct mp_world *w, const struct mp_world_node *n, uint64_t client)
{
    struct mp_world_topics *t = w->topics;
    for (uint32_t i = 0; t && i < t->subscriber_count; i++) {
        struct mp_world_subscriber *s = &t->subscribers[i];
        if (s->client != client || s->node != n->number || s->blocked_at == 0)
            continue;
        s->blocked_at = 0;
        s->unblocked_at = w->now;
    }
}

/* The subscriptions of a connection end with it. */
void mp_world_topics_client_gone(struct mp_world *w, uint32_t node, uint64_t client)
{
    struct mp_world_topics *t = w->topics;
    for (uint32_t i = 0; t && i < t->subscriber_count; i++) {
        struct mp_world_subscriber *s = &t->subscribers[i];
        if (s->node == node && s->client == client && s->ended_at == MP_NEVER)
            s->ended_at = w->now;
    }
}

/* --- what subscribers get --- */

static struct mp_world_subscriber *subscriber_of(struct mp_world *w, uint64_t request)
{
    struct mp_world_topics *t = w->topics;
    for (uint32_t i = t->subscriber_count; i-- > 0;)
        if (t->subscribers[i].request == request)
            return &t->subscribers[i];
    return NULL;
}

/* [topic, seq, at, data]; NULL: it is none that somebody published. */
static struct mp_world_topic_message *read_message(struct mp_world *w, struct mp_slice bytes)
{
    struct mp_slice parts[4];
    struct mp_slice topic;
    int64_t numbers[3];
    char data[TEXT_MAX];
    for (uint32_t i = 0; i < 4; i++)
        if (mp_mp_array_get(bytes, i, &parts[i]) != MP_OK ||
            (i != 0 && mp_mp_get_int(parts[i], &numbers[i - 1]) != MP_OK))
            return NULL;
    struct mp_world_topic_message *m = message_of(w->topics, (uint64_t)numbers[2]);
    if (!m || m->is_refused || mp_mp_get_str(parts[0], &topic) != MP_OK ||
        !mp_slice_equal(topic, topic_of(m->topic, data)) || numbers[0] <= 0 ||
        numbers[1] != m->at_ms)
        return NULL;
    note_seq(w, m, (uint64_t)numbers[0]);
    return m;
}

/* Whether a publisher began again while its past was gathered. Its numbers are those of the past
 * then: what a full queue lost meanwhile is taken for what was gathered, and what it said before
 * may come behind that. */
static bool began_again(const struct mp_world *w, const struct mp_world_subscriber *s,
                        uint32_t node)
{
    const struct mp_world_topics *t = w->topics;
    mp_time until = s->asked_at + MP_MS(MP_TOPIC_GATHER_MS);
    for (uint32_t i = 0; s->has_since && i < t->span_count; i++)
        if (t->spans[i].other == MP_WORLD_NONE && t->spans[i].node == node &&
            t->spans[i].from >= s->asked_at && t->spans[i].from <= until)
            return true;
    return false;
}

static void take_one(struct mp_world *w, struct mp_world_subscriber *s,
                     const struct mp_world_topic_message *m)
{
    struct mp_world_topics *t = w->topics;
    uint32_t place = (uint32_t)(m - t->messages);
    struct mp_world_topic_heard *h = &s->heard[m->node];
    w->report->delivered++;
    s->got = (uint8_t *)mp_world_grow(w, s->got, &s->got_capacity, place + 1, 1);
    if (s->got[place] != 0)
        mp_world_violation(w, "topic-once", "a subscriber gets a message twice", m->serial);
    else if ((m->boot < h->boot && !began_again(w, s, m->node)) ||
             (m->boot == h->boot && m->seq <= h->seq))
        mp_world_violation(w, "topic-order", "a message comes after a later one", m->serial);
    s->got[place] = 1;
    *h = (struct mp_world_topic_heard){.boot = m->boot, .seq = m->seq};
    if (!is_match(s->pattern, m->topic))
        mp_world_violation(w, "topic-match", "a subscriber gets what it did not ask for",
                           m->serial);
    if (s->has_since && m->at_ms < s->since_ms && m->at + UNDER_WAY < s->asked_at)
        mp_world_violation(w, "topic-since", "a subscriber gets what is older than it asked for",
                           m->serial);
}

/* What is missing between two messages is told ahead of the second. */
static void close_gaps(struct mp_world_subscriber *s, const struct mp_world_topic_message *m)
{
    for (uint32_t i = 0; i < s->gap_count; i++)
        if (s->gaps[i].node == m->node && s->gaps[i].before_boot == UINT32_MAX) {
            s->gaps[i].before_boot = m->boot;
            s->gaps[i].before_seq = m->seq;
        }
}

static void take_batch(struct mp_world *w, struct mp_world_subscriber *s, uint32_t node,
                       const struct mp_peer_messages *meta, struct mp_slice messages)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(messages, &count, &r) != MP_OK || (count == 0 && meta->dropped == 0)) {
        mp_world_violation(w, "topic-match", "MESSAGES without any", s->request);
        return;
    }
    if (meta->dropped != 0) {
        s->gaps = (struct mp_world_topic_gap *)mp_world_grow(w, s->gaps, &s->gap_capacity,
                                                             s->gap_count + 1, sizeof(*s->gaps));
        s->gaps[s->gap_count++] = (struct mp_world_topic_gap){.node = node,
                                                              .after_boot = s->heard[node].boot,
                                                              .after_seq = meta->after_seq,
                                                              .before_boot = UINT32_MAX};
        w->report->dropped += meta->dropped;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice bytes;
        struct mp_world_topic_message *m = NULL;
        if (mp_mp_take(&r, &bytes) == MP_OK)
            m = read_message(w, bytes);
        if (!m || m->node != node) {
            mp_world_violation(w, "topic-match", "a subscriber gets what nobody published",
                               s->request);
            return;
        }
        close_gaps(s, m);
        take_one(w, s, m);
    }
}

void mp_world_subscriber_told(struct mp_world *w, const struct mp_node_effect *e)
{
    struct mp_peer_messages meta;
    struct mp_world_subscriber *s = subscriber_of(w, e->id);
    mp_assert(s);
    if (e->frame == MP_FRAME_EVENT) {
        s->is_in_force = true;
        return;
    }
    if (e->frame != MP_FRAME_MESSAGES) { /* it ends, or never began */
        if (s->ended_at == MP_NEVER)
            s->ended_at = w->now;
        return;
    }
    if (!s->is_in_force)
        mp_world_violation(w, "topic-match", "MESSAGES before it is subscribed", e->id);
    if (s->blocked_at != 0 && s->blocked_at < w->now)
        mp_world_violation(w, "topic-pressure", "MESSAGES to one who takes nothing", e->id);
    if (mp_peer_messages_read(e->context, &meta) != MP_OK) {
        mp_world_violation(w, "topic-match", "MESSAGES whose meta part is malformed", e->id);
        return;
    }
    uint32_t name = mp_world_name_in(w, meta.publisher);
    for (uint32_t i = 0; i < w->node_count; i++)
        if (name != MP_WORLD_NONE && w->nodes[i].name == name) {
            take_batch(w, s, i, &meta, e->payload.bytes);
            return;
        }
    mp_world_violation(w, "topic-match", "MESSAGES of a node that there is not", e->id);
}

/* --- what goes between nodes --- */

/* Whether somebody on a node wants a message, or did when its node could not be known to want it no
 * more. */
static bool is_wanted(const struct mp_world *w, const struct mp_world_node *n,
                      const struct mp_world_topic_message *m)
{
    const struct mp_world_topics *t = w->topics;
    for (uint32_t i = 0; i < t->subscriber_count; i++) {
        const struct mp_world_subscriber *s = &t->subscribers[i];
        mp_duration within = s->has_since ? NO_MORE_WITHIN + ASKED_WITHIN : NO_MORE_WITHIN;
        if (s->node == n->number && is_match(s->pattern, m->topic) &&
            mp_time_add(s->ended_at, within) >= m->at)
            return true;
    }
    return false;
}

void mp_world_topics_came(struct mp_world *w, const struct mp_world_node *n, uint8_t type,
                          struct mp_slice payload)
{
    struct mp_world_topics *t = w->topics;
    uint32_t count;
    struct mp_mp_reader r;
    if (!t || type != MP_FRAME_PUBLISHED || mp_mp_get_array(payload, &count, &r) != MP_OK)
        return;
    if (t->is_over && w->now > t->over_at + NO_MORE_WITHIN + ASKED_WITHIN)
        mp_world_violation(w, "topic-interest", "a message goes where nobody subscribes: node",
                           n->number + 1u);
    for (uint32_t i = 0; is_in_order(w) && i < count; i++) {
        struct mp_slice bytes;
        const struct mp_world_topic_message *m = NULL;
        if (mp_mp_take(&r, &bytes) == MP_OK)
            m = read_message(w, bytes);
        if (m && !is_wanted(w, n, m))
            mp_world_violation(w, "topic-interest", "a message goes where nobody wants it",
                               m->serial);
    }
}

/* --- what happens --- */

static uint32_t live_count(const struct mp_world *w)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < w->topics->subscriber_count; i++)
        count += w->topics->subscribers[i].ended_at == MP_NEVER;
    return count;
}

void mp_world_topic_due(struct mp_world *w)
{
    struct mp_world_node *n = mp_world_any_node(w);
    uint64_t drawn = mp_rng_below(&w->rng, 100);
    struct mp_world_subscriber *s = drawn >= 70 ? any_subscriber(w) : NULL;
    if (w->now >= w->faults_until)
        return;
    if (!n || mp_world_is_paused(w, n))
        ;
    else if (drawn < 55)
        publish(w, n, 1 + (uint32_t)mp_rng_below(&w->rng, BATCH_MAX), MP_WORLD_NONE);
    else if (drawn < 57)
        publish_badly(w, n);
    else if (drawn < 72 && live_count(w) < SUBSCRIBERS_MAX + 2 * w->cfg.nodes)
        subscribe(w, n);
    else if (s && drawn < 82)
        unsubscribe(w, s);
    else if (s && drawn < 86)
        mp_world_client_leaves(w, s->node, s->client);
    else if (s)
        press(w, s);
    mp_world_plan(w, mp_rng_below(&w->rng, GAP_LONGEST) + 1,
                  (struct mp_world_happening){.kind = MP_WORLD_TOPIC_DUE});
}

/* --- in the end --- */

static bool is_before(uint32_t boot, uint64_t seq, uint32_t than_boot, uint64_t than_seq)
{
    return boot < than_boot || (boot == than_boot && seq < than_seq);
}

static bool was_told(const struct mp_world_subscriber *s, const struct mp_world_topic_message *m)
{
    for (uint32_t i = 0; i < s->gap_count; i++) {
        const struct mp_world_topic_gap *g = &s->gaps[i];
        if (g->node == m->node && is_before(g->after_boot, g->after_seq, m->boot, m->seq) &&
            is_before(m->boot, m->seq, g->before_boot, g->before_seq))
            return true;
    }
    return false;
}

/* Whether a subscriber had to get a message, if nothing went wrong between the two nodes. */
static bool must_get(const struct mp_world *w, const struct mp_world_subscriber *s,
                     const struct mp_world_topic_message *m)
{
    mp_time end = s->blocked_at != 0 && s->blocked_at < s->ended_at ? s->blocked_at : s->ended_at;
    if (m->is_refused || !s->is_in_force || !is_match(s->pattern, m->topic))
        return false;
    /* What was on its way when it ended, or waited then, may not have come. */
    mp_duration way = is_in_order(w) ? DELIVERED_WITHIN : UNDER_WAY;
    mp_time from = m->at > s->asked_at ? m->at : s->asked_at;
    if (s->unblocked_at > from)
        from = s->unblocked_at;
    if (s->ended_at != MP_NEVER && mp_time_add(from, way) > end)
        return false;
    if (m->node == s->node && m->boot == s->boot)
        return m->at > s->asked_at || (s->has_since && m->at_ms > s->since_ms);
    if (!is_in_order(w))
        return m->at > s->asked_at && m->node != s->node && (m->reached >> s->node & 1) != 0;
    return s->has_since ? m->at_ms > s->since_ms : m->at > s->asked_at + IN_FORCE_WITHIN;
}

/* For those who live through a seed again. */
static void log_missing(struct mp_world *w, const struct mp_world_subscriber *s,
                        const struct mp_world_topic_message *m)
{
    char data[160];
    char topic[TEXT_MAX];
    struct mp_text text;
    mp_text_init(&text, data, sizeof(data));
    mp_text_put(&text, s->pattern);
    mp_text_put(&text, s->has_since ? " with a past (request " : " (request ");
    mp_text_put_uint(&text, s->request);
    mp_text_put(&text, ", asked for at ");
    mp_text_put_uint(&text, (s->asked_at - MP_WORLD_BEGINS_AT) / MP_MS(1));
    mp_text_put(&text, " ms): node ");
    mp_text_put_uint(&text, m->node + 1u);
    mp_text_put(&text, " published ");
    mp_text_put_slice(&text, topic_of(m->topic, topic));
    mp_text_put(&text, " as ");
    mp_text_put_uint(&text, m->seq);
    mp_text_put(&text, " at ");
    mp_text_put_uint(&text, (m->at - MP_WORLD_BEGINS_AT) / MP_MS(1));
    mp_text_put(&text, " ms");
    mp_world_log(w, &w->nodes[s->node], "lacks a message for", mp_text_slice(&text));
}

static void check_subscriber(struct mp_world *w, const struct mp_world_subscriber *s)
{
    const struct mp_world_topics *t = w->topics;
    for (uint32_t i = 0; i < t->message_count; i++) {
        const struct mp_world_topic_message *m = &t->messages[i];
        bool has_got = i < s->got_capacity && s->got[i] != 0;
        if (has_got || !must_get(w, s, m) || was_told(s, m) ||
            (m->node != s->node && is_excused(w, m, s->node)) ||
            (began_again(w, s, m->node) && m->at <= s->asked_at + MP_MS(MP_TOPIC_GATHER_MS)))
            continue;
        bool is_since = s->has_since && m->at <= s->asked_at + IN_FORCE_WITHIN;
        log_missing(w, s, m);
        mp_world_violation(w, is_since ? "topic-since" : "topic-lost",
                           "a subscriber neither got a message nor was told", m->serial);
        return;
    }
}

static bool is_function_there(const struct mp_world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (mp_world_is_up(&w->nodes[i]) &&
            mp_world_has_module(&w->nodes[i], mp_world_functions[0].module))
            return true;
    return false;
}

static void check_called(struct mp_world *w)
{
    const struct mp_world_topics *t = w->topics;
    for (uint32_t i = 0; i < t->message_count; i++) {
        const struct mp_world_topic_message *m = &t->messages[i];
        if (m->is_in_the_end && !m->is_refused && is_called(m->topic) &&
            w->serials[m->serial].begins != 1)
            mp_world_violation(w, "topic-called", "no function was called with message", m->serial);
    }
}

/* Every node says something on every topic: so whoever lost something is told now. */
static void publish_everything(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        for (uint32_t topic = 0; topic < TOPICS && mp_world_is_up(&w->nodes[i]); topic++) {
            mp_world_run(w, w->now + GAP_IN_THE_END);
            if (mp_world_is_up(&w->nodes[i]))
                publish(w, &w->nodes[i], 1, topic);
        }
}

void mp_world_topics_end(struct mp_world *w)
{
    struct mp_world_topics *t = w->topics;
    mp_world_run(w, w->now + BLOCKED_LONGEST);
    publish_everything(w);
    mp_world_run(w, w->now + DELIVERED_WITHIN);
    for (uint32_t i = 0; i < t->subscriber_count && w->report->failed_allocations == 0; i++)
        check_subscriber(w, &t->subscribers[i]);
    if (w->report->worker_deaths == 0 && is_function_there(w))
        check_called(w);
    for (uint32_t i = 0; i < t->subscriber_count; i++)
        if (t->subscribers[i].ended_at == MP_NEVER)
            unsubscribe(w, &t->subscribers[i]);
    t->is_over = true;
    t->over_at = w->now;
    mp_world_run(w, w->now + NO_MORE_WITHIN + ASKED_WITHIN + MP_SECONDS(1));
    publish_everything(w);
    mp_world_run(w, w->now + MP_SECONDS(1));
}
