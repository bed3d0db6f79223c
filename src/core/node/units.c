/* Units of code, by their hash: had here, or gathered. A unit that is wanted is asked of the driver
 * first, which may have it in its store; then of one node after the other. What comes from another
 * node is checked as if a user had just sent it, kept, and only then loaded.
 *
 * A unit stays while a release names it. One that is wanted, and that no release has named since,
 * stays some seconds: what was staged is not live yet. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/unit.h"

uint64_t mp_node_ticket(uint32_t kind, uint32_t generation, uint32_t place)
{
    return (uint64_t)kind << 56 | (uint64_t)(generation & 0xffffffu) << 32 | place;
}

uint32_t mp_node_ticket_kind(uint64_t ticket)
{
    return (uint32_t)(ticket >> 56);
}

static uint64_t ticket_of(const struct mp_node *n, const struct mp_node_unit *u)
{
    return mp_node_ticket(MP_NODE_TICKET_UNIT, u->generation, (uint32_t)(u - n->units));
}

static struct mp_node_unit *unit_of(struct mp_node *n, uint64_t ticket)
{
    uint32_t place = (uint32_t)ticket;
    if (place >= n->unit_capacity || n->units[place].state == MP_NODE_UNIT_FREE ||
        ticket_of(n, &n->units[place]) != ticket)
        return NULL;
    return &n->units[place];
}

/* --- memory --- */

static bool copy(struct mp_node *n, struct mp_slice bytes, uint8_t **own, size_t *size)
{
    mp_alloc_free(n->alloc, *own, *size);
    *own = NULL;
    *size = 0;
    if (bytes.size == 0)
        return true;
    *own = mp_alloc_take(n->alloc, bytes.size);
    if (!*own)
        return false;
    memcpy(*own, bytes.data, bytes.size);
    *size = bytes.size;
    return true;
}

static void free_bytes(struct mp_node *n, struct mp_node_unit *u)
{
    mp_alloc_free(n->alloc, u->own_bytes, u->size);
    u->own_bytes = NULL;
    u->size = 0;
}

static void free_unit(struct mp_node *n, struct mp_node_unit *u)
{
    free_bytes(n, u);
    mp_alloc_free(n->alloc, u->own_description, u->description_size);
    mp_alloc_free(n->alloc, u->own_why, u->why_size);
    *u = (struct mp_node_unit){.generation = u->generation + 1};
}

void mp_node_units_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->unit_capacity; i++)
        free_unit(n, &n->units[i]);
    mp_alloc_free(n->alloc, n->units, n->unit_capacity * sizeof(*n->units));
    n->units = NULL;
    n->unit_capacity = 0;
}

static struct mp_node_unit *new_unit(struct mp_node *n, const uint8_t *hash)
{
    uint32_t place = 0;
    while (place < n->unit_capacity && n->units[place].state != MP_NODE_UNIT_FREE)
        place++;
    if (place == n->unit_capacity) {
        uint32_t capacity = n->unit_capacity == 0 ? 8 : n->unit_capacity * 2;
        if (capacity > MP_UNITS_MAX)
            return NULL;
        void *grown =
            n->alloc->resize(n->alloc->context, n->units, n->unit_capacity * sizeof(*n->units),
                             capacity * sizeof(*n->units));
        if (!grown)
            return NULL;
        n->units = (struct mp_node_unit *)grown;
        memset(n->units + n->unit_capacity, 0, (capacity - n->unit_capacity) * sizeof(*n->units));
        n->unit_capacity = capacity;
    }
    struct mp_node_unit *u = &n->units[place];
    memcpy(u->hash, hash, sizeof(u->hash));
    return u;
}

struct mp_node_unit *mp_node_unit_find(const struct mp_node *n, const uint8_t *hash)
{
    for (uint32_t i = 0; i < n->unit_capacity; i++)
        if (n->units[i].state != MP_NODE_UNIT_FREE &&
            memcmp(n->units[i].hash, hash, sizeof(n->units[i].hash)) == 0)
            return &n->units[i];
    return NULL;
}

static bool get_bin(struct mp_slice value, struct mp_slice *bytes)
{
    struct mp_mp_token t;
    struct mp_mp_reader r = mp_mp_reader_of(value);
    if (mp_mp_next(&r, &t) != MP_OK || t.type != MP_MP_BIN)
        return false;
    *bytes = t.bytes;
    return true;
}

