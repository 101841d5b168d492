/* Where topologies come from: what a file is, is told by how it begins. A new source is one file that fills a graph
 * and one row here. SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct input {
	const char *name, *text; /* a file with its text (a 0 behind it), or a folder, or words, without */
	size_t n;
	int host; /* from 0 */
	bool folder;
	const struct tt_topo *machine;
};

/* After what XML has before its first element: declaration, comments, document type. */
static const char *first_element(const char *p)
{
	for (;;) {
		const char *end;

		p += strspn(p, " \t\r\n\xef\xbb\xbf");
		if (strncmp(p, "<?", 2) && strncmp(p, "<!", 2))
			return *p == '<' ? p + 1 : "";
		end = strncmp(p, "<!--", 4) ? p : strstr(p + 4, "-->");
		end = end ? strchr(end, '>') : NULL;
		if (!end)
			return "";
		p = end + 1;
	}
}

static bool element_is(const struct input *in, const char *name)
{
	const char *e = in->text ? first_element(in->text) : "";
	size_t n = strlen(name);

	return !strncmp(e, name, n) && strchr(" \t\r\n/>", e[n]);
}

static bool is_text(const struct input *in)
{
	return in->text && !strncmp(in->text, "tutti-topology", 14);
}

static bool is_hwloc(const struct input *in)
{
	return element_is(in, "topology");
}

/* Also what is only like it: the reader says what is wrong. */
static bool is_nccl(const struct input *in)
{
	return in->text && *first_element(in->text);
}

static bool is_folder(const struct input *in)
{
	return in->folder;
}

static bool is_synthetic(const struct input *in)
{
	return !in->text && !in->folder;
}

static tuttiResult_t read_text(const struct input *in, struct tt_topo **out)
{
	return tt_topo_read(in->text, in->n, out);
}

static tuttiResult_t read_nccl(const struct input *in, struct tt_topo **out)
{
	return tt_topo_from_nccl(in->text, in->n, in->host, in->machine, out);
}

static tuttiResult_t read_hwloc(const struct input *in, struct tt_topo **out)
{
	return tt_topo_from_hwloc(in->text, in->n + 1, out);
}

static tuttiResult_t read_folder(const struct input *in, struct tt_topo **out)
{
	return tt_topo_from_sysfs(in->name, out);
}

static tuttiResult_t read_synthetic(const struct input *in, struct tt_topo **out)
{
	return tt_topo_from_synthetic(in->name, out);
}

static const struct {
	const char *words;
	bool (*is)(const struct input *in);
	tuttiResult_t (*read)(const struct input *in, struct tt_topo **out);
} sources[] = {
	{ "text", is_text, read_text },
	{ "hwloc's XML", is_hwloc, read_hwloc },
	{ "NCCL's XML", is_nccl, read_nccl },
	{ "/sys and /proc", is_folder, read_folder },
	{ "a synthetic string of hwloc", is_synthetic, read_synthetic },
};

static tuttiResult_t read_input(const struct input *in, struct tt_topo **out)
{
	char which[48] = "";

	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		struct tt_topo *t;

		if (!sources[i].is(in))
			continue;
		if (in->host && sources[i].read != read_nccl)
			return tt_fail(tuttiInvalidArgument, "topology %s: only NCCL's XML has several hosts",
				       in->name);
		TRY(sources[i].read(in, &t));
		if (t->hosts > 1)
			snprintf(which, sizeof(which), ", host %d of %d", t->host + 1, t->hosts);
		if (!t->source)
			tt_topo_source(t, "%s (%s%s%s)", in->name, sources[i].words, which, in->machine ?
				       ", what it leaves open from this machine" : "");
		*out = t;
		return tuttiSuccess;
	}
	return tt_fail(tuttiInvalidArgument, "%s is no topology: tutti's text, NCCL's or hwloc's XML, or a folder with "
		       "sys and proc", in->name);
}

