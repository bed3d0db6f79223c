/* Running out of memory, at every place where memory is taken: the run ends as failed, or the
 * machine says that it cannot go on; nothing is left over and nothing breaks. */
#include "spec/c/core/graph/graph_harness.h"

/* clang-format off */
static const char rich[] =
    "{'name':'rich','trace':true,'input':{'list':[1,2,3,4],'lit':{'$lit':{'$x':1}}},"
    " 'output':{'x':{'$ref':'join'},'y':[{'$ref':'skipped'},{'$ref':'each'}]},"
    " 'steps':["
    "  {'name':'a','call':'m.a','args':[{'$ref':'input.lit'}],'needs':['gpu','ds']},"
    "  {'name':'skipped','call':'m.s','when':{'$ref':'a.no'}},"
    "  {'name':'each','call':'m.e','each':[{'$ref':'input.list[1]'},2,{'k':3}],"
    "   'args':[{'$item':''},{'$index':true},{'$ref':'a'}],"
    "   'retries':1,'backoff_ms':1,'timeout_ms':500,'concurrency':2,'on_error':'skip'},"
    "  {'name':'dflt','call':'m.d','each':{'$ref':'input.list'},'args':[{'$item':'k'}],"
    "   'on_error':{'default':{'$lit':0}}},"
    "  {'name':'other','call':'m.o','on_error':{'default':[1]}},"
    "  {'name':'join','call':'m.j','after':['dflt'],"
    "   'args':[{'$ref':'skipped.x','default':{'$ref':'a.x'}},{'$ref':'other'}]}]}";

/* What is told before the end fills the room that there is at first. */
static const char full_log[] =
    "{'steps':[{'name':'other','call':'m.o','retries':12,'backoff_ms':1,"
    "  'on_error':{'default':1}}]}";

static const char broken[] =
    "{'steps':["
    "  {'name':'a','call':'m.f','args':[{'$ref':'b'}],'retires':1},"
    "  {'name':'b','call':'m.f','after':['a']},"
    "  {'name':'b','call':'m f'},"
    "  {'name':'c','call':'m.missing','args':[{'$rfe':1}]},"
    "  {'name':'d','call':'m.missing'}],"
    " 'ouput':1}";
/* clang-format on */

/* JSON with ' for ". */
static void read_quoted(const char *json, struct mp_buf *out)
{
    char text[2048];
    size_t size = strlen(json);
    assert_true(size < sizeof(text));
    for (size_t i = 0; i <= size; i++)
        text[i] = (char)(json[i] == '\'' ? '"' : json[i]);
    tiny_read(text, out);
}

/* What the allocator does at its n-th growing request: fail that one, or all from there on. */
struct failing {
    size_t at;
    size_t count;
    size_t live_bytes;
    bool is_for_good;
};

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct failing *f = (struct failing *)context;
    if (new_size == 0) {
        free(p);
        f->live_bytes -= old_size;
        return NULL;
    }
    if (new_size > old_size) {
        size_t n = f->count++;
        if (n == f->at || (n > f->at && f->is_for_good))
            return NULL;
    }
    void *q = realloc(p, new_size);
    if (q)
        f->live_bytes += new_size - old_size;
    return q;
}

/* Some answer to the oldest open call: elements 2 fail twice, `other` fails, `a` is large. */
static void answer_one(struct harness *h, uint32_t i, struct mp_slice large)
{
    struct harness_call *c = &h->calls[i];
    if (strcmp(c->step, "a") == 0)
        harness_complete_bytes(h, c, large);
    else if (strcmp(c->step, "other") == 0 || c->index == 2)
        harness_fail_at(h, c->step, c->index, "{\"code\":\"INTERNAL\",\"message\":\"no\"}", false);
    else
        harness_complete_at(h, c->step, c->index, "{\"x\":[1,2,3]}");
}

/* What others ask meanwhile may fail for lack of memory, and leaves nothing half told. */
static void ask(struct harness *h)
{
    struct mp_buf b;
    mp_buf_init(&b, &h->plain_alloc, 0);
    enum mp_err err = mp_graph_put_record(h->g, h->now, &b);
    assert_true(err == MP_OK || (err == MP_ENOMEM && b.size == 0));
    assert_int_equal(mp_graph_put_receipts(h->g, &b), MP_OK);
    mp_buf_fini(&b);
}

