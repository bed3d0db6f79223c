/* The machine's life and its steps. A step lets go of what the effects of the last one pointed to,
 * does what is due, takes its event, and gives away what may go. Nothing that is due waits for
 * TIMER alone: any step will do. */
#include "src/core/topic/topic.h"

#include "src/core/topic/topic_internal.h"
#include "src/wire/topic.h"

/* --- life --- */

enum mp_err mp_topic_new(struct mp_topic **own_out, const struct mp_topic_config *cfg,
                         struct mp_alloc *a)
{
    uint32_t own;
    if (!mp_slice_is_name(cfg->node) || cfg->node.size > MP_NODE_NAME_BYTES_MAX)
        return MP_EINVAL;
    struct mp_topic *t = mp_alloc_take(a, sizeof(*t));
    if (!t)
        return MP_ENOMEM;
    *t = (struct mp_topic){.alloc = a,
                           .is_kept = cfg->is_kept,
                           .room = cfg->room,
                           .flush_at = MP_NEVER,
                           .retell_at = MP_NEVER};
    struct mp_topic_link *lists[] = {&t->dirty, &t->starved, &t->spent,       &t->clients,
                                     &t->asked, &t->gathers, &t->gathers_over};
    for (uint32_t i = 0; i < MP_ARRAY_SIZE(lists); i++)
        mp_topic_list_init(lists[i]);
    mp_topic_trie_init(t);
    mp_topic_backlog_init(t);
    mp_topic_index_init(&t->by_client, a);
    mp_topic_index_init(&t->by_key, a);
    mp_topic_index_init(&t->by_publisher, a);
    t->functions.kind = MP_TOPIC_SINK_FUNCTION;
    t->members.kind = MP_TOPIC_SINK_MEMBER;
    mp_buf_init(&t->encoded, a, 0);
    mp_buf_init(&t->answer, a, 0);
    enum mp_err err = mp_topic_publisher_take(t, cfg->node, &own);
    if (err != MP_OK) {
        mp_topic_free(t);
        return err;
    }
    mp_assert(own == MP_TOPIC_OWN);
    *own_out = t;
    return MP_OK;
}

void mp_topic_free(struct mp_topic *t)
{
    if (!t)
        return;
    struct mp_alloc *a = t->alloc;
    mp_topic_tidy(t);
    mp_topic_clients_fini(t);
    mp_topic_groups_fini(t, &t->functions);
    mp_topic_groups_fini(t, &t->members);
    mp_assert(t->queued_bytes == 0 && t->gather_count == 0 && t->asked_count == 0);
    mp_topic_trie_fini(t);
    mp_topic_cache_fini(t);
    mp_topic_spare_fini(t);
    mp_topic_backlog_fini(t);
    if (t->publisher_count != 0)
        mp_topic_publisher_release(t, MP_TOPIC_OWN);
    mp_alloc_free(a, t->publishers, t->publisher_capacity * sizeof(struct mp_topic_publisher *));
    mp_topic_index_fini(&t->by_publisher);
    mp_alloc_free(a, t->messages, t->message_capacity * sizeof(*t->messages));
    mp_buf_fini(&t->encoded);
    mp_buf_fini(&t->answer);
    mp_alloc_free(a, t->effects, t->effect_capacity * sizeof(*t->effects));
    mp_alloc_free(a, t, sizeof(*t));
}

/* --- effects --- */

enum mp_err mp_topic_effects_reserve(struct mp_topic *t, uint32_t count)
{
    return mp_topic_grow(t->alloc, (void **)&t->effects, &t->effect_capacity,
                         t->effect_count + count, sizeof(*t->effects));
}

struct mp_topic_effect *mp_topic_effect(struct mp_topic *t, enum mp_topic_effect_kind kind)
{
    if (mp_topic_effects_reserve(t, 1) != MP_OK)
        return NULL;
    struct mp_topic_effect *e = &t->effects[t->effect_count++];
    *e = (struct mp_topic_effect){.kind = kind};
    return e;
}

enum mp_err mp_topic_check_pattern(struct mp_topic *t, struct mp_slice pattern)
{
    struct mp_text message;
    mp_text_init(&message, t->message, sizeof(t->message));
    return mp_topic_pattern_check(pattern, &message);
}

/* --- steps --- */

static void set_room(struct mp_topic *t, uint32_t room)
{
    t->room = room;
    while (room != 0 && !mp_topic_list_is_empty(&t->starved)) {
        struct mp_topic_link *l = t->starved.next;
        mp_topic_list_remove(l);
        mp_topic_list_add(&t->dirty, l);
    }
}

static void acked(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    struct mp_topic_group *g = mp_topic_group_of(&t->members, ev->member);
    if (!g)
        return;
    mp_topic_sink_acked(t, &g->sink, ev->is_lost);
    if (g->sink.is_lost)
        t->retell_at = mp_time_earlier(t->retell_at, mp_time_add(now, MP_MS(MP_TOPIC_RETELL_MS)));
}

