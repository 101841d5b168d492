/* Makes programs for blocks of devices from schedules, and bindings for calls. The order in which blocks run is that
 * of a device's queue (exec_queue.c), which the checker proves for a rank as one program with a message ahead on each
 * link; blocks are parts of it that wait for less. SPDX-License-Identifier: Apache-2.0 */
#include "exec_dev.h"

#include <stdlib.h>
#include <string.h>

#include "exec_prog.h"

_Static_assert((int)TT_DEV_SEND == (int)TT_SEND && (int)TT_DEV_RECV == (int)TT_RECV &&
	       (int)TT_DEV_COPY == (int)TT_COPY && (int)TT_DEV_REDUCE == (int)TT_REDUCE_STEP, "one numbering of steps");

struct tt_dev_code {
	struct tt_prog view; /* schedule and binding alone, as in exec_queue.c */
	struct tt_dev_prog *prog;
	struct tt_dev_dir *dirs;
	uint32_t *last, *block_of; /* while it is made: per step the last reader of what stays in its slot; per lane */
	uint32_t ndrops, joined;
};

static void free_notes(struct tt_dev_code *c)
{
	free(c->last);
	free(c->block_of);
	c->last = c->block_of = NULL;
}

void tt_dev_code_free(struct tt_dev_code *c)
{
	if (!c)
		return;
	tt_sched_free(c->view.s);
	free(c->view.x);
	free(c->view.refs);
	free(c->view.tmp_at);
	free(c->prog);
	free(c->dirs);
	free_notes(c);
	free(c);
}

/* ---- lanes to blocks ---- */

static uint32_t find(uint32_t *up, uint32_t l)
{
	while (up[l] != l) {
		up[l] = up[up[l]];
		l = up[l];
	}
	return l;
}

/* Lanes with a dependency between them have one number; returns how many numbers there are. */
static uint32_t join_lanes(struct tt_dev_code *c)
{
	const struct tt_sched *s = c->view.s;
	uint32_t *up = c->block_of, *number = up + s->nlanes, n = 0;

	for (uint32_t l = 0; l < s->nlanes; l++) {
		up[l] = l;
		number[l] = TT_DEV_NONE;
	}
	for (uint32_t i = 0; i < s->nsteps; i++)
		for (uint32_t k = 0; k < s->steps[i].ndeps; k++) {
			uint32_t a = find(up, s->steps[i].lane);
			uint32_t b = find(up, s->steps[s->deps[s->steps[i].dep + k]].lane);

			c->joined += a != b;
			up[tt_max(a, b)] = tt_min(a, b);
		}
	for (uint32_t i = 0; i < s->nsteps; i++) {
		uint32_t l = find(up, s->steps[i].lane);

		if (number[l] == TT_DEV_NONE)
			number[l] = n++;
	}
	for (uint32_t l = 0; l < s->nlanes; l++)
		number[l] = number[find(up, l)];
	memcpy(up, number, s->nlanes * sizeof(*up));
	return n;
}

/* ---- what stays in its slot ---- */

enum use { NOT, WHOLE, OTHERWISE };

/* How a step reads what was received into r. */
static enum use use_of(const struct tt_sched *s, const struct tt_step *st, const struct tt_ref *r)
{
	enum use use = NOT;

	for (uint32_t k = 0; k < st->nsrc; k++) {
		const struct tt_ref *src = &s->refs[st->src + k];

		if (tt_ref_overlap(src, r) && (!tt_ref_same(src, r) || use == OTHERWISE))
			return OTHERWISE;
		if (tt_ref_overlap(src, r))
			use = WHOLE;
	}
	return use;
}

/* A receive into a temporary that is read in the same turn, and not after the link's next message, is not copied: the
 * readers find it in its slot. Returns the last of them, or TT_DEV_NONE. At most one message of a link stays so. */
static uint32_t last_reader(const struct tt_sched *s, uint32_t recv)
{
	const struct tt_step *r = &s->steps[recv];
	uint32_t last = TT_DEV_NONE;
	bool next = false;

	for (uint32_t i = recv + 1; r->dst.buf >= TT_TMP && r->dst.n && i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		enum use use = use_of(s, st, &r->dst);

		if (use == OTHERWISE || (use == WHOLE && (next || st->skew != r->skew)))
			return TT_DEV_NONE;
		if (use == WHOLE)
			last = i;
		if (st->op != TT_SEND && tt_ref_overlap(&st->dst, &r->dst))
			return tt_ref_same(&st->dst, &r->dst) ? last : TT_DEV_NONE;
		next |= st->op == TT_RECV && st->peer == r->peer && st->lane == r->lane;
	}
	return last;
}

/* ---- the program ---- */

