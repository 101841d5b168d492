/* Questions about waiting: how fast words arrive, and what stands still while a stream waits or a kernel runs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gpu_probe.h"

/* ---- how fast ---- */

enum { TURNS = 100, SHORT_MS = 400, LONG_NS = 3000000000u };

static bool streams_pong(const char *what, gpu_ptr a, gpu_ptr b, probe_word *gate)
{
	void *s[2];
	double start;

	if (!probe_streams(what, s, 2))
		return false;
	atomic_store(gate, 0);
	ASK(what, cuStreamWaitValue32, s[0], probe_ptr(gate), 1, GPU_GEQ);
	for (uint32_t i = 1; i <= TURNS; i++) {
		ASK(what, cuStreamWriteValue32, s[0], a, i, 0);
		ASK(what, cuStreamWaitValue32, s[0], b, i, GPU_GEQ);
		ASK(what, cuStreamWaitValue32, s[1], a, i, GPU_GEQ);
		ASK(what, cuStreamWriteValue32, s[1], b, i, 0);
	}
	start = gpu_now_us();
	atomic_store(gate, 1);
	for (int i = 0; i < 2; i++)
		ASK(what, cuStreamSynchronize, s[i]);
	answer(what, "a write that another stream waits for", "%.2f us", (gpu_now_us() - start) / (2 * TURNS));
	return true;
}

static bool on_device(probe_word *gate, probe_word *zeros)
{
	gpu_ptr p;
	void *s;

	if (!probe_streams("device_words", &s, 1))
		return false;
	ASK("device_words", cuMemAlloc, &p, 4096);
	ASK("device_words", cuMemcpyAsync, p, probe_ptr(zeros), 4096, s);
	ASK("device_words", cuStreamSynchronize, s);
	return streams_pong("device_words", p, p + 256, gate);
}

/* Whoever has the other processor may need this one. */
static void pause_at(unsigned n)
{
	if (n % 4096 == 4095)
		sched_yield();
}

static bool host_pong(probe_word *w)
{
	unsigned n = 0;
	double start;
	void *s;

	if (!probe_streams("host_and_stream", &s, 1))
		return false;
	for (uint32_t i = 1; i <= TURNS; i++) {
		ASK("host_and_stream", cuStreamWaitValue32, s, probe_ptr(w), i, GPU_GEQ);
		ASK("host_and_stream", cuStreamWriteValue32, s, probe_ptr(w + 64), i, 0);
	}
	at("a word from the stream");
	start = gpu_now_us();
	for (uint32_t i = 1; i <= TURNS; i++) {
		atomic_store_explicit(w, i, memory_order_release);
		while (atomic_load_explicit(w + 64, memory_order_acquire) != i)
			pause_at(n++);
	}
	answer("host_and_stream", "a message by the network costs such a turn", "%.2f us",
	       (gpu_now_us() - start) / TURNS);
	return true;
}

static bool kernel_pong(probe_word *w)
{
	struct gpu_pong_args args = { (uint32_t *)w, (uint32_t *)(w + 64), TURNS, LONG_NS };
	void *fn, *s, *list[] = { &args };
	unsigned n = 0;
	double start;

	if (!probe_streams("host_and_kernel", &s, 1))
		return false;
	ASK_KERNEL("host_and_kernel", "gpu_pong", &fn);
	ASK("host_and_kernel", cuLaunchKernel, fn, 1, 1, 1, 1, 1, 1, 0, s, list, NULL);
	at("a word from the kernel");
	start = gpu_now_us();
	for (uint32_t i = 1; i <= TURNS; i++) {
		atomic_store_explicit(w, i, memory_order_release);
		while (atomic_load_explicit(w + 64, memory_order_acquire) != i)
			pause_at(n++);
		if (i == 1) /* it has begun */
			start = gpu_now_us();
	}
	answer("host_and_kernel", "the same with a kernel that stays and looks", "%.2f us",
	       (gpu_now_us() - start) / (TURNS - 1));
	return true;
}

