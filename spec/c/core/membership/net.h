/* Memberships in virtual time over an invented network, for the specs of this folder. A node's
 * place is its address: place 7 is 10.0.0.7:7400. Datagrams are delayed, lost and cut as the spec
 * says; links (contacts, digests, probes over TCP) are slower, lose nothing, and need both
 * directions. Everything follows from the seed. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/rng.h"
#include "src/core/membership/membership.h"

#define NET_MAX 128

enum net_kind { NET_WAKE, NET_DATAGRAM, NET_CONTACT, NET_ENTRIES, NET_ACK, NET_SYNC };

struct net_event {
    mp_time at;
    uint64_t order;
    enum net_kind kind;
    uint32_t place;
    uint32_t from;
    uint32_t life; /* of the place: what was meant for an earlier process is lost */
    uint8_t *bytes;
    size_t size;
};

struct net_node {
    struct mp_membership *m; /* NULL: no process */
    char name[24];
    uint32_t life;
    mp_time woken;      /* the wake-up that is under way */
    mp_duration slow;   /* it handles what comes so much later, at most */
    mp_time stopped;    /* SIGSTOP until then */
    bool is_foreign;    /* of another cluster: no links */
    bool is_taken;      /* it was told so */
    bool has_left;      /* it said goodbye */
    uint64_t persisted; /* generation */
    mp_time crashed_at;
    uint32_t syncs, vias, heard, gone, loaded, logs;
    uint64_t sent_bytes; /* with IP and UDP headers */
    struct mp_address taken_by;
};

static struct net {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_rng rng;
    mp_time now;
    struct net_event *heap;
    uint32_t count, capacity;
    uint64_t order;
    struct net_node nodes[NET_MAX];
    bool cut[NET_MAX][NET_MAX];     /* datagrams and links from … to … */
    bool udp_cut[NET_MAX][NET_MAX]; /* datagrams only */
    uint32_t loss_percent;
    mp_duration delay, jitter;
    uint64_t digest;
    uint64_t false_deaths;
    uint64_t defects;
    uint64_t datagrams, largest;
    bool is_short;    /* some step said MP_ENOMEM */
    bool is_unlinked; /* no link comes up any more */
    uint32_t kept_count;
    struct {
        uint32_t place, from;
        size_t size;
        uint8_t bytes[MP_GOSSIP_BYTES_MAX];
    } kept[64]; /* the first datagrams, to be replayed */
} net;

static inline struct mp_address net_address(uint32_t place)
{
    return (struct mp_address){
        .size = 6, .bytes = {10, 0, (uint8_t)(place >> 8), (uint8_t)place, 7400 >> 8, 7400 & 255}};
}

static inline uint32_t net_place(const struct mp_address *a)
{
    uint32_t place = (uint32_t)a->bytes[2] << 8 | a->bytes[3];
    return a->size == 6 && place < NET_MAX ? place : NET_MAX;
}

static inline bool net_before(const struct net_event *a, const struct net_event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static inline void net_push(struct net_event e)
{
    if (net.count == net.capacity) {
        net.capacity = net.capacity ? net.capacity * 2 : 1024;
        net.heap = realloc(net.heap, net.capacity * sizeof(*net.heap));
        assert_non_null(net.heap);
    }
    e.order = net.order++;
    uint32_t i = net.count++;
    for (; i > 0 && net_before(&e, &net.heap[(i - 1) / 2]); i = (i - 1) / 2)
        net.heap[i] = net.heap[(i - 1) / 2];
    net.heap[i] = e;
}

static inline struct net_event net_pop(void)
{
    struct net_event top = net.heap[0];
    struct net_event last = net.heap[--net.count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= net.count)
            break;
        if (child + 1 < net.count && net_before(&net.heap[child + 1], &net.heap[child]))
            child++;
        if (!net_before(&net.heap[child], &last))
            break;
        net.heap[i] = net.heap[child];
        i = child;
    }
    net.heap[i] = last;
    return top;
}

static inline void net_mix(uint64_t v)
{
    net.digest = (net.digest ^ v) * 0x100000001b3u;
    net.digest ^= net.digest >> 29;
}

static inline mp_duration net_latency(void)
{
    return net.delay + (net.jitter ? mp_rng_below(&net.rng, net.jitter) : 0);
}

/* When `place` gets to what arrives at `at`. */
static inline mp_time net_handled(uint32_t place, mp_time at)
{
    struct net_node *n = &net.nodes[place];
    if (n->slow)
        at += n->slow / 3 + mp_rng_below(&net.rng, n->slow * 2 / 3);
    return at < n->stopped ? n->stopped : at;
}

