/* Blocks of a device (src/dev_run.h) as threads, against src/exec.c: every algorithm with every shape runs as a
 * program, over links that are never reset, whose memory is full of what looks like data, from counts that are about
 * to wrap; the bits are those of the executor over inproc links. What it cannot show: a device's memory order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "exec_dev.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dev_host.h"
#include "exec_rig.h"

enum { MAX_P = RIG_RANKS, LANES = RIG_LANES, SHAPE_LANES = 3, SLOT = 4096 + TT_DEV_SLACK };

/* ---- links: of devices, and of the host ---- */

struct pipe {
	struct tt_dev_end from, to;
	char *slots;
	uint64_t *packets;
};

struct world {
	int p;
	uint64_t rnd;
	uint32_t start, packets, abort;
	size_t window; /* 0: any */
	struct pipe *pipes[MAX_P][MAX_P][LANES]; /* from, to */
	struct exec_rig rig;
};

static bool is_quick(void)
{
	return getenv("TEST_QUICK") != NULL;
}

static void begin_world(struct world *o, int p, uint32_t start, uint64_t seed)
{
	memset(o, 0, sizeof(*o));
	o->p = p;
	o->rnd = seed;
	o->start = start;
	o->packets = SLOT / 8;
	exec_rig_begin(&o->rig, p);
}

static void free_pipe(struct pipe *e)
{
	if (!e)
		return;
	free(e->slots);
	free(e->packets);
	free(e);
}

static void end_world(struct world *o)
{
	for (int a = 0; a < o->p; a++)
		for (int b = 0; b < o->p; b++)
			for (int l = 0; l < LANES; l++)
				free_pipe(o->pipes[a][b][l]);
	exec_rig_end(&o->rig);
}

/* Every byte of a slot looks like data, every packet as if it had come a moment or half a cycle ago. */
static struct pipe *pipe_of(struct world *o, int from, int to, uint32_t lane)
{
	struct pipe **e = &o->pipes[from][to][lane];

	CHECK(lane < LANES);
	if (*e)
		return *e;
	*e = calloc(1, sizeof(**e));
	(*e)->from.word = (*e)->from.pos = (*e)->to.word = (*e)->to.pos = o->start;
	(*e)->slots = malloc(TT_DEV_SLOTS * SLOT);
	(*e)->packets = malloc(TT_DEV_SLOTS * 16 * (size_t)o->packets);
	memset((*e)->slots, 0xa5, TT_DEV_SLOTS * SLOT);
	for (size_t i = 0; i < TT_DEV_SLOTS * 2 * (size_t)o->packets; i++) {
		uint32_t age = test_rand(&o->rnd) % 5 + (test_rand(&o->rnd) % 2 ? 1u << 31 : 0);

		(*e)->packets[i] = (uint64_t)(o->start - age) << 32 | test_rand(&o->rnd);
	}
	return *e;
}

/* ---- one schedule on all ranks, both ways ---- */

struct job {
	struct world *o;
	struct tt_dev_code *code[MAX_P];
	struct tt_dev_link *links[MAX_P];
	struct tt_prog *prog[MAX_P];
	enum tt_coll coll;
	uint32_t nblocks, depth;
	const char *name;
};

static void wire(struct job *j, int r)
{
	const struct tt_dev_dir *dirs = tt_dev_code_dirs(j->code[r]);
	uint32_t n = tt_dev_code_prog(j->code[r])->nlinks;

	j->links[r] = calloc(n + 1, sizeof(*j->links[r]));
	for (uint32_t i = 0; i < n; i++) {
		const struct tt_dev_dir *d = &dirs[i];
		struct pipe *e = d->is_send ? pipe_of(j->o, r, (int)d->peer, d->lane) :
					      pipe_of(j->o, (int)d->peer, r, d->lane);

		j->links[r][i] = (struct tt_dev_link){ d->is_send ? &e->from : &e->to,
						       d->is_send ? &e->to.word : &e->from.word, e->slots, e->packets };
	}
}

