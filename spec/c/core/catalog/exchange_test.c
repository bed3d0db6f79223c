/* How catalogs of many nodes become equal, what of the past they refuse, and that no bytes from
 * outside and no lack of memory harm them. */
#include "spec/c/core/catalog/catalog_harness.h"

#include "src/base/defects.h"
#include "src/base/rng.h"
#include "src/core/catalog/catalog_internal.h"

/* --- stamps --- */

/* An entry in a few words: modules "m", all of version 1.0.0. */
static void put_entry(struct mp_buf *b, const char *owner, uint64_t generation, uint64_t counter,
                      const char *module)
{
    must(mp_mp_put_map(b, 1));
    must(mp_mp_put_text(b, "entries"));
    must(mp_mp_put_array(b, 1));
    must(mp_mp_put_array(b, 5));
    must(mp_mp_put_text(b, owner));
    must(mp_mp_put_uint(b, generation));
    must(mp_mp_put_uint(b, counter));
    must(mp_mp_put_map(b, 3));
    must(mp_mp_put_text(b, "workers"));
    must(mp_mp_put_uint(b, 1));
    put_pair(b, "version", "1");
    must(mp_mp_put_text(b, "resources"));
    must(mp_mp_put_array(b, 2));
    must(mp_mp_put_text(b, "gpu"));
    must(mp_mp_put_text(b, "gpu"));
    must(mp_mp_put_array(b, 2));
    for (int i = 0; i < 2; i++) {
        must(mp_mp_put_array(b, 4));
        must(mp_mp_put_text(b, module));
        must(mp_mp_put_bin(b, mp_slice_of("\xab", 1)));
        must(mp_mp_put_text(b, "1.0.0"));
        must(mp_mp_put_bool(b, false));
    }
}

static bool takes_in(struct place *p, const char *owner, uint64_t generation, uint64_t counter)
{
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    put_entry(&b, owner, generation, counter, "m");
    must(tell_entries(p, &b, &out));
    assert_false(has_effect(&out, MP_CATALOG_DROPPED));
    mp_buf_fini(&b);
    return has_effect(&out, MP_CATALOG_CHANGED);
}

static void open_with(struct place *p, uint64_t defects)
{
    struct mp_catalog_effects out;
    *p = (struct place){.memory = {.fail_at = SPEC_NEVER}};
    must(place_open(p, "n1", "gpu", 5, defects));
    tell_node(p, 0, 1, "n2", MP_CATALOG_NODE_LIVE, &out);
}

static void close_place(struct place *p)
{
    mp_catalog_fini(&p->catalog);
    assert_int_equal(p->memory.live_bytes, 0);
}

static void takes_in_what_is_newer(void **state)
{
    (void)state;
    struct place p;
    open_with(&p, 0);
    assert_true(takes_in(&p, "n2", 2, 7));
    assert_false(takes_in(&p, "n2", 2, 7));
    assert_false(takes_in(&p, "n2", 2, 6));
    assert_false(takes_in(&p, "n2", 1, 9));
    assert_true(takes_in(&p, "n2", 2, 8));
    assert_true(takes_in(&p, "n2", 3, 1));
    assert_false(takes_in(&p, "n3", 1, 1));   /* membership has not told of it */
    assert_false(takes_in(&p, "n1", 99, 99)); /* this node speaks for itself */
    assert_int_equal(p.catalog.by_resource.count, 1);
    assert_int_equal(p.catalog.module_count, 1);
    close_place(&p);
}

