/* TCP against a peer that speaks as it likes: pieces of frames, wrong ones, garbage, ends.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tcp_rig.h"

struct raw {
	struct node n[2];
	void *link;
	uint8_t posted[64 + 4 + 64]; /* a receive of 4 bytes, in the middle */
	struct tt_req req;
};

static void raw_begin(struct raw *r, uint64_t key)
{
	int sv[2];

	memset(r, 0, sizeof(*r));
	setenv("TUTTI_TCP_SOCKETS", "1", 1);
	setenv("TUTTI_TCP_EAGER", "4096", 1);
	r->n[0].throttled = -1;
	node_open(&r->n[0], 1, NULL);
	pair(&r->n[0], 0, sv);
	r->n[0].raw_out = sv[0];
	T->accept(r->n[0].ep, 3, 0, sv[1]);
	r->link = open_link(&r->n[0], 3, key);
	CHECK(T->recv(r->link, r->posted + 64, 4, &r->req) == TT_POSTED);
	T->poll(r->n[0].ep);
}

static void raw_end(struct raw *r)
{
	close_link(r->link);
	node_close(&r->n[0]);
}

static void raw_write(int fd, const void *p, size_t n)
{
	CHECK(send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void raw_frame(int fd, const struct msg_frame *f, const void *payload)
{
	uint8_t b[MSG_HEADER];

	tt_msg_pack(b, f);
	raw_write(fd, b, sizeof(b));
	if (f->len && payload)
		raw_write(fd, payload, f->len);
}

static void partial_reads(void)
{
	struct raw r;
	struct msg_frame f = { .type = MSG_EAGER, .key = 5, .len = 4, .total = 4 };
	uint8_t b[MSG_HEADER + 4];

	raw_begin(&r, 5);
	tt_msg_pack(b, &f);
	memcpy(b + MSG_HEADER, "abcd", 4);
	for (size_t i = 0; i < sizeof(b); i++) {
		CHECK(!over(&r.req));
		raw_write(r.n[0].raw_out, b + i, 1);
		T->poll(r.n[0].ep);
	}
	CHECK(atomic_load(&r.req.state) == TT_REQ_DONE && !memcmp(r.posted + 64, "abcd", 4));
	raw_end(&r);
}

/* Each must fail the link, with words, and touch nothing. */
static const struct bad {
	struct msg_frame f;
	bool answer;   /* on the socket that this end has dialled */
	int times;
} bad[] = {
	{ { .type = 0, .key = 5 }, false, 1 },
	{ { .type = 99, .key = 5 }, false, 1 },
	{ { .type = MSG_EAGER, .side = 2, .key = 5 }, false, 1 },
	{ { .type = MSG_EAGER, .key = 5, .len = 8, .total = 4 }, false, 1 },
	{ { .type = MSG_EAGER, .key = 5, .len = UINT32_MAX, .total = UINT32_MAX }, false, 1 },
	{ { .type = MSG_EAGER, .key = 5, .len = 5, .total = 5 }, false, 1 },
	{ { .type = MSG_EAGER, .key = 5, .seq = UINT32_MAX }, false, 1 },
	{ { .type = MSG_EAGER, .key = 5, .seq = 7 }, false, 2 },
	{ { .type = MSG_EAGER, .key = 5, .credit = 1 }, false, 1 },
	{ { .type = MSG_EAGER, .key = 5, .len = 4097, .total = 4097, .seq = 1 }, false, 1 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 8, .total = 8 }, false, 1 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 2, .total = 4, .seq = 1 }, false, 1 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 2, .off = 3, .total = 4 }, false, 1 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 2, .off = UINT64_MAX, .total = 4 }, false, 1 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 4, .total = 4 }, false, 2 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 3, .total = 4 }, false, 2 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .total = 4 }, false, 1 },
	{ { .type = MSG_DATA, .key = 5, .token = 1, .len = 4, .total = UINT64_MAX }, false, 1 },
	{ { .type = MSG_ADVERT, .key = 5 }, false, 1 },
	{ { .type = MSG_ADVERT, .key = 5, .seq = 8, .total = 9 }, true, 1 },
	{ { .type = MSG_ADVERT, .key = 5, .len = 1 }, true, 1 },
	{ { .type = MSG_CREDIT, .key = 5, .credit = 1 }, true, 1 },
	{ { .type = MSG_EAGER, .key = 5 }, true, 1 },
	{ { .type = MSG_ASK, .key = 5, .total = 5 }, false, 1 },
	{ { .type = MSG_ERROR, .key = 5, .off = UINT64_MAX, .total = UINT64_MAX }, false, 1 },
};

static void bad_frames(void)
{
	static uint8_t payload[8192];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct raw r;

		raw_begin(&r, 5);
		memset(payload, 0xee, sizeof(payload));
		for (int k = 0; k < bad[i].times; k++)
			raw_frame(bad[i].answer ? r.n[0].raw_in : r.n[0].raw_out, &bad[i].f,
				  bad[i].f.len <= sizeof(payload) ? payload : NULL);
		CHECKF(error_soon(r.n, r.link, 2), "frame %zu was taken", i);
		CHECKF(strstr(error_of(r.link), "0000000000000003"), "frame %zu: %s", i, error_of(r.link));
		for (size_t k = 0; k < sizeof(r.posted); k++)
			CHECKF(!r.posted[k] || (k >= 64 && k < 68), "frame %zu wrote beside the span", i);
		CHECK(over(&r.req));
		raw_end(&r);
	}
}