/* Whatever is left out, a watcher hears of the end. */
static void look_at_the_end(const struct harness *h)
{
    uint64_t count = mp_graph_event_count(h->g);
    if (count != 0)
        assert_string_equal(mp_graph_event_name(h->g, count), "run_finished");
}

/* Goes on until the run ends or the machine gives up. */
static void go_on(struct harness *h, struct mp_slice large)
{
    for (uint32_t i = 0; h->run.size == 0 && h->refused.size == 0 && h->err == MP_OK; h->now++) {
        while (i < h->count && (h->calls[i].is_answered || h->calls[i].is_cancelled))
            i++;
        if (i < h->count)
            answer_one(h, i, large);
        else
            harness_timer(h);
        if (h->err == MP_OK)
            ask(h);
    }
}

/* `a` and the result of another step, known before. */
static void preset(struct harness *h, struct mp_slice large)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_PRESET,
                                .preset = {.name = mp_slice_str("a"),
                                           .value = large,
                                           .node = mp_slice_str("n8"),
                                           .version = mp_slice_str("0.1.0")}};
    if (h->refused.size == 0 && h->err == MP_OK && harness_step(h, &ev) == MP_OK &&
        h->refused.size == 0) {
        ev.preset.name = mp_slice_str("skipped");
        harness_step(h, &ev);
    }
}

static bool sweep_once(const char *json, size_t n, bool is_for_good, struct mp_slice large,
                       const char *refuse_step, bool has_presets)
{
    struct failing f = {.at = n, .is_for_good = is_for_good};
    struct harness *h = harness_new();
    h->alloc = (struct mp_alloc){.resize = resize, .context = &f};
    h->refuse_step = refuse_step;
    read_quoted(json, &h->graph);
    harness_load_bytes(h);
    if (h->g && has_presets)
        preset(h, large);
    if (h->g) {
        harness_start(h);
        go_on(h, large);
        if (h->err == MP_OK && h->run.size != 0)
            look_at_the_end(h);
        if (h->err == MP_OK && h->run.size != 0 && f.count > n) {
            /* Without memory for a preview the value itself is kept: no failure at all. */
            if (h->status == MP_GRAPH_FAILED)
                assert_string_equal(harness_show(h, ".error.reason"), "\"OUT_OF_MEMORY\"");
        } else if (h->err == MP_OK && h->refused.size != 0 && f.count > n) {
            assert_string_equal(harness_show(h, ".reason"), "\"OUT_OF_MEMORY\"");
        } else {
            assert_true(h->err == MP_OK || h->err == MP_ENOMEM);
        }
    } else {
        assert_int_equal(h->err, MP_ENOMEM);
    }
    bool has_failed = f.count > n;
    struct mp_graph *g = h->g;
    if (g)
        mp_graph_fini(g);
    assert_int_equal(f.live_bytes, 0);
    h->g = NULL;
    free(g);
    harness_free(h);
    return has_failed;
}

static void sweep(const char *json, bool is_for_good, const char *refuse_step, bool has_presets)
{
    struct spec_alloc plain = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&plain);
    struct mp_buf large;
    mp_buf_init(&large, &alloc, 0);
    assert_int_equal(mp_mp_put_map(&large, 2), MP_OK);
    tiny_read("\"x\"", &large);
    tiny_read("1", &large);
    tiny_read("\"text\"", &large);
    uint8_t *text = (uint8_t *)calloc(1, 70000);
    assert_int_equal(mp_mp_put_str(&large, mp_slice_of(text, 70000)), MP_OK);
    free(text);
    size_t n = 0;
    while (sweep_once(json, n, is_for_good, mp_buf_slice(&large), refuse_step, has_presets))
        n++;
    assert_true(n > 20);
    mp_buf_fini(&large);
}

static void a_run_survives_one_failed_allocation_anywhere(void **state)
{
    (void)state;
    sweep(rich, false, NULL, false);
    sweep(rich, false, "a", true);
    sweep(full_log, false, NULL, false);
}

static void a_run_survives_the_end_of_memory_anywhere(void **state)
{
    (void)state;
    sweep(rich, true, NULL, false);
    sweep(rich, true, "a", true);
    sweep(full_log, true, NULL, false);
}

static void a_refused_graph_does_too(void **state)
{
    (void)state;
    sweep(broken, false, "d", false);
    sweep(broken, true, "d", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_survives_one_failed_allocation_anywhere),
        cmocka_unit_test(a_run_survives_the_end_of_memory_anywhere),
        cmocka_unit_test(a_refused_graph_does_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
