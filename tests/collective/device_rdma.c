/* Device memory over RDMA: the network reads and writes the slots themselves, which are registered once and given back
 * before they are freed; an abort lets the queue go and leaves other communicators alone; a queue pair that dies in a
 * call releases every queue, with an error that names it. With TEST_FAR the slots are on the device itself, where NICs
 * and device find what is right for it (tests/vm/suite has the devices): none, wait, read (how what came is flushed),
 * recv (they do not send from there), refused. Runs where TEST_TRANSPORT=verbs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fake.h"
#include "ranks.h"
#include "test.h"
#include "verbs.h"

#if TT_HAVE_VERBS

enum { BIG = 1 << 18, MAX_MRS = 256, MAX_SLOTS = 64, MAX_HELD = 64 };

/* ---- the library's table of verbs leads by here ---- */

static struct {
	pthread_mutex_t lock;
	struct tt_vb real;
	int (*post)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
	struct ibv_mr *mr[MAX_MRS];
	uint64_t slot[MAX_SLOTS]; /* addresses that bytes went from in place */
	_Atomic int made, ended, nslots;
	_Atomic size_t in_place, staged, far; /* bytes that went: from pinned slots, copied, from the device */
	_Atomic int reads, buffers; /* bytes read back; dma-bufs that were tried */
	_Atomic bool begun;
	bool hold;
	struct held { struct ibv_qp *qp; struct ibv_send_wr wr; struct ibv_sge sge; } held[MAX_HELD];
	int nheld;
	int break_at, writes;     /* the queue pair of this write fails behind it; 0: none */
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool is_device(const void *p)
{
	return seen.begun && fake_view(p) != p;
}

static bool is_staging(const struct ibv_mr *mr)
{
	return mr->length == VB_STAGE && !is_device(mr->addr);
}

/* Processes register memory before there is a device. */
static void begin(void)
{
	fake_start();
	seen.begun = true;
}

/* The NIC has the pages of a device, and the host never again. */
static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *p, size_t n, int access)
{
	struct ibv_mr *mr = seen.real.reg_mr(pd, p, n, access);

	if (mr && is_device(p) && mprotect(p, n, PROT_NONE))
		return NULL;

	pthread_mutex_lock(&seen.lock);
	for (int i = 0; mr && i < MAX_MRS; i++)
		if (!seen.mr[i]) {
			seen.mr[i] = mr;
			break;
		}
	seen.made += mr != NULL;
	pthread_mutex_unlock(&seen.lock);
	return mr;
}

/* Its memory must still be there. */
static int dereg_mr(struct ibv_mr *mr)
{
	if (!is_device(mr->addr))
		(void)*(volatile char *)mr->addr;
	pthread_mutex_lock(&seen.lock);
	for (int i = 0; i < MAX_MRS; i++)
		if (seen.mr[i] == mr)
			seen.mr[i] = NULL;
	seen.ended++;
	pthread_mutex_unlock(&seen.lock);
	return seen.real.dereg_mr(mr);
}

/* As if the driver took dma-bufs: what becomes of the first that it is given is its own to say. */
static struct ibv_mr *reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t n, uint64_t iova, int fd, int access)
{
	if (fd >= 0) {
		seen.buffers++;
		return seen.real.reg_dmabuf_mr(pd, offset, n, iova, fd, access);
	}
	errno = EBADF;
	return NULL;
}

static void count_slot(uint64_t addr)
{
	int i = 0;

	while (i < seen.nslots && seen.slot[i] != addr)
		i++;
	if (i == seen.nslots && i < MAX_SLOTS)
		seen.slot[seen.nslots++] = addr;
}

/* Under the lock. */
static void count_write(const struct ibv_sge *s)
{
	for (int i = 0; i < MAX_MRS; i++) {
		const struct ibv_mr *mr = seen.mr[i];

		if (!mr || mr->lkey != s->lkey)
			continue;
		*(is_staging(mr) ? &seen.staged : is_device(mr->addr) ? &seen.far : &seen.in_place) += s->length;
		if (!is_staging(mr))
			count_slot(s->addr);
		return;
	}
}

