/* verbs: its settings, and which devices they admit. SPDX-License-Identifier: Apache-2.0 */
#include "verbs_dev.h"

#include <stdlib.h>
#include <string.h>

struct bounds {
	const char *name;
	int lo, hi, otherwise;
	const char *why;
};

static const struct bounds table[] = {
	{ "IB_GID_INDEX", -1, 65535, -1, "an index of a GID table, or -1" },
	{ "IB_TIMEOUT", 0, 31, 0, "0 to 31" },
	{ "IB_RETRY_CNT", 0, 6, 6, "0 to 6 (some devices take 7 as for ever)" },
	{ "IB_SL", 0, 15, 0, "a service level of 0 to 15" },
	{ "IB_TC", 0, 255, 0, "a traffic class of 0 to 255" },
	{ "IB_PKEY", 0, 65535, 0, "a partition key of 16 bits" },
	{ "IB_MTU", 0, 4096, 0, "0, 256, 512, 1024, 2048 or 4096" },
	{ "IB_QPS_PER_CONNECTION", 1, 16, 1, "1 to 16" },
};
enum { NBOUNDS = sizeof(table) / sizeof(table[0]) };

static int bounded(int which)
{
	static _Atomic bool said[NBOUNDS];
	const struct bounds *b = &table[which];
	long long v = tt_env_int(b->name);
	bool good = v >= b->lo && v <= b->hi;

	if (which == 6)
		good = good && (v == 0 || (v >= 256 && (v & (v - 1)) == 0));
	if (good)
		return (int)v;
	if (!atomic_exchange_explicit(&said[which], true, memory_order_relaxed))
		tt_log(TT_LOG_WARN, "verbs", "TUTTI_%s=%lld is not %s; taken as %d", b->name, v, b->why, b->otherwise);
	return b->otherwise;
}

void tt_vb_conf(struct tt_vb_conf *c)
{
	int *const to[NBOUNDS] = { &c->gid_index, &c->timeout, &c->retry_cnt, &c->sl,
				   &c->tc,        &c->pkey,    &c->mtu,       &c->qps };

	for (int i = 0; i < NBOUNDS; i++)
		*to[i] = bounded(i);
}

/* Software answers late on a busy machine, and soft-RoCE is not sound when it sends again (docs/testing.md). */
int tt_vb_timeout(const struct tt_vb_conf *c, bool hardware)
{
	return c->timeout ? c->timeout : hardware ? 14 : 18;
}

/* One item: name[:port]. */
static bool item_admits(const char *item, size_t n, bool whole, const char *dev, int port)
{
	const char *colon = memchr(item, ':', n);
	size_t len = colon ? (size_t)(colon - item) : n;

	if (!n || strncmp(item, dev, len) || (whole && dev[len]))
		return false;
	return !colon || colon + 1 == item + n || atoi(colon + 1) == port;
}

bool tt_vb_hca(const char *list, const char *dev, int port)
{
	bool but = *list == '^', whole, found = false;

	list += but;
	whole = *list == '=';
	list += whole;
	if (!*list)
		return true;
	for (size_t n; *list && !found; list += n + (list[n] == ',')) {
		n = strcspn(list, ",");
		found = item_admits(list, n, whole, dev, port);
	}
	return found != but;
}

int tt_vb_mtu_code(int bytes)
{
	int code = 1;

	while (code < 5 && 128 << (code + 1) <= bytes)
		code++;
	return code;
}
