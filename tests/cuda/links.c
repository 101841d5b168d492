/* Device links by themselves, two ends in one process on two devices of the fake driver: the rules of transports
 * (transports/transport.h) by their numbers, as far as they mean anything for links whose calls only enqueue:
 *  T2   there is no AGAIN: a queue takes everything.
 *  T6   a link has no error of its own: a failure is the whole group's, and stays.
 *  T9   messages carry no note; what ranks say of their calls stands beside the links.
 *  T14  there is no shared pool, only the slots. SPDX-License-Identifier: Apache-2.0 */
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
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
				     .message = 64 << 10,
				     .deadline_ns = tt_now_ns() + (uint64_t)(test_limit(20) * 1e9) };

	snprintf((char *)secret, sizeof(secret), "of process %d", getpid());
	tt_mem_look();
	e->r = r;
	e->kind = g.kind = tt_mem_at(-1);
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

static void finish(struct end *e, unsigned char **m, int lanes)
{
	for (int lane = 0; lane < lanes; lane++)
		fake_queue_sync(e->queue[lane]);
	for (int i = 0; i < MESSAGES; i++)
		fake_free(m[i]);
	pthread_barrier_wait(&both);
	close_end(e);
}

/* T2: all is enqueued before the other end has enqueued anything, ten times what slots hold, and while the queue is
 * busy elsewhere. */
static void no_block_rank(struct rank *r)
{
	static _Atomic int go;
	unsigned char *m[MESSAGES];
	struct end e = { 0 };

	atomic_store(&go, 0);
	open_end(&e, r);
	for (int i = 0; i < MESSAGES; i++)
		m[i] = new_message(&e, 0, 0, i, r->rank == 0);
	fake_hold(e.queue[0], &go);
	if (r->rank == 0)
		send_lane(&e, 0, m);
	pthread_barrier_wait(&both);
	if (r->rank == 1)
		recv_lane(&e, 0, m);
	pthread_barrier_wait(&both);
	atomic_store(&go, 1);
	fake_queue_sync(e.queue[0]);
	check_lane(&e, 0, m);
	finish(&e, m, 1);
}

/* T4: what was sent is the sender's again when its queue has come past it, though nobody has received; and nothing
 * beside the span of a receive is written. */
static void span_rank(struct rank *r)
{
	enum { GUARD = 64 };
	struct end e = { 0 };

	open_end(&e, r);
	for (int i = 0; i < MESSAGES; i++) {
		size_t n = size_of(&e, 0, i);
		unsigned char *p = fake_alloc(n + 2 * GUARD), *view = fake_view(p);

		r->step = i;
		memset(view, 0x11, n + 2 * GUARD);
		for (size_t k = 0; r->rank == 0 && k < n; k++)
			view[GUARD + k] = byte_of(0, 0, i, k);
		RANK_OK(r, e.kind->enter(e.where));
		if (r->rank == 0)
			RANK_OK(r, tt_peer_send(dir(&e, 0, true), e.queue[0], e.queue[0], p + GUARD, n));
		fake_queue_sync(e.queue[0]);
		if (r->rank == 0)
			memset(view, 0xee, n + 2 * GUARD);
		pthread_barrier_wait(&both);
		if (r->rank == 1)
			RANK_OK(r, tt_peer_recv(dir(&e, 0, false), e.queue[0], e.queue[0], p + GUARD, n));
		e.kind->leave();
		fake_queue_sync(e.queue[0]);
		for (size_t k = 0; r->rank == 1 && k < n + 2 * GUARD; k++)
			RANK_CHECKF(r, view[k] == (k < GUARD || k >= GUARD + n ? 0x11 : byte_of(0, 0, i, k - GUARD)),
				    "message %d of %zu bytes, byte %zu", i, n, k);
		fake_free(p);
		pthread_barrier_wait(&both);
	}
	close_end(&e);
}

/* T7: each message by another thread, never two at a time. */
struct turn {
	struct end *e;
	unsigned char **m;
	int i;
};

static void take_turn(int thread, void *arg)
{
	struct turn *t = arg;
	struct end *e = t->e;
	size_t n = size_of(e, 0, t->i);

	RANK_OK(e->r, e->kind->enter(e->where));
	if (e->r->rank == 0)
		RANK_OK(e->r, tt_peer_send(dir(e, 0, true), e->queue[0], e->queue[0], t->m[t->i], n));
	else
		RANK_OK(e->r, tt_peer_recv(dir(e, 0, false), e->queue[0], e->queue[0], t->m[t->i], n));
	e->kind->leave();
}

static void threads_rank(struct rank *r)
{
	unsigned char *m[MESSAGES];
	struct end e = { 0 };

	open_end(&e, r);
	for (int i = 0; i < MESSAGES; i++)
		m[i] = new_message(&e, 0, 0, i, r->rank == 0);
	for (int i = 0; i < MESSAGES; i++)
		test_threads(1, take_turn, &(struct turn){ &e, m, i });
	fake_queue_sync(e.queue[0]);
	check_lane(&e, 0, m);
	finish(&e, m, 1);
}

/* T9: calls of the same number that differ are seen by both ends, collectives and messages, whoever says first; what
 * nobody has said, or said long ago, is not known. */
