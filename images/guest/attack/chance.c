// SPDX-License-Identifier: GPL-2.0-only
#include "attack.h"

#include <stdlib.h>

/* splitmix64 */
uint64_t draw(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint32_t *random_order(uint64_t seed, uint32_t count)
{
	uint32_t *order = private_memory(count * sizeof(*order));

	for (uint32_t i = 0; i < count; i++)
		order[i] = i;
	for (uint32_t i = count; i > 1; i--) {
		uint32_t other = draw(&seed) % i, kept = order[i - 1];

		order[i - 1] = order[other];
		order[other] = kept;
	}
	return order;
}

void draw_bits(uint64_t seed, uint8_t *bits, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		bits[i] = draw(&seed) >> 63;
}
