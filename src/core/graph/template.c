/* Templates: `args` and its like, compiled once into a run of pieces, so that building a value is
 * copying slices one behind the other. Neither compiling nor building recurses: containers are
 * passed over with an explicit stack, and the default of a reference is laid out behind it.
 *
 * While compiling, everything between two operators is one raw piece, a slice of the graph. */
#include "src/core/graph/graph_internal.h"

#define STACK_MAX (2 * (MP_DEPTH_MAX + 8) + 2)

struct frame {
    uint64_t left; /* values (and keys) still to come */
    bool is_map;
    uint32_t ref; /* the piece whose default this is; MP_GRAPH_NONE: a container */
    const uint8_t *resume;
};

struct compiler {
    struct mp_graph *g;
    uint32_t at; /* of faults */
    enum mp_graph_place place;
    struct mp_mp_reader r;
    const uint8_t *raw; /* start of what is not yet in a piece */
    uint32_t depth;
    uint32_t defaults; /* defaults we are in */
    struct frame stack[STACK_MAX];
};

/* The one or two pairs of an operator. */
struct form {
    struct mp_slice name;
    struct mp_slice value;
    struct mp_slice fallback;
    bool has_fallback;
    bool has_stranger;
    const uint8_t *end;
};

static enum mp_err add_piece(struct mp_graph *g, struct mp_graph_pieces *p,
                             struct mp_graph_piece piece)
{
    struct mp_graph_piece *items =
        mp_graph_grow(g, p->items, &p->capacity, sizeof(*items), p->count + 1);
    if (!items)
        return MP_ENOMEM;
    p->items = items;
    p->items[p->count++] = piece;
    return MP_OK;
}

static enum mp_err flush_raw(struct compiler *c, const uint8_t *until)
{
    if (until == c->raw)
        return MP_OK;
    struct mp_slice text = mp_slice_of(c->raw, (size_t)(until - c->raw));
    return add_piece(c->g, &c->g->pieces,
                     (struct mp_graph_piece){.kind = MP_GRAPH_PIECE_RAW, .text = text});
}

static void push(struct compiler *c, struct frame f)
{
    mp_assert(c->depth + 1 < STACK_MAX);
    c->stack[++c->depth] = f;
}

static bool is_operator_name(struct mp_slice text)
{
    return text.size != 0 && text.data[0] == '$';
}

/* Reads the map at `r` as an operator; false if it is plain data. The graph is well-formed. Reading
 * passes over the default, which is read again when it is compiled: once for each default around
 * it, so the bytes of all of them are budgeted. */
static bool read_operator(struct mp_mp_reader r, struct form *form, uint64_t *budget)
{
    struct mp_mp_token t;
    *form = (struct form){0};
    if (mp_mp_next(&r, &t) != MP_OK || t.type != MP_MP_MAP || t.count == 0)
        return false;
    uint32_t count = t.count;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice key;
        struct mp_slice value;
        struct mp_slice text = {0};
        if (mp_mp_take(&r, &key) != MP_OK)
            return false;
        bool is_text = mp_mp_get_str(key, &text) == MP_OK;
        /* Data is told from its first keys, without reading on: else nested maps cost their
         * depth times their size. */
        bool is_default = is_text && mp_slice_is(text, "default");
        if (form->name.size == 0 && !is_operator_name(text) && !(is_default && count == 2))
            return false;
        if (is_default && *budget == 0)
            return false;
        if (mp_mp_take(&r, &value) != MP_OK)
            return false;
        if (is_default)
            *budget -= value.size < *budget ? value.size : *budget;
        if (is_default && !form->has_fallback) {
            form->has_fallback = true;
            form->fallback = value;
        } else if (form->name.size == 0) {
            form->name = text;
            form->value = value;
        } else {
            form->has_stranger = true;
        }
    }
    form->end = r.at;
    return form->name.size != 0;
}

bool mp_graph_template_is_ref(struct mp_slice value)
{
    struct form form;
    uint64_t budget = UINT64_MAX;
    return value.size != 0 && read_operator(mp_mp_reader_of(value), &form, &budget) &&
           mp_slice_is(form.name, "$ref");
}

static enum mp_err fault_unknown_operator(struct compiler *c, struct mp_slice name)
{
    static const char *const known[] = {"$ref", "$lit", "$item", "$index"};
    struct mp_slice best = {0};
    unsigned distance = 3;
    struct mp_out o = mp_graph_message(c->g);
    mp_out_say(&o, "an object with the key `%s` is no form that a graph knows", name);
    for (size_t i = 0; i < MP_ARRAY_SIZE(known); i++)
        mp_graph_guess(c->g, name, mp_slice_str(known[i]), &best, &distance);
    if (o.err != MP_OK)
        return o.err;
    if (best.size != 0) {
        enum mp_err err = mp_graph_hint(c->g, best);
        if (err != MP_OK)
            return err;
    } else {
        struct mp_out h = mp_out_of(&c->g->hint);
        mp_out_say(&h, "write data as {\"$lit\": …}");
        if (h.err != MP_OK)
            return h.err;
    }
    return mp_graph_fault_add(c->g, c->at, "UNKNOWN_OPERATOR");
}

