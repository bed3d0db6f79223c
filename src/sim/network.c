/* The network between nodes. Datagrams are lost, delayed, doubled and overtaken. Connections carry
 * frames in order: while a pair is cut they wait, and whoever waits too long for an acknowledgement
 * ends its side; a side that has nothing to say does not notice, unless the other side is gone. The
 * machine of a node whose process ended tells so whoever is connected to it or connects; a machine
 * that is gone says nothing. All that is sent is counted in bytes, headers of IP and TCP or UDP
 * included. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/sim/world_internal.h"
#include "src/wire/frame.h"

#define LATENCY_LEAST   MP_US(50)
#define RESENT_AFTER    MP_MS(200)     /* what a cut held up is tried again */
#define STALLED_MAX     MP_SECONDS(10) /* unacknowledged for longer: the connection ends */
#define DIAL_LONGEST    MP_SECONDS(2)  /* to connect and hear the other preface */
#define ALONE_MAX       MP_SECONDS(15) /* by then a silent side knows that the other is gone */
#define WATCHED_EACH    MP_SECONDS(1)
#define REPLAYED_WITHIN MP_SECONDS(30)
#define UDP_BYTES       28
#define TCP_BYTES       40
#define SEGMENT_BYTES   1448

/* --- connections as a node numbers them --- */

uint64_t mp_world_conn_open(struct mp_world *w, struct mp_world_node *n,
                            enum mp_world_conn_kind kind)
{
    uint32_t place = n->conn_free;
    if (place == MP_WORLD_NONE) {
        place = n->conn_count++;
        n->conns = (struct mp_world_conn *)mp_world_grow(w, n->conns, &n->conn_capacity,
                                                         n->conn_count, sizeof(*n->conns));
    } else {
        n->conn_free = n->conns[place].link;
    }
    struct mp_world_conn *c = &n->conns[place];
    *c = (struct mp_world_conn){.kind = kind, .generation = c->generation + 1};
    return (uint64_t)c->generation << 32 | place;
}

struct mp_world_conn *mp_world_conn(const struct mp_world_node *n, uint64_t number)
{
    uint32_t place = (uint32_t)number;
    if (place >= n->conn_count || n->conns[place].kind == MP_WORLD_CONN_FREE ||
        n->conns[place].generation != number >> 32)
        return NULL;
    return &n->conns[place];
}

void mp_world_conn_close(struct mp_world_node *n, uint64_t number)
{
    struct mp_world_conn *c = mp_world_conn(n, number);
    mp_assert(c);
    c->kind = MP_WORLD_CONN_FREE;
    c->link = n->conn_free;
    n->conn_free = (uint32_t)number;
}

/* --- who reaches whom --- */

bool mp_world_is_cut(const struct mp_world *w, uint32_t from, uint32_t to)
{
    if (w->nodes[to].state == MP_WORLD_NODE_OFF)
        return true;
    if (w->now < w->parted_until && w->sides[from] != w->sides[to])
        return true;
    for (uint32_t i = 0; i < w->cut_count; i++)
        if (w->now < w->cuts[i].until && w->cuts[i].from == from && w->cuts[i].to == to)
            return true;
    return false;
}

static mp_duration latency(struct mp_world *w, const struct mp_world_node *to)
{
    mp_duration d = LATENCY_LEAST + mp_world_latency(w, w->cfg.latency_longest);
    if (w->now < to->lags_until)
        d += mp_rng_below(&w->rng, to->lag_longest);
    return d;
}

/* --- datagrams --- */

static void plan_datagram(struct mp_world *w, uint32_t from, uint32_t to, struct mp_slice bytes,
                          mp_duration after)
{
    uint32_t place = w->datagram_free;
    if (place == MP_WORLD_NONE) {
        place = w->datagram_count++;
        w->datagrams = (struct mp_world_datagram *)mp_world_grow(
            w, w->datagrams, &w->datagram_capacity, w->datagram_count, sizeof(*w->datagrams));
    } else {
        w->datagram_free = w->datagrams[place].to;
    }
    struct mp_world_datagram *d = &w->datagrams[place];
    *d = (struct mp_world_datagram){.from = from, .to = to, .size = bytes.size};
    if (bytes.size != 0) {
        d->bytes = mp_alloc_take(w->alloc, bytes.size);
        mp_assert(d->bytes);
        memcpy(d->bytes, bytes.data, bytes.size);
    }
    mp_world_plan(w, after,
                  (struct mp_world_happening){.kind = MP_WORLD_DATAGRAM_DUE, .number = place});
}

