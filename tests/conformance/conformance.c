/* Every rule of transports/transport.h over every transport, one test a rule.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>

#include "rig.h"

static const size_t sizes[] = { 8, 0, 24, 25, 64, 1000, 1024, 1025, 4096, 100000, 131072, 131080, 1000008 };
enum { NSIZES = sizeof(sizes) / sizeof(sizes[0]), BIG = 1 << 20 };

static void *filled(size_t n, uint64_t seed)
{
	void *p = malloc(n + 1);

	fill_bytes(p, n, seed);
	return p;
}

/* Lets the other end learn of an error. */
static tuttiResult_t error_within(struct rig *r, void *link, double seconds)
{
	uint64_t end = tt_now_ns() + (uint64_t)(seconds * 1e9);
	const char *why = NULL;
	tuttiResult_t e;

	while ((e = r->t->link_error(link, &why)) == tuttiSuccess && tt_now_ns() < end)
		rig_poll(r);
	CHECKF(e == tuttiSuccess || (why != NULL && why[0] != 0), "%s: an error without text",
	       r->t->name);
	return e;
}

/* Makes the two ends fail by unequal lengths. */
static void break_link(struct rig *r, struct ends e)
{
	char buf[256] = { 0 };
	struct op ops[2] = { { .link = e.a, .kind = OP_SEND, .p = buf, .n = 96 },
			     { .link = e.b, .kind = OP_RECV, .p = buf + 128, .n = 104 } };

	ops_run(r, ops, 2);
	CHECKF(ops[1].result == TT_FAILED, "%s: 104 bytes received of 96", r->t->name);
}

/* ---- T1 ---- */

static void order_of(struct rig *r)
{
	struct ends e = open_ends(r, 101);
	struct op ops[2 * NSIZES];

	memset(ops, 0, sizeof(ops));
	for (int i = 0; i < NSIZES; i++) {
		ops[i] = (struct op){ .link = e.a, .kind = OP_SEND, .n = sizes[i] };
		ops[i].p = filled(sizes[i], (uint64_t)i);
		ops[NSIZES + i] = (struct op){ .link = e.b, .kind = OP_RECV, .n = sizes[i] };
		ops[NSIZES + i].p = calloc(1, sizes[i] + 1);
	}
	ops_succeed(r, ops, 2 * NSIZES);
	for (int i = 0; i < NSIZES; i++) {
		CHECKF(same_bytes(ops[NSIZES + i].p, sizes[i], (uint64_t)i),
		       "%s: message %d of %zu bytes is another", r->t->name, i, sizes[i]);
		free(ops[i].p);
		free(ops[NSIZES + i].p);
	}
	close_ends(r, e);
}

static void unequal_of(struct rig *r)
{
	struct ends e = open_ends(r, 102);

	break_link(r, e);
	CHECKF(error_within(r, e.b, 0) == tuttiMismatch, "%s: receiver", r->t->name);
	CHECKF(error_within(r, e.a, 3) != tuttiSuccess, "%s: the sender was not told", r->t->name);
	close_ends(r, e);
}

static void both_ways_of(struct rig *r)
{
	struct ends e = open_ends(r, 103);
	uint64_t x = 1, y = 2, gx = 0, gy = 0;

	for (int i = 0; i < 100; i++, x += 3, y += 5) {
		struct op ops[4] = { { .link = e.a, .kind = OP_SEND, .p = &x, .n = 8 },
				     { .link = e.b, .kind = OP_SEND, .p = &y, .n = 8 },
				     { .link = e.a, .kind = OP_RECV, .p = &gy, .n = 8 },
				     { .link = e.b, .kind = OP_RECV, .p = &gx, .n = 8 } };

		ops_succeed(r, ops, 4);
		CHECKF(gx == x && gy == y, "%s: round %d", r->t->name, i);
	}
	close_ends(r, e);
}

static void T1_nth_meets_nth(void) { each_transport(order_of); each_transport(both_ways_of); }
static void T1_unequal_lengths_fail_both(void) { each_transport(unequal_of); }

/* ---- T2 ---- */

enum { FLOOD = 64 };

