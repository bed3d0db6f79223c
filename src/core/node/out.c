/* Requests to other nodes. Each has a number, which is the id of its frame, and hangs on the link
 * that shall carry it or has carried it: in the order in which they came, QUEUED ones until the
 * link is up and takes more. When a link ends, what was SENT on it is lost and what was QUEUED goes
 * another way; every request ends by an answer, by being lost, or by being given up.
 *
 * Relay: a request for a node that cannot be reached travels in a FORWARD frame to the member that
 * reached it lately (`via`), with the list of nodes that it has passed. A helper passes it on over
 * a link of its own, or wrapped again, never to a node on the list; so no request goes in circles,
 * and the answer finds its way back by (connection, id) at each hop. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/msgpack.h"

static uint32_t place_of(uint64_t id)
{
    return (uint32_t)id;
}

struct mp_node_out *mp_node_out_get(const struct mp_node *n, uint64_t id)
{
    uint32_t place = place_of(id);
    if (place >= n->out_used || n->outs[place].id != id || n->outs[place].state == MP_NODE_OUT_FREE)
        return NULL;
    return &n->outs[place];
}

/* --- lists of links --- */

static void attach(struct mp_node *n, struct mp_node_out *o, uint32_t link)
{
    struct mp_node_link *l = &n->links[link];
    uint32_t place = place_of(o->id);
    o->link = link;
    o->next = MP_NODE_NONE;
    o->previous = l->out_last;
    if (l->out_last == MP_NODE_NONE)
        l->out_first = place;
    else
        n->outs[l->out_last].next = place;
    l->out_last = place;
    l->out_count++;
    l->used_at = n->now;
}

static void detach(struct mp_node *n, struct mp_node_out *o)
{
    struct mp_node_link *l = &n->links[o->link];
    if (o->previous == MP_NODE_NONE)
        l->out_first = o->next;
    else
        n->outs[o->previous].next = o->next;
    if (o->next == MP_NODE_NONE)
        l->out_last = o->previous;
    else
        n->outs[o->next].previous = o->previous;
    mp_assert(l->out_count > 0);
    l->out_count--;
    l->used_at = n->now;
}

static void move(struct mp_node *n, struct mp_node_out *o, uint32_t link)
{
    detach(n, o);
    attach(n, o, link);
}

/* --- life --- */

static struct mp_node_out *take_place(struct mp_node *n)
{
    if (n->out_free != MP_NODE_NONE) {
        struct mp_node_out *o = &n->outs[n->out_free];
        n->out_free = o->next;
        return o;
    }
    if (n->out_used == n->out_capacity) {
        uint32_t capacity = n->out_capacity == 0 ? 64 : n->out_capacity * 2;
        if (capacity > MP_OUTS_MAX)
            return NULL;
        void *grown =
            n->alloc->resize(n->alloc->context, n->outs, n->out_capacity * sizeof(*n->outs),
                             capacity * sizeof(*n->outs));
        if (!grown)
            return NULL;
        n->outs = (struct mp_node_out *)grown;
        n->out_capacity = capacity;
    }
    struct mp_node_out *o = &n->outs[n->out_used];
    *o = (struct mp_node_out){.id = n->out_used};
    n->out_used++;
    return o;
}

