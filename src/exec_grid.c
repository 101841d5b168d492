/* Schedules as blocks of a device. Links keep their counts in memory of devices, from call to call; a program goes
 * there with its links and a binding, and stays while calls are alike. SPDX-License-Identifier: Apache-2.0 */
#include "exec_grid.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of two ranks on the device: ends and packets, which begin as zeros, and slots. */
enum {
	ENDS = 2 * sizeof(struct tt_dev_end), HEAD = ENDS + TT_DEV_PACKETS_BYTES, PIPE = HEAD + TT_DEV_SLOTS_BYTES,
	LINE = 64,
};

/* What one rank's blocks read: uploaded as a whole when another count or type comes and no earlier call reads it. */
struct paper {
	struct paper *next;
	struct tt_dev_code *code;
	size_t count, window_bytes, bytes, tmp_bytes;
	tuttiDataType_t type;
	char *device, *tmp;
	char *pinned;  /* before it is uploaded */
	uint32_t last; /* the call that reads it */
	bool kept;     /* a graph reads it, at any time */
};

struct tt_grid {
	const struct tt_mem_kind *kind;
	struct tt_peers *peers;  /* NULL: all ranks are on the device */
	int n;                   /* ranks of a launch */
	uint32_t calls;
	_Atomic uint32_t *ended; /* pinned: calls that have; behind it the word of abort, then zeros for links */
	char **pipes;            /* [from][to][lane] */
	struct paper *papers[TT_DEV_RANKS];
};

static _Atomic uint32_t *abort_word(const struct tt_grid *g)
{
	return g->ended + LINE / sizeof(*g->ended);
}

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
	r = upload(g, queue, captured, p, (char *)g->ended + 2 * LINE, HEAD);
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
	struct tt_dev_end *ends;
	char **at;

	if (g->peers)
		return tt_peers_pipe(g->peers, (int)d->peer, d->lane, d->is_send, out);
	at = pipe_at(g, from, to, d->lane);
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

static bool has_ended(const struct tt_grid *g, uint32_t call)
{
	return (int32_t)(atomic_load_explicit(g->ended, memory_order_acquire) - call) >= 0;
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
	if (p->pinned)
		g->kind->release(p->pinned, p->bytes, TT_MEM_PINNED);
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
	p->last = g->calls;
	r = g->kind->alloc(p->bytes, TT_MEM_PINNED, &pinned);
	p->pinned = pinned;
	if (r == tuttiSuccess)
		r = g->kind->alloc(p->bytes, TT_MEM_OURS, &device);
	p->device = device;
	if (r != tuttiSuccess) {
		free_paper(g, p);
		return r;
	}
	*out = p;
	return tuttiSuccess;
}

/* No call reads it: what is in pinned memory has been copied. */
static tuttiResult_t write_paper(struct tt_grid *g, tuttiStream_t queue, bool captured, int rank, struct paper *p,
				 const struct tt_call *call)
{
	const struct tt_dev_prog *prog = tt_dev_code_prog(p->code);
	const struct tt_dev_dir *dirs = tt_dev_code_dirs(p->code);
	void *tmp = NULL;
	char *to = p->pinned;
	size_t need = tt_dev_bind(p->code, call, TT_DEV_SLOT, (struct tt_dev_bind *)(to + bind_at(p->code)));

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
	for (p = *list; p && !(p->code == code && has_ended(g, p->last) && !p->kept); p = p->next)
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
		if (!tt_dev_fits(tt_dev_code_sched(codes[r]), &calls[r], TT_DEV_SLOT))
			return tt_note_error(tuttiUnsupported, "messages are larger than a slot of %d bytes",
					     TT_DEV_SLOT);
	return tuttiSuccess;
}

static struct tt_dev_rank rank_of(const struct paper *p, const struct tt_call *call, uint32_t first)
{
	return (struct tt_dev_rank){ .prog = (void *)p->device, .links = (void *)(p->device + links_at(p->code)),
				     .bind = (void *)(p->device + bind_at(p->code)), .in = call->in,
				     .out = call->out, .tmp = p->tmp, .first = first };
}