/* Sends without receiving until AGAIN; returns how many were accepted. */
static int flood(struct rig *r, void *link, struct op *ops, void *p, size_t n)
{
	int k = 0;

	for (; k < FLOOD; k++) {
		ops[k] = (struct op){ .link = link, .kind = OP_SEND, .p = p, .n = n };
		if (!op_post(r, &ops[k]))
			break;
		CHECKF(ops[k].result != TT_FAILED, "%s: a send failed", r->t->name);
		if (k % 4 == 3)
			rig_poll(r);
	}
	return k;
}

static void no_block_of(struct rig *r)
{
	struct ends e = open_ends(r, 201);
	static struct op ops[FLOOD];
	char *p = filled(BIG, 1), *q = malloc(BIG);
	struct tt_req first = { 0 }, last = { 0 };
	uint64_t t0 = tt_now_ns();
	enum tt_post got;
	int n;

	memset(q, 7, BIG);
	n = flood(r, e.a, ops, p, BIG);
	CHECKF(tt_now_ns() - t0 < 2000000000u, "%s: sending blocks", r->t->name);
	CHECKF(n < FLOOD, "%s: %d MiB taken without a receiver", r->t->name, n);
	got = r->t->recv(e.a, q, BIG, &first); /* nothing is there: kept for later, or not */
	CHECKF(got == TT_AGAIN || got == TT_POSTED, "%s: a receive of nothing", r->t->name);
	CHECKF(q[0] == 7 && q[BIG - 1] == 7, "%s: wrote into the span", r->t->name);
	for (int i = 0; i < n; i++) { /* exactly those that were accepted arrive */
		struct op in = { .link = e.b, .kind = OP_RECV, .p = q, .n = BIG };

		ops_succeed(r, &in, 1);
		CHECKF(same_bytes(q, BIG, 1), "%s: bytes of message %d", r->t->name, i);
	}
	for (int i = 0; i < 50; i++)
		rig_poll(r);
	got = r->t->recv(e.b, q, BIG, &last);
	for (int i = 0; i < 50; i++)
		rig_poll(r);
	CHECKF(got == TT_AGAIN || (got == TT_POSTED && atomic_load(&last.state) == TT_REQ_POSTED),
	       "%s: AGAIN sent something", r->t->name);
	close_ends(r, e);
	free(p);
	free(q);
}

static void T2_no_call_blocks(void) { each_transport(no_block_of); }

/* ---- T3 ---- */

static void once_of(struct rig *r)
{
	enum { N = 12 };
	struct ends e = open_ends(r, 301);
	struct op ops[2 * N];
	char *p = filled(300000, 3), *q = malloc(N * 300000);
	uint64_t end = tt_now_ns() + 10000000000ull;
	int over = 0;

	memset(ops, 0, sizeof(ops));
	for (int i = 0; i < N; i++) {
		size_t n = i % 3 == 2 ? 16 : 300000;

		ops[i] = (struct op){ .link = e.a, .kind = OP_SEND, .p = p, .n = n };
		ops[N + i] = (struct op){ .link = e.b, .kind = OP_RECV, .p = q + i * 300000, .n = n };
		ops[i].result = ops[N + i].result = TT_AGAIN;
	}
	while (over < 2 * N) {
		over = ops_step(r, ops, 2 * N);
		for (int i = 0; i < 2 * N; i++)
			CHECKF(i % N == 0 || !op_over(&ops[i]) || op_over(&ops[i - 1]),
			       "%s: post %d ended before the one before", r->t->name, i % N);
		rig_poll(r);
		CHECK(tt_now_ns() < end);
	}
	for (int i = 0; i < 2 * N; i++)
		atomic_store(&ops[i].req.state, 77);
	for (int i = 0; i < 100; i++)
		rig_poll(r);
	close_ends(r, e);
	for (int i = 0; i < 2 * N; i++)
		CHECKF(atomic_load(&ops[i].req.state) == 77 && ops[i].result == TT_DONE,
		       "%s: post %d completed twice", r->t->name, i);
	free(p);
	free(q);
}

static void T3_posts_complete_once_in_order(void) { each_transport(once_of); }

/* ---- T4, T5 ---- */

