/* A schedule on the queue of a device. At the call the calling thread enqueues all that the device does, in the
 * order of turns that the checker proves: copies, reductions, and for each message a copy between device memory
 * and a slot, pinned or, where a NIC reads and writes it, on the device. From then on queue and network only read
 * and store words: per direction of a link one that counts what the queue has put into slots (or taken from them), and
 * one that counts what the network has moved. SPDX-License-Identifier: Apache-2.0 */
#include "exec_prog.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLOTS 4                 /* per direction */
#define LINE 16                 /* words in a cache line: writers do not share one */
#define RELEASED (1u << 30)     /* above all that a run counts to */
enum { BY_QUEUE, BY_HOST };

struct tt_qprog {
	struct tt_prog view; /* schedule and binding alone: no links, nothing that runs */
	uint32_t *dir_of;    /* per step: its direction, numbered as tt_prog_new does */
	uint32_t *first_of;  /* per direction: its first step */
	uint32_t ndirs, max_skew;
	const void **srcs;
	_Atomic(struct tt_ep *) *far; /* per direction: by whose NICs slots on the device may go, or NULL */
	bool in_use;         /* the pool's */
};

struct qdir {
	struct tt_peer_dir *peer; /* NULL: by the network */
	uint32_t count;           /* messages enqueued */
	size_t at, size;          /* pinned slots; far: of what is too small for others */
	bool far;
	size_t far_at;            /* slots on the device */
	_Atomic uint64_t first;   /* by a device link: 1 and the number of the first message */
};

struct tt_qrun {
	struct tt_qrun *next;
	const struct tt_mem_kind *kind;
	struct tt_mem_place at; /* device memory is of one place */
	struct tt_qprog *prog;
	struct tt_call call;
	struct tt_peers *peers; /* or NULL */
	bool driven;            /* by blocks, which have links of their own */
	struct qdir *dirs;
	uint32_t ndirs, dirs_max;
	size_t slot, slots_size, in_bytes, out_bytes; /* of copies of the buffers, behind the slots */
	uint64_t stirred;                  /* counts of device links at the last look */
	_Atomic uint32_t *words;           /* begun and ended; done and fed; two for each direction; then the slots */
	char *slots;
	size_t pinned_size, tmp_size, scratch_at;
	void *tmp;
	char *far;                         /* slots on the device, which NICs of far_ep read and write */
	struct tt_ep *far_ep;              /* NULL: none */
	void *far_handle;
	size_t far_size;
	bool wait_flushes;
	_Atomic bool busy;                 /* the network part is not finished */
};

/* ---- the schedule's side ---- */

void tt_qprog_free(struct tt_qprog *p)
{
	if (!p)
		return;
	tt_sched_free(p->view.s);
	free(p->view.x);
	free(p->view.refs);
	free(p->view.tmp_at);
	free(p->dir_of);
	free(p->first_of);
	free(p->far);
	free(p->srcs);
	free(p);
}

/* The direction of step i: that of an earlier step with the same peer, lane and way, or a new one. */
static uint32_t number_dir(struct tt_qprog *p, uint32_t i)
{
	const struct tt_sched *s = p->view.s;
	const struct tt_step *a = &s->steps[i];

	for (uint32_t k = 0; k < i; k++) {
		const struct tt_step *b = &s->steps[k];

		if (b->op == a->op && b->peer == a->peer && b->lane == a->lane)
			return p->dir_of[k];
	}
	p->first_of[p->ndirs] = i;
	return p->ndirs++;
}

static void take_steps(struct tt_qprog *p)
{
	const struct tt_sched *s = p->view.s;

	for (uint32_t i = 0; i < s->nrefs; i++)
		p->view.refs[i].r = s->refs[i];
	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];

		p->view.x[i] = (struct xstep){ .op = st->op, .skew = st->skew, .nsrc = st->nsrc,
					       .dst = { .r = st->dst }, .src = p->view.refs + st->src };
		if (st->op == TT_SEND || st->op == TT_RECV)
			p->dir_of[i] = number_dir(p, i);
		p->max_skew = tt_max(p->max_skew, (uint32_t)st->skew);
	}
}

