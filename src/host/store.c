/* Only the store's thread touches SQLite once it runs. Requests go to it, and answers come back, on
 * two lists that are pushed to with compare-and-swap and taken whole (so nothing is ever popped,
 * and a node's address that is used again does no harm); a semaphore wakes the thread, uv_async_t
 * the loop. There are no locks.
 *
 * Group commit: whatever waits when the thread wakes is one transaction, so the disk is waited for
 * once, and an answer is given after it. If a write of it fails (the disk is full, say), the
 * transaction is rolled back and each request tried alone: a small one may still fit, and only
 * those that do not are refused.
 *
 * The file is in WAL mode with synchronous=FULL: what was committed survives a power cut. It is
 * opened with the exclusive locking mode, since the data folder has one node; so SQLite needs no
 * shared-memory file, whose pages a full disk could take away under it. Units are checked against
 * their hash when they are read: one that is damaged counts as missing, and is put in place again
 * when somebody sends it. */
#include "src/host/store.h"

#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

#define SCHEMA        1
#define MESSAGE_BYTES (PATH_MAX + 512)

enum request_kind { KEEP_UNIT, KEEP_ENTRIES, READ_UNIT, END };

enum statement { PUT_UNIT, PUT_ENTRY, GET_UNIT, BEGIN, COMMIT, ROLLBACK, STATEMENT_COUNT };

static const char *const statement_texts[STATEMENT_COUNT] = {
    [PUT_UNIT] = "INSERT INTO units(hash, unit, description) VALUES(?1, ?2, ?3)"
                 " ON CONFLICT(hash) DO UPDATE SET unit = ?2, description = ?3"
                 " WHERE unit IS NOT ?2 OR description IS NOT ?3",
    [PUT_ENTRY] = "INSERT INTO entries(entry) VALUES(?1)",
    [GET_UNIT] = "SELECT unit, description FROM units WHERE hash = ?1",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
};

static const char schema_text[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE meta(schema INTEGER NOT NULL);"
    "CREATE TABLE units(hash BLOB PRIMARY KEY NOT NULL,"
    " unit BLOB NOT NULL, description BLOB NOT NULL);"
    "CREATE TABLE entries(seq INTEGER PRIMARY KEY, entry BLOB NOT NULL);"
    "INSERT INTO meta VALUES(1);"
    "COMMIT";
static_assert(SCHEMA == 1, "schema_text says it too");

struct request {
    struct request *next;
    enum request_kind kind;
    uint64_t ticket;
    mp_store_on_answer on_answer;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    /* what is to be kept, or was read: the unit and behind it its description, or entries */
    uint8_t *bytes;
    size_t first_size;
    size_t second_size;
    /* what came of it */
    bool is_missing;
    bool is_damaged; /* it is missing because its bytes are others */
    bool is_refused; /* too many waited */
    int code;        /* SQLite's */
    int system;      /* errno of a failed system call */
};

struct mp_store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    char path[PATH_MAX];
    char dir[PATH_MAX];
    const char *node;
    void *context;
    uv_thread_t thread;
    uv_sem_t wake;
    uv_async_t async;
    bool is_running;
    uint32_t outstanding; /* the loop's: asked and not answered */
    _Atomic(struct request *) asked;
    _Atomic(struct request *) answered;
};

static void push(_Atomic(struct request *) *list, struct request *r)
{
    struct request *first = atomic_load_explicit(list, memory_order_relaxed);
    do {
        r->next = first;
    } while (!atomic_compare_exchange_weak_explicit(list, &first, r, memory_order_release,
                                                    memory_order_relaxed));
}

