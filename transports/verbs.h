/* Inside the verbs transport. SPDX-License-Identifier: Apache-2.0
 *
 * verbs_lib, verbs_dev, verbs_gid, verbs_conf, verbs_words (verbs_dev.h): libraries, devices, words.
 * verbs.c: the endpoint: one completion queue, protection domain and staging area for each port in use.
 * verbs_setup.c: how a conn comes to be: a socket of the bootstrap carries what both ends must know.
 * verbs_cm.c: the same by rdma_cm, for iWARP.
 * verbs_conn.c: a conn is a reliable queue pair: its life.
 * verbs_wire.c: what goes over it. Frames are a SEND into a buffer that the other end has posted; the
 *     bytes of an adverted message are an RDMA WRITE to where the receiver wants them. Where its note is the one that
 *     the advert expects, the immediate of the write says so; else, or without immediates, a frame follows it. Over
 *     iWARP, where a SEND costs as much as a small message, such frames and adverts wait for others to go with.
 * verbs_event.c: what devices say unasked.
 * verbs_place.c: where the other end writes to.
 * verbs_mem.c: where bytes may be written to and from: registered memory itself, else staging.
 * verbs_far.c: memory of GPUs, which is never staged, and reading it back.
 *
 * Each process dials a conn for its own messages; answers come back on it (msg.h). */
#ifndef TT_VERBS_H
#define TT_VERBS_H

#include "msg.h"
#include "sock.h"
#include "verbs_dev.h"

#if TT_HAVE_VERBS

#define VB_PORTS 4                   /* used of this machine: an advert has a key for each */
#define VB_SLOTS 32u                 /* frames in flight one way of a conn, and buffers posted for the other */
#define VB_KEPT 2u                   /* of the peer's buffers, for frames that only give credit */
#define VB_PREFIX 16u                /* before the header: buffers posted so far; the frame's number and flags; buffers
				      * posted for the conn that goes the other way */
#define VB_ADVERT 24u                /* behind the header of an advert: what is expected, the number of the place */
#define VB_CHUNK ((size_t)256 << 10) /* of one WRITE */
#define VB_SHARE (VB_CHUNK / 4)      /* where several conns share a message */
#define VB_SHARE_BITS 8              /* of an immediate: where a chunk begins in its message; the rest is its place */
#define VB_AHEAD 2u                  /* chunks in flight on each of several conns: who is done sooner takes more */
#define VB_STAGE ((size_t)4 << 20)   /* for each direction */
#define VB_PAGE ((size_t)16 << 10)   /* staging is given out in these */
#define VB_BATCH 32                  /* completions taken at once */
#define VB_GIDS 13                   /* told to a peer; words may take their place: TT_TEXT / 2 bytes fit */
#define VB_ADDRS 4
#define VB_REGIONS 1024u             /* of memory used in place, registered with devices at a time */
#define VB_UNUSED 4096u              /* look-ups that one was not in until it may give way to another */

struct vb_conn;

/* Memory that may be used in place (reg of the contract): registered with a port when a message first lies in it. */
struct vb_range {
	uint8_t *p;
	size_t n;
	const uint8_t *reach;    /* in the table: the highest end of this one and those before it */
	uint32_t refs;           /* reg less dereg; 0: not in the table, waits for the end of its uses */
	bool brief, sole;
	bool far, read_back;     /* no processor may touch it: registered from its beginning on, until taken back */
	uint64_t found;          /* the look-up that found it last */
	struct vb_region {
		struct ibv_mr *mr;
		uint32_t uses;   /* writes in flight from it, receives placed in it */
		bool refused;    /* by the device, or too large */
	} at[VB_PORTS];
};

/* One direction's staging, registered at every port: pages given out first fit. */
struct vb_stage {
	uint8_t *mem;
	uint64_t used[VB_STAGE / VB_PAGE / 64];
};

/* Where a port can be reached by rdma_cm. */
struct vb_at {
	struct tt_addr addr;
	uint16_t port, pad[3];
};

struct vb_listener {
	struct rdma_cm_id *id;
	struct vb_at at;
};

struct vb_port {
	struct tt_vb_port *port;
	struct ibv_context *ctx; /* the device's; rdma_cm has one of its own, and its queue pairs live there */
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_comp_channel *channel;
	struct ibv_mr *out, *in; /* staging, as this port knows it */
	struct ibv_mr *sink;     /* where it reads back to */
	struct vb_conn *loop;    /* from itself to itself, to read by, or NULL */
	uint32_t conns, cqe;
	struct vb_listener listener[VB_ADDRS];
	int nlisteners;
	struct rdma_cm_id *watch; /* hears of the device's end, where nothing listens */
};

