/* What the verbs transport asks of its device, request by request: how chunks are announced, and how many requests
 * messages take; that a link which closes waits for a chunk on another connection; that iWARP dials again. Both ends
 * are in one process, on devices of the kernel's (tests/vm/suite). SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"
#include "verbs.h"

#if TT_HAVE_VERBS

#include <signal.h>

enum { BIG = 1 << 20, MANY = 8, EACH = BIG / 16 };

static int (*really)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
static struct { int with_imm, writes, sends; } posted;

static int count(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	for (const struct ibv_send_wr *w = wr; w; w = w->next)
		*(w->opcode == IBV_WR_RDMA_WRITE_WITH_IMM ? &posted.with_imm :
		  w->opcode == IBV_WR_RDMA_WRITE ? &posted.writes : &posted.sends) += 1;
	return really(qp, wr, bad);
}

/* All posts of both ends go by `by`, or as before (NULL). */
static void lead_posts(struct rig *r, int (*by)(struct ibv_qp *, struct ibv_send_wr *, struct ibv_send_wr **))
{
	for (int i = 0; i < 2; i++)
		for (const struct msg_conn *c = ((struct vb_ep *)r->ep[i])->base.conns; c; c = c->next) {
			struct ibv_context_ops *ops = &((const struct vb_conn *)c)->qp->context->ops;

			if (!by && really)
				ops->post_send = really;
			if (by && ops->post_send != by)
				really = ops->post_send;
			if (by)
				ops->post_send = by;
		}
}

static bool is_iwarp(const struct rig *r)
{
	return ((struct vb_ep *)r->ep[0])->port[0].port->wire == TT_VB_IWARP;
}

/* False: there is no device. */
static bool begin(struct rig *r, struct ends *e, uint64_t key)
{
	char why[160], a[100] = "a", b[100];
	struct tt_caps caps;

	if (!tt_verbs.probe(&caps, why, sizeof(why))) {
		fprintf(stderr, "skipped: %s\n", why);
		return false;
	}
	rig_begin(r, &tt_verbs);
	*e = open_ends(r, key);
	transfer(r, e->a, e->b, a, b, sizeof(a));
	for (unsigned i = 0; i < MSG_CREDITS / 2; i++) /* so many that no credit is left to be told with a chunk */
		transfer(r, e->b, e->a, a, b, sizeof(a));
	return true;
}

static void end(struct rig *r, struct ends e)
{
	lead_posts(r, NULL);
	close_ends(r, e);
	rig_end(r);
}

/* n messages at once, the receives first. */
static void move(struct rig *r, struct ends e, char *from, char *to, int n, size_t each)
{
	struct op ops[2 * MANY];

	memset(ops, 0, sizeof(ops));
	memset(&posted, 0, sizeof(posted));
	fill_bytes(from, (size_t)n * each, 5);
	for (int i = 0; i < n; i++) {
		ops[i] = (struct op){ .link = e.b, .kind = OP_RECV, .p = to + (size_t)i * each, .n = each };
		ops[n + i] = (struct op){ .link = e.a, .kind = OP_SEND, .p = from + (size_t)i * each, .n = each };
	}
	ops_succeed(r, ops, 2 * n);
	CHECK(same_bytes(to, (size_t)n * each, 5));
}

static void chunks_are_announced(void)
{
	char *from, *to;
	void *handles[2];
	struct rig r;
	struct ends e;

	if (!begin(&r, &e, 3001))
		return;
	from = aligned_alloc(4096, BIG);
	to = aligned_alloc(4096, BIG);
	CHECK(tt_verbs.reg(r.ep[0], from, BIG, 0, &handles[0]) == tuttiSuccess);
	CHECK(tt_verbs.reg(r.ep[1], to, BIG, 0, &handles[1]) == tuttiSuccess);
	lead_posts(&r, count);
	for (int n = 1; n <= MANY; n += MANY - 1) {
		int chunks = n == 1 ? BIG / (int)VB_CHUNK : n;

		move(&r, e, from, to, n, n == 1 ? BIG : EACH);
		CHECKF(posted.with_imm == (is_iwarp(&r) ? 0 : chunks), "%d writes with immediates", posted.with_imm);
		CHECKF(posted.writes == (is_iwarp(&r) ? chunks : 0), "%d writes without", posted.writes);
		/* An advert and a notice, and what tells of buffers; over iWARP for several messages as for one. */
		CHECKF(posted.sends <= (is_iwarp(&r) ? 4 : n + 2), "%d sends", posted.sends);
	}
	tt_verbs.dereg(r.ep[0], handles[0]);
	tt_verbs.dereg(r.ep[1], handles[1]);
	end(&r, e);
	free(from);
	free(to);
}

