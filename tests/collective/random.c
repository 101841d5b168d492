/* Random collectives against the reference: ranks, types, operators, sizes around every boundary, alignment,
 * in place and apart, blocking, on streams and in groups. A case is a function of (seed, communicator, case),
 * so every rank derives it alone. TEST_SEED repeats a run, TEST_CASES sets how many, TEST_QUICK makes few, TEST_RANKS
 * sets how many ranks; TEST_ONE_DEVICE: threads alone, and all that the device can do is done there.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "ranks.h"
#include "ref.h"
#include "test.h"

enum { PER_COMM = 16, MAX_CASES = 170, MAX_N = 17, GUARD = 128, COLLS = 6, FULL_CHECK = 2048 };
enum coll { ALLREDUCE, ALLGATHER, REDUCESCATTER, BROADCAST, REDUCE, BARRIER };
static const char *const coll_names[] = { "AllReduce", "AllGather", "ReduceScatter", "Broadcast", "Reduce",
					  "Barrier" };

struct tcase {
	struct ref_case ref;
	enum coll coll;
	size_t count;        /* as the call takes it */
	int root;
	bool in_place;
};

/* Common to the ranks of a communicator; in shared memory where they are processes. */
struct round {
	uint64_t seed;
	int comm, ncases;
	bool small;
	bool sweep;          /* not random: each collective at each border */
	bool device;         /* buffers of the fake device, some of them */
	uint64_t hash[MAX_CASES][MAX_N];
	_Atomic int arrived[MAX_CASES];
};

struct work {                /* of one rank */
	struct rank *r;
	struct round *round;
	struct tcase c;
	int index;
	tuttiStream_t stream;
	tuttiStream_t queue;
	void *scalar;          /* of the device */
	unsigned char *mem[2]; /* with guards */
	void *base[2];         /* the same, as the device calls it */
	unsigned char *send, *recv;
	size_t send_bytes, recv_bytes, span[2], offset[2];
	uint64_t send_hash;
};

static uint64_t draw(uint64_t *state, uint64_t n)
{
	*state = ref_mix(*state, 1);
	return (*state >> 11) % n;
}

/* Bytes around everything that could be a border: elements, lines, pages, slots, windows, eager limits. */
static size_t draw_count(uint64_t *s, size_t size, int n, bool small)
{
	static const size_t bytes[] = { 64, 1024, 4096, 8192, 16384, 65536, 131072, 262144, 1048576 };
	size_t near, kinds = small ? 5 : draw(s, 12) == 0 ? 9 : 8;

	switch (draw(s, 4)) {
	case 0:
		return draw(s, 8);
	case 1:
		near = (size_t)n - 1 + draw(s, 3);
		return near * (draw(s, 2) ? 1 : 1 + draw(s, 9));
	case 2:
		return draw(s, small ? 3000 : 70000) / size;
	default:
		near = bytes[draw(s, kinds)] / size + draw(s, 3);
		return near ? near - 1 : 0;
	}
}

static const size_t borders[] = { 0, 1, 63, 64, 65, 255, 256, 257, 511, 513, 1000, 1023, 1024, 1025, 1100,
				  1500, 2000, 2047, 2048, 2049, 3000, 4095, 4096, 4097, 8192, 8193, 16384,
				  16385, 65536, 65537, 131072, 131073, 262145 };
enum { BORDERS = sizeof(borders) / sizeof(borders[0]) };

static struct tcase sweep_case(const struct round *round, int n, int index)
{
	struct tcase c = { .ref = { .seed = ref_mix(round->seed, (uint64_t)index), .n = n } };

	c.ref.type = index % 2 ? tuttiUint8 : tuttiInt8;
	c.coll = (enum coll)(index % BARRIER);
	c.ref.op = c.coll == ALLGATHER || c.coll == BROADCAST ? REF_COPY : tuttiSum;
	c.root = index % n;
	c.in_place = index / 5 % 2;
	c.count = borders[index / BARRIER % BORDERS];
	return c;
}

static bool one_device(void)
{
	return test_setting("TEST_ONE_DEVICE", 0);
}

static struct tcase draw_case(const struct round *round, int n, int index)
{
	uint64_t s = ref_mix(ref_mix(round->seed, (uint64_t)round->comm), (uint64_t)index);
	struct tcase c = { .ref = { .seed = s, .n = n } };
	size_t size;

