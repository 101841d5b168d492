/* CUDA graphs: collectives are captured and replayed with other data, between ordinary calls; what cannot be captured
 * is refused, and the communicator goes on. The tests of replays are those of a real device, too (make check-gpu); the
 * others need a driver that is a fake. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_code.h"
#include "fake.h"
#include "gpu.h"
#include "mem.h"
#include "ranks.h"
#include "test.h"

enum { N = 700, MOST = 8, REPLAYS = 6 };

static void must(int e, const char *what)
{
	CHECKF(!e, "%s: %s", what, gpu_words(e));
}
#define MUST(name, ...) must(GPU(name, __VA_ARGS__), #name)

/* False: a build without kernels. */
static bool start(void)
{
	const char *why;

	setenv("TUTTI_LOG", "none", 0);
	fake_start();
	CHECKF(gpu_load(&why), "%s: run by tests/cuda/graphs.sh", why);
	fake_use(true);
	tt_mem_look();
	return tt_cuda_code_has(tuttiFloat32);
}

/* ---- a graph, its streams and its buffers ---- */

struct graph {
	void *graph, *exec;
};

static void end_capture(tuttiStream_t q, struct graph *g)
{
	MUST(cuStreamEndCapture, q, &g->graph);
	MUST(cuGraphInstantiateWithFlags, &g->exec, g->graph, 0);
}

static size_t nodes_of(const struct graph *g)
{
	size_t n = 0;

	MUST(cuGraphGetNodes, g->graph, NULL, &n);
	return n;
}

static void free_graph(struct graph *g)
{
	MUST(cuGraphExecDestroy, g->exec);
	MUST(cuGraphDestroy, g->graph);
}

static void *event_new(void)
{
	void *e = NULL;

	MUST(cuEventCreate, &e, GPU_NO_TIMING);
	return e;
}

static float *floats(size_t n, float x)
{
	float *p = fake_alloc(n * sizeof(float)), *v = fake_view(p);

	for (size_t i = 0; i < n; i++)
		v[i] = x;
	return p;
}

/* ---- ranks as threads, on streams that join one capture ---- */

static struct {
	_Atomic int come;
	void *origin[MOST], *joined[MOST]; /* events */
	struct graph graph;
	int n;
} shared;

static void meet(void)
{
	int turn = atomic_fetch_add(&shared.come, 1) / shared.n;

	while (atomic_load(&shared.come) < (turn + 1) * shared.n)
		sleep_s(0.0005);
}

static void fork_from_first(int rank, tuttiStream_t q)
{
	meet();
	if (rank == 0) {
		MUST(cuStreamBeginCapture, q, GPU_GLOBAL);
		MUST(cuEventRecord, shared.origin[0], q);
	}
	meet();
	if (rank)
		MUST(cuStreamWaitEvent, q, shared.origin[0], 0);
}

static void join_first(int rank, tuttiStream_t q)
{
	if (rank)
		MUST(cuEventRecord, shared.joined[rank], q);
	meet();
	for (int i = 1; rank == 0 && i < shared.n; i++)
		MUST(cuStreamWaitEvent, q, shared.joined[i], 0);
	if (rank == 0)
		end_capture(q, &shared.graph);
	meet();
}

struct data {
	float *in, *out[6], *want[6], *factor;
	tuttiRedOp_t scaled;
};

static size_t size_of(int k, int n)
{
	return (k == 1 ? (size_t)n : 1) * N;
}

static void data_begin(struct rank *r, struct data *d)
{
	d->in = floats((size_t)r->n * N, 0);
	d->factor = floats(1, 2);
	RANK_OK(r, tuttiRedOpCreatePreMulSum(&d->scaled, d->factor, tuttiFloat32, tuttiScalarDevice, r->comm));
	for (int k = 0; k < 6; k++) {
		d->out[k] = floats(size_of(k, r->n), 0);
		d->want[k] = floats(size_of(k, r->n), 0);
	}
}

