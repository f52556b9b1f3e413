// SPDX-License-Identifier: GPL-2.0-only
/*
 * Collecting what there is to do from the page tables, a table at a time.
 *
 * A page is worth reading once it stayed the same for a pass. Whether it did,
 * the dirty bit of its page-table entry tells: it is cleaned, into the folio,
 * when the page is seen to have changed, and found clean at the next pass or
 * not; a page that is new counts as changed. So a page that keeps changing is
 * never read, and a page that is filed and clean costs a look at its entry. What
 * writes past the page table (direct I/O, ptrace) does not show there: each pass
 * looks anew at one page in 128, whatever its entry says. The memory of an mm
 * with MMU notifiers is written through other tables yet: there nothing but its
 * signature tells whether a page changed. It is signed every time or, with smart
 * scan, one filed page in 8.
 *
 * Needs mmap_lock and the space's records. Pages are noted with a reference under
 * their page-table lock; signatures are taken without it.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/page_idle.h>
#include <linux/sched/clock.h>

#include "batch.h"
#include "entries.h"

/* Pages passed by unread that weigh as much as one that is looked at. */
#define SP_PASSED_PER_PAGE 16

/* Steps of which one asks how late it is. */
#define SP_STEPS_TO_LOOK 16

/* In as many passes, every filed page is looked at anew; where entries tell nothing of writes: */
#define SP_PASSES_TO_AUDIT 128
#define SP_PASSES_UNSEEN 8
#define SP_EVERY_EIGHTH 0x0101010101010101ULL

static inline struct sp_found *sp_note(struct sp_batch *batch, struct sp_block *block,
				       unsigned int index, enum sp_todo todo)
{
	struct sp_found *found = batch->found + batch->count++;

	found->block = block;
	found->index = index;
	found->todo = todo;
	found->page = NULL;
	return found;
}

static inline void sp_note_page(struct sp_batch *batch, struct sp_block *block,
				unsigned int index, enum sp_todo todo,
				struct page *page, struct folio *folio)
{
	struct sp_found *found = sp_note(batch, block, index, todo);

	found->page = page;
	folio_get(folio);
}

/*
 * Clean the entry into its folio. The TLB is flushed once for the table, before its
 * lock is dropped: MADV_FREE takes a clean entry for one that no CPU writes through.
 */
static void sp_clean(struct sp_batch *batch, struct vm_area_struct *vma,
		     unsigned long addr, pte_t *ptep, struct folio *folio)
{
	pte_t entry = ptep_modify_prot_start(vma, addr, ptep);

	ptep_modify_prot_commit(vma, addr, ptep, entry, pte_mkclean(entry));
	if (!folio_test_dirty(folio))
		folio_mark_dirty(folio);
	/* A table is gone through upwards. */
	batch->cleaned_from = min(batch->cleaned_from, addr);
	batch->cleaned_to = addr + PAGE_SIZE;
}

static void sp_flush_nothing(struct sp_batch *batch)
{
	batch->cleaned_from = ULONG_MAX;
	batch->cleaned_to = 0;
}

static void sp_flush(struct sp_batch *batch, struct vm_area_struct *vma)
{
	if (batch->cleaned_from < batch->cleaned_to)
		sp_flush_tlb(vma->vm_mm, batch->cleaned_from, batch->cleaned_to);
	sp_flush_nothing(batch);
}

/* A merged page: of the node that the record says, or come by fork. */
static void sp_collect_merged(struct sp_batch *batch, struct sp_block *block,
			      unsigned int index, struct page *page)
{
	struct sp_stable *stable = sp_folio_stable(page_folio(page));

	if (!stable)
		return;
	if ((block->sharers & sp_bit(index)) &&
	    block->slot[index].item->stable == stable)
		return;
	sp_slot_track(block, index);	/* nothing else keeps the block */
	sp_note_page(batch, block, index, SP_TODO_ADOPT, page, page_folio(page));
	(batch->found + batch->count - 1)->stable = stable;
}

/* Smart scan: does a page that keeps changing sit out this pass? Every written page comes by. */
static __always_inline bool sp_sits_out(struct sp_block *block, unsigned int index)
{
	return READ_ONCE(sp_tunables.smart_scan) && (block->tracked & sp_bit(index)) &&
	       !((block->sharers | block->settled) & sp_bit(index)) &&
	       sp_slot_skip(block, index);
}