static void begin_job(struct job *j, struct world *o, const struct tt_algo *a, enum tt_coll coll, int root,
		      const struct tt_shape *shape, uint32_t depth)
{
	bool runnable;

	*j = (struct job){ .o = o, .coll = coll, .depth = depth, .name = a->name };
	for (int r = 0; r < o->p; r++) {
		struct tt_sched *s;

		CHECKF(a->build(coll, r, o->p, root, shape, &s) == tuttiSuccess, "%s", tt_last_error());
		j->prog[r] = exec_rig_prog(&o->rig, r, s, depth);
		runnable = s->block_runnable;
		CHECKF(tt_dev_code_new(s, depth, &j->code[r]) == tuttiSuccess, "%s", tt_last_error());
		wire(j, r);
		CHECK(runnable == !tt_dev_code_joined(j->code[r]));
		j->nblocks += tt_dev_code_prog(j->code[r])->nblocks;
	}
}

static void end_job(struct job *j)
{
	for (int r = 0; r < j->o->p; r++) {
		tt_dev_code_free(j->code[r]);
		tt_prog_free(j->prog[r]);
		free(j->links[r]);
	}
}

/* ---- one call ---- */

struct call {
	struct tt_call c[MAX_P];
	char *in[MAX_P], *out[MAX_P], *want[MAX_P], *tmp[MAX_P];
	struct tt_dev_bind *bind[MAX_P];
	size_t in_bytes, out_bytes, shift;
	struct tt_dev_launch launch;
};

static void fill(uint64_t *rnd, char *p, size_t bytes, tuttiDataType_t type)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (char)test_rand(rnd);
	for (size_t i = 0; type == tuttiFloat32 && i + 4 <= bytes; i += 4) {
		float f = ((float)(int32_t)test_rand(rnd) - 1e9f) * (test_rand(rnd) % 3 ? 1e-3f : 1e-9f);

		memcpy(p + i, &f, 4);
	}
}

/* Whose input is which part of its output where a call is in place; bytes, or -1. */
static ptrdiff_t in_place_at(const struct job *j, const struct call *k, int r)
{
	switch (j->coll) {
	case TT_ALLGATHER:
		return (ptrdiff_t)k->in_bytes * r;
	case TT_ALLREDUCE:
		return 0;
	default:
		return -1;
	}
}

static void make_buffers(struct job *j, struct call *k, size_t count, tuttiDataType_t type, bool in_place)
{
	uint64_t *rnd = &j->o->rnd;
	size_t size = count * tt_type_size(type), p = (size_t)j->o->p;

	k->in_bytes = j->coll == TT_REDUCESCATTER ? size * p : size;
	k->out_bytes = j->coll == TT_ALLGATHER ? size * p : size;
	k->shift = test_rand(rnd) % 2 ? 0 : test_rand(rnd) % 40;
	for (int r = 0; r < j->o->p; r++) {
		k->in[r] = malloc(k->in_bytes + 64);
		k->out[r] = malloc(k->out_bytes + 64);
		k->want[r] = malloc(k->out_bytes + 64);
		fill(rnd, k->in[r], k->in_bytes + 64, type);
		memset(k->out[r], 0x77, k->out_bytes + 64);
		memset(k->want[r], 0x77, k->out_bytes + 64);
		k->c[r] = (struct tt_call){ .in = k->in[r] + k->shift, .out = k->want[r] + k->shift, .count = count,
					    .type = type };
		if (!in_place || in_place_at(j, k, r) < 0)
			continue;
		memcpy(k->out[r] + k->shift + in_place_at(j, k, r), k->c[r].in, k->in_bytes);
		memcpy(k->want[r] + k->shift + in_place_at(j, k, r), k->c[r].in, k->in_bytes);
		k->c[r].in = k->want[r] + k->shift + in_place_at(j, k, r);
	}
}

