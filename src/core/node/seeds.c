/* What happens to links as time passes: seeds are dialled until one leads into the cluster, those
 * who take too long to greet are let go, and links that carry nothing are closed when they are
 * many, or when another one has replaced them. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"

void mp_node_seed(struct mp_node *n, const struct mp_node_event *ev)
{
    if (ev->seed.number >= MP_SEEDS_MAX)
        return;
    if (!n->seeds) {
        n->seeds = mp_alloc_take(n->alloc, MP_SEEDS_MAX * sizeof(*n->seeds));
        if (!n->seeds) {
            n->is_out_of_memory = true;
            return;
        }
        memset(n->seeds, 0, MP_SEEDS_MAX * sizeof(*n->seeds));
    }
    struct mp_node_seed *seed = &n->seeds[ev->seed.number];
    if (seed->is_set && mp_address_equal(&seed->addr, &ev->seed.addr))
        return;
    seed->is_set = true;
    seed->addr = ev->seed.addr;
    seed->failures = 0;
    seed->due_at = n->now;
    mp_node_links_wake(n, n->now);
}

static bool is_member_at(const struct mp_node *n, const struct mp_address *addr)
{
    struct mp_member_info info;
    for (uint32_t i = 1; i < mp_membership_end(n->membership); i++)
        if (mp_membership_get(n->membership, i, &info) && info.state == MP_MEMBER_ALIVE &&
            mp_address_equal(&info.addr, addr))
            return true;
    return false;
}

static void seed_tick(struct mp_node *n, mp_time now, uint32_t number)
{
    struct mp_node_seed *seed = &n->seeds[number];
    if (!seed->is_set || seed->is_dialled || n->is_draining || n->is_stopped)
        return;
    if (seed->due_at <= now && is_member_at(n, &seed->addr))
        seed->due_at = now + MP_NODE_SEED_SATISFIED;
    if (seed->due_at > now) {
        mp_node_links_wake(n, seed->due_at);
        return;
    }
    uint32_t link = mp_node_link_new(n);
    if (link == MP_NODE_NONE) {
        seed->due_at = now + MP_SECONDS(1);
        mp_node_links_wake(n, seed->due_at);
        return;
    }
    n->links[link].seed = number;
    seed->is_dialled = true;
    mp_node_link_dial(n, link, &seed->addr);
}

/* --- hanging up --- */

/* The other end is asked first, since a request of its may be on its way. It says yes if it has
 * none, and holds new ones back until the link is closed or, since this end has one meanwhile, is
 * not. */
static void ask_to_hang_up(struct mp_node *n, struct mp_node_link *l)
{
    l->is_asked = true;
    mp_node_send_frame(n, l->client, MP_FRAME_PING, MP_NODE_HANG_UP_ID, (struct mp_slice){0},
                       (struct mp_rpc_payload){0});
}

void mp_node_link_ping(struct mp_node *n, uint32_t link, uint64_t id)
{
    struct mp_node_link *l = &n->links[link];
    if (id == MP_NODE_HANG_UP_ID && l->out_count != 0)
        id = MP_NODE_STAY_ID;
    l->is_held_back = id == MP_NODE_HANG_UP_ID || (l->is_held_back && id != MP_NODE_STAY_ID);
    mp_node_send_frame(n, l->client, MP_FRAME_PONG, id, (struct mp_slice){0},
                       (struct mp_rpc_payload){0});
    mp_node_outs_flush(n, link);
}

static void hang_up(struct mp_node *n, mp_time now, uint32_t link)
{
    mp_node_close_client(n, n->links[link].client);
    mp_node_link_end(n, now, link);
}

