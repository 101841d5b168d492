/* Floor 1: XML as a tree of elements with attributes, by libexpat.so.1, which is loaded at first need. Text between
 * elements is left out: no format that we read has any. */
#ifndef TT_XML_H
#define TT_XML_H

#include "base.h"

struct tt_xml {
	char *name;
	char **attrs; /* name, value, name, value ..., NULL */
	struct tt_xml *parent, *child, *next, *last; /* last: of the children */
	int line;
	int tag;      /* the reader's */
};

/* `what` names the text in errors. Without the library: tuttiUnsupported, with the package to install. */
tuttiResult_t tt_xml_parse(const char *text, size_t n, const char *what, struct tt_xml **root);
void tt_xml_free(struct tt_xml *root);
const char *tt_xml_attr(const struct tt_xml *e, const char *name); /* NULL: none */
struct tt_xml *tt_xml_child(const struct tt_xml *e, const char *name); /* the first of that name, or NULL */
struct tt_xml *tt_xml_after(const struct tt_xml *e);               /* the next in the order of the text, or NULL */
bool tt_xml_here(char *why, size_t n);                             /* whether the library is here; else why not */
void tt_xml_put(void *file, const char *value);                    /* FILE *: escaped for an attribute */

#endif
