/* The choice of GIDs, on invented tables of two ports. Needs no RDMA library. SPDX-License-Identifier: Apache-2.0 */
#include "test.h"
#include "verbs_dev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MAX = 16 };

struct table {
	struct tt_gid g[MAX];
	int n;
};

/* An entry at the next index; text: an IPv4 or IPv6 address with /prefix, or "hole", "zero". */
static struct tt_gid *add(struct table *t, enum tt_gid_type type, const char *text)
{
	struct tt_gid *g = &t->g[t->n];
	char address[64];
	int prefix = 0;

	memset(g, 0, sizeof(*g));
	g->index = (uint16_t)t->n++;
	g->type = (uint8_t)type;
	if (!strcmp(text, "hole"))
		g->err = EINVAL;
	if (!strcmp(text, "hole") || !strcmp(text, "zero"))
		return g;
	CHECK(sscanf(text, "%63[^/]/%d", address, &prefix) >= 1);
	if (strchr(address, ':')) {
		CHECK(inet_pton(AF_INET6, address, g->raw) == 1);
	} else {
		g->raw[10] = g->raw[11] = 0xff;
		CHECK(inet_pton(AF_INET, address, g->raw + 12) == 1);
		prefix += prefix ? 96 : 0;
	}
	g->prefix = (uint8_t)prefix;
	return g;
}

static struct tt_gid_pair pair[MAX * MAX];

/* Both ways round, which must agree. */
static int choose_on(const struct table *a, const struct table *b, bool same_host)
{
	static struct tt_gid_pair back[MAX * MAX];
	int n = tt_gid_pairs(a->g, a->n, b->g, b->n, same_host, pair, MAX * MAX);

	CHECK(tt_gid_pairs(b->g, b->n, a->g, a->n, same_host, back, MAX * MAX) == n);
	for (int i = 0; i < n && a != b; i++)
		CHECKF(!memcmp(&pair[i].a, &back[i].b, sizeof(back[i].b)) &&
		       !memcmp(&pair[i].b, &back[i].a, sizeof(back[i].a)), "pair %d differs", i);
	return n;
}

static int choose(const struct table *a, const struct table *b)
{
	return choose_on(a, b, false);
}

static bool is(int i, int a, int b)
{
	return pair[i].a.index == a && pair[i].b.index == b;
}

/* As soft-RoCE and most cards have it: link-local first, then IPv4, each in both versions. */
static void usual(struct table *t, const char *link_local, const char *address)
{
	add(t, TT_GID_ROCE1, link_local);
	add(t, TT_GID_ROCE2, link_local);
	add(t, TT_GID_ROCE1, address);
	add(t, TT_GID_ROCE2, address);
}

static void best_of_the_usual(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	usual(&a, "fe80::1", "10.1.0.1/24");
	usual(&b, "fe80::2", "10.1.0.2/24");
	CHECK(choose(&a, &b) == 4);
	CHECK(is(0, 3, 3) && is(1, 2, 2) && is(2, 1, 1) && is(3, 0, 0));
}

static void all_ipv6(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	usual(&a, "fe80::1", "2001:db8:7::1/64");
	usual(&b, "fe80::2", "2001:db8:7::2/64");
	add(&b, TT_GID_ROCE2, "2001:db8:8::2/64");
	CHECK(choose(&a, &b) >= 3);
	CHECK(is(0, 3, 3) && is(1, 3, 4));
}

static void holes(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };
	struct tt_gid out[MAX];

	add(&a, TT_GID_ROCE2, "hole");
	add(&a, TT_GID_ROCE2, "zero");
	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	add(&a, TT_GID_ROCE2, "hole");
	add(&b, TT_GID_ROCE2, "10.1.0.2/24");
	add(&b, TT_GID_ROCE2, "10.1.0.3/24")->err = EINVAL; /* unreadable, whatever is left in it */
	add(&b, TT_GID_ROCE2, "zero");
	CHECK(choose(&a, &b) == 1 && is(0, 2, 0));
	CHECK(tt_gid_usable(a.g, a.n, -1, out, MAX) == 1 && out[0].index == 2);
	CHECK(tt_gid_usable(a.g, a.n, 2, out, MAX) == 1);
	CHECK(tt_gid_usable(a.g, a.n, 0, out, MAX) == 0);
	CHECK(tt_gid_usable(a.g, a.n, 7, out, MAX) == 0);
	CHECK(tt_gid_usable(b.g, b.n, -1, out, MAX) == 1 && out[0].index == 0);
	CHECK(tt_gid_usable(b.g, b.n, -1, out, 0) == 0);
	a.n = 2;
	CHECK(choose(&a, &b) == 0);
	add(&b, TT_GID_ROCE2, "2001:db8::1"); /* zeros are no address of the same family */
	CHECK(choose(&a, &b) == 0);
}

