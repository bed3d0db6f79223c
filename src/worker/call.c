/* Calls. Each one that was begun has a slot with a coroutine, whose body (lua/mpreg/runtime) is
 *
 *     while true do f = give(f(take())) end
 *
 * take() decodes the arguments from the ring onto the coroutine's own stack; give(…) encodes the
 * result into the outbox, and yields until the slot has another call. So the decoding, the function
 * and the encoding run in one lua_resume, which is the protected call around them, and nothing is
 * allocated for a call but what its values need. A coroutine in which an error arose is dead: its
 * stack is read for the traceback, and the slot gets a new one with its next call.
 *
 * A call that waits (for nested calls, or to sleep) is parked. It is resumed for each event: a
 * result, its timer, or a cancellation; event() of library.c tells it which. A nested call's number
 * holds its place in a table and that place's generation, so a number that is no longer known is
 * told from one that is. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/binding/value.h"
#include "src/worker/worker_internal.h"

#define BUSY_NS            50000 /* a function that computes longer: earlier answers go out first */
#define LONG_STRING_HEADER 5

/* --- slots --- */

static bool grow_slots(struct mp_worker *w)
{
    uint32_t capacity = w->call_capacity == 0 ? 16 : w->call_capacity * 2;
    void *calls = realloc(w->calls, capacity * sizeof(struct mp_call *));
    if (calls)
        w->calls = (struct mp_call **)calls;
    void *free_calls = realloc(w->free_calls, capacity * sizeof(uint32_t));
    if (free_calls)
        w->free_calls = (uint32_t *)free_calls;
    void *places = realloc(w->timer_places, capacity * sizeof(uint32_t));
    if (places)
        w->timer_places = (uint32_t *)places;
    if (!calls || !free_calls || !places)
        return false;
    w->call_capacity = capacity;
    return true;
}

static struct mp_call *take_slot(struct mp_worker *w)
{
    if (w->free_count != 0)
        return w->calls[w->free_calls[--w->free_count]];
    struct mp_call *call = (struct mp_call *)calloc(1, sizeof(*call));
    if (!call || (w->call_count == w->call_capacity && !grow_slots(w)))
        mp_worker_die("out of memory");
    call->slot = w->call_count;
    call->co_ref = LUA_NOREF;
    call->nested_first = MP_WORKER_NONE;
    mp_buf_init(&call->context, &w->alloc, 0);
    mp_buf_init(&call->cancelled, &w->alloc, 0);
    w->timer_places[call->slot] = MP_HEAP_NONE;
    w->calls[w->call_count++] = call;
    return call;
}

static void unpark(struct mp_worker *w, struct mp_call *call)
{
    if (!call->is_parked)
        return;
    call->is_parked = false;
    mp_map_remove(&w->parked, mp_slice_of(&call->id, sizeof(call->id)));
    mp_heap_remove(&w->timers, w->timer_places, call->slot);
}

static void give_slot(struct mp_worker *w, struct mp_call *call)
{
    unpark(w, call);
    mp_call_drop_nested(w, call);
    mp_buf_clear(&call->context);
    mp_buf_clear(&call->cancelled);
    call->is_cancelled = false;
    call->has_text = false;
    call->function = NULL;
    w->free_calls[w->free_count++] = call->slot;
    w->running_count--;
}

static void drop_coroutine(struct mp_worker *w, struct mp_call *call)
{
    luaL_unref(w->state.L, LUA_REGISTRYINDEX, call->co_ref);
    call->co_ref = LUA_NOREF;
    call->co = NULL;
}

static void need_coroutine(struct mp_worker *w, struct mp_call *call)
{
    if (call->co)
        return;
    lua_State *co = lua_newthread(w->state.L);
    call->co_ref = luaL_ref(w->state.L, LUA_REGISTRYINDEX);
    call->co = co;
    call->is_co_new = true;
}

