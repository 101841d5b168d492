/* The one list of results, and the last error of each thread.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* Long enough for a roll call of missing ranks with their addresses. */
static _Thread_local char last_error[2048];
static _Thread_local bool said;

struct result_row {
	tuttiResult_t code;
	const char *text, *advice;
};

#define ROW(code, text, advice) { code, text, advice },
static const struct result_row rows[] = { TT_RESULTS(ROW) };
#undef ROW

const char *tt_result_text(tuttiResult_t r)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].code == r)
			return rows[i].text;
	return "unknown result code";
}

static const char *advice(tuttiResult_t r)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].code == r)
			return rows[i].advice;
	return "";
}

/* Formats aside first: an argument may be the last error itself. */
static void keep(const char *fmt, va_list ap)
{
	char text[sizeof(last_error)];

	vsnprintf(text, sizeof(text), fmt, ap);
	snprintf(last_error, sizeof(last_error), "%s", text);
}

tuttiResult_t tt_fail(tuttiResult_t r, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	keep(fmt, ap);
	va_end(ap);
	tt_log(TT_LOG_ERROR, "error", "%s: %s (%s)", tt_result_text(r), last_error, advice(r));
	said = true;
	errno = saved;
	return r;
}

tuttiResult_t tt_note_error(tuttiResult_t r, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	keep(fmt, ap);
	va_end(ap);
	said = false;
	errno = saved;
	return r;
}

bool tt_last_error_said(void)
{
	return said;
}

const char *tt_last_error(void)
{
	return last_error;
}
