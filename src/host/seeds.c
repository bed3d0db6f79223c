/* Where each --join points. A number is told to the machine once. A name is resolved on libuv's
 * threads, again after a while as long as there is no answer, and from time to time afterwards:
 * names move. The machine decides what to do with it. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "src/host/net_internal.h"

struct seed {
    struct mp_host *host;
    uint32_t number;
    const struct mp_host_address *name;
    uv_getaddrinfo_t request;
    bool is_busy;
    bool is_failure_told;
    mp_time at; /* when to resolve it next; MP_NEVER for a number */
};

struct mp_seeds {
    uint32_t count;
    bool is_stopped;
    mp_time at; /* the earliest of all */
    struct seed items[];
};

static void tell(struct seed *s, const struct mp_address *addr)
{
    const struct mp_node_event ev = {.kind = MP_NODE_SEED,
                                     .seed = {.number = s->number, .addr = *addr}};
    mp_host_step(s->host, &ev);
}

static void tell_failure(struct seed *s, int err)
{
    mp_log(s->is_failure_told ? 0 : 2, "--join %s:%u: %s; it is tried again every %d s",
           s->name->host, s->name->port, uv_strerror(err), MP_SEED_RETRY_MS / 1000);
    s->is_failure_told = true;
}

static void find_next(struct mp_seeds *all)
{
    all->at = MP_NEVER;
    for (uint32_t i = 0; i < all->count; i++)
        if (!all->items[i].is_busy && all->items[i].at < all->at)
            all->at = all->items[i].at;
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct seed *s = (struct seed *)request->data;
    struct mp_host *h = s->host;
    mp_host_woken(h);
    s->is_busy = false;
    s->at = h->now + MP_MS(status == 0 ? MP_SEED_AGAIN_MS : MP_SEED_RETRY_MS);
    find_next(h->seeds);
    if (status == 0 && !h->seeds->is_stopped) {
        struct sockaddr_storage addr = {0};
        memcpy(&addr, found->ai_addr, found->ai_addrlen);
        struct mp_address a = mp_net_address_of(&addr);
        s->is_failure_told = false;
        tell(s, &a);
    } else if (status != 0 && status != UV_ECANCELED) {
        tell_failure(s, status);
    }
    uv_freeaddrinfo(found);
}

/* Only what this node's sockets can reach: a socket of IPv6 that is bound to one address sends no
 * IPv4, one that is bound to the wildcard does. */
static int family_of(const struct mp_host *h)
{
    return h->family == AF_INET6 && h->is_any ? AF_UNSPEC : h->family;
}

static void resolve(struct seed *s)
{
    struct mp_host *h = s->host;
    const struct addrinfo hints = {.ai_family = family_of(h), .ai_socktype = SOCK_STREAM};
    char port[8];
    snprintf(port, sizeof(port), "%u", s->name->port);
    s->request.data = s;
    int err = uv_getaddrinfo(&h->loop, &s->request, on_resolved, s->name->host, port, &hints);
    s->is_busy = err == 0;
    s->at = h->now + MP_MS(MP_SEED_RETRY_MS);
    if (err != 0)
        tell_failure(s, err);
}

static bool read_number(const struct mp_host_address *name, struct mp_address *a)
{
    char text[MP_ADDRESS_TEXT_MAX];
    bool is_v6 = strchr(name->host, ':') != NULL;
    snprintf(text, sizeof(text), is_v6 ? "[%s]:%u" : "%s:%u", name->host, name->port);
    return mp_address_read(mp_slice_str(text), a) == MP_OK;
}

void mp_seeds_start(struct mp_host *h)
{
    uint32_t count = h->cfg->join_count;
    struct mp_seeds *all = mp_xalloc(sizeof(*all) + count * sizeof(struct seed));
    h->seeds = all;
    all->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_address a;
        struct seed *s = &all->items[i];
        *s = (struct seed){.host = h, .number = i, .name = &h->cfg->join[i], .at = MP_NEVER};
        if (read_number(s->name, &a))
            tell(s, &a);
        else
            resolve(s);
    }
    find_next(all);
}

void mp_seeds_check(struct mp_host *h)
{
    struct mp_seeds *all = h->seeds;
    if (!all || all->at > h->now)
        return;
    for (uint32_t i = 0; i < all->count; i++)
        if (!all->items[i].is_busy && all->items[i].at <= h->now)
            resolve(&all->items[i]);
    find_next(all);
}

mp_time mp_seeds_deadline(const struct mp_host *h)
{
    return h->seeds ? h->seeds->at : MP_NEVER;
}

void mp_seeds_stop(struct mp_host *h)
{
    if (!h->seeds)
        return;
    h->seeds->is_stopped = true;
    for (uint32_t i = 0; i < h->seeds->count; i++)
        if (h->seeds->items[i].is_busy)
            uv_cancel((uv_req_t *)&h->seeds->items[i].request);
}

bool mp_seeds_are_busy(const struct mp_host *h)
{
    for (uint32_t i = 0; h->seeds && i < h->seeds->count; i++)
        if (h->seeds->items[i].is_busy)
            return true;
    return false;
}

void mp_seeds_free(struct mp_host *h)
{
    free(h->seeds);
    h->seeds = NULL;
}
