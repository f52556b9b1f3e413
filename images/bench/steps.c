// SPDX-License-Identifier: GPL-2.0-only
/* How often a function of the kernel runs: a kprobe on it, by address, as a module may have one of the same name. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACING "/sys/kernel/tracing/"

/* The kernel's own function of that name; 0 where there is none. */
static unsigned long long address_of(const char *name)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	char line[MAX_LINE], found[128], module[64];
	unsigned long long address, result = 0;

	while (symbols && fgets(line, sizeof(line), symbols))
		if (sscanf(line, "%llx %*c %127s %63s", &address, found, module) == 2 && !strcmp(found, name))
			result = address;
	if (symbols)
		fclose(symbols);
	return result;
}

/* The first of these functions that the kernel has. */
void count_steps(char **names, unsigned int count)
{
	unsigned long long address = 0;
	char text[128];

	for (unsigned int i = 0; i < count && !address; i++)
		address = address_of(names[i]);
	if (!address)
		die("the kernel has no %s", names[0]);
	snprintf(text, sizeof(text), "p:steps %#llx\n", address);
	write_text(TRACING "kprobe_events", text);
	write_text(TRACING "events/kprobes/steps/enable", "1");
}

void say_steps(const char *label)
{
	char text[MAX_LINE];
	unsigned long long hits;

	if (read_text(TRACING "kprobe_profile", text, sizeof(text)) < 0 || sscanf(text, " steps %llu", &hits) != 1)
		die("no count of steps");
	say("%s steps=%llu\n", label, hits);
}
