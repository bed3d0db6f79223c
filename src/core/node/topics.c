/* Topics: joins the machine of core/topic to clients, links and the catalog. What clients and
 * functions publish goes into the machine; what comes out goes to clients as MESSAGES, to other
 * nodes as PUBLISHED, and to functions as calls (subscribed.c).
 *
 * Who is interested in what travels with the catalog: this node's entry has the patterns of its
 * clients' subscriptions, and the entries of others are what its own messages are sent by. The
 * first change of the patterns is told at once, further ones at most every MP_TOPIC_TELL_MS, so
 * that subscribers who come and go cost the cluster little.
 *
 * Between two nodes one PUBLISHED is on its way at a time, so batches cannot overtake each other;
 * one that was believed lost and arrives later all the same, over a link that had ended or by way
 * of a helper, is known by its generation and first seq, and refused. So a message comes at most
 * once, and in order.
 *
 * The machine is never stepped while its effects are being read. What its effects point to is good
 * until its next step only: mp_node_topics_step copies what was borrowed before it takes one. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

#define RETRY      MP_SECONDS(1) /* of what there was no memory for */
#define NO_REQUEST 1             /* no request has this number: a generation is above it */

/* --- stepping the machine --- */

/* What clients are given lies in the machine; it is about to be stepped again. */
static void copy_borrowed(struct mp_node *n)
{
    if (!n->topics.has_borrowed)
        return;
    n->topics.has_borrowed = false;
    for (uint32_t i = 0; i < n->effect_count; i++) {
        struct mp_node_effect *e = &n->effects[i];
        if (e->kind == MP_NODE_REPLY && e->frame == MP_FRAME_MESSAGES)
            e->payload.bytes = mp_node_keep(n, e->payload.bytes);
    }
}

static void deliver(struct mp_node *n, const struct mp_topic_effect *e)
{
    bool is_untold = mp_has_defect(n->cfg.defects, MP_DEFECT_DROPS_UNTOLD);
    const struct mp_peer_messages m = {.publisher = e->publisher,
                                       .dropped = is_untold ? 0 : e->dropped,
                                       .after_seq = e->after_seq};
    if (mp_node_is_gone(n, e->client) || (is_untold && e->count == 0))
        return;
    mp_buf_clear(&n->build);
    struct mp_slice meta = {0};
    if (mp_peer_messages_put(&n->build, &m) == MP_OK)
        meta = mp_node_keep(n, mp_buf_slice(&n->build));
    if (meta.size == 0) {
        n->is_out_of_memory = true;
        return;
    }
    struct mp_node_effect *out = mp_node_emit(n, MP_NODE_REPLY);
    out->client = e->client;
    out->id = e->id;
    out->frame = MP_FRAME_MESSAGES;
    out->context = meta;
    out->payload.bytes = e->payload;
    n->topics.has_borrowed = true;
}

/* A place for what goes to a member. */
static bool has_place(struct mp_node *n, uint32_t member)
{
    struct mp_node_topics *t = &n->topics;
    if (member < t->member_capacity)
        return true;
    uint32_t capacity = member + member / 4 + 16;
    void *grown =
        n->alloc->resize(n->alloc->context, t->members, t->member_capacity * sizeof(*t->members),
                         capacity * sizeof(*t->members));
    if (!grown) {
        n->is_out_of_memory = true;
        return false;
    }
    t->members = (struct mp_node_topic_member *)grown;
    memset(t->members + t->member_capacity, 0,
           (capacity - t->member_capacity) * sizeof(*t->members));
    t->member_capacity = capacity;
    return true;
}

/* What goes to it is not awaited any more. */
static void give_up_on(struct mp_node *n, uint32_t member)
{
    if (member >= n->topics.member_capacity)
        return;
    struct mp_node_topic_member *m = &n->topics.members[member];
    struct mp_node_out *o = m->out != 0 ? mp_node_out_get(n, m->out) : NULL;
    n->topics.forwards -= m->out != 0;
    n->topics.ended -= m->is_ended;
    m->out = 0;
    m->is_ended = false;
    if (o)
        mp_node_out_give_up(n, o);
}

