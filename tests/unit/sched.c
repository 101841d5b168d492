/* SPDX-License-Identifier: Apache-2.0
 * Schedules: every algorithm is proved for 1 .. 64 ranks, the checker is shown to catch what is
 * broken on purpose, and the partition function covers the data. TEST_LONG=1 tries every root
 * and more shapes, TEST_QUICK=1 stops at 17 ranks. */
#include "sched.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 64, MAX_SHAPE_LANES = 4 };

struct set {
	struct tt_sched *s[MAX_RANKS];
	int p;
};

struct shape_store {
	struct tt_shape shape;
	uint32_t order[MAX_SHAPE_LANES * MAX_RANKS], parent[MAX_SHAPE_LANES * MAX_RANKS];
	uint32_t weights[MAX_SHAPE_LANES], group[MAX_RANKS], rate[MAX_RANKS];
};

static bool is_long(void)
{
	const char *t = getenv("TEST_LONG");

	return t && *t && *t != '0';
}

/* Under sanitizers fewer ranks: the code is the same, and each run is ten times as slow. */
static bool is_quick(void)
{
	return getenv("TEST_QUICK") && !is_long();
}

static const struct tt_shape *trivial(uint32_t nlanes, uint32_t param)
{
	static struct tt_shape s;

	s = (struct tt_shape){ .nlanes = nlanes, .param = param };
	return &s;
}

static const struct tt_shape *random_shape(struct shape_store *st, uint64_t *rnd, int p)
{
	uint32_t n = 1 + test_rand(rnd) % MAX_SHAPE_LANES, groups = 2 + test_rand(rnd) % 7;

	for (uint32_t l = 0; l < n; l++) {
		uint32_t *o = st->order + l * (uint32_t)p;

		st->weights[l] = 1 + test_rand(rnd) % 7;
		for (int i = 0; i < p; i++) {
			int k = (int)(test_rand(rnd) % (uint32_t)(i + 1));

			o[i] = o[k];
			o[k] = (uint32_t)i;
		}
		for (int i = 0; i < p; i++) /* of each in the order, one before it */
			st->parent[l * (uint32_t)p + o[i]] = o[i ? (int)(test_rand(rnd) % (uint32_t)i) : 0];
	}
	for (int i = 0; i < p; i++)
		st->group[i] = test_rand(rnd) % groups;
	for (int i = 0; i < p; i++)
		st->rate[i] = test_rand(rnd) % 4 ? 100 : 1 + test_rand(rnd) % 1000;
	st->shape = (struct tt_shape){ .nlanes = n, .param = test_rand(rnd) % 6 };
	if (test_rand(rnd) % 4)
		st->shape.order = st->order;
	if (test_rand(rnd) % 4)
		st->shape.parent = st->parent;
	if (test_rand(rnd) % 2)
		st->shape.weights = st->weights;
	if (test_rand(rnd) % 2)
		st->shape.group = st->group;
	if (test_rand(rnd) % 2)
		st->shape.rate = st->rate;
	return &st->shape;
}

static void build_set(struct set *set, const struct tt_algo *a, enum tt_coll coll, int p, int root,
		      const struct tt_shape *shape)
{
	set->p = p;
	for (int r = 0; r < p; r++)
		CHECKF(a->build(coll, r, p, root, shape, &set->s[r]) == tuttiSuccess,
		       "%s %s p %d root %d rank %d: %s", tt_coll_name(coll), a->name, p, root, r,
		       tt_last_error());
}

static void free_set(struct set *set)
{
	for (int r = 0; r < set->p; r++)
		tt_sched_free(set->s[r]);
}