bool mp_node_unit_describes(struct mp_slice description, uint32_t place, struct mp_slice *hash,
                            struct mp_slice *metadata)
{
    struct mp_slice item;
    struct mp_slice value;
    return mp_mp_array_get(description, place, &item) == MP_OK &&
           mp_mp_array_get(item, 0, &value) == MP_OK && get_bin(value, hash) &&
           mp_mp_array_get(item, 1, metadata) == MP_OK;
}

/* --- gathering --- */

/* Whoever waits for it looks again when the step's other work is done. */
static void settle(struct mp_node *n, struct mp_node_unit *u, enum mp_node_unit_state state)
{
    u->state = state;
    u->used_at = n->now;
    mp_node_put_off(n, MP_NODE_WORK_UNIT, (uint64_t)(u - n->units));
}

/* `error`: an ERROR map. */
static void fail(struct mp_node *n, struct mp_node_unit *u, struct mp_slice error)
{
    free_bytes(n, u);
    if (!copy(n, error, &u->own_why, &u->why_size))
        n->is_out_of_memory = true;
    u->failed_at = n->now;
    settle(n, u, MP_NODE_UNIT_FAILED);
}

static void fail_text(struct mp_node *n, struct mp_node_unit *u, enum mp_code code,
                      const char *reason, const char *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = n->catalog.node};
    fail(n, u, mp_node_error(n, &fault));
}

static struct mp_node_effect *ask_driver(struct mp_node *n, struct mp_node_unit *u,
                                         enum mp_node_effect_kind kind,
                                         enum mp_node_unit_state state)
{
    if (!mp_node_make_room(n)) {
        fail_text(n, u, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                  "the node has no memory for this code");
        return NULL;
    }
    struct mp_node_effect *e = mp_node_emit(n, kind);
    e->id = ticket_of(n, u);
    u->state = state;
    return e;
}

static void load(struct mp_node *n, struct mp_node_unit *u)
{
    /* Another unit that is wanted in this step may move this one. */
    struct mp_slice hash = mp_node_keep(n, mp_slice_of(u->hash, sizeof(u->hash)));
    if (hash.size == 0) {
        fail_text(n, u, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                  "the node has no memory for this code");
        return;
    }
    struct mp_node_effect *e = ask_driver(n, u, MP_NODE_LOAD_UNIT, MP_NODE_UNIT_ASKED);
    if (e)
        e->payload.bytes = hash;
}

/* The bytes are in own_bytes, the description in own_description: both stay until KEPT. */
static void keep(struct mp_node *n, struct mp_node_unit *u)
{
    struct mp_node_effect *e = ask_driver(n, u, MP_NODE_KEEP_UNIT, MP_NODE_UNIT_KEEPING);
    if (!e)
        return;
    e->payload.bytes = mp_slice_of(u->own_bytes, u->size);
    e->context = mp_slice_of(u->own_description, u->description_size);
    memcpy(e->hash, u->hash, sizeof(e->hash));
}

static bool is_alive(const struct mp_node *n, uint32_t member)
{
    struct mp_member_info info;
    return member != MP_MEMBER_SELF && mp_membership_get(n->membership, member, &info) &&
           info.state < MP_MEMBER_DEAD;
}

/* One member after the other, from a random one on. */
static uint32_t next_holder(struct mp_node *n, struct mp_node_unit *u)
{
    uint32_t end = mp_membership_end(n->membership);
    uint32_t first = u->hash[0] | (uint32_t)u->hash[1] << 8;
    while (u->tries < end) {
        uint32_t member = (first + u->tries++) % end;
        if (is_alive(n, member))
            return member;
    }
    return MP_MEMBER_NONE;
}

static void fetch(struct mp_node *n, struct mp_node_unit *u)
{
    uint32_t member = next_holder(n, u);
    const struct mp_peer_code c = {.unit = mp_slice_of(u->hash, sizeof(u->hash))};
    struct mp_node_out *o = NULL;
    mp_buf_clear(&n->build);
    if (member != MP_MEMBER_NONE && mp_peer_code_put(&n->build, &c) == MP_OK)
        o = mp_node_out_new(n, MP_NODE_OUT_CODE, MP_FRAME_CODE, member, ticket_of(n, u), 0,
                            (struct mp_slice){0}, mp_buf_slice(&n->build),
                            (struct mp_rpc_payload){0});
    if (!o) {
        fail_text(n, u, MP_CODE_UNAVAILABLE, "NO_CODE",
                  "no node that can be reached has the code of this version");
        return;
    }
    u->state = MP_NODE_UNIT_FETCHING;
    u->fetch = o->id;
    mp_node_outs_flush(n, o->link);
}