static inline void net_post(enum net_kind kind, uint32_t place, uint32_t from, mp_time at,
                            struct mp_slice bytes)
{
    struct net_event e = {.at = net_handled(place, at),
                          .kind = kind,
                          .place = place,
                          .from = from,
                          .life = net.nodes[place].life,
                          .size = bytes.size};
    if (bytes.size != 0) {
        e.bytes = malloc(bytes.size);
        assert_non_null(e.bytes);
        memcpy(e.bytes, bytes.data, bytes.size);
    }
    net_push(e);
}

static inline void net_datagram(uint32_t from, uint32_t place, struct mp_slice bytes)
{
    net.datagrams++;
    net.largest = bytes.size > net.largest ? bytes.size : net.largest;
    if (net.kept_count < 64 && place < NET_MAX) {
        net.kept[net.kept_count].place = place;
        net.kept[net.kept_count].from = from;
        net.kept[net.kept_count].size = bytes.size;
        memcpy(net.kept[net.kept_count++].bytes, bytes.data, bytes.size);
    }
    if (place >= NET_MAX || !net.nodes[place].m || net.cut[from][place] ||
        net.udp_cut[from][place] || mp_rng_below(&net.rng, 100) < net.loss_percent)
        return;
    net_post(NET_DATAGRAM, place, from, net.now + net_latency(), bytes);
}

static inline bool net_is_linked(uint32_t a, uint32_t b)
{
    return !net.is_unlinked && b < NET_MAX && net.nodes[a].m && net.nodes[b].m &&
           net.nodes[a].is_foreign == net.nodes[b].is_foreign && !net.cut[a][b] && !net.cut[b][a];
}

static inline uint32_t net_state_seen(uint32_t place, const char *name)
{
    struct mp_member_info info;
    uint32_t n = mp_membership_find(net.nodes[place].m, mp_slice_str(name));
    if (n == MP_MEMBER_NONE || !mp_membership_get(net.nodes[place].m, n, &info))
        return 99;
    return info.state;
}

static inline void net_changed(uint32_t place, const struct mp_member_info *info)
{
    if (info->state != MP_MEMBER_DEAD)
        return;
    for (uint32_t i = 0; i < NET_MAX; i++) {
        struct net_node *n = &net.nodes[i];
        struct mp_address addr = net_address(i);
        if (n->m && mp_slice_is(info->name, n->name) && !n->has_left && !n->slow && !n->stopped &&
            mp_address_equal(&addr, &info->addr) && !net.cut[place][i] && !net.cut[i][place])
            net.false_deaths++;
    }
}

static inline void net_step(uint32_t place, const struct mp_membership_event *ev);

static inline void net_effect(uint32_t place, const struct mp_membership_effect *e)
{
    struct net_node *n = &net.nodes[place];
    struct mp_member_info info = {0};
    bool is_known = mp_membership_get(n->m, e->member, &info);
    uint32_t there = is_known ? net_place(&info.addr) : NET_MAX;
    net_mix(net.now);
    net_mix((uint64_t)place << 32 | (uint32_t)e->kind << 24 | e->member);
    switch (e->kind) {
    case MP_MEMBERSHIP_SEND:
        net_mix(mp_slice_hash(e->send.bytes, 0));
        n->sent_bytes += e->send.bytes.size + 28;
        net_datagram(place, net_place(&e->send.to), e->send.bytes);
        break;
    case MP_MEMBERSHIP_CHANGED:
        assert_true(is_known);
        net_mix(info.state | info.generation << 8);
        net_changed(place, &info);
        break;
    case MP_MEMBERSHIP_GONE:
        n->gone++;
        break;
    case MP_MEMBERSHIP_VIA:
        n->vias++;
        break;
    case MP_MEMBERSHIP_PROBE_TCP:
        assert_true(is_known);
        if (net_is_linked(place, there) && mp_slice_is(info.name, net.nodes[there].name))
            net_post(NET_ACK, place, there,
                     net_handled(there, net.now + 3 * net_latency()) + net_latency(), info.name);
        break;
    case MP_MEMBERSHIP_SYNC:
        n->syncs++;
        if (net_is_linked(place, there))
            net_post(NET_SYNC, there, place, net.now + net_latency(), mp_slice_of(NULL, 0));
        break;
    case MP_MEMBERSHIP_HEARD:
        n->heard++;
        break;
    case MP_MEMBERSHIP_LOADED:
        n->loaded++;
        break;
    case MP_MEMBERSHIP_NAME_TAKEN:
        n->is_taken = true;
        n->taken_by = e->taken.addr;
        break;
    case MP_MEMBERSHIP_PERSIST:
        n->persisted = e->generation;
        break;
    case MP_MEMBERSHIP_LOG:
        n->logs++;
        break;
    }
}

