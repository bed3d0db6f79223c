/* What the store keeps of runs and messages: what was answered is there after any end of the
 * process, in the shape in which it is asked for; and a file that is no good is put aside. */
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

#define ANSWERS_MAX (MP_STORE_RUN_REQUESTS_MAX + 100)
#define READING     99999 /* a ticket */
#define RUN_BYTES   3000  /* of a record, where speed is looked at */

struct answer {
    uint64_t ticket;
    bool is_missing;
    bool is_error;
    char reason[32];
    char message[512];
};

struct world {
    char dir[128];
    char text[4 * PATH_MAX];
    struct mp_text why;
    struct mp_store *store;
    struct mp_store_restored restored;
    uv_loop_t loop;
    struct answer answers[ANSWERS_MAX];
    uint32_t answer_count;
    struct mp_buf found; /* of the last reading */
    struct mp_buf build;
    mp_time last_at; /* when the last answer came */
};

static int set_up(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/tmp/mpreg-store-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(uv_loop_init(&w->loop), 0);
    mp_store_restored_init(&w->restored);
    mp_buf_init(&w->found, mp_host_alloc(), 0);
    mp_buf_init(&w->build, mp_host_alloc(), 0);
    *state = w;
    return 0;
}

static void close_store(struct world *w)
{
    mp_store_stop(w->store);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    mp_store_close(w->store);
    w->store = NULL;
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
    mp_buf_fini(&w->found);
    mp_buf_fini(&w->build);
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
        copy_text(to->reason, sizeof(to->reason), fault.reason);
        copy_text(to->message, sizeof(to->message), fault.message);
    }
    mp_buf_clear(&w->found);
    assert_int_equal(mp_buf_append(&w->found, a->found), MP_OK);
    w->last_at = mp_host_clock();
}

static bool try_open(struct world *w)
{
    mp_text_init(&w->why, w->text, sizeof(w->text));
    mp_store_restored_fini(&w->restored);
    mp_store_restored_init(&w->restored);
    return mp_store_open(&w->store, w->dir, false, &w->restored, &w->why) &&
           mp_store_start(w->store, &w->loop, "n1", w, &w->why);
}

