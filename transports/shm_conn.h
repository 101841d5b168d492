/* Endpoint and connections of the shm transport: who is there, and how to wake it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_SHM_CONN_H
#define TT_SHM_CONN_H

#include "shm_ring.h"

/* Both directions between this process and one other. `out` is there once we have dialled, `in` once
 * the other has. Eventfds: out_bell wakes the receiver of `out`, in_bell the sender of `in`, in_wake is
 * what that sender rings to wake us. All three travel with the memfd in the dialler's one message, so
 * that a sender has its bell from its first byte on. */
struct shm_conn {
	struct shm_conn *next;
	uint64_t peer;
	bool gone;            /* nothing new comes from there */
	const char *why_gone;
	struct shm_region out, in;
	struct shm_pool pool;
	struct shm_meter meter[2]; /* of reading `in`, by store policy */
	int out_bell, in_bell, in_wake;
	int sock;             /* its message is still to come */
	struct shm_tx *zombies;
};

struct shm_arrival {
	struct shm_arrival *next;
	uint64_t peer;
	int fd;
};

struct shm_link;
struct shm_ep {
	bool open;
	struct tt_ep_config config;
	int efd, epfd;             /* own bell; what wait_fd gives: own bell, in_wakes, sockets */
	struct shm_conn *conns;
	struct shm_link *links, *active; /* all; those with posts pending */
	_Atomic(struct shm_arrival *) arrivals;
	uint32_t nsocks, polls;
	bool check;                /* slept: look at the sockets at once */
};

tuttiResult_t tt_shm_ep_open(struct shm_ep *ep, const struct tt_ep_config *config);
void tt_shm_ep_close(struct shm_ep *ep);
/* The connection to `peer`, made where there is none; NULL: no memory. */
struct shm_conn *tt_shm_conn_get(struct shm_ep *ep, uint64_t peer);
tuttiResult_t tt_shm_conn_dial(struct shm_ep *ep, struct shm_conn *c);
/* Takes in what has arrived; cheap where nothing can have. */
void tt_shm_take_in(struct shm_ep *ep);
static inline void tt_shm_conn_poll(struct shm_ep *ep)
{
	if (atomic_load_explicit(&ep->arrivals, memory_order_relaxed) != NULL || ep->nsocks != 0)
		tt_shm_take_in(ep);
}
void tt_shm_arrive(struct shm_ep *ep, uint64_t peer, int fd);
size_t tt_shm_ep_memory(const struct shm_ep *ep);

struct shm_tx *tt_shm_tx_open(struct shm_conn *c, uint64_t key); /* NULL: no room */
void tt_shm_tx_close(struct shm_conn *c, struct shm_tx *tx);

/* Called after something was stored that the other side may be waiting for. */
void tt_shm_ring(_Atomic uint32_t *asleep, int bell);
static inline void tt_shm_sent(struct shm_conn *c)
{
	if (atomic_load_explicit(&c->out.head->rx_asleep, memory_order_seq_cst))
		tt_shm_ring(&c->out.head->rx_asleep, c->out_bell);
}
static inline void tt_shm_given_back(struct shm_conn *c)
{
	if (atomic_load_explicit(&c->in.head->tx_asleep, memory_order_seq_cst))
		tt_shm_ring(&c->in.head->tx_asleep, c->in_bell);
}

#endif
