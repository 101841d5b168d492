/* Blocks of a device on the host: each a thread of one lane, its memory order that of the words alone. Reductions are
 * the host's. SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_DEV_HOST_H
#define TT_DEV_HOST_H

#include <sched.h>
#include <stdbool.h>
#include <string.h>

#include "dev_proto.h"
#include "reduce.h"

#define DEV_FN inline __attribute__((unused))
#define DEV_THREAD 0u
#define DEV_THREADS 1u
#define DEV_SOON 1
#define DEV_SPINS 64

struct dev_shared {
	const void *src[TT_DEV_SRCS];
	uint64_t looks;
	_Atomic bool stuck; /* has looked many times at one word */
};

static _Thread_local struct dev_shared *dev_self;

static inline void dev_sync(void)
{
}

static inline bool dev_any(bool x)
{
	return x;
}

static inline uint32_t dev_load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void dev_store(uint32_t *p, uint32_t x)
{
	__atomic_store_n(p, x, __ATOMIC_RELEASE);
}

static inline void dev_load2(const uint64_t *p, uint64_t *x, uint64_t *y)
{
	*x = __atomic_load_n(p, __ATOMIC_RELAXED);
	*y = __atomic_load_n(p + 1, __ATOMIC_RELAXED);
}

static inline void dev_store2(uint64_t *p, uint64_t x, uint64_t y)
{
	__atomic_store_n(p, x, __ATOMIC_RELAXED);
	__atomic_store_n(p + 1, y, __ATOMIC_RELAXED);
}

static inline uint32_t dev_load4(const char *p)
{
	uint32_t x;

	memcpy(&x, p, 4);
	return x;
}

static inline void dev_store4(char *p, uint32_t x)
{
	memcpy(p, &x, 4);
}

static inline void dev_pause(uint32_t n)
{
	if (n == 4 * DEV_SPINS)
		atomic_store_explicit(&dev_self->stuck, true, memory_order_release);
	dev_self->looks++;
	sched_yield();
}

static inline void dev_copy(void *dst, const void *src, uint64_t n)
{
	if (n)
		memcpy(dst, src, n);
}

struct dev_block;
static void dev_reduce(const struct dev_block *b, void *dst, uint32_t nsrc, uint64_t n);

#include "dev_run.h"

static void dev_reduce(const struct dev_block *b, void *dst, uint32_t nsrc, uint64_t n)
{
	struct tt_op op = { .kind = (int)b->launch->op, .commutative = true };

	tt_reduce_run(dst, b->shared->src, (int)nsrc, n, (tuttiDataType_t)b->bind->type, &op, TT_STORE_PLAIN);
}

/* On a thread of its own. */
static inline bool dev_host_block(const struct tt_dev_launch *launch, uint32_t at, struct dev_shared *shared)
{
	dev_self = shared;
	return dev_run(launch, at, shared);
}

#endif
