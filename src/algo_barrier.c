/* SPDX-License-Identifier: Apache-2.0
 * Dissemination barrier: in round k rank r tells r + 2^k of all it heard, and hears from r -
 * 2^k. Messages are empty (the count is 0); the chunks of a temporary stand for what was heard,
 * one a round, so that every message waits for all received before it. */
#include "sched.h"

tuttiResult_t tt_build_dissemination(enum tt_coll coll, int rank, int nranks, int root,
				     const struct tt_shape *shape, struct tt_sched **out)
{
	uint32_t rounds = 0, heard;
	struct tt_builder *b;

	while ((int64_t)1 << rounds < nranks)
		rounds++;
	TRY(tt_sched_begin(&b, coll, "dissemination", rank, nranks, root, rounds ? rounds : 1, 1));
	tt_sched_ordered(b);
	heard = tt_sched_tmp(b, 0, rounds);
	for (uint32_t k = 0; k < rounds; k++) {
		int far = 1 << k;

		tt_send(b, 0, k, (rank + far) % nranks, tt_ref(heard, 0, k));
		tt_recv(b, 0, k, (rank + nranks - far) % nranks, tt_ref(heard, k, 1));
	}
	return tt_sched_end(b, out);
}
