/* Finding a node: the list is walked once, node by node and address by address, until one connects
 * and sends its preface. What went wrong on the way is collected, for the one error at the end.
 *
 * Everything that can end an attempt (a refused connection, a name that does not resolve, the
 * timer, bytes that are no preface) comes back into mp_client_seek, which loops; nothing here
 * calls itself. */
#include <stdio.h>
#include <stdlib.h>

#include "src/client/client_internal.h"

#define WHY_BYTES 256

static void note(struct mp_client *c, const char *why);
static bool next_node(struct mp_client *c);
static bool read_address(struct mp_client *c, const char *host, const char *port);
static const char *look_up(struct mp_client *c, const char *host, const char *port);
static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *found);
static const char *start_connect(struct mp_client *c);
static void on_connect(uv_connect_t *request, int status);
static void arm(struct mp_client *c);

void mp_client_seek(struct mp_client *c)
{
    while (c->state == MP_CLIENT_CONNECTING) {
        const char *why = NULL;
        if (c->address < c->addresses_count) {
            why = start_connect(c);
            if (!why)
                return;
            note(c, why);
            c->address++;
            continue;
        }
        if (!next_node(c)) {
            mp_client_give_up(c);
            return;
        }
        char host[MP_CLIENT_NODE_BYTES + 1];
        char port[MP_CLIENT_PORT_BYTES + 1];
        arm(c);
        if (!mp_client_split_node(c->nodes[c->node], host, port))
            why = "not of the form HOST:PORT";
        else if (!read_address(c, host, port)) {
            why = look_up(c, host, port);
            if (!why)
                return;
        }
        if (why)
            note(c, why);
    }
}

void mp_client_attempt_failed(struct mp_client *c, const char *why)
{
    note(c, why);
    mp_client_drop_link(c);
    c->address++;
    mp_client_seek(c);
}

void mp_client_attempt_timed_out(struct mp_client *c)
{
    note(c, "timed out");
    mp_client_drop_link(c);
    if (c->lookup) {
        uv_cancel((uv_req_t *)&c->lookup->request);
        c->lookup = NULL;
    }
    c->addresses_count = 0;
    mp_client_seek(c);
}

bool mp_client_split_node(const char *node, char *host, char *port)
{
    const char *host_end;
    const char *colon;
    if (node[0] == '[') {
        node++;
        host_end = strchr(node, ']');
        colon = host_end ? host_end + 1 : NULL;
        if (!colon || *colon != ':')
            return false;
    } else {
        colon = strrchr(node, ':');
        if (!colon || strchr(node, ':') != colon)
            return false;
        host_end = colon;
    }
    size_t host_size = (size_t)(host_end - node);
    size_t port_size = strlen(colon + 1);
    if (host_size == 0 || host_size > MP_CLIENT_NODE_BYTES || port_size == 0 ||
        port_size > MP_CLIENT_PORT_BYTES)
        return false;
    unsigned number = 0;
    for (const char *p = colon + 1; *p; p++) {
        if (*p < '0' || *p > '9')
            return false;
        number = number * 10 + (unsigned)(*p - '0');
    }
    if (number == 0 || number > 65535)
        return false;
    memcpy(host, node, host_size);
    host[host_size] = '\0';
    memcpy(port, colon + 1, port_size + 1);
    return true;
}

/* Memory for what was tried may run out; the error then tells less. */
static void note(struct mp_client *c, const char *why)
{
    char text[MP_CLIENT_NODE_BYTES + WHY_BYTES];
    int n = snprintf(text, sizeof(text), "%s%s (%s)", c->tried.size == 0 ? "" : ", ",
                     c->nodes[c->node], why);
    size_t size = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
    if (mp_buf_append(&c->tried, mp_slice_of(text, size)) != MP_OK)
        return;
}

/* Steps to the next node of the list; false at its end, or when the time for all is up. */
static bool next_node(struct mp_client *c)
{
    c->addresses_count = 0;
    c->address = 0;
    if (c->has_begun && c->node + 1 >= c->nodes_count)
        return false;
    if (c->has_begun && uv_hrtime() >= c->give_up_at)
        return false;
    if (c->has_begun)
        c->node++;
    c->has_begun = true;
    return true;
}

