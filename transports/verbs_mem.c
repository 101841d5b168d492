/* RDMA: staging, where bytes wait that lie in no registered memory. SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static tuttiResult_t open_one(struct vb_ep *ep, struct vb_port *p, struct vb_stage *s)
{
	char why[256];

	s->mem = mmap(NULL, VB_STAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->mem == MAP_FAILED) {
		s->mem = NULL;
		return tt_fail(tuttiSystemError, "verbs: no memory for staging: %s", strerror(errno));
	}
	s->mr = ep->vb->reg_mr(p->pd, s->mem, VB_STAGE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!s->mr)
		return tt_fail(tuttiSystemError, "%s", tt_vb_errno("ibv_reg_mr", errno, why, sizeof(why)));
	return tuttiSuccess;
}

tuttiResult_t tt_vb_stage_open(struct vb_ep *ep, struct vb_port *p)
{
	TRY(open_one(ep, p, &p->out));
	return open_one(ep, p, &p->in);
}

static void close_one(struct vb_ep *ep, struct vb_stage *s)
{
	if (s->mr)
		ep->vb->dereg_mr(s->mr);
	if (s->mem)
		munmap(s->mem, VB_STAGE);
	memset(s, 0, sizeof(*s));
}

void tt_vb_stage_close(struct vb_ep *ep, struct vb_port *p)
{
	close_one(ep, &p->out);
	close_one(ep, &p->in);
}

static bool is_used(const struct vb_stage *s, size_t page)
{
	return s->used[page / 64] >> (page % 64) & 1;
}

void *tt_vb_stage_get(struct vb_stage *s, size_t n)
{
	size_t want = tt_div_up(n, VB_PAGE), pages = VB_STAGE / VB_PAGE, run = 0;

	for (size_t i = 0; i < pages; i++) {
		run = is_used(s, i) ? 0 : run + 1;
		if (run < want)
			continue;
		for (size_t k = i + 1 - want; k <= i; k++)
			s->used[k / 64] |= 1ull << (k % 64);
		return s->mem + (i + 1 - want) * VB_PAGE;
	}
	return NULL;
}

void tt_vb_stage_put(struct vb_stage *s, void *p, size_t n)
{
	size_t first = (size_t)((uint8_t *)p - s->mem) / VB_PAGE;

	for (size_t k = first; k < first + tt_div_up(n, VB_PAGE); k++)
		s->used[k / 64] &= ~(1ull << (k % 64));
}

#else
typedef int tt_verbs_mem_is_empty;
#endif
