/* Words of topologies: bus ids, sets of CPUs, names of kinds. SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CPU = 1 << 20 }; /* a set is at most 128 KiB, whatever a file says */

#define WORD(value, word) word,
static const char *const node_words[] = { TT_NODE_KINDS(WORD) };
static const char *const link_words[] = { TT_LINK_KINDS(WORD) };
static const char *const path_words[] = { TT_PATH_CLASSES(WORD) };

const char *tt_node_word(enum tt_node_kind k)
{
	return node_words[k];
}

const char *tt_link_word(enum tt_link_kind k)
{
	return link_words[k];
}

const char *tt_path_word(enum tt_path_class c)
{
	return path_words[c];
}

static int word_of(const char *const *words, int n, const char *word)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(words[i], word))
			return i;
	return -1;
}

int tt_node_kind_of(const char *word)
{
	return word_of(node_words, TT_NODE_NKINDS, word);
}

int tt_link_kind_of(const char *word)
{
	return word_of(link_words, TT_LINK_NKINDS, word);
}

/* ---- bus ids ---- */

bool tt_bus_id(const char *text, char *out, size_t n)
{
	unsigned domain = 0, bus, dev, fn = 0;
	int end = 0;

	if (!text || strspn(text, "0123456789abcdefABCDEF:.") != strlen(text))
		return false;
	if ((sscanf(text, "%8x:%2x:%2x.%1x%n", &domain, &bus, &dev, &fn, &end) < 4 || text[end]) &&
	    (end = 0, sscanf(text, "%8x:%2x:%2x%n", &domain, &bus, &dev, &end) < 3 || text[end])) {
		domain = 0;
		end = 0;
		if (sscanf(text, "%2x:%2x.%1x%n", &bus, &dev, &fn, &end) < 3 || text[end])
			return false;
	}
	snprintf(out, n, "%04x:%02x:%02x.%x", domain, bus, dev, fn);
	return true;
}

/* ATI's adapters on boards of servers. */
static bool is_board_vga(unsigned long device)
{
	return device == 0x515e || device == 0x5969 || device == 0x5159 || device == 0x4752;
}

/* A VGA adapter is a GPU only of those who make GPUs: board controllers have one too. */
int tt_device_kind(unsigned long cls, unsigned long vendor, unsigned long device)
{
	unsigned long base = cls >> 16, sub = cls >> 8 & 0xff;

	if (base == 0x02 || (base == 0x0c && sub == 0x06))
		return TT_NODE_NIC;
	if (base == 0x12)
		return TT_NODE_GPU;
	if (base == 0x03)
		return sub || !vendor || vendor == 0x10de || (vendor == 0x1002 && !is_board_vga(device)) ?
			       TT_NODE_GPU : -1;
	if (base == 0x06 && sub == 0x80 && vendor == 0x10de)
		return TT_NODE_NVSWITCH;
	return base == 0x06 && (sub == 0x04 || sub == 0x09) ? TT_NODE_PCI : -1;
}

/* ---- sets of CPUs ---- */

void tt_cpus_free(struct tt_cpus *c)
{
	free(c->word);
	*c = (struct tt_cpus){ 0 };
}

bool tt_cpus_add(struct tt_cpus *c, unsigned cpu)
{
	size_t need = cpu / 64 + 1;

	if (cpu >= MAX_CPU)
		return false;
	if (need > c->nwords) {
		uint64_t *w = realloc(c->word, need * sizeof(*w));

		if (!w)
			return false;
		memset(w + c->nwords, 0, (need - c->nwords) * sizeof(*w));
		c->word = w;
		c->nwords = need;
	}
	c->word[cpu / 64] |= (uint64_t)1 << cpu % 64;
	return true;
}

bool tt_cpus_has(const struct tt_cpus *c, unsigned cpu)
{
	return cpu / 64 < c->nwords && c->word[cpu / 64] >> cpu % 64 & 1;
}

size_t tt_cpus_count(const struct tt_cpus *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->nwords; i++)
		n += (size_t)__builtin_popcountll(c->word[i]);
	return n;
}

size_t tt_cpus_common(const struct tt_cpus *a, const struct tt_cpus *b)
{
	size_t n = 0;

	for (size_t i = 0; i < a->nwords && i < b->nwords; i++)
		n += (size_t)__builtin_popcountll(a->word[i] & b->word[i]);
	return n;
}

static bool add_range(struct tt_cpus *c, unsigned long lo, unsigned long hi)
{
	if (hi < lo || hi >= MAX_CPU)
		return false;
	for (unsigned long i = hi + 1; i-- > lo;)
		if (!tt_cpus_add(c, (unsigned)i))
			return false;
	return true;
}

bool tt_cpus_list(const char *text, struct tt_cpus *out)
{
	struct tt_cpus c = { 0 };
	const char *p = text + strspn(text, " \t");

	while (*p >= '0' && *p <= '9') {
		char *end;
		unsigned long lo = strtoul(p, &end, 10), hi = lo;

		if (*end == '-')
			hi = strtoul(end + 1, &end, 10);
		if (!add_range(&c, lo, hi))
			break;
		p = end + (*end == ',');
	}
	if (*p && *p != '\n') {
		tt_cpus_free(&c);
		return false;
	}
	*out = c;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* From the right; commas divide groups of 32 bits, and older kernels write groups that are not full. */
bool tt_cpus_mask(const char *text, struct tt_cpus *out)
{
	struct tt_cpus c = { 0 };
	size_t n = strcspn(text, "\n");
	unsigned group = 0, bit = 0;

	while (n--) {
		int d = hex_digit(text[n]);

		if (text[n] == ',') {
			group += 32;
			bit = 0;
			continue;
		}
		if (text[n] == 'x' && n == 1 && text[0] == '0')
			break;
		if (d < 0)
			goto bad;
		for (unsigned k = 0; k < 4; k++)
			if (d >> k & 1 && !tt_cpus_add(&c, group + bit + k))
				goto bad;
		bit += 4;
	}
	*out = c;
	return true;
bad:
	tt_cpus_free(&c);
	return false;
}

char *tt_cpus_text(const struct tt_cpus *c)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	bool any = false;

	if (!f)
		return NULL;
	for (unsigned i = 0; i < c->nwords * 64; i++) {
		unsigned last = i;

		if (!tt_cpus_has(c, i))
			continue;
		while (tt_cpus_has(c, last + 1))
			last++;
		fprintf(f, any ? ",%u" : "%u", i);
		if (last > i)
			fprintf(f, "-%u", last);
		any = true;
		i = last;
	}
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

char *tt_cpus_hex(const struct tt_cpus *c)
{
	size_t groups = 2 * c->nwords, size;
	char *text = NULL;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	while (groups > 1 && !(c->word[(groups - 1) / 2] >> (groups - 1) % 2 * 32 & UINT32_MAX))
		groups--;
	for (size_t g = groups; g-- > 0;)
		fprintf(f, "%08x%s", (unsigned)(c->word[g / 2] >> g % 2 * 32 & UINT32_MAX), g ? "," : "");
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}
