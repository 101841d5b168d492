/* What is decided for ranks of several hosts, and of cores: the shape is the same on all, and what it promises is
 * what crosses. Hosts are network namespaces with a veth pair between each two: needs root and the ip command; says so
 * where they are missing. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"
#include "test.h"

enum { MAX = 8, COUNT = 1 << 20 }; /* of a block: 4 MiB */
static struct procs ps;

struct layout {
	int hosts, n, host_of[MAX];
	enum tt_coll coll;
	const char *algo; /* TUTTI_ALGO, or NULL */
};

/* What each rank found, in the memory of all. */
struct seen {
	_Atomic int there; /* of entry 0: ranks that have come so far */
	uint64_t sent;     /* bytes that left the host meanwhile, but by `narrow` */
	uint64_t narrow;
	uint64_t plan, shape;
	uint32_t cores;
	uint32_t order[MAX], group[MAX], parent[MAX];
	char chosen[16];
};

static void meet_all(struct rank *r, int times)
{
	struct seen *all = (struct seen *)r->procs->shared->user;

	all->there++;
	for (double end = seconds_now() + 40; all->there < times * r->n; sleep_s(0.001))
		RANK_CHECKF(r, seconds_now() < end, "%d of %d ranks came", all->there, times * r->n);
}

static void note(struct rank *r, struct seen *s, enum tt_coll coll)
{
	const struct tuttiComm *c = r->comm;

	s->plan = tt_hash64(&c->plan, sizeof(c->plan), 0);
	s->cores = c->plan.cores;
	s->shape = tt_shape_digest(&c->shape, c->nranks);
	for (int i = 0; i < r->n; i++) {
		s->order[i] = (uint32_t)tt_shape_rank(&c->shape, 0, r->n, i);
		s->group[i] = c->shape.group ? c->shape.group[i] : 0;
		s->parent[i] = c->shape.parent ? c->shape.parent[i] : 0;
	}
	snprintf(s->chosen, sizeof(s->chosen), "%s",
		 tt_algos[tt_plan_row(&c->plan, coll, COUNT * 4, false)->algo].name);
}

/* In place; each block has the sum of all ranks', or its own rank's. `v` has room for all blocks. */
static void call(struct rank *r, enum tt_coll coll, int32_t *v)
{
	int n = r->n, from = coll == TT_REDUCESCATTER ? r->rank : 0, to = coll == TT_ALLGATHER ? n : from + 1;

	for (int i = 0; i < n * COUNT; i++)
		v[i] = r->rank + i;
	if (coll == TT_ALLREDUCE)
		RANK_OK(r, tuttiAllReduce(v, v, COUNT, tuttiInt32, tuttiSum, r->comm, NULL));
	else if (coll == TT_ALLGATHER)
		RANK_OK(r, tuttiAllGather(v + r->rank * COUNT, v, COUNT, tuttiInt32, r->comm, NULL));
	else
		RANK_OK(r, tuttiReduceScatter(v, v + r->rank * COUNT, COUNT, tuttiInt32, tuttiSum, r->comm, NULL));
	for (int i = from * COUNT; i < to * COUNT; i++) {
		int wanted = coll == TT_ALLGATHER ? i / COUNT + i : n * (n - 1) / 2 + n * i;

		RANK_CHECKF(r, v[i] == wanted, "element %d is %d, not %d", i, v[i], wanted);
	}
}

static void all_alike(const struct seen *s, int n)
{
	for (int i = 1; i < n; i++)
		CHECKF(s[i].plan == s[0].plan && s[i].shape == s[0].shape, "rank %d has another table or shape than "
		       "rank 0", i);
}

/* ---- one host, ranks bound to cores ---- */

static char folder[64];

static void write_file(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "we");
	CHECKF(f && fputs(text, f) >= 0 && !fclose(f), "cannot write %s", path);
}

static void set_path(const char *setting, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	setenv(setting, path, 1);
}

static bool bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(0, sizeof(set), &set);
}

