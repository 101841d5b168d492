/* TCP: the endpoint, dialling, the poll. What it moves: msg.h. SPDX-License-Identifier: Apache-2.0
 *
 * Memory (T14): about 38 KiB a socket, 1 KiB a link and, for links that have had an early message,
 * 4 x TUTTI_TCP_EAGER; 64 KiB an endpoint. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "tcp_conn.h"

#define FEW_SOCKETS 8     /* up to here each is tried, beyond epoll says which */
#define READ_ROUNDS 8

/* ---- dialling ---- */

static bool same_host(int fd)
{
	struct sockaddr_storage a = { 0 }, b = { 0 };
	socklen_t la = sizeof(a), lb = sizeof(b);
	const struct sockaddr_in *a4 = (const struct sockaddr_in *)&a, *b4 = (const struct sockaddr_in *)&b;
	const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&a;
	const struct sockaddr_in6 *b6 = (const struct sockaddr_in6 *)&b;

	if (getsockname(fd, (struct sockaddr *)&a, &la) || getpeername(fd, (struct sockaddr *)&b, &lb))
		return true;
	if (a.ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr ||
		       ntohl(b4->sin_addr.s_addr) >> 24 == 127;
	if (a.ss_family == AF_INET6)
		return !memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr));
	return true;
}

/* One stream is enough within a host; over a network several share the work and the paths. */
static int sockets_wanted(int fd)
{
	int64_t k = tt_env_int("TCP_SOCKETS");

	if (k > 0)
		return (int)tt_min((size_t)k, MSG_CONNS_MAX);
	if (same_host(fd))
		return 1;
	return tt_usable_cores() >= 8 ? 4 : 2;
}

static tuttiResult_t dial_one(struct msg_peer *p, int index, int *fd)
{
	const struct tt_ep_config *config = &p->ep->config;

	TRY(config->dial(config->ctx, p->id, "tcp", index, fd));
	tt_msg_peer_say_where(p, *fd);
	p->out[index] = tt_tcp_conn_new(p, *fd, index, true);
	if (p->out[index])
		return tuttiSuccess;
	close(*fd);
	return tt_fail(tuttiSystemError, "no memory for a connection to process %016llx at %s",
		       (unsigned long long)p->id, p->where);
}

/* The first socket must be had; with fewer than wanted it is only slower. */
static tuttiResult_t wire_dial(struct msg_peer *p)
{
	int fd, want;

	TRY(dial_one(p, 0, &fd));
	want = sockets_wanted(fd);
	for (p->nout = 1; p->nout < want; p->nout++)
		if (dial_one(p, p->nout, &fd)) {
			tt_log(TT_LOG_WARN, "tcp", "%d of %d connections to process %016llx at %s",
			       p->nout, want, (unsigned long long)p->id, p->where);
			break;
		}
	return tuttiSuccess;
}

/* ---- the wire ---- */

static struct msg_conn *wire_arrive(struct msg_peer *p, int index, int fd)
{
	return tt_tcp_conn_new(p, fd, index, false);
}

static void wire_look(struct msg_conn *b)
{
	struct tcp_conn *c = (struct tcp_conn *)b;
	char byte;

	if (!b->lost && !recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT))
		tt_tcp_conn_lost(c, 0);
}

static void wire_drain(struct msg_conn *c)
{
	tt_tcp_conn_read(c, 64);
}

static bool wire_idle(const struct msg_conn *c)
{
	return tt_tcp_conn_idle((const struct tcp_conn *)c);
}

/* With several sockets a message is to be spread over them. */
static size_t wire_chunk(const struct msg_conn *c)
{
	return c->peer->nout > 1 ? TCP_CHUNK / 2 : TCP_CHUNK;
}