void mp_call_drop_nested(struct mp_worker *w, struct mp_call *call)
{
    while (call->nested_first != MP_WORKER_NONE) {
        uint32_t index = call->nested_first;
        struct mp_nested *n = &w->nested[index];
        struct mp_msg_cancel m = {.id = (uint64_t)n->generation << 32 | index};
        mp_outbox_send(w, MP_MSG_NESTED_CANCEL, mp_slice_of(&m, sizeof(m)));
        call->nested_first = n->next;
        n->call = MP_WORKER_NONE;
        n->generation++;
        n->next = w->nested_free;
        w->nested_free = index;
    }
    call->nested_count = 0;
}

/* --- answers --- */

static void send_completed(struct mp_worker *w, struct mp_call *call, uint16_t flags)
{
    struct mp_msg_completed m = {.call = call->id,
                                 .begun_at = call->begun_at,
                                 .ended_at = w->now,
                                 .run_ns = call->run_ns,
                                 .size = mp_outbox_size(w)};
    mp_outbox_close(w, MP_MSG_COMPLETED, flags, mp_slice_of(&m, sizeof(m)), NULL, 0);
}

static void finish_fault(struct mp_worker *w, struct mp_call *call, const struct mp_fault *f,
                         uint16_t flags)
{
    mp_outbox_abort(w);
    mp_outbox_open(w, sizeof(struct mp_msg_completed), 0);
    mp_outbox_put_fault(w, f);
    send_completed(w, call, (uint16_t)(MP_RING_ERROR | flags));
    give_slot(w, call);
}

static void finish_out_of_memory(struct mp_worker *w, struct mp_call *call)
{
    char message[160];
    snprintf(message, sizeof(message),
             "the function needed more memory than its worker may use (%zu bytes)",
             w->memory_bytes_max);
    struct mp_fault f = {.code = MP_CODE_RESOURCE_EXHAUSTED,
                         .reason = mp_slice_str("WORKER_MEMORY"),
                         .message = mp_slice_str(message),
                         .hint = mp_slice_str("use less at once, or start the node with a larger "
                                              "--worker-memory")};
    drop_coroutine(w, call);
    finish_fault(w, call, &f, MP_RING_RETIRE);
    w->wants_collect = true;
}

/* A call ended although the limit was met on its way. */
static uint16_t retire_flag(struct mp_worker *w)
{
    if (!w->state.is_refused)
        return 0;
    return mp_state_recover(&w->state) ? 0 : MP_RING_RETIRE;
}

static void flush_text(struct mp_worker *w, struct mp_call *call)
{
    lua_State *L = w->state.L;
    call->has_text = false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->flush_ref);
    lua_pushinteger(L, (lua_Integer)call->slot + 1);
    if (lua_pcall(L, 1, 0, 0) != 0)
        lua_pop(L, 1);
    mp_outbox_abort(w);
}

/* Opens the answer with the ERROR map for the error on top of L, which is popped. `co` is the index
 * of the dead coroutine, or 0. */
static void open_failure(struct mp_worker *w, lua_State *L, int co)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->failure_ref);
    lua_insert(L, -2);
    if (co != 0)
        lua_pushvalue(L, co);
    else
        lua_pushnil(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->call->function->ref);
    lua_call(L, 3, 1);
    mp_outbox_open(w, sizeof(struct mp_msg_completed), 0);
    struct mp_value_error error;
    enum mp_err err = mp_value_encode(L, -1, &w->outbox.payload, NULL, &error);
    if (err != MP_OK) {
        struct mp_fault f = {.code = MP_CODE_INTERNAL,
                             .reason = mp_slice_str("UNENCODABLE"),
                             .message = mp_slice_str("the error cannot be sent")};
        mp_outbox_put_fault(w, &f);
    }
    lua_pop(L, 1);
}

