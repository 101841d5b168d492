/* Ranges of memory used in place, over devices that are made up: which one a message lies in, when it is registered,
 * the bounds, what gives way, what outlives its end. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"
#include "verbs.h"

#if TT_HAVE_VERBS

enum { PAGE = 4096, MANY = VB_REGIONS + 20 };

static struct {
	struct vb_ep ep;
	struct tt_vb_dev dev;
	struct tt_vb_port port;
	struct tt_vb vb;
	int open, made, access;
	bool refuse;
} w;
static uint8_t *const base = (uint8_t *)(uintptr_t)0x10000000; /* never touched */

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *p, size_t n, int access)
{
	struct ibv_mr *mr = w.refuse ? NULL : calloc(1, sizeof(*mr));

	if (!mr)
		return NULL;
	mr->addr = p;
	mr->length = n;
	w.open++;
	w.made++;
	w.access = access;
	return mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
	w.open--;
	free(mr);
	return 0;
}

static void begin(size_t bound)
{
	memset(&w, 0, sizeof(w));
	w.port.dev = &w.dev;
	w.vb.reg_mr = reg_mr;
	w.vb.dereg_mr = dereg_mr;
	w.ep.vb = &w.vb;
	w.ep.pin_max = bound;
	w.ep.nports = 1;
	w.ep.port[0].port = &w.port;
}

static void end(void)
{
	tt_vb_ranges_close(&w.ep);
	CHECK(!w.open && !w.ep.nregions && !w.ep.pinned);
}

static void *reg(size_t at, size_t n, unsigned how)
{
	void *r;

	CHECK(tt_vb_reg(&w.ep, base + at, n, how, &r) == tuttiSuccess);
	return r;
}

static struct vb_range *get(size_t at, size_t n)
{
	return tt_vb_range_get(&w.ep, &w.ep.port[0], base + at, n);
}

static void put(struct vb_range *r)
{
	tt_vb_range_put(&w.ep, &w.ep.port[0], r);
}

static void touch(size_t at, size_t n, const void *want)
{
	struct vb_range *r = get(at, n);

	CHECKF(r == want, "%zu bytes at %zu: another range", n, at);
	if (r)
		put(r);
}

static void found(void)
{
	void *low, *wide, *inner, *same, *brief;

	begin(SIZE_MAX);
	touch(0, 1, NULL);
	low = reg(0, 10 * PAGE, 0);
	CHECK(!w.made); /* only when something lies in it */
	touch(0, 10 * PAGE, low);
	touch(5, 0, NULL);
	touch(9 * PAGE, PAGE + 1, NULL);
	wide = reg(20 * PAGE, 100 * PAGE, 0);
	inner = reg(30 * PAGE, PAGE, 0);
	touch(30 * PAGE, PAGE, wide);
	touch(110 * PAGE, PAGE, wide); /* behind one that ends before */
	touch(119 * PAGE, PAGE + 1, NULL);
	same = reg(20 * PAGE, 100 * PAGE, 0);
	CHECK(same == wide && w.made == 2);
	tt_vb_dereg(&w.ep, wide);
	touch(40 * PAGE, PAGE, wide);
	brief = reg(20 * PAGE, 100 * PAGE, TT_REG_BRIEF);
	touch(40 * PAGE, PAGE, wide);
	tt_vb_dereg(&w.ep, same);
	CHECK(w.open == 1);
	touch(30 * PAGE, PAGE, inner);
	touch(40 * PAGE, PAGE, brief);
	tt_vb_dereg(&w.ep, brief);
	touch(40 * PAGE, PAGE, NULL);
	tt_vb_dereg(&w.ep, inner);
	tt_vb_dereg(&w.ep, low);
	CHECK(!w.open && !w.ep.nranges);
	end();
}

static void in_use(void)
{
	void *r;
	struct vb_range *one, *two;

	begin(SIZE_MAX);
	r = reg(0, PAGE, 0);
	one = get(0, 10);
	two = get(20, 30);
	tt_vb_dereg(&w.ep, r);
	CHECK(!get(0, 10) && w.open == 1);
	put(one);
	CHECK(w.open == 1);
	put(two);
	CHECK(!w.open);
	r = reg(0, PAGE, 0); /* taken back with its uses; registered anew by the next */
	one = get(0, 10);
	CHECK(tt_vb_range_withdraw(&w.ep, &w.ep.port[0], one) && !w.open);
	two = get(0, 10);
	CHECK(two == one && w.open == 1);
	put(one);
	put(two);
	end();
}

