/* Bad bytes, missing memory, planted defects, and everything at once. */
#include "spec/c/core/membership/net.h"

#include "src/base/defects.h"

static struct mp_member_info self_of(uint32_t place)
{
    struct mp_member_info info;
    assert_true(mp_membership_get(net.nodes[place].m, MP_MEMBER_SELF, &info));
    return info;
}

/* Nobody knows more of a node than that node has said: generation and incarnation are its own. */
static uint32_t overstated(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < NET_MAX; i++) {
        if (!net.nodes[i].m)
            continue;
        struct mp_member_info self = self_of(i);
        for (uint32_t j = 0; j < NET_MAX; j++) {
            struct mp_member_info info;
            if (!net.nodes[j].m || j == i)
                continue;
            uint32_t n = mp_membership_find(net.nodes[j].m, self.name);
            if (n == MP_MEMBER_NONE || !mp_membership_get(net.nodes[j].m, n, &info))
                continue;
            count += info.generation > self.generation ||
                     (info.generation == self.generation && info.incarnation > self.incarnation);
        }
    }
    return count;
}

static void garbage_and_replays_change_nothing(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(10);
    net_run(MP_SECONDS(3));
    net_crash(3);
    net_start(3, "n3", 2);
    net_join(3, 0);
    net_run(MP_SECONDS(5));
    uint64_t before[NET_MAX] = {0};
    for (uint32_t i = 0; i < 10; i++)
        before[i] = mp_membership_dropped(net.nodes[i].m);
    for (uint32_t i = 0; i < 4000; i++) {
        uint8_t bytes[1400];
        uint32_t k = (uint32_t)mp_rng_below(&net.rng, net.kept_count);
        size_t size = net.kept[k].size;
        memcpy(bytes, net.kept[k].bytes, size);
        uint32_t how = (uint32_t)mp_rng_below(&net.rng, 4);
        if (how == 1)
            size = (size_t)mp_rng_below(&net.rng, size);
        if (how == 2)
            bytes[mp_rng_below(&net.rng, size)] ^= (uint8_t)(1 + mp_rng_below(&net.rng, 255));
        if (how == 3) {
            size = (size_t)mp_rng_below(&net.rng, sizeof(bytes));
            for (size_t b = 0; b < size; b++)
                bytes[b] = (uint8_t)mp_rng_next(&net.rng);
        }
        net_post(NET_DATAGRAM, (uint32_t)mp_rng_below(&net.rng, 10), net.kept[k].from, net.now,
                 mp_slice_of(bytes, size));
        net_run(MP_MS(10));
    }
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < 10; i++)
        dropped += mp_membership_dropped(net.nodes[i].m) - before[i];
    assert_in_range(dropped, 2500, 3500);
    assert_true(net_all_see(10));
    assert_int_equal(0, net.false_deaths);
    assert_int_equal(0, overstated());
    for (uint32_t i = 0; i < 10; i++) {
        assert_false(net.nodes[i].is_taken);
        assert_int_equal(i == 3 ? 2 : 1, mp_membership_generation(net.nodes[i].m));
    }
    assert_true(net.largest <= MP_GOSSIP_BYTES_MAX);
    net_close();
}

static void another_cluster_is_not_heard(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(2);
    net_run(MP_SECONDS(2));
    struct net_node *n = &net.nodes[9];
    *n = (struct net_node){.woken = MP_NEVER, .name = "n9", .is_foreign = true};
    struct mp_membership_config cfg = {.name = mp_slice_str("n9"),
                                       .cluster = mp_slice_str("other"),
                                       .addr = net_address(9),
                                       .generation = 1,
                                       .members_max = 10};
    assert_int_equal(MP_OK, mp_membership_new(&n->m, &cfg, &net.alloc, 5));
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_START, .start = {.addr = cfg.addr}};
    net_step(9, &ev);
    ev.kind = MP_MEMBERSHIP_CONTACT; /* as if the link had not refused it */
    ev.contact.name = mp_slice_str("n0");
    ev.contact.generation = 1;
    ev.contact.addr = net_address(0);
    net_step(9, &ev);
    net_run(MP_SECONDS(5));
    assert_true(mp_membership_dropped(net.nodes[0].m) > 0);
    assert_int_equal(2, mp_membership_live_count(net.nodes[0].m));
    net_close();
}

