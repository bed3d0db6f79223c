/* One cluster out of many nodes: joins membership (who is there) and catalog (who has what) to the
 * links. News travel by gossip, which is quick and may miss somebody; once a second each node
 * compares digests with another one over a link, and what differs is sent: that is the guarantee.
 *
 *   SYNC 1 ->  [members' digest, catalog's digest, digest of deploys]   each as one number
 *          <-  SYNC 2  [true], or [[64 numbers], [64 numbers]]
 *   SYNC 3 ->  [members' buckets, catalog's buckets, members (bin), catalog entries]
 *          <-  SYNC 4  the same for the same buckets
 *
 * and for the history of deploys (deploys.c):
 *
 *          <-  SYNC 5  [[module, digest]…]
 *          ->  SYNC 6  entries that the other one lacks; SYNC 7 as 5, if it may have some itself
 *          <-  SYNC 6  as an answer to 7
 *
 * No state is kept between the stages: each message says all that the next one needs. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/msgpack.h"

#define LOGGED_JOINS_MAX 256

static_assert(MP_SYNC_BUCKETS == MP_CATALOG_BUCKETS && MP_SYNC_BUCKETS == 64,
              "a set of buckets is one 64-bit number");

/* --- membership's effects --- */

static enum mp_catalog_node_state catalog_state(enum mp_member_state state)
{
    return state == MP_MEMBER_DEAD   ? MP_CATALOG_NODE_DEAD
           : state == MP_MEMBER_LEFT ? MP_CATALOG_NODE_LEFT
                                     : MP_CATALOG_NODE_LIVE;
}

static void router_gone(struct mp_node *n, mp_time now, uint32_t member)
{
    struct mp_router_effects out;
    const struct mp_router_event gone = {.kind = MP_ROUTER_GONE, .node = member};
    if (mp_router_step(n->router, now, &gone, &out) != MP_OK)
        n->is_out_of_memory = true;
}

static void tell_catalog(struct mp_node *n, mp_time now, uint32_t member,
                         const struct mp_member_info *info)
{
    struct mp_catalog_effects out;
    const struct mp_catalog_event node = {.kind = MP_CATALOG_NODE,
                                          .node = {.number = member,
                                                   .name = info->name,
                                                   .state = catalog_state(info->state),
                                                   .generation = info->generation}};
    mp_node_step_catalog(n, now, &node, &out);
}

/* What an operator wants to know: who came, went, and is back. In a large cluster those who come
 * are too many to be told one by one. */
static void log_change(struct mp_node *n, uint32_t member, const struct mp_member_info *info)
{
    static const char *const words[] = {[MP_MEMBER_ALIVE] = " is here",
                                        [MP_MEMBER_DEAD] = " is dead: it does not answer",
                                        [MP_MEMBER_LEFT] = " has left"};
    char bytes[192];
    struct mp_text text;
    if (member >= n->state_capacity) {
        uint32_t capacity = member + member / 4 + 16;
        uint8_t *grown =
            n->alloc->resize(n->alloc->context, n->states, n->state_capacity, capacity);
        if (!grown)
            return;
        memset(grown + n->state_capacity, 0, capacity - n->state_capacity);
        n->states = grown;
        n->state_capacity = capacity;
    }
    /* A suspect is one that lives until the contrary is proven. */
    enum mp_member_state state = info->state == MP_MEMBER_SUSPECT ? MP_MEMBER_ALIVE : info->state;
    bool is_new = n->states[member] == 0;
    bool is_same = n->states[member] == state + 1;
    n->states[member] = (uint8_t)(state + 1);
    if (is_same || (is_new && (state != MP_MEMBER_ALIVE || member > LOGGED_JOINS_MAX)))
        return;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "node ");
    mp_text_put_slice(&text, info->name);
    mp_text_put(&text, " (");
    mp_address_put(&text, &info->addr);
    mp_text_put(&text, ")");
    mp_text_put(&text, is_new || state != MP_MEMBER_ALIVE ? words[state] : " is back");
    mp_node_log(n, state == MP_MEMBER_DEAD ? 2 : 1, mp_text_slice(&text));
}

