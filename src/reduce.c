/* Reductions of k sources: chooses the kernels of this CPU, walks blocks that stay in the first cache.
 * SPDX-License-Identifier: Apache-2.0 */
#include "reduce.h"

#include <string.h>

#include "reduce_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Two float buffers of BLOCK and the sources' parts fit a first-level cache of 32 KiB. */
enum { BLOCK = 1024, LINE = 64, BLOCK_BYTES = BLOCK * 8 };

static const struct tt_kernels *_Atomic chosen;

#if defined(__x86_64__)
static bool has_f16c(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && has_f16c();
}

static bool has_avx512(void)
{
	return has_avx2() && __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl");
}

static const struct tt_kernels *choose(const char *isa)
{
	if ((!isa || strcmp(isa, "avx512") == 0) && has_avx512())
		return &tt_kernels_avx512;
	if ((!isa || strcmp(isa, "avx2") == 0) && has_avx2())
		return &tt_kernels_avx2;
	return !isa || strcmp(isa, "sse2") == 0 ? &tt_kernels_sse2 : NULL;
}
#else
static const struct tt_kernels *choose(const char *isa)
{
	return !isa || strcmp(isa, "generic") == 0 ? &tt_kernels_generic : NULL;
}
#endif

/* Whoever comes first chooses; all would choose the same. */
static const struct tt_kernels *kernels(void)
{
	const struct tt_kernels *k = atomic_load_explicit(&chosen, memory_order_acquire);

	if (!k) {
		k = choose(NULL);
		atomic_store_explicit(&chosen, k, memory_order_release);
	}
	return k;
}

bool tt_reduce_use(const char *isa)
{
	const struct tt_kernels *k = choose(isa);

	if (k)
		atomic_store_explicit(&chosen, k, memory_order_release);
	return k != NULL;
}

const char *tt_reduce_isa(void)
{
	return kernels()->name + strlen("tt_kernels_");
}

/* A block of sources beginning at `offset` bytes. */
static const void *at(const void *p, size_t offset)
{
	return (const char *)p + offset;
}

/* Native types: the rest of the sources two at a time onto acc; the last pass stores to dst. */
static void fold_block(const struct tt_kernels *k, void *dst, const void *const *src, int nsrc,
		       size_t offset, size_t n, tuttiDataType_t type, int op)
{
	_Alignas(LINE) char acc[BLOCK_BYTES];
	const void *x = at(src[0], offset);
	int i = 1;

	while (i < nsrc) {
		int take = nsrc - i >= 2 ? 2 : 1;
		void *to = i + take == nsrc ? dst : acc;

		if (take == 2)
			k->fold3[type][op](to, x, at(src[i], offset), at(src[i + 1], offset), n);
		else
			k->fold2[type][op](to, x, at(src[i], offset), n);
		x = acc;
		i += take;
	}
}

/* 16- and 8-bit floats: in float32, rounded once at the end. */
static void fold_low(const struct tt_kernels *k, void *dst, const void *const *src, int nsrc,
		     size_t offset, size_t n, tuttiDataType_t type, int op)
{
	_Alignas(LINE) float acc[BLOCK], x[BLOCK];

	k->unpack[type](acc, at(src[0], offset), n);
	for (int i = 1; i < nsrc; i++) {
		k->unpack[type](x, at(src[i], offset), n);
		k->fold2[tuttiFloat32][op](acc, acc, x, n);
	}
	k->pack[type](dst, acc, n);
}

static void fold(const struct tt_kernels *k, void *dst, const void *const *src, int nsrc,
		 size_t offset, size_t n, tuttiDataType_t type, int op)
{
	if (k->unpack[type])
		fold_low(k, dst, src, nsrc, offset, n, type, op);
	else
		fold_block(k, dst, src, nsrc, offset, n, type, op);
}

static void fold_plain(const struct tt_kernels *k, void *dst, const void *const *src, int nsrc,
		       size_t first, size_t n, tuttiDataType_t type, int op)
{
	size_t size = tt_type_size(type);
	/* Up to three native sources need no accumulator: one pass over everything. */
	size_t block = nsrc <= 3 && !k->unpack[type] ? n : BLOCK;

	for (size_t i = 0, len; i < n; i += len) {
		size_t offset = (first + i) * size;

		len = tt_min(block, n - i);
		fold(k, (char *)dst + offset, src, nsrc, offset, len, type, op);
	}
}

/* Each block is made in the cache and streamed out whole lines at a time. */
static void fold_stream(const struct tt_kernels *k, void *dst, const void *const *src, int nsrc,
			size_t n, tuttiDataType_t type, int op)
{
	_Alignas(LINE) char block[BLOCK_BYTES];
	size_t size = tt_type_size(type), done, len;

	done = tt_min((LINE - (uintptr_t)dst % LINE) % LINE / size, n);
	fold_plain(k, dst, src, nsrc, 0, done, type, op);
	while ((len = tt_min(BLOCK, (n - done) / (LINE / size) * (LINE / size))) > 0) {
		fold(k, block, src, nsrc, done * size, len, type, op);
		k->stream((char *)dst + done * size, block, len * size);
		done += len;
	}
	k->fence();
	fold_plain(k, dst, src, nsrc, done, n - done, type, op);
}

