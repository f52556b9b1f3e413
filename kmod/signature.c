// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page signatures: NH, the universal hash of UMAC (RFC 4418, section 5.2) with
 * words of 64 bits, under keys that are random at each load. A signature only
 * says where to look: contents are always compared before pages are merged.
 *
 * The *sample* takes one word of each cache line, at an offset that is secret
 * and random, too, and the same for four lines, and any other four take another
 * word of theirs, until all eight were taken: pages that differ in a few whole
 * lines, or in one word of every line, differ in it with near certainty. Whoever
 * knows the code can still make different pages whose samples are likely to be
 * equal. A sample found to stand for two contents is *crowded*: pages that have
 * it are signed in *full* from then on, and two given pages collide there with a
 * chance of 2^-64 over the choice of keys.
 *
 * A bit says that a sample is crowded, so that a few others share its fate: that
 * costs work, but never a merge. Guarded by sp_scan_mutex.
 */
#include <linux/bitmap.h>
#include <linux/highmem.h>
#include <linux/random.h>

#include "samepage.h"

#define SP_WORDS	(PAGE_SIZE / sizeof(u64))
#define SP_LINE_WORDS	(64 / sizeof(u64))
#define SP_LINES	(SP_WORDS / SP_LINE_WORDS)
#define SP_GROUP_LINES	4
#define SP_GROUPS	(SP_LINES / SP_GROUP_LINES)
#define SP_CROWD_BITS	20

static u64 sp_secret[SP_WORDS];
static u8 sp_sampled[SP_GROUPS];	/* the word of each line that is taken */
static DECLARE_BITMAP(sp_crowd, BIT(SP_CROWD_BITS));
u64 sp_zero_sample;

/* One step of NH: @first and @second are words of the page with their keys added. */
static inline void sp_nh_add(__uint128_t *sum, u64 first, u64 second)
{
	*sum += first * (__uint128_t)second;
}

static inline u64 sp_nh_fold(__uint128_t sum)
{
	return (u64)sum ^ (u64)(sum >> 64);
}

u64 sp_sample(struct page *page)
{
	const u64 *word = kmap_local_page(page), *at, *key;
	unsigned int i;
	__uint128_t sum = 0;

#pragma GCC unroll 16
	for (i = 0; i < SP_GROUPS; i++) {
		at = word + i * SP_GROUP_LINES * SP_LINE_WORDS + sp_sampled[i];
		key = sp_secret + i * SP_GROUP_LINES;
		sp_nh_add(&sum, at[0] + key[0], at[SP_LINE_WORDS] + key[1]);
		sp_nh_add(&sum, at[2 * SP_LINE_WORDS] + key[2],
			  at[3 * SP_LINE_WORDS] + key[3]);
	}
	kunmap_local(word);
	return sp_nh_fold(sum);
}

u64 sp_full_signature(struct page *page)
{
	const u64 *word = kmap_local_page(page);
	unsigned int i;
	__uint128_t sum = 0;

#pragma GCC unroll 8
	for (i = 0; i < SP_WORDS; i += 2)
		sp_nh_add(&sum, word[i] + sp_secret[i], word[i + 1] + sp_secret[i + 1]);
	kunmap_local(word);
	return sp_nh_fold(sum);
}

bool sp_crowded(u64 sample)
{
	return test_bit(sample >> (64 - SP_CROWD_BITS), sp_crowd);
}

void sp_note_crowded(u64 sample)
{
	sp_stats.sample_collisions++;
	__set_bit(sample >> (64 - SP_CROWD_BITS), sp_crowd);
}

void sp_signature_init(void)
{
	unsigned int group, other;

	get_random_bytes(sp_secret, sizeof(sp_secret));
	for (group = 0; group < SP_GROUPS; group++) {
		/* Each run of SP_LINE_WORDS groups has every word, in random order. */
		other = group - get_random_u32() % (group % SP_LINE_WORDS + 1);
		sp_sampled[group] = sp_sampled[other];
		sp_sampled[other] = group % SP_LINE_WORDS;
	}
	sp_zero_sample = sp_sample(ZERO_PAGE(0));
}
