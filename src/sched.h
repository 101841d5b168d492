/* Floor 2: a collective is a schedule, and a schedule is data. An algorithm fills the steps of one
 * rank; the checker proves them, the planner prices them, the executor runs them, the printer shows
 * them. Nothing here knows bytes, pointers or sockets.
 *
 * Chunks. The data of a collective is `nblocks` blocks of equal count (1 for allreduce, broadcast and
 * reduce; one per rank for allgather and reduce-scatter), each cut into `per_block` chunks by weight.
 * Chunks are numbered through: block b holds chunks b*per_block .. b*per_block+per_block-1. A buffer
 * holds a contiguous range of chunks: IN and OUT as the collective says, temporaries as declared.
 * A reference names `n` chunks from `chunk` on in one buffer; they are contiguous in memory. In more
 * than one window only references inside one block are: a schedule with others is `one_window`. */
#ifndef TT_SCHED_H
#define TT_SCHED_H

#include "base.h"

enum tt_coll {
	TT_ALLREDUCE, TT_ALLGATHER, TT_REDUCESCATTER, TT_BROADCAST, TT_REDUCE, TT_BARRIER,
	TT_SENDRECV, TT_NCOLLS
};
const char *tt_coll_name(enum tt_coll c); /* AllReduce ... as in messages */

enum { TT_MAX_LANES = 33 }; /* of a schedule that is to run */
enum { TT_IN = 0, TT_OUT = 1, TT_TMP = 2 }; /* buffer ids; temporaries are TT_TMP, TT_TMP + 1 ... */

struct tt_ref {
	uint32_t buf, chunk, n;
};

enum tt_step_op { TT_SEND, TT_RECV, TT_COPY, TT_REDUCE_STEP };

struct tt_step {
	uint8_t op;   /* enum tt_step_op */
	uint8_t lane; /* SEND, RECV: which link to the peer; COPY, REDUCE: the lane they belong to */
	uint16_t skew; /* its place among windows: turn = window + skew; of a message equal on both ends */
	uint32_t peer;
	struct tt_ref dst;      /* RECV, COPY, REDUCE */
	uint32_t src, nsrc;     /* into refs: SEND and COPY one, REDUCE two or more, in order */
	uint32_t dep, ndeps;    /* into deps: earlier steps that must be done in the same window */
};

struct tt_buf {
	uint32_t first, n; /* the chunks it holds */
};

struct tt_sched {
	enum tt_coll coll;
	const char *algo;
	int rank, nranks, root;
	uint32_t nblocks, per_block, nlanes, nbufs, nsteps, nrefs, ndeps;
	bool one_window;  /* has references across blocks */
	bool ordered;     /* only rank-ordered reductions: fit for operators that do not commute */
	bool block_runnable; /* no dependency crosses lanes: each lane may run as one program */
	uint64_t widest;         /* weight of a message that some rank has, 0: no more than each rank's own */
	const uint32_t *weights; /* per chunk of a block, NULL: equal */
	struct tt_buf *bufs;
	struct tt_step *steps;
	struct tt_ref *refs;
	uint32_t *deps;
};

/* What an algorithm may know of the machine. The trivial shape is rank order, equal weights, one group. */
struct tt_shape {
	uint32_t nlanes;          /* parallel links to use, at least 1 */
	const uint32_t *order;    /* nlanes x nranks ranks, a permutation a lane, NULL: 0 .. p-1 */
	const uint32_t *parent;   /* nlanes x nranks: parents in a lane's tree, the root its own, NULL: a heap */
	const uint32_t *weights;  /* nlanes: share of each lane, NULL: equal */
	const uint32_t *group;    /* nranks: group of each rank, NULL: one group */
	const uint32_t *rate;     /* nranks: what each rank's way out of its group carries, NULL: equal */
	uint32_t param;           /* algorithm's own: radix of k-nomial, chunks of a pipeline; 0: default */
};

/* The rank at a position of a lane's order, and the position of a rank. */
static inline int tt_shape_rank(const struct tt_shape *s, uint32_t lane, int nranks, int pos)
{
	return s->order ? (int)s->order[(size_t)lane * nranks + pos] : pos;
}
int tt_shape_pos(const struct tt_shape *s, uint32_t lane, int nranks, int rank);
void tt_shape_free(struct tt_shape *s); /* the arrays of one that owns them; it is trivial then */
/* The parents and depths of a lane's tree, turned to `root` where that is not negative; returns the greatest depth. */
uint32_t tt_shape_tree(const struct tt_shape *s, uint32_t lane, int nranks, int root, uint32_t *up, uint32_t *depth);

/* ---- building (sched.c). The first error sticks and tt_sched_end reports it. Dependencies (read after
 * write, write after read, write after write) are derived, always as if IN and OUT were one buffer. */
struct tt_builder;
tuttiResult_t tt_sched_begin(struct tt_builder **b, enum tt_coll coll, const char *algo, int rank,
			     int nranks, int root, uint32_t per_block, uint32_t nlanes);
