/* What the files of this folder share. A member takes 24 bytes here, its name and address about 14,
 * its place in the index 5 to 9. All that only some members need (suspicion, death, relay, round
 * trip) stands in side tables. */
#pragma once

#include "src/base/assert.h"
#include "src/base/buf.h"
#include "src/base/defects.h"
#include "src/base/heap.h"
#include "src/base/limits.h"
#include "src/base/rng.h"
#include "src/core/membership/membership.h"
#include "src/core/membership/parameters.h"
#include "src/wire/gossip.h"

static_assert(MP_GOSSIP_BYTES_MAX == MP_DATAGRAM_BYTES_MAX, "one bound");
static_assert(MP_NEWS_BYTES_MAX == MP_GOSSIP_NEWS_BYTES, "one bound");
static_assert((int)MP_MEMBER_ALIVE == (int)MP_GOSSIP_ALIVE, "states travel as they are");
static_assert(MP_MEMBER_PROVISIONAL == MP_GOSSIP_JOINING, "one flag");
static_assert((int)MP_MEMBER_LEFT == (int)MP_GOSSIP_LEFT, "states travel as they are");

#define MP_SWIM_FORGOTTEN MP_GOSSIP_FORGOTTEN /* a tombstone: not visible outside */
#define MP_SWIM_FREE      0xffu

/* Bits of a member beside its flags. */
#define MP_SWIM_FLAGS  0x0fu
#define MP_SWIM_VIA    0x20u /* has an entry in `relays` */
#define MP_SWIM_AGED   0x40u /* dead for so long that nobody is told any more */
#define MP_SWIM_QUEUED 0x80u /* may have entries in `updates` */

#define MP_SWIM_ACCUSERS (MP_SWIM_CONFIRMATIONS + 1)
#define MP_SWIM_RTTS     256u

struct mp_swim_member {
    uint64_t generation;
    uint32_t incarnation;
    uint32_t record; /* in `arena`: size of name, size of address, both; free: the next free one */
    uint32_t mark;   /* alive: since (mp_swim_stamp); suspect: its suspicion; else its death */
    uint16_t load;   /* saturated */
    uint8_t state;
    uint8_t bits;
};

struct mp_swim_suspicion {
    mp_time since;
    mp_time start;   /* `since`, later if this process was stopped in between */
    uint32_t member; /* MP_MEMBER_NONE: free */
    uint32_t next;   /* free one */
    uint32_t accusers[MP_SWIM_ACCUSERS];
    uint32_t accuser_count;
    uint32_t wanted; /* confirmations that shorten it to the minimum */
};

struct mp_swim_death {
    mp_time since;
    mp_time due; /* redial */
    mp_duration pause;
    uint32_t member;
};

struct mp_swim_relay {
    uint32_t member;
    uint32_t helper;
};

struct mp_swim_rtt {
    uint32_t member;
    uint32_t srtt_us; /* 0: none */
    uint32_t var_us;
};

struct mp_swim_ping {
    mp_time sent_at;
    mp_time late_at; /* then others are asked, or the asker is told NACK; MP_NEVER: done */
    mp_time end_at;
    uint64_t target; /* hash of its name */
    uint32_t seq;
    uint32_t member; /* MP_MEMBER_NONE for a relay's */
    uint32_t helper; /* that had an answer; MP_MEMBER_NONE */
    uint32_t asker_seq;
    struct mp_address asker; /* size 0: our own probe */
    uint8_t nacks_wanted;
    uint8_t nacks;
    bool is_linked; /* it answered over a link */
    bool is_again;  /* sent more than once */
};

/* An update is told from the table as it is then. */
struct mp_swim_update {
    uint32_t member;
    uint32_t accuser; /* of a suspect; MP_MEMBER_NONE */
    uint32_t sent;
};

struct mp_swim_news {
    uint64_t stamp;
    uint32_t sent;
    uint8_t hops;
    uint8_t key_size;
    uint8_t size;
    uint8_t data[]; /* key, bytes */
};

/* Who holds a name: pings on their way to the holder whom we know. */
struct mp_swim_clash {
    mp_time next_at;
    uint32_t member; /* the holder; MP_MEMBER_SELF: another node has our name */
    uint32_t seq;
    uint32_t tries;
    struct mp_address holder; /* pinged */
    uint64_t generation;      /* of the challenger; for our own name: of the other holder */
    uint8_t flags;
    struct mp_address challenger;
    struct mp_address reply; /* where the challenger is told */
};

