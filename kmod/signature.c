// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page signatures: NH, the universal hash of UMAC (RFC 4418, section 5.2), over
 * the whole page, under a key of page size that is random at each load. Two
 * given pages collide with a chance of at most 2^-32 over the choice of the
 * key, so nobody can prepare pages that collide. A signature only says where to
 * look: contents are always compared before pages are merged.
 */
#include <linux/highmem.h>
#include <linux/random.h>

#include "samepage.h"

#define SP_WORDS (PAGE_SIZE / sizeof(u32))

static u32 sp_secret[SP_WORDS];
u64 sp_zero_signature;

u64 sp_signature(struct page *page)
{
	const u32 *word = kmap_local_page(page);
	u64 sum = 0;
	unsigned int i;

	for (i = 0; i < SP_WORDS; i += 2)
		sum += (u64)(word[i] + sp_secret[i]) * (word[i + 1] + sp_secret[i + 1]);
	kunmap_local(word);
	/* Callers keep the upper half alone of a page that is only watched. */
	return sum ^ sum << 32;
}

void sp_signature_init(void)
{
	get_random_bytes(sp_secret, sizeof(sp_secret));
	sp_zero_signature = sp_signature(ZERO_PAGE(0));
}
