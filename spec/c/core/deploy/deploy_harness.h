/* Histories in a few words: nodes that make changes of modules, and tell each other. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/core/deploy/deploy.h"
#include "src/wire/msgpack.h"

#define WALL_MS 1700000000000 /* the clock of a node that is asked for none */

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

/* 32 bytes that begin with a text, and are the same for the same text. */
static inline struct mp_slice hash_of(const char *text)
{
    static uint8_t kept[64][32];
    static size_t next;
    uint8_t hash[32] = {0};
    memcpy(hash, text, strlen(text));
    for (size_t i = 0; i < 64; i++)
        if (memcmp(kept[i], hash, 32) == 0)
            return mp_slice_of(kept[i], 32);
    next = (next + 1) % 64;
    memcpy(kept[next], hash, 32);
    return mp_slice_of(kept[next], 32);
}

/* An array of the words of a text, such as "n1 n2"; empty of NULL. */
static inline void put_names(struct mp_buf *out, const char *names)
{
    uint32_t count = 0;
    if (!names)
        return;
    for (const char *at = names; *at;
         at += at[strcspn(at, " ")] ? strcspn(at, " ") + 1 : strlen(at))
        count++;
    must(mp_mp_put_array(out, count));
    for (const char *at = names; count-- != 0; at += strcspn(at, " ") + 1)
        must(mp_mp_put_str(out, mp_slice_of(at, strcspn(at, " "))));
}

/* --- one node --- */

struct place {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_deploy *deploy;
    char name[64];
    int64_t wall_ms;
};

static inline enum mp_err place_open(struct place *p, const char *name)
{
    *p = (struct place){.memory = {.fail_at = SPEC_NEVER}, .wall_ms = WALL_MS};
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->alloc = spec_alloc_of(&p->memory);
    const struct mp_deploy_config cfg = {.node = mp_slice_str(p->name)};
    return mp_deploy_new(&p->deploy, &cfg, &p->alloc);
}

static inline void place_close(struct place *p)
{
    mp_deploy_free(p->deploy);
    assert_int_equal(p->memory.live_bytes, 0);
}

static inline enum mp_err give_as(struct place *p, enum mp_deploy_event_kind kind,
                                  struct mp_slice entries, struct mp_deploy_effects *out)
{
    const struct mp_deploy_event ev = {.kind = kind, .wall_ms = p->wall_ms, .entries = entries};
    return mp_deploy_step(p->deploy, &ev, out);
}

static inline struct mp_deploy_effects give(struct place *p, const struct mp_buf *entries)
{
    struct mp_deploy_effects out;
    must(give_as(p, MP_DEPLOY_ENTRIES, mp_buf_slice(entries), &out));
    return out;
}

/* --- changes --- */

/* What somebody asks for; the rest is made up. */
struct change {
    const char *module;
    const char *version; /* NULL: an undeploy */
    const char *content; /* NULL: that of the version */
    const char *only;    /* names of nodes, or NULL */
    const char *skip;
    bool is_pipeline;
    bool is_forced;
    const struct mp_deploy_entry *back_to; /* a rollback */
};

/* The entry that the node makes of it now. */
static inline struct mp_deploy_entry entry_of(struct place *p, const struct change *c,
                                              struct mp_buf *nodes)
{
    const char *content = c->content ? c->content : c->version;
    struct mp_deploy_entry e = {
        .module = mp_slice_str(c->module),
        .stamp = {mp_deploy_next_epoch(p->deploy, p->wall_ms), mp_slice_str(p->name)},
        .action = c->back_to   ? MP_DEPLOY_ROLLBACK
                  : c->version ? MP_DEPLOY_DEPLOY
                               : MP_DEPLOY_UNDEPLOY,
        .is_pipeline = c->is_pipeline,
        .is_forced = c->is_forced,
        .by = mp_slice_str("ada@host"),
        .scope = c->only   ? MP_DEPLOY_ONLY
                 : c->skip ? MP_DEPLOY_SKIP
                           : MP_DEPLOY_EVERYWHERE,
    };
    mp_deploy_set_parent(p->deploy, &e);
    put_names(nodes, c->only ? c->only : c->skip);
    e.nodes = mp_buf_slice(nodes);
    if (c->back_to) {
        e.version = c->back_to->version;
        e.hash = c->back_to->hash;
        e.unit = c->back_to->unit;
        e.place = c->back_to->place;
        e.origin = c->back_to->stamp;
    } else if (c->version) {
        e.version = mp_slice_str(c->version);
        e.hash = hash_of(content);
        e.unit = hash_of(content);
    }
    return e;
}

/* Makes a change at a node, where it counts at once; it goes into `told` as a list of one entry. */
static inline void make_told(struct place *p, struct change c, struct mp_buf *told)
{
    struct mp_buf nodes = new_buf();
    const struct mp_deploy_entry e = entry_of(p, &c, &nodes);
    mp_buf_clear(told);
    must(mp_mp_put_array(told, 1));
    must(mp_deploy_put_entry(told, &e));
    struct mp_deploy_effects out = give(p, told);
    assert_int_equal(out.new_count, 1);
    assert_null(out.dropped);
    mp_buf_fini(&nodes);
}

static inline void make(struct place *p, struct change c)
{
    struct mp_buf told = new_buf();
    make_told(p, c, &told);
    mp_buf_fini(&told);
}

