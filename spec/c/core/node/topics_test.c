/* Topics composed: what clients of one node and of several get of what others publish, functions
 * that are called with messages, and how it all ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"

static struct spec_alloc counted = {.fail_at = SPEC_NEVER};

static struct mp_buf new_buf(void)
{
    static struct mp_alloc alloc;
    struct mp_buf b;
    alloc = spec_alloc_of(&counted);
    mp_buf_init(&b, &alloc, 0);
    return b;
}

static void must(enum mp_err err)
{
    assert_int_equal(err, MP_OK);
}

/* Publishes "a.b c": a message on each topic, whose data is its place. */
static void publish(struct spec_cluster *c, uint64_t client, uint64_t id, const char *topics)
{
    struct mp_buf b = new_buf();
    struct mp_buf list = new_buf();
    uint32_t count = 0;
    for (const char *at = topics; *at; count++) {
        size_t size = strcspn(at, " ");
        must(mp_mp_put_array(&list, 2));
        must(mp_mp_put_str(&list, mp_slice_of(at, size)));
        must(mp_mp_put_uint(&list, count));
        at += size + (at[size] == ' ');
    }
    must(mp_mp_put_array(&b, count));
    must(mp_mp_put_raw(&b, mp_buf_slice(&list)));
    cluster_request(c, client, MP_NODE_PUBLISH, id, (struct mp_slice){0}, mp_buf_slice(&b));
    mp_buf_fini(&list);
    mp_buf_fini(&b);
}

static void subscribe(struct spec_cluster *c, uint64_t client, uint64_t id, const char *pattern,
                      uint64_t since_ms, uint64_t queue)
{
    struct mp_buf b = new_buf();
    const struct mp_subscribe_options o = {
        .pattern = mp_slice_str(pattern), .since_ms = since_ms, .queue = queue};
    must(mp_subscribe_options_put(&b, &o));
    cluster_request(c, client, MP_NODE_SUBSCRIBE, id, mp_buf_slice(&b), (struct mp_slice){0});
    mp_buf_fini(&b);
}

static void put_batch(struct mp_text *t, struct mp_slice messages)
{
    uint32_t count;
    struct mp_mp_reader r;
    must(mp_mp_get_array(messages, &count, &r));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice message;
        struct mp_slice topic;
        struct mp_slice value;
        int64_t seq;
        must(mp_mp_take(&r, &message));
        must(mp_mp_array_get(message, 0, &value));
        must(mp_mp_get_str(value, &topic));
        must(mp_mp_array_get(message, 1, &value));
        must(mp_mp_get_int(value, &seq));
        mp_text_put(t, t->size == 0 ? "" : " ");
        mp_text_put_slice(t, topic);
        mp_text_put(t, ":");
        mp_text_put_uint(t, (uint64_t)seq);
    }
}

/* "subscribed a.b:1 a.c:2", of all that a subscription got so far. */
static const char *got(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    static char text[1024];
    struct mp_text t;
    mp_text_init(&t, text, sizeof(text));
    for (uint32_t i = 0; i < c->reply_count; i++) {
        const struct spec_reply *r = &c->replies[i];
        if (r->client != client || r->id != id)
            continue;
        if (r->frame == MP_FRAME_EVENT)
            mp_text_put(&t, "subscribed");
        else if (r->frame == MP_FRAME_MESSAGES)
            put_batch(&t, cluster_bytes(r));
    }
    text[t.size] = '\0';
    return text;
}

static void press(struct spec_cluster *c, uint64_t client, bool is_high)
{
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                                     .pressure = {.client = client, .is_high = is_high}};
    cluster_step(c, cluster_conn(c, client)->node[1], &ev);
}

/* --- one node --- */

static void a_client_gets_what_matches(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(1, 0, &client);
    uint64_t other = cluster_client(c, 0);
    subscribe(c, client, 1, "a.*", 0, 0);
    subscribe(c, client, 2, "#.c", 0, 0);
    publish(c, other, 1, "a.b a.c c b");
    assert_result(c, other, 1);
    publish(c, other, 2, "a.d");
    assert_string_equal(got(c, client, 1), "subscribed a.b:1 a.c:2 a.d:5");
    assert_string_equal(got(c, client, 2), "subscribed a.c:2 c:3");
    cluster_cancel(c, client, 1);
    assert_reason(c, client, 1, "CANCELLED");
    publish(c, other, 3, "a.c");
    assert_string_equal(got(c, client, 1), "subscribed a.b:1 a.c:2 a.d:5");
    assert_string_equal(got(c, client, 2), "subscribed a.c:2 c:3 a.c:6");
    cluster_close(c, client);
    cluster_run(c, MP_MS(10));
    publish(c, other, 4, "a.c");
    assert_result(c, other, 4);
    cluster_end(c);
}

