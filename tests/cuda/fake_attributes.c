/* Attributes of the fake devices: FAKE_CUDA_ATTRIBUTES="116=1 124=1" by the numbers of cuda.h; others are not known.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

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
