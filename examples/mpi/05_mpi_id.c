/* tutti beside MPI: rank 0 makes the id, MPI_Bcast brings it to the others.
 *   mpicc -Iinclude examples/mpi/05_mpi_id.c -Lbuild/lib -ltutti && mpirun -n 4 ./a.out
 * SPDX-License-Identifier: Apache-2.0 */
#include <mpi.h>
#include <stdio.h>
#include <tutti.h>

int main(int argc, char **argv)
{
	tuttiUniqueId id = { { 0 } };
	tuttiComm_t comm;
	int rank, size;
	double sum;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	if (rank == 0 && tuttiGetUniqueId(&id) != tuttiSuccess)
		goto fail;
	MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
	if (tuttiCommInitRank(&comm, size, id, rank) != tuttiSuccess)
		goto fail;
	sum = rank + 1;
	if (tuttiAllReduce(&sum, &sum, 1, tuttiFloat64, tuttiSum, comm, NULL) != tuttiSuccess)
		goto fail;
	printf("rank %d of %d: %g\n", rank, size, sum);
	tuttiCommDestroy(comm);
	MPI_Finalize();
	return sum != size * (size + 1) / 2;
fail:
	fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
	MPI_Abort(MPI_COMM_WORLD, 1);
	return 1;
}