uint32_t mp_node_unit_want(struct mp_node *n, const uint8_t *hash, struct mp_slice bytes,
                           struct mp_slice description)
{
    struct mp_node_unit *u = mp_node_unit_find(n, hash);
    bool is_new = !u;
    if (!u)
        u = new_unit(n, hash);
    if (!u)
        return MP_NODE_NONE;
    bool is_due = u->state == MP_NODE_UNIT_FAILED &&
                  (bytes.size != 0 || n->now >= mp_time_add(u->failed_at, MP_MS(MP_UNIT_RETRY_MS)));
    u->used_at = n->now;
    u->was_named = false;
    if (!is_new && !is_due)
        return (uint32_t)(u - n->units);
    u->tries = 0;
    u->state = MP_NODE_UNIT_ASKED; /* its place is taken, whatever follows */
    if (bytes.size == 0) {
        load(n, u);
    } else if (copy(n, bytes, &u->own_bytes, &u->size) &&
               copy(n, description, &u->own_description, &u->description_size)) {
        keep(n, u);
    } else {
        fail_text(n, u, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                  "the node has no memory for this code");
    }
    return (uint32_t)(u - n->units);
}

/* --- what comes of it --- */

void mp_node_unit_loaded(struct mp_node *n, const struct mp_node_event *ev)
{
    struct mp_node_unit *u = unit_of(n, ev->stored.ticket);
    bool is_good = !ev->stored.is_error && !ev->stored.is_missing;
    if (!u || u->state != MP_NODE_UNIT_ASKED) {
        /* Nobody wants it any more. */
        if (is_good)
            mp_node_emit(n, MP_NODE_UNLOAD_UNIT)->unit = ev->stored.unit;
        return;
    }
    if (ev->stored.is_missing) {
        fetch(n, u);
        return;
    }
    if (ev->stored.is_error) {
        fail(n, u, ev->stored.bytes);
        return;
    }
    u->number = ev->stored.unit;
    u->first_module = ev->stored.first_module;
    if (!copy(n, ev->stored.bytes, &u->own_description, &u->description_size) ||
        mp_mp_get_array(ev->stored.bytes, &u->module_count, &(struct mp_mp_reader){0}) != MP_OK) {
        mp_node_emit(n, MP_NODE_UNLOAD_UNIT)->unit = u->number;
        fail_text(n, u, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                  "the node has no memory for this code");
        return;
    }
    settle(n, u, MP_NODE_UNIT_LOADED);
}

void mp_node_unit_fetched(struct mp_node *n, const struct mp_node_work *w)
{
    struct mp_node_unit *u = unit_of(n, w->call);
    if (!u || u->state != MP_NODE_UNIT_FETCHING)
        return;
    u->fetch = 0;
    const char *why;
    uint32_t count;
    struct mp_mp_reader r;
    bool is_good = !w->is_lost && mp_unit_open(w->payload, &count, &r, &why) == MP_OK;
    if (!is_good || !copy(n, w->payload, &u->own_bytes, &u->size)) {
        fetch(n, u); /* from the next one */
        return;
    }
    struct mp_node_effect *e = ask_driver(n, u, MP_NODE_CHECK_UNIT, MP_NODE_UNIT_CHECKING);
    if (!e)
        return;
    e->release = n->release;
    e->payload.bytes = mp_slice_of(u->own_bytes, u->size);
}

void mp_node_unit_checked(struct mp_node *n, const struct mp_node_event *ev)
{
    struct mp_node_unit *u = unit_of(n, ev->stored.ticket);
    if (!u || u->state != MP_NODE_UNIT_CHECKING)
        return;
    if (memcmp(ev->stored.hash, u->hash, sizeof(u->hash)) != 0) {
        free_bytes(n, u);
        fetch(n, u); /* it was other code than what was asked for */
    } else if (ev->stored.is_error) {
        fail(n, u, ev->stored.bytes);
    } else if (!copy(n, ev->stored.bytes, &u->own_description, &u->description_size)) {
        fail_text(n, u, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                  "the node has no memory for this code");
    } else {
        keep(n, u);
    }
}

