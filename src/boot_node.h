/* The state of the node, shared by the files of boot alone: boot.c (life, watcher), boot_conn.c (connections that
 * the watcher serves), boot_dial.c (dialling), boot_root.c (rendezvous).
 *
 * One lock guards everything here. It is held for short, never while an event is delivered and never in a system
 * call that blocks. Connections are closed by the watcher alone; any thread may queue frames on one. */
#ifndef TT_BOOT_NODE_H
#define TT_BOOT_NODE_H

#include <pthread.h>

#include "boot_wire.h"
#include "sock.h"

#define TT_NS 1000000000ull
#define TT_WHY 640 /* bytes of words about a gone process */
#define TT_PEER_BUCKETS 256
#define TT_DEATHS 32 /* a bound on what a new connection is told */

enum tt_source_kind { TT_SRC_WAKE, TT_SRC_LISTEN, TT_SRC_PID, TT_SRC_CONN };

/* What epoll points to; the first member of what it stands for. */
struct tt_source {
	enum tt_source_kind kind;
	int fd; /* -1: closed, to be freed after the batch */
	struct tt_source *next;
};

struct tt_listener {
	struct tt_source src;
	bool local;  /* the unix socket */
	bool paused; /* out of descriptors */
};

struct tt_bytes {
	uint8_t *p;
	size_t head, len, cap; /* bytes head .. len are there */
};

/* Bytes with several owners: a table on its way to many. */
struct tt_shared {
	_Atomic int refs;
	size_t size;
	_Alignas(16) uint8_t bytes[];
};

enum tt_conn_state {
	TT_CONN_HELLO,     /* waits for hello */
	TT_CONN_PROOF,     /* replied, waits for the client's proof */
	TT_CONN_TENTATIVE, /* control, proved; becomes the one by START */
	TT_CONN_CONTROL,
	TT_CONN_JOIN,      /* root, proved, waits for JOIN */
	TT_CONN_JOINED,    /* waits for the table */
	TT_CONN_DRAIN      /* answered; closed at the end of stream */
};

struct tt_conn {
	struct tt_source src;
	enum tt_conn_state state;
	bool local, want_out, shut, shut_done; /* shut: no more is sent after what is queued */
	uint64_t deadline_ns;   /* of every state but CONTROL and JOINED */
	uint64_t rx_ns, tx_ns;
	struct tt_conn *prev, *next;
	struct tt_hello hello;
	struct tt_reply reply;
	uint8_t secret[32];
	struct tt_peer *peer;   /* CONTROL */
	char *condemned;        /* why its peer is dead; read empty first */
	bool told;              /* by another process, in full words */
	struct tt_root *root;   /* JOINED */
	int rank;
	struct tt_bytes in, out;
	struct tt_shared *tail; /* sent after out */
	size_t tail_at;
};

struct tt_conn_list {
	struct tt_conn *first, *last;
	size_t n;
};

enum tt_gone { TT_HERE, TT_LEFT, TT_DEAD };

struct tt_peer {
	struct tt_source pid_src; /* pidfd, where both share a unix socket */
	uint64_t id;
	struct tt_peer *next;
	struct tt_conn *conn;
	bool dialing, known, local;
	int tentative;            /* accepted connections that wait for START */
	enum tt_gone gone;
	char why[TT_WHY];
	struct tt_proc proc;      /* when known */
	struct tt_addr best;      /* the address that answered */
	uint16_t best_port;
	uint64_t job;
	uint8_t secret[32];
};

struct tt_secret {
	uint64_t job;
	int refs;
	uint8_t secret[32];
	struct tt_secret *next;
};

enum tt_event_kind { TT_EVENT_GONE, TT_EVENT_MESSAGE, TT_EVENT_ACCEPT };

struct tt_event {
	struct tt_event *next;
	enum tt_event_kind kind;
	uint64_t proc;
	bool dead;
	uint32_t type;
	int index, fd;
	char transport[16];
	size_t n;
	_Alignas(16) uint8_t bytes[];
};

struct tt_node {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* monotonic; peers, dialling, linger */
	bool running, stop, leaving, lingered, forked;
	uint64_t linger_until, last_tick;
	uint64_t silence_ns;
	pthread_t watcher;
	struct tt_proc self;
	struct tt_node_events events;
	struct tt_local_addr addrs[TT_MAX_ADDRS];
	int naddrs;
	uint32_t links[TT_MAX_ADDRS]; /* interfaces with IPv6, best first: scopes for link-local addresses */
	int nlinks;
	int epoll;
	struct tt_source wake;
	struct tt_source *listeners;
	uint64_t starved_ns;            /* when a listener was last paused */
	struct tt_addr at_addr; /* of the last root at a fixed place: the wish, and the port that it got */
	uint16_t at_base, at_port;
	struct tt_conn_list half, full; /* not yet proved, proved */
	struct tt_source *dead;         /* closed, freed after the batch */
	struct tt_peer *peers[TT_PEER_BUCKETS];
	uint64_t deaths[TT_DEATHS];     /* the last dead, a ring; told to who is met later */
	uint32_t ndeaths;
	struct tt_secret *secrets;
	struct tt_root *roots;
	struct tt_event *events_first, **events_end;
};

