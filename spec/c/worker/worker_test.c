/* The worker behind a real channel: this program plays the host. */
#include "spec/c/worker/host.h"

static struct mp_slice text_field(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    struct mp_slice text = {0};
    if (mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK)
        (void)(mp_mp_get_str(value, &text) == MP_OK);
    return text;
}

static void test_echo(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    host_load(&h, 0, "m", "local M = {} function M.echo(x) return x end return M",
              MP_RING_DESCRIBE);
    struct answer a = host_expect(&h, MP_MSG_LOADED);
    if (a.flags & MP_RING_ERROR) {
        struct mp_slice t = text_field(mp_buf_slice(&a.payload), "message");
        fail_msg("%.*s", (int)t.size, (const char *)t.data);
    }
    answer_fini(&a);
    assert_non_null(host_invoke(&h, 7, 0, 0, mp_slice_of("\x91\xa2hi", 4)));
    a = host_expect(&h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, 0);
    assert_int_equal(a.id, 7);
    assert_int_equal(a.payload.size, 3);
    assert_memory_equal(a.payload.data, "\xa2hi", 3);
    answer_fini(&a);
    host_stop(&h);
}

/* A file of the source tree, as a string to be freed. */
static char *read_file(const char *name, size_t *size)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/%s", SPEC_SOURCE, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = malloc(1u << 20);
    assert_non_null(text);
    *size = fread(text, 1, 1u << 20, f);
    fclose(f);
    return text;
}

static void test_builtin_module(void **state)
{
    (void)state;
    struct host h;
    size_t size;
    char *source = read_file("modules/mpreg.lua", &size);
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    host_load_bytes(&h, 3, "mpreg", mp_slice_of(source, size), MP_RING_DESCRIBE);
    free(source);
    struct answer a = host_expect(&h, MP_MSG_LOADED);
    assert_int_equal(a.flags, 0);
    assert_int_equal(a.id, 3);
    struct mp_slice map = mp_buf_slice(&a.payload);
    assert_true(mp_slice_is(text_field(map, "version"), "1.0.0"));
    assert_true(mp_slice_is(text_field(map, "kind"), "module"));
    struct mp_slice functions;
    struct mp_slice first;
    assert_int_equal(mp_mp_map_get(map, mp_slice_str("functions"), &functions), MP_OK);
    assert_int_equal(mp_mp_array_get(functions, 0, &first), MP_OK);
    assert_true(mp_slice_is(text_field(first, "name"), "echo"));
    assert_true(mp_slice_is(text_field(first, "doc"), "Gives back exactly what it was given."));
    assert_true(mp_slice_is(text_field(first, "returns"), "any"));
    answer_fini(&a);

    /* sleep and fail: functions 3 and 1 in the order of names */
    assert_non_null(host_invoke(&h, 1, 3, 3, mp_slice_of("\x91\xca\x3a\x83\x12\x6f", 6)));
    a = host_expect(&h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, 0);
    assert_int_equal(a.payload.size, 1);
    assert_int_equal(a.payload.data[0], 0xc0);
    answer_fini(&a);
    assert_non_null(host_invoke(&h, 2, 3, 1, mp_slice_of("\x91\xa4oops", 6)));
    a = host_expect(&h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, MP_RING_ERROR);
    map = mp_buf_slice(&a.payload);
    assert_true(mp_slice_is(text_field(map, "code"), "UNKNOWN"));
    assert_true(mp_slice_is(text_field(map, "reason"), "FUNCTION_ERROR"));
    assert_true(mp_slice_is(text_field(map, "message"), "oops"));
    answer_fini(&a);
    host_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_builtin_module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
