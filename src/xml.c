/* XML through libexpat, found at run time. SPDX-License-Identifier: Apache-2.0 */
#include "xml.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The interface of libexpat.so.1, which has been the same since 2001: no header is needed to build. */
typedef void start_fn(void *user, const char *name, const char **attrs);
typedef void end_fn(void *user, const char *name);

static struct {
	void *(*create)(const char *encoding);
	void (*free)(void *parser);
	void (*set_user_data)(void *parser, void *user);
	void (*set_handlers)(void *parser, start_fn *start, end_fn *end);
	int (*parse)(void *parser, const char *text, int n, int last);
	int (*stop)(void *parser, unsigned char resumable);
	int (*error_code)(void *parser);
	const char *(*error_string)(int code);
	unsigned long (*line)(void *parser);
	bool ok;
	char why[256];
} lib;

static void load(void)
{
	const struct tt_symbol rows[] = {
		{ &lib.create, "XML_ParserCreate" }, { &lib.free, "XML_ParserFree" },
		{ &lib.set_user_data, "XML_SetUserData" }, { &lib.set_handlers, "XML_SetElementHandler" },
		{ &lib.parse, "XML_Parse" }, { &lib.stop, "XML_StopParser" }, { &lib.error_code, "XML_GetErrorCode" },
		{ &lib.error_string, "XML_ErrorString" }, { &lib.line, "XML_GetCurrentLineNumber" },
	};
	void *so = dlopen("libexpat.so.1", RTLD_NOW | RTLD_LOCAL);
	const char *missing;

	if (!so) {
		snprintf(lib.why, sizeof(lib.why), "XML cannot be read: %s (Debian package libexpat1)", dlerror());
		return;
	}
	missing = tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0]));
	if (missing) {
		snprintf(lib.why, sizeof(lib.why), "XML cannot be read: libexpat.so.1 has no %s", missing);
		return;
	}
	lib.ok = true;
}

bool tt_xml_here(char *why, size_t n)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	if (!lib.ok && why)
		snprintf(why, n, "%s", lib.why);
	return lib.ok;
}

/* ---- the tree ---- */

struct build {
	void *parser;
	struct tt_xml *root, *at;
	bool no_memory;
};

static void free_element(struct tt_xml *e)
{
	for (char **a = e->attrs; a && *a; a++)
		free(*a);
	free(e->attrs);
	free(e->name);
	free(e);
}

/* Without recursion: a file may be deep. */
void tt_xml_free(struct tt_xml *root)
{
	while (root) {
		struct tt_xml *e = root;

		if (e->child) {
			root = e->child;
			e->child = root->next;
			root->parent = e;
			continue;
		}
		root = e->parent;
		free_element(e);
	}
}

static struct tt_xml *new_element(const char *name, const char **attrs)
{
	struct tt_xml *e = calloc(1, sizeof(*e));
	size_t n = 0;

	while (attrs[n])
		n++;
	if (!e)
		return NULL;
	e->name = strdup(name);
	e->attrs = calloc(n + 1, sizeof(*e->attrs));
	for (size_t i = 0; e->attrs && i < n; i++) {
		e->attrs[i] = strdup(attrs[i]);
		if (!e->attrs[i])
			goto fail;
	}
	if (e->name && e->attrs)
		return e;
fail:
	free_element(e);
	return NULL;
}

static void on_start(void *user, const char *name, const char **attrs)
{
	struct build *b = user;
	struct tt_xml *e = new_element(name, attrs);

	if (!e) {
		b->no_memory = true;
		lib.stop(b->parser, 0);
		return;
	}
	e->line = (int)lib.line(b->parser);
	e->parent = b->at;
	if (!b->at)
		b->root = e;
	else if (b->at->last)
		b->at->last->next = e;
	else
		b->at->child = e;
	if (b->at)
		b->at->last = e;
	b->at = e;
}

static void on_end(void *user, const char *name)
{
	struct build *b = user;

	b->at = b->at->parent;
}

static bool parse_pieces(void *parser, const char *text, size_t n)
{
	enum { PIECE = 1 << 20 };

	for (; n > PIECE; text += PIECE, n -= PIECE)
		if (!lib.parse(parser, text, PIECE, 0))
			return false;
	return lib.parse(parser, text, (int)n, 1);
}

tuttiResult_t tt_xml_parse(const char *text, size_t n, const char *what, struct tt_xml **root)
{
	struct build b = { 0 };
	tuttiResult_t r = tuttiSuccess;

	if (!tt_xml_here(NULL, 0))
		return tt_fail(tuttiUnsupported, "%s: %s", what, lib.why);
	b.parser = lib.create(NULL);
	if (!b.parser)
		return tt_fail(tuttiSystemError, "%s: no memory for an XML parser", what);
	lib.set_user_data(b.parser, &b);
	lib.set_handlers(b.parser, on_start, on_end);
	if (!parse_pieces(b.parser, text, n))
		r = b.no_memory ? tt_fail(tuttiSystemError, "%s: no memory for its elements", what) :
				  tt_fail(tuttiInvalidArgument, "%s, line %lu: %s", what, lib.line(b.parser),
					  lib.error_string(lib.error_code(b.parser)));
	lib.free(b.parser);
	if (r == tuttiSuccess)
		*root = b.root;
	else
		tt_xml_free(b.root);
	return r;
}

const char *tt_xml_attr(const struct tt_xml *e, const char *name)
{
	for (char **a = e->attrs; *a; a += 2)
		if (!strcmp(*a, name))
			return a[1];
	return NULL;
}

struct tt_xml *tt_xml_child(const struct tt_xml *e, const char *name)
{
	struct tt_xml *c = e->child;

	while (c && strcmp(c->name, name))
		c = c->next;
	return c;
}

struct tt_xml *tt_xml_after(const struct tt_xml *e)
{
	if (e->child)
		return e->child;
	while (e && !e->next)
		e = e->parent;
	return e ? e->next : NULL;
}

void tt_xml_put(void *file, const char *value)
{
	for (; *value; value++) {
		switch (*value) {
		case '&': fputs("&amp;", file); break;
		case '<': fputs("&lt;", file); break;
		case '"': fputs("&quot;", file); break;
		default:
			if ((unsigned char)*value < ' ')
				fprintf(file, "&#%d;", *value);
			else
				putc(*value, file);
		}
	}
}
