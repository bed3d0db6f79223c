#include "spec/c/core/membership/net.h"
#include "src/wire/gossip.h"

static struct mp_member_info seen(uint32_t place, const char *name)
{
    struct mp_member_info info = {.via = MP_MEMBER_NONE};
    uint32_t n = mp_membership_find(net.nodes[place].m, mp_slice_str(name));
    assert_int_not_equal(MP_MEMBER_NONE, n);
    assert_true(mp_membership_get(net.nodes[place].m, n, &info));
    return info;
}

static bool is_known(uint32_t place, const char *name)
{
    return mp_membership_find(net.nodes[place].m, mp_slice_str(name)) != MP_MEMBER_NONE;
}

static void cut_groups(uint32_t count, uint32_t border, bool is_cut)
{
    for (uint32_t a = 0; a < count; a++)
        for (uint32_t b = 0; b < count; b++)
            if ((a < border) != (b < border))
                net.cut[a][b] = is_cut;
}

static void forty_nodes_meet(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(40);
    mp_duration took = net_until_all_see(40, MP_SECONDS(5));
    print_message("# 40 nodes met in %llu ms\n", (unsigned long long)(took / MP_MS(1)));
    assert_true(took <= MP_MS(800));
    net_run(MP_SECONDS(5));
    assert_true(net_all_see(40));
    for (uint32_t i = 1; i < 40; i++)
        assert_int_equal(0, net_differing(0, i));
    assert_int_equal(0, net.false_deaths);
    net_close();
}

static void an_idle_cluster_is_quiet(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(60);
    net_run(MP_SECONDS(20));
    for (uint32_t i = 0; i < 60; i++)
        net.nodes[i].sent_bytes = net.nodes[i].syncs = 0;
    net_run(MP_SECONDS(30));
    uint64_t sum = 0;
    uint32_t syncs = 0;
    for (uint32_t i = 0; i < 60; i++) {
        sum += net.nodes[i].sent_bytes;
        syncs += net.nodes[i].syncs;
    }
    print_message("# %llu bytes a node and second\n", (unsigned long long)(sum / 60 / 30));
    assert_true(sum / 60 / 30 <= 1300);
    assert_in_range(syncs, 60 * 25, 60 * 35);
    net_close();
}

static int by_size(const void *a, const void *b)
{
    mp_duration x = *(const mp_duration *)a;
    mp_duration y = *(const mp_duration *)b;
    return x < y ? -1 : x > y;
}

static void crashes_are_found_in_time(void **state)
{
    (void)state;
    enum { NODES = 100, CRASHES = 50 };
    mp_duration took[CRASHES];
    net_open(net_seed());
    net_cluster(NODES);
    net_run(MP_SECONDS(8));
    assert_true(net_all_see(NODES));
    uint64_t generation[NODES] = {0};
    for (uint32_t i = 0; i < CRASHES; i++) {
        net_run(MP_MS(1000) + mp_rng_below(&net.rng, MP_MS(500)));
        uint32_t place = 1 + (uint32_t)mp_rng_below(&net.rng, NODES - 1);
        char name[24];
        snprintf(name, sizeof(name), "n%u", place);
        net_crash(place);
        took[i] = net_until_listed(name, MP_MEMBER_DEAD, MP_SECONDS(10));
        assert_true(took[i] != MP_NEVER);
        net_start(place, name, 2 + ++generation[place]);
        net_join(place, 0);
        assert_true(net_until_all_see(NODES, MP_SECONDS(10)) != MP_NEVER);
    }
    qsort(took, CRASHES, sizeof(*took), by_size);
    print_message("# found dead by all: p50 %llu ms, max %llu ms\n",
                  (unsigned long long)(took[CRASHES / 2] / MP_MS(1)),
                  (unsigned long long)(took[CRASHES - 1] / MP_MS(1)));
    assert_true(took[CRASHES / 2] <= MP_MS(1500));
    assert_true(took[CRASHES - 1] <= MP_SECONDS(3));
    assert_int_equal(0, net.false_deaths);
    net_close();
}

