/* The data folder: generations that never go back, one node at a time, and what is said when the
 * disk does not play along. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/host/data.h"

#define NOBODY 65534

struct world {
    char root[64];
    char dir[128];
    char text[1024];
    struct mp_text why;
    struct mp_data *data;
    uv_loop_t loop;
};

static int set_up(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    snprintf(w->root, sizeof(w->root), "/tmp/mpreg-data-test-XXXXXX");
    assert_non_null(mkdtemp(w->root));
    assert_int_equal(chmod(w->root, 0755), 0);
    snprintf(w->dir, sizeof(w->dir), "%s/n1", w->root);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    *state = w;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    return remove(path);
}

static int tear_down(void **state)
{
    struct world *w = (struct world *)*state;
    mp_data_close(w->data);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    assert_int_equal(nftw(w->root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(w);
    return 0;
}

static bool open_at(struct world *w, struct mp_data **out, int64_t now_ms)
{
    mp_text_init(&w->why, w->text, sizeof(w->text));
    return mp_data_open(out, w->dir, now_ms, &w->why);
}

static void reopen(struct world *w, int64_t now_ms)
{
    mp_data_close(w->data);
    w->data = NULL;
    assert_true(open_at(w, &w->data, now_ms));
}

static const char *path_in(const struct world *w, const char *file)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", w->dir, file);
    return path;
}

static void put_file(const struct world *w, const char *name, const char *text)
{
    FILE *file = fopen(path_in(w, name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_file(const struct world *w, const char *name, const char *expected)
{
    char text[64] = {0};
    FILE *file = fopen(path_in(w, name), "r");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    assert_true(size < sizeof(text));
    assert_string_equal(text, expected);
}

static void assert_why(const struct world *w, const char *expected)
{
    if (!strstr(w->text, expected))
        fail_msg("no \"%s\" in: %s", expected, w->text);
}

/* --- generations --- */

static void a_boot_is_later_than_the_one_before(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w, 5000);
    assert_int_equal(mp_data_generation(w->data), 5000);
    assert_false(mp_data_is_temporary(w->data));
    assert_file(w, "generation", "5000\n");
    reopen(w, 6000);
    assert_int_equal(mp_data_generation(w->data), 6000);
    reopen(w, 6000); /* within a millisecond */
    assert_int_equal(mp_data_generation(w->data), 6001);
    reopen(w, 10); /* the clock was put back */
    assert_int_equal(mp_data_generation(w->data), 6002);
    assert_file(w, "generation", "6002\n");
    reopen(w, -1);
    assert_int_equal(mp_data_generation(w->data), 6003);
    assert_int_not_equal(access(path_in(w, "generation.new"), F_OK), 0);
}

static void folders_above_it_are_made_too(void **state)
{
    struct world *w = (struct world *)*state;
    snprintf(w->dir, sizeof(w->dir), "%s/a/b//c/", w->root);
    reopen(w, 7);
    assert_file(w, "generation", "7\n");
    reopen(w, 7);
    assert_file(w, "generation", "8\n");
}

static void a_file_cut_short_while_it_was_written_does_no_harm(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w, 5000);
    put_file(w, "generation.new", "60");
    reopen(w, 10);
    assert_int_equal(mp_data_generation(w->data), 5001);
}

static void garbage_is_named_with_what_to_do(void **state)
{
    struct world *w = (struct world *)*state;
    static const char *const garbage[] = {"",
                                          "\n",
                                          "0\n",
                                          "-1\n",
                                          "12 34\n",
                                          "0x10\n",
                                          "5\n6\n",
                                          "18446744073709551616\n",
                                          "hello",
                                          " 5\n",
                                          "9223372036854775807\n",
                                          "00000000000000000000000000000000000000005\n"};
    reopen(w, 1);
    mp_data_close(w->data);
    w->data = NULL;
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        put_file(w, "generation", garbage[i]);
        assert_false(open_at(w, &w->data, 1));
        assert_why(w, path_in(w, "generation"));
        assert_why(w, "delete it");
        assert_file(w, "generation", garbage[i]);
    }
    put_file(w, "generation", "9223372036854775800");
    reopen(w, 1);
    assert_true(mp_data_generation(w->data) == 9223372036854775801u);
}

/* --- one node at a time --- */

static void a_second_node_is_refused_with_the_pid_of_the_first(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_data *second = NULL;
    char expected[300];
    reopen(w, 5000);
    snprintf(expected, sizeof(expected), "another node (pid %d) runs on the data folder %s",
             (int)getpid(), w->dir);
    assert_false(open_at(w, &second, 6000));
    assert_null(second);
    assert_string_equal(w->text, expected);
    assert_file(w, "generation", "5000\n");
    reopen(w, 6000);
}