static enum mp_err fault_operator(struct compiler *c, const char *reason, const char *text,
                                  struct mp_slice name)
{
    struct mp_out o = mp_graph_message(c->g);
    mp_out_say(&o, text, name);
    return o.err != MP_OK ? o.err : mp_graph_fault_add(c->g, c->at, reason);
}

static enum mp_err fault_unknown_step(struct compiler *c, struct mp_slice reference,
                                      struct mp_slice head)
{
    struct mp_graph *g = c->g;
    struct mp_slice best = {0};
    unsigned distance = 4;
    struct mp_out o = mp_graph_message(g);
    mp_out_say(&o, "`%s` refers to the step `%s`, which is not there", reference, head);
    mp_graph_guess(g, head, mp_slice_str("input"), &best, &distance);
    for (uint32_t i = 0; i < g->count && g->guesses_left != 0; i++)
        mp_graph_guess(g, head, g->steps[i].name, &best, &distance);
    enum mp_err err = o.err != MP_OK ? o.err : mp_graph_hint(g, best);
    return err != MP_OK ? err : mp_graph_fault_add(g, c->at, "UNKNOWN_STEP");
}

/* Finds the target and makes the edge; *target is MP_GRAPH_NONE after a fault. */
static enum mp_err find_target(struct compiler *c, struct mp_slice reference, bool has_default,
                               uint32_t *target)
{
    struct mp_graph *g = c->g;
    struct mp_slice head = mp_graph_path_head(reference);
    struct mp_slice path = mp_slice_of(reference.data + head.size, reference.size - head.size);
    *target = MP_GRAPH_NONE;
    if (!mp_slice_is_name(head) || !mp_graph_path_is_valid(path, false))
        return fault_operator(c, "BAD_PATH",
                              "`%s` is no path: step.key, step[1], step[-1], step[\"any key\"]",
                              reference);
    if (mp_slice_is(head, "input")) {
        *target = MP_GRAPH_INPUT;
        return MP_OK;
    }
    uint32_t found;
    if (!mp_map_get(&g->by_name, head, &found))
        return fault_unknown_step(c, reference, head);
    if (c->place == MP_GRAPH_PLACE_OUTPUT) {
        g->steps[found].is_output_needed = true;
        g->steps[found].is_output_strict |= c->defaults == 0;
        *target = found;
        return MP_OK;
    }
    mp_assert(c->at != MP_GRAPH_AT_GRAPH && c->at != MP_GRAPH_AT_OUTPUT);
    uint32_t self = c->at - 1;
    if (found == self)
        return fault_operator(c, "SELF_REFERENCE", "the step refers to itself: `%s`", reference);
    *target = found;
    g->steps[found].is_referred = true;
    bool is_strict = !has_default && c->defaults == 0;
    return mp_graph_order_add(g, self, found,
                              MP_GRAPH_EDGE_REF | (is_strict ? MP_GRAPH_EDGE_STRICT : 0));
}

static enum mp_err compile_ref(struct compiler *c, const struct form *form)
{
    struct mp_slice reference;
    if (c->place == MP_GRAPH_PLACE_DATA)
        return fault_operator(c, "UNKNOWN_OPERATOR", "there can be no reference here: `%s`",
                              form->name);
    if (mp_mp_get_str(form->value, &reference) != MP_OK)
        return fault_operator(c, "BAD_PATH", "the path of `%s` must be a string", form->name);
    uint32_t target;
    enum mp_err err = find_target(c, reference, form->has_fallback, &target);
    if (err != MP_OK)
        return err;
    struct mp_slice head = mp_graph_path_head(reference);
    struct mp_graph_piece piece = {
        .kind = MP_GRAPH_PIECE_REF,
        .step = target,
        .has_default = form->has_fallback,
        .text = mp_slice_of(reference.data + head.size, reference.size - head.size)};
    err = add_piece(c->g, &c->g->pieces, piece);
    if (err != MP_OK || !form->has_fallback)
        return err;
    push(c, (struct frame){.left = 1, .ref = c->g->pieces.count - 1, .resume = form->end});
    c->defaults++;
    c->r.at = form->fallback.data;
    c->raw = form->fallback.data;
    return MP_OK;
}