struct vb_ep {
	struct msg_ep base;
	const struct tt_vb *vb;
	struct tt_vb_conf conf;
	struct tt_vb_devs devs;
	struct vb_port port[VB_PORTS];
	int nports;
	struct vb_stage out, in;
	struct vb_place *places;
	int epoll;
	struct rdma_event_channel *cm; /* NULL: no port needs it */
	bool open, coming;      /* coming: some conns are not ready */
	uint32_t polls;
	struct vb_conn **byid;  /* conns by the number in their work requests; NULL: none */
	uint32_t nids, tags, place_ids;
	bool waits;             /* frames of some conn do, for others to go with them */
	size_t slot;            /* bytes of a SEND's buffer */
	struct vb_refused *refused;
	struct ibv_wc *wc;      /* completions that are taken but not looked at */
	uint32_t wc_head, wc_tail, wc_max;
	struct vb_range **ranges; /* by address, where equal the longer first */
	uint32_t nranges, ranges_max, nregions;
	uint64_t lookups, crowded; /* crowded: no look-up registers anything before this one */
	size_t pinned, pin_max;
	uint32_t nfar;            /* ranges that are far, so far */
	size_t unread;            /* bytes that have come, and wait for a read */
	void *sink;
};

/* What a conn has to remember of a request that it has handed to the device. */
struct vb_sent {
	struct msg_flow *flow; /* of a chunk or its notice, until forgotten; told where bytes go from its own memory */
	uint32_t seq;
	size_t len;
	struct vb_range *range; /* the bytes go from where they are; NULL: from staging, or in the frame */
	void *stage;           /* of the bytes, given back when they are out; NULL: none */
	size_t stage_len;
	uint32_t place;        /* it is a read, of so many bytes that have come to this place; 0: it is not */
};

/* Where a receive of this end may be written to. */
struct vb_place {
	struct vb_place *next;
	const struct vb_conn *by;    /* that the advert went by */
	struct msg_flow *flow;       /* NULL: given back, but the other end may still write */
	const struct tt_req *req;
	uint32_t token, seq, id;
	struct vb_range *range; /* written in place; NULL: to the staging */
	uint8_t *stage;         /* both NULL: nothing may be written there any more */
	size_t n;
	uint32_t unread[VB_PORTS], reading; /* bytes that each port brought, and a read has to follow; follows */
};

/* Both ways on the socket of a conn that comes to be. */
struct vb_hello {
	uint32_t magic, version;
	uint64_t host;          /* hash of the boot id */
	uint64_t cookie;        /* by which a connection of rdma_cm names its conn */
	uint32_t qpn, psn, slots, slot;
	uint16_t lid, mtu, ngids;
	uint8_t wire, attempt;  /* the pair that is tried, or what follows */
	uint8_t naddrs, port, works; /* port: its number there, by which adverts have their keys */
	uint8_t pad[5];
	struct tt_gid gids[VB_GIDS];
	struct vb_at addrs[VB_ADDRS];
};
#define VB_GIVE_UP 255 /* none of the pairs works: nothing goes between these processes by verbs; why, as VB_LAST */
#define VB_LAST 253    /* after the set-up: this end is lost; why is in place of the GIDs */
#define VB_AGREE 254   /* these conns of the dialler work (bits of `works`): may it use them? And the answer, yes. */
#define VB_NOT_BY_THIS 252 /* the one that was dialled has no port for this conn; others may do */

enum vb_state { VB_DIALLING, VB_TRYING, VB_TRIED, VB_ASKED, VB_READY };

/* A process with which nobody found a way. */
struct vb_refused {
	struct vb_refused *next;
	uint64_t id;
	char why[TT_TEXT / 2];
};

struct vb_conn {
	struct msg_conn base;
	struct vb_port *port;
	enum vb_state state;
	int fd;                 /* the socket it was set up by; its end is the peer's */
	uint32_t id, tag;       /* in work requests: which conn, which of those that had the number */
	struct ibv_qp *qp;
	struct rdma_cm_id *cm;  /* that has the queue pair; NULL: set up by hand */
	struct vb_hello mine, theirs, heard;
	struct tt_gid_pair pair; /* in use; b.raw all 0: by LID */
	size_t hello_in;        /* bytes of `heard` */
	uint64_t first_ns, tried_ns;
	uint32_t dials;         /* by rdma_cm */
	uint8_t *mem;           /* VB_SLOTS to send from, VB_SLOTS to receive into, one where frames wait */
	struct ibv_mr *mr;
	uint32_t waiting, unsaid;        /* bytes of frames that wait; written, but only told in those */
	uint32_t send_head, send_tail;   /* slots that came back, handed out; of a write the buffer is not used */
	uint32_t signaled;               /* handed out, up to the last of which the device says when it is out */
	struct vb_sent sent[VB_SLOTS];
	uint32_t chunks;                 /* among those in flight */
	uint32_t used;                   /* buffers of the peer used up: the number of the next frame there */
	uint32_t got;                    /* that of the next frame from there */
	uint32_t theirs_posted;          /* buffers it has posted */
	uint32_t posted, told;           /* here; as the peer knows */
	bool busy;                       /* a current frame waits for staging: the cur_ fields */
	struct msg_frame cur;
	const uint8_t *cur_body;
	struct msg_flow *cur_flow;
	uint32_t max_inline;
	bool loud;              /* posting may raise SIGPIPE */
};

