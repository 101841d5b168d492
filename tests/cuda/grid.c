/* Ranks on one device as one grid (src/exec_grid.c) over the CUDA kind: every algorithm's bits are those of the
 * executor. grid.sh runs it with a driver that is a fake; memory is read by the kind's own copies, so that nothing
 * but fake.h stands between it and a real one. SPDX-License-Identifier: Apache-2.0 */
#include "exec_grid.h"

#include <stdio.h>

#include "exec_rig.h"
#include "fake.h"

struct bench {
	const struct tt_mem_kind *kind;
	struct tt_mem_place at;
	tuttiStream_t queue;
	int p;
	uint64_t rnd;
	struct exec_rig rig;
	struct tt_grid *grid;
};

static void begin_bench(struct bench *b, int p)
{
	void *probe;

	fake_start();
	*b = (struct bench){ .p = p, .rnd = test_seed() + (uint64_t)p, .queue = fake_queue_new() };
	probe = fake_alloc(64);
	tt_mem_look();
	b->kind = tt_mem_kind_of(probe);
	CHECKF(b->kind && b->kind->grid, "no grids here: run by tests/cuda/grid.sh");
	CHECK(b->kind->place("grid", b->queue, probe, probe, &b->at) == tuttiSuccess);
	fake_free(probe);
	exec_rig_begin(&b->rig, p);
	CHECK(b->kind->enter(b->at.where) == tuttiSuccess);
	CHECKF(tt_grid_new(b->kind, p, &b->grid) == tuttiSuccess, "%s", tt_last_error());
}

static void end_bench(struct bench *b)
{
	fake_queue_sync(b->queue);
	tt_grid_free(b->grid);
	b->kind->leave();
	exec_rig_end(&b->rig);
	fake_queue_free(b->queue);
}

/* ---- one schedule, some calls ---- */

struct job {
	struct bench *b;
	enum tt_coll coll;
	const char *name;
	struct tt_dev_code *code[RIG_RANKS];
	struct tt_prog *prog[RIG_RANKS];
};

static bool begin_job(struct job *j, struct bench *b, const struct tt_algo *a, enum tt_coll coll, int root,
		      const struct tt_shape *shape)
{
	*j = (struct job){ .b = b, .coll = coll, .name = a->name };
	for (int r = 0; r < b->p; r++) {
		struct tt_sched *s;

		CHECKF(a->build(coll, r, b->p, root, shape, &s) == tuttiSuccess, "%s", tt_last_error());
		j->prog[r] = exec_rig_prog(&b->rig, r, s, 2);
		CHECKF(tt_dev_code_new(s, 2, &j->code[r]) == tuttiSuccess, "%s", tt_last_error());
	}
	return true;
}

struct call {
	struct tt_call host[RIG_RANKS], device[RIG_RANKS];
	char *in[RIG_RANKS], *want[RIG_RANKS], *din[RIG_RANKS], *dout[RIG_RANKS];
	size_t in_bytes, out_bytes, shift;
};

static void copy_in(const struct bench *b, void *device, const void *host, size_t n)
{
	void *pinned;

	CHECK(b->kind->alloc(n + 1, TT_MEM_PINNED, &pinned) == tuttiSuccess);
	memcpy(pinned, host, n);
	CHECK(!n || b->kind->copy(b->queue, device, pinned, n) == tuttiSuccess);
	fake_queue_sync(b->queue);
	b->kind->release(pinned, n + 1, TT_MEM_PINNED);
}

static void make_call(struct job *j, struct call *k, size_t count, tuttiDataType_t type, int op)
{
	struct bench *b = j->b;
	size_t size = count * tt_type_size(type), p = (size_t)b->p;

	*k = (struct call){ .in_bytes = j->coll == TT_REDUCESCATTER ? size * p : size,
			    .out_bytes = j->coll == TT_ALLGATHER ? size * p : size,
			    .shift = test_rand(&b->rnd) % 2 ? 0 : tt_type_size(type) };
	for (int r = 0; r < b->p; r++) {
		k->in[r] = malloc(k->in_bytes + 64);
		k->want[r] = malloc(k->out_bytes + 64);
		CHECK(k->in[r] && k->want[r]);
		for (size_t i = 0; i < k->in_bytes + 64; i++)
			k->in[r][i] = (char)(test_rand(&b->rnd) % (i % 4 == 3 ? 64 : 256)); /* floats that add up */
		memset(k->want[r], 0x77, k->out_bytes + 64);
		k->din[r] = fake_alloc(k->in_bytes + 64);
		k->dout[r] = fake_alloc(k->out_bytes + 64);
		copy_in(b, k->din[r], k->in[r], k->in_bytes + 64);
		copy_in(b, k->dout[r], k->want[r], k->out_bytes + 64);
		k->host[r] = (struct tt_call){ .in = k->in[r] + k->shift, .out = k->want[r] + k->shift, .count = count,
					       .type = type, .window_bytes = 128 << 10,
					       .op = { .kind = op, .commutative = true, .nranks = b->p } };
		k->device[r] = k->host[r];
		k->device[r].in = k->din[r] + k->shift;
		k->device[r].out = k->dout[r] + k->shift;
	}
}

