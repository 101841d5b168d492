/* verbs: what completions, events and errno values mean, and what to do. SPDX-License-Identifier: Apache-2.0 */
#include "verbs_dev.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static const struct tt_vb_word unknown = { "unknown", "a code that this version has no words for",
					   "see the documentation of the RDMA libraries" };

#if TT_HAVE_VERBS

#define BUG "please report it with TUTTI_LOG=debug"
#define W(code, cause, mend) [IBV_WC_##code] = { #code, cause, mend }
static const struct tt_vb_word statuses[] = {
	W(SUCCESS, "done", "nothing"),
	W(LOC_LEN_ERR, "a message was longer than the buffer that waited for it", BUG),
	W(LOC_QP_OP_ERR, "the device could not send: its link is down, its address is gone, or the peer has closed",
	  "check the interface and its addresses (tutti-info --check-rdma)"),
	W(LOC_EEC_OP_ERR, "an error of the end-to-end context on this side", BUG),
	W(LOC_PROT_ERR, "memory given to this device is not, or no longer, registered as needed",
	  "keep registered memory mapped until operations on it are over; else " BUG),
	W(WR_FLUSH_ERR,
	  "the queue pair has stopped, and nothing says why: its connection or link has ended, or something closed it",
	  "see the state of the link, the peer's error and the kernel's log"),
	W(MW_BIND_ERR, "a memory window was not bound", BUG),
	W(BAD_RESP_ERR, "the peer's device gave an answer that makes no sense",
	  "compare the firmware of both ends; else " BUG),
	W(LOC_ACCESS_ERR, "data came for memory of this rank that may not be written", BUG),
	W(REM_INV_REQ_ERR, "the peer's device refused the request: no such operation, or too long",
	  "compare the library versions and settings of both ends; else " BUG),
	W(REM_ACCESS_ERR, "the peer's device refused access: its memory is not, or no longer, registered for it",
	  "keep registered memory mapped until operations on it are over; else " BUG),
	W(REM_OP_ERR, "the peer's device could not finish the operation", "see the log of the peer and of its kernel"),
	W(RETRY_EXC_ERR,
	  "the peer does not answer: its process, machine or link is gone, or packets are lost on the way",
	  "see whether the peer lives; check link, MTU, GIDs and routes, and flow control of the switches; "
	  "TUTTI_IB_TIMEOUT and TUTTI_IB_RETRY_CNT say how long to try"),
	W(RNR_RETRY_EXC_ERR, "the peer had no buffer ready for too long: it is stopped or very slow",
	  "see what the peer does; else " BUG),
	W(LOC_RDD_VIOL_ERR, "a datagram domain does not match", BUG),
	W(REM_INV_RD_REQ_ERR, "the peer refused a reliable datagram", BUG),
	W(REM_ABORT_ERR, "the peer's device gave the operation up", "see the log of the peer and of its kernel"),
	W(INV_EECN_ERR, "no such end-to-end context", BUG),
	W(INV_EEC_STATE_ERR, "the end-to-end context is in the wrong state", BUG),
	W(FATAL_ERR, "the device has failed", "see the kernel's log; reset the device or restart the machine"),
	W(RESP_TIMEOUT_ERR, "the peer's device took too long to answer", "see whether the peer lives"),
	W(GENERAL_ERR, "the device gives no closer reason", "see the kernel's log"),
	W(TM_ERR, "an error of tag matching", BUG),
	W(TM_RNDV_INCOMPLETE, "a rendezvous of tag matching was not finished", BUG),
};
#undef W

