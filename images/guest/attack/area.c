// SPDX-License-Identifier: GPL-2.0-only
#include "attack.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

struct area map_area(uint64_t pages)
{
	size_t bytes = pages * PAGE_BYTES;
	char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (start == MAP_FAILED || madvise(start, bytes, MADV_NOHUGEPAGE))
		die("map %zu bytes: %s", bytes, strerror(errno));
	return (struct area){ start, pages };
}

void unmap_area(struct area *area)
{
	if (area->pages)
		munmap(area->start, area->pages * PAGE_BYTES);
	*area = (struct area){ 0 };
}

void register_area(const struct area *area)
{
	if (madvise(area->start, area->pages * PAGE_BYTES, MADV_MERGEABLE))
		die("MADV_MERGEABLE: %s", strerror(errno));
}

void offer_area(const struct area *area)
{
	register_area(area);
	printf("area %p %llu\n", area->start, (unsigned long long)area->pages);
}

void *page_of(const struct area *area, uint64_t page)
{
	if (page >= area->pages)
		die("page %llu is not in its area", (unsigned long long)page);
	return area->start + page * PAGE_BYTES;
}

/* Shared mappings are never merged. */
void *private_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		die("no room for %zu bytes: %s", bytes, strerror(errno));
	return memory;
}