static void data_end(struct rank *r, struct data *d)
{
	fake_free(d->in);
	fake_free(d->factor);
	RANK_OK(r, tuttiRedOpDestroy(d->scaled, r->comm));
	for (int k = 0; k < 6; k++) {
		fake_free(d->out[k]);
		fake_free(d->want[k]);
	}
}

/* One of each, and one that needs the result of another. */
static void calls(struct rank *r, const struct data *d, float *const *out, tuttiStream_t q)
{
	tuttiComm_t c = r->comm;

	RANK_OK(r, tuttiAllReduce(d->in, out[0], N, tuttiFloat32, tuttiSum, c, q));
	RANK_OK(r, tuttiAllGather(d->in, out[1], N, tuttiFloat32, c, q));
	RANK_OK(r, tuttiReduceScatter(d->in, out[2], N, tuttiFloat32, tuttiAvg, c, q));
	RANK_OK(r, tuttiBroadcast(out[0], out[3], N, tuttiFloat32, r->n - 1, c, q));
	RANK_OK(r, tuttiReduce(out[2], out[4], N, tuttiFloat32, tuttiMax, 0, c, q));
	RANK_OK(r, tuttiBarrier(c, q));
	RANK_OK(r, tuttiAllReduce(out[3], out[5], N, tuttiFloat32, d->scaled, c, q));
}

static void fresh_data(struct rank *r, const struct data *d, uint64_t *rnd)
{
	float *in = fake_view(d->in);

	*(float *)fake_view(d->factor) = (float)(test_rand(rnd) % 5);
	for (size_t i = 0; i < (size_t)r->n * N; i++)
		in[i] = (float)(test_rand(rnd) % 10000) / 7;
	for (int k = 0; k < 6; k++)
		memset(fake_view(d->out[k]), 0x55, size_of(k, r->n) * sizeof(float));
}

static void compare(struct rank *r, const struct data *d)
{
	for (int k = 0; k < 6; k++)
		RANK_CHECKF(r, (k == 4 && r->rank) ||
				       !memcmp(fake_view(d->out[k]), fake_view(d->want[k]),
					       size_of(k, r->n) * sizeof(float)),
			    "collective %d: a replay has other bits than the call", k);
}

/* What is replayed sees the data of its time; a call comes before it and another one behind. */
static void replay_once(struct rank *r, const struct data *d, tuttiStream_t q, uint64_t *rnd)
{
	fresh_data(r, d, rnd);
	fake_enter();
	calls(r, d, d->want, q);
	fake_leave();
	fake_queue_sync(q);
	meet();
	if (r->rank == 0) {
		MUST(cuGraphLaunch, shared.graph.exec, q);
		fake_queue_sync(q);
	}
	meet();
	fake_queue_sync(q);
	compare(r, d);
}

static void threads_rank(struct rank *r)
{
	uint64_t rnd = test_seed() + (uint64_t)r->rank;
	tuttiStream_t q = fake_queue_new();
	struct data d;

	fake_use(true);
	data_begin(r, &d);
	for (int round = 0; round < 2; round++) {
		fork_from_first(r->rank, q);
		calls(r, &d, d.out, q);
		join_first(r->rank, q);
		for (r->step = 0; r->step < REPLAYS; r->step++)
			replay_once(r, &d, q, &rnd);
		meet();
		if (r->rank == 0)
			free_graph(&shared.graph);
	}
	meet();
	data_end(r, &d);
	fake_queue_free(q);
}

static void run_shared(int n, rank_fn fn)
{
	atomic_store(&shared.come, 0);
	shared.n = n;
	for (int i = 0; i < MOST; i++) {
		shared.origin[i] = event_new();
		shared.joined[i] = event_new();
	}
	ranks_run(n, 60, fn, NULL);
	for (int i = 0; i < MOST; i++) {
		MUST(cuEventDestroy, shared.origin[i]);
		MUST(cuEventDestroy, shared.joined[i]);
	}
}

static void threads(void)
{
	static const int ranks[] = { 1, 2, 3, 8 };

	for (int i = 0; start() && i < 4; i++)
		run_shared(ranks[i], threads_rank);
}

/* ---- one thread, one stream, a group ---- */

