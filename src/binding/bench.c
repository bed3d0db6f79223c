/* The load generators under `mpreg.native`, see client.h. */
#include <lauxlib.h>
#include <signal.h>
#include <string.h>

#include "src/binding/client_internal.h"
#include "src/binding/libc_alloc.h"
#include "src/client/bench.h"
#include "src/client/pub_load.h"

#define PUB_DRAIN_MS 5000

static volatile sig_atomic_t bench_interrupts;

static void count_interrupt(int number)
{
    (void)number;
    bench_interrupts++;
}

static void set_number(lua_State *L, const char *key, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, key);
}

static void set_latency(lua_State *L, const char *key, mp_duration d)
{
    set_number(L, key, (double)d / 1e3);
}

static void push_figures(lua_State *L, const struct mp_load_result *r)
{
    const struct mp_histogram *h = &r->latencies;
    double seconds = (double)r->elapsed / 1e9;
    lua_createtable(L, 0, 16);
    set_number(L, "calls", (double)r->calls);
    set_number(L, "errors", (double)r->errors);
    set_number(L, "unsent", (double)r->unsent);
    set_number(L, "seconds", seconds);
    set_number(L, "calls_per_s", seconds > 0 ? (double)r->calls / seconds : 0);
    set_latency(L, "p50_us", mp_histogram_at(h, 0.5));
    set_latency(L, "p90_us", mp_histogram_at(h, 0.9));
    set_latency(L, "p99_us", mp_histogram_at(h, 0.99));
    set_latency(L, "p999_us", mp_histogram_at(h, 0.999));
    set_latency(L, "max_us", h->max);
    lua_pushboolean(L, r->is_interrupted);
    lua_setfield(L, -2, "interrupted");
    lua_createtable(L, 0, (int)r->kinds_count);
    for (uint32_t i = 0; i < r->kinds_count; i++)
        set_number(L, r->kinds[i].name, (double)r->kinds[i].count);
    lua_setfield(L, -2, "errors_by");
}

/* A string of the table at 1, which keeps it; empty if there is none. */
static struct mp_slice text_field(lua_State *L, const char *key)
{
    struct mp_slice text = {0};
    lua_getfield(L, 1, key);
    if (!lua_isnil(L, -1))
        text = mp_native_text_option(L, key);
    lua_pop(L, 1);
    return text;
}

static void read_bench(lua_State *L, struct mp_bench_config *config)
{
    lua_getfield(L, 1, "graph");
    config->is_run = !lua_isnil(L, -1);
    lua_pop(L, 1);
    config->payload = text_field(L, config->is_run ? "graph" : "args");
    lua_getfield(L, 1, "options");
    if (config->is_run)
        mp_native_read_run_options(L, lua_gettop(L), &config->run);
    else
        mp_native_read_call_options(L, lua_gettop(L), &config->call);
    lua_pop(L, 1); /* the table at 1 keeps the options, and they their strings */
    config->call.fun = text_field(L, "fun");
    if (!config->is_run && (config->call.fun.size == 0 || config->payload.size == 0))
        luaL_error(L, "fun and args, or graph, are needed");
    config->outstanding =
        (uint32_t)mp_native_whole_field(L, 1, "outstanding", MP_LOAD_OUTSTANDING_MAX);
    config->connections =
        (uint32_t)mp_native_whole_field(L, 1, "connections", MP_LOAD_CONNECTIONS_MAX);
    config->outstanding = config->outstanding == 0 ? 1 : config->outstanding;
    config->connections = config->connections == 0 ? 1 : config->connections;
    double seconds = mp_native_number_field(L, 1, "seconds", 1);
    config->rate = mp_native_number_field(L, 1, "rate", 0);
    if (!(seconds > 0 && seconds <= 1e6) || !(config->rate >= 0 && config->rate <= 1e9))
        luaL_error(L, "seconds or rate is out of range");
    if (config->outstanding < config->connections)
        luaL_error(L, "outstanding must be at least connections");
    config->duration = (mp_duration)(seconds * 1e9);
}

struct push {
    struct mp_slice bytes;
    int reference; /* of the string made of them */
};

