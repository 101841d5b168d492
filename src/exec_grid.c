/* Ranks on one device as one grid. Links keep their counts in memory of the device, from call to call; a program goes
 * there with its links and a binding, and stays while calls are alike. SPDX-License-Identifier: Apache-2.0 */
#include "exec_grid.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	SLOT = 128 * 1024 + TT_DEV_SLACK, SMALL = 4096, PACKETS = SMALL / 8,
	ENDS = 2 * sizeof(struct tt_dev_end), HEAD = ENDS + TT_DEV_SLOTS * PACKETS * 16, /* begins as zeros */
	PIPE = HEAD + TT_DEV_SLOTS * SLOT,
};

/* What one rank's blocks read: uploaded as a whole when another count or type comes and no earlier call reads it. */
struct paper {
	struct paper *next;
	struct tt_dev_code *code;
	size_t count, window_bytes, bytes, tmp_bytes;
	tuttiDataType_t type;
	char *device, *tmp;
	_Atomic uint32_t *done; /* pinned, before what is uploaded: calls that have ended */
	uint32_t calls;
	bool kept; /* a graph reads it, at any time */
};

struct tt_grid {
	const struct tt_mem_kind *kind;
	int n;
	_Atomic uint32_t *abort; /* pinned, before zeros for links */
	char **pipes;            /* [from][to][lane] */
	struct paper *papers[TT_DEV_RANKS];
};

enum { LINE = 64 };

/* ---- links ---- */

static char **pipe_at(const struct tt_grid *g, int from, int to, uint32_t lane)
{
	return &g->pipes[((size_t)from * (size_t)g->n + (size_t)to) * TT_MAX_LANES + lane];
}

/* What a graph is to find there is no part of it, or each replay would bring it back. */
static tuttiResult_t upload(struct tt_grid *g, tuttiStream_t queue, bool captured, void *dst, const void *src,
			    size_t n)
{
	if (!captured)
		return g->kind->copy(queue, dst, src, n);
	return g->kind->copy_now ? g->kind->copy_now(dst, src, n) :
				   tt_note_error(tuttiUnsupported, "%s memory has no copies beside a capture",
						 g->kind->name);
}

static tuttiResult_t open_pipe(struct tt_grid *g, tuttiStream_t queue, bool captured, char **at)
{
	tuttiResult_t r;
	void *p;

	if (*at)
		return tuttiSuccess;
	TRY(g->kind->alloc(PIPE, TT_MEM_OURS, &p));
	r = upload(g, queue, captured, p, (char *)g->abort + LINE, HEAD);
	if (r == tuttiSuccess)
		*at = p;
	else
		g->kind->release(p, PIPE, TT_MEM_OURS);
	return r;
}

static tuttiResult_t make_link(struct tt_grid *g, tuttiStream_t queue, bool captured, int rank,
			       const struct tt_dev_dir *d, struct tt_dev_link *out)
{
	int from = d->is_send ? rank : (int)d->peer, to = d->is_send ? (int)d->peer : rank;
	char **at = pipe_at(g, from, to, d->lane);
	struct tt_dev_end *ends;

	TRY(open_pipe(g, queue, captured, at));
	ends = (struct tt_dev_end *)*at;
	*out = (struct tt_dev_link){ .mine = ends + (d->is_send ? 0 : 1), .theirs = &ends[d->is_send ? 1 : 0].word,
				     .packets = (uint64_t *)(*at + ENDS), .slots = *at + HEAD };
	return tuttiSuccess;
}

/* ---- papers ---- */

static size_t aligned(size_t n)
{
	return (n + LINE - 1) & ~(size_t)(LINE - 1);
}

static bool is_done(const struct paper *p)
{
	return atomic_load_explicit(p->done, memory_order_acquire) == p->calls;
}

static bool is_for(const struct paper *p, const struct tt_dev_code *code, const struct tt_call *call)
{
	return p->code == code && p->count == call->count && p->type == call->type &&
	       p->window_bytes == call->window_bytes;
}

static size_t links_at(const struct tt_dev_code *c)
{
	return aligned(tt_dev_code_prog(c)->bytes);
}

static size_t bind_at(const struct tt_dev_code *c)
{
	return aligned(links_at(c) + tt_dev_code_prog(c)->nlinks * sizeof(struct tt_dev_link));
}

