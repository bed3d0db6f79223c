/* What is kept of each topic, what is written down of it, and subscriptions that begin with it. */
#include "spec/c/core/topic/topic_harness.h"

#include "src/base/limits.h"

/* --- what is kept --- */

static const char *backlog_of(const char *pattern, uint64_t since_ms)
{
    struct mp_mp_reader r;
    uint32_t count;
    must(step((struct mp_topic_event){
        .kind = MP_TOPIC_BACKLOG_ASKED,
        .member = 9,
        .asked = {.pattern = mp_slice_str(pattern), .since_ms = since_ms}}));
    said_size = 0;
    said[0] = '\0';
    must(mp_mp_get_array(out.answer, &count, &r));
    say_messages(out.answer, count);
    return said;
}

static uint32_t kept_of(const char *pattern, uint64_t *first_seq)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice v;
    int64_t seq = 0;
    must(step((struct mp_topic_event){
        .kind = MP_TOPIC_BACKLOG_ASKED, .member = 9, .asked = {.pattern = mp_slice_str(pattern)}}));
    must(mp_mp_check(out.answer));
    must(mp_mp_get_array(out.answer, &count, &r));
    if (count != 0) {
        must(mp_mp_array_get(out.answer, 0, &v));
        must(mp_mp_array_get(v, 1, &v));
        must(mp_mp_get_int(v, &seq));
    }
    *first_seq = (uint64_t)seq;
    must(step((struct mp_topic_event){.kind = MP_TOPIC_MEMBER_GONE, .member = 9}));
    return count;
}

static void the_newest_of_each_topic_are_kept(void **state)
{
    (void)state;
    uint64_t first;
    publish("a.x", 1);
    publish("b", 2);
    now += MP_SECONDS(10);
    publish("a.y", 3);
    publish("a.x", 4);
    assert_string_equal(" a.x:1=1 a.y:3=3 a.x:4=4", backlog_of("a.#", 0));
    assert_int_equal(4, out.upto_seq);
    assert_string_equal(" a.y:3=3 a.x:4=4", backlog_of("a.#", wall() - 1));
    assert_string_equal("", backlog_of("c", 0));
    must(step((struct mp_topic_event){.kind = MP_TOPIC_MEMBER_GONE, .member = 9}));
    for (int i = 0; i < 3; i++)
        must(try_publish("a.x", 0, 500));
    assert_int_equal(MP_TOPIC_BACKLOG_MESSAGES, kept_of("a.x", &first));
    assert_int_equal(505, first);
    assert_int_equal(MP_EINVAL,
                     step((struct mp_topic_event){.kind = MP_TOPIC_BACKLOG_ASKED,
                                                  .member = 9,
                                                  .asked = {.pattern = mp_slice_str("a..b")}}));
}

static void publish_bytes(const char *name, size_t size)
{
    static char text[3u << 20];
    mp_buf_clear(&payload);
    must(mp_mp_put_array(&payload, 1));
    must(mp_mp_put_array(&payload, 2));
    must(mp_mp_put_text(&payload, name));
    must(mp_mp_put_str(&payload, mp_slice_of(text, size)));
    must(
        step((struct mp_topic_event){.kind = MP_TOPIC_PUBLISH, .publish = mp_buf_slice(&payload)}));
}

static void bytes_are_bounded_too(void **state)
{
    (void)state;
    uint64_t first;
    for (uint64_t i = 1; i <= 100; i++)
        publish_bytes("a", 20000 + 37 * i);
    uint32_t count = kept_of("a", &first);
    assert_in_range(count, 40, 52);
    assert_int_equal(101 - count, first);
    /* the newest is kept, whatever its size */
    publish_bytes("a", 3u << 20);
    assert_int_equal(1, kept_of("a", &first));
    publish_bytes("a", 10);
    assert_int_equal(1, kept_of("a", &first));
    assert_int_equal(102, first);
}

static void all_topics_are_bounded_together(void **state)
{
    (void)state;
    char name[16];
    uint64_t first;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        publish_bytes(name, 900000);
        publish_bytes("often", 10);
    }
    assert_true(mp_topic_get_stats(topic).backlog_bytes <= MP_TOPIC_BACKLOGS_BYTES_MAX);
    assert_int_equal(0, kept_of("t0", &first));
    assert_int_equal(1, kept_of("t199", &first));
    assert_int_equal(200, kept_of("often", &first));
    /* an answer is bounded as well: the newest */
    uint32_t count = kept_of("#", &first);
    assert_true(out.answer.size <= MP_TOPIC_ANSWER_BYTES_MAX);
    assert_in_range(count, 9, 24);
    assert_true(first > 380);
    for (int i = 0; i < MP_TOPIC_BACKLOGS_MAX + 10; i++) {
        snprintf(name, sizeof(name), "u%d", i);
        publish(name, 1);
    }
    assert_int_equal(MP_TOPIC_BACKLOGS_MAX, mp_topic_get_stats(topic).topics);
    assert_int_equal(0, kept_of("u9", &first));
    assert_int_equal(1, kept_of("u10", &first));
}

