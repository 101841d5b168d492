/* The executor: runs the steps of a schedule window by window over links. Per direction of a link the
 * messages go in the one order that both ends derive from the schedule, and everything else runs as soon
 * as its dependencies have. SPDX-License-Identifier: Apache-2.0 */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

#define MAX_EPS 4
#define NONE UINT32_MAX

struct xstep {
	uint8_t op;
	bool received_first; /* fused: received op x */
	uint16_t skew;
	uint32_t fused;      /* RECV: the reduce that it can do on the way, or NONE */
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
	uint32_t step, window;    /* the message at the head; step NONE: none left */
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
	struct tt_ep *eps[MAX_EPS];
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
	return p->began;
}

int tt_prog_eps(const struct tt_prog *p, struct tt_ep **eps, int max)
{
	int n = p->neps < max ? p->neps : max;

	memcpy(eps, p->eps, (size_t)n * sizeof(*eps));
	return n;
}

/* ---- binding ---- */

static void free_dirs(struct tt_prog *p)
{
	for (uint32_t i = 0; p->dirs && i < p->ndirs; i++)
		free(p->dirs[i].steps);
	free(p->dirs);
}

void tt_prog_free(struct tt_prog *p)
{
	if (!p)
		return;
	free_dirs(p);
	free(p->x);
	free(p->done);
	free(p->claimed);
	free(p->local);
	free(p->srcs);
	free(p->tmp_at);
	free(p->finished);
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
		d->ep = (uint8_t)ep_index(p, link->ep);
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

static bool same_ref(const struct tt_ref *a, const struct tt_ref *b)
{
	return a->buf == b->buf && a->chunk == b->chunk && a->n == b->n;
}

static bool overlaps(const struct tt_ref *a, const struct tt_ref *b)
{
	return a->buf == b->buf && a->chunk < b->chunk + b->n && b->chunk < a->chunk + a->n;
}

/* Whether a step of [from, to) reads the reference. */
static bool read_in(const struct tt_sched *s, const struct tt_ref *r, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		for (uint32_t k = 0; s->steps[i].op != TT_RECV && k < s->steps[i].nsrc; k++)
			if (overlaps(&s->refs[s->steps[i].src + k], r))
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
		return NONE;
	for (uint32_t i = recv + 1; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		const struct tt_ref *src = &s->refs[st->src];

		if (st->op != TT_REDUCE_STEP || st->nsrc != 2 || !depends_on(s, st, recv))
			continue;
		if (!same_ref(&src[0], &r->dst) == !same_ref(&src[1], &r->dst) ||
		    read_in(s, &r->dst, recv + 1, i) ||
		    (!same_ref(&st->dst, &r->dst) && read_in(s, &r->dst, i + 1, s->nsteps)))
			return NONE;
		return i;
	}
	return NONE;
}

static void fuse(struct tt_prog *p, struct xdir *d)
{
	for (uint32_t k = 0; !d->is_send && d->link->ep->t->recv_reduce && k < d->n; k++) {
		struct xstep *x = &p->x[d->steps[k]];
		const struct tt_ref *src;

		x->fused = fusable(p->s, d->steps[k]);
		if (x->fused == NONE)
			continue;
		src = p->x[x->fused].src;
		x->received_first = same_ref(&src[0], &x->dst);
		x->x = src[x->received_first ? 1 : 0];
	}
}

static tuttiResult_t wire_up(struct tt_prog *p, tt_link_fn fn, void *ctx)
{
	const struct tt_sched *s = p->s;
	uint32_t max_src = 1;

	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];

		p->x[i] = (struct xstep){ .op = st->op, .skew = st->skew, .fused = NONE, .ndeps = st->ndeps,
					  .deps = s->deps + st->dep, .dst = st->dst,
					  .src = s->refs + st->src, .nsrc = st->nsrc };
		if (st->nsrc > max_src)
			max_src = st->nsrc;
		if (st->op == TT_SEND || st->op == TT_RECV)
			TRY(add_message(p, i, fn, ctx));
		else
			p->local[p->nlocal++] = i;
	}
	for (uint32_t k = 0; k < p->ndirs; k++)
		fuse(p, &p->dirs[k]);
	p->srcs = malloc(max_src * sizeof(*p->srcs));
	return p->srcs ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for a program");
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
	p->done = calloc(n, sizeof(*p->done));
	p->claimed = calloc(n, sizeof(*p->claimed));
	p->local = malloc(n * sizeof(*p->local));
	p->tmp_at = calloc(s->nbufs + 1, sizeof(*p->tmp_at));
	p->finished = calloc(p->depth, sizeof(*p->finished));
	p->dirs = calloc(messages + 1, sizeof(*p->dirs));
	if (!p->x || !p->done || !p->claimed || !p->local || !p->tmp_at || !p->finished || !p->dirs) {
		tt_fail(r, "no memory for a program of %u steps", s->nsteps);
		goto free_all;
	}
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

