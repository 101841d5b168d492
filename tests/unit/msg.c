/* Messages over a made-up wire by which senders write into the receiver's memory: places, staging slots given
 * back once each, what is revoked. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "msg.h"
#include "test.h"

enum { EAGER = 1024, STAGED = 20000, MOST = 60000, ROOM = 12, PLACES = 64, LATE = 256 };

struct packet {
	uint8_t head[MSG_HEADER], body[EAGER];
};

/* One way of a connection. */
struct queue {
	struct packet p[ROOM];
	unsigned head, tail;
};

/* Where the other end may write, while req is set. */
struct place {
	const struct tt_req *req;
	const struct msg_flow *flow;
	uint8_t *mem;
	uint8_t *staged; /* of its own, or NULL: mem is the receive's */
	bool revoked;
};

struct wire_conn {
	struct msg_conn base;
	struct queue *out, *in;
	struct packet cur;
	struct msg_flow *cur_flow;
	uint32_t cur_seq;
	size_t cur_len;
	bool busy;
};

/* A message that is out, which its sender is told later. */
struct late {
	struct msg_flow *flow;
	uint32_t seq;
	size_t len;
};

struct wire_ep {
	struct msg_ep base;
	struct late late[LATE];
	int nlate;
	bool tells_late;
	struct wire_ep *other;
	struct queue q[2]; /* of what this one has dialled: to the other, back */
	struct place place[PLACES];
	int slots, placed, unplaced, revoked;
};

static struct wire_ep *ep_of(const struct msg_conn *c)
{
	return (struct wire_ep *)c->peer->ep;
}

static struct msg_conn *new_conn(struct msg_peer *p, int index, bool outgoing)
{
	struct wire_conn *c = calloc(1, sizeof(*c));
	struct wire_ep *ep = (struct wire_ep *)p->ep;

	c->out = outgoing ? &ep->q[0] : &ep->other->q[1];
	c->in = outgoing ? &ep->q[1] : &ep->other->q[0];
	tt_msg_conn_join(&c->base, p, index, outgoing);
	return &c->base;
}

static tuttiResult_t wire_dial(struct msg_peer *p)
{
	p->out[0] = new_conn(p, 0, true);
	p->nout = 1;
	tt_msg_accept(((struct wire_ep *)p->ep)->other, p->ep->config.self, 0, eventfd(0, EFD_CLOEXEC));
	return tuttiSuccess;
}

static struct msg_conn *wire_arrive(struct msg_peer *p, int index, int fd)
{
	close(fd);
	return new_conn(p, index, false);
}

static void wire_look(struct msg_conn *c) { (void)c; }

static void wire_drain(struct msg_conn *b)
{
	struct wire_conn *c = (struct wire_conn *)b;

	while (c->in->head != c->in->tail && !b->lost) {
		struct packet *p = &c->in->p[c->in->head % ROOM];
		struct msg_frame f;

		CHECK(!tt_msg_unpack(&f, p->head, MSG_MAX_MESSAGE));
		tt_msg_frame(b, &f, p->body);
		c->in->head++;
		b->peer->ep->moved++;
		b->peer->ep->owe_retry = true;
	}
}

static void wire_close(struct msg_conn *b)
{
	struct wire_conn *c = (struct wire_conn *)b;

	b->peer->ep->nwriting -= c->busy;
	free(c);
}

static bool wire_idle(const struct msg_conn *c)
{
	return !((const struct wire_conn *)c)->busy;
}

static bool wire_put(struct msg_conn *b, const struct msg_frame *f)
{
	struct queue *q = ((struct wire_conn *)b)->out;

	if (q->tail - q->head == ROOM)
		return false;
	tt_msg_pack(q->p[q->tail++ % ROOM].head, f);
	return true;
}

