/* What the files about topics give to the others of core/node.
 *
 *   topics.c       the machine of topics, joined to clients, links and the catalog
 *   subscribed.c   functions that are called for messages */
#pragma once

#include "src/core/node/node_internal.h"

/* topics.c */
void mp_node_publish(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_subscribe(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* Whether that was a subscription, which then has ended. */
bool mp_node_topics_cancel(struct mp_node *n, mp_time now, uint64_t client, uint64_t id);
void mp_node_topics_client_gone(struct mp_node *n, mp_time now, uint64_t client);
void mp_node_topics_pressure(struct mp_node *n, mp_time now, uint64_t client, bool is_high);
/* What earlier lives of this node have kept, and the end of a KEEP_MESSAGES. */
void mp_node_topics_restored(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
void mp_node_topics_kept(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* The end of a PUBLISHED. It only notes it, so it may come from anywhere. */
void mp_node_topics_published(struct mp_node *n, uint32_t member, uint64_t request, bool is_lost);
void mp_node_topics_gathered(struct mp_node *n, mp_time now, const struct mp_node_work *w);
void mp_node_topics_member_gone(struct mp_node *n, mp_time now, uint32_t member);
/* PUBLISHED or BACKLOG of another node; false: it is another frame. */
bool mp_node_topic_request(struct mp_node *n, mp_time now, const struct mp_node_event *ev);
/* One step of the machine, with its effects carried out. Not from inside of such. */
enum mp_err mp_node_topics_step(struct mp_node *n, mp_time now, const struct mp_topic_event *ev,
                                struct mp_topic_effects *out);
/* What is left to do at the end of a step of the node; whether there is such. */
void mp_node_topics_settle(struct mp_node *n, mp_time now);
bool mp_node_topics_are_due(const struct mp_node *n);
void mp_node_topics_tick(struct mp_node *n, mp_time now);
mp_time mp_node_topics_deadline(const struct mp_node *n);
/* Whether a subscriber, a function or another node would get a message of this topic; it is cheap
 * to ask. And to publish one, of any topic: `data` is one value. */
bool mp_node_topics_wants(struct mp_node *n, struct mp_slice topic);
/* Whether nobody would get any message at all. */
bool mp_node_topics_are_unwanted(const struct mp_node *n);
/* Changes whenever the answer to that may. */
uint64_t mp_node_topics_generation(const struct mp_node *n);
void mp_node_topics_publish(struct mp_node *n, mp_time now, struct mp_slice topic,
                            struct mp_slice data);
/* "topics": {…} of the status. */
MP_MUST_USE enum mp_err mp_node_put_topics(const struct mp_node *n, struct mp_buf *b);
/* The node has nothing more to do: whether others have what it published, or were waited for long
 * enough; and subscribers are told. */
bool mp_node_topics_are_told(struct mp_node *n);
void mp_node_topics_end(struct mp_node *n, mp_time now);
enum mp_err mp_node_topics_init(struct mp_node *n);
void mp_node_topics_fini(struct mp_node *n);

/* subscribed.c: functions that are called with messages */
void mp_node_subscribed_call(struct mp_node *n, const struct mp_topic_effect *e);
void mp_node_subscribed_missed(struct mp_node *n, const struct mp_topic_effect *e);
/* One of these calls has ended; `bytes`: the result, or an ERROR map. */
void mp_node_subscribed_answer(struct mp_node *n, const struct mp_rpc_effect *e,
                               struct mp_slice bytes);
void mp_node_subscribed_room(struct mp_node *n, mp_time now);
void mp_node_subscribed_refresh(struct mp_node *n, mp_time now);
/* Whether a line may be logged now; it then says how many like it were not. */
bool mp_node_may_tell(struct mp_node *n, struct mp_node_told *told, struct mp_text *text);
void mp_node_subscribed_fini(struct mp_node *n);
