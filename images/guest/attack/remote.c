// SPDX-License-Identifier: GPL-2.0-only
/*
 * An attacker who is somewhere else: it has nothing but a connection to a service that keeps pages for it, and asks
 * itself whether somebody on the service's machine has these contents, too.
 *
 *	store KEY COUNT PAGES		COUNT objects of so many pages each, the first of which is KEY
 *	touch SEED			have the service change each; say how long the answers took
 */
#include "attack.h"
#include "service.h"

#include <string.h>

static int service = -1;
static uint32_t objects, pages;

static void ask(enum wish what, uint32_t at, uint32_t count, const void *data, size_t size)
{
	struct wish_header wish = { what, at, count };
	char answer;

	if (!write_all(service, &wish, sizeof(wish)) || !write_all(service, data, size) ||
	    !read_all(service, &answer, 1))
		die("the service went away");
}

static void store(uint64_t key)
{
	uint64_t *page = private_memory(PAGE_BYTES);

	service = connect_to(SERVICE_PORT);
	for (uint32_t i = 0; i < objects * pages; i++) {
		fill_page(page, KIND_FILLED, key + i);
		ask(WISH_STORE, i, 1, page, PAGE_BYTES);
	}
}

static void touch(uint64_t seed)
{
	uint32_t *order = random_order(seed, objects);
	uint64_t *took = private_memory(objects * sizeof(*took));

	for (uint32_t i = 0; i < objects; i++) {
		uint64_t began = ticks();

		ask(WISH_WRITE, order[i] * pages, pages, NULL, 0);
		took[order[i]] = ticks() - began;
	}
	say_figures("ticks", took, objects);
}

static void obey(const struct words *words)
{
	if (!strcmp(words->at[0], "store")) {
		objects = number(words, 2);
		pages = number(words, 3);
		store(number(words, 1));
	} else if (!strcmp(words->at[0], "touch"))
		touch(number(words, 1));
	else
		die("remote does not know %s", words->at[0]);
}

void ask_remote(void)
{
	serve(obey);
}
