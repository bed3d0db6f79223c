/* Clients and their subscriptions. A client is known while it has any, or while its connection
 * takes nothing: who subscribes then has to wait as well. */
#include "src/core/topic/topic_internal.h"

static struct mp_slice number_key(const uint64_t *number)
{
    return mp_slice_of(number, sizeof(*number));
}

static struct mp_slice sink_key(const struct mp_topic_sink *s)
{
    return mp_slice_of(s->key, sizeof(s->key));
}

/* --- clients --- */

static struct mp_topic_client *client_of(const struct mp_topic *t, uint64_t number)
{
    return mp_topic_index_find(&t->by_client, number_key(&number));
}

static enum mp_err client_new(struct mp_topic *t, uint64_t number, struct mp_topic_client **out)
{
    struct mp_topic_client *c = mp_alloc_take(t->alloc, sizeof(*c));
    if (!c)
        return MP_ENOMEM;
    *c = (struct mp_topic_client){.number = number};
    mp_topic_list_init(&c->sinks);
    enum mp_err err = mp_topic_index_add(&t->by_client, number_key(&c->number), c);
    if (err != MP_OK) {
        mp_alloc_free(t->alloc, c, sizeof(*c));
        return err;
    }
    mp_topic_list_add(&t->clients, &c->link);
    *out = c;
    return MP_OK;
}

/* Forgets a client that nothing is to be known of. */
static void client_release(struct mp_topic *t, struct mp_topic_client *c)
{
    if (c->is_blocked || !mp_topic_list_is_empty(&c->sinks))
        return;
    mp_topic_list_remove(&c->link);
    mp_topic_index_remove(&t->by_client, number_key(&c->number));
    mp_alloc_free(t->alloc, c, sizeof(*c));
}

enum mp_err mp_topic_client_blocked(struct mp_topic *t, uint64_t number)
{
    struct mp_topic_client *c = client_of(t, number);
    if (!c)
        MP_TRY(client_new(t, number, &c));
    c->is_blocked = true;
    return MP_OK;
}

void mp_topic_client_ready(struct mp_topic *t, uint64_t number)
{
    struct mp_topic_client *c = client_of(t, number);
    if (!c)
        return;
    c->is_blocked = false;
    for (struct mp_topic_link *l = c->sinks.next; l != &c->sinks; l = l->next)
        mp_topic_sink_wake(MP_TOPIC_OF(l, struct mp_topic_sink, of_client), &t->dirty);
    client_release(t, c);
}

/* --- subscriptions --- */

static void sink_free(struct mp_topic *t, struct mp_topic_sink *s)
{
    mp_topic_trie_remove(t, &s->entry);
    if (s->gather)
        mp_topic_gather_free(t, s->gather);
    mp_topic_list_remove(&s->of_client);
    mp_topic_index_remove(&t->by_key, sink_key(s));
    mp_topic_sink_fini(s, t);
    mp_alloc_free(t->alloc, s, sizeof(*s));
}

static uint32_t queue_max_of(const struct mp_topic_event *ev)
{
    uint32_t wanted = ev->subscribe.queue_max;
    return wanted == 0 || wanted > MP_TOPIC_QUEUE_MESSAGES_MAX ? MP_TOPIC_QUEUE_MESSAGES_MAX
                                                               : wanted;
}

/* Puts a subscription in force that is all there but for that. */
static enum mp_err begin(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev,
                         struct mp_topic_sink *s)
{
    MP_TRY(mp_topic_index_add(&t->by_key, sink_key(s), s));
    enum mp_err err = mp_topic_trie_add(t, ev->subscribe.pattern, &s->entry);
    if (err == MP_OK && ev->subscribe.has_since) {
        err = mp_topic_gather_new(t, now, ev, s);
        if (err != MP_OK)
            mp_topic_trie_remove(t, &s->entry);
    }
    if (err != MP_OK)
        mp_topic_index_remove(&t->by_key, sink_key(s));
    return err;
}

enum mp_err mp_topic_subscribe(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    const uint64_t key[2] = {ev->client, ev->id};
    struct mp_topic_client *c = client_of(t, ev->client);
    MP_TRY(mp_topic_check_pattern(t, ev->subscribe.pattern));
    if (mp_topic_index_find(&t->by_key, mp_slice_of(key, sizeof(key))))
        return MP_EEXIST;
    struct mp_topic_sink *s = mp_alloc_take(t->alloc, sizeof(*s));
    if (!s)
        return MP_ENOMEM;
    mp_topic_sink_init(s, MP_TOPIC_SINK_CLIENT, t);
    memcpy(s->key, key, sizeof(key));
    s->messages_max = queue_max_of(ev);
    s->entry.sink = s;
    enum mp_err err = c ? MP_OK : client_new(t, ev->client, &c);
    if (err == MP_OK)
        err = begin(t, now, ev, s);
    if (err != MP_OK) {
        mp_alloc_free(t->alloc, s, sizeof(*s));
        if (c)
            client_release(t, c);
        return err;
    }
    s->client = c;
    mp_topic_list_add(&c->sinks, &s->of_client);
    return MP_OK;
}

enum mp_err mp_topic_unsubscribe(struct mp_topic *t, const struct mp_topic_event *ev)
{
    const uint64_t key[2] = {ev->client, ev->id};
    struct mp_topic_sink *s = mp_topic_index_find(&t->by_key, mp_slice_of(key, sizeof(key)));
    if (!s)
        return MP_ENOENT;
    struct mp_topic_client *c = s->client;
    sink_free(t, s);
    client_release(t, c);
    return MP_OK;
}

void mp_topic_client_gone(struct mp_topic *t, uint64_t number)
{
    struct mp_topic_client *c = client_of(t, number);
    if (!c)
        return;
    while (!mp_topic_list_is_empty(&c->sinks))
        sink_free(t, MP_TOPIC_OF(c->sinks.next, struct mp_topic_sink, of_client));
    c->is_blocked = false;
    client_release(t, c);
}

bool mp_topic_any_subscription(const struct mp_topic *t, uint64_t *client, uint64_t *id)
{
    for (struct mp_topic_link *l = t->clients.next; l != &t->clients; l = l->next) {
        const struct mp_topic_client *c = MP_TOPIC_OF(l, struct mp_topic_client, link);
        if (mp_topic_list_is_empty(&c->sinks))
            continue;
        *client = c->number;
        *id = MP_TOPIC_OF(c->sinks.next, struct mp_topic_sink, of_client)->key[1];
        return true;
    }
    return false;
}

void mp_topic_clients_fini(struct mp_topic *t)
{
    while (!mp_topic_list_is_empty(&t->clients))
        mp_topic_client_gone(t, MP_TOPIC_OF(t->clients.next, struct mp_topic_client, link)->number);
    mp_topic_index_fini(&t->by_client);
    mp_topic_index_fini(&t->by_key);
}
