/* SPDX-License-Identifier: Apache-2.0
 * Trees, one a lane of the shape, each with its parents and its root: allreduce goes up and comes down again,
 * broadcast and reduce turn each tree to their own root. Windows follow each other through the trees. */
#include "sched.h"

#include <stdlib.h>

struct tree {
	struct tt_builder *b;
	int p, rank;
	uint32_t lane, height;
	uint32_t *up, *depth; /* of each rank */
	struct tt_ref *src;
};

/* All children in one step, rounded once. */
static struct tt_ref collect(const struct tree *t, enum tt_coll coll)
{
	struct tt_ref sum = tt_ref(TT_IN, t->lane, 1);
	uint32_t n = 0;

	t->src[n++] = sum;
	for (int c = 0; c < t->p; c++)
		if (t->up[c] == (uint32_t)t->rank && c != t->rank) {
			t->src[n] = tt_ref(tt_sched_tmp(t->b, t->lane, 1), t->lane, 1);
			tt_recv(t->b, t->lane, t->height - t->depth[c], c, t->src[n++]);
		}
	if (n > 1) {
		sum.buf = coll == TT_REDUCE && t->depth[t->rank] ? tt_sched_tmp(t->b, t->lane, 1) : TT_OUT;
		tt_reducev(t->b, sum, t->src, n);
	}
	if (t->depth[t->rank])
		tt_send(t->b, t->lane, t->height - t->depth[t->rank], (int)t->up[t->rank], sum);
	return sum;
}

static void spread(const struct tree *t, uint32_t skew, struct tt_ref own)
{
	if (t->depth[t->rank]) {
		own.buf = TT_OUT;
		tt_recv(t->b, t->lane, skew + t->depth[t->rank] - 1, (int)t->up[t->rank], own);
	}
	for (int c = 0; c < t->p; c++)
		if (t->up[c] == (uint32_t)t->rank && c != t->rank)
			tt_send(t->b, t->lane, skew + t->depth[t->rank], c, own);
	if (own.buf == TT_IN)
		tt_copy(t->b, tt_ref(TT_OUT, t->lane, 1), own);
}

static void build_lane(const struct tree *t, enum tt_coll coll)
{
	if (coll == TT_BROADCAST) {
		spread(t, 0, tt_ref(TT_IN, t->lane, 1));
		return;
	}
	struct tt_ref sum = collect(t, coll);

	if (coll == TT_ALLREDUCE)
		spread(t, t->height, sum);
}

tuttiResult_t tt_build_tree(enum tt_coll coll, int rank, int nranks, int root, const struct tt_shape *shape,
			    struct tt_sched **out)
{
	size_t p = (size_t)nranks;
	uint32_t *room = malloc(p * (2 * sizeof *room + sizeof(struct tt_ref)));
	struct tree t = { .p = nranks, .rank = rank, .up = room };
	tuttiResult_t r;

	if (!room)
		return tt_fail(tuttiSystemError, "no memory for trees of %d ranks", nranks);
	t.depth = room + p;
	t.src = (struct tt_ref *)(room + 2 * p);
	r = tt_sched_begin(&t.b, coll, "tree", rank, nranks, root, shape->nlanes, shape->nlanes);
	if (r == tuttiSuccess)
		tt_sched_lane_weights(t.b, shape, 1);
	for (; r == tuttiSuccess && t.lane < shape->nlanes && nranks > 1; t.lane++) {
		t.height = tt_shape_tree(shape, t.lane, nranks, coll == TT_ALLREDUCE ? -1 : root, t.up, t.depth);
		build_lane(&t, coll);
	}
	if (r == tuttiSuccess)
		r = tt_sched_end(t.b, out);
	free(room);
	return r;
}
