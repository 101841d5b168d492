/* Two hosts made of network namespaces: a veth pair joins them, and each has what real hosts have: a bridge
 * and a network with the same address on both, an interface that is down, IPv6 alone. Init must work with no settings.
 * Needs root and the ip command; says so where they are missing. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ranks.h"
#include "test.h"

#define BRIDGE "172.17.0.1"
#define DECOY "192.168.50.1"

enum { N = 4 }; /* ranks 0 and 1 on the first host, 2 and 3 on the second */
static struct procs ps;

struct variant {
	const char *name;
	const char *address[2];   /* of the veth on each host; NULL: no way between them */
	const char *root;         /* TUTTI_ROOT, NULL: by unique id */
	const char *ports;        /* TUTTI_PORT_RANGE, or NULL */
	bool route;               /* the addresses are of no common network */
	int crowd;                /* more addresses that both hosts have, named before the way */
};

struct result {
	int res;
	double took_s;
	char text[3000];
};

static void host_name(int host, char *out, size_t n)
{
	snprintf(out, n, "tuttitest%d%c", (int)getpid(), 'a' + host);
}

static void take_down(void)
{
	char name[64];

	for (int i = 0; i < 2; i++) {
		host_name(i, name, sizeof(name));
		shell("ip netns del %s", name);
	}
}

/* A link to nowhere that is up and running: both its ends are on the same host. */
static int loop_up(const char *host, const char *name, const char *address)
{
	int bad = shell("ip -n %s link add %s type veth peer name %s.end", host, name, name);

	bad |= shell("ip -n %s link set %s.end addrgenmode none up", host, name);
	bad |= shell("ip -n %s link set %s addrgenmode none up", host, name);
	return bad | (address ? shell("ip -n %s addr add %s dev %s", host, address, name) : 0);
}

/* The same addresses on both hosts: the bridge of a container tool, where the kernel has bridges, and a network
 * whose name gives nothing away and comes before the way. What the peer tells of them leads to oneself. */
static int decoys_up(const char *host)
{
	int bad = loop_up(host, "aether", DECOY "/24");

	if (shell("ip -n %s link add docker0 type bridge", host))
		return bad | loop_up(host, "docker0", BRIDGE "/16");
	bad |= shell("ip -n %s addr add " BRIDGE "/16 dev docker0", host);
	bad |= loop_up(host, "member", NULL);
	bad |= shell("ip -n %s link set member master docker0", host);
	bad |= shell("ip -n %s link set docker0 addrgenmode none up", host);
	/* A bridge that does not run yet is left out by init, and decoys nobody. */
	return bad | shell("for i in $(seq 30); do ip -n %s link show docker0 | grep 'state UP' && break; "
			   "sleep 0.1; done", host);
}

static int host_up(int host, const struct variant *v)
{
	char name[64];
	int bad;

	host_name(host, name, sizeof(name));
	bad = shell("ip -n %s link set lo up", name);
	bad |= decoys_up(name);
	bad |= shell("ip -n %s link add asleep type veth peer name asleep.end", name);
	bad |= shell("ip -n %s addr add 192.168.99.%d/24 dev asleep", name, host + 1);
	for (int i = 0; i < v->crowd; i++)
		bad |= shell("ip -n %s addr add 10.60.%d.1/24 dev aether", name, i);
	if (!v->address[host])
		return bad | shell("ip -n %s addr add 10.77.%d.1/24 dev aether", name, host);
	bad |= shell("ip -n %s link set way up", name);
	bad |= shell("ip -n %s addr add %s dev way %s", name, v->address[host],
		     strchr(v->address[host], ':') ? "nodad" : "");
	return v->route ? bad | shell("ip -n %s route add %s dev way", name, v->address[!host]) : bad;
}

/* Both ends are up: it takes the kernel a moment to say so, and init leaves out what does not run. */
static int way_runs(const char *host)
{
	return shell("for i in $(seq 50); do ip -n %s link show way | grep -q 'state UP' && exit 0; sleep 0.1; done; "
		     "exit 1", host);
}

static int set_up(const struct variant *v)
{
	char a[64], b[64];

	host_name(0, a, sizeof(a));
	host_name(1, b, sizeof(b));
	if (shell("ip netns add %s", a) || shell("ip netns add %s", b) ||
	    shell("ip link add way netns %s type veth peer name way netns %s", a, b))
		return -1;
	return host_up(0, v) | host_up(1, v) | (v->address[0] ? way_runs(a) | way_runs(b) : 0);
}

static void enter_host(struct rank *r, int host)
{
	char path[128], name[64];
	int fd;

	snprintf(name, sizeof(name), "tuttitest%d%c", (int)getppid(), 'a' + host);
	snprintf(path, sizeof(path), "/var/run/netns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	RANK_CHECKF(r, fd >= 0 && !setns(fd, CLONE_NEWNET), "cannot enter %s: %s", path, strerror(errno));
	close(fd);
}

static tuttiResult_t join(struct rank *r, const struct variant *v)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	struct procs_shared *s = r->procs->shared;
	char number[16];

	config.initDeadline = v->address[0] ? 15 : 4;
	if (v->root) {
		snprintf(number, sizeof(number), "%d", r->rank);
		setenv("TUTTI_RANK", number, 1);
		snprintf(number, sizeof(number), "%d", r->n);
		setenv("TUTTI_SIZE", number, 1);
		setenv("TUTTI_ROOT", v->root, 1);
		setenv("TUTTI_JOB", "a secret of this test", 1);
		return tuttiCommInitFromEnv(&r->comm, &config);
	}
	if (r->rank == 0) {
		RANK_OK(r, tuttiGetUniqueId(&s->id));
		s->have_id = 1;
	}
	return rank_init(r, &config);
}

