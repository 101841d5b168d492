/* The text form of a topology: one line a node or link, read and written. docs/topology.md describes it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "tutti-topology 1"

/* ---- writing ---- */

static bool is_plain(const char *s)
{
	for (const char *p = s; *p; p++)
		if (*p <= ' ' || *p >= 0x7f || strchr("\"\\#=", *p))
			return false;
	return *s;
}

/* In quotes where it must be; bytes that are not printable as \xHH. */
static void put_word(FILE *f, const char *s)
{
	if (is_plain(s)) {
		fputs(s, f);
		return;
	}
	putc('"', f);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			fprintf(f, "\\%c", c);
		else if (c < ' ' || c >= 0x7f)
			fprintf(f, "\\x%02x", c);
		else
			putc(c, f);
	}
	putc('"', f);
}

static int level(const struct tt_topo *t, int node)
{
	int n = 0;

	while (n < 20 && (node = t->nodes[node].parent) > 0)
		n++;
	return n;
}

/* Of a run or of one device among its like, not of what the machine is: not in the digest. */
static bool is_passing(const char *name)
{
	static const char *const names[] = { "busid",	  "coll",    "dev",	"gdr", "guid",
					     "host_hash", "latency", "maxconn", "rank" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

static void put_node(FILE *f, const struct tt_topo *t, int i, bool all)
{
	const struct tt_topo_node *n = &t->nodes[i];

	fprintf(f, "%*s%s ", 2 * level(t, i), "", tt_node_word(n->kind));
	put_word(f, n->id);
	if (n->parent > 0) {
		fputs(" in ", f);
		put_word(f, t->nodes[n->parent].id);
	}
	if (n->bandwidth != TT_NO_LIMIT)
		fprintf(f, " bw=%u", n->bandwidth);
	fprintf(f, " lat=%u", n->latency);
	for (int k = 0; k < n->nattrs; k++) {
		if (!all && is_passing(n->attrs[k].name))
			continue;
		putc(' ', f);
		put_word(f, n->attrs[k].name);
		putc('=', f);
		put_word(f, n->attrs[k].value);
	}
	putc('\n', f);
}

static void put_link(FILE *f, const struct tt_topo *t, const struct tt_topo_link *l)
{
	fprintf(f, "link %s ", tt_link_word(l->kind));
	put_word(f, t->nodes[l->from].id);
	putc(' ', f);
	put_word(f, t->nodes[l->to].id);
	fprintf(f, " count=%u", l->count);
	if (l->bandwidth != TT_NO_LIMIT)
		fprintf(f, " bw=%u", l->bandwidth);
	fprintf(f, " lat=%u\n", l->latency);
}

static tuttiResult_t print(const struct tt_topo *t, bool all, char **text, size_t *size)
{
	FILE *f = open_memstream(text, size);

	if (!f)
		return tt_fail(tuttiSystemError, "no memory for the text of a topology");
	fputs(HEAD "\n", f);
	if (all && t->source) {
		fputs("source ", f);
		put_word(f, t->source);
		putc('\n', f);
	}
	for (int i = 0; i < t->nnodes; i++)
		if (i || t->nodes[0].nattrs)
			put_node(f, t, i, all);
	for (int i = 0; i < t->nlinks; i++)
		put_link(f, t, &t->links[i]);
	for (int i = 0; all && i < t->nassumed; i++) {
		fputs("assumed ", f);
		put_word(f, t->assumed[i]);
		putc('\n', f);
	}
	if (!fclose(f))
		return tuttiSuccess;
	free(*text);
	return tt_fail(tuttiSystemError, "no memory for the text of a topology");
}

tuttiResult_t tt_topo_write(const struct tt_topo *t, char **text)
{
	size_t size;

	return print(t, true, text, &size);
}

uint64_t tt_topo_digest(const struct tt_topo *t)
{
	char *text = NULL;
	size_t size = 0;
	uint64_t digest;

	if (print(t, false, &text, &size) != tuttiSuccess)
		return 0;
	digest = tt_hash64(text, size, 0);
	free(text);
	return digest;
}

/* ---- reading ---- */

struct line {
	struct tt_topo *t;
	char *p;   /* what is left */
	int number;
};

static int hex(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* One character within quotes to *out; false where the escape is none. */
static bool unescape(char **p, char *out)
{
	char *s = *p;

	if (*s != '\\') {
		*out = *s;
		*p = s + 1;
		return true;
	}
	if (s[1] == 'x' && hex(s[2]) >= 0 && hex(s[3]) >= 0) {
		*out = (char)(hex(s[2]) << 4 | hex(s[3]));
		*p = s + 4;
		return *out != 0;
	}
	*out = s[1];
	*p = s + 1 + (s[1] != 0);
	return s[1] == '"' || s[1] == '\\';
}

/* The next word, unquoted in place; up to `stop` or a space. NULL: none left, or a quote that does not end. */
static char *next_word(struct line *l, char stop, bool *stopped)
{
	char *start, *out, *p = l->p + strspn(l->p, " \t\r");
	bool quoted = false;

	*stopped = false;
	if (!*p || *p == '#') {
		l->p = p + strlen(p);
		return NULL;
	}
	for (start = out = p; *p && (quoted || !strchr(" \t\r", *p));) {
		if (*p == '"') {
			quoted = !quoted;
			p++;
		} else if (!quoted && stop && *p == stop) {
			*stopped = true;
			break;
		} else if (!quoted) {
			*out++ = *p++;
		} else if (!unescape(&p, out++)) {
			quoted = true;
			break;
		}
	}
	if (quoted)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: a quote does not end, or a wrong "
			     "escape", l->number);
	l->p = p + (*p != 0);
	*out = 0;
	return quoted ? NULL : start;
}

static char *want_word(struct line *l, const char *what)
{
	bool stopped;
	char *w = next_word(l, 0, &stopped);

	if (!w)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: %s is missing", l->number, what);
	return w;
}

static bool next_pair(struct line *l, char **name, char **value)
{
	bool stopped;

	*name = next_word(l, '=', &stopped);
	if (!*name)
		return false;
	*value = stopped && !strchr(" \t\r", *l->p) ? next_word(l, 0, &stopped) : NULL;
	if (*value)
		return true;
	tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: %.60s has no value", l->number, *name);
	return false;
}

static uint32_t number_of(struct line *l, const char *name, const char *value)
{
	char *end;
	unsigned long long v = strtoull(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || v >= TT_NO_LIMIT) {
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: %s=%.40s: a number is wanted",
			     l->number, name, value);
		return TT_NO_LIMIT;
	}
	return (uint32_t)v;
}

static int want_node(struct line *l)
{
	char *id = want_word(l, "the id of a node");
	int node = id ? tt_topo_find(l->t, id) : -1;

	if (id && node < 0)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: there is no %.80s above", l->number,
			     id);
	return node;
}

