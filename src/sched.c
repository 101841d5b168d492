/* SPDX-License-Identifier: Apache-2.0
 * Schedules: the builder that derives the dependencies, and the one partition function. */
#include "sched.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, MAX_LANES = 255, MAX_REDUCED = 4096 };

/* A place of memory: one per chunk of IN and OUT together, one per chunk of each temporary. */
struct place {
	uint32_t writer;  /* the last step that wrote it, or NONE */
	uint32_t readers; /* since then: a list in `readers` */
};

struct reader {
	uint32_t step, next;
	bool in; /* it read the user's input */
};

struct tt_builder {
	struct tt_sched *s;
	struct place *places;
	struct reader *readers;
	uint32_t *mark;	 /* per step: the last step that took it as dependency, plus one */
	uint32_t *bases; /* per buffer: its first place minus its first chunk (wraps) */
	uint32_t nplaces, nreaders, lane;
	uint32_t cap_places, cap_readers, cap_mark, cap_bases, cap_steps, cap_refs, cap_deps,
		cap_bufs;
	tuttiResult_t error;
	uint32_t bad_step; /* which one the error is about */
	char text[200];
};

const char *tt_coll_name(enum tt_coll c)
{
	static const char *const names[TT_NCOLLS] = {
		"AllReduce", "AllGather", "ReduceScatter", "Broadcast",
		"Reduce",    "Barrier",	  "SendRecv",
	};

	return (unsigned)c < TT_NCOLLS ? names[c] : "unknown";
}

__attribute__((format(printf, 3, 4))) static void fail(struct tt_builder *b, tuttiResult_t r,
						       const char *fmt, ...)
{
	va_list ap;

	if (b->error != tuttiSuccess)
		return;
	b->error = r;
	b->bad_step = b->s->nsteps;
	va_start(ap, fmt);
	vsnprintf(b->text, sizeof b->text, fmt, ap);
	va_end(ap);
}

/* Makes room for `need` objects; the array is left as it was when there is no memory. */
static bool grow(struct tt_builder *b, void *array, uint32_t *cap, size_t need, size_t size)
{
	void *old, *p;
	size_t n = tt_max(need, *cap + *cap / 2 + 8);

	if (need <= *cap)
		return true;
	memcpy(&old, array, sizeof old);
	p = n < NONE ? realloc(old, n * size) : NULL;
	if (!p) {
		fail(b, tuttiSystemError, "no memory for a schedule of %u steps", b->s->nsteps);
		return false;
	}
	memset((char *)p + *cap * size, 0, (n - *cap) * size);
	memcpy(array, &p, sizeof p);
	*cap = (uint32_t)n;
	return true;
}

static uint32_t add_buf(struct tt_builder *b, uint32_t first, uint32_t n, uint32_t base)
{
	struct tt_sched *s = b->s;
	uint32_t id = s->nbufs;

	if (!grow(b, &s->bufs, &b->cap_bufs, (size_t)id + 1, sizeof *s->bufs) ||
	    !grow(b, &b->bases, &b->cap_bases, (size_t)id + 1, sizeof *b->bases))
		return 0;
	s->bufs[id] = (struct tt_buf){ first, n };
	b->bases[id] = base;
	s->nbufs++;
	return id;
}

static void add_places(struct tt_builder *b, uint32_t n)
{
	if (!grow(b, &b->places, &b->cap_places, (size_t)b->nplaces + n, sizeof *b->places))
		return;
	for (uint32_t i = 0; i < n; i++)
		b->places[b->nplaces++] = (struct place){ NONE, NONE };
}

/* IN and OUT share their places: a schedule has to be right in place as well as apart. */
static void add_user_bufs(struct tt_builder *b)
{
	struct tt_sched *s = b->s;
	uint32_t all = s->nblocks * s->per_block, own = (uint32_t)s->rank * s->per_block;
	bool in_own = s->coll == TT_ALLGATHER, out_own = s->coll == TT_REDUCESCATTER;

	if (s->coll == TT_BARRIER) {
		add_buf(b, 0, 0, 0);
		add_buf(b, 0, 0, 0);
		return;
	}
	add_places(b, all);
	add_buf(b, in_own ? own : 0, in_own ? s->per_block : all, 0);
	add_buf(b, out_own ? own : 0, out_own ? s->per_block : all, 0);
}

