/* What the fake driver shares between processes keeps the rules of a driver. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base.h"
#include "cuda_lib.h"
#include "ranks.h"
#include "test.h"

enum { SIZE = 2 << 20 };

static struct {
	int (*cuInit)(unsigned flags);
	int (*cuDevicePrimaryCtxRetain)(void **ctx, int device);
	int (*cuCtxSetCurrent)(void *ctx);
	int (*cuMemAlloc)(tt_cuda_ptr *p, size_t n);
	int (*cuMemFree)(tt_cuda_ptr p);
	void *(*cuFakeView)(const void *p);
	int (*cuFakeLive)(void);
#define MEMBER(name, version, args) int (*name) args;
	TT_CUDA_SHARING(MEMBER)
} cu;

static void start(int device)
{
	const struct tt_symbol rows[] = {
		{ &cu.cuInit, "cuInit" }, { &cu.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain" },
		{ &cu.cuCtxSetCurrent, "cuCtxSetCurrent" }, { &cu.cuMemAlloc, "cuMemAlloc_v2" },
		{ &cu.cuMemFree, "cuMemFree_v2" }, { &cu.cuFakeView, "cuFakeView" },
		{ &cu.cuFakeLive, "cuFakeLive" },
	};
	void *so = dlopen("libcuda.so.1", RTLD_NOW), *ctx;
	int (*get)(const char *name, void **fn, int version, uint64_t flags) = NULL;
	void *p = so ? dlsym(so, "cuGetProcAddress") : NULL;

	CHECK(so && p && !tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0])));
	memcpy(&get, &p, sizeof(p));
#define GET(name, version, args) CHECK(!get(#name, (void **)&cu.name, version, 1) && cu.name);
	TT_CUDA_SHARING(GET)
	CHECK(!cu.cuInit(0) && !cu.cuDevicePrimaryCtxRetain(&ctx, device) && !cu.cuCtxSetCurrent(ctx));
}

/* In a child, which says by its status how it went; it may check nothing by the framework. */
static int child(pid_t *pid, int *sock)
{
	int pair[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	*pid = fork();
	CHECK(*pid >= 0);
	*sock = pair[*pid == 0];
	close(pair[*pid != 0]);
	return *pid == 0;
}

static void ended(pid_t pid, int sock, int want)
{
	int status;

	close(sock);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == want, "the child ended with status %#x, not %d", status,
	       want);
}

/* ---- legacy handles ---- */

static int opener(int sock)
{
	struct tt_cuda_ipc h;
	tt_cuda_ptr p, q;

	if (read(sock, &h, sizeof(h)) != sizeof(h))
		return 1;
	start(0);
	if (cu.cuIpcOpenMemHandle(&p, h, 0) != TT_CUDA_INVALID_VALUE)
		return 2;
	if (cu.cuIpcOpenMemHandle(&p, h, TT_CUDA_LAZY_PEERS) || cu.cuIpcOpenMemHandle(&q, h, TT_CUDA_LAZY_PEERS) ||
	    p != q)
		return 3;
	if (strcmp(cu.cuFakeView((void *)p), "of the parent"))
		return 4;
	if (cu.cuIpcCloseMemHandle(p) || strcmp(cu.cuFakeView((void *)p), "of the parent"))
		return 5;
	if (write(sock, "", 1) != 1 || read(sock, &h, 1) != 1) /* open still, while the owner frees or not */
		return 6;
	if (cu.cuIpcCloseMemHandle(p) || cu.cuIpcCloseMemHandle(p) != TT_CUDA_INVALID_VALUE || cu.cuFakeLive())
		return 7;
	return write(sock, "", 1) == 1 ? 0 : 8;
}

static void names(void)
{
	struct tt_cuda_ipc h;
	tt_cuda_ptr p, q;
	pid_t pid;
	int sock;
	char c;

	if (child(&pid, &sock))
		_exit(opener(sock));
	start(0);
	CHECK(!cu.cuMemAlloc(&p, SIZE));
	strcpy(cu.cuFakeView((void *)p), "of the parent");
	CHECK(!cu.cuIpcGetMemHandle(&h, p));
	CHECK(cu.cuIpcOpenMemHandle(&q, h, TT_CUDA_LAZY_PEERS) == TT_CUDA_INVALID_CONTEXT);
	CHECK(write(sock, &h, sizeof(h)) == sizeof(h) && read(sock, &c, 1) == 1);
	CHECK(write(sock, "", 1) == 1 && read(sock, &c, 1) == 1);
	CHECK(!cu.cuMemFree(p));
	ended(pid, sock, 0);
}

static int hasty_owner(int sock)
{
	struct tt_cuda_ipc h;
	tt_cuda_ptr p;
	char c;

	signal(SIGABRT, SIG_DFL);
	start(0);
	if (cu.cuMemAlloc(&p, SIZE) || cu.cuIpcGetMemHandle(&h, p) || write(sock, &h, sizeof(h)) != sizeof(h) ||
	    read(sock, &c, 1) != 1)
		return 1;
	cu.cuMemFree(p);
	return 2;
}

/* What drivers leave undefined ends the program. */
static void early_free(void)
{
	struct tt_cuda_ipc h;
	tt_cuda_ptr p;
	pid_t pid;
	int sock, status;

	if (child(&pid, &sock))
		_exit(hasty_owner(sock));
	CHECK(read(sock, &h, sizeof(h)) == sizeof(h));
	start(0);
	CHECK(!cu.cuIpcOpenMemHandle(&p, h, TT_CUDA_LAZY_PEERS) && write(sock, "", 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	close(sock);
	CHECK(!cu.cuIpcCloseMemHandle(p));
}

const struct test tests[] = {
	{ "legacy handles", names, 20 },
	{ "freed while it is open elsewhere", early_free, 20 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
