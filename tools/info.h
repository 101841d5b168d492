/* What the files of tutti-info share. */
#ifndef INFO_H
#define INFO_H

#include <stdbool.h>

void json_string(const char *s);
void json_pair(const char *name, const char *value);
int info_rdma(bool json); /* --check-rdma: the exit status */
/* --topo: of a file, or NULL; in a form (text, nccl), or NULL. The exit status. */
int info_topo(const char *file, const char *form, bool json);

#endif
