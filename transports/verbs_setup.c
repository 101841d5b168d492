/* RDMA: how a conn comes to be. The dialler says its queue pair and its port's GIDs on a socket of the bootstrap, the
 * other end answers with its own, and both order the pairs of GIDs alike. The dialler tries the pairs one after
 * another with an empty frame: what comes back acknowledged works both ways.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC 0x76627474u
#define VERSION 3u
#define MAX_PAIRS 32
#define CM_NS 10000000000ull /* for all tries by rdma_cm */
#define TRY_NS 5000000000ull /* in which a device must say how a try went */
#define LATE_NS 2000000000ull /* after another conn of the process was found to work */

/* ---- words both ways ---- */

static uint64_t host_hash(void)
{
	char id[64] = "";
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	size_t n = f ? fread(id, 1, sizeof(id) - 1, f) : 0;

	if (f)
		fclose(f);
	return tt_hash64(id, n, 0);
}

static void fill_hello(struct vb_conn *c, uint8_t attempt)
{
	const struct tt_vb_port *port = c->port->port;
	struct vb_hello *h = &c->mine;

	*h = (struct vb_hello){ .magic = MAGIC, .version = VERSION, .host = host_hash(), .attempt = attempt,
				.slots = VB_SLOTS, .slot = (uint32_t)vb_ep_of(c)->slot, .lid = port->lid,
				.mtu = (uint16_t)port->mtu, .wire = (uint8_t)port->wire };
	h->psn = (uint32_t)tt_hash64(&c->tag, sizeof(c->tag), tt_now_ns()) & 0xffffff;
	h->ngids = (uint16_t)tt_gid_usable(port->gids, port->ngids, vb_ep_of(c)->conf.gid_index, h->gids, VB_GIDS);
	h->port = (uint8_t)(c->port - vb_ep_of(c)->port);
	h->naddrs = (uint8_t)tt_vb_cm_addrs(c->port, h->addrs);
	h->cookie = tt_hash64(&c->tag, sizeof(c->tag), h->psn) ^ tt_now_ns();
	if (c->qp)
		h->qpn = c->qp->qp_num;
}

static bool tell(struct vb_conn *c)
{
	return send(c->fd, &c->mine, sizeof(c->mine), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(c->mine);
}

static void left_alone(struct vb_conn *c, int err);

/* A whole hello has come. */
static bool hear(struct vb_conn *c)
{
	ssize_t n;

	while (c->hello_in < sizeof(c->heard)) {
		n = recv(c->fd, (uint8_t *)&c->heard + c->hello_in, sizeof(c->heard) - c->hello_in, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n <= 0) {
			left_alone(c, n ? errno : 0);
			return false;
		}
		c->hello_in += (size_t)n;
	}
	c->hello_in = 0;
	return true;
}

static bool is_sound(const struct vb_conn *c)
{
	const struct vb_hello *h = &c->heard;

	return h->magic == MAGIC && h->version == VERSION && h->ngids <= VB_GIDS && h->naddrs <= VB_ADDRS &&
	       h->port < VB_PORTS && h->slots > VB_KEPT &&
	       h->slots <= 4096 && h->slot == vb_ep_of(c)->slot && h->mtu >= 256;
}

/* ---- no way ----
 * Both ends agree whether anything may go between two processes (docs/decisions/0010): a dialler sends nothing before
 * the other end has said yes to it, and who has said yes, or asked, no longer gives up. */

bool tt_vb_refuses(const struct vb_ep *ep, uint64_t id)
{
	for (const struct vb_refused *r = ep->refused; r; r = r->next)
		if (r->id == id) {
			tt_note_error(tuttiUnsupported, "%s", r->why);
			return true;
		}
	return false;
}

/* With no other transport there is nothing to go to at once: the next link tries again. */
static void refuse(struct vb_ep *ep, uint64_t id, const char *why)
{
	struct vb_refused *r;

	if (!strcmp(tt_env_str("TRANSPORTS"), "verbs") || tt_vb_refuses(ep, id))
		return;
	r = calloc(1, sizeof(*r));
	if (!r)
		return;
	r->id = id;
	(void)snprintf(r->why, sizeof(r->why), "%s", why);
	r->next = ep->refused;
	ep->refused = r;
}

static bool is_agreed(const struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		const struct vb_conn *in = (const struct vb_conn *)p->in[i], *out = (const struct vb_conn *)p->out[i];

		if ((in && in->state == VB_READY) || (out && out->state >= VB_ASKED))
			return true;
	}
	return false;
}

