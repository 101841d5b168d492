/* Attributes of the fake devices: FAKE_CUDA_ATTRIBUTES="116=1 124=1" by the numbers of cuda.h; others are not known.
 * With FAKE_CUDA_NEAR=1 pinned memory, and no other, must be asked for near the device, as attribute 134 says.
 * SPDX-License-Identifier: Apache-2.0 */
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake_libcuda.h"

bool told_attribute(int which, int *value)
{
	const char *at = getenv("FAKE_CUDA_ATTRIBUTES");
	int number, told, used;

	while (at && sscanf(at, "%d=%d%n", &number, &told, &used) == 2) {
		if (number == which) {
			*value = told;
			return true;
		}
		at += used;
	}
	return false;
}

/* A container may forbid it. */
static bool may_ask(void)
{
	return !syscall(SYS_set_mempolicy, MPOL_PREFERRED, &(unsigned long){ 1 }, 8 * sizeof(unsigned long) + 1);
}

void check_near(bool pinned)
{
	unsigned long nodes[16] = { 0 };
	int mode = MPOL_DEFAULT, node = -1;

	if (!setting("FAKE_CUDA_NEAR", 0) || !told_attribute(134, &node))
		return;
	(void)syscall(SYS_get_mempolicy, &mode, nodes, 8 * sizeof(nodes), NULL, 0);
	if (!pinned && mode != MPOL_DEFAULT)
		wrong("the thread's policy of memory stays changed");
	if (pinned && (mode != MPOL_PREFERRED || nodes[0] != 1ul << node) && may_ask())
		wrong("pinned memory that is not asked for near the device");
}
