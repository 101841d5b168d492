/* Messages: the endpoint, its peers, what opens and ends them. Overview in msg.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "msg.h"

#define IDLE_POLLS 256    /* without movement, then waiting messages are announced */
#define WRITE_ROUNDS 4    /* chunks a conn and poll, so that reading is not forgotten */

/* ---- conns ---- */

void tt_msg_conn_join(struct msg_conn *c, struct msg_peer *p, int index, bool outgoing)
{
	c->peer = p;
	c->wire = p->ep->wire;
	c->index = index;
	c->outgoing = outgoing;
	c->next = p->ep->conns;
	p->ep->conns = c;
	p->ep->nconns++;
}

static void close_conn(struct msg_conn *c)
{
	struct msg_conn **at = &c->peer->ep->conns;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->peer->ep->nconns--;
	c->wire->close(c);
}

/* ---- peers ---- */

void tt_msg_peer_say_where(struct msg_peer *p, int fd)
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);
	char ip[INET6_ADDRSTRLEN] = "";

	if (p->where[0])
		return;
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
	tt_log(TT_LOG_INFO, p->ep->wire->name, "connections with process %016llx end: %s", (unsigned long long)p->id,
	       why);
}

void tt_msg_peer_closing(struct msg_peer *p, int err, const char *how)
{
	if (p->closing_ns || p->dead)
		return;
	p->closing_ns = tt_now_ns();
	p->ep->nclosing++;
	if (p->broken)
		return;
	p->error = tuttiRemoteError;
	errno = err;
	if (how)
		(void)snprintf(p->why, sizeof(p->why), "%s", how);
	else if (err)
		(void)snprintf(p->why, sizeof(p->why), "connection with process %016llx at %s: %m",
			       (unsigned long long)p->id, p->where);
	else
		(void)snprintf(p->why, sizeof(p->why), "process %016llx at %s closed the connection",
			       (unsigned long long)p->id, p->where);
}

/* The peer in use under this id; those that end are not, though links may still hold them. */
static struct msg_peer *peer_find(struct msg_ep *ep, uint64_t id)
{
	for (struct msg_peer *p = ep->peers; p; p = p->next)
		if (p->id == id && !p->broken && !p->dead && !p->closing_ns)
			return p;
	return NULL;
}

struct msg_peer *tt_msg_peer_get(struct msg_ep *ep, uint64_t id)
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

static void close_conns(struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		if (p->out[i])
			close_conn(p->out[i]);
		if (p->in[i])
			close_conn(p->in[i]);
		p->out[i] = p->in[i] = NULL;
	}
	p->nout = 0;
}

/* Fails all that this peer was for. Links never opened here stay if they hold messages: they may be
 * opened yet, and what has arrived is delivered. */
static void peer_end(struct msg_peer *p)
{
	struct msg_ep *ep = p->ep;

	ep->nbroken -= p->broken;
	ep->nclosing -= p->closing_ns != 0;
	p->broken = false;
	p->closing_ns = 0;
	p->dead = true; /* it cannot break anew, when places are revoked */
	for (struct msg_flow *f = p->flows, *next; f; f = next) {
		next = f->next;
		if (f->state == FLOW_CLOSED || (f->state == FLOW_ORPHAN && !f->slot_count))
			tt_msg_flow_free(f);
		else
			tt_msg_flow_fail_with_peer(f);
	}
	close_conns(p);
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

static void drain(struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		if (p->in[i])
			p->in[i]->wire->drain(p->in[i]);
		if (p->out[i])
			p->out[i]->wire->drain(p->out[i]);
	}
}

/* Ends the peers that are to end. A closed conn alone is no reason while the others may still bring
 * what was sent before; but not for long. */
static void reap(struct msg_ep *ep)
{
	uint64_t now = tt_now_ns();

	for (struct msg_peer *p = ep->peers, *next; p; p = next) {
		next = p->next;
		if (p->dead || (!p->broken && !p->closing_ns))
			continue;
		drain(p);
		if (p->broken || all_lost(p) || !p->flows || now - p->closing_ns > MSG_GRACE_NS)
			peer_end(p);
	}
}

/* ---- arrivals ---- */

void tt_msg_accept(void *e, uint64_t peer, int index, int fd)
{
	struct msg_ep *ep = e;
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
		tt_log(TT_LOG_DEBUG, ep->wire->name, "eventfd: %m");
}

/* A process that connects anew, or is connected to, may have ended old connections unnoticed. */
static void notice_end(struct msg_peer *p)
{
	for (int i = 0; i < p->nout; i++)
		p->out[i]->wire->look(p->out[i]);
}