static bool arguments_fit(enum tt_coll coll, int rank, int nranks, int root, uint32_t per_block,
			  uint32_t nlanes)
{
	if ((unsigned)coll >= TT_SENDRECV || nranks < 1 || rank < 0 || rank >= nranks)
		return false;
	if (root < 0 || root >= nranks || per_block < 1 || nlanes < 1 || nlanes > MAX_LANES)
		return false;
	return (uint64_t)per_block * (uint64_t)nranks < NONE / 2;
}

tuttiResult_t tt_sched_begin(struct tt_builder **out, enum tt_coll coll, const char *algo, int rank,
			     int nranks, int root, uint32_t per_block, uint32_t nlanes)
{
	bool blocks = coll == TT_ALLGATHER || coll == TT_REDUCESCATTER;
	struct tt_builder *b;

	if (!arguments_fit(coll, rank, nranks, root, per_block, nlanes))
		return tt_fail(
			tuttiInvalidArgument,
			"no schedule for %s by %s: rank %d of %d, root %d, %u chunks, %u lanes",
			tt_coll_name(coll), algo, rank, nranks, root, per_block, nlanes);
	b = calloc(1, sizeof *b);
	if (b)
		b->s = calloc(1, sizeof *b->s);
	if (!b || !b->s) {
		free(b);
		return tt_fail(tuttiSystemError, "no memory for a schedule");
	}
	*b->s = (struct tt_sched){ .coll = coll,
				   .algo = algo,
				   .rank = rank,
				   .nranks = nranks,
				   .root = root,
				   .nblocks = blocks ? (uint32_t)nranks : 1,
				   .per_block = per_block,
				   .nlanes = nlanes };
	add_user_bufs(b);
	*out = b;
	return tuttiSuccess;
}

void tt_sched_weights(struct tt_builder *b, const uint32_t *weights)
{
	uint32_t n = b->s->per_block, *copy;
	uint64_t sum = 0;
	bool equal = true;

	for (uint32_t i = 0; i < n; i++) {
		sum += weights[i];
		equal = equal && weights[i] == weights[0];
	}
	if (!sum)
		fail(b, tuttiInvalidArgument, "all weights of a schedule's chunks are 0");
	if (equal || b->error != tuttiSuccess)
		return;
	copy = malloc(n * sizeof *copy);
	if (!copy) {
		fail(b, tuttiSystemError, "no memory for the weights of %u chunks", n);
		return;
	}
	memcpy(copy, weights, n * sizeof *copy);
	free((void *)(uintptr_t)b->s->weights);
	b->s->weights = copy;
}

void tt_sched_lane_weights(struct tt_builder *b, const struct tt_shape *shape, uint32_t cuts)
{
	uint32_t n = b->s->per_block, *w;

	if (!shape->weights || n == cuts)
		return;
	if (n != shape->nlanes * cuts) {
		fail(b, tuttiInternalError, "%u chunks for %u lanes of %u", n, shape->nlanes, cuts);
		return;
	}
	w = malloc(n * sizeof *w);
	if (!w) {
		fail(b, tuttiSystemError, "no memory for the weights of %u chunks", n);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		w[i] = shape->weights[i / cuts];
	tt_sched_weights(b, w);
	free(w);
}

uint32_t tt_sched_tmp(struct tt_builder *b, uint32_t first, uint32_t n)
{
	uint32_t base = b->nplaces - first;

	if ((uint64_t)first + n > (uint64_t)b->s->nblocks * b->s->per_block)
		fail(b, tuttiInternalError, "a temporary of chunks %u..%u", first, first + n);
	if (b->error != tuttiSuccess)
		return 0;
	add_places(b, n);
	return add_buf(b, first, n, base);
}

void tt_sched_ordered(struct tt_builder *b)
{
	b->s->ordered = true;
}

static uint64_t weight_of(const struct tt_sched *s, const struct tt_ref *r)
{
	uint64_t sum = 0;

	for (uint32_t k = 0; k < r->n && k < s->per_block; k++)
		sum += s->weights ? s->weights[(r->chunk + k) % s->per_block] : 1;
	return sum;
}

void tt_sched_message(struct tt_builder *b, struct tt_ref largest)
{
	uint64_t weight = weight_of(b->s, &largest);

	b->s->widest = weight > b->s->widest ? weight : b->s->widest;
}

uint64_t tt_sched_widest(const struct tt_sched *s)
{
	uint64_t widest = s->widest ? s->widest : 1;

	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		bool message = st->op == TT_SEND || st->op == TT_RECV;
		uint64_t weight = message ? weight_of(s, st->op == TT_RECV ? &st->dst : &s->refs[st->src]) : 0;

		widest = weight > widest ? weight : widest;
	}
	return widest;
}

