/* Ranks as processes. Run it with: tutti-run -n 4 build/examples/02_processes (or torchrun).
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <tutti.h>

int main(void)
{
	tuttiComm_t comm;
	int rank, size, sum;

	/* The launcher left rank, size and meeting place in the environment. */
	if (tuttiCommInitFromEnv(&comm, NULL) != tuttiSuccess)
		goto fail;
	tuttiCommUserRank(comm, &rank);
	tuttiCommCount(comm, &size);
	sum = rank + 1; /* in place: the result replaces the input */
	if (tuttiAllReduce(&sum, &sum, 1, tuttiInt32, tuttiSum, comm, NULL) != tuttiSuccess)
		goto fail;
	printf("rank %d of %d: %d\n", rank, size, sum);
	tuttiCommDestroy(comm);
	return sum != size * (size + 1) / 2;
fail:
	fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
	return 1;
}
