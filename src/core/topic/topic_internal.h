/* What the files of the machine for topics share.
 *
 *   topic.c       its life, steps, the timer
 *   trie.c        patterns by words; which receivers match a topic
 *   cache.c       what the trie said of topics lately
 *   queue.c       a receiver's queue: batches of messages, ready to be sent
 *   sink.c        receivers: what each has heard, what it lost; what leaves the queues
 *   subscribe.c   clients and their subscriptions
 *   group.c       functions and members: receivers with many patterns
 *   publish.c     messages of this node and of others: checked, and given to who matches
 *   index.c       what is found by a name or number
 *   record.c      messages in memory, and putting several lists of them in order
 *   backlog.c     what is kept of each topic
 *   keep.c        what is written down of it
 *   gather.c      subscriptions that begin with what is kept
 *   interest.c    what others are told that is wanted here
 *
 * Receivers ("sinks") are reached by pointers that stay valid while they live. A step's effects
 * point into queues; what they point to is let go of when the next step begins. */
#pragma once

#include "src/base/assert.h"
#include "src/base/map.h"
#include "src/core/topic/topic.h"

#define MP_TOPIC_NONE         UINT32_MAX
#define MP_TOPIC_HEADER_BYTES 5u /* of the largest header of an array */
#define MP_TOPIC_OWN          0u /* the publisher that is this node */

struct mp_topic_sink;
struct mp_topic_gather;
struct mp_topic_heard;
struct mp_topic_message;

/* --- lists --- */

/* A ring of links around its head: what is in it knows its own place. */
struct mp_topic_link {
    struct mp_topic_link *prev;
    struct mp_topic_link *next;
};

static inline void mp_topic_list_init(struct mp_topic_link *head)
{
    head->prev = head->next = head;
}

static inline bool mp_topic_list_is_empty(const struct mp_topic_link *head)
{
    return head->next == head;
}

static inline void mp_topic_list_add(struct mp_topic_link *head, struct mp_topic_link *link)
{
    *link = (struct mp_topic_link){.prev = head->prev, .next = head};
    head->prev->next = link;
    head->prev = link;
}

/* Nothing if it is in no list. */
static inline void mp_topic_list_remove(struct mp_topic_link *link)
{
    if (!link->next)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    *link = (struct mp_topic_link){0};
}

/* The structure that a link is in. */
#define MP_TOPIC_OF(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* --- index.c --- */

/* Things by keys that are part of them. */
struct mp_topic_index {
    struct mp_map map; /* key → place in items */
    void **items;
    uint32_t capacity;
};

/* Doubles an array of items of `size` bytes until it has room for `wanted`. */
MP_MUST_USE enum mp_err mp_topic_grow(struct mp_alloc *a, void **array, uint32_t *capacity,
                                      uint32_t wanted, size_t size);
void mp_topic_index_init(struct mp_topic_index *x, struct mp_alloc *a);
void mp_topic_index_fini(struct mp_topic_index *x);
/* NULL: there is none. */
void *mp_topic_index_find(const struct mp_topic_index *x, struct mp_slice key);
/* The key is not there yet, and stays where it is. */
MP_MUST_USE enum mp_err mp_topic_index_add(struct mp_topic_index *x, struct mp_slice key,
                                           void *item);
/* The key is there. */
void mp_topic_index_remove(struct mp_topic_index *x, struct mp_slice key);

/* --- trie.c --- */

/* That a receiver has a pattern. */
struct mp_topic_entry {
    struct mp_topic_link link; /* of those at the same node, in the order in which they came */
    struct mp_topic_sink *sink;
    uint32_t node;
    bool is_fresh; /* while a group's patterns are exchanged */
};

struct mp_topic_node {
    struct mp_topic_link entries;
    struct mp_topic_link client_link; /* of the nodes that clients' subscriptions end at */
    uint64_t mark;                    /* it is in the set that is being made */
    uint32_t parent;
    uint32_t word;
    uint32_t star; /* child for `*`; MP_TOPIC_NONE: none */
    uint32_t hash; /* child for `#` */
    uint32_t literals;
    uint32_t clients; /* entries of clients' subscriptions */
};

