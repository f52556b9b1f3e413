// SPDX-License-Identifier: GPL-2.0-only
/*
 * The part of the checker that looks at the records of address spaces and at the
 * unstable tree. No scanner may be at work.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "check.h"

static void sp_check_block(struct sp_check *check, struct sp_block *block)
{
	unsigned long at = block->base;
	u64 known = block->settled | block->candidates | block->sharers;
	unsigned int index;

	sp_check_that(check, sp_known_block(sp_page_number(block, 0)) == block,
		      "block %u at %#lx", block->id, at);
	sp_check_that(check, !(known & ~block->tracked), "at %#lx: %#llx of %#llx", at,
		      known, block->tracked);
	sp_check_that(check, !(block->candidates & block->sharers), "at %#lx", at);
	sp_check_that(check, !(block->forked & ~block->candidates), "at %#lx", at);
	sp_check_that(check, !(block->sharers & ~block->settled), "at %#lx", at);
	for (index = 0; index < SP_BLOCK_PAGES; index++) {
		const struct sp_item *item = block->slot[index].item;

		if (!(block->sharers & sp_bit(index)))
			continue;
		sp_check_that(check, item->page == sp_page_number(block, index),
			      "item of page %u at %#lx", item->page,
			      sp_slot_address(block, index));
		if (item->stable->pfn)
			continue;
		/* The node is out of the tree, and goes with its last sharer. */
		sp_check_gone(check, item);
		check->left++;
		check->buried += item->stable->sharers == item->page;
	}
	check->blocks++;
	check->tracked += hweight64(block->tracked);
	check->candidates += hweight64(block->candidates);
	check->sharers += hweight64(block->sharers);
}

static void sp_check_space(struct sp_check *check, struct sp_space *space)
{
	unsigned long at, blocks = check->blocks, tracked = check->tracked, seen = 0;
	unsigned long sharers = check->sharers;
	struct sp_block *block;

	xa_for_each(&space->blocks, at, block) {
		sp_check_that(check, block->owner == space, "block at %#lx", block->base);
		sp_check_that(check, block->base >> SP_BLOCK_SHIFT == at, "%#lx, %#lx",
			      block->base, at);
		seen += block->seen == space->pass;
		sp_check_block(check, block);
		cond_resched();
	}
	check->spaces++;
	blocks = check->blocks - blocks;
	tracked = check->tracked - tracked;
	sharers = check->sharers - sharers;
	sp_check_that(check, space->nr_blocks == blocks, "%lu, %lu", space->nr_blocks, blocks);
	sp_check_that(check, space->nr_seen == seen, "%lu, %lu", space->nr_seen, seen);
	sp_check_that(check, space->mm->ksm_rmap_items == tracked, "%lu, %lu",
		      space->mm->ksm_rmap_items, tracked);
	sp_check_that(check, space->mm->ksm_merging_pages == sharers, "%lu, %lu",
		      space->mm->ksm_merging_pages, sharers);
}

void sp_check_records(struct sp_check *check)
{
	unsigned int i, nr;
	struct sp_space **spaces = sp_registry_recorded(&nr);

	if (!spaces) {
		sp_check_fault(check, "no memory for a list of the address spaces");
		return;
	}
	for (i = 0; i < nr; i++)
		sp_check_space(check, spaces[i]);
	kvfree(spaces);
}

/* The candidates of a bucket, no more than there can be; false where the list is broken. */
static bool sp_check_bucket(struct sp_check *check, const struct sp_stripe *stripe, u32 bucket)
{
	u32 page = sp_unstable_first(stripe, bucket);

	for (; page; check->filed++) {
		struct sp_block *block = sp_known_block(page);
		unsigned int index = sp_page_index(page);
		u32 signature;

		if (!block || !(block->candidates & sp_bit(index)) ||
		    check->filed > check->candidates) {
			sp_check_fault(check, "bucket %u: page %u is no candidate", bucket, page);
			return false;
		}
		signature = block->slot[index].signature;
		sp_check_that(check, sp_stripe_of(signature) == stripe &&
			      sp_unstable_bucket(stripe, signature) == bucket,
			      "page %u in bucket %u", page, bucket);
		page = block->slot[index].next;
	}
	return true;
}

void sp_check_unstable(struct sp_check *check)
{
	struct sp_stripe *stripe;
	u32 bucket;

	sp_for_each_stripe(stripe) {
		unsigned long filed = check->filed;

		for (bucket = 0; bucket < stripe->nr_buckets; bucket++) {
			if (!sp_check_bucket(check, stripe, bucket))
				return;
			cond_resched();
		}
		filed = check->filed - filed;
		sp_check_that(check, stripe->candidates == filed, "%lu, %lu", stripe->candidates,
			      filed);
	}
}
