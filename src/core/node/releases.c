/* Releases. A release is the list of what is live under the names of deployed modules; its id is
 * the hash of that list, so nodes that see the same have the same id without having agreed on it.
 * Each call and each run keeps the release that it began in, on every node: that is why no run ever
 * sees two versions of one module, however often it is deployed meanwhile.
 *
 * A release is open once all its units are loaded here and the driver knows it; only then calls
 * have it. What is live by the history becomes the release of new calls when it is open, not
 * before: so a node that was away catches up before it serves.
 *
 *   list   [[name, is a pipeline, version, hash, unit's hash, place in it, is excluded, nodes]…]
 *
 * in ascending order of the names, modules before pipelines. */
#include "src/base/assert.h"
#include "src/core/node/runs_internal.h"
#include "src/wire/msgpack.h"

#define ITEM_PARTS 8

static struct mp_node_release *release_at(const struct mp_node *n, uint32_t release)
{
    mp_assert(release < n->release_capacity);
    return &n->releases[release];
}

/* --- reading a list --- */

static bool take_token(struct mp_mp_reader *r, enum mp_mp_type type, struct mp_mp_token *t)
{
    return mp_mp_next(r, t) == MP_OK && t->type == type;
}

static bool is_scope(struct mp_slice nodes, uint32_t *count)
{
    struct mp_mp_reader r;
    if (mp_mp_get_array(nodes, count, &r) != MP_OK || *count > MP_DEPLOY_NODES_MAX)
        return false;
    for (uint32_t i = 0; i < *count; i++) {
        struct mp_mp_token t;
        if (!take_token(&r, MP_MP_STR, &t) || !mp_slice_is_name(t.bytes))
            return false;
    }
    return true;
}

static bool take_item(struct mp_mp_reader *r, struct mp_node_release_item *out)
{
    struct mp_mp_token t;
    struct mp_mp_token kind;
    struct mp_mp_token version;
    struct mp_mp_token hash;
    struct mp_mp_token unit;
    struct mp_mp_token place;
    struct mp_mp_token excluded;
    struct mp_slice nodes;
    uint32_t count = 0;
    if (!take_token(r, MP_MP_ARRAY, &t) || t.count != ITEM_PARTS || !take_token(r, MP_MP_STR, &t) ||
        !take_token(r, MP_MP_BOOL, &kind) || !take_token(r, MP_MP_STR, &version) ||
        !take_token(r, MP_MP_BIN, &hash) || !take_token(r, MP_MP_BIN, &unit) ||
        !take_token(r, MP_MP_UINT, &place) || !take_token(r, MP_MP_BOOL, &excluded) ||
        mp_mp_take(r, &nodes) != MP_OK || !is_scope(nodes, &count))
        return false;
    *out = (struct mp_node_release_item){.name = t.bytes,
                                         .version = version.bytes,
                                         .hash = hash.bytes,
                                         .unit_hash = unit.bytes,
                                         .place = (uint32_t)place.u,
                                         .unit = MP_NODE_NONE,
                                         .module = MP_CATALOG_NONE,
                                         .is_pipeline = kind.b,
                                         .is_scope_excluded = excluded.b};
    if (count != 0)
        out->scope = nodes;
    return mp_slice_is_dotted_name(t.bytes) && t.bytes.size <= MP_MODULE_NAME_BYTES_MAX &&
           version.bytes.size <= MP_VERSION_BYTES_MAX && hash.bytes.size == MP_UNIT_HASH_BYTES &&
           unit.bytes.size == MP_UNIT_HASH_BYTES && place.u < MP_UNIT_MODULES_MAX;
}

static int compare(struct mp_slice name, bool is_pipeline, const struct mp_node_release_item *b)
{
    int order = mp_slice_compare(name, b->name);
    return order != 0 ? order : (int)is_pipeline - (int)b->is_pipeline;
}

