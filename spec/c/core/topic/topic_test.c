/* What the machine for topics does with messages: who gets them, in which order, and what becomes
 * of them when somebody cannot take them. */
#include "spec/c/core/topic/topic_harness.h"

/* --- subscriptions --- */

static void who_subscribes_gets_what_matches(void **state)
{
    (void)state;
    subscribe(7, 1, "quakes.*.strong");
    subscribe(7, 2, "quakes.#");
    subscribe(8, 1, "weather");
    publish("quakes.us.strong", 5);
    says("7/1 n1 quakes.us.strong:1=5;7/2 n1 quakes.us.strong:1=5;");
    assert_int_equal(1, out.seq);
    assert_int_equal(1, out.published);
    publish("quakes", 6);
    says("7/2 n1 quakes:2=6;");
    publish("weather", 7);
    says("8/1 n1 weather:3=7;");
    publish("weathers", 8);
    says("");
}

static void a_step_is_one_delivery(void **state)
{
    (void)state;
    subscribe(7, 1, "a.*");
    must(try_publish("a.b", 10, 20));
    assert_int_equal(1, out.count);
    assert_int_equal(20, out.items[0].count);
    assert_int_equal(20, out.seq);
    effects();
    assert_memory_equal("7/1 n1 a.b:1=10 a.b:2=11", said, 24);
    assert_int_equal(20, mp_topic_get_stats(topic).delivered);
}

static void subscriptions_end(void **state)
{
    (void)state;
    subscribe(7, 1, "a");
    subscribe(7, 2, "a");
    subscribe(8, 1, "a");
    assert_int_equal(MP_EEXIST, try_subscribe(7, 2, "b"));
    of_client(MP_TOPIC_UNSUBSCRIBE, 7, 1);
    publish("a", 1);
    says("7/2 n1 a:1=1;8/1 n1 a:1=1;");
    of_client(MP_TOPIC_CLIENT_GONE, 7, 0);
    of_client(MP_TOPIC_CLIENT_GONE, 7, 0);
    publish("a", 2);
    says("8/1 n1 a:2=2;");
    assert_int_equal(MP_ENOENT, step((struct mp_topic_event){
                                    .kind = MP_TOPIC_UNSUBSCRIBE, .client = 7, .id = 2}));
    assert_int_equal(1, mp_topic_get_stats(topic).subscriptions);
}

static void one_bad_topic_refuses_all(void **state)
{
    (void)state;
    static const uint8_t two[] = "\x92\x92\xa1"
                                 "a\x01\x92\xa3"
                                 "a.*\x02";
    subscribe(7, 1, "#");
    assert_int_equal(MP_EINVAL,
                     step((struct mp_topic_event){.kind = MP_TOPIC_PUBLISH,
                                                  .publish = mp_slice_of(two, sizeof(two) - 1)}));
    assert_int_equal(0, out.count);
    assert_int_equal(1, out.bad_index);
    assert_string_equal("* and # stand in patterns only, not in a topic (word 2 of \"a.*\")",
                        out.message);
    publish("a", 3);
    says("7/1 n1 a:1=3;");
    assert_int_equal(MP_EINVAL, try_subscribe(7, 3, "a..b"));
    assert_string_equal("a topic has an empty word (word 2 of \"a..b\")", out.message);
    assert_int_equal(MP_ETOOLARGE, try_publish("a", 0, MP_TOPIC_PUBLISH_MAX + 1));
    assert_int_equal(MP_ECORRUPT, step((struct mp_topic_event){.kind = MP_TOPIC_PUBLISH,
                                                               .publish = mp_slice_str("\x91")}));
    assert_int_equal(MP_ECORRUPT,
                     step((struct mp_topic_event){.kind = MP_TOPIC_PUBLISH,
                                                  .publish = mp_slice_str("\x90\x01")}));
    assert_int_equal(1, mp_topic_get_stats(topic).published);
}

