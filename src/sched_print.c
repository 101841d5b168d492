/* SPDX-License-Identifier: Apache-2.0
 * Schedules as text, one line a step: what a person reads first when a schedule is in doubt. sched_read.c
 * reads it; docs/schedules.md describes it. */
#include "sched.h"

#include <stdarg.h>
#include <stdio.h>

struct text {
	char *out;
	size_t size, len;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
	bool room = t->len < t->size;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room ? t->out + t->len : NULL, room ? t->size - t->len : 0, fmt, ap);
	va_end(ap);
	t->len += n > 0 ? (size_t)n : 0;
}

static void put_ref(struct text *t, struct tt_ref r)
{
	if (r.buf < TT_TMP)
		put(t, " %s[", r.buf == TT_IN ? "in" : "out");
	else
		put(t, " tmp%u[", r.buf - TT_TMP);
	if (r.n == 1)
		put(t, "%u]", r.chunk);
	else
		put(t, "%u+%u]", r.chunk, r.n);
}

static void put_sources(struct text *t, const struct tt_sched *s, const struct tt_step *st)
{
	for (uint32_t i = 0; i < st->nsrc; i++)
		put_ref(t, s->refs[st->src + i]);
}

static void put_step(struct text *t, const struct tt_sched *s, uint32_t i)
{
	static const char *const names[] = { "send", "recv", "copy", "reduce" };
	const struct tt_step *st = &s->steps[i];

	put(t, "%4u lane %u %-6s", i, st->lane, st->op <= TT_REDUCE_STEP ? names[st->op] : "?");
	if (st->op != TT_SEND)
		put_ref(t, st->dst);
	if (st->op == TT_COPY || st->op == TT_REDUCE_STEP)
		put(t, " =");
	put_sources(t, s, st);
	if (st->op == TT_SEND || st->op == TT_RECV)
		put(t, " %s %u skew %u", st->op == TT_SEND ? "to" : "from", st->peer, st->skew);
	for (uint32_t k = 0; k < st->ndeps; k++)
		put(t, "%s%u", k ? "," : " after ", s->deps[st->dep + k]);
	put(t, "\n");
}

int tt_sched_print(const struct tt_sched *s, char *out, size_t size)
{
	struct text t = { out, size, 0 };

	put(&t,
	    "%s %s rank %d of %d root %d: %u x %u chunks, %u lanes, %u buffers, %u steps%s%s%s\n",
	    tt_coll_name(s->coll), s->algo, s->rank, s->nranks, s->root, s->nblocks, s->per_block,
	    s->nlanes, s->nbufs, s->nsteps, s->ordered ? ", ordered" : "",
	    s->one_window ? ", one window" : "", s->block_runnable ? ", block-runnable" : "");
	for (uint32_t c = 0; s->weights && c < s->per_block; c++)
		put(&t, "%s%u%s", c ? " " : "weights ", s->weights[c], c + 1 < s->per_block ? "" : "\n");
	for (uint32_t b = TT_TMP; b < s->nbufs; b++)
		put(&t, "buffer tmp%u[%u+%u]\n", b - TT_TMP, s->bufs[b].first, s->bufs[b].n);
	for (uint32_t i = 0; i < s->nsteps; i++)
		put_step(&t, s, i);
	return (int)t.len;
}
