/* The same measurement as all_reduce_perf's out-of-place column, for an MPI library: float32 sum, a
 * barrier, n calls back to back, the largest time of all ranks. Prints "bytes microseconds" lines.
 * Usage: peer_allreduce MIN_BYTES MAX_BYTES FACTOR ITERS WARMUP. SPDX-License-Identifier: Apache-2.0 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static double measure(const float *in, float *out, int count, int iters, int warmup)
{
	double start, us;

	for (int i = 0; i < warmup; i++)
		MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
	MPI_Barrier(MPI_COMM_WORLD);
	start = MPI_Wtime();
	for (int i = 0; i < iters; i++)
		MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
	us = (MPI_Wtime() - start) * 1e6 / iters;
	MPI_Allreduce(MPI_IN_PLACE, &us, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
	return us;
}

/* Every element of the result is the same small integer: a peer that is fast but wrong is no peer. */
static void check(const float *out, int count, int nranks)
{
	for (int i = 0; i < count; i++)
		if (out[i] != (float)(nranks * (nranks + 1) / 2)) {
			fprintf(stderr, "wrong result at element %d of %d\n", i, count);
			MPI_Abort(MPI_COMM_WORLD, 1);
		}
}

static float *buffer(size_t bytes, float value)
{
	void *p;

	if (posix_memalign(&p, 4096, bytes))
		MPI_Abort(MPI_COMM_WORLD, 1);
	for (size_t i = 0; i < bytes / sizeof(float); i++)
		((float *)p)[i] = value;
	return p;
}

int main(int argc, char **argv)
{
	size_t lo, hi, factor;
	float *in, *out;
	int rank, size;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	if (argc != 6) {
		fprintf(stderr, "usage: %s MIN_BYTES MAX_BYTES FACTOR ITERS WARMUP\n", argv[0]);
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	lo = strtoull(argv[1], NULL, 10);
	hi = strtoull(argv[2], NULL, 10);
	factor = strtoull(argv[3], NULL, 10);
	in = buffer(hi, (float)(rank + 1));
	out = buffer(hi, 0);
	for (size_t bytes = lo; bytes <= hi && factor > 1; bytes *= factor) {
		int count = (int)(bytes / sizeof(float));
		double us = measure(in, out, count, atoi(argv[4]), atoi(argv[5]));

		check(out, count, size);
		if (rank == 0)
			printf("%zu %.3f\n", bytes, us);
	}
	free(in);
	free(out);
	MPI_Finalize();
	return 0;
}
