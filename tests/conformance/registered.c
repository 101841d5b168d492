/* Registered memory over every transport: what lies in it arrives as what does not, whichever end has registered,
 * and nothing is read or written in memory that has been given back. Without reg nothing is different.
 * SPDX-License-Identifier: Apache-2.0 */
#include <sys/mman.h>

#include "rig.h"

enum { ROOM = 4 << 20, N = 6, BULK = 300000 };

/* Memory of one end. */
struct area {
	struct rig *r;
	void *ep, *handle;
	char *p;
};

static void area_register(struct area *a, char *p, size_t n)
{
	a->handle = NULL;
	if (a->r->t->reg)
		CHECKF(a->r->t->reg(a->ep, p, n, 0, &a->handle) == tuttiSuccess, "%s: %s", a->r->t->name,
		       tt_last_error());
}

static void area_end(struct area *a)
{
	if (a->handle)
		a->r->t->dereg(a->ep, a->handle);
	a->handle = NULL;
}

static struct area area_new(struct rig *r, int at, bool registered)
{
	struct area a = { .r = r, .ep = r->ep[at] };

	a.p = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(a.p != MAP_FAILED);
	if (registered)
		area_register(&a, a.p, ROOM);
	return a;
}

static void area_free(struct area *a)
{
	area_end(a);
	munmap(a->p, ROOM);
}

