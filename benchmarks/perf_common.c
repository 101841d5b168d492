/* The run of a perf program: launch, communicators, the loop over types, operators, roots and
 * sizes, the clock and the check. Every rank is a thread that runs the same loop with a
 * communicator of its own; ranks agree through tutti alone. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "perf_common.h"

struct rank {
	const struct perf_coll *coll;
	const struct perf_args *args;
	struct perf_report *report;
	tuttiUniqueId id;
	tuttiComm_t comm;
	tuttiStream_t stream; /* NULL: blocking calls */
	int rank, nranks, device; /* -1: host memory */
	struct perf_buf send, recv; /* PERF_GUARD bytes before and behind max_bytes */
	uint8_t *expected;
	void *handles[2];       /* of send and recv, where registered */
	bool ok;
};

static void must(tuttiResult_t r, const char *what)
{
	if (r != tuttiSuccess)
		perf_die("%s: %s: %s", what, tuttiGetErrorString(r), tuttiGetLastError(NULL));
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* ---- who we are ---- */

static bool set(const char *name)
{
	const char *v = getenv(name);

	return v && *v;
}

static bool launched(void)
{
	return set("TUTTI_RANK") || (set("RANK") && set("WORLD_SIZE") && set("MASTER_ADDR"));
}

/* Among the processes of this host. */
static int local_process(int proc)
{
	const char *s = set("TUTTI_LOCAL_RANK") ? getenv("TUTTI_LOCAL_RANK") : getenv("LOCAL_RANK");

	return s && *s ? atoi(s) : proc;
}

/* A launcher that tutti cannot ask would start N jobs of one rank each, and every one would look
 * fine. */
static void refuse_foreign_launcher(void)
{
	static const char *const of[][3] = {
		/* rank, size, name */
		{ "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun" },
		{ "PMI_RANK", "PMI_SIZE", "an MPI launcher (PMI)" },
		{ "PMIX_RANK", "PMIX_SIZE", "a PMIx launcher" },
		{ "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "srun" },
	};

	for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
		const char *size = getenv(of[i][1]);

		if (!set(of[i][0]) || (size && !strcmp(size, "1")))
			continue;
		perf_die(
			"%s=%s: started by %s, which this version cannot take ranks from: each process "
			"would be a job of one rank. Start it with: tutti-run -n N PROGRAM, or torchrun",
			of[i][0], getenv(of[i][0]), of[i][2]);
	}
}

/* Process 0 makes the id of the communicator of all threads and hands it out over the processes'
 * own. */
static void share_id(tuttiComm_t procs, int proc, tuttiUniqueId *id)
{
	if (proc == 0)
		must(tuttiGetUniqueId(id), "GetUniqueId");
	if (procs)
		must(tuttiBroadcast(id, id, sizeof *id, tuttiUint8, 0, procs, NULL),
		     "Broadcast of the id");
}

/* ---- buffers ---- */

static void new_buffer(struct rank *k, struct perf_buf *b, size_t bytes, void **handle)
{
	perf_buf_new(b, k->args, bytes + 2 * PERF_GUARD);
	if (b->registered)
		must(tuttiCommRegister(k->comm, b->at, bytes, handle), "CommRegister");
}

static void free_buffer(struct rank *k, struct perf_buf *b, void *handle)
{
	if (b->registered)
		must(tuttiCommDeregister(k->comm, handle), "CommDeregister");
	perf_buf_free(b);
}

/* Elements of a row of `bytes`, and that in bytes of the larger buffer. */
static size_t row_bytes(const struct perf_case *c)
{
	size_t n = c->sizes.send > c->sizes.recv ? c->sizes.send : c->sizes.recv;

	return n * perf_type_size(c->type);
}

static void guard_set(uint8_t *buf, size_t bytes)
{
	memset(buf, 0xa5, PERF_GUARD);
	memset(buf + PERF_GUARD + bytes, 0xa5, PERF_GUARD);
}

static int64_t guard_count(const uint8_t *buf, size_t bytes)
{
	int64_t n = 0;

	for (size_t i = 0; i < PERF_GUARD; i++)
		n += (buf[i] != 0xa5) + (buf[PERF_GUARD + bytes + i] != 0xa5);
	return n;
}

/* Where the two arguments of the call point. */
static void pointers(const struct rank *k, const struct perf_case *c, bool in_place, uint8_t **send,
		     uint8_t **recv)
{
	size_t el = perf_type_size(c->type), me = (size_t)k->rank;

	*send = k->send.at + PERF_GUARD;
	*recv = k->recv.at + PERF_GUARD;
	if (!in_place)
		return;
	*send = k->recv.at + PERF_GUARD + c->sizes.send_offset * me * el;
	*recv += c->sizes.recv_offset * me * el;
}

static uint8_t *view_of(const struct rank *k, const uint8_t *p)
{
	const struct perf_buf *b = p >= k->send.at && p < k->send.at + k->send.n ? &k->send : &k->recv;

	return b->view + (p - b->at);
}

/* What the host has written goes to where the call reads it, and back. */
static void put(struct rank *k, const struct perf_case *c)
{
	perf_buf_put(&k->send, row_bytes(c) + 2 * PERF_GUARD, k->stream);
	perf_buf_put(&k->recv, row_bytes(c) + 2 * PERF_GUARD, k->stream);
}

static void get(struct rank *k, const struct perf_case *c)
{
	perf_buf_get(&k->send, row_bytes(c) + 2 * PERF_GUARD, k->stream);
	perf_buf_get(&k->recv, row_bytes(c) + 2 * PERF_GUARD, k->stream);
}

/* ---- agreement ---- */

static double agree_time(const struct rank *k, double us)
{
	double v = us;

	if (k->args->average == 0)
		must(tuttiBroadcast(&v, &v, 1, tuttiFloat64, 0, k->comm, NULL),
		     "Broadcast of the time");
	else
		must(tuttiAllReduce(&v, &v, 1, tuttiFloat64,
				    k->args->average == 1   ? tuttiSum
				    : k->args->average == 2 ? tuttiMin
							    : tuttiMax,
				    k->comm, NULL),
		     "AllReduce of the time");
	return k->args->average == 1 ? v / k->nranks : v;
}

static void agree_counts(const struct rank *k, int64_t n[2])
{
	must(tuttiAllReduce(n, n, 2, tuttiInt64, tuttiSum, k->comm, NULL),
	     "AllReduce of the counts");
}

/* ---- one row ---- */

static tuttiResult_t enqueue(const struct rank *k, const struct perf_case *c, tuttiRedOp_t op, bool in_place, int times)
{
	uint8_t *send, *recv;
	tuttiResult_t r = tuttiSuccess;

	pointers(k, c, in_place, &send, &recv);
	while (times-- > 0 && r == tuttiSuccess) {
		r = k->coll->run(send, recv, c, op, k->comm, k->stream);
		if (r == tuttiSuccess && times && k->args->blocking)
			r = perf_stream_wait(k->stream, k->comm);
	}
	return r;
}

static tuttiResult_t call(const struct rank *k, const struct perf_case *c, tuttiRedOp_t op, bool in_place, int times)
{
	tuttiResult_t r = enqueue(k, c, op, in_place, times), s = perf_stream_wait(k->stream, k->comm);

	return r != tuttiSuccess ? r : s;
}

static int64_t differences(const uint8_t *a, const uint8_t *b, size_t count, size_t el)
{
	int64_t n = 0;

	if (!memcmp(a, b, count * el))
		return 0;
	for (size_t i = 0; i < count; i++)
		n += memcmp(a + i * el, b + i * el, el) != 0;
	return n;
}

/* Runs the call once on fresh data; *wrong and *outside are sums over the ranks. */
static void check(struct rank *k, const struct perf_case *c, tuttiRedOp_t op, bool in_place,
		  int64_t *wrong, int64_t *outside)
{
	size_t el = perf_type_size(c->type), bytes = row_bytes(c);
	bool has_result = !k->coll->result_on_root || k->rank == c->root;
	bool corrupts =
		k->args->corrupt && k->rank == (k->coll->result_on_root ? c->root : k->nranks - 1);
	uint8_t *send, *recv;
	int64_t n[2];

	pointers(k, c, in_place, &send, &recv);
	recv = view_of(k, recv);
	memset(k->recv.view + PERF_GUARD, 0xee, bytes);
	guard_set(k->send.view, bytes);
	guard_set(k->recv.view, bytes);
	perf_input(c, k->rank, 0, c->sizes.send, view_of(k, send));
	put(k, c);
	must(call(k, c, op, in_place, 1), k->coll->name);
	get(k, c);
	if (corrupts && c->sizes.recv)
		recv[c->sizes.recv / 2 * el] ^= 1;
	if (has_result)
		k->coll->expect(c, k->expected);
	n[0] = has_result ? differences(recv, k->expected, c->sizes.recv, el) : 0;
	n[1] = guard_count(k->recv.view, bytes) + guard_count(k->send.view, bytes);
	agree_counts(k, n);
	*wrong = n[0];
	*outside += n[1];
}

static void fill_timing(const struct rank *k, const struct perf_case *c, double us,
			struct perf_timing *t)
{
	t->us = us;
	t->algbw = us > 0 ? (double)row_bytes(c) / us * 1e-3 : 0;
	t->busbw = t->algbw * (k->coll->passes ? (double)k->coll->passes * (k->nranks - 1) / k->nranks : 1);
	t->wrong = -1;
}

/* Of one call, by launches of a graph that holds them all. */
static double time_graph(struct rank *k, const struct perf_case *c, tuttiRedOp_t op, bool in_place)
{
	int me = k->rank % k->args->nthreads;
	tuttiResult_t r;
	double start;

	perf_graph_begin(me, k->stream);
	r = enqueue(k, c, op, in_place, k->args->iters);
	perf_graph_end(me, k->stream);
	must(r, k->coll->name);
	must(tuttiBarrier(k->comm, NULL), "Barrier");
	start = now_us();
	for (int i = 0; i < k->args->graphs; i++)
		perf_graph_launch(me, k->stream);
	must(perf_stream_wait(k->stream, k->comm), "launches of the graph");
	start = now_us() - start;
	perf_graph_free(me);
	return start / k->args->graphs / k->args->iters;
}

static double time_calls(struct rank *k, const struct perf_case *c, tuttiRedOp_t op, bool in_place)
{
	bool load = k->args->load && k->rank == 0;
	double start;

	if (load)
		perf_load_begin();
	start = now_us();
	must(call(k, c, op, in_place, k->args->iters), k->coll->name);
	start = now_us() - start;
	if (load)
		perf_load_end();
	return start / k->args->iters;
}

/* False where the combination is not supported; every other failure ends the program. */
static bool row(struct rank *k, struct perf_case *c, tuttiRedOp_t op, uint64_t *seed)
{
	double (*time)(struct rank *, const struct perf_case *, tuttiRedOp_t, bool) =
		k->args->graphs ? time_graph : time_calls;
	struct perf_timing t[2];
	int64_t outside = 0;

	for (int in_place = 0; in_place < 2; in_place++) {
		uint8_t *send, *recv;
		tuttiResult_t r;

		pointers(k, c, in_place, &send, &recv);
		perf_input(c, k->rank, 0, c->sizes.send, view_of(k, send));
		put(k, c);
		r = call(k, c, op, in_place, k->args->warmup ? k->args->warmup : 1);
		if (r == tuttiUnsupported)
			return false;
		must(r, k->coll->name);
		must(tuttiBarrier(k->comm, NULL), "Barrier");
		fill_timing(k, c, agree_time(k, time(k, c, op, in_place)), &t[in_place]);
		c->seed = ++*seed;
		if (k->args->check)
			check(k, c, op, in_place, &t[in_place].wrong, &outside);
		if (t[in_place].wrong > 0 || outside)
			k->ok = false;
	}
	if (k->rank == 0) {
		k->report->out_of_bounds += outside;
		perf_report_row(k->report, c, t);
	}
	return true;
}

static struct perf_sizes sizes_of(const struct rank *k, size_t count)
{
	if (k->coll->sizes)
		return k->coll->sizes(count, k->nranks);
	return (struct perf_sizes){ .send = count, .recv = count, .param = count };
}

static void sizes_loop(struct rank *k, struct perf_case *c, tuttiRedOp_t op, uint64_t *seed)
{
	const struct perf_args *a = k->args;

	for (size_t size = a->min_bytes, next; size <= a->max_bytes; size = next) {
		c->sizes = sizes_of(k, size / perf_type_size(c->type));
		if (!row(k, c, op, seed)) {
			if (k->rank == 0)
				perf_report_skip(c, k->coll);
			return;
		}
		next = a->step_factor > 1 ? size * a->step_factor : size + a->step_bytes;
		if (next <= size)
			break;
	}
}

static void one_setting(struct rank *k, int type, int op, int root, uint64_t *seed)
{
	struct perf_case c = { .rank = k->rank,
			       .nranks = k->nranks,
			       .root = root,
			       .op = op,
			       .type = (tuttiDataType_t)type,
			       .seed = *seed };
	tuttiRedOp_t handle = (tuttiRedOp_t)op;
	uint64_t scalar;

	if (op == PERF_MULSUM) {
		perf_mulsum_scalar(c.type, k->rank, &scalar);
		must(tuttiRedOpCreatePreMulSum(&handle, &scalar, c.type, tuttiScalarHostImmediate,
					       k->comm),
		     "RedOpCreatePreMulSum");
	}
	sizes_loop(k, &c, handle, seed);
	if (op == PERF_MULSUM)
		must(tuttiRedOpDestroy(handle, k->comm), "RedOpDestroy");
}

static void all_settings(struct rank *k)
{
	const struct perf_args *a = k->args;
	int op_first = !k->coll->has_op ? 0 : a->op < 0 ? 0 : a->op;
	int op_last = !k->coll->has_op ? 0 : a->op < 0 ? PERF_NOPS - 1 : a->op;
	int type_first = a->type < 0 ? 0 : a->type,
	    type_last = a->type < 0 ? tuttiNumTypes - 1 : a->type;
	int root_first = !k->coll->has_root || a->root < 0 ? 0 : a->root;
	int root_last = !k->coll->has_root ? 0 : a->root < 0 ? k->nranks - 1 : a->root;
	uint64_t seed = 1;

	if (root_last >= k->nranks)
		perf_die("-r %d: there are %d ranks", a->root, k->nranks);
	for (int type = type_first; type <= type_last; type++)
		for (int op = op_first; op <= op_last; op++)
			for (int root = root_first; root <= root_last; root++)
				one_setting(k, type, op, root, &seed);
}

/* ---- a rank ---- */

static void gather_names(struct rank *k, struct perf_rank_info *all)
{
	struct perf_rank_info *me = &all[k->rank];

	memset(me, 0, sizeof *me);
	me->pid = (int32_t)getpid();
	me->device = k->device;
	gethostname(me->host, sizeof me->host - 1);
	must(tuttiAllGather(me, all, sizeof *me, tuttiUint8, k->comm, NULL),
	     "AllGather of the names");
}

static void run_rank(struct rank *k)
{
	struct perf_rank_info *names = calloc((size_t)k->nranks, sizeof *names);
	size_t room =
		k->args->max_bytes + 8 * (size_t)k->nranks; /* a share is rounded to elements */

	if (!names)
		perf_die("no memory");
	new_buffer(k, &k->send, room, &k->handles[0]);
	new_buffer(k, &k->recv, room, &k->handles[1]);
	k->expected = calloc(1, k->args->check ? room : 1);
	if (!k->expected)
		perf_die("no memory for %zu bytes", room);
	k->stream = perf_stream_new(k->args);
	if (k->args->load && k->rank == 0)
		perf_load_start(k->device);
	gather_names(k, names);
	if (k->rank == 0)
		perf_report_begin(k->report, names, k->nranks);
	all_settings(k);
	if (k->args->load && k->rank == 0)
		perf_load_stop();
	must(tuttiBarrier(k->comm, NULL), "Barrier"); /* freeing waits for the device, which may wait for a rank */
	perf_stream_free(k->stream);
	free(names);
	free_buffer(k, &k->send, k->handles[0]);
	free_buffer(k, &k->recv, k->handles[1]);
	free(k->expected);
}

static void *rank_thread(void *arg)
{
	struct rank *k = arg;

	perf_mem_use(k->device);
	if (!k->comm)
		must(tuttiCommInitRank(&k->comm, k->nranks, k->id, k->rank), "CommInitRank");
	run_rank(k);
	must(tuttiCommFinalize(k->comm), "CommFinalize");
	must(tuttiCommDestroy(k->comm), "CommDestroy");
	return NULL;
}

static bool run_threads(struct rank *ranks, int n)
{
	pthread_t *threads = calloc((size_t)n, sizeof *threads);
	bool ok = true;

	if (!threads)
		perf_die("no memory");
	for (int i = 1; i < n; i++)
		if (pthread_create(&threads[i], NULL, rank_thread, &ranks[i]))
			perf_die("cannot start thread %d of %d", i, n);
	rank_thread(&ranks[0]);
	for (int i = 1; i < n; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < n; i++)
		ok &= ranks[i].ok;
	free(threads);
	return ok;
}

int perf_main(int argc, char **argv, const struct perf_coll *coll)
{
	struct perf_args args;
	struct perf_report report = { .coll = coll, .args = &args };
	tuttiComm_t procs = NULL;
	tuttiUniqueId id = { { 0 } };
	int proc = 0, nprocs = 1, t, devices;
	struct rank *ranks;
	bool own, ok;

	perf_parse(argc, argv, coll, &args);
	devices = perf_mem_start(args.memory);
	if (launched()) {
		must(tuttiCommInitFromEnv(&procs, NULL), "CommInitFromEnv");
		must(tuttiCommUserRank(procs, &proc), "CommUserRank");
		must(tuttiCommCount(procs, &nprocs), "CommCount");
	} else {
		refuse_foreign_launcher();
	}
	t = args.nthreads;
	ranks = calloc((size_t)t, sizeof *ranks);
	if (!ranks)
		perf_die("no memory");
	own = t > 1 || !procs || devices; /* a communicator knows the device that was current at its init */
	if (own)
		share_id(procs, proc, &id);
	for (int i = 0; i < t; i++)
		ranks[i] = (struct rank){ .coll = coll,
					  .args = &args,
					  .report = &report,
					  .id = id,
					  .rank = proc * t + i,
					  .nranks = nprocs * t,
					  .device = devices ? (local_process(proc) * t + i) % devices : -1,
					  .ok = true };
	if (!own)
		ranks[0].comm = procs;
	if (args.graphs)
		perf_graph_start(t);
	ok = run_threads(ranks, t);
	if (own)
		must(tuttiCommDestroy(procs), "CommDestroy");
	free(ranks);
	if (proc == 0)
		ok &= perf_report_end(&report);
	return ok ? 0 : 1;
}
