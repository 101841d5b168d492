/* SPDX-License-Identifier: Apache-2.0
 * The most edge-disjoint rings in a graph. A cut says how many there are at most; exchange finds that many in most
 * graphs. Where it does not, the linear program lowers the bound and branch and bound settles it, in small graphs;
 * in large ones the number is lowered until exchange succeeds. Everything is counted in steps. */
#include "topo_flow.h"
#include "topo_ring.h"

#include <stdlib.h>
#include <string.h>

enum {
	STEPS = 1000000, /* of exchange at first, in vertices looked at: 5 to 15 ms */
	EXACT = 12,      /* ends that the linear program is solved for */
	MANY = 64,       /* more rings than that are looked for in bundles */
};

/* Larger graphs have nothing but exchange, and more time. */
static int64_t steps_for(uint32_t n)
{
	return n <= EXACT ? STEPS : n <= 16 ? 20 * STEPS : 200 * STEPS;
}

/* Linear programs until branch and bound gives up: they take longer the more ends there are. */
static int64_t nodes_for(uint32_t n)
{
	return n <= 7 ? 5000 : n == 8 ? 60 : n <= 10 ? 4 : 0;
}

/* ---- cycles ---- */

bool tt_cycles_add(struct tt_cycles *c, const uint32_t *order, int64_t weight)
{
	uint32_t room = c->room ? c->room * 2 : 8, first = 0, *line;

	if (c->count == c->room) {
		void *o = realloc(c->order, (size_t)room * c->n * sizeof *c->order);
		void *w = o ? realloc(c->weight, room * sizeof *c->weight) : NULL;

		c->order = o ? o : c->order;
		c->weight = w ? w : c->weight;
		if (!w)
			return false;
		c->room = room;
	}
	line = c->order + (size_t)c->count * c->n;
	while (order[first])
		first++;
	for (uint32_t i = 0; i < c->n; i++)
		line[i] = order[(first + i) % c->n];
	for (uint32_t i = 0; i < c->count; i++)
		if (!memcmp(c->order + (size_t)i * c->n, line, c->n * sizeof *line)) {
			c->weight[i] += weight;
			return true;
		}
	c->weight[c->count++] = weight;
	return true;
}

void tt_cycles_free(struct tt_cycles *c)
{
	free(c->order);
	free(c->weight);
	*c = (struct tt_cycles){ .n = c->n };
}

int64_t tt_cycles_sum(const struct tt_cycles *c)
{
	int64_t sum = 0;

	for (uint32_t i = 0; i < c->count; i++)
		sum += c->weight[i];
	return sum;
}

/* ---- the search ---- */

struct search {
	struct tt_arcs a;      /* without switches, in 1/unit */
	int64_t *cap;          /* of the search now going on */
	int64_t most, rings;   /* a bound on it, and what was found */
	struct tt_cycles best; /* the same */
	struct tt_ring_lp *lp; /* of small graphs */
	bool solved;           /* it holds the solution for `cap` */
	int64_t steps, nodes;  /* of exchange in a first attempt, and of linear programs in all */
};

/* The least cut bounds the rings. Wider links are of no use to them. */
static tuttiResult_t cut(struct search *s)
{
	struct tt_arcs a = s->a;
	struct tt_frac least;

	a.cap = s->cap;
	a.wide = INT64_MAX;
	TRY(tt_cut_least(&a, 0, &least));
	s->most = (int64_t)least.num;
	for (size_t i = 0; i < (size_t)a.n * a.n; i++)
		s->cap[i] = s->cap[i] < s->most ? s->cap[i] : s->most;
	return tuttiSuccess;
}

/* Capacities for rings of a rate of num/den. */
static tuttiResult_t begin(struct search *s, int64_t num, int64_t den)
{
	size_t cells = (size_t)s->a.n * s->a.n;

	for (size_t i = 0; i < cells; i++)
		s->cap[i] = s->a.cap[i] * den / num;
	tt_cycles_free(&s->best);
	s->rings = 0;
	s->solved = false;
	return cut(s);
}

