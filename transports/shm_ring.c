/* The region that two processes share: layout, directory, ring, pool. See shm_ring.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm_ring.h"

enum { DIR_FREE, DIR_USED, DIR_GONE }; /* gone: free, but the search goes on behind it */

static const uint64_t region_magic = 0x69747475742d6d73;
enum { REGION_VERSION = 2, PAGE = 65536 };

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static size_t dir_offset(void)
{
	return round_up(sizeof(struct shm_head), 4096);
}

static size_t areas_offset(void)
{
	return round_up(dir_offset() + SHM_AREAS * sizeof(struct shm_dir), 4096);
}

static size_t slots_offset(void)
{
	return round_up(areas_offset() + SHM_AREAS * sizeof(struct shm_area), PAGE);
}

static void lay_out(struct shm_region *r, void *base)
{
	r->head = base;
	r->dir = (void *)((char *)base + dir_offset());
	r->areas = (void *)((char *)base + areas_offset());
	r->slots = (unsigned char *)base + slots_offset();
}

static void read_settings(struct shm_region *r)
{
	int64_t slot = tt_env_int("SHM_SLOT"), n = tt_env_int("SHM_POOL");

	slot = slot < 4096 ? 4096 : slot > (16 << 20) ? 16 << 20 : slot;
	n = n < 1 ? 1 : n > SHM_MAX_SLOTS ? SHM_MAX_SLOTS : n;
	r->slot_size = round_up((size_t)slot, 4096);
	r->nslots = (uint32_t)n;
	r->size = slots_offset() + round_up(r->nslots * r->slot_size, PAGE);
}

/* Sealed against resizing: a peer that shrinks the file could kill us by SIGBUS. */
static int make_memfd(size_t size)
{
	int fd = tt_memfd(size), e;

	if (fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return fd;
	e = errno;
	close(fd);
	errno = e;
	return -1;
}

static void fill_head(struct shm_region *r)
{
	r->head->magic = region_magic;
	r->head->version = REGION_VERSION;
	r->head->nareas = SHM_AREAS;
	r->head->area_size = sizeof(struct shm_area);
	r->head->nslots = r->nslots;
	r->head->slot_size = r->slot_size;
	r->head->total = r->size;
}

tuttiResult_t tt_shm_create(struct shm_region *r, struct shm_pool *pool, int *fd)
{
	void *base;

	read_settings(r);
	*fd = make_memfd(r->size);
	if (*fd < 0)
		return tt_fail(tuttiSystemError, "shm: no memfd of %zu bytes: %s", r->size,
			       strerror(errno));
	base = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *fd, 0);
	if (base == MAP_FAILED) {
		tt_fail(tuttiSystemError, "shm: cannot map %zu bytes: %s", r->size, strerror(errno));
		close(*fd);
		*fd = -1;
		return tuttiSystemError;
	}
	lay_out(r, base);
	fill_head(r);
	for (uint32_t i = 0; i < r->nslots; i++)
		pool->free[i] = (uint16_t)i;
	pool->count = r->nslots;
	tt_shm_tune_begin(&pool->tune, r->nslots);
	return tuttiSuccess;
}

static bool head_fits(const struct shm_head *h, struct shm_region *r)
{
	r->nslots = h->nslots;
	r->slot_size = h->slot_size;
	return h->magic == region_magic && h->version == REGION_VERSION && h->nareas == SHM_AREAS &&
	       h->area_size == sizeof(struct shm_area) && r->nslots >= 1 &&
	       r->nslots <= SHM_MAX_SLOTS && r->slot_size >= 4096 && r->slot_size <= 16 << 20 &&
	       r->slot_size % 4096 == 0 &&
	       r->size == slots_offset() + round_up(r->nslots * r->slot_size, PAGE);
}

