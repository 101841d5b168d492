/* SPDX-License-Identifier: Apache-2.0
 * Allgather and reduce-scatter in levels: the block of each rank goes round the groups on that rank's rail, so that it
 * enters each group once, and inside from its owner to all, or from all to its owner. Where rails have different rates
 * each block is cut into pieces, one for each rail in proportion. */
#include "algo_hier.h"

/* The pieces of a block go on these rails, from `first` on. */
static uint32_t first_rail(const struct tt_hier *h, uint32_t q, uint32_t m)
{
	return h->pieces > 1 ? 0 : tt_hier_rail(h, m, tt_hier_size(h, q));
}

static struct tt_ref piece(const struct tt_hier *h, uint32_t buf, uint32_t q, uint32_t m, uint32_t rail)
{
	uint32_t block = (uint32_t)tt_hier_member(h, q, m) * h->nlanes + h->lane;

	return tt_ref(buf, block * h->pieces + (h->pieces > 1 ? rail : 0), 1);
}

static int self(const struct tt_hier *h)
{
	return tt_hier_member(h, h->mine, h->at);
}

static bool owns(const struct tt_hier *h, uint32_t rail)
{
	return tt_hier_owner(h, h->mine, rail) == self(h);
}

struct rails {
	uint32_t from, to;
};

/* Those of this rank that pieces of a block go on. */
static struct rails own_rails(const struct tt_hier *h, uint32_t q, uint32_t m)
{
	uint32_t n = tt_hier_size(h, h->mine), rail = first_rail(h, q, m);

	if (h->pieces > 1)
		return (struct rails){ tt_hier_rail(h, h->at, n), tt_hier_rail(h, h->at + 1, n) };
	return (struct rails){ rail, rail + owns(h, rail) };
}

static int next_owner(const struct tt_hier *h, uint32_t rail)
{
	return tt_hier_owner(h, (h->mine + 1) % h->ngroups, rail);
}

static int last_owner(const struct tt_hier *h, uint32_t rail)
{
	return tt_hier_owner(h, (h->mine + h->ngroups - 1) % h->ngroups, rail);
}

/* Who of the own group has a piece before all have it, or adds it up: the block's own rank, else the rail's. */
static int holder(const struct tt_hier *h, uint32_t q, uint32_t m, uint32_t rail)
{
	return q == h->mine ? tt_hier_member(h, q, m) : tt_hier_owner(h, h->mine, rail);
}

static uint32_t most_members(const struct tt_hier *h, uint32_t q, uint32_t in)
{
	return tt_hier_size(h, q) > tt_hier_size(h, in) ? tt_hier_size(h, q) : tt_hier_size(h, in);
}

/* ---- allgather ---- */

static void pass_on(const struct tt_hier *h, uint32_t step, uint32_t q, uint32_t m)
{
	uint32_t from = q == h->mine && m == h->at ? TT_IN : TT_OUT;

	for (struct rails r = own_rails(h, q, m); r.from < r.to && step + 1 < h->ngroups; r.from++)
		tt_send(h->b, h->lane, step, next_owner(h, r.from), piece(h, from, q, m, r.from));
}

/* A block, from who has it to the rest of the group, and on its rails to the next one if that lacks it. */
static void spread(const struct tt_hier *h, uint32_t step, uint32_t q, uint32_t m)
{
	bool late = h->pieces > 1 && q == h->mine; /* the rails have nothing of it yet */
	uint32_t n = tt_hier_size(h, h->mine), rail = first_rail(h, q, m);

	if (!late)
		pass_on(h, step, q, m);
	for (uint32_t k = 0; k < h->pieces; k++, rail++) {
		int from = holder(h, q, m, rail);

		if (from != self(h))
			tt_recv(h->b, h->lane, step, from, piece(h, TT_OUT, q, m, rail));
		for (uint32_t i = 1; from == self(h) && i < n; i++)
			tt_send(h->b, h->lane, step, tt_hier_member(h, h->mine, (h->at + i) % n),
				piece(h, step ? TT_OUT : TT_IN, q, m, rail));
	}
	if (late)
		pass_on(h, step, q, m);
}

