/* NUMA nodes, cache groups and cores from /sys, or from /proc/cpuinfo alone. SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define CPU "/sys/devices/system/cpu"
#define NODE "/sys/devices/system/node"
enum { LINE = 32768 }; /* a mask of 100,000 CPUs */

/* ---- NUMA nodes ---- */

void tt_sys_numa(struct tt_sys *s, const char *id, struct tt_cpus *cpus)
{
	struct tt_sys_numa *list = realloc(s->numa, (size_t)(s->nnuma + 1) * sizeof(*list));
	char *mask = tt_cpus_count(cpus) ? tt_cpus_hex(cpus) : NULL;

	if (!list) {
		tt_topo_fail(s->t, tuttiSystemError, "no memory for NUMA nodes");
		tt_cpus_free(cpus);
		free(mask);
		return;
	}
	s->numa = list;
	list[s->nnuma].node = tt_topo_add(s->t, TT_NODE_NUMA, id, 0);
	list[s->nnuma].cpus = *cpus;
	tt_topo_set(s->t, list[s->nnuma].node, "affinity", mask);
	free(mask);
	s->nnuma++;
}

static void see_node(struct tt_sys *s, const char *name)
{
	struct tt_cpus cpus = { 0 };
	char mask[LINE], id[64];

	if (strncmp(name, "node", 4) || name[4] < '0' || name[4] > '9')
		return;
	snprintf(id, sizeof(id), "numa%.50s", name + 4);
	tt_sys_line(s, mask, sizeof(mask), NODE "/%s/cpumap", name);
	if (!tt_cpus_mask(mask, &cpus) || !tt_cpus_count(&cpus)) {
		tt_topo_assume(s->t, "%s has no CPUs: left out (memory of a device, or memory alone)", id);
		tt_cpus_free(&cpus);
		return;
	}
	tt_sys_numa(s, id, &cpus);
}

/* All CPUs in one node, where nobody says more. */
static void one_node(struct tt_sys *s, struct tt_cpus *all)
{
	tt_topo_assume(s->t, "no NUMA node is listed: taken as one");
	tt_sys_numa(s, "numa0", all);
}

static struct tt_sys_numa *numa_of(struct tt_sys *s, unsigned cpu)
{
	for (int i = 0; i < s->nnuma; i++)
		if (tt_cpus_has(&s->numa[i].cpus, cpu))
			return &s->numa[i];
	return NULL;
}

/* ---- caches and cores ---- */

/* Kernels before 2.6.32 have masks alone. */
static bool cpu_set(struct tt_sys *s, struct tt_cpus *out, const char *list, const char *mask)
{
	char text[LINE];

	return (*tt_sys_line(s, text, sizeof(text), "%s", list) && tt_cpus_list(text, out)) ||
	       (*tt_sys_line(s, text, sizeof(text), "%s", mask) && tt_cpus_mask(text, out));
}

static bool cache_cpus(struct tt_sys *s, struct tt_cpus *out, unsigned cpu, int index)
{
	char list[128], mask[128];

	snprintf(list, sizeof(list), CPU "/cpu%u/cache/index%d/shared_cpu_list", cpu, index);
	snprintf(mask, sizeof(mask), CPU "/cpu%u/cache/index%d/shared_cpu_map", cpu, index);
	return cpu_set(s, out, list, mask);
}

static bool core_cpus(struct tt_sys *s, struct tt_cpus *out, unsigned cpu)
{
	char list[128], mask[128];

	snprintf(list, sizeof(list), CPU "/cpu%u/topology/thread_siblings_list", cpu);
	snprintf(mask, sizeof(mask), CPU "/cpu%u/topology/thread_siblings", cpu);
	return cpu_set(s, out, list, mask);
}

static unsigned first_common(const struct tt_cpus *a, const struct tt_cpus *b)
{
	for (unsigned i = 0; i < a->nwords * 64; i++)
		if (tt_cpus_has(a, i) && tt_cpus_has(b, i))
			return i;
	return 0;
}

/* The last cache on the way to memory, and who shares it. */
static void last_cache(struct tt_sys *s, unsigned cpu, struct tt_cpus *out, int *level)
{
	char text[64];
	int best = 0;

	for (int i = 0; i < 16; i++) {
		struct tt_cpus c = { 0 };
		int l = atoi(tt_sys_line(s, text, sizeof(text), CPU "/cpu%u/cache/index%d/level", cpu, i));

		if (l < 2 || l <= best || !cache_cpus(s, &c, cpu, i))
			continue;
		if (best)
			tt_cpus_free(out);
		*out = c;
		best = l;
	}
	*level = best;
}

static int set_node(struct tt_topo *t, enum tt_node_kind kind, const char *id, int parent, const struct tt_cpus *cpus)
{
	int node = tt_topo_find(t, id);
	char *text;

	if (node >= 0)
		return node;
	node = tt_topo_add(t, kind, id, parent);
	text = tt_cpus_text(cpus);
	tt_topo_set(t, node, "cpus", text);
	free(text);
	return node;
}

void tt_sys_core(struct tt_sys *s, const struct tt_sys_numa *numa, const struct tt_cpus *threads, int level,
		 const struct tt_cpus *shared)
{
	int parent = numa->node;
	char id[64];

	if (level) {
		snprintf(id, sizeof(id), "l%d-%u", level, first_common(shared, &numa->cpus));
		parent = set_node(s->t, TT_NODE_CACHE, id, parent, shared);
	}
	snprintf(id, sizeof(id), "core%u", first_common(threads, &numa->cpus));
	set_node(s->t, TT_NODE_CORE, id, parent, threads);
}

