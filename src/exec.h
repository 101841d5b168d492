/* Floor 3: runs schedules. A *program* is a schedule bound to links, built once and kept; a *run* is one
 * operation on it: buffers, count and state. A run is driven by tt_run_pass from whichever thread owns it. */
#ifndef TT_EXEC_H
#define TT_EXEC_H

#include "net.h"
#include "sched.h"

#define TT_POSTS 8 /* posts outstanding in one direction of a link */

struct tt_prog;
/* Opens (or finds) the link to a peer on a lane; called when a program is bound. */
typedef tuttiResult_t (*tt_link_fn)(void *ctx, int peer, uint32_t lane, struct tt_link **link);
/* Takes over `s`. `depth`: windows in flight. On error s is freed. */
tuttiResult_t tt_prog_new(struct tt_sched *s, uint32_t depth, tt_link_fn link, void *ctx,
			  struct tt_prog **out);
void tt_prog_free(struct tt_prog *p);
const struct tt_sched *tt_prog_sched(const struct tt_prog *p);

struct tt_call { /* what a run works on */
	const void *in;
	void *out;
	size_t count; /* of a block */
	tuttiDataType_t type;
	struct tt_op op;
	uint64_t sig;
	uint32_t seq;
	size_t window_bytes; /* largest message */
};

enum tt_run_state { TT_RUN_GOING, TT_RUN_DONE, TT_RUN_FAILED };

/* Starts a run; a program has one at a time. tmp: at least tt_run_tmp bytes, 64-byte aligned. */
size_t tt_run_tmp(struct tt_prog *p, const struct tt_call *call);
void tt_run_begin(struct tt_prog *p, const struct tt_call *call, void *tmp);
/* One pass over what can move; *moved counts what did. Never blocks. */
enum tt_run_state tt_run_pass(struct tt_prog *p, int *moved);

/* Why a run failed: the link, and whether it was the note of a message that differed. */
struct tt_run_fault {
	struct tt_link *link;
	bool differs;
	struct tt_note theirs;
	const char *why;
};
const struct tt_run_fault *tt_run_fault(const struct tt_prog *p);
bool tt_run_began(const struct tt_prog *p); /* a message of this run has arrived */
int tt_run_waits(const struct tt_prog *p, int *ranks, int max); /* peers whose messages are due */
int tt_prog_eps(const struct tt_prog *p, struct tt_ep **eps, int max);

#endif