/* Member by member, out and in: so no rank sends much before it receives. */
void tt_hier_allgather(const struct tt_hier *h)
{
	struct tt_ref own = tt_ref(TT_IN, ((uint32_t)self(h) * h->nlanes + h->lane) * h->pieces, h->pieces), out = own;

	for (uint32_t step = 0; step < h->ngroups; step++) {
		uint32_t q = (h->mine + h->ngroups - step) % h->ngroups, in = (q + h->ngroups - 1) % h->ngroups;

		for (uint32_t m = 0; m < most_members(h, q, in); m++) {
			struct rails r = own_rails(h, in, m);

			if (m < tt_hier_size(h, q))
				spread(h, step, q, m);
			for (; step + 1 < h->ngroups && m < tt_hier_size(h, in) && r.from < r.to; r.from++)
				tt_recv(h->b, h->lane, step, last_owner(h, r.from), piece(h, TT_OUT, in, m, r.from));
		}
	}
	out.buf = TT_OUT;
	tt_copy(h->b, out, own);
}

/* ---- reduce-scatter ---- */

static struct tt_ref spare(const struct tt_hier *h, struct tt_ref p)
{
	return tt_ref(tt_sched_tmp(h->b, p.chunk, p.n), p.chunk, p.n);
}

/* What the group has for a piece, and what came for it from the groups before, in one sum, which goes on. */
static void add_up(const struct tt_hier *h, uint32_t step, uint32_t rail, struct tt_ref in, const struct tt_ref *before)
{
	uint32_t n = tt_hier_size(h, h->mine), count = n;
	bool last = step + 1 == h->ngroups;
	struct tt_ref sum = in;

	for (uint32_t k = n - 1; k > 0; k--) {
		uint32_t from = (h->at + k) % n;

		h->src[from] = spare(h, in);
		tt_recv(h->b, h->lane, step, tt_hier_member(h, h->mine, from), h->src[from]);
	}
	h->src[h->at] = in;
	if (before)
		h->src[count++] = *before;
	if (count > 1) {
		sum = last ? tt_ref(TT_OUT, in.chunk, in.n) : spare(h, in);
		tt_reducev(h->b, sum, h->src, count);
	}
	if (!last)
		tt_send(h->b, h->lane, step, next_owner(h, rail), sum);
}

/* A piece to who adds it up; what came in on its rail goes with it where that is another. */
static void collect(const struct tt_hier *h, uint32_t step, uint32_t q, uint32_t m, uint32_t rail)
{
	struct tt_ref in = piece(h, TT_IN, q, m, rail), before = tt_ref(h->spare[m], in.chunk, in.n);
	bool more = step && owns(h, rail);
	int to = holder(h, q, m, rail);

	if (to == self(h)) {
		add_up(h, step, rail, in, more ? &before : NULL);
		return;
	}
	if (more) {
		struct tt_ref sum = spare(h, in);

		tt_reduce(h->b, sum, in, before);
		in = sum;
	}
	tt_send(h->b, h->lane, step, to, in);
}

/* The pieces of a block that come on this rank's rails. */
static void take(const struct tt_hier *h, uint32_t step, uint32_t q, uint32_t m)
{
	struct rails r = own_rails(h, q, m);

	if (r.from < r.to)
		h->spare[m] = tt_sched_tmp(h->b, piece(h, TT_IN, q, m, r.from).chunk, r.to - r.from);
	for (; r.from < r.to; r.from++)
		tt_recv(h->b, h->lane, step, last_owner(h, r.from), piece(h, h->spare[m], q, m, r.from));
}

/* The sum of a block begins behind its own group and ends there. */
void tt_hier_reducescatter(const struct tt_hier *h)
{
	for (uint32_t step = 0; step < h->ngroups; step++) {
		uint32_t q = (h->mine + 2 * h->ngroups - 1 - step) % h->ngroups;
		uint32_t in = (q + h->ngroups - 1) % h->ngroups;

		for (uint32_t m = 0; m < most_members(h, q, in); m++) {
			for (uint32_t k = 0; k < h->pieces && m < tt_hier_size(h, q); k++)
				collect(h, step, q, m, first_rail(h, q, m) + k);
			if (step + 1 < h->ngroups && m < tt_hier_size(h, in))
				take(h, step, in, m);
		}
	}
}
