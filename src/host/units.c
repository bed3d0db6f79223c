/* A unit goes from the store to all workers at once, as LOADs beside each other. Its modules get
 * places in h->modules, which are their numbers in the workers.
 *
 * A load has ended when every worker that could answer soon has answered. Those that start or
 * compute are not waited for: what is sent to them comes behind the LOADs in their rings. The first
 * error ends it too: then the unit is taken out of all workers again.
 *
 * A worker that starts gets the units one after the other, a few LOADs ahead of its answers, so
 * that many units do not fill its ring, the memory behind it and the arena; when it has them all it
 * gets the open releases, and is fed. Until then, what changes in places that it has not come to is
 * left out, since it will come to them.
 *
 * A worker that ends while it loads a unit may be a chance victim (of the memory limit, say), or
 * the unit may end every worker. So one that no worker has loaded well is given to no new worker
 * any more, and one that some have after MP_UNIT_CRASHES_MAX ends without a success in between. */
#include "src/host/units.h"

#include <stdio.h>
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/store.h"
#include "src/host/workers_internal.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/wire/unit.h"

#define INLINE_BYTES_MAX (16u << 10) /* a larger source goes through the arena: rings are small */
#define FEED_LOADS_MAX   64        /* unanswered; then a worker that starts gets no further unit */
#define COMPUTES_AFTER   MP_MS(20) /* a call that has the CPU for so long is not waited for */
#define LOOK_AGAIN       MP_MS(10)
#define MESSAGE_BYTES    1024
/* One record of a ring; with names of 60 bytes about 7,000 modules. */
#define RELEASE_BYTES_MAX (MP_RING_BYTES / 2 - 256)

enum unit_state {
    UNIT_READING, /* from the store */
    UNIT_LOADING,
    UNIT_LOADED,
    UNIT_ENDED /* it cannot be had: what is to be told of it is in the unit */
};

struct ticket {
    struct ticket *next;
    uint64_t number;
};

struct unit {
    enum unit_state state;
    uint32_t number; /* its place, from 1 */
    uint64_t serial; /* tells it from earlier ones in its place */
    uint8_t hash[MP_UNIT_HASH_BYTES];
    uint8_t *bytes; /* the modules' sources lie in them */
    size_t size;
    struct mp_buf description;
    uint32_t first_module;
    uint32_t module_count;
    struct ticket *tickets; /* of LOAD_UNITs that were not answered */
    uint64_t awaited[MP_POOL_WORKERS_MAX / 64];
    mp_time until;
    bool is_missing;
    bool was_loaded; /* well, by a worker */
    uint32_t crashes;
    bool is_withheld;
    struct mp_buf error;
};

/* What OPEN_RELEASE said, as workers read it. */
struct release {
    uint32_t number;
    struct mp_buf entries;
};

struct mp_units {
    struct unit **units; /* by number - 1; NULL: a free place */
    uint32_t count;      /* places */
    struct release *releases;
    uint32_t release_count;
    uint32_t release_capacity;
    uint64_t serials;
    bool is_due; /* a load may have ended */
};

static_assert(MP_POOL_WORKERS_MAX % 64 == 0, "awaited is an array of 64 bits each");

void mp_units_init(struct mp_host *h)
{
    h->units = mp_xalloc(sizeof(*h->units));
}

static void free_unit(struct mp_host *h, struct unit *u)
{
    if (u->module_count != 0)
        mp_modules_free_places(&h->modules, u->first_module, u->module_count);
    while (u->tickets) {
        struct ticket *t = u->tickets;
        u->tickets = t->next;
        free(t);
    }
    mp_buf_fini(&u->description);
    mp_buf_fini(&u->error);
    free(u->bytes);
    h->units->units[u->number - 1] = NULL;
    free(u);
}

void mp_units_fini(struct mp_host *h)
{
    struct mp_units *all = h->units;
    if (!all)
        return;
    for (uint32_t i = 0; i < all->count; i++)
        if (all->units[i])
            free_unit(h, all->units[i]);
    for (uint32_t i = 0; i < all->release_count; i++)
        mp_buf_fini(&all->releases[i].entries);
    free(all->units);
    free(all->releases);
    free(all);
    h->units = NULL;
}