static void free_out(struct mp_node *n, struct mp_node_out *o)
{
    detach(n, o);
    if (o->payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = o->payload;
    mp_alloc_free(n->alloc, o->own_bytes, o->own_size);
    o->own_bytes = NULL;
    o->payload = (struct mp_rpc_payload){0};
    o->state = MP_NODE_OUT_FREE;
    o->next = n->out_free;
    n->out_free = place_of(o->id);
    n->out_count--;
    n->relay_count -= o->kind == MP_NODE_OUT_RELAY;
    n->run_fetch_count -= o->kind == MP_NODE_OUT_RUN_FETCH;
}

static struct mp_slice copy_to(uint8_t **at, struct mp_slice bytes)
{
    if (bytes.size == 0)
        return (struct mp_slice){0};
    struct mp_slice copy = mp_slice_of(*at, bytes.size);
    memcpy(*at, bytes.data, bytes.size);
    *at += bytes.size;
    return copy;
}

static bool copy_in(struct mp_node *n, struct mp_node_out *o, struct mp_slice passed,
                    struct mp_slice meta, struct mp_rpc_payload payload)
{
    size_t inline_size = payload.handle != 0 ? 0 : payload.bytes.size;
    size_t size = passed.size + meta.size + inline_size;
    uint8_t *at = size != 0 ? mp_alloc_take(n->alloc, size) : NULL;
    if (size != 0 && !at)
        return false;
    o->own_bytes = at;
    o->own_size = size;
    o->passed = copy_to(&at, passed);
    o->meta = copy_to(&at, meta);
    o->payload = payload;
    if (payload.handle == 0)
        o->payload.bytes = copy_to(&at, payload.bytes);
    return true;
}

struct mp_node_out *mp_node_out_new(struct mp_node *n, enum mp_node_out_kind kind, uint8_t type,
                                    uint32_t member, uint64_t owner, uint64_t owner_id,
                                    struct mp_slice passed, struct mp_slice meta,
                                    struct mp_rpc_payload payload)
{
    uint32_t link = mp_node_link_to(n, member);
    struct mp_node_out *o = link != MP_NODE_NONE ? take_place(n) : NULL;
    if (!o)
        return NULL;
    uint64_t id = o->id + (1ull << 32);
    *o = (struct mp_node_out){.id = id,
                              .kind = kind,
                              .state = MP_NODE_OUT_QUEUED,
                              .type = type,
                              .member = member,
                              .owner = owner,
                              .owner_id = owner_id};
    if (!copy_in(n, o, passed, meta, payload)) {
        o->state = MP_NODE_OUT_FREE;
        o->next = n->out_free;
        n->out_free = place_of(o->id);
        return NULL;
    }
    n->out_count++;
    n->relay_count += kind == MP_NODE_OUT_RELAY;
    n->run_fetch_count += kind == MP_NODE_OUT_RUN_FETCH;
    attach(n, o, link);
    return o;
}

void mp_node_out_give_up(struct mp_node *n, struct mp_node_out *o)
{
    if (o->state == MP_NODE_OUT_QUEUED) {
        free_out(n, o);
    } else if (o->state == MP_NODE_OUT_SENT) {
        mp_node_send_frame(n, n->links[o->link].client, MP_FRAME_CANCEL, o->id,
                           (struct mp_slice){0}, (struct mp_rpc_payload){0});
        o->state = MP_NODE_OUT_GIVEN_UP;
    }
}

void mp_node_outs_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->out_used; i++)
        if (n->outs[i].state != MP_NODE_OUT_FREE)
            mp_alloc_free(n->alloc, n->outs[i].own_bytes, n->outs[i].own_size);
    mp_alloc_free(n->alloc, n->outs, n->out_capacity * sizeof(*n->outs));
}

/* --- sending --- */

/* [passed…, this node] in `list`; false if the request has passed enough nodes. */
static bool pass(const struct mp_node *n, struct mp_slice passed, struct mp_peer_forward *f)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    if (passed.size != 0 && mp_mp_get_array(passed, &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count && i < MP_RELAY_NODES_MAX; i++) {
        struct mp_slice item;
        if (mp_mp_take(&r, &item) != MP_OK || mp_mp_get_str(item, &f->passed[i]) != MP_OK)
            return false;
    }
    if (count >= MP_RELAY_NODES_MAX)
        return false;
    f->passed[count] = n->catalog.node;
    f->passed_count = count + 1;
    return true;
}

