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
#include "src/core/node/deploys_internal.h"
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

struct mp_node_deploy_member *mp_node_deploy_members(const struct mp_node_deploy *d,
                                                     uint32_t *count)
{
    *count = (uint32_t)(d->members.size / sizeof(struct mp_node_deploy_member));
    return (struct mp_node_deploy_member *)(void *)d->members.data;
}

void mp_node_deploy_free(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *members = mp_node_deploy_members(d, &count);
    for (uint32_t i = 0; i < count; i++)
        mp_alloc_free(n->alloc, members[i].own_error, members[i].error_size);
    mp_alloc_free(n->alloc, d->own_request, d->request_size);
    mp_alloc_free(n->alloc, d->own_description, d->description_size);
    mp_buf_fini(&d->version);
    mp_buf_fini(&d->members);
    mp_buf_fini(&d->entries);
    n->deploy_count -= d->state != MP_NODE_DEPLOY_FREE;
    *d = (struct mp_node_deploy){.generation = d->generation + 1};
}

void mp_node_deploys_fini(struct mp_node *n)
{
    for (uint32_t i = 0; i < n->deploy_capacity; i++)
        if (n->deploys[i].state != MP_NODE_DEPLOY_FREE)
            mp_node_deploy_free(n, &n->deploys[i]);
    mp_alloc_free(n->alloc, n->deploys, n->deploy_capacity * sizeof(*n->deploys));
    mp_buf_fini(&n->asked);
    mp_deploy_free(n->deploy);
}

struct mp_node_deploy *mp_node_deploy_new(struct mp_node *n)
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
    n->deploy_count++;
    return d;
}

/* --- answers --- */

void mp_node_deploy_answer(struct mp_node *n, struct mp_node_deploy *d, bool is_error,
                           struct mp_slice bytes)
{
    if (d->is_unanswered) {
        mp_node_deploy_free(n, d);
        return;
    }
    uint8_t frame = is_error ? MP_FRAME_ERROR : MP_FRAME_RESULT;
    if (d->is_peers)
        mp_node_send_frame(n, d->client, frame, d->id, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = bytes});
    else
        mp_node_reply(n, d->client, d->id, frame, bytes);
    mp_node_deploy_free(n, d);
}

/* `error` is an ERROR map, which gets this node's name if it has none. */
void mp_node_deploy_refuse(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice error)
{
    mp_node_deploy_answer(n, d, true, mp_node_error_of_call(n, error, MP_RPC_NONE, 0));
}

void mp_node_deploy_refuse_fault(struct mp_node *n, struct mp_node_deploy *d,
                                 const struct mp_fault *fault)
{
    struct mp_fault f = *fault;
    f.node = n->catalog.node;
    mp_node_deploy_answer(n, d, true, mp_node_error(n, &f));
}

void mp_node_deploy_refuse_text(struct mp_node *n, struct mp_node_deploy *d, enum mp_code code,
                                const char *reason, const char *message)
{
    const struct mp_fault fault = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str(message)};
    mp_node_deploy_refuse_fault(n, d, &fault);
}