/* The items of a list that is well formed and in order; false: it is not, or there is no memory. */
static bool read_items(struct mp_node *n, struct mp_slice list, struct mp_node_release_item **own,
                       uint32_t *count)
{
    struct mp_mp_reader r;
    if (mp_mp_check(list) != MP_OK || mp_mp_get_array(list, count, &r) != MP_OK || *count == 0 ||
        *count > MP_MODULES_MAX)
        return false;
    struct mp_node_release_item *items = mp_alloc_take(n->alloc, *count * sizeof(*items));
    bool is_good = items != NULL;
    for (uint32_t i = 0; is_good && i < *count; i++)
        is_good = take_item(&r, &items[i]) &&
                  (i == 0 || compare(items[i].name, items[i].is_pipeline, &items[i - 1]) > 0);
    if (!is_good)
        mp_alloc_free(n->alloc, items, *count * sizeof(*items));
    *own = is_good ? items : NULL;
    return is_good;
}

/* --- life --- */

static void free_release(struct mp_node *n, struct mp_node_release *r)
{
    mp_alloc_free(n->alloc, r->items, r->item_count * sizeof(*r->items));
    mp_alloc_free(n->alloc, (void *)(uintptr_t)r->list.data, r->list.size);
    mp_buf_fini(&r->waiters);
    *r = (struct mp_node_release){0};
    n->release_count--;
}

static uint32_t take_place(struct mp_node *n)
{
    uint32_t place = 0;
    while (place < n->release_capacity && n->releases[place].is_used)
        place++;
    if (place < n->release_capacity)
        return place;
    uint32_t capacity = n->release_capacity == 0 ? 4 : n->release_capacity * 2;
    if (capacity > MP_RELEASES_MAX)
        return MP_NODE_NONE;
    void *grown =
        n->alloc->resize(n->alloc->context, n->releases, n->release_capacity * sizeof(*n->releases),
                         capacity * sizeof(*n->releases));
    if (!grown)
        return MP_NODE_NONE;
    n->releases = (struct mp_node_release *)grown;
    memset(n->releases + n->release_capacity, 0,
           (capacity - n->release_capacity) * sizeof(*n->releases));
    n->release_capacity = capacity;
    return place;
}

enum mp_err mp_node_releases_init(struct mp_node *n)
{
    uint32_t place = take_place(n);
    if (place == MP_NODE_NONE)
        return MP_ENOMEM;
    n->releases[place].is_used = true;
    n->releases[place].is_open = true;
    n->release_count++;
    mp_buf_init(&n->releases[place].waiters, n->alloc, 0);
    return MP_OK;
}

void mp_node_releases_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->release_capacity; i++)
        if (n->releases[i].is_used)
            free_release(n, &n->releases[i]);
    mp_alloc_free(n->alloc, n->releases, n->release_capacity * sizeof(*n->releases));
}

static void id_of(struct mp_slice list, uint8_t id[MP_RELEASE_BYTES])
{
    for (uint64_t half = 0; half < 2; half++) {
        uint64_t hash = mp_slice_hash(list, half);
        for (int i = 0; i < 8; i++)
            id[half * 8 + (uint64_t)i] = (uint8_t)(hash >> (8 * i));
    }
}

static uint32_t find_id(const struct mp_node *n, const uint8_t *id)
{
    for (uint32_t i = 1; i < n->release_capacity; i++)
        if (n->releases[i].is_used && memcmp(n->releases[i].id, id, MP_RELEASE_BYTES) == 0)
            return i;
    return MP_NODE_NONE;
}

/* The release with that list, new if need be; MP_NODE_NONE if the list is malformed, or there is no
 * room. */
static uint32_t release_of(struct mp_node *n, struct mp_slice list)
{
    uint8_t id[MP_RELEASE_BYTES];
    id_of(list, id);
    uint32_t place = find_id(n, id);
    if (place != MP_NODE_NONE) {
        release_at(n, place)->used_at = n->now;
        return place;
    }
    struct mp_node_release_item *items;
    uint32_t count;
    uint8_t *bytes = list.size != 0 ? mp_alloc_take(n->alloc, list.size) : NULL;
    if (!bytes)
        return MP_NODE_NONE;
    memcpy(bytes, list.data, list.size);
    list = mp_slice_of(bytes, list.size);
    if (!read_items(n, list, &items, &count)) {
        mp_alloc_free(n->alloc, bytes, list.size);
        return MP_NODE_NONE;
    }
    place = take_place(n);
    if (place == MP_NODE_NONE) {
        mp_alloc_free(n->alloc, items, count * sizeof(*items));
        mp_alloc_free(n->alloc, bytes, list.size);
        return MP_NODE_NONE;
    }
    struct mp_node_release *r = release_at(n, place);
    *r = (struct mp_node_release){
        .is_used = true, .list = list, .items = items, .item_count = count, .used_at = n->now};
    n->release_count++;
    memcpy(r->id, id, sizeof(r->id));
    mp_buf_init(&r->waiters, n->alloc, 0);
    return place;
}

