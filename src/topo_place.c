/* Where a thread may run: its node in the graph of this machine, which a process looks at once, and only if that can
 * tell something. SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CPUS = 8192 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tt_topo *machine; /* kept: inits follow each other */

static bool file_named(void)
{
	const char *nccl = getenv("NCCL_TOPO_FILE");

	return *tt_env_str("TOPO_FILE") || *tt_env_str("TOPO_DUMP_FILE") || (nccl && *nccl);
}

tuttiResult_t tt_topo_machine(const struct tt_topo **out)
{
	tuttiResult_t r;

	pthread_mutex_lock(&lock);
	r = machine ? tuttiSuccess : tt_topo_used(&machine);
	*out = r == tuttiSuccess ? machine : NULL;
	pthread_mutex_unlock(&lock);
	return r;
}

static int common(const struct tt_topo *t, int a, int b)
{
	while (a != b) /* parents have less numbers */
		if (a > b)
			a = t->nodes[a].parent;
		else
			b = t->nodes[b].parent;
	return a;
}

static int node_of(const struct tt_topo *t, const cpu_set_t *set, size_t size)
{
	int node = -1;

	for (unsigned cpu = 0; cpu < MAX_CPUS && node; cpu++) {
		int core = CPU_ISSET_S(cpu, size, set) ? tt_topo_of_cpu(t, cpu) : -1;

		if (core >= 0)
			node = node < 0 ? core : common(t, node, core);
	}
	return node ? node : -1;
}

tuttiResult_t tt_topo_place(int *node)
{
	size_t size = CPU_ALLOC_SIZE(MAX_CPUS);
	cpu_set_t *set = CPU_ALLOC(MAX_CPUS);
	tuttiResult_t r = tuttiSuccess;
	const struct tt_topo *t = NULL;
	bool bound;

	*node = -1;
	if (!set)
		return tt_fail(tuttiSystemError, "no memory for a set of CPUs");
	bound = !sched_getaffinity(0, size, set) && CPU_COUNT_S(size, set) < (int)sysconf(_SC_NPROCESSORS_ONLN);
	if (bound || file_named())
		r = tt_topo_machine(&t);
	if (t && bound)
		*node = node_of(t, set, size);
	CPU_FREE(set);
	return *tt_env_str("TOPO_FILE") ? r : tuttiSuccess;
}

static uint32_t rate_in_file(const char *interface)
{
	const struct tt_topo *t;

	if (!file_named() || tt_topo_machine(&t) != tuttiSuccess)
		return 0;
	for (int i = tt_topo_next(t, TT_NODE_PORT, -1); i >= 0; i = tt_topo_next(t, TT_NODE_PORT, i)) {
		const char *name = tt_topo_attr(t, i, "name");

		if (name && !strcmp(name, interface) && t->nodes[i].bandwidth != TT_NO_LIMIT)
			return t->nodes[i].bandwidth;
	}
	return 0;
}

uint32_t tt_topo_rate(const char *interface)
{
	uint32_t rate = rate_in_file(interface);
	char path[80];
	long mbits = 0;
	FILE *f;

	if (rate)
		return rate;
	snprintf(path, sizeof(path), "/sys/class/net/%s/speed", interface);
	f = fopen(path, "re");
	if (f && fscanf(f, "%ld", &mbits) != 1)
		mbits = 0; /* it is down, or has no speed */
	if (f)
		fclose(f);
	return mbits > 0 && mbits < 8l << 30 ? (uint32_t)((mbits + 7) / 8) : 0;
}

void tt_topo_place_gpu(const char *bus, struct tt_gpu_links *out)
{
	const struct tt_topo *t;

	if (tt_topo_machine(&t) == tuttiSuccess)
		tt_topo_gpu_links(t, bus, out);
}

void tt_topo_place_dump(void)
{
	const struct tt_topo *t;

	if (*tt_env_str("TOPO_DUMP_FILE") && tt_topo_machine(&t) == tuttiSuccess)
		tt_topo_dump(t);
}