tuttiResult_t tt_qprog_new(struct tt_sched *s, uint32_t depth, struct tt_qprog **out)
{
	struct tt_qprog *p = calloc(1, sizeof(*p));
	uint32_t max_src = 1;

	if (!p) {
		tt_sched_free(s);
		return tt_fail(tuttiSystemError, "no memory for a program");
	}
	p->view.s = s;
	p->view.depth = depth ? depth : 1;
	p->view.tmp_at = calloc(s->nbufs + 1, sizeof(*p->view.tmp_at));
	p->view.x = calloc(s->nsteps + 1, sizeof(*p->view.x));
	p->view.refs = calloc(s->nrefs + 1, sizeof(*p->view.refs));
	p->dir_of = calloc(s->nsteps + 1, sizeof(*p->dir_of));
	p->first_of = calloc(s->nsteps + 1, sizeof(*p->first_of));
	p->far = calloc(s->nsteps + 1, sizeof(*p->far));
	for (uint32_t i = 0; i < s->nsteps; i++)
		max_src = tt_max(max_src, s->steps[i].nsrc);
	p->srcs = calloc(max_src, sizeof(*p->srcs));
	if (!p->view.tmp_at || !p->view.x || !p->view.refs || !p->dir_of || !p->first_of || !p->far || !p->srcs) {
		tt_qprog_free(p);
		return tt_fail(tuttiSystemError, "no memory for a program of %u steps", s->nsteps);
	}
	take_steps(p);
	*out = p;
	return tuttiSuccess;
}

const struct tt_sched *tt_qprog_sched(const struct tt_qprog *p)
{
	return p->view.s;
}

/* Bytes of the largest message: of the first window or the last. */
static size_t largest_message(const struct tt_qprog *p)
{
	const struct tt_prog *v = &p->view;
	size_t most = 0;

	for (uint32_t i = 0; i < v->s->nsteps; i++) {
		const struct xstep *x = &v->x[i];
		const struct xref *r = x->op == TT_RECV ? &x->dst : x->src;

		if (x->op != TT_SEND && x->op != TT_RECV)
			continue;
		most = tt_max(most, tt_prog_length(v, r, 0));
		most = tt_max(most, tt_prog_length(v, r, v->part.nwindows - 1));
	}
	return most * v->elem;
}

/* ---- memory ---- */

static size_t round_up(size_t n)
{
	return (n + 4095) & ~(size_t)4095;
}

static void give_back(const struct tt_mem_kind *kind, enum tt_mem_use use, void *p, size_t n)
{
	if (n && use == TT_MEM_PINNED)
		tt_mem_range_forget(p, n);
	if (n)
		kind->release(p, n, use);
}

/* What is pinned stays where it is as long as the run has it: RDMA may read and write the slots themselves. */
static tuttiResult_t reserve(const struct tt_mem_kind *kind, enum tt_mem_use use, void **p, size_t *have,
			     size_t want)
{
	void *q;

	if (want <= *have)
		return tuttiSuccess;
	TRY(kind->alloc(round_up(want), use, &q));
	give_back(kind, use, *p, *have);
	*p = q;
	*have = round_up(want);
	if (use == TT_MEM_PINNED)
		(void)tt_mem_range_add(NULL, q, *have, true, NULL); /* without, slots are copied once more */
	return tuttiSuccess;
}

static bool is_free(const struct tt_qrun *q)
{
	return !atomic_load_explicit(&q->busy, memory_order_acquire) &&
	       (!q->words || tt_qrun_ended(q));
}

bool tt_qrun_any(const struct tt_qrun *pool, const void *line)
{
	while (pool && (pool->at.line != line || is_free(pool)))
		pool = pool->next;
	return pool != NULL;
}

static struct tt_qrun *find_free(struct tt_qrun **pool, const struct tt_mem_kind *kind,
				 const struct tt_mem_place *at)
{
	struct tt_qrun *q;

	for (q = *pool; q; q = q->next)
		if (q->kind == kind && q->at.where == at->where && is_free(q))
			break;
	if (!q) {
		q = calloc(1, sizeof(*q));
		if (!q)
			return NULL;
		q->kind = kind;
		q->next = *pool;
		*pool = q;
	}
	q->at = *at;
	return q;
}

