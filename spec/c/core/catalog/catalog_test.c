/* The catalog: which provider a query gets, the words in which it is told that there is none, the
 * documents behind the commands, and that running out of memory changes nothing. */
#include "spec/c/core/catalog/catalog_harness.h"

static int setup(void **state)
{
    static struct place f;
    f = (struct place){.memory = {.fail_at = SPEC_NEVER}};
    *state = &f;
    return place_open(&f, "n1", "gpu ds1", 1, 0) == MP_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct place *f = *state;
    mp_catalog_fini(&f->catalog);
    mp_catalog_fini(&f->catalog);
    return f->memory.live_bytes == 0 ? 0 : -1;
}

static void add_weather(struct place *f)
{
    must_add(f, "weather", "1.0.0", "clean, train gpu, both ds2");
    must_add(f, "weather", "1.2.0", "clean");
    must_add(f, "weather", "1.10.0-rc.1", "clean");
    must_add(f, "weather", "0.9.0", "clean");
}

/* Of the provider; all of one node are found here, too. */
static const char *found_version(struct place *f, struct mp_catalog_query q)
{
    const char *text = found(f, q);
    const struct mp_catalog_function *here = mp_catalog_find_here(&f->catalog, &q);
    assert_int_equal(here == NULL, strcmp(text, "none") == 0);
    if (!here)
        return "none";
    assert_memory_equal(text, "0:", 2);
    assert_true(mp_slice_is(f->catalog.modules[here->module].version_text, text + 2));
    return text + 2;
}

/* --- finding --- */

static void finds_the_highest_version_that_matches(void **state)
{
    struct place *f = *state;
    add_weather(f);
    struct mp_catalog_query q = query("weather.clean");
    assert_string_equal(found_version(f, q), "1.10.0-rc.1");
    q.version = mp_slice_str("<1.10.0-rc");
    assert_string_equal(found_version(f, q), "1.2.0");
    q.version = mp_slice_str("=1.0.0");
    assert_string_equal(found_version(f, q), "1.0.0");
    q.version = mp_slice_str("<1");
    assert_string_equal(found_version(f, q), "0.9.0");
    q.version = mp_slice_str(">2");
    assert_string_equal(found_version(f, q), "none");
    q.version = mp_slice_str("nonsense");
    assert_string_equal(found_version(f, q), "none");
    assert_string_equal(found_version(f, query("weather.cleam")), "none");
}

static void finds_only_what_the_node_can_serve(void **state)
{
    struct place *f = *state;
    add_weather(f);
    const struct mp_slice gpu = mp_slice_str("gpu");
    const struct mp_slice both[] = {mp_slice_str("ds1"), mp_slice_str("ds2")};
    assert_string_equal(found_version(f, query("weather.train")), "1.0.0");
    assert_string_equal(found_version(f, query("weather.both")), "none");
    struct mp_catalog_query q = query("weather.clean");
    q.needs = &gpu;
    q.needs_count = 1;
    assert_string_equal(found_version(f, q), "1.10.0-rc.1");
    q.needs = both;
    q.needs_count = 2;
    assert_string_equal(found_version(f, q), "none");
    q = query("weather.clean");
    q.on = mp_slice_str("n1");
    assert_string_equal(found_version(f, q), "1.10.0-rc.1");
    q.on = mp_slice_str("n2");
    assert_string_equal(found_version(f, q), "none");
    q = query("weather.clean");
    q.cluster = mp_slice_str("other");
    assert_string_equal(found_version(f, q), "none");
}

static void keeps_a_functions_options_within_bounds(void **state)
{
    struct place *f = *state;
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_catalog_effects out;
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    must(mp_mp_put_map(&b, 1));
    must(mp_mp_put_text(&b, "functions"));
    must(mp_mp_put_array(&b, 2));
    must(mp_mp_put_map(&b, 4));
    put_pair(&b, "name", "a");
    must(mp_mp_put_text(&b, "timeout_ms"));
    must(mp_mp_put_int(&b, INT64_MAX));
    must(mp_mp_put_text(&b, "concurrency"));
    must(mp_mp_put_uint(&b, 1ull << 32));
    must(mp_mp_put_text(&b, "idempotent"));
    must(mp_mp_put_bool(&b, true));
    must(mp_mp_put_map(&b, 5));
    put_pair(&b, "name", "b");
    must(mp_mp_put_text(&b, "timeout_ms"));
    must(mp_mp_put_int(&b, -1));
    put_pair(&b, "concurrency", "two");
    put_pair(&b, "idempotent", "yes");
    put_pair(&b, "needs", "gpu");
    must(add_bytes(f, "m", "01", &b, &out));
    mp_buf_fini(&b);
    const struct mp_catalog_query qa = query("m.a");
    const struct mp_catalog_query qb = query("m.b");
    const struct mp_catalog_function *a = mp_catalog_find_here(&f->catalog, &qa);
    assert_true(a->timeout == MP_MS(MP_TIMEOUT_MS_MAX));
    assert_int_equal(a->concurrency, UINT32_MAX);
    assert_true(a->is_idempotent);
    const struct mp_catalog_function *b_function = mp_catalog_find_here(&f->catalog, &qb);
    assert_int_equal(b_function->timeout, 0);
    assert_int_equal(b_function->concurrency, 0);
    assert_false(b_function->is_idempotent);
    assert_int_equal(b_function->needs.size, 0);
}

