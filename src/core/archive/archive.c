/* Runs are records in an array of places, found by their id and chained by age. A record's bytes
 * are one block, the head and behind it the body, which is cut off once it is on the disk and
 * memory is wanted for younger ones. Invariants: every chained record has its head; a record whose
 * body is not in memory is WRITTEN, or UNWRITTEN and has lost it; the oldest of all bodies in
 * memory is that of `oldest_body`, or a younger record's. */
#include "src/core/archive/archive.h"

#include <string.h>

#include "src/base/assert.h"
#include "src/base/buf.h"
#include "src/base/map.h"

enum state {
    FREE,
    WAITING, /* to be written */
    WRITING,
    WRITTEN,
    UNWRITTEN /* the disk refused it, or was too slow: what memory has is all there is */
};

struct record {
    enum state state;
    char run_id[MP_RUN_ID_BYTES];
    bool goes_on;
    bool is_lost;
    bool is_on_disk; /* something of it is, or is on its way there */
    bool has_body;
    int64_t started_ms;
    uint64_t ticket;
    uint64_t number; /* of its chaining: lower ones are older */
    uint64_t part_bytes;
    uint64_t progress_bytes; /* of parts that the next PUT replaces */
    uint8_t *own_bytes;
    size_t head_size;
    size_t body_size; /* also when the body is on the disk alone */
    uint32_t newer;
    uint32_t older;     /* or the free list */
    uint32_t turn_next; /* WAITING, WRITING */
    uint32_t turn_previous;
};

/* Records that wait for the disk, or are on their way to it, the oldest first. */
struct turn {
    uint32_t first;
    uint32_t last;
    uint64_t bytes;
};

struct part {
    uint64_t ticket;
    uint64_t size;
};

struct mp_archive {
    struct mp_alloc *alloc;
    struct mp_archive_config config;
    struct record **records; /* each allocated on its own, so that they never move */
    uint32_t capacity;
    uint32_t used; /* places ever used */
    uint32_t free_first;
    uint32_t count;
    uint32_t newest;
    uint32_t oldest;
    uint32_t oldest_body; /* no older record's body is in memory */
    struct turn waiting;
    struct turn writing;
    uint64_t bytes;
    uint64_t body_bytes;    /* in memory */
    uint64_t written_bytes; /* of those, what the disk has too */
    uint64_t part_bytes;    /* of parts under way */
    uint64_t tickets;
    uint64_t numbers;
    uint64_t dropped;
    uint32_t puts; /* since runs were written last */
    mp_time write_at;
    mp_time age_at;
    struct mp_map by_id;
    struct mp_buf parts; /* struct part: under way */
    struct mp_archive_effect *effects;
    uint32_t effect_count;
    uint32_t effect_capacity;
};

static struct mp_slice id_of(const struct record *r)
{
    return mp_slice_of(r->run_id, MP_RUN_ID_BYTES);
}

static size_t size_in_memory(const struct record *r)
{
    return r->head_size + (r->has_body ? r->body_size : 0);
}

static uint64_t size_of(const struct record *r)
{
    return r->head_size + r->body_size + r->part_bytes + r->progress_bytes;
}

static bool reserve(struct mp_archive *a, uint32_t more)
{
    uint32_t wanted = a->effect_count + more;
    uint32_t capacity = a->effect_capacity == 0 ? 8 : a->effect_capacity;
    while (capacity < wanted)
        capacity *= 2;
    if (capacity == a->effect_capacity)
        return true;
    void *grown =
        a->alloc->resize(a->alloc->context, a->effects, a->effect_capacity * sizeof(*a->effects),
                         capacity * sizeof(*a->effects));
    if (!grown)
        return false;
    a->effects = (struct mp_archive_effect *)grown;
    a->effect_capacity = capacity;
    return true;
}

static struct mp_archive_effect *emit(struct mp_archive *a, enum mp_archive_effect_kind kind,
                                      const struct record *r)
{
    mp_assert(a->effect_count < a->effect_capacity);
    struct mp_archive_effect *e = &a->effects[a->effect_count++];
    *e = (struct mp_archive_effect){.kind = kind};
    memcpy(e->run_id, r->run_id, MP_RUN_ID_BYTES);
    return e;
}

/* Tickets are used again after 2^32 of them; 0 is none. */
static uint64_t next_ticket(struct mp_archive *a)
{
    a->tickets = a->tickets == UINT32_MAX ? 1 : a->tickets + 1;
    return a->tickets;
}

