/* MessagePack → Lua; the rules stand in value.c.
 *
 * The walk keeps its own frames and uses no C recursion. On the Lua stack each open container lies
 * as [table] or [table, key], the finished value in hand on top. Tables are made in their final
 * size, so a count must be credible first: each element that an open container still waits for
 * takes at least one byte, hence the elements awaited in all open containers together never exceed
 * the bytes left. What a message can make Lua allocate is thus linear in its length. */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/binding/value_internal.h"
#include "src/wire/msgpack.h"

struct frame {
    uint32_t total;
    uint32_t index; /* of the entry in hand, from 1 */
    bool is_map;
};

struct decoder {
    lua_State *L;
    struct mp_mp_reader reader;
    struct mp_value_error *error;
    uint64_t awaited; /* elements still to come in all open containers */
    unsigned depth;
    struct frame frames[MP_DEPTH_MAX];
};

static enum mp_err decode_one(struct decoder *d);
static enum mp_err fail(struct decoder *d, enum mp_err err, const char *message);

enum mp_err mp_value_decode(lua_State *L, struct mp_slice bytes, struct mp_value_error *error)
{
    struct decoder d;
    d.L = L;
    d.reader = mp_mp_reader_of(bytes);
    d.error = error;
    d.awaited = 0;
    d.depth = 0;
    int top = lua_gettop(L);
    if (error)
        error->argument = 0;
    enum mp_err err = decode_one(&d);
    if (err == MP_OK && !mp_mp_is_at_end(&d.reader))
        err = fail(&d, MP_ECORRUPT, "there are bytes behind the value");
    if (err != MP_OK)
        lua_settop(L, top);
    return err;
}

static enum mp_err open_args(struct decoder *d, struct mp_slice bytes, uint32_t *total)
{
    enum mp_err err = mp_mp_get_array(bytes, total, &d->reader);
    if (err != MP_OK)
        return fail(d, err, "the arguments are no array");
    if (*total > MP_ARGS_MAX) {
        char message[MP_VALUE_MESSAGE_BYTES];
        snprintf(message, sizeof(message), "there are %u arguments, over %d", (unsigned)*total,
                 MP_ARGS_MAX);
        return fail(d, MP_ETOOLARGE, message);
    }
    if (!lua_checkstack(d->L, (int)*total + 6))
        return fail(d, MP_ENOMEM, "the Lua stack is full");
    return MP_OK;
}

enum mp_err mp_value_decode_args(lua_State *L, struct mp_slice bytes, int *count,
                                 struct mp_value_error *error)
{
    struct decoder d;
    d.L = L;
    d.error = error;
    d.awaited = 0;
    d.depth = 0;
    int top = lua_gettop(L);
    uint32_t total = 0;
    if (error)
        error->argument = 0;
    enum mp_err err = open_args(&d, bytes, &total);
    for (uint32_t i = 0; err == MP_OK && i < total; i++) {
        d.awaited = total - i - 1;
        err = decode_one(&d);
        if (err != MP_OK && error)
            error->argument = i + 1;
    }
    if (err == MP_OK && !mp_mp_is_at_end(&d.reader))
        err = fail(&d, MP_ECORRUPT, "there are bytes behind the arguments");
    if (err != MP_OK)
        lua_settop(L, top);
    else
        *count = (int)total;
    return err;
}

/* Fails at the value in hand. Its path is found by the frames alone: keys lie on the stack below
 * what is built of their values, in an order that only the frames know. */
static enum mp_err fail(struct decoder *d, enum mp_err err, const char *message)
{
    if (d->error) {
        struct mp_path path;
        mp_path_init(&path, d->error->path, sizeof(d->error->path));
        int slots = 0;
        for (unsigned i = 0; i < d->depth; i++)
            slots += d->frames[i].is_map ? 2 : 1;
        int at = lua_gettop(d->L) - slots + 1;
        for (unsigned i = 0; i < d->depth; i++) {
            const struct frame *f = &d->frames[i];
            if (f->is_map) {
                size_t size;
                const char *key = lua_tolstring(d->L, at + 1, &size);
                mp_path_add_key(&path, mp_slice_of(key, size));
            } else {
                mp_path_add_index(&path, f->index);
            }
            at += f->is_map ? 2 : 1;
        }
    }
    return mp_value_fail(d->error, err, message, "");
}

static enum mp_err fail_corrupt(struct decoder *d)
{
    return fail(d, MP_ECORRUPT, "the bytes end early or are no MessagePack");
}