void mp_node_catalog_catch_up(struct mp_node *n, mp_time now)
{
    struct mp_member_info info;
    n->is_catalog_behind = false;
    for (uint32_t i = 1; i < mp_membership_end(n->membership); i++)
        if (mp_membership_get(n->membership, i, &info))
            tell_catalog(n, now, i, &info);
}

static void member_changed(struct mp_node *n, mp_time now, uint32_t member)
{
    struct mp_member_info info;
    if (member == MP_MEMBER_SELF || !mp_membership_get(n->membership, member, &info))
        return;
    log_change(n, member, &info);
    tell_catalog(n, now, member, &info);
    mp_node_deploys_member(n, now, member);
    mp_node_link_member_changed(n, now, member);
    mp_node_release_older(n, member, info.generation);
    if (info.state == MP_MEMBER_LEFT && !mp_node_link_is_up(n, member))
        mp_node_release_all(n, member);
    if (info.state == MP_MEMBER_DEAD) {
        router_gone(n, now, member);
        mp_node_release_all(n, member);
        mp_node_runs_lost(n, now, info.name);
    }
}

static void member_gone(struct mp_node *n, mp_time now, uint32_t member)
{
    struct mp_catalog_effects out;
    if (member < n->state_capacity)
        n->states[member] = 0;
    const struct mp_catalog_event gone = {.kind = MP_CATALOG_NODE_GONE, .number = member};
    mp_node_link_member_gone(n, now, member);
    mp_node_topics_member_gone(n, now, member);
    mp_node_release_all(n, member);
    router_gone(n, now, member);
    mp_node_step_catalog(n, now, &gone, &out);
}

void mp_node_sync_member(struct mp_node *n, uint32_t member)
{
    struct mp_member_info info;
    if (!mp_membership_get(n->membership, member, &info) || info.state >= MP_MEMBER_DEAD ||
        mp_has_defect(n->cfg.defects, MP_DEFECT_NO_DIGESTS))
        return;
    uint32_t link = mp_node_link_to(n, member);
    if (link == MP_NODE_NONE)
        return;
    if (n->links[link].state == MP_NODE_LINK_UP)
        mp_node_sync(n, link);
    else
        n->links[link].wants_sync = true;
}

void mp_node_probe_member(struct mp_node *n, uint32_t member)
{
    struct mp_member_info info;
    if (!mp_membership_get(n->membership, member, &info) || info.state >= MP_MEMBER_DEAD)
        return;
    uint32_t link = mp_node_link_direct(n, member);
    if (link != MP_NODE_NONE)
        mp_node_send_frame(n, n->links[link].client, MP_FRAME_PING, 0, (struct mp_slice){0},
                           (struct mp_rpc_payload){0});
    else
        (void)mp_node_link_to(n, member); /* its HELLO says as much */
}

void mp_node_tcp_ack(struct mp_node *n, mp_time now, uint32_t member)
{
    const struct mp_membership_event ack = {.kind = MP_MEMBERSHIP_TCP_ACK, .member = member};
    mp_node_step_membership(n, now, &ack);
}

/* Somebody's catalog entry is newer: it is asked for where the news came from. */
static void heard(struct mp_node *n, uint32_t member, struct mp_slice news)
{
    mp_buf_clear(&n->build);
    if (mp_catalog_put_wanted(&n->catalog, news, &n->build) != MP_OK || !mp_node_make_room(n))
        return;
    uint32_t link = mp_node_link_direct(n, member);
    if (link != MP_NODE_NONE) {
        mp_node_send_frame(
            n, n->links[link].client, MP_FRAME_WANT, 0, (struct mp_slice){0},
            (struct mp_rpc_payload){.bytes = mp_node_keep(n, mp_buf_slice(&n->build))});
    } else {
        mp_node_put_off(n, MP_NODE_WORK_SYNC, member);
    }
}

static void loaded(struct mp_node *n, mp_time now, uint32_t member, uint32_t load)
{
    struct mp_router_effects out;
    const struct mp_router_event ev = {.kind = MP_ROUTER_LOAD,
                                       .load = {.node = member, .load = load}};
    if (mp_router_step(n->router, now, &ev, &out) != MP_OK)
        n->is_out_of_memory = true;
}

static void persist(struct mp_node *n, mp_time now, uint64_t generation)
{
    struct mp_catalog_effects out;
    const struct mp_catalog_event raised = {.kind = MP_CATALOG_GENERATION,
                                            .generation = generation};
    mp_node_emit(n, MP_NODE_PERSIST)->id = generation;
    mp_node_step_catalog(n, now, &raised, &out);
}

