/* Functions that subscribe to topics. All that callers of this node would get are known to the
 * machine of topics, wherever in the cluster they are: the node that accepts a message makes the
 * calls, one for each function that matches, and the router chooses where each runs. So a message
 * calls a function once in the whole cluster, of the version that is live here.
 *
 * Nobody waits for these calls. Their errors go to the log, and what could not be called for want
 * of room is counted there: at most one line a second of a kind, which says how many were not
 * told. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/node/node_internal.h"
#include "src/core/node/topics_internal.h"
#include "src/wire/msgpack.h"

#define TOLD_EACH MP_SECONDS(1)
#define OWNER     (1ull << 32) /* of all these calls; its low half is the place among owners */

/* --- what the log says --- */

bool mp_node_may_tell(struct mp_node *n, struct mp_node_told *told, struct mp_text *text)
{
    if (n->now < told->next_at) {
        told->hidden++;
        return false;
    }
    if (told->hidden != 0) {
        mp_text_put(text, " (and ");
        mp_text_put_uint(text, told->hidden);
        mp_text_put(text, " more since the last such line)");
    }
    told->hidden = 0;
    told->next_at = n->now + TOLD_EACH;
    return true;
}

static struct mp_slice name_of(const struct mp_node *n, uint32_t function)
{
    mp_assert(function < n->topics.function_capacity);
    const struct mp_node_topic_function *f = &n->topics.functions[function];
    return mp_slice_of(f->own_name, f->name_size);
}

static void tell_error(struct mp_node *n, struct mp_slice fun, struct mp_slice error)
{
    char bytes[1024];
    struct mp_text text;
    struct mp_fault fault;
    mp_text_init(&text, bytes, sizeof(bytes));
    if (mp_fault_read(error, &fault) != MP_OK)
        fault = (struct mp_fault){.code = MP_CODE_UNKNOWN};
    mp_text_put_slice(&text, fun);
    mp_text_put(&text, " was called with a message and failed: ");
    mp_text_put(&text, mp_code_name(fault.code));
    if (fault.reason.size != 0) {
        mp_text_put(&text, "/");
        mp_text_put_slice(&text, fault.reason);
    }
    if (fault.message.size != 0) {
        mp_text_put(&text, ": ");
        mp_text_put_slice(&text, fault.message);
    }
    if (mp_node_may_tell(n, &n->topics.error_told, &text))
        mp_node_log(n, 2, mp_text_slice(&text));
}

void mp_node_subscribed_missed(struct mp_node *n, const struct mp_topic_effect *e)
{
    char bytes[512];
    struct mp_text text;
    mp_text_init(&text, bytes, sizeof(bytes));
    mp_text_put_uint(&text, e->dropped);
    mp_text_put(&text, " messages for ");
    mp_text_put_slice(&text, name_of(n, e->function));
    mp_text_put(&text, " are dropped: they come faster than it is called");
    if (mp_node_may_tell(n, &n->topics.missed_told, &text))
        mp_node_log(n, 2, mp_text_slice(&text));
}

/* --- calls --- */

/* [data, {topic, publisher, seq, at}] */
static enum mp_err put_args(struct mp_buf *b, const struct mp_topic_effect *e)
{
    mp_buf_clear(b);
    MP_TRY(mp_mp_put_array(b, 2));
    MP_TRY(mp_mp_put_raw(b, e->data));
    MP_TRY(mp_mp_put_map(b, 4));
    MP_TRY(mp_mp_put_str_pair(b, "topic", e->topic));
    MP_TRY(mp_mp_put_str_pair(b, "publisher", e->publisher));
    MP_TRY(mp_mp_put_uint_pair(b, "seq", e->seq));
    return mp_mp_put_uint_pair(b, "at", e->at_ms);
}

static bool begin(struct mp_node *n, const struct mp_catalog_function *f, struct mp_slice key)
{
    const struct mp_rpc_event begin = {
        .kind = MP_RPC_BEGIN,
        .begin = {.origin = {.kind = MP_RPC_TOPIC, .owner = OWNER, .id = ++n->topics.calls_begun},
                  .target = mp_node_target(f),
                  .args = {.bytes = mp_buf_slice(&n->topics.args)},
                  .query = key,
                  .release = n->release,
                  .deadline = mp_time_add(n->now, n->cfg.call_timeout)},
    };
    n->route_hint = n->route_found;
    return mp_node_make_room(n) && mp_node_step_rpc(n, n->now, &begin, NULL);
}