	if (round->sweep)
		return sweep_case(round, n, index);
	c.ref.type = (tuttiDataType_t)draw(&s, tuttiNumTypes);
	c.coll = draw(&s, 3) == 0 ? ALLREDUCE : (enum coll)draw(&s, COLLS);
	c.ref.op = (int)draw(&s, one_device() ? REF_USER : REF_NOPS);
	if (c.coll == ALLGATHER || c.coll == BROADCAST)
		c.ref.op = REF_COPY;
	c.ref.wide = draw(&s, 2);
	c.ref.nans = draw(&s, 8) == 0;
	c.ref.commutative = draw(&s, 2);
	c.root = (int)draw(&s, (uint64_t)n);
	c.in_place = draw(&s, 2);
	size = ref_size(c.ref.type);
	c.count = draw_count(&s, size, n, round->small);
	if ((c.coll == ALLGATHER || c.coll == REDUCESCATTER) && c.count * size > 20000)
		c.count = c.count / (size_t)n + draw(&s, 2);
	return c;
}

static void describe(const struct work *w, char *out, size_t n)
{
	const struct tcase *c = &w->c;

	snprintf(out, n, "comm %d case %d: %s %s %s%s%s%s count %zu root %d %s, offsets %zu %zu", w->round->comm,
		 w->index, coll_names[c->coll], ref_type_name(c->ref.type), ref_op_name(c->ref.op),
		 c->ref.wide ? " wide" : "", c->ref.nans ? " nans" : "", c->ref.commutative ? " comm" : "",
		 c->count, c->root, c->in_place ? "in place" : "apart", w->offset[0], w->offset[1]);
}

static void bad(const struct work *w, const char *what, const char *why)
{
	char text[320];

	describe(w, text, sizeof(text));
	rank_fail(w->r, __FILE__, __LINE__, "%s: %s %s [TEST_SEED=%llu]", text, what, why,
		  (unsigned long long)w->round->seed);
}

static bool is_root(const struct work *w)
{
	return w->r->rank == w->c.root;
}

/* ---- buffers ---- */

/* Each rank chooses for itself whether a buffer is the device's. */
static void *new_memory(struct work *w, int i, size_t bytes)
{
	uint64_t where = ref_mix(w->c.ref.seed, 55 + (uint64_t)(2 * w->r->rank + i)) % 4;
	void *p = w->round->device && (where || one_device()) ? fake_alloc(bytes) : malloc(bytes);

	if (!p)
		bad(w, "no memory", "");
	w->base[i] = p;
	return w->round->device ? fake_view(p) : p;
}

/* The address that a call takes for what the test sees at p. */
static void *given(const struct work *w, const unsigned char *p)
{
	int i = w->mem[1] && p >= w->mem[1] && p <= w->mem[1] + w->span[1] + 2 * GUARD + 64;

	return (char *)w->base[i] + (p - w->mem[i]);
}

static unsigned char *guarded(struct work *w, int i, size_t bytes, uint64_t *s)
{
	w->offset[i] = draw(s, 3) == 0 ? 0 : draw(s, 64);
	w->span[i] = bytes;
	w->mem[i] = new_memory(w, i, bytes + 2 * GUARD + 64);
	memset(w->mem[i], 0xa5, bytes + 2 * GUARD + 64);
	return w->mem[i] + GUARD + w->offset[i];
}

static void check_guards(const struct work *w, int i)
{
	const unsigned char *p = w->mem[i];
	size_t first = GUARD + w->offset[i], end = first + w->span[i], all = w->span[i] + 2 * GUARD + 64;

	for (size_t k = 0; p && k < first; k++)
		if (p[k] != 0xa5)
			bad(w, "wrote before the buffer", i ? "(recv)" : "(send)");
	for (size_t k = end; p && k < all; k++)
		if (p[k] != 0xa5)
			bad(w, "wrote behind the buffer", i ? "(recv)" : "(send)");
}

static void open_buffers(struct work *w)
{
	const struct tcase *c = &w->c;
	uint64_t s = ref_mix(c->ref.seed, 77 + (uint64_t)w->r->rank);
	size_t block = c->count * ref_size(c->ref.type), n = (size_t)w->r->n, mine = (size_t)w->r->rank * block;

	w->send_bytes = c->coll == REDUCESCATTER ? n * block : block;
	w->recv_bytes = c->coll == ALLGATHER ? n * block : block;
	if (c->in_place) {
		unsigned char *p = guarded(w, 0, w->send_bytes > w->recv_bytes ? w->send_bytes : w->recv_bytes,
					   &s);

		w->send = c->coll == ALLGATHER ? p + mine : p;
		w->recv = c->coll == REDUCESCATTER ? p + mine : p;
	} else {
		w->send = guarded(w, 0, w->send_bytes, &s);
		w->recv = guarded(w, 1, w->recv_bytes, &s);
	}
	if (c->coll != BROADCAST || is_root(w))
		ref_fill(&c->ref, w->r->rank, 0, w->send_bytes / ref_size(c->ref.type), w->send);
	w->send_hash = ref_hash(w->send, w->send_bytes);
}