static void wire_start(struct msg_conn *b, const struct msg_frame *f, const void *body, struct msg_flow *flow)
{
	struct wire_conn *c = (struct wire_conn *)b;
	struct msg_remote to = flow->remote[msg_at(f->seq)];

	b->peer->ep->nwriting++;
	c->busy = true;
	c->cur_flow = flow;
	c->cur_seq = f->seq;
	c->cur_len = f->len;
	tt_msg_pack(c->cur.head, f);
	if (f->type == MSG_EAGER && f->len) {
		memcpy(c->cur.body, body, f->len);
	} else if (f->type == MSG_DATA) {
		struct place *at = &ep_of(b)->other->place[to.keys.sig];

		CHECK(at->revoked || (at->req && (uintptr_t)at->mem == to.addr && f->total <= MOST));
		if (!at->revoked)
			memcpy((uint8_t *)(uintptr_t)to.addr + f->off, body, f->len);
	}
}

static void wire_write(struct msg_conn *b)
{
	struct wire_conn *c = (struct wire_conn *)b;
	struct msg_flow *f = c->cur_flow;

	if (!c->busy || c->out->tail - c->out->head == ROOM)
		return;
	c->out->p[c->out->tail++ % ROOM] = c->cur;
	c->busy = false;
	c->cur_flow = NULL;
	b->peer->ep->nwriting--;
	b->peer->ep->moved++;
	if (f && ep_of(b)->tells_late && ep_of(b)->nlate < LATE)
		ep_of(b)->late[ep_of(b)->nlate++] = (struct late){ f, c->cur_seq, c->cur_len };
	else if (f)
		tt_msg_written(f, c->cur_seq, c->cur_len);
}

static void tell_late(struct wire_ep *ep)
{
	for (int i = 0; i < ep->nlate; i++)
		tt_msg_written(ep->late[i].flow, ep->late[i].seq, ep->late[i].len);
	ep->nlate = 0;
}

static void wire_forget(struct msg_conn *b, struct msg_flow *f)
{
	struct wire_conn *c = (struct wire_conn *)b;

	if (c->cur_flow == f)
		c->cur_flow = NULL;
}

static struct place *place_of(struct wire_ep *ep, const struct tt_req *req)
{
	for (int i = 0; i < PLACES; i++)
		if (ep->place[i].req == req)
			return &ep->place[i];
	return NULL;
}

static void wire_data(struct msg_conn *c, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req)
{
	struct place *at = req ? place_of(ep_of(c), req) : NULL;

	if (!req)
		return;
	CHECK(at);
	if (at->staged)
		memcpy((uint8_t *)req->p + f->off, at->staged + f->off, f->len);
	tt_msg_chunk_done(flow, f->seq, f->len);
}

/* In pieces, so that the first is not the last. */
static size_t wire_chunk(const struct msg_conn *c)
{
	(void)c;
	return 16384;
}

static bool wire_place(struct msg_conn *c, struct msg_flow *flow, const struct tt_req *req, struct msg_frame *f)
{
	struct wire_ep *ep = ep_of(c);
	struct place *at = place_of(ep, NULL);

	CHECK(at && !place_of(ep, req));
	if (req->n <= STAGED && !ep->slots)
		return false;
	*at = (struct place){ .req = req, .flow = flow, .mem = req->p };
	if (req->n <= STAGED) {
		ep->slots--;
		at->mem = at->staged = malloc(STAGED);
	}
	f->off = (uintptr_t)at->mem;
	f->note.sig = (uint64_t)(at - ep->place);
	ep->placed++;
	return true;
}

static void wire_unplace(struct msg_conn *c, struct msg_flow *flow, const struct tt_req *req)
{
	struct wire_ep *ep = ep_of(c);
	struct place *at = place_of(ep, req);

	CHECK(at && at->flow == flow && atomic_load(&req->state) == TT_REQ_POSTED);
	ep->slots += at->staged != NULL;
	free(at->staged);
	at->req = NULL;
	ep->unplaced++;
}

static void wire_revoke(struct msg_conn *c, struct msg_flow *flow)
{
	struct wire_ep *ep = ep_of(c);

	ep->revoked++;
	for (int i = 0; i < PLACES; i++)
		if (ep->place[i].req && ep->place[i].flow == flow) {
			CHECK(atomic_load(&ep->place[i].req->state) == TT_REQ_POSTED);
			ep->place[i].revoked = true;
		}
}

