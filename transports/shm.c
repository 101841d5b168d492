/* Shared memory between processes of one host: links over the rings of shm_ring.h, connections of
 * shm_conn.h. No system call moves data; an eventfd is rung only where the other side sleeps.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "shm_conn.h"

enum { DEPTH = 4, MAX_PENDING = 8 };

struct queue {
	struct tt_req *first, *last;
	uint32_t n;
};

struct shm_link {
	struct shm_ep *ep;
	struct shm_conn *conn;
	struct shm_link *prev, *next, *active_next;
	uint64_t key;
	struct shm_tx *tx;
	struct shm_rx rx;
	struct queue sends, recvs;
	size_t want_room;      /* 1 + bytes for which a send was told AGAIN; 0 none */
	bool want_data;        /* a receive was told AGAIN */
	bool active;
	tuttiResult_t error;
	char why[192];
};

static void push(struct queue *q, struct tt_req *r)
{
	r->next = NULL;
	if (q->n++ == 0)
		q->first = r;
	else
		q->last->next = r;
	q->last = r;
}

/* Takes the first out and tells its poster, who may reuse it at once. */
static void pop(struct queue *q, enum tt_req_state state)
{
	struct tt_req *r = q->first;

	q->first = r->next;
	q->n--;
	atomic_store_explicit(&r->state, state, memory_order_release);
}

static void activate(struct shm_link *l)
{
	if (l->active)
		return;
	l->active = true;
	l->active_next = l->ep->active;
	l->ep->active = l;
}

/* ---- failing ---- */

static void tell_other(struct shm_link *l, enum shm_fault fault)
{
	if (l->tx != NULL) {
		atomic_store_explicit(&l->tx->area->fail, fault, memory_order_seq_cst);
		tt_shm_sent(l->conn);
	}
	if (l->rx.area != NULL) {
		atomic_store_explicit(&l->rx.area->fail, fault, memory_order_seq_cst);
		tt_shm_given_back(l->conn);
	}
}

