// SPDX-License-Identifier: GPL-2.0-only
/*
 * A script's lines:
 *
 *	spawn COUNT			processes, numbered from 0
 *	to WORKER LINE			see worker.c
 *	measure LABEL WORKER LINE	the same, and record what it answers
 *	ksm FILE VALUE			write to /sys/kernel/mm/ksm/FILE
 *	set PATH VALUE			write to any file; nothing happens where there is none
 *	start				switch merging on, without a pass yet
 *	passes LABEL COUNT		whole passes, a record of all counters after each
 *	threads COUNT			so many merging threads; the case ends where they cannot be had
 *	together LABEL			a pass of all of them, record what it took, and a record of all counters
 *	curve LABEL PAGES TARGET COUNT	rounds of PAGES pages until TARGET are saved or COUNT passes are over
 *	race LABEL US TARGET COUNT	no sleep, a look every US microseconds until TARGET are saved, at most COUNT
 *	timed LABEL FILE VALUE		as ksm, and record what it took
 *	counters LABEL			record all counters
 *	memory LABEL			record free memory, slabs and what the module took
 *	watch				begin to note how late a timer fires
 *	watched LABEL			record how late it fired since then
 *	launch NAME=VALUE ... PROGRAM ARGUMENT ...
 *					a real program, numbered from 0, all of whose memory is to be merged
 *	ask PROGRAM QUESTION ANSWER	in which the answer may have spaces; another answer ends the case
 *	programs LABEL			record how many pages they have; from now on a TARGET may be "possible"
 *	steps FUNCTION ...		begin to count calls of the first of these that the kernel has
 *	stepped LABEL			record how many there were
 *	end				end all processes
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned int split(char *line, char **words)
{
	unsigned int count = 0;
	char *rest;

	for (char *word = strtok_r(line, " ", &rest); word && count < MAX_WORDS; word = strtok_r(NULL, " ", &rest))
		words[count++] = word;
	return count;
}

static void set_ksm(const char *file, const char *value)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", file);
	write_text(path, value);
}

static void timed(const char *label, const char *file, const char *value)
{
	uint64_t began = now_ns();

	set_ksm(file, value);
	say("%s took_ns=%llu\n", label, (unsigned long long)(now_ns() - began));
}

/* The words after the first `skip` ones, as they stand. */
static const char *after(const char *line, unsigned int skip)
{
	while (skip--) {
		line += strcspn(line, " ");
		line += strspn(line, " ");
	}
	return line;
}

static int64_t target(const char *word)
{
	return strcmp(word, "possible") ? atoll(word) : possible_of_programs();
}

/* Of threads, programs, and calls that are counted; false for anything else. */
static bool carried_out_more(const char *line, char **words, unsigned int count)
{
	const char *name = words[0];

	if (!strcmp(name, "launch") && count > 1)
		launch(words + 1, count - 1);
	else if (!strcmp(name, "ask") && count > 3)
		ask_program((unsigned int)atoi(words[1]), words[2], after(line, 3));
	else if (!strcmp(name, "programs") && count == 2)
		count_programs(words[1]);
	else if (!strcmp(name, "threads") && count == 2)
		set_threads(words[1]);
	else if (!strcmp(name, "together") && count == 2)
		run_together(words[1]);
	else if (!strcmp(name, "steps") && count > 1)
		count_steps(words + 1, count - 1);
	else if (!strcmp(name, "stepped") && count == 2)
		say_steps(words[1]);
	else
		return false;
	return true;
}

static void carry_out(const char *line)
{
	char copy[MAX_LINE], *words[MAX_WORDS];

	snprintf(copy, sizeof(copy), "%s", line);

	unsigned int count = split(copy, words);
	const char *name = words[0];

	if (!strcmp(name, "to") && count > 2)
		ask_worker((unsigned int)atoi(words[1]), after(line, 2), NULL);
	else if (!strcmp(name, "measure") && count > 3)
		ask_worker((unsigned int)atoi(words[2]), after(line, 3), words[1]);
	else if (!strcmp(name, "spawn") && count == 2)
		spawn_workers((unsigned int)atoi(words[1]));
	else if (!strcmp(name, "ksm") && count == 3)
		set_ksm(words[1], words[2]);
	else if (!strcmp(name, "set") && count == 3) {
		if (!access(words[1], W_OK))
			write_text(words[1], words[2]);
	} else if (!strcmp(name, "start"))
		start_scanner();
	else if (!strcmp(name, "passes") && count == 3)
		run_passes(words[1], (unsigned int)atoi(words[2]));
	else if (!strcmp(name, "curve") && count == 5)
		run_curve(words[1], (unsigned int)atoi(words[2]), target(words[3]), (unsigned int)atoi(words[4]));
	else if (!strcmp(name, "race") && count == 5)
		run_race(words[1], atol(words[2]), target(words[3]), (unsigned int)atoi(words[4]));
	else if (!strcmp(name, "timed") && count == 4)
		timed(words[1], words[2], words[3]);
	else if (!strcmp(name, "counters") && count == 2)
		say_counters(words[1]);
	else if (!strcmp(name, "memory") && count == 2)
		say_memory(words[1]);
	else if (!strcmp(name, "watch"))
		start_watch();
	else if (!strcmp(name, "watched") && count == 2)
		stop_watch(words[1]);
	else if (!strcmp(name, "end")) {
		end_programs();
		end_workers();
	} else if (!carried_out_more(line, words, count))
		die("not understood: %s", line);
}

void run_script(const char *path)
{
	char line[MAX_LINE];
	FILE *file = fopen(path, "re");

	if (!file)
		die("no %s", path);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (*line)
			carry_out(line);
	}
	fclose(file);
}