static void close_buffers(struct work *w)
{
	check_guards(w, 0);
	check_guards(w, 1);
	for (int i = 0; i < 2; i++) {
		if (w->mem[i] != w->base[i])
			fake_free(w->base[i]);
		else
			free(w->base[i]);
		w->mem[i] = w->base[i] = NULL;
	}
}

/* ---- the call ---- */

static tuttiResult_t make_op(struct work *w, bool device, tuttiRedOp_t *op)
{
	unsigned char scalar[8];
	bool there = device && ref_mix(w->c.ref.seed, 33 + (uint64_t)w->r->rank) % 2;

	*op = (tuttiRedOp_t)(w->c.ref.op < tuttiNumOps ? w->c.ref.op : tuttiSum);
	if (w->c.ref.op == REF_PREMULSUM) {
		ref_scalar(&w->c.ref, w->r->rank, there ? fake_view(w->scalar) : scalar);
		return tuttiRedOpCreatePreMulSum(op, there ? w->scalar : scalar, w->c.ref.type,
						 there ? tuttiScalarDevice : tuttiScalarHostImmediate, w->r->comm);
	}
	if (w->c.ref.op == REF_USER)
		return tuttiRedOpCreateUser(op, ref_user, w->c.ref.commutative, &w->c.ref, w->r->comm);
	return tuttiSuccess;
}

static tuttiResult_t submit(struct work *w, tuttiRedOp_t op, tuttiStream_t stream)
{
	const struct tcase *c = &w->c;
	tuttiComm_t comm = w->r->comm;
	bool null_recv = c->coll == REDUCE && !is_root(w) && !c->in_place && c->ref.seed & 1;

	void *send = given(w, w->send), *recv = null_recv ? NULL : given(w, w->recv);

	switch (c->coll) {
	case ALLREDUCE:
		return tuttiAllReduce(send, recv, c->count, c->ref.type, op, comm, stream);
	case ALLGATHER:
		return tuttiAllGather(send, recv, c->count, c->ref.type, comm, stream);
	case REDUCESCATTER:
		return tuttiReduceScatter(send, recv, c->count, c->ref.type, op, comm, stream);
	case BROADCAST:
		return tuttiBroadcast(send, recv, c->count, c->ref.type, c->root, comm, stream);
	case REDUCE:
		return tuttiReduce(send, recv, c->count, c->ref.type, op, c->root, comm, stream);
	default:
		return tuttiBarrier(comm, stream);
	}
}

static bool is_device(const struct work *w)
{
	return (w->mem[0] && w->mem[0] != w->base[0]) || (w->mem[1] && w->mem[1] != w->base[1]);
}

/* Ranks choose on their own how they call: blocking, on a stream, in a group, on a stream in a group. */
static void call(struct work *w)
{
	uint64_t how = ref_mix(w->c.ref.seed, 99 + (uint64_t)w->r->rank) % 8;
	bool group = how >= 6, streamed = how == 5 || how == 7, device = w->round->device && (is_device(w) || how & 1);
	tuttiStream_t stream = streamed ? w->stream : NULL;
	tuttiRedOp_t op = tuttiSum;
	tuttiResult_t res;

	if (device) /* of host memory too, on a queue; on the default one only what is the device's */
		stream = is_device(w) && how < 3 ? fake_queue_default() : w->queue;
	res = make_op(w, device && stream, &op); /* on stream NULL memory decides, which may be the host's */

	if (res == tuttiSuccess && group)
		res = tuttiGroupStart();
	w->round->arrived[w->index]++;
	fake_enter();
	if (res == tuttiSuccess)
		res = submit(w, op, stream);
	if (group) {
		tuttiResult_t end = tuttiGroupEnd();

		res = res == tuttiSuccess ? end : res;
	}
	fake_leave();
	if (res == tuttiSuccess && op >= tuttiNumOps) /* what was submitted keeps it */
		res = tuttiRedOpDestroy(op, w->r->comm);
	if (res == tuttiSuccess && device)
		fake_queue_sync(stream);
	else if (res == tuttiSuccess && streamed)
		res = tuttiHostStreamSynchronize(w->stream);
	if (res != tuttiSuccess)
		bad(w, tuttiGetErrorString(res), tuttiGetLastError(NULL));
}

/* ---- the result ---- */

static bool is_filled(const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != 0xa5)
			return false;
	return true;
}

