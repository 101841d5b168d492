/* Addresses of this host, and sockets with deadlines. SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/route.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include "sock.h"

/* ---- addresses ---- */

socklen_t tt_addr_to(const struct tt_addr *a, uint16_t port, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (a->family == 4) {
		struct sockaddr_in *s4 = (struct sockaddr_in *)ss;

		s4->sin_family = AF_INET;
		s4->sin_port = htons(port);
		memcpy(&s4->sin_addr, a->ip, 4);
		return sizeof(*s4);
	}
	struct sockaddr_in6 *s6 = (struct sockaddr_in6 *)ss;

	s6->sin6_family = AF_INET6;
	s6->sin6_port = htons(port);
	memcpy(&s6->sin6_addr, a->ip, 16);
	s6->sin6_scope_id = a->scope;
	return sizeof(*s6);
}

bool tt_addr_from(const struct sockaddr *sa, struct tt_addr *a, uint16_t *port)
{
	memset(a, 0, sizeof(*a));
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *s4 = (const struct sockaddr_in *)sa;

		a->family = 4;
		a->prefix = 32;
		memcpy(a->ip, &s4->sin_addr, 4);
		*port = ntohs(s4->sin_port);
		return true;
	}
	if (sa->sa_family != AF_INET6)
		return false;
	const struct sockaddr_in6 *s6 = (const struct sockaddr_in6 *)sa;

	a->family = 6;
	a->prefix = 128;
	a->scope = s6->sin6_scope_id;
	memcpy(a->ip, &s6->sin6_addr, 16);
	*port = ntohs(s6->sin6_port);
	return true;
}

bool tt_addr_equal(const struct tt_addr *a, const struct tt_addr *b)
{
	return a->family == b->family && memcmp(a->ip, b->ip, a->family == 4 ? 4 : 16) == 0;
}

bool tt_addr_loopback(const struct tt_addr *a)
{
	static const uint8_t one[16] = { [15] = 1 };

	return a->family == 4 ? a->ip[0] == 127 : memcmp(a->ip, one, 16) == 0;
}

bool tt_addr_link_local(const struct tt_addr *a)
{
	if (a->family == 4)
		return a->ip[0] == 169 && a->ip[1] == 254;
	return a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

bool tt_addr_near(const struct tt_addr *a, const struct tt_addr *b)
{
	int bits = a->prefix, i;

	if (a->family != b->family || bits > (a->family == 4 ? 32 : 128))
		return false;
	for (i = 0; bits >= 8; i++, bits -= 8)
		if (a->ip[i] != b->ip[i])
			return false;
	return bits == 0 || (a->ip[i] ^ b->ip[i]) >> (8 - bits) == 0;
}

const char *tt_addr_format(const struct tt_addr *a, uint16_t port, char *buf, size_t n)
{
	char ip[INET6_ADDRSTRLEN] = "?", scope[16] = "";
	bool six = a->family == 6;

	inet_ntop(six ? AF_INET6 : AF_INET, a->ip, ip, sizeof(ip));
	if (six && a->scope != 0)
		snprintf(scope, sizeof(scope), "%%%u", a->scope);
	if (port == 0)
		snprintf(buf, n, "%s%s", ip, scope);
	else
		snprintf(buf, n, six ? "[%s%s]:%u" : "%s%s:%u", ip, scope, port);
	return buf;
}

int tt_addr_resolve(const char *name, struct tt_addr *out, int max)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC }, *list, *i;
	int n = 0;

	if (getaddrinfo(name, NULL, &hints, &list) != 0)
		return 0;
	for (i = list; i != NULL && n < max; i = i->ai_next) {
		uint16_t port;
		int j = 0;

		if (!tt_addr_from(i->ai_addr, &out[n], &port))
			continue;
		while (j < n && !tt_addr_equal(&out[j], &out[n]))
			j++;
		if (j == n)
			n++;
	}
	freeaddrinfo(list);
	return n;
}

static int prefix_of(const struct sockaddr *mask)
{
	struct tt_addr m;
	uint16_t port;
	int bits = 0, i;

	if (mask == NULL || !tt_addr_from(mask, &m, &port))
		return 0;
	for (i = 0; i < 16; i++)
		bits += __builtin_popcount(m.ip[i]);
	return bits;
}

