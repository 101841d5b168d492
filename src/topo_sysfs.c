/* A topology from /sys and /proc alone, of this machine or of a recorded tree. SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH = 5000 };

static void join(const struct tt_sys *s, char *out, const char *fmt, va_list ap)
{
	int n = snprintf(out, PATH, "%.4000s", s->root);

	vsnprintf(out + n, PATH - (size_t)n, fmt, ap);
}

const char *tt_sys_line(const struct tt_sys *s, char *out, size_t n, const char *fmt, ...)
{
	char path[PATH];
	va_list ap;

	va_start(ap, fmt);
	join(s, path, fmt, ap);
	va_end(ap);
	return tt_first_line(path, out, n);
}

long tt_sys_number(const struct tt_sys *s, const char *key, const char *fmt, ...)
{
	size_t n = strlen(key);
	char path[PATH], line[256];
	long number = -1;
	va_list ap;
	FILE *f;

	va_start(ap, fmt);
	join(s, path, fmt, ap);
	va_end(ap);
	f = fopen(path, "re");
	while (f && number < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, n) && line[n] == ' ')
			number = strtol(line + n, NULL, 10);
	if (f)
		fclose(f);
	return number;
}

const char *tt_sys_link(const struct tt_sys *s, char *out, size_t n, const char *fmt, ...)
{
	char path[PATH];
	va_list ap;
	ssize_t got;

	va_start(ap, fmt);
	join(s, path, fmt, ap);
	va_end(ap);
	got = readlink(path, out, n - 1);
	out[got > 0 ? got : 0] = 0;
	return out;
}

bool tt_sys_there(const struct tt_sys *s, const char *path)
{
	char full[PATH];

	snprintf(full, sizeof(full), "%.4000s%.900s", s->root, path);
	return !access(full, F_OK);
}

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

bool tt_sys_each(struct tt_sys *s, const char *path, void (*see)(struct tt_sys *s, const char *name))
{
	struct dirent **list;
	char full[PATH];
	int n;

	snprintf(full, sizeof(full), "%.4000s%.900s", s->root, path);
	n = scandir(full, &list, visible, alphasort);
	if (n < 0)
		return false;
	for (int i = 0; i < n; i++) {
		if (s->t->failed == tuttiSuccess)
			see(s, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	return true;
}

void tt_sys_free(struct tt_sys *s)
{
	for (int i = 0; i < s->nnuma; i++)
		tt_cpus_free(&s->numa[i].cpus);
	free(s->numa);
}

void tt_topo_of_sysfs(struct tt_topo *t, const char *root)
{
	struct tt_sys s = { .root = root, .t = t };

	tt_sys_cpus(&s);
	tt_sys_pci(&s);
	tt_sys_ports(&s);
	tt_sys_xgmi(&s);
	if (!*root)
		tt_sys_nvlinks(&s);
	tt_sys_free(&s);
}

tuttiResult_t tt_topo_from_sysfs(const char *root, struct tt_topo **out)
{
	struct tt_topo *t;
	tuttiResult_t r;

	TRY(tt_topo_new(&t));
	tt_topo_source(t, *root ? "the recorded tree %s" : "sysfs%s", root);
	tt_topo_of_sysfs(t, root);
	r = tt_topo_finish(t);
	if (r == tuttiSuccess)
		*out = t;
	else
		tt_topo_free(t);
	return r;
}
