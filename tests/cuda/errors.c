/* The CUDA kind over a fake driver: no driver, or one that is no use; memory of all sorts; what is refused, and in
 * which words. Run by errors.sh, which lets the fake be found. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_code.h"
#include "fake.h"
#include "ranks.h"
#include "test.h"

static struct {
	int (*init)(unsigned flags);
	int (*retain)(void **ctx, int device);
	int (*set)(void *ctx);
	int (*alloc)(void **p, size_t n);
	int (*managed)(void **p, size_t n, unsigned flags);
	int (*host_alloc)(void **p, size_t n, unsigned flags);
	int (*stream_create)(void **stream, unsigned flags);
} cuda;

/* As a program that is linked with the driver. */
static void load_driver(void)
{
	const struct tt_symbol rows[] = {
		{ &cuda.init, "cuInit" }, { &cuda.retain, "cuDevicePrimaryCtxRetain" },
		{ &cuda.set, "cuCtxSetCurrent" }, { &cuda.alloc, "cuMemAlloc_v2" },
		{ &cuda.managed, "cuMemAllocManaged" }, { &cuda.host_alloc, "cuMemHostAlloc" },
		{ &cuda.stream_create, "cuStreamCreate" },
	};
	void *so = dlopen("libcuda.so.1", RTLD_NOW);

	CHECKF(so, "%s: run by tests/cuda/errors.sh", dlerror());
	CHECK(!tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0])));
}

static bool is_loaded(void)
{
	void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);

	if (so)
		dlclose(so);
	return so != NULL;
}

/* ---- drivers that are no use ---- */

static void host_works(void)
{
	tuttiComm_t c[2];
	float x[2] = { 1, 2 };
	void *p;

	CHECK(tuttiCommInitAll(c, 2, NULL) == tuttiSuccess);
	CHECK(tuttiGroupStart() == tuttiSuccess);
	for (int i = 0; i < 2; i++)
		CHECK(tuttiAllReduce(&x[i], &x[i], 1, tuttiFloat32, tuttiSum, c[i], NULL) == tuttiSuccess);
	CHECK(tuttiGroupEnd() == tuttiSuccess && x[0] == 3 && x[1] == 3);
	CHECK(tuttiMemAlloc(&p, 10) == tuttiSuccess);
	memset(p, 0, 10);
	CHECK(tuttiMemFree(p) == tuttiSuccess);
	for (int i = 0; i < 2; i++)
		CHECK(tuttiCommDestroy(c[i]) == tuttiSuccess);
}

