/* TCP beyond the conformance suite: several and throttled sockets, sleeping, closing and dying half way.
 * SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <sched.h>
#include <stdio.h>

#include "tcp_rig.h"

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 9));
}

static void check(const uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		CHECKF(p[i] == (uint8_t)(seed + i * 7 + (i >> 9)), "byte %zu of %zu, message %u", i, n, seed);
}

/* ---- a stream of messages of random sizes, both ways, in one thread or two ---- */

enum { LANES = 3, FLIGHT = 5, MOST = 700000 };

struct flow_test {            /* one direction of one link */
	void *link;
	bool sends;
	uint64_t sizes;           /* the generator of the sizes, alike at both ends */
	uint32_t key, begun, done, count;
	size_t n[FLIGHT];
	struct tt_req req[FLIGHT];
	bool inline_done[FLIGHT];
	uint8_t *p[FLIGHT];
};

static void flow_test_begin(struct flow_test *f, void *link, bool sends, uint32_t key, uint32_t count)
{
	memset(f, 0, sizeof(*f));
	f->link = link;
	f->sends = sends;
	f->sizes = test_seed() + key;
	f->key = key;
	f->count = count;
	for (int i = 0; i < FLIGHT; i++)
		f->p[i] = malloc(MOST);
}

static size_t next_size(uint64_t *state)
{
	uint32_t r = test_rand(state);

	switch (r % 4) {
	case 0: return r / 4 % 64;
	case 1: return 4090 + r / 4 % 12;
	case 2: return r / 4 % 40000;
	default: return r / 4 % MOST;
	}
}

static void flow_test_post(struct flow_test *f)
{
	int i = (int)(f->begun % FLIGHT);
	uint64_t sizes = f->sizes;
	struct tt_note note = { f->key, f->begun, 7 };
	enum tt_post got;

	f->n[i] = next_size(&sizes);
	if (f->sends) {
		fill(f->p[i], f->n[i], f->key + f->begun);
		got = T->send(f->link, f->p[i], f->n[i], &note, &f->req[i]);
	} else {
		got = T->recv(f->link, f->p[i], f->n[i], &f->req[i]);
	}
	CHECKF(got != TT_FAILED, "%s", error_of(f->link));
	if (got == TT_AGAIN)
		return;
	f->inline_done[i] = got == TT_DONE;
	f->sizes = sizes;
	f->begun++;
}

static void flow_test_reap(struct flow_test *f)
{
	while (f->done < f->begun) {
		int i = (int)(f->done % FLIGHT);

		if (!f->inline_done[i] && !over(&f->req[i]))
			break;
		CHECKF(f->inline_done[i] || f->req[i].state == TT_REQ_DONE, "%s", error_of(f->link));
		if (!f->sends) {
			check(f->p[i], f->n[i], f->key + f->done);
			CHECK(f->req[i].note.sig == f->key && f->req[i].note.seq == f->done);
		} else {
			memset(f->p[i], 0xdd, f->n[i]); /* it is ours again */
		}
		f->done++;
	}
}

/* Advances as far as it can; true at the end. */
static bool flow_test_step(struct flow_test *f)
{
	uint32_t before;

	do {
		before = f->begun;
		flow_test_reap(f);
		if (f->begun < f->count && f->begun - f->done < FLIGHT)
			flow_test_post(f);
	} while (f->begun != before);
	return f->done == f->count;
}

static void flow_test_end(struct flow_test *f)
{
	for (int i = 0; i < FLIGHT; i++)
		free(f->p[i]);
}

/* All lanes of one node, sends and receives. */
struct side {
	struct node *node;
	void *link[LANES];
	struct flow_test f[2 * LANES];
	bool sleeps;
	_Atomic int *over;        /* how many of the two are at their end */
};

static void side_begin(struct side *s, struct node *n, uint32_t count)
{
	memset(s, 0, sizeof(*s));
	s->node = n;
	for (uint32_t i = 0; i < LANES; i++) {
		s->link[i] = open_link(n, 3 - n->id, 1000 + i);
		flow_test_begin(&s->f[2 * i], s->link[i], true, 100 * i + 10 * (uint32_t)n->id, count);
		flow_test_begin(&s->f[2 * i + 1], s->link[i], false, 100 * i + 30 - 10 * (uint32_t)n->id,
				count);
	}
}

static bool side_step(struct side *s)
{
	int ended = 0;

	for (int i = 0; i < 2 * LANES; i++)
		ended += flow_test_step(&s->f[i]);
	return ended == 2 * LANES;
}

