/* Ranks as threads on one device, where one kernel works for all: the bits are those of the order of ranks; groups in
 * any order, streams that ranks share, ranks that take part from host memory; and what goes wrong while ranks wait for
 * each other in a call. Over the fake kind; tests/cuda/queues.sh runs it over the one of CUDA.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "fake.h"
#include "ranks.h"
#include "test.h"

enum { MOST = 17, WORDS = 1200 };

/* False: no kernels in this build. Then calls go by links, which the other tests see to. */
static bool meets(void)
{
	const struct tt_mem_kind *k;
	tuttiStream_t q;

	fake_start();
	tt_mem_look();
	q = fake_queue_new();
	k = tt_mem_queue_kind(q);
	fake_queue_free(q);
	setenv("TUTTI_LOG", "none", 0);
	return k && k->run_all && (!k->reduces || k->reduces(tuttiFloat32));
}

static float *new_floats(size_t n, float x)
{
	float *p = fake_alloc(n * sizeof(float)), *v = fake_view(p);

	for (size_t i = 0; i < n; i++)
		v[i] = x + (float)(i % 5);
	return p;
}

static void expect(struct rank *r, const float *p, size_t n, float x, float times, const char *what)
{
	const float *v = fake_view(p);

	for (size_t i = 0; i < n; i++)
		RANK_CHECKF(r, v[i] == x + times * (float)(i % 5), "%s: element %zu is %g, not %g", what, i,
			    (double)v[i], (double)(x + times * (float)(i % 5)));
}

static float all_ranks(const struct rank *r)
{
	return (float)(r->n * (r->n - 1) / 2);
}

static tuttiResult_t sum(struct rank *r, tuttiComm_t c, float *in, float *out, size_t n, tuttiStream_t q)
{
	return FAKE(tuttiAllReduce(in, out, n, tuttiFloat32, tuttiSum, c, q));
}

/* ---- the bits ---- */

struct tcase {
	enum tt_coll coll;
	tuttiDataType_t type;
	int op, root;
	size_t count;
	uint64_t seed;
};

static struct tcase draw(uint64_t seed, int n)
{
	static const size_t counts[] = { 1, 2, 3, 17, 100, 1000, WORDS };
	uint64_t s = seed * 7919 + 13;
	struct tcase c = { .seed = s };

	c.coll = (enum tt_coll)(test_rand(&s) % TT_BARRIER);
	c.type = (tuttiDataType_t)(test_rand(&s) % tuttiNumTypes);
	c.op = (int)(test_rand(&s) % (TT_OP_PREMULSUM + 1));
	c.root = (int)(test_rand(&s) % (uint32_t)n);
	c.count = counts[test_rand(&s) % 7];
	return c;
}

static size_t blocks(const struct tcase *c, int n, bool out)
{
	return c->coll == (out ? TT_ALLGATHER : TT_REDUCESCATTER) ? (size_t)n : 1;
}

/* Floats are below 2: of NaNs the bits are nobody's promise. */
static void fill(const struct tcase *c, int rank, void *p, size_t bytes)
{
	uint64_t s = c->seed + (uint64_t)rank * 1000003;
	size_t size = tt_type_size(c->type);

	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)p)[i] = (unsigned char)(test_rand(&s) & (i % size == size - 1 ? 0xbf : 0xff));
}

static uint64_t scalar_of(const struct tcase *c, int rank)
{
	static const float values[] = { 0.5f, 2, 1, 3 };
	uint64_t bits = (uint64_t)(rank % 3);

	if (c->type == tuttiFloat32)
		memcpy(&bits, &values[rank % 4], sizeof(float));
	return bits;
}