/* --- opening --- */

static struct mp_slice hex_of(struct mp_node *n, struct mp_slice bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t *hex = mp_node_scratch(n, 2 * bytes.size);
    for (size_t i = 0; hex && i < bytes.size; i++) {
        hex[2 * i] = (uint8_t)digits[bytes.data[i] >> 4];
        hex[2 * i + 1] = (uint8_t)digits[bytes.data[i] & 15];
    }
    return mp_slice_of(hex, hex ? 2 * bytes.size : 0);
}

static bool register_item(struct mp_node *n, struct mp_node_release_item *item)
{
    const struct mp_node_unit *u = &n->units[item->unit];
    const struct mp_slice description = mp_slice_of(u->own_description, u->description_size);
    struct mp_slice hash;
    struct mp_slice metadata;
    struct mp_catalog_effects out;
    if (item->place >= u->module_count ||
        !mp_node_unit_describes(description, item->place, &hash, &metadata) ||
        !mp_slice_equal(hash, item->hash))
        return false;
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_DEPLOY,
                                        .deploy = {.name = item->name,
                                                   .version = item->version,
                                                   .hash = hex_of(n, item->hash),
                                                   .unit = item->unit_hash,
                                                   .is_pipeline = item->is_pipeline,
                                                   .host_module = u->first_module + item->place,
                                                   .metadata = metadata}};
    item->module = mp_catalog_find_deployed(&n->catalog, &ev.deploy);
    if (item->module == MP_CATALOG_NONE ||
        n->catalog.modules[item->module].host_module != ev.deploy.host_module)
        mp_node_step_catalog(n, n->now, &ev, &out);
    item->module = mp_catalog_find_deployed(&n->catalog, &ev.deploy);
    return item->module != MP_CATALOG_NONE;
}

/* What workers find under `require`: [name, unit's number, place]; pipelines are not required. */
static bool tell_driver(struct mp_node *n, uint32_t place)
{
    const struct mp_node_release *r = release_at(n, place);
    struct mp_buf b;
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->item_count; i++)
        count += !r->items[i].is_pipeline;
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_mp_put_array(&b, count);
    for (uint32_t i = 0; err == MP_OK && i < r->item_count; i++) {
        const struct mp_node_release_item *item = &r->items[i];
        if (item->is_pipeline)
            continue;
        err = mp_mp_put_array(&b, 3);
        if (err == MP_OK)
            err = mp_mp_put_str(&b, item->name);
        if (err == MP_OK)
            err = mp_mp_put_uint(&b, n->units[item->unit].number);
        if (err == MP_OK)
            err = mp_mp_put_uint(&b, item->place);
    }
    struct mp_slice kept = {0};
    if (err == MP_OK && mp_node_make_room(n))
        kept = mp_node_keep(n, mp_buf_slice(&b));
    mp_buf_fini(&b);
    if (kept.size == 0)
        return false;
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_OPEN_RELEASE);
    e->release = place;
    e->payload.bytes = kept;
    return true;
}

static void answer_waiters(struct mp_node *n, struct mp_node_release *r, mp_time until,
                           struct mp_slice error)
{
    struct mp_node_release_waiter *list = (struct mp_node_release_waiter *)(void *)r->waiters.data;
    uint32_t count = (uint32_t)(r->waiters.size / sizeof(*list));
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (list[i].until > until) {
            list[left++] = list[i];
            continue;
        }
        mp_node_send_frame(
            n, list[i].client, error.size != 0 ? MP_FRAME_ERROR : MP_FRAME_RESULT, list[i].id,
            (struct mp_slice){0},
            (struct mp_rpc_payload){.bytes = error.size != 0 ? error : mp_slice_str("\xc0")});
    }
    r->waiters.size = left * sizeof(*list);
}

