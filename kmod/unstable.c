// SPDX-License-Identifier: GPL-2.0-only
/*
 * The unstable tree: pages that stayed the same for a pass and found no twin.
 *
 * They are not write-protected, so a page may change under its key. That does
 * no harm, as the key is kept beside the page's record: a page that changed is
 * found to be stale when its twin is tried, or at its next scan. It is kept from
 * pass to pass.
 *
 * Keys are signatures under a secret, hence as good as random: the low bits of a
 * brief key choose its stripe, the next ones, in an array of buckets (linear
 * hashing: one bucket is split or joined at a time as candidates come and go), the
 * upper levels of the tree; the leaves are short lists linked by page number
 * through the blocks. A candidate costs a link and its share of a bucket, 6 bytes.
 *
 * Lists, and the slots of what is on them, are under the stripe's lock; a candidate
 * keeps its block. Only who holds `merging` of the stripe adds to them: what was
 * not found there is not there until it lets go.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "samepage.h"

#ifndef SP_SEGMENT_SHIFT	/* tests of few pages have it smaller */
#define SP_SEGMENT_SHIFT	(PAGE_SHIFT - 2)
#endif
#define SP_SEGMENT_BUCKETS	BIT(SP_SEGMENT_SHIFT)
/* Under a spinlock, at times; what fails now is tried with the next candidate. */
#define SP_INDEX_GFP (GFP_NOWAIT | __GFP_NOWARN)

static u32 *sp_bucket(const struct sp_stripe *stripe, u32 nr)
{
	return &stripe->segments[nr >> SP_SEGMENT_SHIFT][nr & (SP_SEGMENT_BUCKETS - 1)];
}

/* The bucket of a key: what is not split yet stays with its lower half. */
u32 sp_unstable_bucket(const struct sp_stripe *stripe, u32 signature)
{
	u32 nr = signature / SP_STRIPES & stripe->bucket_mask;

	return nr < stripe->nr_buckets ? nr : nr & (stripe->bucket_mask >> 1);
}

/* The first candidate of a bucket, 0 where it is empty. */
u32 sp_unstable_first(const struct sp_stripe *stripe, u32 bucket)
{
	return *sp_bucket(stripe, bucket);
}

static inline u32 *sp_bucket_of(const struct sp_stripe *stripe, u32 signature)
{
	return sp_bucket(stripe, sp_unstable_bucket(stripe, signature));
}

static inline void sp_set_buckets(struct sp_stripe *stripe, u32 nr)
{
	stripe->nr_buckets = nr;
	if (nr > stripe->bucket_mask + 1 || nr <= stripe->bucket_mask / 2 + 1)
		stripe->bucket_mask = roundup_pow_of_two(nr) - 1;
}

static union sp_slot *sp_page_slot(u32 page)
{
	return &sp_block_of(page)->slot[sp_page_index(page)];
}

/* Room for the bucket @nr, where another was added before; false without memory. */
static bool sp_segment_for(struct sp_stripe *stripe, u32 nr, gfp_t gfp)
{
	unsigned int wanted = (nr >> SP_SEGMENT_SHIFT) + 1;

	if (wanted <= stripe->nr_segments)
		return true;
	if (wanted > stripe->max_segments) {
		unsigned int max = max(16U, 2 * stripe->max_segments);
		u32 **more = kcalloc(max, sizeof(*more), gfp);

		if (!more)
			return false;
		if (stripe->segments)
			memcpy(more, stripe->segments, stripe->nr_segments * sizeof(*more));
		kfree(stripe->segments);
		stripe->segments = more;
		stripe->max_segments = max;
	}
	stripe->segments[wanted - 1] = (u32 *)get_zeroed_page(gfp);
	if (!stripe->segments[wanted - 1])
		return false;
	stripe->nr_segments = wanted;
	return true;
}

/* One more bucket takes its part of its lower half. Best effort. */
static noinline void sp_grow(struct sp_stripe *stripe)
{
	u32 nr = stripe->nr_buckets, half, page, *link, *into;

	if (!(nr & (SP_SEGMENT_BUCKETS - 1)) && !sp_segment_for(stripe, nr, SP_INDEX_GFP))
		return;
	sp_set_buckets(stripe, nr + 1);
	half = (stripe->bucket_mask + 1) / 2;
	link = sp_bucket(stripe, nr - half);
	into = sp_bucket(stripe, nr);
	while ((page = *link)) {
		union sp_slot *slot = sp_page_slot(page);

		if (slot->signature / SP_STRIPES & half) {
			*link = slot->next;
			slot->next = *into;
			*into = page;
		} else {
			link = &slot->next;
		}
	}
}

/* The last bucket goes back to its lower half. */
static void sp_shrink(struct sp_stripe *stripe)
{
	u32 last = stripe->nr_buckets - 1;
	u32 *link = sp_bucket(stripe, last - rounddown_pow_of_two(last));

	while (*link)
		link = &sp_page_slot(*link)->next;
	*link = *sp_bucket(stripe, last);
	*sp_bucket(stripe, last) = 0;
	sp_set_buckets(stripe, last);
	if (stripe->nr_buckets <= (stripe->nr_segments - 1) << SP_SEGMENT_SHIFT)
		free_page((unsigned long)stripe->segments[--stripe->nr_segments]);
}

