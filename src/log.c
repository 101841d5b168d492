/* The log: one line, one write, on stderr; TUTTI_LOG=level[,subsystem:level...] says what is shown.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RULES = 16, MAX_LINE = 4096 };

static const char *const level_names[] = { "none", "error", "warn", "info", "debug" };

/* Written once under pthread_once, read only afterwards. */
static struct {
	enum tt_log_level level;
	int nrules;
	struct {
		char subsystem[24];
		enum tt_log_level level;
	} rules[MAX_RULES];
} conf = { .level = TT_LOG_ERROR };
static pthread_once_t conf_once = PTHREAD_ONCE_INIT;

static int level_find(const char *name)
{
	for (int i = 0; i <= TT_LOG_DEBUG; i++)
		if (strcasecmp(name, level_names[i]) == 0)
			return i;
	return -1;
}

/* The log is not configured yet when its own setting is wrong: straight to stderr. */
static void complain(const char *word)
{
	dprintf(STDERR_FILENO, "tutti: error: TUTTI_LOG: '%s' is not understood; use "
		"none|error|warn|info|debug[,subsystem:level...]\n", word);
}

static void parse_word(char *word)
{
	char *colon = strchr(word, ':');
	int level = level_find(colon ? colon + 1 : word);

	if (level < 0 || (colon && (colon == word || conf.nrules == MAX_RULES))) {
		complain(word);
		return;
	}
	if (!colon) {
		conf.level = (enum tt_log_level)level;
		return;
	}
	*colon = '\0';
	snprintf(conf.rules[conf.nrules].subsystem, sizeof(conf.rules[0].subsystem), "%s", word);
	conf.rules[conf.nrules++].level = (enum tt_log_level)level;
}

static void parse(void)
{
	char text[512], *word, *rest;

	snprintf(text, sizeof(text), "%s", tt_env_str("LOG"));
	for (word = strtok_r(text, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest))
		parse_word(word);
}

bool tt_log_on(enum tt_log_level level, const char *subsystem)
{
	pthread_once(&conf_once, parse);
	for (int i = 0; i < conf.nrules; i++)
		if (strcasecmp(conf.rules[i].subsystem, subsystem) == 0)
			return level <= conf.rules[i].level;
	return level <= conf.level;
}

static size_t put_head(char *line, size_t size, enum tt_log_level level, const char *subsystem)
{
	struct timespec ts;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	n = snprintf(line, size, "%02d:%02d:%02d.%06ld tutti[%d] %s %.23s: ", tm.tm_hour, tm.tm_min,
		     tm.tm_sec, ts.tv_nsec / 1000, (int)getpid(), level_names[level], subsystem);
	return n > 0 ? (size_t)n : 0;
}

/* A short write loses the rest of a log line, which is better than to wait for a full pipe. */
static void put_line(const char *line, size_t n)
{
	ssize_t r;

	do
		r = write(STDERR_FILENO, line, n);
	while (r < 0 && errno == EINTR);
}

void tt_log(enum tt_log_level level, const char *subsystem, const char *fmt, ...)
{
	char line[MAX_LINE];
	int saved = errno, n;
	size_t head, size;
	va_list ap;

	if (!tt_log_on(level, subsystem))
		return;
	head = put_head(line, sizeof(line) - 1, level, subsystem);
	va_start(ap, fmt);
	n = vsnprintf(line + head, sizeof(line) - 1 - head, fmt, ap);
	va_end(ap);
	size = tt_min(head + (size_t)(n > 0 ? n : 0), sizeof(line) - 2);
	line[size] = '\n';
	put_line(line, size + 1);
	errno = saved;
}
