// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page signatures: a keyed 64-bit hash of the whole page. The key is random at
 * each load, so nobody can prepare pages that collide. A signature only says
 * where to look: contents are always compared before pages are merged.
 */
#include <linux/highmem.h>
#include <linux/random.h>
#include <linux/xxhash.h>

#include "samepage.h"

static u64 sp_secret;
u64 sp_zero_signature;

u64 sp_signature(struct page *page)
{
	void *content = kmap_local_page(page);
	u64 signature = xxh64(content, PAGE_SIZE, sp_secret);

	kunmap_local(content);
	return signature;
}

void sp_signature_init(void)
{
	get_random_bytes(&sp_secret, sizeof(sp_secret));
	sp_zero_signature = sp_signature(ZERO_PAGE(0));
}