/* A refused namesake wrote it under this node's name and number. */
static void its_own_entry_is_the_latest(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    struct mp_buf b = new_buf();
    open_with(&p, 0);
    const struct mp_catalog_member *self = &p.catalog.members[MP_CATALOG_SELF];
    uint64_t generation = self->generation;
    uint64_t counter = self->counter;
    assert_false(takes_in(&p, "n1", generation, counter - 1));
    assert_false(takes_in(&p, "n1", generation - 1, counter + 5));
    assert_int_equal(self->counter, counter);
    assert_false(takes_in(&p, "n1", generation, UINT64_MAX));
    assert_int_equal(self->counter, counter);
    put_entry(&b, "n1", generation, counter + 5, "m");
    must(tell_entries(&p, &b, &out));
    assert_true(has_effect(&out, MP_CATALOG_ANNOUNCE));
    assert_false(has_effect(&out, MP_CATALOG_CHANGED));
    assert_int_equal(self->counter, counter + 6);
    assert_int_equal(self->module_count, 0);
    mp_buf_fini(&b);
    close_place(&p);
}

static void entries_count_up_to_the_generation_that_is_listed(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    open_with(&p, 0);
    struct mp_catalog_event ev = {.kind = MP_CATALOG_NODE,
                                  .node = {.number = 1,
                                           .name = mp_slice_str("n2"),
                                           .state = MP_CATALOG_NODE_LIVE,
                                           .generation = 4}};
    must(mp_catalog_step(&p.catalog, 0, &ev, &out));
    assert_true(takes_in(&p, "n2", 3, 9));
    assert_false(takes_in(&p, "n2", 5, 1));
    assert_true(takes_in(&p, "n2", 4, 1));
    ev.node.generation = 5;
    must(mp_catalog_step(&p.catalog, 0, &ev, &out));
    assert_true(takes_in(&p, "n2", 5, 1));
    close_place(&p);
}

static void takes_in_older_entries_with_that_defect(void **state)
{
    (void)state;
    struct place p;
    open_with(&p, 1ull << MP_DEFECT_OLDER_ENTRY_WINS);
    assert_true(takes_in(&p, "n2", 2, 7));
    assert_false(takes_in(&p, "n2", 2, 7));
    assert_true(takes_in(&p, "n2", 1, 7));
    close_place(&p);
}

static void refuses_copies_from_before_a_node_was_forgotten(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    for (int defect = 0; defect < 2; defect++) {
        open_with(&p, defect ? 1ull << MP_DEFECT_STALE_TOMBSTONE : 0);
        uint64_t before[MP_CATALOG_BUCKETS];
        uint64_t after[MP_CATALOG_BUCKETS];
        mp_catalog_digests(&p.catalog, before);
        assert_true(takes_in(&p, "n2", 2, 7));
        tell_node(&p, 0, 1, "n2", MP_CATALOG_NODE_DEAD, &out);
        tell_gone(&p, 0, 1, &out);
        mp_catalog_digests(&p.catalog, after);
        assert_memory_equal(before, after, sizeof(before));
        assert_false(takes_in(&p, "n2", 2, 7));
        tell_node(&p, 0, 2, "n2", MP_CATALOG_NODE_LIVE, &out);
        assert_int_equal(takes_in(&p, "n2", 2, 6), defect);
        /* It lives, in the same boot: it was forgotten in error. */
        assert_true(takes_in(&p, "n2", 2, 7));
        assert_true(takes_in(&p, "n2", 3, 1));
        assert_int_equal(p.catalog.by_tombstone.count, 0);
        close_place(&p);
    }
}

/* Somebody who missed that it was forgotten has the entry of an earlier boot: as long as it is
 * listed as dead, both have the same, or their digests would differ for ever. */
static void takes_an_old_entry_of_one_that_is_listed_as_dead(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    open_with(&p, 0);
    assert_true(takes_in(&p, "n2", 2, 7));
    tell_gone(&p, 0, 1, &out);
    tell_node(&p, 0, 2, "n2", MP_CATALOG_NODE_DEAD, &out);
    assert_true(takes_in(&p, "n2", 1, 4));
    assert_true(takes_in(&p, "n2", 2, 7));
    close_place(&p);
}