static void link_local_only(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_ROCE1, "fe80::1");
	add(&a, TT_GID_ROCE2, "fe80::1");
	add(&b, TT_GID_ROCE2, "fe80::2");
	CHECK(choose(&a, &b) == 1 && is(0, 1, 0));
	/* One global address does not help where the peer has none. */
	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	CHECK(choose(&a, &b) == 1 && is(0, 1, 0));
	/* IPv4 has them too. */
	add(&b, TT_GID_ROCE2, "169.254.0.7/16");
	add(&a, TT_GID_ROCE2, "169.254.0.8/16");
	CHECK(choose(&a, &b) == 2);
	add(&b, TT_GID_ROCE2, "10.9.0.1/24");
	CHECK(choose(&a, &b) == 3 && is(0, 2, 2)); /* even another subnet is better */
}

static void another_index_on_each(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	for (int i = 0; i < 5; i++)
		add(&b, TT_GID_ROCE2, i & 1 ? "hole" : "fe80::2");
	add(&b, TT_GID_ROCE2, "10.1.0.2/24");
	CHECK(choose(&a, &b) == 1 && is(0, 0, 5));
}

static void two_subnets(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	add(&a, TT_GID_ROCE2, "10.2.0.1/24");
	add(&b, TT_GID_ROCE2, "10.2.0.2/24");
	add(&b, TT_GID_ROCE2, "10.1.0.2/24");
	CHECK(choose(&a, &b) == 4);
	CHECK((is(0, 0, 1) && is(1, 1, 0)) || (is(0, 1, 0) && is(1, 0, 1)));
	/* 10.1.128.1/17 and 10.1.0.1/17 are two networks, though /16 would make them one. */
	a.n = b.n = 0;
	add(&a, TT_GID_ROCE2, "10.1.128.1/17");
	add(&a, TT_GID_ROCE2, "10.1.0.1/17");
	add(&b, TT_GID_ROCE2, "10.1.0.9/17");
	CHECK(choose(&a, &b) == 2 && is(0, 1, 0));
	b.g[0].prefix--; /* the longer of two prefixes decides */
	CHECK(choose(&a, &b) == 2 && is(0, 1, 0));
	/* Without prefixes nothing is known of IPv4: both stay, in the order of the tables. */
	a.g[0].prefix = a.g[1].prefix = b.g[0].prefix = 0;
	CHECK(choose(&a, &b) == 2 && is(0, 0, 0));
	/* IPv6 networks have 64 bits, if nothing else is known. */
	a.n = b.n = 0;
	add(&a, TT_GID_ROCE2, "2001:db8:0:7::1");
	add(&a, TT_GID_ROCE2, "2001:db8:0:8::1");
	add(&b, TT_GID_ROCE2, "2001:db8:0:8::2");
	CHECK(choose(&a, &b) == 2 && is(0, 1, 0));
}

static void version_one_only(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_ROCE1, "fe80::1");
	add(&a, TT_GID_ROCE1, "10.1.0.1/24");
	usual(&b, "fe80::2", "10.1.0.2/24");
	CHECK(choose(&a, &b) == 2 && is(0, 1, 2) && is(1, 0, 0));
	/* It is not routed. */
	a.n = b.n = 0;
	add(&a, TT_GID_ROCE1, "10.1.0.1/24");
	add(&b, TT_GID_ROCE1, "10.2.0.1/24");
	CHECK(choose(&a, &b) == 0);
}

static void mixed_families(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	add(&b, TT_GID_ROCE2, "2001:db8::1/64");
	CHECK(choose(&a, &b) == 0);
	add(&a, TT_GID_ROCE2, "2001:db8::2/64");
	CHECK(choose(&a, &b) == 1 && is(0, 1, 0));
	add(&b, TT_GID_ROCE2, "10.1.0.2/24");
	CHECK(choose(&a, &b) == 2 && is(0, 0, 1));
	b.g[1].raw[13] = 9; /* 10.9.0.2: another subnet, so now IPv6 */
	CHECK(choose(&a, &b) == 2 && is(0, 1, 0));
	a.n = b.n = 0;
	add(&a, TT_GID_ROCE2, "2001:db8::1/64");
	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	add(&b, TT_GID_ROCE2, "2001:db8::2/64");
	add(&b, TT_GID_ROCE2, "10.1.0.2/24");
	CHECK(choose(&a, &b) == 2 && is(0, 1, 1)); /* of equals IPv4 */
}

