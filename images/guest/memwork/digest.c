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
#include "inspect.h"
#include "maps.h"

#define FILE_OR_SHARED	(1ull << 61)

struct target {
	int pid;
	int memory;
	uint64_t pages;
	const char *error;
};

static bool emit(const struct record *record)
{
	return fwrite(record, sizeof(*record), 1, stdout) == 1;
}

static void digest_one(struct target *target, uint64_t address, const struct frame *frame)
{
	static uint64_t page[PAGE_WORDS];

	if (!(frame->pagemap & (PRESENT | SWAPPED)) || (frame->pagemap & FILE_OR_SHARED))
		return;
	if (pread(target->memory, page, PAGE_BYTES, (off_t)address) != PAGE_BYTES) {
		target->error = "mem";
		return;
	}
	struct record record = { .address = address, .digest = digest_page(page), .frame = *frame };

	if (!emit(&record))
		target->error = "stdout";
	else
		target->pages++;
}

static void digest_mapping(const struct mapping *mapping, void *argument)
{
	struct target *target = argument;
	static struct frame frames[512];

	/* [vvar], [vdso] and [vsyscall] are the kernel's. */
	if (mapping->permissions[3] != 'p' || strncmp(mapping->name, "[v", 2) == 0)
		return;
	for (uint64_t address = mapping->start; address < mapping->end && !target->error;) {
		uint64_t left = (mapping->end - address) / PAGE_BYTES;
		size_t part = left < 512 ? left : 512;

		errno = read_frames(target->pid, address, part, frames);
		if (errno)
			target->error = "pagemap and kpageflags";
		for (size_t i = 0; i < part && !target->error; i++, address += PAGE_BYTES)
			digest_one(target, address, &frames[i]);
	}
}

int digest_process(int pid)
{
	struct target target = { .pid = pid };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	target.memory = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	if (target.memory < 0)
		target.error = "mem";
	else if (visit_mappings(path, digest_mapping, &target) && !target.error)
		target.error = "maps";
	struct record end = { .address = END_OF_PROCESS, .digest = target.pages };

	if (!target.error && !emit(&end))
		target.error = "stdout";
	if (target.error)
		fprintf(stderr, "memwork: process %d: %s: %s\n", pid, target.error, strerror(errno));
	close(target.memory);
	return target.error ? 2 : 0;
}
