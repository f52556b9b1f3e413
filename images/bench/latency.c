// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long the kernel keeps a task of the highest priority from running: it sets a timer every so often, and notes how
 * late it wakes. The longest is the longest time with interrupts or preemption off. Stock kernels have no tracer for it.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_NS 30000

struct watch {
	volatile bool stop;
	uint64_t wakes, sum, max;
};

static struct watch *shared;
static pid_t watcher;

__attribute__((noreturn))
static void watch(void)
{
	static const struct sched_param priority = { .sched_priority = 50 };
	uint64_t next;

	if (mlockall(MCL_CURRENT) || sched_setscheduler(0, SCHED_FIFO, &priority))
		die("real-time priority: %s", strerror(errno));
	for (next = now_ns(); !shared->stop; ) {
		next += PERIOD_NS;

		struct timespec until = { next / 1000000000, next % 1000000000 };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);

		uint64_t now = now_ns(), late = now > next ? now - next : 0;

		shared->wakes++;
		shared->sum += late;
		if (late > shared->max)
			shared->max = late;
		if (now > next)
			next = now;
	}
	_exit(0);
}

void start_watch(void)
{
	shared = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	*shared = (struct watch) { 0 };
	watcher = fork();
	if (watcher < 0)
		die("fork: %s", strerror(errno));
	if (!watcher)
		watch();
	/* Its first wakes fault its pages in. */
	pause_us(1000);
	shared->wakes = 0;
	shared->sum = 0;
	shared->max = 0;
}

void stop_watch(const char *label)
{
	shared->stop = true;
	waitpid(watcher, NULL, 0);
	say("%s wakes=%llu sum_ns=%llu max_ns=%llu\n", label, (unsigned long long)shared->wakes,
	    (unsigned long long)shared->sum, (unsigned long long)shared->max);
	munmap(shared, PAGE_BYTES);
}
