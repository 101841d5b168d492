/* Floor 3, between exec.c, exec_bind.c and exec_queue.c alone: what a program is made of. */
#ifndef TT_EXEC_PROG_H
#define TT_EXEC_PROG_H

#include "exec.h"

#define TT_PROG_EPS 4
#define TT_NONE UINT32_MAX

struct xref { /* a reference, and where it is when a run has one window */
	struct tt_ref r;
	size_t at, n; /* bytes into its buffer; elements */
};

struct xstep {
	uint8_t op;
	bool received_first; /* fused: received op x */
	uint16_t skew;
	uint32_t fused;      /* RECV: the reduce that it can do on the way, or TT_NONE */
	uint32_t ndeps;
	const uint32_t *deps;
	uint32_t nsrc;
	struct xref dst;
	const struct xref *src, *x;
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
	uint32_t *order; /* of the steps in a run of one window */
	uint32_t batch, time, at; /* cursor; batch: first window of the batch */
	uint32_t step, window;    /* the message at the head; step TT_NONE: none left */
	uint32_t pos;             /* its number on this direction */
	uint32_t head, tail;      /* posts */
	struct post posts[TT_POSTS];
};

struct tt_prog {
	struct tt_sched *s;
	struct xstep *x;
	struct xref *refs; /* those of s */
	uint32_t *done;    /* windows done, per step; claimed and finished follow it */
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
	size_t elem, window_bytes, tmp_size, tmp_stride, *tmp_at; /* with part: kept while calls are alike */
	char *tmp;
	uint32_t base, *finished; /* windows finished; steps finished per window in flight */
	bool began, look; /* look: poll in the next pass, as posts are outstanding or nothing moved */
	struct tt_run_fault fault;
};

/* To the first message of the run, as none has moved (exec.c). */
void tt_run_rewind(struct tt_prog *p, struct xdir *d);
/* Where the bytes are, for the run that tt_run_begin or tt_run_tmp has set up (exec_bind.c). */
size_t tt_prog_offset(const struct tt_prog *p, const struct tt_ref *r, uint32_t w); /* bytes into the buffer */

static inline char *tt_prog_address(const struct tt_prog *p, const struct xref *r, uint32_t w)
{
	char *base = r->r.buf == TT_IN ? (char *)p->call.in : r->r.buf == TT_OUT ? p->call.out : p->tmp;

	return base + (p->part.nwindows == 1 ? r->at : tt_prog_offset(p, &r->r, w));
}

static inline size_t tt_prog_length(const struct tt_prog *p, const struct xref *r, uint32_t w) /* elements */
{
	return p->part.nwindows == 1 || !r->r.n ? r->n : tt_part_len(&p->part, w, r->r.chunk, r->r.n);
}

#endif
