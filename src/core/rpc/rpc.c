/* The table of calls. See rpc.h for the states.
 *
 * A call's arguments are copied in when it begins (small ones in place), because whoever sent them
 * may be gone when an attempt has to be repeated; payloads in shared blocks are kept by handle.
 * Cancelling walks the tree of children with a work list threaded through the calls themselves: no
 * recursion, no memory. Owners (clients, worker incarnations) are few: a short array of list heads.
 *
 * A call that is not wanted any more stays where it hangs in the tree until its attempt and all
 * below it have ended. So what goes on below a call is what hangs there, and the end of a leaf is
 * looked at upwards, call by call: whoever is over by it is freed, or answered if it was ENDING. */
#include "src/core/rpc/rpc.h"

#include "src/base/assert.h"
#include "src/base/defects.h"
#include "src/base/limits.h"

/* The calls of one client, worker incarnation or run, oldest first. The low 32 bits of an owner's
 * number are its place, the high ones tell whether it is still the same. */
struct mp_rpc_owner {
    uint64_t number;
    uint32_t first;
    uint32_t last;
};

static bool may_move(enum mp_rpc_state from, enum mp_rpc_state to)
{
    static const uint8_t allowed[] = {
        [MP_RPC_FREE] = 1 << MP_RPC_WAITING | 1 << MP_RPC_ACTIVE,
        [MP_RPC_WAITING] = 1 << MP_RPC_ACTIVE | 1 << MP_RPC_ZOMBIE,
        [MP_RPC_ACTIVE] = 1 << MP_RPC_PAUSED | 1 << MP_RPC_ENDING | 1 << MP_RPC_ZOMBIE,
        [MP_RPC_PAUSED] = 1 << MP_RPC_ACTIVE | 1 << MP_RPC_ENDING | 1 << MP_RPC_ZOMBIE,
        [MP_RPC_ENDING] = 1 << MP_RPC_ZOMBIE,
        [MP_RPC_ZOMBIE] = 1 << MP_RPC_FREE,
    };
    return (allowed[from] >> to & 1) != 0;
}

static void call_move(struct mp_rpc_call *c, enum mp_rpc_state to)
{
    mp_assert(may_move(c->state, to));
    c->state = to;
}

static uint32_t slot_of(uint64_t call)
{
    return (uint32_t)call;
}

static struct mp_rpc_call *find(const struct mp_rpc *r, uint64_t id)
{
    uint32_t slot = slot_of(id);
    if (slot >= r->capacity || !r->calls[slot] || r->calls[slot]->id != id ||
        r->calls[slot]->state == MP_RPC_FREE)
        return NULL;
    return r->calls[slot];
}

const struct mp_rpc_call *mp_rpc_get(const struct mp_rpc *r, uint64_t call)
{
    return find(r, call);
}

static struct mp_rpc_owner *find_owner(const struct mp_rpc *r, const struct mp_rpc_origin *origin)
{
    const struct mp_rpc_owners *owners = &r->owners[origin->kind];
    uint32_t place = (uint32_t)origin->owner;
    if (place >= owners->capacity || owners->items[place].number != origin->owner)
        return NULL;
    return &owners->items[place];
}

const struct mp_rpc_call *mp_rpc_next(const struct mp_rpc *r, uint32_t *slot)
{
    while (*slot < r->capacity) {
        const struct mp_rpc_call *c = r->calls[(*slot)++];
        if (c && c->state != MP_RPC_FREE)
            return c;
    }
    return NULL;
}

const struct mp_rpc_call *mp_rpc_next_waiting(const struct mp_rpc *r, uint32_t *slot)
{
    while (*slot < r->capacity) {
        const struct mp_rpc_call *c = r->calls[(*slot)++];
        if (c && c->state == MP_RPC_WAITING)
            return c;
    }
    return NULL;
}

static struct mp_rpc_effect *emit(struct mp_rpc *r, enum mp_rpc_effect_kind kind, uint64_t call)
{
    mp_assert(r->effect_count < r->effect_capacity);
    struct mp_rpc_effect *e = &r->effects[r->effect_count++];
    e->kind = kind;
    e->call = call;
    return e;
}

