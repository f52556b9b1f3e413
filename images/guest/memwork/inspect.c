// SPDX-License-Identifier: GPL-2.0-only
#include "inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"
#include "maps.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

#define PFN_MASK	((1ull << 55) - 1)

static int read_pagemap(int pid, uint64_t address, uint64_t pages, struct frame *frames)
{
	uint64_t entries[512];
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	int file = open(path, O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return errno;
	for (uint64_t done = 0; done < pages;) {
		size_t part = pages - done < 512 ? pages - done : 512;
		off_t offset = (off_t)((address / PAGE_BYTES + done) * sizeof(*entries));

		if (pread(file, entries, part * sizeof(*entries), offset) != (ssize_t)(part * sizeof(*entries))) {
			close(file);
			return EIO;
		}
		for (size_t i = 0; i < part; i++)
			frames[done + i] = (struct frame){ .pagemap = entries[i] };
		done += part;
	}
	close(file);
	return 0;
}

int read_frames(int pid, uint64_t address, uint64_t pages, struct frame *frames)
{
	int error = read_pagemap(pid, address, pages, frames);

	if (error)
		return error;
	int file = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return errno;
	for (uint64_t i = 0; i < pages && !error; i++) {
		uint64_t pfn = frames[i].pagemap & PFN_MASK;

		if (!(frames[i].pagemap & PRESENT))
			continue;
		if (!pfn)
			error = EPERM;	/* the kernel hides frame numbers from all but root */
		else if (pread(file, &frames[i].flags, 8, (off_t)(pfn * 8)) != 8)
			error = EIO;
	}
	close(file);
	return error;
}

int move_ranges(const struct range *ranges, size_t count, uint64_t pages, int node, int *status)
{
	size_t size = pages * (sizeof(void *) + sizeof(int)) + 1;
	void **addresses = unmergeable_memory(size);
	int *nodes = (int *)(addresses + pages);
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		for (uint64_t page = 0; page < ranges[i].pages; page++) {
			nodes[n] = node;
			status[n] = -EBUSY; /* the kernel leaves out what it could not move */
			addresses[n++] = (void *)(ranges[i].address + page * PAGE_BYTES);
		}
	long result = syscall(SYS_move_pages, 0, pages, addresses, nodes, status, MPOL_MF_MOVE_ALL);
	int error = result < 0 ? errno : 0;

	munmap(addresses, size);
	return error;
}

static struct {
	uint64_t start, end;
} own[32];
static unsigned int own_count;

static void remember(const struct mapping *mapping, void *unused)
{
	(void)unused;
	/* Only what KSM could take: writable and private. */
	if (mapping->permissions[1] != 'w' || mapping->permissions[3] != 'p')
		return;
	if (own_count == sizeof(own) / sizeof(*own)) {
		errno = E2BIG;
		fail("remembering own memory");
	}
	own[own_count].start = mapping->start;
	own[own_count++].end = mapping->end;
}

void remember_own_memory(void)
{
	if (!own_count && visit_mappings("/proc/self/maps", remember, NULL))
		fail("/proc/self/maps");
}

static void keep_from_merging(const struct mapping *mapping, void *error)
{
	bool is_own = false;

	/* By overlap: the stack may have grown since, the heap been split from the data. */
	for (unsigned int i = 0; i < own_count; i++)
		is_own |= mapping->start < own[i].end && own[i].start < mapping->end;
	if (is_own && madvise((void *)mapping->start, mapping->end - mapping->start, MADV_UNMERGEABLE))
		*(int *)error = errno;
}

int merge_any_on(void)
{
	int error = 0;

	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
		return errno;
	if (visit_mappings("/proc/self/maps", keep_from_merging, &error))
		return errno;
	return error;
}

int merge_any_off(void)
{
	return prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) ? errno : 0;
}
