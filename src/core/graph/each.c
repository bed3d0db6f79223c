/* Steps with `each`: one call per element of a list, at most `concurrency` at once. Elements are
 * taken off the list one by one, so that what is kept per element is its result's place only; the
 * references in `args` are looked up once, not per element. Results lie in one buffer in the order
 * they came, and are put into the order of the list at the end. */
#include "src/core/graph/graph_internal.h"

bool mp_graph_each_has_more(const struct mp_graph *g, uint32_t step)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    return s->state == MP_GRAPH_ACTIVE && s->items && s->items->next < s->items->total &&
           s->items->active < s->concurrency && s->waiting == 0 && !s->is_blocked;
}

void mp_graph_each_settle(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_each *e = g->steps[step].items;
    if (!e)
        return;
    mp_assert(g->kept_bytes >= e->values.size);
    g->kept_bytes -= e->values.size;
    mp_alloc_free(g->alloc, e->states, e->total * sizeof(*e->states));
    mp_alloc_free(g->alloc, e->args.items, e->args.capacity * sizeof(*e->args.items));
    e->states = NULL;
    e->args = (struct mp_graph_pieces){0};
    mp_buf_fini(&e->values);
    mp_buf_fini(&e->list_bytes);
}

void mp_graph_each_free(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_each *e = g->steps[step].items;
    if (!e)
        return;
    mp_graph_each_settle(g, step);
    mp_alloc_free(g->alloc, e->nodes, e->nodes_capacity * sizeof(*e->nodes));
    mp_alloc_free(g->alloc, e, sizeof(*e));
    g->steps[step].items = NULL;
}

enum mp_err mp_graph_each_ran_on(struct mp_graph *g, uint32_t step, uint32_t node)
{
    struct mp_graph_each *e = g->steps[step].items;
    for (uint32_t i = 0; i < e->nodes_count; i++)
        if (e->nodes[i] == node)
            return MP_OK;
    uint32_t *nodes =
        mp_graph_grow(g, e->nodes, &e->nodes_capacity, sizeof(*nodes), e->nodes_count + 1);
    if (!nodes)
        return MP_ENOMEM;
    e->nodes = nodes;
    e->nodes[e->nodes_count++] = node;
    return MP_OK;
}

/* --- the end of the step --- */

static enum mp_err put_elements(struct mp_graph *g, const struct mp_graph_step_record *s,
                                struct mp_buf *out)
{
    const struct mp_graph_each *e = s->items;
    struct mp_graph_miss miss;
    struct mp_graph_pieces fallback = mp_graph_pieces_of(&g->pieces, s->on_error_value);
    enum mp_err err = mp_mp_put_array(out, e->total - e->skipped);
    for (uint32_t i = 0; err == MP_OK && i < e->total; i++) {
        const struct mp_graph_item *item = &e->states[i];
        mp_assert(item->state != MP_GRAPH_ITEM_OPEN && item->state != MP_GRAPH_ITEM_BROKEN);
        if (item->state == MP_GRAPH_ITEM_DONE)
            err = mp_buf_append(out, mp_slice_of(e->values.data + item->offset, item->size));
        else if (item->state == MP_GRAPH_ITEM_DEFAULTED)
            err =
                mp_graph_template_join(g, &fallback, (struct mp_slice){0}, 0, SIZE_MAX, out, &miss);
        if (err == MP_OK && out->size > g->config.value_bytes_max)
            err = MP_ETOOLARGE;
    }
    return err;
}

/* Every element is done: the results become the step's. */
static enum mp_err assemble(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_buf out;
    mp_buf_init(&out, g->alloc, 0);
    enum mp_err err = mp_buf_reserve(&out, s->items->values.size + 5);
    if (err == MP_OK)
        err = put_elements(g, s, &out);
    if (err == MP_OK && !mp_graph_keep(g, out.size)) {
        mp_buf_fini(&out);
        return mp_graph_step_fail_kept(g, step);
    }
    if (err == MP_ETOOLARGE) {
        mp_buf_fini(&out);
        return mp_graph_step_fail_large(g, step, 0, "the results of all elements are");
    }
    struct mp_slice result;
    if (err == MP_OK)
        err = mp_graph_copy(g, mp_buf_slice(&out), &result);
    mp_buf_fini(&out);
    if (err == MP_OK)
        mp_graph_step_succeed(g, step, result);
    return err;
}

static enum mp_err end_if_done(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    const struct mp_graph_each *e = s->items;
    if (s->state != MP_GRAPH_ACTIVE || e->active != 0)
        return MP_OK;
    /* Not told by e->next: in a cancelled run elements that waited for a retry are just gone. */
    if (e->succeeded + e->skipped == e->total)
        return assemble(g, step);
    if (g->mode == MP_GRAPH_CANCELLING)
        mp_graph_step_stop(g, step);
    return MP_OK;
}

/* --- elements --- */

static enum mp_err element_ended(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_each *e = g->steps[step].items;
    mp_assert(e->active != 0);
    e->active--;
    mp_graph_tell_progress(g, step);
    enum mp_err err = end_if_done(g, step);
    if (err == MP_OK && mp_graph_each_has_more(g, step))
        mp_graph_step_queue(g, step);
    return err;
}

