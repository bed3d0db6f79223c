/* Links: at most one connection to each other node, dialled when something is to be said, and kept
 * while it is used. Both ends say HELLO first; a node of another cluster, one that claims a name in
 * use, and this node itself are refused there.
 *
 * Two nodes may dial each other at the same moment: the connection of the one with the lesser name
 * stays. A node dials only when it has no link (seeds excepted, which do not know whom they reach),
 * so a HELLO from a node that we still have a link with says that the old one is gone, except when
 * the two crossed: we then keep ours if our name is the lesser, and say PING on it, so that an end
 * that has forgotten it tells us. Where both came up before anybody saw that they crossed, nothing
 * new goes over the one that does not stay; it is closed when it has carried nothing for a while,
 * since what is on its way over it has maybe begun at the other end.
 *
 * Nobody hangs up unasked (seeds.c): a request that crosses the end of its link would be lost. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"

/* --- tables --- */

static bool grow_map(struct mp_node *n, uint32_t **map, uint32_t *capacity, uint32_t place)
{
    if (place < *capacity)
        return true;
    uint32_t next = *capacity == 0 ? 64 : *capacity;
    while (next <= place)
        next *= 2;
    uint32_t *grown =
        n->alloc->resize(n->alloc->context, *map, *capacity * sizeof(**map), next * sizeof(**map));
    if (!grown)
        return false;
    memset(grown + *capacity, 0, (next - *capacity) * sizeof(**map));
    *map = grown;
    *capacity = next;
    return true;
}

uint32_t mp_node_link_of_member(const struct mp_node *n, uint32_t member)
{
    if (member >= n->member_capacity || n->link_of_member[member] == 0)
        return MP_NODE_NONE;
    return n->link_of_member[member] - 1;
}

uint32_t mp_node_any_link(const struct mp_node *n, uint64_t client)
{
    uint32_t place = (uint32_t)client;
    if (place >= n->client_capacity || n->link_of_client[place] == 0)
        return MP_NODE_NONE;
    uint32_t link = n->link_of_client[place] - 1;
    return n->links[link].client == client ? link : MP_NODE_NONE;
}

uint32_t mp_node_link_of_client(const struct mp_node *n, uint64_t client)
{
    uint32_t link = mp_node_any_link(n, client);
    return link != MP_NODE_NONE && n->links[link].state == MP_NODE_LINK_UP ? link : MP_NODE_NONE;
}

bool mp_node_is_peer(const struct mp_node *n, uint64_t client)
{
    return mp_node_any_link(n, client) != MP_NODE_NONE;
}

bool mp_node_link_is_up(const struct mp_node *n, uint32_t member)
{
    uint32_t link = mp_node_link_of_member(n, member);
    return link != MP_NODE_NONE && n->links[link].state == MP_NODE_LINK_UP;
}

uint32_t mp_node_link_direct(const struct mp_node *n, uint32_t member)
{
    return mp_node_link_is_up(n, member) ? mp_node_link_of_member(n, member) : MP_NODE_NONE;
}

void mp_node_links_wake(struct mp_node *n, mp_time at)
{
    if (at < n->links_at)
        n->links_at = at;
}

void mp_node_link_due(struct mp_node *n, struct mp_node_link *l, mp_time at)
{
    l->due_at = at;
    mp_node_links_wake(n, at);
}

uint32_t mp_node_link_new(struct mp_node *n)
{
    uint32_t place = n->link_free;
    if (place != MP_NODE_NONE) {
        n->link_free = n->links[place].next_free;
    } else {
        if (n->link_used == n->link_capacity) {
            uint32_t capacity = n->link_capacity == 0 ? 16 : n->link_capacity * 2;
            void *grown =
                n->alloc->resize(n->alloc->context, n->links, n->link_capacity * sizeof(*n->links),
                                 capacity * sizeof(*n->links));
            if (!grown)
                return MP_NODE_NONE;
            n->links = (struct mp_node_link *)grown;
            n->link_capacity = capacity;
        }
        place = n->link_used++;
    }
    n->links[place] = (struct mp_node_link){.state = MP_NODE_LINK_WAITING,
                                            .member = MP_NODE_NONE,
                                            .seed = MP_NODE_NONE,
                                            .due_at = MP_NEVER,
                                            .used_at = n->now,
                                            .out_first = MP_NODE_NONE,
                                            .out_last = MP_NODE_NONE};
    return place;
}

