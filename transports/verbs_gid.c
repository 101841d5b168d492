/* verbs: which GID of this port should talk to which of the peer's. Pure: tables in, pairs out.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs_dev.h"

#include <arpa/inet.h>
#include <string.h>

static bool is_mapped(const struct tt_gid *g)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(g->raw, head, sizeof(head));
}

static bool is_zero(const struct tt_gid *g)
{
	static const uint8_t none[16];

	return !memcmp(g->raw, none, sizeof(none));
}

bool tt_gid_link_local(const struct tt_gid *g)
{
	if (is_mapped(g))
		return g->raw[12] == 169 && g->raw[13] == 254;
	return g->raw[0] == 0xfe && (g->raw[1] & 0xc0) == 0x80;
}

static bool is_loopback(const struct tt_gid *g)
{
	static const uint8_t one[16] = { [15] = 1 };

	return is_mapped(g) ? g->raw[12] == 127 : !memcmp(g->raw, one, sizeof(one));
}

int tt_gid_usable(const struct tt_gid *t, int n, int forced, struct tt_gid *out, int max)
{
	int kept = 0;

	for (int i = 0; i < n && kept < max; i++)
		if (!t[i].err && !is_zero(&t[i]) && (forced < 0 || t[i].index == forced))
			out[kept++] = t[i];
	return kept;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, int bits)
{
	int bytes = bits / 8, rest = bits % 8;

	return !memcmp(a, b, (size_t)bytes) && (!rest || ((a[bytes] ^ b[bytes]) >> (8 - rest)) == 0);
}

/* 2: one subnet, 1: not known, 0: two. Where the ends differ about the prefix, the longer one decides. */
static int nearness(const struct tt_gid *a, const struct tt_gid *b)
{
	int bits = a->prefix > b->prefix ? a->prefix : b->prefix;

	if (bits < 1 || bits > 128) {
		if (is_mapped(a))
			return 1;
		bits = 64;
	}
	return same_bits(a->raw, b->raw, bits) ? 2 : 0;
}

/* 0: cannot work; else larger is better. By weight: scope, RoCE version, subnet, one device for both, family. */
static int worth_roce(const struct tt_gid *a, const struct tt_gid *b, bool same_host)
{
	bool equal = !memcmp(a->raw, b->raw, sizeof(a->raw)), v2 = a->type == TT_GID_ROCE2;
	bool near = tt_gid_link_local(a), loop = is_loopback(a);
	int subnet = nearness(a, b), scope;

	if (is_mapped(a) != is_mapped(b) || near != tt_gid_link_local(b) || loop != is_loopback(b))
		return 0;
	/* One address on two machines: each would reach itself (127.0.0.1, and bridges such as 172.17.0.1). */
	if (equal && !same_host)
		return 0;
	if ((loop && !same_host) || (!v2 && subnet == 0))
		return 0; /* RoCE v1 is not routed */
	scope = loop ? 1 : near ? 2 : 3;
	return scope << 8 | v2 << 6 | subnet << 4 | equal << 3 | is_mapped(a) << 1 | 1;
}

static int worth(const struct tt_gid *a, const struct tt_gid *b, bool same_host)
{
	if (a->type != b->type || a->err || b->err || is_zero(a) || is_zero(b))
		return 0;
	if (a->type != TT_GID_IB)
		return worth_roce(a, b, same_host);
	return same_bits(a->raw, b->raw, 64); /* routers between InfiniBand subnets are not for us */
}

/* Equals are ordered by what both ends see alike, whichever of the two is a. */
static int tie(const struct tt_gid_pair *x, const struct tt_gid_pair *y)
{
	int sx = x->a.index + x->b.index, sy = y->a.index + y->b.index, c;
	bool fx = memcmp(x->a.raw, x->b.raw, 16) > 0, fy = memcmp(y->a.raw, y->b.raw, 16) > 0;

	if (sx != sy)
		return sx < sy ? -1 : 1;
	c = memcmp(fx ? x->b.raw : x->a.raw, fy ? y->b.raw : y->a.raw, 16);
	return c ? c : memcmp(fx ? x->a.raw : x->b.raw, fy ? y->a.raw : y->b.raw, 16);
}

/* Puts a pair where it belongs in the list of the best. */
static int insert(struct tt_gid_pair *out, int n, int max, const struct tt_gid_pair *p, bool same_host)
{
	int w = worth(&p->a, &p->b, same_host), at = n;

	while (at > 0) {
		int v = worth(&out[at - 1].a, &out[at - 1].b, same_host);

		if (v > w || (v == w && tie(&out[at - 1], p) <= 0))
			break;
		at--;
	}
	if (at >= max)
		return n;
	n = n < max ? n + 1 : max;
	memmove(&out[at + 1], &out[at], (size_t)(n - 1 - at) * sizeof(*out));
	out[at] = *p;
	return n;
}

int tt_gid_pairs(const struct tt_gid *a, int na, const struct tt_gid *b, int nb, bool same_host,
		 struct tt_gid_pair *out, int max)
{
	int n = 0;

	for (int i = 0; i < na; i++)
		for (int j = 0; j < nb; j++)
			if (worth(&a[i], &b[j], same_host))
				n = insert(out, n, max, &(struct tt_gid_pair){ a[i], b[j] }, same_host);
	return n;
}

int tt_gid_nearness(const struct tt_gid_pair *p, bool same_host)
{
	return worth(&p->a, &p->b, same_host) >> 4;
}

const char *tt_gid_text(const uint8_t *raw, char *out, size_t n)
{
	struct tt_gid g = { .index = 0 };

	memcpy(g.raw, raw, sizeof(g.raw));
	if (!inet_ntop(is_mapped(&g) ? AF_INET : AF_INET6, is_mapped(&g) ? raw + 12 : raw, out, (socklen_t)n) && n)
		*out = 0;
	return out;
}
