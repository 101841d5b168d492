/* The device of a rank, and its links to the devices of other ranks of the host. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"
#include "exec_dev.h"

#include <string.h>
#include <unistd.h>

#define ASK_NS 1000000000ull

/* The device that config.device names, or that of the thread that calls init, is the communicator's. Parts have that
 * of the whole. */
void tt_comm_find_device(struct tuttiComm *c, const struct tuttiComm *parent)
{
	const struct tt_mem_kind *k = tt_env_int("DEVICE_LINKS") && !parent ? tt_mem_at(c->bound) : NULL;
	tuttiResult_t r;

	if (parent) {
		c->home = parent->home;
		return;
	}
	if (!k || !k->here || !k->sharing) {
		if (tt_env_int("DEVICE_LINKS"))
			tt_log(TT_LOG_INFO, "device", "no device links: config.device names no device, and the thread "
			       "that calls init works on none");
		return;
	}
	r = k->here(c->bound, &c->home.where);
	if (r == tuttiSuccess)
		r = k->enter(c->home.where);
	if (r == tuttiSuccess) {
		r = k->sharing->device(&c->home.self);
		k->leave();
	}
	c->home.self.present = r == tuttiSuccess;
	c->home.kind = k;
	if (r != tuttiSuccess)
		tt_log(TT_LOG_WARN, "device", "no device links: %s", tt_last_error());
}

static bool is_near(const struct tuttiComm *c, int rank)
{
	return c->devices[rank].present &&
	       tt_same_host(&c->procs[c->proc_of[rank]], &c->procs[c->proc_of[c->rank]]);
}

/* Ranks of one process on one device have better ways. */
static bool is_apart(const struct tt_peer_member *a, const struct tt_peer_member *b)
{
	return a->proc != b->proc || memcmp(a->device.uuid, b->device.uuid, sizeof(a->device.uuid));
}

/* Blocks of each wait for those of all others: on a device each, and not where processes take turns on one. */
static const char *no_blocks(const struct tt_peers_config *g, int nranks)
{
	if (g->n < nranks)
		return "some ranks are on another host or have no device";
	for (int i = 0; i < g->n; i++) {
		if (g->members[i].device.blocks < TT_PEER_PIPES)
			return "a rank's build or driver has no kernel for them";
		for (int k = 0; k < i; k++)
			if (!memcmp(g->members[i].device.uuid, g->members[k].device.uuid, 16))
				return "ranks share a device";
	}
	return NULL;
}

/* The same on all ranks. */
static bool want_blocks(const struct tuttiComm *c, const struct tt_peers_config *g)
{
	const char *why = tt_env_int("CUDA_DEVICE_DRIVEN") ? no_blocks(g, c->nranks) : "";

	if (why && *why && c->rank == 0)
		tt_log(TT_LOG_INFO, "device", "TUTTI_CUDA_DEVICE_DRIVEN: no blocks between devices, %s", why);
	return !why;
}

/* False: nobody to have such links with. All of the group say the same. */
static bool gather(const struct tuttiComm *c, struct tt_peers_config *g, struct tt_peer_member *m)
{
	bool apart = false;

	for (int i = 0; i < c->nranks; i++) {
		if (!is_near(c, i))
			continue;
		if (g->n == TT_PEERS_MAX)
			return false;
		if (i == c->rank)
			g->me = g->n;
		m[g->n] = (struct tt_peer_member){ i, c->procs[c->proc_of[i]].id, c->devices[i] };
		apart |= is_apart(&m[0], &m[g->n++]);
	}
	return apart;
}

tuttiResult_t tt_comm_open_peers(struct tuttiComm *c)
{
	struct tt_peer_member members[TT_PEERS_MAX];
	struct tt_peers_config g = { .kind = c->home.kind, .where = c->home.where, .id = c->id, .secret = c->secret,
				     .members = members, .stop = &c->aborting };

	if (!c->home.self.present || c->nranks < 2 || !gather(c, &g, members))
		return tuttiSuccess;
	g.blocks = want_blocks(c, &g);
	g.message = tt_max((size_t)tt_env_int("WINDOW"), TT_P2P_WINDOW);
	g.deadline_ns = tt_now_ns() + (uint64_t)(1e9 * c->init_deadline);
	return tt_peers_open(&g, &c->peers);
}

