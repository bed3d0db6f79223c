/* Results that stay where they were made, and arguments that are made of them.
 *
 * A large result of a run's step is kept on the node that made it, under a number that goes to the
 * coordinator instead of the value. A later step's arguments then have holes (graph.h), which the
 * node that runs it fills: with what it holds itself, or with what it fetches straight from the
 * holder. What was fetched is kept as a copy until the run is over, so that an `each` over a
 * thousand elements moves a value once, and a second call that needs it meanwhile waits for the
 * first one's fetch. All of it is given back when the coordinator says that the run is over, or is
 * dead itself. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

struct hole {
    const uint8_t *start; /* in the call's arguments */
    const uint8_t *end;
    struct mp_slice node;
    uint64_t held;
    struct mp_slice path;
    uint64_t copy; /* what it waits for or is filled from; 0: a result held here */
};

struct mp_node_fill {
    uint64_t call;
    uint32_t next; /* calls being filled: slots, chained; MP_NODE_NONE ends */
    uint32_t previous;
    uint32_t waiting;
    uint32_t count;
    struct hole *holes;
    struct mp_buf bytes; /* the whole arguments */
};

/* --- the table --- */

static struct mp_node_held *find(const struct mp_node *n, uint64_t id)
{
    uint32_t place = (uint32_t)id;
    if (id == 0 || place >= n->held_used || n->held[place].id != id)
        return NULL;
    return &n->held[place];
}

static struct mp_node_held *take_place(struct mp_node *n, uint32_t coordinator, uint64_t run)
{
    uint32_t place = n->held_free;
    /* Drawn anew at each boot, so that a number from before it is not taken for another value's. */
    uint64_t generation = n->held_generation | 1;
    struct mp_member_info info = {0};
    (void)mp_membership_get(n->membership, coordinator, &info);
    if (place != MP_NODE_NONE) {
        n->held_free = n->held[place].next_free;
        generation = (uint32_t)(n->held[place].run + 1); /* a free place keeps its own there */
        generation += generation == 0;
    } else {
        if (n->held_used >= MP_HELD_MAX)
            return NULL;
        if (n->held_used == n->held_capacity) {
            uint32_t capacity = n->held_capacity == 0 ? 16 : n->held_capacity * 2;
            void *grown =
                n->alloc->resize(n->alloc->context, n->held, n->held_capacity * sizeof(*n->held),
                                 capacity * sizeof(*n->held));
            if (!grown)
                return NULL;
            n->held = (struct mp_node_held *)grown;
            n->held_capacity = capacity;
        }
        place = n->held_used++;
    }
    n->held[place] = (struct mp_node_held){.id = generation << 32 | place,
                                           .coordinator = coordinator,
                                           .generation = info.generation,
                                           .since = n->now,
                                           .run = run};
    n->held_count++;
    return &n->held[place];
}

static void free_held(struct mp_node *n, struct mp_node_held *h)
{
    uint32_t place = (uint32_t)h->id;
    uint64_t generation = h->id >> 32;
    if (h->key.size != 0) {
        (void)mp_map_remove(&n->copies, h->key);
        mp_alloc_free(n->alloc, (void *)(uintptr_t)h->key.data, h->key.size);
    }
    if (h->is_released)
        n->released_bytes -= h->payload.bytes.size;
    else
        n->held_bytes -= h->payload.bytes.size;
    n->held_count -= !h->is_released;
    if (h->payload.handle != 0)
        mp_node_emit(n, MP_NODE_RELEASE)->payload = h->payload;
    else
        mp_alloc_free(n->alloc, (void *)(uintptr_t)h->payload.bytes.data, h->payload.bytes.size);
    *h = (struct mp_node_held){.run = generation, .next_free = n->held_free};
    n->held_free = place;
}

/* --- what was released --- */

static uint64_t oldest_released(const struct mp_node *n)
{
    uint64_t id = 0;
    if (n->released.size != 0)
        memcpy(&id, n->released.data, sizeof(id));
    return id;
}

static void note_oldest(struct mp_node *n)
{
    uint64_t id = oldest_released(n);
    n->held_at =
        id != 0 ? mp_time_add(n->held[(uint32_t)id].since, MP_MS(MP_HELD_RELEASED_MS)) : MP_NEVER;
}

static void drop_released(struct mp_node *n)
{
    free_held(n, &n->held[(uint32_t)oldest_released(n)]);
    mp_buf_drop(&n->released, sizeof(uint64_t));
    note_oldest(n);
}

