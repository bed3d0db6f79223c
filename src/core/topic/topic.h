/* Everything about topics that is not transport: who gets which message, in which order, and what
 * becomes of it while somebody cannot take it.
 *
 * A message is [topic, seq, at, data] in MessagePack. This node gives its own messages their seq
 * (1, 2, 3 …; over all topics) and at (Unix ms, never decreasing); others' come with theirs.
 * Whoever subscribes gets what one publisher published in the order of seq; between publishers
 * there is no order, and nothing is delivered twice.
 *
 * Three kinds of receivers, each with a queue of its own:
 *
 *   subscription   of a client's connection, known by (client, id): what matches, whoever published
 *   function       that is called once for each message that this node accepted
 *   member         another node: what this node accepted and somebody there subscribes to, once,
 *                  however many of its patterns match
 *
 * What a step delivers gathers in the queues and leaves them at its end, as few and large effects.
 * A queue whose receiver takes nothing now (BLOCKED, no ROOM, a FORWARD under way) keeps what
 * comes, up to MP_TOPIC_QUEUE_MESSAGES_MAX and MP_TOPIC_QUEUE_BYTES_MAX, and all queues together to
 * MP_TOPIC_QUEUES_BYTES_MAX. What comes then is dropped, counted, and told in its place: behind
 * what was queued before it, ahead of what comes after. Short of memory a queue counts as full.
 *
 * Patterns are compared by their text: see src/wire/topic.h. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/slice.h"
#include "src/base/time.h"

enum mp_topic_event_kind {
    MP_TOPIC_SUBSCRIBE,     /* a client's subscription is in force from now on */
    MP_TOPIC_UNSUBSCRIBE,   /* it ends; what is queued for it is dropped without a word */
    MP_TOPIC_CLIENT_GONE,   /* all subscriptions of a client end */
    MP_TOPIC_BLOCKED,       /* a client's connection takes no more */
    MP_TOPIC_READY,         /* it takes more */
    MP_TOPIC_FUNCTION,      /* a function's patterns, all of them; none: it is gone */
    MP_TOPIC_ROOM,          /* how many messages functions take from now on */
    MP_TOPIC_PUBLISH,       /* messages that this node accepts */
    MP_TOPIC_RECEIVE,       /* messages that another node published */
    MP_TOPIC_INTEREST,      /* a member's patterns, all of them; none: it wants nothing */
    MP_TOPIC_ACKED,         /* a FORWARD has ended */
    MP_TOPIC_MEMBER_GONE,   /* forgets a member's patterns, and what is queued for it */
    MP_TOPIC_BACKLOG_ASKED, /* a member asks for what is kept; `answer` says it */
    MP_TOPIC_GATHERED,      /* another node's backlog, for a GATHER */
    MP_TOPIC_GATHER_END,    /* nothing more comes for a GATHER */
    MP_TOPIC_RESTORED,      /* what was kept in an earlier life, before anything is published */
    MP_TOPIC_KEPT,          /* a KEEP has ended, well or not */
    MP_TOPIC_TIMER
};