/* Even ranks on core 1, odd ones on core 0; each has a file of its own for its dump. */
static void bound_rank(struct rank *r)
{
	struct seen *s = (struct seen *)r->procs->shared->user + r->rank;
	bool differ = r->arg != NULL;
	char dump[16];
	int32_t one = 1;

	snprintf(dump, sizeof(dump), "dump%d", r->rank);
	set_path("TUTTI_TOPO_DUMP_FILE", dump);
	if (!differ || r->rank != 2)
		set_path("TUTTI_TOPO_FILE", differ && r->rank == 1 ? "other" : "machine");
	if (differ && r->rank == 3)
		setenv("TUTTI_SPIN", "7", 1);
	if (!differ || r->rank)
		RANK_CHECKF(r, bind_to(r->rank % 2 ? 0 : 1), "cannot be bound: %s", strerror(errno));
	RANK_OK(r, rank_init(r, NULL));
	note(r, s, TT_ALLREDUCE);
	RANK_OK(r, tuttiAllReduce(&one, &one, 1, tuttiInt32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, one == r->n, "the sum is %d", one);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static bool start_bound(bool differ, struct seen *out)
{
	cpu_set_t may;

	if (sched_getaffinity(0, sizeof(may), &may) || !CPU_ISSET(0, &may) || !CPU_ISSET(1, &may)) {
		printf("skipped: needs CPUs 0 and 1\n");
		return false;
	}
	snprintf(folder, sizeof(folder), "/tmp/tutti-hosts-XXXXXX");
	CHECKF(mkdtemp(folder), "%s: %s", folder, strerror(errno));
	write_file("machine", "tutti-topology 1\nnuma numa0 affinity=1\n core core0 in numa0 cpus=0\n"
		   "numa numa1 affinity=2\n core core1 in numa1 cpus=1\n");
	write_file("other", "tutti-topology 1\nnuma numa0 affinity=3\n core core1 in numa0 cpus=1\n");
	procs_start(&ps, 4, 0, NULL, bound_rank, differ ? folder : NULL);
	procs_wait(&ps, 40);
	memcpy(out, ps.shared->user, 4 * sizeof(*out));
	procs_expect(&ps, 1, -1);
	return true;
}

static int dumps(void)
{
	char path[128];
	int n = 0;

	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/dump%d", folder, i);
		n |= !unlink(path) << i;
	}
	snprintf(path, sizeof(path), "rm -rf %s", folder);
	CHECK(system(path) == 0);
	return n;
}

/* Neighbours in the machine are neighbours in the ring, and rank 0 wrote what the machine is. */
static void near_are_neighbours(void)
{
	static const uint32_t wanted[] = { 1, 3, 0, 2 };
	struct seen s[4];

	if (!start_bound(false, s))
		return;
	CHECKF(dumps() == 1, "the dump is one rank's");
	all_alike(s, 4);
	CHECKF(s[0].cores == 2, "together they have %u cores", s[0].cores);
	CHECKF(s[0].shape && !memcmp(s[0].order, wanted, sizeof(wanted)), "the order is %u %u %u %u", s[0].order[0],
	       s[0].order[1], s[0].order[2], s[0].order[3]);
}

/* Other cores, other topologies, other local settings: one table and one shape. */
static void facts_differ(void)
{
	struct seen s[4];

	if (!start_bound(true, s))
		return;
	CHECKF(dumps() == 1, "the dump is one rank's");
	all_alike(s, 4);
}

/* ---- several hosts ---- */

static const char *host_name(int owner, int host)
{
	static char name[2][64];

	snprintf(name[host & 1], sizeof(name[0]), "tuttihosts%d%c", owner, 'a' + host);
	return name[host & 1];
}

static bool take_down(int hosts)
{
	for (int i = 0; i < hosts; i++)
		shell("ip netns del %s", host_name((int)getpid(), i));
	return false;
}

/* One end of the way between two hosts. */
static int end_up(int host, int other, int net, int number)
{
	const char *name = host_name((int)getpid(), host);
	int bad = shell("ip -n %s link set way%d addrgenmode none up", name, other);

	return bad | shell("ip -n %s addr add 10.214.%d.%d/24 dev way%d", name, net, number, other);
}

/* An interface that does not run yet would be left out by init. */
static int runs(int host, const char *name)
{
	return shell("for i in $(seq 50); do ip -n %s link show %s | grep -q 'state UP' && exit 0; sleep 0.1; done; "
		     "exit 1", host_name((int)getpid(), host), name);
}

static bool set_up(int hosts)
{
	int bad = 0, net = 0;
	char a[64];

	if (geteuid() != 0 || shell("ip -V")) {
		printf("skipped: network namespaces need root and the ip command\n");
		return false;
	}
	for (int i = 0; i < hosts; i++) {
		snprintf(a, sizeof(a), "%s", host_name((int)getpid(), i));
		bad |= shell("ip netns add %s", a) | shell("ip -n %s link set lo up", a);
		for (int k = 0; k < i && !bad; k++, net++) {
			bad |= shell("ip link add way%d netns %s type veth peer name way%d netns %s", k, a, i,
				     host_name((int)getpid(), k));
			bad |= end_up(i, k, net, 1) | end_up(k, i, net, 2);
		}
	}
	for (int i = 0; i < hosts && !bad; i++)
		for (int k = 0; k < hosts; k++) {
			snprintf(a, sizeof(a), "way%d", k);
			bad |= k != i && runs(i, a);
		}
	if (bad) {
		take_down(hosts);
		printf("skipped: cannot make network namespaces here\n");
	}
	return !bad;
}

static void enter_host(struct rank *r, int host)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/var/run/netns/%s", host_name((int)getppid(), host));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	RANK_CHECKF(r, fd >= 0 && !setns(fd, CLONE_NEWNET), "cannot enter %s: %s", path, strerror(errno));
	close(fd);
}