/* The same request wrapped for the helper that the link leads to. */
static bool wrap(struct mp_node *n, const struct mp_node_out *o, struct mp_slice *meta)
{
    struct mp_peer_forward f = {
        .target = mp_node_member_name(n, o->member), .type = o->type, .meta = *meta};
    struct mp_buf b;
    bool is_wrapped = pass(n, o->passed, &f);
    struct mp_slice helper = mp_node_member_name(n, n->links[o->link].member);
    bool may_circle = mp_has_defect(n->cfg.defects, MP_DEFECT_RELAY_IN_CIRCLES);
    for (uint32_t i = 0; is_wrapped && !may_circle && i < f.passed_count; i++)
        is_wrapped = !mp_slice_equal(f.passed[i], helper);
    if (!is_wrapped)
        return false;
    mp_buf_init(&b, n->alloc, 0);
    is_wrapped = mp_peer_forward_put(&b, &f) == MP_OK && b.size <= MP_FRAME_META_BYTES_MAX - 1;
    *meta = is_wrapped ? mp_node_keep(n, mp_buf_slice(&b)) : (struct mp_slice){0};
    mp_buf_fini(&b);
    return is_wrapped && meta->size != 0;
}

/* Whoever drives the node has not seen it yet, so it was not sent after all. Its frame must not go
 * out either: with the request its bytes go. */
static void take_back(struct mp_node *n, struct mp_node_out *o)
{
    for (uint32_t i = n->effect_count; i-- > 0;) {
        struct mp_node_effect *e = &n->effects[i];
        if (e->kind != MP_NODE_SEND_FRAME || e->id != o->id ||
            e->client != n->links[o->link].client_last ||
            (e->frame != o->type && e->frame != MP_FRAME_FORWARD))
            continue;
        o->payload.handle = e->payload.handle;
        o->state = MP_NODE_OUT_QUEUED;
        n->effect_count--;
        memmove(e, e + 1, (n->effect_count - i) * sizeof(*e));
        return;
    }
}

/* What hears of the end of a request about code. */
static enum mp_node_work_kind work_of(enum mp_node_out_kind kind)
{
    return kind == MP_NODE_OUT_LIST   ? MP_NODE_WORK_LISTED
           : kind == MP_NODE_OUT_CODE ? MP_NODE_WORK_CODE
                                      : MP_NODE_WORK_STAGED;
}

static struct mp_node_work *put_off_gathered(struct mp_node *n, const struct mp_node_out *o)
{
    struct mp_node_work *w = mp_node_put_off(n, MP_NODE_WORK_GATHERED, o->owner);
    w->member = o->member;
    return w;
}

static struct mp_slice lost_error(struct mp_node *n, const struct mp_node_out *o)
{
    const struct mp_fault fault = {
        .code = MP_CODE_UNAVAILABLE,
        .reason = mp_slice_str(o->is_of_run ? "COORDINATOR_LOST" : "NODE_LOST"),
        .message = mp_slice_str("the connection to the node that had the request ended"),
        .node = mp_node_member_name(n, o->member)};
    return mp_node_error(n, &fault);
}

