/* The executor: runs the steps of a schedule window by window over links. Per direction of a link the
 * messages go in the one order that both ends derive from the schedule, and everything else runs as soon
 * as its dependencies have. SPDX-License-Identifier: Apache-2.0 */
#include "exec_prog.h"

#include <string.h>

const struct tt_sched *tt_prog_sched(const struct tt_prog *p)
{
	return p->s;
}

const struct tt_run_fault *tt_run_fault(const struct tt_prog *p)
{
	return &p->fault;
}

bool tt_run_began(const struct tt_prog *p)
{
	return p->began || (p->call.queue && tt_qrun_fed(p->call.queue, p->call.seq));
}

int tt_prog_eps(const struct tt_prog *p, struct tt_ep **eps, int max)
{
	int n = p->neps < max ? p->neps : max;

	memcpy(eps, p->eps, (size_t)n * sizeof(*eps));
	return n;
}

/* ---- the order of messages: (batch, window + skew, step) ---- */

static void seek_windows(struct tt_prog *p, struct xdir *d)
{
	while (d->batch < p->part.nwindows) {
		uint32_t left = p->part.nwindows - d->batch, nb = left < p->depth ? left : p->depth;

		for (; d->time < nb + d->max_skew; d->time++, d->at = 0)
			for (; d->at < d->n; d->at++) {
				uint32_t skew = p->x[d->steps[d->at]].skew;

				if (d->time < skew || d->time - skew >= nb)
					continue;
				d->step = d->steps[d->at];
				d->window = d->batch + d->time - skew;
				return;
			}
		d->batch += p->depth;
		d->time = 0;
		d->at = 0;
	}
	d->step = TT_NONE;
}

static inline void seek(struct tt_prog *p, struct xdir *d)
{
	if (p->part.nwindows != 1) {
		seek_windows(p, d);
		return;
	}
	d->step = d->pos < d->n ? d->order[d->pos] : TT_NONE;
	d->window = 0;
}

static void next(struct tt_prog *p, struct xdir *d)
{
	d->pos++;
	d->at++;
	seek(p, d);
}

void tt_run_rewind(struct tt_prog *p, struct xdir *d)
{
	for (; d->tail != d->head; d->tail++)
		if (d->posts[d->tail % TT_POSTS].fused)
			p->claimed[p->x[d->posts[d->tail % TT_POSTS].step].fused]--;
	d->batch = d->time = d->at = d->pos = d->head = d->tail = 0;
	if (p->call.queue && tt_qrun_direct(p->call.queue, (uint32_t)(d - p->dirs)))
		d->step = TT_NONE;
	else
		seek(p, d);
}

void tt_run_begin(struct tt_prog *p, const struct tt_call *call, void *tmp)
{
	p->call = *call;
	tt_run_tmp(p, call);
	p->tmp = tmp;
	p->base = p->s->nsteps ? 0 : p->part.nwindows; /* a barrier of one has no steps */
	p->began = p->look = false;
	p->fault = (struct tt_run_fault){ 0 };
	memset(p->done, 0, (size_t)(p->finished + p->depth - p->done) * sizeof(*p->done));
	for (uint32_t i = 0; i < p->ndirs; i++) {
		p->dirs[i].head = p->dirs[i].tail = 0;
		tt_run_rewind(p, &p->dirs[i]);
	}
}

/* ---- running ---- */

static inline bool ready(const struct tt_prog *p, uint32_t i, uint32_t w)
{
	const struct xstep *x = &p->x[i];

	if (w >= p->base + p->depth)
		return false;
	for (uint32_t k = 0; k < x->ndeps; k++)
		if (p->done[x->deps[k]] <= w)
			return false;
	return true;
}

/* Where the steps of window w that have finished are counted. */
static uint32_t *finished(const struct tt_prog *p, uint32_t w)
{
	return &p->finished[w < p->depth ? w : w % p->depth]; /* seldom divides */
}

static inline void finish(struct tt_prog *p, uint32_t i, uint32_t w)
{
	p->done[i]++;
	if (++*finished(p, w) < p->s->nsteps)
		return;
	while (p->base < p->part.nwindows && *finished(p, p->base) == p->s->nsteps)
		*finished(p, p->base++) = 0;
}