/* Each call that is alive can at most be abandoned or kept, answered or dropped, and release a
 * block in one step. */
static enum mp_err reserve_effects(struct mp_rpc *r, uint32_t wanted)
{
    if (wanted <= r->effect_capacity)
        return MP_OK;
    uint32_t capacity = r->effect_capacity == 0 ? 64 : r->effect_capacity;
    while (capacity < wanted)
        capacity *= 2;
    void *grown =
        r->alloc->resize(r->alloc->context, r->effects, r->effect_capacity * sizeof(*r->effects),
                         capacity * sizeof(*r->effects));
    if (!grown)
        return MP_ENOMEM;
    r->effects = (struct mp_rpc_effect *)grown;
    r->effect_capacity = capacity;
    return MP_OK;
}

/* --- the table --- */

static enum mp_err grow(struct mp_rpc *r)
{
    uint32_t capacity = r->capacity == 0 ? 256 : r->capacity * 2;
    struct mp_rpc_call **calls =
        r->alloc->resize(r->alloc->context, r->calls, r->capacity * sizeof(struct mp_rpc_call *),
                         capacity * sizeof(struct mp_rpc_call *));
    if (!calls)
        return MP_ENOMEM;
    r->calls = calls;
    memset(calls + r->capacity, 0, (capacity - r->capacity) * sizeof(struct mp_rpc_call *));
    uint32_t *places = r->alloc->resize(
        r->alloc->context, r->places, r->capacity * sizeof(uint32_t), capacity * sizeof(uint32_t));
    if (!places) {
        /* The longer list of calls keeps its old meaning: the rest of it is never looked at. */
        void *back =
            r->alloc->resize(r->alloc->context, calls, capacity * sizeof(struct mp_rpc_call *),
                             r->capacity * sizeof(struct mp_rpc_call *));
        r->calls = back ? (struct mp_rpc_call **)back : calls;
        if (r->capacity == 0)
            r->calls = NULL;
        return MP_ENOMEM;
    }
    r->places = places;
    for (uint32_t i = r->capacity; i < capacity; i++)
        places[i] = MP_HEAP_NONE;
    r->capacity = capacity;
    return MP_OK;
}

/* A free call, or NULL. Its number gets a new generation. */
static struct mp_rpc_call *take_slot(struct mp_rpc *r)
{
    uint32_t slot = r->free_first;
    if (slot != MP_RPC_NONE) {
        r->free_first = r->calls[slot]->next_owned;
    } else {
        slot = r->used;
        if (slot == r->capacity && grow(r) != MP_OK)
            return NULL;
        r->calls[slot] = mp_alloc_take(r->alloc, sizeof(struct mp_rpc_call));
        if (!r->calls[slot])
            return NULL;
        r->calls[slot]->id = slot;
        r->calls[slot]->state = MP_RPC_FREE;
    }
    r->used++;
    struct mp_rpc_call *c = r->calls[slot];
    c->id += 1ull << 32;
    return c;
}

static void give_slot(struct mp_rpc *r, struct mp_rpc_call *c)
{
    c->next_owned = r->free_first;
    r->free_first = slot_of(c->id);
    r->used--;
}

/* --- owners --- */

static struct mp_rpc_owner *take_owner(struct mp_rpc *r, const struct mp_rpc_origin *origin)
{
    struct mp_rpc_owners *owners = &r->owners[origin->kind];
    uint32_t place = (uint32_t)origin->owner;
    if (place >= owners->capacity) {
        uint32_t capacity = owners->capacity == 0 ? 16 : owners->capacity;
        while (capacity <= place)
            capacity *= 2;
        void *grown = r->alloc->resize(r->alloc->context, owners->items,
                                       owners->capacity * sizeof(*owners->items),
                                       capacity * sizeof(*owners->items));
        if (!grown)
            return NULL;
        owners->items = (struct mp_rpc_owner *)grown;
        for (uint32_t i = owners->capacity; i < capacity; i++)
            owners->items[i] = (struct mp_rpc_owner){
                .number = UINT64_MAX, .first = MP_RPC_NONE, .last = MP_RPC_NONE};
        owners->capacity = capacity;
    }
    struct mp_rpc_owner *o = &owners->items[place];
    if (o->number != origin->owner) {
        /* The one before it is gone, and took its calls along. */
        mp_assert(o->first == MP_RPC_NONE);
        o->number = origin->owner;
    }
    return o;
}