/* Everything, the oldest first. */
static struct request *take_all(_Atomic(struct request *) *list)
{
    struct request *newest = atomic_exchange_explicit(list, NULL, memory_order_acquire);
    struct request *oldest = NULL;
    while (newest) {
        struct request *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void free_request(struct request *r)
{
    free(r->bytes);
    free(r);
}

/* --- opening --- */

static bool is_full(int code, int system)
{
    return (code & 0xff) == SQLITE_FULL ||
           ((code & 0xff) == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT));
}

static void put_remedy(struct mp_text *why)
{
    mp_text_put(why,
                ": put a copy of it in its place, or move it away: then the node gets deployed "
                "code from the other nodes again");
}

/* Says what is wrong with the file, and what to do; always false. */
static bool fail(const struct mp_store *s, struct mp_text *why)
{
    int code = s->db ? sqlite3_extended_errcode(s->db) : SQLITE_NOMEM;
    int system = s->db ? sqlite3_system_errno(s->db) : 0;
    const char *says = s->db ? sqlite3_errmsg(s->db) : "out of memory";
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* a table of another shape */
        mp_text_put(why, s->path);
        mp_text_put(why, " is damaged, or no file of mpreg (");
        mp_text_put(why, says);
        mp_text_put(why, ")");
        put_remedy(why);
        return false;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        mp_text_put(why, s->path);
        mp_text_put(why, " is open in another program: end that one");
        return false;
    default:
        break;
    }
    bool is_denied = (code & 0xff) == SQLITE_READONLY;
    mp_text_put(why, is_denied || is_full(code, system) ? "cannot write " : "cannot open ");
    mp_text_put(why, s->path);
    mp_text_put(why, ": ");
    mp_text_put(why, is_full(code, system) ? "no space is left on its disk: make some" : says);
    if (system != 0 && !is_full(code, system)) {
        mp_text_put(why, ": ");
        mp_text_put(why, strerror(system));
    }
    if (is_denied)
        mp_text_put(why, ": give the node's user the right to write in its folder");
    return false;
}