/* --- sources --- */

/* The node's own files were read before it started, and stay. */
void mp_units_read_module(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_node_event ev = {.kind = MP_NODE_FOUND,
                               .stored = {.ticket = e->id, .is_missing = true}};
    if (e->module < h->modules.own_count) {
        const struct mp_host_module *m = &h->modules.items[e->module];
        ev.stored.is_missing = false;
        ev.stored.bytes = mp_slice_of(m->source, m->source_size);
    }
    mp_host_step(h, &ev);
}

/* --- to the workers --- */

/* The blocks that a unit's large sources lie in while LOADs are sent. */
struct blocks {
    uint64_t at[MP_UNIT_MODULES_MAX]; /* MP_ARENA_NONE: the source goes through the ring */
};

static void give_back(struct mp_host *h, const struct blocks *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (b->at[i] != MP_ARENA_NONE)
            mp_host_release(h, MP_HANDLE_HOST | b->at[i]);
}

/* False: the arena has no room now. */
static bool share(struct mp_host *h, const struct unit *u, struct blocks *b)
{
    for (uint32_t i = 0; i < u->module_count; i++) {
        const struct mp_host_module *m = &h->modules.items[u->first_module + i];
        b->at[i] = MP_ARENA_NONE;
        if (m->source_size > INLINE_BYTES_MAX &&
            !mp_workers_share(h, mp_slice_of(m->source, m->source_size), &b->at[i])) {
            give_back(h, b, i);
            return false;
        }
    }
    return true;
}

static void send_unit(struct mp_host *h, struct mp_worker_process *w, const struct unit *u,
                      const struct blocks *b)
{
    for (uint32_t i = 0; i < u->module_count; i++) {
        bool is_large = b->at[i] != MP_ARENA_NONE;
        if (is_large)
            mp_workers_lend(h, w, b->at[i]);
        mp_worker_load(w, u->first_module + i, u->serial, is_large ? b->at[i] : MP_ARENA_NONE,
                       i + 1 == u->module_count ? 0 : MP_RING_MORE);
    }
}

/* Whether changes of a unit are sent to a worker at once; else it will come to its place. */
static bool has_come_to(const struct mp_worker_process *w, const struct unit *u)
{
    return w->is_fed || w->units_given >= u->number;
}

static void set_awaited(struct unit *u, uint32_t place, bool is_awaited)
{
    uint64_t bit = 1ull << place % 64;
    u->awaited[place / 64] =
        is_awaited ? u->awaited[place / 64] | bit : u->awaited[place / 64] & ~bit;
}

static bool is_awaited(const struct unit *u, uint32_t place)
{
    return (u->awaited[place / 64] >> place % 64 & 1) != 0;
}

/* False: the arena is full. */
static bool send_to_all(struct mp_host *h, struct unit *u)
{
    struct blocks *b = mp_xalloc(sizeof(*b));
    uint32_t sent = 0;
    bool is_shared = share(h, u, b);
    for (uint32_t i = 0; is_shared && i < h->worker_count; i++) {
        struct mp_worker_process *w = h->workers[i];
        if (!w || !has_come_to(w, u))
            continue;
        send_unit(h, w, u, b);
        set_awaited(u, i, w->is_ready);
        sent++;
    }
    if (is_shared && sent == 0)
        give_back(h, b, u->module_count);
    free(b);
    return is_shared;
}

static void unload(struct mp_host *h, struct unit *u)
{
    const struct mp_msg_unload body = {.unit = u->number};
    const struct mp_outgoing o = {.kind = MP_MSG_UNLOAD,
                                  .parts = {mp_slice_of(&body, sizeof(body))}};
    for (uint32_t i = 0; u->module_count != 0 && i < h->worker_count; i++)
        if (h->workers[i] && has_come_to(h->workers[i], u))
            mp_worker_post(h->workers[i], &o);
}

/* --- loading --- */

static void fail_load(struct mp_host *h, struct unit *u, enum mp_code code, const char *reason,
                      const char *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = mp_slice_str(h->cfg->name)};
    u->state = UNIT_ENDED;
    h->units->is_due = true;
    mp_buf_clear(&u->error);
    if (mp_fault_put(&u->error, &fault) != MP_OK)
        mp_buf_clear(&u->error);
}

