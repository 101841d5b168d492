/* Floor 1: addresses of this host, and sockets with deadlines. Every descriptor is CLOEXEC and non-blocking.
 * Functions that return int give 0 or an errno; deadlines are absolute on tt_now_ns's clock. */
#ifndef TT_SOCK_H
#define TT_SOCK_H

#include <sys/socket.h>

#include "base.h"

struct tt_addr { /* packed for the wire: family 4 or 6, address, scope id */
	uint8_t family, prefix, pad[2];
	uint8_t ip[16];
	uint32_t scope;
};

#define TT_ADDR_TEXT 96 /* bytes that hold any address as text */
#define TT_ENDS_TEXT (2 * TT_ADDR_TEXT + 8)

/* An address of this host. `decoy`: a bridge or tunnel, the same on many hosts. `routed`: a way to other networks
 * goes by its interface. `listens` is the node's. */
struct tt_local_addr {
	struct tt_addr addr;
	char name[16];
	bool loopback, link_local, decoy, carrier, routed, listens;
};

/* Fills `out` with the addresses to use, best first, and returns how many. `want` is the setting ADDRS:
 * addresses, networks (a.b.c.d/len) or interface names, separated by commas; empty or NULL: all usable ones,
 * loopback only where there is no other. Of more than `max` those that lead furthest stay. */
int tt_addr_list(const char *want, struct tt_local_addr *out, int max);

socklen_t tt_addr_to(const struct tt_addr *a, uint16_t port, struct sockaddr_storage *ss);
bool tt_addr_from(const struct sockaddr *sa, struct tt_addr *a, uint16_t *port);
bool tt_addr_equal(const struct tt_addr *a, const struct tt_addr *b);
bool tt_addr_loopback(const struct tt_addr *a);
bool tt_addr_link_local(const struct tt_addr *a);
/* Whether `b` lies in the network of `a` (which has the prefix). */
bool tt_addr_near(const struct tt_addr *a, const struct tt_addr *b);
/* "10.0.0.1:4000" or "[fe80::1%2]:4000"; port 0 is left out. Returns buf. */
const char *tt_addr_format(const struct tt_addr *a, uint16_t port, char *buf, size_t n);
/* A literal address or a host name; returns how many addresses, 0 when unknown. May ask the resolver. */
int tt_addr_resolve(const char *name, struct tt_addr *out, int max);

/* Listens on `a`; *port 0 takes any and tells which. */
int tt_sock_listen(const struct tt_addr *a, uint16_t *port, int *fd);
/* The abstract unix socket of the process `id`: nothing in the file system, one network namespace. */
int tt_sock_listen_unix(uint64_t id, int *fd);
/* Begins to connect; *fd is then writable when done, and SO_ERROR tells. */
int tt_sock_connect(const struct tt_addr *a, uint16_t port, int *fd);
int tt_sock_connect_unix(uint64_t id, int *fd);
int tt_sock_error(int fd);
void tt_sock_tune(int fd, double silence_s); /* no delay, and dead networks noticed in time */
void tt_sock_blocking(int fd);
/* "10.0.0.1:33000 -> 10.0.0.2:4000", as far as known. Returns buf. */
const char *tt_sock_ends(int fd, char *buf, size_t n);

/* All n bytes or an errno: ETIMEDOUT, ECANCELED when *stop (may be NULL) becomes true, ENODATA at the end
 * of the stream. */
int tt_sock_read(int fd, void *p, size_t n, uint64_t deadline_ns, const _Atomic bool *stop);
int tt_sock_write(int fd, const void *p, size_t n, uint64_t deadline_ns, const _Atomic bool *stop);
/* Raises the soft limit of descriptors to hold `want` more, as far as the hard limit allows. */
void tt_sock_reserve(size_t want);

#endif
