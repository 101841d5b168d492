/* The public calls: arguments are checked here, and nowhere else. SPDX-License-Identifier: Apache-2.0 */
#include "group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- version and errors ---- */

tuttiResult_t tuttiGetVersion(int *version)
{
	if (!version)
		return tt_fail(tuttiInvalidArgument, "GetVersion: version is NULL");
	*version = TUTTI_VERSION_CODE;
	return tuttiSuccess;
}

const char *tuttiGetErrorString(tuttiResult_t result)
{
	return tt_result_text(result);
}

const char *tuttiGetLastError(tuttiComm_t c)
{
	if (!c)
		return tt_last_error();
	if (!tt_comm_valid(c))
		return "";
	return atomic_load_explicit(&c->error, memory_order_acquire) ? c->text : tt_last_error();
}

/* ---- checks ---- */

static tuttiResult_t bad(tuttiResult_t r)
{
	return tt_group_error(r);
}

static tuttiResult_t check_comm(const char *call, struct tuttiComm *c)
{
	int init;

	if (!tt_comm_valid(c))
		return bad(tt_fail(tuttiInvalidArgument, "%s: comm is %s", call,
				   c ? "not a communicator" : "NULL"));
	if (atomic_load_explicit(&tt_forked, memory_order_relaxed))
		return bad(tt_fail(tuttiForked, "%s: this is a child after fork; communicators stay with the "
				   "parent", call));
	init = atomic_load_explicit(&c->init_state, memory_order_acquire);
	if (init == tuttiInProgress)
		return bad(tt_fail(tuttiInvalidUsage, "%s: init of this communicator has not finished; poll "
				   "tuttiCommGetAsyncError", call));
	if (c->finalized)
		return bad(tt_fail(tuttiInvalidUsage, "%s: the communicator was finalized", call));
	if (atomic_load_explicit(&c->error, memory_order_acquire))
		return bad(tt_comm_error(c));
	return tuttiSuccess;
}

static tuttiResult_t check_data(const char *call, const struct tt_task *t, size_t blocks)
{
	size_t size = tt_type_size(t->type), bytes;

	if (!size)
		return bad(tt_fail(tuttiInvalidArgument, "%s: datatype %d does not exist", call, (int)t->type));
	if (__builtin_mul_overflow(t->count, size, &bytes) || __builtin_mul_overflow(bytes, blocks, &bytes) ||
	    bytes > PTRDIFF_MAX)
		return bad(tt_fail(tuttiInvalidArgument, "%s: count %zu of %s is more than memory can hold", call,
				   t->count, tt_type_name(t->type)));
	return tuttiSuccess;
}

/* A device's stream may be the first that is heard of the device. */
static const struct tt_mem_kind *kind_of_stream(tuttiStream_t s)
{
	if (!tt_mem_queue_kind(s))
		tt_mem_look();
	return tt_mem_queue_kind(s);
}

/* With device links a rank does not know whether the others call on device memory: all calls go by them. */
static void place_staged(struct tt_task *t)
{
	const struct tt_peers *p = t->comm->peers;

	t->kind = tt_peers_kind(p);
	t->queue = tt_peers_queue(p);
	t->at = (struct tt_mem_place){ .device = t->comm->bound, .where = tt_peers_where(p), .line = t->queue,
					.in_host = true, .out_host = true };
	t->staged = true;
}

static tuttiResult_t check_home(const char *call, const struct tt_task *t)
{
	if (t->kind == tt_peers_kind(t->comm->peers) && t->at.where == tt_peers_where(t->comm->peers))
		return tuttiSuccess;
	return tt_fail(tuttiInvalidArgument, "%s: the stream is of another device or context than the one that was "
		       "current when the communicator was made, which has device links", call);
}

/* Whose memory and whose stream; both must be of one kind, where host memory goes with all. */
static tuttiResult_t find_place(const char *call, struct tt_task *t)
{
	const void *from = tt_task_in_bytes(t) ? t->in : NULL, *to = tt_task_out_bytes(t) ? t->out : NULL;
	const struct tt_mem_kind *in = tt_mem_kind_of(from), *out = tt_mem_kind_of(to);
	bool host_stream = t->stream && tt_stream_valid(t->stream);
	const struct tt_mem_kind *queue = host_stream || !t->stream ? NULL : kind_of_stream(t->stream);

	if (t->stream && !host_stream && !queue)
		return bad(tt_fail(tuttiInvalidArgument, "%s: stream is neither NULL nor a live host stream%s",
				   call, tt_mem_kinds() ? ", nor one of a device" : "; no device is in use here"));
	if (!in && !out && !queue) {
		if (t->comm->peers)
			place_staged(t);
		return tuttiSuccess;
	}
	t->kind = in ? in : out ? out : queue;
	if (host_stream)
		return bad(tt_fail(tuttiInvalidArgument, "%s: %s memory on a host stream; its order is that of a "
				   "stream of the device", call, t->kind->name));
	if ((in && out && in != out) || (queue && queue != t->kind))
		return bad(tt_fail(tuttiInvalidArgument, "%s: buffers and stream are of different devices' kinds",
				   call));
	t->queue = t->stream;
	t->stream = NULL;
	if (t->kind->place)
		TRY(bad(t->kind->place(call, t->queue, from, to, &t->at)));
	return t->comm->peers ? bad(check_home(call, t)) : tuttiSuccess;
}