static char *copy_name(struct mp_slice name)
{
    char *copy = mp_xalloc(name.size + 1);
    memcpy(copy, name.data, name.size);
    return copy;
}

static void fill_module(struct mp_host *h, const struct unit *u, uint32_t place,
                        const struct mp_unit_module *from, const struct mp_unit_description *d)
{
    struct mp_host_module *m = &h->modules.items[u->first_module + place];
    size_t source_at = from->source.size != 0 ? (size_t)(from->source.data - u->bytes) : 0;
    *m = (struct mp_host_module){.unit = u->number,
                                 .name = copy_name(from->name),
                                 .source = u->bytes + source_at,
                                 .source_size = from->source.size,
                                 .state = MP_MODULE_KNOWN};
    mp_buf_init(&m->expected, mp_host_alloc(), 0);
    mp_module_keep_expected(m, d->metadata);
}

/* Gives the modules of a unit their places; false: `fail_load` was called. */
static bool place_modules(struct mp_host *h, struct unit *u, struct mp_slice unit)
{
    struct mp_mp_reader modules;
    struct mp_mp_reader descriptions;
    uint32_t count = 0;
    const char *why = "";
    if (mp_unit_open(unit, &count, &modules, &why) != MP_OK ||
        mp_unit_description_open(mp_buf_slice(&u->description), count, &descriptions) != MP_OK) {
        fail_load(h, u, MP_CODE_INTERNAL, "STORE_FAILED",
                  "the data folder has a unit that cannot be read");
        return false;
    }
    if (!mp_modules_reserve(&h->modules, count, &u->first_module)) {
        fail_load(h, u, MP_CODE_RESOURCE_EXHAUSTED, "TOO_MANY_UNITS",
                  "the node has as many deployed modules as it may have: undeploy some");
        return false;
    }
    u->module_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_unit_module m = {0};
        struct mp_unit_description d = {0};
        if (mp_unit_next(&modules, &m) != MP_OK ||
            mp_unit_description_next(&descriptions, &d) != MP_OK)
            mp_assert(false); /* they were opened, so they were checked */
        fill_module(h, u, i, &m, &d);
    }
    return true;
}

static void on_unit_read(void *context, uint64_t number, const struct mp_store_answer *a)
{
    struct mp_host *h = (struct mp_host *)context;
    struct unit *u = h->units->units[number - 1];
    mp_assert(u && u->state == UNIT_READING);
    h->units->is_due = true;
    mp_host_woken(h);
    if (a->is_missing || a->is_error) {
        u->state = UNIT_ENDED;
        u->is_missing = a->is_missing;
        if (mp_buf_append(&u->error, a->error) != MP_OK)
            mp_buf_clear(&u->error);
        return;
    }
    u->bytes = mp_xalloc(a->found.size + 1);
    memcpy(u->bytes, a->found.data, a->found.size);
    u->size = a->found.size;
    if (mp_buf_append(&u->description, a->description) != MP_OK) {
        fail_load(h, u, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "the node has no memory left");
        return;
    }
    if (!place_modules(h, u, mp_slice_of(u->bytes, a->found.size)))
        return;
    u->state = UNIT_LOADING;
    u->until = mp_time_add(h->now, MP_MS(MP_UNIT_LOAD_WAIT_MS));
    if (!send_to_all(h, u)) {
        /* No worker has it, and none is to be told. */
        mp_modules_free_places(&h->modules, u->first_module, u->module_count);
        u->module_count = 0;
        fail_load(h, u, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                  "no shared memory is left for the sources: try again");
    }
}

static struct unit *find_hash(const struct mp_units *all, struct mp_slice hash)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (all->units[i] && all->units[i]->state != UNIT_ENDED &&
            mp_slice_equal(mp_slice_of(all->units[i]->hash, MP_UNIT_HASH_BYTES), hash))
            return all->units[i];
    return NULL;
}