static void a_crash_is_found_where_nobody_can_help(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        net_open(net_seed() + i);
        net_cluster(2);
        net_run(MP_SECONDS(5));
        net_crash(1);
        assert_true(net_until_listed("n1", MP_MEMBER_DEAD, MP_SECONDS(10)) <= MP_SECONDS(2));
        net_close();
    }
}

static void most_die_at_once_and_are_found(void **state)
{
    (void)state;
    mp_duration longest = 0;
    for (uint32_t i = 0; i < 40; i++) {
        net_open(net_seed() + i);
        net_cluster(3);
        net_run(MP_SECONDS(5) + mp_rng_below(&net.rng, MP_MS(500)));
        net_crash(1);
        net_crash(2);
        mp_duration took = net_until_listed("n1", MP_MEMBER_DEAD, MP_SECONDS(10)) +
                           net_until_listed("n2", MP_MEMBER_DEAD, MP_SECONDS(10));
        longest = took > longest ? took : longest;
        net_close();
    }
    print_message("# both found dead in at most %llu ms\n",
                  (unsigned long long)(longest / MP_MS(1)));
    assert_true(longest <= MP_SECONDS(3));
}

static void loss_kills_nobody(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(30);
    net_run(MP_SECONDS(3));
    net.loss_percent = 10;
    net_run(MP_SECONDS(600));
    assert_int_equal(0, net.false_deaths);
    assert_true(net_all_see(30));
    net_close();
}

static void slow_nodes_kill_no_healthy_one(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(50);
    net_run(MP_SECONDS(5));
    for (uint32_t i = 10; i < 14; i++)
        net.nodes[i].slow = MP_SECONDS(3);
    net_run(MP_SECONDS(120));
    assert_int_equal(0, net.false_deaths);
    for (uint32_t i = 10; i < 14; i++)
        net.nodes[i].slow = 0;
    assert_true(net_until_all_see(50, MP_SECONDS(20)) != MP_NEVER);
    net_close();
}

static void a_partition_heals(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{20, 10}, {20, 1}, {20, 17}, {2, 1}, {5, 2}};
    for (uint32_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        uint32_t count = shapes[i][0];
        uint32_t border = shapes[i][1];
        net_open(net_seed() + i);
        net_cluster(count);
        net_run(MP_SECONDS(5));
        cut_groups(count, border, true);
        net_run(MP_SECONDS(300));
        assert_int_equal(border, mp_membership_live_count(net.nodes[0].m));
        assert_int_equal(count - border, mp_membership_live_count(net.nodes[count - 1].m));
        assert_int_equal(0, net.false_deaths);
        cut_groups(count, border, false);
        mp_duration took = net_until_all_see(count, MP_SECONDS(20));
        print_message("# %u | %u healed in %llu ms\n", border, count - border,
                      (unsigned long long)(took / MP_MS(1)));
        assert_true(took <= MP_SECONDS(10));
        net_run(MP_SECONDS(5));
        assert_true(net_all_see(count));
        net_close();
    }
}

static void who_leaves_is_not_called_dead(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(20);
    net_run(MP_SECONDS(5));
    net_leave(7);
    assert_true(net_until_listed("n7", MP_MEMBER_LEFT, MP_SECONDS(2)) != MP_NEVER);
    assert_true(mp_membership_deadline(net.nodes[7].m) == MP_NEVER);
    net_crash(7);
    net_run(MP_SECONDS(30));
    assert_true(net_all_list("n7", MP_MEMBER_LEFT));
    net_start(7, "n7", 2);
    net_join(7, 3);
    assert_true(net_until_all_see(20, MP_SECONDS(5)) != MP_NEVER);
    net_close();
}

