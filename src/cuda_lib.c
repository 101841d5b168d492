/* CUDA's driver, found at run time: the same library runs where there is none. What is missing is said in one line.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cuda_lib.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libcuda.so.1"
enum { OLDEST = 11080 };

typedef int (*proc_v2)(const char *name, void **fn, int version, uint64_t flags, int *status);
typedef int (*proc_v1)(const char *name, void **fn, int version, uint64_t flags);

static struct {
	pthread_mutex_t lock;
	struct tt_cuda f;
	_Atomic bool on, off; /* at last */
	bool told;
	char why[TT_TEXT / 2];
	proc_v2 get;
	proc_v1 get_old;
	int (*name_of)(int e, const char **text);
	int (*text_of)(int e, const char **text);
} cuda = { .lock = PTHREAD_MUTEX_INITIALIZER };

static __attribute__((format(printf, 1, 2))) bool no(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cuda.why, sizeof(cuda.why), fmt, ap);
	va_end(ap);
	return false;
}

const char *tt_cuda_words(int e, char *out, size_t n)
{
	const char *name = NULL, *text = NULL;

	if (cuda.name_of && !cuda.name_of(e, &name) && name && cuda.text_of && !cuda.text_of(e, &text) && text)
		snprintf(out, n, "%s (%d): %s", name, e, text);
	else
		snprintf(out, n, "CUDA's error %d", e);
	return out;
}

/* The functions of the prototypes that we know: LEGACY_STREAM, 1, keeps away those whose stream 0 is another. */
static int find(const char *name, int version, void *slot)
{
	void *fn = NULL;
	int e = cuda.get ? cuda.get(name, &fn, version, 1, &(int){ 0 }) : cuda.get_old(name, &fn, version, 1);

	if (e)
		fn = NULL; /* a version above the driver's, or no such name */
	memcpy(slot, &fn, sizeof(fn));
	return fn ? 0 : e ? e : TT_CUDA_INVALID_VALUE;
}

