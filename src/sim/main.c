/* mpreg-sim: lives through simulated worlds, one for each seed, and tells whether the node kept its
 * promises. The only file of the simulator that prints and takes memory from libc. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/slice.h"
#include "src/sim/world.h"

#define SEEDS_MAX 1000000

enum exit_code { EXIT_KEPT = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2 };

struct options {
    const char *scenario;
    uint64_t nodes;
    uint64_t seed;
    uint64_t seeds;
    bool is_json;
    bool is_help;
};

struct totals {
    uint64_t digest;
    mp_time virtual_time;
    uint64_t violations;
    uint64_t runs;
    uint64_t succeeded;
    uint64_t lost;
    uint64_t duplicated;
    uint64_t calls_begun;
    uint64_t worker_deaths;
    struct mp_world_violation first[MP_WORLD_VIOLATIONS_MAX];
    uint64_t first_seed[MP_WORLD_VIOLATIONS_MAX];
    uint32_t first_count;
};

static const char help[] =
    "usage: mpreg-sim SCENARIO [--nodes N] [--seed S] [--seeds N] [-o json]\n"
    "\n"
    "Runs a node's core in an invented world, in virtual time. The same seed gives the same\n"
    "digest. Exit code 1 when an invariant broke, 2 when the command is not understood.\n"
    "\n"
    "scenarios:\n"
    "  graph       clients run graphs on one node whose workers fail, hang and die\n"
    "\n"
    "  --nodes N   nodes in the world (1)\n"
    "  --seed S    the seed (1)\n"
    "  --seeds N   worlds: the seeds S, S+1, … (1)\n"
    "  -o json     one JSON document\n"
    "\n"
    "example: mpreg-sim graph --seed 7 --seeds 100 -o json\n";

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}

/* --- the command line --- */

static bool read_number(const char *flag, const char *text, uint64_t max, uint64_t *number)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = text ? strtoull(text, &end, 10) : 0;
    if (!text || text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > max) {
        fprintf(stderr, "error: %s expects a number up to %" PRIu64 ", not %s\n", flag, max,
                text ? text : "nothing");
        return false;
    }
    *number = value;
    return true;
}

/* The flag's value: behind '=' or the next word, which is then used up. NULL: another flag. */
static bool is_flag(const char *flag, int argc, char **argv, int *i, const char **value)
{
    size_t size = strlen(flag);
    if (strncmp(argv[*i], flag, size) != 0)
        return false;
    if (argv[*i][size] == '=') {
        *value = argv[*i] + size + 1;
        return true;
    }
    if (argv[*i][size] != '\0')
        return false;
    *value = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

static bool read_output(const char *value, struct options *o)
{
    o->is_json = value && strcmp(value, "json") == 0;
    if (!o->is_json)
        fprintf(stderr, "error: -o expects json, not %s\n", value ? value : "nothing");
    return o->is_json;
}

static bool read_options(int argc, char **argv, struct options *o)
{
    *o = (struct options){.nodes = 1, .seed = 1, .seeds = 1};
    for (int i = 1; i < argc; i++) {
        const char *value;
        bool is_read = true;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            o->is_help = true;
        } else if (is_flag("--nodes", argc, argv, &i, &value)) {
            is_read = read_number("--nodes", value, UINT32_MAX, &o->nodes);
        } else if (is_flag("--seeds", argc, argv, &i, &value)) {
            is_read = read_number("--seeds", value, SEEDS_MAX, &o->seeds);
        } else if (is_flag("--seed", argc, argv, &i, &value)) {
            is_read = read_number("--seed", value, UINT64_MAX, &o->seed);
        } else if (is_flag("-o", argc, argv, &i, &value)) {
            is_read = read_output(value, o);
        } else if (argv[i][0] == '-' || o->scenario) {
            fprintf(stderr, "error: unknown %s %s\n", argv[i][0] == '-' ? "flag" : "argument",
                    argv[i]);
            is_read = false;
        } else {
            o->scenario = argv[i];
        }
        if (!is_read)
            return false;
    }
    return true;
}

