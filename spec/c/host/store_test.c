/* The store: what was answered is there after any end, and what is said of a file or a disk that
 * does not play along. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/host/host_internal.h"
#include "src/host/store.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

#define NOBODY      65534
#define ANSWERS_MAX 2048
#define READING     99999 /* a ticket */

struct answer {
    uint64_t ticket;
    bool is_missing;
    bool is_error;
    char code[32];
    char reason[32];
    char message[512];
    uint8_t *unit;
    size_t unit_size;
    char description[64];
};

struct world {
    char dir[128];
    char text[1024];
    struct mp_text why;
    struct mp_store *store;
    struct mp_store_restored restored;
    uv_loop_t loop;
    struct answer answers[ANSWERS_MAX];
    uint32_t answer_count;
};

static int set_up(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/tmp/mpreg-store-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(chmod(w->dir, 0777), 0);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    mp_store_restored_init(&w->restored);
    *state = w;
    return 0;
}

static void close_store(struct world *w)
{
    mp_store_stop(w->store);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    mp_store_close(w->store);
    w->store = NULL;
    for (uint32_t i = 0; i < w->answer_count; i++)
        free(w->answers[i].unit);
    w->answer_count = 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    return remove(path);
}

static int tear_down(void **state)
{
    struct world *w = (struct world *)*state;
    close_store(w);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    mp_store_restored_fini(&w->restored);
    assert_int_equal(nftw(w->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(w);
    return 0;
}

static void copy_text(char *out, size_t size, struct mp_slice s)
{
    snprintf(out, size, "%.*s", (int)s.size, s.size != 0 ? (const char *)s.data : "");
}

static void on_answer(void *context, uint64_t ticket, const struct mp_store_answer *a)
{
    struct world *w = (struct world *)context;
    struct answer *to = &w->answers[w->answer_count++];
    struct mp_fault fault = {0};
    *to = (struct answer){.ticket = ticket, .is_missing = a->is_missing, .is_error = a->is_error};
    if (a->is_error && mp_fault_read(a->error, &fault) == MP_OK) {
        snprintf(to->code, sizeof(to->code), "%s", mp_code_name(fault.code));
        copy_text(to->reason, sizeof(to->reason), fault.reason);
        copy_text(to->message, sizeof(to->message), fault.message);
    }
    copy_text(to->description, sizeof(to->description), a->description);
    to->unit_size = a->found.size;
    if (a->found.size != 0) {
        to->unit = (uint8_t *)malloc(a->found.size);
        memcpy(to->unit, a->found.data, a->found.size);
    }
}

static bool try_open(struct world *w, struct mp_store **out)
{
    mp_text_init(&w->why, w->text, sizeof(w->text));
    mp_store_restored_fini(&w->restored);
    mp_store_restored_init(&w->restored);
    return mp_store_open(out, w->dir, false, &w->restored, &w->why) &&
           mp_store_start(*out, &w->loop, "n1", w, &w->why);
}

static void reopen(struct world *w)
{
    close_store(w);
    if (!try_open(w, &w->store))
        fail_msg("%s", w->text);
}

static void wait_for(struct world *w, uint32_t count)
{
    while (w->answer_count < count)
        uv_run(&w->loop, UV_RUN_ONCE);
}

static struct mp_slice str(const char *text)
{
    return mp_slice_str(text);
}

static void keep(struct world *w, uint64_t ticket, const char *unit, const char *description)
{
    mp_store_keep_unit(w->store, ticket, str(unit), str(description), on_answer);
}

/* An array of one entry, a number. */
static void keep_entry(struct world *w, uint64_t ticket, uint8_t number)
{
    const uint8_t bytes[] = {0x91, number};
    mp_store_keep_entries(w->store, ticket, mp_slice_of(bytes, sizeof(bytes)), on_answer);
}

/* The answer to a reading. */
static const struct answer *read_back(struct world *w, struct mp_slice unit)
{
    uint8_t hash[MP_UNIT_HASH_BYTES];
    mp_host_sha256(unit, hash);
    mp_store_read_unit(w->store, READING, mp_slice_of(hash, sizeof(hash)), on_answer);
    do
        uv_run(&w->loop, UV_RUN_ONCE);
    while (w->answer_count == 0 || w->answers[w->answer_count - 1].ticket != READING);
    struct answer *a = &w->answers[w->answer_count - 1];
    a->ticket = 0;
    return a;
}

static void assert_kept(struct world *w, const char *unit, const char *description)
{
    const struct answer *a = read_back(w, str(unit));
    assert_false(a->is_missing);
    assert_false(a->is_error);
    assert_int_equal(a->unit_size, strlen(unit));
    assert_memory_equal(a->unit, unit, strlen(unit));
    assert_string_equal(a->description, description);
}

static void assert_missing(struct world *w, const char *unit)
{
    const struct answer *a = read_back(w, str(unit));
    assert_true(a->is_missing);
    assert_false(a->is_error);
}

static void assert_entries(const struct world *w, const char *numbers)
{
    size_t count = strlen(numbers);
    assert_int_equal(w->restored.entries.size, 1 + count);
    assert_int_equal(w->restored.entries.data[0], 0x90 | count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(w->restored.entries.data[1 + i], numbers[i] - '0');
}

static const char *path_in(const struct world *w, const char *file)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", w->dir, file);
    return path;
}

static void assert_why(const struct world *w, const char *part)
{
    if (!strstr(w->text, part))
        fail_msg("\"%s\" is not in: %s", part, w->text);
}

static void run_sql(const struct world *w, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path_in(w, "mpreg.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* --- what is kept --- */

static void what_was_kept_is_there_after_the_next_start(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    assert_entries(w, "");
    keep(w, 1, "a unit", "its description");
    keep_entry(w, 2, 5);
    const uint8_t more[] = {0x93, 7, 1, 3};
    mp_store_keep_entries(w->store, 3, mp_slice_of(more, sizeof(more)), on_answer);
    wait_for(w, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(w->answers[i].ticket, i + 1);
        assert_false(w->answers[i].is_error);
    }
    assert_kept(w, "a unit", "its description");
    assert_missing(w, "another unit");
    reopen(w);
    assert_entries(w, "5713");
    assert_kept(w, "a unit", "its description");
    keep_entry(w, 4, 2);
    reopen(w); /* what was asked for before the end is kept too */
    assert_entries(w, "57132");
}

static void a_unit_is_kept_once_with_the_latest_description(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep(w, 1, "a unit", "one");
    keep(w, 2, "a unit", "one");
    keep(w, 3, "a unit", "two");
    keep(w, 4, "", "nothing at all");
    wait_for(w, 4);
    assert_kept(w, "a unit", "two");
    const struct answer *a = read_back(w, str(""));
    assert_false(a->is_missing);
    assert_int_equal(a->unit_size, 0);
}

static void a_large_unit_comes_back_whole(void **state)
{
    struct world *w = (struct world *)*state;
    size_t size = MP_UNIT_BYTES_MAX + 1000;
    uint8_t *bytes = (uint8_t *)malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 13));
    reopen(w);
    mp_store_keep_unit(w->store, 1, mp_slice_of(bytes, size), str("large"), on_answer);
    wait_for(w, 1);
    assert_false(w->answers[0].is_error);
    const struct answer *a = read_back(w, mp_slice_of(bytes, size));
    assert_int_equal(a->unit_size, size);
    assert_memory_equal(a->unit, bytes, size);
    free(bytes);
}

static void many_requests_at_once_are_answered_in_order(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    for (uint32_t i = 0; i < 1000; i++)
        keep_entry(w, i, (uint8_t)(i % 10));
    wait_for(w, 1000);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(w->answers[i].ticket, i);
        assert_false(w->answers[i].is_error);
    }
    reopen(w);
    assert_int_equal(w->restored.entries.size, 3 + 1000);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(w->restored.entries.data[3 + i], i % 10);
}

static void more_than_a_thousand_waiting_are_refused(void **state)
{
    struct world *w = (struct world *)*state;
    uint32_t refused = 0;
    reopen(w);
    for (uint32_t i = 0; i < MP_STORE_REQUESTS_MAX + 10; i++)
        keep_entry(w, i, 1);
    wait_for(w, MP_STORE_REQUESTS_MAX + 10);
    for (uint32_t i = 0; i < w->answer_count; i++)
        if (w->answers[i].is_error) {
            refused++;
            assert_string_equal(w->answers[i].reason, "QUEUE_FULL");
            assert_true(w->answers[i].ticket >= MP_STORE_REQUESTS_MAX);
        }
    assert_int_equal(refused, 10);
    keep_entry(w, 1, 1);
    wait_for(w, MP_STORE_REQUESTS_MAX + 11);
    assert_false(w->answers[w->answer_count - 1].is_error);
}

/* The child says over a pipe what it was told is kept, and is killed while it goes on. */
static void keep_until_killed(struct world *w, int fd)
{
    if (uv_loop_init(&w->loop) != 0 || !try_open(w, &w->store))
        _exit(1);
    for (uint32_t i = 0;; i++) {
        char unit[32];
        snprintf(unit, sizeof(unit), "unit %u", i);
        w->answer_count = 0;
        keep(w, i, unit, "d");
        keep_entry(w, i, (uint8_t)(i % 10));
        wait_for(w, 2);
        if (w->answers[0].is_error || w->answers[1].is_error ||
            write(fd, &i, sizeof(i)) != sizeof(i))
            _exit(1);
    }
}

static void what_was_answered_survives_kill_9(void **state)
{
    struct world *w = (struct world *)*state;
    int fds[2];
    uint32_t last = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0)
        keep_until_killed(w, fds[1]);
    close(fds[1]);
    while (last < 50)
        assert_int_equal(read(fds[0], &last, sizeof(last)), sizeof(last));
    assert_int_equal(kill(child, SIGKILL), 0);
    while (read(fds[0], &last, sizeof(last)) == sizeof(last)) {
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    close(fds[0]);
    reopen(w);
    struct mp_mp_reader r;
    uint32_t count = 0;
    assert_int_equal(mp_mp_get_array(mp_buf_slice(&w->restored.entries), &count, &r), MP_OK);
    assert_true(count > last);
    for (uint32_t i = 0; i <= last; i++) {
        char unit[32];
        assert_int_equal(*r.at++, i % 10);
        snprintf(unit, sizeof(unit), "unit %u", i);
        assert_kept(w, unit, "d");
    }
}

/* --- files that are no good --- */

static void assert_refused(struct world *w, const char *part)
{
    struct mp_store *store = NULL;
    assert_false(try_open(w, &store));
    assert_null(store);
    assert_why(w, path_in(w, "mpreg.db"));
    assert_why(w, part);
    assert_int_equal(w->restored.entries.size, 0);
}

static void a_second_handle_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    pid_t child = fork(); /* locks of one process do not keep itself out */
    if (child == 0) {
        struct mp_store *second = NULL;
        bool is_open = try_open(w, &second);
        _exit(is_open || !strstr(w->text, "is open in another program: end that one"));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
    keep(w, 1, "a unit", "d");
    wait_for(w, 1);
    assert_kept(w, "a unit", "d");
}

static void a_file_of_a_later_version_is_refused_and_left_alone(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_entry(w, 1, 5);
    close_store(w);
    run_sql(w, "UPDATE meta SET schema = 7");
    assert_refused(w, "is of a later version of mpreg (its schema is 7, this version knows 1): "
                      "start that version");
    run_sql(w, "UPDATE meta SET schema = 1");
    reopen(w);
    assert_entries(w, "5");
}

static void put_file(const struct world *w, const char *bytes, size_t size, off_t at)
{
    int fd = open(path_in(w, "mpreg.db"), O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && pwrite(fd, bytes, size, at) == (ssize_t)size);
    close(fd);
}

static void what_is_no_database_of_ours_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    static const char garbage[] = "this is some text, and no database at all, however long one "
                                  "reads it, up to its very end and beyond: nothing";
    put_file(w, garbage, sizeof(garbage), 0);
    assert_refused(w, "is damaged, or no file of mpreg (file is not a database): put a copy of it "
                      "in its place, or move it away");
    unlink(path_in(w, "mpreg.db"));
    run_sql(w, "CREATE TABLE apples(color)");
    assert_refused(w, "no such table: meta");
    unlink(path_in(w, "mpreg.db"));
    run_sql(w, "CREATE TABLE meta(schema)");
    assert_refused(w, "is damaged: it tells no schema: put a copy");
    unlink(path_in(w, "mpreg.db"));
    assert_int_equal(mkdir(path_in(w, "mpreg.db"), 0700), 0);
    assert_refused(w, "cannot open ");
}