/* Wants all units; opens the release if they are there. A unit that cannot be had is *why. */
static void go_on(struct mp_node *n, uint32_t place, struct mp_slice *why)
{
    struct mp_node_release *r = release_at(n, place);
    bool is_whole = true;
    *why = (struct mp_slice){0};
    for (uint32_t i = 0; i < r->item_count; i++) {
        struct mp_node_release_item *item = &r->items[i];
        item->unit =
            mp_node_unit_want(n, item->unit_hash.data, (struct mp_slice){0}, (struct mp_slice){0});
        const struct mp_node_unit *u = item->unit != MP_NODE_NONE ? &n->units[item->unit] : NULL;
        is_whole = is_whole && u && u->state == MP_NODE_UNIT_LOADED;
        if (u && u->state == MP_NODE_UNIT_FAILED)
            *why = mp_node_keep(n, mp_slice_of(u->own_why, u->why_size));
    }
    for (uint32_t i = 0; is_whole && i < r->item_count; i++)
        is_whole = register_item(n, &r->items[i]);
    if (!is_whole || !tell_driver(n, place))
        return;
    r->is_open = true;
    answer_waiters(n, r, MP_NEVER, (struct mp_slice){0});
}

/* --- what new calls get --- */

static void take_up(struct mp_node *n, mp_time now, uint32_t release)
{
    struct mp_node_release *r = release_at(n, release);
    struct mp_catalog_effects out;
    struct mp_catalog_live *live = NULL;
    if (r->item_count != 0) {
        live = (struct mp_catalog_live *)(void *)mp_node_scratch(n, r->item_count * sizeof(*live));
        if (!live)
            return; /* tried again at the next sweep */
    }
    for (uint32_t i = 0; i < r->item_count; i++)
        live[i] = (struct mp_catalog_live){.module = r->items[i].module,
                                           .is_scope_excluded = r->items[i].is_scope_excluded,
                                           .scope = r->items[i].scope};
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_LIVE,
                                        .live = {.items = live, .count = r->item_count}};
    if (!mp_node_step_catalog(n, now, &ev, &out))
        return;
    n->releases[n->release].used_at = now;
    n->release = release;
    n->release_told = 0;
    mp_node_deploys_go_on(n, now);
}

static void want_release(struct mp_node *n, mp_time now)
{
    struct mp_slice why;
    uint32_t wanted = n->release_wanted;
    if (wanted == n->release)
        return;
    if (!release_at(n, wanted)->is_open)
        go_on(n, wanted, &why);
    if (release_at(n, wanted)->is_open)
        take_up(n, now, wanted);
}

static enum mp_err put_item(struct mp_buf *b, const struct mp_deploy_entry *e)
{
    MP_TRY(mp_mp_put_array(b, ITEM_PARTS));
    MP_TRY(mp_mp_put_str(b, e->module));
    MP_TRY(mp_mp_put_bool(b, e->is_pipeline));
    MP_TRY(mp_mp_put_str(b, e->version));
    MP_TRY(mp_mp_put_bin(b, e->hash));
    MP_TRY(mp_mp_put_bin(b, e->unit));
    MP_TRY(mp_mp_put_uint(b, e->place));
    MP_TRY(mp_mp_put_bool(b, e->scope == MP_DEPLOY_SKIP));
    return e->scope != MP_DEPLOY_EVERYWHERE ? mp_mp_put_raw(b, e->nodes) : mp_mp_put_array(b, 0);
}

void mp_node_release_refresh(struct mp_node *n, mp_time now)
{
    struct mp_buf list;
    uint32_t count = mp_deploy_live_count(n->deploy);
    mp_buf_init(&list, n->alloc, 0);
    enum mp_err err = mp_mp_put_array(&list, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_deploy_entry e;
        bool is_there = mp_deploy_live_at(n->deploy, i, &e);
        mp_assert(is_there);
        err = put_item(&list, &e);
    }
    uint32_t release = count == 0 ? 0 : MP_NODE_NONE;
    if (err == MP_OK && count != 0)
        release = release_of(n, mp_buf_slice(&list));
    mp_buf_fini(&list);
    n->has_entries = release == MP_NODE_NONE;
    if (release == MP_NODE_NONE) {
        n->is_out_of_memory = true; /* tried again with the next sweep */
        return;
    }
    if (release != n->release_wanted)
        n->release_told = 0;
    n->release_wanted = release;
    want_release(n, now);
}

