/* The boundary to Lua from C: the stack, the buffer and memory. The rules of values are in
 * spec/lua/codec_spec.lua. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <lauxlib.h>
#include <lualib.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"
#include "src/binding/value.h"
#include "src/wire/msgpack.h"

struct fixture {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_buf buf;
    struct mp_value_error error;
    lua_State *L;
};

static struct fixture fixture;

static int set_up(void **state)
{
    fixture.memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
    fixture.alloc = spec_alloc_of(&fixture.memory);
    mp_buf_init(&fixture.buf, &fixture.alloc, 0);
    fixture.L = luaL_newstate();
    assert_non_null(fixture.L);
    luaL_openlibs(fixture.L);
    mp_value_open(fixture.L);
    mp_value_open(fixture.L);
    assert_int_equal(lua_gettop(fixture.L), 0);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    lua_close(f->L);
    mp_buf_fini(&f->buf);
    return f->memory.live_bytes == 0 ? 0 : -1;
}

/* Leaves the chunk's results on the stack. */
static void run(struct fixture *f, const char *chunk)
{
    if (luaL_dostring(f->L, chunk))
        fail_msg("%s", lua_tostring(f->L, -1));
}

static void leaves_stack_and_buffer_as_they_were(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    lua_pushinteger(f->L, 1);
    run(f, "return {a = {1, 2, {print}}}");
    lua_pushinteger(f->L, 3);
    assert_int_equal(mp_buf_append_byte(&f->buf, '!'), MP_OK);
    for (int index = 2; index >= -2; index -= 4) {
        assert_int_equal(mp_value_encode(f->L, index, &f->buf, NULL, &f->error), MP_EINVAL);
        assert_int_equal(f->error.err, MP_EINVAL);
        assert_int_equal(f->error.argument, 0);
        assert_string_equal(f->error.path, ".a[3][1]");
        assert_string_equal(f->error.message, "a function cannot be sent");
        assert_int_equal(lua_gettop(f->L), 3);
        assert_int_equal(f->buf.size, 1);
    }
    assert_int_equal(mp_value_encode(f->L, 2, &f->buf, NULL, NULL), MP_EINVAL);
    assert_int_equal(mp_value_encode_args(f->L, 1, 3, &f->buf, &f->error), MP_EINVAL);
    assert_int_equal(f->error.argument, 2);
    assert_int_equal(f->buf.size, 1);
    lua_remove(f->L, 2);
    assert_int_equal(mp_value_encode_args(f->L, 1, 2, &f->buf, &f->error), MP_OK);
    assert_memory_equal(f->buf.data, "!\x92\x01\x03", 4);
    assert_int_equal(lua_gettop(f->L), 2);
    const uint8_t broken[] = {0x93, 1, 0x81, 0xa1, 'a', 1, 0xc1};
    struct mp_slice bytes = mp_slice_of(broken, sizeof(broken));
    int count = -1;
    assert_int_equal(mp_value_decode(f->L, bytes, &f->error), MP_ECORRUPT);
    assert_int_equal(mp_value_decode_args(f->L, bytes, &count, &f->error), MP_ECORRUPT);
    assert_int_equal(f->error.argument, 3);
    assert_int_equal(count, -1);
    assert_int_equal(lua_gettop(f->L), 2);
}

static void takes_an_empty_table_for_an_array_only_outside(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    const struct mp_value_options list = {.empty_is_array = true};
    run(f, "return {}, {{}}, {a = {}}");
    assert_int_equal(mp_value_encode(f->L, 1, &f->buf, &list, NULL), MP_OK);
    assert_int_equal(mp_value_encode(f->L, 2, &f->buf, &list, NULL), MP_OK);
    assert_int_equal(mp_value_encode(f->L, 3, &f->buf, &list, NULL), MP_OK);
    assert_int_equal(f->buf.size, 7);
    assert_memory_equal(f->buf.data,
                        "\x90\x91\x80\x81\xa1"
                        "a\x80",
                        7);
}