static enum mp_err compile_item(struct compiler *c, const struct form *form)
{
    struct mp_slice path;
    bool flag;
    if (c->place != MP_GRAPH_PLACE_EACH_ARGS)
        return fault_operator(c, "BAD_ITEM", "`%s` stands only in the args of a step with `each`",
                              form->name);
    if (mp_slice_is(form->name, "$index")) {
        if (mp_mp_get_bool(form->value, &flag) != MP_OK || !flag)
            return fault_operator(c, "BAD_ITEM", "the only form of `%s` is {\"$index\": true}",
                                  form->name);
        return add_piece(c->g, &c->g->pieces,
                         (struct mp_graph_piece){.kind = MP_GRAPH_PIECE_INDEX});
    }
    if (mp_mp_get_str(form->value, &path) != MP_OK)
        return fault_operator(c, "BAD_PATH", "the path of `%s` must be a string", form->name);
    if (!mp_graph_path_is_valid(path, true))
        return fault_operator(c, "BAD_PATH",
                              "`%s` is no path into an element: \"key.key\", "
                              "\"[1]\", \"\" for the element itself",
                              path);
    return add_piece(c->g, &c->g->pieces,
                     (struct mp_graph_piece){.kind = MP_GRAPH_PIECE_ITEM, .text = path});
}

static enum mp_err compile_operator(struct compiler *c, const struct form *form)
{
    bool is_ref = mp_slice_is(form->name, "$ref");
    bool is_lit = mp_slice_is(form->name, "$lit");
    bool is_item = mp_slice_is(form->name, "$item") || mp_slice_is(form->name, "$index");
    enum mp_err err = flush_raw(c, c->r.at);
    if (err != MP_OK)
        return err;
    c->r.at = form->end;
    c->raw = form->end;
    if (!is_ref && !is_lit && !is_item)
        return fault_unknown_operator(c, form->name);
    if (form->has_stranger || (form->has_fallback && !is_ref))
        return fault_operator(c, "UNKNOWN_OPERATOR",
                              "`%s` stands alone in its object, save that "
                              "`$ref` may have a `default`",
                              form->name);
    if (is_lit) {
        c->raw = form->value.data;
        err = flush_raw(c, form->value.data + form->value.size);
        c->raw = form->end;
        return err;
    }
    return is_ref ? compile_ref(c, form) : compile_item(c, form);
}

static enum mp_err compile_value(struct compiler *c)
{
    struct form form;
    if (read_operator(c->r, &form, &c->g->defaults_left))
        return compile_operator(c, &form);
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(&c->r, &t);
    mp_assert(err == MP_OK);
    if (t.type == MP_MP_MAP)
        push(c,
             (struct frame){.left = 2 * (uint64_t)t.count, .is_map = true, .ref = MP_GRAPH_NONE});
    else if (t.type == MP_MP_ARRAY)
        push(c, (struct frame){.left = t.count, .ref = MP_GRAPH_NONE});
    return MP_OK;
}

static enum mp_err compile_key(struct compiler *c)
{
    struct mp_slice key;
    struct mp_slice text;
    enum mp_err err = mp_mp_take(&c->r, &key);
    mp_assert(err == MP_OK);
    if (mp_mp_get_str(key, &text) == MP_OK && is_operator_name(text))
        return fault_unknown_operator(c, text);
    return MP_OK;
}

static enum mp_err close_frame(struct compiler *c)
{
    struct frame *f = &c->stack[c->depth--];
    if (f->ref == MP_GRAPH_NONE)
        return MP_OK;
    struct mp_graph_pieces *p = &c->g->pieces;
    enum mp_err err = flush_raw(c, c->r.at);
    p->items[f->ref].default_count = p->count - f->ref - 1;
    c->r.at = f->resume;
    c->raw = f->resume;
    c->defaults--;
    return err;
}

enum mp_err mp_graph_template_compile(struct mp_graph *g, uint32_t at, enum mp_graph_place place,
                                      struct mp_slice value, struct mp_graph_range *range)
{
    struct compiler c;
    c.g = g;
    c.at = at;
    c.place = place;
    c.r = mp_mp_reader_of(value);
    c.raw = value.data;
    c.depth = 0;
    c.defaults = 0;
    c.stack[0] = (struct frame){.left = 1, .ref = MP_GRAPH_NONE};
    uint32_t first = g->pieces.count;
    enum mp_err err = MP_OK;
    while (err == MP_OK && (c.depth != 0 || c.stack[0].left != 0)) {
        struct frame *f = &c.stack[c.depth];
        if (f->left == 0) {
            err = close_frame(&c);
        } else {
            bool is_key = f->is_map && f->left % 2 == 0;
            f->left--;
            err = is_key ? compile_key(&c) : compile_value(&c);
        }
    }
    if (err == MP_OK)
        err = flush_raw(&c, c.r.at);
    *range = (struct mp_graph_range){.first = first, .count = g->pieces.count - first};
    return err;
}

