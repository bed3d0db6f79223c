/* See sockets.h. */
#include "src/client/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/client/client_internal.h"

#define TRIED_BYTES 1024
#define FDS_SPARE   64

struct sockets {
    const struct mp_sockets_config *config;
    uint32_t node; /* the last that answered */
    char tried[TRIED_BYTES];
};

static void allow_descriptors(uint32_t count);
static int connect_any(struct sockets *s);
static int connect_node(struct sockets *s, const char *node, const char **why);
static int connect_address(struct sockets *s, const struct addrinfo *a, const char **why);
static bool exchange_prefaces(struct sockets *s, int fd, const char **why);
static bool wait_for(struct sockets *s, int fd, short events, const char **why);

static bool is_interrupted(const struct sockets *s)
{
    return s->config->interrupts && *s->config->interrupts != 0;
}

static enum mp_err refuse_all(struct sockets *s, struct mp_buf *error)
{
    if (is_interrupted(s))
        return mp_sockets_refuse(error, MP_CODE_CANCELLED, "INTERRUPTED", "interrupted", NULL);
    char message[TRIED_BYTES + 32];
    snprintf(message, sizeof(message), "no node answered: %s", s->tried);
    return mp_sockets_refuse(error, MP_CODE_UNAVAILABLE, "NO_NODE", message,
                             "is a node running? start one with `mpreg node`");
}

enum mp_err mp_sockets_connect(const struct mp_sockets_config *config, uint32_t count, int *fds,
                               struct mp_buf *error)
{
    struct sockets s = {.config = config};
    uint32_t connected = 0;
    allow_descriptors(count);
    while (connected < count) {
        int fd = connect_any(&s);
        if (fd >= 0)
            fds[connected++] = fd;
        if (fd >= 0 && !is_interrupted(&s))
            continue;
        while (connected != 0)
            close(fds[--connected]);
        return refuse_all(&s, error);
    }
    return MP_OK;
}

enum mp_err mp_sockets_refuse(struct mp_buf *error, enum mp_code code, const char *reason,
                              const char *message, const char *hint)
{
    const struct mp_fault f = {.code = code,
                               .reason = mp_slice_str(reason),
                               .message = mp_slice_str(message),
                               .hint = hint ? mp_slice_str(hint) : mp_slice_of(NULL, 0)};
    mp_buf_clear(error);
    enum mp_err err = mp_fault_put(error, &f);
    return err == MP_OK ? MP_ECLOSED : err;
}

/* A thousand connections need more descriptors than many shells allow at first. */
static void allow_descriptors(uint32_t count)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count + FDS_SPARE)
        return;
    limit.rlim_cur = count + FDS_SPARE < limit.rlim_max ? count + FDS_SPARE : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* The nodes in turn, from the last that answered on. */
static int connect_any(struct sockets *s)
{
    size_t at = 0;
    s->tried[0] = '\0';
    for (uint32_t i = 0; i < s->config->nodes_count && !is_interrupted(s); i++) {
        const char *why = NULL;
        const char *node = s->config->nodes[s->node];
        int fd = connect_node(s, node, &why);
        if (fd >= 0)
            return fd;
        s->node = (s->node + 1) % s->config->nodes_count;
        int n = snprintf(s->tried + at, sizeof(s->tried) - at, "%s%s (%s)", at == 0 ? "" : ", ",
                         node, why);
        at = n < 0 || at + (size_t)n >= sizeof(s->tried) ? sizeof(s->tried) - 1 : at + (size_t)n;
    }
    return -1;
}

static int connect_node(struct sockets *s, const char *node, const char **why)
{
    char host[MP_CLIENT_NODE_BYTES + 1];
    char port[MP_CLIENT_PORT_BYTES + 1];
    if (!mp_client_split_node(node, host, port)) {
        *why = "not of the form HOST:PORT";
        return -1;
    }
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int status = getaddrinfo(host, port, &hints, &found);
    if (status != 0) {
        *why = gai_strerror(status);
        return -1;
    }
    int fd = -1;
    *why = "no address";
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = connect_address(s, a, why);
    freeaddrinfo(found);
    return fd;
}

static int connect_address(struct sockets *s, const struct addrinfo *a, const char **why)
{
    int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *why = strerror(errno);
        return -1;
    }
    int failed = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (failed == EINPROGRESS && wait_for(s, fd, POLLOUT, why)) {
        socklen_t size = sizeof(failed);
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    }
    if (failed != 0 && failed != EINPROGRESS)
        *why = strerror(failed);
    if (failed != 0 || !exchange_prefaces(s, fd, why)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static bool exchange_prefaces(struct sockets *s, int fd, const char **why)
{
    uint8_t preface[MP_PREFACE_BYTES];
    uint8_t version;
    size_t size = 0;
    mp_preface_write(preface);
    if (send(fd, preface, sizeof(preface), MSG_NOSIGNAL) != sizeof(preface)) {
        *why = strerror(errno);
        return false;
    }
    while (size < sizeof(preface)) {
        if (!wait_for(s, fd, POLLIN, why))
            return false;
        ssize_t n = recv(fd, preface + size, sizeof(preface) - size, 0);
        if (n <= 0) {
            *why = n == 0 ? "closed without an answer" : strerror(errno);
            return false;
        }
        size += (size_t)n;
        if (mp_preface_read(mp_slice_of(preface, size), &version) == MP_ECORRUPT) {
            *why = "what answers there is no mpreg node";
            return false;
        }
    }
    if (version != MP_PROTOCOL_VERSION)
        *why = "it speaks another version of the protocol";
    return version == MP_PROTOCOL_VERSION;
}

static bool wait_for(struct sockets *s, int fd, short events, const char **why)
{
    struct pollfd p = {.fd = fd, .events = events};
    int n;
    do
        n = poll(&p, 1, MP_CLIENT_CONNECT_MS);
    while (n < 0 && errno == EINTR && !is_interrupted(s));
    if (n <= 0)
        *why = n == 0 ? "timed out" : strerror(errno);
    return n > 0;
}