/* Members that have not heard what they lost, for nothing came after it. */
static void retell(struct mp_topic *t, mp_time now)
{
    if (now < t->retell_at)
        return;
    t->retell_at = MP_NEVER;
    for (uint32_t i = 0; i < t->members.capacity; i++) {
        struct mp_topic_group *g = t->members.items[i];
        if (!g || !g->sink.is_lost)
            continue;
        g->sink.is_lost = false;
        mp_topic_sink_wake(&g->sink, &t->dirty);
    }
}

/* Of clients. */
static enum mp_err take_client(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    switch (ev->kind) {
    case MP_TOPIC_SUBSCRIBE:
        return mp_topic_subscribe(t, now, ev);
    case MP_TOPIC_UNSUBSCRIBE:
        return mp_topic_unsubscribe(t, ev);
    case MP_TOPIC_CLIENT_GONE:
        mp_topic_client_gone(t, ev->client);
        return MP_OK;
    case MP_TOPIC_BLOCKED:
        return mp_topic_client_blocked(t, ev->client);
    default:
        mp_assert(ev->kind == MP_TOPIC_READY);
        mp_topic_client_ready(t, ev->client);
        return MP_OK;
    }
}

static enum mp_err take(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    switch (ev->kind) {
    case MP_TOPIC_FUNCTION:
        mp_assert(ev->function.function < MP_TOPIC_FUNCTIONS_MAX);
        return mp_topic_group_set(t, &t->functions, ev->function.function, ev->function.patterns);
    case MP_TOPIC_ROOM:
        set_room(t, ev->room);
        return MP_OK;
    case MP_TOPIC_PUBLISH:
        return mp_topic_publish(t, now, ev);
    case MP_TOPIC_RECEIVE:
        return mp_topic_receive(t, ev);
    case MP_TOPIC_INTEREST:
        mp_assert(ev->member < MP_TOPIC_MEMBER_NUMBERS_MAX);
        return mp_topic_group_set(t, &t->members, ev->member, ev->interest);
    case MP_TOPIC_ACKED:
        acked(t, now, ev);
        return MP_OK;
    case MP_TOPIC_MEMBER_GONE:
        mp_topic_member_gone(t, ev->member);
        return MP_OK;
    case MP_TOPIC_BACKLOG_ASKED:
        mp_assert(ev->member < MP_TOPIC_MEMBER_NUMBERS_MAX);
        return mp_topic_asked(t, now, ev);
    case MP_TOPIC_GATHERED:
        return mp_topic_gathered(t, ev);
    case MP_TOPIC_GATHER_END:
        return mp_topic_gather_end(t, ev->gather_end);
    case MP_TOPIC_RESTORED:
        return mp_topic_restore(t, now, ev);
    case MP_TOPIC_KEPT:
        mp_topic_kept(t, now);
        return MP_OK;
    case MP_TOPIC_TIMER:
        return MP_OK;
    default:
        return take_client(t, now, ev);
    }
}

enum mp_err mp_topic_step(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev,
                          struct mp_topic_effects *out)
{
    t->steps++;
    t->effect_count = 0;
    t->is_interest_changed = false;
    t->bad_index = 0;
    t->message_count = 0;
    t->message[0] = '\0';
    t->answered = (struct mp_slice){0};
    mp_topic_tidy(t);
    mp_topic_gather_expire(t, now);
    mp_topic_asked_expire(t, now);
    mp_topic_backlog_expire(t, now);
    retell(t, now);
    enum mp_err err = take(t, now, ev);
    mp_topic_flush(t, now);
    mp_topic_keep_run(t, now);
    *out = (struct mp_topic_effects){
        .items = t->effects,
        .count = t->effect_count,
        .is_interest_changed = t->is_interest_changed,
        .seq = t->seq,
        .published = ev->kind == MP_TOPIC_PUBLISH && err == MP_OK ? t->message_count : 0,
        .bad_index = t->bad_index,
        .message = err == MP_EINVAL ? t->message : "",
        .upto_seq = t->seq,
        .answer = t->answered,
    };
    return err;
}

bool mp_topic_is_unwanted(const struct mp_topic *t)
{
    return t->trie.entry_count == 0;
}

uint64_t mp_topic_generation(const struct mp_topic *t)
{
    return t->trie.generation;
}

mp_time mp_topic_deadline(const struct mp_topic *t)
{
    mp_time at = mp_time_earlier(t->flush_at, mp_topic_backlog_deadline(t));
    at = mp_time_earlier(mp_time_earlier(at, t->backlog.keep_at), t->retell_at);
    if (!mp_topic_list_is_empty(&t->gathers))
        at = mp_time_earlier(at,
                             MP_TOPIC_OF(t->gathers.next, struct mp_topic_gather, link)->deadline);
    if (!mp_topic_list_is_empty(&t->asked))
        at = mp_time_earlier(at, MP_TOPIC_OF(t->asked.next, struct mp_topic_asked, link)->until);
    return at;
}

struct mp_topic_stats mp_topic_get_stats(const struct mp_topic *t)
{
    struct mp_topic_stats s = t->stats;
    s.subscriptions = t->by_key.map.count;
    s.topics = t->backlog.by_topic.map.count;
    s.queued_bytes = (uint32_t)t->queued_bytes;
    s.backlog_bytes = (uint32_t)t->backlog.bytes;
    return s;
}