/* ---- steps ---- */

static bool ref_fits(struct tt_builder *b, struct tt_ref r)
{
	struct tt_sched *s = b->s;

	if (b->error != tuttiSuccess)
		return false;
	if (r.buf >= s->nbufs || r.chunk < s->bufs[r.buf].first ||
	    (uint64_t)r.chunk + r.n > (uint64_t)s->bufs[r.buf].first + s->bufs[r.buf].n) {
		fail(b, tuttiInternalError, "step %u of %s names chunks %u+%u of buffer %u",
		     s->nsteps, s->algo, r.chunk, r.n, r.buf);
		return false;
	}
	if (r.n && r.chunk / s->per_block != (r.chunk + r.n - 1) / s->per_block)
		s->one_window = true;
	return true;
}

static void depend(struct tt_builder *b, uint32_t on)
{
	struct tt_sched *s = b->s;

	if (on == NONE || on == s->nsteps || b->mark[on] == s->nsteps + 1)
		return;
	if (!grow(b, &s->deps, &b->cap_deps, (size_t)s->ndeps + 1, sizeof *s->deps))
		return;
	b->mark[on] = s->nsteps + 1;
	s->deps[s->ndeps++] = on;
}

static void read_ref(struct tt_builder *b, struct tt_ref r)
{
	if (!ref_fits(b, r) ||
	    !grow(b, &b->readers, &b->cap_readers, (size_t)b->nreaders + r.n, sizeof *b->readers))
		return;
	for (uint32_t i = 0; i < r.n; i++) {
		struct place *p = &b->places[b->bases[r.buf] + r.chunk + i];

		depend(b, p->writer);
		b->readers[b->nreaders] =
			(struct reader){ b->s->nsteps, p->readers, r.buf == TT_IN };
		p->readers = b->nreaders++;
	}
}

/* `home`: the copy of an input chunk to its own place of the output. In place it does nothing,
 * so those that read the input need not be waited for, but stay on record for the next writer. */
static void write_ref(struct tt_builder *b, struct tt_ref r, bool home)
{
	if (!ref_fits(b, r))
		return;
	if (r.buf == TT_IN)
		fail(b, tuttiInternalError, "step %u of %s writes the input", b->s->nsteps,
		     b->s->algo);
	for (uint32_t i = 0; i < r.n; i++) {
		struct place *p = &b->places[b->bases[r.buf] + r.chunk + i];

		depend(b, p->writer);
		for (uint32_t k = p->readers; k != NONE; k = b->readers[k].next)
			if (!home || !b->readers[k].in)
				depend(b, b->readers[k].step);
		p->writer = b->s->nsteps;
		if (!home)
			p->readers = NONE;
	}
}

static struct tt_step *open_step(struct tt_builder *b, enum tt_step_op op, uint32_t lane)
{
	struct tt_sched *s = b->s;
	struct tt_step *st;

	if (b->error != tuttiSuccess ||
	    !grow(b, &s->steps, &b->cap_steps, (size_t)s->nsteps + 1, sizeof *s->steps) ||
	    !grow(b, &b->mark, &b->cap_mark, (size_t)s->nsteps + 1, sizeof *b->mark))
		return NULL;
	if (lane >= s->nlanes) {
		fail(b, tuttiInternalError, "%s uses lane %u of %u", s->algo, lane, s->nlanes);
		return NULL;
	}
	st = &s->steps[s->nsteps];
	*st = (struct tt_step){
		.op = (uint8_t)op, .lane = (uint8_t)lane, .src = s->nrefs, .dep = s->ndeps
	};
	b->lane = lane;
	return st;
}

