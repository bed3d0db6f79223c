/* Where each deliberate defect of base/defects.h shows: the check of the checks. */
#pragma once

#include "src/base/defects.h"
#include "src/sim/world.h"

#define MP_WORLD_DEFECT_SEEDS 200 /* a defect that nothing notices by then goes unnoticed */

const char *mp_world_defect_name(enum mp_defect d);
const char *mp_world_defect_text(enum mp_defect d);
/* MP_DEFECT_COUNT if there is none of that name. */
enum mp_defect mp_world_defect_of(const char *name);
/* The world of a seed in which it shows soon, with the defect planted. */
void mp_world_draw_defect(struct mp_world_config *cfg, enum mp_defect d, uint64_t seed);
