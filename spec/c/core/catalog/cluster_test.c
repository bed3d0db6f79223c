/* The catalog of several nodes, as one of them sees it: who is found, in which words it says that
 * nobody is, and what the documents list. */
#include "spec/c/core/catalog/catalog_harness.h"

#include "spec/support/tiny_json.h"
#include "src/base/defects.h"

#define PLACES_MAX 16

/* n1 is the one that looks; the others tell it what they have. */
struct cluster {
    struct place places[PLACES_MAX];
    uint32_t count;
};

static struct place *open_place(struct cluster *k, const char *resources)
{
    char name[8];
    struct mp_catalog_effects out;
    uint32_t number = k->count++;
    struct place *p = &k->places[number];
    assert_true(number < PLACES_MAX);
    p->memory.fail_at = SPEC_NEVER;
    snprintf(name, sizeof(name), "n%u", number + 1);
    must(place_open(p, name, resources, 1, 0));
    if (number != 0)
        tell_node(&k->places[0], 0, number, name, MP_CATALOG_NODE_LIVE, &out);
    return p;
}

static void gather(struct cluster *k)
{
    for (uint32_t i = 1; i < k->count; i++)
        send_all(&k->places[i], &k->places[0]);
}

static void set_state(struct cluster *k, mp_time now, uint32_t number,
                      enum mp_catalog_node_state state)
{
    struct mp_catalog_effects out;
    tell_node(&k->places[0], now, number, k->places[number].name, state, &out);
}

static int setup(void **state)
{
    static struct cluster k;
    k = (struct cluster){.count = 0};
    *state = &k;
    return 0;
}

static int teardown(void **state)
{
    struct cluster *k = *state;
    size_t left = 0;
    for (uint32_t i = 0; i < k->count; i++) {
        mp_catalog_fini(&k->places[i].catalog);
        left += k->places[i].memory.live_bytes;
    }
    return left == 0 ? 0 : -1;
}

/* --- finding --- */

static void finds_all_nodes_that_have_the_highest_version(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    must_add(open_place(k, ""), "m", "0.9.0", "f");
    struct place *n1 = &k->places[0];
    assert_string_equal(found(n1, query("m.f")), "none");
    gather(k);
    assert_string_equal(found(n1, query("m.f")), "1:1.0.0 2:1.0.0");
    struct mp_catalog_query q = query("m.f");
    q.version = mp_slice_str("<1");
    assert_string_equal(found(n1, q), "3:0.9.0");
    q = query("m.f");
    q.on = mp_slice_str("n4");
    assert_string_equal(found(n1, q), "3:0.9.0");
    q.on = mp_slice_str("n1");
    assert_string_equal(found(n1, q), "none");
    assert_null(mp_catalog_find_here(&n1->catalog, &q));
    must_add(n1, "m", "1.0.0", "f");
    assert_string_equal(found(n1, query("m.f")), "0:1.0.0 1:1.0.0 2:1.0.0");
    assert_int_equal(n1->catalog.function_count, 2);
    assert_non_null(mp_catalog_find_here(&n1->catalog, &q));
}

static void finds_only_nodes_with_all_resources(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    must_add(open_place(k, "gpu"), "m", "1.0.0", "f, train gpu");
    must_add(open_place(k, "ds2"), "m", "2.0.0", "f, train gpu");
    must_add(open_place(k, "gpu ds2"), "m", "0.5.0", "f, train gpu");
    gather(k);
    struct place *n1 = &k->places[0];
    const struct mp_slice needs[] = {mp_slice_str("gpu"), mp_slice_str("ds2")};
    assert_string_equal(found(n1, query("m.f")), "2:2.0.0");
    assert_string_equal(found(n1, query("m.train")), "1:1.0.0");
    struct mp_catalog_query q = query("m.f");
    q.needs = needs;
    q.needs_count = 2;
    assert_string_equal(found(n1, q), "3:0.5.0");
    q = query("m.train");
    q.needs = needs + 1;
    q.needs_count = 1;
    assert_string_equal(found(n1, q), "3:0.5.0");
    q.version = mp_slice_str("2");
    assert_string_equal(found(n1, q), "none");
}