static void prove(const struct set *set, struct tt_check how)
{
	const struct tt_sched *s = set->s[0];
	bool runnable = true;

	for (int r = 0; r < set->p; r++) {
		runnable = runnable && set->s[r]->block_runnable;
		if (set->s[r]->one_window)
			how.windows = 1;
	}
	if ((how.sequential && !runnable) || ((how.sequential || how.queued) && !how.depth))
		return;
	CHECKF(tt_sched_check(set->s, set->p, &how) == tuttiSuccess,
	       "%s %s p %d root %d lanes %u, %u windows, depth %u%s%s, seed %llu: %s",
	       tt_coll_name(s->coll), s->algo, s->nranks, s->root, s->nlanes, how.windows,
	       how.depth, how.aliased ? ", in place" : "",
	       how.sequential ? ", sequential" : how.queued ? ", queued" : "",
	       (unsigned long long)how.seed, tt_last_error());
}

static void prove_all_ways(const struct set *set, uint64_t seed)
{
	static const uint32_t windows[] = { 1, 3 }, depths[] = { 0, 1, 4 };

	for (int i = 0; i < 2 * 2 * 3 * 3; i++)
		prove(set, (struct tt_check){ .windows = windows[i % 2],
					      .aliased = i / 2 % 2,
					      .depth = depths[i / 4 % 3],
					      .sequential = i / 12 == 1,
					      .queued = i / 12 == 2,
					      .seed = i % 5 ? seed + (uint64_t)i : 0 });
}

/* The ways in which something is different, over all sizes. */
static void prove_some_ways(const struct set *set, uint64_t seed)
{
	bool odd = seed & 1;

	prove(set, (struct tt_check){ .windows = 3, .aliased = odd, .seed = seed });
	prove(set, (struct tt_check){ .windows = 1, .aliased = !odd, .depth = odd ? 1 : 4 });
	for (int queued = 0; queued < 2; queued++)
		prove(set, (struct tt_check){ .windows = 3,
					      .aliased = !odd,
					      .depth = 1,
					      .sequential = !queued,
					      .queued = queued,
					      .seed = seed });
}

static void try_shape(const struct tt_algo *a, enum tt_coll coll, int p, int root,
		      const struct tt_shape *shape, uint64_t seed)
{
	struct set set;

	build_set(&set, a, coll, p, root, shape);
	if (a->ordered && !shape->order && coll != TT_ALLGATHER && coll != TT_BROADCAST)
		CHECKF(set.s[0]->ordered, "%s is not ordered", a->name);
	if (p <= (is_long() ? 64 : is_quick() ? 5 : 12))
		prove_all_ways(&set, seed);
	else
		prove_some_ways(&set, seed);
	free_set(&set);
}

static bool root_matters(enum tt_coll coll)
{
	return coll == TT_BROADCAST || coll == TT_REDUCE;
}

static void try_algo(const struct tt_algo *a, enum tt_coll coll, int p, uint64_t *rnd)
{
	struct shape_store store;
	int step = !root_matters(coll) ? p : p <= 20 || is_long() ? 1 : p / 3;

	for (int root = 0; root < p; root += step) {
		bool plain = root % 3 == 0;

		try_shape(a, coll, p, root, trivial(1, plain ? 0 : 3), test_rand(rnd));
		if (p <= 20 || p % 7 == 0 || is_long())
			try_shape(a, coll, p, root, random_shape(&store, rnd, p), test_rand(rnd));
	}
	try_shape(a, coll, p, p - 1, trivial(1, 1), test_rand(rnd));
}

static void prove_coll(enum tt_coll coll)
{
	uint64_t rnd = test_seed();

	int most = is_quick() ? 17 : MAX_RANKS;

	for (int i = 0; i < tt_nalgos; i++)
		for (int p = 1; p <= most && tt_algos[i].colls >> coll & 1; p++)
			try_algo(&tt_algos[i], coll, p, &rnd);
}

static void allreduce(void)
{
	prove_coll(TT_ALLREDUCE);
}
static void allgather(void)
{
	prove_coll(TT_ALLGATHER);
}
static void reducescatter(void)
{
	prove_coll(TT_REDUCESCATTER);
}
static void broadcast(void)
{
	prove_coll(TT_BROADCAST);
}
static void reduce(void)
{
	prove_coll(TT_REDUCE);
}
static void barrier(void)
{
	prove_coll(TT_BARRIER);
}

