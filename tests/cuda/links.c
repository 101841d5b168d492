/* Device links by themselves, two ends in one process on two devices of the fake driver: the rules of transports that
 * apply to them (transports/transport.h), by their numbers. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"
#include "peer.h"
#include "ranks.h"
#include "ref.h"
#include "test.h"

enum { ENDS = 2, MESSAGES = 40 };

struct end {
	struct rank *r;
	const struct tt_mem_kind *kind;
	void *where;
	struct tt_peers *peers;
	tuttiStream_t queue[TT_PEER_LANES];
};

static struct tt_peer_member members[ENDS];
static pthread_barrier_t both;

static void open_end(struct end *e, struct rank *r)
{
	static uint64_t ids;
	uint8_t secret[32] = { 0 };
	struct tt_peers_config g = { .id = 7, .secret = secret, .n = ENDS, .me = r->rank, .members = members,
				     .message = 64 << 10, .deadline_ns = tt_now_ns() + 20000000000ull };

	snprintf((char *)secret, sizeof(secret), "of process %d", getpid());
	tt_mem_look();
	e->r = r;
	e->kind = g.kind = tt_mem_current();
	RANK_CHECKF(r, e->kind && e->kind->here(-1, &e->where) == tuttiSuccess, "no device");
	g.where = e->where;
	members[r->rank] = (struct tt_peer_member){ .rank = r->rank, .proc = 1 };
	RANK_OK(r, e->kind->enter(e->where));
	RANK_OK(r, e->kind->sharing->device(&members[r->rank].device));
	e->kind->leave();
	if (pthread_barrier_wait(&both) == PTHREAD_BARRIER_SERIAL_THREAD)
		ids++;
	pthread_barrier_wait(&both);
	g.id += ids;
	RANK_OK(r, tt_peers_open(&g, &e->peers));
	RANK_CHECKF(r, e->peers, "no links");
	for (int i = 0; i < TT_PEER_LANES; i++)
		e->queue[i] = fake_queue_new();
}

static uint32_t lane_name(int lane)
{
	return lane < TT_PEER_LANES - 1 ? (uint32_t)lane : TT_MAX_LANES;
}

static struct tt_peer_dir *dir(struct end *e, int lane, bool is_send)
{
	struct tt_peer_dir *d = tt_peers_dir(e->peers, 1 - e->r->rank, lane_name(lane), is_send);

	RANK_CHECKF(e->r, d, "lane %d has no link", lane);
	return d;
}

static void close_end(struct end *e)
{
	for (int i = 0; i < TT_PEER_LANES; i++)
		fake_queue_free(e->queue[i]);
	RANK_CHECKF(e->r, tt_peers_close(e->peers, true, false), "not closed");
}

/* T10, T12: sizes from nothing to the largest that is promised. */
static size_t size_of(const struct end *e, int lane, int i)
{
	size_t most = tt_peers_message(e->peers);
	uint64_t x = ref_mix(test_seed(), (uint64_t)(100 * lane + i));

	return i % 5 == 0 ? 0 : i % 5 == 1 ? most : x % (most + 1);
}

static unsigned char byte_of(int from, int lane, int i, size_t at)
{
	return (unsigned char)(31 * from + 7 * lane + 3 * i + (int)(at % 251));
}

static unsigned char *new_message(struct end *e, int from, int lane, int i, bool filled)
{
	size_t n = size_of(e, lane, i);
	unsigned char *p = fake_alloc(n + 1), *view = fake_view(p);

	for (size_t k = 0; k < n; k++)
		view[k] = filled ? byte_of(from, lane, i, k) : 0;
	return p;
}

static void send_lane(struct end *e, int lane, unsigned char **m)
{
	RANK_OK(e->r, e->kind->enter(e->where));
	for (int i = 0; i < MESSAGES; i++)
		RANK_OK(e->r, tt_peer_send(dir(e, lane, true), e->queue[lane], e->queue[lane], m[i],
					   size_of(e, lane, i)));
	e->kind->leave();
}

static void recv_lane(struct end *e, int lane, unsigned char **m)
{
	RANK_OK(e->r, e->kind->enter(e->where));
	for (int i = 0; i < MESSAGES; i++)
		RANK_OK(e->r, tt_peer_recv(dir(e, lane, false), e->queue[lane], e->queue[lane], m[i],
					   size_of(e, lane, i)));
	e->kind->leave();
}

