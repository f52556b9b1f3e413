// SPDX-License-Identifier: GPL-2.0-only
/*
 * Breaking copy-on-write without a write: every merged page of a range gets a
 * private copy again, by an unsharing fault. Where it is not the process itself
 * that asks, the last one to map a merged page keeps it as its own, uncopied. A
 * process that asks gets copies only: else the time that it takes would tell
 * whether somebody else had the page.
 *
 * Needs mmap_lock, for reading or for writing. A fault may back out (a page
 * under migration, a flag changed meanwhile), so the range is searched again
 * from the same address until no merged page is found there.
 */
#include <linux/hugetlb_inline.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "samepage.h"
#include "control.h"

static bool sp_ignore_signals;

/* While handing back, unmerging must come to its end. */
void sp_unmerge_ignore_signals(bool ignore)
{
	WRITE_ONCE(sp_ignore_signals, ignore);
}

/* Does the entry stand for a merged page, or a zero page that we placed? */
static bool sp_entry_merged(struct vm_area_struct *vma, unsigned long addr,
			    pte_t entry)
{
	struct folio *migrating;
	struct page *page;

	if (pte_present(entry)) {
		if (sp_zero_pte(entry))
			return true;
		page = vm_normal_page(vma, addr, entry);
		return page && folio_test_ksm(page_folio(page));
	}
	migrating = sp_migrating_folio(entry);
	return migrating && folio_test_ksm(migrating);
}

/* Is @folio charged to the memory cgroup that a copy for @mm would be charged to? */
static bool sp_charged_to(struct folio *folio, struct mm_struct *mm)
{
	bool same;

	if (mem_cgroup_disabled())
		return true;
	rcu_read_lock();
	same = folio_memcg(folio) == mem_cgroup_from_task(rcu_dereference(mm->owner));
	rcu_read_unlock();
	return same;
}

/* Nobody but one entry holds @folio, which is locked: no other mapping, swap entry or reference. */
static bool sp_held_once(struct folio *folio)
{
	if (folio_mapcount(folio) != 1 || folio_test_swapcache(folio))
		return false;
	smp_rmb();	/* a reference was taken before the mapping that it came by went */
	return folio_ref_count(folio) == 1;
}

/*
 * Give the merged page at @addr to @vma, if nobody else has it: its stable node is
 * stale then. Needs the page-table lock, and sp_scan_lock.
 */
static bool sp_keep_frame(struct vm_area_struct *vma, unsigned long addr, pte_t entry)
{
	struct page *page = vm_normal_page(vma, addr, entry);
	struct folio *folio = page ? page_folio(page) : NULL;
	bool keep;

	if (!folio || folio_mapcount(folio) != 1 || !folio_trylock(folio))
		return false;
	keep = folio_test_ksm(folio) && sp_held_once(folio) &&
	       !folio_test_hwpoison(folio) && sp_charged_to(folio, vma->vm_mm);
	if (keep) {
		folio->index = linear_page_index(vma, addr);
		WRITE_ONCE(folio->mapping, (void *)vma->anon_vma + FOLIO_MAPPING_ANON);
		SetPageAnonExclusive(page);
	}
	folio_unlock(folio);
	return keep;
}

/* Addresses of merged pages, found in one walk. */
struct sp_merged {
	bool process_asks;		/* nothing is kept */
	unsigned int count;
	unsigned int zero;		/* a bit each: it is the zero page */
	unsigned long addr[32];
	struct page *page[32];		/* that may be kept when its turn comes, or NULL */
};

static void sp_note_merged(struct sp_merged *found, struct vm_area_struct *vma,
			   unsigned long addr, pte_t entry)
{
	if (!sp_entry_merged(vma, addr, entry))
		return;
	found->page[found->count] = NULL;
	if (pte_present(entry) && sp_zero_pte(entry)) {
		found->zero |= BIT(found->count);
	} else if (pte_present(entry) && !found->process_asks) {
		if (sp_keep_frame(vma, addr, entry)) {
			sp_count(unmerged);
			return;
		}
		found->page[found->count] = pte_page(entry);
	}
	found->addr[found->count++] = addr;
}

/* Since it was noted, others may have got copies of the page that is mapped at @addr. */
static bool sp_keep_now(struct vm_area_struct *vma, unsigned long addr, struct page *page)
{
	bool kept = false;
	spinlock_t *ptl; /* of the page table */
	pte_t *ptep, entry;

	if (!page || folio_mapcount(page_folio(page)) != 1)
		return false;
	ptep = sp_pte_lock(vma->vm_mm, addr, &ptl);
	if (!ptep)
		return false;
	entry = ptep_get(ptep);
	if (pte_present(entry) && !sp_zero_pte(entry) && pte_page(entry) == page)
		kept = sp_keep_frame(vma, addr, entry);
	pte_unmap_unlock(ptep, ptl);
	return kept;
}