static void a_node_does_not_join_itself(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(1);
    net_contact(0, 0);
    net_run(MP_SECONDS(5));
    assert_int_equal(1, mp_membership_live_count(net.nodes[0].m));
    assert_int_equal(1, mp_membership_generation(net.nodes[0].m));
    assert_false(net.nodes[0].is_taken);
    assert_int_equal(0, net.nodes[0].syncs);
    net_close();
}

static void a_list_of_many_is_bounded(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(2);
    net_run(MP_SECONDS(2));
    struct mp_buf out;
    mp_buf_init(&out, &net.alloc, 0);
    struct mp_membership_config cfg = {.name = mp_slice_str("big"),
                                       .cluster = mp_slice_str("default"),
                                       .addr = net_address(99),
                                       .generation = 1,
                                       .members_max = 60000};
    struct mp_membership *big = NULL;
    assert_int_equal(MP_OK, mp_membership_new(&big, &cfg, &net.alloc, 5));
    for (uint32_t i = 0; i < 40000; i++) {
        char name[24];
        snprintf(name, sizeof(name), "fake%u", i);
        struct mp_membership_event ev = {
            .kind = MP_MEMBERSHIP_CONTACT,
            .contact = {.name = mp_slice_str(name), .generation = 1, .addr = net_address(i)}};
        struct mp_membership_effects effects;
        assert_int_equal(MP_OK, mp_membership_step(big, net.now, &ev, &effects));
    }
    assert_int_equal(MP_OK, mp_membership_put_entries(big, UINT64_MAX, &out));
    mp_membership_free(big);
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_ENTRIES};
    ev.entries.bytes = mp_buf_slice(&out);
    net_step(1, &ev);
    mp_buf_fini(&out);
    assert_int_equal(20000, mp_membership_live_count(net.nodes[1].m)); /* members_max */
    assert_int_equal(1, net.nodes[1].logs);
    ev.entries.bytes = mp_slice_str("no entries at all");
    net_step(1, &ev);
    assert_int_equal(20000, mp_membership_live_count(net.nodes[1].m));
    net_close();
}

static void small_life(void)
{
    for (uint32_t i = 0; i < 5; i++) {
        char name[24];
        snprintf(name, sizeof(name), "n%u", i);
        if (net_try_start(i, name, 1) != MP_OK)
            continue;
        if (i != 0)
            net_join(i, 0);
    }
    net_run(MP_SECONDS(2));
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_NEWS};
    ev.news.key = mp_slice_str("n0");
    ev.news.bytes = mp_slice_str("something");
    if (net.nodes[0].m)
        net_step(0, &ev);
    if (net.nodes[4].m)
        net_crash(4);
    net.cut[0][1] = true;
    net_run(MP_SECONDS(4));
    net.cut[0][1] = false;
    ev = (struct mp_membership_event){.kind = MP_MEMBERSHIP_FORGET, .name = mp_slice_str("n4")};
    if (net.nodes[2].m)
        net_step(2, &ev);
    if (net.nodes[3].m && net_try_start(40, "n3", 3) == MP_OK)
        net_join(40, 0);
    net_run(MP_SECONDS(3));
    if (net.nodes[40].m)
        net_crash(40);
    net_run(MP_SECONDS(1));
}