static _Atomic uint32_t *word(const struct tt_qrun *q, uint32_t dir, int side)
{
	return q->words + LINE * (2 + 2 * dir + (uint32_t)side);
}

static tuttiResult_t reserve_dirs(struct tt_qrun *q)
{
	struct qdir *dirs;

	if (q->ndirs > q->dirs_max) {
		dirs = realloc(q->dirs, q->ndirs * sizeof(*dirs));
		if (!dirs)
			return tt_fail(tuttiSystemError, "no memory for an operation on a device");
		q->dirs = dirs;
		q->dirs_max = q->ndirs;
	}
	return tuttiSuccess;
}

/* ---- slots on the device ---- */

static struct tt_ep *far_ep(const struct tt_qprog *p, uint32_t dir)
{
	return atomic_load_explicit(&p->far[dir], memory_order_acquire);
}

bool tt_qrun_asks(const struct tt_qrun *q, uint32_t dir)
{
	return q->kind->rdma && !q->dirs[dir].peer && !far_ep(q->prog, dir);
}

void tt_qrun_told(struct tt_qrun *q, uint32_t dir, struct tt_ep *ep)
{
	atomic_store_explicit(&q->prog->far[dir], ep, memory_order_release);
}

/* Those of another endpoint than the first stay in pinned memory. */
static struct tt_ep *find_far(const struct tt_qrun *q)
{
	for (uint32_t k = 0; k < q->ndirs; k++)
		if (!q->dirs[k].peer && far_ep(q->prog, k))
			return far_ep(q->prog, k);
	return NULL;
}

static void drop_far(struct tt_qrun *q)
{
	if (q->far_handle)
		tt_ep_dereg(q->far_ep, q->far_handle);
	q->far_handle = NULL;
}

/* False: there are none. */
static bool reserve_far(struct tt_qrun *q, struct tt_ep *ep, size_t want)
{
	size_t grain = q->kind->rdma->grain, n = tt_div_up(want, grain) * grain;
	void *p;

	if (want <= q->far_size && q->far_ep == ep)
		return q->far_handle;
	if (q->kind->alloc(n, TT_MEM_OURS, &p) != tuttiSuccess)
		return false;
	drop_far(q);
	give_back(q->kind, TT_MEM_OURS, q->far, q->far_size);
	q->far = p;
	q->far_size = n;
	q->far_ep = ep;
	if (tt_far_reg(q->kind, q->at.where, ep, p, n, &q->far_handle))
		return true;
	give_back(q->kind, TT_MEM_OURS, p, n);
	q->far_size = 0;
	return false;
}

/* Which directions have slots where; far NULL: all are pinned. */
static void lay_out(struct tt_qrun *q, struct tt_ep *ep, const struct tt_far *far, size_t *far_size)
{
	*far_size = q->slots_size = 0;
	for (uint32_t k = 0; k < q->ndirs; k++) {
		const struct tt_step *st = &q->prog->view.s->steps[q->prog->first_of[k]];
		bool is_send = st->op == TT_SEND;
		struct qdir *d = &q->dirs[k];

		*d = (struct qdir){ .at = q->slots_size, .size = q->slot, .far_at = *far_size };
		if (q->driven)
			continue;
		d->peer = q->peers ? tt_peers_dir(q->peers, (int)st->peer, st->lane, is_send) : NULL;
		if (d->peer)
			continue;
		d->far = far && far_ep(q->prog, k) == ep && (is_send ? far->sends : far->recvs);
		if (d->far)
			d->size = (ep->caps.eager + 63) & ~(size_t)63;
		*far_size += d->far ? q->slot * SLOTS : 0;
		q->slots_size += d->size * SLOTS;
	}
}