/* Lost before it went anywhere, or after. Frees it; whoever asked is told. */
static void lose(struct mp_node *n, struct mp_node_out *o)
{
    if (o->state == MP_NODE_OUT_SENT && o->sent_in == n->steps)
        take_back(n, o);
    bool was_sent = o->state == MP_NODE_OUT_SENT;
    bool is_wanted = o->state != MP_NODE_OUT_GIVEN_UP;
    struct mp_node_out copy = *o;
    struct mp_slice meta = {0};
    if (is_wanted && o->kind == MP_NODE_OUT_RELEASE)
        meta = mp_node_keep(n, o->meta);
    free_out(n, o);
    if (!is_wanted) {
        if (copy.kind == MP_NODE_OUT_CALL)
            mp_node_attempt_end(n, copy.owner, (struct mp_slice){0}, true, false);
        return;
    }
    struct mp_member_info info;
    struct mp_node_work *w;
    switch (copy.kind) {
    case MP_NODE_OUT_CALL:
        mp_node_attempt_lost(n, &copy, was_sent);
        break;
    case MP_NODE_OUT_FETCH:
        mp_node_fill_lost(n, &copy);
        break;
    case MP_NODE_OUT_RUN_FETCH:
        w = mp_node_put_off(n, MP_NODE_WORK_FETCHED, copy.owner);
        w->fetch = copy.owner_id;
        w->is_lost = true;
        break;
    case MP_NODE_OUT_RELEASE:
        /* Said again as long as there is somebody to hear it. */
        if (mp_membership_get(n->membership, copy.member, &info) && info.state < MP_MEMBER_DEAD &&
            meta.size != 0)
            (void)mp_node_out_new(n, MP_NODE_OUT_RELEASE, MP_FRAME_RELEASE, copy.member, copy.owner,
                                  0, (struct mp_slice){0}, meta, (struct mp_rpc_payload){0});
        break;
    case MP_NODE_OUT_LIST:
    case MP_NODE_OUT_STAGE:
    case MP_NODE_OUT_SWITCH:
    case MP_NODE_OUT_CODE:
        w = mp_node_put_off(n, work_of(copy.kind), copy.owner);
        w->fetch = copy.owner_id;
        w->is_lost = true;
        break;
    case MP_NODE_OUT_PUBLISHED:
        mp_node_topics_published(n, copy.member, copy.id, true);
        break;
    case MP_NODE_OUT_BACKLOG:
        put_off_gathered(n, &copy)->is_lost = true;
        break;
    case MP_NODE_OUT_RELAY:
        if (copy.is_peers && mp_node_link_of_client(n, copy.owner) == MP_NODE_NONE)
            break; /* its link has just ended */
        if (copy.is_watch && mp_node_out_goes_on(n, &copy, false))
            break;
        if (copy.is_peers) {
            const struct mp_peer_answer answer = {
                .flags = was_sent ? MP_PEER_HAS_BEGUN | MP_PEER_IS_LOST : MP_PEER_NOT_HERE};
            mp_buf_clear(&n->build);
            if (mp_peer_answer_put(&n->build, &answer) != MP_OK)
                mp_buf_clear(&n->build);
            mp_node_send_frame(n, copy.owner, MP_FRAME_ERROR, copy.owner_id,
                               mp_node_keep(n, mp_buf_slice(&n->build)),
                               (struct mp_rpc_payload){.bytes = lost_error(n, &copy)});
        } else {
            mp_node_reply(n, copy.owner, copy.owner_id, MP_FRAME_ERROR, lost_error(n, &copy));
        }
        break;
    }
}

static void send(struct mp_node *n, struct mp_node_out *o)
{
    struct mp_node_link *l = &n->links[o->link];
    struct mp_slice meta = o->meta;
    struct mp_rpc_payload payload = o->payload;
    uint8_t type = o->type;
    bool is_built = o->kind != MP_NODE_OUT_CALL || mp_node_attempt_send(n, o, &meta, &payload);
    if (is_built && l->member != o->member) {
        is_built = wrap(n, o, &meta);
        type = MP_FRAME_FORWARD;
    }
    struct mp_slice kept = is_built ? mp_node_keep(n, meta) : (struct mp_slice){0};
    if (!is_built || (meta.size != 0 && kept.size == 0) || !mp_node_make_room(n)) {
        lose(n, o);
        return;
    }
    o->state = MP_NODE_OUT_SENT;
    o->sent_in = n->steps;
    o->payload.handle = 0; /* goes out with the frame */
    mp_node_send_frame(n, l->client, type, o->id, kept, payload);
    if (o->kind != MP_NODE_OUT_CALL && o->kind != MP_NODE_OUT_RELEASE && !o->is_watch) {
        o->passed = (struct mp_slice){0};
        o->meta = (struct mp_slice){0};
    }
}

void mp_node_outs_flush(struct mp_node *n, uint32_t link)
{
    const struct mp_node_link *l = &n->links[link];
    uint32_t place = l->out_last;
    if (l->state != MP_NODE_LINK_UP || l->is_high || l->is_held_back)
        return;
    /* Sent ones stand before queued ones. */
    uint32_t first = MP_NODE_NONE;
    while (place != MP_NODE_NONE && n->outs[place].state == MP_NODE_OUT_QUEUED) {
        first = place;
        place = n->outs[place].previous;
    }
    for (place = first; place != MP_NODE_NONE;) {
        uint32_t next = n->outs[place].next;
        send(n, &n->outs[place]);
        place = next;
    }
}

/* --- answers --- */