static bool words(void)
{
	probe_word *w[4];

	for (int i = 0; i < 4; i++)
		if (!probe_pinned("words", &w[i]))
			return false;
	streams_pong("pinned_words", probe_ptr(w[0]), probe_ptr(w[0] + 64), w[1]);
	host_pong(w[2]);
	kernel_pong(w[3]);
	memset(w[0], 0, 4096);
	return on_device(w[1], w[0]);
}

static bool capture(void)
{
	void *s, *graph, *exec;
	probe_word *w;

	if (!probe_pinned("memops", &w) || !probe_streams("memops", &s, 1))
		return false;
	ASK("memops", cuStreamBeginCapture, s, GPU_RELAXED);
	ASK("memops", cuStreamWaitValue32, s, probe_ptr(w), 1, GPU_GEQ);
	ASK("memops", cuStreamWriteValue32, s, probe_ptr(w), 0, 0);
	ASK("memops", cuStreamWriteValue32, s, probe_ptr(w + 64), 7, 0);
	ASK("memops", cuStreamEndCapture, s, &graph);
	ASK("memops", cuGraphInstantiateWithFlags, &exec, graph, 0);
	for (int i = 0; i < 2; i++) {
		atomic_store(w + 64, 0);
		ASK("memops", cuGraphLaunch, exec, s);
		atomic_store(w, 1);
		ASK("memops", cuStreamSynchronize, s);
		if (atomic_load(w + 64) != 7 || atomic_load(w)) {
			answer("memops", "graphs need kernels that wait", "captured, but replay %d wrote %u", i,
			       (unsigned)atomic_load(w + 64));
			return false;
		}
	}
	answer("memops", "graphs can wait and write by memory operations", "captured, and right when replayed twice");
	return true;
}

/* What the library does besides while somebody captures in the strictest mode. */
static bool beside_capture(void *stream)
{
	int mode = GPU_RELAXED;
	probe_word *w;
	gpu_ptr p;
	void *e;

	ASK("relaxed", cuThreadExchangeStreamCaptureMode, &mode);
	ASK("relaxed.event", cuEventCreate, &e, GPU_NO_TIMING);
	ASK("relaxed.memory", cuMemAlloc, &p, 4096);
	if (!probe_pinned("relaxed.pinned", &w))
		return false;
	ASK("relaxed.copy_beside", cuMemcpyAsync, p, probe_ptr(w), 4, stream);
	ASK("relaxed.sync_beside", cuStreamSynchronize, stream);
	ASK("relaxed", cuThreadExchangeStreamCaptureMode, &mode);
	return true;
}

/* What it takes for granted of events; two streams of one capture, as those of two ranks. */
static bool capture_calls(void)
{
	void *s[3], *e[2], *graph, *exec;
	probe_word *w;

	if (!probe_pinned("streams", &w) || !probe_streams("streams", s, 3))
		return false;
	for (int i = 0; i < 2; i++)
		ASK("streams", cuEventCreate, &e[i], GPU_NO_TIMING);
	ASK("streams", cuStreamBeginCapture, s[0], GPU_GLOBAL);
	ASK("streams", cuEventRecord, e[0], s[0]);
	ASK("streams", cuStreamWaitEvent, s[1], e[0], 0);
	ASK("streams", cuStreamWriteValue32, s[1], probe_ptr(w), 7, 0);
	if (!beside_capture(s[2]))
		return false;
	ASK("streams", cuEventRecord, e[1], s[1]);
	ASK("streams", cuStreamWaitEvent, s[0], e[1], 0);
	ASK("streams", cuStreamEndCapture, s[0], &graph);
	ASK("streams", cuGraphInstantiateWithFlags, &exec, graph, 0);
	ASK("streams", cuGraphLaunch, exec, s[0]);
	ASK("streams", cuStreamSynchronize, s[0]);
	answer("streams", "ranks capture together, and the library takes memory beside it", "%s",
	       atomic_load(w) == 7 ? "joined, whole, and right when replayed" : "joined, but the replay did nothing");
	answer("old_event.query", NULL, "%s", gpu_words(GPU(cuEventQuery, e[0])));
	ASK("old_event", cuEventRecord, e[0], s[0]);
	ASK("old_event", cuStreamWaitEvent, s[1], e[0], 0);
	answer("old_event", "events of captures are used again", "recorded again, and waited for");
	ASK("strict", cuStreamBeginCapture, s[0], GPU_GLOBAL);
	ASK("strict.event", cuEventCreate, &e[0], GPU_NO_TIMING); /* the last, as it may end the capture */
	answer("strict.event", "else a user's own capture ends with it", "made");
	return true;
}

