/* The data folder: what must outlive the node. In it `lock`, which the running node holds locked
 * and which names its pid, and `generation`, the number of its latest boot as text.
 *
 * A generation never goes back: a new one is written beside the old one, synced, renamed over it,
 * and the folder synced, before anybody hears of it at the start. Later ones (another node had a
 * higher one under our name) are written on libuv's threads, since a disk may take its time; one
 * write at a time, and what came up meanwhile is written next, the newest alone. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"

#define NUMBER_BYTES   32
#define GENERATION_MAX ((uint64_t)INT64_MAX)
#define WHY_BYTES      (2 * PATH_MAX)

struct mp_data {
    char dir[PATH_MAX];
    bool is_temporary;
    int lock_fd; /* -1: not locked */
    uint64_t generation;
    /* writing later ones */
    uv_work_t work;
    uv_loop_t *loop;
    bool is_busy;
    uint64_t wanted;  /* the newest that is to be kept */
    uint64_t writing; /* by the thread */
    bool has_failed;
    char why[WHY_BYTES]; /* of its failure */
};

/* Says what could not be done with a file of the folder; always false. */
static bool fail(struct mp_text *why, const char *what, const char *dir, const char *file, int err)
{
    mp_text_put(why, what);
    mp_text_put(why, " ");
    mp_text_put(why, dir);
    mp_text_put(why, file);
    if (err != 0) {
        mp_text_put(why, ": ");
        mp_text_put(why, strerror(err));
    }
    return false;
}

static bool path_of(char path[PATH_MAX], const char *dir, const char *file)
{
    int size = snprintf(path, PATH_MAX, "%s%s", dir, file);
    return size > 0 && size < PATH_MAX;
}

static bool write_whole(int fd, const char *text, size_t size)
{
    ssize_t written = write(fd, text, size);
    if (written >= 0 && (size_t)written != size)
        errno = ENOSPC;
    return written >= 0 && (size_t)written == size;
}

/* --- the generation --- */

static bool sync_folder(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_synced = fsync(fd) == 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return is_synced;
}

static bool save(const char *dir, uint64_t generation, struct mp_text *why)
{
    char path[PATH_MAX];
    char fresh[PATH_MAX];
    char text[NUMBER_BYTES];
    if (!path_of(path, dir, "/generation") || !path_of(fresh, dir, "/generation.new"))
        return fail(why, "cannot write in", dir, "", ENAMETOOLONG);
    int size = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)generation);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(why, "cannot write", dir, "/generation.new", errno);
    bool is_written = write_whole(fd, text, (size_t)size) && fsync(fd) == 0;
    int saved = errno;
    is_written = close(fd) == 0 && is_written;
    if (!is_written) {
        unlink(fresh);
        return fail(why, "cannot write", dir, "/generation.new", saved);
    }
    if (rename(fresh, path) != 0 || !sync_folder(dir))
        return fail(why, "cannot write", dir, "/generation", errno);
    return true;
}

static bool parse(const char *text, size_t size, uint64_t *number)
{
    uint64_t value = 0;
    if (size != 0 && text[size - 1] == '\n')
        size--;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || value > GENERATION_MAX / 10)
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *number = value;
    return size != 0 && value != 0 && value < GENERATION_MAX;
}

/* 0 if the folder has none yet. */
static bool load(const char *dir, uint64_t *generation, struct mp_text *why)
{
    char path[PATH_MAX];
    char text[NUMBER_BYTES];
    *generation = 0;
    if (!path_of(path, dir, "/generation"))
        return fail(why, "cannot read in", dir, "", ENAMETOOLONG);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || fail(why, "cannot read", dir, "/generation", errno);
    ssize_t size = read(fd, text, sizeof(text));
    int saved = errno;
    close(fd);
    if (size < 0)
        return fail(why, "cannot read", dir, "/generation", saved);
    if ((size_t)size < sizeof(text) && parse(text, (size_t)size, generation))
        return true;
    fail(why, "the file", dir, "/generation", 0);
    mp_text_put(why, " does not hold the number of this node's latest boot and nothing else. If it "
                     "was damaged, delete it: the node then counts on from the time of day. If the "
                     "folder belongs to something else, name another one with --data");
    return false;
}

static bool raise_generation(struct mp_data *d, int64_t now_ms, struct mp_text *why)
{
    uint64_t last = 0;
    if (!load(d->dir, &last, why))
        return false;
    uint64_t now = now_ms > 0 ? (uint64_t)now_ms : 1;
    d->generation = last + 1 > now ? last + 1 : now;
    d->wanted = d->generation;
    return save(d->dir, d->generation, why);
}

/* --- the folder --- */

static bool make_temporary(struct mp_data *d, struct mp_text *why)
{
    const char *parent = getenv("TMPDIR");
    if (!parent || parent[0] == '\0')
        parent = "/tmp";
    if (!path_of(d->dir, parent, "/mpreg-XXXXXX"))
        return fail(why, "cannot make a folder in", parent, "", ENAMETOOLONG);
    if (!mkdtemp(d->dir))
        return fail(why, "cannot make a folder in", parent, "", errno);
    d->is_temporary = true;
    return true;
}