static bool is_memory_error(struct mp_worker *w, lua_State *co, int status)
{
    return status == LUA_ERRMEM || (w->state.is_refused && lua_type(co, -1) == LUA_TSTRING &&
                                    strcmp(lua_tostring(co, -1), "not enough memory") == 0);
}

static void finish_error(struct mp_worker *w, struct mp_call *call, int status)
{
    lua_State *L = w->state.L;
    mp_outbox_abort(w);
    if (is_memory_error(w, call->co, status)) {
        finish_out_of_memory(w, call);
        return;
    }
    if (call->has_text)
        flush_text(w, call);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->co_ref);
    if (lua_gettop(call->co) > 0)
        lua_xmove(call->co, L, 1);
    else
        lua_pushnil(L);
    uint16_t flags = (uint16_t)(MP_RING_ERROR | retire_flag(w));
    open_failure(w, L, lua_gettop(L) - 1);
    lua_pop(L, 1);
    drop_coroutine(w, call);
    send_completed(w, call, flags);
    give_slot(w, call);
}

static void finish_done(struct mp_worker *w, struct mp_call *call)
{
    uint16_t flags = w->outcome_flags;
    if (MP_UNLIKELY(w->state.is_refused))
        flags |= retire_flag(w);
    send_completed(w, call, flags);
    if (MP_UNLIKELY(call->has_text))
        flush_text(w, call);
    give_slot(w, call);
}

/* Counts what the function took, to know those that compute. */
static void learn(struct mp_function *f, uint64_t ns)
{
    f->mean_ns = f->is_known ? f->mean_ns - f->mean_ns / 8 + ns / 8 : ns;
    f->is_known = true;
}

static void park(struct mp_worker *w, struct mp_call *call)
{
    lua_settop(call->co, 0);
    if (call->is_parked)
        return;
    call->is_parked = true;
    if (mp_map_set(&w->parked, mp_slice_of(&call->id, sizeof(call->id)), call->slot) != MP_OK)
        mp_worker_die("out of memory");
}

static void give_back_args(struct mp_worker *w)
{
    if (MP_LIKELY(w->args_block == MP_ARENA_NONE))
        return;
    uint64_t at = w->args_block;
    w->args_block = MP_ARENA_NONE;
    mp_outbox_release(w, at);
}

