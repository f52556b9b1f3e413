// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finding a page its twin: the zero page, a merged page, or a candidate.
 *
 * Only a page that kept its content for a pass is tried. A page is *settled*
 * once there is nothing left to do about it: merged, or a candidate, or the page
 * of a candidate that is mapped here too, by fork, until that candidate is one
 * no more. What could not be done because somebody held the page is tried again
 * at the next pass.
 *
 * A page is tried under `merging` of its key's stripe: of equal pages one at a time
 * looks for the others, and each finds those before it, candidates or merged. The
 * `records` of its space are held. What most pages never come to is kept out of
 * line: what they do come to fits the registers then.
 */
#include "batch.h"
#include "contents.h"

/* What a page of @space with this key is tried under. Out of line: one scanner alone takes no lock. */
static noinline void sp_trial_lock_shared(struct sp_space *space, u32 signature)
{
	struct sp_stripe *stripe = sp_stripe_of(signature);

	sp_count_wait(mutex_is_locked(&stripe->merging));
	mutex_lock(&stripe->merging);
	sp_records_lock(space);
}

static noinline void sp_trial_unlock_shared(struct sp_space *space, u32 signature)
{
	mutex_unlock(&space->records);
	mutex_unlock(&sp_stripe_of(signature)->merging);
}

static inline void sp_trial_lock(struct sp_space *space, u32 signature)
{
	if (sp_is_parallel())
		sp_trial_lock_shared(space, signature);
}

static inline void sp_trial_unlock(struct sp_space *space, u32 signature)
{
	if (sp_is_parallel())
		sp_trial_unlock_shared(space, signature);
}

static noinline void sp_special_key(const struct sp_found *found, struct sp_key *key)
{
	if (found->special & SP_CROWDED) {
		key->signature = found->full;
		key->full = true;
	}
	if (found->special & SP_COMMON)
		key->domain = SP_EVERYBODY;
}

/* What is known of the content of a page that was read. */
static inline struct sp_key sp_found_key(const struct sp_found *found)
{
	struct sp_key key = {
		.signature = found->sample,
		.domain = found->block->owner->domain,
		.nid = found->nid,
	};

	if (unlikely(found->special))
		sp_special_key(found, &key);
	return key;
}

/* As sp_try_stable(), from the node @stable on, which is held. */
static noinline int sp_try_stable_from(struct sp_stable *stable, struct sp_block *block,
				       unsigned int index, const struct sp_key *key)
{
	struct sp_item *item = sp_item_new(block, index);
	bool unlike = false;

	if (!item) {
		sp_stable_put(stable);
		return -ENOMEM;
	}
	while (stable) {
		int err;

		if (stable->timing_safe != sp_timing_safe(block->owner)) {
			/* A fork of before a change has it yet. */
			stable = sp_stable_next(stable);
			continue;
		}
		err = sp_find_frame(stable) ? sp_merge_into(stable, item) : -EBUSY;
		if (err == -ESTALE) {
			sp_stable_put(stable);
			stable = sp_stable_find(sp_stripe_of(sp_brief(key)), key);
		} else if (err == -EAGAIN) {
			unlike = true;
			stable = sp_stable_next(stable);
		} else {
			sp_stable_put(stable);
			sp_count_merge(err);
			if (err)
				sp_item_free(item);
			return err;
		}
	}
	sp_item_free(item);
	if (unlike && !key->full) {
		sp_note_crowded(key->signature);
		return -EAGAIN;
	}
	return -ESRCH;
}

/*
 * Share a merged page of this content. 0 or an errno of sp_merge_into(), -ENOENT
 * excepted: -ESRCH when there is none, -EAGAIN when there is one of another content
 * that looks alike: the page is signed in full next time.
 */
static int sp_try_stable(struct sp_block *block, unsigned int index,
			 const struct sp_key *key, u32 signature)
{
	struct sp_stable *stable = sp_stable_find(sp_stripe_of(signature), key);

	return stable ? sp_try_stable_from(stable, block, index, key) : -ESRCH;
}

/*
 * Become a candidate, or merge with one of the same content.
 * @signature: the brief key.
 */