/* ---- what is broken on purpose ---- */

struct tally {
	unsigned tried, caught, harmless;
};

static bool fails(const struct set *set, struct tt_check how)
{
	return tt_sched_check(set->s, set->p, &how) != tuttiSuccess;
}

/* Some way in which it may run shows the fault. */
static bool caught(const struct set *set)
{
	bool one_window = false;

	for (int r = 0; r < set->p; r++)
		one_window = one_window || set->s[r]->one_window;
	return fails(set, (struct tt_check){ .windows = 1, .depth = 1, .seed = 7 }) ||
	       fails(set, (struct tt_check){ .windows = one_window ? 1 : 3, .aliased = true });
}

static bool reaches(const struct tt_sched *s, uint32_t from, uint32_t to)
{
	const struct tt_step *st = &s->steps[to];

	for (uint32_t k = 0; k < st->ndeps; k++) {
		uint32_t d = s->deps[st->dep + k];

		if (d == from || (d > from && reaches(s, from, d)))
			return true;
	}
	return false;
}

static void drop_dependencies(const struct set *set, struct tt_sched *s, struct tally *t)
{
	for (uint32_t i = 0; i < s->nsteps; i++) {
		struct tt_step *st = &s->steps[i];

		for (uint32_t k = 0; k < st->ndeps; k++) {
			uint32_t *deps = s->deps + st->dep, gone = deps[k], last = st->ndeps - 1;

			deps[k] = deps[last];
			deps[last] = gone;
			st->ndeps = last;
			t->tried++;
			if (caught(set))
				t->caught++;
			else if (reaches(s, gone, i))
				t->harmless++;
			else
				CHECKF(0, "%s %s p %d rank %d: step %u needs no %u", s->algo,
				       tt_coll_name(s->coll), s->nranks, s->rank, i, gone);
			st->ndeps = last + 1;
			deps[last] = deps[k];
			deps[k] = gone;
		}
	}
}

static struct tt_ref *span(struct tt_sched *s, struct tt_step *st)
{
	return st->op == TT_SEND ? &s->refs[st->src] : &st->dst;
}

static void must_catch(const struct set *set, const struct tt_sched *s, uint32_t i, struct tally *t,
		       const char *what)
{
	t->tried++;
	CHECKF(caught(set), "%s not caught: %s %s p %d rank %d step %u", what,
	       tt_coll_name(s->coll), s->algo, s->nranks, s->rank, i);
	t->caught++;
}

/* Where the order is free and one rank alone adds (has the result, or is the root of a tree), it may add two
 * inputs the other way round. */
static bool only_reorders(const struct tt_sched *s, const struct tt_step *a,
			  const struct tt_step *b)
{
	bool one_adds = s->coll == TT_REDUCE || s->coll == TT_REDUCESCATTER || !strcmp(s->algo, "tree") ||
		       !strcmp(s->algo, "hier");

	return one_adds && !s->ordered && a->op == TT_RECV && a->dst.chunk == b->dst.chunk &&
	       a->dst.n == b->dst.n && a->dst.buf >= TT_TMP && b->dst.buf >= TT_TMP;
}

/* Two messages of the same kind with each other's data. Nothing is changed by swapping equals. */
static void swap_messages(const struct set *set, struct tt_sched *s, struct tally *t)
{
	for (uint32_t i = 0; i < s->nsteps; i++)
		for (uint32_t k = i + 1; k < s->nsteps; k++) {
			struct tt_ref *a = span(s, &s->steps[i]), *b = span(s, &s->steps[k]),
				      keep = *a;
			bool message = s->steps[i].op == TT_SEND || s->steps[i].op == TT_RECV;

			if (!message || s->steps[i].op != s->steps[k].op ||
			    !memcmp(a, b, sizeof *a))
				continue;
			*a = *b;
			*b = keep;
			if (only_reorders(s, &s->steps[i], &s->steps[k]) && !caught(set) &&
			    ++t->tried)
				t->harmless++;
			else
				must_catch(set, s, i, t, "swapped message");
			*b = *a;
			*a = keep;
			break;
		}
}

