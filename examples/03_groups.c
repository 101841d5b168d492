/* One thread drives all ranks: calls between GroupStart and GroupEnd run together. Also send and receive.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <tutti.h>

enum { RANKS = 3 };

static void must(tuttiResult_t r)
{
	if (r != tuttiSuccess)
		fprintf(stderr, "%s: %s\n", tuttiGetErrorString(r), tuttiGetLastError(NULL));
}

int main(void)
{
	tuttiComm_t comms[RANKS] = { NULL };
	int in[RANKS], max[RANKS] = { 0 }, left[RANKS] = { 0 }, bad = 0;

	must(tuttiCommInitAll(comms, RANKS, NULL));

	/* Outside a group the first of these calls would wait for the others for ever. */
	must(tuttiGroupStart());
	for (int i = 0; i < RANKS; i++) {
		in[i] = 100 + i;
		must(tuttiAllReduce(&in[i], &max[i], 1, tuttiInt32, tuttiMax, comms[i], NULL));
	}
	must(tuttiGroupEnd());

	/* A ring: everybody sends to the right and receives from the left, at the same time. */
	must(tuttiGroupStart());
	for (int i = 0; i < RANKS; i++) {
		must(tuttiSend(&in[i], 1, tuttiInt32, (i + 1) % RANKS, comms[i], NULL));
		must(tuttiRecv(&left[i], 1, tuttiInt32, (i + RANKS - 1) % RANKS, comms[i], NULL));
	}
	must(tuttiGroupEnd());

	for (int i = 0; i < RANKS; i++) {
		printf("rank %d: max %d, from the left %d\n", i, max[i], left[i]);
		bad |= max[i] != 100 + RANKS - 1 || left[i] != 100 + (i + RANKS - 1) % RANKS;
	}
	for (int i = 0; i < RANKS; i++)
		must(tuttiCommDestroy(comms[i]));
	return bad;
}
