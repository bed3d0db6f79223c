/* How a connection becomes a link: both ends say HELLO. A node of another cluster, one that claims
 * a name in use, and this node itself are refused there; of two connections to one node one stays
 * (link.c tells which). */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"

void mp_node_say_hello(struct mp_node *n, uint64_t client)
{
    struct mp_member_info self;
    if (!mp_membership_get(n->membership, MP_MEMBER_SELF, &self))
        return;
    bool is_provisional = mp_membership_is_provisional(n->membership);
    uint8_t flags = self.flags | (is_provisional ? MP_MEMBER_PROVISIONAL : 0);
    const struct mp_peer_hello hello = {.cluster = n->catalog.cluster,
                                        .name = n->catalog.node,
                                        .generation = mp_membership_generation(n->membership),
                                        .addr = self.addr,
                                        .flags = flags,
                                        .version = mp_slice_str(MPREG_VERSION)};
    mp_buf_clear(&n->build);
    if (mp_peer_hello_put(&n->build, &hello) != MP_OK) {
        n->is_out_of_memory = true;
        mp_node_close_client(n, client);
        return;
    }
    mp_node_send_frame(n, client, MP_FRAME_HELLO, 0, mp_node_keep(n, mp_buf_slice(&n->build)),
                       (struct mp_rpc_payload){0});
}

void mp_node_link_refuse(struct mp_node *n, uint64_t client, enum mp_code code, const char *reason,
                         const struct mp_text *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_text_slice(message),
                                   .node = n->catalog.node};
    mp_node_send_frame(n, client, MP_FRAME_REFUSED, 0, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_node_error(n, &fault)});
    mp_node_close_client(n, client);
}

static void put_addresses(struct mp_node *n, struct mp_text *t, const struct mp_peer_hello *hello)
{
    struct mp_member_info self;
    if (!mp_membership_get(n->membership, MP_MEMBER_SELF, &self))
        return;
    mp_text_put(t, "two nodes are named ");
    mp_text_put_slice(t, hello->name);
    mp_text_put(t, ": one at ");
    mp_address_put(t, &self.addr);
    mp_text_put(t, ", one at ");
    mp_address_put(t, &hello->addr);
}

static void contact(struct mp_node *n, const struct mp_peer_hello *hello)
{
    const struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_CONTACT,
                                           .contact = {.name = hello->name,
                                                       .generation = hello->generation,
                                                       .addr = hello->addr,
                                                       .flags = hello->flags}};
    mp_node_step_membership(n, n->now, &ev);
}

/* Somebody says that it is us: it is, or it has to end, or we have. The last is for membership to
 * find out, which asks at the address that was told before it believes it. */
static void greet_namesake(struct mp_node *n, uint64_t client, const struct mp_peer_hello *hello)
{
    char bytes[256];
    struct mp_text text;
    struct mp_member_info self;
    uint64_t own = mp_membership_generation(n->membership);
    bool is_here = mp_membership_get(n->membership, MP_MEMBER_SELF, &self) &&
                   mp_address_equal(&self.addr, &hello->addr);
    mp_text_init(&text, bytes, sizeof(bytes));
    if (hello->generation == own && is_here) {
        mp_text_put(&text, "it is this node itself");
        mp_node_link_refuse(n, client, MP_CODE_INVALID_ARGUMENT, "SELF", &text);
    } else if (!mp_membership_yields(n->membership, hello->generation, &hello->addr,
                                     (hello->flags & MP_MEMBER_PROVISIONAL) != 0)) {
        put_addresses(n, &text, hello);
        mp_node_log(n, 2, mp_text_slice(&text));
        mp_node_link_refuse(n, client, MP_CODE_ALREADY_EXISTS, "NAME_TAKEN", &text);
        if (hello->generation == own)
            contact(n, hello);
    } else {
        contact(n, hello);
        mp_node_close_client(n, client);
    }
}

static bool is_our_cluster(struct mp_node *n, uint64_t client, const struct mp_peer_hello *hello)
{
    char bytes[256];
    struct mp_text text;
    if (mp_slice_equal(hello->cluster, n->catalog.cluster))
        return true;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "node ");
    mp_text_put_slice(&text, hello->name);
    mp_text_put(&text, " is of cluster ");
    mp_text_put_slice(&text, hello->cluster);
    mp_text_put(&text, ", node ");
    mp_text_put_slice(&text, n->catalog.node);
    mp_text_put(&text, " of cluster ");
    mp_text_put_slice(&text, n->catalog.cluster);
    mp_text_put(&text, ": clusters do not mix; start it with another --cluster or --join");
    mp_node_log(n, 2, mp_text_slice(&text));
    mp_node_link_refuse(n, client, MP_CODE_PERMISSION_DENIED, "CLUSTER_MISMATCH", &text);
    return false;
}

