/* What hosts do for code, invented: a store that keeps units and entries, processes that check
 * units, workers that load them. All of it is answered later; what the store is asked it does in
 * order, and likewise, apart from that, what it is asked of runs and messages (records.c). What it
 * was asked before its node died it may have done or not.
 *
 * There is no Lua: a module's source is what describes it, as MessagePack. One that is no map is as
 * one with a syntax error. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/wire/unit.h"

#define WALL_MS       1700000000000
#define ERROR_MS      3000  /* a node's wall clock is wrong by so much, ahead or behind */
#define AHEAD_MS      14000 /* of one that is wrong by more than others put up with, the least */
#define AHEAD_MORE_MS 8000
#define CHECK_LONGEST MP_MS(300)
#define STORE_LONGEST MP_MS(50)
#define LOAD_LONGEST  MP_MS(100)
#define FULL_LONGEST  MP_SECONDS(3)
#define FIRST_MODULE  4096 /* as workers number those of units */
#define MODULES_EACH  8    /* numbers that a unit takes of them */

static void check(enum mp_err err)
{
    mp_assert(err == MP_OK);
}

static void append(struct mp_buf *b, struct mp_slice bytes)
{
    check(mp_buf_append(b, bytes));
}

int64_t mp_world_wall(const struct mp_world *w, const struct mp_world_node *n)
{
    return WALL_MS + (int64_t)(w->now / MP_MS(1)) + n->wall_error_ms;
}

/* --- what is kept --- */

static void empty_store(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_world_store *s = &n->store;
    for (uint32_t i = 0; i < s->unit_count; i++) {
        mp_buf_fini(&s->units[i].bytes);
        mp_buf_fini(&s->units[i].description);
    }
    mp_alloc_free(w->alloc, s->units, s->unit_capacity * sizeof(*s->units));
    mp_buf_fini(&s->entries);
    *s = (struct mp_world_store){0};
    mp_buf_init(&s->entries, w->alloc, 0);
}

void mp_world_code_init(struct mp_world *w, struct mp_world_node *n)
{
    mp_buf_init(&n->store.entries, w->alloc, 0);
    if (w->cfg.chances.change == 0)
        return;
    n->wall_error_ms = (int64_t)mp_rng_below(&w->rng, 2 * ERROR_MS) - ERROR_MS;
    if (n->number != 0 && w->cfg.chances.disk_full != 0 && mp_world_chance(w, 30))
        n->wall_error_ms = AHEAD_MS + (int64_t)mp_rng_below(&w->rng, AHEAD_MORE_MS);
}

void mp_world_disk_lost(struct mp_world *w, struct mp_world_node *n)
{
    n->disk = 0;
    empty_store(w, n);
    mp_world_records_fini(w, n);
    mp_world_runs_disk_lost(w, n);
    for (uint32_t i = 0; i < w->entry_count; i++)
        w->entries[i].keepers &= ~(1ull << n->number);
}

static struct mp_world_unit *stored_unit(const struct mp_world_node *n, const uint8_t *hash)
{
    for (uint32_t i = 0; i < n->store.unit_count; i++)
        if (memcmp(n->store.units[i].hash, hash, MP_UNIT_HASH_BYTES) == 0)
            return &n->store.units[i];
    return NULL;
}

bool mp_world_is_stored(const struct mp_world_node *n, const uint8_t *hash)
{
    return stored_unit(n, hash) != NULL;
}

static void store_unit(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    struct mp_world_store *s = &n->store;
    struct mp_world_unit *u = stored_unit(n, j->hash);
    if (u)
        return; /* the same bytes, since it has the same hash */
    s->units = (struct mp_world_unit *)mp_world_grow(w, s->units, &s->unit_capacity,
                                                     s->unit_count + 1, sizeof(*s->units));
    u = &s->units[s->unit_count++];
    memcpy(u->hash, j->hash, sizeof(u->hash));
    mp_buf_init(&u->bytes, w->alloc, 0);
    mp_buf_init(&u->description, w->alloc, 0);
    append(&u->bytes, mp_buf_slice(&j->bytes));
    append(&u->description, mp_buf_slice(&j->context));
}

