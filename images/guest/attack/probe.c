// SPDX-License-Identifier: GPL-2.0-only
/*
 * The attacker that has guesses merged and times what it does with them.
 *
 *	plant KEY COUNT COPIES		the contents KEY ... KEY+COUNT-1, each so many times
 *	fork STAYS			a child: every page is write-protected, and after it has gone its copy is not needed
 *	write SEED			a word into each page, in an order of its own; say what each took
 *	write_copies SEED		the same; say for each content what the shortest of its copies' writes took
 *	unmap SEED			drop each content's copies one after another; say what the last one took
 */
#include "attack.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct area area;
static uint64_t contents, copies;

static void plant(uint64_t key, uint64_t count, uint64_t times)
{
	contents = count;
	copies = times;
	area = map_area(count * times);
	for (uint64_t i = 0; i < count * times; i++)
		fill_page(page_of(&area, i), KIND_FILLED, key + i % count);
	offer_area(&area);
}

static void fork_child(bool stays)
{
	pid_t child = fork();

	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (stays)
			pause();
		_exit(0);
	}
	if (!stays)
		waitpid(child, NULL, 0);
}

static uint64_t *time_all_writes(uint64_t seed)
{
	uint32_t *order = random_order(seed, area.pages);
	uint64_t *took = private_memory(area.pages * sizeof(*took));

	for (uint64_t i = 0; i < area.pages; i++)
		took[order[i]] = time_write(page_of(&area, order[i]));
	return took;
}

/* Where not all copies were merged, one is a page like any other. */
static void write_copies(uint64_t seed)
{
	uint64_t *took = time_all_writes(seed);

	for (uint64_t i = contents; i < area.pages; i++)
		if (took[i] < took[i % contents])
			took[i % contents] = took[i];
	say_figures("ticks", took, contents);
}

/* From the last copy to the first: what merging left over stands at the end, as it comes to that at last. */
static void unmap_all_pages(uint64_t seed)
{
	uint32_t *order = random_order(seed, contents);
	uint64_t *took = private_memory(contents * sizeof(*took));

	for (uint64_t i = 0; i < contents; i++)
		for (uint64_t copy = copies; copy-- > 0; )
			took[order[i]] = time_unmap(page_of(&area, copy * contents + order[i]));
	say_figures("ticks", took, contents);
}

static void obey(const struct words *words)
{
	if (!strcmp(words->at[0], "plant"))
		plant(number(words, 1), number(words, 2), number(words, 3));
	else if (!strcmp(words->at[0], "fork"))
		fork_child(number(words, 1));
	else if (!strcmp(words->at[0], "write"))
		say_figures("ticks", time_all_writes(number(words, 1)), area.pages);
	else if (!strcmp(words->at[0], "write_copies"))
		write_copies(number(words, 1));
	else if (!strcmp(words->at[0], "unmap"))
		unmap_all_pages(number(words, 1));
	else
		die("probe does not know %s", words->at[0]);
}

void probe(void)
{
	serve(obey);
}