static void forward(struct mp_node *n, const struct mp_topic_effect *e)
{
    const struct mp_peer_messages m = {.publisher = n->catalog.node,
                                       .dropped = e->dropped,
                                       .after_seq = e->after_seq,
                                       .generation = mp_membership_generation(n->membership)};
    struct mp_node_topic_member *member = &n->topics.members[e->member];
    struct mp_node_out *o = NULL;
    mp_assert(e->member < n->topics.member_capacity); /* made when its interest was told */
    give_up_on(n, e->member);                         /* of one that wanted nothing for a while */
    mp_buf_clear(&n->build);
    if (mp_peer_messages_put(&n->build, &m) == MP_OK)
        o = mp_node_out_new(n, MP_NODE_OUT_PUBLISHED, MP_FRAME_PUBLISHED, e->member, e->member, 0,
                            (struct mp_slice){0}, mp_buf_slice(&n->build),
                            (struct mp_rpc_payload){.bytes = e->payload});
    n->topics.forwards++;
    member->out = o ? o->id : NO_REQUEST;
    if (o)
        mp_node_outs_flush(n, o->link);
    else
        mp_node_topics_published(n, e->member, NO_REQUEST, true);
}

static struct mp_node_gather *take_gather(struct mp_node *n)
{
    struct mp_node_topics *t = &n->topics;
    for (uint32_t i = 0; i < t->gather_capacity; i++)
        if (t->gathers[i].left == 0)
            return &t->gathers[i];
    uint32_t capacity = t->gather_capacity == 0 ? 8 : t->gather_capacity * 2;
    void *grown =
        n->alloc->resize(n->alloc->context, t->gathers, t->gather_capacity * sizeof(*t->gathers),
                         capacity * sizeof(*t->gathers));
    if (!grown)
        return NULL;
    t->gathers = (struct mp_node_gather *)grown;
    memset(t->gathers + t->gather_capacity, 0,
           (capacity - t->gather_capacity) * sizeof(*t->gathers));
    struct mp_node_gather *g = &t->gathers[t->gather_capacity];
    t->gather_capacity = capacity;
    return g;
}

/* Asks all other nodes for what they have kept of a pattern. Without memory the machine's own
 * patience ends it. */
static void gather(struct mp_node *n, const struct mp_topic_effect *e)
{
    struct mp_member_info info;
    const struct mp_peer_backlog b = {
        .pattern = e->pattern, .since_ms = e->since_ms, .asker = n->catalog.node};
    struct mp_node_gather *g = take_gather(n);
    if (!g)
        return;
    *g = (struct mp_node_gather){.number = e->gather};
    mp_buf_clear(&n->topics.build);
    bool is_built = mp_peer_backlog_put(&n->topics.build, &b) == MP_OK;
    for (uint32_t i = 1; is_built && i < mp_membership_end(n->membership); i++) {
        if (!mp_membership_get(n->membership, i, &info) || info.state >= MP_MEMBER_DEAD)
            continue;
        struct mp_node_out *o = mp_node_out_new(
            n, MP_NODE_OUT_BACKLOG, MP_FRAME_BACKLOG, i, e->gather, 0, (struct mp_slice){0},
            mp_buf_slice(&n->topics.build), (struct mp_rpc_payload){0});
        if (!o)
            continue;
        g->left++;
        mp_node_outs_flush(n, o->link);
    }
    if (g->left != 0)
        return;
    g->left = 1;
    mp_node_put_off(n, MP_NODE_WORK_GATHERED, e->gather)->is_lost = true;
}

/* One KEEP is under way at a time, so all have the same ticket. */
static void keep(struct mp_node *n, const struct mp_topic_effect *e, enum mp_node_effect_kind kind)
{
    struct mp_slice bytes = mp_node_keep(n, e->payload);
    if (bytes.size == 0) {
        n->topics.is_keep_lost = kind == MP_NODE_KEEP_MESSAGES;
        return;
    }
    struct mp_node_effect *out = mp_node_emit(n, kind);
    out->id = mp_node_ticket(MP_NODE_TICKET_MESSAGES, 0, 0);
    out->payload.bytes = bytes;
}

static void carry_out(struct mp_node *n, const struct mp_topic_effect *e)
{
    switch (e->kind) {
    case MP_TOPIC_DELIVER:
        deliver(n, e);
        break;
    case MP_TOPIC_CALL:
        mp_node_subscribed_call(n, e);
        break;
    case MP_TOPIC_MISSED:
        mp_node_subscribed_missed(n, e);
        break;
    case MP_TOPIC_FORWARD:
        forward(n, e);
        break;
    case MP_TOPIC_GATHER:
        gather(n, e);
        break;
    case MP_TOPIC_KEEP:
        keep(n, e, MP_NODE_KEEP_MESSAGES);
        break;
    case MP_TOPIC_FORGET:
        keep(n, e, MP_NODE_FORGET_MESSAGES);
        break;
    }
}