static void time_never_goes_back(void **state)
{
    (void)state;
    struct mp_slice v;
    int64_t at;
    subscribe(7, 1, "a");
    publish("a", 1);
    now -= MP_SECONDS(5);
    publish("a", 2);
    must(mp_mp_array_get(out.items[0].payload, 0, &v));
    must(mp_mp_array_get(v, 2, &v));
    must(mp_mp_get_int(v, &at));
    assert_int_equal(wall() + 5000, at);
}

/* --- those who take nothing for a while --- */

static void what_is_blocked_waits_and_goes_first(void **state)
{
    (void)state;
    subscribe(7, 1, "a");
    of_client(MP_TOPIC_BLOCKED, 7, 0);
    of_client(MP_TOPIC_BLOCKED, 8, 0);
    subscribe(8, 1, "a");
    publish("a", 1);
    says("");
    publish("a", 2);
    begin_messages(1);
    put_message("a", 90, WALL, 3);
    must(receive("n2", 0, 0));
    assert_true(mp_topic_get_stats(topic).queued_bytes > 0);
    of_client(MP_TOPIC_READY, 7, 0);
    says("7/1 n1 a:1=1 a:2=2;7/1 n2 a:90=3;");
    publish("a", 4);
    says("7/1 n1 a:3=4;");
    of_client(MP_TOPIC_CLIENT_GONE, 8, 0);
    assert_int_equal(0, mp_topic_get_stats(topic).queued_bytes);
}

static void what_is_too_much_is_told_in_its_place(void **state)
{
    (void)state;
    must(
        step((struct mp_topic_event){.kind = MP_TOPIC_SUBSCRIBE,
                                     .client = 7,
                                     .id = 1,
                                     .subscribe = {.pattern = mp_slice_str("#"), .queue_max = 3}}));
    of_client(MP_TOPIC_BLOCKED, 7, 0);
    publish("a", 1);
    publish("a", 2);
    begin_messages(1);
    put_message("b", 50, WALL, 0);
    must(receive("n2", 0, 0));
    begin_messages(2);
    put_message("b", 51, WALL, 0);
    put_message("b", 52, WALL, 0);
    must(receive("n2", 0, 0));
    publish("a", 3);
    says("");
    of_client(MP_TOPIC_READY, 7, 0);
    says("7/1 n1 a:1=1 a:2=2;7/1 n2 b:50=0;7/1 n1 -1>2;7/1 n2 -2>50;");
    publish("a", 4);
    says("7/1 n1 a:4=4;");
    assert_int_equal(3, mp_topic_get_stats(topic).dropped);
}

static void a_gap_is_told_ahead_of_what_comes_after(void **state)
{
    (void)state;
    char text[3000];
    subscribe(7, 1, "#");
    of_client(MP_TOPIC_BLOCKED, 7, 0);
    /* one message fills the queue's bytes; then a small one still fits, and has a gap before it */
    memset(text, 'x', sizeof(text));
    for (uint64_t i = 0; i < 3000; i++) {
        begin_messages(0);
        mp_buf_clear(&payload);
        must(mp_mp_put_array(&payload, 1));
        must(mp_mp_put_array(&payload, 2));
        must(mp_mp_put_text(&payload, "a"));
        must(mp_mp_put_str(&payload, mp_slice_of(text, i == 2999 ? 1 : sizeof(text))));
        must(step(
            (struct mp_topic_event){.kind = MP_TOPIC_PUBLISH, .publish = mp_buf_slice(&payload)}));
    }
    uint64_t dropped = mp_topic_get_stats(topic).dropped;
    assert_in_range(dropped, 100, 300);
    of_client(MP_TOPIC_READY, 7, 0);
    uint64_t delivered = 0;
    uint64_t told = 0;
    for (int turns = 0; turns < 100; turns++) {
        for (uint32_t i = 0; i < out.count; i++) {
            const struct mp_topic_effect *e = &out.items[i];
            delivered += e->count;
            if (e->dropped != 0) {
                told += e->dropped;
                assert_int_equal(1, e->count);
                assert_int_equal(2999 - dropped, e->after_seq);
            }
        }
        if (mp_topic_deadline(topic) > now)
            break;
        timer();
    }
    assert_int_equal(3000, delivered + told);
    assert_int_equal(dropped, told);
}