tuttiResult_t tt_shm_map(struct shm_region *r, int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	void *base;

	if (fstat(fd, &st) != 0 || seals < 0 || !(seals & F_SEAL_SHRINK) ||
	    (size_t)st.st_size < slots_offset() || (size_t)st.st_size > (size_t)4 << 30)
		return tt_fail(tuttiSystemError, "shm: the peer's memory is not a sealed region");
	r->size = (size_t)st.st_size;
	base = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED)
		return tt_fail(tuttiSystemError, "shm: cannot map %zu bytes: %s", r->size,
			       strerror(errno));
	lay_out(r, base);
	if (head_fits(r->head, r))
		return tuttiSuccess;
	tt_shm_unmap(r);
	return tt_fail(tuttiSystemError, "shm: the peer's region has another layout; "
		       "use the same version of tutti in all processes");
}

void tt_shm_unmap(struct shm_region *r)
{
	if (r->head != NULL)
		munmap(r->head, r->size);
	r->head = NULL;
}

/* ---- directory: open addressing; the sender alone writes ---- */

static uint32_t dir_start(uint64_t key)
{
	return (uint32_t)(tt_hash64(&key, sizeof(key), 0) & (SHM_AREAS - 1));
}

static void area_reset(struct shm_area *a)
{
	atomic_store_explicit(&a->fail, 0, memory_order_relaxed);
	atomic_store_explicit(&a->tx_closed, 0, memory_order_relaxed);
	atomic_store_explicit(&a->rx_closed, 0, memory_order_relaxed);
	atomic_store_explicit(&a->head, 0, memory_order_relaxed);
	for (int i = 0; i < SHM_RING; i++)
		atomic_store_explicit(&a->ring[i][0], 0, memory_order_relaxed);
}

struct shm_area *tt_shm_area_add(struct shm_region *r, uint64_t key)
{
	uint32_t at = dir_start(key);

	for (uint32_t i = 0; i < SHM_AREAS; i++, at = (at + 1) & (SHM_AREAS - 1)) {
		struct shm_dir *d = &r->dir[at];

		if (atomic_load_explicit(&d->state, memory_order_relaxed) == DIR_USED)
			continue;
		area_reset(&r->areas[at]);
		atomic_store_explicit(&d->key, key, memory_order_relaxed);
		atomic_store_explicit(&d->state, DIR_USED, memory_order_seq_cst);
		r->nused++;
		return &r->areas[at];
	}
	return NULL;
}

/* What stands before a free entry need not be searched past, so it becomes free as well. */
void tt_shm_area_remove(struct shm_region *r, struct shm_area *a)
{
	uint32_t at = (uint32_t)(a - r->areas), next = (at + 1) & (SHM_AREAS - 1);

	r->nused--;
	atomic_store_explicit(&r->dir[at].state, DIR_GONE, memory_order_release);
	if (atomic_load_explicit(&r->dir[next].state, memory_order_relaxed) != DIR_FREE)
		return;
	while (atomic_load_explicit(&r->dir[at].state, memory_order_relaxed) == DIR_GONE) {
		atomic_store_explicit(&r->dir[at].state, DIR_FREE, memory_order_release);
		at = (at - 1) & (SHM_AREAS - 1);
	}
}

struct shm_area *tt_shm_area_find(const struct shm_region *r, uint64_t key)
{
	uint32_t at = dir_start(key);

	for (uint32_t i = 0; i < SHM_AREAS; i++, at = (at + 1) & (SHM_AREAS - 1)) {
		uint32_t state = atomic_load_explicit(&r->dir[at].state, memory_order_seq_cst);

		if (state == DIR_FREE)
			return NULL;
		if (state == DIR_USED &&
		    atomic_load_explicit(&r->dir[at].key, memory_order_relaxed) == key &&
		    !atomic_load_explicit(&r->areas[at].rx_closed, memory_order_relaxed))
			return &r->areas[at];
	}
	return NULL;
}

/* ---- sending ---- */

static void pool_give(struct shm_tx *tx, uint16_t slot)
{
	struct shm_pool *p = tx->pool;

	p->free[(p->first + p->count++) % SHM_MAX_SLOTS] = slot;
	p->owner[slot] = NULL;
	tx->pool_used--;
}

static uint16_t pool_take(struct shm_tx *tx)
{
	struct shm_pool *p = tx->pool;
	uint16_t slot = p->free[p->first % SHM_MAX_SLOTS];

	p->first++;
	p->count--;
	p->owner[slot] = tx;
	tx->pool_used++;
	return slot;
}

