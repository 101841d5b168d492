/* SPDX-License-Identifier: Apache-2.0
 * The checker: proves the schedules of all ranks together before anything runs them.
 *
 * 1. Each schedule alone: references in range, the input never written, and for every two steps
 *    that touch the same memory, one of them writing, a path of dependencies between them
 *    (sched_order). With that no order of execution can show a step anything else, so one run
 *    speaks for all.
 * 2. The messages of every link, put in order at both ends from the ends' own schedules, match
 *    one by one.
 * 3. A run with symbolic values: expressions over (rank, chunk), each kept once, so equal means
 *    the same id. */
#include "sched_check.h"

#include <stdlib.h>
#include <string.h>

/* One end of a link: which steps, and the items (window, step) in the order of issue. */
struct end {
	uint32_t first, n, done;
};

struct link {
	struct end send, recv;
};

enum state { BLOCKED, READY, DONE };

struct side {
	const struct tt_sched *s;
	int64_t *base; /* per buffer: place = base + chunk */
	uint32_t nplaces;
	uint32_t *mem;	/* windows x places: expressions, 0 undefined */
	uint32_t *left; /* windows x steps: what it waits for */
	uint8_t *state; /* windows x steps */
	uint32_t *user_off,
		*users;	      /* steps that depend on a step; in sequential mode the next one */
	uint32_t *lane_first; /* per lane: its first step */
	uint64_t *payload;    /* per step: where its messages are kept */
	uint32_t *queue, *at; /* queued: the items in order; where each is */
};

struct run {
	struct side *sides;
	int p;
	const struct tt_check *how;
	uint32_t windows, nlanes, chunks;
	bool barrier;
	struct link *links;
	uint32_t *steps[2], *items[2]; /* by link: of sends, of receives */
	uint32_t *payload;
	struct tt_exprs *exprs;
	uint64_t *ready; /* rank << 32 | item; an item is window * nsteps + step */
	size_t nready, taken, total, ndone;
	uint64_t random;
};

static bool is_message(const struct tt_step *st)
{
	return st->op == TT_SEND || st->op == TT_RECV;
}

static tuttiResult_t no_memory(void)
{
	return tt_note_error(tuttiSystemError, "no memory to check a schedule");
}

/* What the error that follows is about. */
static void blame(const struct tt_check *how, int rank, uint32_t step)
{
	if (how->fault)
		*how->fault = (struct tt_blame){ rank, step, false };
}

static struct link *link_of(const struct run *r, uint32_t from, uint32_t to, uint32_t lane)
{
	return &r->links[((size_t)from * r->p + to) * r->nlanes + lane];
}

static struct link *step_link(const struct run *r, int rank, const struct tt_step *st)
{
	if (st->op == TT_SEND)
		return link_of(r, (uint32_t)rank, st->peer, st->lane);
	return link_of(r, st->peer, (uint32_t)rank, st->lane);
}

/* ---- the same for all ranks ---- */

static bool same_weights(const struct tt_sched *a, const struct tt_sched *b)
{
	if (!a->weights || !b->weights)
		return a->weights == b->weights;
	return !memcmp(a->weights, b->weights, a->per_block * sizeof *a->weights);
}

static tuttiResult_t check_heads(struct tt_sched *const *ranks, int p, const struct tt_check *how)
{
	const struct tt_sched *a = ranks[0];

	for (int i = 0; i < p; i++) {
		const struct tt_sched *s = ranks[i];

		blame(how, i, UINT32_MAX);
		if (s->rank != i || s->nranks != p || s->coll != a->coll || s->root != a->root ||
		    s->nblocks != a->nblocks || s->per_block != a->per_block ||
		    s->nlanes != a->nlanes || s->ordered != a->ordered || !same_weights(s, a))
			return tt_note_error(tuttiMismatch,
					     "rank %d has a schedule of another kind", i);
		if (s->one_window && how->windows > 1)
			return tt_note_error(tuttiMismatch, "rank %d: %s serves one window only", i,
					     s->algo);
		if (how->windows > 1 && tt_sched_widest(s) != tt_sched_widest(a))
			return tt_note_error(tuttiMismatch, "rank %d: its largest message has the weight %llu, not "
					     "%llu as that of rank 0, so it has other windows", i,
					     (unsigned long long)tt_sched_widest(s),
					     (unsigned long long)tt_sched_widest(a));
		if (how->sequential && !s->block_runnable)
			return tt_note_error(tuttiMismatch, "rank %d: %s is not block-runnable", i,
					     s->algo);
	}
	return tuttiSuccess;
}

