/* The smallest program: four ranks, each a thread of this process, add up their numbers.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <tutti.h>

enum { RANKS = 4 };

static tuttiUniqueId id; /* all ranks of one communicator pass the same id */

static void *rank_main(void *arg)
{
	int rank = *(int *)arg;
	float mine = (float)(rank + 1), sum = 0;
	tuttiComm_t comm = NULL;
	tuttiResult_t r = tuttiCommInitRank(&comm, RANKS, id, rank); /* returns when all have called */

	if (r == tuttiSuccess)
		r = tuttiAllReduce(&mine, &sum, 1, tuttiFloat32, tuttiSum, comm, NULL);
	if (r != tuttiSuccess)
		fprintf(stderr, "rank %d: %s\n", rank, tuttiGetLastError(NULL));
	else
		printf("rank %d of %d: %g\n", rank, RANKS, (double)sum);
	tuttiCommDestroy(comm);
	return r == tuttiSuccess && sum == 10 ? NULL : arg;
}

int main(void)
{
	pthread_t threads[RANKS];
	int ranks[RANKS], failed = 0;

	if (tuttiGetUniqueId(&id) != tuttiSuccess) {
		fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
		return 1;
	}
	for (int i = 0; i < RANKS; i++) {
		ranks[i] = i;
		pthread_create(&threads[i], NULL, rank_main, &ranks[i]);
	}
	for (int i = 0; i < RANKS; i++) {
		void *bad;

		pthread_join(threads[i], &bad);
		failed |= bad != NULL;
	}
	return failed;
}