static int push_bytes(lua_State *L)
{
    struct push *p = (struct push *)lua_touserdata(L, 1);
    lua_pushlstring(L, (const char *)p->bytes.data, p->bytes.size);
    p->reference = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

/* nil and the ERROR map, or an error of ours; frees `error`. */
static int return_error(lua_State *L, enum mp_err err, struct mp_buf *error)
{
    struct push p = {.bytes = mp_buf_slice(error)};
    int status = err == MP_ECLOSED ? lua_cpcall(L, push_bytes, &p) : 0;
    mp_buf_fini(error);
    if (err != MP_ECLOSED)
        return luaL_error(L, "%s", mp_err_text(err));
    if (status != 0)
        return lua_error(L);
    lua_pushnil(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, p.reference);
    luaL_unref(L, LUA_REGISTRYINDEX, p.reference);
    return 2;
}

static void count_interrupts(struct sigaction *before)
{
    const struct sigaction counting = {.sa_handler = count_interrupt}; /* no SA_RESTART */
    mp_native_ignore_sigpipe();
    bench_interrupts = 0;
    sigaction(SIGINT, &counting, before);
}

int mp_native_bench(lua_State *L)
{
    const char *nodes[MP_CLIENT_NODES_MAX];
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    struct mp_bench_config config = {
        .alloc = &mp_libc_alloc, .nodes = nodes, .interrupts = &bench_interrupts};
    config.nodes_count = mp_native_read_nodes(L, nodes);
    read_bench(L, &config);
    struct mp_load_result *result =
        (struct mp_load_result *)lua_newuserdata(L, sizeof(struct mp_load_result));
    struct sigaction before;
    struct mp_buf error;
    mp_buf_init(&error, &mp_libc_alloc, 0);
    count_interrupts(&before);
    enum mp_err err = mp_bench_run(&config, result, &error);
    sigaction(SIGINT, &before, NULL);
    if (err != MP_OK)
        return return_error(L, err, &error);
    mp_buf_fini(&error);
    push_figures(L, result);
    return 1;
}

static void push_pub_figures(lua_State *L, const struct mp_pub_load_result *r)
{
    double publishing = (double)r->publishing / 1e9;
    double delivering = (double)r->delivering / 1e9;
    lua_createtable(L, 0, 10);
    set_number(L, "published", (double)r->published);
    set_number(L, "delivered", (double)r->delivered);
    set_number(L, "dropped", (double)r->dropped);
    set_number(L, "seconds", publishing);
    set_number(L, "published_per_s", publishing > 0 ? (double)r->published / publishing : 0);
    set_number(L, "delivered_per_s", delivering > 0 ? (double)r->delivered / delivering : 0);
    set_latency(L, "p50_us", mp_histogram_at(&r->latencies, 0.5));
    set_latency(L, "p99_us", mp_histogram_at(&r->latencies, 0.99));
    lua_pushboolean(L, r->is_interrupted);
    lua_setfield(L, -2, "interrupted");
}

int mp_native_bench_pub(lua_State *L)
{
    const char *nodes[MP_CLIENT_NODES_MAX];
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    struct mp_pub_load_config config = {
        .alloc = &mp_libc_alloc, .nodes = nodes, .interrupts = &bench_interrupts};
    config.drain = MP_MS(PUB_DRAIN_MS);
    config.nodes_count = mp_native_read_nodes(L, nodes);
    config.topic = text_field(L, "topic");
    config.pattern = text_field(L, "pattern");
    config.subscribers =
        (uint32_t)mp_native_whole_field(L, 1, "subscribers", MP_PUB_LOAD_SUBSCRIBERS_MAX);
    config.size = (uint32_t)mp_native_whole_field(L, 1, "size", MP_VALUE_BYTES_CEILING);
    config.rate = mp_native_number_field(L, 1, "rate", 0);
    double seconds = mp_native_number_field(L, 1, "seconds", 1);
    if (!(seconds > 0 && seconds <= 1e6) || !(config.rate >= 0 && config.rate <= 1e9))
        return luaL_error(L, "seconds or rate is out of range");
    config.duration = (mp_duration)(seconds * 1e9);
    struct mp_pub_load_result *result =
        (struct mp_pub_load_result *)lua_newuserdata(L, sizeof(struct mp_pub_load_result));
    struct sigaction before;
    struct mp_buf error;
    mp_buf_init(&error, &mp_libc_alloc, 0);
    count_interrupts(&before);
    enum mp_err err = mp_pub_load_run(&config, result, &error);
    sigaction(SIGINT, &before, NULL);
    if (err != MP_OK)
        return return_error(L, err, &error);
    mp_buf_fini(&error);
    push_pub_figures(L, result);
    return 1;
}
