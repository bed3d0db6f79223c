/* Kept runs: in which order they go, what is written when, and what a slow disk or a lack of memory
 * costs. Random lives are compared with a small model of what there should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "spec/support/alloc.h"
#include "src/base/rng.h"
#include "src/core/archive/archive.h"

#define START_MS 1700000000000

struct world {
    struct spec_alloc counted;
    struct mp_alloc alloc;
    struct mp_archive *archive;
    struct mp_archive_effects out;
    mp_time now;
    int64_t wall_ms;
    struct mp_archive_effect last; /* the last effect of the last step */
    char kinds[512];               /* of its effects: w (KEEP), p (KEEP_PART), f (FORGET) */
};

static struct world *world_of(uint32_t count, uint64_t bytes, uint64_t age_ms)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    const struct mp_archive_config cfg = {
        .count_max = count, .bytes_max = bytes, .age_ms_max = age_ms};
    w->counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    w->alloc = spec_alloc_of(&w->counted);
    w->now = MP_SECONDS(1);
    w->wall_ms = START_MS;
    assert_int_equal(mp_archive_new(&w->archive, &cfg, &w->alloc), MP_OK);
    return w;
}

static void end(struct world *w)
{
    mp_archive_free(w->archive);
    assert_int_equal(w->counted.live_bytes, 0);
    free(w);
}

static enum mp_err step(struct world *w, struct mp_archive_event ev)
{
    ev.wall_ms = w->wall_ms;
    enum mp_err err = mp_archive_step(w->archive, w->now, &ev, &w->out);
    size_t shown = 0;
    for (uint32_t i = 0; i < w->out.count; i++) {
        const struct mp_archive_effect *e = &w->out.items[i];
        w->last = *e;
        if (shown + 1 < sizeof(w->kinds))
            w->kinds[shown++] = "wpf"[e->kind];
    }
    w->kinds[shown] = '\0';
    return err;
}

static struct mp_slice id_of(uint32_t number)
{
    static char ids[4][MP_RUN_ID_BYTES + 1];
    static uint32_t next;
    char *id = ids[next++ % 4];
    snprintf(id, MP_RUN_ID_BYTES + 1, "RUN%023u", number);
    return mp_slice_of(id, MP_RUN_ID_BYTES);
}

static struct mp_archive_event put_event(const struct world *w, uint32_t number, bool goes_on,
                                         struct mp_slice head, struct mp_slice body)
{
    return (struct mp_archive_event){.kind = MP_ARCHIVE_PUT,
                                     .put = {.run_id = id_of(number),
                                             .started_ms = w->wall_ms,
                                             .goes_on = goes_on,
                                             .head = head,
                                             .body = body}};
}

static void put(struct world *w, uint32_t number, bool goes_on, const char *head, const char *body)
{
    assert_int_equal(step(w, put_event(w, number, goes_on, mp_slice_str(head), mp_slice_str(body))),
                     MP_OK);
}

/* A body of so many bytes. */
static void put_large(struct world *w, uint32_t number, size_t size)
{
    uint8_t *bytes = (uint8_t *)malloc(size);
    memset(bytes, (int)number, size);
    assert_int_equal(
        step(w, put_event(w, number, false, mp_slice_str("h"), mp_slice_of(bytes, size))), MP_OK);
    free(bytes);
}

static enum mp_err put_part(struct world *w, uint32_t number, const char *name, size_t size,
                            bool is_progress)
{
    uint8_t *bytes = (uint8_t *)calloc(1, size + 1);
    const struct mp_archive_event ev = {.kind = MP_ARCHIVE_PUT_PART,
                                        .part = {.run_id = id_of(number),
                                                 .name = mp_slice_str(name),
                                                 .bytes = mp_slice_of(bytes, size),
                                                 .is_progress = is_progress}};
    enum mp_err err = step(w, ev);
    free(bytes);
    return err;
}

static void restore(struct world *w, uint32_t number, bool goes_on, uint64_t bytes)
{
    struct mp_archive_event ev =
        put_event(w, number, goes_on, mp_slice_str("head"), (struct mp_slice){0});
    ev.kind = MP_ARCHIVE_RESTORED;
    ev.put.bytes = bytes;
    assert_int_equal(step(w, ev), MP_OK);
}

static void kept(struct world *w, uint64_t ticket, bool is_error)
{
    assert_int_equal(
        step(w, (struct mp_archive_event){.kind = MP_ARCHIVE_KEPT,
                                          .kept = {.ticket = ticket, .is_error = is_error}}),
        MP_OK);
}