enum mp_err mp_graph_each_completed(struct mp_graph *g, uint32_t step, uint32_t index,
                                    struct mp_slice value)
{
    struct mp_graph_each *e = g->steps[step].items;
    struct mp_graph_item *item = &e->states[index - 1];
    mp_assert(index >= 1 && index <= e->total && item->state == MP_GRAPH_ITEM_OPEN);
    if (!mp_graph_keep(g, value.size))
        return mp_graph_step_fail_kept(g, step);
    item->offset = e->values.size;
    enum mp_err err = mp_buf_append(&e->values, value);
    if (err != MP_OK) {
        g->kept_bytes -= value.size;
        return err;
    }
    item->size = (uint32_t)value.size;
    item->state = MP_GRAPH_ITEM_DONE;
    e->succeeded++;
    return element_ended(g, step);
}

static enum mp_err keep_first_error(struct mp_graph *g, struct mp_graph_step_record *s,
                                    struct mp_slice error)
{
    return s->error.size != 0 ? MP_OK : mp_graph_copy(g, error, &s->error);
}

enum mp_err mp_graph_each_give_up(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_each *e = g->steps[step].items;
    while (e->calls_first != MP_GRAPH_NONE) {
        enum mp_err err = mp_graph_call_give_up(g, e->calls_first);
        if (err != MP_OK)
            return err;
    }
    e->active = 0;
    return MP_OK;
}

enum mp_err mp_graph_each_failed(struct mp_graph *g, uint32_t step, uint32_t index,
                                 struct mp_slice error, enum mp_code code, bool is_fatal)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_each *e = s->items;
    struct mp_graph_item *item = &e->states[index - 1];
    mp_assert(index >= 1 && index <= e->total && item->state == MP_GRAPH_ITEM_OPEN);
    enum mp_err err = MP_OK;
    if (g->mode != MP_GRAPH_CANCELLING && !is_fatal && s->on_error == MP_GRAPH_ON_ERROR_SKIP) {
        item->state = MP_GRAPH_ITEM_SKIPPED;
        e->skipped++;
        err = keep_first_error(g, s, error);
        return err != MP_OK ? err : element_ended(g, step);
    }
    if (g->mode != MP_GRAPH_CANCELLING && !is_fatal && s->on_error == MP_GRAPH_ON_ERROR_DEFAULT) {
        item->state = MP_GRAPH_ITEM_DEFAULTED;
        s->is_defaulted = true;
        e->succeeded++;
        err = keep_first_error(g, s, error);
        return err != MP_OK ? err : element_ended(g, step);
    }
    item->state = MP_GRAPH_ITEM_BROKEN;
    e->failed++;
    if (g->mode == MP_GRAPH_CANCELLING) {
        err = keep_first_error(g, s, error);
        return err != MP_OK ? err : element_ended(g, step);
    }
    /* The error lies in a buffer that giving up does not touch. */
    err = mp_graph_each_give_up(g, step);
    return err != MP_OK ? err : mp_graph_step_fail(g, step, error, code, true);
}

/* Only the first error of forgiven elements is kept: a million of them must not cost a message
 * each. */
static enum mp_err make_element_missing(struct mp_graph *g, const struct mp_graph_miss *miss,
                                        uint32_t step, uint32_t index, struct mp_slice *error)
{
    const struct mp_graph_step_record *s = &g->steps[step];
    if (s->on_error == MP_GRAPH_ON_ERROR_FAIL || s->error.size == 0)
        return mp_graph_make_missing(g, miss, step, index, error);
    *error = s->error;
    return MP_OK;
}

enum mp_err mp_graph_each_fail_args(struct mp_graph *g, uint32_t step, uint32_t index,
                                    enum mp_err why, const struct mp_graph_miss *miss)
{
    struct mp_slice error;
    if (why == MP_ETOOLARGE)
        return mp_graph_step_fail_large(g, step, index, "the arguments are");
    if (why != MP_ENOENT)
        return why;
    enum mp_err err = make_element_missing(g, miss, step, index, &error);
    return err != MP_OK
               ? err
               : mp_graph_each_failed(g, step, index, error, MP_CODE_INVALID_ARGUMENT, false);
}

enum mp_err mp_graph_each_go_on(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_each *e = g->steps[step].items;
    enum mp_err err = MP_OK;
    bool may = true;
    if (g->has_held && mp_graph_each_has_more(g, step))
        err = mp_graph_held_may_call(g, step, &may);
    if (err != MP_OK || !may)
        return err;
    while (err == MP_OK && mp_graph_each_has_more(g, step) && mp_graph_call_has_room(g)) {
        struct mp_slice item;
        struct mp_graph_miss miss;
        err = mp_mp_take(&e->list, &item);
        mp_assert(err == MP_OK);
        e->active++;
        uint32_t index = ++e->next;
        err = mp_graph_call_begin(g, step, index, item, &miss);
        if (err != MP_OK)
            err = mp_graph_each_fail_args(g, step, index, err, &miss);
    }
    return err;
}

