/* The rings between host and worker: nothing is lost, doubled or mixed up, with both sides at work
 * at once and on mappings of their own; a call is begun or taken back, never both; a sleeper is
 * woken; and a hostile other side can break the ring, but never lead out of it. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/base/limits.h"
#include "src/base/rng.h"
#include "src/host/ring/ring.h"

#ifdef MP_SANITIZE
#define SLOWER 10 /* times fewer rounds: sanitizers, not timing, are the point there */
#else
#define SLOWER 1
#endif

#define RECORDS    (1000000 / SLOWER)
#define REVOCABLES (300000 / SLOWER)
#define WAKE_UPS   (100000 / SLOWER)

struct fixture {
    int fd;
    struct mp_channel host;
    struct mp_channel worker; /* the same memory, mapped a second time */
};

static int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){0};
    *state = &f;
    if (mp_channel_create(&f.fd) != MP_OK || mp_channel_open(&f.host, f.fd) != MP_OK ||
        mp_channel_open(&f.worker, f.fd) != MP_OK)
        return -1;
    return close(f.fd);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mp_channel_close(&f->host);
    mp_channel_close(&f->worker);
    mp_channel_close(&f->worker);
    return 0;
}

/* --- records whose content follows from their number --- */

static uint32_t body_size_of(uint64_t number)
{
    struct mp_rng rng;
    mp_rng_init(&rng, number);
    /* mostly small, now and then large */
    return (uint32_t)mp_rng_below(&rng, mp_rng_below(&rng, 200) == 0 ? 40000 : 80);
}

static bool put(struct mp_ring *r, uint64_t number)
{
    uint32_t size = body_size_of(number);
    struct mp_ring_record *record =
        mp_ring_reserve(r, size, (uint16_t)(number % 7), (uint16_t)(number % 5));
    if (!record)
        return false;
    uint8_t *body = mp_ring_body(record);
    for (uint32_t i = 0; i < size; i++)
        body[i] = (uint8_t)(number + i);
    return true;
}

/* Whether the next record is that one; false also when there is none. */
static bool take(struct mp_ring *r, uint64_t number, bool *is_wrong)
{
    struct mp_ring_record *record = mp_ring_next(r);
    if (!record)
        return false;
    uint32_t size = body_size_of(number);
    const uint8_t *body = mp_ring_body(record);
    *is_wrong = r->body_size / MP_RING_ALIGN != (size + MP_RING_ALIGN - 1) / MP_RING_ALIGN ||
                record->kind != number % 7 || record->flags != number % 5 ||
                atomic_load(&record->state) != MP_RING_READY;
    for (uint32_t i = 0; !*is_wrong && i < size; i++)
        *is_wrong = body[i] != (uint8_t)(number + i);
    return true;
}

/* --- one thread --- */

static void keeps_records_whole_and_in_order(void **state)
{
    struct fixture *f = *state;
    struct mp_ring *in = &f->host.to_worker;
    struct mp_ring *out = &f->worker.to_worker;
    uint64_t produced = 0;
    uint64_t consumed = 0;
    uint64_t visible = 0;
    uint64_t refused = 0;
    struct mp_rng rng;
    mp_rng_init(&rng, 5);
    while (consumed < 200000) {
        switch (mp_rng_below(&rng, 8)) {
        case 0:
            (void)mp_ring_publish(in);
            visible = produced;
            break;
        case 1:
            mp_ring_release(out);
            break;
        case 2:
        case 3:
        case 4:
            for (uint64_t n = mp_rng_below(&rng, 300); n > 0; n--) {
                bool is_put = put(in, produced);
                produced += is_put;
                refused += !is_put;
            }
            break;
        default:
            for (uint64_t n = mp_rng_below(&rng, 300); n > 0 && consumed < visible; n--) {
                bool is_wrong = false;
                assert_true(take(out, consumed, &is_wrong));
                assert_false(is_wrong);
                consumed++;
            }
            if (consumed == visible)
                assert_true(mp_ring_is_empty(out));
        }
    }
    assert_true(refused > 0);                    /* it was full at times */
    assert_true(in->tail > 4ull * in->capacity); /* and went round */
    assert_false(out->is_broken);
}

