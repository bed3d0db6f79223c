/* One SQLite file of the store: how it is opened, what is said of one that is no good, and the
 * statements that both files have. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/store_internal.h"

#define SCHEMA 1

static void *plain_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size != 0)
        return realloc(p, new_size);
    free(p);
    return NULL;
}

struct mp_alloc *mp_store_alloc(void)
{
    static struct mp_alloc alloc = {.resize = plain_resize};
    return &alloc;
}

bool mp_store_file_name(struct mp_store_file *f, const char *dir, const char *name,
                        const char *remedy, struct mp_text *why)
{
    int size = snprintf(f->path, sizeof(f->path), "%s/%s", dir, name);
    f->remedy = remedy;
    if (size > 0 && (size_t)size < sizeof(f->path))
        return true;
    mp_text_put(why, "the data folder's path is too long");
    return false;
}

bool mp_store_file_open(struct mp_store_file *f, const char *settings, struct mp_text *why)
{
    /* One thread at a time uses the connection. */
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(f->path, &f->db, flags, NULL) != SQLITE_OK)
        return mp_store_file_fail(f, why);
    sqlite3_extended_result_codes(f->db, 1);
    if (sqlite3_db_readonly(f->db, "main") == 1) {
        mp_text_put(why, "cannot write ");
        mp_text_put(why, f->path);
        mp_text_put(why, ": give the node's user the right to");
        return false;
    }
    return sqlite3_exec(f->db, settings, NULL, NULL, NULL) == SQLITE_OK ||
           mp_store_file_fail(f, why);
}

bool mp_store_file_check_schema(struct mp_store_file *f, const char *schema_text,
                                struct mp_text *why)
{
    int64_t tables = mp_store_file_ask(f, "SELECT count(*) FROM sqlite_master");
    if (tables < 0)
        return mp_store_file_fail(f, why);
    if (tables == 0)
        return sqlite3_exec(f->db, schema_text, NULL, NULL, NULL) == SQLITE_OK ||
               mp_store_file_fail(f, why);
    int64_t schema = mp_store_file_ask(f, "SELECT max(schema) FROM meta");
    if (schema < 0)
        return mp_store_file_fail(f, why);
    if (schema == SCHEMA)
        return true;
    f->is_damaged = true;
    mp_text_put(why, f->path);
    if (schema < SCHEMA) {
        mp_text_put(why, " is damaged: it tells no schema");
        mp_text_put(why, f->remedy);
        return false;
    }
    mp_text_put(why, " is of a later version of mpreg (its schema is ");
    mp_text_put_uint(why, (uint64_t)schema);
    mp_text_put(why, ", this version knows 1): start that version, or give another --data folder");
    return false;
}

bool mp_store_file_prepare(struct mp_store_file *f, const char *const *own_texts, uint32_t count,
                           struct mp_text *why)
{
    static const char *const shared[MP_STORE_OWN] = {[MP_STORE_BEGIN] = "BEGIN IMMEDIATE",
                                                     [MP_STORE_COMMIT] = "COMMIT",
                                                     [MP_STORE_ROLLBACK] = "ROLLBACK"};
    mp_assert(MP_STORE_OWN + count <= MP_STORE_STATEMENTS_MAX);
    for (uint32_t i = 0; i < MP_STORE_OWN + count; i++) {
        const char *text = i < MP_STORE_OWN ? shared[i] : own_texts[i - MP_STORE_OWN];
        if (sqlite3_prepare_v3(f->db, text, -1, SQLITE_PREPARE_PERSISTENT, &f->statements[i],
                               NULL) != SQLITE_OK)
            return mp_store_file_fail(f, why);
    }
    return true;
}

bool mp_store_is_full(int code, int system)
{
    return (code & 0xff) == SQLITE_FULL ||
           ((code & 0xff) == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT));
}

static void put_damage(struct mp_store_file *f, const char *says, struct mp_text *why)
{
    f->is_damaged = true;
    mp_text_put(why, f->path);
    mp_text_put(why, " is damaged, or no file of mpreg (");
    mp_text_put(why, says);
    mp_text_put(why, ")");
    mp_text_put(why, f->remedy);
}

bool mp_store_file_fail(struct mp_store_file *f, struct mp_text *why)
{
    int code = f->db ? sqlite3_extended_errcode(f->db) : SQLITE_NOMEM;
    int system = f->db ? sqlite3_system_errno(f->db) : 0;
    const char *says = f->db ? sqlite3_errmsg(f->db) : "out of memory";
    f->code = code;
    f->system = system;
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* a table of another shape */
        put_damage(f, says, why);
        return false;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        mp_text_put(why, f->path);
        mp_text_put(why, " is open in another program: end that one");
        return false;
    default:
        break;
    }
    bool is_full = mp_store_is_full(code, system);
    bool is_denied = (code & 0xff) == SQLITE_READONLY;
    mp_text_put(why, is_denied || is_full ? "cannot write " : "cannot open ");
    mp_text_put(why, f->path);
    mp_text_put(why, ": ");
    mp_text_put(why, is_full ? "no space is left on its disk: make some" : says);
    if (system != 0 && !is_full) {
        mp_text_put(why, ": ");
        mp_text_put(why, strerror(system));
    }
    if (is_denied)
        mp_text_put(why, ": give the node's user the right to write in its folder");
    return false;
}

bool mp_store_file_fail_content(struct mp_store_file *f, const char *what, struct mp_text *why)
{
    f->is_damaged = true;
    mp_text_put(why, f->path);
    mp_text_put(why, " holds ");
    mp_text_put(why, what);
    mp_text_put(why, " that cannot be read");
    mp_text_put(why, f->remedy);
    return false;
}

int64_t mp_store_file_ask(struct mp_store_file *f, const char *text)
{
    sqlite3_stmt *statement = NULL;
    int64_t number = -1;
    if (sqlite3_prepare_v2(f->db, text, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        number = sqlite3_column_int64(statement, 0);
    /* An error stays to be told: finalize says it again. */
    return sqlite3_finalize(statement) == SQLITE_OK ? number : -1;
}

int mp_store_file_run(struct mp_store_file *f, uint32_t statement)
{
    if (!f->db)
        return f->code != SQLITE_OK ? f->code : SQLITE_CANTOPEN;
    int code = sqlite3_step(f->statements[statement]);
    sqlite3_reset(f->statements[statement]);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

int mp_store_file_errno(const struct mp_store_file *f)
{
    return f->db ? sqlite3_system_errno(f->db) : f->system;
}

void mp_store_file_close(struct mp_store_file *f)
{
    for (uint32_t i = 0; i < MP_STORE_STATEMENTS_MAX; i++) {
        sqlite3_finalize(f->statements[i]);
        f->statements[i] = NULL;
    }
    sqlite3_close(f->db);
    f->db = NULL;
}