static void span_of(struct rig *r)
{
	struct ends e = open_ends(r, 401);

	for (int i = 0; i < NSIZES; i++) {
		size_t n = sizes[i];
		char *p = filled(n, 9), *q = malloc(n + 128);
		struct op s = { .link = e.a, .kind = OP_SEND, .p = p, .n = n, .result = TT_AGAIN };
		struct op d = { .link = e.b, .kind = OP_RECV, .p = q + 64, .n = n,
				.result = TT_AGAIN };
		uint64_t end = tt_now_ns() + 5000000000ull;
		bool scribbled = false;

		memset(q, 0x11, n + 128);
		while (!scribbled || ops_step(r, &d, 1) == 0) {
			if (ops_step(r, &s, 1) == 1 && !scribbled) {
				memset(p, 0xee, n); /* it is ours again */
				scribbled = true;
			} else if (!scribbled) {
				ops_step(r, &d, 1);
			}
			rig_poll(r);
			CHECK(tt_now_ns() < end);
		}
		CHECKF(same_bytes(q + 64, n, 9), "%s: %zu bytes changed", r->t->name, n);
		for (int k = 0; k < 64; k++)
			CHECKF(q[k] == 0x11 && q[64 + n + (size_t)k] == 0x11,
			       "%s: wrote beside a span of %zu", r->t->name, n);
		free(p);
		free(q);
	}
	close_ends(r, e);
}

struct talk {
	struct rig *r;
	void *link[2];
	int rounds;
	size_t n;
};

/* Thread i sends and receives at endpoint i at the same time, and looks at each message at once. */
static void talk(int i, void *arg)
{
	struct talk *t = arg;
	char *p = malloc(t->n), *q = malloc(t->n);

	for (int k = 0; k < t->rounds; k++) {
		uint64_t end = tt_now_ns() + 20000000000ull;
		struct op ops[2] = { { .link = t->link[i], .kind = OP_SEND, .p = p, .n = t->n },
				     { .link = t->link[i], .kind = OP_RECV, .p = q, .n = t->n } };
		uint32_t idle = 0;

		fill_bytes(p, t->n, (uint64_t)(k * 2 + i));
		ops[0].result = ops[1].result = TT_AGAIN;
		while (ops_step(t->r, ops, 2) < 2) {
			t->r->t->poll(t->r->ep[i]);
			if (++idle % 64 == 0)
				sched_yield();
			CHECKF(tt_now_ns() < end, "%s: round %d hangs", t->r->t->name, k);
		}
		CHECKF(ops[0].result == TT_DONE && ops[1].result == TT_DONE, "%s", t->r->t->name);
		CHECKF(same_bytes(q, t->n, (uint64_t)(k * 2 + 1 - i)), "%s: round %d, thread %d",
		       t->r->t->name, k, i);
	}
	free(p);
	free(q);
}

static void visible_of(struct rig *r)
{
	struct ends e = open_ends(r, 501);
	struct talk small = { r, { e.a, e.b }, 3000, 48 }, big = { r, { e.a, e.b }, 30, 300000 };

	test_threads(2, talk, &small);
	test_threads(2, talk, &big);
	close_ends(r, e);
}

static void T4_span_until_completion(void) { each_transport(span_of); }
static void T5_completion_means_visible(void) { each_transport(visible_of); }

/* ---- T6 ---- */

static void sticky_of(struct rig *r)
{
	struct ends bad = open_ends(r, 601), good = open_ends(r, 602);
	char x[64], y[64] = { 0 };
	struct tt_note note = { 0 };
	struct tt_req req = { 0 };

	fill_bytes(x, 64, 4);
	break_link(r, bad);
	CHECK(error_within(r, bad.a, 3) != tuttiSuccess);
	for (int i = 0; i < 3; i++) {
		CHECKF(r->t->recv(bad.b, y, 8, &req) == TT_FAILED, "%s: recv", r->t->name);
		CHECKF(r->t->send(bad.b, x, 8, &note, &req) == TT_FAILED, "%s: send", r->t->name);
		CHECKF(r->t->send(bad.a, x, 8, &note, &req) == TT_FAILED, "%s: send", r->t->name);
		CHECKF(error_within(r, bad.b, 0) == tuttiMismatch, "%s: forgotten", r->t->name);
		rig_poll(r);
	}
	transfer(r, good.a, good.b, x, y, 64);
	CHECKF(same_bytes(y, 64, 4), "%s: the other link suffers", r->t->name);
	close_ends(r, bad);
	transfer(r, good.b, good.a, y, x, 64);
	close_ends(r, good);
}

