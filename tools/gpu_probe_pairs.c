/* Questions that two processes on one device answer: memory, events and words that both reach, and whether one gets
 * the device while the other waits or computes. Side 0 asks, side 1 helps. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpu_probe.h"

enum { BYTES = 2 << 20, TURNS = 50, LAUNCHES = 20 };

/* ---- talk ---- */

struct letter {
	struct gpu_ipc handle;
	size_t n;
	int pid, fd;
	double us[2];
};

/* fd: one that goes along, or -1. */
static bool tell(const struct letter *m, int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} u = { .align = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec v = { (void *)m, sizeof(*m) };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1 };

	if (fd >= 0) {
		memcpy(CMSG_DATA(&u.align), &fd, sizeof(fd));
		h.msg_control = u.room;
		h.msg_controllen = sizeof(u.room);
	}
	return sendmsg(probe.sock, &h, MSG_NOSIGNAL) == sizeof(*m);
}

/* False: the other one has ended, after it said why. */
static bool hear(struct letter *m, int *fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec v = { m, sizeof(*m) };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = u.room, .msg_controllen = sizeof(u.room) };
	struct cmsghdr *c;

	at("word from the other process");
	if (recvmsg(probe.sock, &h, MSG_CMSG_CLOEXEC) != sizeof(*m))
		return false;
	c = CMSG_FIRSTHDR(&h);
	if (fd)
		*fd = -1;
	if (fd && c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return true;
}

static bool nod(void)
{
	return tell(&(struct letter){ 0 }, -1);
}

static bool wait_nod(void)
{
	struct letter m;

	return hear(&m, NULL);
}

/* ---- contents ---- */

struct work {
	void *stream;
	uint32_t *host; /* pinned, of BYTES */
};

static bool begin(const char *what, struct work *w)
{
	void *p;

	if (!probe_streams(what, &w->stream, 1))
		return false;
	ASK(what, cuMemHostAlloc, &p, BYTES, GPU_PORTABLE | GPU_DEVICEMAP);
	w->host = p;
	return true;
}

static bool fill(const char *what, struct work *w, gpu_ptr p, uint32_t first)
{
	for (uint32_t i = 0; i < BYTES / 4; i++)
		w->host[i] = first + i;
	ASK(what, cuMemcpyAsync, p, (gpu_ptr)w->host, BYTES, w->stream);
	ASK(what, cuStreamSynchronize, w->stream);
	return true;
}

static bool holds(const char *what, struct work *w, gpu_ptr p, uint32_t first, bool *right)
{
	memset(w->host, 0, BYTES);
	ASK(what, cuMemcpyAsync, (gpu_ptr)w->host, p, BYTES, w->stream);
	ASK(what, cuStreamSynchronize, w->stream);
	*right = true;
	for (uint32_t i = 0; i < BYTES / 4; i++)
		*right = *right && w->host[i] == first + i;
	return true;
}

/* Side 0 has the memory of side 1 at p: reads it, writes it. */
static bool look_and_write(const char *what, struct work *w, gpu_ptr p, double us)
{
	struct letter m;
	bool right;

	if (!holds(what, w, p, 1, &right) || !fill(what, w, p, 1000) || !nod() || !hear(&m, NULL))
		return false;
	answer(what, NULL, "%s, opened in %.0f us", right && m.n ? "right in both directions" :
	       right ? "read right, written WRONG" : "read WRONG", us);
	return nod();
}

static bool check_written(const char *what, struct work *w, gpu_ptr p)
{
	bool right;

	return wait_nod() && holds(what, w, p, 1000, &right) && tell(&(struct letter){ .n = right }, -1) && wait_nod();
}

/* ---- legacy IPC ---- */

static bool ipc_help(void)
{
	struct letter m = { .n = BYTES };
	struct work w;
	gpu_ptr p;

	if (!begin("handle", &w))
		return false;
	ASK("handle", cuMemAlloc, &p, BYTES);
	if (!fill("handle", &w, p, 1))
		return false;
	ASK("handle", cuIpcGetMemHandle, &m.handle, p);
	return tell(&m, -1) && check_written("handle", &w, p);
}

static bool ipc(void)
{
	struct letter m;
	struct work w;
	double start;
	gpu_ptr p;

	if (!begin("memory", &w) || !hear(&m, NULL))
		return false;
	start = gpu_now_us();
	ASK("memory", cuIpcOpenMemHandle, &p, m.handle, GPU_LAZY_PEER);
	return look_and_write("memory", &w, p, gpu_now_us() - start);
}

/* ---- memory by file descriptors ---- */

static const struct gpu_prop *prop(void)
{
	static struct gpu_prop p = { .type = GPU_PINNED, .handles = GPU_FD, .where = GPU_ON_DEVICE };

	p.device = probe.device;
	return &p;
}