static void remembers_the_most_recent_of_those_forgotten(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    char name[16];
    open_with(&p, 0);
    for (int i = 0; i < MP_CATALOG_TOMBSTONES_MAX + 10; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        tell_node(&p, 0, 7, name, MP_CATALOG_NODE_LIVE, &out);
        assert_true(takes_in(&p, name, 2, 2));
        tell_gone(&p, 0, 7, &out);
    }
    assert_int_equal(p.catalog.by_tombstone.count, MP_CATALOG_TOMBSTONES_MAX);
    tell_node(&p, 0, 7, "x9", MP_CATALOG_NODE_LIVE, &out);
    assert_true(takes_in(&p, "x9", 1, 1));
    tell_node(&p, 0, 8, "x10", MP_CATALOG_NODE_LIVE, &out);
    assert_false(takes_in(&p, "x10", 1, 1));
    close_place(&p);
}

static void tells_news_of_itself(void **state)
{
    (void)state;
    struct place p;
    struct place other;
    struct mp_catalog_effects out;
    struct mp_buf b = new_buf();
    open_with(&p, 0);
    other = (struct place){.memory = {.fail_at = SPEC_NEVER}};
    must(place_open(&other, "n2", "", 1, 0));
    tell_node(&other, 0, 3, "n1", MP_CATALOG_NODE_LIVE, &out);
    must(add(&p, "m", "1.0.0", "f", &out));
    assert_true(mp_slice_equal(out.items[1].news, mp_slice_of("\x93\xa2n1\x05\x02", 6)));
    must(mp_catalog_put_wanted(&other.catalog, out.items[1].news, &b));
    struct mp_buf have = new_buf();
    must(mp_catalog_put_have(&p.catalog, mp_buf_slice(&b), 1000, &have));
    must(tell_entries(&other, &have, &out));
    assert_true(has_effect(&out, MP_CATALOG_MISSING));
    assert_int_equal(
        mp_catalog_put_wanted(&other.catalog, mp_slice_of("\x93\xa2n1\x05\x02", 6), &b), MP_ENOENT);
    assert_int_equal(mp_catalog_put_wanted(&other.catalog, mp_slice_of("\x93\xa2n1\x05", 5), &b),
                     MP_ECORRUPT);
    const struct mp_catalog_event raised = {.kind = MP_CATALOG_GENERATION, .generation = 9};
    must(mp_catalog_step(&p.catalog, 0, &raised, &out));
    assert_true(mp_slice_equal(out.items[0].news, mp_slice_of("\x93\xa2n1\x09\x02", 6)));
    must(mp_catalog_step(&p.catalog, 0, &raised, &out));
    assert_int_equal(out.count, 0);
    mp_buf_fini(&have);
    mp_buf_fini(&b);
    close_place(&other);
    close_place(&p);
}

static void keeps_answers_small(void **state)
{
    (void)state;
    struct place p;
    struct place other;
    struct mp_catalog_effects out;
    struct mp_buf want = new_buf();
    struct mp_buf have = new_buf();
    char name[16];
    open_with(&p, 0);
    other = (struct place){.memory = {.fail_at = SPEC_NEVER}};
    must(place_open(&other, "n2", "", 1, 0));
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        must(add_content(&other, name, "1.0.0", "f", name, &out));
    }
    must(mp_catalog_put_entries(&other.catalog, UINT64_MAX, &have));
    must(tell_entries(&p, &have, &out));
    int rounds = 0;
    for (; has_effect(&out, MP_CATALOG_MISSING); rounds++) {
        mp_buf_clear(&want);
        mp_buf_clear(&have);
        must(mp_catalog_put_missing(&p.catalog, &want));
        must(mp_catalog_put_have(&other.catalog, mp_buf_slice(&want), 600, &have));
        assert_true(have.size < 800);
        must(tell_entries(&p, &have, &out));
    }
    assert_in_range(rounds, 5, 50);
    assert_int_equal(p.catalog.function_count, 100);
    assert_int_equal(mp_catalog_put_missing(&p.catalog, &want), MP_ENOENT);
    mp_buf_fini(&want);
    mp_buf_fini(&have);
    close_place(&other);
    close_place(&p);
}

/* --- what is malformed --- */

