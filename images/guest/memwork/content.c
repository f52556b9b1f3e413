// SPDX-License-Identifier: GPL-2.0-only
#include "content.h"

#include <string.h>

#define GAMMA		0x9e3779b97f4a7c15ull	/* splitmix64's */
#define COMMON_SALT	0x5350505245464958ull
#define TAIL_WORDS	8

static uint64_t masks[PAGE_WORDS];

/* splitmix64's finalizer: a bijection in which every bit of the input moves every bit of the output. */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void fill_words(uint64_t *words, unsigned int count, uint64_t state)
{
	for (unsigned int i = 0; i < count; i++)
		words[i] = mix(state + (i + 1) * GAMMA);
}

void fill_page(uint64_t *page, enum kind kind, uint64_t key)
{
	switch (kind) {
	case KIND_FILLED:
		fill_words(page, PAGE_WORDS, mix(key));
		break;
	case KIND_PREFIX:
		fill_words(page, PAGE_WORDS - TAIL_WORDS, mix((key >> 32) ^ COMMON_SALT));
		fill_words(page + PAGE_WORDS - TAIL_WORDS, TAIL_WORDS, mix(key));
		break;
	case KIND_WORD:
		fill_words(page, PAGE_WORDS, mix((key >> 32) ^ COMMON_SALT));
		page[key % PAGE_WORDS] = mix(key);
		break;
	case KIND_BYTE:
		memset(page, (int)(key & 0xff), PAGE_BYTES);
		break;
	case KIND_ZERO:
	case KINDS:
		memset(page, 0, PAGE_BYTES);
		break;
	}
}

void set_secret(uint64_t secret)
{
	fill_words(masks, PAGE_WORDS, mix(secret));
}

/*
 * A sum of bijections of single words: a page that differs in one word always has another digest, one that
 * differs in more has the same with probability 2^-64. A sum, because NumPy can then do whole columns at once.
 */
uint64_t digest_page(const uint64_t *page)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < PAGE_WORDS; i++)
		sum += mix(page[i] ^ masks[i]);
	return sum;
}