static void timer(struct world *w)
{
    assert_int_equal(step(w, (struct mp_archive_event){.kind = MP_ARCHIVE_TIMER}), MP_OK);
}

static void lose(struct world *w, uint32_t number)
{
    assert_int_equal(step(w, (struct mp_archive_event){.kind = MP_ARCHIVE_LOST,
                                                       .lost = {.run_id = id_of(number)}}),
                     MP_OK);
}

static void pass(struct world *w, uint64_t ms)
{
    w->now += MP_MS(ms);
    w->wall_ms += (int64_t)ms;
}

static bool is_there(const struct world *w, uint32_t number)
{
    return mp_archive_find(w->archive, id_of(number)) != MP_ARCHIVE_NONE;
}

static struct mp_archive_run get(const struct world *w, uint32_t number)
{
    struct mp_archive_run run;
    uint32_t place = mp_archive_find(w->archive, id_of(number));
    assert_int_not_equal(place, MP_ARCHIVE_NONE);
    mp_archive_get(w->archive, place, &run);
    return run;
}

static const char *order(const struct world *w)
{
    static char text[256];
    size_t at = 0;
    text[0] = '\0';
    for (uint32_t place = mp_archive_newest(w->archive); place != MP_ARCHIVE_NONE;
         place = mp_archive_older(w->archive, place)) {
        struct mp_archive_run run;
        mp_archive_get(w->archive, place, &run);
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%d", at == 0 ? "" : " ",
                               atoi(run.run_id + MP_RUN_ID_BYTES - 6));
    }
    return text;
}

/* --- bounds --- */

static void the_oldest_goes_first(void **state)
{
    (void)state;
    struct world *w = world_of(3, 1000, 1000);
    for (uint32_t i = 1; i <= 5; i++)
        put(w, i, false, "head", "body");
    assert_string_equal(order(w), "5 4 3");
    assert_int_equal(mp_archive_count(w->archive), 3);
    assert_int_equal(mp_archive_bytes(w->archive), 24);
    assert_false(is_there(w, 2));
    end(w);
}

static void bytes_are_bounded_and_the_last_one_is_spared(void **state)
{
    (void)state;
    struct world *w = world_of(100, 20, 1000);
    put(w, 1, false, "head", "body");
    put(w, 2, false, "head", "body");
    put(w, 3, false, "head", "body");
    assert_string_equal(order(w), "3 2");
    put(w, 4, false, "head", "a body that is alone over the bound");
    assert_string_equal(order(w), "4");
    put(w, 5, false, "head", "body");
    assert_string_equal(order(w), "5");
    end(w);
}

static void what_is_too_old_goes_by_itself(void **state)
{
    (void)state;
    struct world *w = world_of(100, 1000, 5000);
    put(w, 1, false, "head", "body");
    pass(w, 3000);
    timer(w);
    put(w, 2, false, "head", "body");
    pass(w, 2000);
    timer(w);
    assert_string_equal(order(w), "2 1");
    assert_true(mp_archive_deadline(w->archive) <= w->now + MP_MS(1));
    pass(w, 1);
    timer(w);
    assert_string_equal(order(w), "2");
    assert_true(mp_archive_deadline(w->archive) <= w->now + MP_MS(3000));
    pass(w, 3000);
    timer(w);
    assert_string_equal(order(w), "");
    timer(w);
    assert_true(mp_archive_deadline(w->archive) == MP_NEVER);
    end(w);
}

static void a_wall_clock_that_goes_back_harms_nothing(void **state)
{
    (void)state;
    struct world *w = world_of(100, 1000, 5000);
    put(w, 1, false, "head", "body");
    w->wall_ms -= 1000000;
    timer(w);
    put(w, 2, false, "head", "body");
    assert_string_equal(order(w), "2 1");
    end(w);
}

static void what_goes_on_is_spared(void **state)
{
    (void)state;
    struct world *w = world_of(2, 1000, 5000);
    put(w, 1, true, "head", "body");
    put(w, 2, true, "head", "body");
    put(w, 3, false, "head", "body");
    put(w, 4, false, "head", "body");
    assert_string_equal(order(w), "4 2 1");
    pass(w, 100000);
    timer(w);
    assert_string_equal(order(w), "2 1");
    put(w, 2, false, "ended", "body"); /* it began 100 s later, so the bound of age is far */
    assert_string_equal(order(w), "2 1");
    put(w, 5, false, "head", "body");
    assert_string_equal(order(w), "5 1");
    end(w);
}

