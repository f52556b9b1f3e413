// SPDX-License-Identifier: GPL-2.0-only
/*
 * The unstable tree: pages that stayed the same for a pass and found no twin.
 *
 * They are not write-protected, so a page may change under its key. That does
 * no harm, as the key is kept beside the page's record: a page that changed is
 * found to be stale when its twin is tried, or at its next scan. It is kept from
 * pass to pass.
 *
 * Keys are signatures under a secret, hence as good as random: the upper levels
 * of the tree are an array of buckets (linear hashing: one bucket is split or
 * joined at a time as candidates come and go), the leaves are short lists linked
 * by page number through the blocks. A candidate costs a link and its share of
 * a bucket, 6 bytes. Guarded by sp_scan_mutex.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "samepage.h"

#define SP_SEGMENT_SHIFT	(PAGE_SHIFT - 2)
#define SP_SEGMENT_BUCKETS	BIT(SP_SEGMENT_SHIFT)
#define SP_INDEX_GFP (GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN)

static u32 **sp_segments;		/* of buckets, each a page */
static unsigned int sp_nr_segments, sp_max_segments;
static u32 sp_nr_buckets;		/* in use */
static u32 sp_bucket_mask;		/* rounded up to a power of two, less 1 */

static u32 *sp_bucket(u32 nr)
{
	return &sp_segments[nr >> SP_SEGMENT_SHIFT][nr & (SP_SEGMENT_BUCKETS - 1)];
}

u32 sp_unstable_buckets(void)
{
	return sp_nr_buckets;
}

/* The bucket of a key: what is not split yet stays with its lower half. */
u32 sp_unstable_bucket(u32 signature)
{
	u32 nr = signature & sp_bucket_mask;

	return nr < sp_nr_buckets ? nr : nr & (sp_bucket_mask >> 1);
}

/* The first candidate of a bucket, 0 where it is empty. */
u32 sp_unstable_first(u32 bucket)
{
	return *sp_bucket(bucket);
}

static u32 *sp_bucket_of(u32 signature)
{
	return sp_bucket(sp_unstable_bucket(signature));
}

static inline void sp_set_buckets(u32 nr)
{
	sp_nr_buckets = nr;
	if (nr > sp_bucket_mask + 1 || nr <= sp_bucket_mask / 2 + 1)
		sp_bucket_mask = roundup_pow_of_two(nr) - 1;
}

static union sp_slot *sp_page_slot(u32 page)
{
	return &sp_block_of(page)->slot[sp_page_index(page)];
}

/* Room for the bucket @nr; false without memory. */
static bool sp_segment_for(u32 nr)
{
	unsigned int wanted = (nr >> SP_SEGMENT_SHIFT) + 1;

	if (wanted <= sp_nr_segments)
		return true;
	if (wanted > sp_max_segments) {
		unsigned int max = max(16U, 2 * sp_max_segments);
		u32 **more = kvcalloc(max, sizeof(*more), SP_INDEX_GFP);

		if (!more)
			return false;
		if (sp_segments)
			memcpy(more, sp_segments, sp_nr_segments * sizeof(*more));
		kvfree(sp_segments);
		sp_segments = more;
		sp_max_segments = max;
	}
	sp_segments[wanted - 1] = (u32 *)get_zeroed_page(SP_INDEX_GFP);
	if (!sp_segments[wanted - 1])
		return false;
	sp_nr_segments = wanted;
	return true;
}

/* One more bucket takes its part of its lower half. Best effort. */
static void sp_grow(void)
{
	u32 nr = sp_nr_buckets, half, page, *link, *into;

	if (!(nr & (SP_SEGMENT_BUCKETS - 1)) && !sp_segment_for(nr))
		return;
	sp_set_buckets(nr + 1);
	half = (sp_bucket_mask + 1) / 2;
	link = sp_bucket(nr - half);
	into = sp_bucket(nr);
	while ((page = *link)) {
		union sp_slot *slot = sp_page_slot(page);

		if (slot->signature & half) {
			*link = slot->next;
			slot->next = *into;
			*into = page;
		} else {
			link = &slot->next;
		}
	}
}

/* The last bucket goes back to its lower half. */
static void sp_shrink(void)
{
	u32 last = sp_nr_buckets - 1;
	u32 *link = sp_bucket(last - rounddown_pow_of_two(last));

	while (*link)
		link = &sp_page_slot(*link)->next;
	*link = *sp_bucket(last);
	*sp_bucket(last) = 0;
	sp_set_buckets(last);
	if (sp_nr_buckets <= (sp_nr_segments - 1) << SP_SEGMENT_SHIFT)
		free_page((unsigned long)sp_segments[--sp_nr_segments]);
}

/*
 * A candidate of this key and @domain; after @after where it is not 0. 0 where
 * there is none.
 */
u32 sp_unstable_find(u32 signature, u16 domain, u32 after)
{
	u32 page = after ? sp_page_slot(after)->next : *sp_bucket_of(signature);

	while (page) {
		struct sp_block *block = sp_block_of(page);
		union sp_slot *slot = &block->slot[sp_page_index(page)];

		if (slot->signature == signature && block->owner->domain == domain)
			return page;
		page = slot->next;
	}
	return 0;
}

void sp_unstable_insert(struct sp_block *block, unsigned int index, u32 signature)
{
	u32 *bucket = sp_bucket_of(signature);

	block->slot[index].signature = signature;
	block->slot[index].next = *bucket;
	*bucket = sp_page_number(block, index);
	block->candidates |= BIT_ULL(index);
	if (++sp_stats.pages_unshared > 2 * sp_nr_buckets)
		sp_grow();
}

void sp_unstable_remove(struct sp_block *block, unsigned int index)
{
	union sp_slot *slot = &block->slot[index];
	u32 *link = sp_bucket_of(slot->signature), page = sp_page_number(block, index);

	while (*link != page)
		link = &sp_page_slot(*link)->next;
	*link = slot->next;
	slot->next = 0;
	block->candidates &= ~BIT_ULL(index);
	sp_stats.pages_unshared--;
	if (block->forked & BIT_ULL(index)) {
		block->forked &= ~BIT_ULL(index);
		sp_scan_refile_forked();
	}
	while (sp_stats.pages_unshared < sp_nr_buckets &&
	       sp_nr_buckets > SP_SEGMENT_BUCKETS)
		sp_shrink();
}

/* What it takes because there are candidates: not its first page. */
unsigned long sp_unstable_bytes(void)
{
	return (sp_nr_segments - 1) * PAGE_SIZE;
}

int sp_unstable_init(void)
{
	if (!sp_segment_for(0))
		return -ENOMEM;
	sp_set_buckets(SP_SEGMENT_BUCKETS);
	return 0;
}

void sp_unstable_destroy(void)
{
	while (sp_nr_segments)
		free_page((unsigned long)sp_segments[--sp_nr_segments]);
	kvfree(sp_segments);
}
