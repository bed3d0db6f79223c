/* The worker as a process: its rights, its end, and a host that sends nonsense. */
#include <sys/prctl.h>
#include <sys/resource.h>

#include "spec/c/worker/json.h"

static const char source[] = "return { f = function(x) return x end }";

/* The value behind `key:` in the worker's status file, without blanks in front. */
static void read_status(pid_t pid, const char *key, char *value, size_t size)
{
    char path[64];
    char line[256];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    value[0] = '\0';
    while (fgets(line, sizeof(line), f)) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) != 0 || line[length] != ':')
            continue;
        const char *at = line + length + 1;
        at += strspn(at, " \t");
        snprintf(value, size, "%.*s", (int)strcspn(at, "\n"), at);
    }
    fclose(f);
}

static void test_rights(void **state)
{
    (void)state;
    struct host h;
    char value[64];
    json_start(&h, (struct host_config){0}, source);
    read_status(h.pid, "NoNewPrivs", value, sizeof(value));
    assert_string_equal(value, "1");
    read_status(h.pid, "SigIgn", value, sizeof(value));
    uint64_t ignored = strtoull(value, NULL, 16);
    assert_true(ignored & 1ull << (SIGINT - 1));
    assert_true(ignored & 1ull << (SIGTERM - 1));
    assert_true(ignored & 1ull << (SIGPIPE - 1));
    struct rlimit core;
    assert_int_equal(prlimit(h.pid, RLIMIT_CORE, NULL, &core), 0);
    assert_int_equal(core.rlim_max, 0);
#ifndef MP_SANITIZE
    struct rlimit data;
    assert_int_equal(prlimit(h.pid, RLIMIT_DATA, NULL, &data), 0);
    assert_true(data.rlim_max >= MP_WORKER_MEMORY_BYTES && data.rlim_max < (4ull << 30));
#endif
    host_stop(&h);
}

static void test_dies_with_its_host(void **state)
{
    (void)state;
    int ends[2];
    pid_t worker = 0;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t middle = fork();
    if (middle == 0) {
        struct host h;
        json_start(&h, (struct host_config){0}, source);
        ssize_t n = write(ends[1], &h.pid, sizeof(h.pid));
        (void)n;
        raise(SIGKILL);
    }
    assert_int_equal(read(ends[0], &worker, sizeof(worker)), sizeof(worker));
    close(ends[0]);
    close(ends[1]);
    int status;
    assert_int_equal(waitpid(middle, &status, 0), middle);
    assert_int_equal(waitpid(worker, &status, 0), worker);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_refuses_another_parent(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        char name[] = "mpreg-worker";
        char parent[] = "1";
        char *argv[] = {name, parent, NULL};
        _exit(mp_worker_main(2, argv));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void quiet(void)
{
    int null = open("/dev/null", O_WRONLY);
    host_place(null, 2);
}

/* The worker must end by itself, with exit code 1. */
static void expect_end(struct host *h)
{
    int status = 0;
    host_wake(h);
    assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
    h->pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    host_stop(h);
}

static void test_nonsense_ends_it(void **state)
{
    (void)state;
    const uint16_t kinds[] = {MP_MSG_CONFIG,
                              MP_MSG_LOAD,
                              MP_MSG_INVOKE,
                              MP_MSG_RESULT,
                              MP_MSG_CANCEL,
                              MP_MSG_RELEASE,
                              0,
                              999};
    int kept = dup(2);
    quiet();
    for (size_t i = 0; i < MP_ARRAY_SIZE(kinds); i++) {
        struct host h;
        json_start(&h, (struct host_config){0}, source);
        host_reserve(&h, 0, kinds[i], 0);
        expect_end(&h);
        /* sizes beyond the record, and a place outside the arena */
        for (int large = 0; large < 2; large++) {
            json_start(&h, (struct host_config){0}, source);
            memset(host_reserve(&h, 64, kinds[i], large ? MP_RING_LARGE : 0), 0xfe, 64);
            if (kinds[i] == MP_MSG_RELEASE || kinds[i] == 0 || kinds[i] == 999)
                large = 1;
            expect_end(&h);
        }
    }
    struct host h;
    host_start(&h);
    host_load(&h, 0, "m", source, 0);
    expect_end(&h);
    host_place(kept, 2);
    close(kept);
}

static void test_broken_ring_ends_it(void **state)
{
    (void)state;
    struct host h;
    int kept = dup(2);
    quiet();
    json_start(&h, (struct host_config){0}, source);
    atomic_store(&h.channel.to_worker.shared->tail, UINT64_MAX);
    uint64_t one = 1;
    assert_int_equal(write(h.wake_worker, &one, sizeof(one)), sizeof(one));
    expect_end(&h);
    host_place(kept, 2);
    close(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_dies_with_its_host),
        cmocka_unit_test(test_refuses_another_parent),
        cmocka_unit_test(test_nonsense_ends_it),
        cmocka_unit_test(test_broken_ring_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