/* Bytes that have left this host by interfaces whose names begin with this. */
static uint64_t sent(struct rank *r, const char *name)
{
	unsigned long long bytes, all = 0;
	FILE *f = fopen("/proc/self/net/dev", "re");
	char line[512];

	RANK_CHECKF(r, f, "cannot read /proc/self/net/dev");
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line + strspn(line, " "), name, strlen(name)) &&
		    sscanf(strchr(line, ':') + 1, "%*u %*u %*u %*u %*u %*u %*u %*u %llu", &bytes) == 1)
			all += bytes;
	fclose(f);
	return all;
}

static void host_rank(struct rank *r)
{
	const struct layout *l = r->arg;
	struct seen *s = (struct seen *)r->procs->shared->user + r->rank;
	int32_t *v = malloc((size_t)r->n * COUNT * sizeof(*v));
	uint64_t before, narrow;

	if (l->algo)
		setenv("TUTTI_ALGO", l->algo, 1);
	enter_host(r, l->host_of[r->rank]);
	if (r->rank == 0) {
		RANK_OK(r, tuttiGetUniqueId(&r->procs->shared->id));
		r->procs->shared->have_id = 1;
	}
	RANK_OK(r, rank_init(r, NULL));
	note(r, s, l->coll);
	call(r, l->coll, v); /* opens the links */
	meet_all(r, 1);
	before = sent(r, "way");
	narrow = sent(r, "rail");
	meet_all(r, 2);
	call(r, l->coll, v);
	meet_all(r, 3);
	s->sent = sent(r, "way") - before;
	s->narrow = sent(r, "rail") - narrow;
	meet_all(r, 4);
	RANK_OK(r, tuttiCommDestroy(r->comm));
	free(v);
}

/* A part of it, the ranks in another order and the last one alone: its shape follows, and is the same on all. */
static void part_rank(struct rank *r)
{
	const struct layout *l = r->arg;
	struct seen *s = (struct seen *)r->procs->shared->user + r->rank;
	tuttiComm_t all, part;
	int32_t *v;

	enter_host(r, l->host_of[r->rank]);
	if (r->rank == 0) {
		RANK_OK(r, tuttiGetUniqueId(&r->procs->shared->id));
		r->procs->shared->have_id = 1;
	}
	RANK_OK(r, rank_init(r, NULL));
	all = r->comm;
	RANK_OK(r, tuttiCommSplit(all, r->rank == r->n - 1, -r->rank, &part, NULL));
	r->comm = part;
	r->n = r->rank == r->n - 1 ? 1 : r->n - 1;
	r->rank = r->n - 1 - (r->n > 1 ? r->rank : 0);
	v = malloc((size_t)r->n * COUNT * sizeof(*v));
	note(r, s, TT_ALLREDUCE);
	for (int i = TT_ALLREDUCE; i <= TT_REDUCESCATTER; i++)
		call(r, (enum tt_coll)i, v);
	RANK_OK(r, tuttiCommDestroy(part));
	RANK_OK(r, tuttiCommDestroy(all));
	free(v);
}

/* False: a rank failed, `why` has its words. Judged when the namespaces are gone. */
static bool run_layout(rank_fn fn, const struct layout *l, struct seen *out, char *why, size_t room)
{
	bool good;

	procs_start(&ps, l->n, -1, NULL, fn, (void *)(uintptr_t)l);
	good = procs_wait(&ps, 60);
	memcpy(out, ps.shared->user, (size_t)l->n * sizeof(*out));
	for (int i = l->n - 1; i >= 0; i--) {
		if (ps.p[i].ended && !ps.p[i].status)
			continue;
		good = false;
		snprintf(why, room, "%s by %s: rank %d: %s", tt_coll_name(l->coll), l->algo ? l->algo : "the plan", i,
			 ps.p[i].text);
	}
	procs_free(&ps);
	return good;
}

/* Of the host that sends most, in units of the data. */
static double most_sent(const struct seen *s, int n)
{
	uint64_t most = 0;

	for (int i = 0; i < n; i++)
		most = s[i].sent > most ? s[i].sent : most;
	return (double)most / (COUNT * 4.0);
}