static void what_is_old_goes(void **state)
{
    (void)state;
    uint64_t first;
    publish("a", 1);
    publish("b", 1);
    now += MP_MS(MP_TOPIC_BACKLOG_MS) - MP_SECONDS(1);
    publish("b", 2);
    now += MP_SECONDS(1);
    assert_int_equal(now, mp_topic_deadline(topic));
    timer();
    assert_int_equal(1, mp_topic_get_stats(topic).topics);
    now += MP_MS(1);
    assert_int_equal(1, kept_of("b", &first));
    publish("b", 3);
    assert_int_equal(2, kept_of("b", &first));
}

/* Messages of many sizes, over many rounds of the ring: what is kept is what was published last. */
static void a_ring_keeps_what_came_last(void **state)
{
    (void)state;
    uint64_t first;
    uint64_t seq = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        publish_bytes("a", (i * 7919) % 5000);
        seq++;
        if (i % 100 == 0) {
            uint32_t count = kept_of("a", &first);
            assert_int_equal(seq, first + count - 1);
        }
    }
}

/* --- who asks for a backlog gets what comes --- */

static void asking_is_interest_for_a_while(void **state)
{
    (void)state;
    publish("a", 1);
    assert_string_equal(" a:1=1", backlog_of("a", 0));
    publish("a", 2);
    says("m9 a:2=2;");
    must(ack(9, false));
    must(interest(9, "a"));
    publish("a", 3);
    says("m9 a:3=3;");
    must(ack(9, false));
    assert_int_equal(now + MP_MS(MP_TOPIC_ASKED_MS), mp_topic_deadline(topic));
    now += MP_MS(MP_TOPIC_ASKED_MS);
    timer();
    publish("a", 4);
    says("m9 a:4=4;");
    must(ack(9, false));
    must(interest(9, ""));
    publish("a", 5);
    says("");
}

static void asking_is_bounded(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MP_TOPIC_ASKED_MAX + 1; i++)
        must(step((struct mp_topic_event){
            .kind = MP_TOPIC_BACKLOG_ASKED, .member = i, .asked = {.pattern = mp_slice_str("a")}}));
    publish("a", 1);
    assert_int_equal(MP_TOPIC_ASKED_MAX, out.count);
    assert_int_equal(1, out.items[0].member);
}

/* --- subscriptions that begin with what is kept --- */

static void what_is_kept_comes_first(void **state)
{
    (void)state;
    publish("a", 1);
    publish("b", 2);
    must(since(7, 1, "a.#", 0));
    says("gather 1 a.#;");
    publish("a", 3);
    says("");
    begin_messages(2);
    put_message("a", 11, wall() - 5, 4);
    put_message("a.c", 12, wall() + 5, 5);
    must(gathered(1, "n2", 20));
    begin_messages(0);
    must(gathered(1, "n3", 0));
    must(gather_end(1));
    says("7/1 n2 a:11=4;7/1 n1 a:1=1;7/1 n2 a.c:12=5;7/1 n1 a:3=3;");
    publish("a", 6);
    says("7/1 n1 a:4=6;");
    assert_int_equal(MP_ENOENT, gather_end(1));
    assert_int_equal(MP_ENOENT, gathered(1, "n2", 20));
}

static void what_came_by_both_ways_is_told_once(void **state)
{
    (void)state;
    must(since(7, 1, "a", 0));
    for (uint64_t seq = 5; seq <= 8; seq++) {
        begin_messages(1);
        put_message("a", seq, WALL + seq, seq);
        must(receive("n2", 0, 0));
        says("");
    }
    begin_messages(3);
    for (uint64_t seq = 5; seq <= 7; seq++)
        put_message("a", seq, WALL + seq, seq);
    must(gathered(1, "n2", 7));
    begin_messages(3);
    for (uint64_t seq = 1; seq <= 3; seq++)
        put_message("a", seq, WALL + seq, 0);
    must(gathered(1, "n4", 3));
    must(gather_end(1));
    says("7/1 n4 a:1=0 a:2=0 a:3=0;7/1 n2 a:5=5 a:6=6 a:7=7;7/1 n2 a:8=8;");
    /* what was under way when n4 answered */
    begin_messages(3);
    for (uint64_t seq = 2; seq <= 4; seq++)
        put_message("a", seq, WALL + seq, 0);
    must(receive("n4", 0, 0));
    says("7/1 n4 a:4=0;");
    /* and then n4 begins anew */
    begin_messages(1);
    put_message("a", 1, WALL + 9, 0);
    must(receive("n4", 0, 0));
    says("7/1 n4 a:1=0;");
}