struct mp_membership {
    struct mp_alloc alloc; /* counts `bytes` */
    struct mp_alloc *outer;
    size_t bytes;
    struct mp_rng rng;
    uint64_t defects;
    uint64_t cluster;
    uint32_t members_max;
    bool is_started;
    bool is_left;  /* it said goodbye, or its name is taken: silent for ever */
    bool is_short; /* memory ran out in this step */
    bool is_full_told;
    bool is_settled;
    uint32_t changes;   /* of the table: see mp_membership_changes() */
    mp_time settled_at; /* MP_NEVER: nobody met yet */
    mp_time base;       /* of stamps */
    mp_time last;       /* step */
    mp_time expected;   /* the deadline after it */
    uint32_t load;
    uint32_t seq;
    uint32_t health;
    uint64_t dropped;

    /* table.c */
    struct mp_swim_member *members;
    uint32_t end;
    uint32_t capacity;
    uint32_t free_first;
    uint32_t freed_first; /* free from the next step on */
    uint32_t live;
    uint32_t used;
    uint8_t *arena;
    uint32_t arena_size;
    uint32_t arena_capacity;
    uint32_t arena_waste;
    uint32_t *index; /* number + 1; 0: empty */
    uint32_t slots;
    uint64_t sums[MP_SYNC_BUCKETS];

    /* suspect.c */
    struct mp_swim_suspicion *suspicions;
    uint32_t suspicion_count;
    uint32_t suspicion_capacity;
    uint32_t suspicion_free;
    uint32_t suspects;
    struct mp_heap expiries;
    uint32_t *expiry_places;
    uint32_t expiry_capacity;

    /* dead.c */
    struct mp_swim_death *deaths;
    uint32_t death_count;
    uint32_t death_capacity;
    uint32_t death_cursor;
    uint32_t forgotten_count;
    mp_time redial_at; /* a random one */

    /* probe.c */
    struct mp_swim_ping *pings;
    uint32_t ping_count;
    uint32_t ping_capacity;
    mp_time ping_at; /* the earliest that is due */
    mp_time probe_at;
    uint32_t round_next; /* place in the round */
    uint32_t round_size; /* power of two */
    uint32_t round_keys[3];
    struct mp_swim_rtt *rtts;
    uint32_t rtt_count; /* power of two */
    struct mp_swim_rtt rtt_all;
    struct mp_swim_relay *relays; /* by member */
    uint32_t relay_count;
    uint32_t relay_capacity;

    /* gossip.c */
    struct mp_swim_update *updates; /* a ring: the least told first */
    uint32_t update_first;
    uint32_t update_count;
    uint32_t update_capacity;
    struct mp_swim_news **news;
    uint32_t news_count;
    uint32_t news_capacity;
    uint64_t *seen;
    uint32_t seen_count;
    uint32_t seen_next;
    uint32_t seen_capacity;
    uint64_t clock;
    mp_time gossip_at;
    mp_time gossiped_at;
    mp_time told_at; /* a sender of gossip heard what is held against it */

    /* sync.c */
    mp_time sync_at;
    mp_time revived_at;

    /* clash.c */
    struct mp_swim_clash *clashes;
    uint32_t clash_count;
    uint32_t clash_capacity;

    /* effects: of byte ranges the offset stands in `offsets` until the step ends */
    struct mp_membership_effect *effects;
    size_t *offsets;
    uint32_t effect_count;
    uint32_t effect_capacity;
    uint32_t offset_capacity;
    struct mp_buf out;
};

/* Where a statement came from. */
enum mp_swim_source {
    MP_SWIM_DIRECT, /* from the member itself */
    MP_SWIM_GOSSIP,
    MP_SWIM_ENTRIES
};

/* --- membership.c --- */
/* Room for `wanted` units; NULL if memory ran out, `items` then being as before. */
void *mp_swim_grow(struct mp_membership *m, void *items, size_t unit, uint32_t *capacity,
                   uint32_t wanted);
