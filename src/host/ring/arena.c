/* See arena.h. Blocks are runs of 64 KiB pages, kept in an address-ordered list of spans, first
 * fit: an arena holds tens of blocks, not thousands, so a list is enough, and spans of free pages
 * merge as they come back. The list lives on the writer's own heap, never in the shared file. */
#include "src/host/ring/arena.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/assert.h"

#define BLOCK_BYTES    (64u << 10)
#define BLOCK_ALIGN    64u
#define IDLE_BYTES_MAX (16u << 20) /* touched free memory that is kept for the next block */

struct span {
    struct span *next;
    uint64_t offset; /* multiple of BLOCK_BYTES */
    uint64_t bytes;
    uint64_t start;  /* what take() returned; MP_ARENA_NONE if free */
    bool is_touched; /* may hold memory */
};

struct mp_arena {
    uint8_t *data;
    size_t size;
    size_t used;
    size_t idle; /* bytes of touched free spans */
    struct span *first;
    int fd;
};

static enum mp_err arena_map(struct mp_arena **own_out, int fd, size_t bytes)
{
    struct mp_arena *a = calloc(1, sizeof(*a));
    struct span *all = calloc(1, sizeof(*all));
    if (!a || !all) {
        free(a);
        free(all);
        return MP_ENOMEM;
    }
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) {
        free(a);
        free(all);
        return MP_EIO;
    }
    *all = (struct span){.bytes = bytes, .start = MP_ARENA_NONE};
    *a = (struct mp_arena){.data = data, .size = bytes, .first = all, .fd = fd};
    *own_out = a;
    return MP_OK;
}

enum mp_err mp_arena_make_file(size_t bytes, int *fd)
{
    bytes = (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    int made = memfd_create("mpreg-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (made < 0)
        return MP_EIO;
    if (ftruncate(made, (off_t)bytes) != 0 ||
        fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        close(made);
        return MP_EIO;
    }
    *fd = made;
    return MP_OK;
}

enum mp_err mp_arena_create(struct mp_arena **own_out, size_t bytes, int *fd)
{
    int made;
    enum mp_err err = mp_arena_make_file(bytes, &made);
    if (err != MP_OK)
        return err;
    err = mp_arena_open(own_out, made);
    if (err != MP_OK)
        close(made);
    else
        *fd = made;
    return err;
}

enum mp_err mp_arena_open(struct mp_arena **own_out, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size <= 0)
        return MP_EIO;
    return arena_map(own_out, fd, (size_t)st.st_size);
}

void mp_arena_free(struct mp_arena *a)
{
    if (!a)
        return;
    munmap(a->data, a->size);
    while (a->first) {
        struct span *next = a->first->next;
        free(a->first);
        a->first = next;
    }
    close(a->fd);
    free(a);
}

static bool split(struct span *s, uint64_t bytes)
{
    if (s->bytes == bytes)
        return true;
    struct span *rest = malloc(sizeof(*rest));
    if (!rest)
        return false;
    *rest = (struct span){.next = s->next,
                          .offset = s->offset + bytes,
                          .bytes = s->bytes - bytes,
                          .start = MP_ARENA_NONE,
                          .is_touched = s->is_touched};
    s->next = rest;
    s->bytes = bytes;
    return true;
}

/* Two neighbours merge if both are free and agree on whether they hold memory. */
static void merge_with_next(struct span *s)
{
    struct span *next = s->next;
    if (!next || s->start != MP_ARENA_NONE || next->start != MP_ARENA_NONE ||
        s->is_touched != next->is_touched)
        return;
    s->bytes += next->bytes;
    s->next = next->next;
    free(next);
}

/* The first free span of that many bytes, cut to them; NULL if there is none. */
static struct span *first_fit(struct mp_arena *a, uint64_t bytes)
{
    struct span *s = a->first;
    while (s && (s->start != MP_ARENA_NONE || s->bytes < bytes))
        s = s->next;
    return s && split(s, bytes) ? s : NULL;
}

/* Hands all idle memory back, so that free spans between blocks are in one piece again. */
static void tidy(struct mp_arena *a)
{
    for (struct span *s = a->first; s; s = s->next)
        if (s->start == MP_ARENA_NONE && s->is_touched &&
            madvise(a->data + s->offset, s->bytes, MADV_REMOVE) == 0) {
            s->is_touched = false;
            a->idle -= s->bytes;
        }
    for (struct span *s = a->first; s;) {
        const struct span *next = s->next;
        merge_with_next(s);
        s = s->next == next ? s->next : s;
    }
}

uint64_t mp_arena_take(struct mp_arena *a, size_t size, unsigned aligned_at)
{
    if (size > a->size)
        return MP_ARENA_NONE;
    unsigned skip = (BLOCK_ALIGN - aligned_at % BLOCK_ALIGN) % BLOCK_ALIGN;
    uint64_t bytes = ((uint64_t)size + skip + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    bytes = bytes == 0 ? BLOCK_BYTES : bytes;
    struct span *s = first_fit(a, bytes);
    if (!s && a->idle != 0) {
        tidy(a);
        s = first_fit(a, bytes);
    }
    if (!s)
        return MP_ARENA_NONE;
    if (s->is_touched)
        a->idle -= s->bytes;
    s->is_touched = true;
    s->start = s->offset + skip;
    a->used += s->bytes;
    return s->start;
}

bool mp_arena_give(struct mp_arena *a, uint64_t offset)
{
    struct span *before = NULL;
    struct span *s = a->first;
    while (s && (s->start != offset || offset == MP_ARENA_NONE)) {
        before = s;
        s = s->next;
    }
    if (!s)
        return false;
    mp_assert(a->used >= s->bytes);
    a->used -= s->bytes;
    s->start = MP_ARENA_NONE;
    if (a->idle + s->bytes > IDLE_BYTES_MAX &&
        madvise(a->data + s->offset, s->bytes, MADV_REMOVE) == 0)
        s->is_touched = false;
    else
        a->idle += s->bytes;
    merge_with_next(s);
    if (before)
        merge_with_next(before);
    return true;
}

uint8_t *mp_arena_at(struct mp_arena *a, uint64_t offset)
{
    mp_assert(offset < a->size);
    return a->data + offset;
}

size_t mp_arena_used(const struct mp_arena *a)
{
    return a->used;
}

enum mp_err mp_arena_view_open(struct mp_arena_view *v, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size <= 0)
        return MP_EIO;
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED)
        return MP_EIO;
    *v = (struct mp_arena_view){.data = data, .size = (size_t)st.st_size};
    return MP_OK;
}

void mp_arena_view_close(struct mp_arena_view *v)
{
    if (v->data) {
        /* munmap takes a writable pointer although it writes nothing */
        union {
            const uint8_t *read;
            void *any;
        } p = {.read = v->data};
        munmap(p.any, v->size);
    }
    *v = (struct mp_arena_view){0};
}

bool mp_arena_view_get(const struct mp_arena_view *v, uint64_t offset, uint64_t size,
                       struct mp_slice *bytes)
{
    if (offset > v->size || size > v->size - offset)
        return false;
    *bytes = mp_slice_of(v->data + offset, (size_t)size);
    return true;
}