struct all {
	int n;
	tuttiComm_t comm[MOST];
	float *x[MOST];
	tuttiStream_t q;
};

static void all_begin(struct all *a, int n)
{
	*a = (struct all){ .n = n, .q = fake_queue_new() };
	CHECK(tuttiCommInitAll(a->comm, n, NULL) == tuttiSuccess);
	for (int i = 0; i < n; i++)
		a->x[i] = floats(N, 1);
}

static void all_end(struct all *a)
{
	for (int i = 0; i < a->n; i++) {
		fake_free(a->x[i]);
		CHECK(tuttiCommDestroy(a->comm[i]) == tuttiSuccess);
	}
	fake_queue_free(a->q);
}

static void sum_all(struct all *a, size_t count)
{
	CHECK(tuttiGroupStart() == tuttiSuccess);
	for (int i = 0; i < a->n; i++)
		CHECK(!tuttiAllReduce(a->x[i], a->x[i], count, tuttiFloat32, tuttiSum, a->comm[i], a->q));
	CHECKF(tuttiGroupEnd() == tuttiSuccess, "%s", tuttiGetLastError(NULL));
}

static struct graph capture_sum(struct all *a, int mode)
{
	struct graph g;

	MUST(cuStreamBeginCapture, a->q, mode);
	sum_all(a, N);
	end_capture(a->q, &g);
	CHECKF(nodes_of(&g) == 1, "%zu nodes for one collective", nodes_of(&g));
	return g;
}

/* Replays and calls follow each other on the stream: the sum is multiplied by n each time. */
static void group(void)
{
	static const int modes[] = { GPU_GLOBAL, GPU_THREAD, GPU_RELAXED };
	struct graph g[2];
	struct all a;

	for (int n = 1; start() && n <= MOST; n += n < 3 ? 1 : 5) {
		float want = 1;

		all_begin(&a, n);
		g[0] = capture_sum(&a, modes[n % 3]);
		fake_enter();
		for (int i = 0; i < 4; i++) {
			sum_all(&a, 1 + (size_t)i); /* of other sizes, in between, which overlap */
			sum_all(&a, 1 + (size_t)i);
			MUST(cuGraphLaunch, g[0].exec, a.q);
		}
		fake_leave();
		fake_queue_sync(a.q);
		g[1] = capture_sum(&a, modes[(n + 1) % 3]);
		fake_enter();
		for (int i = 0; i < 4; i++)
			MUST(cuGraphLaunch, g[i % 2].exec, a.q);
		fake_leave();
		fake_queue_sync(a.q);
		for (int i = 0; i < 8; i++)
			want *= (float)n;
		for (int i = 0; i < n; i++)
			CHECKF(((float *)fake_view(a.x[i]))[N - 1] == want, "%d ranks: %g, not %g", n,
			       (double)((float *)fake_view(a.x[i]))[N - 1], (double)want);
		for (int i = 0; i < n; i++)
			CHECKF(((float *)fake_view(a.x[i]))[0] == want * want, "%d ranks: %g, not %g", n,
			       (double)((float *)fake_view(a.x[i]))[0], (double)(want * want));
		free_graph(&g[0]);
		free_graph(&g[1]);
		all_end(&a);
	}
}

/* ---- two streams, which nothing orders ---- */

static void streams(void)
{
	struct all a, b;

	if (!start())
		return;
	all_begin(&a, 3);
	b = a;
	b.q = fake_queue_new();
	for (int i = 0; i < 3; i++)
		b.x[i] = floats(N, 1);
	fake_enter();
	for (int i = 0; i < 8; i++) {
		sum_all(&a, N);
		sum_all(&b, N);
	}
	fake_leave();
	fake_queue_sync(a.q);
	fake_queue_sync(b.q);
	for (int i = 0; i < 3; i++) {
		CHECK(((float *)fake_view(a.x[i]))[N - 1] == 6561 && ((float *)fake_view(b.x[i]))[N - 1] == 6561);
		fake_free(b.x[i]);
	}
	fake_queue_free(b.q);
	all_end(&a);
}

/* ---- a rank and itself ---- */