/* Shared blocks are scarce: what is only kept for the curious lies elsewhere. False: no memory. */
static bool leave_block(struct mp_node *n, struct mp_node_held *h)
{
    uint8_t *own = h->payload.handle != 0 ? mp_alloc_take(n->alloc, h->payload.bytes.size) : NULL;
    if (!own)
        return h->payload.handle == 0;
    memcpy(own, h->payload.bytes.data, h->payload.bytes.size);
    mp_node_emit(n, MP_NODE_RELEASE)->payload = h->payload;
    h->payload = (struct mp_rpc_payload){.bytes = mp_slice_of(own, h->payload.bytes.size)};
    return true;
}

/* Its run is over. Somebody may still want to see a result whole (`trace --result`), so it stays
 * for a while as long as nothing else needs the room; copies of it do not. */
static void release_held(struct mp_node *n, struct mp_node_held *h)
{
    uint64_t size = h->payload.bytes.size;
    if (h->is_released)
        return;
    if (h->is_copy || h->coordinator == MP_MEMBER_SELF || size > MP_HELD_RELEASED_BYTES ||
        !leave_block(n, h) ||
        mp_buf_append(&n->released, mp_slice_of(&h->id, sizeof(h->id))) != MP_OK) {
        free_held(n, h);
        return;
    }
    h->is_released = true;
    h->since = n->now;
    n->held_count--;
    n->held_bytes -= size;
    n->released_bytes += size;
    note_oldest(n);
    while (n->released_bytes > MP_HELD_RELEASED_BYTES)
        drop_released(n);
}

void mp_node_held_tick(struct mp_node *n, mp_time now)
{
    while (n->held_at <= now)
        drop_released(n);
}

/* Takes a payload over: its handle, or a copy of its bytes. */
static bool keep(struct mp_node *n, struct mp_node_held *h, struct mp_rpc_payload *payload)
{
    if (n->held_bytes + payload->bytes.size > MP_HELD_BYTES_MAX)
        return false;
    while (n->released.size != 0 &&
           n->held_bytes + n->released_bytes + payload->bytes.size > MP_HELD_BYTES_MAX)
        drop_released(n);
    if (payload->handle == 0) {
        uint8_t *own = mp_alloc_take(n->alloc, payload->bytes.size);
        if (!own)
            return false;
        memcpy(own, payload->bytes.data, payload->bytes.size);
        h->payload.bytes = mp_slice_of(own, payload->bytes.size);
    } else {
        h->payload = *payload;
        payload->handle = 0;
    }
    n->held_bytes += h->payload.bytes.size;
    return true;
}

uint64_t mp_node_hold(struct mp_node *n, uint32_t coordinator, uint64_t run,
                      struct mp_rpc_payload *payload)
{
    struct mp_node_held *h = take_place(n, coordinator, run);
    if (!h)
        return 0;
    if (keep(n, h, payload))
        return h->id;
    free_held(n, h);
    return 0;
}

uint32_t mp_node_held_for(struct mp_node *n)
{
    struct mp_member_info info;
    uint32_t linked = MP_NODE_NONE;
    if (n->held_count == 0)
        return MP_NODE_NONE;
    uint32_t start = (uint32_t)mp_rng_below(&n->rng, n->held_used);
    for (uint32_t i = 0; i < n->held_used; i++) {
        const struct mp_node_held *h = &n->held[(start + i) % n->held_used];
        if (h->id == 0 || h->is_released || h->coordinator == MP_MEMBER_SELF ||
            !mp_membership_get(n->membership, h->coordinator, &info) ||
            info.state >= MP_MEMBER_DEAD)
            continue;
        if (!mp_node_link_is_up(n, h->coordinator))
            return h->coordinator;
        if (linked == MP_NODE_NONE)
            linked = h->coordinator;
    }
    return linked;
}

void mp_node_release_run(struct mp_node *n, uint32_t coordinator, uint64_t run)
{
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_KEEP_HELD))
        return;
    for (uint32_t i = 0; n->held_count != 0 && i < n->held_used; i++)
        if (n->held[i].id != 0 && n->held[i].coordinator == coordinator && n->held[i].run == run)
            release_held(n, &n->held[i]);
}

void mp_node_release_all(struct mp_node *n, uint32_t coordinator)
{
    for (uint32_t i = 0; n->held_count != 0 && i < n->held_used; i++)
        if (n->held[i].id != 0 && n->held[i].coordinator == coordinator)
            release_held(n, &n->held[i]);
}