static inline void net_arm(uint32_t place)
{
    struct net_node *n = &net.nodes[place];
    mp_time at = mp_membership_deadline(n->m);
    at = at < net.now ? net.now : at;
    at = at < n->stopped ? n->stopped : at;
    if (at != MP_NEVER && at < n->woken) {
        n->woken = at;
        net_push((struct net_event){.at = at, .kind = NET_WAKE, .place = place, .life = n->life});
    }
}

static inline void net_step(uint32_t place, const struct mp_membership_event *ev)
{
    struct net_node *n = &net.nodes[place];
    struct mp_membership_effects out = {0};
    enum mp_err err = mp_membership_step(n->m, net.now, ev, &out);
    assert_true(err == MP_OK || err == MP_ENOMEM);
    net.is_short = net.is_short || err == MP_ENOMEM;
    for (uint32_t i = 0; i < out.count; i++)
        net_effect(place, &out.items[i]);
    net_arm(place);
}

static inline uint64_t net_differing(uint32_t a, uint32_t b)
{
    uint64_t x[MP_SYNC_BUCKETS];
    uint64_t y[MP_SYNC_BUCKETS];
    uint64_t mask = 0;
    mp_membership_digests(net.nodes[a].m, x);
    mp_membership_digests(net.nodes[b].m, y);
    for (unsigned i = 0; i < MP_SYNC_BUCKETS; i++)
        mask |= (uint64_t)(x[i] != y[i]) << i;
    return mask;
}

/* What two nodes tell each other over a link. */
static inline void net_exchange(uint32_t a, uint32_t b)
{
    uint64_t mask = net_differing(a, b);
    for (int way = 0; way < 2 && mask != 0; way++) {
        struct mp_buf out;
        mp_buf_init(&out, &net.alloc, 0);
        uint32_t source = way ? a : b;
        if (mp_membership_put_entries(net.nodes[source].m, mask, &out) == MP_OK && out.size != 0)
            net_post(NET_ENTRIES, way ? b : a, source, net.now + net_latency(), mp_buf_slice(&out));
        mp_buf_fini(&out);
    }
}

static inline void net_contact(uint32_t place, uint32_t with)
{
    struct mp_member_info info;
    assert_true(mp_membership_get(net.nodes[with].m, MP_MEMBER_SELF, &info));
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_CONTACT,
                                     .contact = {.name = info.name,
                                                 .generation = info.generation,
                                                 .addr = info.addr,
                                                 .flags = info.flags}};
    net_step(place, &ev);
}

static inline void net_deliver(const struct net_event *e)
{
    struct net_node *n = &net.nodes[e->place];
    struct mp_slice bytes = mp_slice_of(e->bytes, e->size);
    if (e->kind == NET_WAKE && e->at == n->woken)
        n->woken = MP_NEVER;
    if (n->stopped != 0 && net.now < n->stopped) { /* stopped since it was posted */
        net_post(e->kind, e->place, e->from, n->stopped, bytes);
        return;
    }
    n->stopped = 0;
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_TIMER};
    if (e->kind == NET_DATAGRAM) {
        ev.kind = MP_MEMBERSHIP_DATAGRAM;
        ev.datagram.from = net_address(e->from);
        ev.datagram.bytes = bytes;
    } else if (e->kind == NET_ENTRIES) {
        ev.kind = MP_MEMBERSHIP_ENTRIES;
        ev.entries.bytes = bytes;
    } else if (e->kind == NET_ACK) {
        ev.kind = MP_MEMBERSHIP_TCP_ACK;
        ev.member = mp_membership_find(n->m, bytes);
        if (ev.member == MP_MEMBER_NONE)
            return;
    }
    if (e->kind == NET_SYNC || e->kind == NET_CONTACT) {
        if (!net_is_linked(e->place, e->from))
            return;
        if (e->kind == NET_CONTACT) {
            net_contact(e->place, e->from);
            net_contact(e->from, e->place);
        }
        net_exchange(e->from, e->place);
        return;
    }
    net_step(e->place, &ev);
}