static void a_lock_of_a_node_that_was_killed_is_free(void **state)
{
    struct world *w = (struct world *)*state;
    pid_t child = fork();
    if (child == 0) {
        bool is_open = open_at(w, &w->data, 5000);
        kill(getpid(), SIGKILL);
        _exit(is_open);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    reopen(w, 1);
    assert_int_equal(mp_data_generation(w->data), 5001);
    char pid[32];
    snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    assert_file(w, "lock", pid);
}

/* --- a temporary one --- */

static void a_temporary_folder_goes_at_the_end(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_data *data = NULL;
    mp_text_init(&w->why, w->text, sizeof(w->text));
    assert_int_equal(setenv("TMPDIR", w->root, 1), 0);
    assert_true(mp_data_open(&data, NULL, 5000, &w->why));
    assert_true(mp_data_is_temporary(data));
    assert_int_equal(strncmp(mp_data_dir(data), w->root, strlen(w->root)), 0);
    snprintf(w->dir, sizeof(w->dir), "%s", mp_data_dir(data));
    put_file(w, "anything", "else");
    assert_file(w, "generation", "5000\n");
    mp_data_close(data);
    assert_int_not_equal(access(w->dir, F_OK), 0);

    assert_int_equal(setenv("TMPDIR", "/no/such/folder", 1), 0);
    assert_false(mp_data_open(&data, NULL, 5000, &w->why));
    assert_why(w, "/no/such/folder: No such file or directory");
    unsetenv("TMPDIR");
}

/* --- a disk that does not play along --- */

static void what_is_no_folder_is_named(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w, 1);
    mp_data_close(w->data);
    w->data = NULL;
    strcat(w->dir, "/generation");
    assert_false(open_at(w, &w->data, 1));
    assert_why(w, "cannot make the folder");
    assert_why(w, "/n1/generation: ");
    strcat(w->dir, "/below");
    assert_false(open_at(w, &w->data, 1));
    assert_why(w, "/n1/generation/below: Not a directory");
    w->dir[0] = '\0';
    assert_false(open_at(w, &w->data, 1));
}

static void a_file_that_cannot_be_written_is_named(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w, 5000);
    mp_data_close(w->data);
    w->data = NULL;
    assert_int_equal(mkdir(path_in(w, "generation.new"), 0755), 0);
    assert_false(open_at(w, &w->data, 6000));
    assert_why(w, "cannot write ");
    assert_why(w, "/generation.new: Is a directory");
    assert_file(w, "generation", "5000\n");
}

static void a_folder_without_permission_is_named(void **state)
{
    struct world *w = (struct world *)*state;
    assert_int_equal(mkdir(w->dir, 0555), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && seteuid(NOBODY) != 0)
            _exit(77);
        bool is_open = open_at(w, &w->data, 5000);
        _exit(is_open || !strstr(w->text, "/lock: Permission denied"));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* In a mount namespace of its own, so that nothing stays mounted. 77: that is not allowed here. */
static int with_full_disk(struct world *w)
{
    if (mkdir(w->dir, 0755) != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", w->dir, "tmpfs", 0, "size=4k") != 0)
        return 77;
    if (open_at(w, &w->data, 5000) || !strstr(w->text, "/generation.new: No space left on device"))
        return 1;
    if (access(path_in(w, "generation.new"), F_OK) == 0)
        return 2;
    if (mount("tmpfs", w->dir, "tmpfs", MS_REMOUNT, "size=64k") != 0)
        return 77;
    return open_at(w, &w->data, 5000) ? 0 : 3;
}

static void a_full_disk_is_named(void **state)
{
    struct world *w = (struct world *)*state;
    pid_t child = fork();
    if (child == 0)
        _exit(with_full_disk(w));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WEXITSTATUS(status) == 77)
        skip(); /* only root may mount */
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- later generations --- */

static void of_later_generations_the_newest_is_kept(void **state)
{
    struct world *w = (struct world *)*state;
    reopen(w, 5000);
    mp_data_persist(w->data, &w->loop, 4999);
    assert_false(mp_data_is_busy(w->data));
    mp_data_persist(w->data, &w->loop, 6000);
    for (uint64_t i = 1; i <= 100; i++)
        mp_data_persist(w->data, &w->loop, 6000 + i);
    mp_data_persist(w->data, &w->loop, 6050);
    assert_true(mp_data_is_busy(w->data));
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_false(mp_data_is_busy(w->data));
    assert_file(w, "generation", "6100\n");
    assert_int_equal(mp_data_generation(w->data), 6100);
    reopen(w, 1);
    assert_int_equal(mp_data_generation(w->data), 6101);
}

static void one_that_could_not_be_kept_is_tried_again_when_asked(void **state)
{
    struct world *w = (struct world *)*state;
    char said[512] = {0};
    reopen(w, 5000);
    assert_int_equal(mkdir(path_in(w, "generation.new"), 0755), 0);
    fflush(stderr);
    int kept = dup(2);
    int file = open(path_in(w, "stderr"), O_RDWR | O_CREAT, 0600);
    assert_true(kept >= 0 && file >= 0 && dup2(file, 2) == 2);
    mp_data_persist(w->data, &w->loop, 6000);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    fflush(stderr);
    assert_int_equal(dup2(kept, 2), 2);
    close(kept);
    assert_true(pread(file, said, sizeof(said) - 1, 0) > 0);
    close(file);
    assert_non_null(strstr(said, " error "));
    assert_non_null(strstr(said, "generation 6000 could not be kept: cannot write "));
    assert_file(w, "generation", "5000\n");
    assert_int_equal(rmdir(path_in(w, "generation.new")), 0);
    mp_data_persist(w->data, &w->loop, 6000);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_file(w, "generation", "6000\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_boot_is_later_than_the_one_before),
        TEST(folders_above_it_are_made_too),
        TEST(a_file_cut_short_while_it_was_written_does_no_harm),
        TEST(garbage_is_named_with_what_to_do),
        TEST(a_second_node_is_refused_with_the_pid_of_the_first),
        TEST(a_lock_of_a_node_that_was_killed_is_free),
        TEST(a_temporary_folder_goes_at_the_end),
        TEST(what_is_no_folder_is_named),
        TEST(a_file_that_cannot_be_written_is_named),
        TEST(a_folder_without_permission_is_named),
        TEST(a_full_disk_is_named),
        TEST(of_later_generations_the_newest_is_kept),
        TEST(one_that_could_not_be_kept_is_tried_again_when_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