/* Takes over what waited on another record for the same member. */
static void take_over(struct mp_node *n, uint32_t from, uint32_t to, bool may_stay)
{
    struct mp_node_link *l = &n->links[from];
    n->links[to].wants_sync = n->links[to].wants_sync || l->wants_sync;
    if (may_stay)
        mp_node_outs_reroute(n, from);
    else
        mp_node_outs_lost(n, n->now, from);
}

/* Both ends dialled, and neither knew: both connections are good. */
static bool have_crossed(const struct mp_node *n, uint32_t one, uint32_t other)
{
    const struct mp_node_link *a = &n->links[one];
    const struct mp_node_link *b = &n->links[other];
    bool is_good = b->state == MP_NODE_LINK_UP ? a->generation == b->generation
                                               : b->state == MP_NODE_LINK_GREETING;
    return is_good && a->is_ours != b->is_ours;
}

/* Another connection to the same node takes the place of this one. */
static void replace(struct mp_node *n, uint32_t old, uint32_t link)
{
    uint64_t client = n->links[old].client;
    bool is_connected = n->links[old].state >= MP_NODE_LINK_GREETING;
    if (have_crossed(n, link, old)) {
        take_over(n, old, link, true);
        if (n->links[old].state == MP_NODE_LINK_UP)
            mp_node_link_due(n, &n->links[old], n->now + MP_MS(MP_LINK_IDLE_MS));
        return;
    }
    n->links[old].member = MP_NODE_NONE;
    take_over(n, old, link, n->links[old].state != MP_NODE_LINK_UP);
    if (n->links[old].out_count != 0) /* for a dead member, by way of this one */
        mp_node_outs_lost(n, n->now, old);
    mp_node_link_free(n, old);
    if (is_connected)
        mp_node_close_client(n, client);
}

/* Requests that are under way when a node ends would be lost, though they never began. So it says
 * on each link that it has left, and then PING: who answers that has read what stands before it,
 * and all that it had sent until then has come. */
static void say_goodbye(struct mp_node *n, uint32_t link)
{
    mp_node_sync_goodbye(n, link);
    mp_node_send_frame(n, n->links[link].client, MP_FRAME_PING, MP_NODE_GOODBYE_ID,
                       (struct mp_slice){0}, (struct mp_rpc_payload){0});
    n->links[link].is_told = true;
}

void mp_node_links_goodbye(struct mp_node *n, mp_time now)
{
    n->goodbye_until = now + MP_MS(MP_LINK_GOODBYE_MS);
    mp_node_links_wake(n, n->goodbye_until);
    for (uint32_t i = 0; i < n->link_used; i++)
        if (n->links[i].state == MP_NODE_LINK_UP)
            say_goodbye(n, i);
}

bool mp_node_links_have_heard(const struct mp_node *n)
{
    for (uint32_t i = 0; n->now < n->goodbye_until && i < n->link_used; i++)
        if (n->links[i].state == MP_NODE_LINK_UP && n->links[i].is_told)
            return false;
    return true;
}

/* What was to be given back while there was no link is given back now. */
void mp_node_say_runs(struct mp_node *n, uint64_t client, uint64_t id)
{
    mp_buf_clear(&n->build);
    if (mp_node_put_runs(n, &n->build) == MP_OK)
        mp_node_send_frame(
            n, client, MP_FRAME_RUNS, id, (struct mp_slice){0},
            (struct mp_rpc_payload){.bytes = mp_node_keep(n, mp_buf_slice(&n->build))});
}

