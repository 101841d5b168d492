/* SPDX-License-Identifier: Apache-2.0
 * Allgather and reduce-scatter in levels: the block of each rank goes round the groups on that rank's rail, so that it
 * enters each group once, and inside from its owner to all, or from all to its owner. */
#include "algo_hier.h"

/* Who of group g has the block of member m of group q. */
static int holder(const struct tt_hier *h, uint32_t q, uint32_t m, uint32_t g)
{
	return tt_hier_owner(h, g, tt_hier_rail(h, m, tt_hier_size(h, q)));
}

static uint32_t chunk_of(const struct tt_hier *h, uint32_t q, uint32_t m)
{
	return (uint32_t)tt_hier_member(h, q, m) * h->nlanes + h->lane;
}

static int self(const struct tt_hier *h)
{
	return tt_hier_member(h, h->mine, h->at);
}

static uint32_t next_group(const struct tt_hier *h)
{
	return (h->mine + 1) % h->ngroups;
}

static uint32_t last_group(const struct tt_hier *h)
{
	return (h->mine + h->ngroups - 1) % h->ngroups;
}

/* ---- allgather ---- */

/* A block that this rank has, to the rest of its group, and to the next one if that lacks it. */
static void pass_on(const struct tt_hier *h, uint32_t step, uint32_t q, uint32_t m)
{
	struct tt_ref block = tt_ref(step ? TT_OUT : TT_IN, chunk_of(h, q, m), 1);
	uint32_t n = tt_hier_size(h, h->mine);

	if (step + 1 < h->ngroups)
		tt_send(h->b, h->lane, step, holder(h, q, m, next_group(h)), block);
	for (uint32_t k = 1; k < n; k++)
		tt_send(h->b, h->lane, step, tt_hier_member(h, h->mine, (h->at + k) % n), block);
}

void tt_hier_allgather(const struct tt_hier *h)
{
	uint32_t own = (uint32_t)self(h) * h->nlanes + h->lane;

	for (uint32_t step = 0; step < h->ngroups; step++) {
		uint32_t q = (h->mine + h->ngroups - step) % h->ngroups, in = (q + h->ngroups - 1) % h->ngroups;

		for (uint32_t m = 0; m < tt_hier_size(h, q); m++) {
			int from = holder(h, q, m, h->mine);

			if (from == self(h))
				pass_on(h, step, q, m);
			else
				tt_recv(h->b, h->lane, step, from, tt_ref(TT_OUT, chunk_of(h, q, m), 1));
		}
		for (uint32_t m = 0; step + 1 < h->ngroups && m < tt_hier_size(h, in); m++)
			if (holder(h, in, m, h->mine) == self(h))
				tt_recv(h->b, h->lane, step, holder(h, in, m, last_group(h)),
					tt_ref(TT_OUT, chunk_of(h, in, m), 1));
	}
	tt_copy(h->b, tt_ref(TT_OUT, own, 1), tt_ref(TT_IN, own, 1));
}

/* ---- reduce-scatter ---- */

/* What the group has for a block, and what came for it from the groups before, in one sum, which goes on. */
static void add_up(const struct tt_hier *h, uint32_t step, uint32_t q, uint32_t m)
{
	uint32_t c = chunk_of(h, q, m), n = tt_hier_size(h, h->mine), count = n;
	bool last = step + 1 == h->ngroups;
	struct tt_ref sum = tt_ref(TT_IN, c, 1);

	for (uint32_t k = n - 1; k > 0; k--) {
		uint32_t from = (h->at + k) % n;

		h->src[from] = tt_ref(tt_sched_tmp(h->b, c, 1), c, 1);
		tt_recv(h->b, h->lane, step, tt_hier_member(h, h->mine, from), h->src[from]);
	}
	h->src[h->at] = sum;
	if (step)
		h->src[count++] = tt_ref(h->spare[m], c, 1);
	if (count > 1) {
		sum.buf = last ? TT_OUT : tt_sched_tmp(h->b, c, 1);
		tt_reducev(h->b, sum, h->src, count);
	}
	if (!last)
		tt_send(h->b, h->lane, step, holder(h, q, m, next_group(h)), sum);
}

/* The sum of a block begins behind its own group and ends there. */
void tt_hier_reducescatter(const struct tt_hier *h)
{
	for (uint32_t step = 0; step < h->ngroups; step++) {
		uint32_t q = (h->mine + 2 * h->ngroups - 1 - step) % h->ngroups;
		uint32_t in = (q + h->ngroups - 1) % h->ngroups;

		for (uint32_t m = 0; m < tt_hier_size(h, q); m++) {
			int to = holder(h, q, m, h->mine);

			if (to == self(h))
				add_up(h, step, q, m);
			else
				tt_send(h->b, h->lane, step, to, tt_ref(TT_IN, chunk_of(h, q, m), 1));
		}
		for (uint32_t m = 0; step + 1 < h->ngroups && m < tt_hier_size(h, in); m++) {
			uint32_t c = chunk_of(h, in, m);

			if (holder(h, in, m, h->mine) != self(h))
				continue;
			h->spare[m] = tt_sched_tmp(h->b, c, 1);
			tt_recv(h->b, h->lane, step, holder(h, in, m, last_group(h)), tt_ref(h->spare[m], c, 1));
		}
	}
}