static void no_failed_allocation_breaks_anything(void **state)
{
    (void)state;
    uint64_t seed = net_seed();
    size_t swept = 0;
    for (size_t n = 0;; n += 1 + n / 40) {
        net_open(seed);
        net.memory.fail_at = n;
        small_life();
        bool is_done = net.memory.count < n;
        net.memory.fail_at = SPEC_NEVER;
        for (uint32_t i = 0; i < 4; i++) {
            char name[24];
            snprintf(name, sizeof(name), "n%u", i);
            if (!net.nodes[i].m)
                net_start(i, name, 1);
            struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_START};
            ev.start.addr = net_address(i);
            net_step(i, &ev);
            if (i != 0)
                net_join(i, 0);
        }
        assert_true(net_until_all_see(4, MP_SECONDS(20)) != MP_NEVER);
        net_close();
        swept++;
        if (is_done)
            break;
    }
    print_message("# %zu points\n", swept);
    assert_true(swept > 20);
}

static void random_fault(uint32_t count, uint32_t *generations)
{
    uint32_t a = (uint32_t)mp_rng_below(&net.rng, count);
    uint32_t b = (uint32_t)mp_rng_below(&net.rng, count);
    char name[24];
    snprintf(name, sizeof(name), "n%u", a);
    switch (mp_rng_below(&net.rng, 10)) {
    case 0:
        net.cut[a][b] = a != b;
        break;
    case 1:
        net.cut[a][b] = net.cut[b][a] = a != b;
        break;
    case 2:
        memset(net.cut, 0, sizeof(net.cut));
        break;
    case 3:
        for (uint32_t i = 0; i < count * count; i++)
            net.cut[i / count][i % count] = (i / count < a) != (i % count < a);
        break;
    case 4:
        net.loss_percent = (uint32_t)mp_rng_below(&net.rng, 30);
        break;
    case 5:
        net.jitter = mp_rng_below(&net.rng, MP_MS(150)) + 1;
        break;
    case 6:
        if (net.nodes[a].m)
            net.nodes[a].slow = mp_rng_below(&net.rng, MP_SECONDS(3));
        break;
    case 7:
        if (net.nodes[a].m)
            net.nodes[a].stopped = net.now + mp_rng_below(&net.rng, MP_SECONDS(20));
        break;
    default:
        if (net.nodes[a].m) {
            uint64_t known = mp_membership_generation(net.nodes[a].m);
            generations[a] = (uint32_t)known;
            if (mp_rng_below(&net.rng, 3) == 0)
                net_leave(a);
            net_crash(a);
        } else {
            net_start(a, name, ++generations[a]);
            net_join(a, b);
        }
        break;
    }
}

static void whatever_happens_it_converges(void **state)
{
    (void)state;
    enum { NODES = 12, RUNS = 30 };
    uint64_t seed = net_seed();
    mp_duration longest = 0;
    for (uint64_t run = 0; run < RUNS; run++) {
        uint32_t generations[NODES] = {0};
        net_open(seed * 1000 + run);
        net_cluster(NODES);
        for (uint32_t i = 0; i < NODES; i++)
            generations[i] = 1;
        for (uint32_t i = 0; i < 60; i++) {
            random_fault(NODES, generations);
            net_run(mp_rng_below(&net.rng, MP_SECONDS(2)));
            assert_int_equal(0, overstated());
        }
        memset(net.cut, 0, sizeof(net.cut));
        net.loss_percent = 0;
        net.jitter = MP_MS(1);
        for (uint32_t i = 0; i < NODES; i++) {
            char name[24];
            snprintf(name, sizeof(name), "n%u", i);
            net.nodes[i].slow = 0;
            net.nodes[i].stopped = net.now < net.nodes[i].stopped ? net.now + MP_MS(1) : 0;
            assert_false(net.nodes[i].is_taken);
            if (!net.nodes[i].m)
                net_start(i, name, ++generations[i]);
        }
        net_run(MP_SECONDS(22)); /* those that were stopped go on */
        for (uint32_t i = 1; i < NODES; i++)
            if (generations[i] > 1 || generations[0] > 1 ||
                mp_membership_live_count(net.nodes[i].m) == 1)
                net_join(i, 0); /* who was started anew, or is alone, tries its seeds for ever */
        mp_duration took = net_until_all_see(NODES, MP_SECONDS(30));
        if (took == MP_NEVER)
            print_message("# run %llu\n", (unsigned long long)run);
        assert_true(took != MP_NEVER);
        longest = took > longest ? took : longest;
        uint64_t deaths = net.false_deaths;
        net_run(MP_SECONDS(10));
        assert_int_equal(deaths, net.false_deaths);
        for (uint32_t i = 1; i < NODES; i++)
            assert_int_equal(0, net_differing(0, i));
        assert_int_equal(0, overstated());
        net_close();
    }
    print_message("# at most %llu ms after the last fault\n",
                  (unsigned long long)(longest / MP_MS(1)));
}

