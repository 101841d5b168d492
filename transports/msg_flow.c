/* Messages: one end of a link: found, made, opened, failed, closed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msg.h"

/* ---- the table: (peer, key, side) to flows, oldest first where a key is used again ---- */

static struct msg_flow **bucket(struct msg_ep *ep, uint64_t peer, uint64_t key)
{
	uint64_t h = (peer ^ key) * 0x9e3779b97f4a7c15u; /* both are hashes already */

	return &ep->table[h >> 32 & (ep->nbuckets - 1)];
}

static void table_add(struct msg_ep *ep, struct msg_flow *f)
{
	struct msg_flow **last = bucket(ep, f->peer->id, f->key);

	while (*last)
		last = &(*last)->chain;
	*last = f;
	f->chain = NULL;
}

static bool table_grow(struct msg_ep *ep)
{
	size_t old_n = ep->nbuckets, n = old_n ? old_n * 2 : 64;
	struct msg_flow **old = ep->table, **table;

	if (ep->nflows < old_n)
		return true;
	table = calloc(n, sizeof(struct msg_flow *));
	if (!table)
		return old_n > 0;
	ep->table = table;
	ep->nbuckets = n;
	for (size_t i = 0; i < old_n; i++)
		for (struct msg_flow *f = old[i], *next; f; f = next) {
			next = f->chain;
			table_add(ep, f);
		}
	free(old);
	return true;
}

static struct msg_flow *flow_new(struct msg_peer *p, uint64_t key, uint8_t side)
{
	struct msg_ep *ep = p->ep;
	struct msg_flow *f = table_grow(ep) ? calloc(1, sizeof(*f)) : NULL;

	if (!f)
		return NULL;
	f->peer = p;
	f->key = key;
	f->side = side;
	f->token = ++ep->tokens;
	table_add(ep, f);
	ep->nflows++;
	f->next = p->flows;
	f->link = &p->flows;
	if (f->next)
		f->next->link = &f->next;
	p->flows = f;
	return f;
}

/* The flow that a frame is for: the oldest whose other end has not said, this way, that it is closed. */
struct msg_flow *tt_msg_flow_find(struct msg_conn *c, const struct msg_frame *fr)
{
	struct msg_peer *p = c->peer;
	uint8_t way = c->outgoing ? WAY_BACK : WAY_FORWARD;

	if (!p->ep->nbuckets)
		return NULL;
	for (struct msg_flow *f = *bucket(p->ep, p->id, fr->key); f; f = f->chain)
		if (f->peer == p && f->key == fr->key && f->side == fr->side &&
		    (fr->type == MSG_DATA ? f->token == fr->token : !(f->got_close & way)))
			return f;
	return NULL;
}

struct msg_flow *tt_msg_flow_find_or_make(struct msg_conn *c, const struct msg_frame *fr)
{
	struct msg_flow *f = tt_msg_flow_find(c, fr);

	if (f)
		return f;
	if (c->peer->orphans >= MSG_ORPHANS_MAX) {
		tt_msg_refuse(c, "messages for too many links that do not exist here");
		return NULL;
	}
	f = flow_new(c->peer, fr->key, fr->side);
	if (!f)
		tt_msg_refuse(c, "a message for a new link, for which there is no memory");
	else
		c->peer->orphans++;
	return f;
}

/* ---- queues ---- */

bool tt_msg_flow_stalled(const struct msg_flow *f)
{
	const struct tt_req *r;

	if (f->send_take == f->send_tail)
		return true;
	r = f->sends[msg_at(f->send_take)];
	if (r->n <= f->peer->ep->eager)
		return f->eager_sent - f->eager_credited >= MSG_CREDITS;
	return !(f->adverted & 1u << msg_at(f->send_take));
}

void tt_msg_flow_ready(struct msg_flow *f)
{
	struct msg_peer *p = f->peer;

	if (f->queued || f->error || tt_msg_flow_stalled(f))
		return;
	f->queued = true;
	f->ready_next = NULL;
	if (p->ready)
		p->ready_last->ready_next = f;
	else
		p->ready = f;
	p->ready_last = f;
	p->ep->nready++;
}

void tt_msg_flow_unqueue(struct msg_flow *f, struct msg_flow *prev)
{
	struct msg_peer *p = f->peer;

	*(prev ? &prev->ready_next : &p->ready) = f->ready_next;
	if (p->ready_last == f)
		p->ready_last = prev;
	f->queued = false;
	p->ep->nready--;
}

