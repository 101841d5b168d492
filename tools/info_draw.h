/* Pictures (info_draw.c), and what is drawn: machines, schedules over time. */
#ifndef INFO_DRAW_H
#define INFO_DRAW_H

#include <stdio.h>

#include "info_topo.h"
#include "plan.h"

const char *draw_colour(unsigned i);
void draw_check(const char *file); /* stops the program if it is no name of a picture */
/* Between them Graphviz's language is written to what begin returns (NULL: it said why), each node with its place. end
 * makes the picture and returns the exit status. */
FILE *draw_begin(const char *file);
int draw_end(FILE *text, const char *file);

int draw_machine(const struct shown *s, const char *file); /* info_draw_topo.c: the exit status */
/* info_draw_sched.c: all ranks of a schedule over time, `bytes` a block. The exit status. */
int draw_schedule(struct tt_sched *const *ranks, const struct tt_facts *f, size_t bytes, const char *file);

#endif