static struct unit *new_unit(struct mp_host *h, struct mp_slice hash)
{
    struct mp_units *all = h->units;
    uint32_t place = 0;
    while (place < all->count && all->units[place])
        place++;
    if (place == all->count) {
        struct unit **grown = mp_xalloc((place + 1) * sizeof(struct unit *));
        if (place != 0)
            memcpy(grown, all->units, place * sizeof(struct unit *));
        free(all->units);
        all->units = grown;
        all->count++;
    }
    struct unit *u = mp_xalloc(sizeof(*u));
    u->number = place + 1;
    u->serial = ++all->serials;
    memcpy(u->hash, hash.data, MP_UNIT_HASH_BYTES);
    mp_buf_init(&u->description, mp_host_alloc(), 0);
    mp_buf_init(&u->error, mp_host_alloc(), 0);
    all->units[place] = u;
    return u;
}

void mp_units_load(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_units *all = h->units;
    struct mp_slice hash = e->payload.bytes;
    mp_assert(hash.size == MP_UNIT_HASH_BYTES);
    struct unit *u = find_hash(all, hash);
    if (!u) {
        u = new_unit(h, hash);
        if (u->number > MP_UNITS_LOADED_MAX)
            fail_load(h, u, MP_CODE_RESOURCE_EXHAUSTED, "TOO_MANY_UNITS",
                      "the node has as many deployed units as it may have: undeploy some");
        else
            mp_store_read_unit(h->store, u->number, hash, on_unit_read);
    }
    struct ticket **last = &u->tickets;
    while (*last)
        last = &(*last)->next;
    *last = mp_xalloc(sizeof(**last));
    (*last)->number = e->id;
    all->is_due = true;
}

static struct unit *unit_of(const struct mp_host *h, uint32_t number)
{
    mp_assert(number != 0 && number <= h->units->count && h->units->units[number - 1]);
    return h->units->units[number - 1];
}

void mp_units_unload(struct mp_host *h, const struct mp_node_effect *e)
{
    struct unit *u = unit_of(h, e->unit);
    mp_assert(u->state == UNIT_LOADED && !u->tickets);
    size_t size = u->size + u->description.size;
    unload(h, u);
    free_unit(h, u);
    mp_host_memory_freed(size);
}

/* --- releases --- */

static void send_release(struct mp_worker_process *w, uint16_t kind, uint32_t number,
                         struct mp_slice entries)
{
    const struct mp_msg_release_set body = {.release = number, .size = (uint32_t)entries.size};
    const struct mp_outgoing o = {.kind = kind,
                                  .parts = {mp_slice_of(&body, sizeof(body)), entries}};
    mp_worker_post(w, &o);
}

static struct mp_slice entries_of(const struct release *r)
{
    static const uint8_t none[] = {0x90};
    return r->entries.size != 0 ? mp_buf_slice(&r->entries) : mp_slice_of(none, sizeof(none));
}

/* The places in units become the modules' numbers. */
static enum mp_err put_entry(const struct mp_host *h, struct mp_slice entry, struct mp_buf *out)
{
    struct mp_slice name;
    struct mp_slice value;
    int64_t unit = 0;
    int64_t place = 0;
    MP_TRY(mp_mp_array_get(entry, 0, &name));
    MP_TRY(mp_mp_array_get(entry, 1, &value));
    MP_TRY(mp_mp_get_int(value, &unit));
    MP_TRY(mp_mp_array_get(entry, 2, &value));
    MP_TRY(mp_mp_get_int(value, &place));
    const struct unit *u = unit_of(h, (uint32_t)unit);
    mp_assert(place >= 0 && place < u->module_count);
    MP_TRY(mp_mp_put_array(out, 3));
    MP_TRY(mp_mp_put_raw(out, name));
    MP_TRY(mp_mp_put_uint(out, (uint64_t)unit));
    return mp_mp_put_uint(out, u->first_module + (uint64_t)place);
}

static enum mp_err put_entries(const struct mp_host *h, struct mp_slice entries, struct mp_buf *out)
{
    struct mp_mp_reader r;
    uint32_t count = 0;
    MP_TRY(mp_mp_get_array(entries, &count, &r));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice entry;
        MP_TRY(mp_mp_take(&r, &entry));
        MP_TRY(put_entry(h, entry, out));
    }
    return MP_OK;
}

