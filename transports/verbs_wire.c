/* RDMA: frames to work requests of a conn's queue pair, and completions back to frames.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FLAG_CREDIT = 1, FLAG_BACK = 2, FLAG_BITS = 2 }; /* no frame in it; the last word is said */

#define FORGET_NS 500000000ull

static struct vb_conn *conn_of(struct msg_conn *c)
{
	return (struct vb_conn *)c;
}

static uint8_t *send_slot(const struct vb_conn *c, uint32_t i)
{
	return c->mem + i % VB_SLOTS * vb_ep_of(c)->slot;
}

/* Where frames wait. */
static uint8_t *waiting_slot(const struct vb_conn *c)
{
	return vb_recv_slot(c, VB_SLOTS);
}

/* ---- posting ---- */

static bool failed_to_post(struct vb_conn *c, const char *what, int err)
{
	struct tt_vb_word word = { what, strerror(err < 0 ? errno : err), "see the peer's error and the kernel's log" };

	tt_vb_conn_failed(c, &word);
	return false;
}

/* The conn of the same number that the other end has dialled, or this one where that has: while messages go both
 * ways, each way's frames say what the other way's need. */
static struct vb_conn *other_way(const struct vb_conn *c)
{
	const struct msg_peer *p = c->base.peer;
	struct msg_conn *o = c->base.outgoing ? p->in[c->base.index] : p->out[c->base.index];

	return o && !o->lost && conn_of(o)->state == VB_READY ? conn_of(o) : NULL;
}

static void begin_slot(struct vb_conn *c, bool bare)
{
	struct vb_conn *back = other_way(c);
	uint32_t flags = (bare ? FLAG_CREDIT : 0) | (back ? FLAG_BACK : 0);
	uint32_t words[VB_PREFIX / 4] = { c->posted, c->used << FLAG_BITS | flags, back ? back->posted : 0 };

	memcpy(send_slot(c, c->send_tail), words, sizeof(words));
	c->told = c->posted;
	if (back)
		back->told = back->posted;
}

/* Whether the device is to say when the next slot is out: somebody waits for it, or it is the last of some. */
static bool is_asked(const struct vb_conn *c, const struct vb_sent *s)
{
	return s->flow || s->range || s->stage || c->send_tail + 1 - c->signaled >= VB_SLOTS / 4;
}

/* Linux's soft-iWARP sends on its TCP socket inside the call, and to whom the peer has closed that comes SIGPIPE, which
 * would end the process. Where the caller has blocked it, it is the caller's to see. */