/* What a rank gets: the inputs of all, reduced one after the other in the order of ranks by the host. */
static size_t reference(const struct tcase *c, struct rank *r, unsigned char *out)
{
	size_t block = c->count * tt_type_size(c->type), all = block * blocks(c, r->n, false);
	unsigned char *in[MOST];
	const struct tt_op op = { .kind = c->op, .commutative = true, .nranks = r->n };
	const void *src[MOST];

	for (int i = 0; i < r->n; i++) {
		struct tt_op mine = { .kind = TT_OP_PREMULSUM, .scalar = scalar_of(c, i) };

		in[i] = malloc(all);
		RANK_CHECKF(r, in[i], "no memory");
		fill(c, i, in[i], all);
		if (c->op == TT_OP_PREMULSUM && c->coll != TT_ALLGATHER && c->coll != TT_BROADCAST)
			tt_reduce_pre(in[i], in[i], all / tt_type_size(c->type), c->type, &mine);
		src[i] = in[i] + (c->coll == TT_REDUCESCATTER ? (size_t)r->rank * block : 0);
		if (c->coll == TT_ALLGATHER)
			memcpy(out + (size_t)i * block, in[i], block);
	}
	if (c->coll == TT_BROADCAST)
		memcpy(out, in[c->root], block);
	if (c->coll != TT_BROADCAST && c->coll != TT_ALLGATHER) {
		tt_reduce_run(out, src, r->n, c->count, c->type, &op, TT_STORE_PLAIN);
		if (c->op == tuttiAvg)
			tt_reduce_post(out, out, c->count, c->type, &op);
	}
	for (int i = 0; i < r->n; i++)
		free(in[i]);
	return c->coll == TT_ALLGATHER ? (size_t)r->n * block : c->coll == TT_REDUCE && r->rank != c->root ? 0 : block;
}

static tuttiResult_t call(const struct tcase *c, struct rank *r, void *in, void *out, tuttiRedOp_t op, tuttiStream_t q)
{
	switch (c->coll) {
	case TT_ALLREDUCE:
		return tuttiAllReduce(in, out, c->count, c->type, op, r->comm, q);
	case TT_ALLGATHER:
		return tuttiAllGather(in, out, c->count, c->type, r->comm, q);
	case TT_REDUCESCATTER:
		return tuttiReduceScatter(in, out, c->count, c->type, op, r->comm, q);
	case TT_BROADCAST:
		return tuttiBroadcast(in, out, c->count, c->type, c->root, r->comm, q);
	default:
		return tuttiReduce(in, out, c->count, c->type, op, c->root, r->comm, q);
	}
}

static void bits_case(struct rank *r, const struct tcase *c, tuttiStream_t q)
{
	size_t size = tt_type_size(c->type), block = c->count * size, mine = (size_t)r->rank * block, n;
	bool in_place = (c->seed + (uint64_t)r->rank) % 3 == 0;
	unsigned char *in = fake_alloc((size_t)r->n * block), *out = in_place ? in : fake_alloc((size_t)r->n * block);
	uint64_t scalar = scalar_of(c, r->rank);
	tuttiRedOp_t op = (tuttiRedOp_t)c->op;
	unsigned char *want = malloc((size_t)r->n * block);
	unsigned char *from = in_place && c->coll == TT_ALLGATHER ? in + mine : in;
	unsigned char *to = in_place && c->coll == TT_REDUCESCATTER ? in + mine : out;

	if (c->op == TT_OP_PREMULSUM)
		RANK_OK(r, tuttiRedOpCreatePreMulSum(&op, &scalar, c->type, tuttiScalarHostImmediate, r->comm));
	RANK_CHECKF(r, want, "no memory");
	fill(c, r->rank, fake_view(from), block * blocks(c, r->n, false));
	RANK_OK(r, FAKE(call(c, r, from, to, op, q)));
	fake_queue_sync(q);
	n = reference(c, r, want);
	RANK_CHECKF(r, !memcmp(fake_view(to), want, n), "%s of %zu %s, operator %d: other bits", tt_coll_name(c->coll),
		    c->count, tt_type_name(c->type), c->op);
	if (c->op == TT_OP_PREMULSUM)
		RANK_OK(r, tuttiRedOpDestroy(op, r->comm));
	free(want);
	fake_free(in);
	if (!in_place)
		fake_free(out);
}

static void bits_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();

	for (int i = 0; i < 40; i++) {
		struct tcase c = draw(test_seed() + (uint64_t)(100 * r->n + i), r->n);

		r->step = i;
		bits_case(r, &c, q);
	}
	fake_queue_free(q);
}

static void bits(void)
{
	if (!meets())
		return;
	for (int n = 1; n < 9; n++)
		ranks_run(n, 60, bits_rank, NULL);
	ranks_run(MOST, 60, bits_rank, NULL);
}

/* ---- groups ---- */

