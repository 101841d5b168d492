/* Calls on a stream that is captured into a graph. What a replay does must not need the host: so one kernel for all
 * ranks (task_meet.c), on streams of one capture, and nothing else. The words where a call is no such.
 * SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <stdio.h>

tuttiResult_t tt_capture_check(const char *call, const struct tt_task *t)
{
	const struct tuttiComm *c = t->comm;
	char why[96] = "";

	if (!t->at.capture)
		return tuttiSuccess;
	if (t->coll == TT_SENDRECV && t->root != c->rank)
		snprintf(why, sizeof(why), "messages need the host");
	else if (c->nprocs > 1)
		snprintf(why, sizeof(why), "the ranks are %d processes", c->nprocs);
	else if (!c->meet && c->nranks > TT_PIECE_RANKS)
		snprintf(why, sizeof(why), "there are %d ranks, more than %d", c->nranks, TT_PIECE_RANKS);
	else if (!c->meet)
		snprintf(why, sizeof(why), "TUTTI_ONE_KERNEL=0 turns one kernel for all ranks off");
	return *why ? tt_fail(tuttiInvalidUsage, "%s: the stream is being captured into a graph, which takes " TT_GRAPHS
			      ": %s; the communicator stays as it was", call, why) : tuttiSuccess;
}

tuttiResult_t tt_capture_refuse(const struct tt_task *t, const char *why)
{
	char what[128];

	tt_sig_print(&t->sig, what, sizeof(what));
	return tt_fail(tuttiInvalidUsage, "%s on rank %d cannot be captured into a graph, which takes " TT_GRAPHS
		       ": %s; the communicator stays usable", what, t->comm->rank, why);
}
