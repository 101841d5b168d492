/* SPDX-License-Identifier: Apache-2.0
 * Schedules as MSCCL XML. A thread block is one program with one peer: each direction of a link gets one, the copies
 * and reductions of a lane another. Steps stand in the order of (skew, step) in each: the checker proves that a rank
 * may run them so. Reductions of MSCCL are dst = dst op src: others become several steps, in their own order. */
#include "sched_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct place { /* of a step: thread block, and the number of its last step there */
	uint32_t tb, at;
};

struct out {
	const struct tt_sched *s;
	FILE *f;
	uint32_t ntbs, nscratch, extra; /* extra: where sums that cannot be made in place are made */
	uint32_t *order;                /* steps by (skew, step) */
	uint32_t *tb_of;
	struct place *places;
	uint32_t *base;                 /* per buffer: its first chunk in the scratch */
};

static bool is_message(const struct tt_step *st)
{
	return st->op == TT_SEND || st->op == TT_RECV;
}

static bool same_tb(const struct tt_step *a, const struct tt_step *b)
{
	if (is_message(a) != is_message(b) || a->lane != b->lane)
		return false;
	return !is_message(a) || (a->op == b->op && a->peer == b->peer);
}

/* IN and OUT are one buffer where the call is in place. */
static bool overlap(struct tt_ref a, struct tt_ref b)
{
	bool one = a.buf == b.buf || (a.buf < TT_TMP && b.buf < TT_TMP);

	return one && a.chunk < b.chunk + b.n && b.chunk < a.chunk + a.n;
}

/* Whether a sum may be made in its target: no later source is lost by that. */
static bool in_place(const struct tt_sched *s, const struct tt_step *st)
{
	const struct tt_ref *src = s->refs + st->src;

	for (uint32_t k = 1; k < st->nsrc; k++)
		if (overlap(src[k], st->dst))
			return false;
	return true;
}

/* ---- lines ---- */

static uint32_t offset(const struct out *o, struct tt_ref r)
{
	const struct tt_sched *s = o->s;

	if (r.buf >= TT_TMP)
		return o->base[r.buf] + r.chunk - s->bufs[r.buf].first;
	return r.chunk - s->bufs[r.buf].first;
}

static void put(struct out *o, uint32_t at, const char *type, struct tt_ref src, struct tt_ref dst,
		const struct place *dep)
{
	static const char names[] = "ios";
	char from = names[src.buf > TT_TMP ? TT_TMP : src.buf], to = names[dst.buf > TT_TMP ? TT_TMP : dst.buf];

	fprintf(o->f, "      <step s=\"%u\" type=\"%s\" srcbuf=\"%c\" srcoff=\"%d\" dstbuf=\"%c\" dstoff=\"%d\" "
		"cnt=\"%u\" depid=\"%d\" deps=\"%d\" hasdep=\"1\"/>\n", at, type, from,
		src.n ? (int)offset(o, src) : -1, to, dst.n ? (int)offset(o, dst) : -1, dst.n,
		dep ? (int)dep->tb : -1, dep ? (int)dep->at : -1);
}

/* The sum of a target that is also a later source is made in scratch behind the temporaries, of its lane. */
static struct tt_ref sum_place(const struct out *o, const struct tt_step *st)
{
	return in_place(o->s, st) ? st->dst : (struct tt_ref){ o->s->nbufs, st->lane * o->extra, st->dst.n };
}

static uint32_t put_local(struct out *o, const struct tt_step *st, uint32_t at, const struct place *dep)
{
	const struct tt_ref *src = o->s->refs + st->src;
	struct tt_ref sum = sum_place(o, st);
	bool moved = sum.buf == src[0].buf && sum.chunk == src[0].chunk;

	if (!moved || st->nsrc == 1) {
		put(o, at++, "cpy", src[0], sum, dep);
		dep = NULL;
	}
	for (uint32_t k = 1; k < st->nsrc; k++, dep = NULL)
		put(o, at++, "re", src[k], sum, dep);
	if (sum.buf != st->dst.buf)
		put(o, at++, "cpy", sum, st->dst, NULL);
	return at;
}

/* One step waits for one other: more go before it, each waiting for one. */
static uint32_t put_step(struct out *o, uint32_t i, uint32_t at)
{
	const struct tt_sched *s = o->s;
	const struct tt_step *st = &s->steps[i];
	const struct place *dep = NULL;

	for (uint32_t k = 0; k < st->ndeps; k++) {
		const struct place *d = &o->places[s->deps[st->dep + k]];

		if (d->tb == o->tb_of[i])
			continue;
		if (dep)
			put(o, at++, "nop", tt_ref(TT_IN, 0, 0), tt_ref(TT_OUT, 0, 0), dep);
		dep = d;
	}
	if (st->op == TT_SEND)
		put(o, at++, "s", s->refs[st->src], s->refs[st->src], dep);
	else if (st->op == TT_RECV)
		put(o, at++, "r", st->dst, st->dst, dep);
	else
		at = put_local(o, st, at, dep);
	return at;
}

/* ---- a rank ---- */

static void put_tb(struct out *o, uint32_t tb)
{
	const struct tt_step *first = NULL;
	uint32_t at = 0;

	for (uint32_t k = 0; k < o->s->nsteps; k++) {
		uint32_t i = o->order[k];

		if (o->tb_of[i] != tb)
			continue;
		if (!first) {
			first = &o->s->steps[i];
			fprintf(o->f, "    <tb id=\"%u\" send=\"%d\" recv=\"%d\" chan=\"%u\">\n", tb,
				first->op == TT_SEND ? (int)first->peer : -1,
				first->op == TT_RECV ? (int)first->peer : -1, first->lane);
		}
		at = put_step(o, i, at);
	}
	fputs("    </tb>\n", o->f);
}

