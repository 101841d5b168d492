/* The search for rings and trees: what it finds in a set of graphs, against the bound, and how long it takes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo_search.h"

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

static struct tt_graph *graph(uint32_t n, uint32_t nswitches)
{
	struct tt_graph *g;

	if (tt_graph_new(n, nswitches, 1, &g) != tuttiSuccess)
		exit(1);
	return g;
}

/* Pairs and how many links they have. */
static struct tt_graph *pairs(uint32_t n, const char *list)
{
	struct tt_graph *g = graph(n, 0);
	int used;

	for (unsigned a, b, links; sscanf(list, " %u-%u x%u%n", &a, &b, &links, &used) == 3; list += used)
		tt_graph_link(g, a, b, links);
	return g;
}

static struct tt_graph *dgx1v(void)
{
	return pairs(8, "0-1 x1 0-2 x1 0-3 x2 1-2 x2 1-3 x1 2-3 x2 4-5 x1 4-6 x1 4-7 x2 5-6 x2 5-7 x1 6-7 x2 "
			"0-4 x2 1-5 x2 2-6 x1 3-7 x1");
}

#define MI250X "0-1 x4 2-3 x4 4-5 x4 6-7 x4 0-4 x2 2-6 x2 0-6 x1 1-3 x1 1-7 x1 2-4 x1 3-5 x1 5-7 x1 "

static struct tt_graph *mi250x(void)
{
	return pairs(8, MI250X);
}

/* Two such boards, joined by links of the dies that have one to spare. */
static struct tt_graph *mi250x_16(void)
{
	return pairs(16, MI250X "8-9 x4 10-11 x4 12-13 x4 14-15 x4 8-12 x2 10-14 x2 8-14 x1 9-11 x1 9-15 x1 10-12 x1 "
				"11-13 x1 13-15 x1 1-9 x1 3-11 x1 5-13 x1 7-15 x1 0-8 x1 6-14 x1");
}

static struct tt_graph *star(uint32_t n, uint32_t nswitches, uint32_t width)
{
	struct tt_graph *g = graph(n, nswitches);

	for (uint32_t i = 0; i < n * nswitches; i++)
		tt_graph_link(g, i / nswitches, n + i % nswitches, width);
	return g;
}

/* Two boards of eight on six switches each, eight trunks between opposite ones. */
static struct tt_graph *dgx2(void)
{
	struct tt_graph *g = graph(16, 12);

	for (uint32_t i = 0; i < 16 * 6; i++)
		tt_graph_link(g, i / 6, 16 + i / 48 * 6 + i % 6, 1);
	for (uint32_t s = 0; s < 6; s++)
		tt_graph_link(g, 16 + s, 22 + s, 8);
	return g;
}

/* Eight below four PCI switches of two sockets: a socket link of half the speed. */
static struct tt_graph *pci(void)
{
	struct tt_graph *g = graph(8, 6);

	g->unit = 2;
	for (uint32_t i = 0; i < 8; i++)
		tt_graph_link(g, i, 8 + i / 2, 2);
	for (uint32_t s = 0; s < 4; s++)
		tt_graph_link(g, 8 + s, 12 + s / 2, 2);
	tt_graph_link(g, 12, 13, 1);
	return g;
}

static struct tt_graph *complete(uint32_t n)
{
	struct tt_graph *g = graph(n, 0);

	for (uint32_t i = 0; i < n * n; i++)
		if (i / n < i % n)
			tt_graph_link(g, i / n, i % n, 1);
	return g;
}

static struct tt_graph *torus(uint32_t w, uint32_t h)
{
	struct tt_graph *g = graph(w * h, 0);

	for (uint32_t i = 0; i < w * h; i++) {
		tt_graph_link(g, i, i / w * w + (i + 1) % w, 1);
		if (h > 1)
			tt_graph_link(g, i, (i + w) % (w * h), 1);
	}
	return g;
}

static struct tt_graph *cube(uint32_t bits)
{
	struct tt_graph *g = graph(1u << bits, 0);

	for (uint32_t i = 0; i < bits << bits; i++)
		if (!((i % (1u << bits)) >> (i >> bits) & 1))
			tt_graph_link(g, i % (1u << bits), i % (1u << bits) | 1u << (i >> bits), 1);
	return g;
}

static struct tt_graph *scattered(uint32_t n, uint32_t most, uint32_t of)
{
	struct tt_graph *g = graph(n, 0);