/* On each socket, so that the other end does not see one of them end before it knows. */
static void tell_of_end(struct vb_conn *c, const char *why)
{
	if (!c)
		return;
	(void)snprintf((char *)c->mine.gids, sizeof(c->mine.gids), "%s", why);
	c->mine.magic = MAGIC;
	c->mine.version = VERSION;
	c->mine.attempt = VB_GIVE_UP;
	(void)tell(c);
}

static void end_pair(struct vb_conn *c, const char *why)
{
	struct msg_peer *p = c->base.peer;

	refuse(vb_ep_of(c), p->id, why);
	tt_vb_conn_lost(c, tuttiUnsupported, why);
}

/* The pairs in the order that both ends see; the other end's port is in c->theirs. */
static int pairs_with(const struct vb_conn *c, struct tt_gid_pair *pairs)
{
	return tt_gid_pairs(c->mine.gids, c->mine.ngids, c->theirs.gids, c->theirs.ngids,
			    c->mine.host == c->theirs.host, pairs, MAX_PAIRS);
}

/* Where a set-up ended, and after what. */
static void say_end(const struct vb_conn *c, const char *what, char *out, size_t n)
{
	char tried[200] = "", where[160] = "all devices", mine[64], ip[64];
	struct tt_gid_pair pairs[MAX_PAIRS];

	if (c->port)
		tt_vb_port_text(c->port->port, where, sizeof(where));
	if (c->state == VB_TRYING && vb_by_cm(c->port))
		(void)snprintf(tried, sizeof(tried), ", rdma_cm tried %u times", c->dials + 1);
	else if (c->state == VB_TRYING)
		(void)snprintf(tried, sizeof(tried), ", pair of GIDs %d of %d, %s to %s", c->mine.attempt + 1,
			       pairs_with(c, pairs), tt_gid_text(c->pair.a.raw, mine, sizeof(mine)),
			       tt_gid_text(c->pair.b.raw, ip, sizeof(ip)));
	(void)snprintf(out, n, "at %s, %s%s: %s", tt_vb_conn_peer(c, ip, sizeof(ip)), where, tried, what);
}

/* Not of one conn, but of this peer. */
static void give_up(struct vb_conn *c, const char *what)
{
	struct msg_peer *p = c->base.peer;
	char why[TT_TEXT / 2];

	if (c->base.lost)
		return;
	say_end(c, what, why, sizeof(why));
	if (is_agreed(p)) {
		tt_vb_conn_lost(c, tuttiRemoteError, why);
		return;
	}
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		tell_of_end((struct vb_conn *)p->out[i], why);
		tell_of_end((struct vb_conn *)p->in[i], why);
	}
	end_pair(c, why);
}

/* ---- no way by one of several conns ---- */

/* It stays in its place until the peer ends, and takes part in nothing. */
static void drop(struct vb_conn *c)
{
	c->base.lost = true;
	tt_vb_cm_drop(c);
	tt_vb_conn_end_qp(c);
	(void)epoll_ctl(vb_ep_of(c)->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	close(c->fd);
	c->fd = -1;
}

static bool has_other(const struct vb_conn *c, struct msg_conn *const *conns)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++)
		if (conns[i] && conns[i] != &c->base && !conns[i]->lost)
			return true;
	return false;
}

static bool has_asked(const struct msg_peer *p)
{
	for (int i = 0; i < MSG_CONNS_MAX; i++)
		if (p->out[i] && ((const struct vb_conn *)p->out[i])->state >= VB_ASKED)
			return true;
	return false;
}

static void ask_if_tried(struct msg_peer *p);