/* The link is a link now: both said who they are. */
void mp_node_link_set_up(struct mp_node *n, uint32_t link, uint32_t member)
{
    uint32_t old = mp_node_link_of_member(n, member);
    bool is_surplus = old != MP_NODE_NONE && old != link &&
                      n->links[old].state == MP_NODE_LINK_UP && have_crossed(n, link, old) &&
                      n->links[link].is_ours &&
                      mp_slice_compare(n->catalog.node, mp_node_member_name(n, member)) > 0;
    n->links[link].member = member;
    if (!is_surplus && !mp_node_link_bind_member(n, link, member)) {
        n->is_out_of_memory = true;
        mp_node_close_client(n, n->links[link].client);
        mp_node_link_free(n, link);
        return;
    }
    struct mp_node_link *l = &n->links[link];
    l->state = MP_NODE_LINK_UP;
    l->failures = 0;
    l->due_at = MP_NEVER;
    l->used_at = n->now;
    n->links_up++;
    if (l->seed != MP_NODE_NONE) {
        n->seeds[l->seed].failures = 0;
        n->seeds[l->seed].is_dialled = false;
        n->seeds[l->seed].due_at = n->now + MP_NODE_SEED_SATISFIED;
        l->seed = MP_NODE_NONE;
        l->was_seed = true;
        l->wants_sync = true;
    }
    if (is_surplus)
        mp_node_link_due(n, l, n->now + MP_MS(MP_LINK_IDLE_MS));
    else if (old != MP_NODE_NONE && old != link)
        replace(n, old, link);
    mp_node_put_off(n, MP_NODE_WORK_TCP_ACK, member);
    mp_node_say_runs(n, n->links[link].client, 0);
    l = &n->links[link];
    if (n->is_draining)
        say_goodbye(n, link);
    else if (l->wants_sync)
        mp_node_sync(n, link);
    n->links[link].wants_sync = false;
    mp_node_links_wake(n, n->now + MP_NODE_IDLE_SWEEP);
    mp_node_outs_flush(n, link);
}

/* Of two nodes of one name the one that membership lists. */
static bool is_listed(const struct mp_node *n, uint32_t member, const struct mp_peer_hello *hello)
{
    struct mp_member_info info;
    return member != MP_MEMBER_NONE && mp_membership_get(n->membership, member, &info) &&
           mp_address_equal(&info.addr, &hello->addr);
}

/* Whether an incoming HELLO of a member gives way to a link that we have or are about to have. */
static bool is_duplicate(struct mp_node *n, uint32_t member, const struct mp_peer_hello *hello)
{
    uint32_t old = mp_node_link_of_member(n, member);
    if (old == MP_NODE_NONE || !n->links[old].is_ours ||
        n->links[old].state == MP_NODE_LINK_WAITING)
        return false;
    if (n->links[old].state == MP_NODE_LINK_UP && n->links[old].generation != hello->generation)
        return false;
    if (mp_slice_compare(n->catalog.node, hello->name) > 0)
        return false;
    if (n->links[old].state == MP_NODE_LINK_UP)
        mp_node_send_frame(n, n->links[old].client, MP_FRAME_PING, 0, (struct mp_slice){0},
                           (struct mp_rpc_payload){0});
    return true;
}

static bool is_known_as(const struct mp_node *n, uint32_t member, const struct mp_peer_hello *hello)
{
    struct mp_member_info info;
    return is_listed(n, member, hello) && mp_membership_get(n->membership, member, &info) &&
           info.generation == hello->generation;
}

static void greet(struct mp_node *n, mp_time now, uint32_t link, const struct mp_peer_hello *hello)
{
    char bytes[128];
    struct mp_text text;
    uint64_t client = n->links[link].client;
    bool is_ours = n->links[link].is_ours;
    uint32_t meant = n->links[link].member;
    uint32_t member = mp_membership_find(n->membership, hello->name);
    if (is_ours && meant != MP_NODE_NONE && meant != member) {
        /* Another node has that address now. */
        mp_node_close_client(n, client);
        mp_node_link_end(n, now, link);
        contact(n, hello);
        return;
    }
    if (!is_ours && is_listed(n, member, hello) && is_duplicate(n, member, hello)) {
        mp_text_init(&text, bytes, sizeof(bytes));
        mp_text_put(&text, "there is a link already");
        mp_node_link_refuse(n, client, MP_CODE_ALREADY_EXISTS, "DUPLICATE", &text);
        mp_node_link_free(n, link);
        return;
    }
    contact(n, hello);
    if (mp_node_any_link(n, client) != link)
        return; /* what it said of itself has ended it */
    member = mp_membership_find(n->membership, hello->name);
    n->links[link].generation = hello->generation;
    if (is_known_as(n, member, hello)) {
        if (!is_ours)
            mp_node_say_hello(n, client);
        mp_node_link_set_up(n, link, member);
    } else if (member == MP_MEMBER_NONE) {
        mp_node_close_client(n, client); /* no room for another member */
        mp_node_link_free(n, link);
    } else {
        /* Membership asks the older holder of the name first; see member_changed. */
        struct mp_node_link *l = &n->links[link];
        l->member = member;
        mp_node_link_due(n, l, now + MP_MS(MP_LINK_UNDECIDED_MS));
    }
}

