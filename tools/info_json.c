/* Text in JSON. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "info.h"

/* Bytes beyond ASCII are taken one by one, so that what is written is JSON whatever they are. */
void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c > 0x7e)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

void json_pair(const char *name, const char *value)
{
	printf("\"%s\": ", name);
	json_string(value);
}
