// SPDX-License-Identifier: GPL-2.0-only
/*
 * Digests of another process's own pages: what merging may touch, and must not change.
 *
 * The process should be stopped. Reading through /proc/PID/mem breaks no copy, so it can be done before, while and after
 * its pages are merged.
 */
#include "digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "content.h"
#include "maps.h"

#define PRESENT		(1ull << 63)
#define SWAPPED		(1ull << 62)
#define FILE_OR_SHARED	(1ull << 61)

struct target {
	int pagemap;
	int memory;
	uint64_t pages;
	const char *error;
};

static bool emit(uint64_t address, uint64_t digest)
{
	uint64_t record[2] = { address, digest };

	return fwrite(record, sizeof(record), 1, stdout) == 1;
}

static void digest_one(struct target *target, uint64_t address, uint64_t entry)
{
	static uint64_t page[PAGE_WORDS];

	if (!(entry & (PRESENT | SWAPPED)) || (entry & FILE_OR_SHARED))
		return;
	if (pread(target->memory, page, PAGE_BYTES, (off_t)address) != PAGE_BYTES)
		target->error = "mem";
	else if (!emit(address, digest_page(page)))
		target->error = "stdout";
	else
		target->pages++;
}

static void digest_mapping(const struct mapping *mapping, void *argument)
{
	struct target *target = argument;
	uint64_t entries[512];

	/* [vvar], [vdso] and [vsyscall] are the kernel's. */
	if (mapping->permissions[3] != 'p' || strncmp(mapping->name, "[v", 2) == 0)
		return;
	for (uint64_t address = mapping->start; address < mapping->end && !target->error;) {
		uint64_t left = (mapping->end - address) / PAGE_BYTES;
		size_t part = left < 512 ? left : 512;
		off_t offset = (off_t)(address / PAGE_BYTES * sizeof(*entries));

		if (pread(target->pagemap, entries, part * sizeof(*entries), offset) !=
		    (ssize_t)(part * sizeof(*entries)))
			target->error = "pagemap";
		for (size_t i = 0; i < part && !target->error; i++, address += PAGE_BYTES)
			digest_one(target, address, entries[i]);
	}
}

static int open_in_proc(int pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int digest_process(int pid)
{
	struct target target = { .pagemap = open_in_proc(pid, "pagemap"), .memory = open_in_proc(pid, "mem") };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	if (target.pagemap < 0 || target.memory < 0)
		target.error = "opening";
	else if (for_each_mapping(path, digest_mapping, &target) && !target.error)
		target.error = "maps";
	else if (!target.error && !emit(END_OF_PROCESS, target.pages))
		target.error = "stdout";
	if (target.error)
		fprintf(stderr, "memwork: process %d: %s: %s\n", pid, target.error, strerror(errno));
	close(target.pagemap);
	close(target.memory);
	return target.error ? 2 : 0;
}