static void reopen(struct world *w)
{
    close_store(w);
    if (!try_open(w))
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

/* An array of texts, until the next one is built; `texts` ends with NULL. */
static struct mp_slice array_of(struct world *w, const char *const *texts)
{
    uint32_t count = 0;
    while (texts[count])
        count++;
    mp_buf_clear(&w->build);
    assert_int_equal(mp_mp_put_array(&w->build, count), MP_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(mp_mp_put_text(&w->build, texts[i]), MP_OK);
    return mp_buf_slice(&w->build);
}
#define ARRAY(w, ...) array_of(w, (const char *const[]){__VA_ARGS__, NULL})

static void keep_run(struct world *w, uint64_t ticket, const char *run, const char *head,
                     const char *body)
{
    mp_store_keep_run(w->store, ticket, str(run), ARRAY(w, head, body), on_answer);
}

static void keep_part(struct world *w, uint64_t ticket, const char *run, const char *part,
                      const char *bytes)
{
    mp_store_keep_run_part(w->store, ticket, ARRAY(w, run, part), str(bytes), on_answer);
}

static struct answer *wait_for_reading(struct world *w)
{
    do
        uv_run(&w->loop, UV_RUN_ONCE);
    while (w->answer_count == 0 || w->answers[w->answer_count - 1].ticket != READING);
    struct answer *a = &w->answers[w->answer_count - 1];
    a->ticket = 0;
    return a;
}

static const struct answer *read_run(struct world *w, const char *run)
{
    mp_store_read_run(w->store, READING, str(run), on_answer);
    return wait_for_reading(w);
}

static const struct answer *read_part(struct world *w, const char *run, const char *part)
{
    mp_store_read_run_part(w->store, READING, ARRAY(w, run, part), on_answer);
    return wait_for_reading(w);
}

/* Writes a value as people read it; texts and bytes alike, without quotes. */
static void show(struct mp_slice value, struct mp_text *out)
{
    struct mp_mp_reader r = mp_mp_reader_of(value);
    uint32_t left[8] = {1};
    uint32_t depth = 0;
    while (left[depth] != 0 || depth != 0) {
        struct mp_mp_token t;
        if (left[depth] == 0) {
            mp_text_put(out, "]");
            depth--;
            continue;
        }
        assert_int_equal(mp_mp_next(&r, &t), MP_OK);
        left[depth]--;
        if (out->size != 0 && out->data[out->size - 1] != '[')
            mp_text_put(out, " ");
        if (t.type == MP_MP_ARRAY) {
            mp_text_put(out, "[");
            left[++depth] = t.count;
        } else if (t.type == MP_MP_STR || t.type == MP_MP_BIN) {
            mp_text_put_slice(out, t.bytes);
        } else {
            mp_text_put_uint(out, (uint64_t)t.i);
        }
    }
}

static void assert_shows(struct mp_slice value, const char *expected)
{
    char text[4096];
    struct mp_text out;
    mp_text_init(&out, text, sizeof(text));
    show(value, &out);
    assert_string_equal(text, expected);
}

static void assert_run(struct world *w, const char *run, const char *expected)
{
    const struct answer *a = read_run(w, run);
    assert_false(a->is_error);
    assert_false(a->is_missing);
    assert_shows(mp_buf_slice(&w->found), expected);
}

static void assert_part(struct world *w, const char *run, const char *part, const char *expected)
{
    const struct answer *a = read_part(w, run, part);
    assert_false(a->is_error);
    assert_false(a->is_missing);
    assert_int_equal(w->found.size, strlen(expected));
    assert_memory_equal(w->found.data, expected, w->found.size);
}

static const char *path_in(const struct world *w, const char *file)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", w->dir, file);
    return path;
}

static void run_sql(const struct world *w, const char *file, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path_in(w, file), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* --- runs --- */

static void a_run_is_found_with_its_progress_in_order(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_run(w, 1, "r1", "head 1", "body 1");
    keep_part(w, 2, "r1", "progress/0002", "two");
    keep_part(w, 3, "r1", "result/load", "some bytes");
    keep_part(w, 4, "r1", "progress/0001", "one");
    keep_part(w, 5, "r1", "progress/0010", "");
    keep_run(w, 6, "r2", "head 2", "body 2");
    wait_for(w, 6);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(w->answers[i].ticket, i + 1);
        assert_false(w->answers[i].is_error);
    }
    assert_run(w, "r1", "[head 1 body 1 [one two ]]");
    assert_run(w, "r2", "[head 2 body 2 []]");
    assert_part(w, "r1", "result/load", "some bytes");
    assert_part(w, "r1", "progress/0010", "");
    reopen(w);
    assert_shows(mp_buf_slice(&w->restored.heads), "[head 1 head 2]");
    assert_run(w, "r1", "[head 1 body 1 [one two ]]");
    assert_part(w, "r1", "result/load", "some bytes");
}

static void what_is_not_kept_is_missing(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_run(w, 1, "r1", "head", "body");
    assert_true(read_run(w, "r2")->is_missing);
    assert_true(read_part(w, "r1", "result/other")->is_missing);
    assert_true(read_part(w, "r2", "result/load")->is_missing);
    assert_int_equal(w->found.size, 0);
    assert_shows(mp_buf_slice(&w->restored.heads), "[]");
    assert_shows(mp_buf_slice(&w->restored.messages), "[]");
}

static void keeping_a_run_again_replaces_it_and_its_progress_but_not_its_results(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_run(w, 1, "r1", "running", "begun");
    keep_run(w, 2, "r2", "head 2", "body 2");
    keep_part(w, 3, "r1", "progress/0001", "one");
    keep_part(w, 4, "r1", "result/load", "first");
    keep_part(w, 5, "r1", "result/load", "second");
    keep_part(w, 6, "r1", "progression", "no progress part");
    keep_run(w, 7, "r1", "succeeded", "over");
    wait_for(w, 7);
    assert_run(w, "r1", "[succeeded over []]");
    assert_part(w, "r1", "result/load", "second");
    assert_part(w, "r1", "progression", "no progress part");
    reopen(w);
    /* in the order in which they were kept first */
    assert_shows(mp_buf_slice(&w->restored.heads), "[succeeded head 2]");
}

static void a_run_is_forgotten_with_all_that_is_of_it(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_run(w, 1, "r1", "head 1", "body 1");
    keep_part(w, 2, "r1", "result/load", "bytes");
    keep_part(w, 3, "r1", "progress/0001", "one");
    keep_run(w, 4, "r2", "head 2", "body 2");
    mp_store_forget_run(w->store, str("r1"));
    assert_true(read_run(w, "r1")->is_missing);
    assert_true(read_part(w, "r1", "result/load")->is_missing);
    assert_true(read_part(w, "r1", "progress/0001")->is_missing);
    assert_int_equal(w->answer_count, 4 + 3); /* nobody is told of forgetting */
    keep_run(w, 5, "r1", "head 3", "body 3");
    mp_store_forget_run(w->store, str("r2")); /* also right before the end */
    reopen(w);
    assert_shows(mp_buf_slice(&w->restored.heads), "[head 3]");
}

static void parts_of_a_run_without_a_head_go_at_the_next_start(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_part(w, 1, "r1", "result/load", "bytes");
    keep_run(w, 2, "r2", "head 2", "body 2");
    keep_part(w, 3, "r2", "result/load", "others");
    assert_part(w, "r1", "result/load", "bytes");
    reopen(w);
    assert_true(read_part(w, "r1", "result/load")->is_missing);
    assert_part(w, "r2", "result/load", "others");
}

static void a_large_part_comes_back_whole(void **state)
{
    struct world *w = (struct world *)*state;
    size_t size = 20u << 20;
    uint8_t *bytes = (uint8_t *)malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 13));
    reopen(w);
    keep_run(w, 1, "r1", "head", "body");
    mp_store_keep_run_part(w->store, 2, ARRAY(w, "r1", "result/x"), mp_slice_of(bytes, size),
                           on_answer);
    wait_for(w, 2);
    assert_false(w->answers[1].is_error);
    assert_false(read_part(w, "r1", "result/x")->is_missing);
    assert_int_equal(w->found.size, size);
    assert_memory_equal(w->found.data, bytes, size);
    free(bytes);
}