static void choose_slots(struct tt_qrun *q)
{
	struct tt_far far = { .recvs = false };
	struct tt_ep *ep;
	size_t size;

	lay_out(q, NULL, NULL, &size);
	ep = q->kind->rdma ? find_far(q) : NULL;
	if (!ep || q->slot <= ep->caps.eager)
		return;
	far = tt_far_look(q->kind, q->at.where, ep);
	if (!far.recvs)
		return;
	lay_out(q, ep, &far, &size);
	q->wait_flushes = far.wait_flushes;
	if (size && !reserve_far(q, ep, size))
		lay_out(q, NULL, NULL, &size);
}

static tuttiResult_t reserve_all(struct tt_qrun *q, size_t tmp)
{
	size_t head = sizeof(uint32_t) * LINE * (2 + 2 * q->ndirs);
	size_t slots = q->slots_size + ((q->in_bytes + 63) & ~(size_t)63) + q->out_bytes +
		       2 * 64; /* a scalar, in a line of its own */
	void *pinned = (void *)q->words;
	tuttiResult_t r = reserve(q->kind, TT_MEM_PINNED, &pinned, &q->pinned_size, head + slots);

	q->words = pinned;
	if (r == tuttiSuccess)
		r = reserve(q->kind, TT_MEM_OURS, &q->tmp, &q->tmp_size, tmp);
	if (r != tuttiSuccess)
		return r;
	q->slots = (char *)q->words + head;
	for (uint32_t i = 0; i < LINE * (2 + 2 * q->ndirs); i++)
		atomic_store_explicit(&q->words[i], 0, memory_order_relaxed);
	return tuttiSuccess;
}

/* A run keeps nothing of a failed one: words count as ended until it is begun. */
static tuttiResult_t taken(struct tt_qrun *q, tuttiResult_t r, struct tt_qrun **out)
{
	if (r != tuttiSuccess) {
		if (q->words)
			atomic_store(&q->words[1], 1);
		return r;
	}
	atomic_store_explicit(&q->busy, true, memory_order_relaxed);
	*out = q;
	return tuttiSuccess;
}

tuttiResult_t tt_qrun_open(struct tt_qrun **pool, const struct tt_mem_kind *kind, const struct tt_mem_place *at,
			   struct tt_qprog *prog, const struct tt_call *call, const struct tt_qrun_needs *needs,
			   struct tt_qrun **out)
{
	struct tt_qrun *q = find_free(pool, kind, at);
	tuttiResult_t r;
	size_t tmp;

	if (!q)
		return tt_fail(tuttiSystemError, "no memory for an operation on a device");
	tmp = needs->driven ? 0 : tt_run_tmp(&prog->view, call);
	q->prog = prog;
	q->call = *call;
	q->ndirs = prog->ndirs;
	q->peers = needs->peers;
	q->driven = needs->driven;
	q->in_bytes = needs->in_bytes;
	q->out_bytes = needs->out_bytes;
	q->slot = needs->driven ? 0 : (largest_message(prog) + 63) & ~(size_t)63;
	q->scratch_at = (tmp + 63) & ~(size_t)63;
	r = reserve_dirs(q);
	if (r == tuttiSuccess) {
		choose_slots(q);
		r = reserve_all(q, q->scratch_at + needs->scratch);
	}
	return taken(q, r, out);
}

tuttiResult_t tt_qrun_open_hosted(struct tt_qrun **pool, const struct tt_mem_kind *kind, const struct tt_mem_place *at,
				  size_t in_bytes, size_t out_bytes, struct tt_qrun **out)
{
	struct tt_qrun *q = find_free(pool, kind, at);

	if (!q)
		return tt_fail(tuttiSystemError, "no memory for an operation on a device");
	q->ndirs = 0;
	q->slots_size = 0;
	q->peers = NULL;
	q->driven = false;
	q->in_bytes = in_bytes;
	q->out_bytes = out_bytes;
	return taken(q, reserve_all(q, 0), out);
}

void tt_qrun_cancel(struct tt_qrun *q)
{
	atomic_store(&q->words[1], 1);
	atomic_store_explicit(&q->busy, false, memory_order_release);
}

