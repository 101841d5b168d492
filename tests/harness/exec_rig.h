/* What the executor (src/exec.c) makes of schedules: all ranks over inproc links, driven by one thread, as the
 * reference for other ways to run them. SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_EXEC_RIG_H
#define TT_EXEC_RIG_H

#include <stdlib.h>
#include <string.h>

#include "exec.h"
#include "test.h"

enum { RIG_RANKS = 16, RIG_LANES = 16 };

struct exec_rig {
	int p;
	struct tt_ep ep[RIG_RANKS];
	struct tt_link *links[RIG_RANKS][RIG_RANKS][RIG_LANES];
};

struct exec_end {
	struct exec_rig *rig;
	int rank;
};

static inline void exec_rig_begin(struct exec_rig *g, int p)
{
	struct tt_ep_config config = { .self = 1, .group = 77 };

	memset(g, 0, sizeof(*g));
	g->p = p;
	for (int i = 0; i < p; i++) {
		g->ep[i].t = &tt_inproc;
		g->ep[i].priv = aligned_alloc(64, (tt_inproc.ep_size + 63) & ~(size_t)63);
		CHECK(g->ep[i].priv);
		memset(g->ep[i].priv, 0, tt_inproc.ep_size);
		CHECK(tt_inproc.ep_open(g->ep[i].priv, &config) == tuttiSuccess);
	}
}

static inline void exec_rig_end(struct exec_rig *g)
{
	for (int a = 0; a < g->p; a++)
		for (int b = 0; b < g->p; b++)
			for (int l = 0; l < RIG_LANES; l++) {
				tt_link_close(g->links[a][b][l]);
				free(g->links[a][b][l]);
			}
	for (int i = 0; i < g->p; i++) {
		tt_inproc.ep_close(g->ep[i].priv);
		free(g->ep[i].priv);
	}
}

static inline tuttiResult_t exec_rig_link(void *ctx, int peer, uint32_t lane, struct tt_link **out)
{
	struct exec_end *e = ctx;
	struct tt_link **l = &e->rig->links[e->rank][peer][lane];
	uint64_t low = (uint64_t)tt_min(e->rank, peer), high = (uint64_t)tt_max(e->rank, peer);

	CHECK(lane < RIG_LANES);
	if (!*l) {
		*l = calloc(1, sizeof(**l));
		CHECK(*l);
		(*l)->peer = peer;
		(*l)->key = 1 + ((low * RIG_RANKS + high) * RIG_LANES + lane);
		TRY(tt_link_open(*l, &e->rig->ep[e->rank]));
	}
	*out = *l;
	return tuttiSuccess;
}

/* The schedule is copied. */
static inline struct tt_prog *exec_rig_prog(struct exec_rig *g, int rank, const struct tt_sched *s, uint32_t depth)
{
	struct exec_end e = { g, rank };
	struct tt_sched *copy = tt_sched_copy(s);
	struct tt_prog *p;

	CHECK(copy && tt_prog_new(copy, depth, exec_rig_link, &e, &p) == tuttiSuccess);
	return p;
}

static inline void exec_rig_run(struct exec_rig *g, struct tt_prog *const *progs, const struct tt_call *calls)
{
	enum tt_run_state s[RIG_RANKS];
	void *tmp[RIG_RANKS];
	int moved, going = g->p;

	for (int r = 0; r < g->p; r++) {
		tmp[r] = aligned_alloc(64, (tt_run_tmp(progs[r], &calls[r]) + 127) & ~(size_t)63);
		CHECK(tmp[r]);
		tt_run_begin(progs[r], &calls[r], tmp[r]);
		s[r] = TT_RUN_GOING;
	}
	while (going)
		for (int r = 0; r < g->p; r++) {
			if (s[r] != TT_RUN_GOING)
				continue;
			s[r] = tt_run_pass(progs[r], &moved);
			CHECK(s[r] != TT_RUN_FAILED);
			going -= s[r] == TT_RUN_DONE;
		}
	for (int r = 0; r < g->p; r++)
		free(tmp[r]);
}

#endif
