/* Messages: which message goes when, and where what arrives belongs. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msg.h"

enum { POST_FINISHED = 1 }; /* priv[1]; priv[0]: bytes handed to conns, or claimed by chunks */

/* ---- sending ---- */

static struct msg_frame frame_of(struct msg_flow *f, uint8_t type)
{
	bool inside = f->peer->id == f->peer->ep->config.self;
	struct msg_frame fr = { .type = type, .side = inside ? !f->side : 0, .key = f->key };

	fr.credit = f->eager_taken;
	return fr;
}

static void told_credit(struct msg_flow *f)
{
	f->eager_told = f->eager_taken;
	f->owe &= (uint8_t)~OWE_CREDIT;
}

static void start_next(struct msg_conn *c, struct msg_flow *f)
{
	uint32_t seq = f->send_take;
	struct tt_req *r = f->sends[msg_at(seq)];
	struct msg_frame fr = frame_of(f, MSG_EAGER);

	fr.news = f->eager_told != f->eager_taken;
	told_credit(f);
	fr.seq = seq;
	fr.total = r->n;
	fr.note = r->note;
	fr.off = r->priv[0];
	if (r->n > f->peer->ep->eager) {
		fr.type = MSG_DATA;
		fr.token = f->peer_token;
		fr.len = (uint32_t)tt_min(c->wire->chunk(c), r->n - r->priv[0]);
	} else {
		fr.len = (uint32_t)r->n;
		f->eager_sent++;
	}
	r->priv[0] += fr.len;
	if (r->priv[0] == r->n) {
		f->sent = ++f->send_take;
		f->adverted &= (uint8_t)~(1u << msg_at(seq));
	}
	c->wire->start(c, &fr, fr.off ? (const uint8_t *)r->p + fr.off : r->p, f);
	tt_msg_flow_ready(f);
}

bool tt_msg_feed(struct msg_conn *c)
{
	struct msg_peer *p = c->peer;
	struct msg_flow *prev = NULL;

	for (struct msg_flow *f = p->ready; f; prev = f, f = f->ready_next) {
		bool eager = f->sends[msg_at(f->send_take)]->n <= p->ep->eager;

		if (eager && tt_msg_flow_home(f) != c)
			continue;
		tt_msg_flow_unqueue(f, prev);
		start_next(c, f);
		return true;
	}
	return false;
}

void tt_msg_written(struct msg_flow *f, uint32_t seq, size_t len)
{
	struct tt_req *r = f->sends[msg_at(seq)];

	r->done += len;
	if (r->done == r->n)
		r->priv[1] = POST_FINISHED;
	while (f->send_head != f->send_take && f->sends[msg_at(f->send_head)]->priv[1])
		tt_msg_flow_finish_send(f, TT_REQ_DONE);
}

void tt_msg_taken_back(struct msg_flow *f, uint32_t seq)
{
	if (msg_before(seq, f->sent))
		f->sent = seq;
}

static void post(struct tt_req *r, void *p, size_t n)
{
	r->p = p;
	r->n = n;
	r->done = 0;
	r->priv[0] = r->priv[1] = 0;
	atomic_store_explicit(&r->state, TT_REQ_POSTED, memory_order_relaxed);
}

/* Writes at once if a conn is free and nobody waits for it. */
static void send_now(struct msg_flow *f)
{
	struct msg_peer *p = f->peer;

	if (p->ready != f || p->ready_last != f || p->broken)
		return;
	for (int i = 0; i < p->nout && f->queued; i++) {
		struct msg_conn *c = p->out[i];

		if (c->wire->idle(c) && !c->lost && tt_msg_feed(c))
			c->wire->write(c);
	}
}

static void fail_too_long(struct msg_flow *f, const char *what, size_t n)
{
	tt_msg_flow_fail(f, tuttiInvalidArgument, "a %s of %zu bytes, and %s takes %zu: a schedule of one window moves "
			 "all of a chunk at once; use it for less data", what, n, f->peer->ep->wire->name,
			 MSG_MAX_MESSAGE);
}

enum tt_post tt_msg_send(void *link, const void *p, size_t n, const struct tt_note *note, struct tt_req *req)
{
	struct msg_flow *f = ((struct msg_link *)link)->flow;
	uint32_t seq = f->send_tail;