/* Keeps the cycles if they are more than those before; gives back the others. */
static void take(struct search *s, struct tt_cycles *c, int64_t times)
{
	for (uint32_t i = 0; i < c->count; i++)
		c->weight[i] *= times;
	if (tt_cycles_sum(c) > s->rings) {
		tt_cycles_free(&s->best);
		s->best = *c;
		s->rings = tt_cycles_sum(c);
	} else {
		tt_cycles_free(c);
	}
}

/* Looks for so many rings by exchange, in capacities divided by `times`. */
static void swap(struct search *s, int64_t rings, int64_t times, int64_t steps)
{
	size_t cells = (size_t)s->a.n * s->a.n;
	struct tt_cycles c = { .n = s->a.n };
	int64_t *cap = malloc(cells * sizeof *cap);

	for (size_t i = 0; i < cells && cap; i++)
		cap[i] = s->cap[i] / times;
	if (cap && rings < UINT16_MAX && tt_ring_swap(s->a.n, cap, (uint32_t)rings, steps / s->a.n, &c))
		take(s, &c, times);
	else
		tt_cycles_free(&c);
	free(cap);
}

/* What divides all capacities and the bound: links in bundles. Rings of whole bundles are few, and quickly found. */
static int64_t bundle(const struct search *s)
{
	int64_t all = s->most;

	for (size_t i = 0; i < (size_t)s->a.n * s->a.n; i++)
		all = (int64_t)tt_gcd((uint64_t)all, (uint64_t)s->cap[i]);
	return all;
}

/* Whether the linear program holds a solution; if it cannot be had, there is no program any more. */
static bool solve(struct search *s)
{
	if (s->lp && !s->solved && !tt_ring_lp_solve(s->lp, s->cap)) {
		tt_ring_lp_free(s->lp);
		s->lp = NULL;
	}
	s->solved = s->lp != NULL;
	return s->solved;
}

/* The bound by the linear program: exact for rings of any rate. */
static void lower_bound(struct search *s)
{
	if (solve(s)) {
		struct tt_frac value = tt_ring_lp_value(s->lp);

		s->most = (int64_t)(value.num / value.den);
	}
}

static void settle(struct search *s)
{
	bool proved = true;

	while (s->rings < s->most && s->lp && s->nodes > 0) {
		struct tt_cycles c = { .n = s->a.n };

		s->solved = false;
		if (!tt_ring_exact(s->lp, s->a.n, s->cap, s->most, s->nodes, &c, &proved) && proved)
			s->most--;
		take(s, &c, 1);
		if (!proved)
			return;
	}
}

/* The most rings in `cap`, if more than `floor`. Fewer are easier to find, so the number is bisected. */
static void find(struct search *s, int64_t floor)
{
	int64_t together = s->most ? bundle(s) : 1, low, high;

	if (s->most <= floor)
		return;
	if (s->most / together <= MANY)
		swap(s, s->most / together, together, s->steps);
	if (s->rings == s->most)
		return;
	lower_bound(s);
	together = 1 + s->most / (MANY + 1);
	low = (s->rings > floor ? s->rings : floor) / together;
	for (high = s->most / together; low < high;) {
		int64_t mid = low + (high - low + 1) / 2;

		swap(s, mid, together, s->steps / 8);
		high = s->rings < mid * together ? mid - 1 : high;
		low = s->rings > low * together ? s->rings / together : low;
	}
	settle(s);
}

/* ---- whole rings, then those of any rate ---- */

/* The cycles as rings of 1/den each, in lowest terms. */
static tuttiResult_t hand_over(const struct tt_cycles *c, int64_t den, bool best, struct tt_rings **out)
{
	struct tt_rings *r = calloc(1, sizeof *r);
	uint64_t common = (uint64_t)den;

	if (r)
		*r = (struct tt_rings){ .n = c->n, .count = c->count, .best = best,
					.order = malloc(((size_t)c->count * c->n + 1) * sizeof *r->order),
					.weight = malloc((c->count + 1) * sizeof *r->weight) };
	if (!r || !r->order || !r->weight) {
		tt_rings_free(r);
		return tt_fail(tuttiSystemError, "no memory for the rings of %u ends", c->n);
	}
	for (uint32_t i = 0; i < c->count; i++)
		common = tt_gcd(common, (uint64_t)c->weight[i]);
	for (uint32_t i = 0; i < c->count; i++)
		r->weight[i] = (uint32_t)((uint64_t)c->weight[i] / common);
	if (c->count)
		memcpy(r->order, c->order, (size_t)c->count * c->n * sizeof *r->order);
	r->den = (uint32_t)((uint64_t)den / common);
	r->total = tt_frac((uint64_t)tt_cycles_sum(c), (uint64_t)den);
	*out = r;
	return tuttiSuccess;
}