/* One thread makes the calls of all ranks: on a stream for each, or on one for all; a call, and one of its result. */
static void one_thread(void)
{
	enum { N = 4, LEN = 5000 };
	struct rank r = { .n = N, .out = -1 };
	tuttiStream_t q[N];
	tuttiComm_t c[N];
	float *x[N], *y[N];

	if (!meets())
		return;
	CHECKF(tuttiCommInitAll(c, N, NULL) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	for (int i = 0; i < N; i++)
		q[i] = fake_queue_new();
	for (int shared = 0; shared < 2; shared++) {
		for (int i = 0; i < N; i++) {
			x[i] = new_floats(LEN, (float)i);
			y[i] = new_floats(LEN, 0);
		}
		CHECK(tuttiGroupStart() == tuttiSuccess);
		for (int i = N - 1; i >= 0; i--)
			CHECK(sum(&r, c[i], x[i], y[i], LEN, q[shared ? 0 : i]) == tuttiSuccess);
		for (int i = 0; i < N; i++)
			CHECK(sum(&r, c[i], y[i], x[i], LEN, q[shared ? 0 : i]) == tuttiSuccess);
		CHECKF(FAKE(tuttiGroupEnd()) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
		for (int i = 0; i < N; i++) {
			fake_queue_sync(q[shared ? 0 : i]);
			expect(&r, y[i], LEN, 6, N, "the sum");
			expect(&r, x[i], LEN, 6 * N, N * N, "the sum of sums");
			fake_free(x[i]);
			fake_free(y[i]);
		}
	}
	for (int i = 0; i < N; i++) {
		CHECK(tuttiCommDestroy(c[i]) == tuttiSuccess);
		fake_queue_free(q[i]);
	}
}

/* Three communicators, listed in another order by each rank, of one of them two calls; one stream for all. */
static void orders_rank(struct rank *r)
{
	enum { LEN = 300 };
	tuttiStream_t q = fake_queue_new();
	tuttiComm_t c[3] = { r->comm };
	float *x[4];

	for (int i = 1; i < 3; i++)
		RANK_OK(r, tuttiCommSplit(r->comm, 0, i == 1 ? -r->rank : r->rank, &c[i], NULL));
	for (int round = 0; round < 30; round++) {
		r->step = round;
		for (int i = 0; i < 4; i++)
			x[i] = new_floats(LEN, (float)(r->rank + i));
		RANK_OK(r, tuttiGroupStart());
		for (int k = 0; k < 3; k++) {
			int i = (k + r->rank + round) % 3;

			RANK_OK(r, sum(r, c[i], x[i], x[i], LEN, q));
			if (i == 1)
				RANK_OK(r, sum(r, c[i], x[3], x[3], LEN, q));
		}
		RANK_OK(r, FAKE(tuttiGroupEnd()));
		fake_queue_sync(q);
		for (int i = 0; i < 4; i++) {
			expect(r, x[i], LEN, all_ranks(r) + (float)(i * r->n), (float)r->n, "sum");
			fake_free(x[i]);
		}
	}
	RANK_OK(r, tuttiCommDestroy(c[1]));
	RANK_OK(r, tuttiCommDestroy(c[2]));
	fake_queue_free(q);
}

static void orders(void)
{
	if (meets())
		for (int n = 1; n < 6; n++)
			ranks_run(n, 60, orders_rank, NULL);
}

/* Host memory on some ranks: all go by links then, and together again afterwards. */
static void mixed_rank(struct rank *r)
{
	enum { LEN = 2000 };
	tuttiStream_t q = fake_queue_new();
	float host[LEN];

	for (int i = 0; i < 60; i++) {
		bool on_host = (i / 20 == 1 && r->rank == 0) || (i / 20 == 2 && (i + r->rank) % 3 == 0);
		float *x = new_floats(LEN, (float)r->rank);

		r->step = i;
		memcpy(host, fake_view(x), sizeof(host));
		if (on_host)
			RANK_OK(r, tuttiAllReduce(host, host, LEN, tuttiFloat32, tuttiSum, r->comm, NULL));
		else
			RANK_OK(r, sum(r, r->comm, x, x, LEN, q));
		fake_queue_sync(q);
		expect(r, on_host ? host : x, LEN, all_ranks(r), (float)r->n, on_host ? "host" : "device");
		fake_free(x);
	}
	fake_queue_free(q);
}

static void mixed(void)
{
	if (meets() && !test_setting("TEST_ONE_DEVICE", 0))
		for (int n = 2; n < 6; n++)
			ranks_run(n, 60, mixed_rank, NULL);
}

/* Rank 0 makes two calls in a group, of which one goes by links; the others make them one after the other, and come to
 * the second only when they know of the first. */
static void group_and_calls_rank(struct rank *r)
{
	enum { LEN = 3000 };
	tuttiStream_t q = fake_queue_new();
	tuttiComm_t other;
	float host[LEN], *x, *y;

	RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &other, NULL));
	for (int i = 0; i < 10; i++) {
		r->step = i;
		x = new_floats(LEN, (float)r->rank);
		y = new_floats(LEN, (float)r->rank);
		memcpy(host, fake_view(x), sizeof(host));
		if (r->rank == 0)
			RANK_OK(r, tuttiGroupStart());
		if (r->rank == 0)
			RANK_OK(r, tuttiAllReduce(host, host, LEN, tuttiFloat32, tuttiSum, r->comm, NULL));
		else
			RANK_OK(r, sum(r, r->comm, x, x, LEN, q));
		RANK_OK(r, sum(r, other, y, y, LEN, q));
		if (r->rank == 0)
			RANK_OK(r, FAKE(tuttiGroupEnd()));
		fake_queue_sync(q);
		expect(r, r->rank ? x : host, LEN, all_ranks(r), (float)r->n, "by links");
		expect(r, y, LEN, all_ranks(r), (float)r->n, "by one kernel");
		fake_free(x);
		fake_free(y);
	}
	RANK_OK(r, tuttiCommDestroy(other));
	fake_queue_free(q);
}