void mp_node_deploy_no_memory(struct mp_node *n, struct mp_node_deploy *d)
{
    n->is_out_of_memory = true;
    mp_node_deploy_refuse_text(n, d, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                               "the node has no memory for this change");
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
bool mp_node_deploy_list(struct mp_node *n, struct mp_node_deploy *d)
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
    struct mp_node_deploy_member *m = &mp_node_deploy_members(d, &count)[place];
    const struct mp_peer_stage s = {.unit = mp_slice_of(d->hash, sizeof(d->hash)),
                                    .flags =
                                        (d->action == MP_DEPLOY_DEPLOY ? MP_STAGE_IS_DEPLOY : 0u) |
                                        (d->action == MP_DEPLOY_UNDEPLOY ? MP_STAGE_IS_EMPTY : 0u) |
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

/* The unit is checked, or one that was deployed before: every node is to have it ready. */
void mp_node_deploy_stage(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
    d->state = MP_NODE_DEPLOY_STAGING;
    d->until = mp_time_add(now, MP_MS(MP_DEPLOY_STAGE_MS));
    if (m[0].state == MP_NODE_DEPLOY_ASKED)
        (void)mp_node_unit_want(n, d->hash, d->unit_bytes,
                                mp_slice_of(d->own_description, d->description_size));
    for (uint32_t i = 1; i < count; i++)
        if (m[i].state == MP_NODE_DEPLOY_ASKED && !ask_to_stage(n, d, i)) {
            mp_node_deploy_no_memory(n, d);
            return;
        }
    mp_node_deploy_go_on(n, now, d);
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
    if (!d->is_rule_free && !mp_node_deploy_obeys(n, d))
        return;
    if (d->is_peers) {
        d->state = MP_NODE_DEPLOY_STAGING;
        (void)mp_node_unit_want(n, d->hash, d->unit_bytes,
                                mp_slice_of(d->own_description, d->description_size));
        mp_node_deploy_go_on(n, now, d);
        return;
    }
    if (!mp_node_deploy_list(n, d))
        mp_node_deploy_no_memory(n, d);
    else if (!d->is_forced && mp_node_deploy_is_unchanged(n, d))
        switch_unchanged(n, now, d);
    else
        mp_node_deploy_stage(n, now, d);
}

void mp_node_deploy_checked(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_node_deploy *d = deploy_of(n, ev->stored.ticket);
    if (!d || d->state != MP_NODE_DEPLOY_CHECKING)
        return;
    if (ev->stored.is_error) {
        mp_node_deploy_refuse(n, d, ev->stored.bytes);
    } else if (d->is_peers && memcmp(d->hash, ev->stored.hash, sizeof(d->hash)) != 0) {
        mp_node_deploy_refuse_text(n, d, MP_CODE_DATA_LOSS, "CODE_DIFFERS",
                                   "the code that came is not what its hash says");
    } else if (!set_description(n, d, ev->stored.bytes)) {
        mp_node_deploy_no_memory(n, d);
    } else {
        memcpy(d->hash, ev->stored.hash, sizeof(d->hash));
        checked(n, now, d);
    }
}

bool mp_node_deploy_check(struct mp_node *n, struct mp_node_deploy *d)
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
    uint32_t count = mp_node_count_of(d->unit_bytes);
    MP_TRY(mp_mp_put_array(&d->entries, count));
    for (uint32_t i = 0; i < count; i++) {
        char version[MP_VERSION_BYTES_MAX + 16];
        struct mp_text text;
        struct mp_deploy_wish w;
        mp_text_init(&text, version, sizeof(version));
        if (!mp_node_deploy_wish(d, i, &w))
            return MP_ECORRUPT;
        MP_TRY(mp_deploy_version(&w, &text));
        struct mp_deploy_entry live;
        bool is_live = !d->is_forced && mp_deploy_find(n->deploy, w.module, w.is_pipeline, &live) &&
                       mp_slice_equal(live.hash, w.hash);
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

/* `e`: the entry that is to be live again, or that is live and is to be no more. */
static enum mp_err put_other_entry(struct mp_node *n, struct mp_node_deploy *d,
                                   struct mp_deploy_entry e)
{
    if (d->action == MP_DEPLOY_ROLLBACK) {
        e.origin = e.stamp;
    } else {
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
    return mp_deploy_put_entry(&d->entries, &e);
}

static enum mp_err put_other_entries(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_mp_reader r;
    MP_TRY(mp_mp_get_array(mp_buf_slice(&d->version), &count, &r));
    MP_TRY(mp_mp_put_array(&d->entries, count));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice item;
        struct mp_deploy_entry e;
        MP_TRY(mp_mp_take(&r, &item));
        MP_TRY(mp_deploy_read_entry(item, &e));
        MP_TRY(put_other_entry(n, d, e));
    }
    return MP_OK;
}

static void say_switch(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
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
    return d->action == MP_DEPLOY_DEPLOY ? put_deploy_entries(n, d) : put_other_entries(n, d);
}

/* All have it ready: the change is made. */
static void commit(struct mp_node *n, struct mp_node_deploy *d)
{
    if (d->action == MP_DEPLOY_DEPLOY && !mp_node_deploy_obeys(n, d))
        return; /* another deploy was quicker */
    enum mp_err err = make_entries(n, d);
    if (err == MP_EINVAL) {
        mp_node_deploy_refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_VERSION",
                                   "its _VERSION is no version such as 1.2.0, or too long");
        return;
    }
    struct mp_slice kept = {0};
    if (err == MP_OK && mp_node_make_room(n))
        kept = mp_node_keep(n, mp_buf_slice(&d->entries));
    if (kept.size == 0) {
        mp_node_deploy_no_memory(n, d);
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
    uint32_t count = mp_node_count_of(d->unit_bytes);
    uint32_t member_count;
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &member_count);
    enum mp_err err = mp_mp_put_array(&d->entries, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_deploy_wish w;
        struct mp_deploy_entry e;
        bool is_there =
            mp_node_deploy_wish(d, i, &w) && mp_deploy_find(n->deploy, w.module, w.is_pipeline, &e);
        mp_assert(is_there);
        err = mp_deploy_put_entry(&d->entries, &e);
    }
    if (err != MP_OK) {
        mp_node_deploy_no_memory(n, d);
        return;
    }
    for (uint32_t i = 0; i < member_count; i++)
        if (m[i].state == MP_NODE_DEPLOY_ASKED)
            m[i].state = MP_NODE_DEPLOY_STAGED;
    d->is_same = true;
    d->state = MP_NODE_DEPLOY_SWITCHING;
    d->until = mp_time_add(now, MP_MS(MP_DEPLOY_SWITCH_MS));
    say_switch(n, d);
    mp_node_deploy_go_on(n, now, d);
}

void mp_node_deploy_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_node_deploy *d = deploy_of(n, ev->stored.ticket);
    if (mp_node_ticket_kind(ev->stored.ticket) == MP_NODE_TICKET_ENTRIES)
        mp_node_entries_kept(n, ev);
    if (!d || d->state != MP_NODE_DEPLOY_KEEPING)
        return;
    if (ev->stored.is_error) {
        /* What another node sent is known here already. */
        n->is_unkept = n->is_unkept || d->is_peers;
        n->has_entries = n->has_entries || d->is_peers;
        mp_node_deploy_refuse(n, d, ev->stored.bytes);
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
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
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
        mp_node_deploy_answer(
            n, d, true,
            mp_node_error_of_call(n, mp_slice_of(failed->own_error, failed->error_size),
                                  MP_RPC_NONE, 0));
    else if (failed)
        mp_node_deploy_no_memory(n, d);
    else if (is_whole && !must_wait(n))
        commit(n, d);
}

static void staging_for_peer(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    const struct mp_node_unit *u = mp_node_unit_find(n, d->hash);
    if (u && u->state == MP_NODE_UNIT_LOADED)
        mp_node_deploy_finish(n, d);
    else if (u && u->state == MP_NODE_UNIT_FAILED)
        mp_node_deploy_refuse(n, d, mp_slice_of(u->own_why, u->why_size));
    else if (!u || now >= d->until)
        mp_node_deploy_refuse_text(n, d, MP_CODE_DEADLINE_EXCEEDED, "STAGE_TIMEOUT",
                                   "the node did not have the new code ready within 5 s");
}

/* What this node made and kept becomes known, here and to all. False: there is no memory for it
 * yet. */
static bool make_known(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
{
    uint32_t count;
    const struct mp_deploy_effects out =
        mp_node_entries_merge(n, now, mp_buf_slice(&d->entries), true);
    if (!out.dropped && !mp_node_entries_are_known(n, mp_buf_slice(&d->entries)))
        return false;
    d->is_unknown = false;
    mp_node_deploy_members(d, &count)[0].took = now - d->began_at;
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
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
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
        mp_node_deploy_finish(n, d);
}

void mp_node_deploy_go_on(struct mp_node *n, mp_time now, struct mp_node_deploy *d)
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
        mp_node_deploy_go_on(n, now, &n->deploys[i]);
}

void mp_node_deploy_answered(struct mp_node *n, mp_time now, const struct mp_node_work *w)
{
    struct mp_node_deploy *d = deploy_of(n, w->call);
    uint32_t count;
    if (!d)
        return;
    struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
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
    mp_node_deploy_go_on(n, now, d);
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
        struct mp_node_deploy_member *m = mp_node_deploy_members(d, &count);
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
            mp_node_deploy_go_on(n, now, d);
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

bool mp_node_deploy_own(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice a,
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
    if ((s.flags & MP_STAGE_IS_EMPTY) != 0) {
        mp_node_send_frame(n, ev->frame.client, MP_FRAME_RESULT, ev->frame.id, (struct mp_slice){0},
                           (struct mp_rpc_payload){.bytes = mp_slice_str("\xc0")});
        return;
    }
    struct mp_node_deploy *d = mp_node_deploy_new(n);
    if (!d || !mp_node_deploy_own(n, d, s.expect, unit, &expect, &unit)) {
        if (d)
            mp_node_deploy_free(n, d);
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
            mp_node_deploy_no_memory(n, d);
        else
            checked(n, now, d);
    } else if (!mp_node_deploy_check(n, d)) {
        mp_node_deploy_no_memory(n, d);
    }
}

void mp_node_switch_frame(struct mp_node *n, mp_time now, const struct mp_node_event *ev)
{
    struct mp_node_deploy *d = mp_node_deploy_new(n);
    const struct mp_deploy_effects out =
        mp_node_entries_merge(n, now, ev->frame.payload.bytes, false);
    const struct mp_slice fresh = out.fresh;
    const uint32_t ahead = out.ahead_count;
    struct mp_slice kept = {0};
    n->has_entries = n->has_entries || fresh.size != 0; /* until they are kept */
    if (d && fresh.size != 0 && mp_node_make_room(n))
        kept = mp_node_keep(n, fresh);
    if (!d || ahead != 0 || (fresh.size != 0 && kept.size == 0)) {
        if (d)
            mp_node_deploy_free(n, d);
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
    mp_node_deploy_go_on(n, now, d);
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
            mp_node_entries_keep_again(n);
    }
    if (n->code_at == MP_NEVER && (n->deploy_count != 0 || n->is_unkept ||
                                   !mp_node_releases_are_idle(n) || !mp_node_units_are_idle(n)))
        wake(n, mp_time_add(now, MP_MS(MP_CODE_SWEEP_MS)));
}
