/* Units that are tried: what is told of good ones, and of those that loop, crash, eat memory or
 * lie. */
#include "spec/c/host/scripted.h"

/* In place of lua/mpreg/runtime/check.lua: a module's source is run, and its description is what it
 * returns. */
static const char loader[] =
    "return function(native)\n"
    "  local unit, others = native.read()\n"
    "  local file = io.open('checks', 'a')\n"
    "  file:write(#unit, ' ', #others, '\\n')\n"
    "  file:close()\n"
    "  if unit[1][2] == 'lie' then return native.send(true, {{}, {}}) end\n"
    "  if unit[1][2] == 'raise' then error('the loader failed') end\n"
    "  if unit[1][2] == 'no answer' then os.exit(3) end\n"
    "  local all = {}\n"
    "  native.deadline(0.5)\n"
    "  for i, pair in ipairs(unit) do\n"
    "    local f = assert(loadstring(pair[2], '=' .. pair[1] .. '.lua'))\n"
    "    local ok, result = xpcall(function() return f(others, native) end, debug.traceback)\n"
    "    local late = native.deadline(nil)\n"
    "    if late or not ok then\n"
    "      return native.send(false, {code = 'INVALID_ARGUMENT', reason = late and 'LOAD_TIMEOUT'\n"
    "        or 'LOAD_ERROR', message = late or result})\n"
    "    end\n"
    "    all[i] = result\n"
    "  end\n"
    "  native.send(true, all)\n"
    "end\n";

/* One or two modules a unit, tried one after the other unless a test says otherwise. */
static const char *const *wanted; /* NULL ends it */
static uint32_t asked;
static bool are_at_once;

static struct mp_slice unit_of(const char *source)
{
    struct mp_buf b;
    mp_buf_init(&b, mp_host_alloc(), 0);
    const char *names[] = {"a", "b"};
    enum mp_err err = mp_mp_put_array(&b, 2);
    for (int i = 0; err == MP_OK && i < 2; i++) {
        err = mp_mp_put_array(&b, 2);
        if (err == MP_OK)
            err = mp_mp_put_text(&b, names[i]);
        if (err == MP_OK)
            err = mp_mp_put_text(&b, i == 0 ? source : "return {n = 2}");
    }
    assert_int_equal(err, MP_OK);
    struct mp_slice unit = own_bytes(mp_buf_slice(&b));
    mp_buf_fini(&b);
    return unit;
}

static void ask(void)
{
    struct mp_node_effect *e = emit(MP_NODE_CHECK_UNIT);
    e->id = 1 + asked;
    e->payload.bytes = unit_of(wanted[asked++]);
}

static void script(const struct mp_node_event *ev, const struct seen *s)
{
    if (ev->kind == MP_NODE_START) {
        ask();
        while (are_at_once && wanted[asked])
            ask();
        return;
    }
    if (!s || s->kind != MP_NODE_CHECKED)
        return;
    if (wanted[asked])
        ask();
    else if (spec.seen_count == asked + 1) /* RESTORED is one */
        end();
}

static void try_all(const char *const *sources)
{
    wanted = sources;
    asked = 0;
    assert_int_equal(mkdir("lua", 0700), 0);
    assert_int_equal(mkdir("lua/mpreg", 0700), 0);
    assert_int_equal(mkdir("lua/mpreg/runtime", 0700), 0);
    put_file("lua/mpreg/runtime/check.lua", loader);
    run_host(1, script);
    are_at_once = false;
}

static const struct seen *answer_to(uint64_t ticket)
{
    for (uint32_t i = 0; i < spec.seen_count; i++)
        if (spec.seen[i].kind == MP_NODE_CHECKED && spec.seen[i].ticket == ticket)
            return &spec.seen[i];
    fail_msg("unit %d was not answered", (int)ticket);
    return NULL;
}

static void assert_failed(uint64_t ticket, const char *code, const char *reason, const char *part)
{
    const struct seen *s = answer_to(ticket);
    assert_true(s->is_error);
    assert_string_equal(s->code, code);
    assert_string_equal(s->reason, reason);
    if (!strstr(s->message, part))
        fail_msg("\"%s\" is not in: %s", part, s->message);
}