/* What goes to stderr while fn runs. */
static void said(void (*fn)(void), char *out, size_t n)
{
	int fd = memfd_create("stderr", MFD_CLOEXEC), old = dup(STDERR_FILENO);
	ssize_t len;

	CHECK(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	fn();
	dup2(old, STDERR_FILENO);
	len = pread(fd, out, n - 1, 0);
	CHECK(len >= 0);
	out[len] = 0;
}

static int times(const char *text, const char *word)
{
	int n = 0;

	for (const char *p = strstr(text, word); p; p = strstr(p + 1, word))
		n++;
	return n;
}

static void off(const char *name, const char *value, const char *why, const char *what_to_do)
{
	char text[4096];

	setenv(name, value, 1);
	setenv("TUTTI_LOG", "cuda:info", 1);
	load_driver();
	said(host_works, text, sizeof(text));
	CHECKF(times(text, "CUDA is off: ") == 1, "not one line: %s", text);
	CHECKF(strstr(text, why) && strstr(text, what_to_do), "%s", text);
	CHECK(!strcmp(strstr(text, "CUDA is off: ") + strlen("CUDA is off: ") + strlen(tt_cuda_why()), "\n"));
}

static void stub(void)
{
	off("FAKE_CUDA_STUB", "1", "libcuda.so.1 is the stub of the CUDA toolkit", "out of LD_LIBRARY_PATH");
}

static void old(void)
{
	off("FAKE_CUDA_VERSION", "11040", "the driver knows CUDA 11.4, tutti needs 11.8", "install driver 520");
}

static void hidden(void)
{
	off("FAKE_CUDA_INIT", "100", "CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device", "CUDA_VISIBLE_DEVICES");
}

static void no_fabric(void)
{
	off("FAKE_CUDA_INIT", "802", "cuInit: ", "nvidia-fabricmanager");
}

static void no_device(void)
{
	off("FAKE_CUDA_DEVICES", "0", "the driver has no device", "nvidia-smi");
}

static void in_part(void)
{
	off("FAKE_CUDA_MISSING", "cuStreamWriteValue32", "has no cuStreamWriteValue32", "install a driver");
}

/* Whoever uses no CUDA does not load it, though it is there. */
static void not_used(void)
{
	host_works();
	CHECK(!is_loaded());
	CHECK(strstr(tt_cuda_why(), "has not loaded libcuda.so.1"));
}

static void in_child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		fn();
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

static void works_and_says_why(void)
{
	host_works();
	CHECK(strstr(tt_cuda_why(), "used before this process forked"));
}

static void gives_host_memory(void)
{
	void *p;

	CHECK(tuttiMemAlloc(&p, 10) == tuttiSuccess);
	memset(p, 0, 10);
	CHECK(tuttiMemFree(p) == tuttiSuccess);
}

/* CUDA stays with the parent; what the host does goes on in the child. */
static void after_fork(void)
{
	fake_start();
	in_child(works_and_says_why);
	host_works();
	fake_use(true); /* memory of the device, in the parent */
	in_child(gives_host_memory);
}

/* That the tests would notice. */
static void noticed(void)
{
	int status;
	pid_t pid;

	fake_start();
	load_driver();
	pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		prctl(PR_SET_NAME, "tutti-progress");
		cuda.init(0);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* ---- memory ---- */

enum { N = 5000 };

static void on_device(int device)
{
	void *ctx;

	CHECK(!cuda.retain(&ctx, device) && !cuda.set(ctx));
}

static void *sort(const char *what)
{
	void *p = NULL;
	int e = 0;

	if (!strcmp(what, "managed"))
		e = cuda.managed(&p, N * sizeof(float), 1);
	else if (!strcmp(what, "pinned"))
		e = cuda.host_alloc(&p, N * sizeof(float), 0);
	else if (!strcmp(what, "pageable"))
		p = malloc(N * sizeof(float));
	else
		p = fake_alloc(N * sizeof(float));
	CHECKF(!e && p, "%s", what);
	return p;
}

static void sum_of(struct rank *r, float *in, float *out, tuttiStream_t q, const char *what)
{
	float *x = fake_view(in), *y = fake_view(out);

	for (int i = 0; i < N; i++)
		x[i] = (float)(i + r->rank);
	RANK_OK(r, FAKE(tuttiAllReduce(in, out, N, tuttiFloat32, tuttiSum, r->comm, q)));
	fake_queue_sync(q);
	for (int i = 0; i < N; i++)
		RANK_CHECKF(r, y[i] == (float)(r->n * i + r->n * (r->n - 1) / 2), "%s: element %d is %g", what, i,
			    (double)y[i]);
}

static void pass_on(struct rank *r, float *out, float *in, tuttiStream_t q, const char *what)
{
	int next = (r->rank + 1) % r->n, last = (r->rank + r->n - 1) % r->n;
	float *x = fake_view(out), *y = fake_view(in);

	for (int i = 0; i < N; i++)
		x[i] = (float)(i + r->rank);
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiRecv(in, N, tuttiFloat32, last, r->comm, q));
	RANK_OK(r, tuttiSend(out, N, tuttiFloat32, next, r->comm, q));
	RANK_OK(r, FAKE(tuttiGroupEnd()));
	fake_queue_sync(q);
	for (int i = 0; i < N; i++)
		RANK_CHECKF(r, y[i] == (float)(i + last), "message from %s: element %d is %g", what, i, (double)y[i]);
}

/* Every sort of memory as either buffer, on a stream of the device. */
static void sorts_rank(struct rank *r)
{
	static const char *const names[] = { "device", "managed", "pinned", "pageable" };
	tuttiStream_t q = fake_queue_new();
	float *in[4], *out[4];

	on_device(0);
	for (int i = 0; i < 4; i++) {
		in[i] = sort(names[i]);
		out[i] = sort(names[i]);
	}
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 4; k++) {
			r->step = 10 * i + k;
			sum_of(r, in[i], out[k], q, names[i]);
			pass_on(r, in[i], out[k], q, names[i]);
		}
	for (int i = 0; i < 4; i++)
		sum_of(r, in[i], in[i], q, names[i]);
	fake_queue_free(q);
}

