/* RDMA: staging, where bytes wait that lie in no registered memory. SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#if TT_HAVE_VERBS

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static bool map(struct vb_stage *s)
{
	s->mem = mmap(NULL, VB_STAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->mem != MAP_FAILED)
		return true;
	s->mem = NULL;
	return false;
}

tuttiResult_t tt_vb_stage_open(struct vb_ep *ep)
{
	if (map(&ep->out) && map(&ep->in))
		return tuttiSuccess;
	return tt_fail(tuttiSystemError, "verbs: no memory for staging: %s", strerror(errno));
}

tuttiResult_t tt_vb_stage_join(struct vb_ep *ep, struct vb_port *p)
{
	char why[256];

	p->out = ep->vb->reg_mr(p->pd, ep->out.mem, VB_STAGE, IBV_ACCESS_LOCAL_WRITE);
	if (p->out)
		p->in = ep->vb->reg_mr(p->pd, ep->in.mem, VB_STAGE,
				       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return p->in ? tuttiSuccess :
		       tt_fail(tuttiSystemError, "%s", tt_vb_errno("ibv_reg_mr", errno, why, sizeof(why)));
}

void tt_vb_stage_leave(struct vb_ep *ep, struct vb_port *p)
{
	if (p->out)
		ep->vb->dereg_mr(p->out);
	if (p->in)
		ep->vb->dereg_mr(p->in);
	p->out = p->in = NULL;
}

void tt_vb_stage_close(struct vb_ep *ep)
{
	if (ep->out.mem)
		munmap(ep->out.mem, VB_STAGE);
	if (ep->in.mem)
		munmap(ep->in.mem, VB_STAGE);
	ep->out.mem = ep->in.mem = NULL;
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
