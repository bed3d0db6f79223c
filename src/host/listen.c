/* The listening port: one address and one number for TCP and UDP. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/host/net_internal.h"

/* --- accepting --- */

/* Without a free descriptor the listener would be ready for ever: who knocks waits until a
 * connection closes. */
static void stop_accepting(struct mp_host *h)
{
    mp_log(2, "no connection can be accepted until one closes: too many open files");
    if (h->conn_count == 0)
        return;
    h->is_accept_stopped = true;
    uv_poll_stop(&h->listener);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct mp_host *h = (struct mp_host *)poll->data;
    (void)events;
    mp_host_woken(h);
    if (status < 0)
        return;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                stop_accepting(h);
            return;
        }
        (void)mp_conn_new(h, fd, MP_CONN_UNDECIDED);
    }
}

/* --- addresses --- */

struct mp_address mp_net_address_of(const struct sockaddr_storage *addr)
{
    struct mp_address a = {0};
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        a.size = 6;
        memcpy(a.bytes, &in->sin_addr, 4);
        memcpy(a.bytes + 4, &in->sin_port, 2);
    } else if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
        bool is_mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
        size_t size = is_mapped ? 4 : 16;
        a.size = (uint8_t)(size + 2);
        memcpy(a.bytes, in6->sin6_addr.s6_addr + 16 - size, size);
        memcpy(a.bytes + size, &in6->sin6_port, 2);
    }
    return a;
}

uint32_t mp_net_sockaddr_of(const struct mp_address *a, int family, struct sockaddr_storage *addr)
{
    if (family == AF_INET && a->size == 6) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, a->bytes, 4);
        memcpy(&in.sin_port, a->bytes + 4, 2);
        memcpy(addr, &in, sizeof(in));
        return sizeof(in);
    }
    if (family != AF_INET6 || a->size == 0)
        return 0;
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    size_t size = a->size - 2u;
    if (size == 4)
        memcpy(in6.sin6_addr.s6_addr, mapped, sizeof(mapped));
    memcpy(in6.sin6_addr.s6_addr + 16 - size, a->bytes, size);
    memcpy(&in6.sin6_port, a->bytes + size, 2);
    memcpy(addr, &in6, sizeof(in6));
    return sizeof(in6);
}

static void show(const struct mp_address *a, char text[MP_ADDRESS_TEXT_MAX])
{
    struct mp_text t;
    mp_text_init(&t, text, MP_ADDRESS_TEXT_MAX);
    mp_address_put(&t, a);
}

static bool is_loopback(const struct mp_address *a)
{
    static const uint8_t v6[16] = {[15] = 1};
    return a->size == 6 ? a->bytes[0] == 127 : memcmp(a->bytes, v6, sizeof(v6)) == 0;
}

static bool is_any(const struct mp_address *a)
{
    static const uint8_t none[16] = {0};
    return memcmp(a->bytes, none, a->size - 2u) == 0;
}

/* --- listening --- */

static bool bind_tcp(struct mp_host *h, const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return false;
    }
    h->listen_fd = fd;
    return true;
}

/* The number that is free for TCP may be taken for UDP; with port 0 another one will do. */
static bool bind_both(struct mp_host *h, const struct addrinfo *ai, struct sockaddr_storage *addr)
{
    const char *what = "TCP";
    for (int i = 0; i < MP_LISTEN_TRIES && bind_tcp(h, ai); i++) {
        socklen_t size = sizeof(*addr);
        if (getsockname(h->listen_fd, (struct sockaddr *)addr, &size) == 0 &&
            mp_udp_open(h, (const struct sockaddr *)addr, size))
            return true;
        int saved = errno;
        close(h->listen_fd);
        h->listen_fd = -1;
        errno = saved;
        what = "UDP";
        if (saved != EADDRINUSE || h->cfg->port != 0)
            break;
    }
    mp_log(3, "--listen %s:%u: %s (%s)", h->cfg->host, h->cfg->port, strerror(errno), what);
    return false;
}

static struct addrinfo *resolve(const char *flag, const char *host, uint16_t port_number, int flags,
                                int family)
{
    const struct addrinfo hints = {
        .ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *found = NULL;
    char port[8];
    snprintf(port, sizeof(port), "%u", port_number);
    int err = getaddrinfo(host, port, &hints, &found);
    if (err == 0)
        return found;
    mp_log(3, "%s %s:%s: %s", flag, host, port, gai_strerror(err));
    return NULL;
}

static struct mp_address first_of(const struct addrinfo *found)
{
    struct sockaddr_storage addr = {0};
    memcpy(&addr, found->ai_addr, found->ai_addrlen);
    return mp_net_address_of(&addr);
}

/* What others are told: what --advertise names, else where this node listens. */
static bool find_reach(struct mp_host *h, const struct mp_address *own)
{
    h->reach = *own;
    if (h->cfg->advertise_host) {
        uint16_t port = h->cfg->advertise_port != 0 ? h->cfg->advertise_port : mp_address_port(own);
        struct addrinfo *found = resolve("--advertise", h->cfg->advertise_host, port, 0,
                                         h->family == AF_INET ? AF_INET : AF_UNSPEC);
        if (!found)
            return false;
        h->reach = first_of(found);
        freeaddrinfo(found);
    }
    if (is_any(&h->reach)) {
        mp_log(3,
               "others cannot reach a node at %s: name an address of this machine with "
               "--advertise",
               h->addr);
        return false;
    }
    show(&h->reach, h->reach_text);
    return true;
}

bool mp_net_listen(struct mp_host *h)
{
    const struct mp_host_config *cfg = h->cfg;
    struct addrinfo *found = resolve("--listen", cfg->host, cfg->port, AI_PASSIVE, AF_UNSPEC);
    if (!found)
        return false;
    struct mp_address own = first_of(found);
    if (!is_loopback(&own) && !cfg->is_insecure) {
        mp_log(3,
               "--listen %s:%u is not a loopback address, and the cluster has no keys: refused "
               "(--insecure overrides)",
               cfg->host, cfg->port);
        freeaddrinfo(found);
        return false;
    }
    struct sockaddr_storage addr = {0};
    bool is_bound = bind_both(h, found, &addr);
    freeaddrinfo(found);
    if (!is_bound)
        return false;
    h->read_buffer = mp_xalloc(MP_NET_READ_BYTES);
    h->family = addr.ss_family;
    own = mp_net_address_of(&addr);
    h->is_any = is_any(&own);
    show(&own, h->addr);
    h->listener.data = h;
    return find_reach(h, &own) && uv_poll_init(&h->loop, &h->listener, h->listen_fd) == 0;
}

void mp_net_accept(struct mp_host *h)
{
    uv_poll_start(&h->listener, UV_READABLE, on_listener);
}
