/* RDMA: connections by rdma_cm, for iWARP, whose queue pairs can be had no other way. The end that is dialled
 * listens on the addresses of its port and tells them on the socket of the set-up; the dialler resolves and connects,
 * and names the conn by a cookie. SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define RESOLVE_MS 2000
#define BACKLOG 128

/* ---- listening ---- */

static bool port_range(uint16_t *lo, uint16_t *hi)
{
	*lo = *hi = 0;
	return sscanf(tt_env_str("PORT_RANGE"), "%hu-%hu", lo, hi) == 2 && *lo && *lo <= *hi;
}

static bool bind_and_listen(const struct tt_vb *vb, struct rdma_cm_id *id, const struct tt_addr *a)
{
	struct sockaddr_storage ss;
	uint16_t lo, hi;

	if (!port_range(&lo, &hi))
		lo = hi = 0;
	for (uint32_t port = lo; port <= hi; port++) {
		(void)tt_addr_to(a, (uint16_t)port, &ss);
		if (!vb->cm_bind_addr(id, (struct sockaddr *)&ss))
			return !vb->cm_listen(id, BACKLOG);
	}
	return false;
}

static bool listen_at(struct vb_ep *ep, struct vb_port *p, const struct tt_addr *a)
{
	struct vb_listener *l = &p->listener[p->nlisteners];

	if (ep->vb->cm_create_id(ep->cm, &l->id, p, RDMA_PS_TCP))
		return false;
	if (!bind_and_listen(ep->vb, l->id, a)) {
		tt_log(TT_LOG_DEBUG, "verbs", "cannot listen for rdma_cm: %s", strerror(errno));
		ep->vb->cm_destroy_id(l->id);
		return false;
	}
	if (!l->id->verbs || strcmp(ep->vb->get_device_name(l->id->verbs->device), p->port->dev->name) != 0 ||
	    (p->nlisteners && l->id->verbs != p->ctx)) {
		ep->vb->cm_destroy_id(l->id); /* another device's address */
		return false;
	}
	p->ctx = l->id->verbs;
	l->at.addr = *a;
	l->at.port = ntohs(ep->vb->cm_get_src_port(l->id));
	p->nlisteners++;
	return true;
}

static bool open_channel(struct vb_ep *ep)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int flags;

	if (ep->cm)
		return true;
	ep->cm = ep->vb->cm_create_event_channel();
	flags = ep->cm ? fcntl(ep->cm->fd, F_GETFL) : -1;
	return ep->cm && fcntl(ep->cm->fd, F_SETFL, flags | O_NONBLOCK) != -1 &&
	       !epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->cm->fd, &ev);
}

tuttiResult_t tt_vb_cm_open(struct vb_ep *ep, struct vb_port *p)
{
	struct tt_local_addr addr[VB_ADDRS];
	int n = tt_vb_port_addrs(p->port, addr, VB_ADDRS);
	char where[300], why[256];

	if (!open_channel(ep))
		return tt_note_error(tuttiSystemError, "%s: %s", tt_vb_port_text(p->port, where, sizeof(where)),
				     tt_vb_errno("rdma_create_event_channel", errno, why, sizeof(why)));
	for (int i = 0; i < n; i++)
		(void)listen_at(ep, p, &addr[i].addr);
	return p->nlisteners ? tuttiSuccess :
			       tt_note_error(tuttiSystemError, "%s: rdma_cm cannot listen on any of its %d addresses",
					     tt_vb_port_text(p->port, where, sizeof(where)), n);
}

/* Only to who has an id on a device does the kernel say that it goes. Nothing else depends on it. */
void tt_vb_cm_watch(struct vb_ep *ep, struct vb_port *p)
{
	struct tt_local_addr addr;
	struct sockaddr_storage ss;

	if (tt_vb_port_addrs(p->port, &addr, 1) < 1 || !open_channel(ep) ||
	    ep->vb->cm_create_id(ep->cm, &p->watch, p, RDMA_PS_TCP)) {
		p->watch = NULL;
		return;
	}
	(void)tt_addr_to(&addr.addr, 0, &ss);
	if (!ep->vb->cm_bind_addr(p->watch, (struct sockaddr *)&ss) && p->watch->verbs &&
	    !strcmp(ep->vb->get_device_name(p->watch->verbs->device), p->port->dev->name))
		return;
	ep->vb->cm_destroy_id(p->watch);
	p->watch = NULL;
}