struct mp_topic_word {
    uint8_t *bytes; /* NULL: its place is free, and `refs` the next free one */
    uint32_t size;
    uint32_t refs;
};

/* From a node by a word to a child. */
struct mp_topic_edge {
    uint32_t node; /* MP_TOPIC_NONE: empty */
    uint32_t word;
    uint32_t child;
};

struct mp_topic_trie {
    struct mp_topic_node **nodes; /* NULL: the place is free */
    uint32_t node_count;          /* places in use or free */
    uint32_t node_capacity;
    uint32_t *free_nodes; /* room for all */
    uint32_t free_node_count;
    uint32_t free_node_capacity;
    struct mp_topic_word *words;
    uint32_t word_count;
    uint32_t word_capacity;
    uint32_t word_free;
    struct mp_map by_word;
    struct mp_topic_edge *edges;
    uint32_t edge_count;
    uint32_t edge_slots; /* a power of two, more than twice as many as edges */
    uint32_t *sets[2];   /* nodes that the words so far lead to: room for all of them */
    uint32_t set_capacity[2];
    uint64_t mark;
    uint32_t entry_count;
    struct mp_topic_sink **matches; /* room for all entries: matching never fails */
    uint32_t match_capacity;
    uint64_t match_mark;
    uint64_t generation;          /* of the entries: each change is a new one */
    struct mp_topic_link clients; /* nodes that clients' subscriptions end at */
    uint32_t client_nodes;
    size_t client_bytes; /* of their patterns */
};

void mp_topic_trie_init(struct mp_topic *t);
void mp_topic_trie_fini(struct mp_topic *t);
/* Puts an entry, whose sink is set, under a pattern that has been checked. MP_EFULL, MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_topic_trie_add(struct mp_topic *t, struct mp_slice pattern,
                                          struct mp_topic_entry *e);
void mp_topic_trie_remove(struct mp_topic *t, struct mp_topic_entry *e);
/* Fills trie.matches with the receivers of a topic (one that has been checked), each once, and
 * returns how many there are. */
uint32_t mp_topic_trie_match(struct mp_topic *t, struct mp_slice topic);
/* Writes the pattern of a node into `room` of MP_TOPIC_BYTES_MAX, and returns its size. */
size_t mp_topic_trie_pattern(const struct mp_topic_trie *r, uint32_t node, uint8_t *room);

/* --- cache.c --- */

struct mp_topic_cached {
    struct mp_topic_sink **sinks; /* followed by the topic's bytes; NULL: empty */
    uint32_t count;
    uint32_t topic_size;
    uint64_t hash;
    uint64_t generation;
    uint64_t used_at;
};

struct mp_topic_cache {
    struct mp_topic_cached *slots; /* NULL before the first use */
    uint32_t total;                /* of all counts */
    uint64_t uses;
    struct mp_topic_cached *last;
};

struct mp_topic_matches {
    struct mp_topic_sink *const *sinks;
    uint32_t count;
};

void mp_topic_cache_fini(struct mp_topic *t);
/* Who gets a topic. `hash` is mp_slice_hash(topic, 0). False: it is not known (any more). */
bool mp_topic_cache_find(struct mp_topic *t, struct mp_slice topic, uint64_t hash,
                         struct mp_topic_matches *m);
/* The same of a topic that has been checked, whether it was known or not. Valid until another topic
 * is asked for, or a pattern comes or goes. */
struct mp_topic_matches mp_topic_matches_of(struct mp_topic *t, struct mp_slice topic);

/* --- queue.c --- */

/* Messages of one publisher in a queue, one behind the other, behind room for the header of an
 * array. Starts at a multiple of 8. */