/* --- chains --- */

static void set_state(struct mp_archive *a, struct record *r, enum state state)
{
    uint64_t body = r->has_body ? r->body_size : 0;
    a->written_bytes -= r->state == WRITTEN ? body : 0;
    a->written_bytes += state == WRITTEN ? body : 0;
    r->state = state;
}

static void enter(struct mp_archive *a, struct turn *t, uint32_t place, enum state state)
{
    struct record *r = a->records[place];
    set_state(a, r, state);
    r->turn_next = MP_ARCHIVE_NONE;
    r->turn_previous = t->last;
    if (t->last == MP_ARCHIVE_NONE)
        t->first = place;
    else
        a->records[t->last]->turn_next = place;
    t->last = place;
    t->bytes += size_in_memory(r);
}

static void leave(struct mp_archive *a, struct turn *t, uint32_t place, enum state state)
{
    struct record *r = a->records[place];
    if (r->turn_previous == MP_ARCHIVE_NONE)
        t->first = r->turn_next;
    else
        a->records[r->turn_previous]->turn_next = r->turn_next;
    if (r->turn_next == MP_ARCHIVE_NONE)
        t->last = r->turn_previous;
    else
        a->records[r->turn_next]->turn_previous = r->turn_previous;
    mp_assert(t->bytes >= size_in_memory(r));
    t->bytes -= size_in_memory(r);
    set_state(a, r, state);
}

/* What was under way no longer concerns the record. */
static void settle(struct mp_archive *a, uint32_t place)
{
    struct record *r = a->records[place];
    if (r->state == WAITING)
        leave(a, &a->waiting, place, UNWRITTEN);
    else if (r->state == WRITING)
        leave(a, &a->writing, place, UNWRITTEN);
    else
        set_state(a, r, UNWRITTEN);
}

static void chain(struct mp_archive *a, uint32_t place)
{
    struct record *r = a->records[place];
    r->older = a->newest;
    r->newer = MP_ARCHIVE_NONE;
    if (a->newest == MP_ARCHIVE_NONE)
        a->oldest = place;
    else
        a->records[a->newest]->newer = place;
    a->newest = place;
    r->number = ++a->numbers;
    a->count++;
}

/* The record has a body in memory now. */
static void note_body(struct mp_archive *a, uint32_t place)
{
    if (a->oldest_body == MP_ARCHIVE_NONE ||
        a->records[place]->number < a->records[a->oldest_body]->number)
        a->oldest_body = place;
}

static void unchain(struct mp_archive *a, uint32_t place)
{
    struct record *r = a->records[place];
    if (a->oldest_body == place)
        a->oldest_body = r->newer;
    if (r->newer == MP_ARCHIVE_NONE)
        a->newest = r->older;
    else
        a->records[r->newer]->older = r->older;
    if (r->older == MP_ARCHIVE_NONE)
        a->oldest = r->newer;
    else
        a->records[r->older]->newer = r->newer;
    a->count--;
}

/* --- records --- */

static uint32_t take_place(struct mp_archive *a)
{
    if (a->free_first == MP_ARCHIVE_NONE) {
        uint32_t place = a->used;
        if (place == a->capacity) {
            uint32_t capacity = a->capacity == 0 ? 16 : a->capacity * 2;
            void *grown = a->alloc->resize(a->alloc->context, a->records,
                                           a->capacity * sizeof(struct record *),
                                           capacity * sizeof(struct record *));
            if (!grown)
                return MP_ARCHIVE_NONE;
            a->records = (struct record **)grown;
            a->capacity = capacity;
        }
        struct record *r = mp_alloc_take(a->alloc, sizeof(*r));
        if (!r)
            return MP_ARCHIVE_NONE;
        *r = (struct record){.older = MP_ARCHIVE_NONE};
        a->records[place] = r;
        a->used++;
        return place;
    }
    uint32_t place = a->free_first;
    a->free_first = a->records[place]->older;
    return place;
}

static void give_place(struct mp_archive *a, uint32_t place)
{
    *a->records[place] = (struct record){.older = a->free_first};
    a->free_first = place;
}

/* Head and body behind each other; NULL without memory. */
static uint8_t *join(struct mp_archive *a, struct mp_slice head, struct mp_slice body)
{
    uint8_t *bytes = mp_alloc_take(a->alloc, head.size + body.size);
    if (!bytes)
        return NULL;
    memcpy(bytes, head.data, head.size);
    if (body.size != 0)
        memcpy(bytes + head.size, body.data, body.size);
    return bytes;
}

