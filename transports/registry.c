/* The one list of transports, in the order in which the planner prefers equals.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "transport.h"

const struct tt_transport *const tt_transports[] = { &tt_inproc, &tt_shm, &tt_verbs, &tt_tcp };
const int tt_ntransports = sizeof(tt_transports) / sizeof(tt_transports[0]);

const struct tt_transport *tt_transport_find(const char *name)
{
	for (int i = 0; i < tt_ntransports; i++) {
		if (strcmp(tt_transports[i]->name, name) == 0)
			return tt_transports[i];
	}
	return NULL;
}