static const char *missing(struct tt_cuda *f)
{
	const char *first = NULL;

#define FIND(name, version, args)                                                                  \
	if (find(#name, version, &f->name) && !first)                                              \
		first = #name;
	TT_CUDA_FUNCTIONS(FIND)
#undef FIND
#define FIND(name, version, args) (void)find(#name, version, &f->name);
	TT_CUDA_OPTIONAL(FIND)
	TT_CUDA_RDMA(FIND)
#undef FIND
	f->shares = true;
#define FIND(name, version, args) f->shares &= !find(#name, version, &f->name);
	TT_CUDA_SHARING(FIND)
#undef FIND
	return first;
}

static const char *path_of(void *so)
{
	Dl_info info;
	void *p = dlsym(so, "cuGetProcAddress");

	return p && dladdr(p, &info) && info.dli_fname ? info.dli_fname : LIBRARY;
}

/* The toolkit's stub, for linking where no driver is, has the driver's name, and says so in every answer. */
static bool read_version(void *so)
{
	int (*version)(int *v) = NULL, e = find("cuDriverGetVersion", 2020, &version);

	if (!e)
		e = version(&cuda.f.version);
	if (e == TT_CUDA_STUB)
		return no("%s is the stub of the CUDA toolkit, not the driver: take its folder out of LD_LIBRARY_PATH "
			  "and of what the program is linked with", path_of(so));
	if (e)
		return no("%s does not tell its version: error %d; nvidia-smi shows whether the driver works",
			  path_of(so), e);
	if (cuda.f.version < OLDEST)
		return no("the driver knows CUDA %d.%d, tutti needs %d.%d: install driver 520 or newer",
			  cuda.f.version / 1000, cuda.f.version % 1000 / 10, OLDEST / 1000, OLDEST % 1000 / 10);
	return true;
}

static const char *what_to_do(int e)
{
	switch (e) {
	case TT_CUDA_NOT_INITIALIZED:
		return "CUDA was used before this process forked: start processes anew (exec, the spawn method)";
	case TT_CUDA_NO_DEVICE:
		return "nvidia-smi lists devices, CUDA_VISIBLE_DEVICES may hide them, a container must be given them";
	case TT_CUDA_NO_FABRIC:
		return "start nvidia-fabricmanager";
	case TT_CUDA_MISMATCH:
		return "the driver's library and the kernel's module are of different versions: reboot or reinstall";
	default:
		return "nvidia-smi shows whether the driver works";
	}
}

static bool start(void)
{
	char words[TT_TEXT / 4];
	int e = cuda.f.cuInit(0);

	if (e)
		return no("cuInit: %s; %s", tt_cuda_words(e, words, sizeof(words)), what_to_do(e));
	e = cuda.f.cuDeviceGetCount(&cuda.f.devices);
	if (e || cuda.f.devices < 1)
		return no("the driver has no device; %s", what_to_do(TT_CUDA_NO_DEVICE));
	return true;
}

static bool use(void *so)
{
	void *get = dlsym(so, "cuGetProcAddress_v2"), *old = dlsym(so, "cuGetProcAddress");
	const char *name;

	memcpy(&cuda.get, &get, sizeof(get));
	memcpy(&cuda.get_old, &old, sizeof(old));
	if (!get && !old)
		return no("%s is of a driver before CUDA 11.3, tutti needs 11.8: install driver 520 or newer", LIBRARY);
	if (!read_version(so))
		return false;
	(void)find("cuGetErrorName", 6000, &cuda.name_of);
	(void)find("cuGetErrorString", 6000, &cuda.text_of);
	name = missing(&cuda.f);
	if (name)
		return no("the driver, CUDA %d.%d, has no %s: install a driver of NVIDIA's that is whole",
			  cuda.f.version / 1000, cuda.f.version % 1000 / 10, name);
	return start();
}

static int is_driver(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *slash = strrchr(info->dlpi_name, '/');

	return !strncmp(slash ? slash + 1 : info->dlpi_name, "libcuda.so", strlen("libcuda.so"));
}

/* dlopen's own way to ask would search the disk, and takes most of a MiB the first time. */
static bool is_loaded(void)
{
	return dl_iterate_phdr(is_driver, NULL) != 0;
}

static void load(bool in_use)
{
	void *so = in_use && !is_loaded() ? NULL : dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | (in_use ? RTLD_NOLOAD : 0));
	bool on = so && use(so);

	if (!so && in_use)
		no("this process has not loaded %s; whoever uses CUDA does so before the first communicator", LIBRARY);
	else if (!so)
		no("%s, which comes with NVIDIA's driver, is not found: %s", LIBRARY, dlerror());
	if (!on && (so || !cuda.told))
		tt_log(TT_LOG_INFO, "cuda", "CUDA is off: %s", cuda.why);
	cuda.told = true;
	atomic_store_explicit(&cuda.off, so && !on, memory_order_release);
	atomic_store_explicit(&cuda.on, on, memory_order_release);
}

const struct tt_cuda *tt_cuda_open(bool in_use)
{
	if (atomic_load_explicit(&cuda.on, memory_order_acquire))
		return &cuda.f;
	pthread_mutex_lock(&cuda.lock);
	if (!atomic_load_explicit(&cuda.on, memory_order_relaxed) &&
	    !atomic_load_explicit(&cuda.off, memory_order_relaxed))
		load(in_use);
	pthread_mutex_unlock(&cuda.lock);
	return atomic_load_explicit(&cuda.on, memory_order_acquire) ? &cuda.f : NULL;
}

int tt_cuda_load(void *kernel)
{
	void *fn;
	int e = cuda.f.cuKernelGetFunction(&fn, kernel);

	return !e && cuda.f.cuFuncLoad ? cuda.f.cuFuncLoad(fn) : e;
}

const char *tt_cuda_why(void)
{
	return cuda.why;
}