void mp_node_unit_kept(struct mp_node *n, const struct mp_node_event *ev)
{
    struct mp_node_unit *u = unit_of(n, ev->stored.ticket);
    if (!u || u->state != MP_NODE_UNIT_KEEPING)
        return;
    if (ev->stored.is_error) {
        fail(n, u, ev->stored.bytes);
        return;
    }
    free_bytes(n, u);
    load(n, u);
}

/* --- letting go --- */

static bool is_idle(const struct mp_node_unit *u)
{
    return u->state == MP_NODE_UNIT_LOADED || u->state == MP_NODE_UNIT_FAILED;
}

void mp_node_units_sweep(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 0; i < n->unit_capacity; i++) {
        struct mp_node_unit *u = &n->units[i];
        if (u->state == MP_NODE_UNIT_FREE)
            continue;
        if (mp_node_releases_name(n, u->hash)) {
            u->used_at = now;
            u->was_named = true;
            continue;
        }
        bool is_over = u->was_named || now >= mp_time_add(u->used_at, MP_MS(MP_UNIT_KEPT_MS));
        if (is_idle(u) && is_over) {
            if (u->state == MP_NODE_UNIT_LOADED)
                mp_node_emit(n, MP_NODE_UNLOAD_UNIT)->unit = u->number;
            free_unit(n, u);
        }
    }
}

bool mp_node_units_are_idle(const struct mp_node *n)
{
    for (uint32_t i = 0; i < n->unit_capacity; i++)
        if (n->units[i].state != MP_NODE_UNIT_FREE && (n->units[i].state != MP_NODE_UNIT_LOADED ||
                                                       !mp_node_releases_name(n, n->units[i].hash)))
            return false;
    return true;
}

/* --- for other nodes --- */

/* Who asked is kept in a list, since the driver only gives a ticket back. */
void mp_node_code_frame(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice meta)
{
    struct mp_peer_code c;
    const struct mp_fault fault = {.code = MP_CODE_INVALID_ARGUMENT,
                                   .reason = mp_slice_str("BAD_REQUEST"),
                                   .message = mp_slice_str("a request for code is malformed"),
                                   .node = n->catalog.node};
    const struct mp_node_asked asked = {.client = client, .id = id, .ticket = ++n->reads};
    if (mp_peer_code_read(meta, &c) == MP_OK && mp_node_make_room(n) &&
        mp_buf_append(&n->asked, mp_slice_of(&asked, sizeof(asked))) == MP_OK) {
        struct mp_node_effect *e = mp_node_emit(n, MP_NODE_READ_UNIT);
        e->id = mp_node_ticket(MP_NODE_TICKET_READ, 0, (uint32_t)asked.ticket);
        e->payload.bytes = mp_node_keep(n, c.unit);
        return;
    }
    mp_node_send_frame(n, client, MP_FRAME_ERROR, id, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_node_error(n, &fault)});
}

void mp_node_code_found(struct mp_node *n, const struct mp_node_event *ev)
{
    struct mp_node_asked *list = (struct mp_node_asked *)(void *)n->asked.data;
    uint32_t count = (uint32_t)(n->asked.size / sizeof(*list));
    uint32_t i = 0;
    while (i < count && (uint32_t)list[i].ticket != (uint32_t)ev->stored.ticket)
        i++;
    if (i == count)
        return;
    const struct mp_node_asked asked = list[i];
    list[i] = list[count - 1];
    n->asked.size -= sizeof(*list);
    if (asked.is_source) {
        mp_node_source_found(n, &asked, ev);
        return;
    }
    const struct mp_fault fault = {.code = MP_CODE_NOT_FOUND,
                                   .reason = mp_slice_str("NO_CODE"),
                                   .message = mp_slice_str("the node does not keep this code"),
                                   .node = n->catalog.node};
    bool is_there = !ev->stored.is_missing && !ev->stored.is_error;
    if (mp_node_link_of_client(n, asked.client) == MP_NODE_NONE)
        return; /* it has gone meanwhile */
    struct mp_slice bytes = is_there ? mp_node_keep(n, ev->stored.bytes) : mp_node_error(n, &fault);
    is_there = is_there && bytes.size != 0;
    mp_node_send_frame(
        n, asked.client, is_there ? MP_FRAME_RESULT : MP_FRAME_ERROR, asked.id,
        (struct mp_slice){0},
        (struct mp_rpc_payload){.bytes = is_there ? bytes : mp_node_error(n, &fault)});
}
