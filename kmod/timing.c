// SPDX-License-Identifier: GPL-2.0-only
/*
 * Timing-safe merging: how long it takes to write to a page, or to unmap it, does not
 * tell whether anybody has its equal.
 *
 * Every page that stayed the same for a pass becomes a merged page where it is, whether
 * it has a twin or not. So each of them is copied at its next write. Before its first
 * equal comes to it, it moves to a frame that is chosen at random: neither decides where
 * their content lies. The module keeps each such page by a mapping of nobody's, with a
 * reference: there is always one mapping more, and whoever writes or unmaps is never
 * the last one. The scanner lets go of a page when it finds that nobody else maps it,
 * and so does reclaim.
 *
 * Who wants a frame unmapped (reclaim, migration, memory failure) walks its reverse
 * map, with an end (`done`): it is let go of then, and kept again by the next walk of
 * another kind, as there is one when migration puts the entries back.
 *
 * sp_stable.kept changes under the folio lock, sp_stable.in_place under `merging`.
 */
#include <linux/cpu.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/pagemap.h>
#include <linux/preempt.h>
#include <linux/rmap.h>

#include "batch.h"
#include "control.h"

DEFINE_STATIC_KEY_FALSE(sp_timing_on);

/* Whose mapping it is that keeps a frame: in no address space. */
static struct vm_area_struct sp_nobody;

/* Map the merged page of a node that is to be kept once more. Needs the folio lock. */
void sp_keep(struct sp_stable *stable, struct folio *folio)
{
	if (!stable->timing_safe || stable->kept || folio_test_hwpoison(folio))
		return;
	folio_get(folio);
	preempt_disable();		/* as a page-table lock would: the kernel counts by CPU */
	folio_add_anon_rmap_pte(folio, folio_page(folio, 0), &sp_nobody, 0, RMAP_NONE);
	preempt_enable();
	stable->kept = true;
	sp_count(kept);
}

/* Needs the folio lock and a reference. */
void sp_unkeep(struct sp_stable *stable, struct folio *folio)
{
	if (!stable->kept)
		return;
	stable->kept = false;
	preempt_disable();
	folio_remove_rmap_pte(folio, folio_page(folio, 0), &sp_nobody);
	preempt_enable();
	folio_put(folio);
	sp_uncount(kept);
}

/* The same, if nobody else maps it. */
void sp_unkeep_unmapped(struct sp_stable *stable, struct folio *folio)
{
	if (stable->kept && folio_mapcount(folio) == 1)
		sp_unkeep(stable, folio);
}

/*
 * Let go of what the node keeps, or only if nobody else maps it. For that its folio is not
 * waited for: whoever has it locked may be waiting for the memory. True if it was let go of.
 */
static bool sp_unkeep_node(struct sp_stable *stable, bool all)
{
	struct folio *folio;
	bool done = false;

	if (all)
		folio = sp_stable_folio_try(stable);
	else
		folio = sp_stable_folio_get(stable);
	if (!folio)
		return false;
	if (all || folio_trylock(folio)) {
		if (all)
			sp_unkeep(stable, folio);
		else if (sp_folio_stable(folio) == stable)
			sp_unkeep_unmapped(stable, folio);
		done = !stable->kept;
		folio_unlock(folio);
	}
	folio_put(folio);
	return done;
}

/* The same for all nodes of a stripe. Returns how many were let go of. */
static unsigned long sp_unkeep_stripe(struct sp_stripe *stripe, bool all)
{
	struct sp_stable *stable;
	unsigned long count = 0;

	sp_for_each_stable(stable, stripe) {
		count += stable->kept && sp_unkeep_node(stable, all);
		cond_resched();
	}
	return count;
}

/* Before all is unmerged. Needs sp_scan_lock for writing. */
void sp_unkeep_all(void)
{
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe)
		sp_unkeep_stripe(stripe, true);
	sp_frames_drop();
}