/* With the folders above it. */
static bool make_folder(struct mp_data *d, const char *dir, struct mp_text *why)
{
    if (dir[0] == '\0' || !path_of(d->dir, dir, ""))
        return fail(why, "cannot make the folder", dir, "", dir[0] == '\0' ? ENOENT : ENAMETOOLONG);
    for (char *at = d->dir + 1; *at != '\0'; at++)
        if (*at == '/') {
            *at = '\0';
            (void)mkdir(d->dir, 0755); /* if it is missing, the last one fails */
            *at = '/';
        }
    struct stat st;
    int err = mkdir(d->dir, 0755) == 0 ? 0 : errno;
    if (err == 0 || (stat(d->dir, &st) == 0 && S_ISDIR(st.st_mode)))
        return true;
    return fail(why, "cannot make the folder", dir, "", err);
}

static void tell_holder(const struct mp_data *d, int fd, struct mp_text *why)
{
    char text[NUMBER_BYTES];
    uint64_t pid = 0;
    ssize_t size = pread(fd, text, sizeof(text), 0);
    mp_text_put(why, "another node");
    if (size > 0 && (size_t)size < sizeof(text) && parse(text, (size_t)size, &pid)) {
        mp_text_put(why, " (pid ");
        mp_text_put_uint(why, pid);
        mp_text_put(why, ")");
    }
    fail(why, " runs on the data folder", d->dir, "", 0);
}

static bool lock(struct mp_data *d, struct mp_text *why)
{
    char path[PATH_MAX];
    char text[NUMBER_BYTES];
    if (!path_of(path, d->dir, "/lock"))
        return fail(why, "cannot write in", d->dir, "", ENAMETOOLONG);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(why, "cannot open", d->dir, "/lock", errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        bool is_held = errno == EWOULDBLOCK;
        if (is_held)
            tell_holder(d, fd, why);
        else
            fail(why, "cannot lock", d->dir, "/lock", errno);
        close(fd);
        return false;
    }
    d->lock_fd = fd;
    int size = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || !write_whole(fd, text, (size_t)size))
        return fail(why, "cannot write", d->dir, "/lock", errno);
    return true;
}

bool mp_data_open(struct mp_data **own_out, const char *dir, int64_t now_ms, struct mp_text *why)
{
    struct mp_data *d = mp_xalloc(sizeof(*d));
    d->lock_fd = -1;
    bool is_open = dir ? make_folder(d, dir, why) : make_temporary(d, why);
    if (!is_open || !lock(d, why) || !raise_generation(d, now_ms, why)) {
        mp_data_close(d);
        return false;
    }
    *own_out = d;
    return true;
}

const char *mp_data_dir(const struct mp_data *d)
{
    return d->dir;
}

bool mp_data_is_temporary(const struct mp_data *d)
{
    return d->is_temporary;
}

uint64_t mp_data_generation(const struct mp_data *d)
{
    return d->generation;
}

bool mp_data_is_busy(const struct mp_data *d)
{
    return d->is_busy;
}

/* --- later generations --- */

static void on_work(uv_work_t *work)
{
    struct mp_data *d = (struct mp_data *)work->data;
    struct mp_text why;
    mp_text_init(&why, d->why, sizeof(d->why));
    d->has_failed = !save(d->dir, d->writing, &why);
}

static void after_work(uv_work_t *work, int status);

static void write_wanted(struct mp_data *d)
{
    d->writing = d->wanted;
    d->work.data = d;
    int err = uv_queue_work(d->loop, &d->work, on_work, after_work);
    d->is_busy = err == 0;
    if (err != 0)
        mp_log(3, "generation %llu could not be kept: %s", (unsigned long long)d->writing,
               uv_strerror(err));
}

static void after_work(uv_work_t *work, int status)
{
    struct mp_data *d = (struct mp_data *)work->data;
    d->is_busy = false;
    if (status == 0 && d->has_failed)
        mp_log(3, "generation %llu could not be kept: %s", (unsigned long long)d->writing, d->why);
    else if (status == 0)
        d->generation = d->writing;
    if (d->wanted > d->writing)
        write_wanted(d);
}

void mp_data_persist(struct mp_data *d, uv_loop_t *loop, uint64_t generation)
{
    if (generation <= d->generation || (d->is_busy && generation <= d->wanted))
        return;
    d->wanted = generation;
    d->loop = loop;
    if (!d->is_busy)
        write_wanted(d);
}

/* --- the end --- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    return remove(path) != 0 && errno != ENOENT;
}

void mp_data_close(struct mp_data *d)
{
    if (!d)
        return;
    mp_assert(!d->is_busy);
    if (d->is_temporary && nftw(d->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        mp_log(2, "the temporary folder %s could not be removed", d->dir);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d);
}