/* How many lines a step is, to know the numbers of later ones before they are written. */
static uint32_t lines_of(const struct out *o, uint32_t i)
{
	const struct tt_step *st = &o->s->steps[i];
	struct tt_ref src, sum;
	uint32_t others = 0, n = 1;

	for (uint32_t k = 0; k < st->ndeps; k++)
		others += o->places[o->s->deps[st->dep + k]].tb != o->tb_of[i];
	if (!is_message(st)) {
		src = o->s->refs[st->src];
		sum = sum_place(o, st);
		n = st->nsrc - 1;
		n += (sum.buf != src.buf || sum.chunk != src.chunk || st->nsrc == 1) + (sum.buf != st->dst.buf);
	}
	return n + (others ? others - 1 : 0);
}

static void number_steps(struct out *o)
{
	const struct tt_sched *s = o->s;

	o->ntbs = 0;
	for (uint32_t k = 0; k < s->nsteps; k++) {
		uint32_t i = o->order[k], same = 0;

		while (same < k && !same_tb(&s->steps[o->order[same]], &s->steps[i]))
			same++;
		o->tb_of[i] = same < k ? o->tb_of[o->order[same]] : o->ntbs++;
		o->places[i].tb = o->tb_of[i];
	}
	for (uint32_t tb = 0; tb < o->ntbs; tb++) {
		uint32_t at = 0;

		for (uint32_t k = 0; k < s->nsteps; k++)
			if (o->tb_of[o->order[k]] == tb) {
				at += lines_of(o, o->order[k]);
				o->places[o->order[k]].at = at - 1;
			}
	}
}

static void put_gpu(struct out *o)
{
	const struct tt_sched *s = o->s;
	bool in = s->coll != TT_BROADCAST || s->rank == s->root, out = s->coll != TT_REDUCE || s->rank == s->root;
	uint32_t n = 0, at = 0;

	for (uint32_t skew = 0; n < s->nsteps && skew <= UINT16_MAX; skew++)
		for (uint32_t i = 0; i < s->nsteps; i++)
			if (s->steps[i].skew == skew)
				o->order[n++] = i;
	for (uint32_t b = TT_TMP; b < s->nbufs; b++) {
		o->base[b] = at;
		at += s->bufs[b].n;
	}
	o->base[s->nbufs] = at;
	o->extra = 0;
	for (uint32_t i = 0; i < s->nsteps; i++)
		if (!is_message(&s->steps[i]) && !in_place(s, &s->steps[i]))
			o->extra = (uint32_t)tt_max(o->extra, s->steps[i].dst.n);
	number_steps(o);
	fprintf(o->f, "  <gpu id=\"%d\" i_chunks=\"%u\" o_chunks=\"%u\" s_chunks=\"%u\">\n", s->rank,
		in ? s->bufs[TT_IN].n : 0, out ? s->bufs[TT_OUT].n : 0, at + s->nlanes * o->extra);
	for (uint32_t tb = 0; tb < o->ntbs; tb++)
		put_tb(o, tb);
	fputs("  </gpu>\n", o->f);
}

static tuttiResult_t write_rank(const struct tt_sched *s, FILE *f)
{
	struct tt_sched mine = *s;
	struct out o = { .s = &mine, .f = f };
	tuttiResult_t r = tuttiSuccess;

	/* One more buffer than there are, for sums. */
	mine.bufs = calloc(s->nbufs + 1, sizeof *mine.bufs);
	o.order = calloc(s->nsteps + 1, sizeof *o.order);
	o.tb_of = calloc(s->nsteps + 1, sizeof *o.tb_of);
	o.places = calloc(s->nsteps + 1, sizeof *o.places);
	o.base = calloc(s->nbufs + 1, sizeof *o.base);
	if (!mine.bufs || !o.order || !o.tb_of || !o.places || !o.base) {
		r = tt_fail(tuttiSystemError, "no memory to write a schedule");
	} else {
		memcpy(mine.bufs, s->bufs, s->nbufs * sizeof *mine.bufs);
		put_gpu(&o);
	}
	free(mine.bufs);
	free(o.order);
	free(o.tb_of);
	free(o.places);
	free(o.base);
	return r;
}

tuttiResult_t tt_sched_to_msccl(struct tt_sched *const *ranks, int n, void *file)
{
	const struct tt_sched *s = ranks[0];
	FILE *f = file;
	char coll[32] = "";

	if (s->coll == TT_BARRIER)
		return tt_fail(tuttiUnsupported, "MSCCL has no barrier");
	if (s->weights)
		return tt_fail(tuttiUnsupported, "%s has chunks of unequal weight; those of MSCCL are equal", s->algo);
	for (const char *p = tt_coll_name(s->coll); *p; p++)
		coll[strlen(coll)] = (char)(*p | 0x20);
	fprintf(f, "<algo name=\"%s\" proto=\"Simple\" nchannels=\"%u\" nchunksperloop=\"%u\" ngpus=\"%d\" coll=\"%s\" "
		"inplace=\"1\" outofplace=\"1\" minBytes=\"0\" maxBytes=\"0\"", s->algo, s->nlanes,
		s->nblocks * s->per_block, n, coll);
	if (s->coll == TT_BROADCAST || s->coll == TT_REDUCE)
		fprintf(f, " root=\"%d\"", s->root);
	fputs(">\n", f);
	for (int i = 0; i < n; i++)
		TRY(write_rank(ranks[i], f));
	fputs("</algo>\n", f);
	return tuttiSuccess;
}