static void drop_body(struct mp_archive *a, struct record *r)
{
    if (!r->has_body)
        return;
    void *smaller =
        a->alloc->resize(a->alloc->context, r->own_bytes, size_in_memory(r), r->head_size);
    if (!smaller)
        return; /* it stays where it is */
    a->written_bytes -= r->state == WRITTEN ? r->body_size : 0;
    a->body_bytes -= r->body_size;
    r->own_bytes = smaller;
    r->has_body = false;
}

/* The record goes, also from the disk if something of it is there. */
static void drop(struct mp_archive *a, uint32_t place)
{
    struct record *r = a->records[place];
    settle(a, place); /* so it is none of written_bytes */
    if (r->is_on_disk)
        emit(a, MP_ARCHIVE_FORGET, r);
    if (r->has_body)
        a->body_bytes -= r->body_size;
    a->bytes -= size_of(r);
    mp_map_remove(&a->by_id, id_of(r));
    mp_alloc_free(a->alloc, r->own_bytes, size_in_memory(r));
    unchain(a, place);
    give_place(a, place);
}

static bool is_too_old(const struct mp_archive *a, const struct record *r, int64_t wall_ms)
{
    return wall_ms > r->started_ms && (uint64_t)(wall_ms - r->started_ms) > a->config.age_ms_max;
}

static uint32_t oldest_over(const struct mp_archive *a, uint32_t spared)
{
    uint32_t place = a->oldest;
    while (place != MP_ARCHIVE_NONE && (a->records[place]->goes_on || place == spared))
        place = a->records[place]->newer;
    return place;
}

/* Lets go of what is beyond the bounds, `spared` excepted. Without memory for the effect it stays
 * until the next time. */
static void trim(struct mp_archive *a, uint32_t spared, int64_t wall_ms)
{
    for (;;) {
        uint32_t place = oldest_over(a, spared);
        if (place == MP_ARCHIVE_NONE)
            return;
        if (a->count <= a->config.count_max && a->bytes <= a->config.bytes_max &&
            !is_too_old(a, a->records[place], wall_ms))
            return;
        if (!reserve(a, 1))
            return;
        drop(a, place);
    }
}

/* Bodies are cut off, the oldest first, while there is too much of them: those that the disk has,
 * and if that is not enough those that it does not keep up with. */
static void trim_bodies(struct mp_archive *a)
{
    uint32_t place = a->oldest_body;
    for (; place != MP_ARCHIVE_NONE && a->body_bytes > MP_ARCHIVE_MEMORY_BYTES &&
           a->written_bytes != 0;
         place = a->records[place]->newer)
        if (a->records[place]->state == WRITTEN)
            drop_body(a, a->records[place]);
    while (a->oldest_body != MP_ARCHIVE_NONE && !a->records[a->oldest_body]->has_body)
        a->oldest_body = a->records[a->oldest_body]->newer;
    for (place = a->oldest_body;
         place != MP_ARCHIVE_NONE && a->body_bytes > MP_ARCHIVE_BEHIND_BYTES_MAX;
         place = a->records[place]->newer) {
        if (a->records[place]->state == WRITING || !a->records[place]->has_body)
            continue;
        if (a->records[place]->state == WAITING)
            leave(a, &a->waiting, place, UNWRITTEN);
        a->dropped += a->records[place]->state != WRITTEN;
        drop_body(a, a->records[place]);
    }
}

/* --- events --- */

/* The place of a run that is put: its own, or a new one. MP_ARCHIVE_NONE without memory. */
static uint32_t place_of(struct mp_archive *a, struct mp_slice run_id)
{
    uint32_t place = mp_archive_find(a, run_id);
    if (place != MP_ARCHIVE_NONE)
        return place;
    place = take_place(a);
    if (place == MP_ARCHIVE_NONE)
        return place;
    struct record *r = a->records[place];
    memcpy(r->run_id, run_id.data, MP_RUN_ID_BYTES);
    if (mp_map_set(&a->by_id, id_of(r), place) == MP_OK) {
        chain(a, place);
        return place;
    }
    give_place(a, place);
    return MP_ARCHIVE_NONE;
}

/* A new record, or the one that there is: with these bytes. MP_ARCHIVE_NONE without memory; what
 * there was is then as before. */
