/* runs.db: heads, bodies and parts of runs, and messages of topics. The file is in WAL mode with
 * synchronous=NORMAL: a commit is written but not waited for, so an end of the process loses
 * nothing that was committed, and a power cut may lose the last commits, in order; the file is
 * whole either way. A body is the part without a name, so that heads lie together and are read
 * quickly.
 *
 * Records of runs are not worth a node that does not start: a damaged file is moved aside and
 * another one begun, at the start or when a write finds it out.
 *
 * The file gives space back: what is deleted leaves free pages, and when they are a quarter of it,
 * they are cut off a few at a time whenever the thread has nothing else to do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/store_internal.h"
#include "src/wire/msgpack.h"

#define SETTINGS(synchronous)                                                                      \
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA auto_vacuum = INCREMENTAL;"                           \
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = " synchronous ";"                             \
    "PRAGMA journal_size_limit = 1048576; PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;"

#define FREE_PAGES_MIN 1024 /* fewer are left for what comes next */
#define TRIM_PAGES     "1024"
#define MOVED_BYTES    (PATH_MAX + 32)

enum statement {
    PUT_HEAD = MP_STORE_OWN,
    PUT_PART,
    PUT_MESSAGE,
    DROP_HEAD,
    DROP_PARTS,
    DROP_PROGRESS,
    DROP_MESSAGES,
    GET_HEAD,
    GET_PART,
    COUNT_PROGRESS,
    LIST_PROGRESS,
    COUNT_FREE,
    COUNT_PAGES,
    TRIM,
    STATEMENT_END
};
static_assert(STATEMENT_END <= MP_STORE_STATEMENTS_MAX, "a file has room for them");

/* What begins with "progress/": '0' is the byte after '/'. */
#define OF_PROGRESS                                                                                \
    "run = ?1 AND part >= CAST('progress/' AS BLOB) AND part < CAST('progress0' AS BLOB)"
#define AT(statement) [(statement)-MP_STORE_OWN]

static const char *const statement_texts[STATEMENT_END - MP_STORE_OWN] = {
    AT(PUT_HEAD) = "INSERT INTO runs(run, head) VALUES(?1, ?2)"
                   " ON CONFLICT(run) DO UPDATE SET head = ?2",
    AT(PUT_PART) = "INSERT INTO parts(run, part, bytes) VALUES(?1, ?2, ?3)"
                   " ON CONFLICT(run, part) DO UPDATE SET bytes = ?3",
    AT(PUT_MESSAGE) = "INSERT OR REPLACE INTO messages(topic, seq, message) VALUES(?1, ?2, ?3)",
    AT(DROP_HEAD) = "DELETE FROM runs WHERE run = ?1",
    AT(DROP_PARTS) = "DELETE FROM parts WHERE run = ?1",
    AT(DROP_PROGRESS) = "DELETE FROM parts WHERE " OF_PROGRESS,
    AT(DROP_MESSAGES) = "DELETE FROM messages WHERE topic = ?1 AND seq <= ?2",
    AT(GET_HEAD) = "SELECT head FROM runs WHERE run = ?1",
    AT(GET_PART) = "SELECT bytes FROM parts WHERE run = ?1 AND part = ?2",
    AT(COUNT_PROGRESS) = "SELECT count(*) FROM parts WHERE " OF_PROGRESS,
    AT(LIST_PROGRESS) = "SELECT bytes FROM parts WHERE " OF_PROGRESS " ORDER BY part",
    AT(COUNT_FREE) = "PRAGMA freelist_count",
    AT(COUNT_PAGES) = "PRAGMA page_count",
    AT(TRIM) = "PRAGMA incremental_vacuum(" TRIM_PAGES ")",
};