static uint32_t number_dir(struct tt_dev_code *c, const struct tt_step *st)
{
	struct tt_dev_dir want = { st->peer, st->lane, st->op == TT_SEND };
	uint32_t i = 0;

	for (; i < c->prog->nlinks; i++)
		if (c->dirs[i].peer == want.peer && c->dirs[i].lane == want.lane && c->dirs[i].is_send == want.is_send)
			return i;
	c->dirs[c->prog->nlinks++] = want;
	return i;
}

static struct tt_dev_ref place(const struct tt_sched *s, const struct tt_ref *r)
{
	uint32_t pb = s->per_block, first = s->bufs[r->buf].first, end = r->chunk % pb + r->n;
	struct tt_dev_ref d = { .buf = r->buf, .link = TT_DEV_NONE };

	if (!r->n)
		return d;
	d.block = r->chunk / pb - first / pb;
	d.chunk = r->chunk % pb;
	d.first = first % pb;
	d.blocks = end > pb ? end / pb : 0;
	d.end = end > pb ? end % pb : end;
	return d;
}

static void *array(const struct tt_dev_code *c, uint32_t at)
{
	return (char *)c->prog + at;
}

/* Step i, and what it reads or receives that stays in a slot. */
static void take_step(struct tt_dev_code *c, uint32_t i, struct tt_dev_step *out)
{
	const struct tt_sched *s = c->view.s;
	const struct tt_step *st = &s->steps[i];
	struct tt_dev_ref *refs = array(c, c->prog->refs);
	uint32_t *drops = array(c, c->prog->drops);

	*out = (struct tt_dev_step){ .op = st->op, .skew = st->skew, .link = TT_DEV_NONE, .dst = s->nrefs + i,
				     .src = st->src, .nsrc = st->nsrc, .drop = c->ndrops };
	if (st->op != TT_SEND)
		refs[out->dst] = place(s, &st->dst);
	if (st->op == TT_SEND || st->op == TT_RECV)
		out->link = number_dir(c, st);
	if (st->op == TT_RECV && c->last[i] != TT_DEV_NONE) {
		refs[out->dst].link = out->link;
		for (uint32_t k = i + 1; k <= c->last[i]; k++)
			for (uint32_t n = 0; n < s->steps[k].nsrc; n++)
				if (tt_ref_same(&s->refs[s->steps[k].src + n], &st->dst))
					refs[s->steps[k].src + n].link = out->link;
	}
	for (uint32_t k = 0; k < i; k++)
		if (s->steps[k].op == TT_RECV && c->last[k] == i)
			drops[c->ndrops++] = s->nrefs + k;
	out->ndrops = c->ndrops - out->drop;
}

/* The steps of a block, in order, and their numbers as they run in one window. */
static void take_block(struct tt_dev_code *c, uint32_t number, struct tt_dev_block *b)
{
	const struct tt_sched *s = c->view.s;
	struct tt_dev_step *steps = array(c, c->prog->steps);
	uint32_t *order = array(c, c->prog->order), n = b->first;

	for (uint32_t i = 0; i < s->nsteps; i++) {
		if (c->block_of[s->steps[i].lane] != number)
			continue;
		take_step(c, i, &steps[b->first + b->n++]);
		c->prog->max_skew = tt_max(c->prog->max_skew, (uint32_t)s->steps[i].skew);
	}
	for (uint32_t skew = 0; skew <= c->prog->max_skew; skew++)
		for (uint32_t i = b->first; i < b->first + b->n; i++)
			if (steps[i].skew == skew)
				order[n++] = i;
}

static tuttiResult_t make_prog(struct tt_dev_code *c)
{
	const struct tt_sched *s = c->view.s;
	struct tt_dev_prog p = { .nbufs = s->nbufs, .per_block = s->per_block, .depth = c->view.depth };
	struct tt_dev_block *blocks;
	struct tt_dev_ref *refs;

	p.nblocks = join_lanes(c);
	p.blocks = sizeof(p);
	p.steps = p.blocks + p.nblocks * (uint32_t)sizeof(struct tt_dev_block);
	p.order = p.steps + s->nsteps * (uint32_t)sizeof(struct tt_dev_step);
	p.refs = p.order + s->nsteps * (uint32_t)sizeof(uint32_t);
	p.drops = p.refs + (s->nrefs + s->nsteps) * (uint32_t)sizeof(struct tt_dev_ref);
	p.bytes = p.drops + s->nsteps * (uint32_t)sizeof(uint32_t);
	c->prog = calloc(1, p.bytes);
	if (!c->prog)
		return tt_fail(tuttiSystemError, "no memory for a program of %u steps", s->nsteps);
	*c->prog = p;
	refs = array(c, p.refs);
	blocks = array(c, p.blocks);
	for (uint32_t i = 0; i < s->nrefs; i++)
		refs[i] = place(s, &s->refs[i]);
	for (uint32_t i = 0; i < s->nsteps; i++)
		c->last[i] = s->steps[i].op == TT_RECV ? last_reader(s, i) : TT_DEV_NONE;
	for (uint32_t k = 0; k < p.nblocks; k++) {
		blocks[k].first = k ? blocks[k - 1].first + blocks[k - 1].n : 0;
		take_block(c, k, &blocks[k]);
	}
	return tuttiSuccess;
}

