/* TCP: the endpoint, its peers, the poll. Overview in tcp_conn.h. SPDX-License-Identifier: Apache-2.0
 *
 * Memory (T14): about 38 KiB a socket, 1 KiB a link and, for links that have had an early message,
 * 4 x TUTTI_TCP_EAGER; 64 KiB an endpoint. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "tcp_conn.h"

#define FEW_SOCKETS 8     /* up to here each is tried, beyond epoll says which */
#define IDLE_POLLS 256    /* without movement, then waiting messages are announced */
#define READ_ROUNDS 8
#define WRITE_ROUNDS 4    /* chunks a socket and poll, so that reading is not forgotten */

struct tcp_link {
	struct msg_flow *flow;
	const char *why;
};

/* ---- peers ---- */

static void say_where(struct msg_peer *p, int fd)
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);
	char ip[INET6_ADDRSTRLEN] = "";

	(void)snprintf(p->where, sizeof(p->where), "a local socket");
	if (getpeername(fd, (struct sockaddr *)&a, &len))
		return;
	if (a.ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)&a;

		(void)inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		(void)snprintf(p->where, sizeof(p->where), "%s:%d", ip, ntohs(in->sin_port));
	} else if (a.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&a;

		(void)inet_ntop(AF_INET6, &in->sin6_addr, ip, sizeof(ip));
		(void)snprintf(p->where, sizeof(p->where), "[%s]:%d", ip, ntohs(in->sin6_port));
	}
}

void tt_msg_peer_break(struct msg_peer *p, tuttiResult_t error, const char *fmt, ...)
{
	char why[sizeof(p->why)];
	va_list ap;

	if (p->broken || p->dead)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	memcpy(p->why, why, sizeof(why));
	p->error = error;
	p->broken = true;
	p->ep->nbroken++;
}

void tt_msg_peer_closing(struct msg_peer *p, int err)
{
	if (p->closing_ns || p->dead)
		return;
	p->closing_ns = tt_now_ns();
	p->ep->nclosing++;
	if (p->broken)
		return;
	p->error = tuttiRemoteError;
	errno = err;
	if (err)
		(void)snprintf(p->why, sizeof(p->why), "connection with process %016llx at %s: %m",
			       (unsigned long long)p->id, p->where);
	else
		(void)snprintf(p->why, sizeof(p->why), "process %016llx at %s closed the connection",
			       (unsigned long long)p->id, p->where);
}

/* The peer in use under this id; those that end are not, though links may still hold them. */
static struct msg_peer *peer_find(struct tcp_ep *ep, uint64_t id)
{
	for (struct msg_peer *p = ep->peers; p; p = p->next)
		if (p->id == id && !p->broken && !p->dead && !p->closing_ns)
			return p;
	return NULL;
}

static struct msg_peer *peer_get(struct tcp_ep *ep, uint64_t id)
{
	struct msg_peer *p = peer_find(ep, id);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->ep = ep;
	p->id = id;
	p->next = ep->peers;
	ep->peers = p;
	return p;
}

static void peer_free(struct msg_peer *p)
{
	struct msg_peer **at = &p->ep->peers;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p);
}

static void peer_close_sockets(struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		if (p->out[i])
			tt_tcp_conn_free(p->out[i]);
		if (p->in[i])
			tt_tcp_conn_free(p->in[i]);
		p->out[i] = p->in[i] = NULL;
	}
	p->nout = 0;
}

/* Fails all that this peer was for. Links never opened here stay if they hold messages: they may be
 * opened yet, and what has arrived is delivered. */
static void peer_end(struct msg_peer *p)
{
	struct tcp_ep *ep = p->ep;

	ep->nbroken -= p->broken;
	ep->nclosing -= p->closing_ns != 0;
	p->broken = false;
	p->closing_ns = 0;
	for (struct msg_flow *f = p->flows, *next; f; f = next) {
		next = f->next;
		if (f->state == FLOW_CLOSED || (f->state == FLOW_ORPHAN && !f->slot_count))
			tt_msg_flow_free(f);
		else
			tt_msg_flow_fail(f, p->error, "%s", p->why);
	}
	peer_close_sockets(p);
	p->dead = true;
	if (!p->flows)
		peer_free(p);
}

