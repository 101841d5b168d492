/* Floor 2: shapes made from what the search found in a graph. Its ends are the ranks. */
#ifndef TT_SCHED_SHAPE_H
#define TT_SCHED_SHAPE_H

#include "sched.h"
#include "topo_search.h"

/* A lane for each ring ("ring") or tree ("tree"), the `most` heaviest of them, with their weights. */
tuttiResult_t tt_shape_of_rings(const struct tt_rings *r, uint32_t most, struct tt_shape *out);
tuttiResult_t tt_shape_of_trees(const struct tt_trees *t, uint32_t most, struct tt_shape *out);

#endif