/* --- refusing --- */

static void assert_refused(struct place *f, const char *name, const char *version,
                           const char *functions, const char *why)
{
    struct mp_catalog_effects out;
    uint32_t modules = f->catalog.module_count;
    must(add(f, name, version, functions, &out));
    assert_int_equal(out.count, 1);
    assert_string_equal(why_of(&out, MP_CATALOG_REFUSED), why);
    assert_int_equal(f->catalog.module_count, modules);
}

static void refuses_modules_in_words(void **state)
{
    struct place *f = *state;
    const char *none = "";
    must_add(f, "m", "1.0", none);
    assert_refused(f, "m", "1.0", none, "version 1.0 is loaded already, with the same content");
    assert_refused(f, "m", "1.0.0", none,
                   "version 1.0.0 is loaded already, with other content: the first one stays");
    assert_refused(f, "m", "one", none, "its _VERSION is no version such as 1.2.0: one");
    assert_refused(f, "a b", "1.0", none,
                   "its name is not acceptable: letters, digits, '_' and '-', with dots");
    assert_refused(f, "x", "1.0", "good, b+d", "the name of a function is not acceptable: b+d");
    must_add(f, "m", NULL, none);
    assert_refused(f, "m", "0.0.0", none,
                   "version 0.0.0 is loaded already, with other content: the first one stays");
}

/* --- explaining --- */

static void assert_explained(struct place *f, struct mp_catalog_query q, enum mp_code code,
                             const char *reason, const char *message, const char *hint)
{
    assert_explained_at(f, 0, q, code, reason, message, hint);
}