static bool all_lost(const struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++)
		if ((p->out[i] && !p->out[i]->lost) || (p->in[i] && !p->in[i]->lost))
			return false;
	return true;
}

static void peer_drain(struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		if (p->in[i])
			tt_tcp_conn_read(p->in[i], 64);
		if (p->out[i])
			tt_tcp_conn_read(p->out[i], 64);
	}
}

/* Ends the peers that are to end. A closed socket alone is no reason while the others may still bring
 * what was sent before; but not for long. */
static void reap(struct tcp_ep *ep)
{
	uint64_t now = tt_now_ns();

	for (struct msg_peer *p = ep->peers, *next; p; p = next) {
		next = p->next;
		if (p->dead || (!p->broken && !p->closing_ns))
			continue;
		peer_drain(p);
		if (p->broken || all_lost(p) || !p->flows || now - p->closing_ns > MSG_GRACE_NS)
			peer_end(p);
	}
}

/* ---- sockets come ---- */

static void tcp_accept(void *e, uint64_t peer, int index, int fd)
{
	struct tcp_ep *ep = e;
	struct msg_arrival *a = malloc(sizeof(*a)), **at;
	uint64_t one = 1;

	if (!a || index < 0 || index >= MSG_CONNS_MAX) {
		free(a);
		close(fd);
		return;
	}
	*a = (struct msg_arrival){ NULL, peer, index, fd };
	pthread_mutex_lock(&ep->lock);
	for (at = &ep->arrivals; *at; at = &(*at)->next)
		;
	*at = a;
	atomic_store_explicit(&ep->arrived, true, memory_order_release);
	pthread_mutex_unlock(&ep->lock);
	if (write(ep->event, &one, sizeof(one)) < 0)
		tt_log(TT_LOG_DEBUG, "tcp", "eventfd: %m");
}

/* A process that connects anew, or is connected to, may have ended old connections unnoticed. */
static void notice_end(struct msg_peer *p)
{
	char byte;

	for (int i = 0; i < p->nout; i++) {
		struct tcp_conn *c = (struct tcp_conn *)p->out[i];

		if (!c->base.lost && !recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT))
			tt_tcp_conn_lost(c, 0);
	}
}

static void take_arrival(struct tcp_ep *ep, const struct msg_arrival *a)
{
	struct msg_peer *p = peer_find(ep, a->peer);

	if (p)
		notice_end(p);
	p = peer_get(ep, a->peer);
	if (p && p->in[a->index]) {
		/* It dials anew: its old connections have ended, or are to. */
		peer_drain(p);
		if (!p->closing_ns)
			tt_msg_peer_break(p, tuttiRemoteError, "process %016llx at %s has connected anew",
				      (unsigned long long)p->id, p->where);
		p = peer_get(ep, a->peer);
	}
	if (p && !p->where[0])
		say_where(p, a->fd);
	if (p)
		p->in[a->index] = tt_tcp_conn_new(p, a->fd, a->index, false);
	if (p && p->in[a->index])
		return;
	if (p)
		tt_msg_peer_break(p, tuttiSystemError, "no memory for a connection from process %016llx",
			      (unsigned long long)p->id);
	close(a->fd);
}

static void take_arrivals(struct tcp_ep *ep)
{
	struct msg_arrival *a, *next;
	uint64_t count;

	if (!atomic_load_explicit(&ep->arrived, memory_order_acquire))
		return;
	pthread_mutex_lock(&ep->lock);
	a = ep->arrivals;
	ep->arrivals = NULL;
	atomic_store_explicit(&ep->arrived, false, memory_order_relaxed);
	if (read(ep->event, &count, sizeof(count)) < 0)
		count = 0; /* its accept is about to write: an empty poll follows */
	pthread_mutex_unlock(&ep->lock);
	for (; a; a = next) {
		next = a->next;
		take_arrival(ep, a);
		free(a);
	}
	ep->owe_retry = true;
	ep->moved++;
}

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
	if (!p->where[0])
		say_where(p, *fd);
	p->out[index] = tt_tcp_conn_new(p, *fd, index, true);
	if (p->out[index])
		return tuttiSuccess;
	close(*fd);
	return tt_fail(tuttiSystemError, "no memory for a connection to process %016llx at %s",
		       (unsigned long long)p->id, p->where);
}

