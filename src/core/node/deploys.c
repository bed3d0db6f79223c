/* Changes of what is live: deploys, rollbacks, undeploys.
 *
 *   client -> deploy          CHECK_UNIT here, then the rules of versions
 *          -> STAGE to all    each checks, keeps and loads the unit beside what it runs; so does
 * this node
 *          -> KEEP_ENTRIES    here: from now on the change has happened
 *          -> SWITCH to all   each keeps the entries and takes up its new release
 *   <- the answer, once all have
 *
 * Until the entries are kept nothing has changed anywhere, whatever fails; afterwards they spread
 * by themselves, whoever dies. A node that is suspect or gone blocks nobody: it hears of the
 * entries when it is back, by the comparison of digests (SYNC), and catches up before it serves. */
#include "src/base/assert.h"
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/unit.h"

int64_t mp_node_wall(const struct mp_node *n, mp_time now)
{
    return n->wall_ms + (int64_t)((now > n->wall_at ? now - n->wall_at : 0) / MP_MS(1));
}

void mp_node_wall_is(struct mp_node *n, mp_time now, int64_t wall_ms)
{
    if (wall_ms == 0)
        return; /* the driver did not look */
    n->wall_ms = wall_ms;
    n->wall_at = now;
}

/* --- life --- */

static uint64_t ticket_of(const struct mp_node *n, const struct mp_node_deploy *d)
{
    return mp_node_ticket(MP_NODE_TICKET_DEPLOY, d->generation, (uint32_t)(d - n->deploys));
}

static struct mp_node_deploy *deploy_of(struct mp_node *n, uint64_t ticket)
{
    uint32_t place = (uint32_t)ticket;
    if (place >= n->deploy_capacity || n->deploys[place].state == MP_NODE_DEPLOY_FREE ||
        ticket_of(n, &n->deploys[place]) != ticket)
        return NULL;
    return &n->deploys[place];
}

static struct mp_node_deploy_member *members_of(const struct mp_node_deploy *d, uint32_t *count)
{
    *count = (uint32_t)(d->members.size / sizeof(struct mp_node_deploy_member));
    return (struct mp_node_deploy_member *)(void *)d->members.data;
}

static void free_deploy(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *members = members_of(d, &count);
    for (uint32_t i = 0; i < count; i++)
        mp_alloc_free(n->alloc, members[i].own_error, members[i].error_size);
    mp_alloc_free(n->alloc, d->own_request, d->request_size);
    mp_alloc_free(n->alloc, d->own_description, d->description_size);
    mp_buf_fini(&d->version);
    mp_buf_fini(&d->members);
    mp_buf_fini(&d->entries);
    mp_buf_fini(&d->was);
    n->deploy_count -= d->state != MP_NODE_DEPLOY_FREE;
    *d = (struct mp_node_deploy){.generation = d->generation + 1};
}

void mp_node_deploys_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->deploy_capacity; i++)
        if (n->deploys[i].state != MP_NODE_DEPLOY_FREE)
            free_deploy(n, &n->deploys[i]);
    mp_alloc_free(n->alloc, n->deploys, n->deploy_capacity * sizeof(*n->deploys));
    mp_buf_fini(&n->asked);
    mp_deploy_free(n->deploy);
}

static struct mp_node_deploy *new_deploy(struct mp_node *n)
{
    uint32_t place = 0;
    if (!mp_node_make_room(n))
        return NULL;
    while (place < n->deploy_capacity && n->deploys[place].state != MP_NODE_DEPLOY_FREE)
        place++;
    if (place == n->deploy_capacity) {
        uint32_t capacity = n->deploy_capacity == 0 ? 4 : n->deploy_capacity * 2;
        if (capacity > MP_DEPLOYS_MAX)
            return NULL;
        void *grown = n->alloc->resize(n->alloc->context, n->deploys,
                                       n->deploy_capacity * sizeof(*n->deploys),
                                       capacity * sizeof(*n->deploys));
        if (!grown)
            return NULL;
        n->deploys = (struct mp_node_deploy *)grown;
        memset(n->deploys + n->deploy_capacity, 0,
               (capacity - n->deploy_capacity) * sizeof(*n->deploys));
        n->deploy_capacity = capacity;
    }
    struct mp_node_deploy *d = &n->deploys[place];
    d->state = MP_NODE_DEPLOY_CHECKING;
    d->began_at = n->now;
    d->until = mp_time_add(n->now, MP_MS(MP_DEPLOY_STAGE_MS));
    mp_buf_init(&d->version, n->alloc, 0);
    mp_buf_init(&d->members, n->alloc, 0);
    mp_buf_init(&d->entries, n->alloc, 0);
    mp_buf_init(&d->was, n->alloc, 0);
    n->deploy_count++;
    return d;
}

/* --- answers --- */

static void answer(struct mp_node *n, struct mp_node_deploy *d, bool is_error,
                   struct mp_slice bytes)
{
    if (d->is_unanswered) {
        free_deploy(n, d);
        return;
    }
    uint8_t frame = is_error ? MP_FRAME_ERROR : MP_FRAME_RESULT;
    if (d->is_peers)
        mp_node_send_frame(n, d->client, frame, d->id, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = bytes});
    else
        mp_node_reply(n, d->client, d->id, frame, bytes);
    free_deploy(n, d);
}

/* `error` is an ERROR map, which gets this node's name if it has none. */
static void refuse(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice error)
{
    answer(n, d, true, mp_node_error_of_call(n, error, MP_RPC_NONE, 0));
}

static void refuse_fault(struct mp_node *n, struct mp_node_deploy *d, const struct mp_fault *fault)
{
    struct mp_fault f = *fault;
    f.node = n->catalog.node;
    answer(n, d, true, mp_node_error(n, &f));
}

static void refuse_text(struct mp_node *n, struct mp_node_deploy *d, enum mp_code code,
                        const char *reason, const char *message)
{
    const struct mp_fault fault = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str(message)};
    refuse_fault(n, d, &fault);
}

static void out_of_memory(struct mp_node *n, struct mp_node_deploy *d)
{
    n->is_out_of_memory = true;
    refuse_text(n, d, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                "the node has no memory for this change");
}

/* --- what a unit holds --- */

static struct mp_slice text_of(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    struct mp_slice text;
    if (mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK &&
        mp_mp_get_str(value, &text) == MP_OK)
        return text;
    return (struct mp_slice){0};
}

/* The name of a unit's module. */
static struct mp_slice name_in(struct mp_slice unit, uint32_t place)
{
    struct mp_slice item;
    struct mp_slice value;
    struct mp_slice name = {0};
    if (mp_mp_array_get(unit, place, &item) == MP_OK && mp_mp_array_get(item, 0, &value) == MP_OK &&
        mp_mp_get_str(value, &name) != MP_OK)
        name = (struct mp_slice){0};
    return name;
}

/* One module of a unit as a wish; false: the description is not one of this unit. */
static bool wish_at(const struct mp_node_deploy *d, uint32_t place, struct mp_deploy_wish *w)
{
    struct mp_slice hash;
    struct mp_slice metadata;
    const struct mp_slice description = mp_slice_of(d->own_description, d->description_size);
    if (!mp_node_unit_describes(description, place, &hash, &metadata))
        return false;
    *w = (struct mp_deploy_wish){.module = name_in(d->unit_bytes, place),
                                 .version = text_of(metadata, "version"),
                                 .hash = hash,
                                 .unit = mp_slice_of(d->hash, sizeof(d->hash)),
                                 .expect = d->expect,
                                 .is_pipeline = mp_slice_is(text_of(metadata, "kind"), "pipeline"),
                                 .is_forced = d->is_forced};
    struct mp_slice own = text_of(metadata, "name");
    if (w->is_pipeline && own.size != 0)
        w->module = own;
    return w->module.size != 0;
}