static void a_turn_is_bounded_and_goes_on_at_once(void **state)
{
    (void)state;
    subscribe(7, 1, "a");
    subscribe(7, 2, "a");
    of_client(MP_TOPIC_BLOCKED, 7, 0);
    for (int i = 0; i < 4; i++)
        must(try_publish("a", 1000000, 50000 / 4));
    of_client(MP_TOPIC_READY, 7, 0);
    uint64_t delivered[3] = {0};
    for (int turn = 0; turn < 4; turn++) {
        size_t bytes = 0;
        for (uint32_t i = 0; i < out.count; i++) {
            bytes += out.items[i].payload.size;
            delivered[out.items[i].id] += out.items[i].count;
        }
        assert_true(bytes < MP_TOPIC_TURN_BYTES + MP_TOPIC_BATCH_BYTES + 100);
        if (mp_topic_deadline(topic) > now)
            break;
        assert_int_equal(now, mp_topic_deadline(topic));
        /* both get on */
        if (turn == 1)
            assert_true(delivered[1] != 0 && delivered[2] != 0);
        timer();
    }
    assert_int_equal(50000, delivered[1]);
    assert_int_equal(50000, delivered[2]);
    assert_int_equal(0, mp_topic_get_stats(topic).queued_bytes);
}

static void all_queues_are_bounded_together(void **state)
{
    (void)state;
    char text[8192];
    memset(text, 'x', sizeof(text));
    for (uint64_t i = 0; i < 64; i++) {
        subscribe(i, 1, "#");
        of_client(MP_TOPIC_BLOCKED, i, 0);
    }
    mp_buf_clear(&payload);
    must(mp_mp_put_array(&payload, 2000));
    for (int i = 0; i < 2000; i++) {
        must(mp_mp_put_array(&payload, 2));
        must(mp_mp_put_text(&payload, "a"));
        must(mp_mp_put_str(&payload, mp_slice_of(text, sizeof(text))));
    }
    must(
        step((struct mp_topic_event){.kind = MP_TOPIC_PUBLISH, .publish = mp_buf_slice(&payload)}));
    assert_true(mp_topic_get_stats(topic).queued_bytes <= MP_TOPIC_QUEUES_BYTES_MAX);
    assert_true(mp_topic_get_stats(topic).dropped > 64 * 900);
    assert_true(counted.live_bytes < 2 * MP_TOPIC_QUEUES_BYTES_MAX + (100u << 20));
}

/* --- other publishers --- */

static void others_are_delivered_here_and_sent_no_further(void **state)
{
    (void)state;
    subscribe(7, 1, "a.#");
    must(interest(3, "a.#"));
    must(function(2, "a.#"));
    begin_messages(3);
    put_message("a", 5, WALL, 1);
    put_message("b", 6, WALL, 2);
    put_message("a.c", 9, WALL, 3);
    must(receive("n2", 0, 0));
    says("7/1 n2 a:5=1 a.c:9=3;");
    /* n2 begins anew, and is heard */
    begin_messages(1);
    put_message("a", 1, WALL, 4);
    must(receive("n2", 0, 0));
    says("7/1 n2 a:1=4;");
}

static void what_was_lost_between_nodes_is_told_to_all(void **state)
{
    (void)state;
    subscribe(7, 1, "a");
    subscribe(7, 2, "b");
    begin_messages(1);
    put_message("a", 5, WALL, 1);
    must(receive("n2", 0, 0));
    begin_messages(1);
    put_message("a", 9, WALL, 2);
    must(receive("n2", 3, 5));
    says("7/1 n2 -3>5 a:9=2;7/2 n2 -3>5;");
}