static void assert_good(uint64_t ticket)
{
    if (answer_to(ticket)->is_error)
        fail_msg("unit %d: %s", (int)ticket, answer_to(ticket)->message);
}

static void a_good_unit_is_described_with_its_hashes(void **state)
{
    (void)state;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    struct mp_slice part;
    struct mp_slice value;
    int64_t n = 0;
    try_all((const char *const[]){"return {n = 1}", "return {n = 1}", NULL});
    for (uint64_t ticket = 1; ticket <= 2; ticket++) {
        const struct seen *s = answer_to(ticket);
        struct mp_slice description = mp_slice_of(s->bytes, s->size);
        assert_false(s->is_error);
        mp_host_sha256(unit_of("return {n = 1}"), hash);
        assert_memory_equal(s->hash, hash, sizeof(hash));
        for (uint32_t i = 0; i < 2; i++) {
            struct mp_slice source = mp_slice_str(i == 0 ? "return {n = 1}" : "return {n = 2}");
            mp_host_sha256(source, hash);
            assert_int_equal(mp_mp_array_get(description, i, &part), MP_OK);
            assert_int_equal(mp_mp_array_get(part, 0, &value), MP_OK);
            assert_int_equal(value.size, 2 + sizeof(hash));
            assert_memory_equal(value.data + 2, hash, sizeof(hash));
            assert_int_equal(mp_mp_array_get(part, 1, &value), MP_OK);
            assert_int_equal(mp_mp_map_get(value, mp_slice_str("n"), &value), MP_OK);
            assert_int_equal(mp_mp_get_int(value, &n), MP_OK);
            assert_int_equal(n, i + 1);
        }
        assert_int_equal(mp_mp_array_get(description, 2, &part), MP_ENOENT);
    }
}

static void what_loops_is_named_with_file_and_line(void **state)
{
    (void)state;
    try_all((const char *const[]){
        "\nwhile true do end", "while true do\n pcall(function() while true do end end) end",
        "local function f()\n local n = 0\n while true do n = n + 1 end end\n"
        "coroutine.wrap(f)()",
        "local t = setmetatable({}, {__index = function() while true do end end})\n"
        "return t.x",
        "return {n = 1}", NULL});
    assert_failed(1, "INVALID_ARGUMENT", "LOAD_TIMEOUT",
                  "a.lua:2: did not finish loading within 0.5 s");
    assert_failed(2, "INVALID_ARGUMENT", "LOAD_TIMEOUT",
                  "a.lua:2: did not finish loading within 0.5 s");
    assert_failed(3, "INVALID_ARGUMENT", "LOAD_TIMEOUT",
                  "a.lua:3: did not finish loading within 0.5 s");
    assert_failed(4, "INVALID_ARGUMENT", "LOAD_TIMEOUT",
                  "a.lua:1: did not finish loading within 0.5 s");
    assert_good(5);
}

static void what_crashes_is_told_with_how(void **state)
{
    (void)state;
    try_all((const char *const[]){
        "require('ffi').cast('int *', 8)[0] = 1", "no answer", "lie", "raise",
        "require('ffi').cdef 'int write(int, const char *, size_t)'\n"
        "require('ffi').C.write(3, '\\255\\255\\255\\255\\0', 5)\nwhile true do end",
        "return {n = print}", "return 5", "error('this is wrong', 0)", "return {n = 1}", NULL});
#ifdef MP_SANITIZE
    assert_failed(1, "INTERNAL", "LOAD_CRASHED", "loading it ended the process: ");
#else
    assert_failed(1, "INTERNAL", "LOAD_CRASHED",
                  "loading it ended the process: signal 11 (SIGSEGV)");
#endif
    assert_failed(2, "INTERNAL", "LOAD_CRASHED", "loading it ended the process: exit status 3");
    /* Two maps for two modules are a description, however poor. */
    assert_good(3);
    assert_failed(4, "INTERNAL", "LOAD_ERROR", "the loader failed");
    assert_failed(5, "RESOURCE_EXHAUSTED", "TOO_LARGE", "larger than 33 MiB");
    assert_failed(6, "INTERNAL", "LOAD_ERROR", "cannot be sent: [1].n");
    assert_failed(7, "INTERNAL", "LOAD_CRASHED", "did not answer with a description");
    assert_failed(8, "INVALID_ARGUMENT", "LOAD_ERROR", "this is wrong");
    assert_good(9);
}