static uint32_t count_of(struct mp_slice array)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    return mp_mp_get_array(array, &count, &r) == MP_OK ? count : 0;
}

/* Whether the rules allow all of it; else the deploy is refused. */
static bool obeys_rules(struct mp_node *n, struct mp_node_deploy *d)
{
    char message_bytes[512];
    char hint_bytes[256];
    uint32_t count = count_of(d->unit_bytes);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_deploy_wish w;
        struct mp_text message;
        struct mp_text hint;
        struct mp_fault fault = {0};
        mp_text_init(&message, message_bytes, sizeof(message_bytes));
        mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
        if (!wish_at(d, i, &w)) {
            refuse_text(n, d, MP_CODE_INTERNAL, "BAD_DESCRIPTION",
                        "what was said of the code does not belong to it");
            return false;
        }
        if (!mp_deploy_is_allowed(n->deploy, &w, &fault, &message, &hint)) {
            refuse_fault(n, d, &fault);
            return false;
        }
    }
    return true;
}

/* Whether that very content is live already. */
static bool is_unchanged(const struct mp_node *n, const struct mp_node_deploy *d)
{
    uint32_t count = count_of(d->unit_bytes);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_deploy_wish w;
        struct mp_deploy_entry e;
        if (!wish_at(d, i, &w) || !mp_deploy_find(n->deploy, w.module, &e) ||
            e.action == MP_DEPLOY_UNDEPLOY || !mp_slice_equal(e.unit, w.unit) ||
            e.scope != d->scope || !mp_slice_equal(e.nodes, d->nodes))
            return false;
    }
    return true;
}

/* --- the answer to a client --- */

static const char *const member_states[] = {
    [MP_NODE_DEPLOY_ASKED] = "staged",  [MP_NODE_DEPLOY_STAGED] = "staged",
    [MP_NODE_DEPLOY_LIVE] = "live",     [MP_NODE_DEPLOY_FAILED] = "failed",
    [MP_NODE_DEPLOY_BEHIND] = "behind",
};

static enum mp_err put_hex(struct mp_buf *b, const char *key, struct mp_slice bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hex[2 * MP_UNIT_HASH_BYTES];
    MP_TRY(mp_mp_put_text(b, key));
    if (bytes.size == 0 || bytes.size > MP_UNIT_HASH_BYTES)
        return mp_mp_put_nil(b);
    for (size_t i = 0; i < bytes.size; i++) {
        hex[2 * i] = (uint8_t)digits[bytes.data[i] >> 4];
        hex[2 * i + 1] = (uint8_t)digits[bytes.data[i] & 15];
    }
    return mp_mp_put_str(b, mp_slice_of(hex, 2 * bytes.size));
}

/* Five pairs: module, version, hash, previous, kind. What is unchanged was live before. */
static enum mp_err put_change(struct mp_buf *b, const struct mp_deploy_entry *e, bool is_same)
{
    MP_TRY(mp_mp_put_str_pair(b, "module", e->module));
    MP_TRY(mp_mp_put_text(b, "version"));
    MP_TRY(e->version.size != 0 ? mp_mp_put_str(b, e->version) : mp_mp_put_nil(b));
    MP_TRY(put_hex(b, "hash", e->hash));
    MP_TRY(put_hex(b, "previous", is_same ? e->hash : e->previous));
    MP_TRY(mp_mp_put_text(b, "kind"));
    return mp_mp_put_text(b, e->is_pipeline ? "pipeline" : "module");
}

static enum mp_err put_member(struct mp_node *n, struct mp_buf *b,
                              const struct mp_node_deploy_member *m)
{
    MP_TRY(mp_mp_put_map(b, 3));
    MP_TRY(mp_mp_put_str_pair(b, "node", mp_node_member_name(n, m->member)));
    MP_TRY(mp_mp_put_text(b, "state"));
    MP_TRY(mp_mp_put_text(b, member_states[m->state]));
    MP_TRY(mp_mp_put_text(b, "ms"));
    return mp_mp_put_float(b, (double)(m->took / 1000) / 1000.0);
}

/* The nodes in the order of their names. */
static enum mp_err put_members(struct mp_node *n, struct mp_node_deploy *d, struct mp_buf *b)
{
    uint32_t count;
    uint32_t shown = 0;
    struct mp_node_deploy_member *m = members_of(d, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_member_info info;
        if (!mp_membership_get(n->membership, m[i].member, &info))
            m[i].state = MP_NODE_DEPLOY_OUTSIDE; /* it was forgotten meanwhile */
        shown += m[i].state != MP_NODE_DEPLOY_OUTSIDE;
    }
    MP_TRY(mp_mp_put_array(b, shown));
    struct mp_slice last = {0};
    for (; shown != 0; shown--) {
        const struct mp_node_deploy_member *next = NULL;
        struct mp_slice next_name = {0};
        for (uint32_t i = 0; i < count; i++) {
            struct mp_slice name = mp_node_member_name(n, m[i].member);
            if (m[i].state != MP_NODE_DEPLOY_OUTSIDE &&
                (last.size == 0 || mp_slice_compare(name, last) > 0) &&
                (!next || mp_slice_compare(name, next_name) < 0)) {
                next = &m[i];
                next_name = name;
            }
        }
        if (!next)
            return MP_ECORRUPT;
        MP_TRY(put_member(n, b, next));
        last = next_name;
    }
    return MP_OK;
}

/* `entries` are what was made, or what is live already. */
static enum mp_err put_result(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice entries,
                              bool is_same, struct mp_buf *b)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice item;
    struct mp_deploy_entry e;
    MP_TRY(mp_mp_array_get(entries, 0, &item));
    MP_TRY(mp_deploy_read_entry(item, &e));
    MP_TRY(mp_mp_put_map(b, 10));
    MP_TRY(put_change(b, &e, is_same));
    MP_TRY(mp_mp_put_uint_pair(b, "epoch", e.stamp.epoch));
    MP_TRY(mp_mp_put_text(b, "ms"));
    MP_TRY(mp_mp_put_float(b, (double)((n->now - d->began_at) / 1000) / 1000.0));
    MP_TRY(mp_mp_put_text(b, "nodes"));
    MP_TRY(put_members(n, d, b));
    MP_TRY(mp_mp_put_text(b, "modules"));
    MP_TRY(mp_mp_get_array(entries, &count, &r));
    MP_TRY(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < count; i++) {
        MP_TRY(mp_mp_take(&r, &item));
        MP_TRY(mp_deploy_read_entry(item, &e));
        MP_TRY(mp_mp_put_map(b, 5));
        MP_TRY(put_change(b, &e, is_same));
    }
    return mp_mp_put_bool_pair(b, "unchanged", is_same);
}

