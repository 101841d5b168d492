/* tutti-info: what the library finds on this machine and what it would choose. Starts no thread, opens no port
 * and sends nothing. SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_mem.h"
#include "info_draw.h"
#include "net.h"
#include "plan.h"

enum { MAX_ADDRS = 256, MAX_SETTINGS = 64, MAX_ASKED = 16, MAX_RANKS = 1024, MAX_CANDIDATES = 16 };
enum { MAX_HOSTS = 1 << 16, MAX_DRAWN = 32 };

static const char usage[] =
	"tutti-info [--json] [--explain COLL:SIZE[:RANKS[:TRANSPORT]]]... [--print COLL:ALGO:RANKS[:RANK]]...\n"
	"tutti-info --topo [FILE] [--hosts N] [--explain COLL:SIZE]... [--json | --as text | --as nccl] [--draw FILE]\n"
	"tutti-info --print COLL:ALGO:RANKS [--explain COLL:SIZE[:RANKS[:TRANSPORT]]] --draw FILE\n"
	"tutti-info --schedule FILES|COLL:ALGO:RANKS[:ROOT] [--as text | --as msccl]\n"
	"tutti-info --check-rdma [--json]\n"
	"tutti-info --settings | --settings-markdown | --help\n"
	"\n"
	"Without options: what was found on this machine, which transports can work, which settings are set.\n"
	"  --explain   the algorithms for a call, what each should cost, which is chosen and why. SIZE is that of\n"
	"              a block in bytes (AllGather and ReduceScatter: one rank's part), with K, M or G; 2 RANKS\n"
	"              over shm unless told otherwise. With tcp each rank has a host of its own.\n"
	"  --print     the schedule of an algorithm, one line a step, of one rank or of all\n"
	"  --topo      the machine: sockets, caches, PCI, GPUs, NICs, links, the NIC of each GPU, what was assumed;\n"
	"              this one, or that of FILE (tutti's text, NCCL's or hwloc's XML, a folder with a recorded sys\n"
	"              and proc, synthetic:WORDS of hwloc); where NCCL's XML has several hosts, all of them, or\n"
	"              FILE#2; --as: in the form of tutti's text or NCCL's XML\n"
	"  --hosts     with --topo: what collectives should cost on N such hosts, all algorithms, the bound and what\n"
	"              binds; AllReduce of some sizes, or what --explain asks\n"
	"  --schedule  schedules of files, listed and proved; --as: these, or those of an algorithm, written\n"
	"  --check-rdma  RDMA devices, ports and GIDs, what is wrong and how to mend it; status 1 if something is\n"
	"  --draw      into FILE.svg, .png (by Graphviz) or .dot: the machine of --topo with its links and rings, or\n"
	"              the schedule of --print over time, of the size and over the transport that --explain names\n"
	"  --json      all that was asked for, and what was found, as one JSON object\n"
	"  --settings  every TUTTI_ variable with its value (* set in the environment) and meaning\n";

/* ---- the machine ---- */

struct skipped {
	struct tt_local_addr a;
	const char *why;
};

struct machine {
	char host[65], boot_id[64];
	int usable, online, nused, nskipped;
	struct tt_local_addr used[TT_MAX_ADDRS];
	struct skipped skipped[MAX_ADDRS];
};

static const char *why_skipped(const struct machine *m, const struct tt_local_addr *a)
{
	if (*tt_env_str("ADDRS"))
		return "not in TUTTI_ADDRS";
	if (a->loopback && !m->used[0].loopback)
		return "loopback, and there are others";
	return a->carrier ? "more than are needed" : "no carrier";
}

static bool is_used(const struct machine *m, const struct tt_local_addr *a)
{
	for (int i = 0; i < m->nused; i++)
		if (tt_addr_equal(&m->used[i].addr, &a->addr) && !strcmp(m->used[i].name, a->name))
			return true;
	return false;
}