static void group_and_calls(void)
{
	if (meets() && !test_setting("TEST_ONE_DEVICE", 0))
		ranks_run(3, 60, group_and_calls_rank, NULL);
}

/* Rank 0 makes a call of the host and one of a device, of two communicators, in a group; the others one after the
 * other, and wait in the first. */
static void host_beside_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *p = new_floats(100, (float)r->rank), host[2];
	tuttiComm_t other;

	RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &other, NULL));
	for (int round = 0; round < 6; round++) {
		bool host_first = round % 2;

		host[0] = (float)r->rank;
		if (r->rank == 0)
			RANK_OK(r, tuttiGroupStart());
		for (int k = 0; k < 2; k++)
			if ((k == 0) == host_first)
				RANK_OK(r, tuttiAllReduce(host, host + 1, 1, tuttiFloat32, tuttiSum, other, NULL));
			else
				RANK_OK(r, FAKE(tuttiAllReduce(p, p, 100, tuttiFloat32, tuttiMax, r->comm, q)));
		if (r->rank == 0)
			RANK_OK(r, FAKE(tuttiGroupEnd()));
		RANK_CHECKF(r, host[1] == all_ranks(r), "round %d: the sum is %g", round, (double)host[1]);
	}
	fake_queue_sync(q);
	expect(r, p, 100, (float)(r->n - 1), 1, "maximum");
	RANK_OK(r, tuttiCommDestroy(other));
	fake_queue_free(q);
	fake_free(p);
}

static void host_beside(void)
{
	if (meets())
		ranks_run(3, 30, host_beside_rank, NULL);
}

/* ---- what goes wrong ---- */

/* Rank 0 waits in a call. Another thread aborts its communicator; the other rank's ends with it. */
static void *abort_it(void *arg)
{
	struct tuttiComm *c = arg;

	while (!atomic_load(&c->inside))
		sleep_s(0.001);
	return (void *)(intptr_t)tuttiCommAbort(c);
}

static void abort_rank(struct rank *r)
{
	static _Atomic int over;
	float *x = new_floats(10, 0);
	tuttiStream_t q = fake_queue_new();
	tuttiResult_t state = tuttiSuccess;
	pthread_t thread;
	void *res;

	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	if (r->rank == 0) {
		RANK_CHECKF(r, !pthread_create(&thread, NULL, abort_it, r->comm), "no thread");
		RANK_CHECKF(r, sum(r, r->comm, x, x, 10, q) == tuttiAborted, "%s", tuttiGetLastError(NULL));
		pthread_join(thread, &res);
		RANK_CHECKF(r, !res, "abort gives %d", (int)(intptr_t)res);
		atomic_store(&over, 1);
	} else {
		while (!atomic_load(&over))
			sleep_s(0.001);
		RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
		RANK_CHECKF(r, state == tuttiRemoteError, "'%s'", tuttiGetErrorString(state));
		RANK_CHECKF(r, sum(r, r->comm, x, x, 10, q) == tuttiRemoteError, "the next call");
		tuttiCommAbort(r->comm);
	}
	r->comm = NULL;
	fake_queue_sync(q);
	fake_queue_free(q);
	fake_free(x);
}

static void aborts(void)
{
	if (meets())
		ranks_run(2, 20, abort_rank, NULL);
}

