/* SPDX-License-Identifier: Apache-2.0
 * The abstract graph that searches work on, and fractions. */
#include "topo_search.h"

#include <stdlib.h>

enum { MOST = 4096 }; /* vertices: a matrix of them is 64 MiB */

tuttiResult_t tt_graph_new(uint32_t n, uint32_t nswitches, uint32_t unit, struct tt_graph **out)
{
	struct tt_graph *g;
	uint64_t total = (uint64_t)n + nswitches;

	if (!n || !unit || total > MOST)
		return tt_fail(tuttiInvalidArgument, "a graph of %u ends and %u switches, unit %u: at least one end "
			       "and unit, at most %d vertices", n, nswitches, unit, MOST);
	g = malloc(sizeof *g);
	if (g)
		*g = (struct tt_graph){ .n = n, .total = (uint32_t)total, .unit = unit,
					.cap = calloc(total * total, sizeof *g->cap) };
	if (!g || !g->cap) {
		free(g);
		return tt_fail(tuttiSystemError, "no memory for a graph of %u vertices", (uint32_t)total);
	}
	*out = g;
	return tuttiSuccess;
}

void tt_graph_free(struct tt_graph *g)
{
	if (g)
		free(g->cap);
	free(g);
}

void tt_graph_arc(struct tt_graph *g, uint32_t from, uint32_t to, uint32_t cap)
{
	uint32_t *c = &g->cap[(size_t)from * g->total + to];

	*c = cap >= TT_NO_LIMIT - *c ? TT_NO_LIMIT : *c + cap;
}

void tt_graph_link(struct tt_graph *g, uint32_t a, uint32_t b, uint32_t cap)
{
	tt_graph_arc(g, a, b, cap);
	tt_graph_arc(g, b, a, cap);
}

uint64_t tt_gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

struct tt_frac tt_frac(uint64_t num, uint64_t den)
{
	uint64_t all = tt_gcd(num, den);

	return all ? (struct tt_frac){ num / all, den / all } : (struct tt_frac){ 0, 1 };
}

int tt_frac_cmp(struct tt_frac a, struct tt_frac b)
{
	unsigned __int128 x = (unsigned __int128)a.num * b.den, y = (unsigned __int128)b.num * a.den;

	return (x > y) - (x < y);
}

double tt_frac_value(struct tt_frac f)
{
	return (double)f.num / (double)f.den;
}
