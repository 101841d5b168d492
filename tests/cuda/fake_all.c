/* The fake device's kernels for all ranks at once. Pieces run one after the other, where a device has them all under
 * way: so a piece that touches what another writes ends the program. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "cuda_kernels.h"
#include "fake_libcuda.h"
#include "reduce.h"

enum { COPY = 4 };

struct job {
	const struct tt_cuda_all *a;
	int op;
	tuttiDataType_t type;
	size_t size; /* of an element */
};

static char *source(const struct job *j, const struct tt_piece *p, int k)
{
	return (char *)j->a->src[p->src + k] + p->src_at * j->size;
}

static char *target(const struct job *j, const struct tt_piece *p, int k)
{
	return (char *)j->a->dst[p->dst + k] + p->dst_at * j->size;
}

static bool overlap(const char *a, const char *b, size_t n)
{
	return a < b + n && b < a + n;
}

/* `same`: one piece, of which a target may be a source, exactly. */
static void check_apart(const struct job *j, const struct tt_piece *p, const struct tt_piece *q, bool same)
{
	size_t n = (p->n > q->n ? p->n : q->n) * j->size;

	for (int k = 0; k < p->ndst; k++) {
		const char *at = target(j, p, k);

		for (int i = 0; i < q->nsrc; i++)
			if (overlap(at, source(j, q, i), n) && !(same && at == source(j, q, i)))
				wrong("a kernel writes what others of its threads read");
		for (int i = 0; i < q->ndst; i++)
			if (overlap(at, target(j, q, i), n) && !(same && i == k))
				wrong("a kernel writes twice to one place");
	}
}

static void *room(size_t n)
{
	void *p = malloc(n);

	if (!p)
		wrong("no memory");
	return p;
}

static void reduce(const struct job *j, const struct tt_piece *p, const void **src, void *out, int device)
{
	struct tt_op op = { .kind = j->op, .commutative = true }, avg = { .kind = tuttiAvg };
	char *scaled = j->a->scales ? room(p->nsrc * p->n * j->size) : NULL;

	for (int k = 0; scaled && k < p->nsrc; k++) {
		uint64_t factor = j->a->factor[p->src + k];
		bool there = j->a->factors_at >> (p->src + k) & 1;
		struct tt_op pre = { .kind = TT_OP_PREMULSUM, .scalar = factor,
				     .scalar_at = there ? reach((void *)(uintptr_t)factor, j->size, device) : NULL };
		char *to = scaled + (size_t)k * p->n * j->size;

		tt_reduce_pre(to, src[k], p->n, j->type, &pre);
		src[k] = to;
	}
	tt_reduce_run(out, src, p->nsrc, p->n, j->type, &op, TT_STORE_PLAIN);
	avg.nranks = j->a->divisor;
	if (avg.nranks)
		tt_reduce_post(out, out, p->n, j->type, &avg);
	free(scaled);
}

static void run_piece(const struct job *j, const struct tt_piece *p, int device)
{
	size_t bytes = p->n * j->size;
	const void *src[TT_PIECE_RANKS];
	void *out = room(bytes);

	for (int k = 0; k < p->nsrc; k++)
		src[k] = reach(source(j, p, k), bytes, device);
	if (j->op == COPY)
		memcpy(out, src[0], bytes);
	else
		reduce(j, p, src, out, device);
	for (int k = 0; k < p->ndst; k++)
		memcpy(reach(target(j, p, k), bytes, device), out, bytes);
	free(out);
}

void run_all(const struct tt_cuda_all *a, int op, int type, int device)
{
	struct job j = { a, op, (tuttiDataType_t)type, 0 };

	j.size = op == COPY ? (size_t)1 << type : tt_type_size(j.type);
	for (uint32_t b = 0; b < a->npieces; b++)
		for (uint32_t c = 0; c < a->npieces; c++)
			check_apart(&j, &a->piece[b], &a->piece[c], b == c);
	for (uint32_t b = 0; b < a->npieces; b++) {
		if (op == COPY && a->piece[b].nsrc != 1)
			wrong("a copy of several sources");
		run_piece(&j, &a->piece[b], device);
	}
}
