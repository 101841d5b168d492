/* SPDX-License-Identifier: Apache-2.0
 * Makes schedules of an MSCCL algorithm. Its thread blocks are run, all GPUs together, each step when what it waits for
 * is done: that gives each GPU one order of steps, from which the builder derives what depends on what. The run also
 * finds out what the scratch chunks hold, as ours have names that say it: scratch from `off` on that holds chunks from
 * `c` on becomes a temporary of its own for each c - off. A receive that reduces goes through a temporary of its
 * thread block. The input is never written: what an algorithm puts there goes to the output, or to a temporary. */
#include "sched_msccl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX };
enum place { AS_GIVEN, IN_OUT, IN_SHADOW }; /* where what belongs to a chunk of the input is */
enum tmp_kind { SCRATCH, RECEIVED, SHADOW };

struct tmp {
	enum tmp_kind kind;
	int64_t key;     /* SCRATCH: c - off; RECEIVED: thread block */
	uint32_t lo, hi; /* chunks */
};

struct op {
	uint8_t op, lane, nsrc;
	uint16_t skew;
	uint32_t peer;
	uint64_t turn; /* its place among the steps of this rank */
	struct tt_ref dst, src[2];
	struct tt_origin origin;
};

struct gpu {
	struct tmp *tmps;
	uint32_t ntmps;
	uint32_t *scratch; /* the chunk whose data are there, or NONE */
	uint8_t *place, *written; /* per chunk: of the input; the output has been written */
	struct op *ops;
	uint32_t nops;
};

struct sim {
	struct tt_malgo *m;
	struct gpu *gpus;
	uint32_t nchunks;
	bool copy_first; /* the input is read after the output at the same place was written */
	bool hazard;
	/* the step under way */
	int rank;
	const struct tt_mtb *tb;
	const struct tt_mstep *st;
	tuttiResult_t result;
};

__attribute__((format(printf, 2, 3))) static void wrong(struct sim *s, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	if (s->result != tuttiSuccess)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	s->result = tt_fail(tuttiInvalidUsage, "%s:%u: gpu %d tb %d step %d: %s", s->m->what, s->st->line, s->rank,
			    s->tb->id, (int)(s->st - s->tb->steps), text);
}

static void no_memory(struct sim *s)
{
	if (s->result == tuttiSuccess)
		s->result = tt_fail(tuttiSystemError, "no memory for schedules");
}

/* Sizes double, so that no length is too long. */
static void *grown(struct sim *s, void *p, uint32_t n, size_t size)
{
	void *q = p;

	if (!(n & (n - 1))) {
		q = realloc(p, (n ? 2 * (size_t)n : 1) * size);
		if (!q)
			no_memory(s);
	}
	return q;
}

/* ---- places ---- */

static struct tt_ref tmp_ref(struct sim *s, enum tmp_kind kind, int64_t key, uint32_t chunk, uint32_t n)
{
	struct gpu *g = &s->gpus[s->rank];
	uint32_t i = 0;
	void *more;

	while (i < g->ntmps && (g->tmps[i].kind != kind || g->tmps[i].key != key))
		i++;
	if (i == g->ntmps) {
		more = grown(s, g->tmps, g->ntmps, sizeof *g->tmps);
		if (!more)
			return (struct tt_ref){ 0 };
		g->tmps = more;
		g->tmps[g->ntmps++] = (struct tmp){ kind, key, chunk, chunk + n };
	}
	g->tmps[i].lo = (uint32_t)tt_min(g->tmps[i].lo, chunk);
	g->tmps[i].hi = (uint32_t)tt_max(g->tmps[i].hi, chunk + n);
	return tt_ref(TT_TMP + i, chunk, n);
}

/* The chunks that the buffer of a user has on this rank, of which MSCCL numbers the first 0. */
static uint32_t first_of(const struct sim *s, char buf, uint32_t *n)
{
	bool own = s->m->coll == (buf == 'i' ? TT_ALLGATHER : TT_REDUCESCATTER);

	*n = own ? s->m->per_block : s->nchunks;
	return own ? (uint32_t)s->rank * s->m->per_block : 0;
}

