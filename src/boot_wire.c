/* Handshake proofs, the addresses in an id, and the parsers of what others send. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "boot_wire.h"
#include "hmac.h"

void tt_wire_mac(const uint8_t secret[32], const char *label, const struct tt_hello *h,
		 const struct tt_reply *r, uint8_t out[TT_MAC_BYTES])
{
	struct {
		char label[8];
		struct tt_hello hello;
		struct tt_reply reply;
	} all;

	memset(&all, 0, sizeof(all));
	strncpy(all.label, label, sizeof(all.label) - 1);
	all.hello = *h;
	all.reply = *r;
	memset(all.reply.mac, 0, sizeof(all.reply.mac));
	tt_hmac(secret, 32, &all, sizeof(all), out);
}

/* ---- the addresses of an id: a tag, 4 or 16 bytes, for the last tag a scope ---- */

enum id_tag { ID_IP4 = 4, ID_IP6 = 6, ID_IP6_SCOPE = 7 };

static size_t id_bytes(uint8_t tag)
{
	switch (tag) {
	case ID_IP4:
		return 1 + 4;
	case ID_IP6:
		return 1 + 16;
	case ID_IP6_SCOPE:
		return 1 + 16 + sizeof(uint32_t);
	default:
		return 0;
	}
}

size_t tt_id_get(const struct tt_root_id *id, size_t at, struct tt_addr *out)
{
	size_t used = tt_min((size_t)id->used, sizeof(id->addrs)), n;

	n = at < used ? id_bytes(id->addrs[at]) : 0;
	if (n == 0 || n > used - at)
		return 0;
	memset(out, 0, sizeof(*out));
	out->family = id->addrs[at] == ID_IP4 ? 4 : 6;
	memcpy(out->ip, id->addrs + at + 1, out->family == 4 ? 4 : 16);
	if (id->addrs[at] == ID_IP6_SCOPE)
		memcpy(&out->scope, id->addrs + at + 17, sizeof(out->scope));
	return n;
}

void tt_id_put(struct tt_root_id *id, const struct tt_addr *a)
{
	uint8_t tag = a->family == 4 ? ID_IP4 : a->scope == 0 ? ID_IP6 : ID_IP6_SCOPE, *to;
	struct tt_addr have;
	size_t at, n;

	for (at = 0; (n = tt_id_get(id, at, &have)) > 0; at += n)
		if (tt_addr_equal(&have, a) && (have.scope == a->scope || a->scope == 0))
			return;
	n = id_bytes(tag);
	if (at + n > sizeof(id->addrs))
		return;
	to = id->addrs + at;
	to[0] = tag;
	memcpy(to + 1, a->ip, a->family == 4 ? 4 : 16);
	if (tag == ID_IP6_SCOPE)
		memcpy(to + 17, &a->scope, sizeof(a->scope));
	id->used = (uint8_t)(at + n);
}

bool tt_id_valid(const struct tt_root_id *id)
{
	struct tt_addr a;
	size_t at = 0, n;

	while ((n = tt_id_get(id, at, &a)) > 0)
		at += n;
	return id->magic == TT_ROOT_MAGIC && at > 0 && at == id->used;
}

/* ---- frames ---- */

int64_t tt_frame_next(const uint8_t *p, size_t n, size_t max, struct tt_frame *out)
{
	struct tt_frame_head h;

	if (n < sizeof(h))
		return 0;
	memcpy(&h, p, sizeof(h));
	if (h.len > max)
		return -1;
	if (n < sizeof(h) + h.len)
		return 0;
	out->type = h.type;
	out->p = p + sizeof(h);
	out->n = h.len;
	return (int64_t)(sizeof(h) + h.len);
}

bool tt_hello_valid(const struct tt_hello *h)
{
	return h->magic == TT_WIRE_MAGIC && h->kind >= TT_KIND_ROOT && h->kind <= TT_KIND_DATA &&
	       h->from != 0 && memchr(h->transport, 0, sizeof(h->transport)) != NULL;
}

