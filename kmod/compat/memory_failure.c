// SPDX-License-Identifier: GPL-2.0-only
/* For kernels whose memory-failure code asks KSM who maps a page. */
#include <linux/rmap.h>
#include <linux/sched/signal.h>

#include "../samepage.h"

#ifdef SP_HAVE_KSM_COLLECT_PROCS
/* The processes that must hear of a memory failure in @page. */
void sp_hook_collect_procs(sp_collect_const struct folio *folio,
			   sp_collect_const struct page *page,
			   struct list_head *to_kill, int force_early)
{
	struct sp_stable *stable = sp_folio_stable(folio);
	struct task_struct *leader, *task;
	struct sp_item *item;

	if (!stable)
		return;
	sp_for_each_sharer(item, stable) {
		unsigned long addr = sp_item_address(item);
		struct anon_vma_chain *vmac;
		pgoff_t first, last;

		sp_item_pgoff(item, &first, &last);
		anon_vma_lock_read(item->anon_vma);
		rcu_read_lock();
		for_each_process(leader) {
			task = task_early_kill(leader, force_early);
			if (!task)
				continue;
			anon_rmap_tree_foreach(vmac, item->anon_vma, first, last)
				if (vmac->vma->vm_mm == task->mm)
					add_to_kill_ksm(task, page, vmac->vma,
							to_kill, addr);
		}
		rcu_read_unlock();
		anon_vma_unlock_read(item->anon_vma);
	}
}
#endif
