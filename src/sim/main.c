/* mpreg-sim: lives through simulated worlds, one for each seed, and tells whether the nodes kept
 * their promises. The only file of the simulator that prints and takes memory from libc. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/slice.h"
#include "src/sim/defects.h"
#include "src/sim/world.h"

#define SEEDS_MAX     1000000
#define NODES_MAX     100000
#define HOURS_MAX     100000
#define PARTITION_MAX (366ull * 86400)
#define UNSET         UINT64_MAX

enum exit_code { EXIT_KEPT = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2 };

struct options {
    const char *scenario_name;
    enum mp_world_scenario scenario;
    uint64_t nodes; /* 0: the scenario's own number */
    uint64_t seed;
    uint64_t seeds;
    uint64_t loss; /* UNSET: as drawn; so below */
    uint64_t slow;
    uint64_t hours;
    uint64_t partition;
    uint64_t crashes;
    const char *defect; /* NULL: none */
    bool is_json;
    bool is_logged;
    bool is_help;
    bool is_list;
    bool is_check;
};

struct totals {
    uint64_t digest;
    mp_time virtual_time;
    uint64_t violations;
    uint64_t steps;
    uint64_t runs;
    uint64_t succeeded;
    uint64_t stopped;
    uint64_t unreachable;
    uint64_t watched;
    uint64_t events;
    uint64_t resumed;
    uint64_t lost_runs;
    uint64_t lost;
    uint64_t duplicated;
    uint64_t requests;
    uint64_t calls_begun;
    uint64_t worker_deaths;
    uint64_t crashes;
    uint64_t faults;
    uint64_t remote_calls;
    uint64_t relayed_calls;
    uint64_t false_deaths;
    uint64_t changes;
    uint64_t changes_refused;
    uint64_t published;
    uint64_t delivered;
    uint64_t dropped;
    double converged_ms; /* the slowest of the worlds */
    double healed_ms;
    double bytes_per_node_s; /* the mean */
    double node_bytes;
    double *samples;
    size_t sample_count;
    size_t sample_capacity;
    struct mp_world_violation first[MP_WORLD_VIOLATIONS_MAX];
    uint64_t first_seed[MP_WORLD_VIOLATIONS_MAX];
    uint32_t first_count;
};

static const struct {
    const char *name;
    uint32_t nodes;
} scenarios[MP_WORLD_SCENARIOS] = {
    [MP_WORLD_MEMBERSHIP] = {"membership", 100},
    [MP_WORLD_CATALOG] = {"catalog", 20},
    [MP_WORLD_ROUTING] = {"routing", 7},
    [MP_WORLD_GRAPH] = {"graph", 1},
    [MP_WORLD_MIXED] = {"mixed", 9},
    [MP_WORLD_DEPLOY] = {"deploy", 5},
    [MP_WORLD_TOPICS] = {"topics", 5},
};

#define KNOWN_SCENARIOS "membership, catalog, routing, graph, mixed, deploy, topics"

static const char help[] =
    "usage: mpreg-sim SCENARIO [--nodes N] [--seed S] [--seeds N] [--defect NAME]\n"
    "                 [--loss PERCENT] [--slow N] [--hours H] [--partition SECONDS]\n"
    "                 [--crashes N] [--log] [-o json]\n"
    "       mpreg-sim --list-defects | --check-defects\n"
    "\n"
    "Runs the core of whole nodes in an invented world, in virtual time. The same seed gives the\n"
    "same digest. Exit code 1 when an invariant broke, 2 when the command is not understood.\n"
    "\n"
    "scenarios:\n"
    "  membership  nodes join, idle, crash one after another and come back\n"
    "  catalog     modules appear on nodes; a dead node is forgotten on one side of a partition\n"
    "  routing     calls to functions and resources that only some nodes have; cuts and crashes\n"
    "  graph       clients run graphs on nodes whose workers fail, hang and die\n"
    "  mixed       all of it together, with every fault there is; then everything must heal\n"
    "  deploy      modules are deployed, rolled back and undeployed under calls and runs; every\n"
    "              other world has the faults of mixed\n"
    "  topics      publishers and subscribers on random nodes with random patterns; every other\n"
    "              world has cuts, crashes and partitions\n"
    "\n"
    "  --nodes N            nodes in the world (100, 20, 7, 1, 9, 5, 5)\n"
    "  --seed S             the seed (1)\n"
    "  --seeds N            worlds: the seeds S, S+1, … (1)\n"
    "  --defect NAME        with a deliberate fault in the core, which must be noticed\n"
    "  --loss PERCENT       datagrams that are lost\n"
    "  --slow N             nodes that are slow all the time\n"
    "  --hours H            membership: hours without crashes (a minute)\n"
    "  --partition SECONDS  membership: the cluster in two halves for so long\n"
    "  --crashes N          membership: crashes that are measured (by the number of nodes)\n"
    "  --list-defects       the deliberate faults\n"
    "  --check-defects      whether each of them is noticed\n"
    "  --log                what happens, on stderr\n"
    "  -o json              one JSON document\n"
    "\n"
    "example: mpreg-sim mixed --nodes 9 --seed 7 --seeds 100 -o json\n";

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