static int post_quietly(struct vb_conn *c, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	static const struct timespec at_once = { 0, 0 };
	sigset_t pipe, before;
	int err;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	err = ibv_post_send(c->qp, wr, bad);
	while (!sigismember(&before, SIGPIPE) && sigtimedwait(&pipe, NULL, &at_once) == SIGPIPE)
		;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

/* Takes the next slot. A write alone uses none of the other end's buffers. */
static bool post(struct vb_conn *c, struct ibv_send_wr *wr, const struct vb_sent *s)
{
	struct ibv_send_wr *bad;
	int err;

	wr->wr_id = vb_wr_id(c, VB_WC_SEND, c->send_tail % VB_SLOTS);
	err = c->loud ? post_quietly(c, wr, &bad) : ibv_post_send(c->qp, wr, &bad);
	if (err)
		return failed_to_post(c, "ibv_post_send", err);
	c->sent[c->send_tail++ % VB_SLOTS] = *s;
	c->chunks += s->len > 0;
	c->used += wr->opcode != IBV_WR_RDMA_WRITE && wr->opcode != IBV_WR_RDMA_READ;
	if (wr->send_flags & IBV_SEND_SIGNALED)
		c->signaled = c->send_tail;
	vb_ep_of(c)->base.moved++;
	return true;
}

bool tt_vb_conn_request(struct vb_conn *c, struct ibv_send_wr *wr, const struct vb_sent *s)
{
	return post(c, wr, s);
}

/* Sends n bytes of the next slot. */
static bool post_slot(struct vb_conn *c, size_t n, const struct vb_sent *s)
{
	struct ibv_sge sge = { .addr = (uintptr_t)send_slot(c, c->send_tail), .length = (uint32_t)n,
			       .lkey = c->mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND };

	begin_slot(c, n == VB_PREFIX);
	if (n <= c->max_inline)
		wr.send_flags |= IBV_SEND_INLINE;
	if (is_asked(c, s) || n == VB_PREFIX)
		wr.send_flags |= IBV_SEND_SIGNALED;
	return post(c, &wr, s);
}

/* Sends what waits, or nothing but what each SEND begins with. A flow is named that must not close before it is out. */
static bool flush(struct vb_conn *c, struct msg_flow *flow)
{
	size_t n = c->waiting;

	memcpy(send_slot(c, c->send_tail) + VB_PREFIX, waiting_slot(c), n);
	c->waiting = c->unsaid = 0;
	return post_slot(c, VB_PREFIX + n, &(struct vb_sent){ .flow = flow });
}

/* Whether frames may wait for others until the end of the poll. Of several conns each tells of its chunks at once: a
 * close that goes by another one must not overtake them. */
static bool is_patient(const struct vb_conn *c)
{
	return c->port->port->wire == TT_VB_IWARP && (!c->base.outgoing || c->base.peer->nout == 1);
}

void tt_vb_conns_flush(struct vb_ep *ep)
{
	if (!ep->waits)
		return;
	ep->waits = false;
	for (struct msg_conn *mc = ep->base.conns; mc; mc = mc->next)
		if (conn_of(mc)->waiting && !mc->lost)
			(void)flush(conn_of(mc), NULL);
}

bool tt_vb_conn_probe(struct vb_conn *c)
{
	return flush(c, NULL);
}

bool tt_vb_conn_is_out(struct vb_conn *c)
{
	if (c->waiting || (c->send_tail != c->signaled && vb_has_slot(c, 0)))
		(void)flush(c, NULL); /* the completion of an empty one says that all is out */
	return c->send_head == c->send_tail;
}

static void tell_credit(struct vb_conn *c)
{
	if (c->posted - c->told >= VB_SLOTS / 2 && (c->waiting || vb_has_slot(c, 0)))
		(void)flush(c, NULL);
}

/* ---- the wire's functions ---- */

static void vb_look(struct msg_conn *mc)
{
	char byte;

	if (!mc->lost && conn_of(mc)->state == VB_READY && conn_of(mc)->fd >= 0 &&
	    !recv(conn_of(mc)->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT))
		tt_msg_peer_closing(mc->peer, 0, NULL);
}

static void vb_drain(struct msg_conn *mc)
{
	(void)mc; /* what has completed was taken by the poll before */
}

/* Where this end has given the other up, that one hears why, and not only that the socket ends. */
static void vb_close(struct msg_conn *mc)
{
	const struct msg_peer *p = mc->peer;

	if (p->dead && !mc->lost && conn_of(mc)->state == VB_READY && p->error != tuttiPeerDead)
		tt_vb_setup_say_lost(conn_of(mc), p->why);
	tt_vb_conn_free(conn_of(mc));
}

static bool vb_idle(const struct msg_conn *mc)
{
	const struct vb_conn *c = (const struct vb_conn *)mc;

	return c->state == VB_READY && !c->busy && vb_has_slot(c, VB_KEPT) &&
	       (mc->peer->nout == 1 || c->chunks < VB_AHEAD);
}

/* Bytes behind the header of a frame. */
static size_t more_of(const struct msg_frame *f)
{
	return f->type == MSG_EAGER ? f->len : f->type == MSG_ADVERT ? VB_ADVERT : 0;
}

static void pack_advert(uint8_t *b, const struct msg_frame *f)
{
	memset(b, 0, VB_ADVERT);
	memcpy(b, &f->expect, sizeof(f->expect));
	memcpy(b + sizeof(f->expect), &f->place, sizeof(f->place));
}

static void unpack_advert(struct msg_frame *f, const uint8_t *b)
{
	memcpy(&f->expect, b, sizeof(f->expect));
	memcpy(&f->place, b + sizeof(f->expect), sizeof(f->place));
}

/* Puts a frame to those that wait. */
static void append(struct vb_conn *c, const struct msg_frame *f)
{
	size_t n = f->type == MSG_ADVERT ? MSG_HEADER + VB_ADVERT : MSG_HEADER;
	uint8_t *at;

	if (VB_PREFIX + c->waiting + n > vb_ep_of(c)->slot && !flush(c, NULL))
		return;
	at = waiting_slot(c) + c->waiting;
	tt_msg_pack(at, f);
	if (f->type == MSG_ADVERT)
		pack_advert(at + MSG_HEADER, f);
	c->waiting += (uint32_t)n;
	vb_ep_of(c)->waits = true;
}

/* Adverts may wait until the poll: then they go with those of the receives that are posted before it. */
static bool vb_put(struct msg_conn *mc, const struct msg_frame *f)
{
	struct vb_conn *c = conn_of(mc);

	if (mc->lost)
		return true;
	if (c->state != VB_READY || !vb_has_slot(c, VB_KEPT))
		return false;
	append(c, f);
	if (!mc->lost && (f->type != MSG_ADVERT || !is_patient(c)))
		(void)flush(c, NULL);
	return true;
}

/* The key of the other end's memory at its port of that number. */
static uint32_t key_of(const struct msg_remote *to, uint32_t port)
{
	const uint32_t keys[VB_PORTS] = { (uint32_t)to->keys.sig, (uint32_t)(to->keys.sig >> 32), to->keys.seq,
					  to->keys.pos };

	return keys[port];
}

static bool is_expected(const struct vb_conn *c, const struct msg_frame *f, const struct msg_remote *to)
{
	return c->port->port->wire != TT_VB_IWARP && to->place && !f->news && f->note.sig == to->expect.sig &&
	       f->note.seq == to->expect.seq && f->note.pos == to->expect.pos;
}

/* The frame that says that a chunk is there. It may wait for more of its message, for other messages up to as many
 * bytes as a chunk has, and until the end of the poll; but not where the send is done already, after which nobody
 * needs to poll. */
static void tell(struct vb_conn *c, const struct msg_frame *f, bool staged)
{
	bool last = f->off + f->len == f->total;

	append(c, f);
	if (c->base.lost)
		return;
	c->unsaid += f->len;
	if (!is_patient(c) || staged || (last && c->unsaid >= VB_CHUNK))
		(void)flush(c, c->cur_flow);
}

/* The bytes of a chunk to where the receiver wants them, and the word that they are there. */
static bool post_write(struct vb_conn *c, struct ibv_sge *sge, const struct msg_frame *f, const struct vb_sent *s)
{
	const struct msg_remote *to = &c->cur_flow->remote[msg_at(f->seq)];
	bool alone = is_expected(c, f, to);
	/* Linux's soft-iWARP lends TCP the pages of a write that nobody asks to be told of, until the peer has
	 * acknowledged them: longer than until what is behind it completes. */
	struct ibv_send_wr wr = { .sg_list = sge, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED,
				  .opcode = alone ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE,
				  .imm_data = htobe32(to->place << VB_SHARE_BITS | (uint32_t)(f->off / VB_SHARE)),
				  .wr.rdma = { .remote_addr = to->addr + f->off, .rkey = key_of(to, c->theirs.port) } };

	if (!post(c, &wr, s))
		return false;
	if (!alone)
		tell(c, f, s->stage);
	return true;
}

/* From registered memory the bytes go in place; the flow is told when they are out. */
static bool find_source(struct vb_conn *c, struct vb_sent *s, struct ibv_sge *sge)
{
	size_t n = c->cur.len;

	s->flow = c->cur_flow;
	s->seq = c->cur.seq;
	s->len = n;
	s->range = tt_vb_range_get(vb_ep_of(c), c->port, c->cur_body, n);
	if (s->range) {
		sge->addr = (uintptr_t)c->cur_body;
		sge->lkey = vb_region(vb_ep_of(c), c->port, s->range)->mr->lkey;
		return true;
	}
	if (tt_vb_is_far(vb_ep_of(c), c->cur_body)) {
		tt_vb_conn_lost(c, tuttiSystemError, "device memory was taken back from the NIC, with a link that was "
			       "closed");
		return false;
	}
	s->stage = tt_vb_stage_get(&vb_ep_of(c)->out, n);
	s->stage_len = n;
	if (s->stage)
		memcpy(s->stage, c->cur_body, n);
	sge->addr = (uintptr_t)s->stage;
	sge->lkey = c->port->out->lkey;
	return s->stage;
}

static bool send_data(struct vb_conn *c)
{
	struct vb_sent s = { 0 };
	struct ibv_sge sge = { .length = c->cur.len };
	bool posted;

	if (!find_source(c, &s, &sge))
		return false;
	posted = post_write(c, &sge, &c->cur, &s);
	if (s.range)
		c->cur_flow = NULL;
	if (!posted)
		tt_vb_sent_clear(c, &s);
	return true;
}

static void send_eager(struct vb_conn *c)
{
	uint8_t *at;

	if (c->waiting && !flush(c, NULL))
		return;
	at = send_slot(c, c->send_tail) + VB_PREFIX;
	tt_msg_pack(at, &c->cur);
	if (c->cur.len)
		memcpy(at + MSG_HEADER, c->cur_body, c->cur.len);
	(void)post_slot(c, VB_PREFIX + MSG_HEADER + c->cur.len, &(struct vb_sent){ 0 });
}

static void vb_start(struct msg_conn *mc, const struct msg_frame *f, const void *body, struct msg_flow *flow)
{
	struct vb_conn *c = conn_of(mc);

	c->busy = true;
	c->cur = *f;
	c->cur_body = body;
	c->cur_flow = flow;
	mc->peer->ep->nwriting++;
}

static void vb_write(struct msg_conn *mc)
{
	struct vb_conn *c = conn_of(mc);

	if (!c->busy || mc->lost || !vb_has_slot(c, 0))
		return;
	if (c->cur.type == MSG_EAGER)
		send_eager(c);
	else if (!send_data(c))
		return;
	if (!c->busy)
		return; /* it was lost on the way */
	c->busy = false;
	mc->peer->ep->nwriting--;
	if (c->cur_flow)
		tt_msg_written(c->cur_flow, c->cur.seq, c->cur.len);
}

/* How many frames have to complete until none is from the flow's own memory; and none at all by another conn than the
 * one on which the close follows, which would overtake them. */
static uint32_t in_flight(const struct vb_conn *c, const struct msg_flow *flow)
{
	bool behind = tt_msg_flow_home(flow) == &c->base;
	uint32_t n = 0;

	for (uint32_t i = c->send_head; i != c->send_tail; i++)
		if (c->sent[i % VB_SLOTS].flow == flow && (c->sent[i % VB_SLOTS].range || !behind))
			n = i + 1 - c->send_head;
	return n;
}

/* Frames that have completed with that of this slot. */
static uint32_t up_to(const struct vb_conn *c, uint32_t slot)
{
	return (slot - c->send_head) % VB_SLOTS + 1;
}

/* Among the completions that are taken but not looked at; all, where the conn has failed. */
static uint32_t out_already(const struct vb_conn *c)
{
	const struct vb_ep *ep = vb_ep_of(c);
	uint32_t n = 0;

	for (uint32_t i = ep->wc_head; i != ep->wc_tail; i++) {
		if (ep->wc[i].wr_id >> 16 != vb_wr_id(c, 0, 0) >> 16)
			continue;
		if (ep->wc[i].status != IBV_WC_SUCCESS)
			return VB_SLOTS;
		if ((ep->wc[i].wr_id >> 8 & 0xff) == VB_WC_SEND)
			n = up_to(c, ep->wc[i].wr_id & 0xff);
	}
	return n;
}

/* Until so many frames are out: the other end's device answers, whatever its process does. Where it does not the conn
 * is over. Completions are only kept for the next poll, as this may come from within one. */
static void await(struct vb_conn *c, uint32_t want)
{
	uint64_t until = want ? tt_now_ns() + FORGET_NS : 0;
	uint32_t done = 0;

	while (want && (done = out_already(c)) < want && tt_now_ns() < until)
		if (!tt_vb_take(vb_ep_of(c), c->port))
			tt_pause();
	if (want && (done < want || done == VB_SLOTS))
		tt_vb_conn_cut(c, "a link was closed while its bytes were on the way, and the other end's device does "
			       "not answer");
}

void tt_vb_conn_end_reads(struct vb_conn *c, uint32_t place)
{
	uint32_t want = 0;

	for (uint32_t i = c->send_head; i != c->send_tail; i++)
		if (c->sent[i % VB_SLOTS].place == place)
			want = i + 1 - c->send_head;
	await(c, want);
	for (uint32_t i = c->send_head; i != c->send_tail; i++)
		if (c->sent[i % VB_SLOTS].place == place)
			c->sent[i % VB_SLOTS].place = UINT32_MAX; /* of no place */
}

/* Bytes that go straight from the flow's memory are waited for. */
static void wait_out(struct vb_conn *c, const struct msg_flow *flow)
{
	await(c, in_flight(c, flow));
	for (uint32_t i = c->send_head; i != c->send_tail; i++) {
		struct vb_sent *s = &c->sent[i % VB_SLOTS];

		if (s->flow != flow)
			continue;
		if (s->range)
			tt_vb_sent_clear(c, s);
		s->flow = NULL;
	}
}

/* A chunk that waits for staging has not begun: it is taken back, and its message with it. */
static void vb_forget(struct msg_conn *mc, struct msg_flow *flow)
{
	struct vb_conn *c = conn_of(mc);

	if (mc->lost)
		tt_vb_conn_end_qp(c);
	wait_out(c, flow);
	if (!c->busy || c->cur_flow != flow)
		return;
	c->busy = false;
	mc->peer->ep->nwriting--;
	tt_msg_taken_back(flow, c->cur.seq);
}

/* Smaller where several conns share: a call has a few messages of TUTTI_WINDOW under way, which end in order, and a
 * slow conn that has two whole ones holds up the others. */
static size_t vb_chunk(const struct msg_conn *mc)
{
	return mc->peer->nout > 1 ? VB_SHARE : VB_CHUNK;
}

const struct msg_wire tt_vb_wire = {
	.name = "verbs", .eager_setting = "TUTTI_IB_EAGER", .dial = tt_vb_dial, .arrive = tt_vb_arrive,
	.look = vb_look, .drain = vb_drain, .close = vb_close, .idle = vb_idle, .put = vb_put, .start = vb_start,
	.write = vb_write, .forget = vb_forget, .data = tt_vb_data, .chunk = vb_chunk,
	.place = tt_vb_place, .unplace = tt_vb_unplace, .revoke = tt_vb_revoke,
	.over = tt_vb_over,
};

/* ---- completions ---- */

int tt_vb_take(struct vb_ep *ep, struct vb_port *p)
{
	uint32_t want = ep->wc_tail + VB_BATCH;
	int n;

	if (want > ep->wc_max) {
		struct ibv_wc *grown = realloc(ep->wc, 2 * want * sizeof(*grown));

		if (!grown)
			return 0;
		ep->wc = grown;
		ep->wc_max = 2 * want;
	}
	n = ibv_poll_cq(p->cq, VB_BATCH, ep->wc + ep->wc_tail);
	ep->wc_tail += n > 0 ? (uint32_t)n : 0;
	return n;
}

static void take_credit(struct vb_conn *c, uint32_t posted)
{
	if (!c || (int32_t)(posted - c->theirs_posted) <= 0)
		return;
	c->theirs_posted = posted;
	c->base.peer->ep->owe_retry = true;
}

/* What is wrong with it, or NULL. */
static const char *took_frames(struct vb_conn *c, const uint8_t *b, size_t n)
{
	while (n && !c->base.lost) {
		struct msg_frame f;
		const char *bad = n < MSG_HEADER ? "a frame that is too short" : tt_msg_unpack(&f, b, VB_CHUNK);

		if (bad)
			return bad;
		if (n < MSG_HEADER + more_of(&f))
			return "a frame of another length than it says";
		if (f.type == MSG_ADVERT)
			unpack_advert(&f, b + MSG_HEADER);
		tt_msg_frame(&c->base, &f, b + MSG_HEADER);
		b += MSG_HEADER + more_of(&f);
		n -= MSG_HEADER + more_of(&f);
	}
	return NULL;
}

static void took_slot(struct vb_conn *c, uint32_t i, size_t n)
{
	const uint8_t *b = vb_recv_slot(c, i);
	uint32_t words[VB_PREFIX / 4];
	const char *bad = n < VB_PREFIX ? "a frame without a beginning" : NULL;

	memcpy(words, b, sizeof(words));
	if (!bad && words[1] >> FLAG_BITS != (c->got++ & UINT32_MAX >> FLAG_BITS))
		bad = "a frame out of its order: its device, or this one, has lost or repeated one";
	if (!bad) {
		take_credit(c, words[0]);
		if (words[1] & FLAG_BACK)
			take_credit(other_way(c), words[2]);
		bad = took_frames(c, b + VB_PREFIX, n - VB_PREFIX);
	}
	if (bad)
		tt_msg_refuse(&c->base, bad);
}

static void took_write(struct vb_conn *c, const struct ibv_wc *wc)
{
	const char *bad = tt_vb_written(c, be32toh(wc->imm_data), wc->byte_len);

	c->got++;
	if (bad)
		tt_msg_refuse(&c->base, bad);
}

static void received(struct vb_conn *c, uint32_t i, const struct ibv_wc *wc)
{
	if (c->state == VB_TRYING)
		tt_vb_setup_done(c);
	vb_ep_of(c)->base.moved++;
	if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
		took_write(c, wc);
	else
		took_slot(c, i, wc->byte_len);
	if (c->base.lost)
		return;
	if (!tt_vb_conn_post(c, i)) {
		(void)failed_to_post(c, "ibv_post_recv", errno);
		return;
	}
	tell_credit(c);
}

/* Sends complete in order: with this slot, all before it. */
static void sent(struct vb_conn *c, uint32_t slot)
{
	for (uint32_t n = up_to(c, slot); n; n--) {
		struct vb_sent *s = &c->sent[c->send_head++ % VB_SLOTS];
		struct msg_flow *flow = s->range ? s->flow : NULL;

		tt_vb_sent_clear(c, s);
		s->flow = NULL;
		c->chunks -= s->len > 0;
		if (flow)
			tt_msg_written(flow, s->seq, s->len);
		if (s->place)
			tt_vb_was_read(vb_ep_of(c), s->place, s->len);
	}
	c->base.peer->ep->owe_retry = true;
	if (c->state == VB_TRYING && c->base.outgoing)
		tt_vb_setup_done(c);
}

/* The first status decides. A flush comes first where the device has stopped the queue pair by itself: then its event
 * says why. */
static void failed(struct vb_conn *c, const struct ibv_wc *wc)
{
	uint32_t tag = c->tag;

	if (tt_vb_wc_follows((int)wc->status)) {
		tt_vb_events_take(vb_ep_of(c));
		tt_vb_cm_poll(vb_ep_of(c));
	}
	if (c->tag == tag)
		tt_vb_conn_failed(c, tt_vb_wc_word((int)wc->status));
}

void tt_vb_conn_completed(struct vb_ep *ep, const struct ibv_wc *wc)
{
	uint32_t id = wc->wr_id >> 16 & 0xffff, tag = (uint32_t)(wc->wr_id >> 32);
	uint32_t kind = wc->wr_id >> 8 & 0xff, slot = wc->wr_id & 0xff;
	struct vb_conn *c = id < ep->nids ? ep->byid[id] : NULL;

	if (!c || c->tag != tag || c->base.lost)
		return;
	if (wc->status != IBV_WC_SUCCESS)
		failed(c, wc);
	else if (kind == VB_WC_RECV)
		received(c, slot, wc);
	else if (kind == VB_WC_SEND)
		sent(c, slot);
}

#else
typedef int tt_verbs_wire_is_empty;
#endif