static void what_is_forgotten_stays_so(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(12);
    net_run(MP_SECONDS(5));
    net_crash(5);
    assert_true(net_until_listed("n5", MP_MEMBER_DEAD, MP_SECONDS(5)) != MP_NEVER);
    net_run(MP_SECONDS(2));
    cut_groups(12, 1, true); /* the first keeps a stale copy */
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_FORGET, .name = mp_slice_str("n9")};
    net_step(8, &ev); /* alive: refused */
    assert_true(is_known(8, "n9"));
    ev.name = mp_slice_str("n5");
    net_step(8, &ev);
    net_run(MP_SECONDS(10));
    assert_false(is_known(8, "n5"));
    assert_false(is_known(11, "n5"));
    assert_int_equal(1, net.nodes[11].gone);
    assert_true(is_known(0, "n5"));
    cut_groups(12, 1, false);
    net_run(MP_SECONDS(20));
    for (uint32_t i = 0; i < 12; i++)
        if (i != 5)
            assert_false(is_known(i, "n5"));
    net_start(5, "n5", 1); /* it comes back with the number that was forgotten */
    net_join(5, 2);
    assert_true(net_until_all_see(12, MP_SECONDS(5)) != MP_NEVER);
    assert_int_equal(2, net.nodes[5].persisted);
    net_close();
}

static void a_name_whose_holder_answers_is_refused(void **state)
{
    (void)state;
    for (uint64_t generation = 1; generation <= 7; generation += 3) {
        net_open(net_seed() + generation);
        net_cluster(8);
        net_run(MP_SECONDS(4));
        net_crash(4);
        net_start(4, "n4", 4);
        net_join(4, 0);
        net_run(MP_SECONDS(5));
        net_start(20, "n4", generation);
        net_join(20, 1);
        net_run(MP_SECONDS(2));
        assert_true(net.nodes[20].is_taken);
        struct mp_address holder = net_address(4);
        assert_true(mp_address_equal(&holder, &net.nodes[20].taken_by));
        net_crash(20);
        net_run(MP_SECONDS(5));
        assert_false(net.nodes[4].is_taken);
        assert_true(net_all_see(8));
        for (uint32_t i = 0; i < 8; i++) {
            struct mp_member_info info = seen(i, "n4");
            assert_true(mp_address_equal(&holder, &info.addr));
        }
        net_close();
    }
}

/* A claimant of a higher generation is refused by whoever knows the holder; the holder, which hears
 * of it too, must not end for one that ends. */
static void a_holder_does_not_end_for_a_provisional_claimant(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        net_open(net_seed() + i);
        net_cluster(6);
        net_run(MP_SECONDS(4));
        /* One does not know the holder any more, and tells the others of the claimant. */
        net_crash(5);
        net_start(5, "n5", 2);
        net_join(5, 1);
        net_start(20, "n4", 7);
        net_join(20, 5);
        net_run(MP_SECONDS(5));
        assert_true(net.nodes[20].is_taken);
        assert_false(net.nodes[4].is_taken);
        net_close();
    }
}

/* A datagram that was late, or is played again. */
static void what_an_earlier_boot_was_refused_does_not_end_a_later_one(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(3);
    net_start(20, "n9", 6);
    net_join(20, 0);
    static const struct {
        const char *target;
        uint64_t claimed;
        bool is_meant;
    } refusals[] = {{"n8", 6, false}, {"n9", 5, false}, {"n9", 6, true}};
    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
        const struct mp_gossip refused = {.kind = MP_GOSSIP_REFUSED,
                                          .cluster = mp_slice_hash(mp_slice_str("default"), 0),
                                          .name = mp_slice_str("n1"),
                                          .generation = 1,
                                          .sender = net_address(1),
                                          .target = mp_slice_str(refusals[i].target),
                                          .claimed = refusals[i].claimed,
                                          .holder_generation = 3,
                                          .addr = net_address(2)};
        struct mp_gossip_writer w;
        mp_gossip_begin(&w, &refused);
        const struct mp_membership_event ev = {
            .kind = MP_MEMBERSHIP_DATAGRAM,
            .datagram = {.from = net_address(1), .bytes = mp_gossip_end(&w)}};
        net_step(20, &ev);
        assert_int_equal(refusals[i].is_meant, net.nodes[20].is_taken);
    }
    net_close();
}