static bool has_output(const struct sim *s, uint32_t chunk)
{
	uint32_t n, first = first_of(s, 'o', &n);

	return chunk - first < n && (s->m->coll != TT_REDUCE || s->rank == s->m->root);
}

static uint32_t chunk_of(struct sim *s, char buf, int off, uint32_t n)
{
	uint32_t room, first = first_of(s, buf, &room);

	if (off < 0 || (uint32_t)off + n > room) {
		wrong(s, "chunks %d+%u of buffer %c, which has %u", off, n, buf, room);
		return 0;
	}
	return first + (uint32_t)off;
}

static struct tt_ref read_scratch(struct sim *s, int off, uint32_t n)
{
	const struct gpu *g = &s->gpus[s->rank];
	uint32_t have = s->m->gpus[s->rank].nscratch;

	if (off < 0 || (uint32_t)off + n > have) {
		wrong(s, "chunks %d+%u of the scratch buffer, which has %u", off, n, have);
		return (struct tt_ref){ 0 };
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id = g->scratch[off + (int)i];

		if (id == NONE)
			wrong(s, "reads scratch chunk %u, which nobody has written", off + i);
		else if (id != g->scratch[off] + i)
			wrong(s, "scratch chunks %d+%u hold data of chunks that do not follow each other", off, n);
	}
	if (s->result != tuttiSuccess)
		return (struct tt_ref){ 0 };
	return tmp_ref(s, SCRATCH, (int64_t)g->scratch[off] - off, g->scratch[off], n);
}

static struct tt_ref read_buf(struct sim *s, char buf, int off, uint32_t n)
{
	const struct gpu *g = &s->gpus[s->rank];
	bool one = s->m->in_place_only;
	uint32_t c;

	if (buf == 's')
		return read_scratch(s, off, n);
	c = chunk_of(s, buf, off, n);
	if (s->result != tuttiSuccess)
		return (struct tt_ref){ 0 };
	if (buf == 'o' && !one)
		return tt_ref(TT_OUT, c, n);
	for (uint32_t i = 0; i < n; i++) {
		if (g->place[c + i] != g->place[c])
			wrong(s, "reads chunks of %c together of which only some have been written", buf);
		if (!one && g->place[c + i] == AS_GIVEN && g->written[c + i])
			s->hazard = true;
	}
	if (g->place[c] == IN_SHADOW)
		return tmp_ref(s, SHADOW, 0, c, n);
	return tt_ref(g->place[c] == IN_OUT ? TT_OUT : TT_IN, c, n);
}

/* `data`: the first of the chunks whose data are written. */
static struct tt_ref write_scratch(struct sim *s, int off, uint32_t n, uint32_t data)
{
	struct gpu *g = &s->gpus[s->rank];
	uint32_t have = s->m->gpus[s->rank].nscratch;

	if (off < 0 || (uint32_t)off + n > have) {
		wrong(s, "chunks %d+%u of the scratch buffer, which has %u", off, n, have);
		return (struct tt_ref){ 0 };
	}
	for (uint32_t i = 0; i < n; i++)
		g->scratch[off + (int)i] = data + i;
	return tmp_ref(s, SCRATCH, (int64_t)data - off, data, n);
}

static struct tt_ref write_buf(struct sim *s, char buf, int off, uint32_t n, uint32_t data, bool home)
{
	struct gpu *g = &s->gpus[s->rank];
	bool one = s->m->in_place_only;
	uint32_t c;

	if (buf == 's')
		return write_scratch(s, off, n, data);
	c = chunk_of(s, buf, off, n);
	if (s->result == tuttiSuccess && c % s->m->per_block != data % s->m->per_block)
		wrong(s, "puts data of chunk %u into chunk %u: they may differ in length", data % s->m->per_block,
		      c % s->m->per_block);
	if (s->result != tuttiSuccess)
		return (struct tt_ref){ 0 };
	if (buf == 'o' && !one) {
		if (!home)
			memset(g->written + c, 1, n);
		return tt_ref(TT_OUT, c, n);
	}
	for (uint32_t i = 0; i < n; i++) {
		bool out = one && has_output(s, c + i);

		if (out != (one && has_output(s, c)))
			wrong(s, "writes chunks of %c together of which only some are of the output", buf);
		g->place[c + i] = out ? IN_OUT : IN_SHADOW;
	}
	return g->place[c] == IN_OUT ? tt_ref(TT_OUT, c, n) : tmp_ref(s, SHADOW, 0, c, n);
}