/* An error that a helper made, since it could not reach the coordinator or lost it. */
static bool is_of_lost(uint8_t type, struct mp_slice meta)
{
    struct mp_peer_answer answer;
    return type == MP_FRAME_ERROR && meta.size != 0 &&
           mp_peer_answer_read(meta, &answer) == MP_OK &&
           (answer.flags & (MP_PEER_IS_LOST | MP_PEER_NOT_HERE)) != 0;
}

static void relay_answer(struct mp_node *n, const struct mp_node_out *o, uint8_t type,
                         struct mp_slice meta, struct mp_rpc_payload *payload)
{
    if (o->is_peers && mp_node_link_of_client(n, o->owner) == MP_NODE_NONE)
        return; /* its link has just ended */
    if (o->is_peers) {
        mp_node_send_frame(n, o->owner, type, o->owner_id, mp_node_keep(n, meta), *payload);
    } else if (o->is_of_run && is_of_lost(type, meta)) {
        mp_node_reply(n, o->owner, o->owner_id, MP_FRAME_ERROR, lost_error(n, o));
        return;
    } else {
        struct mp_node_effect *e = mp_node_emit(n, MP_NODE_REPLY);
        e->client = o->owner;
        e->id = o->owner_id;
        e->frame = type;
        e->payload = *payload;
    }
    payload->handle = 0;
}

void mp_node_out_event(struct mp_node *n, uint32_t link, uint64_t id,
                       struct mp_rpc_payload *payload)
{
    struct mp_node_out *o = mp_node_out_get(n, id);
    if (!o || o->link != link || o->state != MP_NODE_OUT_SENT || o->kind != MP_NODE_OUT_RELAY ||
        !mp_node_make_room(n))
        return;
    int64_t seq;
    struct mp_slice value;
    if (o->is_watch && mp_mp_check(payload->bytes) == MP_OK &&
        mp_mp_map_get(payload->bytes, mp_slice_str("seq"), &value) == MP_OK &&
        mp_mp_get_int(value, &seq) == MP_OK && seq > 0)
        mp_node_out_told(n, o, (uint64_t)seq);
    relay_answer(n, o, MP_FRAME_EVENT, (struct mp_slice){0}, payload);
}

void mp_node_out_answer(struct mp_node *n, mp_time now, uint32_t link, uint8_t type, uint64_t id,
                        struct mp_slice meta, struct mp_rpc_payload *payload)
{
    struct mp_node_out *o = mp_node_out_get(n, id);
    bool is_error = type == MP_FRAME_ERROR;
    if (!o || o->link != link || o->state < MP_NODE_OUT_SENT)
        return; /* a late or a strange one */
    bool is_wanted = o->state == MP_NODE_OUT_SENT;
    struct mp_node_out copy = *o;
    struct mp_node_work *w;
    struct mp_peer_upto upto = {0};
    free_out(n, o);
    if (!is_wanted)
        return;
    switch (copy.kind) {
    case MP_NODE_OUT_CALL:
        mp_node_attempt_answered(n, now, &copy, is_error, meta, *payload);
        payload->handle = 0; /* the completion has it */
        break;
    case MP_NODE_OUT_FETCH:
        mp_node_fill_answered(n, &copy, is_error, payload);
        break;
    case MP_NODE_OUT_RUN_FETCH:
        w = mp_node_put_off(n, MP_NODE_WORK_FETCHED, copy.owner);
        w->fetch = copy.owner_id;
        w->is_lost = is_error;
        w->payload = payload->bytes; /* the event's, good during the step */
        break;
    case MP_NODE_OUT_RELEASE:
        break;
    case MP_NODE_OUT_LIST:
    case MP_NODE_OUT_STAGE:
    case MP_NODE_OUT_SWITCH:
    case MP_NODE_OUT_CODE:
        w = mp_node_put_off(n, work_of(copy.kind), copy.owner);
        w->fetch = copy.owner_id;
        w->has_begun = is_error;
        w->is_lost = is_error && copy.kind == MP_NODE_OUT_CODE;
        w->payload = payload->bytes; /* the event's, good during the step */
        break;
    case MP_NODE_OUT_PUBLISHED:
        mp_node_topics_published(n, copy.member, copy.id, is_error);
        break;
    case MP_NODE_OUT_BACKLOG:
        w = put_off_gathered(n, &copy);
        w->is_lost = is_error || mp_peer_upto_read(meta, &upto) != MP_OK;
        w->upto_seq = upto.seq;
        w->payload = payload->bytes;
        break;
    case MP_NODE_OUT_RELAY:
        if (!copy.is_watch || !mp_node_out_goes_on(n, &copy, !is_error))
            relay_answer(n, &copy, type, meta, payload);
        break;
    }
}