static void itself(void)
{
	float *from, *to;
	struct graph g;
	struct all a;

	if (!start())
		return;
	all_begin(&a, 1);
	from = floats(N, 0);
	to = floats(N, 0);
	MUST(cuStreamBeginCapture, a.q, GPU_GLOBAL);
	CHECK(tuttiGroupStart() == tuttiSuccess);
	CHECK(tuttiRecv(to, N, tuttiFloat32, 0, a.comm[0], a.q) == tuttiSuccess);
	CHECK(tuttiSend(from, N, tuttiFloat32, 0, a.comm[0], a.q) == tuttiSuccess);
	CHECKF(tuttiGroupEnd() == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	end_capture(a.q, &g);
	CHECKF(nodes_of(&g) == 1, "%zu nodes for a copy", nodes_of(&g));
	for (int i = 1; i < 4; i++) {
		((float *)fake_view(from))[N - 1] = (float)i;
		fake_enter();
		MUST(cuGraphLaunch, g.exec, a.q);
		fake_leave();
		fake_queue_sync(a.q);
		CHECK(((float *)fake_view(to))[N - 1] == (float)i);
	}
	free_graph(&g);
	fake_free(from);
	fake_free(to);
	all_end(&a);
}

/* To itself, out of what the device does not reach. */
static void itself_far(void)
{
	float *to, plain[N] = { 0 };
	void *graph = NULL;
	struct all a;

	start();
	all_begin(&a, 1);
	to = floats(N, 0);
	MUST(cuStreamBeginCapture, a.q, GPU_GLOBAL);
	CHECK(tuttiGroupStart() == tuttiSuccess);
	CHECK(tuttiRecv(to, N, tuttiFloat32, 0, a.comm[0], a.q) == tuttiSuccess);
	CHECK(tuttiSend(plain, N, tuttiFloat32, 0, a.comm[0], NULL) == tuttiSuccess);
	CHECKF(tuttiGroupEnd() == tuttiInvalidUsage && strstr(tuttiGetLastError(NULL), "pageable memory"), "%s",
	       tuttiGetLastError(NULL));
	MUST(cuStreamEndCapture, a.q, &graph);
	MUST(cuGraphDestroy, graph);
	fake_free(to);
	all_end(&a);
}

/* ---- refused ---- */

static void refused(struct rank *r, tuttiResult_t got, const char *a, const char *b)
{
	const char *text = tuttiGetLastError(NULL);

	RANK_CHECKF(r, got == tuttiInvalidUsage && strstr(text, a) && strstr(text, b), "%s: %s",
		    tuttiGetErrorString(got), text);
}

static tuttiResult_t sum(struct rank *r, float *x, tuttiStream_t q)
{
	return tuttiAllReduce(x, x, N, tuttiFloat32, tuttiSum, r->comm, q);
}

/* As if nothing had been. */
static void goes_on(struct rank *r, float *x, tuttiStream_t q)
{
	tuttiResult_t state;
	float *v = fake_view(x);

	for (int i = 0; i < N; i++)
		v[i] = 1;
	RANK_OK(r, FAKE(sum(r, x, q)));
	fake_queue_sync(q);
	RANK_CHECKF(r, v[0] == (float)r->n && v[N - 1] == (float)r->n, "the next sum is %g", (double)v[0]);
	RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
	RANK_CHECKF(r, state == tuttiSuccess, "the communicator has failed");
}

static void begin_own(tuttiStream_t q)
{
	MUST(cuStreamBeginCapture, q, GPU_THREAD);
}

static void end_own(tuttiStream_t q)
{
	void *graph = NULL;

	MUST(cuStreamEndCapture, q, &graph);
	MUST(cuGraphDestroy, graph);
}

/* Each rank has a capture of its own; then some have none. */
static void captures_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(N, 1);

	fake_use(true);
	begin_own(q);
	refused(r, sum(r, x, q), "captured into two graphs", "the communicator stays usable");
	end_own(q);
	goes_on(r, x, q);
	if (r->rank == 1)
		begin_own(q);
	refused(r, sum(r, x, q), "rank 1 is being captured and rank 0 is not", "one device");
	if (r->rank == 1)
		end_own(q);
	goes_on(r, x, q);
	fake_queue_free(q);
	fake_free(x);
}

