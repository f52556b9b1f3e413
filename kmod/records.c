// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is remembered of each page of a registered address space.
 *
 * A block keeps the records of 64 neighbouring pages: sets of them as bitmaps, a
 * byte of smart scan's and a slot each. A candidate's slot is its key and its
 * link in the unstable tree; a sharer's points to its item. All of it is under the
 * space's `records`; what candidates' slots say, under the lock of their stripe as
 * well. Blocks come and go by the scanner that has the space in hand. Reverse-map
 * walkers read the blocks and slots of sharers, which stay as long as their items
 * do, under the folio lock of their stable node.
 *
 * Whatever is not visited in a pass is gone. That visited blocks are counted saves
 * looking for the others where there are none.
 */
#include <linux/bitfield.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "samepage.h"

#define AGE	GENMASK(3, 0)	/* looks in vain since the page was last quiet */
#define SKIPS	GENMASK(7, 4)	/* passes still to sit out */

static struct kmem_cache *sp_block_cache, *sp_item_cache;

#define SP_GFP (GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN)

struct sp_block *sp_block_find(struct sp_space *space, unsigned long addr)
{
	return xa_load(&space->blocks, addr >> SP_BLOCK_SHIFT);
}

static void sp_block_free(struct sp_block *block)
{
	sp_block_id_put(block);
	kmem_cache_free(sp_block_cache, block);
}

/* A new block for @addr, where there is none, of a huge page or not; NULL without memory. */
struct sp_block *sp_block_new(struct sp_space *space, unsigned long addr, bool huge)
{
	struct sp_block *block = kmem_cache_zalloc(sp_block_cache, SP_GFP);

	if (!block)
		return NULL;
	block->owner = space;
	block->base = addr & SP_BLOCK_MASK;
	block->spared = huge;
	block->seen = space->pass - 1;
	if (!sp_block_id_get(block, SP_GFP)) {
		kmem_cache_free(sp_block_cache, block);
		return NULL;
	}
	if (xa_err(xa_store(&space->blocks, addr >> SP_BLOCK_SHIFT, block, SP_GFP))) {
		sp_block_free(block);
		return NULL;
	}
	space->nr_blocks++;
	sp_count(blocks);
	return block;
}

/* Something is known of the page from now on. */
void sp_slot_track(struct sp_block *block, unsigned int index)
{
	if (block->tracked & sp_bit(index))
		return;
	block->tracked |= sp_bit(index);
	sp_count(pages_tracked);
	block->owner->mm->ksm_rmap_items++;
}

/* The page changed: no sharer, its old content is out of the unstable tree. */
void sp_slot_changed(struct sp_block *block, unsigned int index)
{
	if (block->candidates & sp_bit(index))
		sp_unstable_remove(block, index);
	block->settled &= ~sp_bit(index);
	sp_slot_track(block, index);
}

/* How many passes a page of this age sits out (as in-tree's smart scan). */
static unsigned int sp_skips_for(unsigned int age)
{
	if (age <= 3)
		return 1;
	if (age <= 5)
		return 2;
	return age <= 8 ? 4 : 8;
}

/*
 * Smart scan: a page that changes from pass to pass is looked at less and less
 * often. True when it sits out this pass.
 */
bool sp_slot_skip(struct sp_block *block, unsigned int index)
{
	unsigned int age = FIELD_GET(AGE, block->age[index]);
	unsigned int skips = FIELD_GET(SKIPS, block->age[index]);
	bool skip = age >= 3 && skips;

	if (skip)
		skips--;
	else if (age >= 3)
		skips = sp_skips_for(age);
	if (age < FIELD_MAX(AGE))
		age++;
	block->age[index] = FIELD_PREP(AGE, age) | FIELD_PREP(SKIPS, skips);
	return skip;
}

struct sp_item *sp_item_new(struct sp_block *block, unsigned int index)
{
	struct sp_item *item = kmem_cache_zalloc(sp_item_cache, SP_GFP);

	if (!item)
		return NULL;
	item->page = sp_page_number(block, index);
	sp_count(items);
	return item;
}

void sp_item_free(struct sp_item *item)
{
	kmem_cache_free(sp_item_cache, item);
	sp_uncount(items);
}

/* The page is a sharer from now on, by way of @item. */
void sp_slot_attach(struct sp_block *block, unsigned int index, struct sp_item *item)
{
	sp_slot_changed(block, index);
	block->sharers |= sp_bit(index);
	block->shared_sum = 0;
	block->slot[index].item = item;
	sp_slot_settle(block, index);
}

