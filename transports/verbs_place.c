/* RDMA: where the other end writes to: registered memory of the receive, or staging; and how that is taken back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <stdlib.h>
#include <string.h>

/* Gives back what a place is of. */
static void clear_place(struct vb_ep *ep, struct vb_place *p)
{
	tt_vb_end_reads(ep, p);
	for (int i = 0; p->range && i < ep->nports; i++)
		tt_vb_range_put(ep, &ep->port[i], p->range);
	if (p->stage)
		tt_vb_stage_put(&ep->in, p->stage, p->n);
	p->range = NULL;
	p->stage = NULL;
	ep->base.owe_retry = true;
}

static void free_place(struct vb_ep *ep, struct vb_place **at)
{
	struct vb_place *p = *at;

	*at = p->next;
	clear_place(ep, p);
	free(p);
}

void tt_vb_places_drop(struct vb_ep *ep, const struct vb_conn *c)
{
	for (struct vb_place **p = &ep->places; *p;) {
		if ((*p)->by == c)
			free_place(ep, p);
		else
			p = &(*p)->next;
	}
}

/* Any of the peer's ports may write there: it is registered with all of ours, or with none. */
static struct vb_range *place_in_range(struct vb_ep *ep, const struct vb_conn *c, const struct tt_req *req)
{
	struct vb_range *r = tt_vb_range_get(ep, c->port, req->p, req->n);
	int i;

	if (!r)
		return NULL;
	for (i = 0; i < ep->nports; i++)
		if (&ep->port[i] != c->port && !tt_vb_range_also(ep, &ep->port[i], r))
			break;
	if (i == ep->nports)
		return r;
	while (i-- > 0)
		if (&ep->port[i] != c->port)
			tt_vb_range_put(ep, &ep->port[i], r);
	tt_vb_range_put(ep, c->port, r);
	return NULL;
}

bool tt_vb_place(struct msg_conn *mc, struct msg_flow *flow, const struct tt_req *req,
			struct msg_frame *f)
{
	struct vb_conn *c = (struct vb_conn *)mc;
	struct vb_ep *ep = vb_ep_of(c);
	uint32_t keys[VB_PORTS] = { 0 };
	struct vb_place *p;

	if (c->state != VB_READY || !vb_has_slot(c, VB_KEPT))
		return false; /* the advert itself could not go */
	p = calloc(1, sizeof(*p));
	if (!p)
		return false;
	p->range = place_in_range(ep, c, req);
	if (!p->range && tt_vb_is_far(ep, req->p))
		tt_vb_conn_lost(c, tuttiSystemError, "device memory was taken back from the NIC, with a link that was "
			       "closed");
	else if (!p->range)
		p->stage = tt_vb_stage_get(&ep->in, req->n);
	if (!p->range && !p->stage) {
		free(p);
		return false;
	}
	p->by = c;
	p->flow = flow;
	p->req = req;
	p->token = f->token;
	p->seq = f->seq;
	p->n = req->n;
	if (!(++ep->place_ids & UINT32_MAX >> VB_SHARE_BITS))
		ep->place_ids++; /* 0 is none */
	p->id = ep->place_ids & UINT32_MAX >> VB_SHARE_BITS;
	p->next = ep->places;
	ep->places = p;
	f->off = p->range ? (uintptr_t)req->p : (uintptr_t)p->stage;
	for (int i = 0; i < ep->nports; i++)
		keys[i] = p->range ? vb_region(ep, &ep->port[i], p->range)->mr->rkey : ep->port[i].in->rkey;
	f->place = p->id;
	f->note = (struct tt_note){ keys[0] | (uint64_t)keys[1] << 32, keys[2], keys[3] };
	return true;
}

static struct vb_place **find_place(struct vb_ep *ep, uint32_t token, uint32_t seq)
{
	struct vb_place **p = &ep->places;

	while (*p && ((*p)->token != token || (*p)->seq != seq))
		p = &(*p)->next;
	return p;
}

void tt_vb_unplace(struct msg_conn *mc, struct msg_flow *flow, const struct tt_req *req)
{
	struct vb_ep *ep = vb_ep_of((struct vb_conn *)mc);
	struct vb_place **p = &ep->places;

	while (*p && ((*p)->flow != flow || (*p)->req != req))
		p = &(*p)->next;
	if (*p)
		free_place(ep, p);
}

