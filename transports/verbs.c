/* RDMA: the endpoint of a process on its ports, the poll, the transport's table. Overview in verbs.h.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory (T14): 8 MiB of staging; 65 buffers of TUTTI_IB_EAGER and 72 bytes a conn; two conns
 * for each pair of processes, port and TUTTI_IB_QPS_PER_CONNECTION; 1 KiB a link and, for links that have had an
 * early message, 4 x TUTTI_IB_EAGER. Of the user's memory up to TUTTI_IB_REGISTERED is pinned, in at most VB_REGIONS
 * regions; of device memory what the core registers, and then a page, and a conn a port to itself. */
#include "verbs.h"

#include <stdio.h>

#if TT_HAVE_VERBS

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define CQ_ENTRIES 16384
/* The library of soft-iWARP refuses what is mapped at offset 0x90000 of a device's file. A queue of this size, the
 * first that is mapped, reaches beyond it. */
#define CQ_ENTRIES_IWARP 32768
#define CLOSE_NS 500000000ull

static size_t eager_setting(void)
{
	int64_t n = tt_env_int("IB_EAGER");

	return n < 64 ? 64 : tt_min((size_t)n, MSG_EAGER_MAX);
}

static bool vb_probe(struct tt_caps *caps, char *why, size_t why_size)
{
	double speed = 0;

	if (!tt_vb_probe(&speed, why, why_size))
		return false;
	*caps = (struct tt_caps){ .latency = 2e-6, .bandwidth = speed, .max_message = VB_STAGE / 4,
				  .eager = eager_setting(), .depth = MSG_DEPTH, .lanes = 2, .across_hosts = true,
				  .across_processes = true };
	return true;
}

/* ---- ports ---- */

static bool watch(struct vb_ep *ep, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	return !epoll_ctl(ep->epoll, EPOLL_CTL_ADD, fd, &ev);
}

static void close_port(struct vb_ep *ep, struct vb_port *p)
{
	tt_vb_stage_leave(ep, p);
	tt_vb_loop_leave(ep, p);
	if (p->cq)
		ep->vb->destroy_cq(p->cq);
	if (p->channel)
		ep->vb->destroy_comp_channel(p->channel);
	if (p->pd)
		ep->vb->dealloc_pd(p->pd);
	tt_vb_cm_close(ep, p);
	memset(p, 0, sizeof(*p));
}

static tuttiResult_t open_port(struct vb_ep *ep, struct tt_vb_port *port)
{
	struct vb_port *p = &ep->port[ep->nports];
	char why[256], where[160];
	int flags;

	p->port = port;
	p->ctx = port->dev->ctx;
	if (vb_by_cm(p) && tt_vb_cm_open(ep, p) != tuttiSuccess) {
		close_port(ep, p);
		return tuttiSystemError;
	}
	p->cqe = (uint32_t)tt_min(vb_by_cm(p) ? CQ_ENTRIES_IWARP : CQ_ENTRIES, port->dev->max_cqe);
	p->pd = ep->vb->alloc_pd(p->ctx);
	p->channel = p->pd ? ep->vb->create_comp_channel(p->ctx) : NULL;
	p->cq = p->channel ? ep->vb->create_cq(p->ctx, (int)p->cqe, NULL, p->channel, 0) : NULL;
	flags = p->channel ? fcntl(p->channel->fd, F_GETFL) : -1;
	if (!p->cq || fcntl(p->channel->fd, F_SETFL, flags | O_NONBLOCK) == -1 || !watch(ep, p->channel->fd)) {
		tt_note_error(tuttiSystemError, "%s: %s", tt_vb_port_text(port, where, sizeof(where)),
			      tt_vb_errno("ibv_create_cq", errno, why, sizeof(why)));
		close_port(ep, p);
		return tuttiSystemError;
	}
	if (tt_vb_stage_join(ep, p) != tuttiSuccess) {
		close_port(ep, p);
		return tuttiSystemError;
	}
	if (!vb_by_cm(p))
		tt_vb_cm_watch(ep, p);
	ep->nports++;
	return tuttiSuccess;
}

/* Why there is none: of the first device that has something to say. */
static tuttiResult_t no_port(const struct vb_ep *ep)
{
	char where[160];

	for (int i = 0; i < ep->devs.n; i++) {
		const struct tt_vb_dev *dev = &ep->devs.dev[i];

		if (!dev->ctx)
			return tt_note_error(tuttiUnsupported, "device %s: %s", dev->name, dev->why);
		for (int k = 0; k < dev->nports; k++)
			if (dev->ports[k].wanted && *dev->ports[k].why)
				return tt_note_error(tuttiUnsupported, "%s: %s",
						     tt_vb_port_text(&dev->ports[k], where, sizeof(where)),
						     dev->ports[k].why);
	}
	return tt_note_error(tuttiUnsupported, "no usable RDMA port");
}