/* A numeric address needs no resolver (and no thread). */
static bool read_address(struct mp_client *c, const char *host, const char *port)
{
    struct sockaddr_storage *a = &c->addresses[0];
    int number = (int)strtol(port, NULL, 10);
    memset(a, 0, sizeof(*a));
    if (uv_ip4_addr(host, number, (struct sockaddr_in *)(void *)a) != 0 &&
        uv_ip6_addr(host, number, (struct sockaddr_in6 *)(void *)a) != 0)
        return false;
    c->addresses_count = 1;
    return true;
}

static const char *look_up(struct mp_client *c, const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct mp_client_lookup *l = (struct mp_client_lookup *)mp_alloc_take(c->alloc, sizeof(*l));
    if (!l)
        return "out of memory";
    l->client = c;
    int status = uv_getaddrinfo(c->loop, &l->request, on_lookup, host, port, &hints);
    if (status != 0) {
        mp_alloc_free(c->alloc, l, sizeof(*l));
        return uv_strerror(status);
    }
    c->lookup = l;
    c->handles++;
    return NULL;
}

static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct mp_client_lookup *l = (struct mp_client_lookup *)(void *)request;
    struct mp_client *c = l->client;
    bool is_current = c->lookup == l;
    if (is_current) {
        c->lookup = NULL;
        for (struct addrinfo *a = found; a && c->addresses_count < MP_CLIENT_ADDRESSES_MAX;
             a = a->ai_next) {
            if (a->ai_addrlen > sizeof(struct sockaddr_storage))
                continue;
            memcpy(&c->addresses[c->addresses_count++], a->ai_addr, a->ai_addrlen);
        }
    }
    uv_freeaddrinfo(found);
    mp_alloc_free(c->alloc, l, sizeof(*l));
    if (is_current && c->state == MP_CLIENT_CONNECTING) {
        if (c->addresses_count == 0)
            note(c, status == 0 ? "no address" : uv_strerror(status));
        mp_client_seek(c);
    }
    mp_client_release(c);
}

/* NULL, or why not even an attempt could begin. */
static const char *start_connect(struct mp_client *c)
{
    struct mp_client_link *link = (struct mp_client_link *)mp_alloc_take(c->alloc, sizeof(*link));
    if (!link)
        return "out of memory";
    memset(link, 0, sizeof(*link));
    link->client = c;
    int status = uv_tcp_init(c->loop, &link->tcp);
    if (status != 0) {
        mp_alloc_free(c->alloc, link, sizeof(*link));
        return uv_strerror(status);
    }
    c->link = link;
    c->handles++;
    const struct sockaddr *address =
        (const struct sockaddr *)(const void *)&c->addresses[c->address];
    status = uv_tcp_connect(&link->connect, &link->tcp, address, on_connect);
    if (status == 0)
        return NULL;
    mp_client_drop_link(c);
    return uv_strerror(status);
}

static void on_connect(uv_connect_t *request, int status)
{
    struct mp_client_link *link = (struct mp_client_link *)(void *)request->handle;
    struct mp_client *c = link->client;
    if (c->link != link || c->state != MP_CLIENT_CONNECTING)
        return; /* given up on; its closing callback follows */
    if (status != 0)
        mp_client_attempt_failed(c, uv_strerror(status));
    else
        mp_client_link_connected(c);
}

/* Each node gets MP_CLIENT_CONNECT_MS, or its share of the time for all if that is less: one that
 * is silent must not use up what the others need. */
static void arm(struct mp_client *c)
{
    mp_time now = uv_hrtime();
    uint64_t ms = MP_CLIENT_CONNECT_MS;
    if (c->give_up_at != MP_NEVER) {
        uint64_t left = now < c->give_up_at ? (c->give_up_at - now) / 1000000 + 1 : 1;
        uint64_t nodes_left = c->nodes_count - c->node;
        uint64_t share = left / nodes_left < 1 ? 1 : left / nodes_left;
        ms = share < ms ? share : ms;
    }
    mp_client_arm(c, ms);
}
