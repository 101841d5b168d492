/* Schedules of files in the plan. SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <string.h>

static bool rooted(const struct tt_sched_set *set)
{
	enum tt_coll coll = set->ranks[0]->coll;

	return coll == TT_BROADCAST || coll == TT_REDUCE;
}

/* A set is for a class of sizes if the middle of the class is in its range, as the plan is made for that. */
static bool is_for(const struct tt_sched_set *set, int class)
{
	size_t bytes = class ? ((size_t)3 << class) / 4 : 0;

	return bytes >= set->least && bytes <= set->most;
}

int tt_plan_sizes(const struct tt_sched_set *set)
{
	int n = 0;

	for (int k = 0; k < TT_CLASSES; k++)
		n += is_for(set, k);
	return n;
}

static int use_set(struct tt_plan *plan, const struct tt_sched_set *set, int index)
{
	uint32_t window = (uint32_t)tt_env_int("WINDOW");
	int n = 0;

	for (int k = 0; k < TT_CLASSES; k++) {
		struct tt_row *row = &plan->rows[0][set->ranks[0]->coll][k];

		if (!is_for(set, k) || row->algo >= TT_CUSTOM)
			continue;
		*row = (struct tt_row){ .algo = (uint8_t)(TT_CUSTOM + index), .lanes = 1, .depth = 4,
					.window = window < 1024 ? 1024 : window };
		n++;
	}
	return n;
}

int tt_plan_use(struct tt_plan *plan, const struct tt_sched_file *file, int nranks)
{
	int n = 0;

	for (int i = 0; i < file->nsets && i < 256 - TT_CUSTOM; i++)
		if (file->sets[i]->nranks == nranks)
			n += use_set(plan, file->sets[i], i);
	return n;
}

/* Sets that differ in the root alone share the rows of the first. */
static bool alike(const struct tt_sched_set *a, const struct tt_sched_set *b)
{
	return a->nranks == b->nranks && a->ranks[0]->coll == b->ranks[0]->coll && a->least == b->least &&
	       a->most == b->most && !strcmp(a->algo, b->algo);
}

const struct tt_sched_set *tt_plan_set(const struct tt_sched_file *file, uint8_t algo, int root)
{
	const struct tt_sched_set *set = file->sets[algo - TT_CUSTOM];

	for (int i = algo - TT_CUSTOM; rooted(set) && i < file->nsets; i++)
		if (file->sets[i]->ranks[0]->root == root && alike(set, file->sets[i]))
			return file->sets[i];
	return rooted(set) ? NULL : set;
}
