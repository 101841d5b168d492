/* Messages over conns, for the transports between processes. SPDX-License-Identifier: Apache-2.0
 *
 * frame (msg_frame.c): 64 bytes of control, and behind an early message or a chunk its payload.
 * conn: what moves frames to a process or from it; the transport's, behind struct msg_wire: a socket of tcp.
 * flow (msg_flow.c): one end of a link: posts, eager slots, adverts. Lives from the first frame or the
 *     opening, whichever is first, until both ends have said that they closed it.
 * peer (msg_peer.c): the conns of one process: `out` dialled here, which carry our messages there, and `in`
 *     dialled there, which carry theirs. What answers a message (adverts, credits) goes back on the conn
 *     it came by, so it never stands in the queue behind bulk. A peer dies as a whole.
 *
 * A message of up to `eager` bytes goes at once, at most MSG_CREDITS ahead of the receiver's receives. A
 * longer one waits for the receiver's advert, sent when the receive is posted, then goes in chunks, each by
 * whichever conn is free (msg_message.c). */
#ifndef TT_MSG_H
#define TT_MSG_H

#include <pthread.h>

#include "transport.h"

#define MSG_HEADER 64
#define MSG_MAX_MESSAGE ((size_t)16 << 20)
#define MSG_EAGER_MAX ((size_t)16 << 10)
#define MSG_DEPTH 8u
#define MSG_CREDITS 4u
#define MSG_CONNS_MAX 8
#define MSG_ORPHANS_MAX 65536u
#define MSG_GRACE_NS 1000000000ull    /* for the rest of what a leaving peer has sent; half of it for ep_close */

struct msg_ep;
struct msg_flow;
struct msg_peer;

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
	/* Not among the 64 bytes; a wire that has place carries the first two behind an advert. */
	struct tt_note expect; /* what the receive expects */
	uint32_t place;        /* its number for the wire; 0: none */
	bool news;             /* data: credit says more than was said before */
};

/* What a transport has in the first place of its conn. */
struct msg_conn {
	struct msg_peer *peer;
	struct msg_conn *next; /* of the endpoint */
	const struct msg_wire *wire;
	int index;
	bool outgoing;
	bool lost;             /* nothing more to read; what is written is dropped */
};

/* What moves frames for the message layer: one table for all conns of an endpoint. All are called by the
 * thread that has the endpoint. */
struct msg_wire {
	const char *name;          /* the transport's */
	const char *eager_setting; /* that of msg_ep.eager, in words */
	/* Makes p->out[0] to [nout - 1], and says p->where if it is not known. */
	tuttiResult_t (*dial)(struct msg_peer *p);
	/* The conn of a socket that the peer has dialled; NULL: no memory, fd stays the caller's. */
	struct msg_conn *(*arrive)(struct msg_peer *p, int index, int fd);
	/* Sees whether a conn has ended unnoticed. */
	void (*look)(struct msg_conn *c);
	/* Takes the rest of what has arrived: the peer is about to end. */
	void (*drain)(struct msg_conn *c);
	/* Ends and frees it. */
	void (*close)(struct msg_conn *c);
	/* Neither a current frame nor anything queued. */
	bool (*idle)(const struct msg_conn *c);
	/* Appends a control frame; false: no room now. A lost conn takes and drops it. */
	bool (*put)(struct msg_conn *c, const struct msg_frame *f);
	/* Makes this the current frame of an idle conn: EAGER with its payload, or DATA. tt_msg_written
	 * follows when the body is no longer needed, unless the flow was forgotten before. Where the
	 * receiver has placed it, DATA goes to flow->remote[msg_at(f->seq)], from f->off on. */
	void (*start)(struct msg_conn *c, const struct msg_frame *f, const void *body, struct msg_flow *flow);
	/* Pushes what can go. */
	void (*write)(struct msg_conn *c);
	/* The flow's memory is no longer to be touched: its posts are cancelled, or its end closed. */
	void (*forget)(struct msg_conn *c, struct msg_flow *flow);
	/* A DATA frame has arrived for this receive (NULL: for one that is no more, its bytes go nowhere).
	 * tt_msg_chunk_done follows, from within or later, when they are at req->p + f->off. */
	void (*data)(struct msg_conn *c, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req);
	/* Bytes of one DATA frame, at most. */
	size_t (*chunk)(const struct msg_conn *c);
	/* The next three are for wires by which the sender writes into the receiver's memory; else NULL.
	 * Each gets the conn that the adverts go by.
	 * Says in an advert about to be put where the bytes shall go: the address in f->off, keys in
	 * f->note, a number in f->place; the sender finds them in flow->remote. False: not now; the advert
	 * stays due and is tried again when ep->owe_retry is set, which every unplace does. */
	bool (*place)(struct msg_conn *c, struct msg_flow *flow, const struct tt_req *req, struct msg_frame *f);
	/* Once for each place that was true: the receive has its bytes, or is given back, or the advert
	 * found no room and will be placed anew. */
	void (*unplace)(struct msg_conn *c, struct msg_flow *flow, const struct tt_req *req);
	/* The receives of this flow are about to be given back, and of some the other end has, or may soon
	 * have, the advert. After this it must not be able to write there. Comes before unplace, also when
	 * the conn is lost, but not where the other end has closed and writes nothing more. It may break the
	 * peer, but not call for flows or messages. */
	void (*revoke)(struct msg_conn *c, struct msg_flow *flow);
	/* Optional: the other end has closed its end of this flow, and writes to none of its places any more. */
	void (*over)(struct msg_conn *c, const struct msg_flow *flow);
};

