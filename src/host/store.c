/* Only the store's thread touches SQLite once it runs. Requests go to it, and answers come back, on
 * lists that are pushed to with compare-and-swap and taken whole (so nothing is ever popped, and a
 * node's address that is used again does no harm); a semaphore wakes the thread, uv_async_t the
 * loop. There are no locks.
 *
 * Group commit: whatever waits when the thread wakes is one transaction, so the disk is waited for
 * once, and an answer is given after it. If a write of it fails (the disk is full, say), the
 * transaction is rolled back and each request tried alone: a small one may still fit, and only
 * those that do not are refused.
 *
 * Code and runs have a list and a file each. Of runs a transaction takes only so much; between two
 * of them, what waits of code comes first, so that a deploy does not wait for many records.
 *
 * The files are opened with the exclusive locking mode, since the data folder has one node; so
 * SQLite needs no shared-memory file, whose pages a full disk could take away under it. */
#include "src/host/store.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/store_internal.h"
#include "src/wire/error.h"

#define MESSAGE_BYTES (PATH_MAX + 512)
#define NEWS_BYTES    (4 * PATH_MAX)

/* A file, what is asked of it, and how much of that is not answered yet (the loop's numbers). */
struct lane {
    struct mp_store_file file;
    int (*carry_out)(struct mp_store_file *f, struct mp_store_request *r);
    _Atomic(struct mp_store_request *) asked;
    uint32_t outstanding;
    size_t outstanding_bytes;
};

struct mp_store {
    struct lane code;
    struct lane runs;
    bool is_temporary;
    char dir[PATH_MAX];
    const char *node;
    void *context;
    uv_thread_t thread;
    uv_sem_t wake;
    uv_async_t async;
    bool is_running;
    uint64_t
        complained_at; /* the loop's, in ms: when it was last logged that runs cannot be kept */
    _Atomic(struct mp_store_request *) answered;
};

static void push(_Atomic(struct mp_store_request *) *list, struct mp_store_request *r)
{
    struct mp_store_request *first = atomic_load_explicit(list, memory_order_relaxed);
    do {
        r->next = first;
    } while (!atomic_compare_exchange_weak_explicit(list, &first, r, memory_order_release,
                                                    memory_order_relaxed));
}

