/* SPDX-License-Identifier: Apache-2.0
 * The table of algorithms: one row each. */
#include "sched.h"

#include <string.h>

enum {
	ALLREDUCE = 1 << TT_ALLREDUCE,
	ALLGATHER = 1 << TT_ALLGATHER,
	REDUCESCATTER = 1 << TT_REDUCESCATTER,
	BROADCAST = 1 << TT_BROADCAST,
	REDUCE = 1 << TT_REDUCE,
	BARRIER = 1 << TT_BARRIER,
};

const struct tt_algo tt_algos[] = {
	{ "ring", ALLREDUCE | ALLGATHER | REDUCESCATTER, false, tt_build_ring },
	{ "direct", ALLREDUCE | ALLGATHER | REDUCESCATTER | BROADCAST | REDUCE, true,
	  tt_build_direct },
	{ "direct1", ALLREDUCE, true, tt_build_direct1 },
	{ "dbtree", ALLREDUCE, true, tt_build_dbtree },
	{ "recdouble", ALLREDUCE, true, tt_build_recdouble },
	{ "circulant", ALLREDUCE | ALLGATHER | REDUCESCATTER, false, tt_build_circulant },
	{ "knomial", BROADCAST | REDUCE, false, tt_build_knomial },
	{ "chain", BROADCAST | REDUCE, false, tt_build_chain },
	{ "tree", ALLREDUCE | BROADCAST | REDUCE, false, tt_build_tree },
	{ "hier", ALLREDUCE | ALLGATHER | REDUCESCATTER, false, tt_build_hier },
	{ "dissemination", BARRIER, true, tt_build_dissemination },
};
const int tt_nalgos = sizeof tt_algos / sizeof tt_algos[0];

const struct tt_algo *tt_algo_find(const char *name, enum tt_coll coll)
{
	for (int i = 0; i < tt_nalgos; i++)
		if (!strcmp(tt_algos[i].name, name) && tt_algos[i].colls >> coll & 1)
			return &tt_algos[i];
	return NULL;
}