static void a_damaged_file_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    char junk[12000];
    reopen(w);
    for (uint32_t i = 0; i < 900; i++)
        keep_entry(w, i, 1);
    wait_for(w, 900);
    close_store(w);
    memset(junk, 0xa5, sizeof(junk));
    put_file(w, junk, sizeof(junk), 4096);
    assert_refused(w, "put a copy of it in its place");
}

static void an_entry_that_cannot_be_read_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_entry(w, 1, 5);
    close_store(w);
    run_sql(w, "INSERT INTO entries(entry) VALUES(x'93')");
    assert_refused(w, "holds an entry that cannot be read");
}

static void a_damaged_unit_counts_as_missing_until_it_is_kept_anew(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep(w, 1, "a unit", "d");
    keep(w, 2, "another", "d");
    wait_for(w, 2);
    close_store(w);
    run_sql(w, "UPDATE units SET unit = x'00' WHERE unit = CAST('a unit' AS BLOB)");
    reopen(w);
    assert_missing(w, "a unit");
    assert_kept(w, "another", "d");
    keep(w, 3, "a unit", "d");
    assert_kept(w, "a unit", "d");
}

static void a_file_without_permission_is_named(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    close_store(w);
    assert_int_equal(chmod(path_in(w, "mpreg.db"), 0444), 0);
    pid_t child = fork();
    if (child == 0) {
        struct mp_store *store = NULL;
        if (geteuid() == 0 && seteuid(NOBODY) != 0)
            _exit(77);
        bool is_open = try_open(w, &store);
        _exit(is_open || !strstr(w->text, "cannot write ") ||
              !strstr(w->text, "mpreg.db: give the node's user the right to"));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- a full disk --- */

/* In a mount namespace of its own, so that nothing stays mounted. 77: that is not allowed here. */
static int with_full_disk(struct world *w)
{
    static char large[600 << 10];
    memset(large, 'x', sizeof(large) - 1);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", w->dir, "tmpfs", 0, "size=8k") != 0)
        return 77;
    struct mp_store *none = NULL;
    if (try_open(w, &none) || !strstr(w->text, "no space is left on its disk"))
        return 1;
    if (mount("tmpfs", w->dir, "tmpfs", MS_REMOUNT, "size=512k") != 0)
        return 77;
    unlink(path_in(w, "mpreg.db"));
    if (uv_loop_init(&w->loop) != 0 || !try_open(w, &w->store))
        return 2;
    /* One that does not fit, together with some that do. */
    keep_entry(w, 1, 4);
    keep(w, 2, large, "d");
    keep(w, 3, "small", "d");
    wait_for(w, 3);
    if (w->answers[0].is_error || w->answers[2].is_error || !w->answers[1].is_error)
        return 3;
    if (strcmp(w->answers[1].code, "RESOURCE_EXHAUSTED") != 0 ||
        strcmp(w->answers[1].reason, "DISK_FULL") != 0 || !strstr(w->answers[1].message, w->dir))
        return 4;
    /* With room again all goes on. */
    if (mount("tmpfs", w->dir, "tmpfs", MS_REMOUNT, "size=8m") != 0)
        return 77;
    keep(w, 4, large, "d");
    wait_for(w, 4);
    if (w->answers[3].is_error)
        return 5;
    close_store(w);
    if (!try_open(w, &w->store) || w->restored.entries.size != 2)
        return 6;
    const struct answer *a = read_back(w, str(large));
    if (a->is_missing || a->unit_size != strlen(large))
        return 7;
    a = read_back(w, str("small"));
    return a->is_missing ? 8 : 0;
}

static void a_full_disk_refuses_what_does_not_fit_and_nothing_else(void **state)
{
    struct world *w = (struct world *)*state;
    pid_t child = fork();
    if (child == 0)
        _exit(with_full_disk(w));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WEXITSTATUS(status) == 77)
        skip(); /* only root may mount */
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_file_in_a_temporary_folder_works_alike(void **state)
{
    struct world *w = (struct world *)*state;
    assert_true(mp_store_open(&w->store, w->dir, true, &w->restored, &w->why));
    assert_true(mp_store_start(w->store, &w->loop, "n1", w, &w->why));
    keep(w, 1, "a unit", "d");
    assert_kept(w, "a unit", "d");
    close_store(w);
    /* One file remains. */
    assert_int_not_equal(access(path_in(w, "mpreg.db-wal"), F_OK), 0);
    assert_int_not_equal(access(path_in(w, "mpreg.db-shm"), F_OK), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_was_kept_is_there_after_the_next_start),
        TEST(a_unit_is_kept_once_with_the_latest_description),
        TEST(a_large_unit_comes_back_whole),
        TEST(many_requests_at_once_are_answered_in_order),
        TEST(more_than_a_thousand_waiting_are_refused),
        TEST(what_was_answered_survives_kill_9),
        TEST(a_second_handle_is_refused),
        TEST(a_file_of_a_later_version_is_refused_and_left_alone),
        TEST(what_is_no_database_of_ours_is_refused),
        TEST(a_damaged_file_is_refused),
        TEST(an_entry_that_cannot_be_read_is_refused),
        TEST(a_damaged_unit_counts_as_missing_until_it_is_kept_anew),
        TEST(a_file_without_permission_is_named),
        TEST(a_full_disk_refuses_what_does_not_fit_and_nothing_else),
        TEST(a_file_in_a_temporary_folder_works_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