/* The flag's value: behind '=' or the next word, which is then used up. False: another flag. */
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

static bool read_option(int argc, char **argv, int *i, struct options *o)
{
    const struct {
        const char *flag;
        uint64_t max;
        uint64_t *number;
    } numbers[] = {
        {"--nodes", NODES_MAX, &o->nodes},     {"--seeds", SEEDS_MAX, &o->seeds},
        {"--seed", UINT64_MAX, &o->seed},      {"--loss", 100, &o->loss},
        {"--slow", NODES_MAX, &o->slow},       {"--hours", HOURS_MAX, &o->hours},
        {"--crashes", NODES_MAX, &o->crashes}, {"--partition", PARTITION_MAX, &o->partition},
    };
    const char *value;
    for (size_t k = 0; k < sizeof(numbers) / sizeof(numbers[0]); k++)
        if (is_flag(numbers[k].flag, argc, argv, i, &value))
            return read_number(numbers[k].flag, value, numbers[k].max, numbers[k].number);
    if (is_flag("-o", argc, argv, i, &value))
        return read_output(value, o);
    if (is_flag("--defect", argc, argv, i, &value)) {
        o->defect = value ? value : "";
        return true;
    }
    if (strcmp(argv[*i], "--help") == 0 || strcmp(argv[*i], "-h") == 0) {
        o->is_help = true;
    } else if (strcmp(argv[*i], "--log") == 0) {
        o->is_logged = true;
    } else if (strcmp(argv[*i], "--list-defects") == 0) {
        o->is_list = true;
    } else if (strcmp(argv[*i], "--check-defects") == 0) {
        o->is_check = true;
    } else if (argv[*i][0] == '-' || o->scenario_name) {
        fprintf(stderr, "error: unknown %s %s\n", argv[*i][0] == '-' ? "flag" : "argument",
                argv[*i]);
        return false;
    } else {
        o->scenario_name = argv[*i];
    }
    return true;
}

static bool read_options(int argc, char **argv, struct options *o)
{
    *o = (struct options){.seed = 1,
                          .seeds = 1,
                          .nodes = UNSET,
                          .loss = UNSET,
                          .slow = UNSET,
                          .hours = UNSET,
                          .partition = UNSET,
                          .crashes = UNSET};
    for (int i = 1; i < argc; i++)
        if (!read_option(argc, argv, &i, o))
            return false;
    return true;
}

static bool has_known_defect(const struct options *o)
{
    if (!o->defect || mp_world_defect_of(o->defect) != MP_DEFECT_COUNT)
        return true;
    fprintf(stderr, "error: unknown defect %s (see --list-defects)\n", o->defect);
    return false;
}

static bool check_options(struct options *o)
{
    bool is_membership = o->scenario_name && strcmp(o->scenario_name, "membership") == 0;
    while (o->scenario_name && o->scenario < MP_WORLD_SCENARIOS &&
           strcmp(o->scenario_name, scenarios[o->scenario].name) != 0)
        o->scenario++;
    if (!o->scenario_name) {
        fputs("error: a scenario is missing (known: " KNOWN_SCENARIOS ")\n", stderr);
        return false;
    }
    if (o->scenario == MP_WORLD_SCENARIOS) {
        fprintf(stderr, "error: unknown scenario %s (known: " KNOWN_SCENARIOS ")\n",
                o->scenario_name);
        return false;
    }
    if (o->nodes == UNSET)
        o->nodes = scenarios[o->scenario].nodes;
    if (o->seeds == 0)
        fputs("error: --seeds expects at least 1\n", stderr);
    else if (o->nodes < (o->scenario == MP_WORLD_GRAPH ? 1u : 2u))
        fprintf(stderr, "error: scenario %s needs more nodes than %" PRIu64 "\n", o->scenario_name,
                o->nodes);
    else if (o->scenario == MP_WORLD_DEPLOY && o->nodes > MP_WORLD_CHANGED_UP_TO)
        fprintf(stderr, "error: scenario deploy takes at most %d nodes\n", MP_WORLD_CHANGED_UP_TO);
    else if (o->slow != UNSET && o->slow + 2 > o->nodes)
        fputs("error: --slow must leave two nodes that are not\n", stderr);
    else if (!is_membership && (o->hours != UNSET || o->partition != UNSET || o->crashes != UNSET ||
                                o->slow != UNSET))
        fputs("error: --hours, --partition, --crashes and --slow belong to scenario membership\n",
              stderr);
    else
        return has_known_defect(o);
    return false;
}

