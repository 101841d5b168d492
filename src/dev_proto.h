/* Floor 1: what the host and the blocks of a device (dev_run.h) share, in C and C++. A *program* is a schedule as its
 * blocks read it; a *binding* says where its bytes are for one count and type; a *link* leads from one rank to
 * another on one lane. Programs and bindings hold no addresses.
 *
 * Messages of a link are counted from its first on, modulo 2^32, over all calls: both ends count the same ones. The
 * n-th lies in slot n % TT_DEV_SLOTS of the receiver's memory. A large one is there when the receiver's word has come
 * to n + 1; a small one brings its number with the data, in packets of {4 bytes, n + 1, 4 bytes, n + 1} of which
 * every half is stored and loaded as one. The sender's word counts what it may overwrite. */
#ifndef TT_DEV_PROTO_H
#define TT_DEV_PROTO_H

#include <stddef.h>
#include <stdint.h>

enum {
	TT_DEV_SLOTS = 4, /* a power of 2, as the count wraps */
	TT_DEV_SRCS = 128, /* of one reduction */
	TT_DEV_RANKS = 64, /* in one launch, whose arguments are 4 KiB at most */
	TT_DEV_THREADS = 512,
};
/* A link's memory, as the host lays it out: ends, and at the receiver packets, which begin as zeros as ends do, and
 * slots. */
enum {
	TT_DEV_SLACK = 128, /* bytes of a slot beyond a window's: borders of chunks are rounded */
	TT_DEV_SLOT = 128 * 1024 + TT_DEV_SLACK,
	TT_DEV_SMALL = 4096,
	TT_DEV_PACKETS = TT_DEV_SMALL / 8,
	TT_DEV_PACKETS_BYTES = TT_DEV_SLOTS * TT_DEV_PACKETS * 16,
	TT_DEV_SLOTS_BYTES = TT_DEV_SLOTS * TT_DEV_SLOT,
};
/* Once in so many messages TT_DEV_SLOTS of them are sent in both ways and as long as can be, so that nothing in
 * memory is ever old enough to look new: words differ by less than 2^31, packets by less than 2^32. */
#define TT_DEV_RENEW (1u << 30)
#define TT_DEV_NONE UINT32_MAX

enum { TT_DEV_SEND, TT_DEV_RECV, TT_DEV_COPY, TT_DEV_REDUCE }; /* enum tt_step_op */

/* Elements from `inside[chunk]` of a block on, to `inside[end]` of the block `blocks` behind it. */
struct tt_dev_ref {
	uint32_t buf;    /* 0: in, 1: out, then temporaries */
	uint32_t block;  /* from the buffer's first on */
	uint32_t chunk, blocks, end;
	uint32_t first;  /* temporaries: the chunk of a block that they begin with */
	uint32_t link;   /* it may still be in this link's slot, as it came; TT_DEV_NONE: it is in its buffer */
};

struct tt_dev_step {
	uint16_t op, skew;
	uint32_t link;          /* send, receive */
	uint32_t dst, src, nsrc; /* of refs */
	uint32_t drop, ndrops;  /* of drops: refs whose slots are free after this step */
};

struct tt_dev_block {
	uint32_t first, n; /* of steps; `order` has them as they run where there is one window */
};

struct tt_dev_prog {
	uint32_t bytes, nblocks, nlinks, nbufs, per_block, depth, max_skew;
	uint32_t blocks, steps, order, refs, drops; /* bytes from here to the arrays */
};

/* Behind it: inside[per_block + 1] of a window, the same of the last one, tmp_at[nbufs] in bytes, of 64 bits each. */
struct tt_dev_bind {
	uint64_t count, window, tmp_stride; /* elements of a block, and of one in a window; bytes */
	uint32_t nwindows, elem, type, pad;
};

/* One end of a link, in its rank's memory: a line that the other end writes, and one of its own. */
struct tt_dev_end {
	uint32_t word, pad1[15];
	uint32_t pos, pad2[15]; /* messages so far */
};

struct tt_dev_link { /* as one end sees it */
	struct tt_dev_end *mine;
	uint32_t *theirs;  /* the other end's word */
	char *slots;       /* of the receiver's memory, as the packets */
	uint64_t *packets; /* halves */
};

struct tt_dev_rank {
	const struct tt_dev_prog *prog;
	const struct tt_dev_bind *bind;
	const struct tt_dev_link *links;
	const char *in;
	char *out, *tmp;
	uint32_t first, pad; /* number of its first block */
};

struct tt_dev_launch {
	const uint32_t *abort; /* not 0: blocks that wait give up */
	uint32_t *beat;        /* NULL, or changes while blocks come along, for the host */
	uint64_t slot_bytes;
	uint32_t packets;      /* in a slot of packets */
	uint32_t small;        /* messages of fewer bytes go in packets; 0: none */
	uint32_t op, nranks;
	struct tt_dev_rank ranks[TT_DEV_RANKS];
};

#endif
