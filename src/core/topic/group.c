/* Functions and members: receivers with many patterns, all of which are told at once. A message
 * goes to each once, however many of them match. Patterns come in ascending order, so that what
 * changed is found by going through both lists once. */
#include "src/base/text.h"
#include "src/core/topic/topic_internal.h"
#include "src/wire/msgpack.h"

/* --- life --- */

struct mp_topic_group *mp_topic_group_of(const struct mp_topic_groups *all, uint32_t number)
{
    return number < all->capacity ? all->items[number] : NULL;
}

static enum mp_err group_new(struct mp_topic *t, struct mp_topic_groups *all, uint32_t number,
                             struct mp_topic_group **out)
{
    uint32_t before = all->capacity;
    MP_TRY(mp_topic_grow(t->alloc, (void **)&all->items, &all->capacity, number + 1,
                         sizeof(struct mp_topic_group *)));
    for (uint32_t i = before; i < all->capacity; i++)
        all->items[i] = NULL;
    struct mp_topic_group *g = mp_alloc_take(t->alloc, sizeof(*g));
    if (!g)
        return MP_ENOMEM;
    *g = (struct mp_topic_group){.number = number};
    mp_topic_sink_init(&g->sink, all->kind, t);
    mp_buf_init(&g->patterns, t->alloc, 0);
    all->items[number] = g;
    *out = g;
    return MP_OK;
}

static void remove_entry(struct mp_topic *t, struct mp_topic_entry *e)
{
    mp_topic_trie_remove(t, e);
    mp_alloc_free(t->alloc, e, sizeof(*e));
}

static void asked_free(struct mp_topic *t, struct mp_topic_asked *a)
{
    mp_topic_list_remove(&a->link);
    mp_topic_trie_remove(t, &a->entry);
    t->asked_count--;
    mp_alloc_free(t->alloc, a, sizeof(*a));
}

static void forget_asked(struct mp_topic *t, const struct mp_topic_group *g)
{
    struct mp_topic_link *next;
    for (struct mp_topic_link *l = t->asked.next; l != &t->asked; l = next) {
        struct mp_topic_asked *a = MP_TOPIC_OF(l, struct mp_topic_asked, link);
        next = l->next;
        if (a->entry.sink == &g->sink)
            asked_free(t, a);
    }
}

static void group_free(struct mp_topic *t, struct mp_topic_groups *all, struct mp_topic_group *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        remove_entry(t, g->entries[i]);
    mp_alloc_free(t->alloc, g->entries, g->count * sizeof(struct mp_topic_entry *));
    mp_buf_fini(&g->patterns);
    mp_topic_sink_fini(&g->sink, t);
    all->items[g->number] = NULL;
    mp_alloc_free(t->alloc, g, sizeof(*g));
}

void mp_topic_groups_fini(struct mp_topic *t, struct mp_topic_groups *all)
{
    for (uint32_t i = 0; i < all->capacity; i++) {
        if (!all->items[i])
            continue;
        if (all->kind == MP_TOPIC_SINK_MEMBER)
            forget_asked(t, all->items[i]);
        group_free(t, all, all->items[i]);
    }
    mp_alloc_free(t->alloc, all->items, all->capacity * sizeof(struct mp_topic_group *));
}

void mp_topic_member_gone(struct mp_topic *t, uint32_t number)
{
    struct mp_topic_group *g = mp_topic_group_of(&t->members, number);
    if (!g)
        return;
    forget_asked(t, g);
    group_free(t, &t->members, g);
}

/* --- patterns --- */

/* A text of an array that has been checked. */
static struct mp_slice next_text(struct mp_mp_reader *r)
{
    struct mp_mp_token token;
    enum mp_err err = mp_mp_next(r, &token);
    mp_assert(err == MP_OK && token.type == MP_MP_STR);
    return token.bytes;
}

static enum mp_err check_patterns(struct mp_topic *t, struct mp_slice array, uint32_t *count)
{
    struct mp_mp_reader r;
    struct mp_slice last = {0};
    if (mp_mp_get_array(array, count, &r) != MP_OK)
        return MP_ECORRUPT;
    if (*count > MP_TOPIC_PATTERNS_MAX)
        return MP_EFULL;
    for (uint32_t i = 0; i < *count; i++) {
        struct mp_mp_token token;
        if (mp_mp_next(&r, &token) != MP_OK || token.type != MP_MP_STR)
            return MP_ECORRUPT;
        MP_TRY(mp_topic_check_pattern(t, token.bytes));
        if (i != 0 && mp_slice_compare(last, token.bytes) >= 0) {
            struct mp_text message;
            mp_text_init(&message, t->message, sizeof(t->message));
            mp_text_put(&message, "patterns have to ascend, each but once: ");
            mp_text_put_slice(&message, token.bytes);
            return MP_EINVAL;
        }
        last = token.bytes;
    }
    return mp_mp_is_at_end(&r) ? MP_OK : MP_ECORRUPT;
}

static enum mp_err add_entry(struct mp_topic *t, struct mp_topic_group *g, struct mp_slice pattern,
                             struct mp_topic_entry **out)
{
    struct mp_topic_entry *e = mp_alloc_take(t->alloc, sizeof(*e));
    if (!e)
        return MP_ENOMEM;
    *e = (struct mp_topic_entry){.sink = &g->sink, .is_fresh = true};
    enum mp_err err = mp_topic_trie_add(t, pattern, e);
    if (err != MP_OK) {
        mp_alloc_free(t->alloc, e, sizeof(*e));
        return err;
    }
    *out = e;
    return MP_OK;
}

/* Makes the entries of a new list, with those of the old one that are in both. `made` says how many
 * there are, also if it fails. */