/* The last one that was put may be the oldest of those that are over. */
static void the_bound_holds_when_an_old_run_ends(void **state)
{
    (void)state;
    struct world *w = world_of(1, 1000, 100000);
    put(w, 1, true, "head", "body");
    put(w, 2, false, "head", "body");
    assert_string_equal(order(w), "2 1"); /* 1 goes on */
    put(w, 1, false, "head", "body");
    assert_string_equal(order(w), "1");
    end(w);
}

/* --- writing behind --- */

static void an_ended_run_is_written_after_a_while(void **state)
{
    (void)state;
    struct world *w = world_of(100, 1000, 100000);
    put(w, 1, false, "head", "body");
    assert_string_equal(w->kinds, "");
    assert_int_equal(mp_archive_deadline(w->archive), w->now + MP_MS(MP_ARCHIVE_DELAY_MS));
    pass(w, MP_ARCHIVE_DELAY_MS - 1);
    put(w, 2, false, "head", "body"); /* goes along */
    timer(w);
    assert_string_equal(w->kinds, "");
    assert_false(mp_archive_is_flushed(w->archive));
    pass(w, 1);
    timer(w);
    assert_string_equal(w->kinds, "ww");
    assert_true(mp_slice_is(w->last.head, "head") && mp_slice_is(w->last.body, "body"));
    assert_memory_equal(w->last.run_id, id_of(2).data, MP_RUN_ID_BYTES);
    assert_true(w->last.ticket != 0);
    assert_true(mp_archive_is_flushed(w->archive));
    end(w);
}

static void a_run_that_goes_on_is_written_at_once(void **state)
{
    (void)state;
    struct world *w = world_of(100, 1000, 100000);
    put(w, 1, true, "head", "body");
    assert_string_equal(w->kinds, "w");
    assert_true(get(w, 1).goes_on);
    assert_false(get(w, 1).is_lost);
    end(w);
}

static void what_is_pushed_out_before_its_turn_costs_no_write(void **state)
{
    (void)state;
    struct world *w = world_of(2, 1000, 100000);
    for (uint32_t i = 1; i <= 50; i++) {
        put(w, i, false, "head", "body");
        assert_string_equal(w->kinds, "");
    }
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "ww");
    end(w);
}

static void only_what_is_on_the_disk_is_forgotten_there(void **state)
{
    (void)state;
    struct world *w = world_of(1, 1000, 100000);
    put(w, 1, false, "head", "body");
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    put(w, 2, false, "head", "body"); /* 1 may be there any moment */
    assert_string_equal(w->kinds, "f");
    assert_memory_equal(w->last.run_id, id_of(1).data, MP_RUN_ID_BYTES);
    put(w, 3, false, "head", "body");
    assert_string_equal(w->kinds, "");
    end(w);
}

static void when_more_end_than_are_kept_only_the_youngest_set_out(void **state)
{
    (void)state;
    struct world *w = world_of(50, 1u << 20, 100000);
    for (uint32_t i = 0; i < 40; i++)
        put(w, i, false, "head", "body");
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_int_equal(w->out.count, MP_ARCHIVE_HURRIED_RECORDS);
    assert_memory_equal(w->last.run_id, id_of(40 - MP_ARCHIVE_HURRIED_RECORDS).data,
                        MP_RUN_ID_BYTES);
    pass(w, MP_ARCHIVE_DELAY_MS); /* now there is time */
    timer(w);
    assert_int_equal(w->out.count, 40 - MP_ARCHIVE_HURRIED_RECORDS);
    end(w);
}

static void so_many_set_out_at_once(void **state)
{
    (void)state;
    struct world *w = world_of(100000, 1u << 20, 100000);
    for (uint32_t i = 0; i < MP_ARCHIVE_STEP_RECORDS + 10; i++)
        put(w, i, false, "head", "body");
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_int_equal(w->out.count, MP_ARCHIVE_STEP_RECORDS);
    assert_int_equal(mp_archive_deadline(w->archive), w->now + MP_MS(MP_ARCHIVE_DELAY_MS));
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_int_equal(w->out.count, 10);
    end(w);
}

static void so_many_bytes_are_under_way_at_once(void **state)
{
    (void)state;
    struct world *w = world_of(100, 64u << 20, 100000);
    for (uint32_t i = 0; i < 6; i++)
        put_large(w, i, 1u << 20);
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "wwww");
    uint64_t last = w->last.ticket;
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "");
    kept(w, last, false);
    kept(w, last, false); /* told twice: nothing happens */
    kept(w, 77777, false);
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "w");
    end(w);
}

