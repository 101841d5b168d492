/* SPDX-License-Identifier: Apache-2.0
 * Recursive doubling allreduce of the whole vector. Of the first ranks beyond a power of two
 * each even one folds into its odd neighbour, so every group is a range of ranks and the order
 * of ranks holds. */
#include "sched.h"

struct doubling {
	struct tt_builder *b;
	int p, rank, extra; /* pairs that fold */
	uint32_t lane;
};

static int rank_of(const struct doubling *d, int member)
{
	return member < d->extra ? 2 * member + 1 : member + d->extra;
}

/* Combines with what `peer` sends; the operand of the lower ranks first. */
static void combine(const struct doubling *d, uint32_t skew, int peer, bool lower_first,
		    uint32_t own)
{
	struct tt_ref got = tt_ref(tt_sched_tmp(d->b, d->lane, 1), d->lane, 1);
	struct tt_ref mine = tt_ref(own, d->lane, 1), sum = tt_ref(TT_OUT, d->lane, 1);

	tt_recv(d->b, d->lane, skew, peer, got);
	if (lower_first)
		tt_reduce(d->b, sum, mine, got);
	else
		tt_reduce(d->b, sum, got, mine);
}

static void build_lane(const struct doubling *d, int members)
{
	bool folds = d->rank < 2 * d->extra;
	int me = folds ? d->rank / 2 : d->rank - d->extra;
	struct tt_ref all = tt_ref(TT_OUT, d->lane, 1), in = tt_ref(TT_IN, d->lane, 1);
	uint32_t own = TT_IN, skew = 1;

	if (folds && d->rank % 2 == 0) {
		tt_send(d->b, d->lane, 0, d->rank + 1, in);
		tt_recv(d->b, d->lane, 99, d->rank + 1, all);
		return;
	}
	if (folds) {
		combine(d, 0, d->rank - 1, false, own);
		own = TT_OUT;
	}
	for (int bit = 1; bit < members; bit *= 2, skew++) {
		int peer = rank_of(d, me ^ bit);

		tt_send(d->b, d->lane, skew, peer, tt_ref(own, d->lane, 1));
		combine(d, skew, peer, !(me & bit), own);
		own = TT_OUT;
	}
	if (folds)
		tt_send(d->b, d->lane, 99, d->rank - 1, all);
}

tuttiResult_t tt_build_recdouble(enum tt_coll coll, int rank, int nranks, int root,
				 const struct tt_shape *shape, struct tt_sched **out)
{
	struct doubling d = { .p = nranks, .rank = rank };
	int members = 1;

	while (members <= nranks / 2)
		members *= 2;
	d.extra = nranks - members;
	TRY(tt_sched_begin(&d.b, coll, "recdouble", rank, nranks, root, shape->nlanes,
			   shape->nlanes));
	tt_sched_ordered(d.b);
	tt_sched_lane_weights(d.b, shape, 1);
	for (d.lane = 0; d.lane < shape->nlanes && nranks > 1; d.lane++)
		build_lane(&d, members);
	return tt_sched_end(d.b, out);
}
