/* verbs: the devices of this machine and their ports, as the library and /sys/class/infiniband tell.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs_dev.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"

#define SYSFS "/sys/class/infiniband"
enum { ACTIVE = 4, MAX_LOCAL = 256 };

/* One line of a file, or "". */
static const char *sys_line(char *out, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static const char *sys_line(char *out, size_t n, const char *fmt, ...)
{
	char path[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	return tt_first_line(path, out, n);
}

const char *tt_vb_wire_name(enum tt_vb_wire w)
{
	return w == TT_VB_IB ? "InfiniBand" : w == TT_VB_ROCE ? "RoCE" : "iWARP";
}

const char *tt_vb_state_name(int state)
{
	static const char *const names[] = { "no state", "down", "initialising", "armed", "active", "deferred" };

	return state >= 0 && state <= 5 ? names[state] : "state unknown";
}

/* "100 Gb/sec (4X EDR)": also speeds that are younger than the headers. */
static double sys_speed(const char *dev, int port)
{
	char line[64];

	return strtod(sys_line(line, sizeof(line), SYSFS "/%s/ports/%d/rate", dev, port), NULL) * 1e9 / 8;
}

/* ---- without opening anything ---- */

/* Calls see for each port of each device; stops when it returns true. */
static bool each_port(bool (*see)(const char *dev, int port, void *arg), void *arg)
{
	DIR *devs = opendir(SYSFS);
	bool stop = false;

	for (struct dirent *d; devs && !stop && (d = readdir(devs)) != NULL;) {
		char path[320];

		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), SYSFS "/%s/ports", d->d_name);
		for (int port = 1; port < 256 && !stop; port++) {
			snprintf(path, sizeof(path), SYSFS "/%s/ports/%d", d->d_name, port);
			if (access(path, F_OK))
				break;
			stop = see(d->d_name, port, arg);
		}
	}
	if (devs)
		closedir(devs);
	return stop;
}

static bool see_any(const char *dev, int port, void *arg)
{
	return true;
}

bool tt_vb_any(void)
{
	return each_port(see_any, NULL);
}

struct looked {
	int ports, admitted, active;
	double speed;
};

static bool see_port(const char *dev, int port, void *arg)
{
	struct looked *l = arg;
	char line[32];

	l->ports++;
	if (!tt_vb_hca(tt_env_str("IB_HCA"), dev, port))
		return false;
	l->admitted++;
	if (atoi(sys_line(line, sizeof(line), SYSFS "/%s/ports/%d/state", dev, port)) != ACTIVE)
		return false;
	l->active++;
	if (sys_speed(dev, port) > l->speed)
		l->speed = sys_speed(dev, port);
	return false;
}

/* Whether some device file may be opened. */
static bool may_open(char *why, size_t n)
{
	DIR *d = opendir("/dev/infiniband");
	bool good = false, any = false;
	char path[300];

	for (struct dirent *e; d && !good && (e = readdir(d)) != NULL;) {
		if (strncmp(e->d_name, "uverbs", 6))
			continue;
		any = true;
		snprintf(path, sizeof(path), "/dev/infiniband/%s", e->d_name);
		good = !access(path, R_OK | W_OK);
	}
	if (d)
		closedir(d);
	if (!good)
		snprintf(why, n, any ? "this user may not open /dev/infiniband/uverbs*: see their group (rdma)" :
				       "no /dev/infiniband/uverbs* (container: --device=/dev/infiniband)");
	return good;
}

bool tt_vb_probe(double *speed, char *why, size_t n)
{
	struct looked l = { .ports = 0 };

	each_port(see_port, &l);
	*speed = l.speed;
	if (l.active)
		return tt_vb(why, n) && may_open(why, n);
	if (!l.ports)
		snprintf(why, n, "no RDMA device");
	else if (!l.admitted)
		snprintf(why, n, "no RDMA port is in TUTTI_IB_HCA=%s", tt_env_str("IB_HCA"));
	else
		snprintf(why, n, "no port of %d is active (tutti-info --check-rdma)", l.admitted);
	return false;
}

/* ---- opened ---- */