static void side_sleep(struct side *s)
{
	struct pollfd fd = { .fd = T->wait_fd(s->node->ep), .events = POLLIN };

	if (T->arm(s->node->ep))
		CHECKF(poll(&fd, 1, 5000) == 1, "asleep for 5 s: endpoint %d", (int)s->node->id);
	T->disarm(s->node->ep);
}

static void side_end(struct side *s)
{
	for (int i = 0; i < LANES; i++)
		close_link(s->link[i]);
	for (int i = 0; i < 2 * LANES; i++)
		flow_test_end(&s->f[i]);
}

static void stream(const char *sockets, bool inet, int buffer, int throttled, uint32_t count)
{
	struct node n[2];
	struct side s[2];
	uint64_t end = tt_now_ns() + 40000000000ull;

	two(n, sockets, inet, buffer, throttled);
	for (int i = 0; i < 2; i++)
		side_begin(&s[i], &n[i], count);
	for (bool a = false, b = false; !a || !b;) {
		a = side_step(&s[0]);
		b = side_step(&s[1]);
		poll_both(n);
		CHECK(tt_now_ns() < end);
	}
	for (int i = 0; i < 2; i++)
		side_end(&s[i]);
	for (int i = 0; i < 2; i++)
		node_close(&n[i]);
}

static void several_sockets(void) { stream("3", true, 0, -1, 60); stream("8", false, 0, -1, 60); }
static void small_buffers(void) { stream("1", false, 4096, -1, 25); stream("4", true, 65536, -1, 25); }
static void throttled_socket(void) { stream("3", false, 0, 1, 40); stream("2", false, 0, 0, 40); }

static void side_run(int i, void *arg)
{
	struct side *s = (struct side *)arg + i;

	while (!side_step(s))
		if (!T->poll(s->node->ep) && s->sleeps)
			side_sleep(s);
	/* Some of what it sent may wait for room; the other end waits for that. */
	atomic_fetch_add(s->over, 1);
	while (atomic_load(s->over) < 2)
		if (!T->poll(s->node->ep))
			sched_yield();
}

static void threads(const char *sockets, bool inet, int buffer, bool sleeps)
{
	struct node n[2];
	struct side s[2];
	_Atomic int over_sides = 0;

	two(n, sockets, inet, buffer, -1);
	for (int i = 0; i < 2; i++) {
		side_begin(&s[i], &n[i], 60);
		s[i].sleeps = sleeps;
		s[i].over = &over_sides;
	}
	test_threads(2, side_run, s);
	for (int i = 0; i < 2; i++)
		side_end(&s[i]);
	for (int i = 0; i < 2; i++)
		node_close(&n[i]);
}

static void threads_polling(void) { threads("2", true, 0, false); }
static void threads_sleeping(void)
{
	threads("1", true, 0, true);
	threads("6", false, 0, true); /* more sockets than are tried one by one */
	threads("1", false, 4096, true);
}

/* ---- one process with both ends, early messages, keys used again ---- */

static void send_now(void *l, const void *p, size_t n)
{
	struct tt_req r = { 0 };
	struct tt_note note = { 0 };

	CHECK(T->send(l, p, n, &note, &r) == TT_DONE);
}

static void recv_soon(struct node n[2], void *l, void *p, size_t size)
{
	struct tt_req r = { 0 };
	uint64_t end = tt_now_ns() + 5000000000ull;
	enum tt_post got = T->recv(l, p, size, &r);

	while (got == TT_POSTED && !over(&r) && tt_now_ns() < end)
		poll_both(n);
	CHECKF(got == TT_DONE || (got == TT_POSTED && atomic_load(&r.state) == TT_REQ_DONE), "%s",
	       error_of(l) ? error_of(l) : "no message");
}

static void both_ends_here(void)
{
	struct node n[2];
	uint32_t x = 0;

	two(n, "1", false, 0, -1);
	for (uint32_t round = 0; round < 3; round++) {
		void *a = open_link(&n[0], 1, 5), *b;

		send_now(a, &(uint32_t){ round + 1 }, 4);
		poll_both(n);
		b = open_link(&n[0], 1, 5);
		send_now(b, &(uint32_t){ round + 50 }, 4);
		recv_soon(n, b, &x, 4);
		CHECK(x == round + 1);
		recv_soon(n, a, &x, 4);
		CHECK(x == round + 50);
		close_link(a);
		close_link(b);
	}
	for (int i = 0; i < 2; i++)
		node_close(&n[i]);
}