struct mp_topic_batch {
    uint32_t publisher;
    uint32_t count;
    uint64_t bytes;
    uint64_t dropped;     /* ahead of the first */
    uint64_t after_seq;   /* the last one before it, or before those dropped */
    uint64_t dropped_seq; /* the last one that was dropped */
    uint64_t dropped_at;  /* it was published then, or earlier */
};

struct mp_topic_queue {
    struct mp_buf buf;
    size_t head;       /* where the first batch begins */
    size_t open;       /* the last batch, to which more may be added; SIZE_MAX: none */
    uint32_t messages; /* in all */
    size_t bytes;
};

/* Buffers that were used and may be used again. */
#define MP_TOPIC_SPARE_MAX   64
#define MP_TOPIC_SPARE_BYTES (4u << 20) /* of all; more: freed */

struct mp_topic_spare {
    struct {
        uint8_t *data;
        size_t capacity;
    } items[MP_TOPIC_SPARE_MAX];
    uint32_t count;
    size_t bytes;
};

void mp_topic_queue_init(struct mp_topic_queue *q, struct mp_topic *t);
/* Drops what is in it; its buffer may be used by another one. */
void mp_topic_queue_clear(struct mp_topic_queue *q, struct mp_topic *t);
static inline bool mp_topic_queue_is_empty(const struct mp_topic_queue *q)
{
    return q->head == q->buf.size;
}

/* Begins a batch as `like` says (its count and bytes are 0), with room for `bytes` of messages. */
MP_MUST_USE enum mp_err mp_topic_queue_begin(struct mp_topic_queue *q, struct mp_topic *t,
                                             const struct mp_topic_batch *like, size_t bytes);
/* The batch that is open, or NULL. */
static inline struct mp_topic_batch *mp_topic_queue_open(const struct mp_topic_queue *q)
{
    return q->open == SIZE_MAX ? NULL : (struct mp_topic_batch *)(void *)(q->buf.data + q->open);
}

/* Adds a message to the open batch. */
MP_MUST_USE enum mp_err mp_topic_queue_put(struct mp_topic_queue *q, struct mp_topic *t,
                                           struct mp_slice message);
/* The first batch of a queue that is not empty; *messages are those in it, without a header. */
struct mp_topic_batch *mp_topic_queue_first(const struct mp_topic_queue *q,
                                            struct mp_slice *messages);
/* Takes the first batch off; its bytes stay where they are until the queue is tidied. Returns them
 * as an array. */
struct mp_slice mp_topic_queue_take(struct mp_topic_queue *q, struct mp_topic *t);
/* Lets go of what was taken. */
void mp_topic_queue_tidy(struct mp_topic_queue *q, struct mp_topic *t);
/* Leaves out what has come by gathering already, and what was dropped but has come so. */
void mp_topic_queue_leave_out(struct mp_topic_queue *q, struct mp_topic *t,
                              struct mp_topic_heard *h);
void mp_topic_spare_fini(struct mp_topic *t);
/* Writes the header of an array so that it ends at `end`; returns where it begins. */
uint8_t *mp_topic_put_header(uint8_t *end, uint32_t count);

/* --- sink.c --- */

enum mp_topic_sink_kind { MP_TOPIC_SINK_CLIENT, MP_TOPIC_SINK_FUNCTION, MP_TOPIC_SINK_MEMBER };

/* What a receiver has got of a publisher. */
struct mp_topic_heard {
    uint32_t publisher;
    uint32_t queued;      /* batches in its queue */
    uint64_t last_seq;    /* the last that was queued or delivered */
    uint64_t dropped;     /* since then, and not told yet */
    uint64_t after_seq;   /* what they came after */
    uint64_t dropped_seq; /* the last of them */
    uint64_t dropped_at;  /* it was published then, or earlier */
    uint64_t joined_seq;  /* the last that came by gathering: what comes of it or earlier is left */
    uint64_t joined_at;   /* out, until something later comes; 0: nothing did */
    uint64_t heard_at;    /* the step */
};