static void add_source(struct tt_builder *b, struct tt_ref r)
{
	struct tt_sched *s = b->s;

	if (!grow(b, &s->refs, &b->cap_refs, (size_t)s->nrefs + 1, sizeof *s->refs))
		return;
	s->refs[s->nrefs++] = r;
}

static void close_step(struct tt_builder *b, struct tt_step *st)
{
	struct tt_sched *s = b->s;

	st->nsrc = s->nrefs - st->src;
	st->ndeps = s->ndeps - st->dep;
	if (b->error == tuttiSuccess)
		s->nsteps++;
}

static struct tt_step *open_message(struct tt_builder *b, enum tt_step_op op, uint32_t lane,
				    uint32_t skew, int peer)
{
	struct tt_step *st = open_step(b, op, lane);

	if (!st)
		return NULL;
	if (skew > UINT16_MAX || peer < 0 || peer >= b->s->nranks || peer == b->s->rank) {
		fail(b, tuttiInternalError, "%s: a message of rank %d with rank %d, skew %u",
		     b->s->algo, b->s->rank, peer, skew);
		return NULL;
	}
	st->skew = (uint16_t)skew;
	st->peer = (uint32_t)peer;
	return st;
}

void tt_send(struct tt_builder *b, uint32_t lane, uint32_t skew, int peer, struct tt_ref src)
{
	struct tt_step *st = open_message(b, TT_SEND, lane, skew, peer);

	if (!st)
		return;
	read_ref(b, src);
	add_source(b, src);
	close_step(b, st);
}

void tt_recv(struct tt_builder *b, uint32_t lane, uint32_t skew, int peer, struct tt_ref dst)
{
	struct tt_step *st = open_message(b, TT_RECV, lane, skew, peer);

	if (!st)
		return;
	st->dst = dst;
	write_ref(b, dst, false);
	close_step(b, st);
}

void tt_copy(struct tt_builder *b, struct tt_ref dst, struct tt_ref src)
{
	bool home = src.buf == TT_IN && dst.buf == TT_OUT && src.chunk == dst.chunk;
	struct tt_step *st = open_step(b, TT_COPY, b->lane);

	if (!st)
		return;
	if (src.n != dst.n)
		fail(b, tuttiInternalError, "%s copies %u chunks to %u", b->s->algo, src.n, dst.n);
	st->dst = dst;
	if (home)
		ref_fits(b, src);
	else
		read_ref(b, src);
	write_ref(b, dst, home);
	add_source(b, src);
	close_step(b, st);
}

void tt_reducev(struct tt_builder *b, struct tt_ref dst, const struct tt_ref *src, uint32_t nsrc)
{
	struct tt_step *st;

	if (nsrc == 1) {
		tt_copy(b, dst, src[0]);
		return;
	}
	st = open_step(b, TT_REDUCE_STEP, b->lane);
	if (!st)
		return;
	if (!nsrc)
		fail(b, tuttiInternalError, "%s reduces nothing", b->s->algo);
	st->dst = dst;
	for (uint32_t i = 0; i < nsrc; i++) {
		if (src[i].n != dst.n)
			fail(b, tuttiInternalError, "%s reduces %u chunks to %u", b->s->algo,
			     src[i].n, dst.n);
		read_ref(b, src[i]);
		add_source(b, src[i]);
	}
	write_ref(b, dst, false);
	close_step(b, st);
}

void tt_reduce(struct tt_builder *b, struct tt_ref dst, struct tt_ref a, struct tt_ref c)
{
	struct tt_ref src[2] = { a, c };

	tt_reducev(b, dst, src, 2);
}

void tt_sched_after(struct tt_builder *b, uint32_t step)
{
	struct tt_sched *s = b->s;
	struct tt_step *st;

	if (b->error != tuttiSuccess || !s->nsteps)
		return;
	st = &s->steps[s->nsteps - 1];
	if (step + 1 >= s->nsteps)
		fail(b, tuttiInvalidArgument, "step %u waits for step %u, which is not before it", s->nsteps - 1, step);
	for (uint32_t k = 0; k < st->ndeps; k++)
		if (s->deps[st->dep + k] == step)
			return;
	if (b->error != tuttiSuccess || !grow(b, &s->deps, &b->cap_deps, (size_t)s->ndeps + 1, sizeof *s->deps))
		return;
	s->deps[s->ndeps++] = step;
	st->ndeps++;
}

