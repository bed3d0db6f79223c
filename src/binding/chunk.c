/* A chunk is dumped, changed and read again. Of the dump's form (LuaJIT's lj_bcdump.h, version 2)
 * this reads as much as finds the instructions: a header, then prototypes with their length before
 * them. The numbers of the instructions come from LuaJIT itself, from two loops that differ in
 * nothing else. */
#include "src/binding/chunk.h"

#include <lauxlib.h>
#include <luajit.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "src/base/assert.h"

#define DUMP_VERSION  2
#define DUMP_STRIPPED 2u
#define LOADED_BY_LUA 2 /* the place in package.loaders of the one that reads Lua files */

/* The version's last number is the time of its last change; before there was one, it is 0. */
static const char compiler_source[] =
    "local changed = tonumber(jit.version:match '^LuaJIT 2%.1%.(%d+)')\n"
    "if changed and changed < 1700000000 then jit.opt.start '-fuse' end\n";

struct opcodes {
    bool is_known;
    uint8_t isnext, itern; /* what a loop over pairs() has */
    uint8_t jmp, iterc;    /* and any other one */
};

/* The same in every state of the process. */
static struct opcodes opcodes;

struct reader {
    uint8_t *at;
    const uint8_t *end;
    bool is_bad;
};

static size_t left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

static void skip(struct reader *r, size_t size)
{
    r->is_bad = r->is_bad || size > left(r);
    if (!r->is_bad)
        r->at += size;
}

static uint8_t get_byte(struct reader *r)
{
    uint8_t byte = left(r) == 0 ? 0 : *r->at;
    skip(r, 1);
    return byte;
}

/* ULEB128, at most 32 bits. */
static uint32_t get_number(struct reader *r)
{
    uint32_t n = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t byte = get_byte(r);
        n |= (uint32_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return n;
    }
    r->is_bad = true;
    return 0;
}

static uint32_t read_header(struct reader *r)
{
    uint8_t magic[4];
    for (unsigned i = 0; i < sizeof(magic); i++)
        magic[i] = get_byte(r);
    if (memcmp(magic, "\033LJ", 3) != 0 || magic[3] != DUMP_VERSION)
        r->is_bad = true;
    uint32_t flags = get_number(r);
    if (!(flags & DUMP_STRIPPED))
        skip(r, get_number(r));
    return flags;
}

/* The instructions of the next prototype; their number, 0 after the last. */
static uint32_t next_code(struct reader *r, uint32_t flags, uint8_t **code)
{
    uint32_t size = get_number(r);
    if (size == 0 || size > left(r)) {
        r->is_bad = r->is_bad || size != 0;
        return 0;
    }
    struct reader p = {.at = r->at, .end = r->at + size, .is_bad = r->is_bad};
    skip(r, size);
    skip(&p, 4);    /* flags, parameters, frame, upvalues */
    get_number(&p); /* constants that are collected */
    get_number(&p); /* numbers */
    uint32_t count = get_number(&p);
    if (!(flags & DUMP_STRIPPED) && get_number(&p) != 0) {
        get_number(&p); /* first line */
        get_number(&p); /* lines */
    }
    *code = p.at;
    r->is_bad = p.is_bad || count == 0 || count > left(&p) / sizeof(uint32_t);
    return r->is_bad ? 0 : count;
}

/* An instruction is a word in the machine's order; its lowest byte is the operation. */
static uint32_t instruction(const uint8_t *code, uint32_t i)
{
    uint32_t word;
    memcpy(&word, code + i * sizeof(word), sizeof(word));
    return word;
}

static bool replace(const struct opcodes *o, uint8_t *code, uint32_t i)
{
    uint32_t word = instruction(code, i);
    uint8_t operation = (uint8_t)word;
    if (operation != o->isnext && operation != o->itern)
        return false;
    word = (word & ~(uint32_t)0xff) | (operation == o->isnext ? o->jmp : o->iterc);
    memcpy(code + i * sizeof(word), &word, sizeof(word));
    return true;
}

static int write_part(lua_State *L, const void *part, size_t size, void *buffer)
{
    (void)L;
    luaL_addlstring((luaL_Buffer *)buffer, (const char *)part, size);
    return 0;
}

/* Pushes the dump of the function on top as a userdata; its size. */
static size_t push_dump(lua_State *L)
{
    luaL_Buffer b;
    lua_pushvalue(L, -1);
    luaL_buffinit(L, &b);
    if (lua_dump(L, write_part, &b) != 0)
        luaL_error(L, "a chunk cannot be dumped");
    luaL_pushresult(&b);
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    memcpy(lua_newuserdata(L, size), text, size);
    lua_replace(L, -3);
    lua_pop(L, 1);
    return size;
}

