/* SPDX-License-Identifier: Apache-2.0
 * Chains for broadcast and reduce, one a lane, from the root on through the lane's order.
 * Windows follow each other along the chain, so long vectors cost one pass. */
#include "sched.h"

struct chain {
	struct tt_builder *b;
	int p, at; /* place in the chain, the root's is 0 */
	int prev, next;
	uint32_t lane;
};

static void build_broadcast(const struct chain *c)
{
	struct tt_ref in = tt_ref(TT_IN, c->lane, 1), out = tt_ref(TT_OUT, c->lane, 1);

	if (c->at)
		tt_recv(c->b, c->lane, (uint32_t)c->at - 1, c->prev, out);
	if (c->at < c->p - 1)
		tt_send(c->b, c->lane, (uint32_t)c->at, c->next, c->at ? out : in);
	if (!c->at)
		tt_copy(c->b, out, in);
}

static void build_reduce(const struct chain *c)
{
	struct tt_ref in = tt_ref(TT_IN, c->lane, 1), sum = in;
	uint32_t skew = (uint32_t)(c->p - 1 - c->at);

	if (c->at < c->p - 1) {
		struct tt_ref got = tt_ref(tt_sched_tmp(c->b, c->lane, 1), c->lane, 1);

		sum = c->at ? got : tt_ref(TT_OUT, c->lane, 1);
		tt_recv(c->b, c->lane, skew - 1, c->next, got);
		tt_reduce(c->b, sum, in, got);
	}
	if (c->at)
		tt_send(c->b, c->lane, skew, c->prev, sum);
}

tuttiResult_t tt_build_chain(enum tt_coll coll, int rank, int nranks, int root,
			     const struct tt_shape *shape, struct tt_sched **out)
{
	struct chain c = { .p = nranks };

	TRY(tt_sched_begin(&c.b, coll, "chain", rank, nranks, root, shape->nlanes, shape->nlanes));
	tt_sched_lane_weights(c.b, shape, 1);
	if (root == 0 && !shape->order)
		tt_sched_ordered(c.b);
	for (c.lane = 0; c.lane < shape->nlanes && nranks > 1; c.lane++) {
		int mine = tt_shape_pos(shape, c.lane, nranks, rank);
		int top = tt_shape_pos(shape, c.lane, nranks, root);

		c.at = (mine - top + nranks) % nranks;
		c.prev = tt_shape_rank(shape, c.lane, nranks, (mine + nranks - 1) % nranks);
		c.next = tt_shape_rank(shape, c.lane, nranks, (mine + 1) % nranks);
		if (coll == TT_BROADCAST)
			build_broadcast(&c);
		else
			build_reduce(&c);
	}
	return tt_sched_end(c.b, out);
}