/* Steps the machine; what it wants done is for carry_out_all(). */
static enum mp_err step(struct mp_node *n, mp_time now, const struct mp_topic_event *ev,
                        struct mp_topic_effects *out)
{
    mp_assert(!n->topics.is_stepping);
    copy_borrowed(n);
    enum mp_err err = mp_topic_step(n->topics.machine, now, ev, out);
    n->topics.machine_at = mp_topic_deadline(n->topics.machine);
    if (err == MP_ENOMEM)
        n->is_out_of_memory = true;
    n->topics.is_interest_changed = n->topics.is_interest_changed || out->is_interest_changed;
    return err;
}

static void carry_out_all(struct mp_node *n, const struct mp_topic_effects *out)
{
    n->topics.is_stepping = true;
    for (uint32_t i = 0; i < out->count; i++)
        carry_out(n, &out->items[i]);
    n->topics.is_stepping = false;
}

enum mp_err mp_node_topics_step(struct mp_node *n, mp_time now, const struct mp_topic_event *ev,
                                struct mp_topic_effects *out)
{
    enum mp_err err = step(n, now, ev, out);
    carry_out_all(n, out);
    return err;
}

/* One that cannot fail, or that may. */
static void step_quietly(struct mp_node *n, mp_time now, const struct mp_topic_event *ev)
{
    struct mp_topic_effects out;
    (void)mp_node_topics_step(n, now, ev, &out);
}

/* --- requests of clients --- */

static void release_payload(struct mp_node *n, const struct mp_node_event *ev)
{
    if (ev->request.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->request.payload;
}

static void refuse_fault(struct mp_node *n, const struct mp_node_event *ev, struct mp_fault *fault)
{
    fault->node = n->catalog.node;
    mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR, mp_node_error(n, fault));
}

/* What a function published cannot be refused any more: it is not waiting. */
static void refuse_publish(struct mp_node *n, const struct mp_node_event *ev,
                           struct mp_fault *fault)
{
    char bytes[512];
    struct mp_text text;
    if (ev->request.client != 0) {
        refuse_fault(n, ev, fault);
        return;
    }
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "what functions published is dropped: ");
    mp_text_put_slice(&text, fault->message);
    if (mp_node_may_tell(n, &n->topics.publish_told, &text))
        mp_node_log(n, 2, mp_text_slice(&text));
}

static void refuse_static(struct mp_node *n, const struct mp_node_event *ev, enum mp_code code,
                          const char *reason, const char *message)
{
    struct mp_fault fault = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str(message)};
    refuse_publish(n, ev, &fault);
}

static bool is_reserved(struct mp_slice topic)
{
    return topic.size >= 3 && memcmp(topic.data, "run", 3) == 0 &&
           (topic.size == 3 || topic.data[3] == '.');
}

/* The first message whose topic belongs to runs; false if there is none. Whether all of it is sound
 * the machine says. */
static bool find_reserved(struct mp_slice messages, uint32_t *index)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(messages, &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token pair;
        struct mp_mp_token topic;
        if (mp_mp_next(&r, &pair) != MP_OK || pair.type != MP_MP_ARRAY || pair.count != 2 ||
            mp_mp_next(&r, &topic) != MP_OK || topic.type != MP_MP_STR)
            return false;
        if (is_reserved(topic.bytes)) {
            *index = i;
            return true;
        }
        if (mp_mp_skip(&r) != MP_OK)
            return false;
    }
    return false;
}

/* The fault of a message that is one of several names it. */
static void refuse_topic(struct mp_node *n, const struct mp_node_event *ev, uint32_t index,
                         const char *why)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    struct mp_fault fault = {.code = MP_CODE_INVALID_ARGUMENT,
                             .reason = mp_slice_str("BAD_TOPIC"),
                             .message = mp_slice_str(why)};
    if (mp_mp_get_array(ev->request.payload.bytes, &count, &r) == MP_OK && count > 1)
        fault.index = (int64_t)index + 1;
    refuse_publish(n, ev, &fault);
}

static void refuse_messages(struct mp_node *n, const struct mp_node_event *ev, enum mp_err err,
                            const struct mp_topic_effects *out)
{
    switch (err) {
    case MP_EINVAL:
        refuse_topic(n, ev, out->bad_index, out->message);
        break;
    case MP_ETOOLARGE:
        refuse_static(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                      "more messages are published at once than 65536");
        break;
    case MP_ECORRUPT:
        refuse_static(n, ev, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST",
                      "the payload is no array of [topic, data]");
        break;
    default:
        refuse_static(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                      "the node has no memory for more messages");
    }
}

static enum mp_err put_accepted(struct mp_node *n, uint64_t seq, uint32_t count)
{
    mp_buf_clear(&n->build);
    MP_TRY(mp_mp_put_map(&n->build, 3));
    MP_TRY(mp_mp_put_str_pair(&n->build, "publisher", n->catalog.node));
    MP_TRY(mp_mp_put_uint_pair(&n->build, "seq", seq));
    return mp_mp_put_uint_pair(&n->build, "count", count);
}