/* A truncated copy, or bytes that never meant anything: whoever knows the port can send them. */
static void send_garbage(struct mp_world *w, uint32_t from, uint32_t to, struct mp_slice bytes)
{
    uint8_t noise[64];
    if (mp_world_chance(w, 500)) {
        bytes.size = mp_rng_below(&w->rng, bytes.size + 1);
    } else {
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (uint8_t)mp_rng_next(&w->rng);
        bytes = mp_slice_of(noise, mp_rng_below(&w->rng, sizeof(noise)));
    }
    plan_datagram(w, from, to, bytes, latency(w, &w->nodes[to]));
}

void mp_world_send_datagram(struct mp_world *w, struct mp_world_node *n,
                            const struct mp_node_effect *e)
{
    const struct mp_world_faults *f = &w->cfg.faults;
    struct mp_slice bytes = e->payload.bytes;
    uint32_t to = mp_world_node_at(w, &e->addr);
    n->bytes_sent += bytes.size + UDP_BYTES;
    if (bytes.size > MP_GOSSIP_BYTES_MAX)
        mp_world_violation(w, "datagrams", "a datagram is too large", bytes.size);
    if (to == MP_WORLD_NONE || mp_world_is_cut(w, n->number, to) || mp_world_chance(w, f->loss))
        return;
    mp_duration after = latency(w, &w->nodes[to]);
    if (mp_world_chance(w, f->late))
        after += mp_rng_below(&w->rng, f->late_longest + 1);
    plan_datagram(w, n->number, to, bytes, after);
    if (mp_world_chance(w, f->duplicated)) {
        mp_duration longest = mp_world_chance(w, 100) ? REPLAYED_WITHIN : w->cfg.latency_longest;
        plan_datagram(w, n->number, to, bytes, after + mp_world_latency(w, longest));
    }
    if (mp_world_chance(w, f->garbage))
        send_garbage(w, n->number, to, bytes);
}

static void datagram_due(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_datagram d = w->datagrams[h->number];
    struct mp_world_node *n = &w->nodes[d.to];
    if (n->node && mp_world_is_paused(w, n)) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    w->datagrams[h->number].bytes = NULL;
    w->datagrams[h->number].size = 0;
    w->datagrams[h->number].to = w->datagram_free;
    w->datagram_free = (uint32_t)h->number;
    if (n->node) {
        const struct mp_node_event ev = {.kind = MP_NODE_DATAGRAM,
                                         .datagram = {.from = mp_world_address_of(d.from),
                                                      .bytes = mp_slice_of(d.bytes, d.size)}};
        mp_world_step(w, n, &ev);
    }
    mp_alloc_free(w->alloc, d.bytes, d.size);
}

/* --- links --- */

static struct mp_world_node *node_of(struct mp_world *w, const struct mp_world_end *end)
{
    return &w->nodes[end->node];
}

static void drop_frames(struct mp_world *w, struct mp_world_end *end)
{
    while (end->first) {
        struct mp_world_frame *f = end->first;
        end->first = f->next;
        mp_alloc_free(w->alloc, f, f->own_size);
    }
    end->last = NULL;
}

static void plan_link(struct mp_world *w, uint32_t number, uint32_t side, mp_duration after,
                      enum mp_world_happening_kind kind)
{
    mp_world_plan(
        w, after,
        (struct mp_world_happening){
            .kind = kind, .place = number, .number = w->links[number].generation, .extra = side});
}

static void plan_arrival(struct mp_world *w, uint32_t number, uint32_t side, mp_time at)
{
    struct mp_world_end *end = &w->links[number].ends[side];
    if (end->is_due)
        return;
    end->is_due = true;
    plan_link(w, number, side, at > w->now ? at - w->now : 0, MP_WORLD_LINK_DUE);
}

