/* Time, small numbers, randomness, usable cores, and the names of types and operators.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static const struct {
	size_t size;
	const char *name;
} types[tuttiNumTypes] = {
	[tuttiInt8] = { 1, "int8" },         [tuttiUint8] = { 1, "uint8" },
	[tuttiInt32] = { 4, "int32" },       [tuttiUint32] = { 4, "uint32" },
	[tuttiInt64] = { 8, "int64" },       [tuttiUint64] = { 8, "uint64" },
	[tuttiFloat16] = { 2, "half" },      [tuttiFloat32] = { 4, "float" },
	[tuttiFloat64] = { 8, "double" },    [tuttiBfloat16] = { 2, "bfloat16" },
	[tuttiFloat8e4m3] = { 1, "f8e4m3" }, [tuttiFloat8e5m2] = { 1, "f8e5m2" },
};

static const char *const op_names[] = { "sum", "prod", "max", "min", "avg", "premulsum", "user" };

size_t tt_type_size(tuttiDataType_t t)
{
	return (unsigned)t < tuttiNumTypes ? types[t].size : 0;
}

const char *tt_type_name(tuttiDataType_t t)
{
	return (unsigned)t < tuttiNumTypes ? types[t].name : "invalid";
}

const char *tt_op_name(int op)
{
	size_t n = sizeof(op_names) / sizeof(op_names[0]);

	return op >= 0 && (size_t)op < n ? op_names[op] : "user";
}

uint64_t tt_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The finalizer of MurmurHash3: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdu;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53u;
	return x ^ (x >> 33);
}

/* Bytes are read in little-endian order, so that hosts of either order agree. */
static uint64_t load_le(const uint8_t *p, size_t n)
{
	uint64_t x = 0;

	for (size_t i = 0; i < n; i++)
		x |= (uint64_t)p[i] << (8 * i);
	return x;
}

uint64_t tt_hash64(const void *p, size_t n, uint64_t seed)
{
	const uint8_t *s = p;
	uint64_t h = mix(seed ^ 0x9e3779b97f4a7c15u ^ (uint64_t)n);

	for (; n >= 8; n -= 8, s += 8)
		h = mix(h ^ load_le(s, 8)) + 0x9e3779b97f4a7c15u;
	return mix(h ^ load_le(s, n));
}

tuttiResult_t tt_random_bytes(void *p, size_t n)
{
	uint8_t *s = p;
	int saved = errno;

	while (n > 0) {
		ssize_t got = getrandom(s, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return tt_fail(tuttiSystemError, "getrandom of %zu bytes failed: %s", n,
				       strerror(errno));
		s += got;
		n -= (size_t)got;
	}
	errno = saved;
	return tuttiSuccess;
}

const char *tt_first_line(const char *path, char *out, size_t n)
{
	FILE *f = fopen(path, "re");

	if (!f || !fgets(out, (int)n, f))
		*out = 0;
	if (f)
		fclose(f);
	out[strcspn(out, "\n")] = 0;
	return out;
}

/* Object pointers, since ISO C has no cast from those to functions. */
const char *tt_symbols(void *so, const struct tt_symbol *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		void *found = dlsym(so, rows[i].name);

		memcpy(rows[i].slot, &found, sizeof(found));
		if (!found)
			return rows[i].name;
	}
	return NULL;
}

/* One line of a small file such as those of cgroups; false if it cannot be read. */
static bool read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, line, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	line[n] = '\0';
	return true;
}

/* Cores that a quota allows, rounded up; INT_MAX without one. */
static int quota_cores(double quota, double period)
{
	double cores = period > 0 ? quota / period : 0;

	if (quota <= 0 || cores <= 0 || cores > 1e6)
		return INT_MAX;
	return (int)cores + (cores > (int)cores);
}

/* The quota of one cgroup v2 directory: "max 100000" or "200000 100000". */
static int cgroup2_cores(const char *group)
{
	char path[PATH_MAX], line[128];
	double quota, period;

	if (snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group) >= (int)sizeof(path))
		return INT_MAX;
	if (!read_line(path, line, sizeof(line)) || sscanf(line, "%lf %lf", &quota, &period) != 2)
		return INT_MAX;
	return quota_cores(quota, period);
}

static int cgroup1_cores(void)
{
	static const char dir[] = "/sys/fs/cgroup/cpu/";
	char path[128], quota[64], period[64];

	snprintf(path, sizeof(path), "%scpu.cfs_quota_us", dir);
	if (!read_line(path, quota, sizeof(quota)))
		return INT_MAX;
	snprintf(path, sizeof(path), "%scpu.cfs_period_us", dir);
	if (!read_line(path, period, sizeof(period)))
		return INT_MAX;
	return quota_cores(atof(quota), atof(period));
}

/* The least quota from this process's cgroup up to the root: each level limits those below it. */
static int cgroup_cores(void)
{
	char text[PATH_MAX], *group, *slash;
	int least = (int)tt_min((size_t)cgroup1_cores(), (size_t)cgroup2_cores(""));

	if (!read_line("/proc/self/cgroup", text, sizeof(text)))
		return least;
	group = strncmp(text, "0::", 3) == 0 ? text + 3 : strstr(text, "\n0::");
	if (!group)
		return least;
	if (*group == '\n')
		group += 4;
	group[strcspn(group, "\n")] = '\0';
	while ((slash = strrchr(group, '/')) != NULL && slash[1] != '\0') {
		least = (int)tt_min((size_t)least, (size_t)cgroup2_cores(group));
		*slash = '\0';
	}
	return least;
}

/* CPUs in the affinity mask; machines with more than CPU_SETSIZE of them need a larger set. */
static int affinity_cores(void)
{
	for (int cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 4) {
		cpu_set_t *set = CPU_ALLOC((size_t)cpus);
		size_t size = CPU_ALLOC_SIZE((size_t)cpus);
		int n = 0;

		if (!set)
			break;
		if (sched_getaffinity(0, size, set) == 0)
			n = CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (n > 0)
			return n;
	}
	return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void tt_next_core(void)
{
	int cpu = sched_getcpu(), saved = errno;
	cpu_set_t all, one;

	CPU_ZERO(&one);
	if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		goto out;
	do
		cpu = (cpu + 1) % CPU_SETSIZE;
	while (!CPU_ISSET(cpu, &all));
	CPU_SET(cpu, &one);
	if (!sched_setaffinity(0, sizeof(one), &one))
		sched_setaffinity(0, sizeof(all), &all);
out:
	errno = saved;
}

#define BLOCK_MAPPED ((size_t)64 << 10)

void *tt_block_new(size_t n)
{
	void *p;

	if (n < BLOCK_MAPPED)
		return aligned_alloc(64, (n + 63) & ~(size_t)63);
	p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void tt_block_free(void *p, size_t n)
{
	if (n < BLOCK_MAPPED)
		free(p);
	else
		munmap(p, n);
}

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Systems refuse memory that could be executed (vm.memfd_noexec=2); kernels before 6.3 do not know the flag. */
int tt_memfd(size_t n)
{
	int fd = memfd_create("tutti", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), e;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("tutti", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || !ftruncate(fd, (off_t)n))
		return fd;
	e = errno;
	close(fd);
	errno = e;
	return -1;
}

int tt_usable_cores(void)
{
	int saved = errno, cores = affinity_cores(), quota = cgroup_cores();

	errno = saved;
	if (quota < cores)
		cores = quota;
	return cores > 1 ? cores : 1;
}
