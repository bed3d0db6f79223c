/* Messages from workers. Nothing that a worker writes is believed: sizes are checked against the
 * record, calls against the pool, blocks against the arena; one that breaks the rules is killed. */
#include <stdio.h>

#include "src/host/units.h"
#include "src/host/workers_internal.h"
#include "src/json/json.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

#define DRAIN_MAX 1024 /* messages of one worker taken in a turn */

#define PUBLISHED_MAX        DRAIN_MAX    /* of functions, handed to the node at once */
#define PUBLISHED_BYTES      (256u << 10) /* likewise, unless one is larger */
#define PUBLISHED_KEEP_BYTES (1u << 20)   /* a buffer that grew larger is given back */

/* --- what workers say --- */

static void broke_rules(struct mp_worker_process *w, const char *what)
{
    mp_log(3, "worker %u sent %s: killed", w->place + 1, what);
    w->channel.to_host.is_broken = true;
    w->has_broken_rules = true;
    mp_workers_kill(w->host, w->place);
}

/* The rest of a body behind its fixed part; false if it is not even that long. The size is the one
 * that was checked: the worker may have written another one into the record since. */
static bool split_body(const struct mp_worker_process *w, struct mp_ring_record *record,
                       void *fixed, size_t fixed_size, struct mp_slice *rest)
{
    size_t size = w->channel.to_host.body_size;
    if (size < fixed_size)
        return false;
    memcpy(fixed, mp_ring_body(record), fixed_size);
    *rest = mp_slice_of(mp_ring_body(record) + fixed_size, size - fixed_size);
    return true;
}

static bool on_completed(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_host *h = w->host;
    struct mp_msg_completed m;
    struct mp_slice rest;
    struct mp_node_event ev = {.kind = MP_NODE_COMPLETED};
    if (!split_body(w, record, &m, sizeof(m), &rest) || !mp_workers_sent(h, m.call) ||
        !mp_node_worker_has(h->node, w->place, m.call) ||
        !mp_worker_payload(w, record, rest, m.size, m.at, &ev.completed.payload))
        return false;
    mp_workers_forget(h, mp_workers_sent(h, m.call));
    ev.completed.worker = w->place;
    ev.completed.call = m.call;
    ev.completed.is_error = (record->flags & MP_RING_ERROR) != 0;
    ev.completed.is_retiring = (record->flags & MP_RING_RETIRE) != 0;
    ev.completed.begun_at = m.begun_at;
    ev.completed.ended_at = m.ended_at;
    ev.completed.run = m.run_ns;
    mp_host_step(h, &ev);
    return true;
}

static bool on_nested(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_nested m;
    struct mp_slice rest;
    struct mp_node_event ev = {.kind = MP_NODE_NESTED};
    if (!split_body(w, record, &m, sizeof(m), &rest) || m.options_size > rest.size ||
        m.fun_size > rest.size - m.options_size)
        return false;
    size_t before = (size_t)m.options_size + m.fun_size;
    struct mp_slice inline_args = mp_slice_of(rest.data + before, rest.size - before);
    if (!mp_worker_payload(w, record, inline_args, m.args_size, m.at, &ev.nested.args))
        return false;
    ev.nested.worker = w->place;
    ev.nested.incarnation = w->incarnation;
    ev.nested.parent = m.parent;
    ev.nested.nested = m.nested;
    ev.nested.options = mp_slice_of(rest.data, m.options_size);
    ev.nested.fun = mp_slice_of(rest.data + m.options_size, m.fun_size);
    /* Another worker does not see this one's arena: large arguments move to the host's. */
    uint64_t handle = ev.nested.args.handle;
    uint64_t at = MP_ARENA_NONE;
    if (handle != 0) {
        bool is_shared = mp_workers_share(w->host, ev.nested.args.bytes, &at);
        if (is_shared)
            ev.nested.args.bytes =
                mp_slice_of(mp_arena_at(w->host->arena, at), ev.nested.args.bytes.size);
        ev.nested.args.handle = is_shared ? MP_HANDLE_HOST | at : 0;
    }
    mp_host_step(w->host, &ev);
    if (handle != 0)
        mp_host_release(w->host, handle);
    return true;
}