static void store_entries(struct mp_world *w, struct mp_world_node *n, struct mp_slice entries)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    check(mp_mp_get_array(entries, &count, &r));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice entry;
        check(mp_mp_take(&r, &entry));
        append(&n->store.entries, entry);
        n->store.entry_count++;
        mp_world_entry_kept(w, n, entry);
    }
}

void mp_world_code_restore(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_buf b;
    mp_buf_init(&b, w->alloc, 0);
    check(mp_mp_put_array(&b, n->store.entry_count));
    append(&b, mp_buf_slice(&n->store.entries));
    const struct mp_node_event ev = {.kind = MP_NODE_RESTORED,
                                     .stored = {.bytes = mp_buf_slice(&b)}};
    mp_world_step_surely(w, n, &ev);
    mp_buf_fini(&b);
}

/* --- what is under way --- */

static void free_job(struct mp_world_job *j)
{
    mp_buf_fini(&j->bytes);
    mp_buf_fini(&j->context);
}

static bool is_of_store(enum mp_node_effect_kind kind)
{
    return kind == MP_NODE_KEEP_UNIT || kind == MP_NODE_KEEP_ENTRIES || kind == MP_NODE_READ_UNIT;
}

static bool is_of_runs(enum mp_node_effect_kind kind)
{
    return kind == MP_NODE_KEEP_RUN || kind == MP_NODE_KEEP_RUN_PART ||
           kind == MP_NODE_FORGET_RUN || kind == MP_NODE_READ_RUN ||
           kind == MP_NODE_READ_RUN_PART || kind == MP_NODE_KEEP_MESSAGES ||
           kind == MP_NODE_FORGET_MESSAGES;
}

static void add_job(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e,
                    mp_duration longest)
{
    mp_time due = w->now + mp_world_latency(w, longest);
    mp_time *last = is_of_store(e->kind)  ? &n->store_due
                    : is_of_runs(e->kind) ? &n->records_due
                                          : NULL;
    if (last) {
        due = due < *last ? *last : due;
        *last = due;
    }
    n->jobs = (struct mp_world_job *)mp_world_grow(w, n->jobs, &n->job_capacity, n->job_count + 1,
                                                   sizeof(*n->jobs));
    struct mp_world_job *j = &n->jobs[n->job_count++];
    *j = (struct mp_world_job){.kind = e->kind, .ticket = e->id, .due = due};
    mp_buf_init(&j->bytes, w->alloc, 0);
    mp_buf_init(&j->context, w->alloc, 0);
    append(&j->bytes, e->payload.bytes);
    append(&j->context, e->context);
    if (e->kind == MP_NODE_KEEP_UNIT)
        memcpy(j->hash, e->hash, sizeof(j->hash));
    else if (e->kind == MP_NODE_READ_UNIT || e->kind == MP_NODE_LOAD_UNIT)
        memcpy(j->hash, e->payload.bytes.data, sizeof(j->hash));
    mp_world_plan(w, due - w->now,
                  (struct mp_world_happening){
                      .kind = MP_WORLD_CODE_DUE, .node = n->number, .number = n->boot});
}

void mp_world_code_lost(struct mp_world *w, struct mp_world_node *n)
{
    bool is_done = true;
    bool is_recorded = true;
    for (uint32_t i = 0; i < n->job_count; i++) {
        struct mp_world_job *j = &n->jobs[i];
        if (is_of_runs(j->kind))
            is_recorded = is_recorded && mp_world_chance(w, 500);
        if (is_of_runs(j->kind) && is_recorded)
            mp_world_record(w, n, j);
        if (is_of_store(j->kind))
            is_done = is_done && mp_world_chance(w, 500);
        if (is_done && j->kind == MP_NODE_KEEP_UNIT)
            store_unit(w, n, j);
        else if (is_done && j->kind == MP_NODE_KEEP_ENTRIES)
            store_entries(w, n, mp_buf_slice(&j->bytes));
        free_job(j);
    }
    n->job_count = 0;
    n->store_due = 0;
    n->records_due = 0;
    n->disk_full_until = 0;
    for (uint32_t i = 0; i < n->loaded_capacity; i++) {
        if (n->loaded[i].is_used)
            mp_buf_fini(&n->loaded[i].description);
        n->loaded[i].is_used = false;
    }
    for (uint32_t i = 0; i < n->release_capacity; i++) {
        if (n->releases[i].is_open)
            mp_buf_fini(&n->releases[i].list);
        n->releases[i].is_open = false;
    }
}

