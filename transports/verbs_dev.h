/* The lower half of the verbs transport: the RDMA libraries, the devices of this machine and their ports, which
 * pair of GIDs two ports should use, and words for what goes wrong. It knows no links, no ranks and no wire.
 * Compiles without the RDMA headers (TT_HAVE_VERBS is 0; then tt_vb says so), runs without the libraries. */
#ifndef TT_VERBS_DEV_H
#define TT_VERBS_DEV_H

#include "base.h"

#if !defined(TT_NO_VERBS) && __has_include(<infiniband/verbs.h>) && __has_include(<rdma/rdma_cma.h>)
#define TT_HAVE_VERBS 1
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#else
#define TT_HAVE_VERBS 0
#endif

/* ---- the libraries (verbs_lib.c): libibverbs.so.1 and librdmacm.so.1, loaded at the first tt_vb, then kept ----
 * vb->create_qp is ibv_create_qp, vb->cm_connect is rdma_connect. What the headers define inline over the device's
 * own operations (ibv_poll_cq, ibv_post_send, ibv_req_notify_cq, ...) is called as usual. ibv_reg_mr and
 * ibv_query_port are macros over symbols: use vb->reg_mr and tt_vb_query_port. The versions are those of the ABI. */
#define TT_VB_IBV(X)                                                                                                   \
	X(get_device_list, 1.1) X(free_device_list, 1.1) X(get_device_name, 1.1) X(get_device_guid, 1.1)               \
	X(open_device, 1.1) X(close_device, 1.1) X(query_device, 1.1) X(query_port, 1.1) X(query_gid, 1.1)             \
	X(alloc_pd, 1.1) X(dealloc_pd, 1.1) X(reg_mr, 1.1) X(dereg_mr, 1.1) X(create_cq, 1.1) X(destroy_cq, 1.1)       \
	X(create_comp_channel, 1.0) X(destroy_comp_channel, 1.0) X(get_cq_event, 1.1) X(ack_cq_events, 1.1)            \
	X(create_qp, 1.1) X(modify_qp, 1.1) X(query_qp, 1.1) X(destroy_qp, 1.1) X(create_srq, 1.1)                     \
	X(destroy_srq, 1.1) X(get_async_event, 1.1) X(ack_async_event, 1.1) X(fork_init, 1.1) X(wc_status_str, 1.1)    \
	X(event_type_str, 1.1) X(node_type_str, 1.1) X(port_state_str, 1.1)
/* NULL where the library is older. */
#define TT_VB_IBV_NEWER(X)                                                                                             \
	X(get_pkey_index, 1.5) X(reg_mr_iova2, 1.8) X(reg_dmabuf_mr, 1.12) X(is_fork_initialized, 1.13)
#define TT_VB_CM(X)                                                                                                    \
	X(create_event_channel, 1.0) X(destroy_event_channel, 1.0) X(create_id, 1.0) X(destroy_id, 1.0)                \
	X(bind_addr, 1.0) X(resolve_addr, 1.0) X(resolve_route, 1.0) X(listen, 1.0) X(accept, 1.0) X(reject, 1.0)      \
	X(connect, 1.0) X(disconnect, 1.0) X(get_cm_event, 1.0) X(ack_cm_event, 1.0) X(create_qp, 1.0)                 \
	X(destroy_qp, 1.0) X(set_option, 1.0) X(init_qp_attr, 1.2) X(get_src_port, 1.0) X(migrate_id, 1.0)             \
	X(event_str, 1.0)

struct tt_vb {
	const char *verbs_path, *cm_path; /* what was loaded, with the version in the name */
#if TT_HAVE_VERBS
#define TT_VB_MEMBER(name, version) __typeof__(ibv_##name) *name;
	TT_VB_IBV(TT_VB_MEMBER)
	TT_VB_IBV_NEWER(TT_VB_MEMBER)
#undef TT_VB_MEMBER
	__typeof__(_ibv_query_gid_table) *query_gid_table; /* 1.11, NULL where older */
#define TT_VB_MEMBER(name, version) __typeof__(rdma_##name) *cm_##name;
	TT_VB_CM(TT_VB_MEMBER)
#undef TT_VB_MEMBER
#endif
};

/* The table, or NULL with one line in `why` (may be NULL) that names library and package. Any thread. */
const struct tt_vb *tt_vb(char *why, size_t n);
/* What a fork does while memory is registered; settled once, before the first device is opened.
 * COPIED: nothing (kernel 5.12 and later); HIDDEN: by ibv_fork_init, a child that touches registered pages dies;
 * UNSAFE: the parent's device may lose its pages. */