static void link_fail(struct shm_link *l, tuttiResult_t r, enum shm_fault fault, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void link_fail(struct shm_link *l, tuttiResult_t r, enum shm_fault fault, const char *fmt, ...)
{
	va_list ap;

	if (l->error != tuttiSuccess)
		return;
	l->error = r;
	va_start(ap, fmt);
	vsnprintf(l->why, sizeof(l->why), fmt, ap);
	va_end(ap);
	if (fault != SHM_OK)
		tell_other(l, fault);
	while (l->sends.n > 0)
		pop(&l->sends, TT_REQ_FAILED);
	while (l->recvs.n > 0)
		pop(&l->recvs, TT_REQ_FAILED);
}

static void fail_gone(struct shm_link *l)
{
	link_fail(l, tuttiPeerDead, SHM_OK, "shm: the peer process is gone: %s",
		  l->conn->why_gone != NULL ? l->conn->why_gone : "it died or left");
}

static void fail_told(struct shm_link *l, uint32_t fault)
{
	if (fault == SHM_FAIL_LENGTH)
		link_fail(l, tuttiMismatch, SHM_OK,
			  "shm: the other end got a message of another length than it expected");
	else
		link_fail(l, tuttiRemoteError, SHM_OK, "shm: the other end failed the link");
}

static uint32_t told(const struct shm_link *l)
{
	uint32_t f = atomic_load_explicit(&l->tx->area->fail, memory_order_acquire);

	if (f == 0 && l->rx.area != NULL)
		f = atomic_load_explicit(&l->rx.area->fail, memory_order_acquire);
	return f;
}

static bool attached(struct shm_link *l)
{
	if (l->rx.area == NULL && l->conn->in.head != NULL) {
		l->rx.region = &l->conn->in;
		l->rx.area = tt_shm_area_find(&l->conn->in, l->key);
	}
	return l->rx.area != NULL;
}

/* Nothing more will come from the other end. What it sent before is looked for once more afterwards. */
static bool ended(struct shm_link *l)
{
	return l->conn->gone || told(l) != 0 ||
	       (l->rx.area != NULL &&
		atomic_load_explicit(&l->rx.area->tx_closed, memory_order_acquire) != 0);
}

static void fail_ended(struct shm_link *l)
{
	uint32_t f = told(l);

	if (f != 0)
		fail_told(l, f);
	else if (l->conn->gone)
		fail_gone(l);
	else
		link_fail(l, tuttiRemoteError, SHM_OK, "shm: the other end has closed the link");
}

/* ---- sending ---- */

static bool send_ended(struct shm_link *l)
{
	return l->conn->gone || atomic_load_explicit(&l->tx->area->fail, memory_order_acquire) ||
	       atomic_load_explicit(&l->tx->area->rx_closed, memory_order_acquire);
}

/* Places fragments while there is room. True: all of r is on its way. */
static bool send_step(struct shm_link *l, struct tt_req *r, const struct tt_note *note)
{
	bool any = false;
	int64_t n;

	do {
		n = tt_shm_put(l->tx, (const char *)r->p + r->done, r->n - r->done, r->n, note);
		if (n >= 0)
			r->done += (size_t)n;
		any |= n >= 0;
	} while (n >= 0 && r->done < r->n);
	if (any)
		tt_shm_sent(l->conn);
	return n >= 0;
}

static enum tt_post no_room(struct shm_link *l, size_t n)
{
	if (l->tx->bad)
		link_fail(l, tuttiRemoteError, SHM_FAIL_GARBAGE,
			  "shm: the other end gave back what was not sent");
	else if (attached(l) && ended(l))
		fail_ended(l);
	l->want_room = n + 1;
	return l->error != tuttiSuccess ? TT_FAILED : TT_AGAIN;
}

static void req_init(struct tt_req *req, void *p, size_t n, const struct tt_combine *c)
{
	req->p = p;
	req->n = n;
	req->done = 0;
	req->combine = c;
	req->priv[0] = req->priv[1] = 0;
}

static void enqueue(struct shm_link *l, struct queue *q, struct tt_req *req)
{
	atomic_store_explicit(&req->state, TT_REQ_POSTED, memory_order_relaxed);
	push(q, req);
	activate(l);
}

static enum tt_post shm_send(void *link, const void *p, size_t n, const struct tt_note *note,
			     struct tt_req *req)
{
	struct shm_link *l = link;

	if (l->error == tuttiSuccess && send_ended(l))
		fail_ended(l);
	if (l->error != tuttiSuccess)
		return TT_FAILED;
	if (l->sends.n == MAX_PENDING)
		return no_room(l, n);
	req_init(req, (void *)p, n, NULL);
	if (l->sends.n == 0 && send_step(l, req, note)) {
		l->want_room = 0;
		return TT_DONE;
	}
	if (l->sends.n == 0 && req->done == 0) /* nothing has been placed */
		return no_room(l, n);
	l->want_room = 0;
	memcpy(req->priv, note, sizeof(*note));
	enqueue(l, &l->sends, req);
	return TT_POSTED;
}

static int progress_sends(struct shm_link *l)
{
	struct tt_note note;
	int n = 0;

	if (l->sends.n > 0 && send_ended(l))
		fail_ended(l);
	for (; l->sends.n > 0; n++) {
		memcpy(&note, l->sends.first->priv, sizeof(note));
		if (!send_step(l, l->sends.first, &note))
			break;
		pop(&l->sends, TT_REQ_DONE);
	}
	if (l->tx->bad)
		no_room(l, 0);
	return n;
}

/* ---- receiving ---- */

static void combine(const struct tt_combine *c, size_t off, const void *data, size_t n)
{
	const char *x = (const char *)c->x + off;
	const void *src[2];

	src[0] = c->received_first ? data : x;
	src[1] = c->received_first ? x : data;
	tt_reduce_run((char *)c->dst + off, src, 2, n / tt_type_size(c->type), c->type, c->op,
		      TT_STORE_PLAIN);
}

static void deliver(struct tt_req *r, const struct shm_frag *f)
{
	if (f->len == 0)
		return;
	if (r->combine != NULL)
		combine(r->combine, r->done, f->data, f->len);
	else if (f->len <= SHM_SMALL)
		memcpy((char *)r->p + r->done, f->data, f->len);
	else
		tt_copy_bytes((char *)r->p + r->done, f->data, f->len, TT_STORE_PLAIN);
}

/* The same with the time taken, for the sender to see which stores serve us best. */
static void deliver_measured(struct shm_conn *c, struct tt_req *r, const struct shm_frag *f)
{
	struct shm_meter *m = &c->meter[f->store];
	uint64_t t0 = tt_now_ns();

	deliver(r, f);
	tt_shm_meter_add(m, f->burst, tt_now_ns() - t0, f->len);
	atomic_store_explicit(&c->in.head->rx_cost[f->store], tt_shm_meter_word(m),
			      memory_order_relaxed);
}

/* The fragment continues r as a well-behaved sender would; else the link has failed. */
static bool acceptable(struct shm_link *l, const struct tt_req *r, const struct shm_frag *f)
{
	if (f->total != r->n && r->done == 0)
		link_fail(l, tuttiMismatch, SHM_FAIL_LENGTH,
			  "shm: a message of %zu bytes arrived where %zu were expected", f->total,
			  r->n);
	else if (f->total != r->n || f->len > r->n - r->done ||
		 (f->len < r->n - r->done && f->len % 64 != 0))
		link_fail(l, tuttiRemoteError, SHM_FAIL_GARBAGE,
			  "shm: a fragment of %zu bytes makes no sense", f->len);
	return l->error == tuttiSuccess;
}

/* Takes what is there for r. True: r is complete. */
static bool recv_step(struct shm_link *l, struct tt_req *r)
{
	struct shm_frag f;
	enum shm_peek peek;

	while ((peek = tt_shm_peek(&l->rx, &f)) == SHM_READY) {
		if (!acceptable(l, r, &f))
			return false;
		r->note = f.note;
		if (f.measured)
			deliver_measured(l->conn, r, &f);
		else
			deliver(r, &f);
		r->done += f.len;
		tt_shm_release(&l->rx);
		tt_shm_given_back(l->conn);
		if (r->done == r->n)
			return true;
	}
	if (peek == SHM_BAD)
		link_fail(l, tuttiRemoteError, SHM_FAIL_GARBAGE,
			  "shm: the header of a message makes no sense");
	return false;
}

static bool nothing_there(struct shm_link *l)
{
	return !attached(l) || tt_shm_old(&l->rx, tt_shm_word0(&l->rx));
}

/* Where nothing is there: is it worth waiting? The order matters: closed first, then a second look. */
static enum tt_post recv_empty(struct shm_link *l)
{
	if (ended(l) && nothing_there(l))
		fail_ended(l);
	l->want_data = true;
	return l->error != tuttiSuccess ? TT_FAILED : TT_AGAIN;
}

static enum tt_post receive(struct shm_link *l, void *p, size_t n, const struct tt_combine *c,
			    struct tt_req *req)
{
	if (l->error != tuttiSuccess)
		return TT_FAILED;
	if (l->recvs.n == MAX_PENDING)
		return TT_AGAIN;
	if (l->recvs.n == 0) {
		if (nothing_there(l))
			return recv_empty(l);
		l->want_data = false;
		req_init(req, p, n, c);
		if (recv_step(l, req))
			return TT_DONE;
		if (l->error != tuttiSuccess)
			return TT_FAILED;
	} else {
		req_init(req, p, n, c);
	}
	enqueue(l, &l->recvs, req);
	return TT_POSTED;
}

static enum tt_post shm_recv(void *link, void *p, size_t n, struct tt_req *req)
{
	return receive(link, p, n, NULL, req);
}

static enum tt_post shm_recv_reduce(void *link, const struct tt_combine *c, size_t n,
				    struct tt_req *req)
{
	return receive(link, c->dst, n, c, req);
}

static int progress_recvs(struct shm_link *l)
{
	int n = 0;

	for (; l->recvs.n > 0 && recv_step(l, l->recvs.first); n++)
		pop(&l->recvs, TT_REQ_DONE);
	if (l->recvs.n > 0 && ended(l) && nothing_there(l))
		fail_ended(l);
	return n;
}

/* ---- endpoint ---- */

static int shm_poll(void *ep_)
{
	struct shm_ep *ep = ep_;
	struct shm_link **p = &ep->active;
	int n = 0;

	tt_shm_conn_poll(ep);
	while (*p != NULL) {
		struct shm_link *l = *p;

		n += progress_recvs(l) + progress_sends(l);
		if (l->sends.n + l->recvs.n > 0) {
			p = &l->active_next;
			continue;
		}
		l->active = false;
		*p = l->active_next;
	}
	return n;
}

static void set_asleep(struct shm_ep *ep, uint32_t v)
{
	for (struct shm_conn *c = ep->conns; c != NULL; c = c->next) {
		if (c->in.head != NULL)
			atomic_store_explicit(&c->in.head->rx_asleep, v, memory_order_seq_cst);
		if (c->out.head != NULL)
			atomic_store_explicit(&c->out.head->tx_asleep, v, memory_order_seq_cst);
	}
}

/* Would a call on l, or poll, get further now than last time? */
static bool can_move(struct shm_link *l)
{
	size_t room = l->want_room, total = room - 1;

	if (l->error != tuttiSuccess || (room == 0 && l->sends.n + l->recvs.n == 0 && !l->want_data))
		return false;
	if (told(l) != 0 || l->conn->gone)
		return true;
	if ((l->want_data || l->recvs.n > 0) && attached(l) && (tt_shm_ready(&l->rx) || ended(l)))
		return true;
	if (l->sends.n > 0) {
		total = l->sends.first->n;
		room = 1 + total - l->sends.first->done;
	}
	return room > 0 && (send_ended(l) || tt_shm_room(l->tx, room - 1, total) || l->tx->bad);
}

static bool shm_arm(void *ep_)
{
	struct shm_ep *ep = ep_;
	bool move;

	set_asleep(ep, 1);
	move = atomic_load_explicit(&ep->arrivals, memory_order_seq_cst) != NULL;
	for (struct shm_link *l = ep->links; l != NULL && !move; l = l->next)
		move = can_move(l);
	if (move)
		set_asleep(ep, 0);
	return !move;
}

static void shm_disarm(void *ep_)
{
	struct shm_ep *ep = ep_;
	struct epoll_event ev[16];

	set_asleep(ep, 0);
	while (epoll_wait(ep->epfd, ev, 16, 0) == 16)
		;
	ep->check = true;
}

static int shm_wait_fd(void *ep)
{
	return ((struct shm_ep *)ep)->epfd;
}

static void shm_accept(void *ep, uint64_t peer, int index, int fd)
{
	tt_shm_arrive(ep, peer, fd);
}

static void shm_peer_gone(void *ep_, uint64_t peer)
{
	struct shm_ep *ep = ep_;

	ep->check = true;
	tt_shm_conn_poll(ep);
	for (struct shm_conn *c = ep->conns; c != NULL; c = c->next)
		c->gone |= c->peer == peer;
}

static size_t shm_memory(void *ep)
{
	return tt_shm_ep_memory(ep);
}

/* ---- links ---- */

static tuttiResult_t shm_link_open(void *ep_, void *link, uint64_t peer, uint64_t key)
{
	struct shm_ep *ep = ep_;
	struct shm_link *l = link;
	struct shm_conn *c;

	if (peer == ep->config.self)
		return tt_fail(tuttiUnsupported, "shm: a link inside one process needs inproc");
	c = tt_shm_conn_get(ep, peer);
	if (c == NULL)
		return tt_fail(tuttiSystemError, "shm: out of memory for a connection");
	TRY(tt_shm_conn_dial(ep, c));
	l->tx = tt_shm_tx_open(c, key);
	if (l->tx == NULL)
		return tt_fail(tuttiSystemError, "shm: no room for one more link: %u of %d are in use",
			       c->out.nused, SHM_AREAS);
	l->ep = ep;
	l->conn = c;
	l->key = key;
	l->next = ep->links;
	if (l->next != NULL)
		l->next->prev = l;
	ep->links = l;
	return tuttiSuccess;
}

static void unlist(struct shm_link *l)
{
	struct shm_link **p = &l->ep->active;

	while (l->active && *p != l)
		p = &(*p)->active_next;
	if (l->active)
		*p = l->active_next;
	if (l->prev != NULL)
		l->prev->next = l->next;
	else
		l->ep->links = l->next;
	if (l->next != NULL)
		l->next->prev = l->prev;
}

/* Posts still in flight fail; an end closed in the middle of a message fails the other one too. */
static void shm_link_close(void *link)
{
	struct shm_link *l = link;

	if (l->ep == NULL)
		return;
	if (l->sends.n + l->recvs.n > 0)
		link_fail(l, tuttiAborted, SHM_FAIL_OTHER, "shm: closed with posts in flight");
	unlist(l);
	if (attached(l)) {
		atomic_store_explicit(&l->rx.area->rx_closed, 1, memory_order_seq_cst);
		tt_shm_given_back(l->conn);
	}
	tt_shm_tx_close(l->conn, l->tx);
	memset(l, 0, sizeof(*l));
}

static tuttiResult_t shm_link_error(void *link, const char **why)
{
	struct shm_link *l = link;

	if (l->ep != NULL && l->error == tuttiSuccess && told(l) != 0)
		fail_told(l, told(l));
	*why = l->why;
	return l->error;
}

/* What makes memory for others may be forbidden, in containers above all. */
static bool shm_probe(struct tt_caps *caps, char *why, size_t why_size)
{
	int fd = tt_memfd(1);

	if (fd < 0)
		snprintf(why, why_size, "no memory that processes share: memfd_create: %s", strerror(errno));
	else
		close(fd);
	*caps = (struct tt_caps){
		.latency = 150e-9, .overhead = 250e-9,
		.bandwidth = 15e9, .copied = 23e9,
		.max_message = (size_t)1 << 40,
		.eager = SHM_SMALL,
		.depth = DEPTH,
		.lanes = 2,
		.across_processes = true,
	};
	return fd >= 0;
}

static tuttiResult_t shm_ep_open(void *ep, const struct tt_ep_config *config)
{
	return tt_shm_ep_open(ep, config);
}

static void shm_ep_close(void *ep)
{
	tt_shm_ep_close(ep);
}

const struct tt_transport tt_shm = {
	.size = sizeof(struct tt_transport),
	.name = "shm",
	.ep_size = sizeof(struct shm_ep),
	.link_size = sizeof(struct shm_link),
	.probe = shm_probe,
	.ep_open = shm_ep_open,
	.ep_close = shm_ep_close,
	.link_open = shm_link_open,
	.link_close = shm_link_close,
	.send = shm_send,
	.recv = shm_recv,
	.recv_reduce = shm_recv_reduce,
	.poll = shm_poll,
	.link_error = shm_link_error,
	.arm = shm_arm,
	.disarm = shm_disarm,
	.wait_fd = shm_wait_fd,
	.accept = shm_accept,
	.peer_gone = shm_peer_gone,
	.memory = shm_memory,
};