/* ---- the end ---- */

static int latest_first(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x < y) - (x > y);
}

static void sort_deps(uint32_t *d, uint32_t n)
{
	bool sorted = true;

	for (uint32_t i = 1; i < n && sorted; i++)
		sorted = d[i - 1] >= d[i];
	if (!sorted)
		qsort(d, n, sizeof *d, latest_first);
}

/* Drops dependencies that others imply: the executor counts each one at every window. */
static void drop_implied(struct tt_builder *b)
{
	struct tt_sched *s = b->s;
	size_t words = tt_div_up(s->nsteps, 64);
	uint64_t *reach = s->nsteps <= MAX_REDUCED ? calloc(s->nsteps * words + 1, 8) : NULL;
	uint32_t kept = 0;

	if (!reach)
		return; /* only slower */
	for (uint32_t i = 0; i < s->nsteps; i++) {
		struct tt_step *st = &s->steps[i];
		uint64_t *mine = reach + i * words;
		uint32_t first = kept;

		sort_deps(s->deps + st->dep, st->ndeps);
		for (uint32_t k = 0; k < st->ndeps; k++) {
			uint32_t d = s->deps[st->dep + k];

			if (mine[d / 64] >> (d % 64) & 1)
				continue;
			for (size_t w = 0; w <= d / 64; w++)
				mine[w] |= reach[d * words + w];
			mine[d / 64] |= 1ull << (d % 64);
			s->deps[kept++] = d;
		}
		st->dep = first;
		st->ndeps = kept - first;
	}
	s->ndeps = kept;
	free(reach);
}

/* A local step belongs to the lane of the message that fed it, else to that of the message before it, and its
 * turn is that of the last step it waits for. A message must not wait for one of a later turn: the order of
 * turns is how a queue of a device runs the whole. */
static void settle_locals(struct tt_builder *b)
{
	struct tt_sched *s = b->s;

	s->block_runnable = true;
	for (uint32_t i = 0; i < s->nsteps; i++) {
		struct tt_step *st = &s->steps[i];
		bool local = st->op == TT_COPY || st->op == TT_REDUCE_STEP;

		if (local && st->ndeps)
			st->lane = s->steps[s->deps[st->dep]].lane;
		for (uint32_t k = 0; k < st->ndeps; k++) {
			const struct tt_step *on = &s->steps[s->deps[st->dep + k]];

			if (on->lane != st->lane)
				s->block_runnable = false;
			if (local && on->skew > st->skew)
				st->skew = on->skew;
			if (on->skew > st->skew && b->error == tuttiSuccess) {
				fail(b, tuttiInternalError, "%s: step %u of rank %d has skew %u and waits for "
				     "one of skew %u", s->algo, i, s->rank, st->skew, on->skew);
				b->bad_step = i;
			}
		}
	}
}

/* One rank alone copies, whatever the algorithm. */
static void build_alone(struct tt_builder *b)
{
	struct tt_sched *s = b->s;

	s->nsteps = s->nrefs = s->ndeps = 0;
	s->nbufs = TT_TMP;
	b->lane = 0;
	for (uint32_t i = 0; i < b->nplaces; i++)
		b->places[i] = (struct place){ NONE, NONE };
	if (s->coll != TT_BARRIER)
		tt_copy(b, tt_ref(TT_OUT, 0, s->per_block), tt_ref(TT_IN, 0, s->per_block));
}

void tt_sched_drop(struct tt_builder *b)
{
	tt_sched_free(b->s);
	free(b->places);
	free(b->readers);
	free(b->mark);
	free(b->bases);
	free(b);
}

static void finish(struct tt_builder *b)
{
	if (b->s->nranks == 1 && b->error == tuttiSuccess)
		build_alone(b);
	/* Others point into the arrays, at no element too: there must be arrays. */
	if (grow(b, &b->s->deps, &b->cap_deps, 1, sizeof *b->s->deps) &&
	    grow(b, &b->s->refs, &b->cap_refs, 1, sizeof *b->s->refs) && b->error == tuttiSuccess) {
		drop_implied(b);
		settle_locals(b);
	}
}