/* Puts a frame on its way to that end; it owns it from now on. */
static void enqueue(struct mp_world *w, uint32_t number, uint32_t side,
                    struct mp_world_frame *own_frame)
{
    struct mp_world_end *end = &w->links[number].ends[side];
    own_frame->due = w->now + latency(w, node_of(w, end));
    if (end->last && end->last->due >= own_frame->due)
        own_frame->due = end->last->due + 1;
    if (end->last)
        end->last->next = own_frame;
    else
        end->first = own_frame;
    end->last = own_frame;
    plan_arrival(w, number, side, end->first->due);
}

static struct mp_world_frame *new_frame(struct mp_world *w, size_t bytes)
{
    struct mp_world_frame *f = (struct mp_world_frame *)mp_world_take(w, sizeof(*f) + bytes);
    f->own_size = sizeof(*f) + bytes;
    return f;
}

static void send_end(struct mp_world *w, uint32_t number, uint32_t side)
{
    struct mp_world_end *end = &w->links[number].ends[side];
    if (!end->is_open || (end->last && end->last->is_end))
        return;
    struct mp_world_frame *f = new_frame(w, 0);
    f->is_end = true;
    enqueue(w, number, side, f);
}

static void free_link_if_over(struct mp_world *w, uint32_t number)
{
    struct mp_world_link *l = &w->links[number];
    if (l->ends[0].is_open || l->ends[1].is_open || !l->is_used)
        return;
    drop_frames(w, &l->ends[0]);
    drop_frames(w, &l->ends[1]);
    l->is_used = false;
    l->next_free = w->link_free;
    w->link_free = number;
}

/* One side ends; what it still had to hear is of no use. `is_told`: its node hears CLIENT_GONE. */
static void end_side(struct mp_world *w, uint32_t number, uint32_t side, bool is_told)
{
    struct mp_world_end *end = &w->links[number].ends[side];
    struct mp_world_node *n = node_of(w, end);
    const struct mp_node_event gone = {.kind = MP_NODE_CLIENT_GONE,
                                       .request = {.client = end->conn}};
    mp_assert(end->is_open);
    end->is_open = false;
    end->stalled_since = 0;
    drop_frames(w, end);
    mp_world_conn_close(n, end->conn);
    n->bytes_sent += 2 * TCP_BYTES;
    if (w->links[number].ends[1 - side].is_open)
        plan_link(w, number, 1 - side, ALONE_MAX, MP_WORLD_LINK_ALONE);
    free_link_if_over(w, number);
    if (is_told)
        mp_world_step(w, n, &gone);
}

/* --- frames --- */

static void count_frame(struct mp_world *w, const struct mp_world_link *l, uint32_t side,
                        size_t bytes)
{
    size_t segments = 1 + bytes / SEGMENT_BYTES;
    w->nodes[l->ends[side].node].bytes_sent += bytes + segments * TCP_BYTES;
    w->nodes[l->ends[1 - side].node].bytes_sent += (segments + 1) / 2 * TCP_BYTES;
}

void mp_world_send_frame(struct mp_world *w, struct mp_world_node *n,
                         const struct mp_node_effect *e)
{
    const struct mp_world_conn *c = mp_world_conn(n, e->client);
    struct mp_slice meta = e->context;
    struct mp_slice payload = e->payload.bytes;
    if (!c)
        return; /* it ended in this very step */
    if (c->kind == MP_WORLD_CONN_CLIENT) {
        if (e->frame != MP_FRAME_GOAWAY)
            mp_world_violation(w, "one-answer", "a frame of nodes went to a client", e->frame);
        return;
    }
    if (meta.size > UINT16_MAX)
        mp_world_violation(w, "datagrams", "a frame's meta part is too large", meta.size);
    struct mp_world_link *l = &w->links[c->link];
    struct mp_world_frame *f = new_frame(w, meta.size + payload.size);
    f->type = e->frame;
    f->id = e->id;
    f->is_shared = e->payload.handle != 0;
    f->meta_size = (uint32_t)meta.size;
    f->payload_size = payload.size;
    if (meta.size != 0)
        memcpy(f->bytes, meta.data, meta.size);
    if (payload.size != 0)
        memcpy(f->bytes + meta.size, payload.data, payload.size);
    count_frame(w, l, c->side, MP_FRAME_HEADER_BYTES + meta.size + payload.size);
    if (l->ends[1 - c->side].is_open)
        mp_world_watch_sent(w, n, l->ends[1 - c->side].node, f);
    enqueue(w, c->link, 1 - c->side, f);
}