static void publish(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint32_t index;
    struct mp_topic_effects out;
    const struct mp_topic_event publish = {.kind = MP_TOPIC_PUBLISH,
                                           .wall_ms = (uint64_t)mp_node_wall(n, now),
                                           .publish = ev->request.payload.bytes};
    if (find_reserved(ev->request.payload.bytes, &index)) {
        refuse_topic(n, ev, index, "topics that begin with run. are those of runs");
        return;
    }
    enum mp_err err = mp_node_topics_step(n, now, &publish, &out);
    if (err != MP_OK) {
        refuse_messages(n, ev, err, &out);
        return;
    }
    if (ev->request.client == 0)
        return;
    err = put_accepted(n, out.seq, out.published);
    mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_RESULT,
                  err == MP_OK ? mp_node_keep(n, mp_buf_slice(&n->build)) : (struct mp_slice){0});
}

void mp_node_publish(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice meta = ev->request.meta;
    mp_node_wall_is(n, now, ev->request.wall_ms);
    if (n->is_draining && ev->request.client != 0)
        refuse_static(n, ev, MP_CODE_UNAVAILABLE, "DRAINING", "the node is about to stop");
    else if (meta.size != 0 && (mp_mp_check(meta) != MP_OK ||
                                mp_mp_get_array(meta, &count, &r) != MP_OK || count != 0))
        refuse_static(n, ev, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", "meta: expected []");
    else if (ev->request.payload.bytes.size > n->cfg.value_bytes_max)
        refuse_static(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                      "the messages are larger than --value-max allows");
    else
        publish(n, now, ev);
    release_payload(n, ev);
}

static void refuse_subscription(struct mp_node *n, const struct mp_node_event *ev, enum mp_err err,
                                const char *why)
{
    struct mp_fault fault = {.code = MP_CODE_RESOURCE_EXHAUSTED,
                             .reason = mp_slice_str("OUT_OF_MEMORY"),
                             .message =
                                 mp_slice_str("the node has no memory for another subscription")};
    if (err == MP_EINVAL) {
        fault.code = MP_CODE_INVALID_ARGUMENT;
        fault.reason = mp_slice_str("BAD_TOPIC");
        fault.message = mp_slice_str(why);
    } else if (err == MP_EEXIST) {
        fault.code = MP_CODE_INVALID_ARGUMENT;
        fault.reason = mp_slice_str("BAD_REQUEST");
        fault.message = mp_slice_str("a subscription with this id is in force");
    } else if (err == MP_EFULL) {
        fault.reason = mp_slice_str("QUEUE_FULL");
        fault.message = mp_slice_str("the node has as many subscriptions as it takes at once");
    }
    refuse_fault(n, ev, &fault);
}

static enum mp_err put_subscribed(struct mp_node *n, struct mp_slice pattern)
{
    mp_buf_clear(&n->build);
    MP_TRY(mp_mp_put_map(&n->build, 2));
    MP_TRY(mp_mp_put_str_pair(&n->build, "subscribed", pattern));
    return mp_mp_put_str_pair(&n->build, "node", n->catalog.node);
}

static void subscribe(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                      const struct mp_subscribe_options *o)
{
    uint64_t wall_ms = (uint64_t)mp_node_wall(n, now);
    struct mp_topic_effects out;
    const struct mp_topic_event begin = {
        .kind = MP_TOPIC_SUBSCRIBE,
        .wall_ms = wall_ms,
        .client = ev->request.client,
        .id = ev->request.id,
        .subscribe = {.pattern = o->pattern,
                      .has_since = o->since_ms != 0,
                      .since_ms = wall_ms > o->since_ms ? wall_ms - o->since_ms : 0,
                      .queue_max = o->queue < UINT32_MAX ? (uint32_t)o->queue : UINT32_MAX}};
    enum mp_err err = put_subscribed(n, o->pattern);
    struct mp_slice told = {0};
    if (err == MP_OK)
        told = mp_node_keep(n, mp_buf_slice(&n->build));
    if (told.size == 0) {
        refuse_subscription(n, ev, MP_ENOMEM, "");
        return;
    }
    err = step(n, now, &begin, &out);
    if (err == MP_OK)
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_EVENT, told);
    else
        refuse_subscription(n, ev, err, out.message);
    carry_out_all(n, &out);
}

void mp_node_subscribe(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_subscribe_options o;
    const char *why = "";
    mp_node_wall_is(n, now, ev->request.wall_ms);
    if (n->is_draining)
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNAVAILABLE, "DRAINING",
                       "the node is about to stop");
    else if (mp_subscribe_options_read(ev->request.meta, &o, &why) != MP_OK)
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_INVALID_ARGUMENT,
                       "BAD_REQUEST", why);
    else
        subscribe(n, now, ev, &o);
    release_payload(n, ev);
}

