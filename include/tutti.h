/* tutti: collective communication for host memory. SPDX-License-Identifier: Apache-2.0
 *
 * This header is the manual. It follows NCCL's API with the prefix `tutti`, so that a port is a
 * search-and-replace; enum values equal NCCL's, tutti's own result codes start at 64.
 *
 * The words used below:
 *   rank          a member of a communicator, 0 .. n-1; a process may hold several, one a thread
 *   count         elements of `datatype`, never bytes; size_t, so counts past 2^32 are ordinary
 *   host stream   a queue of operations that run in order in the background (HostStreamCreate)
 *   blocking call stream NULL: the call returns when the result is in `recvbuff`
 *
 * Unless a function says otherwise: it may be called from any thread; two threads may use two
 * communicators at the same time, one communicator is used by one thread at a time (CommAbort and
 * CommGetAsyncError excepted, which any thread may call at any time); buffers stay the caller's, are
 * untouched by an error in the arguments, and may be unaligned; on failure tuttiGetLastError tells
 * what happened, to whom and what to do. No function calls abort or exit or prints on stdout. */
#ifndef TUTTI_H
#define TUTTI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TUTTI_MAJOR 0
#define TUTTI_MINOR 1
#define TUTTI_PATCH 0
#define TUTTI_VERSION_CODE (TUTTI_MAJOR * 10000 + TUTTI_MINOR * 100 + TUTTI_PATCH)

/* ---- Types ------------------------------------------------------------------------------------ */

typedef struct tuttiComm *tuttiComm_t;
typedef struct tuttiStream *tuttiStream_t; /* NULL, or a host stream; later any cudaStream_t */

#define TUTTI_UNIQUE_ID_BYTES 128
typedef struct {
	char internal[TUTTI_UNIQUE_ID_BYTES];
} tuttiUniqueId;

typedef enum {
	tuttiSuccess = 0,
	tuttiUnhandledCudaError = 1,
	tuttiSystemError = 2,     /* a system call failed: the text has errno in words */
	tuttiInternalError = 3,   /* a bug in tutti */
	tuttiInvalidArgument = 4, /* nothing was changed */
	tuttiInvalidUsage = 5,    /* nothing was changed */
	tuttiRemoteError = 6,     /* another rank failed first; the text names it */
	tuttiInProgress = 7,      /* a nonblocking communicator has not finished */
	tuttiTimeout = 8,         /* a deadline passed; the text says who was waited for */
	tuttiPeerDead = 64,       /* a rank died: rank, host, pid, operation and sequence number */
	tuttiMismatch = 65,       /* ranks called different things; both signatures are in the text */
	tuttiAborted = 66,        /* the communicator was aborted */
	tuttiUnsupported = 67,    /* a combination that the table in docs/api.md does not promise */
	tuttiForked = 68          /* called in a child after fork: the communicator is the parent's */
} tuttiResult_t;

typedef enum {
	tuttiInt8 = 0, tuttiChar = 0,
	tuttiUint8 = 1,
	tuttiInt32 = 2, tuttiInt = 2,
	tuttiUint32 = 3,
	tuttiInt64 = 4,
	tuttiUint64 = 5,
	tuttiFloat16 = 6, tuttiHalf = 6,
	tuttiFloat32 = 7, tuttiFloat = 7,
	tuttiFloat64 = 8, tuttiDouble = 8,
	tuttiBfloat16 = 9,
	tuttiFloat8e4m3 = 10,
	tuttiFloat8e5m2 = 11,
	tuttiNumTypes = 12
} tuttiDataType_t;

/* Built-in operators, or a handle from tuttiRedOpCreate...; handles start at tuttiNumOps. */
typedef enum {
	tuttiSum = 0,
	tuttiProd = 1,
	tuttiMax = 2,
	tuttiMin = 3,
	tuttiAvg = 4,
	tuttiNumOps = 5,
	tuttiMaxRedOp = 0x7fffffff
} tuttiRedOp_t;

typedef enum { tuttiScalarDevice = 0, tuttiScalarHostImmediate = 1 } tuttiScalarResidence_t;

#define TUTTI_UNDEF_INT ((int)0x80000000) /* "not set" in tuttiConfig_t, as INT_MIN in NCCL */
#define TUTTI_SPLIT_NOCOLOR (-1)