/* A scalar of a device must be one that the call's stream reaches; one of the host is read now. */
static tuttiResult_t check_scalar(const char *call, struct tt_task *t)
{
	const void *p = t->op.scalar_at;
	const struct tt_mem_kind *kind = tt_mem_kind_of(p);
	struct tt_mem_place at = { .device = t->comm->bound };

	if (!tt_task_in_bytes(t)) { /* nothing is multiplied */
		t->op.scalar_at = NULL;
		return tuttiSuccess;
	}
	if (!kind) {
		memcpy(&t->op.scalar, p, tt_type_size(t->type));
		t->op.scalar_at = NULL;
		return tuttiSuccess;
	}
	if (kind == t->kind && (!kind->place || (kind->place(call, t->queue, p, NULL, &at) == tuttiSuccess &&
						 at.where == t->at.where)))
		return tuttiSuccess;
	return bad(tt_fail(tuttiInvalidArgument, "%s: the scalar of PreMulSum, %p, is not on the device that this call "
			   "runs on%s", call, p, t->kind ? "" : ", which is the host"));
}

static tuttiResult_t check_place(const char *call, struct tt_task *t)
{
	t->at.device = t->comm->bound;
	if (t->stream || tt_mem_kinds())
		TRY(find_place(call, t));
	TRY(bad(tt_capture_check(call, t)));
	return t->op.scalar_at ? check_scalar(call, t) : tuttiSuccess;
}

static tuttiResult_t check_root(const char *call, const struct tuttiComm *c, int root)
{
	if (root < 0 || root >= c->nranks)
		return bad(tt_fail(tuttiInvalidArgument, "%s: rank %d is not in 0..%d", call, root, c->nranks - 1));
	return tuttiSuccess;
}

static tuttiResult_t check_pointer(const char *call, const char *name, const void *p, size_t count)
{
	if (count && !p)
		return bad(tt_fail(tuttiInvalidArgument, "%s: %s is NULL and count is %zu", call, name, count));
	return tuttiSuccess;
}

/* Overlap is right only when it is the in-place form: out at `offset` bytes from in. */
static tuttiResult_t check_overlap(const char *call, const void *in, size_t in_bytes, const void *out,
				   size_t out_bytes, ptrdiff_t offset)
{
	const char *a = in, *b = out;

	if (!a || !b || !in_bytes || !out_bytes || b == a + offset || a >= b + out_bytes || b >= a + in_bytes)
		return tuttiSuccess;
	return bad(tt_fail(tuttiInvalidArgument, "%s: sendbuff and recvbuff overlap and it is not the in-place "
			   "form", call));
}

static tuttiResult_t check_op(const char *call, struct tt_task *t, tuttiRedOp_t op)
{
	struct tuttiComm *c = t->comm;
	int k = (int)op - tuttiNumOps;

	t->opcode = (int)op;
	if (k < 0 && (int)op >= 0) {
		t->op = (struct tt_op){ .kind = (int)op, .commutative = true, .nranks = c->nranks };
		return tuttiSuccess;
	}
	if (k < 0 || k >= TT_USER_OPS || !c->user_used[k])
		return bad(tt_fail(tuttiInvalidArgument, "%s: operator %d does not exist on this communicator",
				   call, (int)op));
	t->op = c->user_ops[k];
	if (t->op.kind == TT_OP_PREMULSUM && c->user_types[k] != t->type)
		return bad(tt_fail(tuttiInvalidArgument, "%s: the operator was made for %s, the call is of %s", call,
				   tt_type_name(c->user_types[k]), tt_type_name(t->type)));
	t->opcode = t->op.kind; /* handles may differ between ranks */
	return tuttiSuccess;
}

static struct tt_task task_of(enum tt_coll coll, const void *in, void *out, size_t count,
			      tuttiDataType_t type, int root, struct tuttiComm *c, tuttiStream_t stream)
{
	return (struct tt_task){ .comm = c, .stream = stream, .coll = coll, .in = in, .out = out,
				 .count = count, .type = type, .opcode = -1, .root = root,
				 .op = { .kind = tuttiSum, .commutative = true } };
}