static void drop_contributions(const struct set *set, struct tt_sched *s, struct tally *t)
{
	for (uint32_t i = 0; i < s->nsteps; i++) {
		struct tt_step keep = s->steps[i], *st = &s->steps[i];
		struct tt_ref ref;

		if (st->op != TT_COPY && st->op != TT_REDUCE_STEP)
			continue;
		ref = s->refs[keep.src];
		if (st->op == TT_COPY) {
			st->dst.n = s->refs[st->src].n = 0;
		} else {
			st->nsrc--;
			if (st->nsrc == 1)
				st->op = TT_COPY;
		}
		must_catch(set, s, i, t, "missing contribution");
		s->steps[i] = keep;
		s->refs[keep.src] = ref;
	}
}

static void double_contributions(const struct set *set, struct tt_sched *s, struct tally *t)
{
	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		struct tt_ref *src = s->refs + st->src, keep;

		if (st->op != TT_REDUCE_STEP)
			continue;
		keep = src[1];
		src[1] = src[0];
		must_catch(set, s, i, t, "doubled contribution");
		src[1] = keep;
	}
}

static void change_peers(const struct set *set, struct tt_sched *s, struct tally *t)
{
	for (uint32_t i = 0; i < s->nsteps; i++) {
		struct tt_step *st = &s->steps[i];
		uint32_t keep = st->peer;

		if (st->op != TT_SEND && st->op != TT_RECV)
			continue;
		for (uint32_t peer = 0; peer < (uint32_t)s->nranks; peer++) {
			if (peer == keep)
				continue;
			st->peer = peer;
			must_catch(set, s, i, t, "wrong peer");
		}
		st->peer = keep;
	}
}

static int turn(const struct tt_sched *s, uint32_t i, uint32_t k, int ahead)
{
	int a = s->steps[i].skew + ahead, b = s->steps[k].skew;

	return a != b ? a - b : (i > k) - (i < k);
}

/* Whether a step with another skew keeps its place among its link's messages, of three windows. */
static bool keeps_its_turn(struct tt_sched *s, uint32_t i, uint16_t skew)
{
	struct tt_step *a = &s->steps[i], keep = *a;
	int windows = s->one_window ? 1 : 3;

	for (uint32_t k = 0; k < s->nsteps; k++) {
		const struct tt_step *b = &s->steps[k];

		for (int w = 1 - windows; k != i && w < windows; w++) {
			int before = turn(s, i, k, w), after;

			a->skew = skew;
			after = turn(s, i, k, w);
			a->skew = keep.skew;
			if (b->op == a->op && b->peer == a->peer && b->lane == a->lane &&
			    (before < 0) != (after < 0))
				return false;
		}
	}
	return true;
}

/* One end issues a message later than the other expects it. */
static void delay_messages(const struct set *set, struct tt_sched *s, struct tally *t)
{
	for (uint32_t i = 0; i < s->nsteps; i++) {
		struct tt_step *st = &s->steps[i];

		for (int by = 1; by < 4 && (st->op == TT_SEND || st->op == TT_RECV); by++) {
			uint16_t keep = st->skew, other = (uint16_t)(keep + by);
			bool harmless = keeps_its_turn(s, i, other);

			st->skew = other;
			if (!harmless)
				must_catch(set, s, i, t, "delayed message");
			else if (++t->tried && !caught(set))
				t->harmless++;
			st->skew = keep;
		}
	}
}

