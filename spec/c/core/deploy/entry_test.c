/* An entry is written in one way only, and read if it is written so and its parts are good. */
#include "spec/c/core/deploy/deploy_harness.h"

static uint8_t some_hash[32] = "content";
static uint8_t some_unit[32] = "unit";

static struct mp_deploy_entry good(void)
{
    return (struct mp_deploy_entry){
        .module = mp_slice_str("stat.robust"),
        .stamp = {1000, mp_slice_str("n1")},
        .action = MP_DEPLOY_ROLLBACK,
        .is_forced = true,
        .version = mp_slice_str("1.2.0+3fa9c1d2"),
        .hash = mp_slice_of(some_hash, 32),
        .unit = mp_slice_of(some_unit, 32),
        .place = 300,
        .parent = {999, mp_slice_str("n2")},
        .previous = mp_slice_of(some_unit, 32),
        .origin = {700, mp_slice_str("n3")},
        .by = mp_slice_str("ada@host"),
    };
}

static bool is_equal_stamp(const struct mp_deploy_stamp *a, const struct mp_deploy_stamp *b)
{
    return a->epoch == b->epoch && mp_slice_equal(a->node, b->node);
}

static void assert_same(const struct mp_deploy_entry *a, const struct mp_deploy_entry *b)
{
    assert_true(mp_slice_equal(a->module, b->module));
    assert_true(is_equal_stamp(&a->stamp, &b->stamp));
    assert_int_equal(a->action, b->action);
    assert_int_equal(a->is_pipeline, b->is_pipeline);
    assert_int_equal(a->is_forced, b->is_forced);
    assert_true(mp_slice_equal(a->version, b->version));
    assert_true(mp_slice_equal(a->hash, b->hash));
    assert_true(mp_slice_equal(a->unit, b->unit));
    assert_int_equal(a->place, b->place);
    assert_true(is_equal_stamp(&a->parent, &b->parent));
    assert_true(mp_slice_equal(a->previous, b->previous));
    assert_true(is_equal_stamp(&a->origin, &b->origin));
    assert_true(mp_slice_equal(a->by, b->by));
    assert_int_equal(a->scope, b->scope);
    assert_true(mp_slice_equal(a->nodes, b->nodes));
}

static void assert_goes_round(const struct mp_deploy_entry *e)
{
    struct mp_buf b = new_buf();
    struct mp_deploy_entry read;
    must(mp_deploy_put_entry(&b, e));
    must(mp_deploy_read_entry(mp_buf_slice(&b), &read));
    assert_same(e, &read);
    mp_buf_fini(&b);
}

static void reads_what_it_writes(void **state)
{
    (void)state;
    struct mp_deploy_entry e = good();
    struct mp_buf nodes = new_buf();
    assert_goes_round(&e);
    e.action = MP_DEPLOY_DEPLOY;
    e.origin = (struct mp_deploy_stamp){0};
    e.is_pipeline = true;
    e.is_forced = false;
    assert_goes_round(&e);
    put_names(&nodes, "n1 n-2 n_3");
    e.nodes = mp_buf_slice(&nodes);
    e.scope = MP_DEPLOY_ONLY;
    assert_goes_round(&e);
    e.scope = MP_DEPLOY_SKIP;
    e.by = mp_slice_str("");
    assert_goes_round(&e);
    e = (struct mp_deploy_entry){.module = mp_slice_str("m"),
                                 .stamp = {1ull << 53, mp_slice_str("n1")},
                                 .action = MP_DEPLOY_UNDEPLOY};
    assert_goes_round(&e);
    mp_buf_fini(&nodes);
}

static void reads_the_largest(void **state)
{
    (void)state;
    char module[MP_MODULE_NAME_BYTES_MAX + 1];
    char by[MP_DEPLOY_BY_BYTES_MAX + 1];
    char node[MP_NODE_NAME_BYTES_MAX + 1];
    struct mp_buf nodes = new_buf();
    struct mp_deploy_entry e = good();
    for (size_t i = 0; i < sizeof(module); i++)
        module[i] = i % 64 == 63 ? '.' : 'm';
    memset(by, 'b', sizeof(by));
    memset(node, 'n', sizeof(node));
    must(mp_mp_put_array(&nodes, MP_DEPLOY_NODES_MAX));
    for (size_t i = 0; i < MP_DEPLOY_NODES_MAX; i++)
        must(mp_mp_put_str(&nodes, mp_slice_of(node, MP_NODE_NAME_BYTES_MAX)));
    e.module = mp_slice_of(module, MP_MODULE_NAME_BYTES_MAX);
    e.by = mp_slice_of(by, MP_DEPLOY_BY_BYTES_MAX);
    e.scope = MP_DEPLOY_ONLY;
    e.nodes = mp_buf_slice(&nodes);
    assert_goes_round(&e);
    mp_buf_fini(&nodes);
}

