// SPDX-License-Identifier: GPL-2.0-only
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

ssize_t read_text(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t got = 1;

	text[0] = '\0';
	if (file < 0)
		return -1;
	while (got > 0 && length < size - 1) {
		got = read(file, text + length, size - 1 - length);
		length += got > 0 ? (size_t)got : 0;
	}
	close(file);
	text[length] = '\0';
	return got < 0 ? -1 : (ssize_t)length;
}

void write_text(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		die("write %s to %s: %s", text, path, strerror(errno));
	close(file);
}

bool read_number(const char *path, int64_t *number)
{
	char text[64], *end;

	if (read_text(path, text, sizeof(text)) <= 0)
		return false;
	*number = strtoll(text, &end, 10);
	return end != text && (*end == '\n' || !*end);
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

void pause_us(long us)
{
	struct timespec time = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&time, NULL);
}