/* Each half had one, of the same boot number, and buried it; then all meet. */
static void of_two_dead_namesakes_all_know_the_same(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(8);
    net_run(MP_SECONDS(5));
    cut_groups(8, 4, true);
    for (uint32_t place = 20; place < 22; place++)
        for (uint32_t other = 0; other < 8; other++)
            net.cut[place][other] = net.cut[other][place] = (place == 20) != (other < 4);
    net.cut[20][21] = net.cut[21][20] = true;
    net_run(MP_SECONDS(10));
    for (uint32_t place = 20; place < 22; place++) {
        net_start(place, "x", 5);
        net_join(place, place == 20 ? 1 : 6);
    }
    net_run(MP_SECONDS(5));
    net_crash(20);
    net_crash(21);
    net_run(MP_SECONDS(10));
    const struct mp_member_info here = seen(0, "x");
    const struct mp_member_info there = seen(7, "x");
    assert_true(here.state == MP_MEMBER_DEAD && there.state == MP_MEMBER_DEAD);
    assert_false(mp_address_equal(&here.addr, &there.addr));
    cut_groups(8, 4, false);
    net_run(MP_SECONDS(20));
    const struct mp_address lower = net_address(20);
    for (uint32_t i = 0; i < 8; i++) {
        struct mp_member_info info = seen(i, "x");
        assert_true(mp_address_equal(&lower, &info.addr));
        assert_int_equal(0, net_differing(0, i));
    }
    net_close();
}

/* Each has half of the cluster for itself; then all meet. */
static void of_two_settled_holders_one_ends(void **state)
{
    (void)state;
    for (uint64_t generation = 1; generation <= 9; generation += 4) {
        net_open(net_seed() + generation);
        net_cluster(8);
        net_run(MP_SECONDS(4));
        net_crash(7);
        net_start(7, "n7", 5);
        net_join(7, 6);
        net_run(MP_SECONDS(4));
        cut_groups(NET_MAX, 20, true);
        for (uint32_t i = 20; i < 23; i++) {
            char name[24];
            snprintf(name, sizeof(name), "m%u", i);
            net_start(i, i == 22 ? "n7" : name, i == 22 ? generation : 1);
            net_join(i, 20);
        }
        net_run(MP_SECONDS(5));
        assert_false(net.nodes[7].is_taken || net.nodes[22].is_taken);
        cut_groups(NET_MAX, 20, false);
        net_join(20, 0);
        net_run(MP_SECONDS(8));
        assert_true(net.nodes[7].is_taken != net.nodes[22].is_taken);
        assert_int_equal(generation > 5, net.nodes[7].is_taken);
        net_close();
    }
}

static void a_name_whose_holder_is_silent_changes_hands(void **state)
{
    (void)state;
    for (uint64_t generation = 1; generation <= 7; generation += 3) {
        net_open(net_seed() + generation);
        net_cluster(8);
        net_run(MP_SECONDS(4));
        net_crash(4);
        net_start(4, "n4", 4);
        net_join(4, 0);
        net_run(MP_SECONDS(5));
        net_crash(4);
        net_start(20, "n4", generation); /* at once: nobody has missed the old one yet */
        net_join(20, 1);
        assert_true(net_until_all_see(8, MP_SECONDS(10)) != MP_NEVER);
        net_run(MP_SECONDS(10));
        assert_true(net_all_see(8));
        assert_false(net.nodes[20].is_taken);
        struct mp_address there = net_address(20);
        for (uint32_t i = 0; i < 8; i++) {
            if (i == 4)
                continue;
            struct mp_member_info info = seen(i, "n4");
            assert_true(mp_address_equal(&there, &info.addr));
            assert_true(info.generation > 4);
        }
        net_close();
    }
}