/* What is to be done about the page, under its page-table lock; false if it is none of ours. */
static bool sp_collect_page(struct sp_batch *batch, struct vm_area_struct *vma,
			    struct sp_block *block, unsigned int index,
			    pte_t *ptep, pte_t entry)
{
	struct folio *folio;
	struct page *page;
	bool dirty;

	if (pte_special(entry))
		return false;
	/* All else is memory: mappings of page frames are never registered. */
	page = pte_page(entry);
	folio = page_folio(page);
	if (folio_is_zone_device(folio) || !folio_test_anon(folio))
		return false;
	if (folio_test_ksm(folio)) {
		sp_collect_merged(batch, block, index, page);
		return true;
	}
	dirty = batch->by_dirty && pte_dirty(entry);
	if ((dirty || !batch->by_dirty) && sp_sits_out(block, index)) {
		sp_count(pages_skipped);
		sp_uncount(pages_scanned);
		return true;
	}
	if (dirty)
		sp_clean(batch, vma, sp_slot_address(block, index), ptep, folio);
	if (block->sharers & sp_bit(index))
		sp_note(batch, block, index, SP_TODO_LOST);
	else if (dirty || !(block->tracked & sp_bit(index)) ||
		 folio_maybe_dma_pinned(folio))
		sp_slot_changed(block, index);	/* a pin may write, and forbids merging */
	else
		sp_note_page(batch, block, index, SP_TODO_SIGN, page, folio);
	return true;
}

/* Filed pages that may be passed by while their entries say that they were not written. */
static u64 sp_quiet_pages(const struct sp_batch *batch, const struct sp_block *block)
{
	unsigned int pass = block->owner->pass + block->id, turn;
	u64 quiet = block->settled;

	if (batch->reexamine || (!batch->by_dirty && !READ_ONCE(sp_tunables.smart_scan)))
		return quiet & block->sharers;
	if (batch->refile)
		quiet &= block->candidates | block->sharers;
	if (!batch->by_dirty)
		return quiet & (block->sharers | ~(SP_EVERY_EIGHTH << pass % SP_PASSES_UNSEEN));
	turn = pass % SP_PASSES_TO_AUDIT;
	return turn < SP_BLOCK_PAGES ? quiet & ~sp_bit(turn) : quiet;
}

/*
 * Count what was looked at. What smart scan passes by is not scanned, but so
 * that a round has an end, it weighs a little.
 */
static void sp_account(struct sp_batch *batch, unsigned int looked,
		       unsigned int passed)
{
	if (READ_ONCE(sp_tunables.smart_scan)) {
		sp_count_by(pages_skipped, passed);
		batch->passed += passed;
		looked += batch->passed / SP_PASSED_PER_PAGE;
		sp_count_by(pages_scanned, -(unsigned long)(batch->passed / SP_PASSED_PER_PAGE));
		batch->passed %= SP_PASSED_PER_PAGE;
	} else {
		looked += passed;
	}
	sp_count_by(pages_scanned, looked);
	batch->budget -= min(batch->budget, looked);
}

/* These pages of @block are not there: note which of them were. */
static void sp_note_gone(struct sp_batch *batch, struct sp_block *block, u64 pages)
{
	for (pages &= block->tracked; pages; pages &= pages - 1)
		sp_note(batch, block, __ffs64(pages), SP_TODO_GONE);
}

/* A part of one block, under the page-table lock. @ptep: of the block's first page. */
static void sp_collect_block(struct sp_batch *batch, struct vm_area_struct *vma,
			     struct sp_block *block, pte_t *ptep, u64 part)
{
	struct sp_entries entries;
	u64 quiet, present, passed, left;

	if (block->spared || block->twinned)
		sp_huge_no_more(block);
	entries = sp_read_entries(ptep);
	quiet = sp_quiet_pages(batch, block) & part;
	quiet &= batch->by_dirty ? entries.clean : sp_read_present(ptep);
	passed = quiet & ~block->sharers;
	present = quiet & block->sharers;
	if (present)
		present &= sp_clean_sharers(block, ptep, entries.clean);
	left = part & ~(passed | present | entries.none);
	for (; left; left &= left - 1) {
		unsigned int index = __ffs64(left);
		pte_t entry = ptep_get(ptep + index);

		if (pte_present(entry) &&
		    sp_collect_page(batch, vma, block, index, ptep + index, entry))
			present |= sp_bit(index);
	}
	/* One of which nothing is known any more goes at the end of the pass. */
	if (block->tracked | present)
		sp_block_see(block);
	sp_account(batch, hweight64(present), hweight64(passed));
	sp_note_gone(batch, block, part & ~(present | passed));
}

