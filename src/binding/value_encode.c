/* Lua → MessagePack; the rules stand in value.c.
 *
 * The walk keeps its own frames, one for each table that is open, and uses no C recursion. On the
 * Lua stack each open table lies as [table, last key], the value in hand on top. A table is read
 * in one pass of lua_next: a list's keys come as 1, 2, 3 … unless it grew in an odd order, and a
 * map's pairs are counted on the way, its header being patched at the end. Only when the keys do
 * not come as hoped, they are looked at as a whole (`classify`), to tell the odd order from the
 * wrong key. */
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/binding/value_internal.h"
#include "src/wire/msgpack.h"

#define FIXMAP_PAIRS_MAX 15
#define ROW_MESSAGE      "a table is a list (keys 1 to n) or a map (string keys), not both"

enum frame_kind {
    FRAME_LIST,    /* keys come in order from lua_next */
    FRAME_INDEXED, /* a list whose keys do not: read by index */
    FRAME_MAP
};

struct frame {
    const void *table; /* its identity, to find cycles */
    size_t header;     /* where its bytes begin in out */
    uint32_t count;    /* entries begun */
    uint32_t total;    /* of a list */
    int index;         /* on the Lua stack */
    enum frame_kind kind;
};

struct encoder {
    lua_State *L;
    struct mp_buf *out;
    struct mp_value_error *error;
    bool empty_is_array; /* for the outermost table */
    unsigned depth;
    struct frame frames[MP_DEPTH_MAX];
};

static enum mp_err encode_one(struct encoder *e, int index, bool empty_is_array);

enum mp_err mp_value_encode(lua_State *L, int index, struct mp_buf *out,
                            const struct mp_value_options *opt, struct mp_value_error *error)
{
    struct encoder e;
    e.L = L;
    e.out = out;
    e.error = error;
    e.depth = 0;
    size_t size = out->size;
    enum mp_err err = encode_one(&e, index, opt && opt->empty_is_array);
    if (err != MP_OK) {
        out->size = size;
        if (error)
            error->argument = 0;
    }
    return err;
}

enum mp_err mp_value_encode_args(lua_State *L, int first, int count, struct mp_buf *out,
                                 struct mp_value_error *error)
{
    mp_assert(first > 0 && count >= 0);
    struct encoder e;
    e.L = L;
    e.out = out;
    e.error = error;
    e.depth = 0;
    size_t size = out->size;
    enum mp_err err = mp_mp_put_array(out, (uint32_t)count);
    int i = 0;
    for (; err == MP_OK && i < count; i++)
        err = encode_one(&e, first + i, false);
    if (err != MP_OK) {
        out->size = size;
        if (error)
            error->argument = (uint32_t)i;
    }
    return err;
}

/* The path of the open tables' current entries, the innermost `depth` left out. */
static void tell_path(struct encoder *e, struct mp_path *path)
{
    lua_State *L = e->L;
    mp_path_init(path, e->error->path, sizeof(e->error->path));
    for (unsigned d = 0; d < e->depth; d++) {
        const struct frame *f = &e->frames[d];
        if (f->kind != FRAME_MAP) {
            mp_path_add_index(path, f->count);
            continue;
        }
        size_t size;
        const char *key = lua_tolstring(L, f->index + 1, &size);
        mp_path_add_key(path, mp_slice_of(key, size));
    }
}

/* Fails at the value in hand. */
static enum mp_err fail(struct encoder *e, enum mp_err err, const char *message, const char *hint)
{
    if (e->error) {
        struct mp_path path;
        tell_path(e, &path);
    }
    return mp_value_fail(e->error, err, message, hint);
}

static enum mp_err fail_buffer(struct encoder *e, enum mp_err err)
{
    char message[MP_VALUE_MESSAGE_BYTES];
    snprintf(message, sizeof(message), "the value is larger than %zu bytes", e->out->size_max);
    if (e->error)
        e->error->path[0] = '\0';
    return mp_value_fail(e->error, err, err == MP_ETOOLARGE ? message : mp_err_text(err), "");
}

/* --- scalars --- */