/* The first socket must be had; with fewer than wanted it is only slower. */
static tuttiResult_t dial(struct msg_peer *p)
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

/* ---- links ---- */

static tuttiResult_t tcp_link_open(void *e, void *l, uint64_t peer, uint64_t key)
{
	struct tcp_ep *ep = e;
	struct tcp_link *link = l;
	struct msg_peer *p;

	take_arrivals(ep);
	p = peer_find(ep, peer);
	if (p && p->nout)
		notice_end(p);
	link->flow = tt_msg_flow_adopt(ep, peer, key);
	p = link->flow ? link->flow->peer : peer_get(ep, peer);
	if (!p)
		return tt_fail(tuttiSystemError, "no memory for process %016llx", (unsigned long long)peer);
	if (!p->nout && !p->dead && !p->closing_ns && !p->broken) {
		tuttiResult_t r = dial(p);

		if (r != tuttiSuccess) {
			if (link->flow)
				tt_msg_flow_close(link->flow);
			link->flow = NULL;
			return r;
		}
	}
	return link->flow ? tuttiSuccess : tt_msg_flow_open(p, key, &link->flow);
}

static void tcp_link_close(void *l)
{
	struct tcp_link *link = l;
	struct msg_flow *f = link ? link->flow : NULL;
	struct msg_peer *p;

	if (!f)
		return;
	link->flow = NULL;
	p = f->peer;
	tt_msg_flow_close(f);
	if (!p->dead)
		return;
	tt_msg_flow_free(f);
	if (!p->flows)
		peer_free(p);
}

static enum tt_post tcp_send(void *l, const void *p, size_t n, const struct tt_note *note,
			     struct tt_req *req)
{
	return tt_msg_send(((struct tcp_link *)l)->flow, p, n, note, req);
}

static enum tt_post tcp_recv(void *l, void *p, size_t n, struct tt_req *req)
{
	return tt_msg_recv(((struct tcp_link *)l)->flow, p, n, req);
}

static tuttiResult_t tcp_link_error(void *l, const char **why)
{
	const struct msg_flow *f = ((struct tcp_link *)l)->flow;

	if (why)
		*why = f->error ? f->why : "";
	return f->error;
}

/* ---- poll ---- */

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
	.idle = wire_idle,
	.put = tt_tcp_conn_put,
	.start = tt_tcp_conn_start,
	.write = tt_tcp_conn_write,
	.forget = tt_tcp_conn_forget,
	.data = tt_tcp_conn_data,
	.chunk = wire_chunk,
};

