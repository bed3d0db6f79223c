/* What happens to links as time passes: seeds are dialled until one leads into the cluster, those
 * who take too long to greet are let go, and links that carry nothing are closed when they are
 * many. */
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

/* Whether something goes on that came over it. */
static bool is_serving(const struct mp_node *n, uint64_t client)
{
    const struct mp_rpc_origin peer = {.kind = MP_RPC_PEER, .owner = client};
    return mp_rpc_has_calls(&n->rpc, &peer) || mp_node_outs_has_relays(n, client);
}

static bool is_idle(const struct mp_node *n, mp_time now, const struct mp_node_link *l)
{
    return l->state == MP_NODE_LINK_UP && l->is_ours && l->out_count == 0 &&
           l->used_at + MP_MS(MP_LINK_IDLE_MS) <= now && !is_serving(n, l->client);
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
        if (!is_idle(n, now, l))
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
    mp_node_close_client(n, n->links[gone].client);
    mp_node_link_end(n, now, gone);
    return true;
}

/* A connection that another one to the same node has replaced, and that nothing hangs on. The end
 * that dialled it closes it. */
static void surplus_tick(struct mp_node *n, mp_time now, uint32_t link)
{
    struct mp_node_link *l = &n->links[link];
    const struct mp_rpc_origin origin = {.kind = MP_RPC_PEER, .owner = l->client};
    if (!l->is_ours || mp_node_link_of_member(n, l->member) == link)
        return;
    if (l->out_count != 0 || mp_rpc_has_calls(&n->rpc, &origin) ||
        mp_node_outs_has_relays(n, l->client)) {
        mp_node_link_due(n, l, now + MP_MS(MP_LINK_IDLE_MS));
        return;
    }
    mp_node_close_client(n, l->client);
    mp_node_link_end(n, now, link);
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
            mp_node_close_client(n, l->client);
            mp_node_link_end(n, now, i);
        } else if (l->state == MP_NODE_LINK_UP) {
            surplus_tick(n, now, i);
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
