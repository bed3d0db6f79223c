/* Datagrams between nodes: who sends, one message about probing, and news that ride along.
 *
 *   header   9e 'm' 'p' version=1 | u32 checksum (FNV-1a of all that follows) | u64 hash of the
 *            cluster's id | sender: name, generation, incarnation, flags, load, address
 *   message  kind byte, then by kind: PING seq target | ACK seq | PING_REQ seq target address |
 *            NACK seq | RELAYED seq target | GOSSIP | REFUSED target claimed generation address
 *   items    up to the end of the datagram: members and news, each with a tag byte
 *
 * Fixed numbers are little-endian; all others are varints (7 bits a byte, lowest first, at most 10
 * bytes). Names, addresses and keys have a length byte before them. */
#pragma once

#include <stdbool.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/slice.h"
#include "src/wire/address.h"

#define MP_GOSSIP_NEWS_BYTES 160u  /* one news item; more: refused */
#define MP_GOSSIP_JOINING    0x40u /* flag of the sender: its name may turn out to be taken */

enum mp_gossip_kind {
    MP_GOSSIP_PING = 1, /* answered with ACK by `target` alone */
    MP_GOSSIP_ACK,
    MP_GOSSIP_PING_REQ, /* ping `target` at `addr` for the sender */
    MP_GOSSIP_NACK,     /* the helper is there, but has no answer yet */
    MP_GOSSIP_RELAYED,  /* the helper got the target's ACK */
    MP_GOSSIP_GOSSIP,
    MP_GOSSIP_REFUSED /* the holder of your name answers at `addr` */
};

/* In the order in which they win over each other at equal generation and incarnation. */
enum mp_gossip_state {
    MP_GOSSIP_ALIVE,
    MP_GOSSIP_SUSPECT,
    MP_GOSSIP_DEAD,
    MP_GOSSIP_LEFT,
    MP_GOSSIP_FORGOTTEN
};

struct mp_gossip_member {
    enum mp_gossip_state state;
    struct mp_slice name;
    uint64_t generation;
    uint32_t incarnation;
    uint8_t flags;
    struct mp_address addr;
    struct mp_slice accuser; /* of a suspect; may be empty */
    uint32_t age_s;          /* of the state, if dead, left or forgotten */
};

struct mp_gossip_news {
    struct mp_slice key;
    uint64_t stamp; /* a logical clock: the higher one under a key is the newer */
    uint8_t hops;
    struct mp_slice bytes;
};

struct mp_gossip_item {
    bool is_news;
    union {
        struct mp_gossip_member member;
        struct mp_gossip_news news;
    };
};

struct mp_gossip {
    enum mp_gossip_kind kind;
    uint64_t cluster;
    struct mp_slice name;
    uint64_t generation;
    uint32_t incarnation;
    uint8_t flags;
    uint32_t load;
    struct mp_address sender;
    uint32_t seq;
    struct mp_slice target;     /* REFUSED: the name, */
    uint64_t claimed;           /* REFUSED: as claimed in this generation */
    struct mp_address addr;     /* PING_REQ: the target's; REFUSED: the holder's */
    uint64_t holder_generation; /* REFUSED */
    struct mp_slice items;      /* for mp_gossip_next() */
};

/* Reads and checks all of a datagram, its items included. The slices borrow from `bytes`.
 * MP_ECORRUPT or MP_ETOOLARGE. */
MP_MUST_USE enum mp_err mp_gossip_read(struct mp_slice bytes, struct mp_gossip *g);
/* Takes the first of items that were checked; false at their end. */
bool mp_gossip_next(struct mp_slice *items, struct mp_gossip_item *item);
/* Checks a bare list of items, as mp_gossip_append() makes it. MP_ECORRUPT. */
MP_MUST_USE enum mp_err mp_gossip_check(struct mp_slice items);

struct mp_gossip_writer {
    /* read */
    size_t size;
    /* private */
    uint8_t data[MP_DATAGRAM_BYTES_MAX];
};

/* Header and message of g; g's items are not looked at. */
void mp_gossip_begin(struct mp_gossip_writer *w, const struct mp_gossip *g);
/* False: it does not fit, and nothing was written. */
bool mp_gossip_put_member(struct mp_gossip_writer *w, const struct mp_gossip_member *member);
bool mp_gossip_put_news(struct mp_gossip_writer *w, const struct mp_gossip_news *news);
/* The finished datagram, borrowed from w. */
struct mp_slice mp_gossip_end(struct mp_gossip_writer *w);
/* A member as an item behind others in `out`. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_gossip_append(struct mp_buf *out, const struct mp_gossip_member *member);