static void a_publisher_that_begins_anew_is_heard(void **state)
{
    (void)state;
    must(since(7, 1, "a", 0));
    begin_messages(1);
    put_message("a", 100, WALL, 1);
    must(gathered(1, "n2", 100));
    must(gather_end(1));
    says("7/1 n2 a:100=1;");
    begin_messages(1);
    put_message("a", 1, WALL + 1, 2);
    must(receive("n2", 0, 0));
    says("7/1 n2 a:1=2;");
}

static void time_is_up_without_all_answers(void **state)
{
    (void)state;
    publish("a", 1);
    must(since(7, 1, "a", 0));
    publish("a", 2);
    mp_time deadline = mp_topic_deadline(topic);
    assert_int_equal(now + MP_MS(MP_TOPIC_GATHER_MS), deadline);
    now = deadline;
    timer();
    says("7/1 n1 a:1=1;7/1 n1 a:2=2;");
    assert_int_equal(MP_ENOENT, gather_end(1));
}

static void answers_are_checked(void **state)
{
    (void)state;
    must(since(7, 1, "a", 0));
    begin_messages(1);
    put_message("b", 5, WALL, 1);
    assert_int_equal(MP_ECORRUPT, gathered(1, "n2", 9));
    begin_messages(1);
    put_message("a", 5, WALL, 1);
    assert_int_equal(MP_ECORRUPT, gathered(1, "n2", 4));
    assert_int_equal(MP_ECORRUPT, gathered(1, "n1", 9));
    assert_int_equal(MP_ECORRUPT, gathered(1, "", 9));
    must(gathered(1, "n2", 9));
    assert_int_equal(MP_ECORRUPT, gathered(1, "n2", 9));
    assert_int_equal(MP_ENOENT, gathered(2, "n2", 9));
    must(gather_end(1));
    says("7/1 n2 a:5=1;");
}

static void one_may_leave_while_it_gathers(void **state)
{
    (void)state;
    publish("a", 1);
    must(since(7, 1, "a", 0));
    must(since(7, 2, "a", 0));
    of_client(MP_TOPIC_UNSUBSCRIBE, 7, 1);
    assert_int_equal(MP_ENOENT, gather_end(1));
    of_client(MP_TOPIC_BLOCKED, 7, 0);
    must(gather_end(2));
    says("");
    of_client(MP_TOPIC_CLIENT_GONE, 7, 0);
    for (uint64_t i = 0; i < MP_TOPIC_GATHERS_MAX; i++)
        must(since(8, i, "a", 0));
    assert_int_equal(MP_EFULL, since(8, 1000, "a", 0));
    publish("a", 2);
    assert_int_equal(MP_TOPIC_GATHERS_MAX, mp_topic_get_stats(topic).subscriptions);
}

static void what_was_dropped_meanwhile_is_told_if_it_did_not_come(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 2; id++)
        must(step((struct mp_topic_event){
            .kind = MP_TOPIC_SUBSCRIBE,
            .client = 7,
            .id = id,
            .subscribe = {.pattern = mp_slice_str("a"), .has_since = true, .queue_max = 2}}));
    for (uint64_t seq = 1; seq <= 5; seq++) {
        begin_messages(1);
        put_message("a", seq, WALL + seq, seq);
        must(receive("n2", 0, 0));
    }
    begin_messages(2);
    put_message("a", 4, WALL + 4, 4);
    put_message("a", 5, WALL + 5, 5);
    must(gathered(1, "n2", 5));
    must(gather_end(1));
    says("7/1 n2 a:4=4 a:5=5;");
    begin_messages(1);
    put_message("a", 3, WALL + 3, 3);
    must(gathered(2, "n2", 3));
    must(gather_end(2));
    says("7/2 n2 a:3=3;7/2 n2 -3>3;");
}

static void too_much_to_gather_is_told(void **state)
{
    (void)state;
    static char text[5u << 20];
    char name[16];
    uint64_t delivered = 0;
    uint64_t told = 0;
    must(since(7, 1, "a", 0));
    for (uint64_t i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "p%d", (int)i);
        mp_buf_clear(&payload);
        must(mp_mp_put_array(&payload, 1));
        must(mp_mp_put_array(&payload, 4));
        must(mp_mp_put_text(&payload, "a"));
        must(mp_mp_put_uint(&payload, 3));
        must(mp_mp_put_uint(&payload, WALL));
        must(mp_mp_put_str(&payload, mp_slice_of(text, sizeof(text))));
        must(gathered(1, name, 9));
    }
    must(gather_end(1));
    for (int turn = 0; turn < 100; turn++) {
        for (uint32_t i = 0; i < out.count; i++) {
            delivered += out.items[i].count;
            told += out.items[i].dropped;
        }
        if (mp_topic_deadline(topic) > now)
            break;
        timer();
    }
    assert_int_equal(12, delivered);
    assert_int_equal(8, told);
}