/* The dialler's: it goes on without this one if it has another, and has not yet said which it will use. */
static void leave_out(struct vb_conn *c, const char *what)
{
	struct msg_peer *p = c->base.peer;
	char why[TT_TEXT / 2], where[160];

	if (c->base.lost)
		return;
	if (!has_other(c, p->out) || has_asked(p)) {
		give_up(c, what);
		return;
	}
	say_end(c, what, why, sizeof(why));
	tt_log(TT_LOG_WARN, "verbs", "no way by %s to process %016llx at %s, others are tried or work: %s",
	       tt_vb_port_text(c->port->port, where, sizeof(where)), (unsigned long long)p->id, p->where,
	       why);
	drop(c);
	ask_if_tried(p);
}

/* A socket has ended: the dialler has left its conn out, or the last of them says that the process is gone. */
static void left_alone(struct vb_conn *c, int err)
{
	struct msg_peer *p = c->base.peer;

	if (c->state != VB_READY && !c->base.outgoing && (has_other(c, p->in) || has_other(c, p->out))) {
		drop(c);
	} else {
		tt_msg_peer_closing(p, err, NULL);
		c->base.lost = true;
	}
}

/* It is late, and another one has been ready to go for long enough. */
static bool is_overtaken(const struct vb_conn *c)
{
	const struct msg_peer *p = c->base.peer;

	for (int i = 0; i < p->nout; i++) {
		const struct vb_conn *v = (const struct vb_conn *)p->out[i];

		if (v && v->state == VB_TRIED && !v->base.lost && tt_now_ns() - v->tried_ns > LATE_NS)
			return true;
	}
	return false;
}

static const char *no_reach(const struct vb_conn *c, char *out, size_t n)
{
	int index = vb_ep_of(c)->conf.gid_index;
	char forced[48] = "";

	if (index >= 0)
		(void)snprintf(forced, sizeof(forced), " (TUTTI_IB_GID_INDEX=%d here)", index);
	(void)snprintf(out, n, "no port or GID here reaches one of the other end's%s; compare what "
		       "tutti-info --check-rdma says at both ends", forced);
	return out;
}

/* ---- the queue pair's states ---- */

/* The process itself, whose devices may read back what they have written. */
static bool is_self(const struct vb_conn *c)
{
	return c->base.peer->id == c->base.peer->ep->config.self;
}

static bool to_init(struct vb_conn *c)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .pkey_index = c->port->port->pkey_index,
				 .port_num = (uint8_t)c->port->port->num,
				 .qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE };

	if (is_self(c))
		a.qp_access_flags |= IBV_ACCESS_REMOTE_READ;

	return !vb_ep_of(c)->vb->modify_qp(c->qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
							      IBV_QP_ACCESS_FLAGS);
}

static void address(const struct vb_conn *c, const struct tt_gid_pair *pair, struct ibv_ah_attr *ah)
{
	const struct tt_vb_conf *conf = &vb_ep_of(c)->conf;

	*ah = (struct ibv_ah_attr){ .dlid = c->theirs.lid, .sl = (uint8_t)conf->sl,
				    .port_num = (uint8_t)c->port->port->num };
	if (c->port->port->wire == TT_VB_IB && !pair)
		return;
	ah->is_global = 1;
	memcpy(ah->grh.dgid.raw, pair->b.raw, 16);
	ah->grh.sgid_index = (uint8_t)pair->a.index;
	ah->grh.hop_limit = 64;
	ah->grh.traffic_class = (uint8_t)conf->tc;
}

static int smaller_mtu(const struct vb_conn *c)
{
	int mtu = tt_min(c->mine.mtu, c->theirs.mtu), bound = vb_ep_of(c)->conf.mtu;

	return tt_vb_mtu_code(bound && bound < mtu ? bound : mtu);
}

/* 0 or an errno. */
static uint8_t timeout_of(const struct vb_conn *c)
{
	return (uint8_t)tt_vb_timeout(&vb_ep_of(c)->conf, c->port->port->dev->pci[0] != 0);
}