void mp_node_hello_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_peer_hello hello;
    char bytes[128];
    struct mp_text text;
    uint64_t client = ev->frame.client;
    uint32_t link = mp_node_any_link(n, client);
    if (link != MP_NODE_NONE && n->links[link].state == MP_NODE_LINK_UP)
        return; /* said twice */
    if (mp_peer_hello_read(ev->frame.meta, &hello) != MP_OK) {
        mp_text_init(&text, bytes, sizeof(bytes));
        mp_text_put(&text, "a HELLO is malformed");
        mp_node_link_refuse(n, client, MP_CODE_INVALID_ARGUMENT, "PROTOCOL", &text);
        return;
    }
    if (!is_our_cluster(n, client, &hello))
        return;
    if (mp_slice_equal(hello.name, n->catalog.node)) {
        greet_namesake(n, client, &hello);
        return;
    }
    if (link == MP_NODE_NONE) {
        link = mp_node_link_new(n);
        if (link == MP_NODE_NONE || !mp_node_link_bind_client(n, link, client)) {
            n->is_out_of_memory = true;
            if (link != MP_NODE_NONE)
                mp_node_link_free(n, link);
            mp_node_close_client(n, client);
            return;
        }
        n->links[link].state = MP_NODE_LINK_GREETING;
    }
    greet(n, now, link, &hello);
}

static void seed_is_self(struct mp_node *n, uint32_t number)
{
    char bytes[256];
    struct mp_text text;
    n->seeds[number].due_at = n->now + MP_NODE_SEED_IS_SELF;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "one of the addresses to join is this node itself: ");
    mp_address_put(&text, &n->seeds[number].addr);
    mp_node_log(n, 1, mp_text_slice(&text));
}

/* What we dialled does not want us. */
void mp_node_refused_frame(struct mp_node *n, mp_time now, uint32_t link, struct mp_slice payload)
{
    struct mp_node_link *l = &n->links[link];
    struct mp_fault fault;
    char bytes[512];
    struct mp_text text;
    if (l->state != MP_NODE_LINK_GREETING || !l->is_ours || mp_fault_read(payload, &fault) != MP_OK)
        return;
    mp_text_init(&text, bytes, sizeof(bytes));
    if (mp_slice_is(fault.reason, "SELF") && l->seed != MP_NODE_NONE) {
        seed_is_self(n, l->seed);
        return;
    }
    /* Since our HELLO we may have settled; then both would know better than the other. */
    if (mp_slice_is(fault.reason, "NAME_TAKEN") && mp_membership_is_provisional(n->membership)) {
        if (n->is_stopped)
            return;
        mp_text_put_slice(&text, fault.message);
        mp_text_put(&text, "; this one ends. Start it with another --name");
        mp_node_emit(n, MP_NODE_STOP)->payload.bytes = mp_node_keep(n, mp_text_slice(&text));
        n->is_stopped = true;
        return;
    }
    if (mp_slice_is(fault.reason, "DUPLICATE")) {
        /* Theirs is on its way; what waits here waits for it. */
        uint64_t client = l->client;
        n->link_of_client[(uint32_t)client] = 0;
        l->client = 0;
        l->state = MP_NODE_LINK_WAITING;
        mp_node_link_due(n, l, now + MP_SECONDS(1));
        if (l->seed != MP_NODE_NONE)
            n->seeds[l->seed].due_at = now + MP_SECONDS(1);
        if (mp_node_link_of_member(n, l->member) != link) /* theirs is here already */
            mp_node_link_end(n, now, link);
        mp_node_close_client(n, client);
        return;
    }
    mp_text_put(&text, "refused by ");
    mp_text_put_slice(&text, fault.node);
    mp_text_put(&text, ": ");
    mp_text_put_slice(&text, fault.message);
    mp_node_log(n, 2, mp_text_slice(&text));
    if (l->seed != MP_NODE_NONE) {
        n->seeds[l->seed].failures += 8; /* it will not change its mind soon */
        n->seeds[l->seed].due_at = now + mp_node_link_backoff(n, n->seeds[l->seed].failures);
    }
}
