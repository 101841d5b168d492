/* Floor 1: kinds of memory. What no kind claims is host memory. */
#ifndef TT_MEM_H
#define TT_MEM_H

#include "mem_piece.h"
#include "reduce.h"

struct tt_dev_launch;
struct tt_gdr;
enum tt_scale { TT_SCALE_NONE, TT_SCALE_PRE, TT_SCALE_POST };
/* Memory of the device for users and for operations, and pinned: of the host, in reach of both. */
enum tt_mem_use { TT_MEM_USERS, TT_MEM_OURS, TT_MEM_PINNED };

/* Where a call runs (the kind's word for it), on which of all queues (NULL: on one that no other thread has),
 * whether its buffers are out of the device's reach, and which capture its queue is part of (0: none): then what is
 * enqueued goes into a graph. */
#define TT_MEM_CAPTURE_BROKEN UINT64_MAX
struct tt_mem_place {
	int device; /* in: that of the rank, by its own word, or -1 */
	void *where;
	const void *line;
	bool in_host, out_host;
	uint64_t capture;
};

/* ---- memory of devices that ranks of one host share ---- */
struct tt_mem_device {
	uint8_t uuid[16];
	char words[32];  /* its place in the host, for people */
	uint32_t types;  /* a bit for each that it can reduce */
	uint32_t present;
	uint32_t blocks; /* that run schedules, at a time */
};

enum tt_share_way { TT_SHARE_NONE, TT_SHARE_FD, TT_SHARE_NAME };
/* How another rank gets at memory: by a descriptor that goes beside it, or a name; in the process of its owner by its
 * address, where there is no descriptor. */
struct tt_share {
	uint32_t way, pad;
	uint64_t n;
	void *at; /* its owner's */
	uint8_t name[64];
	uint8_t uuid[16]; /* of its device */
};

/* Of the device between enter and leave; none of it waits for a queue unless it says so. */
struct tt_mem_sharing {
	tuttiResult_t (*device)(struct tt_mem_device *out);
	bool (*reaches)(const uint8_t uuid[16]); /* as far as can be said before it is tried */
	tuttiResult_t (*give)(size_t n, struct tt_share *s, int *fd); /* new memory; *fd -1 or the caller's to close */
	tuttiResult_t (*clear)(void *p, size_t n); /* zeros when it returns; waits for no other work */
	void (*take_back)(const struct tt_share *s); /* by name: when all have closed it; may be kept until trim */
	tuttiResult_t (*open)(const struct tt_share *s, int fd, bool here, void **p); /* here: of this process */
	void (*close)(const struct tt_share *s, bool here, void *p);
	tuttiResult_t (*pin)(void *p, size_t n); /* memory of the host, in reach of devices at the same address */
	void (*unpin)(void *p);
	tuttiResult_t (*queue_new)(tuttiStream_t *queue); /* that waits for no other */
	void (*queue_free)(tuttiStream_t queue);
};

/* Memory of a device that NICs read and write themselves (GPUDirect RDMA); of what alloc gives for operations. Between
 * enter and leave. */
struct tt_mem_rdma {
	size_t grain; /* sizes are multiples */
	/* Whether and how with the NIC at this place (PCI, "": not known); the errno: of its driver for the dma-buf
	 * of descriptor -1. */
	void (*decide)(const char *nic, int dma_buf_errno, struct tt_gdr *out);
	/* Before it is registered: by descriptor, the caller's to close, or by address, *fd -1. Fails with a note. */
	tuttiResult_t (*give)(void *p, size_t n, bool dma_buf, int *fd);
	/* As stream_wait; what the NIC had written before the word came is seen by all behind it. */
	tuttiResult_t (*wait_flushed)(tuttiStream_t queue, const _Atomic uint32_t *word, uint32_t value);
};

/* What one launch does for all ranks. The operator as that of tt_reduce_pre, _run and _post; none where a piece has one
 * source. */
struct tt_mem_all {
	const void *in[TT_PIECE_RANKS];
	void *out[TT_PIECE_RANKS];
	uint64_t scalar[TT_PIECE_RANKS]; /* PreMulSum: each rank's */
	const void *scalar_at[TT_PIECE_RANKS]; /* or where it is then */
	struct tt_piece pieces[TT_PIECE_RANKS];
	int npieces; /* 1 at least */
	tuttiDataType_t type;
	struct tt_op op;
};

/* A kind of device memory. Its *queues* are what the user calls streams: what is enqueued runs in order, later,
 * out of step with the caller; NULL is the default queue. The functions from `copy` on only enqueue, and are
 * called only by a thread that is inside an API call: the threads of the library never call into a device.
 * Words are 32 bits of pinned memory, compared cyclically; each has one writer, the queue or the host. */
