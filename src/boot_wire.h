/* What travels between processes: handshake and frames, and their parsers, which trust nothing.
 * A part of boot.
 *
 *   client                              server
 *   hello (who, whom, what for, nonce)  ->
 *                                       <-  reply (who, nonce, HMAC "server" over hello and reply)
 *   HMAC "client" over the same         ->
 *                                       <-  one status byte
 *
 * The first three fields of hello and reply keep their place in all versions, so that a difference of versions
 * can be named; a job that is not known here is dropped without a word. */
#ifndef TT_BOOT_WIRE_H
#define TT_BOOT_WIRE_H

#include "boot.h"

#define TT_WIRE_MAGIC 0x74757474u
#define TT_WIRE_VERSION 1u
#define TT_MAC_BYTES 32
#define TT_MAX_CONTROL ((size_t)64 << 20) /* bytes of one control frame */
#define TT_MAX_TABLE ((size_t)1 << 30)
#define TT_MAX_RANKS 65536u

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little endian");
_Static_assert(sizeof(struct tt_root_id) == TUTTI_UNIQUE_ID_BYTES, "an id is a tuttiUniqueId");

enum tt_conn_kind { TT_KIND_ROOT = 1, TT_KIND_CONTROL, TT_KIND_DATA };

struct tt_hello {
	uint32_t magic, version;
	uint64_t job;
	uint64_t from, to; /* processes; to 0: whoever has the root */
	uint8_t kind, pad[3];
	int32_t index;
	char transport[16];
	uint8_t nonce[16];
};

struct tt_reply {
	uint32_t magic, version;
	uint64_t job;
	uint64_t proc;
	uint8_t nonce[16];
	uint8_t mac[TT_MAC_BYTES];
};

enum tt_status {
	TT_STATUS_OK = 1,
	TT_STATUS_EXISTS,  /* there is such a control connection already */
	TT_STATUS_NOROOT,  /* this process has no root of that job (yet) */
	TT_STATUS_OVER,    /* the rendezvous is over */
	TT_STATUS_LEAVING, /* this process is leaving */
	TT_STATUS_FENCED,  /* this process counts you as dead */
};

/* Frames of control and root connections; types from 64 on are the integrator's. */
struct tt_frame_head {
	uint32_t len, type; /* len: of the payload */
};

enum tt_frame_type {
	TT_FRAME_START = 1, /* struct tt_proc: the dialer takes this connection */
	TT_FRAME_BEAT,
	TT_FRAME_GOODBYE,
	TT_FRAME_DEAD,   /* uint64_t process, words */
	TT_FRAME_FENCED, /* words: you were declared dead */
	TT_FRAME_JOIN,   /* struct tt_join, entry */
	TT_FRAME_TABLE,  /* struct tt_table_head, sizes, entries, blob */
	TT_FRAME_REFUSE, /* uint32_t result, words */
	TT_FRAME_USER = 64
};

struct tt_join {
	uint32_t rank, n;
	uint64_t remaining_ns;
};

struct tt_table_head {
	uint32_t n, pad;
	uint64_t blob_size;
};

struct tt_frame {
	uint32_t type;
	const uint8_t *p;
	size_t n;
};

/* Adds an address that the id does not have yet; no longer an id than fits. */
void tt_id_put(struct tt_root_id *id, const struct tt_addr *a);
/* Bytes of the address at `at` of the id, 0 at the end or where it is damaged. */
size_t tt_id_get(const struct tt_root_id *id, size_t at, struct tt_addr *out);
/* Whether it is a whole id with at least one address. */
bool tt_id_valid(const struct tt_root_id *id);

void tt_wire_mac(const uint8_t secret[32], const char *label, const struct tt_hello *h,
		 const struct tt_reply *r, uint8_t out[TT_MAC_BYTES]);

/* Bytes that the first frame in p takes; 0: not all there; -1: longer than max. */
int64_t tt_frame_next(const uint8_t *p, size_t n, size_t max, struct tt_frame *out);
bool tt_hello_valid(const struct tt_hello *h);
/* False unless it is a whole, sane tt_proc; strings are terminated in *out. */
bool tt_proc_parse(const uint8_t *p, size_t n, struct tt_proc *out);
bool tt_join_parse(const uint8_t *p, size_t n, struct tt_join *out, const uint8_t **entry, size_t *size);
/* {8 bytes, words}, or {4 bytes, words} for REFUSE; words are made printable. */
bool tt_words_parse(const uint8_t *p, size_t n, size_t head, void *first, char *words, size_t max);

/* The payload of TABLE. Entries start at multiples of 8, so that they can be used in place. */
size_t tt_table_bytes(const size_t *sizes, int n, size_t blob_size);
void tt_table_write(uint8_t *out, const void *const *entries, const size_t *sizes, int n,
		    const void *blob, size_t blob_size);
/* Number of ranks if p holds a whole table, else 0. */
int tt_table_check(const uint8_t *p, size_t n);
/* Points into a table that was checked. */
void tt_table_point(const uint8_t *p, const void **entries, size_t *sizes, const void **blob,
		    size_t *blob_size);

#endif