/* The receive is posted, and the sender knows. */
static void post_receive(struct rig *r, const struct msg_flow *flow, struct op *o)
{
	uint64_t until = tt_now_ns() + 10000000000ull;

	CHECK(op_post(r, o));
	while (!(flow->adverted & 1u << msg_at(flow->send_tail))) {
		rig_poll(r);
		CHECK(tt_now_ns() < until);
	}
}

/* Of memory that is not registered: the sender has nothing more to do, and may not come back for long. */
static void what_is_done_needs_no_poll(void)
{
	char *from, *to;
	uint64_t until = tt_now_ns() + 20000000000ull;
	struct rig r;
	struct ends e;
	struct op in, out;

	if (!begin(&r, &e, 3001))
		return;
	from = calloc(1, EACH);
	to = calloc(1, EACH);
	in = (struct op){ .link = e.b, .kind = OP_RECV, .p = to, .n = EACH };
	out = (struct op){ .link = e.a, .kind = OP_SEND, .p = from, .n = EACH };
	fill_bytes(from, EACH, 3);
	post_receive(&r, ((struct msg_link *)e.a)->flow, &in);
	CHECK(op_post(&r, &out) && out.result == TT_DONE);
	while (!op_over(&in)) {
		tt_verbs.poll(r.ep[1]);
		CHECKF(tt_now_ns() < until, "a message that is sent does not arrive");
	}
	CHECK(in.result == TT_DONE && same_bytes(to, EACH, 3));
	end(&r, e);
	free(from);
	free(to);
}

/* ---- a queue pair that signals ---- */

static int with_sigpipe(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	pthread_kill(pthread_self(), SIGPIPE);
	posted.sends++;
	return really(qp, wr, bad);
}

/* As soft-iWARP does when the peer has closed: the caller sees nothing of it, and what it blocks stays blocked. */
static void posting_raises_no_signal(void)
{
	char from[64] = "x", to[64];
	sigset_t mask, pipe;
	struct rig r;
	struct ends e;

	if (!begin(&r, &e, 3005))
		return;
	if (is_iwarp(&r)) {
		signal(SIGPIPE, SIG_DFL);
		posted.sends = 0;
		lead_posts(&r, with_sigpipe);
		transfer(&r, e.a, e.b, from, to, sizeof(from));
		CHECK(posted.sends > 0);
		CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &mask) && !sigismember(&mask, SIGPIPE));
		sigemptyset(&pipe);
		sigaddset(&pipe, SIGPIPE);
		pthread_sigmask(SIG_BLOCK, &pipe, NULL);
		transfer(&r, e.a, e.b, from, to, sizeof(from));
		CHECK(!sigpending(&mask) && sigismember(&mask, SIGPIPE));
		CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &mask) && sigismember(&mask, SIGPIPE));
	}
	end(&r, e);
}

/* ---- a queue pair that is slow ---- */

static struct {
	pthread_mutex_t lock;
	struct ibv_qp *qp;
	struct ibv_send_wr wr[VB_SLOTS];
	struct ibv_sge sge[VB_SLOTS];
	int n;
	bool over;
} held = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int hold(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	bool holds;

	pthread_mutex_lock(&held.lock);
	holds = qp == held.qp && !held.over;
	for (; holds && wr; wr = wr->next) {
		held.sge[held.n] = *wr->sg_list;
		held.wr[held.n] = *wr;
		held.wr[held.n].sg_list = &held.sge[held.n];
		held.wr[held.n++].next = NULL;
	}
	pthread_mutex_unlock(&held.lock);
	return holds ? 0 : really(qp, wr, bad);
}

