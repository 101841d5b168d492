/* Messages: a frame's header to bytes and back. What comes from the peer is checked here and in
 * msg_message.c. SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <string.h>

#include "msg.h"

#define MAGIC 0x31707474u

static void put32(uint8_t *b, uint32_t v)
{
	v = htole32(v);
	memcpy(b, &v, sizeof(v));
}

static void put64(uint8_t *b, uint64_t v)
{
	v = htole64(v);
	memcpy(b, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *b)
{
	uint32_t v;

	memcpy(&v, b, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *b)
{
	uint64_t v;

	memcpy(&v, b, sizeof(v));
	return le64toh(v);
}

void tt_msg_pack(uint8_t b[MSG_HEADER], const struct msg_frame *f)
{
	put32(b, MAGIC);
	put32(b + 4, f->type | (uint32_t)f->side << 8);
	put32(b + 8, f->len);
	put32(b + 12, f->seq);
	put32(b + 16, f->credit);
	put32(b + 20, f->token);
	put64(b + 24, f->key);
	put64(b + 32, f->off);
	put64(b + 40, f->total);
	put64(b + 48, f->note.sig);
	put32(b + 56, f->note.seq);
	put32(b + 60, f->note.pos);
}

const char *tt_msg_unpack(struct msg_frame *f, const uint8_t b[MSG_HEADER], size_t chunk)
{
	uint32_t kind = get32(b + 4);

	if (get32(b) != MAGIC)
		return "no frame where one should begin";
	f->type = (uint8_t)kind;
	f->side = (uint8_t)(kind >> 8);
	f->len = get32(b + 8);
	f->seq = get32(b + 12);
	f->credit = get32(b + 16);
	f->token = get32(b + 20);
	f->key = get64(b + 24);
	f->off = get64(b + 32);
	f->total = get64(b + 40);
	f->note.sig = get64(b + 48);
	f->note.seq = get32(b + 56);
	f->note.pos = get32(b + 60);
	f->expect = (struct tt_note){ 0 };
	f->place = 0;
	f->news = false;
	if (kind >> 16 || f->side > 1 || f->type < MSG_EAGER || f->type > MSG_CLOSE)
		return "a frame of unknown type";
	if (f->type == MSG_EAGER)
		return f->len > MSG_EAGER_MAX || f->len != f->total || f->off ?
			       "an eager frame of bad length" : NULL;
	if (f->type == MSG_DATA)
		return !f->len || f->len > chunk || f->total > MSG_MAX_MESSAGE ||
			       f->len > f->total || f->off > f->total - f->len ?
			       "a chunk of bad length" : NULL;
	return f->len ? "a control frame with payload" : NULL;
}
