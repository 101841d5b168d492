/* The questions of tutti-gpu-probe. Each is asked by a child process, some with a second one at its side; whatever
 * it prints is flushed line by line, as the next call may never return. */
#ifndef TT_GPU_PROBE_H
#define TT_GPU_PROBE_H

#include <stdatomic.h>

#include "gpu.h"
#include "gpu_kernels.h"

struct question {
	const char *name;
	bool (*ask)(void);
	bool (*help)(void); /* the second process, or NULL */
	const char *setting, *value; /* of the environment, before CUDA's first call; or NULL */
};
extern const struct question probe_device[], probe_waits[], probe_pairs[]; /* end with a name of NULL */

struct probe_shared { /* between the processes of a question, and the one that watches them */
	char at[2][128]; /* what they are at */
	_Atomic int ready[2];
};

extern struct probe { /* of this process */
	const char *name;
	int device, sms, side;
	int sock, words; /* to the other one; a memfd of a page that both have */
	struct probe_shared *shared;
} probe;

void at(const char *what);
/* "question.what: value -- why it matters" (or NULL) */
void answer(const char *what, const char *why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool refused(const char *what, const char *call, int e); /* says so; false */
#define ASK(what, name, ...)                                                                       \
	do {                                                                                       \
		int ask_e;                                                                         \
		at(#name);                                                                         \
		ask_e = GPU(name, __VA_ARGS__);                                                    \
		if (ask_e)                                                                         \
			return refused(what, #name, ask_e);                                        \
	} while (0)
#define ASK_KERNEL(what, name, fn)                                                                 \
	do {                                                                                       \
		int ask_e = gpu_kernel(name, fn);                                                  \
		if (ask_e)                                                                         \
			return refused(what, "kernel " name, ask_e);                               \
	} while (0)

typedef _Atomic uint32_t probe_word;
bool probe_pinned(const char *what, probe_word **out); /* a page of zeros */
bool probe_streams(const char *what, void **out, int n);
static inline gpu_ptr probe_ptr(probe_word *w)
{
	return (gpu_ptr)w;
}
bool probe_soon(const probe_word *w, uint32_t value, int ms); /* false: not by then */

#endif
