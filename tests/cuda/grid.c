/* Schedules as blocks (src/exec_grid.c) over the CUDA kind, of ranks on one device as one grid, and of ranks on a
 * device each: every algorithm's bits are those of the executor. grid.sh runs it with a driver that is a fake; memory
 * is read by the kind's own copies, so that nothing but fake.h stands between it and a real one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "exec_grid.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "exec_rig.h"
#include "fake.h"
#include "ranks.h"

struct job {
	struct job *next;
	struct bench *b;
	enum tt_coll coll;
	const char *name;
	struct tt_dev_code *code[RIG_RANKS];
	struct tt_prog *prog[RIG_RANKS];
};

struct bench {
	struct job *jobs; /* of all schedules: papers of the grid name their code */
	const struct tt_mem_kind *kind;
	bool apart; /* a device each */
	int p, here; /* here: the rank whose device is entered; -1: none */
	uint64_t rnd;
	struct exec_rig rig;
	struct tt_mem_place at[RIG_RANKS];
	tuttiStream_t queue[RIG_RANKS];
	struct tt_peer_member members[RIG_RANKS];
	struct tt_peers *peers[RIG_RANKS];
	struct tt_grid *grid[RIG_RANKS]; /* one, or one each */
};

/* On the device of a rank from now on. */
static void go_to(struct bench *b, int r)
{
	if (b->here >= 0 && (r < 0 || b->apart)) {
		b->kind->leave();
		b->here = -1;
	}
	if (r < 0 || b->here >= 0)
		return;
	if (b->apart)
		fake_place(&(struct rank){ .rank = r });
	CHECK(b->kind->enter(b->at[r].where) == tuttiSuccess);
	b->here = r;
}

static void begin_rank(struct bench *b, int r)
{
	void *probe;

	go_to(b, -1);
	if (b->apart)
		fake_place(&(struct rank){ .rank = r });
	b->queue[r] = b->apart || !r ? fake_queue_new() : b->queue[0];
	probe = fake_alloc(64);
	tt_mem_look();
	b->kind = tt_mem_kind_of(probe);
	CHECKF(b->kind && b->kind->grid, "no grids here: run by tests/cuda/grid.sh");
	b->at[r].device = -1;
	CHECK(b->kind->place("grid", b->queue[r], probe, probe, &b->at[r]) == tuttiSuccess);
	fake_free(probe);
	go_to(b, r);
	b->members[r] = (struct tt_peer_member){ .rank = r, .proc = 1 };
	CHECKF(b->kind->sharing->device(&b->members[r].device) == tuttiSuccess, "%s", tt_last_error());
}

struct opener {
	struct bench *b;
	int me;
	uint64_t id;
	pthread_t thread;
};

static void *open_peers(void *arg)
{
	const struct opener *o = arg;
	struct bench *b = o->b;
	uint8_t secret[32] = { 0 };
	struct tt_peers_config g = { .kind = b->kind, .where = b->at[o->me].where, .id = o->id, .secret = secret,
				     .n = b->p, .me = o->me, .members = b->members, .blocks = true,
				     .message = 64 << 10,
				     .deadline_ns = tt_now_ns() + (uint64_t)(test_limit(60) * 1e9) };

	snprintf((char *)secret, sizeof(secret), "of process %d", getpid());
	CHECKF(tt_peers_open(&g, &b->peers[o->me]) == tuttiSuccess, "%s", tt_last_error());
	CHECK(tt_peers_drive(b->peers[o->me]));
	return NULL;
}

static void copy_in(const struct bench *b, int r, void *device, const void *host, size_t n)
{
	void *pinned;

	CHECK(b->kind->alloc(n + 1, TT_MEM_PINNED, &pinned) == tuttiSuccess);
	memcpy(pinned, host, n);
	CHECK(!n || b->kind->copy(b->queue[r], device, pinned, n) == tuttiSuccess);
	fake_queue_sync(b->queue[r]);
	b->kind->release(pinned, n + 1, TT_MEM_PINNED);
}

/* As if so many messages had gone before: counts soon come to their end, or to where slots are renewed, and packets
 * look as if they had come just now. */
static void age_links(struct bench *b, int r)
{
	static const uint32_t starts[] = { UINT32_MAX - 40, TT_DEV_RENEW - 9, 0 };
	uint32_t start = starts[(b->p + 1) % 3];
	struct tt_dev_end end = { .word = start, .pos = start };
	uint64_t *packets = malloc(TT_DEV_PACKETS_BYTES);
	struct tt_dev_link l;

	CHECK(packets);
	for (size_t i = 0; i < TT_DEV_PACKETS_BYTES / sizeof(*packets); i++)
		packets[i] = (uint64_t)(start - i % 3) << 32 | 0x5a5a5a5a;
	go_to(b, r);
	for (int peer = 0; peer < b->p; peer++)
		for (uint32_t lane = 0; peer != r && lane < TT_PEER_PIPES; lane++)
			for (int is_send = 0; is_send < 2; is_send++) {
				CHECK(tt_peers_pipe(b->peers[r], peer, lane, is_send, &l) == tuttiSuccess);
				copy_in(b, r, l.mine, &end, sizeof(end));
				if (start && !is_send)
					copy_in(b, r, l.packets, packets, TT_DEV_PACKETS_BYTES);
			}
	free(packets);
}

