// SPDX-License-Identifier: GPL-2.0-only
/*
 * A script's lines; what roles say is passed on as "NAME WORDS...".
 *
 *	need PATH			end here, with "missing PATH", where there is no such file
 *	set PATH VALUE			write to a file
 *	prefer PATH VALUE		write to a file where there is one
 *	role NAME UID CGROUP ROLE CPU	start a role as this user, in this cgroup below the root's (-: the director's)
 *	tell NAME LINE			and wait until it is done
 *	begin NAME LINE			do not wait
 *	finish NAME			wait now
 *	clock MS			@ in the lines that follow is this time from now on, in ns of CLOCK_MONOTONIC
 *	passes COUNT			wait for so many passes of the merger, the one that is under way not counted
 *	mark				count passes from now on
 *	reach COUNT			wait until so many are over since then
 *	shared LABEL NAME NAME		say how many frames the areas of two roles have in common
 *	remember NAME			the frames of its area now
 *	landed LABEL NAME NAME		say how many pages of the second one's area lie in the frame that the first one's
 *					page with the same number had when it was remembered, how many in any of its
 *					frames, and of how many
 *	end				end all roles
 */
#include "attack.h"
#include "roles.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t *remembered, clock_start, scans_at_mark;

static void set_file(const char *path, const char *value)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, value, strlen(value)) < 0)
		die("write %s to %s: %s", value, path, strerror(errno));
	close(file);
}

static void say_landed(const char *label, const struct place *attacker, const struct place *victim)
{
	uint64_t *now = frames_at(victim), same = 0, any = 0;

	if (!remembered || attacker->pages != victim->pages)
		die("nothing is remembered of an area of that size");
	for (uint64_t i = 0; i < victim->pages; i++)
		same += now[i] && now[i] == remembered[i];
	qsort(remembered, attacker->pages, sizeof(*remembered), by_value);
	for (uint64_t i = 0; i < victim->pages; i++)
		any += now[i] && bsearch(&now[i], remembered, attacker->pages, sizeof(*now), by_value);
	printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", label, same, any, victim->pages);
	free(now);
}

/* The words from `first` on, @ replaced. */
static const char *rest_of(const struct words *words, unsigned int first)
{
	static char line[1024];
	size_t length = 0;

	line[0] = '\0';
	for (unsigned int i = first; i < words->count && length < sizeof(line); i++) {
		if (strcmp(words->at[i], "@"))
			length += snprintf(line + length, sizeof(line) - length, "%s ", words->at[i]);
		else
			length += snprintf(line + length, sizeof(line) - length, "%" PRIu64 " ", clock_start);
	}
	return line;
}

static bool look(const struct words *words)
{
	const char *name = words->at[0];

	if (!strcmp(name, "shared") && words->count == 4)
		printf("%s %" PRIu64 "\n", words->at[1],
		       shared_frames(place_of(words->at[2]), place_of(words->at[3])));
	else if (!strcmp(name, "remember") && words->count == 2)
		remembered = frames_at(place_of(words->at[1]));
	else if (!strcmp(name, "landed") && words->count == 4)
		say_landed(words->at[1], place_of(words->at[2]), place_of(words->at[3]));
	else if (!strcmp(name, "passes") && words->count == 2)
		wait_passes(number(words, 1));
	else if (!strcmp(name, "mark") && full_scans(&scans_at_mark))
		;
	else if (!strcmp(name, "reach") && words->count == 2)
		wait_scans(scans_at_mark + number(words, 1));
	else
		return false;
	return true;
}

static void carry_out(const struct words *words)
{
	const char *name = words->at[0];

	if (!strcmp(name, "set") && words->count == 3)
		set_file(words->at[1], words->at[2]);
	else if (!strcmp(name, "prefer") && words->count == 3) {
		if (!access(words->at[1], W_OK))
			set_file(words->at[1], words->at[2]);
	} else if (!strcmp(name, "role") && words->count == 6)
		start_role(words->at[1], number(words, 2), words->at[3], words->at[4], words->at[5]);
	else if (!strcmp(name, "tell") && words->count > 2) {
		tell_role(words->at[1], rest_of(words, 2));
		await_role(words->at[1]);
	} else if (!strcmp(name, "begin") && words->count > 2)
		tell_role(words->at[1], rest_of(words, 2));
	else if (!strcmp(name, "finish") && words->count == 2)
		await_role(words->at[1]);
	else if (!strcmp(name, "clock") && words->count == 2)
		clock_start = now_ns() + number(words, 1) * 1000000;
	else if (!strcmp(name, "end"))
		end_roles();
	else if (!look(words))
		die("not understood: %s", name);
	fflush(stdout);
}

int direct(void)
{
	char *line = NULL;
	size_t room = 0;

	raise_loopback();
	while (getline(&line, &room, stdin) > 0) {
		struct words words = split(line);

		if (words.count == 2 && !strcmp(words.at[0], "need") && access(words.at[1], W_OK)) {
			printf("missing %s\n", words.at[1]);
			break;
		}
		if (words.count && strcmp(words.at[0], "need"))
			carry_out(&words);
	}
	end_roles();
	return fflush(stdout) ? 2 : 0;
}