static void T6_errors_sticky_per_link(void) { each_transport(sticky_of); }

/* ---- T7 ---- */

struct turns {
	struct rig *r;
	struct ends e;
	struct op ops[2];
	char buf[2][64];
};

static void turn_send(int i, void *arg)
{
	struct turns *t = arg;

	t->ops[0] = (struct op){ .link = t->e.a, .kind = OP_SEND, .p = t->buf[0], .n = 64 };
	while (!op_post(t->r, &t->ops[0]))
		rig_poll(t->r);
}

static void turn_finish(int i, void *arg)
{
	struct turns *t = arg;

	t->ops[1] = (struct op){ .link = t->e.b, .kind = OP_RECV, .p = t->buf[1], .n = 64 };
	t->ops[1].result = TT_AGAIN;
	while (ops_step(t->r, t->ops, 2) < 2)
		rig_poll(t->r);
}

static void wander_of(struct rig *r)
{
	struct turns t = { .r = r, .e = open_ends(r, 701) };

	for (uint64_t k = 0; k < 50; k++) { /* never two threads at a time, each round others */
		fill_bytes(t.buf[0], 64, k);
		test_threads(1, turn_send, &t);
		test_threads(1, turn_finish, &t);
		CHECKF(same_bytes(t.buf[1], 64, k), "%s: round %d", r->t->name, (int)k);
	}
	close_ends(r, t.e);
}

static void T7_any_thread_one_at_a_time(void) { each_transport(wander_of); }

/* ---- T8 ---- */

static void refused_of(struct rig *r)
{
	void *l = rig_link_memory(r), *ep = aligned_alloc(64, (r->t->ep_size + 63) / 64 * 64);

	r->t->link_close(l); /* zeroed: never opened */
	r->refuse_dial = true;
	if (r->t->link_open(r->ep[0], l, 2, 801) == tuttiSuccess)
		CHECKF(r->t == &tt_inproc, "%s: opened without a connection", r->t->name);
	r->t->link_close(l);
	r->refuse_dial = false;
	memset(ep, 0, r->t->ep_size);
	r->t->ep_close(ep);
	free(l);
	free(ep);
}

static void close_early_of(struct rig *r)
{
	struct ends e = open_ends(r, 802);
	struct op s = { .link = e.a, .kind = OP_SEND, .n = 3 * BIG };
	struct op d = { .link = e.b, .kind = OP_RECV, .n = 3 * BIG };
	uint64_t t0;

	s.p = filled(s.n, 1);
	d.p = malloc(d.n);
	for (int i = 0; i < 20; i++) { /* the send is under way; the receive perhaps as well */
		if (s.result != TT_POSTED)
			op_post(r, &s);
		rig_poll(r);
	}
	t0 = tt_now_ns();
	rig_close(r, e.a);
	CHECKF(tt_now_ns() - t0 < 2000000000u, "%s: close is not bounded", r->t->name);
	memset(s.p, 0, s.n);
	free(s.p); /* a reader of freed memory is for the sanitizer to find */
	d.result = TT_AGAIN;
	ops_run(r, &d, 1);
	CHECKF(d.result == TT_FAILED, "%s: received what was withdrawn", r->t->name);
	CHECKF(error_within(r, e.b, 0) != tuttiSuccess, "%s: no error", r->t->name);
	rig_close(r, e.b);
	free(d.p);
}

static void drain_of(struct rig *r)
{
	struct ends e = open_ends(r, 803);
	char x[64], y[64];
	struct op s = { .link = e.a, .kind = OP_SEND, .p = x, .n = 64 };
	struct op d = { .link = e.b, .kind = OP_RECV, .p = y, .n = 64 };

	fill_bytes(x, 64, 5);
	ops_succeed(r, &s, 1);
	rig_close(r, e.a); /* what was sent before is still delivered, then the end is seen */
	ops_succeed(r, &d, 1);
	CHECKF(same_bytes(y, 64, 5), "%s: lost by closing", r->t->name);
	ops_run(r, &d, 1);
	CHECKF(d.result == TT_FAILED, "%s: a message from a closed end", r->t->name);
	rig_close(r, e.b);
	e = open_ends(r, 803); /* the same key again, after both have closed */
	transfer(r, e.a, e.b, x, y, 64);
	close_ends(r, e);
}

