/* What the files of tutti-info share. */
#ifndef INFO_H
#define INFO_H

#include <stdbool.h>

void json_string(const char *s);
void json_pair(const char *name, const char *value);
int info_rdma(bool json); /* --check-rdma: the exit status */

#endif