static void an_old_holder_that_was_replaced_hears_so(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(8);
    net_run(MP_SECONDS(5));
    for (uint32_t i = 0; i < NET_MAX; i++)
        if (i != 4)
            net.cut[4][i] = net.cut[i][4] = true;
    net_run(MP_SECONDS(10));
    net_start(20, "n4", 1);
    net_join(20, 1);
    net_run(MP_SECONDS(5));
    assert_int_equal(2, net.nodes[20].persisted);
    memset(net.cut, 0, sizeof(net.cut));
    net_run(MP_SECONDS(12));
    assert_true(net.nodes[4].is_taken);
    assert_false(net.nodes[20].is_taken);
    net_close();
}

static void a_restart_is_seen_at_once(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(10);
    net_run(MP_SECONDS(4));
    net_crash(3);
    net_start(3, "n3", 2);
    net_join(3, 0);
    net_run(MP_MS(800));
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(2, seen(i, "n3").generation);
    net_crash(3);
    assert_true(net_until_listed("n3", MP_MEMBER_DEAD, MP_SECONDS(5)) != MP_NEVER);
    net_start(30, "n3", 3); /* another address */
    net_join(30, 0);
    assert_true(net_until_all_see(10, MP_SECONDS(3)) != MP_NEVER);
    struct mp_address there = net_address(30);
    struct mp_member_info info = seen(5, "n3");
    assert_true(mp_address_equal(&there, &info.addr));
    net_close();
}

/* What a place says of all its members. */
static uint64_t all_of(uint32_t place)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < mp_membership_end(net.nodes[place].m); i++) {
        struct mp_member_info info;
        if (!mp_membership_get(net.nodes[place].m, i, &info))
            continue;
        const uint64_t parts[] = {hash,
                                  i,
                                  (uint64_t)info.state,
                                  info.generation,
                                  info.incarnation,
                                  info.flags,
                                  mp_slice_hash(info.name, 1),
                                  mp_slice_hash(mp_address_slice(&info.addr), 1)};
        hash = mp_slice_hash(mp_slice_of(parts, sizeof(parts)), 1);
    }
    return hash;
}

static void what_changes_is_counted(void **state)
{
    (void)state;
    uint32_t counted[6] = {0};
    uint64_t said[6] = {0};
    uint32_t still = 0;
    uint32_t changed = 0;
    net_open(net_seed());
    net_cluster(6);
    for (uint32_t i = 0; i < 3000; i++) {
        if (i == 1000)
            net_crash(3);
        if (i == 2000) {
            net_start(3, "n3", 2);
            net_join(3, 0);
        }
        net_run(MP_MS(5));
        for (uint32_t k = 0; k < 6; k++) {
            uint32_t now = net.nodes[k].m ? mp_membership_changes(net.nodes[k].m) : 0;
            uint64_t all = now != 0 ? all_of(k) : 0;
            assert_true(now != counted[k] || all == said[k]);
            still += now == counted[k];
            changed += all != said[k];
            counted[k] = now;
            said[k] = all;
        }
    }
    assert_true(changed >= 6 + 5 + 5);
    assert_true(still > 17000);
    net_close();
}

/* No link helps: whoever knows the higher number refuses those of the lower one. */
static void a_restart_with_a_lower_number_hears_of_the_higher_one(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(4);
    net_run(MP_SECONDS(4));
    net_crash(3);
    net_start(3, "n3", 900);
    net_join(3, 0);
    net_run(MP_SECONDS(4));
    net.is_unlinked = true;
    net_crash(3);
    net_start(3, "n3", 7); /* at once: nobody has missed it */
    net_run(MP_SECONDS(3));
    assert_int_equal(901, net.nodes[3].persisted);
    assert_true(net_all_see(4));
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(901, seen(i, "n3").generation);
    net_close();
}

static void another_name_at_an_address_is_not_the_old_one(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(10);
    net_run(MP_SECONDS(4));
    net_crash(3);
    net_start(3, "other", 1);
    net_join(3, 0);
    assert_true(net_until_listed("n3", MP_MEMBER_DEAD, MP_SECONDS(6)) != MP_NEVER);
    net_run(MP_SECONDS(20));
    assert_true(net_all_list("n3", MP_MEMBER_DEAD));
    assert_true(net_all_list("other", MP_MEMBER_ALIVE));
    net_close();
}