void mp_world_code_fini(struct mp_world *w, struct mp_world_node *n)
{
    mp_assert(n->job_count == 0);
    empty_store(w, n);
    mp_world_records_fini(w, n);
    mp_alloc_free(w->alloc, n->jobs, n->job_capacity * sizeof(*n->jobs));
    mp_alloc_free(w->alloc, n->loaded, n->loaded_capacity * sizeof(*n->loaded));
    mp_alloc_free(w->alloc, n->releases, n->release_capacity * sizeof(*n->releases));
}

/* --- answers --- */

/* Like a hash of 32 bytes that nobody can forge. */
static void hash_of(struct mp_slice bytes, uint8_t hash[MP_UNIT_HASH_BYTES])
{
    for (uint64_t i = 0; i < MP_UNIT_HASH_BYTES / 8; i++) {
        uint64_t part = mp_slice_hash(bytes, i + 1);
        memcpy(hash + 8 * i, &part, sizeof(part));
    }
}

static void put_fault(struct mp_buf *b, enum mp_code code, const char *reason, const char *message)
{
    const struct mp_fault fault = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str(message)};
    check(mp_fault_put(b, &fault));
}

/* False: it is an ERROR map instead. */
static bool describe(struct mp_slice unit, struct mp_buf *b)
{
    uint32_t count;
    const char *why;
    struct mp_mp_reader r;
    struct mp_unit_module m;
    check(mp_unit_open(unit, &count, &r, &why));
    check(mp_mp_put_array(b, count));
    while (mp_unit_next(&r, &m) == MP_OK) {
        uint8_t hash[MP_UNIT_HASH_BYTES];
        if (mp_mp_check(m.source) != MP_OK || mp_mp_type_of(m.source) != MP_MP_MAP) {
            mp_buf_clear(b);
            put_fault(b, MP_CODE_INVALID_ARGUMENT, "LOAD_ERROR", "it is no Lua");
            return false;
        }
        hash_of(m.source, hash);
        check(mp_mp_put_array(b, 2));
        check(mp_mp_put_bin(b, mp_slice_of(hash, sizeof(hash))));
        check(mp_mp_put_raw(b, m.source));
    }
    return true;
}

static void checked(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    struct mp_buf b;
    mp_buf_init(&b, w->alloc, 0);
    struct mp_node_event ev = {.kind = MP_NODE_CHECKED, .stored = {.ticket = j->ticket}};
    ev.stored.is_error = !describe(mp_buf_slice(&j->bytes), &b);
    ev.stored.bytes = mp_buf_slice(&b);
    hash_of(mp_buf_slice(&j->bytes), ev.stored.hash);
    mp_world_step(w, n, &ev);
    mp_buf_fini(&b);
}

/* Also what nobody waits for, which a full disk loses. */
static void kept(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    struct mp_buf b;
    bool is_told = j->kind != MP_NODE_FORGET_RUN && j->kind != MP_NODE_FORGET_MESSAGES;
    struct mp_node_event ev = {.kind = MP_NODE_KEPT, .stored = {.ticket = j->ticket}};
    mp_buf_init(&b, w->alloc, 0);
    if (w->now >= n->disk_full_until && mp_world_chance(w, w->cfg.chances.disk_full))
        n->disk_full_until = w->now + mp_world_latency(w, FULL_LONGEST);
    if (w->now < n->disk_full_until) {
        put_fault(&b, MP_CODE_RESOURCE_EXHAUSTED, "DISK_FULL", "the disk is full");
        ev.stored.is_error = true;
        ev.stored.bytes = mp_buf_slice(&b);
    } else if (j->kind == MP_NODE_KEEP_UNIT) {
        store_unit(w, n, j);
    } else if (j->kind == MP_NODE_KEEP_ENTRIES) {
        store_entries(w, n, mp_buf_slice(&j->bytes));
    } else {
        mp_world_record(w, n, j);
    }
    if (is_told)
        mp_world_step(w, n, &ev);
    mp_buf_fini(&b);
}

