/* Times AllGather; size is that of the whole result. SPDX-License-Identifier: Apache-2.0 */
#include "perf_common.h"

static struct perf_sizes sizes(size_t count, int nranks)
{
	size_t share = count / (size_t)nranks;

	return (struct perf_sizes){
		.send = share, .recv = share * (size_t)nranks, .param = share, .send_offset = share
	};
}

static void expect(const struct perf_case *c, void *out)
{
	size_t share = c->sizes.send, bytes = share * perf_type_size(c->type);

	for (int r = 0; r < c->nranks; r++)
		perf_input(c, r, 0, share, (char *)out + (size_t)r * bytes);
}

static tuttiResult_t run(const void *send, void *recv, const struct perf_case *c, tuttiRedOp_t op,
			 tuttiComm_t comm, tuttiStream_t stream)
{
	return tuttiAllGather(send, recv, c->sizes.param, c->type, comm, stream);
}

int main(int argc, char **argv)
{
	static const struct perf_coll coll = { .name = "AllGather",
					       .passes = 1,
					       .sizes = sizes,
					       .expect = expect,
					       .run = run };

	return perf_main(argc, argv, &coll);
}
