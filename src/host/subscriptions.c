/* Which requests of a connection are subscriptions. One of them ends when its client wants, or
 * never: it does not wait for an answer as calls do, and is counted apart from them, lest some
 * thousands of subscriptions keep a connection from being read. */
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/host/net_internal.h"

/* The place of an id in the sorted list, or where it would be put. */
static uint32_t place_of(const struct mp_conn *c, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = c->subscription_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->subscriptions[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool has_at(const struct mp_conn *c, uint32_t place, uint64_t id)
{
    return place < c->subscription_count && c->subscriptions[place] == id;
}

static bool make_room(struct mp_conn *c)
{
    if (c->subscription_count < c->subscription_capacity)
        return true;
    uint32_t capacity = c->subscription_capacity == 0 ? 8 : c->subscription_capacity * 2;
    uint64_t *grown = realloc(c->subscriptions, capacity * sizeof(*grown));
    if (!grown)
        return false;
    c->subscriptions = grown;
    c->subscription_capacity = capacity;
    return true;
}

bool mp_conn_begin_subscription(struct mp_conn *c, uint64_t id)
{
    uint32_t place = place_of(c, id);
    if (has_at(c, place, id)) {
        mp_conn_put_error(c, id, MP_CODE_ALREADY_EXISTS, "BAD_REQUEST",
                          "this connection has a subscription with this id, which goes on");
        return false;
    }
    if (c->subscription_count == MP_CONN_SUBSCRIPTIONS_MAX || !make_room(c)) {
        mp_conn_put_error(c, id, MP_CODE_RESOURCE_EXHAUSTED, "TOO_MANY_SUBSCRIPTIONS",
                          "the connection has as many subscriptions as one can have");
        return false;
    }
    memmove(&c->subscriptions[place + 1], &c->subscriptions[place],
            (c->subscription_count - place) * sizeof(*c->subscriptions));
    c->subscriptions[place] = id;
    c->subscription_count++;
    return true;
}

bool mp_conn_end_subscription(struct mp_conn *c, uint64_t id)
{
    uint32_t place = place_of(c, id);
    if (!has_at(c, place, id))
        return false;
    c->subscription_count--;
    memmove(&c->subscriptions[place], &c->subscriptions[place + 1],
            (c->subscription_count - place) * sizeof(*c->subscriptions));
    return true;
}
