/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Attacks on memory merging, as unprivileged processes carry them out.
 *
 * `attack direct` reads a script (director.c) and starts the other roles, each a process of its own that has become its
 * user and is in its cgroup before it has any memory worth merging. A role gets lines on stdin and answers on stdout.
 * An attacker's role knows what its command line and these lines say: contents that are public, never what the victim
 * holds of them. That goes from the victim to the director's output, where the attacker's guesses are scored.
 *
 * harness/ksm/attack/scripts.py writes the scripts.
 */
#ifndef ATTACK_H
#define ATTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "../memwork/content.h"

#define MAX_WORDS	16
#define NS_PER_S	1000000000ull

/* lines.c: words of a line, the way out, and lines in and out of a role. */
struct words {
	unsigned int count;
	char *at[MAX_WORDS];
};

struct words split(char *line);
uint64_t number(const struct words *words, unsigned int index);
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_figures(const char *label, const uint64_t *figures, size_t count);
void say_bits(const char *label, const uint8_t *bits, size_t count);
void say_bytes(const char *label, const uint8_t *bytes, size_t count);
/* Obey each line, then say "ok": until the director is gone. */
_Noreturn void serve(void (*obey)(const struct words *words));

/* area.c: memory that takes part in merging, and memory that does not. */
struct area {
	char *start;
	uint64_t pages;
};

struct area map_area(uint64_t pages);
void unmap_area(struct area *area);
void offer_area(const struct area *area);	/* MADV_MERGEABLE, and tell the director where it is */
void register_area(const struct area *area);	/* MADV_MERGEABLE alone */
void *page_of(const struct area *area, uint64_t page);
void *private_memory(size_t bytes);		/* present and never merged */

/* chance.c */
uint64_t draw(uint64_t *state);
uint32_t *random_order(uint64_t seed, uint32_t count);
void draw_bits(uint64_t seed, uint8_t *bits, uint32_t count);

/* clock.c */
void pin_to(int cpu);
uint64_t now_ns(void);
void sleep_until(uint64_t ns);
void pause_ms(unsigned int ms);
uint64_t time_write(void *page);
uint64_t time_unmap(void *page);
int by_value(const void *a, const void *b);

static inline uint64_t ticks(void)
{
	uint32_t low, high;

	/* What came before has happened, and what comes after has not begun. */
	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* passes.c: what anybody may know of the merger's progress. */
bool full_scans(uint64_t *scans);
void wait_scans(uint64_t goal);
void wait_passes(unsigned int passes);

/* net.c: loopback. */
void raise_loopback(void);
int listen_at(uint16_t port);
int connect_to(uint16_t port);
bool read_all(int fd, void *data, size_t size);
bool write_all(int fd, const void *data, size_t size);

/* frames.c: the harness's view, as root. */
struct place {
	pid_t pid;
	uint64_t address, pages;
};

uint64_t *frames_at(const struct place *place);	/* 0 where no page is present */
uint64_t shared_frames(const struct place *one, const struct place *other);

/* The roles. */
int direct(void);
_Noreturn void hold(void);
_Noreturn void probe(void);
_Noreturn void transmit(void);
_Noreturn void provide(void);
_Noreturn void steal(void);
_Noreturn void ask_remote(void);

#endif