static void leave_ready(struct msg_flow *f)
{
	struct msg_flow *prev = NULL;

	if (!f->queued)
		return;
	for (struct msg_flow *g = f->peer->ready; g != f; g = g->ready_next)
		prev = g;
	tt_msg_flow_unqueue(f, prev);
}

void tt_msg_flow_owe(struct msg_flow *f, uint8_t what)
{
	struct msg_ep *ep = f->peer->ep;

	f->owe |= what;
	ep->owe_retry = true;
	if (f->owing)
		return;
	f->owing = true;
	f->owe_next = ep->owing;
	ep->owing = f;
}

/* ---- end and failure ---- */

void tt_msg_flow_unplace(struct msg_flow *f, uint32_t seq)
{
	uint8_t bit = (uint8_t)(1u << msg_at(seq));
	struct msg_conn *c = f->peer->in[0];

	if (!(f->placed & bit))
		return;
	f->placed &= (uint8_t)~bit;
	f->peer->ep->owe_retry = true;
	if (c->wire->unplace)
		c->wire->unplace(c, f, f->recvs[msg_at(seq)]);
}

/* Nothing may be written any more by the other end where it has been told to. */
static void withdraw(struct msg_flow *f)
{
	struct msg_conn *c = f->peer->in[0];

	if (!f->placed)
		return;
	if (c->wire->revoke && !(f->got_close & WAY_FORWARD))
		c->wire->revoke(c, f);
	for (uint32_t seq = f->recv_head; seq != f->recv_tail; seq++)
		tt_msg_flow_unplace(f, seq);
}

void tt_msg_flow_free(struct msg_flow *f)
{
	struct msg_ep *ep = f->peer->ep;
	struct msg_flow **p;

	withdraw(f);
	leave_ready(f);
	if (f->owing) {
		for (p = &ep->owing; *p != f; p = &(*p)->owe_next)
			;
		*p = f->owe_next;
	}
	for (p = bucket(ep, f->peer->id, f->key); *p != f; p = &(*p)->chain)
		;
	*p = f->chain;
	ep->nflows--;
	*f->link = f->next;
	if (f->next)
		f->next->link = f->link;
	if (f->state == FLOW_ORPHAN)
		f->peer->orphans--;
	if (f->slot_mem)
		ep->slot_bytes -= MSG_CREDITS * ep->eager;
	free(f->slot_mem);
	free(f);
}

void tt_msg_flow_finish(struct msg_flow *f, struct tt_req *r, int state)
{
	f->peer->ep->completed++;
	atomic_store_explicit(&r->state, state, memory_order_release);
}

void tt_msg_flow_finish_send(struct msg_flow *f, int state)
{
	f->peer->pending--;
	f->peer->ep->pending--;
	tt_msg_flow_finish(f, f->sends[msg_at(f->send_head++)], state);
}

/* Gives all posts back as failed. */
static void cancel(struct msg_flow *f)
{
	leave_ready(f);
	for (struct msg_conn *c = f->peer->ep->conns; c; c = c->next)
		if (c->peer == f->peer)
			c->wire->forget(c, f);
	withdraw(f);
	while (f->send_head != f->send_tail)
		tt_msg_flow_finish_send(f, TT_REQ_FAILED);
	while (f->recv_head != f->recv_tail)
		tt_msg_flow_finish(f, f->recvs[msg_at(f->recv_head++)], TT_REQ_FAILED);
	f->send_take = f->send_tail;
	f->adverts_due = 0;
	f->owe &= OWE_ERROR | OWE_CLOSE_FORWARD | OWE_CLOSE_BACK;
}

void tt_msg_flow_fail(struct msg_flow *f, tuttiResult_t error, const char *fmt, ...)
{
	va_list ap;

	if (f->error || f->state == FLOW_CLOSED)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(f->why, sizeof(f->why), fmt, ap);
	va_end(ap);
	cancel(f);
	f->error = error;
}

void tt_msg_flow_fail_with_peer(struct msg_flow *f)
{
	if (f->error || f->state == FLOW_CLOSED)
		return;
	cancel(f);
	f->error = f->peer->error;
	f->with_peer = true;
}

