// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finding a page its twin: the zero page, a merged page, or a candidate.
 *
 * Only a page that kept its content for a pass is tried. A page is *settled*
 * once there is nothing left to do about it: merged, or a candidate, or the page
 * of a candidate that is mapped here too, by fork, until that candidate is one
 * no more. What could not be done because somebody held the page is tried again
 * at the next pass.
 * Needs sp_scan_mutex, and no other lock: merging takes those of one address
 * space at a time. What most pages never come to is kept out of line: what they do
 * come to fits the registers then.
 */
#include "batch.h"

/* Candidates of one key that are tried for a page. */
#define SP_TWINS_TRIED 4

/* Parts of spared huge pages that are filed under one key. */
#define SP_PARTS_FILED 4

static void sp_count_merge(int err)
{
	if (err)
		sp_stats.merges_failed++;
	else
		sp_stats.merges++;
}

/* What is known of the content of a page that was read. */
static struct sp_key sp_found_key(const struct sp_found *found)
{
	return (struct sp_key) {
		.signature = found->crowded ? found->full : found->sample,
		.domain = found->block->owner->domain,
		.nid = found->nid,
		.full = found->crowded,
	};
}

static bool sp_is_sharer(const struct sp_block *block, unsigned int index)
{
	return block->sharers & BIT_ULL(index);
}

/* An item of a page that is in no tree is of no use. */
static void sp_item_settle(struct sp_item *item)
{
	struct sp_block *block = sp_block_of(item->page);
	unsigned int index = sp_page_index(item->page);

	if (!sp_is_sharer(block, index) || block->slot[index].item != item)
		sp_item_free(item);
}

/* As sp_try_stable(), from the node @stable on. */
static noinline int sp_try_stable_from(struct sp_stable *stable, struct sp_block *block,
				       unsigned int index, const struct sp_key *key)
{
	struct sp_item *item = sp_item_new(block, index);
	bool unlike = false;

	if (!item)
		return -ENOMEM;
	while (stable) {
		int err = sp_merge_into(stable, item);

		if (err == -ESTALE) {
			stable = sp_stable_find(key);
		} else if (err == -EAGAIN) {
			unlike = true;
			stable = sp_stable_next(stable, key);
		} else {
			sp_count_merge(err);
			if (err)
				sp_item_free(item);
			return err;
		}
	}
	sp_item_free(item);
	if (unlike && !key->full)
		sp_note_crowded(key->signature);
	return -ESRCH;
}

/*
 * Share a merged page of this content. 0 or an errno of sp_merge_into(), -ENOENT
 * excepted: -ESRCH when there is none; a content that only looked alike is noted.
 */
static int sp_try_stable(struct sp_block *block, unsigned int index,
			 const struct sp_key *key)
{
	struct sp_stable *stable = sp_stable_find(key);

	return stable ? sp_try_stable_from(stable, block, index, key) : -ESRCH;
}

/* Undo the merge of one page, which nobody shares. */
static void sp_unmerge_lone(struct sp_block *block, unsigned int index)
{
	sp_break_cow(block->owner->mm, sp_slot_address(block, index));
	sp_slot_unfile(block, index);
}

/*
 * Merge the page of @item with the candidate @twin, whose page becomes the
 * merged one. -ESTALE, -ENOENT: the twin has changed, is gone or held, and is out
 * of the unstable tree then. -EAGAIN: it has another content. -EDOM: another key,
 * which is as brief. -EEXIST: it is the same page, shared by fork. -EBUSY,
 * -ENOMEM: not now.
 */
static int sp_merge_twins(struct sp_item *item, u32 twin, const struct sp_key *key)
{
	struct sp_block *block = sp_block_of(twin);
	unsigned int index = sp_page_index(twin);
	struct sp_stable *stable = sp_stable_alloc(key);
	struct sp_item *twin_item = stable ? sp_item_new(block, index) : NULL;
	struct page *page = NULL;
	int err = -ENOMEM;

	if (!twin_item)
		goto free;
	err = -EBUSY;
	page = sp_hold_page(sp_item_mm(item), sp_item_address(item),
			    sp_page_at(sp_item_mm(twin_item), sp_item_address(twin_item)));
	if (!page)
		goto free;
	err = sp_make_stable(stable, twin_item, page);
	put_page(page);
	if (err == -EBUSY) {
		/* Somebody holds it: others of its content go without. */
		sp_slot_changed(block, index);
		err = -ENOENT;
	}
	if (err)
		goto free;
	sp_stable_insert(stable);
	err = sp_merge_into(stable, item);
	sp_count_merge(err);
	if (err) {
		/* One sharer alone saves nothing. */
		if (sp_is_sharer(block, index))
			sp_unmerge_lone(block, index);
		return -EBUSY;
	}
	return 0;
free:
	if (stable)
		sp_stable_free_unused(stable);
	if (twin_item)
		sp_item_free(twin_item);
	if ((err == -ESTALE || err == -ENOENT) && (block->candidates & BIT_ULL(index))) {
		sp_stats.stale_candidates++;
		sp_slot_changed(block, index);
	}
	return err;
}