bool tt_proc_parse(const uint8_t *p, size_t n, struct tt_proc *out)
{
	int i;

	if (n < sizeof(*out))
		return false;
	memcpy(out, p, sizeof(*out));
	out->host[sizeof(out->host) - 1] = 0;
	for (i = 0; out->host[i] != 0; i++)
		if (out->host[i] < 32 || out->host[i] > 126)
			out->host[i] = '?';
	for (i = 0; i < TT_MAX_ADDRS && i < out->naddrs; i++)
		if (out->addrs[i].family != 4 && out->addrs[i].family != 6)
			return false;
	return out->id != 0 && out->naddrs <= TT_MAX_ADDRS;
}

bool tt_join_parse(const uint8_t *p, size_t n, struct tt_join *out, const uint8_t **entry, size_t *size)
{
	if (n < sizeof(*out))
		return false;
	memcpy(out, p, sizeof(*out));
	*entry = p + sizeof(*out);
	*size = n - sizeof(*out);
	return out->n >= 1 && out->n <= TT_MAX_RANKS && out->rank < out->n;
}

bool tt_words_parse(const uint8_t *p, size_t n, size_t head, void *first, char *words, size_t max)
{
	size_t i, len;

	if (n < head)
		return false;
	if (head > 0)
		memcpy(first, p, head);
	len = tt_min(n - head, max - 1);
	for (i = 0; i < len; i++) {
		char c = (char)p[head + i];

		words[i] = c == '\n' || (c >= 32 && c < 127) ? c : '?';
	}
	words[len] = 0;
	return true;
}

static size_t padded(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

size_t tt_table_bytes(const size_t *sizes, int n, size_t blob_size)
{
	size_t bytes = sizeof(struct tt_table_head) + (size_t)n * sizeof(uint64_t) + padded(blob_size);
	int i;

	for (i = 0; i < n; i++)
		bytes += padded(sizes[i]);
	return bytes;
}

static uint8_t *append(uint8_t *out, const void *p, size_t n)
{
	if (n > 0)
		memcpy(out, p, n);
	memset(out + n, 0, padded(n) - n);
	return out + padded(n);
}

void tt_table_write(uint8_t *out, const void *const *entries, const size_t *sizes, int n,
		    const void *blob, size_t blob_size)
{
	struct tt_table_head h = { .n = (uint32_t)n, .blob_size = blob_size };
	int i;

	out = append(out, &h, sizeof(h));
	for (i = 0; i < n; i++) {
		uint64_t size = sizes[i];

		out = append(out, &size, sizeof(size));
	}
	for (i = 0; i < n; i++)
		out = append(out, entries[i], sizes[i]);
	append(out, blob, blob_size);
}

int tt_table_check(const uint8_t *p, size_t n)
{
	struct tt_table_head h;
	uint64_t size;
	size_t at, i;

	if (n < sizeof(h) || n > TT_MAX_TABLE)
		return 0;
	memcpy(&h, p, sizeof(h));
	at = sizeof(h) + (size_t)h.n * sizeof(size);
	if (h.n < 1 || h.n > TT_MAX_RANKS || at > n)
		return 0;
	for (i = 0; i < h.n; i++) {
		memcpy(&size, p + sizeof(h) + i * sizeof(size), sizeof(size));
		if (size > n - at || padded(size) > n - at)
			return 0;
		at += padded(size);
	}
	if (h.blob_size > n - at || padded(h.blob_size) != n - at)
		return 0;
	return (int)h.n;
}

void tt_table_point(const uint8_t *p, const void **entries, size_t *sizes, const void **blob,
		    size_t *blob_size)
{
	struct tt_table_head h;
	size_t at, i;

	memcpy(&h, p, sizeof(h));
	at = sizeof(h) + (size_t)h.n * sizeof(uint64_t);
	for (i = 0; i < h.n; i++) {
		uint64_t size;

		memcpy(&size, p + sizeof(h) + i * sizeof(size), sizeof(size));
		sizes[i] = size;
		entries[i] = p + at;
		at += padded(size);
	}
	*blob = p + at;
	*blob_size = h.blob_size;
}