static int to_rts(struct vb_conn *c, const struct tt_gid_pair *pair)
{
	const struct vb_ep *ep = vb_ep_of(c);
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RTR, .path_mtu = (enum ibv_mtu)smaller_mtu(c),
				 .dest_qp_num = c->theirs.qpn, .rq_psn = c->theirs.psn,
				 .max_dest_rd_atomic = 1, .min_rnr_timer = 12 };
	int err;

	c->pair = pair ? *pair : (struct tt_gid_pair){ 0 };
	address(c, pair, &a.ah_attr);
	err = ep->vb->modify_qp(c->qp, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
						   IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
						   IBV_QP_MIN_RNR_TIMER);
	if (err)
		return err;
	a = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = timeout_of(c),
				  .retry_cnt = (uint8_t)ep->conf.retry_cnt,
				  .rnr_retry = (uint8_t)ep->conf.retry_cnt, .sq_psn = c->mine.psn,
				  .max_rd_atomic = 1 };
	return ep->vb->modify_qp(c->qp, &a, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
						    IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
						    IBV_QP_MAX_QP_RD_ATOMIC);
}

static bool new_pair(struct vb_conn *c)
{
	return tt_vb_conn_qp(c) == tuttiSuccess && to_init(c) && tt_vb_conn_fill(c);
}

/* ---- the dialler ---- */

static void try_next(struct vb_conn *c, uint8_t attempt)
{
	if (!vb_by_cm(c->port) && !new_pair(c)) {
		leave_out(c, "no queue pair");
		return;
	}
	fill_hello(c, attempt);
	c->state = VB_DIALLING;
	if (!tell(c))
		give_up(c, "the socket of the set-up takes nothing");
}

/* Round and round: a driver may wait for no more than 40 ms until a busy peer accepts. */
static bool dial_again(struct vb_conn *c)
{
	uint64_t now = tt_now_ns();

	while (c->theirs.naddrs && now - c->first_ns < CM_NS) {
		c->tried_ns = now;
		if (tt_vb_cm_dial(c, ++c->dials % c->theirs.naddrs))
			return true;
		now = tt_now_ns();
	}
	return false;
}

void tt_vb_setup_failed(struct vb_conn *c, const char *why)
{
	struct tt_gid_pair pairs[MAX_PAIRS];
	int n = pairs_with(c, pairs);

	if (!c->base.outgoing)
		return; /* the dialler sees it as well, and tries on */
	/* That iWARP took the first frame says only that TCP did. */
	if (vb_by_cm(c->port) && (c->state == VB_TRYING || (c->state == VB_TRIED && !has_asked(c->base.peer)))) {
		c->state = VB_TRYING;
		if (dial_again(c))
			return;
	} else if (c->state == VB_TRYING && c->mine.attempt + 1 < n) {
		try_next(c, (uint8_t)(c->mine.attempt + 1));
		return;
	}
	leave_out(c, why);
}

static void answered(struct vb_conn *c)
{
	struct tt_gid_pair pairs[MAX_PAIRS];
	bool ib = c->port->port->wire == TT_VB_IB;
	char why[256];
	int n, err;

	c->theirs = c->heard;
	n = vb_by_cm(c->port) ? c->theirs.naddrs : pairs_with(c, pairs);
	if (c->theirs.wire != c->mine.wire || (!ib && c->mine.attempt >= n)) {
		leave_out(c, no_reach(c, why, sizeof(why)));
		return;
	}
	c->theirs_posted = c->theirs.slots;
	c->state = VB_TRYING;
	c->tried_ns = c->first_ns = tt_now_ns();
	if (vb_by_cm(c->port)) {
		if (!tt_vb_cm_dial(c, 0))
			tt_vb_setup_failed(c, "rdma_cm does not resolve the other end's address");
		return;
	}
	err = to_rts(c, c->mine.attempt < n ? &pairs[c->mine.attempt] : NULL);
	if (err)
		tt_vb_setup_failed(c, tt_vb_errno("ibv_modify_qp", err, why, sizeof(why)));
	else
		(void)tt_vb_conn_probe(c);
}

/* ---- the other end ---- */

/* How good the way from this conn's port to theirs looks; 0: none. */
static int nearness(const struct vb_conn *c)
{
	struct tt_gid_pair pairs[MAX_PAIRS];
	int near = 1;

	if (c->mine.wire != c->theirs.wire)
		return 0;
	if (c->mine.wire == TT_VB_IWARP) {
		for (int i = 0; i < c->mine.naddrs * c->theirs.naddrs; i++)
			if (tt_addr_near(&c->mine.addrs[i / c->theirs.naddrs].addr,
					 &c->theirs.addrs[i % c->theirs.naddrs].addr))
				near = 2;
		return near;
	}
	if (pairs_with(c, pairs) > 0)
		return 2 + tt_gid_nearness(&pairs[0], c->mine.host == c->theirs.host);
	return c->mine.wire == TT_VB_IB;
}