tuttiResult_t tt_sched_try(struct tt_builder *b, struct tt_sched **out, uint32_t *step)
{
	tuttiResult_t r;

	finish(b);
	r = b->error;
	*step = b->bad_step;
	if (r != tuttiSuccess) {
		tt_note_error(r, "%s", b->text);
	} else {
		*out = b->s;
		b->s = NULL;
	}
	tt_sched_drop(b);
	return r;
}

tuttiResult_t tt_sched_end(struct tt_builder *b, struct tt_sched **out)
{
	uint32_t step;
	tuttiResult_t r = tt_sched_try(b, out, &step);

	return r == tuttiSuccess ? r : tt_fail(r, "%s", tt_last_error());
}

const struct tt_sched *tt_sched_so_far(const struct tt_builder *b, const char **error)
{
	*error = b->error == tuttiSuccess ? NULL : b->text;
	return b->s;
}

static void *copy_of(const void *from, size_t n, size_t size)
{
	void *p = malloc(n * size + 1);

	return p && n ? memcpy(p, from, n * size) : p;
}

struct tt_sched *tt_sched_copy(const struct tt_sched *s)
{
	struct tt_sched *c = malloc(sizeof *c);

	if (!c)
		return NULL;
	*c = *s;
	c->weights = s->weights ? copy_of(s->weights, s->per_block, sizeof *s->weights) : NULL;
	c->deps = copy_of(s->deps, s->ndeps, sizeof *s->deps);
	c->bufs = copy_of(s->bufs, s->nbufs, sizeof *s->bufs);
	c->steps = copy_of(s->steps, s->nsteps, sizeof *s->steps);
	c->refs = copy_of(s->refs, s->nrefs, sizeof *s->refs);
	if ((s->weights && !c->weights) || !c->deps || !c->bufs || !c->steps || !c->refs) {
		tt_sched_free(c);
		return NULL;
	}
	return c;
}

void tt_sched_free(struct tt_sched *s)
{
	if (!s)
		return;
	free((void *)(uintptr_t)s->weights);
	free(s->bufs);
	free(s->steps);
	free(s->refs);
	free(s->deps);
	free(s);
}

/* ---- partition ---- */

/* len * a / b without overflow, a <= b. */
static size_t share(size_t len, uint64_t a, uint64_t b)
{
	return (size_t)((unsigned __int128)len * a / b);
}

static size_t weighted(const struct tt_part *p, size_t len, uint32_t c)
{
	uint64_t before = 0, all = 0;

	for (uint32_t i = 0; i < p->per_block; i++) {
		before += i < c ? p->weights[i] : 0;
		all += p->weights[i];
	}
	return share(len, before, all);
}

/* Elements before chunk c of a window that has len. */
static size_t inside(const struct tt_part *p, size_t len, uint32_t c)
{
	size_t n = p->per_block, at;

	if (c == 0 || c == n)
		return c ? len : 0;
	at = p->weights ? weighted(p, len, c) : len / n * c + len % n * c / n;
	if (p->align > 1 && len / n >= p->align)
		at -= at % p->align;
	return at;
}

static size_t window_start(const struct tt_part *p, uint32_t w)
{
	if (w && p->window >= p->count)
		return p->count;
	return tt_min((size_t)w * p->window, p->count);
}

static size_t window_len(const struct tt_part *p, uint32_t w)
{
	size_t left = p->count - window_start(p, w);

	return p->window && w + 1 < p->nwindows ? tt_min(p->window, left) : left;
}

size_t tt_part_offset(const struct tt_part *p, uint32_t w, uint32_t chunk)
{
	uint32_t block = chunk / p->per_block;

	return block * p->count + window_start(p, w) +
	       inside(p, window_len(p, w), chunk - block * p->per_block);
}

size_t tt_part_len(const struct tt_part *p, uint32_t w, uint32_t chunk, uint32_t n)
{
	uint32_t c = chunk % p->per_block;
	size_t len;

	if (c + n > p->per_block)
		return tt_part_offset(p, w, chunk + n) - tt_part_offset(p, w, chunk);
	len = window_len(p, w);
	return inside(p, len, c + n) - inside(p, len, c);
}