/* Set it with TUTTI_CONFIG_INITIALIZER; fields left so take the setting or the default. */
typedef struct {
	size_t size;
	unsigned int magic;
	unsigned int version;
	int blocking;              /* 1 (default): init returns when done; 0: returns InProgress */
	const char *commName;      /* at most 63 bytes are kept, for messages; copied */
	double initDeadline;       /* seconds until init gives up with a roll call; default 120 */
	double deadline;           /* seconds without a byte moving once data moves; default 60 */
	double arrivalDeadline;    /* seconds to wait for a live rank that has not called; 0: for ever */
	int device;                /* this rank's CUDA device, -1: none; default: the thread's current one */
} tuttiConfig_t;

#define TUTTI_CONFIG_MAGIC 0x7a771c0du
#define TUTTI_CONFIG_INITIALIZER                                                                   \
	{ sizeof(tuttiConfig_t), TUTTI_CONFIG_MAGIC, TUTTI_VERSION_CODE, TUTTI_UNDEF_INT, NULL, -1.0,  \
	  -1.0, -1.0, TUTTI_UNDEF_INT }

/* ---- Version and errors ------------------------------------------------------------------------ */

/* Sets *version to major * 10000 + minor * 100 + patch. Errors: InvalidArgument (NULL). */
tuttiResult_t tuttiGetVersion(int *version);

/* A short English text for a result code; static, never NULL. */
const char *tuttiGetErrorString(tuttiResult_t result);

/* The text of the last error of `comm`, or of the calling thread when comm is NULL. Never NULL; ""
 * if there was none. Valid until the next call on that communicator or thread. */
const char *tuttiGetLastError(tuttiComm_t comm);

/* ---- Communicators ----------------------------------------------------------------------------- */

/* Makes the id that all ranks of one communicator pass to CommInitRank. Call it once, in any
 * process that lives until init is over, and bring it to the others (a file, MPI_Bcast, a store).
 * It holds the addresses at which the calling process listens and a secret of the job.
 * Errors: InvalidArgument (NULL), SystemError (no address to listen on). */
tuttiResult_t tuttiGetUniqueId(tuttiUniqueId *id);

/* Makes rank `rank` of a communicator of `nranks`. Collective: blocks until all ranks have called or
 * the init deadline passed; then all of them return Timeout with the ranks that are missing. Several
 * ranks may be threads of one process; one thread makes several only between GroupStart and GroupEnd.
 * Errors: InvalidArgument, SystemError, Timeout, PeerDead, RemoteError (a rank with another version
 * or other settings: the text names it). */
tuttiResult_t tuttiCommInitRank(tuttiComm_t *comm, int nranks, tuttiUniqueId id, int rank);

/* The same with settings; config may be NULL. With blocking = 0 it returns InProgress at once, and
 * only GetAsyncError, GetLastError and Abort are legal until GetAsyncError says something else. */
tuttiResult_t tuttiCommInitRankConfig(tuttiComm_t *comm, int nranks, tuttiUniqueId id, int rank,
				      tuttiConfig_t *config);

/* Makes all ndev ranks of a communicator in this process; comms[i] is rank i, its config.device devlist[i]: a CUDA
 * device, which may be there several times, or -1. devlist NULL: the thread's current device for all. Drive them from
 * ndev threads or in groups. */
tuttiResult_t tuttiCommInitAll(tuttiComm_t *comms, int ndev, const int *devlist);

/* Makes a communicator from what the launcher left in the environment: tutti-run's TUTTI_RANK,
 * TUTTI_SIZE, TUTTI_ROOT, TUTTI_JOB, or torchrun's RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
 * Collective over the job. docs/api.md has the order of preference. config may be NULL.
 * Errors: InvalidUsage (no launcher found: the text lists what was looked for), and CommInitRank's. */
tuttiResult_t tuttiCommInitFromEnv(tuttiComm_t *comm, tuttiConfig_t *config);

/* Collective over `comm`: ranks of equal color >= 0 form a new communicator, ordered by key, then by
 * rank in comm. TUTTI_SPLIT_NOCOLOR sets *newcomm to NULL. config NULL: comm's. */
tuttiResult_t tuttiCommSplit(tuttiComm_t comm, int color, int key, tuttiComm_t *newcomm,
			     tuttiConfig_t *config);

/* Waits until all operations of this rank are done and says goodbye, so that leaving is not taken for
 * dying; bounded. Reports messages that nobody received. Only Destroy is legal afterwards. */
tuttiResult_t tuttiCommFinalize(tuttiComm_t comm);

/* Finalize where that has not happened, then frees. Local and bounded; NULL is allowed. */
tuttiResult_t tuttiCommDestroy(tuttiComm_t comm);

