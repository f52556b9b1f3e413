/* SPDX-License-Identifier: GPL-2.0-only */
/* /proc/PID/maps, line by line. */
#ifndef MEMWORK_MAPS_H
#define MEMWORK_MAPS_H

#include <stdint.h>

struct mapping {
	uint64_t start, end;
	char permissions[5];
	char name[128];		/* cut off where it is longer */
};

/* Returns 0 or -1 with errno set. */
int visit_mappings(const char *path, void (*visit)(const struct mapping *mapping, void *argument), void *argument);

#endif
