// SPDX-License-Identifier: GPL-2.0-only
/*
 * Twins: candidates of the same content, in this address space or another one.
 *
 * A candidate that was found is kept by a reference to its space and its address.
 * When its turn comes, the records of its space are taken beside those of the page
 * that it was found for, and it is looked up anew. Where the order of locks asks for
 * it, the page's own records are dropped for that: nobody else comes by the page, as
 * it is in no tree, and its block stays, as its scanner has the space in hand.
 */
#include "batch.h"

/* Candidates of one key that are tried for a page. */
#define SP_TWINS_TRIED 4

/* Parts of spared huge pages that are filed under one key. */
#define SP_PARTS_FILED 4

/* Undo the merge of one page, which nobody shares. */
static void sp_unmerge_lone(struct sp_block *block, unsigned int index)
{
	sp_break_cow(block->owner->mm, sp_slot_address(block, index));
	sp_slot_unfile(block, index);
}

/* An item of a page that is in no tree is of no use. */
static void sp_item_settle(struct sp_item *item)
{
	struct sp_block *block = sp_sharer_block(item->page);
	unsigned int index = sp_page_index(item->page);

	if (!sp_is_sharer(block, index) || block->slot[index].item != item)
		sp_item_free(item);
}

/* Let go of what sp_twin_lock() took. */
static void sp_twin_unlock(const struct sp_twin *twin, struct sp_space *own)
{
	if (own == twin->space || !sp_is_parallel())
		return;
	mutex_unlock(&twin->space->records);
	/* It may have been the second one that was taken; to lockdep it is the first again. */
	lock_set_subclass(&own->records.dep_map, 0, _THIS_IP_);
}

/*
 * Take the records of a twin's space beside those of @own, and look the twin up:
 * its block, NULL (and nothing taken) when it is no candidate of that key any more.
 */
static struct sp_block *sp_twin_lock(const struct sp_twin *twin, struct sp_space *own,
				     u32 signature)
{
	unsigned int index = sp_index(twin->addr);
	struct sp_space *space = twin->space;
	struct sp_block *block;

	if (sp_is_parallel() && own < space) {
		sp_count_wait(mutex_is_locked(&space->records));
		mutex_lock_nested(&space->records, SINGLE_DEPTH_NESTING);
	} else if (sp_is_parallel() && own > space && !mutex_trylock(&space->records)) {
		sp_count_wait(true);
		mutex_unlock(&own->records);
		mutex_lock(&space->records);
		mutex_lock_nested(&own->records, SINGLE_DEPTH_NESTING);
	}
	/* The space may have moved to another domain meanwhile. */
	block = space->domain == own->domain ? sp_block_find(space, twin->addr) : NULL;
	if (block && (block->candidates & sp_bit(index)) &&
	    block->slot[index].signature == signature)
		return block;
	sp_twin_unlock(twin, own);
	return NULL;
}

static void sp_twins_put(const struct sp_twin *twins, unsigned int count)
{
	while (count--)
		sp_space_put(twins[count].space);
}

/*
 * Merge the page of @item with a candidate, its twin, whose page becomes the merged
 * one. -ESTALE, -ENOENT: the twin has changed, is gone or held, and is out of the
 * unstable tree then. -EAGAIN: it has another content. -EDOM: another key, which is
 * as brief. -EEXIST: it is the same page, shared by fork. -EBUSY, -ENOMEM: not now.
 */
static int sp_merge_twins(struct sp_item *item, struct sp_block *block, unsigned int index,
			  const struct sp_key *key)
{
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
	stable->holds = 1;
	sp_stable_insert(stable);
	err = sp_merge_into(stable, item);
	sp_stable_put(stable);
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
	if ((err == -ESTALE || err == -ENOENT) && (block->candidates & sp_bit(index))) {
		sp_count(stale_candidates);
		sp_slot_changed(block, index);
	}
	return err;
}

/* Is this what sp_merge_twins() says of a twin that is none, so that others may be? */
static bool sp_is_no_twin(int err)
{
	return err == -EAGAIN || err == -ESTALE || err == -ENOENT || err == -EDOM;
}

/*
 * As sp_merge_twins(), of a candidate that was found, with what it tells of it. -EXDEV:
 * it is a part of a huge page that is spared, and only noted to have a twin.
 */
static int sp_try_twin(struct sp_item *item, const struct sp_twin *twin,
		       const struct sp_key *key, u32 signature)
{
	struct sp_space *own = sp_sharer_block(item->page)->owner;
	struct sp_block *block = sp_twin_lock(twin, own, signature);
	unsigned int index = sp_index(twin->addr);
	int err = -ENOENT;

	if (!block)
		return err;
	if (block->spared) {
		block->twinned |= sp_bit(index);
		err = -EXDEV;
	} else {
		err = sp_merge_twins(item, block, index, key);
		if (err == -EEXIST)
			block->forked |= sp_bit(index);	/* it stands for both */
		else if (err == -EAGAIN && !key->full)
			sp_slot_changed(block, index);	/* signed in full at its next scan */
	}
	sp_twin_unlock(twin, own);
	return err;
}