/* Told to the other end, which then fails alike. */
void tt_msg_flow_fail_lengths(struct msg_flow *f, uint32_t seq, uint64_t posted, uint64_t sent, bool tell)
{
	if (f->error || f->state == FLOW_CLOSED)
		return;
	tt_msg_flow_fail(f, tuttiMismatch,
		     "message %u between this process and %016llx at %s: %llu bytes were sent, the "
		     "receive is for %llu",
		     seq, (unsigned long long)f->peer->id, f->peer->where, (unsigned long long)sent,
		     (unsigned long long)posted);
	f->lengths = true;
	f->bad_seq = seq;
	f->bad_posted = posted;
	f->bad_sent = sent;
	if (tell)
		tt_msg_flow_owe(f, OWE_ERROR);
}

/* The other end is closed: what waits for more than it has sent, or will receive, fails, but not
 * before what it has sent is here. */
bool tt_msg_flow_other_left(struct msg_flow *f, bool posting)
{
	bool waits = f->recv_head != f->recv_tail;

	if (f->got_close != WAY_BOTH || f->error || f->state != FLOW_OPEN)
		return f->error;
	if (waits && msg_before(f->recv_head, f->close_seq))
		return false;
	if (waits || posting || f->send_take != f->send_tail)
		tt_msg_flow_fail(f, tuttiRemoteError, "process %016llx at %s has closed its end of the link",
			     (unsigned long long)f->peer->id, f->peer->where);
	return f->error;
}

bool tt_msg_flow_close_if_over(struct msg_flow *f)
{
	if (f->state != FLOW_CLOSED || f->owe || f->got_close != WAY_BOTH)
		return false;
	tt_msg_flow_free(f);
	return true;
}

/* ---- open and close ---- */

static void adopt(struct msg_flow *f)
{
	f->peer->orphans--;
	f->state = FLOW_OPEN;
}

/* Where both ends are in this process the second to open is side 1. */
static struct msg_flow *other_side(struct msg_ep *ep, uint64_t key)
{
	if (!ep->nbuckets)
		return NULL;
	for (struct msg_flow *f = *bucket(ep, ep->config.self, key); f; f = f->chain)
		if (f->key == key && f->peer->id == ep->config.self && !f->side &&
		    f->state != FLOW_ORPHAN && !f->paired)
			return f;
	return NULL;
}

struct msg_flow *tt_msg_flow_adopt(struct msg_ep *ep, uint64_t peer, uint64_t key)
{
	struct msg_flow *first = peer == ep->config.self ? other_side(ep, key) : NULL;

	if (!ep->nbuckets)
		return NULL;
	for (struct msg_flow *f = *bucket(ep, peer, key); f; f = f->chain)
		if (f->key == key && f->peer->id == peer && f->state == FLOW_ORPHAN &&
		    f->side == (first ? 1 : 0)) {
			adopt(f);
			if (first)
				first->paired = true;
			return f;
		}
	return NULL;
}

tuttiResult_t tt_msg_flow_open(struct msg_peer *p, uint64_t key, struct msg_flow **out)
{
	struct msg_flow *first = p->id == p->ep->config.self ? other_side(p->ep, key) : NULL;
	struct msg_flow *f = flow_new(p, key, first ? 1 : 0);

	if (!f)
		return tt_fail(tuttiSystemError, "no memory for a link to process %016llx",
			       (unsigned long long)p->id);
	if (first)
		first->paired = true;
	f->state = FLOW_OPEN;
	*out = f;
	return tuttiSuccess;
}

struct msg_conn *tt_msg_flow_home(const struct msg_flow *f)
{
	struct msg_peer *p = f->peer;

	return p->nout ? p->out[(f->key ^ f->key >> 32) % (uint64_t)p->nout] : NULL;
}

void tt_msg_flow_close(struct msg_flow *f)
{
	struct msg_peer *p = f->peer;
	struct msg_conn *out = tt_msg_flow_home(f), *in = p->in[0];

	cancel(f);
	f->state = FLOW_CLOSED;
	if (f->slot_mem)
		p->ep->slot_bytes -= MSG_CREDITS * p->ep->eager;
	free(f->slot_mem);
	f->slot_mem = NULL;
	f->slot_count = 0;
	if (p->dead)
		return;
	tt_msg_flow_owe(f, OWE_CLOSE_FORWARD | OWE_CLOSE_BACK);
	tt_msg_emit_all(p->ep);
	if (out)
		out->wire->write(out);
	if (in)
		in->wire->write(in);
}