bool tt_shm_reclaim(struct shm_tx *tx)
{
	uint32_t h = atomic_load_explicit(&tx->area->head, memory_order_seq_cst);
	bool any = false;

	if (h - tx->head > tx->tail - tx->head) {
		tx->bad = true;
		return false;
	}
	for (; tx->head != h; tx->head++, any = true) {
		uint32_t at = tx->head % SHM_RING;

		if (tx->kind[at] == SHM_IN_SMALL)
			tx->small_used--;
		else if (tx->kind[at] == SHM_IN_POOL)
			pool_give(tx, tx->slot[at]);
	}
	return any;
}

static bool pool_ready(struct shm_tx *tx)
{
	struct shm_pool *p = tx->pool;

	for (uint32_t i = 0; p->count == 0 && i < tx->region->nslots; i++) {
		if (p->owner[i] != NULL)
			tt_shm_reclaim(p->owner[i]);
	}
	return p->count > 0;
}

/* Small slots carry bulk only where the link has no pool slot that could come back instead. */
static bool choose(struct shm_tx *tx, size_t left, size_t total, enum shm_kind *kind)
{
	bool small = tx->small_used < SHM_NSMALL;

	if (tx->tail - tx->head == SHM_RING)
		return false;
	if (left <= SHM_INLINE && left == total)
		*kind = SHM_IN_HEADER;
	else if (left <= SHM_SMALL && small)
		*kind = SHM_IN_SMALL;
	else if (tx->pool_used < SHM_AHEAD && pool_ready(tx))
		*kind = SHM_IN_POOL;
	else if (small && tx->pool_used == 0)
		*kind = SHM_IN_SMALL;
	else
		return false;
	return true;
}

static bool find_room(struct shm_tx *tx, size_t left, size_t total, enum shm_kind *kind)
{
	return choose(tx, left, total, kind) || (tt_shm_reclaim(tx) && choose(tx, left, total, kind));
}

bool tt_shm_room(struct shm_tx *tx, size_t left, size_t total)
{
	enum shm_kind kind;

	return find_room(tx, left, total, &kind);
}

/* Writes a pool slot by the policy of the moment; returns what word 3 says besides the length. */
static uint64_t fill_slot(struct shm_tx *tx, uint16_t slot, const void *p, size_t n)
{
	struct shm_tuner *t = &tx->pool->tune;
	struct shm_choice c = { .store = t->store };
	uint64_t t0 = 0;

	if (n >= SHM_TUNED)
		c = tt_shm_tune_next(t, tx->region->head->rx_cost);
	if (c.measured)
		t0 = tt_now_ns();
	tt_copy_bytes(tx->region->slots + slot * tx->region->slot_size, p, n, c.store);
	if (!c.measured)
		return 0;
	tt_shm_meter_add(&t->own[c.store], c.burst, tt_now_ns() - t0, n);
	return (uint64_t)1 << 32 | (uint64_t)c.store << 33 | (uint64_t)c.burst << 40;
}

/* Moves the bytes of the next fragment to a slot; returns its word 3. */
static uint64_t fill(struct shm_tx *tx, enum shm_kind kind, const void *p, size_t left)
{
	uint32_t at = tx->tail % SHM_RING;
	size_t n;

	if (kind == SHM_IN_SMALL) {
		n = tt_min(left, SHM_SMALL);
		tx->slot[at] = (uint16_t)(tx->small_tail++ % SHM_NSMALL);
		tx->small_used++;
		memcpy(tx->area->small[tx->slot[at]], p, n);
		return n;
	}
	n = tt_min(left, tx->region->slot_size);
	tx->slot[at] = pool_take(tx);
	return n | fill_slot(tx, tx->slot[at], p, n);
}

static void put_inline(_Atomic uint64_t *w, const void *p, size_t n)
{
	uint64_t words[SHM_INLINE / 8] = { 0 };

	if (n == 8)
		memcpy(words, p, 8);
	else if (n > 0)
		memcpy(words, p, n);
	for (size_t i = 0; 8 * i < n; i++)
		atomic_store_explicit(&w[3 + i], words[i], memory_order_relaxed);
}

/* Word 0 goes last and sequentially consistent: the caller reads the receiver's `asleep` next, and one
 * of the two must see the other. It also orders streaming stores. */
