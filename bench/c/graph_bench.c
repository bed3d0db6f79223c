/* What the graph machine itself costs per step: from LOAD to FINISHED with calls that take no time,
 * answered in batches, the way a host does. Nothing but the machine runs here.
 *
 *   build/bench/graph_bench [ROUNDS] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/core/graph/graph.h"
#include "src/wire/msgpack.h"

#define CALLS_MAX 65536

struct shape {
    const char *name;
    uint32_t steps;
    bool is_chain;
    uint32_t elements; /* of one step with `each`; 0: none */
};

static const struct shape shapes[] = {{"1,000 independent steps", 1000, false, 0},
                                      {"10,000 independent steps", 10000, false, 0},
                                      {"100,000 independent steps", 100000, false, 0},
                                      {"a chain of 5,000", 5000, true, 0},
                                      {"each of 50,000", 1, false, 50000},
                                      {"each of 1,000,000", 1, false, 1000000}};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t live_bytes;
static size_t most_bytes;

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    live_bytes += new_size - old_size;
    most_bytes = live_bytes > most_bytes ? live_bytes : most_bytes;
    if (new_size != 0)
        return realloc(p, new_size);
    free(p);
    return NULL;
}

static void check(enum mp_err err)
{
    if (err != MP_OK) {
        fprintf(stderr, "%s\n", mp_err_text(err));
        exit(1);
    }
}

static void put_ref(struct mp_buf *b, const char *path)
{
    check(mp_mp_put_map(b, 1));
    check(mp_mp_put_text(b, "$ref"));
    check(mp_mp_put_text(b, path));
}

static void put_graph(struct mp_buf *b, const struct shape *s)
{
    char name[16];
    char path[24];
    check(mp_mp_put_map(b, 1));
    check(mp_mp_put_text(b, "steps"));
    check(mp_mp_put_array(b, s->steps));
    for (uint32_t i = 0; i < s->steps; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        snprintf(path, sizeof(path), "s%u[1]", i - 1);
        check(mp_mp_put_map(b, s->elements != 0 ? 4 : 3));
        check(mp_mp_put_text(b, "name"));
        check(mp_mp_put_text(b, name));
        check(mp_mp_put_text(b, "call"));
        check(mp_mp_put_text(b, "mpreg.echo"));
        check(mp_mp_put_text(b, "args"));
        check(mp_mp_put_array(b, 1));
        if (s->is_chain && i != 0)
            put_ref(b, path);
        else
            check(mp_mp_put_uint(b, i));
        if (s->elements == 0)
            continue;
        check(mp_mp_put_text(b, "each"));
        check(mp_mp_put_array(b, s->elements));
        for (uint32_t k = 0; k < s->elements; k++)
            check(mp_mp_put_uint(b, k));
    }
}

struct pending {
    uint64_t invocations[CALLS_MAX];
    uint32_t count;
    uint32_t next;
    bool is_over;
};

static void carry_out(struct pending *p, const struct mp_graph_effects *effects)
{
    for (uint32_t i = 0; i < effects->count; i++) {
        if (effects->items[i].kind == MP_GRAPH_INVOKE)
            p->invocations[p->count++ % CALLS_MAX] = effects->items[i].invoke.invocation;
        else if (effects->items[i].kind == MP_GRAPH_FINISHED)
            p->is_over = true;
    }
}

/* What a watcher is told, made again and again; nanoseconds for one event. */
static double tell(struct mp_graph *g)
{
    struct mp_alloc alloc = {.resize = resize};
    struct mp_buf b;
    const uint32_t rounds = 10000;
    mp_buf_init(&b, &alloc, 0);
    uint64_t count = mp_graph_event_count(g);
    uint64_t began = now_ns();
    for (uint32_t i = 0; i < rounds; i++) {
        mp_buf_clear(&b);
        for (uint64_t seq = 1; seq <= count; seq++)
            check(mp_graph_put_event(g, seq, &b));
    }
    double took = (double)(now_ns() - began) / ((double)rounds * (double)count);
    mp_buf_fini(&b);
    return took;
}