static bool is_listed(struct mp_slice runs, uint64_t run)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(runs, &count, &r) != MP_OK)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK || (t.type == MP_MP_UINT && t.u == run))
            return true;
    }
    return false;
}

void mp_node_runs_frame(struct mp_node *n, uint32_t coordinator, uint64_t id, struct mp_slice runs)
{
    mp_time before = id == 0 ? MP_NEVER : id & ~(uint64_t)MP_NODE_RUNS_ASKS;
    if ((id & MP_NODE_RUNS_ASKS) != 0)
        return; /* it was not asked for */
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_KEEP_HELD))
        return;
    for (uint32_t i = 0; n->held_count != 0 && i < n->held_used; i++)
        if (n->held[i].id != 0 && n->held[i].coordinator == coordinator &&
            n->held[i].since < before && !is_listed(runs, n->held[i].run))
            release_held(n, &n->held[i]);
}

void mp_node_release_older(struct mp_node *n, uint32_t coordinator, uint64_t generation)
{
    for (uint32_t i = 0; n->held_count != 0 && i < n->held_used; i++)
        if (n->held[i].id != 0 && n->held[i].coordinator == coordinator &&
            n->held[i].generation < generation)
            release_held(n, &n->held[i]);
}

void mp_node_held_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->held_used; i++) {
        struct mp_node_held *h = &n->held[i];
        if (h->id == 0)
            continue;
        mp_alloc_free(n->alloc, (void *)(uintptr_t)h->key.data, h->key.size);
        if (h->payload.handle == 0)
            mp_alloc_free(n->alloc, (void *)(uintptr_t)h->payload.bytes.data,
                          h->payload.bytes.size);
    }
    mp_alloc_free(n->alloc, n->held, n->held_capacity * sizeof(*n->held));
    mp_map_fini(&n->copies);
    mp_buf_fini(&n->released);
}

uint32_t mp_node_held_count(const struct mp_node *n)
{
    return n->held_count;
}

uint64_t mp_node_held_bytes(const struct mp_node *n)
{
    return n->held_bytes;
}

/* --- giving it to others --- */

static struct mp_slice lost_error(struct mp_node *n, struct mp_slice node)
{
    char bytes[160];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "node ");
    mp_text_put_slice(&text, node);
    mp_text_put(&text, " does not have the result of an earlier step any more");
    const struct mp_fault fault = {.code = MP_CODE_DATA_LOSS,
                                   .reason = mp_slice_str("RESULT_LOST"),
                                   .message = mp_text_slice(&text),
                                   .node = node};
    return mp_node_error(n, &fault);
}

static struct mp_slice missing_error(struct mp_node *n, struct mp_slice message)
{
    const struct mp_fault fault = {.code = MP_CODE_INVALID_ARGUMENT,
                                   .reason = mp_slice_str("MISSING_FIELD"),
                                   .message = message,
                                   .node = n->catalog.node};
    return mp_node_error(n, &fault);
}

/* The part of a held value; else an ERROR map in `error`. */
static bool cut(struct mp_node *n, const struct mp_node_held *h, struct mp_slice path,
                struct mp_slice *part, struct mp_slice *error)
{
    struct mp_buf message;
    if (path.size == 0) {
        *part = h->payload.bytes;
        return true;
    }
    mp_buf_init(&message, n->alloc, 0);
    bool is_cut = mp_graph_cut(h->payload.bytes, path, part, &message) == MP_OK;
    if (!is_cut)
        *error = missing_error(n, mp_buf_slice(&message));
    mp_buf_fini(&message);
    return is_cut;
}

void mp_node_fetch_frame(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice meta)
{
    struct mp_peer_fetch f;
    struct mp_slice part = {0};
    struct mp_slice error = {0};
    const struct mp_node_held *h = NULL;
    if (mp_peer_fetch_read(meta, &f) == MP_OK)
        h = find(n, f.held);
    bool is_there = h && !h->is_copy && (f.is_late || !h->is_released);
    if (!is_there)
        error = lost_error(n, n->catalog.node);
    is_there = is_there && cut(n, h, f.path, &part, &error);
    mp_node_send_frame(n, client, is_there ? MP_FRAME_RESULT : MP_FRAME_ERROR, id,
                       (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = is_there ? part : error});
}

