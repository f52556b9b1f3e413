// SPDX-License-Identifier: GPL-2.0-only
/*
 * One pass of the merging threads at a time.
 *
 * A round of a merging thread ends at the end of a pass, however many pages it may scan, and the thread then sleeps for
 * sleep_millisecs, unless that is changed: with a very large number of pages and a very long sleep, each change of
 * the sleep is one pass, exactly.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KSM		"/sys/kernel/mm/ksm/"
#define MAX_SCANNERS	64
#define WHOLE_PASS	"2000000000"
#define POLL_US		1000
#define CURVE_POLL_US	200
#define TOGETHER_POLL_US	200
#define THREADS		"/sys/kernel/mm/samepage/threads"

static int scanners[MAX_SCANNERS];
static unsigned int scanner_count;

static bool is_scanner(const char *name)
{
	return !strncmp(name, "ksmd", 4) || !strncmp(name, "samepaged", 9);
}

/* Anew before each use: threads may come and go with the number of them that is set. */
void find_scanners(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	char path[300], name[64];

	scanner_count = 0;
	while (dir && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (read_text(path, name, sizeof(name)) > 0 && is_scanner(name) && scanner_count < MAX_SCANNERS)
			scanners[scanner_count++] = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (!scanner_count)
		die("no thread that merges");
}

/* Time on the CPU of all of them: field 1 of schedstat. */
uint64_t scanner_ns(void)
{
	char path[64], text[128];
	uint64_t sum = 0;

	for (unsigned int i = 0; i < scanner_count; i++) {
		snprintf(path, sizeof(path), "/proc/%d/schedstat", scanners[i]);
		if (read_text(path, text, sizeof(text)) > 0)
			sum += strtoull(text, NULL, 10);
	}
	return sum;
}

/* Every one waits for a change of the sleep, or for work. */
static bool all_sleep(void)
{
	char path[64], text[512];

	for (unsigned int i = 0; i < scanner_count; i++) {
		snprintf(path, sizeof(path), "/proc/%d/stat", scanners[i]);
		if (read_text(path, text, sizeof(text)) <= 0)
			continue;
		char *state = strrchr(text, ')');

		if (!state || state[2] != 'S')
			return false;
	}
	return true;
}

static int64_t full_scans(void)
{
	int64_t scans;

	if (!read_number(KSM "full_scans", &scans))
		die("no full_scans");
	return scans;
}

/* Threads that hand work to each other may all sleep for a moment: only if nothing ran between two looks, all rest. */
static void wait_until_idle(long poll_us)
{
	uint64_t before, after = scanner_ns();
	bool slept;

	do {
		slept = all_sleep();
		before = after;
		pause_us(poll_us);
		after = scanner_ns();
	} while (!slept || !all_sleep() || before != after);
}

static void wake(void)
{
	static bool odd;

	odd = !odd;
	write_text(KSM "sleep_millisecs", odd ? "3600001" : "3600000");
}

static void one_pass(void)
{
	int64_t scans = full_scans();

	while (full_scans() == scans) {
		wake();
		wait_until_idle(POLL_US);
	}
}

/* The threads wait from now on for a change of their sleep; nothing was scanned yet. */
void start_scanner(void)
{
	find_scanners();
	write_text(KSM "pages_to_scan", "0");
	write_text(KSM "sleep_millisecs", "3600000");
	write_text(KSM "run", "1");
	wait_until_idle(POLL_US);
}

void run_passes(const char *label, unsigned int passes)
{
	write_text(KSM "pages_to_scan", WHOLE_PASS);
	for (unsigned int i = 0; i < passes; i++) {
		find_scanners();
		one_pass();
		say_counters(label);
	}
}

/* The kernel's own has one thread, and nothing to set it by. */
void set_threads(const char *count)
{
	if (!access(THREADS, W_OK)) {
		write_text(THREADS, count);
	} else if (strcmp(count, "1")) {
		say("unsupported\n");
		finish();
	}
}

/*
 * A pass of several threads, which have all CPUs. QEMU lets one CPU run at a time, and the next one when a timer is due:
 * one fires often here, so that all of them get on together.
 */
void run_together(const char *label)
{
	int64_t scans = full_scans();
	unsigned int looks = 0;

	write_text(KSM "pages_to_scan", WHOLE_PASS);
	find_scanners();
	set_policy(SCHED_FIFO, 1);

	uint64_t threads = scanner_ns(), began = now_ns();

	wake();
	while (full_scans() == scans) {
		pause_us(TOGETHER_POLL_US);
		if (++looks % 64 == 0 && all_sleep())
			wake();
	}

	uint64_t took = now_ns() - began;

	say("%s_together all_ns=%llu threads_ns=%llu\n", label, (unsigned long long)took,
	    (unsigned long long)(scanner_ns() - threads));
	step_back();
	wait_until_idle(POLL_US);
	say_counters(label);
}

/* Rounds of `pages` pages until so many are saved, but no more than `passes` passes. */
void run_curve(const char *label, unsigned int pages, int64_t target, unsigned int passes)
{
	int64_t last = full_scans() + passes;
	char text[32];

	snprintf(text, sizeof(text), "%u", pages);
	write_text(KSM "pages_to_scan", text);
	for (bool done = false; !done; ) {
		uint64_t before = scanner_ns();

		wake();
		wait_until_idle(CURVE_POLL_US);

		int64_t saved = saved_pages(), scans = full_scans();

		say("%s scanner_ns=%llu saved=%lld full_scans=%lld\n", label,
		    (unsigned long long)(scanner_ns() - before), (long long)saved, (long long)scans);
		done = saved >= target || scans >= last;
	}
}

/* Without any sleep, a look every `period_us`, until so many are saved, but no more than `looks`. */
void run_race(const char *label, long period_us, int64_t target, unsigned int looks)
{
	uint64_t began = now_ns();
	int64_t saved = 0;

	find_scanners();
	write_text(KSM "pages_to_scan", "20000");
	write_text(KSM "sleep_millisecs", "0");
	for (unsigned int i = 0; i < looks && saved < target; i++) {
		pause_us(period_us);
		saved = saved_pages();
		say("%s wall_ns=%llu saved=%lld\n", label, (unsigned long long)(now_ns() - began), (long long)saved);
	}
}
