/* Floor 2: rendezvous and liveness. One *node* per process: one listening TCP port on chosen addresses, one
 * abstract unix socket, one watcher thread, one authenticated control connection per peer process that is
 * needed. Ranks and communicators are not known here but as opaque bytes. */
#ifndef TT_BOOT_H
#define TT_BOOT_H

#include "sock.h"

#define TT_MAX_ADDRS 12

/* What a process tells the others. Fixed layout, little endian, sent as it is. */
struct tt_proc {
	uint64_t id;            /* random, of this process */
	uint32_t version;       /* of the wire */
	uint32_t pid;
	uint8_t boot_id[16];    /* of its host: equal where unix sockets reach */
	char host[64];
	uint16_t port, naddrs;
	uint32_t transports;    /* that work in it: bits, in the order of the registry */
	struct tt_addr addrs[TT_MAX_ADDRS];
};

/* What is called from the watcher thread, never with a lock of boot held; must not block. */
struct tt_node_events {
	/* A process is gone: died without goodbye (dead), or left. `why`: words for a message. */
	void (*gone)(void *ctx, uint64_t proc, bool dead, const char *why);
	/* A control message of type >= 64 from `proc`. */
	void (*message)(void *ctx, uint64_t proc, uint32_t type, const void *p, size_t n);
	/* A data connection for `transport` arrived, authenticated. Takes fd. */
	void (*accept)(void *ctx, uint64_t proc, const char *transport, int index, int fd);
	void *ctx;
};

/* The node is counted: first get starts it, last put ends its watcher and listeners. */
tuttiResult_t tt_node_get(const struct tt_node_events *events);
void tt_node_put(void);
const struct tt_proc *tt_node_self(void);
const char *tt_node_interface(void); /* that all its addresses are of; "": several */
void tt_node_offer(uint32_t transports); /* before any peer hears of this process */
void tt_node_exit(uint64_t ns);         /* the same from exit(), whoever holds the node */
void tt_node_linger(uint64_t ns);       /* says goodbye on all connections and flushes; bounded */

/* Secrets by which connections are proved (HMAC-SHA256, both ways); `job` names the secret. */
tuttiResult_t tt_node_secret_add(uint64_t job, const uint8_t secret[32]);
void tt_node_secret_drop(uint64_t job);

/* Makes sure that there is a control connection with `peer`, proved by `job`: unix where the boot ids are
 * equal and it answers, else each pair of addresses in turn. *local: by unix. Blocks until deadline_ns
 * (absolute). Errors: Timeout or SystemError with every pair tried and why; PeerDead. */
tuttiResult_t tt_node_meet(const struct tt_proc *peer, uint64_t job, uint64_t deadline_ns, bool *local);
/* The same from both ends in init; the one that does not open waits a while for the other's connection first. Who has
 * met all his neighbours may leave: none looks for him in vain, and to have been here and left is success. */
tuttiResult_t tt_node_neighbour(const struct tt_proc *peer, uint64_t job, bool open, uint64_t deadline_ns);
/* A control message to a met process; kept in order; does not block (queued for the watcher). */
tuttiResult_t tt_node_send(uint64_t proc, uint32_t type, const void *p, size_t n);
/* A data connection to a met process: arrives at events.accept there. */
tuttiResult_t tt_node_dial(uint64_t proc, const char *transport, int index, uint64_t deadline_ns, int *fd);
/* What this thread connects by meet, neighbour and dial it gives up, with Aborted, when that is true. NULL: never. */
void tt_node_until(const _Atomic bool *stop);
bool tt_node_alive(uint64_t proc, char *why, size_t n); /* false: gone, with words */

/* ---- rendezvous: a root gathers one entry per rank and answers all with one table. ----
 * The root is part of the node of the process that opened it. 2n messages at the root, 2 at a rank. */
#define TT_ROOT_MAGIC 0x746f6f73u
struct tt_root_id {            /* the content of a tuttiUniqueId, 128 bytes */
	uint32_t magic;
	uint16_t port;
	uint8_t ports;             /* tried from `port` on; 0: not a launcher's */
	uint8_t used;              /* bytes of addrs */
	uint64_t job;              /* names the secret */
	uint8_t secret[32];
	uint8_t addrs[80];         /* packed by tt_id_put, best first: 16 of IPv4, or 4 of IPv6 and 2 of IPv4 */
};
/* `finish` runs on the watcher when all have joined: makes from the n entries the blob that all get with the
 * table (malloc'ed; freed by boot). It may refuse: every rank then gets that error text. */
typedef tuttiResult_t (*tt_root_finish)(const void *const *entries, const size_t *sizes, int n,
					void **blob, size_t *blob_size);
tuttiResult_t tt_root_open(struct tt_root_id *id, tt_root_finish finish);
/* A root at a fixed secret and port range (launchers): port 0 any; tries port .. port+15 when `scan`. */
tuttiResult_t tt_root_open_at(struct tt_root_id *id, const char *addr, uint16_t port, bool scan,
			      tt_root_finish finish);
/* What a joiner needs to find such a root: addresses of `addr` (literal or name), port, scan. Keeps job and
 * secret of *id, which the caller sets. tt_root_open_at does the same for the root. */
tuttiResult_t tt_root_id_set(struct tt_root_id *id, const char *addr, uint16_t port, bool scan);
/* Whether the rendezvous that this process opened is over (or is not known here). */
bool tt_root_over(const struct tt_root_id *id);
struct tt_table {
	int n;
	void *base;              /* one allocation: free with tt_table_free */
	const void **entries;    /* by rank */
	size_t *sizes;
	const void *blob;
	size_t blob_size;
};
/* Joins as `rank` of `n`; blocks until the table is there. On a deadline at the root every rank that joined
 * gets Timeout with "5 of 8 joined, missing 2,6,7". *stop (may be NULL) ends it early with Aborted. */
tuttiResult_t tt_root_join(const struct tt_root_id *id, int rank, int n, const void *entry, size_t size,
			   uint64_t deadline_ns, const _Atomic bool *stop, struct tt_table *out);
void tt_table_free(struct tt_table *t);
/* Counts for tests: control messages sent and received by this process since start. */
void tt_node_counts(uint64_t *sent, uint64_t *received);

#endif
