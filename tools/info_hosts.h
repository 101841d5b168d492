/* N hosts like one machine: what joins their ranks, in numbers (info_hosts.c), and what collectives should cost over
 * it (info_predict.c). */
#ifndef INFO_HOSTS_H
#define INFO_HOSTS_H

#include "info_topo.h"
#include "plan.h"

/* How an algorithm uses what joins the ranks. */
enum use {
	ALONG, /* neighbours in orders of the ranks, a lane each: the links of the rings, every NIC for some lane */
	ONE,   /* single ranks at a time: one path, one NIC */
	ALL,   /* each with others anywhere at once: the worst path, each rank its share of the NICs */
	RAILS, /* in a host like that, and out of it over all NICs in proportion */
	USES
};

struct hosts {
	int n, ranks;                  /* ranks: of one host */
	bool gpus;                     /* they are the ranks, else the cores */
	struct tt_facts facts[USES];   /* of all ranks, as src/plan.c wants them */
	struct way {
		double latency, bandwidth;
	} near[USES], far[USES];       /* of the ranks of one host; of a host to the others */
	double nics;                   /* bytes a second that can leave a host */
	double least_latency;          /* between two ranks of a host */
	double least_out, average_out; /* bytes a second out of a rank, by its links and its way to the NICs */
	double allgather, trees, root; /* cut bounds in bytes a second of busbw; INFINITY: none known */
	char assumed[160];             /* empty: nothing */
};

#endif