static bool on_nested_cancel(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_cancel m;
    struct mp_slice rest;
    if (!split_body(w, record, &m, sizeof(m), &rest))
        return false;
    const struct mp_node_event ev = {
        .kind = MP_NODE_NESTED_CANCEL,
        .nested = {.worker = w->place, .incarnation = w->incarnation, .nested = m.id}};
    mp_host_step(w->host, &ev);
    return true;
}

static void log_load_error(const struct mp_host_module *module, struct mp_slice error)
{
    struct mp_fault fault;
    if (mp_fault_read(error, &fault) != MP_OK)
        fault = (struct mp_fault){.reason = mp_slice_str("LOAD_ERROR")};
    mp_log(3, "module %s is left out: %.*s: %.*s", module->name, (int)fault.reason.size,
           (const char *)fault.reason.data, (int)fault.message.size,
           (const char *)fault.message.data);
}

static void describe(struct mp_host *h, uint32_t i, struct mp_slice metadata)
{
    struct mp_host_module *module = &h->modules.items[i];
    module->state = MP_MODULE_KNOWN;
    mp_module_keep_expected(module, metadata);
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = i,
                                                .name = mp_slice_str(module->name),
                                                .hash = mp_slice_str(module->hash),
                                                .metadata = metadata}};
    mp_host_step(h, &ev);
}

/* Takes the oldest LOAD of a module off the list of those that were not answered; false: none was.
 */
static bool take_load(struct mp_worker_process *w, uint32_t module, uint64_t *serial)
{
    uint32_t i = 0;
    while (i < w->load_count && w->loads[i].module != module)
        i++;
    if (i == w->load_count)
        return false;
    *serial = w->loads[i].serial;
    w->load_count--;
    memmove(&w->loads[i], &w->loads[i + 1], (w->load_count - i) * sizeof(*w->loads));
    return true;
}

static void own_module_loaded(struct mp_host *h, uint32_t i, bool is_error, struct mp_slice payload)
{
    struct mp_host_module *module = &h->modules.items[i];
    if (module->state != MP_MODULE_UNKNOWN)
        return;
    if (is_error) {
        module->state = MP_MODULE_FAILED;
        log_load_error(module, payload);
    } else if (payload.size != 0 && mp_mp_check(payload) == MP_OK &&
               mp_mp_type_of(payload) == MP_MP_MAP) {
        describe(h, i, payload);
    }
}

void mp_worker_check_ready(struct mp_worker_process *w)
{
    const struct mp_node_event ev = {.kind = MP_NODE_WORKER_READY, .worker = {.worker = w->place}};
    if (w->is_ready || !w->is_fed || w->load_count != 0)
        return;
    w->is_ready = true;
    mp_host_step(w->host, &ev);
}

static bool on_loaded(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_host *h = w->host;
    struct mp_msg_loaded m;
    struct mp_slice rest;
    struct mp_rpc_payload payload;
    uint64_t serial = 0;
    bool is_error = (record->flags & MP_RING_ERROR) != 0;
    if (!split_body(w, record, &m, sizeof(m), &rest) || !take_load(w, m.module, &serial) ||
        !mp_worker_payload(w, record, rest, m.size, m.at, &payload))
        return false;
    if (serial == 0)
        own_module_loaded(h, m.module, is_error, payload.bytes);
    else
        mp_units_loaded(h, w, serial, m.module, is_error, payload.bytes);
    if (payload.handle != 0)
        mp_host_release(h, payload.handle);
    mp_units_feed(h, w);
    mp_worker_check_ready(w);
    return true;
}

static const char *function_name(struct mp_host *h, uint64_t call, char *out, size_t size)
{
    struct mp_slice name = mp_node_function_of(h->node, call);
    snprintf(out, size, "%.*s", (int)name.size, name.size ? (const char *)name.data : "");
    return out;
}

