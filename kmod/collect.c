// SPDX-License-Identifier: GPL-2.0-only
/*
 * Collecting a batch of pages from the page tables.
 *
 * Needs mmap_lock and sp_scan_mutex. Pages are noted with a reference under
 * their page-table lock; signatures are taken without it.
 */
#include <linux/mm.h>
#include <linux/pagewalk.h>

#include "batch.h"

/* Does the slot say that the page shares @stable already? */
static bool sp_known_sharer(struct sp_block *block, unsigned int index,
			    struct sp_stable *stable)
{
	struct sp_item *item = block ? sp_slot_item(block, index) : NULL;

	return item && item->state == SP_SHARER && item->stable == stable;
}

/* Note one page under its page-table lock. */
static void sp_collect_page(struct sp_batch *batch, unsigned long addr,
			    struct page *page)
{
	unsigned int index = sp_index(addr);
	struct folio *folio = page_folio(page);
	struct sp_block *block;
	struct sp_found *found;

	if (folio_is_zone_device(folio) || !folio_test_anon(folio))
		return;
	if (!batch->present) {
		batch->base = addr & SP_BLOCK_MASK;
		batch->start = addr;
	}
	batch->present |= BIT_ULL(index);
	batch->budget--;

	block = sp_block_find(batch->space, addr);
	found = &batch->found[batch->count];
	found->stable = NULL;
	if (folio_test_ksm(folio)) {
		found->stable = sp_folio_stable(folio);
		if (!found->stable || sp_known_sharer(block, index, found->stable)) {
			sp_stats.pages_scanned++;
			return;
		}
	} else if (sp_tunables.smart_scan && block && sp_slot_skip(block, index)) {
		sp_stats.pages_skipped++;
		batch->budget++;
		return;
	}
	sp_stats.pages_scanned++;
	found->page = page;
	found->index = index;
	folio_get(folio);
	batch->count++;
}

/* May the page at @addr still go into the batch? */
static bool sp_batch_takes(const struct sp_batch *batch, unsigned long addr)
{
	return !batch->present ||
	       ((addr & SP_BLOCK_MASK) == batch->base && batch->budget);
}

/* False when the huge page was split meanwhile: it has a page table now. */
static bool sp_collect_huge(struct sp_batch *batch, pmd_t *pmd, unsigned long addr,
			    unsigned long end, struct mm_walk *walk)
{
	spinlock_t *ptl = pmd_lock(walk->mm, pmd);
	pmd_t huge = pmdp_get(pmd);
	struct page *page;

	if (!pmd_present(huge) || !pmd_leaf(huge)) {
		spin_unlock(ptl);
		return false;
	}
	page = vm_normal_page_pmd(walk->vma, addr & PMD_MASK, huge);
	if (page) {
		page += (addr & ~PMD_MASK) >> PAGE_SHIFT;
		for (; addr < end && sp_batch_takes(batch, addr); addr += PAGE_SIZE)
			sp_collect_page(batch, addr, page++);
		batch->end = addr;
	}
	spin_unlock(ptl);
	return true;
}

static int sp_collect_pmd(pmd_t *pmd, unsigned long addr, unsigned long end,
			  struct mm_walk *walk)
{
	struct sp_batch *batch = walk->private;
	struct page *page;
	pmd_t huge;
	pte_t *start, *ptep;
	spinlock_t *ptl; /* of the page table or the huge entry */

	if (sp_mm_exiting(walk->mm))
		return 1;
	cond_resched();
	huge = pmdp_get_lockless(pmd);
	if (!pmd_present(huge))
		return 0;
	if (pmd_leaf(huge) && sp_collect_huge(batch, pmd, addr, end, walk))
		return batch->present != 0;
	start = sp_pte_lock_in(walk->mm, pmd, addr, &ptl);
	if (!start)
		return 0;
	for (ptep = start; addr < end && sp_batch_takes(batch, addr);
	     ptep++, addr += PAGE_SIZE) {
		pte_t entry = ptep_get(ptep);

		if (!pte_present(entry))
			continue;
		page = vm_normal_page(walk->vma, addr, entry);
		if (page)
			sp_collect_page(batch, addr, page);
	}
	pte_unmap_unlock(start, ptl);
	batch->end = addr;
	return batch->present != 0;
}

static const struct mm_walk_ops sp_collect_ops = {
	.pmd_entry = sp_collect_pmd,
	SP_WALK_RDLOCK
};

bool sp_collect_vma(struct sp_batch *batch, struct vm_area_struct *vma,
		    unsigned long start)
{
	walk_page_range_vma(vma, start, vma->vm_end, &sp_collect_ops, batch);
	return batch->present;
}

/*
 * Take signatures and drop the references: a huge page can only be split
 * without. A merged page keeps its own, and thereby its stable node.
 */
void sp_take_signatures(struct sp_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->count; i++) {
		struct sp_found *found = &batch->found[i];

		found->nid = sp_page_nid(page_to_pfn(found->page));
		if (!found->stable)
			found->signature = sp_signature(found->page);
	}
	for (i = 0; i < batch->count; i++)
		if (!batch->found[i].stable)
			put_page(batch->found[i].page);
}