static void own(struct mp_rpc *r, struct mp_rpc_call *c, struct mp_rpc_owner *o)
{
    c->previous_owned = o->last;
    c->next_owned = MP_RPC_NONE;
    if (o->last == MP_RPC_NONE)
        o->first = slot_of(c->id);
    else
        r->calls[o->last]->next_owned = slot_of(c->id);
    o->last = slot_of(c->id);
    c->is_owned = true;
}

static void disown(struct mp_rpc *r, struct mp_rpc_call *c)
{
    if (!c->is_owned)
        return;
    struct mp_rpc_owner *o = find_owner(r, &c->origin);
    mp_assert(o);
    if (c->previous_owned == MP_RPC_NONE)
        o->first = c->next_owned;
    else
        r->calls[c->previous_owned]->next_owned = c->next_owned;
    if (c->next_owned == MP_RPC_NONE)
        o->last = c->previous_owned;
    else
        r->calls[c->next_owned]->previous_owned = c->previous_owned;
    c->is_owned = false;
}

/* --- the tree --- */

static void adopt(struct mp_rpc *r, struct mp_rpc_call *c, struct mp_rpc_call *parent)
{
    c->parent = slot_of(parent->id);
    c->next_sibling = parent->first_child;
    c->previous_sibling = MP_RPC_NONE;
    if (parent->first_child != MP_RPC_NONE)
        r->calls[parent->first_child]->previous_sibling = slot_of(c->id);
    parent->first_child = slot_of(c->id);
}

static void orphan(struct mp_rpc *r, struct mp_rpc_call *c)
{
    if (c->parent == MP_RPC_NONE)
        return;
    if (c->previous_sibling == MP_RPC_NONE)
        r->calls[c->parent]->first_child = c->next_sibling;
    else
        r->calls[c->previous_sibling]->next_sibling = c->next_sibling;
    if (c->next_sibling != MP_RPC_NONE)
        r->calls[c->next_sibling]->previous_sibling = c->previous_sibling;
    c->parent = MP_RPC_NONE;
}

/* --- ends --- */

/* When the call's timer is due in the state that it is in. */
static mp_time timer_of(const struct mp_rpc_call *c)
{
    if (c->state == MP_RPC_ENDING)
        return c->resume_at;
    if (c->state == MP_RPC_PAUSED)
        return c->resume_at < c->deadline ? c->resume_at : c->deadline;
    return c->state == MP_RPC_ACTIVE ? c->attempt_deadline : c->deadline;
}

static void set_timer(struct mp_rpc *r, struct mp_rpc_call *c)
{
    uint32_t slot = slot_of(c->id);
    mp_time at = timer_of(c);
    if (c->timer_at == at && r->places[slot] != MP_HEAP_NONE)
        return;
    c->timer_at = at;
    /* Room was made when the call began, and it is never in there twice. */
    enum mp_err err = mp_heap_set(&r->timers, r->places, slot, at);
    mp_assert(err == MP_OK);
}

static void drop_args(struct mp_rpc *r, struct mp_rpc_call *c)
{
    if (c->args.handle != 0)
        emit(r, MP_RPC_RELEASE, c->id)->handle = c->args.handle;
    mp_alloc_free(r->alloc, c->own_bytes, c->own_bytes_size);
    c->args = (struct mp_rpc_payload){0};
    c->context = (struct mp_slice){0};
    c->query = (struct mp_slice){0};
    c->own_bytes = NULL;
    c->own_bytes_size = 0;
}

/* The call is not wanted any more: it leaves its owner and the timers, and its attempt, if one is
 * under way, is abandoned. Its children are put on `*chain`; what of them has ended is looked at
 * when they come up. */