static void sp_try_unstable(struct sp_block *block, unsigned int index,
			    const struct sp_key *key, u32 signature)
{
	int err;

	if (sp_unstable_file(block, index, signature)) {
		sp_slot_settle(block, index);
		return;
	}
	err = sp_try_twins(block, index, key, signature);
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

/* A page that stayed the same for a pass: look for its twin. @signature: the brief key. */
static void sp_merge_page(const struct sp_found *found, const struct sp_key *key,
			  u32 signature)
{
	struct sp_block *block = found->block;

	if (block->spared && found->special & SP_COMMON) {
		/* Worth a split whoever else has it, which is nobody's to know. */
		block->twinned |= sp_bit(found->index);
		sp_slot_settle(block, found->index);
		return;
	}
	if (block->spared) {
		sp_note_part(found, key, signature);
		return;
	}
	if (sp_try_stable(block, found->index, key, signature) != -ESRCH)
		return;
	if (unlikely(found->special & SP_ALONE))
		sp_merge_alone(found, key);
	else
		sp_try_unstable(block, found->index, key, signature);
}

/*
 * Share a merged page that was filed before the sample was crowded: its key belongs
 * to another stripe. Where there is none, candidates that were filed then, and did not
 * hear of it, are signed anew at their next visit. True if there is nothing else to do
 * about the page.
 */
static noinline bool sp_share_sampled(const struct sp_found *found)
{
	struct sp_key key = sp_found_key(found);
	struct sp_block *block = found->block;
	bool none = true;
	u32 signature;
	int err;

	key.signature = found->sample;
	key.full = false;
	signature = sp_brief(&key);
	sp_trial_lock(block->owner, signature);
	if (!block->spared) {
		err = sp_try_stable(block, found->index, &key, signature);
		none = err == -ESRCH || err == -EAGAIN;
	}
	if (none)
		sp_unsettle_equals(&key, block->owner);
	sp_trial_unlock(block->owner, signature);
	return !none;
}

/* May the space have the merged page, which came to it by a fork or out of swap? */
static bool sp_may_share(const struct sp_space *space, const struct sp_found *found)
{
	const struct sp_stable *stable = found->stable;

	if (stable->timing_safe != sp_timing_safe(space))
		return false;
	if (stable->key.domain != SP_EVERYBODY)
		return stable->key.domain == space->domain;
	return sp_is_common(found->page, sp_sample(found->page));
}

/* A merged page of another domain, come by a fork before its process changed sides: it is shared no more. */
static noinline void sp_refuse_sharer(struct sp_found *found)
{
	struct sp_space *own = found->block->owner;

	put_page(found->page);
	sp_records_lock(own);
	sp_slot_unfile(found->block, found->index);
	sp_break_cow(own->mm, sp_slot_address(found->block, found->index));
	sp_records_unlock(own);
}

/*
 * A merged page that came here by fork, or was out in swap: note that it is
 * shared here, too. Its node lives as long as the page, which the batch holds.
 */
static noinline void sp_adopt_sharer(struct sp_found *found)
{
	struct sp_space *own = found->block->owner;
	struct sp_stable *stable = found->stable;
	u32 signature = sp_brief(&stable->key);
	struct sp_item *item;
	bool revived;

	sp_trial_lock(own, signature);
	sp_slot_unfile(found->block, found->index);
	item = sp_item_new(found->block, found->index);
	revived = !stable->nr_sharers;
	if (item && sp_merge_into(stable, item))
		sp_item_free(item);
	else if (item && revived)
		sp_unsettle_equals(&stable->key, own);
	sp_trial_unlock(own, signature);
	put_page(found->page);
}

/* Is there nothing to do about an unchanged page, for now? If there is, it is out of both trees. */
static bool sp_is_filed(const struct sp_batch *batch, const struct sp_found *found,
			u32 signature)
{
	struct sp_block *block = found->block;
	union sp_slot *slot = sp_slot_of(block, found->index);
	bool filed = block->candidates & sp_bit(found->index);

	/* A candidate may have become its twin's since it was collected. */
	if (sp_is_sharer(block, found->index))
		return true;
	if (filed && slot->signature == signature && !batch->reexamine)
		return true;
	if (filed || !(block->tracked & sp_bit(found->index)))
		sp_slot_changed(block, found->index);
	else
		block->settled &= ~sp_bit(found->index);
	if (!batch->by_dirty && slot->signature != signature) {
		/* Nothing but this tells whether it changes: wait for a pass. */
		slot->signature = signature;
		return true;
	}
	return false;
}

/* An unchanged page: file it, unless it is filed already. */
static void sp_file_page(struct sp_batch *batch, struct sp_found *found)
{
	struct sp_key key = sp_found_key(found);
	u32 signature = sp_brief(&key);
	bool done;

	sp_trial_lock(batch->space, signature);
	done = sp_is_filed(batch, found, signature) ||
	       (READ_ONCE(sp_tunables.use_zero_pages) && found->sample == sp_zero_sample &&
		!found->block->spared && sp_try_zero(found->block, found->index));
	if (!done && key.full) {
		/* Of one stripe at a time. Nobody else comes by the page: it is in no tree. */
		sp_trial_unlock(batch->space, signature);
		done = sp_share_sampled(found);
		sp_trial_lock(batch->space, signature);
	}
	if (!done)
		sp_merge_page(found, &key, signature);
	sp_trial_unlock(batch->space, signature);
}

/* Deal with one page of a batch. */
void sp_match_page(struct sp_batch *batch, struct sp_found *found)
{
	switch (found->todo) {
	case SP_TODO_SIGN:
		sp_file_page(batch, found);
		break;
	case SP_TODO_ADOPT:
		if (sp_may_share(batch->space, found))
			sp_adopt_sharer(found);
		else
			sp_refuse_sharer(found);
		break;
	case SP_TODO_LOST:
		atomic_long_inc(&batch->space->home->copies);
		sp_records_lock(batch->space);
		sp_slot_unfile(found->block, found->index);
		sp_records_unlock(batch->space);
		break;
	case SP_TODO_GONE:
		sp_records_lock(batch->space);
		sp_slot_clear(found->block, found->index);
		sp_records_unlock(batch->space);
		break;
	}
}
