/* Deployed units and the workers: who gets them when, when a load has ended, and what happens when
 * one goes wrong. */
#include "spec/c/host/scripted.h"

#define IS(ev_kind) (ev->kind == (ev_kind))

/* A unit of modules with these sources, named a, b, c…, and a description of it. */
static struct {
    struct mp_buf bytes;
    struct mp_buf description;
    uint8_t hash[MP_UNIT_HASH_BYTES];
} units[8];

static enum mp_err put_module(struct mp_buf *unit, struct mp_buf *description, uint32_t i,
                              struct mp_slice source)
{
    uint8_t hash[MP_UNIT_HASH_BYTES];
    const char name[] = {(char)('a' + i), '\0'};
    mp_host_sha256(source, hash);
    MP_TRY(mp_mp_put_array(unit, 2));
    MP_TRY(mp_mp_put_text(unit, name));
    MP_TRY(mp_mp_put_str(unit, source));
    MP_TRY(mp_mp_put_array(description, 2));
    MP_TRY(mp_mp_put_bin(description, mp_slice_of(hash, sizeof(hash))));
    MP_TRY(mp_mp_put_map(description, 1));
    MP_TRY(mp_mp_put_text(description, "functions"));
    MP_TRY(mp_mp_put_array(description, 1));
    MP_TRY(mp_mp_put_map(description, 1));
    return mp_mp_put_str_pair(description, "name", mp_slice_str("f"));
}

static void make_unit_of(uint32_t number, uint32_t count, const struct mp_slice *sources)
{
    struct mp_buf *unit = &units[number].bytes;
    struct mp_buf *description = &units[number].description;
    mp_buf_fini(unit);
    mp_buf_fini(description);
    mp_buf_init(unit, mp_host_alloc(), 0);
    mp_buf_init(description, mp_host_alloc(), 0);
    assert_int_equal(mp_mp_put_array(unit, count), MP_OK);
    assert_int_equal(mp_mp_put_array(description, count), MP_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(put_module(unit, description, i, sources[i]), MP_OK);
    mp_host_sha256(mp_buf_slice(unit), units[number].hash);
}

static void make_unit(uint32_t number, uint32_t count, const char *const *sources)
{
    struct mp_slice slices[8];
    for (uint32_t i = 0; i < count; i++)
        slices[i] = mp_slice_str(sources[i]);
    make_unit_of(number, count, slices);
}

static void keep(uint64_t ticket, uint32_t number)
{
    emit_with(MP_NODE_KEEP_UNIT, ticket, mp_buf_slice(&units[number].bytes),
              mp_buf_slice(&units[number].description));
}

static void load(uint64_t ticket, uint32_t number)
{
    emit_with(MP_NODE_LOAD_UNIT, ticket, mp_slice_of(units[number].hash, MP_UNIT_HASH_BYTES),
              mp_slice_of(NULL, 0));
}

static bool all_ready(const struct mp_node_event *ev)
{
    return IS(MP_NODE_WORKER_READY) && spec.ready == spec.workers;
}

static void wait_ms(uint64_t ms)
{
    spec.deadline = mp_host_clock() + MP_MS(ms);
}

static const struct seen *seen_with(enum mp_node_event_kind kind, uint64_t ticket)
{
    for (uint32_t i = 0; i < spec.seen_count; i++)
        if (spec.seen[i].kind == kind && spec.seen[i].ticket == ticket)
            return &spec.seen[i];
    fail_msg("no event %d with ticket %d", (int)kind, (int)ticket);
    return NULL;
}

/* --- entries --- */

static void keep_three(const struct mp_node_event *ev, const struct seen *s)
{
    static const uint8_t entries[] = {0x93, 5, 6, 7};
    if (IS(MP_NODE_RESTORED))
        assert_false(spec.is_start_seen);
    if (IS(MP_NODE_START))
        emit_with(MP_NODE_KEEP_ENTRIES, 11, mp_slice_of(entries, 4), mp_slice_of(NULL, 0));
    if (s && s->kind == MP_NODE_KEPT)
        end();
}

static void entries_are_restored_before_the_start(void **state)
{
    (void)state;
    run_host(1, keep_three);
    assert_int_equal(spec.seen[0].kind, MP_NODE_RESTORED);
    assert_int_equal(spec.seen[0].size, 1);
    assert_int_equal(spec.seen[0].bytes[0], 0x90);
    assert_false(seen_with(MP_NODE_KEPT, 11)->is_error);
    forget_seen();
    run_host(1, keep_three);
    assert_int_equal(spec.seen[0].kind, MP_NODE_RESTORED);
    assert_int_equal(spec.seen[0].size, 4);
    assert_memory_equal(spec.seen[0].bytes, "\x93\x05\x06\x07", 4);
}

/* --- loads that go well --- */

static void load_twice(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev)) {
        keep(1, 0);
        load(2, 0);
        load(3, 0);
        emit_with(MP_NODE_READ_UNIT, 5, mp_slice_of(units[0].hash, 32), mp_slice_of(NULL, 0));
        emit_with(MP_NODE_READ_UNIT, 6, mp_slice_of(units[1].hash, 32), mp_slice_of(NULL, 0));
        load(7, 1);
    }
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 3)
        load(4, 0);
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 4)
        wait_ms(20);
    if (IS(MP_NODE_TIMER))
        end();
}

