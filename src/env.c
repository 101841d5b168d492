/* The one table of settings: TUTTI_<NAME> in the environment. Values are read at each call, from
 * init paths only. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum kind { STRING, INTEGER, SIZE, SECONDS };

struct setting {
	const char *name;
	enum kind kind;
	bool shared; /* all ranks of a communicator must have the same value */
	const char *fallback, *help;
};

static const struct setting table[] = {
	{ "LOG", STRING, false, "error",
	  "what is logged on stderr: none, error, warn, info or debug, then subsystem:level pairs" },
	{ "TRANSPORTS", STRING, true, "all", "comma list of the transports that may be used" },
	{ "ADDRS", STRING, false, "",
	  "addresses, CIDR blocks or interface names to use, comma separated; empty: all that are up" },
	{ "PORT_RANGE", STRING, false, "", "lo-hi: TCP ports to listen on; empty: the system's choice" },
	{ "SILENCE", SECONDS, false, "10", "seconds without a sign of life until a rank counts as dead" },
	{ "DEADLINE", SECONDS, false, "60",
	  "seconds without a byte moving until an operation that has begun fails" },
	{ "INIT_DEADLINE", SECONDS, false, "120", "seconds until init gives up with a roll call" },
	{ "ARRIVAL_DEADLINE", SECONDS, false, "0",
	  "seconds to wait for a live rank that has not called; 0: for ever" },
	{ "SPIN", INTEGER, false, "2000", "microseconds to poll before a waiting thread sleeps" },
	{ "TCP_SOCKETS", INTEGER, true, "0", "sockets for each pair of processes; 0: chosen" },
	{ "TCP_EAGER", SIZE, true, "4K", "bytes that a TCP link sends before the receive is posted" },
	{ "SHM_SLOT", SIZE, true, "128K", "bytes of a slot of the shared memory pool" },
	{ "SHM_POOL", INTEGER, true, "8", "slots of the shared memory pool of two processes" },
	{ "IB_HCA", STRING, false, "",
	  "RDMA devices to use: names or their beginnings, with :port or without, comma separated; = in front: "
	  "whole names, ^: all but these; empty: all" },
	{ "IB_EAGER", SIZE, true, "4K", "RDMA messages up to here are sent without waiting for the receive" },
	{ "IB_GID_INDEX", INTEGER, false, "-1", "GID to use on each RDMA port; -1: chosen for each peer" },
	{ "IB_TIMEOUT", INTEGER, false, "0",
	  "RDMA: 4.096 us * 2^this until a packet counts as lost, 1 to 31 (14: 67 ms); 0: 14, in software 18" },
	{ "IB_RETRY_CNT", INTEGER, false, "6", "RDMA: how often a lost packet is sent again, 0 to 6" },
	{ "IB_SL", INTEGER, false, "0", "InfiniBand and RoCE: service level (RoCE: priority), 0 to 15" },
	{ "IB_TC", INTEGER, false, "0", "InfiniBand and RoCE: traffic class (RoCE v2: DSCP * 4), 0 to 255" },
	{ "IB_PKEY", INTEGER, false, "0", "InfiniBand: partition key, as 0x8001; 0: the port's first" },
	{ "IB_MTU", SIZE, false, "0", "RDMA: largest MTU in bytes; 0: the active MTU of the ports" },
	{ "IB_QPS_PER_CONNECTION", INTEGER, true, "1", "RDMA: queue pairs for each connection, 1 to 16" },
	{ "IB_REGISTERED", SIZE, false, "16G",
	  "RDMA: bytes of registered memory that a process holds pinned for each device; 0: none" },
	{ "NET_GDR_LEVEL", STRING, false, "PXB",
	  "GPUDirect RDMA: how far a CUDA device and an RDMA device may be apart: LOC (it is off), PIX, PXB, PHB, NODE "
	  "or SYS (any), as NCCL_NET_GDR_LEVEL; farther ones go through pinned memory" },
	{ "DMABUF_ENABLE", INTEGER, false, "1",
	  "GPUDirect RDMA: 0: not by dma-buf, as NCCL_DMABUF_ENABLE; then by nvidia-peermem, where it is" },
	{ "WINDOW", SIZE, true, "128K", "bytes of a chunk that moves at once in large operations" },
	{ "ALGO", STRING, true, "",
	  "forces algorithms: name, or collective:name pairs, comma separated; empty: chosen" },
	{ "SCHEDULE_FILE", STRING, false, "",
	  "schedules to use, in tutti's text or MSCCL's XML: files, comma separated, of the same contents on all "
	  "ranks; docs/schedules.md" },
	{ "CALIBRATION", STRING, true, "",
	  "file of measured figures for the choice of algorithms: the first five jobs of a kind measure for some "
	  "seconds in init and add theirs, their medians count; empty: by the formulas" },
	{ "TOPO_FILE", STRING, false, "",
	  "description of the machine to use: tutti's text, NCCL's or hwloc's XML, or a folder with a recorded sys "
	  "and proc; empty: NCCL_TOPO_FILE, else the machine is looked at" },
	{ "TOPO_DUMP_FILE", STRING, false, "", "file to which the machine is written as XML that NCCL reads" },
	{ "DEVICE_LINKS", INTEGER, false, "0",
	  "1: ranks of a host whose threads work on a CUDA device at init pass messages from device to device; "
	  "docs/gpu.md" },
	{ "PAIR_PROBE", STRING, false, "",
	  "the program that tries copies between two devices before a device link is made; empty: tutti-pair-probe in "
	  "bin beside the library's folder" },
	{ "PAIR_DEADLINE", SECONDS, false, "20", "seconds after which such a copy counts as stalled" },
	{ "ONE_KERNEL", INTEGER, true, "1",
	  "1: where all ranks are in one process and their calls on one device, the last rank to call launches one "
	  "kernel for all, and calls return when all have come; 0: each rank works on its own stream" },
	{ "CUDA_DEVICE_DRIVEN", INTEGER, true, "0",
	  "1: a call of ranks that have a device each, with device links between all, is one kernel a rank whose "
	  "blocks run its schedule; so is the one kernel of ranks of a process on a device; has run on no GPU" },
	{ "RANK", INTEGER, false, "-1", "rank of this process, set by the launcher" },
	{ "SIZE", INTEGER, false, "-1", "number of ranks of the job, set by the launcher" },
	{ "LOCAL_RANK", INTEGER, false, "-1", "rank among those of this host, set by the launcher" },
	{ "LOCAL_SIZE", INTEGER, false, "-1", "number of ranks on this host, set by the launcher" },
	{ "ROOT", STRING, false, "", "where the job meets, set by the launcher" },
	{ "JOB", STRING, false, "", "secret of the job, set by the launcher" },
	{ "LAUNCHER", STRING, false, "", "which launcher's variables to believe; empty: in order" },
	{ "PERF_CORRUPT", INTEGER, false, "0",
	  "for the perf programs: 1 flips one bit of a result, to show that the check sees it" },
};
enum { NSETTINGS = sizeof(table) / sizeof(table[0]) };

