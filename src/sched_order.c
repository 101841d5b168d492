/* SPDX-License-Identifier: Apache-2.0
 * Proof of local order: of every two steps that touch the same memory, one of them writing, the
 * later is reachable from the earlier through dependencies. It is enough to look from each
 * access to the last write, and from each write to the reads since: the rest follows along the
 * chain of writes. */
#include "sched_check.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, MAX_STEPS = 1 << 16 };

struct reader {
	uint32_t step, next;
};

struct proof {
	const struct tt_sched *s;
	bool aliased;
	int64_t *base;
	uint32_t *writer, *head; /* per place */
	struct reader *readers;
	uint32_t nreaders, cap;
	uint32_t *step;  /* where it fails */
	uint64_t *reach; /* nsteps x words: the steps known to be done before a step */
	size_t words;
};

static tuttiResult_t no_memory(void)
{
	return tt_note_error(tuttiSystemError, "no memory to check a schedule");
}

static tuttiResult_t bad(const struct tt_sched *s, uint32_t step, const char *what)
{
	return tt_note_error(tuttiMismatch, "rank %d step %u of %s %s", s->rank, step, s->algo,
			     what);
}

/* ---- references ---- */

static const char *ref_wrong(const struct tt_sched *s, struct tt_ref r, bool written)
{
	if (r.buf >= s->nbufs || r.chunk < s->bufs[r.buf].first ||
	    (uint64_t)r.chunk + r.n > (uint64_t)s->bufs[r.buf].first + s->bufs[r.buf].n)
		return "refers beyond a buffer";
	if (!s->one_window && r.n && r.chunk / s->per_block != (r.chunk + r.n - 1) / s->per_block)
		return "refers across blocks without being marked so";
	if (written && r.buf == TT_IN)
		return "writes the input";
	if (r.buf == TT_OUT && s->coll == TT_REDUCE && s->rank != s->root)
		return "uses the output, which only the root has";
	if (r.buf == TT_IN && s->coll == TT_BROADCAST && s->rank != s->root)
		return "uses the input, which only the root has";
	return NULL;
}

/* Sources have the length of the target; they are it, or lie elsewhere. */
static const char *source_wrong(const struct tt_sched *s, const struct tt_step *st, struct tt_ref r)
{
	struct tt_ref d = st->dst;
	bool one = r.buf == d.buf || (r.buf < TT_TMP && d.buf < TT_TMP);

	if (st->op == TT_SEND)
		return NULL;
	if (r.n != d.n || r.chunk % s->per_block != d.chunk % s->per_block)
		return "combines chunks of different lengths";
	if (one && r.chunk != d.chunk && r.chunk < d.chunk + d.n && d.chunk < r.chunk + r.n)
		return "has a source that overlaps its target";
	return NULL;
}

static const char *step_wrong(const struct tt_sched *s, uint32_t i)
{
	const struct tt_step *st = &s->steps[i];
	bool message = st->op == TT_SEND || st->op == TT_RECV;
	const char *wrong = NULL;

	if (st->op > TT_REDUCE_STEP || st->lane >= s->nlanes)
		return "has no such operation or lane";
	if (message && (st->peer >= (uint32_t)s->nranks || st->peer == (uint32_t)s->rank))
		return "has a peer that is no other rank";
	if ((uint64_t)st->src + st->nsrc > s->nrefs || (uint64_t)st->dep + st->ndeps > s->ndeps)
		return "refers beyond the schedule";
	if (st->op == TT_RECV ? st->nsrc : st->op == TT_REDUCE_STEP ? st->nsrc < 2 : st->nsrc != 1)
		return "has the wrong number of sources";
	if (st->op != TT_SEND)
		wrong = ref_wrong(s, st->dst, true);
	for (uint32_t k = 0; k < st->nsrc && !wrong; k++) {
		wrong = ref_wrong(s, s->refs[st->src + k], false);
		if (!wrong)
			wrong = source_wrong(s, st, s->refs[st->src + k]);
	}
	for (uint32_t k = 0; k < st->ndeps && !wrong; k++)
		if (s->deps[st->dep + k] >= i)
			wrong = "depends on a later step";
	return wrong;
}

/* ---- order ---- */

static bool done_before(const struct proof *p, uint32_t step, uint32_t other)
{
	return p->reach[step * p->words + other / 64] >> (other % 64) & 1;
}

static void close_over(struct proof *p, uint32_t i)
{
	const struct tt_step *st = &p->s->steps[i];
	uint64_t *mine = p->reach + i * p->words;

	for (uint32_t k = 0; k < st->ndeps; k++) {
		uint32_t d = p->s->deps[st->dep + k];

		for (size_t w = 0; w <= d / 64; w++)
			mine[w] |= p->reach[d * p->words + w];
		mine[d / 64] |= 1ull << (d % 64);
	}
}