void mp_world_close(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    const struct mp_world_conn *c = mp_world_conn(n, e->client);
    const struct mp_node_event gone = {.kind = MP_NODE_CLIENT_GONE,
                                       .request = {.client = e->client}};
    if (!c)
        return;
    if (c->kind == MP_WORLD_CONN_CLIENT) {
        mp_world_violation(w, "one-answer", "a client that did nothing wrong was disconnected",
                           e->client);
        return;
    }
    uint32_t link = c->link;
    uint32_t side = c->side;
    send_end(w, link, 1 - side);
    end_side(w, link, side, false);
    mp_world_answer(w, &gone);
}

static void deliver(struct mp_world *w, struct mp_world_node *n, uint64_t conn, uint32_t from,
                    const struct mp_world_frame *f)
{
    struct mp_node_event ev = {.kind = MP_NODE_FRAME};
    struct mp_slice meta = mp_slice_of(f->bytes, f->meta_size);
    struct mp_slice bytes = mp_slice_of(f->bytes + f->meta_size, f->payload_size);
    struct mp_rpc_payload payload = {.bytes = bytes};
    if (bytes.size != 0 && (f->is_shared || bytes.size >= MP_VALUE_INLINE_MAX))
        payload = mp_world_shared(w, n, bytes);
    mp_world_watch_came(w, n, from, f);
    if (f->type >= MP_FRAME_CALL && f->type <= MP_FRAME_QUERY) {
        ev.kind = f->type == MP_FRAME_CALL     ? MP_NODE_CALL
                  : f->type == MP_FRAME_RUN    ? MP_NODE_RUN
                  : f->type == MP_FRAME_CANCEL ? MP_NODE_CANCEL
                                               : MP_NODE_QUERY;
        ev.request.client = conn;
        ev.request.id = f->id;
        ev.request.meta = meta;
        ev.request.payload = payload;
        ev.request.wall_ms = mp_world_wall(w, n);
    } else {
        ev.frame.client = conn;
        ev.frame.type = f->type;
        ev.frame.id = f->id;
        ev.frame.meta = meta;
        ev.frame.payload = payload;
        ev.frame.wall_ms = mp_world_wall(w, n);
    }
    mp_world_step(w, n, &ev);
}

/* What was sent to `side` is not acknowledged: looked at again until it is, or for too long. */
static void stall(struct mp_world *w, uint32_t number, uint32_t side)
{
    struct mp_world_end *sender = &w->links[number].ends[1 - side];
    if (!sender->is_open)
        return;
    if (sender->stalled_since == 0)
        sender->stalled_since = w->now;
    if (sender->is_watched)
        return;
    sender->is_watched = true;
    plan_link(w, number, side, WATCHED_EACH, MP_WORLD_LINK_WATCHED);
}

static void link_watched(struct mp_world *w, uint32_t number, uint32_t side)
{
    struct mp_world_end *receiver = &w->links[number].ends[side];
    struct mp_world_end *sender = &w->links[number].ends[1 - side];
    sender->is_watched = false;
    if (!sender->is_open || sender->stalled_since == 0)
        return;
    if (!mp_world_is_cut(w, sender->node, receiver->node) &&
        !mp_world_is_cut(w, receiver->node, sender->node)) {
        sender->stalled_since = 0;
        return;
    }
    struct mp_world_node *n = node_of(w, sender);
    if (w->now - sender->stalled_since >= STALLED_MAX && !mp_world_is_paused(w, n)) {
        drop_frames(w, receiver);
        end_side(w, number, 1 - side, true);
        return;
    }
    stall(w, number, side);
}

/* The other side ended and could not tell: the system asks it, and hears, or not. */
static void link_alone(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_end *end = &w->links[h->place].ends[h->extra];
    struct mp_world_node *n = node_of(w, end);
    if (!end->is_open)
        return;
    if (mp_world_is_paused(w, n))
        mp_world_plan(w, n->paused_until - w->now, *h);
    else
        end_side(w, h->place, (uint32_t)h->extra, true);
}