static void retire(struct mp_rpc *r, struct mp_rpc_call *c, uint32_t *chain)
{
    disown(r, c);
    r->waiting -= c->state == MP_RPC_WAITING;
    mp_heap_remove(&r->timers, r->places, slot_of(c->id));
    mp_assert(r->live > 0);
    r->live--;
    for (uint32_t slot = c->first_child; slot != MP_RPC_NONE; slot = r->calls[slot]->next_sibling) {
        struct mp_rpc_call *child = r->calls[slot];
        if (child->state == MP_RPC_ZOMBIE)
            continue;
        disown(r, child);
        child->next_owned = *chain;
        *chain = slot;
    }
    if (c->state == MP_RPC_ACTIVE && !c->is_attempt_over && !c->is_timed_out)
        emit(r, MP_RPC_ABANDON, c->id);
    if (c->is_kept)
        emit(r, MP_RPC_DROP, c->id);
    if (c->is_attempt_over)
        drop_args(r, c);
    call_move(c, MP_RPC_ZOMBIE);
}

static void give_answer(struct mp_rpc *r, struct mp_rpc_call *c, enum mp_rpc_answer how);

/* Whether the call is over; then it is freed, or answered, and what it hung on is looked at. Calls
 * that are ENDING hang on nothing. */
static void look(struct mp_rpc *r, struct mp_rpc_call *c)
{
    while (c && c->is_attempt_over && c->first_child == MP_RPC_NONE) {
        if (c->state == MP_RPC_ENDING)
            give_answer(r, c, c->pending);
        if (c->state != MP_RPC_ZOMBIE)
            return;
        struct mp_rpc_call *parent = c->parent == MP_RPC_NONE ? NULL : r->calls[c->parent];
        if (parent)
            parent->is_unsure = parent->is_unsure || c->is_unsure;
        orphan(r, c);
        call_move(c, MP_RPC_FREE);
        give_slot(r, c);
        c = parent;
    }
}

/* Retires everything on the chain, and what hangs on that: a call before its children. */
static void retire_chain(struct mp_rpc *r, uint32_t chain)
{
    while (chain != MP_RPC_NONE) {
        struct mp_rpc_call *c = r->calls[chain];
        chain = c->next_owned;
        retire(r, c, &chain);
        look(r, c);
    }
}

static void retire_all(struct mp_rpc *r, struct mp_rpc_call *c)
{
    uint32_t chain = MP_RPC_NONE;
    retire(r, c, &chain);
    retire_chain(r, chain);
}

/* What the call asked for is not wanted any more; what is not over by that goes on below it. */
static void cancel_children(struct mp_rpc *r, struct mp_rpc_call *c)
{
    uint32_t chain = MP_RPC_NONE;
    for (uint32_t slot = c->first_child; slot != MP_RPC_NONE; slot = r->calls[slot]->next_sibling) {
        struct mp_rpc_call *child = r->calls[slot];
        if (child->state == MP_RPC_ZOMBIE)
            continue;
        disown(r, child);
        child->next_owned = chain;
        chain = slot;
    }
    retire_chain(r, chain);
}

/* The answer as things stand. The call is a ZOMBIE then, not looked at yet. */
static void give_answer(struct mp_rpc *r, struct mp_rpc_call *c, enum mp_rpc_answer how)
{
    bool is_last = c->attempt_deadline < c->deadline &&
                   (c->state == MP_RPC_ACTIVE || c->state == MP_RPC_ENDING);
    mp_duration timeout = c->deadline == MP_NEVER ? 0 : c->deadline - c->begun_at;
    struct mp_rpc_effect *e = emit(r, MP_RPC_ANSWER, c->id);
    e->answer.answer = how;
    e->answer.origin = c->origin;
    e->answer.function = c->target.function;
    e->answer.attempt = c->attempt;
    e->answer.has_begun = c->has_begun;
    e->answer.timeout = is_last ? c->attempt_deadline - c->submitted_at : timeout;
    c->is_kept = false;
    retire_all(r, c);
    e->answer.is_confirmed = c->is_attempt_over && c->first_child == MP_RPC_NONE && !c->is_unsure;
    if (how == MP_RPC_CANCELLED && mp_has_defect(r->defects, MP_DEFECT_CONFIRM_AT_ONCE))
        e->answer.is_confirmed = true;
}

