/* Floor 2: what the parts of algo_hier*.c share: the groups of a lane, and the rails across them. */
#ifndef TT_ALGO_HIER_H
#define TT_ALGO_HIER_H

#include "sched.h"

/* There are as many rails as the largest group has ranks; each rail has one owner in each group, and the ranks of a
 * smaller group own several. */
struct tt_hier {
	struct tt_builder *b;
	uint32_t *members, *first; /* ranks by group, and where each group begins; one more at the end */
	uint32_t *spare;           /* one a rank */
	struct tt_ref *src;        /* one more than ranks */
	uint32_t ngroups, rails, mine, at; /* this rank's group, and its place in it */
	uint32_t base, lane, nlanes;       /* base: the first chunk of the lane */
	uint32_t pieces; /* of a block in a lane, equally many for each rail; or 1: the block goes on its rank's rail */
};

static inline uint32_t tt_hier_size(const struct tt_hier *h, uint32_t g)
{
	return h->first[g + 1] - h->first[g];
}

static inline int tt_hier_member(const struct tt_hier *h, uint32_t g, uint32_t m)
{
	return (int)h->members[h->first[g] + m];
}

/* Member m of a group of n has the rails from here to where the next one's begin. */
static inline uint32_t tt_hier_rail(const struct tt_hier *h, uint32_t m, uint32_t n)
{
	return (m * h->rails + n - 1) / n;
}

static inline int tt_hier_owner(const struct tt_hier *h, uint32_t g, uint32_t rail)
{
	return tt_hier_member(h, g, rail * tt_hier_size(h, g) / h->rails);
}

void tt_hier_allgather(const struct tt_hier *h); /* algo_hier_blocks.c */
void tt_hier_reducescatter(const struct tt_hier *h);

#endif
