/* A thread of the user's that launches something new now and then, FAKE_CUDA_LOADS=ms: the driver loads its code, which
 * waits until all streams of the context are empty, and until then every other call on that context waits as well
 * (here so many ms at most, as what a stream waits for may be such a call); what only asks, or changes a thread's
 * context, does not. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fake_libcuda.h"

static struct {
	_Atomic bool loading[MAX_DEVICES];
} fake;

static void load(int device, long ms)
{
	atomic_store(&fake.loading[device], true);
	for (long i = 0; i < 20 * ms && is_busy(device); i++)
		usleep(50);
	atomic_store(&fake.loading[device], false);
}

static void *work(void *ms)
{
	for (unsigned n = 0;; n++) {
		usleep(300 + n % 7 * 400);
		load((int)(n % (unsigned)setting("FAKE_CUDA_DEVICES", 1)), (long)ms);
	}
	return NULL;
}

void start_loads(void)
{
	long ms = setting("FAKE_CUDA_LOADS", 0);
	pthread_t thread;

	if (!ms)
		return;
	if (pthread_create(&thread, NULL, work, (void *)ms) || pthread_detach(thread))
		wrong("no thread");
}

void wait_for_load(int device)
{
	while (atomic_load(&fake.loading[device]))
		usleep(50);
}