/* ---- set-up ---- */

static tuttiResult_t place_buffers(struct side *d, const struct tt_check *how)
{
	const struct tt_sched *s = d->s;
	uint32_t all = s->nblocks * s->per_block;

	d->base = calloc(s->nbufs, sizeof *d->base);
	if (!d->base)
		return no_memory();
	d->base[TT_OUT] = how->aliased ? 0 : all;
	d->nplaces = how->aliased ? all : 2 * all;
	for (uint32_t b = TT_TMP; b < s->nbufs; b++) {
		d->base[b] = (int64_t)d->nplaces - s->bufs[b].first;
		d->nplaces += s->bufs[b].n;
	}
	return tuttiSuccess;
}

/* Who waits for a step: its dependents, or in sequential mode the next step of its lane. */
static void link_users(struct side *d, bool sequential, uint32_t *last, uint32_t *count)
{
	const struct tt_sched *s = d->s;
	uint32_t at = 0;

	for (int pass = 0; pass < 2; pass++) {
		memset(last, 0xff, s->nlanes * sizeof *last);
		for (uint32_t i = 0; i < s->nsteps; i++) {
			const struct tt_step *st = &s->steps[i];
			uint32_t n = sequential ? last[st->lane] != UINT32_MAX : st->ndeps;

			for (uint32_t k = 0; k < n; k++) {
				uint32_t on = sequential ? last[st->lane] : s->deps[st->dep + k];

				if (pass)
					d->users[d->user_off[on] + --count[on]] = i;
				else
					count[on]++;
			}
			d->left[i] = n;
			if (last[st->lane] == UINT32_MAX)
				d->lane_first[st->lane] = i;
			last[st->lane] = i;
		}
		for (uint32_t i = 0; !pass && i < s->nsteps; i++) {
			d->user_off[i] = at;
			at += count[i];
		}
	}
	d->user_off[s->nsteps] = at;
}

static tuttiResult_t set_up_steps(struct run *r, struct side *d)
{
	const struct tt_sched *s = d->s;
	size_t items = (size_t)r->windows * s->nsteps + 1;
	uint32_t *last = calloc(s->nlanes, sizeof *last), *count = calloc(items, sizeof *count);

	d->mem = calloc((size_t)r->windows * d->nplaces + 1, sizeof *d->mem);
	d->left = calloc(items, sizeof *d->left);
	d->state = calloc(items, 1);
	d->payload = calloc(items, sizeof *d->payload);
	d->user_off = calloc(s->nsteps + 1, sizeof *d->user_off);
	d->users = calloc(s->ndeps + s->nsteps + 1, sizeof *d->users);
	d->lane_first = calloc(s->nlanes, sizeof *d->lane_first);
	if (!last || !count || !d->mem || !d->left || !d->state || !d->payload || !d->user_off ||
	    !d->users || !d->lane_first) {
		free(last);
		free(count);
		return no_memory();
	}
	link_users(d, r->how->sequential, last, count);
	/* In the later windows also for itself a window earlier; a lane's first step for the
	 * last one. */
	for (uint32_t w = 1; w < r->windows; w++)
		for (uint32_t i = 0; i < s->nsteps; i++)
			d->left[w * s->nsteps + i] = r->how->sequential ? 1 : d->left[i] + 1;
	r->total += (size_t)r->windows * s->nsteps;
	free(last);
	free(count);
	return tuttiSuccess;
}

static void init_memory(struct run *r, struct side *d)
{
	const struct tt_sched *s = d->s;
	struct tt_buf in = s->bufs[TT_IN];

	if (s->coll == TT_BROADCAST && s->rank != s->root)
		return;
	for (uint32_t w = 0; w < r->windows; w++)
		for (uint32_t c = in.first; c < in.first + in.n; c++)
			d->mem[(size_t)w * d->nplaces + c] = tt_expr_leaf(r->exprs, s->rank, c);
}

/* ---- the order of messages on a link ---- */

static uint64_t issue_key(const struct run *r, const struct tt_sched *s, uint32_t w, uint32_t step)
{
	uint64_t turn = r->how->sequential ? w : (uint64_t)w + s->steps[step].skew;

	return turn << 32 | step;
}