/* Speeds of 0 would be links that are not there. */
static uint32_t speed_of(struct line *l, const char *value)
{
	uint32_t v = number_of(l, "bw", value);

	if (!v)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: bw=0: leave it out if it is not "
			     "known", l->number);
	return v;
}

static bool may_hold(enum tt_node_kind parent, enum tt_node_kind child)
{
	static const unsigned device = 1u << TT_NODE_PCI | 1u << TT_NODE_GPU | 1u << TT_NODE_NIC;
	static const unsigned holds[TT_NODE_NKINDS] = {
		[TT_NODE_HOST] = ~(1u << TT_NODE_HOST | 1u << TT_NODE_PORT),
		[TT_NODE_NUMA] = device | 1u << TT_NODE_CACHE | 1u << TT_NODE_CORE,
		[TT_NODE_CACHE] = 1u << TT_NODE_CACHE | 1u << TT_NODE_CORE,
		[TT_NODE_PCI] = device, [TT_NODE_GPU] = device, [TT_NODE_NIC] = 1u << TT_NODE_PORT,
	};

	return holds[parent] >> child & 1;
}

static int place_node(struct line *l, enum tt_node_kind kind, const char *id)
{
	int parent = 0;

	l->p += strspn(l->p, " \t\r");
	if (!strncmp(l->p, "in ", 3)) {
		l->p += 3;
		parent = want_node(l);
	}
	if (l->t->failed != tuttiSuccess)
		return -1;
	if (kind == TT_NODE_HOST && !strcmp(id, "host"))
		return 0;
	if (tt_topo_find(l->t, id) >= 0)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: a second %.80s", l->number, id);
	else if (!may_hold(l->t->nodes[parent].kind, kind))
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: a %s in a %s", l->number,
			     tt_node_word(kind), tt_node_word(l->t->nodes[parent].kind));
	return tt_topo_add(l->t, kind, id, parent);
}