/* Interfaces that are down never come as far as the library's list. */
static void find_down(struct machine *m)
{
	struct ifaddrs *list, *i;

	if (getifaddrs(&list))
		return;
	for (i = list; i && m->nskipped < MAX_ADDRS; i = i->ifa_next) {
		struct skipped *s = &m->skipped[m->nskipped];
		uint16_t port;

		if (i->ifa_flags & IFF_UP)
			continue;
		memset(s, 0, sizeof(*s));
		if (i->ifa_addr && !tt_addr_from(i->ifa_addr, &s->a.addr, &port))
			s->a.addr.family = 0;
		snprintf(s->a.name, sizeof(s->a.name), "%s", i->ifa_name);
		s->why = "down";
		m->nskipped++;
	}
	freeifaddrs(list);
}

static void find_addrs(struct machine *m)
{
	static struct tt_local_addr all[MAX_ADDRS];
	int n = tt_addr_list("0.0.0.0/0,::/0", all, MAX_ADDRS);

	m->nused = tt_addr_list(tt_env_str("ADDRS"), m->used, TT_MAX_ADDRS);
	for (int i = 0; i < n && m->nskipped < MAX_ADDRS; i++)
		if (!is_used(m, &all[i]))
			m->skipped[m->nskipped++] = (struct skipped){ all[i], why_skipped(m, &all[i]) };
	find_down(m);
}

static void find_machine(struct machine *m)
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (gethostname(m->host, sizeof(m->host) - 1))
		strcpy(m->host, "unknown");
	if (!f || !fgets(m->boot_id, sizeof(m->boot_id), f))
		strcpy(m->boot_id, "unknown");
	if (f)
		fclose(f);
	m->boot_id[strcspn(m->boot_id, "\n")] = 0;
	m->usable = tt_usable_cores();
	m->online = (int)sysconf(_SC_NPROCESSORS_ONLN);
	find_addrs(m);
}

static const char *addr_text(const struct tt_local_addr *a, char *out, size_t room)
{
	if (a->addr.family)
		return tt_addr_format(&a->addr, 0, out, room);
	snprintf(out, room, "no address");
	return out;
}

static void show_machine(const struct machine *m)
{
	char text[TT_ADDR_TEXT], cuda[TT_TEXT];

	printf("tutti %d.%d.%d\n", TUTTI_MAJOR, TUTTI_MINOR, TUTTI_PATCH);
	printf("host       %s, boot id %s\n", m->host, m->boot_id);
	printf("cores      %d usable of %d online\n", m->usable, m->online);
	printf("reduction  kernels for %s\n", tt_reduce_isa());
	tt_cuda_describe(cuda, sizeof(cuda));
	printf("cuda       %s\n", cuda);
	for (int i = 0; i < m->nused; i++)
		printf("%-10s %s on %s%s%s\n", i ? "" : "addresses", addr_text(&m->used[i], text, sizeof(text)),
		       m->used[i].name, m->used[i].decoy ? ", a bridge or tunnel: tried late" : "",
		       m->used[i].carrier ? "" : ", no carrier");
	if (!m->nused)
		printf("%-10s none: no communicator can be made; see TUTTI_ADDRS=%s\n", "addresses",
		       tt_env_str("ADDRS"));
	for (int i = 0; i < m->nskipped; i++)
		printf("%-10s %s on %s: %s\n", i ? "" : "not used",
		       addr_text(&m->skipped[i].a, text, sizeof(text)), m->skipped[i].a.name, m->skipped[i].why);
}

static void json_addr(const struct tt_local_addr *a, const char *why)
{
	char text[TT_ADDR_TEXT];

	printf("{");
	json_pair("interface", a->name);
	printf(", ");
	json_pair("address", a->addr.family ? addr_text(a, text, sizeof(text)) : "");
	if (why) {
		printf(", ");
		json_pair("why", why);
	}
	printf(", \"bridge\": %s}", a->decoy ? "true" : "false");
}