/* The message at the head of a direction may go: what it needs is there. */
static bool due(const struct tt_prog *p, const struct xdir *d)
{
	if (p->call.queue)
		return tt_qrun_due(p->call.queue, (uint32_t)(d - p->dirs), d->is_send, d->pos);
	return ready(p, d->step, d->window);
}

static bool fail(struct tt_prog *p, struct xdir *d)
{
	p->fault.link = d->link;
	d->link->ep->t->link_error(d->link->priv, &p->fault.why);
	return false;
}

/* A message has arrived: is it the one that both sides mean? */
static bool check_note(struct tt_prog *p, struct xdir *d, const struct tt_note *n, uint32_t pos)
{
	p->began = true;
	if (n->sig == p->call.sig && n->seq == p->call.seq && n->pos == pos)
		return true;
	p->fault.link = d->link;
	p->fault.differs = true;
	p->fault.theirs = *n;
	p->fault.why = "message of another call";
	return false;
}

/* The receive about to be posted can reduce on the way: the reduce waits for nothing else, and it is the turn
 * of this window. */
static bool can_fuse(const struct tt_prog *p, const struct xstep *x, const struct post *o)
{
	const struct xstep *r = &p->x[x->fused];

	if (p->claimed[x->fused] != o->window)
		return false;
	for (uint32_t k = 0; k < r->ndeps; k++)
		if (r->deps[k] != o->step && p->done[r->deps[k]] <= o->window)
			return false;
	return true;
}

static enum tt_post post(struct tt_prog *p, struct xdir *d, struct post *o)
{
	const struct tt_transport *t = d->link->ep->t;
	const struct xstep *x = &p->x[o->step];
	const struct xref *ref = d->is_send ? x->src : &x->dst;
	size_t n = tt_prog_length(p, ref, o->window) * p->elem;
	const struct tt_note note = { p->call.sig, p->call.seq, o->pos };
	void *at = !n ? NULL : p->call.queue ? tt_qrun_slot(p->call.queue, (uint32_t)(d - p->dirs), o->pos, n) :
		   tt_prog_address(p, ref, o->window);

	o->fused = false;
	if (d->is_send)
		return t->send(d->link->priv, at, n, &note, &o->req);
	o->req.note = note;
	o->fused = n && x->fused != TT_NONE && !p->call.queue && can_fuse(p, x, o);
	if (!o->fused)
		return t->recv(d->link->priv, at, n, &o->req);
	o->combine = (struct tt_combine){ .dst = tt_prog_address(p, &p->x[x->fused].dst, o->window),
					  .x = tt_prog_address(p, x->x, o->window),
					  .received_first = x->received_first,
					  .type = p->call.type, .op = &p->call.op };
	return t->recv_reduce(d->link->priv, &o->combine, n, &o->req);
}

static void arrived(struct tt_prog *p, const struct xdir *d, const struct post *o)
{
	if (p->call.queue) {
		tt_qrun_moved(p->call.queue, (uint32_t)(d - p->dirs));
		return;
	}
	finish(p, o->step, o->window);
	if (o->fused)
		finish(p, p->x[o->step].fused, o->window);
}

/* Takes what has completed, in order. False: failed. */
static bool reap(struct tt_prog *p, struct xdir *d, int *moved)
{
	while (d->tail != d->head) {
		struct post *o = &d->posts[d->tail % TT_POSTS];
		int state = atomic_load_explicit(&o->req.state, memory_order_acquire);

		if (state == TT_REQ_POSTED) {
			p->look = true;
			return true;
		}
		if (state == TT_REQ_FAILED)
			return fail(p, d);
		if (!d->is_send && !check_note(p, d, &o->req.note, o->pos))
			return false;
		arrived(p, d, o);
		d->tail++;
		++*moved;
	}
	return true;
}

static bool issue(struct tt_prog *p, struct xdir *d, int *moved)
{
	while (d->step != TT_NONE && d->head - d->tail < TT_POSTS && due(p, d)) {
		struct post *o = &d->posts[d->head % TT_POSTS];
		enum tt_post r;

		o->step = d->step;
		o->window = d->window;
		o->pos = d->pos;
		atomic_store_explicit(&o->req.state, TT_REQ_IDLE, memory_order_relaxed);
		r = post(p, d, o);
		if (r == TT_AGAIN)
			return true;
		if (r == TT_FAILED)
			return fail(p, d);
		++*moved;
		if (o->fused)
			p->claimed[p->x[o->step].fused]++;
		if (r == TT_POSTED) {
			p->look = true;
			d->head++;
		} else {
			if (!d->is_send && !check_note(p, d, &o->req.note, o->pos))
				return false;
			arrived(p, d, o);
		}
		next(p, d);
	}
	return true;
}

