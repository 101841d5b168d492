/* A fake kind of device memory, for paths that no device can reach here. A device address is a mapping that
 * nobody may touch, so that a host access faults; what the device sees is a second mapping of the same pages.
 * Queues are threads, out of step with the caller, and every call that enqueues must come from a thread that is
 * between fake_enter and fake_leave, or the program is aborted. Figures of it are no device's figures.
 * With TEST_DEVICE=cuda the same functions are those of the libcuda.so.1 that is found, tests/cuda/fake_libcuda.c;
 * with TEST_DEVICE=gpu of a real one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_FAKE_H
#define TT_FAKE_H

#include <stdbool.h>

#include "tutti.h"

void fake_start(void);              /* adds the kind */
/* With TEST_DEVICES=n and TEST_DEVICE=cuda rank i works on device i % n from now on, as after cudaSetDevice; with
 * TEST_HOST_RANKS=k every k-th on none. */
struct rank;
void fake_place(struct rank *r);
int fake_live(void);                /* what a driver still holds of memory that is shared; 0 without one */
void fake_use(bool on);             /* the calling thread works on the device: MemAlloc gives its memory */
void *fake_alloc(size_t n);
void fake_free(void *p);
void *fake_view(const void *p);     /* where the test may read and write it; p itself if it is no device's */
tuttiStream_t fake_queue_default(void); /* of this thread, without fake_queue_new */
tuttiStream_t fake_queue_new(void);
void fake_queue_sync(tuttiStream_t queue);
bool fake_queue_wait(tuttiStream_t queue, double seconds); /* false: not empty by then */
void fake_queue_free(tuttiStream_t queue);
void fake_hold(tuttiStream_t queue, const _Atomic int *until_set); /* enqueues a wait of the user's own */
void fake_enter(void);
void fake_leave(void);
/* A call of the API that may enqueue. */
#define FAKE(call) (fake_enter(), fake_left(call))
tuttiResult_t fake_left(tuttiResult_t r);

struct fake_device {
	void (*start)(void);
	void (*place)(int device);
	int (*live)(void);
	void (*use)(bool on);
	void *(*alloc)(size_t n);
	void (*free)(void *p);
	void *(*view)(const void *p);
	tuttiStream_t queue_default;
	tuttiStream_t (*queue_new)(void);
	void (*queue_free)(tuttiStream_t queue);
	bool (*is_idle)(tuttiStream_t queue);
	void (*hold)(tuttiStream_t queue, const _Atomic int *until_set);
	/* Or NULL: a call begins on this thread; its queue is idle. */
	void (*before)(void);
	void (*after)(void);
};
extern const struct fake_device fake_cuda; /* fake_cuda.c */
extern const struct fake_device fake_gpu;  /* gpu.c */

#endif