/* Sorts n steps, and puts their items into order. */
static void sort_items(const struct run *r, const struct tt_sched *s, uint32_t *steps, uint32_t n,
		       uint32_t *items)
{
	uint32_t head[64] = { 0 };

	for (uint32_t i = 1; i < n; i++)
		for (uint32_t k = i;
		     k && issue_key(r, s, 0, steps[k]) < issue_key(r, s, 0, steps[k - 1]); k--) {
			uint32_t t = steps[k];

			steps[k] = steps[k - 1];
			steps[k - 1] = t;
		}
	for (size_t at = 0; at < (size_t)n * r->windows; at++) {
		uint64_t least = UINT64_MAX;
		uint32_t from = 0;

		for (uint32_t w = 0; w < r->windows; w++) {
			uint64_t key =
				head[w] < n ? issue_key(r, s, w, steps[head[w]]) : UINT64_MAX;

			if (key < least) {
				least = key;
				from = w;
			}
		}
		items[at] = from * s->nsteps + steps[head[from]++];
	}
}

static void sort_end(struct run *r, const struct tt_sched *s, const struct end *e, int dir)
{
	sort_items(r, s, r->steps[dir] + e->first, e->n, r->items[dir] + (size_t)e->first * r->windows);
}

static tuttiResult_t set_up_queue(const struct run *r, struct side *d)
{
	uint32_t n = d->s->nsteps, all = n * r->windows, *steps = calloc(n + 1, sizeof *steps);

	d->queue = calloc(all + 1, sizeof *d->queue);
	d->at = calloc(all + 1, sizeof *d->at);
	if (!steps || !d->queue || !d->at) {
		free(steps);
		return no_memory();
	}
	for (uint32_t i = 0; i < n; i++)
		steps[i] = i;
	sort_items(r, d->s, steps, n, d->queue);
	for (uint32_t i = 0; i < all; i++) {
		d->at[d->queue[i]] = i;
		d->left[d->queue[i]] = i > 0;
	}
	free(steps);
	return tuttiSuccess;
}

static struct end *step_end(const struct run *r, int rank, const struct tt_step *st)
{
	struct link *l = step_link(r, rank, st);

	return st->op == TT_SEND ? &l->send : &l->recv;
}

/* The first message of a link that the other end does not have. */
static void blame_extra(const struct run *r, size_t link, const struct link *l)
{
	size_t pair = link / r->nlanes;
	bool send = l->send.n > l->recv.n;
	int rank = (int)(send ? pair / r->p : pair % r->p);
	const struct tt_sched *s = r->sides[rank].s;
	uint32_t left = send ? l->recv.n : l->send.n;

	for (uint32_t k = 0; k < s->nsteps; k++) {
		const struct tt_step *st = &s->steps[k];

		if (is_message(st) && step_link(r, rank, st) == l && (st->op == TT_SEND) == send && !left--) {
			blame(r->how, rank, k);
			return;
		}
	}
}

static tuttiResult_t count_messages(struct run *r)
{
	uint32_t at[2] = { 0, 0 };
	uint64_t words = 0;

	for (int i = 0; i < r->p; i++) {
		const struct tt_sched *s = r->sides[i].s;

		for (uint32_t k = 0; k < s->nsteps; k++) {
			const struct tt_step *st = &s->steps[k];

			if (is_message(st))
				step_end(r, i, st)->n++;
			if (st->op != TT_SEND)
				continue;
			r->sides[i].payload[k] = words;
			words += (uint64_t)r->windows * (r->barrier ? 1 : s->refs[st->src].n);
		}
	}
	for (size_t i = 0; i < (size_t)r->p * r->p * r->nlanes; i++) {
		struct link *l = &r->links[i];

		if (l->send.n != l->recv.n) {
			blame_extra(r, i, l);
			return tt_note_error(tuttiMismatch, "rank %zu sends %u messages to rank %zu on lane %zu, which "
					     "receives %u", i / r->nlanes / r->p, l->send.n,
					     i / r->nlanes % r->p, i % r->nlanes, l->recv.n);
		}
		l->send.first = at[0];
		l->recv.first = at[1];
		at[0] += l->send.n;
		at[1] += l->recv.n;
	}
	for (int dir = 0; dir < 2; dir++) {
		r->steps[dir] = calloc(at[dir] + 1, sizeof **r->steps);
		r->items[dir] = calloc((size_t)at[dir] * r->windows + 1, sizeof **r->items);
		if (!r->steps[dir] || !r->items[dir])
			return no_memory();
	}
	r->payload = calloc(words + 1, sizeof *r->payload);
	return r->payload ? tuttiSuccess : no_memory();
}

