/* The history's life, and merging. An entry that is not known is put into its place among those of
 * its module; all that it needs is taken before anything is changed, so that a lack of memory
 * changes nothing. What is live is kept up at each step: the last entry in whose scope this node
 * is. */
#include "src/core/deploy/deploy.h"

#include "src/base/assert.h"
#include "src/base/defects.h"
#include "src/core/deploy/deploy_internal.h"
#include "src/wire/msgpack.h"

#define HEADER_BYTES_MAX 5u /* of an array */

static_assert(sizeof(struct mp_deploy_record) == 16, "an entry costs its bytes and little more");

/* --- life --- */

enum mp_err mp_deploy_new(struct mp_deploy **own_out, const struct mp_deploy_config *cfg,
                          struct mp_alloc *a)
{
    if (!mp_slice_is_name(cfg->node) || cfg->node.size > MP_NODE_NAME_BYTES_MAX)
        return MP_EINVAL;
    struct mp_deploy *d = mp_alloc_take(a, sizeof(*d));
    if (!d)
        return MP_ENOMEM;
    *d = (struct mp_deploy){
        .alloc = a, .defects = cfg->defects, .node_size = (uint8_t)cfg->node.size};
    memcpy(d->node, cfg->node.data, cfg->node.size);
    mp_map_init(&d->by_name[0], a);
    mp_map_init(&d->by_name[1], a);
    mp_buf_init(&d->fresh, a, 0);
    *own_out = d;
    return MP_OK;
}

static void free_record(struct mp_deploy *d, struct mp_deploy_record *r)
{
    mp_alloc_free(d->alloc, r, sizeof(*r) + r->size);
}

void mp_deploy_free(struct mp_deploy *d)
{
    if (!d)
        return;
    /* Behind the last module there may be room for records that were never taken in. */
    for (uint32_t i = 0; i < d->module_capacity; i++) {
        struct mp_deploy_module *m = &d->modules[i];
        for (uint32_t k = 0; k < m->count; k++)
            free_record(d, m->records[k]);
        mp_alloc_free(d->alloc, m->records, m->capacity * sizeof(*m->records));
    }
    mp_alloc_free(d->alloc, d->modules, d->module_capacity * sizeof(*d->modules));
    mp_alloc_free(d->alloc, d->order, d->order_capacity * sizeof(*d->order));
    mp_alloc_free(d->alloc, d->live, d->live_capacity * sizeof(*d->live));
    mp_map_fini(&d->by_name[0]);
    mp_map_fini(&d->by_name[1]);
    mp_buf_fini(&d->fresh);
    mp_alloc_free(d->alloc, d, sizeof(*d));
}

/* --- places --- */

const struct mp_deploy_module *mp_deploy_module_of(const struct mp_deploy *d, struct mp_slice name,
                                                   bool is_pipeline)
{
    uint32_t module;
    return mp_map_get(&d->by_name[is_pipeline], name, &module) ? &d->modules[module] : NULL;
}