/* @twin is a candidate for others, too, that map its page by fork. */
static void sp_note_forked(u32 twin)
{
	sp_block_of(twin)->forked |= BIT_ULL(sp_page_index(twin));
}

/* @twin is part of a huge page, and has a twin. */
static void sp_note_twinned(u32 twin)
{
	sp_block_of(twin)->twinned |= BIT_ULL(sp_page_index(twin));
}

/* Is this what sp_merge_twins() says of a twin that is none, so that others may be? */
static bool sp_is_no_twin(int err)
{
	return err == -EAGAIN || err == -ESTALE || err == -ENOENT || err == -EDOM;
}

/*
 * Merge with a candidate of the same content. -ESRCH where there is none; else 0
 * or as sp_merge_twins().
 */
static noinline int sp_try_twins(struct sp_block *block, unsigned int index,
				 const struct sp_key *key, u32 next)
{
	struct sp_item *item = sp_item_new(block, index);
	u32 signature = sp_brief(key), twin;
	int tries, err = -ESRCH;
	bool unlike = false;

	if (!item)
		return -ENOMEM;
	for (tries = 0; next && tries < SP_TWINS_TRIED; ) {
		twin = next;
		next = sp_unstable_find(signature, key->domain, twin);
		if (sp_block_of(twin)->spared) {
			sp_note_twinned(twin);
			continue;
		}
		tries++;
		err = sp_merge_twins(item, twin, key);
		if (err == -EEXIST)
			sp_note_forked(twin);
		if (err == -EAGAIN) {
			unlike = true;
			/* It is signed in full at its next scan. */
			if (!key->full)
				sp_slot_changed(sp_block_of(twin), sp_page_index(twin));
		}
		if (!sp_is_no_twin(err))
			break;
	}
	sp_item_settle(item);
	if (unlike && !key->full) {
		sp_note_crowded(key->signature);
		return err ? -EBUSY : 0;
	}
	return sp_is_no_twin(err) ? -ESRCH : err;
}

/*
 * Look for a candidate of the same content; become one where there is none.
 * @signature: the brief key.
 */
static void sp_try_unstable(struct sp_block *block, unsigned int index,
			    const struct sp_key *key, u32 signature)
{
	u32 twin = sp_unstable_find(signature, key->domain, 0);
	int err = twin ? sp_try_twins(block, index, key, twin) : -ESRCH;

	if (err == -ESRCH)
		sp_unstable_insert(block, index, signature);
	if (err == -ESRCH || err == -EEXIST)
		sp_slot_settle(block, index);
}

/* Map the zero page instead. False when the page may still find a twin. */
static noinline bool sp_try_zero(struct sp_block *block, unsigned int index)
{
	unsigned long addr = sp_slot_address(block, index);
	int err = sp_merge_zero(block->owner->mm, addr, &block->slot[index]);

	if (err == -EAGAIN) {
		sp_note_crowded(sp_zero_sample);
		return false;
	}
	sp_count_merge(err);
	if (!err)
		sp_slot_clear(block, index);
	return true;
}

/* Candidates other than @found itself, mapped elsewhere by fork: the first, or 0. */
static u32 sp_other_candidate(const struct sp_found *found, const struct sp_key *key,
			      u32 *forked)
{
	u32 signature = sp_brief(key), twin = 0;
	int tries;

	for (tries = 0; tries < SP_TWINS_TRIED; tries++) {
		struct sp_block *block;
		struct page *page;

		twin = sp_unstable_find(signature, key->domain, twin);
		if (!twin)
			break;
		block = sp_block_of(twin);
		page = sp_page_at(block->owner->mm, sp_slot_address(block, sp_page_index(twin)));
		if (page && page != found->page)
			return twin;
		if (page)
			*forked = twin;
	}
	return 0;
}

/*
 * Are as many parts of spared huge pages filed under @key as are of use? More of
 * them, empty ones above all, would only make its list long. One that is left out
 * has its twin noted, and is tried as soon as it may be merged.
 */