static uint32_t set(struct mp_archive *a, const struct mp_archive_event *ev)
{
    mp_assert(ev->put.run_id.size == MP_RUN_ID_BYTES && ev->put.head.size != 0);
    uint8_t *bytes = join(a, ev->put.head, ev->put.body);
    uint32_t place = bytes ? place_of(a, ev->put.run_id) : MP_ARCHIVE_NONE;
    if (place == MP_ARCHIVE_NONE) {
        mp_alloc_free(a->alloc, bytes, ev->put.head.size + ev->put.body.size);
        return MP_ARCHIVE_NONE;
    }
    struct record *r = a->records[place];
    settle(a, place);
    a->bytes -= size_of(r);
    a->body_bytes -= r->has_body ? r->body_size : 0;
    mp_alloc_free(a->alloc, r->own_bytes, size_in_memory(r));
    r->own_bytes = bytes;
    r->head_size = ev->put.head.size;
    r->body_size = ev->put.body.size;
    r->has_body = r->body_size != 0;
    r->progress_bytes = 0;
    r->is_lost = false;
    r->started_ms = ev->put.started_ms;
    r->goes_on = ev->put.goes_on;
    a->bytes += size_of(r);
    a->body_bytes += r->body_size;
    if (r->has_body)
        note_body(a, place);
    return place;
}

static enum mp_err restore(struct mp_archive *a, const struct mp_archive_event *ev)
{
    uint32_t place = set(a, ev);
    if (place == MP_ARCHIVE_NONE)
        return MP_ENOMEM;
    struct record *r = a->records[place];
    set_state(a, r, WRITTEN);
    r->is_on_disk = true;
    r->is_lost = ev->put.goes_on;
    r->goes_on = false;
    a->bytes += ev->put.bytes - r->part_bytes;
    r->part_bytes = ev->put.bytes;
    trim(a, MP_ARCHIVE_NONE, ev->wall_ms);
    return MP_OK;
}

static enum mp_err put_part(struct mp_archive *a, const struct mp_archive_event *ev)
{
    uint32_t place = mp_archive_find(a, ev->part.run_id);
    if (place == MP_ARCHIVE_NONE)
        return MP_ENOENT;
    struct record *r = a->records[place];
    const struct part part = {.ticket = next_ticket(a), .size = ev->part.bytes.size};
    if (part.size > mp_archive_room(a)) {
        a->dropped++;
        return MP_EFULL;
    }
    if (!reserve(a, 1) || mp_buf_append(&a->parts, mp_slice_of(&part, sizeof(part))) != MP_OK) {
        a->dropped++;
        return MP_ENOMEM;
    }
    struct mp_archive_effect *e = emit(a, MP_ARCHIVE_KEEP_PART, r);
    e->ticket = part.ticket;
    e->name = ev->part.name;
    e->body = ev->part.bytes;
    r->is_on_disk = true;
    r->part_bytes += ev->part.is_progress ? 0 : part.size;
    r->progress_bytes += ev->part.is_progress ? part.size : 0;
    a->bytes += part.size;
    a->part_bytes += part.size;
    trim(a, place, ev->wall_ms);
    return MP_OK;
}

static void kept(struct mp_archive *a, const struct mp_archive_event *ev)
{
    struct part *parts = (struct part *)(void *)a->parts.data;
    uint32_t count = (uint32_t)(a->parts.size / sizeof(*parts));
    a->dropped += ev->kept.is_error;
    for (uint32_t i = 0; i < count; i++) {
        if (parts[i].ticket != ev->kept.ticket)
            continue;
        a->part_bytes -= parts[i].size;
        parts[i] = parts[count - 1];
        a->parts.size -= sizeof(*parts);
        return;
    }
    /* They are answered in order, as a rule. */
    for (uint32_t place = a->writing.first; place != MP_ARCHIVE_NONE;
         place = a->records[place]->turn_next) {
        if (a->records[place]->ticket != ev->kept.ticket)
            continue;
        leave(a, &a->writing, place, ev->kept.is_error ? UNWRITTEN : WRITTEN);
        return;
    }
}

/* There is room for the effect. */
static void write_one(struct mp_archive *a, uint32_t place)
{
    struct record *r = a->records[place];
    leave(a, &a->waiting, place, UNWRITTEN);
    enter(a, &a->writing, place, WRITING);
    r->ticket = next_ticket(a);
    r->is_on_disk = true;
    struct mp_archive_effect *e = emit(a, MP_ARCHIVE_KEEP, r);
    e->ticket = r->ticket;
    e->head = mp_slice_of(r->own_bytes, r->head_size);
    e->body = mp_slice_of(r->own_bytes + r->head_size, r->has_body ? r->body_size : 0);
}