static char *address(const struct tt_prog *p, const struct tt_ref *r, uint32_t w)
{
	const struct tt_buf *buf = &p->s->bufs[r->buf];
	size_t first = block_of(p, buf->first);
	char *base;

	if (r->buf == TT_IN)
		base = (char *)p->call.in;
	else if (r->buf == TT_OUT)
		base = p->call.out;
	else
		return p->tmp + (w % p->depth) * p->tmp_stride + p->tmp_at[r->buf] +
		       p->elem * ((block_of(p, r->chunk) - first) * p->part.window +
				  inner(p, w, r->chunk) - inner(p, w, buf->first));
	return base + p->elem * (tt_part_offset(&p->part, w, r->chunk) - first * p->part.count);
}

static size_t length(const struct tt_prog *p, const struct tt_ref *r, uint32_t w)
{
	return r->n ? tt_part_len(&p->part, w, r->chunk, r->n) : 0;
}

/* Elements of a block whose largest reference is a message of at most `bytes`. */
static size_t window_of(const struct tt_sched *s, size_t count, size_t bytes, size_t elem)
{
	uint64_t total = 0, widest = 1, sum;

	for (uint32_t i = 0; i < s->per_block; i++)
		total += s->weights ? s->weights[i] : 1;
	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		const struct tt_ref *r = st->op == TT_RECV ? &st->dst : &s->refs[st->src];

		if (st->op != TT_SEND && st->op != TT_RECV)
			continue;
		sum = 0;
		for (uint32_t k = 0; k < r->n && k < s->per_block; k++)
			sum += s->weights ? s->weights[(r->chunk + k) % s->per_block] : 1;
		if (sum > widest)
			widest = sum;
	}
	if (s->one_window || !count || s->nranks == 1 || !total)
		return count;
	sum = bytes / elem * total / widest;
	return sum < 1 ? 1 : tt_min(count, sum);
}

static void partition(struct tt_prog *p, const struct tt_call *call)
{
	const struct tt_sched *s = p->s;

	p->elem = tt_type_size(call->type);
	p->part = (struct tt_part){ .count = call->count, .per_block = s->per_block,
				    .weights = s->weights, .align = tt_max(64 / p->elem, 1) };
	p->part.window = window_of(s, call->count, call->window_bytes, p->elem);
	p->part.nwindows = call->count ? (uint32_t)tt_div_up(call->count, p->part.window) : 1;
}

size_t tt_run_tmp(struct tt_prog *p, const struct tt_call *call)
{
	const struct tt_sched *s = p->s;
	size_t at = 0;

	partition(p, call);
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
	return at * (p->part.nwindows < p->depth ? p->part.nwindows : p->depth);
}

/* ---- the order of messages: (batch, window + skew, step) ---- */

static void seek(struct tt_prog *p, struct xdir *d)
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
	d->step = NONE;
}

static void next(struct tt_prog *p, struct xdir *d)
{
	d->pos++;
	d->at++;
	seek(p, d);
}

void tt_run_begin(struct tt_prog *p, const struct tt_call *call, void *tmp)
{
	p->call = *call;
	tt_run_tmp(p, call);
	p->tmp = tmp;
	p->base = p->s->nsteps ? 0 : p->part.nwindows; /* a barrier of one has no steps */
	p->began = false;
	p->fault = (struct tt_run_fault){ 0 };
	memset(p->done, 0, p->s->nsteps * sizeof(*p->done));
	memset(p->claimed, 0, p->s->nsteps * sizeof(*p->claimed));
	memset(p->finished, 0, p->depth * sizeof(*p->finished));
	for (uint32_t i = 0; i < p->ndirs; i++) {
		struct xdir *d = &p->dirs[i];

		d->batch = d->time = d->at = d->pos = d->head = d->tail = 0;
		seek(p, d);
	}
}