bool tt_dev_can(const struct tt_sched *s)
{
	for (uint32_t i = 0; i < s->nsteps; i++)
		if (s->steps[i].nsrc > TT_DEV_SRCS)
			return false;
	return true;
}

tuttiResult_t tt_dev_code_new(struct tt_sched *s, uint32_t depth, struct tt_dev_code **out)
{
	struct tt_dev_code *c = calloc(1, sizeof(*c));
	tuttiResult_t r = tuttiSuccess;

	if (!c) {
		tt_sched_free(s);
		return tt_fail(tuttiSystemError, "no memory for a program");
	}
	c->view.s = s;
	c->view.depth = depth ? depth : 1;
	c->view.x = calloc(s->nsteps + 1, sizeof(*c->view.x));
	c->view.refs = calloc(s->nrefs + 1, sizeof(*c->view.refs)); /* of no length: they are in the program */
	c->view.tmp_at = calloc(s->nbufs + 1, sizeof(*c->view.tmp_at));
	c->dirs = calloc(s->nsteps + 1, sizeof(*c->dirs));
	c->last = calloc(s->nsteps + 1, sizeof(*c->last));
	c->block_of = calloc(2 * (size_t)s->nlanes + 1, sizeof(*c->block_of));
	if (!c->view.x || !c->view.refs || !c->view.tmp_at || !c->dirs || !c->last || !c->block_of)
		r = tt_fail(tuttiSystemError, "no memory for a program of %u steps", s->nsteps);
	else if (!tt_dev_can(s))
		r = tt_note_error(tuttiUnsupported, "%s adds more than %d sources at once", s->algo, TT_DEV_SRCS);
	else
		r = make_prog(c);
	free_notes(c);
	if (r != tuttiSuccess) {
		tt_dev_code_free(c);
		return r;
	}
	*out = c;
	return tuttiSuccess;
}

const struct tt_sched *tt_dev_code_sched(const struct tt_dev_code *c)
{
	return c->view.s;
}

const struct tt_dev_prog *tt_dev_code_prog(const struct tt_dev_code *c)
{
	return c->prog;
}

const struct tt_dev_dir *tt_dev_code_dirs(const struct tt_dev_code *c)
{
	return c->dirs;
}

uint32_t tt_dev_code_joined(const struct tt_dev_code *c)
{
	return c->joined;
}

/* ---- bindings ---- */

size_t tt_dev_bind_bytes(const struct tt_dev_code *c)
{
	return sizeof(struct tt_dev_bind) + (2 * (c->prog->per_block + 1) + c->prog->nbufs) * sizeof(uint64_t);
}

bool tt_dev_fits(const struct tt_sched *s, const struct tt_call *call, size_t slot_bytes)
{
	return !s->one_window || s->nranks == 1 ||
	       call->count <= (slot_bytes - TT_DEV_SLACK) / tt_type_size(call->type) / s->nblocks;
}

size_t tt_dev_bind(struct tt_dev_code *c, const struct tt_call *call, size_t slot_bytes, struct tt_dev_bind *bind)
{
	struct tt_prog *v = &c->view;
	uint64_t *at = (uint64_t *)(bind + 1);
	struct tt_call cut = *call;
	uint32_t n = v->s->per_block;

	cut.window_bytes = tt_min(call->window_bytes, slot_bytes - TT_DEV_SLACK);
	tt_run_tmp(v, &cut);
	*bind = (struct tt_dev_bind){ .count = v->part.count, .window = v->part.window, .tmp_stride = v->tmp_stride,
				      .nwindows = v->part.nwindows, .elem = (uint32_t)v->elem,
				      .type = (uint32_t)call->type };
	for (uint32_t i = 0; i <= n; i++) {
		at[i] = tt_part_len(&v->part, 0, 0, i);
		at[n + 1 + i] = tt_part_len(&v->part, v->part.nwindows - 1, 0, i);
	}
	for (uint32_t b = 0; b < v->s->nbufs; b++)
		at[2 * (n + 1) + b] = v->tmp_at[b];
	return v->tmp_stride * (v->part.nwindows <= v->depth ? v->part.nwindows : v->depth + 1);
}
