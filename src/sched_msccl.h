/* Between sched_msccl.c, which reads the XML, and sched_msccl_run.c, which makes schedules of it. */
#ifndef TT_SCHED_MSCCL_H
#define TT_SCHED_MSCCL_H

#include "sched_file.h"

enum tt_mtype { TT_M_S, TT_M_R, TT_M_RRC, TT_M_RRS, TT_M_RRCS, TT_M_RCS, TT_M_CPY, TT_M_RE, TT_M_NOP, TT_M_NTYPES };

struct tt_mstep {
	enum tt_mtype type;
	char srcbuf, dstbuf; /* i, o, s */
	int srcoff, dstoff, cnt;
	int depid, deps; /* thread block by its place in the GPU, step; -1: none */
	uint32_t line;
};

struct tt_msent {
	uint32_t id, n, step; /* the chunks whose data they are */
};

struct tt_mtb {
	int id, send, recv; /* peers, or -1 */
	uint32_t lane, line, nsteps, at;
	struct tt_mstep *steps;
	struct tt_mtb *from; /* whose messages it receives, or NULL */
	struct tt_msent *sent;
	uint32_t nsent, got; /* got: taken from `from` */
};

struct tt_mgpu {
	uint32_t line, nscratch, ntbs;
	struct tt_mtb *tbs;
};

struct tt_malgo {
	const char *what;
	char name[64];
	enum tt_coll coll;
	int ngpus, root;
	uint32_t line, per_block, nlanes;
	bool in_place_only;
	size_t least, most;
	struct tt_mgpu *gpus;
};

tuttiResult_t tt_msccl_run(struct tt_malgo *m, struct tt_sched_file *file);

#endif
