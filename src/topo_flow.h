/* Maximum flow, and what the searches share: floor 1, for topo_*.c alone. */
#ifndef TT_TOPO_FLOW_H
#define TT_TOPO_FLOW_H

#include "topo_search.h"

/* ---- flow (topo_flow.c): Dinic's algorithm over whole numbers ---- */
struct tt_flow;
struct tt_flow *tt_flow_new(uint32_t nverts, uint32_t narcs); /* the most arcs; NULL: no memory */
void tt_flow_free(struct tt_flow *f);
uint32_t tt_flow_arc(struct tt_flow *f, uint32_t u, uint32_t v, int64_t cap, int64_t back);
void tt_flow_set(struct tt_flow *f, uint32_t arc, int64_t cap, int64_t back);
/* The flow from s to t with all arcs empty at first; stops looking at `most`. */
int64_t tt_flow_max(struct tt_flow *f, uint32_t s, uint32_t t, int64_t most);
int64_t tt_flow_used(const struct tt_flow *f, uint32_t arc); /* by the flow just found */
bool tt_flow_before(const struct tt_flow *f, uint32_t v); /* on the source's side of the cut just found */

/* ---- a graph as the searches see it (topo_cut.c): known capacities alone, in long integers ---- */
struct tt_arcs {
	uint32_t n, total;
	int64_t *cap; /* total x total */
	int64_t wide; /* what stands for no limit: more than any ratio of known capacities */
	struct tt_frac bound; /* what was measured before switches were joined; den 0: there were none */
};
enum tt_arcs_how { TT_ARCS_OUT, TT_ARCS_IN, TT_ARCS_BOTH }; /* as they are, turned round, the lesser of the two */
tuttiResult_t tt_arcs_of(const struct tt_graph *g, enum tt_arcs_how how, struct tt_arcs *out);
void tt_arcs_free(struct tt_arcs *a);
static inline int64_t tt_arcs_cap(const struct tt_arcs *a, uint32_t from, uint32_t to)
{
	return a->cap[(size_t)from * a->total + to];
}
/* A flow network of the graph with `extra` vertices and `more` arcs to spare, capacities times `scale`. */
tuttiResult_t tt_arcs_flow(const struct tt_arcs *a, uint32_t extra, uint32_t more, int64_t scale,
			   struct tt_flow **out);

/* What a graph is worth. Some look from a root, others leave it aside. */
typedef tuttiResult_t (*tt_measure)(const struct tt_arcs *a, uint32_t root, struct tt_frac *out);
/* Least out(S) / |S| over sets of ends, neither empty nor all. */
tuttiResult_t tt_cut_ratio(const struct tt_arcs *a, uint32_t root, struct tt_frac *ratio);
/* The least cut between the root and another end, in link units. */
tuttiResult_t tt_cut_from(const struct tt_arcs *a, uint32_t root, struct tt_frac *least);
/* The least cut between any two ends. */
tuttiResult_t tt_cut_least(const struct tt_arcs *a, uint32_t root, struct tt_frac *least);
/* The most that trees with free roots carry, in link units; den 0: no limit. */
tuttiResult_t tt_cut_roots(const struct tt_arcs *a, uint32_t root, struct tt_frac *most);
/* How much to root at each end so that trees for k units (in 1/den) may be packed: as much as can be at the first
 * ends of `order`. The sum is k where these can. */
tuttiResult_t tt_cut_place(const struct tt_arcs *a, struct tt_frac k, const uint32_t *order, int64_t *roots);

/* ---- the ends alone (topo_split.c): links of no limit as wide as is of use, switches gone, their ways in joined
 * to their ways out such that what is measured stays. Capacities are times `scale`: not 1 where parts of units
 * had to be told apart, unless only whole ones will do. ---- */
tuttiResult_t tt_arcs_direct(const struct tt_graph *g, enum tt_arcs_how how, bool whole, tt_measure measure,
			     uint32_t root, struct tt_arcs *out, int64_t *scale);

#endif