static struct release *new_release(struct mp_units *all)
{
    if (all->release_count == all->release_capacity) {
        uint32_t capacity = all->release_capacity == 0 ? 8 : all->release_capacity * 2;
        struct release *grown = mp_xalloc(capacity * sizeof(*grown));
        if (all->release_count != 0)
            memcpy(grown, all->releases, all->release_count * sizeof(*grown));
        free(all->releases);
        all->releases = grown;
        all->release_capacity = capacity;
    }
    return &all->releases[all->release_count++];
}

void mp_units_open_release(struct mp_host *h, const struct mp_node_effect *e)
{
    struct release *r = new_release(h->units);
    *r = (struct release){.number = e->release};
    mp_buf_init(&r->entries, mp_host_alloc(), 0);
    if (put_entries(h, e->payload.bytes, &r->entries) != MP_OK ||
        r->entries.size > RELEASE_BYTES_MAX) {
        mp_log(3, "the list of deployed modules is too large: require does not find them");
        mp_buf_clear(&r->entries);
    }
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && h->workers[i]->is_fed)
            send_release(h->workers[i], MP_MSG_OPEN_RELEASE, r->number, entries_of(r));
}

void mp_units_close_release(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_units *all = h->units;
    const struct mp_slice none = {0};
    uint32_t i = 0;
    while (i < all->release_count && all->releases[i].number != e->release)
        i++;
    mp_assert(i < all->release_count);
    mp_buf_fini(&all->releases[i].entries);
    all->releases[i] = all->releases[--all->release_count];
    for (uint32_t k = 0; k < h->worker_count; k++)
        if (h->workers[k] && h->workers[k]->is_fed)
            send_release(h->workers[k], MP_MSG_CLOSE_RELEASE, e->release, none);
}

static bool is_in(const struct release *r, uint32_t number)
{
    struct mp_mp_reader reader;
    uint32_t count = 0;
    bool is_found = false;
    if (r->entries.size == 0 ||
        mp_mp_get_array(mp_buf_slice(&r->entries), &count, &reader) != MP_OK)
        return false;
    for (uint32_t i = 0; !is_found && i < count; i++) {
        struct mp_slice entry;
        struct mp_slice value;
        int64_t unit = 0;
        is_found = mp_mp_take(&reader, &entry) == MP_OK &&
                   mp_mp_array_get(entry, 1, &value) == MP_OK &&
                   mp_mp_get_int(value, &unit) == MP_OK && unit == number;
    }
    return is_found;
}

enum mp_err mp_units_put_release(const struct mp_host *h, uint32_t release, struct mp_buf *out)
{
    const struct mp_units *all = h->units;
    const struct release *r = NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < all->release_count; i++)
        if (all->releases[i].number == release)
            r = &all->releases[i];
    for (uint32_t i = 0; r && i < all->count; i++)
        count += all->units[i] && is_in(r, i + 1);
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; count != 0 && i < all->count; i++)
        if (all->units[i] && is_in(r, i + 1))
            MP_TRY(mp_mp_put_raw(out, mp_slice_of(all->units[i]->bytes, all->units[i]->size)));
    return MP_OK;
}

/* --- workers that start --- */

static bool is_sent(const struct unit *u)
{
    return u && (u->state == UNIT_LOADING || u->state == UNIT_LOADED) && !u->is_withheld;
}

/* False: it does not take more now. */
static bool give_next_unit(struct mp_host *h, struct mp_worker_process *w)
{
    const struct unit *u = h->units->units[w->units_given];
    if (is_sent(u)) {
        struct blocks *b = mp_xalloc(sizeof(*b));
        bool is_shared = share(h, u, b);
        if (is_shared)
            send_unit(h, w, u, b);
        free(b);
        if (!is_shared)
            return false; /* others still read what fills the arena */
    }
    w->units_given++;
    return true;
}

void mp_units_feed(struct mp_host *h, struct mp_worker_process *w)
{
    const struct mp_units *all = h->units;
    while (!w->is_fed) {
        if (w->pending.size != 0 || w->load_count >= FEED_LOADS_MAX)
            return;
        if (w->units_given < all->count) {
            if (!give_next_unit(h, w))
                return;
            continue;
        }
        for (uint32_t i = 0; i < all->release_count; i++)
            send_release(w, MP_MSG_OPEN_RELEASE, all->releases[i].number,
                         entries_of(&all->releases[i]));
        w->is_fed = true;
    }
}