static void a_flush_waits_for_nothing(void **state)
{
    (void)state;
    struct world *w = world_of(1000, 64u << 20, 100000);
    const struct mp_archive_event flush = {.kind = MP_ARCHIVE_FLUSH};
    for (uint32_t i = 0; i < MP_ARCHIVE_STEP_RECORDS + 1; i++)
        put_large(w, i, 40000);
    assert_int_equal(step(w, flush), MP_OK);
    assert_int_equal(w->out.count, MP_ARCHIVE_STEP_RECORDS);
    assert_false(mp_archive_is_flushed(w->archive));
    assert_int_equal(step(w, flush), MP_OK);
    assert_int_equal(w->out.count, 1);
    assert_true(mp_archive_is_flushed(w->archive));
    end(w);
}

static void a_flush_without_memory_says_so(void **state)
{
    (void)state;
    struct world *w = world_of(1000, 64u << 20, 100000);
    for (uint32_t i = 0; i < 20; i++)
        put(w, i, false, "head", "body");
    w->counted.fail_at = w->counted.count;
    assert_int_equal(step(w, (struct mp_archive_event){.kind = MP_ARCHIVE_FLUSH}), MP_ENOMEM);
    assert_false(mp_archive_is_flushed(w->archive));
    end(w);
}

static void the_end_of_a_run_replaces_what_was_kept_while_it_went_on(void **state)
{
    (void)state;
    struct world *w = world_of(100, 1000, 100000);
    put(w, 1, true, "head", "body");
    uint64_t first = w->last.ticket;
    put(w, 2, false, "head", "body");
    put(w, 1, false, "ended", "whole");
    assert_string_equal(w->kinds, "");
    kept(w, first, false); /* of what is replaced by now */
    assert_string_equal(order(w), "2 1");
    assert_false(get(w, 1).goes_on);
    assert_true(mp_slice_is(get(w, 1).head, "ended"));
    assert_true(mp_slice_is(get(w, 1).body, "whole"));
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "ww");
    assert_true(mp_slice_is(w->last.head, "ended"));
    end(w);
}

static void what_the_disk_refuses_stays_in_memory(void **state)
{
    (void)state;
    struct world *w = world_of(100, 64u << 20, 100000);
    put(w, 1, false, "head", "body");
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    kept(w, w->last.ticket, true);
    assert_int_equal(mp_archive_dropped(w->archive), 1);
    for (uint32_t i = 2; i < 22; i++) {
        put_large(w, i, 1u << 20);
        pass(w, MP_ARCHIVE_DELAY_MS);
        timer(w);
        if (w->out.count != 0)
            kept(w, w->last.ticket, false);
    }
    assert_true(mp_slice_is(get(w, 1).body, "body"));
    assert_false(get(w, 1).is_bodyless);
    assert_int_equal(get(w, 2).body.size, 0); /* the disk has it */
    assert_false(get(w, 2).is_bodyless);
    end(w);
}

/* --- parts --- */

static void parts_are_written_at_once_and_counted(void **state)
{
    (void)state;
    struct world *w = world_of(100, 1000, 100000);
    assert_int_equal(put_part(w, 1, "result/x", 5, false), MP_ENOENT);
    put(w, 1, true, "head", "body");
    uint64_t room = mp_archive_room(w->archive);
    assert_int_equal(put_part(w, 1, "result/x", 100, false), MP_OK);
    assert_string_equal(w->kinds, "p");
    assert_true(mp_slice_is(w->last.name, "result/x"));
    uint64_t first = w->last.ticket;
    assert_int_equal(w->last.body.size, 100);
    assert_int_equal(put_part(w, 1, "progress/1", 50, true), MP_OK);
    assert_int_not_equal(w->last.ticket, first);
    assert_int_equal(mp_archive_bytes(w->archive), 158);
    assert_int_equal(mp_archive_room(w->archive), room - 150);
    kept(w, first, false);
    assert_int_equal(mp_archive_room(w->archive), room - 50);
    kept(w, w->last.ticket, true);
    assert_int_equal(mp_archive_room(w->archive), room);
    assert_int_equal(mp_archive_dropped(w->archive), 1);
    put(w, 1, false, "head", "body"); /* progress goes with it, results stay */
    assert_int_equal(mp_archive_bytes(w->archive), 108);
    put(w, 2, false, "head", "body");
    assert_int_equal(put_part(w, 2, "result/y", 990, false), MP_OK);
    assert_string_equal(w->kinds, "pf"); /* over the bound: the oldest goes */
    assert_string_equal(order(w), "2");
    assert_int_equal(mp_archive_bytes(w->archive), 998);
    end(w);
}

