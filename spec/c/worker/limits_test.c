/* Memory, size and room: what happens at each limit. */
#include "spec/c/worker/json.h"

static const char source[] =
    "local mpreg = require 'mpreg'\n"
    "local ffi = require 'ffi'\n"
    "local M = {}\n"
    "local kept = {}\n"
    "function M.a_echo(x) return x end\n"
    "function M.b_grow()\n"
    "  local t = {}\n"
    "  for i = 1, 1e9 do t[i] = { i } end\n"
    "end\n"
    "function M.c_catch()\n"
    "  local ok, err = pcall(M.b_grow)\n"
    "  return { ok = ok, err = tostring(err) }\n"
    "end\n"
    "function M.d_keep() for i = 1, 1e9 do kept[i] = { i } end end\n"
    "function M.e_catch_keep()\n"
    "  local ok = pcall(M.d_keep)\n"
    "  return ok\n"
    "end\n"
    "function M.f_drop() kept = {} end\n"
    "function M.g_wait() return mpreg.call('x.y') end\n"
    "function M.h_string(n) return ('x'):rep(n) end\n"
    "function M.i_list(n) local t = {} for i = 1, n do t[i] = 1e300 end return t end\n"
    "function M.j_send(n) return #mpreg.call('x.y', ('x'):rep(n)) end\n"
    "function M.k_spin(s) local till = os.clock() + s while os.clock() < till do end end\n"
    "function M.l_crash() ffi.cast('int *', 0)[0] = 1 end\n"
    "return M\n";

enum { ECHO, GROW, CATCH, KEEP, CATCH_KEEP, DROP, WAIT, STRING, LIST, SEND, SPIN, CRASH };

#define MEMORY (24u << 20)

static int start(void **state)
{
    struct host *h = (struct host *)calloc(1, sizeof(*h));
    json_start(h, (struct host_config){.memory_bytes_max = MEMORY}, source);
    *state = h;
    return 0;
}

static int stop(void **state)
{
    host_stop((struct host *)*state);
    free(*state);
    return 0;
}

#define OUT_OF_MEMORY                                                                              \
    "{\"code\":\"RESOURCE_EXHAUSTED\",\"hint\":\"use less at once, or start the node with a "      \
    "larger --worker-memory\",\"message\":\"the function needed more memory than its worker may "  \
    "use (25165824 bytes)\",\"reason\":\"WORKER_MEMORY\"}"

static void test_memory_limit(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 9, WAIT, "[]");
    uint64_t n = json_nested(h, 9, NULL, "x.y", "[]");
    json_invoke(h, 1, GROW, "[]");
    uint16_t flags = json_expect(h, 1, OUT_OF_MEMORY);
    assert_int_equal(flags, MP_RING_ERROR | MP_RING_RETIRE);
    /* the others go on until the host has another worker */
    json_call(h, ECHO, "[1]", "1");
    json_result(h, n, "2", 0);
    json_expect_result(h, 9, "2");
    assert_true(atomic_load(&h->channel.status->memory_bytes) < MEMORY);
}

static void test_memory_limit_caught(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, CATCH, "[]", "{\"err\":\"not enough memory\",\"ok\":false}");
    json_invoke(h, 2, CATCH_KEEP, "[]");
    assert_int_equal(json_expect(h, 2, "false"), MP_RING_RETIRE);
    json_invoke(h, 3, KEEP, "[]");
    assert_int_equal(json_expect(h, 3, OUT_OF_MEMORY), MP_RING_ERROR | MP_RING_RETIRE);
    json_invoke(h, 4, DROP, "[]");
    json_expect(h, 4, "null");
    json_call(h, ECHO, "[1]", "1");
}

/* [xxxx…] of this size, for arguments; the caller frees. */
static struct mp_buf long_argument(size_t size)
{
    struct mp_buf b;
    char *text = malloc(size);
    assert_non_null(text);
    mp_buf_init(&b, &host_alloc, 0);
    memset(text, 'x', size);
    assert_int_equal(mp_mp_put_array(&b, 1), MP_OK);
    assert_int_equal(mp_mp_put_str(&b, mp_slice_of(text, size)), MP_OK);
    free(text);
    return b;
}

static void test_large_values(void **state)
{
    struct host *h = (struct host *)*state;
    const size_t sizes[] = {65500, 65535, 65536, 70000, 1000000, 3000000};
    for (size_t i = 0; i < MP_ARRAY_SIZE(sizes); i++) {
        struct mp_buf args = long_argument(sizes[i]);
        assert_non_null(host_invoke(h, 5, 0, ECHO, mp_buf_slice(&args)));
        struct answer a = host_expect(h, MP_MSG_COMPLETED);
        assert_int_equal(a.flags & MP_RING_ERROR, 0);
        assert_int_equal(a.flags & MP_RING_LARGE ? 1 : 0, a.payload.size >= MP_VALUE_INLINE_MAX);
        assert_int_equal(a.payload.size, args.size - 1);
        assert_memory_equal(a.payload.data, args.data + 1, a.payload.size);
        answer_fini(&a);
        mp_buf_fini(&args);
    }
    json_invoke(h, 6, LIST, "[100000]");
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, MP_RING_LARGE);
    assert_int_equal(a.payload.size, 900005);
    assert_int_equal(mp_mp_check(mp_buf_slice(&a.payload)), MP_OK);
    answer_fini(&a);
    json_call(h, ECHO, "[1]", "1");
    assert_int_equal(mp_arena_used(h->arena), 0);
}