void mp_node_subscribed_call(struct mp_node *n, const struct mp_topic_effect *e)
{
    struct mp_slice fun = name_of(n, e->function);
    const struct mp_catalog_query q = {.fun = fun,
                                       .pin = mp_node_release_pin(n, n->release, fun, false)};
    struct mp_slice key = mp_node_key(n, &q);
    const struct mp_catalog_function *f = key.size != 0 ? mp_node_find(n, key) : NULL;
    bool has_args = put_args(&n->topics.args, e) == MP_OK;
    n->topics.is_room_changed = true; /* the machine counts it as under way */
    if (!f && key.size != 0) {
        tell_error(n, fun, mp_node_explain(n, &q));
    } else if (f && has_args) {
        /* It may be answered in this very step. */
        n->topics.calls++;
        if (begin(n, f, key))
            return;
        n->topics.calls--;
    }
    if (f || key.size == 0)
        n->is_out_of_memory = true;
}

void mp_node_subscribed_answer(struct mp_node *n, const struct mp_rpc_effect *e,
                               struct mp_slice bytes)
{
    struct mp_slice fun = mp_slice_str("a function");
    mp_assert(n->topics.calls != 0);
    n->topics.calls--;
    n->topics.is_room_changed = true;
    if (e->answer.answer == MP_RPC_RESULT)
        return;
    if (e->answer.function != MP_RPC_NONE)
        fun = n->catalog.functions[e->answer.function].name;
    tell_error(n, fun, bytes);
}

void mp_node_subscribed_room(struct mp_node *n, mp_time now)
{
    struct mp_topic_effects out;
    const struct mp_topic_event room = {.kind = MP_TOPIC_ROOM,
                                        .room = MP_TOPIC_CALLS_MAX - n->topics.calls};
    n->topics.is_room_changed = false;
    (void)mp_node_topics_step(n, now, &room, &out);
}

/* --- which functions there are --- */

/* The patterns of a function, ascending, each once. */
struct patterns {
    struct mp_slice items[MP_SUBSCRIBE_MAX];
    uint32_t count;
};

static void add_pattern(struct patterns *p, struct mp_slice text)
{
    uint32_t at = p->count;
    while (at > 0 && mp_slice_compare(p->items[at - 1], text) > 0)
        at--;
    if (at > 0 && mp_slice_equal(p->items[at - 1], text))
        return;
    memmove(p->items + at + 1, p->items + at, (p->count - at) * sizeof(*p->items));
    p->items[at] = text;
    p->count++;
}

/* The catalog has checked them: a text, or an array of at most MP_SUBSCRIBE_MAX. */
static void read_patterns(struct mp_slice subscribe, struct patterns *p)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice text;
    p->count = 0;
    if (mp_mp_get_str(subscribe, &text) == MP_OK)
        add_pattern(p, text);
    else if (mp_mp_get_array(subscribe, &count, &r) == MP_OK)
        for (uint32_t i = 0; i < count && i < MP_SUBSCRIBE_MAX; i++) {
            struct mp_mp_token t;
            if (mp_mp_next(&r, &t) == MP_OK && t.type == MP_MP_STR)
                add_pattern(p, t.bytes);
        }
}

static enum mp_err put_patterns(struct mp_buf *b, const struct patterns *p)
{
    mp_buf_clear(b);
    MP_TRY(mp_mp_put_array(b, p->count));
    for (uint32_t i = 0; i < p->count; i++)
        MP_TRY(mp_mp_put_str(b, p->items[i]));
    return MP_OK;
}

/* Its place, a new one if need be; MP_NODE_NONE without memory, or if there are too many. */
static uint32_t place_of(struct mp_node *n, struct mp_slice name)
{
    struct mp_node_topics *t = &n->topics;
    uint32_t place = t->function_capacity;
    for (uint32_t i = t->function_capacity; i-- > 0;) {
        if (!t->functions[i].own_name)
            place = i;
        else if (mp_slice_equal(name_of(n, i), name))
            return i;
    }
    if (place == t->function_capacity) {
        uint32_t capacity = t->function_capacity == 0 ? 16 : t->function_capacity * 2;
        void *grown = NULL;
        if (capacity <= MP_SUBSCRIBED_MAX)
            grown = n->alloc->resize(n->alloc->context, t->functions,
                                     t->function_capacity * sizeof(*t->functions),
                                     capacity * sizeof(*t->functions));
        if (!grown)
            return MP_NODE_NONE;
        t->functions = (struct mp_node_topic_function *)grown;
        memset(t->functions + place, 0, (capacity - place) * sizeof(*t->functions));
        t->function_capacity = capacity;
    }
    struct mp_node_topic_function *f = &t->functions[place];
    f->own_name = mp_alloc_take(n->alloc, name.size);
    if (!f->own_name)
        return MP_NODE_NONE;
    memcpy(f->own_name, name.data, name.size);
    f->name_size = name.size;
    f->patterns = 0;
    return place;
}