static bool map(const char *what, uint64_t h, size_t n, gpu_ptr *p)
{
	struct gpu_access access = { GPU_ON_DEVICE, probe.device, GPU_READ_WRITE };

	ASK(what, cuMemAddressReserve, p, n, 0, 0, 0);
	ASK(what, cuMemMap, *p, n, 0, h, 0);
	ASK(what, cuMemSetAccess, *p, n, &access, 1);
	return true;
}

static bool make(const char *what, size_t *n, uint64_t *h, gpu_ptr *p)
{
	size_t step;

	ASK(what, cuMemGetAllocationGranularity, &step, prop(), 0);
	*n = (BYTES + step - 1) / step * step;
	ASK(what, cuMemCreate, h, *n, prop(), 0);
	return map(what, *h, *n, p);
}

static bool vmm_help(void)
{
	struct letter m = { .pid = getpid() };
	struct work w;
	uint64_t h;
	gpu_ptr p;

	if (!begin("create", &w) || !make("create", &m.n, &h, &p) || !fill("create", &w, p, 1))
		return false;
	ASK("create", cuMemExportToShareableHandle, &m.fd, h, GPU_FD, 0);
	return tell(&m, m.fd) && check_written("create", &w, p) && fill("create", &w, p, 1) && nod() &&
	       check_written("create", &w, p);
}

static bool import(const char *what, struct work *w, int fd, size_t n)
{
	double start = gpu_now_us();
	uint64_t h;
	gpu_ptr p;

	ASK(what, cuMemImportFromShareableHandle, &h, (void *)(intptr_t)fd, GPU_FD);
	return map(what, h, n, &p) && look_and_write(what, w, p, gpu_now_us() - start);
}

static bool vmm(void)
{
	struct letter m;
	struct work w;
	int fd, pidfd;

	if (!begin("by_message", &w) || !hear(&m, &fd) || !import("by_message", &w, fd, m.n) || !wait_nod())
		return false;
	pidfd = (int)syscall(SYS_pidfd_open, m.pid, 0);
	fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, m.fd, 0);
	if (fd < 0) {
		answer("by_pidfd_getfd", "descriptors go by messages alone", "not offered: %s", strerror(errno));
		return false;
	}
	return import("by_pidfd_getfd", &w, fd, m.n);
}

/* ---- dma-buf ---- */

static bool export_range(const char *what, gpu_ptr p)
{
	double start = gpu_now_us();
	int fd = -1;

	ASK(what, cuMemGetHandleForAddressRange, &fd, p, BYTES, GPU_DMA_BUF, 0);
	answer(what, "RDMA devices can be given this memory", "descriptor %d, %.0f us", fd, gpu_now_us() - start);
	return true;
}

static bool dma_buf(void)
{
	uint64_t h;
	gpu_ptr p;
	size_t n;

	ASK("of_alloc", cuMemAlloc, &p, BYTES);
	export_range("of_alloc", p);
	return make("of_vmm", &n, &h, &p) && export_range("of_vmm", p);
}

/* ---- events ---- */

static bool events_help(void)
{
	struct letter m = { 0 };
	probe_word *w;
	void *e, *s;

	if (!probe_pinned("create", &w) || !probe_streams("create", &s, 1))
		return false;
	ASK("create", cuEventCreate, &e, GPU_NO_TIMING | GPU_INTERPROCESS);
	ASK("create", cuStreamWaitValue32, s, probe_ptr(w), 1, GPU_GEQ);
	ASK("create", cuEventRecord, e, s);
	ASK("create", cuIpcGetEventHandle, &m.handle, e);
	if (!tell(&m, -1) || !wait_nod())
		return false;
	usleep(50000); /* so long does the other one's stream wait at least */
	atomic_store(w, 1);
	return nod() && wait_nod();
}

static bool events(void)
{
	probe_word *done;
	struct letter m;
	bool early;
	void *e, *s;

	if (!probe_pinned("wait", &done) || !probe_streams("wait", &s, 1) || !hear(&m, NULL))
		return false;
	ASK("wait", cuIpcOpenEventHandle, &e, m.handle);
	ASK("wait", cuStreamWaitEvent, s, e, 0);
	ASK("wait", cuStreamWriteValue32, s, probe_ptr(done), 1, 0);
	early = probe_soon(done, 1, 20);
	if (!nod() || !wait_nod())
		return false;
	ASK("wait", cuStreamSynchronize, s);
	answer("wait", "streams of two processes ordered without words", "%s",
	       early ? "did NOT wait for the other process" : "waits for the other process");
	return nod();
}

/* ---- words of a page that both processes have ---- */

