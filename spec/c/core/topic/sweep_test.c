/* Memory fails at every single place in turn, once in the life of a machine that does everything it
 * can. What is refused for it has changed nothing and can be done again; what is not refused costs
 * messages, which are counted; all memory comes back. */
#include "spec/c/core/topic/topic_harness.h"

/* Memory that ran out is there again after the event that met it. */
static void recover(void)
{
    if (counted.count > counted.fail_at)
        counted.fail_at = SPEC_NEVER;
}

/* Whatever is asked for is done at the first or at the second attempt. */
#define again(call)                                                                                \
    do {                                                                                           \
        size_t before = counted.fail_at;                                                           \
        enum mp_err err = call;                                                                    \
        recover();                                                                                 \
        if (err == MP_ENOMEM) {                                                                    \
            assert_true(before != SPEC_NEVER && counted.fail_at == SPEC_NEVER);                    \
            err = call;                                                                            \
        }                                                                                          \
        assert_int_equal(MP_OK, err);                                                              \
    } while (0)

/* The driver's own memory does not fail. */
static struct spec_alloc plain;
static struct mp_alloc plain_alloc;

static void people_come(void)
{
    again(try_subscribe(7, 1, "a.*.#"));
    again(try_subscribe(7, 2, "#.b"));
    again(interest(3, "#.b a.# c"));
    again(interest(3, "a.# b.* d"));
    again(function(4, "a.#"));
    again(step((struct mp_topic_event){.kind = MP_TOPIC_BLOCKED, .client = 9}));
    again(try_subscribe(9, 1, "#"));
}

static void messages_come(void)
{
    again(try_publish("a.b", 1, 3));
    again(try_publish("a.c", 1, 30));
    begin_messages(2);
    put_message("a.b", 5, WALL, 1);
    put_message("b", 6, WALL, 1);
    again(receive("n2", 0, 0));
    begin_messages(0);
    again(receive("n5", 4, 2));
    again(ack(3, true));
    again(try_publish("a.b", 1, 1));
    again(step((struct mp_topic_event){.kind = MP_TOPIC_READY, .client = 9}));
    now += MP_SECONDS(1);
    again(step((struct mp_topic_event){.kind = MP_TOPIC_KEPT}));
}

static void some_gather(void)
{
    uint64_t gather = 0;
    again(since(9, 2, "a.#", 0));
    for (uint32_t i = 0; i < out.count; i++)
        if (out.items[i].kind == MP_TOPIC_GATHER)
            gather = out.items[i].gather;
    assert_true(gather != 0);
    again(try_publish("a.b", 1, 2));
    begin_messages(2);
    put_message("a.b", 5, WALL, 1);
    put_message("a.c", 8, WALL, 1);
    again(gathered(gather, "n2", 8));
    begin_messages(1);
    put_message("a.b", 1, WALL, 1);
    again(gathered(gather, "n6", 8));
    again(gather_end(gather));
    again(step((struct mp_topic_event){
        .kind = MP_TOPIC_BACKLOG_ASKED, .member = 8, .asked = {.pattern = mp_slice_str("a.*")}}));
    now += MP_SECONDS(10);
    again(step((struct mp_topic_event){.kind = MP_TOPIC_TIMER}));
    again(try_publish("a.b", 1, 1));
}

static void ask_for_interest(void)
{
    struct mp_buf b;
    mp_buf_init(&b, &plain_alloc, 0);
    again(mp_topic_put_interest(topic, &b));
    must(mp_mp_check(mp_buf_slice(&b)));
    mp_buf_fini(&b);
    (void)mp_topic_is_wanted(topic, mp_slice_str("a.x.y"));
    recover();
}

static void people_go(void)
{
    again(step((struct mp_topic_event){.kind = MP_TOPIC_UNSUBSCRIBE, .client = 7, .id = 1}));
    again(interest(3, ""));
    again(function(4, ""));
    again(step((struct mp_topic_event){.kind = MP_TOPIC_CLIENT_GONE, .client = 9}));
    /* what was held up by a lack of memory comes now */
    now += MP_SECONDS(1);
    again(try_publish("x.b", 77, 1));
    assert_true(out.count >= 1);
    effects();
    assert_non_null(strstr(said, "7/2 n1"));
    assert_non_null(strstr(said, "=77"));
}

static bool live(size_t fail_at)
{
    counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&counted);
    now = MP_SECONDS(100000);
    config = (struct mp_topic_config){.node = mp_slice_str("n1"), .room = 10, .is_kept = true};
    counted.fail_at = fail_at;
    again(mp_topic_new(&topic, &config, &alloc));
    begin_messages(2);
    put_message("a.b", 5, wall(), 1);
    put_message("b", 6, wall(), 1);
    again(step(
        (struct mp_topic_event){.kind = MP_TOPIC_RESTORED, .restored = mp_buf_slice(&payload)}));
    people_come();
    messages_come();
    some_gather();
    ask_for_interest();
    people_go();
    bool is_over = counted.fail_at != SPEC_NEVER;
    mp_topic_free(topic);
    assert_int_equal(0, counted.live_bytes);
    return is_over;
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    plain = (struct spec_alloc){.fail_at = SPEC_NEVER};
    plain_alloc = spec_alloc_of(&plain);
    mp_buf_init(&payload, &plain_alloc, 0);
    size_t n = 0;
    while (!live(n))
        n++;
    assert_true(n > 100);
    mp_buf_fini(&payload);
    assert_int_equal(0, plain.live_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_may_fail_anywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