/* The nearest of our ports; of equals the first from the index on. */
static bool choose_port(struct vb_conn *c)
{
	struct vb_ep *ep = vb_ep_of(c);
	struct vb_port *chosen = NULL;
	int best = 0;

	for (int k = 0; k < ep->nports; k++) {
		int near;

		c->port = &ep->port[(c->base.index + k) % ep->nports];
		fill_hello(c, c->theirs.attempt);
		near = c->port->port->usable && !(is_self(c) && c->mine.port != c->theirs.port) ? nearness(c) : 0;
		if (near > best) {
			best = near;
			chosen = c->port;
		}
	}
	c->port = chosen;
	if (chosen)
		fill_hello(c, c->theirs.attempt);
	return chosen;
}

/* The dialler decides what follows. */
static void say_no(struct vb_conn *c, const char *why)
{
	c->mine = (struct vb_hello){ .magic = MAGIC, .version = VERSION, .attempt = VB_NOT_BY_THIS };
	(void)snprintf((char *)c->mine.gids, sizeof(c->mine.gids), "%s", why);
	if (!tell(c))
		give_up(c, "the socket of the set-up takes nothing");
}

static void asked(struct vb_conn *c)
{
	struct tt_gid_pair pairs[MAX_PAIRS];
	char why[200];
	int n;

	c->theirs = c->heard;
	if (tt_vb_refuses(vb_ep_of(c), c->base.peer->id)) {
		give_up(c, "another way was agreed on before");
		return;
	}
	if (!c->mem && !choose_port(c)) {
		say_no(c, no_reach(c, why, sizeof(why)));
		return;
	}
	if (!c->mem && !tt_vb_conn_attach(c)) {
		say_no(c, "no memory for its buffers: see ulimit -l");
		return;
	}
	c->state = VB_TRYING;
	if (vb_by_cm(c->port)) {
		fill_hello(c, c->theirs.attempt);
		if (!tell(c))
			give_up(c, "the socket of the set-up takes nothing");
		return;
	}
	if (!new_pair(c)) {
		say_no(c, "no queue pair");
		return;
	}
	fill_hello(c, c->theirs.attempt);
	n = pairs_with(c, pairs);
	/* A pair that cannot be connected here fails at the dialler, which sends into nothing. */
	(void)to_rts(c, c->theirs.attempt < n ? &pairs[c->theirs.attempt] : NULL);
	if (!tell(c))
		give_up(c, "the socket of the set-up takes nothing");
}

/* ---- both ---- */

static void ready(struct vb_conn *c)
{
	char where[160];

	c->state = VB_READY;
	c->base.peer->ep->owe_retry = true;
	c->base.peer->ep->moved++;
	tt_log(TT_LOG_DEBUG, "verbs", "connected with process %016llx by %s", (unsigned long long)c->base.peer->id,
	       tt_vb_port_text(c->port->port, where, sizeof(where)));
}

/* Asks on the first conn that works when all have been tried. */
static void ask_if_tried(struct msg_peer *p)
{
	struct vb_conn *first = NULL;
	uint8_t works = 0;

	for (int i = 0; i < p->nout; i++) {
		struct vb_conn *v = (struct vb_conn *)p->out[i];

		if (!v || (!v->base.lost && v->state != VB_TRIED))
			return;
		if (v->base.lost)
			continue;
		works |= (uint8_t)(1u << v->base.index);
		first = first ? first : v;
	}
	if (!first)
		return;
	first->mine.attempt = VB_AGREE;
	first->mine.works = works;
	first->state = VB_ASKED;
	if (!tell(first))
		give_up(first, "the socket of the set-up takes nothing");
}

void tt_vb_setup_done(struct vb_conn *c)
{
	c->state = VB_TRIED;
	c->tried_ns = tt_now_ns();
	c->base.peer->ep->moved++;
	if (c->base.outgoing)
		ask_if_tried(c->base.peer);
}