/* Hosts are groups, in the order of their first ranks, with all their ranks together; trees cross once a host. */
static void check_shape(const struct layout *l, const struct seen *s)
{
	int crossing = 0, changes = 0;

	all_alike(s, l->n);
	for (int i = 0; i < l->n; i++) {
		for (int k = 0; k < i; k++)
			CHECKF((s->group[i] == s->group[k]) == (l->host_of[i] == l->host_of[k]), "rank %d is in group "
			       "%u, rank %d in %u", i, s->group[i], k, s->group[k]);
		crossing += l->host_of[s->parent[i]] != l->host_of[i];
		changes += i && l->host_of[s->order[i]] != l->host_of[s->order[i - 1]];
	}
	CHECKF(crossing == l->hosts - 1 && changes == l->hosts - 1, "%d edges of the tree and %d of the order cross",
	       crossing, changes);
}

static void check_sent(const char *name, double measured, double predicted)
{
	CHECKF(measured > predicted * 0.99 && measured < predicted * 1.08, "%s sent %.3f, not %.3f", name, measured,
	       predicted);
}

/* Three runs of one collective: by a ring, in levels, as the plan has it. */
struct runs {
	struct layout l;
	struct seen s[3][MAX];
	char why[1024];
};

static bool run_all(struct runs *r)
{
	for (int i = 0; i < 3; i++) {
		r->l.algo = i == 0 ? "ring" : i == 1 ? "hier" : NULL;
		if (!run_layout(host_rank, &r->l, r->s[i], r->why, sizeof(r->why)))
			return false;
	}
	return true;
}

/* In units of the data, of a block; headers and acknowledgements come on top. */
static void check_runs(const struct runs *r, double ring, double hier)
{
	const struct layout *l = &r->l;
	double sent_ring = most_sent(r->s[0], l->n), sent_hier = most_sent(r->s[1], l->n);

	printf("  %s, %d ranks on %d hosts: ring %.3f times, hier %.3f; predicted %.3f and %.3f; chosen: %s\n",
	       tt_coll_name(l->coll), l->n, l->hosts, sent_ring, sent_hier, ring, hier, r->s[2]->chosen);
	for (int i = 0; i < 3; i++)
		check_shape(l, r->s[i]);
	check_sent("the ring", sent_ring, ring);
	check_sent("hier", sent_hier, hier);
	CHECKF(!strcmp(r->s[2]->chosen, "hier"), "%s was chosen", r->s[2]->chosen);
}

/* A ring sends 2 (p-1)/p from each host, levels 2 (h-1)/h. Of blocks a ring sends all but one over each of its hops,
 * levels from each host all but those of the next, and of a sum all but its own. */
static void check_hosts(struct layout l)
{
	static const enum tt_coll colls[] = { TT_ALLREDUCE, TT_ALLGATHER, TT_REDUCESCATTER };
	int ranks[MAX] = { 0 }, least = MAX;
	struct runs r[3];
	bool good = true;

	for (int i = 0; i < l.n; i++)
		ranks[l.host_of[i]]++;
	for (int i = 0; i < l.hosts; i++)
		least = ranks[i] < least ? ranks[i] : least;
	if (!set_up(l.hosts))
		return;
	for (int i = 0; i < 3 && good; i++) {
		r[i] = (struct runs){ .l = l };
		r[i].l.coll = colls[i];
		good = run_all(&r[i]) || take_down(l.hosts);
		CHECKF(good, "%s", r[i].why);
	}
	take_down(l.hosts);
	check_runs(&r[0], 2.0 * (l.n - 1) / l.n, 2.0 * (l.hosts - 1) / l.hosts);
	check_runs(&r[1], l.n - 1, l.n - least);
	check_runs(&r[2], l.n - 1, l.n - least);
}

/* ---- rails of different rates ---- */

enum { WIDE = 60, NARROW = 20 }; /* MB/s */

/* A second way between two hosts; both shaped where the kernel can. */
static int add_rail(void)
{
	int bad = shell("ip link add rail netns %s type veth peer name rail netns %s", host_name((int)getpid(), 0),
			host_name((int)getpid(), 1));

	for (int i = 0; i < 2; i++) {
		const char *name = host_name((int)getpid(), i);

		bad |= shell("ip -n %s link set rail addrgenmode none up", name);
		bad |= shell("ip -n %s addr add 10.215.0.%d/24 dev rail", name, i + 1);
	}
	for (int i = 0; i < 2; i++) {
		const char *name = host_name((int)getpid(), i);

		bad |= runs(i, "rail");
		if (shell("tc -n %s qdisc add dev rail root tbf rate %dmbit burst 128k latency 200ms", name,
			  8 * NARROW) ||
		    shell("tc -n %s qdisc add dev way%d root tbf rate %dmbit burst 128k latency 200ms", name, !i,
			  8 * WIDE))
			printf("  not shaped: tc or the kernel cannot\n");
	}
	return bad;
}