/* Bridges and tunnels of container tools carry the same address on every host. */
static bool is_decoy(const char *name)
{
	static const char *const prefixes[] = { "docker", "virbr", "br-", "veth", "cni", "lxc", "lxd",
						"podman", "flannel", "tailscale", "kube" };
	char path[64];
	size_t i;

	for (i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	snprintf(path, sizeof(path), "/sys/class/net/%.15s/bridge", name);
	return access(path, F_OK) == 0;
}

static bool describe(const struct ifaddrs *i, struct tt_local_addr *a)
{
	uint16_t port;

	memset(a, 0, sizeof(*a));
	if (i->ifa_addr == NULL || (i->ifa_flags & IFF_UP) == 0 ||
	    !tt_addr_from(i->ifa_addr, &a->addr, &port))
		return false;
	a->addr.prefix = (uint8_t)prefix_of(i->ifa_netmask);
	snprintf(a->name, sizeof(a->name), "%s", i->ifa_name);
	a->loopback = (i->ifa_flags & IFF_LOOPBACK) != 0 || tt_addr_loopback(&a->addr);
	a->link_local = tt_addr_link_local(&a->addr);
	a->carrier = (i->ifa_flags & IFF_RUNNING) != 0;
	a->decoy = is_decoy(a->name);
	return true;
}

static void mark_routed(struct tt_local_addr *a, int n, int family, const char *name)
{
	int i;

	for (i = 0; i < n; i++)
		if (a[i].addr.family == family && !a[i].link_local && strcmp(a[i].name, name) == 0)
			a[i].routed = true;
}

/* Which interfaces have a default route or a gateway, as far as the kernel tells. */
static void find_routes(struct tt_local_addr *a, int n)
{
	const char *const v4 = "%15s %x %x %x %*s %*s %*s %x", *const v6 = "%*s %x %*s %*s %*s %*s %*s %*s %x %15s";
	unsigned int to, gateway, flags, mask;
	char line[512], name[16];
	FILE *f = fopen("/proc/net/route", "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, v4, name, &to, &gateway, &flags, &mask) == 5 &&
		    (flags & (RTF_UP | RTF_REJECT)) == RTF_UP && (gateway != 0 || (to == 0 && mask == 0)))
			mark_routed(a, n, 4, name);
	if (f != NULL)
		fclose(f);
	f = fopen("/proc/net/ipv6_route", "re");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, v6, &mask, &flags, name) == 3 &&
		    (flags & (RTF_UP | RTF_REJECT)) == RTF_UP && ((flags & RTF_GATEWAY) != 0 || mask == 0))
			mark_routed(a, n, 6, name);
	if (f != NULL)
		fclose(f);
}

/* One word of ADDRS against one address. */
static bool word_matches(const char *word, const struct tt_local_addr *a)
{
	char text[64], *slash;
	struct tt_addr net = { .family = strchr(word, ':') != NULL ? 6 : 4 };

	if (strcmp(word, a->name) == 0)
		return true;
	snprintf(text, sizeof(text), "%s", word);
	slash = strchr(text, '/');
	if (slash != NULL)
		*slash++ = 0;
	if (inet_pton(net.family == 6 ? AF_INET6 : AF_INET, text, net.ip) != 1)
		return false;
	if (slash == NULL)
		return tt_addr_equal(&net, &a->addr);
	net.prefix = (uint8_t)atoi(slash);
	return tt_addr_near(&net, &a->addr);
}

static bool wanted(const char *want, const struct tt_local_addr *a)
{
	char list[512], *save = NULL, *word;

	snprintf(list, sizeof(list), "%s", want);
	for (word = strtok_r(list, ", ", &save); word != NULL; word = strtok_r(NULL, ", ", &save))
		if (word_matches(word, a))
			return true;
	return false;
}

static int cost(const struct tt_local_addr *a)
{
	return a->loopback * 16 + !a->carrier * 8 + a->decoy * 4 + a->link_local * 2 +
	       (a->addr.family == 6);
}

