/* Work beside the calls, for what they take from it: kernels of multiply-adds on a stream of their own, one after the
 * other, as a matrix product would be. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "gpu.h"
#include "gpu_kernels.h"
#include "perf_common.h"

enum { TURNS = 1000, BLOCKS_EACH = 4, THREADS = 256, AHEAD = 4 };

static struct {
	pthread_t thread;
	_Atomic bool stop;
	_Atomic uint32_t *_Atomic done; /* pinned: how many have ended */
	int device;
	double alone;          /* kernels a second */
	double us;             /* while calls ran */
	uint32_t counted, before;
	double since;
	bool on;
} load;

static void must(int e, const char *what)
{
	if (e)
		perf_die("--load: %s: %s", what, gpu_words(e));
}

static uint32_t ended(void)
{
	_Atomic uint32_t *word = atomic_load(&load.done);

	return word ? atomic_load(word) : 0;
}

/* A few are enqueued ahead, so that the device never waits for this thread. */
static void *work(void *arg)
{
	void *fn, *stream, *word = NULL;
	struct gpu_fma_args args = { NULL, TURNS };
	int sms = 1;

	must(gpu_use(load.device), "cuDevicePrimaryCtxRetain");
	must(gpu_kernel("gpu_fma", &fn), "its kernel");
	must(GPU(cuDeviceGetAttribute, &sms, GPU_SMS, load.device), "cuDeviceGetAttribute");
	must(GPU(cuStreamCreate, &stream, GPU_NON_BLOCKING), "cuStreamCreate");
	must(GPU(cuMemHostAlloc, &word, 4096, GPU_PORTABLE | GPU_DEVICEMAP), "cuMemHostAlloc");
	*(_Atomic uint32_t *)word = 0;
	atomic_store(&load.done, word);
	for (uint32_t n = 1; !atomic_load(&load.stop); n++) {
		while (n > AHEAD && ended() < n - AHEAD)
			usleep(20);
		must(gpu_launch(fn, (unsigned)(sms * BLOCKS_EACH), THREADS, stream, &args), "cuLaunchKernel");
		must(GPU(cuStreamWriteValue32, stream, (gpu_ptr)word, n, 0), "cuStreamWriteValue32");
	}
	must(GPU(cuStreamSynchronize, stream), "cuStreamSynchronize");
	return NULL;
}

void perf_load_start(int device)
{
	uint32_t before;

	load.device = device;
	load.on = true;
	if (pthread_create(&load.thread, NULL, work, NULL))
		perf_die("--load: no thread");
	while (!ended()) /* its first launch is over */
		usleep(1000);
	before = ended();
	load.since = gpu_now_us();
	usleep(1000000);
	load.alone = (double)(ended() - before) / (gpu_now_us() - load.since) * 1e6;
}

void perf_load_begin(void)
{
	load.before = ended();
	load.since = gpu_now_us();
}

void perf_load_end(void)
{
	load.us += gpu_now_us() - load.since;
	load.counted += ended() - load.before;
}

void perf_load_stop(void)
{
	double beside = load.us > 0 ? (double)load.counted / load.us * 1e6 : 0;

	if (!load.on)
		return;
	atomic_store(&load.stop, true);
	pthread_join(load.thread, NULL);
	printf("# Load beside           : %.4g kernels/s alone, %.4g beside the calls, %.1f %%\n", load.alone, beside,
	       load.alone > 0 ? 100 * beside / load.alone : 0);
}