static inline struct vb_ep *vb_ep_of(const struct vb_conn *c)
{
	return (struct vb_ep *)c->base.peer->ep;
}

/* ---- verbs_mem.c ---- */
tuttiResult_t tt_vb_stage_open(struct vb_ep *ep);
tuttiResult_t tt_vb_stage_join(struct vb_ep *ep, struct vb_port *p); /* registers it there */
void tt_vb_stage_leave(struct vb_ep *ep, struct vb_port *p);
void tt_vb_stage_close(struct vb_ep *ep);
void *tt_vb_stage_get(struct vb_stage *s, size_t n); /* NULL: no room now */
void tt_vb_stage_put(struct vb_stage *s, void *p, size_t n);
tuttiResult_t tt_vb_reg(void *ep, void *p, size_t n, unsigned how, void **range); /* of the contract */
void tt_vb_dereg(void *ep, void *range);
void tt_vb_ranges_close(struct vb_ep *ep); /* when the conns are closed */
/* A range that the message lies in, registered with this port (at[].mr), for one use; NULL: none. */
struct vb_range *tt_vb_range_get(struct vb_ep *ep, const struct vb_port *port, const void *p, size_t n);
/* The same range for one more port. */
bool tt_vb_range_also(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r);
void tt_vb_range_put(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r);
/* Takes the region back from the device in spite of its uses; false: could not. */
bool tt_vb_range_withdraw(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r);
static inline struct vb_region *vb_region(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r)
{
	return &r->at[port - ep->port];
}

/* ---- verbs_far.c ---- */
int tt_vb_nics(void *ep, struct tt_nic *out, int max); /* of the contract, the first three */
bool tt_vb_far(void *link);
tuttiResult_t tt_vb_reg_far(void *ep, void *p, size_t n, int fd, bool read_back, void **range);
bool tt_vb_is_far(const struct vb_ep *ep, const void *p);
void tt_vb_loop_leave(struct vb_ep *ep, struct vb_port *p);
void tt_vb_loop_gone(struct vb_ep *ep, const struct vb_conn *c); /* it ends */
/* n bytes have come to a place by this port: tt_msg_chunk_done follows when a read of it has come back. */
void tt_vb_read_back(struct vb_ep *ep, struct vb_place *p, const struct vb_port *port, size_t n);
void tt_vb_read_all(struct vb_ep *ep); /* what found no room, or no connection any more */
void tt_vb_was_read(struct vb_ep *ep, uint32_t place, size_t n);
void tt_vb_end_reads(struct vb_ep *ep, struct vb_place *p);

/* ---- verbs_setup.c ---- */
/* Whether nobody found a way to this process before; says why in the last error. */
bool tt_vb_refuses(const struct vb_ep *ep, uint64_t id);
tuttiResult_t tt_vb_dial(struct msg_peer *p);
struct vb_conn *tt_vb_dial_by(struct msg_peer *p, int index, struct vb_port *port, int fd); /* NULL: fd is closed */
struct msg_conn *tt_vb_arrive(struct msg_peer *p, int index, int fd);
/* Goes on with what a conn waits for; called by each poll until it is ready. */
void tt_vb_setup_step(struct vb_conn *c);
/* The first frame has come over, or has gone: the pair works. */
void tt_vb_setup_done(struct vb_conn *c);
/* The last words of a conn that was ready. */
void tt_vb_setup_say_lost(struct vb_conn *c, const char *why);
/* A conn that is being tried has failed: the next pair, or it is left out, or there is no way at all. */
void tt_vb_setup_failed(struct vb_conn *c, const char *why);

/* ---- verbs_cm.c ---- */
tuttiResult_t tt_vb_cm_open(struct vb_ep *ep, struct vb_port *p); /* listens */
void tt_vb_cm_watch(struct vb_ep *ep, struct vb_port *p); /* does not, but hears of the device's removal */
void tt_vb_cm_close(struct vb_ep *ep, struct vb_port *p);
void tt_vb_cm_close_channel(struct vb_ep *ep);
int tt_vb_cm_addrs(const struct vb_port *p, struct vb_at *out);
bool tt_vb_cm_dial(struct vb_conn *c, int which);   /* false: there is no such address */
void tt_vb_cm_drop(struct vb_conn *c);              /* the connection and its queue pair */
void tt_vb_cm_poll(struct vb_ep *ep);
static inline bool vb_by_cm(const struct vb_port *p)
{
	return p->port->wire == TT_VB_IWARP;
}
/* ---- verbs_event.c ---- */
bool tt_vb_events_open(struct vb_ep *ep);
void tt_vb_events_take(struct vb_ep *ep); /* a system call for each device */
void tt_vb_dev_removed(struct vb_ep *ep, struct tt_vb_dev *dev);

