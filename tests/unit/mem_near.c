/* Memory near a NUMA node: the policy of the thread is set and taken back, and left alone where it is the user's.
 * SPDX-License-Identifier: Apache-2.0 */
#include "mem.h"

#include <linux/mempolicy.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test.h"

static int policy(unsigned long *nodes)
{
	unsigned long all[16] = { 0 };
	int mode = -1;

	CHECK(!syscall(SYS_get_mempolicy, &mode, all, 8 * sizeof(all), NULL, 0));
	*nodes = all[0];
	return mode;
}

static void policies(void)
{
	unsigned long nodes, first = 1;

	if (syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0)) {
		fprintf(stderr, "skipped: policies of memory are not allowed here\n");
		return;
	}
	CHECK(tt_mem_near_begin(0));
	CHECK(policy(&nodes) == MPOL_PREFERRED && nodes == 1);
	tt_mem_near_end(true);
	CHECK(policy(&nodes) == MPOL_DEFAULT);
	CHECK(!tt_mem_near_begin(-1) && !tt_mem_near_begin(1024) && !tt_mem_near_begin(1000));
	CHECK(policy(&nodes) == MPOL_DEFAULT);
	CHECK(!syscall(SYS_set_mempolicy, MPOL_BIND, &first, 8 * sizeof(first) + 1));
	CHECK(!tt_mem_near_begin(0));
	tt_mem_near_end(false);
	CHECK(policy(&nodes) == MPOL_BIND && nodes == 1);
}

const struct test tests[] = { { "policies", policies, 0 } };
const int ntests = sizeof(tests) / sizeof(tests[0]);