static void a_part_is_dropped_when_the_disk_is_too_far_behind(void **state)
{
    (void)state;
    struct world *w = world_of(100, UINT32_MAX, 100000);
    put(w, 1, true, "head", "body");
    kept(w, w->last.ticket, false);
    assert_int_equal(put_part(w, 1, "result/x", MP_ARCHIVE_BEHIND_BYTES_MAX - 100, false), MP_OK);
    uint64_t ticket = w->last.ticket;
    assert_int_equal(mp_archive_room(w->archive), 100);
    assert_int_equal(put_part(w, 1, "result/y", 101, false), MP_EFULL);
    assert_string_equal(w->kinds, "");
    assert_int_equal(mp_archive_dropped(w->archive), 1);
    assert_int_equal(put_part(w, 1, "result/y", 100, false), MP_OK);
    assert_int_equal(mp_archive_room(w->archive), 0);
    kept(w, ticket, false);
    assert_int_equal(put_part(w, 1, "result/z", 101, false), MP_OK);
    end(w);
}

/* --- bodies --- */

static void bodies_that_the_disk_has_go_when_memory_is_wanted(void **state)
{
    (void)state;
    struct world *w = world_of(100, UINT32_MAX, 100000);
    for (uint32_t i = 0; i < 3; i++) {
        put_large(w, i, 4u << 20);
        pass(w, MP_ARCHIVE_DELAY_MS);
        timer(w);
        assert_string_equal(w->kinds, "w");
        kept(w, w->last.ticket, false);
    }
    assert_int_equal(get(w, 0).body.size, 0);
    assert_int_equal(get(w, 1).body.size, 4u << 20);
    assert_int_equal(get(w, 2).body.size, 4u << 20);
    assert_true(mp_slice_is(get(w, 0).head, "h"));
    assert_int_equal(mp_archive_bytes(w->archive), 3 + (12u << 20));
    assert_true(w->counted.live_bytes < (9u << 20));
    put(w, 0, true, "again", "small"); /* its body is the oldest once more */
    put(w, 0, false, "again", "small");
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    kept(w, w->last.ticket, false);
    put_large(w, 3, 4u << 20);
    assert_int_equal(get(w, 0).body.size, 0);
    end(w);
}

static void the_oldest_bodies_are_lost_when_the_disk_does_not_keep_up(void **state)
{
    (void)state;
    struct world *w = world_of(1000, UINT32_MAX, 100000);
    for (uint32_t i = 0; i < 20; i++)
        put_large(w, i, 4u << 20);
    assert_int_equal(mp_archive_dropped(w->archive), 4);
    assert_true(get(w, 0).is_bodyless && get(w, 3).is_bodyless && !get(w, 4).is_bodyless);
    assert_true(w->counted.live_bytes < MP_ARCHIVE_BEHIND_BYTES_MAX + (1u << 20));
    assert_int_equal(mp_archive_count(w->archive), 20);
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "w");
    assert_memory_equal(w->last.run_id, id_of(4).data, MP_RUN_ID_BYTES);
    put_large(w, 99, MP_ARCHIVE_BEHIND_BYTES_MAX + 1); /* not even this one fits */
    assert_true(get(w, 99).is_bodyless);
    end(w);
}

/* --- restored --- */

static void restored_runs_are_known_by_their_heads(void **state)
{
    (void)state;
    struct world *w = world_of(3, 1000, 100000);
    for (uint32_t i = 1; i <= 4; i++)
        restore(w, i, i == 3, 100);
    assert_string_equal(w->kinds, "f");
    assert_string_equal(order(w), "4 3 2");
    assert_true(get(w, 3).is_lost && !get(w, 3).goes_on);
    assert_false(get(w, 4).is_lost);
    assert_int_equal(get(w, 4).body.size, 0);
    assert_false(get(w, 4).is_bodyless);
    assert_int_equal(mp_archive_bytes(w->archive), 312);
    restore(w, 4, false, 50); /* told twice, which no disk does */
    assert_int_equal(mp_archive_bytes(w->archive), 262);
    pass(w, MP_ARCHIVE_DELAY_MS);
    timer(w);
    assert_string_equal(w->kinds, "");
    put(w, 5, false, "head", "body");
    assert_string_equal(order(w), "5 4 3");
    assert_string_equal(w->kinds, "f");
    end(w);
}