	if (n > MSG_MAX_MESSAGE)
		fail_too_long(f, "message", n);
	if (f->error || tt_msg_flow_other_left(f, true))
		return TT_FAILED;
	if (seq - f->send_head == MSG_DEPTH)
		return TT_AGAIN;
	if (f->adverted & 1u << msg_at(seq) && f->remote[msg_at(seq)].len != n) {
		tt_msg_flow_fail_lengths(f, seq, f->remote[msg_at(seq)].len, n, true);
		return TT_FAILED;
	}
	post(req, (void *)p, n);
	req->note = *note;
	f->sends[msg_at(seq)] = req;
	f->send_tail++;
	f->peer->pending++;
	f->peer->ep->pending++;
	tt_msg_flow_ready(f);
	if (f->queued)
		send_now(f);
	return msg_before(seq, f->send_head) ? TT_DONE : TT_POSTED;
}

/* ---- receiving ---- */

static void took_eager(struct msg_flow *f)
{
	f->eager_taken++;
	if (f->eager_taken - f->eager_told >= MSG_CREDITS / 2)
		tt_msg_flow_owe(f, OWE_CREDIT);
}

static void complete_recvs(struct msg_flow *f)
{
	while (f->recv_head != f->recv_tail && f->recvs[msg_at(f->recv_head)]->priv[1])
		tt_msg_flow_finish(f, f->recvs[msg_at(f->recv_head++)], TT_REQ_DONE);
	(void)tt_msg_flow_other_left(f, false);
}

static void put_answers(struct msg_flow *f, struct msg_conn *c);

/* Answers at once if they can go; else the next poll does it. */
static void answer_now(struct msg_flow *f)
{
	struct msg_conn *c = f->peer->in[0];

	if (c && !f->peer->broken) {
		put_answers(f, c);
		c->wire->write(c);
	}
	if (f->adverts_due)
		tt_msg_flow_owe(f, 0);
}

static enum tt_post recv_slot(struct msg_flow *f, void *p, size_t n, struct tt_req *req)
{
	const struct msg_slot *s = &f->slots[f->slot_head];
	uint32_t seq = f->recv_tail;

	if (s->len != n) {
		tt_msg_flow_fail_lengths(f, seq, n, s->len, true);
		return TT_FAILED;
	}
	if (n)
		memcpy(p, f->slot_mem + f->slot_head * f->peer->ep->eager, n);
	req->note = s->note;
	f->slot_head = (f->slot_head + 1) % MSG_CREDITS;
	f->slot_count--;
	f->recv_tail++;
	took_eager(f);
	if (f->owe & OWE_CREDIT)
		answer_now(f);
	if (seq == f->recv_head) {
		f->recv_head++;
		return TT_DONE;
	}
	post(req, p, n);
	req->priv[1] = POST_FINISHED;
	f->recvs[msg_at(seq)] = req;
	return TT_POSTED;
}

enum tt_post tt_msg_recv(void *link, void *p, size_t n, struct tt_req *req)
{
	struct msg_flow *f = ((struct msg_link *)link)->flow;
	uint32_t seq = f->recv_tail;
	bool asked = f->ask_waits && f->ask_seq == seq;

	if (seq - f->recv_head == MSG_DEPTH)
		return TT_AGAIN;
	if (f->slot_count && f->slots[f->slot_head].seq == seq && !f->lengths)
		return recv_slot(f, p, n, req);
	if (n > MSG_MAX_MESSAGE)
		fail_too_long(f, "receive", n);
	if (f->error)
		return TT_FAILED;
	if (asked && f->ask_len != n) {
		tt_msg_flow_fail_lengths(f, seq, n, f->ask_len, true);
		return TT_FAILED;
	}
	if (!msg_before(seq, f->close_seq) && tt_msg_flow_other_left(f, true))
		return TT_FAILED;
	f->ask_waits = f->ask_waits && !asked;
	post(req, p, n);
	f->recvs[msg_at(seq)] = req;
	f->recv_tail++;
	if (n <= f->peer->ep->eager && !asked)
		return TT_POSTED;
	f->adverts_due |= (uint8_t)(1u << msg_at(seq));
	answer_now(f);
	return TT_POSTED;
}