static void mutate(void (*how)(const struct set *, struct tt_sched *, struct tally *),
		   const char *what)
{
	static const int sizes[] = { 2, 3, 5, 6, 8 };
	static const uint32_t uneven[] = { 0, 1, 0, 2, 0, 2, 1, 0 };
	struct tt_shape shape = { 0 };
	struct tally t = { 0 };
	struct set set;

	for (int i = 0; i < tt_nalgos * TT_SENDRECV * 5; i++) {
		const struct tt_algo *a = &tt_algos[i % tt_nalgos];
		enum tt_coll coll = (enum tt_coll)(i / tt_nalgos % TT_SENDRECV);
		int p = sizes[i / tt_nalgos / TT_SENDRECV];

		if (!(a->colls >> coll & 1) || (is_quick() && p > 5))
			continue;
		shape = *trivial(p < 4 ? 2 : 1, p == 5);
		shape.group = p > 4 ? uneven : NULL;
		build_set(&set, a, coll, p, root_matters(coll) ? p / 2 : 0, &shape);
		for (int r = 0; r < p; r++)
			how(&set, set.s[r], &t);
		CHECKF(!caught(&set), "%s was not put back", what);
		free_set(&set);
	}
	printf("%s: %u tried, %u caught, %u shown to be harmless\n", what, t.tried, t.caught,
	       t.harmless);
	CHECK(t.tried > 100 && t.caught + t.harmless == t.tried);
}

static void dependency_removed(void)
{
	mutate(drop_dependencies, "dependency removed");
}
static void message_swapped(void)
{
	mutate(swap_messages, "message swapped");
}
static void message_delayed(void)
{
	mutate(delay_messages, "message delayed at one end");
}

static void contribution_missing(void)
{
	mutate(drop_contributions, "contribution missing");
}
static void contribution_doubled(void)
{
	mutate(double_contributions, "contribution doubled");
}
static void wrong_peer(void)
{
	mutate(change_peers, "wrong peer");
}

/* A ring does not reduce in the order of ranks, and saying so does not help. */
static void order_is_proved(void)
{
	struct tt_check how = { .windows = 1, .depth = 1 };
	struct set set;

	build_set(&set, tt_algo_find("ring", TT_ALLREDUCE), TT_ALLREDUCE, 4, 0, trivial(1, 0));
	for (int r = 0; r < set.p; r++)
		set.s[r]->ordered = true;
	CHECK(tt_sched_check(set.s, set.p, &how) == tuttiMismatch);
	CHECKF(strstr(tt_last_error(), "order of ranks"), "%s", tt_last_error());
	free_set(&set);
}

/* Two ranks that both send first: fine with room for a message, stuck without. */
static void rendezvous_deadlock(void)
{
	struct tt_check how = { .windows = 1, .depth = 1 };
	struct set set = { .p = 2 };

	for (int r = 0; r < 2; r++) {
		struct tt_builder *b;
		uint32_t t;

		CHECK(tt_sched_begin(&b, TT_ALLREDUCE, "test", r, 2, 0, 1, 1) == tuttiSuccess);
		t = tt_sched_tmp(b, 0, 1);
		tt_copy(b, tt_ref(t, 0, 1), tt_ref(TT_IN, 0, 1));
		tt_send(b, 0, 0, !r, tt_ref(t, 0, 1));
		tt_recv(b, 0, 0, !r, tt_ref(t, 0, 1)); /* over what is being sent */
		tt_reduce(b, tt_ref(TT_OUT, 0, 1), tt_ref(r ? t : TT_IN, 0, 1),
			  tt_ref(r ? TT_IN : t, 0, 1));
		CHECK(tt_sched_end(b, &set.s[r]) == tuttiSuccess);
	}
	CHECKF(tt_sched_check(set.s, 2, &how) == tuttiSuccess, "%s", tt_last_error());
	how.depth = 0;
	CHECK(tt_sched_check(set.s, 2, &how) == tuttiMismatch);
	CHECKF(strstr(tt_last_error(), "deadlock"), "%s", tt_last_error());
	free_set(&set);
}