/* ---- what stands still ---- */

/* Streams in a wait, until another one does not move. */
static bool queues(void)
{
	enum { MOST = 64 };
	probe_word *w, *done;
	void *s[MOST + 1], *fn;
	int n;

	if (!probe_pinned("streams", &w) || !probe_streams("streams", s, MOST + 1))
		return false;
	done = w + 64;
	ASK_KERNEL("streams", "gpu_empty", &fn);
	for (n = 1; n <= MOST; n++) {
		bool free;

		atomic_store(w, 0);
		atomic_store(done, 0);
		for (int i = 0; i < n; i++)
			ASK("streams", cuStreamWaitValue32, s[i], probe_ptr(w), 1, GPU_GEQ);
		ASK("streams", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s[n], NULL, NULL);
		ASK("streams", cuStreamWriteValue32, s[n], probe_ptr(done), 1, 0);
		free = probe_soon(done, 1, SHORT_MS);
		atomic_store(w, 1);
		for (int i = 0; i <= n; i++)
			ASK("streams", cuStreamSynchronize, s[i]);
		if (!free)
			break;
	}
	answer("streams", "so many ranks as threads can wait on streams before one holds another back", "%s%d",
	       n > MOST ? "more than " : "", n > MOST ? MOST : n);
	return true;
}

/* A call on a thread of its own, as it may not come back. */
static struct {
	int (*call)(void);
	probe_word done;
	int e;
	double us;
	void *stream, *other, *fn, *pinned;
	gpu_ptr memory, to_free;
} late;

static void *late_call(void *arg)
{
	double start;

	(void)gpu_use(probe.device);
	start = gpu_now_us();
	late.e = late.call();
	late.us = gpu_now_us() - start;
	atomic_store(&late.done, 1);
	return NULL;
}

static bool meanwhile(const char *what, int (*call)(void), const char *why)
{
	pthread_t t;

	at(what);
	late.call = call;
	atomic_store(&late.done, 0);
	if (pthread_create(&t, NULL, late_call, NULL))
		return false;
	if (!probe_soon(&late.done, 1, SHORT_MS))
		answer(what, why, "waits");
	else if (late.e)
		refused(what, "the call", late.e);
	else
		answer(what, NULL, "%.1f us", late.us);
	return !pthread_detach(t);
}

static int call_alloc(void)
{
	gpu_ptr p;

	return GPU(cuMemAlloc, &p, 64 << 20);
}

static int call_host_alloc(void)
{
	void *p;

	return GPU(cuMemHostAlloc, &p, 1 << 20, GPU_PORTABLE | GPU_DEVICEMAP);
}

static int call_stream(void)
{
	void *s;

	return GPU(cuStreamCreate, &s, GPU_NON_BLOCKING);
}

static int call_event(void)
{
	void *e;

	return GPU(cuEventCreate, &e, GPU_NO_TIMING);
}

static int call_load(void)
{
	void *fn;
	int e = gpu_kernel_again("gpu_copy", &fn);

	return e ? e : GPU(cuFuncLoad, fn);
}

static int call_launch(void)
{
	return GPU(cuLaunchKernel, late.fn, 1, 1, 1, 32, 1, 1, 0, late.other, NULL, NULL);
}

static int call_copy(void)
{
	return GPU(cuMemcpyAsync, late.memory, (gpu_ptr)late.pinned, 1024, late.other);
}

static int call_launch_behind(void)
{
	return GPU(cuLaunchKernel, late.fn, 1, 1, 1, 32, 1, 1, 0, late.stream, NULL, NULL);
}