static void what_is_no_record_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    mp_store_keep_run(w->store, 1, str("r1"), str("\x91\x01"), on_answer);
    mp_store_keep_run(w->store, 2, str("r1"), str("\x92\x01"), on_answer);
    mp_store_keep_run_part(w->store, 3, ARRAY(w, "r1"), str("bytes"), on_answer);
    mp_store_keep_run_part(w->store, 4, ARRAY(w, "r1", ""), str("bytes"), on_answer);
    mp_store_keep_messages(w->store, 5, str("\x01"), on_answer);
    mp_store_keep_messages(w->store, 6, str("\x91\x91\xa1t"), on_answer);
    keep_run(w, 7, "r2", "head", "body");
    wait_for(w, 7);
    for (uint32_t i = 0; i < 6; i++) {
        assert_true(w->answers[i].is_error);
        assert_string_equal(w->answers[i].reason, "STORE_FAILED");
    }
    assert_false(w->answers[6].is_error);
    assert_true(read_run(w, "r1")->is_missing);
}

/* --- messages --- */

static void put_message(struct mp_buf *b, const char *topic, uint64_t seq)
{
    assert_int_equal(mp_mp_put_array(b, 4), MP_OK);
    assert_int_equal(mp_mp_put_text(b, topic), MP_OK);
    assert_int_equal(mp_mp_put_uint(b, seq), MP_OK);
    assert_int_equal(mp_mp_put_uint(b, 1000 + seq), MP_OK);
    assert_int_equal(mp_mp_put_text(b, "data"), MP_OK);
}

