// SPDX-License-Identifier: GPL-2.0-only
/*
 * Why are these pages not merged? Told to whoever may look into the process.
 *
 * A stretch of pages at a time is looked at with sp_scan_lock held for writing and
 * mmap_lock for reading: nothing that the module knows changes meanwhile, and the
 * scanner goes on in between.
 */
#include <linux/mm.h>
#include <linux/ptrace.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "samepage.h"
#include "why.h"

#define SP_WHY_STRETCH	(8192UL << PAGE_SHIFT)

struct sp_why_walk {
	struct sp_space *space;		/* NULL: not registered */
	bool tell_others;		/* about other domains */
	u64 *pages;
};

static struct sp_key sp_key_of(struct page *page, u16 domain)
{
	u64 sample = sp_sample(page);
	bool full = sp_crowded(sample);

	return (struct sp_key) {
		.signature = full ? sp_full_signature(page) : sample,
		.domain = domain,
		.nid = sp_page_nid(page_to_pfn(page)),
		.full = full,
	};
}

/* Does the domain @id have a page of this content, merged or not? */
static bool sp_has_equal(u16 id, void *arg)
{
	struct sp_key key = *(struct sp_key *)arg;

	if (id == key.domain)
		return false;
	key.domain = id;
	return sp_stable_first(&key) || sp_unstable_known(sp_brief(&key), id);
}

/* Of a candidate: what keeps it from being merged? */
static enum samepage_reason sp_why_alone(const struct sp_why_walk *walk, struct page *page)
{
	struct sp_key key = sp_key_of(page, walk->space->domain);

	if (sp_stable_first(&key))
		return SAMEPAGE_CHAIN_FULL;
	if (walk->tell_others && sp_any_domain(sp_has_equal, &key))
		return SAMEPAGE_OTHER_DOMAIN;
	return SAMEPAGE_UNIQUE;
}

/* Of an anonymous page in registered memory, which is not merged. */
static enum samepage_reason sp_why_not(const struct sp_why_walk *walk, unsigned long addr,
				       struct page *page, bool dirty)
{
	struct sp_block *block = sp_block_find(walk->space, addr);
	u64 bit = sp_bit(sp_index(addr));

	if (folio_maybe_dma_pinned(page_folio(page)))
		return SAMEPAGE_PINNED;
	if (walk->space->excluded)
		return SAMEPAGE_EXCLUDED;
	if (!block || !(block->tracked & bit))
		return sp_tenant_is_held(walk->space->tenant) ? SAMEPAGE_OVER_BUDGET : SAMEPAGE_NOT_YET;
	if (dirty)
		return SAMEPAGE_VOLATILE;
	if (block->spared)
		return SAMEPAGE_HUGE_SPARED;
	if (block->candidates & bit)
		return sp_why_alone(walk, page);
	return block->settled & bit ? SAMEPAGE_FORKED : SAMEPAGE_VOLATILE;
}

/* Of a merged page: some may have one sharer, which is not for everybody to know. */
static enum samepage_reason sp_why_merged(const struct sp_why_walk *walk, struct folio *folio)
{
	const struct sp_stable *stable = sp_folio_stable(folio);
	bool alone = stable && stable->nr_sharers == 1 &&
		     (stable->timing_safe || stable->key.domain == SP_EVERYBODY);

	return alone && walk->tell_others ? SAMEPAGE_UNIQUE : SAMEPAGE_MERGED;
}

/* Where others have page tables of their own (KVM), the bit says nothing. */
static bool sp_why_dirty(struct vm_area_struct *vma, bool dirty)
{
	return dirty && !mm_has_notifiers(vma->vm_mm);
}

static enum samepage_reason sp_why_entry(const struct sp_why_walk *walk,
					 struct vm_area_struct *vma, unsigned long addr, pte_t entry)
{
	struct page *page;

	if (!pte_present(entry))
		return sp_migrating_folio(entry) ? SAMEPAGE_NOT_YET : SAMEPAGE_SWAPPED;
	if (is_zero_pfn(pte_pfn(entry)))
		return SAMEPAGE_ZERO;
	page = vm_normal_page(vma, addr, entry);
	if (!page || !PageAnon(page))
		return SAMEPAGE_NOT_ANONYMOUS;
	if (folio_test_ksm(page_folio(page)))
		return sp_why_merged(walk, page_folio(page));
	if (!walk->space || !sp_vma_merges(vma))
		return SAMEPAGE_NOT_REGISTERED;
	return sp_why_not(walk, addr, page,
			  sp_why_dirty(vma, pte_dirty(entry)));
}

