/* The contract between the core and what moves bytes. Read this first, then inproc.c, the reference.
 *
 * A transport has *endpoints* (one per process, or one per rank where `ep_per_rank`), and *links*. A link is
 * a pair of one-way FIFO pipes between two endpoints for one (communicator, pair of ranks, lane): the n-th
 * send on one end meets the n-th recv on the other. Both ends open it with the same 64-bit key, at any time
 * and in any order; what a sender posts before the other end has opened is kept within its credit.
 *
 * The rules, each with a conformance test of that number in tests/conformance:
 *  T1  n-th send meets n-th receive; unequal lengths fail the link on both sides.
 *  T2  no call blocks; AGAIN means that nothing changed. (link_open may block for a bounded dial.)
 *  T3  every accepted post completes exactly once, in order.
 *  T4  from post to completion the span is the transport's.
 *  T5  a receive completion means that the bytes are visible to the next user of that memory.
 *  T6  errors are sticky per link; other links live on.
 *  T7  calls on one endpoint and its links come from one thread at a time, not always the same (the core
 *      holds the endpoint's lock); endpoints share nothing unlocked. Only `accept` and `wake` come at any time.
 *  T8  close is safe after a failed open, after errors and with posts in flight; it is bounded.
 *  T9  each message delivers the 16 bytes of its struct tt_note with its completion.
 *  T10 zero-length messages complete.
 *  T11 no transport reads another's header, the communicator, or the environment but by the settings table.
 *  T12 max message and depth are what probe said, under load.
 *  T13 a link never holds up another: bytes move only against a credit of their own link: a posted receive,
 *      one of its own small slots, or a slot of the shared pool while one is free, at most 4 ahead per link.
 *  T14 memory is bounded and stated; an empty shared pool falls back to the link's own slots. */
#ifndef TT_TRANSPORT_H
#define TT_TRANSPORT_H

#include "base.h"
#include "reduce.h"

enum tt_post { TT_DONE, TT_AGAIN, TT_POSTED, TT_FAILED };

/* The 16 bytes that travel with each message; the core's business, opaque to transports. */
struct tt_note {
	uint64_t sig;  /* signature of the call */
	uint32_t seq;  /* of the operation */
	uint32_t pos;  /* step and window */
};

enum tt_req_state { TT_REQ_IDLE, TT_REQ_POSTED, TT_REQ_DONE, TT_REQ_FAILED };

/* One accepted post. Lives with the poster until state is DONE or FAILED, which whoever polls the endpoint
 * stores last, with release; the poster loads it with acquire. On inline DONE only note is set (recv). */
struct tt_req {
	_Atomic int state;
	struct tt_note note;  /* receive: when DONE the sender's; at the call what the poster expects, a hint */
	struct tt_req *next;  /* the transport's, while POSTED */
	void *p;              /* the transport's, while POSTED */
	size_t n, done;
	const struct tt_combine *combine;
	uint64_t priv[2];
};

/* recv_reduce: dst = x op received (received_first: received op x). Elementwise on n bytes. */
struct tt_combine {
	void *dst;
	const void *x;
	bool received_first;
	tuttiDataType_t type;
	const struct tt_op *op;
};

/* The numbers by which the planner chooses; seconds and bytes a second for one link, bytes. */
struct tt_caps {
	double latency, bandwidth;
	double overhead;      /* seconds of processor that a message costs, 0: a part of the latency */
	double copied;        /* bytes a second that the processor puts into place at the receiver, 0: it need not */
	double near_bandwidth; /* within a host, where that is another, 0: it is not */
	size_t max_message;   /* bytes of one message */
	size_t eager;         /* bytes that complete before the receive is posted */
	uint32_t depth;       /* posts that one direction of a link takes */
	uint32_t lanes;       /* useful parallel links to one peer */
	bool across_hosts, across_processes;
};

/* Memory for one operation, dereg follows soon; of messages of links alone that all close together. */
enum { TT_REG_BRIEF = 1, TT_REG_SOLE = 2 };

/* What the core gives an endpoint. dial: an authenticated stream socket to the process `peer` (unix where
 * `local`), blocking, bounded by the deadline; the other end arrives at its transport's accept. */
struct tt_ep_config {
	uint64_t self; /* this process */
	uint64_t group; /* ep_per_rank: what the endpoints of one communicator have in common */
	void *ctx;
	tuttiResult_t (*dial)(void *ctx, uint64_t peer, const char *transport, int index, int *fd);
};

/* A device of the network that an endpoint's messages go by. */
struct tt_nic {
	char name[64], pci[24]; /* pci "": not known */
	int dma_buf_errno;      /* of registering the dma-buf of descriptor -1; EBADF: it takes such */
};