struct msg_peer {
	struct msg_ep *ep;
	struct msg_peer *next;
	uint64_t id;
	struct msg_conn *out[MSG_CONNS_MAX], *in[MSG_CONNS_MAX];
	int nout;
	struct msg_flow *flows;
	struct msg_flow *ready, *ready_last; /* flows with something to send, in turn */
	uint32_t orphans, pending;           /* flows never opened here; sends not yet complete */
	bool broken;                         /* fails at the next poll */
	bool dead;                           /* has failed: conns closed, flows wait to be closed */
	uint64_t closing_ns;                 /* a conn has ended: fails when all have, or soon after */
	tuttiResult_t error;
	char why[TT_TEXT / 2];
	char where[64];
};

enum msg_flow_state { FLOW_ORPHAN, FLOW_OPEN, FLOW_CLOSED };
enum { WAY_FORWARD = 1, WAY_BACK = 2, WAY_BOTH = 3 }; /* of a CLOSE: with messages, with answers */
enum { OWE_ERROR = 1, OWE_CREDIT = 2, OWE_ASK = 4, OWE_CLOSE_FORWARD = 8, OWE_CLOSE_BACK = 16 };

struct msg_slot {
	uint32_t seq, len;
	struct tt_note note;
};

/* An advert: where the other end wants the bytes of a message, as its wire's place has said. */
struct msg_remote {
	uint64_t addr;
	struct tt_note keys, expect;
	uint32_t place, len;
};