/* Four messages may be ahead of the receives, the fifth not. */
static void beyond_credit(void)
{
	struct raw r;
	struct msg_frame f = { .type = MSG_EAGER, .key = 5, .len = 4, .total = 4 };

	raw_begin(&r, 5);
	for (f.seq = 1; f.seq <= MSG_CREDITS; f.seq++)
		raw_frame(r.n[0].raw_out, &f, "abcd");
	CHECK(!error_soon(r.n, r.link, 0.05));
	raw_frame(r.n[0].raw_out, &f, "abcd");
	CHECK(error_soon(r.n, r.link, 2) && strstr(error_of(r.link), "beyond its credit"));
	raw_end(&r);
}

static void garbage(void)
{
	uint64_t seed = test_seed();

	for (int round = 0; round < 50; round++) {
		struct raw r;
		uint8_t b[4096];

		raw_begin(&r, 5);
		for (size_t i = 0; i < sizeof(b); i++)
			b[i] = (uint8_t)test_rand(&seed);
		raw_write(round & 1 ? r.n[0].raw_in : r.n[0].raw_out, b, sizeof(b));
		CHECK(error_soon(r.n, r.link, 2));
		raw_end(&r);
	}
}

static void cut_in_a_message(void)
{
	struct raw r;
	struct msg_frame f = { .type = MSG_EAGER, .key = 5, .len = 4, .total = 4 };

	raw_begin(&r, 5);
	raw_frame(r.n[0].raw_out, &f, NULL);
	close(r.n[0].raw_out);
	r.n[0].raw_out = -1;
	CHECK(error_soon(r.n, r.link, 0.5)); /* at once: there is nothing to wait for */
	CHECK(strstr(error_of(r.link), "in the middle of a message"));
	raw_end(&r);
}

static void too_many_links(void)
{
	struct raw r;
	struct msg_frame f = { .type = MSG_ASK, .total = 9 };
	uint8_t b[64 * MSG_HEADER];

	raw_begin(&r, 5);
	for (f.key = 100; f.key < 100 + MSG_ORPHANS_MAX + 64 && !error_of(r.link);) {
		for (size_t i = 0; i < 64; i++, f.key++)
			tt_msg_pack(b + i * MSG_HEADER, &f);
		raw_write(r.n[0].raw_out, b, sizeof(b));
		T->poll(r.n[0].ep);
	}
	CHECK(error_soon(r.n, r.link, 2) && strstr(error_of(r.link), "too many links"));
	raw_end(&r);
}

static void reply_with_frames(struct raw *r, struct msg_frame want)
{
	uint8_t b[MSG_HEADER];
	struct msg_frame f;

	T->poll(r->n[0].ep);
	CHECK(recv(want.type == MSG_ADVERT || want.type == MSG_CREDIT ? r->n[0].raw_out :
									    r->n[0].raw_in,
		   b, sizeof(b), MSG_DONTWAIT) == sizeof(b));
	CHECK(!tt_msg_unpack(&f, b, TCP_CHUNK));
	CHECKF(f.type == want.type && f.seq == want.seq && f.total == want.total && f.key == 5 &&
		       f.credit == want.credit,
	       "type %d seq %u total %llu credit %u", f.type, f.seq, (unsigned long long)f.total, f.credit);
}

/* The frames themselves: an advert when a receive is posted, a credit when half are used up. */
static void answers(void)
{
	struct raw r;
	static uint8_t big[8192];
	struct tt_req d = { 0 }, e = { 0 };
	struct msg_frame f = { .type = MSG_EAGER, .key = 5, .len = 4, .total = 4 };

	raw_begin(&r, 5);
	CHECK(T->recv(r.link, big, sizeof(big), &d) == TT_POSTED);
	reply_with_frames(&r, (struct msg_frame){ .type = MSG_ADVERT, .seq = 1, .total = 8192 });
	CHECK(T->recv(r.link, r.posted, 4, &e) == TT_POSTED);
	raw_frame(r.n[0].raw_out, &f, "1234");
	f.seq = 2;
	raw_frame(r.n[0].raw_out, &f, "5678");
	reply_with_frames(&r, (struct msg_frame){ .type = MSG_CREDIT, .credit = 2 });
	CHECK(over(&r.req) && !over(&d) && !over(&e)); /* in order */
	f = (struct msg_frame){ .type = MSG_DATA, .key = 5, .token = 1, .seq = 1, .total = 8192 };
	f.len = f.off = 4096;
	raw_frame(r.n[0].raw_out, &f, big);
	f.off = 0;
	raw_frame(r.n[0].raw_out, &f, big);
	CHECK(!error_soon(r.n, r.link, 0.05));
	CHECK(over(&d) && over(&e));
	raw_end(&r);
}

const struct test tests[] = {
	{ "partial_reads", partial_reads, 0 },
	{ "bad_frames", bad_frames, 0 },
	{ "beyond_credit", beyond_credit, 0 },
	{ "garbage", garbage, 0 },
	{ "cut_in_a_message", cut_in_a_message, 0 },
	{ "too_many_links", too_many_links, 0 },
	{ "answers", answers, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
