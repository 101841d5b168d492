/* Pictures: what is drawn is written as text for Graphviz, whose program makes the picture.
 * SPDX-License-Identifier: Apache-2.0 */
#include "info_draw.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Told apart by eyes that see few colours as well (Okabe and Ito). */
static const char *const colours[] = { "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999" };

const char *draw_colour(unsigned i)
{
	return colours[i % (sizeof(colours) / sizeof(colours[0]))];
}

/* ---- Graphviz ---- */

static const char *ending_of(const char *file)
{
	const char *dot = strrchr(file, '.');

	return dot ? dot + 1 : "";
}

void draw_check(const char *file)
{
	const char *e = ending_of(file);

	if (strcmp(e, "svg") && strcmp(e, "png") && strcmp(e, "dot"))
		quit("--draw %s: a name that ends in .svg, .png or .dot is wanted", file);
}

static int complain(const char *what, const char *file, int error)
{
	fprintf(stderr, "tutti-info: %s %s: %s\n", what, file, strerror(error));
	return 1;
}

/* Graphviz reads the text from its standard input and leaves everything where it is. */
static int run(FILE *text, const char *file)
{
	char form[16];
	char *argv[] = { "dot", "-Kneato", "-n2", form, "-o", (char *)(uintptr_t)file, NULL };
	posix_spawn_file_actions_t io;
	int error, status;
	pid_t pid;

	snprintf(form, sizeof(form), "-T%s", ending_of(file));
	posix_spawn_file_actions_init(&io);
	posix_spawn_file_actions_adddup2(&io, fileno(text), STDIN_FILENO);
	error = posix_spawnp(&pid, "dot", &io, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&io);
	if (error == ENOENT) {
		fprintf(stderr, "tutti-info: --draw %s: Graphviz is not installed (Debian package graphviz); a name "
			"that ends in .dot gives its text\n", file);
		return 1;
	}
	if (error)
		return complain("dot for", file, error);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "tutti-info: --draw %s: Graphviz failed\n", file);
		return 1;
	}
	return 0;
}

FILE *draw_begin(const char *file)
{
	FILE *text = strcmp(ending_of(file), "dot") ? tmpfile() : fopen(file, "we");

	if (!text)
		complain("--draw", file, errno);
	return text;
}

int draw_end(FILE *text, const char *file)
{
	bool good = !fflush(text) && !ferror(text);
	int status = good ? 0 : complain("--draw", file, errno);

	if (good && strcmp(ending_of(file), "dot")) {
		rewind(text);
		lseek(fileno(text), 0, SEEK_SET);
		status = run(text, file);
	}
	fclose(text);
	return status;
}