static int by_cost(const void *a, const void *b)
{
	const struct tt_local_addr *x = a, *y = b;
	int d = cost(x) - cost(y);

	if (d == 0)
		d = strcmp(x->name, y->name);
	return d != 0 ? d : memcmp(x->addr.ip, y->addr.ip, 16);
}

/* For the choice of those that are told at all: beyond cost, those with a route. */
static int by_use(const void *a, const void *b)
{
	const struct tt_local_addr *x = a, *y = b;
	int d = cost(x) - cost(y) + 2 * (!x->routed - !y->routed);

	return d != 0 ? d : by_cost(a, b);
}

/* Without a wish: no loopback and no dead interface while there is a better one. */
static int drop_useless(struct tt_local_addr *a, int n)
{
	int i;

	for (i = 1; i < n; i++)
		if (a[i].loopback != a[0].loopback || (a[0].carrier && !a[i].carrier))
			break;
	return n == 0 ? 0 : i;
}

int tt_addr_list(const char *want, struct tt_local_addr *out, int max)
{
	struct tt_local_addr all[256];
	struct ifaddrs *list, *i;
	int n = 0, total = (int)(sizeof(all) / sizeof(all[0]));
	bool any = want == NULL || want[0] == 0;

	if (getifaddrs(&list) != 0)
		return 0;
	for (i = list; i != NULL && n < total; i = i->ifa_next)
		if (describe(i, &all[n]) && (any || wanted(want, &all[n])))
			n++;
	freeifaddrs(list);
	qsort(all, (size_t)n, sizeof(all[0]), by_cost);
	if (any)
		n = drop_useless(all, n);
	find_routes(all, n);
	if (n > max) {
		qsort(all, (size_t)n, sizeof(all[0]), by_use);
		n = max;
		qsort(all, (size_t)n, sizeof(all[0]), by_cost);
	}
	memcpy(out, all, (size_t)n * sizeof(all[0]));
	return n;
}

/* ---- sockets ---- */

static int new_socket(int family, int *fd)
{
	*fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return *fd >= 0 ? 0 : errno;
}

static int fail_close(int *fd)
{
	int e = errno;

	close(*fd);
	*fd = -1;
	return e;
}

int tt_sock_listen(const struct tt_addr *a, uint16_t *port, int *fd)
{
	struct sockaddr_storage ss;
	socklen_t len = tt_addr_to(a, *port, &ss);
	struct tt_addr got;
	int one = 1, e = new_socket(ss.ss_family, fd);

	if (e != 0)
		return e;
	setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ss.ss_family == AF_INET6)
		setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(*fd, (struct sockaddr *)&ss, len) != 0 || listen(*fd, SOMAXCONN) != 0)
		return fail_close(fd);
	len = sizeof(ss);
	if (getsockname(*fd, (struct sockaddr *)&ss, &len) != 0)
		return fail_close(fd);
	tt_addr_from((struct sockaddr *)&ss, &got, port);
	return 0;
}

static socklen_t unix_name(uint64_t id, struct sockaddr_un *un)
{
	char name[32];
	int n = snprintf(name, sizeof(name), "tutti-%016llx", (unsigned long long)id);

	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + 1, name, (size_t)n);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

int tt_sock_listen_unix(uint64_t id, int *fd)
{
	struct sockaddr_un un;
	socklen_t len = unix_name(id, &un);
	int e = new_socket(AF_UNIX, fd);

	if (e != 0)
		return e;
	if (bind(*fd, (struct sockaddr *)&un, len) != 0 || listen(*fd, SOMAXCONN) != 0)
		return fail_close(fd);
	return 0;
}

int tt_sock_connect(const struct tt_addr *a, uint16_t port, int *fd)
{
	struct sockaddr_storage ss;
	socklen_t len = tt_addr_to(a, port, &ss);
	int e = new_socket(ss.ss_family, fd);

	if (e != 0)
		return e;
	if (connect(*fd, (struct sockaddr *)&ss, len) != 0 && errno != EINPROGRESS && errno != EINTR)
		return fail_close(fd);
	return 0;
}