static tuttiResult_t open_ports(struct vb_ep *ep)
{
	struct tt_vb_port *found[VB_PORTS];
	int n;
	tuttiResult_t r = tuttiUnsupported;

	TRY(tt_vb_open(&ep->devs));
	TRY(tt_vb_stage_open(ep));
	n = tt_vb_ports(&ep->devs, found, VB_PORTS);
	for (int i = 0; i < n; i++) {
		tuttiResult_t one = open_port(ep, found[i]);

		r = ep->nports ? tuttiSuccess : one;
	}
	if (!ep->nports)
		return n ? r : no_port(ep);
	return tt_vb_events_open(ep) ? tuttiSuccess :
				       tt_fail(tuttiSystemError, "verbs: events of a device: %s", strerror(errno));
}

/* ---- poll ---- */

static void look_at_taken(struct vb_ep *ep)
{
	while (ep->wc_head != ep->wc_tail) {
		struct ibv_wc wc = ep->wc[ep->wc_head++]; /* ep->wc may move meanwhile */

		tt_vb_conn_completed(ep, &wc);
	}
	ep->wc_head = ep->wc_tail = 0;
}

static void poll_port(struct vb_ep *ep, struct vb_port *p)
{
	int n;

	do {
		look_at_taken(ep);
		n = tt_vb_take(ep, p);
		look_at_taken(ep);
	} while (n == VB_BATCH);
}

/* Each look is a system call: at each poll while conns come to be, else seldom. */
static void set_up(struct vb_ep *ep)
{
	bool all = !(++ep->polls & 1023);

	if (!ep->coming && !all)
		return;
	tt_vb_cm_poll(ep);
	ep->coming = false;
	for (struct msg_conn *c = ep->base.conns, *next; c; c = next) {
		struct vb_conn *v = (struct vb_conn *)c;

		next = c->next;
		if (v->state != VB_READY || all)
			tt_vb_setup_step(v);
		ep->coming |= v->state != VB_READY && !v->base.lost;
	}
}

static tuttiResult_t vb_link_open(void *e, void *link, uint64_t peer, uint64_t key)
{
	if (tt_vb_refuses(e, peer))
		return tuttiUnsupported;
	return tt_msg_link_open(e, link, peer, key);
}

static int vb_poll(void *e)
{
	struct vb_ep *ep = e;
	uint64_t moved = ep->base.moved;
	int n;

	tt_msg_take_arrivals(&ep->base);
	for (int i = 0; i < ep->nports; i++)
		poll_port(ep, &ep->port[i]);
	set_up(ep);
	if (ep->unread)
		tt_vb_read_all(ep);
	if (!(ep->polls & 1023))
		tt_vb_events_take(ep);
	n = tt_msg_settle(&ep->base, moved);
	tt_vb_conns_flush(ep);
	return n;
}

/* All devices that it goes by: of a chunk nobody knows which. */
static void vb_link_way(void *l, char *out, size_t n)
{
	const struct msg_flow *f = ((struct msg_link *)l)->flow;
	const struct msg_peer *p = f ? f->peer : NULL;
	char where[160], ip[64];
	size_t at = 0;

	tt_msg_link_way(l, out, n);
	for (int i = 0; p && i < p->nout && at < n; i++) {
		struct vb_conn *c = (struct vb_conn *)p->out[i];

		tt_vb_port_look(c->port->port);
		at += (size_t)snprintf(out + at, n - at, "%s %s to %s", i ? "," : "by",
				       tt_vb_port_text(c->port->port, where, sizeof(where)),
				       tt_vb_conn_peer(c, ip, sizeof(ip)));
	}
}

/* ---- sleeping ---- */

static void take_events(struct vb_ep *ep, struct vb_port *p)
{
	struct ibv_cq *cq;
	void *ctx;
	unsigned n = 0;

	while (!ep->vb->get_cq_event(p->channel, &cq, &ctx))
		n++;
	if (n)
		ep->vb->ack_cq_events(p->cq, n);
}

static bool vb_arm(void *e)
{
	struct vb_ep *ep = e;
	struct epoll_event ev;
	bool quiet;

	for (int i = 0; i < ep->nports; i++) {
		take_events(ep, &ep->port[i]);
		if (ibv_req_notify_cq(ep->port[i].cq, 0))
			return false;
		poll_port(ep, &ep->port[i]);
	}
	tt_vb_cm_poll(ep);
	set_up(ep);
	if (ep->unread)
		tt_vb_read_all(ep);
	quiet = tt_msg_arm(&ep->base);
	tt_vb_conns_flush(ep);
	return quiet && !ep->base.nbroken && ep->base.completed == ep->base.reported &&
	       epoll_wait(ep->epoll, &ev, 1, 0) <= 0;
}