/* --- what workers say --- */

static struct unit *find_serial(const struct mp_units *all, uint64_t serial)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (all->units[i] && all->units[i]->serial == serial)
            return all->units[i];
    return NULL;
}

static bool is_loading(const struct mp_worker_process *w, const struct unit *u)
{
    for (uint32_t i = 0; i < w->load_count; i++)
        if (w->loads[i].serial == u->serial)
            return true;
    return false;
}

static void load_failed(struct mp_host *h, const struct mp_worker_process *w, struct unit *u,
                        uint32_t module, struct mp_slice error)
{
    struct mp_fault fault;
    if (mp_fault_read(error, &fault) != MP_OK)
        fault = (struct mp_fault){.code = MP_CODE_INTERNAL, .reason = mp_slice_str("LOAD_ERROR")};
    mp_log(3, "worker %u has not loaded the deployed module %s: %.*s: %.*s", w->place + 1,
           h->modules.items[module].name, (int)fault.reason.size, (const char *)fault.reason.data,
           (int)fault.message.size,
           fault.message.size != 0 ? (const char *)fault.message.data : "");
    if (u->state != UNIT_LOADING)
        return;
    u->state = UNIT_ENDED;
    h->units->is_due = true;
    mp_buf_clear(&u->error);
    if (mp_fault_put(&u->error, &fault) != MP_OK)
        mp_buf_clear(&u->error);
}

void mp_units_loaded(struct mp_host *h, struct mp_worker_process *w, uint64_t serial,
                     uint32_t module, bool is_error, struct mp_slice payload)
{
    struct unit *u = find_serial(h->units, serial);
    if (!u)
        return; /* it was unloaded since */
    if (is_error) {
        load_failed(h, w, u, module, payload);
        set_awaited(u, w->place, false);
        return;
    }
    if (is_loading(w, u))
        return;
    set_awaited(u, w->place, false);
    h->units->is_due = true;
    if (u->state == UNIT_ENDED)
        return;
    u->was_loaded = true;
    u->crashes = 0;
}

/* A worker ended while it loaded a module of the unit. */
static void crashed(struct mp_host *h, struct unit *u, uint32_t module, const char *how)
{
    char message[MESSAGE_BYTES];
    const char *name = h->modules.items[module].name;
    u->crashes++;
    if (u->state == UNIT_LOADING) {
        snprintf(message, sizeof(message), "loading module %s ended a worker: %s", name, how);
        mp_log(3, "%s", message);
        fail_load(h, u, MP_CODE_INTERNAL, "LOAD_CRASHED", message);
        return;
    }
    u->is_withheld = !u->was_loaded || u->crashes >= MP_UNIT_CRASHES_MAX;
    mp_log(3, "a worker ended while it loaded the deployed module %s: %s%s", name, how,
           u->is_withheld ? "; new workers do not get it any more" : "");
}

void mp_units_worker_died(struct mp_host *h, const struct mp_worker_process *w, uint32_t module,
                          const char *how)
{
    struct mp_units *all = h->units;
    for (uint32_t i = 0; i < all->count; i++)
        if (all->units[i] && is_awaited(all->units[i], w->place)) {
            set_awaited(all->units[i], w->place, false);
            all->is_due = true;
        }
    /* The number may be another unit's by now. */
    uint32_t i = 0;
    while (i < w->load_count && w->loads[i].module != module)
        i++;
    struct unit *u = i < w->load_count ? find_serial(all, w->loads[i].serial) : NULL;
    if (u && u->state != UNIT_ENDED)
        crashed(h, u, module, how);
}

/* --- the end of a load --- */

static bool computes(const struct mp_host *h, const struct mp_worker_process *w)
{
    uint64_t running = atomic_load(&w->channel.status->running);
    uint64_t since = atomic_load(&w->channel.status->running_since);
    return running != 0 && (running & MP_CHANNEL_LOADING) == 0 && since != 0 &&
           h->now > mp_time_add(since, COMPUTES_AFTER);
}

static bool is_done(const struct mp_host *h, const struct unit *u)
{
    if (h->now >= u->until)
        return true;
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (is_awaited(u, i) && h->workers[i] && !computes(h, h->workers[i]))
            return false;
    return true;
}