static void answer(struct mp_rpc *r, struct mp_rpc_call *c, enum mp_rpc_answer how)
{
    give_answer(r, c, how);
    look(r, c);
}

/* Answers once nothing of the call runs any more; now, if that is so. */
static void end(struct mp_rpc *r, struct mp_rpc_call *c, enum mp_rpc_answer how, mp_time latest)
{
    if (c->state == MP_RPC_ENDING)
        return;
    cancel_children(r, c);
    bool is_over = c->is_attempt_over && c->first_child == MP_RPC_NONE;
    if (is_over || mp_has_defect(r->defects, MP_DEFECT_CONFIRM_AT_ONCE)) {
        answer(r, c, how);
        return;
    }
    if (!c->is_attempt_over && !c->is_timed_out)
        emit(r, MP_RPC_ABANDON, c->id);
    call_move(c, MP_RPC_ENDING);
    c->pending = how;
    c->resume_at = latest;
    set_timer(r, c);
}

/* What a function gave is the answer. It is kept for a while if calls were left behind, of which
 * the caller counts on hearing that they have ended: another node, and a run that was cancelled,
 * may try again, or may be cancelled before the rest of the step is done. */
static void finish(struct mp_rpc *r, struct mp_rpc_call *c, enum mp_rpc_answer how, mp_time now)
{
    bool is_run = c->origin.kind == MP_RPC_RUN;
    bool is_counted = c->origin.kind == MP_RPC_PEER ||
                      (is_run && (how == MP_RPC_ERROR || c->state == MP_RPC_ENDING || c->is_part));
    cancel_children(r, c);
    if (!is_counted || c->first_child == MP_RPC_NONE) {
        answer(r, c, how);
        return;
    }
    emit(r, MP_RPC_KEEP, c->id);
    c->is_kept = true;
    if (c->state != MP_RPC_ENDING)
        call_move(c, MP_RPC_ENDING);
    c->pending = how;
    c->resume_at = mp_time_add(now, MP_MS(MP_LEFT_BEHIND_MS_MAX));
    if (is_run && c->deadline < c->resume_at)
        c->resume_at = c->deadline;
    set_timer(r, c);
}

/* --- attempts --- */

/* The earlier of the call's deadline and the function's own limit on an attempt that begins now. */
static mp_time attempt_deadline(mp_time now, mp_time deadline, mp_duration timeout)
{
    mp_time own = timeout != 0 ? mp_time_add(now, timeout) : MP_NEVER;
    return own < deadline ? own : deadline;
}

static void submit(struct mp_rpc *r, struct mp_rpc_call *c, mp_time now)
{
    call_move(c, MP_RPC_ACTIVE);
    c->is_attempt_over = false;
    c->attempt++;
    c->submitted_at = now;
    c->attempt_deadline = attempt_deadline(now, c->deadline, c->target.timeout);
    set_timer(r, c);
    emit(r, MP_RPC_SUBMIT, c->id);
}

/* Doubled each time, and drawn from the upper half, so that those who failed together do not come
 * back together. */
static mp_duration next_pause(struct mp_rpc *r, struct mp_rpc_call *c)
{
    c->backoff = c->backoff == 0 ? MP_MS(MP_BACKOFF_MS) : c->backoff * 2;
    if (c->backoff > MP_MS(MP_BACKOFF_MS_MAX))
        c->backoff = MP_MS(MP_BACKOFF_MS_MAX);
    return c->backoff / 2 + mp_rng_below(&r->rng, c->backoff / 2 + 1);
}

/* Whether another attempt is allowed and still makes sense before the deadline; then it is set up.
 */
static bool pause_for_retry(struct mp_rpc *r, struct mp_rpc_call *c, mp_time now)
{
    if (c->retries == 0)
        return false;
    mp_time at = mp_time_add(now, next_pause(r, c));
    if (at >= c->deadline)
        return false;
    c->retries--;
    c->resume_at = at;
    call_move(c, MP_RPC_PAUSED);
    cancel_children(r, c);
    set_timer(r, c);
    return true;
}