static void json_machine(const struct machine *m)
{
	char version[32], cuda[TT_TEXT];

	snprintf(version, sizeof(version), "%d.%d.%d", TUTTI_MAJOR, TUTTI_MINOR, TUTTI_PATCH);
	json_pair("version", version);
	printf(",\n ");
	json_pair("host", m->host);
	printf(",\n ");
	json_pair("boot_id", m->boot_id);
	printf(",\n \"cores\": {\"usable\": %d, \"online\": %d},\n ", m->usable, m->online);
	json_pair("reduce_isa", tt_reduce_isa());
	printf(",\n \"cuda\": {\"on\": %s, ", tt_cuda_describe(cuda, sizeof(cuda)) ? "true" : "false");
	json_pair("words", cuda);
	printf("},\n \"addresses\": {\"used\": [");
	for (int i = 0; i < m->nused; i++) {
		printf(i ? ", " : "");
		json_addr(&m->used[i], NULL);
	}
	printf("], \"skipped\": [");
	for (int i = 0; i < m->nskipped; i++) {
		printf(i ? ", " : "");
		json_addr(&m->skipped[i].a, m->skipped[i].why);
	}
	printf("]}");
}

/* ---- transports ---- */

/* TUTTI_TRANSPORTS is about processes: ranks of one process reach each other in any case. */
static bool transport_on(const struct tt_transport *t, struct tt_caps *caps, char *why, size_t room)
{
	*why = 0;
	memset(caps, 0, sizeof(*caps));
	if (!t->probe(caps, why, room))
		return false;
	if (t->ep_per_rank || tt_net_enabled(t->name))
		return true;
	snprintf(why, room, "not in TUTTI_TRANSPORTS=%s", tt_env_str("TRANSPORTS"));
	return false;
}

static const char *reach_of(const struct tt_caps *c)
{
	return c->across_hosts ? "between hosts" : c->across_processes ? "between processes of a host" :
									 "between threads of a process";
}

static void show_transports(void)
{
	char why[160], eager[32], most[32];
	struct tt_caps c;

	for (int i = 0; i < tt_ntransports; i++) {
		const struct tt_transport *t = tt_transports[i];

		printf("%-10s %-7s", i ? "" : "transports", t->name);
		if (!transport_on(t, &c, why, sizeof(why)))
			printf("off: %s\n", why);
		else
			printf("on, %s: nominally %.3g us and %.3g GB/s a link; eager %s, depth %u, up to %s a "
			       "message\n", reach_of(&c), c.latency * 1e6, c.bandwidth / 1e9,
			       size_text(c.eager, eager, sizeof(eager)), c.depth,
			       size_text(c.max_message, most, sizeof(most)));
	}
}

static void json_transports(void)
{
	struct tt_caps c;
	char why[160];

	printf("\"transports\": [");
	for (int i = 0; i < tt_ntransports; i++) {
		const struct tt_transport *t = tt_transports[i];
		bool on = transport_on(t, &c, why, sizeof(why));

		printf("%s\n  {", i ? "," : "");
		json_pair("name", t->name);
		printf(", \"on\": %s, ", on ? "true" : "false");
		json_pair("why", why);
		printf(", \"latency_s\": %.9g, \"bandwidth_bytes_per_s\": %.9g, \"max_message\": %zu, "
		       "\"eager\": %zu, \"depth\": %u, \"lanes\": %u, \"across_processes\": %s, "
		       "\"across_hosts\": %s}", c.latency, c.bandwidth, c.max_message, c.eager, c.depth, c.lanes,
		       c.across_processes ? "true" : "false", c.across_hosts ? "true" : "false");
	}
	printf("]");
}

/* ---- settings ---- */

struct setting {
	char *name, *fallback;
	const char *value;
};