/* T1, T3, T5: the n-th receive has the bytes of the n-th send. */
static void check_lane(struct end *e, int lane, unsigned char **m)
{
	for (int i = 0; i < MESSAGES; i++) {
		const unsigned char *view = fake_view(m[i]);

		for (size_t k = 0; k < size_of(e, lane, i); k++)
			RANK_CHECKF(e->r, view[k] == byte_of(0, lane, i, k), "lane %d, message %d, byte %zu", lane, i,
				    k);
	}
}

/* T13: nothing of lane 0 is received before all others have ended. */
static void order_rank(struct rank *r)
{
	unsigned char *m[TT_PEER_LANES][MESSAGES];
	struct end e = { 0 };

	open_end(&e, r);
	for (int lane = 0; lane < TT_PEER_LANES; lane++)
		for (int i = 0; i < MESSAGES; i++)
			m[lane][i] = new_message(&e, 0, lane, i, r->rank == 0);
	for (int lane = 0; r->rank == 0 && lane < TT_PEER_LANES; lane++)
		send_lane(&e, lane, m[lane]);
	for (int lane = TT_PEER_LANES - 1; r->rank == 1 && lane >= 0; lane--) {
		recv_lane(&e, lane, m[lane]);
		fake_queue_sync(e.queue[lane]);
		check_lane(&e, lane, m[lane]);
	}
	for (int lane = 0; lane < TT_PEER_LANES; lane++) {
		fake_queue_sync(e.queue[lane]);
		for (int i = 0; i < MESSAGES; i++)
			fake_free(m[lane][i]);
	}
	pthread_barrier_wait(&both);
	close_end(&e);
}

/* T8, and what 0015 says of failures: released though the other end goes on writing its words. */
static void failure_rank(struct rank *r)
{
	static _Atomic int go;
	unsigned char *m[2][MESSAGES];
	struct end e = { 0 };

	atomic_store(&go, 0);
	open_end(&e, r);
	for (int i = 0; i < 2 * MESSAGES; i++)
		m[i % 2][i / 2] = new_message(&e, 0, i % 2, i / 2, true);
	if (r->rank == 0)
		fake_hold(e.queue[0], &go);
	if (r->rank == 0)
		send_lane(&e, 0, m[0]);
	else
		recv_lane(&e, 0, m[0]);
	recv_lane(&e, 1, m[1]); /* which nobody sends */
	pthread_barrier_wait(&both);
	if (r->rank == 1) {
		RANK_CHECKF(r, tt_peers_failed(e.peers) < 0, "failed already");
		tt_peers_fail(e.peers);
		atomic_store(&go, 1);
		while (!fake_queue_wait(e.queue[0], 0.001) || !fake_queue_wait(e.queue[1], 0.001))
			RANK_CHECKF(r, tt_peers_tend(), "nobody tends what has failed");
	}
	pthread_barrier_wait(&both);
	RANK_CHECKF(r, tt_peers_failed(e.peers) == 1, "rank %d is said to have failed", tt_peers_failed(e.peers));
	if (r->rank == 0)
		tt_peers_fail(e.peers);
	for (int lane = 0; lane < 2; lane++)
		while (!fake_queue_wait(e.queue[lane], 0.001))
			tt_peers_tend();
	pthread_barrier_wait(&both);
	for (int i = 0; i < 2 * MESSAGES; i++)
		fake_free(m[i % 2][i / 2]);
	close_end(&e);
}

static void run(rank_fn fn)
{
	fake_start();
	pthread_barrier_init(&both, NULL, ENDS);
	for (int i = 0; i < 3; i++)
		ranks_run_bare(ENDS, 60, fn, NULL);
	CHECKF(!fake_live(), "%d things of the driver's are left", fake_live());
}

static void order(void)
{
	run(order_rank);
}

static void failure(void)
{
	run(failure_rank);
}

const struct test tests[] = {
	{ "T1 T3 T5 T10 T12 T13: order, sizes, lanes", order, 120 },
	{ "T8: failure while queues wait", failure, 120 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
