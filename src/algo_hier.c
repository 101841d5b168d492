/* SPDX-License-Identifier: Apache-2.0
 * In levels, for ranks in groups (hosts). Allreduce: reduce-scatter inside each, a ring across them on each rail,
 * allgather inside. So every group sends its share of the data once, whatever its size. */
#include "algo_hier.h"

#include <stdlib.h>

enum { MOST_PIECES = 16 }; /* of a block: messages are in proportion */

static struct tt_ref rails_of(const struct tt_hier *h, uint32_t buf, uint32_t m)
{
	uint32_t n = tt_hier_size(h, h->mine), from = tt_hier_rail(h, m, n), to = tt_hier_rail(h, m + 1, n);

	return tt_ref(buf, h->base + from * h->ngroups, (to - from) * h->ngroups);
}

static int peer(const struct tt_hier *h, uint32_t m)
{
	return tt_hier_member(h, h->mine, m);
}

/* Everybody sends everybody of the group his rails; each adds up his own in one step. */
static void scatter(const struct tt_hier *h, uint32_t link, uint32_t sum)
{
	uint32_t n = tt_hier_size(h, h->mine);
	struct tt_ref own = rails_of(h, TT_IN, h->at);

	for (uint32_t k = 1; k < n; k++) {
		uint32_t to = (h->at + k) % n;

		tt_send(h->b, link, 0, peer(h, to), rails_of(h, TT_IN, to));
	}
	for (uint32_t k = n - 1; k > 0; k--) {
		uint32_t from = (h->at + k) % n;

		h->src[from] = tt_ref(tt_sched_tmp(h->b, own.chunk, own.n), own.chunk, own.n);
		tt_recv(h->b, link, 0, peer(h, from), h->src[from]);
	}
	h->src[h->at] = own;
	own.buf = sum;
	if (n > 1)
		tt_reducev(h->b, own, h->src, n);
}

static void gather(const struct tt_hier *h, uint32_t link, uint32_t skew)
{
	uint32_t n = tt_hier_size(h, h->mine);

	for (uint32_t k = 1; k < n; k++)
		tt_send(h->b, link, skew, peer(h, (h->at + k) % n), rails_of(h, TT_OUT, h->at));
	for (uint32_t k = n - 1; k > 0; k--) {
		uint32_t from = (h->at + k) % n;

		tt_recv(h->b, link, skew, peer(h, from), rails_of(h, TT_OUT, from));
	}
}

/* One turn of the ring over the groups: `part` goes out, the one before it comes in. */
static uint32_t step(const struct tt_hier *h, uint32_t link, uint32_t skew, uint32_t rail, uint32_t part, uint32_t own,
		     uint32_t to)
{
	uint32_t n = h->ngroups, c = h->base + rail * n, in = (part + n - 1) % n;

	tt_send(h->b, link, skew, tt_hier_owner(h, (h->mine + 1) % n, rail), tt_ref(own, c + part, 1));
	tt_recv(h->b, link, skew, tt_hier_owner(h, (h->mine + n - 1) % n, rail), tt_ref(to, c + in, 1));
	return in;
}

/* Partial sums travel round to the group that adds the last one, which has the part of its own number. */
static void across(const struct tt_hier *h, uint32_t link, uint32_t link2, uint32_t rail, uint32_t own, uint32_t tmp)
{
	uint32_t n = h->ngroups, part = (h->mine + n - 1) % n;

	for (uint32_t s = 0; s + 1 < n; s++) {
		uint32_t c = h->base + rail * n;

		part = step(h, link, 1 + s, rail, part, s ? tmp : own, tmp);
		tt_reduce(h->b, tt_ref(s + 2 < n ? tmp : TT_OUT, c + part, 1), tt_ref(tmp, c + part, 1),
			  tt_ref(own, c + part, 1));
	}
	for (uint32_t s = 0; s + 1 < n; s++)
		part = step(h, link2, n + s, rail, part, TT_OUT, TT_OUT);
}

/* What the ranks of a group send each other at once: those of the smallest have the most rails. */
static void note_largest(const struct tt_hier *h)
{
	for (uint32_t g = 0; g < h->ngroups; g++) {
		uint32_t n = tt_hier_size(h, g);

		for (uint32_t m = 0; m < n && n > 1; m++) {
			uint32_t from = tt_hier_rail(h, m, n), to = tt_hier_rail(h, m + 1, n);

			tt_sched_message(h->b, tt_ref(TT_IN, h->base + from * h->ngroups, (to - from) * h->ngroups));
		}
	}
}

static void build_lane(const struct tt_hier *h, uint32_t link, uint32_t link2)
{
	uint32_t n = tt_hier_size(h, h->mine), own = TT_IN, tmp = 0;
	struct tt_ref mine = rails_of(h, TT_IN, h->at);
	uint32_t from = tt_hier_rail(h, h->at, n), to = tt_hier_rail(h, h->at + 1, n);

	if (h->ngroups > 1)
		tmp = tt_sched_tmp(h->b, mine.chunk, mine.n);
	if (n > 1)
		own = h->ngroups > 1 ? tt_sched_tmp(h->b, mine.chunk, mine.n) : TT_OUT;
	scatter(h, link, own);
	for (uint32_t rail = from; rail < to && h->ngroups > 1; rail++)
		across(h, link, link2, rail, own, tmp);
	gather(h, link2, 2 * h->ngroups - 1);
}

/* ---- who is in which group ---- */