bool tt_qrun_free_all(struct tt_qrun **pool, int ms)
{
	bool all = true;

	for (struct tt_qrun *q = *pool, *next; q; q = next) {
		next = q->next;
		for (; ms > 0 && !is_free(q); ms--)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		if (!is_free(q)) { /* the device may still write there: better lost than used twice */
			tt_log(TT_LOG_WARN, "mem", "%s memory of an operation stays: its stream has not come so "
			       "far", q->kind->name);
			tt_mem_range_forget((void *)q->words, q->pinned_size);
			drop_far(q);
			all = false;
			continue;
		}
		drop_far(q);
		give_back(q->kind, TT_MEM_OURS, q->far, q->far_size);
		give_back(q->kind, TT_MEM_PINNED, (void *)q->words, q->pinned_size);
		give_back(q->kind, TT_MEM_OURS, q->tmp, q->tmp_size);
		free(q->dirs);
		free(q);
	}
	*pool = NULL;
	return all;
}

void *tt_qrun_scratch(const struct tt_qrun *q)
{
	return (char *)q->tmp + q->scratch_at;
}

const void *tt_qrun_in(const struct tt_qrun *q)
{
	return q->slots + q->slots_size;
}

void *tt_qrun_out(const struct tt_qrun *q)
{
	return (char *)tt_qrun_in(q) + ((q->in_bytes + 63) & ~(size_t)63);
}

/* ---- enqueueing ---- */

/* What goes in a frame is written and read by the host. */
static bool is_far(const struct tt_qrun *q, uint32_t dir, size_t n)
{
	return q->dirs[dir].far && n > q->far_ep->caps.eager;
}

static char *slot(const struct tt_qrun *q, uint32_t dir, uint32_t pos, size_t n)
{
	const struct qdir *d = &q->dirs[dir];

	return is_far(q, dir, n) ? q->far + d->far_at + q->slot * (pos % SLOTS) :
				   q->slots + d->at + d->size * (pos % SLOTS);
}

/* The first message of a run on a device link: others may still be before it. */
static void note_first(struct qdir *d)
{
	if (!atomic_load_explicit(&d->first, memory_order_relaxed))
		atomic_store_explicit(&d->first, 1ull << 32 | tt_peer_look(d->peer).enqueued, memory_order_relaxed);
}

static tuttiResult_t enqueue_send(struct tt_qrun *q, tuttiStream_t queue, uint32_t i, uint32_t w)
{
	const struct tt_prog *v = &q->prog->view;
	const struct xref *src = v->x[i].src;
	uint32_t dir = q->prog->dir_of[i], pos = q->dirs[dir].count++;
	size_t n = tt_prog_length(v, src, w) * v->elem;

	if (q->dirs[dir].peer) {
		note_first(&q->dirs[dir]);
		return tt_peer_send(q->dirs[dir].peer, queue, q->at.line, tt_prog_address(v, src, w), n);
	}
	if (pos >= SLOTS)
		TRY(q->kind->stream_wait(queue, word(q, dir, BY_HOST), pos + 1 - SLOTS));
	if (n)
		TRY(q->kind->copy(queue, slot(q, dir, pos, n), tt_prog_address(v, src, w), n));
	return q->kind->stream_signal(queue, word(q, dir, BY_QUEUE), pos + 1);
}

static tuttiResult_t enqueue_recv(struct tt_qrun *q, tuttiStream_t queue, uint32_t i, uint32_t w)
{
	const struct tt_prog *v = &q->prog->view;
	const struct xref *dst = &v->x[i].dst;
	uint32_t dir = q->prog->dir_of[i], pos = q->dirs[dir].count++;
	size_t n = tt_prog_length(v, dst, w) * v->elem;

	if (q->dirs[dir].peer) {
		note_first(&q->dirs[dir]);
		return tt_peer_recv(q->dirs[dir].peer, queue, q->at.line, tt_prog_address(v, dst, w), n);
	}
	if (is_far(q, dir, n) && q->wait_flushes)
		TRY(q->kind->rdma->wait_flushed(queue, word(q, dir, BY_HOST), pos + 1));
	else
		TRY(q->kind->stream_wait(queue, word(q, dir, BY_HOST), pos + 1));
	if (n)
		TRY(q->kind->copy(queue, tt_prog_address(v, dst, w), slot(q, dir, pos, n), n));
	return q->kind->stream_signal(queue, word(q, dir, BY_QUEUE), pos + 1);
}

