/* SPDX-License-Identifier: Apache-2.0
 * Double binary tree allreduce: two trees, each over half of the data and on lanes of its own;
 * who is a leaf in one is inside in the other. Both are in-order trees, so each reduces in the
 * lane's rank order. Even lanes: nodes 0 .. p-1, node 0 the root with one child. Odd lanes:
 * nodes 1 .. p. A node's height is its lowest set bit. Windows pipeline through the trees. */
#include "sched.h"

struct tree {
	struct tt_builder *b;
	const struct tt_shape *shape;
	int p, first; /* nodes first .. first + p - 1 */
	uint32_t lane;
};

static int last_node(const struct tree *t)
{
	return t->first + t->p - 1;
}

static int low_bit(const struct tree *t, int node)
{
	int bit = 1;

	if (node)
		return node & -node;
	while (bit <= last_node(t))
		bit *= 2;
	return bit;
}

/* The parent, or -1. */
static int parent(const struct tree *t, int node)
{
	int bit = low_bit(t, node), up = (node ^ bit) | (bit * 2);

	if (!node)
		return -1;
	if (up > last_node(t))
		up = node ^ bit;
	return up < t->first ? -1 : up;
}

static int left_child(const struct tree *t, int node)
{
	int bit = low_bit(t, node);

	return node && bit > 1 ? node - bit / 2 : -1;
}

static int right_child(const struct tree *t, int node)
{
	int bit = low_bit(t, node) / 2;

	while (bit && node + bit > last_node(t))
		bit /= 2;
	return bit ? node + bit : -1;
}

static uint32_t depth(const struct tree *t, int node)
{
	uint32_t d = 0;

	for (node = parent(t, node); node >= 0; node = parent(t, node))
		d++;
	return d;
}

static int rank_of(const struct tree *t, int node)
{
	uint32_t row = t->lane % t->shape->nlanes;

	return tt_shape_rank(t->shape, row, t->p, node - t->first);
}

/* Receives a child's sum; its place among the sources. */
static uint32_t take(const struct tree *t, int child, struct tt_ref *src)
{
	if (child < 0)
		return 0;
	*src = tt_ref(tt_sched_tmp(t->b, t->lane, 1), t->lane, 1);
	tt_recv(t->b, t->lane, 64 - depth(t, child), rank_of(t, child), *src);
	return 1;
}

static void give(const struct tree *t, int child)
{
	if (child >= 0)
		tt_send(t->b, t->lane, 64 + depth(t, child), rank_of(t, child),
			tt_ref(TT_OUT, t->lane, 1));
}

static void build_tree(const struct tree *t, int node)
{
	int up = parent(t, node), left = left_child(t, node), right = right_child(t, node);
	struct tt_ref src[3], sum = tt_ref(TT_IN, t->lane, 1);
	uint32_t n = take(t, left, src), level = depth(t, node);

	src[n++] = sum;
	n += take(t, right, src + n);
	if (n > 1) {
		sum.buf = TT_OUT;
		tt_reducev(t->b, sum, src, n);
	}
	if (up >= 0) {
		tt_send(t->b, t->lane, 64 - level, rank_of(t, up), sum);
		tt_recv(t->b, t->lane, 64 + level, rank_of(t, up), tt_ref(TT_OUT, t->lane, 1));
	}
	give(t, left);
	give(t, right);
}

tuttiResult_t tt_build_dbtree(enum tt_coll coll, int rank, int nranks, int root,
			      const struct tt_shape *shape, struct tt_sched **out)
{
	uint32_t nlanes = shape->nlanes < 2 ? 2 : shape->nlanes;
	struct tree t = { .shape = shape, .p = nranks };

	TRY(tt_sched_begin(&t.b, coll, "dbtree", rank, nranks, root, nlanes, nlanes));
	if (!shape->order)
		tt_sched_ordered(t.b);
	if (nlanes == shape->nlanes)
		tt_sched_lane_weights(t.b, shape, 1);
	for (t.lane = 0; t.lane < nlanes && nranks > 1; t.lane++) {
		t.first = (int)(t.lane % 2);
		build_tree(&t, t.first + tt_shape_pos(shape, t.lane % shape->nlanes, nranks, rank));
	}
	return tt_sched_end(t.b, out);
}
