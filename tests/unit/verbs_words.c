/* The words for statuses, events and errors, the settings, the list of devices, and a machine with or without
 * RDMA. SPDX-License-Identifier: Apache-2.0 */
#include "test.h"
#include "verbs_dev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void complete(const struct tt_vb_word *w, const char *name)
{
	CHECK(w && w->name && w->cause && w->mend);
	CHECKF(!name || !strcmp(w->name, name), "%s is called %s", name, w->name);
	CHECKF(strlen(w->cause) > 3 && strlen(w->mend) > 3, "%s has no words", w->name);
}

#if TT_HAVE_VERBS
static void every_code(void)
{
	for (int i = 0; i <= IBV_WC_TM_RNDV_INCOMPLETE; i++) {
		complete(tt_vb_wc_word(i), NULL);
		CHECKF(strcmp(tt_vb_wc_word(i)->name, "unknown"), "status %d has no words", i);
		CHECK(tt_vb_wc_follows(i) == (i == IBV_WC_WR_FLUSH_ERR));
	}
	for (int i = 0; i <= IBV_EVENT_WQ_FATAL; i++)
		CHECKF(strcmp(tt_vb_event_word(i)->name, "unknown"), "event %d has no words", i);
	for (int i = 0; i <= RDMA_CM_EVENT_TIMEWAIT_EXIT; i++)
		CHECKF(strcmp(tt_vb_cm_word(i)->name, "unknown"), "rdma_cm event %d has no words", i);
	complete(tt_vb_wc_word(IBV_WC_RETRY_EXC_ERR), "RETRY_EXC_ERR");
	complete(tt_vb_wc_word(IBV_WC_RNR_RETRY_EXC_ERR), "RNR_RETRY_EXC_ERR");
	complete(tt_vb_event_word(IBV_EVENT_GID_CHANGE), "GID_CHANGE");
	complete(tt_vb_cm_word(RDMA_CM_EVENT_REJECTED), "REJECTED");
	CHECK(tt_vb_event_blow(IBV_EVENT_PORT_ERR) == TT_VB_LOOK);
	CHECK(tt_vb_event_blow(IBV_EVENT_QP_FATAL) == TT_VB_QP_LOST);
	CHECK(tt_vb_event_blow(IBV_EVENT_DEVICE_FATAL) == TT_VB_DEV_LOST);
	CHECK(tt_vb_event_blow(IBV_EVENT_COMM_EST) == TT_VB_NOTE);
	CHECK(strstr(tt_vb_wc_word(IBV_WC_RETRY_EXC_ERR)->cause, "does not answer"));
}
#else
static void every_code(void)
{
}
#endif

static void codes_of_the_future(void)
{
	complete(tt_vb_wc_word(-1), "unknown");
	complete(tt_vb_wc_word(1000), "unknown");
	complete(tt_vb_event_word(1000), "unknown");
	complete(tt_vb_event_word(-5), "unknown");
	complete(tt_vb_cm_word(1000), "unknown");
	CHECK(tt_vb_event_blow(1000) == TT_VB_NOTE);
}

static void one_line(void)
{
	static struct tt_vb_dev dev = { .name = "rxe0" };
	struct tt_vb_port port = { .dev = &dev, .num = 1, .wire = TT_VB_ROCE, .state = 4, .netdev = "net0",
				   .netdev_up = true };
	struct tt_vb_word w = { "NAME", "cause", "mend" };
	struct tt_vb_place at = { .rank = 3, .peer = "10.0.0.2", .port = &port, .qpn = 17 };
	char out[512];

	CHECK(!strcmp(tt_vb_say(&w, &at, out, sizeof(out)),
		      "rank 3 at 10.0.0.2, queue pair 17 of device rxe0 port 1 (RoCE, net0, active): "
		      "NAME: cause; mend"));
	at = (struct tt_vb_place){ .rank = -1 };
	CHECK(!strcmp(tt_vb_say(&w, &at, out, sizeof(out)), "NAME: cause; mend"));
	port.netdev_up = false;
	port.state = 1;
	at.port = &port;
	CHECK(!strcmp(tt_vb_say(&w, &at, out, sizeof(out)),
		      "device rxe0 port 1 (RoCE, net0, down, no carrier): NAME: cause; mend"));
}

static void errors(void)
{
	char out[512];

	CHECK(strstr(tt_vb_errno("ibv_reg_mr", ENOMEM, out, sizeof(out)), "memlock"));
	CHECK(strstr(out, "ibv_reg_mr: ") == out && strstr(out, "ulimit -l"));
	CHECK(strstr(tt_vb_errno("ibv_open_device", EACCES, out, sizeof(out)), "/dev/infiniband"));
	CHECK(strstr(tt_vb_errno("ibv_open_device", -ENODEV, out, sizeof(out)), "gone"));
	CHECK(strstr(tt_vb_errno("ibv_open_device", 12345, out, sizeof(out)), "12345"));
}