static bool shared_words(const char *what, probe_word **host, gpu_ptr *device)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, probe.words, 0);

	if (p == MAP_FAILED) {
		answer(what, NULL, "mmap: %s", strerror(errno));
		return false;
	}
	*host = p;
	ASK(what, cuMemHostRegister, p, 4096, GPU_PORTABLE | GPU_DEVICEMAP);
	ASK(what, cuMemHostGetDevicePointer, device, p, 0);
	return true;
}

/* Both streams are filled, then the word at the start lets them go. */
static bool pong_stream(const char *what, gpu_ptr w, void *s)
{
	ASK(what, cuStreamWaitValue32, s, w + 512, 1, GPU_GEQ);
	for (uint32_t i = 1; i <= TURNS; i++) {
		if (!probe.side)
			ASK(what, cuStreamWriteValue32, s, w, i, 0);
		ASK(what, cuStreamWaitValue32, s, w + (probe.side ? 0 : 256), i, GPU_GEQ);
		if (probe.side)
			ASK(what, cuStreamWriteValue32, s, w + 256, i, 0);
	}
	return true;
}

static bool shared_help(void)
{
	probe_word *host;
	gpu_ptr w;
	void *s;

	if (!shared_words("register", &host, &w) || !probe_streams("register", &s, 1) || !pong_stream("register", w, s))
		return false;
	return nod() && wait_nod();
}

static bool shared(void)
{
	probe_word *host;
	double start;
	gpu_ptr w;
	void *s;

	if (!shared_words("streams", &host, &w) || !probe_streams("streams", &s, 1))
		return false;
	answer("address", "the device's address of registered memory", "%s",
	       (uintptr_t)host == w ? "the same as the host's" : "another than the host's");
	if (!pong_stream("streams", w, s) || !wait_nod())
		return false;
	start = gpu_now_us();
	atomic_store(host + 128, 1);
	ASK("streams", cuStreamSynchronize, s);
	answer("streams", "a barrier between processes on one device costs two", "%.1f us a word",
	       (gpu_now_us() - start) / (2 * TURNS));
	return nod();
}

/* ---- one process computes or waits, the other wants the device ---- */

static bool launches(double *first, double *each)
{
	double start = gpu_now_us();
	void *fn, *s;

	if (!probe_streams("launch", &s, 1))
		return false;
	ASK_KERNEL("launch", "gpu_empty", &fn);
	*first = 0;
	for (int i = 0; i < LAUNCHES; i++) {
		start = i == 1 ? gpu_now_us() : start;
		ASK("launch", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL);
		ASK("launch", cuStreamSynchronize, s);
		if (!i)
			*first = gpu_now_us() - start;
	}
	*each = (gpu_now_us() - start) / (LAUNCHES - 1);
	return true;
}

static bool turns_help(void)
{
	struct letter m = { 0 };

	for (int i = 0; i < 3; i++)
		if (!wait_nod() || !launches(&m.us[0], &m.us[1]) || !tell(&m, -1))
			return false;
	return wait_nod();
}

static bool other_launches(const char *what, const char *why)
{
	struct letter m;

	if (!nod() || !hear(&m, NULL))
		return false;
	answer(what, why, "%.1f us a launch of the other process, the first %.1f us", m.us[1], m.us[0]);
	return true;
}

static bool turns(void)
{
	struct gpu_spin_args args;
	probe_word *gate;
	void *s, *fn, *list[] = { &args };

	if (!probe_pinned("waits", &gate) || !probe_streams("waits", &s, 1) ||
	    !other_launches("idle", "with nothing else on the device"))
		return false;
	ASK("waits", cuStreamWaitValue32, s, probe_ptr(gate), 1, GPU_GEQ);
	if (!other_launches("stream_waits", "if much more than idle: a wait keeps the device"))
		return false;
	atomic_store(gate, 1);
	ASK("waits", cuStreamSynchronize, s);
	atomic_store(gate, 0);
	ASK_KERNEL("kernel_runs", "gpu_spin", &fn);
	args = (struct gpu_spin_args){ (uint32_t *)gate, (uint32_t *)(gate + 64), 4000000000u };
	ASK("kernel_runs", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s, list, NULL);
	if (!probe_soon(gate + 64, 1, 1000) ||
	    !other_launches("kernel_runs", "milliseconds: processes take turns, no kernel may wait for another's"))
		return false;
	atomic_store(gate, 1);
	return nod();
}

const struct question probe_pairs[] = {
	{ .name = "ipc", .ask = ipc, .help = ipc_help },
	{ .name = "vmm", .ask = vmm, .help = vmm_help },
	{ .name = "dma_buf", .ask = dma_buf },
	{ .name = "ipc_event", .ask = events, .help = events_help },
	{ .name = "shared_words", .ask = shared, .help = shared_help },
	{ .name = "processes", .ask = turns, .help = turns_help },
	{ .name = NULL },
};
