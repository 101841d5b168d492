/* Floor 3, between exec.c, exec_bind.c and exec_queue.c alone: what a program is made of. */
#ifndef TT_EXEC_PROG_H
#define TT_EXEC_PROG_H

#include "exec.h"

#define TT_PROG_EPS 4
#define TT_NONE UINT32_MAX

struct xstep {
	uint8_t op;
	bool received_first; /* fused: received op x */
	uint16_t skew;
	uint32_t fused;      /* RECV: the reduce that it can do on the way, or TT_NONE */
	uint32_t ndeps;
	const uint32_t *deps;
	struct tt_ref dst, x;
	const struct tt_ref *src;
	uint32_t nsrc;
};

struct post { /* an outstanding send or receive */
	struct tt_req req;
	struct tt_combine combine;
	uint32_t step, window, pos;
	bool fused;
};

/* One direction of a link: its steps, the next message to issue, and what is outstanding. */
struct xdir {
	struct tt_link *link;
	uint8_t ep;     /* index into eps */
	bool is_send;
	uint32_t n, *steps, max_skew;
	uint32_t batch, time, at; /* cursor; batch: first window of the batch */
	uint32_t step, window;    /* the message at the head; step TT_NONE: none left */
	uint32_t pos;             /* its number on this direction */
	uint32_t head, tail;      /* posts */
	struct post posts[TT_POSTS];
};

struct tt_prog {
	struct tt_sched *s;
	struct xstep *x;
	uint32_t *done;    /* windows done, per step */
	uint32_t *claimed; /* reduces: windows done or under way in a receive */
	uint32_t nlocal, *local;
	struct xdir *dirs;
	uint32_t ndirs, depth;
	struct tt_ep *eps[TT_PROG_EPS];
	int neps;
	const void **srcs;
	/* the run */
	struct tt_call call;
	struct tt_part part;
	size_t elem, tmp_stride, *tmp_at;
	char *tmp;
	uint32_t base, *finished; /* windows finished; steps finished per window in flight */
	bool began;
	struct tt_run_fault fault;
};

/* Where the bytes are, for the run that tt_run_begin or tt_run_tmp has set up (exec_bind.c). */
char *tt_prog_address(const struct tt_prog *p, const struct tt_ref *r, uint32_t w);
size_t tt_prog_length(const struct tt_prog *p, const struct tt_ref *r, uint32_t w); /* elements */

#endif