static void order_messages(struct run *r)
{
	for (int i = 0; i < r->p; i++) {
		const struct tt_sched *s = r->sides[i].s;

		for (uint32_t k = 0; k < s->nsteps; k++) {
			const struct tt_step *st = &s->steps[k];

			if (is_message(st)) {
				struct end *e = step_end(r, i, st);

				r->steps[st->op == TT_RECV][e->first + e->done++] = k;
			}
		}
	}
	for (size_t i = 0; i < (size_t)r->p * r->p * r->nlanes; i++) {
		struct link *l = &r->links[i];
		size_t pair = i / r->nlanes;

		l->send.done = l->recv.done = 0;
		if (!l->send.n)
			continue;
		sort_end(r, r->sides[pair / r->p].s, &l->send, 0);
		sort_end(r, r->sides[pair % r->p].s, &l->recv, 1);
	}
}

/* ---- the run ---- */

static void push(struct run *r, int rank, uint32_t item)
{
	r->ready[r->nready++] = (uint64_t)rank << 32 | item;
}

static void satisfy(struct run *r, int rank, uint32_t item)
{
	if (!--r->sides[rank].left[item])
		push(r, rank, item);
}

static void finish(struct run *r, int rank, uint32_t item)
{
	struct side *d = &r->sides[rank];
	uint32_t n = d->s->nsteps, w = item / n, step = item % n;

	d->state[item] = DONE;
	r->ndone++;
	if (r->how->queued) {
		if (d->at[item] + 1 < n * r->windows)
			satisfy(r, rank, d->queue[d->at[item] + 1]);
		return;
	}
	for (uint32_t k = d->user_off[step]; k < d->user_off[step + 1]; k++)
		satisfy(r, rank, w * n + d->users[k]);
	if (w + 1 == r->windows)
		return;
	if (!r->how->sequential)
		satisfy(r, rank, item + n);
	else if (d->user_off[step] == d->user_off[step + 1])
		satisfy(r, rank, (w + 1) * n + d->lane_first[d->s->steps[step].lane]);
}

static uint32_t *place(const struct run *r, int rank, uint32_t w, struct tt_ref ref)
{
	const struct side *d = &r->sides[rank];

	return d->mem + (size_t)w * d->nplaces + (size_t)(d->base[ref.buf] + ref.chunk);
}

static tuttiResult_t undefined(const struct run *r, const struct side *d, uint32_t item, struct tt_ref ref)
{
	blame(r->how, d->s->rank, item % d->s->nsteps);
	return tt_note_error(tuttiMismatch, "rank %d step %u window %u reads chunk %u of buffer %u, which nobody wrote",
			     d->s->rank, item % d->s->nsteps, item / d->s->nsteps, ref.chunk,
			     ref.buf);
}

/* A barrier's message says who was heard: its sender and what it refers to. */
static tuttiResult_t send_heard(struct run *r, int rank, uint32_t w, struct tt_ref src,
				uint32_t *out)
{
	const uint32_t *mem = place(r, rank, w, src);

	*out = tt_expr_leaf(r->exprs, rank, 0);
	for (uint32_t i = 0; i < src.n && *out; i++) {
		uint32_t two[2] = { *out, mem[i] };

		*out = two[1] ? tt_expr_reduce(r->exprs, two, 2) : *out;
	}
	return *out ? tuttiSuccess : no_memory();
}

static tuttiResult_t send_message(struct run *r, int rank, uint32_t item)
{
	const struct side *d = &r->sides[rank];
	uint32_t n = d->s->nsteps, w = item / n;
	struct tt_ref src = d->s->refs[d->s->steps[item % n].src];
	const uint32_t *mem = place(r, rank, w, src);

	if (r->barrier)
		return send_heard(r, rank, w, src, r->payload + d->payload[item % n] + w);
	for (uint32_t i = 0; i < src.n; i++)
		if (!mem[i])
			return undefined(r, d, item, tt_ref(src.buf, src.chunk + i, 1));
	memcpy(r->payload + d->payload[item % n] + (size_t)w * src.n, mem, src.n * sizeof *mem);
	return tuttiSuccess;
}