static void swap(struct msg_conn **a, struct msg_conn **b)
{
	struct msg_conn *t = *a;

	*a = *b;
	*b = t;
}

/* Messages go by out[0] to [nout - 1], answers by in[0]. */
static void put_ready_first(struct msg_peer *p, bool outgoing)
{
	int n = 0;

	for (int i = 0; i < MSG_CONNS_MAX; i++)
		if (outgoing && p->out[i] && !p->out[i]->lost)
			swap(&p->out[n++], &p->out[i]);
	if (outgoing)
		p->nout = n;
	for (int i = 1; i < MSG_CONNS_MAX && !outgoing && (!p->in[0] || p->in[0]->lost); i++)
		if (p->in[i] && !p->in[i]->lost)
			swap(&p->in[0], &p->in[i]);
}

/* Yes: with the dialler's conns to it, with the answerer's from it. */
static void agreed(struct vb_conn *c)
{
	struct msg_peer *p = c->base.peer;
	struct msg_conn **conns = c->base.outgoing ? p->out : p->in;
	uint8_t works = c->base.outgoing ? 0xff : c->heard.works;

	if (!c->base.outgoing) {
		c->mine.attempt = VB_AGREE;
		if (!tell(c)) {
			give_up(c, "the socket of the set-up takes nothing");
			return;
		}
	}
	for (int i = 0; i < MSG_CONNS_MAX; i++) {
		struct vb_conn *v = (struct vb_conn *)conns[i];

		if (v && !v->base.lost && v->state >= VB_TRYING && works >> i & 1)
			ready(v);
		else if (v && !v->base.lost)
			drop(v);
	}
	put_ready_first(p, c->base.outgoing);
}

void tt_vb_setup_say_lost(struct vb_conn *c, const char *why)
{
	c->mine.attempt = VB_LAST;
	(void)snprintf((char *)c->mine.gids, sizeof(c->mine.gids), "%s", why);
	(void)tell(c);
}

/* In place of GIDs. */
static const char *its_words(struct vb_conn *c)
{
	char *words = (char *)c->heard.gids;

	words[sizeof(c->heard.gids) - 1] = 0;
	return words;
}

/* The other end's words say more than the end of its socket, which follows. */
static void hear_lost(struct vb_conn *c)
{
	struct tt_vb_word word = { "the other end lost it", its_words(c), "see the state of the port here" };
	char why[TT_TEXT / 2];

	if (c->heard.magic == MAGIC && c->heard.attempt == VB_LAST) {
		tt_vb_port_look(c->port->port);
		if (!c->port->port->usable) { /* which says more than what came of it there */
			tt_vb_conn_failed(c, &word);
			return;
		}
		(void)snprintf(why, sizeof(why), "the other end lost it: %.*s", (int)sizeof(why) - 32, its_words(c));
	} else {
		(void)snprintf(why, sizeof(why), "the other end goes on with a set-up that is over");
	}
	c->base.lost = true;
	tt_msg_peer_break(c->base.peer, tuttiRemoteError, "%s", why);
}

static void heard(struct vb_conn *c)
{
	char why[TT_TEXT / 2], where[160];

	if (c->state == VB_READY) {
		hear_lost(c);
	} else if (c->heard.magic == MAGIC && c->heard.attempt == VB_GIVE_UP) {
		(void)snprintf(why, sizeof(why), "%s%sthe other end found no way here: %.*s",
			       c->port ? tt_vb_port_text(c->port->port, where, sizeof(where)) : "", c->port ? ": " : "",
			       (int)sizeof(why) - 200, its_words(c));
		end_pair(c, why);
	} else if (c->heard.magic == MAGIC && c->heard.attempt == VB_NOT_BY_THIS) {
		if (c->base.outgoing && c->state < VB_TRIED)
			leave_out(c, its_words(c));
	} else if (!is_sound(c)) {
		give_up(c, "the other end speaks another version of the set-up");
	} else if (c->heard.attempt == VB_AGREE) {
		if (c->state == (c->base.outgoing ? VB_ASKED : VB_TRYING) || c->state == VB_TRIED)
			agreed(c);
	} else if (c->base.outgoing && c->state == VB_DIALLING && c->heard.attempt == c->mine.attempt) {
		answered(c);
	} else if (!c->base.outgoing) {
		asked(c);
	}
}

