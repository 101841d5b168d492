/* A rank of a job that a fault is to hit: job ELEMENTS SECONDS [FILE]. Reduces and checks over and over, says "going"
 * after the first, and ends well after SECONDS. An error is said with the time since the last result. Where FILE is
 * named it then waits for it, and says "again" when a new communicator has worked, with the settings of JOB_AGAIN
 * ("NAME=value NAME=value") in place of those before.
 * JOB_STOP_QP names a file: when it is there, all queue pairs of this rank are put into the error state, or, where
 * JOB_STOP_HOW is "destroyed", taken from the device while the library still has them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs_dev.h"

#include <errno.h>
#include <pthread.h>
#include <rdma/ib_user_verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int32_t *in, *out;
static size_t count;
static double last_s;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wrong(size_t i, int32_t want)
{
	printf("WRONG element %zu: %d, not %d\n", i, out[i], want);
	exit(3);
}

/* The first element says who wants to stop; the others are checked. */
static tuttiResult_t one(tuttiComm_t c, int n, int rank, int round, bool stop, bool *stopped)
{
	tuttiResult_t r;

	in[0] = stop;
	for (size_t i = 1; i < count; i++)
		in[i] = (int32_t)(i + (size_t)round) + rank;
	r = tuttiAllReduce(in, out, count, tuttiInt32, tuttiSum, c, NULL);
	if (r != tuttiSuccess)
		return r;
	for (size_t i = 1; i < count; i++)
		if (out[i] != n * (int32_t)(i + (size_t)round) + n * (n - 1) / 2)
			wrong(i, n * (int32_t)(i + (size_t)round) + n * (n - 1) / 2);
	*stopped = out[0] != 0;
	last_s = now();
	return r;
}

static tuttiResult_t work(double seconds, const char *word)
{
	double began = now(), end = began + seconds;
	bool stopped = false;
	tuttiComm_t c = NULL;
	int n, rank, rounds = 0;
	tuttiResult_t r;

	last_s = began;
	r = tuttiCommInitFromEnv(&c, NULL);
	if (r == tuttiSuccess) {
		tuttiCommCount(c, &n);
		tuttiCommUserRank(c, &rank);
	}
	while (r == tuttiSuccess && !stopped) {
		r = one(c, n, rank, rounds, now() > end, &stopped);
		if (r == tuttiSuccess && !rounds++)
			printf("%s after %.2f s\n", word, last_s - began);
	}
	if (r == tuttiSuccess) {
		printf("done %d\n", rounds);
		tuttiCommDestroy(c);
	} else {
		printf("error %d (%s) after %.2f s: %s\n", (int)r, tuttiGetErrorString(r), now() - last_s,
		       tuttiGetLastError(c));
		if (c)
			tuttiCommAbort(c);
	}
	return r;
}

/* ---- queue pairs: the library's table of verbs leads by here ---- */

enum { MAX_QPS = 64 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ibv_qp *qps[MAX_QPS];
static struct tt_vb verbs;

static void replace(const struct ibv_qp *old, struct ibv_qp *with)
{
	for (int i = 0; i < MAX_QPS; i++)
		if (qps[i] == old) {
			qps[i] = with;
			return;
		}
}

static struct ibv_qp *create(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct ibv_qp *qp = verbs.create_qp(pd, a);

	pthread_mutex_lock(&lock);
	replace(NULL, qp);
	pthread_mutex_unlock(&lock);
	return qp;
}

static int destroy(struct ibv_qp *qp)
{
	pthread_mutex_lock(&lock);
	replace(qp, NULL);
	pthread_mutex_unlock(&lock);
	return verbs.destroy_qp(qp);
}

static int cm_create(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	int r = verbs.cm_create_qp(id, pd, a);

	pthread_mutex_lock(&lock);
	if (!r)
		replace(NULL, id->qp);
	pthread_mutex_unlock(&lock);
	return r;
}

static void cm_destroy(struct rdma_cm_id *id)
{
	pthread_mutex_lock(&lock);
	replace(id->qp, NULL);
	pthread_mutex_unlock(&lock);
	verbs.cm_destroy_qp(id);
}

/* As ibv_destroy_qp tells the kernel, but what the library points to stays. */
static int destroy_behind(struct ibv_qp *qp)
{
	struct ib_uverbs_destroy_qp_resp resp;
	struct {
		struct ib_uverbs_cmd_hdr head;
		struct ib_uverbs_destroy_qp what;
	} cmd = { { IB_USER_VERBS_CMD_DESTROY_QP, sizeof(cmd) / 4, sizeof(resp) / 4 },
		  { (uintptr_t)&resp, qp->handle, 0 } };

	return write(qp->context->cmd_fd, &cmd, sizeof(cmd)) == sizeof(cmd) ? 0 : errno;
}

static int stop_qp(struct ibv_qp *qp)
{
	const char *how = getenv("JOB_STOP_HOW");
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_ERR };

	return how && !strcmp(how, "destroyed") ? destroy_behind(qp) : verbs.modify_qp(qp, &a, IBV_QP_STATE);
}

static void *stop_qps(void *file)
{
	while (access(file, F_OK))
		usleep(20000);
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_QPS; i++)
		if (qps[i])
			printf("stopped queue pair %u: %d\n", qps[i]->qp_num, stop_qp(qps[i]));
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void watch_qps(char *file)
{
	struct tt_vb *table = (struct tt_vb *)(uintptr_t)tt_vb(NULL, 0);
	pthread_t thread;

	if (!table)
		return;
	verbs = *table;
	table->create_qp = create;
	table->destroy_qp = destroy;
	table->cm_create_qp = cm_create;
	table->cm_destroy_qp = cm_destroy;
	if (!pthread_create(&thread, NULL, stop_qps, file))
		pthread_detach(thread);
}

static void set_again(void)
{
	char *rest, *text = getenv("JOB_AGAIN");

	for (char *s = text ? strtok_r(text, " ", &rest) : NULL; s; s = strtok_r(NULL, " ", &rest))
		putenv(s);
}

int main(int argc, char **argv)
{
	tuttiResult_t r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	count = (size_t)atol(argv[1]) + 1;
	in = malloc(count * sizeof(*in));
	out = malloc(count * sizeof(*out));
	if (!in || !out)
		return 2;
	if (getenv("JOB_STOP_QP") && *getenv("JOB_STOP_QP"))
		watch_qps(getenv("JOB_STOP_QP"));
	r = work(atof(argv[2]), "going");
	if (argc > 3 && r != tuttiSuccess) {
		while (access(argv[3], F_OK))
			usleep(50000);
		set_again();
		if (work(0.1, "again") == tuttiSuccess)
			return 0;
	}
	return r != tuttiSuccess;
}
