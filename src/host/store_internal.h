/* What the files of the store share: requests, and the two files that the store's thread writes. */
#pragma once

#include <limits.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/base/buf.h"
#include "src/base/limits.h"
#include "src/base/text.h"
#include "src/host/store.h"

enum mp_store_kind {
    MP_STORE_KEEP_UNIT,
    MP_STORE_KEEP_ENTRIES,
    MP_STORE_READ_UNIT,
    MP_STORE_KEEP_RUN,
    MP_STORE_KEEP_RUN_PART,
    MP_STORE_FORGET_RUN,
    MP_STORE_READ_RUN,
    MP_STORE_READ_RUN_PART,
    MP_STORE_KEEP_MESSAGES,
    MP_STORE_FORGET_MESSAGES,
    MP_STORE_END
};

struct mp_store_request {
    struct mp_store_request *next;
    enum mp_store_kind kind;
    uint64_t ticket;
    mp_store_on_answer on_answer;     /* NULL: nobody waits */
    uint8_t hash[MP_UNIT_HASH_BYTES]; /* of a unit, once it is carried out */
    /* what it is about: a unit and behind it its description; a unit's hash; entries; what says
     * which run, and behind it what is to be kept of it; messages */
    uint8_t *bytes;
    size_t first_size;
    size_t second_size;
    /* what came of it */
    struct mp_buf found; /* of a unit: and behind it its description */
    size_t found_first_size;
    bool is_missing;
    bool is_damaged;   /* it is missing because its bytes are others */
    bool is_refused;   /* too many waited */
    bool is_too_large; /* it is over MP_STORE_RECORD_BYTES_MAX */
    int code;          /* SQLite's */
    int system;        /* errno of a failed system call */
    char *news;        /* a line for the log, of malloc; or NULL */
};

static inline struct mp_slice mp_store_first(const struct mp_store_request *r)
{
    return mp_slice_of(r->bytes, r->first_size);
}

static inline struct mp_slice mp_store_second(const struct mp_store_request *r)
{
    return mp_slice_of(r->bytes ? r->bytes + r->first_size : NULL, r->second_size);
}

/* --- a file (store_file.c) --- */

/* The statements that every file has; its own follow from MP_STORE_OWN on. */
enum { MP_STORE_BEGIN, MP_STORE_COMMIT, MP_STORE_ROLLBACK, MP_STORE_OWN };
#define MP_STORE_STATEMENTS_MAX 20

struct mp_store_file {
    sqlite3 *db; /* NULL: it is not open, and nothing can be done with it */
    sqlite3_stmt *statements[MP_STORE_STATEMENTS_MAX];
    /* why it could not be opened: it is damaged or another program's; SQLite's code and errno */
    bool is_damaged;
    int code;
    int system;
    char path[PATH_MAX];
    const char *remedy; /* what to do with a damaged one */
};

/* malloc as memory for the store's thread, which has no share in the host's. */
struct mp_alloc *mp_store_alloc(void);
/* Names the file; false: the path is too long, says `why`. */
bool mp_store_file_name(struct mp_store_file *f, const char *dir, const char *name,
                        const char *remedy, struct mp_text *why);
/* Opens it, empty if it is new, with these settings. False: `why`; the file is to be closed then
 * all the same, as after any other failure. */
bool mp_store_file_open(struct mp_store_file *f, const char *settings, struct mp_text *why);
/* Makes the tables of an empty file with `schema_text`, which gives it schema 1; of another one the
 * schema must be 1. */
bool mp_store_file_check_schema(struct mp_store_file *f, const char *schema_text,
                                struct mp_text *why);
bool mp_store_file_prepare(struct mp_store_file *f, const char *const *own_texts, uint32_t count,
                           struct mp_text *why);
/* Says what is wrong with the file, and what to do; always false. */
bool mp_store_file_fail(struct mp_store_file *f, struct mp_text *why);
/* The same when what it holds cannot be read. */
bool mp_store_file_fail_content(struct mp_store_file *f, const char *what, struct mp_text *why);
/* The one number that a statement gives; -1: it failed. */
int64_t mp_store_file_ask(struct mp_store_file *f, const char *text);
/* Runs a statement that gives no rows; SQLITE_OK if it is done. Of a file that is not open: why. */
int mp_store_file_run(struct mp_store_file *f, uint32_t statement);
int mp_store_file_errno(const struct mp_store_file *f);
/* Whether that says that the disk is full. */
bool mp_store_is_full(int code, int system);
void mp_store_file_close(struct mp_store_file *f);

/* --- mpreg.db (store_code.c) --- */

/* Opens it, and appends an array of all entries; false: `why`. */
bool mp_store_code_open(struct mp_store_file *f, const char *dir, bool is_temporary,
                        struct mp_buf *entries, struct mp_text *why);
/* SQLite's code. */
int mp_store_code_carry_out(struct mp_store_file *f, struct mp_store_request *r);

/* --- runs.db (store_runs.c) --- */

/* Opens it, or moves it aside and begins another one if it is damaged, which is logged. Gives the
 * arrays of heads and of messages. On a full disk, which is logged too, it is not open, and nothing
 * is given. False: `why`. */
bool mp_store_runs_open(struct mp_store_file *f, const char *dir, bool is_temporary,
                        struct mp_store_restored *out, struct mp_text *why);
/* SQLite's code. */
int mp_store_runs_carry_out(struct mp_store_file *f, struct mp_store_request *r);
/* For the thread: moves a file aside that a write has found to be damaged, and begins another one;
 * or opens one that is not open, if that can be done now. `news` is what is to be logged. False:
 * the file is not open. */
bool mp_store_runs_renew(struct mp_store_file *f, bool is_temporary, struct mp_text *news);
/* Gives some of the space that deleting left back to the disk, if there is much of it; false: there
 * is not. */
bool mp_store_runs_trim(struct mp_store_file *f);