/* Equal lengths whatever the count: the same window, the same chunks of a block. */
static bool messages_match(const struct run *r, uint32_t sw, uint32_t rw, struct tt_ref src,
			   struct tt_ref dst)
{
	uint32_t per = r->sides[0].s->per_block;

	if (r->barrier)
		return sw == rw;
	return sw == rw && src.n == dst.n && src.chunk % per == dst.chunk % per;
}

static tuttiResult_t recv_message(struct run *r, int from, uint32_t sent, int rank, uint32_t item)
{
	const struct tt_sched *a = r->sides[from].s, *b = r->sides[rank].s;
	uint32_t i = sent % a->nsteps, k = item % b->nsteps, w = item / b->nsteps;
	struct tt_ref src = a->refs[a->steps[i].src], dst = b->steps[k].dst;
	const uint32_t *in = r->payload + r->sides[from].payload[i];
	uint32_t *mem = place(r, rank, w, dst);

	blame(r->how, rank, k);
	if (!messages_match(r, sent / a->nsteps, w, src, dst))
		return tt_note_error(tuttiMismatch,
				     "rank %d step %u window %u sends chunks %u+%u to rank %d, "
				     "whose step %u window %u receives %u+%u",
				     from, i, sent / a->nsteps, src.chunk, src.n, rank, k, w,
				     dst.chunk, dst.n);
	for (uint32_t c = 0; c < dst.n; c++)
		mem[c] = r->barrier ? in[w] : in[(size_t)w * src.n + c];
	return tuttiSuccess;
}

static uint32_t nth_item(const struct run *r, const struct end *e, int dir, uint32_t n)
{
	return r->items[dir][(size_t)e->first * r->windows + n];
}

/* The next item of an end has its dependencies. */
static bool at_head(const struct run *r, const struct end *e, int rank, int dir)
{
	return e->done < e->n * r->windows &&
	       r->sides[rank].state[nth_item(r, e, dir, e->done)] == READY;
}

/* Moves what can move on a link. A rendezvous needs both ends; a full link waits for a receive. */
static tuttiResult_t advance(struct run *r, int from, int to, struct link *l)
{
	for (;;) {
		bool send = at_head(r, &l->send, from, 0), recv = at_head(r, &l->recv, to, 1);
		uint32_t held = l->send.done - l->recv.done, item;

		if (recv && held) {
			item = nth_item(r, &l->recv, 1, l->recv.done);
			TRY(recv_message(r, from, nth_item(r, &l->send, 0, l->recv.done), to,
					 item));
			l->recv.done++;
			finish(r, to, item);
		} else if (send && (held < r->how->depth || (recv && !held))) {
			item = nth_item(r, &l->send, 0, l->send.done);
			TRY(send_message(r, from, item));
			l->send.done++;
			finish(r, from, item);
		} else {
			return tuttiSuccess;
		}
	}
}

static tuttiResult_t run_copy(struct run *r, int rank, uint32_t w, uint32_t item, struct tt_ref dst,
			      struct tt_ref src)
{
	const uint32_t *from = place(r, rank, w, src);

	for (uint32_t c = 0; c < src.n; c++)
		if (!from[c])
			return undefined(r, &r->sides[rank], item, src);
	memmove(place(r, rank, w, dst), from, src.n * sizeof *from);
	return tuttiSuccess;
}

static tuttiResult_t run_reduce(struct run *r, int rank, uint32_t w, uint32_t item)
{
	const struct side *d = &r->sides[rank];
	const struct tt_step *st = &d->s->steps[item % d->s->nsteps];
	uint32_t *kids = malloc(st->nsrc * sizeof *kids), *dst = place(r, rank, w, st->dst);
	tuttiResult_t res = kids ? tuttiSuccess : no_memory();

	for (uint32_t c = 0; c < st->dst.n && res == tuttiSuccess; c++) {
		for (uint32_t k = 0; k < st->nsrc && res == tuttiSuccess; k++) {
			struct tt_ref src = d->s->refs[st->src + k];

			kids[k] = place(r, rank, w, src)[c];
			if (!kids[k])
				res = undefined(r, d, item, src);
		}
		if (res == tuttiSuccess)
			dst[c] = tt_expr_reduce(r->exprs, kids, st->nsrc);
		if (res == tuttiSuccess && !dst[c])
			res = no_memory();
	}
	free(kids);
	return res;
}