static void put_description(struct mp_buf *b, const char *name, const char *version,
                            const char *described, const char *functions)
{
    must(mp_mp_put_map(b, 1));
    must(mp_mp_put_text(b, "modules"));
    must(mp_mp_put_array(b, 1));
    must(mp_mp_put_array(b, 4));
    must(mp_mp_put_bin(b, mp_slice_of("\xab", 1)));
    must(mp_mp_put_text(b, name));
    must(mp_mp_put_text(b, version));
    put_metadata(b, described, functions);
}

static void drops_metadata_that_does_not_fit(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *version;
        const char *described;
        const char *functions;
        const char *dropped;
        bool is_missing;
    } cases[] = {
        {"x", "1.0.0", "1.0.0", "f", "", true},
        {"m", "1.0.1", "1.0.1", "f", "", true},
        {"m", "1.0.0", "1.0.1", "f", "a module's description is that of another one", true},
        {"m", "1.0.0", NULL, "f", "a module's description is that of another one", true},
        {"m", "1.0.0", "1.0.0", "f+", "the name of a function is not acceptable: f+", false},
        {"m", "1.0.0", "1.0.0", "f", "", false},
    };
    struct place p;
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    open_with(&p, 0);
    assert_true(takes_in(&p, "n2", 1, 1));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        mp_buf_clear(&b);
        put_description(&b, cases[i].name, cases[i].version, cases[i].described,
                        cases[i].functions);
        must(tell_entries(&p, &b, &out));
        assert_string_equal(why_of(&out, MP_CATALOG_DROPPED), cases[i].dropped);
        assert_false(has_effect(&out, MP_CATALOG_MISSING));
        mp_buf_clear(&b);
        /* After three that were no good it is not asked for again. */
        assert_int_equal(mp_catalog_put_missing(&p.catalog, &b) == MP_OK, cases[i].is_missing);
    }
    assert_string_equal(found(&p, query("m.f")), "1:1.0.0");
    mp_buf_fini(&b);
    close_place(&p);
}

/* A message with one good entry and one of which something is wrong: the good one is taken in. */
static void drops_a_malformed_entry_and_nothing_else(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    struct mp_buf good = new_buf();
    struct mp_buf both = new_buf();
    open_with(&p, 0);
    put_entry(&good, "n2", 1, 1, "m");
    struct mp_slice entry = mp_slice_of(good.data + 10, good.size - 10);
    static const char *const bad[] = {"\x90",
                                      "\xc0",
                                      "\x95\xa0\x01\x01\x80\x90",
                                      "\x95\xa2n2\x01\xff\x80\x90",
                                      "\x95\xa2n2\x01\x01\x80\x90",
                                      "\x94\xa2n2\x01\x01\x80"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        mp_buf_clear(&both);
        must(mp_mp_put_map(&both, 1));
        must(mp_mp_put_text(&both, "entries"));
        must(mp_mp_put_array(&both, 2));
        must(mp_mp_put_raw(&both, mp_slice_str(bad[i])));
        must(mp_mp_put_raw(&both, entry));
        must(tell_entries(&p, &both, &out));
        assert_true(has_effect(&out, MP_CATALOG_DROPPED));
        assert_int_equal(has_effect(&out, MP_CATALOG_CHANGED), i == 0);
    }
    mp_buf_clear(&both);
    put_entry(&both, "n2", 1, 2, "m m");
    must(tell_entries(&p, &both, &out));
    assert_string_equal(why_of(&out, MP_CATALOG_DROPPED), "an entry has a malformed module");
    mp_buf_fini(&good);
    mp_buf_fini(&both);
    close_place(&p);
}

