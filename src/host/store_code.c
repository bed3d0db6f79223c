/* mpreg.db: units by their hash, and the history's entries. The file is in WAL mode with
 * synchronous=FULL: what was committed survives a power cut. Units are checked against their hash
 * when they are read: one that is damaged counts as missing, and is put in place again when
 * somebody sends it. */
#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/store_internal.h"
#include "src/wire/msgpack.h"

/* The log is cut back after a checkpoint, so that a large unit does not keep it large. */
#define SETTINGS(synchronous)                                                                      \
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"                                  \
    "PRAGMA synchronous = " synchronous "; PRAGMA journal_size_limit = 1048576;"                   \
    "PRAGMA cache_size = -256;"

static const char remedy[] = ": put a copy of it in its place, or move it away: then the node gets "
                             "deployed code from the other nodes again";

enum statement { PUT_UNIT = MP_STORE_OWN, PUT_ENTRY, GET_UNIT, STATEMENT_END };

static const char *const statement_texts[STATEMENT_END - MP_STORE_OWN] = {
    [PUT_UNIT - MP_STORE_OWN] = "INSERT INTO units(hash, unit, description) VALUES(?1, ?2, ?3)"
                                " ON CONFLICT(hash) DO UPDATE SET unit = ?2, description = ?3"
                                " WHERE unit IS NOT ?2 OR description IS NOT ?3",
    [PUT_ENTRY - MP_STORE_OWN] = "INSERT INTO entries(entry) VALUES(?1)",
    [GET_UNIT - MP_STORE_OWN] = "SELECT unit, description FROM units WHERE hash = ?1",
};

static const char schema_text[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE meta(schema INTEGER NOT NULL);"
    "CREATE TABLE units(hash BLOB PRIMARY KEY NOT NULL,"
    " unit BLOB NOT NULL, description BLOB NOT NULL);"
    "CREATE TABLE entries(seq INTEGER PRIMARY KEY, entry BLOB NOT NULL);"
    "INSERT INTO meta VALUES(1);"
    "COMMIT";

/* One after the other behind an array's header. */
static bool load_entries(struct mp_store_file *f, struct mp_buf *entries, struct mp_text *why)
{
    sqlite3_stmt *statement = NULL;
    int64_t count = mp_store_file_ask(f, "SELECT count(*) FROM entries");
    if (count < 0 || sqlite3_prepare_v2(f->db, "SELECT entry FROM entries ORDER BY seq", -1,
                                        &statement, NULL) != SQLITE_OK)
        return mp_store_file_fail(f, why);
    bool is_good = count <= UINT32_MAX && mp_mp_put_array(entries, (uint32_t)count) == MP_OK;
    int code = SQLITE_DONE;
    while (is_good && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct mp_slice entry = mp_slice_of(sqlite3_column_blob(statement, 0),
                                            (size_t)sqlite3_column_bytes(statement, 0));
        is_good = mp_mp_check(entry) == MP_OK && mp_mp_put_raw(entries, entry) == MP_OK;
    }
    bool is_read = sqlite3_finalize(statement) == SQLITE_OK && code == SQLITE_DONE;
    if (is_good && !is_read)
        return mp_store_file_fail(f, why);
    return is_good || mp_store_file_fail_content(f, "an entry", why);
}

bool mp_store_code_open(struct mp_store_file *f, const char *dir, bool is_temporary,
                        struct mp_buf *entries, struct mp_text *why)
{
    return mp_store_file_name(f, dir, "mpreg.db", remedy, why) &&
           mp_store_file_open(f, is_temporary ? SETTINGS("OFF") : SETTINGS("FULL"), why) &&
           mp_store_file_check_schema(f, schema_text, why) && load_entries(f, entries, why) &&
           mp_store_file_prepare(f, statement_texts, STATEMENT_END - MP_STORE_OWN, why);
}

static int put_unit(struct mp_store_file *f, struct mp_store_request *r)
{
    struct mp_slice unit = mp_store_first(r);
    struct mp_slice description = mp_store_second(r);
    mp_host_sha256(unit, r->hash);
    sqlite3_stmt *statement = f->statements[PUT_UNIT];
    sqlite3_bind_blob(statement, 1, r->hash, sizeof(r->hash), SQLITE_STATIC);
    sqlite3_bind_blob64(statement, 2, unit.data, unit.size, SQLITE_STATIC);
    sqlite3_bind_blob64(statement, 3, description.data, description.size, SQLITE_STATIC);
    int code = mp_store_file_run(f, PUT_UNIT);
    sqlite3_clear_bindings(statement);
    return code;
}

static int put_entries(struct mp_store_file *f, const struct mp_store_request *r)
{
    struct mp_mp_reader reader;
    struct mp_slice entry;
    uint32_t count = 0;
    if (mp_mp_get_array(mp_store_first(r), &count, &reader) != MP_OK)
        return SQLITE_MISMATCH;
    int code = SQLITE_OK;
    for (uint32_t i = 0; code == SQLITE_OK && i < count; i++) {
        if (mp_mp_take(&reader, &entry) != MP_OK)
            return SQLITE_MISMATCH;
        sqlite3_bind_blob64(f->statements[PUT_ENTRY], 1, entry.data, entry.size, SQLITE_STATIC);
        code = mp_store_file_run(f, PUT_ENTRY);
    }
    sqlite3_clear_bindings(f->statements[PUT_ENTRY]);
    return code;
}

static int take_unit(sqlite3_stmt *statement, struct mp_store_request *r)
{
    struct mp_slice unit =
        mp_slice_of(sqlite3_column_blob(statement, 0), (size_t)sqlite3_column_bytes(statement, 0));
    struct mp_slice description =
        mp_slice_of(sqlite3_column_blob(statement, 1), (size_t)sqlite3_column_bytes(statement, 1));
    if ((!unit.data && unit.size != 0) || (!description.data && description.size != 0))
        return SQLITE_NOMEM;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    mp_host_sha256(unit, hash);
    r->is_damaged = memcmp(hash, r->hash, sizeof(hash)) != 0;
    r->is_missing = r->is_damaged;
    if (r->is_missing)
        return SQLITE_OK;
    r->found_first_size = unit.size;
    bool is_taken =
        mp_buf_append(&r->found, unit) == MP_OK && mp_buf_append(&r->found, description) == MP_OK;
    return is_taken ? SQLITE_OK : SQLITE_NOMEM;
}

static int get_unit(struct mp_store_file *f, struct mp_store_request *r)
{
    sqlite3_stmt *statement = f->statements[GET_UNIT];
    mp_buf_clear(&r->found); /* a transaction that failed may have read it */
    r->is_damaged = false;
    mp_assert(r->first_size == sizeof(r->hash));
    memcpy(r->hash, r->bytes, sizeof(r->hash));
    sqlite3_bind_blob(statement, 1, r->hash, sizeof(r->hash), SQLITE_STATIC);
    int code = sqlite3_step(statement);
    r->is_missing = code == SQLITE_DONE;
    if (code == SQLITE_ROW)
        code = take_unit(statement, r);
    else if (code == SQLITE_DONE)
        code = SQLITE_OK;
    sqlite3_reset(statement);
    return code;
}

int mp_store_code_carry_out(struct mp_store_file *f, struct mp_store_request *r)
{
    switch (r->kind) {
    case MP_STORE_KEEP_UNIT:
        return put_unit(f, r);
    case MP_STORE_KEEP_ENTRIES:
        return put_entries(f, r);
    default:
        mp_assert(r->kind == MP_STORE_READ_UNIT);
        return get_unit(f, r);
    }
}