static bool check_options(const struct options *o)
{
    if (!o->scenario)
        fputs("error: a scenario is missing (known: graph)\n", stderr);
    else if (strcmp(o->scenario, "graph") != 0)
        fprintf(stderr, "error: unknown scenario %s (known: graph)\n", o->scenario);
    else if (o->nodes != 1)
        fprintf(stderr,
                "error: scenario graph knows one node: --nodes %" PRIu64 " is not possible\n",
                o->nodes);
    else if (o->seeds == 0)
        fputs("error: --seeds expects at least 1\n", stderr);
    else
        return true;
    return false;
}

/* --- living --- */

static void add(struct totals *t, uint64_t seed, const struct mp_world_report *r)
{
    const uint64_t both[2] = {t->digest, r->digest};
    t->digest = mp_slice_hash(mp_slice_of(both, sizeof(both)), 0);
    t->virtual_time += r->virtual_time;
    t->violations += r->violation_count;
    t->runs += r->runs;
    t->succeeded += r->runs_succeeded;
    t->lost += r->runs_lost;
    t->duplicated += r->runs_duplicated;
    t->calls_begun += r->calls_begun;
    t->worker_deaths += r->worker_deaths;
    for (uint32_t i = 0; i < r->violation_count && i < MP_WORLD_VIOLATIONS_MAX; i++)
        if (t->first_count < MP_WORLD_VIOLATIONS_MAX) {
            t->first[t->first_count] = r->violations[i];
            t->first_seed[t->first_count++] = seed;
        }
}

static void live(const struct options *o, struct totals *t)
{
    struct mp_alloc alloc = {.resize = resize};
    *t = (struct totals){0};
    for (uint64_t i = 0; i < o->seeds; i++) {
        struct mp_world_config cfg;
        struct mp_world_report report;
        mp_world_defaults(&cfg, o->seed + i);
        cfg.chances.run = 700;
        mp_world_live(&cfg, &alloc, &report);
        add(t, o->seed + i, &report);
    }
}

static void print_json(const struct options *o, const struct totals *t)
{
    printf("{\"scenario\":\"%s\",\"nodes\":%" PRIu64 ",\"seed\":\"%" PRIu64 "\",\"seeds\":%" PRIu64
           ",\"ok\":%s,\"digest\":\"%016" PRIx64 "\",\"virtual_seconds\":%.3f",
           o->scenario, o->nodes, o->seed, o->seeds, t->violations == 0 ? "true" : "false",
           t->digest, (double)t->virtual_time / 1e9);
    printf(",\"runs\":%" PRIu64 ",\"succeeded\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"duplicated\":%" PRIu64 ",\"calls_begun\":%" PRIu64 ",\"worker_deaths\":%" PRIu64,
           t->runs, t->succeeded, t->lost, t->duplicated, t->calls_begun, t->worker_deaths);
    printf(",\"violation_count\":%" PRIu64 ",\"violations\":[", t->violations);
    for (uint32_t i = 0; i < t->first_count; i++)
        printf("%s{\"seed\":\"%" PRIu64 "\",\"at_ms\":%.3f,\"text\":\"%s\"}", i == 0 ? "" : ",",
               t->first_seed[i], (double)t->first[i].at / 1e6, t->first[i].text);
    puts("]}");
}

static void print_text(const struct totals *t)
{
    printf("%s  digest %016" PRIx64 "  %.1f virtual seconds\n",
           t->violations == 0 ? "ok" : "BROKEN", t->digest, (double)t->virtual_time / 1e9);
    printf("runs %" PRIu64 "  succeeded %" PRIu64 "  lost %" PRIu64 "  duplicated %" PRIu64 "\n",
           t->runs, t->succeeded, t->lost, t->duplicated);
    for (uint32_t i = 0; i < t->first_count; i++)
        printf("seed %" PRIu64 ", at %.3f ms: %s\n", t->first_seed[i], (double)t->first[i].at / 1e6,
               t->first[i].text);
}

int main(int argc, char **argv)
{
    struct options o;
    struct totals t;
    if (!read_options(argc, argv, &o))
        return EXIT_USAGE;
    if (o.is_help) {
        fputs(help, stdout);
        return EXIT_KEPT;
    }
    if (!check_options(&o))
        return EXIT_USAGE;
    live(&o, &t);
    if (o.is_json)
        print_json(&o, &t);
    else
        print_text(&t);
    if (fflush(stdout) != 0)
        return EXIT_BROKEN;
    return t.violations == 0 ? EXIT_KEPT : EXIT_BROKEN;
}