static void what_eats_memory_is_refused(void **state)
{
    (void)state;
    try_all((const char *const[]){"local t = {}\nfor i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end",
                                  "return {n = ('x'):rep(500e6)}", "return {n = 1}", NULL});
    for (uint64_t ticket = 1; ticket <= 2; ticket++)
        assert_true(answer_to(ticket)->is_error);
    assert_failed(2, "INVALID_ARGUMENT", "LOAD_ERROR", "not enough memory");
    assert_good(3);
}

static void what_hangs_in_c_is_killed(void **state)
{
    (void)state;
    try_all((const char *const[]){"require('ffi').cdef 'int pause(void)'\n"
                                  "while true do require('ffi').C.pause() end",
                                  "return {n = 1}", NULL});
    /* A signal ends pause(), and then the hook is heeded; in a real loop nothing helps. */
    assert_true(answer_to(1)->is_error);
    forget_seen();
    assert_int_equal(system("rm -r lua"), 0);
    mp_time before = mp_host_clock();
    try_all((const char *const[]){"return ('a'):rep(60):find(('a?'):rep(60) .. ('a'):rep(60))",
                                  "return {n = 1}", NULL});
    assert_failed(1, "INVALID_ARGUMENT", "LOAD_TIMEOUT", "did not finish loading within 3 s");
    assert_true(mp_host_clock() - before >= MP_MS(MP_CHECK_TIMEOUT_MS));
    assert_good(2);
}

static void many_at_once_wait_for_two_processes(void **state)
{
    (void)state;
    static const char slow[] = "local function say(what)\n"
                               "  local f = io.open('times', 'a')\n"
                               "  f:write(what)\n"
                               "  f:close()\n"
                               "end\n"
                               "say '('\n"
                               "local till = os.clock() + 0.05\n"
                               "while os.clock() < till do end\n"
                               "say ')'\n"
                               "return {n = 1}";
    const char *sources[8];
    char times[64] = {0};
    for (int i = 0; i < 7; i++)
        sources[i] = slow;
    sources[7] = NULL;
    are_at_once = true;
    try_all(sources);
    int fd = open("times", O_RDONLY);
    assert_int_equal(read(fd, times, sizeof(times)), 14);
    close(fd);
    int depth = 0;
    int deepest = 0;
    for (int i = 0; i < 14; i++) {
        depth += times[i] == '(' ? 1 : -1;
        deepest = depth > deepest ? depth : deepest;
    }
    assert_int_equal(deepest, 2);
    for (uint64_t ticket = 1; ticket <= 7; ticket++)
        assert_good(ticket);
}

static void more_than_64_that_wait_are_refused(void **state)
{
    (void)state;
    const char *sources[71];
    uint32_t refused = 0;
    for (int i = 0; i < 70; i++)
        sources[i] = "return {n = 1}";
    sources[70] = NULL;
    are_at_once = true;
    try_all(sources);
    for (uint64_t ticket = 1; ticket <= 70; ticket++)
        if (answer_to(ticket)->is_error) {
            refused++;
            assert_failed(ticket, "RESOURCE_EXHAUSTED", "QUEUE_FULL", "(64)");
        }
    assert_int_equal(refused, 6);
}

static void odd_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (ev->kind == MP_NODE_START) {
        struct mp_node_effect *e = emit(MP_NODE_CHECK_UNIT);
        e->id = 1;
        e->payload.bytes = own_bytes(mp_slice_of("\x90", 1));
        e = emit(MP_NODE_CHECK_UNIT);
        e->id = 2;
        e->payload.bytes = unit_of("local others, native = ...\n"
                                   "local name, cluster = native.node()\n"
                                   "return {n = #others, node = name .. cluster,\n"
                                   "  gpu = native.resource 'gpu', no = native.resource 'tpu',\n"
                                   "  data = native.resource('data').path}");
    }
    if (s && s->ticket != 0 && spec.seen_count == 3)
        end();
}