static void devices(void)
{
	CHECK(tt_vb_hca("", "mlx5_0", 1));
	CHECK(tt_vb_hca("mlx5", "mlx5_0", 1) && tt_vb_hca("mlx5", "mlx5_1", 2));
	CHECK(!tt_vb_hca("mlx5", "rxe0", 1));
	CHECK(tt_vb_hca("rxe,mlx5_1", "mlx5_1", 1) && !tt_vb_hca("rxe,mlx5_1", "mlx5_0", 1));
	CHECK(tt_vb_hca("=mlx5_1", "mlx5_1", 1) && !tt_vb_hca("=mlx5_1", "mlx5_10", 1));
	CHECK(tt_vb_hca("mlx5_1", "mlx5_10", 1));
	CHECK(tt_vb_hca("mlx5_0:1,mlx5_1:2", "mlx5_1", 2) && !tt_vb_hca("mlx5_0:1,mlx5_1:2", "mlx5_0", 2));
	CHECK(!tt_vb_hca("^mlx5_1", "mlx5_1", 1) && tt_vb_hca("^mlx5_1", "mlx5_0", 1));
	CHECK(!tt_vb_hca("^mlx5_1", "mlx5_10", 1) && tt_vb_hca("^=mlx5_1", "mlx5_10", 1));
	CHECK(!tt_vb_hca("^=mlx5_1:2", "mlx5_1", 2) && tt_vb_hca("^=mlx5_1:2", "mlx5_1", 1));
	CHECK(tt_vb_hca("a,,rxe", "rxe0", 1) && !tt_vb_hca("a,,b", "rxe0", 1) && tt_vb_hca("^a,", "rxe0", 1));
}

static void settings(void)
{
	struct tt_vb_conf c;

	tt_vb_conf(&c);
	CHECK(c.gid_index == -1 && !c.timeout && c.retry_cnt == 6 && !c.sl && !c.tc && !c.pkey && !c.mtu);
	CHECK(c.qps == 1);
	setenv("TUTTI_IB_RETRY_CNT", "7", 1); /* for ever, on some devices */
	CHECK(tt_vb_timeout(&c, true) == 14 && tt_vb_timeout(&c, false) == 18);
	setenv("TUTTI_IB_TIMEOUT", "20", 1);
	setenv("TUTTI_IB_MTU", "1000", 1);
	setenv("TUTTI_IB_PKEY", "0x8001", 1);
	setenv("TUTTI_IB_QPS_PER_CONNECTION", "4", 1);
	tt_vb_conf(&c);
	CHECK(c.retry_cnt == 6 && tt_vb_timeout(&c, false) == 20 && c.mtu == 0 && c.pkey == 0x8001 && c.qps == 4);
	setenv("TUTTI_IB_RETRY_CNT", "3", 1);
	setenv("TUTTI_IB_MTU", "2K", 1);
	tt_vb_conf(&c);
	CHECK(c.retry_cnt == 3 && c.mtu == 2048);
	CHECK(tt_vb_mtu_code(256) == 1 && tt_vb_mtu_code(1024) == 3 && tt_vb_mtu_code(1500) == 3);
	CHECK(tt_vb_mtu_code(4096) == 5 && tt_vb_mtu_code(65536) == 5 && tt_vb_mtu_code(1) == 1);
}

/* Whatever this machine is: a reason, or ports with sensible figures; and what is opened is closed. */
static void this_machine(void)
{
	char why[256] = "";
	double speed = 0;
	bool on = tt_vb_probe(&speed, why, sizeof(why));
	struct tt_vb_port *ports[8];
	struct tt_vb_devs d;

	CHECKF(on || *why, "no reason");
	CHECK(!on || speed > 0);
	if (!tt_vb(why, sizeof(why))) {
		CHECK(*why && tt_vb_open(&d) == tuttiUnsupported && d.n == 0);
		return;
	}
	CHECK(tt_vb_open(&d) == tuttiSuccess);
	CHECK(tt_vb_fork() != TT_VB_FORK_UNSAFE && *tt_vb_fork_text());
	CHECK(!on || tt_vb_ports(&d, ports, 8) > 0);
	for (int i = tt_vb_ports(&d, ports, 8) - 1; i >= 0; i--)
		CHECK(ports[i]->usable && ports[i]->speed > 0 && ports[i]->mtu >= 256 && ports[i]->ngids > 0);
	tt_vb_close(&d);
	tt_vb_close(&d);
}

#if TT_HAVE_VERBS
/* Registered memory in parent and child after a fork. */
static void fork_with(struct tt_vb_port *port)
{
	const struct tt_vb *vb = tt_vb(NULL, 0);
	struct ibv_pd *pd = vb->alloc_pd(port->dev->ctx);
	enum { SIZE = 1 << 16 };
	char *p = malloc(SIZE);
	struct ibv_mr *mr;
	int status = -1;
	pid_t child;

	memset(p, 7, SIZE);
	mr = vb->reg_mr(pd, p, SIZE, IBV_ACCESS_LOCAL_WRITE);
	CHECK(pd && mr);
	child = fork();
	if (child == 0) {
		bool there = tt_vb_fork() == TT_VB_FORK_COPIED;

		if (there)
			p[SIZE / 2]++;
		_exit(there && p[SIZE / 2] != 8);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(p[SIZE / 2] == 7 && !vb->dereg_mr(mr) && !vb->dealloc_pd(pd));
	free(p);
}
#else
static void fork_with(struct tt_vb_port *port)
{
}
#endif

static void forks(void)
{
	struct tt_vb_port *port;
	struct tt_vb_devs d;

	if (!tt_vb(NULL, 0))
		return;
	CHECK(tt_vb_open(&d) == tuttiSuccess);
	if (tt_vb_ports(&d, &port, 1))
		fork_with(port);
	tt_vb_close(&d);
}

const struct test tests[] = {
	{ "verbs: every code has words", every_code, 0 },
	{ "verbs: unknown codes", codes_of_the_future, 0 },
	{ "verbs: one line", one_line, 0 },
	{ "verbs: errno in words", errors, 0 },
	{ "verbs: TUTTI_IB_HCA", devices, 0 },
	{ "verbs: settings", settings, 0 },
	{ "verbs: this machine", this_machine, 0 },
	{ "verbs: fork with registered memory", forks, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