static void free_function(struct mp_node *n, struct mp_node_topic_function *f)
{
    mp_alloc_free(n->alloc, f->own_name, f->name_size);
    *f = (struct mp_node_topic_function){0};
}

static bool tell_function(struct mp_node *n, mp_time now, uint32_t place, const struct patterns *p)
{
    struct mp_topic_effects out;
    bool is_put = put_patterns(&n->topics.args, p) == MP_OK;
    const struct mp_topic_event ev = {
        .kind = MP_TOPIC_FUNCTION,
        .function = {.function = place, .patterns = mp_buf_slice(&n->topics.args)}};
    return is_put && mp_node_topics_step(n, now, &ev, &out) == MP_OK;
}

/* One that there is: told if its patterns are others than before. */
static bool refresh_one(struct mp_node *n, mp_time now, const struct mp_catalog_function *f)
{
    struct patterns p;
    char bytes[MP_FUNCTION_BYTES_MAX + 128];
    struct mp_text text;
    uint32_t place = place_of(n, f->name);
    if (place == MP_NODE_NONE) {
        mp_text_init(&text, bytes, sizeof(bytes));
        mp_text_put_slice(&text, f->name);
        mp_text_put(&text, " is not called with messages: the node has no room for its topics");
        if (mp_node_may_tell(n, &n->topics.missed_told, &text))
            mp_node_log(n, 3, mp_text_slice(&text));
        return false;
    }
    uint64_t patterns = mp_slice_hash(f->subscribe, 1) | 1;
    n->topics.functions[place].is_there = true;
    if (n->topics.functions[place].patterns == patterns)
        return true;
    read_patterns(f->subscribe, &p);
    if (!tell_function(n, now, place, &p))
        return false;
    n->topics.functions[place].patterns = patterns;
    return true;
}

/* Tells whether anything is other than before: the catalog changes often, its functions rarely. */
static uint64_t digest_of(const struct mp_node *n)
{
    uint64_t digest = 0;
    uint32_t key = 0;
    const struct mp_catalog_function *f = mp_catalog_next_subscribed(&n->catalog, &key);
    for (; f; f = mp_catalog_next_subscribed(&n->catalog, &key))
        digest = mp_slice_hash(f->subscribe, mp_slice_hash(f->name, digest));
    return digest;
}

void mp_node_subscribed_refresh(struct mp_node *n, mp_time now)
{
    struct mp_node_topics *t = &n->topics;
    static const struct patterns none;
    uint32_t key = 0;
    bool is_done = true;
    uint64_t digest = digest_of(n);
    t->are_functions_stale = false;
    if (digest == t->functions_digest && t->refresh_at == MP_NEVER)
        return;
    t->functions_digest = digest;
    for (uint32_t i = 0; i < t->function_capacity; i++)
        t->functions[i].is_there = false;
    for (;;) {
        const struct mp_catalog_function *f = mp_catalog_next_subscribed(&n->catalog, &key);
        if (!f)
            break;
        is_done = refresh_one(n, now, f) && is_done;
    }
    for (uint32_t i = 0; i < t->function_capacity; i++) {
        if (!t->functions[i].own_name || t->functions[i].is_there)
            continue;
        if (tell_function(n, now, i, &none))
            free_function(n, &t->functions[i]);
        else
            is_done = false;
    }
    t->refresh_at = is_done ? MP_NEVER : now + TOLD_EACH; /* there was no memory */
}

void mp_node_subscribed_fini(struct mp_node *n)
{
    struct mp_node_topics *t = &n->topics;
    for (uint32_t i = 0; i < t->function_capacity; i++)
        if (t->functions[i].own_name)
            free_function(n, &t->functions[i]);
    mp_alloc_free(n->alloc, t->functions, t->function_capacity * sizeof(*t->functions));
    mp_buf_fini(&t->args);
}