/* The next frame for `side`, if there is one to take now. */
static struct mp_world_frame *take_frame(struct mp_world *w, uint32_t number, uint32_t side)
{
    struct mp_world_end *end = &w->links[number].ends[side];
    const struct mp_world_end *other = &w->links[number].ends[1 - side];
    struct mp_world_frame *f = end->first;
    if (!f)
        return NULL;
    if (f->due > w->now) {
        plan_arrival(w, number, side, f->due);
        return NULL;
    }
    if (node_of(w, end)->node && mp_world_is_paused(w, node_of(w, end))) {
        plan_arrival(w, number, side, node_of(w, end)->paused_until);
        return NULL;
    }
    if (mp_world_is_cut(w, other->node, end->node)) {
        stall(w, number, side);
        /* Of a side that is gone the end is told a few times, then never again. */
        if (!other->is_open && w->now - f->due >= STALLED_MAX)
            drop_frames(w, end);
        else
            plan_arrival(w, number, side, w->now + RESENT_AFTER);
        return NULL;
    }
    if (mp_world_is_cut(w, end->node, other->node))
        stall(w, number, side);
    end->first = f->next;
    if (!end->first)
        end->last = NULL;
    return f;
}

static void link_due(struct mp_world *w, uint32_t number, uint32_t side)
{
    uint32_t generation = w->links[number].generation;
    w->links[number].ends[side].is_due = false;
    for (;;) {
        struct mp_world_frame *f = take_frame(w, number, side);
        if (!f)
            return;
        struct mp_world_end *end = &w->links[number].ends[side];
        uint32_t other = w->links[number].ends[1 - side].node;
        if (!end->is_open)
            send_end(w, number, 1 - side); /* nobody is there: so the sender hears */
        else if (f->is_end)
            end_side(w, number, side, true);
        else
            deliver(w, node_of(w, end), end->conn, other, f);
        mp_alloc_free(w->alloc, f, f->own_size);
        if (!w->links[number].is_used || w->links[number].generation != generation)
            return;
    }
}

/* --- dialling --- */

static const mp_duration attempts[] = {0, MP_SECONDS(1)};

void mp_world_dial(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    n->bytes_sent += TCP_BYTES;
    mp_world_plan(w, 2 * LATENCY_LEAST + 2 * mp_world_latency(w, w->cfg.latency_longest),
                  (struct mp_world_happening){.kind = MP_WORLD_DIAL_DUE,
                                              .node = n->number,
                                              .place = mp_world_node_at(w, &e->addr),
                                              .number = e->id,
                                              .extra = (uint64_t)n->boot << 8});
}

static void tell_dialed(struct mp_world *w, struct mp_world_node *n, uint64_t dial, uint64_t conn,
                        const char *why)
{
    const struct mp_node_event ev = {
        .kind = MP_NODE_DIALED, .dialed = {.dial = dial, .client = conn, .why = mp_slice_str(why)}};
    mp_world_step(w, n, &ev);
}

static void connect(struct mp_world *w, struct mp_world_node *a, struct mp_world_node *b,
                    uint64_t dial)
{
    uint32_t number = w->link_free;
    if (number == MP_WORLD_NONE) {
        number = w->link_count++;
        w->links = (struct mp_world_link *)mp_world_grow(w, w->links, &w->link_capacity,
                                                         w->link_count, sizeof(*w->links));
    } else {
        w->link_free = w->links[number].next_free;
    }
    struct mp_world_link *l = &w->links[number];
    struct mp_world_node *nodes[2] = {a, b};
    *l = (struct mp_world_link){.is_used = true, .generation = l->generation + 1};
    for (uint32_t side = 0; side < 2; side++) {
        struct mp_world_node *n = nodes[side];
        uint64_t conn = mp_world_conn_open(w, n, MP_WORLD_CONN_LINK);
        l->ends[side] = (struct mp_world_end){
            .node = n->number, .boot = n->boot, .conn = conn, .is_open = true};
        mp_world_conn(n, conn)->link = number;
        mp_world_conn(n, conn)->side = side;
    }
    a->bytes_sent += 2 * TCP_BYTES + MP_PREFACE_BYTES;
    b->bytes_sent += 2 * TCP_BYTES + MP_PREFACE_BYTES;
    tell_dialed(w, a, dial, l->ends[0].conn, "");
}