/* ---- steps ---- */

static void add(struct sim *s, uint8_t op, uint32_t peer, struct tt_ref dst, const struct tt_ref *src, uint8_t nsrc)
{
	struct gpu *g = &s->gpus[s->rank];
	struct op *more, *o;

	if (s->result != tuttiSuccess)
		return;
	more = grown(s, g->ops, g->nops, sizeof *g->ops);
	if (!more)
		return;
	g->ops = more;
	o = &g->ops[g->nops++];
	*o = (struct op){ .op = op, .lane = (uint8_t)s->tb->lane, .nsrc = nsrc, .peer = peer, .dst = dst };
	for (uint8_t i = 0; i < nsrc; i++)
		o->src[i] = src[i];
	o->origin = (struct tt_origin){ s->st->line, s->tb->id, (int32_t)(s->st - s->tb->steps) };
}

static void send_ref(struct sim *s, struct tt_mtb *tb, struct tt_ref src)
{
	add(s, TT_SEND, (uint32_t)tb->send, (struct tt_ref){ 0 }, &src, 1);
	tb->sent[tb->nsent++] = (struct tt_msent){ src.chunk, src.n, tb->at };
}

static void receive(struct sim *s, struct tt_mtb *tb)
{
	const struct tt_mstep *st = s->st;
	const struct tt_msent *msg = &tb->from->sent[tb->got++];
	uint32_t n = (uint32_t)st->cnt;
	bool sums = st->type == TT_M_RRC || st->type == TT_M_RRS || st->type == TT_M_RRCS;
	struct tt_ref got, src[2];

	if (msg->n != n) {
		wrong(s, "receives %u chunks; gpu %d tb %d step %u sends %u", n, tb->recv, tb->from->id, msg->step,
		      msg->n);
		return;
	}
	if (sums)
		got = tmp_ref(s, RECEIVED, tb - s->m->gpus[s->rank].tbs, msg->id, n);
	else
		got = write_buf(s, st->dstbuf, st->dstoff, n, msg->id, false);
	add(s, TT_RECV, (uint32_t)tb->recv, got, NULL, 0);
	if (sums) {
		src[0] = got;
		src[1] = read_buf(s, st->srcbuf, st->srcoff, n);
		if (s->result == tuttiSuccess && src[1].chunk % s->m->per_block != msg->id % s->m->per_block)
			wrong(s, "adds chunk %u to data of chunk %u: they may differ in length",
			      src[1].chunk % s->m->per_block, msg->id % s->m->per_block);
		if (st->type != TT_M_RRS)
			got = write_buf(s, st->dstbuf, st->dstoff, n, msg->id, false);
		add(s, TT_REDUCE_STEP, 0, got, src, 2);
	}
	if (st->type == TT_M_RRS || st->type == TT_M_RRCS || st->type == TT_M_RCS)
		send_ref(s, tb, got);
}

static void local(struct sim *s)
{
	const struct tt_mstep *st = s->st;
	uint32_t n = (uint32_t)st->cnt;
	struct tt_ref src[2], dst;

	if (st->type == TT_M_RE)
		src[0] = read_buf(s, st->dstbuf, st->dstoff, n);
	src[st->type == TT_M_RE] = read_buf(s, st->srcbuf, st->srcoff, n);
	if (s->result != tuttiSuccess)
		return;
	if (st->type == TT_M_RE && src[0].chunk % s->m->per_block != src[1].chunk % s->m->per_block) {
		wrong(s, "adds chunk %u to data of chunk %u: they may differ in length", src[1].chunk % s->m->per_block,
		      src[0].chunk % s->m->per_block);
		return;
	}
	dst = write_buf(s, st->dstbuf, st->dstoff, n, src[0].chunk,
			st->type == TT_M_CPY && src[0].buf == TT_IN && st->dstbuf == 'o');
	if (st->type == TT_M_CPY && dst.buf == src[0].buf && dst.chunk == src[0].chunk)
		return;
	add(s, st->type == TT_M_RE ? TT_REDUCE_STEP : TT_COPY, 0, dst, src, st->type == TT_M_RE ? 2 : 1);
}