static void forget_up_to(struct world *w, const char *topic, uint64_t seq)
{
    mp_buf_clear(&w->build);
    assert_int_equal(mp_mp_put_array(&w->build, 1), MP_OK);
    assert_int_equal(mp_mp_put_array(&w->build, 2), MP_OK);
    assert_int_equal(mp_mp_put_text(&w->build, topic), MP_OK);
    assert_int_equal(mp_mp_put_uint(&w->build, seq), MP_OK);
    mp_store_forget_messages(w->store, mp_buf_slice(&w->build));
}

static void messages_come_back_by_seq_and_are_forgotten_by_topic(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    mp_buf_clear(&w->build);
    assert_int_equal(mp_mp_put_array(&w->build, 4), MP_OK);
    put_message(&w->build, "b", 1);
    put_message(&w->build, "a", 2);
    put_message(&w->build, "b", 3);
    put_message(&w->build, "a", 4);
    mp_store_keep_messages(w->store, 1, mp_buf_slice(&w->build), on_answer);
    wait_for(w, 1);
    assert_false(w->answers[0].is_error);
    reopen(w);
    assert_shows(mp_buf_slice(&w->restored.messages),
                 "[[b 1 1001 data] [a 2 1002 data] [b 3 1003 data] [a 4 1004 data]]");
    forget_up_to(w, "a", 3);
    forget_up_to(w, "b", 1);
    forget_up_to(w, "c", 9);
    reopen(w);
    assert_shows(mp_buf_slice(&w->restored.messages), "[[b 3 1003 data] [a 4 1004 data]]");
}

/* --- bounds --- */

static void the_oldest_heads_and_messages_beyond_the_bound_are_deleted(void **state)
{
    struct world *w = (struct world *)*state;
    uint32_t count = 0;
    struct mp_mp_reader r;
    reopen(w);
    close_store(w);
    run_sql(w, "runs.db",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100007)"
            " INSERT INTO runs(number, run, head) SELECT i, 'r' || i, x'01' FROM n;"
            "INSERT INTO parts SELECT run, x'', x'01' FROM runs;"
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80)"
            " INSERT INTO messages SELECT 't', i, x'c6000FFFFB' || zeroblob(1048571) FROM n;");
    run_sql(w, "runs.db",
            "UPDATE messages SET message = CAST(x'c6000FFFFB' || zeroblob(1048571) AS BLOB)");
    reopen(w);
    assert_int_equal(mp_mp_get_array(mp_buf_slice(&w->restored.heads), &count, &r), MP_OK);
    assert_int_equal(count, MP_STORE_HEADS_MAX);
    assert_int_equal(mp_mp_get_array(mp_buf_slice(&w->restored.messages), &count, &r), MP_OK);
    assert_int_equal(count, 64);
    close_store(w);
    run_sql(w, "runs.db",
            "CREATE TABLE wrong(x CHECK(x = 0));"
            "INSERT INTO wrong SELECT count(*) - 100000 FROM runs;"
            "INSERT INTO wrong SELECT count(*) FROM parts WHERE run IN ('r1', 'r7');"
            "INSERT INTO wrong SELECT count(*) - 1 FROM runs WHERE run = CAST('r8' AS TEXT);"
            "INSERT INTO wrong SELECT count(*) - 64 FROM messages WHERE seq > 16;");
}