bool mp_node_topics_cancel(struct mp_node *n, mp_time now, uint64_t client, uint64_t id)
{
    struct mp_topic_effects out;
    const struct mp_topic_event end = {.kind = MP_TOPIC_UNSUBSCRIBE, .client = client, .id = id};
    if (mp_topic_get_stats(n->topics.machine).subscriptions == 0 ||
        mp_node_topics_step(n, now, &end, &out) != MP_OK)
        return false;
    mp_node_refuse(n, client, id, MP_CODE_CANCELLED, "CANCELLED", "the subscription was cancelled");
    return true;
}

void mp_node_topics_client_gone(struct mp_node *n, mp_time now, uint64_t client)
{
    const struct mp_topic_event gone = {.kind = MP_TOPIC_CLIENT_GONE, .client = client};
    step_quietly(n, now, &gone);
}

void mp_node_topics_pressure(struct mp_node *n, mp_time now, uint64_t client, bool is_high)
{
    const struct mp_topic_event ev = {.kind = is_high ? MP_TOPIC_BLOCKED : MP_TOPIC_READY,
                                      .client = client};
    step_quietly(n, now, &ev);
}

/* --- what is kept --- */

void mp_node_topics_restored(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_topic_effects out;
    const struct mp_topic_event restored = {.kind = MP_TOPIC_RESTORED,
                                            .wall_ms = (uint64_t)ev->stored.wall_ms,
                                            .restored = ev->stored.bytes};
    enum mp_err err = mp_node_topics_step(n, now, &restored, &out);
    if (err == MP_ECORRUPT)
        mp_node_log(n, 3, mp_slice_str("messages that were kept are malformed and left out"));
}

void mp_node_topics_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    char bytes[512];
    struct mp_text text;
    struct mp_fault fault;
    const struct mp_topic_event kept = {.kind = MP_TOPIC_KEPT};
    step_quietly(n, now, &kept);
    if (!ev->stored.is_error)
        return;
    if (mp_fault_read(ev->stored.bytes, &fault) != MP_OK)
        fault.message = mp_slice_str("nobody says why");
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "messages will not outlive this node, they could not be kept: ");
    mp_text_put_slice(&text, fault.message);
    if (mp_node_may_tell(n, &n->topics.keep_told, &text))
        mp_node_log(n, 3, mp_text_slice(&text));
}

/* --- other nodes --- */

/* A batch has arrived, or has not. The machine hears of it when the step is nearly done. */
void mp_node_topics_published(struct mp_node *n, uint32_t member, uint64_t request, bool is_lost)
{
    mp_assert(member < n->topics.member_capacity);
    struct mp_node_topic_member *m = &n->topics.members[member];
    if (m->out != request)
        return; /* the member was gone meanwhile */
    m->out = 0;
    m->is_ended = true;
    m->is_lost = is_lost;
    n->topics.forwards--;
    n->topics.ended++;
}

void mp_node_topics_member_gone(struct mp_node *n, mp_time now, uint32_t member)
{
    const struct mp_topic_event gone = {.kind = MP_TOPIC_MEMBER_GONE, .member = member};
    give_up_on(n, member);
    step_quietly(n, now, &gone);
}

static void answer_nil(struct mp_node *n, uint64_t client, uint64_t id)
{
    mp_node_send_frame(n, client, MP_FRAME_RESULT, id, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_slice_of("\xc0", 1)});
}

static void answer_error(struct mp_node *n, uint64_t client, uint64_t id, enum mp_err err)
{
    bool is_memory = err == MP_ENOMEM || err == MP_EFULL;
    const struct mp_fault fault = {
        .code = is_memory ? MP_CODE_RESOURCE_EXHAUSTED : MP_CODE_INVALID_ARGUMENT,
        .reason = mp_slice_str(is_memory ? "OUT_OF_MEMORY" : "BAD_REQUEST"),
        .message = mp_slice_str(is_memory ? "the node has no memory for messages"
                                          : "what was said of topics is malformed, or too late"),
        .node = n->catalog.node};
    mp_node_send_frame(n, client, MP_FRAME_ERROR, id, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_node_error(n, &fault)});
}

/* The first seq of a batch; 0 if it has no messages. */
static uint64_t first_seq(struct mp_slice messages)
{
    struct mp_slice first;
    struct mp_slice value;
    int64_t seq;
    if (mp_mp_array_get(messages, 0, &first) != MP_OK ||
        mp_mp_array_get(first, 1, &value) != MP_OK || mp_mp_get_int(value, &seq) != MP_OK ||
        seq < 0)
        return 0;
    return (uint64_t)seq;
}