static void take_arrival(struct msg_ep *ep, const struct msg_arrival *a)
{
	struct msg_peer *p = peer_find(ep, a->peer);

	if (p)
		notice_end(p);
	p = tt_msg_peer_get(ep, a->peer);
	if (p && p->in[a->index]) {
		/* It dials anew: its old connections have ended, or are to. */
		drain(p);
		if (!p->closing_ns)
			tt_msg_peer_break(p, tuttiRemoteError, "process %016llx at %s has connected anew",
				      (unsigned long long)p->id, p->where);
		p = tt_msg_peer_get(ep, a->peer);
	}
	if (p)
		tt_msg_peer_say_where(p, a->fd);
	if (p)
		p->in[a->index] = ep->wire->arrive(p, a->index, a->fd);
	if (p && p->in[a->index])
		return;
	if (p)
		tt_msg_peer_break(p, tuttiSystemError, "no memory for a connection from process %016llx",
			      (unsigned long long)p->id);
	close(a->fd);
}

void tt_msg_take_arrivals(struct msg_ep *ep)
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

/* ---- links ---- */

tuttiResult_t tt_msg_link_open(void *e, void *l, uint64_t peer, uint64_t key)
{
	struct msg_ep *ep = e;
	struct msg_link *link = l;
	struct msg_peer *p;

	tt_msg_take_arrivals(ep);
	p = peer_find(ep, peer);
	if (p && p->nout)
		notice_end(p);
	link->flow = tt_msg_flow_adopt(ep, peer, key);
	p = link->flow ? link->flow->peer : tt_msg_peer_get(ep, peer);
	if (!p)
		return tt_fail(tuttiSystemError, "no memory for process %016llx", (unsigned long long)peer);
	if (!p->nout && !p->dead && !p->closing_ns && !p->broken) {
		tuttiResult_t r = ep->wire->dial(p);

		if (r != tuttiSuccess) {
			if (link->flow)
				tt_msg_flow_close(link->flow);
			link->flow = NULL;
			return r;
		}
	}
	return link->flow ? tuttiSuccess : tt_msg_flow_open(p, key, &link->flow);
}

void tt_msg_link_close(void *l)
{
	struct msg_link *link = l;
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

tuttiResult_t tt_msg_link_error(void *l, const char **why)
{
	const struct msg_flow *f = ((struct msg_link *)l)->flow;

	if (why)
		*why = !f->error ? "" : f->with_peer ? f->peer->why : f->why;
	return f->error;
}

void tt_msg_link_way(void *l, char *out, size_t n)
{
	const struct msg_flow *f = ((struct msg_link *)l)->flow;

	(void)snprintf(out, n, "to %s", f ? f->peer->where : "nowhere");
}

/* ---- poll ---- */

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

void tt_msg_write_all(struct msg_ep *ep)
{
	tt_msg_emit_all(ep);
	if (!ep->nwriting && !ep->nready)
		return;
	for (struct msg_conn *c = ep->conns; c; c = c->next)
		if (!c->peer->broken && (!c->wire->idle(c) || c->peer->ready))
			write_conn(c);
	tt_msg_emit_all(ep);
}

int tt_msg_settle(struct msg_ep *ep, uint64_t moved)
{
	int n;

	tt_msg_write_all(ep);
	if (ep->nbroken || ep->nclosing)
		reap(ep);
	ep->idle = moved == ep->moved ? ep->idle + 1 : 0;
	if (ep->idle == IDLE_POLLS)
		tt_msg_ask_all(ep);
	n = ep->completed - ep->reported;
	ep->reported = ep->completed;
	return n;
}

bool tt_msg_arm(struct msg_ep *ep)
{
	tt_msg_ask_all(ep);
	tt_msg_write_all(ep);
	return !ep->nbroken && !ep->nclosing && !atomic_load_explicit(&ep->arrived, memory_order_acquire);
}

void tt_msg_peer_gone(void *e, uint64_t peer)
{
	struct msg_ep *ep = e;

	tt_msg_take_arrivals(ep);
	for (struct msg_peer *p = ep->peers; p; p = p->next)
		if (p->id == peer)
			tt_msg_peer_break(p, tuttiPeerDead, "process %016llx at %s is gone",
					  (unsigned long long)peer, p->where);
	if (ep->nbroken)
		reap(ep);
}

/* ---- endpoint ---- */

bool tt_msg_ep_open(struct msg_ep *ep, const struct tt_ep_config *config, const struct msg_wire *wire,
		    size_t eager)
{
	ep->config = *config;
	ep->wire = wire;
	ep->eager = eager;
	ep->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->event < 0)
		return false;
	pthread_mutex_init(&ep->lock, NULL);
	return true;
}

void tt_msg_ep_close(struct msg_ep *ep)
{
	while (ep->peers) {
		struct msg_peer *p = ep->peers;

		while (p->flows)
			tt_msg_flow_free(p->flows);
		close_conns(p);
		peer_free(p);
	}
	free(ep->table);
	close(ep->event);
	pthread_mutex_destroy(&ep->lock);
}

size_t tt_msg_memory(const struct msg_ep *ep)
{
	size_t n = ep->slot_bytes + ep->nflows * sizeof(struct msg_flow) +
		   ep->nbuckets * sizeof(struct msg_flow *);

	for (const struct msg_peer *p = ep->peers; p; p = p->next)
		n += sizeof(*p);
	return n;
}