static void what_the_node_has_is_handed_over_and_no_unit_is_refused(void **state)
{
    (void)state;
    int64_t others = -1;
    struct mp_slice value;
    struct mp_slice text;
    try_all((const char *const[]){"return {n = 1}", NULL});
    forget_seen();
    run_host(1, odd_script);
    assert_failed(1, "INVALID_ARGUMENT", "BAD_UNIT", "unit");
    const struct seen *s = answer_to(2);
    assert_good(2);
    assert_int_equal(mp_mp_array_get(mp_slice_of(s->bytes, s->size), 0, &value), MP_OK);
    assert_int_equal(mp_mp_array_get(value, 1, &value), MP_OK);
    assert_int_equal(mp_mp_map_get(value, mp_slice_str("n"), &value), MP_OK);
    assert_int_equal(mp_mp_get_int(value, &others), MP_OK);
    assert_int_equal(others, 0); /* nothing is deployed here */
    assert_int_equal(mp_mp_array_get(mp_slice_of(s->bytes, s->size), 0, &value), MP_OK);
    struct mp_slice metadata;
    assert_int_equal(mp_mp_array_get(value, 1, &metadata), MP_OK);
    assert_int_equal(mp_mp_map_get(metadata, mp_slice_str("node"), &value), MP_OK);
    assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
    assert_true(mp_slice_is(text, "n1c"));
    assert_int_equal(mp_mp_map_get(metadata, mp_slice_str("gpu"), &value), MP_OK);
    assert_int_equal(mp_mp_type_of(value), MP_MP_BOOL);
    assert_int_equal(mp_mp_map_get(metadata, mp_slice_str("no"), &value), MP_ENOENT);
    assert_int_equal(mp_mp_map_get(metadata, mp_slice_str("data"), &value), MP_OK);
    assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
    assert_true(mp_slice_is(text, "there"));
}

static void broken_script(const struct mp_node_event *ev, const struct seen *s)
{
    if (ev->kind == MP_NODE_START)
        ask();
    if (s && s->kind == MP_NODE_CHECKED)
        spec.deadline = mp_host_clock() + MP_MS(300);
    if (ev->kind == MP_NODE_TIMER)
        end();
}

static void processes_that_fail_by_themselves_are_not_started_for_ever(void **state)
{
    (void)state;
    static const char broken[] = "local file = io.open('starts', 'a')\n"
                                 "file:write('x')\n"
                                 "file:close()\n"
                                 "error('this library is broken', 0)";
    char starts[64] = {0};
    try_all((const char *const[]){"return {n = 1}", NULL});
    forget_seen();
    put_file("lua/mpreg/runtime/check.lua", broken);
    asked = 0;
    run_host(1, broken_script);
    assert_true(answer_to(1)->is_error);
    int fd = open("starts", O_RDONLY);
    assert_in_range(read(fd, starts, sizeof(starts)), 1, 3);
    close(fd);
}

static void each_unit_has_a_process_of_its_own_of_one_parent(void **state)
{
    (void)state;
    static const char born[] =
        "local stat = io.open('/proc/self/stat'):read('*a')\n"
        "local f = io.open('times', 'a')\n"
        "f:write(stat:match('^%d+'), ' ', stat:match('%) %S+ (%d+)'), '\\n')\n"
        "f:close()\n"
        "return {n = 1}";
    int first = 0;
    int second = 0;
    int parents[2] = {0, 1};
    try_all((const char *const[]){born, born, NULL});
    FILE *f = fopen("times", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d %d\n%d %d\n", &first, &parents[0], &second, &parents[1]), 4);
    fclose(f);
    assert_int_not_equal(first, second);      /* one process tries one unit, */
    assert_int_equal(parents[0], parents[1]); /* and nothing is started for the next */
    assert_good(1);
    assert_good(2);
}

int main(int argc, char **argv)
{
    int code = 0;
    if (is_child(argc, argv, &code))
        return code;
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_good_unit_is_described_with_its_hashes),
        TEST(what_loops_is_named_with_file_and_line),
        TEST(what_crashes_is_told_with_how),
        TEST(what_eats_memory_is_refused),
        TEST(what_hangs_in_c_is_killed),
        TEST(many_at_once_wait_for_two_processes),
        TEST(more_than_64_that_wait_are_refused),
        TEST(what_the_node_has_is_handed_over_and_no_unit_is_refused),
        TEST(processes_that_fail_by_themselves_are_not_started_for_ever),
        TEST(each_unit_has_a_process_of_its_own_of_one_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
