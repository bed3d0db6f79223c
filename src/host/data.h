/* The data folder of a node: its lock, and the generation of its latest boot. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "src/base/compiler.h"
#include "src/base/text.h"

struct mp_data;

/* Opens `dir` (NULL: a temporary folder, removed by mp_data_close), creating it if need be, locks
 * it for this process and raises the generation in it: to `now_ms` or to one more than the last.
 * False: `why` says what is wrong, with the path. */
bool mp_data_open(struct mp_data **own_out, const char *dir, int64_t now_ms, struct mp_text *why);
const char *mp_data_dir(const struct mp_data *d);
bool mp_data_is_temporary(const struct mp_data *d);
uint64_t mp_data_generation(const struct mp_data *d);
/* Keeps a higher generation, written on libuv's threads; of several only the newest is. A failure
 * is logged. */
void mp_data_persist(struct mp_data *d, uv_loop_t *loop, uint64_t generation);
bool mp_data_is_busy(const struct mp_data *d);
/* Gives the folder up, which must not be busy. NULL is fine. */
void mp_data_close(struct mp_data *d);
