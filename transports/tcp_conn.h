/* Inside the TCP transport. SPDX-License-Identifier: Apache-2.0
 *
 * conn (tcp_conn.c): one socket: frames out, frames in, nothing about messages.
 * flow (msg_flow.c): one end of a link: posts, eager slots, adverts. Lives from the first frame or the
 *     opening, whichever is first, until both ends have said that they closed it.
 * peer (tcp.c): the sockets of one process: `out` dialled here, which carry our messages there, and `in`
 *     dialled there, which carry theirs. What answers a message (adverts, credits) goes back on the socket
 *     it came by, so it never stands in the queue behind bulk. A peer dies as a whole.
 *
 * A message of up to `eager` bytes goes at once, at most MSG_CREDITS ahead of the receiver's receives. A
 * longer one waits for the receiver's advert, sent when the receive is posted, then goes in chunks, each by
 * whichever socket is free. */
#ifndef TT_TCP_CONN_H
#define TT_TCP_CONN_H

#include <pthread.h>

#include "transport.h"

#define MSG_HEADER 64
#define TCP_CHUNK ((size_t)256 << 10)
#define MSG_MAX_MESSAGE ((size_t)16 << 20)
#define MSG_EAGER_MAX ((size_t)16 << 10)
#define TCP_IBUF ((size_t)32 << 10)   /* holds the longest eager frame */
#define TCP_OBUF ((size_t)4 << 10)
#define TCP_INLINE ((size_t)448)      /* payload up to here is copied behind its header */
#define MSG_DEPTH 8u
#define MSG_CREDITS 4u
#define MSG_CONNS_MAX 8
#define MSG_ORPHANS_MAX 65536u
#define MSG_GRACE_NS 1000000000ull    /* for the rest of what a leaving peer has sent; half of it for ep_close */

enum msg_type {
	MSG_EAGER = 1, /* out: a whole message */
	MSG_DATA,      /* out: a chunk of an adverted message */
	MSG_ASK,       /* out: the sender waits for the advert of this message; finds unequal lengths */
	MSG_ADVERT,    /* in: a receive is posted */
	MSG_CREDIT,    /* in: only for its credit field */
	MSG_ERROR,     /* any: the link has failed; off and total are the lengths */
	MSG_CLOSE,     /* both: this end is closed; seq: messages sent */
};

/* On the wire: 64 bytes, little endian, then len bytes of payload. */
struct msg_frame {
	uint8_t type;
	uint8_t side;      /* of the receiving end, where both ends are in one process */
	uint32_t len, seq;
	uint32_t credit;   /* eager messages that the writer of the frame has received on this link */
	uint32_t token;    /* of the receiving flow: adverts say it, data repeats it */
	uint64_t key, off, total;
	struct tt_note note;
};

struct msg_flow;

/* What a transport has in the first place of its conn. */
struct msg_conn {
	struct msg_peer *peer;
	struct msg_conn *next; /* of the endpoint */
	const struct msg_wire *wire;
	int index;
	bool outgoing;
	bool lost;             /* nothing more to read; what is written is dropped */
};

/* What moves frames for the message layer. All on the thread that has the endpoint. */
struct msg_wire {
	/* Neither a current frame nor anything queued. */
	bool (*idle)(const struct msg_conn *c);
	/* Appends a control frame; false: no room now. A lost conn takes and drops it. */
	bool (*put)(struct msg_conn *c, const struct msg_frame *f);
	/* Makes this the current frame of an idle conn: EAGER with its payload, or DATA. tt_msg_written
	 * follows when the body is no longer needed, unless the flow was forgotten before. */
	void (*start)(struct msg_conn *c, const struct msg_frame *f, const void *body, struct msg_flow *flow);
	/* Pushes what can go. */
	void (*write)(struct msg_conn *c);
	/* The flow's memory is no longer to be touched: its posts are cancelled, or its end closed. */
	void (*forget)(struct msg_conn *c, const struct msg_flow *flow);
	/* A DATA frame has arrived for this receive (NULL: for one that is no more, its bytes go nowhere).
	 * tt_msg_chunk_done follows, from within or later, when they are at req->p + f->off. */
	void (*data)(struct msg_conn *c, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req);
	/* Bytes of one DATA frame, at most. */
	size_t (*chunk)(const struct msg_conn *c);
};

