/* What tests of topologies share: fixtures by name, and what was assumed. */
#ifndef TOPO_FILES_H
#define TOPO_FILES_H

#include "topo.h"

char *test_fixture(const char *name); /* of tests/fixtures/topo, to be freed */
bool test_assumes(const struct tt_topo *t, const char *words);
/* The class between two nodes, which must be the same both ways. */
const char *test_between(const struct tt_topo *t, const char *a, const char *b);
struct tt_topo *test_topo_text(const char *text);
struct tt_topo *test_topo_nccl(const char *name, const struct tt_topo *machine); /* a fixture */

#endif
