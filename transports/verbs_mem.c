/* RDMA: memory that is used in place: ranges, registered with devices within a bound; and staging, where bytes wait
 * that lie in no such memory. SPDX-License-Identifier: Apache-2.0 */
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
	char why[256], where[160];

	p->out = ep->vb->reg_mr(p->pd, ep->out.mem, VB_STAGE, IBV_ACCESS_LOCAL_WRITE);
	if (p->out)
		p->in = ep->vb->reg_mr(p->pd, ep->in.mem, VB_STAGE,
				       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return p->in ? tuttiSuccess :
		       tt_note_error(tuttiSystemError, "%s: %s", tt_vb_port_text(p->port, where, sizeof(where)),
				     tt_vb_errno("ibv_reg_mr", errno, why, sizeof(why)));
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

/* ---- ranges used in place ---- */

static const uint8_t *end_of(const struct vb_range *r)
{
	return r->p + r->n;
}

static size_t pinned_by(const struct vb_range *r)
{
	return (((uintptr_t)end_of(r) + 4095) & ~(uintptr_t)4095) - ((uintptr_t)r->p & ~(uintptr_t)4095);
}

static bool close_region(struct vb_ep *ep, struct vb_range *r, int port)
{
	if (r->at[port].mr && ep->vb->dereg_mr(r->at[port].mr))
		return false;
	if (r->at[port].mr) {
		ep->nregions--;
		ep->pinned -= r->far || (r->brief && ep->port[port].port->dev->odp) ? 0 : pinned_by(r);
	}
	r->at[port].mr = NULL;
	ep->crowded = 0;
	return true;
}

/* Frees it once nobody refers to it. */
static void settle(struct vb_ep *ep, struct vb_range *r)
{
	for (int i = 0; i < VB_PORTS; i++)
		if (r->refs || r->at[i].uses)
			return;
	for (int i = 0; i < VB_PORTS; i++)
		(void)close_region(ep, r, i);
	free(r);
}

static void set_reach(struct vb_ep *ep, uint32_t from)
{
	for (uint32_t i = from; i < ep->nranges; i++) {
		struct vb_range *r = ep->ranges[i];

		r->reach = i && ep->ranges[i - 1]->reach > end_of(r) ? ep->ranges[i - 1]->reach : end_of(r);
	}
}

/* The first that does not come before (p, n). */
static uint32_t find(const struct vb_ep *ep, const uint8_t *p, size_t n)
{
	uint32_t lo = 0, hi = ep->nranges;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;
		const struct vb_range *r = ep->ranges[mid];

		if (r->p < p || (r->p == p && r->n > n))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool room(struct vb_ep *ep)
{
	uint32_t max = ep->ranges_max ? 2 * ep->ranges_max : 16;
	struct vb_range **grown;

	if (ep->nranges < ep->ranges_max)
		return true;
	grown = realloc(ep->ranges, max * sizeof(struct vb_range *));
	if (!grown)
		return false;
	ep->ranges = grown;
	ep->ranges_max = max;
	return true;
}

/* Equal ranges share one: as long as one of their owners says so, the memory stays. */
tuttiResult_t tt_vb_reg(void *e, void *p, size_t n, unsigned how, void **range)
{
	struct vb_ep *ep = e;
	bool brief = how & TT_REG_BRIEF, sole = how & TT_REG_SOLE;
	uint32_t at = find(ep, p, n);
	struct vb_range *r = at < ep->nranges ? ep->ranges[at] : NULL;

	if (!r || r->p != p || r->n != n || r->brief != brief || r->sole != sole || r->far) {
		r = room(ep) ? calloc(1, sizeof(*r)) : NULL;
		if (!r)
			return tt_fail(tuttiSystemError, "verbs: no memory to register %zu bytes", n);
		r->p = p;
		r->n = n;
		r->brief = brief;
		r->sole = sole;
		memmove(ep->ranges + at + 1, ep->ranges + at, (ep->nranges++ - at) * sizeof(*ep->ranges));
		ep->ranges[at] = r;
		set_reach(ep, at);
	}
	r->refs++;
	*range = r;
	return tuttiSuccess;
}

void tt_vb_dereg(void *e, void *range)
{
	struct vb_ep *ep = e;
	struct vb_range *r = range;
	uint32_t at = find(ep, r->p, r->n);

	if (--r->refs)
		return;
	while (ep->ranges[at] != r)
		at++;
	memmove(ep->ranges + at, ep->ranges + at + 1, (--ep->nranges - at) * sizeof(*ep->ranges));
	set_reach(ep, at);
	settle(ep, r);
}

void tt_vb_ranges_close(struct vb_ep *ep)
{
	while (ep->nranges) {
		struct vb_range *r = ep->ranges[--ep->nranges];

		r->refs = 0;
		settle(ep, r);
	}
	free(ep->ranges);
	ep->ranges = NULL;
	ep->ranges_max = 0;
}

/* ---- registered with a device, within the bound ---- */

static bool fits(const struct vb_ep *ep, size_t n)
{
	return ep->nregions < VB_REGIONS && n <= ep->pin_max - ep->pinned;
}

/* The region that no message was in for longest gives way, if that is long. */
static bool make_room(struct vb_ep *ep, size_t n)
{
	while (!fits(ep, n)) {
		struct vb_range *old = NULL;
		int port = 0;

		for (uint32_t i = 0; i < ep->nranges; i++)
			for (int k = 0; k < ep->nports; k++)
				if (ep->ranges[i]->at[k].mr && !ep->ranges[i]->at[k].uses && !ep->ranges[i]->far &&
				    (!old || ep->ranges[i]->found < old->found)) {
					old = ep->ranges[i];
					port = k;
				}
		if (!old || ep->lookups - old->found < VB_UNUSED || !close_region(ep, old, port)) {
			ep->crowded = ep->lookups + VB_UNUSED / 16;
			return false;
		}
	}
	return true;
}

/* Without pinning where the device can: the memory of one operation is seldom worth more. */
static struct ibv_mr *reg_mr(struct vb_ep *ep, const struct vb_port *port, const struct vb_range *r)
{
	int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
	bool odp = r->brief && port->port->dev->odp;

	return ep->vb->reg_mr(port->pd, r->p, r->n, odp ? access | IBV_ACCESS_ON_DEMAND : access);
}

static bool open_region(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r)
{
	struct vb_region *at = vb_region(ep, port, r);
	size_t n = r->brief && port->port->dev->odp ? 0 : pinned_by(r);
	char why[256];

	at->refused = r->far || n > ep->pin_max;
	if (at->refused || ep->lookups < ep->crowded || !make_room(ep, n))
		return false;
	at->mr = reg_mr(ep, port, r);
	if (!at->mr) {
		at->refused = true;
		tt_log(TT_LOG_INFO, "verbs", "%zu bytes at %p go through staging: %s", r->n, (void *)r->p,
		       tt_vb_errno("ibv_reg_mr", errno, why, sizeof(why)));
		return false;
	}
	ep->nregions++;
	ep->pinned += n;
	return true;
}

/* One that is registered already, else the widest that no device has refused. */
struct vb_range *tt_vb_range_get(struct vb_ep *ep, const struct vb_port *port, const void *p, size_t n)
{
	const uint8_t *from = p;
	struct vb_range *best = NULL;

	if (!ep->nranges || !n)
		return NULL;
	ep->lookups++;
	for (uint32_t i = find(ep, from, 0); i && ep->ranges[i - 1]->reach >= from + n; i--) {
		struct vb_range *r = ep->ranges[i - 1];

		if (end_of(r) < from + n || vb_region(ep, port, r)->refused)
			continue;
		if (!best || best->brief || !r->brief)
			best = r;
		if (vb_region(ep, port, r)->mr) {
			best = r;
			break;
		}
	}
	if (!best || (!vb_region(ep, port, best)->mr && !open_region(ep, port, best)))
		return NULL;
	best->found = ep->lookups;
	vb_region(ep, port, best)->uses++;
	return best;
}

bool tt_vb_range_also(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r)
{
	struct vb_region *at = vb_region(ep, port, r);

	if (at->refused || (!at->mr && !open_region(ep, port, r)))
		return false;
	at->uses++;
	return true;
}

void tt_vb_range_put(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r)
{
	vb_region(ep, port, r)->uses--;
	if (!r->refs)
		settle(ep, r);
}

bool tt_vb_range_withdraw(struct vb_ep *ep, const struct vb_port *port, struct vb_range *r)
{
	return close_region(ep, r, (int)(port - ep->port));
}

#else
typedef int tt_verbs_mem_is_empty;
#endif