static void what_is_bad_is_refused_in_words(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(1, 0, &client);
    publish(c, client, 1, "a b..c d");
    struct mp_fault f = assert_reason(c, client, 1, "BAD_TOPIC");
    assert_int_equal(f.index, 2);
    publish(c, client, 2, "a.*");
    assert_int_equal(assert_reason(c, client, 2, "BAD_TOPIC").index, 0);
    publish(c, client, 3, "a run.x");
    assert_int_equal(assert_reason(c, client, 3, "BAD_TOPIC").index, 2);
    publish(c, client, 4, "run");
    assert_reason(c, client, 4, "BAD_TOPIC");
    publish(c, client, 5, "runner run-x");
    assert_result(c, client, 5);
    cluster_request(c, client, MP_NODE_PUBLISH, 6, (struct mp_slice){0},
                    mp_slice_of("\x91\xc0", 2));
    assert_reason(c, client, 6, "BAD_REQUEST");
    cluster_request(c, client, MP_NODE_PUBLISH, 7, mp_slice_of("\x91\xc0", 2),
                    mp_slice_of("\x90", 1));
    assert_reason(c, client, 7, "BAD_REQUEST");
    subscribe(c, client, 8, "a.b*", 0, 0);
    assert_reason(c, client, 8, "BAD_TOPIC");
    cluster_request(c, client, MP_NODE_SUBSCRIBE, 9, mp_slice_of("\x90", 1), (struct mp_slice){0});
    assert_reason(c, client, 9, "BAD_REQUEST");
    cluster_end(c);
}

static void who_is_slow_is_told_what_it_lost(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(1, 0, &client);
    uint64_t other = cluster_client(c, 0);
    press(c, client, true);
    subscribe(c, client, 1, "#", 0, 2);
    publish(c, other, 1, "a b");
    publish(c, other, 2, "c d e");
    assert_string_equal(got(c, client, 1), "subscribed");
    press(c, client, false);
    publish(c, other, 3, "f");
    cluster_run(c, MP_MS(10));
    assert_string_equal(got(c, client, 1), "subscribed a:1 b:2 f:6");
    cluster_cancel(c, client, 1);
    cluster_end(c);
}

static void a_node_that_stops_ends_subscriptions(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(1, 0, &client);
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    subscribe(c, client, 1, "#", 0, 0);
    cluster_step(c, 0, &drain);
    cluster_run(c, MP_SECONDS(3));
    assert_reason(c, client, 1, "DRAINING");
    publish(c, client, 2, "a");
    assert_reason(c, client, 2, "DRAINING");
    subscribe(c, client, 3, "a", 0, 0);
    assert_reason(c, client, 3, "DRAINING");
    cluster_end(c);
}

/* --- several nodes --- */

static void messages_go_to_nodes_that_want_them(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 0, &client);
    uint64_t there = cluster_client(c, 1);
    cluster_run(c, MP_SECONDS(3));
    publish(c, client, 1, "a.b");
    cluster_run(c, MP_SECONDS(1));
    assert_int_equal(c->frames[MP_FRAME_PUBLISHED], 0);
    subscribe(c, there, 1, "a.#", 0, 0);
    cluster_run(c, MP_SECONDS(1));
    publish(c, client, 2, "a.b x.y");
    publish(c, client, 3, "a");
    cluster_run(c, MP_SECONDS(1));
    assert_string_equal(got(c, there, 1), "subscribed a.b:2 a:4");
    assert_int_equal(c->frames[MP_FRAME_PUBLISHED], 2);
    cluster_cancel(c, there, 1);
    cluster_run(c, MP_SECONDS(1));
    publish(c, client, 4, "a");
    cluster_run(c, MP_SECONDS(1));
    assert_int_equal(c->frames[MP_FRAME_PUBLISHED], 2);
    cluster_end(c);
}

static void a_past_is_asked_of_all(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 0, &client);
    uint64_t there = cluster_client(c, 1);
    cluster_run(c, MP_SECONDS(3));
    publish(c, client, 1, "a b");
    publish(c, there, 1, "a");
    cluster_run(c, MP_MS(100));
    subscribe(c, there, 2, "#", 60000, 0);
    publish(c, client, 2, "c");
    cluster_run(c, MP_SECONDS(1));
    assert_string_equal(got(c, there, 2), "subscribed a:1 b:2 a:1 c:3");
    cluster_cancel(c, there, 2);
    cluster_end(c);
}