/* Digests that may be compared with anybody go over a link that is up: to connect costs ten times
 * what the comparison does. It is the member that membership drew all the same while there are few
 * links, after a comparison that found something, and each 16th time; so what has settled is cheap,
 * and those who compare with one another never fall into groups. And if this node keeps something
 * for a member that it has no link to, it is that one: as the link begins, the other end tells what
 * may go. One that it has a link to is asked: a RELEASE and what it releases may have come by
 * different links, in the wrong order. */
static uint32_t partner(struct mp_node *n, uint32_t drawn)
{
    bool is_drawn = n->has_differed || ++n->syncs % MP_SYNC_RANDOM_EACH == 0;
    n->has_differed = false;
    uint32_t keeper = mp_node_held_for(n);
    uint32_t link = keeper == MP_NODE_NONE ? MP_NODE_NONE : mp_node_link_of_member(n, keeper);
    if (keeper != MP_NODE_NONE && !mp_node_link_is_up(n, keeper))
        return keeper;
    if (link != MP_NODE_NONE)
        mp_node_say_runs(n, n->links[link].client, n->now | MP_NODE_RUNS_ASKS);
    link = is_drawn ? MP_NODE_NONE : mp_node_link_any(n);
    return link == MP_NODE_NONE ? drawn : n->links[link].member;
}

static void carry_out(struct mp_node *n, mp_time now, const struct mp_membership_effect *e)
{
    struct mp_node_effect *out;
    struct mp_slice bytes;
    switch (e->kind) {
    case MP_MEMBERSHIP_SEND:
        bytes = mp_node_keep(n, e->send.bytes);
        if (bytes.size == 0 || !mp_node_make_room(n))
            return; /* a datagram may be lost */
        out = mp_node_emit(n, MP_NODE_SEND_DATAGRAM);
        out->addr = e->send.to;
        out->payload.bytes = bytes;
        break;
    case MP_MEMBERSHIP_CHANGED:
        member_changed(n, now, e->member);
        break;
    case MP_MEMBERSHIP_GONE:
        member_gone(n, now, e->member);
        break;
    case MP_MEMBERSHIP_VIA:
        mp_node_link_via_changed(n, e->member);
        break;
    case MP_MEMBERSHIP_PROBE_TCP:
        if (mp_node_make_room(n))
            mp_node_put_off(n, MP_NODE_WORK_PROBE, e->member);
        break;
    case MP_MEMBERSHIP_SYNC:
        if (mp_node_make_room(n))
            mp_node_put_off(n, MP_NODE_WORK_SYNC,
                            e->sync.is_any ? partner(n, e->member) : e->member);
        break;
    case MP_MEMBERSHIP_HEARD:
        heard(n, e->member, e->news.bytes);
        break;
    case MP_MEMBERSHIP_LOADED:
        loaded(n, now, e->member, e->load);
        break;
    case MP_MEMBERSHIP_NAME_TAKEN:
        mp_node_stop(n, &e->taken.addr);
        break;
    case MP_MEMBERSHIP_PERSIST:
        persist(n, now, e->generation);
        break;
    case MP_MEMBERSHIP_LOG:
        mp_node_log(n, e->log.level, e->log.text);
        break;
    }
}

void mp_node_step_membership(struct mp_node *n, mp_time now, const struct mp_membership_event *ev)
{
    struct mp_membership_effects out;
    if (mp_membership_step(n->membership, now, ev, &out) != MP_OK)
        n->is_out_of_memory = true;
    for (uint32_t i = 0; i < out.count; i++)
        carry_out(n, now, &out.items[i]);
}

void mp_node_stop(struct mp_node *n, const struct mp_address *addr)
{
    char bytes[256];
    struct mp_text text;
    struct mp_member_info self;
    if (n->is_stopped || !mp_membership_get(n->membership, MP_MEMBER_SELF, &self))
        return;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "the name ");
    mp_text_put_slice(&text, n->catalog.node);
    mp_text_put(&text, " is taken: another node has it at ");
    mp_address_put(&text, addr);
    mp_text_put(&text, ", this one is at ");
    mp_address_put(&text, &self.addr);
    mp_text_put(&text, " and ends. Start it with another --name");
    n->is_stopped = true;
    mp_node_emit(n, MP_NODE_STOP)->payload.bytes = mp_node_keep(n, mp_text_slice(&text));
}

