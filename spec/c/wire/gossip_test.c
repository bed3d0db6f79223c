#include "src/wire/gossip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/rng.h"

static struct mp_address address(uint8_t last)
{
    return (struct mp_address){.size = 6, .bytes = {127, 0, 0, last, 0x1c, 0xe8}};
}

static struct mp_gossip message(enum mp_gossip_kind kind)
{
    return (struct mp_gossip){.kind = kind,
                              .cluster = 0x0123456789abcdefu,
                              .name = mp_slice_str("n1"),
                              .generation = 1700000000123u,
                              .incarnation = 3,
                              .flags = MP_GOSSIP_JOINING,
                              .load = 12,
                              .sender = address(1),
                              .seq = 70000,
                              .target = mp_slice_str("n2"),
                              .claimed = 8,
                              .addr = address(2),
                              .holder_generation = 9};
}

static struct mp_gossip_member member(enum mp_gossip_state state)
{
    return (struct mp_gossip_member){.state = state,
                                     .name = mp_slice_str("n3"),
                                     .generation = 5,
                                     .incarnation = UINT32_MAX,
                                     .flags = 1,
                                     .addr = address(3),
                                     .accuser = mp_slice_str("n4"),
                                     .age_s = 77};
}

static void each_kind_is_read_as_it_was_put(void **state)
{
    (void)state;
    for (int kind = MP_GOSSIP_PING; kind <= MP_GOSSIP_REFUSED; kind++) {
        struct mp_gossip put = message((enum mp_gossip_kind)kind);
        struct mp_gossip_writer w;
        struct mp_gossip got;
        mp_gossip_begin(&w, &put);
        assert_int_equal(MP_OK, mp_gossip_read(mp_gossip_end(&w), &got));
        assert_int_equal(put.kind, got.kind);
        assert_true(put.cluster == got.cluster && put.generation == got.generation);
        assert_true(mp_slice_equal(put.name, got.name));
        assert_int_equal(put.incarnation, got.incarnation);
        assert_int_equal(put.flags, got.flags);
        assert_int_equal(put.load, got.load);
        assert_true(mp_address_equal(&put.sender, &got.sender));
        bool has_seq = kind != MP_GOSSIP_GOSSIP && kind != MP_GOSSIP_REFUSED;
        assert_int_equal(has_seq ? put.seq : 0, got.seq);
        bool has_target =
            kind == MP_GOSSIP_PING || kind == MP_GOSSIP_PING_REQ || kind == MP_GOSSIP_REFUSED;
        if (has_target)
            assert_true(mp_slice_equal(put.target, got.target));
        if (kind == MP_GOSSIP_PING_REQ || kind == MP_GOSSIP_REFUSED)
            assert_true(mp_address_equal(&put.addr, &got.addr));
        if (kind == MP_GOSSIP_REFUSED)
            assert_true(put.claimed == got.claimed &&
                        put.holder_generation == got.holder_generation);
        assert_int_equal(0, got.items.size);
    }
}

static void items_are_read_as_they_were_put(void **state)
{
    (void)state;
    struct mp_gossip g = message(MP_GOSSIP_GOSSIP);
    struct mp_gossip_writer w;
    mp_gossip_begin(&w, &g);
    for (int s = MP_GOSSIP_ALIVE; s <= MP_GOSSIP_FORGOTTEN; s++) {
        struct mp_gossip_member m = member((enum mp_gossip_state)s);
        assert_true(mp_gossip_put_member(&w, &m));
    }
    const struct mp_gossip_news news = {.key = mp_slice_str("n9"),
                                        .stamp = UINT64_MAX,
                                        .hops = 2,
                                        .bytes = mp_slice_str("what is new")};
    assert_true(mp_gossip_put_news(&w, &news));
    assert_int_equal(MP_OK, mp_gossip_read(mp_gossip_end(&w), &g));
    struct mp_gossip_item item;
    for (int s = MP_GOSSIP_ALIVE; s <= MP_GOSSIP_FORGOTTEN; s++) {
        struct mp_gossip_member m = member((enum mp_gossip_state)s);
        assert_true(mp_gossip_next(&g.items, &item));
        assert_false(item.is_news);
        assert_int_equal(s, item.member.state);
        assert_true(mp_slice_equal(m.name, item.member.name));
        assert_true(item.member.generation == 5);
        assert_int_equal(UINT32_MAX, item.member.incarnation);
        assert_int_equal(1, item.member.flags);
        assert_true(mp_address_equal(&m.addr, &item.member.addr));
        assert_int_equal(s == MP_GOSSIP_SUSPECT ? 2 : 0, item.member.accuser.size);
        assert_int_equal(s >= MP_GOSSIP_DEAD ? 77 : 0, item.member.age_s);
    }
    assert_true(mp_gossip_next(&g.items, &item));
    assert_true(item.is_news && item.news.stamp == UINT64_MAX && item.news.hops == 2);
    assert_true(mp_slice_is(item.news.key, "n9"));
    assert_true(mp_slice_is(item.news.bytes, "what is new"));
    assert_false(mp_gossip_next(&g.items, &item));
}

static void a_ping_is_small(void **state)
{
    (void)state;
    struct mp_gossip g = message(MP_GOSSIP_PING);
    struct mp_gossip_writer w;
    mp_gossip_begin(&w, &g);
    assert_true(mp_gossip_end(&w).size <= 60);
}

