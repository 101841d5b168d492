/* A transport that finds no way, at once or after a while, on both ends at their own times: the links go on over the
 * next one, with all messages, and one line says so. The list of transports is this program's own.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ranks.h"
#include "ref.h"
#include "test.h"
#include "transport.h"

/* ---- the transport: takes posts, moves nothing, and fails each link after so many polls ---- */

struct maze_link {
	struct maze_link *next;
	struct maze_ep *ep;
	struct tt_req *posts[16];
	int nposts, polls;
	bool failed;
};

struct maze_ep {
	struct maze_link *links;
	int event, completed;
};

static int maze_patience; /* polls; 0: link_open refuses; -1: no endpoint */

static bool maze_probe(struct tt_caps *caps, char *why, size_t why_size)
{
	*caps = (struct tt_caps){ .latency = 1e-6, .bandwidth = 1e10, .max_message = 1 << 20, .eager = 4096, .depth = 8,
				  .lanes = 2, .across_hosts = true, .across_processes = true };
	return true;
}

static tuttiResult_t maze_ep_open(void *e, const struct tt_ep_config *config)
{
	if (maze_patience < 0)
		return tt_note_error(tuttiSystemError, "the door is locked");
	((struct maze_ep *)e)->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return tuttiSuccess;
}

static void maze_ep_close(void *e)
{
	close(((struct maze_ep *)e)->event);
}

static tuttiResult_t maze_open(void *e, void *link, uint64_t peer, uint64_t key)
{
	struct maze_link *l = link;

	if (!maze_patience)
		return tt_note_error(tuttiUnsupported, "walls at the entrance");
	l->ep = e;
	l->next = l->ep->links;
	l->ep->links = l;
	return tuttiSuccess;
}

static void fail_posts(struct maze_link *l)
{
	for (int i = 0; i < l->nposts; i++)
		atomic_store_explicit(&l->posts[i]->state, TT_REQ_FAILED, memory_order_release);
	l->ep->completed += l->nposts;
	l->nposts = 0;
}

static void maze_close(void *link)
{
	struct maze_link *l = link, **at = &l->ep->links;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	fail_posts(l);
}

static enum tt_post take(struct maze_link *l, struct tt_req *req)
{
	if (l->failed)
		return TT_FAILED;
	if (l->nposts == 16)
		return TT_AGAIN;
	atomic_store_explicit(&req->state, TT_REQ_POSTED, memory_order_relaxed);
	l->posts[l->nposts++] = req;
	return TT_POSTED;
}

static enum tt_post maze_send(void *link, const void *p, size_t n, const struct tt_note *note, struct tt_req *req)
{
	return take(link, req);
}

static enum tt_post maze_recv(void *link, void *p, size_t n, struct tt_req *req)
{
	return take(link, req);
}

static enum tt_post maze_recv_reduce(void *link, const struct tt_combine *c, size_t n, struct tt_req *req)
{
	return take(link, req);
}

static int maze_poll(void *e)
{
	struct maze_ep *ep = e;
	int n;

	for (struct maze_link *l = ep->links; l; l = l->next)
		if (++l->polls > maze_patience && !l->failed) {
			l->failed = true;
			fail_posts(l);
		}
	n = ep->completed;
	ep->completed = 0;
	return n;
}

static tuttiResult_t maze_error(void *link, const char **why)
{
	*why = "walls everywhere";
	return ((struct maze_link *)link)->failed ? tuttiUnsupported : tuttiSuccess;
}

static bool maze_arm(void *e)
{
	return !((struct maze_ep *)e)->links;
}

static void maze_disarm(void *e)
{
}

static int maze_fd(void *e)
{
	return ((struct maze_ep *)e)->event;
}

static void maze_peer_gone(void *e, uint64_t peer)
{
}

static const struct tt_transport maze = {
	.size = sizeof(maze), .name = "maze", .ep_size = sizeof(struct maze_ep), .link_size = sizeof(struct maze_link),
	.probe = maze_probe, .ep_open = maze_ep_open, .ep_close = maze_ep_close, .link_open = maze_open,
	.link_close = maze_close, .send = maze_send, .recv = maze_recv, .recv_reduce = maze_recv_reduce,
	.poll = maze_poll, .link_error = maze_error, .arm = maze_arm, .disarm = maze_disarm, .wait_fd = maze_fd,
	.peer_gone = maze_peer_gone,
};

const struct tt_transport *const tt_transports[] = { &tt_inproc, &maze, &tt_shm, &tt_tcp };
const int tt_ntransports = 4;

const struct tt_transport *tt_transport_find(const char *name)
{
	for (int i = 0; i < tt_ntransports; i++)
		if (!strcmp(tt_transports[i]->name, name))
			return tt_transports[i];
	return NULL;
}

/* ---- ranks ---- */