/* Runs the next step of a thread block, if what it waits for is there. */
static bool advance(struct sim *s, int rank, struct tt_mtb *tb)
{
	const struct tt_mstep *st = &tb->steps[tb->at];
	struct tt_mtb *on = st->depid < 0 ? NULL : &s->m->gpus[rank].tbs[st->depid];
	bool receives = st->type != TT_M_S && st->type < TT_M_CPY;

	if (tb->at == tb->nsteps || s->result != tuttiSuccess || (on && on->at <= (uint32_t)st->deps) ||
	    (receives && (!tb->from || tb->got == tb->from->nsent)))
		return false;
	s->rank = rank;
	s->tb = tb;
	s->st = st;
	if (receives)
		receive(s, tb);
	else if (st->type == TT_M_S)
		send_ref(s, tb, read_buf(s, st->srcbuf, st->srcoff, (uint32_t)st->cnt));
	else if (st->type != TT_M_NOP)
		local(s);
	tb->at++;
	return true;
}

/* What is left over: a step that waits for ever, or a message that nobody takes. */
static void find_rest(struct sim *s)
{
	for (s->rank = 0; s->rank < s->m->ngpus; s->rank++)
		for (uint32_t t = 0; t < s->m->gpus[s->rank].ntbs; t++) {
			struct tt_mtb *tb = &s->m->gpus[s->rank].tbs[t];
			const struct tt_mstep *st = &tb->steps[tb->at];

			s->tb = tb;
			s->st = st;
			if (tb->at < tb->nsteps && st->depid >= 0 &&
			    s->m->gpus[s->rank].tbs[st->depid].at <= (uint32_t)st->deps)
				wrong(s, "deadlock: waits for step %d of tb %d", st->deps,
				      s->m->gpus[s->rank].tbs[st->depid].id);
			else if (tb->at < tb->nsteps)
				wrong(s, "deadlock: waits for a message of gpu %d on its channel", tb->recv);
		}
	for (s->rank = 0; s->rank < s->m->ngpus; s->rank++)
		for (uint32_t t = 0; t < s->m->gpus[s->rank].ntbs; t++) {
			struct tt_mtb *tb = &s->m->gpus[s->rank].tbs[t];

			if (!tb->from || tb->got == tb->from->nsent)
				continue;
			s->rank = tb->recv;
			s->tb = tb->from;
			s->st = &tb->from->steps[tb->from->sent[tb->got].step];
			wrong(s, "sends a message to gpu %d that is not received", tb->from->send);
			return;
		}
}

/* Thread blocks that send to where none receives. */
static void find_unheard(struct sim *s)
{
	for (s->rank = 0; s->rank < s->m->ngpus && s->result == tuttiSuccess; s->rank++)
		for (uint32_t t = 0; t < s->m->gpus[s->rank].ntbs; t++) {
			struct tt_mtb *tb = &s->m->gpus[s->rank].tbs[t];
			bool heard = !tb->nsent;

			for (uint32_t k = 0; !heard && k < s->m->gpus[tb->send].ntbs; k++)
				heard = s->m->gpus[tb->send].tbs[k].from == tb;
			if (heard)
				continue;
			s->tb = tb;
			s->st = &tb->steps[tb->sent[0].step];
			wrong(s, "sends a message to gpu %d that is not received", tb->send);
			return;
		}
}

/* ---- the whole run ---- */