static void the_ends_of_a_line_reach_each_other_through_the_middle(void **state)
{
    (void)state;
    net_open(net_seed());
    net_start(0, "n0", 1);
    net_start(1, "n1", 1);
    net_start(2, "n2", 1);
    net.cut[0][2] = net.cut[2][0] = true;
    net_join(0, 1);
    net_join(2, 1);
    net_run(MP_SECONDS(4));
    assert_true(net_all_see(3));
    uint32_t middle = mp_membership_find(net.nodes[0].m, mp_slice_str("n1"));
    assert_int_equal(middle, seen(0, "n2").via);
    assert_int_equal(MP_MEMBER_NONE, seen(0, "n1").via);
    assert_int_not_equal(MP_MEMBER_NONE, seen(2, "n0").via);
    net_run(MP_SECONDS(120));
    assert_true(net_all_see(3));
    assert_int_equal(middle, seen(0, "n2").via);
    net.cut[0][2] = net.cut[2][0] = false;
    net_run(MP_SECONDS(3));
    assert_int_equal(MP_MEMBER_NONE, seen(0, "n2").via);
    assert_int_equal(MP_MEMBER_NONE, seen(2, "n0").via);
    net_close();
}

static void a_helper_that_dies_is_replaced(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(5);
    net_run(MP_SECONDS(4));
    net.cut[0][4] = true; /* one way */
    net_run(MP_SECONDS(5));
    assert_true(net_all_see(5));
    struct mp_member_info helper;
    uint32_t via = seen(0, "n4").via;
    assert_int_not_equal(MP_MEMBER_NONE, via);
    assert_true(mp_membership_get(net.nodes[0].m, via, &helper));
    net_crash(net_place(&helper.addr));
    net_run(MP_SECONDS(6));
    assert_true(net_all_see(4));
    uint32_t other = seen(0, "n4").via;
    assert_int_not_equal(MP_MEMBER_NONE, other);
    assert_int_not_equal(via, other);
    net_close();
}

static void datagrams_may_be_cut_while_links_work(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(4);
    net_run(MP_SECONDS(4));
    net.udp_cut[0][3] = net.udp_cut[3][0] = true;
    net_run(MP_SECONDS(30));
    assert_true(net_all_see(4));
    assert_int_equal(0, net.false_deaths);
    assert_int_equal(MP_MEMBER_NONE, seen(0, "n3").via);
    net_close();
}

static void a_stopped_process_accuses_nobody(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(15);
    net_run(MP_SECONDS(5));
    net.nodes[6].stopped = net.now + MP_SECONDS(60);
    net_run(MP_MS(59900));
    uint64_t before = net.false_deaths;
    assert_int_equal(MP_MEMBER_DEAD, seen(0, "n6").state);
    mp_duration took = net_until_all_see(15, MP_SECONDS(15));
    assert_true(took != MP_NEVER);
    net_run(MP_SECONDS(10));
    assert_true(net_all_see(15));
    assert_int_equal(before, net.false_deaths);
    assert_true(seen(0, "n6").incarnation > 0);
    net_close();
}

static void news_and_load_reach_everybody_once(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(30);
    net_run(MP_SECONDS(4));
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_NEWS};
    ev.news.key = mp_slice_str("n3");
    ev.news.bytes = mp_slice_str("first");
    net_step(3, &ev);
    net_run(MP_SECONDS(2));
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(i == 3 ? 0 : 1, net.nodes[i].heard);
    ev.news.bytes = mp_slice_str("second");
    net_step(3, &ev);
    ev.news.bytes = mp_slice_str("third");
    net_step(3, &ev);
    ev.kind = MP_MEMBERSHIP_LOAD;
    ev.load = 77;
    net_step(3, &ev);
    net_run(MP_SECONDS(20));
    for (uint32_t i = 0; i < 30; i++)
        if (i != 3)
            assert_in_range(net.nodes[i].heard, 2, 3);
    uint32_t loads = 0;
    for (uint32_t i = 0; i < 30; i++)
        loads += i != 3 && seen(i, "n3").load == 77;
    assert_true(loads >= 25);
    net_close();
}

