/* How the attempts of a step went. Most steps need one attempt and keep nothing of this; from the
 * first failure on a step keeps its first and its last few attempts, one that succeeds after others
 * included. Of a step with `each` these are the failed attempts of its elements.
 *
 * An attempt that is told by an event stays for that event's sake, however many follow. */
#include "src/core/graph/graph_internal.h"

static_assert(MP_GRAPH_TRY_ERROR_MAX > MP_GRAPH_TRY_TEXT_MAX, "a short error would be cut");

/* --- errors --- */

/* The error with nothing but what it is. */
static enum mp_err shorten(struct mp_graph *g, struct mp_slice error, struct mp_slice *own)
{
    struct mp_fault f;
    struct mp_buf b;
    struct mp_fault brief = {.code = MP_CODE_UNKNOWN};
    if (mp_fault_read(error, &f) == MP_OK)
        brief = (struct mp_fault){.code = f.code, .reason = f.reason, .message = f.message};
    if (brief.reason.size > MP_GRAPH_TRY_TEXT_MAX)
        brief.reason = (struct mp_slice){0};
    if (brief.message.size > MP_GRAPH_TRY_TEXT_MAX) {
        brief.message.size = MP_GRAPH_TRY_TEXT_MAX;
        while (brief.message.size > 0 && (brief.message.data[brief.message.size] & 0xc0) == 0x80)
            brief.message.size--;
    }
    mp_buf_init(&b, g->alloc, 0);
    enum mp_err err = mp_fault_put(&b, &brief);
    if (err == MP_OK)
        err = mp_graph_copy(g, mp_buf_slice(&b), own);
    mp_buf_fini(&b);
    return err;
}

static enum mp_err keep_error(struct mp_graph *g, struct mp_slice error, struct mp_slice *own)
{
    bool is_long =
        error.size > MP_GRAPH_TRY_ERROR_MAX || error.size + g->tries_bytes > MP_GRAPH_TRY_BYTES_MAX;
    enum mp_err err = is_long ? shorten(g, error, own) : mp_graph_copy(g, error, own);
    if (err == MP_OK)
        g->tries_bytes += own->size;
    return err;
}

/* --- keeping --- */

static void drop_try(struct mp_graph *g, uint32_t id)
{
    struct mp_graph_try *t = &g->tries[id];
    g->tries_bytes -= t->error.size;
    mp_graph_drop(g, &t->error);
    t->next_free = g->tries_free;
    g->tries_free = id;
}

static uint32_t *place_of(struct mp_graph_tries *t, uint32_t n)
{
    return n < MP_GRAPH_TRIES_FIRST ? &t->first[n]
                                    : &t->last[(n - MP_GRAPH_TRIES_FIRST) % MP_GRAPH_TRIES_LAST];
}

/* A place in g->tries, which stays free until it is taken off the list. */
static enum mp_err make_room(struct mp_graph *g)
{
    if (g->tries_free != MP_GRAPH_NONE)
        return MP_OK;
    struct mp_graph_try *tries =
        mp_graph_grow(g, g->tries, &g->tries_capacity, sizeof(*tries), g->tries_count + 1);
    if (!tries)
        return MP_ENOMEM;
    g->tries = tries;
    g->tries_free = g->tries_count++;
    tries[g->tries_free] = (struct mp_graph_try){.next_free = MP_GRAPH_NONE};
    return MP_OK;
}

enum mp_err mp_graph_try_add(struct mp_graph *g, uint32_t step, struct mp_graph_try t,
                             struct mp_slice error, uint32_t *id)
{
    struct mp_graph_step_record *s = &g->steps[step];
    enum mp_err err = make_room(g);
    if (err == MP_OK && !s->tries) {
        s->tries = mp_alloc_take(g->alloc, sizeof(*s->tries));
        if (!s->tries)
            return MP_ENOMEM;
        memset(s->tries, 0, sizeof(*s->tries));
    }
    if (err == MP_OK)
        err = keep_error(g, error, &t.error);
    if (err != MP_OK)
        return err;
    uint32_t *place = place_of(s->tries, s->tries->count);
    if (s->tries->count >= MP_GRAPH_TRIES_FIRST + MP_GRAPH_TRIES_LAST && !g->tries[*place].is_told)
        drop_try(g, *place);
    *id = g->tries_free;
    g->tries_free = g->tries[*id].next_free;
    g->tries[*id] = t;
    *place = *id;
    s->tries->count++;
    if (t.index == 0) {
        s->tries->timing.queue += t.timing.queue;
        s->tries->timing.network += t.timing.network;
        s->tries->timing.run += t.timing.run;
    }
    return MP_OK;
}

