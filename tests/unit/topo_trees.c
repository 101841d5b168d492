/* SPDX-License-Identifier: Apache-2.0
 * Packed trees: each spans from its root, together they fit, and they are worth what the cuts allow. */
#include "topo_rig.h"

#include <stdio.h>

/* Up to the root in fewer steps than there are ends. */
static void check_tree(const struct tt_trees *t, uint32_t k)
{
	const uint32_t *parent = t->parent + (size_t)k * t->n;

	CHECK(parent[t->root[k]] == t->root[k]);
	for (uint32_t v = 0; v < t->n; v++) {
		uint32_t at = v, steps = 0;

		for (; at != t->root[k]; at = parent[at])
			CHECKF(parent[at] < t->n && steps++ < t->n, "tree %u: %u does not reach %u", k, v, t->root[k]);
	}
}

/* Of graphs without switches: no link is overdrawn, nor, for allreduce, on the way up. */
static void check_trees(const struct tt_graph *g, const struct tt_trees *t, bool both)
{
	uint64_t *used = calloc((size_t)g->n * g->n, sizeof *used), sum = 0;

	for (uint32_t k = 0; k < t->count; k++) {
		check_tree(t, k);
		CHECK(t->weight[k] > 0);
		sum += t->weight[k];
		for (uint32_t v = 0; v < g->n; v++)
			if (v != t->root[k])
				used[t->parent[k * g->n + v] * g->n + v] += t->weight[k];
	}
	CHECK(!tt_frac_cmp(t->total, tt_frac(sum, t->den)));
	for (uint32_t i = 0; i < g->n * g->n && g->total == g->n; i++) {
		uint32_t back = i % g->n * g->n + i / g->n;

		CHECKF(used[i] * g->unit <= (uint64_t)g->cap[i] * t->den, "link %u-%u carries %lu/%u of %u",
		       i / g->n, i % g->n, used[i], t->den, g->cap[i]);
		CHECK(!both || used[i] * g->unit <= (uint64_t)g->cap[back] * t->den);
	}
	free(used);
}

/* The trees of a graph from `root`; worth exactly num/den. */
static void expect(const struct tt_graph *g, int root, struct tt_frac want)
{
	struct tt_trees *t;

	CHECK(tt_trees_find(g, root, &t) == tuttiSuccess);
	check_trees(g, t, root == TT_ROOT_ANY);
	CHECKF(!tt_frac_cmp(root >= 0 ? t->total : tt_trees_rings(t), want), "%u ends, root %d: %u trees of %lu/%lu, "
	       "not %lu/%lu", g->n, root, t->count, t->total.num, t->total.den, want.num, want.den);
	for (uint32_t k = 0; k < t->count && root >= 0; k++)
		CHECK(t->root[k] == (uint32_t)root);
	tt_trees_free(t);
}

/* Up to the bounds, which are checked against all cuts elsewhere. */
static void reach_bounds(const struct tt_graph *g, uint32_t root)
{
	struct tt_frac bound, turned = { 1, 0 };

	CHECK(tt_cut_root(g, root, &bound) == tuttiSuccess);
	expect(g, (int)root, bound);
	CHECK(tt_cut_trees(g, &bound) == tuttiSuccess);
	expect(g, TT_ROOT_ANY, bound);
	CHECK(tt_cut_bound(g, &turned) == tuttiSuccess);
	expect(g, TT_ROOT_EACH, turned);
}

static void random_graphs(void)
{
	uint64_t rnd = test_seed();

	for (int i = 0; i < 400; i++) {
		uint32_t n = 2 + test_rand(&rnd) % 7;
		struct tt_graph *g = rig_random(&rnd, n, i % 2 ? test_rand(&rnd) % 4 : 0, 1 + i % 5, true);

		g->unit = 1 + test_rand(&rnd) % 3;
		reach_bounds(g, test_rand(&rnd) % n);
		tt_graph_free(g);
	}
}

