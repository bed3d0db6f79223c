/* Catalogs in a few words: nodes with resources, modules as "function need need, …". */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog.h"
#include "src/wire/msgpack.h"

static inline void must(enum mp_err err)
{
    assert_int_equal(err, MP_OK);
}

static inline struct mp_alloc *plain_alloc(void)
{
    static struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    static struct mp_alloc alloc;
    alloc = spec_alloc_of(&memory);
    return &alloc;
}

static inline struct mp_buf new_buf(void)
{
    struct mp_buf b;
    mp_buf_init(&b, plain_alloc(), 0);
    return b;
}

static inline void put_pair(struct mp_buf *b, const char *key, const char *value)
{
    must(mp_mp_put_text(b, key));
    must(mp_mp_put_text(b, value));
}

/* Some hash of a text: its bytes in hex. */
static inline const char *hash_of(const char *text)
{
    static char hex[65];
    size_t i = 0;
    for (; text[i] && i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)text[i]);
    hex[2 * i] = '\0';
    return hex;
}

/* The next word of a text, up to a blank or comma, into `out`; false at the end of an item. */
static inline bool next_word(const char **text, char *out)
{
    size_t size = 0;
    while (**text == ' ')
        (*text)++;
    while (**text && **text != ' ' && **text != ',' && size < 63)
        out[size++] = *(*text)++;
    out[size] = '\0';
    return size != 0;
}

/* The metadata of a module whose functions are "name need need, name, …". */
static inline void put_metadata(struct mp_buf *b, const char *version, const char *functions)
{
    struct mp_buf list = new_buf();
    uint32_t count = 0;
    for (const char *at = functions; *at; at += *at == ',') {
        struct mp_buf needs = new_buf();
        uint32_t needs_count = 0;
        char name[64];
        char need[64];
        if (!next_word(&at, name))
            break;
        for (; next_word(&at, need); needs_count++)
            must(mp_mp_put_text(&needs, need));
        must(mp_mp_put_map(&list, 2));
        put_pair(&list, "name", name);
        must(mp_mp_put_text(&list, "needs"));
        must(mp_mp_put_array(&list, needs_count));
        must(mp_buf_append(&list, mp_buf_slice(&needs)));
        mp_buf_fini(&needs);
        count++;
    }
    must(mp_mp_put_map(b, version ? 3 : 2));
    put_pair(b, "kind", "module");
    if (version)
        put_pair(b, "version", version);
    must(mp_mp_put_text(b, "functions"));
    must(mp_mp_put_array(b, count));
    must(mp_buf_append(b, mp_buf_slice(&list)));
    mp_buf_fini(&list);
}

/* --- one catalog --- */

struct place {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_catalog catalog;
    uint32_t host_modules;
    char name[64];
};

/* A node with resources "a b c". */
static inline enum mp_err place_open(struct place *p, const char *name, const char *resources,
                                     uint64_t generation, uint64_t defects)
{
    struct mp_slice list[32];
    static char words[32][64];
    uint32_t count = 0;
    while (count < 32 && next_word(&resources, words[count])) {
        list[count] = mp_slice_str(words[count]);
        count++;
    }
    snprintf(p->name, sizeof(p->name), "%s", name);
    const struct mp_catalog_config cfg = {.node = mp_slice_str(name),
                                          .cluster = mp_slice_str("default"),
                                          .resources = list,
                                          .resource_count = count,
                                          .workers = 2,
                                          .version = mp_slice_str("0.1.0"),
                                          .generation = generation,
                                          .defects = defects};
    p->alloc = spec_alloc_of(&p->memory);
    return mp_catalog_init(&p->catalog, &cfg, &p->alloc, 1);
}

static inline bool has_effect(const struct mp_catalog_effects *out,
                              enum mp_catalog_effect_kind kind)
{
    for (uint32_t i = 0; i < out->count; i++)
        if (out->items[i].kind == kind)
            return true;
    return false;
}

static inline const char *why_of(const struct mp_catalog_effects *out,
                                 enum mp_catalog_effect_kind kind)
{
    for (uint32_t i = 0; i < out->count; i++)
        if (out->items[i].kind == kind)
            return out->items[i].why;
    return "";
}

static inline enum mp_err add_bytes(struct place *p, const char *name, const char *hash,
                                    const struct mp_buf *metadata, struct mp_catalog_effects *out)
{
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_ADD,
                                        .add = {.host_module = p->host_modules++,
                                                .name = mp_slice_str(name),
                                                .hash = mp_slice_str(hash),
                                                .metadata = mp_buf_slice(metadata)}};
    return mp_catalog_step(&p->catalog, 0, &ev, out);
}

/* `content` stands for the file's: its hash is made of it. */
static inline enum mp_err add_content(struct place *p, const char *name, const char *version,
                                      const char *functions, const char *content,
                                      struct mp_catalog_effects *out)
{
    struct mp_buf b = new_buf();
    put_metadata(&b, version, functions);
    enum mp_err err = add_bytes(p, name, hash_of(content), &b, out);
    mp_buf_fini(&b);
    return err;
}