static void assert_bad(struct mp_deploy_entry e, const char *what)
{
    struct mp_buf b = new_buf();
    must(mp_buf_append_byte(&b, 7));
    if (mp_deploy_put_entry(&b, &e) != MP_EINVAL)
        fail_msg("written: %s", what);
    assert_int_equal(b.size, 1);
    mp_buf_fini(&b);
}

static void refuses_bad_parts(void **state)
{
    (void)state;
    static char long_text[1000];
    const struct mp_deploy_entry e = good();
    struct mp_buf nodes = new_buf();
    memset(long_text, 'a', sizeof(long_text));
    for (size_t i = 63; i < sizeof(long_text); i += 64)
        long_text[i] = '.';
#define BAD(field, value)                                                                          \
    do {                                                                                           \
        struct mp_deploy_entry bad = e;                                                            \
        bad.field = value;                                                                         \
        assert_bad(bad, #field " = " #value);                                                      \
    } while (0)
    BAD(module, mp_slice_str(""));
    BAD(module, mp_slice_str("a..b"));
    BAD(module, mp_slice_of(long_text, MP_MODULE_NAME_BYTES_MAX + 1));
    BAD(stamp.epoch, 0);
    BAD(stamp.epoch, (1ull << 53) + 1);
    BAD(stamp.node, mp_slice_str("n.1"));
    BAD(stamp.node, mp_slice_str(""));
    BAD(action, (enum mp_deploy_action)3);
    BAD(version, mp_slice_str(""));
    BAD(version, mp_slice_str("one"));
    BAD(hash, mp_slice_of(some_hash, 31));
    BAD(hash, mp_slice_str(""));
    BAD(unit, mp_slice_str("unit"));
    BAD(place, MP_UNIT_MODULES_MAX);
    BAD(parent.epoch, 1001);
    BAD(parent.epoch, 0);
    BAD(parent.node, mp_slice_str(""));
    BAD(parent, e.stamp);
    BAD(parent, ((struct mp_deploy_stamp){0}));
    BAD(previous, mp_slice_of(some_hash, 8));
    BAD(origin, ((struct mp_deploy_stamp){0}));
    BAD(origin.epoch, 1001);
    BAD(by, mp_slice_str("\xff"));
    BAD(by, mp_slice_of(long_text, MP_DEPLOY_BY_BYTES_MAX + 1));
    BAD(action, MP_DEPLOY_DEPLOY);   /* it has an origin */
    BAD(action, MP_DEPLOY_UNDEPLOY); /* and content */
    BAD(scope, MP_DEPLOY_ONLY);      /* and no nodes */
    BAD(scope, (enum mp_deploy_scope)3);
    must(mp_mp_put_array(&nodes, 1));
    must(mp_mp_put_text(&nodes, "n1"));
    BAD(nodes, mp_buf_slice(&nodes));
#undef BAD
    mp_buf_fini(&nodes);
}

static void assert_bad_nodes(const char *bytes, size_t size)
{
    struct mp_deploy_entry e = good();
    e.scope = MP_DEPLOY_SKIP;
    e.nodes = mp_slice_of(bytes, size);
    assert_bad(e, "nodes");
}

static void refuses_bad_nodes(void **state)
{
    (void)state;
    char many[2 * 65 + 3] = "\xdc";
    assert_bad_nodes("\x90", 1);              /* none */
    assert_bad_nodes("\x91\xa1.", 3);         /* no name */
    assert_bad_nodes("\x91\x01", 2);          /* no text */
    assert_bad_nodes("\x91\xa1n\xa1m", 5);    /* more than it says */
    assert_bad_nodes("\x92\xa1n", 3);         /* less */
    assert_bad_nodes("\x91\xd9\x01n", 4);     /* longer than need be */
    assert_bad_nodes("\xdc\x00\x01\xa1n", 5); /* likewise */
    assert_bad_nodes("\x81\xa1n\xa1m", 5);    /* a map */
    many[2] = 65;
    for (size_t i = 0; i < 65; i++)
        memcpy(many + 3 + 2 * i, "\xa1n", 2);
    assert_bad_nodes(many, sizeof(many));
}

/* Every cut, every changed byte: what is still read is written as the same bytes. */
static void reads_one_form_only(void **state)
{
    (void)state;
    struct mp_buf b = new_buf();
    struct mp_buf again = new_buf();
    struct mp_deploy_entry e = good();
    struct mp_deploy_entry read;
    must(mp_deploy_put_entry(&b, &e));
    for (size_t size = 0; size < b.size; size++)
        assert_int_equal(mp_deploy_read_entry(mp_slice_of(b.data, size), &read), MP_ECORRUPT);
    for (size_t i = 0; i < b.size; i++)
        for (unsigned v = 0; v < 256; v++) {
            uint8_t was = b.data[i];
            b.data[i] = (uint8_t)v;
            mp_buf_clear(&again);
            if (mp_deploy_read_entry(mp_buf_slice(&b), &read) == MP_OK) {
                must(mp_deploy_put_entry(&again, &read));
                assert_true(mp_slice_equal(mp_buf_slice(&b), mp_buf_slice(&again)));
            }
            b.data[i] = was;
        }
    must(mp_buf_append_byte(&b, 0xc0));
    assert_int_equal(mp_deploy_read_entry(mp_buf_slice(&b), &read), MP_ECORRUPT);
    mp_buf_fini(&b);
    mp_buf_fini(&again);
}

static void refuses_longer_forms(void **state)
{
    (void)state;
    /* The module's name "m" and the epoch 5, each in forms that say the same. */
    static const struct {
        const char *bytes;
        size_t size;
        bool is_read;
    } forms[] = {
        {"\xa1m\x05", 3, true},          {"\xd9\x01m\x05", 4, false},
        {"\xda\x00\x01m\x05", 5, false}, {"\xa1m\xcc\x05", 4, false},
        {"\xa1m\xd0\x05", 4, false},     {"\xa1m\xd1\x7f\xff", 5, false}, /* 32767, as signed */
        {"\xa1m\xcd\x7f\xff", 5, true},  {"\xa1m\xcd\x00\xff", 5, false}};
    struct mp_deploy_entry e = {.module = mp_slice_str("m"),
                                .stamp = {5, mp_slice_str("n1")},
                                .action = MP_DEPLOY_UNDEPLOY};
    struct mp_buf b = new_buf();
    struct mp_buf form = new_buf();
    struct mp_deploy_entry read;
    must(mp_deploy_put_entry(&b, &e));
    assert_memory_equal(b.data, "\xdc\x00\x12\xa1m\x05", 6);
    for (size_t i = 0; i < MP_ARRAY_SIZE(forms); i++) {
        mp_buf_clear(&form);
        must(mp_buf_append(&form, mp_slice_of(b.data, 3)));
        must(mp_buf_append(&form, mp_slice_of(forms[i].bytes, forms[i].size)));
        must(mp_buf_append(&form, mp_slice_of(b.data + 6, b.size - 6)));
        if ((mp_deploy_read_entry(mp_buf_slice(&form), &read) == MP_OK) != forms[i].is_read)
            fail_msg("form %zu", i);
    }
    mp_buf_fini(&b);
    mp_buf_fini(&form);
}

static void knows_its_scope(void **state)
{
    (void)state;
    struct mp_buf nodes = new_buf();
    struct mp_deploy_entry e = good();
    put_names(&nodes, "n1 n3");
    assert_true(mp_deploy_is_in_scope(&e, mp_slice_str("n2")));
    e.nodes = mp_buf_slice(&nodes);
    e.scope = MP_DEPLOY_ONLY;
    assert_true(mp_deploy_is_in_scope(&e, mp_slice_str("n1")));
    assert_false(mp_deploy_is_in_scope(&e, mp_slice_str("n2")));
    assert_true(mp_deploy_is_in_scope(&e, mp_slice_str("n3")));
    e.scope = MP_DEPLOY_SKIP;
    assert_false(mp_deploy_is_in_scope(&e, mp_slice_str("n1")));
    assert_true(mp_deploy_is_in_scope(&e, mp_slice_str("n2")));
    assert_true(mp_deploy_is_in_scope(&e, mp_slice_str("n")));
    mp_buf_fini(&nodes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_it_writes), cmocka_unit_test(reads_the_largest),
        cmocka_unit_test(refuses_bad_parts),    cmocka_unit_test(refuses_bad_nodes),
        cmocka_unit_test(reads_one_form_only),  cmocka_unit_test(refuses_longer_forms),
        cmocka_unit_test(knows_its_scope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