static void finish(struct mp_node *n, struct mp_node_deploy *d)
{
    struct mp_buf b;
    struct mp_slice kept = {0};
    mp_buf_init(&b, n->alloc, 0);
    if (d->is_peers)
        kept = mp_slice_str("\xc0");
    else if (put_result(n, d, mp_buf_slice(&d->entries), d->is_same, &b) == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&b));
    mp_buf_fini(&b);
    if (kept.size == 0)
        n->is_out_of_memory = true; /* it has happened, and is told with the next sweep */
    else
        answer(n, d, false, kept);
}

/* --- staging --- */

static bool is_listed(struct mp_slice nodes, struct mp_slice name)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(nodes, &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK)
            return false;
        if (t.type == MP_MP_STR && mp_slice_equal(t.bytes, name))
            return true;
    }
    return false;
}

static bool add_member(struct mp_node *n, struct mp_node_deploy *d, uint32_t member,
                       enum mp_node_deploy_member_state state)
{
    struct mp_node_deploy_member m = {.member = member, .state = state};
    if (d->scope != MP_DEPLOY_EVERYWHERE &&
        is_listed(d->nodes, mp_node_member_name(n, member)) != (d->scope == MP_DEPLOY_ONLY))
        m.state = MP_NODE_DEPLOY_OUTSIDE;
    return mp_buf_append(&d->members, mp_slice_of(&m, sizeof(m))) == MP_OK;
}

/* This node and all others that are not known to have left. */
static bool list_members(struct mp_node *n, struct mp_node_deploy *d)
{
    struct mp_member_info info;
    bool is_good = add_member(n, d, MP_MEMBER_SELF, MP_NODE_DEPLOY_ASKED);
    for (uint32_t i = 1; is_good && i < mp_membership_end(n->membership); i++)
        if (mp_membership_get(n->membership, i, &info) && info.state != MP_MEMBER_LEFT)
            is_good = add_member(n, d, i,
                                 info.state == MP_MEMBER_ALIVE ? MP_NODE_DEPLOY_ASKED
                                                               : MP_NODE_DEPLOY_BEHIND);
    return is_good;
}

static bool ask_to_stage(struct mp_node *n, struct mp_node_deploy *d, uint32_t place)
{
    uint32_t count;
    struct mp_node_deploy_member *m = &members_of(d, &count)[place];
    const struct mp_peer_stage s = {.unit = mp_slice_of(d->hash, sizeof(d->hash)),
                                    .flags =
                                        (d->action == MP_DEPLOY_DEPLOY ? MP_STAGE_IS_DEPLOY : 0u) |
                                        (d->is_forced ? MP_STAGE_IS_FORCED : 0u),
                                    .epoch = mp_deploy_next_epoch(n->deploy, d->wall_ms),
                                    .expect = d->expect};
    mp_buf_clear(&n->build);
    if (mp_peer_stage_put(&n->build, &s) != MP_OK)
        return false;
    struct mp_node_out *o =
        mp_node_out_new(n, MP_NODE_OUT_STAGE, MP_FRAME_STAGE, m->member, ticket_of(n, d), place,
                        (struct mp_slice){0}, mp_buf_slice(&n->build),
                        (struct mp_rpc_payload){.bytes = d->unit_bytes});
    if (!o)
        return false;
    m->out = o->id;
    mp_node_outs_flush(n, o->link);
    return true;
}

static void go_on(struct mp_node *n, mp_time now, struct mp_node_deploy *d);

/* The unit is checked, or one that was deployed before: every node is to have it ready. */
static void stage(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *m = members_of(d, &count);
    d->state = MP_NODE_DEPLOY_STAGING;
    d->until = mp_time_add(now, MP_MS(MP_DEPLOY_STAGE_MS));
    if (m[0].state == MP_NODE_DEPLOY_ASKED)
        (void)mp_node_unit_want(n, d->hash, d->unit_bytes,
                                mp_slice_of(d->own_description, d->description_size));
    for (uint32_t i = 1; i < count; i++)
        if (m[i].state == MP_NODE_DEPLOY_ASKED && !ask_to_stage(n, d, i)) {
            out_of_memory(n, d);
            return;
        }
    go_on(n, now, d);
}

static bool set_description(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice bytes)
{
    mp_alloc_free(n->alloc, d->own_description, d->description_size);
    d->description_size = 0;
    d->own_description = mp_alloc_take(n->alloc, bytes.size);
    if (!d->own_description)
        return false;
    memcpy(d->own_description, bytes.data, bytes.size);
    d->description_size = bytes.size;
    return true;
}

static void switch_unchanged(struct mp_node *n, mp_time now, struct mp_node_deploy *d);

static void checked(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    d->has_unit = true;
    if (!d->is_rule_free && !obeys_rules(n, d))
        return;
    if (d->is_peers) {
        d->state = MP_NODE_DEPLOY_STAGING;
        (void)mp_node_unit_want(n, d->hash, d->unit_bytes,
                                mp_slice_of(d->own_description, d->description_size));
        go_on(n, now, d);
        return;
    }
    if (!list_members(n, d))
        out_of_memory(n, d);
    else if (!d->is_forced && is_unchanged(n, d))
        switch_unchanged(n, now, d);
    else
        stage(n, now, d);
}

void mp_node_deploy_checked(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_node_deploy *d = deploy_of(n, ev->stored.ticket);
    if (!d || d->state != MP_NODE_DEPLOY_CHECKING)
        return;
    if (ev->stored.is_error) {
        refuse(n, d, ev->stored.bytes);
    } else if (d->is_peers && memcmp(d->hash, ev->stored.hash, sizeof(d->hash)) != 0) {
        refuse_text(n, d, MP_CODE_DATA_LOSS, "CODE_DIFFERS",
                    "the code that came is not what its hash says");
    } else if (!set_description(n, d, ev->stored.bytes)) {
        out_of_memory(n, d);
    } else {
        memcpy(d->hash, ev->stored.hash, sizeof(d->hash));
        checked(n, now, d);
    }
}

static bool begin_check(struct mp_node *n, struct mp_node_deploy *d)
{
    if (!mp_node_make_room(n))
        return false;
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_CHECK_UNIT);
    e->id = ticket_of(n, d);
    e->release = n->release;
    e->payload.bytes = d->unit_bytes;
    return true;
}

/* --- the change itself --- */

static enum mp_err put_deploy_entries(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count = count_of(d->unit_bytes);
    MP_TRY(mp_mp_put_array(&d->entries, count));
    for (uint32_t i = 0; i < count; i++) {
        char version[MP_VERSION_BYTES_MAX + 16];
        struct mp_text text;
        struct mp_deploy_wish w;
        mp_text_init(&text, version, sizeof(version));
        if (!wish_at(d, i, &w))
            return MP_ECORRUPT;
        MP_TRY(mp_deploy_version(&w, &text));
        struct mp_deploy_entry live;
        bool is_live = !d->is_forced && mp_deploy_find(n->deploy, w.module, &live) &&
                       live.is_pipeline == w.is_pipeline && mp_slice_equal(live.hash, w.hash);
        struct mp_deploy_entry e = {.module = w.module,
                                    .stamp = {.epoch = d->epoch, .node = n->catalog.node},
                                    .action = MP_DEPLOY_DEPLOY,
                                    .is_pipeline = w.is_pipeline,
                                    .is_forced = d->is_forced,
                                    .version = is_live ? live.version : mp_text_slice(&text),
                                    .hash = w.hash,
                                    .unit = w.unit,
                                    .place = i,
                                    .by = d->by,
                                    .scope = d->scope,
                                    .nodes = d->nodes};
        mp_deploy_set_parent(n->deploy, &e);
        MP_TRY(mp_deploy_put_entry(&d->entries, &e));
    }
    return MP_OK;
}