static tuttiResult_t unordered(const struct proof *p, uint32_t step, uint32_t other,
			       struct tt_ref r)
{
	*p->step = step;
	return tt_note_error(tuttiMismatch,
			     "rank %d: steps %u and %u of %s both use chunks %u+%u of "
			     "buffer %u, and nothing orders them",
			     p->s->rank, other, step, p->s->algo, r.chunk, r.n, r.buf);
}

static tuttiResult_t add_reader(struct proof *p, uint32_t at, uint32_t step)
{
	if (p->nreaders == p->cap) {
		uint32_t cap = p->cap * 2 + 64;
		void *bigger = realloc(p->readers, cap * sizeof *p->readers);

		if (!bigger)
			return no_memory();
		p->readers = bigger;
		p->cap = cap;
	}
	p->readers[p->nreaders] = (struct reader){ step, p->head[at] };
	p->head[at] = p->nreaders++;
	return tuttiSuccess;
}

static tuttiResult_t read_ref(struct proof *p, uint32_t step, struct tt_ref r)
{
	for (uint32_t c = 0; c < r.n; c++) {
		uint32_t at = (uint32_t)(p->base[r.buf] + r.chunk + c), w = p->writer[at];

		if (w != NONE && !done_before(p, step, w))
			return unordered(p, step, w, r);
		TRY(add_reader(p, at, step));
	}
	return tuttiSuccess;
}

static tuttiResult_t write_ref(struct proof *p, uint32_t step, struct tt_ref r)
{
	for (uint32_t c = 0; c < r.n; c++) {
		uint32_t at = (uint32_t)(p->base[r.buf] + r.chunk + c), w = p->writer[at];

		if (w != NONE && !done_before(p, step, w))
			return unordered(p, step, w, r);
		for (uint32_t k = p->head[at]; k != NONE; k = p->readers[k].next) {
			uint32_t other = p->readers[k].step;

			if (other != step && !done_before(p, step, other))
				return unordered(p, step, other, r);
		}
		p->writer[at] = step;
		p->head[at] = NONE;
	}
	return tuttiSuccess;
}

/* In place a copy of input to output at the same chunk does nothing. */
static bool does_nothing(const struct proof *p, const struct tt_step *st)
{
	struct tt_ref src;

	if (st->op != TT_COPY)
		return false;
	src = p->s->refs[st->src];
	return p->base[src.buf] + src.chunk == p->base[st->dst.buf] + st->dst.chunk;
}

static tuttiResult_t prove_steps(struct proof *p)
{
	const struct tt_sched *s = p->s;

	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		const char *wrong = step_wrong(s, i);

		*p->step = i;
		if (wrong)
			return bad(s, i, wrong);
		close_over(p, i);
		if (does_nothing(p, st))
			continue;
		for (uint32_t k = 0; k < st->nsrc; k++)
			TRY(read_ref(p, i, s->refs[st->src + k]));
		if (st->op != TT_SEND)
			TRY(write_ref(p, i, st->dst));
	}
	return tuttiSuccess;
}

static tuttiResult_t prepare(struct proof *p)
{
	const struct tt_sched *s = p->s;
	uint32_t all = s->nblocks * s->per_block;
	int64_t n = p->aliased ? all : 2 * (int64_t)all;

	p->base = calloc(s->nbufs, sizeof *p->base);
	if (!p->base)
		return no_memory();
	p->base[TT_OUT] = p->aliased ? 0 : all;
	for (uint32_t b = TT_TMP; b < s->nbufs; b++) {
		p->base[b] = n - s->bufs[b].first;
		n += s->bufs[b].n;
	}
	p->words = tt_div_up(s->nsteps, 64);
	p->reach = calloc(s->nsteps * p->words + 1, sizeof *p->reach);
	p->writer = malloc(((size_t)n + 1) * sizeof *p->writer);
	p->head = malloc(((size_t)n + 1) * sizeof *p->head);
	if (!p->reach || !p->writer || !p->head)
		return no_memory();
	memset(p->writer, 0xff, (size_t)n * sizeof *p->writer);
	memset(p->head, 0xff, (size_t)n * sizeof *p->head);
	return tuttiSuccess;
}

tuttiResult_t tt_sched_order(const struct tt_sched *s, bool aliased, uint32_t *step)
{
	struct proof p = { .s = s, .aliased = aliased, .step = step };
	tuttiResult_t r;

	*step = UINT32_MAX;
	if (s->nsteps > MAX_STEPS)
		return bad(s, s->nsteps, "is more than can be proved");
	r = prepare(&p);
	if (r == tuttiSuccess)
		r = prove_steps(&p);
	free(p.base);
	free(p.writer);
	free(p.head);
	free(p.readers);
	free(p.reach);
	return r;
}