static void found(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    struct mp_buf b;
    const struct mp_world_unit *u = j->kind == MP_NODE_READ_UNIT ? stored_unit(n, j->hash) : NULL;
    struct mp_node_event ev = {.kind = MP_NODE_FOUND, .stored = {.ticket = j->ticket}};
    mp_buf_init(&b, w->alloc, 0);
    if (u)
        append(&b, mp_buf_slice(&u->bytes));
    else if (j->kind == MP_NODE_READ_MODULE)
        append(&b, mp_slice_str("return {}"));
    else
        ev.stored.is_missing = !is_of_runs(j->kind) || !mp_world_record_read(n, j, &b);
    ev.stored.bytes = mp_buf_slice(&b);
    mp_world_step(w, n, &ev);
    mp_buf_fini(&b);
}

static uint32_t take_loaded(struct mp_world *w, struct mp_world_node *n)
{
    uint32_t place = 0;
    while (place < n->loaded_capacity && n->loaded[place].is_used)
        place++;
    n->loaded = (struct mp_world_loaded *)mp_world_grow(w, n->loaded, &n->loaded_capacity,
                                                        place + 1, sizeof(*n->loaded));
    return place;
}

static void loaded(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    struct mp_buf b;
    const struct mp_world_unit *u = stored_unit(n, j->hash);
    struct mp_node_event ev = {.kind = MP_NODE_LOADED,
                               .stored = {.ticket = j->ticket, .is_missing = !u}};
    mp_buf_init(&b, w->alloc, 0);
    if (u && mp_world_chance(w, w->cfg.chances.load_fails)) {
        put_fault(&b, MP_CODE_INTERNAL, "LOAD_ERROR", "the workers could not load it");
        ev.stored.is_error = true;
        ev.stored.bytes = mp_buf_slice(&b);
    } else if (u) {
        uint32_t place = take_loaded(w, n);
        struct mp_world_loaded *l = &n->loaded[place];
        *l = (struct mp_world_loaded){.is_used = true};
        memcpy(l->hash, j->hash, sizeof(l->hash));
        mp_buf_init(&l->description, w->alloc, 0);
        append(&l->description, mp_buf_slice(&u->description));
        struct mp_mp_reader r;
        check(mp_mp_get_array(mp_buf_slice(&l->description), &l->module_count, &r));
        ev.stored.unit = place + 1;
        ev.stored.first_module = FIRST_MODULE + place * MODULES_EACH;
        ev.stored.bytes = mp_buf_slice(&u->description);
    }
    mp_world_step(w, n, &ev);
    mp_buf_fini(&b);
}

static void carry_out(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    switch (j->kind) {
    case MP_NODE_CHECK_UNIT:
        checked(w, n, j);
        break;
    case MP_NODE_KEEP_UNIT:
    case MP_NODE_KEEP_ENTRIES:
    case MP_NODE_KEEP_RUN:
    case MP_NODE_KEEP_RUN_PART:
    case MP_NODE_FORGET_RUN:
    case MP_NODE_KEEP_MESSAGES:
    case MP_NODE_FORGET_MESSAGES:
        kept(w, n, j);
        break;
    case MP_NODE_READ_UNIT:
    case MP_NODE_READ_MODULE:
    case MP_NODE_READ_RUN:
    case MP_NODE_READ_RUN_PART:
        found(w, n, j);
        break;
    default:
        loaded(w, n, j);
        break;
    }
}

void mp_world_code_happening(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_node *n = &w->nodes[h->node];
    uint32_t i = 0;
    if (!n->node || h->number != n->boot)
        return;
    if (mp_world_is_paused(w, n)) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    while (i < n->job_count && n->node && n->boot == h->number) {
        if (n->jobs[i].due > w->now) {
            i++;
            continue;
        }
        struct mp_world_job j = n->jobs[i];
        n->job_count--;
        memmove(&n->jobs[i], &n->jobs[i + 1], (n->job_count - i) * sizeof(j));
        carry_out(w, n, &j);
        free_job(&j);
    }
}

