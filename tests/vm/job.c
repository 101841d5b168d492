/* A rank of a job that a fault is to hit: job ELEMENTS SECONDS [FILE]. Reduces and checks over and over, says "going"
 * after the first, and ends well after SECONDS. An error is said with the time since the last result. Where FILE is
 * named it then waits for it, and says "again" when a new communicator (root: JOB_ROOT_AGAIN) has worked.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tutti.h"

static int32_t *in, *out;
static size_t count;
static double last_s;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wrong(size_t i, int32_t want)
{
	printf("WRONG element %zu: %d, not %d\n", i, out[i], want);
	exit(3);
}

/* The first element says who wants to stop; the others are checked. */
static tuttiResult_t one(tuttiComm_t c, int n, int rank, int round, bool stop, bool *stopped)
{
	tuttiResult_t r;

	in[0] = stop;
	for (size_t i = 1; i < count; i++)
		in[i] = (int32_t)(i + (size_t)round) + rank;
	r = tuttiAllReduce(in, out, count, tuttiInt32, tuttiSum, c, NULL);
	if (r != tuttiSuccess)
		return r;
	for (size_t i = 1; i < count; i++)
		if (out[i] != n * (int32_t)(i + (size_t)round) + n * (n - 1) / 2)
			wrong(i, n * (int32_t)(i + (size_t)round) + n * (n - 1) / 2);
	*stopped = out[0] != 0;
	last_s = now();
	return r;
}

static tuttiResult_t work(double seconds, const char *word)
{
	double began = now(), end = began + seconds;
	bool stopped = false;
	tuttiComm_t c = NULL;
	int n, rank, rounds = 0;
	tuttiResult_t r;

	last_s = began;
	r = tuttiCommInitFromEnv(&c, NULL);
	if (r == tuttiSuccess) {
		tuttiCommCount(c, &n);
		tuttiCommUserRank(c, &rank);
	}
	while (r == tuttiSuccess && !stopped) {
		r = one(c, n, rank, rounds, now() > end, &stopped);
		if (r == tuttiSuccess && !rounds++)
			printf("%s after %.2f s\n", word, last_s - began);
	}
	if (r == tuttiSuccess) {
		printf("done %d\n", rounds);
		tuttiCommDestroy(c);
	} else {
		printf("error %d (%s) after %.2f s: %s\n", (int)r, tuttiGetErrorString(r), now() - last_s,
		       tuttiGetLastError(c));
		if (c)
			tuttiCommAbort(c);
	}
	return r;
}

int main(int argc, char **argv)
{
	tuttiResult_t r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	count = (size_t)atol(argv[1]) + 1;
	in = malloc(count * sizeof(*in));
	out = malloc(count * sizeof(*out));
	if (!in || !out)
		return 2;
	r = work(atof(argv[2]), "going");
	if (argc > 3 && r != tuttiSuccess) {
		while (access(argv[3], F_OK))
			usleep(50000);
		setenv("TUTTI_ROOT", getenv("JOB_ROOT_AGAIN"), 1);
		if (work(0.1, "again") == tuttiSuccess)
			return 0;
	}
	return r != tuttiSuccess;
}
