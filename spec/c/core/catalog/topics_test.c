/* What the catalog knows of topics: the patterns that nodes' clients subscribe to, in their
 * entries, and the functions that are called with messages. */
#include "spec/c/core/catalog/catalog_harness.h"

#include "src/core/catalog/catalog_internal.h"

static void put_patterns(struct mp_buf *b, const char *patterns)
{
    uint32_t count = 0;
    char word[64];
    for (const char *at = patterns; next_word(&at, word);)
        count++;
    must(mp_mp_put_array(b, count));
    for (const char *at = patterns; next_word(&at, word);)
        must(mp_mp_put_text(b, word));
}

static enum mp_err set_topics(struct place *p, const char *patterns, struct mp_catalog_effects *out)
{
    struct mp_buf b = new_buf();
    put_patterns(&b, patterns); /* in ascending order */
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_TOPICS, .topics = mp_buf_slice(&b)};
    enum mp_err err = mp_catalog_step(&p->catalog, 0, &ev, out);
    mp_buf_fini(&b);
    return err;
}

static void open_place(struct place *p, const char *name)
{
    *p = (struct place){.memory = {.fail_at = SPEC_NEVER}};
    must(place_open(p, name, "", 5, 0));
}

static void close_place(struct place *p)
{
    mp_catalog_fini(&p->catalog);
    assert_int_equal(p->memory.live_bytes, 0);
}

/* "1: a b; 2: none", of all members whose topics may be others. */
static const char *taken(struct place *p)
{
    static char text[512];
    struct mp_text t;
    struct mp_catalog_interest interest;
    mp_text_init(&t, text, sizeof(text));
    while (mp_catalog_take_interest(&p->catalog, &interest)) {
        uint32_t count = 0;
        struct mp_mp_reader r;
        mp_text_put(&t, t.size == 0 ? "" : "; ");
        mp_text_put_uint(&t, interest.node);
        mp_text_put(&t, !interest.is_live ? ": gone" : interest.topics.size == 0 ? ": none" : ":");
        if (interest.topics.size != 0)
            must(mp_mp_get_array(interest.topics, &count, &r));
        for (uint32_t i = 0; i < count; i++) {
            struct mp_slice pattern;
            must(mp_catalog_take_str(&r, &pattern));
            mp_text_put(&t, " ");
            mp_text_put_slice(&t, pattern);
        }
    }
    text[t.size] = '\0';
    return text;
}

static void an_entry_carries_the_patterns(void **state)
{
    (void)state;
    struct place a;
    struct place b;
    struct mp_catalog_effects out;
    open_place(&a, "n1");
    open_place(&b, "n2");
    tell_node(&b, 0, 1, "n1", MP_CATALOG_NODE_LIVE, &out);
    send_all(&a, &b);
    assert_string_equal(taken(&b), "");
    must(set_topics(&a, "a.* b.#", &out));
    assert_true(has_effect(&out, MP_CATALOG_ANNOUNCE));
    send_all(&a, &b);
    assert_string_equal(taken(&b), "1: a.* b.#");
    assert_string_equal(taken(&b), "");
    must(set_topics(&a, "a.* b.#", &out));
    assert_int_equal(out.count, 0);
    must_add(&a, "m", "1.0.0", "f");
    send_all(&a, &b);
    assert_string_equal(taken(&b), ""); /* another entry, the same topics */
    must(set_topics(&a, "c", &out));
    send_all(&a, &b);
    assert_string_equal(taken(&b), "1: c");
    must(set_topics(&a, "", &out));
    send_all(&a, &b);
    assert_string_equal(taken(&b), "1: none");
    close_place(&a);
    close_place(&b);
}

static void who_is_gone_wants_nothing(void **state)
{
    (void)state;
    struct place a;
    struct place b;
    struct mp_catalog_effects out;
    open_place(&a, "n1");
    open_place(&b, "n2");
    tell_node(&b, 0, 4, "n1", MP_CATALOG_NODE_LIVE, &out);
    must(set_topics(&a, "a", &out));
    send_all(&a, &b);
    assert_string_equal(taken(&b), "4: a");
    tell_node(&b, 0, 4, "n1", MP_CATALOG_NODE_DEAD, &out);
    assert_string_equal(taken(&b), "4: gone");
    tell_node(&b, 0, 4, "n1", MP_CATALOG_NODE_LIVE, &out);
    tell_node(&b, 0, 2, "n3", MP_CATALOG_NODE_LIVE, &out);
    tell_node(&b, 0, 2, "n3", MP_CATALOG_NODE_LEFT, &out);
    assert_string_equal(taken(&b), "2: gone; 4: a");
    tell_node(&b, 0, 4, "n1", MP_CATALOG_NODE_DEAD, &out);
    tell_gone(&b, 0, 4, &out);
    assert_string_equal(taken(&b), "");
    close_place(&a);
    close_place(&b);
}