static void vb_disarm(void *e)
{
	struct vb_ep *ep = e;

	for (int i = 0; i < ep->nports; i++)
		take_events(ep, &ep->port[i]);
	tt_vb_events_take(ep);
}

static int vb_wait_fd(void *e)
{
	return ((struct vb_ep *)e)->epoll;
}

/* ---- endpoint ---- */

static size_t vb_memory(void *e)
{
	const struct vb_ep *ep = e;

	return sizeof(*ep) + tt_msg_memory(&ep->base) + 2 * VB_STAGE +
	       (size_t)ep->base.nconns * (sizeof(struct vb_conn) + vb_conn_bytes(ep));
}

static void undo(struct vb_ep *ep)
{
	tt_vb_ranges_close(ep);
	for (int i = 0; i < ep->nports; i++)
		close_port(ep, &ep->port[i]);
	ep->nports = 0;
	free(ep->wc);
	ep->wc = NULL;
	ep->wc_max = ep->wc_head = ep->wc_tail = 0;
	tt_vb_stage_close(ep);
	free(ep->sink);
	ep->sink = NULL;
	tt_vb_cm_close_channel(ep);
	tt_vb_close(&ep->devs);
	free(ep->byid);
	ep->byid = NULL;
	while (ep->refused) {
		struct vb_refused *r = ep->refused;

		ep->refused = r->next;
		free(r);
	}
	if (ep->epoll >= 0)
		close(ep->epoll);
	ep->open = false;
}

static tuttiResult_t vb_ep_open(void *e, const struct tt_ep_config *config)
{
	struct vb_ep *ep = e;
	char why[256];
	tuttiResult_t r;

	ep->vb = tt_vb(why, sizeof(why));
	if (!ep->vb)
		return tt_note_error(tuttiUnsupported, "%s", why);
	tt_vb_conf(&ep->conf);
	ep->pin_max = (size_t)tt_env_int("IB_REGISTERED");
	ep->slot = VB_PREFIX + MSG_HEADER + eager_setting(); /* an advert is shorter */
	ep->open = true;
	ep->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (ep->epoll < 0 || !tt_msg_ep_open(&ep->base, config, &tt_vb_wire, eager_setting())) {
		r = tt_fail(tuttiSystemError, "verbs: no epoll or eventfd: %s", strerror(errno));
		undo(ep);
		return r;
	}
	r = watch(ep, ep->base.event) ? open_ports(ep) : tuttiSystemError;
	if (r != tuttiSuccess) {
		tt_msg_ep_close(&ep->base);
		undo(ep);
	}
	return r;
}

static bool is_out(const struct vb_ep *ep)
{
	for (struct msg_conn *c = ep->base.conns; c; c = c->next) {
		struct vb_conn *v = (struct vb_conn *)c;

		if (v->state == VB_READY && !c->lost && !tt_vb_conn_is_out(v))
			return false;
	}
	return !ep->base.nwriting && !ep->base.owing;
}

/* What was sent is sent: until the devices have said so of all frames. */
static void vb_ep_close(void *e)
{
	struct vb_ep *ep = e;
	uint64_t until = tt_now_ns() + CLOSE_NS;

	if (!ep || !ep->open)
		return;
	do {
		ep->base.owe_retry = true;
		(void)vb_poll(ep);
	} while (!is_out(ep) && tt_now_ns() < until);
	tt_msg_ep_close(&ep->base);
	undo(ep);
}

const struct tt_transport tt_verbs = {
	.size = sizeof(struct tt_transport), .name = "verbs", .ep_size = sizeof(struct vb_ep),
	.link_size = sizeof(struct msg_link), .probe = vb_probe, .present = tt_vb_any,
	.ep_open = vb_ep_open, .ep_close = vb_ep_close,
	.link_open = vb_link_open, .link_close = tt_msg_link_close, .send = tt_msg_send, .recv = tt_msg_recv,
	.poll = vb_poll, .link_error = tt_msg_link_error, .link_way = vb_link_way,
	.arm = vb_arm, .disarm = vb_disarm,
	.wait_fd = vb_wait_fd, .accept = tt_msg_accept, .peer_gone = tt_msg_peer_gone, .memory = vb_memory,
	.reg = tt_vb_reg, .dereg = tt_vb_dereg, .nics = tt_vb_nics, .far = tt_vb_far, .reg_far = tt_vb_reg_far,
};

#else

static bool vb_probe(struct tt_caps *caps, char *why, size_t why_size)
{
	(void)snprintf(why, why_size, "built without RDMA headers");
	return false;
}

const struct tt_transport tt_verbs = { .size = sizeof(struct tt_transport), .name = "verbs", .probe = vb_probe };

#endif
