/* A small disk of runs, for a node of the cluster harness: it outlives the node. What is on its way
 * to it when the node is killed is not there. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/buf.h"
#include "src/core/node/node.h"
#include "src/wire/msgpack.h"

#define SPEC_DISK_MAX 4096
#define SPEC_HEAD     "head"
#define SPEC_BODY     "body"

/* One thing of a run: its head, its body, or a part. */
struct spec_record {
    char run_id[32];
    char name[96];
    uint8_t *data;
    size_t size;
};

struct spec_disk {
    struct spec_record records[SPEC_DISK_MAX]; /* the oldest heads first */
    uint32_t count;
    bool is_full; /* nothing can be kept any more */
};

static inline void disk_must(bool is_so)
{
    if (!is_so)
        abort();
}

static inline void disk_text(char *out, size_t size, struct mp_slice text)
{
    disk_must(text.size < size);
    snprintf(out, size, "%.*s", (int)text.size, (const char *)text.data);
}

static inline struct spec_record *disk_find(struct spec_disk *d, const char *run_id,
                                            const char *name)
{
    for (uint32_t i = 0; i < d->count; i++)
        if (strcmp(d->records[i].run_id, run_id) == 0 && strcmp(d->records[i].name, name) == 0)
            return &d->records[i];
    return NULL;
}

static inline void disk_put(struct spec_disk *d, const char *run_id, const char *name,
                            struct mp_slice bytes)
{
    struct spec_record *r = disk_find(d, run_id, name);
    disk_must(r || d->count < SPEC_DISK_MAX);
    if (!r) {
        r = &d->records[d->count++];
        *r = (struct spec_record){0};
        snprintf(r->run_id, sizeof(r->run_id), "%s", run_id);
        snprintf(r->name, sizeof(r->name), "%s", name);
    }
    free(r->data);
    r->data = (uint8_t *)malloc(bytes.size + 1);
    r->size = bytes.size;
    if (bytes.size != 0)
        memcpy(r->data, bytes.data, bytes.size);
}

/* Drops what a run has, or of that what begins with `prefix`. */
static inline void disk_drop(struct spec_disk *d, const char *run_id, const char *prefix)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        struct spec_record *r = &d->records[i];
        if (strcmp(r->run_id, run_id) == 0 && strncmp(r->name, prefix, strlen(prefix)) == 0)
            free(r->data);
        else
            d->records[kept++] = *r;
    }
    d->count = kept;
}

static inline void disk_free(struct spec_disk *d)
{
    for (uint32_t i = 0; i < d->count; i++)
        free(d->records[i].data);
    d->count = 0;
}

/* Of the array of both. */
static inline void disk_names(struct mp_slice both, char run_id[32], char name[96])
{
    struct mp_slice value;
    struct mp_slice text = {0};
    disk_must(mp_mp_array_get(both, 0, &value) == MP_OK && mp_mp_get_str(value, &text) == MP_OK);
    disk_text(run_id, 32, text);
    disk_must(mp_mp_array_get(both, 1, &value) == MP_OK && mp_mp_get_str(value, &text) == MP_OK);
    disk_text(name, 96, text);
}

static inline void disk_put_progress(struct spec_disk *d, const char *run_id, struct mp_buf *out)
{
    char last[96] = "progress/";
    for (;;) {
        struct spec_record *next = NULL;
        for (uint32_t i = 0; i < d->count; i++) {
            struct spec_record *r = &d->records[i];
            if (strcmp(r->run_id, run_id) == 0 && strncmp(r->name, "progress/", 9) == 0 &&
                strcmp(r->name, last) > 0 && (!next || strcmp(r->name, next->name) < 0))
                next = r;
        }
        if (!next)
            return;
        disk_must(mp_mp_put_bin(out, mp_slice_of(next->data, next->size)) == MP_OK);
        snprintf(last, sizeof(last), "%s", next->name);
    }
}

static inline bool disk_read_run(struct spec_disk *d, const char *run_id, struct mp_buf *out)
{
    const struct spec_record *head = disk_find(d, run_id, SPEC_HEAD);
    const struct spec_record *body = disk_find(d, run_id, SPEC_BODY);
    uint32_t count = 0;
    if (!head)
        return false;
    for (uint32_t i = 0; i < d->count; i++)
        count += strcmp(d->records[i].run_id, run_id) == 0 &&
                 strncmp(d->records[i].name, "progress/", 9) == 0;
    disk_must(mp_mp_put_array(out, 3) == MP_OK &&
              mp_mp_put_raw(out, mp_slice_of(head->data, head->size)) == MP_OK &&
              mp_mp_put_raw(out, mp_slice_of(body->data, body->size)) == MP_OK &&
              mp_mp_put_array(out, count) == MP_OK);
    disk_put_progress(d, run_id, out);
    return true;
}

/* All heads, as a node that starts gets them. */
static inline void disk_put_heads(struct spec_disk *d, struct mp_buf *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < d->count; i++)
        count += strcmp(d->records[i].name, SPEC_HEAD) == 0;
    disk_must(mp_mp_put_array(out, count) == MP_OK);
    for (uint32_t i = 0; i < d->count; i++)
        if (strcmp(d->records[i].name, SPEC_HEAD) == 0)
            disk_must(mp_mp_put_raw(out, mp_slice_of(d->records[i].data, d->records[i].size)) ==
                      MP_OK);
}

/* Carries out one effect. What it reads goes to `out`; false: that is missing, or it cannot keep.
 */
static inline bool disk_do(struct spec_disk *d, enum mp_node_effect_kind kind,
                           struct mp_slice context, struct mp_slice bytes, struct mp_buf *out)
{
    char run_id[32];
    char name[96];
    struct mp_slice head;
    struct mp_slice body;
    const struct spec_record *r;
    switch (kind) {
    case MP_NODE_KEEP_RUN:
        disk_must(mp_mp_check(bytes) == MP_OK && mp_mp_array_get(bytes, 0, &head) == MP_OK &&
                  mp_mp_array_get(bytes, 1, &body) == MP_OK);
        disk_text(run_id, sizeof(run_id), context);
        if (d->is_full)
            return false;
        disk_drop(d, run_id, "progress/");
        disk_put(d, run_id, SPEC_HEAD, head);
        disk_put(d, run_id, SPEC_BODY, body);
        return true;
    case MP_NODE_KEEP_RUN_PART:
        disk_names(context, run_id, name);
        if (!d->is_full)
            disk_put(d, run_id, name, bytes);
        return !d->is_full;
    case MP_NODE_FORGET_RUN:
        disk_text(run_id, sizeof(run_id), context);
        disk_drop(d, run_id, "");
        return true;
    case MP_NODE_READ_RUN:
        disk_text(run_id, sizeof(run_id), context);
        return disk_read_run(d, run_id, out);
    default:
        disk_must(kind == MP_NODE_READ_RUN_PART);
        disk_names(context, run_id, name);
        r = disk_find(d, run_id, name);
        if (r)
            disk_must(mp_buf_append(out, mp_slice_of(r->data, r->size)) == MP_OK);
        return r != NULL;
    }
}