/* ---- the builder ---- */

static void builder_errors_stick(void)
{
	struct tt_sched *s = NULL;
	struct tt_builder *b;

	CHECK(tt_sched_begin(&b, TT_ALLREDUCE, "test", 3, 3, 0, 1, 1) == tuttiInvalidArgument);
	CHECK(tt_sched_begin(&b, TT_ALLREDUCE, "test", 0, 3, 0, 2, 1) == tuttiSuccess);
	tt_send(b, 0, 0, 1, tt_ref(TT_IN, 1, 2));
	tt_send(b, 0, 0, 9, tt_ref(TT_IN, 0, 1));
	CHECK(tt_sched_end(b, &s) == tuttiInternalError && !s);
	CHECKF(strstr(tt_last_error(), "chunks 1+2"), "%s", tt_last_error());
	CHECK(tt_sched_begin(&b, TT_ALLREDUCE, "test", 0, 3, 0, 2, 1) == tuttiSuccess);
	tt_copy(b, tt_ref(TT_IN, 0, 1), tt_ref(TT_OUT, 0, 1));
	CHECK(tt_sched_end(b, &s) == tuttiInternalError && !s);
}

static double build_ms(const char *name, enum tt_coll coll, uint32_t nlanes)
{
	const struct tt_algo *a = tt_algo_find(name, coll);
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t t = tt_now_ns();
		struct tt_sched *s;

		CHECK(a && a->build(coll, 63, 64, 0, trivial(nlanes, 0), &s) == tuttiSuccess);
		t = tt_now_ns() - t;
		best = t < best ? t : best;
		tt_sched_free(s);
	}
	printf("%s %s of 64 ranks, %u lanes: %.2f ms\n", name, tt_coll_name(coll), nlanes,
	       best * 1e-6);
	return (double)best * 1e-6;
}

/* Generous bounds: sanitizers and busy machines. */
static void building_is_quick(void)
{
	for (int i = 0; i < tt_nalgos; i++)
		for (int c = 0; c < TT_SENDRECV; c++)
			if (tt_algos[i].colls >> c & 1)
				CHECK(build_ms(tt_algos[i].name, (enum tt_coll)c, 2) < 100);
}

static void printing(void)
{
	char text[8192], few[16];
	struct tt_sched *s;
	int n;

	CHECK(tt_algo_find("ring", TT_ALLREDUCE)->build(TT_ALLREDUCE, 1, 3, 0, trivial(1, 0), &s) ==
	      tuttiSuccess);
	n = tt_sched_print(s, text, sizeof text);
	CHECK(n == (int)strlen(text));
	CHECKF(strstr(text, "AllReduce ring rank 1 of 3"), "%s", text);
	CHECKF(strstr(text, "recv   tmp0[2] from 0 skew 0"), "%s", text);
	CHECK(tt_sched_print(s, few, sizeof few) == n && strlen(few) == sizeof few - 1);
	CHECK(tt_sched_print(s, NULL, 0) == n);
	tt_sched_free(s);
	CHECK(!tt_algo_find("ring", TT_BROADCAST) && !tt_algo_find("none", TT_ALLREDUCE));
}

/* ---- partition ---- */

static struct tt_part random_part(uint64_t *rnd, uint32_t *weights)
{
	static const size_t aligns[] = { 0, 1, 16, 64 };
	struct tt_part p = { .align = aligns[test_rand(rnd) % 4] };
	size_t size = (size_t)1 << (test_rand(rnd) % 41);

