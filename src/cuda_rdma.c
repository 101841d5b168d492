/* CUDA devices and NICs: what cuda_gdr.c decides, from the facts of this machine, and what is done with memory before a
 * NIC gets it. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_rdma.h"

#include "cuda_gdr.h"

/* Smaller blocks of cuMemAlloc may lie in one with others, which a dma-buf would show as well. */
enum { GRAIN = 2 << 20 };

static const struct tt_cuda *cuda;

void tt_cuda_rdma_open(const struct tt_cuda *f)
{
	cuda = f;
}

static void decide(const char *nic, int dma_buf_errno, struct tt_gdr *out)
{
	struct tt_gdr_facts f = { .made_by = TT_GDR_ALLOC, .reg_errno = dma_buf_errno,
				  .peermem = tt_gdr_peermem("") };
	const struct tt_topo *t;
	char bus[16];
	int device = -1;

	*out = (struct tt_gdr){ .way = TT_GDR_STAGED, .why = "the device does not say what it is" };
	if (cuda->cuCtxGetDevice(&device) || !tt_gdr_device(device, &f, bus))
		return;
	tt_gdr_settings(&f);
	f.dma_buf = f.dma_buf && cuda->cuMemGetHandleForAddressRange;
	if (tt_topo_machine(&t) == tuttiSuccess)
		tt_gdr_place(t, bus, nic, &f);
	tt_gdr_decide(&f, out);
}

/* Copies that a caller of the driver waits for are done when they come back, there too. */
static tuttiResult_t give(void *p, size_t n, bool dma_buf, int *fd)
{
	const unsigned one = 1;
	char words[TT_TEXT / 4];
	int e;

	*fd = -1;
	if (cuda->cuPointerSetAttribute)
		(void)cuda->cuPointerSetAttribute(&one, TT_CUDA_PTR_SYNC_MEMOPS, (tt_cuda_ptr)p);
	if (!dma_buf)
		return tuttiSuccess;
	e = cuda->cuMemGetHandleForAddressRange(fd, (tt_cuda_ptr)p, n, TT_CUDA_DMA_BUF, 0);
	return !e ? tuttiSuccess :
		    tt_note_error(tuttiUnhandledCudaError, "cuMemGetHandleForAddressRange of %zu bytes: %s", n,
				  tt_cuda_words(e, words, sizeof(words)));
}

static tuttiResult_t wait_flushed(tuttiStream_t queue, const _Atomic uint32_t *word, uint32_t value)
{
	unsigned how = TT_CUDA_WAIT_GEQ | TT_CUDA_WAIT_FLUSH;
	char words[TT_TEXT / 4];
	int e = cuda->cuStreamWaitValue32(queue, (tt_cuda_ptr)word, value, how);

	return !e ? tuttiSuccess : tt_fail(tuttiUnhandledCudaError, "cuStreamWaitValue32, with a flush: %s",
					   tt_cuda_words(e, words, sizeof(words)));
}

const struct tt_mem_rdma tt_cuda_rdma = { .grain = GRAIN, .decide = decide, .give = give,
					  .wait_flushed = wait_flushed };