static void messages_of_others_are_checked(void **state)
{
    (void)state;
    subscribe(7, 1, "#");
    begin_messages(2);
    put_message("a", 5, WALL, 1);
    put_message("a", 5, WALL, 1);
    assert_int_equal(MP_ECORRUPT, receive("n2", 0, 0));
    begin_messages(1);
    put_message("a.*", 5, WALL, 1);
    assert_int_equal(MP_ECORRUPT, receive("n2", 0, 0));
    begin_messages(1);
    put_message("a", 0, WALL, 1);
    assert_int_equal(MP_ECORRUPT, receive("n2", 0, 0));
    begin_messages(1);
    put_message("a", 1, WALL, 1);
    assert_int_equal(MP_ECORRUPT, receive("n1", 0, 0));
    assert_int_equal(MP_ECORRUPT, receive("", 0, 0));
    must(mp_buf_append_byte(&payload, 0));
    assert_int_equal(MP_ECORRUPT, receive("n2", 0, 0));
    says("");
    assert_int_equal(0, mp_topic_get_stats(topic).received);
}

static void many_publishers_are_heard(void **state)
{
    (void)state;
    char name[16];
    subscribe(7, 1, "#");
    for (uint64_t round = 1; round <= 2; round++) {
        for (int i = 0; i < 1000; i++) {
            snprintf(name, sizeof(name), "p%d", i);
            begin_messages(1);
            put_message("a", round, WALL, 1);
            must(receive(name, 0, 0));
            assert_int_equal(1, out.count);
            assert_true(mp_slice_is(out.items[0].publisher, name));
        }
    }
}

/* --- members --- */

static void a_member_gets_a_message_once(void **state)
{
    (void)state;
    must(interest(3, "#.c a.*"));
    publish("a.c", 1);
    says("m3 a.c:1=1;");
    publish("a.b", 2);
    publish("x", 3);
    publish("c", 4);
    says("");
    must(ack(3, false));
    says("m3 a.b:2=2 c:4=4;");
    must(ack(3, false));
    says("");
    must(interest(3, "a.*"));
    publish("c", 5);
    says("");
    must(interest(3, ""));
    publish("a.a", 6);
    says("");
    assert_false(mp_topic_is_wanted(topic, mp_slice_str("a.a")));
}

static void lost_batches_are_told_with_the_next(void **state)
{
    (void)state;
    must(interest(3, "a"));
    publish("a", 1);
    publish("a", 2);
    must(ack(3, false));
    says("m3 a:2=2;");
    must(ack(3, true));
    says("");
    publish("a", 3);
    says("m3 -1>1 a:3=3;");
    publish("a", 4);
    must(ack(3, true));
    says("m3 -2>1 a:4=4;");
    must(ack(3, false));
    publish("a", 5);
    says("m3 a:5=5;");
    must(ack(3, false));
    must(ack(3, false));
    must(ack(4, false));
    says("");
}

static void a_member_that_is_slow_loses(void **state)
{
    (void)state;
    must(interest(3, "a"));
    publish("a", 0);
    for (int i = 0; i < 3; i++)
        must(try_publish("a", 1, 40000));
    uint64_t seen = 1;
    uint64_t told = 0;
    for (int i = 0; i < 1000; i++) {
        must(ack(3, false));
        if (out.count == 0)
            break;
        assert_int_equal(1, out.count);
        assert_true(out.items[0].payload.size <= MP_TOPIC_BATCH_BYTES + 5);
        seen += out.items[0].count;
        told += out.items[0].dropped;
        if (out.items[0].dropped != 0)
            assert_int_equal(seen, out.items[0].after_seq);
    }
    assert_int_equal(MP_TOPIC_QUEUE_MESSAGES_MAX + 1, seen);
    assert_int_equal(120001, seen + told);
}