MP_MUST_USE enum mp_err mp_swim_reserve_effects(struct mp_membership *m, uint32_t extra);
/* NULL if memory ran out: noted. */
struct mp_membership_effect *mp_swim_emit(struct mp_membership *m,
                                          enum mp_membership_effect_kind kind, uint32_t member);
/* The same with bytes that are copied. */
struct mp_membership_effect *mp_swim_emit_bytes(struct mp_membership *m,
                                                enum mp_membership_effect_kind kind,
                                                uint32_t member, struct mp_slice bytes);
void mp_swim_log(struct mp_membership *m, const char *text, struct mp_slice detail);
void mp_swim_health(struct mp_membership *m, int change);
uint32_t mp_swim_random(struct mp_membership *m, uint32_t below);

/* --- table.c --- */
static inline struct mp_slice mp_swim_name(const struct mp_membership *m, uint32_t n)
{
    const uint8_t *record = m->arena + m->members[n].record;
    return mp_slice_of(record + 2, record[0]);
}
struct mp_address mp_swim_address(const struct mp_membership *m, uint32_t n);
/* Whether that is its address. */
bool mp_swim_is_at(const struct mp_membership *m, uint32_t n, const struct mp_address *addr);
uint32_t mp_swim_find(const struct mp_membership *m, struct mp_slice name);
uint32_t mp_swim_stamp(const struct mp_membership *m, mp_time t);
static inline bool mp_swim_is_live(const struct mp_membership *m, uint32_t n)
{
    return m->members[n].state <= MP_GOSSIP_SUSPECT;
}
static inline bool mp_swim_is_visible(const struct mp_membership *m, uint32_t n)
{
    return m->members[n].state < MP_SWIM_FORGOTTEN;
}
/* What is known of n, as it is told to others. */
struct mp_gossip_member mp_swim_statement(const struct mp_membership *m, mp_time now, uint32_t n);
/* Takes in what s says of a new member, or of n. MP_ENOMEM or MP_EFULL: nothing has changed. */
MP_MUST_USE enum mp_err mp_swim_add(struct mp_membership *m, mp_time now,
                                    const struct mp_gossip_member *s, uint32_t *n_out);
MP_MUST_USE enum mp_err mp_swim_move(struct mp_membership *m, mp_time now, uint32_t n,
                                     const struct mp_gossip_member *s);
/* The number becomes free with the next step. */
void mp_swim_drop(struct mp_membership *m, uint32_t n);
/* Digest sums leave out what is aged. */
void mp_swim_sum_add(struct mp_membership *m, uint32_t n);
void mp_swim_sum_remove(struct mp_membership *m, uint32_t n);
/* A live member other than this node and `but`, MP_MEMBER_NONE if none was found. */
uint32_t mp_swim_random_live(struct mp_membership *m, uint32_t but);
void mp_swim_table_fini(struct mp_membership *m);

/* --- hear.c --- */
void mp_swim_hear(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s,
                  enum mp_swim_source source);
/* The member itself says s; `reply` is where it is told what we know better. Returns its number,
 * MP_MEMBER_NONE if it is not (yet) who it says it is. */
uint32_t mp_swim_meet(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s,
                      const struct mp_address *reply);
/* Whether n, which says s of itself, has to hear what is known of it: the worst of what it does not
 * know is that an earlier boot had a higher number, since nobody listens to it until it does. */
bool mp_swim_is_owed(const struct mp_membership *m, uint32_t n, const struct mp_gossip_member *s);
/* Says s to all, whatever was known before; s.name is a known member. False: no memory. */
bool mp_swim_declare(struct mp_membership *m, mp_time now, uint32_t n,
                     const struct mp_gossip_member *s);
void mp_swim_raise_generation(struct mp_membership *m, mp_time now, uint64_t above);
void mp_swim_datagram(struct mp_membership *m, mp_time now, const struct mp_address *from,
                      struct mp_slice bytes);

/* --- suspect.c --- */
uint32_t mp_swim_log10_milli(uint32_t n);
MP_MUST_USE enum mp_err mp_swim_suspicion_reserve(struct mp_membership *m);
uint32_t mp_swim_suspicion_start(struct mp_membership *m, mp_time now, uint32_t n);
void mp_swim_suspicion_end(struct mp_membership *m, uint32_t slot);
/* Another accuser; true if it was news worth telling. */
bool mp_swim_confirm(struct mp_membership *m, uint32_t n, uint32_t accuser);
void mp_swim_suspect(struct mp_membership *m, mp_time now, uint32_t n);
void mp_swim_suspicions_run(struct mp_membership *m, mp_time now);
void mp_swim_suspicions_shift(struct mp_membership *m, mp_duration by);
void mp_swim_suspicions_fini(struct mp_membership *m);

