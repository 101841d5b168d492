/* What goes wrong, and how it is told: arguments, mismatched calls, abort, group errors, edges that are none.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ranks.h"
#include "test.h"

/* ---- arguments ---- */

/* The call must be refused with a text for people; either code where the manual leaves it open. */
static void refused(int line, tuttiResult_t got, const char *call)
{
	const char *text = tuttiGetLastError(NULL);

	CHECKF(got == tuttiInvalidArgument || got == tuttiInvalidUsage || got == tuttiUnsupported,
	       "line %d: %s gives '%s'", line, call, tuttiGetErrorString(got));
	CHECKF(text && strlen(text) >= 12, "line %d: %s: the text is '%s'", line, call, text ? text : "NULL");
}
#define REFUSED(call) refused(__LINE__, call, #call)

static void sum_works(struct rank *r)
{
	float v[50];

	for (int i = 0; i < 50; i++)
		v[i] = (float)(i + r->rank);
	RANK_OK(r, tuttiAllReduce(v, v, 50, tuttiFloat32, tuttiSum, r->comm, NULL));
	for (int i = 0; i < 50; i++)
		RANK_CHECKF(r, v[i] == (float)(r->n * i + r->n * (r->n - 1) / 2), "element %d is %g", i,
			    (double)v[i]);
}

enum { BUF = 4096 };
static unsigned char a[BUF], b[BUF];