static void gone_of(struct rig *r)
{
	struct ends e = open_ends(r, 804);
	void *other = rig_open(r, 1, 2, 805), *far = rig_open(r, 2, 1, 805);
	char x[64], y[64];
	struct op s = { .link = e.a, .kind = OP_SEND, .p = x, .n = 64 };
	struct op d = { .link = e.b, .kind = OP_RECV, .p = y, .n = 64 };

	if (r->t->ep_per_rank) { /* no process can go and leave another end behind */
		close_ends(r, e);
		close_ends(r, (struct ends){ other, far });
		return;
	}
	fill_bytes(x, 64, 6);
	ops_succeed(r, &s, 1);
	for (int i = 0; i < 200; i++)
		rig_poll(r);
	r->t->peer_gone(r->ep[1], 1); /* it said nothing, as the dead do */
	ops_succeed(r, &d, 1);
	CHECKF(same_bytes(y, 64, 6), "%s: what the dead had sent is lost", r->t->name);
	ops_run(r, &d, 1);
	CHECKF(d.result == TT_FAILED, "%s: waits for the dead", r->t->name);
	CHECKF(r->t->send(e.b, x, 64, &d.note, &d.req) == TT_FAILED, "%s: sends to the dead", r->t->name);
	transfer(r, far, other, x, y, 64);
	close_ends(r, e);
	close_ends(r, (struct ends){ other, far });
}

static void T8_close_after_failed_open(void) { each_transport(refused_of); }
static void T8_close_with_posts_in_flight(void) { each_transport(close_early_of); }
static void T8_close_keeps_what_was_sent(void) { each_transport(drain_of); }
static void T8_peer_gone_drains_then_fails(void) { each_transport(gone_of); }

/* ---- T9, T10 ---- */

static void notes_of(struct rig *r)
{
	struct ends e = open_ends(r, 901);
	char *p = filled(BIG, 1), *q = malloc(BIG);

	for (uint32_t i = 0; i < NSIZES; i++) {
		struct op ops[2] = { { .link = e.a, .kind = OP_SEND, .p = p, .n = sizes[i] },
				     { .link = e.b, .kind = OP_RECV, .p = q, .n = sizes[i] } };

		ops[0].note = (struct tt_note){ 0xfedcba9876543210u + i, 0x80000000u + i, ~i };
		if (i & 1) /* else another is expected */
			ops[1].req.note = ops[0].note;
		ops_succeed(r, ops, 2);
		CHECKF(memcmp(&ops[0].note, &ops[1].note, 16) == 0, "%s: note of %zu bytes",
		       r->t->name, sizes[i]);
	}
	close_ends(r, e);
	free(p);
	free(q);
}

static void zero_of(struct rig *r)
{
	struct ends e = open_ends(r, 1001);
	struct op ops[12];
	char x = 1, y[6] = { 0 };

	memset(ops, 0, sizeof(ops));
	for (int i = 0; i < 6; i++) {
		ops[i] = (struct op){ .link = e.a, .kind = OP_SEND, .p = i % 2 ? &x : NULL,
				      .n = (size_t)(i % 2) };
		ops[6 + i] = (struct op){ .link = e.b, .kind = OP_RECV, .p = i % 2 ? y + i : NULL,
					  .n = (size_t)(i % 2) };
		ops[i].note.seq = (uint32_t)i + 1;
	}
	ops_succeed(r, ops, 12);
	for (int i = 0; i < 6; i++)
		CHECKF(ops[6 + i].note.seq == (uint32_t)i + 1 && y[i] == i % 2, "%s: message %d",
		       r->t->name, i);
	close_ends(r, e);
}

static void T9_note_travels(void) { each_transport(notes_of); }
static void T10_zero_length(void) { each_transport(zero_of); }

/* ---- T11: read from the sources ---- */

