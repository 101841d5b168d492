/* Floor 0: what every file may use. Time, small arithmetic, results, log, settings. */
#ifndef TT_BASE_H
#define TT_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tutti.h"

/* ---- results (result.c): the one error list is TT_RESULTS ---- */
#define TT_RESULTS(X)                                                                              \
	X(tuttiSuccess, "success", "")                                                             \
	X(tuttiUnhandledCudaError, "CUDA call failed", "see the text for the driver's own words")  \
	X(tuttiSystemError, "system call failed", "see the text for errno and the endpoint")       \
	X(tuttiInternalError, "internal error in tutti", "please report it with TUTTI_LOG=debug")  \
	X(tuttiInvalidArgument, "invalid argument", "nothing was changed; correct the call")       \
	X(tuttiInvalidUsage, "invalid usage", "nothing was changed; see the call's contract")      \
	X(tuttiRemoteError, "another rank failed", "the text names the rank that failed first")    \
	X(tuttiInProgress, "in progress", "poll tuttiCommGetAsyncError")                           \
	X(tuttiTimeout, "deadline passed", "the text names who was waited for")                    \
	X(tuttiPeerDead, "a rank died", "abort this communicator and make one of the survivors")   \
	X(tuttiMismatch, "ranks called different things", "compare the two signatures")            \
	X(tuttiAborted, "communicator aborted", "make a new communicator")                         \
	X(tuttiUnsupported, "unsupported combination", "see the table in docs/api.md")             \
	X(tuttiForked, "communicator used after fork", "use it in the parent, or make a new one")

#define TT_TEXT 1024 /* bytes of an error's sentence: device, port, address, peer, cause and what to do fit twice */
const char *tt_result_text(tuttiResult_t r);
/* Who decides an error says it once: keeps the text for tuttiGetLastError of this thread, logs it at
 * level error, returns r. Who passes an error on stays silent. Keeps errno. */
tuttiResult_t tt_fail(tuttiResult_t r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same without logging: for errors that are handed to another owner who will say them. */
tuttiResult_t tt_note_error(tuttiResult_t r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
const char *tt_last_error(void); /* of this thread, never NULL */
bool tt_last_error_said(void);   /* it is in the log already */

#define TRY(e)                                                                                     \
	do {                                                                                       \
		tuttiResult_t try_ = (e);                                                          \
		if (try_ != tuttiSuccess)                                                          \
			return try_;                                                               \
	} while (0)
#define TRY_GOTO(r, e, label)                                                                      \
	do {                                                                                       \
		(r) = (e);                                                                         \
		if ((r) != tuttiSuccess)                                                           \
			goto label;                                                                \
	} while (0)

/* ---- log (log.c): TUTTI_LOG=level[,subsystem:level...]; stderr only; errors shown by default ---- */
enum tt_log_level { TT_LOG_NONE, TT_LOG_ERROR, TT_LOG_WARN, TT_LOG_INFO, TT_LOG_DEBUG };
bool tt_log_on(enum tt_log_level level, const char *subsystem);
void tt_log(enum tt_log_level level, const char *subsystem, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- settings (env.c): one table, docs/settings.md is generated from it; misspelt ones reported ---- */
const char *tt_env_str(const char *name);     /* value or default; name without the TUTTI_ prefix */
int64_t tt_env_int(const char *name);         /* sizes take K M G suffixes */
double tt_env_seconds(const char *name);
void tt_env_check(void);                      /* warns once about unknown TUTTI_* variables */
const char *tt_env_shown(const char *name);   /* what is set, for people: no secret; NULL: nothing */
void tt_env_print(void *file, bool markdown); /* FILE *: the table, for tutti-info and the docs */
uint64_t tt_env_digest(void);                 /* of the settings that all ranks must share */
int tt_env_shared(char *out, size_t n);       /* the same as text "NAME=value ..."; length */

/* ---- time and numbers (base.c) ---- */
uint64_t tt_now_ns(void);                     /* monotonic */
uint64_t tt_hash64(const void *p, size_t n, uint64_t seed);
tuttiResult_t tt_random_bytes(void *p, size_t n);
const char *tt_first_line(const char *path, char *out, size_t n); /* of a file; "": none. Returns out */
struct tt_symbol { /* one function of a library: where its address goes */
	void *slot;
	const char *name;
};
const char *tt_symbols(void *so, const struct tt_symbol *rows, size_t n); /* the first that is missing; NULL: none */
void tt_next_core(void);                      /* moves this thread, once; its affinity stays */
int tt_usable_cores(void);                    /* affinity and cgroup quota, at least 1 */
size_t tt_type_size(tuttiDataType_t t);       /* bytes of an element, 0 if invalid */
const char *tt_type_name(tuttiDataType_t t);  /* as nccl-tests prints it: float, half, bfloat16 ... */
const char *tt_op_name(int op);               /* sum prod max min avg premulsum user */

/* Memory that grows in steps: what is given back goes to the system at once, not to the heap, where it is large.
 * Aligned to 64; NULL: there is none. */
void *tt_block_new(size_t n);
void tt_block_free(void *p, size_t n);
/* A descriptor of n bytes of memory, zeros, which processes map that are given it; -1: errno says why. */
int tt_memfd(size_t n);

static inline size_t tt_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t tt_max(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t tt_div_up(size_t a, size_t b) { return (a + b - 1) / b; }
static inline void tt_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