struct msg_flow {
	struct msg_flow *chain;               /* of the table, oldest first */
	struct msg_flow *next, **link;        /* of the peer */
	struct msg_flow *ready_next, *owe_next;
	struct msg_peer *peer;
	uint64_t key;
	uint32_t token, peer_token;
	uint8_t state, side, got_close, owe, adverts_due, adverted, placed, slot_head, slot_count;
	bool queued, owing, paired, asked, ask_waits;
	uint32_t send_head, send_take, send_tail; /* completed, handed to conns, posted */
	uint32_t recv_head, recv_tail;            /* completed, posted */
	uint32_t eager_sent, eager_credited, eager_taken, eager_told;
	uint32_t sent;                            /* messages sent in full: send_take, but not moved by a cancel */
	uint32_t asked_seq, ask_seq, close_seq;
	uint64_t ask_len;
	struct tt_req *sends[MSG_DEPTH], *recvs[MSG_DEPTH];
	struct msg_remote remote[MSG_DEPTH];  /* of the message of this sequence, where adverted */
	struct msg_slot slots[MSG_CREDITS];
	uint8_t *slot_mem;
	tuttiResult_t error;
	bool with_peer;                   /* the error: the peer's, with its words */
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

/* What a transport has in the first place of its endpoint. */
struct msg_ep {
	struct tt_ep_config config;
	const struct msg_wire *wire;
	int event;                     /* readable: an arrival */
	size_t eager;
	struct msg_conn *conns;
	int nconns;
	struct msg_peer *peers;
	struct msg_flow **table;
	size_t nbuckets, nflows;
	struct msg_flow *owing;        /* flows with control frames that found no room */
	bool owe_retry;                /* there may be room now; the wire says so too */
	int nwriting;                  /* conns that are not idle; the wire counts them */
	int nready, nbroken, nclosing; /* flows ready, peers so */
	uint32_t pending, idle, tokens;
	uint64_t moved;                /* bytes and frames, to see that something happened; the wire's too */
	int completed, reported;       /* posts, in all and up to the last poll */
	size_t slot_bytes;
	pthread_mutex_t lock;          /* of arrivals */
	struct msg_arrival *arrivals;
	_Atomic bool arrived;
};

struct msg_link {
	struct msg_flow *flow;
};

/* ---- msg_frame.c ---- */
void tt_msg_pack(uint8_t b[MSG_HEADER], const struct msg_frame *f);
/* NULL, or what is wrong with it. chunk: bytes of the longest DATA frame. */
const char *tt_msg_unpack(struct msg_frame *f, const uint8_t b[MSG_HEADER], size_t chunk);

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
struct msg_flow *tt_msg_flow_adopt(struct msg_ep *ep, uint64_t peer, uint64_t key);
void tt_msg_flow_close(struct msg_flow *f); /* gives all posts back, after wire->revoke */
/* Frees it if both ends are closed and know it; true: it is gone. */
bool tt_msg_flow_close_if_over(struct msg_flow *f);
void tt_msg_flow_free(struct msg_flow *f);
void tt_msg_flow_fail(struct msg_flow *f, tuttiResult_t error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* For the reason of its peer. */
void tt_msg_flow_fail_with_peer(struct msg_flow *f);
/* Fails it for unequal lengths; tell: the other end, which then fails alike. */
void tt_msg_flow_fail_lengths(struct msg_flow *f, uint32_t seq, uint64_t posted, uint64_t sent, bool tell);
/* Fails it if the other end has closed and something waits for it (or posting: is about to). */
bool tt_msg_flow_other_left(struct msg_flow *f, bool posting);
/* Whether the next message can not go, for want of a credit or an advert. */
bool tt_msg_flow_stalled(const struct msg_flow *f);
void tt_msg_flow_ready(struct msg_flow *f); /* queues it unless stalled */
void tt_msg_flow_unqueue(struct msg_flow *f, struct msg_flow *prev);
void tt_msg_flow_owe(struct msg_flow *f, uint8_t what);
void tt_msg_flow_unplace(struct msg_flow *f, uint32_t seq); /* if it was placed */
void tt_msg_flow_finish(struct msg_flow *f, struct tt_req *r, int state);
void tt_msg_flow_finish_send(struct msg_flow *f, int state); /* the oldest */
struct msg_conn *tt_msg_flow_home(const struct msg_flow *f); /* the conn of its early messages */

/* ---- msg_message.c ---- */
/* A frame has arrived; payload is there for EAGER. */
void tt_msg_frame(struct msg_conn *c, const struct msg_frame *fr, const uint8_t *payload);
void tt_msg_chunk_done(struct msg_flow *f, uint32_t seq, size_t len);
void tt_msg_written(struct msg_flow *f, uint32_t seq, size_t len);
/* From within forget: a chunk of this message has not begun and will not; the close says that it was not sent. */
void tt_msg_taken_back(struct msg_flow *f, uint32_t seq);
/* Of the contract, with a struct msg_link. */
enum tt_post tt_msg_send(void *link, const void *p, size_t n, const struct tt_note *note, struct tt_req *req);
enum tt_post tt_msg_recv(void *link, void *p, size_t n, struct tt_req *req);
void tt_msg_ask_all(struct msg_ep *ep);
void tt_msg_emit_all(struct msg_ep *ep);
/* Gives the conn its next frame; false: nothing for it. */
bool tt_msg_feed(struct msg_conn *c);
/* The peer has sent what it must not: nothing more is read from this conn, and the peer fails. */
void tt_msg_refuse(struct msg_conn *c, const char *what);

/* ---- msg_peer.c ---- */
/* A new conn, for the rest of its life: wire->close ends it. */
void tt_msg_conn_join(struct msg_conn *c, struct msg_peer *p, int index, bool outgoing);
/* Where the peer is, by the other end of a socket; the first word stands. */
void tt_msg_peer_say_where(struct msg_peer *p, int fd);
/* The one in use of this process, or a new one without conns; NULL: no memory. */
struct msg_peer *tt_msg_peer_get(struct msg_ep *ep, uint64_t id);
/* The peer fails, at the next poll. */
void tt_msg_peer_break(struct msg_peer *p, tuttiResult_t error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A conn has ended, with an errno or 0: the peer fails when all have, or soon after. */
void tt_msg_peer_closing(struct msg_peer *p, int err, const char *how); /* how: words of its own, or NULL */
/* False: nothing is to be undone. */
bool tt_msg_ep_open(struct msg_ep *ep, const struct tt_ep_config *config, const struct msg_wire *wire,
		    size_t eager);
/* Closes all conns and frees everything. */
void tt_msg_ep_close(struct msg_ep *ep);
void tt_msg_take_arrivals(struct msg_ep *ep);
/* Gives conns what they can write. */
void tt_msg_write_all(struct msg_ep *ep);
/* The end of a poll, which began when ep->moved was `moved`: returns what poll does. */
int tt_msg_settle(struct msg_ep *ep, uint64_t moved);
/* Before a sleep: false if something is there already. */
bool tt_msg_arm(struct msg_ep *ep);
size_t tt_msg_memory(const struct msg_ep *ep); /* without endpoint and conns */
/* Of the contract. */
void tt_msg_accept(void *ep, uint64_t peer, int index, int fd);
void tt_msg_peer_gone(void *ep, uint64_t peer);
tuttiResult_t tt_msg_link_open(void *ep, void *link, uint64_t peer, uint64_t key);
void tt_msg_link_close(void *link);
tuttiResult_t tt_msg_link_error(void *link, const char **why);
void tt_msg_link_way(void *link, char *out, size_t n);

#endif
