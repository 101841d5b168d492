/* Memory of the fake device that NICs reach. Linux pins only pages that the process may touch: with FAKE_CUDA_RDMA=1
 * what is to be registered by address (the library sets SYNC_MEMOPS for it) loses its protection from the host, and
 * nothing else does; a test that sees the registration may protect it again. What is given as a dma-buf is a memfd,
 * which no driver takes. SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "fake_libcuda.h"

enum { SYNC_MEMOPS = 6, DMA_BUF = 1, FLUSH_WAITS = 98, GIVES_DMA_BUF = 124, NOT_SUPPORTED = 801 };

static _Atomic int flushes;

int cuPointerSetAttribute(const void *value, int attribute, void *p)
{
	struct range r;

	READY();
	if (attribute != SYNC_MEMOPS || *(const unsigned *)value != 1 || !look_up(p, &r) || r.kind != UNIFIED)
		return BAD_VALUE;
	if (setting("FAKE_CUDA_RDMA", 0) && mprotect(r.at, r.n, PROT_READ | PROT_WRITE))
		wrong("device memory that cannot be opened to NICs");
	return 0;
}

int cuMemGetHandleForAddressRange(void *fd, void *p, size_t n, int type, uint64_t flags)
{
	struct range r;
	int told = 0;

	IN_CONTEXT();
	if (!told_attribute(GIVES_DMA_BUF, &told) || !told)
		return NOT_SUPPORTED;
	if (type != DMA_BUF || flags || !n || n % PAGE || (uintptr_t)p % PAGE || !look_up(p, &r) ||
	    r.kind != UNIFIED || n > r.n - (size_t)((char *)p - r.at))
		return BAD_VALUE;
	*(int *)fd = fcntl(r.fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

bool may_wait(unsigned flags)
{
	int told = 0;
	bool flush = flags == WAIT_FLUSH && told_attribute(FLUSH_WAITS, &told) && told;

	flushes += flush;
	return !flags || flush;
}

int cuFakeFlushes(void)
{
	return flushes;
}