static tuttiResult_t run_item(struct run *r, int rank, uint32_t item)
{
	struct side *d = &r->sides[rank];
	const struct tt_step *st = &d->s->steps[item % d->s->nsteps];
	uint32_t w = item / d->s->nsteps;

	d->state[item] = READY;
	if (st->op == TT_SEND)
		return advance(r, rank, (int)st->peer, step_link(r, rank, st));
	if (st->op == TT_RECV)
		return advance(r, (int)st->peer, rank, step_link(r, rank, st));
	if (st->op == TT_COPY)
		TRY(run_copy(r, rank, w, item, st->dst, d->s->refs[st->src]));
	else
		TRY(run_reduce(r, rank, w, item));
	finish(r, rank, item);
	return tuttiSuccess;
}

/* A ready item: the oldest, or with a seed any. */
static uint64_t pick(struct run *r)
{
	uint64_t got;
	size_t k = r->taken;

	if (r->how->seed) {
		r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
		k += (size_t)((r->random >> 33) % (r->nready - r->taken));
	}
	got = r->ready[k];
	r->ready[k] = r->ready[r->taken];
	r->taken++;
	return got;
}

static tuttiResult_t deadlock(const struct run *r)
{
	for (int i = 0; i < r->p; i++) {
		const struct side *d = &r->sides[i];
		uint32_t n = d->s->nsteps;

		for (uint32_t k = 0; k < n * r->windows; k++)
			if (d->state[k] == READY) {
				blame(r->how, i, k % n);
				return tt_note_error(tuttiMismatch, "deadlock: %zu of %zu steps done; rank %d "
						     "step %u window %u waits for rank %u", r->ndone, r->total,
						     i, k % n, k / n, d->s->steps[k % n].peer);
			}
	}
	return tt_note_error(tuttiMismatch, "deadlock: %zu of %zu steps done", r->ndone, r->total);
}

static tuttiResult_t execute(struct run *r)
{
	r->ready = calloc(r->total + 1, sizeof *r->ready);
	if (!r->ready)
		return no_memory();
	r->random = r->how->seed;
	for (int i = 0; i < r->p; i++)
		for (uint32_t k = 0; k < r->sides[i].s->nsteps; k++)
			if (!r->sides[i].left[k])
				push(r, i, k);
	while (r->taken < r->nready) {
		uint64_t next = pick(r);

		TRY(run_item(r, (int)(next >> 32), (uint32_t)next));
	}
	return r->ndone == r->total ? tuttiSuccess : deadlock(r);
}

/* ---- what was promised ---- */

/* The step that wrote it last, if one did. */
static void blame_writer(const struct run *r, const struct tt_sched *s, uint32_t c)
{
	uint32_t k = s->nsteps;

	while (k-- > 0) {
		const struct tt_step *st = &s->steps[k];

		if (st->op != TT_SEND && st->dst.buf == TT_OUT && c - st->dst.chunk < st->dst.n)
			break;
	}
	blame(r->how, s->rank, k);
	if (r->how->fault)
		r->how->fault->result = true;
}

static tuttiResult_t check_chunk(const struct run *r, const struct tt_sched *s, uint32_t c,
				 uint32_t got, uint32_t *same)
{
	const char *wrong = NULL;

	if (!got) {
		wrong = "was not written";
	} else if (s->coll == TT_ALLGATHER || s->coll == TT_BROADCAST) {
		int from = s->coll == TT_BROADCAST ? s->root : (int)(c / s->per_block);

		if (got != tt_expr_leaf(r->exprs, from, c))
			wrong = "is not what it should be a copy of";
	} else {
		wrong = tt_expr_wrong(r->exprs, got, c, s->ordered);
	}
	if (!wrong && s->coll != TT_REDUCESCATTER && *same && *same != got)
		wrong = "is another expression than on rank 0";
	*same = got;
	if (!wrong)
		return tuttiSuccess;
	blame_writer(r, s, c);
	return tt_note_error(tuttiMismatch, "rank %d: output chunk %u %s", s->rank, c, wrong);
}