static enum mp_err make_entries(struct mp_topic *t, struct mp_topic_group *g,
                                struct mp_slice patterns, struct mp_topic_entry **entries,
                                uint32_t count, uint32_t *made)
{
    struct mp_mp_reader r;
    struct mp_mp_reader old = {0};
    uint32_t at = 0;
    uint32_t old_count = 0;
    struct mp_slice old_text = {0};
    enum mp_err err = mp_mp_get_array(patterns, &count, &r);
    if (err == MP_OK && g->count != 0) {
        err = mp_mp_get_array(mp_buf_slice(&g->patterns), &old_count, &old);
        mp_assert(old_count == g->count);
        old_text = next_text(&old);
    }
    mp_assert(err == MP_OK);
    for (*made = 0; *made < count; (*made)++) {
        struct mp_slice text = next_text(&r);
        while (at < g->count && mp_slice_compare(old_text, text) < 0)
            if (++at < g->count)
                old_text = next_text(&old);
        if (at < g->count && mp_slice_equal(old_text, text))
            entries[*made] = g->entries[at];
        else
            MP_TRY(add_entry(t, g, text, &entries[*made]));
    }
    return MP_OK;
}

/* Of `entries`, those that are (or, to be kept, are not) of the new list only. */
static void undo_entries(struct mp_topic *t, struct mp_topic_entry **entries, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (entries[i]->is_fresh)
            remove_entry(t, entries[i]);
}

static void replace_entries(struct mp_topic *t, struct mp_topic_group *g,
                            struct mp_topic_entry **own_entries, uint32_t count)
{
    /* what is in the new list is fresh for a moment, what is left of the old one is not */
    for (uint32_t i = 0; i < count; i++)
        own_entries[i]->is_fresh = true;
    for (uint32_t i = 0; i < g->count; i++)
        if (!g->entries[i]->is_fresh)
            remove_entry(t, g->entries[i]);
    for (uint32_t i = 0; i < count; i++)
        own_entries[i]->is_fresh = false;
    mp_alloc_free(t->alloc, g->entries, g->count * sizeof(struct mp_topic_entry *));
    g->entries = own_entries;
    g->count = count;
}

static enum mp_err exchange(struct mp_topic *t, struct mp_topic_group *g, struct mp_slice patterns,
                            uint32_t count)
{
    struct mp_buf copy;
    uint32_t made = 0;
    struct mp_topic_entry **entries = NULL;
    mp_buf_init(&copy, t->alloc, 0);
    MP_TRY(mp_buf_append(&copy, patterns));
    if (count != 0) {
        entries = mp_alloc_take(t->alloc, count * sizeof(struct mp_topic_entry *));
        if (!entries) {
            mp_buf_fini(&copy);
            return MP_ENOMEM;
        }
    }
    enum mp_err err = make_entries(t, g, patterns, entries, count, &made);
    if (err != MP_OK) {
        undo_entries(t, entries, made);
        mp_alloc_free(t->alloc, entries, count * sizeof(struct mp_topic_entry *));
        mp_buf_fini(&copy);
        return err;
    }
    replace_entries(t, g, entries, count);
    mp_buf_fini(&g->patterns);
    g->patterns = copy;
    return MP_OK;
}

enum mp_err mp_topic_group_set(struct mp_topic *t, struct mp_topic_groups *all, uint32_t number,
                               struct mp_slice patterns)
{
    uint32_t count;
    struct mp_topic_group *g = mp_topic_group_of(all, number);
    MP_TRY(check_patterns(t, patterns, &count));
    if (!g && count == 0)
        return MP_OK;
    bool is_new = !g;
    if (is_new)
        MP_TRY(group_new(t, all, number, &g));
    enum mp_err err = exchange(t, g, patterns, count);
    /* A member may have asked for a backlog, and what is queued for it is on its way. */
    if ((err != MP_OK && is_new) ||
        (err == MP_OK && count == 0 && all->kind == MP_TOPIC_SINK_FUNCTION))
        group_free(t, all, g);
    return err;
}

/* --- for a while --- */

enum mp_err mp_topic_asked(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    struct mp_slice array;
    struct mp_topic_group *g = mp_topic_group_of(&t->members, ev->member);
    MP_TRY(mp_topic_check_pattern(t, ev->asked.pattern));
    MP_TRY(mp_topic_backlog_query(t, ev->asked.pattern, ev->asked.since_ms, ev->wall_ms, &array));
    if (!g)
        MP_TRY(group_new(t, &t->members, ev->member, &g));
    struct mp_topic_asked *a = mp_alloc_take(t->alloc, sizeof(*a));
    if (!a)
        return MP_ENOMEM;
    *a = (struct mp_topic_asked){.entry = {.sink = &g->sink},
                                 .until = mp_time_add(now, MP_MS(MP_TOPIC_ASKED_MS))};
    enum mp_err err = mp_topic_trie_add(t, ev->asked.pattern, &a->entry);
    if (err != MP_OK) {
        mp_alloc_free(t->alloc, a, sizeof(*a));
        return err;
    }
    mp_topic_list_add(&t->asked, &a->link);
    if (++t->asked_count > MP_TOPIC_ASKED_MAX)
        asked_free(t, MP_TOPIC_OF(t->asked.next, struct mp_topic_asked, link));
    t->answered = array;
    return MP_OK;
}

void mp_topic_asked_expire(struct mp_topic *t, mp_time now)
{
    while (!mp_topic_list_is_empty(&t->asked)) {
        struct mp_topic_asked *a = MP_TOPIC_OF(t->asked.next, struct mp_topic_asked, link);
        if (a->until > now)
            return;
        asked_free(t, a);
    }
}
