/* Binds a schedule to links: a program; and turns references into addresses.
 * SPDX-License-Identifier: Apache-2.0 */
#include "exec_prog.h"

#include <stdlib.h>
#include <string.h>

static void free_dirs(struct tt_prog *p)
{
	for (uint32_t i = 0; p->dirs && i < p->ndirs; i++) {
		free(p->dirs[i].steps);
		free(p->dirs[i].order);
	}
	free(p->dirs);
}

void tt_prog_free(struct tt_prog *p)
{
	if (!p)
		return;
	free_dirs(p);
	free(p->x);
	free(p->refs);
	free(p->done);
	free(p->local);
	free(p->srcs);
	free(p->tmp_at);
	tt_sched_free(p->s);
	free(p);
}

static int ep_index(struct tt_prog *p, struct tt_ep *ep)
{
	for (int i = 0; i < p->neps; i++)
		if (p->eps[i] == ep)
			return i;
	p->eps[p->neps] = ep;
	return p->neps++;
}

/* Where one fell from, it is looked at as well. */
static void watch_eps(struct tt_prog *p, struct xdir *d)
{
	d->ep = (uint8_t)ep_index(p, d->link->ep);
	if (d->link->fell)
		ep_index(p, d->link->fell);
}

static struct xdir *find_dir(struct tt_prog *p, struct tt_link *link, bool is_send)
{
	for (uint32_t i = 0; i < p->ndirs; i++)
		if (p->dirs[i].link == link && p->dirs[i].is_send == is_send)
			return &p->dirs[i];
	return NULL;
}

static tuttiResult_t add_message(struct tt_prog *p, uint32_t i, tt_link_fn fn, void *ctx)
{
	const struct tt_step *st = &p->s->steps[i];
	struct tt_link *link;
	struct xdir *d;
	uint32_t *steps;

	TRY(fn(ctx, (int)st->peer, st->lane, &link));
	d = find_dir(p, link, st->op == TT_SEND);
	if (!d) {
		d = &p->dirs[p->ndirs++];
		d->link = link;
		d->is_send = st->op == TT_SEND;
		watch_eps(p, d);
	}
	if (!(d->n & (d->n - 1))) {
		steps = realloc(d->steps, sizeof(*steps) * (d->n ? 2 * d->n : 1));
		if (!steps)
			return tt_fail(tuttiSystemError, "no memory for a program");
		d->steps = steps;
	}
	d->steps[d->n++] = i;
	if (st->skew > d->max_skew)
		d->max_skew = st->skew;
	return tuttiSuccess;
}

/* Whether a step of [from, to) reads the reference. */
static bool read_in(const struct tt_sched *s, const struct tt_ref *r, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		for (uint32_t k = 0; s->steps[i].op != TT_RECV && k < s->steps[i].nsrc; k++)
			if (tt_ref_overlap(&s->refs[s->steps[i].src + k], r))
				return true;
	return false;
}

static bool depends_on(const struct tt_sched *s, const struct tt_step *st, uint32_t i)
{
	for (uint32_t k = 0; k < st->ndeps; k++)
		if (s->deps[st->dep + k] == i)
			return true;
	return false;
}

/* The reduce that a receive into TMP can do on the way: REDUCE(dst, TMP, x) where nobody else reads TMP as it
 * came. Whether it does is decided each time (can_fuse): a receive never waits for what the reduce waits for,
 * or two ranks whose sends wait for each other's receives would stand still. */
static uint32_t fusable(const struct tt_sched *s, uint32_t recv)
{
	const struct tt_step *r = &s->steps[recv];

	if (r->dst.buf < TT_TMP)
		return TT_NONE;
	for (uint32_t i = recv + 1; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		const struct tt_ref *src = &s->refs[st->src];

		if (st->op != TT_REDUCE_STEP || st->nsrc != 2 || !depends_on(s, st, recv))
			continue;
		if (!tt_ref_same(&src[0], &r->dst) == !tt_ref_same(&src[1], &r->dst) ||
		    read_in(s, &r->dst, recv + 1, i) ||
		    (!tt_ref_same(&st->dst, &r->dst) && read_in(s, &r->dst, i + 1, s->nsteps)))
			return TT_NONE;
		return i;
	}
	return TT_NONE;
}