/* ---- control frames ---- */

static bool put_advert(struct msg_flow *f, struct msg_conn *c, uint32_t seq)
{
	struct msg_frame fr = frame_of(f, MSG_ADVERT);
	const struct tt_req *r = f->recvs[msg_at(seq)];

	fr.seq = seq;
	fr.total = r->n;
	fr.token = f->token;
	fr.expect = r->note;
	if (c->wire->place) {
		if (!c->wire->place(c, f, r, &fr))
			return false;
		f->placed |= (uint8_t)(1u << msg_at(seq));
	}
	if (!c->wire->put(c, &fr)) {
		tt_msg_flow_unplace(f, seq);
		return false;
	}
	f->adverts_due &= (uint8_t)~(1u << msg_at(seq));
	told_credit(f);
	return true;
}

static void put_answers(struct msg_flow *f, struct msg_conn *c)
{
	struct msg_frame fr;

	for (uint32_t seq = f->recv_head; f->adverts_due && seq != f->recv_tail; seq++)
		if (f->adverts_due & 1u << msg_at(seq) && !put_advert(f, c, seq))
			break;
	fr = frame_of(f, MSG_CREDIT);
	if (f->owe & OWE_CREDIT && c->wire->put(c, &fr))
		told_credit(f);
	fr = frame_of(f, MSG_CLOSE);
	if (f->owe & OWE_CLOSE_BACK && c->wire->put(c, &fr))
		f->owe &= (uint8_t)~OWE_CLOSE_BACK;
}

static void put_error(struct msg_flow *f, struct msg_conn *c)
{
	struct msg_frame fr = frame_of(f, MSG_ERROR);

	fr.seq = f->bad_seq;
	fr.off = f->bad_posted;
	fr.total = f->bad_sent;
	if (c->wire->put(c, &fr))
		f->owe &= (uint8_t)~OWE_ERROR;
}

static void put_beside_messages(struct msg_flow *f, struct msg_conn *c)
{
	struct msg_frame fr = frame_of(f, MSG_ASK);

	if (f->owe & OWE_ASK) {
		fr.seq = f->send_take;
		fr.total = f->send_take == f->send_tail ? 0 : f->sends[msg_at(fr.seq)]->n;
		if (tt_msg_flow_stalled(f) && fr.total && !c->wire->put(c, &fr))
			return;
		f->owe &= (uint8_t)~OWE_ASK;
	}
	fr = frame_of(f, MSG_CLOSE);
	fr.seq = f->sent;
	if (f->owe & OWE_CLOSE_FORWARD && !(f->owe & OWE_ERROR) && c->wire->put(c, &fr))
		f->owe &= (uint8_t)~OWE_CLOSE_FORWARD;
}

/* Puts what the flow owes where there is room. An error goes before a close: behind it the other end
 * would no longer know the link. */
static bool emit(struct msg_flow *f)
{
	struct msg_conn *out = tt_msg_flow_home(f), *in = f->peer->in[0];

	if (f->owe & OWE_ERROR && (out || in))
		put_error(f, out ? out : in);
	if (out)
		put_beside_messages(f, out);
	if (in)
		put_answers(f, in);
	return !f->owe && !f->adverts_due;
}

void tt_msg_emit_all(struct msg_ep *ep)
{
	struct msg_flow **at_flow = &ep->owing;

	if (!ep->owe_retry)
		return;
	ep->owe_retry = false;
	while (*at_flow) {
		struct msg_flow *f = *at_flow;

		if (f->peer->broken || !emit(f)) {
			at_flow = &f->owe_next;
			continue;
		}
		*at_flow = f->owe_next;
		f->owing = false;
		(void)tt_msg_flow_close_if_over(f);
	}
}

/* That the message to go next waits for its advert: its receive may be of a length that needs none, and
 * then nobody else would see the difference. */
static void ask(struct msg_flow *f)
{
	uint32_t seq = f->send_take;

	if (seq == f->send_tail || !tt_msg_flow_stalled(f) || f->error ||
	    f->sends[msg_at(seq)]->n <= f->peer->ep->eager || (f->asked && f->asked_seq == seq))
		return;
	f->asked = true;
	f->asked_seq = seq;
	tt_msg_flow_owe(f, OWE_ASK);
}

