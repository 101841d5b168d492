/* Floor 1: the best rings and trees in a graph, and the bound that no schedule beats. The graph is abstract: the
 * machine's graph (GPUs, PCI, NVSwitches ...) is boiled down to it by its owner. All searches are counted in steps,
 * never timed, and use whole numbers only: the same graph gives the same answer on every machine. */
#ifndef TT_TOPO_SEARCH_H
#define TT_TOPO_SEARCH_H

#include "base.h"

#define TT_NO_LIMIT UINT32_MAX /* the capacity of a link of unknown speed */

/* Vertices 0 .. n-1 are ends (ranks, GPUs), n .. total-1 are switches, which only forward. Capacities are directed
 * and in 1/unit of what one whole ring needs: with unit 2 a single link is 2 and one of half the speed 1. A link
 * of no limit counts as wide as all known ones together. A link from a vertex to itself means nothing. */
struct tt_graph {
	uint32_t n, total, unit;
	uint32_t *cap; /* total x total: cap[from * total + to], 0: no link */
};
tuttiResult_t tt_graph_new(uint32_t n, uint32_t nswitches, uint32_t unit, struct tt_graph **out);
void tt_graph_free(struct tt_graph *g);
/* Adds capacity in one direction, in both. What is without limit stays so. */
void tt_graph_arc(struct tt_graph *g, uint32_t from, uint32_t to, uint32_t cap);
void tt_graph_link(struct tt_graph *g, uint32_t a, uint32_t b, uint32_t cap);
static inline uint32_t tt_graph_cap(const struct tt_graph *g, uint32_t from, uint32_t to)
{
	return g->cap[(size_t)from * g->total + to];
}

uint64_t tt_gcd(uint64_t a, uint64_t b);
struct tt_frac {
	uint64_t num, den; /* in lowest terms; den 0: without limit */
};
struct tt_frac tt_frac(uint64_t num, uint64_t den);
int tt_frac_cmp(struct tt_frac a, struct tt_frac b); /* -1, 0, 1 */
double tt_frac_value(struct tt_frac f);              /* for people */

/* ---- bounds (topo_cut.c), by maximum flow ---- */

/* The cut bound of allgather and reduce-scatter in ring equivalents: the least over sets S of ends (switches on
 * either side), neither empty nor all, of (n-1) out(S) / |S| and the same with in(S). One whole ring is 1. */
tuttiResult_t tt_cut_bound(const struct tt_graph *g, struct tt_frac *bound);
/* Broadcast from one end: the least cut between it and another, in link units. Of a reduction to it where all links
 * go both ways. */
tuttiResult_t tt_cut_root(const struct tt_graph *g, uint32_t root, struct tt_frac *bound);
/* What allreduce by trees can reach, summed up towards a root and sent back over links that go both ways: the least
 * over k > 1 disjoint sets of ends of all capacity into them / (k-1), times (n-1)/n: in ring equivalents. */
tuttiResult_t tt_cut_trees(const struct tt_graph *g, struct tt_frac *bound);

/* ---- rings (topo_rings.c): edge-disjoint directed Hamiltonian cycles, switches passed through ---- */
struct tt_rings {
	uint32_t n, count, den; /* count: different ones */
	uint32_t *order;        /* count x n ends */
	uint32_t *weight;       /* of each in 1/den rings; whole rings have den 1 */
	struct tt_frac total;   /* rings in all */
	bool best;              /* proved that there are no more */
};
/* The most whole rings; where `fractional`, rings of any rate where these make more (half-rate ones if they do). */
tuttiResult_t tt_rings_find(const struct tt_graph *g, bool fractional, struct tt_rings **out);
void tt_rings_free(struct tt_rings *r);

/* ---- trees (topo_trees.c): spanning arborescences that together respect the capacities ---- */
struct tt_trees {
	uint32_t n, count, den;
	uint32_t *root;       /* count */
	uint32_t *parent;     /* count x n: the root is its own parent */
	uint32_t *weight;     /* in 1/den link units */
	struct tt_frac total; /* link units in all */
};
enum { TT_ROOT_ANY = -1, TT_ROOT_EACH = -2 };
/* From one root as many as the least cut allows (broadcast; turned round, reduce). TT_ROOT_ANY: roots wherever
 * they make the most, for allreduce: up, then down, over links that go both ways; in graphs of more than 16 ends whole
 * units alone. TT_ROOT_EACH: equally many from each end, up to the cut bound of allgather. In a graph too large to
 * finish within the steps, trees are missing, which `total` tells. */
tuttiResult_t tt_trees_find(const struct tt_graph *g, int root, struct tt_trees **out);
struct tt_frac tt_trees_rings(const struct tt_trees *t); /* total in ring equivalents of allreduce: x (n-1)/n */
void tt_trees_free(struct tt_trees *t);

#endif
