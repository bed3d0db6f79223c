/* What a call costs in the worker alone: this program plays the host, fills the ring with calls and
 * reads the worker's CPU clock. One process each, pinned to one core; medians of several rounds.
 *
 *   worker_bench [ROUNDS]
 */
#include <sched.h>

#include "spec/c/worker/host.h"

#define CALLS  2000
#define ROUNDS 31

static const char source[] = "local mpreg = require 'mpreg'\n"
                             "local M = {}\n"
                             "function M.echo(x) return x end\n"
                             "local function fib(n)\n"
                             "  if n < 2 then return n end\n"
                             "  return fib(n - 1) + fib(n - 2)\n"
                             "end\n"
                             "M.fib = fib\n"
                             "function M.row(r) return { id = r.id, sum = r.a + r.b } end\n"
                             "function M.yield() mpreg.sleep(0) end\n"
                             "return M\n";

static void pin(pid_t pid)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    if (sched_setaffinity(pid, sizeof(set), &set) != 0)
        fprintf(stderr, "cannot pin\n");
}

static uint64_t cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec t = {0};
    if (clock_getcpuclockid(pid, &clock) == 0)
        clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Takes `count` answers; none of them may be an error. */
static void drain(struct host *h, uint32_t count)
{
    host_wake(h);
    while (count > 0) {
        struct mp_ring_record *r = mp_ring_next(&h->channel.to_host);
        if (!r) {
            mp_ring_release(&h->channel.to_host);
            if (!mp_ring_prepare_sleep(&h->channel.to_host))
                continue;
            struct pollfd p = {.fd = h->wake_host, .events = POLLIN};
            poll(&p, 1, 1000);
            uint64_t value;
            ssize_t n = read(h->wake_host, &value, sizeof(value));
            (void)n;
            mp_ring_wake(&h->channel.to_host);
            continue;
        }
        if (r->kind == MP_MSG_RELEASE) {
            mp_arena_give(h->arena, *(const uint64_t *)(const void *)mp_ring_body(r));
            continue;
        }
        if (r->flags & MP_RING_ERROR)
            fail_msg("a call failed");
        if (r->flags & MP_RING_LARGE) {
            const struct mp_msg_completed *m =
                (const struct mp_msg_completed *)(const void *)mp_ring_body(r);
            struct mp_msg_release back = {.at = m->at};
            host_put(host_reserve(h, sizeof(back), MP_MSG_RELEASE, 0),
                     mp_slice_of(&back, sizeof(back)));
        }
        count--;
    }
    mp_ring_release(&h->channel.to_host);
}

static void measure(struct host *h, const char *name, uint32_t function, struct mp_slice args,
                    uint32_t calls, unsigned rounds)
{
    double costs[1024];
    if (rounds > MP_ARRAY_SIZE(costs))
        rounds = MP_ARRAY_SIZE(costs);
    for (unsigned round = 0; round < rounds + 3; round++) {
        uint64_t before = cpu_ns(h->pid);
        for (uint32_t i = 0; i < calls; i++)
            if (!host_invoke(h, i + 1, 0, function, args))
                fail_msg("the ring is full");
        drain(h, calls);
        if (round >= 3)
            costs[round - 3] = (double)(cpu_ns(h->pid) - before) / calls;
    }
    qsort(costs, rounds, sizeof(costs[0]), by_value);
    printf("%-22s %10.0f ns a call  (fastest %.0f)\n", name, costs[rounds / 2], costs[0]);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : ROUNDS;
    struct host h;
    host_start(&h);
    pin(h.pid);
    pin(0);
    host_configure(&h, (struct host_config){0});
    host_load(&h, 0, "bench", source, 0);
    struct answer a = host_expect(&h, MP_MSG_LOADED);
    answer_fini(&a);

    /* functions by name: echo, fib, row, yield */
    measure(&h, "echo 32 B", 0,
            mp_slice_of("\x91\xd9\x20"
                        "0123456789abcdef0123456789abcdef",
                        35),
            CALLS, rounds);
    measure(&h, "row -> row", 2,
            mp_slice_of("\x91\x83\xa2id\x01\xa1"
                        "a\x02\xa1"
                        "b\x03",
                        12),
            CALLS, rounds);
    measure(&h, "sleep(0)", 3, mp_slice_of("\x90", 1), CALLS, rounds);
    measure(&h, "fib(20)", 1, mp_slice_of("\x91\x14", 2), 50, rounds);
    static uint8_t bytes[(1u << 20) + 6];
    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes, "\x91\xda\x04\x00", 4);
    measure(&h, "echo 1 KiB", 0, mp_slice_of(bytes, 1024 + 4), 500, rounds);
    memcpy(bytes, "\x91\xdb\x00\x10\x00\x00", 6);
    measure(&h, "echo 1 MiB, lone", 0, mp_slice_of(bytes, sizeof(bytes)), 1, rounds);
    measure(&h, "echo 1 MiB, 16 at once", 0, mp_slice_of(bytes, sizeof(bytes)), 16, rounds);
    host_stop(&h);
    return 0;
}
