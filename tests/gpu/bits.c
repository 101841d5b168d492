/* The kernels on a device against the host's reductions: all types and operators, many sizes, aligned, an element
 * off, and each buffer elsewhere. Says what it has counted. TEST_STEP: from a size to the next.
 * Exit status 77: there is no device, or no kernel. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_code.h"
#include "gpu.h"

enum { MOST = 4100, SRCS = 3, ROOM = (MOST + 64) * 8, GUARD = 64, NOT_RUN = 77 };

static struct {
	void *stream;
	unsigned char *host[SRCS + 1], *want; /* pinned; the last is the result */
	unsigned char *device[SRCS + 1];
	int sms;
	long checked, wrong;
} gear;

static void must(int e, const char *what)
{
	if (!e)
		return;
	fprintf(stderr, "%s: %s\n", what, gpu_words(e));
	exit(1);
}

static void copy(void *dst, const void *src, size_t n)
{
	must(GPU(cuMemcpyAsync, (gpu_ptr)dst, (gpu_ptr)src, n, gear.stream), "cuMemcpyAsync");
}

/* Half of the random bits are made small numbers, that sums may be rounded. */
static void fill(tuttiDataType_t type)
{
	static uint64_t state = 1;

	for (int i = 0; i <= SRCS; i++) {
		for (size_t k = 0; k < ROOM; k++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			gear.host[i][k] = (unsigned char)(state >> 40);
		}
		for (size_t k = 0; k < ROOM && type == tuttiFloat32; k += 8) {
			float x = (float)gear.host[i][k] / 7;

			memcpy(gear.host[i] + k, &x, 4);
		}
		copy(gear.device[i], gear.host[i], ROOM);
	}
	must(GPU(cuStreamSynchronize, gear.stream), "cuStreamSynchronize");
}

static bool is_nan(tuttiDataType_t type, const unsigned char *p)
{
	uint16_t h = 0;
	double d = 0;
	float f = 0;

	memcpy(&h, p, type == tuttiFloat16 || type == tuttiBfloat16 ? 2 : 1);
	memcpy(&f, p, type == tuttiFloat32 ? 4 : 0);
	memcpy(&d, p, type == tuttiFloat64 ? 8 : 0);
	switch (type) {
	case tuttiFloat16: return (h & 0x7fff) > 0x7c00;
	case tuttiBfloat16: return (h & 0x7fff) > 0x7f80;
	case tuttiFloat8e4m3: return (p[0] & 0x7f) == 0x7f;
	case tuttiFloat8e5m2: return (p[0] & 0x7f) > 0x7c;
	case tuttiFloat32: return isnan(f);
	case tuttiFloat64: return isnan(d);
	default: return false;
	}
}

static void compare(const char *op, tuttiDataType_t type, size_t n, size_t off)
{
	size_t size = tt_type_size(type);
	const unsigned char *got = gear.host[SRCS] + off, *want = gear.want + off;

	gear.checked++;
	for (size_t i = 0; i < n; i++) {
		if (!memcmp(got + i * size, want + i * size, size) ||
		    (is_nan(type, got + i * size) && is_nan(type, want + i * size)))
			continue;
		if (gear.wrong++ < 10)
			printf("WRONG %s %s, %zu elements at byte %zu: element %zu\n", op, tt_type_name(type), n, off,
			       i);
		return;
	}
	if (memcmp(got + n * size, want + n * size, GUARD) && gear.wrong++ < 10)
		printf("WRONG %s %s, %zu elements at byte %zu: wrote behind them\n", op, tt_type_name(type), n, off);
}

/* `off`: bytes into each buffer; spread: one more into each source. */
static void one(int kind, tuttiDataType_t type, size_t n, size_t off, bool spread)
{
	static const char *const names[] = { "sum", "prod", "max", "min", "avg", "premulsum" };
	struct tt_op op = { .kind = kind, .commutative = true, .nranks = 3 };
	enum tt_scale scale = kind == TT_OP_PREMULSUM ? TT_SCALE_PRE : kind == tuttiAvg ? TT_SCALE_POST : TT_SCALE_NONE;
	const void *src[SRCS], *on_host[SRCS];
	size_t size = tt_type_size(type), end = off + n * size + GUARD;

	memcpy(&op.scalar, gear.host[1] + 8 * 5, size);
	for (int i = 0; i < SRCS; i++) {
		size_t at = off + (spread ? (size_t)i + 1 : 0);

		src[i] = gear.device[i] + at;
		on_host[i] = gear.host[i] + at;
	}
	memset(gear.host[SRCS], 0x77, end);
	memset(gear.want, 0x77, end);
	copy(gear.device[SRCS], gear.host[SRCS], end);
	must(tt_cuda_code_run(gear.stream, gear.sms, gear.device[SRCS] + off, src, scale == TT_SCALE_NONE ? SRCS : 1, n,
			      type, &op, scale), "cuLaunchKernel");
	copy(gear.host[SRCS], gear.device[SRCS], end);
	must(GPU(cuStreamSynchronize, gear.stream), "cuStreamSynchronize");
	if (scale == TT_SCALE_PRE)
		tt_reduce_pre(gear.want + off, on_host[0], n, type, &op);
	else if (scale == TT_SCALE_POST)
		tt_reduce_post(gear.want + off, on_host[0], n, type, &op);
	else
		tt_reduce_run(gear.want + off, on_host, SRCS, n, type, &op, TT_STORE_PLAIN);
	compare(names[kind], type, n, off);
}

static void prepare(void)
{
	void *p;

	must(gpu_use(0), "cuDevicePrimaryCtxRetain");
	must(GPU(cuDeviceGetAttribute, &gear.sms, GPU_SMS, 0), "cuDeviceGetAttribute");
	must(GPU(cuStreamCreate, &gear.stream, GPU_NON_BLOCKING), "cuStreamCreate");
	for (int i = 0; i <= SRCS; i++) {
		gpu_ptr d = 0;

		must(GPU(cuMemHostAlloc, &p, ROOM, GPU_PORTABLE | GPU_DEVICEMAP), "cuMemHostAlloc");
		gear.host[i] = p;
		must(GPU(cuMemAlloc, &d, ROOM), "cuMemAlloc");
		gear.device[i] = (unsigned char *)d;
	}
	gear.want = malloc(ROOM);
	if (!gear.want)
		exit(1);
}

int main(void)
{
	const char *why, *step = getenv("TEST_STEP");
	size_t by = step && atoi(step) > 0 ? (size_t)atoi(step) : 1;
	const struct tt_cuda *f;

	if (!gpu_load(&why)) {
		printf("not run: %s\n", why);
		return NOT_RUN;
	}
	prepare();
	f = tt_cuda_open(false);
	if (f)
		tt_cuda_code_open(f);
	if (!f || !tt_cuda_code_has(tuttiFloat32)) {
		printf("not run: %s\n", f ? tt_cuda_code_words() : tt_cuda_why());
		return NOT_RUN;
	}
	tt_cuda_code_load(0);
	for (int t = 0; t < tuttiNumTypes; t++) {
		fill((tuttiDataType_t)t);
		for (int kind = tuttiSum; kind <= TT_OP_PREMULSUM; kind++)
			for (size_t n = 0; n <= MOST; n += by) {
				one(kind, (tuttiDataType_t)t, n, 0, false);
				one(kind, (tuttiDataType_t)t, n, tt_type_size((tuttiDataType_t)t), false);
				one(kind, (tuttiDataType_t)t, n, n % 24, true);
			}
	}
	printf("%ld passed, %ld failed\n", gear.checked - gear.wrong, gear.wrong);
	return gear.wrong != 0;
}