/* One direction wider than the other: from one root still as many as the cuts allow. */
static void one_way(void)
{
	uint64_t rnd = test_seed();

	for (int i = 0; i < 200; i++) {
		uint32_t n = 2 + test_rand(&rnd) % 7, root = test_rand(&rnd) % n;
		struct tt_graph *g = rig_random(&rnd, n, 0, 3, false);
		struct tt_frac bound;

		CHECK(tt_cut_root(g, root, &bound) == tuttiSuccess);
		expect(g, (int)root, bound);
		CHECK(tt_cut_trees(g, &bound) == tuttiSuccess);
		expect(g, TT_ROOT_ANY, bound);
		tt_graph_free(g);
	}
}

/* Where rings fall short of the bound trees reach it: 4 against 5.83 on MI250X. */
static void mi250x(void)
{
	struct tt_graph *g = rig_mi250x();
	struct tt_frac bound;

	expect(g, TT_ROOT_EACH, tt_frac(35, 6));
	expect(g, 0, tt_frac(5, 1));
	CHECK(tt_cut_trees(g, &bound) == tuttiSuccess && tt_frac_cmp(bound, tt_frac(35, 6)) >= 0);
	expect(g, TT_ROOT_ANY, bound);
	tt_graph_free(g);
}

static void known_machines(void)
{
	struct tt_graph *g[] = { rig_dgx1v(), rig_complete(4), rig_complete(8), rig_torus(4, 4), rig_graph(1, 0),
				 rig_graph(3, 0) };

	expect(g[0], TT_ROOT_EACH, tt_frac(6, 1));
	expect(g[1], TT_ROOT_EACH, tt_frac(3, 1));
	expect(g[2], 3, tt_frac(7, 1));
	expect(g[3], TT_ROOT_EACH, tt_frac(4, 1));
	expect(g[4], TT_ROOT_ANY, tt_frac(0, 1));
	expect(g[5], TT_ROOT_ANY, tt_frac(0, 1));
	for (size_t i = 0; i < sizeof g / sizeof g[0]; i++)
		tt_graph_free(g[i]);
}

/* Behind a switch each end sends and receives no more than its own links carry. */
static void switches(void)
{
	struct tt_graph *g = rig_star(6, 1, 4);
	struct tt_trees *t;

	CHECK(tt_trees_find(g, 2, &t) == tuttiSuccess);
	check_trees(g, t, false);
	CHECKF(!tt_frac_cmp(t->total, tt_frac(4, 1)), "%lu/%lu", t->total.num, t->total.den);
	for (uint32_t v = 0; v < 6; v++) {
		uint64_t out = 0;

		for (uint32_t k = 0; k < t->count; k++)
			for (uint32_t u = 0; u < 6; u++)
				out += u != t->root[k] && t->parent[k * 6 + u] == v ? t->weight[k] : 0;
		CHECKF(out <= 4 * (uint64_t)t->den, "end %u sends %lu/%u", v, out, t->den);
	}
	tt_trees_free(t);
	tt_graph_free(g);
}

/* A large graph ends with what could be done. */
static void large(void)
{
	struct tt_graph *g = rig_torus(12, 12);
	struct tt_trees *t;

	CHECK(tt_trees_find(g, TT_ROOT_ANY, &t) == tuttiSuccess);
	check_trees(g, t, true);
	CHECKF(tt_frac_cmp(tt_trees_rings(t), tt_frac(39, 10)) > 0, "%lu/%lu in rings", tt_trees_rings(t).num,
	       tt_trees_rings(t).den);
	tt_trees_free(t);
	tt_graph_free(g);
}

const struct test tests[] = {
	{ "random_graphs", random_graphs, 0 }, { "one_way", one_way, 0 },   { "mi250x", mi250x, 0 },
	{ "known_machines", known_machines, 0 }, { "switches", switches, 0 }, { "large", large, 0 },
};
const int ntests = sizeof tests / sizeof tests[0];