static void finds_every_content_of_a_version(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    open_place(k, "");
    must(add_content(open_place(k, ""), "m", "1.0.0", "f, g", "one", &out));
    must(add_content(open_place(k, ""), "m", "1.0", "f", "two", &out));
    gather(k);
    struct place *n1 = &k->places[0];
    assert_string_equal(found(n1, query("m.f")), "1:1.0.0 2:1.0");
    assert_string_equal(found(n1, query("m.g")), "1:1.0.0");
}

static void passes_over_nodes_that_are_gone(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    gather(k);
    struct place *n1 = &k->places[0];
    set_state(k, 1, 1, MP_CATALOG_NODE_DEAD);
    assert_string_equal(found(n1, query("m.f")), "2:1.0.0");
    set_state(k, 1, 2, MP_CATALOG_NODE_LEFT);
    assert_string_equal(found(n1, query("m.f")), "none");
    set_state(k, 2, 1, MP_CATALOG_NODE_LIVE);
    assert_string_equal(found(n1, query("m.f")), "1:1.0.0");
    struct mp_catalog_effects out;
    tell_gone(n1, 3, 1, &out);
    assert_true(has_effect(&out, MP_CATALOG_CHANGED));
    assert_string_equal(found(n1, query("m.f")), "none");
    n1->catalog.defects = 1ull << MP_DEFECT_ROUTE_TO_DEAD;
    assert_string_equal(found(n1, query("m.f")), "2:1.0.0");
}

static void tells_of_changes_only(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    open_place(k, "");
    struct place *n2 = open_place(k, "");
    struct place *n1 = &k->places[0];
    tell_node(n1, 1, 1, "n2", MP_CATALOG_NODE_DEAD, &out);
    assert_int_equal(out.count, 0); /* nothing is known of it yet */
    tell_node(n1, 1, 1, "n2", MP_CATALOG_NODE_LIVE, &out);
    must_add(n2, "m", "1.0.0", "f");
    struct mp_buf b = new_buf();
    must(mp_catalog_put_entries(&n2->catalog, UINT64_MAX, &b));
    must(tell_entries(n1, &b, &out));
    assert_true(has_effect(&out, MP_CATALOG_CHANGED));
    assert_true(has_effect(&out, MP_CATALOG_MISSING));
    must(tell_entries(n1, &b, &out));
    assert_false(has_effect(&out, MP_CATALOG_CHANGED));
    assert_true(has_effect(&out, MP_CATALOG_MISSING));
    tell_node(n1, 1, 1, "n2", MP_CATALOG_NODE_DEAD, &out);
    assert_false(has_effect(&out, MP_CATALOG_MISSING));
    tell_node(n1, 1, 1, "n2", MP_CATALOG_NODE_LIVE, &out);
    assert_true(has_effect(&out, MP_CATALOG_MISSING));
    assert_true(send_metadata(n2, n1));
    assert_false(send_metadata(n2, n1));
    must(tell_entries(n1, &b, &out));
    assert_int_equal(out.count, 0);
    tell_node(n1, 2, 1, "n2", MP_CATALOG_NODE_LIVE, &out);
    assert_int_equal(out.count, 0);
    tell_node(n1, 2, 1, "n2", MP_CATALOG_NODE_DEAD, &out);
    assert_true(has_effect(&out, MP_CATALOG_CHANGED));
    mp_buf_fini(&b);
}

static void tells_what_a_node_says_of_itself(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_about about;
    open_place(k, "a b");
    open_place(k, "gpu");
    assert_true(mp_catalog_about(&k->places[0].catalog, 0, &about));
    assert_int_equal(about.resources.data[0], 0x92);
    assert_false(mp_catalog_about(&k->places[0].catalog, 1, &about));
    assert_false(mp_catalog_about(&k->places[0].catalog, 1000, &about));
    gather(k);
    assert_true(mp_catalog_about(&k->places[0].catalog, 1, &about));
    assert_int_equal(about.workers, 2);
    assert_true(mp_slice_is(about.version, "0.1.0"));
    assert_true(mp_slice_equal(about.resources, mp_slice_of("\x91\xa3gpu", 5)));
}

