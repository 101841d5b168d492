/* Beyond the numbered rules: ends that open late, reductions on the way, sleeping, faults of inproc.
 * SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

enum { BIG = 1 << 20 };

struct talk {
	struct rig *r;
	void *link[2];
	int rounds;
	size_t n;
};

static void late_of(struct rig *r)
{
	char x[64], y[64] = { 0 };
	struct ends e = { .a = rig_open(r, 0, 1, 1501) };
	struct op s = { .link = e.a, .kind = OP_SEND, .p = x, .n = 64 };
	struct op d = { .kind = OP_RECV, .p = y, .n = 64 };

	fill_bytes(x, 64, 2);
	for (int i = 0; i < 100 && !op_post(r, &s); i++)
		rig_poll(r);
	for (int i = 0; i < 100; i++)
		rig_poll(r);
	d.link = e.b = rig_open(r, 1, 0, 1501);
	if (s.result == TT_AGAIN)
		ops_run(r, (struct op[]){ s, d }, 2);
	else
		ops_succeed(r, &d, 1);
	for (int i = 0; i < 1000000 && s.result != TT_AGAIN && !op_over(&s); i++)
		rig_poll(r);
	CHECKF(same_bytes(y, 64, 2), "%s: sent before the other end opened", r->t->name);
	close_ends(r, e);
}

static void reduce_of(struct rig *r)
{
	enum { N = 100003 };
	struct ends e = open_ends(r, 1601);
	struct tt_op sum = { .kind = tuttiSum, .commutative = true };
	float *in = malloc(N * 4), *x = malloc(N * 4), *out = malloc(N * 4);

	for (int first = 0; r->t->recv_reduce != NULL && first < 2; first++) {
		struct tt_combine c = { out, x, first, tuttiFloat32, &sum };
		struct op ops[2] = { { .link = e.a, .kind = OP_SEND, .p = in, .n = N * 4 },
				     { .link = e.b, .kind = OP_REDUCE, .c = &c, .n = N * 4 } };

		for (int i = 0; i < N; i++) {
			in[i] = (float)i;
			x[i] = (float)(i % 17);
			out[i] = -1;
		}
		ops_succeed(r, ops, 2);
		for (int i = 0; i < N; i++)
			CHECKF(out[i] == (float)(i + i % 17), "%s: element %d", r->t->name, i);
	}
	close_ends(r, e);
	free(in);
	free(x);
	free(out);
}

/* Waits as the core does: spin a little, arm, poll(2), disarm. */
static void nap(struct rig *r, int i)
{
	struct pollfd f = { .fd = r->t->wait_fd(r->ep[i]), .events = POLLIN };

	if (r->t->arm(r->ep[i]))
		CHECKF(poll(&f, 1, 4000) > 0, "%s: endpoint %d was not woken", r->t->name, i);
	r->t->disarm(r->ep[i]);
}

static void sleeper(int i, void *arg)
{
	struct talk *t = arg;
	char *p = calloc(1, t->n), *q = calloc(1, t->n);

	for (int k = 0; k < t->rounds; k++) { /* 0 sends and waits for the echo */
		for (int half = 0; half < 2; half++) {
			struct op o = { .link = t->link[i], .kind = half == i ? OP_SEND : OP_RECV,
					.p = half == i ? p : q, .n = t->n, .result = TT_AGAIN };

			while (ops_step(t->r, &o, 1) == 0) {
				if (t->r->t->poll(t->r->ep[i]) == 0)
					nap(t->r, i);
			}
			CHECKF(o.result == TT_DONE, "%s: round %d", t->r->t->name, k);
		}
	}
	free(p);
	free(q);
}

static void sleep_of(struct rig *r)
{
	struct ends e = open_ends(r, 1701);
	struct talk small = { r, { e.a, e.b }, 3000, 8 }, big = { r, { e.a, e.b }, 30, 2 * BIG };

	test_threads(2, sleeper, &small);
	test_threads(2, sleeper, &big);
	close_ends(r, e);
}

static void open_in_any_order(void) { each_transport(late_of); }
static void recv_reduce_combines(void) { each_transport(reduce_of); }
static void sleepers_are_woken(void) { each_transport(sleep_of); }

static void inproc_faults(void)
{
	struct rig r;
	struct ends e;
	char x[64], y[64];
	uint64_t t0;

	rig_begin(&r, &tt_inproc);
	e = open_ends(&r, 1801);
	fill_bytes(x, 64, 1);
	tt_inproc_fault(TT_FAULT_FLIP, 2);
	transfer(&r, e.a, e.b, x, y, 64);
	CHECK(same_bytes(y, 64, 1));
	transfer(&r, e.a, e.b, x, y, 64);
	CHECK(!same_bytes(y, 64, 1));
	tt_inproc_fault(TT_FAULT_STALL, 1);
	t0 = tt_now_ns();
	transfer(&r, e.a, e.b, x, y, 64);
	CHECK(tt_now_ns() - t0 > 50000000);
	tt_inproc_fault(TT_FAULT_DROP, 1);
	ops_succeed(&r, &(struct op){ .link = e.a, .kind = OP_SEND, .p = x, .n = 64 }, 1);
	CHECK(r.t->recv(e.b, y, 64, &(struct tt_req){ 0 }) == TT_AGAIN);
	tt_inproc_fault(TT_FAULT_NONE, 0);
	close_ends(&r, e);
	rig_end(&r);
}

const struct test tests[] = {
	{ "open_in_any_order", open_in_any_order, 0 },
	{ "recv_reduce_combines", recv_reduce_combines, 0 },
	{ "sleepers_are_woken", sleepers_are_woken, 0 },
	{ "inproc_faults", inproc_faults, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
