/* How rings are searched for: floor 1, for topo_ring*.c alone. Graphs here are n x n capacities without switches. */
#ifndef TT_TOPO_RING_H
#define TT_TOPO_RING_H

#include "topo_search.h"

/* Hamiltonian cycles that start at vertex 0, each once, with how often it is taken. */
struct tt_cycles {
	uint32_t n, count, room;
	uint32_t *order; /* count x n */
	int64_t *weight;
};
bool tt_cycles_add(struct tt_cycles *c, const uint32_t *order, int64_t weight); /* false: no memory */
void tt_cycles_free(struct tt_cycles *c);
int64_t tt_cycles_sum(const struct tt_cycles *c);

/* ---- by exchange (topo_ring_swap.c): up to `rings` edge-disjoint cycles, what it finds within `steps`; false: no
 * memory ---- */
bool tt_ring_swap(uint32_t n, const int64_t *cap, uint32_t rings, int64_t steps, struct tt_cycles *out);

/* ---- exactly (topo_ring_lp.c): the linear program over all cycles, priced by dynamic programming over subsets.
 * Small graphs alone: false where it is too large, or takes too many steps or digits. */
enum { TT_RING_LP_MOST = 12 };
struct tt_ring_lp;
struct tt_ring_lp *tt_ring_lp_new(uint32_t n); /* NULL: too large, or no memory */
void tt_ring_lp_free(struct tt_ring_lp *lp);
bool tt_ring_lp_solve(struct tt_ring_lp *lp, const int64_t *cap);
struct tt_frac tt_ring_lp_value(const struct tt_ring_lp *lp);
/* Its solution: how much of each cycle, in 1/den. */
bool tt_ring_lp_cycles(const struct tt_ring_lp *lp, struct tt_cycles *out, int64_t *den);

/* ---- whole ones exactly (topo_ring_exact.c): whether there are `rings`, within `nodes` linear programs; `proved`: the
 * answer is certain ---- */
bool tt_ring_exact(struct tt_ring_lp *lp, uint32_t n, const int64_t *cap, int64_t rings, int64_t nodes,
		   struct tt_cycles *out, bool *proved);

#endif
