/* Arenas: blocks never overlap and keep their alignment, what was freed can be had again in one
 * piece, large freed blocks leave memory, and a reader is never led outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/rng.h"
#include "src/host/ring/arena.h"

#define MIB         (1u << 20)
#define ARENA_BYTES (64u * MIB)
#define BLOCKS      40

struct block {
    uint64_t at; /* MP_ARENA_NONE: not taken */
    size_t size;
    uint8_t mark;
};

static bool overlap(const struct block *a, const struct block *b)
{
    return a->at < b->at + b->size && b->at < a->at + a->size;
}

static void fill(struct mp_arena *a, const struct block *b)
{
    uint8_t *p = mp_arena_at(a, b->at);
    p[0] = b->mark;
    p[b->size / 2] = b->mark;
    p[b->size - 1] = b->mark;
}

static void assert_untouched(const struct mp_arena_view *v, const struct block *b)
{
    struct mp_slice bytes;
    assert_true(mp_arena_view_get(v, b->at, b->size, &bytes));
    assert_int_equal(bytes.data[0], b->mark);
    assert_int_equal(bytes.data[b->size / 2], b->mark);
    assert_int_equal(bytes.data[b->size - 1], b->mark);
}

static void take_one(struct mp_arena *a, struct block *blocks, struct block *b, struct mp_rng *rng)
{
    static const unsigned aligned_at[] = {0, 6, 16, 63, 64, 1000};
    unsigned align = aligned_at[mp_rng_below(rng, 6)];
    b->size = 1 + mp_rng_below(rng, (8u * MIB) >> mp_rng_below(rng, 12));
    b->mark = (uint8_t)mp_rng_next(rng);
    uint64_t at = mp_arena_take(a, b->size, align);
    if (at == MP_ARENA_NONE)
        return;
    assert_int_equal((uintptr_t)(mp_arena_at(a, 0) + at + align) % 64, 0);
    assert_true(at + b->size <= ARENA_BYTES);
    b->at = at;
    for (int i = 0; i < BLOCKS; i++)
        if (&blocks[i] != b && blocks[i].at != MP_ARENA_NONE)
            assert_false(overlap(&blocks[i], b));
    fill(a, b);
}

static void blocks_are_apart_aligned_and_kept(void **state)
{
    (void)state;
    struct block blocks[BLOCKS];
    struct mp_arena *a;
    struct mp_arena_view view;
    struct mp_rng rng;
    int fd;
    mp_rng_init(&rng, 19);
    assert_int_equal(mp_arena_create(&a, ARENA_BYTES, &fd), MP_OK);
    assert_int_equal(mp_arena_view_open(&view, fd), MP_OK);
    for (int i = 0; i < BLOCKS; i++)
        blocks[i].at = MP_ARENA_NONE;
    for (int round = 0; round < 20000; round++) {
        struct block *b = &blocks[mp_rng_below(&rng, BLOCKS)];
        if (b->at == MP_ARENA_NONE) {
            take_one(a, blocks, b, &rng);
        } else {
            assert_untouched(&view, b);
            assert_true(mp_arena_give(a, b->at));
            assert_false(mp_arena_give(a, b->at));
            b->at = MP_ARENA_NONE;
        }
    }
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].at != MP_ARENA_NONE)
            assert_true(mp_arena_give(a, blocks[i].at));
    assert_int_equal(mp_arena_used(a), 0);
    /* Whatever happened before, it is in one piece again. */
    uint64_t at = mp_arena_take(a, ARENA_BYTES, 0);
    assert_int_equal(at, 0);
    assert_int_equal(mp_arena_take(a, 1, 0), MP_ARENA_NONE);
    assert_true(mp_arena_give(a, at));
    mp_arena_view_close(&view);
    mp_arena_view_close(&view);
    mp_arena_free(a);
}

static void idle_pieces_do_not_stand_in_the_way(void **state)
{
    (void)state;
    struct mp_arena *a;
    uint64_t at[1024];
    int fd;
    int count = 0;
    assert_int_equal(mp_arena_create(&a, ARENA_BYTES, &fd), MP_OK);
    /* Small blocks with large ones between; all freed, small ones are kept as idle memory. */
    while ((at[count] = mp_arena_take(a, count % 2 ? 4u * MIB : 1000, 0)) != MP_ARENA_NONE)
        count++;
    for (int i = 0; i < count; i++)
        assert_true(mp_arena_give(a, at[i]));
    assert_int_not_equal(mp_arena_take(a, 60u * MIB, 0), MP_ARENA_NONE);
    mp_arena_free(a);
}