static void sorts(void)
{
	fake_start();
	load_driver();
	for (int n = 1; n < 5; n++)
		ranks_run(n, 30, sorts_rank, NULL);
}

/* CUDA begins after the communicator is there. */
static void late_rank(struct rank *r)
{
	float x = (float)r->rank;

	RANK_OK(r, tuttiAllReduce(&x, &x, 1, tuttiFloat32, tuttiSum, r->comm, NULL));
	fake_start();
	sum_of(r, fake_alloc(N * sizeof(float)), fake_alloc(N * sizeof(float)), fake_queue_new(), "device");
}

static void late(void)
{
	CHECK(!is_loaded());
	ranks_run(2, 20, late_rank, NULL);
}

/* The default streams mean those of the buffers' device, whatever device is current. */
static void default_streams_rank(struct rank *r)
{
	float *in, *out;

	for (int device = 0; device < 2; device++)
		for (uintptr_t q = 0; q < 3; q++) {
			on_device(0);
			in = sort("device");
			out = sort("device");
			on_device(device);
			RANK_OK(r, FAKE(tuttiAllReduce(in, out, N, tuttiFloat32, tuttiSum, r->comm,
						       (tuttiStream_t)q)));
			RANK_OK(r, FAKE(tuttiBarrier(r->comm, (tuttiStream_t)2)));
		}
}

static void default_streams(void)
{
	setenv("FAKE_CUDA_DEVICES", "2", 1);
	fake_start();
	load_driver();
	ranks_run(1, 20, default_streams_rank, NULL);
}

/* ---- what is refused, in words; the communicator works on ---- */

static void refused(struct rank *r, tuttiResult_t got, tuttiResult_t want, const char *a, const char *b)
{
	const char *text = tuttiGetLastError(NULL);

	RANK_CHECKF(r, got == want && strstr(text, a) && strstr(text, b), "%s: %s", tuttiGetErrorString(got), text);
}

static tuttiResult_t sum(struct rank *r, const void *in, void *out, tuttiStream_t q)
{
	return FAKE(tuttiAllReduce(in, out, N, tuttiFloat32, tuttiSum, r->comm, q));
}

static void devices_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = sort("device"), *y = sort("device");
	void *far, *near, *there;

	on_device(1);
	CHECK(!cuda.alloc(&far, N * sizeof(float)) && !cuda.alloc(&near, N * sizeof(float)));
	CHECK(!cuda.stream_create(&there, 1));
	refused(r, sum(r, x, far, q), tuttiInvalidArgument, "sendbuff is on device 0", "recvbuff on device 1");
	refused(r, sum(r, far, near, q), tuttiInvalidArgument, "buffers are on device 1", "stream on device 0");
	refused(r, sum(r, x, y, there), tuttiInvalidArgument, "buffers are on device 0", "stream on device 1");
	sum_of(r, x, y, q, "after it");
	sum_of(r, far, near, there, "there");
	fake_free(x);
	refused(r, sum(r, x, y, q), tuttiInvalidArgument, "sendbuff", "it was freed");
	refused(r, sum(r, y, x, NULL), tuttiInvalidArgument, "recvbuff", "it was freed");
	sum_of(r, y, y, q, "after it");
	fake_queue_free(q);
}

static void devices(void)
{
	setenv("FAKE_CUDA_DEVICES", "2", 1);
	fake_start();
	load_driver();
	ranks_run(2, 20, devices_rank, NULL);
}