static tuttiResult_t enqueue_local(struct tt_qrun *q, tuttiStream_t queue, uint32_t i, uint32_t w)
{
	const struct tt_prog *v = &q->prog->view;
	const struct xstep *x = &v->x[i];
	size_t n = tt_prog_length(v, &x->dst, w);
	void *dst;

	if (!n)
		return tuttiSuccess;
	dst = tt_prog_address(v, &x->dst, w);
	for (uint32_t k = 0; k < x->nsrc; k++)
		q->prog->srcs[k] = tt_prog_address(v, &x->src[k], w);
	if (x->op == TT_REDUCE_STEP)
		return q->kind->reduce(queue, dst, q->prog->srcs, (int)x->nsrc, n, q->call.type, &q->call.op,
				       TT_SCALE_NONE);
	return dst == q->prog->srcs[0] ? tuttiSuccess :
					 q->kind->copy(queue, dst, q->prog->srcs[0], n * v->elem);
}

static tuttiResult_t enqueue_step(struct tt_qrun *q, tuttiStream_t queue, uint32_t i, uint32_t w)
{
	switch (q->prog->view.x[i].op) {
	case TT_SEND:
		return enqueue_send(q, queue, i, w);
	case TT_RECV:
		return enqueue_recv(q, queue, i, w);
	default:
		return enqueue_local(q, queue, i, w);
	}
}

uint32_t tt_qrun_batches(const struct tt_qrun *q)
{
	const struct tt_prog *v = &q->prog->view;

	return (uint32_t)tt_div_up(v->part.nwindows, v->depth);
}

void tt_qrun_bind(struct tt_qrun *q, const struct tt_call *call)
{
	struct tt_prog *v = &q->prog->view;

	q->call = *call;
	tt_run_tmp(v, &q->call);
	v->call = q->call;
	v->tmp = q->tmp;
}

tuttiResult_t tt_qrun_enqueue(struct tt_qrun *q, tuttiStream_t queue, uint32_t batch)
{
	const struct tt_prog *v = &q->prog->view;
	uint32_t first = batch * v->depth, nb = tt_min(v->part.nwindows - first, v->depth);

	for (uint32_t turn = 0; turn < nb + q->prog->max_skew; turn++)
		for (uint32_t i = 0; i < v->s->nsteps; i++) {
			uint32_t skew = v->x[i].skew;

			if (turn >= skew && turn - skew < nb)
				TRY(enqueue_step(q, queue, i, first + turn - skew));
		}
	return tuttiSuccess;
}

void *tt_qrun_scalar(const struct tt_qrun *q)
{
	return (void *)(((uintptr_t)tt_qrun_out(q) + q->out_bytes + 63) & ~(uintptr_t)63);
}

/* Between pinned memory and a user's of either side. */
static tuttiResult_t enqueue_user_copy(struct tt_qrun *q, tuttiStream_t queue, void *dst, const void *src,
				       bool users_is_host, size_t n)
{
	if (!n)
		return tuttiSuccess;
	return users_is_host && q->kind->copy_host ? q->kind->copy_host(queue, dst, src, n) :
						     q->kind->copy(queue, dst, src, n);
}

tuttiResult_t tt_qrun_hosted_begin(struct tt_qrun *q, tuttiStream_t queue, const void *in)
{
	TRY(enqueue_user_copy(q, queue, q->slots, in, q->at.in_host, q->in_bytes));
	return tt_qrun_enqueue_begin(q, queue);
}

tuttiResult_t tt_qrun_hosted_end(struct tt_qrun *q, tuttiStream_t queue, void *out)
{
	TRY(q->kind->stream_wait(queue, &q->words[LINE], 1));
	TRY(enqueue_user_copy(q, queue, out, tt_qrun_out(q), q->at.out_host, q->out_bytes));
	return tt_qrun_enqueue_end(q, queue);
}