static bool on_log(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_log m;
    struct mp_slice rest;
    struct mp_slice value;
    struct mp_slice message = {0};
    char fun[MP_FUNCTION_BYTES_MAX + 1];
    if (!split_body(w, record, &m, sizeof(m), &rest) || m.size > rest.size || m.level > 3)
        return false;
    struct mp_slice map = mp_slice_of(rest.data, m.size);
    if (mp_mp_check(map) != MP_OK)
        return false;
    if (mp_mp_map_get(map, mp_slice_str("message"), &value) == MP_OK &&
        mp_mp_get_str(value, &message) != MP_OK)
        message = mp_slice_of(NULL, 0);
    struct mp_buf fields;
    struct mp_json_error error;
    mp_buf_init(&fields, mp_host_alloc(), 0);
    if (mp_mp_map_get(map, mp_slice_str("fields"), &value) != MP_OK ||
        mp_json_from_msgpack(value, &fields, NULL, &error) != MP_OK)
        mp_buf_clear(&fields);
    mp_log_function((int)m.level, function_name(w->host, m.call, fun, sizeof(fun)), w->place + 1,
                    message, mp_buf_slice(&fields));
    mp_buf_fini(&fields);
    return true;
}

/* Arguments of calls are given back when the call ends, because an attempt may have to be repeated:
 * a worker that is done with them says so in vain. */
static bool on_release(struct mp_worker_process *w, struct mp_ring_record *record)
{
    struct mp_msg_release m;
    struct mp_slice rest;
    struct mp_host *h = w->host;
    if (!split_body(w, record, &m, sizeof(m), &rest))
        return false;
    for (uint32_t i = 0; i < h->lent_count; i++)
        if (h->lent[i].at == m.at && h->lent[i].incarnation == w->incarnation) {
            mp_workers_unlend(h, i);
            break;
        }
    return true;
}

/* What functions published goes to the node in batches. */
static void flush_published(struct mp_host *h)
{
    struct mp_buf *b = &h->published;
    if (h->published_count == 0)
        return;
    for (unsigned i = 0; i < 4; i++)
        b->data[1 + i] = (uint8_t)(h->published_count >> (24 - 8 * i));
    h->published_count = 0;
    const struct mp_node_event ev = {
        .kind = MP_NODE_PUBLISH,
        .request = {.payload = {.bytes = mp_buf_slice(b)}, .wall_ms = mp_host_wall_ms()}};
    mp_host_tell(h, &ev);
    mp_buf_clear(b);
    if (b->capacity > PUBLISHED_KEEP_BYTES)
        mp_buf_fini(b);
}

/* Whether the bytes are [topic, data]; they are a copy, which the worker cannot change any more. */
static bool is_message(struct mp_slice bytes)
{
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    struct mp_mp_token array;
    struct mp_mp_token topic;
    char text[1] = "";
    struct mp_text message; /* nobody reads it */
    mp_text_init(&message, text, sizeof(text));
    return mp_mp_next(&r, &array) == MP_OK && array.type == MP_MP_ARRAY && array.count == 2 &&
           mp_mp_next(&r, &topic) == MP_OK && topic.type == MP_MP_STR &&
           mp_topic_name_check(topic.bytes, &message) == MP_OK &&
           !mp_topic_is_reserved(topic.bytes) && mp_mp_check(bytes) == MP_OK;
}