extern struct tt_node tt_node;
extern _Atomic uint64_t tt_frames_sent, tt_frames_received;

/* boot.c; all but node_check under the lock. */
tuttiResult_t tt_node_check(void); /* running, or an error in words */
void tt_node_wake(void);
int tt_node_watch(struct tt_source *s, uint32_t events);
void tt_node_unwatch(struct tt_source *s); /* closes; the owner puts it on `dead` where it is freed */
tuttiResult_t tt_node_listen(const struct tt_addr *a, uint16_t *port, int *error);
struct tt_peer *tt_peer_find(uint64_t id);
struct tt_peer *tt_peer_get(uint64_t id); /* makes it; NULL: no memory */
const uint8_t *tt_secret_find(uint64_t job);
tuttiResult_t tt_secret_hold(uint64_t job, const uint8_t secret[32]);
void tt_secret_release(uint64_t job);
void tt_node_unlisten(const struct tt_source *until); /* closes those newer than `until` */
bool tt_event_push(enum tt_event_kind kind, uint64_t proc, const void *p, size_t n,
		   const struct tt_event *more);
void tt_node_wait(uint64_t until_ns); /* for `changed` */
void tt_proc_words(const struct tt_proc *p, char *buf, size_t n); /* "process 12 on host" */

/* boot_conn.c, under the lock. */
struct tt_conn *tt_conn_new(int fd, enum tt_conn_state state, bool local);
void tt_conn_close(struct tt_conn *c);
void tt_conn_free(struct tt_conn *c);
bool tt_conn_queue(struct tt_conn *c, uint32_t type, const void *a, size_t an, const void *b, size_t bn);
void tt_conn_ready(struct tt_conn *c, uint32_t events);
void tt_conn_take(struct tt_conn *c, struct tt_peer *p); /* makes it the control connection */
void tt_conn_tell_deaths(struct tt_conn *c);             /* what it may have missed; START goes before */
void tt_conn_drain(struct tt_conn *c);                   /* answered: flush, then close */
void tt_conns_tick(uint64_t now);
void tt_peer_gone(struct tt_peer *p, bool dead, bool gossip, const char *why);
void tt_shared_drop(struct tt_shared *s);

/* boot_dial.c: the client's side, without the lock. */
struct tt_target {
	struct tt_addr addr;
	uint16_t port;
	bool local; /* the unix socket of hello.to */
};
#define TT_MAX_TARGETS 128
struct tt_dial {
	struct tt_target targets[TT_MAX_TARGETS];
	int n;
	struct tt_hello hello;  /* but magic, version, from, nonce */
	uint8_t secret[32];
	uint64_t deadline_ns, limit_ns; /* limit_ns: for one target in one round; 0 at first */
	const _Atomic bool *stop;
	bool over_is_final;
	/* Of the last round. */
	int fd;
	struct tt_target won;
	uint8_t status;       /* OK or EXISTS when a round has succeeded */
	tuttiResult_t fatal;  /* no use in trying again */
	bool soft;            /* something timed out or was cut off: may pass */
	char why[3072];       /* every pair tried and why not */
	size_t why_len;
};
/* Tries all targets, a little apart, until one proves itself. */
bool tt_dial_round(struct tt_dial *d);
/* A link-local address means something on one link only: without a scope of this host it is tried on each. */
void tt_dial_add(struct tt_dial *d, const struct tt_addr *a, uint16_t port);
void tt_dial_next(struct tt_dial *d); /* more patience for the next round */

/* boot_join.c: without the lock. */
bool tt_stop_set(const _Atomic bool *stop);
tuttiResult_t tt_table_of(struct tt_shared *s, struct tt_table *out); /* takes the caller's share */
tuttiResult_t tt_join_there(const struct tt_root_id *id, struct tt_join *j, const void *entry, size_t size,
			    uint64_t deadline_ns, const _Atomic bool *stop, struct tt_table *out);

/* boot_root.c, under the lock. */
uint8_t tt_root_admit(struct tt_conn *c); /* a status for a proved connection of kind ROOT */
void tt_root_frame(struct tt_conn *c, const struct tt_frame *f);
void tt_root_lost(struct tt_conn *c, const char *why);
bool tt_roots_tick(uint64_t now);         /* may leave and take the lock again; true: some are open */
void tt_roots_leave(void);
void tt_roots_free(void);

#endif