void tt_vb_setup_step(struct vb_conn *c)
{
	if (c->base.lost || c->base.peer->broken)
		return;
	if (hear(c))
		heard(c);
	if (c->state == VB_TRYING && c->base.outgoing && !c->base.lost && tt_now_ns() - c->tried_ns > TRY_NS)
		tt_vb_setup_failed(c, "the device said nothing of a frame for 5 s");
	else if (c->state < VB_TRIED && c->base.outgoing && !c->base.lost && is_overtaken(c))
		leave_out(c, "no frame came through while others did");
}

static bool watch(struct vb_conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int flags = fcntl(c->fd, F_GETFL);

	vb_ep_of(c)->coming = true;
	return fcntl(c->fd, F_SETFL, flags | O_NONBLOCK) != -1 &&
	       !epoll_ctl(vb_ep_of(c)->epoll, EPOLL_CTL_ADD, c->fd, &ev);
}

struct msg_conn *tt_vb_arrive(struct msg_peer *p, int index, int fd)
{
	struct vb_conn *c = tt_vb_conn_new(p, NULL, fd);

	if (!c)
		return NULL;
	tt_msg_conn_join(&c->base, p, index, false);
	if (!watch(c))
		c->base.lost = true;
	return &c->base;
}

struct vb_conn *tt_vb_dial_by(struct msg_peer *p, int index, struct vb_port *port, int fd)
{
	struct vb_conn *c;

	tt_msg_peer_say_where(p, fd);
	c = tt_vb_conn_new(p, port, fd);
	if (!c) {
		close(fd);
		return NULL;
	}
	p->out[index] = &c->base;
	tt_msg_conn_join(&c->base, p, index, true);
	if (watch(c))
		try_next(c, 0);
	return c;
}

static tuttiResult_t dial_one(struct msg_peer *p, int index, struct vb_port *port)
{
	const struct vb_ep *ep = (const struct vb_ep *)p->ep;
	int fd;

	TRY(ep->base.config.dial(ep->base.config.ctx, p->id, "verbs", index, &fd));
	if (tt_vb_dial_by(p, index, port, fd))
		return tuttiSuccess;
	return tt_fail(tuttiSystemError, "verbs: no memory for a connection to process %016llx at %s; see ulimit -l",
		       (unsigned long long)p->id, p->where);
}

/* Those that work now. */
static int live_ports(struct vb_ep *ep, struct vb_port **out)
{
	int n = 0;

	tt_vb_events_take(ep);
	for (int i = 0; i < ep->nports; i++)
		if (ep->port[i].port->usable)
			out[n++] = &ep->port[i];
	return n;
}

/* The core goes to another transport if nothing has been agreed on, so the other end must hear the same. */
static tuttiResult_t no_port(struct msg_peer *p)
{
	const struct vb_ep *ep = (const struct vb_ep *)p->ep;
	const struct tt_vb_port *port = ep->port[0].port;
	char why[TT_TEXT / 2], where[160];

	(void)snprintf(why, sizeof(why), "%s: %s", tt_vb_port_text(port, where, sizeof(where)), port->why);
	if (is_agreed(p))
		return tt_fail(tuttiSystemError, "verbs: %s", why);
	refuse((struct vb_ep *)p->ep, p->id, why);
	return tt_note_error(tuttiUnsupported, "%s", why);
}

tuttiResult_t tt_vb_dial(struct msg_peer *p)
{
	struct vb_ep *ep = (struct vb_ep *)p->ep;
	struct vb_port *live[VB_PORTS];
	int n = live_ports(ep, live), want = tt_min(n * ep->conf.qps, MSG_CONNS_MAX);

	if (!n)
		return no_port(p);
	for (p->nout = 0; p->nout < want && !p->broken; p->nout++) {
		tuttiResult_t r = dial_one(p, p->nout, live[p->nout % n]);

		if (r != tuttiSuccess)
			return p->nout ? tuttiSuccess : r;
	}
	return tuttiSuccess;
}

#else
typedef int tt_verbs_setup_is_empty;
#endif
