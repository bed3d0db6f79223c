/* What hosts keep of runs and messages, invented: a disk that outlives its node. It is written
 * behind: when a machine loses its power, what it did in the last moments may be undone, from some
 * moment on. So what is replaced or forgotten stays for as long, marked with when that was. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/msgpack.h"

#define LOSS_LONGEST MP_SECONDS(2) /* what is older is on the disk for good */

static void check(enum mp_err err)
{
    mp_assert(err == MP_OK);
}

static bool is_there(const struct mp_world_record *r)
{
    return r->gone_at == MP_NEVER;
}

static bool is_equal(const struct mp_buf *b, struct mp_slice s)
{
    return mp_slice_equal(mp_buf_slice(b), s);
}

static bool is_progress(const struct mp_world_record *r)
{
    static const char prefix[] = "progress/";
    return r->part.size >= sizeof(prefix) - 1 &&
           memcmp(r->part.data, prefix, sizeof(prefix) - 1) == 0;
}

/* --- the table --- */

static void drop(struct mp_world_records *all, uint32_t i)
{
    struct mp_world_record *r = &all->items[i];
    mp_buf_fini(&r->name);
    mp_buf_fini(&r->part);
    mp_buf_fini(&r->value);
    all->items[i] = all->items[--all->count];
}

static struct mp_world_record *add(struct mp_world *w, struct mp_world_node *n,
                                   enum mp_world_record_kind kind, struct mp_slice name,
                                   struct mp_slice value)
{
    struct mp_world_records *all = &n->records;
    for (uint32_t i = all->count == all->capacity ? all->count : 0; i-- > 0;)
        if (mp_time_add(all->items[i].gone_at, LOSS_LONGEST) < w->now)
            drop(all, i);
    all->items = (struct mp_world_record *)mp_world_grow(w, all->items, &all->capacity,
                                                         all->count + 1, sizeof(*all->items));
    struct mp_world_record *r = &all->items[all->count++];
    *r = (struct mp_world_record){
        .kind = kind, .order = ++all->added, .kept_at = w->now, .gone_at = MP_NEVER};
    mp_buf_init(&r->name, w->alloc, 0);
    mp_buf_init(&r->part, w->alloc, 0);
    mp_buf_init(&r->value, w->alloc, 0);
    check(mp_buf_append(&r->name, name));
    check(mp_buf_append(&r->value, value));
    return r;
}

/* `part` NULL: a head has none. */
static struct mp_world_record *find(const struct mp_world_node *n, enum mp_world_record_kind kind,
                                    struct mp_slice name, const struct mp_slice *part)
{
    for (uint32_t i = 0; i < n->records.count; i++) {
        struct mp_world_record *r = &n->records.items[i];
        if (is_there(r) && r->kind == kind && is_equal(&r->name, name) &&
            (!part || is_equal(&r->part, *part)))
            return r;
    }
    return NULL;
}

static void drop_parts(struct mp_world *w, struct mp_world_node *n, struct mp_slice run,
                       bool is_all)
{
    for (uint32_t i = 0; i < n->records.count; i++) {
        struct mp_world_record *r = &n->records.items[i];
        if (is_there(r) && r->kind == MP_WORLD_RECORD_PART && is_equal(&r->name, run) &&
            (is_all || is_progress(r)))
            r->gone_at = w->now;
    }
}

/* --- keeping --- */

static void keep_part(struct mp_world *w, struct mp_world_node *n, struct mp_slice run,
                      struct mp_slice part, struct mp_slice bytes)
{
    struct mp_world_record *old = find(n, MP_WORLD_RECORD_PART, run, &part);
    if (old)
        old->gone_at = w->now;
    struct mp_world_record *r = add(w, n, MP_WORLD_RECORD_PART, run, bytes);
    check(mp_buf_append(&r->part, part));
}

static void keep_run(struct mp_world *w, struct mp_world_node *n, struct mp_slice run,
                     struct mp_slice record)
{
    struct mp_slice head;
    struct mp_slice body;
    check(mp_mp_array_get(record, 0, &head));
    check(mp_mp_array_get(record, 1, &body));
    struct mp_world_record *old = find(n, MP_WORLD_RECORD_HEAD, run, NULL);
    uint64_t order = old ? old->order : 0;
    if (old)
        old->gone_at = w->now;
    struct mp_world_record *r = add(w, n, MP_WORLD_RECORD_HEAD, run, head);
    r->order = order != 0 ? order : r->order;
    drop_parts(w, n, run, false);
    keep_part(w, n, run, mp_slice_str(""), body);
}