/* --- living --- */

static void add_samples(struct totals *t, const struct mp_world_report *r)
{
    if (t->sample_count + r->sample_count > t->sample_capacity) {
        t->sample_capacity = 2 * (t->sample_count + r->sample_count);
        t->samples = realloc(t->samples, t->sample_capacity * sizeof(*t->samples));
        if (!t->samples)
            abort();
    }
    for (uint32_t i = 0; i < r->sample_count; i++)
        t->samples[t->sample_count++] = r->samples[i];
}

/* A time of one world; a world in which it never came (< 0) spoils that of all. */
static double slower(double a, double b)
{
    return a < 0 || b < 0 ? -1 : a > b ? a : b;
}

static void add(struct totals *t, const struct options *o, uint64_t seed,
                const struct mp_world_report *r)
{
    const uint64_t both[2] = {t->digest, r->digest};
    t->digest = mp_slice_hash(mp_slice_of(both, sizeof(both)), 0);
    t->virtual_time += r->virtual_time;
    t->violations += r->violation_count;
    t->steps += r->steps;
    t->runs += r->runs;
    t->succeeded += r->runs_succeeded;
    t->stopped += r->steps_stopped;
    t->unreachable += r->steps_unreachable;
    t->watched += r->watched;
    t->events += r->events;
    t->resumed += r->resumed;
    t->lost_runs += r->lost_runs;
    t->lost += r->runs_lost;
    t->duplicated += r->runs_duplicated;
    t->requests += r->requests;
    t->calls_begun += r->calls_begun;
    t->worker_deaths += r->worker_deaths;
    t->crashes += r->crashes;
    t->faults += r->faults;
    t->remote_calls += r->remote_calls;
    t->relayed_calls += r->relayed_calls;
    t->false_deaths += r->false_deaths;
    t->changes += r->changes;
    t->changes_refused += r->changes_refused;
    t->published += r->published;
    t->delivered += r->delivered;
    t->dropped += r->dropped;
    t->converged_ms = slower(t->converged_ms, r->converged_ms);
    t->healed_ms = slower(t->healed_ms, r->healed_ms);
    t->bytes_per_node_s += r->bytes_per_node_s / (double)o->seeds;
    t->node_bytes += r->node_bytes / (double)o->seeds;
    add_samples(t, r);
    for (uint32_t i = 0; i < r->violation_count && i < MP_WORLD_VIOLATIONS_MAX; i++)
        if (t->first_count < MP_WORLD_VIOLATIONS_MAX) {
            t->first[t->first_count] = r->violations[i];
            t->first_seed[t->first_count++] = seed;
        }
}

static void print_replay(const struct options *o, uint64_t seed)
{
    const struct {
        const char *flag;
        uint64_t number;
    } numbers[] = {{"--loss", o->loss},
                   {"--slow", o->slow},
                   {"--hours", o->hours},
                   {"--partition", o->partition},
                   {"--crashes", o->crashes}};
    fprintf(stderr, "replay: mpreg-sim %s --nodes %" PRIu64 " --seed %" PRIu64, o->scenario_name,
            o->nodes, seed);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i].number != UNSET)
            fprintf(stderr, " %s %" PRIu64, numbers[i].flag, numbers[i].number);
    if (o->defect)
        fprintf(stderr, " --defect %s", o->defect);
    fputc('\n', stderr);
}

static void draw(const struct options *o, uint64_t seed, struct mp_world_config *cfg)
{
    mp_world_draw(cfg, o->scenario, (uint32_t)o->nodes, seed);
    if (o->loss != UNSET)
        cfg->faults.loss = (uint16_t)(o->loss * 10);
    if (o->slow != UNSET)
        cfg->slow = (uint32_t)o->slow;
    if (o->hours != UNSET)
        cfg->idle_last = MP_SECONDS(3600 * o->hours);
    if (o->partition != UNSET)
        cfg->partition = MP_SECONDS(o->partition);
    if (o->crashes != UNSET)
        cfg->crashes = (uint32_t)o->crashes;
    if (o->defect)
        cfg->defects = 1ull << mp_world_defect_of(o->defect);
}

