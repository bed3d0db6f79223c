/* Who is in the cluster, and who of them is there: SWIM (Das, Gupta, Motivala, "SWIM: Scalable
 * Weakly-consistent Infection-style Process Group Membership Protocol", DSN 2002) with Lifeguard
 * (Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
 * Detection", DSN 2018). membership.c says where it deviates, and why.
 *
 * A member is known by its name. What is said of it is ordered by (generation, incarnation, state):
 * the generation counts its boots and is persisted, the incarnation counts its refutations within a
 * boot. Only the member itself raises either. Members have dense numbers here; 0 is this node
 * itself; a number is used again only after GONE was told of it. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/base/time.h"
#include "src/wire/address.h"

#define MP_MEMBER_SELF 0u
#define MP_MEMBER_NONE UINT32_MAX
#define MP_SYNC_BUCKETS                                                                            \
    64u /* digests: one for each part of the names, by mp_slice_hash(name, 0)                      \
         */
#define MP_GOSSIP_BYTES_MAX 1200u
#define MP_NEWS_BYTES_MAX   160u

struct mp_membership;

/* In the order in which they win over each other at equal generation and incarnation. */
enum mp_member_state { MP_MEMBER_ALIVE, MP_MEMBER_SUSPECT, MP_MEMBER_DEAD, MP_MEMBER_LEFT };

#define MP_MEMBER_INSECURE    1u    /* flag: it listens beyond loopback without keys */
#define MP_MEMBER_PROVISIONAL 0x40u /* flag in HELLO: its name may turn out to be taken */

struct mp_membership_config {
    struct mp_slice name;
    struct mp_slice cluster;
    struct mp_address addr; /* as others reach it; may be set by START */
    uint64_t generation;    /* of this boot; not 0 */
    uint8_t flags;
    uint32_t members_max; /* more: refused, and told once by LOG */
    uint64_t defects;     /* see base/defects.h; 0 */
};

enum mp_membership_event_kind {
    MP_MEMBERSHIP_START,    /* start.addr; from now on it probes */
    MP_MEMBERSHIP_DATAGRAM, /* datagram */
    MP_MEMBERSHIP_CONTACT,  /* contact: a node introduced itself over a link */
    MP_MEMBERSHIP_ENTRIES,  /* entries: what mp_membership_put_entries() wrote elsewhere */
    MP_MEMBERSHIP_TCP_ACK,  /* answer to PROBE_TCP, or any sign of life over a link: member */
    MP_MEMBERSHIP_NEWS,     /* news: tell everybody; a newer one under the same key replaces it */
    MP_MEMBERSHIP_LOAD,     /* load: this node's, for the next datagrams */
    MP_MEMBERSHIP_FORGET,   /* name: a dead or departed member is forgotten, everywhere */
    MP_MEMBERSHIP_LEAVE,    /* say goodbye to some members now; nothing is probed any more */
    MP_MEMBERSHIP_TIMER
};

struct mp_membership_event {
    enum mp_membership_event_kind kind;
    union {
        struct {
            struct mp_address addr;
        } start;
        struct {
            struct mp_address from;
            struct mp_slice bytes;
        } datagram;
        struct {
            struct mp_slice name;
            uint64_t generation;
            struct mp_address addr;
            uint8_t flags;
        } contact;
        struct {
            struct mp_slice bytes;
        } entries;
        uint32_t member;
        struct {
            struct mp_slice key;   /* who it is about; copied */
            struct mp_slice bytes; /* at most MP_NEWS_BYTES_MAX; copied */
        } news;
        uint32_t load;
        struct mp_slice name;
    };
};

enum mp_membership_effect_kind {
    MP_MEMBERSHIP_SEND,       /* send.bytes as a datagram to send.to */
    MP_MEMBERSHIP_CHANGED,    /* member: new, or its state, generation, address or flags changed */
    MP_MEMBERSHIP_GONE,       /* member: forgotten; its number is free after this step */
    MP_MEMBERSHIP_VIA,        /* member: what mp_member_info.via says has changed */
    MP_MEMBERSHIP_PROBE_TCP,  /* member: say something to it over a link; TCP_ACK if it answers */
    MP_MEMBERSHIP_SYNC,       /* member: compare digests with it over a link; sync.is_any */
    MP_MEMBERSHIP_HEARD,      /* news.bytes from news.member, the first time */
    MP_MEMBERSHIP_LOADED,     /* member: its load is load now */
    MP_MEMBERSHIP_NAME_TAKEN, /* another node has our name and answers: taken.addr. This one must
                                 end */
    MP_MEMBERSHIP_PERSIST,    /* generation: ours was raised above a namesake's; keep it */
    MP_MEMBERSHIP_LOG         /* log.level as in node.h, log.text */
};