/* Other memory at the same place. */
static void area_renew(struct area *a)
{
	CHECK(mmap(a->p, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == a->p);
}

/* N messages at once from a to b; what is around them stays. */
static void move(struct rig *r, struct ends e, struct area *a, struct area *b, size_t n, uint64_t seed)
{
	struct op ops[2 * N];

	memset(ops, 0, sizeof(ops));
	memset(b->p, 0x33, ROOM);
	for (int i = 0; i < N; i++) {
		size_t at = 100 + (size_t)i * (n + 200);

		fill_bytes(a->p + at, n, seed + (uint64_t)i);
		ops[i] = (struct op){ .link = e.a, .kind = OP_SEND, .p = a->p + at, .n = n };
		ops[N + i] = (struct op){ .link = e.b, .kind = OP_RECV, .p = b->p + at + 4, .n = n };
	}
	ops_succeed(r, ops, 2 * N);
	for (int i = 0; i < N; i++) {
		const char *p = b->p + 104 + (size_t)i * (n + 200);

		CHECKF(same_bytes(p, n, seed + (uint64_t)i), "%s: %zu bytes arrive as others", r->t->name, n);
		CHECKF(p[-1] == 0x33 && p[n] == 0x33, "%s: wrote beside %zu bytes", r->t->name, n);
	}
}

static void both_of(struct rig *r)
{
	static const size_t sizes[] = { 1, 4000, 4097, 70001, BULK };
	struct ends e = open_ends(r, 2001);

	for (int who = 0; who < 4; who++) {
		struct area a = area_new(r, 0, who & 1), b = area_new(r, 1, who & 2);

		for (int i = 0; i < 5; i++) {
			move(r, e, &a, &b, sizes[i], (uint64_t)(i + who));
			move(r, (struct ends){ e.b, e.a }, &b, &a, sizes[i], (uint64_t)(i + who + 9));
		}
		area_free(&a);
		area_free(&b);
	}
	close_ends(r, e);
}

static void reused_of(struct rig *r)
{
	struct ends e = open_ends(r, 2002);
	struct area a = area_new(r, 0, false), b = area_new(r, 1, false);

	for (int i = 0; i < 8; i++) {
		if (i % 3 != 2) {
			area_register(&a, a.p + i * 4096, ROOM - 2 * i * 4096);
			area_register(&b, b.p + i * 512, ROOM - i * 512);
		}
		move(r, e, &a, &b, BULK, (uint64_t)i);
		area_end(&a);
		area_end(&b);
		area_renew(&a);
		area_renew(&b);
	}
	area_free(&a);
	area_free(&b);
	close_ends(r, e);
}

static void overlap_of(struct rig *r)
{
	struct ends e = open_ends(r, 2003);
	struct area a = area_new(r, 0, true), b = area_new(r, 1, true), part[8];

	for (int i = 0; i < 8; i++) {
		part[i] = i % 2 ? a : b;
		area_register(&part[i], part[i].p + i * 1000, i < 6 ? ROOM / 2 : ROOM);
	}
	move(r, e, &a, &b, BULK, 1);
	area_end(&a);
	area_end(&part[3]);
	area_end(&part[2]);
	move(r, e, &a, &b, BULK, 2);
	area_end(&b);
	for (int i = 0; i < 8; i++) {
		area_end(&part[i]);
		move(r, e, &a, &b, 50000, 3);
	}
	area_free(&a);
	area_free(&b);
	close_ends(r, e);
}

/* The registration ends while posts are in flight: they end well. */
static void ended_of(struct rig *r)
{
	struct ends e = open_ends(r, 2004);
	struct area a = area_new(r, 0, true), b = area_new(r, 1, true);
	struct op ops[2] = { { .link = e.a, .kind = OP_SEND, .p = a.p, .n = BULK, .result = TT_AGAIN },
			     { .link = e.b, .kind = OP_RECV, .p = b.p, .n = BULK, .result = TT_AGAIN } };

	move(r, e, &a, &b, BULK, 4);
	fill_bytes(a.p, BULK, 5);
	ops_step(r, ops, 2);
	area_end(&b);
	rig_poll(r);
	area_end(&a);
	while (ops_step(r, ops, 2) < 2)
		rig_poll(r);
	CHECKF(ops[0].result == TT_DONE && ops[1].result == TT_DONE && same_bytes(b.p, BULK, 5),
	       "%s: posts in flight and the end of a registration", r->t->name);
	area_free(&a);
	area_free(&b);
	close_ends(r, e);
}

/* The receiver closes with posts in flight: its memory is its own again, and other links live on. */
static void closed_of(struct rig *r)
{
	struct ends e = open_ends(r, 2005), other = open_ends(r, 2006);
	struct area a = area_new(r, 0, true), b = area_new(r, 1, true), c = area_new(r, 1, false);
	struct op ops[3];

	move(r, e, &a, &b, BULK, 6);
	for (int i = 0; i < 3; i++) {
		ops[i] = (struct op){ .link = e.b, .kind = OP_RECV, .p = b.p + i * BULK, .n = BULK };
		(void)op_post(r, &ops[i]); /* AGAIN: where nothing is kept that has nothing to meet */
		rig_poll(r);
	}
	for (int i = 0; i < 50; i++)
		rig_poll(r);
	rig_close(r, e.b);
	memset(b.p, 0x44, ROOM);
	for (int i = 0; i < 2000; i++)
		rig_poll(r);
	ops[0] = (struct op){ .link = e.a, .kind = OP_SEND, .p = a.p, .n = BULK };
	ops_run(r, ops, 1);
	CHECKF(ops[0].result == TT_FAILED, "%s: sent to a closed end", r->t->name);
	for (int i = 0; i < ROOM; i++)
		CHECKF(b.p[i] == 0x44, "%s: wrote to memory that was given back", r->t->name);
	move(r, other, &a, &b, BULK, 7);
	move(r, other, &a, &c, BULK, 8);
	rig_close(r, e.a);
	close_ends(r, other);
	area_free(&a);
	area_free(&b);
	area_free(&c);
}

/* The sender closes with its bytes on the way: what arrives is what was sent, and other links live on. */
static void withdrawn_of(struct rig *r)
{
	struct ends e, other = open_ends(r, 2007);
	struct area a = area_new(r, 0, true), b = area_new(r, 1, true);

	for (int polls = 0; polls < 12; polls++) {
		struct op s = { .kind = OP_SEND, .p = a.p, .n = BULK, .result = TT_AGAIN };
		struct op d = { .kind = OP_RECV, .p = b.p, .n = BULK, .result = TT_AGAIN };

		e = open_ends(r, 2010 + (uint64_t)polls);
		s.link = e.a;
		d.link = e.b;
		fill_bytes(a.p, BULK, 9);
		ops_step(r, &d, 1);
		ops_step(r, &s, 1);
		for (int i = 0; i < polls * 4; i++)
			rig_poll(r);
		rig_close(r, e.a);
		memset(a.p, 0, BULK);
		while (!ops_step(r, &d, 1))
			rig_poll(r);
		CHECKF(d.result == TT_FAILED || same_bytes(b.p, BULK, 9), "%s: bytes from after the close",
		       r->t->name);
		rig_close(r, e.b);
		move(r, other, &b, &a, 10, 10);
	}
	move(r, other, &a, &b, BULK, 11);
	close_ends(r, other);
	area_free(&a);
	area_free(&b);
}

enum { LINKS = 3, EACH = 8, CHUNK = 256 << 10, ALL = LINKS * EACH };

/* Sends and receives of EACH messages on each link: from one place, to a place of its own each. */
static void plan(struct ends *e, struct op *s, struct op *d, char *from, char *to)
{
	for (int i = 0; i < ALL; i++) {
		s[i] = (struct op){ .link = e[i / EACH].a, .kind = OP_SEND, .p = from, .n = CHUNK, .result = TT_AGAIN };
		d[i] = (struct op){ .link = e[i / EACH].b, .kind = OP_RECV, .p = to + (size_t)i * CHUNK, .n = CHUNK,
				    .result = TT_AGAIN };
	}
}

/* More is sent at once than there is staging for, and the last link, whose bytes wait for room, is closed. It ends by
 * itself: what arrives there is whole, and the other links lose nothing. */
static void crowded_of(struct rig *r)
{
	struct ends e[LINKS];
	struct op s[ALL], d[ALL];
	char *from = malloc(CHUNK), *to = malloc((size_t)ALL * CHUNK);
	struct area b = { .r = r, .ep = r->ep[1] };
	int left = ALL - EACH, over;
	uint64_t end = tt_now_ns() + 20000000000ull;

	area_register(&b, to, (size_t)ALL * CHUNK);
	fill_bytes(from, CHUNK, 12);
	for (int i = 0; i < LINKS; i++)
		e[i] = open_ends(r, 2030 + (uint64_t)i);
	plan(e, s, d, from, to);
	(void)ops_step(r, d, ALL);
	for (int i = 0; i < 500; i++)
		rig_poll(r);
	(void)ops_step(r, s, ALL);
	rig_close(r, e[LINKS - 1].a);
	for (over = 0; over < left + ALL; rig_poll(r)) {
		over = ops_step(r, s, left) + ops_step(r, d, ALL);
		CHECKF(tt_now_ns() < end, "%s: links do not end", r->t->name);
	}
	for (int i = 0; i < ALL; i++)
		CHECKF(d[i].result == TT_DONE ? same_bytes(d[i].p, CHUNK, 12) : i >= left,
		       "%s: message %d of the links that stayed open", r->t->name, i);
	transfer(r, e[1].b, e[1].a, from, to, 100);
	rig_close(r, e[LINKS - 1].b);
	close_ends(r, e[1]);
	close_ends(r, e[0]);
	area_end(&b);
	free(from);
	free(to);
}

/* Receives that wait for an end which closes give back whatever was set aside for their bytes. */
static void left_of(struct rig *r)
{
	struct ends other = open_ends(r, 2040);
	char *p = calloc(1, (size_t)EACH * CHUNK);

	for (int turn = 0; turn < 4; turn++) {
		struct ends e = open_ends(r, 2041 + (uint64_t)turn);
		struct op d[EACH];

		for (int i = 0; i < EACH; i++)
			d[i] = (struct op){ .link = e.b, .kind = OP_RECV, .p = p + (size_t)i * CHUNK, .n = CHUNK,
					    .result = TT_AGAIN };
		(void)ops_step(r, d, EACH);
		for (int i = 0; i < 500; i++)
			rig_poll(r);
		rig_close(r, e.a);
		while (ops_step(r, d, EACH) < EACH)
			rig_poll(r);
		rig_close(r, e.b);
		transfer(r, other.a, other.b, p, p + CHUNK, CHUNK);
	}
	close_ends(r, other);
	free(p);
}

static void either_end(void) { each_transport(both_of); }
static void reused_addresses(void) { each_transport(reused_of); }
static void overlapping(void) { each_transport(overlap_of); }
static void ended_in_flight(void) { each_transport(ended_of); }
static void closed_by_receiver(void) { each_transport(closed_of); }
static void closed_by_sender(void) { each_transport(withdrawn_of); }
static void closed_while_it_waits(void) { each_transport(crowded_of); }
static void closed_while_others_wait(void) { each_transport(left_of); }

const struct test tests[] = {
	{ "registered_at_either_end", either_end, 0 },
	{ "registered_addresses_used_again", reused_addresses, 0 },
	{ "registered_ranges_overlap", overlapping, 0 },
	{ "registration_ends_in_flight", ended_in_flight, 0 },
	{ "registered_and_closed_by_receiver", closed_by_receiver, 0 },
	{ "registered_and_closed_by_sender", closed_by_sender, 0 },
	{ "closed_while_its_bytes_wait", closed_while_it_waits, 0 },
	{ "closed_while_the_other_end_waits", closed_while_others_wait, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