/* --- what is written down --- */

static int set_up_kept(void **state)
{
    set_up(state);
    mp_topic_free(topic);
    config.is_kept = true;
    open_topic();
    return 0;
}

static void kept(void)
{
    must(step((struct mp_topic_event){.kind = MP_TOPIC_KEPT}));
}

static void what_is_new_is_written_down_now_and_then(void **state)
{
    (void)state;
    publish("a", 1);
    says("keep a:1=1;");
    publish("a", 2);
    says("");
    now += MP_SECONDS(1);
    timer();
    says("");
    kept();
    says("keep a:2=2;");
    kept();
    publish("b", 3);
    says("");
    publish("a", 4);
    assert_int_equal(now + MP_MS(MP_TOPIC_KEEP_MS), mp_topic_deadline(topic));
    now += MP_MS(MP_TOPIC_KEEP_MS);
    timer();
    says("keep b:3=3 a:4=4;");
    kept();
    says("");
}

static void what_goes_is_forgotten(void **state)
{
    (void)state;
    publish("b", 1);
    kept();
    must(try_publish("a", 0, 1000));
    now += MP_SECONDS(1);
    timer();
    assert_int_equal(1000, out.items[0].count);
    kept();
    now += MP_SECONDS(1);
    must(try_publish("a", 0, 3));
    assert_int_equal(2, out.count);
    assert_int_equal(MP_TOPIC_KEEP, out.items[0].kind);
    assert_int_equal(MP_TOPIC_FORGET, out.items[1].kind);
    assert_true(mp_slice_equal(mp_slice_of("\x91\x92\xa1"
                                           "a\x04",
                                           5),
                               out.items[1].payload));
    kept();
    now += MP_MS(MP_TOPIC_BACKLOG_MS);
    timer();
    says("forget 2;");
    assert_int_equal(0, mp_topic_get_stats(topic).topics);
}

static void writing_goes_in_parts(void **state)
{
    (void)state;
    uint64_t written = 0;
    char name[16];
    publish("z", 0);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        publish_bytes(name, 1000000);
    }
    for (int i = 0; i < 20; i++) {
        now += MP_SECONDS(1);
        kept();
        for (uint32_t k = 0; k < out.count; k++) {
            assert_true(out.items[k].payload.size <= MP_TOPIC_KEEP_BYTES + 5);
            written += out.items[k].count;
        }
    }
    assert_int_equal(20, written);
}

static void an_earlier_life_goes_on(void **state)
{
    (void)state;
    begin_messages(3);
    put_message("a", 5, wall() - 2 * MP_TOPIC_BACKLOG_MS, 1);
    put_message("b", 7, wall() - 5000, 2);
    put_message("b", 9, wall() - 2000, 3);
    must(step(
        (struct mp_topic_event){.kind = MP_TOPIC_RESTORED, .restored = mp_buf_slice(&payload)}));
    timer();
    says("forget 1;");
    begin_messages(1);
    put_message("b", 9, wall(), 3);
    assert_int_equal(MP_ECORRUPT,
                     step((struct mp_topic_event){.kind = MP_TOPIC_RESTORED,
                                                  .restored = mp_buf_slice(&payload)}));
    assert_string_equal(" b:7=2 b:9=3", backlog_of("#", 0));
    now += MP_SECONDS(1);
    publish("c", 4);
    assert_int_equal(10, out.seq);
    says("m9 c:10=4;keep c:10=4;");
    now += MP_MS(MP_TOPIC_BACKLOG_MS) - MP_SECONDS(3);
    timer();
    assert_int_equal(1, mp_topic_get_stats(topic).topics);
}

#define test(f)      cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define test_kept(f) cmocka_unit_test_setup_teardown(f, set_up_kept, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(the_newest_of_each_topic_are_kept),
        test(bytes_are_bounded_too),
        test(all_topics_are_bounded_together),
        test(what_is_old_goes),
        test(a_ring_keeps_what_came_last),
        test(asking_is_interest_for_a_while),
        test(asking_is_bounded),
        test(what_is_kept_comes_first),
        test(what_came_by_both_ways_is_told_once),
        test(a_publisher_that_begins_anew_is_heard),
        test(time_is_up_without_all_answers),
        test(answers_are_checked),
        test(one_may_leave_while_it_gathers),
        test(what_was_dropped_meanwhile_is_told_if_it_did_not_come),
        test(too_much_to_gather_is_told),
        test_kept(what_is_new_is_written_down_now_and_then),
        test_kept(what_goes_is_forgotten),
        test_kept(writing_goes_in_parts),
        test_kept(an_earlier_life_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
