/* RDMA: one conn, a reliable queue pair: how it begins and ends, and what is said of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- life ---- */

static bool number(struct vb_ep *ep, struct vb_conn *c)
{
	struct vb_conn **grown;

	for (c->id = 0; c->id < ep->nids && ep->byid[c->id]; c->id++)
		;
	if (c->id == 65536)
		return false;
	if (c->id == ep->nids) {
		grown = realloc(ep->byid, (ep->nids + 16) * sizeof(struct vb_conn *));
		if (!grown)
			return false;
		memset(grown + ep->nids, 0, 16 * sizeof(*grown));
		ep->byid = grown;
		ep->nids += 16;
	}
	c->tag = ++ep->tags;
	ep->byid[c->id] = c;
	return true;
}

static void drop_mem(struct vb_conn *c)
{
	if (c->mem)
		tt_block_free(c->mem, vb_conn_bytes(vb_ep_of(c)));
	c->mem = NULL;
}

/* Not in the heap: conns that come and go would leave holes of their size between what outlives them. */
bool tt_vb_conn_attach(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);
	size_t n = vb_conn_bytes(ep);

	c->mem = tt_block_new(n);
	if (c->mem) /* but for where frames wait */
		c->mr = ep->vb->reg_mr(c->port->pd, c->mem, n - ep->slot, IBV_ACCESS_LOCAL_WRITE);
	if (!c->mr) {
		drop_mem(c);
		return false;
	}
	c->port->conns++;
	return true;
}

struct vb_conn *tt_vb_conn_new(struct msg_peer *p, struct vb_port *port, int fd)
{
	struct vb_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->base.peer = p;
	c->fd = -1;
	c->port = port;
	if (!number(vb_ep_of(c), c) || (port && !tt_vb_conn_attach(c))) {
		if (vb_ep_of(c)->nids > c->id && vb_ep_of(c)->byid[c->id] == c)
			vb_ep_of(c)->byid[c->id] = NULL;
		free(c);
		return NULL;
	}
	c->fd = fd;
	return c;
}

void tt_vb_conn_end_qp(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);

	if (c->cm && c->cm->qp)
		ep->vb->cm_destroy_qp(c->cm);
	else if (c->qp)
		ep->vb->destroy_qp(c->qp);
	c->qp = NULL;
	c->tag = ++ep->tags; /* what is still in the completion queue is of nobody */
}

/* Gives back what the bytes of a frame came from. */
void tt_vb_sent_clear(struct vb_conn *c, struct vb_sent *s)
{
	if (s->range)
		tt_vb_range_put(vb_ep_of(c), c->port, s->range);
	if (s->stage)
		tt_vb_stage_put(&vb_ep_of(c)->out, s->stage, s->stage_len);
	s->range = NULL;
	s->stage = NULL;
}

static void drop_sent(struct vb_conn *c)
{
	for (; c->send_head != c->send_tail; c->send_head++)
		tt_vb_sent_clear(c, &c->sent[c->send_head % VB_SLOTS]);
	if (c->busy)
		c->base.peer->ep->nwriting--;
	c->busy = false;
	c->waiting = 0;
}

void tt_vb_conn_free(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);

	tt_vb_cm_drop(c);
	tt_vb_conn_end_qp(c); /* from here on nobody writes to what was placed */
	drop_sent(c);
	tt_vb_places_drop(ep, c);
	tt_vb_loop_gone(ep, c);
	ep->byid[c->id] = NULL;
	if (c->mr) {
		c->port->conns--;
		ep->vb->dereg_mr(c->mr);
	}
	drop_mem(c);
	if (c->fd >= 0) {
		(void)epoll_ctl(ep->epoll, EPOLL_CTL_DEL, c->fd, NULL);
		(void)shutdown(c->fd, SHUT_WR);
		while (recv(c->fd, &c->heard, sizeof(c->heard), MSG_DONTWAIT) > 0)
			; /* what is unread would reset it, and take last words along */
		close(c->fd);
	}
	free(c);
}

void tt_vb_conn_lost(struct vb_conn *c, tuttiResult_t r, const char *why)
{
	if (c->base.lost)
		return;
	c->base.lost = true;
	if (c->state == VB_READY && r != tuttiPeerDead)
		tt_vb_setup_say_lost(c, why);
	drop_sent(c);
	tt_msg_peer_break(c->base.peer, r, "%s", why);
}

/* ---- words ---- */

const char *tt_vb_conn_peer(const struct vb_conn *c, char *out, size_t n)
{
	static const uint8_t none[16];
	struct tt_addr a;
	uint16_t port;

	if (memcmp(c->pair.b.raw, none, sizeof(none)) != 0)
		return tt_gid_text(c->pair.b.raw, out, n);
	if (c->cm && tt_addr_from(rdma_get_peer_addr(c->cm), &a, &port))
		return tt_addr_format(&a, 0, out, n);
	(void)snprintf(out, n, "%s", c->base.peer->where);
	return out;
}

