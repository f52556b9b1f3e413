// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "attack.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Where there are fewer CPUs, the last one. */
void pin_to(int cpu)
{
	int last = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu < last ? cpu : last, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("CPU %d: %s", cpu, strerror(errno));
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

void sleep_until(uint64_t ns)
{
	struct timespec until = { ns / NS_PER_S, ns % NS_PER_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void pause_ms(unsigned int ms)
{
	sleep_until(now_ns() + ms * 1000000ull);
}

/* The word that is written stands in no content: a page is another one afterwards. */
uint64_t time_write(void *page)
{
	volatile uint64_t *word = page;
	uint64_t began = ticks();

	word[100] = began;
	return ticks() - began;
}

uint64_t time_unmap(void *page)
{
	uint64_t began = ticks();
	int failed = madvise(page, PAGE_BYTES, MADV_DONTNEED);
	uint64_t took = ticks() - began;

	if (failed)
		die("MADV_DONTNEED: %s", strerror(errno));
	return took;
}

int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}