static void a_unit_is_loaded_once_beside_the_own_modules(void **state)
{
    (void)state;
    make_unit(0, 3, (const char *const[]){"one", "two", "three"});
    make_unit(1, 1, (const char *const[]){"nobody has kept this"});
    run_host(2, load_twice);
    assert_false(seen_with(MP_NODE_KEPT, 1)->is_error);
    for (uint64_t ticket = 2; ticket <= 4; ticket++) {
        const struct seen *s = seen_with(MP_NODE_LOADED, ticket);
        assert_false(s->is_error || s->is_missing);
        assert_int_equal(s->unit, 1);
        assert_int_equal(s->first_module, 1);
        assert_int_equal(s->size, units[0].description.size);
        assert_memory_equal(s->bytes, units[0].description.data, s->size);
    }
    for (int w = 1; w <= 2; w++)
        for (int i = 0; i < 3; i++) {
            char line[64];
            snprintf(line, sizeof(line), "w%d LOAD unit=1 module=%d name=%c expected=3 ", w, i + 1,
                     'a' + i);
            assert_int_equal(count_lines(line), 1);
        }
    assert_int_equal(count_lines("LOAD unit=1 "), 6);
    assert_int_equal(count_lines("unit=1 module=2 name=b expected=3 size=3"), 2);
    assert_int_equal(count_lines("more=1"), 4);
    const struct seen *s = seen_with(MP_NODE_FOUND, 5);
    assert_false(s->is_missing);
    assert_int_equal(s->size, units[0].bytes.size);
    assert_memory_equal(s->bytes, units[0].bytes.data, s->size);
    assert_true(seen_with(MP_NODE_FOUND, 6)->is_missing);
    s = seen_with(MP_NODE_LOADED, 7);
    assert_true(s->is_missing && !s->is_error);
}

static void large_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev)) {
        keep(1, 0);
        load(2, 0);
    }
    if (s && s->kind == MP_NODE_LOADED)
        end();
}

static void large_sources_arrive_whole(void **state)
{
    (void)state;
    size_t size = 3 << 20;
    char *large = (char *)malloc(size);
    char line[128];
    for (size_t i = 0; i < size; i++)
        large[i] = (char)('a' + i * 7 % 23);
    const struct mp_slice sources[] = {mp_slice_of(large, size), mp_slice_str("small")};
    make_unit_of(0, 2, sources);
    run_host(2, large_script);
    assert_false(seen_with(MP_NODE_LOADED, 2)->is_error);
    snprintf(line, sizeof(line), "size=%zu sum=%llx large=1", size,
             (unsigned long long)mp_slice_hash(mp_slice_of(large, size), 0));
    assert_int_equal(count_lines(line), 2);
    assert_int_equal(count_lines("size=5 "), 2);
    free(large);
}