int tt_sock_connect_unix(uint64_t id, int *fd)
{
	struct sockaddr_un un;
	socklen_t len = unix_name(id, &un);
	int e = new_socket(AF_UNIX, fd);

	if (e != 0)
		return e;
	if (connect(*fd, (struct sockaddr *)&un, len) != 0)
		return fail_close(fd);
	return 0;
}

int tt_sock_error(int fd)
{
	int e = 0;
	socklen_t len = sizeof(e);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 ? e : errno;
}

void tt_sock_tune(int fd, double silence_s)
{
	int one = 1, idle = 5, every = 2, ms = (int)(silence_s * 1000);

	/* On a unix socket these fail, which is fine. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	if (ms > 0)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

void tt_sock_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

static void end_text(const struct sockaddr_storage *ss, char *buf, size_t n)
{
	struct tt_addr a;
	uint16_t port;

	if (tt_addr_from((const struct sockaddr *)ss, &a, &port))
		tt_addr_format(&a, port, buf, n);
	else
		snprintf(buf, n, "%s", ss->ss_family == AF_UNIX ? "unix" : "?");
}

const char *tt_sock_ends(int fd, char *buf, size_t n)
{
	struct sockaddr_storage here = { 0 }, there = { 0 };
	socklen_t len = sizeof(here);
	char a[TT_ADDR_TEXT], b[TT_ADDR_TEXT];

	getsockname(fd, (struct sockaddr *)&here, &len);
	len = sizeof(there);
	getpeername(fd, (struct sockaddr *)&there, &len);
	end_text(&here, a, sizeof(a));
	end_text(&there, b, sizeof(b));
	if (here.ss_family == AF_UNIX)
		snprintf(buf, n, "unix socket");
	else
		snprintf(buf, n, "%s -> %s", a, b);
	return buf;
}

/* Waits until fd is ready; in slices where there is a stop flag to look at. */
static int wait_ready(int fd, short events, uint64_t deadline_ns, const _Atomic bool *stop)
{
	for (;;) {
		uint64_t now = tt_now_ns(), left;
		struct pollfd p = { .fd = fd, .events = events };
		int r;

		if (stop != NULL && atomic_load_explicit(stop, memory_order_acquire))
			return ECANCELED;
		if (now >= deadline_ns)
			return ETIMEDOUT;
		left = (deadline_ns - now) / 1000000 + 1;
		r = poll(&p, 1, (int)tt_min(left, stop != NULL ? 50 : 60000));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return errno;
	}
}

int tt_sock_read(int fd, void *p, size_t n, uint64_t deadline_ns, const _Atomic bool *stop)
{
	uint8_t *at = p;

	while (n > 0) {
		ssize_t r = recv(fd, at, n, MSG_DONTWAIT);
		int e = 0;

		if (r > 0) {
			at += r;
			n -= (size_t)r;
		} else if (r == 0) {
			return ENODATA;
		} else if (errno == EAGAIN) {
			e = wait_ready(fd, POLLIN, deadline_ns, stop);
		} else if (errno != EINTR) {
			e = errno;
		}
		if (e != 0)
			return e;
	}
	return 0;
}

int tt_sock_write(int fd, const void *p, size_t n, uint64_t deadline_ns, const _Atomic bool *stop)
{
	const uint8_t *at = p;

	while (n > 0) {
		ssize_t r = send(fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		int e = 0;

		if (r >= 0) {
			at += r;
			n -= (size_t)r;
		} else if (errno == EAGAIN) {
			e = wait_ready(fd, POLLOUT, deadline_ns, stop);
		} else if (errno != EINTR) {
			e = errno;
		}
		if (e != 0)
			return e;
	}
	return 0;
}

void tt_sock_reserve(size_t want)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur == RLIM_INFINITY)
		return;
	/* Half of the limit is left to the program. */
	if (want * 2 + 256 <= l.rlim_cur)
		return;
	l.rlim_cur = want * 2 + 1024;
	if (l.rlim_max != RLIM_INFINITY && l.rlim_cur > l.rlim_max)
		l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
}