/* A module and a pipeline of one name, as one unit. */
static inline void deploy_both(struct place *p, const char *module, const char *version)
{
    struct mp_buf told = new_buf();
    struct mp_buf nodes = new_buf();
    struct change c = {.module = module, .version = version};
    must(mp_mp_put_array(&told, 2));
    for (uint32_t i = 0; i < 2; i++) {
        c.is_pipeline = i == 1;
        struct mp_deploy_entry e = entry_of(p, &c, &nodes);
        e.place = i;
        must(mp_deploy_put_entry(&told, &e));
    }
    assert_int_equal(give(p, &told).new_count, 2);
    mp_buf_fini(&told);
    mp_buf_fini(&nodes);
}

static inline void deploy(struct place *p, const char *module, const char *version)
{
    make(p, (struct change){.module = module, .version = version});
}

static inline void undeploy(struct place *p, const char *module)
{
    make(p, (struct change){.module = module});
}

/* --- telling --- */

/* `from` answers the summary of `to`; whether it had anything to say. */
static inline bool tell(struct place *from, struct place *to, size_t bytes_max, bool *differs)
{
    struct mp_buf summary = new_buf();
    struct mp_buf entries = new_buf();
    must(mp_deploy_put_summary(to->deploy, &summary));
    enum mp_err err = mp_deploy_put_differences(from->deploy, mp_buf_slice(&summary), bytes_max,
                                                &entries, differs);
    if (err == MP_OK)
        assert_null(give(to, &entries).dropped);
    else
        assert_int_equal(err, MP_ENOENT);
    mp_buf_fini(&summary);
    mp_buf_fini(&entries);
    return err == MP_OK;
}

static inline void tell_all(struct place *from, struct place *to)
{
    bool differs;
    (void)tell(from, to, SIZE_MAX, &differs);
}

/* --- asking --- */

/* The version of a module or pipeline that is live, or "none"; "never" if it never was. */
static inline const char *live_kind(const struct place *p, const char *module, bool is_pipeline)
{
    static char text[MP_VERSION_BYTES_MAX + 1];
    struct mp_deploy_entry e;
    if (!mp_deploy_find(p->deploy, mp_slice_str(module), is_pipeline, &e))
        return "never";
    if (e.action == MP_DEPLOY_UNDEPLOY)
        return "none";
    snprintf(text, sizeof(text), "%.*s", (int)e.version.size, (const char *)e.version.data);
    return text;
}

static inline const char *live(const struct place *p, const char *module)
{
    return live_kind(p, module, false);
}

/* All that is live: "a 1.0.0, b 2.0.0". */
static inline const char *all_live(const struct place *p)
{
    static char room[4096];
    struct mp_text text;
    struct mp_deploy_entry e;
    mp_text_init(&text, room, sizeof(room));
    uint32_t i = 0;
    for (; mp_deploy_live_at(p->deploy, i, &e); i++) {
        mp_text_put(&text, i == 0 ? "" : ", ");
        mp_text_put_slice(&text, e.module);
        mp_text_put(&text, " ");
        mp_text_put_slice(&text, e.version);
    }
    assert_int_equal(i, mp_deploy_live_count(p->deploy));
    return room;
}

static inline struct mp_slice value_of(struct mp_slice map, const char *key)
{
    struct mp_slice value = {0};
    must(mp_mp_map_get(map, mp_slice_str(key), &value));
    return value;
}

static inline struct mp_slice text_of(struct mp_slice map, const char *key)
{
    struct mp_slice text = mp_slice_str("nil");
    struct mp_slice value = value_of(map, key);
    if (mp_mp_type_of(value) != MP_MP_NIL)
        must(mp_mp_get_str(value, &text));
    return text;
}

/* A module's history in short: "1.1.0 live, 1.0.0 superseded", the newest first. Two of them may be
 * compared. */
static inline const char *history(const struct place *p, const char *module)
{
    static char rooms[2][4096];
    static unsigned turn;
    char *room = rooms[turn++ % 2];
    struct mp_text text;
    struct mp_buf b = new_buf();
    struct mp_mp_reader r;
    uint32_t count;
    mp_text_init(&text, room, sizeof(rooms[0]));
    must(mp_deploy_put_history(p->deploy, mp_slice_str(module), &b));
    must(mp_mp_check(mp_buf_slice(&b)));
    assert_true(mp_slice_is(text_of(mp_buf_slice(&b), "module"), module));
    must(mp_mp_get_array(value_of(mp_buf_slice(&b), "entries"), &count, &r));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice entry;
        must(mp_mp_take(&r, &entry));
        mp_text_put(&text, i == 0 ? "" : ", ");
        mp_text_put_slice(&text, text_of(entry, "version"));
        mp_text_put(&text, " ");
        mp_text_put_slice(&text, text_of(entry, "state"));
    }
    mp_buf_fini(&b);
    return room;
}

/* What a question of a rule or a rollback answered. */
struct answer {
    bool is_good;
    struct mp_fault fault;
    char message[512];
    char hint[256];
    struct mp_text message_text;
    struct mp_text hint_text;
};

static inline void answer_init(struct answer *a)
{
    *a = (struct answer){0};
    mp_text_init(&a->message_text, a->message, sizeof(a->message));
    mp_text_init(&a->hint_text, a->hint, sizeof(a->hint));
}

static inline void assert_refused(const struct answer *a, enum mp_code code, const char *reason,
                                  const char *message, const char *hint)
{
    assert_false(a->is_good);
    assert_string_equal(a->message, message);
    assert_string_equal(a->hint, hint);
    assert_int_equal(a->fault.code, code);
    assert_true(mp_slice_is(a->fault.reason, reason));
    assert_true(mp_slice_is(a->fault.message, message));
    assert_true(mp_slice_is(a->fault.hint, hint));
}