static const struct msg_wire wire = {
	.name = "fake", .eager_setting = "nothing",
	.dial = wire_dial, .arrive = wire_arrive, .look = wire_look, .drain = wire_drain, .close = wire_close,
	.idle = wire_idle, .put = wire_put, .start = wire_start, .write = wire_write, .forget = wire_forget,
	.data = wire_data, .chunk = wire_chunk,
	.place = wire_place, .unplace = wire_unplace, .revoke = wire_revoke,
};

/* ---- two endpoints, one or more links ---- */

static void step(struct wire_ep ep[2])
{
	for (int i = 0; i < 2; i++) {
		uint64_t moved = ep[i].base.moved;

		tt_msg_take_arrivals(&ep[i].base);
		for (struct msg_conn *c = ep[i].base.conns; c; c = c->next)
			wire_drain(c);
		(void)tt_msg_settle(&ep[i].base, moved);
	}
}

static void begin(struct wire_ep ep[2], int slots)
{
	memset(ep, 0, 2 * sizeof(*ep));
	for (uint64_t i = 0; i < 2; i++) {
		struct tt_ep_config config = { .self = i + 1 };

		ep[i].other = &ep[!i];
		ep[i].slots = slots;
		CHECK(tt_msg_ep_open(&ep[i].base, &config, &wire, EAGER));
	}
}

static void link_up(struct wire_ep ep[2], struct msg_link l[2], uint64_t key)
{
	for (uint64_t i = 0; i < 2; i++)
		CHECK(tt_msg_link_open(&ep[i], &l[i], 2 - i, key) == tuttiSuccess);
	for (int i = 0; i < 3; i++)
		step(ep);
}

static void end(struct wire_ep ep[2], int slots)
{
	for (int i = 0; i < 4; i++)
		step(ep);
	for (int i = 0; i < 2; i++) {
		CHECKF(!ep[i].base.nflows, "%zu links not ended", ep[i].base.nflows);
		tt_msg_ep_close(&ep[i].base);
		CHECKF(ep[i].placed == ep[i].unplaced, "%d placed, %d given back", ep[i].placed, ep[i].unplaced);
		CHECK(ep[i].slots == slots);
	}
}

/* ---- tests ---- */

enum { LINKS = 3, FLIGHT = 6, COUNT = 150 };

struct pipe {
	struct msg_link *from, *to;
	uint32_t sent, received, send_done, n[COUNT];
	struct tt_req s[COUNT], r[COUNT];
	uint8_t *p[COUNT], *q[COUNT];
};

static bool done_with(struct tt_req *r)
{
	int state = atomic_load_explicit(&r->state, memory_order_acquire);

	CHECK(state != TT_REQ_FAILED);
	return state != TT_REQ_POSTED;
}

static void pipe_make(struct pipe *x, uint32_t i, uint64_t *seed)
{
	uint32_t r = test_rand(seed);

	if (x->p[i])
		return;
	x->n[i] = r % 3 ? r / 3 % (r & 64 ? STAGED : MOST) : r / 3 % EAGER;
	x->p[i] = malloc(x->n[i] + 1);
	memset(x->p[i], (int)(i + 1), x->n[i]);
	x->q[i] = calloc(1, x->n[i] + 1);
}

static void pipe_send(struct pipe *x, uint64_t *seed)
{
	uint32_t i = x->sent;

	pipe_make(x, i, seed);
	if (tt_msg_send(x->from, x->p[i], x->n[i], &(struct tt_note){ .seq = i }, &x->s[i]) != TT_AGAIN)
		x->sent++;
}

static bool pipe_step(struct pipe *x, uint64_t *seed)
{
	uint32_t i = x->received;

	if (x->sent < COUNT && test_rand(seed) % 2)
		pipe_send(x, seed);
	if (i < COUNT)
		pipe_make(x, i, seed);
	if (i < COUNT && test_rand(seed) % 3 && tt_msg_recv(x->to, x->q[i], x->n[i], &x->r[i]) != TT_AGAIN)
		x->received++;
	while (x->send_done < x->received && x->send_done < x->sent && done_with(&x->s[x->send_done]) &&
	       done_with(&x->r[x->send_done])) {
		uint32_t k = x->send_done++;

		CHECKF(x->r[k].note.seq == k && !memcmp(x->p[k], x->q[k], x->n[k]), "message %u", k);
		free(x->p[k]);
		free(x->q[k]);
	}
	return x->send_done == COUNT;
}

