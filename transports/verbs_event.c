/* RDMA: what devices say unasked: ports that come and go, queue pairs and devices that are lost.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#define DOWN_NS 3000000000ull /* a port that is down for so long is not waited for */
enum { ACTIVE = 4 };

bool tt_vb_events_open(struct vb_ep *ep)
{
	struct epoll_event ev = { .events = EPOLLIN };

	for (int i = 0; i < ep->devs.n; i++) {
		struct ibv_context *ctx = ep->devs.dev[i].ctx;

		if (ctx && (fcntl(ctx->async_fd, F_SETFL, fcntl(ctx->async_fd, F_GETFL) | O_NONBLOCK) == -1 ||
			    epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ctx->async_fd, &ev)))
			return false;
	}
	return true;
}

/* Ends the conns of a queue pair, of a port (qp NULL), or of a device (port NULL as well). */
static void end_conns(struct vb_ep *ep, const struct tt_vb_dev *dev, const struct tt_vb_port *port,
		      const struct ibv_qp *qp, const struct tt_vb_word *word)
{
	for (uint32_t i = 0; i < ep->nids; i++) {
		struct vb_conn *c = ep->byid[i];

		if (c && c->port && c->port->port->dev == dev && (!port || c->port->port == port) &&
		    (!qp || c->qp == qp))
			tt_vb_conn_failed(c, word);
	}
}

static void look(struct tt_vb_dev *dev, int num, const struct tt_vb_word *word)
{
	char where[160];

	for (int i = 0; i < dev->nports; i++) {
		struct tt_vb_port *p = &dev->ports[i];
		int state = p->state;

		if (num && p->num != num)
			continue;
		tt_vb_port_look(p);
		p->down_ns = p->state == ACTIVE ? 0 : p->down_ns ? p->down_ns : tt_now_ns();
		tt_log(state == p->state ? TT_LOG_INFO : TT_LOG_WARN, "verbs", "%s: %s: %s; %s",
		       tt_vb_port_text(p, where, sizeof(where)), word->name, word->cause, word->mend);
	}
}

/* Its file is readable from now on, with nothing to say. */
static void lose(struct vb_ep *ep, struct tt_vb_dev *dev, const struct tt_vb_word *word)
{
	(void)epoll_ctl(ep->epoll, EPOLL_CTL_DEL, dev->ctx->async_fd, NULL);
	dev->lost = true;
	look(dev, 0, word);
	end_conns(ep, dev, NULL, NULL, word);
}

void tt_vb_dev_removed(struct vb_ep *ep, struct tt_vb_dev *dev)
{
	if (!dev->lost)
		lose(ep, dev, tt_vb_cm_word(RDMA_CM_EVENT_DEVICE_REMOVAL));
}

static void act(struct vb_ep *ep, struct tt_vb_dev *dev, const struct ibv_async_event *e)
{
	const struct tt_vb_word *word = tt_vb_event_word(e->event_type);

	switch (tt_vb_event_blow(e->event_type)) {
	case TT_VB_LOOK:
		look(dev, e->element.port_num, word);
		break;
	case TT_VB_QP_LOST:
		end_conns(ep, dev, NULL, e->element.qp, word);
		break;
	case TT_VB_DEV_LOST:
		lose(ep, dev, word);
		break;
	default:
		tt_log(TT_LOG_DEBUG, "verbs", "device %s: %s: %s", dev->name, word->name, word->cause);
	}
}

/* A bounce harms nothing that was not sent meanwhile. Later on, what this end waits for would never fail by itself if
 * only the other end has something to send. */
static void end_if_down(struct vb_ep *ep, struct tt_vb_dev *dev)
{
	for (int i = 0; i < dev->nports; i++) {
		struct tt_vb_port *p = &dev->ports[i];

		if (!p->down_ns || tt_now_ns() - p->down_ns < DOWN_NS)
			continue;
		tt_vb_port_look(p);
		p->down_ns = 0;
		if (p->state != ACTIVE)
			end_conns(ep, dev, p, NULL, tt_vb_event_word(IBV_EVENT_PORT_ERR));
	}
}

void tt_vb_events_take(struct vb_ep *ep)
{
	for (int i = 0; i < ep->devs.n; i++) {
		struct tt_vb_dev *dev = &ep->devs.dev[i];
		struct ibv_async_event e, copy;

		while (dev->ctx && !dev->lost && !ep->vb->get_async_event(dev->ctx, &e)) {
			copy = e;
			ep->vb->ack_async_event(&e); /* first: or the queue pair cannot be destroyed */
			act(ep, dev, &copy);
		}
		if (dev->ctx && !dev->lost && errno != EAGAIN && errno != EINTR)
			lose(ep, dev, tt_vb_event_word(IBV_EVENT_DEVICE_FATAL));
		end_if_down(ep, dev);
	}
}

#else
typedef int tt_verbs_event_is_empty;
#endif