static void read_node(struct line *l, enum tt_node_kind kind)
{
	char *id = want_word(l, "the id of the node"), *name, *value;
	int node = id ? place_node(l, kind, id) : -1;

	if (node < 0 || l->t->failed != tuttiSuccess)
		return;
	while (next_pair(l, &name, &value)) {
		struct tt_topo_node *n = &l->t->nodes[node];

		if (!strcmp(name, "bw"))
			n->bandwidth = speed_of(l, value);
		else if (!strcmp(name, "lat"))
			n->latency = number_of(l, name, value);
		else
			tt_topo_set(l->t, node, name, value);
	}
}

static void read_link(struct line *l)
{
	char *word = want_word(l, "the kind of the link"), *name, *value;
	int kind = word ? tt_link_kind_of(word) : -1, from, to;
	uint32_t count = 1, bandwidth = TT_NO_LIMIT, latency = TT_NO_LIMIT;

	if (word && kind < 0)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: %.40s is no kind of link", l->number,
			     word);
	from = want_node(l);
	to = want_node(l);
	while (next_pair(l, &name, &value)) {
		if (!strcmp(name, "count"))
			count = number_of(l, name, value);
		else if (!strcmp(name, "bw"))
			bandwidth = speed_of(l, value);
		else if (!strcmp(name, "lat"))
			latency = number_of(l, name, value);
		else
			tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: a link has no %.40s",
				     l->number, name);
	}
	if (!count)
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: count=0: leave the link out",
			     l->number);
	if (l->t->failed != tuttiSuccess || kind < 0 || from < 0 || to < 0)
		return;
	tt_topo_link(l->t, (enum tt_link_kind)kind, from, to, count, bandwidth);
	if (l->t->failed == tuttiSuccess && latency != TT_NO_LIMIT)
		l->t->links[l->t->nlinks - 1].latency = latency;
}

static void read_line(struct line *l)
{
	bool stopped;
	char *word = next_word(l, 0, &stopped), *rest;
	int kind = word ? tt_node_kind_of(word) : -1;

	if (!word)
		return;
	if (kind >= 0) {
		read_node(l, (enum tt_node_kind)kind);
	} else if (!strcmp(word, "link")) {
		read_link(l);
	} else if (!strcmp(word, "assumed") || !strcmp(word, "source")) {
		rest = want_word(l, "a text");
		if (rest && *word == 'a')
			tt_topo_assume(l->t, "%s", rest);
		else if (rest)
			tt_topo_source(l->t, "%s", rest);
	} else {
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: %.40s is no kind of line", l->number,
			     word);
	}
	if (next_word(l, 0, &stopped))
		tt_topo_fail(l->t, tuttiInvalidArgument, "topology text, line %d: more than a %.20s has", l->number,
			     word);
}

static void read_lines(struct tt_topo *t, char *text)
{
	struct line l = { .t = t, .number = 0 };

	for (char *next = text; next && t->failed == tuttiSuccess;) {
		l.p = next;
		l.number++;
		next = strchr(next, '\n');
		if (next)
			*next++ = 0;
		if (l.number > 1)
			read_line(&l);
		else if (strncmp(l.p, HEAD, strlen(HEAD)) || l.p[strlen(HEAD) + strspn(l.p + strlen(HEAD), " \t\r")])
			tt_topo_fail(t, tuttiInvalidArgument, "topology text: the first line is not \"" HEAD "\"");
	}
}

tuttiResult_t tt_topo_read(const char *text, size_t n, struct tt_topo **out)
{
	struct tt_topo *t;
	char *copy = memchr(text, 0, n) ? NULL : strndup(text, n);
	tuttiResult_t r;

	if (!copy)
		return tt_fail(tuttiInvalidArgument, "topology text: a byte 0 in it, or no memory for %zu bytes", n);
	r = tt_topo_new(&t);
	if (r == tuttiSuccess) {
		read_lines(t, copy);
		r = tt_topo_finish(t);
		if (r == tuttiSuccess)
			*out = t;
		else
			tt_topo_free(t);
	}
	free(copy);
	return r;
}
