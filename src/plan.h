/* Floor 3: numbers choose, and one rank decides. The table says for each collective and size class which
 * algorithm runs, on how many lanes and in which windows; it is made on one rank and travels with init. */
#ifndef TT_PLAN_H
#define TT_PLAN_H

#include "sched.h"

#define TT_CLASSES 44 /* class c > 0: 2^(c-1) <= bytes of a block < 2^c */

struct tt_row {
	uint8_t algo;  /* index into tt_algos */
	uint8_t lanes;
	uint8_t depth; /* windows in flight */
	uint8_t param;
	uint32_t window; /* bytes of the largest message */
};

/* Whether programs of the one serve the other. */
static inline bool tt_row_same(const struct tt_row *a, const struct tt_row *b)
{
	return a->algo == b->algo && a->lanes == b->lanes && a->depth == b->depth && a->param == b->param;
}

struct tt_plan {
	uint32_t size, reserved;
	struct tt_row rows[2][TT_BARRIER + 1][TT_CLASSES]; /* [ordered] */
};

/* What the decision rests on; the worst path of the communicator. */
struct tt_facts {
	int nranks, per_host; /* most ranks on one host */
	int cores;            /* usable ones on the poorest host */
	double latency, bandwidth;
	bool same_memory;     /* all on one host: they share its bandwidth */
	char path[16];        /* transport, for people */
};

struct tt_candidate {
	const struct tt_algo *algo;
	struct tt_row row;
	double seconds;
	bool forced;
};

/* The candidates of one size, cheapest first; returns how many. */
int tt_plan_candidates(const struct tt_facts *f, enum tt_coll coll, size_t bytes, bool ordered,
		       struct tt_candidate *out, int max);
tuttiResult_t tt_plan_make(const struct tt_facts *f, struct tt_plan *plan);
const struct tt_row *tt_plan_row(const struct tt_plan *p, enum tt_coll coll, size_t bytes, bool ordered);
int tt_plan_class(size_t bytes);

#endif
