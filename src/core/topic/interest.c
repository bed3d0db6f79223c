/* What others are told that is wanted here. Few patterns are told as they are. If there are too
 * many, a pattern stands for all that begin with its first word, and if these are too many, or one
 * begins with a wildcard, `#` for all there is: more may come than is wanted, never less. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/msgpack.h"

/* Patterns that are collected, one behind the other. */
struct list {
    struct mp_slice *items;
    uint32_t count;
    uint8_t *bytes; /* room for MP_TOPIC_INTEREST_BYTES_MAX */
    size_t size;
};

static enum mp_err add(struct list *l, struct mp_slice text)
{
    if (l->count == MP_TOPIC_INTEREST_MAX || text.size > MP_TOPIC_INTEREST_BYTES_MAX - l->size)
        return MP_EFULL;
    memcpy(l->bytes + l->size, text.data, text.size);
    l->items[l->count++] = mp_slice_of(l->bytes + l->size, text.size);
    l->size += text.size;
    return MP_OK;
}

static enum mp_err collect_all(const struct mp_topic *t, struct list *l)
{
    const struct mp_topic_trie *r = &t->trie;
    uint8_t room[MP_TOPIC_BYTES_MAX];
    if (r->client_nodes > MP_TOPIC_INTEREST_MAX || r->client_bytes > MP_TOPIC_INTEREST_BYTES_MAX)
        return MP_EFULL;
    for (struct mp_topic_link *k = r->clients.next; k != &r->clients; k = k->next) {
        const struct mp_topic_node *n = MP_TOPIC_OF(k, struct mp_topic_node, client_link);
        uint32_t place = MP_TOPIC_OF(n->entries.next, struct mp_topic_entry, link)->node;
        MP_TRY(add(l, mp_slice_of(room, mp_topic_trie_pattern(r, place, room))));
    }
    return MP_OK;
}

/* The node of the first word of a pattern. */
static struct mp_topic_node *first_word(const struct mp_topic_trie *r, struct mp_topic_node *n,
                                        uint32_t *place)
{
    while (n->parent != 0) {
        *place = n->parent;
        n = r->nodes[n->parent];
    }
    return n;
}

static enum mp_err collect_words(struct mp_topic *t, struct list *l)
{
    struct mp_topic_trie *r = &t->trie;
    uint8_t room[MP_TOPIC_BYTES_MAX + 2];
    r->mark++;
    for (struct mp_topic_link *k = r->clients.next; k != &r->clients; k = k->next) {
        struct mp_topic_node *n = MP_TOPIC_OF(k, struct mp_topic_node, client_link);
        uint32_t place = MP_TOPIC_OF(n->entries.next, struct mp_topic_entry, link)->node;
        n = first_word(r, n, &place);
        if (n->mark == r->mark)
            continue;
        n->mark = r->mark;
        size_t size = mp_topic_trie_pattern(r, place, room);
        if (size == 1 && (room[0] == '*' || room[0] == '#'))
            return MP_EFULL;
        memcpy(room + size, ".#", 2);
        MP_TRY(add(l, mp_slice_of(room, size + 2)));
    }
    return MP_OK;
}

static void sift_down(struct mp_slice *items, uint32_t count, uint32_t i)
{
    struct mp_slice item = items[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && mp_slice_compare(items[child], items[child + 1]) < 0)
            child++;
        if (mp_slice_compare(items[child], item) <= 0)
            break;
        items[i] = items[child];
        i = child;
    }
    items[i] = item;
}

static void sort(struct mp_slice *items, uint32_t count)
{
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(items, count, i);
    for (uint32_t left = count; left-- > 1;) {
        struct mp_slice last = items[left];
        items[left] = items[0];
        items[0] = last;
        sift_down(items, left, 0);
    }
}

static enum mp_err put_list(const struct list *l, struct mp_buf *out)
{
    MP_TRY(mp_mp_put_array(out, l->count));
    for (uint32_t i = 0; i < l->count; i++)
        MP_TRY(mp_mp_put_str(out, l->items[i]));
    return MP_OK;
}

#define ITEMS_BYTES (MP_TOPIC_INTEREST_MAX * sizeof(struct mp_slice))

enum mp_err mp_topic_put_interest(struct mp_topic *t, struct mp_buf *out)
{
    size_t before = out->size;
    struct list l = {.items = mp_alloc_take(t->alloc, ITEMS_BYTES),
                     .bytes = mp_alloc_take(t->alloc, MP_TOPIC_INTEREST_BYTES_MAX)};
    enum mp_err err = l.items && l.bytes ? MP_OK : MP_ENOMEM;
    if (err == MP_OK && collect_all(t, &l) != MP_OK) {
        l.count = 0;
        l.size = 0;
        if (collect_words(t, &l) != MP_OK) {
            l.count = 1;
            l.items[0] = mp_slice_str("#");
        }
    }
    if (err == MP_OK) {
        sort(l.items, l.count);
        err = put_list(&l, out);
    }
    if (err != MP_OK)
        out->size = before;
    mp_alloc_free(t->alloc, l.items, ITEMS_BYTES);
    mp_alloc_free(t->alloc, l.bytes, MP_TOPIC_INTEREST_BYTES_MAX);
    return err;
}