/* Cuts a row of the settings table in its documentation form: | `NAME` | type | `default` | shared | help | */
static bool cut_row(char *line, struct setting *s)
{
	char *cell[5], *p = line + 2;

	if (strncmp(line, "| `", 3))
		return false;
	for (int i = 0; i < 5; i++) {
		char *end = strstr(p, i < 4 ? " | " : " |");

		if (!end)
			return false;
		cell[i] = p;
		p = end + 3;
		while (end > cell[i] && end[-1] == '`')
			end--;
		*end = 0;
		cell[i] += *cell[i] == '`';
	}
	s->name = cell[0];
	s->fallback = cell[2];
	s->value = tt_env_shown(s->name + strlen("TUTTI_"));
	return true;
}

/* Those that say something else than the default; *table holds their text. */
static int changed_settings(struct setting *out, char **table)
{
	size_t size;
	FILE *f = open_memstream(table, &size);
	char *save = NULL;
	int n = 0;

	if (!f)
		return 0;
	tt_env_print(f, true);
	fclose(f);
	for (char *line = strtok_r(*table, "\n", &save); line && n < MAX_SETTINGS;
	     line = strtok_r(NULL, "\n", &save))
		if (cut_row(line, &out[n]) && out[n].value && *out[n].value &&
		    strcmp(out[n].value, out[n].fallback))
			n++;
	return n;
}

static void show_settings(void)
{
	struct setting s[MAX_SETTINGS];
	char *table = NULL;
	int n = changed_settings(s, &table);

	for (int i = 0; i < n; i++)
		printf("%-10s %s=%s (default %s)\n", i ? "" : "settings", s[i].name, s[i].value,
		       *s[i].fallback ? s[i].fallback : "empty");
	if (!n)
		printf("%-10s all at their defaults (--settings lists them)\n", "settings");
	free(table);
}

static void json_settings(void)
{
	struct setting s[MAX_SETTINGS];
	char *table = NULL;
	int n = changed_settings(s, &table);

	printf("\"settings\": [");
	for (int i = 0; i < n; i++) {
		printf("%s{", i ? ", " : "");
		json_pair("name", s[i].name);
		printf(", ");
		json_pair("value", s[i].value);
		printf(", ");
		json_pair("default", s[i].fallback);
		printf("}");
	}
	printf("]");
	free(table);
}

static void print_page(void)
{
	puts("# Settings\n\n"
	     "Generated from the table in `src/env.c` by `make docs-settings`; edit there, not here.\n\n"
	     "Variables of the environment, read when communicators are made. Unset and empty both mean the\n"
	     "default. A name that is not in the table and a value that is no number are reported on stderr. Sizes\n"
	     "take K, M, G or T (powers of 1024), times are in seconds or end in ms, s or m. Where *Same on all\n"
	     "ranks* says yes, ranks whose values differ are refused when a communicator is made, with both\n"
	     "values.\n");
	tt_env_print(stdout, true);
}

/* ---- explain ---- */

struct explained {
	enum tt_coll coll;
	size_t bytes;
	struct tt_facts facts;
	struct tt_candidate c[MAX_CANDIDATES];
	int n, chosen; /* chosen: into c, -1 if the table has another */
	const struct tt_row *row;
	const struct tt_sched_set *set; /* of a file, or NULL: that is chosen then */
	const char *others;             /* of a set that is not for all roots: what these have */
	struct tt_plan plan;
};

/* As comm.c gathers them from the members, for ranks that are alike and all in one place, or all apart. */
static void assume(struct tt_facts *f, int nranks, const char *transport)
{
	const struct tt_transport *t = tt_transport_find(transport);
	struct tt_caps caps;
	char why[160] = "";

	if (!t)
		quit("%s is no transport: inproc, shm or tcp", transport);
	if (!t->probe(&caps, why, sizeof(why)))
		quit("%s cannot be explained here: %s", transport, why);
	*f = (struct tt_facts){ .nranks = nranks, .per_host = caps.across_hosts ? 1 : nranks,
				.cores = tt_usable_cores(), .latency = caps.latency,
				.overhead = caps.overhead, .copied = caps.copied, .most = caps.max_message,
				.bandwidth = caps.bandwidth, .same_memory = !caps.across_hosts };
	snprintf(f->path, sizeof(f->path), "%s", transport);
}