static int call_copy_behind(void)
{
	return GPU(cuMemcpyAsync, late.memory, (gpu_ptr)late.pinned, 1024, late.stream);
}

static int call_free(void)
{
	return GPU(cuMemFree, late.to_free);
}

static bool prepare(const char *what, probe_word **gate)
{
	if (!probe_pinned(what, gate) || !probe_streams(what, &late.stream, 1) || !probe_streams(what, &late.other, 1))
		return false;
	late.pinned = *gate + 128;
	ASK_KERNEL(what, "gpu_empty", &late.fn);
	ASK(what, cuMemAlloc, &late.memory, 1 << 20);
	ASK(what, cuMemAlloc, &late.to_free, 1 << 20);
	return true;
}

static const struct {
	const char *what;
	int (*call)(void);
	const char *why;
} calls[] = { /* the last may stop those behind it */
	{ "launch_behind_it", call_launch_behind, "whoever calls waits for the other ranks" },
	{ "copy_behind_it", call_copy_behind, "whoever calls waits for the other ranks" },
	{ "launch_elsewhere", call_launch, "ranks of one process stop each other" },
	{ "copy_elsewhere", call_copy, "ranks of one process stop each other" },
	{ "event_create", call_event, "make events at init" },
	{ "stream_create", call_stream, "make streams at init" },
	{ "host_alloc", call_host_alloc, "take pinned memory at init" },
	{ "alloc", call_alloc, "take temporaries at init" },
	{ "load", call_load, "load kernels at init, never later" },
	{ "free", call_free, "as expected: memory is kept until the end" },
};

/* The wait may go on for ever: each call is one thread's, and the process ends with _exit. */
static bool waiting(void)
{
	probe_word *gate;

	if (!prepare("prepare", &gate))
		return false;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		atomic_store(gate, 0);
		ASK(calls[i].what, cuStreamWaitValue32, late.stream, probe_ptr(gate), 1, GPU_GEQ);
		meanwhile(calls[i].what, calls[i].call, calls[i].why);
		atomic_store(gate, 1);
		ASK(calls[i].what, cuStreamSynchronize, late.stream);
		if (!probe_soon(&late.done, 1, SHORT_MS)) {
			answer(calls[i].what, NULL, "not even when the stream has ended");
			return false;
		}
	}
	return true;
}

static bool spin(const char *what, void *stream, probe_word *gate, unsigned blocks, unsigned threads)
{
	struct gpu_spin_args args = { (uint32_t *)gate, (uint32_t *)(gate + 64), LONG_NS };
	void *fn, *list[] = { &args };

	atomic_store(gate, 0);
	atomic_store(gate + 64, 0);
	ASK_KERNEL(what, "gpu_spin", &fn);
	ASK(what, cuLaunchKernel, fn, blocks, 1, 1, threads, 1, 1, 0, stream, list, NULL);
	if (!probe_soon(gate + 64, 1, 2000)) {
		answer(what, NULL, "the kernel that should fill the device has not begun");
		return false;
	}
	return true;
}

static bool passes(const char *what, const char *why, int (*call)(void), probe_word *done)
{
	int e;

	atomic_store(done, 0);
	at(what);
	e = call();
	if (e)
		return refused(what, "the call", e);
	ASK(what, cuStreamWriteValue32, late.other, probe_ptr(done), 1, 0);
	answer(what, why, "%s", probe_soon(done, 1, SHORT_MS) ? "goes on" : "waits for a free processor");
	return true;
}

static int copy_within(void)
{
	return GPU(cuMemcpyDtoDAsync, late.memory, late.to_free, 1 << 20, late.other);
}

/* All processors busy: what still moves? */
static bool busy(void)
{
	probe_word *gate;

	if (!prepare("prepare", &gate) ||
	    !spin("prepare", late.stream, gate, (unsigned)(probe.sms ? probe.sms : 1) * 2, 1024))
		return false;
	passes("copy_in", "copy engines", call_copy, gate + 192);
	passes("copy_within", "does a copy on the device need processors?", copy_within, gate + 192);
	passes("launch", NULL, call_launch, gate + 192);
	atomic_store(gate, 1);
	return true;
}

