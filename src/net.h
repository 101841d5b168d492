/* Floor 3: the endpoints of this process and the lock of each. Links are opened on them by communicators;
 * one thread at a time, whoever gets the try-lock, drives an endpoint (rule T7). */
#ifndef TT_NET_H
#define TT_NET_H

#include "boot.h"
#include "mem.h"
#include "transport.h"

struct tt_ep {
	const struct tt_transport *t;
	void *priv;
	struct tt_caps caps;
	_Atomic int lock;
	_Atomic int sleepers; /* threads in poll(2) on its wait_fd */
	struct tt_mem_watcher watcher; /* where t->reg is there */
	struct tt_far_entry *far;      /* net_gdr.c's */
};

struct tt_link {
	struct tt_ep *ep;
	void *priv; /* NULL: closed */
	int peer;   /* rank */
	uint64_t proc, key;
	struct tt_ep *fell; /* the last that found no way; polled on, as the other end may have yet to learn it */
};

/* Counted: first get starts the node and its shared endpoints. `events` as tt_node_get's, less accept. */
tuttiResult_t tt_net_get(const struct tt_node_events *events);
void tt_net_put(void);
/* The shared endpoint by which another process is reached, NULL with the reasons in `why`: both must have it.
 * local: it is on this host, as the control connection proved. after: only what follows this one (NULL: all). */
struct tt_ep *tt_net_reach(const struct tt_proc *peer, bool local, const struct tt_ep *after, char *why, size_t n);
bool tt_net_enabled(const char *name); /* by TUTTI_TRANSPORTS */

/* An endpoint of one rank's own (ep_per_rank); `group`: that of its communicator. */
tuttiResult_t tt_ep_new(const struct tt_transport *t, uint64_t group, struct tt_ep **ep);
void tt_ep_free(struct tt_ep *ep);

static inline bool tt_ep_trylock(struct tt_ep *ep)
{
	return !atomic_load_explicit(&ep->lock, memory_order_relaxed) &&
	       !atomic_exchange_explicit(&ep->lock, 1, memory_order_acquire);
}
static inline void tt_ep_unlock(struct tt_ep *ep)
{
	atomic_store_explicit(&ep->lock, 0, memory_order_release);
}
void tt_ep_lock(struct tt_ep *ep); /* spins and yields: for opening and closing only */

/* Registers memory with one endpoint; how: TT_REG_*. NULL: of no use to it. Each takes the lock. */
void *tt_ep_reg(struct tt_ep *ep, void *p, size_t n, unsigned how);
void tt_ep_dereg(struct tt_ep *ep, void *handle);

/* ---- memory of devices that the NICs of an endpoint read and write themselves (net_gdr.c); for messages of more than
 * caps.eager bytes, on links that t->far says it of. Between the kind's enter and leave. ---- */
struct tt_far {
	bool recvs, sends; /* they may be placed there */
	bool wait_flushes; /* a queue waits for what has come by rdma->wait_flushed */
};
struct tt_far tt_far_look(const struct tt_mem_kind *kind, void *where, struct tt_ep *ep);
/* False, once and for all, where it fails; the handle is for tt_ep_dereg. */
bool tt_far_reg(const struct tt_mem_kind *kind, void *where, struct tt_ep *ep, void *p, size_t n, void **handle);
void tt_far_forget(struct tt_ep *ep); /* before it is freed */

tuttiResult_t tt_link_open(struct tt_link *link, struct tt_ep *ep); /* a closed one: peer, proc and key are set */
void tt_link_close(struct tt_link *link); /* NULL and closed allowed; takes the lock; keeps the struct */

/* Sleeps until one of the endpoints or `wake_fd` has something, or timeout. False: timed out. */
bool tt_net_sleep(struct tt_ep *const *eps, int n, int wake_fd, int timeout_ms);

#endif