/* False: it has messages that are larger than a slot. */
static bool begin_call(struct job *j, struct call *k, size_t count, tuttiDataType_t type, int op, uint32_t small,
		       bool in_place)
{
	size_t window = j->o->window ? j->o->window : (size_t)64 << test_rand(&j->o->rnd) % 7;
	uint32_t first = 0;
	int fit = 0;

	*k = (struct call){ .launch = { .abort = &j->o->abort, .slot_bytes = SLOT, .packets = j->o->packets,
					.small = small, .op = (uint32_t)op, .nranks = (uint32_t)j->o->p } };
	make_buffers(j, k, count, type, in_place);
	for (int r = 0; r < j->o->p; r++) {
		ptrdiff_t at = in_place ? in_place_at(j, k, r) : -1;
		size_t tmp;

		k->c[r].op = (struct tt_op){ .kind = op, .commutative = true, .nranks = j->o->p };
		k->c[r].window_bytes = window;
		fit += tt_dev_fits(tt_dev_code_sched(j->code[r]), &k->c[r], SLOT);
		k->bind[r] = malloc(tt_dev_bind_bytes(j->code[r]));
		tmp = tt_dev_bind(j->code[r], &k->c[r], SLOT, k->bind[r]);
		k->tmp[r] = aligned_alloc(64, (tmp + 127) & ~63ul);
		memset(k->tmp[r], 0x5a, tmp);
		k->launch.ranks[r] = (struct tt_dev_rank){
			.prog = tt_dev_code_prog(j->code[r]), .bind = k->bind[r], .links = j->links[r],
			.in = at < 0 ? k->c[r].in : k->out[r] + k->shift + at, .out = k->out[r] + k->shift,
			.tmp = k->tmp[r], .first = first };
		first += tt_dev_code_prog(j->code[r])->nblocks;
	}
	CHECKF(fit == 0 || fit == j->o->p, "%s: ranks do not agree whether %zu elements fit", j->name, count);
	if (fit)
		exec_rig_run(&j->o->rig, j->prog, k->c);
	return fit;
}

static void free_call(struct job *j, struct call *k)
{
	for (int r = 0; r < j->o->p; r++) {
		free(k->in[r]);
		free(k->out[r]);
		free(k->want[r]);
		free(k->tmp[r]);
		free(k->bind[r]);
	}
}

static void compare(struct job *j, struct call *k, bool in_place)
{
	for (int r = 0; r < j->o->p; r++)
		for (size_t i = 0; i < k->out_bytes + 64; i++)
			CHECKF(k->out[r][i] == k->want[r][i], "%s %s of %d ranks, %zu elements of type %d in %u "
			       "windows, depth %u, small below %u%s: rank %d differs at byte %zu of %zu",
			       tt_coll_name(j->coll), j->name, j->o->p, k->c[r].count, (int)k->c[r].type,
			       k->bind[r]->nwindows, j->depth, k->launch.small, in_place ? ", in place" : "", r,
			       i - k->shift, k->out_bytes);
}

static void run_block(int i, void *arg)
{
	struct dev_shared shared = { .looks = 0 };

	CHECK(dev_host_block(arg, (uint32_t)i, &shared));
}

static void one_call(struct job *j, size_t count, tuttiDataType_t type, int op, uint32_t small, bool in_place)
{
	struct call k;

	if (begin_call(j, &k, count, type, op, small, in_place)) {
		test_threads((int)j->nblocks, run_block, &k.launch);
		compare(j, &k, in_place);
	}
	free_call(j, &k);
}

/* ---- shapes ---- */

struct shape_store {
	struct tt_shape shape;
	uint32_t order[SHAPE_LANES * MAX_P], parent[SHAPE_LANES * MAX_P], weights[SHAPE_LANES], group[MAX_P];
};