/* The page is no sharer any more: @item, which is on no list, goes. */
void sp_slot_detach(struct sp_item *item)
{
	struct sp_block *block = sp_sharer_block(item->page);
	unsigned int index = sp_page_index(item->page);

	block->sharers &= ~sp_bit(index);
	block->settled &= ~sp_bit(index);
	block->slot[index] = (union sp_slot) { };
	sp_item_free(item);
}

/* Take the page out of both trees; it stays tracked. */
void sp_slot_unfile(struct sp_block *block, unsigned int index)
{
	if (block->sharers & sp_bit(index))
		sp_stable_detach(block->slot[index].item);
	else
		sp_slot_changed(block, index);
}

/* Forget the page; the block stays until sp_forget_range(). */
void sp_slot_clear(struct sp_block *block, unsigned int index)
{
	if (!(block->tracked & sp_bit(index)))
		return;
	sp_slot_unfile(block, index);
	block->slot[index] = (union sp_slot) { };
	block->age[index] = 0;
	block->twinned &= ~sp_bit(index);
	block->tracked &= ~sp_bit(index);
	sp_uncount(pages_tracked);
	block->owner->mm->ksm_rmap_items--;
}

/* Which pages of the block lie in [@start, @end). */
static u64 sp_block_part(const struct sp_block *block, unsigned long start,
			 unsigned long end)
{
	unsigned int first = start > block->base ? (start - block->base) >> PAGE_SHIFT : 0;
	u64 part = ~0ULL << first;

	if (end - block->base < SP_BLOCK_SIZE)
		part &= BIT_ULL((end - block->base) >> PAGE_SHIFT) - 1;
	return part;
}

/* Forget these pages of a block, and the block if it is empty then. */
static void sp_forget_pages(struct sp_block *block, u64 pages)
{
	struct sp_space *space = block->owner;

	for (pages &= block->tracked; pages; pages &= pages - 1)
		sp_slot_clear(block, __ffs64(pages));
	if (block->tracked)
		return;
	xa_erase(&space->blocks, block->base >> SP_BLOCK_SHIFT);
	space->nr_seen -= block->seen == space->pass;
	space->nr_blocks--;
	sp_block_free(block);
	sp_uncount(blocks);
}

/* Forget all pages in [@start, @end). */
void sp_forget_range(struct sp_space *space, unsigned long start, unsigned long end)
{
	struct sp_block *block;
	unsigned long at;

	if (start >= end)
		return;
	sp_for_each_block_in(space, start, end, at, block) {
		sp_forget_pages(block, sp_block_part(block, start, end));
		cond_resched();
	}
}

/*
 * Nothing is mapped in [@start, @end): forget what lies there of the blocks at its
 * ends, parts of which are mapped. Others are not seen in this pass.
 */
void sp_forget_gap(struct sp_space *space, unsigned long start, unsigned long end)
{
	unsigned long next = start & SP_BLOCK_MASK;

	if (next != start) {
		next = min(end, next + SP_BLOCK_SIZE);
		sp_forget_range(space, start, next);
	}
	sp_forget_range(space, max(next, end & SP_BLOCK_MASK), end);
}

/* The records of this range are to stay as they are. */
void sp_see_range(struct sp_space *space, unsigned long start, unsigned long end)
{
	struct sp_block *block;
	unsigned long at;

	sp_for_each_block_in(space, start, end, at, block)
		sp_block_see(block);
}

/* A pass over @space ends. */
void sp_forget_unseen(struct sp_space *space)
{
	struct sp_block *block;
	unsigned long at;

	if (space->nr_seen != space->nr_blocks) {
		xa_for_each(&space->blocks, at, block) {
			if (block->seen != space->pass)
				sp_forget_pages(block, ~0ULL);
			cond_resched();
		}
	}
	space->nr_seen = 0;
	space->pass++;
}

int sp_records_init(void)
{
	sp_block_cache = KMEM_CACHE(sp_block, 0);
	sp_item_cache = KMEM_CACHE(sp_item, 0);
	if (sp_block_cache && sp_item_cache)
		return 0;
	return -ENOMEM;
}

void sp_records_destroy(void)
{
	kmem_cache_destroy(sp_block_cache);
	kmem_cache_destroy(sp_item_cache);
	sp_block_ids_destroy();
}