const struct msg_wire tt_tcp_wire = {
	.name = "tcp",
	.eager_setting = "TUTTI_TCP_EAGER",
	.dial = wire_dial,
	.arrive = wire_arrive,
	.look = wire_look,
	.drain = wire_drain,
	.close = tt_tcp_conn_close,
	.idle = wire_idle,
	.put = tt_tcp_conn_put,
	.start = tt_tcp_conn_start,
	.write = tt_tcp_conn_write,
	.forget = tt_tcp_conn_forget,
	.data = tt_tcp_conn_data,
	.chunk = wire_chunk,
};

/* ---- poll ---- */

static void read_few(struct tcp_ep *ep)
{
	bool all = !(ep->polls & 15);

	for (struct msg_conn *c = ep->base.conns; c; c = c->next)
		if (!c->outgoing || all || c->peer->pending)
			tt_tcp_conn_read(c, READ_ROUNDS);
}

static void read_many(struct tcp_ep *ep)
{
	struct epoll_event ev[64];
	int kept = errno, n = epoll_wait(ep->epoll, ev, 64, 0);

	errno = kept;
	for (int i = 0; i < n; i++)
		if (ev[i].data.ptr && ev[i].events & ~(uint32_t)EPOLLOUT)
			tt_tcp_conn_read(ev[i].data.ptr, READ_ROUNDS);
}

static int tcp_poll(void *e)
{
	struct tcp_ep *ep = e;
	uint64_t moved = ep->base.moved;

	ep->polls++;
	tt_msg_take_arrivals(&ep->base);
	if (ep->base.nconns <= FEW_SOCKETS)
		read_few(ep);
	else
		read_many(ep);
	return tt_msg_settle(&ep->base, moved);
}

/* Watches for room where there is something to write. */
static void watch_output(struct tcp_ep *ep)
{
	for (struct msg_conn *b = ep->base.conns; b; b = b->next) {
		struct tcp_conn *c = (struct tcp_conn *)b;
		bool want = !tt_tcp_conn_idle(c) || (b->outgoing && b->peer->ready);
		struct epoll_event ev = { .events = EPOLLIN | (want ? EPOLLOUT : 0), .data.ptr = c };

		if (want == c->armed || b->lost)
			continue;
		if (!epoll_ctl(ep->epoll, EPOLL_CTL_MOD, c->fd, &ev))
			c->armed = want;
	}
}

static bool tcp_arm(void *e)
{
	struct tcp_ep *ep = e;
	struct epoll_event ev;

	if (!tt_msg_arm(&ep->base))
		return false;
	watch_output(ep);
	return ep->base.completed == ep->base.reported && epoll_wait(ep->epoll, &ev, 1, 0) <= 0;
}

/* The watch stays as it is: only arm and the next sleep look at it. */
static void tcp_disarm(void *e)
{
	(void)e;
}

static int tcp_wait_fd(void *e)
{
	return ((struct tcp_ep *)e)->epoll;
}

static size_t tcp_memory(void *e)
{
	const struct tcp_ep *ep = e;

	return sizeof(*ep) + TCP_SCRATCH + (size_t)ep->base.nconns * sizeof(struct tcp_conn) +
	       tt_msg_memory(&ep->base);
}

/* ---- endpoint ---- */

static size_t eager_setting(void)
{
	int64_t n = tt_env_int("TCP_EAGER");

	return n < 0 ? 0 : tt_min((size_t)n, MSG_EAGER_MAX);
}

static bool tcp_probe(struct tt_caps *caps, char *why, size_t why_size)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		(void)snprintf(why, why_size, "no TCP socket: %m");
		return false;
	}
	close(fd);
	*caps = (struct tt_caps){
		.latency = 4e-6, .overhead = 4.4e-6, .bandwidth = 1.3e9, .near_bandwidth = 8e9, .copied = 11e9,
		.max_message = MSG_MAX_MESSAGE,
		.eager = eager_setting(), .depth = MSG_DEPTH, .lanes = 2,
		.across_hosts = true, .across_processes = true,
	};
	return true;
}