void tt_sched_weights(struct tt_builder *b, const uint32_t *weights); /* per_block of them, copied */
uint32_t tt_sched_tmp(struct tt_builder *b, uint32_t first, uint32_t n); /* new temporary's id */
void tt_sched_ordered(struct tt_builder *b);
/* Chunks in lane-major order, each of the shape's lanes cut into `cuts` equal ones. */
void tt_sched_lane_weights(struct tt_builder *b, const struct tt_shape *shape, uint32_t cuts);
/* A reference as large as the largest message of any rank, where ranks differ: windows are cut by it. */
void tt_sched_message(struct tt_builder *b, struct tt_ref largest);
void tt_send(struct tt_builder *b, uint32_t lane, uint32_t skew, int peer, struct tt_ref src);
void tt_recv(struct tt_builder *b, uint32_t lane, uint32_t skew, int peer, struct tt_ref dst);
void tt_copy(struct tt_builder *b, struct tt_ref dst, struct tt_ref src);
void tt_reduce(struct tt_builder *b, struct tt_ref dst, struct tt_ref a, struct tt_ref c); /* a op c */
void tt_reducev(struct tt_builder *b, struct tt_ref dst, const struct tt_ref *src, uint32_t nsrc);
/* Hands the finished schedule over (free with tt_sched_free) and frees the builder, on error as well. */
tuttiResult_t tt_sched_end(struct tt_builder *b, struct tt_sched **out);
void tt_sched_free(struct tt_sched *s);
uint64_t tt_sched_widest(const struct tt_sched *s); /* weight of the largest message: of all ranks alike, at least 1 */
/* For what comes from outside: the step just added waits for an earlier one as well; what there is so far, and what
 * is wrong with it, or NULL; the end without a word in the log, and the step that an error is about. */
void tt_sched_after(struct tt_builder *b, uint32_t step);
const struct tt_sched *tt_sched_so_far(const struct tt_builder *b, const char **error);
tuttiResult_t tt_sched_try(struct tt_builder *b, struct tt_sched **out, uint32_t *step);
void tt_sched_drop(struct tt_builder *b);
struct tt_sched *tt_sched_copy(const struct tt_sched *s); /* NULL: no memory */
static inline struct tt_ref tt_ref(uint32_t buf, uint32_t chunk, uint32_t n)
{
	return (struct tt_ref){ buf, chunk, n };
}

static inline bool tt_ref_same(const struct tt_ref *a, const struct tt_ref *b)
{
	return a->buf == b->buf && a->chunk == b->chunk && a->n == b->n;
}

static inline bool tt_ref_overlap(const struct tt_ref *a, const struct tt_ref *b)
{
	return a->buf == b->buf && a->chunk < b->chunk + b->n && b->chunk < a->chunk + a->n;
}

/* ---- where the bytes are: the one partition function. Elements of the first of window `w` of `nw`. ----
 * A block of `count` elements is cut into nw windows, a window into per_block chunks by weight; offset is
 * that of chunk c (0 .. nblocks*per_block) from the start of chunk 0 of the whole data. */
struct tt_part {
	size_t count;      /* elements of a block */
	size_t window;     /* elements of a block in a window; the last may hold fewer */
	uint32_t nwindows;
	uint32_t per_block;
	const uint32_t *weights;
	size_t align;      /* elements: chunk borders are multiples of it where chunks are long enough */
};
size_t tt_part_offset(const struct tt_part *p, uint32_t w, uint32_t chunk);
size_t tt_part_len(const struct tt_part *p, uint32_t w, uint32_t chunk, uint32_t n);

/* ---- the algorithms (algo_*.c), one row each ---- */
struct tt_algo {
	const char *name;
	unsigned colls;     /* bit 1 << enum tt_coll */
	bool ordered;       /* can serve operators that do not commute */
	tuttiResult_t (*build)(enum tt_coll coll, int rank, int nranks, int root,
			       const struct tt_shape *shape, struct tt_sched **out);
};
tuttiResult_t tt_build_ring(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			    struct tt_sched **out);
tuttiResult_t tt_build_direct(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			      struct tt_sched **out);
tuttiResult_t tt_build_direct1(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			       struct tt_sched **out);
tuttiResult_t tt_build_dbtree(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			      struct tt_sched **out);
tuttiResult_t tt_build_recdouble(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
				 struct tt_sched **out);
tuttiResult_t tt_build_circulant(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
				 struct tt_sched **out);
tuttiResult_t tt_build_knomial(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			       struct tt_sched **out);
tuttiResult_t tt_build_chain(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			     struct tt_sched **out);
tuttiResult_t tt_build_tree(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			    struct tt_sched **out);
tuttiResult_t tt_build_hier(enum tt_coll, int rank, int nranks, int root, const struct tt_shape *,
			    struct tt_sched **out);
tuttiResult_t tt_build_dissemination(enum tt_coll, int rank, int nranks, int root,
				     const struct tt_shape *, struct tt_sched **out);
extern const struct tt_algo tt_algos[];
extern const int tt_nalgos;
const struct tt_algo *tt_algo_find(const char *name, enum tt_coll coll);

/* ---- the checker (sched_check.c) ---- */
struct tt_blame {
	int rank;
	uint32_t step; /* UINT32_MAX: none in particular */
	bool result;   /* it is right, but what it wrote into the output last is not what was promised */
};
struct tt_check {
	uint32_t windows;   /* windows to run together: 1, 3 */
	uint32_t depth;     /* messages a link holds before its receive is posted: 0 is a rendezvous */
	bool aliased;       /* IN and OUT are one buffer, as in place */
	bool sequential;    /* each lane is one program in step order */
	bool queued;        /* a rank is one program in the order of (turn, step): a device's queue */
	uint64_t seed;      /* of the order in which ready steps run; 0: round robin */
	struct tt_blame *fault; /* told what the reason is about, unless NULL */
};
/* Runs the schedules of all ranks together, symbolically: no deadlock, every message matched with an equal
 * one at the other end, every output chunk holds exactly the promised contributions, each once, in the same
 * expression on all ranks (in rank order where `ordered`). Mismatch with the reason in tt_last_error. */
tuttiResult_t tt_sched_check(struct tt_sched *const *ranks, int nranks, const struct tt_check *how);

/* ---- the printer (sched_print.c): one line a step; returns the length as snprintf ---- */
int tt_sched_print(const struct tt_sched *s, char *out, size_t size);

#endif