/*
 * Merge with a candidate of the same content. -ESRCH where there is none; else 0
 * or as sp_merge_twins().
 */
int sp_try_twins(struct sp_block *block, unsigned int index, const struct sp_key *key,
		 u32 signature)
{
	struct sp_twin twins[SP_TWINS_TRIED + SP_PARTS_FILED];
	struct sp_item *item = sp_item_new(block, index);
	unsigned int i, tries = 0, count;
	bool unlike = false;
	int err = -ESRCH;

	if (!item)
		return -ENOMEM;
	count = sp_unstable_twins(signature, key->domain, twins, ARRAY_SIZE(twins),
				  SP_PARTS_FILED);
	for (i = 0; i < count && tries < SP_TWINS_TRIED; i++) {
		int tried = sp_try_twin(item, &twins[i], key, signature);

		if (tried == -EXDEV)
			continue;
		tries++;
		err = tried;
		unlike |= err == -EAGAIN;
		if (!sp_is_no_twin(err))
			break;
	}
	sp_twins_put(twins, count);
	sp_item_settle(item);
	if (unlike && !key->full) {
		sp_note_crowded(key->signature);
		return err ? -EBUSY : 0;
	}
	return sp_is_no_twin(err) ? -ESRCH : err;
}

/* A candidate, part of a huge page, has a twin. */
static void sp_note_twinned(const struct sp_twin *twin, struct sp_space *own, u32 signature)
{
	struct sp_block *block = sp_twin_lock(twin, own, signature);

	if (!block)
		return;
	block->twinned |= sp_bit(sp_index(twin->addr));
	sp_twin_unlock(twin, own);
}

/* A candidate stands for others, too, that map its page by fork; false if it is none any more. */
static bool sp_note_forked(const struct sp_twin *twin, struct sp_space *own, u32 signature)
{
	struct sp_block *block = sp_twin_lock(twin, own, signature);

	if (!block)
		return false;
	block->forked |= sp_bit(sp_index(twin->addr));
	sp_twin_unlock(twin, own);
	return true;
}

/* Is there an open merged page of this key? */
static bool sp_is_merged(const struct sp_key *key, u32 signature)
{
	struct sp_stable *stable = sp_stable_find(sp_stripe_of(signature), key);

	if (stable)
		sp_stable_put(stable);
	return stable;
}

/*
 * Part of a huge page that is not to be split (yet): note whether it has a twin.
 * As many parts as are of use are filed under one key. More of them, empty ones
 * above all, would only make its list long: one that is left out has its twin noted,
 * and is tried as soon as it may be merged.
 */
void sp_note_part(const struct sp_found *found, const struct sp_key *key, u32 signature)
{
	struct sp_twin twins[SP_TWINS_TRIED + SP_PARTS_FILED], *other = NULL, *same = NULL;
	struct sp_block *block = found->block;
	unsigned int i, count, parts = 0;
	u64 own = sp_bit(found->index);

	if (!(found->special & SP_CROWDED) && sp_crowded(found->sample))
		return;		/* since it was read: next time */
	count = sp_unstable_twins(signature, key->domain, twins, ARRAY_SIZE(twins),
				  SP_PARTS_FILED);
	for (i = 0; i < count; i++) {
		struct page *page;

		parts += twins[i].spared;
		if (other)
			continue;
		page = sp_page_at(twins[i].space->mm, twins[i].addr);
		if (page == found->page)
			same = &twins[i];
		else if (page)
			other = &twins[i];
	}
	if (other && other->spared)
		sp_note_twinned(other, block->owner, signature);
	if (other || sp_is_merged(key, signature) ||
	    (READ_ONCE(sp_tunables.use_zero_pages) && found->sample == sp_zero_sample))
		block->twinned |= own;
	else
		block->twinned &= ~own;
	if (other ? parts < SP_PARTS_FILED :
		    !same || !sp_note_forked(same, block->owner, signature))
		sp_unstable_insert(block, found->index, signature);
	sp_twins_put(twins, count);
	sp_slot_settle(block, found->index);
}

/* A merged page that nobody shared is shared again: its equals may join. */
void sp_unsettle_equals(const struct sp_key *key, struct sp_space *own)
{
	u32 signature = sp_brief(key);
	struct sp_twin twin;

	while (sp_unstable_twins(signature, key->domain, &twin, 1, 1)) {
		struct sp_block *block = sp_twin_lock(&twin, own, signature);

		if (block) {
			sp_slot_changed(block, sp_index(twin.addr));
			sp_twin_unlock(&twin, own);
		}
		sp_space_put(twin.space);
	}
}