/* With two slots for all, and none at all but for what is longer than a slot or early. late: a message has often
 * arrived, and its receive been posted anew, before its sender is told that it is out. */
static void stream_with(bool late)
{
	static struct wire_ep ep[2];
	static struct pipe x[2 * LINKS];
	struct msg_link l[LINKS][2] = { 0 };
	uint64_t seed = test_seed();
	int over = 0;

	begin(ep, 2);
	ep[0].tells_late = ep[1].tells_late = late;
	memset(x, 0, sizeof(x));
	for (uint64_t i = 0; i < LINKS; i++) {
		link_up(ep, l[i], i);
		x[2 * i] = (struct pipe){ .from = &l[i][0], .to = &l[i][1] };
		x[2 * i + 1] = (struct pipe){ .from = &l[i][1], .to = &l[i][0] };
	}
	for (int round = 0; over < 2 * LINKS; round++) {
		CHECK(round < 100000);
		over = 0;
		for (int i = 0; i < 2 * LINKS; i++)
			over += pipe_step(&x[i], &seed);
		step(ep);
		if (late && round % 32 == 0)
			tell_late(&ep[round / 32 % 2]);
	}
	CHECK(ep[0].placed > COUNT && !ep[0].revoked && !ep[1].revoked);
	for (int i = 0; i < 2 * LINKS; i++)
		tt_msg_link_close(&l[i / 2][i & 1]);
	end(ep, 2);
}

static void stream(void)
{
	stream_with(false);
}

static void told_late(void)
{
	stream_with(true);
}

/* The receiver's end closes, or the lengths differ, with adverts out: first revoked, then given back. */
static void revoked(void)
{
	static struct wire_ep ep[2];
	static uint8_t p[MOST], q[3][MOST];
	static const size_t sizes[3] = { MOST, 5000, 6000 }; /* one slot: the last is not placed */

	for (int closes = 0; closes < 2; closes++) {
		struct msg_link l[2] = { 0 };
		struct tt_req s = { 0 }, r[3] = { 0 };
		const char *why;

		begin(ep, 1);
		link_up(ep, l, 7);
		for (int i = 0; i < 3; i++)
			CHECK(tt_msg_recv(&l[1], q[i], sizes[i], &r[i]) == TT_POSTED);
		step(ep);
		CHECK(ep[1].placed == 2);
		if (closes)
			tt_msg_link_close(&l[1]);
		(void)tt_msg_send(&l[0], p, closes ? MOST : MOST - 1, &(struct tt_note){ 0 }, &s);
		for (int i = 0; i < 4; i++)
			step(ep);
		for (int i = 0; i < 3; i++)
			CHECK(atomic_load(&r[i].state) == TT_REQ_FAILED);
		CHECK(ep[1].revoked == 1 && ep[1].unplaced == 2);
		CHECK(closes || tt_msg_link_error(&l[0], &why) == tuttiMismatch);
		tt_msg_link_close(&l[0]);
		tt_msg_link_close(&l[1]);
		end(ep, 1);
	}
}

/* The endpoint closes under an open link. */
static void left_open(void)
{
	static struct wire_ep ep[2];
	static uint8_t q[5000];
	struct msg_link l[2] = { 0 };
	struct tt_req r = { 0 };

	begin(ep, 1);
	link_up(ep, l, 7);
	CHECK(tt_msg_recv(&l[1], q, sizeof(q), &r) == TT_POSTED && ep[1].placed == 1);
	for (int i = 0; i < 2; i++)
		tt_msg_ep_close(&ep[i].base);
	CHECK(ep[1].revoked == 1 && ep[1].unplaced == 1);
}

const struct test tests[] = {
	{ "stream", stream, 0 },
	{ "told_late", told_late, 0 },
	{ "revoked", revoked, 0 },
	{ "left_open", left_open, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