static void log_line(void *context, mp_time at, uint32_t node, const char *what,
                     struct mp_slice text)
{
    (void)context;
    fprintf(stderr, "%12.3f ms  ", (double)at / 1e6);
    if (node != 0)
        fprintf(stderr, "node %" PRIu32 " %s ", node, what);
    else
        fprintf(stderr, "the world %s ", what);
    for (size_t i = 0; i < text.size; i++)
        fputc(text.data[i] < ' ' || text.data[i] > '~' ? '.' : text.data[i], stderr);
    fputc('\n', stderr);
}

static void live(const struct options *o, struct totals *t)
{
    static struct mp_world_report report;
    struct mp_alloc alloc = {.resize = resize};
    *t = (struct totals){0};
    for (uint64_t i = 0; i < o->seeds; i++) {
        struct mp_world_config cfg;
        draw(o, o->seed + i, &cfg);
        if (o->is_logged)
            cfg.on_log = log_line;
        mp_world_live(&cfg, &alloc, &report);
        add(t, o, o->seed + i, &report);
        if (report.violation_count != 0)
            print_replay(o, o->seed + i);
    }
}

/* --- figures --- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Of sorted samples; the smallest that so many in 100 do not exceed. -1: there are none. */
static double percentile(const struct totals *t, unsigned percent)
{
    if (t->sample_count == 0)
        return -1;
    size_t rank = (t->sample_count * percent + 99) / 100;
    return t->samples[rank == 0 ? 0 : rank - 1];
}

static void print_time(const char *name, double ms)
{
    if (ms < 0)
        printf(",\"%s\":null", name);
    else
        printf(",\"%s\":%.3f", name, ms);
}

static void print_figures(const struct options *o, const struct totals *t)
{
    if (o->nodes > 1)
        print_time("converged_ms", t->converged_ms);
    if (o->scenario == MP_WORLD_MEMBERSHIP) {
        print_time("detect_ms_p50", percentile(t, 50));
        print_time("detect_ms_p99", percentile(t, 99));
        printf(",\"detected\":%zu,\"false_deaths\":%" PRIu64
               ",\"bytes_per_node_s\":%.1f,\"memory_per_node\":%.0f",
               t->sample_count, t->false_deaths, t->bytes_per_node_s, t->node_bytes);
        if (o->partition != UNSET)
            print_time("healed_ms", t->healed_ms);
        return;
    }
    if (o->scenario == MP_WORLD_CATALOG) {
        print_time("visible_ms_p50", percentile(t, 50));
        print_time("visible_ms_p99", percentile(t, 99));
        printf(",\"added\":%zu", t->sample_count);
    }
    if (o->nodes > 1)
        print_time("healed_ms", t->healed_ms);
    if (o->scenario == MP_WORLD_CATALOG)
        return;
    printf(",\"runs\":%" PRIu64 ",\"succeeded\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"duplicated\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"calls_begun\":%" PRIu64
           ",\"worker_deaths\":%" PRIu64 ",\"stopped\":%" PRIu64 ",\"unreachable\":%" PRIu64,
           t->runs, t->succeeded, t->lost, t->duplicated, t->requests, t->calls_begun,
           t->worker_deaths, t->stopped, t->unreachable);
    printf(",\"watched\":%" PRIu64 ",\"events\":%" PRIu64 ",\"resumed\":%" PRIu64
           ",\"lost_runs\":%" PRIu64,
           t->watched, t->events, t->resumed, t->lost_runs);
    if (o->scenario == MP_WORLD_DEPLOY || o->scenario == MP_WORLD_MIXED)
        printf(",\"changes\":%" PRIu64 ",\"changes_refused\":%" PRIu64, t->changes,
               t->changes_refused);
    if (o->scenario == MP_WORLD_TOPICS)
        printf(",\"published\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"dropped\":%" PRIu64,
               t->published, t->delivered, t->dropped);
    if (o->nodes > 1)
        printf(",\"crashes\":%" PRIu64 ",\"faults\":%" PRIu64 ",\"remote_calls\":%" PRIu64
               ",\"relayed_calls\":%" PRIu64,
               t->crashes, t->faults, t->remote_calls, t->relayed_calls);
}

