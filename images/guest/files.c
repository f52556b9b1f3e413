// SPDX-License-Identifier: GPL-2.0-only
/*
 * File operations of the agent.  Each runs in a forked child, streams through
 * the child's stdin and stdout, and ends with errno as its exit code: a file
 * that blocks (sysfs, /proc/PID/mem) blocks its child and never the agent.
 *
 *	get PATH OFFSET SIZE	SIZE bytes (or fewer, at the end) to stdout; -1: all
 *	put PATH MODE SIZE	stdin, which must be SIZE bytes, to a new file
 *	write PATH		stdin to an existing file in one write(2)
 *	read			paths from stdin, each ended by NUL; for each file
 *				i32 errno, u32 length of name, u32 length, name, bytes.
 *				A path ending in '/' stands for every regular file in it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

#define MAX_SMALL_FILE	(4u << 20)	/* one file of "read", the input of "write" */
#define MAX_PATHS	(1u << 20)

static int files_complain(const char *what, const char *path)
{
	int err = errno ? errno : EIO;

	dprintf(2, "%s %s: %s", what, path, strerror(err));
	return err;
}

static int write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t n = write(fd, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		at += n;
		size -= n;
	}
	return 0;
}

/* Reads to the end of fd into a new buffer of at most max bytes (EFBIG beyond). */
static char *read_whole(int fd, size_t max, size_t *size)
{
	size_t room = 4096, used = 0;
	char *buf = malloc(room);

	while (buf) {
		ssize_t n = read(fd, buf + used, room - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		used += n;
		if (n == 0) {
			*size = used;
			return buf;
		}
		if (used > max) {
			errno = EFBIG;
			break;
		}
		if (used == room) {
			char *more = realloc(buf, room *= 2);

			if (!more)
				break;
			buf = more;
		}
	}
	free(buf);
	return NULL;
}

static int files_get(const char *path, const char *offset, const char *size)
{
	static char buf[65536];
	off_t at = strtoull(offset, NULL, 0);
	long long left = strtoll(size, NULL, 0);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return files_complain("open", path);
	/* Files that cannot seek (pipes, some of /proc) are read from their start. */
	if (at && lseek(fd, at, SEEK_SET) < 0)
		return files_complain("seek", path);
	while (left) {
		size_t want = left < 0 || left > (long long)sizeof(buf) ? sizeof(buf) : (size_t)left;
		ssize_t n = read(fd, buf, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return files_complain("read", path);
		if (n == 0)
			break;
		if (write_all(1, buf, n))
			return files_complain("send", path);
		if (left > 0)
			left -= n;
	}
	return 0;
}

static int files_put(const char *path, const char *mode, const char *size)
{
	static char buf[65536];
	unsigned long long left = strtoull(size, NULL, 0);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n;

	if (fd < 0)
		return files_complain("create", path);
	while ((n = read(0, buf, sizeof(buf))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return files_complain("receive", path);
		if (write_all(fd, buf, n))
			return files_complain("write", path);
		left -= n;
	}
	if (left) {
		errno = EPIPE;
		return files_complain("receive all of", path);
	}
	if (fchmod(fd, strtoul(mode, NULL, 8)) || close(fd))
		return files_complain("finish", path);
	return 0;
}

/* One write(2), because to sysfs each write is a command of its own. */
static int files_write(const char *path)
{
	size_t size;
	char *data = read_whole(0, MAX_SMALL_FILE, &size);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (!data)
		return files_complain("receive", path);
	if (fd < 0)
		return files_complain("open", path);
	n = write(fd, data, size);
	if (n < 0)
		return files_complain("write", path);
	if ((size_t)n != size) {
		errno = EIO;
		return files_complain("short write", path);
	}
	return close(fd) ? files_complain("close", path) : 0;
}

static int send_file(const char *path)
{
	size_t size = 0;
	char *data = NULL;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int32_t err = 0;

	if (fd >= 0)
		data = read_whole(fd, MAX_SMALL_FILE, &size);
	if (!data)
		err = errno ? errno : EIO;

	uint32_t lengths[2] = { strlen(path), size };
	int failed = write_all(1, &err, sizeof(err)) || write_all(1, lengths, sizeof(lengths)) ||
		     write_all(1, path, lengths[0]) || write_all(1, data ? data : "", size);

	free(data);
	if (fd >= 0)
		close(fd);
	return failed ? -1 : 0;
}

static int send_directory(const char *path)
{
	char name[4096];
	struct stat st;
	struct dirent *entry;
	DIR *dir = opendir(path);
	int failed = 0;

	if (!dir)
		return send_file(path);		/* says what open() has to say */
	while (!failed && (entry = readdir(dir))) {
		if (snprintf(name, sizeof(name), "%s%s", path, entry->d_name) >= (int)sizeof(name))
			continue;
		if (stat(name, &st) == 0 && S_ISREG(st.st_mode))
			failed = send_file(name);
	}
	closedir(dir);
	return failed;
}

static int files_read(void)
{
	size_t size;
	char *paths = read_whole(0, MAX_PATHS, &size);

	if (!paths || (size && paths[size - 1]))
		return files_complain("receive", "the list of paths");
	for (char *path = paths; path < paths + size; path += strlen(path) + 1) {
		size_t length = strlen(path);
		int failed = length && path[length - 1] == '/' ? send_directory(path) : send_file(path);

		if (failed)
			return files_complain("send", path);
	}
	return 0;
}

int files_main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[0], "get"))
		return files_get(argv[1], argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[0], "put"))
		return files_put(argv[1], argv[2], argv[3]);
	if (argc == 2 && !strcmp(argv[0], "write"))
		return files_write(argv[1]);
	if (argc == 1 && !strcmp(argv[0], "read"))
		return files_read();
	errno = ENOSYS;
	return files_complain("file operation", argc ? argv[0] : "");
}