static void what_does_not_fit_is_not_written(void **state)
{
    (void)state;
    struct mp_gossip g = message(MP_GOSSIP_GOSSIP);
    struct mp_gossip_member m = member(MP_GOSSIP_SUSPECT);
    struct mp_gossip_writer w;
    mp_gossip_begin(&w, &g);
    uint32_t count = 0;
    while (mp_gossip_put_member(&w, &m))
        count++;
    struct mp_slice bytes = mp_gossip_end(&w);
    assert_true(bytes.size <= MP_DATAGRAM_BYTES_MAX && count > 30);
    assert_int_equal(MP_OK, mp_gossip_read(bytes, &g));
    struct mp_gossip_item item;
    for (; mp_gossip_next(&g.items, &item); count--)
        assert_true(mp_slice_is(item.member.name, "n3"));
    assert_int_equal(0, count);
}

static struct mp_slice full(struct mp_gossip_writer *w)
{
    struct mp_gossip g = message(MP_GOSSIP_PING_REQ);
    struct mp_gossip_member m = member(MP_GOSSIP_DEAD);
    mp_gossip_begin(w, &g);
    for (int i = 0; i < 5; i++)
        assert_true(mp_gossip_put_member(w, &m));
    return mp_gossip_end(w);
}

static void whatever_is_cut_or_changed_is_refused(void **state)
{
    (void)state;
    struct mp_gossip_writer w;
    struct mp_slice bytes = full(&w);
    struct mp_gossip g;
    assert_int_equal(MP_OK, mp_gossip_read(bytes, &g));
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_equal(MP_ECORRUPT, mp_gossip_read(mp_slice_of(bytes.data, size), &g));
    for (size_t i = 0; i < bytes.size * 8; i++) {
        w.data[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(MP_ECORRUPT, mp_gossip_read(bytes, &g));
        w.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    uint8_t large[MP_DATAGRAM_BYTES_MAX + 1] = {0x9e, 'm', 'p', 1};
    assert_int_equal(MP_ETOOLARGE, mp_gossip_read(mp_slice_of(large, sizeof(large)), &g));
}

/* The checksum is no protection against whoever computes it. */
static void fields_out_of_range_are_refused(void **state)
{
    (void)state;
    struct mp_gossip_writer w;
    struct mp_gossip g = message(MP_GOSSIP_PING);
    struct mp_gossip got;
    g.name = mp_slice_str("not a name");
    mp_gossip_begin(&w, &g);
    assert_int_equal(MP_ECORRUPT, mp_gossip_read(mp_gossip_end(&w), &got));
    g = message(MP_GOSSIP_PING);
    g.generation = 0;
    mp_gossip_begin(&w, &g);
    assert_int_equal(MP_ECORRUPT, mp_gossip_read(mp_gossip_end(&w), &got));
    g = message(MP_GOSSIP_PING);
    g.sender.size = 5;
    mp_gossip_begin(&w, &g);
    assert_int_equal(MP_ECORRUPT, mp_gossip_read(mp_gossip_end(&w), &got));
    g = message(MP_GOSSIP_GOSSIP);
    struct mp_gossip_member m = member(MP_GOSSIP_ALIVE);
    m.name = mp_slice_str("");
    mp_gossip_begin(&w, &g);
    assert_true(mp_gossip_put_member(&w, &m));
    assert_int_equal(MP_ECORRUPT, mp_gossip_read(mp_gossip_end(&w), &got));
    struct mp_rng r;
    mp_rng_init(&r, 7);
    uint32_t accepted = 0;
    for (int i = 0; i < 200000; i++) { /* random bytes behind a good checksum */
        g = message((enum mp_gossip_kind)(1 + mp_rng_below(&r, 7)));
        mp_gossip_begin(&w, &g);
        size_t tail = (size_t)mp_rng_below(&r, 40);
        for (size_t k = 0; k < tail; k++)
            w.data[w.size++] = (uint8_t)mp_rng_below(&r, 8);
        accepted += mp_gossip_read(mp_gossip_end(&w), &got) == MP_OK;
    }
    assert_true(accepted < 100000);
}

static void entries_are_bare_items(void **state)
{
    (void)state;
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_buf out;
    mp_buf_init(&out, &alloc, 0);
    struct mp_gossip_member m = member(MP_GOSSIP_LEFT);
    for (int i = 0; i < 100; i++)
        assert_int_equal(MP_OK, mp_gossip_append(&out, &m));
    assert_int_equal(MP_OK, mp_gossip_check(mp_buf_slice(&out)));
    assert_int_equal(MP_ECORRUPT, mp_gossip_check(mp_slice_of(out.data, out.size - 1)));
    struct mp_slice items = mp_buf_slice(&out);
    struct mp_gossip_item item;
    int count = 0;
    while (mp_gossip_next(&items, &item))
        count++;
    assert_int_equal(100, count);
    memory.fail_at = memory.count;
    size_t size = out.size;
    while (mp_gossip_append(&out, &m) == MP_OK)
        size = out.size;
    assert_int_equal(size, out.size);
    mp_buf_fini(&out);
    assert_int_equal(0, memory.live_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_is_read_as_it_was_put),
        cmocka_unit_test(items_are_read_as_they_were_put),
        cmocka_unit_test(a_ping_is_small),
        cmocka_unit_test(what_does_not_fit_is_not_written),
        cmocka_unit_test(whatever_is_cut_or_changed_is_refused),
        cmocka_unit_test(fields_out_of_range_are_refused),
        cmocka_unit_test(entries_are_bare_items),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