/* Everything, the oldest first. */
static struct mp_store_request *take_all(_Atomic(struct mp_store_request *) *list)
{
    struct mp_store_request *newest = atomic_exchange_explicit(list, NULL, memory_order_acquire);
    struct mp_store_request *oldest = NULL;
    while (newest) {
        struct mp_store_request *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void free_request(struct mp_store_request *r)
{
    mp_buf_fini(&r->found);
    free(r->news);
    free(r->bytes);
    free(r);
}

static bool is_of_runs(const struct mp_store_request *r)
{
    return r->kind >= MP_STORE_KEEP_RUN;
}

static bool is_read(const struct mp_store_request *r)
{
    return r->kind == MP_STORE_READ_UNIT || r->kind == MP_STORE_READ_RUN ||
           r->kind == MP_STORE_READ_RUN_PART;
}

static bool is_write(const struct mp_store_request *r)
{
    return !is_read(r) && r->kind != MP_STORE_END;
}

/* --- opening --- */

void mp_store_restored_init(struct mp_store_restored *r)
{
    mp_buf_init(&r->entries, mp_host_alloc(), 0);
    mp_buf_init(&r->heads, mp_host_alloc(), 0);
    mp_buf_init(&r->messages, mp_host_alloc(), 0);
}

void mp_store_restored_fini(struct mp_store_restored *r)
{
    mp_buf_fini(&r->entries);
    mp_buf_fini(&r->heads);
    mp_buf_fini(&r->messages);
}

bool mp_store_open(struct mp_store **own_out, const char *dir, bool is_temporary,
                   struct mp_store_restored *out, struct mp_text *why)
{
    struct mp_store *s = mp_xalloc(sizeof(*s));
    snprintf(s->dir, sizeof(s->dir), "%s", dir);
    s->is_temporary = is_temporary;
    s->code.carry_out = mp_store_code_carry_out;
    s->runs.carry_out = mp_store_runs_carry_out;
    if (mp_store_code_open(&s->code.file, dir, is_temporary, &out->entries, why) &&
        mp_store_runs_open(&s->runs.file, dir, is_temporary, out, why)) {
        *own_out = s;
        return true;
    }
    mp_buf_clear(&out->entries);
    mp_store_close(s);
    return false;
}

/* --- the thread --- */

/* False: a write failed. */
static bool carry_out(struct lane *l, struct mp_store_request *r)
{
    r->code = l->carry_out(&l->file, r);
    r->system = r->code == SQLITE_OK ? 0 : mp_store_file_errno(&l->file);
    return r->code == SQLITE_OK || is_read(r);
}

/* Requests up to `end` as one transaction; false: nothing of it was kept, and each that failed, or
 * all, have the reason. */
static bool commit(struct lane *l, struct mp_store_request *first,
                   const struct mp_store_request *end)
{
    int code = mp_store_file_run(&l->file, MP_STORE_BEGIN);
    bool is_done = code == SQLITE_OK;
    for (struct mp_store_request *r = first; is_done && r != end; r = r->next)
        is_done = carry_out(l, r);
    if (is_done) {
        code = mp_store_file_run(&l->file, MP_STORE_COMMIT);
        is_done = code == SQLITE_OK;
    }
    if (is_done)
        return true;
    for (struct mp_store_request *r = first; code != SQLITE_OK && r != end; r = r->next) {
        r->code = code;
        r->system = mp_store_file_errno(&l->file);
    }
    mp_store_file_run(&l->file, MP_STORE_ROLLBACK); /* fails if SQLite did so already */
    return false;
}

static void serve(struct lane *l, struct mp_store_request *first)
{
    bool has_writes = false;
    for (const struct mp_store_request *r = first; r; r = r->next)
        has_writes = has_writes || is_write(r);
    if (has_writes && (commit(l, first, NULL) || !first->next))
        return;
    for (struct mp_store_request *r = first; r; r = r->next)
        if (is_write(r))
            (void)commit(l, r, r->next);
        else
            (void)carry_out(l, r);
}

/* True: there was an END. */
static bool answer(struct mp_store *s, struct mp_store_request *first)
{
    bool is_over = false;
    while (first) {
        struct mp_store_request *r = first;
        first = r->next;
        is_over = is_over || r->kind == MP_STORE_END;
        push(&s->answered, r);
    }
    uv_async_send(&s->async);
    return is_over;
}

/* Takes from the front what one transaction may hold; a reading is the last of its own. */
static struct mp_store_request *take_batch(struct mp_store_request **waiting)
{
    struct mp_store_request *first = *waiting;
    struct mp_store_request *last = first;
    size_t bytes = sizeof(*last) + last->first_size + last->second_size;
    while (last->next && !is_read(last)) {
        bytes += sizeof(*last) + last->next->first_size + last->next->second_size;
        if (bytes > MP_STORE_COMMIT_BYTES_MAX)
            break;
        last = last->next;
    }
    *waiting = last->next;
    last->next = NULL;
    return first;
}

static bool is_file_damaged(const struct mp_store_request *first)
{
    for (const struct mp_store_request *r = first; r; r = r->next)
        if (is_write(r) &&
            ((r->code & 0xff) == SQLITE_CORRUPT || (r->code & 0xff) == SQLITE_NOTADB))
            return true;
    return false;
}

/* What comes of it is told with the first request. */
static bool renew(struct mp_store *s, struct mp_store_request *first)
{
    char text[NEWS_BYTES];
    struct mp_text news;
    mp_text_init(&news, text, sizeof(text));
    bool is_renewed = mp_store_runs_renew(&s->runs.file, s->is_temporary, &news);
    if (news.size != 0 && !first->news)
        first->news = strdup(text);
    return is_renewed;
}

static void serve_runs(struct mp_store *s, struct mp_store_request *first)
{
    if (!s->runs.file.db)
        (void)renew(s, first);
    serve(&s->runs, first);
    if (is_file_damaged(first) && renew(s, first))
        serve(&s->runs, first);
}

static void append(struct mp_store_request **list, struct mp_store_request *more)
{
    while (*list)
        list = &(*list)->next;
    *list = more;
}

static void run_thread(void *context)
{
    struct mp_store *s = (struct mp_store *)context;
    struct mp_store_request *waiting = NULL; /* of runs */
    bool has_space = false;                  /* that may be given back */
    bool is_over = false;
    while (!is_over) {
        if (!waiting && !has_space)
            uv_sem_wait(&s->wake);
        while (uv_sem_trywait(&s->wake) == 0) {
            /* What these say is taken now. */
        }
        /* Runs first: what was asked of code before an END is there too then. */
        append(&waiting, take_all(&s->runs.asked));
        struct mp_store_request *first = take_all(&s->code.asked);
        if (first) {
            serve(&s->code, first);
            (void)answer(s, first);
        }
        if (waiting) {
            first = take_batch(&waiting);
            serve_runs(s, first);
            is_over = answer(s, first);
            has_space = true;
        } else if (has_space) {
            has_space = mp_store_runs_trim(&s->runs.file);
        }
    }
}

/* --- the loop's side --- */

static void put_failure(const struct mp_store *s, const struct mp_store_request *r,
                        struct mp_text *message)
{
    mp_text_put(message, "the data folder ");
    mp_text_put(message, s->dir);
    mp_text_put(message, is_read(r) ? " cannot be read: " : " cannot be written: ");
    mp_text_put(message, sqlite3_errstr(r->code));
    if (r->system != 0) {
        mp_text_put(message, ": ");
        mp_text_put(message, strerror(r->system));
    }
}

static bool is_too_large(const struct mp_store_request *r)
{
    return r->is_too_large || (r->code & 0xff) == SQLITE_TOOBIG;
}

static void put_message(const struct mp_store *s, const struct mp_store_request *r,
                        struct mp_text *message)
{
    if (is_too_large(r)) {
        mp_text_put(message, "a record of a run is larger than ");
        mp_text_put_bytes(message, MP_STORE_RECORD_BYTES_MAX);
    } else if (r->is_refused) {
        mp_text_put(message,
                    is_of_runs(r) ? "too many records of runs and messages" : "too many deploys");
        mp_text_put(message, " wait for the disk of the data folder ");
        mp_text_put(message, s->dir);
    } else if (mp_store_is_full(r->code, r->system)) {
        mp_text_put(message, "no space is left on the disk of the data folder ");
        mp_text_put(message, s->dir);
    } else {
        put_failure(s, r, message);
    }
}

/* Code's each; of runs, which may come by the thousand, one now and then. */
static void complain(struct mp_store *s, const struct mp_store_request *r, const char *text)
{
    uint64_t now = uv_now(s->async.loop);
    if (!is_of_runs(r)) {
        if (!r->is_refused)
            mp_log(3, "%s", text);
        return;
    }
    if (s->complained_at != 0 && now - s->complained_at < MP_STORE_COMPLAIN_EACH_MS)
        return;
    s->complained_at = now != 0 ? now : 1;
    mp_log(3, "%s of runs or messages fails: %s", is_read(r) ? "reading" : "keeping", text);
}

/* An ERROR map for a request that failed. */
static enum mp_err put_error(const struct mp_store *s, const struct mp_store_request *r,
                             struct mp_slice message, struct mp_buf *b)
{
    bool is_full = mp_store_is_full(r->code, r->system);
    const char *reason = is_too_large(r) ? "TOO_LARGE"
                         : r->is_refused ? "QUEUE_FULL"
                         : is_full       ? "DISK_FULL"
                                         : NULL;
    const struct mp_fault fault = {.code = reason ? MP_CODE_RESOURCE_EXHAUSTED : MP_CODE_INTERNAL,
                                   .reason = mp_slice_str(reason ? reason : "STORE_FAILED"),
                                   .message = message,
                                   .hint = mp_slice_str(is_full ? "make room there" : ""),
                                   .node = mp_slice_str(s->node)};
    return mp_fault_put(b, &fault);
}

static void log_damage(const struct mp_store *s, const struct mp_store_request *r)
{
    char hex[2 * MP_UNIT_HASH_BYTES + 1];
    for (unsigned i = 0; i < MP_UNIT_HASH_BYTES; i++)
        snprintf(hex + 2 * (size_t)i, 3, "%02x", r->hash[i]);
    mp_log(3, "%s: the unit %s is damaged and counts as missing", s->code.file.path, hex);
}

static void tell_error(struct mp_store *s, const struct mp_store_request *r,
                       struct mp_store_answer *a)
{
    char text[MESSAGE_BYTES];
    struct mp_text message;
    struct mp_buf error;
    mp_text_init(&message, text, sizeof(text));
    mp_buf_init(&error, mp_host_alloc(), 0);
    put_message(s, r, &message);
    complain(s, r, text);
    /* without memory: an error without a text */
    (void)put_error(s, r, mp_text_slice(&message), &error);
    a->error = mp_buf_slice(&error);
    if (r->on_answer)
        r->on_answer(s->context, r->ticket, a);
    mp_buf_fini(&error);
}

static void tell(struct mp_store *s, const struct mp_store_request *r)
{
    bool is_error = r->code != SQLITE_OK || r->is_refused || r->is_too_large;
    struct mp_store_answer a = {.is_missing = r->is_missing && !is_error, .is_error = is_error};
    struct mp_slice found = mp_buf_slice(&r->found);
    if (r->is_damaged)
        log_damage(s, r);
    if (r->news)
        mp_log(2, "%s", r->news);
    if (is_error) {
        tell_error(s, r, &a);
        return;
    }
    if (is_read(r) && !a.is_missing) {
        size_t size = r->kind == MP_STORE_READ_UNIT ? r->found_first_size : found.size;
        a.found = mp_slice_of(found.data, size);
        a.description = mp_slice_of(found.data ? found.data + size : NULL, found.size - size);
    }
    if (r->on_answer)
        r->on_answer(s->context, r->ticket, &a);
}

static void on_async(uv_async_t *async)
{
    struct mp_store *s = (struct mp_store *)async->data;
    struct mp_store_request *first = take_all(&s->answered);
    while (first) {
        struct mp_store_request *r = first;
        struct lane *l = is_of_runs(r) ? &s->runs : &s->code;
        first = r->next;
        l->outstanding--;
        l->outstanding_bytes -= r->first_size + r->second_size;
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

static const struct mp_slice none;

static bool has_room(const struct lane *l, bool is_of_runs, size_t size)
{
    if (!is_of_runs)
        return l->outstanding < MP_STORE_REQUESTS_MAX;
    return l->outstanding < MP_STORE_RUN_REQUESTS_MAX &&
           (l->outstanding == 0 || l->outstanding_bytes + size <= MP_STORE_RUN_BYTES_MAX);
}

static struct mp_store_request *new_request(enum mp_store_kind kind, uint64_t ticket,
                                            mp_store_on_answer on_answer, struct mp_slice first,
                                            struct mp_slice second)
{
    struct mp_store_request *r = mp_xalloc(sizeof(*r));
    r->kind = kind;
    r->ticket = ticket;
    r->on_answer = on_answer;
    r->first_size = first.size;
    r->second_size = second.size;
    mp_buf_init(&r->found, mp_store_alloc(), MP_STORE_RECORD_BYTES_MAX);
    if (first.size + second.size != 0)
        r->bytes = mp_xalloc(first.size + second.size);
    if (first.size != 0)
        memcpy(r->bytes, first.data, first.size);
    if (second.size != 0)
        memcpy(r->bytes + first.size, second.data, second.size);
    return r;
}

static void ask(struct mp_store *s, enum mp_store_kind kind, uint64_t ticket,
                mp_store_on_answer on_answer, struct mp_slice first, struct mp_slice second)
{
    if (!s->is_running) /* the node is ending: nobody waits for the answer */
        return;
    bool is_runs = kind >= MP_STORE_KEEP_RUN;
    struct lane *l = is_runs ? &s->runs : &s->code;
    size_t size = first.size + second.size;
    bool is_large = is_runs && size > MP_STORE_RECORD_BYTES_MAX;
    bool is_taken = !is_large && has_room(l, is_runs, size);
    struct mp_store_request *r =
        new_request(kind, ticket, on_answer, is_taken ? first : none, is_taken ? second : none);
    l->outstanding++;
    if (!is_taken) {
        r->is_refused = !is_large;
        r->is_too_large = is_large;
        push(&s->answered, r);
        uv_async_send(&s->async);
        return;
    }
    l->outstanding_bytes += size;
    push(&l->asked, r);
    uv_sem_post(&s->wake);
}

/* --- what can be asked --- */

void mp_store_keep_unit(struct mp_store *s, uint64_t ticket, struct mp_slice unit,
                        struct mp_slice description, mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_KEEP_UNIT, ticket, on_answer, unit, description);
}

void mp_store_keep_entries(struct mp_store *s, uint64_t ticket, struct mp_slice entries,
                           mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_KEEP_ENTRIES, ticket, on_answer, entries, none);
}

void mp_store_read_unit(struct mp_store *s, uint64_t ticket, struct mp_slice hash,
                        mp_store_on_answer on_answer)
{
    mp_assert(hash.size == MP_UNIT_HASH_BYTES);
    ask(s, MP_STORE_READ_UNIT, ticket, on_answer, hash, none);
}

void mp_store_keep_run(struct mp_store *s, uint64_t ticket, struct mp_slice run,
                       struct mp_slice record, mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_KEEP_RUN, ticket, on_answer, run, record);
}

void mp_store_keep_run_part(struct mp_store *s, uint64_t ticket, struct mp_slice which,
                            struct mp_slice bytes, mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_KEEP_RUN_PART, ticket, on_answer, which, bytes);
}