static const char schema_text[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE meta(schema INTEGER NOT NULL);"
    "CREATE TABLE runs(number INTEGER PRIMARY KEY, run BLOB NOT NULL UNIQUE, head BLOB NOT NULL);"
    "CREATE TABLE parts(run BLOB NOT NULL, part BLOB NOT NULL, bytes BLOB NOT NULL,"
    " UNIQUE(run, part));"
    "CREATE TABLE messages(topic BLOB NOT NULL, seq INTEGER NOT NULL, message BLOB NOT NULL,"
    " PRIMARY KEY(topic, seq)) WITHOUT ROWID;"
    "INSERT INTO meta VALUES(1);"
    "COMMIT";

/* --- opening --- */

/* What is told of one table at a start, and no more than that. */
struct kind_of_row {
    const char *what; /* for people, of one and of many */
    const char *what_all;
    const char *weigh; /* key and bytes of each row, the newest first */
    const char *count; /* rows up to key ?1 */
    const char *drop;  /* deletes them */
    const char *list;  /* those behind it, in order */
    const char *count_listed;
    uint64_t count_max;
    uint64_t bytes_max;
};

static const struct kind_of_row heads_kind = {
    .what = "the head of a run",
    .what_all = "runs",
    .weigh = "SELECT number, length(head) FROM runs ORDER BY number DESC",
    .count = "SELECT count(*) FROM runs WHERE number <= ?1",
    .drop = "DELETE FROM runs WHERE number <= ?1",
    .list = "SELECT head FROM runs WHERE number > ?1 ORDER BY number",
    .count_listed = "SELECT count(*) FROM runs WHERE number > ?1",
    .count_max = MP_STORE_HEADS_MAX,
    .bytes_max = MP_STORE_HEADS_BYTES_MAX,
};

static const struct kind_of_row messages_kind = {
    .what = "a message",
    .what_all = "messages",
    .weigh = "SELECT seq, length(message) FROM messages ORDER BY seq DESC",
    .count = "SELECT count(*) FROM messages WHERE seq <= ?1",
    .drop = "DELETE FROM messages WHERE seq <= ?1",
    .list = "SELECT message FROM messages WHERE seq > ?1 ORDER BY seq, topic",
    .count_listed = "SELECT count(*) FROM messages WHERE seq > ?1",
    .count_max = UINT32_MAX,
    .bytes_max = MP_STORE_MESSAGES_BYTES_MAX,
};

/* Finds the newest key that is too many; INT64_MIN: none is. */
static bool find_cut(struct mp_store_file *f, const struct kind_of_row *k, int64_t *cut)
{
    sqlite3_stmt *statement = NULL;
    uint64_t count = 0;
    uint64_t bytes = 0;
    int code = sqlite3_prepare_v2(f->db, k->weigh, -1, &statement, NULL);
    *cut = INT64_MIN;
    while (code == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        count++;
        bytes += (uint64_t)sqlite3_column_int64(statement, 1);
        if (count <= k->count_max && bytes <= k->bytes_max)
            continue;
        *cut = sqlite3_column_int64(statement, 0);
        break;
    }
    return sqlite3_finalize(statement) == SQLITE_OK && code == SQLITE_OK;
}

/* Runs `text` with a key; gives the number in the first row, or 0 without one. */
static bool ask_with_key(struct mp_store_file *f, const char *text, int64_t key, int64_t *number)
{
    sqlite3_stmt *statement = NULL;
    *number = 0;
    if (sqlite3_prepare_v2(f->db, text, -1, &statement, NULL) != SQLITE_OK)
        return false;
    sqlite3_bind_int64(statement, 1, key);
    if (sqlite3_step(statement) == SQLITE_ROW)
        *number = sqlite3_column_int64(statement, 0);
    return sqlite3_finalize(statement) == SQLITE_OK;
}

static bool is_damage(int code)
{
    return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;
}

/* A full disk takes no deletion either: what is too much then stays on it, is not told, and goes at
 * the next start that has room. */
static bool drop_up_to(struct mp_store_file *f, const struct kind_of_row *k, int64_t cut,
                       struct mp_text *why)
{
    int64_t count = 0;
    int64_t none = 0;
    if (!ask_with_key(f, k->count, cut, &count) || !ask_with_key(f, k->drop, cut, &none))
        return !is_damage(sqlite3_errcode(f->db)) || mp_store_file_fail(f, why);
    mp_log(2, "%s holds more %s than a node is told of: the oldest %lld are deleted", f->path,
           k->what_all, (long long)count);
    return true;
}

/* One after the other behind an array's header. */
static bool list(struct mp_store_file *f, const struct kind_of_row *k, int64_t cut,
                 struct mp_buf *out, struct mp_text *why)
{
    sqlite3_stmt *statement = NULL;
    int64_t count = 0;
    if (!ask_with_key(f, k->count_listed, cut, &count) ||
        sqlite3_prepare_v2(f->db, k->list, -1, &statement, NULL) != SQLITE_OK)
        return mp_store_file_fail(f, why);
    sqlite3_bind_int64(statement, 1, cut);
    bool is_good = count <= UINT32_MAX && mp_mp_put_array(out, (uint32_t)count) == MP_OK;
    int code = SQLITE_DONE;
    while (is_good && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct mp_slice row = mp_slice_of(sqlite3_column_blob(statement, 0),
                                          (size_t)sqlite3_column_bytes(statement, 0));
        is_good = mp_mp_check(row) == MP_OK && mp_mp_put_raw(out, row) == MP_OK;
    }
    bool is_read = sqlite3_finalize(statement) == SQLITE_OK && code == SQLITE_DONE;
    if (is_good && !is_read)
        return mp_store_file_fail(f, why);
    return is_good || mp_store_file_fail_content(f, k->what, why);
}

static bool load(struct mp_store_file *f, const struct kind_of_row *k, struct mp_buf *out,
                 struct mp_text *why)
{
    int64_t cut = INT64_MIN;
    if (!find_cut(f, k, &cut))
        return mp_store_file_fail(f, why);
    return (cut == INT64_MIN || drop_up_to(f, k, cut, why)) && list(f, k, cut, out, why);
}

/* Nothing leads to parts without a head. */
static bool drop_orphans(struct mp_store_file *f, struct mp_text *why)
{
    int code = sqlite3_exec(f->db, "DELETE FROM parts WHERE run NOT IN (SELECT run FROM runs)",
                            NULL, NULL, NULL);
    return !is_damage(code) || mp_store_file_fail(f, why);
}

static bool open_empty(struct mp_store_file *f, bool is_temporary, struct mp_text *why)
{
    f->is_damaged = false;
    f->code = SQLITE_OK;
    f->system = 0;
    return mp_store_file_open(f, is_temporary ? SETTINGS("OFF") : SETTINGS("NORMAL"), why) &&
           mp_store_file_check_schema(f, schema_text, why) &&
           mp_store_file_prepare(f, statement_texts, STATEMENT_END - MP_STORE_OWN, why);
}

static bool open_and_load(struct mp_store_file *f, bool is_temporary, struct mp_store_restored *out,
                          struct mp_text *why)
{
    if (open_empty(f, is_temporary, why) && load(f, &heads_kind, &out->heads, why) &&
        load(f, &messages_kind, &out->messages, why) && drop_orphans(f, why))
        return true;
    mp_buf_clear(&out->heads);
    mp_buf_clear(&out->messages);
    mp_store_file_close(f);
    return false;
}

/* The write-ahead log goes with it: it may hold what the file lacks. */
static bool move_aside(const struct mp_store_file *f, char moved_to[MOVED_BYTES])
{
    char log[MOVED_BYTES];
    char moved_log[MOVED_BYTES + 8];
    unsigned number = 0;
    do
        snprintf(moved_to, MOVED_BYTES, "%s.damaged-%u", f->path, ++number);
    while (number < MP_STORE_DAMAGED_MAX && access(moved_to, F_OK) == 0);
    snprintf(log, sizeof(log), "%s-wal", f->path);
    snprintf(moved_log, sizeof(moved_log), "%s-wal", moved_to);
    if (rename(f->path, moved_to) != 0)
        return false;
    if (rename(log, moved_log) != 0)
        unlink(moved_log); /* of an older one */
    return true;
}

/* Appends what became of a damaged file to what was said of it. */
static bool replace(struct mp_store_file *f, struct mp_text *said)
{
    char moved_to[MOVED_BYTES];
    bool is_moved = move_aside(f, moved_to);
    mp_text_put(said, is_moved ? ": it is moved to " : ": it cannot be moved to ");
    mp_text_put(said, moved_to);
    mp_text_put(said,
                is_moved ? ", and another one begun, without the runs and messages in it" : ": ");
    if (!is_moved)
        mp_text_put(said, strerror(errno));
    return is_moved;
}

/* The node does without, and tries again with whatever is to be kept. */
static bool go_without(struct mp_store_file *f, struct mp_store_restored *out,
                       const struct mp_text *said)
{
    if (!mp_store_is_full(f->code, f->system))
        return false;
    mp_log(3, "%s; no runs and messages are kept until then", said->data);
    return mp_mp_put_array(&out->heads, 0) == MP_OK && mp_mp_put_array(&out->messages, 0) == MP_OK;
}

bool mp_store_runs_open(struct mp_store_file *f, const char *dir, bool is_temporary,
                        struct mp_store_restored *out, struct mp_text *why)
{
    char text[4 * PATH_MAX];
    struct mp_text said;
    mp_text_init(&said, text, sizeof(text));
    if (!mp_store_file_name(f, dir, "runs.db", "", why))
        return false;
    bool is_open = open_and_load(f, is_temporary, out, &said);
    if (!is_open && f->is_damaged && replace(f, &said)) {
        mp_log(2, "%s", text);
        mp_text_init(&said, text, sizeof(text));
        is_open = open_and_load(f, is_temporary, out, &said);
    }
    if (is_open || go_without(f, out, &said))
        return true;
    mp_text_put_slice(why, mp_text_slice(&said));
    return false;
}

static bool open_again(struct mp_store_file *f, bool is_temporary, struct mp_text *news)
{
    char text[4 * PATH_MAX];
    struct mp_text why;
    mp_text_init(&why, text, sizeof(text));
    if (!open_empty(f, is_temporary, &why)) {
        mp_store_file_close(f);
        return false; /* those who ask are told why */
    }
    mp_text_put(news, f->path);
    mp_text_put(news, " is open now: runs and messages are kept again");
    return true;
}

bool mp_store_runs_renew(struct mp_store_file *f, bool is_temporary, struct mp_text *news)
{
    if (!f->db)
        return open_again(f, is_temporary, news);
    mp_store_file_close(f);
    mp_text_put(news, f->path);
    mp_text_put(news, " is damaged");
    if (!replace(f, news))
        return false;
    if (open_empty(f, is_temporary, news))
        return true;
    mp_store_file_close(f);
    return false;
}

/* --- requests --- */

/* An empty value is not SQL's NULL. */
static void bind_slice(sqlite3_stmt *statement, int at, struct mp_slice s)
{
    sqlite3_bind_blob64(statement, at, s.size != 0 ? (const void *)s.data : "", s.size,
                        SQLITE_STATIC);
}

static int run_with(struct mp_store_file *f, enum statement which, struct mp_slice first)
{
    bind_slice(f->statements[which], 1, first);
    int code = mp_store_file_run(f, which);
    sqlite3_clear_bindings(f->statements[which]);
    return code;
}

static int run_with_two(struct mp_store_file *f, enum statement which, struct mp_slice first,
                        struct mp_slice second)
{
    bind_slice(f->statements[which], 2, second);
    return run_with(f, which, first);
}

static int put_part(struct mp_store_file *f, struct mp_slice run, struct mp_slice part,
                    struct mp_slice bytes)
{
    bind_slice(f->statements[PUT_PART], 3, bytes);
    return run_with_two(f, PUT_PART, run, part);
}

/* The elements of an array of `count` or more; false: it is none. */
static bool take(struct mp_slice array, struct mp_slice *out, uint32_t count)
{
    struct mp_mp_reader reader;
    uint32_t size = 0;
    if (mp_mp_get_array(array, &size, &reader) != MP_OK || size < count)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (mp_mp_take(&reader, &out[i]) != MP_OK)
            return false;
    return true;
}

static int keep_run(struct mp_store_file *f, const struct mp_store_request *r)
{
    struct mp_slice run = mp_store_first(r);
    struct mp_slice record[2]; /* head, body */
    if (!take(mp_store_second(r), record, 2))
        return SQLITE_MISMATCH;
    int code = run_with_two(f, PUT_HEAD, run, record[0]);
    if (code == SQLITE_OK)
        code = run_with(f, DROP_PROGRESS, run);
    return code == SQLITE_OK ? put_part(f, run, mp_slice_str(""), record[1]) : code;
}

/* Run and part; a body has no name that could be given here. */
static bool take_names(const struct mp_store_request *r, struct mp_slice names[2])
{
    struct mp_slice values[2];
    return take(mp_store_first(r), values, 2) && mp_mp_get_str(values[0], &names[0]) == MP_OK &&
           mp_mp_get_str(values[1], &names[1]) == MP_OK && names[1].size != 0;
}

static int keep_part(struct mp_store_file *f, const struct mp_store_request *r)
{
    struct mp_slice names[2];
    return take_names(r, names) ? put_part(f, names[0], names[1], mp_store_second(r))
                                : SQLITE_MISMATCH;
}

static int forget_run(struct mp_store_file *f, const struct mp_store_request *r)
{
    int code = run_with(f, DROP_HEAD, mp_store_first(r));
    return code == SQLITE_OK ? run_with(f, DROP_PARTS, mp_store_first(r)) : code;
}

/* Each of an array of [topic, seq …]: kept, or forgotten up to there. */
static int each_message(struct mp_store_file *f, const struct mp_store_request *r,
                        enum statement which)
{
    struct mp_mp_reader reader;
    struct mp_slice message;
    uint32_t count = 0;
    int code = SQLITE_OK;
    if (mp_mp_get_array(mp_store_first(r), &count, &reader) != MP_OK)
        return SQLITE_MISMATCH;
    for (uint32_t i = 0; code == SQLITE_OK && i < count; i++) {
        struct mp_slice values[2];
        struct mp_slice topic;
        int64_t seq = 0;
        if (mp_mp_take(&reader, &message) != MP_OK || !take(message, values, 2) ||
            mp_mp_get_str(values[0], &topic) != MP_OK || mp_mp_get_int(values[1], &seq) != MP_OK)
            return SQLITE_MISMATCH;
        sqlite3_bind_int64(f->statements[which], 2, seq);
        if (which == PUT_MESSAGE)
            bind_slice(f->statements[which], 3, message);
        code = run_with(f, which, topic);
    }
    return code;
}

/* Appends what the statement's row holds, which must be MessagePack, or any bytes as bin. */
static int append_value(sqlite3_stmt *statement, bool is_bin, struct mp_buf *out)
{
    struct mp_slice value =
        mp_slice_of(sqlite3_column_blob(statement, 0), (size_t)sqlite3_column_bytes(statement, 0));
    if (!value.data && value.size != 0)
        return SQLITE_NOMEM;
    if (!is_bin && mp_mp_check(value) != MP_OK)
        return SQLITE_CORRUPT;
    enum mp_err err = is_bin ? mp_mp_put_bin(out, value) : mp_mp_put_raw(out, value);
    return err == MP_OK ? SQLITE_OK : err == MP_ETOOLARGE ? SQLITE_TOOBIG : SQLITE_NOMEM;
}

/* SQLITE_DONE: there is no such row. */
static int get_value(struct mp_store_file *f, enum statement which, struct mp_buf *out)
{
    int code = sqlite3_step(f->statements[which]);
    if (code == SQLITE_ROW)
        code = append_value(f->statements[which], false, out);
    sqlite3_reset(f->statements[which]);
    sqlite3_clear_bindings(f->statements[which]);
    return code;
}

static int list_progress(struct mp_store_file *f, struct mp_slice run, struct mp_buf *out)
{
    sqlite3_stmt *count = f->statements[COUNT_PROGRESS];
    sqlite3_stmt *statement = f->statements[LIST_PROGRESS];
    bind_slice(count, 1, run);
    bind_slice(statement, 1, run);
    int code = sqlite3_step(count);
    if (code == SQLITE_ROW)
        code = mp_mp_put_array(out, (uint32_t)sqlite3_column_int64(count, 0)) == MP_OK
                   ? SQLITE_OK
                   : SQLITE_NOMEM;
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW)
        code = append_value(statement, true, out);
    sqlite3_reset(count);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(count);
    sqlite3_clear_bindings(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int read_run(struct mp_store_file *f, struct mp_store_request *r)
{
    struct mp_slice run = mp_store_first(r);
    if (mp_mp_put_array(&r->found, 3) != MP_OK)
        return SQLITE_NOMEM;
    bind_slice(f->statements[GET_HEAD], 1, run);
    int code = get_value(f, GET_HEAD, &r->found);
    r->is_missing = code == SQLITE_DONE;
    if (code != SQLITE_OK)
        return r->is_missing ? SQLITE_OK : code;
    bind_slice(f->statements[GET_PART], 1, run);
    bind_slice(f->statements[GET_PART], 2, mp_slice_str(""));
    code = get_value(f, GET_PART, &r->found);
    if (code == SQLITE_DONE)
        return SQLITE_CORRUPT; /* they are kept together */
    return code == SQLITE_OK ? list_progress(f, run, &r->found) : code;
}

static int read_part(struct mp_store_file *f, struct mp_store_request *r)
{
    struct mp_slice names[2];
    sqlite3_stmt *statement = f->statements[GET_PART];
    if (!take_names(r, names))
        return SQLITE_MISMATCH;
    bind_slice(statement, 1, names[0]);
    bind_slice(statement, 2, names[1]);
    int code = sqlite3_step(statement);
    r->is_missing = code == SQLITE_DONE;
    if (code == SQLITE_ROW) {
        struct mp_slice bytes = mp_slice_of(sqlite3_column_blob(statement, 0),
                                            (size_t)sqlite3_column_bytes(statement, 0));
        bool is_taken = (bytes.data || bytes.size == 0) && mp_buf_append(&r->found, bytes) == MP_OK;
        code = is_taken ? SQLITE_OK : SQLITE_NOMEM;
    }
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

int mp_store_runs_carry_out(struct mp_store_file *f, struct mp_store_request *r)
{
    if (!f->db)
        return mp_store_file_run(f, MP_STORE_BEGIN); /* which says why */
    mp_buf_clear(&r->found); /* a transaction that failed may have read it */
    switch (r->kind) {
    case MP_STORE_KEEP_RUN:
        return keep_run(f, r);
    case MP_STORE_KEEP_RUN_PART:
        return keep_part(f, r);
    case MP_STORE_FORGET_RUN:
        return forget_run(f, r);
    case MP_STORE_READ_RUN:
        return read_run(f, r);
    case MP_STORE_READ_RUN_PART:
        return read_part(f, r);
    case MP_STORE_KEEP_MESSAGES:
        return each_message(f, r, PUT_MESSAGE);
    case MP_STORE_FORGET_MESSAGES:
        return each_message(f, r, DROP_MESSAGES);
    default:
        mp_assert(r->kind == MP_STORE_END);
        return SQLITE_OK;
    }
}

/* --- free space --- */

static int64_t count(struct mp_store_file *f, enum statement which)
{
    int64_t number = 0;
    if (sqlite3_step(f->statements[which]) == SQLITE_ROW)
        number = sqlite3_column_int64(f->statements[which], 0);
    sqlite3_reset(f->statements[which]);
    return number;
}

bool mp_store_runs_trim(struct mp_store_file *f)
{
    int code = SQLITE_ROW;
    if (!f->db)
        return false;
    int64_t free_pages = count(f, COUNT_FREE);
    if (free_pages < FREE_PAGES_MIN || free_pages < count(f, COUNT_PAGES) / 4)
        return false;
    while (code == SQLITE_ROW)
        code = sqlite3_step(f->statements[TRIM]);
    sqlite3_reset(f->statements[TRIM]);
    /* Only now does the file end earlier. */
    return code == SQLITE_DONE && sqlite3_wal_checkpoint_v2(f->db, NULL, SQLITE_CHECKPOINT_PASSIVE,
                                                            NULL, NULL) == SQLITE_OK;
}