/* What the launch says is the same whenever the same call comes, but for the buffers: counts are in memory. */
tuttiResult_t tt_grid_run(struct tt_grid *g, tuttiStream_t queue, bool captured, struct tt_dev_code *const *codes,
			  const struct tt_call *calls)
{
	struct tt_dev_launch launch = { .abort = (const uint32_t *)abort_word(g), .slot_bytes = TT_DEV_SLOT,
					.packets = TT_DEV_PACKETS, .small = TT_DEV_SMALL, .nranks = (uint32_t)g->n };
	struct paper *papers[TT_DEV_RANKS];
	uint32_t blocks = 0;

	TRY(check_fit(g, codes, calls));
	if (g->peers)
		tt_peers_words(g->peers, &launch.abort, &launch.beat);
	launch.op = (uint32_t)(calls[0].op.kind <= tuttiMin ? calls[0].op.kind : tuttiSum);
	for (int r = 0; r < g->n; r++) {
		TRY(find_paper(g, queue, captured, r, codes[r], &calls[r], &papers[r]));
		papers[r]->kept |= captured;
		launch.ranks[r] = rank_of(papers[r], &calls[r], blocks);
		blocks += tt_dev_code_prog(codes[r])->nblocks;
	}
	if (blocks)
		TRY(g->kind->grid(queue, &launch, blocks));
	if (captured)
		return tuttiSuccess;
	g->calls++;
	for (int r = 0; r < g->n; r++)
		papers[r]->last = g->calls;
	return g->kind->stream_signal(queue, g->ended, g->calls);
}

/* ---- life ---- */

static tuttiResult_t new_grid(const struct tt_mem_kind *kind, int n, size_t zeros, struct tt_grid **out)
{
	struct tt_grid *g = calloc(1, sizeof(*g));
	void *pinned = NULL;
	tuttiResult_t r;

	if (!g)
		return tt_fail(tuttiSystemError, "no memory for blocks of a device");
	r = kind->alloc(2 * LINE + zeros, TT_MEM_PINNED, &pinned);
	if (r != tuttiSuccess) {
		free(g);
		return r;
	}
	memset(pinned, 0, 2 * LINE + zeros);
	g->kind = kind;
	g->n = n;
	g->ended = pinned;
	*out = g;
	return tuttiSuccess;
}

tuttiResult_t tt_grid_new(const struct tt_mem_kind *kind, int nranks, struct tt_grid **out)
{
	size_t pipes = (size_t)nranks * (size_t)nranks * TT_MAX_LANES;
	struct tt_grid *g;

	if (nranks > TT_DEV_RANKS)
		return tt_note_error(tuttiUnsupported, "%d ranks on one device; a grid holds %d", nranks, TT_DEV_RANKS);
	TRY(new_grid(kind, nranks, HEAD, &g));
	g->pipes = calloc(pipes, sizeof(*g->pipes));
	if (!g->pipes) {
		tt_grid_free(g);
		return tt_fail(tuttiSystemError, "no memory for the links of %d ranks", nranks);
	}
	*out = g;
	return tuttiSuccess;
}

tuttiResult_t tt_grid_new_apart(struct tt_peers *peers, struct tt_grid **out)
{
	TRY(new_grid(tt_peers_kind(peers), 1, 0, out));
	(*out)->peers = peers;
	return tuttiSuccess;
}

void tt_grid_abort(struct tt_grid *g)
{
	atomic_store_explicit(abort_word(g), 1, memory_order_release);
}

/* How far a replay is nobody knows, so one that was aborted may still be there. */
static bool is_replayed(const struct tt_grid *g)
{
	bool kept = false;

	for (int r = 0; r < g->n; r++)
		for (const struct paper *p = g->papers[r]; p; p = p->next)
			kept |= p->kept;
	return kept && atomic_load_explicit(abort_word(g), memory_order_relaxed);
}

void tt_grid_free(struct tt_grid *g)
{
	size_t pipes;

	if (!g || is_replayed(g))
		return;
	for (int i = 0; i < 1000 && !has_ended(g, g->calls); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (!has_ended(g, g->calls)) { /* the device may still write there: better lost than used twice */
		tt_log(TT_LOG_WARN, "mem", "%s memory of links stays: a stream has not come so far", g->kind->name);
		return;
	}
	for (int r = 0; r < g->n; r++)
		for (struct paper *p = g->papers[r], *next; p; p = next) {
			next = p->next;
			free_paper(g, p);
		}
	pipes = g->pipes ? (size_t)g->n * (size_t)g->n * TT_MAX_LANES : 0;
	for (size_t i = 0; i < pipes; i++)
		if (g->pipes[i])
			g->kind->release(g->pipes[i], PIPE, TT_MEM_OURS);
	g->kind->release((void *)g->ended, 2 * LINE + (g->peers ? 0 : HEAD), TT_MEM_PINNED);
	free(g->pipes);
	free(g);
}