static void a_member_that_goes_is_forgotten(void **state)
{
    (void)state;
    must(interest(3, "a"));
    must(interest(4, "a"));
    publish("a", 1);
    publish("a", 2);
    must(step((struct mp_topic_event){.kind = MP_TOPIC_MEMBER_GONE, .member = 3}));
    must(step((struct mp_topic_event){.kind = MP_TOPIC_MEMBER_GONE, .member = 5}));
    must(ack(3, false));
    must(ack(4, false));
    says("m4 a:2=2;");
    must(interest(3, "a"));
    publish("a", 3);
    says("m3 a:3=3;");
}

static void patterns_of_members_are_checked(void **state)
{
    (void)state;
    must(interest(3, "a b"));
    assert_int_equal(MP_EINVAL, interest(3, "b a"));
    assert_string_equal("patterns have to ascend, each but once: a", out.message);
    assert_int_equal(MP_EINVAL, interest(3, "a a"));
    assert_int_equal(MP_EINVAL, interest(3, "a b..c"));
    assert_string_equal("a topic has an empty word (word 2 of \"b..c\")", out.message);
    assert_int_equal(MP_ECORRUPT,
                     step((struct mp_topic_event){
                         .kind = MP_TOPIC_INTEREST, .member = 3, .interest = mp_slice_str("x")}));
    publish("b", 1);
    says("m3 b:1=1;");
}

/* --- functions --- */

static void a_function_is_called_for_each_message(void **state)
{
    (void)state;
    must(function(2, "# a.*"));
    must(function(9, "a.b"));
    must(try_publish("a.b", 5, 2));
    says("f2 n1 a.b:1=5;f2 n1 a.b:2=6;f9 n1 a.b:1=5;f9 n1 a.b:2=6;");
    must(function(2, ""));
    publish("a.b", 7);
    says("f9 n1 a.b:3=7;");
    assert_int_equal(5, mp_topic_get_stats(topic).called);
}

static void functions_take_as_much_as_there_is_room(void **state)
{
    (void)state;
    must(function(2, "a"));
    must(step((struct mp_topic_event){.kind = MP_TOPIC_ROOM, .room = 1}));
    must(try_publish("a", 5, 3));
    says("f2 n1 a:1=5;");
    must(step((struct mp_topic_event){.kind = MP_TOPIC_ROOM, .room = 0}));
    says("");
    must(step((struct mp_topic_event){.kind = MP_TOPIC_ROOM, .room = 10}));
    says("f2 n1 a:2=6;f2 n1 a:3=7;");
    must(step((struct mp_topic_event){.kind = MP_TOPIC_ROOM, .room = 0}));
    must(try_publish("a", 0, 60000));
    must(try_publish("a", 0, 60000));
    must(step((struct mp_topic_event){.kind = MP_TOPIC_ROOM, .room = UINT32_MAX}));
    assert_int_equal(MP_TOPIC_QUEUE_MESSAGES_MAX + 1, out.count);
    assert_int_equal(MP_TOPIC_MISSED, out.items[out.count - 1].kind);
    assert_int_equal(120000 - MP_TOPIC_QUEUE_MESSAGES_MAX, out.items[out.count - 1].dropped);
}

/* --- interest --- */

static void interest_is(const char *expected)
{
    struct mp_buf b;
    struct mp_mp_reader r;
    uint32_t count;
    char text[512] = "";
    mp_buf_init(&b, &alloc, 0);
    must(mp_topic_put_interest(topic, &b));
    must(mp_mp_get_array(mp_buf_slice(&b), &count, &r));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token token;
        must(mp_mp_next(&r, &token));
        assert_true(strlen(text) + token.bytes.size + 2 < sizeof(text));
        if (i != 0)
            strcat(text, " ");
        strncat(text, (const char *)token.bytes.data, token.bytes.size);
    }
    mp_buf_fini(&b);
    assert_string_equal(expected, text);
}