/* The unit stays while tickets are left. */
static void tell_loaded(struct mp_host *h, struct ticket **tickets,
                        const struct mp_node_event *model)
{
    struct ticket *t = *tickets;
    while (t) {
        struct mp_node_event ev = *model;
        ev.stored.ticket = t->number;
        *tickets = t->next;
        free(t);
        t = *tickets;
        mp_host_tell(h, &ev);
    }
}

static void tell_ended(struct mp_host *h, struct unit *u)
{
    struct ticket *tickets = u->tickets;
    struct mp_buf error = u->error;
    const struct mp_node_event ev = {.kind = MP_NODE_LOADED,
                                     .stored = {.is_missing = u->is_missing,
                                                .is_error = !u->is_missing,
                                                .bytes = mp_buf_slice(&error)}};
    u->tickets = NULL;
    mp_buf_init(&u->error, mp_host_alloc(), 0);
    unload(h, u);
    free_unit(h, u);
    tell_loaded(h, &tickets, &ev);
    mp_buf_fini(&error);
}

static void tell_withheld(struct mp_host *h, struct unit *u)
{
    struct mp_buf error;
    struct mp_node_event ev = {.kind = MP_NODE_LOADED, .stored = {.is_error = true}};
    const struct mp_fault fault = {
        .code = MP_CODE_INTERNAL,
        .reason = mp_slice_str("LOAD_CRASHED"),
        .message =
            mp_slice_str("workers ended while they loaded this unit; the node's log has more"),
        .node = mp_slice_str(h->cfg->name)};
    mp_buf_init(&error, mp_host_alloc(), 0);
    if (mp_fault_put(&error, &fault) == MP_OK)
        ev.stored.bytes = mp_buf_slice(&error);
    tell_loaded(h, &u->tickets, &ev);
    mp_buf_fini(&error);
}

static void tell_unit(struct mp_host *h, struct unit *u)
{
    u->state = UNIT_LOADED;
    const struct mp_node_event ev = {.kind = MP_NODE_LOADED,
                                     .stored = {.unit = u->number,
                                                .first_module = u->first_module,
                                                .bytes = mp_buf_slice(&u->description)}};
    tell_loaded(h, &u->tickets, &ev);
}

static void check_unit(struct mp_host *h, struct unit *u)
{
    if (u->state == UNIT_ENDED)
        tell_ended(h, u);
    else if (u->state == UNIT_LOADED && u->tickets && u->is_withheld)
        tell_withheld(h, u);
    else if ((u->state == UNIT_LOADED && u->tickets) || (u->state == UNIT_LOADING && is_done(h, u)))
        tell_unit(h, u);
}

void mp_units_check(struct mp_host *h)
{
    struct mp_units *all = h->units;
    for (uint32_t i = 0; i < h->worker_count; i++) {
        struct mp_worker_process *w = h->workers[i];
        if (w && !w->is_fed) {
            mp_units_feed(h, w);
            mp_worker_check_ready(w);
        }
    }
    all->is_due = false;
    /* What is told may add units and free places. */
    for (uint32_t i = 0; i < all->count; i++)
        if (all->units[i])
            check_unit(h, all->units[i]);
}

bool mp_units_are_loading(const struct mp_host *h)
{
    for (uint32_t i = 0; i < h->units->count; i++)
        if (h->units->units[i] && h->units->units[i]->state != UNIT_LOADED)
            return true;
    return false;
}

mp_time mp_units_deadline(const struct mp_host *h)
{
    const struct mp_units *all = h->units;
    mp_time look = mp_time_add(h->now, LOOK_AGAIN);
    mp_time at = MP_NEVER;
    if (all->is_due)
        return h->now;
    for (uint32_t i = 0; i < all->count; i++) {
        const struct unit *u = all->units[i];
        if (!u || u->state != UNIT_LOADING)
            continue;
        mp_time mine = u->until < look ? u->until : look;
        at = mine < at ? mine : at;
    }
    for (uint32_t i = 0; at > look && i < h->worker_count; i++)
        if (h->workers[i] && !h->workers[i]->is_fed && h->workers[i]->load_count < FEED_LOADS_MAX)
            at = look;
    return at;
}