/* All slices are borrowed for the step. */
struct mp_topic_event {
    enum mp_topic_event_kind kind;
    uint64_t wall_ms; /* Unix ms: of SUBSCRIBE with since, PUBLISH, BACKLOG_ASKED, RESTORED */
    uint64_t client;  /* SUBSCRIBE, UNSUBSCRIBE, CLIENT_GONE, BLOCKED, READY: any number */
    uint64_t id;      /* SUBSCRIBE, UNSUBSCRIBE: the client's number of it */
    uint32_t
        member; /* INTEREST, ACKED, MEMBER_GONE, BACKLOG_ASKED; < MP_TOPIC_MEMBER_NUMBERS_MAX */
    union {
        struct {
            struct mp_slice pattern;
            bool has_since;
            uint64_t since_ms;  /* Unix ms: what is kept from then on comes first */
            uint32_t queue_max; /* messages; 0, or over the limit: the limit */
        } subscribe;
        struct {
            uint32_t function;        /* < MP_TOPIC_FUNCTIONS_MAX */
            struct mp_slice patterns; /* array of texts, strictly ascending by their bytes */
        } function;
        uint32_t room;
        struct mp_slice publish; /* array of [topic, data], at most MP_TOPIC_PUBLISH_MAX */
        struct {
            struct mp_slice publisher; /* the name of the node whose messages they are */
            uint64_t dropped;          /* so many of them were lost after after_seq and before */
            uint64_t after_seq;        /* the first one here */
            struct mp_slice messages;  /* array, seq ascending, at most MP_TOPIC_PUBLISH_MAX */
        } receive;
        struct mp_slice interest; /* array of patterns, strictly ascending by their bytes */
        bool is_lost;             /* ACKED: the batch may not have arrived */
        struct {
            struct mp_slice pattern;
            uint64_t since_ms;
        } asked;
        struct {
            uint64_t gather;           /* as the GATHER effect has it */
            struct mp_slice publisher; /* the node that answers */
            uint64_t upto_seq;         /* the last it had published then */
            struct mp_slice messages;  /* array, seq ascending */
        } gathered;
        uint64_t gather_end;      /* the number of the GATHER */
        struct mp_slice restored; /* array of messages, seq ascending; may come in several parts */
    };
};

enum mp_topic_effect_kind {
    MP_TOPIC_DELIVER, /* messages of one publisher for a subscription */
    MP_TOPIC_CALL,    /* one message for a function */
    MP_TOPIC_MISSED,  /* `dropped` messages that a function was not called for */
    MP_TOPIC_FORWARD, /* messages of this node for a member; ACKED follows */
    MP_TOPIC_GATHER,  /* ask all other nodes for their backlog: GATHERED for each that answers, then
                         GATHER_END; whoever has not answered MP_TOPIC_GATHER_MS later is left out */
    MP_TOPIC_KEEP,    /* write these messages down; KEPT follows */
    MP_TOPIC_FORGET   /* of each topic here, what is written down up to and with seq */
};

struct mp_topic_effect {
    enum mp_topic_effect_kind kind;
    uint64_t client;           /* DELIVER, GATHER */
    uint64_t id;               /* likewise: of the subscription */
    uint32_t function;         /* CALL, MISSED */
    uint32_t member;           /* FORWARD */
    uint32_t count;            /* messages of DELIVER, FORWARD, KEEP; perhaps none if dropped > 0 */
    struct mp_slice publisher; /* DELIVER, CALL: the name of a node */
    /* DELIVER, FORWARD: so many matching messages of that publisher were lost after after_seq (the
     * last one before them that was queued or delivered; 0: none that is remembered) and before the
     * first of these. What was lost between nodes is told to each subscription that is in force,
     * whatever its pattern: for that part it is an upper bound. */
    uint64_t dropped;
    uint64_t after_seq;
    struct mp_slice
        payload;           /* DELIVER, FORWARD, KEEP: array of messages; FORGET: of [topic, seq] */
    struct mp_slice topic; /* CALL */
    uint64_t seq;
    uint64_t at_ms;
    struct mp_slice data;
    uint64_t gather;         /* GATHER: a number that is never used again */
    struct mp_slice pattern; /* GATHER */
    uint64_t since_ms;
};

/* Pointers, also those of the items, are valid until the next step. */
struct mp_topic_effects {
    const struct mp_topic_effect *items;
    uint32_t count;
    bool is_interest_changed; /* mp_topic_put_interest may say something else than before */
    uint64_t seq;             /* PUBLISH: of the last message */
    uint32_t published;       /* PUBLISH: how many */
    uint32_t bad_index;       /* MP_EINVAL of PUBLISH: which message, from 0 */
    const char *message;      /* MP_EINVAL: what is wrong and where, for people; else "" */
    uint64_t upto_seq;        /* BACKLOG_ASKED: the last that this node has published */
    struct mp_slice answer;   /* BACKLOG_ASKED: array of messages, seq ascending, the newest
                                 MP_TOPIC_ANSWER_BYTES_MAX of them */
};

