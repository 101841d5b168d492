/* Two TCP endpoints over sockets as a test wants them, or one with a test that speaks for its peer.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_TCP_RIG_H
#define TT_TCP_RIG_H

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tcp_conn.h"
#include "test.h"

#define T (&tt_tcp)

/* Two endpoints, 1 and 2; endpoint 3 is a test that speaks for itself over raw sockets. */
struct node {
	uint64_t id;
	void *ep;
	struct node *other;      /* NULL: a raw peer */
	bool inet;
	int buffer;              /* of the sockets, 0 as the system has it */
	int throttled;           /* index of the socket that has the least buffer, or -1 */
	int dialled[MSG_CONNS_MAX], raw_in, raw_out; /* raw: what 3 reads, what 3 writes */
};

static inline void pair_inet(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(!bind(l, (struct sockaddr *)&a, len) && !listen(l, 1));
	CHECK(!getsockname(l, (struct sockaddr *)&a, &len));
	sv[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(!connect(sv[0], (struct sockaddr *)&a, len));
	sv[1] = accept(l, NULL, NULL);
	CHECK(sv[1] >= 0);
	close(l);
}

static inline void pair(struct node *n, int index, int sv[2])
{
	int size = index == n->throttled ? 1 : n->buffer;

	if (n->inet)
		pair_inet(sv);
	else
		CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	for (int i = 0; size && i < 2; i++) {
		CHECK(!setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
		CHECK(!setsockopt(sv[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
	}
}

static inline tuttiResult_t dial(void *ctx, uint64_t peer, const char *transport, int index, int *fd)
{
	struct node *n = ctx;
	int sv[2];

	CHECK(!strcmp(transport, "tcp"));
	pair(n, index, sv);
	n->dialled[index] = *fd = sv[0];
	if (peer == n->id)
		T->accept(n->ep, n->id, index, sv[1]);
	else if (peer != 3)
		T->accept(n->other->ep, n->id, index, sv[1]);
	else
		n->raw_in = sv[1];
	return tuttiSuccess;
}

static inline void node_open(struct node *n, uint64_t id, struct node *other)
{
	struct tt_ep_config config = { .self = id, .ctx = n, .dial = dial };

	n->id = id;
	n->other = other;
	n->ep = calloc(1, T->ep_size);
	n->raw_in = n->raw_out = -1;
	CHECK(T->ep_open(n->ep, &config) == tuttiSuccess);
}

static inline void node_close(struct node *n)
{
	if (n->ep)
		T->ep_close(n->ep);
	free(n->ep);
	n->ep = NULL;
	if (n->raw_in >= 0)
		close(n->raw_in);
	if (n->raw_out >= 0)
		close(n->raw_out);
}

static inline void two(struct node n[2], const char *sockets, bool inet, int buffer, int throttled)
{
	setenv("TUTTI_TCP_SOCKETS", sockets, 1);
	setenv("TUTTI_TCP_EAGER", "4096", 1);
	memset(n, 0, 2 * sizeof(*n));
	for (int i = 0; i < 2; i++) {
		n[i].inet = inet;
		n[i].buffer = buffer;
		n[i].throttled = throttled;
		node_open(&n[i], (uint64_t)i + 1, &n[!i]);
	}
}

static inline void *open_link(struct node *n, uint64_t peer, uint64_t key)
{
	void *l = calloc(1, T->link_size);

	CHECKF(T->link_open(n->ep, l, peer, key) == tuttiSuccess, "%s", tt_last_error());
	return l;
}

static inline void close_link(void *l)
{
	T->link_close(l);
	free(l);
}

static inline void poll_both(struct node n[2])
{
	for (int i = 0; i < 2; i++)
		if (n[i].ep)
			T->poll(n[i].ep);
}

static inline const char *error_of(void *l)
{
	const char *why;

	return T->link_error(l, &why) ? why : NULL;
}

static inline const char *error_soon(struct node n[2], void *l, double seconds)
{
	uint64_t end = tt_now_ns() + (uint64_t)(seconds * 1e9);

	while (!error_of(l) && tt_now_ns() < end)
		poll_both(n);
	return error_of(l);
}

static inline bool over(const struct tt_req *r)
{
	return atomic_load_explicit(&r->state, memory_order_acquire) != TT_REQ_POSTED;
}

#endif