void mp_node_release_frame(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice meta)
{
    static const uint8_t nil[] = {0xc0};
    struct mp_peer_release r;
    uint32_t coordinator = MP_MEMBER_NONE;
    if (mp_peer_release_read(meta, &r) == MP_OK)
        coordinator = mp_membership_find(n->membership, r.coordinator);
    if (coordinator != MP_MEMBER_NONE)
        mp_node_release_run(n, coordinator, r.run);
    mp_node_send_frame(n, client, MP_FRAME_RESULT, id, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_slice_of(nil, 1)});
}

/* --- filling arguments --- */

/* The holes of arguments, in order; how many, or UINT32_MAX for a malformed one. */
static uint32_t find_holes(struct mp_slice args, struct hole *holes, uint32_t room)
{
    struct mp_mp_reader r = mp_mp_reader_of(args);
    uint32_t count = 0;
    while (!mp_mp_is_at_end(&r)) {
        struct mp_mp_token t;
        struct mp_mp_token part[4];
        struct hole h = {.start = r.at};
        if (mp_mp_next(&r, &t) != MP_OK)
            return UINT32_MAX;
        if (t.type != MP_MP_EXT || t.ext_type != MP_GRAPH_HOLE_EXT)
            continue;
        h.end = r.at;
        struct mp_mp_reader inside = mp_mp_reader_of(t.bytes);
        for (int i = 0; i < 4; i++)
            if (mp_mp_next(&inside, &part[i]) != MP_OK)
                return UINT32_MAX;
        if (part[0].type != MP_MP_ARRAY || part[0].count != 3 || part[1].type != MP_MP_STR ||
            part[2].type != MP_MP_UINT || part[3].type != MP_MP_STR)
            return UINT32_MAX;
        h.node = part[1].bytes;
        h.held = part[2].u;
        h.path = part[3].bytes;
        if (count < room)
            holes[count] = h;
        count++;
    }
    return count;
}

void mp_node_fill_free(struct mp_node *n, struct mp_node_attempt *a)
{
    struct mp_node_fill *f = a->fill;
    if (!f)
        return;
    if (f->previous == MP_NODE_NONE)
        n->fill_first = f->next;
    else
        n->attempts[f->previous].fill->next = f->next;
    if (f->next != MP_NODE_NONE)
        n->attempts[f->next].fill->previous = f->previous;
    mp_buf_fini(&f->bytes);
    mp_alloc_free(n->alloc, f->holes, f->count * sizeof(*f->holes));
    mp_alloc_free(n->alloc, f, sizeof(*f));
    a->fill = NULL;
}

struct mp_slice mp_node_filled(const struct mp_node_attempt *a)
{
    return mp_buf_slice(&a->fill->bytes);
}

static void fail(struct mp_node *n, struct mp_node_attempt *a, struct mp_slice error)
{
    mp_node_fill_free(n, a);
    mp_node_attempt_end(n, a->call, error, false, false);
}

static void fail_memory(struct mp_node *n, struct mp_node_attempt *a)
{
    const struct mp_fault fault = {
        .code = MP_CODE_RESOURCE_EXHAUSTED,
        .reason = mp_slice_str("OUT_OF_MEMORY"),
        .message = mp_slice_str("the node has no memory for the call's arguments"),
        .node = n->catalog.node};
    fail(n, a, mp_node_error(n, &fault));
}

/* What belongs into a hole, if it is still here; else an ERROR map in `error`. It was here when the
 * call began to be filled, but the run may have ended since. */
static bool value_of(struct mp_node *n, const struct hole *h, struct mp_slice *value,
                     struct mp_slice *error)
{
    const struct mp_node_held *held = find(n, h->copy != 0 ? h->copy : h->held);
    if (!held || held->is_copy != (h->copy != 0) || held->payload.bytes.size == 0) {
        *error = lost_error(n, h->node);
        return false;
    }
    if (h->copy == 0)
        return cut(n, held, h->path, value, error);
    *value = held->payload.bytes;
    return true;
}