static void reduce(struct rank *r, size_t count, uint64_t seed)
{
	struct ref_case c = { .seed = seed, .type = tuttiFloat32, .op = tuttiSum, .n = r->n };
	float *in = malloc(count * sizeof(*in) + 1), *out = malloc(count * sizeof(*out) + 1);
	char why[200] = "";

	ref_fill(&c, r->rank, 0, count, in);
	RANK_OK(r, tuttiAllReduce(in, out, count, tuttiFloat32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, ref_check_all(&c, 0, count, out, why, sizeof(why)) == count, "%zu: %s", count, why);
	free(in);
	free(out);
}

/* To the right and from the left, twice: two programs on the same links. */
static void pass_on(struct rank *r)
{
	int to = (r->rank + 1) % r->n, from = (r->rank + r->n - 1) % r->n, got[2] = { -1, -1 };
	int mine[2] = { r->rank, r->rank + 100 };

	RANK_OK(r, tuttiGroupStart());
	for (int i = 0; i < 2; i++) {
		RANK_OK(r, tuttiSend(&mine[i], 1, tuttiInt32, to, r->comm, NULL));
		RANK_OK(r, tuttiRecv(&got[i], 1, tuttiInt32, from, r->comm, NULL));
	}
	RANK_OK(r, tuttiGroupEnd());
	RANK_CHECKF(r, got[0] == from && got[1] == from + 100, "%d, %d from rank %d", got[0], got[1], from);
}

/* Rank r loses patience after arg[r % 4] polls. */
static void working_rank(struct rank *r)
{
	maze_patience = ((const int *)r->arg)[r->rank % 4];
	setenv("TUTTI_LOG", "warn", 1);
	RANK_OK(r, rank_init(r, NULL));
	pass_on(r);
	for (int i = 0; i < 3; i++) {
		reduce(r, 1, 1);
		reduce(r, 300000, 2);
	}
	RANK_OK(r, tuttiBroadcast(r->arg, (void *)r->arg, 4, tuttiInt32, 0, r->comm, NULL));
	reduce(r, 1000, 3);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void goes_on(void)
{
	static int patience[][4] = { { 0, 0, 0, 0 }, { 1, 1, 1, 1 }, { 3000, 3000, 3000, 3000 }, { 0, 2000, 1, 500 } };
	static const char *const lists[] = { "maze,shm", "maze,tcp" };
	static struct procs ps;

	for (int i = 0; i < 4; i++)
		for (int n = 2; n <= 4; n++) {
			procs_start(&ps, n, 0, lists[n % 2], working_rank, patience[i]);
			procs_expect(&ps, 30, -1);
		}
}

static void stuck_rank(struct rank *r)
{
	float x = 1;
	tuttiResult_t res;

	maze_patience = ((const int *)r->arg)[0];
	setenv("TUTTI_LOG", "none", 1);
	RANK_OK(r, rank_init(r, NULL));
	res = tuttiAllReduce(&x, &x, 1, tuttiFloat32, tuttiSum, r->comm, NULL);
	RANK_CHECKF(r, res == tuttiSystemError || res == tuttiRemoteError, "%d", res);
	RANK_CHECKF(r, strstr(tuttiGetLastError(r->comm), "maze: walls"), "%s", tuttiGetLastError(r->comm));
	RANK_CHECKF(r, strstr(tuttiGetLastError(r->comm), "tcp: not in TUTTI_TRANSPORTS"), "%s",
		    tuttiGetLastError(r->comm));
	tuttiCommAbort(r->comm);
}

static void nowhere_to_go(void)
{
	static int patience[] = { 0, 100 };
	static struct procs ps;

	for (int i = 0; i < 2; i++) {
		procs_start(&ps, 2, 0, "maze", stuck_rank, &patience[i]);
		procs_expect(&ps, 20, -1);
	}
}

/* One process has nothing at all: it says why, the others whose fault it is, and nobody waits. */
static void locked_rank(struct rank *r)
{
	const char *wanted = r->rank == 1 ? "maze: the door is locked" : "rank 1 (";
	tuttiResult_t res;

	maze_patience = r->rank == 1 ? -1 : 100;
	setenv("TUTTI_LOG", "none", 1);
	res = rank_init(r, NULL);
	RANK_CHECKF(r, res == (r->rank == 1 ? tuttiSystemError : tuttiRemoteError), "%d", res);
	RANK_CHECKF(r, strstr(tuttiGetLastError(NULL), wanted), "%s", tuttiGetLastError(NULL));
}

static void locked_in(void)
{
	static struct procs ps;

	for (int n = 2; n <= 4; n++) {
		procs_start(&ps, n, 0, "maze", locked_rank, NULL);
		procs_expect(&ps, 20, -1);
	}
}

/* One rank is gone before the other ends have given up. */
static void dying_rank(struct rank *r)
{
	float x = 1;
	tuttiResult_t res;

	maze_patience = 100000;
	setenv("TUTTI_LOG", "none", 1);
	RANK_OK(r, rank_init(r, NULL));
	if (r->rank == 1) {
		sleep_s(0.2);
		_exit(0);
	}
	res = tuttiAllReduce(&x, &x, 1, tuttiFloat32, tuttiSum, r->comm, NULL);
	RANK_CHECKF(r, res == tuttiPeerDead, "%d: %s", res, tuttiGetLastError(r->comm));
	tuttiCommAbort(r->comm);
}

static void peer_dies(void)
{
	static struct procs ps;

	procs_start(&ps, 3, 0, "maze,tcp", dying_rank, NULL);
	procs_expect(&ps, 20, -1);
}

const struct test tests[] = {
	{ "goes on over the next transport", goes_on, 0 },
	{ "nowhere to go", nowhere_to_go, 0 },
	{ "nothing works in one process", locked_in, 0 },
	{ "the peer dies", peer_dies, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