static void own_interest_is_that_of_clients(void **state)
{
    (void)state;
    must(function(1, "f"));
    must(interest(3, "m"));
    assert_false(out.is_interest_changed);
    interest_is("");
    subscribe(7, 1, "b.#");
    assert_true(out.is_interest_changed);
    subscribe(8, 1, "b.#");
    assert_false(out.is_interest_changed);
    subscribe(8, 2, "a");
    subscribe(8, 3, "b");
    interest_is("a b b.#");
    of_client(MP_TOPIC_UNSUBSCRIBE, 7, 1);
    assert_false(out.is_interest_changed);
    of_client(MP_TOPIC_CLIENT_GONE, 8, 0);
    assert_true(out.is_interest_changed);
    interest_is("");
}

static void much_interest_is_told_in_short(void **state)
{
    (void)state;
    char pattern[64];
    for (uint64_t i = 0; i < MP_TOPIC_INTEREST_MAX + 1; i++) {
        snprintf(pattern, sizeof(pattern), "%c.x%d", (int)('a' + i % 3), (int)i);
        subscribe(7, i, pattern);
    }
    interest_is("a.# b.# c.#");
    subscribe(8, 1, "*.x");
    interest_is("#");
    of_client(MP_TOPIC_UNSUBSCRIBE, 8, 1);
    interest_is("a.# b.# c.#");
    for (uint64_t i = 0; i < MP_TOPIC_INTEREST_MAX; i++) {
        snprintf(pattern, sizeof(pattern), "y%d", (int)i);
        subscribe(9, i, pattern);
    }
    interest_is("#");
    of_client(MP_TOPIC_CLIENT_GONE, 9, 0);
    of_client(MP_TOPIC_UNSUBSCRIBE, 7, 0);
    struct mp_buf b;
    uint32_t count;
    struct mp_mp_reader r;
    mp_buf_init(&b, &alloc, 0);
    must(mp_topic_put_interest(topic, &b));
    must(mp_mp_get_array(mp_buf_slice(&b), &count, &r));
    assert_int_equal(MP_TOPIC_INTEREST_MAX, count);
    /* what is told may be told to another one: it ascends */
    must(step((struct mp_topic_event){
        .kind = MP_TOPIC_INTEREST, .member = 1, .interest = mp_buf_slice(&b)}));
    mp_buf_fini(&b);
}

static void it_is_known_whether_somebody_wants_a_topic(void **state)
{
    (void)state;
    assert_false(mp_topic_is_wanted(topic, mp_slice_str("a.b")));
    must(function(1, "a.#"));
    assert_true(mp_topic_is_wanted(topic, mp_slice_str("a.b")));
    assert_true(mp_topic_is_wanted(topic, mp_slice_str("a.b")));
    assert_false(mp_topic_is_wanted(topic, mp_slice_str("b")));
    assert_false(mp_topic_is_wanted(topic, mp_slice_str("a.*")));
    must(function(1, ""));
    assert_false(mp_topic_is_wanted(topic, mp_slice_str("a.b")));
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(who_subscribes_gets_what_matches),
        test(a_step_is_one_delivery),
        test(subscriptions_end),
        test(one_bad_topic_refuses_all),
        test(time_never_goes_back),
        test(what_is_blocked_waits_and_goes_first),
        test(what_is_too_much_is_told_in_its_place),
        test(a_gap_is_told_ahead_of_what_comes_after),
        test(a_turn_is_bounded_and_goes_on_at_once),
        test(all_queues_are_bounded_together),
        test(others_are_delivered_here_and_sent_no_further),
        test(what_was_lost_between_nodes_is_told_to_all),
        test(messages_of_others_are_checked),
        test(many_publishers_are_heard),
        test(a_member_gets_a_message_once),
        test(lost_batches_are_told_with_the_next),
        test(a_member_that_is_slow_loses),
        test(a_member_that_goes_is_forgotten),
        test(patterns_of_members_are_checked),
        test(a_function_is_called_for_each_message),
        test(functions_take_as_much_as_there_is_room),
        test(own_interest_is_that_of_clients),
        test(much_interest_is_told_in_short),
        test(it_is_known_whether_somebody_wants_a_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