static void explain(struct explained *e, const struct question *q)
{
	const struct tt_sched_file *file;

	if (q->n < 2)
		quit("--explain %s: COLL:SIZE is wanted", q->text);
	e->coll = coll_of(q->part[0]);
	e->bytes = size_of(q->part[1]);
	assume(&e->facts, q->n > 2 ? number_of("RANKS", q->part[2], 1, 1 << 20) : 2,
	       q->n > 3 ? q->part[3] : "shm");
	e->n = tt_plan_candidates(&e->facts, e->coll, e->bytes, false, e->c, MAX_CANDIDATES);
	if (tt_plan_make(&e->facts, &e->plan) != tuttiSuccess)
		exit(1);
	file = info_custom(&e->plan, e->facts.nranks);
	e->row = tt_plan_row(&e->plan, e->coll, e->bytes, false);
	e->chosen = -1;
	if (e->row->algo >= TT_CUSTOM)
		e->set = file->sets[e->row->algo - TT_CUSTOM];
	for (int i = 0; i < e->n && !e->set; i++)
		if (e->c[i].algo == &tt_algos[e->row->algo])
			e->chosen = i;
	for (int root = 0; e->set && root < e->facts.nranks; root++)
		if (!tt_plan_set(file, e->row->algo, root)) /* as tt_task_row has it */
			e->others = tt_algos[tt_plan_row(&e->plan, e->coll, e->bytes, true)->algo].name;
}

static const char *chosen_name(const struct explained *e)
{
	return e->set ? e->set->algo : tt_algos[e->row->algo].name;
}

static bool is_candidate(const struct explained *e, const struct tt_algo *a)
{
	for (int i = 0; i < e->n; i++)
		if (e->c[i].algo == a)
			return true;
	return false;
}

static void why_chosen(const struct explained *e, char *out, size_t room)
{
	const struct tt_candidate *c = e->chosen >= 0 ? &e->c[e->chosen] : NULL;

	if (e->set)
		snprintf(out, room, "of %.80s in TUTTI_SCHEDULE_FILE%s%s", e->set->what, e->others ?
			 ", for the roots of which it has one; others: " : "", e->others ? e->others : "");
	else if (c && c->forced)
		snprintf(out, room, "forced by TUTTI_ALGO=%s", tt_env_str("ALGO"));
	else if (e->n == 1)
		snprintf(out, room, "the only one");
	else if (c && e->chosen == 0 && e->c[1].seconds <= c->seconds)
		snprintf(out, room, "the cheapest by the model; %s costs as much", e->c[1].algo->name);
	else if (c && e->chosen == 0)
		snprintf(out, room, "the cheapest by the model");
	else
		snprintf(out, room, "the cheapest at the power of two below: the table has one row up to the next");
}