/* All parts are here: the arguments are put together. */
static void assemble(struct mp_node *n, struct mp_node_attempt *a)
{
    struct mp_node_fill *f = a->fill;
    struct mp_slice args = mp_rpc_get(&n->rpc, a->call)->args.bytes;
    struct mp_slice value;
    struct mp_slice error;
    size_t size = args.size;
    for (uint32_t i = 0; i < f->count; i++) {
        if (!value_of(n, &f->holes[i], &value, &error)) {
            fail(n, a, error);
            return;
        }
        size += value.size;
    }
    if (size > n->cfg.value_bytes_max + MP_FRAME_SLACK_BYTES) {
        const struct mp_fault fault = {
            .code = MP_CODE_RESOURCE_EXHAUSTED,
            .reason = mp_slice_str("TOO_LARGE"),
            .message = mp_slice_str("the arguments are larger than --value-max allows"),
            .node = n->catalog.node};
        fail(n, a, mp_node_error(n, &fault));
        return;
    }
    const uint8_t *from = args.data;
    enum mp_err err = mp_buf_reserve(&f->bytes, size);
    for (uint32_t i = 0; err == MP_OK && i < f->count; i++) {
        const struct hole *h = &f->holes[i];
        (void)value_of(n, h, &value, &error);
        err = mp_buf_append(&f->bytes, mp_slice_of(from, (size_t)(h->start - from)));
        if (err == MP_OK)
            err = mp_buf_append(&f->bytes, value);
        from = h->end;
    }
    if (err == MP_OK)
        err = mp_buf_append(&f->bytes, mp_slice_of(from, (size_t)(args.data + args.size - from)));
    if (err != MP_OK)
        fail_memory(n, a);
    else
        mp_node_put_off(n, MP_NODE_WORK_FILLED, a->call);
}

/* Under what a copy is found: holder, number, path. */
static bool put_key(struct mp_node *n, const struct hole *h, uint32_t coordinator, uint64_t run)
{
    mp_buf_clear(&n->build);
    enum mp_err err = mp_mp_put_uint(&n->build, coordinator);
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, run);
    if (err == MP_OK)
        err = mp_mp_put_str(&n->build, h->node);
    if (err == MP_OK)
        err = mp_mp_put_uint(&n->build, h->held);
    if (err == MP_OK)
        err = mp_mp_put_str(&n->build, h->path);
    return err == MP_OK;
}

/* A copy record under the key in `build`, with a fetch on its way. NULL without memory. */
static struct mp_node_held *fetch(struct mp_node *n, const struct hole *h, uint32_t member,
                                  uint32_t coordinator, uint64_t run)
{
    struct mp_slice key = mp_buf_slice(&n->build);
    uint8_t *own = mp_alloc_take(n->alloc, key.size);
    struct mp_node_held *copy = own ? take_place(n, coordinator, run) : NULL;
    if (!copy) {
        mp_alloc_free(n->alloc, own, key.size);
        return NULL;
    }
    memcpy(own, key.data, key.size);
    copy->key = mp_slice_of(own, key.size);
    copy->is_copy = true;
    uint64_t id = copy->id;
    const struct mp_peer_fetch f = {.held = h->held, .path = h->path};
    struct mp_node_out *o = NULL;
    mp_buf_clear(&n->build);
    if (mp_map_set(&n->copies, copy->key, (uint32_t)id) == MP_OK &&
        mp_peer_fetch_put(&n->build, &f) == MP_OK)
        o = mp_node_out_new(n, MP_NODE_OUT_FETCH, MP_FRAME_FETCH, member, id, 0,
                            (struct mp_slice){0}, mp_buf_slice(&n->build),
                            (struct mp_rpc_payload){0});
    if (!o) {
        free_held(n, copy);
        return NULL;
    }
    mp_node_outs_flush(n, o->link);
    return find(n, id);
}

/* Finds or fetches what a hole wants. False: the attempt has ended. */
static bool fill_hole(struct mp_node *n, struct mp_node_attempt *a, struct hole *h)
{
    const struct mp_rpc_call *c = mp_rpc_get(&n->rpc, a->call);
    bool is_ours = c->origin.kind == MP_RPC_RUN;
    uint32_t coordinator = is_ours ? MP_MEMBER_SELF : a->marks >> MP_NODE_MARKS_BITS;
    uint64_t run = is_ours ? c->origin.owner : a->tag;
    struct mp_slice error;
    uint32_t place;
    if (mp_slice_equal(h->node, n->catalog.node)) {
        struct mp_slice value;
        if (value_of(n, h, &value, &error))
            return true;
        fail(n, a, error);
        return false;
    }
    if (!put_key(n, h, coordinator, run)) {
        fail_memory(n, a);
        return false;
    }
    struct mp_node_held *copy = NULL;
    if (mp_map_get(&n->copies, mp_buf_slice(&n->build), &place)) {
        copy = &n->held[place];
    } else {
        uint32_t member = mp_membership_find(n->membership, h->node);
        if (member == MP_MEMBER_NONE) {
            fail(n, a, lost_error(n, h->node));
            return false;
        }
        copy = fetch(n, h, member, coordinator, run);
        if (!copy) {
            fail_memory(n, a);
            return false;
        }
        a->moves_copy = true;
    }
    h->copy = copy->id;
    a->fill->waiting += copy->payload.bytes.size == 0;
    return true;
}