static enum mp_err put_other_entry(struct mp_node *n, struct mp_node_deploy *d)
{
    struct mp_deploy_entry e;
    if (d->action == MP_DEPLOY_ROLLBACK) {
        MP_TRY(mp_deploy_read_entry(mp_buf_slice(&d->version), &e));
        e.origin = e.stamp;
    } else {
        if (!mp_deploy_find(n->deploy, d->module, &e))
            return MP_ENOENT;
        e.version = (struct mp_slice){0};
        e.hash = (struct mp_slice){0};
        e.unit = (struct mp_slice){0};
        e.place = 0;
        e.origin = (struct mp_deploy_stamp){0};
    }
    e.action = d->action;
    e.is_forced = false;
    e.stamp = (struct mp_deploy_stamp){.epoch = d->epoch, .node = n->catalog.node};
    e.by = d->by;
    e.scope = MP_DEPLOY_EVERYWHERE;
    e.nodes = (struct mp_slice){0};
    mp_deploy_set_parent(n->deploy, &e);
    MP_TRY(mp_mp_put_array(&d->entries, 1));
    return mp_deploy_put_entry(&d->entries, &e);
}

static void say_switch(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *m = members_of(d, &count);
    for (uint32_t i = 1; i < count; i++) {
        struct mp_member_info info;
        if (!mp_membership_get(n->membership, m[i].member, &info) || info.state >= MP_MEMBER_DEAD)
            continue;
        struct mp_node_out *o =
            mp_node_out_new(n, MP_NODE_OUT_SWITCH, MP_FRAME_SWITCH, m[i].member, ticket_of(n, d), i,
                            (struct mp_slice){0}, (struct mp_slice){0},
                            (struct mp_rpc_payload){.bytes = mp_buf_slice(&d->entries)});
        if (!o) {
            if (m[i].state == MP_NODE_DEPLOY_STAGED)
                m[i].state = MP_NODE_DEPLOY_BEHIND; /* the next comparison tells it */
            continue;
        }
        m[i].out = o->id;
        mp_node_outs_flush(n, o->link);
    }
}

static enum mp_err make_entries(struct mp_node *n, struct mp_node_deploy *d)
{
    d->epoch = mp_deploy_next_epoch(n->deploy, d->wall_ms);
    mp_buf_clear(&d->entries);
    return d->action == MP_DEPLOY_DEPLOY ? put_deploy_entries(n, d) : put_other_entry(n, d);
}

/* All have it ready: the change is made. */
static void commit(struct mp_node *n, struct mp_node_deploy *d)
{
    if (d->action == MP_DEPLOY_DEPLOY && !obeys_rules(n, d))
        return; /* another deploy was quicker */
    enum mp_err err = make_entries(n, d);
    if (err == MP_EINVAL) {
        refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_VERSION",
                    "its _VERSION is no version such as 1.2.0, or too long");
        return;
    }
    struct mp_slice kept = {0};
    if (err == MP_OK && mp_node_make_room(n))
        kept = mp_node_keep(n, mp_buf_slice(&d->entries));
    if (kept.size == 0) {
        out_of_memory(n, d);
        return;
    }
    d->state = MP_NODE_DEPLOY_KEEPING;
    d->until = MP_NEVER; /* KEPT follows, always */
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_KEEP_ENTRIES);
    e->id = ticket_of(n, d);
    e->payload.bytes = kept;
    if (mp_has_defect(n->cfg.defects, MP_DEFECT_SWITCH_BEFORE_KEEP))
        say_switch(n, d);
}

/* Nothing is made: the entries of what is live are told again. So the answer says who has it, and
 * who had missed it has it then. */
static void switch_unchanged(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count = count_of(d->unit_bytes);
    uint32_t member_count;
    struct mp_node_deploy_member *m = members_of(d, &member_count);
    enum mp_err err = mp_mp_put_array(&d->entries, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_deploy_wish w;
        struct mp_deploy_entry e;
        bool is_there = wish_at(d, i, &w) && mp_deploy_find(n->deploy, w.module, &e);
        mp_assert(is_there);
        err = mp_deploy_put_entry(&d->entries, &e);
    }
    if (err != MP_OK) {
        out_of_memory(n, d);
        return;
    }
    for (uint32_t i = 0; i < member_count; i++)
        if (m[i].state == MP_NODE_DEPLOY_ASKED)
            m[i].state = MP_NODE_DEPLOY_STAGED;
    d->is_same = true;
    d->state = MP_NODE_DEPLOY_SWITCHING;
    d->until = mp_time_add(now, MP_MS(MP_DEPLOY_SWITCH_MS));
    say_switch(n, d);
    go_on(n, now, d);
}

static void log_ahead(struct mp_node *n, const struct mp_deploy_effects *out)
{
    char bytes[256];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "changes of deployed modules are not taken in: their stamps are over 10 s "
                       "ahead of this node's clock, by ");
    mp_text_put_uint(&text, out->ahead_epoch / 1024 - (uint64_t)mp_node_wall(n, n->now));
    mp_text_put(&text, " ms");
    mp_node_log(n, 2, mp_text_slice(&text));
}

static bool are_known_entries(const struct mp_node *n, struct mp_slice entries)
{
    uint32_t count = 0;
    struct mp_mp_reader r;
    if (mp_mp_get_array(entries, &count, &r) != MP_OK)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice item;
        struct mp_deploy_entry e;
        if (mp_mp_take(&r, &item) == MP_OK && mp_deploy_read_entry(item, &e) == MP_OK &&
            !mp_deploy_knows(n->deploy, e.module, &e.stamp))
            return false;
    }
    return true;
}

/* Takes entries in. */
static struct mp_deploy_effects merge(struct mp_node *n, mp_time now, struct mp_slice entries,
                                      bool is_restored)
{
    struct mp_deploy_effects out = {0};
    const struct mp_deploy_event ev = {.kind = is_restored ? MP_DEPLOY_RESTORED : MP_DEPLOY_ENTRIES,
                                       .wall_ms = mp_node_wall(n, now),
                                       .entries = entries};
    if (mp_deploy_step(n->deploy, &ev, &out) != MP_OK)
        n->is_out_of_memory = true;
    if (out.dropped) {
        char bytes[256];
        struct mp_text text;
        mp_text_init(&text, bytes, sizeof(bytes));
        mp_text_put(&text, "a change of deployed modules is left out: ");
        mp_text_put(&text, out.dropped);
        mp_node_log(n, 2, mp_text_slice(&text));
    }
    if (out.ahead_count != 0)
        log_ahead(n, &out);
    return out;
}

static void keep_entries(struct mp_node *n, struct mp_slice entries)
{
    struct mp_slice kept = {0};
    if (mp_node_make_room(n))
        kept = mp_node_keep(n, entries);
    if (kept.size == 0) {
        n->is_unkept = true;
        return;
    }
    struct mp_node_effect *e = mp_node_emit(n, MP_NODE_KEEP_ENTRIES);
    e->id = mp_node_ticket(MP_NODE_TICKET_ENTRIES, 0, 0);
    e->payload.bytes = kept;
}