static inline enum mp_err add(struct place *p, const char *name, const char *version,
                              const char *functions, struct mp_catalog_effects *out)
{
    return add_content(p, name, version, functions, version ? version : "none", out);
}

static inline void must_add(struct place *p, const char *name, const char *version,
                            const char *functions)
{
    struct mp_catalog_effects out;
    must(add(p, name, version, functions, &out));
    if (!has_effect(&out, MP_CATALOG_CHANGED) || !has_effect(&out, MP_CATALOG_ANNOUNCE))
        fail_msg("%s: %s", name, why_of(&out, MP_CATALOG_REFUSED));
}

static inline void tell_node(struct place *p, mp_time now, uint32_t number, const char *name,
                             enum mp_catalog_node_state state, struct mp_catalog_effects *out)
{
    const struct mp_catalog_event ev = {
        .kind = MP_CATALOG_NODE,
        .node = {.number = number, .name = mp_slice_str(name), .state = state}};
    must(mp_catalog_step(&p->catalog, now, &ev, out));
}

static inline void tell_gone(struct place *p, mp_time now, uint32_t number,
                             struct mp_catalog_effects *out)
{
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_NODE_GONE, .number = number};
    must(mp_catalog_step(&p->catalog, now, &ev, out));
}

static inline enum mp_err tell_entries(struct place *p, const struct mp_buf *bytes,
                                       struct mp_catalog_effects *out)
{
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_ENTRIES,
                                        .entries = {mp_buf_slice(bytes)}};
    return mp_catalog_step(&p->catalog, 0, &ev, out);
}

/* All metadata that `to` lacks and `from` has; false if there is none. */
static inline bool send_metadata(const struct place *from, struct place *to)
{
    struct mp_buf want = new_buf();
    struct mp_buf have = new_buf();
    struct mp_catalog_effects out;
    bool is_some =
        mp_catalog_put_missing(&to->catalog, &want) == MP_OK &&
        mp_catalog_put_have(&from->catalog, mp_buf_slice(&want), 1 << 20, &have) == MP_OK;
    if (is_some)
        must(tell_entries(to, &have, &out));
    mp_buf_fini(&want);
    mp_buf_fini(&have);
    return is_some;
}

/* All entries that `from` has, then the metadata. */
static inline void send_all(const struct place *from, struct place *to)
{
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    must(mp_catalog_put_entries(&from->catalog, UINT64_MAX, &b));
    must(tell_entries(to, &b, &out));
    mp_buf_fini(&b);
    send_metadata(from, to);
}

static inline struct mp_catalog_query query(const char *fun)
{
    return (struct mp_catalog_query){.fun = mp_slice_str(fun)};
}

/* "n2 n3 1.0.0": the names of the providers in order of number, then their versions if they are
 * the same; "none" if there is none. */
static inline const char *found(const struct place *p, struct mp_catalog_query q)
{
    static char text[512];
    struct mp_buf b = new_buf();
    struct mp_text t;
    enum mp_err err = mp_catalog_find(&p->catalog, &q, &b);
    assert_true(err == MP_OK || err == MP_ENOENT);
    mp_text_init(&t, text, sizeof(text));
    const struct mp_catalog_provider *items = (const struct mp_catalog_provider *)(void *)b.data;
    for (size_t i = 0; i < b.size / sizeof(*items); i++) {
        struct mp_slice version =
            p->catalog.modules[p->catalog.functions[items[i].function].module].version_text;
        mp_text_put(&t, i == 0 ? "" : " ");
        mp_text_put_uint(&t, items[i].node);
        mp_text_put(&t, ":");
        mp_text_put_slice(&t, version);
    }
    mp_buf_fini(&b);
    return err == MP_OK ? text : "none";
}

struct explained {
    char message[1024];
    char hint[512];
    struct mp_text message_text;
    struct mp_text hint_text;
    struct mp_fault fault;
};

static inline void explain(const struct place *p, mp_time now, struct mp_catalog_query q,
                           struct explained *e)
{
    assert_string_equal(found(p, q), "none");
    mp_text_init(&e->message_text, e->message, sizeof(e->message));
    mp_text_init(&e->hint_text, e->hint, sizeof(e->hint));
    mp_catalog_explain(&p->catalog, now, &q, &e->fault, &e->message_text, &e->hint_text);
    assert_true(mp_slice_is(e->fault.message, e->message));
    assert_true(mp_slice_is(e->fault.hint, e->hint));
}

static inline void assert_explained_at(const struct place *p, mp_time now,
                                       struct mp_catalog_query q, enum mp_code code,
                                       const char *reason, const char *message, const char *hint)
{
    struct explained e;
    explain(p, now, q, &e);
    assert_string_equal(e.message, message);
    assert_string_equal(e.hint, hint);
    assert_int_equal(e.fault.code, code);
    assert_true(mp_slice_is(e.fault.reason, reason));
}