const char *tt_vb_port_text(const struct tt_vb_port *p, char *out, size_t n)
{
	snprintf(out, n, "device %s port %d (%s%s%s, %s%s)", p->dev->name, p->num, tt_vb_wire_name(p->wire),
		 *p->netdev ? ", " : "", p->netdev, tt_vb_state_name(p->state), p->netdev_up ? "" : ", no carrier");
	return out;
}

static bool on_port(const struct tt_vb_port *p, const char *netdev)
{
	if (!strcmp(netdev, p->netdev))
		return true;
	for (int i = 0; i < p->ngids; i++)
		if (!strcmp(netdev, p->gids[i].netdev))
			return true;
	return false;
}

int tt_vb_port_addrs(const struct tt_vb_port *p, struct tt_local_addr *out, int max)
{
	struct tt_local_addr *local = calloc(MAX_LOCAL, sizeof(*local));
	int n = local ? tt_addr_list("0.0.0.0/0,::/0", local, MAX_LOCAL) : 0, kept = 0;

	for (int last = 0; last < 2; last++)
		for (int i = 0; i < n && kept < max; i++)
			if (local[i].link_local == last && on_port(p, local[i].name))
				out[kept++] = local[i];
	free(local);
	return kept;
}

#if TT_HAVE_VERBS

/* An interface that is not in this network namespace is nothing to judge by. */
static bool net_up(const char *netdev)
{
	char line[32], path[64];

	snprintf(path, sizeof(path), "/sys/class/net/%s", netdev);
	return !*netdev || access(path, F_OK) ||
	       !strcmp(sys_line(line, sizeof(line), "/sys/class/net/%s/carrier", netdev), "1");
}

static double speed_of(const struct ibv_port_attr *a, const char *dev, int port)
{
	/* One lane in Gb/s by the bit of active_speed; FDR10 is 10. */
	static const double lane[] = { 2.5, 5, 10, 10, 14, 25, 50, 100 };
	int width = a->active_width == 16 ? 2 : a->active_width == 8 ? 12 : a->active_width == 4 ? 8 :
		    a->active_width == 2 ? 4 : 1;

	for (int bit = 7; bit >= 0; bit--)
		if (a->active_speed >> bit & 1)
			return lane[bit] * 1e9 / 8 * width;
	return sys_speed(dev, port);
}

/* ---- GIDs ---- */

/* The prefix of the address that this GID is, as an IPv6 prefix. */
static uint8_t prefix_of(const uint8_t *raw, const struct tt_local_addr *local, int n)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };
	bool mapped = !memcmp(raw, head, sizeof(head));

	for (int i = 0; i < n; i++) {
		const struct tt_addr *a = &local[i].addr;

		if (mapped && a->family == 4 && !memcmp(a->ip, raw + 12, 4))
			return (uint8_t)(a->prefix + 96);
		if (!mapped && a->family == 6 && !memcmp(a->ip, raw, 16))
			return a->prefix;
	}
	return 0;
}

/* All ports at once, holes left out; -1 where library or kernel are too old for it. */
static int gids_at_once(const struct tt_vb *vb, struct tt_vb_port *p, const struct ibv_port_attr *attr)
{
	size_t max = (size_t)p->dev->nports * (size_t)attr->gid_tbl_len;
	struct ibv_gid_entry *e = vb->query_gid_table && max ? calloc(max, sizeof(*e)) : NULL;
	ssize_t n = e ? vb->query_gid_table(p->dev->ctx, e, max, 0, sizeof(*e)) : -1;
	for (ssize_t i = 0; i < n; i++) {
		struct tt_gid *g = &p->gids[p->ngids];

		if ((int)e[i].port_num != p->num || p->ngids == attr->gid_tbl_len)
			continue;
		memcpy(g->raw, e[i].gid.raw, sizeof(g->raw));
		g->index = (uint16_t)e[i].gid_index;
		g->type = (uint8_t)e[i].gid_type;
		if (e[i].ndev_ifindex)
			if_indextoname(e[i].ndev_ifindex, g->netdev);
		p->ngids++;
	}
	free(e);
	return n < 0 ? -1 : 0;
}

