/* bench-echo: the physical reference. It speaks the native protocol as far as `mpreg bench` does,
 * and answers each frame with itself, its type changed to RESULT: no rings, no worker, no Lua. One
 * read and one write per connection and turn, straight from the input buffer.
 *
 * Prints its port, then serves until it is killed. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/wire/frame.h"

#define READ_BYTES  (64u << 10)
#define FRAME_MAX   (64u << 20)
#define EVENTS_MAX  256
#define DESCRIPTORS 65536
#define TYPE_OFFSET 4

struct conn {
    int fd;
    bool has_preface;
    uint8_t *data;
    size_t size;
    size_t capacity;
};

static struct conn *conns[DESCRIPTORS];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static bool write_all(int fd, const uint8_t *data, size_t size)
{
    while (size != 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            return false;
        } else if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return true;
}

/* Answers all whole frames; `*wanted` is the size of one that has only begun, or 0. */
static bool answer(struct conn *c, size_t *wanted)
{
    size_t at = 0;
    *wanted = 0;
    if (!c->has_preface) {
        uint8_t version;
        if (mp_preface_read(mp_slice_of(c->data, c->size), &version) != MP_OK)
            return true;
        c->has_preface = true;
        at = MP_PREFACE_BYTES;
        if (!write_all(c->fd, c->data, at))
            return false;
    }
    size_t first = at;
    struct mp_frame_header h;
    while (mp_frame_read_header(mp_slice_of(c->data + at, c->size - at), FRAME_MAX, &h) == MP_OK) {
        *wanted = MP_FRAME_HEADER_BYTES + (size_t)h.size;
        if (c->size - at < *wanted)
            break;
        c->data[at + TYPE_OFFSET] = MP_FRAME_RESULT;
        at += *wanted;
        *wanted = 0;
    }
    bool is_well = write_all(c->fd, c->data + first, at - first);
    c->size -= at;
    if (c->size != 0)
        memmove(c->data, c->data + at, c->size);
    return is_well;
}

static bool receive(struct conn *c, size_t *wanted)
{
    size_t room = *wanted > READ_BYTES ? *wanted - c->size : READ_BYTES;
    if (c->size + room > c->capacity) {
        c->capacity = c->size + room;
        c->data = (uint8_t *)realloc(c->data, c->capacity);
        if (!c->data)
            die("realloc");
    }
    ssize_t n = read(c->fd, c->data + c->size, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    c->size += (size_t)n;
    return answer(c, wanted);
}

static void add(int epoll, int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    conns[fd] = (struct conn *)calloc(1, sizeof(struct conn));
    if (!conns[fd])
        die("calloc");
    conns[fd]->fd = fd;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        die("epoll_ctl");
}

static void end(struct conn *c)
{
    conns[c->fd] = NULL;
    close(c->fd);
    free(c->data);
    free(c);
}

int main(void)
{
    static size_t wanted[DESCRIPTORS];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int epoll = epoll_create1(0);
    if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) != 0 ||
        listen(listener, 1024) != 0 || getsockname(listener, (struct sockaddr *)&a, &size) != 0)
        die("listen");
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e) != 0)
        die("epoll_ctl");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (peer >= 0 && peer < DESCRIPTORS) {
                    wanted[peer] = 0;
                    add(epoll, peer);
                }
            } else if (!receive(conns[fd], &wanted[fd])) {
                end(conns[fd]);
            }
        }
    }
}
