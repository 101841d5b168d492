/* Reduction kernels: loaded once a process, found by name. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_code.h"

#include <stdio.h>
#include <string.h>

enum { SUM, PROD, MAX, MIN, PRE, POST, ALL, FUNCTIONS = ALL + MIN + 1, COPIES = 4 };
enum { UNROLL = 4, WAVES = 4 }; /* 16-byte words a thread has under way; blocks a processor */

static const char *const names[FUNCTIONS] = { "sum", "prod", "max", "min", "pre", "post",
					      "all_sum", "all_prod", "all_max", "all_min" };

static struct {
	const struct tt_cuda *f;
	void *kernels[FUNCTIONS][tuttiNumTypes];
	void *copies[COPIES]; /* of elements of 1, 2, 4 and 8 bytes */
	bool on;
	char words[TT_TEXT / 2];
} code;

static int get_all(void *lib)
{
	char name[64];
	int e = 0;

	for (int i = 0; i < FUNCTIONS; i++)
		for (int t = 0; t < tuttiNumTypes && !e; t++) {
			snprintf(name, sizeof(name), "tt_%s_%s", names[i], tt_type_name((tuttiDataType_t)t));
			e = code.f->cuLibraryGetKernel(&code.kernels[i][t], lib, name);
		}
	for (int i = 0; i < COPIES && !e; i++) {
		snprintf(name, sizeof(name), "tt_all_copy_%d", 1 << i);
		e = code.f->cuLibraryGetKernel(&code.copies[i], lib, name);
	}
	return e;
}

static const char *what_to_do(int e)
{
	return e == TT_CUDA_OLD_PTX || e == TT_CUDA_NO_BINARY ?
		       "; build with CUDA_SM of this device, or with the nvcc of this driver's version" : "";
}

void tt_cuda_code_open(const struct tt_cuda *f)
{
	char words[TT_TEXT / 4];
	void *lib;
	int e;

	code.f = f;
	if (!tt_cuda_image_size) {
		snprintf(code.words, sizeof(code.words), "built without kernels, as there was no nvcc: reductions go "
			 "by way of the host");
		return;
	}
	if (!f->cuLibraryLoadData || !f->cuLibraryGetKernel || !f->cuKernelGetFunction) {
		snprintf(code.words, sizeof(code.words), "no kernels, as the driver is older than CUDA 12.0: "
			 "reductions go by way of the host");
		return;
	}
	e = f->cuLibraryLoadData(&lib, tt_cuda_image, NULL, NULL, 0, NULL, NULL, 0);
	if (!e)
		e = get_all(lib);
	code.on = !e;
	snprintf(code.words, sizeof(code.words), "kernels");
	if (e)
		snprintf(code.words, sizeof(code.words), "no kernels, reductions go by way of the host: %s%s",
			 tt_cuda_words(e, words, sizeof(words)), what_to_do(e));
}

void tt_cuda_code_load(int device)
{
	void **kernels = &code.kernels[0][0];
	char words[TT_TEXT / 4];
	int e = 0;

	for (int i = 0; code.on && i < FUNCTIONS * tuttiNumTypes && !e; i++)
		e = tt_cuda_load(kernels[i]);
	for (int i = 0; code.on && i < COPIES && !e; i++)
		e = tt_cuda_load(code.copies[i]);
	if (e)
		tt_log(TT_LOG_WARN, "cuda", "kernels cannot be loaded on device %d: %s%s", device,
		       tt_cuda_words(e, words, sizeof(words)), what_to_do(e));
}

bool tt_cuda_code_has(tuttiDataType_t type)
{
	return code.on;
}

const char *tt_cuda_code_words(void)
{
	return code.words;
}

/* For each of some parts of so many bytes as many blocks. */
static int launch(void *kernel, tuttiStream_t queue, int sms, size_t bytes, uint32_t parts, void *args)
{
	size_t blocks = tt_div_up(bytes, (size_t)TT_CUDA_THREADS * UNROLL * 16);
	size_t most = tt_div_up((size_t)(WAVES * sms), (size_t)parts);
	unsigned n = (unsigned)tt_min(tt_max(blocks, 1), most) * parts;
	void *list[] = { args };

	return code.f->cuLaunchKernel(kernel, n, 1, 1, TT_CUDA_THREADS, 1, 1, 0, queue, list, NULL);
}

static int run_scale(tuttiStream_t queue, int sms, void *dst, const void *src, size_t n, tuttiDataType_t type,
		     const struct tt_op *op, enum tt_scale scale)
{
	struct tt_cuda_scale args = { .dst = dst, .src = src, .n = n, .factor = op->scalar,
				       .factor_at = op->scalar_at, .divisor = op->nranks };

	return launch(code.kernels[scale == TT_SCALE_PRE ? PRE : POST][type], queue, sms, n * tt_type_size(type),
		      1, &args);
}

static int run_fold(tuttiStream_t queue, int sms, void *dst, const void *const *src, int nsrc, size_t n,
		    tuttiDataType_t type, int op)
{
	struct tt_cuda_fold args;

	args.dst = dst;
	args.n = n;
	args.nsrc = nsrc;
	memcpy(args.src, src, (size_t)nsrc * sizeof(*src));
	return launch(code.kernels[op][type], queue, sms, n * tt_type_size(type), 1, &args);
}

int tt_cuda_code_run(tuttiStream_t queue, int sms, void *dst, const void *const *src, int nsrc, size_t count,
		     tuttiDataType_t type, const struct tt_op *op, enum tt_scale scale)
{
	if (!count)
		return 0;
	if (scale != TT_SCALE_NONE)
		return run_scale(queue, sms, dst, src[0], count, type, op, scale);
	return run_fold(queue, sms, dst, src, nsrc, count, type, op->kind <= tuttiMin ? op->kind : SUM);
}

int tt_cuda_code_run_all(tuttiStream_t queue, int sms, const struct tt_mem_all *all)
{
	struct tt_cuda_all args = { .scales = all->op.kind == TT_OP_PREMULSUM,
				    .divisor = all->op.kind == tuttiAvg ? all->op.nranks : 0,
				    .npieces = (uint32_t)all->npieces };
	size_t size = tt_type_size(all->type);
	bool copies = all->pieces[0].nsrc == 1 && !args.scales && !args.divisor;
	void *kernel = copies ? code.copies[__builtin_ctzl(size)] :
				code.kernels[ALL + (all->op.kind <= tuttiMin ? all->op.kind : SUM)][all->type];

	memcpy(args.src, all->in, sizeof(args.src));
	memcpy(args.dst, all->out, sizeof(args.dst));
	for (int i = 0; i < TT_PIECE_RANKS; i++) {
		args.factor[i] = all->scalar_at[i] ? (uintptr_t)all->scalar_at[i] : all->scalar[i];
		args.factors_at |= (uint64_t)(all->scalar_at[i] != NULL) << i;
	}
	memcpy(args.piece, all->pieces, (size_t)all->npieces * sizeof(args.piece[0]));
	return launch(kernel, queue, sms, all->pieces[0].n * size, args.npieces, &args);
}