/* The whole file with a 0 behind it; NULL with errno. */
static char *whole_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "re");
	char *text = NULL, *more;
	size_t size = 0, got = 1;

	for (*n = 0; f && got; *n += got) {
		more = realloc(text, size + 65537);
		if (!more)
			break;
		text = more;
		size += 65536;
		got = fread(text + *n, 1, size - *n, f);
		text[*n + got] = 0;
	}
	if (!f || got || ferror(f)) {
		free(text);
		text = NULL;
	}
	if (f)
		fclose(f);
	return text;
}

static bool is_there(const char *folder, const char *name)
{
	struct tt_sys s = { .root = folder };

	return tt_sys_there(&s, name);
}

static tuttiResult_t load_path(struct input *in, const char *path, struct tt_topo **out)
{
	tuttiResult_t r;
	struct stat st;
	char *text;

	if (stat(path, &st))
		return tt_fail(tuttiInvalidArgument, "topology %s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode)) {
		in->folder = is_there(path, "/sys") || is_there(path, "/proc");
		if (in->folder)
			return read_input(in, out);
		return tt_fail(tuttiInvalidArgument, "topology %s: a folder without sys and proc in it", path);
	}
	in->text = text = whole_file(path, &in->n);
	if (!text)
		return tt_fail(tuttiSystemError, "topology %s cannot be read: %s", path, strerror(errno));
	r = read_input(in, out);
	free(text);
	return r;
}

tuttiResult_t tt_topo_load(const char *name, const struct tt_topo *machine, struct tt_topo **out)
{
	struct input in = { .name = name, .machine = machine };
	const char *sign = strrchr(name, '#');
	long host = sign ? strtol(sign + 1, NULL, 10) : 0;
	tuttiResult_t r;
	char *path;

	if (!strncmp(name, "synthetic:", 10)) {
		in.name += 10;
		return read_input(&in, out);
	}
	if (host < 1 || host > INT_MAX || !access(name, F_OK))
		return load_path(&in, name, out);
	in.host = (int)host - 1;
	path = strndup(name, (size_t)(sign - name));
	r = path ? load_path(&in, path, out) : tt_fail(tuttiSystemError, "no memory for the name of a topology");
	free(path);
	return r;
}

/* ---- at init ---- */

void tt_topo_dump(const struct tt_topo *t)
{
	const char *path = tt_env_str("TOPO_DUMP_FILE");
	char *text;
	bool good;
	FILE *f;

	if (!*path || tt_topo_to_nccl(t, &text) != tuttiSuccess)
		return;
	f = fopen(path, "we");
	good = f && fputs(text, f) >= 0;
	if ((f && fclose(f)) || !good)
		tt_log(TT_LOG_WARN, "topo", "TUTTI_TOPO_DUMP_FILE=%s cannot be written: %s", path, strerror(errno));
	free(text);
}

tuttiResult_t tt_topo_used(struct tt_topo **out)
{
	const char *nccl = getenv("NCCL_TOPO_FILE"), *name = tt_env_str("TOPO_FILE");
	struct tt_topo *t, *file;
	tuttiResult_t r;

	TRY(tt_topo_here(&t));
	if (!*name && nccl)
		name = nccl;
	if (*name) {
		r = tt_topo_load(name, t, &file);
		tt_topo_free(t);
		if (r != tuttiSuccess)
			return r;
		t = file;
	}
	tt_log(TT_LOG_INFO, "topo", "%s: %d GPUs, %d NICs, %d NUMA nodes, digest %016llx, %d assumptions",
	       t->source ? t->source : "", tt_topo_count(t, TT_NODE_GPU), tt_topo_count(t, TT_NODE_NIC),
	       tt_topo_count(t, TT_NODE_NUMA), (unsigned long long)tt_topo_digest(t), t->nassumed);
	*out = t;
	return tuttiSuccess;
}

tuttiResult_t tt_topo_local(struct tt_topo **out)
{
	TRY(tt_topo_used(out));
	tt_topo_dump(*out);
	return tuttiSuccess;
}