/* Entries of one more node with `count` modules that no other has; whether some were left out. */
static bool is_cut(struct place *p, uint32_t number, int count)
{
    struct place *other = calloc(1, sizeof(*other));
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    char name[32];
    other->memory.fail_at = SPEC_NEVER;
    snprintf(name, sizeof(name), "n%u", number + 1);
    must(place_open(other, name, "", 1, 0));
    tell_node(p, 0, number, name, MP_CATALOG_NODE_LIVE, &out);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "m%u_%d", number, i);
        must(add_content(other, name, "1.0.0", "", name, &out));
    }
    must(mp_catalog_put_entries(&other->catalog, UINT64_MAX, &b));
    must(tell_entries(p, &b, &out));
    assert_true(has_effect(&out, MP_CATALOG_CHANGED));
    mp_buf_fini(&b);
    close_place(other);
    free(other);
    return has_effect(&out, MP_CATALOG_DROPPED);
}

static void takes_in_so_many_modules(void **state)
{
    (void)state;
    struct place p;
    struct mp_catalog_effects out;
    open_with(&p, 0);
    for (uint32_t number = 1; number <= 4; number++)
        assert_false(is_cut(&p, number, 1000));
    assert_true(is_cut(&p, 5, 1000));
    assert_int_equal(p.catalog.module_count, MP_MODULES_MAX);
    must(add_content(&p, "own", "1.0.0", "f", "own", &out));
    assert_string_equal(why_of(&out, MP_CATALOG_REFUSED), "there are too many modules");
    /* Those that were never described make room once nobody has them. */
    tell_gone(&p, 0, 1, &out);
    must_add(&p, "own", "1.0.0", "f");
    assert_false(is_cut(&p, 6, 999));
    assert_true(is_cut(&p, 7, 1));
    assert_int_equal(p.catalog.module_count, MP_MODULES_MAX);
    assert_int_equal(p.catalog.identities.count, MP_MODULES_MAX);
    close_place(&p);
}

static void survives_any_bytes(void **state)
{
    (void)state;
    struct place p;
    struct place other;
    struct mp_rng rng;
    struct mp_catalog_effects out;
    struct mp_buf seeds[4];
    struct mp_buf b = new_buf();
    struct mp_buf result = new_buf();
    mp_rng_init(&rng, 7);
    open_with(&p, 0);
    other = (struct place){.memory = {.fail_at = SPEC_NEVER}};
    must(place_open(&other, "n2", "gpu ds1", 1, 0));
    must_add(&other, "m", "1.0.0", "f gpu, g");
    must_add(&other, "weather.of", "2.0.0-rc.1", "f, g");
    for (int i = 0; i < 4; i++)
        seeds[i] = new_buf();
    must(mp_catalog_put_entries(&other.catalog, UINT64_MAX, &seeds[0]));
    must(mp_mp_put_map(&seeds[1], 2));
    must(mp_mp_put_text(&seeds[1], "entries"));
    must(mp_mp_put_array(&seeds[1], 1));
    must(mp_mp_put_text(&seeds[1], "n2"));
    must(mp_mp_put_text(&seeds[1], "modules"));
    must(mp_mp_put_array(&seeds[1], 2));
    must(mp_mp_put_bin(&seeds[1], mp_slice_str("1.0.0")));
    must(mp_mp_put_bin(&seeds[1], mp_slice_str("2.0.0-rc.1")));
    must(mp_catalog_put_have(&other.catalog, mp_buf_slice(&seeds[1]), 1 << 20, &seeds[2]));
    must(mp_buf_append(&seeds[3], mp_slice_of("\x93\xa2n2\x05\x02", 6)));
    for (int round = 0; round < 60000; round++) {
        int which = (int)mp_rng_below(&rng, 4);
        mp_buf_clear(&b);
        mp_buf_clear(&result);
        must(mp_buf_append(&b, mp_buf_slice(&seeds[which])));
        for (uint64_t n = mp_rng_below(&rng, 4); n > 0; n--)
            b.data[mp_rng_below(&rng, b.size)] = (uint8_t)mp_rng_next(&rng);
        if (mp_rng_below(&rng, 8) == 0)
            b.size = mp_rng_below(&rng, b.size);
        must(tell_entries(&p, &b, &out));
        (void)!mp_catalog_put_wanted(&p.catalog, mp_buf_slice(&b), &result);
        (void)!mp_catalog_put_have(&p.catalog, mp_buf_slice(&b), 1000, &result);
    }
    mp_buf_clear(&result);
    must(mp_catalog_put_functions(&p.catalog, &result));
    must(mp_catalog_put_modules(&p.catalog, &result));
    for (int i = 0; i < 4; i++)
        mp_buf_fini(&seeds[i]);
    mp_buf_fini(&b);
    mp_buf_fini(&result);
    close_place(&other);
    close_place(&p);
}

