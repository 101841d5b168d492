/* SPDX-License-Identifier: Apache-2.0
 * A graph without switches that carries as much: each switch is split off, its ways in joined to its ways out. First
 * in the order of the ends behind them, which gives rings all there is and costs nothing; where that lowers the
 * bound, pair by pair and only as far as the bound stays, which is possible where as much goes in as out (Mader). */
#include "topo_flow.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, FLOWS = 40000 }; /* looks at the bound of 8 ends; fewer where there are more */

struct neighbour {
	uint32_t v, key;
};

static bool linked(const struct tt_arcs *a, uint32_t u, uint32_t v)
{
	return tt_arcs_cap(a, u, v) || tt_arcs_cap(a, v, u);
}

/* Numbers the ends in the order of a walk that leaves a switch only when all ends at it have been met. */
static void walk(const struct tt_arcs *a, uint32_t w, uint32_t *place, uint32_t *next)
{
	place[w] = a->total;
	for (uint32_t v = 0; v < a->n; v++)
		if (linked(a, v, w) && place[v] == NONE)
			place[v] = (*next)++;
	for (uint32_t v = a->n; v < a->total; v++)
		if (linked(a, v, w) && place[v] == NONE)
			walk(a, v, place, next);
}

static void place_ends(const struct tt_arcs *a, uint32_t *place)
{
	uint32_t next = 0;

	memset(place, 0xff, a->total * sizeof *place);
	for (uint32_t v = 0; v < a->n; v++) {
		if (place[v] == NONE)
			place[v] = next++;
		for (uint32_t w = a->n; w < a->total; w++)
			if (linked(a, v, w) && place[w] == NONE)
				walk(a, w, place, &next);
	}
}

/* The first place behind v as seen from switch w, without passing through ends. */
static uint32_t first_behind(const struct tt_arcs *a, const uint32_t *place, uint32_t v, uint32_t w, uint32_t *stack,
			     bool *seen)
{
	uint32_t n = 0, first = v < a->n ? place[v] : a->total;

	memset(seen, 0, a->total);
	seen[v] = seen[w] = true;
	stack[n++] = v;
	while (n) {
		uint32_t u = stack[--n];

		for (uint32_t x = 0; x < a->total && u >= a->n; x++) {
			if (seen[x] || !linked(a, u, x))
				continue;
			seen[x] = true;
			first = x < a->n && place[x] < first ? place[x] : first;
			stack[n++] = x;
		}
	}
	return first;
}

static int by_key(const void *a, const void *b)
{
	const struct neighbour *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return (x->v > y->v) - (x->v < y->v);
}

static uint32_t neighbours(const struct tt_arcs *a, const uint32_t *place, uint32_t w, struct neighbour *nb)
{
	uint32_t *stack = malloc(a->total * sizeof *stack), n = 0;
	bool *seen = malloc(a->total);

	for (uint32_t v = 0; v < a->total && stack && seen; v++)
		if (v != w && linked(a, v, w))
			nb[n++] = (struct neighbour){ v, first_behind(a, place, v, w, stack, seen) };
	free(stack);
	free(seen);
	qsort(nb, n, sizeof *nb, by_key);
	return n;
}

static void move(struct tt_arcs *a, uint32_t u, uint32_t w, uint32_t v, int64_t amount)
{
	a->cap[(size_t)u * a->total + w] -= amount;
	a->cap[(size_t)w * a->total + v] -= amount;
	if (u != v)
		a->cap[(size_t)u * a->total + v] += amount;
}

/* How much may go from u to v directly: none that the bound needs to go elsewhere. */
static tuttiResult_t safe_amount(struct tt_arcs *a, uint32_t u, uint32_t w, uint32_t v, struct tt_frac bound,
				 int64_t *budget, int64_t *amount)
{
	int64_t most = *amount, low = 0, try = most;

	while (low < most && *budget > 0) {
		struct tt_frac ratio;

		move(a, u, w, v, try);
		TRY(tt_cut_ratio(a, &ratio));
		move(a, u, w, v, -try);
		*budget -= a->n;
		if (tt_frac_cmp(ratio, bound) < 0)
			most = try - 1;
		else
			low = try;
		try = low + (most - low + 1) / 2;
	}
	*amount = low;
	return tuttiSuccess;
}

