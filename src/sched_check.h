/* What the checker is made of: symbolic values, and the proof of local order. */
#ifndef TT_SCHED_CHECK_H
#define TT_SCHED_CHECK_H

#include "sched.h"

/* ---- expressions (sched_expr.c): equal ones have equal ids; ids start at 1 ---- */
struct tt_exprs;
struct tt_exprs *tt_exprs_new(int nranks, uint32_t nchunks); /* NULL: no memory */
void tt_exprs_free(struct tt_exprs *e);
uint32_t tt_expr_leaf(const struct tt_exprs *e, int rank, uint32_t chunk);
uint32_t tt_expr_reduce(struct tt_exprs *e, const uint32_t *kids, uint32_t n); /* 0: no memory */
uint32_t tt_expr_ranks(const struct tt_exprs *e, uint32_t id); /* how many contribute */
/* NULL if every rank's `chunk` is in it exactly once (in rank order); else the end of a
 * sentence. */
const char *tt_expr_wrong(const struct tt_exprs *e, uint32_t id, uint32_t chunk, bool ordered);

/* ---- one schedule alone (sched_order.c): references in range, and conflicting steps ordered
 * ---- */
/* On an error *step is the one that is wrong, or UINT32_MAX. */
tuttiResult_t tt_sched_order(const struct tt_sched *s, bool aliased, uint32_t *step);

#endif
