/* What the files of tutti-info share. */
#ifndef INFO_H
#define INFO_H

#include "sched_file.h"

void json_string(const char *s);
void json_pair(const char *name, const char *value);

/* ---- what is asked, and numbers in words (info_words.c) ---- */
void quit(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn)); /* for wrong options: status 2 */
const char *size_text(size_t n, char *out, size_t room);
const char *time_text(double seconds, char *out, size_t room);
struct question { /* COLL:...:... */
	char text[128], *part[4];
	int n;
};
void split(struct question *q, const char *option, const char *text);
enum tt_coll coll_of(const char *name);
int number_of(const char *what, const char *text, int lo, int hi);
size_t size_of(const char *text);

int info_rdma(bool json); /* --check-rdma: the exit status */
struct tt_vb_devs;
void info_gdr(const struct tt_vb_devs *devs, bool json); /* lines, or elements of an array */

struct topo_wish {
	const char *file, *form, *draw; /* NULL: this machine; as text or nccl; into a picture */
	int hosts;                      /* 0: nothing is asked of several */
	const struct question *explain;
	int nexplain;
	bool json;
};
int info_topo(const struct topo_wish *w); /* --topo: the exit status */
/* --schedule: of files, or COLL:ALGO:RANKS[:ROOT]; in a form (text, msccl), or NULL. The exit status. */
int info_schedule(const char *what, const char *form);
/* The schedules of TUTTI_SCHEDULE_FILE, proved, and in a plan as at init: they stay. What is wrong ends the program. */
struct tt_plan;
const struct tt_sched_file *info_custom(struct tt_plan *plan, int nranks);

#endif
