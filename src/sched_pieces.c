/* Collectives as pieces: who reads what of whom, and who writes it. What may overlap, and that each piece is as the
 * collective promises, is proved by tests/unit/pieces.c. SPDX-License-Identifier: Apache-2.0 */
#include "sched_pieces.h"

int tt_pieces(enum tt_coll coll, int nranks, int root, size_t count, struct tt_piece *out)
{
	bool by_block = coll == TT_ALLGATHER || coll == TT_REDUCESCATTER;
	int n = !count || coll == TT_BARRIER ? 0 : by_block ? nranks : 1;

	for (int b = 0; b < n; b++) {
		struct tt_piece p = { .n = count, .nsrc = (uint16_t)nranks, .ndst = (uint16_t)nranks };

		if (coll == TT_ALLGATHER || coll == TT_BROADCAST) {
			p.src = (uint16_t)(by_block ? b : root);
			p.nsrc = 1;
			p.dst_at = (size_t)b * count;
		}
		if (coll == TT_REDUCESCATTER || coll == TT_REDUCE) {
			p.dst = (uint16_t)(by_block ? b : root);
			p.ndst = 1;
			p.src_at = (size_t)b * count;
		}
		out[b] = p;
	}
	return n;
}