/* A map's key onto the stack. The table is on top, its frame not open; on failure it is gone. */
static enum mp_err push_key(struct decoder *d)
{
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(&d->reader, &t);
    if (err != MP_OK || (t.type != MP_MP_STR && t.type != MP_MP_BIN)) {
        lua_pop(d->L, 1);
        return err != MP_OK ? fail_corrupt(d)
                            : fail(d, MP_ETYPE, "a map has a key that is no string");
    }
    lua_pushlstring(d->L, (const char *)t.bytes.data, t.bytes.size);
    d->awaited--;
    return MP_OK;
}

/* Pushes a table for the container; one that is not empty is left open. */
static enum mp_err open_container(struct decoder *d, const struct mp_mp_token *t)
{
    lua_State *L = d->L;
    bool is_map = t->type == MP_MP_MAP;
    uint64_t elements = is_map ? (uint64_t)t->count * 2 : t->count;
    if (elements + d->awaited > (uint64_t)(d->reader.end - d->reader.at))
        return fail_corrupt(d);
    if (d->depth == MP_DEPTH_MAX) {
        char message[MP_VALUE_MESSAGE_BYTES];
        snprintf(message, sizeof(message), "nesting is over %d", MP_DEPTH_MAX);
        return fail(d, MP_EDEPTH, message);
    }
    if (t->count > INT32_MAX / 2)
        return fail(d, MP_ETOOLARGE, "a container has too many elements");
    if (!lua_checkstack(L, 6))
        return fail(d, MP_ENOMEM, "the Lua stack is full");
    lua_createtable(L, is_map ? 0 : (int)t->count, is_map ? (int)t->count : 0);
    if (t->count == 0) {
        if (!is_map) {
            mp_value_push_array_metatable(L);
            lua_setmetatable(L, -2);
        }
        return MP_OK;
    }
    d->awaited += elements;
    if (is_map) {
        enum mp_err err = push_key(d);
        if (err != MP_OK)
            return err;
    }
    d->frames[d->depth++] = (struct frame){.total = t->count, .index = 1, .is_map = is_map};
    return MP_OK;
}

static void push_int(lua_State *L, int64_t i)
{
    if (i >= -MP_EXACT_MAX)
        lua_pushnumber(L, (double)i);
    else
        mp_value_push_int(L, MP_VALUE_INT64, (uint64_t)i);
}

static void push_uint(lua_State *L, uint64_t u)
{
    if (u <= MP_EXACT_MAX)
        lua_pushnumber(L, (double)u);
    else
        mp_value_push_int(L, u <= INT64_MAX ? MP_VALUE_INT64 : MP_VALUE_UINT64, u);
}

static enum mp_err push_token(struct decoder *d, const struct mp_mp_token *t)
{
    lua_State *L = d->L;
    switch (t->type) {
    case MP_MP_NIL:
        if (d->depth == 0)
            lua_pushnil(L);
        else
            lua_pushlightuserdata(L, NULL);
        return MP_OK;
    case MP_MP_BOOL:
        lua_pushboolean(L, t->b);
        return MP_OK;
    case MP_MP_UINT:
        push_uint(L, t->u);
        return MP_OK;
    case MP_MP_INT:
        push_int(L, t->i);
        return MP_OK;
    case MP_MP_FLOAT:
        lua_pushnumber(L, t->f);
        return MP_OK;
    case MP_MP_STR:
    case MP_MP_BIN:
        lua_pushlstring(L, (const char *)t->bytes.data, t->bytes.size);
        return MP_OK;
    case MP_MP_ARRAY:
    case MP_MP_MAP:
        return open_container(d, t);
    default:
        return fail(d, MP_ETYPE, "a MessagePack extension cannot be read");
    }
}

/* Puts the finished value on top into its container, and that one, if it is full now, into its
 * own. Ends with the stack ready for the next value. */
static enum mp_err attach(struct decoder *d)
{
    lua_State *L = d->L;
    while (d->depth != 0) {
        struct frame *f = &d->frames[d->depth - 1];
        if (f->is_map)
            lua_rawset(L, -3);
        else
            lua_rawseti(L, -2, (int)f->index);
        if (f->index < f->total) {
            if (f->is_map) {
                d->depth--;
                enum mp_err err = push_key(d);
                if (err != MP_OK)
                    return err;
                d->depth++;
            }
            f->index++;
            return MP_OK;
        }
        d->depth--;
    }
    return MP_OK;
}

static enum mp_err decode_one(struct decoder *d)
{
    do {
        struct mp_mp_token t;
        if (mp_mp_next(&d->reader, &t) != MP_OK)
            return fail_corrupt(d);
        unsigned depth = d->depth;
        if (depth != 0)
            d->awaited--;
        enum mp_err err = push_token(d, &t);
        if (err == MP_OK && d->depth == depth)
            err = attach(d);
        if (err != MP_OK)
            return err;
    } while (d->depth != 0);
    return MP_OK;
}