/* At the beginning: the input into its shadow. At the end, in place: what was never written is the result as it is. */
static void copy_input(struct sim *s, bool first)
{
	static const struct tt_mtb none = { .id = -1 };
	const struct tt_mstep st = { .line = s->m->gpus[s->rank].line };
	struct gpu *g = &s->gpus[s->rank];
	uint32_t n, from = first_of(s, 'i', &n), per = s->m->per_block;

	if (s->m->coll == TT_BROADCAST && s->rank != s->m->root)
		return;
	s->tb = &none;
	s->st = &st;
	for (uint32_t c = from, k; c < from + n; c += k) {
		struct tt_ref src = tt_ref(TT_IN, c, 1);

		k = 1;
		if (g->place[c] != AS_GIVEN || (!first && !has_output(s, c)))
			continue;
		while (c + k < from + n && (c + k) % per && g->place[c + k] == g->place[c])
			k++;
		src.n = k;
		add(s, TT_COPY, 0, first ? tmp_ref(s, SHADOW, 0, c, k) : tt_ref(TT_OUT, c, k), &src, 1);
		if (first)
			memset(g->place + c, IN_SHADOW, k);
	}
}

static void reset(struct sim *s)
{
	for (int i = 0; i < s->m->ngpus; i++) {
		struct gpu *g = &s->gpus[i];

		for (uint32_t t = 0; t < s->m->gpus[i].ntbs; t++) {
			struct tt_mtb *tb = &s->m->gpus[i].tbs[t];

			tb->at = tb->nsent = tb->got = 0;
		}
		memset(g->scratch, 0xff, s->m->gpus[i].nscratch * sizeof *g->scratch);
		memset(g->place, AS_GIVEN, s->nchunks);
		memset(g->written, 0, s->nchunks);
		g->nops = g->ntmps = 0;
	}
}

static void simulate(struct sim *s)
{
	bool moved = true;

	reset(s);
	for (s->rank = 0; s->copy_first && s->rank < s->m->ngpus; s->rank++)
		copy_input(s, true);
	while (moved && s->result == tuttiSuccess) {
		moved = false;
		for (int i = 0; i < s->m->ngpus; i++)
			for (uint32_t t = 0; t < s->m->gpus[i].ntbs; t++)
				while (advance(s, i, &s->m->gpus[i].tbs[t]))
					moved = true;
	}
	if (s->result == tuttiSuccess)
		find_rest(s);
	if (s->result == tuttiSuccess)
		find_unheard(s);
	for (s->rank = 0; s->m->in_place_only && s->rank < s->m->ngpus; s->rank++)
		copy_input(s, false);
}

/* ---- schedules ---- */

static void emit(struct tt_builder *b, const struct op *o)
{
	switch (o->op) {
	case TT_SEND: tt_send(b, o->lane, o->skew, (int)o->peer, o->src[0]); break;
	case TT_RECV: tt_recv(b, o->lane, o->skew, (int)o->peer, o->dst); break;
	case TT_COPY: tt_copy(b, o->dst, o->src[0]); break;
	default: tt_reduce(b, o->dst, o->src[0], o->src[1]);
	}
}

static tuttiResult_t build(const struct sim *s, int rank, struct tt_sched_set *set)
{
	const struct tt_malgo *m = s->m;
	const struct gpu *g = &s->gpus[rank];
	struct tt_builder *b;
	uint32_t step;
	tuttiResult_t r;

	free(set->origin[rank]);
	set->origin[rank] = calloc(g->nops + 2, sizeof **set->origin);
	if (!set->origin[rank])
		return tt_fail(tuttiSystemError, "no memory for schedules");
	for (uint32_t i = 0; i < g->nops; i++)
		set->origin[rank][i] = g->ops[i].origin;
	set->origin[rank][g->nops] = (struct tt_origin){ m->gpus[rank].line, -1, -1 };
	TRY(tt_sched_begin(&b, m->coll, set->algo, rank, m->ngpus, m->root, m->per_block, m->nlanes));
	for (uint32_t i = 0; i < g->ntmps; i++)
		tt_sched_tmp(b, g->tmps[i].lo, g->tmps[i].hi - g->tmps[i].lo);
	for (uint32_t i = 0; i < g->nops; i++)
		emit(b, &g->ops[i]);
	r = tt_sched_try(b, &set->ranks[rank], &step);
	if (r != tuttiSuccess)
		return tt_sched_wrong(set, rank, step, tt_last_error());
	set->origin[rank][set->ranks[rank]->nsteps] = (struct tt_origin){ m->gpus[rank].line, -1, -1 };
	return tuttiSuccess;
}