/* Takes the region of a place back from the device, which makes its key void: a write that comes all the same ends the
 * conn, one that does not come costs nothing. Where others have places in the region, their conns would pay for it,
 * so this one ends instead; but not where the others are about to close as well. */
static void withdraw(struct vb_conn *c, struct vb_range *r, const struct msg_flow *flow)
{
	struct vb_ep *ep = vb_ep_of(c);
	struct msg_peer *peer = c->base.peer;
	bool gone = true;
	uint32_t closing = 0;

	for (const struct vb_place *p = ep->places; p; p = p->next)
		closing += p->range == r && (r->sole || p->flow == flow);
	for (int i = 0; i < ep->nports && gone; i++)
		gone = vb_region(ep, &ep->port[i], r)->uses <= closing && tt_vb_range_withdraw(ep, &ep->port[i], r);
	for (int i = 0; i < MSG_CONNS_MAX && !gone; i++)
		if (peer->in[i] && ((struct vb_conn *)peer->in[i])->qp)
			tt_vb_conn_cut((struct vb_conn *)peer->in[i], "a link was closed whose registered memory the "
								      "other end may still write to");
}

/* The other end may still write: staging stays its own until it has, has closed, or the conn ends; user memory is
 * withdrawn at once, and the place stays for the word that may be on its way. */
void tt_vb_revoke(struct msg_conn *mc, struct msg_flow *flow)
{
	struct vb_conn *c = (struct vb_conn *)mc;
	struct vb_ep *ep = vb_ep_of(c);

	if (mc->lost)
		tt_vb_conn_end_qp(c);
	for (struct vb_place *p = ep->places; p; p = p->next)
		if (p->flow == flow && p->range) {
			tt_vb_end_reads(ep, p);
			withdraw(c, p->range, flow);
		}
	for (struct vb_place *p = ep->places; p; p = p->next) {
		if (p->flow != flow)
			continue;
		if (p->range)
			clear_place(ep, p);
		p->flow = NULL;
	}
}

void tt_vb_over(struct msg_conn *mc, const struct msg_flow *flow)
{
	struct vb_ep *ep = vb_ep_of((struct vb_conn *)mc);

	for (struct vb_place **at = &ep->places; *at;)
		if (!(*at)->flow && (*at)->token == flow->token)
			free_place(ep, at);
		else
			at = &(*at)->next;
}

void tt_vb_data(struct msg_conn *mc, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req)
{
	struct vb_ep *ep = vb_ep_of((struct vb_conn *)mc);
	struct vb_place **at = find_place(ep, f->token, f->seq);

	if (!*at) {
		tt_msg_refuse(mc, "data for which it was given no place");
		return;
	}
	if (!req) {
		if (f->off + f->len == f->total)
			free_place(ep, at);
		return;
	}
	if ((*at)->range && (*at)->range->read_back) {
		tt_vb_read_back(ep, *at, ((struct vb_conn *)mc)->port, f->len);
		return;
	}
	if ((*at)->stage)
		memcpy((uint8_t *)req->p + f->off, (*at)->stage + f->off, f->len);
	tt_msg_chunk_done(flow, f->seq, f->len);
}

const char *tt_vb_written(struct vb_conn *c, uint32_t imm, size_t n)
{
	struct msg_frame f = { .type = MSG_DATA, .len = (uint32_t)n };
	const struct vb_place *p = vb_ep_of(c)->places;

	while (p && p->id != imm >> VB_SHARE_BITS)
		p = p->next;
	f.off = (imm & ((1u << VB_SHARE_BITS) - 1)) * VB_SHARE;
	if (!p || !p->id)
		return "data for which it was given no place";
	if (f.off >= p->n || !n || n > tt_min(VB_CHUNK, p->n - f.off))
		return "a chunk of bad length";
	f.token = p->token;
	f.seq = p->seq;
	f.total = p->n;
	if (!p->flow) {
		tt_vb_data(&c->base, NULL, &f, NULL);
		return NULL;
	}
	f.key = p->flow->key;
	f.side = p->flow->side;
	f.credit = p->flow->eager_credited;
	f.note = p->req->note;
	tt_msg_frame(&c->base, &f, NULL);
	return NULL;
}

#else
typedef int tt_verbs_place_is_empty;
#endif
