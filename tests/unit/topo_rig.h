/* Graphs that the tests of the searches share. The machines are typed in from public descriptions. */
#ifndef TOPO_RIG_H
#define TOPO_RIG_H

#include <stdlib.h>

#include "test.h"
#include "topo_search.h"

static inline struct tt_graph *rig_graph(uint32_t n, uint32_t nswitches)
{
	struct tt_graph *g;

	CHECK(tt_graph_new(n, nswitches, 1, &g) == tuttiSuccess);
	return g;
}

static inline struct tt_graph *rig_matrix(uint32_t n, const uint8_t *links)
{
	struct tt_graph *g = rig_graph(n, 0);

	for (uint32_t i = 0; i < n * n; i++)
		g->cap[i] = links[i];
	return g;
}

/* Eight V100: two quads of four, a double link where the sum of a quad allows it, and four between the quads. */
static inline struct tt_graph *rig_dgx1v(void)
{
	static const uint8_t pairs[][3] = {
		{ 0, 1, 1 }, { 0, 2, 1 }, { 0, 3, 2 }, { 1, 2, 2 }, { 1, 3, 1 }, { 2, 3, 2 }, { 4, 5, 1 }, { 4, 6, 1 },
		{ 4, 7, 2 }, { 5, 6, 2 }, { 5, 7, 1 }, { 6, 7, 2 }, { 0, 4, 2 }, { 1, 5, 2 }, { 2, 6, 1 }, { 3, 7, 1 },
	};
	struct tt_graph *g = rig_graph(8, 0);

	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
		tt_graph_link(g, pairs[i][0], pairs[i][1], pairs[i][2]);
	return g;
}

/* Four MI250X, each of two dies with four links between them, and links of 1 or 2 to others' dies. */
static inline struct tt_graph *rig_mi250x(void)
{
	static const uint8_t pairs[][3] = {
		{ 0, 1, 4 }, { 2, 3, 4 }, { 4, 5, 4 }, { 6, 7, 4 }, { 0, 4, 2 }, { 2, 6, 2 }, { 0, 6, 1 }, { 1, 3, 1 },
		{ 1, 7, 1 }, { 2, 4, 1 }, { 3, 5, 1 }, { 5, 7, 1 },
	};
	struct tt_graph *g = rig_graph(8, 0);

	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
		tt_graph_link(g, pairs[i][0], pairs[i][1], pairs[i][2]);
	return g;
}

static inline struct tt_graph *rig_complete(uint32_t n)
{
	struct tt_graph *g = rig_graph(n, 0);

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < i; k++)
			tt_graph_link(g, i, k, 1);
	return g;
}

/* n ends, each with `width` links to every one of some switches. */
static inline struct tt_graph *rig_star(uint32_t n, uint32_t nswitches, uint32_t width)
{
	struct tt_graph *g = rig_graph(n, nswitches);

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t s = 0; s < nswitches; s++)
			tt_graph_link(g, i, n + s, width);
	return g;
}

static inline struct tt_graph *rig_torus(uint32_t w, uint32_t h)
{
	struct tt_graph *g = rig_graph(w * h, 0);

	for (uint32_t x = 0; x < w; x++)
		for (uint32_t y = 0; y < h; y++) {
			tt_graph_link(g, y * w + x, y * w + (x + 1) % w, 1);
			tt_graph_link(g, y * w + x, (y + 1) % h * w + x, 1);
		}
	return g;
}

/* A random graph; `symmetric`: links go both ways. */
static inline struct tt_graph *rig_random(uint64_t *rnd, uint32_t n, uint32_t nswitches, uint32_t most, bool symmetric)
{
	struct tt_graph *g = rig_graph(n, nswitches);
	uint32_t holes = test_rand(rnd) % 4;

	for (uint32_t i = 0; i < g->total; i++)
		for (uint32_t k = 0; k < i; k++) {
			uint32_t there = test_rand(rnd) % 4 < holes ? 0 : test_rand(rnd) % (most + 1);
			uint32_t back = test_rand(rnd) % 4 < holes ? 0 : test_rand(rnd) % (most + 1);

			tt_graph_arc(g, i, k, there);
			tt_graph_arc(g, k, i, symmetric ? there : back);
		}
	return g;
}

/* As many links into as out of each end: random cycles over all of them, some fallen apart into two. */
static inline struct tt_graph *rig_regular(uint64_t *rnd, uint32_t n, uint32_t orders, bool symmetric)
{
	struct tt_graph *g = rig_graph(n, 0);
	uint32_t o[144];

	for (uint32_t k = 0; k < orders; k++) {
		for (uint32_t i = 0; i < n; i++) {
			uint32_t at = test_rand(rnd) % (i + 1);

			o[i] = o[at];
			o[at] = i;
		}
		for (uint32_t i = 0, cut = n > 5 && k % 2 ? 3 : n; i < n; i++) {
			uint32_t next = i + 1 == cut ? 0 : i + 1 == n ? cut % n : i + 1;

			tt_graph_arc(g, o[i], o[next], 1);
			if (symmetric)
				tt_graph_arc(g, o[next], o[i], 1);
		}
	}
	return g;
}

#endif