static void *let_go(void *unused)
{
	struct ibv_send_wr *bad;

	(void)unused;
	usleep(50000);
	pthread_mutex_lock(&held.lock);
	for (int i = 0; i < held.n; i++)
		CHECK(!really(held.qp, &held.wr[i], &bad));
	held.over = true;
	pthread_mutex_unlock(&held.lock);
	return NULL;
}

/* The close goes by the connection that the held chunk does not: were it not waited for, it would overtake that. */
static void close_waits_for_another_connection(void)
{
	enum { N = 2 * VB_SHARE };
	char *from, *to;
	struct op out, in;
	struct msg_flow *flow;
	struct msg_peer *peer;
	pthread_t thread;
	struct rig r;
	struct ends e;

	setenv("TUTTI_IB_QPS_PER_CONNECTION", "2", 1);
	if (!begin(&r, &e, 3001))
		return;
	from = calloc(1, N);
	to = calloc(1, N);
	flow = ((struct msg_link *)e.a)->flow;
	peer = flow->peer;
	CHECK(peer->nout == 2);
	in = (struct op){ .link = e.b, .kind = OP_RECV, .p = to, .n = N };
	out = (struct op){ .link = e.a, .kind = OP_SEND, .p = from, .n = N };
	fill_bytes(from, N, 7);
	post_receive(&r, flow, &in);
	held.qp = ((struct vb_conn *)peer->out[tt_msg_flow_home(flow) == peer->out[0]])->qp;
	lead_posts(&r, hold);
	CHECK(op_post(&r, &out));
	while (!op_over(&out))
		tt_verbs.poll(r.ep[0]);
	CHECK(out.result == TT_DONE && held.n > 0);
	CHECK(!pthread_create(&thread, NULL, let_go, NULL));
	rig_close(&r, e.a);
	pthread_mutex_lock(&held.lock);
	CHECKF(held.over, "the link was closed while a chunk of its message had not gone");
	pthread_mutex_unlock(&held.lock);
	pthread_join(thread, NULL);
	while (!op_over(&in))
		rig_poll(&r);
	CHECK(in.result == TT_DONE && same_bytes(to, N, 7));
	lead_posts(&r, NULL);
	rig_close(&r, e.b);
	rig_end(&r);
	free(from);
	free(to);
}

/* ---- iWARP ---- */

static struct tt_vb dropping;
static int (*accept_it)(struct rdma_cm_id *id, struct rdma_conn_param *param);
static int accepted;

static int accept_and_drop(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	int err = accept_it(id, param);

	if (!accepted++)
		CHECK(!dropping.cm_disconnect(id));
	return err;
}

/* The first connection is accepted, and over before anything comes by it. */
static void iwarp_dials_again(void)
{
	char *from, *to, why[160];
	struct tt_caps caps;
	struct vb_ep *other;
	struct rig r;
	struct ends e;
	uint32_t dials = 0;

	if (!tt_verbs.probe(&caps, why, sizeof(why)))
		return;
	from = calloc(1, BIG);
	to = calloc(1, BIG);
	rig_begin(&r, &tt_verbs);
	other = r.ep[1];
	if (is_iwarp(&r)) {
		dropping = *other->vb;
		accept_it = dropping.cm_accept;
		dropping.cm_accept = accept_and_drop;
		other->vb = &dropping;
		e = open_ends(&r, 3001);
		move(&r, e, from, to, 1, BIG);
		for (const struct msg_conn *c = ((struct vb_ep *)r.ep[0])->base.conns; c; c = c->next)
			dials += ((const struct vb_conn *)c)->dials;
		CHECKF(accepted >= 2 && dials >= 1, "accepted %d times, dialled again %u times", accepted, dials);
		close_ends(&r, e);
	}
	rig_end(&r);
	free(from);
	free(to);
}

const struct test tests[] = {
	{ "chunks are announced", chunks_are_announced, 0 },
	{ "what is done needs no poll", what_is_done_needs_no_poll, 0 },
	{ "posting raises no signal", posting_raises_no_signal, 0 },
	{ "close waits for another connection", close_waits_for_another_connection, 0 },
	{ "iWARP dials again", iwarp_dials_again, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
#else
const struct test tests[] = { { NULL, NULL, 0 } };
const int ntests = 0;
#endif