	for (uint32_t i = 0; i < n * n; i++)
		if (i / n < i % n && draw(of) == 0)
			tt_graph_link(g, i / n, i % n, 1 + draw(most));
	return g;
}

/* 144 ends, 12 to a leaf switch, each leaf with a link to 12 spines. */
static struct tt_graph *leaves(void)
{
	struct tt_graph *g = graph(144, 24);

	for (uint32_t i = 0; i < 144; i++) {
		tt_graph_link(g, i, 144 + i / 12, 1);
		tt_graph_link(g, 144 + i / 12, 156 + i % 12, 1);
	}
	return g;
}

struct line {
	const char *name;
	struct tt_graph *g;
	struct tt_frac bound;
	struct tt_rings *whole, *parts;
	struct tt_trees *trees;
	double ms[4];
};

static double since(uint64_t *start)
{
	uint64_t now = tt_now_ns(), was = *start;

	*start = now;
	return (double)(now - was) / 1e6;
}

static int search(struct line *l)
{
	uint64_t t = tt_now_ns();

	if (tt_cut_bound(l->g, &l->bound) != tuttiSuccess)
		return 1;
	l->ms[0] = since(&t);
	if (tt_rings_find(l->g, false, &l->whole) != tuttiSuccess)
		return 1;
	l->ms[1] = since(&t);
	if (tt_rings_find(l->g, true, &l->parts) != tuttiSuccess)
		return 1;
	l->ms[2] = since(&t);
	if (tt_trees_find(l->g, TT_ROOT_ANY, &l->trees) != tuttiSuccess)
		return 1;
	l->ms[3] = since(&t);
	return 0;
}

static void print(const struct line *l)
{
	printf("%-26s %4u %6.2f  %5.0f%s %6.2f %4u  %6.2f %5u  %7.1f %7.1f %7.1f %7.1f\n", l->name, l->g->n,
	       tt_frac_value(l->bound), tt_frac_value(l->whole->total), l->whole->best ? " " : "?",
	       tt_frac_value(l->parts->total), l->parts->count, tt_frac_value(tt_trees_rings(l->trees)),
	       l->trees->count, l->ms[0], l->ms[1], l->ms[2], l->ms[3]);
	fflush(stdout);
}

static int run(const char *name, struct tt_graph *g)
{
	struct line l = { .name = name, .g = g };
	int failed = search(&l);

	if (failed)
		fprintf(stderr, "%s: %s\n", name, tt_last_error());
	else
		print(&l);
	tt_rings_free(l.whole);
	tt_rings_free(l.parts);
	tt_trees_free(l.trees);
	tt_graph_free(g);
	return failed;
}

int main(void)
{
	int failed = 0;

	printf("# In units of one ring; ? not shown to be the most. Times in ms.\n");
	printf("# %-24s %4s %6s  %5s  %6s %4s  %6s %5s  %7s %7s %7s %7s\n", "graph", "n", "bound", "whole", "parts",
	       "of", "trees", "of", "bound", "whole", "parts", "trees");
	failed |= run("DGX-1V", dgx1v());
	failed |= run("4 x MI250X", mi250x());
	failed |= run("8 x MI250X style, 16 dies", mi250x_16());
	failed |= run("8 behind a switch", star(8, 1, 6));
	failed |= run("8 behind PCI", pci());
	failed |= run("DGX-2, 12 switches", dgx2());
	failed |= run("complete, 4", complete(4));
	failed |= run("complete, 6", complete(6));
	failed |= run("complete, 8", complete(8));
	failed |= run("complete, 16", complete(16));
	failed |= run("ring, 8", torus(8, 1));
	failed |= run("torus, 4 x 4", torus(4, 4));
	failed |= run("hypercube, 8", cube(3));
	failed |= run("hypercube, 16", cube(4));
	failed |= run("random, 8", scattered(8, 3, 2));
	failed |= run("random, 8, sparse", scattered(8, 4, 3));
	failed |= run("random, 16", scattered(16, 3, 2));
	failed |= run("random, 16, sparse", scattered(16, 2, 4));
	failed |= run("72 on 18 switches", star(72, 18, 1));
	failed |= run("144, torus 12 x 12", torus(12, 12));
	failed |= run("144, torus 9 x 16", torus(9, 16));
	failed |= run("144, random", scattered(144, 1, 20));
	failed |= run("144, leaves and spines", leaves());
	return failed;
}