static enum mp_err put_number(struct encoder *e, double v)
{
    if (v >= -(double)MP_EXACT_MAX && v <= (double)MP_EXACT_MAX) {
        int64_t i = (int64_t)v;
        if ((double)i == v && (i != 0 || !signbit(v)))
            return mp_mp_put_int(e->out, i);
    }
    return mp_mp_put_float(e->out, v);
}

static enum mp_err put_string(struct encoder *e, int index)
{
    size_t size;
    const char *data = lua_tolstring(e->L, index, &size);
    struct mp_slice s = mp_slice_of(data, size);
    return mp_slice_is_utf8(s) ? mp_mp_put_str(e->out, s) : mp_mp_put_bin(e->out, s);
}

/* Codes of our own failures (told already) are apart from those of the buffer (to be told). */
static enum mp_err put_cdata(struct encoder *e, bool *is_told)
{
    uint64_t bits = 0;
    switch (mp_value_get_int(e->L, -1, &bits)) {
    case MP_VALUE_INT64:
        return mp_mp_put_int(e->out, (int64_t)bits);
    case MP_VALUE_UINT64:
        return mp_mp_put_uint(e->out, bits);
    default:
        *is_told = true;
        return fail(e, MP_EINVAL, "an FFI object cannot be sent",
                    "only int64_t and uint64_t can; copy the data into a table or a string");
    }
}

static enum mp_err refuse_type(struct encoder *e, int type)
{
    switch (type) {
    case LUA_TFUNCTION:
        return fail(e, MP_EINVAL, "a function cannot be sent", "send data, or the function's name");
    case LUA_TTHREAD:
        return fail(e, MP_EINVAL, "a coroutine cannot be sent", "");
    default:
        return fail(e, MP_EINVAL, "a userdata cannot be sent", "copy the data into a table");
    }
}

/* --- tables --- */

static enum mp_err check_nesting(struct encoder *e, const void *table)
{
    for (unsigned d = 0; d < e->depth; d++)
        if (e->frames[d].table == table)
            return fail(e, MP_EINVAL, "a cycle: this table contains itself", "");
    if (e->depth == MP_DEPTH_MAX) {
        char message[MP_VALUE_MESSAGE_BYTES];
        snprintf(message, sizeof(message), "nesting is over %d", MP_DEPTH_MAX);
        return fail(e, MP_EINVAL, message, "");
    }
    if (!lua_checkstack(e->L, 6))
        return fail(e, MP_ENOMEM, "the Lua stack is full", "");
    return MP_OK;
}

static enum mp_err put_bytes_object(struct encoder *e, bool *is_told)
{
    lua_rawgeti(e->L, -1, 1);
    if (lua_type(e->L, -1) != LUA_TSTRING) {
        lua_pop(e->L, 1);
        *is_told = true;
        return fail(e, MP_EINVAL, "mpreg.bytes holds no string", "");
    }
    size_t size;
    const char *data = lua_tolstring(e->L, -1, &size);
    enum mp_err err = mp_mp_put_bin(e->out, mp_slice_of(data, size));
    lua_pop(e->L, 1);
    return err;
}

/* Fails at a key of the innermost table, which is open and has no current entry. */
static enum mp_err fail_at_key(struct encoder *e, const char *message, const char *hint)
{
    lua_State *L = e->L;
    if (!e->error)
        return MP_EINVAL;
    struct mp_path path;
    e->depth--;
    tell_path(e, &path);
    e->depth++;
    char text[48];
    size_t size;
    const char *key;
    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        key = lua_tolstring(L, -1, &size);
        mp_path_add_key(&path, mp_slice_of(key, size));
        break;
    case LUA_TNUMBER:
        snprintf(text, sizeof(text), "[%.14g]", lua_tonumber(L, -1));
        mp_path_add_text(&path, mp_slice_str(text));
        break;
    case LUA_TBOOLEAN:
        mp_path_add_text(&path, mp_slice_str(lua_toboolean(L, -1) ? "[true]" : "[false]"));
        break;
    default:
        snprintf(text, sizeof(text), "[%s]", lua_typename(L, lua_type(L, -1)));
        mp_path_add_text(&path, mp_slice_str(text));
    }
    return mp_value_fail(e->error, MP_EINVAL, message, hint);
}