static void open_with(enum mp_defect defect)
{
    net_open(net_seed());
    net.defects = (uint64_t)1 << defect;
    net_cluster(8);
    net_run(MP_SECONDS(3));
}

static void cut_off(uint32_t place, bool is_cut)
{
    for (uint32_t i = 0; i < 8; i++)
        if (i != place)
            net.cut[i][place] = net.cut[place][i] = is_cut;
}

/* Each planted defect breaks what it is meant to break. */
static void defects_show(void **state)
{
    (void)state;
    static const enum mp_defect stay_apart[] = {MP_DEFECT_REFUTE_WITHOUT_INCARNATION,
                                                MP_DEFECT_NEVER_REDIAL};
    for (int i = 0; i < 2; i++) {
        open_with(stay_apart[i]);
        cut_off(5, true);
        net_run(MP_SECONDS(60));
        cut_off(5, false);
        assert_true(net_until_all_see(8, MP_SECONDS(30)) == MP_NEVER);
        net_close();
    }
    open_with(MP_DEFECT_SUSPECT_IS_DEAD);
    net.nodes[5].slow = MP_SECONDS(3);
    net_run(MP_SECONDS(30));
    assert_true(net.false_deaths > 0);
    net_close();

    open_with(MP_DEFECT_FORGET_DEAD);
    net_crash(5);
    net_run(MP_SECONDS(10));
    assert_int_equal(99, net_state_seen(0, "n5"));
    net_close();

    open_with(MP_DEFECT_REVIVE_OTHERS);
    net.cut[0][5] = net.cut[1][5] = net.cut[5][0] = net.cut[5][1] = true;
    net_crash(5);
    net_run(MP_SECONDS(2));
    net_start(5, "n5", 1);
    uint32_t seen = overstated();
    assert_true(seen > 0);
    net_close();

    open_with(MP_DEFECT_IGNORE_GENERATION);
    net_crash(5);
    net_start(5, "n5", 2);
    net_join(5, 1);
    net_run(MP_SECONDS(1));
    bool is_back = false;
    for (uint32_t i = 0; i < net.kept_count; i++) {
        net_post(NET_DATAGRAM, 0, net.kept[i].from, net.now,
                 mp_slice_of(net.kept[i].bytes, net.kept[i].size));
        net_run(MP_US(1));
        struct mp_member_info info;
        uint32_t n = mp_membership_find(net.nodes[0].m, mp_slice_str("n5"));
        is_back = is_back || (n != MP_MEMBER_NONE && mp_membership_get(net.nodes[0].m, n, &info) &&
                              info.generation == 1);
    }
    assert_true(is_back);
    net_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_and_replays_change_nothing),
        cmocka_unit_test(another_cluster_is_not_heard),
        cmocka_unit_test(a_node_does_not_join_itself),
        cmocka_unit_test(a_list_of_many_is_bounded),
        cmocka_unit_test(no_failed_allocation_breaks_anything),
        cmocka_unit_test(whatever_happens_it_converges),
        cmocka_unit_test(defects_show),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