static void news_of_itself_come_from_itself_alone(void **state)
{
    (void)state;
    net_open(net_seed());
    net_cluster(3);
    net_run(MP_SECONDS(4));
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_NEWS};
    ev.news.key = mp_slice_str("n0");
    ev.news.bytes = mp_slice_str("a copy of the past");
    net_step(1, &ev);
    net_run(MP_SECONDS(2));
    assert_int_equal(0, net.nodes[0].heard);
    assert_int_equal(1, net.nodes[2].heard);
    net_close();
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    uint64_t digest[2];
    uint64_t seed = net_seed();
    for (int i = 0; i < 2; i++) {
        net_open(seed);
        net.loss_percent = 5;
        net_cluster(20);
        net_run(MP_SECONDS(5));
        net_crash(4);
        cut_groups(20, 8, true);
        net_run(MP_SECONDS(20));
        cut_groups(20, 8, false);
        net_run(MP_SECONDS(10));
        digest[i] = net.digest;
        net_close();
    }
    assert_true(digest[0] == digest[1]);
}

static void ten_thousand_members_take_48_bytes_each(void **state)
{
    (void)state;
    net_open(net_seed());
    net_start(0, "n0", 1);
    struct mp_membership *m = net.nodes[0].m;
    for (uint32_t i = 1; i < 10000; i++) {
        char name[24];
        snprintf(name, sizeof(name), "n%05u", i);
        struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_CONTACT,
                                         .contact = {.name = mp_slice_str(name),
                                                     .generation = 1700000000000u + i,
                                                     .addr = net_address(i)}};
        struct mp_membership_effects out;
        assert_int_equal(MP_OK, mp_membership_step(m, net.now, &ev, &out));
    }
    assert_int_equal(10000, mp_membership_live_count(m));
    print_message("# %zu bytes a member with all news queued\n", mp_membership_bytes(m));
    assert_true(mp_membership_bytes(m) <= 48);
    net_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forty_nodes_meet),
        cmocka_unit_test(an_idle_cluster_is_quiet),
        cmocka_unit_test(crashes_are_found_in_time),
        cmocka_unit_test(a_crash_is_found_where_nobody_can_help),
        cmocka_unit_test(most_die_at_once_and_are_found),
        cmocka_unit_test(loss_kills_nobody),
        cmocka_unit_test(slow_nodes_kill_no_healthy_one),
        cmocka_unit_test(a_partition_heals),
        cmocka_unit_test(who_leaves_is_not_called_dead),
        cmocka_unit_test(what_is_forgotten_stays_so),
        cmocka_unit_test(a_name_whose_holder_answers_is_refused),
        cmocka_unit_test(a_holder_does_not_end_for_a_provisional_claimant),
        cmocka_unit_test(what_an_earlier_boot_was_refused_does_not_end_a_later_one),
        cmocka_unit_test(of_two_dead_namesakes_all_know_the_same),
        cmocka_unit_test(of_two_settled_holders_one_ends),
        cmocka_unit_test(a_name_whose_holder_is_silent_changes_hands),
        cmocka_unit_test(an_old_holder_that_was_replaced_hears_so),
        cmocka_unit_test(a_restart_is_seen_at_once),
        cmocka_unit_test(what_changes_is_counted),
        cmocka_unit_test(a_restart_with_a_lower_number_hears_of_the_higher_one),
        cmocka_unit_test(another_name_at_an_address_is_not_the_old_one),
        cmocka_unit_test(the_ends_of_a_line_reach_each_other_through_the_middle),
        cmocka_unit_test(a_helper_that_dies_is_replaced),
        cmocka_unit_test(datagrams_may_be_cut_while_links_work),
        cmocka_unit_test(a_stopped_process_accuses_nobody),
        cmocka_unit_test(news_and_load_reach_everybody_once),
        cmocka_unit_test(news_of_itself_come_from_itself_alone),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(ten_thousand_members_take_48_bytes_each),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