/* Whether something later of that node has come already, or may have: once it is known to have
 * begun anew, the backlog that it was asked for is of its new life. */
static bool is_late(struct mp_node *n, uint32_t member, uint64_t generation, uint64_t seq)
{
    struct mp_node_topic_member *m = &n->topics.members[member];
    struct mp_member_info info;
    if (mp_membership_get(n->membership, member, &info) && generation < info.generation)
        return true;
    if (generation < m->generation || (generation == m->generation && seq != 0 && seq <= m->seq))
        return true;
    if (generation > m->generation)
        m->seq = 0;
    m->generation = generation;
    if (seq != 0)
        m->seq = seq;
    return false;
}

/* Whom a request is from, by the name that it gives: it may have come through another node, over
 * whose link it then came. MP_MEMBER_NONE: nobody who is known here. */
static uint32_t sender_of(struct mp_node *n, struct mp_slice name)
{
    uint32_t member = mp_membership_find(n->membership, name);
    return member != MP_MEMBER_SELF && member != MP_MEMBER_NONE && has_place(n, member)
               ? member
               : MP_MEMBER_NONE;
}

static void published(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_peer_messages m;
    struct mp_topic_effects out;
    uint32_t sender = MP_MEMBER_NONE;
    struct mp_slice messages = ev->frame.payload.bytes;
    enum mp_err err = mp_peer_messages_read(ev->frame.meta, &m);
    if (err == MP_OK)
        sender = sender_of(n, m.publisher);
    if (err == MP_OK &&
        (messages.size == 0 || mp_mp_type_of(messages) != MP_MP_ARRAY || sender == MP_MEMBER_NONE ||
         is_late(n, sender, m.generation, first_seq(messages))))
        err = MP_ECORRUPT;
    if (err == MP_OK) {
        const struct mp_topic_event receive = {.kind = MP_TOPIC_RECEIVE,
                                               .receive = {.publisher = m.publisher,
                                                           .dropped = m.dropped,
                                                           .after_seq = m.after_seq,
                                                           .messages = messages}};
        err = mp_node_topics_step(n, now, &receive, &out);
    }
    if (err == MP_OK)
        answer_nil(n, ev->frame.client, ev->frame.id);
    else
        answer_error(n, ev->frame.client, ev->frame.id, err);
}

static void backlog(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_peer_backlog b;
    struct mp_topic_effects out;
    struct mp_slice meta = {0};
    struct mp_slice answer = {0};
    uint32_t sender = MP_MEMBER_NONE;
    enum mp_err err = mp_peer_backlog_read(ev->frame.meta, &b);
    if (err == MP_OK)
        sender = sender_of(n, b.asker);
    if (err == MP_OK && sender == MP_MEMBER_NONE)
        err = MP_ECORRUPT;
    if (err == MP_OK) {
        const struct mp_topic_event asked = {
            .kind = MP_TOPIC_BACKLOG_ASKED,
            .wall_ms = (uint64_t)mp_node_wall(n, now),
            .member = sender,
            .asked = {.pattern = b.pattern, .since_ms = b.since_ms}};
        err = mp_node_topics_step(n, now, &asked, &out);
    }
    if (err == MP_OK) {
        const struct mp_peer_upto upto = {.seq = out.upto_seq};
        answer = mp_node_keep(n, out.answer);
        mp_buf_clear(&n->build);
        err = mp_peer_upto_put(&n->build, &upto);
        meta = mp_node_keep(n, mp_buf_slice(&n->build));
        if (err == MP_OK && (answer.size == 0 || meta.size == 0))
            err = MP_ENOMEM;
    }
    if (err == MP_OK)
        mp_node_send_frame(n, ev->frame.client, MP_FRAME_RESULT, ev->frame.id, meta,
                           (struct mp_rpc_payload){.bytes = answer});
    else
        answer_error(n, ev->frame.client, ev->frame.id, err);
}

bool mp_node_topic_request(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    if (ev->frame.type == MP_FRAME_PUBLISHED)
        published(n, now, ev);
    else if (ev->frame.type == MP_FRAME_BACKLOG)
        backlog(n, now, ev);
    else
        return false;
    return true;
}

