/* Links between ranks that are threads of one process, and the reference for the contract. Small messages
 * are copied into the ring; larger ones leave their address there and the receiver takes the bytes from
 * the sender's buffer, in one copy or one reduction. SPDX-License-Identifier: Apache-2.0
 *
 * The two ends of a link meet in a table by key. They share a *pair* of pipes, freed by whoever leaves last.
 * A sender that closes withdraws what the receiver has not begun with, and waits for what it has. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport.h"

enum { RING = 8, EAGER = 1024, BUCKETS = 1024 };
enum { FAIL_NONE, FAIL_LENGTH, FAIL_OTHER };
#define STALL_NS 200000000ull

/* Word `state` of an entry is its turn times four plus one of these; turn = message number / RING. */
enum { EMPTY, FULL, TAKEN, WITHDRAWN };

struct entry {
	_Alignas(64) _Atomic uint64_t state;
	size_t n;
	const void *p;       /* `data`, or the sender's buffer */
	struct tt_note note;
	uint64_t not_before; /* faults: visible from then on; 0: at once */
	bool flip;
	_Alignas(64) unsigned char data[EAGER];
};

struct pipe {
	_Alignas(64) _Atomic uint64_t taken; /* messages the receiver has done with */
	struct entry ring[RING];
};

/* Outlives its endpoint: the other side may still be about to ring it. */
struct bell {
	_Atomic int refs;
	_Atomic uint32_t asleep;
	int fd;
};

struct pair {
	struct pair *next; /* in the table, until both ends have been opened */
	uint64_t key;
	int refs;
	bool opened[2];
	uint64_t group; /* of the end opened first */
	_Atomic uint32_t closed[2];
	_Atomic uint32_t fail;
	_Atomic(struct bell *) bell[2];
	struct pipe pipe[2]; /* pipe[s]: what side s sends */
};

struct inproc_link;
struct inproc_ep {
	struct inproc_ep *next; /* in the list of all */
	uint64_t group;
	struct bell *bell;
	struct inproc_link *links, *active;
	size_t npairs;
};

struct inproc_link {
	struct inproc_ep *ep;
	struct inproc_link *prev, *next, *active_next;
	struct pair *pair;
	int side;
	bool active;
	uint64_t sent, received, confirmed; /* confirmed: sends known to be taken */
	struct tt_req *reqs[RING];          /* of the sends in flight; NULL: was done at once */
	uint32_t npending;
	bool want_room, want_data;
	tuttiResult_t error;
	const char *why;
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pair *table[BUCKETS];
static struct inproc_ep *all_eps; /* under table_lock */

/* ---- faults, for tests ---- */

static _Atomic uint32_t fault_kind, fault_count;

void tt_inproc_fault(enum tt_fault kind, uint32_t nth)
{
	atomic_store(&fault_count, 0);
	atomic_store(&fault_kind, kind);
	atomic_store(&fault_count, nth);
}

static enum tt_fault fault_now(void)
{
	if (atomic_load_explicit(&fault_count, memory_order_relaxed) == 0)
		return TT_FAULT_NONE;
	return atomic_fetch_sub(&fault_count, 1) == 1 ? atomic_load(&fault_kind) : TT_FAULT_NONE;
}

/* ---- bells ---- */

static void bell_put(struct bell *b)
{
	if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) > 1)
		return;
	close(b->fd);
	free(b);
}

static struct bell *bell_make(void)
{
	struct bell *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return NULL;
	atomic_init(&b->refs, 1);
	b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->fd >= 0)
		return b;
	free(b);
	return NULL;
}

/* After a sequentially consistent store that the other end may sleep for. */
static void ring_other(struct inproc_link *l)
{
	struct bell *b = atomic_load_explicit(&l->pair->bell[!l->side], memory_order_seq_cst);
	int e = errno;

	if (b != NULL && atomic_load_explicit(&b->asleep, memory_order_seq_cst) &&
	    atomic_exchange_explicit(&b->asleep, 0, memory_order_seq_cst))
		eventfd_write(b->fd, 1);
	errno = e;
}

/* ---- the ring ---- */

static uint64_t turn(uint64_t number, int state)
{
	return number / RING * 4 + (uint64_t)state;
}

