/* The kernel whose blocks run schedules: loaded once a process, for ranks of one device launched as a
 * cooperative grid, the only kind whose blocks CUDA promises to run together. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_dev.h"

#include <stdio.h>

enum { TOO_LARGE = 720, NOT_SUPPORTED = 801 };

static struct {
	const struct tt_cuda *f;
	void *kernel; /* NULL: there is none, for the reason in words */
	char words[TT_TEXT / 2];
} dev;

void tt_cuda_dev_open(const struct tt_cuda *f)
{
	char words[TT_TEXT / 4];
	void *lib = NULL;
	int e;

	dev.f = f;
	if (!tt_dev_image_size) {
		snprintf(dev.words, sizeof(dev.words), "built without kernels, as there was no nvcc");
		return;
	}
	if (!f->cuLibraryLoadData || !f->cuLibraryGetKernel || !f->cuLaunchCooperativeKernel ||
	    !f->cuOccupancyMaxActiveBlocksPerMultiprocessor) {
		snprintf(dev.words, sizeof(dev.words), "the driver is older than CUDA 12.0");
		return;
	}
	e = f->cuLibraryLoadData(&lib, tt_dev_image, NULL, NULL, 0, NULL, NULL, 0);
	if (!e)
		e = f->cuLibraryGetKernel(&dev.kernel, lib, "tt_dev_run");
	if (e)
		snprintf(dev.words, sizeof(dev.words), "the kernel cannot be loaded: %s",
			 tt_cuda_words(e, words, sizeof(words)));
}

void tt_cuda_dev_load(int device)
{
	char words[TT_TEXT / 4];
	int e = dev.kernel ? tt_cuda_load(dev.kernel) : 0;

	if (e)
		tt_log(TT_LOG_WARN, "cuda", "the kernel of the device-driven path cannot be loaded on device %d: %s",
		       device, tt_cuda_words(e, words, sizeof(words)));
}

static int room_of(int sms, uint32_t *room)
{
	int each = 0, e = dev.f->cuOccupancyMaxActiveBlocksPerMultiprocessor(&each, dev.kernel, TT_DEV_THREADS, 0);

	*room = (uint32_t)(each * sms);
	return e;
}

uint32_t tt_cuda_dev_room(int device)
{
	uint32_t room = 0;
	int sms = 0;

	if (!dev.kernel || dev.f->cuDeviceGetAttribute(&sms, TT_CUDA_ATTR_SMS, device) || room_of(sms, &room))
		return 0;
	return room;
}

/* One rank's blocks wait for those of other devices: an ordinary kernel will do, as there is room for all. */
static int launch_blocks(tuttiStream_t queue, const struct tt_dev_launch *launch, uint32_t blocks)
{
	void *args[] = { (void *)launch };

	if (launch->nranks == 1)
		return dev.f->cuLaunchKernel(dev.kernel, blocks, 1, 1, TT_DEV_THREADS, 1, 1, 0, queue, args, NULL);
	return dev.f->cuLaunchCooperativeKernel(dev.kernel, blocks, 1, 1, TT_DEV_THREADS, 1, 1, 0, queue, args);
}

tuttiResult_t tt_cuda_dev_run(tuttiStream_t queue, int sms, const struct tt_dev_launch *launch, uint32_t blocks)
{
	char words[TT_TEXT / 4];
	uint32_t room;
	int e;

	if (!dev.kernel)
		return tt_note_error(tuttiUnsupported, "no device-driven path: %s", dev.words);
	e = room_of(sms, &room);
	if (!e && blocks > room)
		return tt_note_error(tuttiUnsupported, "%u blocks, and the device runs %u at a time", blocks, room);
	if (!e)
		e = launch_blocks(queue, launch, blocks);
	if (e == TOO_LARGE || e == NOT_SUPPORTED)
		return tt_note_error(tuttiUnsupported, "blocks cannot be launched: %s",
				     tt_cuda_words(e, words, sizeof(words)));
	return !e ? tuttiSuccess : tt_fail(tuttiUnhandledCudaError, "blocks cannot be launched: %s",
					   tt_cuda_words(e, words, sizeof(words)));
}
