/* What members tell of themselves, and the plan and the shape that one of them makes from it for all.
 * SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"
#include "topo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIRE_VERSION 4

static void name_nic(struct tt_member *m)
{
	const char *name = tt_node_interface();

	m->nic = (uint32_t)tt_hash64(name, strlen(name), 0);
	m->rate = *name ? tt_topo_rate(name) : 0;
}

tuttiResult_t tt_comm_introduce(struct tt_member *m, int nranks, const struct tt_mem_device *device)
{
	int node = -1;

	if (nranks > 1)
		TRY(tt_topo_place(&node));
	memset(m, 0, sizeof(*m));
	m->proc = *tt_node_self();
	m->version = WIRE_VERSION;
	m->settings = tt_env_digest();
	m->cores = (uint32_t)tt_usable_cores();
	m->node = node;
	m->device = *device;
	if (nranks > 1)
		name_nic(m);
	if (nranks > 1 && device->present)
		tt_topo_place_gpu(device->words, &m->links);
	tt_env_shared(m->setting_text, sizeof(m->setting_text));
	return tuttiSuccess;
}

bool tt_same_host(const struct tt_proc *a, const struct tt_proc *b)
{
	return !memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id));
}

/* ---- facts ---- */

/* What is said of the transport that choose() will come to. */
static struct tt_caps path_of(bool one_process, bool one_host, const char **path)
{
	struct tt_caps caps = { .latency = 1e-6, .bandwidth = 5e9 };
	char why[128];

	*path = "";
	for (int i = 0; i < tt_ntransports; i++) {
		const struct tt_transport *t = tt_transports[i];

		if (t->ep_per_rank != one_process || (!one_process && !tt_net_enabled(t->name)) ||
		    !t->probe(&caps, why, sizeof(why)) || (!one_host && !caps.across_hosts))
			continue;
		*path = t->name;
		break;
	}
	if (one_host && caps.near_bandwidth > 0)
		caps.bandwidth = caps.near_bandwidth;
	return caps;
}

/* The worst path between members decides alpha and beta; within hosts, if there are several, their own. */
static void paths_of(struct tt_facts *f, bool one_process, bool process_a_host)
{
	const char *path, *near_path;
	struct tt_caps all = path_of(one_process, f->hosts == 1, &path);
	struct tt_caps near = path_of(process_a_host, true, &near_path);

	f->same_memory = f->hosts == 1;
	f->latency = all.latency;
	f->overhead = all.overhead;
	f->bandwidth = all.bandwidth;
	f->near_latency = near.latency;
	f->near_overhead = near.overhead;
	f->near_bandwidth = near.bandwidth;
	f->copied = f->hosts > 1 && f->per_host > 1 ? near.copied : all.copied;
	f->most = all.max_message;
	snprintf(f->path, sizeof(f->path), "%s", path);
}

/* Numbers the hosts in the order of their first ranks. */
static tuttiResult_t facts_of(struct tt_facts *f, const struct tt_proc *const *procs, int n, struct tt_place *at)
{
	struct host {
		int first, ranks;
	} *hosts = calloc((size_t)n, sizeof(*hosts));
	bool one_process = true, process_a_host = true;
	int changes = 0;

	if (!hosts)
		return tt_fail(tuttiSystemError, "no memory for the plan of %d ranks", n);
	*f = (struct tt_facts){ .nranks = n };
	for (int i = 0; i < n; i++) {
		int h = i ? (int)at[i - 1].host : 0; /* neighbours, as launchers start them */

		if (!i || !tt_same_host(procs[i], procs[hosts[h].first]))
			for (h = 0; h < f->hosts && !tt_same_host(procs[i], procs[hosts[h].first]); h++)
				;
		if (h == f->hosts)
			hosts[f->hosts++].first = i;
		at[i].host = (uint32_t)h;
		changes += i && at[i].host != at[i - 1].host;
		one_process &= procs[i]->id == procs[0]->id;
		process_a_host &= procs[i]->id == procs[hosts[h].first]->id;
		if (++hosts[h].ranks > f->per_host)
			f->per_host = hosts[h].ranks;
	}
	free(hosts);
	f->scattered = changes >= f->hosts;
	paths_of(f, one_process, process_a_host);
	return tuttiSuccess;
}