static void unbind(struct mp_node *n, uint32_t link)
{
    struct mp_node_link *l = &n->links[link];
    if (l->member != MP_NODE_NONE && mp_node_link_of_member(n, l->member) == link)
        n->link_of_member[l->member] = 0;
    if (mp_node_any_link(n, l->client) == link)
        n->link_of_client[(uint32_t)l->client] = 0;
}

mp_duration mp_node_link_backoff(struct mp_node *n, uint32_t failures)
{
    mp_duration pause = MP_MS(MP_LINK_BACKOFF_MS);
    for (uint32_t i = 1; i < failures && pause < MP_MS(MP_LINK_BACKOFF_MS_MAX); i++)
        pause *= 2;
    if (pause > MP_MS(MP_LINK_BACKOFF_MS_MAX))
        pause = MP_MS(MP_LINK_BACKOFF_MS_MAX);
    return pause / 2 + mp_rng_below(&n->rng, pause / 2 + 1);
}

/* The seed's connection came to nothing: it is tried again, later unless that is settled. */
void mp_node_seed_again(struct mp_node *n, uint32_t number)
{
    struct mp_node_seed *seed = &n->seeds[number];
    seed->is_dialled = false;
    if (seed->due_at <= n->now)
        seed->due_at = n->now + mp_node_link_backoff(n, ++seed->failures);
    mp_node_links_wake(n, seed->due_at);
}

void mp_node_link_free(struct mp_node *n, uint32_t link)
{
    struct mp_node_link *l = &n->links[link];
    mp_assert(l->out_count == 0);
    unbind(n, link);
    n->links_up -= l->state == MP_NODE_LINK_UP;
    if (l->seed != MP_NODE_NONE)
        mp_node_seed_again(n, l->seed);
    *l = (struct mp_node_link){.state = MP_NODE_LINK_FREE, .next_free = n->link_free};
    n->link_free = link;
}

bool mp_node_link_bind_client(struct mp_node *n, uint32_t link, uint64_t client)
{
    if (!grow_map(n, &n->link_of_client, &n->client_capacity, (uint32_t)client))
        return false;
    n->links[link].client = client;
    n->links[link].client_last = client;
    n->link_of_client[(uint32_t)client] = link + 1;
    return true;
}

bool mp_node_link_bind_member(struct mp_node *n, uint32_t link, uint32_t member)
{
    if (!grow_map(n, &n->link_of_member, &n->member_capacity, member))
        return false;
    n->links[link].member = member;
    n->link_of_member[member] = link + 1;
    return true;
}

void mp_node_links_fini(struct mp_node *n)
{
    mp_alloc_free(n->alloc, n->links, n->link_capacity * sizeof(*n->links));
    mp_alloc_free(n->alloc, n->link_of_member, n->member_capacity * sizeof(uint32_t));
    mp_alloc_free(n->alloc, n->link_of_client, n->client_capacity * sizeof(uint32_t));
    mp_alloc_free(n->alloc, n->seeds, MP_SEEDS_MAX * sizeof(*n->seeds));
}

uint32_t mp_node_link_count(const struct mp_node *n)
{
    return n->links_up;
}

/* --- saying something --- */

void mp_node_send_frame(struct mp_node *n, uint64_t client, uint8_t type, uint64_t id,
                        struct mp_slice meta, struct mp_rpc_payload payload)
{
    if (mp_node_is_gone(n, client)) {
        if (payload.handle != 0)
            mp_node_emit(n, MP_NODE_RELEASE)->payload = payload;
        return;
    }
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_SEND_FRAME);
    e->client = client;
    e->frame = type;
    e->id = id;
    e->context = meta;
    e->payload = payload;
}

void mp_node_close_client(struct mp_node *n, uint64_t client)
{
    mp_node_emit(n, MP_NODE_CLOSE)->client = client;
    if (mp_buf_append(&n->closed, mp_slice_of(&client, sizeof(client))) != MP_OK)
        n->is_out_of_memory = true;
    mp_node_put_off(n, MP_NODE_WORK_CLOSED, client);
}