static struct entry *entry_of(struct pipe *p, uint64_t number)
{
	return &p->ring[number % RING];
}

static struct pipe *out_pipe(struct inproc_link *l)
{
	return &l->pair->pipe[l->side];
}

static struct pipe *in_pipe(struct inproc_link *l)
{
	return &l->pair->pipe[!l->side];
}

static bool have_message(struct inproc_link *l)
{
	struct entry *e = entry_of(in_pipe(l), l->received);

	return atomic_load_explicit(&e->state, memory_order_seq_cst) == turn(l->received, FULL) &&
	       (e->not_before == 0 || tt_now_ns() >= e->not_before);
}

/* Takes the message unless its sender withdraws it at this moment. */
static struct entry *take(struct inproc_link *l)
{
	struct entry *e = entry_of(in_pipe(l), l->received);
	uint64_t full = turn(l->received, FULL);

	if (!have_message(l) ||
	    !atomic_compare_exchange_strong_explicit(&e->state, &full, turn(l->received, TAKEN),
						     memory_order_acq_rel, memory_order_relaxed))
		return NULL;
	return e;
}

static void give_back(struct inproc_link *l)
{
	l->received++;
	atomic_store_explicit(&in_pipe(l)->taken, l->received, memory_order_seq_cst);
	ring_other(l);
}

/* ---- failing ---- */

static void finish(struct inproc_link *l, uint64_t number, enum tt_req_state state)
{
	struct tt_req *r = l->reqs[number % RING];

	l->reqs[number % RING] = NULL;
	if (r == NULL)
		return;
	l->npending--;
	atomic_store_explicit(&r->state, state, memory_order_release);
}

/* After this the receiver neither reads nor will read a buffer of ours. Waits for one copy at most. */
static void withdraw(struct inproc_link *l)
{
	struct pipe *p = out_pipe(l);

	for (uint64_t i = l->confirmed; i < l->sent; i++) {
		uint64_t full = turn(i, FULL);

		if (l->reqs[i % RING] == NULL ||
		    atomic_compare_exchange_strong_explicit(&entry_of(p, i)->state, &full,
							    turn(i, WITHDRAWN),
							    memory_order_acq_rel,
							    memory_order_acquire))
			continue;
		while (atomic_load_explicit(&p->taken, memory_order_acquire) <= i &&
		       full == turn(i, TAKEN))
			tt_pause();
	}
}

static void link_fail(struct inproc_link *l, tuttiResult_t r, uint32_t fail, const char *why)
{
	if (l->error != tuttiSuccess)
		return;
	l->error = r;
	l->why = why;
	if (fail != FAIL_NONE)
		atomic_store_explicit(&l->pair->fail, fail, memory_order_seq_cst);
	withdraw(l);
	for (; l->confirmed < l->sent; l->confirmed++)
		finish(l, l->confirmed, TT_REQ_FAILED);
	ring_other(l);
}

static bool ended(struct inproc_link *l)
{
	return atomic_load_explicit(&l->pair->fail, memory_order_seq_cst) != 0 ||
	       atomic_load_explicit(&l->pair->closed[!l->side], memory_order_seq_cst) != 0;
}

static void fail_ended(struct inproc_link *l)
{
	uint32_t fail = atomic_load_explicit(&l->pair->fail, memory_order_acquire);

	if (fail == FAIL_LENGTH)
		link_fail(l, tuttiMismatch, FAIL_NONE,
			  "inproc: the other end got a message of another length than it expected");
	else if (fail != 0)
		link_fail(l, tuttiRemoteError, FAIL_NONE, "inproc: the other end failed the link");
	else
		link_fail(l, tuttiRemoteError, FAIL_NONE, "inproc: the other end has closed the link");
}

/* ---- sending ---- */

static int confirm(struct inproc_link *l)
{
	uint64_t taken = atomic_load_explicit(&out_pipe(l)->taken, memory_order_seq_cst);
	uint32_t before = l->npending;

	for (; l->confirmed < taken; l->confirmed++)
		finish(l, l->confirmed, TT_REQ_DONE);
	return (int)(before - l->npending);
}