/* Finds the hole of a table whose keys are integers but not 1 to n, and fails there. */
static enum mp_err fail_at_hole(struct encoder *e, const struct frame *f)
{
    lua_State *L = e->L;
    int missing = 1;
    for (;; missing++) {
        lua_rawgeti(L, f->index, missing);
        bool is_hole = lua_isnil(L, -1);
        lua_pop(L, 1);
        if (is_hole)
            break;
    }
    lua_pushinteger(L, missing);
    enum mp_err err = fail_at_key(e, "a list has a hole here",
                                  "fill holes with mpreg.null, or use string keys (tostring(k))");
    lua_pop(L, 1);
    return err;
}

/* Looks at all keys of the innermost table, after one of them was not the expected one. A list in
 * an odd order is begun anew by index, a map that was thought to be an empty list as a map;
 * anything else fails at the key that is wrong. */
static enum mp_err classify(struct encoder *e)
{
    lua_State *L = e->L;
    struct frame *f = &e->frames[e->depth - 1];
    lua_settop(L, f->index);
    bool is_marked = mp_value_mark_of(L, f->index) == MP_VALUE_ARRAY;
    bool has_integers = is_marked;
    double greatest = 0;
    double count = 0;
    lua_pushnil(L);
    while (lua_next(L, f->index)) {
        lua_pop(L, 1);
        double k = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
        if (lua_type(L, -1) == LUA_TNUMBER && (k < 1 || k != floor(k) || k > (double)INT32_MAX))
            return fail_at_key(e, "this number cannot be a key",
                               "lists have the keys 1 to n, maps have string keys (tostring(k))");
        if (lua_type(L, -1) != LUA_TNUMBER && lua_type(L, -1) != LUA_TSTRING)
            return fail_at_key(e, "only strings and 1 to n can be keys", "");
        if (k >= 1) {
            has_integers = true;
            greatest = k > greatest ? k : greatest;
            count++;
        }
    }
    lua_pushnil(L);
    while (has_integers && lua_next(L, f->index)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING)
            return fail_at_key(e, is_marked ? "an array cannot have string keys" : ROW_MESSAGE, "");
    }
    lua_settop(L, f->index);
    if (count != greatest)
        return fail_at_hole(e, f);
    e->out->size = f->header;
    f->count = 0;
    if (!has_integers) {
        f->kind = FRAME_MAP;
        lua_pushnil(L);
        return mp_mp_put_map(e->out, 0);
    }
    f->kind = FRAME_INDEXED;
    f->total = (uint32_t)count;
    return mp_mp_put_array(e->out, f->total);
}

/* Opens the table on top. Its kind is a guess by its border: 0 is a map, or nothing. */
static enum mp_err open_table(struct encoder *e, bool *is_told)
{
    lua_State *L = e->L;
    const void *table = lua_topointer(L, -1);
    enum mp_err err = check_nesting(e, table);
    if (err != MP_OK) {
        *is_told = true;
        return err;
    }
    enum mp_value_mark mark = mp_value_mark_of(L, -1);
    if (mark == MP_VALUE_BYTES) {
        err = put_bytes_object(e, is_told);
        lua_pop(L, 1);
        return err;
    }
    bool empty_is_array = mark == MP_VALUE_ARRAY || (e->empty_is_array && e->depth == 0);
    size_t border = lua_objlen(L, -1);
    if (border > UINT32_MAX)
        return MP_ETOOLARGE;
    struct frame *f = &e->frames[e->depth++];
    f->table = table;
    f->header = e->out->size;
    f->count = 0;
    f->total = (uint32_t)border;
    f->index = lua_gettop(L);
    f->kind = border != 0 || empty_is_array ? FRAME_LIST : FRAME_MAP;
    lua_pushnil(L);
    return f->kind == FRAME_LIST ? mp_mp_put_array(e->out, f->total) : mp_mp_put_map(e->out, 0);
}