enum mp_err mp_graph_try_lose(struct mp_graph *g, uint32_t step, struct mp_slice error,
                              uint32_t *id)
{
    struct mp_graph_step_record *s = &g->steps[step];
    struct mp_graph_timing seen = s->tries ? s->tries->timing : (struct mp_graph_timing){0};
    if (s->tries && !s->has_each) {
        /* Its success was kept, because others had failed before. */
        *id = *place_of(s->tries, s->tries->count - 1);
        if (g->tries[*id].error.size == 0)
            return keep_error(g, error, &g->tries[*id].error);
    }
    const struct mp_graph_try t = {.attempt = s->attempts,
                                   .node = s->node,
                                   .worker = s->worker,
                                   .handed_at = s->handed_at,
                                   .timing = {.queue = s->timing.queue - seen.queue,
                                              .network = s->timing.network - seen.network,
                                              .run = s->timing.run - seen.run}};
    return mp_graph_try_add(g, step, t, error, id);
}

void mp_graph_tries_free(struct mp_graph *g, uint32_t step)
{
    mp_alloc_free(g->alloc, g->steps[step].tries, sizeof(*g->steps[step].tries));
    g->steps[step].tries = NULL;
}

/* --- telling --- */

static void put_timing(struct mp_out *o, const struct mp_graph_timing *t)
{
    mp_out_text(o, "queue_ms");
    mp_out_ms(o, t->queue);
    mp_out_text(o, "network_ms");
    mp_out_ms(o, t->network);
    mp_out_text(o, "run_ms");
    mp_out_ms(o, t->run);
}

static void put_where(struct mp_graph *g, struct mp_out *o, uint32_t node, uint32_t worker)
{
    mp_out_text(o, "node");
    mp_out_str_or_nil(o, mp_graph_interned(g, node));
    mp_out_text(o, "worker");
    if (worker == 0)
        mp_out_nil(o);
    else
        mp_out_uint(o, worker);
}

static void put_try(struct mp_graph *g, struct mp_out *o, const struct mp_graph_try *t)
{
    mp_out_map(o, 9 + (t->index != 0));
    mp_out_text(o, "attempt");
    mp_out_uint(o, t->attempt);
    if (t->index != 0) {
        mp_out_text(o, "index");
        mp_out_uint(o, t->index);
    }
    put_where(g, o, t->node, t->worker);
    mp_out_text(o, "started_ms");
    mp_out_ms(o, t->handed_at - g->began_at);
    put_timing(o, &t->timing);
    mp_out_text(o, "delay_ms");
    mp_out_ms(o, t->delay);
    mp_out_text(o, "error");
    mp_out_raw(o, t->error);
}

void mp_graph_put_tries(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s)
{
    uint32_t count = s->tries->count;
    uint32_t most = MP_GRAPH_TRIES_FIRST + MP_GRAPH_TRIES_LAST;
    mp_out_text(o, "tries");
    mp_out_array(o, count < most ? count : most);
    for (uint32_t n = 0; n < count; n++) {
        if (n == MP_GRAPH_TRIES_FIRST && count > most)
            n = count - MP_GRAPH_TRIES_LAST;
        put_try(g, o, &g->tries[*place_of(s->tries, n)]);
    }
}

void mp_graph_put_slowest(struct mp_graph *g, struct mp_out *o, const struct mp_graph_each *e)
{
    const struct mp_graph_element *slowest = &e->slowest;
    mp_out_text(o, "slowest");
    mp_out_map(o, 10);
    mp_out_text(o, "index");
    mp_out_uint(o, slowest->index);
    put_where(g, o, slowest->node, slowest->worker);
    mp_out_text(o, "attempts");
    mp_out_uint(o, slowest->attempts);
    mp_out_text(o, "started_ms");
    mp_out_ms(o, slowest->began_at - g->began_at);
    mp_out_text(o, "ended_ms");
    mp_out_ms(o, slowest->ended_at - g->began_at);
    put_timing(o, &slowest->timing);
    mp_out_text(o, "retry_ms");
    mp_out_ms(o, slowest->retry);
}