struct mp_topic_client {
    uint64_t number;
    struct mp_topic_link link; /* of t->clients */
    struct mp_topic_link sinks;
    bool is_blocked;
    uint64_t turn; /* the step in which it was given `given` bytes */
    size_t given;
};

struct mp_topic_sink {
    enum mp_topic_sink_kind kind;
    struct mp_topic_queue queue;
    uint32_t messages_max;
    uint32_t gaps;                /* publishers of which something dropped is to be told */
    struct mp_topic_heard *heard; /* by publisher */
    uint32_t heard_count;
    uint32_t heard_capacity;
    uint32_t heard_last;        /* where the last one was found */
    uint64_t mark;              /* it matches the topic that is being looked up */
    struct mp_topic_link dirty; /* of those that may have something to give away */
    struct mp_topic_link spent; /* of those that gave something away in this step */
    /* of a subscription */
    struct mp_topic_client *client;
    uint64_t key[2]; /* client, id */
    struct mp_topic_link of_client;
    struct mp_topic_entry entry;
    struct mp_topic_gather *gather; /* while it is gathered, and while that goes out */
    /* of a member */
    bool is_forwarding;
    bool is_lost; /* the last FORWARD was, and nothing has come since */
    struct mp_topic_batch flying;
};

void mp_topic_sink_init(struct mp_topic_sink *s, enum mp_topic_sink_kind kind, struct mp_topic *t);
void mp_topic_sink_fini(struct mp_topic_sink *s, struct mp_topic *t);
/* Queues a message for a receiver, or drops it. */
void mp_topic_sink_give(struct mp_topic *t, struct mp_topic_sink *s, uint32_t publisher,
                        const struct mp_topic_message *m);
/* That messages of a publisher did not come this far, none later than dropped_seq and dropped_at.
 */
void mp_topic_sink_miss(struct mp_topic *t, struct mp_topic_sink *s, uint32_t publisher,
                        const struct mp_topic_batch *lost);
/* What is known of a publisher, made if there is nothing yet; NULL: no memory. */
struct mp_topic_heard *mp_topic_sink_heard(struct mp_topic *t, struct mp_topic_sink *s,
                                           uint32_t publisher);
/* Whether what was dropped had come by gathering. By seq alone it may be of a publisher that began
 * anew since: those are later. */
static inline bool mp_topic_is_gathered(uint64_t seq, uint64_t at_ms,
                                        const struct mp_topic_heard *h)
{
    return seq <= h->joined_seq && at_ms <= h->joined_at;
}
/* It may have something to give away. */
static inline void mp_topic_sink_wake(struct mp_topic_sink *s, struct mp_topic_link *dirty)
{
    if (!s->dirty.next)
        mp_topic_list_add(dirty, &s->dirty);
}

/* Gives away what may go, at the end of a step. */
void mp_topic_flush(struct mp_topic *t, mp_time now);
/* Lets go of what the effects of the last step pointed to. */
void mp_topic_tidy(struct mp_topic *t);
/* A FORWARD has ended. */
void mp_topic_sink_acked(struct mp_topic *t, struct mp_topic_sink *s, bool is_lost);

/* --- record.c --- */

/* A message in memory: `size` bytes follow, then up to 7 to a multiple of 8. */
struct mp_topic_record {
    uint64_t seq;
    uint64_t at_ms;
    uint64_t size;
};

static inline size_t mp_topic_record_bytes(size_t size)
{
    return sizeof(struct mp_topic_record) + ((size + 7) & ~(size_t)7);
}

/* A list of records in ascending order, which may lie in two pieces. */
struct mp_topic_cursor {
    struct mp_slice pieces[2];
    uint32_t publisher;
    struct mp_slice name; /* of the publisher: orders messages of the same time */
};

/* Several lists, as one in the order of (at, publisher, seq). */
struct mp_topic_merge {
    struct mp_topic_cursor *cursors; /* a heap: the least first */
    uint32_t count;
    uint32_t capacity;
    struct mp_alloc *alloc;
};