void mp_node_releases_unit(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 1; i < n->release_capacity; i++) {
        struct mp_slice why = {0};
        struct mp_node_release *r = &n->releases[i];
        if (!r->is_used || r->is_open || (i != n->release_wanted && r->waiters.size == 0))
            continue;
        go_on(n, i, &why);
        if (why.size == 0)
            continue;
        answer_waiters(n, &n->releases[i], MP_NEVER, why);
        if (i == n->release_wanted && i != n->release_told) {
            n->release_told = i;
            struct mp_fault fault;
            char bytes[512];
            struct mp_text text;
            mp_text_init(&text, bytes, sizeof(bytes));
            mp_text_put(&text, "what is deployed cannot be loaded here, what was live stays: ");
            if (mp_fault_read(why, &fault) == MP_OK)
                mp_text_put_slice(&text, fault.message);
            mp_node_log(n, 3, mp_text_slice(&text));
        }
    }
    want_release(n, now);
}

/* --- asking --- */

uint32_t mp_node_release_by_id(struct mp_node *n, struct mp_slice id)
{
    if (id.size == 0)
        return 0;
    uint32_t release = find_id(n, id.data);
    if (release == MP_NODE_NONE || !release_at(n, release)->is_open)
        return MP_NODE_NONE;
    release_at(n, release)->used_at = n->now;
    return release;
}

struct mp_slice mp_node_release_id(const struct mp_node *n, uint32_t release)
{
    return release == 0 ? (struct mp_slice){0}
                        : mp_slice_of(release_at(n, release)->id, MP_RELEASE_BYTES);
}

struct mp_slice mp_node_release_list(const struct mp_node *n, uint32_t release)
{
    return release_at(n, release)->list;
}

uint32_t mp_node_release_pin(const struct mp_node *n, uint32_t release, struct mp_slice name,
                             bool is_pipeline)
{
    const struct mp_node_release *r = release_at(n, release);
    uint32_t low = 0;
    uint32_t high = r->item_count;
    if (high == 0)
        return 0;
    if (!is_pipeline) {
        while (name.size > 0 && name.data[name.size - 1] != '.')
            name.size--;
        if (name.size == 0)
            return 0;
        name.size--;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare(name, is_pipeline, &r->items[middle]);
        if (order == 0)
            return mp_catalog_pin(r->items[middle].module);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return 0;
}

bool mp_node_releases_name(const struct mp_node *n, const uint8_t *hash)
{
    for (uint32_t i = 1; i < n->release_capacity; i++)
        for (uint32_t k = 0; k < n->releases[i].item_count; k++)
            if (memcmp(n->releases[i].items[k].unit_hash.data, hash, MP_UNIT_HASH_BYTES) == 0)
                return true;
    return false;
}

/* --- other nodes --- */

void mp_node_list_frame(struct mp_node *n, mp_time now, uint64_t client, uint64_t id,
                        struct mp_slice list)
{
    struct mp_slice why = {0};
    const struct mp_node_release_waiter waiter = {
        .client = client, .id = id, .until = mp_time_add(now, MP_MS(MP_DEPLOY_STAGE_MS))};
    const struct mp_fault fault = {.code = MP_CODE_INVALID_ARGUMENT,
                                   .reason = mp_slice_str("BAD_REQUEST"),
                                   .message = mp_slice_str("a release cannot be taken in"),
                                   .node = n->catalog.node};
    uint32_t place = mp_node_make_room(n) ? release_of(n, list) : MP_NODE_NONE;
    if (place == MP_NODE_NONE || mp_buf_append(&release_at(n, place)->waiters,
                                               mp_slice_of(&waiter, sizeof(waiter))) != MP_OK) {
        mp_node_send_frame(n, client, MP_FRAME_ERROR, id, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = mp_node_error(n, &fault)});
        return;
    }
    if (release_at(n, place)->is_open)
        answer_waiters(n, release_at(n, place), MP_NEVER, why);
    else
        go_on(n, place, &why);
    if (why.size != 0)
        answer_waiters(n, release_at(n, place), MP_NEVER, why);
}

