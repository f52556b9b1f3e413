// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page signatures. A signature only says where to look: contents are always
 * compared before pages are merged.
 *
 * The *sample* takes one word of each cache line, at an offset that is secret
 * and random, and the same for four lines, and any other four take another
 * word of theirs, until all eight were taken: pages that differ in a few whole
 * lines, or in one word of every line, differ in it with near certainty. The words
 * go through two CRCs by turns (processors without one: NH), mixed under a key
 * that is random at each load, so that nobody can tell which bucket a page goes
 * to. Whoever knows the code can still make different pages whose samples are
 * equal. A sample found to stand for two contents is *crowded*: pages that have
 * it are signed in *full* from then on, by NH, the universal hash of UMAC (RFC
 * 4418, section 5.2) with words of 64 bits, where two given pages collide with a
 * chance of 2^-64 over the choice of keys.
 *
 * A bit says that a sample is crowded, so that a few others share its fate: that
 * costs work, but never a merge.
 */
#include <linux/bitmap.h>
#include <linux/highmem.h>
#include <linux/random.h>

#include <asm/cpufeature.h>

#include "samepage.h"

#define SP_WORDS	(PAGE_SIZE / sizeof(u64))
#define SP_LINE_WORDS	(64 / sizeof(u64))
#define SP_LINES	(SP_WORDS / SP_LINE_WORDS)
#define SP_GROUP_LINES	4
#define SP_GROUPS	(SP_LINES / SP_GROUP_LINES)

static u64 sp_secret[SP_WORDS];
static u8 sp_sampled[SP_LINE_WORDS];	/* byte offset of the word that each of so many groups gives */
static u64 sp_mixers[2];		/* odd */
DECLARE_BITMAP(sp_crowd, BIT(SP_CROWD_BITS));
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

#define SP_GROUP_WORDS	(SP_GROUP_LINES * SP_LINE_WORDS)

static u64 sp_sample_by_nh(const void *content)
{
	unsigned int i;
	__uint128_t sum = 0;

#pragma GCC unroll 16
	for (i = 0; i < SP_GROUPS; i++) {
		const u64 *at = content + sp_sampled[i % SP_LINE_WORDS];
		const u64 *key = sp_secret + i * SP_GROUP_LINES;

		at += i * SP_GROUP_WORDS;
		sp_nh_add(&sum, at[0] + key[0], at[SP_LINE_WORDS] + key[1]);
		sp_nh_add(&sum, at[2 * SP_LINE_WORDS] + key[2],
			  at[3 * SP_LINE_WORDS] + key[3]);
	}
	return sp_nh_fold(sum);
}

static inline u64 sp_crc(u64 crc, const u64 *word)
{
	asm("crc32q %1, %0" : "+r" (crc) : "m" (*word));
	return crc;
}

/* Multiplications by secrets: what is known of two values tells nothing of their keys. */
static inline u64 sp_mix(u64 value)
{
	value *= sp_mixers[0];
	value = (value ^ (value >> 32)) * sp_mixers[1];
	return value ^ (value >> 32);
}

static u64 sp_sample_by_crc(const void *content)
{
	u64 even = sp_secret[0], odd = sp_secret[1];
	unsigned int word, i;

	/* All groups with the same word before those with the next: one offset at a time. */
#pragma GCC unroll 8
	for (word = 0; word < SP_LINE_WORDS; word++) {
		const u64 *base = content + sp_sampled[word];

		OPTIMIZER_HIDE_VAR(base);	/* in a register, with constants beside it */
#pragma GCC unroll 8
		for (i = word; i < SP_GROUPS; i += SP_LINE_WORDS) {
			const u64 *at = base + i * SP_GROUP_WORDS;

			even = sp_crc(even, at);
			odd = sp_crc(odd, at + SP_LINE_WORDS);
			even = sp_crc(even, at + 2 * SP_LINE_WORDS);
			odd = sp_crc(odd, at + 3 * SP_LINE_WORDS);
		}
	}
	return sp_mix(even << 32 | odd);
}

u64 sp_sample(struct page *page)
{
	const void *content = kmap_local_page(page);
	u64 sample = cpu_feature_enabled(X86_FEATURE_XMM4_2) ?
		     sp_sample_by_crc(content) : sp_sample_by_nh(content);

	kunmap_local(content);
	return sample;
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

void sp_note_crowded(u64 sample)
{
	sp_count(sample_collisions);
	set_bit(sample >> (64 - SP_CROWD_BITS), sp_crowd);
}

void sp_signature_init(void)
{
	unsigned int word, other;

	get_random_bytes(sp_secret, sizeof(sp_secret));
	get_random_bytes(sp_mixers, sizeof(sp_mixers));
	sp_mixers[0] |= 1;
	sp_mixers[1] |= 1;
	for (word = 0; word < SP_LINE_WORDS; word++) {
		/* Every word once, in random order. */
		other = get_random_u32() % (word + 1);
		sp_sampled[word] = sp_sampled[other];
		sp_sampled[other] = word * sizeof(u64);
	}
	sp_zero_sample = sp_sample(ZERO_PAGE(0));
}