struct tt_transport {
	size_t size;          /* of this struct, so that it can grow */
	const char *name;
	size_t ep_size, link_size; /* private objects; the core allocates them, zeroed */
	bool ep_per_rank;
	/* Whether it can work here, and its numbers; else why not. No side effects. */
	bool (*probe)(struct tt_caps *caps, char *why, size_t why_size);
	/* The machine has what this is for, so that it is worth a warning when it is off; NULL: every machine has. */
	bool (*present)(void);
	tuttiResult_t (*ep_open)(void *ep, const struct tt_ep_config *config);
	void (*ep_close)(void *ep);
	/* Opens one end; `peer` is the other's process. May dial; nothing else blocks. tuttiUnsupported, from here or
	 * later as the link's error, says that no message has moved or will, and that the other end ends alike or is
	 * told when it asks, which it may until its endpoint closes: this end goes on polling. The core then opens
	 * the link on another transport, and issues its messages anew. */
	tuttiResult_t (*link_open)(void *ep, void *link, uint64_t peer, uint64_t key);
	void (*link_close)(void *link);
	enum tt_post (*send)(void *link, const void *p, size_t n, const struct tt_note *note,
			     struct tt_req *req);
	enum tt_post (*recv)(void *link, void *p, size_t n, struct tt_req *req);
	/* Optional (NULL: the core receives into a temporary): as recv, combined on the way. n: bytes.
	 * c must live until completion. */
	enum tt_post (*recv_reduce)(void *link, const struct tt_combine *c, size_t n, struct tt_req *req);
	/* Moves what can move; returns how many posts completed (for idling only). */
	int (*poll)(void *ep);
	/* The link's sticky error, or Success; *why points to its text (static or the link's). */
	tuttiResult_t (*link_error)(void *link, const char **why);
	/* Optional: which way a link goes, for texts: "by device rxe0 port 1 (RoCE, net0, active) to 10.0.0.2". */
	void (*link_way)(void *link, char *out, size_t n);
	/* Sleeping: arm says "I am about to sleep" and returns false if something is there already; then
	 * poll(2) on wait_fd for reading; disarm after. */
	bool (*arm)(void *ep);
	void (*disarm)(void *ep);
	int (*wait_fd)(void *ep);
	/* A dialled socket has arrived from `peer`: the transport owns fd. From the watcher thread, at any
	 * time: only queue it for the next poll (and make wait_fd readable). */
	void (*accept)(void *ep, uint64_t peer, int index, int fd);
	/* The process `peer` is gone: its links fail once what it has sent is drained. Under the lock. */
	void (*peer_gone)(void *ep, uint64_t peer);
	/* Bytes held by an endpoint, for the statement of T14. */
	size_t (*memory)(void *ep);
	/* Optional, both or none: the n bytes at p stay where they are until dereg, so messages that lie within may
	 * be moved in place. Under the lock; may overlap others. Only a permission: whether it is used must not show
	 * in any result, and that is why reg fails for want of memory alone; a range that no device takes, or
	 * beyond the bound of T14, is as if unregistered. how: TT_REG_*. */
	tuttiResult_t (*reg)(void *ep, void *p, size_t n, unsigned how, void **handle);
	/* Under the lock; posts in flight that lie there may still be under way, and the memory is theirs until they
	 * have completed; after that nothing refers to the range. ep_close ends all. */
	void (*dereg)(void *ep, void *handle);
	/* Optional, all or none: memory that no processor may touch, that of GPUs. Messages of more than caps.eager
	 * bytes may lie there, on links of which `far` is true, as it then remains: NICs alone read and write them,
	 * or the link fails. */
	int (*nics)(void *ep, struct tt_nic *out, int max);
	bool (*far)(void *link);
	/* Here and now with all of these; dereg ends it. fd: a dma-buf that begins at p; -1: by address. read_back: a
	 * NIC that has written there reads a byte of it before the receive completes (T5), so that what it wrote is
	 * there. May take a moment, in which it polls. Under the lock. Fails with a note. */
	tuttiResult_t (*reg_far)(void *ep, void *p, size_t n, int fd, bool read_back, void **handle);
};

/* registry.c: the one list. */
extern const struct tt_transport *const tt_transports[];
extern const int tt_ntransports;
const struct tt_transport *tt_transport_find(const char *name);

extern const struct tt_transport tt_inproc, tt_shm, tt_verbs, tt_tcp;

/* Faults for tests, in inproc.c: flips a byte of, drops, or delays the n-th message from now on (0: off). */
enum tt_fault { TT_FAULT_NONE, TT_FAULT_FLIP, TT_FAULT_DROP, TT_FAULT_STALL };
void tt_inproc_fault(enum tt_fault kind, uint32_t nth);

#endif