static void publish(struct inproc_link *l, const void *p, size_t n, const struct tt_note *note,
		    enum tt_fault fault)
{
	struct entry *e = entry_of(out_pipe(l), l->sent);

	e->n = n;
	e->p = p;
	if (n <= EAGER) {
		if (n > 0)
			memcpy(e->data, p, n);
		e->p = e->data;
	}
	e->note = *note;
	e->flip = fault == TT_FAULT_FLIP;
	e->not_before = fault == TT_FAULT_STALL ? tt_now_ns() + STALL_NS : 0;
	atomic_store_explicit(&e->state, turn(l->sent, FULL), memory_order_seq_cst);
	l->sent++;
	ring_other(l);
}

static void post(struct inproc_link *l, struct tt_req *req)
{
	atomic_store_explicit(&req->state, TT_REQ_POSTED, memory_order_relaxed);
	l->reqs[l->sent % RING] = req;
	l->npending++;
	if (l->active)
		return;
	l->active = true;
	l->active_next = l->ep->active;
	l->ep->active = l;
}

/* A small message may be DONE before earlier large ones only if there are none: posts end in order. */
static enum tt_post inproc_send(void *link, const void *p, size_t n, const struct tt_note *note,
				struct tt_req *req)
{
	struct inproc_link *l = link;
	enum tt_fault fault;
	bool now;

	if (l->error == tuttiSuccess && ended(l))
		fail_ended(l);
	if (l->error != tuttiSuccess)
		return TT_FAILED;
	if (l->sent - l->confirmed == RING && l->npending == 0)
		confirm(l);
	l->want_room = l->sent - l->confirmed == RING;
	if (l->want_room)
		return TT_AGAIN;
	fault = fault_now();
	if (fault == TT_FAULT_DROP)
		return TT_DONE;
	now = n <= EAGER && l->npending == 0;
	if (!now)
		post(l, req);
	publish(l, p, n, note, fault);
	return now ? TT_DONE : TT_POSTED;
}

/* ---- receiving: never posted, as the bytes of a message are there with its header ---- */

static void combine(const struct tt_combine *c, const void *data, size_t n)
{
	const void *src[2];

	src[0] = c->received_first ? data : c->x;
	src[1] = c->received_first ? c->x : data;
	tt_reduce_run(c->dst, src, 2, n / tt_type_size(c->type), c->type, c->op, TT_STORE_PLAIN);
}

static void deliver(const struct entry *e, void *p, const struct tt_combine *c)
{
	if (e->n == 0)
		return;
	if (c != NULL)
		combine(c, e->p, e->n);
	else
		memcpy(p, e->p, e->n);
	if (e->flip)
		((unsigned char *)p)[e->n / 2] ^= 0x10;
}

static enum tt_post nothing(struct inproc_link *l)
{
	struct entry *e = entry_of(in_pipe(l), l->received);

	/* closed first, then a second look: what was sent before is still delivered */
	if (ended(l) &&
	    atomic_load_explicit(&e->state, memory_order_acquire) != turn(l->received, FULL))
		fail_ended(l);
	l->want_data = true;
	return l->error != tuttiSuccess ? TT_FAILED : TT_AGAIN;
}

static enum tt_post receive(struct inproc_link *l, void *p, size_t n, const struct tt_combine *c,
			    struct tt_req *req)
{
	struct entry *e;

	if (l->error != tuttiSuccess)
		return TT_FAILED;
	e = take(l);
	if (e == NULL)
		return nothing(l);
	l->want_data = false;
	if (e->n != n) {
		give_back(l);
		link_fail(l, tuttiMismatch, FAIL_LENGTH,
			  "inproc: a message arrived with another length than expected");
		return TT_FAILED;
	}
	deliver(e, p, c);
	req->note = e->note;
	give_back(l);
	return TT_DONE;
}

static enum tt_post inproc_recv(void *link, void *p, size_t n, struct tt_req *req)
{
	return receive(link, p, n, NULL, req);
}

static enum tt_post inproc_recv_reduce(void *link, const struct tt_combine *c, size_t n,
				       struct tt_req *req)
{
	return receive(link, c->dst, n, c, req);
}

/* ---- endpoint ---- */

