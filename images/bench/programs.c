// SPDX-License-Identifier: GPL-2.0-only
/*
 * Real programs: every page of theirs is to be merged (PR_SET_MEMORY_MERGE, inherited over exec). A question goes to
 * a program's stdin and the answer comes from its stdout, each behind its length (4 bytes, little-endian).
 */
#define _GNU_SOURCE
#include "bench.h"
#include "../guest/memwork/content.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MAX_PROGRAMS	64
#define MAX_PAGE_SHARING 256	/* the kernel's default: one frame for each so many equal pages */
#define PRESENT		(1ull << 63)
#define FRAME		((1ull << 55) - 1)
#define KPF_ANON	(1ull << 12)
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

struct program {
	pid_t pid;
	int questions, answers;
};

static struct program programs[MAX_PROGRAMS];
static unsigned int program_count;

static uint64_t *hashes;
static size_t hash_count, hash_room;
static int64_t counted_possible;

/* Leading words with a = are the environment; the rest is the program and its arguments. */
void launch(char **words, unsigned int count)
{
	int questions[2], answers[2];
	unsigned int first = 0;
	char *environment[MAX_WORDS + 1] = { NULL }, *arguments[MAX_WORDS + 1] = { NULL };

	if (prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) < 0) {
		say("unsupported\n");
		finish();
	}
	for (; first < count && strchr(words[first], '='); first++)
		environment[first] = words[first];
	memcpy(arguments, words + first, (count - first) * sizeof(*words));
	if (first == count || program_count == MAX_PROGRAMS ||
	    pipe2(questions, O_CLOEXEC) || pipe2(answers, O_CLOEXEC))
		die("program %u: %s", program_count, strerror(errno));

	pid_t pid = fork();

	if (pid < 0)
		die("program %u: %s", program_count, strerror(errno));
	if (!pid) {
		if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
			die("PR_SET_MEMORY_MERGE: %s", strerror(errno));
		dup2(questions[0], STDIN_FILENO);
		dup2(answers[1], STDOUT_FILENO);
		execve(arguments[0], arguments, environment);
		die("run %s: %s", arguments[0], strerror(errno));
	}
	close(questions[0]);
	close(answers[1]);
	programs[program_count++] = (struct program){ pid, questions[1], answers[0] };
}

static bool read_all(int file, void *data, size_t size)
{
	for (size_t done = 0; done < size; ) {
		ssize_t got = read(file, (char *)data + done, size - done);

		if (got <= 0)
			return false;
		done += got;
	}
	return true;
}

/* Its answer is known: anything else, and the case ends. */
void ask_program(unsigned int number, const char *question, const char *expected)
{
	struct program *program = &programs[number];
	char text[MAX_LINE];
	uint32_t size = strlen(question);

	if (number >= program_count)
		die("no program %u", number);
	memcpy(text, &size, sizeof(size));
	memcpy(text + sizeof(size), question, size);
	if (write(program->questions, text, size + sizeof(size)) < 0 ||
	    !read_all(program->answers, &size, sizeof(size)) || size >= sizeof(text) ||
	    !read_all(program->answers, text, size))
		die("program %u ended: %s", number, question);
	text[size] = '\0';
	if (strcmp(text, expected))
		die("program %u answers %s to %s, not %s", number, text, question, expected);
}

static void note(uint64_t hash)
{
	if (hash_count == hash_room) {
		hash_room = hash_room ? 2 * hash_room : 4096;
		hashes = realloc(hashes, hash_room * sizeof(*hashes));
		if (!hashes)
			die("no memory for %zu hashes", hash_room);
	}
	hashes[hash_count++] = hash;
}

static int open_of(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);

	int file = open(path, O_RDONLY | O_CLOEXEC);

	if (file < 0)
		die("%s: %s", path, strerror(errno));
	return file;
}

/* Of one mapping: every page that is there and anonymous. */
static void note_mapping(int memory, int pagemap, int flags, uint64_t start, uint64_t end)
{
	uint64_t page[PAGE_BYTES / sizeof(uint64_t)], entry, flag;

	for (uint64_t at = start; at < end; at += PAGE_BYTES) {
		if (pread(pagemap, &entry, sizeof(entry), at / PAGE_BYTES * 8) != 8 || !(entry & PRESENT))
			continue;
		if (pread(flags, &flag, sizeof(flag), (entry & FRAME) * 8) != 8 || !(flag & KPF_ANON))
			continue;
		if (pread(memory, page, sizeof(page), at) != PAGE_BYTES)
			die("page at %#" PRIx64 ": %s", at, strerror(errno));
		note(digest_page(page));
	}
}

static void note_program(pid_t pid)
{
	int memory = open_of(pid, "mem"), pagemap = open_of(pid, "pagemap"), flags = open("/proc/kpageflags", O_RDONLY);
	FILE *maps = fdopen(open_of(pid, "maps"), "r");
	uint64_t start, end;
	char line[MAX_LINE], mode[8];

	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, mode) == 3 && mode[3] == 'p')
			note_mapping(memory, pagemap, flags, start, end);
	fclose(maps);
	close(memory);
	close(pagemap);
	close(flags);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* How many pages all programs have, and how many of them merging can save. */
void count_programs(const char *label)
{
	hash_count = 0;
	counted_possible = 0;
	for (unsigned int i = 0; i < program_count; i++)
		note_program(programs[i].pid);
	qsort(hashes, hash_count, sizeof(*hashes), by_value);
	for (size_t first = 0, next; first < hash_count; first = next) {
		for (next = first + 1; next < hash_count && hashes[next] == hashes[first]; )
			next++;
		counted_possible += next - first - (next - first + MAX_PAGE_SHARING - 1) / MAX_PAGE_SHARING;
	}
	say("%s pages=%zu possible=%lld\n", label, hash_count, (long long)counted_possible);
	free(hashes);
	hashes = NULL;
	hash_room = 0;
}

int64_t possible_of_programs(void)
{
	return counted_possible;
}

/* They end when their input does. */
void end_programs(void)
{
	while (program_count) {
		close(programs[--program_count].questions);
		close(programs[program_count].answers);
	}
}
