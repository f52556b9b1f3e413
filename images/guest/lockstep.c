// SPDX-License-Identifier: GPL-2.0-only
/*
 * The channel of a guest that runs in lockstep with the harness (protocol.h): frames
 * go through memory that both have, and the guest stands still while it is the host's
 * turn. So all that the host does comes at the same instruction each time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent.h"

#define DEVICES		"/sys/bus/pci/devices"
#define VENDOR		"0x1af4"
#define IVSHMEM		"0x1110"

static volatile struct lockstep *shared;

_Static_assert(sizeof(*shared) == LOCKSTEP_BYTES, "the whole memory");

static bool is_ours(const char *device)
{
	char path[300], vendor[16], number[16];

	snprintf(path, sizeof(path), DEVICES "/%s/vendor", device);
	if (!read_word(path, vendor, sizeof(vendor)) || strcmp(vendor, VENDOR))
		return false;
	snprintf(path, sizeof(path), DEVICES "/%s/device", device);
	return read_word(path, number, sizeof(number)) && !strcmp(number, IVSHMEM);
}

static void *map_memory(const char *device)
{
	char path[300];
	void *memory;
	int fd;

	snprintf(path, sizeof(path), DEVICES "/%s/enable", device);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		fatal("%s: %s", path, strerror(errno));
	close(fd);
	snprintf(path, sizeof(path), DEVICES "/%s/resource2", device);
	fd = open(path, O_RDWR | O_CLOEXEC);
	memory = mmap(NULL, LOCKSTEP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || memory == MAP_FAILED || ioperm(LOCKSTEP_BELL, 2, 1))
		fatal("%s: %s", path, strerror(errno));
	close(fd);
	return memory;
}

/* False where there is no such memory: the guest has a port. */
bool open_lockstep(void)
{
	struct dirent *entry;
	DIR *dir = opendir(DEVICES);

	while (dir && !shared && (entry = readdir(dir)))
		if (is_ours(entry->d_name))
			shared = map_memory(entry->d_name);
	if (dir)
		closedir(dir);
	return shared;
}

bool in_lockstep(void)
{
	return shared;
}

/*
 * Hand over @size bytes from @out, and take up to @room bytes into @in; returns how many.
 * The host has its turn while the CPU writes to the gate: that takes until it answered.
 */
size_t exchange(const void *out, size_t size, void *in, size_t room)
{
	memcpy((void *)shared->out, out, size);
	shared->out_size = size;
	shared->in_room = room < LOCKSTEP_ROOM ? room : LOCKSTEP_ROOM;
	outb(0, LOCKSTEP_BELL);
	outb(0, LOCKSTEP_GATE);
	size = shared->in_size;
	memcpy(in, (void *)shared->in, size);
	return size;
}