static void bounds(void)
{
	void *r[3];
	struct vb_range *used;

	begin(10 * PAGE);
	r[0] = reg(0, 6 * PAGE, 0);
	r[1] = reg(10 * PAGE, 6 * PAGE, 0);
	r[2] = reg(20 * PAGE, 11 * PAGE, 0);
	touch(0, PAGE, r[0]);
	touch(10 * PAGE, PAGE, NULL); /* the other was used a moment ago */
	touch(20 * PAGE, PAGE, NULL);
	CHECK(w.open == 1 && w.ep.pinned == 6 * PAGE);
	for (uint32_t i = 0; i < 2 * VB_UNUSED && !w.ep.ranges[1]->at[0].mr; i++) {
		used = get(10 * PAGE, PAGE);
		if (used)
			put(used);
	}
	CHECK(w.open == 1 && w.made == 2 && w.ep.pinned == 6 * PAGE);
	tt_vb_dereg(&w.ep, r[1]);
	touch(0, PAGE, r[0]);
	w.refuse = true;
	r[1] = reg(40 * PAGE, PAGE, 0);
	touch(40 * PAGE, PAGE, NULL);
	w.refuse = false;
	touch(40 * PAGE, PAGE, NULL); /* not asked again */
	end();
	begin(SIZE_MAX);
	for (size_t i = 0; i < MANY; i++)
		(void)reg(i * 2 * PAGE, PAGE, 0);
	for (size_t i = 0; i < MANY; i++)
		touch(i * 2 * PAGE, PAGE, i < VB_REGIONS ? w.ep.ranges[i] : NULL);
	CHECK(w.open == (int)VB_REGIONS);
	end();
}

static void on_demand(void)
{
	begin(PAGE);
	w.dev.odp = true;
	touch(0, 100 * PAGE, NULL);
	touch(0, 100 * PAGE, (reg(0, 100 * PAGE, 0), NULL));
	touch(0, 100 * PAGE, reg(0, 100 * PAGE, TT_REG_BRIEF)); /* pins nothing */
	CHECK(w.access & IBV_ACCESS_ON_DEMAND && !w.ep.pinned && w.open == 1);
	end();
}

/* ---- device memory ---- */

static struct ibv_mr *reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t n, uint64_t iova, int fd, int access)
{
	CHECK(!offset && fd == 7);
	return reg_mr(pd, (void *)(uintptr_t)iova, n, access);
}

static bool reg_far(size_t at, int fd, void **r)
{
	return tt_vb_reg_far(&w.ep, base + at, 4 * PAGE, fd, false, r) == tuttiSuccess;
}

static void far(void)
{
	struct vb_range *one;
	void *r, *by_buf, *host;

	begin(2 * PAGE);
	w.vb.reg_dmabuf_mr = reg_dmabuf_mr;
	CHECK(reg_far(0, -1, &r) && w.open == 1 && !w.ep.pinned && !(w.access & IBV_ACCESS_REMOTE_READ));
	CHECK(reg_far(10 * PAGE, 7, &by_buf) && w.open == 2);
	CHECK(tt_vb_is_far(&w.ep, base + 5) && tt_vb_is_far(&w.ep, base + 14 * PAGE - 1));
	CHECK(!tt_vb_is_far(&w.ep, base + 4 * PAGE) && !tt_vb_is_far(&w.ep, base + 14 * PAGE));
	touch(PAGE, 3 * PAGE, r);
	host = reg(20 * PAGE, 2 * PAGE, false);
	touch(20 * PAGE, PAGE, host);
	w.ep.lookups += 10 * VB_UNUSED; /* it never gives way to another */
	reg(30 * PAGE, 2 * PAGE, false);
	touch(30 * PAGE, PAGE, w.ep.ranges[w.ep.nranges - 1]);
	touch(0, PAGE, r);
	touch(10 * PAGE, PAGE, by_buf);
	one = get(0, PAGE); /* taken back, it is not registered anew */
	CHECK(one == r && tt_vb_range_withdraw(&w.ep, &w.ep.port[0], one));
	put(one);
	touch(0, PAGE, NULL);
	CHECK(tt_vb_is_far(&w.ep, base));
	tt_vb_dereg(&w.ep, r);
	tt_vb_dereg(&w.ep, by_buf);
	CHECK(!tt_vb_is_far(&w.ep, base + 10 * PAGE));
	end();
}

static void far_refused(void)
{
	void *r;

	begin(SIZE_MAX);
	CHECK(!reg_far(0, 7, &r) && strstr(tt_last_error(), "ibv_reg_dmabuf_mr")); /* the library has no such call */
	w.refuse = true;
	errno = EFAULT;
	CHECK(!reg_far(0, -1, &r) && strstr(tt_last_error(), "ibv_reg_mr"));
	w.refuse = false;
	w.ep.nregions = VB_REGIONS;
	CHECK(!reg_far(0, -1, &r) && strstr(tt_last_error(), "regions"));
	w.ep.nregions = 0;
	CHECK(!w.ep.nranges && !w.open);
	CHECK(reg_far(0, -1, &r));
	end();
}

const struct test tests[] = {
	{ "which range", found, 0 },
	{ "ended in use", in_use, 0 },
	{ "bounds", bounds, 0 },
	{ "on demand", on_demand, 0 },
	{ "device memory", far, 0 },
	{ "device memory that is refused", far_refused, 0 },
};
#else
static void nothing(void) { }
const struct test tests[] = { { "built without RDMA headers", nothing, 0 } };
#endif
const int ntests = sizeof(tests) / sizeof(tests[0]);