static bool is_source(const void *dst, const void *const *src, int nsrc)
{
	for (int i = 0; i < nsrc; i++)
		if (src[i] == dst)
			return true;
	return false;
}

/* src[0] op (src[1] op (... src[nsrc-1])): the function's second operand holds the higher ranks. */
static void user_span(char *dst, const void *const *src, int nsrc, size_t offset, size_t n,
		      tuttiDataType_t type, const struct tt_op *op)
{
	const void *last = at(src[nsrc - 1], offset);

	if (last != dst)
		memcpy(dst, last, n * tt_type_size(type));
	for (int i = nsrc - 2; i >= 0; i--)
		op->fn(at(src[i], offset), dst, n, type, op->context);
}

static void run_user(void *dst, const void *const *src, int nsrc, size_t n, tuttiDataType_t type,
		     const struct tt_op *op)
{
	_Alignas(LINE) char block[4096];
	size_t size = tt_type_size(type), whole = sizeof(block) / size;

	if (!is_source(dst, src, nsrc - 1)) {
		user_span(dst, src, nsrc, 0, n, type, op);
		return;
	}
	/* dst is a source that is still to be read: the result comes about beside it. */
	for (size_t i = 0, len; i < n; i += len) {
		len = tt_min(whole, n - i);
		user_span(block, src, nsrc, i * size, len, type, op);
		memcpy((char *)dst + i * size, block, len * size);
	}
}

void tt_reduce_run(void *dst, const void *const *src, int nsrc, size_t n, tuttiDataType_t type,
		   const struct tt_op *op, enum tt_store store)
{
	const struct tt_kernels *k = kernels();
	int kind = op->kind < TT_KERNEL_OPS ? op->kind : tuttiSum;
	size_t size = tt_type_size(type);

	if (n == 0 || size == 0)
		return;
	if (nsrc == 2 && store == TT_STORE_PLAIN && !k->unpack[type] && op->kind != TT_OP_USER) {
		k->fold2[type][kind](dst, src[0], src[1], n); /* the way of all small messages */
		return;
	}
	if (nsrc == 1)
		tt_copy_bytes(dst, src[0], n * size, store);
	else if (op->kind == TT_OP_USER)
		run_user(dst, src, nsrc, n, type, op);
	/* In place the lines are in the cache already; and streaming wants whole aligned elements. */
	else if (store == TT_STORE_STREAM && (uintptr_t)dst % size == 0 &&
		 !is_source(dst, src, nsrc))
		fold_stream(k, dst, src, nsrc, n, type, kind);
	else
		fold_plain(k, dst, src, nsrc, 0, n, type, kind);
}

/* Scales a type that is computed in float32; by a divisor where factor is NULL. */
static void scale_low(const struct tt_kernels *k, char *dst, const void *src, size_t n,
		      tuttiDataType_t type, const float *factor, int divisor)
{
	_Alignas(LINE) float x[BLOCK];
	size_t size = tt_type_size(type);

	for (size_t i = 0, len; i < n; i += len) {
		len = tt_min(BLOCK, n - i);
		k->unpack[type](x, at(src, i * size), len);
		if (factor)
			k->mul[tuttiFloat32](x, x, len, factor);
		else
			k->div[tuttiFloat32](x, x, len, divisor);
		k->pack[type](dst + i * size, x, len);
	}
}

void tt_reduce_pre(void *dst, const void *src, size_t n, tuttiDataType_t type, const struct tt_op *op)
{
	const void *scalar = op->scalar_at ? op->scalar_at : &op->scalar;
	const struct tt_kernels *k = kernels();
	float factor;

	if (op->kind != TT_OP_PREMULSUM) {
		tt_copy_bytes(dst, src, n * tt_type_size(type), TT_STORE_PLAIN);
	} else if (k->unpack[type]) {
		k->unpack[type](&factor, scalar, 1);
		scale_low(k, dst, src, n, type, &factor, 1);
	} else {
		k->mul[type](dst, src, n, scalar);
	}
}

void tt_reduce_post(void *dst, const void *src, size_t n, tuttiDataType_t type, const struct tt_op *op)
{
	const struct tt_kernels *k = kernels();

	if (op->kind != tuttiAvg && op->kind != TT_OP_AVG_DIV)
		tt_copy_bytes(dst, src, n * tt_type_size(type), TT_STORE_PLAIN);
	else if (k->unpack[type])
		scale_low(k, dst, src, n, type, NULL, op->nranks);
	else
		k->div[type](dst, src, n, op->nranks);
}

void tt_copy_bytes(void *dst, const void *src, size_t bytes, enum tt_store store)
{
	const struct tt_kernels *k = kernels();
	size_t head = tt_min((LINE - (uintptr_t)dst % LINE) % LINE, bytes);
	size_t body = (bytes - head) / LINE * LINE;

	if (bytes == 0 || dst == src)
		return;
	if (store == TT_STORE_PLAIN) {
		memcpy(dst, src, bytes);
		return;
	}
	memcpy(dst, src, head);
	k->stream((char *)dst + head, at(src, head), body);
	k->fence();
	memcpy((char *)dst + head + body, at(src, head + body), bytes - head - body);
}
