/* What the worker sends. A payload is encoded straight into the ring: a record with room for the
 * largest payload that may go inline is reserved, and cut to size at the end. A payload that
 * outgrows it moves into the worker's arena, and the record says where. If the ring has no such
 * room now, the payload is built in a scratch buffer; and what cannot be sent at all waits in a
 * list, in order, on which the loop tries again. Nobody reads less because of that list, but no new
 * call is begun while it holds something (loop.c), so it is bounded by the calls that already run.
 *
 * One message is open at a time: encoding never runs user code. An error that Lua raises while one
 * is open leaves it open, and whoever catches the error aborts it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/worker/worker_internal.h"

#define INLINE_BYTES      (MP_VALUE_INLINE_MAX - 1)
#define LOG_HELD_MAX      (1u << 20) /* with more than this waiting, logs are dropped */
#define OUT_BODY_MAX      (16u << 10)
#define UNPUBLISHED_COUNT 128

#define PUBLISHED_HELD_MAX (256u << 10) /* with more than this waiting, a publisher waits */
#define PUBLISH_PAUSE_NS   200000       /* between two looks for room */
#define PUBLISH_WAIT_NS    1000000000   /* longer without room: refused */

uint32_t mp_outbox_size(const struct mp_worker *w)
{
    return (uint32_t)w->outbox.payload.size;
}

/* Where the payload lives is in `place`; growth beyond the inline size goes to the arena. */
static void *payload_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct mp_worker *w = (struct mp_worker *)context;
    struct mp_outbox *o = &w->outbox;
    mp_assert(new_size > old_size);
    if (o->place == MP_OUTBOX_HEAP) {
        void *grown = realloc(p, new_size);
        return grown;
    }
    uint64_t at = mp_arena_take(w->arena, new_size, 0);
    if (at != MP_ARENA_NONE) {
        uint8_t *data = mp_arena_at(w->arena, at);
        memcpy(data, p, o->payload.size);
        if (o->place == MP_OUTBOX_ARENA)
            mp_arena_give(w->arena, o->at);
        o->place = MP_OUTBOX_ARENA;
        o->at = at;
        return data;
    }
    uint8_t *data = (uint8_t *)malloc(new_size);
    if (!data)
        return NULL;
    memcpy(data, p, o->payload.size);
    if (o->place == MP_OUTBOX_ARENA)
        mp_arena_give(w->arena, o->at);
    o->place = MP_OUTBOX_HEAP;
    return data;
}

void mp_outbox_open(struct mp_worker *w, uint32_t lead, size_t size_max)
{
    struct mp_outbox *o = &w->outbox;
    mp_assert(o->place == MP_OUTBOX_CLOSED);
    mp_assert(lead <= OUT_BODY_MAX);
    o->lead = lead;
    o->alloc = (struct mp_alloc){.resize = payload_resize, .context = w};
    o->payload = (struct mp_buf){.alloc = &o->alloc, .capacity = INLINE_BYTES};
    o->payload.size_max = size_max;
    o->record = NULL;
    if (!o->first)
        o->record = mp_ring_reserve(&w->channel.to_host, lead + INLINE_BYTES, 0, 0);
    if (o->record) {
        o->place = MP_OUTBOX_RING;
        o->payload.data = mp_ring_body(o->record) + lead;
        return;
    }
    if (!o->scratch)
        o->scratch = (uint8_t *)malloc(INLINE_BYTES);
    if (!o->scratch)
        mp_worker_die("out of memory");
    o->place = MP_OUTBOX_SCRATCH;
    o->payload.data = o->scratch;
}

void mp_outbox_expect(struct mp_worker *w, size_t size, unsigned aligned_at)
{
    struct mp_outbox *o = &w->outbox;
    mp_assert(o->payload.size == 0);
    if (size <= INLINE_BYTES || o->place == MP_OUTBOX_ARENA ||
        (o->payload.size_max != 0 && size > o->payload.size_max + aligned_at))
        return;
    uint64_t at = mp_arena_take(w->arena, size, aligned_at);
    if (at == MP_ARENA_NONE)
        return;
    o->place = MP_OUTBOX_ARENA;
    o->at = at;
    o->payload.data = mp_arena_at(w->arena, at);
    o->payload.capacity = size;
}

