/* SPDX-License-Identifier: Apache-2.0
 * A graph without switches that carries as much: each switch is split off, its ways in joined to its ways out. First
 * in the order of the ends behind them, which gives rings all there is and costs nothing; where that lowers the
 * bound, pair by pair and only as far as the bound stays, which is possible where as much goes in as out (Mader). */
#include "topo_flow.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, FLOWS = 200000 }; /* looks at the bound of 8 ends; fewer where there are more */

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

/* ---- joining ---- */

struct split {
	struct tt_arcs a, before; /* the graph; as it was, to start again from */
	uint32_t *place;
	struct neighbour *nb;
	tt_measure measure;
	uint32_t root;
	struct tt_frac bound; /* which must stay */
	int64_t budget;
};

static void move(struct tt_arcs *a, uint32_t u, uint32_t w, uint32_t v, int64_t amount)
{
	a->cap[(size_t)u * a->total + w] -= amount;
	a->cap[(size_t)w * a->total + v] -= amount;
	if (u != v)
		a->cap[(size_t)u * a->total + v] += amount;
}

static tuttiResult_t stays(struct split *s, bool *stays)
{
	struct tt_frac now;

	TRY(s->measure(&s->a, s->root, &now));
	s->budget -= s->a.n;
	*stays = tt_frac_cmp(now, s->bound) >= 0;
	return tuttiSuccess;
}

/* How much may go from u to v directly: none that the bound needs to go elsewhere. */
static tuttiResult_t safe_amount(struct split *s, uint32_t u, uint32_t w, uint32_t v, int64_t *amount)
{
	int64_t most = *amount, low = 0, try = most;

	while (low < most && s->budget > 0) {
		bool fine;

		move(&s->a, u, w, v, try);
		TRY(stays(s, &fine));
		move(&s->a, u, w, v, -try);
		most = fine ? most : try - 1;
		low = fine ? try : low;
		try = low + (most - low + 1) / 2;
	}
	*amount = low;
	return tuttiSuccess;
}

/* All pairs, nearest in the order first. */
static tuttiResult_t join(struct split *s, uint32_t w, bool careful)
{
	uint32_t n = neighbours(&s->a, s->place, w, s->nb);
	struct tt_arcs *a = &s->a;

	for (uint32_t i = 0; i < n * n; i++) {
		uint32_t u = s->nb[i % n].v, v = s->nb[(i % n + i / n + 1) % n].v;
		int64_t in = tt_arcs_cap(a, u, w), out = tt_arcs_cap(a, w, v);
		int64_t amount = in < out ? in : out;

		if (careful && amount)
			TRY(safe_amount(s, u, w, v, &amount));
		move(a, u, w, v, amount);
	}
	for (uint32_t v = 0; v < a->total; v++)
		a->cap[(size_t)v * a->total + w] = a->cap[(size_t)w * a->total + v] = 0;
	return tuttiSuccess;
}

static void copy(struct tt_arcs *to, const struct tt_arcs *from)
{
	memcpy(to->cap, from->cap, (size_t)from->total * from->total * sizeof *to->cap);
}

/* The switch in the quick way, and where that loses, carefully. */
static tuttiResult_t join_one(struct split *s, uint32_t w)
{
	bool fine;

	copy(&s->before, &s->a);
	TRY(join(s, w, false));
	TRY(stays(s, &fine));
	if (fine || s->budget <= 0)
		return tuttiSuccess;
	copy(&s->a, &s->before);
	return join(s, w, true);
}

/* In units so small that the bound is a whole number of them: then the careful way does not lose. */
static void refine(struct split *s, bool whole, int64_t *scale)
{
	*scale = whole ? 1 : (int64_t)s->bound.den;
	for (size_t i = 0; i < (size_t)s->a.total * s->a.total; i++)
		s->a.cap[i] *= *scale;
	s->a.wide *= *scale;
	s->bound = tt_frac(s->bound.num * (uint64_t)*scale, s->bound.den);
}

/* All switches in the quick way, which is good nearly always; else one after the other. */
static tuttiResult_t join_all(struct split *s, bool whole, int64_t *scale)
{
	bool fine;

	TRY(s->measure(&s->a, s->root, &s->bound));
	s->a.bound = s->bound;
	copy(&s->before, &s->a);
	for (uint32_t w = s->a.total; w-- > s->a.n;)
		TRY(join(s, w, false));
	TRY(stays(s, &fine));
	if (fine || s->budget < (int64_t)s->a.n * s->a.n)
		return tuttiSuccess;
	copy(&s->a, &s->before);
	refine(s, whole, scale);
	for (uint32_t w = s->a.total; w-- > s->a.n;)
		TRY(join_one(s, w));
	return tuttiSuccess;
}

static tuttiResult_t drop_switches(struct tt_arcs *a, bool whole, tt_measure measure, uint32_t root, int64_t *scale)
{
	size_t total = a->total;
	struct split s = { .a = *a, .before = *a, .measure = measure, .root = root,
			   .budget = (int64_t)FLOWS * 64 / (int64_t)(total * total) };
	tuttiResult_t r;

	s.before.cap = malloc(total * total * sizeof *s.before.cap);
	s.place = malloc(total * sizeof *s.place);
	s.nb = malloc(total * sizeof *s.nb);
	if (s.before.cap && s.place && s.nb) {
		place_ends(a, s.place);
		r = join_all(&s, whole, scale);
	} else {
		r = tt_fail(tuttiSystemError, "no memory for a graph of %zu vertices", total);
	}
	free(s.before.cap);
	free(s.place);
	free(s.nb);
	a->wide = s.a.wide;
	a->bound = s.a.bound;
	a->total = a->n;
	for (uint32_t u = 0; u < a->n; u++)
		memmove(a->cap + (size_t)u * a->n, a->cap + u * total, a->n * sizeof *a->cap);
	return r;
}

/* A link of no limit is as wide as all known ones; where these bound nothing, no link is wider than one ring. */
static tuttiResult_t tame(struct tt_arcs *a, uint32_t unit)
{
	size_t cells = (size_t)a->total * a->total;
	struct tt_frac ratio = { 0, 1 };
	int64_t most = unit, sum = 0;

	if (a->n > 1)
		TRY(tt_cut_ratio(a, 0, &ratio));
	if (ratio.num * a->n < (uint64_t)a->wide * ratio.den)
		most = a->wide / a->total; /* and known ones are below that */
	for (size_t i = 0; i < cells; i++) {
		a->cap[i] = a->cap[i] < most ? a->cap[i] : most;
		sum += a->cap[i];
	}
	a->wide = (2 * sum + 1) * a->total;
	return tuttiSuccess;
}

tuttiResult_t tt_arcs_direct(const struct tt_graph *g, enum tt_arcs_how how, bool whole, tt_measure measure,
			     uint32_t root, struct tt_arcs *out, int64_t *scale)
{
	tuttiResult_t r;

	*scale = 1;
	TRY(tt_arcs_of(g, how, out));
	r = tame(out, g->unit);
	if (r == tuttiSuccess && g->total > g->n && g->n > 1)
		r = drop_switches(out, whole, measure, root, scale);
	if (r != tuttiSuccess)
		tt_arcs_free(out);
	return r;
}