/* The transport that a file or header belongs to: its name up to '_' or '.'. */
static bool owned(const char *name, const char *header)
{
	size_t n = strcspn(name, "_.");

	return strncmp(name, header, n) == 0 && (header[n] == '_' || header[n] == '.');
}

static void check_line(const char *file, const char *line)
{
	static const char *const allowed[] = { "transport.h", "base.h", "reduce.h", "sock.h",
					       "mem.h",       "hmac.h", "net.h" };
	const char *q = strstr(line, "#include \"");
	char header[64] = "";
	bool ok = false;

	CHECKF(strstr(line, "getenv") == NULL, "%s reads the environment: %s", file, line);
	if (q == NULL || sscanf(q, "#include \"%63[^\"]", header) != 1)
		return;
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		ok |= strcmp(header, allowed[i]) == 0;
	CHECKF(ok || owned(file, header), "%s includes %s", file, header);
}

static void T11_includes_and_environment(void)
{
	char path[1024], line[512];
	struct dirent *d;
	DIR *dir;
	int files = 0;

	snprintf(path, sizeof(path), "%.*s../../transports",
		 (int)(strlen(__FILE__) - strlen("conformance.c")), __FILE__);
	dir = opendir(path);
	CHECKF(dir != NULL, "no %s: run this from the top of the source tree", path);
	while ((d = readdir(dir)) != NULL) {
		char name[2048];
		FILE *f;

		if (strlen(d->d_name) < 3 || strcmp(d->d_name + strlen(d->d_name) - 2, ".c") != 0)
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, d->d_name);
		f = fopen(name, "r");
		CHECK(f != NULL);
		while (fgets(line, sizeof(line), f) != NULL)
			check_line(d->d_name, line);
		fclose(f);
		files++;
	}
	closedir(dir);
	CHECK(files >= tt_ntransports);
}

/* ---- T12 ---- */

static void depth_of(struct rig *r)
{
	struct ends busy = open_ends(r, 1201), e = open_ends(r, 1202);
	static struct op load[FLOOD], ops[FLOOD];
	char *p = filled(BIG, 1), q[4096];
	size_t n = tt_min(r->caps.eager, sizeof(q));
	uint32_t depth = r->caps.depth < FLOOD ? r->caps.depth : FLOOD;

	CHECKF(depth > 0 && r->caps.max_message > 0, "%s: no numbers", r->t->name);
	transfer(r, e.a, e.b, p, q, 8);
	flood(r, busy.a, load, p, BIG);
	for (uint32_t i = 0; i < depth; i++) {
		ops[i] = (struct op){ .link = e.a, .kind = OP_SEND, .p = p, .n = n };
		CHECKF(op_post(r, &ops[i]), "%s: %u of %u posts of %zu bytes", r->t->name, i, depth,
		       n);
	}
	for (uint32_t i = 0; i < depth; i++) {
		struct op d = { .link = e.b, .kind = OP_RECV, .p = q, .n = n };

		ops_succeed(r, &d, 1);
		CHECKF(same_bytes(q, n, 1), "%s: message %u", r->t->name, i);
	}
	for (uint32_t i = 0, over = 0; over < depth; i++) {
		over = (uint32_t)ops_step(r, ops, (int)depth);
		rig_poll(r);
		CHECKF(i < 1000000, "%s: sends do not end", r->t->name);
	}
	close_ends(r, busy);
	close_ends(r, e);
	free(p);
}

static void largest_of(struct rig *r)
{
	struct ends busy = open_ends(r, 1203), e = open_ends(r, 1204);
	static struct op load[FLOOD];
	size_t n = tt_min(r->caps.max_message, 24 << 20);
	char *p = filled(n, 8), *q = malloc(n);

	flood(r, busy.a, load, p, BIG);
	transfer(r, e.a, e.b, p, q, n);
	CHECKF(same_bytes(q, n, 8), "%s: %zu bytes", r->t->name, n);
	close_ends(r, busy);
	close_ends(r, e);
	free(p);
	free(q);
}

static void T12_depth_under_load(void) { each_transport(depth_of); }
static void T12_largest_message_under_load(void) { each_transport(largest_of); }

/* ---- T13, T14 ---- */

enum { FULL = 24 };

