/* Send and Recv: order, sizes, exchange in groups, the eager limit, the own rank.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "ranks.h"
#include "ref.h"
#include "test.h"

enum { EAGER = 1024, EAGER_MESSAGES = 4 };

static struct ref_case data(int from, int to, int number)
{
	return (struct ref_case){ .seed = ref_mix((uint64_t)(from * 100 + to), (uint64_t)number),
				  .type = tuttiUint8, .op = REF_COPY, .n = 1 };
}

static void put(unsigned char *p, size_t n, int from, int to, int number)
{
	struct ref_case c = data(from, to, number);

	ref_fill(&c, 0, 0, n, p);
}

static void check(struct rank *r, const unsigned char *p, size_t n, int from, int to, int number)
{
	struct ref_case c = data(from, to, number);
	char why[128];

	RANK_CHECKF(r, ref_check_copy(&c, 0, 0, n, p, why, sizeof(why)) == n,
		    "message %d of %zu bytes from %d to %d: %s", number, n, from, to, why);
}

static unsigned char *room(struct rank *r, size_t n)
{
	unsigned char *p = malloc(n ? n : 1);

	RANK_CHECKF(r, p, "no memory");
	memset(p, 0xa5, n);
	return p;
}

static size_t size_of_message(int number)
{
	static const size_t sizes[] = { 1, 0, 7, 64, 1023, 1024, 1025, 4096, 100000, 131072, 300001 };

	return sizes[number % 11];
}

/* The n-th Send meets the n-th Recv, whatever the sizes; both directions at once in the second half. */
static void order_rank(struct rank *r)
{
	unsigned char *p = room(r, 300001), *q = room(r, 300001);
	int other = 1 - r->rank;

	for (int i = 0; i < 44; i++) {
		size_t n = size_of_message(i);

		r->step = i;
		if (i >= 22)
			RANK_OK(r, tuttiGroupStart());
		put(p, n, r->rank, other, i);
		if (r->rank == 0 || i >= 22)
			RANK_OK(r, tuttiSend(p, n, tuttiUint8, other, r->comm, NULL));
		if (r->rank == 1 || i >= 22)
			RANK_OK(r, tuttiRecv(q, n, tuttiUint8, other, r->comm, NULL));
		if (i >= 22)
			RANK_OK(r, tuttiGroupEnd());
		if (r->rank == 1 || i >= 22)
			check(r, q, n, other, r->rank, i);
	}
	free(p);
	free(q);
}

static void matching_order(void)
{
	ranks_run(2, 40, order_rank, NULL);
}

/* Everybody with everybody and with itself in one group, several messages a pair, in orders of their own. */
static void pairs_round(struct rank *r, int round)
{
	unsigned char *out[8][3], *in[8][3];
	int n = r->n;

	for (int k = 0; k < n * 3; k++) {
		size_t bytes = size_of_message(round + k % 3);

		out[k / 3][k % 3] = room(r, bytes);
		in[k / 3][k % 3] = room(r, bytes);
		put(out[k / 3][k % 3], bytes, r->rank, k / 3, k % 3 + round);
	}
	RANK_OK(r, tuttiGroupStart());
	for (int m = 0; m < 3; m++)
		for (int k = 0; k < n; k++) {
			int to = (k * (r->rank % 2 ? 1 : n - 1) + r->rank) % n, from = (k + 2 * r->rank) % n;
			size_t bytes = size_of_message(round + m);

			RANK_OK(r, tuttiSend(out[to][m], bytes, tuttiUint8, to, r->comm, NULL));
			RANK_OK(r, tuttiRecv(in[from][m], bytes, tuttiUint8, from, r->comm, NULL));
		}
	RANK_OK(r, tuttiGroupEnd());
	for (int k = 0; k < n * 3; k++) {
		check(r, in[k / 3][k % 3], size_of_message(round + k % 3), k / 3, r->rank, k % 3 + round);
		free(out[k / 3][k % 3]);
		free(in[k / 3][k % 3]);
	}
}

static void pairs_rank(struct rank *r)
{
	for (int round = 0; round < 12; round++) {
		r->step = round;
		pairs_round(r, round);
	}
}

static void all_pairs(void)
{
	ranks_run(5, 50, pairs_rank, NULL);
}