/* The groups in the order in which the lane first meets them: index[rank]. */
static uint32_t number_groups(const struct tt_shape *s, uint32_t lane, int p, uint32_t *ids, uint32_t *index)
{
	uint32_t n = 0, k = 0;

	for (int i = 0; i < p; i++) {
		int r = tt_shape_rank(s, lane, p, i);
		uint32_t id = s->group ? s->group[r] : 0;

		if (k >= n || ids[k] != id) /* that of the neighbour, most often */
			for (k = 0; k < n && ids[k] != id; k++)
				;
		if (k == n)
			ids[n++] = id;
		index[r] = k;
	}
	return n;
}

/* The ranks of each group, in the lane's order. */
static void sort_groups(struct tt_hier *h, const struct tt_shape *s, uint32_t lane, int p, int rank)
{
	uint32_t *index = h->spare, n = h->ngroups = number_groups(s, lane, p, h->members, index);

	for (uint32_t g = 0; g <= n; g++)
		h->first[g] = 0;
	for (int r = 0; r < p; r++)
		h->first[index[r] + 1]++;
	h->rails = 0;
	for (uint32_t g = 1; g <= n; g++) {
		h->rails = h->first[g] > h->rails ? h->first[g] : h->rails;
		h->first[g] += h->first[g - 1];
	}
	for (int i = p - 1; i >= 0; i--) { /* backwards: ends become beginnings */
		int r = tt_shape_rank(s, lane, p, i);

		h->members[--h->first[index[r] + 1]] = (uint32_t)r;
	}
	for (uint32_t g = 0; g < n; g++)
		h->first[g] = h->first[g + 1];
	h->first[n] = (uint32_t)p;
	h->mine = index[rank];
	for (h->at = 0; peer(h, h->at) != rank; h->at++)
		;
}

/* What a rail carries, of which the slowest owner has the say; an owner of several shares its rate among them. */
static uint32_t rail_weight(const struct tt_hier *h, const struct tt_shape *s, uint32_t rail)
{
	uint64_t least = UINT32_MAX / 2;

	for (uint32_t g = 0; g < h->ngroups; g++) {
		uint32_t n = tt_hier_size(h, g), m = rail * n / h->rails;
		uint64_t rails = tt_hier_rail(h, m + 1, n) - tt_hier_rail(h, m, n);

		least = tt_min(least, (uint64_t)s->rate[tt_hier_owner(h, g, rail)] * 16 / rails);
	}
	return least ? (uint32_t)least : 1;
}

/* Before any lane is built, as messages are measured by the weights. Lanes are equal then. */
static tuttiResult_t weigh(struct tt_hier *h, const struct tt_shape *s, int p, int rank)
{
	uint32_t cuts = h->pieces, *w = malloc(h->nlanes * cuts * sizeof(*w));

	if (!w)
		return tt_fail(tuttiSystemError, "no memory for the weights of %d ranks", p);
	for (uint32_t lane = 0; lane < h->nlanes; lane++) {
		sort_groups(h, s, lane, p, rank);
		for (uint32_t c = 0; c < cuts; c++)
			w[lane * cuts + c] = rail_weight(h, s, c / (cuts / h->rails));
	}
	tt_sched_weights(h->b, w);
	free(w);
	return tuttiSuccess;
}

static void build(struct tt_hier *h, enum tt_coll coll, bool split)
{
	uint32_t l = h->lane;

	if (coll == TT_ALLGATHER) {
		tt_hier_allgather(h);
	} else if (coll == TT_REDUCESCATTER) {
		tt_hier_reducescatter(h);
	} else {
		h->base = l * h->pieces;
		note_largest(h);
		build_lane(h, split ? 2 * l : l, split ? 2 * l + 1 : l);
	}
}

tuttiResult_t tt_build_hier(enum tt_coll coll, int rank, int nranks, int root, const struct tt_shape *shape,
			    struct tt_sched **out)
{
	bool all = coll == TT_ALLREDUCE, split = all && shape->param != 1, weighed = shape->rate;
	size_t p = (size_t)nranks;
	uint32_t *room = malloc((3 * p + 1) * sizeof(*room) + (p + 1) * sizeof(struct tt_ref));
	struct tt_hier h = { .members = room, .spare = room + p, .first = room + 2 * p, .nlanes = shape->nlanes };
	tuttiResult_t r, w = tuttiSuccess;

	if (!room)
		return tt_fail(tuttiSystemError, "no memory for a schedule of %d ranks", nranks);
	h.src = (struct tt_ref *)(room + 3 * p + 1);
	sort_groups(&h, shape, 0, nranks, rank);
	weighed = weighed && (all || (h.ngroups > 1 && h.rails <= MOST_PIECES));
	h.pieces = all ? h.rails * h.ngroups : weighed ? h.rails : 1;
	r = tt_sched_begin(&h.b, coll, "hier", rank, nranks, root, h.nlanes * h.pieces, h.nlanes * (split ? 2 : 1));
	if (r == tuttiSuccess) {
		if (weighed)
			w = weigh(&h, shape, nranks, rank);
		else
			tt_sched_lane_weights(h.b, shape, h.pieces);
		for (; h.lane < h.nlanes && nranks > 1; h.lane++) {
			sort_groups(&h, shape, h.lane, nranks, rank);
			build(&h, coll, split);
		}
		r = tt_sched_end(h.b, out);
		if (r == tuttiSuccess && w != tuttiSuccess) {
			tt_sched_free(*out);
			r = w;
		}
	}
	free(room);
	return r;
}