static void ep_undo(struct tcp_ep *ep)
{
	tt_msg_ep_close(&ep->base);
	if (ep->epoll >= 0)
		close(ep->epoll);
	free(ep->scratch);
	ep->open = false;
}

static tuttiResult_t tcp_ep_open(void *e, const struct tt_ep_config *config)
{
	struct tcp_ep *ep = e;
	struct epoll_event ev = { .events = EPOLLIN };

	if (!tt_msg_ep_open(&ep->base, config, &tt_tcp_wire, eager_setting()))
		return tt_fail(tuttiSystemError, "tcp: no eventfd: %m");
	ep->epoll = epoll_create1(EPOLL_CLOEXEC);
	ep->scratch = malloc(TCP_SCRATCH);
	ep->open = true;
	if (ep->epoll >= 0 && ep->scratch && !epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->base.event, &ev))
		return tuttiSuccess;
	(void)tt_fail(tuttiSystemError, "tcp: no epoll: %m");
	ep_undo(ep);
	return tuttiSystemError;
}

static void nap(struct tcp_ep *ep)
{
	struct pollfd fd = { .fd = ep->epoll, .events = POLLIN };

	watch_output(ep);
	(void)poll(&fd, 1, 5);
}

/* Until all is written. What arrives is read, and where nobody waits dropped. */
static void flush(struct tcp_ep *ep, uint64_t until)
{
	for (;;) {
		ep->base.owe_retry = true;
		tt_msg_write_all(&ep->base);
		if (!ep->base.nwriting || tt_now_ns() > until)
			return;
		for (struct msg_conn *c = ep->base.conns; c; c = c->next)
			tt_tcp_conn_read(c, READ_ROUNDS);
		nap(ep);
	}
}

/* A socket closed while unread bytes wait in it is reset, and what it had sent may be lost. */
static bool taken(struct tcp_conn *c)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int left = 0;

	for (;;) {
		ssize_t n = recv(c->fd, c->ibuf, TCP_IBUF, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return true;
		if (n <= 0)
			break;
	}
	if (!c->inet || ioctl(c->fd, SIOCOUTQ, &left) || !left)
		return true;
	/* A reset one keeps its count for ever. */
	return !getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_state == TCP_CLOSE;
}

static void linger(struct tcp_ep *ep, uint64_t until)
{
	for (;;) {
		bool all = true;

		for (struct msg_conn *c = ep->base.conns; c; c = c->next)
			all &= taken((struct tcp_conn *)c);
		if (all || tt_now_ns() > until)
			return;
		(void)poll(NULL, 0, 1);
	}
}

static void tcp_ep_close(void *e)
{
	struct tcp_ep *ep = e;
	uint64_t until = tt_now_ns() + MSG_GRACE_NS / 2; /* Abort stays under a second, whatever a peer does */
	int kept = errno;

	if (!ep || !ep->open)
		return;
	tt_msg_take_arrivals(&ep->base);
	flush(ep, until);
	for (struct msg_conn *c = ep->base.conns; c; c = c->next)
		(void)shutdown(((struct tcp_conn *)c)->fd, SHUT_WR);
	linger(ep, until);
	ep_undo(ep);
	errno = kept;
}

const struct tt_transport tt_tcp = {
	.size = sizeof(struct tt_transport),
	.name = "tcp",
	.ep_size = sizeof(struct tcp_ep),
	.link_size = sizeof(struct msg_link),
	.probe = tcp_probe,
	.ep_open = tcp_ep_open,
	.ep_close = tcp_ep_close,
	.link_open = tt_msg_link_open,
	.link_close = tt_msg_link_close,
	.send = tt_msg_send,
	.recv = tt_msg_recv,
	.poll = tcp_poll,
	.link_error = tt_msg_link_error, .link_way = tt_msg_link_way,
	.arm = tcp_arm,
	.disarm = tcp_disarm,
	.wait_fd = tcp_wait_fd,
	.accept = tt_msg_accept,
	.peer_gone = tt_msg_peer_gone,
	.memory = tcp_memory,
};
