// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "maps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io.h"

#define TEXT_BYTES (4u << 20)

/* The whole text at once, before anything is visited: a visitor may change the mappings. */
static int read_text(const char *path, char *text)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	size_t size = 0;
	ssize_t got = 1;

	if (file < 0)
		return -1;
	while (got > 0 && size < TEXT_BYTES - 1) {
		got = read(file, text + size, TEXT_BYTES - 1 - size);
		size += got > 0 ? (size_t)got : 0;
	}
	text[size] = '\0';
	int error = got < 0 ? errno : got > 0 ? EFBIG : 0;

	close(file);
	errno = error;
	return error ? -1 : 0;
}

static bool parse(const char *line, struct mapping *mapping)
{
	mapping->name[0] = '\0';
	return sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %127[^\n]", &mapping->start, &mapping->end,
		      mapping->permissions, mapping->name) >= 3;
}

int visit_mappings(const char *path, void (*visit)(const struct mapping *mapping, void *argument), void *argument)
{
	char *text = unmergeable_memory(TEXT_BYTES);
	int result = read_text(path, text);
	struct mapping mapping;

	for (char *line = text; !result && *line;) {
		char *end = strchrnul(line, '\n');

		if (parse(line, &mapping))
			visit(&mapping, argument);
		line = *end ? end + 1 : end;
	}
	int error = errno;

	munmap(text, TEXT_BYTES);
	errno = error;
	return result;
}