/* ---- at the root ---- */

static tuttiResult_t compatible(const void *const *entries, const size_t *sizes, int n)
{
	const struct tt_member *first = entries[0];

	for (int i = 0; i < n; i++) {
		const struct tt_member *m = entries[i];

		if (sizes[i] != sizeof(*m) || m->version != first->version)
			return tt_fail(tuttiRemoteError, "rank %d (%s, pid %u) speaks another wire version than "
				       "rank 0; use one build of tutti on all ranks", i, m->proc.host,
				       m->proc.pid);
		if (m->settings != first->settings)
			return tt_fail(tuttiRemoteError, "rank %d (%s, pid %u) has other settings than rank 0: "
				       "%.250s; rank 0: %.250s; set them alike", i, m->proc.host, m->proc.pid,
				       m->setting_text, first->setting_text);
	}
	return tuttiSuccess;
}

/* The plan, and behind it the words of the shape. */
static tuttiResult_t join_up(const struct tt_plan *plan, const struct tt_shape *shape, int n, void **blob, size_t *size)
{
	uint32_t *words;
	size_t k;
	char *all;

	TRY(tt_shape_pack(shape, n, &words, &k));
	*size = sizeof(*plan) + k * sizeof(*words);
	*blob = all = malloc(*size);
	if (all) {
		memcpy(all, plan, sizeof(*plan));
		memcpy(all + sizeof(*plan), words, k * sizeof(*words));
	}
	free(words);
	return all ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for the plan of %d ranks", n);
}

/* What the ranks of the poorest host may use together: those of one place share its cores. */
static tuttiResult_t count_cores(const void *const *entries, const struct tt_place *at, struct tt_facts *f)
{
	uint32_t *cores = calloc((size_t)f->hosts, sizeof(*cores));

	if (!cores)
		return tt_fail(tuttiSystemError, "no memory for the plan of %d ranks", f->nranks);
	for (int i = 0; i < f->nranks; i++) {
		int k = i - 1;

		while (k >= 0 && (at[k].host != at[i].host || at[k].node != at[i].node))
			k--;
		cores[at[i].host] += k < 0 ? ((const struct tt_member *)entries[i])->cores : 0;
	}
	for (int h = 0; h < f->hosts; h++)
		f->cores = !h || (int)cores[h] < f->cores ? (int)cores[h] : f->cores;
	free(cores);
	return tuttiSuccess;
}

static tuttiResult_t decide(const void *const *entries, const struct tt_proc *const *procs, struct tt_place *at, int n,
			    void **blob, size_t *size)
{
	struct tt_shape shape;
	struct tt_facts facts;
	struct tt_plan plan;
	tuttiResult_t r;

	TRY(facts_of(&facts, procs, n, at));
	TRY(count_cores(entries, at, &facts));
	TRY(tt_shape_of_places(at, n, &shape));
	r = tt_shape_add_rings(at, n, &shape);
	facts.lanes = (int)shape.nlanes;
	if (r == tuttiSuccess)
		r = tt_plan_make(&facts, &plan);
	if (r == tuttiSuccess)
		r = tt_customs_decide((const struct tt_member *const *)entries, n, &plan);
	if (r == tuttiSuccess) {
		tt_plan_prove(&plan, &facts, &shape);
		r = join_up(&plan, &shape, n, blob, size);
	}
	tt_shape_free(&shape);
	return r;
}

