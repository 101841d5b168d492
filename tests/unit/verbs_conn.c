/* The buffers of RDMA connections that come and go, over a device that is made up.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "test.h"
#include "verbs.h"

#if TT_HAVE_VERBS

enum { PAGE = 4096, TIMES = 4 };

static int open_regions;
static bool refuse;

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *p, size_t n, int access)
{
	struct ibv_mr *mr = refuse ? NULL : calloc(1, sizeof(*mr));

	if (!mr)
		return NULL;
	memset(p, 1, n);
	open_regions++;
	return mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
	open_regions--;
	free(mr);
	return 0;
}

static uint8_t *page_of(void *p)
{
	return (uint8_t *)((uintptr_t)p & ~(uintptr_t)(PAGE - 1));
}

static bool is_mapped(uint8_t *page)
{
	unsigned char in;

	return !mincore(page, PAGE, &in) || errno != ENOMEM;
}

/* As in a process at work: malloc takes from its heap what is not larger than a block that was freed before, and
 * behind it lies what else a set-up leaves there. */
static void come_and_go(void)
{
	struct tt_vb vb = { .reg_mr = reg_mr, .dereg_mr = dereg_mr };
	struct vb_ep ep = { .vb = &vb, .nports = 1, .slot = VB_PREFIX + MSG_HEADER + PAGE };
	struct msg_peer peer = { .ep = &ep.base };
	void *kept[TIMES], *volatile large = malloc(4 * vb_conn_bytes(&ep));

	free(large);
	for (int i = 0; i < TIMES; i++) {
		struct vb_conn *c = tt_vb_conn_new(&peer, &ep.port[0], -1);
		uint8_t *first, *last;

		CHECK(c && c->mem && ep.port[0].conns == 1);
		first = page_of(c->mem);
		last = page_of(c->mem + vb_conn_bytes(&ep) - 1);
		CHECK(is_mapped(first) && is_mapped(last));
		kept[i] = malloc(1000);
		tt_vb_conn_free(c);
		CHECKF(!is_mapped(first) && !is_mapped(last), "conn %d: its buffers stay in the heap", i + 1);
		CHECK(!open_regions && !ep.port[0].conns);
	}
	for (int i = 0; i < TIMES; i++)
		free(kept[i]);
	refuse = true;
	CHECK(!tt_vb_conn_new(&peer, &ep.port[0], -1) && !ep.byid[0] && !ep.port[0].conns);
	free(ep.byid);
}

const struct test tests[] = { { "buffers go back to the system", come_and_go, 0 } };
#else
static void nothing(void) { }
const struct test tests[] = { { "built without RDMA headers", nothing, 0 } };
#endif
const int ntests = sizeof(tests) / sizeof(tests[0]);