/* A wrong value is reported once, not at each look. */
static _Atomic bool reported[NSETTINGS];

extern char **environ;

static const struct setting *find(const char *name)
{
	for (int i = 0; i < NSETTINGS; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

/* NULL where the variable is unset or empty: both mean the default. */
static const char *raw(const struct setting *s)
{
	char variable[64];
	const char *value;

	snprintf(variable, sizeof(variable), "TUTTI_%s", s->name);
	value = getenv(variable);
	return value && *value ? value : NULL;
}

/* Binary multiples, as sizes of memory are meant; an optional trailing B or iB. */
static bool parse_int(const char *text, int64_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	long long v;
	int shift = 0;

	errno = 0;
	v = strtoll(text, &end, 0);
	if (end == text || errno)
		return false;
	if (*end && (unit = strchr(units, *end >= 'a' ? *end - 32 : *end)) != NULL) {
		shift = 10 * (int)(unit - units + 1);
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B' || *end == 'b')
		end++;
	if (*end || v > INT64_MAX >> shift || v < -(INT64_MAX >> shift))
		return false;
	*out = v * ((int64_t)1 << shift);
	return true;
}

static bool parse_seconds(const char *text, double *out)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || !(v >= 0 && v < 1e9))
		return false;
	if (strcmp(end, "ms") == 0)
		v /= 1000;
	else if (strcmp(end, "m") == 0 || strcmp(end, "min") == 0)
		v *= 60;
	else if (*end && strcmp(end, "s") != 0)
		return false;
	*out = v;
	return true;
}

static void report(const struct setting *s, const char *value, const char *what)
{
	if (!atomic_exchange_explicit(&reported[s - table], true, memory_order_relaxed))
		tt_log(TT_LOG_ERROR, "env", "TUTTI_%s=%s is not %s; using the default %s", s->name,
		       value, what, s->fallback);
}

const char *tt_env_str(const char *name)
{
	const struct setting *s = find(name);
	const char *value = s ? raw(s) : NULL;

	if (value)
		return value;
	return s ? s->fallback : "";
}

int64_t tt_env_int(const char *name)
{
	const struct setting *s = find(name);
	const char *value = s ? raw(s) : NULL;
	int saved = errno;
	int64_t v = 0;

	if (s && !(value && parse_int(value, &v))) {
		if (value)
			report(s, value, "a number (with K, M, G or T)");
		parse_int(s->fallback, &v);
	}
	errno = saved;
	return v;
}

double tt_env_seconds(const char *name)
{
	const struct setting *s = find(name);
	const char *value = s ? raw(s) : NULL;
	int saved = errno;
	double v = 0;

	if (s && !(value && parse_seconds(value, &v))) {
		if (value)
			report(s, value, "a time in seconds (or with ms, s, m)");
		parse_seconds(s->fallback, &v);
	}
	errno = saved;
	return v;
}

/* Edit distance of two names; names are short, longer ones are cut. */
static int distance(const char *a, const char *b)
{
	int row[33], na = (int)tt_min(strlen(a), 32), nb = (int)tt_min(strlen(b), 32);

	for (int j = 0; j <= nb; j++)
		row[j] = j;
	for (int i = 1; i <= na; i++) {
		int diagonal = row[0];

		row[0] = i;
		for (int j = 1; j <= nb; j++) {
			int best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (diagonal + 1 < best)
				best = diagonal + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[nb];
}

static const char *nearest(const char *name)
{
	const char *best = table[0].name;
	int least = 1000;

	for (int i = 0; i < NSETTINGS; i++) {
		int d = distance(name, table[i].name);

		if (d < least) {
			least = d;
			best = table[i].name;
		}
	}
	return best;
}

/* At level error, since a misspelt setting is silently a default otherwise. */
static void check_all(void)
{
	for (char **e = environ; e && *e; e++) {
		char name[64];

		if (strncmp(*e, "TUTTI_", 6) != 0)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(*e + 6, "="), *e + 6);
		if (!find(name))
			tt_log(TT_LOG_ERROR, "env", "TUTTI_%s is not a setting; did you mean TUTTI_%s?",
			       name, nearest(name));
	}
}

void tt_env_check(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, check_all);
}

const char *tt_env_shown(const char *name)
{
	const struct setting *s = find(name);
	const char *value = s ? raw(s) : NULL;

	return value && !strcmp(name, "JOB") ? "(hidden)" : value;
}

static void print_row(FILE *f, const struct setting *s, bool markdown)
{
	static const char *const kinds[] = { "text", "number", "size", "seconds" };
	const char *value = tt_env_shown(s->name);

	if (markdown)
		fprintf(f, "| `TUTTI_%s` | %s | %s%s%s | %s | %s |\n", s->name, kinds[s->kind],
			*s->fallback ? "`" : "", s->fallback, *s->fallback ? "`" : "",
			s->shared ? "yes" : "no", s->help);
	else
		fprintf(f, "TUTTI_%-21s %-10s%s %s\n", s->name, value ? value : s->fallback,
			value ? "*" : " ", s->help);
}

void tt_env_print(void *file, bool markdown)
{
	if (markdown)
		fprintf(file, "| Variable | Type | Default | Same on all ranks | Meaning |\n"
			      "|---|---|---|---|---|\n");
	for (int i = 0; i < NSETTINGS; i++)
		print_row(file, &table[i], markdown);
}

/* Numbers are printed as numbers, so that 128K and 131072 are the same setting. */
int tt_env_shared(char *out, size_t n)
{
	size_t len = 0;

	for (int i = 0; i < NSETTINGS; i++) {
		const struct setting *s = &table[i];
		char *at = out + tt_min(len, n);
		size_t left = n - tt_min(len, n);
		const char *gap = len ? " " : "";

		if (!s->shared)
			continue;
		if (s->kind == STRING)
			len += (size_t)snprintf(at, left, "%s%s=%s", gap, s->name, tt_env_str(s->name));
		else
			len += (size_t)snprintf(at, left, "%s%s=%lld", gap, s->name,
						(long long)tt_env_int(s->name));
	}
	return (int)len;
}

uint64_t tt_env_digest(void)
{
	char text[1024];
	int n = tt_env_shared(text, sizeof(text));

	return tt_hash64(text, tt_min((size_t)n, sizeof(text) - 1), 0);
}