static void more_than_the_bound_waiting_are_refused_and_deploys_are_not(void **state)
{
    struct world *w = (struct world *)*state;
    uint32_t refused = 0;
    reopen(w);
    for (uint32_t i = 0; i < MP_STORE_RUN_REQUESTS_MAX + 10; i++)
        keep_part(w, i, "r1", "result/x", "bytes");
    mp_store_keep_unit(w->store, READING, str("a unit"), str("d"), on_answer);
    wait_for(w, MP_STORE_RUN_REQUESTS_MAX + 11);
    for (uint32_t i = 0; i < w->answer_count; i++)
        if (w->answers[i].is_error) {
            refused++;
            assert_string_equal(w->answers[i].reason, "QUEUE_FULL");
            assert_non_null(strstr(w->answers[i].message, "records of runs and messages wait"));
            assert_true(w->answers[i].ticket >= MP_STORE_RUN_REQUESTS_MAX);
            assert_true(w->answers[i].ticket != READING);
        }
    assert_int_equal(refused, 10);
    w->answer_count = 0;
    keep_run(w, 1, "r1", "head", "body");
    wait_for(w, 1);
    assert_false(w->answers[0].is_error);
}

static void more_bytes_waiting_than_the_bound_are_refused_but_one_record_may_be_larger(void **state)
{
    struct world *w = (struct world *)*state;
    size_t size = (size_t)MP_STORE_RUN_BYTES_MAX + 1000;
    uint8_t *bytes = (uint8_t *)calloc(1, size);
    reopen(w);
    mp_store_keep_run_part(w->store, 1, ARRAY(w, "r1", "result/x"), mp_slice_of(bytes, size),
                           on_answer);
    keep_part(w, 2, "r1", "result/y", "bytes");
    wait_for(w, 2);
    assert_int_equal(w->answers[0].ticket, 2);
    assert_string_equal(w->answers[0].reason, "QUEUE_FULL");
    assert_false(w->answers[1].is_error);
    /* Nothing of that much is even looked at. */
    mp_store_keep_run_part(w->store, 3, ARRAY(w, "r1", "result/z"),
                           mp_slice_of(bytes, (size_t)MP_STORE_RECORD_BYTES_MAX + 1), on_answer);
    wait_for(w, 3);
    assert_string_equal(w->answers[2].reason, "TOO_LARGE");
    free(bytes);
}

static off_t size_of(const struct world *w, const char *file)
{
    struct stat st;
    assert_int_equal(stat(path_in(w, file), &st), 0);
    return st.st_size;
}

static void what_is_forgotten_gives_its_space_back(void **state)
{
    struct world *w = (struct world *)*state;
    static char bytes[200 << 10];
    char run[16];
    memset(bytes, 'x', sizeof(bytes) - 1);
    reopen(w);
    for (uint32_t i = 0; i < 200; i++) {
        snprintf(run, sizeof(run), "r%u", i);
        keep_run(w, i, run, "head", bytes);
        wait_for(w, i + 1);
    }
    for (uint32_t i = 0; i < 190; i++) {
        snprintf(run, sizeof(run), "r%u", i);
        mp_store_forget_run(w->store, str(run));
    }
    keep_run(w, 1, "last", "head", "body");
    wait_for(w, 201);
    /* It gives back while it has nothing else to do, so it is left alone. */
    for (uint32_t i = 0; size_of(w, "runs.db") > 12 << 20; i++) {
        assert_true(i < 60000);
        uv_sleep(1);
    }
    assert_false(read_run(w, "r195")->is_missing);
}

/* --- ends --- */

