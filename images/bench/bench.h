/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The measuring guest: PID 1 carries out the script /case and says what it read.
 *
 * Nothing that depends on the host's time reaches this guest: no disk, no network, no channel. The case lies in the
 * initramfs, records leave by the debug port. With QEMU's icount every run of a case is therefore the same run, and
 * 1 ns of the guest's clocks is 1 instruction.
 *
 * harness/ksm/bench/cases.py writes the scripts.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../guest/memwork/protocol.h"	/* PAGE_BYTES */

#define MAX_WORDS	16
#define MAX_LINE	512

/* init.c */
void set_policy(int policy, int priority);
void step_back(void);

/* out.c: the debug port, and the way out. */
void open_output(void);
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
__attribute__((format(printf, 1, 2), noreturn)) void die(const char *format, ...);
__attribute__((noreturn)) void finish(void);	/* all is said */

/* files.c */
ssize_t read_text(const char *path, char *text, size_t size);	/* bytes, or -1; always ends in a NUL */
void write_text(const char *path, const char *text);		/* dies where it fails */
bool read_number(const char *path, int64_t *number);		/* false: no file, or more than a number in it */
uint64_t now_ns(void);
void pause_us(long us);

/* counters.c: records of what the kernel counts. */
void say_counters(const char *label);
void say_memory(const char *label);
int64_t saved_pages(void);

/* scanner.c: the kernel's merging threads. */
void find_scanners(void);
uint64_t scanner_ns(void);
void start_scanner(void);
void run_passes(const char *label, unsigned int passes);
void set_threads(const char *count);
void run_together(const char *label);
void run_curve(const char *label, unsigned int pages, int64_t target, unsigned int passes);
void run_race(const char *label, long period_us, int64_t target, unsigned int looks);

/* latency.c: how long a task of the highest priority waits for the CPU. */
void start_watch(void);
void stop_watch(const char *label);

/* worker.c: processes that hold memory. */
void spawn_workers(unsigned int count);
void ask_worker(unsigned int worker, const char *line, const char *label);
void end_workers(void);

/* programs.c: real programs. */
void launch(char **words, unsigned int count);
void ask_program(unsigned int number, const char *question, const char *expected);
void count_programs(const char *label);
int64_t possible_of_programs(void);
void end_programs(void);

/* steps.c */
void count_steps(char **names, unsigned int count);
void say_steps(const char *label);

/* script.c */
void run_script(const char *path);
unsigned int split(char *line, char **words);

#endif