static void cancel_queued(struct mp_node *n, struct mp_node_out *o)
{
    const struct mp_node_out copy = *o;
    const struct mp_fault fault = {.code = MP_CODE_CANCELLED,
                                   .reason = mp_slice_str("CANCELLED"),
                                   .message = mp_slice_str("it was cancelled"),
                                   .node = n->catalog.node};
    free_out(n, o);
    struct mp_rpc_payload error = {.bytes = mp_node_error(n, &fault)};
    relay_answer(n, &copy, MP_FRAME_ERROR, (struct mp_slice){0}, &error);
}

/* --- ends of links --- */

static bool is_dead(const struct mp_node *n, uint32_t member)
{
    struct mp_member_info info;
    return !mp_membership_get(n->membership, member, &info) || info.state == MP_MEMBER_DEAD;
}

void mp_node_outs_reroute(struct mp_node *n, uint32_t link)
{
    for (uint32_t place = n->links[link].out_first; place != MP_NODE_NONE;) {
        uint32_t next = n->outs[place].next;
        uint32_t other = MP_NODE_NONE;
        if (!is_dead(n, n->outs[place].member))
            other = mp_node_link_to(n, n->outs[place].member);
        if (other != MP_NODE_NONE && other != link && n->outs[place].state == MP_NODE_OUT_QUEUED) {
            move(n, &n->outs[place], other);
            mp_node_outs_flush(n, other);
        }
        place = next;
    }
}

void mp_node_outs_lost(struct mp_node *n, mp_time now, uint32_t link)
{
    (void)now;
    /* One that has left makes no links any more (membership, which would tell when another node is
     * a new boot or dead, is silent), so what was to go over this one would try for ever. */
    if (!n->is_draining)
        mp_node_outs_reroute(n, link);
    /* What its end brings about may come to hang on it again, behind these. */
    uint32_t count = n->links[link].out_count;
    while (count-- > 0 && n->links[link].out_first != MP_NODE_NONE)
        lose(n, &n->outs[n->links[link].out_first]);
}

/* --- who asked is gone, or changed its mind --- */

void mp_node_outs_of_client_gone(struct mp_node *n, uint64_t client)
{
    for (uint32_t i = 0; n->relay_count != 0 && i < n->out_used; i++) {
        struct mp_node_out *o = &n->outs[i];
        if (o->kind == MP_NODE_OUT_RELAY && o->owner == client &&
            (o->state == MP_NODE_OUT_QUEUED || o->state == MP_NODE_OUT_SENT))
            mp_node_out_give_up(n, o);
    }
}

bool mp_node_outs_cancel(struct mp_node *n, uint64_t client, uint64_t id)
{
    for (uint32_t i = 0; n->relay_count != 0 && i < n->out_used; i++) {
        struct mp_node_out *o = &n->outs[i];
        if (o->kind != MP_NODE_OUT_RELAY || o->owner != client || o->owner_id != id ||
            o->state == MP_NODE_OUT_FREE || o->state == MP_NODE_OUT_GIVEN_UP || o->is_ending)
            continue;
        if (o->state == MP_NODE_OUT_QUEUED)
            cancel_queued(n, o);
        else /* the end answers, and the answer comes back through here */
            mp_node_send_frame(n, n->links[o->link].client, MP_FRAME_CANCEL, o->id,
                               (struct mp_slice){0}, (struct mp_rpc_payload){0});
        return true;
    }
    return false;
}