static void key_again(void)
{
	struct node n[2];
	uint32_t x = 0;
	size_t before;

	two(n, "2", false, 0, -1);
	close_link(open_link(&n[0], 2, 4));
	close_link(open_link(&n[1], 1, 4));
	for (int i = 0; i < 20; i++)
		poll_both(n);
	before = T->memory(n[0].ep);
	for (uint32_t i = 0; i < 200; i++) {
		void *a = open_link(&n[0], 2, 9), *b = open_link(&n[1], 1, 9);

		send_now(a, &i, 4);
		recv_soon(n, b, &x, 4);
		CHECK(x == i);
		close_link(i & 1 ? a : b);
		if (i % 3 == 0)
			poll_both(n);
		close_link(i & 1 ? b : a);
	}
	for (int i = 0; i < 40; i++)
		poll_both(n);
	CHECKF(T->memory(n[0].ep) <= before + 4096, "%zu bytes before, %zu after", before,
	       T->memory(n[0].ep));
	for (int i = 0; i < 2; i++)
		node_close(&n[i]);
}

/* What a process has sent before it ended is delivered, also where its link was not open yet. */
static void sent_then_gone(void)
{
	struct node n[2];
	struct tt_req r = { 0 };
	uint32_t x = 0;
	void *a, *b;

	two(n, "2", true, 0, -1);
	a = open_link(&n[0], 2, 1);
	for (uint32_t i = 0; i < 3; i++)
		send_now(a, &i, 4);
	close_link(a);
	node_close(&n[0]);
	for (int i = 0; i < 100; i++)
		poll_both(n);
	T->peer_gone(n[1].ep, 1);
	b = calloc(1, T->link_size);
	CHECK(T->link_open(n[1].ep, b, 1, 1) == tuttiSuccess);
	for (uint32_t i = 0; i < 3; i++) {
		CHECK(T->recv(b, &x, 4, &r) == TT_DONE);
		CHECK(x == i);
	}
	CHECK(T->recv(b, &x, 4, &r) == TT_FAILED);
	CHECK(strstr(error_of(b), "0000000000000001"));
	close_link(b);
	node_close(&n[1]);
}

static void other_end_closes(void)
{
	struct node n[2];
	struct tt_req r[2] = { 0 };
	uint32_t x = 0;
	static char big[100000];
	void *a, *b;

	two(n, "1", false, 0, -1);
	a = open_link(&n[0], 2, 1);
	b = open_link(&n[1], 1, 1);
	send_now(a, &(uint32_t){ 77 }, 4);
	close_link(a);
	for (int i = 0; i < 20; i++)
		poll_both(n);
	recv_soon(n, b, &x, 4);
	CHECK(x == 77 && !error_of(b));
	(void)T->recv(b, &x, 4, &r[0]);
	(void)T->send(b, big, sizeof(big), &(struct tt_note){ 0 }, &r[1]);
	CHECK(error_soon(n, b, 3));
	CHECK(over(&r[0]) && over(&r[1]));
	close_link(b);
	for (int i = 0; i < 2; i++)
		node_close(&n[i]);
}

/* ---- closing and failing half way ---- */

static void closed_in_a_frame(void)
{
	struct node n[2];
	enum { SIZE = 1 << 20 };
	uint8_t *big, *into;
	struct tt_req s = { 0 }, d = { 0 };
	uint32_t x = 0;
	void *a[2], *b[2];

	for (int receiver = 0; receiver < 2; receiver++) {
		two(n, "2", false, 4096, -1);
		for (uint64_t k = 0; k < 2; k++) {
			a[k] = open_link(&n[0], 2, k);
			b[k] = open_link(&n[1], 1, k);
		}
		big = malloc(SIZE);
		into = malloc(SIZE);
		fill(big, SIZE, 1);
		CHECK(T->recv(b[0], into, SIZE, &d) == TT_POSTED);
		poll_both(n);
		CHECK(T->send(a[0], big, SIZE, &(struct tt_note){ 0 }, &s) == TT_POSTED);
		for (int i = 0; i < 3; i++)
			poll_both(n);
		CHECK(!over(&s) && !over(&d));
		close_link(receiver ? b[0] : a[0]);
		if (receiver)
			memset(into, 0xab, SIZE); /* it is ours again */
		else
			free(big);
		for (uint32_t i = 0; i < 20; i++) {
			(void)T->send(a[1], &i, 4, &(struct tt_note){ 0 }, &(struct tt_req){ 0 });
			recv_soon(n, b[1], &x, 4);
			CHECK(x == i);
		}
		CHECK(error_soon(n, receiver ? a[0] : b[0], 3));
		for (size_t i = 0; receiver && i < SIZE; i++)
			CHECKF(into[i] == 0xab, "byte %zu written after close", i);
		close_link(receiver ? a[0] : b[0]);
		close_link(a[1]);
		close_link(b[1]);
		for (int i = 0; i < 2; i++)
			node_close(&n[i]);
		if (receiver)
			free(big);
		free(into);
	}
}