uint32_t mp_deploy_place_of(const struct mp_deploy_module *m, const struct mp_deploy_stamp *stamp)
{
    uint32_t low = 0;
    uint32_t high = m->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct mp_deploy_stamp other = mp_deploy_stamp_of(m->records[middle]);
        if (mp_deploy_compare(&other, stamp) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct mp_deploy_record *mp_deploy_record_at(const struct mp_deploy_module *m,
                                                   const struct mp_deploy_stamp *stamp)
{
    uint32_t place = mp_deploy_place_of(m, stamp);
    if (place == m->count)
        return NULL;
    struct mp_deploy_stamp found = mp_deploy_stamp_of(m->records[place]);
    return mp_deploy_compare(&found, stamp) == 0 ? m->records[place] : NULL;
}

static bool is_before(const struct mp_deploy_module *m, struct mp_slice name, bool is_pipeline)
{
    int order = mp_slice_compare(m->name, name);
    return order != 0 ? order < 0 : !m->is_pipeline && is_pipeline;
}

/* Where a name is, or would go, in a list of modules by name. */
static uint32_t place_of_name(const struct mp_deploy *d, const uint32_t *list, uint32_t count,
                              struct mp_slice name, bool is_pipeline)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_before(&d->modules[list[middle]], name, is_pipeline))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert_number(uint32_t *list, uint32_t count, uint32_t place, uint32_t number)
{
    memmove(list + place + 1, list + place, (count - place) * sizeof(*list));
    list[place] = number;
}

/* --- room --- */

static enum mp_err grow(struct mp_alloc *a, void **array, uint32_t *capacity, uint32_t wanted,
                        size_t item)
{
    if (wanted <= *capacity)
        return MP_OK;
    uint32_t next = *capacity == 0 ? 4 : *capacity * 2;
    void *grown = a->resize(a->context, *array, *capacity * item, next * item);
    if (!grown)
        return MP_ENOMEM;
    mp_assert(next >= wanted);
    *array = grown;
    *capacity = next;
    return MP_OK;
}

/* For one module more. */
static enum mp_err reserve_module(struct mp_deploy *d)
{
    uint32_t wanted = d->module_count + 1;
    uint32_t before = d->module_capacity;
    MP_TRY(grow(d->alloc, (void **)&d->modules, &d->module_capacity, wanted, sizeof(*d->modules)));
    if (d->module_capacity != before)
        memset(d->modules + before, 0, (d->module_capacity - before) * sizeof(*d->modules));
    MP_TRY(grow(d->alloc, (void **)&d->order, &d->order_capacity, wanted, sizeof(*d->order)));
    return grow(d->alloc, (void **)&d->live, &d->live_capacity, wanted, sizeof(*d->live));
}

static enum mp_err reserve_record(struct mp_deploy *d, struct mp_deploy_module *m)
{
    return grow(d->alloc, (void **)&m->records, &m->capacity, m->count + 1, sizeof(*m->records));
}

/* --- taking in one entry --- */

static struct mp_deploy_record *new_record(struct mp_deploy *d, struct mp_slice bytes,
                                           const struct mp_deploy_entry *e)
{
    struct mp_deploy_record *r = mp_alloc_take(d->alloc, sizeof(*r) + bytes.size);
    if (!r)
        return NULL;
    *r = (struct mp_deploy_record){
        .epoch = e->stamp.epoch,
        .size = (uint16_t)bytes.size,
        .node_at = (uint16_t)(e->stamp.node.data - bytes.data),
        .node_size = (uint8_t)e->stamp.node.size,
        .is_here = mp_deploy_is_in_scope(e, mp_deploy_node_of(d)),
        .is_undeploy = e->action == MP_DEPLOY_UNDEPLOY,
    };
    memcpy(r->bytes, bytes.data, bytes.size);
    return r;
}

/* A part of an entry in the record that has its bytes now. */
static struct mp_slice moved(const struct mp_deploy_record *r, struct mp_slice bytes,
                             struct mp_slice part)
{
    return mp_slice_of(r->bytes + (part.data - bytes.data), part.size);
}

static bool is_any_live(const struct mp_deploy_module *m)
{
    return m->live && !m->live->is_undeploy;
}

/* Whether a record that comes in now is what counts here. */
static bool becomes_live(const struct mp_deploy *d, const struct mp_deploy_module *m,
                         const struct mp_deploy_record *r)
{
    if (!r->is_here || !m->live)
        return r->is_here;
    struct mp_deploy_stamp stamp = mp_deploy_stamp_of(r);
    struct mp_deploy_stamp live = mp_deploy_stamp_of(m->live);
    return mp_deploy_compare(&stamp, &live) > 0 ||
           mp_has_defect(d->defects, MP_DEFECT_OLDER_ENTRY_WINS);
}

static void list_module(struct mp_deploy *d, uint32_t module, struct mp_slice name,
                        bool is_pipeline)
{
    uint32_t place = place_of_name(d, d->order, d->module_count, name, is_pipeline);
    d->modules[module].name = name;
    d->modules[module].is_pipeline = is_pipeline;
    insert_number(d->order, d->module_count, place, module);
    d->module_count++;
}

/* Makes a record of a module live, and keeps up the list of what is live; whether that changed. */
static bool switch_to(struct mp_deploy *d, uint32_t module, const struct mp_deploy_record *r)
{
    struct mp_deploy_module *m = &d->modules[module];
    bool was_live = is_any_live(m);
    m->live = r;
    bool is_live = is_any_live(m);
    uint32_t place = place_of_name(d, d->live, d->live_count, m->name, m->is_pipeline);
    if (is_live && !was_live) {
        insert_number(d->live, d->live_count, place, module);
        d->live_count++;
    } else if (was_live && !is_live) {
        d->live_count--;
        memmove(d->live + place, d->live + place + 1, (d->live_count - place) * sizeof(*d->live));
    }
    return was_live || is_live;
}

/* Puts a record, for which there is room, into its place. */
static void commit(struct mp_deploy *d, uint32_t module, struct mp_deploy_record *r,
                   struct mp_deploy_effects *out)
{
    struct mp_deploy_module *m = &d->modules[module];
    struct mp_deploy_stamp stamp = mp_deploy_stamp_of(r);
    uint32_t place = mp_deploy_place_of(m, &stamp);
    uint64_t digest = mp_slice_hash(mp_slice_of(r->bytes, r->size), 1);
    mp_assert(m->count < m->capacity);
    memmove(m->records + place + 1, m->records + place, (m->count - place) * sizeof(*m->records));
    m->records[place] = r;
    m->count++;
    m->digest += digest;
    m->bytes += r->size;
    d->digest += digest;
    d->entry_count++;
    if (r->epoch > d->epoch_max)
        d->epoch_max = r->epoch;
    if (becomes_live(d, m, r) && switch_to(d, module, r))
        out->is_changed = true;
    out->new_count++;
}

/* Takes in an entry that is not known. `module` is its module's number: the next one if it has no
 * entries yet. MP_ENOMEM: all is as before. */
static enum mp_err keep(struct mp_deploy *d, uint32_t module, struct mp_slice bytes,
                        const struct mp_deploy_entry *e, struct mp_deploy_effects *out)
{
    bool is_new = module == d->module_count;
    if (is_new)
        MP_TRY(reserve_module(d));
    MP_TRY(reserve_record(d, &d->modules[module]));
    struct mp_deploy_record *r = new_record(d, bytes, e);
    if (!r)
        return MP_ENOMEM;
    struct mp_slice name = moved(r, bytes, e->module);
    enum mp_err err = is_new ? mp_map_set(&d->by_name[e->is_pipeline], name, module) : MP_OK;
    if (err != MP_OK) {
        free_record(d, r);
        return err;
    }
    if (is_new)
        list_module(d, module, name, e->is_pipeline);
    commit(d, module, r, out);
    return MP_OK;
}

/* --- steps --- */

/* Whether an entry that is not known may not be taken in, which is then noted. */
static bool is_refused(const struct mp_deploy *d, const struct mp_deploy_event *ev,
                       const struct mp_deploy_entry *e, bool is_new_module,
                       struct mp_deploy_effects *out)
{
    uint64_t clock_ms = ev->wall_ms > 0 ? (uint64_t)ev->wall_ms : 0;
    if (ev->kind == MP_DEPLOY_ENTRIES && e->stamp.epoch / 1024 > clock_ms + MP_DEPLOY_AHEAD_MS) {
        out->ahead_count++;
        if (e->stamp.epoch > out->ahead_epoch)
            out->ahead_epoch = e->stamp.epoch;
        return true;
    }
    if (is_new_module && d->module_count == MP_MODULES_MAX)
        out->dropped = "there are too many modules";
    else if (d->entry_count == MP_DEPLOY_ENTRIES_MAX)
        out->dropped = "there are too many entries";
    else
        return false;
    return true;
}

static enum mp_err merge(struct mp_deploy *d, const struct mp_deploy_event *ev,
                         struct mp_slice bytes, struct mp_deploy_effects *out)
{
    struct mp_deploy_entry e;
    const char *why = mp_deploy_check_entry(bytes, &e);
    if (why) {
        out->dropped = why;
        return MP_OK;
    }
    uint32_t module = d->module_count;
    const struct mp_deploy_record *known = NULL;
    if (mp_map_get(&d->by_name[e.is_pipeline], e.module, &module))
        known = mp_deploy_record_at(&d->modules[module], &e.stamp);
    if (known) {
        if (!mp_slice_equal(bytes, mp_slice_of(known->bytes, known->size)))
            out->dropped = "two entries of a module have one stamp";
        return MP_OK;
    }
    if (is_refused(d, ev, &e, module == d->module_count, out))
        return MP_OK;
    size_t before = d->fresh.size;
    if (ev->kind == MP_DEPLOY_ENTRIES)
        MP_TRY(mp_buf_append(&d->fresh, bytes));
    enum mp_err err = keep(d, module, bytes, &e, out);
    if (err != MP_OK)
        d->fresh.size = before;
    return err;
}

static enum mp_err merge_all(struct mp_deploy *d, const struct mp_deploy_event *ev,
                             struct mp_deploy_effects *out)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (ev->entries.size == 0 || mp_mp_get_array(ev->entries, &count, &r) != MP_OK) {
        out->dropped = "entries are no list";
        return MP_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice bytes;
        if (mp_mp_take(&r, &bytes) != MP_OK) {
            out->dropped = "a list of entries is cut off";
            return MP_OK;
        }
        MP_TRY(merge(d, ev, bytes, out));
    }
    return MP_OK;
}