static void captures(void)
{
	if (start())
		for (int n = 2; n < 5; n++)
			run_shared(n, captures_rank);
}

static void nothing(const void *in, void *inout, size_t n, tuttiDataType_t type, void *ctx)
{
}

/* One of the ranks has what needs the host. */
static void host_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(N, 1), plain[N] = { 0 };
	tuttiRedOp_t op;

	fake_use(true);
	RANK_OK(r, tuttiRedOpCreateUser(&op, nothing, 1, NULL, r->comm));
	fork_from_first(r->rank, q);
	refused(r, tuttiAllReduce(x, x, N, tuttiFloat32, op, r->comm, q), "its operator is a function of the host", "");
	refused(r, sum(r, r->rank == 1 ? plain : x, q), "rank 1: its buffers are pageable memory", "graph");
	refused(r, tuttiSend(x, N, tuttiFloat32, (r->rank + 1) % r->n, r->comm, q), "Send", "messages need the host");
	RANK_OK(r, sum(r, x, q)); /* the capture goes on */
	join_first(r->rank, q);
	RANK_CHECKF(r, r->rank || nodes_of(&shared.graph) == 1, "not one node");
	if (r->rank == 0)
		free_graph(&shared.graph);
	goes_on(r, x, q);
	RANK_OK(r, tuttiRedOpDestroy(op, r->comm));
	fake_queue_free(q);
	fake_free(x);
}

static void host(void)
{
	if (start())
		run_shared(3, host_rank);
}

/* The error of a call that has no place in a capture has ended it. */
static void broken_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(N, 1);
	void *graph = NULL;

	fake_use(true);
	fork_from_first(r->rank, q);
	if (r->rank == 1)
		RANK_CHECKF(r, GPU(cuStreamQuery, q), "a captured stream was asked whether it is idle");
	meet();
	refused(r, sum(r, x, q), "its capture was ended by an error", "usable");
	meet();
	RANK_CHECKF(r, r->rank || GPU(cuStreamEndCapture, q, &graph) == 901, "the capture is whole");
	meet();
	goes_on(r, x, q);
	fake_queue_free(q);
	fake_free(x);
}

static void broken(void)
{
	if (start())
		run_shared(2, broken_rank);
}

/* A rank calls by links, and waits for the other: whose capture has no place for that, and which calls again. */
static void links_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(N, 1), plain[N];

	fake_use(true);
	for (int i = 0; i < N; i++)
		plain[i] = 1;
	if (r->rank == 1) {
		RANK_OK(r, sum(r, plain, q));
	} else {
		begin_own(q);
		refused(r, sum(r, x, q), "another rank makes this call by links", "graph");
		end_own(q);
		RANK_OK(r, FAKE(sum(r, x, q)));
	}
	fake_queue_sync(q);
	RANK_CHECKF(r, r->rank ? plain[7] == 2 : ((float *)fake_view(x))[7] == 2, "not the sum");
	goes_on(r, x, q);
	fake_queue_free(q);
	fake_free(x);
}

static void links(void)
{
	if (start())
		run_shared(2, links_rank);
}

static void no_meeting_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(N, 1);

	fake_use(true);
	begin_own(q);
	if (r->rank == 0) /* alone: nobody is waited for */
		refused(r, sum(r, x, q), "TUTTI_ONE_KERNEL=0", "the communicator stays as it was");
	end_own(q);
	goes_on(r, x, q);
	fake_queue_free(q);
	fake_free(x);
}

static void no_meeting(void)
{
	setenv("TUTTI_ONE_KERNEL", "0", 1);
	start();
	run_shared(2, no_meeting_rank);
	setenv("TUTTI_ONE_KERNEL", "1", 1);
}

/* ---- ended ---- */