static void test_large_nested_arguments(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, SEND, "[300000]");
    struct answer a = host_expect(h, MP_MSG_NESTED);
    assert_int_equal(a.flags, MP_RING_LARGE);
    assert_int_equal(a.payload.size, 300006);
    json_result(h, a.id, "\"1234567\"", 0);
    answer_fini(&a);
    json_expect_result(h, 5, "7");
}

/* Nobody reads: the answers fill the ring, wait, and come in order later; the calls that would
 * answer more wait too. */
static void test_full_ring(void **state)
{
    struct host *h = (struct host *)*state;
    enum { CALLS = 100 };
    for (uint64_t i = 1; i <= CALLS; i++)
        json_invoke(h, i, STRING, "[60000]");
    host_wake(h);
    /* until the worker stops beginning calls */
    uint64_t turns = 0;
    for (int same = 0; same < 20;) {
        uint64_t now = atomic_load(&h->channel.status->turns);
        same = now == turns && now > 0 ? same + 1 : 0;
        turns = now;
        struct timespec t = {.tv_nsec = 5000000};
        nanosleep(&t, NULL);
    }
    assert_in_range(turns, 10, 30);
    for (uint64_t i = 1; i <= CALLS; i++) {
        struct answer a = host_expect(h, MP_MSG_COMPLETED);
        assert_int_equal(a.id, i);
        assert_int_equal(a.flags, 0);
        assert_int_equal(a.payload.size, 60003);
        answer_fini(&a);
    }
    json_call(h, ECHO, "[1]", "1");
}

static void test_revoked_calls_are_passed_over(void **state)
{
    struct host *h = (struct host *)*state;
    struct mp_buf args = json_value("[1]");
    struct mp_ring_record *first = host_invoke(h, 1, 0, ECHO, mp_buf_slice(&args));
    struct mp_ring_record *second = host_invoke(h, 2, 0, ECHO, mp_buf_slice(&args));
    assert_non_null(host_invoke(h, 3, 0, ECHO, mp_buf_slice(&args)));
    assert_non_null(first);
    uint32_t ready = MP_RING_READY;
    assert_true(atomic_compare_exchange_strong(&second->state, &ready, MP_RING_REVOKED));
    json_expect_result(h, 1, "1");
    json_expect_result(h, 3, "1");
    mp_buf_fini(&args);
}

static void test_running_call_is_published(void **state)
{
    struct host *h = (struct host *)*state;
    struct mp_channel_status *status = h->channel.status;
    json_invoke(h, 77, SPIN, "[0.02]");
    host_wake(h);
    uint64_t until = host_now() + HOST_WAIT_MS * 1000000ull;
    while (atomic_load(&status->running) != 77 && host_now() < until)
        ;
    assert_int_equal(atomic_load(&status->running), 77);
    assert_in_range(host_now() - atomic_load(&status->running_since), 0, 1000000000u);
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_true(a.run_ns >= 15000000);
    answer_fini(&a);
    while (atomic_load(&status->running) != 0 && host_now() < until)
        ;
    assert_int_equal(atomic_load(&status->running), 0);
}

/* Answers before a call that computes are not held back by it. */
static void test_answers_go_out_before_a_long_call(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, SPIN, "[0.01]", "null");
    json_invoke(h, 1, ECHO, "[1]");
    json_invoke(h, 2, SPIN, "[0.3]");
    uint64_t began = host_now();
    json_expect_result(h, 1, "1");
    assert_true(host_now() - began < 250000000);
    json_expect_result(h, 2, "null");
}

static void test_crash_names_the_call(void **state)
{
    (void)state;
    struct host h;
    json_start(&h, (struct host_config){0}, source);
    json_invoke(&h, 5, WAIT, "[]");
    (void)json_nested(&h, 5, NULL, "x.y", "[]");
    json_invoke(&h, 42, CRASH, "[]");
    host_wake(&h);
    int status = 0;
    assert_int_equal(waitpid(h.pid, &status, 0), h.pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(atomic_load(&h.channel.status->running), 42);
    h.pid = 0;
    host_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_memory_limit, start, stop),
        cmocka_unit_test_setup_teardown(test_memory_limit_caught, start, stop),
        cmocka_unit_test_setup_teardown(test_large_values, start, stop),
        cmocka_unit_test_setup_teardown(test_large_nested_arguments, start, stop),
        cmocka_unit_test_setup_teardown(test_full_ring, start, stop),
        cmocka_unit_test_setup_teardown(test_revoked_calls_are_passed_over, start, stop),
        cmocka_unit_test_setup_teardown(test_running_call_is_published, start, stop),
        cmocka_unit_test_setup_teardown(test_answers_go_out_before_a_long_call, start, stop),
        cmocka_unit_test(test_crash_names_the_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