/* Any page in this part of a block that could be merged? @ptep: of the block's first. */
static bool sp_any_anon(pte_t *ptep, u64 part)
{
	unsigned int at;

	for (at = 0; sp_eight_none(ptep + at); at += 8)
		if (at == SP_BLOCK_PAGES - 8)
			return false;
	for (; part; part &= part - 1) {
		pte_t entry = ptep_get(ptep + __ffs64(part));

		if (pte_present(entry) && !pte_special(entry) &&
		    PageAnon(pte_page(entry)))
			return true;
	}
	return false;
}

/* Where the batch must stop within the block at @addr. */
static unsigned long sp_part_end(const struct sp_batch *batch, unsigned long addr,
				 unsigned long end)
{
	unsigned long next = (addr & SP_BLOCK_MASK) + SP_BLOCK_SIZE;

	next = min(next ?: end, end);
	if (batch->budget < SP_BLOCK_PAGES)
		next = min(next, addr + ((unsigned long)batch->budget << PAGE_SHIFT));
	return next;
}

static bool sp_batch_full(const struct sp_batch *batch)
{
	return !batch->budget || batch->count + SP_BLOCK_PAGES > SP_BATCH_PAGES;
}

/* Mappings and page tables with next to nothing in them take time as well, which is looked at now and then. */
bool sp_batch_takes_long(struct sp_batch *batch)
{
	return ++batch->steps % SP_STEPS_TO_LOOK == 0 &&
	       local_clock() - batch->began > SP_TURN_NS;
}

/*
 * As many blocks of one page table as can be dealt with under one lock: up to
 * the first one that needs memory for its records, or until somebody wants the
 * CPU. Returns the next one's address.
 */
static unsigned long sp_collect_table(struct sp_batch *batch,
				      struct vm_area_struct *vma, pmd_t *pmd,
				      unsigned long addr, unsigned long end)
{
	XA_STATE(blocks, &batch->space->blocks, addr >> SP_BLOCK_SHIFT);
	spinlock_t *ptl; /* of the page table */
	pte_t *start = sp_pte_lock_in(vma->vm_mm, pmd, addr, &ptl), *ptep = start;
	struct sp_block *block;

	if (!start) {
		/* Nothing there, or a huge page come meanwhile: next pass. */
		sp_see_range(batch->space, addr, end);
		batch->at = end;
		return end;
	}
	rcu_read_lock();	/* which the XArray asks for, though nobody else changes it */
	block = xas_load(&blocks);
	while (addr < end && !sp_batch_full(batch)) {
		unsigned long next = sp_part_end(batch, addr, end);
		unsigned int first = sp_index(addr);
		u64 part = GENMASK_ULL(sp_index(next - 1), first);

		if (block)
			sp_collect_block(batch, vma, block, ptep - first, part);
		else if (sp_any_anon(ptep - first, part))
			break;
		ptep += (next - addr) >> PAGE_SHIFT;
		addr = next;
		batch->at = addr;
		if (!(addr & ~SP_BLOCK_MASK) && addr < end)
			block = xas_next(&blocks);
		if (block && need_resched())
			break;	/* the lock keeps others from this CPU */
	}
	rcu_read_unlock();
	sp_flush(batch, vma);
	pte_unmap_unlock(start, ptl);
	return addr;
}

/*
 * A huge page has one dirty bit, and one that says whether it was used at all:
 * take both into the folio. What the processor set meanwhile is in the result.
 */
static pmd_t sp_clean_huge(struct sp_batch *batch, struct vm_area_struct *vma,
			   unsigned long start, pmd_t *pmd, pmd_t huge,
			   struct folio *folio)
{
	huge = pmdp_establish(vma, start, pmd, pmd_mkold(pmd_mkclean(huge)));
	if (pmd_dirty(huge) && !folio_test_dirty(folio))
		folio_mark_dirty(folio);
	if (pmd_young(huge))
		folio_set_young(folio);
	batch->cleaned_from = min(batch->cleaned_from, start);
	batch->cleaned_to = max(batch->cleaned_to, start + PMD_SIZE);
	return huge;
}

/*
 * At the begin of a huge page: one that changed is left alone for this pass
 * (true); one that is worth splitting is opened, unless it is in use.
 */
static bool sp_visit_huge(struct sp_batch *batch, struct vm_area_struct *vma,
			  unsigned long start, pmd_t *pmd, pmd_t huge,
			  struct folio *folio)
{
	/* Whether others have its equals must not show. */
	bool all = sp_timing_safe(batch->space);
	bool worth = all || sp_huge_worth_splitting(batch->space, start);

	if ((batch->by_dirty && pmd_dirty(huge)) || (worth && pmd_young(huge)))
		huge = sp_clean_huge(batch, vma, start, pmd, huge, folio);
	if (batch->by_dirty && pmd_dirty(huge)) {
		sp_huge_changed(batch->space, start);
		sp_account(batch, PMD_SIZE / PAGE_SIZE, 0);
		return true;
	}
	worth &= !pmd_young(huge);
	sp_huge_open(batch->space, start, worth);
	return all && !worth;
}