static const struct tt_shape *random_shape(struct shape_store *st, uint64_t *rnd, int p)
{
	uint32_t n = 1 + test_rand(rnd) % SHAPE_LANES, groups = 1 + test_rand(rnd) % 4;

	for (uint32_t l = 0; l < n; l++) {
		uint32_t *o = st->order + l * (uint32_t)p;

		st->weights[l] = 1 + test_rand(rnd) % 7;
		for (int i = 0; i < p; i++) {
			int k = (int)(test_rand(rnd) % (uint32_t)(i + 1));

			o[i] = o[k];
			o[k] = (uint32_t)i;
		}
		for (int i = 0; i < p; i++)
			st->parent[l * (uint32_t)p + o[i]] = o[i ? (int)(test_rand(rnd) % (uint32_t)i) : 0];
	}
	for (int i = 0; i < p; i++)
		st->group[i] = test_rand(rnd) % groups;
	st->shape = (struct tt_shape){ .nlanes = n, .param = test_rand(rnd) % 6 };
	st->shape.order = test_rand(rnd) % 4 ? st->order : NULL;
	st->shape.parent = test_rand(rnd) % 4 ? st->parent : NULL;
	st->shape.weights = test_rand(rnd) % 2 ? st->weights : NULL;
	st->shape.group = test_rand(rnd) % 2 ? st->group : NULL;
	return &st->shape;
}

/* ---- every schedule ---- */

static void some_calls(struct world *o, const struct tt_algo *a, enum tt_coll coll, const struct tt_shape *shape)
{
	static const tuttiDataType_t types[] = { tuttiFloat32, tuttiFloat32, tuttiInt8, tuttiFloat16, tuttiFloat64 };
	static const uint32_t small[] = { 0, 100, SLOT - 4 };
	uint32_t depth = 1 + test_rand(&o->rnd) % 4;
	int n = is_quick() ? 2 : 5, root = (int)(test_rand(&o->rnd) % (uint32_t)o->p);
	struct job j;

	begin_job(&j, o, a, coll, root, shape, depth);
	for (int i = 0; i < n; i++) {
		size_t count = coll == TT_BARRIER || i == 0 ? test_rand(&o->rnd) % 2 : test_rand(&o->rnd) % 3000;

		if (coll == TT_BARRIER || test_rand(&o->rnd) % 3 == 0)
			count %= 100;
		if (coll == TT_BARRIER)
			count = 0;
		one_call(&j, count, types[test_rand(&o->rnd) % 5], test_rand(&o->rnd) % 4 ? tuttiSum : tuttiMax,
			 small[test_rand(&o->rnd) % 3], test_rand(&o->rnd) % 2);
	}
	end_job(&j);
}

static const uint32_t starts[] = { 0, (1u << 31) - 10, 0u - 10, TT_DEV_RENEW - 5 };

static void all_schedules(int p, uint32_t start)
{
	struct world o;

	begin_world(&o, p, start, test_seed() + (uint64_t)p);
	for (int i = 0; i < tt_nalgos; i++)
		for (int c = 0; c < TT_SENDRECV; c++)
			for (uint32_t k = 0; k < 4 && tt_algos[i].colls >> c & 1; k++) {
				struct shape_store st;
				struct tt_shape plain = { .nlanes = 1 + k % 2, .param = k / 2 };

				some_calls(&o, &tt_algos[i], (enum tt_coll)c,
					   k < 3 ? &plain : random_shape(&st, &o.rnd, p));
			}
	end_world(&o);
}

static void every_schedule(void)
{
	for (int p = 1; p <= (is_quick() ? 4 : 8); p++)
		all_schedules(p, starts[p % 4]);
}

static void more_ranks(void)
{
	all_schedules(is_quick() ? 7 : 11, starts[2]);
	if (!is_quick())
		all_schedules(16, starts[1]);
}

/* ---- many calls, each rank at its own pace ---- */

enum { CALLS = 24 };
struct drift {
	struct job *j;
	struct call calls[CALLS];
	pthread_barrier_t rank[MAX_P]; /* the blocks of a rank end a call before the next: kernels on a stream */
};