/* Gives the CPU to a call until it ends or waits. `count` values for it are on its stack. */
static void run(struct mp_worker *w, struct mp_call *call, int count)
{
    struct mp_channel_status *status = w->channel.status;
    w->call = call;
    w->outcome = MP_OUTCOME_NONE;
    struct mp_function *function = call->function;
    atomic_store_explicit(&status->running_since, w->now, memory_order_relaxed);
    atomic_store_explicit(&status->running, call->id, memory_order_release);
    atomic_store_explicit(&status->turns,
                          atomic_load_explicit(&status->turns, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    int result = lua_resume(call->co, count);
    uint64_t now = mp_worker_now();
    uint64_t took = now - w->now;
    w->now = now;
    call->run_ns += took;
    learn(function, took);
    if (MP_LIKELY(result == LUA_YIELD && w->outcome == MP_OUTCOME_DONE)) {
        finish_done(w, call);
    } else if (result == LUA_YIELD && w->outcome == MP_OUTCOME_WAIT) {
        park(w, call);
    } else if (result == LUA_YIELD || result == 0) {
        struct mp_fault f = {.code = MP_CODE_INTERNAL,
                             .reason = mp_slice_str("STRAY_YIELD"),
                             .message = mp_slice_str("the function yielded outside a coroutine")};
        drop_coroutine(w, call);
        finish_fault(w, call, &f, 0);
    } else {
        finish_error(w, call, result);
    }
    atomic_store_explicit(&status->running, 0, memory_order_release);
    w->call = NULL;
}

/* --- what the host sends --- */

static void fail_unknown(struct mp_worker *w, struct mp_call *call)
{
    struct mp_fault f = {.code = MP_CODE_NOT_FOUND,
                         .reason = mp_slice_str("UNKNOWN_FUNCTION"),
                         .message = mp_slice_str("the module has no such function")};
    w->call = call;
    finish_fault(w, call, &f, 0);
    w->call = NULL;
}

/* The arguments' bytes; false if they are not where they are said to be. */
static bool find_args(struct mp_worker *w, const struct mp_ring_record *record,
                      const struct mp_msg_invoke *m, struct mp_slice body)
{
    struct mp_slice rest = mp_slice_of(body.data + sizeof(*m), body.size - sizeof(*m));
    if (m->context_size > rest.size)
        return false;
    if (record->flags & MP_RING_LARGE) {
        if (!mp_arena_view_get(&w->host_arena, m->at, m->args_size, &w->args))
            return false;
        w->args_block = m->at;
        return true;
    }
    if (m->args_size > rest.size - m->context_size)
        return false;
    w->args = mp_slice_of(rest.data + m->context_size, m->args_size);
    return true;
}

void mp_call_invoke(struct mp_worker *w, struct mp_ring_record *record)
{
    uint32_t ready = MP_RING_READY;
    if (!atomic_compare_exchange_strong_explicit(&record->state, &ready, MP_RING_BEGUN,
                                                 memory_order_acq_rel, memory_order_acquire))
        return;
    struct mp_msg_invoke m;
    struct mp_slice body = mp_worker_body(record, sizeof(m));
    memcpy(&m, body.data, sizeof(m));
    if (!find_args(w, record, &m, body))
        mp_worker_die("a call's arguments are not in the ring");
    struct mp_call *call = take_slot(w);
    w->running_count++;
    call->id = m.call;
    call->begun_at = w->now;
    call->run_ns = 0;
    call->deadline = m.deadline;
    call->module = m.module;
    call->release = m.release;
    call->number = m.function;
    call->function = mp_module_function(w, m.module, m.function, m.release);
    if (m.context_size != 0 &&
        mp_buf_append(&call->context, mp_slice_of(body.data + sizeof(m), m.context_size)) != MP_OK)
        mp_worker_die("out of memory");
    if (!call->function || call->function->ref == LUA_NOREF) {
        fail_unknown(w, call);
        give_back_args(w);
        return;
    }
    w->call = call;
    need_coroutine(w, call);
    int count = 1;
    if (call->is_co_new) {
        lua_rawgeti(call->co, LUA_REGISTRYINDEX, w->body_ref);
        call->is_co_new = false;
    }
    lua_rawgeti(call->co, LUA_REGISTRYINDEX, call->function->ref);
    run(w, call, count);
    give_back_args(w);
}

static struct mp_call *find_nested(struct mp_worker *w, uint64_t id, uint32_t *index)
{
    *index = (uint32_t)id;
    if (*index >= w->nested_count)
        return NULL;
    struct mp_nested *n = &w->nested[*index];
    if (n->call == MP_WORKER_NONE || n->generation != (uint32_t)(id >> 32))
        return NULL;
    return w->calls[n->call];
}

static void forget_nested(struct mp_worker *w, struct mp_call *call, uint32_t index)
{
    struct mp_nested *n = &w->nested[index];
    if (n->next != MP_WORKER_NONE)
        w->nested[n->next].previous = n->previous;
    if (n->previous != MP_WORKER_NONE)
        w->nested[n->previous].next = n->next;
    else
        call->nested_first = n->next;
    call->nested_count--;
    n->call = MP_WORKER_NONE;
    n->generation++;
    n->next = w->nested_free;
    w->nested_free = index;
}

void mp_call_result(struct mp_worker *w, struct mp_ring_record *record)
{
    struct mp_msg_result m;
    struct mp_slice body = mp_worker_body(record, sizeof(m));
    memcpy(&m, body.data, sizeof(m));
    struct mp_slice value = mp_slice_of(body.data + sizeof(m), m.size);
    bool is_large = record->flags & MP_RING_LARGE;
    bool is_there = is_large ? mp_arena_view_get(&w->host_arena, m.at, m.size, &value)
                             : m.size <= body.size - sizeof(m);
    if (!is_there)
        mp_worker_die("a result is not in the ring");
    uint32_t index;
    struct mp_call *call = find_nested(w, m.nested, &index);
    if (is_large)
        w->args_block = m.at;
    if (call) {
        w->event = (struct mp_event){.position = w->nested[index].position,
                                     .is_error = record->flags & MP_RING_ERROR,
                                     .has_value = true,
                                     .value = value};
        forget_nested(w, call, index);
        run(w, call, 0);
    }
    give_back_args(w);
}

void mp_call_cancel(struct mp_worker *w, struct mp_ring_record *record)
{
    struct mp_msg_cancel m;
    struct mp_slice body = mp_worker_body(record, sizeof(m));
    memcpy(&m, body.data, sizeof(m));
    if (m.size > body.size - sizeof(m))
        mp_worker_die("a cancellation is not in the ring");
    uint32_t slot;
    if (!mp_map_get(&w->parked, mp_slice_of(&m.id, sizeof(m.id)), &slot))
        return;
    struct mp_call *call = w->calls[slot];
    if (call->is_cancelled)
        return;
    if (mp_buf_append(&call->cancelled, mp_slice_of(body.data + sizeof(m), m.size)) != MP_OK)
        mp_worker_die("out of memory");
    call->is_cancelled = true;
    mp_heap_remove(&w->timers, w->timer_places, slot);
    mp_call_drop_nested(w, call);
    run(w, call, 0);
}

void mp_call_fire_timers(struct mp_worker *w)
{
    uint32_t slot;
    while (mp_heap_pop(&w->timers, w->timer_places, w->now, &slot)) {
        w->event = (struct mp_event){0};
        run(w, w->calls[slot], 0);
    }
}

void mp_call_recover(struct mp_worker *w)
{
    struct mp_call *call = w->call;
    w->call = NULL;
    mp_outbox_abort(w);
    if (call)
        finish_out_of_memory(w, call);
    atomic_store_explicit(&w->channel.status->running, 0, memory_order_release);
    give_back_args(w);
}

bool mp_call_is_in(const struct mp_worker *w, const struct mp_instance *instance)
{
    const struct mp_function *end = instance->functions + instance->count;
    for (uint32_t i = 0; i < w->call_count; i++) {
        const struct mp_function *f = w->calls[i]->function;
        if (f >= instance->functions && f < end)
            return true;
    }
    return false;
}

/* --- the coroutines' side --- */

int mp_call_take(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, lua_upvalueindex(1));
    struct mp_value_error error;
    int count = 0;
    if (MP_UNLIKELY(mp_value_decode_args(L, w->args, &count, &error) != MP_OK)) {
        char message[MP_VALUE_PATH_BYTES + MP_VALUE_MESSAGE_BYTES + 32];
        snprintf(message, sizeof(message), "argument %u%s: %s", (unsigned)error.argument,
                 error.path, error.message);
        return mp_library_raise(w, L, MP_CODE_INVALID_ARGUMENT, "BAD_VALUE", message, error.hint);
    }
    struct mp_function *f = w->call->function;
    if (!f->is_known || f->mean_ns > BUSY_NS) {
        give_back_args(w);
        mp_ring_release(&w->channel.to_worker);
        mp_outbox_publish(w);
    }
    return count;
}

int mp_call_called(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, lua_upvalueindex(1));
    lua_pushinteger(L, (lua_Integer)w->call->module);
    lua_pushinteger(L, (lua_Integer)w->call->release);
    return 2;
}