/* --- choosing one --- */

/* The links to seeds are left out: with those of all who joined there, a seed would be asked by
 * all.
 */
bool mp_node_link_is_any(const struct mp_node_link *l)
{
    return l->state == MP_NODE_LINK_UP && !l->was_seed;
}

uint32_t mp_node_link_any(struct mp_node *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->link_used; i++)
        count += mp_node_link_is_any(&n->links[i]);
    if (count < MP_SYNC_LINKS_MIN)
        return MP_NODE_NONE;
    uint32_t left = (uint32_t)mp_rng_below(&n->rng, count);
    for (uint32_t i = 0; i < n->link_used; i++)
        if (mp_node_link_is_any(&n->links[i]) && left-- == 0)
            return i;
    return MP_NODE_NONE;
}

void mp_node_link_used(struct mp_node *n, uint64_t client)
{
    uint32_t link = mp_node_link_of_client(n, client);
    if (link != MP_NODE_NONE)
        n->links[link].used_at = n->now;
}

/* --- dialling --- */

void mp_node_link_dial(struct mp_node *n, uint32_t link, const struct mp_address *addr)
{
    struct mp_node_link *l = &n->links[link];
    if (!mp_node_make_room(n)) {
        mp_node_link_due(n, l, n->now + MP_MS(MP_LINK_BACKOFF_MS_MAX));
        return;
    }
    l->state = MP_NODE_LINK_DIALLING;
    l->is_ours = true;
    l->dial = ++n->dials << 32 | link;
    l->due_at = MP_NEVER; /* DIALED always comes */
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_DIAL);
    e->id = l->dial;
    e->addr = *addr;
}

void mp_node_link_dial_member(struct mp_node *n, uint32_t link)
{
    struct mp_member_info info;
    if (mp_membership_get(n->membership, n->links[link].member, &info))
        mp_node_link_dial(n, link, &info.addr);
}

/* A member that only answered through a helper is reached through it, also if there is a link: it
 * was asked as well, and said nothing. What it has had may still be answered. */
static uint32_t by_way_of(const struct mp_node *n, uint32_t member)
{
    struct mp_member_info info;
    if (!mp_membership_get(n->membership, member, &info) || info.via == MP_MEMBER_NONE ||
        info.via == MP_MEMBER_SELF)
        return member;
    return info.via;
}

uint32_t mp_node_link_to(struct mp_node *n, uint32_t member)
{
    mp_assert(member != MP_MEMBER_SELF);
    member = by_way_of(n, member);
    uint32_t link = mp_node_link_of_member(n, member);
    if (link != MP_NODE_NONE)
        return link;
    link = mp_node_link_new(n);
    if (link == MP_NODE_NONE)
        return MP_NODE_NONE;
    if (!mp_node_link_bind_member(n, link, member)) {
        mp_node_link_free(n, link);
        return MP_NODE_NONE;
    }
    mp_node_link_dial_member(n, link);
    return link;
}

/* The link is over, or never came up; what it had is lost. Of one whose other end had said HELLO,
 * what was not sent yet goes over a new one. Otherwise those who wait are told, so that they may go
 * elsewhere; only what must be said in the end (RELEASE) waits for another try, with a pause. */
void mp_node_link_end(struct mp_node *n, mp_time now, uint32_t link)
{
    struct mp_node_link *l = &n->links[link];
    struct mp_member_info info = {.state = MP_MEMBER_DEAD};
    uint32_t member = l->member;
    bool was_up = l->state == MP_NODE_LINK_UP;
    if (member != MP_NODE_NONE)
        (void)mp_membership_get(n->membership, member, &info);
    if (mp_node_any_link(n, l->client) == link)
        n->link_of_client[(uint32_t)l->client] = 0;
    n->links_up -= was_up;
    l->state = MP_NODE_LINK_WAITING; /* nothing is sent on it any more */
    l->client = 0;
    l->is_asked = l->is_held_back = false;
    l->failures++;
    /* It was the right node: a HELLO that came to nothing was one of an older boot. */
    if ((was_up || l->generation != 0) && info.state < MP_MEMBER_DEAD) {
        unbind(n, link);
        l->member = MP_NODE_NONE;
    }
    mp_node_outs_lost(n, now, link);
    l = &n->links[link];
    if (l->out_count == 0)
        mp_node_link_free(n, link);
    else
        mp_node_link_due(n, l, now + mp_node_link_backoff(n, l->failures));
    if (was_up && info.state == MP_MEMBER_LEFT)
        mp_node_release_all(n, member);
}