static void free_paper(struct tt_grid *g, struct paper *p)
{
	if (p->done)
		g->kind->release((void *)p->done, LINE + p->bytes, TT_MEM_PINNED);
	if (p->device)
		g->kind->release(p->device, p->bytes, TT_MEM_OURS);
	if (p->tmp)
		g->kind->release(p->tmp, p->tmp_bytes, TT_MEM_OURS);
	free(p);
}

static tuttiResult_t new_paper(struct tt_grid *g, struct tt_dev_code *code, struct paper **out)
{
	struct paper *p = calloc(1, sizeof(*p));
	void *pinned = NULL, *device = NULL;
	tuttiResult_t r;

	if (!p)
		return tt_fail(tuttiSystemError, "no memory for a program");
	p->code = code;
	p->bytes = bind_at(code) + tt_dev_bind_bytes(code);
	r = g->kind->alloc(LINE + p->bytes, TT_MEM_PINNED, &pinned);
	p->done = pinned;
	if (r == tuttiSuccess)
		r = g->kind->alloc(p->bytes, TT_MEM_OURS, &device);
	p->device = device;
	if (r != tuttiSuccess) {
		free_paper(g, p);
		return r;
	}
	atomic_store(p->done, 0);
	*out = p;
	return tuttiSuccess;
}

/* No call reads it: what is in pinned memory has been copied. */
static tuttiResult_t write_paper(struct tt_grid *g, tuttiStream_t queue, bool captured, int rank, struct paper *p,
				 const struct tt_call *call)
{
	const struct tt_dev_prog *prog = tt_dev_code_prog(p->code);
	const struct tt_dev_dir *dirs = tt_dev_code_dirs(p->code);
	char *to = (char *)p->done + LINE;
	void *tmp = NULL;
	size_t need = tt_dev_bind(p->code, call, SLOT, (struct tt_dev_bind *)(to + bind_at(p->code)));

	p->type = tuttiNumTypes; /* nobody's, should this fail */
	if (need > p->tmp_bytes) {
		TRY(g->kind->alloc(need, TT_MEM_OURS, &tmp));
		if (p->tmp)
			g->kind->release(p->tmp, p->tmp_bytes, TT_MEM_OURS);
		p->tmp = tmp;
		p->tmp_bytes = need;
	}
	memcpy(to, prog, prog->bytes);
	for (uint32_t i = 0; i < prog->nlinks; i++)
		TRY(make_link(g, queue, captured, rank, &dirs[i],
			      (struct tt_dev_link *)(to + links_at(p->code)) + i));
	TRY(upload(g, queue, captured, p->device, to, p->bytes));
	p->count = call->count;
	p->window_bytes = call->window_bytes;
	p->type = call->type;
	return tuttiSuccess;
}

static tuttiResult_t find_paper(struct tt_grid *g, tuttiStream_t queue, bool captured, int rank,
				struct tt_dev_code *code, const struct tt_call *call, struct paper **out)
{
	struct paper **list = &g->papers[rank], *p;

	for (p = *list; p && !is_for(p, code, call); p = p->next)
		;
	*out = p;
	if (p)
		return tuttiSuccess;
	for (p = *list; p && !(p->code == code && is_done(p) && !p->kept); p = p->next)
		;
	if (!p) {
		TRY(new_paper(g, code, &p));
		p->next = *list;
		*list = p;
	}
	*out = p;
	return write_paper(g, queue, captured, rank, p, call);
}

/* ---- calls ---- */

static tuttiResult_t check_fit(const struct tt_grid *g, struct tt_dev_code *const *codes, const struct tt_call *calls)
{
	if (!g->kind->grid)
		return tt_note_error(tuttiUnsupported, "%s memory has no blocks to run schedules", g->kind->name);
	for (int r = 0; r < g->n; r++)
		if (!tt_dev_fits(codes[r], &calls[r], SLOT))
			return tt_note_error(tuttiUnsupported, "messages of rank %d are larger than a slot of %d bytes",
					     r, SLOT);
	return tuttiSuccess;
}