static void show_explained(const struct explained *e)
{
	char size[32], text[32], why[200];
	const struct tt_facts *f = &e->facts;
	bool any = false;

	printf("%s of %s, %d ranks%s over %s (%.3g us, %.3g GB/s; %d cores a host)\n", tt_coll_name(e->coll),
	       size_text(e->bytes, size, sizeof(size)), f->nranks, f->same_memory ? " on this host" :
	       ", each on a host of its own,", f->path, f->latency * 1e6, f->bandwidth / 1e9, f->cores);
	if (e->set)
		printf("  -> %-14s %9s         windows of %s, %u in flight\n", e->set->algo, "no model",
		       size_text(e->row->window, size, sizeof(size)), e->row->depth);
	for (int i = 0; i < e->n; i++) {
		const struct tt_candidate *c = &e->c[i];

		printf("%s %-14s %9s  x%-5.3g windows of %s, %u in flight, %u lane%s%s\n",
		       i == e->chosen ? "  ->" : "    ", c->algo->name,
		       time_text(c->seconds, text, sizeof(text)),
		       e->c[0].seconds > 0 ? c->seconds / e->c[0].seconds : 1.0,
		       size_text(c->row.window, size, sizeof(size)), c->row.depth, c->row.lanes,
		       c->row.lanes == 1 ? "" : "s", c->forced ? ", forced" : "");
	}
	for (int i = 0; i < tt_nalgos; i++)
		if (tt_algos[i].colls >> e->coll & 1 && !is_candidate(e, &tt_algos[i])) {
			printf(any ? ", %s" : "     not for this size and number of ranks: %s", tt_algos[i].name);
			any = true;
		}
	why_chosen(e, why, sizeof(why));
	printf("%s     chosen: %s, %s\n", any ? "\n" : "", chosen_name(e), why);
}

static void json_explained(const struct explained *e)
{
	char why[200];

	printf("{");
	json_pair("collective", tt_coll_name(e->coll));
	printf(", \"bytes\": %zu, \"ranks\": %d, \"per_host\": %d, \"cores\": %d, ", e->bytes, e->facts.nranks,
	       e->facts.per_host, e->facts.cores);
	json_pair("transport", e->facts.path);
	printf(", ");
	json_pair("chosen", chosen_name(e));
	if (e->set) {
		printf(", ");
		json_pair("file", e->set->what);
	}
	printf(", ");
	why_chosen(e, why, sizeof(why));
	json_pair("why", why);
	printf(", \"candidates\": [");
	for (int i = 0; i < e->n; i++) {
		const struct tt_candidate *c = &e->c[i];

		printf("%s{", i ? ", " : "");
		json_pair("algorithm", c->algo->name);
		printf(", \"seconds\": %.9g, \"forced\": %s, \"window\": %u, \"depth\": %u, \"lanes\": %u}",
		       c->seconds, c->forced ? "true" : "false", c->row.window, c->row.depth, c->row.lanes);
	}
	printf("]}");
}

static void each_explained(const struct question *q, int n, bool json)
{
	static struct explained e;

	for (int i = 0; i < n; i++) {
		e = (struct explained){ 0 };
		explain(&e, &q[i]);
		if (!json) {
			show_explained(&e);
			continue;
		}
		printf(i ? ",\n  " : "\n  ");
		json_explained(&e);
	}
}

/* ---- print ---- */

static char *schedule_text(enum tt_coll coll, const struct tt_algo *a, int rank, int nranks)
{
	struct tt_shape shape = { .nlanes = 1 };
	struct tt_sched *s;
	char *text;
	int n;

	if (a->build(coll, rank, nranks, 0, &shape, &s) != tuttiSuccess)
		exit(1);
	n = tt_sched_print(s, NULL, 0);
	text = malloc((size_t)n + 1);
	if (!text) {
		fputs("tutti-info: no memory\n", stderr);
		exit(1);
	}
	tt_sched_print(s, text, (size_t)n + 1);
	tt_sched_free(s);
	return text;
}

static const struct tt_algo *algo_of(const char *name, enum tt_coll coll)
{
	const struct tt_algo *a = tt_algo_find(name, coll);
	char list[256] = "";

	if (a)
		return a;
	for (int i = 0; i < tt_nalgos; i++)
		if (tt_algos[i].colls >> coll & 1) {
			strncat(list, " ", sizeof(list) - strlen(list) - 1);
			strncat(list, tt_algos[i].name, sizeof(list) - strlen(list) - 1);
		}
	quit("%s does not serve %s; these do:%s", name, tt_coll_name(coll), list);
}

struct wish {
	enum tt_coll coll;
	const struct tt_algo *algo;
	int nranks, first, last;
};