void mp_node_outs_of_run_over(struct mp_node *n, uint64_t run)
{
    for (uint32_t i = 0; n->run_fetch_count != 0 && i < n->out_used; i++) {
        struct mp_node_out *o = &n->outs[i];
        if (o->kind == MP_NODE_OUT_RUN_FETCH && o->owner == run &&
            o->owner_id < MP_NODE_GATHER_FIRST &&
            (o->state == MP_NODE_OUT_QUEUED || o->state == MP_NODE_OUT_SENT))
            mp_node_out_give_up(n, o);
    }
}

/* --- requests for somebody else --- */

static void refuse_forward(struct mp_node *n, const struct mp_node_event *ev, const char *reason,
                           const char *message)
{
    const struct mp_fault fault = {.code = MP_CODE_UNAVAILABLE,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = n->catalog.node};
    const struct mp_peer_answer answer = {.flags = MP_PEER_NOT_HERE};
    mp_buf_clear(&n->build);
    if (mp_peer_answer_put(&n->build, &answer) != MP_OK)
        mp_buf_clear(&n->build);
    mp_node_send_frame(n, ev->frame.client, MP_FRAME_ERROR, ev->frame.id,
                       mp_node_keep(n, mp_buf_slice(&n->build)),
                       (struct mp_rpc_payload){.bytes = mp_node_error(n, &fault)});
}

/* The request was for this node: as if it had come alone. */
static void unwrap(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                   const struct mp_peer_forward *f)
{
    const struct mp_node_event inner = {.kind = MP_NODE_CALL,
                                        .request = {.client = ev->frame.client,
                                                    .id = ev->frame.id,
                                                    .meta = f->meta,
                                                    .payload = ev->frame.payload,
                                                    .wall_ms = ev->frame.wall_ms}};
    struct mp_rpc_payload payload = ev->frame.payload;
    if (f->type == MP_FRAME_CALL) {
        mp_node_peer_call(n, now, &inner);
        return;
    }
    const struct mp_node_event frame = {.kind = MP_NODE_FRAME,
                                        .frame = {.client = ev->frame.client,
                                                  .type = f->type,
                                                  .id = ev->frame.id,
                                                  .meta = f->meta,
                                                  .payload = ev->frame.payload}};
    if (mp_node_code_request(n, now, &frame) || mp_node_topic_request(n, now, &frame))
        ;
    else if (f->type == MP_FRAME_FETCH)
        mp_node_fetch_frame(n, ev->frame.client, ev->frame.id, f->meta);
    else if (f->type == MP_FRAME_QUERY)
        mp_node_query(n, now, &inner);
    else if (f->type == MP_FRAME_RUN)
        mp_node_run(n, now, &inner);
    else
        mp_node_release_frame(n, ev->frame.client, ev->frame.id, f->meta);
    if (payload.handle != 0 && f->type != MP_FRAME_QUERY && f->type != MP_FRAME_RUN)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = payload;
}

/* Of RUNs those that resume a run, since only its coordinator can. */
static bool may_travel(uint8_t type, struct mp_slice payload)
{
    struct mp_slice value;
    if (type == MP_FRAME_RUN)
        return mp_mp_check(payload) == MP_OK &&
               mp_mp_map_get(payload, mp_slice_str("resume"), &value) == MP_OK;
    return type == MP_FRAME_CALL || type == MP_FRAME_QUERY || type == MP_FRAME_FETCH ||
           type == MP_FRAME_RELEASE || (type >= MP_FRAME_STAGE && type <= MP_FRAME_BACKLOG);
}

bool mp_node_code_request(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    switch (ev->frame.type) {
    case MP_FRAME_STAGE:
        mp_node_stage_frame(n, now, ev);
        return true;
    case MP_FRAME_SWITCH:
        mp_node_switch_frame(n, now, ev);
        return true;
    case MP_FRAME_CODE:
        mp_node_code_frame(n, ev->frame.client, ev->frame.id, ev->frame.meta);
        return true;
    case MP_FRAME_LIST:
        mp_node_list_frame(n, now, ev->frame.client, ev->frame.id, ev->frame.payload.bytes);
        return true;
    default:
        return false;
    }
}