void mp_node_topics_gathered(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_gather *g = NULL;
    struct mp_topic_effects out;
    const struct mp_topic_event gathered = {
        .kind = MP_TOPIC_GATHERED,
        .gathered = {.gather = w->call,
                     .publisher = mp_node_member_name(n, w->member),
                     .upto_seq = w->upto_seq,
                     .messages = w->payload}};
    const struct mp_topic_event end = {.kind = MP_TOPIC_GATHER_END, .gather_end = w->call};
    for (uint32_t i = 0; !g && i < n->topics.gather_capacity; i++)
        if (n->topics.gathers[i].left != 0 && n->topics.gathers[i].number == w->call)
            g = &n->topics.gathers[i];
    if (!g)
        return;
    bool is_left_out = w->is_lost || mp_has_defect(n->cfg.defects, MP_DEFECT_BACKLOG_LEFT_OUT);
    /* One that has been waited for in vain is over: its late answers are for nobody. */
    if (!is_left_out && mp_node_topics_step(n, now, &gathered, &out) == MP_ECORRUPT)
        mp_node_log(n, 2, mp_slice_str("the backlog that another node sent is malformed"));
    g->left--;
    if (g->left == 0)
        step_quietly(n, now, &end);
}

/* --- what is left to do at the end of a step --- */

static void tell_ended(struct mp_node *n, mp_time now)
{
    struct mp_node_topics *t = &n->topics;
    for (uint32_t i = 0; t->ended != 0 && i < t->member_capacity; i++) {
        if (!t->members[i].is_ended)
            continue;
        bool is_lost =
            t->members[i].is_lost && !mp_has_defect(n->cfg.defects, MP_DEFECT_BATCH_UNTOLD);
        const struct mp_topic_event acked = {
            .kind = MP_TOPIC_ACKED, .member = i, .is_lost = is_lost};
        t->members[i].is_ended = false;
        t->ended--;
        step_quietly(n, now, &acked);
    }
}

/* What members want to hear may be something else than before. */
static void take_interest(struct mp_node *n, mp_time now)
{
    static const uint8_t nothing[] = {0x90};
    static const uint8_t everything[] = {0x91, 0xa1, '#'};
    bool is_all = mp_has_defect(n->cfg.defects, MP_DEFECT_PUBLISH_TO_ALL);
    struct mp_catalog_interest i;
    struct mp_topic_effects out;
    while (now >= n->topics.retry_at && mp_catalog_take_interest(&n->catalog, &i)) {
        if (!i.is_live) {
            mp_node_topics_member_gone(n, now, i.node);
            continue;
        }
        const struct mp_topic_event interest = {
            .kind = MP_TOPIC_INTEREST,
            .member = i.node,
            .interest = is_all               ? mp_slice_of(everything, sizeof(everything))
                        : i.topics.size != 0 ? i.topics
                                             : mp_slice_of(nothing, sizeof(nothing))};
        if (has_place(n, i.node) && mp_node_topics_step(n, now, &interest, &out) == MP_OK)
            continue;
        mp_catalog_note_interest(&n->catalog, i.node);
        n->topics.retry_at = now + RETRY;
    }
}

/* Tells others what this node wants to hear. */
static void tell_interest(struct mp_node *n, mp_time now)
{
    struct mp_node_topics *t = &n->topics;
    struct mp_catalog_effects out;
    mp_buf_clear(&t->build);
    enum mp_err err = mp_topic_put_interest(t->machine, &t->build);
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_TOPICS,
                                        .topics = mp_buf_slice(&t->build)};
    t->tell_at = now + MP_MS(MP_TOPIC_TELL_MS);
    if (err == MP_OK && mp_node_step_catalog(n, now, &ev, &out))
        t->is_interest_changed = false;
    else
        n->is_out_of_memory = true;
}

bool mp_node_topics_are_due(const struct mp_node *n)
{
    const struct mp_node_topics *t = &n->topics;
    return t->ended != 0 || t->is_keep_lost || t->is_room_changed || t->are_functions_stale ||
           n->now >= t->refresh_at || (n->catalog.news_count != 0 && n->now >= t->retry_at) ||
           (t->is_interest_changed && n->now >= t->tell_at);
}

void mp_node_topics_settle(struct mp_node *n, mp_time now)
{
    struct mp_node_topics *t = &n->topics;
    const struct mp_topic_event kept = {.kind = MP_TOPIC_KEPT};
    tell_ended(n, now);
    if (t->is_keep_lost) {
        t->is_keep_lost = false;
        step_quietly(n, now, &kept);
    }
    if (n->catalog.news_count != 0)
        take_interest(n, now);
    if (t->are_functions_stale || now >= t->refresh_at)
        mp_node_subscribed_refresh(n, now);
    if (t->is_room_changed)
        mp_node_subscribed_room(n, now);
    if (t->is_interest_changed && now >= t->tell_at)
        tell_interest(n, now);
}