/* The part of an unchanged huge page that lies in one block. */
static void sp_collect_huge_part(struct sp_batch *batch, struct sp_block *block,
				 struct page *page, unsigned long addr,
				 unsigned long end)
{
	u64 quiet = sp_quiet_pages(batch, block) & ~block->sharers, present = 0, passed = 0;

	for (; addr < end; addr += PAGE_SIZE, page++) {
		unsigned int index = sp_index(addr);

		if (block->sharers & sp_bit(index))
			sp_note(batch, block, index, SP_TODO_LOST);
		else if ((quiet & sp_bit(index)) || (!batch->by_dirty && sp_sits_out(block, index)))
			passed |= sp_bit(index);
		else
			sp_note_page(batch, block, index, SP_TODO_SIGN, page, page_folio(page));
		if (!(passed & sp_bit(index)))
			present |= sp_bit(index);
	}
	sp_account(batch, hweight64(present), hweight64(passed));
}

/* One block of a huge page; returns where it stopped, 0 when it is huge no more. */
static unsigned long sp_collect_huge(struct sp_batch *batch, pmd_t *pmd,
				     unsigned long addr, unsigned long end,
				     struct vm_area_struct *vma)
{
	spinlock_t *ptl = pmd_lock(vma->vm_mm, pmd);
	struct sp_block *block = sp_block_find(batch->space, addr);
	unsigned long next = addr, start = addr & PMD_MASK;
	pmd_t huge = pmdp_get(pmd);
	struct page *page;

	if (!pmd_present(huge) || !pmd_leaf(huge)) {
		spin_unlock(ptl);
		return 0;
	}
	page = vm_normal_page_pmd(vma, start, huge);
	if (!page || !PageAnon(page) || folio_is_zone_device(page_folio(page)) ||
	    folio_maybe_dma_pinned(page_folio(page))) {
		sp_see_range(batch->space, addr, end);
		next = end;
	} else if (addr == start &&
		   sp_visit_huge(batch, vma, start, pmd, huge, page_folio(page))) {
		sp_see_range(batch->space, addr, end);
		next = end;
		sp_huge_count(batch->space, start);
	} else if (block) {
		sp_block_see(block);
		next = sp_part_end(batch, addr, end);
		page += (addr - start) >> PAGE_SHIFT;
		sp_collect_huge_part(batch, block, page, addr, next);
		if (next == start + PMD_SIZE)
			sp_huge_count(batch->space, start);
	}
	batch->at = next;
	sp_flush(batch, vma);
	spin_unlock(ptl);
	return next;
}

static bool sp_collect_pmd(struct vm_area_struct *vma, pmd_t *pmd,
			   unsigned long addr, unsigned long end, void *arg)
{
	struct sp_batch *batch = arg;

	batch->at = addr;
	while (addr < end) {
		pmd_t entry = pmdp_get_lockless(pmd);
		unsigned long stopped = 0;

		if (sp_mm_exiting(vma->vm_mm) || sp_batch_full(batch) || sp_batch_takes_long(batch))
			return true;
		cond_resched();
		if (!pmd_present(entry)) {
			sp_forget_range(batch->space, addr, end);
			break;
		}
		if (pmd_leaf(entry))
			stopped = sp_collect_huge(batch, pmd, addr, end, vma);
		else
			stopped = sp_collect_table(batch, vma, pmd, addr, end);
		if (!stopped)
			continue;
		addr = stopped;
		if (addr < end && !sp_batch_full(batch) &&
		    !sp_block_find(batch->space, addr) &&
		    !sp_block_new(batch->space, addr, pmd_leaf(entry) && !sp_timing_safe(batch->space)))
			addr = min(end, (addr & SP_BLOCK_MASK) + SP_BLOCK_SIZE);
	}
	batch->at = max(batch->at, addr);
	return sp_batch_full(batch);
}

bool sp_collect_vma(struct sp_batch *batch, struct vm_area_struct *vma,
		    unsigned long start)
{
	sp_forget_gap(batch->space, batch->at, start);
	batch->at = start;
	/* A shadow stack is told apart by its dirty entries. */
	batch->by_dirty = !mm_has_notifiers(vma->vm_mm) &&
			  !(vma->vm_flags & VM_SHADOW_STACK);
	sp_flush_nothing(batch);
	if (sp_walk_pmds(vma, start, vma->vm_end, sp_collect_pmd, batch))
		return false;
	batch->at = vma->vm_end;
	return true;
}