struct tcp_conn {
	struct msg_conn base;
	int fd;
	bool inet;
	bool armed;            /* epoll also watches for room to write */
	bool busy;             /* a frame is on its way out: the cur_ fields */
	/* Output: the current frame, then the control frames of obuf. */
	struct msg_flow *cur_flow; /* NULL: nobody is to be told when it is out */
	uint32_t cur_seq;
	bool cur_inline;       /* the payload stands behind the header in cur_head */
	uint8_t cur_head[MSG_HEADER + TCP_INLINE];
	const uint8_t *cur_body;
	void *cur_own;         /* cur_body when it is a private copy */
	size_t cur_len, cur_sent;
	size_t opos, olen;
	/* Input: `left` bytes of a chunk go to sink (NULL: nowhere), else frames are parsed in ibuf. */
	struct msg_flow *sink_flow;
	uint32_t sink_seq;
	uint8_t *sink;
	size_t left, sink_len;
	size_t ipos, ilen;
	uint8_t obuf[TCP_OBUF];
	uint8_t ibuf[TCP_IBUF];
};

struct msg_peer {
	struct tcp_ep *ep;
	struct msg_peer *next;
	uint64_t id;
	struct msg_conn *out[MSG_CONNS_MAX], *in[MSG_CONNS_MAX];
	int nout;
	struct msg_flow *flows;
	struct msg_flow *ready, *ready_last; /* flows with something to send, in turn */
	uint32_t orphans, pending;           /* flows never opened here; sends not yet complete */
	bool broken;                         /* fails at the next poll */
	bool dead;                           /* has failed: sockets closed, flows wait to be closed */
	uint64_t closing_ns;                 /* a socket has ended: fails when all have, or soon after */
	tuttiResult_t error;
	char why[200];
	char where[64];
};

enum msg_flow_state { FLOW_ORPHAN, FLOW_OPEN, FLOW_CLOSED };
enum { WAY_FORWARD = 1, WAY_BACK = 2, WAY_BOTH = 3 }; /* of a CLOSE: with messages, with answers */
enum { OWE_ERROR = 1, OWE_CREDIT = 2, OWE_ASK = 4, OWE_CLOSE_FORWARD = 8, OWE_CLOSE_BACK = 16 };

struct msg_slot {
	uint32_t seq, len;
	struct tt_note note;
};

struct msg_flow {
	struct msg_flow *chain;               /* of the table, oldest first */
	struct msg_flow *next, **link;        /* of the peer */
	struct msg_flow *ready_next, *owe_next;
	struct msg_peer *peer;
	uint64_t key;
	uint32_t token, peer_token;
	uint8_t state, side, got_close, owe, adverts_due, adverted, slot_head, slot_count;
	bool queued, owing, paired, asked, ask_waits;
	uint32_t send_head, send_take, send_tail; /* completed, handed to sockets, posted */
	uint32_t recv_head, recv_tail;            /* completed, posted */
	uint32_t eager_sent, eager_credited, eager_taken, eager_told;
	uint32_t sent;                            /* send_take, but not moved by a cancel */
	uint32_t asked_seq, ask_seq, close_seq;
	uint64_t ask_len;
	struct tt_req *sends[MSG_DEPTH], *recvs[MSG_DEPTH];
	uint64_t advert[MSG_DEPTH];
	struct msg_slot slots[MSG_CREDITS];
	uint8_t *slot_mem;
	tuttiResult_t error;
	bool lengths;                     /* the error: unequal lengths, the next three */
	uint32_t bad_seq;
	uint64_t bad_posted, bad_sent;
	char why[200];
};

struct msg_arrival {
	struct msg_arrival *next;
	uint64_t peer;
	int index, fd;
};

struct tcp_ep {
	struct tt_ep_config config;
	bool open;
	int epoll, event;
	size_t eager;
	struct msg_conn *conns;
	int nconns;
	struct msg_peer *peers;
	struct msg_flow **table;
	size_t nbuckets, nflows;
	struct msg_flow *owing;        /* flows with control frames that found no room */
	bool owe_retry;
	int nwriting, nready, nbroken, nclosing; /* conns with output, flows ready, peers so */
	uint32_t pending, polls, idle, tokens;
	uint64_t moved;                /* bytes and frames, to see that something happened */
	int completed, reported;       /* posts, in all and up to the last poll */
	size_t slot_bytes;
	uint8_t *scratch;              /* where unwanted payload goes */
	pthread_mutex_t lock;          /* of arrivals */
	struct msg_arrival *arrivals;
	_Atomic bool arrived;
};

#define TCP_SCRATCH ((size_t)64 << 10)