void mp_node_fill(struct mp_node *n, uint64_t call)
{
    struct mp_node_attempt *a = mp_node_attempt_of(n, call);
    struct mp_slice args = mp_rpc_get(&n->rpc, call)->args.bytes;
    uint32_t count = find_holes(args, NULL, 0);
    struct mp_node_fill *f = NULL;
    if (count <= MP_HOLES_MAX)
        f = mp_alloc_take(n->alloc, sizeof(*f));
    if (f) {
        *f = (struct mp_node_fill){
            .call = call, .next = n->fill_first, .previous = MP_NODE_NONE, .count = count};
        mp_buf_init(&f->bytes, n->alloc, 0);
        f->holes = count != 0 ? mp_alloc_take(n->alloc, count * sizeof(*f->holes)) : NULL;
        if (count != 0 && !f->holes) {
            mp_alloc_free(n->alloc, f, sizeof(*f));
            f = NULL;
        }
    }
    if (!f) {
        if (count > MP_HOLES_MAX) {
            const struct mp_fault fault = {
                .code = MP_CODE_INVALID_ARGUMENT,
                .reason = mp_slice_str("BAD_REQUEST"),
                .message = mp_slice_str("the arguments refer to too many results elsewhere"),
                .node = n->catalog.node};
            fail(n, a, mp_node_error(n, &fault));
        } else {
            fail_memory(n, a);
        }
        return;
    }
    a->fill = f;
    if (f->next != MP_NODE_NONE)
        n->attempts[f->next].fill->previous = (uint32_t)call;
    n->fill_first = (uint32_t)call;
    (void)find_holes(args, f->holes, count);
    for (uint32_t i = 0; i < count; i++)
        if (!fill_hole(n, a, &f->holes[i]))
            return;
    if (f->waiting == 0)
        assemble(n, a);
}

/* Every attempt that waits for a copy: it has it now, or ends with `error`. */
static void settle(struct mp_node *n, uint64_t copy, struct mp_slice error)
{
    for (uint32_t slot = n->fill_first; slot != MP_NODE_NONE;) {
        struct mp_node_attempt *a = &n->attempts[slot];
        struct mp_node_fill *f = a->fill;
        uint32_t waits = 0;
        slot = f->next;
        for (uint32_t i = 0; i < f->count; i++)
            waits += f->holes[i].copy == copy;
        if (waits == 0 || f->bytes.size != 0)
            continue;
        if (error.size != 0) {
            fail(n, a, error);
            continue;
        }
        if (a->moves_copy) {
            a->moved += find(n, copy)->payload.bytes.size;
        }
        f->waiting -= waits;
        if (f->waiting == 0)
            assemble(n, a);
    }
}

void mp_node_fill_answered(struct mp_node *n, struct mp_node_out *o, bool is_error,
                           struct mp_rpc_payload *payload)
{
    struct mp_node_held *copy = find(n, o->owner);
    if (!copy)
        return; /* the run is over */
    if (is_error || payload->bytes.size == 0) {
        struct mp_slice error = mp_node_keep(n, payload->bytes);
        free_held(n, copy);
        settle(n, o->owner,
               error.size != 0 ? error : lost_error(n, mp_node_member_name(n, o->member)));
        return;
    }
    if (!keep(n, copy, payload)) {
        const struct mp_fault fault = {
            .code = MP_CODE_RESOURCE_EXHAUSTED,
            .reason = mp_slice_str("OUT_OF_MEMORY"),
            .message = mp_slice_str("the node has no room for the result of an earlier step"),
            .node = n->catalog.node};
        free_held(n, copy);
        settle(n, o->owner, mp_node_error(n, &fault));
        return;
    }
    settle(n, o->owner, (struct mp_slice){0});
}

void mp_node_fill_lost(struct mp_node *n, struct mp_node_out *o)
{
    struct mp_node_held *copy = find(n, o->owner);
    if (!copy)
        return;
    free_held(n, copy);
    settle(n, o->owner, lost_error(n, mp_node_member_name(n, o->member)));
}