#define W(code, blow, cause, mend) [IBV_EVENT_##code] = { { #code, cause, mend }, blow }
static const struct {
	struct tt_vb_word word;
	enum tt_vb_blow blow;
} events[] = {
	W(CQ_ERR, TT_VB_DEV_LOST, "a completion queue overran or failed", BUG),
	W(QP_FATAL, TT_VB_QP_LOST, "the queue pair failed: its connection broke, or the device is in trouble",
	  "see whether the peer lives, and the kernel's log"),
	W(QP_REQ_ERR, TT_VB_QP_LOST, "the peer sent a request that the queue pair cannot take",
	  "compare the library versions and settings of both ends"),
	W(QP_ACCESS_ERR, TT_VB_QP_LOST, "the peer wrote where it may not",
	  "keep registered memory mapped until operations on it are over; else " BUG),
	W(COMM_EST, TT_VB_NOTE, "the first data arrived before the connection was said to be up", "nothing"),
	W(SQ_DRAINED, TT_VB_NOTE, "the send queue has run empty, as it does when a connection closes", "nothing"),
	W(PATH_MIG, TT_VB_NOTE, "the connection moved to its other path", "nothing"),
	W(PATH_MIG_ERR, TT_VB_NOTE, "the connection could not move to its other path", "check the links"),
	W(DEVICE_FATAL, TT_VB_DEV_LOST, "the device has failed or was removed",
	  "see the kernel's log; then make a new communicator"),
	W(PORT_ACTIVE, TT_VB_LOOK, "the port works again", "nothing"),
	W(PORT_ERR, TT_VB_LOOK, "the port went down", "check cable, switch and `ip link`"),
	W(LID_CHANGE, TT_VB_LOOK, "the subnet manager gave the port another address",
	  "make a new communicator if connections fail"),
	W(PKEY_CHANGE, TT_VB_LOOK, "the subnet manager changed the partition keys of the port",
	  "see TUTTI_IB_PKEY and the configuration of the subnet manager"),
	W(SM_CHANGE, TT_VB_NOTE, "another subnet manager took over", "nothing"),
	W(SRQ_ERR, TT_VB_DEV_LOST, "the shared receive queue failed", BUG),
	W(SRQ_LIMIT_REACHED, TT_VB_NOTE, "the shared receive queue runs low", "nothing"),
	W(QP_LAST_WQE_REACHED, TT_VB_NOTE, "the queue pair has taken its last receive buffer", "nothing"),
	W(CLIENT_REREGISTER, TT_VB_NOTE, "the subnet manager asks for subscriptions anew", "nothing"),
	W(GID_CHANGE, TT_VB_LOOK, "an address of the interface came or went",
	  "leave addresses as they are while jobs run; make a new communicator if connections fail"),
	W(WQ_FATAL, TT_VB_QP_LOST, "a work queue failed", BUG),
};
#undef W

#define W(code, cause, mend) [RDMA_CM_EVENT_##code] = { #code, cause, mend }
static const struct tt_vb_word cm_events[] = {
	W(ADDR_RESOLVED, "the address leads to an RDMA device", "nothing"),
	W(ADDR_ERROR, "no RDMA device leads to the address, or the address does not answer",
	  "check routes, and `ip neigh`"),
	W(ROUTE_RESOLVED, "there is a way to the address", "nothing"),
	W(ROUTE_ERROR, "there is no way to the address", "check routes; on InfiniBand the subnet manager"),
	W(CONNECT_REQUEST, "a peer wants to connect", "nothing"),
	W(CONNECT_RESPONSE, "the peer has agreed", "nothing"),
	W(CONNECT_ERROR, "the connection could not be made", "see the peer's log"),
	W(UNREACHABLE, "the peer does not answer", "check link, routes and firewall (RoCE v2: UDP port 4791)"),
	W(REJECTED, "the peer refused: nobody listens there, or it is full", "see the peer's log"),
	W(ESTABLISHED, "connected", "nothing"),
	W(DISCONNECTED, "the connection is closed: by the peer, or as a process, link or queue pair is gone",
	  "see the peer's error and the state of the link"),
	W(DEVICE_REMOVAL, "the device was removed", "make a new communicator over what is left"),
	W(MULTICAST_JOIN, "joined", "nothing"),
	W(MULTICAST_ERROR, "an error of multicast, which is not used here", BUG),
	W(ADDR_CHANGE, "an address of the interface changed",
	  "leave addresses as they are while jobs run; make a new communicator"),
	W(TIMEWAIT_EXIT, "the number of the closed queue pair may be used again", "nothing"),
};
#undef W

#define LOOK(table, code) ((code) >= 0 && (size_t)(code) < sizeof(table) / sizeof(table[0]))

const struct tt_vb_word *tt_vb_wc_word(int status)
{
	return LOOK(statuses, status) && statuses[status].name ? &statuses[status] : &unknown;
}

const struct tt_vb_word *tt_vb_event_word(int event)
{
	return LOOK(events, event) && events[event].word.name ? &events[event].word : &unknown;
}

enum tt_vb_blow tt_vb_event_blow(int event)
{
	return LOOK(events, event) ? events[event].blow : TT_VB_NOTE;
}

