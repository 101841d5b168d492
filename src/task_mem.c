/* Memory of one call: registered for as long as it runs where that is worth it, so that no registration outlives
 * what the caller does with its memory. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#define HOLD_FROM ((size_t)1 << 20) /* below, staging costs less than a registration */

size_t tt_task_in_bytes(const struct tt_task *t)
{
	bool here = t->coll == TT_SENDRECV ? t->is_send || t->paired :
					     t->coll != TT_BROADCAST || t->root == t->comm->rank;

	return here * t->count * tt_type_size(t->type) * (t->coll == TT_REDUCESCATTER ? (size_t)t->comm->nranks : 1);
}

size_t tt_task_out_bytes(const struct tt_task *t)
{
	bool here = t->coll == TT_SENDRECV ? !t->is_send : t->coll != TT_REDUCE || t->root == t->comm->rank;

	return here * t->count * tt_type_size(t->type) * (t->coll == TT_ALLGATHER ? (size_t)t->comm->nranks : 1);
}

void tt_task_hold(struct tt_task *t)
{
	struct tt_ep *eps[4];
	size_t in = tt_task_in_bytes(t), out = tt_task_out_bytes(t);
	int n;

	t->held_by = NULL;
	if (t->q || (in <= HOLD_FROM && out <= HOLD_FROM))
		return;
	n = tt_prog_eps(t->prog, eps, 4);
	for (int i = 0; i < n; i++)
		if (eps[i]->t->reg)
			t->held_by = eps[i];
	if (!t->held_by)
		return;
	t->held[0] = in && t->in != t->out ? tt_ep_reg(t->held_by, (void *)t->in, in, TT_REG_BRIEF) : NULL;
	t->held[1] = out ? tt_ep_reg(t->held_by, t->out, out, TT_REG_BRIEF) : NULL;
}

void tt_task_release(struct tt_task *t)
{
	for (int i = 0; t->held_by && i < 2; i++)
		if (t->held[i])
			tt_ep_dereg(t->held_by, t->held[i]);
	t->held_by = NULL;
}
