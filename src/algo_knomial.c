/* SPDX-License-Identifier: Apache-2.0
 * k-nomial trees for broadcast and reduce, the radix from shape.param (default 2). Ranks count
 * from the root on; a node's subtree is a range, so a reduction with root 0 is in rank order. */
#include "sched.h"

struct tree {
	struct tt_builder *b;
	int p, node, root, radix;
	uint32_t lane;
};

static int rank_of(const struct tree *t, int node)
{
	return (int)(((int64_t)node + t->root) % t->p);
}

/* The weight of the lowest digit that is not 0; of the root the first beyond all nodes. */
static int64_t low_digit(const struct tree *t, int node)
{
	int64_t w = 1;

	while (node ? node / w % t->radix == 0 : w < t->p)
		w *= t->radix;
	return w;
}

static int parent(const struct tree *t)
{
	int64_t w = low_digit(t, t->node);

	return (int)(t->node - t->node / w % t->radix * w);
}

/* The skew of the edge above a node: equal on both ends. */
static uint32_t level(const struct tree *t, int node)
{
	uint32_t n = 0;

	for (int64_t w = low_digit(t, node); w > 1; w /= t->radix)
		n++;
	return n;
}

/* The widest subtrees first: they have the longest way to go. */
static void build_broadcast(const struct tree *t)
{
	struct tt_ref in = tt_ref(TT_IN, t->lane, 1), out = tt_ref(TT_OUT, t->lane, 1);

	if (t->node)
		tt_recv(t->b, t->lane, 64 - level(t, t->node), rank_of(t, parent(t)), out);
	for (int64_t w = low_digit(t, t->node) / t->radix; w; w /= t->radix)
		for (int j = 1; j < t->radix && t->node + j * w < t->p; j++) {
			int child = (int)(t->node + j * w);

			tt_send(t->b, t->lane, 64 - level(t, child), rank_of(t, child),
				t->node ? out : in);
		}
	if (!t->node)
		tt_copy(t->b, out, in);
}

/* All children in one step, rounded once. */
static void build_reduce(const struct tree *t, struct tt_ref *src)
{
	struct tt_ref sum = tt_ref(TT_IN, t->lane, 1);
	int64_t top = low_digit(t, t->node);
	uint32_t n = 0;

	src[n++] = sum;
	for (int64_t w = 1; w < top; w *= t->radix)
		for (int j = 1; j < t->radix && t->node + j * w < t->p; j++) {
			int child = (int)(t->node + j * w);

			src[n] = tt_ref(tt_sched_tmp(t->b, t->lane, 1), t->lane, 1);
			tt_recv(t->b, t->lane, level(t, child), rank_of(t, child), src[n]);
			n++;
		}
	if (n > 1) {
		sum.buf = t->node ? tt_sched_tmp(t->b, t->lane, 1) : TT_OUT;
		tt_reducev(t->b, sum, src, n);
	}
	if (t->node)
		tt_send(t->b, t->lane, level(t, t->node), rank_of(t, parent(t)), sum);
}

tuttiResult_t tt_build_knomial(enum tt_coll coll, int rank, int nranks, int root,
			       const struct tt_shape *shape, struct tt_sched **out)
{
	int radix = shape->param < 2 ? 2 : (int)tt_min(shape->param, 64);
	struct tree t = {
		.p = nranks, .root = root, .radix = radix, .node = (rank - root + nranks) % nranks
	};
	struct tt_ref src[64 * 32]; /* 31 digits at most */

	TRY(tt_sched_begin(&t.b, coll, "knomial", rank, nranks, root, shape->nlanes,
			   shape->nlanes));
	tt_sched_lane_weights(t.b, shape, 1);
	if (root == 0)
		tt_sched_ordered(t.b);
	for (t.lane = 0; t.lane < shape->nlanes && nranks > 1; t.lane++) {
		if (coll == TT_BROADCAST)
			build_broadcast(&t);
		else
			build_reduce(&t, src);
	}
	return tt_sched_end(t.b, out);
}