static void forget_run(struct mp_world *w, struct mp_world_node *n, struct mp_slice run)
{
    struct mp_world_record *head = find(n, MP_WORLD_RECORD_HEAD, run, NULL);
    if (head)
        head->gone_at = w->now;
    drop_parts(w, n, run, true);
}

/* Of [topic, seq …]. */
static void read_message(struct mp_slice message, struct mp_slice *topic, uint64_t *seq)
{
    struct mp_slice value;
    int64_t number = 0;
    check(mp_mp_array_get(message, 0, &value));
    check(mp_mp_get_str(value, topic));
    check(mp_mp_array_get(message, 1, &value));
    check(mp_mp_get_int(value, &number));
    *seq = (uint64_t)number;
}

static void each_message(struct mp_world *w, struct mp_world_node *n, struct mp_slice messages,
                         bool is_kept)
{
    struct mp_mp_reader reader;
    uint32_t count = 0;
    check(mp_mp_get_array(messages, &count, &reader));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice message;
        struct mp_slice topic;
        uint64_t seq = 0;
        check(mp_mp_take(&reader, &message));
        read_message(message, &topic, &seq);
        for (uint32_t k = 0; k < n->records.count; k++) {
            struct mp_world_record *r = &n->records.items[k];
            if (is_there(r) && r->kind == MP_WORLD_RECORD_MESSAGE && is_equal(&r->name, topic) &&
                (is_kept ? r->order == seq : r->order <= seq))
                r->gone_at = w->now;
        }
        if (is_kept)
            add(w, n, MP_WORLD_RECORD_MESSAGE, topic, message)->order = seq;
    }
}

/* Run and part of the array that names both. */
static void read_names(struct mp_slice which, struct mp_slice *run, struct mp_slice *part)
{
    struct mp_slice value;
    check(mp_mp_array_get(which, 0, &value));
    check(mp_mp_get_str(value, run));
    check(mp_mp_array_get(which, 1, &value));
    check(mp_mp_get_str(value, part));
    mp_assert(part->size != 0);
}

void mp_world_record(struct mp_world *w, struct mp_world_node *n, const struct mp_world_job *j)
{
    struct mp_slice context = mp_buf_slice(&j->context);
    struct mp_slice bytes = mp_buf_slice(&j->bytes);
    struct mp_slice run;
    struct mp_slice part;
    switch (j->kind) {
    case MP_NODE_KEEP_RUN:
        keep_run(w, n, context, bytes);
        break;
    case MP_NODE_KEEP_RUN_PART:
        read_names(context, &run, &part);
        keep_part(w, n, run, part, bytes);
        break;
    case MP_NODE_FORGET_RUN:
        forget_run(w, n, context);
        break;
    case MP_NODE_KEEP_MESSAGES:
        each_message(w, n, bytes, true);
        break;
    case MP_NODE_FORGET_MESSAGES:
        each_message(w, n, bytes, false);
        break;
    default:
        mp_assert(j->kind == MP_NODE_READ_RUN || j->kind == MP_NODE_READ_RUN_PART);
        break;
    }
}

/* --- reading --- */

static int compare(const struct mp_world_record *a, const struct mp_world_record *b)
{
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return mp_slice_compare(mp_buf_slice(&a->name), mp_buf_slice(&b->name));
}

/* All of a kind in their order; the table is small, and read once in a boot. */
void mp_world_records_put(const struct mp_world_node *n, enum mp_world_record_kind kind,
                          struct mp_buf *out)
{
    const struct mp_world_record *items = n->records.items;
    const struct mp_world_record *last = NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->records.count; i++)
        count += is_there(&items[i]) && items[i].kind == kind;
    check(mp_mp_put_array(out, count));
    for (uint32_t k = 0; k < count; k++) {
        const struct mp_world_record *next = NULL;
        for (uint32_t i = 0; i < n->records.count; i++)
            if (is_there(&items[i]) && items[i].kind == kind &&
                (!last || compare(&items[i], last) > 0) && (!next || compare(&items[i], next) < 0))
                next = &items[i];
        mp_assert(next);
        check(mp_mp_put_raw(out, mp_buf_slice(&next->value)));
        last = next;
    }
}