static void places_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev)) {
        for (uint32_t i = 0; i < 4; i++)
            keep(10 + i, i);
        load(1, 0);
    }
    if (!s || s->kind != MP_NODE_LOADED)
        return;
    if (s->ticket == 1)
        load(2, 1);
    if (s->ticket == 2) {
        emit(MP_NODE_UNLOAD_UNIT)->unit = 1;
        load(3, 2);
    }
    if (s->ticket == 3)
        load(4, 3);
    if (s->ticket == 4)
        end();
}

static void places_that_an_unload_freed_are_given_anew(void **state)
{
    (void)state;
    make_unit(0, 2, (const char *const[]){"1", "2"});
    make_unit(1, 1, (const char *const[]){"3"});
    make_unit(2, 2, (const char *const[]){"4", "5"});
    make_unit(3, 1, (const char *const[]){"6"});
    run_host(1, places_script);
    assert_int_equal(seen_with(MP_NODE_LOADED, 1)->first_module, 1);
    assert_int_equal(seen_with(MP_NODE_LOADED, 2)->first_module, 3);
    assert_int_equal(seen_with(MP_NODE_LOADED, 3)->first_module, 1);
    assert_int_equal(seen_with(MP_NODE_LOADED, 3)->unit, 1);
    assert_int_equal(seen_with(MP_NODE_LOADED, 4)->first_module, 4);
    assert_int_equal(seen_with(MP_NODE_LOADED, 4)->unit, 3);
    const char *unloaded = strstr(worker_log(), "UNLOAD unit=1");
    assert_non_null(unloaded);
    assert_non_null(strstr(unloaded, "LOAD unit=1 module=1 name=a"));
}

/* --- workers that start --- */

static void restart_script(const struct mp_node_event *ev, const struct seen *s)
{
    static const uint8_t entries[] = {0x92, 0x93, 0xa1, 'a', 1, 0, 0x93, 0xa1, 'b', 2, 1};
    if (all_ready(ev) && spec.deaths == 0) {
        keep(10, 0);
        keep(11, 1);
        load(1, 0);
        load(2, 1);
    }
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 2) {
        struct mp_node_effect *e = emit(MP_NODE_OPEN_RELEASE);
        e->release = 8;
        e->payload.bytes = own_bytes(mp_slice_of(entries, sizeof(entries)));
        emit(MP_NODE_OPEN_RELEASE)->release = 9;
        spec.effects[spec.effect_count - 1].payload.bytes = own_bytes(mp_slice_of("\x90", 1));
        emit(MP_NODE_CLOSE_RELEASE)->release = 9;
        e = emit(MP_NODE_SEND);
        e->id = 1ull << 32;
        e->module = 2;
        e->release = 8;
        emit(MP_NODE_WORKER_KILL)->worker = 1;
    }
    if (IS(MP_NODE_WORKER_READY) && spec.ready == 3)
        wait_ms(20);
    if (IS(MP_NODE_TIMER))
        end();
}

static void a_worker_that_starts_gets_the_units_and_then_the_releases(void **state)
{
    (void)state;
    static const uint8_t as_read[] = {0x92, 0x93, 0xa1, 'a', 1, 1, 0x93, 0xa1, 'b', 2, 3};
    char line[96];
    make_unit(0, 1, (const char *const[]){"1"});
    make_unit(1, 2, (const char *const[]){"2", "3"});
    run_host(2, restart_script);
    snprintf(line, sizeof(line), "w1 OPEN release=8 size=11 sum=%llx",
             (unsigned long long)mp_slice_hash(mp_slice_of(as_read, sizeof(as_read)), 0));
    assert_int_equal(count_lines(line), 1);
    assert_int_equal(count_lines("w1 CLOSE release=9 size=0"), 1);
    assert_int_equal(count_lines("w1 INVOKE module=2 release=8"), 1);
    const char *again = strstr(worker_log(), "w2 CONFIG");
    again = again ? strstr(again + 1, "w2 CONFIG") : NULL;
    assert_non_null(again);
    assert_non_null(again = strstr(again, "w2 LOAD unit=0 module=0"));
    assert_non_null(again = strstr(again, "w2 LOAD unit=1 module=1"));
    assert_non_null(again = strstr(again, "w2 LOAD unit=2 module=2"));
    assert_non_null(again = strstr(again, "w2 LOAD unit=2 module=3"));
    assert_non_null(again = strstr(again, "w2 OPEN release=8 size=11"));
    assert_null(strstr(again, "release=9"));
}