/* Ends every pending call on comm (they return Aborted) from any thread and frees the communicator
 * as soon as no call is inside; local and bounded. Other ranks see this rank as having aborted. */
tuttiResult_t tuttiCommAbort(tuttiComm_t comm);

/* Sets *asyncError to the sticky error of comm, InProgress, or Success. Never blocks. */
tuttiResult_t tuttiCommGetAsyncError(tuttiComm_t comm, tuttiResult_t *asyncError);

tuttiResult_t tuttiCommCount(const tuttiComm_t comm, int *count);
tuttiResult_t tuttiCommUserRank(const tuttiComm_t comm, int *rank);

/* Sets *device to the CUDA device of this rank: config.device, or the thread's current one when the communicator was
 * made; -1: none. Where config.device named it, calls with memory or streams of another are InvalidArgument. */
tuttiResult_t tuttiCommCuDevice(const tuttiComm_t comm, int *device);

/* ---- Memory ------------------------------------------------------------------------------------- */

/* Memory of the current device, or host memory where there is none; page aligned. Free with
 * tuttiMemFree. Errors: InvalidArgument, SystemError (no memory). size 0 gives a valid pointer. */
tuttiResult_t tuttiMemAlloc(void **ptr, size_t size);

/* Host memory, page aligned, which children after fork share. */
tuttiResult_t tuttiMemAllocHost(void **ptr, size_t size);

/* Frees what the two above gave, ending all registrations in it; NULL is allowed.
 * Errors: InvalidArgument (not such a pointer). */
tuttiResult_t tuttiMemFree(void *ptr);

/* Says that the `size` bytes at `buff` stay where they are until CommDeregister, so that RDMA devices may read and
 * write them in place, without a copy, whenever a call is given a pointer into them. It changes speed, never a
 * result, and what one rank registers is no concern of the others: local, not collective, at any time, also between
 * GroupStart and GroupEnd. Memory of MemAlloc and MemAllocHost counts as registered already.
 * Any host memory will do: of malloc, mmap, a file, the stack; whole pages are held in memory (pinned) from the first
 * use by a device on, within TUTTI_IB_REGISTERED; what does not fit, or that a device refuses, is copied as ever.
 * Ranges may overlap and may be registered several times; each registration has a handle and an end of its own, and
 * serves all communicators of the process. The memory stays the caller's. Before it is unmapped or given back (free)
 * its registrations must have ended: until then a device keeps the old pages, and calls on what is mapped there
 * later may send and receive wrong bytes. MemFree and CommDestroy see to that themselves.
 * Errors: InvalidArgument (NULL, size 0, a range past the end of memory), InvalidUsage (init has not finished, or
 * finalized), SystemError (no memory). */
tuttiResult_t tuttiCommRegister(const tuttiComm_t comm, void *buff, size_t size, void **handle);

/* Ends a registration of this communicator. No operation may be using the range. A handle whose memory MemFree has
 * freed in the meantime is right; NULL is allowed. Errors: InvalidArgument (not a handle of comm, or ended before). */
tuttiResult_t tuttiCommDeregister(const tuttiComm_t comm, void *handle);

/* ---- Operators ---------------------------------------------------------------------------------- */

/* An operator that multiplies this rank's input by *scalar (one element of datatype) and sums. For `comm` only.
 * tuttiScalarHostImmediate: the scalar is in host memory and read now. tuttiScalarDevice: it stays the operator's until
 * its last operation is done; in device memory, which goes with device buffers of the same device, it is read when the
 * stream comes to the operation, in host memory when the collective is called. */
tuttiResult_t tuttiRedOpCreatePreMulSum(tuttiRedOp_t *op, void *scalar, tuttiDataType_t datatype,
					tuttiScalarResidence_t residence, tuttiComm_t comm);

/* inout[i] = in[i] op inout[i] for count elements, `in` holding the lower ranks. Must be associative
 * (in the caller's judgement); commutative = 0 keeps rank order. The vector may be cut at any element, by
 * size and by schedule: fn sees pieces, in any order, and must treat each element by itself. Called from
 * threads that drive the communicator, the library's own among them, never concurrently for one operation;
 * must not call tutti. */
typedef void (*tuttiUserOp_t)(const void *in, void *inout, size_t count, tuttiDataType_t datatype,
			      void *context);
tuttiResult_t tuttiRedOpCreateUser(tuttiRedOp_t *op, tuttiUserOp_t fn, int commutative,
				   void *context, tuttiComm_t comm);