tuttiResult_t tt_grid_run(struct tt_grid *g, tuttiStream_t queue, bool captured, struct tt_dev_code *const *codes,
			  const struct tt_call *calls)
{
	struct tt_dev_launch launch = { .abort = (const uint32_t *)g->abort, .slot_bytes = SLOT, .packets = PACKETS,
					.small = SMALL, .nranks = (uint32_t)g->n };
	uint32_t blocks = 0;
	struct paper *p;

	TRY(check_fit(g, codes, calls));
	launch.op = (uint32_t)(calls[0].op.kind <= tuttiMin ? calls[0].op.kind : tuttiSum);
	for (int r = 0; r < g->n; r++) {
		TRY(find_paper(g, queue, captured, r, codes[r], &calls[r], &p));
		p->kept |= captured;
		launch.ranks[r] = (struct tt_dev_rank){
			.prog = (void *)p->device, .links = (void *)(p->device + links_at(codes[r])),
			.bind = (void *)(p->device + bind_at(codes[r])), .in = calls[r].in, .out = calls[r].out,
			.tmp = p->tmp, .first = blocks };
		blocks += tt_dev_code_prog(codes[r])->nblocks;
	}
	if (blocks)
		TRY(g->kind->grid(queue, &launch, blocks));
	for (int r = 0; r < g->n && !captured; r++) {
		for (p = g->papers[r]; !is_for(p, codes[r], &calls[r]); p = p->next)
			;
		TRY(g->kind->stream_signal(queue, p->done, ++p->calls));
	}
	return tuttiSuccess;
}

void tt_grid_abort(struct tt_grid *g)
{
	atomic_store_explicit(g->abort, 1, memory_order_release);
}

tuttiResult_t tt_grid_new(const struct tt_mem_kind *kind, int nranks, struct tt_grid **out)
{
	struct tt_grid *g = calloc(1, sizeof(*g));
	void *pinned = NULL;
	tuttiResult_t r = tuttiSuccess;

	if (nranks > TT_DEV_RANKS) {
		free(g);
		return tt_note_error(tuttiUnsupported, "%d ranks on one device; a grid holds %d", nranks, TT_DEV_RANKS);
	}
	if (!g || !(g->pipes = calloc((size_t)nranks * (size_t)nranks * TT_MAX_LANES, sizeof(*g->pipes))))
		r = tt_fail(tuttiSystemError, "no memory for the links of %d ranks", nranks);
	if (r == tuttiSuccess)
		r = kind->alloc(LINE + HEAD, TT_MEM_PINNED, &pinned);
	if (r != tuttiSuccess) {
		if (g)
			free(g->pipes);
		free(g);
		return r;
	}
	memset(pinned, 0, LINE + HEAD);
	g->kind = kind;
	g->n = nranks;
	g->abort = pinned;
	*out = g;
	return tuttiSuccess;
}

static bool is_over(const struct tt_grid *g)
{
	for (int r = 0; r < g->n; r++)
		for (const struct paper *p = g->papers[r]; p; p = p->next)
			if (!is_done(p))
				return false;
	return true;
}

/* How far a replay is nobody knows, so one that was aborted may still be there. */
static bool is_replayed(const struct tt_grid *g)
{
	bool kept = false;

	for (int r = 0; r < g->n; r++)
		for (const struct paper *p = g->papers[r]; p; p = p->next)
			kept |= p->kept;
	return kept && atomic_load_explicit(g->abort, memory_order_relaxed);
}

void tt_grid_free(struct tt_grid *g)
{
	if (!g || is_replayed(g))
		return;
	for (int i = 0; i < 1000 && !is_over(g); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (!is_over(g)) { /* the device may still write there: better lost than used twice */
		tt_log(TT_LOG_WARN, "mem", "%s memory of links stays: a stream has not come so far", g->kind->name);
		return;
	}
	for (int r = 0; r < g->n; r++)
		for (struct paper *p = g->papers[r], *next; p; p = next) {
			next = p->next;
			free_paper(g, p);
		}
	for (size_t i = 0; i < (size_t)g->n * (size_t)g->n * TT_MAX_LANES; i++)
		if (g->pipes[i])
			g->kind->release(g->pipes[i], PIPE, TT_MEM_OURS);
	g->kind->release((void *)g->abort, LINE + HEAD, TT_MEM_PINNED);
	free(g->pipes);
	free(g);
}