static void run_local(struct tt_prog *p, uint32_t i, uint32_t w)
{
	const struct xstep *x = &p->x[i];
	size_t n = tt_prog_length(p, &x->dst, w);
	char *dst;

	if (!n)
		return;
	dst = tt_prog_address(p, &x->dst, w);
	for (uint32_t k = 0; k < x->nsrc; k++)
		p->srcs[k] = tt_prog_address(p, &x->src[k], w);
	if (x->op == TT_REDUCE_STEP)
		tt_reduce_run(dst, p->srcs, (int)x->nsrc, n, p->call.type, &p->call.op, TT_STORE_PLAIN);
	else if (dst != p->srcs[0])
		tt_copy_bytes(dst, p->srcs[0], n * p->elem, TT_STORE_PLAIN);
}

static void pass_local(struct tt_prog *p, int *moved)
{
	for (uint32_t k = 0; k < p->nlocal; k++) {
		uint32_t i = p->local[k], w = p->done[i];

		if (w >= p->part.nwindows || p->claimed[i] > w || !ready(p, i, w))
			continue;
		run_local(p, i, w);
		p->claimed[i]++;
		finish(p, i, w);
		++*moved;
	}
}

static bool pass_links(struct tt_prog *p, const bool *mine, int *moved)
{
	for (uint32_t k = 0; k < p->ndirs; k++) {
		struct xdir *d = &p->dirs[k];

		if (!reap(p, d, moved))
			return false;
		if (mine[d->ep] && !issue(p, d, moved))
			return false;
	}
	return true;
}

static bool is_over(const struct tt_prog *p)
{
	if (!p->call.queue)
		return p->base == p->part.nwindows;
	for (uint32_t k = 0; k < p->ndirs; k++)
		if (p->dirs[k].step != TT_NONE || p->dirs[k].head != p->dirs[k].tail)
			return false;
	return tt_qrun_ended(p->call.queue) && !tt_qrun_tainted(p->call.queue);
}

/* The links have carried a call. */
static void tell_queue(struct tt_prog *p, const bool *mine)
{
	for (uint32_t k = 0; k < p->ndirs; k++) {
		const struct tt_link *l = p->dirs[k].link;

		if (mine[p->dirs[k].ep] && l->ep->t->far && tt_qrun_asks(p->call.queue, k) && l->ep->t->far(l->priv))
			tt_qrun_told(p->call.queue, k, l->ep);
	}
}

enum tt_run_state tt_run_pass(struct tt_prog *p, int *moved)
{
	bool mine[TT_PROG_EPS], ok, over;

	*moved = 0;
	for (int i = 0; i < p->neps; i++) {
		mine[i] = tt_ep_trylock(p->eps[i]);
		if (mine[i] && p->look)
			p->eps[i]->t->poll(p->eps[i]->priv);
	}
	p->look = false;
	ok = pass_links(p, mine, moved);
	if (!p->call.queue && p->base < p->part.nwindows)
		pass_local(p, moved);
	p->look |= !*moved;
	over = ok && is_over(p);
	if (over && p->call.queue)
		tell_queue(p, mine);
	for (int i = 0; i < p->neps; i++)
		if (mine[i])
			tt_ep_unlock(p->eps[i]);
	if (!ok)
		return TT_RUN_FAILED;
	return over ? TT_RUN_DONE : TT_RUN_GOING;
}

int tt_run_waits(const struct tt_prog *p, int *ranks, int max)
{
	int n = 0;

	for (uint32_t k = 0; k < p->ndirs && n < max; k++) {
		const struct xdir *d = &p->dirs[k];
		bool direct = p->call.queue && tt_qrun_direct(p->call.queue, k);
		bool wanted = direct ? tt_qrun_starved(p->call.queue, k, p->call.seq) :
			      d->tail != d->head || (d->step != TT_NONE && due(p, d));
		bool seen = false;

		for (int i = 0; i < n; i++)
			seen |= ranks[i] == d->link->peer;
		if (wanted && !seen)
			ranks[n++] = d->link->peer;
	}
	return n;
}