static void a_run_whose_end_is_not_known_is_lost(void **state)
{
    (void)state;
    struct world *w = world_of(1, 1000, 100000);
    put(w, 1, true, "head", "body");
    lose(w, 1);
    assert_true(get(w, 1).is_lost);
    lose(w, 7);
    put(w, 2, false, "head", "body");
    lose(w, 2); /* it has ended */
    assert_false(get(w, 2).is_lost);
    assert_string_equal(order(w), "2");
    w->counted.fail_at = w->counted.count;
    assert_int_equal(step(w, put_event(w, 3, false, mp_slice_str("h"), mp_slice_str("b"))),
                     MP_ENOMEM);
    assert_string_equal(order(w), "2");
    w->counted.fail_at = SPEC_NEVER;
    put(w, 3, true, "head", "body");
    w->counted.fail_at = w->counted.count;
    assert_int_equal(step(w, put_event(w, 3, false, mp_slice_str("h"), mp_slice_str("b"))),
                     MP_ENOMEM);
    assert_true(get(w, 3).is_lost && mp_slice_is(get(w, 3).head, "head"));
    end(w);
}

/* --- random lives --- */

#define RUNS  64
#define OPS   400
#define LIVES 300

/* What there should be of a run. */
struct model {
    bool is_there;
    bool goes_on;
    bool is_lost;
    bool is_known; /* to the disk: some KEEP or KEEP_PART went out, and no FORGET */
    uint64_t order;
    int64_t started_ms;
    uint32_t version; /* of its head and body */
    uint32_t disk;    /* the version on the disk */
    uint64_t parts;
    uint64_t progress;
    size_t body_size;
};

struct life {
    struct world *w;
    struct mp_rng rng;
    struct model runs[RUNS];
    uint64_t tickets[4096];
    uint32_t owners[4096];
    uint32_t ticket_count;
    uint64_t puts;
    uint32_t count_max;
    uint64_t bytes_max;
    uint32_t last; /* that was put; RUNS: none */
};

static size_t put_text(char *out, size_t size, const char *what, uint32_t run, uint32_t version)
{
    return (size_t)snprintf(out, size, "%s %u %u", what, run, version);
}

static uint32_t number_of(const char *run_id)
{
    char digits[8] = {0};
    memcpy(digits, run_id + MP_RUN_ID_BYTES - 6, 6);
    return (uint32_t)atoi(digits);
}

/* Takes up what went out, as a disk in order would. */
static void carry_out(struct life *l)
{
    char text[64];
    for (uint32_t i = 0; i < l->w->out.count; i++) {
        const struct mp_archive_effect *e = &l->w->out.items[i];
        uint32_t number = number_of(e->run_id);
        struct model *m = &l->runs[number];
        if (e->kind == MP_ARCHIVE_FORGET) {
            assert_true(m->is_known);
            *m = (struct model){0};
            continue;
        }
        if (e->kind == MP_ARCHIVE_KEEP) {
            put_text(text, sizeof(text), "head", number, m->version);
            assert_true(mp_slice_is(e->head, text));
            assert_int_equal(e->body.size, m->body_size);
            m->disk = m->version;
        }
        m->is_known = true;
        assert_true(l->ticket_count < 4096);
        l->owners[l->ticket_count] = number;
        l->tickets[l->ticket_count++] = e->ticket;
    }
}

/* What the archive let go of without the disk knowing of it. */
static void let_go(struct life *l)
{
    for (uint32_t i = 0; i < RUNS; i++)
        if (l->runs[i].is_there && !is_there(l->w, i)) {
            assert_false(l->runs[i].is_known); /* else there was a FORGET */
            assert_false(l->runs[i].goes_on);
            l->runs[i] = (struct model){0};
        }
}

static void check(struct life *l)
{
    char text[64];
    uint32_t count = 0;
    uint32_t over = 0;
    uint64_t bytes = 0;
    uint64_t previous = UINT64_MAX;
    let_go(l);
    for (uint32_t i = 0; i < RUNS; i++) {
        const struct model *m = &l->runs[i];
        assert_int_equal(m->is_there, is_there(l->w, i));
        if (!m->is_there)
            continue;
        const struct mp_archive_run run = get(l->w, i);
        put_text(text, sizeof(text), "head", i, m->version);
        assert_true(mp_slice_is(run.head, text));
        assert_int_equal(run.goes_on, m->goes_on);
        assert_int_equal(run.is_lost, m->is_lost);
        if (run.body.size == 0 && !run.is_bodyless)
            assert_int_equal(m->disk, m->version);
        else if (run.body.size != 0)
            assert_int_equal(run.body.size, m->body_size);
        bytes += run.head.size + m->body_size + m->parts + m->progress;
        count++;
        over += !m->goes_on && i != l->last;
    }
    assert_int_equal(mp_archive_count(l->w->archive), count);
    assert_int_equal(mp_archive_bytes(l->w->archive), bytes);
    assert_true((count <= l->count_max && bytes <= l->bytes_max) || over == 0);
    for (uint32_t place = mp_archive_newest(l->w->archive); place != MP_ARCHIVE_NONE;
         place = mp_archive_older(l->w->archive, place)) {
        struct mp_archive_run run;
        mp_archive_get(l->w->archive, place, &run);
        uint64_t at = l->runs[number_of(run.run_id)].order;
        assert_true(at < previous);
        previous = at;
    }
}