/* Nobody took it, and its caller waits for somebody who does: that costs no retry. */
static bool pause_for_provider(struct mp_rpc *r, struct mp_rpc_call *c, mp_time now)
{
    c->backoff = 0;
    mp_time at = mp_time_add(now, next_pause(r, c));
    if (!c->is_patient || c->has_begun || at >= c->deadline)
        return false;
    c->attempt--;
    c->resume_at = at;
    call_move(c, MP_RPC_PAUSED);
    set_timer(r, c);
    return true;
}

/* --- events --- */

/* Copies args (unless in a shared block), context and query behind each other. */
static enum mp_err copy_in(struct mp_rpc *r, struct mp_rpc_call *c, const struct mp_rpc_event *ev)
{
    const struct mp_rpc_payload *args = &ev->begin.args;
    size_t args_size = args->handle != 0 ? 0 : args->bytes.size;
    size_t total = args_size + ev->begin.context.size + ev->begin.query.size;
    uint8_t *at = c->in_place;
    c->own_bytes = NULL;
    c->own_bytes_size = 0;
    if (total > MP_RPC_INLINE_BYTES) {
        at = mp_alloc_take(r->alloc, total);
        if (!at)
            return MP_ENOMEM;
        c->own_bytes = at;
        c->own_bytes_size = total;
    }
    c->args = *args;
    if (args->handle == 0) {
        if (args_size != 0)
            memcpy(at, args->bytes.data, args_size);
        c->args.bytes = mp_slice_of(at, args_size);
    }
    at += args_size;
    if (ev->begin.context.size != 0)
        memcpy(at, ev->begin.context.data, ev->begin.context.size);
    c->context = mp_slice_of(at, ev->begin.context.size);
    at += ev->begin.context.size;
    if (ev->begin.query.size != 0)
        memcpy(at, ev->begin.query.data, ev->begin.query.size);
    c->query = mp_slice_of(at, ev->begin.query.size);
    return MP_OK;
}

static enum mp_err begin(struct mp_rpc *r, mp_time now, const struct mp_rpc_event *ev,
                         uint64_t *begun)
{
    struct mp_rpc_call *parent = NULL;
    /* Room for the effects of any later step, so that none of them can fail. */
    enum mp_err err = reserve_effects(r, 8 + 3 * (r->live + 1));
    if (err != MP_OK)
        return err;
    if (ev->begin.target.function == MP_RPC_NONE && r->waiting >= r->waiting_max)
        return MP_EFULL;
    if (ev->begin.parent != 0) {
        parent = find(r, ev->begin.parent);
        mp_assert(parent && parent->state == MP_RPC_ACTIVE);
    }
    struct mp_rpc_owner *owner = take_owner(r, &ev->begin.origin);
    struct mp_rpc_call *c = owner ? take_slot(r) : NULL;
    if (!c)
        return MP_ENOMEM;
    /* A place in the heap of timers is made now, so that setting it can never fail. */
    err = copy_in(r, c, ev);
    if (err == MP_OK) {
        c->timer_at = attempt_deadline(now, ev->begin.deadline, ev->begin.target.timeout);
        err = mp_heap_set(&r->timers, r->places, slot_of(c->id), c->timer_at);
        if (err != MP_OK)
            mp_alloc_free(r->alloc, c->own_bytes, c->own_bytes_size);
    }
    if (err != MP_OK) {
        give_slot(r, c);
        return err;
    }
    c->origin = ev->begin.origin;
    c->target = ev->begin.target;
    c->deadline = ev->begin.deadline;
    c->retries = ev->begin.retries;
    c->is_patient = ev->begin.is_patient;
    c->is_part = ev->begin.is_part;
    c->depth = ev->begin.depth;
    c->marks = ev->begin.marks;
    c->release = ev->begin.release;
    c->tag = ev->begin.tag;
    c->begun_at = now;
    c->attempt = 0;
    c->backoff = 0;
    c->has_begun = false;
    c->was_rerun = false;
    c->first_child = MP_RPC_NONE;
    c->parent = MP_RPC_NONE;
    c->is_timed_out = false;
    c->is_attempt_over = true;
    c->is_unsure = false;
    c->is_kept = false;
    own(r, c, owner);
    if (parent)
        adopt(r, c, parent);
    r->live++;
    *begun = c->id;
    if (c->target.function == MP_RPC_NONE) {
        call_move(c, MP_RPC_WAITING);
        r->waiting++;
    } else {
        submit(r, c, now);
    }
    return MP_OK;
}

