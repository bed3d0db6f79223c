/* Datagrams: one socket at the address of the TCP listener. They come in batches, so many a turn
 * that no flood keeps the rest waiting; they gather until the end of the turn and leave in batches.
 * Gossip bears loss: what the kernel does not take at once is dropped, and so is what is too large
 * to be gossip. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/host/net_internal.h"

#define BATCH 64

struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_storage addrs[BATCH];
    uint8_t bytes[BATCH][MP_DATAGRAM_BYTES_MAX];
};

struct mp_udp {
    uv_poll_t poll;
    int fd;
    uint32_t out_count;
    struct batch in;
    struct batch out;
};

static void batch_init(struct batch *b)
{
    for (int i = 0; i < BATCH; i++) {
        b->parts[i] = (struct iovec){.iov_base = b->bytes[i], .iov_len = MP_DATAGRAM_BYTES_MAX};
        b->messages[i].msg_hdr = (struct msghdr){.msg_name = &b->addrs[i],
                                                 .msg_namelen = sizeof(b->addrs[i]),
                                                 .msg_iov = &b->parts[i],
                                                 .msg_iovlen = 1};
    }
}

bool mp_udp_open(struct mp_host *h, const struct sockaddr *addr, uint32_t size)
{
    int bytes = MP_UDP_RECEIVE_BYTES;
    int fd = socket(addr->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    if (bind(fd, addr, size) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return false;
    }
    /* Beyond the system's limit only root may go; the rest get what the limit allows. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    struct mp_udp *u = mp_xalloc(sizeof(*u));
    u->fd = fd;
    if (uv_poll_init(&h->loop, &u->poll, fd) != 0) {
        close(fd);
        free(u);
        return false;
    }
    u->poll.data = h;
    batch_init(&u->in);
    batch_init(&u->out);
    h->udp = u;
    return true;
}

/* --- in --- */

/* Takes one batch; how many there were. */
static int receive(struct mp_host *h)
{
    struct mp_udp *u = h->udp;
    for (int i = 0; i < BATCH; i++)
        u->in.messages[i].msg_hdr.msg_namelen = sizeof(u->in.addrs[i]);
    int count = recvmmsg(u->fd, u->in.messages, BATCH, 0, NULL);
    for (int i = 0; i < count; i++) {
        const struct mmsghdr *m = &u->in.messages[i];
        if ((m->msg_hdr.msg_flags & MSG_TRUNC) != 0)
            continue;
        const struct mp_node_event ev = {
            .kind = MP_NODE_DATAGRAM,
            .datagram = {.from = mp_net_address_of(&u->in.addrs[i]),
                         .bytes = mp_slice_of(u->in.bytes[i], m->msg_len)}};
        mp_host_step(h, &ev);
    }
    return count;
}

static void on_datagrams(uv_poll_t *poll, int status, int events)
{
    struct mp_host *h = (struct mp_host *)poll->data;
    (void)events;
    mp_host_woken(h);
    if (status < 0) {
        /* An error of the socket, such as a refused datagram, is over once it was read; libuv has
         * stopped watching, though. */
        int err;
        socklen_t size = sizeof(err);
        getsockopt(h->udp->fd, SOL_SOCKET, SO_ERROR, &err, &size);
        uv_poll_start(poll, UV_READABLE, on_datagrams);
        return;
    }
    for (int taken = 0; taken < MP_DATAGRAMS_A_TURN;) {
        int count = receive(h);
        if (count < BATCH)
            return;
        taken += count;
    }
}

void mp_udp_start(struct mp_host *h)
{
    uv_poll_start(&h->udp->poll, UV_READABLE, on_datagrams);
}

/* --- out --- */

void mp_udp_send(struct mp_host *h, const struct mp_address *to, struct mp_slice bytes)
{
    struct mp_udp *u = h->udp;
    if (bytes.size > MP_DATAGRAM_BYTES_MAX)
        return;
    if (u->out_count == BATCH)
        mp_udp_flush(h);
    uint32_t i = u->out_count;
    uint32_t size = mp_net_sockaddr_of(to, h->family, &u->out.addrs[i]);
    if (size == 0)
        return;
    u->out.messages[i].msg_hdr.msg_namelen = size;
    u->out.parts[i].iov_len = bytes.size;
    if (bytes.size != 0)
        memcpy(u->out.bytes[i], bytes.data, bytes.size);
    u->out_count++;
}

/* One that cannot be sent must not keep back those behind it. */
void mp_udp_flush(struct mp_host *h)
{
    struct mp_udp *u = h->udp;
    uint32_t sent = 0;
    while (sent < u->out_count) {
        int count = sendmmsg(u->fd, u->out.messages + sent, u->out_count - sent, 0);
        if (count > 0)
            sent += (uint32_t)count;
        else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
            break;
        else if (errno != EINTR)
            sent++;
    }
    u->out_count = 0;
}

void mp_udp_free(struct mp_host *h)
{
    if (!h->udp)
        return;
    close(h->udp->fd);
    free(h->udp);
    h->udp = NULL;
}
