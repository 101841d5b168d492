/* SPDX-License-Identifier: Apache-2.0
 * Rings, one a lane of the shape, each in an order of its own. The two phases of an allreduce
 * use lanes of their own (2l and 2l + 1), so that no window waits behind the other phase of one
 * before it; with shape.param = 1 they share lane l, which lets every lane run as one program. */
#include "sched.h"

struct ring {
	struct tt_builder *b;
	const struct tt_shape *shape;
	int p, pos, next, prev;
	uint32_t lane, tmp;
	bool blocks; /* a chunk of every rank's block, not of the vector */
};

/* The chunk that the rank at this position ends up with. */
static uint32_t chunk_at(const struct ring *r, int pos)
{
	int p = r->p, at = ((pos % p) + p) % p;

	if (!r->blocks)
		return r->lane * (uint32_t)p + (uint32_t)at;
	return (uint32_t)tt_shape_rank(r->shape, r->lane, p, at) * r->shape->nlanes + r->lane;
}

/* Partial sums travel round until the owner adds the last one. */
static void scatter(const struct ring *r, uint32_t link)
{
	for (int s = 0; s < r->p - 1; s++) {
		uint32_t out = chunk_at(r, r->pos - s - 1), c = chunk_at(r, r->pos - s - 2);
		uint32_t dst = s == r->p - 2 ? TT_OUT : r->tmp;

		tt_send(r->b, link, (uint32_t)s, r->next, tt_ref(s ? r->tmp : TT_IN, out, 1));
		tt_recv(r->b, link, (uint32_t)s, r->prev, tt_ref(r->tmp, c, 1));
		tt_reduce(r->b, tt_ref(dst, c, 1), tt_ref(r->tmp, c, 1), tt_ref(TT_IN, c, 1));
	}
}

static void gather(const struct ring *r, uint32_t link, uint32_t skew, uint32_t own)
{
	for (int s = 0; s < r->p - 1; s++) {
		uint32_t out = chunk_at(r, r->pos - s), c = chunk_at(r, r->pos - s - 1);

		tt_send(r->b, link, skew + (uint32_t)s, r->next, tt_ref(s ? TT_OUT : own, out, 1));
		tt_recv(r->b, link, skew + (uint32_t)s, r->prev, tt_ref(TT_OUT, c, 1));
	}
}

static void build_lane(struct ring *r, enum tt_coll coll, bool split)
{
	uint32_t c = chunk_at(r, r->pos), skew = 0;

	if (coll != TT_ALLGATHER) {
		scatter(r, split ? 2 * r->lane : r->lane);
		skew = (uint32_t)r->p - 1;
	}
	if (coll == TT_ALLREDUCE)
		gather(r, split ? 2 * r->lane + 1 : r->lane, skew, TT_OUT);
	if (coll == TT_ALLGATHER) {
		gather(r, r->lane, 0, TT_IN);
		tt_copy(r->b, tt_ref(TT_OUT, c, 1), tt_ref(TT_IN, c, 1));
	}
}

tuttiResult_t tt_build_ring(enum tt_coll coll, int rank, int nranks, int root,
			    const struct tt_shape *shape, struct tt_sched **out)
{
	bool all = coll == TT_ALLREDUCE, split = all && shape->param != 1;
	uint32_t cuts = all ? (uint32_t)nranks : 1;
	struct ring r = { .shape = shape, .p = nranks, .blocks = !all };

	TRY(tt_sched_begin(&r.b, coll, "ring", rank, nranks, root, shape->nlanes * cuts,
			   shape->nlanes * (split ? 2 : 1)));
	tt_sched_lane_weights(r.b, shape, cuts);
	if (coll != TT_ALLGATHER)
		r.tmp = tt_sched_tmp(r.b, 0, shape->nlanes * (uint32_t)nranks);
	for (r.lane = 0; r.lane < shape->nlanes; r.lane++) {
		r.pos = tt_shape_pos(shape, r.lane, nranks, rank);
		r.next = tt_shape_rank(shape, r.lane, nranks, (r.pos + 1) % nranks);
		r.prev = tt_shape_rank(shape, r.lane, nranks, (r.pos + nranks - 1) % nranks);
		if (nranks > 1)
			build_lane(&r, coll, split);
	}
	return tt_sched_end(r.b, out);
}