static void sp_why_huge(struct sp_why_walk *walk, struct vm_area_struct *vma, pmd_t *pmd,
			unsigned long addr, unsigned long end)
{
	spinlock_t *ptl = pmd_lock(vma->vm_mm, pmd);
	pmd_t huge = pmdp_get(pmd);
	struct page *page = NULL;

	if (pmd_present(huge) && pmd_leaf(huge))
		page = vm_normal_page_pmd(vma, addr & PMD_MASK, huge);
	for (; addr < end; addr += PAGE_SIZE) {
		enum samepage_reason why = SAMEPAGE_NOT_REGISTERED;

		if (!page || !PageAnon(page))
			why = SAMEPAGE_NOT_ANONYMOUS;
		else if (walk->space && sp_vma_merges(vma))
			why = sp_why_not(walk, addr, page + ((addr & ~PMD_MASK) >> PAGE_SHIFT),
					 sp_why_dirty(vma, pmd_dirty(huge)));
		walk->pages[why]++;
	}
	spin_unlock(ptl);
}

static bool sp_why_pmd(struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr,
		       unsigned long end, void *arg)
{
	struct sp_why_walk *walk = arg;
	spinlock_t *ptl; /* of the page table */
	pte_t *start, *ptep;

	if (pmd_leaf(pmdp_get_lockless(pmd))) {
		sp_why_huge(walk, vma, pmd, addr, end);
		return false;
	}
	start = sp_pte_lock_in(vma->vm_mm, pmd, addr, &ptl);
	if (!start)
		return false;
	for (ptep = start; addr < end; ptep++, addr += PAGE_SIZE) {
		pte_t entry = ptep_get(ptep);

		if (!pte_none(entry))
			walk->pages[sp_why_entry(walk, vma, addr, entry)]++;
	}
	pte_unmap_unlock(start, ptl);
	return false;
}

/* The next stretch from @addr on; returns where it ended. */
static unsigned long sp_why_stretch(struct sp_why_walk *walk, struct mm_struct *mm,
				    unsigned long addr, unsigned long end)
{
	struct vm_area_struct *vma;

	sp_scan_lock_all();
	mmap_read_lock(mm);
	walk->space = sp_registry_find(mm);
	vma = find_vma(mm, addr);
	if (!vma || vma->vm_start >= end) {
		addr = end;
	} else {
		addr = max(addr, vma->vm_start);
		end = min3(end, vma->vm_end, addr + SP_WHY_STRETCH);
		sp_walk_pmds(vma, addr, end, sp_why_pmd, walk);
		addr = end;
	}
	mmap_read_unlock(mm);
	up_write(&sp_scan_lock);
	return addr;
}

static int sp_why_mm(struct sp_why_walk *walk, struct mm_struct *mm, unsigned long addr,
		     unsigned long end)
{
	while (addr < end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		addr = sp_why_stretch(walk, mm, addr, end);
		cond_resched();
	}
	return 0;
}

/* The memory of the process, 0: the current one's, for whom ptrace() would let so far; an ERR_PTR. */
struct mm_struct *sp_mm_of(pid_t nr, unsigned int mode)
{
	struct mm_struct *mm = ERR_PTR(-ESRCH);
	struct task_struct *task;

	rcu_read_lock();
	task = nr ? pid_task(find_vpid(nr), PIDTYPE_PID) : current;
	if (task)
		get_task_struct(task);
	rcu_read_unlock();
	if (!task)
		return mm;
	mm = mm_access(task, mode);
	put_task_struct(task);
	return mm ?: ERR_PTR(-ESRCH);
}

/* Count the reasons. 0 or an errno: -EINVAL, -ESRCH, -EACCES or -EPERM, -EINTR. */
int sp_why(struct samepage_why *why)
{
	unsigned long end = why->end ?: TASK_SIZE_MAX;
	struct sp_why_walk walk = { .tell_others = capable(CAP_SYS_ADMIN), .pages = why->pages };
	struct mm_struct *mm;
	int err;

	if (why->reasons != SAMEPAGE_REASONS || why->pid < 0 || why->start > end ||
	    end > TASK_SIZE_MAX || !PAGE_ALIGNED(why->start | end))
		return -EINVAL;
	mm = sp_mm_of(why->pid, PTRACE_MODE_READ_FSCREDS);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	memset(why->pages, 0, sizeof(why->pages));
	err = sp_why_mm(&walk, mm, why->start, end);
	mmput(mm);
	return err;
}