void mp_store_forget_run(struct mp_store *s, struct mp_slice run)
{
    ask(s, MP_STORE_FORGET_RUN, 0, NULL, run, none);
}

void mp_store_read_run(struct mp_store *s, uint64_t ticket, struct mp_slice run,
                       mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_READ_RUN, ticket, on_answer, run, none);
}

void mp_store_read_run_part(struct mp_store *s, uint64_t ticket, struct mp_slice which,
                            mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_READ_RUN_PART, ticket, on_answer, which, none);
}

void mp_store_keep_messages(struct mp_store *s, uint64_t ticket, struct mp_slice messages,
                            mp_store_on_answer on_answer)
{
    ask(s, MP_STORE_KEEP_MESSAGES, ticket, on_answer, messages, none);
}

void mp_store_forget_messages(struct mp_store *s, struct mp_slice messages)
{
    ask(s, MP_STORE_FORGET_MESSAGES, 0, NULL, messages, none);
}

/* --- the end --- */

static void drop_all(struct mp_store_request *first)
{
    while (first) {
        struct mp_store_request *r = first;
        first = r->next;
        free_request(r);
    }
}

void mp_store_stop(struct mp_store *s)
{
    if (!s || !s->is_running)
        return;
    push(&s->runs.asked, new_request(MP_STORE_END, 0, NULL, none, none));
    uv_sem_post(&s->wake);
    uv_thread_join(&s->thread);
    s->is_running = false;
    uv_sem_destroy(&s->wake);
    uv_close((uv_handle_t *)&s->async, NULL);
    drop_all(take_all(&s->answered));
}

void mp_store_close(struct mp_store *s)
{
    if (!s)
        return;
    mp_assert(!s->is_running);
    mp_store_file_close(&s->code.file);
    mp_store_file_close(&s->runs.file);
    free(s);
}
