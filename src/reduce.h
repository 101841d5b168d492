/* Floor 1: type x operator kernels, compiled per instruction set, chosen once (no ifunc). */
#ifndef TT_REDUCE_H
#define TT_REDUCE_H

#include "base.h"

enum { TT_OP_PREMULSUM = 5, TT_OP_USER = 6, TT_OP_AVG_DIV = 7 }; /* kinds behind operator handles */
enum tt_store { TT_STORE_PLAIN, TT_STORE_STREAM };

/* An operator as an operation uses it: a value, copied into the operation at submit. */
struct tt_op {
	int kind;                 /* tuttiSum .. tuttiMin; tuttiAvg; TT_OP_PREMULSUM; TT_OP_USER */
	bool commutative;
	int nranks;               /* Avg: divisor */
	uint64_t scalar;          /* PreMulSum: this rank's element, in its type */
	const void *scalar_at;    /* or where it is when the operation runs */
	tuttiUserOp_t fn;
	void *context;
};

/* dst[i] = src[0][i] op src[1][i] op ... in this order, for n elements. 8- and 16-bit floats are added in
 * float32 and rounded once; 8- to 64-bit integers wrap. dst may equal any src exactly; no other overlap.
 * nsrc >= 1 (1 copies). Avg and PreMulSum combine like Sum here. User: fn per pair, lower first. */
void tt_reduce_run(void *dst, const void *const *src, int nsrc, size_t n, tuttiDataType_t type,
		   const struct tt_op *op, enum tt_store store);
/* dst[i] = src[i] scaled before (PreMulSum: * scalar) or after (Avg: / nranks) the reduction; may be equal. */
void tt_reduce_pre(void *dst, const void *src, size_t n, tuttiDataType_t type, const struct tt_op *op);
void tt_reduce_post(void *dst, const void *src, size_t n, tuttiDataType_t type, const struct tt_op *op);
void tt_copy_bytes(void *dst, const void *src, size_t bytes, enum tt_store store);
const char *tt_reduce_isa(void); /* "avx512", "avx2", "sse2", "generic": what was chosen, for tutti-info */

#endif
