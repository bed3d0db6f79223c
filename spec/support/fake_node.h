/* A node for specs that need no node: a server in threads of its own that speaks the native
 * protocol and does what the function's name says. Include once per program. */
#pragma once

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define FAKE_NODE_FRAME_MAX (4u << 20)
#define FAKE_NODE_CONNS_MAX 64
#define FAKE_NODE_DROP_AT   100 /* test.drop: this call of a connection closes it */

struct fake_node {
    char addr[32];
    int listener;
    pthread_t thread;
    struct mp_alloc alloc;
};

struct fake_conn {
    struct fake_node *node;
    pthread_t thread;
    int fd;
    uint32_t calls;
    uint64_t hanging; /* id of a request that waits for its CANCEL */
};

static void *fake_node_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}

static bool fake_node_read_all(int fd, void *out, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)out + done, size - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void fake_node_answer(struct fake_conn *c, uint8_t type, uint64_t id,
                             struct mp_slice payload)
{
    struct mp_buf b;
    mp_buf_init(&b, &c->node->alloc, 0);
    if (mp_frame_put(&b, type, id, mp_slice_of(NULL, 0), payload) != MP_OK)
        abort();
    for (size_t done = 0; done < b.size;) {
        ssize_t n = send(c->fd, b.data + done, b.size - done, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    mp_buf_fini(&b);
}

static void fake_node_answer_error(struct fake_conn *c, uint64_t id, enum mp_code code,
                                   const char *reason)
{
    struct mp_buf b;
    const struct mp_fault f = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str("so it is")};
    mp_buf_init(&b, &c->node->alloc, 0);
    if (mp_fault_put(&b, &f) != MP_OK)
        abort();
    fake_node_answer(c, MP_FRAME_ERROR, id, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* False if the connection is to be closed. */
static bool fake_node_handle_call(struct fake_conn *c, uint64_t id, struct mp_slice meta,
                                  struct mp_slice payload)
{
    struct mp_call_options o;
    const char *why = "";
    if (mp_call_options_read(meta, &o, &why) != MP_OK)
        return false;
    c->calls++;
    if (mp_slice_is(o.fun, "test.echo")) {
        fake_node_answer(c, MP_FRAME_RESULT, id, payload);
    } else if (mp_slice_is(o.fun, "test.fail")) {
        fake_node_answer_error(c, id, MP_CODE_NOT_FOUND, "");
    } else if (mp_slice_is(o.fun, "test.options")) {
        /* the third element of the meta array, or nil */
        struct mp_slice options = mp_slice_str("\xc0");
        (void)(mp_mp_array_get(meta, 2, &options) == MP_OK);
        fake_node_answer(c, MP_FRAME_RESULT, id, options);
    } else if (mp_slice_is(o.fun, "test.hang")) {
        c->hanging = id;
        kill(getpid(), SIGINT);
    } else if (mp_slice_is(o.fun, "test.deaf")) {
        kill(getpid(), SIGINT);
        usleep(1000);
        kill(getpid(), SIGINT);
    } else if (mp_slice_is(o.fun, "test.third") && c->calls % 3 == 0) {
        fake_node_answer_error(c, id, MP_CODE_UNAVAILABLE, "THIRD");
    } else if (mp_slice_is(o.fun, "test.third") ||
               (mp_slice_is(o.fun, "test.drop") && c->calls < FAKE_NODE_DROP_AT) ||
               (mp_slice_is(o.fun, "test.silent") && c->calls < 3)) {
        fake_node_answer(c, MP_FRAME_RESULT, id, payload);
    } else if (!mp_slice_is(o.fun, "test.silent")) {
        return false;
    }
    return true;
}

/* Gives the meta part back, or does what it says. */
static bool fake_node_handle_query(struct fake_conn *c, uint64_t id, struct mp_slice meta)
{
    struct mp_slice value;
    struct mp_slice what;
    if (mp_mp_array_get(meta, 0, &value) != MP_OK || mp_mp_get_str(value, &what) != MP_OK)
        return false;
    if (mp_slice_is(what, "query.fail")) {
        fake_node_answer_error(c, id, MP_CODE_NOT_FOUND, "");
    } else if (mp_slice_is(what, "query.hang")) {
        /* Once: a second signal would come after the request, and end the program. */
        if (c->hanging == 0)
            kill(getpid(), SIGINT);
        c->hanging = id;
    } else if (!mp_slice_is(what, "query.close")) {
        if (mp_slice_is(what, "query.slow"))
            usleep(1200000);
        for (int i = 0; mp_slice_is(what, "watch") && i < 3; i++)
            fake_node_answer(c, MP_FRAME_EVENT, id, mp_slice_str("\x81\xa1n\x01"));
        fake_node_answer(c, MP_FRAME_RESULT, id, meta);
    }
    return !mp_slice_is(what, "query.close");
}

/* Gives the meta part back (of "complete": the payload), or does what the text says. */
static void fake_node_handle_eval(struct fake_conn *c, uint64_t id, struct mp_slice meta,
                                  struct mp_slice payload)
{
    struct mp_slice what;
    struct mp_slice value = {0};
    struct mp_slice text = {0};
    bool is_complete = mp_mp_array_get(meta, 0, &value) == MP_OK &&
                       mp_mp_get_str(value, &what) == MP_OK && mp_slice_is(what, "complete");
    if (mp_mp_get_str(payload, &text) != MP_OK)
        abort();
    if (mp_slice_is(text, "fail")) {
        fake_node_answer_error(c, id, MP_CODE_INVALID_ARGUMENT, "SYNTAX_ERROR");
    } else if (mp_slice_is(text, "hang")) {
        c->hanging = id;
        kill(getpid(), SIGINT);
    } else if (mp_slice_is(text, "deaf")) {
        kill(getpid(), SIGINT);
        usleep(1000);
        kill(getpid(), SIGINT);
    } else if (!mp_slice_is(text, "silent")) {
        fake_node_answer(c, MP_FRAME_EVENT, id, mp_slice_str("\x81\xa1n\x01"));
        fake_node_answer(c, MP_FRAME_RESULT, id, is_complete ? payload : meta);
    }
}

static bool fake_node_handle(struct fake_conn *c, const struct mp_frame_header *h,
                             struct mp_slice meta, struct mp_slice payload)
{
    if (h->type == MP_FRAME_CALL)
        return fake_node_handle_call(c, h->id, meta, payload);
    if (h->type == MP_FRAME_CANCEL && h->id == c->hanging) {
        fake_node_answer_error(c, h->id, MP_CODE_CANCELLED, "");
        return true;
    }
    if (h->type == MP_FRAME_QUERY)
        return fake_node_handle_query(c, h->id, meta);
    if (h->type == MP_FRAME_EVAL) {
        fake_node_handle_eval(c, h->id, meta, payload);
        return true;
    }
    if (h->type == MP_FRAME_RUN && mp_slice_is(payload, "\xa4hang")) {
        fake_node_answer(c, MP_FRAME_EVENT, h->id, mp_slice_str("\x81\xa1n\x01"));
        c->hanging = h->id;
        return true;
    }
    if (h->type != MP_FRAME_RUN)
        return true;
    fake_node_answer(c, MP_FRAME_EVENT, h->id, mp_slice_str("\x81\xa1n\x01"));
    fake_node_answer(c, MP_FRAME_EVENT, h->id, mp_slice_str("\x81\xa1n\x02"));
    fake_node_answer(c, MP_FRAME_RESULT, h->id, payload);
    return true;
}

static void *fake_node_serve(void *context)
{
    struct fake_conn *c = (struct fake_conn *)context;
    uint8_t preface[MP_PREFACE_BYTES];
    uint8_t *room = (uint8_t *)malloc(FAKE_NODE_FRAME_MAX);
    bool goes_on = room && fake_node_read_all(c->fd, preface, sizeof(preface)) &&
                   send(c->fd, preface, sizeof(preface), MSG_NOSIGNAL) == sizeof(preface);
    while (goes_on) {
        uint8_t header[MP_FRAME_HEADER_BYTES];
        struct mp_frame_header h;
        goes_on = fake_node_read_all(c->fd, header, sizeof(header)) &&
                  mp_frame_read_header(mp_slice_of(header, sizeof(header)), FAKE_NODE_FRAME_MAX,
                                       &h) == MP_OK &&
                  fake_node_read_all(c->fd, room, h.size) &&
                  fake_node_handle(c, &h, mp_slice_of(room, h.meta_size),
                                   mp_slice_of(room + h.meta_size, h.size - h.meta_size));
    }
    free(room);
    shutdown(c->fd, SHUT_RDWR);
    return NULL;
}

static void *fake_node_accept(void *context)
{
    struct fake_node *node = (struct fake_node *)context;
    struct fake_conn *conns = (struct fake_conn *)calloc(FAKE_NODE_CONNS_MAX, sizeof(*conns));
    uint32_t count = 0;
    int fd;
    while (conns && (fd = accept(node->listener, NULL, NULL)) >= 0) {
        if (count == FAKE_NODE_CONNS_MAX)
            abort();
        conns[count] = (struct fake_conn){.node = node, .fd = fd};
        pthread_create(&conns[count].thread, NULL, fake_node_serve, &conns[count]);
        count++;
    }
    for (uint32_t i = 0; i < count; i++) {
        shutdown(conns[i].fd, SHUT_RDWR);
        pthread_join(conns[i].thread, NULL);
        close(conns[i].fd);
    }
    free(conns);
    return NULL;
}

/* 0, or 1 if the system refuses. SIGINT and SIGALRM go to the
 * thread that calls this, not to the server. */
static int fake_node_start(struct fake_node *node)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    sigset_t signals;
    node->alloc = (struct mp_alloc){.resize = fake_node_resize};
    node->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(node->listener, (const struct sockaddr *)&a, sizeof(a)) != 0 ||
        listen(node->listener, FAKE_NODE_CONNS_MAX) != 0 ||
        getsockname(node->listener, (struct sockaddr *)&a, &size) != 0)
        return 1;
    snprintf(node->addr, sizeof(node->addr), "127.0.0.1:%d", ntohs(a.sin_port));
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int failed = pthread_create(&node->thread, NULL, fake_node_accept, node) != 0;
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    return failed;
}

static void fake_node_stop(struct fake_node *node)
{
    shutdown(node->listener, SHUT_RDWR);
    pthread_join(node->thread, NULL);
    close(node->listener);
}
