/* What links carry, where a source names only their kind. The figures are what others measured, not what is printed
 * on the box: 12 GB/s for PCIe Gen3 x16. SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdlib.h>
#include <string.h>

/* 12000 of the 15754 MB/s that Gen3 x16 has after its encoding. */
#define PCI_REACHED 0.7617

uint32_t tt_rate_pci(const char *gts, long width)
{
	double g = gts ? strtod(gts, NULL) : 0;

	if (!(g > 0 && g < 10000) || width <= 0 || width > 64)
		return TT_NO_LIMIT;
	return (uint32_t)(g * 1000 / 8 * (double)width * (g > 5 ? 128. / 130 : 0.8) * PCI_REACHED + 0.5);
}

struct rate {
	long upto; /* of this generation and older ones that have no row */
	uint32_t mbytes;
};

static uint32_t rate_of(const struct rate *r, size_t n, long which)
{
	for (size_t i = 0; i < n; i++)
		if (which <= r[i].upto)
			return r[i].mbytes;
	return r[n - 1].mbytes;
}

uint32_t tt_rate_nvlink(long sm)
{
	static const struct rate r[] = { { 62, 18000 }, { 75, 20000 }, { 80, 20000 }, { 89, 12000 }, { 90, 20600 },
					 { 100, 40100 } };

	return sm < 60 ? TT_NO_LIMIT : rate_of(r, sizeof(r) / sizeof(r[0]), sm);
}

/* 910 is how older files spell gfx90a. */
uint32_t tt_rate_xgmi(const char *gcn)
{
	static const struct rate r[] = { { 908, 24000 }, { 939, 36000 }, { 999, 48000 } };
	long n;

	if (!gcn)
		return TT_NO_LIMIT;
	if (!strncmp(gcn, "gfx", 3))
		gcn += 3;
	if (!strncmp(gcn, "90a", 3))
		return 36000;
	n = strtol(gcn, NULL, 10);
	return n < 900 ? TT_NO_LIMIT : rate_of(r, sizeof(r) / sizeof(r[0]), n);
}

/* Between sockets, as NCCL counts it. */
uint32_t tt_rate_socket(const struct tt_topo *t, int numa)
{
	static const struct rate intel[] = { { 84, 6000 }, { 142, 10000 }, { 1000, 22000 } }; /* by model */
	const char *arch = tt_topo_attr(t, numa, "arch"), *vendor = tt_topo_attr(t, numa, "vendor");

	if (arch && !strncmp(arch, "ppc64", 5))
		return 32000;
	if (arch && (!strncmp(arch, "arm64", 5) || !strncmp(arch, "aarch64", 7)))
		return 6000;
	if (vendor && !strcmp(vendor, "AuthenticAMD"))
		return 16000;
	if (vendor && !strcmp(vendor, "GenuineIntel"))
		return rate_of(intel, 3, tt_topo_number(t, numa, "modelid", 0));
	return TT_NO_LIMIT;
}

/* No RDMA device is that slow: somebody wrote Gb/s. */
static bool is_rdma(const char *name)
{
	static const char *const begins[] = { "mlx", "efa", "bnxt_re", "irdma", "hfi1", "rdmap", "roce", "ibp" };

	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++)
		if (!strncmp(name, begins[i], strlen(begins[i])))
			return true;
	return false;
}

/* Mb/s; -1 and 0 are how the kernel and NCCL say that they do not know. */
uint32_t tt_rate_net(struct tt_topo *t, const char *name, const char *mbits)
{
	double m = mbits ? strtod(mbits, NULL) : 0;

	if (!(m > 0))
		return TT_NO_LIMIT;
	if (m > 1e13) {
		tt_topo_assume(t, "%s: a speed of %s Mb/s cannot be: taken as unknown", name, mbits);
		return TT_NO_LIMIT;
	}
	if (m < 1000 && is_rdma(name)) {
		tt_topo_assume(t, "%s: a speed of %s Mb/s cannot be: taken as Gb/s", name, mbits);
		m *= 1000;
	}
	while (m >= 1e7) {
		tt_topo_assume(t, "%s: a speed of %s Mb/s cannot be: taken as a thousandth", name, mbits);
		m /= 1000;
	}
	return m < 8 ? 1 : (uint32_t)(m / 8 + 0.5);
}