/* The one number that a statement gives; -1: it failed. */
static int64_t ask_number(struct mp_store *s, const char *text)
{
    sqlite3_stmt *statement = NULL;
    int64_t number = -1;
    if (sqlite3_prepare_v2(s->db, text, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        number = sqlite3_column_int64(statement, 0);
    /* An error stays to be told: finalize says it again. */
    return sqlite3_finalize(statement) == SQLITE_OK ? number : -1;
}

static bool check_schema(struct mp_store *s, struct mp_text *why)
{
    int64_t tables = ask_number(s, "SELECT count(*) FROM sqlite_master");
    if (tables < 0)
        return fail(s, why);
    if (tables == 0)
        return sqlite3_exec(s->db, schema_text, NULL, NULL, NULL) == SQLITE_OK || fail(s, why);
    int64_t schema = ask_number(s, "SELECT max(schema) FROM meta");
    if (schema < 0)
        return fail(s, why);
    if (schema == SCHEMA)
        return true;
    mp_text_put(why, s->path);
    if (schema < SCHEMA) {
        mp_text_put(why, " is damaged: it tells no schema");
        put_remedy(why);
        return false;
    }
    mp_text_put(why, " is of a later version of mpreg (its schema is ");
    mp_text_put_uint(why, (uint64_t)schema);
    mp_text_put(why, ", this version knows 1): start that version, or give another --data folder");
    return false;
}

/* One after the other behind an array's header. */
static bool load_entries(struct mp_store *s, struct mp_buf *entries, struct mp_text *why)
{
    sqlite3_stmt *statement = NULL;
    int64_t count = ask_number(s, "SELECT count(*) FROM entries");
    if (count < 0 || sqlite3_prepare_v2(s->db, "SELECT entry FROM entries ORDER BY seq", -1,
                                        &statement, NULL) != SQLITE_OK)
        return fail(s, why);
    bool is_good = count <= UINT32_MAX && mp_mp_put_array(entries, (uint32_t)count) == MP_OK;
    int code = SQLITE_DONE;
    while (is_good && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct mp_slice entry = mp_slice_of(sqlite3_column_blob(statement, 0),
                                            (size_t)sqlite3_column_bytes(statement, 0));
        is_good = mp_mp_check(entry) == MP_OK && mp_mp_put_raw(entries, entry) == MP_OK;
    }
    bool is_read = sqlite3_finalize(statement) == SQLITE_OK && code == SQLITE_DONE;
    if (is_good && !is_read)
        return fail(s, why);
    if (!is_good) {
        mp_text_put(why, s->path);
        mp_text_put(why, " holds an entry that cannot be read");
        put_remedy(why);
    }
    return is_good;
}

static bool open_file(struct mp_store *s, bool is_temporary, struct mp_text *why)
{
    /* One thread at a time uses the connection. */
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(s->path, &s->db, flags, NULL) != SQLITE_OK)
        return fail(s, why);
    sqlite3_extended_result_codes(s->db, 1);
    if (sqlite3_db_readonly(s->db, "main") == 1) {
        mp_text_put(why, "cannot write ");
        mp_text_put(why, s->path);
        mp_text_put(why, ": give the node's user the right to");
        return false;
    }
    /* The log is cut back after a checkpoint, so that a large unit does not keep it large. */
    const char *settings = is_temporary
                               ? "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                                 "PRAGMA synchronous = OFF; PRAGMA journal_size_limit = 1048576;"
                                 "PRAGMA cache_size = -256;"
                               : "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                                 "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 1048576;"
                                 "PRAGMA cache_size = -256;";
    return sqlite3_exec(s->db, settings, NULL, NULL, NULL) == SQLITE_OK || fail(s, why);
}

bool mp_store_open(struct mp_store **own_out, const char *dir, bool is_temporary,
                   struct mp_buf *entries, struct mp_text *why)
{
    struct mp_store *s = mp_xalloc(sizeof(*s));
    size_t before = entries->size;
    int size = snprintf(s->path, sizeof(s->path), "%s/mpreg.db", dir);
    snprintf(s->dir, sizeof(s->dir), "%s", dir);
    bool is_open = size > 0 && (size_t)size < sizeof(s->path);
    if (!is_open)
        mp_text_put(why, "the data folder's path is too long");
    is_open = is_open && open_file(s, is_temporary, why) && check_schema(s, why) &&
              load_entries(s, entries, why);
    for (unsigned i = 0; is_open && i < STATEMENT_COUNT; i++)
        is_open = sqlite3_prepare_v3(s->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                     &s->statements[i], NULL) == SQLITE_OK ||
                  fail(s, why);
    if (!is_open) {
        entries->size = before;
        mp_store_close(s);
        return false;
    }
    *own_out = s;
    return true;
}

/* --- the thread --- */

static int run_statement(struct mp_store *s, enum statement which)
{
    int code = sqlite3_step(s->statements[which]);
    sqlite3_reset(s->statements[which]);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int put_unit(struct mp_store *s, struct request *r)
{
    mp_host_sha256(mp_slice_of(r->bytes, r->first_size), r->hash);
    sqlite3_stmt *statement = s->statements[PUT_UNIT];
    sqlite3_bind_blob(statement, 1, r->hash, sizeof(r->hash), SQLITE_STATIC);
    sqlite3_bind_blob64(statement, 2, r->bytes, r->first_size, SQLITE_STATIC);
    sqlite3_bind_blob64(statement, 3, r->bytes + r->first_size, r->second_size, SQLITE_STATIC);
    int code = run_statement(s, PUT_UNIT);
    sqlite3_clear_bindings(statement);
    return code;
}

static int put_entries(struct mp_store *s, const struct request *r)
{
    struct mp_mp_reader reader;
    struct mp_slice entry;
    uint32_t count = 0;
    if (mp_mp_get_array(mp_slice_of(r->bytes, r->first_size), &count, &reader) != MP_OK)
        return SQLITE_MISMATCH;
    int code = SQLITE_OK;
    for (uint32_t i = 0; code == SQLITE_OK && i < count; i++) {
        if (mp_mp_take(&reader, &entry) != MP_OK)
            return SQLITE_MISMATCH;
        sqlite3_bind_blob64(s->statements[PUT_ENTRY], 1, entry.data, entry.size, SQLITE_STATIC);
        code = run_statement(s, PUT_ENTRY);
    }
    sqlite3_clear_bindings(s->statements[PUT_ENTRY]);
    return code;
}

static int take_row(sqlite3_stmt *statement, struct request *r)
{
    const void *unit = sqlite3_column_blob(statement, 0);
    const void *description = sqlite3_column_blob(statement, 1);
    r->first_size = (size_t)sqlite3_column_bytes(statement, 0);
    r->second_size = (size_t)sqlite3_column_bytes(statement, 1);
    if ((!unit && r->first_size != 0) || (!description && r->second_size != 0))
        return SQLITE_NOMEM;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    mp_host_sha256(mp_slice_of(unit, r->first_size), hash);
    r->is_damaged = memcmp(hash, r->hash, sizeof(hash)) != 0;
    r->is_missing = r->is_damaged;
    if (r->is_missing)
        return SQLITE_OK;
    r->bytes = malloc(r->first_size + r->second_size + 1);
    if (!r->bytes)
        return SQLITE_NOMEM;
    if (r->first_size != 0)
        memcpy(r->bytes, unit, r->first_size);
    if (r->second_size != 0)
        memcpy(r->bytes + r->first_size, description, r->second_size);
    return SQLITE_OK;
}

static int get_unit(struct mp_store *s, struct request *r)
{
    sqlite3_stmt *statement = s->statements[GET_UNIT];
    free(r->bytes);
    r->bytes = NULL;
    r->is_damaged = false;
    sqlite3_bind_blob(statement, 1, r->hash, sizeof(r->hash), SQLITE_STATIC);
    int code = sqlite3_step(statement);
    r->is_missing = code == SQLITE_DONE;
    if (code == SQLITE_ROW)
        code = take_row(statement, r);
    else if (code == SQLITE_DONE)
        code = SQLITE_OK;
    sqlite3_reset(statement);
    return code;
}

/* False: a write failed. */
static bool carry_out(struct mp_store *s, struct request *r)
{
    switch (r->kind) {
    case KEEP_UNIT:
        r->code = put_unit(s, r);
        break;
    case KEEP_ENTRIES:
        r->code = put_entries(s, r);
        break;
    case READ_UNIT:
        r->code = get_unit(s, r);
        break;
    case END:
        r->code = SQLITE_OK;
        break;
    }
    r->system = r->code == SQLITE_OK ? 0 : sqlite3_system_errno(s->db);
    return r->code == SQLITE_OK || r->kind == READ_UNIT;
}

/* Requests up to `end` as one transaction; false: nothing of it was kept, and each that failed, or
 * all, have the reason. */
static bool commit(struct mp_store *s, struct request *first, const struct request *end)
{
    int code = run_statement(s, BEGIN);
    bool is_done = code == SQLITE_OK;
    for (struct request *r = first; is_done && r != end; r = r->next)
        is_done = carry_out(s, r);
    if (is_done) {
        code = run_statement(s, COMMIT);
        is_done = code == SQLITE_OK;
    }
    if (is_done)
        return true;
    for (struct request *r = first; code != SQLITE_OK && r != end; r = r->next) {
        r->code = code;
        r->system = sqlite3_system_errno(s->db);
    }
    run_statement(s, ROLLBACK); /* fails if SQLite did so already */
    return false;
}

static bool is_write(const struct request *r)
{
    return r->kind == KEEP_UNIT || r->kind == KEEP_ENTRIES;
}

static void serve(struct mp_store *s, struct request *first)
{
    bool has_writes = false;
    for (const struct request *r = first; r; r = r->next)
        has_writes = has_writes || is_write(r);
    if (has_writes && (commit(s, first, NULL) || !first->next))
        return;
    for (struct request *r = first; r; r = r->next)
        if (is_write(r))
            (void)commit(s, r, r->next);
        else
            (void)carry_out(s, r);
}

static void run_thread(void *context)
{
    struct mp_store *s = (struct mp_store *)context;
    bool is_over = false;
    while (!is_over) {
        uv_sem_wait(&s->wake);
        struct request *first = take_all(&s->asked);
        if (!first)
            continue; /* an earlier wake took it along */
        serve(s, first);
        while (first) {
            struct request *r = first;
            first = r->next;
            is_over = is_over || r->kind == END;
            push(&s->answered, r);
        }
        uv_async_send(&s->async);
    }
}

/* --- the loop's side --- */

/* An ERROR map for a request that failed. */
static enum mp_err put_error(const struct mp_store *s, const struct request *r, struct mp_buf *b)
{
    char text[MESSAGE_BYTES];
    struct mp_text message;
    bool is_disk_full = is_full(r->code, r->system);
    mp_text_init(&message, text, sizeof(text));
    if (r->is_refused) {
        mp_text_put(&message, "too many deploys wait for the disk of the data folder ");
        mp_text_put(&message, s->dir);
    } else if (is_disk_full) {
        mp_text_put(&message, "no space is left on the disk of the data folder ");
        mp_text_put(&message, s->dir);
    } else {
        mp_text_put(&message, "the data folder ");
        mp_text_put(&message, s->dir);
        mp_text_put(&message, r->kind == READ_UNIT ? " cannot be read: " : " cannot be written: ");
        mp_text_put(&message, sqlite3_errstr(r->code));
        if (r->system != 0) {
            mp_text_put(&message, ": ");
            mp_text_put(&message, strerror(r->system));
        }
    }
    const struct mp_fault fault = {
        .code = r->is_refused || is_disk_full ? MP_CODE_RESOURCE_EXHAUSTED : MP_CODE_INTERNAL,
        .reason = mp_slice_str(r->is_refused  ? "QUEUE_FULL"
                               : is_disk_full ? "DISK_FULL"
                                              : "STORE_FAILED"),
        .message = mp_text_slice(&message),
        .hint = mp_slice_str(is_disk_full ? "make room there" : ""),
        .node = mp_slice_str(s->node)};
    if (!r->is_refused)
        mp_log(3, "%s", text);
    return mp_fault_put(b, &fault);
}

static void log_damage(const struct mp_store *s, const struct request *r)
{
    char hex[2 * MP_UNIT_HASH_BYTES + 1];
    for (unsigned i = 0; i < MP_UNIT_HASH_BYTES; i++)
        snprintf(hex + 2 * (size_t)i, 3, "%02x", r->hash[i]);
    mp_log(3, "%s: the unit %s is damaged and counts as missing", s->path, hex);
}

static void tell(struct mp_store *s, const struct request *r)
{
    struct mp_buf error;
    struct mp_store_answer a = {.is_missing = r->is_missing && r->code == SQLITE_OK,
                                .is_error = r->code != SQLITE_OK || r->is_refused};
    mp_buf_init(&error, mp_host_alloc(), 0);
    if (r->is_damaged)
        log_damage(s, r);
    if (a.is_error) {
        (void)put_error(s, r, &error); /* without memory: an error without a text */
        a.error = mp_buf_slice(&error);
    } else if (r->kind == READ_UNIT && !a.is_missing) {
        a.unit = mp_slice_of(r->bytes, r->first_size);
        a.description = mp_slice_of(r->bytes + r->first_size, r->second_size);
    }
    r->on_answer(s->context, r->ticket, &a);
    mp_buf_fini(&error);
}

static void on_async(uv_async_t *async)
{
    struct mp_store *s = (struct mp_store *)async->data;
    struct request *first = take_all(&s->answered);
    while (first) {
        struct request *r = first;
        first = r->next;
        s->outstanding--;
        if (s->is_running)
            tell(s, r);
        free_request(r);
    }
}

bool mp_store_start(struct mp_store *s, uv_loop_t *loop, const char *node, void *context,
                    struct mp_text *why)
{
    s->node = node;
    s->context = context;
    s->async.data = s;
    int err = uv_sem_init(&s->wake, 0);
    if (err != 0) {
        mp_text_put(why, uv_strerror(err));
        return false;
    }
    err = uv_async_init(loop, &s->async, on_async);
    if (err == 0) {
        err = uv_thread_create(&s->thread, run_thread, s);
        if (err != 0)
            uv_close((uv_handle_t *)&s->async, NULL);
    }
    if (err != 0) {
        uv_sem_destroy(&s->wake);
        mp_text_put(why, "the store's thread could not be started: ");
        mp_text_put(why, uv_strerror(err));
        return false;
    }
    s->is_running = true;
    return true;
}

static void ask(struct mp_store *s, struct request *r)
{
    if (!s->is_running) { /* the node is ending: nobody waits for the answer */
        free_request(r);
        return;
    }
    s->outstanding++;
    if (s->outstanding > MP_STORE_REQUESTS_MAX) {
        r->is_refused = true;
        push(&s->answered, r);
        uv_async_send(&s->async);
        return;
    }
    push(&s->asked, r);
    uv_sem_post(&s->wake);
}

static struct request *new_request(enum request_kind kind, uint64_t ticket,
                                   mp_store_on_answer on_answer, struct mp_slice first,
                                   struct mp_slice second)
{
    struct request *r = mp_xalloc(sizeof(*r));
    r->kind = kind;
    r->ticket = ticket;
    r->on_answer = on_answer;
    r->first_size = first.size;
    r->second_size = second.size;
    if (first.size + second.size != 0)
        r->bytes = mp_xalloc(first.size + second.size);
    if (first.size != 0)
        memcpy(r->bytes, first.data, first.size);
    if (second.size != 0)
        memcpy(r->bytes + first.size, second.data, second.size);
    return r;
}

void mp_store_keep_unit(struct mp_store *s, uint64_t ticket, struct mp_slice unit,
                        struct mp_slice description, mp_store_on_answer on_answer)
{
    ask(s, new_request(KEEP_UNIT, ticket, on_answer, unit, description));
}

void mp_store_keep_entries(struct mp_store *s, uint64_t ticket, struct mp_slice entries,
                           mp_store_on_answer on_answer)
{
    const struct mp_slice none = {0};
    ask(s, new_request(KEEP_ENTRIES, ticket, on_answer, entries, none));
}

void mp_store_read_unit(struct mp_store *s, uint64_t ticket, struct mp_slice hash,
                        mp_store_on_answer on_answer)
{
    const struct mp_slice none = {0};
    struct request *r = new_request(READ_UNIT, ticket, on_answer, none, none);
    mp_assert(hash.size == MP_UNIT_HASH_BYTES);
    memcpy(r->hash, hash.data, sizeof(r->hash));
    ask(s, r);
}

/* --- the end --- */

static void drop_all(struct request *first)
{
    while (first) {
        struct request *r = first;
        first = r->next;
        free_request(r);
    }
}

void mp_store_stop(struct mp_store *s)
{
    if (!s || !s->is_running)
        return;
    const struct mp_slice none = {0};
    push(&s->asked, new_request(END, 0, NULL, none, none));
    uv_sem_post(&s->wake);
    uv_thread_join(&s->thread);
    s->is_running = false;
    uv_sem_destroy(&s->wake);
    uv_close((uv_handle_t *)&s->async, NULL);
    drop_all(take_all(&s->asked));
    drop_all(take_all(&s->answered));
}

void mp_store_close(struct mp_store *s)
{
    if (!s)
        return;
    mp_assert(!s->is_running);
    for (unsigned i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(s->statements[i]);
    sqlite3_close(s->db);
    free(s);
}