static int first_launch(void)
{
	void *fn, *s;
	struct gpu_fma_args args = { NULL, 0 };
	int e = gpu_kernel_again("gpu_fma", &fn);

	if (!e)
		e = GPU(cuStreamCreate, &s, GPU_NON_BLOCKING);
	return e ? e : gpu_launch(fn, 1, 32, s, &args);
}

static void *first_thread(void *done)
{
	(void)gpu_use(probe.device);
	(void)first_launch();
	atomic_store((probe_word *)done, 1);
	return NULL;
}

/* One thread launches for the first time, another copies: the deadlock that keeps CUDA off our own threads. */
static bool during(const char *kind, probe_word *gate)
{
	static probe_word launched;
	char what[64];
	pthread_t t;

	atomic_store(&launched, 0);
	if (pthread_create(&t, NULL, first_thread, &launched))
		return false;
	pthread_detach(t);
	usleep(50000);
	snprintf(what, sizeof(what), "copy_of_another_thread_during_%s", kind);
	meanwhile(what, call_copy, "no thread of ours may call CUDA");
	snprintf(what, sizeof(what), "first_launch_during_%s", kind);
	answer(what, "load kernels at init", "%s", probe_soon(&launched, 1, SHORT_MS) ? "goes on" : "waits");
	atomic_store(gate, 1);
	return probe_soon(&launched, 1, 2000);
}

static bool first(void)
{
	probe_word *gate;

	if (!prepare("prepare", &gate) || !spin("during_kernel", late.stream, gate, 1, 32))
		return false;
	if (!during("kernel", gate))
		return false;
	ASK("during_wait", cuStreamSynchronize, late.stream);
	atomic_store(gate, 0);
	ASK("during_wait", cuStreamWaitValue32, late.stream, probe_ptr(gate), 1, GPU_GEQ);
	return during("wait", gate);
}

static void hold(void *word)
{
	(void)probe_soon(word, 1, 2000);
}

static void release(void *word)
{
	atomic_store((probe_word *)word, 1);
}

static bool callbacks(void)
{
	static probe_word gate, ran;
	void *s[2];

	if (!probe_streams("of_two_streams", s, 2))
		return false;
	ASK("of_two_streams", cuLaunchHostFunc, s[0], hold, &gate);
	usleep(20000);
	ASK("of_two_streams", cuLaunchHostFunc, s[1], release, &ran);
	answer("of_two_streams", "a callback must not wait for another rank's", "%s",
	       probe_soon(&ran, 1, SHORT_MS) ? "run at the same time" : "wait for each other");
	atomic_store(&gate, 1);
	return true;
}

const struct question probe_waits[] = {
	{ .name = "words", .ask = words },
	{ .name = "capture", .ask = capture },
	{ .name = "capture_calls", .ask = capture_calls },
	{ .name = "queues", .ask = queues },
	{ .name = "queues_1_connection", .ask = queues, .setting = "CUDA_DEVICE_MAX_CONNECTIONS", .value = "1" },
	{ .name = "queues_32_connections", .ask = queues, .setting = "CUDA_DEVICE_MAX_CONNECTIONS", .value = "32" },
	{ .name = "waiting", .ask = waiting },
	{ .name = "waiting_1_connection", .ask = waiting, .setting = "CUDA_DEVICE_MAX_CONNECTIONS", .value = "1" },
	{ .name = "waiting_launch_blocking", .ask = waiting, .setting = "CUDA_LAUNCH_BLOCKING", .value = "1" },
	{ .name = "busy", .ask = busy },
	{ .name = "callbacks", .ask = callbacks },
	{ .name = "first_lazy", .ask = first, .setting = "CUDA_MODULE_LOADING", .value = "LAZY" },
	{ .name = "first_eager", .ask = first, .setting = "CUDA_MODULE_LOADING", .value = "EAGER" },
	{ .name = NULL },
};
