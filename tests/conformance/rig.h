/* Three endpoints of one transport in one process, and a list of operations pumped over their links.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_RIG_H
#define TT_RIG_H

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"
#include "transport.h"

enum { NEPS = 3 };

struct rig {
	const struct tt_transport *t;
	struct tt_caps caps;
	void *ep[NEPS];
	struct rig_self {
		struct rig *rig;
		int index;
	} self[NEPS];
	bool refuse_dial;
	int fds; /* open before the endpoints were */
};

/* One post and what has become of it. */
enum { OP_SEND, OP_RECV, OP_REDUCE };
struct op {
	void *link;
	int kind;
	void *p;
	size_t n;
	struct tt_note note;         /* to send; received */
	const struct tt_combine *c;
	struct tt_req req;
	enum tt_post result;         /* TT_AGAIN until accepted; then DONE, FAILED or POSTED */
};

static inline tuttiResult_t rig_dial(void *ctx, uint64_t peer, const char *transport, int index, int *fd)
{
	struct rig_self *s = ctx;
	int sv[2];

	if (s->rig->refuse_dial)
		return tt_note_error(tuttiSystemError, "dial refused for the test");
	if (strcmp(transport, s->rig->t->name) != 0)
		return tuttiInternalError;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0)
		return tuttiSystemError;
	s->rig->t->accept(s->rig->ep[peer - 1], (uint64_t)s->index + 1, index, sv[1]);
	*fd = sv[0];
	return tuttiSuccess;
}

static inline int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d != NULL && readdir(d) != NULL)
		n++;
	if (d != NULL)
		closedir(d);
	return n;
}

/* What a library opens at its first use and keeps is no leak of ours. */
static inline void warm_up(const struct tt_transport *t)
{
	struct tt_ep_config config = { .self = 1, .dial = rig_dial };
	void *ep = aligned_alloc(64, (t->ep_size + 63) / 64 * 64);

	memset(ep, 0, t->ep_size);
	CHECKF(t->ep_open(ep, &config) == tuttiSuccess, "%s: %s", t->name, tt_last_error());
	t->ep_close(ep);
	free(ep);
}

static inline void rig_begin(struct rig *r, const struct tt_transport *t)
{
	memset(r, 0, sizeof(*r));
	r->t = t;
	warm_up(t);
	r->fds = open_fds();
	t->probe(&r->caps, (char[64]){ 0 }, 64);
	for (int i = 0; i < NEPS; i++) {
		struct tt_ep_config config = { .self = (uint64_t)i + 1, .ctx = &r->self[i],
					       .dial = rig_dial };

		r->self[i] = (struct rig_self){ r, i };
		r->ep[i] = aligned_alloc(64, (t->ep_size + 63) / 64 * 64);
		memset(r->ep[i], 0, t->ep_size);
		test_device(i);
		CHECKF(t->ep_open(r->ep[i], &config) == tuttiSuccess, "%s: %s", t->name,
		       tt_last_error());
	}
}

static inline void rig_end(struct rig *r)
{
	for (int i = 0; i < NEPS; i++) {
		r->t->ep_close(r->ep[i]);
		free(r->ep[i]);
	}
	CHECKF(open_fds() == r->fds, "%s: %d descriptors before, %d after", r->t->name, r->fds,
	       open_fds());
}

static inline void *rig_link_memory(struct rig *r)
{
	void *l = aligned_alloc(64, (r->t->link_size + 63) / 64 * 64);

	memset(l, 0, r->t->link_size);
	return l;
}

/* One end of a link, at endpoint `at` (0 ..) towards endpoint `to`. */
static inline void *rig_open(struct rig *r, int at, int to, uint64_t key)
{
	void *l = rig_link_memory(r);

	CHECKF(r->t->link_open(r->ep[at], l, (uint64_t)to + 1, key) == tuttiSuccess, "%s: %s",
	       r->t->name, tt_last_error());
	return l;
}

static inline void rig_close(struct rig *r, void *link)
{
	r->t->link_close(link);
	memset(link, 0x5a, r->t->link_size); /* nobody may still look at it */
	free(link);
}

struct ends {
	void *a, *b; /* at endpoints 0 and 1 */
};

static inline struct ends open_ends(struct rig *r, uint64_t key)
{
	return (struct ends){ rig_open(r, 0, 1, key), rig_open(r, 1, 0, key) };
}

static inline void close_ends(struct rig *r, struct ends e)
{
	rig_close(r, e.a);
	rig_close(r, e.b);
}

