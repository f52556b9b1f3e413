// SPDX-License-Identifier: GPL-2.0-only
/*
 * Zero pages placed by KSM, for kernels that do not count them: an entry that
 * maps the zero page is dirty where we made it, and never otherwise. Such
 * entries are counted when somebody asks. Fork copies the mark, and whatever
 * takes the page away takes the mark along.
 *
 * Walks need mmap_lock, which is taken here, one mm at a time.
 */
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "../samepage.h"

#ifndef SP_HAVE_KSM_ZERO_PAGES
static bool sp_count_zero_ptes(struct vm_area_struct *vma, pmd_t *pmd,
			       unsigned long addr, unsigned long end, void *arg)
{
	long *count = arg;
	spinlock_t *ptl; /* of the page table */
	pte_t *start = sp_pte_lock_in(vma->vm_mm, pmd, addr, &ptl), *ptep;

	if (!start)
		return false;
	for (ptep = start; addr < end; ptep++, addr += PAGE_SIZE)
		*count += sp_zero_pte(ptep_get(ptep));
	pte_unmap_unlock(start, ptl);
	cond_resched();
	return false;
}

long sp_mm_zero_pages(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	long count = 0;

	mmap_read_lock(mm);
	for_each_vma(vmi, vma)
		if (sp_vma_merges(vma))
			sp_walk_pmds(vma, vma->vm_start, vma->vm_end,
				     sp_count_zero_ptes, &count);
	mmap_read_unlock(mm);
	return count;
}

/* Needs neither sp_scan_lock nor an mmap_lock. */
long sp_zero_pages(void)
{
	unsigned int i, nr;
	struct mm_struct **mms = sp_registry_hold(&nr);
	long count = 0;

	for (i = 0; i < nr; i++) {
		count += sp_mm_zero_pages(mms[i]);
		mmput(mms[i]);
	}
	kvfree(mms);
	return count;
}

/* /proc/PID/ksm_stat with the lines of newer kernels. */
int sp_hook_ksm_stat(struct seq_file *m, struct pid_namespace *ns, struct pid *pid,
		     struct task_struct *task)
{
	struct mm_struct *mm = get_task_mm(task);

	if (!mm)
		return 0;
	seq_printf(m, "ksm_rmap_items %lu\n", mm->ksm_rmap_items);
	seq_printf(m, "ksm_zero_pages %ld\n", sp_mm_zero_pages(mm));
	seq_printf(m, "ksm_merging_pages %lu\n", mm->ksm_merging_pages);
	seq_printf(m, "ksm_process_profit %ld\n", sp_hook_process_profit(mm));
	mmput(mm);
	return 0;
}
#endif