static struct wish wish_of(const struct question *q)
{
	struct wish w = { .first = 0 };

	if (q->n < 3)
		quit("--print %s: COLL:ALGO:RANKS is wanted", q->text);
	w.coll = coll_of(q->part[0]);
	w.algo = algo_of(q->part[1], w.coll);
	w.nranks = number_of("RANKS", q->part[2], 1, MAX_RANKS);
	w.last = w.nranks - 1;
	if (q->n > 3)
		w.first = w.last = number_of("RANK", q->part[3], 0, w.nranks - 1);
	return w;
}

static void print_schedules(const struct question *q, bool json, int *count)
{
	struct wish w = wish_of(q);

	for (int r = w.first; r <= w.last; r++) {
		char *text = schedule_text(w.coll, w.algo, r, w.nranks);

		if (json) {
			printf("%s\n  {\"rank\": %d, ", (*count)++ ? "," : "", r);
			json_pair("text", text);
			printf("}");
		} else {
			fputs(text, stdout);
		}
		free(text);
	}
}

/* A schedule over time: of the size and over the transport that --explain names. */
static int draw(const struct question *print, const struct question *explain, const char *file)
{
	struct wish w = wish_of(print);
	struct tt_shape shape = { .nlanes = 1 };
	struct tt_sched *ranks[MAX_DRAWN];
	struct tt_facts f;
	int n = 0, status = 1;

	assume(&f, w.nranks, explain && explain->n > 3 ? explain->part[3] : "shm");
	while (n < w.nranks && w.algo->build(w.coll, n, w.nranks, 0, &shape, &ranks[n]) == tuttiSuccess)
		n++;
	if (n == w.nranks)
		status = draw_schedule(ranks, &f, explain ? size_of(explain->part[1]) : 1 << 20, file);
	while (n)
		tt_sched_free(ranks[--n]);
	return status;
}

/* ---- the command line ---- */

struct asked {
	bool json, settings, markdown, rdma, topo;
	struct topo_wish machine;
	const char *schedule;
	struct question explain[MAX_ASKED], print[MAX_ASKED];
	int nexplain, nprint;
};

static void ask(struct question *list, int *n, const char *option, const char *text)
{
	if (*n == MAX_ASKED)
		quit("%s more than %d times", option, MAX_ASKED);
	split(&list[(*n)++], option, text);
}

/* --topo FILE as well as --topo=FILE, which is all that getopt knows. */
static void topo(int argc, char **argv, struct asked *a)
{
	a->topo = true;
	a->machine.file = optarg;
	if (!optarg && optind < argc && *argv[optind] != '-')
		a->machine.file = argv[optind++];
}

static void check_picture(const struct asked *a)
{
	draw_check(a->machine.draw);
	if (!a->topo && (a->nprint != 1 || a->print[0].n != 3))
		quit("--draw %s: of a machine (--topo) or of one schedule (--print COLL:ALGO:RANKS)", a->machine.draw);
	if (!a->topo && number_of("RANKS", a->print[0].part[2], 1, INT_MAX) > MAX_DRAWN)
		quit("--draw %s: more than %d ranks make no picture", a->machine.draw, MAX_DRAWN);
}

/* The machine of --topo, and what is asked of it. */
static void check_machine(struct asked *a)
{
	struct topo_wish *w = &a->machine;

	if (w->form && !a->schedule && (!a->topo || (strcmp(w->form, "text") && strcmp(w->form, "nccl"))))
		quit("--as %s: text or nccl, with --topo", w->form);
	if (w->hosts && !a->topo)
		quit("--hosts is for --topo");
	if (!a->topo)
		return;
	for (int i = 0; i < a->nexplain; i++) {
		if (a->explain[i].n != 2)
			quit("--explain %s: with --topo COLL:SIZE is wanted", a->explain[i].text);
		coll_of(a->explain[i].part[0]);
		size_of(a->explain[i].part[1]);
	}
	w->explain = a->explain;
	w->nexplain = a->nexplain;
	w->json = a->json;
	if (w->nexplain && !w->hosts)
		w->hosts = 1;
}

