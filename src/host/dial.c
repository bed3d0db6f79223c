/* Connections that this node begins: connect, send our preface, hear the other one, all within one
 * time limit; from then on they are connections like any other. The machine hears exactly once of
 * each dial how it ended. Those under way are listed, and because all have the same limit the
 * oldest is the first that is due. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/net_internal.h"

#define TLS_ALERT     0x15
#define TLS_HANDSHAKE 0x16

static_assert(MP_DIAL_MS == 2000, "the text below says how long it is");
static const char no_answer[] = "no answer within 2 s";

static void tell(struct mp_host *h, uint64_t dial, uint64_t client, const char *why)
{
    const struct mp_node_event ev = {
        .kind = MP_NODE_DIALED,
        .dialed = {.dial = dial, .client = client, .why = mp_slice_str(why)}};
    mp_host_step(h, &ev);
}

static void list(struct mp_conn *c)
{
    struct mp_host *h = c->host;
    if (h->dial_last)
        h->dial_last->next_dial = c;
    else
        h->dial_first = c;
    h->dial_last = c;
}

static void unlist(struct mp_conn *c)
{
    struct mp_host *h = c->host;
    struct mp_conn *before = NULL;
    for (struct mp_conn *at = h->dial_first; at != c; at = at->next_dial)
        before = at;
    if (before)
        before->next_dial = c->next_dial;
    else
        h->dial_first = c->next_dial;
    if (h->dial_last == c)
        h->dial_last = before;
    c->next_dial = NULL;
}

static void fail(struct mp_conn *c, const char *why)
{
    c->dial_why = why;
    mp_conn_close(c);
}

void mp_dial_ended(struct mp_conn *c)
{
    unlist(c);
    tell(c->host, c->dial, 0, c->dial_why);
}

/* The texts of libuv are static for every error that it knows, and those of connect() are. */
static const char *text_of(int err)
{
    return uv_strerror(uv_translate_sys_error(err));
}

void mp_dial(struct mp_host *h, uint64_t dial, const struct mp_address *addr)
{
    struct sockaddr_storage to;
    int family = addr->size == 6 ? AF_INET : AF_INET6;
    uint32_t size = mp_net_sockaddr_of(addr, family, &to);
    if (size == 0 || mp_address_port(addr) == 0) {
        tell(h, dial, 0, "no address");
        return;
    }
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, (const struct sockaddr *)&to, size) != 0 && errno != EINPROGRESS)) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        tell(h, dial, 0, text_of(err));
        return;
    }
    struct mp_conn *c = mp_conn_new(h, fd, MP_CONN_CONNECTING);
    if (!c) {
        tell(h, dial, 0, "too many connections are open here");
        return;
    }
    c->is_dialled = true;
    c->dial = dial;
    c->dial_until = h->now + MP_MS(MP_DIAL_MS);
    c->dial_why = "this node ends";
    list(c);
}

/* A port that nobody listens on may be the very one that the kernel chose for this side: then the
 * socket is connected to itself. */
static bool is_to_itself(int fd)
{
    struct sockaddr_storage here = {0};
    struct sockaddr_storage there = {0};
    socklen_t here_size = sizeof(here);
    socklen_t there_size = sizeof(there);
    return getsockname(fd, (struct sockaddr *)&here, &here_size) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &there_size) == 0 &&
           here_size == there_size && memcmp(&here, &there, here_size) == 0;
}

void mp_dial_woken(struct mp_conn *c)
{
    int err = 0;
    socklen_t size = sizeof(err);
    uint8_t ours[MP_PREFACE_BYTES];
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &size) != 0)
        err = errno;
    if (err != 0 || is_to_itself(c->fd)) {
        fail(c, text_of(err != 0 ? err : ECONNREFUSED));
        return;
    }
    c->state = MP_CONN_GREETING;
    c->dial_why = "the connection was closed without a greeting";
    mp_preface_write(ours);
    if (!mp_conn_put(c, mp_slice_of(ours, sizeof(ours)))) {
        fail(c, "out of memory");
        return;
    }
    mp_conn_watch(c);
}

static const char *what_speaks(uint8_t first)
{
    if (first == 'H')
        return "speaks HTTP, no mpreg node";
    return first == TLS_ALERT || first == TLS_HANDSHAKE ? "speaks TLS, no mpreg node"
                                                        : "no mpreg node";
}

void mp_dial_take_preface(struct mp_conn *c, struct mp_slice *bytes)
{
    uint8_t version = 0;
    enum mp_err err = mp_preface_read(*bytes, &version);
    if (err == MP_EAGAIN)
        return;
    if (err != MP_OK) {
        fail(c, what_speaks(bytes->data[0]));
        return;
    }
    if (version != MP_PROTOCOL_VERSION) {
        fail(c, "speaks another version of the protocol");
        return;
    }
    *bytes = mp_slice_of(bytes->data + MP_PREFACE_BYTES, bytes->size - MP_PREFACE_BYTES);
    unlist(c);
    c->state = MP_CONN_OPEN;
    tell(c->host, c->dial, c->number, "");
}

void mp_dial_check(struct mp_host *h)
{
    while (h->dial_first && h->dial_first->dial_until <= h->now)
        fail(h->dial_first, no_answer);
}

mp_time mp_dial_deadline(const struct mp_host *h)
{
    return h->dial_first ? h->dial_first->dial_until : MP_NEVER;
}