const struct tt_vb_word *tt_vb_cm_word(int event)
{
	return LOOK(cm_events, event) && cm_events[event].name ? &cm_events[event] : &unknown;
}

bool tt_vb_wc_follows(int status)
{
	return status == IBV_WC_WR_FLUSH_ERR;
}

#else

const struct tt_vb_word *tt_vb_wc_word(int status)
{
	return &unknown;
}

const struct tt_vb_word *tt_vb_event_word(int event)
{
	return &unknown;
}

enum tt_vb_blow tt_vb_event_blow(int event)
{
	return TT_VB_NOTE;
}

const struct tt_vb_word *tt_vb_cm_word(int event)
{
	return &unknown;
}

bool tt_vb_wc_follows(int status)
{
	return false;
}

#endif

const char *tt_vb_say(const struct tt_vb_word *w, const struct tt_vb_place *at, char *out, size_t n)
{
	char rank[32] = "", peer[128] = "", qp[32] = "", port[256] = "";

	if (at->rank >= 0)
		snprintf(rank, sizeof(rank), "rank %d ", at->rank);
	if (at->peer)
		snprintf(peer, sizeof(peer), "at %s, ", at->peer);
	if (at->qpn)
		snprintf(qp, sizeof(qp), "queue pair %u of ", at->qpn);
	if (at->port)
		tt_vb_port_text(at->port, port, sizeof(port));
	snprintf(out, n, "%s%s%s%s%s%s: %s; %s", rank, peer, qp, port, *port || *peer || *rank ? ": " : "", w->name,
		 w->cause, w->mend);
	return out;
}

static void memlock_text(const char *call, int err, char *out, size_t n)
{
	struct rlimit r;
	char limit[40] = "unlimited";

	if (!getrlimit(RLIMIT_MEMLOCK, &r) && r.rlim_cur != RLIM_INFINITY)
		snprintf(limit, sizeof(limit), "%llu KiB", (unsigned long long)r.rlim_cur >> 10);
	snprintf(out, n,
		 "%s: %s: locked memory is limited to %s (RLIMIT_MEMLOCK), or the device is full; raise it: ulimit -l, "
		 "limits.conf \"* - memlock unlimited\", systemd LimitMEMLOCK=infinity, container --ulimit memlock=-1",
		 call, strerror(err), limit);
}

static const struct {
	int err;
	const char *words;
} errnos[] = {
	{ EACCES, "/dev/infiniband/* must be readable and writable (group rdma; container: "
		  "--device=/dev/infiniband)" },
	{ EPERM, "/dev/infiniband/* must be allowed (container: --device=/dev/infiniband, "
		 "--cap-add=IPC_LOCK)" },
	{ ENOENT, "no device file: load ib_uverbs and rdma_ucm; container: --device=/dev/infiniband" },
	{ ENODEV, "the device is gone, or no RDMA device leads to the address" },
	{ ENXIO, "the device file leads to no device: the module or the device was removed" },
	{ ENOSYS, "this kernel or driver cannot do it: load ib_uverbs" },
	{ EOPNOTSUPP, "this device cannot do it" },
	{ EIO, "the device has failed or was removed: see the kernel's log" },
	{ EFAULT, "the memory is not mapped, or may not be written" },
	{ EINVAL, "refused by the device (RoCE: a GID that is gone or has no route)" },
	{ EADDRNOTAVAIL, "no RDMA device has the address" },
	{ EADDRINUSE, "the port is taken" },
	{ ENETUNREACH, "no route to the peer: give both interfaces addresses of one network, or a route" },
	{ EHOSTUNREACH, "the peer's machine does not answer" },
	{ ETIMEDOUT, "the peer does not answer: route, neighbour (`ip neigh`) or firewall" },
	{ ECONNREFUSED, "nobody listens at the peer's port" },
};

const char *tt_vb_errno(const char *call, int err, char *out, size_t n)
{
	if (err < 0)
		err = -err;
	if (err == ENOMEM || err == EAGAIN) {
		memlock_text(call, err, out, n);
		return out;
	}
	for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++)
		if (errnos[i].err == err) {
			snprintf(out, n, "%s: %s: %s", call, strerror(err), errnos[i].words);
			return out;
		}
	snprintf(out, n, "%s: %s (errno %d)", call, strerror(err), err);
	return out;
}