/* Under the lock. True: it goes later. */
static bool keep_read(struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
	struct held *h = &seen.held[seen.nheld];

	seen.reads++;
	if (!seen.hold || seen.nheld == MAX_HELD)
		return false;
	*h = (struct held){ qp, *wr, wr->sg_list[0] };
	h->wr.sg_list = &h->sge;
	seen.nheld++;
	return true;
}

static void let_reads_go(void)
{
	struct ibv_send_wr *bad;

	pthread_mutex_lock(&seen.lock);
	for (int i = 0; i < seen.nheld; i++)
		(void)seen.post(seen.held[i].qp, &seen.held[i].wr, &bad);
	seen.hold = false;
	pthread_mutex_unlock(&seen.lock);
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct ibv_qp_attr error = { .qp_state = IBV_QPS_ERR };
	bool breaks = false, kept = false;
	int r;

	pthread_mutex_lock(&seen.lock);
	if (wr->opcode == IBV_WR_RDMA_READ)
		kept = keep_read(qp, wr);
	if (wr->opcode == IBV_WR_RDMA_WRITE || wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
		count_write(wr->sg_list);
		breaks = ++seen.writes == seen.break_at;
	}
	pthread_mutex_unlock(&seen.lock);
	if (kept)
		return 0;
	r = seen.post(qp, wr, bad);
	if (breaks)
		(void)seen.real.modify_qp(qp, &error, IBV_QP_STATE);
	return r;
}

static void lead(struct ibv_qp *qp)
{
	if (qp->context->ops.post_send == post_send)
		return;
	seen.post = qp->context->ops.post_send;
	qp->context->ops.post_send = post_send;
}

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct ibv_qp *qp = seen.real.create_qp(pd, a);

	if (qp)
		lead(qp);
	return qp;
}

static int cm_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	int r = seen.real.cm_create_qp(id, pd, a);

	if (!r)
		lead(id->qp);
	return r;
}

static bool is_far(const char *way)
{
	const char *far = getenv("TEST_FAR");

	return far && (!way || !strcmp(far, way));
}

/* Before the processes are made, as the first of them begins early. */
static void watch(void)
{
	struct tt_vb *table = (struct tt_vb *)(uintptr_t)tt_vb(NULL, 0);

	CHECKF(table, "no RDMA library");
	if (seen.real.reg_mr)
		return;
	seen.real = *table;
	table->reg_mr = reg_mr;
	table->dereg_mr = dereg_mr;
	if (seen.real.reg_dmabuf_mr && is_far("refused"))
		table->reg_dmabuf_mr = reg_dmabuf_mr;
	table->create_qp = create_qp;
	table->cm_create_qp = cm_create_qp;
}

/* No byte has ever been in it. */
static bool staging_is_clean(void)
{
	bool clean = true;

	pthread_mutex_lock(&seen.lock);
	for (int i = 0; i < MAX_MRS && clean; i++)
		for (size_t k = 0; seen.mr[i] && is_staging(seen.mr[i]) && clean && k < VB_STAGE; k += sizeof(uint64_t))
			clean = !*(const uint64_t *)((const char *)seen.mr[i]->addr + k);
	pthread_mutex_unlock(&seen.lock);
	return clean;
}

/* ---- calls ---- */

struct vec {
	float *at, *view;
	tuttiStream_t queue;
};

static struct vec vec_new(size_t n)
{
	struct vec v = { .at = fake_alloc(n * sizeof(float)), .queue = fake_queue_new() };

	v.view = fake_view(v.at);
	return v;
}

static void vec_free(struct vec v)
{
	fake_queue_free(v.queue);
	fake_free(v.at);
}

static void sum(struct rank *r, struct vec v, size_t n)
{
	int times = r->n, all = r->n * (r->n - 1) / 2;

	for (size_t i = 0; i < n; i++)
		v.view[i] = (float)(r->rank + (int)(i % 13) + 1);
	RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, n, tuttiFloat32, tuttiSum, r->comm, v.queue)));
	fake_queue_sync(v.queue);
	for (size_t i = 0; i < n; i++)
		RANK_CHECKF(r, v.view[i] == (float)(all + times * ((int)(i % 13) + 1)), "element %zu is %g", i,
			    (double)v.view[i]);
}