static void forget_payload(struct mp_worker *w)
{
    struct mp_outbox *o = &w->outbox;
    if (o->place == MP_OUTBOX_ARENA)
        mp_arena_give(w->arena, o->at);
    if (o->place == MP_OUTBOX_HEAP)
        free(o->payload.data);
    o->place = MP_OUTBOX_CLOSED;
    o->payload = (struct mp_buf){.alloc = &o->alloc};
}

void mp_outbox_abort(struct mp_worker *w)
{
    struct mp_outbox *o = &w->outbox;
    if (o->place == MP_OUTBOX_CLOSED)
        return;
    if (o->record)
        mp_ring_unreserve(&w->channel.to_host, o->record);
    o->record = NULL;
    forget_payload(w);
}

/* Puts `at` and nothing else into the struct that begins a body. */
static void set_at(uint8_t *body, uint16_t kind, uint64_t at)
{
    size_t offset = 0;
    switch (kind) {
    case MP_MSG_COMPLETED:
        offset = offsetof(struct mp_msg_completed, at);
        break;
    case MP_MSG_LOADED:
        offset = offsetof(struct mp_msg_loaded, at);
        break;
    case MP_MSG_NESTED:
        offset = offsetof(struct mp_msg_nested, at);
        break;
    case MP_MSG_PUBLISH:
        offset = offsetof(struct mp_msg_publish, at);
        break;
    default:
        mp_assert(!"a kind without payloads in the arena");
    }
    memcpy(body + offset, &at, sizeof(at));
}

static uint8_t *put_slice(uint8_t *to, struct mp_slice s)
{
    if (s.size != 0)
        memcpy(to, s.data, s.size);
    return to + s.size;
}

static struct mp_held *hold(struct mp_worker *w, uint16_t kind, uint16_t flags, uint32_t body)
{
    struct mp_outbox *o = &w->outbox;
    struct mp_held *h = (struct mp_held *)calloc(1, sizeof(*h) + body);
    if (!h)
        mp_worker_die("out of memory");
    h->kind = kind;
    h->flags = flags;
    h->body_size = body;
    if (o->last)
        o->last->next = h;
    else
        o->first = h;
    o->last = h;
    o->held_bytes += sizeof(*h) + body;
    return h;
}

static void count_unpublished(struct mp_worker *w)
{
    if (++w->outbox.unpublished >= UNPUBLISHED_COUNT)
        mp_outbox_publish(w);
}

void mp_outbox_close(struct mp_worker *w, uint16_t kind, uint16_t flags, struct mp_slice header,
                     const struct mp_slice *more, unsigned more_count)
{
    struct mp_outbox *o = &w->outbox;
    bool is_inline = o->place == MP_OUTBOX_RING || o->place == MP_OUTBOX_SCRATCH;
    uint32_t size = o->lead + (is_inline ? mp_outbox_size(w) : 0);
    uint8_t *body;
    mp_assert(o->place != MP_OUTBOX_CLOSED);
    if (!is_inline)
        flags |= MP_RING_LARGE;
    if (!o->record && !o->first)
        o->record = mp_ring_reserve(&w->channel.to_host, size, kind, flags);
    if (o->record) {
        mp_ring_trim(&w->channel.to_host, o->record, size);
        o->record->kind = kind;
        o->record->flags = flags;
        body = mp_ring_body(o->record);
    } else {
        body = hold(w, kind, flags, size)->body;
    }
    if (o->place == MP_OUTBOX_SCRATCH)
        memcpy(body + o->lead, o->scratch, o->payload.size);
    uint8_t *end = put_slice(body, header);
    for (unsigned i = 0; i < more_count; i++)
        end = put_slice(end, more[i]);
    mp_assert(end == body + o->lead);
    if (o->place == MP_OUTBOX_ARENA)
        set_at(body, kind, o->at);
    if (o->place == MP_OUTBOX_HEAP) {
        if (o->record) {
            /* The record must not go out before its payload is in the arena. */
            struct mp_held *h = hold(w, kind, flags, size);
            memcpy(h->body, body, size);
            mp_ring_unreserve(&w->channel.to_host, o->record);
        }
        o->last->payload = o->payload.data;
        o->last->payload_size = o->payload.size;
        o->held_bytes += o->payload.size;
    }
    o->record = NULL;
    o->place = MP_OUTBOX_CLOSED;
    count_unpublished(w);
}