/* Some entry is not on the disk, and which one is not known: all are kept once more, which does no
 * harm. */
static void keep_again(struct mp_node *n)
{
    bool ignored;
    mp_buf_clear(&n->build);
    enum mp_err err =
        mp_deploy_put_differences(n->deploy, mp_slice_str("\x90"), SIZE_MAX, &n->build, &ignored);
    if (err == MP_ENOMEM) {
        n->is_out_of_memory = true;
        return;
    }
    n->is_unkept = false;
    if (err == MP_OK)
        keep_entries(n, mp_buf_slice(&n->build));
}

void mp_node_deploy_merge(struct mp_node *n, mp_time now, struct mp_slice entries, bool is_restored)
{
    const struct mp_deploy_effects out = merge(n, now, entries, is_restored);
    if (out.new_count == 0)
        return;
    if (out.fresh.size != 0)
        keep_entries(n, out.fresh);
    mp_node_release_refresh(n, now);
}

static void entries_kept(struct mp_node *n, const struct mp_node_event *ev)
{
    struct mp_fault fault;
    if (!ev->stored.is_error)
        return;
    n->is_unkept = true;
    if (mp_fault_read(ev->stored.bytes, &fault) != MP_OK)
        fault.message = mp_slice_str("nobody says why");
    char bytes[512];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put(&text, "changes of deployed modules could not be kept, this is tried again: ");
    mp_text_put_slice(&text, fault.message);
    mp_node_log(n, 3, mp_text_slice(&text));
}

void mp_node_deploy_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_node_deploy *d = deploy_of(n, ev->stored.ticket);
    if (mp_node_ticket_kind(ev->stored.ticket) == MP_NODE_TICKET_ENTRIES)
        entries_kept(n, ev);
    if (!d || d->state != MP_NODE_DEPLOY_KEEPING)
        return;
    if (ev->stored.is_error) {
        /* What another node sent is known here already. */
        n->is_unkept = n->is_unkept || d->is_peers;
        n->has_entries = n->has_entries || d->is_peers;
        refuse(n, d, ev->stored.bytes);
        mp_node_deploys_go_on(n, now);
        return;
    }
    d->state = MP_NODE_DEPLOY_SWITCHING;
    d->until = mp_time_add(now, MP_MS(MP_DEPLOY_SWITCH_MS));
    d->is_unknown = !d->is_peers;
    if (d->is_peers)
        mp_node_release_refresh(n, now);
    mp_node_deploys_go_on(n, now); /* this one, and the next */
}

/* --- going on --- */

static void fail_member(struct mp_node *n, struct mp_node_deploy_member *m, struct mp_slice error)
{
    m->state = MP_NODE_DEPLOY_FAILED;
    m->own_error = mp_alloc_take(n->alloc, error.size);
    if (!m->own_error)
        return;
    memcpy(m->own_error, error.data, error.size);
    m->error_size = error.size;
}

static void fail_late(struct mp_node *n, struct mp_node_deploy_member *m)
{
    const struct mp_fault fault = {
        .code = MP_CODE_DEADLINE_EXCEEDED,
        .reason = mp_slice_str("STAGE_TIMEOUT"),
        .message = mp_slice_str("the node did not have the new code ready within 5 s"),
        .hint = mp_slice_str("--skip leaves a node out"),
        .node = mp_node_member_name(n, m->member)};
    fail_member(n, m, mp_node_error(n, &fault));
}

/* Where this node's own unit stands. */
static void look_at_self(struct mp_node *n, mp_time now, struct mp_node_deploy *d,
                         struct mp_node_deploy_member *self)
{
    const struct mp_node_unit *u = mp_node_unit_find(n, d->hash);
    if (self->state != MP_NODE_DEPLOY_ASKED)
        return;
    if (u && u->state == MP_NODE_UNIT_LOADED) {
        self->state = MP_NODE_DEPLOY_STAGED;
        self->took = now - d->began_at;
    } else if (u && u->state == MP_NODE_UNIT_FAILED) {
        fail_member(n, self, mp_slice_of(u->own_why, u->why_size));
    } else if (!u) {
        fail_late(n, self);
    }
}

/* Whether another change of this node is being kept, which it will have to be compared with. */
static bool must_wait(const struct mp_node *n)
{
    for (uint32_t i = 0; i < n->deploy_capacity; i++)
        if ((n->deploys[i].state == MP_NODE_DEPLOY_KEEPING && !n->deploys[i].is_peers) ||
            n->deploys[i].is_unknown)
            return true;
    return false;
}

static void staging(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *m = members_of(d, &count);
    bool is_whole = true;
    const struct mp_node_deploy_member *failed = NULL;
    look_at_self(n, now, d, &m[0]);
    for (uint32_t i = 0; i < count; i++) {
        if (m[i].state == MP_NODE_DEPLOY_ASKED && now >= d->until)
            fail_late(n, &m[i]);
        is_whole = is_whole && m[i].state != MP_NODE_DEPLOY_ASKED;
        if (m[i].state == MP_NODE_DEPLOY_FAILED && !failed)
            failed = &m[i];
    }
    if (failed && mp_has_defect(n->cfg.defects, MP_DEFECT_ABORT_HALF) &&
        make_entries(n, d) == MP_OK)
        say_switch(n, d);
    if (failed && failed->own_error)
        answer(n, d, true,
               mp_node_error_of_call(n, mp_slice_of(failed->own_error, failed->error_size),
                                     MP_RPC_NONE, 0));
    else if (failed)
        out_of_memory(n, d);
    else if (is_whole && !must_wait(n))
        commit(n, d);
}

static void staging_for_peer(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    const struct mp_node_unit *u = mp_node_unit_find(n, d->hash);
    if (u && u->state == MP_NODE_UNIT_LOADED)
        finish(n, d);
    else if (u && u->state == MP_NODE_UNIT_FAILED)
        refuse(n, d, mp_slice_of(u->own_why, u->why_size));
    else if (!u || now >= d->until)
        refuse_text(n, d, MP_CODE_DEADLINE_EXCEEDED, "STAGE_TIMEOUT",
                    "the node did not have the new code ready within 5 s");
}

/* What this node made and kept becomes known, here and to all. False: there is no memory for it
 * yet. */
static bool make_known(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count;
    const struct mp_deploy_effects out = merge(n, now, mp_buf_slice(&d->entries), true);
    if (!out.dropped && !are_known_entries(n, mp_buf_slice(&d->entries)))
        return false;
    d->is_unknown = false;
    members_of(d, &count)[0].took = now - d->began_at;
    say_switch(n, d);
    return true;
}

static void switching(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count;
    if (d->is_unknown) {
        const uint64_t ticket = ticket_of(n, d);
        if (!make_known(n, now, d))
            return;
        mp_node_release_refresh(n, now);
        d = deploy_of(n, ticket); /* that may have ended it */
        if (!d)
            return;
    }
    struct mp_node_deploy_member *m = members_of(d, &count);
    bool is_here = n->release == n->release_wanted && !n->has_entries;
    bool is_whole = d->is_peers ? is_here || now >= d->until : true;
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 && is_here && m[0].state == MP_NODE_DEPLOY_STAGED)
            m[0].state = MP_NODE_DEPLOY_LIVE;
        if (m[i].state == MP_NODE_DEPLOY_STAGED && now >= d->until)
            m[i].state = MP_NODE_DEPLOY_BEHIND;
        if (m[i].state == MP_NODE_DEPLOY_STAGED &&
            mp_has_defect(n->cfg.defects, MP_DEFECT_LIVE_UNTOLD))
            m[i].state = MP_NODE_DEPLOY_LIVE;
        is_whole = is_whole && m[i].state != MP_NODE_DEPLOY_STAGED;
    }
    if (is_whole)
        finish(n, d);
}