static uint32_t sender_of(const struct mp_node *n, uint64_t client)
{
    uint32_t link = mp_node_link_of_client(n, client);
    return link != MP_NODE_NONE ? n->links[link].member : MP_MEMBER_NONE;
}

void mp_node_forward(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_peer_forward f;
    bool is_taken = false;
    bool may_circle = mp_has_defect(n->cfg.defects, MP_DEFECT_RELAY_IN_CIRCLES);
    if (mp_peer_forward_read(ev->frame.meta, &f) != MP_OK ||
        !may_travel(f.type, ev->frame.payload.bytes)) {
        refuse_forward(n, ev, "BAD_REQUEST", "a forwarded request is malformed");
    } else if (mp_slice_equal(f.target, n->catalog.node)) {
        unwrap(n, now, ev, &f);
        return;
    } else {
        bool is_circle = false;
        struct mp_buf passed;
        uint32_t member = mp_membership_find(n->membership, f.target);
        for (uint32_t i = 0; i < f.passed_count; i++)
            is_circle = is_circle || mp_slice_equal(f.passed[i], n->catalog.node);
        mp_buf_init(&passed, n->alloc, 0);
        enum mp_err err = mp_mp_put_array(&passed, f.passed_count);
        for (uint32_t i = 0; err == MP_OK && i < f.passed_count; i++)
            err = mp_mp_put_str(&passed, f.passed[i]);
        struct mp_node_out *o = NULL;
        is_circle = is_circle || f.passed_count >= MP_RELAY_NODES_MAX;
        if (member != MP_MEMBER_NONE && is_dead(n, member))
            member = MP_MEMBER_NONE;
        if (may_circle)
            member = sender_of(n, ev->frame.client);
        if (member != MP_MEMBER_NONE && err == MP_OK && (!is_circle || may_circle))
            o = mp_node_out_new(n, MP_NODE_OUT_RELAY, f.type, member, ev->frame.client,
                                ev->frame.id, mp_buf_slice(&passed), f.meta, ev->frame.payload);
        if (o) {
            o->is_peers = true;
            mp_node_out_note_watch(o);
        }
        mp_buf_fini(&passed);
        is_taken = o != NULL;
        if (o)
            mp_node_outs_flush(n, o->link);
        else
            refuse_forward(n, ev, "NODE_LOST", "the node that should pass it on cannot");
    }
    if (!is_taken && ev->frame.payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = ev->frame.payload;
}

bool mp_node_relay_query(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice on)
{
    struct mp_member_info info;
    uint32_t member = mp_membership_find(n->membership, on);
    bool is_there = member != MP_MEMBER_NONE && mp_membership_get(n->membership, member, &info) &&
                    info.state < MP_MEMBER_DEAD;
    struct mp_node_out *o = NULL;
    if (is_there)
        o = mp_node_out_new(n, MP_NODE_OUT_RELAY, MP_FRAME_QUERY, member, ev->request.client,
                            ev->request.id, (struct mp_slice){0}, ev->request.meta,
                            ev->request.payload);
    if (o) {
        mp_node_out_note_watch(o);
        mp_node_outs_flush(n, o->link);
        return true;
    }
    const struct mp_catalog_query q = {.fun = mp_slice_str("mpreg.node"), .on = on};
    mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR, mp_node_explain(n, &q));
    return false;
}

bool mp_node_relay_run(struct mp_node *n, const struct mp_node_event *ev, uint8_t frame,
                       uint32_t member)
{
    if (n->is_draining) { /* others take no links any more from one that has left */
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNAVAILABLE, "DRAINING",
                       "the node is about to stop");
        return false;
    }
    struct mp_node_out *o =
        mp_node_out_new(n, MP_NODE_OUT_RELAY, frame, member, ev->request.client, ev->request.id,
                        (struct mp_slice){0}, ev->request.meta, ev->request.payload);
    if (o) {
        o->is_of_run = true;
        mp_node_out_note_watch(o);
        mp_node_outs_flush(n, o->link);
        return true;
    }
    mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                   "the node has as many requests to others as it takes at once");
    return false;
}