tuttiResult_t tt_qrun_enqueue_await(struct tt_qrun *q, tuttiStream_t queue)
{
	return q->kind->stream_wait(queue, &q->words[LINE + 1], 1);
}

tuttiResult_t tt_qrun_enqueue_begin(struct tt_qrun *q, tuttiStream_t queue)
{
	return q->kind->stream_signal(queue, &q->words[0], 1);
}

tuttiResult_t tt_qrun_enqueue_end(struct tt_qrun *q, tuttiStream_t queue)
{
	return q->kind->stream_signal(queue, &q->words[1], 1);
}

/* ---- the network's side ---- */

void tt_qrun_feed(struct tt_qrun *q)
{
	atomic_store_explicit(&q->words[LINE + 1], 1, memory_order_release);
}

bool tt_qrun_begun(const struct tt_qrun *q)
{
	return atomic_load_explicit(&q->words[0], memory_order_acquire) != 0;
}

bool tt_qrun_ended(const struct tt_qrun *q)
{
	return atomic_load_explicit(&q->words[1], memory_order_acquire) != 0;
}

bool tt_qrun_due(const struct tt_qrun *q, uint32_t dir, bool is_send, uint32_t pos)
{
	uint32_t n = atomic_load_explicit(word(q, dir, BY_QUEUE), memory_order_acquire);

	return (is_send ? n > pos : n + SLOTS > pos) && !tt_qrun_tainted(q);
}

void *tt_qrun_slot(const struct tt_qrun *q, uint32_t dir, uint32_t pos, size_t n)
{
	return slot(q, dir, pos, n);
}

void tt_qrun_moved(struct tt_qrun *q, uint32_t dir)
{
	atomic_fetch_add_explicit(word(q, dir, BY_HOST), 1, memory_order_release);
}

/* ---- device links ---- */

bool tt_qrun_direct(const struct tt_qrun *q, uint32_t dir)
{
	return q->driven || q->dirs[dir].peer;
}

/* What blocks wait for is not seen: for those that have not come, and when all have, for any. */
bool tt_qrun_starved(const struct tt_qrun *q, uint32_t dir, uint32_t seq)
{
	if (!q->driven)
		return tt_peer_look(q->dirs[dir].peer).waits;
	return tt_peers_absent(q->peers, -1, seq) == 0 ||
	       tt_peers_absent(q->peers, (int)q->prog->view.s->steps[q->prog->first_of[dir]].peer, seq);
}

bool tt_qrun_fed(const struct tt_qrun *q, uint32_t seq)
{
	if (q->driven)
		return tt_peers_absent(q->peers, -1, seq) == 0;
	for (uint32_t k = 0; k < q->ndirs; k++) {
		uint64_t first = atomic_load_explicit(&q->dirs[k].first, memory_order_relaxed);

		if (first && (int32_t)(tt_peer_look(q->dirs[k].peer).theirs - (uint32_t)first) > 0)
			return true;
	}
	return false;
}

bool tt_qrun_stirred(struct tt_qrun *q)
{
	uint64_t sum = q->driven ? tt_peers_beats(q->peers) : 0, was = q->stirred;

	for (uint32_t k = 0; k < q->ndirs; k++)
		if (q->dirs[k].peer) {
			struct tt_peer_seen s = tt_peer_look(q->dirs[k].peer);

			sum += (uint64_t)s.done + s.theirs;
		}
	q->stirred = sum;
	return sum != was;
}

bool tt_qrun_tainted(const struct tt_qrun *q)
{
	return q->peers && tt_peers_failed(q->peers) >= 0;
}

void tt_qrun_close(struct tt_qrun *q, bool failed)
{
	if (failed && q->peers)
		tt_peers_fail(q->peers);
	for (uint32_t k = 0; failed && k < q->ndirs; k++)
		atomic_store_explicit(word(q, k, BY_HOST), RELEASED, memory_order_release);
	atomic_store_explicit(&q->words[LINE], 1, memory_order_release);
	tt_qrun_feed(q);
	atomic_store_explicit(&q->busy, false, memory_order_release);
}