static void slots_rank(struct rank *r)
{
	struct vec v;
	bool kept = false;

	begin();
	RANK_OK(r, rank_init(r, NULL));
	v = vec_new(2 * BIG);
	sum(r, v, BIG);
	RANK_OK(r, tuttiBarrier(r->comm, NULL)); /* what others wait for has gone */
	RANK_CHECKF(r, seen.in_place >= BIG * sizeof(float) / 2 && !seen.staged, "%zu bytes from slots, %zu copied",
		    seen.in_place, seen.staged);
	RANK_CHECKF(r, staging_is_clean(), "bytes came by way of staging");
	RANK_CHECKF(r, seen.nslots >= 4, "%d slots", seen.nslots);
	for (int i = 0; i < 5; i++) { /* a run may not be over yet, and another takes its place */
		int made = seen.made;

		sum(r, v, BIG / 4);
		kept |= seen.made == made;
	}
	RANK_CHECKF(r, kept, "each call has a registration of its own");
	sum(r, v, 2 * BIG);
	RANK_CHECKF(r, !seen.staged && staging_is_clean(), "a larger call was copied");
	vec_free(v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
	RANK_CHECKF(r, seen.made == seen.ended, "%d registrations, %d ended", seen.made, seen.ended);
}

static int flushes(void)
{
	void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	int (*count)(void);
	void *p = so ? dlsym(so, "cuFakeFlushes") : NULL;

	memcpy(&count, &p, sizeof(p));
	return p ? count() : 0;
}

/* The first call goes through pinned memory, as its links are new; the others never. */
static void far_rank(struct rank *r)
{
	size_t pinned, most = BIG * sizeof(float) / 2;
	bool refused = is_far("refused"), sends = !refused && !is_far("recv");
	struct vec v;

	begin();
	RANK_OK(r, rank_init(r, NULL));
	v = vec_new(2 * BIG);
	sum(r, v, BIG);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	pinned = seen.in_place;
	RANK_CHECKF(r, pinned >= most && !seen.far, "%zu bytes from the device in the first call", seen.far);
	for (int i = 0; i < 4; i++)
		sum(r, v, BIG + (size_t)(i % 2) * 13);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	RANK_CHECKF(r, (seen.far >= 4 * most) == sends && (seen.in_place == pinned) == sends,
		    "%zu bytes from the device, %zu and %zu from pinned memory, %zu copied", seen.far, pinned,
		    seen.in_place, seen.staged);
	RANK_CHECKF(r, !seen.staged && staging_is_clean(), "%zu bytes were copied", seen.staged);
	RANK_CHECKF(r, (seen.reads > 0) == (is_far("read") || is_far("recv")), "%d reads", seen.reads);
	RANK_CHECKF(r, (flushes() > 0) == is_far("wait"), "%d flushes", flushes());
	RANK_CHECKF(r, seen.buffers <= 1, "a dma-buf was refused, and then %d more", seen.buffers - 1);
	vec_free(v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
	RANK_CHECKF(r, seen.made == seen.ended, "%d registrations, %d ended", seen.made, seen.ended);
}

/* Nobody goes on with what has come before the NIC has read of it. */
static void held_rank(struct rank *r)
{
	struct vec v;

	begin();
	RANK_OK(r, rank_init(r, NULL));
	v = vec_new(BIG);
	sum(r, v, BIG);
	sum(r, v, BIG);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	pthread_mutex_lock(&seen.lock);
	seen.hold = true;
	pthread_mutex_unlock(&seen.lock);
	for (size_t i = 0; i < BIG; i++)
		v.view[i] = 1;
	RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, BIG, tuttiFloat32, tuttiSum, r->comm, v.queue)));
	RANK_CHECKF(r, !fake_queue_wait(v.queue, 0.5), "it came back before the reads");
	RANK_CHECKF(r, seen.nheld, "no reads");
	let_reads_go();
	fake_queue_sync(v.queue);
	for (size_t i = 0; i < BIG; i++)
		RANK_CHECKF(r, v.view[i] == (float)r->n, "element %zu is %g", i, (double)v.view[i]);
	vec_free(v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

/* Rank 0 is alone in a call; the others abort after it, as a second communicator of the same connections tells. */
static void abort_rank(struct rank *r)
{
	tuttiComm_t other;
	struct vec v;

	begin();
	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &other, NULL));
	v = vec_new(BIG);
	sum(r, v, BIG);
	if (r->rank == 0) {
		RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, BIG, tuttiFloat32, tuttiSum, r->comm, v.queue)));
		RANK_CHECKF(r, !fake_queue_wait(v.queue, 0.5), "it came back alone");
		RANK_OK(r, tuttiCommAbort(r->comm));
		RANK_CHECKF(r, fake_queue_wait(v.queue, 30), "the queue still waits");
		RANK_OK(r, tuttiBarrier(other, NULL));
	} else {
		RANK_OK(r, tuttiBarrier(other, NULL));
		tuttiCommAbort(r->comm);
	}
	r->comm = other;
	sum(r, v, BIG);
	sum(r, v, 10);
	vec_free(v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

/* Many calls are on the queues when rank 0's queue pair fails. */
static void broken_rank(struct rank *r)
{
	tuttiResult_t state = tuttiSuccess, sent = tuttiSuccess;
	struct vec v;

	begin();
	RANK_OK(r, rank_init(r, NULL));
	v = vec_new(BIG);
	sum(r, v, BIG);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	if (r->rank == 0) {
		pthread_mutex_lock(&seen.lock);
		seen.break_at = seen.writes + 7;
		pthread_mutex_unlock(&seen.lock);
	}
	for (int i = 0; i < 4 && sent == tuttiSuccess; i++)
		sent = FAKE(tuttiAllReduce(v.at, v.at, BIG, tuttiFloat32, tuttiMax, r->comm, v.queue));
	RANK_CHECKF(r, fake_queue_wait(v.queue, 60), "the queue still waits");
	while (state == tuttiSuccess)
		RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
	RANK_CHECKF(r, r->rank || strstr(tuttiGetLastError(r->comm), "queue pair"), "%s: %s",
		    tuttiGetErrorString(state), tuttiGetLastError(r->comm));
	RANK_CHECKF(r, FAKE(tuttiAllReduce(v.at, v.at, 5, tuttiFloat32, tuttiMax, r->comm, v.queue)) == state,
		    "the next call");
	tuttiCommAbort(r->comm);
	vec_free(v);
}

/* RDMA devices are not everywhere, so verbs has to be asked for. */
static void over_verbs(int n, rank_fn fn)
{
	static struct procs ps;

	if (!test_transport() || strcmp(test_transport(), "verbs") != 0) {
		fprintf(stderr, "skipped: TEST_TRANSPORT is not verbs\n");
		return;
	}
	watch();
	procs_start(&ps, n, 0, "verbs", fn, NULL);
	procs_wait(&ps, 40);
	procs_expect(&ps, 1, -1);
}

static void slots(void)
{
	for (int n = 2; n < 4; n++)
		over_verbs(n, slots_rank);
}

static void far_slots(void)
{
	for (int n = 2; n < 4 && is_far(NULL); n++)
		over_verbs(n, far_rank);
}

static void held_reads(void)
{
	if (is_far("read"))
		over_verbs(3, held_rank);
}

static void abort_stuck(void)
{
	for (int n = 2; n < 4; n++)
		over_verbs(n, abort_rank);
}

static void broken(void)
{
	for (int n = 2; n < 4; n++)
		over_verbs(n, broken_rank);
}

const struct test tests[] = {
	{ "slots are read and written by RDMA", slots, 120 },
	{ "slots on the device", far_slots, 120 },
	{ "a receive waits for the NIC's read", held_reads, 120 },
	{ "abort of a stuck call over RDMA", abort_stuck, 120 },
	{ "a queue pair that dies in a call", broken, 120 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
#else
const struct test tests[] = { { NULL, NULL, 0 } };
const int ntests = 0;
#endif