static void fuse(struct tt_prog *p, struct xdir *d)
{
	for (uint32_t k = 0; !d->is_send && k < d->n; k++) {
		struct xstep *x = &p->x[d->steps[k]];
		const struct xref *src;

		x->fused = d->link->ep->t->recv_reduce ? fusable(p->s, d->steps[k]) : TT_NONE;
		if (x->fused == TT_NONE)
			continue;
		src = p->x[x->fused].src;
		x->received_first = tt_ref_same(&src[0].r, &x->dst.r);
		x->x = &src[x->received_first ? 1 : 0];
	}
}

/* With one window the messages go in the order of their skew. */
static tuttiResult_t put_in_order(struct xdir *d, const struct tt_prog *p)
{
	uint32_t n = 0;

	d->order = malloc(d->n * sizeof(*d->order));
	if (!d->order)
		return tt_fail(tuttiSystemError, "no memory for a program");
	for (uint32_t skew = 0; skew <= d->max_skew; skew++)
		for (uint32_t k = 0; k < d->n; k++)
			if (p->x[d->steps[k]].skew == skew)
				d->order[n++] = d->steps[k];
	return tuttiSuccess;
}

static tuttiResult_t wire_up(struct tt_prog *p, tt_link_fn fn, void *ctx)
{
	const struct tt_sched *s = p->s;
	uint32_t max_src = 1;

	for (uint32_t i = 0; i < s->nrefs; i++)
		p->refs[i].r = s->refs[i];
	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];

		p->x[i] = (struct xstep){ .op = st->op, .skew = st->skew, .fused = TT_NONE, .ndeps = st->ndeps,
					  .deps = s->deps + st->dep, .dst = { .r = st->dst },
					  .src = p->refs + st->src, .nsrc = st->nsrc };
		if (st->nsrc > max_src)
			max_src = st->nsrc;
		if (st->op == TT_SEND || st->op == TT_RECV)
			TRY(add_message(p, i, fn, ctx));
		else
			p->local[p->nlocal++] = i;
	}
	for (uint32_t k = 0; k < p->ndirs; k++) {
		fuse(p, &p->dirs[k]);
		TRY(put_in_order(&p->dirs[k], p));
	}
	p->srcs = malloc(max_src * sizeof(*p->srcs));
	return p->srcs ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for a program");
}

void tt_prog_rebind(struct tt_prog *p, const struct tt_link *link)
{
	p->neps = 0;
	p->fault = (struct tt_run_fault){ 0 };
	for (uint32_t k = 0; k < p->ndirs; k++) {
		struct xdir *d = &p->dirs[k];

		watch_eps(p, d);
		if (d->link != link)
			continue;
		tt_run_rewind(p, d);
		fuse(p, d);
	}
}

tuttiResult_t tt_prog_new(struct tt_sched *s, uint32_t depth, tt_link_fn fn, void *ctx,
			  struct tt_prog **out)
{
	struct tt_prog *p = calloc(1, sizeof(*p));
	uint32_t n = s->nsteps ? s->nsteps : 1, messages = 0;
	tuttiResult_t r = tuttiSystemError;

	if (!p) {
		tt_sched_free(s);
		return tt_fail(r, "no memory for a program");
	}
	for (uint32_t i = 0; i < s->nsteps; i++)
		messages += s->steps[i].op == TT_SEND || s->steps[i].op == TT_RECV;
	p->s = s;
	p->depth = depth ? depth : 1;
	p->x = calloc(n, sizeof(*p->x));
	p->refs = calloc(s->nrefs + 1, sizeof(*p->refs));
	p->done = calloc(2 * (size_t)n + p->depth, sizeof(*p->done));
	p->local = malloc(n * sizeof(*p->local));
	p->tmp_at = calloc(s->nbufs + 1, sizeof(*p->tmp_at));
	p->dirs = calloc(messages + 1, sizeof(*p->dirs));
	if (!p->x || !p->refs || !p->done || !p->local || !p->tmp_at || !p->dirs) {
		tt_fail(r, "no memory for a program of %u steps", s->nsteps);
		goto free_all;
	}
	p->claimed = p->done + n;
	p->finished = p->claimed + n;
	TRY_GOTO(r, wire_up(p, fn, ctx), free_all);
	if (p->ndirs) {
		struct xdir *fit = realloc(p->dirs, p->ndirs * sizeof(*fit));

		p->dirs = fit ? fit : p->dirs;
	}
	*out = p;
	return tuttiSuccess;
free_all:
	tt_prog_free(p);
	return r;
}