void mp_node_link_pong(struct mp_node *n, mp_time now, uint32_t link, uint64_t id)
{
    struct mp_node_link *l = &n->links[link];
    bool was_asked = l->is_asked;
    if (id == MP_NODE_GOODBYE_ID)
        l->is_told = false;
    if (!was_asked || (id != MP_NODE_HANG_UP_ID && id != MP_NODE_STAY_ID))
        return;
    l->is_asked = false;
    l->used_at = now;
    if (id == MP_NODE_STAY_ID)
        return;
    if (l->out_count == 0)
        hang_up(n, now, link);
    else
        mp_node_send_frame(n, l->client, MP_FRAME_PING, MP_NODE_STAY_ID, (struct mp_slice){0},
                           (struct mp_rpc_payload){0});
}

static bool is_idle(mp_time now, const struct mp_node_link *l)
{
    return l->state == MP_NODE_LINK_UP && l->is_ours && !l->is_asked && l->out_count == 0 &&
           l->used_at + MP_MS(MP_LINK_IDLE_MS) <= now;
}

/* One of our links that carry nothing: that to a seed as soon as there are enough others, so that
 * it need not keep one for each node of a large cluster, or the longest idle if there are too many.
 * False: nothing is too much.
 */
static bool sweep_idle(struct mp_node *n, mp_time now)
{
    uint32_t idle = 0;
    uint32_t others = 0;
    uint32_t oldest = MP_NODE_NONE;
    uint32_t seed = MP_NODE_NONE;
    for (uint32_t i = 0; i < n->link_used; i++) {
        const struct mp_node_link *l = &n->links[i];
        others += mp_node_link_is_any(l);
        if (!is_idle(now, l))
            continue;
        idle++;
        if (l->was_seed)
            seed = i;
        if (oldest == MP_NODE_NONE || l->used_at < n->links[oldest].used_at)
            oldest = i;
    }
    uint32_t gone = seed != MP_NODE_NONE && others >= MP_SYNC_LINKS_MIN ? seed
                    : idle > MP_LINKS_IDLE_MAX                          ? oldest
                                                                        : MP_NODE_NONE;
    if (gone == MP_NODE_NONE || !mp_node_make_room(n))
        return false;
    ask_to_hang_up(n, &n->links[gone]);
    return true;
}

/* A connection that another one to the same node has replaced: nothing new goes over it. The end
 * that dialled it closes it when nothing hangs on it any more. */
static void surplus_tick(struct mp_node *n, mp_time now, struct mp_node_link *l, uint32_t link)
{
    if (!l->is_ours || mp_node_link_of_member(n, l->member) == link)
        return;
    mp_node_link_due(n, l, now + MP_MS(MP_LINK_IDLE_MS));
    if (l->out_count == 0 && !l->is_asked)
        ask_to_hang_up(n, l);
}

void mp_node_links_tick(struct mp_node *n, mp_time now)
{
    n->links_at = n->links_up > MP_SYNC_LINKS_MIN ? now + MP_NODE_IDLE_SWEEP : MP_NEVER;
    if (n->goodbye_until > now)
        mp_node_links_wake(n, n->goodbye_until);
    for (uint32_t i = 0; i < n->link_used; i++) {
        struct mp_node_link *l = &n->links[i];
        if (l->state == MP_NODE_LINK_FREE || l->due_at > now) {
            if (l->state != MP_NODE_LINK_FREE)
                mp_node_links_wake(n, l->due_at);
            continue;
        }
        l->due_at = MP_NEVER;
        if (l->state == MP_NODE_LINK_GREETING) {
            hang_up(n, now, i);
        } else if (l->state == MP_NODE_LINK_UP) {
            surplus_tick(n, now, l, i);
        } else if (l->state == MP_NODE_LINK_WAITING && l->out_count == 0) {
            mp_node_link_free(n, i);
        } else if (l->state == MP_NODE_LINK_WAITING && l->member != MP_NODE_NONE) {
            mp_node_link_dial_member(n, i);
        }
    }
    for (uint32_t i = 0; n->seeds && i < MP_SEEDS_MAX; i++)
        seed_tick(n, now, i);
    while (n->links_up > MP_SYNC_LINKS_MIN && sweep_idle(n, now)) {
    }
}
