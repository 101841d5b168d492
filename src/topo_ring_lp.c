/* SPDX-License-Identifier: Apache-2.0
 * The most rings of any rate: a linear program with a variable for each Hamiltonian cycle and a row for each link.
 * Revised simplex in whole numbers (the inverse of the basis times its determinant; each pivot divides evenly), so
 * no rounding differs between machines. The cycle to take in is the shortest by the prices of links, found by
 * dynamic programming over subsets; ties in the ratio test go by rows of the inverse, so that it cannot cycle. */
#include "topo_ring.h"

#include <stdlib.h>
#include <string.h>

enum { SLACK = UINT32_MAX, PIVOTS = 3000 };
#define FAR (INT64_MAX / 64)

struct tt_ring_lp {
	uint32_t n, m;                /* vertices, links */
	uint32_t *row;                /* of a link from u to v: [u * n + v]; m: there is none */
	int64_t *inv, *have, det;     /* m x m, m: how much of each basic variable; both times det */
	int64_t *price, value;        /* of each link, of the whole; times det */
	uint32_t *basis;              /* of each row: a cycle's place in `orders`, or SLACK */
	uint32_t *orders, norders;
	int64_t *alpha, *best;
	uint8_t *from;                /* of the dynamic program */
	bool overflow;
};

struct tt_ring_lp *tt_ring_lp_new(uint32_t n)
{
	struct tt_ring_lp *lp = n >= 2 && n <= TT_RING_LP_MOST ? calloc(1, sizeof *lp) : NULL;
	size_t m = (size_t)n * (n - 1), states = (size_t)n << (n - 1);

	if (!lp)
		return NULL;
	lp->n = n;
	lp->row = malloc((size_t)n * n * sizeof *lp->row);
	lp->inv = malloc(m * m * sizeof *lp->inv);
	lp->have = malloc(3 * m * sizeof *lp->have);
	lp->basis = malloc(m * sizeof *lp->basis);
	lp->orders = malloc((size_t)PIVOTS * n * sizeof *lp->orders);
	lp->best = malloc(states * sizeof *lp->best);
	lp->from = malloc(states);
	if (lp->row && lp->inv && lp->have && lp->basis && lp->orders && lp->best && lp->from)
		return lp;
	tt_ring_lp_free(lp);
	return NULL;
}

void tt_ring_lp_free(struct tt_ring_lp *lp)
{
	if (!lp)
		return;
	free(lp->row);
	free(lp->inv);
	free(lp->have);
	free(lp->basis);
	free(lp->orders);
	free(lp->best);
	free(lp->from);
	free(lp);
}

/* All slack: the inverse is the identity. */
static void begin(struct tt_ring_lp *lp, const int64_t *cap)
{
	uint32_t most = lp->n * (lp->n - 1);

	lp->m = lp->norders = 0;
	lp->price = lp->have + most;
	lp->alpha = lp->price + most;
	for (uint32_t i = 0; i < lp->n * lp->n; i++) {
		bool link = cap[i] && i / lp->n != i % lp->n;

		lp->row[i] = link ? lp->m : most;
		if (link)
			lp->have[lp->m++] = cap[i];
	}
	for (uint32_t i = 0; i < lp->n * lp->n; i++)
		lp->row[i] = lp->row[i] == most ? lp->m : lp->row[i];
	memset(lp->inv, 0, (size_t)lp->m * lp->m * sizeof *lp->inv);
	for (uint32_t i = 0; i < lp->m; i++) {
		lp->inv[(size_t)i * lp->m + i] = 1;
		lp->basis[i] = SLACK;
		lp->price[i] = 0;
	}
	lp->det = 1;
	lp->value = 0;
	lp->overflow = false;
}

static int64_t price_of(const struct tt_ring_lp *lp, uint32_t u, uint32_t v)
{
	uint32_t row = lp->row[u * lp->n + v];

	return row == lp->m ? FAR : lp->price[row];
}

/* Shortest paths from vertex n-1 through each subset of the others, by their last vertex. */
static void find_paths(struct tt_ring_lp *lp)
{
	uint32_t n = lp->n, k = n - 1;

	for (uint32_t set = 1; set < 1u << k; set++)
		for (uint32_t v = 0; v < k; v++) {
			uint32_t rest = set & ~(1u << v);
			int64_t *best = &lp->best[(size_t)set * n + v];

			*best = FAR;
			if (!(set >> v & 1))
				continue;
			if (!rest)
				*best = price_of(lp, k, v);
			for (uint32_t u = 0; u < k; u++) {
				int64_t way = rest >> u & 1 ? lp->best[(size_t)rest * n + u] : FAR;

				if (way >= FAR || (way += price_of(lp, u, v)) >= *best)
					continue;
				*best = way;
				lp->from[(size_t)set * n + v] = (uint8_t)u;
			}
		}
}