static void abort_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(N, 1);

	fake_use(true);
	fork_from_first(r->rank, q);
	if (r->rank)
		RANK_CHECKF(r, sum(r, x, q) != tuttiSuccess, "a call with a rank that never came");
	else
		sleep_s(0.1);
	tuttiCommAbort(r->comm);
	r->comm = NULL;
	join_first(r->rank, q);
	if (r->rank == 0)
		free_graph(&shared.graph);
	fake_queue_free(q);
	fake_free(x);
}

static void aborted(void)
{
	if (start())
		run_shared(3, abort_rank);
}

/* A graph outlives its communicator that was aborted, and replays beside the next one. */
static void outlives(void)
{
	struct all old, new;
	struct graph g;

	if (!start())
		return;
	all_begin(&old, 3);
	g = capture_sum(&old, GPU_GLOBAL);
	for (int i = 0; i < 3; i++)
		CHECK(tuttiCommAbort(old.comm[i]) == tuttiSuccess);
	all_begin(&new, 3);
	fake_enter();
	for (int i = 0; i < 6; i++) {
		MUST(cuGraphLaunch, g.exec, old.q);
		sum_all(&new, N);
	}
	fake_leave();
	fake_queue_sync(old.q);
	fake_queue_sync(new.q);
	for (int i = 0; i < 3; i++)
		CHECKF(((float *)fake_view(new.x[i]))[5] == 729, "%g", (double)((float *)fake_view(new.x[i]))[5]);
	free_graph(&g);
	all_end(&new);
}

/* ---- beside the capture of another ---- */

/* Rank 0 captures something of its own meanwhile, in a mode in which drivers refuse much to all threads. */
static void beside_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new(), own = fake_queue_new();
	float *x = floats(N, 1), *more;
	void *graph = NULL, *p;
	float plain[N] = { 0 };

	fake_use(true);
	fake_enter();
	fake_leave();
	meet();
	if (r->rank == 0)
		MUST(cuStreamBeginCapture, own, GPU_GLOBAL);
	meet();
	RANK_OK(r, sum(r, x, q));
	RANK_OK(r, tuttiAllReduce(x, plain, N, tuttiFloat32, tuttiSum, r->comm, q)); /* by links */
	RANK_OK(r, tuttiMemAlloc(&p, 100));
	RANK_OK(r, tuttiMemFree(p));
	tuttiComm_t part;
	RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &part, NULL));
	RANK_OK(r, tuttiAllReduce(x, x, N, tuttiFloat32, tuttiSum, part, q));
	RANK_OK(r, tuttiCommDestroy(part));
	meet();
	if (r->rank == 0) {
		RANK_CHECKF(r, !GPU(cuStreamEndCapture, own, &graph), "a call of the library has ended the capture");
		MUST(cuGraphDestroy, graph);
	}
	meet();
	fake_queue_sync(q);
	RANK_CHECKF(r, ((float *)fake_view(x))[3] == (float)(r->n * r->n) && plain[3] == (float)(r->n * r->n), "%g %g",
		    (double)((float *)fake_view(x))[3], (double)plain[3]);
	more = floats(N, 1);
	goes_on(r, more, q);
	fake_free(more);
	fake_free(x);
	fake_queue_free(own);
	fake_queue_free(q);
}

static void beside(void)
{
	if (start())
		run_shared(3, beside_rank);
}

const struct test tests[] = {
	{ "replay, ranks as threads on streams of one capture", threads, 100 },
	{ "replay, ranks of one thread on one stream", group, 100 },
	{ "calls beside each other, on two streams", streams, 60 },
	{ "replay, a rank and itself", itself, 60 },
	{ "refused: what a rank sends to itself, out of pageable memory", itself_far, 60 },
	{ "refused: captures of their own", captures, 60 },
	{ "refused: what needs the host", host, 60 },
	{ "refused: a capture that an error has ended", broken, 60 },
	{ "refused: another rank goes by links", links, 60 },
	{ "refused: no kernel for all ranks", no_meeting, 60 },
	{ "an abort ends the wait under capture", aborted, 60 },
	{ "a graph replays after its communicator was aborted", outlives, 60 },
	{ "calls beside a capture leave it whole", beside, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