struct tt_mem_kind {
	size_t size; /* of this struct, so that it can grow */
	const char *name;
	bool (*query)(const void *p);         /* whether p is of this kind; never blocks */
	bool (*current)(void);                /* whether the calling thread works on a device: MemAlloc asks */
	bool (*is_queue)(tuttiStream_t queue);
	/* Released only when no queue uses it. What is not the users' may be kept, until trim (or NULL). */
	tuttiResult_t (*alloc)(size_t n, enum tt_mem_use use, void **p);
	void (*release)(void *p, size_t n, enum tt_mem_use use);
	void (*trim)(void);
	/* dst and src: what the device reaches. */
	tuttiResult_t (*copy)(tuttiStream_t queue, void *dst, const void *src, size_t n);
	/* As tt_reduce_run, tt_reduce_pre and tt_reduce_post (one source); no user operators. */
	tuttiResult_t (*reduce)(tuttiStream_t queue, void *dst, const void *const *src, int nsrc, size_t count,
				tuttiDataType_t type, const struct tt_op *op, enum tt_scale scale);
	/* Nothing behind it runs before (int32_t)(*word - value) >= 0. */
	tuttiResult_t (*stream_wait)(tuttiStream_t queue, const _Atomic uint32_t *word, uint32_t value);
	/* Stores the value when all before it is done and visible. */
	tuttiResult_t (*stream_signal)(tuttiStream_t queue, _Atomic uint32_t *word, uint32_t value);
	/* The rest may be NULL. Where a call with this queue and these buffers (NULL: none) runs, or why it cannot;
	 * its alloc and all that it enqueues stand between enter and leave. */
	tuttiResult_t (*place)(const char *call, tuttiStream_t queue, const void *in, const void *out,
			       struct tt_mem_place *at);
	tuttiResult_t (*enter)(void *where);
	void (*leave)(void);
	/* Between pinned and any host memory. NULL: copy does that. */
	tuttiResult_t (*copy_host)(tuttiStream_t queue, void *dst, const void *src, size_t n);
	bool (*reduces)(tuttiDataType_t type); /* NULL: all types */
	/* For enter; -1: the device that the calling thread works on. */
	tuttiResult_t (*here)(int device, void **where);
	const struct tt_mem_sharing *sharing; /* NULL: nothing is shared */
	/* All of these or none. Events are of the place where they are made; a wait is for the last record until
	 * then. They go when they are freed or, where queues have them, later. */
	tuttiResult_t (*event_new)(void **event);
	void (*event_free)(void *event);
	tuttiResult_t (*event_record)(tuttiStream_t queue, void *event);
	tuttiResult_t (*event_wait)(tuttiStream_t queue, void *event);
	tuttiResult_t (*run_all)(tuttiStream_t queue, const struct tt_mem_all *all); /* of types that it reduces */
	/* Between pinned and device memory, at once, whatever is being captured: waits for the device. */
	tuttiResult_t (*copy_now)(void *dst, const void *src, size_t n);
	/* Blocks that run schedules (dev_proto.h), all at a time. Unsupported: nothing has happened. */
	tuttiResult_t (*grid)(tuttiStream_t queue, const struct tt_dev_launch *launch, uint32_t blocks);
	const struct tt_mem_rdma *rdma; /* NULL: what the network moves lies in pinned memory */
};

/* Adds the kinds of devices that this process has begun to use; those it does not use cost nothing. On a thread
 * that is inside an API call. */
void tt_mem_look(void);
/* The device of a rank that wants this one (config.device); -1: none. */
tuttiResult_t tt_mem_home(int wanted, int *device);
void tt_mem_trim(void); /* no queue waits for this library any more */
/* The kind of the device that config.device names; -1: that the calling thread works on. NULL: none. */
const struct tt_mem_kind *tt_mem_at(int device);
/* Kinds stay. */
void tt_mem_add(const struct tt_mem_kind *kind);
int tt_mem_kinds(void); /* how many there are */
/* NULL: host memory. */
const struct tt_mem_kind *tt_mem_kind_of(const void *p);
/* Whose queue it is; NULL: nobody's. */
const struct tt_mem_kind *tt_mem_queue_kind(tuttiStream_t queue);

/* What the calling thread allocates in between comes from this NUMA node while it has room; -1: from anywhere
 * (mem_near.c). */
bool tt_mem_near_begin(int node);
void tt_mem_near_end(bool begun);

/* ---- ranges of host memory that stay where they are until their owner says otherwise (mem_ranges.c): registered,
 * MemAlloc'ed, temporaries. Whoever can make use of that, a transport's endpoint, watches. Any thread. */
#define TT_MEM_WATCHERS 4

struct tt_mem_watcher {
	/* NULL: it makes no use of the range. */
	void *(*add)(struct tt_mem_watcher *w, void *p, size_t n, bool sole);
	void (*drop)(struct tt_mem_watcher *w, void *handle);
};

/* owner NULL: the library; the range ends with tt_mem_range_forget. sole: messages of one communicator alone lie
 * there, and all its links close together. */
tuttiResult_t tt_mem_range_add(const void *owner, void *p, size_t n, bool sole, void **range);
bool tt_mem_range_drop(const void *owner, void *range); /* false: not a range of this owner */
void tt_mem_range_drop_all(const void *owner);
/* The memory is about to be freed: whoever has registered some of it keeps a handle of nothing. */
void tt_mem_range_forget(const void *p, size_t n);
/* Is told of the ranges there are and of all that come. False: too many watch. */
bool tt_mem_watch(struct tt_mem_watcher *w);
void tt_mem_unwatch(struct tt_mem_watcher *w); /* after drop for each; NULL or unknown: nothing */
void tt_mem_after_fork(void);                  /* in the child: what is watched is the parent's */

#endif