/* Large results that all ranks share are compared by hash; each rank then looks at its part only. */
static void my_part(const struct work *w, size_t *first, size_t *count)
{
	size_t n = (size_t)w->r->n, all = w->c.count;

	*first = 0;
	*count = all;
	if (w->c.coll != REDUCESCATTER && w->c.coll != REDUCE && all > FULL_CHECK) {
		*first = all * (size_t)w->r->rank / n;
		*count = all * ((size_t)w->r->rank + 1) / n - *first;
	}
}

static void check_reduced(struct work *w)
{
	const struct tcase *c = &w->c;
	size_t size = ref_size(c->ref.type), first, count, base = 0;
	char why[200];

	my_part(w, &first, &count);
	if (c->coll == REDUCESCATTER)
		base = (size_t)w->r->rank * c->count;
	if (ref_check_all(&c->ref, base + first, count, w->recv + first * size, why, sizeof(why)) < count)
		bad(w, "wrong result:", why);
}

static void check_moved(struct work *w)
{
	const struct tcase *c = &w->c;
	size_t block = c->count * ref_size(c->ref.type), first, count;
	char why[200];

	my_part(w, &first, &count);
	for (int b = 0; b < (c->coll == ALLGATHER ? w->r->n : 1); b++) {
		const unsigned char *p = w->recv + (size_t)b * block + first * ref_size(c->ref.type);

		if (ref_check_copy(&c->ref, c->coll == ALLGATHER ? b : c->root, first, count, p, why,
				   sizeof(why)) < count)
			bad(w, "wrong data:", why);
	}
}

static void check(struct work *w)
{
	const struct tcase *c = &w->c;
	bool has_result = c->coll != REDUCE || is_root(w);

	if (c->coll == BARRIER && w->round->arrived[w->index] != (w->r->procs ? w->r->procs->here : w->r->n))
		bad(w, "left the barrier early", "");
	if (c->coll == BARRIER)
		return;
	if (c->coll == BROADCAST || c->coll == ALLGATHER)
		check_moved(w);
	else if (has_result)
		check_reduced(w);
	if (!has_result && !c->in_place && !is_filled(w->recv, w->recv_bytes))
		bad(w, "wrote to recvbuff of a rank that is not the root", "");
	if ((!c->in_place || !has_result) && ref_hash(w->send, w->send_bytes) != w->send_hash)
		bad(w, "changed sendbuff", "");
	if (c->coll == ALLREDUCE || c->coll == ALLGATHER || c->coll == BROADCAST)
		w->round->hash[w->index][w->r->rank] = ref_hash(w->recv, w->recv_bytes);
}

static void run_cases(struct rank *r, struct round *round)
{
	struct work w = { .r = r, .round = round };

	RANK_OK(r, tuttiHostStreamCreate(&w.stream));
	if (round->device) {
		w.queue = fake_queue_new();
		w.scalar = fake_alloc(8);
	}
	for (int i = 0; i < round->ncases; i++) {
		r->step = i;
		w.index = i;
		w.c = draw_case(round, r->n, i);
		open_buffers(&w);
		call(&w);
		check(&w);
		close_buffers(&w);
	}
	RANK_OK(r, tuttiHostStreamDestroy(w.stream));
	if (round->device)
		fake_free(w.scalar);
	fake_queue_free(w.queue);
}

/* Of the ranks of this machine. */
static void check_hashes(const struct round *round, int n)
{
	int first = (int)test_setting("TEST_HOST", 0), step = (int)test_setting("TEST_HOSTS", 1);

	for (int i = 0; i < round->ncases; i++) {
		struct tcase c = draw_case(round, n, i);

		for (int k = first + step; k < n; k += step)
			CHECKF(round->hash[i][k] == round->hash[i][first],
			       "comm %d of %d ranks, case %d (%s %s %s, count %zu): ranks %d and %d hold "
			       "different bits [TEST_SEED=%llu]", round->comm, n, i, coll_names[c.coll],
			       ref_type_name(c.ref.type), ref_op_name(c.ref.op), c.count, first, k,
			       (unsigned long long)round->seed);
	}
}

/* ---- threads ---- */

static void thread_rank(struct rank *r)
{
	run_cases(r, r->arg);
}

static long wanted_cases(void)
{
	bool quick = test_setting("TEST_QUICK", 0) != 0;

	return test_setting("TEST_CASES", quick ? 64 : test_setting("TEST_LONG", 0) ? 10000 : 2000);
}