void mp_topic_merge_init(struct mp_topic_merge *m, struct mp_alloc *a);
void mp_topic_merge_fini(struct mp_topic_merge *m);
/* Adds a list; an empty one is passed over. */
MP_MUST_USE enum mp_err mp_topic_merge_add(struct mp_topic_merge *m,
                                           const struct mp_topic_cursor *c);
/* The next record and whose it is; NULL: none is left. */
const struct mp_topic_record *mp_topic_merge_peek(const struct mp_topic_merge *m,
                                                  uint32_t *publisher);
void mp_topic_merge_pass(struct mp_topic_merge *m);
static inline struct mp_slice mp_topic_record_message(const struct mp_topic_record *r)
{
    return mp_slice_of(r + 1, (size_t)r->size);
}

/* Writes a record to `out`, which has room for mp_topic_record_bytes. */
void mp_topic_record_write(uint8_t *out, const struct mp_topic_message *m);

/* --- publish.c --- */

/* A message as it was read. */
struct mp_topic_message {
    struct mp_slice bytes; /* [topic, seq, at, data]; of PUBLISH at first [topic, data] */
    struct mp_slice topic;
    struct mp_slice data;
    uint64_t seq;
    uint64_t at_ms;
};

struct mp_topic_publisher {
    uint32_t number;
    uint32_t refs; /* what knows of it, and this step */
    uint32_t size;
    uint8_t name[];
};

MP_MUST_USE enum mp_err mp_topic_publish(struct mp_topic *t, mp_time now,
                                         const struct mp_topic_event *ev);
MP_MUST_USE enum mp_err mp_topic_receive(struct mp_topic *t, const struct mp_topic_event *ev);
/* Reads an array of messages into t->messages: topics are names, seqs ascend from above `after`.
 * MP_ECORRUPT: they are not what they should be. */
MP_MUST_USE enum mp_err mp_topic_read_messages(struct mp_topic *t, struct mp_slice array,
                                               uint64_t after);
/* One message; MP_ECORRUPT. */
MP_MUST_USE enum mp_err mp_topic_read_message(struct mp_slice bytes, struct mp_topic_message *m);
/* The number of a publisher, which is made if there is none; the caller lets go of it. */
MP_MUST_USE enum mp_err mp_topic_publisher_take(struct mp_topic *t, struct mp_slice name,
                                                uint32_t *number);
void mp_topic_publisher_release(struct mp_topic *t, uint32_t number);
static inline struct mp_slice mp_topic_publisher_name(const struct mp_topic_publisher *p)
{
    return mp_slice_of(p->name, p->size);
}

/* --- backlog.c --- */

/* What is kept of a topic: records in a ring. They lie in [head, tail), or, once it is wrapped, in
 * [head, limit) and [0, tail). */
struct mp_topic_ring {
    struct mp_topic_link link;  /* of all, the least recently published first */
    struct mp_topic_link dirty; /* of those with something to keep or to forget */
    mp_time published_at;
    uint8_t *data;
    size_t capacity;
    size_t head;
    size_t tail;
    size_t limit;
    bool is_wrapped;
    uint32_t count;
    size_t bytes;
    uint64_t last_seq;
    uint64_t kept_seq;   /* handed out to be kept up to here */
    uint64_t forget_seq; /* to be forgotten up to here; 0: nothing */
    uint32_t topic_size;
    uint8_t topic[];
};

struct mp_topic_backlog {
    struct mp_topic_link rings;
    struct mp_topic_index by_topic;
    struct mp_topic_ring *last; /* that was found */
    size_t bytes;               /* of all rings */
    struct mp_topic_link dirty;
    mp_time keep_at;
    mp_time kept_last;
    bool is_keeping; /* a KEEP is under way */
    struct mp_buf keep;
    struct mp_buf forget; /* what a FORGET says */
    struct mp_buf gone;   /* [topic, seq] of topics that are gone, for the next one */
    uint32_t gone_count;
};

