/* Times ReduceScatter; size is that of a rank's whole input. SPDX-License-Identifier: Apache-2.0 */
#include "perf_common.h"

static struct perf_sizes sizes(size_t count, int nranks)
{
	size_t share = count / (size_t)nranks;

	return (struct perf_sizes){
		.send = share * (size_t)nranks, .recv = share, .param = share, .recv_offset = share
	};
}

static void expect(const struct perf_case *c, void *out)
{
	perf_reduced(c, (size_t)c->rank * c->sizes.recv, c->sizes.recv, out);
}

static tuttiResult_t run(const void *send, void *recv, const struct perf_case *c, tuttiRedOp_t op,
			 tuttiComm_t comm, tuttiStream_t stream)
{
	return tuttiReduceScatter(send, recv, c->sizes.param, c->type, op, comm, stream);
}

int main(int argc, char **argv)
{
	static const struct perf_coll coll = { .name = "ReduceScatter",
					       .has_op = true,
					       .passes = 1,
					       .sizes = sizes,
					       .expect = expect,
					       .run = run };

	return perf_main(argc, argv, &coll);
}