static void takes_what_fits_and_not_a_byte_more(void **state)
{
    struct fixture *f = *state;
    struct mp_ring *in = &f->host.to_worker;
    struct mp_ring *out = &f->worker.to_worker;
    uint32_t largest = mp_ring_body_max(in);
    const uint32_t least = sizeof(struct mp_ring_record);
    uint32_t count = 0;
    while (mp_ring_reserve(in, 0, 1, 0))
        count++;
    assert_int_equal(count, in->capacity / least);
    (void)mp_ring_publish(in);
    assert_null(mp_ring_reserve(in, 0, 1, 0));
    for (uint32_t i = 0; i < count; i++)
        assert_non_null(mp_ring_next(out));
    assert_null(mp_ring_next(out));
    assert_null(mp_ring_reserve(in, 0, 1, 0)); /* read, but not given back */
    mp_ring_release(out);
    assert_non_null(mp_ring_reserve(in, largest, 1, 0));
    assert_non_null(mp_ring_reserve(in, largest, 1, 0));
    assert_null(mp_ring_reserve(in, 0, 1, 0));
    (void)mp_ring_publish(in);
    assert_non_null(mp_ring_next(out));
    assert_int_equal(out->body_size, largest);
    mp_ring_release(out);
    assert_non_null(mp_ring_reserve(in, largest, 1, 0));
    assert_null(mp_ring_reserve(in, 0, 1, 0));
}

static void shortens_and_gives_back_what_was_reserved_last(void **state)
{
    struct fixture *f = *state;
    struct mp_ring *in = &f->host.to_host;
    struct mp_ring *out = &f->worker.to_host;
    for (int round = 0; round < 10000; round++) {
        uint64_t before = in->tail;
        struct mp_ring_record *a = mp_ring_reserve(in, 1000, 1, 0);
        memset(mp_ring_body(a), round & 0xff, 1000);
        mp_ring_trim(in, a, 100);
        struct mp_ring_record *b = mp_ring_reserve(in, 300000, 2, 0);
        assert_int_equal(in->tail - before, 128 + 300016);
        mp_ring_unreserve(in, b);
        assert_int_equal(in->tail - before, 128);
        assert_non_null(mp_ring_reserve(in, 16, 3, 0));
        assert_false(mp_ring_publish(in));
        assert_false(mp_ring_publish(in));
        struct mp_ring_record *read = mp_ring_next(out);
        assert_int_equal(read->kind, 1);
        assert_int_equal(out->body_size, 112);
        assert_int_equal(mp_ring_body(read)[99], round & 0xff);
        assert_int_equal(mp_ring_next(out)->kind, 3);
        assert_null(mp_ring_next(out));
        mp_ring_release(out);
    }
}

/* --- two threads --- */

struct side {
    struct mp_ring *out;
    struct mp_ring *in;
    uint64_t count;
    uint64_t wrong;
};

/* Sends `count` records and receives as many, both as fast as they go. */
static void *exchange(void *context)
{
    struct side *s = (struct side *)context;
    uint64_t sent = 0;
    uint64_t received = 0;
    while (sent < s->count || received < s->count) {
        uint64_t before = sent + received;
        for (int i = 0; i < 64 && sent < s->count && put(s->out, sent); i++)
            sent++;
        (void)mp_ring_publish(s->out);
        bool is_wrong = false;
        for (int i = 0; i < 64 && received < s->count && take(s->in, received, &is_wrong); i++) {
            s->wrong += is_wrong;
            received++;
        }
        mp_ring_release(s->in);
        if (s->in->is_broken) {
            s->wrong++;
            return NULL;
        }
        if (sent + received == before)
            sched_yield();
    }
    return NULL;
}

