/* SPDX-License-Identifier: Apache-2.0
 * Cut bounds against all cuts of random graphs, and for machines whose bounds are known. */
#include "topo_rig.h"

#include <stdio.h>

static bool is(struct tt_frac f, uint64_t num, uint64_t den)
{
	return tt_frac_cmp(f, tt_frac(num, den)) == 0;
}

static uint64_t out_of(const struct tt_graph *g, uint32_t set)
{
	uint64_t sum = 0;

	for (uint32_t u = 0; u < g->total; u++)
		for (uint32_t v = 0; v < g->total; v++)
			if (set >> u & 1 && !(set >> v & 1))
				sum += tt_graph_cap(g, u, v);
	return sum;
}

/* All cuts, switches on either side. */
static struct tt_frac brute_bound(const struct tt_graph *g)
{
	uint32_t all = (1u << g->total) - 1, ends = (1u << g->n) - 1;
	struct tt_frac least = { 1, 0 };

	for (uint32_t set = 0; set <= all; set++) {
		uint32_t size = (uint32_t)__builtin_popcount(set & ends);
		uint64_t out = out_of(g, set), in = out_of(g, all & ~set);
		struct tt_frac f;

		if (!size || size == g->n)
			continue;
		f = tt_frac((g->n - 1) * (out < in ? out : in), size);
		if (tt_frac_cmp(f, least) < 0)
			least = f;
	}
	return least;
}

static uint64_t brute_root(const struct tt_graph *g, uint32_t root)
{
	uint32_t all = (1u << g->total) - 1, ends = (1u << g->n) - 1;
	uint64_t least = UINT64_MAX;

	for (uint32_t set = 0; set <= all; set++)
		if (set >> root & 1 && (set & ends) != ends && out_of(g, set) < least)
			least = out_of(g, set);
	return least;
}

/* All ways to sort the vertices into `parts` sets and a rest; links go both ways. */
static void brute_parts(const struct tt_graph *g, uint32_t *part, uint32_t v, uint32_t parts, struct tt_frac *least)
{
	uint64_t sum = 0;
	struct tt_frac f;

	if (v < g->n) {
		for (part[v] = 0; part[v] <= parts + 1; part[v]++)
			brute_parts(g, part, v + 1, part[v] > parts ? parts + 1 : parts, least);
		return;
	}
	for (uint32_t i = 0; i < g->n * g->n; i++)
		if (part[i % g->n] && part[i / g->n] != part[i % g->n])
			sum += g->cap[i];
	if (parts < 2)
		return;
	f = tt_frac(sum * (g->n - 1), (parts - 1) * g->n);
	if (tt_frac_cmp(f, *least) < 0)
		*least = f;
}

static void all_cuts(void)
{
	uint64_t rnd = test_seed();

	for (int i = 0; i < 1000; i++) {
		uint32_t n = 2 + test_rand(&rnd) % 6;
		struct tt_graph *g = rig_random(&rnd, n, test_rand(&rnd) % 3, 1 + i % 5, i % 2);
		uint32_t root = test_rand(&rnd) % n;
		struct tt_frac bound, want = brute_bound(g);

		CHECK(tt_cut_bound(g, &bound) == tuttiSuccess);
		CHECKF(!tt_frac_cmp(bound, want), "graph %d: bound %lu/%lu, not %lu/%lu", i, bound.num, bound.den,
		       want.num, want.den);
		CHECK(tt_cut_root(g, root, &bound) == tuttiSuccess);
		CHECKF(is(bound, brute_root(g, root), 1), "graph %d root %u: %lu/%lu, not %lu", i, root, bound.num,
		       bound.den, brute_root(g, root));
		tt_graph_free(g);
	}
}

static void all_partitions(void)
{
	uint64_t rnd = test_seed();
	uint32_t part[7];

	for (int i = 0; i < 300; i++) {
		struct tt_graph *g = rig_random(&rnd, 2 + test_rand(&rnd) % 5, 0, 1 + i % 5, true);
		struct tt_frac bound, want = { 1, 0 };

		brute_parts(g, part, 0, 0, &want);
		CHECK(tt_cut_trees(g, &bound) == tuttiSuccess);
		CHECKF(!tt_frac_cmp(bound, want), "graph %d of %u: trees %lu/%lu, not %lu/%lu", i, g->n, bound.num,
		       bound.den, want.num, want.den);
		tt_graph_free(g);
	}
}

static void expect(struct tt_graph *g, uint64_t num, uint64_t den)
{
	struct tt_frac bound;

	CHECK(tt_cut_bound(g, &bound) == tuttiSuccess);
	CHECKF(is(bound, num, den), "%u ends: %lu/%lu, not %lu/%lu", g->n, bound.num, bound.den, num, den);
	tt_graph_free(g);
}

static void known_machines(void)
{
	expect(rig_dgx1v(), 6, 1);
	expect(rig_mi250x(), 35, 6);
	expect(rig_complete(4), 3, 1);
	expect(rig_star(8, 1, 6), 6, 1);
	expect(rig_star(72, 18, 1), 18, 1);
	expect(rig_torus(4, 4), 4, 1);
	expect(rig_torus(12, 12), 4, 1);
	expect(rig_graph(3, 0), 0, 1);
}

/* A link of unknown speed is no bottleneck, and no bound where there is another way across it. */
static void no_limit(void)
{
	struct tt_graph *g = rig_graph(3, 1);
	struct tt_frac bound;

	for (uint32_t i = 0; i < 3; i++)
		tt_graph_link(g, i, 3, TT_NO_LIMIT);
	CHECK(tt_cut_bound(g, &bound) == tuttiSuccess && !bound.den);
	CHECK(tt_cut_root(g, 0, &bound) == tuttiSuccess && !bound.den);
	CHECK(tt_cut_trees(g, &bound) == tuttiSuccess && !bound.den);
	tt_graph_link(g, 0, 3, 7); /* stays without limit */
	CHECK(tt_graph_cap(g, 0, 3) == TT_NO_LIMIT);
	g->cap[2 * 4 + 3] = 5;
	CHECK(tt_cut_bound(g, &bound) == tuttiSuccess && is(bound, 5, 1));
	CHECK(tt_cut_root(g, 2, &bound) == tuttiSuccess && is(bound, 5, 1));
	CHECK(tt_cut_root(g, 0, &bound) == tuttiSuccess && !bound.den);
	CHECK(tt_cut_trees(g, &bound) == tuttiSuccess);
	CHECKF(is(bound, 20, 3), "trees %lu/%lu", bound.num, bound.den);
	tt_graph_free(g);
}

/* Half links are counted in halves; what cannot be counted with is refused in words. */
static void units(void)
{
	struct tt_graph *g;

	CHECK(tt_graph_new(2, 0, 2, &g) == tuttiSuccess);
	tt_graph_link(g, 0, 1, 3);
	expect(g, 3, 2);
	CHECK(tt_graph_new(0, 1, 1, &g) == tuttiInvalidArgument);
	CHECK(tt_graph_new(2, 0, 0, &g) == tuttiInvalidArgument);
	g = rig_graph(1, 0);
	expect(g, 1, 0);
}

const struct test tests[] = {
	{ "all_cuts", all_cuts, 0 },	     { "all_partitions", all_partitions, 0 },
	{ "known_machines", known_machines, 0 }, { "no_limit", no_limit, 0 },
	{ "units", units, 0 },
};
const int ntests = sizeof tests / sizeof tests[0];
