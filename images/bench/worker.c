// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes that hold memory. Each gets lines over a socket and answers with one: "ok", or figures.
 *
 *	machine					becomes one that KVM may write to the memory of
 *	map PAGES HUGE				the next area; HUGE 0: no huge pages, 1: huge pages
 *	sparse BYTES				the same, address space without memory
 *	fill AREA FIRST COUNT KIND KEY STEP	page FIRST+i holds (KIND, KEY + i * STEP)
 *	deal AREA FIRST COUNT KEY START FACTOR TOTAL GROUP
 *						the same with KEY + (START+i) * FACTOR % TOTAL / GROUP
 *	scatter AREA COUNT KEY STRIDE		a page every STRIDE bytes
 *	advise AREA ADVICE			madvise the whole area; answers what it took
 *	write AREA FIRST COUNT			one word into each page; answers what each took
 *	forkwrite AREA FIRST COUNT		the same after a fork, while the child lives
 *	protect AREA FIRST STRIDE		every so many pages one read-only: a mapping of its own
 *	children AREA COUNT			processes that share everything, and do nothing
 *	move AREA PAGE NODE			to another NUMA node; answers what it took
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "../guest/memwork/content.h"

#define MAX_AREAS 16
#define MPOL_MF_MOVE_ALL 4

struct area {
	char *start;
	size_t bytes;
};

static int sockets[MAX_WORKERS];
static unsigned int workers;

static struct area areas[MAX_AREAS];
static unsigned int area_count;

static struct area *area_of(const char *word)
{
	unsigned long number = strtoul(word, NULL, 0);

	if (number >= area_count)
		die("no area %s", word);
	return &areas[number];
}