static void bad_buffers(tuttiComm_t c)
{
	REFUSED(tuttiAllReduce(NULL, b, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiAllReduce(a, NULL, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiAllGather(NULL, b, 4, tuttiInt32, c, NULL));
	REFUSED(tuttiAllGather(a, NULL, 4, tuttiInt32, c, NULL));
	REFUSED(tuttiReduceScatter(NULL, b, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiReduceScatter(a, NULL, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiBroadcast(NULL, b, 4, tuttiInt32, 0, c, NULL));
	REFUSED(tuttiBroadcast(a, NULL, 4, tuttiInt32, 1, c, NULL));
	REFUSED(tuttiReduce(NULL, b, 4, tuttiInt32, tuttiSum, 0, c, NULL));
	REFUSED(tuttiReduce(a, NULL, 4, tuttiInt32, tuttiSum, 0, c, NULL));
	REFUSED(tuttiSend(NULL, 4, tuttiInt32, 1, c, NULL));
	REFUSED(tuttiRecv(NULL, 4, tuttiInt32, 1, c, NULL));
}

static void overlapping(tuttiComm_t c)
{
	REFUSED(tuttiAllReduce(a, a + 4, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiAllReduce(a + 12, a, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiAllReduce(a + 15, a, 4, tuttiInt32, tuttiSum, c, NULL)); /* one byte */
	REFUSED(tuttiAllGather(a + 16, a, 4, tuttiInt32, c, NULL)); /* the place of rank 1 */
	REFUSED(tuttiAllGather(a + 4, a, 4, tuttiInt32, c, NULL));
	REFUSED(tuttiReduceScatter(a, a + 16, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiReduceScatter(a, a + 4, 4, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiBroadcast(a, a + 1, 4, tuttiInt32, 0, c, NULL));
	REFUSED(tuttiReduce(a, a + 8, 4, tuttiInt32, tuttiSum, 0, c, NULL));
}

static void bad_enums(tuttiComm_t c)
{
	static const int wrong_types[] = { -1, tuttiNumTypes, 99, 1 << 30 };
	static const int wrong_ops[] = { -1, tuttiNumOps + 1000, 0x7ffffff0, tuttiMaxRedOp };

	for (int i = 0; i < 4; i++) {
		tuttiDataType_t t = (tuttiDataType_t)wrong_types[i];
		tuttiRedOp_t op = (tuttiRedOp_t)wrong_ops[i];

		REFUSED(tuttiAllReduce(a, b, 4, t, tuttiSum, c, NULL));
		REFUSED(tuttiAllGather(a, b, 4, t, c, NULL));
		REFUSED(tuttiReduceScatter(a, b, 4, t, tuttiSum, c, NULL));
		REFUSED(tuttiBroadcast(a, b, 4, t, 0, c, NULL));
		REFUSED(tuttiReduce(a, b, 4, t, tuttiSum, 0, c, NULL));
		REFUSED(tuttiSend(a, 4, t, 1, c, NULL));
		REFUSED(tuttiRecv(a, 4, t, 1, c, NULL));
		REFUSED(tuttiAllReduce(a, b, 4, tuttiInt32, op, c, NULL));
		REFUSED(tuttiReduceScatter(a, b, 4, tuttiInt32, op, c, NULL));
		REFUSED(tuttiReduce(a, b, 4, tuttiInt32, op, 0, c, NULL));
	}
}

static void bad_numbers(tuttiComm_t c)
{
	static const int wrong_ranks[] = { -1, 2, 1000, -2147483647 };

	for (int i = 0; i < 4; i++) {
		REFUSED(tuttiBroadcast(a, b, 4, tuttiInt32, wrong_ranks[i], c, NULL));
		REFUSED(tuttiReduce(a, b, 4, tuttiInt32, tuttiSum, wrong_ranks[i], c, NULL));
		REFUSED(tuttiSend(a, 4, tuttiInt32, wrong_ranks[i], c, NULL));
		REFUSED(tuttiRecv(a, 4, tuttiInt32, wrong_ranks[i], c, NULL));
	}
	REFUSED(tuttiSend(a, 4, tuttiInt32, 0, c, NULL)); /* oneself, outside a group */
	REFUSED(tuttiRecv(a, 4, tuttiInt32, 0, c, NULL));
	REFUSED(tuttiAllReduce(a, b, SIZE_MAX / 2, tuttiInt32, tuttiSum, c, NULL));
	REFUSED(tuttiAllReduce(a, b, SIZE_MAX, tuttiInt64, tuttiSum, c, NULL));
	REFUSED(tuttiAllGather(a, b, SIZE_MAX / 6, tuttiInt32, c, NULL));
	REFUSED(tuttiAllGather(a, b, SIZE_MAX / 2 + 1, tuttiInt8, c, NULL)); /* only times 2 ranks */
	REFUSED(tuttiReduceScatter(a, b, SIZE_MAX / 2 + 1, tuttiInt8, tuttiSum, c, NULL));
	REFUSED(tuttiBroadcast(a, b, SIZE_MAX / 4, tuttiFloat64, 0, c, NULL));
	REFUSED(tuttiSend(a, SIZE_MAX / 4, tuttiFloat64, 1, c, NULL));
}

static void bad_handles(tuttiComm_t c)
{
	static _Alignas(64) unsigned char zeros[65536];
	tuttiComm_t nobody = NULL, junk = (tuttiComm_t)(void *)zeros;
	tuttiStream_t no_stream = (tuttiStream_t)(void *)zeros;
	tuttiResult_t res;
	int x;

	for (int i = 0; i < 2; i++, nobody = junk) {
		REFUSED(tuttiAllReduce(a, b, 4, tuttiInt32, tuttiSum, nobody, NULL));
		REFUSED(tuttiBarrier(nobody, NULL));
		REFUSED(tuttiSend(a, 4, tuttiInt32, 1, nobody, NULL));
		REFUSED(tuttiCommCount(nobody, &x));
		REFUSED(tuttiCommUserRank(nobody, &x));
		REFUSED(tuttiCommGetAsyncError(nobody, &res));
		REFUSED(tuttiCommFinalize(nobody));
		REFUSED(tuttiCommSplit(nobody, 0, 0, &junk, NULL));
	}
	REFUSED(tuttiAllReduce(a, b, 4, tuttiInt32, tuttiSum, c, no_stream));
	REFUSED(tuttiHostStreamQuery(no_stream));
	REFUSED(tuttiHostStreamSynchronize(no_stream));
	REFUSED(tuttiHostStreamDestroy(no_stream));
	REFUSED(tuttiHostStreamCreate(NULL));
	REFUSED(tuttiCommCount(c, NULL));
	REFUSED(tuttiCommUserRank(c, NULL));
	REFUSED(tuttiCommGetAsyncError(c, NULL));
	REFUSED(tuttiCommSplit(c, 0, 0, NULL, NULL));
	REFUSED(tuttiCommSplit(c, -7, 0, &nobody, NULL));
}

static void no_op(const void *in, void *inout, size_t n, tuttiDataType_t type, void *context)
{
}

static void bad_operators(tuttiComm_t c)
{
	tuttiRedOp_t op;
	float two = 2.0f;

	REFUSED(tuttiRedOpCreateUser(&op, NULL, 1, NULL, c));
	REFUSED(tuttiRedOpCreateUser(NULL, no_op, 1, NULL, c));
	REFUSED(tuttiRedOpCreateUser(&op, no_op, 1, NULL, NULL));
	REFUSED(tuttiRedOpCreatePreMulSum(&op, NULL, tuttiFloat32, tuttiScalarHostImmediate, c));
	REFUSED(tuttiRedOpCreatePreMulSum(NULL, &two, tuttiFloat32, tuttiScalarHostImmediate, c));
	REFUSED(tuttiRedOpCreatePreMulSum(&op, &two, (tuttiDataType_t)77, tuttiScalarHostImmediate, c));
	REFUSED(tuttiRedOpCreatePreMulSum(&op, &two, tuttiFloat32, (tuttiScalarResidence_t)7, c));
	REFUSED(tuttiRedOpDestroy(tuttiSum, c));
	REFUSED(tuttiRedOpDestroy((tuttiRedOp_t)12345, c));
	CHECK(tuttiRedOpCreatePreMulSum(&op, &two, tuttiFloat32, tuttiScalarHostImmediate, c) == 0);
	CHECK(op >= tuttiNumOps);
	REFUSED(tuttiAllReduce(a, b, 4, tuttiInt32, op, c, NULL)); /* made for another type */
	CHECK(tuttiRedOpDestroy(op, c) == tuttiSuccess);
	REFUSED(tuttiAllReduce(a, b, 4, tuttiFloat32, op, c, NULL));
	REFUSED(tuttiRedOpDestroy(op, c));
}

static bool all_are(const unsigned char *p, unsigned char value)
{
	for (int i = 0; i < BUF; i++)
		if (p[i] != value)
			return false;
	return true;
}

/* Rank 0 makes every mistake; nothing reaches rank 1, nothing is written, and both go on. */
static void mistakes_rank(struct rank *r)
{
	tuttiResult_t state;

	sum_works(r);
	if (r->rank == 0) {
		memset(a, 0x11, BUF);
		memset(b, 0x22, BUF);
		bad_buffers(r->comm);
		overlapping(r->comm);
		bad_enums(r->comm);
		bad_numbers(r->comm);
		bad_handles(r->comm);
		bad_operators(r->comm);
		CHECKF(all_are(a, 0x11) && all_are(b, 0x22), "a refused call wrote to the buffers");
	}
	RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
	RANK_CHECKF(r, state == tuttiSuccess, "async error is '%s'", tuttiGetErrorString(state));
	sum_works(r);
}

static void arguments(void)
{
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(2, 40, mistakes_rank, NULL);
}

static void bad_config(tuttiUniqueId id)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	tuttiComm_t c = NULL;

	config.magic = 1;
	REFUSED(tuttiCommInitRankConfig(&c, 1, id, 0, &config));
	config = (tuttiConfig_t)TUTTI_CONFIG_INITIALIZER;
	config.size = 3;
	REFUSED(tuttiCommInitRankConfig(&c, 1, id, 0, &config));
	config = (tuttiConfig_t)TUTTI_CONFIG_INITIALIZER;
	config.blocking = 5;
	REFUSED(tuttiCommInitRankConfig(&c, 1, id, 0, &config));
	CHECK(!c);
}

static void arguments_of_init(void)
{
	const int device = 0;
	tuttiUniqueId id, zeros = { { 0 } };
	tuttiComm_t c = NULL, two[2] = { NULL, NULL };
	void *p;

	setenv("TUTTI_LOG", "none", 0);
	REFUSED(tuttiGetVersion(NULL));
	REFUSED(tuttiGetUniqueId(NULL));
	CHECK(tuttiGetUniqueId(&id) == tuttiSuccess);
	REFUSED(tuttiCommInitRank(NULL, 1, id, 0));
	REFUSED(tuttiCommInitRank(&c, 0, id, 0));
	REFUSED(tuttiCommInitRank(&c, -1, id, 0));
	REFUSED(tuttiCommInitRank(&c, 2, id, 2));
	REFUSED(tuttiCommInitRank(&c, 2, id, -1));
	REFUSED(tuttiCommInitRank(&c, 1, zeros, 0));
	REFUSED(tuttiCommInitAll(NULL, 2, NULL));
	REFUSED(tuttiCommInitAll(two, 0, NULL));
	REFUSED(tuttiCommInitAll(two, -3, NULL));
	REFUSED(tuttiCommInitAll(two, 1, &device));
	REFUSED(tuttiMemAlloc(NULL, 10));
	REFUSED(tuttiMemAllocHost(NULL, 10));
	REFUSED(tuttiMemFree(&id));
	REFUSED(tuttiGroupEnd());
	CHECK(!c && !two[0]);
	bad_config(id);
	CHECK(tuttiMemFree(NULL) == tuttiSuccess && tuttiCommDestroy(NULL) == tuttiSuccess);
	CHECK(tuttiMemAlloc(&p, 0) == tuttiSuccess && p && tuttiMemFree(p) == tuttiSuccess);
}

static void no_launcher(void)
{
	static const char *const names[] = { "TUTTI_RANK", "TUTTI_SIZE", "TUTTI_ROOT", "TUTTI_JOB", "RANK",
					     "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PMI_RANK",
					     "OMPI_COMM_WORLD_RANK", "SLURM_PROCID" };
	tuttiComm_t c = NULL;
	tuttiResult_t res;

	setenv("TUTTI_LOG", "none", 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
	res = tuttiCommInitFromEnv(&c, NULL);
	CHECKF(res == tuttiInvalidUsage && !c, "InitFromEnv without a launcher gives '%s'",
	       tuttiGetErrorString(res));
	CHECKF(strstr(tuttiGetLastError(NULL), "TUTTI_RANK") && strstr(tuttiGetLastError(NULL), "WORLD_SIZE"),
	       "the text does not list what was looked for: %s", tuttiGetLastError(NULL));
}

/* ---- mismatched calls ---- */

enum difference { COLLECTIVE, COUNT, TYPE, OPERATOR, ROOT, BARRIER_FOR_SUM, DIFFERENCES };
static const char *const difference_names[] = { "collective", "count", "type", "operator", "root",
						"barrier" };
struct mismatch {
	enum difference what;
	size_t count;
	int odd; /* the rank that differs */
	bool first; /* it is the first call: some ranks may still be in init */
	_Atomic int said;
};

static tuttiResult_t differing_call(struct rank *r, const struct mismatch *m, unsigned char *p)
{
	bool odd = r->rank == m->odd;

	switch (m->what) {
	case COLLECTIVE:
		if (odd)
			return tuttiBroadcast(p, p, m->count, tuttiFloat32, 0, r->comm, NULL);
		break;
	case ROOT:
		return tuttiReduce(p, p, m->count, tuttiFloat32, tuttiSum, odd, r->comm, NULL);
	case BARRIER_FOR_SUM:
		if (odd)
			return tuttiBarrier(r->comm, NULL);
		break;
	default:
		break;
	}
	return tuttiAllReduce(p, p, m->count + (m->what == COUNT && odd),
			      m->what == TYPE && odd ? tuttiInt32 : tuttiFloat32,
			      m->what == OPERATOR && odd ? tuttiMax : tuttiSum, r->comm, NULL);
}

/* What the text of a Mismatch must name: both sides' part that differs. */
static bool tells_both(const struct mismatch *m, const char *text)
{
	char x[32], y[32];

	snprintf(x, sizeof(x), "%zu", m->count);
	snprintf(y, sizeof(y), "%zu", m->count + 1);
	switch (m->what) {
	case COLLECTIVE:
		return strstr(text, "AllReduce") && strstr(text, "Broadcast");
	case COUNT:
		return strstr(text, x) && strstr(text, y);
	case TYPE:
		return strstr(text, "float") && strstr(text, "int32");
	case OPERATOR:
		return strstr(text, "sum") && strstr(text, "max");
	case ROOT:
		return strstr(text, "root") != NULL;
	default:
		return strstr(text, "AllReduce") && strstr(text, "Barrier");
	}
}

/* A rank whose part was complete before the difference could be seen learns it asynchronously or from its
 * next call. */
static tuttiResult_t wait_for_error(struct rank *r, tuttiResult_t res)
{
	r->step += 1;
	for (double end = seconds_now() + 0.4; res == tuttiSuccess && seconds_now() < end; sleep_s(0.005))
		RANK_OK(r, tuttiCommGetAsyncError(r->comm, &res));
	r->step += 1;
	return res == tuttiSuccess ? tuttiBarrier(r->comm, NULL) : res;
}

static void mismatch_rank(struct rank *r)
{
	struct mismatch *m = r->arg;
	const char *what = difference_names[m->what];
	unsigned char *p = calloc(m->count + 1, 4);
	tuttiResult_t res, again, state;
	char text[2048];

	RANK_CHECKF(r, p, "no memory");
	res = m->first ? tuttiSuccess : tuttiBarrier(r->comm, NULL); /* others may be out, and fail, already */
	r->step = m->what * 100 + (m->count == 100) * 10 + (m->count > 100) * 20;
	res = wait_for_error(r, res == tuttiSuccess ? differing_call(r, m, p) : res);
	snprintf(text, sizeof(text), "%s", tuttiGetLastError(r->comm));
	RANK_CHECKF(r, res == tuttiMismatch || res == tuttiRemoteError, "%s differs on %d, count %zu: '%s': %s",
		    what, m->odd, m->count, tuttiGetErrorString(res), text);
	RANK_CHECKF(r, res != tuttiMismatch || tells_both(m, text),
		    "%s differs, count %zu: the text lacks a signature: %s", what, m->count, text);
	m->said += res == tuttiMismatch;
	again = tuttiBarrier(r->comm, NULL); /* sticky */
	RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
	RANK_CHECKF(r, again == res && state == res, "%s: '%s', then '%s', async '%s'", what,
		    tuttiGetErrorString(res), tuttiGetErrorString(again), tuttiGetErrorString(state));
	tuttiCommAbort(r->comm);
	r->comm = NULL;
	free(p);
}

static void mismatch(int n, enum difference what, bool first)
{
	static const size_t counts[] = { 1, 100, 300000 };

	setenv("TUTTI_LOG", "none", 0);
	for (int k = 0; k < 3; k++) {
		struct mismatch m = { what, counts[k], ((int)what + k) % n, first, 0 };

		ranks_run(n, 12, mismatch_rank, &m);
		CHECKF(m.said, "%s, count %zu: no rank said Mismatch", difference_names[what], counts[k]);
	}
}

static void mismatched(enum difference what)
{
	mismatch(2, what, false);
	mismatch(5, what, false);
}

static void mismatch_collective(void)
{
	mismatched(COLLECTIVE);
}

static void mismatch_count(void)
{
	mismatched(COUNT);
}

static void mismatch_type(void)
{
	mismatched(TYPE);
}

static void mismatch_operator(void)
{
	mismatched(OPERATOR);
}

static void mismatch_root(void)
{
	mismatched(ROOT);
}

static void mismatch_barrier(void)
{
	mismatched(BARRIER_FOR_SUM);
}

static void mismatch_first(void)
{
	for (int i = 0; i < 3; i++)
		mismatch(5, COUNT, true);
}

/* ---- abort ---- */

static void *abort_later(void *comm)
{
	sleep_s(0.2);
	tuttiCommAbort(comm);
	return NULL;
}

/* Rank 0 waits in a call that rank 1 never makes; another thread aborts. */
static void stuck_rank(struct rank *r)
{
	size_t count = *(const size_t *)r->arg;
	unsigned char *p = calloc(count, 4);
	pthread_t thread;
	tuttiResult_t res;

	RANK_CHECKF(r, p, "no memory");
	if (r->rank == 0) {
		RANK_CHECKF(r, !pthread_create(&thread, NULL, abort_later, r->comm), "no thread");
		res = tuttiAllReduce(p, p, count, tuttiFloat32, tuttiSum, r->comm, NULL);
		pthread_join(thread, NULL);
		RANK_CHECKF(r, res == tuttiAborted, "the call gives '%s': %s", tuttiGetErrorString(res),
			    tuttiGetLastError(NULL));
		r->comm = NULL;
	} else {
		sleep_s(0.5);
		res = tuttiBarrier(r->comm, NULL); /* that rank has gone */
		RANK_CHECKF(r, res != tuttiSuccess, "a call with an aborted rank succeeds");
		RANK_CHECKF(r, strstr(tuttiGetLastError(NULL), "0"), "the text does not name rank 0: %s",
			    tuttiGetLastError(NULL));
		tuttiCommDestroy(r->comm);
		r->comm = NULL;
	}
	free(p);
}

static void abort_stuck(void)
{
	size_t small = 2, large = 500000;

	setenv("TUTTI_LOG", "none", 0);
	ranks_run(2, 20, stuck_rank, &small);
	ranks_run(2, 20, stuck_rank, &large);
	ranks_run(3, 20, stuck_rank, &large);
}

/* ---- groups ---- */

static void group_rank(struct rank *r)
{
	float v[16] = { 1, 2, 3 }, out[16] = { 0 };
	tuttiResult_t inner, end;

	if (r->rank == 0) {
		RANK_OK(r, tuttiGroupStart());
		RANK_OK(r, tuttiAllReduce(v, out, 16, tuttiFloat32, tuttiSum, r->comm, NULL));
		inner = tuttiAllReduce(v, out, 16, (tuttiDataType_t)99, tuttiSum, r->comm, NULL);
		end = tuttiGroupEnd();
		RANK_CHECKF(r, inner == tuttiInvalidArgument && end == tuttiInvalidArgument,
			    "the call gives '%s', GroupEnd '%s'", tuttiGetErrorString(inner),
			    tuttiGetErrorString(end));
		RANK_CHECKF(r, strlen(tuttiGetLastError(NULL)) > 12, "no text");
		for (int i = 0; i < 16; i++)
			RANK_CHECKF(r, out[i] == 0, "something was submitted");
	}
	sum_works(r); /* the others never saw the failed group */
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiGroupEnd()); /* empty */
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiAllReduce(v, out, 16, tuttiFloat32, tuttiMax, r->comm, NULL));
	RANK_OK(r, tuttiGroupEnd());
	RANK_CHECKF(r, out[2] == 0, "an inner GroupEnd ran the group");
	RANK_OK(r, tuttiGroupEnd());
	RANK_CHECKF(r, out[2] == 3, "the outer GroupEnd did not run the group");
	RANK_CHECKF(r, tuttiGroupEnd() == tuttiInvalidUsage, "GroupEnd without GroupStart");
}

static void group_errors(void)
{
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(2, 20, group_rank, NULL);
}

/* ---- no errors ---- */

static void zero_rank(struct rank *r)
{
	tuttiComm_t c = r->comm;

	for (int i = 0; i < 3; i++) {
		RANK_OK(r, tuttiAllReduce(NULL, NULL, 0, tuttiInt32, tuttiSum, c, NULL));
		RANK_OK(r, tuttiAllGather(NULL, NULL, 0, tuttiInt32, c, NULL));
		RANK_OK(r, tuttiReduceScatter(NULL, NULL, 0, tuttiInt32, tuttiSum, c, NULL));
		RANK_OK(r, tuttiBroadcast(NULL, NULL, 0, tuttiInt32, 0, c, NULL));
		RANK_OK(r, tuttiReduce(NULL, NULL, 0, tuttiInt32, tuttiSum, 0, c, NULL));
		RANK_OK(r, tuttiBarrier(c, NULL));
		RANK_OK(r, tuttiGroupStart());
		RANK_OK(r, tuttiSend(NULL, 0, tuttiInt32, (r->rank + 1) % r->n, c, NULL));
		RANK_OK(r, tuttiRecv(NULL, 0, tuttiInt32, (r->rank + r->n - 1) % r->n, c, NULL));
		RANK_OK(r, tuttiGroupEnd());
		sum_works(r);
	}
}

static void nothing_to_do(void)
{
	ranks_run(1, 20, zero_rank, NULL);
	ranks_run(2, 20, zero_rank, NULL);
	ranks_run(3, 20, zero_rank, NULL);
}

/* A finished communicator is only good for Destroy. */
static void finalized_rank(struct rank *r)
{
	tuttiResult_t res;

	sum_works(r);
	RANK_OK(r, tuttiCommFinalize(r->comm));
	res = tuttiBarrier(r->comm, NULL);
	RANK_CHECKF(r, res == tuttiInvalidUsage, "a call after Finalize gives '%s'", tuttiGetErrorString(res));
}

static void finalized(void)
{
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(3, 20, finalized_rank, NULL);
}

static void strings(void)
{
	int version = 0;

	CHECK(tuttiGetVersion(&version) == tuttiSuccess && version == TUTTI_VERSION_CODE);
	for (int i = -5; i < 100; i++)
		CHECK(tuttiGetErrorString((tuttiResult_t)i));
	CHECK(strcmp(tuttiGetErrorString(tuttiPeerDead), tuttiGetErrorString(tuttiTimeout)));
	CHECK(tuttiGetLastError(NULL));
}

/* ---- lives that cross ---- */

static _Atomic bool aborted;

static void *abort_it(void *arg)
{
	tuttiComm_t *comm = arg;

	sleep_s(0.1);
	tuttiCommAbort(*comm);
	*comm = NULL;
	atomic_store(&aborted, true);
	return NULL;
}

/* A group on two communicators: one is aborted, and freed, while the other's part goes on, which rank 1 begins after
 * that alone. */
static void abort_one_rank(struct rank *r)
{
	static tuttiUniqueId id;
	tuttiComm_t doomed = NULL;
	pthread_t thread;
	int32_t lost = 1, sum = 1;
	tuttiResult_t res;

	if (r->rank == 0)
		RANK_OK(r, tuttiGetUniqueId(&id));
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	RANK_OK(r, tuttiCommInitRank(&doomed, r->n, id, r->rank));
	if (r->rank) {
		while (!atomic_load(&aborted))
			sleep_s(0.01);
		RANK_OK(r, tuttiAllReduce(&sum, &sum, 1, tuttiInt32, tuttiSum, r->comm, NULL));
		tuttiCommAbort(doomed);
		return;
	}
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiAllReduce(&lost, &lost, 1, tuttiInt32, tuttiSum, doomed, NULL));
	RANK_OK(r, tuttiAllReduce(&sum, &sum, 1, tuttiInt32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, !pthread_create(&thread, NULL, abort_it, &doomed), "no thread");
	res = tuttiGroupEnd();
	RANK_CHECKF(r, res == tuttiAborted && strstr(tuttiGetLastError(NULL), "abort"), "the group gives '%s': %s",
		    tuttiGetErrorString(res), tuttiGetLastError(NULL));
	pthread_join(thread, NULL);
	RANK_CHECKF(r, sum == r->n, "the other communicator's sum is %d", sum);
}

static void abort_one(void)
{
	setenv("TUTTI_LOG", "none", 0);
	for (int i = 0; i < 3; i++) {
		atomic_store(&aborted, false);
		ranks_run(2, 20, abort_one_rank, NULL);
	}
}

/* One message of a group differs; the links of the others are closed under them. */
static void cut_rank(struct rank *r)
{
	enum { LARGE = 300000 };
	static char out[LARGE], in[3][LARGE];
	tuttiResult_t res = tuttiSuccess;

	if (r->rank == 0) {
		RANK_OK(r, tuttiGroupStart());
		RANK_OK(r, tuttiRecv(in[0], 10, tuttiInt8, 1, r->comm, NULL));
		RANK_OK(r, tuttiSend(out, LARGE, tuttiInt8, 2, r->comm, NULL));
		RANK_OK(r, tuttiRecv(in[2], LARGE, tuttiInt8, 2, r->comm, NULL));
		RANK_OK(r, tuttiSend(out, LARGE, tuttiInt8, 1, r->comm, NULL));
		res = tuttiGroupEnd();
	} else if (r->rank == 1) {
		sleep_s(0.05);
		tuttiSend(out, 20, tuttiInt8, 0, r->comm, NULL);
		tuttiRecv(in[1], LARGE, tuttiInt8, 0, r->comm, NULL); /* may have come before the error */
		res = tuttiBarrier(r->comm, NULL);
	} else {
		sleep_s(0.3);
		res = tuttiBarrier(r->comm, NULL);
	}
	RANK_CHECKF(r, res == tuttiMismatch || res == tuttiRemoteError, "'%s': %s", tuttiGetErrorString(res),
		    tuttiGetLastError(NULL));
	tuttiCommAbort(r->comm);
	r->comm = NULL;
}

static void cut(void)
{
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(3, 30, cut_rank, NULL);
}

/* Abort meets a nonblocking init wherever it is. */
static void abort_init(void)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	tuttiUniqueId id;
	tuttiComm_t comm;

	setenv("TUTTI_LOG", "none", 0);
	config.blocking = 0;
	for (int i = 0; i < 20; i++) {
		tuttiResult_t r;

		CHECK(tuttiGetUniqueId(&id) == tuttiSuccess);
		r = tuttiCommInitRankConfig(&comm, i % 4 ? 1 : 2, id, 0, &config);
		CHECKF(r == tuttiInProgress || r == tuttiSuccess, "%s", tuttiGetLastError(NULL));
		sleep_s(0.0003 * i);
		CHECK(tuttiCommAbort(comm) == tuttiSuccess);
	}
}

/* The last stream goes on one thread while another makes one. */
static void churn(int i, void *arg)
{
	tuttiComm_t *comm = arg;

	for (int k = 0; k < 60; k++) {
		tuttiStream_t s = NULL;
		int32_t v = k;

		CHECK(tuttiHostStreamCreate(&s) == tuttiSuccess);
		CHECK(tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiSum, comm[i], s) == tuttiSuccess);
		CHECK(tuttiHostStreamDestroy(s) == tuttiSuccess);
		CHECK(v == k);
	}
}

static void streams_come_and_go(void)
{
	tuttiComm_t comm[3];

	for (int i = 0; i < 3; i++)
		CHECKF(tuttiCommInitAll(&comm[i], 1, NULL) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	test_threads(3, churn, comm);
	for (int i = 0; i < 3; i++)
		CHECK(tuttiCommDestroy(comm[i]) == tuttiSuccess);
}

/* What a rank sent is there for one that comes long after it left. */
static void leave_early_rank(struct rank *r)
{
	int32_t v = r->rank ? 0 : 77;

	if (r->rank)
		sleep_s(1.5);
	RANK_OK(r, tuttiBroadcast(&v, &v, 1, tuttiInt32, 0, r->comm, NULL));
	RANK_CHECKF(r, v == 77, "%d came", v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
	r->comm = NULL;
}

static void leave_early(void)
{
	ranks_run(2, 20, leave_early_rank, NULL);
	ranks_run(4, 20, leave_early_rank, NULL);
}

/* An error that begins a call is one line of the log, without a prefix where the communicator has no name. */
static void huge_rank(struct rank *r)
{
	float scale = 2, v = 1;
	tuttiRedOp_t twice;

	dup2(*(int *)r->arg, STDERR_FILENO);
	setenv("TUTTI_LOG", "error", 1);
	RANK_OK(r, tuttiCommInitAll(&r->comm, 1, NULL));
	RANK_OK(r, tuttiRedOpCreatePreMulSum(&twice, &scale, tuttiFloat32, tuttiScalarHostImmediate, r->comm));
	RANK_CHECKF(r, tuttiReduce(&v, &v, (size_t)1 << 46, tuttiFloat32, twice, 0, r->comm, NULL) != tuttiSuccess,
		    "there was memory for 2^46 elements");
	tuttiCommAbort(r->comm);
}

static void said_once(void)
{
	static struct procs ps;
	char text[2048] = "", *first;
	int fds[2];

	CHECK(!pipe(fds));
	procs_start(&ps, 1, -1, NULL, huge_rank, &fds[1]);
	procs_expect(&ps, 20, -1);
	CHECK(read(fds[0], text, sizeof(text) - 1) > 0);
	first = strstr(text, "no memory");
	CHECKF(first && !strstr(first + 1, "no memory") && !strstr(text, ": :"), "logged: %s", text);
	close(fds[0]);
	close(fds[1]);
}

const struct test tests[] = {
	{ "an error is logged once", said_once, 30 },
	{ "version and strings", strings, 0 },
	{ "arguments of every call", arguments, 50 },
	{ "arguments of init", arguments_of_init, 30 },
	{ "InitFromEnv without a launcher", no_launcher, 20 },
	{ "mismatched collectives", mismatch_collective, 80 },
	{ "mismatched counts", mismatch_count, 80 },
	{ "mismatched types", mismatch_type, 80 },
	{ "mismatched operators", mismatch_operator, 80 },
	{ "mismatched roots", mismatch_root, 80 },
	{ "a barrier against a sum", mismatch_barrier, 80 },
	{ "mismatch in the first call after init", mismatch_first, 100 },
	{ "Abort ends a stuck call", abort_stuck, 60 },
	{ "an error fails the whole group", group_errors, 30 },
	{ "count 0 and one rank", nothing_to_do, 60 },
	{ "after Finalize", finalized, 30 },
	{ "Abort of one communicator of a group", abort_one, 60 },
	{ "a failed message beside others", cut, 40 },
	{ "Abort of an init", abort_init, 60 },
	{ "streams come and go", streams_come_and_go, 40 },
	{ "a rank that left before another came", leave_early, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