bool mp_graph_each_is_parked(const struct mp_graph *g, uint32_t step)
{
    for (uint32_t i = g->steps[step].items->calls_first; i != MP_GRAPH_NONE;
         i = g->calls[i].list_next)
        if (g->calls[i].state != MP_GRAPH_CALL_PARKED)
            return false;
    return true;
}

/* The references in `args` are looked up once more: what was a hole may be a value now. */
enum mp_err mp_graph_each_resume(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_each *e = s->items;
    struct mp_graph_miss miss;
    bool may;
    enum mp_err err = mp_graph_held_may_call(g, step, &may);
    if (err != MP_OK || !may)
        return err;
    e->args.count = 0;
    err = mp_graph_template_bind(g, s->args, MP_GRAPH_BIND_ARGS, &e->args, &miss);
    if (err == MP_ENOENT) {
        err = mp_graph_each_give_up(g, step);
        return err != MP_OK ? err : mp_graph_step_fail_args(g, step, MP_ENOENT, &miss);
    }
    for (uint32_t i = e->calls_first; err == MP_OK && i != MP_GRAPH_NONE; i = g->calls[i].list_next)
        if (g->calls[i].state == MP_GRAPH_CALL_PARKED)
            mp_graph_call_queue(g, i);
    if (err == MP_OK && mp_graph_each_has_more(g, step))
        mp_graph_step_queue(g, step);
    return err;
}

/* --- the beginning --- */

static enum mp_err fail_list(struct mp_graph *g, uint32_t step, const char *reason,
                             const char *text, uint64_t number)
{
    struct mp_slice error;
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, text, number);
    enum mp_err err = o.err;
    if (err == MP_OK)
        err = mp_graph_make_error(g, MP_CODE_INVALID_ARGUMENT, reason, step, 0, &error);
    return err != MP_OK ? err : mp_graph_step_fail(g, step, error, MP_CODE_INVALID_ARGUMENT, false);
}

/* The list as one slice: where it lies, if it is one piece, else built. */
static enum mp_err find_list(struct mp_graph *g, uint32_t step, struct mp_slice *list,
                             struct mp_graph_miss *miss)
{
    struct mp_graph_step_record *s = &g->steps[step];
    g->bound.count = 0;
    enum mp_err err = mp_graph_template_bind(g, s->each, MP_GRAPH_BIND_VALUE, &g->bound, miss);
    if (err != MP_OK)
        return err;
    if (g->bound.count == 1) {
        *list = g->bound.items[0].text;
        return MP_OK;
    }
    err = mp_graph_template_join(g, &g->bound, (struct mp_slice){0}, 0, g->config.value_bytes_max,
                                 &s->items->list_bytes, miss);
    *list = mp_buf_slice(&s->items->list_bytes);
    return err;
}

static enum mp_err begin_elements(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_each *e = s->items;
    struct mp_graph_miss miss;
    enum mp_err err = mp_graph_template_bind(g, s->args, MP_GRAPH_BIND_ARGS, &e->args, &miss);
    if (err != MP_OK)
        return mp_graph_step_fail_args(g, step, err, &miss);
    e->states = mp_alloc_take(g->alloc, e->total * sizeof(*e->states));
    if (!e->states)
        return MP_ENOMEM;
    memset(e->states, 0, e->total * sizeof(*e->states));
    mp_graph_step_begin(g, step);
    mp_graph_step_queue(g, step);
    return MP_OK;
}

enum mp_err mp_graph_each_begin(struct mp_graph *g, uint32_t step)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_slice list;
    struct mp_graph_miss miss;
    uint32_t count;
    struct mp_mp_reader r;
    s->items = mp_alloc_take(g->alloc, sizeof(*s->items));
    if (!s->items)
        return MP_ENOMEM;
    memset(s->items, 0, sizeof(*s->items));
    s->items->calls_first = MP_GRAPH_NONE;
    mp_buf_init(&s->items->values, g->alloc, 0);
    mp_buf_init(&s->items->list_bytes, g->alloc, 0);
    if (s->reruns != 0)
        s->retry += g->now - s->handed_at;
    s->handed_at = g->now;
    if (s->concurrency == 0)
        s->concurrency = s->workers == 0 ? 4 : 4 * s->workers;
    enum mp_err err = find_list(g, step, &list, &miss);
    if (err == MP_ENOENT)
        return mp_graph_step_fail_args(g, step, err, &miss);
    if (err == MP_ETOOLARGE)
        return mp_graph_step_fail_large(g, step, 0, "the list of `each` is");
    if (err != MP_OK)
        return err;
    if (mp_mp_get_map(list, &count, &r) == MP_OK && count == 0)
        count = 0;
    else if (mp_mp_get_array(list, &count, &r) != MP_OK)
        return fail_list(g, step, "NOT_A_LIST", "`each` needs a list", 0);
    if (count > MP_GRAPH_EACH_MAX)
        return fail_list(g, step, "TOO_LARGE", "`each` has %u elements, over its limit", count);
    s->items->list = r;
    s->items->total = count;
    if (count != 0)
        return begin_elements(g, step);
    mp_graph_step_begin(g, step);
    return assemble(g, step);
}
