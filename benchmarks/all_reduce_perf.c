/* Times AllReduce. SPDX-License-Identifier: Apache-2.0 */
#include "perf_common.h"

static void expect(const struct perf_case *c, void *out)
{
	perf_reduced(c, 0, c->sizes.recv, out);
}

static tuttiResult_t run(const void *send, void *recv, const struct perf_case *c, tuttiRedOp_t op,
			 tuttiComm_t comm, tuttiStream_t stream)
{
	return tuttiAllReduce(send, recv, c->sizes.param, c->type, op, comm, stream);
}

int main(int argc, char **argv)
{
	static const struct perf_coll coll = { .name = "AllReduce",
					       .has_op = true,
					       .passes = 2,
					       .expect = expect,
					       .run = run };

	return perf_main(argc, argv, &coll);
}