static tuttiResult_t check_results(const struct run *r)
{
	uint32_t *same = calloc(r->chunks, sizeof *same);
	tuttiResult_t res = same ? tuttiSuccess : no_memory();

	for (int i = 0; i < r->p; i++) {
		const struct tt_sched *s = r->sides[i].s;
		struct tt_buf out = s->bufs[TT_OUT];

		if (s->coll == TT_REDUCE && i != s->root)
			continue;
		for (uint32_t w = 0; w < r->windows; w++)
			for (uint32_t c = out.first; c < out.first + out.n && res == tuttiSuccess;
			     c++)
				res = check_chunk(r, s, c, *place(r, i, w, tt_ref(TT_OUT, c, 1)),
						  &same[c]);
	}
	free(same);
	return res;
}

/* All that a rank received, and itself, must be everybody. */
static tuttiResult_t check_barrier(struct run *r)
{
	for (int i = 0; i < r->p; i++)
		for (uint32_t w = 0; w < r->windows; w++) {
			const struct side *d = &r->sides[i];
			uint32_t all = tt_expr_leaf(r->exprs, i, 0), unheard;

			for (uint32_t k = 0; k < d->nplaces && all; k++) {
				uint32_t two[2] = { all, d->mem[(size_t)w * d->nplaces + k] };

				all = two[1] ? tt_expr_reduce(r->exprs, two, 2) : all;
			}
			if (!all)
				return no_memory();
			blame(r->how, i, UINT32_MAX);
			unheard = (uint32_t)r->p - tt_expr_ranks(r->exprs, all);
			if (unheard)
				return tt_note_error(tuttiMismatch,
						     "rank %d leaves the barrier without "
						     "having heard of %u ranks",
						     i, unheard);
		}
	return tuttiSuccess;
}

/* ---- entry ---- */

static tuttiResult_t set_up(struct run *r, struct tt_sched *const *ranks)
{
	const struct tt_sched *a = ranks[0];
	uint32_t step;

	r->windows = r->how->windows;
	r->nlanes = a->nlanes;
	r->chunks = a->nblocks * a->per_block;
	r->barrier = a->coll == TT_BARRIER;
	r->sides = calloc((size_t)r->p, sizeof *r->sides);
	r->links = calloc((size_t)r->p * r->p * r->nlanes, sizeof *r->links);
	r->exprs = tt_exprs_new(r->p, r->chunks);
	if (!r->sides || !r->links || !r->exprs)
		return no_memory();
	for (int i = 0; i < r->p; i++) {
		r->sides[i].s = ranks[i];
		TRY(place_buffers(&r->sides[i], r->how));
		blame(r->how, i, UINT32_MAX);
		TRY(tt_sched_order(ranks[i], r->how->aliased, r->how->fault ? &r->how->fault->step : &step));
		TRY(set_up_steps(r, &r->sides[i]));
		if (r->how->queued)
			TRY(set_up_queue(r, &r->sides[i]));
		init_memory(r, &r->sides[i]);
	}
	TRY(count_messages(r));
	order_messages(r);
	return tuttiSuccess;
}

static void tear_down(struct run *r)
{
	for (int i = 0; r->sides && i < r->p; i++) {
		struct side *d = &r->sides[i];

		free(d->base);
		free(d->mem);
		free(d->left);
		free(d->state);
		free(d->user_off);
		free(d->users);
		free(d->payload);
		free(d->lane_first);
		free(d->queue);
		free(d->at);
	}
	for (int dir = 0; dir < 2; dir++) {
		free(r->steps[dir]);
		free(r->items[dir]);
	}
	free(r->sides);
	free(r->links);
	free(r->payload);
	free(r->ready);
	tt_exprs_free(r->exprs);
}

tuttiResult_t tt_sched_check(struct tt_sched *const *ranks, int nranks, const struct tt_check *how)
{
	struct run r = { .p = nranks, .how = how };
	tuttiResult_t res;

	if (nranks < 1 || how->windows < 1 || how->windows > 64)
		return tt_note_error(tuttiInvalidArgument, "check of %d ranks, %u windows", nranks,
				     how->windows);
	if ((how->sequential || how->queued) && !how->depth)
		return tt_note_error(tuttiInvalidArgument, "sequential lanes need a depth of 1");
	TRY(check_heads(ranks, nranks, how));
	res = set_up(&r, ranks);
	if (res == tuttiSuccess)
		res = execute(&r);
	if (res == tuttiSuccess)
		res = r.barrier ? check_barrier(&r) : check_results(&r);
	tear_down(&r);
	return res;
}