enum tt_vb_fork { TT_VB_FORK_COPIED, TT_VB_FORK_HIDDEN, TT_VB_FORK_UNSAFE };
enum tt_vb_fork tt_vb_fork(void);
const char *tt_vb_fork_text(void);
#if TT_HAVE_VERBS
int tt_vb_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr); /* 0 or errno */
#endif

/* ---- settings (verbs_conf.c): TUTTI_IB_*; what is out of range is logged once and replaced ---- */
struct tt_vb_conf {
	int gid_index;  /* -1: chosen for each peer */
	int timeout;    /* 4.096 us * 2^timeout; 0: tt_vb_timeout */
	int retry_cnt;  /* 0 to 6; also for rnr_retry: 7 would be for ever */
	int sl, tc;     /* service level, traffic class */
	int pkey;       /* partition key; 0: that of index 0 */
	int mtu;        /* bytes, a bound; 0: the active MTU of the port */
	int qps;        /* queue pairs for each connection */
};
void tt_vb_conf(struct tt_vb_conf *c);
int tt_vb_timeout(const struct tt_vb_conf *c, bool hardware); /* what to give a device, never 0: that is for ever */
/* Whether `list` (as TUTTI_IB_HCA) admits a port: names or beginnings of names, with :port or without, separated by
 * commas; = in front: whole names; ^ in front: all but these; empty: all. */
bool tt_vb_hca(const char *list, const char *dev, int port);
int tt_vb_mtu_code(int bytes); /* 4096 -> IBV_MTU_4096; the largest that is not more */

/* ---- GIDs (verbs_gid.c, pure) ---- */
enum tt_gid_type { TT_GID_IB, TT_GID_ROCE1, TT_GID_ROCE2 };

struct tt_gid { /* packed for the wire, but index is in host order */
	uint8_t raw[16];
	uint16_t index; /* in the table of its port */
	uint8_t type;
	uint8_t prefix;  /* bits of its network as an IPv6 prefix (::ffff:10.1.0.5/24 has 120); 0: not known */
	uint8_t err;     /* errno of reading it, or 0 */
	char netdev[16]; /* empty: not known */
	uint8_t pad[3];
};

/* The entries that can be used at all, for sending to a peer; forced: only that index, or -1. Returns how many. */
int tt_gid_usable(const struct tt_gid *t, int n, int forced, struct tt_gid *out, int max);

struct tt_gid_pair {
	struct tt_gid a, b;
};
/* The pairs by which the ports of tables a and b may reach each other, best first; returns how many (up to max).
 * Both ends get the same list, with sides swapped, from the same tables. same_host: the two are one machine. */
int tt_gid_pairs(const struct tt_gid *a, int na, const struct tt_gid *b, int nb, bool same_host,
		 struct tt_gid_pair *out, int max);
/* Larger is nearer: scope, RoCE version, subnet. */
int tt_gid_nearness(const struct tt_gid_pair *p, bool same_host);
bool tt_gid_link_local(const struct tt_gid *g);
/* As an address: "10.0.0.1" for a mapped one, else as IPv6. Returns out. */
const char *tt_gid_text(const uint8_t *raw, char *out, size_t n);

/* ---- devices and ports (verbs_dev.c) ---- */
enum tt_vb_wire { TT_VB_IB, TT_VB_ROCE, TT_VB_IWARP };

struct tt_vb_port {
	struct tt_vb_dev *dev;
	int num;             /* from 1 */
	enum tt_vb_wire wire;
	int state;           /* enum ibv_port_state; 4 is active */
	int mtu;             /* active, bytes */
	double speed;        /* bytes a second, one way */
	uint16_t lid;
	uint16_t pkey_index; /* of TUTTI_IB_PKEY */
	char netdev[16];     /* empty: none, or not known */
	bool netdev_up;      /* has a carrier */
	uint64_t down_ns;    /* since when the device has said that it is down; 0: it is not */
	bool wanted;         /* TUTTI_IB_HCA admits it */
	bool usable;         /* else `why` says why not; of two reasons the first in the path */
	char why[256];
	struct tt_gid *gids;
	int ngids;
};

