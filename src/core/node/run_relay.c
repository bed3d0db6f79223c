/* Watches of runs that pass through this node. Their events are not gathered here for one who does
 * not read: the request to the coordinator is ended, and another one keeps the place of whoever
 * watches, behind the last event that passed. When the connection has been read, a third one has
 * the rest told. So at each moment the coordinator knows that somebody watches, and an event passes
 * once. */
#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

/* The run that a query watches, and from where on. False: it is no watch, or one that is told
 * nothing. */
static bool read_watch(struct mp_slice meta, struct mp_slice *run, int64_t *after)
{
    struct mp_slice value;
    struct mp_slice text;
    struct mp_slice options;
    bool is_paused = false;
    *after = 0;
    if (mp_mp_check(meta) != MP_OK || mp_mp_array_get(meta, 0, &value) != MP_OK ||
        mp_mp_get_str(value, &text) != MP_OK || !mp_slice_is(text, "watch") ||
        mp_mp_array_get(meta, 1, &options) != MP_OK)
        return false;
    *run = mp_node_text_of(options, "run");
    if (mp_mp_map_get(options, mp_slice_str("pause"), &value) == MP_OK &&
        mp_mp_get_bool(value, &is_paused) == MP_OK && is_paused)
        return false;
    if (mp_mp_map_get(options, mp_slice_str("after"), &value) == MP_OK &&
        (mp_mp_get_int(value, after) != MP_OK || *after < 0))
        *after = 0;
    return run->size != 0;
}

void mp_node_out_note_watch(struct mp_node_out *o)
{
    struct mp_slice run;
    int64_t after;
    o->is_watch = o->type == MP_FRAME_QUERY && read_watch(o->meta, &run, &after) &&
                  run.size == sizeof(o->run_id);
    if (!o->is_watch)
        return;
    o->told = (uint64_t)after;
    memcpy(o->run_id, run.data, run.size);
}

static enum mp_err put_watch(struct mp_buf *b, struct mp_slice run, uint64_t after, bool is_paused)
{
    MP_TRY(mp_mp_put_array(b, 2));
    MP_TRY(mp_mp_put_text(b, "watch"));
    MP_TRY(mp_mp_put_map(b, 3));
    MP_TRY(mp_mp_put_str_pair(b, "run", run));
    MP_TRY(mp_mp_put_uint_pair(b, "after", after));
    MP_TRY(mp_mp_put_text(b, "pause"));
    return mp_mp_put_bool(b, is_paused);
}

/* Another request for the rest of a watch, which goes out at once; NULL without memory. */
static struct mp_node_out *ask_rest(struct mp_node *n, const struct mp_node_out *old,
                                    bool is_paused)
{
    struct mp_buf meta;
    struct mp_node_out *o = NULL;
    mp_buf_init(&meta, n->alloc, 0);
    if (put_watch(&meta, mp_slice_of(old->run_id, sizeof(old->run_id)), old->told, is_paused) ==
        MP_OK)
        o = mp_node_out_new(n, MP_NODE_OUT_RELAY, MP_FRAME_QUERY, old->member, old->owner,
                            old->owner_id, old->passed, mp_buf_slice(&meta),
                            (struct mp_rpc_payload){0});
    mp_buf_fini(&meta);
    if (!o)
        return NULL;
    uint64_t id = o->id;
    o->is_peers = old->is_peers;
    o->is_of_run = old->is_of_run;
    o->is_watch = true;
    o->is_paused = is_paused;
    o->told = old->told;
    memcpy(o->run_id, old->run_id, sizeof(old->run_id));
    mp_node_outs_flush(n, o->link);
    return mp_node_out_get(n, id);
}

void mp_node_out_told(struct mp_node *n, struct mp_node_out *o, uint64_t seq)
{
    struct mp_node_out *other = o->is_ending ? mp_node_out_get(n, o->other) : NULL;
    o->told = seq;
    if (other)
        other->told = seq;
}

/* What was told before the coordinator hears of it still passes; only then it is known where the
 * one that keeps the place has to go on. Without memory the watch goes on as it was. */
static void pause_watch(struct mp_node *n, struct mp_node_out *o)
{
    const struct mp_node_out old = *o;
    struct mp_node_out *paused = ask_rest(n, &old, true);
    o = mp_node_out_get(n, old.id);
    if (!paused || !o)
        return;
    if (o->state != MP_NODE_OUT_SENT) {
        mp_node_out_give_up(n, o);
        return;
    }
    o->is_ending = true;
    o->other = paused->id;
    paused->other = o->id;
    mp_node_send_frame(n, n->links[o->link].client, MP_FRAME_CANCEL, o->id, (struct mp_slice){0},
                       (struct mp_rpc_payload){0});
}

/* First the new request goes out, then the one that kept the place is given up: so the run is
 * watched all the time. */
static void go_on_watching(struct mp_node *n, struct mp_node_out *o)
{
    const struct mp_node_out old = *o;
    o->is_wanted = true;
    if (old.other != 0 || !ask_rest(n, &old, false))
        return;
    o = mp_node_out_get(n, old.id);
    if (o)
        mp_node_out_give_up(n, o);
}

bool mp_node_out_goes_on(struct mp_node *n, const struct mp_node_out *o, bool is_result)
{
    struct mp_node_out *other = o->other != 0 ? mp_node_out_get(n, o->other) : NULL;
    if (o->is_paused && other)
        other->state = MP_NODE_OUT_GIVEN_UP;
    if (!o->is_ending || !other || other->state == MP_NODE_OUT_GIVEN_UP)
        return o->is_ending;
    other->other = 0;
    if (is_result)
        mp_node_out_give_up(n, other); /* it was at the end before it could be paused */
    else if (other->is_wanted && n->links[other->link].state == MP_NODE_LINK_UP)
        go_on_watching(n, other);
    return !is_result;
}

void mp_node_outs_pressure(struct mp_node *n, uint64_t client, bool is_high)
{
    uint32_t end = n->out_used; /* those that come are as they should be */
    for (uint32_t i = 0; n->relay_count != 0 && i < end; i++) {
        struct mp_node_out *o = &n->outs[i];
        if (o->kind != MP_NODE_OUT_RELAY || !o->is_watch || o->is_ending || o->owner != client ||
            (o->state != MP_NODE_OUT_QUEUED && o->state != MP_NODE_OUT_SENT))
            continue;
        if (is_high && o->is_paused)
            o->is_wanted = false;
        else if (is_high)
            pause_watch(n, o);
        else if (o->is_paused)
            go_on_watching(n, o);
    }
}