/* Rings of any rate as the linear program has them; they may be many, and of odd rates. */
static bool odd_rates(struct search *s, int64_t *den)
{
	struct tt_cycles c = { .n = s->a.n };

	bool solved = solve(s) && tt_ring_lp_cycles(s->lp, &c, den);

	if (solved)
		take(s, &c, 1);
	else
		tt_cycles_free(&c);
	return solved;
}

/* More than `whole` rings by some of half the rate, or of any; `den` what a ring is cut into. */
static tuttiResult_t find_parts(struct search *s, int64_t unit, int64_t whole, int64_t *den)
{
	int64_t halves = unit % 2 ? 2 : 1, odd = 1;
	struct tt_frac most;

	*den = unit * halves;
	TRY(begin(s, 1, halves));
	if (s->most <= whole * *den)
		return tuttiSuccess;
	if (!solve(s)) {
		s->steps /= 4;
		find(s, whole * *den);
		return tuttiSuccess;
	}
	most = tt_ring_lp_value(s->lp);
	if (tt_frac_cmp(most, tt_frac((uint64_t)(whole * *den), 1)) <= 0)
		return tuttiSuccess;
	s->nodes = tt_min((size_t)s->nodes, 30);
	if (most.den == 1)
		find(s, (int64_t)most.num - 1);
	if (s->rings == (int64_t)most.num && most.den == 1)
		return tuttiSuccess;
	s->rings = 0;
	if (odd_rates(s, &odd))
		*den *= odd;
	s->most = s->rings;
	return tuttiSuccess;
}

/* Whether there are no more rings, for certain. Joined in another way switches might allow more, up to the cut. */
static bool settled(const struct search *s, int64_t num, int64_t den)
{
	return s->rings == s->most && (!s->a.bound.den || s->rings == (int64_t)s->a.bound.num * den / num);
}

static tuttiResult_t find_all(struct search *s, uint32_t unit, bool fractional, struct tt_rings **out)
{
	tuttiResult_t r = tuttiSuccess;
	int64_t den = unit, rings;
	struct tt_cycles whole;
	bool best;

	TRY(begin(s, unit, 1));
	find(s, 0);
	whole = s->best;
	rings = s->rings;
	best = settled(s, unit, 1);
	s->best = (struct tt_cycles){ .n = s->a.n };
	if (fractional)
		r = find_parts(s, unit, rings, &den);
	if (r == tuttiSuccess)
		r = fractional && s->rings > rings * den ? hand_over(&s->best, den, settled(s, unit, den), out) :
							   hand_over(&whole, 1, best, out);
	tt_cycles_free(&whole);
	return r;
}

tuttiResult_t tt_rings_find(const struct tt_graph *g, bool fractional, struct tt_rings **out)
{
	struct search s = { .best.n = g->n, .steps = steps_for(g->n), .nodes = nodes_for(g->n) };
	int64_t scale;
	tuttiResult_t r;

	if (g->n == 1)
		return hand_over(&s.best, 1, true, out);
	TRY(tt_arcs_direct(g, TT_ARCS_OUT, true, tt_cut_least, 0, &s.a, &scale));
	s.cap = malloc((size_t)g->n * g->n * sizeof *s.cap);
	s.lp = g->n <= EXACT ? tt_ring_lp_new(g->n) : NULL;
	r = s.cap ? find_all(&s, g->unit, fractional, out) : tt_fail(tuttiSystemError, "no memory for %u ends", g->n);
	tt_ring_lp_free(s.lp);
	tt_cycles_free(&s.best);
	tt_arcs_free(&s.a);
	free(s.cap);
	return r;
}

void tt_rings_free(struct tt_rings *r)
{
	if (!r)
		return;
	free(r->order);
	free(r->weight);
	free(r);
}