/* One by one through sysfs, which gives EINVAL for the type of a hole. */
static void gids_one_by_one(const struct tt_vb *vb, struct tt_vb_port *p, int len)
{
	const char *dev = p->dev->name;
	union ibv_gid raw;
	char line[64];

	for (int i = 0; i < len && i < 1024; i++) {
		struct tt_gid *g = &p->gids[p->ngids++];

		g->index = (uint16_t)i;
		if (vb->query_gid(p->dev->ctx, (uint8_t)p->num, i, &raw)) {
			g->err = (uint8_t)(errno > 0 && errno < 256 ? errno : EIO);
			continue;
		}
		memcpy(g->raw, raw.raw, sizeof(g->raw));
		sys_line(line, sizeof(line), SYSFS "/%s/ports/%d/gid_attrs/types/%d", dev, p->num, i);
		if (!*line)
			g->err = EINVAL;
		g->type = !strcmp(line, "RoCE v2") ? TT_GID_ROCE2 : TT_GID_ROCE1;
		sys_line(g->netdev, sizeof(g->netdev), SYSFS "/%s/ports/%d/gid_attrs/ndevs/%d", dev, p->num, i);
	}
}

/* Some interfaces of the kernel give one name to the types of InfiniBand and RoCE v1. */
static void settle_types(struct tt_vb_port *p, bool ethernet)
{
	struct tt_local_addr *local = calloc(MAX_LOCAL, sizeof(*local));
	int n = local ? tt_addr_list("0.0.0.0/0,::/0", local, MAX_LOCAL) : 0;

	for (int i = 0; i < p->ngids; i++) {
		struct tt_gid *g = &p->gids[i];

		if (!ethernet)
			g->type = TT_GID_IB;
		else if (g->type == TT_GID_IB)
			g->type = TT_GID_ROCE1;
		g->prefix = prefix_of(g->raw, local, n);
		if (!*p->netdev)
			memcpy(p->netdev, g->netdev, sizeof(p->netdev));
	}
	free(local);
}

/* iWARP: GID 0 begins with the MAC address of the interface, and kernels before 6.5 give no other way to it. */
static void netdev_by_mac(struct tt_vb_port *p)
{
	DIR *d = opendir("/sys/class/net");
	const uint8_t *m = p->gids[0].raw;
	char mac[24], line[64];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
		if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof(p->netdev))
			continue;
		if (!strcmp(sys_line(line, sizeof(line), "/sys/class/net/%s/address", e->d_name), mac))
			strcpy(p->netdev, e->d_name);
	}
	if (d)
		closedir(d);
}

/* ---- ports ---- */

/* iWARP connects by addresses, the others by GIDs. */
static bool has_address(const struct tt_vb_port *p, int gid_index)
{
	struct tt_local_addr addr;
	struct tt_gid gid;

	return p->wire == TT_VB_IWARP ? tt_vb_port_addrs(p, &addr, 1) > 0 :
					tt_gid_usable(p->gids, p->ngids, gid_index, &gid, 1) > 0;
}

static void judge(struct tt_vb_port *p)
{
	struct tt_vb_conf c;

	tt_vb_conf(&c);
	p->usable = false;
	if (!p->wanted)
		snprintf(p->why, sizeof(p->why), "not in TUTTI_IB_HCA=%.60s", tt_env_str("IB_HCA"));
	else if (p->state != ACTIVE)
		snprintf(p->why, sizeof(p->why), "not active: %s",
			 p->wire != TT_VB_IB ? "check cable and switch, ip link set its interface up" :
			 p->state == 2 ? "waits for a subnet manager (opensm)" : "check cable and switch");
	else if (!p->netdev_up)
		snprintf(p->why, sizeof(p->why), "interface %s has no carrier or is down: ip link set %s up", p->netdev,
			 p->netdev);
	else if (has_address(p, c.gid_index))
		p->usable = true;
	else if (c.gid_index >= 0 && p->wire != TT_VB_IWARP)
		snprintf(p->why, sizeof(p->why),
			 "no usable GID at TUTTI_IB_GID_INDEX=%d: unset it; tutti-info --check-rdma shows them",
			 c.gid_index);
	else
		snprintf(p->why, sizeof(p->why), "%s: give interface %s an address",
			 p->wire == TT_VB_IWARP ? "no address" : "no usable GID", p->netdev);
	if (p->usable)
		p->why[0] = 0;
}