/* ---- where the bytes are ---- */

static uint32_t block_of(const struct tt_prog *p, uint32_t chunk)
{
	return chunk / p->s->per_block;
}

/* Elements from the start of its window in its block. */
static size_t inner(const struct tt_prog *p, uint32_t w, uint32_t chunk)
{
	uint32_t b = block_of(p, chunk);

	return tt_part_offset(&p->part, w, chunk) - b * p->part.count - w * p->part.window;
}

size_t tt_prog_offset(const struct tt_prog *p, const struct tt_ref *r, uint32_t w)
{
	const struct tt_buf *buf = &p->s->bufs[r->buf];
	size_t first = block_of(p, buf->first);

	if (r->buf < TT_TMP)
		return p->elem * (tt_part_offset(&p->part, w, r->chunk) - first * p->part.count);
	return (w % p->depth) * p->tmp_stride + p->tmp_at[r->buf] +
	       p->elem * ((block_of(p, r->chunk) - first) * p->part.window + inner(p, w, r->chunk) -
			  inner(p, w, buf->first));
}

/* Elements of a block whose largest reference is a message of at most `bytes`. */
static size_t window_of(const struct tt_sched *s, size_t count, size_t bytes, size_t elem)
{
	uint64_t total = 0, sum;

	for (uint32_t i = 0; i < s->per_block; i++)
		total += s->weights ? s->weights[i] : 1;
	if (s->one_window || !count || s->nranks == 1 || !total)
		return count;
	sum = bytes / elem * total / tt_sched_widest(s);
	return sum < 1 ? 1 : tt_min(count, sum);
}

static void partition(struct tt_prog *p, const struct tt_call *call)
{
	const struct tt_sched *s = p->s;

	p->window_bytes = call->window_bytes;
	p->part = (struct tt_part){ .count = call->count, .per_block = s->per_block,
				    .weights = s->weights, .align = tt_max(64 / p->elem, 1) };
	p->part.window = window_of(s, call->count, call->window_bytes, p->elem);
	p->part.nwindows = call->count ? (uint32_t)tt_div_up(call->count, p->part.window) : 1;
}

static void lay_out_tmp(struct tt_prog *p)
{
	const struct tt_sched *s = p->s;
	size_t at = 0;

	for (uint32_t b = TT_TMP; b < s->nbufs; b++) {
		const struct tt_buf *buf = &s->bufs[b];
		uint32_t last = p->part.nwindows - 1;
		size_t len;

		if (!buf->n)
			continue;
		if (block_of(p, buf->first) == block_of(p, buf->first + buf->n - 1))
			len = tt_max(tt_part_len(&p->part, 0, buf->first, buf->n),
				     tt_part_len(&p->part, last, buf->first, buf->n));
		else
			len = p->part.window * (block_of(p, buf->first + buf->n - 1) -
						block_of(p, buf->first) + 1);
		p->tmp_at[b] = at;
		at += (len * p->elem + 127) & ~(size_t)63;
	}
	p->tmp_stride = at;
	p->tmp_size = at * (p->part.nwindows < p->depth ? p->part.nwindows : p->depth);
}

static void place(const struct tt_prog *p, struct xref *r)
{
	if (!r->r.n)
		return;
	r->at = tt_prog_offset(p, &r->r, 0);
	r->n = tt_part_len(&p->part, 0, r->r.chunk, r->r.n);
}

size_t tt_run_tmp(struct tt_prog *p, const struct tt_call *call)
{
	size_t elem = tt_type_size(call->type);

	if (p->part.nwindows && p->part.count == call->count && p->elem == elem &&
	    p->window_bytes == call->window_bytes)
		return p->tmp_size;
	p->elem = elem;
	partition(p, call);
	lay_out_tmp(p);
	for (uint32_t i = 0; i < p->s->nrefs; i++)
		place(p, &p->refs[i]);
	for (uint32_t i = 0; i < p->s->nsteps; i++)
		place(p, &p->x[i].dst);
	return p->tmp_size;
}
