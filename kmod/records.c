// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is remembered of each page of a registered address space.
 *
 * A slot is one word: zero (nothing known), an odd word that packs what is
 * known of a watched page, or a pointer to its item. All of it belongs to the
 * holder of sp_scan_mutex. Reverse-map walkers read an item's block, which
 * stays as long as the item does, under the folio lock of its stable node.
 */
#include <linux/bitfield.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "samepage.h"

#define WATCHED		BIT(0)
#define WATCHED_AGE	GENMASK(15, 8)
#define WATCHED_SKIPS	GENMASK(23, 16)
#define WATCHED_SIG	GENMASK(63, 32)

static struct kmem_cache *sp_block_cache, *sp_item_cache;

#define SP_GFP (GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN)

struct sp_block *sp_block_find(struct sp_space *space, unsigned long addr)
{
	return xa_load(&space->blocks, addr >> SP_BLOCK_SHIFT);
}

/* The block that keeps @addr, made if there is none; NULL without memory. */
struct sp_block *sp_block_get(struct sp_space *space, unsigned long addr)
{
	struct sp_block *block = sp_block_find(space, addr);

	if (block)
		return block;
	block = kmem_cache_zalloc(sp_block_cache, SP_GFP);
	if (!block)
		return NULL;
	block->owner = space;
	block->base = addr & SP_BLOCK_MASK;
	if (xa_err(xa_store(&space->blocks, addr >> SP_BLOCK_SHIFT, block, SP_GFP))) {
		kmem_cache_free(sp_block_cache, block);
		return NULL;
	}
	sp_stats.blocks++;
	return block;
}

struct sp_item *sp_slot_item(struct sp_block *block, unsigned int index)
{
	unsigned long slot = block->slot[index];

	return slot && !(slot & WATCHED) ? (struct sp_item *)slot : NULL;
}

/* Was the page at the slot seen with the same content before? */
bool sp_slot_unchanged(struct sp_block *block, unsigned int index, u64 signature)
{
	struct sp_item *item = sp_slot_item(block, index);

	if (item)
		return item->state == SP_CANDIDATE && item->signature == signature;
	return block->slot[index] &&
	       FIELD_GET(WATCHED_SIG, block->slot[index]) == upper_32_bits(signature);
}

static void sp_slot_store(struct sp_block *block, unsigned int index,
			  u64 signature, u8 age, u8 skips)
{
	if (!block->slot[index]) {
		block->tracked++;
		sp_stats.pages_tracked++;
		block->owner->mm->ksm_rmap_items++;
	}
	block->slot[index] = WATCHED | FIELD_PREP(WATCHED_AGE, age) |
			     FIELD_PREP(WATCHED_SKIPS, skips) |
			     FIELD_PREP(WATCHED_SIG, upper_32_bits(signature));
}

/* Remember @signature; an item is dropped, the page's age is kept. */
void sp_slot_watch(struct sp_block *block, unsigned int index, u64 signature)
{
	struct sp_item *item = sp_slot_item(block, index);
	u8 age = 0, skips = 0;

	if (item) {
		age = item->age;
		skips = item->skips;
		sp_slot_drop_item(block, index);
	} else if (block->slot[index]) {
		age = FIELD_GET(WATCHED_AGE, block->slot[index]);
		skips = FIELD_GET(WATCHED_SKIPS, block->slot[index]);
	}
	sp_slot_store(block, index, signature, age, skips);
}

/* How many passes a page of this age sits out (as in-tree's smart scan). */
static u8 sp_skips_for(u8 age)
{
	if (age <= 3)
		return 1;
	if (age <= 5)
		return 2;
	return age <= 8 ? 4 : 8;
}

/*
 * Smart scan: a page that found no twin in its first passes is looked at less
 * and less often. True when it sits out this pass.
 */
bool sp_slot_skip(struct sp_block *block, unsigned int index)
{
	struct sp_item *item = sp_slot_item(block, index);
	unsigned long *slot = &block->slot[index];
	u8 age, skips;
	bool skip;

	/* A sharer that lost its page is due at once: the counts say merged. */
	if (!*slot || (item && item->state == SP_SHARER))
		return false;
	age = item ? item->age : FIELD_GET(WATCHED_AGE, *slot);
	skips = item ? item->skips : FIELD_GET(WATCHED_SKIPS, *slot);
	skip = age >= 3 && skips;
	if (skip)
		skips--;
	else if (age >= 3)
		skips = sp_skips_for(age);
	if (age != U8_MAX)
		age++;
	if (item) {
		item->age = age;
		item->skips = skips;
	} else {
		*slot &= ~(WATCHED_AGE | WATCHED_SKIPS);
		*slot |= FIELD_PREP(WATCHED_AGE, age) |
			 FIELD_PREP(WATCHED_SKIPS, skips);
	}
	return skip;
}

/*
 * An item for the slot, in no tree yet: the caller puts it into one. What was
 * remembered of the page stays in its age. NULL without memory; the slot is
 * unchanged then.
 */
struct sp_item *sp_slot_promote(struct sp_block *block, unsigned int index)
{
	struct sp_item *item = kmem_cache_zalloc(sp_item_cache, SP_GFP);

	if (!item)
		return NULL;
	if (!block->slot[index])
		sp_slot_store(block, index, 0, 0, 0);
	item->block = block;
	item->index = index;
	item->age = FIELD_GET(WATCHED_AGE, block->slot[index]);
	item->skips = FIELD_GET(WATCHED_SKIPS, block->slot[index]);
	item->domain = block->owner->domain;
	block->slot[index] = (unsigned long)item;
	sp_stats.items++;
	return item;
}

/* Take the slot's item out of its tree and free it; the slot stays tracked. */
void sp_slot_drop_item(struct sp_block *block, unsigned int index)
{
	struct sp_item *item = sp_slot_item(block, index);

	if (!item)
		return;
	if (item->state == SP_SHARER)
		sp_stable_detach(item);
	else if (item->state == SP_CANDIDATE)
		sp_unstable_remove(item);
	block->slot[index] = WATCHED | FIELD_PREP(WATCHED_AGE, item->age) |
			     FIELD_PREP(WATCHED_SKIPS, item->skips);
	kmem_cache_free(sp_item_cache, item);
	sp_stats.items--;
}

/* Forget the page; the block stays until sp_forget_range(). */
void sp_slot_clear(struct sp_block *block, unsigned int index)
{
	if (!block->slot[index])
		return;
	sp_slot_drop_item(block, index);
	block->slot[index] = 0;
	block->tracked--;
	sp_stats.pages_tracked--;
	block->owner->mm->ksm_rmap_items--;
}

/* Forget all pages in [@start, @end), and blocks that are empty then. */
void sp_forget_range(struct sp_space *space, unsigned long start, unsigned long end)
{
	unsigned long at, last = (end - 1) >> SP_BLOCK_SHIFT;
	struct sp_block *block;

	if (start >= end)
		return;
	xa_for_each_range(&space->blocks, at, block, start >> SP_BLOCK_SHIFT, last) {
		unsigned int index;

		for (index = 0; index < SP_BLOCK_PAGES; index++) {
			unsigned long addr = block->base +
					     ((unsigned long)index << PAGE_SHIFT);

			if (addr >= start && addr < end)
				sp_slot_clear(block, index);
		}
		if (!block->tracked) {
			xa_erase(&space->blocks, at);
			kmem_cache_free(sp_block_cache, block);
			sp_stats.blocks--;
		}
		cond_resched();
	}
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
}