/* Rank 2 does not come: it is named. */
static void absent_rank(struct rank *r)
{
	static _Atomic int told;
	tuttiStream_t q = fake_queue_new();
	float *x = new_floats(10, 0);
	tuttiResult_t res;

	RANK_OK(r, sum(r, r->comm, x, x, 10, q)); /* so it has a thread of its own */
	if (r->rank != 2) {
		res = sum(r, r->comm, x, x, 10, q);
		RANK_CHECKF(r, res == tuttiTimeout || res == tuttiRemoteError, "'%s'", tuttiGetErrorString(res));
		RANK_CHECKF(r, strstr(tuttiGetLastError(NULL), "no call by rank 2 for 0.2 s"), "%s",
			    tuttiGetLastError(NULL));
		atomic_fetch_add(&told, 1);
	}
	while (atomic_load(&told) < 2)
		sleep_s(0.001);
	tuttiCommAbort(r->comm);
	r->comm = NULL;
	fake_queue_sync(q);
	fake_queue_free(q);
	fake_free(x);
}

static void absent(void)
{
	if (!meets())
		return;
	setenv("TUTTI_ARRIVAL_DEADLINE", "0.2", 1);
	ranks_run(3, 20, absent_rank, NULL);
	unsetenv("TUTTI_ARRIVAL_DEADLINE");
}

/* One thread calls for rank 0, and could call for the others only when it is back. */
static void alone(void)
{
	struct rank r = { .n = 3, .out = -1 };
	tuttiComm_t c[3];
	tuttiStream_t q;
	float *x;

	if (!meets())
		return;
	setenv("TUTTI_DEADLINE", "0.2", 1);
	CHECK(tuttiCommInitAll(c, 3, NULL) == tuttiSuccess);
	unsetenv("TUTTI_DEADLINE");
	q = fake_queue_new();
	x = new_floats(10, 0);
	CHECK(sum(&r, c[0], x, x, 10, q) == tuttiTimeout);
	CHECKF(strstr(tuttiGetLastError(NULL), "no call by ranks 1, 2 for 0.2 s") &&
	       strstr(tuttiGetLastError(NULL), "in a group"), "%s", tuttiGetLastError(NULL));
	for (int i = 0; i < 3; i++)
		CHECK(tuttiCommAbort(c[i]) == tuttiSuccess);
	fake_queue_free(q);
	fake_free(x);
}

static void mismatch_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = new_floats(10, 0);
	size_t n = r->rank == 1 ? 9 : 10;
	tuttiResult_t res = sum(r, r->comm, x, x, n, q);
	const char *text = tuttiGetLastError(NULL);

	RANK_CHECKF(r, res == tuttiMismatch, "'%s'", tuttiGetErrorString(res));
	RANK_CHECKF(r, strstr(text, "rank 0 called AllReduce #1(count 10,") &&
		       strstr(text, "rank 1 called AllReduce #1(count 9,"), "%s", text);
	RANK_CHECKF(r, sum(r, r->comm, x, x, n, q) == tuttiMismatch, "the next call");
	tuttiCommAbort(r->comm);
	r->comm = NULL;
	fake_queue_sync(q);
	fake_queue_free(q);
	fake_free(x);
}

static void mismatch(void)
{
	if (meets())
		ranks_run(3, 20, mismatch_rank, NULL);
}

/* Rank 1 has finished, where the others have one more call. */
static void leaver_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = new_floats(10, 0);
	tuttiResult_t res;

	RANK_OK(r, sum(r, r->comm, x, x, 10, q));
	if (r->rank == 1) {
		RANK_OK(r, tuttiCommDestroy(r->comm));
	} else {
		res = sum(r, r->comm, x, x, 10, q);
		RANK_CHECKF(r, res == tuttiPeerDead && strstr(tuttiGetLastError(NULL), "had left after operation #1"),
			    "'%s': %s", tuttiGetErrorString(res), tuttiGetLastError(NULL));
		tuttiCommAbort(r->comm);
	}
	r->comm = NULL;
	fake_queue_sync(q);
	fake_queue_free(q);
	fake_free(x);
}

static void leaver(void)
{
	if (meets())
		ranks_run(3, 20, leaver_rank, NULL);
}

const struct test tests[] = {
	{ "the bits of the order of ranks", bits, 120 },
	{ "one thread calls for all ranks", one_thread, 30 },
	{ "groups in another order", orders, 60 },
	{ "host memory on some ranks", mixed, 60 },
	{ "a group here, single calls there", group_and_calls, 60 },
	{ "host calls beside device calls in a group", host_beside, 60 },
	{ "abort while ranks wait", aborts, 30 },
	{ "a rank that does not come", absent, 30 },
	{ "one thread, and no group", alone, 30 },
	{ "mismatch", mismatch, 30 },
	{ "a rank that has left", leaver, 30 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