static int by_turn(const void *a, const void *b)
{
	const struct op *x = a, *y = b;

	return (x->turn > y->turn) - (x->turn < y->turn);
}

/* In the order of skews, and of one skew what is sent, then what is received, then what is made of that: so all ranks
 * go through the same phases, and each link has one message in each. */
static tuttiResult_t order_ops(struct gpu *g, const struct tt_sched *s)
{
	uint8_t *early = calloc(g->nops + 1, 1); /* waits for no message */

	if (!early)
		return tt_fail(tuttiSystemError, "no memory for schedules");
	for (uint32_t i = 0; i < g->nops; i++) {
		const struct tt_step *st = &s->steps[i];
		uint64_t kind = st->op == TT_SEND ? 1 : st->op == TT_RECV ? 2 : 3;

		early[i] = kind == 3;
		for (uint32_t k = 0; k < st->ndeps; k++)
			early[i] &= early[s->deps[st->dep + k]];
		g->ops[i].skew = st->skew;
		g->ops[i].turn = (uint64_t)st->skew << 34 | (early[i] ? 0 : kind) << 32 | i;
	}
	free(early);
	if (g->nops)
		qsort(g->ops, g->nops, sizeof *g->ops, by_turn);
	return tuttiSuccess;
}

/* Once to see what depends on what, and again with skews and in their order. */
static tuttiResult_t build_all(struct sim *s, struct tt_sched_set *set)
{
	int n = set->nranks;

	for (int i = 0; i < n; i++)
		TRY(build(s, i, set));
	if (n == 1 || !tt_sched_settle_skews(set->ranks, n))
		return tuttiSuccess;
	for (int i = 0; i < n; i++) {
		TRY(order_ops(&s->gpus[i], set->ranks[i]));
		tt_sched_free(set->ranks[i]);
		set->ranks[i] = NULL;
		TRY(build(s, i, set));
	}
	return tuttiSuccess;
}

tuttiResult_t tt_msccl_run(struct tt_malgo *m, struct tt_sched_file *file)
{
	struct sim s = { .m = m };
	struct tt_sched_set *set = tt_sched_set_new(file, m->what, m->name, m->ngpus);

	s.nchunks = m->per_block * (m->coll == TT_ALLGATHER || m->coll == TT_REDUCESCATTER ? (uint32_t)m->ngpus : 1);
	s.gpus = calloc((size_t)m->ngpus, sizeof *s.gpus);
	if (!set || !s.gpus)
		no_memory(&s);
	for (int i = 0; s.gpus && i < m->ngpus; i++) {
		s.gpus[i].scratch = malloc(m->gpus[i].nscratch * sizeof(uint32_t) + 1);
		s.gpus[i].place = malloc(s.nchunks);
		s.gpus[i].written = malloc(s.nchunks);
		if (!s.gpus[i].scratch || !s.gpus[i].place || !s.gpus[i].written)
			no_memory(&s);
	}
	if (s.result == tuttiSuccess)
		simulate(&s);
	if (s.result == tuttiSuccess && s.hazard) {
		s.copy_first = true;
		simulate(&s);
	}
	if (s.result == tuttiSuccess)
		s.result = build_all(&s, set);
	if (s.result == tuttiSuccess) {
		set->least = m->least;
		set->most = m->most;
	}
	for (int i = 0; s.gpus && i < m->ngpus; i++) {
		free(s.gpus[i].tmps);
		free(s.gpus[i].ops);
		free(s.gpus[i].scratch);
		free(s.gpus[i].place);
		free(s.gpus[i].written);
	}
	free(s.gpus);
	return s.result;
}