static void run_calls(int at, void *arg)
{
	struct drift *d = arg;
	struct dev_shared shared = { .looks = 0 };
	int r = d->j->o->p - 1;

	while (d->calls[0].launch.ranks[r].first > (uint32_t)at)
		r--;
	for (int i = 0; i < CALLS; i++) {
		CHECK(dev_host_block(&d->calls[i].launch, (uint32_t)at, &shared));
		pthread_barrier_wait(&d->rank[r]);
	}
}

static void drift(const char *algo, int p, uint32_t lanes, uint32_t start)
{
	struct tt_shape shape = { .nlanes = lanes, .param = 1 };
	struct world o;
	struct drift d;
	struct job j;

	begin_world(&o, p, start, test_seed());
	begin_job(&j, &o, tt_algo_find(algo, TT_ALLREDUCE), TT_ALLREDUCE, 0, &shape, 2);
	d.j = &j;
	for (int i = 0; i < CALLS; i++)
		CHECK(begin_call(&j, &d.calls[i], test_rand(&o.rnd) % (i % 3 ? 30 : 900), tuttiFloat32, tuttiSum, 65,
				 i % 2));
	for (int r = 0; r < p; r++)
		pthread_barrier_init(&d.rank[r], NULL, tt_dev_code_prog(j.code[r])->nblocks);
	test_threads((int)j.nblocks, run_calls, &d);
	for (int i = 0; i < CALLS; i++) {
		compare(&j, &d.calls[i], i % 2);
		free_call(&j, &d.calls[i]);
	}
	for (int r = 0; r < p; r++)
		pthread_barrier_destroy(&d.rank[r]);
	end_job(&j);
	end_world(&o);
}

static void many_calls(void)
{
	for (int i = 0; i < 4; i++) {
		drift("direct", 3, 1, starts[i]);
		drift("direct1", 4, 2, starts[i]);
		drift("ring", 4, 2, starts[i]);
		drift("recdouble", 5, 1, starts[i]);
		drift("tree", 5, 1, starts[i]);
	}
}

/* ---- two ranks, one after the other ---- */

struct two {
	struct world o;
	struct job j;
};

/* A broadcast from rank 0 to rank 1. */
static void begin_two(struct two *t, uint32_t start)
{
	struct tt_shape shape = { .nlanes = 1 };

	begin_world(&t->o, 2, start, test_seed());
	t->o.window = SLOT; /* of one message a call, as the fifth would wait */
	begin_job(&t->j, &t->o, tt_algo_find("direct", TT_BROADCAST), TT_BROADCAST, 0, &shape, 1);
	CHECK(t->j.nblocks == 2);
}

static void end_two(struct two *t)
{
	end_job(&t->j);
	end_world(&t->o);
}

static void one_after_the_other(struct two *t, size_t bytes, uint32_t small)
{
	struct call k;

	CHECK(begin_call(&t->j, &k, bytes, tuttiInt8, tuttiSum, small, false));
	for (int i = 0; i < 2; i++)
		run_block(i, &k.launch);
	compare(&t->j, &k, false);
	free_call(&t->j, &k);
}

static void packets(void)
{
	for (int i = 0; i < 4; i++) {
		struct two t;

		begin_two(&t, starts[i]);
		for (size_t bytes = 0; bytes < 80; bytes++)
			for (int k = 0; k < (is_quick() ? 2 : 10); k++)
				one_after_the_other(&t, bytes, 80);
		for (size_t bytes = SLOT - TT_DEV_SLACK - 9; bytes < SLOT - TT_DEV_SLACK; bytes++)
			one_after_the_other(&t, bytes, SLOT - TT_DEV_SLACK);
		end_two(&t);
	}
}

struct held {
	struct call k;
	struct dev_shared shared[MAX_P];
	_Atomic int over;
	int nblocks;
};

/* Blocks but the first, which comes when all others wait. */
static void run_held(int i, void *arg)
{
	struct held *h = arg;

	if (i) {
		CHECK(dev_host_block(&h->k.launch, (uint32_t)i, &h->shared[i]));
		atomic_fetch_add(&h->over, 1);
		return;
	}
	for (int b = 1; b < h->nblocks; b++)
		while (!atomic_load_explicit(&h->shared[b].stuck, memory_order_acquire) && !atomic_load(&h->over))
			sched_yield();
	CHECKF(!atomic_load(&h->over), "a block took what was not sent");
	CHECK(dev_host_block(&h->k.launch, 0, &h->shared[0]));
}