/* ---- running ---- */

static bool ready(const struct tt_prog *p, uint32_t i, uint32_t w)
{
	const struct xstep *x = &p->x[i];

	if (w >= p->base + p->depth)
		return false;
	for (uint32_t k = 0; k < x->ndeps; k++)
		if (p->done[x->deps[k]] <= w)
			return false;
	return true;
}

static void finish(struct tt_prog *p, uint32_t i, uint32_t w)
{
	p->done[i]++;
	if (++p->finished[w % p->depth] < p->s->nsteps)
		return;
	while (p->base < p->part.nwindows && p->finished[p->base % p->depth] == p->s->nsteps)
		p->finished[p->base++ % p->depth] = 0;
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
	size_t n;

	o->fused = false;
	if (x->op == TT_SEND) {
		struct tt_note note = { p->call.sig, p->call.seq, o->pos };

		n = length(p, x->src, o->window) * p->elem;
		return t->send(d->link->priv, n ? address(p, x->src, o->window) : NULL, n, &note, &o->req);
	}
	n = length(p, &x->dst, o->window) * p->elem;
	o->fused = n && x->fused != NONE && can_fuse(p, x, o);
	if (!o->fused)
		return t->recv(d->link->priv, n ? address(p, &x->dst, o->window) : NULL, n, &o->req);
	o->combine = (struct tt_combine){ .dst = address(p, &p->x[x->fused].dst, o->window),
					  .x = address(p, &x->x, o->window),
					  .received_first = x->received_first,
					  .type = p->call.type, .op = &p->call.op };
	return t->recv_reduce(d->link->priv, &o->combine, n, &o->req);
}

static void arrived(struct tt_prog *p, const struct post *o)
{
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

		if (state == TT_REQ_POSTED)
			return true;
		if (state == TT_REQ_FAILED)
			return fail(p, d);
		if (!d->is_send && !check_note(p, d, &o->req.note, o->pos))
			return false;
		arrived(p, o);
		d->tail++;
		++*moved;
	}
	return true;
}

static bool issue(struct tt_prog *p, struct xdir *d, int *moved)
{
	while (d->step != NONE && d->head - d->tail < TT_POSTS && ready(p, d->step, d->window)) {
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
			d->head++;
		} else {
			if (!d->is_send && !check_note(p, d, &o->req.note, o->pos))
				return false;
			arrived(p, o);
		}
		next(p, d);
	}
	return true;
}

static void run_local(struct tt_prog *p, uint32_t i, uint32_t w)
{
	const struct xstep *x = &p->x[i];
	size_t n = length(p, &x->dst, w);
	char *dst;

	if (!n)
		return;
	dst = address(p, &x->dst, w);
	for (uint32_t k = 0; k < x->nsrc; k++)
		p->srcs[k] = address(p, &x->src[k], w);
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

enum tt_run_state tt_run_pass(struct tt_prog *p, int *moved)
{
	bool mine[MAX_EPS], ok;

	*moved = 0;
	for (int i = 0; i < p->neps; i++) {
		mine[i] = tt_ep_trylock(p->eps[i]);
		if (mine[i])
			p->eps[i]->t->poll(p->eps[i]->priv);
	}
	pass_local(p, moved);
	ok = pass_links(p, mine, moved);
	for (int i = 0; i < p->neps; i++)
		if (mine[i])
			tt_ep_unlock(p->eps[i]);
	if (!ok)
		return TT_RUN_FAILED;
	return p->base == p->part.nwindows ? TT_RUN_DONE : TT_RUN_GOING;
}

int tt_run_waits(const struct tt_prog *p, int *ranks, int max)
{
	int n = 0;

	for (uint32_t k = 0; k < p->ndirs && n < max; k++) {
		const struct xdir *d = &p->dirs[k];
		bool due = d->tail != d->head || (d->step != NONE && ready(p, d->step, d->window));
		bool seen = false;

		for (int i = 0; i < n; i++)
			seen |= ranks[i] == d->link->peer;
		if (due && !seen)
			ranks[n++] = d->link->peer;
	}
	return n;
}
