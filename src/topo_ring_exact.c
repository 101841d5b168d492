/* SPDX-License-Identifier: Apache-2.0
 * Whether `rings` edge-disjoint rings exist, by branch and bound: at each node the linear program says how many are
 * left at most, and then one link either carries one of the cycles through it, or none at all any more. */
#include "topo_ring.h"

#include <stdlib.h>
#include <string.h>

enum { SEEN = 4096 };

struct exact {
	uint32_t n;
	int64_t *cap; /* what is left */
	struct tt_ring_lp *lp;
	struct tt_cycles *out;
	int64_t nodes; /* left to look at */
	uint64_t seen[SEEN]; /* hashes of what has been shown to hold no more */
};

static void take(struct exact *x, const uint32_t *order, int64_t amount)
{
	for (uint32_t i = 0; i < x->n; i++)
		x->cap[order[i] * x->n + order[(i + 1) % x->n]] -= amount;
}

/* The whole part of the program's solution, where that is enough. */
static bool whole_part(struct exact *x, int64_t rings, struct tt_cycles *now, int64_t den)
{
	int64_t whole = 0;

	for (uint32_t i = 0; i < now->count; i++)
		whole += now->weight[i] / den;
	if (whole < rings)
		return false;
	for (uint32_t i = 0; i < now->count && rings; i++) {
		int64_t some = now->weight[i] / den < rings ? now->weight[i] / den : rings;

		rings -= some;
		if (some && !tt_cycles_add(x->out, now->order + i * x->n, some))
			return false;
	}
	return true;
}

static int64_t slack_at(const struct exact *x, uint32_t v, bool in)
{
	int64_t sum = 0;

	for (uint32_t u = 0; u < x->n; u++)
		sum += in ? x->cap[u * x->n + v] : x->cap[v * x->n + u];
	return sum;
}

/* A link of the vertex with the least to spare, of these the narrowest. */
static uint32_t choose_link(const struct exact *x)
{
	int64_t least = INT64_MAX, narrow = INT64_MAX;
	uint32_t side = 0, link = 0;

	for (uint32_t i = 0; i < 2 * x->n; i++) {
		int64_t slack = slack_at(x, i / 2, i % 2);

		side = slack < least ? i : side;
		least = slack < least ? slack : least;
	}
	for (uint32_t u = 0; u < x->n; u++) {
		uint32_t at = side % 2 ? u * x->n + side / 2 : side / 2 * x->n + u;

		if (x->cap[at] && x->cap[at] < narrow) {
			narrow = x->cap[at];
			link = at;
		}
	}
	return link;
}

static bool find(struct exact *x, int64_t rings);

/* All cycles that start with order[0 .. len-1], in what is left. */
static bool extend(struct exact *x, uint32_t *order, uint32_t len, uint32_t used, int64_t rings)
{
	uint32_t last = order[len - 1];

	if (x->nodes <= 0)
		return false;
	if (len == x->n) {
		bool found;

		if (!x->cap[last * x->n + order[0]])
			return false;
		take(x, order, 1);
		found = find(x, rings - 1) && tt_cycles_add(x->out, order, 1);
		take(x, order, -1);
		return found;
	}
	for (uint32_t v = 0; v < x->n; v++) {
		if (used >> v & 1 || !x->cap[last * x->n + v])
			continue;
		order[len] = v;
		if (extend(x, order, len + 1, used | 1u << v, rings))
			return true;
	}
	return false;
}

/* The cycles of the solution first: they are likely to be part of one in whole numbers. */
static bool branch(struct exact *x, struct tt_cycles *now, int64_t rings)
{
	uint32_t link = choose_link(x), order[TT_RING_LP_MOST], u = link / x->n, v = link % x->n;
	int64_t keep = x->cap[link];
	bool found = false;

	for (uint32_t i = 0; i < now->count && !found; i++) {
		const uint32_t *o = now->order + i * x->n;
		bool through = false;

		for (uint32_t k = 0; k < x->n; k++)
			through = through || (o[k] == u && o[(k + 1) % x->n] == v);
		if (!through)
			continue;
		take(x, o, 1);
		found = find(x, rings - 1) && tt_cycles_add(x->out, o, 1);
		take(x, o, -1);
	}
	order[0] = u;
	order[1] = v;
	found = found || extend(x, order, 2, 1u << u | 1u << v, rings);
	x->cap[link] = 0;
	found = found || find(x, rings);
	x->cap[link] = keep;
	return found;
}

static bool find(struct exact *x, int64_t rings)
{
	uint64_t hash = tt_hash64(x->cap, (size_t)x->n * x->n * sizeof *x->cap, (uint64_t)rings) | 1;
	struct tt_cycles now = { .n = x->n };
	bool found = false;
	int64_t den = 1;

	if (!rings || x->seen[hash % SEEN] == hash)
		return !rings;
	if (x->nodes-- <= 0)
		return false;
	if (!tt_ring_lp_solve(x->lp, x->cap)) {
		x->nodes = 0; /* nothing is proved any more */
		return false;
	}
	if (tt_frac_cmp(tt_ring_lp_value(x->lp), tt_frac((uint64_t)rings, 1)) >= 0 &&
	    tt_ring_lp_cycles(x->lp, &now, &den))
		found = whole_part(x, rings, &now, den) || branch(x, &now, rings);
	tt_cycles_free(&now);
	if (!found && x->nodes > 0)
		x->seen[hash % SEEN] = hash;
	return found;
}

bool tt_ring_exact(struct tt_ring_lp *lp, uint32_t n, const int64_t *cap, int64_t rings, int64_t nodes,
		   struct tt_cycles *out, bool *proved)
{
	struct exact *x = calloc(1, sizeof *x);
	bool found = false;

	*proved = false;
	if (!x)
		return false;
	*x = (struct exact){ .n = n, .lp = lp, .out = out, .nodes = nodes };
	x->cap = malloc((size_t)n * n * sizeof *cap);
	if (x->cap) {
		memcpy(x->cap, cap, (size_t)n * n * sizeof *cap);
		found = find(x, rings);
		*proved = found || x->nodes > 0;
	}
	free(x->cap);
	free(x);
	return found;
}