/* --- convergence --- */

#define NODES    6
#define MESSAGES 64

/* A network that loses nothing for ever, but delays, repeats and reorders as it likes. */
struct world {
    struct place places[NODES];
    struct mp_rng rng;
    struct {
        struct mp_buf bytes;
        uint32_t target;
    } messages[MESSAGES]; /* some of the past, to be sent again */
    uint32_t count;
    uint32_t modules;
};

static uint32_t some(struct world *w, uint32_t bound)
{
    return (uint32_t)mp_rng_below(&w->rng, bound);
}

static void deliver(struct world *w, uint32_t target, const struct mp_buf *b)
{
    struct mp_catalog_effects out;
    uint32_t place = w->count < MESSAGES ? w->count++ : some(w, MESSAGES);
    mp_buf_clear(&w->messages[place].bytes);
    must(mp_buf_append(&w->messages[place].bytes, mp_buf_slice(b)));
    w->messages[place].target = target;
    must(tell_entries(&w->places[target], b, &out));
    assert_false(has_effect(&out, MP_CATALOG_DROPPED));
}

static void send_news(struct world *w, struct mp_slice news)
{
    struct mp_buf want = new_buf();
    struct mp_buf have = new_buf();
    uint32_t target = some(w, NODES);
    uint32_t source = some(w, NODES);
    if (mp_catalog_put_wanted(&w->places[target].catalog, news, &want) == MP_OK &&
        mp_catalog_put_have(&w->places[source].catalog, mp_buf_slice(&want), 1 << 16, &have) ==
            MP_OK)
        deliver(w, target, &have);
    mp_buf_fini(&want);
    mp_buf_fini(&have);
}

/* What one node does with another each second. */
static void exchange(struct world *w, uint32_t a, uint32_t b)
{
    uint64_t mine[MP_CATALOG_BUCKETS];
    uint64_t theirs[MP_CATALOG_BUCKETS];
    uint64_t mask = 0;
    struct mp_buf bytes = new_buf();
    mp_catalog_digests(&w->places[a].catalog, mine);
    mp_catalog_digests(&w->places[b].catalog, theirs);
    for (uint32_t i = 0; i < MP_CATALOG_BUCKETS; i++)
        mask |= (uint64_t)(mine[i] != theirs[i]) << i;
    must(mp_catalog_put_entries(&w->places[a].catalog, mask, &bytes));
    deliver(w, b, &bytes);
    send_metadata(&w->places[a], &w->places[b]);
    mp_buf_fini(&bytes);
}

static void do_something(struct world *w)
{
    struct place *p = &w->places[some(w, NODES)];
    struct mp_catalog_effects out;
    char name[8];
    char version[16];
    char content[32];
    switch (some(w, 4)) {
    case 0:
        snprintf(name, sizeof(name), "m%u", some(w, 4));
        snprintf(version, sizeof(version), "%u.0.%u", some(w, 2), some(w, 3));
        snprintf(content, sizeof(content), "%u%s", some(w, 2), version);
        must(add_content(p, name, version, "f, g gpu", content, &out));
        if (has_effect(&out, MP_CATALOG_ANNOUNCE))
            for (uint32_t i = 0; i < 2; i++)
                send_news(w, out.items[1].news);
        break;
    case 1:
        if (w->count != 0) {
            uint32_t i = some(w, w->count);
            must(tell_entries(&w->places[some(w, NODES)], &w->messages[i].bytes, &out));
        }
        break;
    default:
        exchange(w, some(w, NODES), some(w, NODES));
    }
}