static void compare(struct job *j, struct call *k)
{
	struct bench *b = j->b;
	void *pinned;
	char *got;

	CHECK(b->kind->alloc(k->out_bytes + 64, TT_MEM_PINNED, &pinned) == tuttiSuccess);
	got = pinned;
	for (int r = 0; r < b->p; r++) {
		CHECK(b->kind->copy(b->queue, got, k->dout[r], k->out_bytes + 64) == tuttiSuccess);
		fake_queue_sync(b->queue);
		for (size_t i = 0; i < k->out_bytes + 64; i++)
			CHECKF(got[i] == k->want[r][i], "%s %s of %d ranks, %zu elements: rank %d differs at byte %zu "
			       "of %zu", tt_coll_name(j->coll), j->name, b->p, k->host[0].count, r, i - k->shift,
			       k->out_bytes);
	}
	b->kind->release(pinned, k->out_bytes + 64, TT_MEM_PINNED);
}

static void end_call(struct job *j, struct call *k)
{
	for (int r = 0; r < j->b->p; r++) {
		free(k->in[r]);
		free(k->want[r]);
		fake_free(k->din[r]);
		fake_free(k->dout[r]);
	}
}

static void one_call(struct job *j, size_t count, tuttiDataType_t type, int op)
{
	struct bench *b = j->b;
	struct call k;
	tuttiResult_t r;

	make_call(j, &k, count, type, op);
	r = tt_grid_run(b->grid, b->queue, false, j->code, k.device);
	CHECKF(r == tuttiSuccess || (r == tuttiUnsupported && count * tt_type_size(type) > 64000), "%s",
	       tt_last_error());
	if (r == tuttiSuccess) {
		exec_rig_run(&b->rig, j->prog, k.host);
		compare(j, &k);
	}
	end_call(j, &k);
}

static void one_schedule(struct bench *b, const struct tt_algo *a, enum tt_coll coll, const struct tt_shape *shape)
{
	static const size_t counts[] = { 0, 1, 100, 1000, 70001 };
	static const tuttiDataType_t types[] = { tuttiFloat32, tuttiInt8, tuttiBfloat16 };
	struct job *j = calloc(1, sizeof(*j));

	CHECK(j);
	begin_job(j, b, a, coll, (int)(test_rand(&b->rnd) % (uint32_t)b->p), shape);
	for (int i = 0; i < (coll == TT_BARRIER ? 1 : 5); i++) {
		one_call(j, counts[i], types[i % 3], i % 2 ? tuttiSum : tuttiMax);
		if (i == 2)
			one_call(j, counts[i], types[i % 3], tuttiSum); /* alike: nothing is uploaded */
	}
	/* Its papers name the code until the grid ends. */
	fake_queue_sync(b->queue);
	for (int r = 0; r < b->p; r++)
		tt_prog_free(j->prog[r]);
	free(j);
}

static void schedules(int p)
{
	struct bench *b = calloc(1, sizeof(*b));

	CHECK(b);
	begin_bench(b, p);
	for (int i = 0; i < tt_nalgos; i++)
		for (int c = 0; c < TT_SENDRECV; c++)
			for (uint32_t k = 0; k < 2 && tt_algos[i].colls >> c & 1; k++) {
				struct tt_shape shape = { .nlanes = 1 + k, .param = k };

				one_schedule(b, &tt_algos[i], (enum tt_coll)c, &shape);
			}
	end_bench(b);
	free(b);
}

static void every_schedule(void)
{
	schedules(1);
	schedules(2);
	schedules(5);
}

const struct test tests[] = {
	{ "every schedule on one device has the executor's bits", every_schedule, 300 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