/* Forgets op; operations already submitted keep it. Errors: InvalidArgument (unknown or built in). */
tuttiResult_t tuttiRedOpDestroy(tuttiRedOp_t op, tuttiComm_t comm);

/* ---- Collectives -------------------------------------------------------------------------------- */
/* All ranks call the same ones in the same order with equal count, datatype, op and root; a rank that
 * differs makes both sides return Mismatch with both signatures. Several communicators may be used in
 * different orders on different ranks on host streams, in one group, or from several threads. In place:
 * pass the pointers that each function names. Overlapping otherwise is InvalidArgument.
 * Errors of all: InvalidArgument, InvalidUsage, PeerDead, Timeout, Mismatch, Aborted, SystemError. */

/* recvbuff[i] = op over ranks of sendbuff[i]; the same bits on all ranks. In place: equal pointers. */
tuttiResult_t tuttiAllReduce(const void *sendbuff, void *recvbuff, size_t count,
			     tuttiDataType_t datatype, tuttiRedOp_t op, tuttiComm_t comm,
			     tuttiStream_t stream);

/* recvbuff[r * sendcount + i] = sendbuff[i] of rank r. In place: sendbuff = recvbuff + rank*sendcount. */
tuttiResult_t tuttiAllGather(const void *sendbuff, void *recvbuff, size_t sendcount,
			     tuttiDataType_t datatype, tuttiComm_t comm, tuttiStream_t stream);

/* recvbuff[i] = op over ranks of sendbuff[rank * recvcount + i]. In place: recvbuff = sendbuff +
 * rank * recvcount; the rest of sendbuff may then hold intermediate values. */
tuttiResult_t tuttiReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount,
				 tuttiDataType_t datatype, tuttiRedOp_t op, tuttiComm_t comm,
				 tuttiStream_t stream);

/* recvbuff = sendbuff of root. sendbuff is read on root only. In place: equal pointers. */
tuttiResult_t tuttiBroadcast(const void *sendbuff, void *recvbuff, size_t count,
			     tuttiDataType_t datatype, int root, tuttiComm_t comm,
			     tuttiStream_t stream);

/* recvbuff on root = op over ranks of sendbuff. recvbuff is written on root only (may be NULL elsewhere). */
tuttiResult_t tuttiReduce(const void *sendbuff, void *recvbuff, size_t count,
			  tuttiDataType_t datatype, tuttiRedOp_t op, int root, tuttiComm_t comm,
			  tuttiStream_t stream);

/* Returns (or completes on the stream) after all ranks have called. Touches no memory of the caller. */
tuttiResult_t tuttiBarrier(tuttiComm_t comm, tuttiStream_t stream);

/* ---- Point to point ------------------------------------------------------------------------------ */
/* The n-th Send from a to b meets the n-th Recv of b from a; count and datatype must be equal. Outside a
 * group a Send of up to 1 KiB completes before the Recv is posted, up to 4 of them per pair;
 * beyond that it waits for the Recv, so exchange inside a group. peer may be the own rank in a group. */
tuttiResult_t tuttiSend(const void *sendbuff, size_t count, tuttiDataType_t datatype, int peer,
			tuttiComm_t comm, tuttiStream_t stream);
tuttiResult_t tuttiRecv(void *recvbuff, size_t count, tuttiDataType_t datatype, int peer,
			tuttiComm_t comm, tuttiStream_t stream);

/* ---- Groups --------------------------------------------------------------------------------------- */
/* Per thread, nesting. Calls in between check their arguments and are recorded; if one of them failed,
 * nothing is submitted and GroupEnd returns its error. The outermost GroupEnd runs all of them together:
 * it returns when those with stream NULL are done and the others are queued. */
tuttiResult_t tuttiGroupStart(void);
tuttiResult_t tuttiGroupEnd(void);

/* ---- Host streams --------------------------------------------------------------------------------- */
/* Operations on a host stream run in call order, in the background, and return at once. */
tuttiResult_t tuttiHostStreamCreate(tuttiStream_t *stream);
/* Success: all done; InProgress: not yet; else the first error since the last Synchronize. */
tuttiResult_t tuttiHostStreamQuery(tuttiStream_t stream);
/* Blocks until all operations are done; returns and clears the first error. */
tuttiResult_t tuttiHostStreamSynchronize(tuttiStream_t stream);
/* Synchronizes and frees; NULL is allowed. */
tuttiResult_t tuttiHostStreamDestroy(tuttiStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