void mp_node_releases_client_gone(struct mp_node *n, uint64_t client)
{
    for (uint32_t i = 1; i < n->release_capacity; i++) {
        struct mp_buf *b = &n->releases[i].waiters;
        struct mp_node_release_waiter *list = (struct mp_node_release_waiter *)(void *)b->data;
        uint32_t count = (uint32_t)(b->size / sizeof(*list));
        uint32_t left = 0;
        for (uint32_t k = 0; k < count; k++)
            if (list[k].client != client)
                list[left++] = list[k];
        b->size = left * sizeof(*list);
    }
}

/* --- letting go --- */

static void mark_used(struct mp_node *n, mp_time now)
{
    uint32_t slot = 0;
    const struct mp_rpc_call *c = mp_rpc_next(&n->rpc, &slot);
    for (; c; c = mp_rpc_next(&n->rpc, &slot))
        if (!mp_has_defect(n->cfg.defects, MP_DEFECT_RETIRE_NAMED))
            release_at(n, c->release)->used_at = now;
    for (uint32_t i = 0; i < n->run_capacity; i++)
        if (n->runs[i].graph && !n->runs[i].is_over)
            release_at(n, n->runs[i].release)->used_at = now;
    release_at(n, n->release)->used_at = now;
    release_at(n, n->release_wanted)->used_at = now;
}

static bool is_named(const struct mp_node *n, uint32_t module)
{
    for (uint32_t i = 1; i < n->release_capacity; i++)
        for (uint32_t k = 0; k < n->releases[i].item_count; k++)
            if (n->releases[i].items[k].module == module)
                return true;
    return false;
}

/* Deployed modules that no release names any more; their keys go to others. */
static void retire(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 0; i < n->catalog.module_count; i++) {
        const struct mp_catalog_module *m = &n->catalog.modules[i];
        struct mp_catalog_effects out;
        const struct mp_catalog_event ev = {.kind = MP_CATALOG_RETIRE, .number = i};
        if (!m->is_deployed || m->metadata.size == 0 || m->is_live || is_named(n, i))
            continue;
        for (uint32_t k = 0; k < m->function_count; k++) {
            const struct mp_pool_event forget = {.kind = MP_POOL_FORGET,
                                                 .forget = m->first_function + k};
            mp_node_step_pool(n, now, &forget);
        }
        mp_node_step_catalog(n, now, &ev, &out);
    }
}

void mp_node_releases_sweep(struct mp_node *n, mp_time now)
{
    bool is_any = false;
    mark_used(n, now);
    for (uint32_t i = 1; i < n->release_capacity; i++) {
        struct mp_node_release *r = &n->releases[i];
        if (!r->is_used)
            continue;
        if (r->waiters.size != 0) {
            const struct mp_fault fault = {
                .code = MP_CODE_UNAVAILABLE,
                .reason = mp_slice_str("NO_CODE"),
                .message = mp_slice_str("the node could not load what the call needs in time"),
                .node = n->catalog.node};
            r->used_at = now;
            answer_waiters(n, r, now, mp_node_error(n, &fault));
        }
        if (now < mp_time_add(r->used_at, MP_MS(MP_RELEASE_KEPT_MS)))
            continue;
        if (r->is_open && mp_node_make_room(n))
            mp_node_emit(n, MP_NODE_CLOSE_RELEASE)->release = i;
        free_release(n, r);
        is_any = true;
    }
    if (is_any && !mp_has_defect(n->cfg.defects, MP_DEFECT_RETIRE_NAMED))
        retire(n, now);
    if (n->has_entries)
        mp_node_release_refresh(n, now);
    if (n->release_wanted != n->release)
        mp_node_releases_unit(n, now);
}

bool mp_node_releases_are_idle(const struct mp_node *n)
{
    return n->release == n->release_wanted && !n->has_entries &&
           n->release_count == 1u + (n->release != 0);
}

bool mp_node_has_code(const struct mp_node *n)
{
    const struct mp_node_release *r = release_at(n, n->release_wanted);
    if (n->release == n->release_wanted)
        return true;
    for (uint32_t i = 0; i < r->item_count; i++) {
        const struct mp_node_unit *u = mp_node_unit_find(n, r->items[i].unit_hash.data);
        if (u && (u->state == MP_NODE_UNIT_ASKED || u->state == MP_NODE_UNIT_KEEPING))
            return false;
    }
    return true;
}