	p.count = ((size_t)test_rand(rnd) << 20 ^ test_rand(rnd)) % (size + 1);
	p.per_block = 1 + test_rand(rnd) % 130;
	p.nwindows = test_rand(rnd) % 3 ? 1 + test_rand(rnd) % 9 : 1;
	p.window = tt_max(tt_div_up(p.count, p.nwindows), 1);
	if (test_rand(rnd) % 4 == 0)
		p.window += p.align; /* rounded up: the last windows are short, or empty */
	if (p.nwindows == 1)
		p.window = p.count;
	for (uint32_t i = 0; i < p.per_block; i++)
		weights[i] = test_rand(rnd) % 100 ? test_rand(rnd) % 1000 + 1 : 0;
	weights[test_rand(rnd) % p.per_block] = UINT32_MAX;
	if (test_rand(rnd) % 2)
		p.weights = weights;
	return p;
}

static void check_part(const struct tt_part *p, uint32_t nblocks)
{
	for (uint32_t b = 0; b < nblocks; b++) {
		size_t at = b * p->count;

		for (uint32_t w = 0; w < p->nwindows; w++)
			for (uint32_t c = 0; c < p->per_block; c++) {
				uint32_t id = b * p->per_block + c;

				CHECK(tt_part_offset(p, w, id) == at);
				at += tt_part_len(p, w, id, 1);
			}
		CHECK(at == (b + 1) * p->count);
		CHECK(p->nwindows > 1 || tt_part_offset(p, 0, (b + 1) * p->per_block) == at);
	}
}

static void partition_covers(void)
{
	uint64_t rnd = test_seed();
	uint32_t weights[130];

	for (int i = 0; i < 20000; i++) {
		struct tt_part p = random_part(&rnd, weights);
		uint32_t nblocks = 1 + test_rand(&rnd) % 4;
		uint32_t from = test_rand(&rnd) % p.per_block;
		uint32_t n = test_rand(&rnd) % (p.per_block - from + 1);
		size_t sum = 0;

		check_part(&p, nblocks);
		for (uint32_t c = from; c < from + n; c++)
			sum += tt_part_len(&p, p.nwindows - 1, c, 1);
		CHECK(tt_part_len(&p, p.nwindows - 1, from, n) == sum);
		if (p.nwindows == 1)
			CHECK(tt_part_len(&p, 0, 0, nblocks * p.per_block) == nblocks * p.count);
	}
}

static void partition_aligns(void)
{
	struct tt_part p = {
		.count = 1000003, .window = 1000003, .nwindows = 1, .per_block = 7, .align = 64
	};

	for (uint32_t c = 0; c < 7; c++)
		CHECK(tt_part_offset(&p, 0, c) % 64 == 0);
	for (uint32_t c = 0; c < 6; c++)
		CHECK(tt_part_len(&p, 0, c, 1) >= p.count / 7 - 64);
	p.count = p.window = 70; /* too short to align: nobody goes empty */
	for (uint32_t c = 0; c < 7; c++)
		CHECK(tt_part_len(&p, 0, c, 1) == 10);
}

const struct test tests[] = {
	{ "allreduce", allreduce, 300 },
	{ "allgather", allgather, 300 },
	{ "reducescatter", reducescatter, 300 },
	{ "broadcast", broadcast, 300 },
	{ "reduce", reduce, 300 },
	{ "barrier", barrier, 300 },
	{ "dependency_removed", dependency_removed, 0 },
	{ "message_swapped", message_swapped, 0 },
	{ "message_delayed", message_delayed, 0 },
	{ "contribution_missing", contribution_missing, 0 },
	{ "contribution_doubled", contribution_doubled, 0 },
	{ "wrong_peer", wrong_peer, 0 },
	{ "order_is_proved", order_is_proved, 0 },
	{ "rendezvous_deadlock", rendezvous_deadlock, 0 },
	{ "builder_errors_stick", builder_errors_stick, 0 },
	{ "building_is_quick", building_is_quick, 0 },
	{ "printing", printing, 0 },
	{ "partition_covers", partition_covers, 0 },
	{ "partition_aligns", partition_aligns, 0 },
};
const int ntests = sizeof tests / sizeof tests[0];