/* The end of a run that was put while it went on is not known, or could not be put. */
static void lose(struct mp_archive *a, struct mp_slice run_id)
{
    uint32_t place = mp_archive_find(a, run_id);
    if (place == MP_ARCHIVE_NONE || !a->records[place]->goes_on)
        return;
    a->records[place]->goes_on = false;
    a->records[place]->is_lost = true;
}

static enum mp_err put(struct mp_archive *a, mp_time now, const struct mp_archive_event *ev)
{
    mp_assert(ev->put.body.size != 0);
    uint32_t place = set(a, ev);
    if (place == MP_ARCHIVE_NONE) {
        a->dropped++;
        if (!ev->put.goes_on)
            lose(a, ev->put.run_id);
        return MP_ENOMEM;
    }
    trim(a, place, ev->wall_ms);
    enter(a, &a->waiting, place, WAITING);
    a->puts++;
    trim_bodies(a);
    if (a->records[place]->state != WAITING)
        return MP_OK; /* the disk is so far behind that this one was dropped */
    if (ev->put.goes_on && reserve(a, 1))
        write_one(a, place); /* parts will follow */
    else if (a->write_at == MP_NEVER)
        a->write_at = mp_time_add(now, MP_MS(MP_ARCHIVE_DELAY_MS));
    return MP_OK;
}

/* Whether runs end so fast that what is written now is pushed out within a second or so: then only
 * few are, the youngest, and the rest once there is time. */
static bool is_hurried(const struct mp_archive *a)
{
    return (uint64_t)a->puts * (1000 / MP_ARCHIVE_DELAY_MS) > a->config.count_max;
}

/* As many as may be under way at once. */
static enum mp_err write_some(struct mp_archive *a, mp_time now, uint64_t bytes_max)
{
    enum mp_err err = MP_OK;
    bool is_newest_first = is_hurried(a);
    uint32_t left = is_newest_first ? MP_ARCHIVE_HURRIED_RECORDS : MP_ARCHIVE_STEP_RECORDS;
    a->puts = 0;
    for (; err == MP_OK && left > 0 && a->waiting.first != MP_ARCHIVE_NONE &&
           a->writing.bytes + a->part_bytes < bytes_max;
         left--) {
        if (reserve(a, 1))
            write_one(a, is_newest_first ? a->waiting.last : a->waiting.first);
        else
            err = MP_ENOMEM;
    }
    a->write_at = a->waiting.first != MP_ARCHIVE_NONE ? mp_time_add(now, MP_MS(MP_ARCHIVE_DELAY_MS))
                                                      : MP_NEVER;
    return err;
}

static void set_age_timer(struct mp_archive *a, mp_time now, int64_t wall_ms)
{
    uint32_t place = oldest_over(a, MP_ARCHIVE_NONE);
    a->age_at = MP_NEVER;
    if (place == MP_ARCHIVE_NONE)
        return;
    if (is_too_old(a, a->records[place], wall_ms)) {
        a->age_at = mp_time_add(now, MP_SECONDS(1)); /* it was spared, or memory was out */
        return;
    }
    int64_t age_ms =
        wall_ms > a->records[place]->started_ms ? wall_ms - a->records[place]->started_ms : 0;
    uint64_t left_ms = a->config.age_ms_max - (uint64_t)age_ms + 1;
    a->age_at = mp_time_add(
        now, MP_MS(left_ms < MP_ARCHIVE_AGE_LOOK_MS ? left_ms : MP_ARCHIVE_AGE_LOOK_MS));
}

enum mp_err mp_archive_step(struct mp_archive *a, mp_time now, const struct mp_archive_event *ev,
                            struct mp_archive_effects *out)
{
    enum mp_err err = MP_OK;
    a->effect_count = 0;
    switch (ev->kind) {
    case MP_ARCHIVE_RESTORED:
        err = restore(a, ev);
        break;
    case MP_ARCHIVE_PUT:
        err = put(a, now, ev);
        break;
    case MP_ARCHIVE_PUT_PART:
        err = put_part(a, ev);
        break;
    case MP_ARCHIVE_KEPT:
        kept(a, ev);
        trim_bodies(a);
        break;
    case MP_ARCHIVE_LOST:
        lose(a, ev->lost.run_id);
        trim(a, MP_ARCHIVE_NONE, ev->wall_ms);
        break;
    case MP_ARCHIVE_FLUSH:
        a->puts = 0;
        err = write_some(a, now, UINT64_MAX);
        break;
    case MP_ARCHIVE_TIMER:
        /* What goes, goes before anything points to its bytes. */
        trim(a, MP_ARCHIVE_NONE, ev->wall_ms);
        if (a->write_at <= now)
            err = write_some(a, now, MP_ARCHIVE_WRITING_BYTES_MAX);
        break;
    }
    if (ev->kind != MP_ARCHIVE_KEPT && (a->age_at == MP_NEVER || a->age_at <= now))
        set_age_timer(a, now, ev->wall_ms);
    *out = (struct mp_archive_effects){.items = a->effects, .count = a->effect_count};
    return err;
}

