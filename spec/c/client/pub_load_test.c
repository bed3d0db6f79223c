/* The load generator for topics against a node that is none: a thread that passes on what is
 * published, well or badly. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "spec/support/alloc.h"
#include "src/client/pub_load.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"
#include "src/wire/peer.h"

#define CONNS_MAX 16

enum manner {
    WELL,
    TELLS_LOSSES, /* of each batch the first message is lost, and told */
    LOSES,        /* likewise, and not told */
    REVERSES,     /* the order of batches: the second comes first */
    REFUSES_TOPIC,
    HANGS_UP, /* when something is published */
    GARBLES
};

struct server_conn {
    int fd; /* -1: none */
    bool is_greeted;
    bool is_subscriber;
    struct mp_buf in;
};

struct server {
    enum manner manner;
    int listener;
    int stop[2];
    char addr[32];
    pthread_t thread;
    uint64_t seq;
    struct server_conn conns[CONNS_MAX];
    uint32_t count;
};

static void *server_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size != 0)
        return realloc(p, new_size);
    free(p);
    return NULL;
}

static struct mp_alloc server_alloc = {.resize = server_resize};

static void must(enum mp_err err)
{
    if (err != MP_OK)
        abort();
}

static void send_all(struct server_conn *c, struct mp_slice bytes)
{
    for (size_t done = 0; done < bytes.size;) {
        ssize_t n = send(c->fd, bytes.data + done, bytes.size - done, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        done += (size_t)n;
    }
}

static void send_frame(struct server_conn *c, uint8_t type, uint64_t id, struct mp_slice meta,
                       struct mp_slice payload)
{
    struct mp_buf b;
    mp_buf_init(&b, &server_alloc, 0);
    must(mp_frame_put(&b, type, id, meta, payload));
    send_all(c, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void refuse(struct server_conn *c, uint64_t id)
{
    struct mp_buf b;
    const struct mp_fault f = {.code = MP_CODE_INVALID_ARGUMENT,
                               .reason = mp_slice_str("BAD_TOPIC"),
                               .message = mp_slice_str("so it is")};
    mp_buf_init(&b, &server_alloc, 0);
    must(mp_fault_put(&b, &f));
    send_frame(c, MP_FRAME_ERROR, id, mp_slice_of(NULL, 0), mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* The published batch as MESSAGES, of which the first `skipped` are left out. */
static void pass_on(struct server *s, struct mp_slice payload, uint64_t first_seq, uint32_t skipped)
{
    struct mp_buf messages;
    struct mp_buf meta;
    uint32_t count;
    struct mp_mp_reader r;
    must(mp_mp_get_array(payload, &count, &r));
    mp_buf_init(&messages, &server_alloc, 0);
    mp_buf_init(&meta, &server_alloc, 0);
    must(mp_mp_put_array(&messages, count - skipped));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token pair;
        struct mp_slice topic;
        struct mp_slice data;
        must(mp_mp_next(&r, &pair));
        must(mp_mp_take(&r, &topic));
        must(mp_mp_take(&r, &data));
        if (i < skipped)
            continue;
        must(mp_mp_put_array(&messages, 4));
        must(mp_mp_put_raw(&messages, topic));
        must(mp_mp_put_uint(&messages, first_seq + i));
        must(mp_mp_put_uint(&messages, 1));
        must(mp_mp_put_raw(&messages, data));
    }
    const struct mp_peer_messages m = {.publisher = mp_slice_str("n1"),
                                       .dropped = s->manner == TELLS_LOSSES ? skipped : 0,
                                       .after_seq = first_seq - 1};
    must(mp_peer_messages_put(&meta, &m));
    for (uint32_t i = 0; i < s->count; i++)
        if (s->conns[i].fd >= 0 && s->conns[i].is_subscriber)
            send_frame(&s->conns[i], MP_FRAME_MESSAGES, 1, mp_buf_slice(&meta),
                       mp_buf_slice(&messages));
    mp_buf_fini(&meta);
    mp_buf_fini(&messages);
}

static void close_conn(struct server_conn *c)
{
    close(c->fd);
    c->fd = -1;
    mp_buf_fini(&c->in);
}

static void take_published(struct server *s, struct server_conn *c, uint64_t id,
                           struct mp_slice payload)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (s->manner == HANGS_UP) {
        close_conn(c);
        return;
    }
    if (s->manner == GARBLES) {
        for (uint32_t i = 0; i < s->count; i++)
            if (s->conns[i].is_subscriber)
                send_frame(&s->conns[i], MP_FRAME_MESSAGES, 1, mp_slice_of(NULL, 0), payload);
        return;
    }
    must(mp_mp_get_array(payload, &count, &r));
    uint64_t first = s->seq + 1;
    s->seq += count;
    if (s->manner == REVERSES)
        first = 1000000000 - s->seq;
    pass_on(s, payload, first, s->manner == TELLS_LOSSES || s->manner == LOSES ? 1 : 0);
    send_frame(c, MP_FRAME_RESULT, id, mp_slice_of(NULL, 0), mp_slice_str("\x80"));
}

/* False if the connection is gone. */
static bool take_frame(struct server *s, struct server_conn *c)
{
    struct mp_frame_header h;
    if (mp_frame_read_header(mp_buf_slice(&c->in), UINT32_MAX, &h) != MP_OK ||
        c->in.size < MP_FRAME_HEADER_BYTES + (size_t)h.size)
        return false;
    struct mp_slice payload =
        mp_slice_of(c->in.data + MP_FRAME_HEADER_BYTES + h.meta_size, h.size - h.meta_size);
    if (h.type == MP_FRAME_SUBSCRIBE && s->manner == REFUSES_TOPIC) {
        refuse(c, h.id);
    } else if (h.type == MP_FRAME_SUBSCRIBE) {
        c->is_subscriber = true;
        send_frame(c, MP_FRAME_EVENT, h.id, mp_slice_of(NULL, 0), mp_slice_str("\x80"));
    } else {
        take_published(s, c, h.id, payload);
    }
    if (c->fd < 0)
        return false;
    mp_buf_drop(&c->in, MP_FRAME_HEADER_BYTES + (size_t)h.size);
    return true;
}

static void take_bytes(struct server *s, struct server_conn *c)
{
    uint8_t bytes[65536];
    ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);
    if (n <= 0) {
        close_conn(c);
        return;
    }
    must(mp_buf_append(&c->in, mp_slice_of(bytes, (size_t)n)));
    if (!c->is_greeted && c->in.size >= MP_PREFACE_BYTES) {
        send_all(c, mp_slice_of(c->in.data, MP_PREFACE_BYTES));
        mp_buf_drop(&c->in, MP_PREFACE_BYTES);
        c->is_greeted = true;
    }
    while (c->is_greeted && take_frame(s, c))
        continue;
}

static void *serve(void *context)
{
    struct server *s = (struct server *)context;
    for (;;) {
        struct pollfd p[CONNS_MAX + 2] = {{.fd = s->stop[0], .events = POLLIN},
                                          {.fd = s->listener, .events = POLLIN}};
        for (uint32_t i = 0; i < s->count; i++)
            p[i + 2] = (struct pollfd){.fd = s->conns[i].fd, .events = POLLIN};
        uint32_t count = s->count;
        poll(p, count + 2, -1);
        if (p[0].revents != 0)
            break;
        for (uint32_t i = 0; i < count; i++)
            if (p[i + 2].revents != 0 && s->conns[i].fd >= 0)
                take_bytes(s, &s->conns[i]);
        uint32_t place = 0;
        while (place < s->count && s->conns[place].fd >= 0)
            place++;
        if (p[1].revents != 0 && place < CONNS_MAX) {
            s->conns[place] = (struct server_conn){.fd = accept(s->listener, NULL, NULL)};
            mp_buf_init(&s->conns[place].in, &server_alloc, 0);
            s->count += place == s->count;
        }
    }
    for (uint32_t i = 0; i < s->count; i++)
        if (s->conns[i].fd >= 0)
            close_conn(&s->conns[i]);
    return NULL;
}

static void start(struct server *s, enum manner manner)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(a);
    *s = (struct server){.manner = manner, .listener = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->listener, CONNS_MAX), 0);
    getsockname(s->listener, (struct sockaddr *)&a, &size);
    snprintf(s->addr, sizeof(s->addr), "127.0.0.1:%d", ntohs(a.sin_port));
    assert_int_equal(pipe(s->stop), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s)
{
    assert_int_equal(write(s->stop[1], "", 1), 1);
    pthread_join(s->thread, NULL);
    close(s->stop[0]);
    close(s->stop[1]);
    close(s->listener);
}

static struct mp_pub_load_config config_of(const char *const *nodes, struct mp_alloc *a)
{
    return (struct mp_pub_load_config){.alloc = a,
                                       .nodes = nodes,
                                       .nodes_count = 1,
                                       .topic = mp_slice_str("a.b"),
                                       .pattern = mp_slice_str("a.#"),
                                       .subscribers = 3,
                                       .size = 64,
                                       .duration = MP_MS(20),
                                       .drain = MP_MS(500)};
}

static enum mp_err run(enum manner manner, struct mp_pub_load_result *r, struct mp_buf *error)
{
    struct server s;
    start(&s, manner);
    const char *node = s.addr;
    const struct mp_pub_load_config config = config_of(&node, &server_alloc);
    mp_buf_init(error, &server_alloc, 0);
    enum mp_err err = mp_pub_load_run(&config, r, error);
    stop(&s);
    return err;
}

static void assert_fault(struct mp_buf *error, const char *reason)
{
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(error), &f), MP_OK);
    if (!mp_slice_is(f.reason, reason))
        fail_msg("%.*s: %.*s", (int)f.reason.size, (const char *)f.reason.data, (int)f.message.size,
                 (const char *)f.message.data);
    mp_buf_fini(error);
}