/* --- releases and units of the workers --- */

static struct mp_world_loaded *loaded_at(const struct mp_world_node *n, uint32_t unit)
{
    return unit != 0 && unit <= n->loaded_capacity && n->loaded[unit - 1].is_used
               ? &n->loaded[unit - 1]
               : NULL;
}

struct item {
    struct mp_slice name;
    uint32_t unit;
    uint32_t place;
};

static bool take_item(struct mp_mp_reader *r, struct item *out)
{
    struct mp_slice bytes;
    struct mp_slice value;
    int64_t unit;
    int64_t place;
    if (mp_mp_take(r, &bytes) != MP_OK || mp_mp_array_get(bytes, 0, &value) != MP_OK ||
        mp_mp_get_str(value, &out->name) != MP_OK || mp_mp_array_get(bytes, 1, &value) != MP_OK ||
        mp_mp_get_int(value, &unit) != MP_OK || mp_mp_array_get(bytes, 2, &value) != MP_OK ||
        mp_mp_get_int(value, &place) != MP_OK)
        return false;
    out->unit = (uint32_t)unit;
    out->place = (uint32_t)place;
    return true;
}

static bool find_item(const struct mp_world_node *n, uint32_t release, struct mp_slice name,
                      struct item *out)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (release == 0 || release >= n->release_capacity || !n->releases[release].is_open ||
        mp_mp_get_array(mp_buf_slice(&n->releases[release].list), &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count && take_item(&r, out); i++)
        if (mp_slice_equal(out->name, name))
            return true;
    return false;
}

const uint8_t *mp_world_release_unit(const struct mp_world_node *n, uint32_t release,
                                     struct mp_slice name)
{
    struct item item;
    if (!find_item(n, release, name, &item))
        return NULL;
    const struct mp_world_loaded *l = loaded_at(n, item.unit);
    return l ? l->hash : NULL;
}

uint32_t mp_world_loaded_count(const struct mp_world_node *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->loaded_capacity; i++)
        count += n->loaded[i].is_used;
    return count;
}

uint32_t mp_world_open_count(const struct mp_world_node *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->release_capacity; i++)
        count += n->releases[i].is_open;
    return count;
}

static void open_release(struct mp_world *w, struct mp_world_node *n,
                         const struct mp_node_effect *e)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct item item;
    n->releases = (struct mp_world_release *)mp_world_grow(w, n->releases, &n->release_capacity,
                                                           e->release + 1, sizeof(*n->releases));
    struct mp_world_release *open = &n->releases[e->release];
    if (open->is_open || e->release == 0 ||
        mp_mp_get_array(e->payload.bytes, &count, &r) != MP_OK) {
        mp_world_violation(w, "releases", "a release is opened that is open", e->release);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct mp_world_loaded *l =
            take_item(&r, &item) ? loaded_at(n, item.unit) : (struct mp_world_loaded *)NULL;
        if (!l || item.place >= l->module_count)
            mp_world_violation(w, "releases", "a release is opened without its code", e->release);
    }
    open->is_open = true;
    mp_buf_init(&open->list, w->alloc, 0);
    append(&open->list, e->payload.bytes);
}

static void close_release(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_effect *e)
{
    if (e->release >= n->release_capacity || !n->releases[e->release].is_open) {
        mp_world_violation(w, "releases", "a release is closed that is not open", e->release);
        return;
    }
    if (mp_world_workers_name(n, e->release, 0, 0))
        mp_world_violation(w, "releases", "a release is closed that calls have", e->release);
    n->releases[e->release].is_open = false;
    mp_buf_fini(&n->releases[e->release].list);
}

static bool is_in_release(const struct mp_world_node *n, uint32_t unit)
{
    for (uint32_t i = 1; i < n->release_capacity; i++) {
        uint32_t count;
        struct mp_mp_reader r;
        struct item item;
        if (!n->releases[i].is_open ||
            mp_mp_get_array(mp_buf_slice(&n->releases[i].list), &count, &r) != MP_OK)
            continue;
        for (uint32_t k = 0; k < count && take_item(&r, &item); k++)
            if (item.unit == unit)
                return true;
    }
    return false;
}