static bool has_address(const struct vb_conn *c)
{
	const struct tt_vb_port *port = c->port->port;
	static const uint8_t none[16];

	for (int i = 0; i < port->ngids; i++)
		if (!memcmp(port->gids[i].raw, c->pair.a.raw, sizeof(c->pair.a.raw)))
			return true;
	return !memcmp(c->pair.a.raw, none, sizeof(none));
}

/* What is wrong with the port of this end, NULL: nothing; its state of now, for texts as well. */
static const char *own_trouble(const struct vb_conn *c)
{
	struct tt_vb_port *port = c->port->port;

	tt_vb_port_look(port);
	if (!port->usable)
		return port->why;
	return has_address(c) ? NULL : "its address is gone: leave addresses as they are while jobs run";
}

/* What this end's port has to say explains more than a status that came of it. */
static const char *describe(const struct vb_conn *c, const struct tt_vb_word *word, const char *own, char *out,
			    size_t n)
{
	const struct tt_vb_port *port = c->port->port;
	struct tt_vb_word here = { word->name, "the port of this end does not work", own };
	char ip[64];
	struct tt_vb_place at = { .rank = -1, .port = port, .qpn = c->qp ? c->qp->qp_num : 0,
				  .peer = tt_vb_conn_peer(c, ip, sizeof(ip)) };

	return tt_vb_say(own && !port->dev->lost ? &here : word, &at, out, n);
}

void tt_vb_conn_ended(struct vb_conn *c, const struct tt_vb_word *word)
{
	char text[TT_TEXT / 2];

	if (c->base.lost)
		return;
	if (c->state != VB_READY || own_trouble(c)) {
		tt_vb_conn_failed(c, word);
		return;
	}
	tt_log(TT_LOG_DEBUG, "verbs", "%s", describe(c, word, NULL, text, sizeof(text)));
	c->base.lost = true;
	drop_sent(c);
	tt_msg_peer_closing(c->base.peer, 0, text);
}

/* Ends the queue pair here and now: after this the device neither reads nor writes anything for it. */
void tt_vb_conn_cut(struct vb_conn *c, const char *why)
{
	tt_vb_conn_end_qp(c);
	tt_vb_conn_lost(c, tuttiRemoteError, why);
}

/* ---- posting ---- */

bool tt_vb_conn_post(struct vb_conn *c, uint32_t i)
{
	struct ibv_sge sge = { .addr = (uintptr_t)vb_recv_slot(c, i), .length = (uint32_t)vb_ep_of(c)->slot,
			       .lkey = c->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = vb_wr_id(c, VB_WC_RECV, i), .sg_list = &sge, .num_sge = 1 }, *bad;

	if (ibv_post_recv(c->qp, &wr, &bad))
		return false;
	c->posted++;
	return true;
}

tuttiResult_t tt_vb_conn_qp(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);
	struct ibv_qp_init_attr a = {
		.send_cq = c->port->cq, .recv_cq = c->port->cq, .qp_type = IBV_QPT_RC, .sq_sig_all = 0,
		.cap = { .max_send_wr = VB_SLOTS, .max_recv_wr = VB_SLOTS, .max_send_sge = 1,
			 .max_recv_sge = 1 },
	};
	char why[256];

	tt_vb_conn_end_qp(c);
	c->loud = c->port->port->wire == TT_VB_IWARP && !c->port->port->dev->pci[0];
	for (int n = c->port->port->dev->inline_try; !c->qp; n /= 2) {
		a.cap.max_inline_data = (uint32_t)n;
		c->qp = c->cm ? (ep->vb->cm_create_qp(c->cm, c->port->pd, &a) ? NULL : c->cm->qp) :
				ep->vb->create_qp(c->port->pd, &a);
		c->max_inline = (uint32_t)n;
		if (!c->qp && !n)
			return tt_fail(tuttiSystemError, "verbs: %s",
				       tt_vb_errno("ibv_create_qp", errno, why, sizeof(why)));
	}
	c->send_head = c->send_tail = c->signaled = c->chunks = c->used = c->got = c->posted = c->told = 0;
	return tuttiSuccess;
}

/* After the queue pair has been initialized: all buffers. */
bool tt_vb_conn_fill(struct vb_conn *c)
{
	for (uint32_t i = 0; i < VB_SLOTS; i++)
		if (!tt_vb_conn_post(c, i))
			return false;
	c->told = c->posted;
	c->theirs_posted = c->theirs.slots;
	return true;
}

void tt_vb_conn_failed(struct vb_conn *c, const struct tt_vb_word *word)
{
	char text[TT_TEXT / 2];
	const char *own;

	if (c->base.lost)
		return;
	own = own_trouble(c);
	describe(c, word, own, text, sizeof(text));
	if (c->state != VB_READY) /* which says itself where */
		tt_vb_setup_failed(c, tt_vb_say(word, &(struct tt_vb_place){ .rank = -1 }, text, sizeof(text)));
	else
		tt_vb_conn_lost(c, own ? tuttiSystemError : tuttiRemoteError, text);
}

#else
typedef int tt_verbs_conn_is_empty;
#endif
