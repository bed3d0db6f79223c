/* Faults that the simulator may plant in the core, to show that its invariants notice them. A node
 * has none of them: only `build/mpreg-sim --defect NAME` sets any. Each is one wrong decision, at
 * one place of the code, marked by mp_has_defect(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* constant, name on the command line, what goes wrong */
#define MP_DEFECT_LIST(X)                                                                          \
    X(REFUTE_WITHOUT_INCARNATION, "refute-without-incarnation",                                    \
      "an accused node answers without raising its incarnation")                                   \
    X(REVIVE_OTHERS, "revive-others", "a node raises the incarnation of another one")              \
    X(IGNORE_GENERATION, "ignore-generation", "older generations replace newer ones")              \
    X(FORGET_DEAD, "forget-dead", "a dead member is forgotten at once")                            \
    X(NEVER_REDIAL, "never-redial", "the dead are never tried again")                              \
    X(SUSPECT_IS_DEAD, "suspect-is-dead", "a missed probe kills at once")                          \
    X(STALE_TOMBSTONE, "stale-tombstone",                                                          \
      "what is still said of a forgotten node is believed again")                                  \
    X(NO_DIGESTS, "no-digests", "differences that gossip missed are never sent")                   \
    X(OLDER_ENTRY_WINS, "older-entry-wins", "a catalog entry is replaced by an older one")         \
    X(ROUTE_TO_DEAD, "route-to-dead", "calls still go to nodes that are dead")                     \
    X(RELAY_IN_CIRCLES, "relay-in-circles", "a helper passes a call back where it came from")      \
    X(RETRY_AFTER_BEGIN, "retry-after-begin", "a call that may have begun is sent again")          \
    X(FORGET_CALLS_OF_LINK, "forget-calls-of-link",                                                \
      "calls on a link that closed are never answered")                                            \
    X(ANSWER_TWICE, "answer-twice", "the end of a link answers calls that were answered")          \
    X(KEEP_HELD, "keep-held", "results held for a run are never released")                         \
    X(IGNORE_CANCEL, "ignore-cancel", "a cancelled call is not cancelled on its node")             \
    X(SWITCH_BEFORE_KEEP, "switch-before-keep",                                                    \
      "others switch to a deploy that is not kept yet where it was made")                          \
    X(RELEASE_IGNORED, "release-ignored", "a call from elsewhere gets what is live here")          \
    X(RETIRE_NAMED, "retire-named", "a release is let go of that calls still have")                \
    X(ABORT_HALF, "abort-half", "a deploy that was refused is live on those that had it ready")    \
    X(LIVE_UNTOLD, "live-untold", "a deploy is said to be live on nodes that have not said so")    \
    X(CONFIRM_AT_ONCE, "confirm-at-once",                                                          \
      "a cancelled call is said to have stopped before it has")                                    \
    X(SKIP_EVENTS, "skip-events", "a watcher is not told what happened while it did not read")     \
    X(RESUME_ALL, "resume-all", "a run that goes on with another does a finished step again")      \
    X(LOST_GOES_ON, "lost-goes-on", "a run of a node that died is listed as if it went on")        \
    X(PUBLISH_TO_ALL, "publish-to-all", "messages go to nodes that do not want them")              \
    X(BATCH_UNTOLD, "batch-untold", "that a batch for another node was lost is not told")          \
    X(DROPS_UNTOLD, "drops-untold", "a subscriber is not told what it lost")                       \
    X(INTEREST_FORGOTTEN, "interest-forgotten", "a node that was taken for dead gets no messages") \
    X(BACKLOG_LEFT_OUT, "backlog-left-out",                                                        \
      "a subscription with a past goes on without the others'")

enum mp_defect {
#define MP_DEFECT_ENUM(constant, name, what) MP_DEFECT_##constant,
    MP_DEFECT_LIST(MP_DEFECT_ENUM)
#undef MP_DEFECT_ENUM
        MP_DEFECT_COUNT
};

static inline bool mp_has_defect(uint64_t defects, enum mp_defect d)
{
    return (defects >> d & 1) != 0;
}