void tt_msg_ask_all(struct msg_ep *ep)
{
	for (size_t i = 0; ep->pending && i < ep->nbuckets; i++)
		for (struct msg_flow *f = ep->table[i]; f; f = f->chain)
			ask(f);
}

/* ---- frames ---- */

static bool take_credit(struct msg_conn *c, struct msg_flow *f, const struct msg_frame *fr)
{
	if (msg_before(f->eager_sent, fr->credit)) {
		tt_msg_refuse(c, "credit for messages that it was not sent");
		return false;
	}
	if (msg_before(f->eager_credited, fr->credit)) {
		f->eager_credited = fr->credit;
		tt_msg_flow_ready(f);
	}
	return true;
}

static void keep_eager(struct msg_conn *c, struct msg_flow *f, const struct msg_frame *fr,
		       const uint8_t *payload)
{
	struct msg_ep *ep = c->peer->ep;
	uint32_t i = (f->slot_head + f->slot_count) % MSG_CREDITS;
	uint32_t last = (i + MSG_CREDITS - 1) % MSG_CREDITS;
	char why[120];

	if (f->slot_count == MSG_CREDITS || msg_before(fr->seq, f->recv_tail) ||
	    (f->slot_count && !msg_before(f->slots[last].seq, fr->seq))) {
		tt_msg_refuse(c, "a message beyond its credit, or out of order");
		return;
	}
	if (fr->len > ep->eager) {
		(void)snprintf(why, sizeof(why), "a message that is too long to be kept: %s is to be the same "
			       "everywhere", c->wire->eager_setting);
		tt_msg_refuse(c, why);
		return;
	}
	if (fr->len && !f->slot_mem) {
		f->slot_mem = malloc(MSG_CREDITS * ep->eager);
		if (!f->slot_mem) {
			tt_msg_refuse(c, "a message that there is no memory to keep");
			return;
		}
		ep->slot_bytes += MSG_CREDITS * ep->eager;
	}
	f->slots[i] = (struct msg_slot){ fr->seq, fr->len, fr->note };
	if (fr->len)
		memcpy(f->slot_mem + i * ep->eager, payload, fr->len);
	f->slot_count++;
}

static void take_eager(struct msg_conn *c, struct msg_flow *f, const struct msg_frame *fr,
		       const uint8_t *payload)
{
	struct tt_req *r;

	if (f->error)
		return;
	if (fr->seq - f->recv_head >= f->recv_tail - f->recv_head) {
		keep_eager(c, f, fr, payload);
		return;
	}
	r = f->recvs[msg_at(fr->seq)];
	if (r->priv[0] || r->priv[1]) {
		tt_msg_refuse(c, "one message twice");
		return;
	}
	if (r->n != fr->len) {
		tt_msg_flow_fail_lengths(f, fr->seq, r->n, fr->len, true);
		return;
	}
	if (fr->len)
		memcpy(r->p, payload, fr->len);
	r->note = fr->note;
	r->priv[1] = POST_FINISHED;
	tt_msg_flow_unplace(f, fr->seq);
	f->adverts_due &= (uint8_t)~(1u << msg_at(fr->seq));
	took_eager(f);
	complete_recvs(f);
}

static void take_data(struct msg_conn *c, struct msg_flow *f, const struct msg_frame *fr)
{
	struct tt_req *r;

	/* A chunk of a link that is no longer there goes nowhere. */
	if (!f || f->state != FLOW_OPEN || f->error) {
		c->wire->data(c, NULL, fr, NULL);
		return;
	}
	if (fr->seq - f->recv_head >= f->recv_tail - f->recv_head) {
		tt_msg_refuse(c, "data for a receive that was not posted");
		return;
	}
	r = f->recvs[msg_at(fr->seq)];
	if (r->n != fr->total || r->priv[1] || fr->len > r->n - r->priv[0]) {
		tt_msg_refuse(c, "data that does not fit its receive");
		return;
	}
	r->priv[0] += fr->len;
	r->note = fr->note;
	if (take_credit(c, f, fr))
		c->wire->data(c, f, fr, r);
}