static void dial_due(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_node *n = &w->nodes[h->node];
    uint64_t attempt = h->extra & 0xff;
    if (!n->node || n->boot != h->extra >> 8)
        return;
    if (mp_world_is_paused(w, n)) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    struct mp_world_node *to = h->place == MP_WORLD_NONE ? NULL : &w->nodes[h->place];
    bool is_silent = !to || mp_world_is_cut(w, n->number, to->number) ||
                     mp_world_is_cut(w, to->number, n->number) ||
                     (to->node && mp_world_is_paused(w, to));
    struct mp_world_happening again = *h;
    again.extra++;
    if (!is_silent && !to->node)
        tell_dialed(w, n, h->number, 0, "connection refused");
    else if (!is_silent)
        connect(w, n, to, h->number);
    else if (attempt + 1 < MP_ARRAY_SIZE(attempts))
        mp_world_plan(w, attempts[attempt + 1] - attempts[attempt], again);
    else if (attempt + 1 == MP_ARRAY_SIZE(attempts))
        mp_world_plan(w, DIAL_LONGEST - attempts[attempt], again);
    else
        tell_dialed(w, n, h->number, 0, "connection timed out");
}

/* What the system sends on links that say nothing, at most: they are not drawn one by one. */
void mp_world_keep_links_alive(struct mp_world *w, mp_duration how_long)
{
    for (uint32_t i = 0; i < w->link_count; i++)
        for (uint32_t side = 0; side < 2; side++)
            if (w->links[i].is_used && w->links[i].ends[side].is_open)
                w->nodes[w->links[i].ends[side].node].bytes_sent +=
                    how_long / MP_MS(MP_LINK_KEEPALIVE_MS) * TCP_BYTES;
}

/* --- pressure --- */

static void eased(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_node *n = &w->nodes[h->node];
    struct mp_world_conn *c = n->node ? mp_world_conn(n, h->number) : NULL;
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE, .pressure = {.client = h->number}};
    if (!c || !c->is_high)
        return;
    if (mp_world_is_paused(w, n)) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    c->is_high = false;
    mp_world_topics_eased(w, n, h->number);
    mp_world_step(w, n, &ev);
}

/* --- the whole --- */

void mp_world_network_happening(struct mp_world *w, const struct mp_world_happening *h)
{
    switch (h->kind) {
    case MP_WORLD_DATAGRAM_DUE:
        datagram_due(w, h);
        break;
    case MP_WORLD_DIAL_DUE:
        dial_due(w, h);
        break;
    case MP_WORLD_EASED:
        eased(w, h);
        break;
    default:
        if (!w->links[h->place].is_used || w->links[h->place].generation != h->number)
            break;
        if (h->kind == MP_WORLD_LINK_DUE)
            link_due(w, h->place, (uint32_t)h->extra);
        else if (h->kind == MP_WORLD_LINK_ALONE)
            link_alone(w, h);
        else
            link_watched(w, h->place, (uint32_t)h->extra);
        break;
    }
}

void mp_world_network_lost(struct mp_world *w, struct mp_world_node *n, bool is_off)
{
    for (uint32_t i = 0; i < n->conn_count; i++) {
        const struct mp_world_conn c = n->conns[i];
        if (c.kind != MP_WORLD_CONN_LINK)
            continue;
        if (!is_off)
            send_end(w, c.link, 1 - c.side);
        end_side(w, c.link, c.side, false);
    }
}

void mp_world_network_heal(struct mp_world *w)
{
    w->cut_count = 0;
    w->parted_until = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct mp_world_node *n = &w->nodes[i];
        for (uint32_t k = 0; n->node && k < n->conn_count; k++)
            if (n->conns[k].kind != MP_WORLD_CONN_FREE && n->conns[k].is_high)
                mp_world_plan(w, 0,
                              (struct mp_world_happening){
                                  .kind = MP_WORLD_EASED,
                                  .node = i,
                                  .number = (uint64_t)n->conns[k].generation << 32 | k});
    }
}

void mp_world_network_fini(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->link_count; i++) {
        drop_frames(w, &w->links[i].ends[0]);
        drop_frames(w, &w->links[i].ends[1]);
    }
    for (uint32_t i = 0; i < w->datagram_count; i++)
        mp_alloc_free(w->alloc, w->datagrams[i].bytes, w->datagrams[i].size);
    mp_alloc_free(w->alloc, w->datagrams, w->datagram_capacity * sizeof(*w->datagrams));
    mp_alloc_free(w->alloc, w->links, w->link_capacity * sizeof(*w->links));
}