static void find_pkey(const struct tt_vb *vb, struct tt_vb_port *p)
{
	struct tt_vb_conf c;
	int i;

	tt_vb_conf(&c);
	if (!c.pkey || !p->usable || p->wire != TT_VB_IB)
		return;
	i = -1;
	if (vb->get_pkey_index)
		i = vb->get_pkey_index(p->dev->ctx, (uint8_t)p->num, htons((uint16_t)c.pkey));
	p->pkey_index = (uint16_t)(i < 0 ? 0 : i);
	if (i >= 0)
		return;
	p->usable = false;
	snprintf(p->why, sizeof(p->why), "TUTTI_IB_PKEY=0x%x is not in its table: the fabric's administrator adds it",
		 (unsigned)c.pkey);
}

/* Without a table there is no usable GID, which is then said. */
static void find_gids(const struct tt_vb *vb, struct tt_vb_port *p, const struct ibv_port_attr *a)
{
	free(p->gids);
	p->ngids = 0;
	p->gids = calloc((size_t)a->gid_tbl_len + 1, sizeof(*p->gids));
	if (!p->gids)
		return;
	if (gids_at_once(vb, p, a)) {
		p->ngids = 0;
		gids_one_by_one(vb, p, a->gid_tbl_len);
	}
	settle_types(p, a->link_layer == IBV_LINK_LAYER_ETHERNET);
	if (p->wire == TT_VB_IWARP && !*p->netdev && p->ngids)
		netdev_by_mac(p);
}

void tt_vb_port_look(struct tt_vb_port *p)
{
	const struct tt_vb *vb = tt_vb(NULL, 0);
	struct ibv_port_attr a;

	p->wanted = tt_vb_hca(tt_env_str("IB_HCA"), p->dev->name, p->num);
	if (tt_vb_query_port(p->dev->ctx, (uint8_t)p->num, &a)) {
		p->state = 0;
		p->usable = false;
		snprintf(p->why, sizeof(p->why), "cannot be queried: the device may be gone");
		return;
	}
	p->wire = p->dev->ctx->device->transport_type == IBV_TRANSPORT_IWARP ? TT_VB_IWARP :
		  a.link_layer == IBV_LINK_LAYER_ETHERNET		     ? TT_VB_ROCE :
									       TT_VB_IB;
	p->state = (int)a.state;
	p->mtu = 128 << a.active_mtu;
	p->speed = speed_of(&a, p->dev->name, p->num);
	p->lid = a.lid;
	find_gids(vb, p, &a);
	p->netdev_up = net_up(p->netdev);
	judge(p);
	find_pkey(vb, p);
	if (p->dev->lost) {
		p->usable = false;
		strcpy(p->why, "the device was removed or has failed");
	}
}

/* ---- devices ---- */

static void sys_facts(struct tt_vb_dev *d)
{
	char path[160], target[512], line[32];
	ssize_t n;

	sys_line(d->node, sizeof(d->node), SYSFS "/%s/node_type", d->name);
	d->numa = -1;
	if (*sys_line(line, sizeof(line), SYSFS "/%s/device/numa_node", d->name))
		d->numa = atoi(line);
	snprintf(path, sizeof(path), SYSFS "/%s/device", d->name);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return;
	target[n] = 0;
	snprintf(d->pci, sizeof(d->pci), "%.23s", strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
}

/* As the inline of verbs.h, without the symbol for old libraries. */
static bool has_odp(struct ibv_context *ctx)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_device_ex);
	struct ibv_device_attr_ex a = { 0 };

	return v && !v->query_device_ex(ctx, NULL, &a, sizeof(a)) && a.odp_caps.general_caps & IBV_ODP_SUPPORT &&
	       a.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_WRITE;
}

