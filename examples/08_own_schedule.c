/* A schedule of one's own, in tutti's text (docs/schedules.md): a star, in which rank 0 adds up what all send and sends
 * the sum back. Run it with: tutti-run -n 4 build/examples/08_own_schedule; TUTTI_LOG=plan:info says that it is used.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <tutti.h>
#include <unistd.h>

enum { MOST_RANKS = 16 };

/* All ranks one after the other. Steps that need each other's data wait for it by themselves. */
static void write_star(FILE *f, int n)
{
	fprintf(f, "AllReduce star rank 0 of %d: 1 x 1 chunks\n", n);
	for (int i = 1; i < n; i++)
		fprintf(f, "buffer tmp%d[0+1]\n", i - 1);
	for (int i = 1; i < n; i++)
		fprintf(f, "recv tmp%d[0] from %d\n", i - 1, i);
	fputs("reduce out[0] = in[0]", f);
	for (int i = 1; i < n; i++)
		fprintf(f, " tmp%d[0]", i - 1);
	for (int i = 1; i < n; i++)
		fprintf(f, "\nsend out[0] to %d skew 1", i);
	for (int i = 1; i < n; i++)
		fprintf(f, "\nAllReduce star rank %d of %d: 1 x 1 chunks"
			   "\nsend in[0] to 0\nrecv out[0] from 0 skew 1", i, n);
	fputs("\n\n", f);
}

/* Up to 64 KiB, for each number of ranks; what the file does not have is left to tutti. */
static int write_schedules(char *path)
{
	int fd = mkstemp(path);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (!f)
		return 0;
	fputs("bytes 0 64K\n", f);
	for (int n = 2; n <= MOST_RANKS; n++)
		write_star(f, n);
	return !fclose(f) && !setenv("TUTTI_SCHEDULE_FILE", path, 1);
}

int main(void)
{
	char path[] = "/tmp/star-XXXXXX"; /* every rank has one: the contents must be the same, not the place */
	tuttiComm_t comm = NULL;
	int rank, size, sum = 0, mine;
	tuttiResult_t r;

	if (!write_schedules(path)) {
		perror(path);
		return 1;
	}
	r = tuttiCommInitFromEnv(&comm, NULL); /* reads and proves it: a wrong step would be named here */
	unlink(path);
	if (r == tuttiSuccess) {
		tuttiCommUserRank(comm, &rank);
		tuttiCommCount(comm, &size);
		mine = rank + 1;
		r = tuttiAllReduce(&mine, &sum, 1, tuttiInt32, tuttiSum, comm, NULL);
	}
	if (r != tuttiSuccess) {
		fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
		return 1;
	}
	printf("rank %d of %d: %d\n", rank, size, sum);
	tuttiCommDestroy(comm);
	return sum != size * (size + 1) / 2;
}