static void one_address_on_two_hosts(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_ROCE2, "172.17.0.1/16");
	add(&a, TT_GID_ROCE2, "127.0.0.1/8");
	add(&b, TT_GID_ROCE2, "172.17.0.1/16");
	add(&b, TT_GID_ROCE2, "127.0.0.1/8");
	add(&b, TT_GID_ROCE2, "127.0.0.2/8");
	add(&a, TT_GID_ROCE2, "::1");
	add(&b, TT_GID_ROCE2, "::1");
	CHECK(choose(&a, &b) == 0);
	CHECK(choose_on(&a, &b, true) == 4 && is(0, 0, 0));
	CHECK(pair[3].a.index == 1 || pair[3].a.index == 2);
	add(&a, TT_GID_ROCE2, "172.17.0.9/16");
	CHECK(choose(&a, &b) == 1 && is(0, 3, 0));
	a.n = b.n = 0; /* one device, two processes */
	add(&a, TT_GID_ROCE2, "10.1.0.1/24");
	add(&b, TT_GID_ROCE2, "10.1.0.2/24");
	add(&b, TT_GID_ROCE2, "10.1.0.1/24");
	CHECK(choose_on(&a, &b, true) == 2 && is(0, 0, 1));
	CHECK(choose_on(&b, &b, true) == 4 && is(0, 0, 0) && is(1, 1, 1));
}

static void infiniband(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	add(&a, TT_GID_IB, "fe80::2:c903:1:1");
	add(&b, TT_GID_IB, "fec0:0:0:1:2:c903:1:2");
	CHECK(choose(&a, &b) == 0); /* two subnets */
	add(&b, TT_GID_IB, "fe80::2:c903:1:2");
	CHECK(choose(&a, &b) == 1 && is(0, 0, 1));
	add(&b, TT_GID_ROCE2, "fe80::3");
	CHECK(choose(&a, &b) == 1);
	add(&b, TT_GID_IB, "fe80::2:c903:1:9"); /* an alias, after the first */
	CHECK(choose(&a, &b) == 2 && is(0, 0, 1) && is(1, 0, 3));
}

static void few_places(void)
{
	struct table a = { .n = 0 }, b = { .n = 0 };

	usual(&a, "fe80::1", "10.1.0.1/24");
	usual(&b, "fe80::2", "10.1.0.2/24");
	CHECK(tt_gid_pairs(a.g, a.n, b.g, b.n, false, pair, 1) == 1 && is(0, 3, 3));
	CHECK(tt_gid_pairs(a.g, a.n, b.g, b.n, false, pair, 2) == 2 && is(0, 3, 3) && is(1, 2, 2));
	CHECK(tt_gid_pairs(a.g, a.n, b.g, b.n, false, pair, 0) == 0);
}

static void text(void)
{
	struct table t = { .n = 0 };
	char out[64];

	CHECK(!strcmp(tt_gid_text(add(&t, TT_GID_ROCE2, "10.1.0.1/24")->raw, out, sizeof(out)), "10.1.0.1"));
	CHECK(!strcmp(tt_gid_text(add(&t, TT_GID_ROCE2, "fe80::1")->raw, out, sizeof(out)), "fe80::1"));
	CHECK(!*tt_gid_text(t.g[0].raw, out, 3));
}

const struct test tests[] = {
	{ "gid: RoCE v2 with a global address first", best_of_the_usual, 0 },
	{ "gid: all IPv6", all_ipv6, 0 },
	{ "gid: holes", holes, 0 },
	{ "gid: link-local only", link_local_only, 0 },
	{ "gid: another index on each host", another_index_on_each, 0 },
	{ "gid: two subnets", two_subnets, 0 },
	{ "gid: RoCE v1 only", version_one_only, 0 },
	{ "gid: mixed families", mixed_families, 0 },
	{ "gid: one address on two hosts", one_address_on_two_hosts, 0 },
	{ "gid: InfiniBand", infiniband, 0 },
	{ "gid: few places", few_places, 0 },
	{ "gid: as text", text, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