static void drops_entries(struct place *p, const struct mp_buf *topics, const char *why)
{
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    must(mp_mp_put_map(&b, 1));
    must(mp_mp_put_text(&b, "entries"));
    must(mp_mp_put_array(&b, 1));
    must(mp_mp_put_array(&b, 5));
    must(mp_mp_put_text(&b, "n2"));
    must(mp_mp_put_uint(&b, 1));
    must(mp_mp_put_uint(&b, 1));
    must(mp_mp_put_map(&b, 4));
    must(mp_mp_put_text(&b, "workers"));
    must(mp_mp_put_uint(&b, 1));
    put_pair(&b, "version", "1");
    must(mp_mp_put_text(&b, "resources"));
    must(mp_mp_put_array(&b, 0));
    must(mp_mp_put_text(&b, "topics"));
    must(mp_mp_put_raw(&b, mp_buf_slice(topics)));
    must(mp_mp_put_array(&b, 0));
    must(tell_entries(p, &b, &out));
    assert_string_equal(why_of(&out, MP_CATALOG_DROPPED), why);
    mp_buf_fini(&b);
}

static void drops_what_is_no_list_of_a_few_patterns(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf topics = new_buf();
    struct mp_catalog_effects out;
    open_place(&p, "n1");
    tell_node(&p, 0, 1, "n2", MP_CATALOG_NODE_LIVE, &out);
    must(mp_mp_put_text(&topics, "a"));
    drops_entries(&p, &topics, "an entry's topics are no list");
    mp_buf_clear(&topics);
    must(mp_mp_put_array(&topics, 1));
    must(mp_mp_put_uint(&topics, 1));
    const char *why = "an entry's topics are no patterns in ascending order";
    drops_entries(&p, &topics, why);
    static const char *const bad[] = {"a a", "b a", "a b/c", "a..b", "a b*"};
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++) {
        mp_buf_clear(&topics);
        put_patterns(&topics, bad[i]);
        drops_entries(&p, &topics, why);
    }
    mp_buf_clear(&topics);
    must(mp_mp_put_array(&topics, MP_TOPIC_INTEREST_MAX + 1));
    for (uint32_t i = 0; i <= MP_TOPIC_INTEREST_MAX; i++) {
        char pattern[16];
        snprintf(pattern, sizeof(pattern), "a.%06u", i);
        must(mp_mp_put_text(&topics, pattern));
    }
    drops_entries(&p, &topics, "an entry has too many topics");
    mp_buf_fini(&topics);
    close_place(&p);
}

/* --- functions --- */

/* A module with one function `f`, which subscribes to these, or to nothing. */
static void put_subscriber(struct mp_buf *b, const char *version, const char *patterns)
{
    must(mp_mp_put_map(b, 3));
    put_pair(b, "kind", "module");
    put_pair(b, "version", version);
    must(mp_mp_put_text(b, "functions"));
    must(mp_mp_put_array(b, 1));
    must(mp_mp_put_map(b, patterns ? 2 : 1));
    put_pair(b, "name", "f");
    if (patterns) {
        must(mp_mp_put_text(b, "subscribe"));
        put_patterns(b, patterns);
    }
}

static const char *add_subscriber(struct place *p, const char *name, const char *version,
                                  const char *patterns)
{
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    put_subscriber(&b, version, patterns);
    must(add_bytes(p, name, hash_of(version), &b, &out));
    mp_buf_fini(&b);
    return why_of(&out, MP_CATALOG_REFUSED);
}

/* "geo.f 1.0.0, …" */
static const char *subscribed(const struct place *p)
{
    static char text[256];
    struct mp_text t;
    uint32_t key = 0;
    mp_text_init(&t, text, sizeof(text));
    for (;;) {
        const struct mp_catalog_function *f = mp_catalog_next_subscribed(&p->catalog, &key);
        if (!f)
            break;
        mp_text_put(&t, t.size == 0 ? "" : ", ");
        mp_text_put_slice(&t, f->name);
        mp_text_put(&t, " ");
        mp_text_put_slice(&t, p->catalog.modules[f->module].version_text);
    }
    text[t.size] = '\0';
    return text;
}

