/* The stand-in host with values written as JSON. */
#pragma once

#include "spec/c/worker/host.h"
#include "src/json/json.h"

/* The value, encoded; the buffer is the caller's to free. */
static inline struct mp_buf json_value(const char *text)
{
    struct mp_buf b;
    struct mp_json_error error;
    mp_buf_init(&b, &host_alloc, 0);
    if (mp_json_to_msgpack(mp_slice_str(text), &b, NULL, &error) != MP_OK)
        fail_msg("bad JSON in a spec: %s", error.message);
    return b;
}

/* The text of a value with sorted keys, NUL-terminated; the caller's to free. */
static inline char *json_text(struct mp_slice value)
{
    struct mp_buf b;
    struct mp_json_error error;
    struct mp_json_options options = {.sort_keys = true};
    mp_buf_init(&b, &host_alloc, 0);
    if (mp_json_from_msgpack(value, &b, &options, &error) != MP_OK)
        fail_msg("the worker's value has no JSON form: %s", error.message);
    assert_int_equal(mp_buf_append_byte(&b, 0), MP_OK);
    return (char *)b.data;
}

static inline void json_invoke(struct host *h, uint64_t call, uint32_t function, const char *args)
{
    struct mp_buf b = json_value(args);
    assert_non_null(host_invoke(h, call, 0, function, mp_buf_slice(&b)));
    mp_buf_fini(&b);
}

static inline void json_result(struct host *h, uint64_t nested, const char *value, uint16_t flags)
{
    struct mp_buf b = json_value(value);
    host_result(h, nested, mp_buf_slice(&b), flags);
    mp_buf_fini(&b);
}

static inline void json_check(const struct answer *a, const char *expected)
{
    char *text = json_text(mp_buf_slice(&a->payload));
    assert_string_equal(text, expected);
    free(text);
}

/* The next message must be the call's answer, with this payload. */
static inline uint16_t json_expect(struct host *h, uint64_t call, const char *expected)
{
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_int_equal(a.id, call);
    json_check(&a, expected);
    uint16_t flags = a.flags;
    answer_fini(&a);
    return flags;
}

static inline void json_expect_result(struct host *h, uint64_t call, const char *expected)
{
    assert_int_equal(json_expect(h, call, expected) & (MP_RING_ERROR | MP_RING_RETIRE), 0);
}

static inline void json_expect_error(struct host *h, uint64_t call, const char *expected)
{
    assert_int_equal(json_expect(h, call, expected) & MP_RING_ERROR, MP_RING_ERROR);
}

/* Calls number 1: function `function` with `args` gives `expected`. */
static inline void json_call(struct host *h, uint32_t function, const char *args,
                             const char *expected)
{
    json_invoke(h, 1, function, args);
    json_expect_result(h, 1, expected);
}

static inline void json_call_error(struct host *h, uint32_t function, const char *args,
                                   const char *expected)
{
    json_invoke(h, 1, function, args);
    json_expect_error(h, 1, expected);
}

/* A nested call must come: of `parent`, to `fun`, with these arguments. Returns its number. */
static inline uint64_t json_nested(struct host *h, uint64_t parent, const char *options,
                                   const char *fun, const char *args)
{
    struct answer a = host_expect(h, MP_MSG_NESTED);
    assert_int_equal(a.parent, parent);
    struct mp_slice name = mp_slice_of(a.lead.data + a.options_size, a.lead.size - a.options_size);
    assert_true(mp_slice_is(name, fun));
    json_check(&a, args);
    assert_int_equal(a.options_size != 0, options != NULL);
    if (options) {
        char *text = json_text(mp_slice_of(a.lead.data, a.options_size));
        assert_string_equal(text, options);
        free(text);
    }
    uint64_t id = a.id;
    answer_fini(&a);
    return id;
}

static inline void json_nested_cancel(struct host *h, uint64_t nested)
{
    struct answer a = host_expect(h, MP_MSG_NESTED_CANCEL);
    assert_int_equal(a.id, nested);
    answer_fini(&a);
}

static inline void json_log(struct host *h, uint64_t call, uint32_t level, const char *expected)
{
    struct answer a = host_next(h);
    assert_int_equal(a.kind, MP_MSG_LOG);
    assert_int_equal(a.id, call);
    assert_int_equal(a.level, level);
    json_check(&a, expected);
    answer_fini(&a);
}

/* A worker with `source` as its module number 0. */
static inline void json_start(struct host *h, struct host_config config, const char *source)
{
    host_start(h);
    host_configure(h, config);
    host_load(h, 0, "m", source, 0);
    struct answer a = host_expect(h, MP_MSG_LOADED);
    if (a.flags & MP_RING_ERROR)
        json_check(&a, "a module that loads");
    answer_fini(&a);
}