static enum mp_err resolve(const struct mp_graph *g, const struct mp_graph_piece *piece,
                           struct mp_slice *found, struct mp_graph_miss *miss)
{
    struct mp_slice value = g->input;
    miss->step = piece->step;
    miss->path = piece->text;
    miss->is_skipped = false;
    if (piece->step != MP_GRAPH_INPUT) {
        const struct mp_graph_step_record *s = &g->steps[piece->step];
        if (s->state == MP_GRAPH_SKIPPED) {
            miss->is_skipped = true;
            return MP_ENOENT;
        }
        mp_assert(s->state == MP_GRAPH_DONE);
        mp_assert(!s->is_shrunk && !s->is_held);
        value = s->result;
    }
    return mp_graph_path_walk(value, piece->text, found, &miss->path_at, &miss->inside);
}

bool mp_graph_template_holds(const struct mp_graph *g, const struct mp_graph_piece *ref)
{
    struct mp_slice found;
    struct mp_graph_miss miss;
    return resolve(g, ref, &found, &miss) == MP_OK;
}

/* A held result that need not come here: its part cannot miss, or nothing stands in for it. */
static bool is_hole(const struct mp_graph *g, const struct mp_graph_piece *ref)
{
    return ref->step != MP_GRAPH_INPUT && g->steps[ref->step].is_held &&
           (!ref->has_default || ref->text.size == 0);
}

enum mp_err mp_graph_template_bind(struct mp_graph *g, struct mp_graph_range range,
                                   enum mp_graph_bind how, struct mp_graph_pieces *into,
                                   struct mp_graph_miss *miss)
{
    static const uint8_t nil = 0xc0;
    uint32_t end = range.first + range.count;
    for (uint32_t i = range.first; i < end; i++) {
        struct mp_graph_piece piece = g->pieces.items[i];
        if (piece.kind == MP_GRAPH_PIECE_REF && g->has_held && how == MP_GRAPH_BIND_ARGS &&
            is_hole(g, &piece)) {
            i += piece.default_count;
            piece.kind = MP_GRAPH_PIECE_HOLE;
        } else if (piece.kind == MP_GRAPH_PIECE_REF) {
            struct mp_slice found;
            enum mp_err err = resolve(g, &piece, &found, miss);
            if (err == MP_ENOENT && piece.has_default)
                continue;
            if (err == MP_ENOENT && miss->is_skipped && how == MP_GRAPH_BIND_OUTPUT)
                found = mp_slice_of(&nil, 1);
            else if (err != MP_OK)
                return err;
            i += piece.default_count;
            piece = (struct mp_graph_piece){.kind = MP_GRAPH_PIECE_RAW, .text = found};
        }
        enum mp_err err = add_piece(g, into, piece);
        if (err != MP_OK)
            return err;
    }
    return MP_OK;
}

/* What stands at a hole now: the hole, or its value if that has come since it was bound. */
static enum mp_err fill_hole(struct mp_graph *g, const struct mp_graph_piece *piece,
                             struct mp_slice *bytes, struct mp_graph_miss *miss)
{
    const struct mp_graph_step_record *s = &g->steps[piece->step];
    if (!s->is_held)
        return resolve(g, piece, bytes, miss);
    enum mp_err err = mp_graph_held_put_hole(g, s, piece->text);
    *bytes = mp_buf_slice(&g->hole);
    g->holes++;
    return err;
}

enum mp_err mp_graph_template_join(struct mp_graph *g, const struct mp_graph_pieces *bound,
                                   struct mp_slice item, uint32_t index, size_t bytes_max,
                                   struct mp_buf *out, struct mp_graph_miss *miss)
{
    size_t before = out->size;
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < bound->count; i++) {
        const struct mp_graph_piece *piece = &bound->items[i];
        struct mp_slice bytes = piece->text;
        if (piece->kind == MP_GRAPH_PIECE_INDEX) {
            err = mp_mp_put_uint(out, index);
            continue;
        }
        if (piece->kind == MP_GRAPH_PIECE_ITEM) {
            *miss = (struct mp_graph_miss){.step = MP_GRAPH_NONE, .path = piece->text};
            err = mp_graph_path_walk(item, piece->text, &bytes, &miss->path_at, &miss->inside);
        }
        if (piece->kind == MP_GRAPH_PIECE_HOLE)
            err = fill_hole(g, piece, &bytes, miss);
        size_t used = out->size - before;
        if (err == MP_OK && (used > bytes_max || bytes.size > bytes_max - used))
            err = MP_ETOOLARGE;
        if (err == MP_OK)
            err = mp_buf_append(out, bytes);
    }
    if (err != MP_OK)
        out->size = before;
    return err;
}