static void go_on(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    switch (d->state) {
    case MP_NODE_DEPLOY_CHECKING:
    case MP_NODE_DEPLOY_KEEPING:
    case MP_NODE_DEPLOY_FREE:
        break;
    case MP_NODE_DEPLOY_STAGING:
        if (d->is_peers)
            staging_for_peer(n, now, d);
        else
            staging(n, now, d);
        break;
    case MP_NODE_DEPLOY_SWITCHING:
        switching(n, now, d);
        break;
    }
}

void mp_node_deploys_go_on(struct mp_node *n, mp_time now)
{
    for (uint32_t i = 0; n->deploy_count != 0 && i < n->deploy_capacity; i++)
        go_on(n, now, &n->deploys[i]);
}

void mp_node_deploy_answered(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_deploy *d = deploy_of(n, w->call);
    uint32_t count;
    if (!d)
        return;
    struct mp_node_deploy_member *m = members_of(d, &count);
    if (w->fetch >= count)
        return;
    m = &m[w->fetch];
    m->out = 0;
    if (d->state == MP_NODE_DEPLOY_STAGING && m->state == MP_NODE_DEPLOY_ASKED) {
        m->took = now - d->began_at;
        if (w->is_lost)
            m->state = MP_NODE_DEPLOY_BEHIND;
        else if (w->has_begun) /* it answered with an error */
            fail_member(n, m, w->payload);
        else
            m->state = MP_NODE_DEPLOY_STAGED;
    } else if (d->state == MP_NODE_DEPLOY_SWITCHING && m->state == MP_NODE_DEPLOY_STAGED) {
        m->took = now - d->began_at;
        m->state = w->is_lost || w->has_begun ? MP_NODE_DEPLOY_BEHIND : MP_NODE_DEPLOY_LIVE;
    }
    go_on(n, now, d);
}

void mp_node_deploys_member(struct mp_node *n, mp_time now, uint32_t member)
{
    struct mp_member_info info;
    if (n->deploy_count == 0 || !mp_membership_get(n->membership, member, &info) ||
        info.state == MP_MEMBER_ALIVE)
        return;
    for (uint32_t i = 0; i < n->deploy_capacity; i++) {
        uint32_t count;
        struct mp_node_deploy *d = &n->deploys[i];
        struct mp_node_deploy_member *m = members_of(d, &count);
        bool is_any = false;
        if (d->state == MP_NODE_DEPLOY_FREE)
            continue;
        for (uint32_t k = 1; k < count; k++)
            if (m[k].member == member &&
                (m[k].state == MP_NODE_DEPLOY_ASKED || m[k].state == MP_NODE_DEPLOY_STAGED)) {
                m[k].state = MP_NODE_DEPLOY_BEHIND;
                is_any = true;
            }
        if (is_any)
            go_on(n, now, d);
    }
}

void mp_node_deploys_client_gone(struct mp_node *n, uint64_t client)
{
    struct mp_node_asked *list = (struct mp_node_asked *)(void *)n->asked.data;
    uint32_t count = (uint32_t)(n->asked.size / sizeof(*list));
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].client != client)
            list[left++] = list[i];
    n->asked.size = left * sizeof(*list);
    for (uint32_t i = 0; n->deploy_count != 0 && i < n->deploy_capacity; i++)
        if (n->deploys[i].client == client)
            n->deploys[i].is_unanswered = true;
}

/* --- what another node asks for --- */

static bool own_request(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice a,
                        struct mp_slice b, struct mp_slice *own_a, struct mp_slice *own_b)
{
    size_t size = a.size + b.size + 1;
    uint8_t *bytes = mp_alloc_take(n->alloc, size);
    if (!bytes)
        return false;
    if (a.size != 0)
        memcpy(bytes, a.data, a.size);
    if (b.size != 0)
        memcpy(bytes + a.size, b.data, b.size);
    d->own_request = bytes;
    d->request_size = size;
    *own_a = mp_slice_of(bytes, a.size);
    *own_b = mp_slice_of(bytes + a.size, b.size);
    return true;
}

static void peer_error(struct mp_node *n, const struct mp_node_event *ev, enum mp_code code,
                       const char *reason, const char *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = n->catalog.node};
    mp_node_send_frame(n, ev->frame.client, MP_FRAME_ERROR, ev->frame.id, (struct mp_slice){0},
                       (struct mp_rpc_payload){.bytes = mp_node_error(n, &fault)});
}

static bool is_ahead(struct mp_node *n, mp_time now, uint64_t epoch, struct mp_text *text)
{
    uint64_t wall = (uint64_t)mp_node_wall(n, now);
    if (epoch / 1024 <= wall + MP_DEPLOY_AHEAD_MS)
        return false;
    mp_text_put(text, "the clock of the node that deploys is ");
    mp_text_put_uint(text, epoch / 1024 - wall);
    mp_text_put(text, " ms ahead of the one here: ");
    mp_text_put_uint(text, epoch / 1024);
    mp_text_put(text, " there, ");
    mp_text_put_uint(text, wall);
    mp_text_put(text, " here (Unix ms)");
    return true;
}

void mp_node_stage_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_peer_stage s;
    struct mp_slice expect;
    struct mp_slice unit = ev->frame.payload.bytes;
    char bytes[256];
    struct mp_text text;
    const char *why;
    uint32_t count;
    struct mp_mp_reader r;
    mp_text_init(&text, bytes, sizeof(bytes));
    if (mp_peer_stage_read(ev->frame.meta, &s) != MP_OK ||
        (unit.size != 0 && mp_unit_open(unit, &count, &r, &why) != MP_OK)) {
        peer_error(n, ev, MP_CODE_INVALID_ARGUMENT, "BAD_REQUEST", "a STAGE is malformed");
        return;
    }
    if (is_ahead(n, now, s.epoch, &text)) {
        peer_error(n, ev, MP_CODE_FAILED_PRECONDITION, "CLOCK_SKEW", bytes);
        return;
    }
    struct mp_node_deploy *d = new_deploy(n);
    if (!d || !own_request(n, d, s.expect, unit, &expect, &unit)) {
        if (d)
            free_deploy(n, d);
        peer_error(n, ev, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                   "the node has as many deploys as it takes at once");
        return;
    }
    d->is_peers = true;
    d->client = ev->frame.client;
    d->id = ev->frame.id;
    d->expect = expect;
    d->unit_bytes = unit;
    d->is_forced = (s.flags & MP_STAGE_IS_FORCED) != 0;
    d->is_rule_free = (s.flags & MP_STAGE_IS_DEPLOY) == 0 || unit.size == 0;
    memcpy(d->hash, s.unit.data, sizeof(d->hash));
    const struct mp_node_unit *u = mp_node_unit_find(n, d->hash);
    if (unit.size == 0 || (u && u->state == MP_NODE_UNIT_LOADED)) {
        if (unit.size != 0 &&
            !set_description(n, d, mp_slice_of(u->own_description, u->description_size)))
            out_of_memory(n, d);
        else
            checked(n, now, d);
    } else if (!begin_check(n, d)) {
        out_of_memory(n, d);
    }
}