static void explains_unknown_functions(void **state)
{
    struct place *f = *state;
    add_weather(f);
    assert_explained(f, query("weather.claen"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                     "no node has a function weather.claen", "did you mean weather.clean?");
    assert_explained(f, query("clean"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                     "no node has a function clean", "did you mean weather.clean?");
    assert_explained(f, query("wether.clean"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                     "no node has a function wether.clean", "did you mean weather.clean?");
    assert_explained(f, query("models.predict"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                     "no node has a function models.predict", "");
    assert_explained(f, query("no name"), MP_CODE_INVALID_ARGUMENT, "BAD_NAME",
                     "not the name of a function: no name", "functions are named module.function");
    assert_explained(f, query("a.\xff\x1b"), MP_CODE_INVALID_ARGUMENT, "BAD_NAME",
                     "not the name of a function: a.??", "functions are named module.function");
}

static void explains_versions(void **state)
{
    struct place *f = *state;
    add_weather(f);
    struct mp_catalog_query q = query("weather.clean");
    q.version = mp_slice_str(">=2");
    assert_explained(f, q, MP_CODE_FAILED_PRECONDITION, "NO_VERSION",
                     "no version of weather.clean matches >=2; there are: 1.10.0-rc.1, 1.2.0, "
                     "1.0.0, 0.9.0",
                     "");
    q.version = mp_slice_str("newest");
    assert_explained(f, q, MP_CODE_INVALID_ARGUMENT, "BAD_VERSION",
                     "not a version constraint: newest",
                     "parts such as =1.2.3 >=1.0 <2 ^1.2 ~1.2.3, joined by commas");
}

static void explains_places_and_needs(void **state)
{
    struct place *f = *state;
    add_weather(f);
    const struct mp_slice needs[] = {mp_slice_str("gpu"), mp_slice_str("ds2"), mp_slice_str("tpu")};
    struct mp_catalog_query q = query("weather.clean");
    q.needs = needs;
    q.needs_count = 3;
    assert_explained(f, q, MP_CODE_FAILED_PRECONDITION, "UNSATISFIABLE",
                     "weather.clean needs gpu and ds2 and tpu: n1 has gpu; n1 lacks ds2 and tpu",
                     "");
    q.needs = needs + 1;
    q.needs_count = 1;
    assert_explained(f, q, MP_CODE_FAILED_PRECONDITION, "UNSATISFIABLE",
                     "weather.clean needs ds2: n1 lacks ds2", "");
    assert_explained(f, query("weather.both"), MP_CODE_FAILED_PRECONDITION, "UNSATISFIABLE",
                     "weather.both needs ds2: n1 lacks ds2", "");
    q = query("weather.clean");
    q.on = mp_slice_str("n7");
    assert_explained(f, q, MP_CODE_UNAVAILABLE, "NO_NODE", "there is no node n7 in cluster default",
                     "nodes: n1");
    q = query("weather.clean");
    q.cluster = mp_slice_str("eu");
    assert_explained(f, q, MP_CODE_PERMISSION_DENIED, "CLUSTER_MISMATCH",
                     "this node belongs to cluster default and does not forward to cluster eu", "");
}

static void says_whether_waiting_may_help(void **state)
{
    struct place *f = *state;
    struct mp_catalog_query q = query("later.on");
    assert_true(mp_catalog_may_appear(&f->catalog, &q));
    q.version = mp_slice_str("x");
    assert_false(mp_catalog_may_appear(&f->catalog, &q));
    q = query("no name");
    assert_false(mp_catalog_may_appear(&f->catalog, &q));
    q = query("later.on");
    q.cluster = mp_slice_str("eu");
    assert_false(mp_catalog_may_appear(&f->catalog, &q));
}

/* --- pipelines --- */

static void add_pipeline(struct place *f, const char *version, uint32_t graph)
{
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_catalog_effects out;
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    must(mp_mp_put_map(&b, 4));
    put_pair(&b, "kind", "pipeline");
    put_pair(&b, "name", "quakes");
    put_pair(&b, "version", version);
    must(mp_mp_put_text(&b, "graph"));
    must(mp_mp_put_uint(&b, graph));
    must(add_bytes(f, "file", hash_of(version), &b, &out));
    assert_true(has_effect(&out, MP_CATALOG_CHANGED));
    mp_buf_fini(&b);
}

static void knows_the_highest_version_of_a_pipeline_by_its_own_name(void **state)
{
    struct place *f = *state;
    char message_bytes[256];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
    struct mp_slice graph;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    add_pipeline(f, "1.0.0", 1);
    add_pipeline(f, "2.0.0", 2);
    add_pipeline(f, "1.5.0", 3);
    assert_true(mp_catalog_pipeline(&f->catalog, mp_slice_str("quakes"), 0, &graph, &fault,
                                    &message, &hint));
    assert_int_equal(graph.data[0], 2);
    assert_false(mp_catalog_pipeline(&f->catalog, mp_slice_str("quake"), 0, &graph, &fault,
                                     &message, &hint));
    assert_string_equal(message_bytes, "no node has a pipeline quake");
    assert_string_equal(hint_bytes, "did you mean quakes?");
    assert_int_equal(fault.code, MP_CODE_NOT_FOUND);
    assert_true(mp_slice_is(fault.reason, "UNKNOWN_PIPELINE"));
    assert_explained(f, query("quakes"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                     "no node has a function quakes", "it is a pipeline: run it");
}

/* --- documents --- */

/* "name version" of each entry of a document's list, joined by spaces. */
static void list_of(struct place *f, bool is_functions, char *out, size_t capacity)
{
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_buf b;
    struct mp_slice list;
    struct mp_slice value;
    struct mp_mp_reader r;
    uint32_t count;
    struct mp_text text;
    mp_text_init(&text, out, capacity);
    mp_buf_init(&b, &alloc, 0);
    must(is_functions ? mp_catalog_put_functions(&f->catalog, &b)
                      : mp_catalog_put_modules(&f->catalog, &b));
    must(mp_mp_check(mp_buf_slice(&b)));
    must(mp_mp_map_get(mp_buf_slice(&b), mp_slice_str(is_functions ? "functions" : "modules"),
                       &list));
    must(mp_mp_get_array(list, &count, &r));
    for (uint32_t i = 0; i < count; i++) {
        static const char *const keys[] = {"name", "version"};
        struct mp_slice entry;
        must(mp_mp_take(&r, &entry));
        for (int k = 0; k < 2; k++) {
            struct mp_slice word;
            must(mp_mp_map_get(entry, mp_slice_str(keys[k]), &value));
            must(mp_mp_get_str(value, &word));
            mp_text_put(&text, text.size == 0 ? "" : " ");
            mp_text_put_slice(&text, word);
        }
    }
    mp_buf_fini(&b);
}

static void lists_in_order_of_name_whatever_came_first(void **state)
{
    struct place *f = *state;
    char text[512];
    list_of(f, true, text, sizeof(text));
    assert_string_equal(text, "");
    list_of(f, false, text, sizeof(text));
    assert_string_equal(text, "");
    must_add(f, "b", "1.0", "y, x");
    must_add(f, "c", NULL, "z");
    must_add(f, "a", "1.0", "w");
    must_add(f, "b", "2.0", "x");
    list_of(f, true, text, sizeof(text));
    assert_string_equal(text, "a.w 1.0 b.x 2.0 b.x 1.0 b.y 1.0 c.z 0.0.0");
    list_of(f, false, text, sizeof(text));
    assert_string_equal(text, "a 1.0 b 2.0 b 1.0 c 0.0.0");
}

/* As many functions as there may be in a few modules: quadratic work would take minutes. */
static void lists_many_functions(void **state)
{
    struct place *f = *state;
    enum { MODULES = 12, FUNCTIONS = 4096 };
    static char functions[FUNCTIONS * 8 + 1];
    for (int i = 0; i < FUNCTIONS; i++)
        snprintf(functions + 7 * i, 8, "f%05u,", (i * 2654435u) % FUNCTIONS);
    for (int m = 0; m < MODULES; m++) {
        char name[16];
        snprintf(name, sizeof(name), "m%d", m);
        must_add(f, name, "1.0", functions);
    }
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    for (int i = 0; i < 5; i++) {
        mp_buf_clear(&b);
        must(mp_catalog_put_functions(&f->catalog, &b));
    }
    assert_int_equal(f->catalog.function_count, MODULES * FUNCTIONS);
    mp_buf_fini(&b);
}

/* --- memory --- */

static void try_all(struct place *f, bool *is_enough)
{
    struct mp_catalog_effects out;
    *is_enough = false;
    if (place_open(f, "n1", "gpu ds1", 1, 0) != MP_OK)
        return;
    const char *functions = "x gpu, y, z";
    static const char *const versions[] = {"1.0", "3.0", "2.0"};
    for (int i = 0; i < 3; i++) {
        uint32_t functions_before = f->catalog.function_count;
        uint32_t modules_before = f->catalog.module_count;
        uint32_t names_before = f->catalog.by_name.count;
        if (add(f, "m", versions[i], functions, &out) == MP_OK)
            continue;
        /* As before: the same can be added once there is memory again. */
        assert_int_equal(f->catalog.function_count, functions_before);
        assert_int_equal(f->catalog.module_count, modules_before);
        assert_int_equal(f->catalog.by_name.count, names_before);
        f->memory.fail_at = SPEC_NEVER;
        must_add(f, "m", versions[i], functions);
        assert_string_equal(found_version(f, query("m.x")), i == 0 ? "1.0" : "3.0");
        assert_int_equal(f->catalog.function_count, functions_before + 3);
        return;
    }
    struct mp_buf b;
    mp_buf_init(&b, &f->alloc, 0);
    *is_enough = mp_catalog_put_functions(&f->catalog, &b) == MP_OK &&
                 mp_catalog_put_modules(&f->catalog, &b) == MP_OK;
    mp_buf_fini(&b);
}

static void is_as_before_wherever_memory_is_out(void **state)
{
    (void)state;
    bool is_enough = false;
    for (size_t n = 0; !is_enough; n++) {
        struct place f = {.memory = {.fail_at = n}};
        try_all(&f, &is_enough);
        mp_catalog_fini(&f.catalog);
        assert_int_equal(f.memory.live_bytes, 0);
        assert_true(n < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_the_highest_version_that_matches, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_only_what_the_node_can_serve, setup, teardown),
        cmocka_unit_test_setup_teardown(keeps_a_functions_options_within_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_modules_in_words, setup, teardown),
        cmocka_unit_test_setup_teardown(explains_unknown_functions, setup, teardown),
        cmocka_unit_test_setup_teardown(explains_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(explains_places_and_needs, setup, teardown),
        cmocka_unit_test_setup_teardown(says_whether_waiting_may_help, setup, teardown),
        cmocka_unit_test_setup_teardown(knows_the_highest_version_of_a_pipeline_by_its_own_name,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(lists_in_order_of_name_whatever_came_first, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(lists_many_functions, setup, teardown),
        cmocka_unit_test(is_as_before_wherever_memory_is_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
