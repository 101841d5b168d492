/* What two processes share for one direction, sender to receiver. SPDX-License-Identifier: Apache-2.0
 *
 * A *region* is one sealed memfd that the sender makes: a head, a directory of links by key, one *area*
 * per link (touched only when used) and a pool of bulk slots. An area holds a ring of 64-byte headers
 * and the link's own small slots. Only the sender hands out areas, small slots and pool slots; the
 * receiver gives them back by moving `head` on, so nothing is ever taken by two.
 *
 * A message is a sequence of fragments, one header each: data inline, in a small slot or in a pool
 * slot. All but the last are multiples of 64 bytes, so that elements are never torn. Inline are only whole
 * messages: one cache line then carries all.
 *
 * The other side is not trusted: each word of it is read once and checked before it is used. */
#ifndef TT_SHM_RING_H
#define TT_SHM_RING_H

#include "shm_tune.h"
#include "transport.h"

enum {
	SHM_RING = 8,      /* headers of a link */
	SHM_SMALL = 1024,  /* bytes of a small slot */
	SHM_NSMALL = 4,    /* own small slots of a link: what Send promises to take */
	SHM_INLINE = 40,   /* bytes of a whole message in a header */
	SHM_AHEAD = 4,     /* pool slots that one link may hold */
	SHM_TUNED = 16384, /* bytes from which on a fragment counts for the store policy */
	SHM_AREAS = 16384, /* links of one direction; a power of two */
	SHM_MAX_SLOTS = 64
};

enum shm_kind { SHM_IN_HEADER, SHM_IN_SMALL, SHM_IN_POOL };
enum shm_fault { SHM_OK, SHM_FAIL_LENGTH, SHM_FAIL_GARBAGE, SHM_FAIL_OTHER };

/* Words of a header: 0 sequence | kind << 32 | slot, or bytes inline << 40, 1 and 2 the note, then either inline
 * data in 3 to 7, or 3 bytes of the fragment | measured << 32 | policy << 33 | burst << 40, 4 bytes of the
 * message. Word 0 is stored last. */
struct shm_area {
	_Alignas(64) _Atomic uint32_t fail;  /* either side, enum shm_fault */
	_Atomic uint32_t tx_closed;          /* sender */
	_Atomic uint32_t rx_closed;          /* receiver */
	_Alignas(64) _Atomic uint32_t head;  /* receiver: headers consumed */
	_Alignas(64) _Atomic uint64_t ring[SHM_RING][8];
	_Alignas(64) unsigned char small[SHM_NSMALL][SHM_SMALL];
};

struct shm_dir { /* entry i names area i */
	_Atomic uint64_t key;
	_Atomic uint32_t state; /* enum in shm_ring.c */
	uint32_t pad;
};

struct shm_head {
	uint64_t magic;
	uint32_t version, nareas, area_size, nslots;
	uint64_t slot_size, total;
	_Alignas(64) _Atomic uint32_t rx_asleep; /* receiver: ring me when you send */
	_Alignas(64) _Atomic uint32_t tx_asleep; /* sender: ring me when you give back */
	_Alignas(64) _Atomic uint32_t rx_cost[2]; /* receiver: by store policy, see shm_tune.h */
};

struct shm_region { /* private view; sizes are checked copies */
	struct shm_head *head;
	struct shm_dir *dir;
	struct shm_area *areas;
	unsigned char *slots;
	size_t size, slot_size;
	uint32_t nslots, nused; /* nused: areas in use, sender only */
};

struct shm_tx;
struct shm_pool { /* the sender's; the slot free for longest goes first */
	uint32_t first, count;
	uint16_t free[SHM_MAX_SLOTS];
	struct shm_tx *owner[SHM_MAX_SLOTS];
	struct shm_tuner tune; /* how they are written */
};

struct shm_tx { /* sending end of a link */
	struct shm_region *region;
	struct shm_pool *pool;
	struct shm_area *area;
	struct shm_tx *next; /* in the list of those closed here and not yet there */
	uint32_t tail, head; /* headers filled; given back, as far as known */
	uint32_t small_tail, small_used, pool_used;
	bool bad;            /* the receiver's head makes no sense */
	uint8_t kind[SHM_RING];
	uint16_t slot[SHM_RING];
};

struct shm_rx { /* receiving end of a link */
	struct shm_region *region;
	struct shm_area *area; /* NULL until found */
	uint32_t next;
};

struct shm_frag {
	const unsigned char *data; /* in the region, or `copy` */
	size_t len, total;
	struct tt_note note;
	bool measured;
	enum tt_store store; /* with which it was written */
	uint32_t burst;
	uint64_t copy[SHM_INLINE / 8];
};

tuttiResult_t tt_shm_create(struct shm_region *r, struct shm_pool *pool, int *fd);
tuttiResult_t tt_shm_map(struct shm_region *r, int fd);
void tt_shm_unmap(struct shm_region *r);

struct shm_area *tt_shm_area_add(struct shm_region *r, uint64_t key); /* NULL: full */
void tt_shm_area_remove(struct shm_region *r, struct shm_area *a);
struct shm_area *tt_shm_area_find(const struct shm_region *r, uint64_t key);

/* Places the next fragment of a message of which `left` of `total` bytes are to go. Returns its bytes,
 * or -1 where there is no room. */
int64_t tt_shm_put(struct shm_tx *tx, const void *p, size_t left, size_t total,
		   const struct tt_note *note);
bool tt_shm_room(struct shm_tx *tx, size_t left, size_t total); /* would it find room? */
bool tt_shm_reclaim(struct shm_tx *tx); /* takes back what the receiver has done with */

enum shm_peek { SHM_NOTHING, SHM_READY, SHM_BAD };
static inline uint64_t tt_shm_word0(const struct shm_rx *rx)
{
	return atomic_load_explicit(&rx->area->ring[rx->next % SHM_RING][0], memory_order_acquire);
}
/* Unwritten, or the header of a round before. */
static inline bool tt_shm_old(const struct shm_rx *rx, uint64_t w0)
{
	return (uint32_t)w0 != rx->next + 1 && ((uint32_t)w0 == rx->next + 1 - SHM_RING || (uint32_t)w0 == 0);
}
bool tt_shm_ready(const struct shm_rx *rx);
enum shm_peek tt_shm_peek(const struct shm_rx *rx, struct shm_frag *f);
void tt_shm_release(struct shm_rx *rx); /* done with what peek showed */

#endif