/* --- the catalog's effects --- */

bool mp_node_step_catalog(struct mp_node *n, mp_time now, const struct mp_catalog_event *ev,
                          struct mp_catalog_effects *out)
{
    *out = (struct mp_catalog_effects){0};
    enum mp_err err = mp_catalog_step(&n->catalog, now, ev, out);
    if (err != MP_OK) {
        n->is_out_of_memory = true;
        /* Entries come again with a digest; that a member is there is said only once. */
        n->is_catalog_behind = n->is_catalog_behind || ev->kind == MP_CATALOG_NODE;
    }
    for (uint32_t i = 0; i < out->count; i++) {
        const struct mp_catalog_effect *e = &out->items[i];
        if (e->kind == MP_CATALOG_CHANGED) {
            struct mp_router_effects routed;
            const struct mp_router_event flush = {.kind = MP_ROUTER_FLUSH};
            n->is_catalog_changed = true;
            n->topics.are_functions_stale = true;
            if (mp_router_step(n->router, now, &flush, &routed) != MP_OK)
                n->is_out_of_memory = true;
        } else if (e->kind == MP_CATALOG_ANNOUNCE) {
            mp_buf_clear(&n->announce);
            n->has_announce = mp_buf_append(&n->announce, e->news) == MP_OK;
        } else if (e->kind == MP_CATALOG_MISSING) {
            n->is_missing = true;
        } else if (e->kind == MP_CATALOG_DROPPED) {
            char bytes[320];
            struct mp_text text;
            mp_text_init(&text, bytes, sizeof(bytes));
            mp_text_put(&text, "a part of the catalog that another node sent is left out: ");
            mp_text_put(&text, e->why);
            mp_node_log(n, 2, mp_text_slice(&text));
        }
    }
    return err == MP_OK;
}

void mp_node_cluster_settle(struct mp_node *n, mp_time now)
{
    if (n->has_announce) {
        const struct mp_membership_event news = {
            .kind = MP_MEMBERSHIP_NEWS,
            .news = {.key = n->catalog.node, .bytes = mp_buf_slice(&n->announce)}};
        n->has_announce = false;
        mp_node_step_membership(n, now, &news);
    }
    if (n->is_catalog_changed) {
        n->is_catalog_changed = false;
        mp_node_retry_waiting(n, now);
    }
}

/* --- digests and differences --- */

static uint64_t total_of(const uint64_t *digests)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < MP_SYNC_BUCKETS; i++)
        total += digests[i] * (2 * i + 1);
    return total;
}

static void send_built(struct mp_node *n, uint32_t link, uint64_t stage, enum mp_err err)
{
    struct mp_slice bytes = {0};
    if (err == MP_OK)
        bytes = mp_node_keep(n, mp_buf_slice(&n->build));
    if (bytes.size == 0)
        n->is_out_of_memory = true;
    else
        mp_node_send_frame(n, n->links[link].client, MP_FRAME_SYNC, stage, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = bytes});
}

void mp_node_sync(struct mp_node *n, uint32_t link)
{
    uint64_t members[MP_SYNC_BUCKETS];
    uint64_t entries[MP_SYNC_BUCKETS];
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_NO_DIGESTS))
        return;
    mp_membership_digests(n->membership, members);
    mp_catalog_digests(&n->catalog, entries);
    mp_buf_clear(&n->build);
    enum mp_err err = mp_mp_put_array(&n->build, 3);
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, total_of(members));
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, total_of(entries));
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, mp_deploy_digest(n->deploy));
    send_built(n, link, 1, err);
}

static enum mp_err put_digests(struct mp_buf *b, const uint64_t *digests)
{
    enum mp_err err = mp_mp_put_array(b, MP_SYNC_BUCKETS);
    for (uint32_t i = 0; err == MP_OK && i < MP_SYNC_BUCKETS; i++)
        err = mp_mp_put_uint(b, digests[i]);
    return err;
}