/* What was let go of for unmerging, which then failed, is kept again. Needs sp_scan_lock for writing. */
void sp_keep_all(void)
{
	struct sp_stripe *stripe;
	struct sp_stable *stable;
	struct folio *folio;

	sp_for_each_stripe(stripe) {
		sp_for_each_stable(stable, stripe) {
			cond_resched();
			if (!stable->timing_safe || stable->kept)
				continue;
			folio = sp_stable_folio_try(stable);
			if (!folio)
				continue;
			if (folio_mapped(folio))
				sp_keep(stable, folio);
			folio_unlock(folio);
			folio_put(folio);
		}
	}
}

/*
 * The page of a node that lies where its only sharer had it moves, before another one
 * comes. False when it cannot, as somebody holds it. Under `merging` of its stripe.
 */
bool sp_find_frame(struct sp_stable *stable)
{
	struct folio *folio;

	if (!stable->in_place)
		return true;
	folio = sp_stable_folio_get(stable);
	if (folio)	/* else it is stale, which whoever shares it finds */
		stable->in_place = !sp_move_folio(folio, sp_frame_get);
	return !folio || !stable->in_place;
}

/*
 * A page that stayed the same, and has no twin: it becomes a merged page with one
 * sharer. Under `merging` of the key's stripe, with the records of the page's space.
 */
void sp_merge_alone(const struct sp_found *found, const struct sp_key *key)
{
	struct sp_stable *stable = sp_stable_alloc(key);
	struct sp_item *item = stable ? sp_item_new(found->block, found->index) : NULL;
	int err = -ENOMEM;

	if (item) {
		stable->timing_safe = sp_timing_safe(found->block->owner);
		stable->in_place = true;
		err = sp_make_stable(stable, item, NULL);
	}
	if (!err) {
		sp_stable_insert(stable);
		return;
	}
	if (item)
		sp_item_free(item);
	if (stable)
		sp_stable_free_unused(stable);
}

/*
 * For all domains from now on, or no more. What is merged was merged otherwise: it is unmerged first.
 * 0, or an errno when that could not be done: it is off then.
 */
int sp_timing_set(bool on)
{
	int err = 0;

	/* In this order: memory goes offline under it, too, and waits for sp_scan_lock. */
	cpus_read_lock();
	sp_scan_lock_all();
	if (on != sp_all_timing_safe()) {
		set_current_oom_origin();
		static_branch_disable_cpuslocked(&sp_timing_on);
		err = sp_unmerge_registered();
		if (on && !err)
			static_branch_enable_cpuslocked(&sp_timing_on);
		clear_current_oom_origin();
	}
	up_write(&sp_scan_lock);
	cpus_read_unlock();
	return err;
}

static unsigned long sp_kept_count(struct shrinker *shrinker, struct shrink_control *control)
{
	return (sp_counted(kept) ?: sp_frames_held()) ?: SHRINK_EMPTY;
}

/*
 * Memory is short: the next stripe's frames that nobody maps any more are free sooner, and so
 * are those to choose from, where nothing is timing-safe.
 */
static unsigned long sp_kept_scan(struct shrinker *shrinker, struct shrink_control *control)
{
	static unsigned int next;
	unsigned long freed;

	/* Whoever works with the trees may be just the one that needs memory. */
	if (!down_write_trylock(&sp_scan_lock))
		return SHRINK_STOP;
	if (sp_scan_is_offlining()) {
		up_write(&sp_scan_lock);
		return SHRINK_STOP;
	}
	freed = sp_unkeep_stripe(&sp_stripes[next++ % SP_STRIPES], false);
	if (!sp_counted(kept)) {
		freed += sp_frames_held();
		sp_frames_drop();
	}
	up_write(&sp_scan_lock);
	return freed;
}

int sp_timing_init(void)
{
	return sp_shrinker_register(sp_kept_count, sp_kept_scan);
}

void sp_timing_exit(void)
{
	sp_shrinker_unregister();
	sp_frames_destroy();
}