static int inproc_poll(void *ep)
{
	struct inproc_link **p = &((struct inproc_ep *)ep)->active;
	int n = 0;

	while (*p != NULL) {
		struct inproc_link *l = *p;

		n += confirm(l);
		if (l->npending > 0 && ended(l))
			fail_ended(l);
		if (l->npending > 0) {
			p = &l->active_next;
			continue;
		}
		l->active = false;
		*p = l->active_next;
	}
	return n;
}

static bool can_move(struct inproc_link *l)
{
	if (l->error != tuttiSuccess || (!l->want_room && !l->want_data && l->npending == 0))
		return false;
	if (ended(l))
		return true;
	if (l->want_data && atomic_load_explicit(&entry_of(in_pipe(l), l->received)->state,
						 memory_order_seq_cst) == turn(l->received, FULL))
		return true;
	return (l->want_room || l->npending > 0) &&
	       atomic_load_explicit(&out_pipe(l)->taken, memory_order_seq_cst) > l->confirmed;
}

static bool inproc_arm(void *ep_)
{
	struct inproc_ep *ep = ep_;

	atomic_store_explicit(&ep->bell->asleep, 1, memory_order_seq_cst);
	for (struct inproc_link *l = ep->links; l != NULL; l = l->next) {
		if (!can_move(l))
			continue;
		atomic_store_explicit(&ep->bell->asleep, 0, memory_order_seq_cst);
		return false;
	}
	return true;
}

static void inproc_disarm(void *ep_)
{
	struct inproc_ep *ep = ep_;
	eventfd_t v;
	int e = errno;

	atomic_store_explicit(&ep->bell->asleep, 0, memory_order_seq_cst);
	eventfd_read(ep->bell->fd, &v);
	errno = e;
}

static int inproc_wait_fd(void *ep)
{
	return ((struct inproc_ep *)ep)->bell->fd;
}

static void inproc_accept(void *ep, uint64_t peer, int index, int fd)
{
	close(fd); /* nobody dials here */
}

static void inproc_peer_gone(void *ep, uint64_t peer)
{
}

static size_t inproc_memory(void *ep)
{
	struct inproc_ep *e = ep;

	return sizeof(*e) + e->npairs * sizeof(struct pair);
}

static tuttiResult_t inproc_ep_open(void *ep, const struct tt_ep_config *config)
{
	struct inproc_ep *e = ep;

	e->bell = bell_make();
	if (e->bell == NULL)
		return tt_fail(tuttiSystemError, "inproc: no eventfd: %s", strerror(errno));
	e->group = config->group;
	pthread_mutex_lock(&table_lock);
	e->next = all_eps;
	all_eps = e;
	pthread_mutex_unlock(&table_lock);
	return tuttiSuccess;
}

/* Out of the list; whether it was the last of its group. */
static bool last_of_group(struct inproc_ep *e)
{
	struct inproc_ep **at = &all_eps;
	bool last = true;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	for (const struct inproc_ep *o = all_eps; o != NULL; o = o->next)
		last &= o->group != e->group;
	return last;
}

static void pair_free(struct pair *p)
{
	bell_put(p->bell[0]);
	bell_put(p->bell[1]);
	free(p);
}

/* A pair whose other end has not come is kept for it, with what was sent, even when the sender's endpoint
 * goes: a rank may leave before another has begun. The last endpoint of the group frees what nobody came for. */
static void inproc_ep_close(void *ep)
{
	struct inproc_ep *e = ep;

	if (e->bell == NULL)
		return;
	pthread_mutex_lock(&table_lock);
	for (int i = last_of_group(e) ? 0 : BUCKETS; i < BUCKETS; i++) {
		for (struct pair **at = &table[i]; *at != NULL;) {
			struct pair *p = *at;

			if (p->refs > 0 || p->group != e->group) {
				at = &p->next;
				continue;
			}
			*at = p->next;
			pair_free(p);
		}
	}
	pthread_mutex_unlock(&table_lock);
	bell_put(e->bell);
	e->bell = NULL;
}

/* ---- links ---- */

static struct pair **find(uint64_t key)
{
	struct pair **at = &table[tt_hash64(&key, sizeof(key), 1) % BUCKETS];

	while (*at != NULL && (*at)->key != key)
		at = &(*at)->next;
	return at;
}