mp_time mp_node_topics_deadline(const struct mp_node *n)
{
    const struct mp_node_topics *t = &n->topics;
    mp_time at = t->machine_at;
    if (t->is_interest_changed && t->tell_at < at)
        at = t->tell_at;
    if (n->catalog.news_count != 0 && t->retry_at < at)
        at = t->retry_at;
    if (t->refresh_at < at)
        at = t->refresh_at;
    if (t->told_until != 0 && !n->is_drained_told && t->told_until < at)
        at = t->told_until;
    return at;
}

void mp_node_topics_tick(struct mp_node *n, mp_time now)
{
    const struct mp_topic_event due = {.kind = MP_TOPIC_TIMER};
    if (mp_topic_deadline(n->topics.machine) <= now)
        step_quietly(n, now, &due);
}

bool mp_node_topics_are_told(struct mp_node *n)
{
    struct mp_node_topics *t = &n->topics;
    if (t->told_until == 0)
        t->told_until = n->now + MP_MS(MP_LINK_GOODBYE_MS);
    return t->forwards == 0 || n->now >= t->told_until;
}

/* --- for the other parts of the node --- */

bool mp_node_topics_wants(struct mp_node *n, struct mp_slice topic)
{
    return mp_topic_is_wanted(n->topics.machine, topic);
}

bool mp_node_topics_are_unwanted(const struct mp_node *n)
{
    return mp_topic_is_unwanted(n->topics.machine);
}

uint64_t mp_node_topics_generation(const struct mp_node *n)
{
    return mp_topic_generation(n->topics.machine);
}

void mp_node_topics_publish(struct mp_node *n, mp_time now, struct mp_slice topic,
                            struct mp_slice data)
{
    struct mp_topic_effects out;
    struct mp_buf *b = &n->topics.build;
    mp_buf_clear(b);
    enum mp_err err = mp_mp_put_array(b, 1);
    if (err == MP_OK)
        err = mp_mp_put_array(b, 2);
    if (err == MP_OK)
        err = mp_mp_put_str(b, topic);
    if (err == MP_OK)
        err = mp_mp_put_raw(b, data);
    const struct mp_topic_event publish = {.kind = MP_TOPIC_PUBLISH,
                                           .wall_ms = (uint64_t)mp_node_wall(n, now),
                                           .publish = mp_buf_slice(b)};
    if (err == MP_OK)
        err = mp_node_topics_step(n, now, &publish, &out);
    if (err != MP_OK)
        n->is_out_of_memory = n->is_out_of_memory || err == MP_ENOMEM;
}

enum mp_err mp_node_put_topics(const struct mp_node *n, struct mp_buf *b)
{
    const struct mp_topic_stats s = mp_topic_get_stats(n->topics.machine);
    MP_TRY(mp_mp_put_text(b, "topics"));
    MP_TRY(mp_mp_put_map(b, 5));
    MP_TRY(mp_mp_put_uint_pair(b, "published", s.published));
    MP_TRY(mp_mp_put_uint_pair(b, "delivered", s.delivered));
    MP_TRY(mp_mp_put_uint_pair(b, "dropped", s.dropped));
    MP_TRY(mp_mp_put_uint_pair(b, "subscriptions", s.subscriptions));
    return mp_mp_put_uint_pair(b, "called", s.called);
}

/* --- life --- */

enum mp_err mp_node_topics_init(struct mp_node *n)
{
    const struct mp_topic_config cfg = {
        .node = n->catalog.node, .room = MP_TOPIC_CALLS_MAX, .is_kept = n->cfg.is_kept};
    mp_buf_init(&n->topics.build, n->alloc, 0);
    mp_buf_init(&n->topics.args, n->alloc, 0);
    n->topics.refresh_at = MP_NEVER;
    n->topics.machine_at = MP_NEVER;
    return mp_topic_new(&n->topics.machine, &cfg, n->alloc);
}

void mp_node_topics_end(struct mp_node *n, mp_time now)
{
    uint64_t client;
    uint64_t id;
    while (mp_topic_any_subscription(n->topics.machine, &client, &id)) {
        const struct mp_topic_event end = {
            .kind = MP_TOPIC_UNSUBSCRIBE, .client = client, .id = id};
        step_quietly(n, now, &end);
        mp_node_refuse(n, client, id, MP_CODE_UNAVAILABLE, "DRAINING", "the node stops");
    }
}

void mp_node_topics_fini(struct mp_node *n)
{
    struct mp_node_topics *t = &n->topics;
    mp_topic_free(t->machine);
    mp_node_subscribed_fini(n);
    mp_buf_fini(&t->build);
    mp_alloc_free(n->alloc, t->members, t->member_capacity * sizeof(*t->members));
    mp_alloc_free(n->alloc, t->gathers, t->gather_capacity * sizeof(*t->gathers));
}
