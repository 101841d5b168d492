/* GPUDirect RDMA: whether the NICs of an endpoint read and write the memory of a device themselves. Decided once for
 * each endpoint and place; what fails afterwards is said in one line, and counts for all that comes later.
 * SPDX-License-Identifier: Apache-2.0 */
#include "net.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda_gdr.h"

enum { MAX_NICS = 8 };

struct tt_far_entry {
	struct tt_far_entry *next;
	const struct tt_mem_kind *kind;
	void *where;
	struct tt_gdr way;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all entries of all endpoints */

static struct tt_gdr decide(const struct tt_mem_kind *kind, struct tt_ep *ep)
{
	struct tt_gdr all = { .way = TT_GDR_STAGED }, one;
	struct tt_nic nics[MAX_NICS];
	char text[512];
	int n;

	tt_ep_lock(ep);
	n = ep->t->nics(ep->priv, nics, MAX_NICS);
	tt_ep_unlock(ep);
	for (int i = 0; i < n; i++) {
		kind->rdma->decide(nics[i].pci, nics[i].dma_buf_errno, &one);
		tt_log(TT_LOG_INFO, "gdr", "the device with %s: %s", nics[i].name,
		       tt_gdr_text(&one, text, sizeof(text)));
		if (i)
			tt_gdr_also(&all, &one);
		else
			all = one;
	}
	return all;
}

/* Under the lock. NULL: no memory. */
static struct tt_far_entry *find(const struct tt_mem_kind *kind, void *where, struct tt_ep *ep)
{
	struct tt_far_entry *f;

	for (f = ep->far; f && (f->kind != kind || f->where != where); f = f->next)
		;
	if (f)
		return f;
	f = malloc(sizeof(*f));
	if (!f)
		return NULL;
	*f = (struct tt_far_entry){ ep->far, kind, where, decide(kind, ep) };
	ep->far = f;
	return f;
}

struct tt_far tt_far_look(const struct tt_mem_kind *kind, void *where, struct tt_ep *ep)
{
	struct tt_far out = { .recvs = false };
	const struct tt_far_entry *f;

	if (!kind->rdma || !ep->t->reg_far)
		return out;
	pthread_mutex_lock(&lock);
	f = find(kind, where, ep);
	if (f && f->way.way != TT_GDR_STAGED)
		out = (struct tt_far){ .recvs = true, .sends = f->way.reads,
				       .wait_flushes = f->way.flush == TT_GDR_FLUSH_WAIT };
	pthread_mutex_unlock(&lock);
	return out;
}

static tuttiResult_t try(const struct tt_far_entry *f, struct tt_ep *ep, void *p, size_t n, void **handle)
{
	tuttiResult_t r;
	int fd;

	TRY(f->kind->rdma->give(p, n, f->way.way == TT_GDR_DMABUF, &fd));
	tt_ep_lock(ep);
	r = ep->t->reg_far(ep->priv, p, n, fd, f->way.flush == TT_GDR_FLUSH_READ, handle);
	tt_ep_unlock(ep);
	if (fd >= 0)
		close(fd);
	return r;
}

bool tt_far_reg(const struct tt_mem_kind *kind, void *where, struct tt_ep *ep, void *p, size_t n, void **handle)
{
	struct tt_far_entry *f;
	bool good;

	pthread_mutex_lock(&lock);
	f = find(kind, where, ep);
	good = f && f->way.way != TT_GDR_STAGED && try(f, ep, p, n, handle) == tuttiSuccess;
	if (f && !good && f->way.way != TT_GDR_STAGED) {
		tt_log(TT_LOG_WARN, "gdr", "messages go through pinned memory, and not from device memory itself: %s",
		       tt_last_error());
		f->way.way = TT_GDR_STAGED;
	}
	pthread_mutex_unlock(&lock);
	return good;
}

void tt_far_forget(struct tt_ep *ep)
{
	while (ep->far) {
		struct tt_far_entry *f = ep->far;

		ep->far = f->next;
		free(f);
	}
}
