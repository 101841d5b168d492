/* tutti-info --check-rdma: libraries, devices, ports and GIDs, what is wrong and how to mend it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "info.h"
#include "verbs_dev.h"

enum { MAX_PROBLEMS = 32, MAX_FILES = 64, TRIED = 16 << 20 };

struct file {
	char path[300];
	unsigned mode;
	bool good;
};

static struct check {
	const struct tt_vb *vb;
	char why[256]; /* no library */
	struct tt_vb_devs devs;
	struct file file[MAX_FILES];
	char problem[MAX_PROBLEMS][512];
	int nfiles, nproblems;
	bool any;      /* the machine has devices */
	bool openable; /* no device file is in the way */
} c;

static void problem(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void problem(const char *fmt, ...)
{
	va_list ap;

	if (c.nproblems == MAX_PROBLEMS)
		return;
	va_start(ap, fmt);
	vsnprintf(c.problem[c.nproblems++], sizeof(c.problem[0]), fmt, ap);
	va_end(ap);
}

static const char *claim(void)
{
	return strstr(tt_env_str("TRANSPORTS"), "verbs") ? "TUTTI_TRANSPORTS" : *tt_env_str("IB_HCA") ? "TUTTI_IB_HCA" :
													NULL;
}

/* ---- finding ---- */

static void find_files(void)
{
	DIR *d = opendir("/dev/infiniband");
	struct stat s;
	int verbs = 0;

	for (struct dirent *e; d && c.nfiles < MAX_FILES && (e = readdir(d)) != NULL;) {
		struct file *f = &c.file[c.nfiles];

		if (strncmp(e->d_name, "uverbs", 6) && strcmp(e->d_name, "rdma_cm"))
			continue;
		snprintf(f->path, sizeof(f->path), "/dev/infiniband/%s", e->d_name);
		f->mode = stat(f->path, &s) ? 0 : s.st_mode & 0777;
		f->good = !access(f->path, R_OK | W_OK);
		if (!f->good)
			problem("%s (mode %o) may not be opened by this user: chmod 666, or a group of its own "
				"by a udev rule; container: --device=/dev/infiniband", f->path, f->mode);
		verbs += e->d_name[0] == 'u';
		c.nfiles++;
	}
	if (d)
		closedir(d);
	if (!verbs)
		problem("no /dev/infiniband/uverbs*: modprobe ib_uverbs; container: --device=/dev/infiniband");
	if (access("/dev/infiniband/rdma_cm", F_OK))
		problem("no /dev/infiniband/rdma_cm: modprobe rdma_ucm; container: --device=/dev/infiniband");
}

static void check_device(const struct tt_vb_dev *d)
{
	bool wanted = false;
	char text[400];
	int err;

	for (int i = 0; i < d->nports; i++) {
		const struct tt_vb_port *p = &d->ports[i];

		wanted |= p->wanted;
		if (p->wanted && !p->usable)
			problem("%s: %s (or leave it out: TUTTI_IB_HCA=^=%s:%d)",
				tt_vb_port_text(p, text, sizeof(text)), p->why, d->name, p->num);
	}
	if (!d->ctx && c.openable && tt_vb_hca(tt_env_str("IB_HCA"), d->name, 1))
		problem("device %s: %s", d->name, d->why);
	err = wanted ? tt_vb_try_register(d, TRIED) : 0;
	if (err)
		problem("device %s, %d MiB: %s", d->name, TRIED >> 20,
			tt_vb_errno("ibv_reg_mr", err, text, sizeof(text)));
}

static void find_all(void)
{
	bool wanted = false;

	c.any = tt_vb_any();
	c.vb = tt_vb(c.why, sizeof(c.why));
	if (!c.any) {
		if (claim())
			problem("no RDMA device, though %s=%s asks for one: see lspci and lsmod; container: "
				"--device=/dev/infiniband", claim(), tt_env_str(claim() + strlen("TUTTI_")));
		return;
	}
	find_files();
	c.openable = !c.nproblems;
	if (!c.vb) {
		problem("%s", c.why);
		return;
	}
	if (tt_vb_fork() == TT_VB_FORK_UNSAFE)
		problem("fork is %s: a newer kernel or libibverbs mends it", tt_vb_fork_text());
	if (tt_vb_open_all(&c.devs))
		problem("the devices cannot be listed (see above)");
	else if (!c.devs.n)
		problem("the kernel has RDMA devices, the library finds none: install the Debian package "
			"ibverbs-providers, or the driver's own");
	for (int i = 0; i < c.devs.n; i++) {
		check_device(&c.devs.dev[i]);
		for (int p = 0; p < c.devs.dev[i].nports; p++)
			wanted |= c.devs.dev[i].ports[p].wanted;
	}
	if (c.devs.n && !wanted && *tt_env_str("IB_HCA"))
		problem("TUTTI_IB_HCA=%s admits none of the devices", tt_env_str("IB_HCA"));
}

/* ---- words ---- */

static const char *memlock(char *out, size_t n)
{
	struct rlimit r;

	if (!getrlimit(RLIMIT_MEMLOCK, &r) && r.rlim_cur != RLIM_INFINITY)
		snprintf(out, n, "%llu KiB", (unsigned long long)r.rlim_cur >> 10);
	else
		snprintf(out, n, "unlimited");
	return out;
}

static const char *type_name(int type)
{
	return type == TT_GID_IB ? "InfiniBand" : type == TT_GID_ROCE1 ? "RoCE v1" : "RoCE v2";
}

static void show_port(const struct tt_vb_port *p)
{
	char text[64];
	int holes = 0;

	printf("  port %-3d %s, %s, %.4g Gb/s, MTU %d", p->num, tt_vb_wire_name(p->wire), tt_vb_state_name(p->state),
	       p->speed * 8 / 1e9, p->mtu);
	if (p->lid)
		printf(", LID %u", p->lid);
	if (*p->netdev)
		printf(", interface %s%s", p->netdev, p->netdev_up ? "" : " without carrier");
	printf(p->usable ? ": usable\n" : ": not usable: %s\n", p->why);
	for (int i = 0; i < p->ngids && p->wire != TT_VB_IWARP; i++) {
		const struct tt_gid *g = &p->gids[i];

		if (!tt_gid_usable(g, 1, -1, &(struct tt_gid){ .index = 0 }, 1)) {
			holes++;
			continue;
		}
		printf("    GID %-3d %s, %s", g->index, tt_gid_text(g->raw, text, sizeof(text)), type_name(g->type));
		printf(*g->netdev ? ", %s\n" : "\n", g->netdev);
	}
	if (holes)
		printf("    %d empty or unreadable\n", holes);
}

static void show(void)
{
	char text[64];

	if (c.vb)
		printf("libraries  %s, %s\n", c.vb->verbs_path, c.vb->cm_path);
	if (c.vb)
		printf("fork       %s\n", tt_vb_fork_text());
	printf("memlock    %s\n", memlock(text, sizeof(text)));
	for (int i = 0; i < c.nfiles; i++)
		printf("%-10s %s, mode %o%s\n", i ? "" : "files", c.file[i].path, c.file[i].mode,
		       c.file[i].good ? "" : ": may not be opened");
	for (int i = 0; i < c.devs.n; i++) {
		const struct tt_vb_dev *d = &c.devs.dev[i];

		if (!d->ctx) {
			printf("device     %s: %s\n", d->name, d->why);
			continue;
		}
		printf("device     %s, %s, GUID %016llx, firmware %s", d->name, d->node, (unsigned long long)d->guid,
		       *d->fw ? d->fw : "without a number");
		if (*d->pci)
			printf(", %s", d->pci);
		if (d->numa >= 0)
			printf(", NUMA node %d", d->numa);
		printf(", %d queue pairs\n", d->max_qp);
		for (int p = 0; p < d->nports; p++)
			show_port(&d->ports[p]);
	}
	info_gdr(&c.devs, false);
}

/* ---- JSON ---- */

static void json_port(const struct tt_vb_port *p)
{
	char text[64];

	printf("{\"port\": %d, ", p->num);
	json_pair("transport", tt_vb_wire_name(p->wire));
	printf(", ");
	json_pair("state", tt_vb_state_name(p->state));
	printf(", \"bytes_per_s\": %.9g, \"mtu\": %d, \"lid\": %u, ", p->speed, p->mtu, p->lid);
	json_pair("interface", p->netdev);
	printf(", \"carrier\": %s, \"wanted\": %s, \"usable\": %s, ", p->netdev_up ? "true" : "false",
	       p->wanted ? "true" : "false", p->usable ? "true" : "false");
	json_pair("why", p->why);
	printf(", \"gids\": [");
	for (int i = 0, n = 0; i < p->ngids && p->wire != TT_VB_IWARP; i++) {
		const struct tt_gid *g = &p->gids[i];

		if (!tt_gid_usable(g, 1, -1, &(struct tt_gid){ .index = 0 }, 1))
			continue;
		printf("%s{\"index\": %d, ", n++ ? ", " : "", g->index);
		json_pair("gid", tt_gid_text(g->raw, text, sizeof(text)));
		printf(", ");
		json_pair("type", type_name(g->type));
		printf(", ");
		json_pair("interface", g->netdev);
		printf("}");
	}
	printf("]}");
}

static void json_device(const struct tt_vb_dev *d)
{
	printf("{");
	json_pair("name", d->name);
	printf(", ");
	json_pair("node", d->node);
	printf(", \"guid\": \"%016llx\", ", (unsigned long long)d->guid);
	json_pair("firmware", d->fw);
	printf(", ");
	json_pair("pci", d->pci);
	printf(", \"numa\": %d, \"max_qp\": %d, ", d->numa, d->max_qp);
	json_pair("why", d->why);
	printf(", \"ports\": [");
	for (int p = 0; p < d->nports; p++) {
		printf(p ? ",\n    " : "\n    ");
		json_port(&d->ports[p]);
	}
	printf("]}");
}

static void json_all(void)
{
	char text[64];

	printf("{\"rdma\": {");
	json_pair("verbs", c.vb ? c.vb->verbs_path : "");
	printf(", ");
	json_pair("rdmacm", c.vb ? c.vb->cm_path : "");
	printf(", ");
	json_pair("why", c.why);
	printf(",\n ");
	json_pair("fork", c.vb && c.any ? tt_vb_fork_text() : "");
	printf(", ");
	json_pair("memlock", memlock(text, sizeof(text)));
	printf(",\n \"files\": [");
	for (int i = 0; i < c.nfiles; i++) {
		printf(i ? ", {" : "{");
		json_pair("path", c.file[i].path);
		printf(", \"mode\": \"%o\", \"usable\": %s}", c.file[i].mode, c.file[i].good ? "true" : "false");
	}
	printf("],\n \"devices\": [");
	for (int i = 0; i < c.devs.n; i++) {
		printf(i ? ",\n  " : "\n  ");
		json_device(&c.devs.dev[i]);
	}
	printf("],\n \"gpudirect\": [");
	info_gdr(&c.devs, true);
	printf("],\n \"problems\": [");
	for (int i = 0; i < c.nproblems; i++) {
		printf(i ? ",\n  " : "\n  ");
		json_string(c.problem[i]);
	}
	printf("]}}\n");
}

int info_rdma(bool json)
{
	find_all();
	if (json) {
		json_all();
	} else {
		if (c.any)
			show();
		else if (!c.nproblems)
			puts("no RDMA device");
		for (int i = 0; i < c.nproblems; i++)
			printf("wrong      %s\n", c.problem[i]);
		if (c.any && !c.nproblems)
			puts("all is well");
	}
	tt_vb_close(&c.devs);
	return c.nproblems > 0;
}