static void all_are_equal(struct world *w)
{
    uint64_t first[MP_CATALOG_BUCKETS];
    uint64_t digests[MP_CATALOG_BUCKETS];
    struct mp_buf expected = new_buf();
    struct mp_buf b = new_buf();
    mp_catalog_digests(&w->places[0].catalog, first);
    must(mp_catalog_put_functions(&w->places[0].catalog, &expected));
    must(mp_catalog_put_modules(&w->places[0].catalog, &expected));
    for (uint32_t i = 1; i < NODES; i++) {
        mp_buf_clear(&b);
        mp_catalog_digests(&w->places[i].catalog, digests);
        assert_memory_equal(first, digests, sizeof(first));
        must(mp_catalog_put_functions(&w->places[i].catalog, &b));
        must(mp_catalog_put_modules(&w->places[i].catalog, &b));
        assert_true(mp_slice_equal(mp_buf_slice(&b), mp_buf_slice(&expected)));
    }
    mp_buf_fini(&expected);
    mp_buf_fini(&b);
}

static void open_world(struct world *w, uint64_t seed)
{
    struct mp_catalog_effects out;
    char name[8];
    *w = (struct world){.count = 0};
    mp_rng_init(&w->rng, seed);
    for (uint32_t i = 0; i < MESSAGES; i++)
        w->messages[i].bytes = new_buf();
    for (uint32_t i = 0; i < NODES; i++) {
        w->places[i].memory.fail_at = SPEC_NEVER;
        snprintf(name, sizeof(name), "n%u", i);
        must(place_open(&w->places[i], name, i % 2 ? "gpu" : "", 1 + some(w, 3), 0));
    }
    /* Each numbers the others in its own way. */
    for (uint32_t i = 0; i < NODES; i++)
        for (uint32_t k = 1; k < NODES; k++)
            tell_node(&w->places[i], 0, i % 2 ? k : NODES - k, w->places[(i + k) % NODES].name,
                      MP_CATALOG_NODE_LIVE, &out);
}

static void becomes_equal_everywhere(void **state)
{
    (void)state;
    struct world *w = calloc(1, sizeof(*w));
    struct mp_catalog_effects out;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        open_world(w, seed);
        for (uint32_t i = 0; i < 150; i++)
            do_something(w);
        /* Nothing new any more; digests in any order, and copies of the past among them. */
        for (uint32_t i = 0; i < 400; i++) {
            exchange(w, some(w, NODES), some(w, NODES));
            must(tell_entries(&w->places[some(w, NODES)], &w->messages[some(w, w->count)].bytes,
                              &out));
        }
        all_are_equal(w);
        assert_true(w->places[0].catalog.function_count > 10);
        for (uint32_t i = 0; i < MESSAGES; i++)
            mp_buf_fini(&w->messages[i].bytes);
        for (uint32_t i = 0; i < NODES; i++)
            close_place(&w->places[i]);
    }
    free(w);
}

/* --- memory --- */