void mp_node_dialed(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint32_t link = (uint32_t)ev->dialed.dial;
    uint64_t client = ev->dialed.client;
    struct mp_node_link *l = link < n->link_used ? &n->links[link] : NULL;
    if (!l || l->state != MP_NODE_LINK_DIALLING || l->dial != ev->dialed.dial) {
        if (client != 0)
            mp_node_close_client(n, client);
        return;
    }
    if (client != 0 && mp_node_link_bind_client(n, link, client)) {
        l->state = MP_NODE_LINK_GREETING;
        mp_node_link_due(n, l, now + MP_MS(MP_LINK_GREETING_MS));
        mp_node_say_hello(n, client);
        return;
    }
    if (client != 0)
        mp_node_close_client(n, client);
    if (l->seed != MP_NODE_NONE) {
        struct mp_node_seed *seed = &n->seeds[l->seed];
        char bytes[256];
        struct mp_text text;
        mp_text_init(&text, bytes, sizeof(bytes));
        mp_text_put(&text, "cannot join ");
        mp_address_put(&text, &seed->addr);
        mp_text_put(&text, ": ");
        mp_text_put_slice(&text, ev->dialed.why);
        mp_text_put(&text, "; it is tried again");
        /* At first others are still starting; what stays so is told, but not each time. */
        if (seed->failures++ == 5)
            mp_node_log(n, 2, mp_text_slice(&text));
        seed->due_at = now + mp_node_link_backoff(n, seed->failures);
        l->state = MP_NODE_LINK_WAITING;
        mp_node_link_free(n, link);
        return;
    }
    mp_node_link_end(n, now, link);
}

/* --- frames --- */

static void protocol_error(struct mp_node *n, uint64_t client, const char *what)
{
    char bytes[128];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, what);
    mp_node_link_refuse(n, client, MP_CODE_INVALID_ARGUMENT, "PROTOCOL", &text);
}

static void link_frame(struct mp_node *n, mp_time now, uint32_t link,
                       const struct mp_node_event *ev, struct mp_rpc_payload *payload)
{
    uint64_t client = ev->frame.client;
    if (ev->frame.type == MP_FRAME_FORWARD || ev->frame.type == MP_FRAME_FETCH)
        n->links[link].used_at = now;
    switch (ev->frame.type) {
    case MP_FRAME_RESULT:
    case MP_FRAME_ERROR:
        mp_node_out_answer(n, now, link, ev->frame.type, ev->frame.id, ev->frame.meta, payload);
        break;
    case MP_FRAME_EVENT:
        mp_node_out_event(n, link, ev->frame.id, payload);
        break;
    case MP_FRAME_PING:
        mp_node_link_ping(n, link, ev->frame.id);
        break;
    case MP_FRAME_PONG:
        mp_node_put_off(n, MP_NODE_WORK_TCP_ACK, n->links[link].member);
        mp_node_link_pong(n, now, link, ev->frame.id);
        break;
    case MP_FRAME_SYNC:
        mp_node_sync_frame(n, now, link, ev->frame.id, payload->bytes);
        break;
    case MP_FRAME_WANT:
        mp_node_want_frame(n, link, payload->bytes);
        break;
    case MP_FRAME_HAVE:
        mp_node_have_frame(n, now, link, payload->bytes);
        break;
    case MP_FRAME_FETCH:
        mp_node_fetch_frame(n, client, ev->frame.id, ev->frame.meta);
        break;
    case MP_FRAME_RELEASE:
        mp_node_release_frame(n, client, ev->frame.id, ev->frame.meta);
        break;
    case MP_FRAME_RUNS:
        mp_node_runs_frame(n, n->links[link].member, ev->frame.id, payload->bytes);
        if ((ev->frame.id & MP_NODE_RUNS_ASKS) != 0)
            mp_node_say_runs(n, client, ev->frame.id - MP_NODE_RUNS_ASKS);
        break;
    case MP_FRAME_FORWARD:
        mp_node_forward(n, now, ev);
        payload->handle = 0;
        break;
    case MP_FRAME_STAGE:
    case MP_FRAME_SWITCH:
    case MP_FRAME_CODE:
    case MP_FRAME_LIST:
        n->links[link].used_at = now;
        (void)mp_node_code_request(n, now, ev);
        break;
    case MP_FRAME_PUBLISHED:
    case MP_FRAME_BACKLOG:
        n->links[link].used_at = now;
        (void)mp_node_topic_request(n, now, ev);
        break;
    default: /* GOAWAY and what a later version may say */
        break;
    }
}

