/* CommSplit: the even ranks and the odd ranks add up among themselves. Run it with tutti-run -n 5.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <tutti.h>

int main(void)
{
	tuttiComm_t world, half;
	int rank, size, sum, expected = 0;

	if (tuttiCommInitFromEnv(&world, NULL) != tuttiSuccess)
		goto fail;
	tuttiCommUserRank(world, &rank);
	tuttiCommCount(world, &size);

	/* Equal colors come together, ordered by key; -rank turns the order round. */
	if (tuttiCommSplit(world, rank % 2, -rank, &half, NULL) != tuttiSuccess)
		goto fail;
	sum = rank;
	if (tuttiAllReduce(&sum, &sum, 1, tuttiInt32, tuttiSum, half, NULL) != tuttiSuccess)
		goto fail;
	for (int r = rank % 2; r < size; r += 2)
		expected += r;
	printf("rank %d: the %s ranks add up to %d\n", rank, rank % 2 ? "odd" : "even", sum);
	tuttiCommDestroy(half);
	tuttiCommDestroy(world);
	return sum != expected;
fail:
	fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
	return 1;
}