static void random_put(struct life *l, uint32_t number)
{
    static uint8_t body[6000];
    char head[64];
    struct model *m = &l->runs[number];
    bool is_new = !m->is_there;
    if (is_new)
        *m = (struct model){.order = ++l->puts, .started_ms = l->w->wall_ms};
    else if (!m->goes_on)
        return;
    m->is_there = true;
    m->goes_on = is_new && mp_rng_below(&l->rng, 3) == 0;
    m->is_lost = false;
    m->version = (uint32_t)++l->puts;
    m->progress = 0;
    m->body_size = 1 + mp_rng_below(&l->rng, sizeof(body));
    size_t size = put_text(head, sizeof(head), "head", number, m->version);
    struct mp_archive_event ev = put_event(l->w, number, m->goes_on, mp_slice_of(head, size),
                                           mp_slice_of(body, m->body_size));
    ev.put.started_ms = m->started_ms;
    l->last = number;
    assert_int_equal(step(l->w, ev), MP_OK);
}

static void random_part(struct life *l, uint32_t number)
{
    struct model *m = &l->runs[number];
    size_t size = mp_rng_below(&l->rng, 3000);
    bool is_progress = m->goes_on && mp_rng_below(&l->rng, 2) == 0;
    enum mp_err err =
        put_part(l->w, number, is_progress ? "progress/1" : "result/x", size, is_progress);
    assert_int_equal(err, m->is_there ? MP_OK : MP_ENOENT);
    if (!m->is_there)
        return;
    l->last = number;
    m->parts += is_progress ? 0 : size;
    m->progress += is_progress ? size : 0;
}

static void random_kept(struct life *l)
{
    if (l->ticket_count == 0)
        return;
    uint32_t at = (uint32_t)mp_rng_below(&l->rng, l->ticket_count);
    bool is_error = mp_rng_below(&l->rng, 20) == 0;
    kept(l->w, l->tickets[at], is_error);
    l->tickets[at] = l->tickets[--l->ticket_count];
    l->owners[at] = l->owners[l->ticket_count];
}

static void random_step(struct life *l)
{
    uint32_t number = (uint32_t)mp_rng_below(&l->rng, RUNS);
    switch (mp_rng_below(&l->rng, 8)) {
    case 0:
    case 1:
    case 2:
        random_put(l, number);
        break;
    case 3:
        random_part(l, number);
        break;
    case 4:
        random_kept(l);
        break;
    case 5:
        lose(l->w, number);
        if (l->runs[number].goes_on) {
            l->runs[number].goes_on = false;
            l->runs[number].is_lost = true;
        }
        break;
    default:
        pass(l->w, mp_rng_below(&l->rng, 200));
        if (mp_archive_deadline(l->w->archive) <= l->w->now)
            timer(l->w);
        break;
    }
}

static void in_random_lives_there_is_what_should_be(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= LIVES; seed++) {
        struct life *l = (struct life *)calloc(1, sizeof(*l));
        mp_rng_init(&l->rng, seed);
        l->count_max = 1 + (uint32_t)mp_rng_below(&l->rng, 20);
        l->bytes_max = 1000 + mp_rng_below(&l->rng, 60000);
        l->w = world_of(l->count_max, l->bytes_max, 1000000);
        l->last = RUNS;
        for (uint32_t i = 0; i < OPS; i++) {
            l->w->out.count = 0;
            random_step(l);
            carry_out(l);
            if (l->last < RUNS && !is_there(l->w, l->last))
                l->last = RUNS;
            check(l);
        }
        while (!mp_archive_is_flushed(l->w->archive)) {
            assert_int_equal(step(l->w, (struct mp_archive_event){.kind = MP_ARCHIVE_FLUSH}),
                             MP_OK);
            carry_out(l);
        }
        for (uint32_t i = 0; i < RUNS; i++)
            if (l->runs[i].is_there)
                assert_int_equal(l->runs[i].disk, l->runs[i].version);
        end(l->w);
        free(l);
    }
}