/* What lies in memory from 2^32 messages ago has the numbers of messages to come: short ones leave most of it where it
 * is, until the count has passed a multiple of TT_DEV_RENEW. Large ones leave all of it. */
static void nothing_old(uint32_t small)
{
	enum { MESSAGES = 40 };
	struct two t;
	struct pipe *e;
	uint32_t coming;

	begin_two(&t, TT_DEV_RENEW - 10);
	e = pipe_of(&t.o, 0, 1, 0);
	coming = t.o.start + MESSAGES + 1;
	for (size_t i = 0; i < 2 * (size_t)t.o.packets * TT_DEV_SLOTS; i++)
		if (i % (2 * t.o.packets) > 1)
			e->packets[i] = (uint64_t)coming << 32;
	for (int i = 0; i < MESSAGES; i++)
		one_after_the_other(&t, (size_t)(small > 8 ? i % 8 : 100), small);
	CHECKF(e->to.pos - e->to.word < MESSAGES, "the receiver's word stays behind");
	for (size_t i = 0; i < 2 * (size_t)t.o.packets * TT_DEV_SLOTS; i++)
		CHECKF(e->packets[i] >> 32 != coming, "packet %zu has the number of a message to come", i / 2);
	one_after_the_other(&t, 1000, SLOT - TT_DEV_SLACK);
	end_two(&t);
}

static void old_numbers(void)
{
	nothing_old(SLOT - TT_DEV_SLACK);
	nothing_old(8);
}

/* The first block is late by all that the others can do without it: with slots full of what looks like data. Empty
 * messages have to be waited for as well. */
static void late_block(enum tt_coll coll, const char *algo)
{
	static const uint32_t small[] = { 0, 65, SLOT - TT_DEV_SLACK };
	static struct held h;
	struct tt_shape shape = { .nlanes = 1 };

	for (int i = 0; i < 12; i++) {
		struct world o;
		struct job j;

		begin_world(&o, 2 + i % 4, starts[i % 4], test_seed());
		begin_job(&j, &o, tt_algo_find(algo, coll), coll, 0, &shape, 1);
		memset(&h, 0, sizeof(h));
		h.nblocks = (int)j.nblocks;
		CHECK(begin_call(&j, &h.k, coll == TT_BARRIER ? 0 : test_rand(&o.rnd) % 900, tuttiFloat32, tuttiSum,
				 small[i % 3], false));
		test_threads(h.nblocks, run_held, &h);
		compare(&j, &h.k, false);
		free_call(&j, &h.k);
		end_job(&j);
		end_world(&o);
	}
}

static void late_blocks(void)
{
	late_block(TT_ALLREDUCE, "direct1");
	late_block(TT_BARRIER, "dissemination");
}

/* One lane is held up, in the middle of its windows, while the other runs to its end: into a last window which is cut
 * in another way than those before. */
static void run_lanes(int i, void *arg)
{
	struct held *h = arg;
	int last = h->nblocks - 2;

	if (i == last)
		while (atomic_load(&h->over) < h->nblocks / 2)
			sched_yield();
	for (int b = 0; i % 2 && b < last; b += 2)
		while (!atomic_load_explicit(&h->shared[b].stuck, memory_order_acquire))
			sched_yield();
	CHECK(dev_host_block(&h->k.launch, (uint32_t)i, &h->shared[i]));
	atomic_fetch_add(&h->over, i % 2);
}