/* No room for what an operation needs besides; then there is. */
static void memory_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = sort("device"), *y = sort("device"), host = 1;
	void *p;

	on_device(0);
	refused(r, tuttiMemAlloc(&p, 1 << 30), tuttiSystemError, "no 1073741824 bytes on device 0",
		"CUDA_ERROR_OUT_OF_MEMORY (2): out of memory");
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	setenv("FAKE_CUDA_MEMORY", "4096", 1);
	if (tt_cuda_code_has(tuttiFloat32)) /* else the reduction is the host's */
		refused(r, sum(r, x, x, q), tuttiSystemError, "bytes on device 0", "out of memory");
	RANK_OK(r, tuttiAllReduce(&host, &host, 1, tuttiFloat32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, host == (float)r->n, "%g", (double)host);
	setenv("FAKE_CUDA_MEMORY", "400000000", 1);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	sum_of(r, x, y, q, "after it");
	fake_queue_free(q);
}

static void memory(void)
{
	setenv("FAKE_CUDA_MEMORY", "400000000", 1);
	setenv("TUTTI_ONE_KERNEL", "0", 1);
	fake_start();
	load_driver();
	ranks_run(2, 20, memory_rank, NULL);
}

/* Ranks as threads on stream NULL, which is one stream: the second is told, and abort lets the first go. */
static void shared_rank(struct rank *r)
{
	static _Atomic int good, told;
	float *x = sort("device"), *y = sort("device");
	tuttiResult_t res = sum(r, x, y, NULL);

	if (res != tuttiSuccess)
		refused(r, res, tuttiInvalidUsage, "has a call on the same stream", "a stream of its own");
	atomic_fetch_add(res == tuttiSuccess ? &good : &told, 1);
	while (atomic_load(&good) + atomic_load(&told) < r->n)
		sleep_s(0.01);
	RANK_CHECKF(r, atomic_load(&good) == 1, "%d of %d were let in", atomic_load(&good), r->n);
	tuttiCommAbort(r->comm);
	r->comm = NULL;
	RANK_CHECKF(r, fake_queue_wait(NULL, 5), "the stream still waits");
}

static void shared(void)
{
	fake_start();
	setenv("TUTTI_ONE_KERNEL", "0", 1);
	load_driver();
	setenv("TUTTI_LOG", "none", 1);
	ranks_run(3, 20, shared_rank, NULL);
}

/* Abort comes back though the stream is busy with something else, which only the caller can end; it waits a moment for
 * that, once for all calls. */
static void held_rank(struct rank *r)
{
	enum { CALLS = 60 };
	static _Atomic int go, in;
	tuttiStream_t q = fake_queue_new();
	float *x = sort("device"), *y = sort("device");

	fake_hold(q, &go);
	for (int i = 0; i < CALLS; i++)
		RANK_OK(r, sum(r, x, y, q));
	atomic_fetch_add(&in, 1);
	while (atomic_load(&in) < r->n) /* a call after the other's abort is refused */
		sleep_s(0.001);
	RANK_OK(r, tuttiCommAbort(r->comm));
	r->comm = NULL;
	RANK_CHECKF(r, !fake_queue_wait(q, 0) || atomic_load(&go), "nothing held the stream");
	atomic_store(&go, 1);
	RANK_CHECKF(r, fake_queue_wait(q, 5), "the stream still waits");
	fake_queue_free(q);
}

static void held(void)
{
	fake_start();
	setenv("TUTTI_LOG", "none", 1);
	setenv("TUTTI_ONE_KERNEL", "0", 1);
	ranks_run(2, 20, held_rank, NULL);
}

const struct test tests[] = {
	{ "the stub of the toolkit", stub, 20 },
	{ "a driver that is too old", old, 20 },
	{ "hidden devices", hidden, 20 },
	{ "no fabric manager", no_fabric, 20 },
	{ "no device", no_device, 20 },
	{ "a driver without a function", in_part, 20 },
	{ "CUDA that is not used", not_used, 20 },
	{ "after a fork", after_fork, 20 },
	{ "a call from a thread of the library", noticed, 20 },
	{ "device, managed, pinned, pageable", sorts, 60 },
	{ "CUDA after the communicator", late, 30 },
	{ "default streams", default_streams, 30 },
	{ "other devices, freed memory", devices, 30 },
	{ "out of device memory", memory, 30 },
	{ "abort while a stream is held", held, 30 },
	{ "ranks on one stream", shared, 30 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