/* The attempt of a call that is not wanted any more is over. If its function had ended before it
 * heard of that, its result is the answer all the same. */
static void ended(struct mp_rpc *r, struct mp_rpc_call *c, mp_time now,
                  const struct mp_rpc_event *ev)
{
    bool is_result = ev->kind == MP_RPC_OUTCOME && !ev->outcome.is_error;
    if (c->state == MP_RPC_ENDING && is_result) {
        finish(r, c, MP_RPC_RESULT, now);
        return;
    }
    if (c->state == MP_RPC_ZOMBIE)
        drop_args(r, c);
    look(r, c);
}

static void outcome(struct mp_rpc *r, mp_time now, const struct mp_rpc_event *ev)
{
    struct mp_rpc_call *c = find(r, ev->call);
    mp_assert(c && !c->is_attempt_over);
    c->is_attempt_over = true;
    c->is_unsure = c->is_unsure || ev->outcome.is_unsure;
    c->has_begun = c->has_begun || ev->outcome.has_begun;
    if (c->state != MP_RPC_ACTIVE) {
        ended(r, c, now, ev);
        return;
    }
    if (c->is_timed_out) {
        c->is_timed_out = false;
        if (!pause_for_retry(r, c, now))
            answer(r, c, MP_RPC_DEADLINE);
        return;
    }
    if (!ev->outcome.is_error) {
        finish(r, c, MP_RPC_RESULT, now);
        return;
    }
    if (ev->outcome.is_neighbour && c->target.is_idempotent && !c->was_rerun) {
        c->was_rerun = true;
        cancel_children(r, c);
        call_move(c, MP_RPC_PAUSED);
        submit(r, c, now);
        return;
    }
    if (ev->outcome.is_absent && pause_for_provider(r, c, now))
        return;
    if (ev->outcome.is_retryable && pause_for_retry(r, c, now))
        return;
    finish(r, c, MP_RPC_ERROR, now);
}

static void timer(struct mp_rpc *r, struct mp_rpc_call *c, mp_time now)
{
    if (c->state == MP_RPC_ENDING) {
        answer(r, c, c->pending);
    } else if (c->state == MP_RPC_PAUSED && now >= c->resume_at && now < c->deadline) {
        submit(r, c, now);
    } else if (c->state == MP_RPC_ACTIVE && now < c->deadline && c->retries > 0 &&
               !c->is_timed_out) {
        /* Only this attempt's time is up: it has to end before the next one may begin. */
        c->is_timed_out = true;
        c->attempt_deadline = c->deadline;
        set_timer(r, c);
        emit(r, MP_RPC_ABANDON, c->id);
    } else if (c->origin.kind == MP_RPC_PEER && c->state != MP_RPC_WAITING) {
        end(r, c, MP_RPC_DEADLINE, MP_NEVER);
    } else {
        answer(r, c, MP_RPC_DEADLINE);
    }
}

static void cancel(struct mp_rpc *r, struct mp_rpc_call *c)
{
    if (c->origin.kind == MP_RPC_RUN)
        end(r, c, MP_RPC_CANCELLED, c->deadline);
    else if (c->origin.kind == MP_RPC_PEER)
        end(r, c, MP_RPC_CANCELLED, MP_NEVER);
    else
        answer(r, c, MP_RPC_CANCELLED);
}

static void cancel_origin(struct mp_rpc *r, const struct mp_rpc_origin *origin)
{
    const struct mp_rpc_owner *o = find_owner(r, origin);
    uint32_t slot = o ? o->first : MP_RPC_NONE;
    while (slot != MP_RPC_NONE && r->calls[slot]->origin.id != origin->id)
        slot = r->calls[slot]->next_owned;
    if (slot != MP_RPC_NONE)
        cancel(r, r->calls[slot]);
}