struct tt_vb_dev {
	struct ibv_context *ctx; /* NULL: could not be opened, see why */
	char name[64], node[24], fw[64], pci[24];
	char why[256];
	bool lost;               /* it has said so itself */
	uint64_t guid;           /* as printed: host order */
	int numa;                /* -1: not known */
	int max_qp, max_qp_wr, max_sge, max_cqe, max_mr, max_srq, max_rd_atomic;
	uint64_t max_mr_size;
	bool odp;                /* registers memory without pinning it, for writes */
	int inline_try;          /* bytes to ask for at create_qp; halve until it succeeds */
	struct tt_vb_port *ports;
	int nports;
};

struct tt_vb_devs {
	struct tt_vb_dev *dev;
	int n;
};

/* All devices that TUTTI_IB_HCA admits some port of, opened. Success with n = 0 where there are none; a device that
 * cannot be opened has no ctx, and is no failure. To be closed after all that was made from the contexts. */
tuttiResult_t tt_vb_open(struct tt_vb_devs *d);
/* The same with devices that TUTTI_IB_HCA does not admit, for tutti-info. */
tuttiResult_t tt_vb_open_all(struct tt_vb_devs *d);
void tt_vb_close(struct tt_vb_devs *d);
/* The usable ports, best first: near the calling thread's NUMA node, then by speed, then by name. */
int tt_vb_ports(const struct tt_vb_devs *d, struct tt_vb_port **out, int max);
const char *tt_vb_wire_name(enum tt_vb_wire w); /* InfiniBand, RoCE, iWARP */
const char *tt_vb_state_name(int state);
/* All of the port once more, its GIDs too: after an asynchronous event. */
void tt_vb_port_look(struct tt_vb_port *p);
/* The addresses of the port's interface and of VLANs on it, for rdma_cm; link-local last. Returns how many. */
struct tt_local_addr; /* sock.h */
int tt_vb_port_addrs(const struct tt_vb_port *p, struct tt_local_addr *out, int max);
/* "device rxe0 port 1 (RoCE, net0, active)": for error texts. Returns out. */
const char *tt_vb_port_text(const struct tt_vb_port *p, char *out, size_t n);
/* Registers and releases `bytes` of memory, as a check: 0 or an errno. */
int tt_vb_try_register(const struct tt_vb_dev *d, size_t bytes);
/* The errno of registering the dma-buf of descriptor -1: EBADF where the driver takes dma-bufs. */
int tt_vb_try_dmabuf(const struct tt_vb_dev *d);
/* Opens nothing: whether there is a library and an active port that is admitted, with the speed of the fastest,
 * else one line in `why`. For probe. */
bool tt_vb_probe(double *speed, char *why, size_t n);
/* Whether this machine has RDMA devices, libraries or not. */
bool tt_vb_any(void);

/* ---- words (verbs_words.c): a name, the cause, and what to do; never NULL ---- */
struct tt_vb_word {
	const char *name, *cause, *mend;
};
const struct tt_vb_word *tt_vb_wc_word(int status);   /* enum ibv_wc_status */
const struct tt_vb_word *tt_vb_event_word(int event); /* enum ibv_event_type */
const struct tt_vb_word *tt_vb_cm_word(int event);    /* enum rdma_cm_event_type */
/* Whether the status only follows an earlier error of the queue pair, which is the one to report. */
bool tt_vb_wc_follows(int status);
/* What an asynchronous event means: nothing, look at the port again, the queue pair is lost, the device is lost. */
enum tt_vb_blow { TT_VB_NOTE, TT_VB_LOOK, TT_VB_QP_LOST, TT_VB_DEV_LOST };
enum tt_vb_blow tt_vb_event_blow(int event);

/* Who and where; what is not known is 0, NULL or -1 (rank) and left out. */
struct tt_vb_place {
	int rank;                       /* the peer's */
	const char *peer;               /* its address */
	const struct tt_vb_port *port;
	uint32_t qpn;
};
/* One line: "rank 3 at 10.0.0.2, queue pair 17 of device rxe0 port 1 (RoCE, net0, active): RETRY_EXC_ERR: <cause>;
 * <mend>". Returns out. */
const char *tt_vb_say(const struct tt_vb_word *w, const struct tt_vb_place *at, char *out, size_t n);
/* errno of a verbs call ("ibv_reg_mr") in words: ENOMEM with the memlock limit, EACCES, ENODEV ... Returns out. */
const char *tt_vb_errno(const char *call, int err, char *out, size_t n);

#endif
