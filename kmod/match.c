// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finding a page its twin: the zero page, a merged page, or a candidate.
 *
 * Only a page that kept its content for a pass is tried. Needs sp_scan_mutex,
 * and no other lock: merging takes those of one address space at a time.
 */
#include "batch.h"

static void sp_count_merge(int err)
{
	if (err)
		sp_stats.merges_failed++;
	else
		sp_stats.merges++;
}

/*
 * Share a merged page of this content. False when there is none: -EAGAIN from
 * a node means that another content has its key.
 */
static bool sp_try_stable(struct sp_item *item, const struct sp_key *key)
{
	struct sp_stable *stable = sp_stable_find(key);

	while (stable) {
		int err = sp_merge_into(stable, item);

		if (err == -ESTALE) {
			stable = sp_stable_find(key);
		} else if (err == -EAGAIN) {
			stable = sp_stable_next(stable, key);
		} else {
			sp_count_merge(err);
			return true;
		}
	}
	return false;
}

/*
 * Merge @page of @item with @twin of the unstable tree, whose page becomes the
 * merged one. -EAGAIN or -ENOENT when the twin is stale; it is out of the tree
 * then. -EEXIST when it is the same page, shared by fork.
 */
static int sp_merge_twins(struct sp_item *item, const struct page *page,
			  struct sp_item *twin, const struct sp_key *key)
{
	struct sp_stable *stable = sp_stable_alloc(key);
	int err;

	if (!stable)
		return -ENOMEM;
	err = sp_make_stable(stable, twin, page);
	if (err) {
		sp_stable_free_unused(stable);
		if (err == -EAGAIN || err == -ENOENT) {
			sp_stats.stale_candidates++;
			sp_slot_drop_item(twin->block, twin->index);
		}
		return err;
	}
	sp_stable_insert(stable);
	err = sp_merge_into(stable, item);
	sp_count_merge(err);
	if (err) {
		/* One sharer alone saves nothing. */
		sp_break_cow(sp_item_mm(twin), sp_item_address(twin));
		sp_slot_drop_item(twin->block, twin->index);
		return -EBUSY;
	}
	return 0;
}

static void sp_try_unstable(struct sp_item *item, const struct page *page,
			    const struct sp_key *key)
{
	struct sp_item *twin = sp_unstable_find(key);
	int err = -EAGAIN;

	if (twin == item)
		return;
	if (twin)
		err = sp_merge_twins(item, page, twin, key);
	if ((err == -EAGAIN || err == -ENOENT) && item->state == SP_LOOSE &&
	    !sp_unstable_find(key))
		sp_unstable_insert(item, key);
}

/* Map the zero page instead. False when the page may still find a twin. */
static bool sp_try_zero(struct sp_block *block, unsigned int index)
{
	unsigned long addr = block->base + ((unsigned long)index << PAGE_SHIFT);
	int err = sp_merge_zero(block->owner->mm, addr);

	sp_count_merge(err);
	if (!err)
		sp_slot_clear(block, index);
	return !err || err == -ENOENT;
}

/* A page that stayed the same for a pass: look for its twin. */
static void sp_merge_page(struct sp_block *block, const struct sp_found *found)
{
	struct sp_key key = { found->signature, block->owner->domain, found->nid };
	struct sp_item *item = sp_slot_item(block, found->index);

	if (sp_tunables.use_zero_pages && key.signature == sp_zero_signature &&
	    sp_try_zero(block, found->index))
		return;
	if (!item)
		item = sp_slot_promote(block, found->index);
	if (!item)
		return;
	if (item->state == SP_CANDIDATE && item->nid != key.nid) {
		/* Migrated, or merge_across_nodes was changed. */
		sp_unstable_remove(item);
		item->state = SP_LOOSE;
	}
	if (!sp_try_stable(item, &key))
		sp_try_unstable(item, found->page, &key);
	if (item->state == SP_LOOSE)
		sp_slot_watch(block, found->index, key.signature);
}

/* A merged page that came here by fork: note that it is shared here, too. */
static void sp_adopt_sharer(struct sp_block *block, unsigned int index,
			    struct sp_stable *stable)
{
	struct sp_item *item;

	sp_slot_drop_item(block, index);
	item = sp_slot_promote(block, index);
	if (item && sp_merge_into(stable, item) && item->state == SP_LOOSE)
		sp_slot_drop_item(block, index);
}

/* Deal with one page of a batch. */
void sp_match_page(struct sp_block *block, struct sp_found *found)
{
	struct sp_item *item = sp_slot_item(block, found->index);

	if (found->stable) {
		sp_adopt_sharer(block, found->index, found->stable);
		return;
	}
	if (item && item->state == SP_SHARER)	/* written to since: copied */
		sp_slot_drop_item(block, found->index);
	if (sp_slot_unchanged(block, found->index, found->signature))
		sp_merge_page(block, found);
	else
		sp_slot_watch(block, found->index, found->signature);
}