/* ---- collectives ---- */

tuttiResult_t tuttiAllReduce(const void *sendbuff, void *recvbuff, size_t count,
			     tuttiDataType_t datatype, tuttiRedOp_t op, tuttiComm_t comm,
			     tuttiStream_t stream)
{
	static const char call[] = "AllReduce";
	struct tt_task t = task_of(TT_ALLREDUCE, sendbuff, recvbuff, count, datatype, -1, comm, stream);
	size_t bytes;

	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, 1));
	TRY(check_pointer(call, "sendbuff", sendbuff, count));
	TRY(check_pointer(call, "recvbuff", recvbuff, count));
	bytes = count * tt_type_size(datatype);
	TRY(check_overlap(call, sendbuff, bytes, recvbuff, bytes, 0));
	TRY(check_op(call, &t, op));
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

tuttiResult_t tuttiAllGather(const void *sendbuff, void *recvbuff, size_t sendcount,
			     tuttiDataType_t datatype, tuttiComm_t comm, tuttiStream_t stream)
{
	static const char call[] = "AllGather";
	struct tt_task t = task_of(TT_ALLGATHER, sendbuff, recvbuff, sendcount, datatype, -1, comm, stream);
	size_t bytes;

	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, (size_t)comm->nranks));
	TRY(check_pointer(call, "sendbuff", sendbuff, sendcount));
	TRY(check_pointer(call, "recvbuff", recvbuff, sendcount));
	bytes = sendcount * tt_type_size(datatype);
	TRY(check_overlap(call, sendbuff, bytes, recvbuff, bytes * (size_t)comm->nranks,
			  -(ptrdiff_t)(bytes * (size_t)comm->rank)));
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

tuttiResult_t tuttiReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount,
				 tuttiDataType_t datatype, tuttiRedOp_t op, tuttiComm_t comm,
				 tuttiStream_t stream)
{
	static const char call[] = "ReduceScatter";
	struct tt_task t = task_of(TT_REDUCESCATTER, sendbuff, recvbuff, recvcount, datatype, -1, comm,
				   stream);
	size_t bytes;

	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, (size_t)comm->nranks));
	TRY(check_pointer(call, "sendbuff", sendbuff, recvcount));
	TRY(check_pointer(call, "recvbuff", recvbuff, recvcount));
	bytes = recvcount * tt_type_size(datatype);
	TRY(check_overlap(call, sendbuff, bytes * (size_t)comm->nranks, recvbuff, bytes,
			  (ptrdiff_t)(bytes * (size_t)comm->rank)));
	TRY(check_op(call, &t, op));
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

tuttiResult_t tuttiBroadcast(const void *sendbuff, void *recvbuff, size_t count,
			     tuttiDataType_t datatype, int root, tuttiComm_t comm,
			     tuttiStream_t stream)
{
	static const char call[] = "Broadcast";
	struct tt_task t = task_of(TT_BROADCAST, sendbuff, recvbuff, count, datatype, root, comm, stream);
	size_t bytes;

	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, 1));
	TRY(check_root(call, comm, root));
	if (comm->rank == root)
		TRY(check_pointer(call, "sendbuff", sendbuff, count));
	TRY(check_pointer(call, "recvbuff", recvbuff, count));
	bytes = count * tt_type_size(datatype);
	if (comm->rank == root)
		TRY(check_overlap(call, sendbuff, bytes, recvbuff, bytes, 0));
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

tuttiResult_t tuttiReduce(const void *sendbuff, void *recvbuff, size_t count,
			  tuttiDataType_t datatype, tuttiRedOp_t op, int root, tuttiComm_t comm,
			  tuttiStream_t stream)
{
	static const char call[] = "Reduce";
	struct tt_task t = task_of(TT_REDUCE, sendbuff, recvbuff, count, datatype, root, comm, stream);
	size_t bytes;

	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, 1));
	TRY(check_root(call, comm, root));
	TRY(check_pointer(call, "sendbuff", sendbuff, count));
	bytes = count * tt_type_size(datatype);
	if (comm->rank == root) {
		TRY(check_pointer(call, "recvbuff", recvbuff, count));
		TRY(check_overlap(call, sendbuff, bytes, recvbuff, bytes, 0));
	}
	TRY(check_op(call, &t, op));
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

tuttiResult_t tuttiBarrier(tuttiComm_t comm, tuttiStream_t stream)
{
	static const char call[] = "Barrier";
	struct tt_task t = task_of(TT_BARRIER, NULL, NULL, 0, tuttiInt8, -1, comm, stream);

	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, 1));
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