static struct mp_pub_load_result result;

static void what_is_published_is_counted_where_it_arrives(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(WELL, &result, &error), MP_OK);
    assert_true(result.published > 0);
    assert_int_equal(result.delivered, 3 * result.published);
    assert_int_equal(result.dropped, 0);
    assert_true(result.latencies.count > 0);
    assert_true(result.publishing > 0 && result.delivering > 0);
    mp_buf_fini(&error);
}

static void losses_that_are_told_are_counted(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(TELLS_LOSSES, &result, &error), MP_OK);
    assert_true(result.dropped > 0);
    assert_int_equal(result.delivered + result.dropped, 3 * result.published);
    mp_buf_fini(&error);
}

static void losses_that_are_not_told_fail(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(LOSES, &result, &error), MP_ECLOSED);
    assert_fault(&error, "BROKEN_PROMISE");
}

static void another_order_fails(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(REVERSES, &result, &error), MP_ECLOSED);
    assert_fault(&error, "BROKEN_PROMISE");
}

static void nonsense_fails(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(GARBLES, &result, &error), MP_ECLOSED);
    assert_fault(&error, "BROKEN_PROMISE");
}

static void a_refusal_is_given_as_it_is(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(REFUSES_TOPIC, &result, &error), MP_ECLOSED);
    assert_fault(&error, "BAD_TOPIC");
}