/* --- dead.c --- */
MP_MUST_USE enum mp_err mp_swim_death_reserve(struct mp_membership *m);
uint32_t mp_swim_death_add(struct mp_membership *m, mp_time now, mp_time since, uint32_t n);
void mp_swim_death_remove(struct mp_membership *m, uint32_t slot);
void mp_swim_deaths_run(struct mp_membership *m, mp_time now);
void mp_swim_forget(struct mp_membership *m, mp_time now, struct mp_slice name);

/* --- probe.c --- */
void mp_swim_probe(struct mp_membership *m, mp_time now, uint32_t n);
void mp_swim_probe_run(struct mp_membership *m, mp_time now);
void mp_swim_pings_run(struct mp_membership *m, mp_time now);
void mp_swim_on_ack(struct mp_membership *m, mp_time now, const struct mp_gossip *g);
void mp_swim_on_relayed(struct mp_membership *m, const struct mp_gossip *g, uint32_t helper);
void mp_swim_on_nack(struct mp_membership *m, const struct mp_gossip *g);
void mp_swim_on_ping_req(struct mp_membership *m, mp_time now, const struct mp_gossip *g,
                         const struct mp_address *from);
void mp_swim_on_link(struct mp_membership *m, uint32_t n);
/* n is dead or gone: nothing waits for it, nothing goes through it. */
void mp_swim_probe_forget(struct mp_membership *m, mp_time now, uint32_t n);
void mp_swim_probes_restart(struct mp_membership *m, mp_time now);
const struct mp_swim_rtt *mp_swim_rtt(const struct mp_membership *m, uint32_t n);
uint32_t mp_swim_via(const struct mp_membership *m, uint32_t n);
void mp_swim_via_set(struct mp_membership *m, uint32_t n, uint32_t helper);
void mp_swim_probe_fini(struct mp_membership *m);

/* --- gossip.c --- */
/* To be told to all. */
void mp_swim_tell(struct mp_membership *m, mp_time now, uint32_t n, uint32_t accuser);
/* Sends g's kind and message to each of `to`; what is known of `about` comes first (NONE: no such),
 * then whatever has room. */
void mp_swim_send(struct mp_membership *m, mp_time now, const struct mp_gossip *g, uint32_t about,
                  const struct mp_address *to, uint32_t to_count);
void mp_swim_gossip_run(struct mp_membership *m, mp_time now);
void mp_swim_publish(struct mp_membership *m, mp_time now, struct mp_slice key,
                     struct mp_slice bytes);
void mp_swim_hear_news(struct mp_membership *m, mp_time now, const struct mp_gossip_news *news,
                       uint32_t from);
void mp_swim_goodbye(struct mp_membership *m, mp_time now);
void mp_swim_gossip_fini(struct mp_membership *m);

/* --- sync.c --- */
void mp_swim_entries(struct mp_membership *m, mp_time now, struct mp_slice bytes);
void mp_swim_sync_run(struct mp_membership *m, mp_time now);
void mp_swim_revived(struct mp_membership *m, mp_time now, uint32_t n);

/* --- clash.c --- */
/* s claims the name of n, which lives elsewhere: asks n first. */
void mp_swim_clash(struct mp_membership *m, mp_time now, uint32_t n,
                   const struct mp_gossip_member *s, const struct mp_address *reply);
/* Another node has our own name, says s. */
void mp_swim_clash_self(struct mp_membership *m, mp_time now, const struct mp_gossip_member *s);
bool mp_swim_clash_ack(struct mp_membership *m, mp_time now, const struct mp_gossip *g);
void mp_swim_on_refused(struct mp_membership *m, mp_time now, const struct mp_gossip *g);
void mp_swim_clashes_run(struct mp_membership *m, mp_time now);
mp_time mp_swim_clash_at(const struct mp_membership *m);
void mp_swim_clash_forget(struct mp_membership *m, uint32_t n);
void mp_swim_clash_fini(struct mp_membership *m);