struct mp_membership_effect {
    enum mp_membership_effect_kind kind;
    uint32_t member;
    union {
        struct {
            struct mp_address to;
            struct mp_slice bytes;
        } send;
        struct {
            struct mp_slice bytes;
        } news;
        struct {
            bool is_any; /* another live member, reached directly, would do as well */
        } sync;
        uint32_t load;
        uint64_t generation;
        struct {
            struct mp_address addr;
        } taken;
        struct {
            uint8_t level;
            struct mp_slice text;
        } log;
    };
};

struct mp_membership_effects {
    const struct mp_membership_effect *items; /* valid, with all slices, until the next step */
    uint32_t count;
};

MP_MUST_USE enum mp_err mp_membership_new(struct mp_membership **own_out,
                                          const struct mp_membership_config *cfg,
                                          struct mp_alloc *a, uint64_t seed);
/* MP_ENOMEM: something was left undone that a later probe, gossip or digest makes good; what is in
 * `out` is carried out all the same. Bytes from outside never fail: what is malformed, of another
 * cluster or over a limit is dropped and counted. */
MP_MUST_USE enum mp_err mp_membership_step(struct mp_membership *m, mp_time now,
                                           const struct mp_membership_event *ev,
                                           struct mp_membership_effects *out);
mp_time mp_membership_deadline(const struct mp_membership *m);
void mp_membership_free(struct mp_membership *m);

/* --- reading --- */

struct mp_member_info {
    struct mp_slice name; /* borrowed until the next step */
    struct mp_address addr;
    enum mp_member_state state;
    uint64_t generation;
    uint32_t incarnation;
    uint8_t flags;
    uint32_t load;
    mp_time since;   /* of its state, as seen here */
    uint32_t via;    /* the helper through which it was reached when it was not directly, or NONE */
    mp_duration rtt; /* smoothed; 0: never measured */
};

/* Numbers in use are below this; some may be free. */
uint32_t mp_membership_end(const struct mp_membership *m);
/* False if the number is free. */
bool mp_membership_get(const struct mp_membership *m, uint32_t member, struct mp_member_info *out);
/* MP_MEMBER_NONE if there is none. */
uint32_t mp_membership_find(const struct mp_membership *m, struct mp_slice name);
/* Goes on from 1 with each change of who there is and of anybody's state, generation, incarnation,
 * address or flags: where it is the same, so are they. */
uint32_t mp_membership_changes(const struct mp_membership *m);
/* Members alive or suspect, this node included. */
uint32_t mp_membership_live_count(const struct mp_membership *m);
/* The generation of this boot (it may have been raised). */
uint64_t mp_membership_generation(const struct mp_membership *m);
/* Whether this node's name may still turn out to be taken: see clash.c. */
bool mp_membership_is_provisional(const struct mp_membership *m);
/* Whether a namesake of that generation, at `addr`, keeps the name and this node has to end once it
 * knows that the other is there. False: the other has to end. */
bool mp_membership_yields(const struct mp_membership *m, uint64_t generation,
                          const struct mp_address *addr, bool is_provisional);
/* Datagrams that were dropped: malformed, of another cluster. */
uint64_t mp_membership_dropped(const struct mp_membership *m);
/* Bytes that a member takes here, all of it divided by the members. */
size_t mp_membership_bytes(const struct mp_membership *m);

/* Order-independent sums over (name, generation, incarnation, state, addr) of all members, one for
 * each bucket of names: equal where two nodes know the same. */
void mp_membership_digests(const struct mp_membership *m, uint64_t out[MP_SYNC_BUCKETS]);
/* A member's bucket, as a mask. */
uint64_t mp_membership_bucket(const struct mp_membership *m, uint32_t member);
/* Appends what is known of the members in the buckets of `mask`, for ENTRIES elsewhere. */
MP_MUST_USE enum mp_err mp_membership_put_entries(const struct mp_membership *m, uint64_t mask,
                                                  struct mp_buf *out);