/* A life in short, which ends at the first lack of memory; afterwards everything works. */
static bool live(struct place *p, const struct mp_buf *entries, const struct mp_buf *metadata)
{
    struct mp_catalog_effects out;
    struct mp_buf b;
    if (place_open(p, "n1", "gpu ds1", 1, 0) != MP_OK)
        return false;
    const struct mp_catalog_event node = {
        .kind = MP_CATALOG_NODE,
        .node = {.number = 1, .name = mp_slice_str("n2"), .state = MP_CATALOG_NODE_LIVE}};
    const struct mp_catalog_event gone = {.kind = MP_CATALOG_NODE_GONE, .number = 1};
    const struct mp_catalog_query q = query("m.f");
    mp_buf_init(&b, &p->alloc, 0);
    bool is_good =
        add(p, "m", "1.0.0", "f gpu, g", &out) == MP_OK &&
        mp_catalog_step(&p->catalog, 0, &node, &out) == MP_OK &&
        tell_entries(p, entries, &out) == MP_OK && tell_entries(p, metadata, &out) == MP_OK &&
        add(p, "x", "1.0.0", "f", &out) == MP_OK && mp_catalog_find(&p->catalog, &q, &b) == MP_OK &&
        mp_catalog_put_entries(&p->catalog, UINT64_MAX, &b) == MP_OK &&
        mp_catalog_put_functions(&p->catalog, &b) == MP_OK &&
        mp_catalog_put_modules(&p->catalog, &b) == MP_OK &&
        mp_catalog_step(&p->catalog, 0, &gone, &out) == MP_OK;
    mp_buf_fini(&b);
    if (is_good)
        return true;
    p->memory.fail_at = SPEC_NEVER;
    uint32_t modules = p->catalog.module_count;
    must(mp_catalog_step(&p->catalog, 0, &node, &out));
    must(tell_entries(p, entries, &out));
    must(tell_entries(p, metadata, &out));
    assert_true(p->catalog.module_count >= modules);
    assert_true(p->catalog.module_count <= 3);
    must(add(p, "late", "1.0.0", "f", &out));
    assert_string_equal(found(p, query("late.f")), "0:1.0.0");
    assert_string_equal(found(p, query("y.f")), "1:1.0.0");
    must(mp_catalog_step(&p->catalog, 0, &gone, &out));
    return false;
}

static void is_whole_wherever_memory_is_out(void **state)
{
    (void)state;
    struct place other = {.memory = {.fail_at = SPEC_NEVER}};
    struct mp_buf entries = new_buf();
    struct mp_buf metadata = new_buf();
    struct mp_buf want = new_buf();
    must(place_open(&other, "n2", "gpu tpu ds2", 1, 0));
    must_add(&other, "m", "1.0.0", "f gpu, g");
    must_add(&other, "y", "1.0.0", "f, g tpu");
    must(mp_catalog_put_entries(&other.catalog, UINT64_MAX, &entries));
    must(mp_mp_put_map(&want, 1));
    must(mp_mp_put_text(&want, "modules"));
    must(mp_mp_put_array(&want, 1));
    must(mp_mp_put_bin(&want, mp_slice_str("1.0.0")));
    must(mp_catalog_put_have(&other.catalog, mp_buf_slice(&want), 1 << 20, &metadata));
    for (size_t n = 0;; n++) {
        struct place p = {.memory = {.fail_at = n}};
        bool is_enough = live(&p, &entries, &metadata);
        close_place(&p);
        assert_true(n < 1000);
        if (is_enough)
            break;
    }
    for (size_t n = 0;; n++) {
        struct mp_buf out = new_buf();
        other.memory.fail_at = other.memory.count + n;
        enum mp_err err = mp_catalog_put_have(&other.catalog, mp_buf_slice(&want), 1 << 20, &out);
        assert_int_equal(out.size == 0, err != MP_OK);
        mp_buf_fini(&out);
        if (err == MP_OK)
            break;
    }
    mp_buf_fini(&want);
    mp_buf_fini(&entries);
    mp_buf_fini(&metadata);
    close_place(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_in_what_is_newer),
        cmocka_unit_test(its_own_entry_is_the_latest),
        cmocka_unit_test(entries_count_up_to_the_generation_that_is_listed),
        cmocka_unit_test(takes_in_older_entries_with_that_defect),
        cmocka_unit_test(refuses_copies_from_before_a_node_was_forgotten),
        cmocka_unit_test(takes_an_old_entry_of_one_that_is_listed_as_dead),
        cmocka_unit_test(remembers_the_most_recent_of_those_forgotten),
        cmocka_unit_test(tells_news_of_itself),
        cmocka_unit_test(keeps_answers_small),
        cmocka_unit_test(drops_metadata_that_does_not_fit),
        cmocka_unit_test(drops_a_malformed_entry_and_nothing_else),
        cmocka_unit_test(takes_in_so_many_modules),
        cmocka_unit_test(survives_any_bytes),
        cmocka_unit_test(becomes_equal_everywhere),
        cmocka_unit_test(is_whole_wherever_memory_is_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