static void limits_of(struct tt_vb_dev *d, const struct ibv_device_attr *a)
{
	d->guid = be64toh(a->node_guid);
	snprintf(d->fw, sizeof(d->fw), "%.63s", a->fw_ver);
	d->max_qp = a->max_qp;
	d->max_qp_wr = a->max_qp_wr;
	d->max_sge = a->max_sge;
	d->max_cqe = a->max_cqe;
	d->max_mr = a->max_mr;
	d->max_srq = a->max_srq;
	d->max_rd_atomic = a->max_qp_rd_atom;
	d->max_mr_size = a->max_mr_size;
	d->inline_try = 256; /* siw takes 64, which is the least seen; more makes each work request larger */
}

/* The library looks for other names of the file then, and forgets why the first could not be opened. */
static int open_errno(const struct ibv_device *from)
{
	int err = errno ? errno : EIO;
	char path[128];

	snprintf(path, sizeof(path), "/dev/infiniband/%.64s", from->dev_name);
	return err == ENOENT && access(path, R_OK | W_OK) ? errno : err;
}

/* False: no memory. What the device refuses is told in `why`. */
static bool open_dev(const struct tt_vb *vb, struct tt_vb_dev *d, struct ibv_device *from)
{
	struct ibv_device_attr a;
	int r;

	errno = 0;
	d->ctx = vb->open_device(from);
	if (!d->ctx) {
		tt_vb_errno("ibv_open_device", open_errno(from), d->why, sizeof(d->why));
		return true;
	}
	r = vb->query_device(d->ctx, &a);
	if (r) {
		tt_vb_errno("ibv_query_device", r, d->why, sizeof(d->why));
		vb->close_device(d->ctx);
		d->ctx = NULL;
		return true;
	}
	limits_of(d, &a);
	d->odp = has_odp(d->ctx);
	d->ports = calloc(a.phys_port_cnt ? a.phys_port_cnt : 1, sizeof(*d->ports));
	if (!d->ports)
		return false;
	d->nports = a.phys_port_cnt;
	for (int i = 0; i < d->nports; i++) {
		d->ports[i].dev = d;
		d->ports[i].num = i + 1;
		tt_vb_port_look(&d->ports[i]);
	}
	return true;
}

static bool any_admitted(const char *dev)
{
	for (int port = 1; port < 16; port++)
		if (tt_vb_hca(tt_env_str("IB_HCA"), dev, port))
			return true;
	return false;
}

static bool open_list(const struct tt_vb *vb, struct tt_vb_devs *d, struct ibv_device **list, int n, bool all)
{
	d->dev = calloc((size_t)n + 1, sizeof(*d->dev));
	for (int i = 0; d->dev && i < n; i++) {
		struct tt_vb_dev *dev = &d->dev[d->n];
		const char *name = vb->get_device_name(list[i]);

		if (!all && !any_admitted(name))
			continue;
		d->n++;
		snprintf(dev->name, sizeof(dev->name), "%s", name);
		sys_facts(dev);
		if (!open_dev(vb, dev, list[i]))
			return false;
	}
	return d->dev != NULL;
}

static tuttiResult_t open_devs(struct tt_vb_devs *d, bool all)
{
	const struct tt_vb *vb;
	struct ibv_device **list;
	char why[256];
	int n = 0;
	bool good;

	memset(d, 0, sizeof(*d));
	vb = tt_vb(why, sizeof(why));
	if (!vb)
		return tt_fail(tuttiUnsupported, "verbs: %s", why);
	tt_vb_fork();
	list = vb->get_device_list(&n);
	if (!list && errno != ENOSYS)
		return tt_fail(tuttiSystemError, "verbs: %s",
			       tt_vb_errno("ibv_get_device_list", errno, why, sizeof(why)));
	if (!list)
		return tuttiSuccess; /* a kernel without RDMA */
	good = open_list(vb, d, list, n, all);
	vb->free_device_list(list);
	if (good)
		return tuttiSuccess;
	tt_vb_close(d);
	return tt_fail(tuttiSystemError, "verbs: no memory for %d devices", n);
}