mp_time mp_archive_deadline(const struct mp_archive *a)
{
    return a->write_at < a->age_at ? a->write_at : a->age_at;
}

enum mp_err mp_archive_new(struct mp_archive **own_out, const struct mp_archive_config *cfg,
                           struct mp_alloc *alloc)
{
    struct mp_archive *a = mp_alloc_take(alloc, sizeof(*a));
    if (!a)
        return MP_ENOMEM;
    mp_assert(cfg->count_max >= 1 && cfg->count_max <= MP_ARCHIVE_RUNS_MAX);
    *a = (struct mp_archive){.alloc = alloc,
                             .config = *cfg,
                             .free_first = MP_ARCHIVE_NONE,
                             .newest = MP_ARCHIVE_NONE,
                             .oldest = MP_ARCHIVE_NONE,
                             .oldest_body = MP_ARCHIVE_NONE,
                             .waiting = {.first = MP_ARCHIVE_NONE, .last = MP_ARCHIVE_NONE},
                             .writing = {.first = MP_ARCHIVE_NONE, .last = MP_ARCHIVE_NONE},
                             .write_at = MP_NEVER,
                             .age_at = MP_NEVER};
    mp_map_init(&a->by_id, alloc);
    mp_buf_init(&a->parts, alloc, 0);
    *own_out = a;
    return MP_OK;
}

void mp_archive_free(struct mp_archive *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; i < a->used; i++) {
        mp_alloc_free(a->alloc, a->records[i]->own_bytes, size_in_memory(a->records[i]));
        mp_alloc_free(a->alloc, a->records[i], sizeof(struct record));
    }
    mp_alloc_free(a->alloc, a->records, a->capacity * sizeof(struct record *));
    mp_alloc_free(a->alloc, a->effects, a->effect_capacity * sizeof(*a->effects));
    mp_map_fini(&a->by_id);
    mp_buf_fini(&a->parts);
    mp_alloc_free(a->alloc, a, sizeof(*a));
}

uint32_t mp_archive_find(const struct mp_archive *a, struct mp_slice run_id)
{
    uint32_t place;
    return mp_map_get(&a->by_id, run_id, &place) ? place : MP_ARCHIVE_NONE;
}

uint32_t mp_archive_newest(const struct mp_archive *a)
{
    return a->newest;
}

uint32_t mp_archive_older(const struct mp_archive *a, uint32_t place)
{
    return a->records[place]->older;
}

void mp_archive_get(const struct mp_archive *a, uint32_t place, struct mp_archive_run *run)
{
    const struct record *r = a->records[place];
    *run = (struct mp_archive_run){
        .started_ms = r->started_ms,
        .goes_on = r->goes_on,
        .is_lost = r->is_lost,
        .is_bodyless = r->state == UNWRITTEN && !r->has_body,
        .head = mp_slice_of(r->own_bytes, r->head_size),
        .body = mp_slice_of(r->own_bytes + r->head_size, r->has_body ? r->body_size : 0)};
    memcpy(run->run_id, r->run_id, MP_RUN_ID_BYTES);
}

uint32_t mp_archive_count(const struct mp_archive *a)
{
    return a->count;
}

uint64_t mp_archive_bytes(const struct mp_archive *a)
{
    return a->bytes;
}

uint64_t mp_archive_dropped(const struct mp_archive *a)
{
    return a->dropped;
}

bool mp_archive_is_flushed(const struct mp_archive *a)
{
    return a->waiting.first == MP_ARCHIVE_NONE;
}

uint64_t mp_archive_room(const struct mp_archive *a)
{
    uint64_t behind = a->waiting.bytes + a->writing.bytes + a->part_bytes;
    return behind < MP_ARCHIVE_BEHIND_BYTES_MAX ? MP_ARCHIVE_BEHIND_BYTES_MAX - behind : 0;
}