static void loses_nothing_in_either_direction(void **state)
{
    struct fixture *f = *state;
    struct side host = {.out = &f->host.to_worker, .in = &f->host.to_host, .count = RECORDS};
    struct side worker = {.out = &f->worker.to_host, .in = &f->worker.to_worker, .count = RECORDS};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, exchange, &worker), 0);
    exchange(&host);
    pthread_join(thread, NULL);
    assert_int_equal(host.wrong, 0);
    assert_int_equal(worker.wrong, 0);
    assert_true(mp_ring_is_empty(&f->host.to_host));
    assert_true(mp_ring_is_empty(&f->worker.to_worker));
}

struct beginner {
    struct mp_ring *in;
    uint8_t *begun; /* by number */
    uint64_t passed_over;
};

/* A worker: begins each record that was not taken back, as it comes to it. */
static void *begin_all(void *context)
{
    struct beginner *b = (struct beginner *)context;
    uint32_t seen = 0;
    while (seen < REVOCABLES) {
        struct mp_ring_record *record = mp_ring_next(b->in);
        if (!record) {
            mp_ring_release(b->in);
            sched_yield();
            continue;
        }
        uint32_t expected = MP_RING_READY;
        uint32_t number;
        memcpy(&number, mp_ring_body(record), sizeof(number));
        if (atomic_compare_exchange_strong(&record->state, &expected, MP_RING_BEGUN))
            b->begun[number]++;
        else
            b->passed_over++;
        seen++;
    }
    mp_ring_release(b->in);
    return NULL;
}

static void a_call_is_begun_or_taken_back_never_both(void **state)
{
    struct fixture *f = *state;
    struct mp_ring *out = &f->host.to_worker;
    uint8_t *begun = calloc(REVOCABLES, 1);
    uint8_t *revoked = calloc(REVOCABLES, 1);
    struct beginner b = {.in = &f->worker.to_worker, .begun = begun};
    pthread_t thread;
    struct mp_rng rng;
    uint64_t taken_back = 0;
    mp_rng_init(&rng, 77);
    assert_int_equal(pthread_create(&thread, NULL, begin_all, &b), 0);
    for (uint32_t number = 0; number < REVOCABLES;) {
        struct mp_ring_record *batch[32];
        uint32_t first = number;
        uint32_t count = 0;
        uint32_t wanted = 1 + (uint32_t)mp_rng_below(&rng, 32);
        while (count < wanted && number < REVOCABLES) {
            struct mp_ring_record *record = mp_ring_reserve(out, sizeof(number), 1, 0);
            if (!record)
                break;
            memcpy(mp_ring_body(record), &number, sizeof(number));
            batch[count++] = record;
            number++;
        }
        (void)mp_ring_publish(out);
        if (mp_rng_below(&rng, 4) == 0)
            sched_yield();
        /* Newest first, as the pool does. A record whose space was given back is history. */
        uint64_t position = out->tail;
        for (uint32_t i = count; i-- > 0;) {
            position -= 32;
            uint32_t expected = MP_RING_READY;
            if (position < atomic_load(&out->shared->head) || mp_rng_below(&rng, 3) == 0)
                continue;
            if (atomic_compare_exchange_strong(&batch[i]->state, &expected, MP_RING_REVOKED)) {
                revoked[first + i]++;
                taken_back++;
            }
        }
        if (count == 0)
            sched_yield();
    }
    pthread_join(thread, NULL);
    for (uint32_t i = 0; i < REVOCABLES; i++)
        if (begun[i] + revoked[i] != 1)
            fail_msg("record %u: begun %u times, taken back %u times", i, begun[i], revoked[i]);
    assert_int_equal(b.passed_over, taken_back);
    assert_true(taken_back > 0 && taken_back < REVOCABLES);
    free(begun);
    free(revoked);
}

