/* Several communicators at once, in orders that differ between ranks: on host streams, in one group, from
 * several threads; and what host streams promise. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "ranks.h"
#include "test.h"

enum { COMMS = 3, ROUNDS = 12, COUNT = 5000 };

static tuttiUniqueId ids[COMMS];

static void make_ids(void)
{
	for (int i = 0; i < COMMS; i++)
		CHECKF(tuttiGetUniqueId(&ids[i]) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
}

static void open_comms(struct rank *r, tuttiComm_t *comm)
{
	for (int i = 0; i < COMMS; i++)
		RANK_OK(r, tuttiCommInitRank(&comm[i], r->n, ids[i], r->rank));
}

/* In an order of its own on each rank: leaving is local. */
static void close_comms(struct rank *r, tuttiComm_t *comm)
{
	for (int i = 0; i < COMMS; i++)
		RANK_OK(r, tuttiCommDestroy(comm[(i + r->rank) % COMMS]));
}

static void fill(int32_t *p, size_t count, int32_t value)
{
	for (size_t i = 0; i < count; i++)
		p[i] = value + (int32_t)i;
}

static void check_sum(struct rank *r, const int32_t *p, size_t count, int32_t each, int n)
{
	for (size_t i = 0; i < count; i++)
		RANK_CHECKF(r, p[i] == each + n * (int32_t)i, "element %zu is %d, want %d", i, p[i],
			    each + n * (int32_t)i);
}

static int sum_of(int n, int base) /* of base + rank */
{
	return n * base + n * (n - 1) / 2;
}

/* ---- rank-different orders ---- */

static void streams_rank(struct rank *r)
{
	static int32_t buf[8][COMMS][COUNT]; /* by rank */
	tuttiComm_t comm[COMMS];
	tuttiStream_t stream[COMMS];

	open_comms(r, comm);
	for (int i = 0; i < COMMS; i++)
		RANK_OK(r, tuttiHostStreamCreate(&stream[i]));
	for (int k = 0; k < ROUNDS; k++) {
		r->step = k;
		for (int i = 0; i < COMMS; i++) {
			int c = (i + r->rank + k) % COMMS;

			fill(buf[r->rank][c], COUNT, r->rank + 100 * c);
			RANK_OK(r, tuttiAllReduce(buf[r->rank][c], buf[r->rank][c], COUNT, tuttiInt32,
						  tuttiSum, comm[c], stream[c]));
		}
		for (int i = COMMS - 1; i >= 0; i--) {
			int c = (i + 2 * r->rank) % COMMS;

			RANK_OK(r, tuttiHostStreamSynchronize(stream[c]));
			check_sum(r, buf[r->rank][c], COUNT, sum_of(r->n, 100 * c), r->n);
		}
	}
	for (int i = 0; i < COMMS; i++)
		RANK_OK(r, tuttiHostStreamDestroy(stream[i]));
	close_comms(r, comm);
}

static void order_on_streams(void)
{
	make_ids();
	ranks_run_bare(3, 60, streams_rank, NULL);
}

static void one_group(struct rank *r, tuttiComm_t *comm, int32_t (*buf)[COUNT], int k)
{
	RANK_OK(r, tuttiGroupStart());
	for (int i = 0; i < COMMS; i++) {
		int c = (i + r->rank + k) % COMMS;

		fill(buf[c], COUNT, r->rank + 10 * c);
		RANK_OK(r, tuttiAllReduce(buf[c], buf[c], COUNT, tuttiInt32, tuttiSum, comm[c], NULL));
	}
	RANK_OK(r, tuttiGroupEnd());
	for (int c = 0; c < COMMS; c++)
		check_sum(r, buf[c], COUNT, sum_of(r->n, 10 * c), r->n);
}

static void group_rank(struct rank *r)
{
	static int32_t buf[8][COMMS][COUNT];
	tuttiComm_t comm[COMMS];

	open_comms(r, comm);
	for (int k = 0; k < ROUNDS; k++) {
		r->step = k;
		one_group(r, comm, buf[r->rank], k);
	}
	close_comms(r, comm);
}

static void order_in_group(void)
{
	make_ids();
	ranks_run_bare(4, 60, group_rank, NULL);
}

struct driver {
	struct rank *r;
	tuttiComm_t comm;
	int which;
	pthread_t thread;
};

static void *drive(void *p)
{
	struct driver *d = p;
	int32_t *buf = malloc(COUNT * sizeof(*buf));

	RANK_CHECKF(d->r, buf, "no memory");
	for (int k = 0; k < ROUNDS * 4; k++) {
		size_t count = k % 3 ? 1 + (size_t)k : COUNT;

		fill(buf, count, d->r->rank + d->which);
		RANK_OK(d->r, tuttiAllReduce(buf, buf, count, tuttiInt32, tuttiSum, d->comm, NULL));
		check_sum(d->r, buf, count, sum_of(d->r->n, d->which), d->r->n);
	}
	free(buf);
	return NULL;
}

static void threads_rank(struct rank *r)
{
	struct driver d[COMMS];
	tuttiComm_t comm[COMMS];

	open_comms(r, comm);
	for (int i = 0; i < COMMS; i++) {
		int c = (i + r->rank) % COMMS;

		d[i] = (struct driver){ .r = r, .comm = comm[c], .which = c };
		RANK_CHECKF(r, !pthread_create(&d[i].thread, NULL, drive, &d[i]), "no thread");
	}
	for (int i = 0; i < COMMS; i++)
		pthread_join(d[i].thread, NULL);
	close_comms(r, comm);
}

