/* Floor 3: *device links*. Ranks of one host that have a device each pass messages from queue to queue: through slots
 * in the receiver's device memory, which the sender has mapped, and words in pinned memory that all of them share.
 * Once a message is enqueued on both sides, no thread of the host has to do anything. */
#ifndef TT_PEER_H
#define TT_PEER_H

#include "dev_proto.h"
#include "mem.h"
#include "sched.h"

enum { TT_PEERS_MAX = 64, TT_PEER_SLOTS = 4, TT_PEER_LANES = 9 }; /* the last lane: Send and Recv */
enum { TT_PEER_PIPES = 8 }; /* lanes of schedules that blocks run */

struct tt_peers; /* what one rank has of it */

struct tt_peer_member {
	int rank;
	uint64_t proc; /* random, of its process */
	struct tt_mem_device device;
};

/* The group: the same on all its members, in the order of ranks. */
struct tt_peers_config {
	const struct tt_mem_kind *kind;
	void *where;
	uint64_t id;
	const uint8_t *secret; /* 32 bytes that its members alone know */
	int n, me;
	const struct tt_peer_member *members;
	bool blocks;    /* links of blocks are wanted as well: the members are all ranks, with a device each */
	size_t message; /* bytes of a usual one */
	uint64_t deadline_ns;
	const _Atomic bool *stop;
};

/* All members call it. *out NULL: this rank has no such link to any other. */
tuttiResult_t tt_peers_open(const struct tt_peers_config *g, struct tt_peers **out);
/* drained: no queue of this rank has anything of it left. Otherwise its memory stays, and false. brief: does not wait
 * for other ranks. */
bool tt_peers_close(struct tt_peers *p, bool drained, bool brief);

void *tt_peers_where(const struct tt_peers *p);
tuttiStream_t tt_peers_queue(const struct tt_peers *p); /* for calls on host memory */
const struct tt_mem_kind *tt_peers_kind(const struct tt_peers *p);
bool tt_peers_reduce(const struct tt_peers *p, tuttiDataType_t type); /* all members can */
size_t tt_peers_message(const struct tt_peers *p); /* the largest that fits ahead of its receive */

/* One direction of a link, to or from a rank; NULL: by the network. Both ends agree. */
struct tt_peer_dir;
struct tt_peer_dir *tt_peers_dir(struct tt_peers *p, int rank, uint32_t lane, bool is_send);
/* Enqueue, in the order of messages; `line` tells queues apart (NULL: nothing does). */
tuttiResult_t tt_peer_send(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, const void *src, size_t n);
tuttiResult_t tt_peer_recv(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, void *dst, size_t n);

/* ---- links of blocks that run schedules ---- */
bool tt_peers_drive(const struct tt_peers *p); /* between all pairs of ranks; NULL: no */
tuttiResult_t tt_peers_pipe(const struct tt_peers *p, int rank, uint32_t lane, bool is_send, struct tt_dev_link *out);
/* Where blocks look whether a rank has failed, and what they write as they come along. */
void tt_peers_words(const struct tt_peers *p, const uint32_t **stop, uint32_t **beat);

/* ---- any thread ---- */
uint64_t tt_peers_beats(const struct tt_peers *p); /* changes while ranks come to calls and their blocks come along */
int tt_peers_absent(const struct tt_peers *p, int rank, uint32_t seq); /* have not come to a call; -1: of all */
struct tt_peer_seen {
	uint32_t enqueued, done, theirs; /* counts: of this rank's calls, its queue, the other's */
	bool waits;                      /* for the other */
};
struct tt_peer_seen tt_peer_look(const struct tt_peer_dir *d);
/* This rank has come to a call; the rank that means another by the same number, as far as is known; -1: none. */
void tt_peers_note(struct tt_peers *p, uint32_t seq, uint64_t sig);
int tt_peers_differ(const struct tt_peers *p, uint32_t seq, uint64_t sig);
/* The same for Send and Recv: this end has come to its call of that number; whether the other end means another by it,
 * or meant another by one before it, as far as is known. */
void tt_peer_note(struct tt_peer_dir *d, uint32_t seq, uint64_t sig);
bool tt_peer_differs(const struct tt_peer_dir *d, uint32_t seq);
/* The communicator has failed here: releases this rank's queues, over whatever is in the slots, and lets the others
 * know before they can see any of it. */
void tt_peers_fail(struct tt_peers *p);
/* The rank that has failed, as far as the others of the host have said; -1: none. */
int tt_peers_failed(const struct tt_peers *p);
/* On the progress thread, while anything has failed: queues of others may lower what releases this rank's. */
bool tt_peers_tend(void);

/* ---- between peer.c and peer_meet.c ---- */
struct tt_peer_table {
	int words_fd;
	struct tt_share shares[TT_PEERS_MAX];
	int fds[TT_PEERS_MAX]; /* -1: none */
	struct tt_peer_says {
		uint64_t can;     /* to whom it can send; its own bit: it can receive */
		uint64_t refuses; /* with whom it has found that copies go wrong */
	} says[TT_PEERS_MAX];
};
struct tt_meeting;
/* Both wait for all members, until the deadline. `mine`: this rank's entry. */
tuttiResult_t tt_peers_meet(const struct tt_peers_config *g, size_t words, const struct tt_share *mine, int fd,
			    struct tt_peer_table *t, struct tt_meeting **m);
tuttiResult_t tt_peers_agree(struct tt_meeting *m, struct tt_peer_says mine, struct tt_peer_table *t);
/* Tries copies both ways, in a process of its own (peer_probe.c). False, with words: not to be relied on. */
bool tt_pair_works(const uint8_t a[16], const uint8_t b[16], char *why, size_t n);
void tt_peers_part(struct tt_meeting *m, struct tt_peer_table *t);

#endif