int mp_call_enter(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, lua_upvalueindex(1));
    struct mp_call *call = w->call;
    struct mp_instance *instance =
        mp_module_keep(w, L, call->module, (uint32_t)lua_tointeger(L, 3), 1);
    mp_module_serve(w, call->module, instance, call->release, lua_toboolean(L, 4));
    struct mp_function *f =
        call->number < instance->count ? &instance->functions[call->number] : NULL;
    if (!f || f->ref == LUA_NOREF)
        return mp_library_raise(w, L, MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                                "the module has no such function", NULL);
    call->function = f;
    lua_rawgeti(L, LUA_REGISTRYINDEX, f->ref);
    return 1;
}

static void put_unencodable(struct mp_worker *w, const struct mp_value_error *error)
{
    char message[MP_VALUE_PATH_BYTES + MP_VALUE_MESSAGE_BYTES + 32];
    struct mp_fault f = {.code = MP_CODE_INTERNAL, .reason = mp_slice_str("UNENCODABLE")};
    if (error->err == MP_ETOOLARGE) {
        f.code = MP_CODE_RESOURCE_EXHAUSTED;
        f.reason = mp_slice_str("TOO_LARGE");
        snprintf(message, sizeof(message), "the result is larger than %zu bytes (--value-max)",
                 w->value_bytes_max);
    } else if (error->err == MP_ENOMEM) {
        f.code = MP_CODE_RESOURCE_EXHAUSTED;
        f.reason = mp_slice_str("WORKER_MEMORY");
        snprintf(message, sizeof(message), "no memory is left for the result");
    } else {
        snprintf(message, sizeof(message), "result%s: %s", error->path, error->message);
        f.hint = mp_slice_str(error->hint);
    }
    f.message = mp_slice_str(message);
    mp_outbox_put_fault(w, &f);
}

