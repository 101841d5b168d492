/* RDMA: memory that no processor may touch, that of GPUs: registered with all ports or not at all, and never by way of
 * staging. Where what a device has written may not have arrived when it says so, it reads a byte back from there before
 * the receive is done: by a connection of the process to itself, from each port to the same port, and a device's read
 * goes behind its writes. SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOP_NS 5000000000ull
enum { SINK = 4096 };

int tt_vb_nics(void *e, struct tt_nic *out, int max)
{
	const struct vb_ep *ep = e;
	int n = 0;

	for (; n < ep->nports && n < max; n++) {
		const struct tt_vb_dev *dev = ep->port[n].port->dev;

		snprintf(out[n].name, sizeof(out[n].name), "%s", dev->name);
		snprintf(out[n].pci, sizeof(out[n].pci), "%s", dev->pci);
		out[n].dma_buf_errno = tt_vb_try_dmabuf(dev);
	}
	return n;
}

static bool all_ready(struct msg_conn *const *conns)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++)
		if (conns[i] && !conns[i]->lost && ((const struct vb_conn *)conns[i])->state != VB_READY)
			return false;
	return conns[0] && !conns[0]->lost;
}

/* From then on its connections end with its links, and nothing goes another way. */
bool tt_vb_far(void *link)
{
	const struct msg_flow *f = ((const struct msg_link *)link)->flow;

	return f && !f->error && f->state == FLOW_OPEN && !f->peer->broken && all_ready(f->peer->out) &&
	       all_ready(f->peer->in);
}

/* ---- registering ---- */

static struct ibv_mr *register_at(struct vb_ep *ep, const struct vb_port *port, const struct vb_range *r, int fd)
{
	int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

	if (r->read_back)
		access |= IBV_ACCESS_REMOTE_READ;
	if (fd < 0)
		return ep->vb->reg_mr(port->pd, r->p, r->n, access);
	if (ep->vb->reg_dmabuf_mr)
		return ep->vb->reg_dmabuf_mr(port->pd, 0, r->n, (uintptr_t)r->p, fd, access);
	errno = ENOSYS;
	return NULL;
}

static tuttiResult_t register_all(struct vb_ep *ep, struct vb_range *r, int fd)
{
	char why[256], where[160];

	for (int i = 0; i < ep->nports; i++) {
		if (ep->nregions == VB_REGIONS)
			return tt_note_error(tuttiSystemError, "there are %u regions of registered memory already",
					     VB_REGIONS);
		r->at[i].mr = register_at(ep, &ep->port[i], r, fd);
		if (!r->at[i].mr)
			return tt_note_error(tuttiSystemError, "%zu bytes of device memory, %s: %s", r->n,
					     tt_vb_port_text(ep->port[i].port, where, sizeof(where)),
					     tt_vb_errno(fd < 0 ? "ibv_reg_mr" : "ibv_reg_dmabuf_mr", errno, why,
							 sizeof(why)));
		ep->nregions++;
	}
	return tuttiSuccess;
}

static tuttiResult_t open_loop(struct vb_ep *ep);

tuttiResult_t tt_vb_reg_far(void *e, void *p, size_t n, int fd, bool read_back, void **range)
{
	struct vb_ep *ep = e;
	struct vb_range *r;
	tuttiResult_t res;

	if (read_back)
		TRY(open_loop(ep));
	TRY(tt_vb_reg(ep, p, n, TT_REG_SOLE, range));
	r = *range;
	r->far = true;
	r->read_back = read_back;
	res = register_all(ep, r, fd);
	if (res == tuttiSuccess)
		ep->nfar++;
	else
		tt_vb_dereg(ep, r);
	return res;
}

bool tt_vb_is_far(const struct vb_ep *ep, const void *p)
{
	const uint8_t *at = p;

	for (uint32_t i = 0; ep->nfar && i < ep->nranges; i++)
		if (ep->ranges[i]->far && at >= ep->ranges[i]->p && at < ep->ranges[i]->p + ep->ranges[i]->n)
			return true;
	return false;
}

/* ---- the connection of the process to itself ---- */