static bool take_uint(struct mp_mp_reader *r, uint64_t *value)
{
    struct mp_mp_token t;
    if (mp_mp_next(r, &t) != MP_OK || t.type != MP_MP_UINT)
        return false;
    *value = t.u;
    return true;
}

static void answer_digests(struct mp_node *n, uint32_t link, uint32_t count, struct mp_mp_reader *r)
{
    uint64_t their_deploys;
    uint64_t members[MP_SYNC_BUCKETS];
    uint64_t entries[MP_SYNC_BUCKETS];
    uint64_t their_members;
    uint64_t their_entries;
    if (!take_uint(r, &their_members) || !take_uint(r, &their_entries))
        return;
    if (count >= 3 && take_uint(r, &their_deploys) && their_deploys != mp_deploy_digest(n->deploy))
        mp_node_deploy_summary(n, link, 5);
    mp_membership_digests(n->membership, members);
    mp_catalog_digests(&n->catalog, entries);
    mp_buf_clear(&n->build);
    enum mp_err err;
    if (total_of(members) == their_members && total_of(entries) == their_entries) {
        err = mp_mp_put_array(&n->build, 1);
        if (err == MP_OK)
            err = mp_mp_put_bool(&n->build, true);
    } else {
        n->has_differed = true;
        err = mp_mp_put_array(&n->build, 2);
        if (err == MP_OK)
            err = put_digests(&n->build, members);
        if (err == MP_OK)
            err = put_digests(&n->build, entries);
    }
    send_built(n, link, 2, err);
}

/* The buckets in which a list of their digests differs from ours. */
static bool take_differences(struct mp_mp_reader *r, const uint64_t *ours, uint64_t *mask)
{
    struct mp_mp_token t;
    uint64_t theirs;
    *mask = 0;
    if (mp_mp_next(r, &t) != MP_OK || t.type != MP_MP_ARRAY || t.count != MP_SYNC_BUCKETS)
        return false;
    for (uint32_t i = 0; i < MP_SYNC_BUCKETS; i++) {
        if (!take_uint(r, &theirs))
            return false;
        *mask |= (uint64_t)(theirs != ours[i]) << i;
    }
    return true;
}

static void send_differences(struct mp_node *n, uint32_t link, uint64_t stage, uint64_t members,
                             uint64_t entries)
{
    struct mp_buf list;
    mp_buf_init(&list, n->alloc, 0);
    enum mp_err err = mp_membership_put_entries(n->membership, members, &list);
    mp_buf_clear(&n->build);
    if (err == MP_OK)
        err = mp_mp_put_array(&n->build, 4);
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, members);
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, entries);
    if (err == MP_OK)
        err = mp_mp_put_bin(&n->build, mp_buf_slice(&list));
    if (err == MP_OK)
        err = mp_catalog_put_entries(&n->catalog, entries, &n->build);
    mp_buf_fini(&list);
    send_built(n, link, stage, err);
}

void mp_node_sync_goodbye(struct mp_node *n, uint32_t link)
{
    send_differences(n, link, 4, mp_membership_bucket(n->membership, MP_MEMBER_SELF), 0);
}

static void compare_digests(struct mp_node *n, uint32_t link, struct mp_mp_reader *r)
{
    uint64_t members[MP_SYNC_BUCKETS];
    uint64_t entries[MP_SYNC_BUCKETS];
    uint64_t member_mask;
    uint64_t entry_mask;
    mp_membership_digests(n->membership, members);
    mp_catalog_digests(&n->catalog, entries);
    if (!take_differences(r, members, &member_mask) || !take_differences(r, entries, &entry_mask))
        return;
    n->has_differed = true;
    if (member_mask != 0 || entry_mask != 0)
        send_differences(n, link, 3, member_mask, entry_mask);
}

/* Asks the other end for what entries mention and is not known here. */
static void ask_missing(struct mp_node *n, uint32_t link)
{
    n->is_missing = false;
    mp_buf_clear(&n->build);
    if (mp_catalog_put_missing(&n->catalog, &n->build) != MP_OK)
        return;
    mp_node_send_frame(n, n->links[link].client, MP_FRAME_WANT, 0, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_node_keep(n, mp_buf_slice(&n->build))});
}