static void bytes_of_others_are_checked(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 0, &client);
    cluster_run(c, MP_SECONDS(3));
    subscribe(c, client, 1, "#", 0, 0);
    const struct mp_node_link *l = cluster_link(c, 0, "b");
    assert_non_null(l);
    static const struct {
        struct mp_peer_messages meta;
        const char *payload;
        size_t size;
    } bad[] = {
        {{.publisher = {(const uint8_t *)"a", 1}}, "\x91\x94\xa1x\x01\x01\x01", 7}, /* itself */
        {{.publisher = {(const uint8_t *)"z", 1}}, "\x91\x94\xa1x\x01\x01\x01", 7}, /* unknown */
        {{.publisher = {(const uint8_t *)"b", 1}}, "\x91\x94\xa1*\x01\x01\x01", 7}, /* no topic */
        {{.publisher = {(const uint8_t *)"b", 1}}, "\xc0", 1},
        {{.publisher = {(const uint8_t *)"b", 1}}, "", 0},
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++) {
        struct mp_buf b = new_buf();
        must(mp_peer_messages_put(&b, &bad[i].meta));
        const struct mp_node_event ev = {
            .kind = MP_NODE_FRAME,
            .frame = {.client = l->client,
                      .type = MP_FRAME_PUBLISHED,
                      .id = 1000 + i,
                      .meta = mp_buf_slice(&b),
                      .payload = {.bytes = mp_slice_of(bad[i].payload, bad[i].size)}}};
        uint32_t before = c->frames[MP_FRAME_ERROR];
        cluster_step(c, 0, &ev);
        assert_int_equal(c->frames[MP_FRAME_ERROR], before + 1);
        mp_buf_fini(&b);
    }
    assert_string_equal(got(c, client, 1), "subscribed");
    cluster_cancel(c, client, 1);
    cluster_end(c);
}

/* --- functions --- */

/* s.echo is called for q.#, s.fail for bad.*. */
static void add_subscriber(struct spec_cluster *c, uint32_t node)
{
    static const char *const names[] = {"echo", "big", "fail"};
    static const char *const patterns[] = {"q.#", NULL, "bad.*"};
    struct mp_buf b = new_buf();
    must(mp_mp_put_map(&b, 2));
    must(mp_mp_put_str_pair(&b, "kind", mp_slice_str("module")));
    must(mp_mp_put_text(&b, "functions"));
    must(mp_mp_put_array(&b, 3));
    for (int i = 0; i < 3; i++) {
        must(mp_mp_put_map(&b, patterns[i] ? 2 : 1));
        must(mp_mp_put_str_pair(&b, "name", mp_slice_str(names[i])));
        if (patterns[i])
            must(mp_mp_put_str_pair(&b, "subscribe", mp_slice_str(patterns[i])));
    }
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = 0,
                                                .name = mp_slice_str("s"),
                                                .hash = mp_slice_str("ab"),
                                                .metadata = mp_buf_slice(&b)}};
    cluster_step(c, node, &ev);
    mp_buf_fini(&b);
}

static void a_message_calls_a_function_once_in_the_cluster(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 0, &client);
    add_subscriber(c, 1);
    add_subscriber(c, 2);
    cluster_run(c, MP_SECONDS(3));
    publish(c, client, 1, "q q.a x q.b.c");
    cluster_run(c, MP_SECONDS(1));
    assert_int_equal(c->nodes[1].begins[SPEC_ECHO] + c->nodes[2].begins[SPEC_ECHO], 3);
    assert_int_equal(c->nodes[0].begins[SPEC_ECHO], 0);
    cluster_kill(c, 1);
    cluster_kill(c, 2);
    cluster_run(c, MP_SECONDS(10));
    publish(c, client, 2, "q");
    assert_result(c, client, 2);
    cluster_end(c);
}

static void an_error_of_a_function_is_logged(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(1, 0, &client);
    add_subscriber(c, 0);
    cluster_run(c, MP_MS(100));
    publish(c, client, 1, "bad.x");
    cluster_run(c, MP_MS(100));
    assert_int_equal(c->nodes[0].begins[SPEC_FAIL], 1);
    if (!strstr(c->nodes[0].log, "s.fail was called with a message and failed: INTERNAL"))
        fail_msg("%s", c->nodes[0].log);
    cluster_end(c);
}

static void calls_beyond_the_bound_wait(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(1, 0, &client);
    char topics[4 * (MP_TOPIC_CALLS_MAX / 8) + 1];
    add_subscriber(c, 0);
    cluster_run(c, MP_MS(100));
    for (size_t i = 0; i + 1 < sizeof(topics); i++)
        topics[i] = "q.a "[i % 4];
    topics[sizeof(topics) - 1] = '\0';
    for (uint64_t id = 1; id <= 3; id++) {
        publish(c, client, id, topics);
        cluster_run(c, MP_MS(500));
    }
    assert_int_equal(c->nodes[0].begins[SPEC_ECHO], 3 * (MP_TOPIC_CALLS_MAX / 8));
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_gets_what_matches),
        cmocka_unit_test(what_is_bad_is_refused_in_words),
        cmocka_unit_test(who_is_slow_is_told_what_it_lost),
        cmocka_unit_test(a_node_that_stops_ends_subscriptions),
        cmocka_unit_test(messages_go_to_nodes_that_want_them),
        cmocka_unit_test(a_past_is_asked_of_all),
        cmocka_unit_test(bytes_of_others_are_checked),
        cmocka_unit_test(a_message_calls_a_function_once_in_the_cluster),
        cmocka_unit_test(an_error_of_a_function_is_logged),
        cmocka_unit_test(calls_beyond_the_bound_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