static inline int rig_poll(struct rig *r)
{
	int n = 0;

	for (int i = 0; i < NEPS; i++)
		n += r->t->poll(r->ep[i]);
	return n;
}

/* Tries a post once; true when it has been accepted or has failed. */
static inline bool op_post(struct rig *r, struct op *o)
{
	if (o->kind == OP_SEND)
		o->result = r->t->send(o->link, o->p, o->n, &o->note, &o->req);
	else if (o->kind == OP_RECV)
		o->result = r->t->recv(o->link, o->p, o->n, &o->req);
	else
		o->result = r->t->recv_reduce(o->link, o->c, o->n, &o->req);
	if (o->result == TT_DONE && o->kind != OP_SEND)
		o->note = o->req.note;
	return o->result != TT_AGAIN;
}

/* Sees whether a posted one is over. */
static inline bool op_over(struct op *o)
{
	int state;

	if (o->result != TT_POSTED)
		return o->result != TT_AGAIN;
	state = atomic_load_explicit(&o->req.state, memory_order_acquire);
	if (state == TT_REQ_POSTED)
		return false;
	CHECKF(state == TT_REQ_DONE || state == TT_REQ_FAILED, "a req in state %d", state);
	o->result = state == TT_REQ_DONE ? TT_DONE : TT_FAILED;
	if (state == TT_REQ_DONE && o->kind != OP_SEND)
		o->note = o->req.note;
	return true;
}

/* Posts in order per link and direction; returns how many are over. */
static inline int ops_step(struct rig *r, struct op *ops, int n)
{
	int over = 0;

	for (int i = 0; i < n; i++) {
		bool blocked = false;

		for (int k = i - 1; k >= 0 && !blocked; k--)
			blocked = ops[k].link == ops[i].link && ops[k].result == TT_AGAIN &&
				  (ops[k].kind == OP_SEND) == (ops[i].kind == OP_SEND);
		if (ops[i].result == TT_AGAIN && !blocked)
			op_post(r, &ops[i]);
		over += op_over(&ops[i]);
	}
	return over;
}

/* Runs all to their end, whatever it is. */
static inline void ops_run(struct rig *r, struct op *ops, int n)
{
	uint64_t end = tt_now_ns() + 10000000000ull;

	for (int i = 0; i < n; i++)
		ops[i].result = TT_AGAIN;
	while (ops_step(r, ops, n) < n) {
		rig_poll(r);
		CHECKF(tt_now_ns() < end, "%s: operations did not end", r->t->name);
	}
}

static inline void ops_succeed(struct rig *r, struct op *ops, int n)
{
	ops_run(r, ops, n);
	for (int i = 0; i < n; i++) {
		const char *why = "";

		r->t->link_error(ops[i].link, &why);
		CHECKF(ops[i].result == TT_DONE, "%s: operation %d of %d failed: %s", r->t->name, i,
		       n, why);
	}
}

/* One message over from a to b. */
static inline void transfer(struct rig *r, void *a, void *b, void *src, void *dst, size_t n)
{
	struct op ops[2] = { { .link = a, .kind = OP_SEND, .p = src, .n = n },
			     { .link = b, .kind = OP_RECV, .p = dst, .n = n } };

	ops_succeed(r, ops, 2);
}

static inline void fill_bytes(void *p, size_t n, uint64_t seed)
{
	unsigned char *c = p;

	for (size_t i = 0; i < n; i++)
		c[i] = (unsigned char)((i * 131 + seed * 29) ^ (i >> 8));
}

static inline bool same_bytes(const void *p, size_t n, uint64_t seed)
{
	const unsigned char *c = p;

	for (size_t i = 0; i < n; i++) {
		if (c[i] != (unsigned char)((i * 131 + seed * 29) ^ (i >> 8)))
			return false;
	}
	return true;
}

/* Runs fn once for each transport that works here. */
static inline void each_transport(void (*fn)(struct rig *r))
{
	int ran = 0;

	for (int i = 0; i < tt_ntransports; i++) {
		struct tt_caps caps;
		char why[128] = "";
		struct rig r;

		if (test_transport() && strcmp(test_transport(), tt_transports[i]->name))
			continue;
		if (!tt_transports[i]->probe(&caps, why, sizeof(why))) {
			fprintf(stderr, "%s skipped: %s\n", tt_transports[i]->name, why);
			continue;
		}
		rig_begin(&r, tt_transports[i]);
		fn(&r);
		rig_end(&r);
		ran++;
	}
	CHECK(ran > 0);
}

#endif