static bool sp_enough_parts(const struct sp_key *key)
{
	u32 signature = sp_brief(key), page = 0;
	unsigned int parts = 0;

	while ((page = sp_unstable_find(signature, key->domain, page)))
		parts += sp_block_of(page)->spared;
	return parts >= SP_PARTS_FILED;
}

/* Part of a huge page that is not to be split (yet): note whether it has a twin. */
static noinline void sp_note_part(const struct sp_found *found, const struct sp_key *key)
{
	struct sp_block *block = found->block;
	u32 own = sp_page_number(block, found->index), forked = 0, twin;

	if (!found->crowded && sp_crowded(found->sample))
		return;		/* since it was read: next time */
	block->twinned &= ~BIT_ULL(found->index);
	twin = sp_other_candidate(found, key, &forked);
	if (twin && sp_block_of(twin)->spared)
		sp_note_twinned(twin);
	if (twin || sp_stable_find(key) ||
	    (sp_tunables.use_zero_pages && found->sample == sp_zero_sample))
		sp_note_twinned(own);
	if (forked && !twin)
		sp_note_forked(forked);
	else if (!twin || !sp_enough_parts(key))
		sp_unstable_insert(block, found->index, sp_brief(key));
	sp_slot_settle(block, found->index);
}

/* Share a merged page that was filed before the sample was crowded. As sp_try_stable(). */
static int sp_try_sampled(const struct sp_found *found, struct sp_key key)
{
	key.signature = found->sample;
	key.full = false;
	return sp_try_stable(found->block, found->index, &key);
}

/* A page that stayed the same for a pass: look for its twin. @signature: the brief key. */
static void sp_merge_page(const struct sp_found *found, const struct sp_key *key,
			  u32 signature)
{
	struct sp_block *block = found->block;

	if (block->spared) {
		sp_note_part(found, key);
		return;
	}
	if (sp_tunables.use_zero_pages && found->sample == sp_zero_sample &&
	    sp_try_zero(block, found->index))
		return;
	if (key->full && sp_try_sampled(found, *key) != -ESRCH)
		return;
	if (sp_try_stable(block, found->index, key) != -ESRCH)
		return;
	/* What was found to be crowded just now is signed in full next time. */
	if (key->full || !sp_crowded(found->sample))
		sp_try_unstable(block, found->index, key, signature);
}

/* A merged page that nobody shared is shared again: its equals may join. */
static void sp_unsettle_equals(const struct sp_key *key)
{
	u32 page;

	while ((page = sp_unstable_find(sp_brief(key), key->domain, 0)))
		sp_slot_changed(sp_block_of(page), sp_page_index(page));
}

/*
 * A merged page that came here by fork, or was out in swap: note that it is
 * shared here, too.
 */
static noinline void sp_adopt_sharer(struct sp_found *found)
{
	struct sp_item *item;
	bool revived;

	sp_slot_unfile(found->block, found->index);
	item = sp_item_new(found->block, found->index);
	revived = !found->stable->nr_sharers;
	if (item && sp_merge_into(found->stable, item))
		sp_item_free(item);
	else if (item && revived)
		sp_unsettle_equals(&found->stable->key);
	put_page(found->page);
}

/* An unchanged page: file it, unless it is filed already. */
static void sp_file_page(struct sp_batch *batch, struct sp_found *found)
{
	struct sp_block *block = found->block;
	union sp_slot *slot = &block->slot[found->index];
	struct sp_key key = sp_found_key(found);
	u32 signature = sp_brief(&key);
	bool filed = block->candidates & BIT_ULL(found->index);

	/* A candidate may have become its twin's since it was collected. */
	if (sp_is_sharer(block, found->index))
		return;
	if (filed && slot->signature == signature && !batch->reexamine)
		return;
	if (filed || !(block->tracked & BIT_ULL(found->index)))
		sp_slot_changed(block, found->index);
	else
		block->settled &= ~BIT_ULL(found->index);
	if (!batch->by_dirty && slot->signature != signature) {
		/* Nothing but this tells whether it changes: wait for a pass. */
		slot->signature = signature;
		return;
	}
	sp_merge_page(found, &key, signature);
}

/* Deal with one page of a batch. */
void sp_match_page(struct sp_batch *batch, struct sp_found *found)
{
	switch (found->todo) {
	case SP_TODO_SIGN:
		sp_file_page(batch, found);
		break;
	case SP_TODO_ADOPT:
		sp_adopt_sharer(found);
		break;
	case SP_TODO_LOST:
		sp_slot_unfile(found->block, found->index);
		break;
	case SP_TODO_GONE:
		sp_slot_clear(found->block, found->index);
		break;
	}
}
