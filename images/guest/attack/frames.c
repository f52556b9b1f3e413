// SPDX-License-Identifier: GPL-2.0-only
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRESENT	(1ull << 63)
#define FRAME	((1ull << 55) - 1)

uint64_t *frames_at(const struct place *place)
{
	size_t bytes = place->pages * sizeof(uint64_t);
	uint64_t *frames = malloc(bytes);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", place->pid);

	int file = open(path, O_RDONLY | O_CLOEXEC);

	if (!frames || file < 0)
		die("%s: %s", path, strerror(errno));
	for (size_t done = 0; done < bytes; ) {
		ssize_t got = pread(file, (char *)frames + done, bytes - done,
				    (off_t)(place->address / PAGE_BYTES * sizeof(uint64_t) + done));

		if (got <= 0)
			die("%s: %s", path, strerror(errno));
		done += (size_t)got;
	}
	close(file);
	for (uint64_t i = 0; i < place->pages; i++)
		frames[i] = frames[i] & PRESENT ? frames[i] & FRAME : 0;
	return frames;
}

/* Frames that both map; one that a party maps many times counts once. */
uint64_t shared_frames(const struct place *one, const struct place *other)
{
	uint64_t *own = frames_at(one), *others = frames_at(other), shared = 0, last = 0;

	qsort(others, other->pages, sizeof(*others), by_value);
	qsort(own, one->pages, sizeof(*own), by_value);
	for (uint64_t i = 0; i < one->pages; i++) {
		if (own[i] && own[i] != last && bsearch(&own[i], others, other->pages, sizeof(*own), by_value))
			shared++;
		last = own[i];
	}
	free(own);
	free(others);
	return shared;
}