static void lanes_apart(void)
{
	static struct held h;
	struct tt_shape shape = { .nlanes = 2, .param = 1 };

	for (size_t part = 1; part < 8; part++) {
		struct world o;
		struct job j;

		begin_world(&o, 8, 0, test_seed());
		o.window = 64;
		begin_job(&j, &o, tt_algo_find("ring", TT_ALLREDUCE), TT_ALLREDUCE, 0, &shape, 2);
		memset(&h, 0, sizeof(h));
		h.nblocks = (int)j.nblocks;
		CHECK(h.nblocks == 16);
		CHECK(begin_call(&j, &h.k, 3 * 256 + part * 32, tuttiFloat32, tuttiSum, part % 2 ? 0 : 1000, false));
		CHECK(h.k.bind[0]->nwindows == 4);
		test_threads(h.nblocks, run_lanes, &h);
		compare(&j, &h.k, false);
		free_call(&j, &h.k);
		end_job(&j);
		end_world(&o);
	}
}

/* ---- abort ---- */

static void run_aborted(int i, void *arg)
{
	struct held *h = arg;

	if (i) {
		CHECK(!dev_host_block(&h->k.launch, (uint32_t)i, &h->shared[i]));
		return;
	}
	for (int b = 1; b < h->nblocks; b++)
		while (!atomic_load_explicit(&h->shared[b].stuck, memory_order_acquire))
			sched_yield();
	dev_store((uint32_t *)h->k.launch.abort, 1);
}

static void abort_ends_waiting(void)
{
	static struct held h;
	static const char *const algos[] = { "ring", "direct1", "tree" };
	struct tt_shape shape = { .nlanes = 1, .param = 1 };

	for (int i = 0; i < 6; i++) {
		struct world o;
		struct job j;

		begin_world(&o, 3, 0, test_seed());
		begin_job(&j, &o, tt_algo_find(algos[i % 3], TT_ALLREDUCE), TT_ALLREDUCE, 0, &shape, 1);
		memset(&h, 0, sizeof(h));
		h.nblocks = (int)j.nblocks;
		CHECK(begin_call(&j, &h.k, 100, tuttiFloat32, tuttiSum, i / 3 ? 0 : 2000, false));
		test_threads(h.nblocks, run_aborted, &h);
		free_call(&j, &h.k);
		end_job(&j);
		end_world(&o);
	}
}

static void run_too_late(int i, void *arg)
{
	struct held *h = arg;

	CHECK(!dev_host_block(&h->k.launch, (uint32_t)i, &h->shared[i]));
	CHECKF(h->shared[i].looks <= DEV_SOON, "block %d has looked %llu times for what nobody sends", i,
	       (unsigned long long)h->shared[i].looks);
}

/* Many such may stand on a stream, one behind the other. */
static void calls_after_an_abort(void)
{
	static struct held h;
	struct tt_shape shape = { .nlanes = 1, .param = 1 };

	for (int i = 0; i < 2; i++) {
		struct world o;
		struct job j;

		begin_world(&o, 3, 0, test_seed());
		begin_job(&j, &o, tt_algo_find("ring", TT_ALLREDUCE), TT_ALLREDUCE, 0, &shape, 1);
		memset(&h, 0, sizeof(h));
		CHECK(begin_call(&j, &h.k, 100, tuttiFloat32, tuttiSum, i ? 0 : 2000, false));
		dev_store((uint32_t *)h.k.launch.abort, 1);
		run_too_late(1, &h);
		free_call(&j, &h.k);
		end_job(&j);
		end_world(&o);
	}
}

const struct test tests[] = {
	{ "every schedule as blocks has the executor's bits", every_schedule, 300 },
	{ "the same with more ranks", more_ranks, 300 },
	{ "many calls without a reset, ranks apart", many_calls, 120 },
	{ "packets of every size, from and to anywhere", packets, 120 },
	{ "nothing is so old that it looks new", old_numbers, 0 },
	{ "blocks wait for one that is late", late_blocks, 120 },
	{ "a lane that is far behind keeps its temporaries", lanes_apart, 120 },
	{ "abort ends all that wait", abort_ends_waiting, 0 },
	{ "a call that comes after an abort ends at once", calls_after_an_abort, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