/* The child says over a pipe what it was told is kept, and is killed while it goes on. */
static void keep_until_killed(struct world *w, int fd)
{
    if (uv_loop_init(&w->loop) != 0 || !try_open(w))
        _exit(1);
    for (uint32_t i = 0;; i++) {
        char run[32];
        snprintf(run, sizeof(run), "r%u", i);
        w->answer_count = 0;
        keep_run(w, i, run, run, "body");
        keep_part(w, i, run, "progress/1", "one");
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
    while (last < 500)
        assert_int_equal(read(fds[0], &last, sizeof(last)), sizeof(last));
    assert_int_equal(kill(child, SIGKILL), 0);
    while (read(fds[0], &last, sizeof(last)) == sizeof(last)) {
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    close(fds[0]);
    reopen(w);
    for (uint32_t i = 0; i <= last; i++) {
        char run[32];
        char expected[64];
        snprintf(run, sizeof(run), "r%u", i);
        snprintf(expected, sizeof(expected), "[%s body [one]]", run);
        assert_run(w, run, expected);
        w->answer_count = 0;
    }
}

static void what_was_asked_for_before_the_end_is_kept(void **state)
{
    struct world *w = (struct world *)*state;
    char run[16];
    uint32_t count = 0;
    struct mp_mp_reader r;
    reopen(w);
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(run, sizeof(run), "r%u", i);
        keep_run(w, i, run, "head", "body");
    }
    mp_store_keep_entries(w->store, 1, str("\x91\x05"), on_answer);
    reopen(w);
    assert_int_equal(mp_mp_get_array(mp_buf_slice(&w->restored.heads), &count, &r), MP_OK);
    assert_int_equal(count, 5000);
    assert_shows(mp_buf_slice(&w->restored.entries), "[5]");
}

/* --- files that are no good --- */

static void put_file(const struct world *w, const char *bytes, size_t size, off_t at)
{
    int fd = open(path_in(w, "runs.db"), O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && pwrite(fd, bytes, size, at) == (ssize_t)size);
    close(fd);
}

static bool is_there(const struct world *w, const char *file)
{
    return access(path_in(w, file), F_OK) == 0;
}

/* It is moved to `file`, and what was kept of code is still there. */
static void assert_put_aside(struct world *w, const char *file)
{
    assert_false(is_there(w, file));
    reopen(w);
    assert_true(is_there(w, file));
    assert_shows(mp_buf_slice(&w->restored.heads), "[]");
    assert_shows(mp_buf_slice(&w->restored.entries), "[5]");
    keep_run(w, 1, "r1", "head", "body");
    assert_run(w, "r1", "[head body []]");
    close_store(w);
}

static void a_file_that_is_no_good_is_moved_aside(void **state)
{
    struct world *w = (struct world *)*state;
    char junk[12000];
    static const char garbage[] = "this is some text, and no database at all, however long one "
                                  "reads it, up to its very end and beyond: nothing";
    reopen(w);
    mp_store_keep_entries(w->store, 1, str("\x91\x05"), on_answer);
    close_store(w);
    unlink(path_in(w, "runs.db"));
    put_file(w, garbage, sizeof(garbage), 0);
    assert_put_aside(w, "runs.db.damaged-1");
    run_sql(w, "runs.db", "UPDATE meta SET schema = 7");
    assert_put_aside(w, "runs.db.damaged-2");
    run_sql(w, "runs.db", "DROP TABLE parts");
    assert_put_aside(w, "runs.db.damaged-3");
    run_sql(w, "runs.db", "UPDATE runs SET head = x'93'");
    assert_put_aside(w, "runs.db.damaged-4");
    memset(junk, 0xa5, sizeof(junk));
    put_file(w, junk, sizeof(junk), 4096);
    assert_put_aside(w, "runs.db.damaged-5");
    for (unsigned i = 6; i < 12; i++) {
        put_file(w, garbage, sizeof(garbage), 0);
        reopen(w);
        close_store(w);
    }
    assert_true(is_there(w, "runs.db.damaged-9"));
    assert_false(is_there(w, "runs.db.damaged-10"));
}

static void damage_that_a_write_finds_is_moved_aside_too(void **state)
{
    struct world *w = (struct world *)*state;
    char junk[4096];
    char run[16];
    reopen(w);
    for (uint32_t i = 0; i < 3000; i++) {
        snprintf(run, sizeof(run), "r%u", i);
        keep_run(w, i, run, "head", "body");
    }
    wait_for(w, 3000);
    close_store(w);
    reopen(w);
    /* Behind the back of the store, in pages that its cache does not have. */
    memset(junk, 0xa5, sizeof(junk));
    off_t size = size_of(w, "runs.db");
    for (off_t at = 4096; at < size; at += 4096)
        put_file(w, junk, sizeof(junk), at);
    w->answer_count = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        snprintf(run, sizeof(run), "n%u", i * 7919 % 3000);
        keep_run(w, i, run, "head", "body");
        keep_part(w, i, run, "progress/1", "one");
    }
    wait_for(w, 6000);
    for (uint32_t i = 0; i < 6000; i++)
        assert_false(w->answers[i].is_error);
    assert_true(is_there(w, "runs.db.damaged-1"));
    w->answer_count = 0;
    assert_run(w, "n2999", "[head body [one]]");
    assert_true(read_run(w, "r17")->is_missing);
}