/* ---- tcp_conn.c ---- */
void tt_msg_pack(uint8_t b[MSG_HEADER], const struct msg_frame *f);
/* NULL, or what is wrong with it. */
const char *tt_msg_unpack(struct msg_frame *f, const uint8_t b[MSG_HEADER]);
struct msg_conn *tt_tcp_conn_new(struct msg_peer *p, int fd, int index, bool outgoing);
void tt_tcp_conn_free(struct msg_conn *c);
static inline bool tt_tcp_conn_idle(const struct tcp_conn *c)
{
	return !c->busy && c->opos == c->olen;
}
/* The functions of struct msg_wire. */
bool tt_tcp_conn_put(struct msg_conn *c, const struct msg_frame *f);
void tt_tcp_conn_start(struct msg_conn *c, const struct msg_frame *f, const void *body, struct msg_flow *flow);
void tt_tcp_conn_write(struct msg_conn *c);
void tt_tcp_conn_forget(struct msg_conn *c, const struct msg_flow *f);
void tt_tcp_conn_data(struct msg_conn *c, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req);
extern const struct msg_wire tt_tcp_wire;
void tt_tcp_conn_read(struct msg_conn *c, int rounds);
/* The socket has ended, with an errno or 0 for the end of the stream. */
void tt_tcp_conn_lost(struct tcp_conn *c, int err);

/* ---- msg_flow.c ---- */
static inline uint32_t msg_at(uint32_t seq)
{
	return seq % MSG_DEPTH;
}
static inline bool msg_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}
/* The flow that a frame is for; NULL: none, or (or_make) the conn has been refused. */
struct msg_flow *tt_msg_flow_find(struct msg_conn *c, const struct msg_frame *fr);
struct msg_flow *tt_msg_flow_find_or_make(struct msg_conn *c, const struct msg_frame *fr);
tuttiResult_t tt_msg_flow_open(struct msg_peer *p, uint64_t key, struct msg_flow **out);
/* Opens a flow that frames have made already; NULL: there is none. */
struct msg_flow *tt_msg_flow_adopt(struct tcp_ep *ep, uint64_t peer, uint64_t key);
void tt_msg_flow_close(struct msg_flow *f);
/* Frees it if both ends are closed and know it; true: it is gone. */
bool tt_msg_flow_close_if_over(struct msg_flow *f);
void tt_msg_flow_free(struct msg_flow *f);
void tt_msg_flow_fail(struct msg_flow *f, tuttiResult_t error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Fails it for unequal lengths; tell: the other end, which then fails alike. */
void tt_msg_flow_fail_lengths(struct msg_flow *f, uint32_t seq, uint64_t posted, uint64_t sent, bool tell);
/* Fails it if the other end has closed and something waits for it (or posting: is about to). */
bool tt_msg_flow_other_left(struct msg_flow *f, bool posting);
/* Whether the next message can not go, for want of a credit or an advert. */
bool tt_msg_flow_stalled(const struct msg_flow *f);
void tt_msg_flow_ready(struct msg_flow *f); /* queues it unless stalled */
void tt_msg_flow_unqueue(struct msg_flow *f, struct msg_flow *prev);
void tt_msg_flow_owe(struct msg_flow *f, uint8_t what);
void tt_msg_flow_finish(struct msg_flow *f, struct tt_req *r, int state);
void tt_msg_flow_finish_send(struct msg_flow *f, int state); /* the oldest */
struct msg_conn *tt_msg_flow_home(const struct msg_flow *f); /* the socket of its early messages */

/* ---- tcp_message.c ---- */
/* A frame has arrived; payload is there for EAGER. */
void tt_msg_frame(struct msg_conn *c, const struct msg_frame *fr, const uint8_t *payload);
void tt_msg_chunk_done(struct msg_flow *f, uint32_t seq, size_t len);
void tt_msg_written(struct msg_flow *f, uint32_t seq, size_t len);
enum tt_post tt_msg_send(struct msg_flow *f, const void *p, size_t n, const struct tt_note *note,
			  struct tt_req *req);
enum tt_post tt_msg_recv(struct msg_flow *f, void *p, size_t n, struct tt_req *req);
void tt_msg_ask_all(struct tcp_ep *ep);
void tt_msg_emit_all(struct tcp_ep *ep);
/* Gives the conn its next frame; false: nothing for it. */
bool tt_msg_feed(struct msg_conn *c);

/* The peer has sent what it must not: nothing more is read from this conn, and the peer fails. */
void tt_msg_refuse(struct msg_conn *c, const char *what);

/* ---- tcp.c ---- */
void tt_msg_peer_break(struct msg_peer *p, tuttiResult_t error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void tt_msg_peer_closing(struct msg_peer *p, int err);

#endif