static void read_few(struct tcp_ep *ep)
{
	bool all = !(ep->polls & 15);

	for (struct msg_conn *c = ep->conns; c; c = c->next)
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

static void write_conn(struct msg_conn *c)
{
	c->wire->write(c);
	if (!c->outgoing)
		return;
	for (int i = 0; i < WRITE_ROUNDS && c->wire->idle(c) && !c->lost; i++) {
		if (!tt_msg_feed(c))
			return;
		c->wire->write(c);
	}
}

static void write_all(struct tcp_ep *ep)
{
	tt_msg_emit_all(ep);
	if (!ep->nwriting && !ep->nready)
		return;
	for (struct msg_conn *c = ep->conns; c; c = c->next)
		if (!c->peer->broken && (!c->wire->idle(c) || c->peer->ready))
			write_conn(c);
	tt_msg_emit_all(ep);
}

static int tcp_poll(void *e)
{
	struct tcp_ep *ep = e;
	uint64_t moved = ep->moved;
	int n;

	ep->polls++;
	take_arrivals(ep);
	if (ep->nconns <= FEW_SOCKETS)
		read_few(ep);
	else
		read_many(ep);
	write_all(ep);
	if (ep->nbroken || ep->nclosing)
		reap(ep);
	ep->idle = moved == ep->moved ? ep->idle + 1 : 0;
	if (ep->idle == IDLE_POLLS)
		tt_msg_ask_all(ep);
	n = ep->completed - ep->reported;
	ep->reported = ep->completed;
	return n;
}

/* Watches for room where there is something to write. */
static void watch_output(struct tcp_ep *ep)
{
	for (struct msg_conn *b = ep->conns; b; b = b->next) {
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

	tt_msg_ask_all(ep);
	write_all(ep);
	if (ep->nbroken || ep->nclosing || atomic_load_explicit(&ep->arrived, memory_order_acquire))
		return false;
	watch_output(ep);
	return ep->completed == ep->reported && epoll_wait(ep->epoll, &ev, 1, 0) <= 0;
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

static void tcp_peer_gone(void *e, uint64_t peer)
{
	struct tcp_ep *ep = e;

	take_arrivals(ep);
	for (struct msg_peer *p = ep->peers; p; p = p->next)
		if (p->id == peer)
			tt_msg_peer_break(p, tuttiPeerDead, "process %016llx at %s is gone",
				      (unsigned long long)peer, p->where);
	if (ep->nbroken)
		reap(ep);
}

static size_t tcp_memory(void *e)
{
	const struct tcp_ep *ep = e;
	size_t n = sizeof(*ep) + TCP_SCRATCH + ep->slot_bytes;

	for (const struct msg_peer *p = ep->peers; p; p = p->next)
		n += sizeof(*p);
	return n + (size_t)ep->nconns * sizeof(struct tcp_conn) + ep->nflows * sizeof(struct msg_flow) +
	       ep->nbuckets * sizeof(struct msg_flow *);
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
		.latency = 6e-6, .bandwidth = 1.3e9, .max_message = MSG_MAX_MESSAGE,
		.eager = eager_setting(), .depth = MSG_DEPTH, .lanes = 2,
		.across_hosts = true, .across_processes = true,
	};
	return true;
}

static void ep_undo(struct tcp_ep *ep)
{
	if (ep->epoll >= 0)
		close(ep->epoll);
	if (ep->event >= 0)
		close(ep->event);
	free(ep->scratch);
	pthread_mutex_destroy(&ep->lock);
	ep->open = false;
}

static tuttiResult_t tcp_ep_open(void *e, const struct tt_ep_config *config)
{
	struct tcp_ep *ep = e;
	struct epoll_event ev = { .events = EPOLLIN };

	ep->config = *config;
	ep->eager = eager_setting();
	ep->epoll = epoll_create1(EPOLL_CLOEXEC);
	ep->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ep->scratch = malloc(TCP_SCRATCH);
	pthread_mutex_init(&ep->lock, NULL);
	ep->open = true;
	if (ep->epoll >= 0 && ep->event >= 0 && ep->scratch &&
	    !epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->event, &ev))
		return tuttiSuccess;
	(void)tt_fail(tuttiSystemError, "tcp: no epoll or eventfd: %m");
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
		ep->owe_retry = true;
		write_all(ep);
		if (!ep->nwriting || tt_now_ns() > until)
			return;
		for (struct msg_conn *c = ep->conns; c; c = c->next)
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

		for (struct msg_conn *c = ep->conns; c; c = c->next)
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
	take_arrivals(ep);
	flush(ep, until);
	for (struct msg_conn *c = ep->conns; c; c = c->next)
		(void)shutdown(((struct tcp_conn *)c)->fd, SHUT_WR);
	linger(ep, until);
	while (ep->peers) {
		struct msg_peer *p = ep->peers;

		while (p->flows)
			tt_msg_flow_free(p->flows);
		peer_close_sockets(p);
		peer_free(p);
	}
	free(ep->table);
	ep_undo(ep);
	errno = kept;
}

const struct tt_transport tt_tcp = {
	.size = sizeof(struct tt_transport),
	.name = "tcp",
	.ep_size = sizeof(struct tcp_ep),
	.link_size = sizeof(struct tcp_link),
	.probe = tcp_probe,
	.ep_open = tcp_ep_open,
	.ep_close = tcp_ep_close,
	.link_open = tcp_link_open,
	.link_close = tcp_link_close,
	.send = tcp_send,
	.recv = tcp_recv,
	.poll = tcp_poll,
	.link_error = tcp_link_error,
	.arm = tcp_arm,
	.disarm = tcp_disarm,
	.wait_fd = tcp_wait_fd,
	.accept = tcp_accept,
	.peer_gone = tcp_peer_gone,
	.memory = tcp_memory,
};