struct mp_topic_config {
    struct mp_slice node; /* this node's name; copied */
    uint32_t room;        /* messages that functions take at first */
    bool is_kept;         /* KEEP and FORGET come: at most one KEEP at a time, and every
                             MP_TOPIC_KEEP_MS. What left the backlog before is never written down */
};

struct mp_topic_stats {
    uint64_t published;     /* messages accepted here */
    uint64_t received;      /* messages that came from other nodes */
    uint64_t delivered;     /* to subscriptions, counted for each */
    uint64_t called;        /* to functions */
    uint64_t forwarded;     /* to members */
    uint64_t dropped;       /* of any queue, and between nodes as far as it was told */
    uint32_t subscriptions; /* of clients, in force now */
    uint32_t topics;        /* with a backlog */
    uint32_t queued_bytes;  /* in all queues */
    uint32_t backlog_bytes; /* taken by all backlogs */
};

struct mp_topic;

/* Whether there is no subscription of any kind: nothing is wanted. */
bool mp_topic_is_unwanted(const struct mp_topic *t);
/* Another number whenever subscriptions of any kind have changed: what was found wanted or not may
 * be so no longer. */
uint64_t mp_topic_generation(const struct mp_topic *t);
MP_MUST_USE enum mp_err mp_topic_new(struct mp_topic **own_out, const struct mp_topic_config *cfg,
                                     struct mp_alloc *a);
/* One event. On an error nothing has changed, save that what an earlier step left to do may have
 * been done: `out` is to be carried out in any case.
 *
 *   MP_EINVAL    SUBSCRIBE, FUNCTION, INTEREST, BACKLOG_ASKED: a bad pattern, or patterns that do
 * not ascend; PUBLISH: a bad topic (bad_index); `message` says what MP_EEXIST    SUBSCRIBE: the
 * client has a subscription of that id MP_ENOENT    UNSUBSCRIBE: there is none; GATHERED,
 * GATHER_END: that gathering is over MP_EFULL     SUBSCRIBE, FUNCTION, INTEREST, BACKLOG_ASKED:
 * MP_TOPIC_PATTERNS_MAX; SUBSCRIBE with since: MP_TOPIC_GATHERS_MAX MP_ECORRUPT  PUBLISH, RECEIVE,
 * GATHERED, RESTORED, FUNCTION, INTEREST: not what they should be MP_ETOOLARGE PUBLISH: over
 * MP_TOPIC_PUBLISH_MAX messages MP_ENOMEM    any of these
 *
 * BLOCKED is remembered also of a client without subscriptions, until READY or CLIENT_GONE: who
 * subscribes then waits. CLIENT_GONE, READY, ACKED and MEMBER_GONE of whom nothing is known do
 * nothing.
 */
MP_MUST_USE enum mp_err mp_topic_step(struct mp_topic *t, mp_time now,
                                      const struct mp_topic_event *ev,
                                      struct mp_topic_effects *out);
/* When to step again with TIMER; MP_NEVER. It may be at once: more is to go out to a client that
 * was not said to be BLOCKED. */
mp_time mp_topic_deadline(const struct mp_topic *t);
void mp_topic_free(struct mp_topic *t);

/* Appends what this node wants to hear from others: the distinct patterns of its clients'
 * subscriptions as an array of texts, ascending by their bytes. Over MP_TOPIC_INTEREST_MAX or
 * MP_TOPIC_INTEREST_BYTES_MAX each stands for more: `word.#`, and if these are too many, `#`. */
MP_MUST_USE enum mp_err mp_topic_put_interest(struct mp_topic *t, struct mp_buf *out);
/* Whether anybody would get a message of that topic if it were published here. False also for what
 * is no topic. */
bool mp_topic_is_wanted(struct mp_topic *t, struct mp_slice topic);
struct mp_topic_stats mp_topic_get_stats(const struct mp_topic *t);
/* Any of the subscriptions that are in force; false if there is none. */
bool mp_topic_any_subscription(const struct mp_topic *t, uint64_t *client, uint64_t *id);