static void one_socket_dies(void)
{
	struct node n[2];
	struct tt_req r = { 0 };
	char p[8];
	void *a, *b;
	const char *why;

	two(n, "3", true, 0, -1);
	a = open_link(&n[0], 2, 1);
	b = open_link(&n[1], 1, 1);
	poll_both(n);
	CHECK(T->recv(b, p, 8, &r) == TT_POSTED);
	CHECK(!shutdown(n[0].dialled[2], SHUT_RDWR));
	why = error_soon(n, b, 3);
	CHECK(why && strstr(why, "127.0.0.1") && strstr(why, "closed the connection"));
	CHECK(atomic_load(&r.state) == TT_REQ_FAILED);
	CHECK(error_soon(n, a, 3));
	close_link(a);
	close_link(b);
	a = open_link(&n[0], 2, 2); /* new links dial anew */
	b = open_link(&n[1], 1, 2);
	send_now(a, "anew", 4);
	recv_soon(n, b, p, 4);
	CHECK(!memcmp(p, "anew", 4));
	close_link(a);
	close_link(b);
	for (int i = 0; i < 2; i++)
		node_close(&n[i]);
}

static void lengths_in_text(void)
{
	static const struct {
		size_t sent, posted;
	} cases[] = { { 100, 200 }, { 100, 300000 }, { 300000, 100 }, { 300000, 400000 }, { 0, 8 } };
	static char p[400000], q[400000];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int first = 0; first < 2; first++) {
			struct node n[2];
			struct tt_req s = { 0 }, d = { 0 };
			char sent[32], posted[32];
			void *a, *b;

			two(n, "2", false, 0, -1);
			a = open_link(&n[0], 2, 1);
			b = open_link(&n[1], 1, 1);
			if (first)
				(void)T->recv(b, q, cases[i].posted, &d);
			poll_both(n);
			(void)T->send(a, p, cases[i].sent, &(struct tt_note){ 0 }, &s);
			poll_both(n);
			if (!first)
				(void)T->recv(b, q, cases[i].posted, &d);
			snprintf(sent, sizeof(sent), " %zu bytes were sent", cases[i].sent);
			snprintf(posted, sizeof(posted), "receive is for %zu", cases[i].posted);
			for (int e = 0; e < 2; e++) {
				const char *why = error_soon(n, e ? b : a, 3);

				CHECKF(why && strstr(why, sent) && strstr(why, posted), "case %zu: %s", i,
				       why ? why : "no error");
			}
			close_link(a);
			close_link(b);
			for (int e = 0; e < 2; e++)
				node_close(&n[e]);
		}
}

static void bounded_close(void)
{
	struct node n[2];
	static uint8_t big[4 << 20];
	struct tt_req s = { 0 }, d = { 0 };
	uint64_t t0;
	void *a, *b;

	two(n, "1", true, 8192, -1);
	a = open_link(&n[0], 2, 1);
	b = open_link(&n[1], 1, 1);
	(void)T->recv(b, big, sizeof(big) / 2, &d);
	poll_both(n);
	(void)T->send(a, big + sizeof(big) / 2, sizeof(big) / 2, &(struct tt_note){ 0 }, &s);
	T->poll(n[0].ep);
	close_link(a);
	t0 = tt_now_ns();
	node_close(&n[0]); /* the other end does not read */
	CHECK(tt_now_ns() - t0 < 1500000000u);
	close_link(b);
	t0 = tt_now_ns();
	node_close(&n[1]);
	CHECK(tt_now_ns() - t0 < 1500000000u);
}

const struct test tests[] = {
	{ "several_sockets", several_sockets, 0 },
	{ "small_buffers", small_buffers, 0 },
	{ "throttled_socket", throttled_socket, 0 },
	{ "threads_polling", threads_polling, 0 },
	{ "threads_sleeping", threads_sleeping, 0 },
	{ "both_ends_here", both_ends_here, 0 },
	{ "key_again", key_again, 0 },
	{ "sent_then_gone", sent_then_gone, 0 },
	{ "other_end_closes", other_end_closes, 0 },
	{ "closed_in_a_frame", closed_in_a_frame, 0 },
	{ "one_socket_dies", one_socket_dies, 0 },
	{ "lengths_in_text", lengths_in_text, 0 },
	{ "bounded_close", bounded_close, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