/* What is reduced by functions of the host, or where a device has no kernels, goes by the network on all ranks. */
bool tt_comm_may_peer(const struct tt_task *t)
{
	const struct tt_peers *p = t->comm->peers;

	return p && t->op.kind != TT_OP_USER && (t->opcode < 0 || tt_peers_reduce(p, t->type));
}

struct tt_peers *tt_comm_peers(const struct tt_task *t, const struct tt_row *row, const struct tt_sched *s)
{
	size_t largest = s->one_window ? t->count * tt_type_size(t->type) * (size_t)t->comm->nranks : row->window;

	return tt_comm_may_peer(t) && largest <= tt_peers_message(t->comm->peers) ? t->comm->peers : NULL;
}

static bool is_told(const struct tt_task *t)
{
	return t->q && !t->hosted && t->comm->peers;
}

/* Of a message; NULL: by the network, where it says itself what it is. */
static struct tt_peer_dir *dir_of(const struct tt_task *t)
{
	return t->coll == TT_SENDRECV ? tt_peers_dir(t->comm->peers, t->root, TT_P2P_LANE, t->is_send) : NULL;
}

void tt_comm_tell_peers(const struct tt_task *t)
{
	struct tt_peer_dir *d = is_told(t) ? dir_of(t) : NULL;

	if (d)
		tt_peer_note(d, t->sig.seq, tt_sig_hash(&t->sig));
	else if (is_told(t) && t->coll != TT_SENDRECV)
		tt_peers_note(t->comm->peers, t->sig.seq, tt_sig_hash(&t->sig));
}

/* It was an earlier one, unless the other's word of this one differs. */
static tuttiResult_t differing_message(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	int from = t->is_send ? c->rank : t->root, to = t->is_send ? t->root : c->rank;

	if (tt_comm_differs(c, t->root, &t->sig, ASK_NS))
		return tt_comm_error(c);
	return tt_comm_fail(c, false, tuttiMismatch, "the Sends of rank %d to rank %d, by a device link, and its Recvs "
			    "differ in count or type, before the %u-th; give each pair the same", from, to,
			    t->sig.seq);
}

tuttiResult_t tt_comm_meant_alike(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	struct tt_peer_dir *d = is_told(t) ? dir_of(t) : NULL;
	int other = -1;

	if (d)
		return tt_peer_differs(d, t->sig.seq) ? differing_message(t) : tuttiSuccess;
	if (is_told(t) && t->coll != TT_SENDRECV)
		other = tt_peers_differ(c->peers, t->sig.seq, tt_sig_hash(&t->sig));
	return other >= 0 && tt_comm_differs(c, other, &t->sig, ASK_NS) ? tt_comm_error(c) : tuttiSuccess;
}

static bool fits_blocks(const struct tt_sched *s)
{
	return s->nlanes <= TT_PEER_PIPES && tt_dev_can(s);
}

/* Schedules of a file may differ from rank to rank. */
bool tt_comm_drives(const struct tt_task *t, const struct tt_row *row, const struct tt_sched *s)
{
	const struct tuttiComm *c = t->comm;
	bool can = t->coll != TT_SENDRECV && tt_peers_drive(c->peers) && fits_blocks(s);

	for (int i = 0; can && row->algo >= TT_CUSTOM && i < c->nranks; i++)
		can = fits_blocks(tt_plan_set(&c->customs->file, row->algo, t->root)->ranks[i]);
	return can;
}

/* Who has failed tells the others at once, and why a little later. */
void tt_comm_hear_peers(struct tuttiComm *c, unsigned wait_ms)
{
	int who = c->peers ? tt_peers_failed(c->peers) : -1;

	for (unsigned i = 0; who >= 0 && i < wait_ms && !atomic_load_explicit(&c->error, memory_order_acquire); i++)
		usleep(1000);
	if (who >= 0 && !atomic_load_explicit(&c->error, memory_order_acquire))
		tt_comm_fail(c, false, tuttiRemoteError, "rank %d failed, which has a device link to rank %d; its own "
			     "error says why", who, c->rank);
}
