/* Memory of a NUMA node that the caller names. SPDX-License-Identifier: Apache-2.0 */
#include "mem.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_NODES = 1024, BITS = 8 * sizeof(unsigned long) };

/* Whoever has set a policy for the thread (numactl) knows better. Containers may forbid both calls. */
bool tt_mem_near_begin(int node)
{
	unsigned long nodes[MAX_NODES / BITS] = { 0 };
	int mode, saved = errno;
	bool set;

	if (node < 0 || node >= MAX_NODES)
		return false;
	nodes[(unsigned)node / BITS] |= 1ul << (unsigned)node % BITS;
	set = !syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) && mode == MPOL_DEFAULT &&
	      !syscall(SYS_set_mempolicy, MPOL_PREFERRED, nodes, (unsigned long)MAX_NODES + 1);
	errno = saved;
	return set;
}

void tt_mem_near_end(bool begun)
{
	int saved = errno;

	if (begun)
		(void)syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
	errno = saved;
}