static void put_result(struct mp_worker *w, lua_State *L)
{
    struct mp_value_options options = {.empty_is_array = w->call->function->empty_is_array};
    struct mp_value_error error;
    mp_outbox_open(w, sizeof(struct mp_msg_completed), w->value_bytes_max);
    if (lua_type(L, 1) == LUA_TSTRING && lua_objlen(L, 1) >= MP_VALUE_INLINE_MAX)
        mp_outbox_expect(w, lua_objlen(L, 1) + LONG_STRING_HEADER, LONG_STRING_HEADER);
    enum mp_err err = mp_value_encode(L, 1, &w->outbox.payload, &options, &error);
    if (err == MP_OK && w->outbox.payload.size > w->value_bytes_max)
        error.err = err = MP_ETOOLARGE;
    if (MP_LIKELY(err == MP_OK))
        return;
    mp_outbox_abort(w);
    mp_outbox_open(w, sizeof(struct mp_msg_completed), 0);
    put_unencodable(w, &error);
    w->outcome_flags = MP_RING_ERROR;
}

int mp_call_give(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, lua_upvalueindex(1));
    int count = lua_gettop(L);
    w->outcome_flags = 0;
    if (MP_UNLIKELY(count == 0)) {
        lua_pushnil(L);
    } else if (MP_UNLIKELY(count > 1 && lua_isnil(L, 1) && !lua_isnil(L, 2))) {
        lua_settop(L, 2);
        open_failure(w, L, 0);
        w->outcome_flags = MP_RING_ERROR;
        w->outcome = MP_OUTCOME_DONE;
        lua_settop(L, 0);
        return lua_yield(L, 0);
    }
    put_result(w, L);
    w->outcome = MP_OUTCOME_DONE;
    lua_settop(L, 0);
    return lua_yield(L, 0);
}

void mp_call_fini(struct mp_worker *w)
{
    for (uint32_t i = 0; i < w->call_count; i++) {
        mp_buf_fini(&w->calls[i]->context);
        mp_buf_fini(&w->calls[i]->cancelled);
        free(w->calls[i]);
    }
    free(w->calls);
    free(w->free_calls);
    free(w->timer_places);
    free(w->nested);
    mp_heap_fini(&w->timers);
    mp_map_fini(&w->parked);
}