static bool sp_find_merged(struct vm_area_struct *vma, pmd_t *pmd,
			   unsigned long addr, unsigned long end, void *arg)
{
	struct sp_merged *found = arg;
	pte_t *start, *ptep;
	spinlock_t *ptl; /* of the page table */

	while (addr < end && found->count < ARRAY_SIZE(found->addr)) {
		cond_resched();
		start = sp_pte_lock_in(vma->vm_mm, pmd, addr, &ptl);
		if (!start)
			return false;	/* nothing there, or a huge page: never merged */
		ptep = start;
		do {
			pte_t entry = ptep_get(ptep++);

			if (!pte_none(entry))
				sp_note_merged(found, vma, addr, entry);
			addr += PAGE_SIZE;
		} while (addr < end && found->count < ARRAY_SIZE(found->addr) &&
			 ((addr & ~SP_BLOCK_MASK) || !need_resched()));
		pte_unmap_unlock(start, ptl);
	}
	return found->count == ARRAY_SIZE(found->addr);
}

/* Unmerge the page at @addr, if it is merged yet. 0, -ENOMEM, -EFAULT: it has gone by other means. */
static int sp_unshare(struct vm_area_struct *vma, unsigned long addr, bool zero)
{
	unsigned int how = zero ? SP_UNSHARE_ZERO : FAULT_FLAG_UNSHARE;
	vm_fault_t fault = handle_mm_fault(vma, addr, how | FAULT_FLAG_REMOTE, NULL);

	if (fault & VM_FAULT_OOM)
		return -ENOMEM;
	return fault & (VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV) ? -EFAULT : 0;
}

/*
 * Unmerge [@start, @end) of @vma. Where it is the process that asks, mmap_lock is
 * held for writing, and per-VMA lock faults are kept out; else sp_scan_lock is
 * held. 0, -ENOMEM, or -ERESTARTSYS on a pending signal.
 */
int sp_unmerge_range(struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, bool process_asks)
{
	struct sp_merged found = { .process_asks = process_asks };
	unsigned long last = end;	/* the first one of the walk before */
	unsigned int i;

	if (process_asks)
		vma_start_write(vma);
	while (start < end) {
		found.count = 0;
		found.zero = 0;
		sp_walk_pmds(vma, start, end, sp_find_merged, &found);
		if (!found.count)
			return 0;
		/* What backed out is found again: search from the first one on. */
		start = found.addr[0];
		for (i = 0; i < found.count; i++) {
			int err;

			if (sp_mm_exiting(vma->vm_mm))
				return 0;
			if (signal_pending(current) && !READ_ONCE(sp_ignore_signals))
				return -ERESTARTSYS;
			if (sp_keep_now(vma, found.addr[i], found.page[i]))
				err = 0;
			else
				err = sp_unshare(vma, found.addr[i], found.zero & BIT(i));
			if (err == -ENOMEM)
				return err;
			if (err && !i)
				start += PAGE_SIZE;
			else if (!err && (i || start != last))
				sp_count(unmerged);
		}
		last = start;
	}
	return 0;
}

/* Undo the merge of one page. Needs sp_scan_lock. 0, -ENOMEM or -ERESTARTSYS. */
int sp_break_cow(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;
	int err = 0;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma)
		err = sp_unmerge_range(vma, addr, addr + PAGE_SIZE, false);
	mmap_read_unlock(mm);
	return err;
}

/* Unmerge all of @mm. Needs mmap_lock for reading, and sp_scan_lock. */
int sp_unmerge_mm(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	int err = 0;

	if (sp_mm_exiting(mm))
		return 0;
	for_each_vma(vmi, vma) {
		/* Whatever flags it has now: what is left anywhere keeps the module from going. */
		if (!vma->anon_vma || is_vm_hugetlb_page(vma))
			continue;
		err = sp_unmerge_range(vma, vma->vm_start, vma->vm_end, false);
		if (err)
			break;
	}
	return err;
}

/*
 * Unmerge every registered address space and forget what is known of it; they
 * stay registered. Needs sp_scan_lock for writing. 0, -ENOMEM or -ERESTARTSYS.
 */
int sp_unmerge_registered(void)
{
	struct sp_space *space;
	int err = 0;

	sp_reserve_drop();
	sp_unkeep_all();
	sp_scan_reset();
	sp_registry_begin();
	while (!err && (space = sp_registry_take())) {
		struct mm_struct *mm = space->mm;
		enum sp_fate fate = SP_KEEP;

		mmap_read_lock(mm);
		err = sp_unmerge_mm(mm);
		if (!err)
			sp_forget_range(space, 0, ULONG_MAX);
		if (!err && sp_mm_exiting(mm))
			fate = SP_DROP_EXITED;
		mmap_read_unlock(mm);
		sp_registry_done(space, fate);
		cond_resched();
	}
	sp_registry_end();
	if (err)
		sp_keep_all();
	else
		sp_stable_release_all();
	return err;
}