/* Blocking calls: 3 ranks with a thread for each of 3 communicators. */
static void order_from_threads(void)
{
	make_ids();
	ranks_run_bare(3, 60, threads_rank, NULL);
}

/* ---- what a stream promises ---- */

/* The call returns although the other rank comes late; Query says so; Synchronize waits. */
static void late_rank(struct rank *r)
{
	static _Atomic bool asked;
	int32_t v = r->rank + 1;
	tuttiStream_t s;

	RANK_OK(r, tuttiHostStreamCreate(&s));
	RANK_OK(r, tuttiHostStreamQuery(s));
	RANK_OK(r, tuttiHostStreamSynchronize(s));
	while (r->rank == 1 && !atomic_load(&asked))
		sleep_s(0.01);
	RANK_OK(r, tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiSum, r->comm, s));
	if (r->rank == 0) {
		tuttiResult_t q = tuttiHostStreamQuery(s);

		RANK_CHECKF(r, q == tuttiInProgress, "Query is '%s' before the other rank called",
			    tuttiGetErrorString(q));
		atomic_store(&asked, true);
	}
	RANK_OK(r, tuttiHostStreamSynchronize(s));
	RANK_OK(r, tuttiHostStreamQuery(s));
	RANK_CHECKF(r, v == 3, "sum is %d", v);
	RANK_OK(r, tuttiHostStreamDestroy(s));
}

static void stream_in_background(void)
{
	ranks_run(2, 30, late_rank, NULL);
}

/* Each operation of a stream reads what the one before wrote. */
static void chain_rank(struct rank *r)
{
	uint64_t v[300];
	tuttiStream_t s;

	RANK_OK(r, tuttiHostStreamCreate(&s));
	for (size_t i = 0; i < 300; i++)
		v[i] = i;
	for (int k = 0; k < 10; k++)
		RANK_OK(r, tuttiAllReduce(v, v, 300, tuttiUint64, tuttiSum, r->comm, s));
	while (tuttiHostStreamQuery(s) == tuttiInProgress)
		sleep_s(0.0005);
	RANK_OK(r, tuttiHostStreamSynchronize(s));
	for (size_t i = 0; i < 300; i++)
		RANK_CHECKF(r, v[i] == i * 59049, "element %zu is %llu", i, (unsigned long long)v[i]);
	RANK_OK(r, tuttiBroadcast(v, v, 300, tuttiUint64, 1, r->comm, s));
	RANK_OK(r, tuttiHostStreamDestroy(s)); /* synchronizes */
	RANK_OK(r, tuttiHostStreamDestroy(NULL));
}

static void stream_keeps_order(void)
{
	ranks_run(3, 30, chain_rank, NULL);
}

/* Blocking calls and calls on streams of one communicator keep the order of the calls. */
static void mixed_rank(struct rank *r)
{
	int32_t a[64], b[64];
	tuttiStream_t s;

	RANK_OK(r, tuttiHostStreamCreate(&s));
	for (int k = 0; k < 20; k++) {
		r->step = k;
		fill(a, 64, r->rank);
		fill(b, 64, r->rank + 7);
		RANK_OK(r, tuttiAllReduce(a, a, 64, tuttiInt32, tuttiSum, r->comm, s));
		RANK_OK(r, tuttiAllReduce(b, b, 64, tuttiInt32, tuttiSum, r->comm, NULL));
		RANK_OK(r, tuttiHostStreamSynchronize(s));
		check_sum(r, a, 64, sum_of(r->n, 0), r->n);
		check_sum(r, b, 64, sum_of(r->n, 7), r->n);
	}
	RANK_OK(r, tuttiHostStreamDestroy(s));
}

static void stream_and_blocking(void)
{
	ranks_run(3, 30, mixed_rank, NULL);
}

static void error_rank(struct rank *r)
{
	int32_t v[8] = { 0 };
	tuttiResult_t first, second;
	tuttiStream_t s;

	RANK_OK(r, tuttiHostStreamCreate(&s));
	RANK_OK(r, tuttiAllReduce(v, v, r->rank ? 7 : 8, tuttiInt32, tuttiSum, r->comm, s));
	first = tuttiHostStreamSynchronize(s);
	RANK_CHECKF(r, strlen(tuttiGetLastError(NULL)) > 12, "the error of the stream has no text");
	second = tuttiHostStreamSynchronize(s);
	RANK_CHECKF(r, first == tuttiMismatch || first == tuttiRemoteError, "Synchronize gives '%s'",
		    tuttiGetErrorString(first));
	RANK_CHECKF(r, second == tuttiSuccess, "the error of the stream is not cleared: '%s'",
		    tuttiGetErrorString(second));
	RANK_OK(r, tuttiHostStreamDestroy(s));
	tuttiCommAbort(r->comm);
	r->comm = NULL;
}

static void stream_gives_error(void)
{
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(2, 30, error_rank, NULL);
}

const struct test tests[] = {
	{ "orders that differ, on streams", order_on_streams, 70 },
	{ "orders that differ, in one group", order_in_group, 70 },
	{ "orders that differ, from several threads", order_from_threads, 70 },
	{ "a stream runs in the background", stream_in_background, 40 },
	{ "a stream keeps its order", stream_keeps_order, 40 },
	{ "streams beside blocking calls", stream_and_blocking, 40 },
	{ "Synchronize returns and clears the first error", stream_gives_error, 40 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