struct sleeper {
    struct mp_ring *out;
    struct mp_ring *in;
    int own_fd;
    int other_fd;
    uint64_t slept;
    uint64_t lost;
};

/* Waits as host and worker do: looks, announces sleep, looks once more, sleeps. A sleep that lasts
 * is a wake-up that was lost. */
static bool wait_for_record(struct sleeper *s)
{
    while (mp_ring_is_empty(s->in)) {
        if (!mp_ring_prepare_sleep(s->in))
            break;
        struct pollfd p = {.fd = s->own_fd, .events = POLLIN};
        uint64_t count;
        s->slept++;
        if (poll(&p, 1, 20000) != 1 || read(s->own_fd, &count, sizeof(count)) != sizeof(count)) {
            s->lost++;
            return false;
        }
        mp_ring_wake(s->in);
    }
    return mp_ring_next(s->in) != NULL;
}

static void tell(struct sleeper *s)
{
    const uint64_t one = 1;
    while (!mp_ring_reserve(s->out, 8, 1, 0))
        sched_yield();
    if (mp_ring_publish(s->out) && write(s->other_fd, &one, sizeof(one)) != sizeof(one))
        s->lost++;
}

static void *answer_all(void *context)
{
    struct sleeper *s = (struct sleeper *)context;
    for (int i = 0; i < WAKE_UPS && wait_for_record(s); i++) {
        mp_ring_release(s->in);
        tell(s);
    }
    return NULL;
}

static void never_loses_a_wake_up(void **state)
{
    struct fixture *f = *state;
    int fds[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
    struct sleeper host = {
        .out = &f->host.to_worker, .in = &f->host.to_host, .own_fd = fds[0], .other_fd = fds[1]};
    struct sleeper worker = {.out = &f->worker.to_host,
                             .in = &f->worker.to_worker,
                             .own_fd = fds[1],
                             .other_fd = fds[0]};
    pthread_t thread;
    struct mp_rng rng;
    mp_rng_init(&rng, 3);
    assert_int_equal(pthread_create(&thread, NULL, answer_all, &worker), 0);
    for (int i = 0; i < WAKE_UPS && host.lost == 0; i++) {
        tell(&host);
        /* Sometimes the answer is there before the first look, sometimes just after it. */
        for (uint64_t spin = mp_rng_below(&rng, 400); spin > 0; spin--)
            atomic_signal_fence(memory_order_seq_cst);
        (void)wait_for_record(&host);
        mp_ring_release(host.in);
    }
    pthread_join(thread, NULL);
    assert_int_equal(host.lost + worker.lost, 0);
    assert_true(host.slept + worker.slept > 0);
    close(fds[0]);
    close(fds[1]);
}

/* --- the other side is hostile --- */

static void assert_inside(const struct mp_ring *r, const struct mp_ring_record *record)
{
    const uint8_t *start = (const uint8_t *)record;
    assert_true(start >= r->data && start < r->data + r->capacity);
    assert_true(r->body_size <= mp_ring_body_max(r));
    assert_true(start + sizeof(*record) + r->body_size <= r->data + 2 * (size_t)r->capacity);
}

static uint64_t scribble(struct mp_rng *rng, uint64_t near)
{
    switch (mp_rng_below(rng, 4)) {
    case 0:
        return mp_rng_next(rng);
    case 1:
        return near + MP_RING_ALIGN * mp_rng_below(rng, 8);
    case 2:
        return near - MP_RING_ALIGN * mp_rng_below(rng, 8);
    default:
        return near + mp_rng_below(rng, 2 * MP_RING_BYTES);
    }
}

static void a_hostile_producer_breaks_the_ring_and_nothing_else(void **state)
{
    struct fixture *f = *state;
    struct mp_rng rng;
    uint32_t broken = 0;
    mp_rng_init(&rng, 101);
    for (int round = 0; round < 20000 / SLOWER; round++) {
        struct mp_ring r = f->host.to_host;
        r.head = r.released = r.seen = MP_RING_ALIGN * mp_rng_below(&rng, 1u << 20);
        uint8_t sum = 0;
        for (int step = 0; step < 8; step++) {
            atomic_store(&r.shared->tail, scribble(&rng, r.head));
            for (int i = 0; i < 16; i++) {
                uint64_t at = (r.head + MP_RING_ALIGN * (uint64_t)i) & (r.capacity - 1);
                uint32_t size = (uint32_t)scribble(&rng, 32);
                memcpy(f->worker.to_host.data + at, &size, sizeof(size));
            }
            const struct mp_ring_record *record;
            for (int i = 0; i < 32 && (record = mp_ring_next(&r)) != NULL; i++) {
                assert_inside(&r, record);
                sum ^= ((const uint8_t *)record)[sizeof(*record) + r.body_size - 1];
            }
            if (mp_rng_below(&rng, 2))
                mp_ring_release(&r);
        }
        if (r.is_broken) {
            broken++;
            atomic_store(&r.shared->tail, r.head + 32);
            assert_null(mp_ring_next(&r)); /* for good */
            assert_true(mp_ring_is_empty(&r));
        }
        (void)sum;
    }
    assert_true(broken > 100);
}

static void a_size_that_changes_later_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct mp_ring *in = &f->worker.to_host;
    struct mp_ring *out = &f->host.to_host;
    struct mp_ring_record *record = mp_ring_reserve(in, 100, 1, 0);
    struct mp_ring_record *second = mp_ring_reserve(in, 50, 2, 0);
    (void)mp_ring_publish(in);
    assert_non_null(mp_ring_next(out));
    record->size = UINT32_MAX;
    assert_int_equal(out->body_size, 112);
    assert_int_equal(mp_ring_next(out)->kind, 2);
    second->size = 0;
    assert_int_equal(out->body_size, 64);
    assert_false(out->is_broken);
}

