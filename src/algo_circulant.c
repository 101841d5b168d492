/* SPDX-License-Identifier: Apache-2.0
 * Reduce-scatter and allgather on circulant graphs, and the two as an allreduce: ceil(log2 p)
 * rounds with any number of ranks, each block sent once (J. L. Traeff, arXiv 2410.14234). Round
 * k works with skips s(0) = p, s(k+1) = ceil(s(k) / 2); a rank counts blocks from its own on, so
 * a range of them may wrap. */
#include "sched.h"

enum { MAX_ROUNDS = 32 };

struct circulant {
	struct tt_builder *b;
	int p, rank, rounds, skip[MAX_ROUNDS + 1];
	uint32_t lane, tmp[2], acc; /* lane: its chunks are lane * p .. */
};

/* Pieces of the `n` blocks from block `at` on, which may be past the last: one or two. */
static int pieces(const struct circulant *c, uint32_t buf, int at, int n, struct tt_ref out[2])
{
	int p = c->p, first = at % p, head = first + n > p ? p - first : n;
	uint32_t base = c->lane * (uint32_t)p;

	out[0] = tt_ref(buf, base + (uint32_t)first, (uint32_t)head);
	out[1] = tt_ref(buf, base, (uint32_t)(n - head));
	return head < n ? 2 : 1;
}

static void send(const struct circulant *c, uint32_t skew, int to, uint32_t buf, int at, int n)
{
	struct tt_ref part[2];
	int k = pieces(c, buf, at, n, part);

	for (int i = 0; i < k; i++)
		tt_send(c->b, c->lane, skew, to % c->p, part[i]);
}

static void recv(const struct circulant *c, uint32_t skew, int from, uint32_t buf, int at, int n)
{
	struct tt_ref part[2];
	int k = pieces(c, buf, at, n, part);

	for (int i = 0; i < k; i++)
		tt_recv(c->b, c->lane, skew, from % c->p, part[i]);
}

/* dst[at ..] = own op what came, own being the input at first. */
static void reduce(const struct circulant *c, uint32_t dst, uint32_t own, uint32_t tmp, int n)
{
	struct tt_ref to[2], a[2], b[2];
	int k = pieces(c, dst, c->rank, n, to);

	pieces(c, own, c->rank, n, a);
	pieces(c, tmp, c->rank, n, b);
	for (int i = 0; i < k; i++)
		tt_reduce(c->b, to[i], a[i], b[i]);
}

static void scatter(const struct circulant *c)
{
	for (int k = 0; k < c->rounds; k++) {
		int s = c->skip[k + 1], n = c->skip[k] - s;
		uint32_t own = k ? c->acc : TT_IN, tmp = c->tmp[k % 2];

		send(c, (uint32_t)k, c->rank + s, own, c->rank + s, n);
		recv(c, (uint32_t)k, c->rank + c->p - s, tmp, c->rank, n);
		if (k == 0 && c->p % 2) { /* the one block that this round leaves out */
			struct tt_ref to[2], from[2];

			pieces(c, c->acc, c->rank + s - 1, 1, to);
			pieces(c, TT_IN, c->rank + s - 1, 1, from);
			tt_copy(c->b, to[0], from[0]);
		}
		reduce(c, k == c->rounds - 1 ? TT_OUT : c->acc, own, tmp, n);
	}
}

static void gather(const struct circulant *c, uint32_t skew, uint32_t own)
{
	for (int k = c->rounds - 1; k >= 0; k--, skew++) {
		int s = c->skip[k + 1], n = c->skip[k] - s;

		send(c, skew, c->rank + c->p - s, k == c->rounds - 1 ? own : TT_OUT, c->rank, n);
		if (k == c->rounds - 1 && own == TT_IN)
			tt_copy(c->b, tt_ref(TT_OUT, (uint32_t)c->rank, 1),
				tt_ref(TT_IN, (uint32_t)c->rank, 1));
		recv(c, skew, c->rank + s, TT_OUT, c->rank + s, n);
	}
}

static void build_lane(struct circulant *c, enum tt_coll coll)
{
	uint32_t first = c->lane * (uint32_t)c->p, p = (uint32_t)c->p;

	if (coll != TT_ALLGATHER) {
		c->tmp[0] = tt_sched_tmp(c->b, first, p);
		c->tmp[1] = tt_sched_tmp(c->b, first, p);
		c->acc = coll == TT_ALLREDUCE ? TT_OUT : tt_sched_tmp(c->b, first, p);
		scatter(c);
	}
	if (coll == TT_ALLREDUCE)
		gather(c, (uint32_t)c->rounds, TT_OUT);
	else if (coll == TT_ALLGATHER)
		gather(c, 0, TT_IN);
}

/* Blocks of several ranks are contiguous in one lane only, so the collectives with blocks use
 * one. */
tuttiResult_t tt_build_circulant(enum tt_coll coll, int rank, int nranks, int root,
				 const struct tt_shape *shape, struct tt_sched **out)
{
	bool all = coll == TT_ALLREDUCE;
	uint32_t nlanes = all ? shape->nlanes : 1, cuts = all ? (uint32_t)nranks : 1;
	struct circulant c = { .p = nranks, .rank = rank, .skip = { nranks } };

	while (c.skip[c.rounds] > 1) {
		c.skip[c.rounds + 1] = (c.skip[c.rounds] + 1) / 2;
		c.rounds++;
	}
	TRY(tt_sched_begin(&c.b, coll, "circulant", rank, nranks, root, nlanes * cuts, nlanes));
	if (all)
		tt_sched_lane_weights(c.b, shape, cuts);
	for (c.lane = 0; c.lane < nlanes && nranks > 1; c.lane++)
		build_lane(&c, coll);
	return tt_sched_end(c.b, out);
}