/* FULL links whose receivers do nothing. */
static void fill_up(struct rig *r, struct ends *full, struct op (*ops)[FLOOD], void *p, uint64_t key)
{
	for (int i = 0; i < FULL; i++) {
		full[i] = open_ends(r, key + (uint64_t)i);
		flood(r, full[i].a, ops[i], p, i % 2 ? BIG : 1000);
	}
}

static void no_hold_of(struct rig *r)
{
	static struct op ops[FULL][FLOOD];
	struct ends full[FULL], e = open_ends(r, 1300);
	char *p = filled(BIG, 1), *q = malloc(BIG);

	fill_up(r, full, ops, p, 1301);
	for (int i = 0; i < 40; i++) {
		size_t n = i % 8 == 7 ? BIG : sizes[i % NSIZES];

		memset(q, 0, n);
		transfer(r, e.a, e.b, p, q, n);
		CHECKF(same_bytes(q, n, 1), "%s: %zu bytes beside full links", r->t->name, n);
		transfer(r, e.b, e.a, p, q, n);
	}
	for (int i = 0; i < FULL; i++)
		close_ends(r, full[i]);
	close_ends(r, e);
	free(p);
	free(q);
}

static void memory_of(struct rig *r)
{
	static struct op ops[FULL][FLOOD];
	struct ends full[FULL], e = open_ends(r, 1400);
	char *p = filled(BIG, 1), *q = malloc(BIG);
	size_t stated, after;

	fill_up(r, full, ops, p, 1401);
	transfer(r, e.a, e.b, p, q, BIG);
	stated = r->t->memory(r->ep[0]);
	CHECKF(stated > 0 && stated < (size_t)(FULL + 1) * (2 << 20) + (16 << 20),
	       "%s: %zu bytes for %d links", r->t->name, stated, FULL + 1);
	for (int i = 0; i < 100; i++)
		transfer(r, e.a, e.b, p, q, BIG);
	CHECKF(same_bytes(q, BIG, 1), "%s: wrong bytes", r->t->name);
	CHECKF(r->t->memory(r->ep[0]) <= stated, "%s: memory grows with the data", r->t->name);
	for (int i = 0; i < FULL; i++)
		close_ends(r, full[i]);
	transfer(r, e.a, e.b, p, q, 8);
	after = r->t->memory(r->ep[0]);
	CHECKF(after <= stated, "%s: memory is not given back", r->t->name);
	close_ends(r, e);
	free(p);
	free(q);
}

static void T13_no_link_holds_up_another(void) { each_transport(no_hold_of); }
static void T14_memory_is_bounded(void) { each_transport(memory_of); }

const struct test tests[] = {
	{ "T1_nth_meets_nth", T1_nth_meets_nth, 0 },
	{ "T1_unequal_lengths_fail_both", T1_unequal_lengths_fail_both, 0 },
	{ "T2_no_call_blocks", T2_no_call_blocks, 0 },
	{ "T3_posts_complete_once_in_order", T3_posts_complete_once_in_order, 0 },
	{ "T4_span_until_completion", T4_span_until_completion, 0 },
	{ "T5_completion_means_visible", T5_completion_means_visible, 0 },
	{ "T6_errors_sticky_per_link", T6_errors_sticky_per_link, 0 },
	{ "T7_any_thread_one_at_a_time", T7_any_thread_one_at_a_time, 0 },
	{ "T8_close_after_failed_open", T8_close_after_failed_open, 0 },
	{ "T8_close_with_posts_in_flight", T8_close_with_posts_in_flight, 0 },
	{ "T8_close_keeps_what_was_sent", T8_close_keeps_what_was_sent, 0 },
	{ "T8_peer_gone_drains_then_fails", T8_peer_gone_drains_then_fails, 0 },
	{ "T9_note_travels", T9_note_travels, 0 },
	{ "T10_zero_length", T10_zero_length, 0 },
	{ "T11_includes_and_environment", T11_includes_and_environment, 0 },
	{ "T12_depth_under_load", T12_depth_under_load, 0 },
	{ "T12_largest_message_under_load", T12_largest_message_under_load, 0 },
	{ "T13_no_link_holds_up_another", T13_no_link_holds_up_another, 0 },
	{ "T14_memory_is_bounded", T14_memory_is_bounded, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