static void keep_many_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (IS(MP_NODE_RESTORED))
        for (uint32_t i = 0; i < 4; i++)
            keep(10 + i, i);
    if (s && s->ticket == 13)
        end();
}

static void many_script(const struct mp_node_event *ev, const struct seen *s)
{
    (void)s;
    if (IS(MP_NODE_RESTORED)) /* before there are workers */
        for (uint32_t i = 0; i < 4; i++)
            load(20 + i, i);
    if (IS(MP_NODE_START) || IS(MP_NODE_TIMER))
        wait_ms(20);
    if (spec.ready == 2 && spec.seen_count == 5 && count_lines("LOAD") == 66)
        end();
}

static void units_that_are_loaded_at_the_start_reach_all_workers(void **state)
{
    (void)state;
    char *large = (char *)malloc(12 << 20);
    memset(large, 'x', 12 << 20);
    for (uint32_t i = 0; i < 4; i++) {
        struct mp_slice sources[8];
        for (uint32_t k = 0; k < 8; k++)
            sources[k] = mp_slice_of(large + i, k < 2 ? (12 << 20) - 8 - i : 16000);
        make_unit_of(i, 8, sources);
    }
    run_host(1, keep_many_script);
    forget_seen();
    unlink("workers");
    run_host(2, many_script);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(seen_with(MP_NODE_LOADED, 20 + i)->unit, 1 + i);
    assert_int_equal(count_lines("w1 LOAD"), 33);
    assert_int_equal(count_lines("w2 LOAD"), 33);
    free(large);
}

/* --- who is waited for --- */

static mp_time asked_at;

static void compute_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev)) {
        keep(10, 0);
        struct mp_node_effect *e = emit(MP_NODE_SEND);
        e->id = 1ull << 32;
        e->function = 7;
        wait_ms(50);
    }
    if (IS(MP_NODE_TIMER)) {
        asked_at = mp_host_clock();
        load(1, 0);
    }
    if (s && s->kind == MP_NODE_LOADED)
        end();
}

static void a_worker_that_computes_is_not_waited_for(void **state)
{
    (void)state;
    make_unit(0, 1, (const char *const[]){"1"});
    run_host(2, compute_script);
    const struct seen *s = seen_with(MP_NODE_LOADED, 1);
    assert_false(s->is_error);
    assert_true(s->at - asked_at < MP_MS(MP_UNIT_LOAD_WAIT_MS));
    assert_int_equal(count_lines("w2 LOAD unit=1"), 1);
    assert_int_equal(count_lines("w1 LOAD unit=1"), 0);
}

static void slow_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev))
        keep(10, 0);
    if (s && s->kind == MP_NODE_KEPT) {
        asked_at = mp_host_clock();
        load(1, 0);
    }
    if (s && s->kind == MP_NODE_LOADED)
        end();
}

static void a_load_that_takes_long_is_waited_for_250_ms(void **state)
{
    (void)state;
    make_unit(0, 1, (const char *const[]){"SLOW"});
    run_host(1, slow_script);
    const struct seen *s = seen_with(MP_NODE_LOADED, 1);
    assert_false(s->is_error);
    assert_true(s->at - asked_at >= MP_MS(MP_UNIT_LOAD_WAIT_MS) - MP_MS(1));
    assert_true(s->at - asked_at < MP_MS(600));
}

/* --- loads that go wrong --- */