static void see_cpu(struct tt_sys *s, unsigned cpu)
{
	struct tt_sys_numa *numa = numa_of(s, cpu);
	struct tt_cpus threads = { 0 }, shared = { 0 };
	char text[32];
	int level;

	if (!numa)
		return;
	if (!core_cpus(s, &threads, cpu) || !tt_cpus_has(&threads, cpu)) {
		tt_cpus_free(&threads);
		if (!tt_cpus_add(&threads, cpu))
			return;
	}
	if (!tt_topo_attr(s->t, numa->node, "package"))
		tt_topo_set(s->t, numa->node, "package", tt_sys_line(s, text, sizeof(text),
			    CPU "/cpu%u/topology/physical_package_id", cpu));
	last_cache(s, cpu, &shared, &level);
	tt_sys_core(s, numa, &threads, level, &shared);
	tt_cpus_free(&threads);
	tt_cpus_free(&shared);
}

/* ---- /proc/cpuinfo ---- */

static FILE *open_cpuinfo(const struct tt_sys *s)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/proc/cpuinfo", s->root);
	return fopen(path, "re");
}

/* "key   : value": the value, or NULL for another key. */
static char *value_of(char *line, const char *key)
{
	size_t n = strlen(key);
	char *p = line + n + strspn(strncmp(line, key, n) ? "" : line + n, " \t");

	if (strncmp(line, key, n) || *p != ':')
		return NULL;
	p += 1 + strspn(p + 1, " \t");
	p[strcspn(p, "\n")] = 0;
	return p;
}

/* NCCL's names. A recorded tree does not say it: the words of its /proc/cpuinfo do. */
static const char *arch_here(const struct tt_sys *s)
{
	static struct utsname u;

	if (*s->root || uname(&u))
		return NULL;
	return !strncmp(u.machine, "ppc64", 5) ? "ppc64" : !strcmp(u.machine, "aarch64") ? "arm64" : u.machine;
}

static void set_all(struct tt_sys *s, const char *name, const char *value)
{
	for (int i = 0; value && i < s->t->nnodes; i++)
		if (s->t->nodes[i].kind == TT_NODE_NUMA && !tt_topo_attr(s->t, i, name))
			tt_topo_set(s->t, i, name, value);
}

void tt_sys_about_cpu(struct tt_sys *s)
{
	static const char *const keys[][2] = { { "vendor_id", "vendor" }, { "cpu family", "familyid" },
					       { "model", "modelid" } };
	FILE *f = open_cpuinfo(s);
	char line[4096], *v;

	set_all(s, "arch", arch_here(s));
	while (f && fgets(line, sizeof(line), f)) {
		for (int i = 0; i < 3; i++) {
			v = value_of(line, keys[i][0]);
			if (v && (!i || (*v >= '0' && *v <= '9' && !v[strspn(v, "0123456789")])))
				set_all(s, keys[i][1], v);
			if (v && !i)
				set_all(s, "arch", "x86_64");
		}
		v = value_of(line, "cpu");
		if (v && !strncmp(v, "POWER", 5))
			set_all(s, "arch", "ppc64");
		if (value_of(line, "CPU implementer"))
			set_all(s, "arch", "arm64");
	}
	if (f)
		fclose(f);
}

static void cpus_of_proc(const struct tt_sys *s, struct tt_cpus *all)
{
	FILE *f = open_cpuinfo(s);
	char line[4096], *v;

	while (f && fgets(line, sizeof(line), f))
		if ((v = value_of(line, "processor")) != NULL && *v >= '0' && *v <= '9')
			tt_cpus_add(all, (unsigned)strtoul(v, NULL, 10));
	if (f)
		fclose(f);
}

/* ---- all ---- */

static void all_cpus(struct tt_sys *s, struct tt_cpus *all)
{
	char text[LINE];

	tt_sys_line(s, text, sizeof(text), CPU "/online");
	if (!*text)
		tt_sys_line(s, text, sizeof(text), CPU "/present");
	if (!*text || !tt_cpus_list(text, all))
		cpus_of_proc(s, all);
}

/* A recorded tree may have no list of the CPUs, but the nodes' masks. */
static void cpus_of_nodes(struct tt_sys *s, struct tt_cpus *all)
{
	for (int i = 0; i < s->nnuma; i++)
		for (unsigned c = 0; c < s->numa[i].cpus.nwords * 64; c++)
			if (tt_cpus_has(&s->numa[i].cpus, c))
				tt_cpus_add(all, c);
}

void tt_sys_cpus(struct tt_sys *s)
{
	struct tt_cpus all = { 0 }, copy = { 0 };

	tt_sys_each(s, NODE, see_node);
	all_cpus(s, &all);
	if (!tt_cpus_count(&all))
		cpus_of_nodes(s, &all);
	if (!s->nnuma) {
		for (unsigned c = 0; c < all.nwords * 64; c++)
			if (tt_cpus_has(&all, c))
				tt_cpus_add(&copy, c);
		one_node(s, &copy);
	}
	if (!tt_cpus_count(&all))
		tt_topo_assume(s->t, "no CPU is listed: caches and cores are not known");
	for (unsigned c = 0; c < all.nwords * 64 && s->t->failed == tuttiSuccess; c++)
		if (tt_cpus_has(&all, c))
			see_cpu(s, c);
	tt_cpus_free(&all);
	tt_sys_about_cpu(s);
}