void mp_node_switch_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_node_deploy *d = new_deploy(n);
    const struct mp_deploy_effects out = merge(n, now, ev->frame.payload.bytes, false);
    const struct mp_slice fresh = out.fresh;
    const uint32_t ahead = out.ahead_count;
    struct mp_slice kept = {0};
    n->has_entries = n->has_entries || fresh.size != 0; /* until they are kept */
    if (d && fresh.size != 0 && mp_node_make_room(n))
        kept = mp_node_keep(n, fresh);
    if (!d || ahead != 0 || (fresh.size != 0 && kept.size == 0)) {
        if (d)
            free_deploy(n, d);
        peer_error(n, ev, ahead != 0 ? MP_CODE_FAILED_PRECONDITION : MP_CODE_RESOURCE_EXHAUSTED,
                   ahead != 0 ? "CLOCK_SKEW" : "QUEUE_FULL",
                   ahead != 0 ? "the stamps are ahead of this node's clock"
                              : "the node has as many deploys as it takes at once");
        n->is_unkept = n->is_unkept || fresh.size != 0;
        return;
    }
    d->is_peers = true;
    d->client = ev->frame.client;
    d->id = ev->frame.id;
    d->until = MP_NEVER;
    if (fresh.size != 0) {
        d->state = MP_NODE_DEPLOY_KEEPING;
        struct mp_node_effect *e = mp_node_emit(n, MP_NODE_KEEP_ENTRIES);
        e->id = ticket_of(n, d);
        e->payload.bytes = kept;
        return;
    }
    d->state = MP_NODE_DEPLOY_SWITCHING;
    d->until = mp_time_add(now, MP_MS(MP_DEPLOY_SWITCH_MS));
    go_on(n, now, d);
}

/* --- comparing with others --- */

static void send_stage(struct mp_node *n, uint32_t link, uint64_t stage, enum mp_err err)
{
    struct mp_slice bytes = {0};
    if (err == MP_OK)
        bytes = mp_node_keep(n, mp_buf_slice(&n->build));
    if (bytes.size != 0)
        mp_node_send_frame(n, n->links[link].client, MP_FRAME_SYNC, stage, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = bytes});
}

void mp_node_deploy_summary(struct mp_node *n, uint32_t link, uint64_t stage)
{
    mp_buf_clear(&n->build);
    send_stage(n, link, stage, mp_deploy_put_summary(n->deploy, &n->build));
}

void mp_node_deploy_sync(struct mp_node *n, mp_time now, uint32_t link, uint64_t stage,
                         struct mp_slice payload)
{
    bool differs = false;
    if (stage == 6) {
        mp_node_deploy_merge(n, now, payload, false);
        return;
    }
    mp_buf_clear(&n->build);
    enum mp_err err =
        mp_deploy_put_differences(n->deploy, payload, MP_HAVE_BYTES_MAX, &n->build, &differs);
    send_stage(n, link, 6, err);
    if (err != MP_ECORRUPT && differs && stage == 5)
        mp_node_deploy_summary(n, link, 7);
}

/* --- time --- */

mp_time mp_node_code_deadline(const struct mp_node *n)
{
    return n->code_at;
}

/* There is something to look at again. */
static void wake(struct mp_node *n, mp_time at)
{
    n->code_at = at < n->code_at ? at : n->code_at;
}

void mp_node_code_tick(struct mp_node *n, mp_time now)
{
    if (n->code_at <= now) {
        n->code_at = MP_NEVER;
        mp_node_releases_sweep(n, now);
        mp_node_units_sweep(n, now);
        mp_node_deploys_go_on(n, now);
        if (n->is_unkept)
            keep_again(n);
    }
    if (n->code_at == MP_NEVER && (n->deploy_count != 0 || n->is_unkept ||
                                   !mp_node_releases_are_idle(n) || !mp_node_units_are_idle(n)))
        wake(n, mp_time_add(now, MP_MS(MP_CODE_SWEEP_MS)));
}

/* --- queries --- */

static bool read_nodes(struct mp_slice options, const char *key, struct mp_slice *nodes,
                       uint32_t *count)
{
    struct mp_mp_reader r;
    *count = 0;
    if (mp_mp_map_get(options, mp_slice_str(key), nodes) != MP_OK ||
        mp_mp_type_of(*nodes) == MP_MP_NIL)
        return true;
    if (mp_mp_get_array(*nodes, count, &r) != MP_OK || *count > MP_DEPLOY_NODES_MAX)
        return false;
    for (uint32_t i = 0; i < *count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK || t.type != MP_MP_STR || !mp_slice_is_name(t.bytes))
            return false;
    }
    return true;
}

/* All nodes that are named are known; else the deploy is refused. */
static bool are_known(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (d->nodes.size == 0 || mp_mp_get_array(d->nodes, &count, &r) != MP_OK)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK)
            return false;
        if (mp_slice_equal(t.bytes, n->catalog.node) ||
            mp_membership_find(n->membership, t.bytes) != MP_MEMBER_NONE)
            continue;
        const struct mp_catalog_query q = {.fun = mp_slice_str("mpreg.node"), .on = t.bytes};
        answer(n, d, true, mp_node_explain(n, &q));
        return false;
    }
    return true;
}

static bool flag_of(struct mp_slice options, const char *key)
{
    struct mp_slice value;
    bool flag = false;
    return mp_mp_map_get(options, mp_slice_str(key), &value) == MP_OK &&
           mp_mp_get_bool(value, &flag) == MP_OK && flag;
}

static struct mp_node_deploy *begin(struct mp_node *n, const struct mp_node_event *ev,
                                    struct mp_slice *options)
{
    struct mp_node_deploy *d = n->is_draining ? NULL : new_deploy(n);
    if (n->is_draining) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNAVAILABLE, "DRAINING",
                       "the node is about to stop");
        return NULL;
    }
    if (!d || !own_request(n, d, *options, ev->request.payload.bytes, options, &d->unit_bytes)) {
        if (d)
            free_deploy(n, d);
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "QUEUE_FULL", "the node has as many deploys as it takes at once");
        return NULL;
    }
    d->client = ev->request.client;
    d->id = ev->request.id;
    d->wall_ms = mp_node_wall(n, n->now);
    d->by = text_of(*options, "by");
    if (d->by.size > MP_DEPLOY_BY_BYTES_MAX || !mp_slice_is_utf8(d->by))
        d->by = (struct mp_slice){0};
    d->module = text_of(*options, "module");
    return d;
}