static bool on_publish(struct mp_worker_process *w, struct mp_ring_record *record)
{
    static const uint8_t array_head[5] = {0xdd};
    struct mp_host *h = w->host;
    struct mp_buf *b = &h->published;
    struct mp_msg_publish m;
    struct mp_slice rest;
    struct mp_rpc_payload payload;
    if (!split_body(w, record, &m, sizeof(m), &rest) ||
        !mp_worker_payload(w, record, rest, m.size, m.at, &payload))
        return false;
    if (h->published_count == PUBLISHED_MAX || b->size + payload.bytes.size > PUBLISHED_BYTES)
        flush_published(h);
    enum mp_err err =
        b->size == 0 ? mp_buf_append(b, mp_slice_of(array_head, sizeof(array_head))) : MP_OK;
    size_t at = b->size;
    if (err == MP_OK)
        err = mp_buf_append(b, payload.bytes);
    if (payload.handle != 0)
        mp_host_release(h, payload.handle);
    if (err != MP_OK) {
        mp_log(3, "a message of a function was lost: out of memory");
        b->size = h->published_count == 0 ? 0 : at;
        return true;
    }
    if (!is_message(mp_slice_of(b->data + at, b->size - at))) {
        b->size = h->published_count == 0 ? 0 : at;
        return false;
    }
    h->published_count++;
    return true;
}

static bool on_message(struct mp_worker_process *w, struct mp_ring_record *record)
{
    if (record->kind == MP_MSG_PUBLISH)
        return on_publish(w, record);
    /* What a worker sends behind a message must find it published. */
    flush_published(w->host);
    switch ((enum mp_ring_kind)record->kind) {
    case MP_MSG_COMPLETED:
        return on_completed(w, record);
    case MP_MSG_NESTED:
        return on_nested(w, record);
    case MP_MSG_NESTED_CANCEL:
        return on_nested_cancel(w, record);
    case MP_MSG_LOADED:
        return on_loaded(w, record);
    case MP_MSG_LOG:
        return on_log(w, record);
    case MP_MSG_RELEASE:
        return on_release(w, record);
    default:
        return false;
    }
}

static bool drain_one(struct mp_worker_process *w)
{
    struct mp_ring *ring = &w->channel.to_host;
    uint32_t taken = 0;
    while (taken < DRAIN_MAX) {
        struct mp_ring_record *record = mp_ring_next(ring);
        if (!record)
            break;
        taken++;
        if (!on_message(w, record)) {
            broke_rules(w, "a message that cannot be right");
            break;
        }
    }
    flush_published(w->host);
    if (ring->is_broken && !w->has_broken_rules)
        broke_rules(w, "a record that cannot be right");
    if (ring->is_broken && taken == 0)
        return false;
    mp_ring_release(ring);
    return taken != 0;
}

bool mp_workers_drain(struct mp_host *h)
{
    bool was_any = false;
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i])
            was_any = drain_one(h->workers[i]) || was_any;
    return was_any;
}

bool mp_workers_have_messages(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && !mp_ring_is_empty(&h->workers[i]->channel.to_host))
            return true;
    return false;
}

bool mp_workers_prepare_sleep(struct mp_host *h)
{
    bool may_sleep = true;
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && !mp_ring_prepare_sleep(&h->workers[i]->channel.to_host))
            may_sleep = false;
    return may_sleep;
}

void mp_workers_wake(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i])
            mp_ring_wake(&h->workers[i]->channel.to_host);
}

/* Whether one waits for room in its ring: then the host looks again soon. */
bool mp_workers_are_backed_up(const struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && h->workers[i]->pending.size != 0)
            return true;
    return false;
}

void mp_workers_check_loads(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++) {
        struct mp_worker_process *w = h->workers[i];
        if (!w || w->load_count == 0 || w->is_killed_for_load)
            continue;
        uint64_t running = atomic_load(&w->channel.status->running);
        uint64_t since = atomic_load(&w->channel.status->running_since);
        if ((running & MP_CHANNEL_LOADING) != 0 && since != 0 && h->now > since &&
            h->now - since > MP_MS(MP_LOAD_TIMEOUT_MS)) {
            w->is_killed_for_load = true;
            mp_workers_kill(h, i);
        }
    }
}

bool mp_workers_are_loading(const struct mp_host *h)
{
    for (uint32_t i = 0; i < h->worker_count; i++)
        if (h->workers[i] && h->workers[i]->load_count != 0)
            return true;
    return false;
}

bool mp_workers_all_ready(const struct mp_host *h)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < h->worker_count; i++)
        ready += h->workers[i] && h->workers[i]->is_ready;
    return ready >= h->cfg->workers;
}