static void a_lost_connection_is_told(void **state)
{
    (void)state;
    struct mp_buf error;
    assert_int_equal(run(HANGS_UP, &result, &error), MP_ECLOSED);
    assert_fault(&error, "CONNECTION_LOST");
}

static void a_node_that_is_not_there_is_told(void **state)
{
    (void)state;
    struct mp_buf error;
    const char *node = "127.0.0.1:1";
    const struct mp_pub_load_config config = config_of(&node, &server_alloc);
    mp_buf_init(&error, &server_alloc, 0);
    assert_int_equal(mp_pub_load_run(&config, &result, &error), MP_ECLOSED);
    assert_fault(&error, "NO_NODE");
}

static void a_rate_is_kept(void **state)
{
    (void)state;
    struct server s;
    struct mp_buf error;
    start(&s, WELL);
    const char *node = s.addr;
    struct mp_pub_load_config config = config_of(&node, &server_alloc);
    config.rate = 1;
    config.subscribers = 1;
    mp_buf_init(&error, &server_alloc, 0);
    assert_int_equal(mp_pub_load_run(&config, &result, &error), MP_OK);
    /* one batch, whatever its size: the next is not due within the duration */
    assert_in_range(result.published, 1, 1000);
    assert_int_equal(result.delivered, result.published);
    stop(&s);
    mp_buf_fini(&error);
}

static void numbers_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct mp_buf error;
    const char *node = "127.0.0.1:1";
    mp_buf_init(&error, &server_alloc, 0);
    struct mp_pub_load_config config = config_of(&node, &server_alloc);
    config.size = MP_PUB_LOAD_SIZE_MIN - 1;
    assert_int_equal(mp_pub_load_run(&config, &result, &error), MP_EINVAL);
    config = config_of(&node, &server_alloc);
    config.subscribers = MP_PUB_LOAD_SUBSCRIBERS_MAX + 1;
    assert_int_equal(mp_pub_load_run(&config, &result, &error), MP_EINVAL);
    mp_buf_fini(&error);
}

static void survives_every_failing_allocation(void **state)
{
    (void)state;
    struct server s;
    enum mp_err err = MP_ENOMEM;
    start(&s, WELL);
    const char *node = s.addr;
    for (size_t n = 0; err == MP_ENOMEM; n++) {
        struct spec_alloc counter = {.fail_at = n};
        struct mp_alloc alloc = spec_alloc_of(&counter);
        struct mp_pub_load_config config = config_of(&node, &alloc);
        struct mp_buf error;
        config.duration = MP_MS(1);
        config.subscribers = 1;
        mp_buf_init(&error, &server_alloc, 0);
        err = mp_pub_load_run(&config, &result, &error);
        mp_buf_fini(&error);
        assert_int_equal(counter.live_bytes, 0);
    }
    assert_int_equal(err, MP_OK);
    stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_published_is_counted_where_it_arrives),
        cmocka_unit_test(losses_that_are_told_are_counted),
        cmocka_unit_test(losses_that_are_not_told_fail),
        cmocka_unit_test(another_order_fails),
        cmocka_unit_test(nonsense_fails),
        cmocka_unit_test(a_refusal_is_given_as_it_is),
        cmocka_unit_test(a_lost_connection_is_told),
        cmocka_unit_test(a_node_that_is_not_there_is_told),
        cmocka_unit_test(a_rate_is_kept),
        cmocka_unit_test(numbers_that_do_not_fit_are_refused),
        cmocka_unit_test(survives_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
