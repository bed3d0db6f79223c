/* See defects.h. Each row names the smallest world in which the defect shows within a few seeds. */
#include "src/sim/defects.h"

#include <string.h>

#include "src/base/assert.h"

struct place {
    enum mp_world_scenario scenario;
    uint32_t nodes;
    uint32_t slow; /* nodes that are slow all the time */
};

static const struct place places[MP_DEFECT_COUNT] = {
    [MP_DEFECT_REFUTE_WITHOUT_INCARNATION] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_REVIVE_OTHERS] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_IGNORE_GENERATION] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_FORGET_DEAD] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_NEVER_REDIAL] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_SUSPECT_IS_DEAD] = {MP_WORLD_MEMBERSHIP, 8, 2},
    [MP_DEFECT_STALE_TOMBSTONE] = {MP_WORLD_CATALOG, 6, 0},
    [MP_DEFECT_NO_DIGESTS] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_OLDER_ENTRY_WINS] = {MP_WORLD_MIXED, 5, 0},
    [MP_DEFECT_ROUTE_TO_DEAD] = {MP_WORLD_ROUTING, 5, 0},
    [MP_DEFECT_RELAY_IN_CIRCLES] = {MP_WORLD_ROUTING, 5, 0},
    [MP_DEFECT_RETRY_AFTER_BEGIN] = {MP_WORLD_ROUTING, 5, 0},
    [MP_DEFECT_FORGET_CALLS_OF_LINK] = {MP_WORLD_ROUTING, 5, 0},
    [MP_DEFECT_ANSWER_TWICE] = {MP_WORLD_ROUTING, 5, 0},
    [MP_DEFECT_KEEP_HELD] = {MP_WORLD_GRAPH, 4, 0},
    [MP_DEFECT_IGNORE_CANCEL] = {MP_WORLD_ROUTING, 4, 0},
    [MP_DEFECT_SWITCH_BEFORE_KEEP] = {MP_WORLD_DEPLOY, 5, 0},
    [MP_DEFECT_RELEASE_IGNORED] = {MP_WORLD_DEPLOY, 5, 0},
    [MP_DEFECT_RETIRE_NAMED] = {MP_WORLD_DEPLOY, 5, 0},
    [MP_DEFECT_ABORT_HALF] = {MP_WORLD_DEPLOY, 5, 0},
    [MP_DEFECT_LIVE_UNTOLD] = {MP_WORLD_DEPLOY, 5, 0},
    [MP_DEFECT_CONFIRM_AT_ONCE] = {MP_WORLD_GRAPH, 4, 0},
    [MP_DEFECT_SKIP_EVENTS] = {MP_WORLD_GRAPH, 4, 0},
    [MP_DEFECT_RESUME_ALL] = {MP_WORLD_GRAPH, 4, 0},
    [MP_DEFECT_LOST_GOES_ON] = {MP_WORLD_GRAPH, 4, 0},
    [MP_DEFECT_PUBLISH_TO_ALL] = {MP_WORLD_TOPICS, 5, 0},
    [MP_DEFECT_BATCH_UNTOLD] = {MP_WORLD_TOPICS, 5, 0},
    [MP_DEFECT_DROPS_UNTOLD] = {MP_WORLD_TOPICS, 5, 0},
    [MP_DEFECT_INTEREST_FORGOTTEN] = {MP_WORLD_TOPICS, 5, 0},
    [MP_DEFECT_BACKLOG_LEFT_OUT] = {MP_WORLD_TOPICS, 5, 0},
};

static const char *const names[MP_DEFECT_COUNT] = {
#define DEFECT_NAME(constant, name, what) name,
    MP_DEFECT_LIST(DEFECT_NAME)
#undef DEFECT_NAME
};

static const char *const texts[MP_DEFECT_COUNT] = {
#define DEFECT_TEXT(constant, name, what) what,
    MP_DEFECT_LIST(DEFECT_TEXT)
#undef DEFECT_TEXT
};

const char *mp_world_defect_name(enum mp_defect d)
{
    mp_assert(d < MP_DEFECT_COUNT);
    return names[d];
}

const char *mp_world_defect_text(enum mp_defect d)
{
    mp_assert(d < MP_DEFECT_COUNT);
    return texts[d];
}

enum mp_defect mp_world_defect_of(const char *name)
{
    uint32_t d = 0;
    while (d < MP_DEFECT_COUNT && strcmp(names[d], name) != 0)
        d++;
    return (enum mp_defect)d;
}

void mp_world_draw_defect(struct mp_world_config *cfg, enum mp_defect d, uint64_t seed)
{
    const struct place *p = &places[d];
    mp_assert(d < MP_DEFECT_COUNT && p->nodes != 0);
    mp_world_draw(cfg, p->scenario, p->nodes, seed);
    cfg->slow = p->slow;
    cfg->crashes = 0;
    cfg->additions = 3;
    cfg->defects = 1ull << d;
}
