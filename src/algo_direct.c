/* SPDX-License-Identifier: Apache-2.0
 * Everybody talks to everybody: an owner reduces a block of all ranks in one step, in rank
 * order. Two phases for allreduce (lanes 2l and 2l + 1; both on lane l with shape.param = 1),
 * one where latency counts. */
#include "sched.h"

#include <stdlib.h>

struct direct {
	struct tt_builder *b;
	struct tt_ref *src; /* one a rank */
	int p, rank;
};

static int after(const struct direct *d, int k)
{
	return (d->rank + k) % d->p;
}

/* Receives chunk c from everybody and reduces it. */
static void collect(const struct direct *d, uint32_t link, uint32_t c)
{
	for (int k = d->p - 1; k > 0; k--) {
		int from = after(d, k);

		d->src[from] = tt_ref(tt_sched_tmp(d->b, c, 1), c, 1);
		tt_recv(d->b, link, 0, from, d->src[from]);
	}
	d->src[d->rank] = tt_ref(TT_IN, c, 1);
	tt_reducev(d->b, tt_ref(TT_OUT, c, 1), d->src, (uint32_t)d->p);
}

/* Chunk of rank r's part: c0 + r * stride. */
static void scatter(const struct direct *d, uint32_t link, uint32_t c0, uint32_t stride)
{
	for (int k = 1; k < d->p; k++) {
		int to = after(d, k);

		tt_send(d->b, link, 0, to, tt_ref(TT_IN, c0 + (uint32_t)to * stride, 1));
	}
	collect(d, link, c0 + (uint32_t)d->rank * stride);
}

static void gather(const struct direct *d, uint32_t link, uint32_t skew, uint32_t own, uint32_t c0,
		   uint32_t stride)
{
	for (int k = 1; k < d->p; k++)
		tt_send(d->b, link, skew, after(d, k),
			tt_ref(own, c0 + (uint32_t)d->rank * stride, 1));
	for (int k = d->p - 1; k > 0; k--) {
		int from = after(d, k);

		tt_recv(d->b, link, skew, from, tt_ref(TT_OUT, c0 + (uint32_t)from * stride, 1));
	}
}

static void send_all(const struct direct *d, uint32_t link, uint32_t c)
{
	for (int k = 1; k < d->p; k++)
		tt_send(d->b, link, 0, after(d, k), tt_ref(TT_IN, c, 1));
}

static void copy_home(const struct direct *d, uint32_t c)
{
	tt_copy(d->b, tt_ref(TT_OUT, c, 1), tt_ref(TT_IN, c, 1));
}

static void rooted_lane(const struct direct *d, enum tt_coll coll, int root, uint32_t l)
{
	if (coll == TT_REDUCE && d->rank == root)
		collect(d, l, l);
	else if (coll == TT_REDUCE)
		tt_send(d->b, l, 0, root, tt_ref(TT_IN, l, 1));
	else if (d->rank != root)
		tt_recv(d->b, l, 0, root, tt_ref(TT_OUT, l, 1));
	if (coll == TT_BROADCAST && d->rank == root) {
		send_all(d, l, l);
		copy_home(d, l);
	}
}

static void build_lane(const struct direct *d, enum tt_coll coll, int root, uint32_t l,
		       uint32_t nlanes, bool split)
{
	uint32_t p = (uint32_t)d->p;

	switch (coll) {
	case TT_ALLREDUCE:
		scatter(d, split ? 2 * l : l, l * p, 1);
		gather(d, split ? 2 * l + 1 : l, 1, TT_OUT, l * p, 1);
		break;
	case TT_REDUCESCATTER:
		scatter(d, l, l, nlanes);
		break;
	case TT_ALLGATHER:
		gather(d, l, 0, TT_IN, l, nlanes);
		copy_home(d, l + (uint32_t)d->rank * nlanes);
		break;
	default:
		rooted_lane(d, coll, root, l);
	}
}

tuttiResult_t tt_build_direct(enum tt_coll coll, int rank, int nranks, int root,
			      const struct tt_shape *shape, struct tt_sched **out)
{
	bool split = coll == TT_ALLREDUCE && shape->param != 1;
	uint32_t cuts = coll == TT_ALLREDUCE ? (uint32_t)nranks : 1;
	struct direct d = { .p = nranks, .rank = rank };
	tuttiResult_t r;

	d.src = malloc((size_t)nranks * sizeof *d.src);
	if (!d.src)
		return tt_fail(tuttiSystemError, "no memory for a schedule of %d ranks", nranks);
	r = tt_sched_begin(&d.b, coll, "direct", rank, nranks, root, shape->nlanes * cuts,
			   shape->nlanes * (split ? 2 : 1));
	if (r == tuttiSuccess) {
		tt_sched_ordered(d.b);
		tt_sched_lane_weights(d.b, shape, cuts);
		for (uint32_t l = 0; l < shape->nlanes && nranks > 1; l++)
			build_lane(&d, coll, root, l, shape->nlanes, split);
		r = tt_sched_end(d.b, out);
	}
	free(d.src);
	return r;
}

tuttiResult_t tt_build_direct1(enum tt_coll coll, int rank, int nranks, int root,
			       const struct tt_shape *shape, struct tt_sched **out)
{
	struct direct d = { .p = nranks, .rank = rank };
	tuttiResult_t r;

	d.src = malloc((size_t)nranks * sizeof *d.src);
	if (!d.src)
		return tt_fail(tuttiSystemError, "no memory for a schedule of %d ranks", nranks);
	r = tt_sched_begin(&d.b, coll, "direct1", rank, nranks, root, shape->nlanes, shape->nlanes);
	if (r == tuttiSuccess) {
		tt_sched_ordered(d.b);
		tt_sched_lane_weights(d.b, shape, 1);
		for (uint32_t l = 0; l < shape->nlanes && nranks > 1; l++) {
			send_all(&d, l, l);
			collect(&d, l, l);
		}
		r = tt_sched_end(d.b, out);
	}
	free(d.src);
	return r;
}