void mp_outbox_send(struct mp_worker *w, uint16_t kind, struct mp_slice body)
{
    struct mp_outbox *o = &w->outbox;
    struct mp_ring_record *record = NULL;
    mp_assert(o->place == MP_OUTBOX_CLOSED);
    if (!o->first)
        record = mp_ring_reserve(&w->channel.to_host, (uint32_t)body.size, kind, 0);
    uint8_t *to = record ? mp_ring_body(record) : hold(w, kind, 0, (uint32_t)body.size)->body;
    put_slice(to, body);
    count_unpublished(w);
}

void mp_outbox_release(struct mp_worker *w, uint64_t at)
{
    struct mp_msg_release m = {.at = at};
    mp_outbox_send(w, MP_MSG_RELEASE, mp_slice_of(&m, sizeof(m)));
}

void mp_outbox_publish(struct mp_worker *w)
{
    w->outbox.unpublished = 0;
    if (!mp_ring_publish(&w->channel.to_host))
        return;
    uint64_t one = 1;
    /* Full counter or not: the host is awake either way. */
    ssize_t written = write(MP_WORKER_FD_WAKE_HOST, &one, sizeof(one));
    (void)written;
}

/* Sends the first that waits; false if there is no room. */
static bool flush_one(struct mp_worker *w)
{
    struct mp_outbox *o = &w->outbox;
    struct mp_held *h = o->first;
    if (h->payload) {
        uint64_t at = mp_arena_take(w->arena, h->payload_size, 0);
        if (at == MP_ARENA_NONE)
            return false;
        memcpy(mp_arena_at(w->arena, at), h->payload, h->payload_size);
        set_at(h->body, h->kind, at);
        free(h->payload);
        h->payload = NULL;
        o->held_bytes -= h->payload_size;
    }
    struct mp_ring_record *record =
        mp_ring_reserve(&w->channel.to_host, h->body_size, h->kind, h->flags);
    if (!record)
        return false;
    memcpy(mp_ring_body(record), h->body, h->body_size);
    o->first = h->next;
    if (!o->first)
        o->last = NULL;
    o->held_bytes -= sizeof(*h) + h->body_size;
    free(h);
    return true;
}

bool mp_outbox_flush(struct mp_worker *w)
{
    while (w->outbox.first)
        if (!flush_one(w))
            break;
    return !w->outbox.first;
}

bool mp_outbox_takes_logs(const struct mp_worker *w)
{
    return w->outbox.held_bytes < LOG_HELD_MAX;
}

bool mp_outbox_await_room(struct mp_worker *w)
{
    uint64_t until = mp_worker_now() + PUBLISH_WAIT_NS;
    while (w->outbox.held_bytes >= PUBLISHED_HELD_MAX) {
        const struct timespec pause = {.tv_nsec = PUBLISH_PAUSE_NS};
        mp_outbox_publish(w);
        nanosleep(&pause, NULL);
        (void)mp_outbox_flush(w);
        if (w->outbox.held_bytes >= PUBLISHED_HELD_MAX && mp_worker_now() >= until)
            return false;
    }
    return true;
}

void mp_outbox_put_fault(struct mp_worker *w, const struct mp_fault *f)
{
    w->outbox.payload.size_max = 0;
    if (mp_fault_put(&w->outbox.payload, f) != MP_OK)
        mp_worker_die("out of memory");
}

void mp_outbox_fini(struct mp_worker *w)
{
    struct mp_outbox *o = &w->outbox;
    mp_outbox_abort(w);
    while (o->first) {
        struct mp_held *next = o->first->next;
        free(o->first->payload);
        free(o->first);
        o->first = next;
    }
    free(o->scratch);
    *o = (struct mp_outbox){.place = MP_OUTBOX_CLOSED};
}
