/* SPDX-License-Identifier: Apache-2.0
 * Maximum flow by Dinic's algorithm. An arc and its way back lie side by side: 2i and 2i + 1. */
#include "topo_flow.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX };

struct arc {
	uint32_t to, next;
	int64_t cap, left;
};

struct tt_flow {
	uint32_t nverts, narcs;
	uint32_t *first, *level, *at, *queue;
	struct arc *arcs;
};

struct tt_flow *tt_flow_new(uint32_t nverts, uint32_t narcs)
{
	struct tt_flow *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->nverts = nverts;
	f->first = malloc(4 * sizeof *f->first * (nverts + 1));
	f->arcs = malloc(2 * sizeof *f->arcs * ((size_t)narcs + 1));
	if (!f->first || !f->arcs) {
		tt_flow_free(f);
		return NULL;
	}
	f->level = f->first + nverts;
	f->at = f->level + nverts;
	f->queue = f->at + nverts;
	memset(f->first, 0xff, nverts * sizeof *f->first);
	return f;
}

void tt_flow_free(struct tt_flow *f)
{
	if (!f)
		return;
	free(f->first);
	free(f->arcs);
	free(f);
}

uint32_t tt_flow_arc(struct tt_flow *f, uint32_t u, uint32_t v, int64_t cap, int64_t back)
{
	uint32_t i = f->narcs++;

	f->arcs[2 * i] = (struct arc){ v, f->first[u], cap, cap };
	f->first[u] = 2 * i;
	f->arcs[2 * i + 1] = (struct arc){ u, f->first[v], back, back };
	f->first[v] = 2 * i + 1;
	return i;
}

void tt_flow_set(struct tt_flow *f, uint32_t arc, int64_t cap, int64_t back)
{
	f->arcs[2 * arc].cap = cap;
	f->arcs[2 * arc + 1].cap = back;
}

/* How far each vertex is from s over arcs that have room; whether t is reached. */
static bool find_levels(struct tt_flow *f, uint32_t s, uint32_t t)
{
	uint32_t head = 0, tail = 0;

	memset(f->level, 0xff, f->nverts * sizeof *f->level);
	f->level[s] = 0;
	f->queue[tail++] = s;
	while (head < tail) {
		uint32_t u = f->queue[head++];

		for (uint32_t i = f->first[u]; i != NONE; i = f->arcs[i].next) {
			uint32_t v = f->arcs[i].to;

			if (!f->arcs[i].left || f->level[v] != NONE)
				continue;
			f->level[v] = f->level[u] + 1;
			f->queue[tail++] = v;
		}
	}
	return f->level[t] != NONE;
}

static int64_t push(struct tt_flow *f, uint32_t u, uint32_t t, int64_t most)
{
	int64_t done = 0;

	if (u == t)
		return most;
	for (uint32_t *i = &f->at[u]; *i != NONE; *i = f->arcs[*i].next) {
		struct arc *a = &f->arcs[*i];
		int64_t room = most - done < a->left ? most - done : a->left;

		if (!room || f->level[a->to] != f->level[u] + 1)
			continue;
		room = push(f, a->to, t, room);
		a->left -= room;
		f->arcs[*i ^ 1].left += room;
		done += room;
		if (done == most)
			break;
	}
	return done;
}

int64_t tt_flow_max(struct tt_flow *f, uint32_t s, uint32_t t, int64_t most)
{
	int64_t sum = 0;

	for (uint32_t i = 0; i < 2 * f->narcs; i++)
		f->arcs[i].left = f->arcs[i].cap;
	while (sum < most && find_levels(f, s, t)) {
		memcpy(f->at, f->first, f->nverts * sizeof *f->at);
		sum += push(f, s, t, most - sum);
	}
	return sum;
}

int64_t tt_flow_used(const struct tt_flow *f, uint32_t arc)
{
	return f->arcs[2 * arc].cap - f->arcs[2 * arc].left;
}

bool tt_flow_before(const struct tt_flow *f, uint32_t v)
{
	return f->level[v] != NONE;
}