/* Writes the pairs' count into a map's header, which holds one byte so far. */
static enum mp_err patch_map(struct encoder *e, const struct frame *f)
{
    if (f->count <= FIXMAP_PAIRS_MAX) {
        e->out->data[f->header] = (uint8_t)(0x80 | f->count);
        return MP_OK;
    }
    unsigned bytes = f->count <= UINT16_MAX ? 2 : 4;
    enum mp_err err = mp_buf_reserve(e->out, bytes);
    if (err != MP_OK)
        return err;
    uint8_t *at = e->out->data + f->header;
    memmove(at + 1 + bytes, at + 1, e->out->size - f->header - 1);
    *at = bytes == 2 ? 0xde : 0xdf;
    for (unsigned i = 0; i < bytes; i++)
        at[1 + i] = (uint8_t)(f->count >> (8 * (bytes - 1 - i)));
    e->out->size += bytes;
    return MP_OK;
}

static enum mp_err put_top(struct encoder *e, bool *is_told)
{
    lua_State *L = e->L;
    enum mp_err err;
    int type = lua_type(L, -1);
    switch (type) {
    case LUA_TTABLE:
        return open_table(e, is_told);
    case LUA_TSTRING:
        err = put_string(e, -1);
        break;
    case LUA_TNUMBER:
        err = put_number(e, lua_tonumber(L, -1));
        break;
    case LUA_TBOOLEAN:
        err = mp_mp_put_bool(e->out, lua_toboolean(L, -1));
        break;
    case LUA_TNIL:
        err = mp_mp_put_nil(e->out);
        break;
    case MP_LUA_TCDATA:
        err = put_cdata(e, is_told);
        break;
    default:
        if (type == LUA_TLIGHTUSERDATA && lua_touserdata(L, -1) == NULL) {
            err = mp_mp_put_nil(e->out);
            break;
        }
        *is_told = true;
        err = refuse_type(e, type);
    }
    lua_pop(L, 1);
    return err;
}

static enum mp_err close_table(struct encoder *e)
{
    struct frame *f = &e->frames[e->depth - 1];
    enum mp_err err = f->kind == FRAME_MAP ? patch_map(e, f) : MP_OK;
    lua_settop(e->L, f->index - 1);
    e->depth--;
    return err;
}

/* One entry of the innermost table, or its end. */
static enum mp_err step(struct encoder *e, bool *is_told)
{
    lua_State *L = e->L;
    struct frame *f = &e->frames[e->depth - 1];
    if (f->kind == FRAME_INDEXED) {
        if (f->count == f->total)
            return close_table(e);
        lua_rawgeti(L, f->index, (int)++f->count);
        return put_top(e, is_told);
    }
    if (!lua_next(L, f->index)) {
        if (f->kind == FRAME_MAP || f->count == f->total)
            return close_table(e);
    } else if (f->kind == FRAME_LIST) {
        if (lua_type(L, -2) == LUA_TNUMBER && f->count < f->total &&
            lua_tonumber(L, -2) == (double)f->count + 1) {
            f->count++;
            return put_top(e, is_told);
        }
    } else if (lua_type(L, -2) == LUA_TSTRING) {
        f->count++;
        enum mp_err err = put_string(e, -2);
        return err != MP_OK ? err : put_top(e, is_told);
    }
    enum mp_err err = classify(e);
    *is_told = err == MP_EINVAL;
    return err;
}

static enum mp_err encode_one(struct encoder *e, int index, bool empty_is_array)
{
    lua_State *L = e->L;
    int top = lua_gettop(L);
    bool is_told = false;
    e->empty_is_array = empty_is_array;
    if (!lua_checkstack(L, 6))
        return fail(e, MP_ENOMEM, "the Lua stack is full", "");
    lua_pushvalue(L, index);
    enum mp_err err = put_top(e, &is_told);
    while (err == MP_OK && e->depth != 0)
        err = step(e, &is_told);
    if (err != MP_OK && !is_told)
        fail_buffer(e, err);
    e->depth = 0;
    lua_settop(L, top);
    return err;
}