void mp_topic_backlog_init(struct mp_topic *t);
void mp_topic_backlog_fini(struct mp_topic *t);
/* Keeps a message of this node; without memory it is not kept. is_kept: it is written down already.
 */
void mp_topic_backlog_add(struct mp_topic *t, mp_time now, uint64_t wall_ms,
                          const struct mp_topic_message *m, bool is_kept);
/* Makes t->answer the array of what is kept, matches, and is not older than since_ms. */
MP_MUST_USE enum mp_err mp_topic_backlog_query(struct mp_topic *t, struct mp_slice pattern,
                                               uint64_t since_ms, uint64_t wall_ms,
                                               struct mp_slice *array);
/* Lets topics go that nothing was published to for so long. */
void mp_topic_backlog_expire(struct mp_topic *t, mp_time now);
mp_time mp_topic_backlog_deadline(const struct mp_topic *t);
/* The oldest record of a ring that is not empty; the next one, NULL behind the last. */
const struct mp_topic_record *mp_topic_ring_first(const struct mp_topic_ring *g);
const struct mp_topic_record *mp_topic_ring_next(const struct mp_topic_ring *g,
                                                 const struct mp_topic_record *r);

/* --- keep.c --- */

/* Something of a topic is to be kept or to be forgotten. */
void mp_topic_keep_wake(struct mp_topic *t, struct mp_topic_ring *g, mp_time now);
/* A topic goes: what is kept of it is to be forgotten. */
void mp_topic_keep_gone(struct mp_topic *t, struct mp_topic_ring *g, mp_time now);
/* A KEEP has ended. */
void mp_topic_kept(struct mp_topic *t, mp_time now);
MP_MUST_USE enum mp_err mp_topic_restore(struct mp_topic *t, mp_time now,
                                         const struct mp_topic_event *ev);
/* Hands out what is due. */
void mp_topic_keep_run(struct mp_topic *t, mp_time now);

/* --- gather.c --- */

struct mp_topic_part {
    uint32_t publisher;
    struct mp_buf records;
    uint64_t last_seq;
    uint64_t last_at;
    uint64_t left_out; /* messages that were too much */
};

struct mp_topic_gather {
    struct mp_topic_link link; /* of those that wait for answers; of those that are over */
    uint64_t number;
    mp_time deadline;
    bool is_joined; /* what came goes out */
    struct mp_topic_sink *sink;
    uint64_t since_ms;
    struct mp_topic_part *parts;
    uint32_t part_count;
    uint32_t part_capacity;
    size_t bytes;
    struct mp_topic_merge merge;
    struct mp_topic_queue queue;
    uint32_t pattern_size;
    uint8_t pattern[];
};

/* Begins for a new subscription; GATHER is among the effects. */
MP_MUST_USE enum mp_err mp_topic_gather_new(struct mp_topic *t, mp_time now,
                                            const struct mp_topic_event *ev,
                                            struct mp_topic_sink *s);
void mp_topic_gather_free(struct mp_topic *t, struct mp_topic_gather *g);
MP_MUST_USE enum mp_err mp_topic_gathered(struct mp_topic *t, const struct mp_topic_event *ev);
MP_MUST_USE enum mp_err mp_topic_gather_end(struct mp_topic *t, uint64_t number);
/* Those that have waited for long enough go on with what they have. */
void mp_topic_gather_expire(struct mp_topic *t, mp_time now);
/* Queues about `bytes` of what was gathered, whose queue is empty. MP_ENOENT: nothing is left;
 * MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_topic_gather_pour(struct mp_topic *t, struct mp_topic_gather *g,
                                             size_t bytes);

/* --- group.c --- */

struct mp_topic_group {
    struct mp_topic_sink sink;
    uint32_t number;
    struct mp_topic_entry **entries; /* in the order of the patterns */
    uint32_t count;
    struct mp_buf patterns; /* the array as it came */
};

/* A member's interest because it asked for a backlog. */
struct mp_topic_asked {
    struct mp_topic_link link; /* by `until` */
    struct mp_topic_entry entry;
    mp_time until;
};