static void owner_gone(struct mp_rpc *r, const struct mp_rpc_origin *origin)
{
    const struct mp_rpc_owner *o = find_owner(r, origin);
    while (o && o->first != MP_RPC_NONE) {
        struct mp_rpc_call *c = r->calls[o->first];
        retire_all(r, c);
        look(r, c);
    }
}

enum mp_err mp_rpc_step(struct mp_rpc *r, mp_time now, const struct mp_rpc_event *ev,
                        struct mp_rpc_effects *out)
{
    enum mp_err err = MP_OK;
    uint64_t begun = 0;
    uint32_t slot;
    r->effect_count = 0;
    struct mp_rpc_call *c = NULL;
    switch (ev->kind) {
    case MP_RPC_BEGIN:
        err = begin(r, now, ev, &begun);
        break;
    case MP_RPC_RESOLVED:
        c = find(r, ev->call);
        mp_assert(c && c->state == MP_RPC_WAITING);
        c->target = ev->resolved.target;
        c->release = ev->resolved.release;
        mp_assert(ev->resolved.query.size <= c->query.size);
        if (ev->resolved.query.size != 0) /* the bytes are this call's own */
            memcpy((uint8_t *)(uintptr_t)c->query.data, ev->resolved.query.data,
                   ev->resolved.query.size);
        r->waiting--;
        submit(r, c, now);
        break;
    case MP_RPC_OUTCOME:
    case MP_RPC_ENDED:
        outcome(r, now, ev);
        break;
    case MP_RPC_CANCEL:
        c = find(r, ev->call);
        if (c && c->state != MP_RPC_ZOMBIE)
            cancel(r, c);
        break;
    case MP_RPC_CANCEL_ORIGIN:
        cancel_origin(r, &ev->origin);
        break;
    case MP_RPC_OWNER_GONE:
        owner_gone(r, &ev->origin);
        break;
    case MP_RPC_TIMER:
        while (mp_heap_pop(&r->timers, r->places, now, &slot))
            timer(r, r->calls[slot], now);
        break;
    }
    *out = (struct mp_rpc_effects){.items = r->effects, .count = r->effect_count, .begun = begun};
    return err;
}

enum mp_err mp_rpc_init(struct mp_rpc *r, const struct mp_rpc_config *cfg, struct mp_alloc *a,
                        uint64_t seed)
{
    *r = (struct mp_rpc){.alloc = a,
                         .free_first = MP_RPC_NONE,
                         .waiting_max = cfg->waiting_max,
                         .defects = cfg->defects};
    mp_heap_init(&r->timers, a);
    mp_rng_init(&r->rng, seed);
    return MP_OK;
}

void mp_rpc_fini(struct mp_rpc *r)
{
    if (!r->alloc)
        return;
    for (uint32_t i = 0; i < r->capacity; i++) {
        if (!r->calls[i])
            continue;
        if (r->calls[i]->state != MP_RPC_FREE)
            mp_alloc_free(r->alloc, r->calls[i]->own_bytes, r->calls[i]->own_bytes_size);
        mp_alloc_free(r->alloc, r->calls[i], sizeof(struct mp_rpc_call));
    }
    mp_alloc_free(r->alloc, r->calls, r->capacity * sizeof(struct mp_rpc_call *));
    mp_alloc_free(r->alloc, r->places, r->capacity * sizeof(uint32_t));
    for (int kind = 0; kind < MP_RPC_ORIGIN_KINDS; kind++)
        mp_alloc_free(r->alloc, r->owners[kind].items,
                      r->owners[kind].capacity * sizeof(struct mp_rpc_owner));
    mp_alloc_free(r->alloc, r->effects, r->effect_capacity * sizeof(*r->effects));
    mp_heap_fini(&r->timers);
    *r = (struct mp_rpc){0};
}

mp_time mp_rpc_deadline(const struct mp_rpc *r)
{
    return mp_heap_first(&r->timers);
}