tuttiResult_t tt_comm_decide(const void *const *entries, const size_t *sizes, int n, void **blob, size_t *size)
{
	const struct tt_proc **procs;
	struct tt_place *at;
	tuttiResult_t r;

	TRY(compatible(entries, sizes, n));
	procs = malloc((size_t)n * sizeof(*procs));
	at = malloc((size_t)n * sizeof(*at));
	r = procs && at ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for the plan of %d ranks", n);
	for (int i = 0; r == tuttiSuccess && i < n; i++) {
		const struct tt_member *m = entries[i];

		procs[i] = &m->proc;
		at[i] = (struct tt_place){ .node = m->node, .nic = m->nic, .rate = m->rate,
					  .gpu = m->links.n ? &m->links : NULL };
	}
	if (r == tuttiSuccess)
		r = decide(entries, procs, at, n, blob, size);
	free(procs);
	free(at);
	return r;
}

/* ---- at all ranks ---- */

/* The first rank of each host writes its machine. */
static void dump(const struct tuttiComm *c)
{
	int i = 0;

	while (!tt_same_host(&c->procs[c->proc_of[i]], &c->procs[c->proc_of[c->rank]]))
		i++;
	if (i == c->rank)
		tt_topo_place_dump();
}

void tt_comm_say(const struct tuttiComm *c)
{
	char cal[48] = "", rings[48] = "";
	int hosts = 1;

	for (int i = 1; c->shape.group && i < c->nranks; i++)
		hosts += c->shape.group[tt_shape_rank(&c->shape, 0, c->nranks, i)] !=
			 c->shape.group[tt_shape_rank(&c->shape, 0, c->nranks, i - 1)];
	if (c->cal)
		snprintf(cal, sizeof(cal), ", calibration %016llx", (unsigned long long)tt_cal_digest(c->cal));
	if (c->shape.nlanes > 1)
		snprintf(rings, sizeof(rings), ", %u rings over links of devices", c->shape.nlanes);
	tt_log(TT_LOG_INFO, "plan", "%d ranks on %d host%s, %u cores on the poorest, %s order%s, shape %016llx%s",
	       c->nranks, hosts, hosts == 1 ? "" : "s", c->plan.cores, c->shape.order ? "another" : "their own", rings,
	       (unsigned long long)tt_shape_digest(&c->shape, c->nranks), cal);
}

tuttiResult_t tt_comm_take_plan(struct tuttiComm *c, const void *blob, size_t size)
{
	size_t words = (size - sizeof(c->plan)) / sizeof(uint32_t);

	if (size < sizeof(c->plan) || size % sizeof(uint32_t))
		return tt_fail(tuttiRemoteError, "the plan came from another version of tutti");
	memcpy(&c->plan, blob, sizeof(c->plan));
	if (c->plan.size != sizeof(c->plan))
		return tt_fail(tuttiRemoteError, "the plan came from another version of tutti");
	TRY(tt_shape_unpack((const uint32_t *)blob + sizeof(c->plan) / sizeof(uint32_t), words, c->nranks,
			    &c->shape));
	dump(c);
	return tuttiSuccess;
}

tuttiResult_t tt_comm_facts(const struct tuttiComm *c, struct tt_facts *facts)
{
	size_t n = (size_t)c->nranks;
	const struct tt_proc **procs = malloc(n * sizeof(*procs));
	struct tt_place *at = calloc(n, sizeof(*at));
	tuttiResult_t r;

	r = procs && at ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for the plan of %d ranks", c->nranks);
	for (int i = 0; r == tuttiSuccess && i < c->nranks; i++)
		procs[i] = &c->procs[c->proc_of[i]];
	if (r == tuttiSuccess)
		r = facts_of(facts, procs, c->nranks, at);
	free(procs);
	free(at);
	TRY(r);
	facts->cores = (int)c->plan.cores;
	facts->cal = c->cal;
	facts->lanes = (int)c->shape.nlanes;
	return tuttiSuccess;
}

tuttiResult_t tt_comm_plan(struct tuttiComm *c, struct tt_plan *out)
{
	struct tt_facts facts;

	TRY(tt_comm_facts(c, &facts));
	TRY(tt_plan_make(&facts, out));
	tt_plan_prove(out, &facts, &c->shape);
	if (c->customs)
		tt_plan_use(out, &c->customs->file, c->nranks);
	return tuttiSuccess;
}