void mp_node_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_rpc_payload payload = ev->frame.payload;
    uint32_t link = mp_node_any_link(n, ev->frame.client);
    mp_node_wall_is(n, now, ev->frame.wall_ms);
    if (ev->frame.type == MP_FRAME_HELLO)
        mp_node_hello_frame(n, now, ev);
    else if (link == MP_NODE_NONE)
        protocol_error(n, ev->frame.client, "a frame that only nodes send, before HELLO");
    else if (ev->frame.type == MP_FRAME_REFUSED)
        mp_node_refused_frame(n, now, link, payload.bytes);
    else if (n->links[link].state == MP_NODE_LINK_UP)
        link_frame(n, now, link, ev, &payload);
    if (payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = payload;
}

/* --- ends --- */

void mp_node_link_gone(struct mp_node *n, mp_time now, uint64_t client)
{
    uint32_t link = mp_node_any_link(n, client);
    if (link == MP_NODE_NONE)
        return;
    mp_node_link_end(n, now, link);
}

void mp_node_pressure(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    uint32_t link = mp_node_any_link(n, ev->pressure.client);
    if (link == MP_NODE_NONE) {
        mp_node_topics_pressure(n, now, ev->pressure.client, ev->pressure.is_high);
        return;
    }
    n->links[link].is_high = ev->pressure.is_high;
    mp_node_outs_flush(n, link);
}

void mp_node_link_member_changed(struct mp_node *n, mp_time now, uint32_t member)
{
    struct mp_member_info info;
    if (!mp_membership_get(n->membership, member, &info))
        return;
    for (uint32_t i = 0; i < n->link_used; i++) {
        struct mp_node_link *l = &n->links[i];
        if (l->member != member || l->state == MP_NODE_LINK_FREE)
            continue;
        bool is_old = l->state >= MP_NODE_LINK_GREETING && l->generation != 0 &&
                      info.generation > l->generation;
        if (info.state == MP_MEMBER_DEAD || is_old) {
            /* The calls that came over it end with the CLIENT_GONE that follows. */
            if (l->state >= MP_NODE_LINK_GREETING)
                mp_node_close_client(n, l->client);
            mp_node_link_end(n, now, i);
        } else if (l->state == MP_NODE_LINK_GREETING && l->generation == info.generation &&
                   info.state < MP_MEMBER_DEAD) {
            /* A newcomer whose name was in doubt is that member now. */
            if (!l->is_ours)
                mp_node_say_hello(n, l->client);
            mp_node_link_set_up(n, i, member);
        }
    }
}

void mp_node_link_via_changed(struct mp_node *n, uint32_t member)
{
    uint32_t link = mp_node_link_of_member(n, member);
    if (link != MP_NODE_NONE)
        mp_node_outs_reroute(n, link);
}

void mp_node_link_member_gone(struct mp_node *n, mp_time now, uint32_t member)
{
    for (uint32_t i = 0; i < n->link_used; i++) {
        if (n->links[i].state == MP_NODE_LINK_FREE || n->links[i].member != member)
            continue;
        if (n->links[i].state >= MP_NODE_LINK_GREETING)
            mp_node_close_client(n, n->links[i].client);
        if (n->links[i].state == MP_NODE_LINK_UP) {
            n->links_up--;
            n->links[i].state = MP_NODE_LINK_GREETING;
        }
        n->links[i].generation = 0;
        mp_node_link_end(n, now, i); /* as if it had never been up: nobody is dialled */
    }
}
