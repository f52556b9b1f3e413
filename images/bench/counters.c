// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "bench.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES (256u << 10)

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Each file that holds one number. */
static void say_folder(const char *path, const char *prefix)
{
	struct dirent **entries;
	int count = scandir(path, &entries, NULL, by_name);
	char file[512];
	int64_t number;

	for (int i = 0; i < count; i++) {
		snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_type != DT_DIR && read_number(file, &number))
			say(" %s.%s=%lld", prefix, entries[i]->d_name, (long long)number);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

static char *read_large(const char *path)
{
	static char text[TEXT_BYTES];

	if (read_text(path, text, sizeof(text)) < 0)
		text[0] = '\0';
	return text;
}

static void say_vmstat(void)
{
	static const char *const wanted[] = { "cow_ksm ", "ksm_swpin_copy ", "thp_split_page ", "thp_split_pmd " };
	char *text = read_large("/proc/vmstat");

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				say(" vmstat.%.*s=%s", (int)strlen(wanted[i]) - 1, wanted[i],
				    line + strlen(wanted[i]));
}

void say_counters(const char *label)
{
	say("%s clock_ns=%llu scanner_ns=%llu", label, (unsigned long long)now_ns(),
	    (unsigned long long)scanner_ns());
	say_folder("/sys/kernel/mm/ksm", "ksm");
	say_folder("/sys/kernel/mm/samepage", "samepage");
	say_vmstat();
	say("\n");
}

int64_t saved_pages(void)
{
	int64_t sharing = 0, zero = 0;

	read_number("/sys/kernel/mm/ksm/pages_sharing", &sharing);
	read_number("/sys/kernel/mm/ksm/ksm_zero_pages", &zero);
	return sharing + zero;
}

/* Free pages, with those on the CPUs' own lists, which MemFree does not count. */
static long long free_pages(void)
{
	char *text = read_large("/proc/zoneinfo");
	long long pages = 0, number;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (sscanf(line, " count: %lld", &number) == 1)
			pages += number;
	text = read_large("/proc/meminfo");
	char *free = strstr(text, "MemFree:");

	return free ? pages + atoll(free + 8) / 4 : pages;
}

/* Pages of each cache: slabinfo's "name active total size per-slab pages : ... : slabdata active total". */
static void say_slabs(void)
{
	char *text = read_large("/proc/slabinfo");

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long active, total, size, each, pages, slabs;
		char name[64];

		if (sscanf(line, "%63s %lu %lu %lu %lu %lu : tunables %*u %*u %*u : slabdata %*u %lu", name, &active,
			   &total, &size, &each, &pages, &slabs) != 7 || !total)
			continue;
		say(" slab.%s=%lu slab_objects.%s=%lu", name, slabs * pages * PAGE_BYTES, name, active);
	}
}

void say_memory(const char *label)
{
	int64_t module;

	say("%s free_pages=%lld", label, free_pages());
	say_slabs();
	if (read_number("/sys/module/samepage/coresize", &module))
		say(" module.core_bytes=%lld", (long long)module);
	say_folder("/sys/kernel/mm/ksm", "ksm");
	say_folder("/sys/kernel/mm/samepage", "samepage");
	say("\n");
}