void tt_msg_chunk_done(struct msg_flow *f, uint32_t seq, size_t len)
{
	struct tt_req *r = f->recvs[msg_at(seq)];

	r->done += len;
	if (r->done != r->n)
		return;
	r->priv[1] = POST_FINISHED;
	tt_msg_flow_unplace(f, seq);
	complete_recvs(f);
}

static void take_advert(struct msg_conn *c, struct msg_flow *f, const struct msg_frame *fr)
{
	uint32_t i = msg_at(fr->seq);

	/* Late, for a message that needed none: the other end will see its length. */
	if (msg_before(fr->seq, f->send_take) || f->error)
		return;
	if (fr->seq - f->send_take >= MSG_DEPTH) { /* what was taken has come; that it is out may be said later */
		tt_msg_refuse(c, "an advert too far ahead");
		return;
	}
	f->peer_token = fr->token;
	f->remote[i] = (struct msg_remote){ fr->off, fr->note, fr->expect, fr->place,
					    (uint32_t)tt_min(fr->total, (uint64_t)UINT32_MAX) };
	f->adverted |= (uint8_t)(1u << i);
	if (msg_before(fr->seq, f->send_tail) && f->sends[i]->n != fr->total)
		tt_msg_flow_fail_lengths(f, fr->seq, fr->total, f->sends[i]->n, true);
	else
		tt_msg_flow_ready(f);
}

static void take_ask(struct msg_flow *f, const struct msg_frame *fr)
{
	const struct tt_req *r;

	if (f->error || msg_before(fr->seq, f->recv_head))
		return;
	if (!msg_before(fr->seq, f->recv_tail)) {
		f->ask_waits = true;
		f->ask_seq = fr->seq;
		f->ask_len = fr->total;
		return;
	}
	r = f->recvs[msg_at(fr->seq)];
	if (r->n != fr->total) {
		tt_msg_flow_fail_lengths(f, fr->seq, r->n, fr->total, true);
	} else if (!r->priv[1] && !(f->placed & 1u << msg_at(fr->seq))) {
		if (fr->total <= f->peer->ep->eager)
			f->adverts_due |= (uint8_t)(1u << msg_at(fr->seq));
		tt_msg_flow_owe(f, 0);
	}
}

static void take_close(struct msg_conn *c, struct msg_flow *f, const struct msg_frame *fr)
{
	if (c->outgoing) {
		f->got_close |= WAY_BACK;
	} else {
		f->got_close |= WAY_FORWARD;
		f->close_seq = fr->seq;
		if (c->wire->over)
			c->wire->over(c, f);
	}
	if (!tt_msg_flow_close_if_over(f))
		(void)tt_msg_flow_other_left(f, false);
}

void tt_msg_refuse(struct msg_conn *c, const char *what)
{
	c->lost = true;
	tt_msg_peer_break(c->peer, tuttiRemoteError, "process %016llx at %s sent %s",
		      (unsigned long long)c->peer->id, c->peer->where, what);
}

void tt_msg_frame(struct msg_conn *c, const struct msg_frame *fr, const uint8_t *payload)
{
	bool answer = fr->type == MSG_ADVERT || fr->type == MSG_CREDIT;
	bool both = fr->type == MSG_CLOSE || fr->type == MSG_ERROR;
	struct msg_flow *f;

	if (!both && answer != c->outgoing) {
		tt_msg_refuse(c, "a frame on the wrong connection");
		return;
	}
	c->peer->ep->moved++;
	f = fr->type == MSG_DATA || fr->type == MSG_CREDIT ? tt_msg_flow_find(c, fr) : tt_msg_flow_find_or_make(c, fr);
	if (fr->type == MSG_DATA) {
		take_data(c, f, fr);
		return;
	}
	if (!f)
		return;
	if (fr->type == MSG_CLOSE) {
		take_close(c, f, fr);
		return;
	}
	if (f->state == FLOW_CLOSED || !take_credit(c, f, fr))
		return;
	if (fr->type == MSG_EAGER)
		take_eager(c, f, fr, payload);
	else if (fr->type == MSG_ADVERT)
		take_advert(c, f, fr);
	else if (fr->type == MSG_ASK)
		take_ask(f, fr);
	else if (fr->type == MSG_ERROR)
		tt_msg_flow_fail_lengths(f, fr->seq, fr->off, fr->total, false);
}