/* The list of `count` entries whose bytes lie behind the room for its header. */
static struct mp_slice finish_fresh(struct mp_deploy *d, uint32_t count)
{
    uint8_t *end = d->fresh.data + HEADER_BYTES_MAX;
    uint8_t *start = end;
    if (count <= 15) {
        *--start = (uint8_t)(0x90 | count);
    } else {
        bool is_short = count <= UINT16_MAX;
        for (int i = 0; i < (is_short ? 2 : 4); i++)
            *--start = (uint8_t)(count >> 8 * i);
        *--start = is_short ? 0xdc : 0xdd;
    }
    return mp_slice_of(start, (size_t)(d->fresh.data + d->fresh.size - start));
}

enum mp_err mp_deploy_step(struct mp_deploy *d, const struct mp_deploy_event *ev,
                           struct mp_deploy_effects *out)
{
    static const uint8_t room[HEADER_BYTES_MAX];
    *out = (struct mp_deploy_effects){0};
    mp_buf_clear(&d->fresh);
    MP_TRY(mp_buf_append(&d->fresh, mp_slice_of(room, sizeof(room))));
    enum mp_err err = merge_all(d, ev, out);
    if (ev->kind == MP_DEPLOY_ENTRIES && out->new_count != 0)
        out->fresh = finish_fresh(d, out->new_count);
    return err;
}