static void a_hostile_consumer_gets_no_byte_over_what_it_has_not_read(void **state)
{
    struct fixture *f = *state;
    struct mp_rng rng;
    mp_rng_init(&rng, 103);
    for (int round = 0; round < 20000 / SLOWER; round++) {
        struct mp_ring r = f->host.to_worker;
        r.head = r.tail = r.published = MP_RING_ALIGN * mp_rng_below(&rng, 1u << 20);
        for (int i = 0; i < 100; i++) {
            uint64_t told = scribble(&rng, r.head);
            atomic_store(&r.shared->head, told);
            uint64_t head = r.head;
            uint32_t size = (uint32_t)mp_rng_below(&rng, mp_ring_body_max(&r) + 1);
            struct mp_ring_record *record = mp_ring_reserve(&r, size, 1, 0);
            assert_true(r.tail - r.head <= r.capacity);
            assert_true(r.head == head || (r.head == told && told <= r.published));
            if (record) {
                const uint8_t *start = (const uint8_t *)record;
                assert_true(start >= r.data && start < r.data + r.capacity);
                record->size = (uint32_t)mp_rng_next(&rng); /* scribbled over at once */
                if (mp_rng_below(&rng, 2))
                    mp_ring_trim(&r, record, size / 2);
                else if (mp_rng_below(&rng, 4) == 0)
                    mp_ring_unreserve(&r, record);
            }
            if (mp_rng_below(&rng, 3) == 0)
                (void)mp_ring_publish(&r);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_records_whole_and_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_what_fits_and_not_a_byte_more, setup, teardown),
        cmocka_unit_test_setup_teardown(shortens_and_gives_back_what_was_reserved_last, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(loses_nothing_in_either_direction, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_is_begun_or_taken_back_never_both, setup, teardown),
        cmocka_unit_test_setup_teardown(never_loses_a_wake_up, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hostile_producer_breaks_the_ring_and_nothing_else, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_size_that_changes_later_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hostile_consumer_gets_no_byte_over_what_it_has_not_read,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