/* The cheapest cycle by the prices of links, and its price; FAR: there is none. */
static int64_t cheapest(struct tt_ring_lp *lp, uint32_t *order)
{
	uint32_t k = lp->n - 1, set = (1u << k) - 1, last = 0;
	int64_t least = FAR;

	find_paths(lp);
	for (uint32_t v = 0; v < k; v++) {
		int64_t way = lp->best[(size_t)set * lp->n + v], home = price_of(lp, v, k);

		if (way < FAR && home < FAR && way + home < least) {
			least = way + home;
			last = v;
		}
	}
	order[0] = k;
	for (uint32_t i = k; i > 0 && least < FAR; i--) {
		uint32_t before = lp->from[(size_t)set * lp->n + last];

		order[i] = last;
		set &= ~(1u << last);
		last = before;
	}
	return least;
}

/* a * b - c * d over e, which divides it. */
static int64_t cross(struct tt_ring_lp *lp, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e)
{
	int64_t x, y;

	if (__builtin_mul_overflow(a, b, &x) || __builtin_mul_overflow(c, d, &y) || __builtin_sub_overflow(x, y, &x)) {
		lp->overflow = true;
		return 0;
	}
	if (e != 1)
		x /= e;
	lp->overflow = lp->overflow || x > FAR / 64 || x < -FAR / 64;
	return x;
}

/* Whether row i leaves before row k: the lower ratio, ties by the rows of the inverse. */
static bool leaves_first(const struct tt_ring_lp *lp, uint32_t i, uint32_t k)
{
	__int128 x = (__int128)lp->have[i] * lp->alpha[k], y = (__int128)lp->have[k] * lp->alpha[i];

	for (uint32_t j = 0; j < lp->m && x == y; j++) {
		x = (__int128)lp->inv[(size_t)i * lp->m + j] * lp->alpha[k];
		y = (__int128)lp->inv[(size_t)k * lp->m + j] * lp->alpha[i];
	}
	return x < y;
}

static void pivot(struct tt_ring_lp *lp, uint32_t r, int64_t gain, uint32_t enters)
{
	int64_t p = lp->alpha[r], *top = lp->inv + (size_t)r * lp->m;

	for (uint32_t i = 0; i < lp->m; i++) {
		int64_t a = lp->alpha[i], *line = lp->inv + (size_t)i * lp->m;

		if (i == r || (!a && p == lp->det))
			continue;
		for (uint32_t j = 0; j < lp->m; j++)
			if (line[j] || (a && top[j]))
				line[j] = cross(lp, line[j], p, a, top[j], lp->det);
		lp->have[i] = cross(lp, lp->have[i], p, a, lp->have[r], lp->det);
	}
	for (uint32_t j = 0; j < lp->m; j++)
		lp->price[j] = cross(lp, lp->price[j], p, -gain, top[j], lp->det);
	lp->value = cross(lp, lp->value, p, -gain, lp->have[r], lp->det);
	lp->basis[r] = enters;
	lp->det = p;
}

static bool bring_in(struct tt_ring_lp *lp, int64_t gain, uint32_t enters)
{
	uint32_t r = lp->m;

	for (uint32_t i = 0; i < lp->m; i++)
		if (lp->alpha[i] > 0 && (r == lp->m || leaves_first(lp, i, r)))
			r = i;
	if (r == lp->m)
		return false;
	pivot(lp, r, gain, enters);
	return !lp->overflow;
}

static void column_of_cycle(struct tt_ring_lp *lp, const uint32_t *order)
{
	memset(lp->alpha, 0, lp->m * sizeof *lp->alpha);
	for (uint32_t k = 0; k < lp->n; k++) {
		uint32_t j = lp->row[order[k] * lp->n + order[(k + 1) % lp->n]];

		for (uint32_t i = 0; i < lp->m; i++)
			lp->alpha[i] += lp->inv[(size_t)i * lp->m + j];
	}
}

/* Takes in what gains most: slack on a link whose price is below nothing, else the cheapest cycle. */
static bool improve(struct tt_ring_lp *lp, bool *done)
{
	uint32_t *order = lp->orders + (size_t)lp->norders * lp->n, low = 0;
	int64_t price;

	*done = false;
	for (uint32_t j = 1; j < lp->m; j++)
		low = lp->price[j] < lp->price[low] ? j : low;
	if (lp->m && lp->price[low] < 0) {
		for (uint32_t i = 0; i < lp->m; i++)
			lp->alpha[i] = lp->inv[(size_t)i * lp->m + low];
		return bring_in(lp, -lp->price[low], SLACK);
	}
	price = cheapest(lp, order);
	*done = price >= lp->det;
	if (*done)
		return true;
	column_of_cycle(lp, order);
	return bring_in(lp, lp->det - price, lp->norders++);
}

bool tt_ring_lp_solve(struct tt_ring_lp *lp, const int64_t *cap)
{
	bool done = false;

	begin(lp, cap);
	for (int i = 0; i < PIVOTS && !done; i++)
		if (!improve(lp, &done))
			return false;
	return done;
}

struct tt_frac tt_ring_lp_value(const struct tt_ring_lp *lp)
{
	return tt_frac((uint64_t)lp->value, (uint64_t)lp->det);
}

bool tt_ring_lp_cycles(const struct tt_ring_lp *lp, struct tt_cycles *out, int64_t *den)
{
	*den = lp->det;
	for (uint32_t i = 0; i < lp->m; i++)
		if (lp->basis[i] != SLACK && lp->have[i])
			if (!tt_cycles_add(out, lp->orders + (size_t)lp->basis[i] * lp->n, lp->have[i]))
				return false;
	return true;
}