static struct pair *pair_make(uint64_t key, uint64_t group)
{
	struct pair *p = aligned_alloc(64, sizeof(*p));

	if (p == NULL)
		return NULL;
	memset(p, 0, sizeof(*p));
	p->key = key;
	p->group = group;
	return p;
}

/* The side that this end becomes: 0 for the first, 1 for the second, which takes the pair out. */
static struct pair *join(uint64_t key, uint64_t group, int *side)
{
	struct pair **at, *p;

	pthread_mutex_lock(&table_lock);
	at = find(key);
	p = *at;
	if (p != NULL) {
		*at = p->next;
		*side = 1;
	} else {
		p = *at = pair_make(key, group);
		*side = 0;
	}
	if (p != NULL) {
		p->opened[*side] = true;
		p->refs++;
	}
	pthread_mutex_unlock(&table_lock);
	return p;
}

static tuttiResult_t inproc_link_open(void *ep, void *link, uint64_t peer, uint64_t key)
{
	struct inproc_ep *e = ep;
	struct inproc_link *l = link;
	struct pair *p = join(key, e->group, &l->side);

	if (p == NULL)
		return tt_fail(tuttiSystemError, "inproc: out of memory for a link");
	atomic_fetch_add_explicit(&e->bell->refs, 1, memory_order_relaxed);
	atomic_store_explicit(&p->bell[l->side], e->bell, memory_order_seq_cst);
	l->ep = e;
	l->pair = p;
	e->npairs++;
	l->next = e->links;
	if (l->next != NULL)
		l->next->prev = l;
	e->links = l;
	return tuttiSuccess;
}

static void unlist(struct inproc_link *l)
{
	struct inproc_link **p = &l->ep->active;

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
	l->ep->npairs--;
}

/* A pair that only we ever opened stays in the table: its other end shall find what we sent and that we
 * have closed. */
static void leave(struct pair *p)
{
	bool last;

	pthread_mutex_lock(&table_lock);
	p->refs--;
	last = p->refs == 0 && p->opened[1];
	pthread_mutex_unlock(&table_lock);
	if (last)
		pair_free(p);
}

static void inproc_link_close(void *link)
{
	struct inproc_link *l = link;

	if (l->pair == NULL)
		return;
	confirm(l);
	if (l->npending > 0)
		link_fail(l, tuttiAborted, FAIL_OTHER, "inproc: closed with posts in flight");
	unlist(l);
	atomic_store_explicit(&l->pair->closed[l->side], 1, memory_order_seq_cst);
	ring_other(l);
	leave(l->pair);
	memset(l, 0, sizeof(*l));
}

static tuttiResult_t inproc_link_error(void *link, const char **why)
{
	struct inproc_link *l = link;

	if (l->pair != NULL && l->error == tuttiSuccess &&
	    atomic_load_explicit(&l->pair->fail, memory_order_acquire) != 0)
		fail_ended(l);
	*why = l->why != NULL ? l->why : "";
	return l->error;
}

static bool inproc_probe(struct tt_caps *caps, char *why, size_t why_size)
{
	*caps = (struct tt_caps){
		.latency = 100e-9,
		.bandwidth = 10e9,
		.max_message = (size_t)1 << 40,
		.eager = EAGER,
		.depth = RING,
		.lanes = 2,
	};
	return true;
}

const struct tt_transport tt_inproc = {
	.size = sizeof(struct tt_transport),
	.name = "inproc",
	.ep_size = sizeof(struct inproc_ep),
	.link_size = sizeof(struct inproc_link),
	.ep_per_rank = true,
	.probe = inproc_probe,
	.ep_open = inproc_ep_open,
	.ep_close = inproc_ep_close,
	.link_open = inproc_link_open,
	.link_close = inproc_link_close,
	.send = inproc_send,
	.recv = inproc_recv,
	.recv_reduce = inproc_recv_reduce,
	.poll = inproc_poll,
	.link_error = inproc_link_error,
	.arm = inproc_arm,
	.disarm = inproc_disarm,
	.wait_fd = inproc_wait_fd,
	.accept = inproc_accept,
	.peer_gone = inproc_peer_gone,
	.memory = inproc_memory,
};