static void print_json(const struct options *o, const struct totals *t)
{
    printf("{\"scenario\":\"%s\",\"nodes\":%" PRIu64 ",\"seed\":\"%" PRIu64 "\",\"seeds\":%" PRIu64
           ",\"ok\":%s,\"digest\":\"%016" PRIx64 "\",\"virtual_seconds\":%.3f,\"steps\":%" PRIu64,
           o->scenario_name, o->nodes, o->seed, o->seeds, t->violations == 0 ? "true" : "false",
           t->digest, (double)t->virtual_time / 1e9, t->steps);
    print_figures(o, t);
    printf(",\"violation_count\":%" PRIu64 ",\"violations\":[", t->violations);
    for (uint32_t i = 0; i < t->first_count; i++)
        printf("%s{\"seed\":\"%" PRIu64 "\",\"at_ms\":%.3f,\"invariant\":\"%s\",\"text\":\"%s\"}",
               i == 0 ? "" : ",", t->first_seed[i], (double)t->first[i].at / 1e6,
               t->first[i].invariant, t->first[i].text);
    puts("]}");
}

static void print_text(const struct options *o, const struct totals *t)
{
    printf("%s  digest %016" PRIx64 "  %.1f virtual seconds\n",
           t->violations == 0 ? "ok" : "BROKEN", t->digest, (double)t->virtual_time / 1e9);
    if (o->nodes > 1)
        printf("converged %.0f ms\n", t->converged_ms);
    if (o->scenario == MP_WORLD_MEMBERSHIP)
        printf("crashes %zu  known to all p50 %.0f ms  p99 %.0f ms  false deaths %" PRIu64
               "  %.0f bytes/s a node\n",
               t->sample_count, percentile(t, 50), percentile(t, 99), t->false_deaths,
               t->bytes_per_node_s);
    else if (o->scenario == MP_WORLD_CATALOG)
        printf("modules %zu  visible to all p50 %.0f ms  p99 %.0f ms\n", t->sample_count,
               percentile(t, 50), percentile(t, 99));
    else if (o->scenario == MP_WORLD_TOPICS)
        printf("published %" PRIu64 "  delivered %" PRIu64 "  lost and told %" PRIu64 "\n",
               t->published, t->delivered, t->dropped);
    else
        printf("runs %" PRIu64 "  succeeded %" PRIu64 "  lost %" PRIu64 "  duplicated %" PRIu64
               "  calls begun %" PRIu64 "  remote %" PRIu64 "\n",
               t->runs, t->succeeded, t->lost, t->duplicated, t->calls_begun, t->remote_calls);
    for (uint32_t i = 0; i < t->first_count; i++)
        printf("seed %" PRIu64 ", at %.3f ms: %s: %s\n", t->first_seed[i],
               (double)t->first[i].at / 1e6, t->first[i].invariant, t->first[i].text);
}

/* --- defects --- */

static void list_defects(void)
{
    for (int d = 0; d < MP_DEFECT_COUNT; d++)
        printf("%-26s  %s\n", mp_world_defect_name((enum mp_defect)d),
               mp_world_defect_text((enum mp_defect)d));
}

static bool check_defect(enum mp_defect d)
{
    static struct mp_world_report report;
    struct mp_alloc alloc = {.resize = resize};
    for (uint64_t seed = 1; seed <= MP_WORLD_DEFECT_SEEDS; seed++) {
        struct mp_world_config cfg;
        mp_world_draw_defect(&cfg, d, seed);
        mp_world_live(&cfg, &alloc, &report);
        if (report.violation_count == 0)
            continue;
        printf("defect %s caught by invariant %s at seed %" PRIu64 " of %s with %" PRIu32
               " nodes\n",
               mp_world_defect_name(d), report.violations[0].invariant, seed,
               scenarios[cfg.scenario].name, cfg.nodes);
        return true;
    }
    printf("defect %s NOT caught within %d seeds\n", mp_world_defect_name(d),
           MP_WORLD_DEFECT_SEEDS);
    return false;
}

static int check_defects(const struct options *o)
{
    bool is_each_caught = true;
    for (int d = 0; d < MP_DEFECT_COUNT; d++)
        if (!o->defect || d == (int)mp_world_defect_of(o->defect)) {
            is_each_caught = check_defect((enum mp_defect)d) && is_each_caught;
            fflush(stdout);
        }
    return is_each_caught ? EXIT_KEPT : EXIT_BROKEN;
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
    if (o.is_list) {
        list_defects();
        return EXIT_KEPT;
    }
    if (o.is_check && !o.scenario_name)
        return has_known_defect(&o) ? check_defects(&o) : EXIT_USAGE;
    if (!check_options(&o))
        return EXIT_USAGE;
    live(&o, &t);
    if (t.sample_count != 0)
        qsort(t.samples, t.sample_count, sizeof(*t.samples), compare);
    if (o.is_json)
        print_json(&o, &t);
    else
        print_text(&o, &t);
    free(t.samples);
    if (fflush(stdout) != 0)
        return EXIT_BROKEN;
    return t.violations == 0 ? EXIT_KEPT : EXIT_BROKEN;
}