static void host_rank(struct rank *r)
{
	const struct variant *v = r->arg;
	struct result *out = (struct result *)r->procs->shared->user + r->rank;
	static int32_t p[50000];
	double t;

	unsetenv("TUTTI_ADDRS");
	unsetenv("TUTTI_PORT_RANGE");
	if (v->ports)
		setenv("TUTTI_PORT_RANGE", v->ports, 1);
	enter_host(r, r->rank / 2);
	t = seconds_now();
	out->res = (int)join(r, v);
	out->took_s = seconds_now() - t;
	snprintf(out->text, sizeof(out->text), "%s", tuttiGetLastError(NULL));
	if (out->res != tuttiSuccess)
		return;
	for (int i = 0; i < 50000; i++)
		p[i] = r->rank + i;
	RANK_OK(r, tuttiAllReduce(p, p, 50000, tuttiInt32, tuttiSum, r->comm, NULL));
	for (int i = 0; i < 50000; i++)
		RANK_CHECKF(r, p[i] == 6 + 4 * i, "element %d is %d", i, p[i]);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

/* False: skipped. The namespaces are gone before anything is judged. */
static bool run_hosts(const struct variant *v, struct result *out)
{
	if (geteuid() != 0 || shell("ip -V")) {
		printf("skipped: network namespaces need root and the ip command\n");
		return false;
	}
	if (set_up(v)) {
		take_down();
		printf("skipped: cannot make network namespaces here\n");
		return false;
	}
	procs_start(&ps, N, -1, NULL, host_rank, (void *)(uintptr_t)v);
	procs_wait(&ps, 40);
	memcpy(out, ps.shared->user, N * sizeof(*out));
	take_down();
	procs_expect(&ps, 1, -1);
	return true;
}

static void meets(const struct variant *v)
{
	struct result out[N];

	if (!run_hosts(v, out))
		return;
	for (int i = 0; i < N; i++) {
		CHECKF(out[i].res == tuttiSuccess, "%s: init of rank %d gives '%s' after %.1f s: %s", v->name, i,
		       tuttiGetErrorString((tuttiResult_t)out[i].res), out[i].took_s, out[i].text);
		CHECKF(out[i].took_s < 10, "%s: init of rank %d took %.1f s", v->name, i, out[i].took_s);
	}
}

static void ipv4(void)
{
	meets(&(struct variant){ .name = "IPv4", .address = { "10.213.7.1/24", "10.213.7.2/24" } });
}

/* With the same ports on both hosts, decoys do not refuse: this process, or its neighbour, answers there. The
 * addresses of the way are of no common network, so that a decoy is what looks near and is tried first. */
static void decoys_answer(void)
{
	meets(&(struct variant){ .name = "decoys", .address = { "10.213.7.1/32", "10.213.8.1/32" },
				 .ports = "29500-29507", .route = true });
	meets(&(struct variant){ .name = "decoys by root", .address = { "10.213.7.1/32", "10.213.8.1/32" },
				 .root = "10.213.7.1:29411", .ports = "29500-29507", .route = true });
}

/* The one address that leads to the root is the last of ten and more. */
static void many(void)
{
	meets(&(struct variant){ .name = "many", .address = { "10.213.7.1/24", "10.213.7.2/24" }, .crowd = 9 });
}

static void ipv6(void)
{
	meets(&(struct variant){ .name = "IPv6", .address = { "fd00:77::1/64", "fd00:77::2/64" } });
}

static void link_local(void)
{
	meets(&(struct variant){ .name = "link-local", .address = { "fe80::1/64", "fe80::2/64" } });
}

static void by_root(void)
{
	meets(&(struct variant){ .name = "root", .address = { "10.213.7.1/24", "10.213.7.2/24" },
				 .root = "10.213.7.1:29411" });
	meets(&(struct variant){ .name = "root, IPv6", .address = { "fd00:77::1/64", "fd00:77::2/64" },
				 .root = "[fd00:77::1]:29411" });
}

/* Each of theirs is told with the address of ours that it was tried from and why it failed; of one without a
 * route, all of ours. */
static void lists_pairs(const char *text)
{
	static const char *const wanted[] = { DECOY " -> " DECOY ":", BRIDGE " -> " BRIDGE ":",
		"(no route) -> 10.77.0.1:", "Connection refused", "Network is unreachable",
		"no route from any of 10.77.1.1, " DECOY ", " BRIDGE };

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		CHECKF(strstr(text, wanted[i]), "no '%s' in: %s", wanted[i], text);
}

/* Nothing leads from one host to the other: who looked tells where, who waited tells who is missing. */
static void no_way(void)
{
	struct variant v = { .name = "no way" };
	struct result out[N];

	if (!run_hosts(&v, out))
		return;
	for (int i = 0; i < N; i++) {
		CHECKF(out[i].res != tuttiSuccess && out[i].took_s < 8, "rank %d got '%s' after %.1f s", i,
		       tuttiGetErrorString((tuttiResult_t)out[i].res), out[i].took_s);
		if (i >= 2)
			lists_pairs(out[i].text);
		else
			CHECKF(strchr(out[i].text, '2') && strchr(out[i].text, '3'),
			       "rank %d: the text does not name the missing: %s", i, out[i].text);
	}
}

const struct test tests[] = {
	{ "two hosts over IPv4", ipv4, 60 },
	{ "two hosts whose decoys answer", decoys_answer, 110 },
	{ "two hosts of many addresses", many, 60 },
	{ "two hosts over IPv6 alone", ipv6, 60 },
	{ "two hosts over link-local addresses", link_local, 60 },
	{ "two hosts by TUTTI_ROOT", by_root, 110 },
	{ "two hosts without a way", no_way, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