static void begin_deploy(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice options)
{
    uint32_t only;
    uint32_t skip;
    uint32_t count = 0;
    struct mp_mp_reader r;
    struct mp_slice only_nodes = {0};
    struct mp_slice skip_nodes = {0};
    const char *why = "only and skip are lists of at most 64 names of nodes";
    struct mp_node_deploy *d = begin(n, ev, &options);
    if (!d)
        return;
    d->expect = text_of(options, "expect");
    d->is_forced = flag_of(options, "force");
    if (!read_nodes(options, "only", &only_nodes, &only) ||
        !read_nodes(options, "skip", &skip_nodes, &skip) || (only != 0 && skip != 0)) {
        refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION", why);
        return;
    }
    d->scope = only != 0 ? MP_DEPLOY_ONLY : skip != 0 ? MP_DEPLOY_SKIP : MP_DEPLOY_EVERYWHERE;
    d->nodes = only != 0 ? only_nodes : skip != 0 ? skip_nodes : (struct mp_slice){0};
    if (mp_unit_open(d->unit_bytes, &count, &r, &why) != MP_OK)
        refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_UNIT", why);
    else if (d->expect.size != 0 && count != 1)
        refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION",
                    "--expect is for a deploy of one module");
    else if (are_known(n, d) && !begin_check(n, d))
        out_of_memory(n, d);
}

static void begin_rollback(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                           struct mp_slice options)
{
    char message_bytes[512];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault = {0};
    struct mp_deploy_entry target;
    struct mp_node_deploy *d = begin(n, ev, &options);
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    if (!d)
        return;
    d->action = MP_DEPLOY_ROLLBACK;
    d->is_rule_free = true;
    d->unit_bytes = (struct mp_slice){0};
    if (!mp_deploy_rollback_target(n->deploy, d->module, text_of(options, "to"), &target, &fault,
                                   &message, &hint)) {
        refuse_fault(n, d, &fault);
        return;
    }
    memcpy(d->hash, target.unit.data, sizeof(d->hash));
    d->has_unit = true;
    if (mp_deploy_put_entry(&d->version, &target) != MP_OK || !list_members(n, d))
        out_of_memory(n, d);
    else
        stage(n, now, d);
}

static bool is_live(const struct mp_node *n, struct mp_slice module, struct mp_deploy_entry *e)
{
    return mp_deploy_find(n->deploy, module, e) && e->action != MP_DEPLOY_UNDEPLOY;
}

/* The fault for a module that was never deployed, with the nearest name. */
static void put_unknown(struct mp_node *n, struct mp_slice module, const char *what,
                        struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    struct mp_deploy_entry e;
    if (!mp_deploy_find(n->deploy, module, &e) &&
        !mp_deploy_rollback_target(n->deploy, module, (struct mp_slice){0}, &e, fault, message,
                                   hint))
        return;
    *fault = (struct mp_fault){.code = MP_CODE_NOT_FOUND, .reason = mp_slice_str("NOT_DEPLOYED")};
    mp_text_init(message, message->data, message->capacity);
    mp_text_put_slice(message, module);
    mp_text_put(message, what);
    fault->message = mp_text_slice(message);
}

static void begin_undeploy(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                           struct mp_slice options)
{
    char message_bytes[512];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault = {0};
    struct mp_deploy_entry e;
    uint32_t count;
    struct mp_node_deploy *d = begin(n, ev, &options);
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    if (!d)
        return;
    d->action = MP_DEPLOY_UNDEPLOY;
    d->is_rule_free = true;
    d->unit_bytes = (struct mp_slice){0};
    if (!is_live(n, d->module, &e)) {
        put_unknown(n, d->module, " is not deployed now", &fault, &message, &hint);
        refuse_fault(n, d, &fault);
        return;
    }
    if (!list_members(n, d)) {
        out_of_memory(n, d);
        return;
    }
    struct mp_node_deploy_member *m = members_of(d, &count);
    for (uint32_t i = 0; i < count; i++)
        if (m[i].state == MP_NODE_DEPLOY_ASKED)
            m[i].state = MP_NODE_DEPLOY_STAGED; /* there is nothing to have ready */
    d->state = MP_NODE_DEPLOY_STAGING;
    go_on(n, now, d);
}

static void history(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice options)
{
    char message_bytes[512];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault = {0};
    struct mp_buf b;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_deploy_put_history(n->deploy, text_of(options, "module"), &b);
    if (err == MP_OK) {
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_RESULT,
                      mp_node_keep(n, mp_buf_slice(&b)));
    } else if (err == MP_ENOENT) {
        put_unknown(n, text_of(options, "module"), " was never deployed", &fault, &message, &hint);
        fault.node = n->catalog.node;
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR,
                      mp_node_error(n, &fault));
    } else {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory to answer");
    }
    mp_buf_fini(&b);
}

/* The unit is read from the store; see mp_node_source_found. */
static void source(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice options)
{
    char message_bytes[512];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault = {0};
    struct mp_deploy_entry e;
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    struct mp_slice module = text_of(options, "module");
    if (!is_live(n, module, &e)) {
        put_unknown(n, module, " is not deployed now", &fault, &message, &hint);
        fault.node = n->catalog.node;
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR,
                      mp_node_error(n, &fault));
        return;
    }
    const struct mp_node_asked asked = {.client = ev->request.client,
                                        .id = ev->request.id,
                                        .ticket = ++n->reads,
                                        .source_place = e.place + 1};
    if (!mp_node_make_room(n) ||
        mp_buf_append(&n->asked, mp_slice_of(&asked, sizeof(asked))) != MP_OK) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory to answer");
        return;
    }
    struct mp_node_effect *effect = mp_node_emit(n, MP_NODE_READ_UNIT);
    effect->id = mp_node_ticket(MP_NODE_TICKET_READ, 0, (uint32_t)asked.ticket);
    effect->payload.bytes = mp_node_keep(n, e.unit);
}

static enum mp_err put_source(struct mp_buf *b, struct mp_slice unit, uint32_t place)
{
    struct mp_slice item;
    struct mp_slice name;
    struct mp_slice text;
    MP_TRY(mp_mp_array_get(unit, place, &item));
    MP_TRY(mp_mp_array_get(item, 0, &name));
    MP_TRY(mp_mp_array_get(item, 1, &text));
    MP_TRY(mp_mp_put_map(b, 2));
    MP_TRY(mp_mp_put_text(b, "module"));
    MP_TRY(mp_mp_put_raw(b, name));
    MP_TRY(mp_mp_put_text(b, "source"));
    return mp_mp_put_raw(b, text);
}

void mp_node_source_found(struct mp_node *n, const struct mp_node_asked *asked,
                          const struct mp_node_event *ev)
{
    struct mp_buf b;
    struct mp_slice kept = {0};
    mp_buf_init(&b, n->alloc, 0);
    if (!ev->stored.is_missing && !ev->stored.is_error &&
        put_source(&b, ev->stored.bytes, asked->source_place - 1) == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&b));
    mp_buf_fini(&b);
    if (kept.size != 0)
        mp_node_reply(n, asked->client, asked->id, MP_FRAME_RESULT, kept);
    else
        mp_node_refuse(n, asked->client, asked->id, MP_CODE_DATA_LOSS, "NO_CODE",
                       "this node has not kept the source; ask another one");
}

bool mp_node_deploy_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                          struct mp_slice what, struct mp_slice options)
{
    if (mp_slice_is(what, "deploy"))
        begin_deploy(n, ev, options);
    else if (mp_slice_is(what, "rollback"))
        begin_rollback(n, now, ev, options);
    else if (mp_slice_is(what, "undeploy"))
        begin_undeploy(n, now, ev, options);
    else if (mp_slice_is(what, "history"))
        history(n, ev, options);
    else if (mp_slice_is(what, "source"))
        source(n, ev, options);
    else
        return false;
    return true;
}
