/* What tutti-info is asked, and numbers in words. SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "info.h"

void quit(const char *fmt, ...)
{
	va_list ap;

	fputs("tutti-info: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" (--help)\n", stderr);
	exit(2);
}

/* ---- words ---- */

const char *size_text(size_t n, char *out, size_t room)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)n;
	int u = 0;

	for (; v >= 1024 && u < 4; u++)
		v /= 1024;
	snprintf(out, room, "%.4g %s", v, units[u]);
	return out;
}

const char *time_text(double seconds, char *out, size_t room)
{
	if (seconds < 1e-3)
		snprintf(out, room, "%.3g us", seconds * 1e6);
	else if (seconds < 1)
		snprintf(out, room, "%.3g ms", seconds * 1e3);
	else
		snprintf(out, room, "%.3g s", seconds);
	return out;
}

/* ---- questions: COLL:...:... ---- */

void split(struct question *q, const char *option, const char *text)
{
	char *save = NULL;

	if (strlen(text) >= sizeof(q->text))
		quit("%s %s: too long", option, text);
	strcpy(q->text, text);
	for (char *p = strtok_r(q->text, ":", &save); p; p = strtok_r(NULL, ":", &save)) {
		if (q->n == 4)
			quit("%s %s: too many parts", option, text);
		q->part[q->n++] = p;
	}
}

/* allreduce, AllReduce and all_reduce are the same. */
enum tt_coll coll_of(const char *name)
{
	char plain[128];
	size_t n = 0;

	for (const char *p = name; *p; p++)
		if (*p != '_')
			plain[n++] = *p;
	plain[n] = 0;
	for (int c = 0; c <= TT_BARRIER; c++)
		if (!strcasecmp(plain, tt_coll_name((enum tt_coll)c)))
			return (enum tt_coll)c;
	quit("%s is no collective: allreduce, allgather, reducescatter, broadcast, reduce or barrier", name);
}

int number_of(const char *what, const char *text, int lo, int hi)
{
	char *end;
	long v = strtol(text, &end, 10);

	if (end == text || *end || v < lo || v > hi)
		quit("%s %s: a number of %d to %d is wanted", what, text, lo, hi);
	return (int)v;
}

size_t size_of(const char *text)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long v = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
	int shift = unit ? 10 * (int)(unit - units + 1) : 0;

	end += unit != NULL;
	end += *end == 'i';
	end += *end == 'B';
	if (end == text || *text == '-' || *end || v > (unsigned long long)PTRDIFF_MAX >> shift)
		quit("size %s: a number is wanted, with K, M, G or T", text);
	return (size_t)v << shift;
}