static void run_threads(long cases, bool device)
{
	static struct round round;
	bool quick = test_setting("TEST_QUICK", 0) != 0;

	for (int comm = 0; cases > 0; comm++, cases -= PER_COMM) {
		uint64_t s = ref_mix(test_seed(), (uint64_t)comm);
		int n = comm < 3 ? comm + 1 : 1 + (int)draw(&s, quick ? 6 : MAX_N);

		n = (int)test_setting("TEST_RANKS", n);
		memset(&round, 0, sizeof(round));
		round.seed = test_seed();
		round.comm = comm;
		round.small = quick;
		round.device = device;
		round.ncases = cases < PER_COMM ? (int)cases : PER_COMM;
		ranks_run(n, quick ? 300 : 60, thread_rank, &round);
		check_hashes(&round, n);
	}
}

static void threads(void)
{
	if (test_transport() || one_device())
		return;
	run_threads(wanted_cases(), false);
}

static void devices(void)
{
	if (test_transport())
		return;
	fake_start();
	run_threads(one_device() ? wanted_cases() : wanted_cases() / 4, true);
}

static void sweep(void)
{
	static struct round round;

	if (test_transport() || one_device())
		return;
	for (int n = 1; n < 6; n++) {
		memset(&round, 0, sizeof(round));
		round.seed = test_seed();
		round.comm = -n;
		round.sweep = true;
		round.ncases = BORDERS * BARRIER;
		ranks_run(n, 90, thread_rank, &round);
		check_hashes(&round, n);
	}
}

/* ---- processes ---- */

static void process_rank(struct rank *r)
{
	struct round *round = (struct round *)r->procs->shared->user;
	const struct round *given_round = r->arg;

	round->seed = given_round->seed; /* all write the same */
	round->comm = given_round->comm;
	round->ncases = given_round->ncases;
	round->sweep = given_round->sweep;
	round->device = given_round->device;
	if (round->device)
		fake_start();
	RANK_OK(r, rank_init(r, NULL));
	run_cases(r, round);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void process_round(const char *transports, int n, struct round *round)
{
	static struct procs ps;

	procs_start(&ps, n, 0, transports, process_rank, round);
	procs_wait(&ps, 60);
	*round = *(struct round *)ps.shared->user;
	procs_expect(&ps, 1, -1);
	check_hashes(round, n);
}

/* RDMA devices are not everywhere, so verbs has to be asked for. */
static bool is_wanted(const char *transport)
{
	return !one_device() &&
	       (test_transport() ? !strcmp(test_transport(), transport) : strcmp(transport, "verbs") != 0);
}

static void processes(const char *transports, int first, bool device)
{
	bool few = test_setting("TEST_QUICK", 0) && (device || test_transport());
	long cases = test_setting("TEST_CASES", test_setting("TEST_LONG", 0) ? 2000 : few ? 48 : 160);

	if (!is_wanted(transports))
		return;

	for (int i = 0; i * PER_COMM < cases; i++) {
		struct round round = { .seed = test_seed(), .comm = first + i, .ncases = PER_COMM,
				       .device = device };
		uint64_t s = ref_mix(test_seed(), (uint64_t)round.comm);

		process_round(transports, (int)test_setting("TEST_RANKS", 2 + (int)draw(&s, 4)), &round);
	}
	if (test_setting("TEST_RANKS", 0))
		return;
	for (int n = 2; n < (few ? 3 : device ? 4 : 5); n++) {
		struct round round = { .seed = test_seed(), .comm = -n, .ncases = BORDERS * BARRIER,
				       .sweep = true, .device = device };

		process_round(transports, n, &round);
	}
}

static void processes_shm(void)
{
	processes("shm", 100000, false);
}

static void processes_tcp(void)
{
	processes("tcp", 200000, false);
}

static void processes_verbs(void)
{
	processes("verbs", 500000, false);
}

static void devices_shm(void)
{
	processes("shm", 300000, true);
}

static void devices_tcp(void)
{
	processes("tcp", 400000, true);
}

static void devices_verbs(void)
{
	processes("verbs", 600000, true);
}

const struct test tests[] = {
	{ "random collectives, processes over shm", processes_shm, 120 },
	{ "random collectives, processes over tcp", processes_tcp, 120 },
	{ "random collectives, processes over verbs", processes_verbs, 120 },
	{ "random collectives, fake device, processes over shm", devices_shm, 180 },
	{ "random collectives, fake device, processes over tcp", devices_tcp, 180 },
	{ "random collectives, fake device, processes over verbs", devices_verbs, 180 },
	{ "random collectives, fake device, threads", devices, 180 },
	{ "every collective at every border, threads", sweep, 120 },
	{ "random collectives, threads", threads, 180 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