/* --- without memory --- */

static size_t life_with_failure(size_t fail_at, size_t count)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    const struct mp_archive_config cfg = {.count_max = 4, .bytes_max = 400, .age_ms_max = 1000};
    w->counted = (struct spec_alloc){.fail_at = fail_at};
    w->alloc = spec_alloc_of(&w->counted);
    w->wall_ms = START_MS;
    if (mp_archive_new(&w->archive, &cfg, &w->alloc) != MP_OK) {
        assert_int_equal(w->counted.live_bytes, 0);
        free(w);
        return 1;
    }
    for (uint32_t i = 0; i < 40; i++) {
        if (w->counted.count >= fail_at + count)
            w->counted.fail_at = SPEC_NEVER;
        struct mp_archive_event ev =
            put_event(w, i % 13, i % 3 == 0, mp_slice_str("head"), mp_slice_str("body"));
        if (i < 3)
            ev.kind = MP_ARCHIVE_RESTORED, ev.put.body.size = 0, ev.put.bytes = 10;
        enum mp_err err = step(w, ev);
        assert_true(err == MP_OK || err == MP_ENOMEM);
        if (err == MP_OK && i >= 3)
            assert_true(is_there(w, i % 13));
        for (uint32_t k = 0; k < w->out.count; k++)
            assert_true(w->out.items[k].kind != MP_ARCHIVE_KEEP || w->out.items[k].body.size == 4);
        err = put_part(w, i % 13, "progress/1", 10, true);
        assert_true(err == MP_OK || err == MP_ENOMEM || err == MP_ENOENT);
        pass(w, 60);
        err = step(w, (struct mp_archive_event){.kind = MP_ARCHIVE_TIMER});
        assert_true(err == MP_OK || err == MP_ENOMEM);
        for (uint64_t t = 1; t < 8; t++)
            kept(w, (uint64_t)i * 2 + t, t == 7);
        assert_true(mp_archive_count(w->archive) < 13);
    }
    pass(w, 100000);
    for (uint32_t i = 0; i < 13; i++)
        lose(w, i);
    timer(w);
    timer(w);
    assert_int_equal(mp_archive_count(w->archive), 0);
    assert_int_equal(mp_archive_bytes(w->archive), 0);
    size_t taken = w->counted.count;
    end(w);
    return taken;
}

static void a_lack_of_memory_breaks_nothing(void **state)
{
    (void)state;
    size_t all = life_with_failure(SPEC_NEVER - 100, 1);
    for (size_t i = 0; i < all; i++) {
        life_with_failure(i, 1);
        life_with_failure(i, 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_goes_first),
        cmocka_unit_test(bytes_are_bounded_and_the_last_one_is_spared),
        cmocka_unit_test(what_is_too_old_goes_by_itself),
        cmocka_unit_test(a_wall_clock_that_goes_back_harms_nothing),
        cmocka_unit_test(what_goes_on_is_spared),
        cmocka_unit_test(the_bound_holds_when_an_old_run_ends),
        cmocka_unit_test(an_ended_run_is_written_after_a_while),
        cmocka_unit_test(a_run_that_goes_on_is_written_at_once),
        cmocka_unit_test(what_is_pushed_out_before_its_turn_costs_no_write),
        cmocka_unit_test(only_what_is_on_the_disk_is_forgotten_there),
        cmocka_unit_test(when_more_end_than_are_kept_only_the_youngest_set_out),
        cmocka_unit_test(so_many_set_out_at_once),
        cmocka_unit_test(so_many_bytes_are_under_way_at_once),
        cmocka_unit_test(a_flush_waits_for_nothing),
        cmocka_unit_test(a_flush_without_memory_says_so),
        cmocka_unit_test(the_end_of_a_run_replaces_what_was_kept_while_it_went_on),
        cmocka_unit_test(what_the_disk_refuses_stays_in_memory),
        cmocka_unit_test(parts_are_written_at_once_and_counted),
        cmocka_unit_test(a_part_is_dropped_when_the_disk_is_too_far_behind),
        cmocka_unit_test(bodies_that_the_disk_has_go_when_memory_is_wanted),
        cmocka_unit_test(the_oldest_bodies_are_lost_when_the_disk_does_not_keep_up),
        cmocka_unit_test(restored_runs_are_known_by_their_heads),
        cmocka_unit_test(a_run_whose_end_is_not_known_is_lost),
        cmocka_unit_test(in_random_lives_there_is_what_should_be),
        cmocka_unit_test(a_lack_of_memory_breaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