void tt_vb_close(struct tt_vb_devs *d)
{
	const struct tt_vb *vb = tt_vb(NULL, 0);

	for (int i = 0; i < d->n; i++) {
		struct tt_vb_dev *dev = &d->dev[i];

		for (int p = 0; p < dev->nports; p++)
			free(dev->ports[p].gids);
		free(dev->ports);
		if (dev->ctx)
			vb->close_device(dev->ctx);
	}
	free(d->dev);
	memset(d, 0, sizeof(*d));
}

int tt_vb_try_register(const struct tt_vb_dev *d, size_t bytes)
{
	const struct tt_vb *vb = tt_vb(NULL, 0);
	struct ibv_pd *pd = d->ctx ? vb->alloc_pd(d->ctx) : NULL;
	void *p = pd ? aligned_alloc(4096, tt_div_up(bytes, 4096) * 4096) : NULL;
	struct ibv_mr *mr = NULL;
	int err = d->ctx ? errno : ENODEV;

	if (p) {
		mr = vb->reg_mr(pd, p, bytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
		err = mr ? 0 : errno;
	}
	if (mr)
		vb->dereg_mr(mr);
	free(p);
	if (pd)
		vb->dealloc_pd(pd);
	return err;
}

int tt_vb_try_dmabuf(const struct tt_vb_dev *d)
{
	const struct tt_vb *vb = tt_vb(NULL, 0);
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	int err;

	if (!d->ctx)
		return ENODEV;
	if (!vb->reg_dmabuf_mr)
		return ENOSYS;
	pd = vb->alloc_pd(d->ctx);
	if (!pd)
		return errno;
	mr = vb->reg_dmabuf_mr(pd, 0, 4096, 0, -1, IBV_ACCESS_LOCAL_WRITE);
	err = mr ? 0 : errno;
	if (mr)
		vb->dereg_mr(mr);
	vb->dealloc_pd(pd);
	return err;
}

#else

int tt_vb_try_dmabuf(const struct tt_vb_dev *d)
{
	return ENOSYS;
}

void tt_vb_port_look(struct tt_vb_port *p)
{
	p->usable = false;
}

static tuttiResult_t open_devs(struct tt_vb_devs *d, bool all)
{
	char why[256];

	memset(d, 0, sizeof(*d));
	tt_vb(why, sizeof(why));
	return tt_fail(tuttiUnsupported, "verbs: %s", why);
}

void tt_vb_close(struct tt_vb_devs *d)
{
}

int tt_vb_try_register(const struct tt_vb_dev *d, size_t bytes)
{
	return ENOSYS;
}

#endif

tuttiResult_t tt_vb_open(struct tt_vb_devs *d)
{
	return open_devs(d, false);
}

tuttiResult_t tt_vb_open_all(struct tt_vb_devs *d)
{
	return open_devs(d, true);
}

/* The NUMA node of the core where this thread is now. */
static int numa_here(void)
{
	unsigned cpu, node;

	return getcpu(&cpu, &node) ? -1 : (int)node;
}

/* Negative: a before b. */
static int order(const struct tt_vb_port *a, const struct tt_vb_port *b, int here)
{
	bool far_a = a->dev->numa >= 0 && a->dev->numa != here, far_b = b->dev->numa >= 0 && b->dev->numa != here;
	int c;

	if (far_a != far_b)
		return far_a - far_b;
	if (a->speed > b->speed || a->speed < b->speed)
		return a->speed > b->speed ? -1 : 1;
	c = strcmp(a->dev->name, b->dev->name);
	return c ? c : a->num - b->num;
}

int tt_vb_ports(const struct tt_vb_devs *d, struct tt_vb_port **out, int max)
{
	int n = 0, here = numa_here();

	for (int i = 0; i < d->n; i++)
		for (int p = 0; p < d->dev[i].nports; p++) {
			struct tt_vb_port *port = &d->dev[i].ports[p];
			int at = n < max ? n : max;

			if (!port->usable)
				continue;
			while (at > 0 && order(port, out[at - 1], here) < 0)
				at--;
			if (at == max)
				continue;
			n = n < max ? n + 1 : max;
			memmove(&out[at + 1], &out[at], (size_t)(n - 1 - at) * sizeof(*out));
			out[at] = port;
		}
	return n;
}