/* The part of a run whose name is the next behind `last`, or NULL. */
static const struct mp_world_record *next_progress(const struct mp_world_node *n,
                                                   struct mp_slice run,
                                                   const struct mp_world_record *last)
{
    const struct mp_world_record *next = NULL;
    for (uint32_t i = 0; i < n->records.count; i++) {
        const struct mp_world_record *r = &n->records.items[i];
        struct mp_slice part = mp_buf_slice(&r->part);
        if (is_there(r) && r->kind == MP_WORLD_RECORD_PART && is_equal(&r->name, run) &&
            is_progress(r) && (!last || mp_slice_compare(part, mp_buf_slice(&last->part)) > 0) &&
            (!next || mp_slice_compare(part, mp_buf_slice(&next->part)) < 0))
            next = r;
    }
    return next;
}

static bool read_run(const struct mp_world_node *n, struct mp_slice run, struct mp_buf *out)
{
    const struct mp_slice nameless = mp_slice_str("");
    const struct mp_world_record *head = find(n, MP_WORLD_RECORD_HEAD, run, NULL);
    const struct mp_world_record *body = find(n, MP_WORLD_RECORD_PART, run, &nameless);
    uint32_t count = 0;
    if (!head)
        return false;
    mp_assert(body);
    check(mp_mp_put_array(out, 3));
    check(mp_mp_put_raw(out, mp_buf_slice(&head->value)));
    check(mp_mp_put_raw(out, mp_buf_slice(&body->value)));
    for (const struct mp_world_record *r = next_progress(n, run, NULL); r;
         r = next_progress(n, run, r))
        count++;
    check(mp_mp_put_array(out, count));
    for (const struct mp_world_record *r = next_progress(n, run, NULL); r;
         r = next_progress(n, run, r))
        check(mp_mp_put_bin(out, mp_buf_slice(&r->value)));
    return true;
}

bool mp_world_record_read(const struct mp_world_node *n, const struct mp_world_job *j,
                          struct mp_buf *out)
{
    struct mp_slice run;
    struct mp_slice part;
    if (j->kind == MP_NODE_READ_RUN)
        return read_run(n, mp_buf_slice(&j->context), out);
    read_names(mp_buf_slice(&j->context), &run, &part);
    const struct mp_world_record *r = find(n, MP_WORLD_RECORD_PART, run, &part);
    if (r)
        check(mp_buf_append(out, mp_buf_slice(&r->value)));
    return r != NULL;
}

static void tell(struct mp_world *w, struct mp_world_node *n, enum mp_node_event_kind event,
                 enum mp_world_record_kind kind)
{
    struct mp_buf b;
    mp_buf_init(&b, w->alloc, 0);
    mp_world_records_put(n, kind, &b);
    const struct mp_node_event ev = {
        .kind = event, .stored = {.wall_ms = mp_world_wall(w, n), .bytes = mp_buf_slice(&b)}};
    mp_world_step_surely(w, n, &ev);
    mp_buf_fini(&b);
}

void mp_world_records_restore(struct mp_world *w, struct mp_world_node *n)
{
    for (uint32_t i = n->records.count; i-- > 0;) {
        const struct mp_world_record *r = &n->records.items[i];
        if (r->kind == MP_WORLD_RECORD_PART &&
            !find(n, MP_WORLD_RECORD_HEAD, mp_buf_slice(&r->name), NULL))
            drop(&n->records, i);
    }
    tell(w, n, MP_NODE_RESTORED_RUNS, MP_WORLD_RECORD_HEAD);
    tell(w, n, MP_NODE_RESTORED_MESSAGES, MP_WORLD_RECORD_MESSAGE);
}

/* --- losing --- */

void mp_world_records_power_cut(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_world_records *all = &n->records;
    bool is_fresh = false;
    for (uint32_t i = 0; i < all->count; i++)
        is_fresh = is_fresh || mp_time_add(all->items[i].kept_at, LOSS_LONGEST) > w->now ||
                   (!is_there(&all->items[i]) &&
                    mp_time_add(all->items[i].gone_at, LOSS_LONGEST) > w->now);
    if (!is_fresh)
        return;
    mp_duration lost = mp_rng_below(&w->rng, LOSS_LONGEST);
    mp_time until = w->now > lost ? w->now - lost : 0;
    for (uint32_t i = all->count; i-- > 0;) {
        if (!is_there(&all->items[i]) && all->items[i].gone_at > until)
            all->items[i].gone_at = MP_NEVER;
        if (all->items[i].kept_at > until)
            drop(all, i);
    }
}

void mp_world_records_fini(struct mp_world *w, struct mp_world_node *n)
{
    while (n->records.count != 0)
        drop(&n->records, n->records.count - 1);
    mp_alloc_free(w->alloc, n->records.items, n->records.capacity * sizeof(*n->records.items));
    n->records = (struct mp_world_records){0};
}