static void keeps_to_the_buffer_s_limit(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_buf small;
    run(f, "local t = {} for i = 1, 100 do t['k' .. i] = i end return t, ('x'):rep(1000)");
    for (size_t size = 1; size < 600; size++) {
        mp_buf_init(&small, &f->alloc, size);
        assert_int_equal(mp_value_encode(f->L, 2, &small, NULL, &f->error), MP_ETOOLARGE);
        enum mp_err err = mp_value_encode(f->L, 1, &small, NULL, &f->error);
        assert_true(err == MP_OK || (err == MP_ETOOLARGE && small.size == 0));
        assert_true(small.capacity <= size);
        assert_int_equal(err == MP_OK, size >= 495);
        mp_buf_fini(&small);
    }
    assert_string_equal(f->error.path, "");
    assert_non_null(strstr(f->error.message, "larger than"));
}

static void survives_each_failed_allocation(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    run(f, "local t = {} for i = 1, 100 do t['k' .. i] = {i} end return t");
    enum mp_err err = MP_ENOMEM;
    for (size_t n = 0; err != MP_OK; n++) {
        mp_buf_fini(&f->buf);
        f->memory = (struct spec_alloc){.fail_at = n};
        err = mp_value_encode(f->L, 1, &f->buf, NULL, &f->error);
        assert_true(err == MP_OK || (err == MP_ENOMEM && f->buf.size == 0));
        assert_int_equal(lua_gettop(f->L), 1);
        assert_true(n < 100);
    }
    assert_int_equal(mp_mp_check(mp_buf_slice(&f->buf)), MP_OK);
}

/* An allocator for Lua that fails the n-th request of what is tried. */
struct lua_memory {
    size_t requests;
    size_t fail_at;
};

static void *lua_memory_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct lua_memory *m = (struct lua_memory *)context;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    if (new_size > old_size && m->requests++ >= m->fail_at)
        return NULL;
    return realloc(p, new_size);
}

static int decode_and_encode(lua_State *L)
{
    struct fixture *f = (struct fixture *)lua_touserdata(L, 1);
    struct mp_buf *out = (struct mp_buf *)lua_touserdata(L, 2);
    if (mp_value_decode(L, mp_buf_slice(&f->buf), NULL) != MP_OK ||
        mp_value_encode(L, -1, out, NULL, NULL) != MP_OK)
        return luaL_error(L, "refused");
    return 0;
}

static void leaks_nothing_when_lua_has_no_memory(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    run(f, "local t = {} for i = 1, 30 do t['k' .. i] = {i, 9007199254740993LL, {}} end return t");
    assert_int_equal(mp_value_encode(f->L, 1, &f->buf, NULL, NULL), MP_OK);
    struct lua_memory memory = {.fail_at = SPEC_NEVER};
    lua_State *L = lua_newstate(lua_memory_resize, &memory);
    if (!L) {
        print_message("this LuaJIT takes no allocator of others\n");
        return;
    }
    luaL_openlibs(L);
    mp_value_open(L);
    struct mp_buf out;
    mp_buf_init(&out, &f->alloc, 0);
    int failed = 1;
    for (size_t n = 0; failed; n++) {
        lua_settop(L, 0);
        lua_pushcfunction(L, decode_and_encode);
        lua_pushlightuserdata(L, f);
        lua_pushlightuserdata(L, &out);
        mp_buf_clear(&out);
        memory.requests = 0;
        memory.fail_at = n;
        failed = lua_pcall(L, 2, 0, 0);
        memory.fail_at = SPEC_NEVER;
        if (failed)
            assert_int_equal(failed, LUA_ERRMEM);
        assert_true(n < 1000);
    }
    assert_true(mp_mp_check(mp_buf_slice(&out)) == MP_OK);
    mp_buf_fini(&out);
    lua_close(L);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(leaves_stack_and_buffer_as_they_were),
        TEST(takes_an_empty_table_for_an_array_only_outside),
        TEST(keeps_to_the_buffer_s_limit),
        TEST(survives_each_failed_allocation),
        TEST(leaks_nothing_when_lua_has_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