static inline void net_run(mp_duration for_)
{
    mp_time end = net.now + for_;
    while (net.count != 0 && net.heap[0].at <= end) {
        struct net_event e = net_pop();
        net.now = e.at;
        if (net.nodes[e.place].m && net.nodes[e.place].life == e.life)
            net_deliver(&e);
        free(e.bytes);
    }
    net.now = end;
}

static inline enum mp_err net_try_start(uint32_t place, const char *name, uint64_t generation)
{
    struct net_node *n = &net.nodes[place];
    uint32_t life = n->life + 1;
    assert_null(n->m);
    *n = (struct net_node){.life = life, .woken = MP_NEVER};
    snprintf(n->name, sizeof(n->name), "%s", name);
    struct mp_membership_config cfg = {.name = mp_slice_str(n->name),
                                       .cluster = mp_slice_str("default"),
                                       .addr = net_address(place),
                                       .generation = generation,
                                       .members_max = 20000,
                                       .defects = net.defects};
    enum mp_err err = mp_membership_new(&n->m, &cfg, &net.alloc, mp_rng_next(&net.rng));
    if (err != MP_OK)
        return err;
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_START};
    ev.start.addr = net_address(place);
    net_step(place, &ev);
    return MP_OK;
}

static inline void net_start(uint32_t place, const char *name, uint64_t generation)
{
    assert_int_equal(MP_OK, net_try_start(place, name, generation));
}

/* Over a link, if there can be one. */
static inline void net_join(uint32_t place, uint32_t seed)
{
    if (net_is_linked(place, seed))
        net_post(NET_CONTACT, seed, place, net.now + 2 * net_latency(), mp_slice_of(NULL, 0));
}

static inline void net_crash(uint32_t place)
{
    struct net_node *n = &net.nodes[place];
    mp_membership_free(n->m);
    n->m = NULL;
    n->crashed_at = net.now;
}

static inline void net_leave(uint32_t place)
{
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_LEAVE};
    net.nodes[place].has_left = true;
    net_step(place, &ev);
}

static inline void net_open(uint64_t seed)
{
    memset(&net, 0, sizeof(net));
    net.memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
    net.alloc = spec_alloc_of(&net.memory);
    mp_rng_init(&net.rng, seed);
    net.now = MP_SECONDS(1000);
    net.delay = MP_US(200);
    net.jitter = MP_US(800);
    net.digest = 0xcbf29ce484222325u;
}

static inline void net_close(void)
{
    for (uint32_t i = 0; i < NET_MAX; i++)
        if (net.nodes[i].m)
            net_crash(i);
    for (uint32_t i = 0; i < net.count; i++)
        free(net.heap[i].bytes);
    free(net.heap);
    net.heap = NULL;
    assert_int_equal(0, net.memory.live_bytes);
}

/* Nodes n0 … at places 0 …, each joined to the first, and time to meet. */
static inline void net_cluster(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char name[24];
        snprintf(name, sizeof(name), "n%u", i);
        net_start(i, name, 1);
        if (i != 0)
            net_join(i, 0);
    }
}

/* Whether each process sees exactly `live` live members. */
static inline bool net_all_see(uint32_t live)
{
    for (uint32_t i = 0; i < NET_MAX; i++)
        if (net.nodes[i].m && !net.nodes[i].has_left &&
            mp_membership_live_count(net.nodes[i].m) != live)
            return false;
    return true;
}

/* How long until `is_so`, looked at every 10 ms; MP_NEVER after `limit`. */
static inline mp_duration net_until_all_see(uint32_t live, mp_duration limit)
{
    mp_time from = net.now;
    while (!net_all_see(live)) {
        if (net.now - from >= limit)
            return MP_NEVER;
        net_run(MP_MS(10));
    }
    return net.now - from;
}

/* Until each process lists `name` in that state. */
static inline bool net_all_list(const char *name, uint32_t state)
{
    for (uint32_t i = 0; i < NET_MAX; i++)
        if (net.nodes[i].m && !net.nodes[i].has_left && strcmp(net.nodes[i].name, name) != 0 &&
            net_state_seen(i, name) != state)
            return false;
    return true;
}

static inline mp_duration net_until_listed(const char *name, uint32_t state, mp_duration limit)
{
    mp_time from = net.now;
    while (!net_all_list(name, state)) {
        if (net.now - from >= limit)
            return MP_NEVER;
        net_run(MP_MS(10));
    }
    return net.now - from;
}

static inline uint64_t net_seed(void)
{
    const char *text = getenv("MPREG_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 1;
    print_message("# seed %llu\n", (unsigned long long)seed);
    return seed;
}
