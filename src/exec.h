/* Floor 3: runs schedules. A *program* is a schedule bound to links, built once and kept; a *run* is one
 * operation on it: buffers, count and state. A run is driven by tt_run_pass from whichever thread owns it. */
#ifndef TT_EXEC_H
#define TT_EXEC_H

#include "mem.h"
#include "net.h"
#include "peer.h"
#include "sched.h"

#define TT_POSTS 8 /* posts outstanding in one direction of a link */

struct tt_prog;
/* Opens (or finds) the link to a peer on a lane; called when a program is bound. */
typedef tuttiResult_t (*tt_link_fn)(void *ctx, int peer, uint32_t lane, struct tt_link **link);
/* Takes over `s`. `depth`: windows in flight. On error s is freed. */
tuttiResult_t tt_prog_new(struct tt_sched *s, uint32_t depth, tt_link_fn link, void *ctx,
			  struct tt_prog **out);
void tt_prog_free(struct tt_prog *p);
/* The link has another endpoint, after it failed before anything moved on it: its messages of the run, if one is
 * under way, go anew. */
void tt_prog_rebind(struct tt_prog *p, const struct tt_link *link);
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
	struct tt_qrun *queue; /* the network part alone, of what is on a device's queue; NULL: all of it */
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

/* ---- on the queue of a device (exec_queue.c): one call as its queue and the network share it ---- */
struct tt_qprog;
/* Takes over `s`, on error as well. */
tuttiResult_t tt_qprog_new(struct tt_sched *s, uint32_t depth, struct tt_qprog **out);
void tt_qprog_free(struct tt_qprog *p);
const struct tt_sched *tt_qprog_sched(const struct tt_qprog *p);
struct tt_qrun_needs {
	size_t scratch;                     /* bytes of device memory beside the temporaries */
	size_t in_bytes, out_bytes;         /* pinned copies of the buffers: tt_qrun_in and tt_qrun_out */
	struct tt_peers *peers;             /* device links, or NULL */
	bool driven;                        /* by blocks of all devices: nothing but begin and end is enqueued here */
};
/* Takes a run of the pool that is over, or a new one; its memory is kept for the next. Hosted: the whole input is
 * copied to the host and the result back, and the caller runs an ordinary program on tt_qrun_in and tt_qrun_out in
 * between (what the device cannot do itself). */
tuttiResult_t tt_qrun_open(struct tt_qrun **pool, const struct tt_mem_kind *kind, const struct tt_mem_place *at,
			   struct tt_qprog *prog, const struct tt_call *call, const struct tt_qrun_needs *needs,
			   struct tt_qrun **out);
tuttiResult_t tt_qrun_open_hosted(struct tt_qrun **pool, const struct tt_mem_kind *kind, const struct tt_mem_place *at,
				  size_t in_bytes, size_t out_bytes, struct tt_qrun **out);
/* Nothing that is enqueued after `await` runs before the host has called `feed`. */
tuttiResult_t tt_qrun_enqueue_await(struct tt_qrun *q, tuttiStream_t queue);
void tt_qrun_feed(struct tt_qrun *q);
void tt_qrun_cancel(struct tt_qrun *q); /* nothing of it was enqueued */
/* Waits so long in all for queues to end; false: some have not, and what they still reach stays. */
bool tt_qrun_free_all(struct tt_qrun **pool, int ms);
bool tt_qrun_any(const struct tt_qrun *pool, const void *line); /* one on that queue has not ended */
void *tt_qrun_scratch(const struct tt_qrun *q);
const void *tt_qrun_in(const struct tt_qrun *q);
void *tt_qrun_out(const struct tt_qrun *q);
/* On the calling thread: begin, then bind and the batches of windows in order, then end. */
tuttiResult_t tt_qrun_enqueue_begin(struct tt_qrun *q, tuttiStream_t queue);
void tt_qrun_bind(struct tt_qrun *q, const struct tt_call *call);
uint32_t tt_qrun_batches(const struct tt_qrun *q);
tuttiResult_t tt_qrun_enqueue(struct tt_qrun *q, tuttiStream_t queue, uint32_t batch);
tuttiResult_t tt_qrun_enqueue_end(struct tt_qrun *q, tuttiStream_t queue);
void *tt_qrun_scalar(const struct tt_qrun *q); /* room for an element, beside a hosted run's in and out */
tuttiResult_t tt_qrun_hosted_begin(struct tt_qrun *q, tuttiStream_t queue, const void *in);
tuttiResult_t tt_qrun_hosted_end(struct tt_qrun *q, tuttiStream_t queue, void *out);
/* On whichever thread drives the network. */
bool tt_qrun_begun(const struct tt_qrun *q); /* the queue has come to it */
bool tt_qrun_ended(const struct tt_qrun *q);
bool tt_qrun_due(const struct tt_qrun *q, uint32_t dir, bool is_send, uint32_t pos); /* its slot is ready */
void *tt_qrun_slot(const struct tt_qrun *q, uint32_t dir, uint32_t pos, size_t n); /* of a message of n bytes */
/* What the next call by this schedule may go by: the endpoint's NICs may read and write the device's memory. */
bool tt_qrun_asks(const struct tt_qrun *q, uint32_t dir);
void tt_qrun_told(struct tt_qrun *q, uint32_t dir, struct tt_ep *ep);
void tt_qrun_moved(struct tt_qrun *q, uint32_t dir);
/* Device links: a direction that has nothing to do with the network; whether it waits for its other end; whether
 * anything of this run has come by one; whether anything has moved since the last look; whether another rank has
 * failed, so that what ends or comes now may be of no worth. */
bool tt_qrun_direct(const struct tt_qrun *q, uint32_t dir);
bool tt_qrun_starved(const struct tt_qrun *q, uint32_t dir, uint32_t seq);
bool tt_qrun_fed(const struct tt_qrun *q, uint32_t seq);
bool tt_qrun_stirred(struct tt_qrun *q);
bool tt_qrun_tainted(const struct tt_qrun *q);
/* The network's part is over; `failed`: lets the queue run to its end over whatever is there. */
void tt_qrun_close(struct tt_qrun *q, bool failed);

#endif