static void refuses_what_it_does_not_have(void **state)
{
    (void)state;
    struct mp_arena *a;
    int fd;
    assert_int_equal(mp_arena_create(&a, 100, &fd), MP_OK); /* rounded up to a block */
    assert_int_equal(mp_arena_take(a, 65537, 0), MP_ARENA_NONE);
    assert_int_equal(mp_arena_take(a, SIZE_MAX, 1), MP_ARENA_NONE);
    assert_false(mp_arena_give(a, 0));
    assert_false(mp_arena_give(a, MP_ARENA_NONE));
    uint64_t at = mp_arena_take(a, 0, 6);
    assert_int_equal(at, 58);
    assert_false(mp_arena_give(a, 0));
    assert_false(mp_arena_give(a, at + 1));
    assert_int_equal(mp_arena_take(a, 1, 0), MP_ARENA_NONE);
    assert_true(mp_arena_give(a, at));
    assert_int_equal(mp_arena_used(a), 0);
    mp_arena_free(a);
    mp_arena_free(NULL);
    assert_int_equal(mp_arena_open(&a, -1), MP_EIO);
}

/* Memory that the file takes now. */
static size_t resident(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return (size_t)st.st_blocks * 512;
}

static void large_freed_blocks_leave_memory(void **state)
{
    (void)state;
    struct mp_arena *a;
    int fd;
    assert_int_equal(mp_arena_create(&a, 256u * MIB, &fd), MP_OK);
    assert_int_equal(resident(fd), 0); /* sparse */
    for (int round = 0; round < 3; round++) {
        uint64_t at = mp_arena_take(a, 100u * MIB, 0);
        memset(mp_arena_at(a, at), 1, 100u * MIB);
        assert_true(resident(fd) >= 100u * MIB);
        assert_true(mp_arena_give(a, at));
        assert_true(resident(fd) <= 17u * MIB);
    }
    /* A little is kept, so that the next block costs no page faults. */
    uint64_t at = mp_arena_take(a, MIB, 0);
    memset(mp_arena_at(a, at), 1, MIB);
    assert_true(mp_arena_give(a, at));
    assert_true(resident(fd) >= MIB);
    mp_arena_free(a);
}

static void a_reader_is_never_led_outside(void **state)
{
    (void)state;
    struct mp_arena *a;
    struct mp_arena_view v;
    struct mp_slice bytes;
    struct mp_rng rng;
    int fd;
    mp_rng_init(&rng, 2);
    assert_int_equal(mp_arena_make_file(MIB, &fd), MP_OK);
    assert_int_equal(mp_arena_view_open(&v, fd), MP_OK);
    assert_int_equal(mp_arena_open(&a, fd), MP_OK);
    assert_int_equal(v.size, MIB);
    assert_true(mp_arena_view_get(&v, 0, MIB, &bytes));
    assert_true(mp_arena_view_get(&v, MIB, 0, &bytes));
    assert_false(mp_arena_view_get(&v, MIB, 1, &bytes));
    assert_false(mp_arena_view_get(&v, 1, MIB, &bytes));
    assert_false(mp_arena_view_get(&v, 0, UINT64_MAX, &bytes));
    assert_false(mp_arena_view_get(&v, UINT64_MAX, 1, &bytes));
    for (int i = 0; i < 100000; i++) {
        uint64_t offset = mp_rng_next(&rng) >> mp_rng_below(&rng, 64);
        uint64_t size = mp_rng_next(&rng) >> mp_rng_below(&rng, 64);
        bool is_inside = offset <= MIB && size <= MIB && offset + size <= MIB;
        assert_int_equal(mp_arena_view_get(&v, offset, size, &bytes), is_inside);
    }
    /* Whoever holds the file can neither cut nor stretch it below a reader. */
    assert_int_not_equal(ftruncate(fd, 4096), 0);
    assert_int_not_equal(ftruncate(fd, 2 * MIB), 0);
    mp_arena_view_close(&v);
    mp_arena_free(a);
    assert_int_equal(mp_arena_view_open(&v, -1), MP_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_apart_aligned_and_kept),
        cmocka_unit_test(idle_pieces_do_not_stand_in_the_way),
        cmocka_unit_test(refuses_what_it_does_not_have),
        cmocka_unit_test(large_freed_blocks_leave_memory),
        cmocka_unit_test(a_reader_is_never_led_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