/* All pairs, nearest in the order first. */
static tuttiResult_t join(struct tt_arcs *a, const uint32_t *place, uint32_t w, bool careful, struct tt_frac bound,
			  int64_t *budget)
{
	struct neighbour *nb = malloc(a->total * sizeof *nb);
	uint32_t n = nb ? neighbours(a, place, w, nb) : 0;
	tuttiResult_t r = nb ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for %u links", a->total);

	for (uint32_t i = 0; i < n * n && r == tuttiSuccess; i++) {
		uint32_t u = nb[i % n].v, v = nb[(i % n + i / n + 1) % n].v;
		int64_t in = tt_arcs_cap(a, u, w), out = tt_arcs_cap(a, w, v);
		int64_t amount = in < out ? in : out;

		if (careful && amount)
			r = safe_amount(a, u, w, v, bound, budget, &amount);
		if (r == tuttiSuccess && amount)
			move(a, u, w, v, amount);
	}
	for (uint32_t v = 0; v < a->total; v++)
		a->cap[(size_t)v * a->total + w] = a->cap[(size_t)w * a->total + v] = 0;
	free(nb);
	return r;
}

static void copy(struct tt_arcs *to, const struct tt_arcs *from)
{
	memcpy(to->cap, from->cap, (size_t)from->total * from->total * sizeof *to->cap);
}

/* The switch in the quick way, and where that loses, again from `spare`, carefully. */
static tuttiResult_t split_one(struct tt_arcs *a, struct tt_arcs *spare, const uint32_t *place, uint32_t w,
			       struct tt_frac bound, int64_t *budget)
{
	struct tt_frac ratio;

	copy(spare, a);
	TRY(join(a, place, w, false, bound, budget));
	TRY(tt_cut_ratio(a, &ratio));
	*budget -= a->n;
	if (tt_frac_cmp(ratio, bound) >= 0 || *budget <= 0)
		return tuttiSuccess;
	copy(a, spare);
	return join(a, place, w, true, bound, budget);
}

static tuttiResult_t split(struct tt_arcs *a, struct tt_arcs *spare, uint32_t *place)
{
	int64_t budget = (int64_t)FLOWS * 64 / ((int64_t)a->total * a->total);
	struct tt_frac bound, ratio;
	tuttiResult_t r;

	TRY(tt_cut_ratio(a, &bound));
	copy(spare, a);
	place_ends(a, place);
	for (uint32_t w = a->total; w-- > a->n;)
		TRY(join(a, place, w, false, bound, &budget));
	r = tt_cut_ratio(a, &ratio);
	if (r != tuttiSuccess || tt_frac_cmp(ratio, bound) >= 0 || budget < (int64_t)a->n * a->n)
		return r;
	copy(a, spare);
	for (uint32_t w = a->total; w-- > a->n && r == tuttiSuccess;)
		r = split_one(a, spare, place, w, bound, &budget);
	return r;
}

static tuttiResult_t drop_switches(struct tt_arcs *a)
{
	struct tt_arcs spare = *a;
	uint32_t *place;
	tuttiResult_t r;

	if (a->total == a->n)
		return tuttiSuccess;
	spare.cap = malloc((size_t)a->total * a->total * sizeof *spare.cap);
	place = malloc(a->total * sizeof *place);
	r = spare.cap && place ? split(a, &spare, place) :
				 tt_fail(tuttiSystemError, "no memory for a graph of %u vertices", a->total);
	tt_arcs_free(&spare);
	free(place);
	for (uint32_t u = 0; u < a->n; u++)
		memmove(a->cap + (size_t)u * a->n, a->cap + (size_t)u * a->total, a->n * sizeof *a->cap);
	a->total = a->n;
	return r;
}

/* A link of no limit is as wide as all known ones; where these bound nothing, no link is wider than one ring. */
static tuttiResult_t tame(struct tt_arcs *a, uint32_t unit)
{
	size_t cells = (size_t)a->total * a->total;
	struct tt_frac ratio = { 0, 1 };
	int64_t most = unit, sum = 0;

	if (a->n > 1)
		TRY(tt_cut_ratio(a, &ratio));
	if (ratio.num * a->n < (uint64_t)a->wide * ratio.den)
		most = a->wide / a->total; /* and known ones are below that */
	for (size_t i = 0; i < cells; i++) {
		a->cap[i] = a->cap[i] < most ? a->cap[i] : most;
		sum += a->cap[i];
	}
	a->wide = (2 * sum + 1) * a->total;
	return tuttiSuccess;
}

tuttiResult_t tt_arcs_direct(const struct tt_graph *g, enum tt_arcs_how how, struct tt_arcs *out)
{
	tuttiResult_t r;

	TRY(tt_arcs_of(g, how, out));
	r = tame(out, g->unit);
	if (r == tuttiSuccess)
		r = drop_switches(out);
	if (r != tuttiSuccess)
		tt_arcs_free(out);
	return r;
}