static void tells_the_functions_that_subscribe(void **state)
{
    (void)state;
    struct place a;
    struct place b;
    struct mp_catalog_effects out;
    open_place(&a, "n1");
    open_place(&b, "n2");
    tell_node(&b, 0, 1, "n1", MP_CATALOG_NODE_LIVE, &out);
    must_add(&a, "plain", "1.0.0", "f");
    assert_string_equal(subscribed(&a), "");
    assert_string_equal(add_subscriber(&a, "geo", "1.0.0", "a.# b"), "");
    assert_string_equal(add_subscriber(&a, "map", "1.0.0", "a"), "");
    assert_string_equal(subscribed(&a), "geo.f 1.0.0, map.f 1.0.0");
    send_all(&a, &b);
    assert_string_equal(subscribed(&b), "map.f 1.0.0, geo.f 1.0.0"); /* in order of their keys */
    /* Of one name it is the highest version there is, which need not subscribe. */
    assert_string_equal(add_subscriber(&b, "geo", "1.1.0", "c"), "");
    assert_string_equal(add_subscriber(&b, "map", "1.1.0", NULL), "");
    assert_string_equal(subscribed(&b), "geo.f 1.1.0");
    tell_node(&b, 0, 1, "n1", MP_CATALOG_NODE_DEAD, &out);
    assert_string_equal(subscribed(&b), "geo.f 1.1.0");
    close_place(&a);
    close_place(&b);
}

static void functions_come_and_go_with_what_is_live(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf b = new_buf();
    struct mp_catalog_effects out;
    open_place(&p, "n1");
    assert_string_equal(add_subscriber(&p, "geo", "1.0.0", "a"), "");
    put_subscriber(&b, "0.9.0", "b");
    const struct mp_catalog_event deploy = {.kind = MP_CATALOG_DEPLOY,
                                            .deploy = {.name = mp_slice_str("geo"),
                                                       .version = mp_slice_str("0.9.0"),
                                                       .hash = mp_slice_str("ab"),
                                                       .unit = mp_slice_str("unit"),
                                                       .metadata = mp_buf_slice(&b)}};
    must(mp_catalog_step(&p.catalog, 0, &deploy, &out));
    assert_string_equal(subscribed(&p), "geo.f 1.0.0");
    const struct mp_catalog_live item = {.module =
                                             mp_catalog_find_deployed(&p.catalog, &deploy.deploy)};
    struct mp_catalog_event live = {.kind = MP_CATALOG_LIVE, .live = {.items = &item, .count = 1}};
    must(mp_catalog_step(&p.catalog, 0, &live, &out));
    assert_string_equal(subscribed(&p), "geo.f 0.9.0");
    live.live.count = 0;
    must(mp_catalog_step(&p.catalog, 0, &live, &out));
    const struct mp_catalog_event retire = {.kind = MP_CATALOG_RETIRE, .number = item.module};
    must(mp_catalog_step(&p.catalog, 0, &retire, &out));
    assert_string_equal(subscribed(&p), "geo.f 1.0.0");
    assert_int_equal(p.catalog.subscribed_count, 1);
    mp_buf_fini(&b);
    close_place(&p);
}

static void refuses_functions_whose_patterns_are_none(void **state)
{
    (void)state;
    struct place p;
    open_place(&p, "n1");
    const char *why = "f subscribes to what is no pattern of topics, or to more than 32";
    assert_string_equal(add_subscriber(&p, "geo", "1.0.0", "a..b"), why);
    assert_string_equal(add_subscriber(&p, "geo", "1.0.0", "ok a/b"), why);
    char many[2 * (MP_SUBSCRIBE_MAX + 1) + 1];
    for (size_t i = 0; i < sizeof(many) - 1; i++)
        many[i] = i % 2 == 0 ? 'a' : ' ';
    many[sizeof(many) - 1] = '\0';
    assert_string_equal(add_subscriber(&p, "geo", "1.0.0", many), why);
    assert_string_equal(subscribed(&p), "");
    close_place(&p);
}

/* --- memory --- */

static void is_as_before_wherever_memory_is_out(void **state)
{
    (void)state;
    struct mp_catalog_effects out;
    for (size_t fail_at = 0;; fail_at++) {
        struct place p;
        open_place(&p, "n1");
        must(set_topics(&p, "a", &out));
        uint64_t counter = p.catalog.members[MP_CATALOG_SELF].counter;
        p.memory.fail_at = p.memory.count + fail_at;
        enum mp_err err = set_topics(&p, "some.more.patterns that.need.room and.yet.more", &out);
        p.memory.fail_at = SPEC_NEVER;
        struct mp_catalog_about about;
        assert_true(mp_catalog_about(&p.catalog, MP_CATALOG_SELF, &about));
        if (err != MP_OK) {
            assert_int_equal(err, MP_ENOMEM);
            assert_int_equal(p.catalog.members[MP_CATALOG_SELF].counter, counter);
            assert_int_equal(about.topics.size, 3);
        }
        close_place(&p);
        if (err == MP_OK)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_carries_the_patterns),
        cmocka_unit_test(who_is_gone_wants_nothing),
        cmocka_unit_test(drops_what_is_no_list_of_a_few_patterns),
        cmocka_unit_test(tells_the_functions_that_subscribe),
        cmocka_unit_test(functions_come_and_go_with_what_is_live),
        cmocka_unit_test(refuses_functions_whose_patterns_are_none),
        cmocka_unit_test(is_as_before_wherever_memory_is_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
