// SPDX-License-Identifier: GPL-2.0-only
/*
 * The victim: some of the contents that everybody knows are in its memory, and which of them is its secret.
 *
 *	hold KEY COUNT SECRET PAGES	half of COUNT objects of so many pages each, KEY and so on; SECRET says which
 *	hold_all KEY COUNT		the contents KEY ... KEY+COUNT-1, all of them
 */
#include "attack.h"

#include <string.h>

static void hold_half(uint64_t key, uint32_t count, uint64_t secret, uint32_t pages)
{
	uint32_t *order = random_order(secret, count);
	uint8_t *held = private_memory(count);
	struct area area = map_area((uint64_t)count / 2 * pages);

	for (uint32_t i = 0; i < count / 2; i++) {
		for (uint32_t page = 0; page < pages; page++)
			fill_page(page_of(&area, i * pages + page), KIND_FILLED,
				  key + (uint64_t)order[i] * pages + page);
		held[order[i]] = 1;
	}
	offer_area(&area);
	say_bits("held", held, count);
}

static void hold_all(uint64_t key, uint32_t count)
{
	struct area area = map_area(count);

	for (uint32_t i = 0; i < count; i++)
		fill_page(page_of(&area, i), KIND_FILLED, key + i);
	offer_area(&area);
}

static void obey(const struct words *words)
{
	if (!strcmp(words->at[0], "hold"))
		hold_half(number(words, 1), number(words, 2), number(words, 3), number(words, 4));
	else if (!strcmp(words->at[0], "hold_all"))
		hold_all(number(words, 1), number(words, 2));
	else
		die("hold does not know %s", words->at[0]);
}

void hold(void)
{
	serve(obey);
}