/* From @page on, the first candidate of this key and @domain; 0 where there is none. */
static inline u32 sp_find_from(u32 page, u32 signature, u16 domain)
{
	while (page) {
		struct sp_block *block = sp_block_of(page);
		union sp_slot *slot = &block->slot[sp_page_index(page)];

		if (slot->signature == signature && block->owner->domain == domain)
			break;
		page = slot->next;
	}
	return page;
}

static inline void sp_link(struct sp_stripe *stripe, u32 *bucket, struct sp_block *block,
			   unsigned int index, u32 signature)
{
	union sp_slot *slot = sp_slot_of(block, index);

	slot->signature = signature;
	slot->next = *bucket;
	*bucket = sp_page_number(block, index);
	block->candidates |= sp_bit(index);
	if (++stripe->candidates > 2 * stripe->nr_buckets)
		sp_grow(stripe);
}

/* The page becomes a candidate, unless there is one of this key: false. */
bool sp_unstable_file(struct sp_block *block, unsigned int index, u32 signature)
{
	struct sp_stripe *stripe = sp_stripe_of(signature);
	u32 *bucket;
	bool alone;

	sp_stripe_lock(stripe);
	bucket = sp_bucket_of(stripe, signature);
	alone = !sp_find_from(*bucket, signature, block->owner->domain);
	if (alone)
		sp_link(stripe, bucket, block, index, signature);
	sp_stripe_unlock(stripe);
	return alone;
}

/* Is there a candidate of this key and @domain? Needs sp_scan_lock for writing. */
bool sp_unstable_known(u32 signature, u16 domain)
{
	return sp_find_from(*sp_bucket_of(sp_stripe_of(signature), signature), signature, domain);
}

/* The page becomes a candidate. */
void sp_unstable_insert(struct sp_block *block, unsigned int index, u32 signature)
{
	struct sp_stripe *stripe = sp_stripe_of(signature);

	sp_stripe_lock(stripe);
	sp_link(stripe, sp_bucket_of(stripe, signature), block, index, signature);
	sp_stripe_unlock(stripe);
}

/* The page, a candidate, is one no more. */
void sp_unstable_remove(struct sp_block *block, unsigned int index)
{
	union sp_slot *slot = sp_slot_of(block, index);
	struct sp_stripe *stripe = sp_stripe_of(slot->signature);
	u32 *link, page = sp_page_number(block, index);

	sp_stripe_lock(stripe);
	link = sp_bucket_of(stripe, slot->signature);
	while (*link != page)
		link = &sp_page_slot(*link)->next;
	*link = slot->next;
	slot->next = 0;
	block->candidates &= ~sp_bit(index);
	stripe->candidates--;
	while (stripe->candidates < stripe->nr_buckets &&
	       stripe->nr_buckets > SP_SEGMENT_BUCKETS)
		sp_shrink(stripe);
	sp_stripe_unlock(stripe);
	if (block->forked & sp_bit(index)) {
		block->forked &= ~sp_bit(index);
		sp_scan_refile_forked();
	}
}

/*
 * Candidates of this key and @domain: the first ones, as many as there is room for,
 * of which no more than so many are parts of spared huge pages. Returns how many;
 * each has a reference to its space.
 */
unsigned int sp_unstable_twins(u32 signature, u16 domain, struct sp_twin *twins,
			       unsigned int room, unsigned int spared)
{
	struct sp_stripe *stripe = sp_stripe_of(signature);
	unsigned int count = 0;
	u32 page;

	sp_stripe_lock(stripe);
	page = sp_find_from(*sp_bucket_of(stripe, signature), signature, domain);
	while (page && count < room) {
		struct sp_block *block = sp_block_of(page);
		unsigned int index = sp_page_index(page);
		bool is_spared = READ_ONCE(block->spared);

		if (!is_spared || spared) {
			spared -= is_spared;
			twins[count++] = (struct sp_twin) {
				.space = block->owner,
				.addr = sp_slot_address(block, index),
				.spared = is_spared,
			};
			refcount_inc(&block->owner->refs);
		}
		page = sp_find_from(block->slot[index].next, signature, domain);
	}
	sp_stripe_unlock(stripe);
	return count;
}

/* What it takes because there are candidates: not the first page of each stripe. */
unsigned long sp_unstable_bytes(void)
{
	return (sp_stripes_sum(nr_segments) - SP_STRIPES) * PAGE_SIZE;
}

int sp_unstable_init(void)
{
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe) {
		mutex_init(&stripe->merging);
		spin_lock_init(&stripe->lock);
		if (!sp_segment_for(stripe, 0, GFP_KERNEL))
			return -ENOMEM;
		sp_set_buckets(stripe, SP_SEGMENT_BUCKETS);
	}
	return 0;
}

void sp_unstable_destroy(void)
{
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe) {
		while (stripe->nr_segments)
			free_page((unsigned long)stripe->segments[--stripe->nr_segments]);
		kfree(stripe->segments);
	}
}