struct mp_topic_groups {
    struct mp_topic_group **items; /* by number */
    uint32_t capacity;
    enum mp_topic_sink_kind kind;
};

void mp_topic_groups_fini(struct mp_topic *t, struct mp_topic_groups *all);
MP_MUST_USE enum mp_err mp_topic_group_set(struct mp_topic *t, struct mp_topic_groups *all,
                                           uint32_t number, struct mp_slice patterns);
/* NULL: there is none. */
struct mp_topic_group *mp_topic_group_of(const struct mp_topic_groups *all, uint32_t number);
MP_MUST_USE enum mp_err mp_topic_asked(struct mp_topic *t, mp_time now,
                                       const struct mp_topic_event *ev);
void mp_topic_asked_expire(struct mp_topic *t, mp_time now);
void mp_topic_member_gone(struct mp_topic *t, uint32_t number);

/* --- the machine --- */

struct mp_topic {
    struct mp_alloc *alloc;
    bool is_kept;
    uint64_t seq;
    uint64_t at_ms;
    uint64_t steps;
    uint32_t room; /* messages that functions take */
    struct mp_topic_stats stats;
    struct mp_topic_trie trie;
    struct mp_topic_cache cache;
    struct mp_topic_spare spare;
    size_t queued_bytes; /* in all queues */
    struct mp_topic_link dirty;
    struct mp_topic_link starved; /* functions that wait for ROOM */
    struct mp_topic_link spent;
    mp_time flush_at;  /* something is left to give away */
    mp_time retell_at; /* a member is to hear again what it lost */
    struct mp_topic_link clients;
    struct mp_topic_index by_client; /* number → client */
    struct mp_topic_index by_key;    /* (client, id) → subscription */
    struct mp_topic_groups functions;
    struct mp_topic_groups members;
    struct mp_topic_link asked;
    uint32_t asked_count;
    struct mp_topic_publisher **publishers; /* by number; NULL: free */
    uint32_t publisher_count;
    uint32_t publisher_capacity;
    struct mp_topic_index by_publisher;
    struct mp_topic_message *messages; /* of this step */
    uint32_t message_count;
    uint32_t message_capacity;
    struct mp_buf encoded;
    struct mp_topic_backlog backlog;
    struct mp_buf answer;
    struct mp_topic_link gathers;      /* that wait for answers, by deadline */
    struct mp_topic_link gathers_over; /* to be freed when the next step begins */
    uint32_t gather_count;
    uint64_t gather_number;
    size_t gathered_bytes;
    struct mp_topic_effect *effects;
    uint32_t effect_count;
    uint32_t effect_capacity;
    bool is_interest_changed;
    uint32_t bad_index;
    struct mp_slice answered;
    char message[256];
};

/* --- topic.c --- */

/* Makes room for that many effects. */
MP_MUST_USE enum mp_err mp_topic_effects_reserve(struct mp_topic *t, uint32_t count);
/* Adds an effect; NULL: no memory. */
struct mp_topic_effect *mp_topic_effect(struct mp_topic *t, enum mp_topic_effect_kind kind);
/* Checks a pattern; t->message says what is wrong. */
MP_MUST_USE enum mp_err mp_topic_check_pattern(struct mp_topic *t, struct mp_slice pattern);

/* --- subscribe.c --- */

MP_MUST_USE enum mp_err mp_topic_subscribe(struct mp_topic *t, mp_time now,
                                           const struct mp_topic_event *ev);
MP_MUST_USE enum mp_err mp_topic_unsubscribe(struct mp_topic *t, const struct mp_topic_event *ev);
void mp_topic_client_gone(struct mp_topic *t, uint64_t number);
MP_MUST_USE enum mp_err mp_topic_client_blocked(struct mp_topic *t, uint64_t number);
void mp_topic_client_ready(struct mp_topic *t, uint64_t number);
void mp_topic_clients_fini(struct mp_topic *t);