/* Sends within the eager limit return before any Recv; both sides send first. */
static void eager_rank(struct rank *r)
{
	unsigned char p[EAGER_MESSAGES][EAGER], q[EAGER];
	int other = 1 - r->rank;

	for (int round = 0; round < 10; round++) {
		r->step = round;
		for (int i = 0; i < EAGER_MESSAGES; i++) {
			put(p[i], EAGER, r->rank, other, i);
			RANK_OK(r, tuttiSend(p[i], EAGER, tuttiUint8, other, r->comm, NULL));
			memset(p[i], 0, EAGER); /* it is ours again */
		}
		for (int i = 0; i < EAGER_MESSAGES; i++) {
			RANK_OK(r, tuttiRecv(q, EAGER, tuttiUint8, other, r->comm, NULL));
			check(r, q, EAGER, other, r->rank, i);
		}
	}
}

static void eager(void)
{
	ranks_run(2, 30, eager_rank, NULL);
}

static void eager_process(struct rank *r)
{
	RANK_OK(r, rank_init(r, NULL));
	eager_rank(r);
	order_rank(r);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void eager_processes(void)
{
	static struct procs ps;
	static const char *const transports[] = { "shm", "tcp" };
	const char *only = test_transport();

	for (int i = 0; i < (only ? 1 : 2); i++) {
		procs_start(&ps, 2, 0, only ? only : transports[i], eager_process, NULL);
		procs_expect(&ps, 30, -1);
	}
}

static void self_rank(struct rank *r)
{
	int64_t a[100], b[100];

	for (int i = 0; i < 100; i++) {
		a[i] = i * 3 + r->rank;
		b[i] = -1;
	}
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiRecv(b, 100, tuttiInt64, r->rank, r->comm, NULL));
	RANK_OK(r, tuttiSend(a, 100, tuttiInt64, r->rank, r->comm, NULL));
	RANK_OK(r, tuttiGroupEnd());
	RANK_CHECKF(r, !memcmp(a, b, sizeof(a)), "what was sent to oneself did not arrive");
}

static void self(void)
{
	ranks_run(1, 20, self_rank, NULL);
	ranks_run(3, 20, self_rank, NULL);
}

/* Point to point between collectives, on streams as well: a ring that shifts, then a sum. */
static void mixed_rank(struct rank *r)
{
	int32_t token = r->rank, next, sum;
	tuttiStream_t s;

	RANK_OK(r, tuttiHostStreamCreate(&s));
	for (int k = 0; k < 20; k++) {
		tuttiStream_t stream = k % 2 ? s : NULL;

		r->step = k;
		RANK_OK(r, tuttiGroupStart());
		RANK_OK(r, tuttiSend(&token, 1, tuttiInt32, (r->rank + 1) % r->n, r->comm, stream));
		RANK_OK(r, tuttiRecv(&next, 1, tuttiInt32, (r->rank + r->n - 1) % r->n, r->comm, stream));
		RANK_OK(r, tuttiGroupEnd());
		RANK_OK(r, tuttiHostStreamSynchronize(s));
		token = next;
		RANK_CHECKF(r, token == (r->rank + 100 * r->n - k - 1) % r->n, "token is %d", token);
		RANK_OK(r, tuttiAllReduce(&token, &sum, 1, tuttiInt32, tuttiSum, r->comm, stream));
		RANK_OK(r, tuttiHostStreamSynchronize(s));
		RANK_CHECKF(r, sum == r->n * (r->n - 1) / 2, "sum is %d", sum);
	}
	RANK_OK(r, tuttiHostStreamDestroy(s));
}

static void mixed(void)
{
	ranks_run(4, 30, mixed_rank, NULL);
}

/* Both ends of a pair whose counts differ get Mismatch. */
static void unequal_rank(struct rank *r)
{
	unsigned char p[2000] = { 0 };
	tuttiResult_t res, state = tuttiSuccess;

	if (r->rank == 0)
		res = tuttiSend(p, 2000, tuttiUint8, 1, r->comm, NULL);
	else
		res = tuttiRecv(p, 1999, tuttiUint8, 0, r->comm, NULL);
	for (double end = seconds_now() + 5; res == tuttiSuccess && seconds_now() < end; sleep_s(0.01)) {
		tuttiCommGetAsyncError(r->comm, &state);
		res = state;
	}
	RANK_CHECKF(r, res == tuttiMismatch || res == tuttiRemoteError, "gives '%s': %s",
		    tuttiGetErrorString(res), tuttiGetLastError(r->comm));
	tuttiCommAbort(r->comm);
	r->comm = NULL;
}

static void unequal(void)
{
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(2, 30, unequal_rank, NULL);
}

const struct test tests[] = {
	{ "eager sends, processes", eager_processes, 70 },
	{ "the n-th send meets the n-th receive", matching_order, 50 },
	{ "all pairs in one group", all_pairs, 60 },
	{ "eager sends", eager, 40 },
	{ "sending to oneself in a group", self, 40 },
	{ "between collectives, on streams", mixed, 40 },
	{ "unequal counts", unequal, 40 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