static void unload(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    struct mp_world_loaded *l = loaded_at(n, e->unit);
    if (!l) {
        mp_world_violation(w, "releases", "a unit is unloaded that is not loaded", e->unit);
        return;
    }
    if (is_in_release(n, e->unit))
        mp_world_violation(w, "releases", "a unit is unloaded that a release names", e->unit);
    if (mp_world_workers_name(n, 0, FIRST_MODULE + (e->unit - 1) * MODULES_EACH, MODULES_EACH))
        mp_world_violation(w, "releases", "a unit is unloaded that calls are in", e->unit);
    l->is_used = false;
    mp_buf_fini(&l->description);
}

bool mp_world_code_effect(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_effect *e)
{
    switch (e->kind) {
    case MP_NODE_CHECK_UNIT:
        add_job(w, n, e, CHECK_LONGEST);
        return true;
    case MP_NODE_KEEP_UNIT:
    case MP_NODE_KEEP_ENTRIES:
    case MP_NODE_READ_UNIT:
    case MP_NODE_READ_MODULE:
    case MP_NODE_KEEP_RUN:
    case MP_NODE_KEEP_RUN_PART:
    case MP_NODE_FORGET_RUN:
    case MP_NODE_READ_RUN:
    case MP_NODE_READ_RUN_PART:
    case MP_NODE_KEEP_MESSAGES:
    case MP_NODE_FORGET_MESSAGES:
        add_job(w, n, e, STORE_LONGEST);
        return true;
    case MP_NODE_LOAD_UNIT:
        add_job(w, n, e, LOAD_LONGEST);
        return true;
    case MP_NODE_OPEN_RELEASE:
        open_release(w, n, e);
        return true;
    case MP_NODE_CLOSE_RELEASE:
        close_release(w, n, e);
        return true;
    case MP_NODE_UNLOAD_UNIT:
        unload(w, n, e);
        return true;
    default:
        return false;
    }
}

/* --- calls --- */

/* All that hangs together has one version of each module. */
static void note_unit(struct mp_world *w, uint32_t serial, uint32_t module, const uint8_t *hash)
{
    uint64_t unit = 1; /* the file that the node was started with */
    if (module >= MP_WORLD_DEPLOYED)
        return;
    if (hash)
        memcpy(&unit, hash, sizeof(unit));
    struct mp_world_serial *root = &w->serials[w->serials[serial].root];
    if (root->units[module] == 0)
        root->units[module] = unit;
    else if (root->units[module] != unit)
        mp_world_violation(w, "one-version", "two versions of a module in what hangs together",
                           serial);
}

/* Which of its module's functions it is. */
static uint32_t function_in_module(uint32_t function)
{
    uint32_t first = function;
    while (first != 0 &&
           mp_world_functions[first - 1].module == mp_world_functions[function].module)
        first--;
    return function - first;
}

void mp_world_code_sent(struct mp_world *w, const struct mp_world_node *n,
                        const struct mp_node_effect *e, uint32_t serial)
{
    uint32_t function = w->serials[serial].function;
    uint32_t module = mp_world_functions[function].module;
    uint32_t expected = module;
    struct item item;
    const struct mp_world_loaded *l = NULL;
    if (e->release != 0 && (e->release >= n->release_capacity || !n->releases[e->release].is_open))
        mp_world_violation(w, "releases", "a call has a release that is not open", serial);
    if (find_item(n, e->release, mp_slice_str(mp_world_modules[module]), &item)) {
        l = loaded_at(n, item.unit);
        expected = FIRST_MODULE + (item.unit - 1) * MODULES_EACH + item.place;
        if (!l)
            mp_world_violation(w, "releases", "a call is in a unit that is not loaded", serial);
    }
    if (e->module != expected)
        mp_world_violation(w, "releases", "a call is not in the module of its release", serial);
    if (e->function != function_in_module(function))
        mp_world_violation(w, "releases", "a call is of another function", serial);
    note_unit(w, serial, module, l ? l->hash : NULL);
}