static void map(size_t bytes, bool huge, bool reserve)
{
	/* Aligned, so that huge pages are where they are expected and page tables are as many in each run. */
	size_t align = 2ul << 20;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (reserve ? 0 : MAP_NORESERVE);
	char *start = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (start == MAP_FAILED || area_count == MAX_AREAS)
		die("map %zu bytes: %s", bytes, strerror(errno));
	start = (char *)(((uintptr_t)start + align - 1) & -align);
	if (madvise(start, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("huge pages: %s", strerror(errno));
	areas[area_count++] = (struct area) { start, bytes };
}

static uint64_t *page_at(struct area *area, uint64_t page)
{
	if ((page + 1) * PAGE_BYTES > area->bytes)
		die("page %llu is not in its area", (unsigned long long)page);
	return (uint64_t *)(area->start + page * PAGE_BYTES);
}

static void fill(struct area *area, const uint64_t *n)
{
	for (uint64_t i = 0; i < n[1]; i++)
		fill_page(page_at(area, n[0] + i), (enum kind)n[2], n[3] + i * n[4]);
}

static void deal(struct area *area, const uint64_t *n)
{
	for (uint64_t i = 0; i < n[1]; i++)
		fill_page(page_at(area, n[0] + i), KIND_FILLED, n[2] + (n[3] + i) * n[4] % n[5] / n[6]);
}

static void scatter(struct area *area, const uint64_t *n)
{
	for (uint64_t i = 0; i < n[0]; i++)
		fill_page(page_at(area, i * n[2] / PAGE_BYTES), KIND_FILLED, n[1] + i);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* What reading the counter twice takes: the least of a few tries, a tick of the timer may fall into one. */
static uint64_t ticks_of_nothing(void)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 8; i++) {
		uint64_t began = __rdtsc(), took = __rdtsc() - began;

		least = took < least ? took : least;
	}
	return least;
}

/* Ticks of each write, the reading of the counter taken off. */
static void timed_writes(struct area *area, uint64_t first, uint64_t count, char *answer)
{
	uint64_t *ticks = mmap(NULL, count * 8, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t sum = 0, empty = ticks_of_nothing();

	if (!count || ticks == MAP_FAILED)
		die("no room for %llu figures", (unsigned long long)count);
	for (uint64_t i = 0; i < count; i++) {
		volatile uint64_t *word = page_at(area, first + i);
		uint64_t began = __rdtsc();

		word[100] = began;
		ticks[i] = __rdtsc() - began;
		ticks[i] -= ticks[i] < empty ? ticks[i] : empty;
		sum += ticks[i];
	}
	qsort(ticks, count, 8, by_size);
	snprintf(answer, MAX_LINE, "count=%llu sum=%llu min=%llu median=%llu max=%llu", (unsigned long long)count,
		 (unsigned long long)sum, (unsigned long long)ticks[0], (unsigned long long)ticks[count / 2],
		 (unsigned long long)ticks[count - 1]);
	munmap(ticks, count * 8);
}

static pid_t idle_child(void)
{
	pid_t child = fork();

	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return child;
}

static void forked_writes(struct area *area, uint64_t first, uint64_t count, char *answer)
{
	pid_t child = idle_child();

	timed_writes(area, first, count, answer);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void advise(struct area *area, int advice, char *answer)
{
	uint64_t began = now_ns();

	if (madvise(area->start, area->bytes, advice))
		die("madvise %d: %s", advice, strerror(errno));
	snprintf(answer, MAX_LINE, "took_ns=%llu", (unsigned long long)(now_ns() - began));
}

static void protect(struct area *area, uint64_t first, uint64_t stride)
{
	for (uint64_t page = first; page * PAGE_BYTES < area->bytes; page += stride)
		if (mprotect(page_at(area, page), PAGE_BYTES, PROT_READ))
			die("mprotect: %s", strerror(errno));
}

/* A page that others map, too: all of them have to be found. */
static void move(struct area *area, uint64_t page, int node, char *answer)
{
	void *address = page_at(area, page);
	int status = -1;
	uint64_t began = __rdtsc();
	long left = syscall(SYS_move_pages, 0, 1ul, &address, &node, &status, MPOL_MF_MOVE_ALL);
	uint64_t took = __rdtsc() - began;

	if (left || status != node)
		die("page %llu does not move to node %d: %ld, %d, %s", (unsigned long long)page, node, left, status,
		    strerror(errno));
	snprintf(answer, MAX_LINE, "took_ns=%llu", (unsigned long long)took);
}

/* The kernel has a virtual machine for this process from now on: MMU notifiers, as QEMU's memory has them. */
static void become_machine(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0 || ioctl(kvm, KVM_CREATE_VM, 0) < 0)
		die("no virtual machine: %s", strerror(errno));
}

static void obey(char *line, char *answer)
{
	char *words[MAX_WORDS];
	unsigned int count = split(line, words);
	uint64_t n[MAX_WORDS] = { 0 };
	struct area *area;

	snprintf(answer, MAX_LINE, "ok");
	for (unsigned int i = 2; i < count; i++)
		n[i - 2] = strtoull(words[i], NULL, 0);
	if (count == 1 && !strcmp(words[0], "machine"))
		return become_machine();
	if (count == 3 && !strcmp(words[0], "map"))
		return map(strtoull(words[1], NULL, 0) * PAGE_BYTES, n[0], true);
	if (count == 2 && !strcmp(words[0], "sparse"))
		return map(strtoull(words[1], NULL, 0), false, false);
	if (count < 3)
		die("%u words: %s", count, line);
	area = area_of(words[1]);
	if (count == 7 && !strcmp(words[0], "fill"))
		fill(area, n);
	else if (count == 9 && !strcmp(words[0], "deal"))
		deal(area, n);
	else if (count == 5 && !strcmp(words[0], "scatter"))
		scatter(area, n);
	else if (count == 3 && !strcmp(words[0], "advise"))
		advise(area, (int)n[0], answer);
	else if (count == 4 && !strcmp(words[0], "write"))
		timed_writes(area, n[0], n[1], answer);
	else if (count == 4 && !strcmp(words[0], "forkwrite"))
		forked_writes(area, n[0], n[1], answer);
	else if (count == 4 && !strcmp(words[0], "protect"))
		protect(area, n[0], n[1]);
	else if (count == 4 && !strcmp(words[0], "move"))
		move(area, n[0], (int)n[1], answer);
	else if (count == 3 && !strcmp(words[0], "children"))
		while (n[0]--)
			idle_child();
	else
		die("%s with %u words", words[0], count);
}

__attribute__((noreturn))
static void work(int socket)
{
	char line[MAX_LINE], answer[MAX_LINE];
	ssize_t got;

	while ((got = recv(socket, line, sizeof(line) - 1, 0)) > 0) {
		line[got] = '\0';
		obey(line, answer);
		if (send(socket, answer, strlen(answer), 0) < 0)
			break;
	}
	_exit(0);
}

void spawn_workers(unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		int pair[2];
		pid_t pid;

		if (workers == MAX_WORKERS || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
			die("worker %u: %s", workers, strerror(errno));
		pid = fork();
		if (pid < 0)
			die("worker %u: %s", workers, strerror(errno));
		if (!pid) {
			for (unsigned int other = 0; other < workers; other++)
				close(sockets[other]);
			close(pair[0]);
			work(pair[1]);
		}
		close(pair[1]);
		sockets[workers++] = pair[0];
	}
}

/* Figures become a record under `label`; without a label they are not wanted. */
void ask_worker(unsigned int worker, const char *line, const char *label)
{
	char answer[MAX_LINE];
	ssize_t got;

	if (worker >= workers || send(sockets[worker], line, strlen(line), MSG_NOSIGNAL) < 0)
		die("worker %u is not there: %s", worker, line);
	got = recv(sockets[worker], answer, sizeof(answer) - 1, 0);
	if (got <= 0)
		die("worker %u ended: %s", worker, line);
	answer[got] = '\0';
	if (label)
		say("%s worker=%u %s\n", label, worker, answer);
}

void end_workers(void)
{
	while (workers)
		close(sockets[--workers]);
	while (wait(NULL) > 0)
		;
}