static void wrong_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev) && spec.seen_count == 1) {
        keep(10, 0);
        keep(11, 1);
        load(1, 0);
    }
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 1)
        load(2, 1);
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 2)
        wait_ms(300);
    if (IS(MP_NODE_TIMER))
        end();
}

static void what_a_worker_cannot_load_is_taken_out_of_all(void **state)
{
    (void)state;
    make_unit(0, 2, (const char *const[]){"good", "FAIL"});
    make_unit(1, 1, (const char *const[]){"good"});
    run_host(2, wrong_script);
    const struct seen *s = seen_with(MP_NODE_LOADED, 1);
    assert_true(s->is_error);
    assert_string_equal(s->code, "INVALID_ARGUMENT");
    assert_string_equal(s->reason, "LOAD_ERROR");
    assert_int_equal(count_lines("UNLOAD unit=1"), 2);
    s = seen_with(MP_NODE_LOADED, 2);
    assert_false(s->is_error);
    assert_int_equal(s->unit, 1);
    assert_int_equal(s->first_module, 1);
}

static void what_ends_a_worker_is_an_error_and_goes_to_no_other(void **state)
{
    (void)state;
    make_unit(0, 1, (const char *const[]){"CRASH"});
    make_unit(1, 1, (const char *const[]){"good"});
    run_host(1, wrong_script);
    const struct seen *s = seen_with(MP_NODE_LOADED, 1);
    assert_true(s->is_error);
    assert_string_equal(s->code, "INTERNAL");
    assert_string_equal(s->reason, "LOAD_CRASHED");
    assert_string_equal(s->message, "loading module a ended a worker: signal 9 (SIGKILL)");
    assert_false(seen_with(MP_NODE_LOADED, 2)->is_error);
    assert_int_equal(spec.deaths, 2); /* the second one at the end */
    assert_int_equal(count_lines("size=5 "), 1);
}

static void later_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (all_ready(ev) && spec.deaths == 0) {
        keep(10, 0);
        load(1, 0);
    }
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 1) {
        put_file("crash", "");
        emit(MP_NODE_WORKER_KILL)->worker = 0;
    }
    if (IS(MP_NODE_WORKER_READY) && spec.deaths > 0)
        load(2, 0);
    if (s && s->kind == MP_NODE_LOADED && s->ticket == 2)
        end();
}

static void a_good_unit_that_ends_workers_later_is_withheld_in_the_end(void **state)
{
    (void)state;
    make_unit(0, 1, (const char *const[]){"LATER"});
    run_host(1, later_script);
    assert_false(seen_with(MP_NODE_LOADED, 1)->is_error);
    assert_int_equal(count_lines("LOAD unit=1"), 1 + MP_UNIT_CRASHES_MAX);
    assert_int_equal(spec.deaths, 1 + MP_UNIT_CRASHES_MAX + 1);
    assert_string_equal(seen_with(MP_NODE_LOADED, 2)->reason, "LOAD_CRASHED");
}

int main(int argc, char **argv)
{
    int code = 0;
    if (is_child(argc, argv, &code))
        return code;
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(entries_are_restored_before_the_start),
        TEST(a_unit_is_loaded_once_beside_the_own_modules),
        TEST(large_sources_arrive_whole),
        TEST(places_that_an_unload_freed_are_given_anew),
        TEST(a_worker_that_starts_gets_the_units_and_then_the_releases),
        TEST(units_that_are_loaded_at_the_start_reach_all_workers),
        TEST(a_worker_that_computes_is_not_waited_for),
        TEST(a_load_that_takes_long_is_waited_for_250_ms),
        TEST(what_a_worker_cannot_load_is_taken_out_of_all),
        TEST(what_ends_a_worker_is_an_error_and_goes_to_no_other),
        TEST(a_good_unit_that_ends_workers_later_is_withheld_in_the_end),
    };
    code = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < MP_ARRAY_SIZE(units); i++) {
        mp_buf_fini(&units[i].bytes);
        mp_buf_fini(&units[i].description);
    }
    return code;
}