/* One run; nanoseconds. `told` NULL: nobody watches. */
static uint64_t run_once(struct mp_slice graph, uint32_t steps, struct pending *p, double *told)
{
    static const uint8_t result[] = {0x91, 0x01};
    struct mp_alloc alloc = {.resize = resize};
    struct mp_graph_config cfg = {.run_id = mp_slice_str("run"),
                                  .node = mp_slice_str("n1"),
                                  .steps_max = 100000,
                                  .value_bytes_max = 64u << 20,
                                  .kept_bytes_max = 256u << 20};
    struct mp_graph *g = (struct mp_graph *)aligned_alloc(16, mp_graph_size());
    struct mp_graph_effects effects;
    uint64_t began = now_ns();
    check(mp_graph_init(g, &cfg, &alloc, 1));
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD, .load = {.graph = graph}};
    check(mp_graph_step(g, 0, &ev, &effects));
    for (uint32_t i = 0; i < steps; i++) {
        ev = (struct mp_graph_event){.kind = MP_GRAPH_RESOLVED,
                                     .resolved = {.step = i,
                                                  .version = mp_slice_str("1.0.0"),
                                                  .node = mp_slice_str("n1"),
                                                  .workers = 2}};
        check(mp_graph_step(g, 0, &ev, &effects));
    }
    ev = (struct mp_graph_event){.kind = MP_GRAPH_START};
    check(mp_graph_step(g, 0, &ev, &effects));
    *p = (struct pending){0};
    carry_out(p, &effects);
    while (!p->is_over) {
        ev = (struct mp_graph_event){
            .kind = MP_GRAPH_COMPLETED,
            .completed = {.invocation = p->invocations[p->next++ % CALLS_MAX],
                          .value = mp_slice_of(result, sizeof(result)),
                          .node = mp_slice_str("n1"),
                          .version = mp_slice_str("1.0.0"),
                          .worker = 1,
                          .bytes_in = 2}};
        check(mp_graph_step(g, p->next, &ev, &effects));
        carry_out(p, &effects);
    }
    uint64_t took = now_ns() - began;
    if (told)
        *told = tell(g);
    began = now_ns();
    mp_graph_fini(g);
    took += now_ns() - began;
    free(g);
    return took;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    struct mp_alloc alloc = {.resize = resize};
    struct pending *p = (struct pending *)malloc(sizeof(*p));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *s = &shapes[i];
        struct mp_buf graph;
        uint32_t calls = s->elements != 0 ? s->elements : s->steps;
        uint64_t best = UINT64_MAX;
        mp_buf_init(&graph, &alloc, 0);
        put_graph(&graph, s);
        size_t before = live_bytes;
        most_bytes = live_bytes;
        for (int round = 0; round < rounds; round++) {
            uint64_t took = run_once(mp_buf_slice(&graph), s->steps, p, NULL);
            best = took < best ? took : best;
        }
        printf("%-26s %8.0f ns a call %8.1f bytes a call %8.1f ms\n", s->name, (double)best / calls,
               (double)(most_bytes - before) / calls, (double)best / 1e6);
        mp_buf_fini(&graph);
    }
    const struct shape ten = {"a chain of ten", 10, true, 0};
    struct mp_buf graph;
    double best = 0;
    mp_buf_init(&graph, &alloc, 0);
    put_graph(&graph, &ten);
    for (int round = 0; round < rounds; round++) {
        double told;
        (void)run_once(mp_buf_slice(&graph), ten.steps, p, &told);
        best = round == 0 || told < best ? told : best;
    }
    mp_buf_fini(&graph);
    printf("%-26s %8.0f ns an event that is told\n", ten.name, best);
    free(p);
    return 0;
}
