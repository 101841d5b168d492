/* What is set for RDMA reaches the queue pair, as its device tells: both ends of a connection in one process.
 * SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"
#include "verbs.h"

#if TT_HAVE_VERBS

/* The settings; what the queue pairs of a connected endpoint must have. */
struct wish {
	const char *set[8][2];
	struct ibv_qp_attr want;
	int conns;
};

static struct tt_vb heard; /* the library, and what it was told that soft-RoCE does not keep */
static int (*modify)(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask);
static int service_level;

static int modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	if (mask & IBV_QP_AV)
		service_level = a->ah_attr.sl;
	return modify(qp, a, mask);
}

static void listen_in(struct vb_ep *ep)
{
	heard = *ep->vb;
	modify = heard.modify_qp;
	heard.modify_qp = modify_qp;
	ep->vb = &heard;
}

static void look_at(const struct vb_ep *ep, const struct wish *w)
{
	int n = 0;

	for (const struct msg_conn *c = ep->base.conns; c; c = c->next) {
		struct ibv_qp *qp = ((const struct vb_conn *)c)->qp;
		const struct ibv_qp_attr *want = &w->want;
		struct ibv_qp_init_attr init;
		struct ibv_qp_attr got;

		CHECK(!ep->vb->query_qp(qp, &got, IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
						  IBV_QP_RNR_RETRY | IBV_QP_PKEY_INDEX, &init));
		CHECKF(service_level == want->ah_attr.sl, "service level %d", service_level);
		CHECKF(got.ah_attr.grh.traffic_class == want->ah_attr.grh.traffic_class, "traffic class %d",
		       got.ah_attr.grh.traffic_class);
		CHECKF(got.path_mtu == want->path_mtu, "MTU by its code %d", got.path_mtu);
		CHECKF(got.timeout == want->timeout, "time-out %d", got.timeout);
		CHECKF(got.retry_cnt == want->retry_cnt && got.rnr_retry == want->retry_cnt, "retries %d, %d",
		       got.retry_cnt, got.rnr_retry);
		CHECKF(got.pkey_index == want->pkey_index, "index %d of the partition key", got.pkey_index);
		n++;
	}
	CHECKF(n == w->conns, "%d queue pairs, not %d", n, w->conns);
}

static const struct wish wishes[] = {
	{ { { "TUTTI_IB_SL", "5" }, { "TUTTI_IB_TC", "104" }, { "TUTTI_IB_MTU", "1024" }, { "TUTTI_IB_TIMEOUT", "17" },
	    { "TUTTI_IB_RETRY_CNT", "3" } },
	  { .ah_attr = { .sl = 5, .grh = { .traffic_class = 104 } }, .path_mtu = IBV_MTU_1024, .timeout = 17,
	    .retry_cnt = 3 }, 2 },
	{ { { "TUTTI_IB_MTU", "256" }, { "TUTTI_IB_QPS_PER_CONNECTION", "3" } },
	  { .path_mtu = IBV_MTU_256, .timeout = 18, .retry_cnt = 6 }, 6 },
	/* The largest; two out of their bounds; a key, for which RoCE has no use. */
	{ { { "TUTTI_IB_MTU", "4096" }, { "TUTTI_IB_RETRY_CNT", "7" }, { "TUTTI_IB_SL", "16" },
	    { "TUTTI_IB_PKEY", "32769" } },
	  { .path_mtu = IBV_MTU_4096, .timeout = 18, .retry_cnt = 6 }, 2 },
};

static void granted(const struct wish *w)
{
	char a[100] = "a", b[100];
	struct rig r;
	struct ends e;

	for (int i = 0; i < 8 && w->set[i][0]; i++)
		setenv(w->set[i][0], w->set[i][1], 1);
	rig_begin(&r, &tt_verbs);
	listen_in(r.ep[0]);
	e = open_ends(&r, 3001);
	transfer(&r, e.a, e.b, a, b, sizeof(a));
	transfer(&r, e.b, e.a, a, b, sizeof(a));
	look_at(r.ep[0], w);
	close_ends(&r, e);
	rig_end(&r);
	for (int i = 0; i < 8 && w->set[i][0]; i++)
		unsetenv(w->set[i][0]);
}

static void settings_reach_the_queue_pair(void)
{
	char why[160];
	struct tt_caps caps;

	if (!tt_verbs.probe(&caps, why, sizeof(why))) {
		fprintf(stderr, "skipped: %s\n", why);
		return;
	}
	unsetenv("TUTTI_IB_TIMEOUT");
	for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++)
		granted(&wishes[i]);
}

const struct test tests[] = { { "settings_reach_the_queue_pair", settings_reach_the_queue_pair, 0 } };
#else
const struct test tests[] = { { NULL, NULL, 0 } };
#endif
const int ntests = TT_HAVE_VERBS;
