/* How fast a device copies within its own memory: by our kernel, the ceiling that collectives of ranks on one device
 * are measured by, and by the driver. SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "gpu_kernels.h"
#include "perf_common.h"

enum { THREADS = 512, WAVES = 4, NOT_RUN = 77 };

static const char usage[] =
	"Usage: gpu_copy_perf [options]\n"
	"Copies within the memory of a device. Bytes are those read and those written.\n"
	"  -b, --minbytes SIZE    smallest copy (default 1M); sizes take K, M, G\n"
	"  -e, --maxbytes SIZE    largest copy (default 1G), halved until two of it fit\n"
	"  -f, --stepfactor N     (default 4)\n"
	"  -n, --iters N          copies a time (default 20)\n"
	"  -g, --device N         (default 0)\n"
	"Exit status: 0; 1 wrong bytes or an error; 2 wrong usage; 77 no device.\n";

static struct {
	void *stream, *fn, *stage;
	gpu_ptr src, dst;
	int sms;
} gear;

static void must(int e, const char *what)
{
	if (!e)
		return;
	fprintf(stderr, "gpu_copy_perf: %s: %s\n", what, gpu_words(e));
	exit(1);
}

static void by_kernel(size_t n)
{
	struct gpu_copy_args args = { (void *)gear.dst, (const void *)gear.src, n / 16 };
	size_t blocks = n / 16 / THREADS / 4 + 1, most = (size_t)gear.sms * WAVES;

	must(gpu_launch(gear.fn, (unsigned)(blocks < most ? blocks : most), THREADS, gear.stream, &args),
	     "cuLaunchKernel");
}

static void by_driver(size_t n)
{
	must(GPU(cuMemcpyAsync, gear.dst, gear.src, n, gear.stream), "cuMemcpyAsync");
}

static double time_us(void (*copy)(size_t n), size_t n, int iters)
{
	double start;

	for (int i = 0; i < 3; i++)
		copy(n);
	must(GPU(cuStreamSynchronize, gear.stream), "cuStreamSynchronize");
	start = gpu_now_us();
	for (int i = 0; i < iters; i++)
		copy(n);
	must(GPU(cuStreamSynchronize, gear.stream), "cuStreamSynchronize");
	return (gpu_now_us() - start) / iters;
}

/* The first and the last page are what was written to the source. */
static bool right(size_t n)
{
	enum { PAGE = 4096 };
	unsigned char *stage = gear.stage;
	size_t part = n < PAGE ? n : PAGE;
	bool good = true;

	for (size_t at = 0; at < n; at = at || n <= PAGE ? n : n - PAGE) {
		for (size_t i = 0; i < part; i++)
			stage[i] = (unsigned char)(i * 7 + n / 3 + at);
		must(GPU(cuMemcpyAsync, gear.src + at, (gpu_ptr)stage, part, gear.stream), "cuMemcpyAsync");
		by_kernel(n);
		must(GPU(cuMemcpyAsync, (gpu_ptr)stage + PAGE, gear.dst + at, part, gear.stream), "cuMemcpyAsync");
		must(GPU(cuStreamSynchronize, gear.stream), "cuStreamSynchronize");
		good = good && !memcmp(stage, stage + PAGE, part);
	}
	return good;
}

static size_t prepare(int device, size_t most)
{
	size_t left = 0, all;

	must(gpu_use(device), "cuDevicePrimaryCtxRetain");
	must(GPU(cuMemGetInfo, &left, &all), "cuMemGetInfo");
	while (most > 16 && most > left / 5 * 2)
		most /= 2;
	most = most / 16 * 16;
	must(GPU(cuDeviceGetAttribute, &gear.sms, GPU_SMS, device), "cuDeviceGetAttribute");
	must(GPU(cuStreamCreate, &gear.stream, GPU_NON_BLOCKING), "cuStreamCreate");
	must(GPU(cuMemHostAlloc, &gear.stage, 8192, GPU_PORTABLE | GPU_DEVICEMAP), "cuMemHostAlloc");
	must(GPU(cuMemAlloc, &gear.src, most), "cuMemAlloc");
	must(GPU(cuMemAlloc, &gear.dst, most), "cuMemAlloc");
	must(gpu_kernel("gpu_copy", &gear.fn), "its kernel");
	return most;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "minbytes", required_argument, NULL, 'b' },   { "maxbytes", required_argument, NULL, 'e' },
		{ "stepfactor", required_argument, NULL, 'f' }, { "iters", required_argument, NULL, 'n' },
		{ "device", required_argument, NULL, 'g' },     { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	size_t first = 1 << 20, last = 1 << 30;
	int letter, factor = 4, iters = 20, device = 0;
	char name[128] = "";
	const char *why;
	bool good = true;

	while ((letter = getopt_long(argc, argv, "b:e:f:n:g:h", options, NULL)) != -1)
		switch (letter) {
		case 'b': first = perf_size(letter, optarg) / 16 * 16; break;
		case 'e': last = perf_size(letter, optarg); break;
		case 'f': factor = atoi(optarg); break;
		case 'n': iters = atoi(optarg); break;
		case 'g': device = atoi(optarg); break;
		default: return fputs(usage, letter == 'h' ? stdout : stderr) < 0 ? 1 : letter == 'h' ? 0 : 2;
		}
	if (first < 16 || factor < 2 || iters < 1 || device < 0)
		return fputs(usage, stderr) < 0 ? 1 : 2;
	if (!gpu_load(&why)) {
		fprintf(stderr, "gpu_copy_perf: not run: %s\n", why);
		return NOT_RUN;
	}
	last = prepare(device, last);
	must(GPU(cuDeviceGetName, name, sizeof(name), device), "cuDeviceGetName");
	printf("# Copies on device %d, %s\n#%13s %12s %12s %12s %12s %6s\n#%13s %12s %12s %12s %12s\n", device, name,
	       "size", "kernel", "read+written", "driver", "read+written", "#wrong", "(B)", "(us)", "(GB/s)", "(us)",
	       "(GB/s)");
	for (size_t n = first; n <= last; n *= (size_t)factor) {
		double kernel = time_us(by_kernel, n, iters), driver = time_us(by_driver, n, iters);
		bool ok = right(n);

		printf("%14zu %12.2f %12.2f %12.2f %12.2f %6d\n", n, kernel, 2e-3 * (double)n / kernel, driver,
		       2e-3 * (double)n / driver, !ok);
		fflush(stdout);
		good = good && ok;
	}
	return !good;
}