/* ---- verbs_place.c: of the wire's table ---- */
bool tt_vb_place(struct msg_conn *c, struct msg_flow *flow, const struct tt_req *req, struct msg_frame *f);
void tt_vb_unplace(struct msg_conn *c, struct msg_flow *flow, const struct tt_req *req);
void tt_vb_revoke(struct msg_conn *c, struct msg_flow *flow);
void tt_vb_over(struct msg_conn *c, const struct msg_flow *flow);
void tt_vb_data(struct msg_conn *c, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req);
/* A write whose immediate this is has arrived; what is wrong with it, or NULL. */
const char *tt_vb_written(struct vb_conn *c, uint32_t imm, size_t n);
void tt_vb_places_drop(struct vb_ep *ep, const struct vb_conn *by); /* that conn's */
/* Room for a write and its frame, beside what waits and so many more of the peer's buffers. */
static inline bool vb_has_slot(const struct vb_conn *c, uint32_t kept)
{
	uint32_t waits = c->waiting > 0;

	return c->send_tail - c->send_head + waits < VB_SLOTS - 1 &&
	       (int32_t)(c->theirs_posted - c->used) > (int32_t)(kept + waits);
}

/* ---- verbs_conn.c ---- */
enum { VB_WC_SEND, VB_WC_RECV };
/* A work request's number: of what kind, the slot, the conn and its tag. */
static inline uint64_t vb_wr_id(const struct vb_conn *c, uint32_t kind, uint32_t slot)
{
	return (uint64_t)c->tag << 32 | (uint64_t)c->id << 16 | kind << 8 | slot;
}
static inline uint8_t *vb_recv_slot(const struct vb_conn *c, uint32_t i)
{
	return c->mem + (VB_SLOTS + i) * vb_ep_of(c)->slot;
}
static inline size_t vb_conn_bytes(const struct vb_ep *ep)
{
	return (2 * VB_SLOTS + 1) * ep->slot;
}
struct vb_conn *tt_vb_conn_new(struct msg_peer *p, struct vb_port *port, int fd); /* port NULL: attach later */
bool tt_vb_conn_attach(struct vb_conn *c);          /* registers buffers at c->port */
bool tt_vb_conn_fill(struct vb_conn *c);            /* posts all buffers of a new queue pair */
void tt_vb_conn_free(struct vb_conn *c);
const char *tt_vb_conn_peer(const struct vb_conn *c, char *out, size_t n); /* the other end's address; returns it */
tuttiResult_t tt_vb_conn_qp(struct vb_conn *c);     /* a new queue pair in place of the old */
bool tt_vb_conn_post(struct vb_conn *c, uint32_t i); /* this buffer, for a frame from the other end */
void tt_vb_sent_clear(struct vb_conn *c, struct vb_sent *s); /* gives back what the bytes of a frame came from */
void tt_vb_conn_lost(struct vb_conn *c, tuttiResult_t r, const char *why);
void tt_vb_conn_end_qp(struct vb_conn *c);
/* Ends the queue pair here and now: after this the device neither reads nor writes anything for it. */
void tt_vb_conn_cut(struct vb_conn *c, const char *why);
void tt_vb_conn_ended(struct vb_conn *c, const struct tt_vb_word *word); /* the other end's doing, or the device's */
void tt_vb_conn_failed(struct vb_conn *c, const struct tt_vb_word *word); /* the next pair, or it is lost */

/* ---- verbs_wire.c ---- */
extern const struct msg_wire tt_vb_wire;
bool tt_vb_conn_probe(struct vb_conn *c);           /* sends an empty frame */
bool tt_vb_conn_is_out(struct vb_conn *c);          /* nothing is under way; sees to it that this is said */
void tt_vb_conns_flush(struct vb_ep *ep);           /* sends the frames that wait */
bool tt_vb_conn_request(struct vb_conn *c, struct ibv_send_wr *wr, const struct vb_sent *s); /* there is room */
void tt_vb_conn_end_reads(struct vb_conn *c, uint32_t place); /* waits until none of this place is under way */
int tt_vb_take(struct vb_ep *ep, struct vb_port *p); /* appends completions to ep->wc, how many */
void tt_vb_conn_completed(struct vb_ep *ep, const struct ibv_wc *wc);

#endif
#endif