int64_t tt_shm_put(struct shm_tx *tx, const void *p, size_t left, size_t total,
		   const struct tt_note *note)
{
	uint32_t at = tx->tail % SHM_RING;
	_Atomic uint64_t *w = tx->area->ring[at];
	uint64_t words[2], n = left, where = left;
	enum shm_kind kind;

	if (!find_room(tx, left, total, &kind))
		return -1;
	tx->kind[at] = (uint8_t)kind;
	if (kind == SHM_IN_HEADER) {
		put_inline(w, p, left);
	} else {
		n = fill(tx, kind, p, left);
		where = tx->slot[at];
		atomic_store_explicit(&w[3], n, memory_order_relaxed);
		atomic_store_explicit(&w[4], total, memory_order_relaxed);
	}
	memcpy(words, note, sizeof(words));
	atomic_store_explicit(&w[1], words[0], memory_order_relaxed);
	atomic_store_explicit(&w[2], words[1], memory_order_relaxed);
	atomic_store_explicit(&w[0], where << 40 | (uint64_t)kind << 32 | (uint32_t)(tx->tail + 1),
			      memory_order_seq_cst);
	tx->tail++;
	return (int64_t)(n & UINT32_MAX);
}

/* ---- receiving ---- */

bool tt_shm_ready(const struct shm_rx *rx)
{
	_Atomic uint64_t *w = rx->area->ring[rx->next % SHM_RING];

	return (uint32_t)atomic_load_explicit(&w[0], memory_order_seq_cst) == rx->next + 1;
}

static bool locate(const struct shm_rx *rx, uint64_t w0, struct shm_frag *f)
{
	uint32_t kind = w0 >> 32 & 0xff, slot = w0 >> 40 & 0xffff;

	if (kind == SHM_IN_SMALL && slot < SHM_NSMALL) {
		f->data = rx->area->small[slot];
		return f->len <= SHM_SMALL;
	}
	if (kind == SHM_IN_POOL && slot < rx->region->nslots) {
		f->data = rx->region->slots + slot * rx->region->slot_size;
		return f->len <= rx->region->slot_size;
	}
	return false;
}

static enum shm_peek get_inline(_Atomic uint64_t *w, uint64_t n, struct shm_frag *f)
{
	if (n > SHM_INLINE)
		return SHM_BAD;
	for (size_t i = 0; 8 * i < n; i++)
		f->copy[i] = atomic_load_explicit(&w[3 + i], memory_order_relaxed);
	f->len = f->total = n;
	f->measured = false;
	f->data = (const unsigned char *)f->copy;
	return SHM_READY;
}

enum shm_peek tt_shm_peek(const struct shm_rx *rx, struct shm_frag *f)
{
	_Atomic uint64_t *w = rx->area->ring[rx->next % SHM_RING];
	uint64_t w0 = tt_shm_word0(rx), w3, note[2];

	if (tt_shm_old(rx, w0))
		return SHM_NOTHING;
	if ((uint32_t)w0 != rx->next + 1)
		return SHM_BAD;
	note[0] = atomic_load_explicit(&w[1], memory_order_relaxed);
	note[1] = atomic_load_explicit(&w[2], memory_order_relaxed);
	memcpy(&f->note, note, sizeof(f->note));
	if ((w0 >> 32 & 0xff) == SHM_IN_HEADER)
		return get_inline(w, w0 >> 40, f);
	w3 = atomic_load_explicit(&w[3], memory_order_relaxed);
	f->len = w3 & UINT32_MAX;
	f->measured = w3 >> 32 & 1;
	f->store = w3 >> 33 & 1 ? TT_STORE_STREAM : TT_STORE_PLAIN;
	f->burst = w3 >> 40 & 0xff;
	f->total = atomic_load_explicit(&w[4], memory_order_relaxed);
	return locate(rx, w0, f) && f->len <= f->total && f->len > 0 ? SHM_READY : SHM_BAD;
}

void tt_shm_release(struct shm_rx *rx)
{
	rx->next++;
	atomic_store_explicit(&rx->area->head, rx->next, memory_order_seq_cst);
}