static void begin_apart(struct bench *b)
{
	static uint64_t ids;
	struct opener o[RIG_RANKS];

	ids++;
	for (int r = 0; r < b->p; r++) {
		o[r] = (struct opener){ .b = b, .me = r, .id = ids };
		CHECK(!pthread_create(&o[r].thread, NULL, open_peers, &o[r]));
	}
	for (int r = 0; r < b->p; r++)
		pthread_join(o[r].thread, NULL);
	for (int r = 0; r < b->p; r++) {
		go_to(b, r);
		CHECKF(tt_grid_new_apart(b->peers[r], &b->grid[r]) == tuttiSuccess, "%s", tt_last_error());
		age_links(b, r);
	}
}

static void begin_bench(struct bench *b, int p, bool apart)
{
	fake_start();
	*b = (struct bench){ .p = p, .here = -1, .apart = apart, .rnd = test_seed() + (uint64_t)p };
	for (int r = 0; r < p; r++)
		begin_rank(b, r);
	exec_rig_begin(&b->rig, p);
	if (apart)
		begin_apart(b);
	else
		CHECKF(tt_grid_new(b->kind, p, &b->grid[0]) == tuttiSuccess, "%s", tt_last_error());
}

static void sync_all(struct bench *b)
{
	for (int r = 0; r < b->p; r++)
		fake_queue_sync(b->queue[r]);
}

static void free_jobs(struct bench *b)
{
	for (struct job *j = b->jobs, *next; j; j = next) {
		next = j->next;
		for (int r = 0; r < b->p; r++) {
			tt_dev_code_free(j->code[r]);
			tt_prog_free(j->prog[r]);
		}
		free(j);
	}
}

static void end_bench(struct bench *b)
{
	sync_all(b);
	for (int r = 0; r < (b->apart ? b->p : 1); r++) {
		go_to(b, r);
		tt_grid_free(b->grid[r]);
	}
	go_to(b, -1);
	free_jobs(b);
	for (int r = 0; r < b->p; r++)
		CHECK(tt_peers_close(b->peers[r], true, true));
	exec_rig_end(&b->rig);
	for (int r = 0; r < (b->apart ? b->p : 1); r++)
		fake_queue_free(b->queue[r]);
}

/* ---- one schedule, some calls ---- */

static bool begin_job(struct job *j, struct bench *b, const struct tt_algo *a, enum tt_coll coll, int root,
		      const struct tt_shape *shape)
{
	*j = (struct job){ .next = b->jobs, .b = b, .coll = coll, .name = a->name };
	b->jobs = j;
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
		go_to(b, r);
		k->din[r] = fake_alloc(k->in_bytes + 64);
		k->dout[r] = fake_alloc(k->out_bytes + 64);
		copy_in(b, r, k->din[r], k->in[r], k->in_bytes + 64);
		copy_in(b, r, k->dout[r], k->want[r], k->out_bytes + 64);
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
		go_to(b, r);
		CHECK(b->kind->copy(b->queue[r], got, k->dout[r], k->out_bytes + 64) == tuttiSuccess);
		fake_queue_sync(b->queue[r]);
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

/* What one rank cannot, no rank can. */
static tuttiResult_t run_call(struct job *j, const struct call *k)
{
	struct bench *b = j->b;
	tuttiResult_t r = tuttiSuccess, own;

	for (int i = 0; i < (b->apart ? b->p : 1); i++) {
		go_to(b, i);
		own = tt_grid_run(b->grid[i], b->queue[i], false, j->code + i, k->device + i);
		CHECK(!i || own == r);
		r = own;
	}
	return r;
}

static void one_call(struct job *j, size_t count, tuttiDataType_t type, int op)
{
	struct bench *b = j->b;
	struct call k;
	tuttiResult_t r;

	make_call(j, &k, count, type, op);
	r = run_call(j, &k);
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
	sync_all(b);
}

static void schedules(int p, bool apart)
{
	struct bench *b = calloc(1, sizeof(*b));

	CHECK(b);
	begin_bench(b, p, apart);
	for (int i = 0; i < tt_nalgos; i++)
		for (int c = 0; c < TT_SENDRECV; c++)
			for (uint32_t k = 0; k < 2 && tt_algos[i].colls >> c & 1; k++) {
				struct tt_shape shape = { .nlanes = 1 + k, .param = k };

				one_schedule(b, &tt_algos[i], (enum tt_coll)c, &shape);
			}
	end_bench(b);
	free(b);
}

static void one_device(void)
{
	schedules(1, false);
	schedules(2, false);
	schedules(5, false);
}

static void devices(void)
{
	schedules(2, true);
	schedules(3, true);
	schedules(4, true);
	CHECKF(!fake_live(), "%d things of the driver's are left", fake_live());
}

const struct test tests[] = {
	{ "every schedule on one device has the executor's bits", one_device, 300 },
	{ "every schedule on a device each has the executor's bits", devices, 300 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
