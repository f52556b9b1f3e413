// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the rest of mm asks of a merged page: who maps it (swap, migration,
 * memory failure), where it moved, and whether it may be mapped again as it is.
 *
 * Callers hold the folio lock, which keeps the list of sharers as it is.
 * Processes that were forked since the last scan have no item of their own:
 * they are found through the reverse map of the process they came from.
 */
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>

#include "samepage.h"

enum sp_walk { SP_WALK_ON, SP_WALK_DONE };

static bool sp_lock_anon_vma(struct anon_vma *anon_vma,
			     struct rmap_walk_control *rwc)
{
	if (anon_vma_trylock_read(anon_vma))
		return true;
	if (rwc->try_lock) {
		rwc->contended = true;
		return false;
	}
	anon_vma_lock_read(anon_vma);
	return true;
}

/*
 * Visit the mappings of one sharer: its own, or with @forks those of processes
 * forked from it.
 */
static enum sp_walk sp_walk_sharer(struct folio *folio, struct sp_item *item,
				   struct rmap_walk_control *rwc, bool forks)
{
	struct anon_vma *anon_vma = item->anon_vma;
	unsigned long addr = sp_item_address(item);
	enum sp_walk walk = SP_WALK_ON;
	struct anon_vma_chain *vmac;
	pgoff_t first, last;

	sp_item_pgoff(item, &first, &last);
	if (!sp_lock_anon_vma(anon_vma, rwc))
		return SP_WALK_DONE;
	anon_rmap_tree_foreach(vmac, anon_vma, first, last) {
		struct vm_area_struct *vma = vmac->vma;
		bool own;

		cond_resched();
		if (addr < vma->vm_start || addr >= vma->vm_end)
			continue;
		own = vma->vm_mm == sp_item_mm(item);
		if (own == forks)
			continue;
		if (rwc->invalid_vma && rwc->invalid_vma(vma, rwc->arg))
			continue;
		if (!rwc->rmap_one(folio, vma, addr, rwc->arg) ||
		    (rwc->done && rwc->done(folio))) {
			walk = SP_WALK_DONE;
			break;
		}
	}
	anon_vma_unlock_read(anon_vma);
	return walk;
}

/*
 * The sharers themselves first; what is left is looked for in their forks. Changes
 * nothing by itself. The folio is locked.
 */
void sp_walk_sharers(struct folio *folio, struct sp_stable *stable,
		     struct rmap_walk_control *rwc)
{
	struct sp_item *item;
	int forks;

	for (forks = 0; forks < 2; forks++) {
		sp_for_each_sharer(item, stable) {
			cond_resched();
			if (sp_walk_sharer(folio, item, rwc, forks) == SP_WALK_DONE)
				return;
		}
	}
}

void sp_hook_rmap_walk(struct folio *folio, struct rmap_walk_control *rwc)
{
	struct sp_stable *stable = sp_folio_stable(folio);

	if (!stable)
		return;
	sp_walk_sharers(folio, stable, rwc);
	/* A walk that has an end is to leave no mapping. */
	if (rwc->done)
		sp_unkeep(stable, folio);
	else
		sp_keep(stable, folio);
}

/* The content of @folio moved to @newfolio; both are locked. */
void sp_hook_migrate(struct folio *newfolio, struct folio *folio)
{
	struct sp_stable *stable = sp_folio_stable(folio);

	if (!stable)
		return;
	WRITE_ONCE(stable->pfn, folio_pfn(newfolio));
	/* A reader that sees the old folio let go must see the new pfn. */
	smp_wmb();
	WRITE_ONCE(folio->mapping, sp_folio_ksm_mapping(NULL));
}

/* May @folio, come back from swap, be mapped at @addr without its own rmap? */
static bool sp_mappable_as_is(struct folio *folio, struct vm_area_struct *vma,
			      unsigned long addr)
{
	struct anon_vma *anon_vma;

	if (folio_test_ksm(folio))
		return sp_folio_stable(folio) && sp_vma_merges(vma) &&
		       !(READ_ONCE(sp_run) & SP_RUN_UNMERGE);
	anon_vma = folio_anon_vma(folio);
	return !anon_vma || (folio->index == linear_page_index(vma, addr) &&
			     anon_vma->root == vma->anon_vma->root);
}

/*
 * A merged page that was swapped out and read in again is an ordinary page of
 * whoever came first; others get a copy. Returns @folio, a locked copy, NULL
 * (no memory) or ERR_PTR(-EHWPOISON).
 */
struct folio *sp_copy_if_needed(struct folio *folio, struct vm_area_struct *vma,
				unsigned long addr)
{
	struct page *page = folio_page(folio, 0);
	struct folio *copy;

	if (folio_test_large(folio) || sp_mappable_as_is(folio, vma, addr))
		return folio;
	if (PageHWPoison(page))
		return ERR_PTR(-EHWPOISON);
	if (!folio_test_uptodate(folio))
		return folio;		/* the fault reports the I/O error */

	copy = sp_vma_alloc_page(vma, addr);
	if (copy && mem_cgroup_charge(copy, vma->vm_mm, GFP_KERNEL)) {
		folio_put(copy);
		copy = NULL;
	}
	if (!copy)
		return NULL;
	if (copy_mc_user_highpage(folio_page(copy, 0), page, addr, vma)) {
		folio_put(copy);
		return ERR_PTR(-EHWPOISON);
	}
	folio_set_dirty(copy);
	__folio_mark_uptodate(copy);
	__folio_set_locked(copy);
	count_vm_event(KSM_SWPIN_COPY);
	return copy;
}