static void a_record_that_is_damaged_is_an_error(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w);
    keep_run(w, 1, "r1", "head 1", "body 1");
    keep_run(w, 2, "r2", "head 2", "body 2");
    close_store(w);
    run_sql(w, "runs.db", "UPDATE parts SET bytes = x'93' WHERE run = CAST('r1' AS BLOB)");
    reopen(w);
    const struct answer *a = read_run(w, "r1");
    assert_true(a->is_error);
    assert_string_equal(a->reason, "STORE_FAILED");
    assert_non_null(strstr(a->message, "cannot be read: database disk image is malformed"));
    assert_run(w, "r2", "[head 2 body 2 []]");
}

static void a_file_that_another_program_has_open_is_refused(void **state)
{
    struct world *w = (struct world *)*state;
    sqlite3 *db = NULL;
    reopen(w);
    close_store(w);
    assert_int_equal(sqlite3_open(path_in(w, "runs.db"), &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE", NULL, NULL, NULL),
        SQLITE_OK);
    assert_false(try_open(w));
    w->store = NULL;
    assert_non_null(strstr(w->text, "runs.db is open in another program: end that one"));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_false(is_there(w, "runs.db.damaged-1"));
}

/* --- a full disk --- */

/* In a mount namespace of its own, so that nothing stays mounted. 77: that is not allowed here. */
static int with_full_disk(struct world *w)
{
    static char large[600 << 10];
    memset(large, 'x', sizeof(large) - 1);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", w->dir, "tmpfs", 0, "size=8m") != 0)
        return 77;
    if (uv_loop_init(&w->loop) != 0 || !try_open(w))
        return 1;
    close_store(w);
    unlink(path_in(w, "runs.db"));
    if (mount("tmpfs", w->dir, "tmpfs", MS_REMOUNT, "size=24k") != 0)
        return 77;
    /* There is room for the file of code alone. */
    if (!try_open(w) || w->restored.heads.size != 1 || w->restored.messages.size != 1)
        return 2;
    keep_run(w, 1, "r1", "head 1", "body 1");
    wait_for(w, 1);
    if (!w->answers[0].is_error || strcmp(w->answers[0].reason, "DISK_FULL") != 0 ||
        !read_run(w, "r1")->is_error)
        return 8;
    if (mount("tmpfs", w->dir, "tmpfs", MS_REMOUNT, "size=512k") != 0)
        return 77;
    w->answer_count = 0;
    keep_run(w, 1, "r1", "head 1", "body 1");
    keep_run(w, 2, "r2", "head 2", large);
    keep_run(w, 3, "r3", "head 3", "body 3");
    wait_for(w, 3);
    if (w->answers[0].is_error || w->answers[2].is_error || !w->answers[1].is_error)
        return 3;
    if (strcmp(w->answers[1].reason, "DISK_FULL") != 0 || !strstr(w->answers[1].message, w->dir))
        return 4;
    if (mount("tmpfs", w->dir, "tmpfs", MS_REMOUNT, "size=8m") != 0)
        return 77;
    keep_run(w, 4, "r2", "head 2", large);
    wait_for(w, 4);
    if (w->answers[3].is_error)
        return 5;
    close_store(w);
    if (!try_open(w) || read_run(w, "r2")->is_missing || read_run(w, "r3")->is_missing)
        return 6;
    return 0;
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

static void files_in_a_temporary_folder_work_alike(void **state)
{
    struct world *w = (struct world *)*state;
    assert_true(mp_store_open(&w->store, w->dir, true, &w->restored, &w->why));
    assert_true(mp_store_start(w->store, &w->loop, "n1", w, &w->why));
    keep_run(w, 1, "r1", "head", "body");
    assert_run(w, "r1", "[head body []]");
    close_store(w);
    assert_false(is_there(w, "runs.db-wal"));
    assert_false(is_there(w, "runs.db-shm"));
}

/* --- beside each other --- */

/* How many records of 3 KB are kept in a second, and how long a deploy's KEEP takes meanwhile, is
 * said, not judged: that is the disk's. */
static void a_deploy_does_not_wait_for_all_records_that_wait(void **state)
{
    struct world *w = (struct world *)*state;
    static char body[RUN_BYTES];
    const uint32_t count = 12000; /* 36 MB */
    uint32_t behind = 0;
    char run[32];
    memset(body, 'x', sizeof(body) - 1);
    reopen(w);
    mp_time began = mp_host_clock();
    for (uint32_t i = 0; i < count; i++) {
        snprintf(run, sizeof(run), "%08x-run-%u", i * 2654435761u, i);
        keep_run(w, i, run, "head", body);
    }
    mp_time asked = mp_host_clock();
    mp_store_keep_entries(w->store, READING, str("\x91\x05"), on_answer);
    struct answer *a = wait_for_reading(w);
    mp_time kept = w->last_at;
    assert_false(a->is_error);
    /* Those that were answered before it were in transactions that had begun. */
    wait_for(w, count + 1);
    for (uint32_t i = (uint32_t)(a - w->answers) + 1; i < w->answer_count; i++)
        behind++;
    print_message("%.0f records of 3 KB a second; a deploy's KEEP meanwhile: %.1f ms, before %u "
                  "records\n",
                  count / ((double)(w->last_at - began) / 1e9), (double)(kept - asked) / 1e6,
                  behind);
    for (uint32_t i = 0; i < w->answer_count; i++)
        assert_false(w->answers[i].is_error);
    assert_true(behind > 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_run_is_found_with_its_progress_in_order),
        TEST(what_is_not_kept_is_missing),
        TEST(keeping_a_run_again_replaces_it_and_its_progress_but_not_its_results),
        TEST(a_run_is_forgotten_with_all_that_is_of_it),
        TEST(parts_of_a_run_without_a_head_go_at_the_next_start),
        TEST(a_large_part_comes_back_whole),
        TEST(what_is_no_record_is_refused),
        TEST(messages_come_back_by_seq_and_are_forgotten_by_topic),
        TEST(the_oldest_heads_and_messages_beyond_the_bound_are_deleted),
        TEST(more_than_the_bound_waiting_are_refused_and_deploys_are_not),
        TEST(more_bytes_waiting_than_the_bound_are_refused_but_one_record_may_be_larger),
        TEST(what_is_forgotten_gives_its_space_back),
        TEST(what_was_answered_survives_kill_9),
        TEST(what_was_asked_for_before_the_end_is_kept),
        TEST(a_file_that_is_no_good_is_moved_aside),
        TEST(damage_that_a_write_finds_is_moved_aside_too),
        TEST(a_record_that_is_damaged_is_an_error),
        TEST(a_file_that_another_program_has_open_is_refused),
        TEST(a_full_disk_refuses_what_does_not_fit_and_nothing_else),
        TEST(files_in_a_temporary_folder_work_alike),
        TEST(a_deploy_does_not_wait_for_all_records_that_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
