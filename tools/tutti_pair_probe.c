/* tutti-pair-probe UUID UUID: whether two devices of this host copy to each other, and rightly: for the library, which
 * runs it before it makes a link between them, as a copy that stalls takes its process with it.
 * Says "fine", "corrupts", or why it cannot tell. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_lib.h"
#include "cuda_share.h"

enum { SIZE = 4 << 20, WORDS = SIZE / 4 };

struct end {
	int device;
	void *ctx, *stream;
	struct tt_share share;
	int fd;
	void *there; /* the other's memory, as this device sees it */
	uint32_t *pinned;
};

static const struct tt_cuda *cuda;

static int fail(const char *what, int e)
{
	char words[256];

	printf("cannot tell: %s: %s\n", what, e ? tt_cuda_words(e, words, sizeof(words)) : tt_last_error());
	return 1;
}

#define DO(call)                                                                                   \
	do {                                                                                       \
		int do_e = cuda->call;                                                             \
		if (do_e)                                                                          \
			return fail(#call, do_e);                                                  \
	} while (0)

static bool read_uuid(const char *text, uint8_t out[16])
{
	unsigned byte;

	for (int i = 0; i < 16; i++) {
		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			return false;
		out[i] = (uint8_t)byte;
	}
	return true;
}

static int open_end(struct end *e, const char *text)
{
	uint8_t want[16], uuid[16];

	for (e->device = 0; read_uuid(text, want) && e->device < cuda->devices; e->device++)
		if (!cuda->cuDeviceGetUuid(uuid, e->device) && !memcmp(uuid, want, sizeof(want)))
			break;
	if (e->device == cuda->devices)
		return fail("the device is not visible", TT_CUDA_NO_DEVICE);
	DO(cuDevicePrimaryCtxRetain(&e->ctx, e->device));
	DO(cuCtxPushCurrent(e->ctx));
	DO(cuStreamCreateWithPriority(&e->stream, TT_CUDA_NON_BLOCKING, 0));
	DO(cuMemHostAlloc((void **)&e->pinned, SIZE, TT_CUDA_HOST_PORTABLE | TT_CUDA_HOST_DEVICEMAP));
	if (tt_cuda_sharing.give(SIZE, &e->share, &e->fd) != tuttiSuccess)
		return fail("no memory", 0);
	DO(cuCtxPopCurrent(&e->ctx));
	return 0;
}

static int attach(struct end *e, const struct end *to)
{
	tuttiResult_t r;

	DO(cuCtxPushCurrent(e->ctx));
	r = tt_cuda_sharing.open(&to->share, to->fd, true, &e->there);
	DO(cuCtxPopCurrent(&e->ctx));
	return r == tuttiSuccess ? 0 : fail("no access", 0);
}

static int copy(struct end *e, void *dst, const void *src)
{
	DO(cuCtxPushCurrent(e->ctx));
	DO(cuMemcpyAsync((tt_cuda_ptr)dst, (tt_cuda_ptr)src, SIZE, e->stream));
	DO(cuStreamSynchronize(e->stream));
	DO(cuCtxPopCurrent(&e->ctx));
	return 0;
}

/* From one to the other, and back to the host. 2: other bytes. */
static int check(struct end *from, struct end *to, uint32_t seed)
{
	for (uint32_t i = 0; i < WORDS; i++)
		from->pinned[i] = (i + seed) * 2654435761u;
	memset(to->pinned, 0, SIZE);
	if (copy(from, from->share.at, from->pinned) || copy(from, from->there, from->share.at) ||
	    copy(to, to->pinned, to->share.at))
		return 1;
	return memcmp(from->pinned, to->pinned, SIZE) ? 2 : 0;
}

int main(int argc, char **argv)
{
	struct end a = { 0 }, b = { 0 };
	int bad = 0;

	cuda = tt_cuda_open(false);
	if (argc != 3 || !cuda || !cuda->shares) {
		printf("cannot tell: %s\n", argc != 3 ? "give it two uuids of 32 hexadecimal digits" : tt_cuda_why());
		return 1;
	}
	tt_cuda_share_open(cuda);
	if (open_end(&a, argv[1]) || open_end(&b, argv[2]) || attach(&a, &b) || attach(&b, &a))
		return 1;
	for (uint32_t round = 0; round < 4 && !bad; round++)
		bad = round % 2 ? check(&b, &a, round) : check(&a, &b, round);
	if (bad != 1)
		printf(bad ? "corrupts\n" : "fine\n");
	fflush(stdout);
	_exit(bad); /* the driver's own end may take long */
}