/* --- explaining --- */

#define PRECONDITION MP_CODE_FAILED_PRECONDITION

static void says_who_had_an_unknown_function(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "load");
    must_add(open_place(k, ""), "m", "1.0.0", "load");
    gather(k);
    struct place *n1 = &k->places[0];
    assert_explained_at(n1, 0, query("m.laod"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                        "no node has a function m.laod", "did you mean m.load?");
    set_state(k, MP_SECONDS(5), 1, MP_CATALOG_NODE_DEAD);
    set_state(k, MP_SECONDS(8), 2, MP_CATALOG_NODE_LEFT);
    assert_explained_at(n1, MP_SECONDS(20), query("m.load"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                        "no node has a function m.load; n3 had it, and left 12 s ago", "");
    assert_explained_at(n1, 0, query("m.laod"), MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                        "no node has a function m.laod", "");
    set_state(k, MP_SECONDS(30), 1, MP_CATALOG_NODE_LEFT);
    set_state(k, MP_SECONDS(30), 1, MP_CATALOG_NODE_DEAD);
    assert_explained_at(n1, MP_SECONDS(3630), query("m.load"), MP_CODE_NOT_FOUND,
                        "UNKNOWN_FUNCTION",
                        "no node has a function m.load; n2 had it, and is dead for 60 min", "");
}

static void says_who_has_what(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    must_add(open_place(k, "gpu"), "m", "1.0.0", "f");
    open_place(k, "tpu");
    must_add(open_place(k, "ds2"), "m", "1.0.0", "f");
    gather(k);
    struct place *n1 = &k->places[0];
    const struct mp_slice needs[] = {mp_slice_str("gpu"), mp_slice_str("ds2"), mp_slice_str("tpu"),
                                     mp_slice_str("fpga")};
    struct mp_catalog_query q = query("m.f");
    q.needs = needs;
    q.needs_count = 2;
    assert_explained_at(n1, 0, q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs gpu and ds2: n3 has gpu, n5 has ds2, none has both", "");
    q.needs_count = 3;
    assert_explained_at(n1, 0, q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs gpu and ds2 and tpu: n3 has gpu, n5 has ds2, none has tpu; n4 "
                        "has tpu but not the function",
                        "");
    q.needs = needs + 3;
    q.needs_count = 1;
    assert_explained_at(n1, 0, q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs fpga: n2, n3 and n5 lack fpga", "");
    q.needs = needs;
    q.needs_count = 1;
    set_state(k, MP_SECONDS(1), 2, MP_CATALOG_NODE_LEFT);
    assert_explained_at(n1, MP_SECONDS(13), q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs gpu: n2 and n5 lack gpu; n3 had all, and left 12 s ago", "");
    q.needs = needs + 2;
    set_state(k, MP_SECONDS(1), 3, MP_CATALOG_NODE_DEAD);
    set_state(k, MP_SECONDS(1), 4, MP_CATALOG_NODE_DEAD);
    assert_explained_at(n1, MP_SECONDS(4), q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs tpu: n2 lacks tpu; n4 had tpu, and is dead for 3 s", "");
}

static void names_a_few_nodes_of_many(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    for (int i = 0; i < 14; i++)
        must_add(open_place(k, i < 11 ? "gpu" : ""), "m", "1.0.0", "f");
    gather(k);
    const struct mp_slice needs[] = {mp_slice_str("ds2"), mp_slice_str("gpu")};
    struct mp_catalog_query q = query("m.f");
    q.needs = needs;
    q.needs_count = 1;
    assert_explained_at(&k->places[0], 0, q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs ds2: n10, n11, n12, n13, n14, n15, n2, n3 and 6 more lack ds2",
                        "");
    q.needs_count = 2;
    assert_explained_at(&k->places[0], 0, q, PRECONDITION, "UNSATISFIABLE",
                        "m.f needs ds2 and gpu: n10 has gpu, n11 has gpu, n12 has gpu, n2 has gpu, "
                        "n3 has gpu, n4 has gpu, n5 has gpu, n6 has gpu, and 3 more have some, "
                        "none has ds2",
                        "");
}

static void says_which_versions_there_are(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    must_add(open_place(k, ""), "m", "1.5.0", "f");
    must(add_content(&k->places[1], "m", "0.5.0", "f", "x", &out));
    must(add_content(&k->places[2], "m", "0.5.0", "f", "y", &out));
    gather(k);
    struct mp_catalog_query q = query("m.f");
    q.version = mp_slice_str(">=2");
    assert_explained_at(&k->places[0], 0, q, PRECONDITION, "NO_VERSION",
                        "no version of m.f matches >=2; there are: 1.5.0, 1.0.0, 0.5.0", "");
    q.on = mp_slice_str("n2");
    assert_explained_at(&k->places[0], 0, q, PRECONDITION, "NO_VERSION",
                        "no version of m.f on n2 matches >=2; there are: 1.0.0, 0.5.0", "");
    q.on = mp_slice_str("");
    set_state(k, 1, 2, MP_CATALOG_NODE_DEAD);
    assert_explained_at(&k->places[0], 0, q, PRECONDITION, "NO_VERSION",
                        "no version of m.f matches >=2; there are: 1.0.0, 0.5.0", "");
}

static void explains_the_node_that_was_asked_for(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f");
    must_add(open_place(k, ""), "m", "1.0.0", "f gpu");
    gather(k);
    struct place *n1 = &k->places[0];
    struct mp_catalog_query q = query("m.f");
    q.on = mp_slice_str("n5");
    assert_explained_at(n1, 0, q, MP_CODE_UNAVAILABLE, "NO_NODE",
                        "there is no node n5 in cluster default", "nodes: n1, n2, n3 and n4");
    q.on = mp_slice_str("n2");
    assert_explained_at(n1, 0, q, MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION",
                        "n2 has no function m.f; n3 and n4 have it", "");
    set_state(k, MP_SECONDS(1), 1, MP_CATALOG_NODE_DEAD);
    assert_explained_at(n1, MP_SECONDS(4), q, MP_CODE_UNAVAILABLE, "NO_NODE",
                        "node n2 is dead for 3 s", "");
    const struct mp_slice gpu = mp_slice_str("gpu");
    q.on = mp_slice_str("n4");
    q.needs = &gpu;
    q.needs_count = 1;
    assert_explained_at(n1, 0, q, PRECONDITION, "UNSATISFIABLE", "m.f needs gpu: n4 lacks gpu", "");
}

/* --- documents --- */

static const char *document(const struct place *p, bool is_functions)
{
    static char text[1 << 20];
    struct tiny_text t = {.at = text, .left = sizeof(text)};
    struct mp_buf b = new_buf();
    must(is_functions ? mp_catalog_put_functions(&p->catalog, &b)
                      : mp_catalog_put_modules(&p->catalog, &b));
    must(mp_mp_check(mp_buf_slice(&b)));
    struct mp_mp_reader r = mp_mp_reader_of(mp_buf_slice(&b));
    tiny_write(&t, &r);
    mp_buf_fini(&b);
    return text;
}

#define MODULE(version, content, nodes, differs)                                                   \
    "{\"name\":\"m\",\"version\":\"" version "\",\"hash\":\"" content                              \
    "\",\"origin\":\"loaded\",\"live\":true,\"nodes\":[" nodes                                     \
    "],\"shadowed\":false,\"differs\":" differs ",\"overtaken\":false}"

static void lists_modules_and_their_nodes(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    open_place(k, "");
    for (int i = 0; i < 3; i++)
        must(add_content(open_place(k, ""), "m", "1.0.0", "f", i == 1 ? "b" : "a", &out));
    must_add(&k->places[0], "m", "2", "f");
    gather(k);
    assert_string_equal(document(&k->places[0], false),
                        "{\"modules\":[" MODULE("2", "32", "\"n1\"", "false") "," MODULE(
                            "1.0.0", "61", "\"n2\",\"n4\"",
                            "true") "," MODULE("1.0.0", "62", "\"n3\"", "true") "],\"pipelines\":"
                                                                                "[]}");
    set_state(k, 0, 2, MP_CATALOG_NODE_DEAD);
    set_state(k, 0, 3, MP_CATALOG_NODE_DEAD);
    assert_string_equal(document(&k->places[0], false),
                        "{\"modules\":[" MODULE("2", "32", "\"n1\"", "false") "," MODULE(
                            "1.0.0", "61", "\"n2\"", "false") "],\"pipelines\":[]}");
}

static void lists_functions_that_live_nodes_have(void **state)
{
    struct cluster *k = *state;
    open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f gpu");
    must_add(open_place(k, ""), "m", "1.0.0", "f gpu");
    gather(k);
    assert_string_equal(document(&k->places[0], true),
                        "{\"functions\":[{\"name\":\"m.f\",\"module\":\"m\",\"version\":\"1.0.0\","
                        "\"nodes\":[\"n2\",\"n3\"],\"needs\":[\"gpu\"],\"doc\":null,\"params\":[],"
                        "\"returns\":null}]}");
    set_state(k, 0, 1, MP_CATALOG_NODE_DEAD);
    set_state(k, 0, 2, MP_CATALOG_NODE_LEFT);
    assert_string_equal(document(&k->places[0], true), "{\"functions\":[]}");
}

static void knows_pipelines_of_live_nodes(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    struct mp_slice graph;
    struct mp_fault fault;
    char bytes[2][256];
    struct mp_text message;
    struct mp_text hint;
    open_place(k, "");
    for (unsigned i = 1; i <= 2; i++) {
        struct mp_buf b = new_buf();
        must(mp_mp_put_map(&b, 4));
        put_pair(&b, "kind", "pipeline");
        put_pair(&b, "name", "quakes");
        put_pair(&b, "version", i == 1 ? "1.0" : "2.0");
        must(mp_mp_put_text(&b, "graph"));
        must(mp_mp_put_uint(&b, i));
        must(add_bytes(open_place(k, ""), "file", i == 1 ? "01" : "02", &b, &out));
        mp_buf_fini(&b);
    }
    gather(k);
    const struct mp_catalog *c = &k->places[0].catalog;
    for (unsigned i = 2; i >= 1; i--) {
        mp_text_init(&message, bytes[0], sizeof(bytes[0]));
        mp_text_init(&hint, bytes[1], sizeof(bytes[1]));
        assert_true(
            mp_catalog_pipeline(c, mp_slice_str("quakes"), 0, &graph, &fault, &message, &hint));
        assert_int_equal(graph.data[0], i);
        set_state(k, i, i, MP_CATALOG_NODE_LEFT);
    }
    assert_false(
        mp_catalog_pipeline(c, mp_slice_str("quakes"), 0, &graph, &fault, &message, &hint));
    assert_string_equal(bytes[0], "no node has a pipeline quakes; n3 had it, and left");
    assert_string_equal(document(&k->places[0], false), "{\"modules\":[],\"pipelines\":[]}");
}

/* --- this node's modules and those of others --- */

static void shares_a_module_that_another_node_has(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    struct place *n1 = open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f, g");
    must(add_content(&k->places[1], "x", "1.0.0", "f", "other", &out));
    gather(k);
    assert_int_equal(n1->catalog.modules[0].host_module, MP_CATALOG_NONE);
    must_add(n1, "m", "1.0.0", "f, g");
    assert_int_equal(n1->catalog.modules[0].host_module, 0);
    assert_int_equal(n1->catalog.module_count, 2);
    assert_int_equal(n1->catalog.function_count, 3);
    must(add(n1, "m", "1.0.0", "f, g", &out));
    assert_string_equal(why_of(&out, MP_CATALOG_REFUSED),
                        "version 1.0.0 is loaded already, with the same content");
    /* Only what this node has itself stands in the way of other content. */
    must(add_content(n1, "x", "1.0.0", "f", "mine", &out));
    assert_true(has_effect(&out, MP_CATALOG_CHANGED));
    assert_string_equal(found(n1, query("x.f")), "0:1.0.0 1:1.0.0");
    must(add_content(n1, "x", "1.0.0", "f", "more", &out));
    assert_string_equal(why_of(&out, MP_CATALOG_REFUSED),
                        "version 1.0.0 is loaded already, with other content: the first one stays");
}

static void refuses_what_others_describe_in_another_way(void **state)
{
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    struct place *n1 = open_place(k, "");
    must_add(open_place(k, ""), "m", "1.0.0", "f, g");
    gather(k);
    must(add(n1, "m", "1.0.0", "g, f", &out));
    assert_string_equal(why_of(&out, MP_CATALOG_REFUSED),
                        "another node describes the same content with other functions");
}

/* --- many nodes --- */

static void finds_quickly_among_many_nodes(void **state)
{
    enum { NODES = 2000, FINDS = 2000 };
    struct cluster *k = *state;
    struct mp_catalog_effects out;
    struct place *n1 = open_place(k, "");
    struct place *other = &k->places[1];
    struct mp_buf b = new_buf();
    for (uint32_t i = 1; i < NODES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "x%u", i);
        *other = (struct place){.memory = {.fail_at = SPEC_NEVER}};
        must(place_open(other, name, i % 2 ? "gpu ds1 ds2" : "ds1 ds2 ds3", 1, 0));
        must_add(other, "m", "1.0.0", "f ds2");
        tell_node(n1, 0, i, name, MP_CATALOG_NODE_LIVE, &out);
        send_all(other, n1);
        mp_catalog_fini(&other->catalog);
    }
    const struct mp_slice gpu = mp_slice_str("gpu");
    struct mp_catalog_query q = query("m.f");
    q.needs = &gpu;
    q.needs_count = 1;
    for (int i = 0; i < FINDS; i++) {
        mp_buf_clear(&b);
        must(mp_catalog_find(&n1->catalog, &q, &b));
        assert_int_equal(b.size / sizeof(struct mp_catalog_provider), NODES / 2);
    }
    /* Their resources are four names, however many nodes have them. */
    assert_int_equal(n1->catalog.by_resource.count, 4);
    assert_true(n1->memory.live_bytes / NODES < 800);
    for (uint32_t i = 1; i < NODES; i++)
        tell_gone(n1, 0, i, &out);
    assert_int_equal(n1->catalog.by_resource.count, 0);
    mp_buf_fini(&b);
}

int main(void)
{
#define SPEC(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SPEC(finds_all_nodes_that_have_the_highest_version),
        SPEC(finds_only_nodes_with_all_resources),
        SPEC(finds_every_content_of_a_version),
        SPEC(passes_over_nodes_that_are_gone),
        SPEC(tells_of_changes_only),
        SPEC(tells_what_a_node_says_of_itself),
        SPEC(says_who_had_an_unknown_function),
        SPEC(says_who_has_what),
        SPEC(names_a_few_nodes_of_many),
        SPEC(says_which_versions_there_are),
        SPEC(explains_the_node_that_was_asked_for),
        SPEC(lists_modules_and_their_nodes),
        SPEC(lists_functions_that_live_nodes_have),
        SPEC(knows_pipelines_of_live_nodes),
        SPEC(shares_a_module_that_another_node_has),
        SPEC(refuses_what_others_describe_in_another_way),
        SPEC(finds_quickly_among_many_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