/* ---- point to point ---- */

static tuttiResult_t send_or_recv(const char *call, const void *in, void *out, size_t count,
				  tuttiDataType_t type, int peer, tuttiComm_t comm, tuttiStream_t stream)
{
	struct tt_task t = task_of(TT_SENDRECV, in, out, count, type, peer, comm, stream);

	t.is_send = call[0] == 'S';
	TRY(check_comm(call, comm));
	TRY(check_data(call, &t, 1));
	TRY(check_root(call, comm, peer));
	TRY(check_pointer(call, t.is_send ? "sendbuff" : "recvbuff", t.is_send ? in : out, count));
	if (peer == comm->rank && !tt_group_open())
		return tt_fail(tuttiInvalidUsage, "%s: peer %d is the own rank; that needs a group with both sides",
			       call, peer);
	TRY(check_place(call, &t));
	return tt_submit(&t);
}

tuttiResult_t tuttiSend(const void *sendbuff, size_t count, tuttiDataType_t datatype, int peer,
			tuttiComm_t comm, tuttiStream_t stream)
{
	return send_or_recv("Send", sendbuff, NULL, count, datatype, peer, comm, stream);
}

tuttiResult_t tuttiRecv(void *recvbuff, size_t count, tuttiDataType_t datatype, int peer,
			tuttiComm_t comm, tuttiStream_t stream)
{
	return send_or_recv("Recv", NULL, recvbuff, count, datatype, peer, comm, stream);
}

/* ---- operators ---- */

static tuttiResult_t add_op(tuttiRedOp_t *op, struct tuttiComm *c, const struct tt_op *o,
			    tuttiDataType_t type)
{
	for (int k = 0; k < TT_USER_OPS; k++)
		if (!c->user_used[k]) {
			c->user_used[k] = true;
			c->user_ops[k] = *o;
			c->user_types[k] = type;
			*op = (tuttiRedOp_t)(tuttiNumOps + k);
			return tuttiSuccess;
		}
	return tt_fail(tuttiInvalidUsage, "a communicator holds at most %d created operators; destroy some",
		       TT_USER_OPS);
}

tuttiResult_t tuttiRedOpCreatePreMulSum(tuttiRedOp_t *op, void *scalar, tuttiDataType_t datatype,
					tuttiScalarResidence_t residence, tuttiComm_t comm)
{
	struct tt_op o = { .kind = TT_OP_PREMULSUM, .commutative = true };

	TRY(check_comm("RedOpCreatePreMulSum", comm));
	if (!op || !scalar || !tt_type_size(datatype))
		return tt_fail(tuttiInvalidArgument, "RedOpCreatePreMulSum: op or scalar is NULL, or datatype %d does "
			       "not exist", (int)datatype);
	if (residence != tuttiScalarHostImmediate && residence != tuttiScalarDevice)
		return tt_fail(tuttiInvalidArgument, "RedOpCreatePreMulSum: residence %d does not exist",
			       (int)residence);
	if (residence == tuttiScalarDevice)
		o.scalar_at = scalar;
	else if (tt_mem_kind_of(scalar))
		return tt_fail(tuttiInvalidArgument, "RedOpCreatePreMulSum: the scalar is in %s memory, which is read "
			       "with tuttiScalarDevice alone", tt_mem_kind_of(scalar)->name);
	else
		memcpy(&o.scalar, scalar, tt_type_size(datatype));
	return add_op(op, comm, &o, datatype);
}

tuttiResult_t tuttiRedOpCreateUser(tuttiRedOp_t *op, tuttiUserOp_t fn, int commutative,
				   void *context, tuttiComm_t comm)
{
	struct tt_op o = { .kind = TT_OP_USER, .commutative = commutative != 0, .fn = fn,
			   .context = context };

	TRY(check_comm("RedOpCreateUser", comm));
	if (!op || !fn)
		return tt_fail(tuttiInvalidArgument, "RedOpCreateUser: op or fn is NULL");
	return add_op(op, comm, &o, tuttiNumTypes);
}

tuttiResult_t tuttiRedOpDestroy(tuttiRedOp_t op, tuttiComm_t comm)
{
	int k = (int)op - tuttiNumOps;

	TRY(check_comm("RedOpDestroy", comm));
	if (k < 0 || k >= TT_USER_OPS || !comm->user_used[k])
		return tt_fail(tuttiInvalidArgument, "RedOpDestroy: operator %d is built in or does not exist",
			       (int)op);
	comm->user_used[k] = false;
	return tuttiSuccess;
}