static void notes_rank(struct rank *r)
{
	struct end e = { 0 };
	struct tt_peer_dir *d;
	bool is_send = r->rank == 0;

	open_end(&e, r);
	d = dir(&e, TT_PEER_LANES - 1, is_send);
	for (uint32_t seq = 1; seq <= 20; seq++) {
		uint64_t sig = seq == 15 || seq == 20 ? 70u + (uint32_t)r->rank : 7;

		tt_peers_note(e.peers, seq, sig);
		tt_peer_note(d, seq, seq == 18 ? 70u + (uint32_t)r->rank : seq);
		pthread_barrier_wait(&both);
		RANK_CHECKF(r, tt_peers_differ(e.peers, seq, sig) == (sig == 7 ? -1 : 1 - r->rank), "calls #%u", seq);
		RANK_CHECKF(r, tt_peer_differs(d, seq) == (seq >= 18), "messages #%u", seq);
		RANK_CHECKF(r, tt_peers_differ(e.peers, seq + 1, 3) < 0 && !tt_peer_differs(d, seq + 1), "before #%u",
			    seq + 1);
		RANK_CHECKF(r, seq < 9 || (tt_peers_differ(e.peers, seq - 8, 3) < 0 && !tt_peer_differs(d, seq - 8)),
			    "long after #%u", seq - 8);
		pthread_barrier_wait(&both);
	}
	close_end(&e);
}

/* T11: links know neither communicators, transports nor CUDA, and read settings by their table alone. */
static void check_source(const char *path)
{
	static const char *const allowed[] = { "peer.h", "boot.h", "hmac.h" };
	FILE *f = fopen(path, "r");
	char line[512], name[64];

	CHECKF(f, "no %s", path);
	while (fgets(line, sizeof(line), f)) {
		bool ok = sscanf(line, "#include \"%63[^\"]", name) != 1;

		for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
			ok |= !strcmp(name, allowed[i]);
		CHECKF(ok && !strstr(line, "getenv"), "%s: %s", path, line);
	}
	fclose(f);
}

static void includes(void)
{
	char pattern[1024];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%.*s../../src/peer*.c", (int)(strlen(__FILE__) - strlen("links.c")),
		 __FILE__);
	CHECKF(!glob(pattern, 0, NULL, &g) && g.gl_pathc >= 3, "no %s: run this from the top of the source tree",
	       pattern);
	for (size_t i = 0; i < g.gl_pathc; i++)
		check_source(g.gl_pathv[i]);
	globfree(&g);
}

/* Bytes of this process that are devices' memory, each mapped twice (fake_ipc.c). */
static size_t shared_bytes(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	size_t from, to, sum = 0;
	char line[512];

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "fake vmm") && sscanf(line, "%zx-%zx", &from, &to) == 2)
			sum += to - from;
	fclose(f);
	return sum / 2;
}

/* T14: the memory is what gpu.md says, at each end its own and the other's slots, however much goes through them. */
static void memory_rank(struct rank *r)
{
	enum { SLOTS = ENDS * TT_PEER_LANES * TT_PEER_SLOTS, GRAIN = 2 << 20 };
	unsigned char *m[MESSAGES];
	struct end e = { 0 };
	size_t before, most;
	int live;

	open_end(&e, r);
	pthread_barrier_wait(&both);
	before = shared_bytes();
	live = fake_live();
	most = SLOTS * (tt_peers_message(e.peers) / 2) + GRAIN;
	RANK_CHECKF(r, before <= ENDS * ENDS * (most + 4096), "%zu bytes of slots, %zu at most", before, most);
	for (int i = 0; i < MESSAGES; i++)
		m[i] = new_message(&e, 0, 0, i, true);
	for (int round = 0; round < 5; round++) {
		if (r->rank == 0)
			send_lane(&e, 0, m);
		else
			recv_lane(&e, 0, m);
	}
	fake_queue_sync(e.queue[0]);
	pthread_barrier_wait(&both);
	RANK_CHECKF(r, shared_bytes() == before && fake_live() == live, "%zu bytes, %zu before; %d things, %d before",
		    shared_bytes(), before, fake_live(), live);
	pthread_barrier_wait(&both);
	finish(&e, m, 1);
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
	recv_lane(&e, 1, m[1]); /* T6: nor do later ones wait */
	RANK_CHECKF(r, tt_peers_failed(e.peers) == 1, "the first to fail is forgotten");
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

static void no_block(void)
{
	run(no_block_rank);
}

static void span(void)
{
	run(span_rank);
}

static void threads(void)
{
	run(threads_rank);
}

static void notes(void)
{
	run(notes_rank);
}

static void memory(void)
{
	run(memory_rank);
}

const struct test tests[] = {
	{ "T1 T3 T5 T10 T12 T13: order, sizes, lanes", order, 120 },
	{ "T2: no call blocks", no_block, 60 },
	{ "T4: the span of a message", span, 60 },
	{ "T6 T8: failure while queues wait", failure, 120 },
	{ "T7: any thread, one at a time", threads, 60 },
	{ "T9: what is told beside the messages", notes, 60 },
	{ "T11: includes and environment", includes, 20 },
	{ "T14: memory is bounded", memory, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