static struct reader reader_of(lua_State *L, size_t size)
{
    uint8_t *bytes = (uint8_t *)lua_touserdata(L, -1);
    return (struct reader){.at = bytes, .end = bytes + size};
}

static int raise_unknown(lua_State *L)
{
    return luaL_error(L,
                      "the bytecode of %s has a form that mpreg does not know "
                      "(docs/decisions/0010); build it with LuaJIT 2.1",
                      LUAJIT_VERSION);
}

static uint32_t push_sample(lua_State *L, const char *text, uint8_t **code)
{
    if (luaL_loadbuffer(L, text, strlen(text), "=sample") != 0)
        lua_error(L);
    size_t size = push_dump(L);
    struct reader r = reader_of(L, size);
    uint32_t flags = read_header(&r);
    uint32_t count = next_code(&r, flags, code);
    return r.is_bad ? 0 : count;
}

/* Compares a loop over pairs() with one over another global. */
static void learn_opcodes(lua_State *L)
{
    uint8_t *one;
    uint8_t *other;
    uint8_t found[2][2] = {{0}};
    uint32_t differences = 0;
    uint32_t count = push_sample(L, "for _ in pairs(...) do end", &one);
    if (count == 0 || push_sample(L, "for _ in other(...) do end", &other) != count)
        raise_unknown(L);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t a = instruction(one, i);
        uint32_t b = instruction(other, i);
        if (a == b)
            continue;
        if (a >> 8 != b >> 8 || differences == 2)
            raise_unknown(L);
        found[differences][0] = (uint8_t)a;
        found[differences++][1] = (uint8_t)b;
    }
    if (differences != 2)
        raise_unknown(L);
    opcodes = (struct opcodes){.is_known = true,
                               .isnext = found[0][0],
                               .itern = found[1][0],
                               .jmp = found[0][1],
                               .iterc = found[1][1]};
    lua_pop(L, 4);
}

void mp_chunk_settle(lua_State *L)
{
    mp_assert(opcodes.is_known);
    uint8_t *code;
    uint32_t count;
    bool is_changed = false;
    size_t size = push_dump(L);
    struct reader r = reader_of(L, size);
    uint32_t flags = read_header(&r);
    while ((count = next_code(&r, flags, &code)) != 0)
        for (uint32_t i = 0; i < count; i++)
            is_changed = replace(&opcodes, code, i) || is_changed;
    if (r.is_bad)
        raise_unknown(L);
    if (is_changed) {
        /* What the dump says of its name counts, not this one. */
        if (luaL_loadbuffer(L, (const char *)lua_touserdata(L, -1), size, "=chunk") != 0)
            lua_error(L);
        lua_getfenv(L, -3);
        lua_setfenv(L, -2);
        lua_replace(L, -3);
    }
    lua_pop(L, 1);
}

/* Calls the function that it stands for, and settles the chunk that comes of it. */
static int load_settled(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    if (lua_type(L, 1) == LUA_TFUNCTION && !lua_iscfunction(L, 1)) {
        lua_pushvalue(L, 1);
        mp_chunk_settle(L);
        lua_replace(L, 1);
    }
    return lua_gettop(L);
}

/* With loadfile as upvalue. */
static int do_file(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 2);
    if (lua_isnil(L, 1))
        return lua_error(L);
    lua_settop(L, 1);
    lua_call(L, 0, LUA_MULTRET);
    return lua_gettop(L);
}

void mp_chunk_open(lua_State *L)
{
    static const char *const names[] = {"load", "loadstring", "loadfile"};
    if (!opcodes.is_known)
        learn_opcodes(L);
    if (luaL_loadbuffer(L, compiler_source, sizeof(compiler_source) - 1, "=mpreg.chunk") != 0)
        lua_error(L);
    lua_call(L, 0, 0);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        lua_getglobal(L, names[i]);
        lua_pushcclosure(L, load_settled, 1);
        lua_setglobal(L, names[i]);
    }
    lua_getglobal(L, "loadfile");
    lua_pushcclosure(L, do_file, 1);
    lua_setglobal(L, "dofile");
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaders");
    lua_rawgeti(L, -1, LOADED_BY_LUA);
    lua_pushcclosure(L, load_settled, 1);
    lua_rawseti(L, -2, LOADED_BY_LUA);
    lua_pop(L, 2);
}