static bool open_sink(struct vb_ep *ep)
{
	ep->sink = ep->sink ? ep->sink : aligned_alloc(SINK, SINK);
	for (int i = 0; ep->sink && i < ep->nports; i++) {
		struct vb_port *p = &ep->port[i];

		if (!p->sink)
			p->sink = ep->vb->reg_mr(p->pd, ep->sink, SINK,
						 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
		if (!p->sink)
			return false;
	}
	return ep->sink;
}

void tt_vb_loop_leave(struct vb_ep *ep, struct vb_port *p)
{
	if (p->sink)
		ep->vb->dereg_mr(p->sink);
	p->sink = NULL;
}

static bool is_loop_open(const struct vb_ep *ep)
{
	for (int i = 0; i < ep->nports; i++)
		if (!ep->port[i].loop || ep->port[i].loop->base.lost || ep->port[i].loop->state != VB_READY)
			return false;
	return true;
}

static bool has_begun(const struct vb_ep *ep)
{
	for (int i = 0; i < ep->nports; i++)
		if (ep->port[i].loop && !ep->port[i].loop->base.lost)
			return true;
	return false;
}

/* Both ends as if the socket between them came of a dial. */
static bool begin_loop(struct msg_peer *p, int i)
{
	struct vb_ep *ep = (struct vb_ep *)p->ep;
	int fd[2];

	if (p->out[i] || p->in[i] || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return false;
	p->in[i] = tt_vb_arrive(p, i, fd[1]);
	if (!p->in[i])
		close(fd[1]);
	ep->port[i].loop = tt_vb_dial_by(p, i, &ep->port[i], fd[0]);
	p->nout = i + 1;
	return p->in[i] && ep->port[i].loop;
}

static tuttiResult_t open_loop(struct vb_ep *ep)
{
	struct msg_peer *p = has_begun(ep) ? NULL : tt_msg_peer_get(&ep->base, ep->base.config.self);
	uint64_t until = tt_now_ns() + LOOP_NS;
	bool good = open_sink(ep);

	for (int i = 0; p && good && i < ep->nports; i++)
		good = begin_loop(p, i);
	while (good && !is_loop_open(ep) && has_begun(ep) && tt_now_ns() < until)
		(void)tt_verbs.poll(ep);
	if (good && is_loop_open(ep))
		return tuttiSuccess;
	return tt_note_error(tuttiSystemError, "a NIC has no connection to itself, by which it would read back what "
			     "it has written: TUTTI_LOG=verbs:info says why");
}

void tt_vb_loop_gone(struct vb_ep *ep, const struct vb_conn *c)
{
	for (int i = 0; i < ep->nports; i++)
		if (ep->port[i].loop == c)
			ep->port[i].loop = NULL;
}

/* ---- reading back ---- */

static void post_read(struct vb_ep *ep, struct vb_place *p, int port)
{
	struct vb_port *at = &ep->port[port];
	struct ibv_sge sge = { .addr = (uintptr_t)ep->sink, .length = 1, .lkey = at->sink->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_READ,
				  .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { (uintptr_t)p->req->p, vb_region(ep, at, p->range)->mr->rkey } };
	struct vb_sent s = { .len = p->unread[port], .place = p->id };

	if (!tt_vb_conn_request(at->loop, &wr, &s))
		return;
	p->reading += p->unread[port];
	p->unread[port] = 0;
}

static bool loop_works(const struct vb_ep *ep, int port)
{
	return ep->port[port].loop && !ep->port[port].loop->base.lost;
}

static void read_place(struct vb_ep *ep, struct vb_place *p)
{
	for (int i = 0; i < ep->nports; i++) {
		if (!loop_works(ep, i) && (p->unread[i] || p->reading))
			tt_msg_peer_break(p->by->base.peer, tuttiSystemError, "the NIC's connection to itself has "
					  "ended, by which it reads back what it has written to a GPU");
		else if (p->unread[i] && vb_has_slot(ep->port[i].loop, 0))
			post_read(ep, p, i);
	}
}

void tt_vb_read_back(struct vb_ep *ep, struct vb_place *p, const struct vb_port *port, size_t n)
{
	p->unread[port - ep->port] += (uint32_t)n;
	ep->unread += n;
	read_place(ep, p);
}

void tt_vb_read_all(struct vb_ep *ep)
{
	for (struct vb_place *p = ep->places; p; p = p->next)
		if (p->flow && p->range && p->range->read_back)
			read_place(ep, p);
}

void tt_vb_was_read(struct vb_ep *ep, uint32_t id, size_t n)
{
	struct vb_place *p = ep->places;

	while (p && p->id != id)
		p = p->next;
	if (!p)
		return;
	p->reading -= (uint32_t)n;
	ep->unread -= n;
	tt_msg_chunk_done(p->flow, p->seq, n);
}

/* Before its memory may go: the device is this end's own, and answers. */
void tt_vb_end_reads(struct vb_ep *ep, struct vb_place *p)
{
	for (int i = 0; i < ep->nports; i++) {
		ep->unread -= p->unread[i];
		p->unread[i] = 0;
		if (p->reading && loop_works(ep, i))
			tt_vb_conn_end_reads(ep->port[i].loop, p->id);
	}
	ep->unread -= p->reading;
	p->reading = 0;
}

#else
typedef int tt_verbs_far_is_empty;
#endif