static void parse(int argc, char **argv, struct asked *a)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "explain", required_argument, NULL, 'e' },
						 { "print", required_argument, NULL, 'p' },
						 { "check-rdma", no_argument, NULL, 'r' },
						 { "topo", optional_argument, NULL, 't' },
						 { "schedule", required_argument, NULL, 'S' },
						 { "as", required_argument, NULL, 'a' },
						 { "hosts", required_argument, NULL, 'n' },
						 { "draw", required_argument, NULL, 'd' },
						 { "settings", no_argument, NULL, 's' },
						 { "settings-markdown", no_argument, NULL, 'm' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "je:p:sh", options, NULL)) != -1) {
		switch (c) {
		case 'j': a->json = true; break;
		case 'e': ask(a->explain, &a->nexplain, "--explain", optarg); break;
		case 'p': ask(a->print, &a->nprint, "--print", optarg); break;
		case 'r': a->rdma = true; break;
		case 't': topo(argc, argv, a); break;
		case 'S': a->schedule = optarg; break;
		case 'a': a->machine.form = optarg; break;
		case 'd': a->machine.draw = optarg; break;
		case 'n': a->machine.hosts = number_of("--hosts", optarg, 1, MAX_HOSTS); break;
		case 's': a->settings = true; break;
		case 'm': a->markdown = true; break;
		case 'h': fputs(usage, stdout); exit(0);
		default: exit(2);
		}
	}
	if (optind < argc)
		quit("%s is not an option", argv[optind]);
	if (a->machine.draw)
		check_picture(a);
	check_machine(a);
}

/* Before anything is written: half an object helps nobody. */
static void check(const struct asked *a)
{
	static struct explained e;

	for (int i = 0; i < a->nexplain && !a->topo; i++)
		explain(&e, &a->explain[i]);
	for (int i = 0; i < a->nprint; i++)
		wish_of(&a->print[i]);
}

static void answer_json(const struct asked *a, const struct machine *m)
{
	int count = 0;

	printf("{");
	json_machine(m);
	printf(",\n ");
	json_transports();
	printf(",\n ");
	json_settings();
	printf(",\n \"explain\": [");
	each_explained(a->explain, a->nexplain, true);
	printf("],\n \"schedules\": [");
	for (int i = 0; i < a->nprint; i++)
		print_schedules(&a->print[i], true, &count);
	printf("]}\n");
}

static void answer(const struct asked *a, const struct machine *m)
{
	int count = 0;

	if (a->markdown) {
		print_page();
	} else if (a->settings) {
		tt_env_print(stdout, false);
	} else if (a->json) {
		answer_json(a, m);
	} else if (a->nexplain || a->nprint) {
		each_explained(a->explain, a->nexplain, false);
		for (int i = 0; i < a->nprint; i++)
			print_schedules(&a->print[i], false, &count);
	} else {
		show_machine(m);
		show_transports();
		show_settings();
	}
}

int main(int argc, char **argv)
{
	static struct machine m;
	static struct asked a;
	int status = 0;

	parse(argc, argv, &a);
	check(&a);
	tt_env_check();
	find_machine(&m);
	if (a.topo)
		status = info_topo(&a.machine);
	else if (a.schedule)
		status = info_schedule(a.schedule, a.machine.form);
	else if (a.machine.draw)
		status = draw(&a.print[0], a.nexplain ? &a.explain[0] : NULL, a.machine.draw);
	else if (a.rdma)
		status = info_rdma(a.json);
	else
		answer(&a, &m);
	if (fflush(stdout) || ferror(stdout)) {
		perror("tutti-info: output");
		return 1;
	}
	return status;
}