/* The second rank of each host has the narrow way. */
static void rail_rank(struct rank *r)
{
	bool narrow = r->rank >= 2;

	setenv("TUTTI_ADDRS", narrow ? "rail" : r->rank ? "way0" : "way1", 1);
	set_path("TUTTI_TOPO_FILE", "machine");
	host_rank(r);
}

/* `times` the data, or a block, leaves each host, in proportion. */
static void check_rails(const struct layout *l, const struct seen *s, double times)
{
	double wide = most_sent(s, l->n), narrow = (double)s[0].narrow / (COUNT * 4.0);

	all_alike(s, l->n);
	printf("  %s, rails of %d and %d MB/s: %.3f and %.3f times\n", tt_coll_name(l->coll), WIDE, NARROW, wide,
	       narrow);
	check_sent("the wide rail", wide, times * WIDE / (WIDE + NARROW));
	check_sent("the narrow rail", narrow, times * NARROW / (WIDE + NARROW));
}

static void rails(void)
{
	static struct layout l = { .hosts = 2, .n = 4, .host_of = { 0, 1, 0, 1 }, .algo = "hier" };
	struct seen s[3][MAX];
	char why[1024] = "the second way cannot be made";
	bool good;

	if (!set_up(l.hosts))
		return;
	snprintf(folder, sizeof(folder), "/tmp/tutti-hosts-XXXXXX");
	good = !add_rail() && mkdtemp(folder);
	if (good) {
		write_file("machine", "tutti-topology 1\nnuma numa0\n"
			   "nic virt:way0 in numa0\n port virt:way0/way0 in virt:way0 bw=60 name=way0\n"
			   "nic virt:way1 in numa0\n port virt:way1/way1 in virt:way1 bw=60 name=way1\n"
			   "nic virt:rail in numa0\n port virt:rail/rail in virt:rail bw=20 name=rail\n");
		for (l.coll = TT_ALLREDUCE; l.coll <= TT_REDUCESCATTER && good; l.coll++)
			good = run_layout(rail_rank, &l, s[l.coll], why, sizeof(why));
		dumps();
	}
	take_down(l.hosts);
	CHECKF(good, "%s", why);
	for (l.coll = TT_ALLREDUCE; l.coll <= TT_REDUCESCATTER; l.coll++)
		check_rails(&l, s[l.coll], l.coll == TT_ALLREDUCE ? 1 : 2);
}

static void two_hosts(void)
{
	check_hosts((struct layout){ .hosts = 2, .n = 4, .host_of = { 0, 1, 0, 0 } });
}

static void two_equal_hosts(void)
{
	check_hosts((struct layout){ .hosts = 2, .n = 6, .host_of = { 0, 0, 0, 1, 1, 1 } });
}

static void three_hosts(void)
{
	check_hosts((struct layout){ .hosts = 3, .n = 6, .host_of = { 0, 1, 2, 1, 0, 1 } });
}

static void parts(void)
{
	struct layout l = { .hosts = 2, .n = 6, .host_of = { 0, 1, 0, 0, 1, 0 } };
	struct seen s[MAX], back[MAX];
	char why[1024];
	bool good;

	if (!set_up(l.hosts))
		return;
	good = run_layout(part_rank, &l, s, why, sizeof(why));
	take_down(l.hosts);
	CHECKF(good, "%s", why);
	for (int i = 0; i < 5; i++)
		back[i] = s[4 - i];
	l = (struct layout){ .hosts = 2, .n = 5, .host_of = { 1, 0, 0, 1, 0 } };
	check_shape(&l, back);
	CHECKF(!strcmp(back[0].chosen, "hier"), "%s was chosen", back[0].chosen);
	CHECKF(!s[5].shape, "a communicator of one rank has a shape");
}

const struct test tests[] = {
	{ "near ranks are neighbours", near_are_neighbours, 60 },
	{ "one table though facts differ", facts_differ, 60 },
	{ "two hosts of unequal ranks", two_hosts, 200 },
	{ "two hosts of equal ranks", two_equal_hosts, 200 },
	{ "parts of several hosts", parts, 100 },
	{ "rails of different rates", rails, 100 },
	{ "three hosts of unequal ranks", three_hosts, 200 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