static void merge_entries(struct mp_node *n, mp_time now, uint32_t link, struct mp_slice bytes)
{
    struct mp_catalog_effects out;
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_ENTRIES, .entries = {.bytes = bytes}};
    mp_node_step_catalog(n, now, &ev, &out);
    if (n->links[link].state == MP_NODE_LINK_UP)
        ask_missing(n, link);
}

static void merge(struct mp_node *n, mp_time now, uint32_t link, uint64_t stage,
                  struct mp_mp_reader *r)
{
    uint64_t members;
    uint64_t entries;
    struct mp_mp_token list;
    struct mp_slice catalog;
    uint64_t client = n->links[link].client;
    if (!take_uint(r, &members) || !take_uint(r, &entries) || mp_mp_next(r, &list) != MP_OK ||
        list.type != MP_MP_BIN || mp_mp_take(r, &catalog) != MP_OK)
        return;
    const struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_ENTRIES,
                                           .entries = {.bytes = list.bytes}};
    mp_node_step_membership(n, now, &ev);
    /* What it said may have ended the link. */
    if (mp_node_link_of_client(n, client) != link)
        return;
    if (stage == 3)
        send_differences(n, link, 4, members, entries);
    merge_entries(n, now, link, catalog);
}

void mp_node_sync_frame(struct mp_node *n, mp_time now, uint32_t link, uint64_t stage,
                        struct mp_slice payload)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_check(payload) != MP_OK || mp_mp_get_array(payload, &count, &r) != MP_OK ||
        mp_has_defect(n->cfg.defects, MP_DEFECT_NO_DIGESTS))
        return;
    if (stage >= 5 && stage <= 7)
        mp_node_deploy_sync(n, now, link, stage, payload);
    else if (stage == 1 && count >= 2)
        answer_digests(n, link, count, &r);
    else if (stage == 2 && count >= 2)
        compare_digests(n, link, &r);
    else if (stage == 2)
        ask_missing(n, link); /* the same entries, but modules may still be unknown here */
    else if ((stage == 3 || stage == 4) && count >= 4)
        merge(n, now, link, stage, &r);
}

void mp_node_want_frame(struct mp_node *n, uint32_t link, struct mp_slice payload)
{
    mp_buf_clear(&n->build);
    if (mp_catalog_put_have(&n->catalog, payload, MP_HAVE_BYTES_MAX, &n->build) != MP_OK)
        return;
    mp_node_send_frame(n, n->links[link].client, MP_FRAME_HAVE, 0, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_node_keep(n, mp_buf_slice(&n->build))});
}

void mp_node_have_frame(struct mp_node *n, mp_time now, uint32_t link, struct mp_slice payload)
{
    merge_entries(n, now, link, payload);
}

/* --- forgetting --- */

struct mp_slice mp_node_forget(struct mp_node *n, mp_time now, struct mp_slice name)
{
    struct mp_member_info info;
    char bytes[256];
    struct mp_text text;
    uint32_t member = mp_membership_find(n->membership, name);
    mp_text_init(&text, bytes, sizeof(bytes));
    if (member == MP_MEMBER_NONE || !mp_membership_get(n->membership, member, &info)) {
        mp_text_put(&text, "there is no node ");
        mp_text_put_slice(&text, name);
        mp_text_put(&text, " to forget");
        const struct mp_fault fault = {.code = MP_CODE_NOT_FOUND,
                                       .reason = mp_slice_str("UNKNOWN_NODE"),
                                       .message = mp_text_slice(&text),
                                       .hint =
                                           mp_slice_str("`mpreg nodes` lists those that are known"),
                                       .node = n->catalog.node};
        return mp_node_error(n, &fault);
    }
    if (info.state < MP_MEMBER_DEAD) {
        mp_text_put_slice(&text, name);
        mp_text_put(&text, " is alive: only a dead or departed node can be forgotten");
        const struct mp_fault fault = {.code = MP_CODE_FAILED_PRECONDITION,
                                       .reason = mp_slice_str("NODE_ALIVE"),
                                       .message = mp_text_slice(&text),
                                       .hint = mp_slice_str("stop it first"),
                                       .node = n->catalog.node};
        return mp_node_error(n, &fault);
    }
    const struct mp_membership_event forget = {.kind = MP_MEMBERSHIP_FORGET, .name = name};
    mp_node_step_membership(n, now, &forget);
    return (struct mp_slice){0};
}