void tt_vb_cm_close(struct vb_ep *ep, struct vb_port *p)
{
	if (p->watch)
		ep->vb->cm_destroy_id(p->watch);
	p->watch = NULL;
	while (p->nlisteners)
		ep->vb->cm_destroy_id(p->listener[--p->nlisteners].id);
}

void tt_vb_cm_close_channel(struct vb_ep *ep)
{
	if (ep->cm)
		ep->vb->cm_destroy_event_channel(ep->cm);
	ep->cm = NULL;
}

int tt_vb_cm_addrs(const struct vb_port *p, struct vb_at *out)
{
	for (int i = 0; i < p->nlisteners; i++)
		out[i] = p->listener[i].at;
	return p->nlisteners;
}

/* ---- the dialler ---- */

void tt_vb_cm_drop(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);

	if (!c->cm)
		return;
	if (c->state == VB_READY)
		(void)ep->vb->cm_disconnect(c->cm);
	if (c->cm->qp)
		ep->vb->cm_destroy_qp(c->cm);
	ep->vb->cm_destroy_id(c->cm);
	c->cm = NULL;
	c->qp = NULL;
}

/* The conn's own port has to be told: the way to an address may lead by another's. */
static bool source_for(const struct vb_port *p, const struct tt_addr *to, struct sockaddr_storage *ss)
{
	const struct tt_addr *best = NULL;

	for (int i = 0; i < p->nlisteners; i++) {
		const struct tt_addr *a = &p->listener[i].at.addr;

		if (a->family == to->family && (!best || (tt_addr_near(a, to) && !tt_addr_near(best, to))))
			best = a;
	}
	if (best)
		(void)tt_addr_to(best, 0, ss);
	return best;
}

bool tt_vb_cm_dial(struct vb_conn *c, int which)
{
	struct vb_ep *ep = vb_ep_of(c);
	struct sockaddr_storage ss, from;
	bool has_source;

	tt_vb_cm_drop(c);
	if (which >= c->theirs.naddrs || ep->vb->cm_create_id(ep->cm, &c->cm, c, RDMA_PS_TCP)) {
		c->cm = NULL;
		return false;
	}
	(void)tt_addr_to(&c->theirs.addrs[which].addr, c->theirs.addrs[which].port, &ss);
	has_source = source_for(c->port, &c->theirs.addrs[which].addr, &from);
	return !ep->vb->cm_resolve_addr(c->cm, has_source ? (struct sockaddr *)&from : NULL, (struct sockaddr *)&ss,
					RESOLVE_MS);
}

static bool connect_now(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);
	struct rdma_conn_param param = { .private_data = &c->theirs.cookie, .private_data_len = sizeof(uint64_t),
					 .responder_resources = 1, .initiator_depth = 1,
					 .retry_count = (uint8_t)ep->conf.retry_cnt,
					 .rnr_retry_count = (uint8_t)ep->conf.retry_cnt };

	return tt_vb_conn_qp(c) == tuttiSuccess && tt_vb_conn_fill(c) && !ep->vb->cm_connect(c->cm, &param);
}

/* The default notices a dead peer after 16 s. iWARP has no such thing. */
static void set_timeout(struct vb_conn *c)
{
	uint8_t timeout = (uint8_t)tt_vb_timeout(&vb_ep_of(c)->conf, c->port->port->dev->pci[0] != 0);

	if (c->port->port->wire != TT_VB_IWARP)
		(void)vb_ep_of(c)->vb->cm_set_option(c->cm, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
						     sizeof(timeout));
}

