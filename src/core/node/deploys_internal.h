/* What the files about deploys share.
 *
 *   deploys.c          the way of a change: checked, staged, kept, switched; and other nodes' part
 * in it deploy_queries.c   what clients ask deploy_answers.c   what they are told, and the rules of
 * versions deploy_entries.c   the history: taken in, kept, compared */
#pragma once

#include "src/core/node/node_internal.h"

/* A new deploy in state CHECKING; NULL: there are too many, or there is no memory. */
struct mp_node_deploy *mp_node_deploy_new(struct mp_node *n);
void mp_node_deploy_free(struct mp_node *n, struct mp_node_deploy *d);
/* Copies what was asked, one behind the other, and says where it is now. False: no memory. */
bool mp_node_deploy_own(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice a,
                        struct mp_slice b, struct mp_slice *own_a, struct mp_slice *own_b);
/* Has the unit tried. False: no memory. */
bool mp_node_deploy_check(struct mp_node *n, struct mp_node_deploy *d);
/* Lists this node and all others that have not left. False: no memory. */
bool mp_node_deploy_list(struct mp_node *n, struct mp_node_deploy *d);
/* All that are listed are to have the unit ready. */
void mp_node_deploy_stage(struct mp_node *n, mp_time now, struct mp_node_deploy *d);
/* Something that it waits for may have come. It may end. */
void mp_node_deploy_go_on(struct mp_node *n, mp_time now, struct mp_node_deploy *d);
struct mp_node_deploy_member *mp_node_deploy_members(const struct mp_node_deploy *d,
                                                     uint32_t *count);

/* The end of a deploy, by an answer; it is freed. */
void mp_node_deploy_answer(struct mp_node *n, struct mp_node_deploy *d, bool is_error,
                           struct mp_slice bytes);
/* `error` is an ERROR map, which gets this node's name if it has none. */
void mp_node_deploy_refuse(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice error);
void mp_node_deploy_refuse_fault(struct mp_node *n, struct mp_node_deploy *d,
                                 const struct mp_fault *fault);
void mp_node_deploy_refuse_text(struct mp_node *n, struct mp_node_deploy *d, enum mp_code code,
                                const char *reason, const char *message);
void mp_node_deploy_no_memory(struct mp_node *n, struct mp_node_deploy *d);
/* It has happened: what its entries say is answered. Without memory it stays, for the next sweep.
 */
void mp_node_deploy_finish(struct mp_node *n, struct mp_node_deploy *d);

/* One module of a unit as a wish; false: the description is not one of this unit. */
bool mp_node_deploy_wish(const struct mp_node_deploy *d, uint32_t place, struct mp_deploy_wish *w);
/* Whether the rules allow all of it; else it is refused. */
bool mp_node_deploy_obeys(struct mp_node *n, struct mp_node_deploy *d);
/* Whether that very content is live already. */
bool mp_node_deploy_is_unchanged(const struct mp_node *n, const struct mp_node_deploy *d);
/* The elements of an array; 0 if it is none. */
uint32_t mp_node_count_of(struct mp_slice array);
/* The pair of a key and bytes in hex digits; nil for none. */
enum mp_err mp_node_put_hex(struct mp_buf *b, const char *key, struct mp_slice bytes);

/* Takes entries in; what is wrong with them is logged. */
struct mp_deploy_effects mp_node_entries_merge(struct mp_node *n, mp_time now,
                                               struct mp_slice entries, bool is_restored);
bool mp_node_entries_are_known(const struct mp_node *n, struct mp_slice entries);
void mp_node_entries_kept(struct mp_node *n, const struct mp_node_event *ev);
void mp_node_entries_keep_again(struct mp_node *n);