static void dialled(struct vb_conn *c, const struct rdma_cm_event *e)
{
	struct vb_ep *ep = vb_ep_of(c);
	const struct tt_vb_word *word = tt_vb_cm_word((int)e->event);
	bool ok = true;

	switch (e->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		set_timeout(c);
		ok = c->cm->verbs == c->port->ctx && !ep->vb->cm_resolve_route(c->cm, RESOLVE_MS);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		ok = connect_now(c);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		(void)tt_vb_conn_probe(c);
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
		tt_vb_conn_ended(c, word);
		break;
	default:
		ok = false;
	}
	if (!ok && c->state == VB_TRYING)
		tt_vb_setup_failed(c, word->cause);
}

/* ---- the other end ---- */

static struct vb_conn *by_cookie(struct vb_ep *ep, const struct rdma_cm_event *e)
{
	uint64_t cookie;

	if (!e->param.conn.private_data || e->param.conn.private_data_len < sizeof(cookie))
		return NULL;
	memcpy(&cookie, e->param.conn.private_data, sizeof(cookie));
	for (uint32_t i = 0; i < ep->nids; i++)
		if (ep->byid[i] && !ep->byid[i]->base.outgoing && !ep->byid[i]->base.lost &&
		    (ep->byid[i]->state == VB_TRYING || ep->byid[i]->state == VB_TRIED) &&
		    ep->byid[i]->mine.cookie == cookie)
			return ep->byid[i];
	return NULL;
}

static void asked(struct vb_ep *ep, struct rdma_cm_event *e)
{
	struct rdma_conn_param param = { .responder_resources = 1, .initiator_depth = 1,
					 .rnr_retry_count = (uint8_t)ep->conf.retry_cnt };
	struct vb_conn *c = by_cookie(ep, e);

	if (!c || e->id->verbs != c->port->ctx) {
		(void)ep->vb->cm_reject(e->id, NULL, 0);
		ep->vb->cm_destroy_id(e->id);
		return;
	}
	tt_vb_cm_drop(c); /* of a try before this one, which may have worked as seen from here */
	c->state = VB_TRYING;
	c->cm = e->id;
	c->cm->context = c;
	if (tt_vb_conn_qp(c) != tuttiSuccess || !tt_vb_conn_fill(c) || ep->vb->cm_accept(c->cm, &param))
		(void)ep->vb->cm_reject(c->cm, NULL, 0); /* the dialler goes on to the next address */
}

static void accepted(struct vb_conn *c, const struct rdma_cm_event *e)
{
	if (e->event == RDMA_CM_EVENT_DISCONNECTED)
		tt_vb_conn_ended(c, tt_vb_cm_word((int)e->event));
}

/* ---- events ---- */

static struct vb_port *port_of(struct vb_ep *ep, const void *context)
{
	for (int i = 0; i < ep->nports; i++)
		if (context == &ep->port[i])
			return &ep->port[i];
	return NULL;
}

void tt_vb_cm_poll(struct vb_ep *ep)
{
	struct rdma_cm_event *e;

	while (ep->cm && !ep->vb->cm_get_cm_event(ep->cm, &e)) {
		struct vb_port *port = port_of(ep, e->id->context);
		struct vb_conn *c = port ? NULL : e->id->context;
		struct rdma_cm_event copy = *e;
		uint64_t cookie[8] = { 0 };

		/* An event must be acknowledged before its id is destroyed. */
		if (copy.param.conn.private_data && copy.param.conn.private_data_len)
			memcpy(cookie, copy.param.conn.private_data,
			       tt_min(sizeof(cookie), (size_t)copy.param.conn.private_data_len));
		copy.param.conn.private_data = cookie;
		ep->vb->cm_ack_cm_event(e);
		ep->base.moved++;
		if (copy.event == RDMA_CM_EVENT_DEVICE_REMOVAL)
			tt_vb_dev_removed(ep, port ? port->port->dev : c->port->port->dev);
		else if (!c && copy.event == RDMA_CM_EVENT_CONNECT_REQUEST)
			asked(ep, &copy);
		else if (c && c->base.outgoing && !c->base.lost)
			dialled(c, &copy);
		else if (c && !c->base.lost)
			accepted(c, &copy);
	}
}

#else
typedef int tt_verbs_cm_is_empty;
#endif
