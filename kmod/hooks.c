// SPDX-License-Identifier: GPL-2.0-only
/*
 * How processes ask for merging: madvise(), prctl(), fork, exec and exit.
 *
 * These stand in for the functions of the same names in mm/ksm.c and are called
 * with the locks that those are called with: mmap_lock for writing, but for
 * fork (the new mm is private) and exit (no user is left).
 */
#include <linux/dax.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched/coredump.h>

#include "samepage.h"

/* Mappings whose pages are not plain private memory are left alone. */
bool sp_flags_compatible(unsigned long vm_flags)
{
	const unsigned long never = VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO |
				    VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP |
				    VM_DROPPABLE;

	return !(vm_flags & never);
}

static bool sp_vma_compatible(struct vm_area_struct *vma)
{
	return sp_flags_compatible(vma->vm_flags) && !vma_is_dax(vma);
}

/*
 * Of an mm that is just being set up, by fork: the one that it is a copy of. That of exec,
 * which is another program's, belongs to the current task already.
 */
static struct mm_struct *sp_forked_from(struct mm_struct *mm)
{
	bool fork = current->mm != mm && rcu_access_pointer(mm->owner) != current;

	return fork ? current->mm : NULL;
}

int sp_hook_enter(struct mm_struct *mm)
{
	int err;

	if (READ_ONCE(sp_passthrough))
		return sp_original_enter(mm);
	err = sp_enter(mm, sp_forked_from(mm));
	if (!err && sp_inherits_merge_any(mm))
		mm_flags_set(MMF_VM_MERGE_ANY, mm);
	return err;
}

/* Registered before the take-over, or after the hand-back: not ours. */
void sp_hook_exit(struct mm_struct *mm)
{
	if (!sp_exit(mm))
		sp_original_exit(mm);
}

int sp_hook_madvise(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end, int advice, unsigned long *vm_flags)
{
	struct mm_struct *mm = vma->vm_mm;
	int err;

	switch (advice) {
	case MADV_MERGEABLE:
		if ((vma->vm_flags & VM_MERGEABLE) || !sp_vma_compatible(vma))
			return 0;
		if (!mm_flags_test(MMF_VM_MERGEABLE, mm)) {
			err = sp_hook_enter(mm);
			if (err)
				return err;
		}
		*vm_flags |= VM_MERGEABLE;
		return 0;
	case MADV_UNMERGEABLE:
		if (!(*vm_flags & VM_MERGEABLE))
			return 0;
		if (vma->anon_vma) {
			err = sp_unmerge_range(vma, start, end, true);
			if (err)
				return err;
		}
		*vm_flags &= ~VM_MERGEABLE;
		return 0;
	}
	return 0;
}

static void sp_add_vma(struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MERGEABLE) && sp_vma_compatible(vma))
		vm_flags_set(vma, VM_MERGEABLE);
}

static void sp_add_all(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;

	for_each_vma(vmi, vma)
		sp_add_vma(vma);
}

static int sp_remove_all(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;

	for_each_vma(vmi, vma) {
		if (!(vma->vm_flags & VM_MERGEABLE))
			continue;
		if (vma->anon_vma) {
			int err = sp_unmerge_range(vma, vma->vm_start, vma->vm_end,
						   true);

			if (err)
				return err;
		}
		vm_flags_clear(vma, VM_MERGEABLE);
	}
	return 0;
}

/* The scanner let go of a process that had nothing to merge: it has now. */
void sp_hook_new_mapping(struct mm_struct *mm)
{
	if (!mm_flags_test(MMF_VM_MERGEABLE, mm))
		sp_hook_enter(mm);
}

/* A new mapping of a process that merges all of its memory. */
void sp_hook_add_vma(struct vm_area_struct *vma)
{
	if (!mm_flags_test(MMF_VM_MERGE_ANY, vma->vm_mm))
		return;
	sp_add_vma(vma);
	sp_hook_new_mapping(vma->vm_mm);
}

int sp_hook_enable_merge_any(struct mm_struct *mm)
{
	if (mm_flags_test(MMF_VM_MERGE_ANY, mm))
		return 0;
	if (!mm_flags_test(MMF_VM_MERGEABLE, mm)) {
		int err = sp_hook_enter(mm);

		if (err)
			return err;
	}
	mm_flags_set(MMF_VM_MERGE_ANY, mm);
	sp_add_all(mm);
	return 0;
}

/* All or nothing: where unmerging fails, merging stays on everywhere. */
int sp_hook_disable_merge_any(struct mm_struct *mm)
{
	int err;

	if (!mm_flags_test(MMF_VM_MERGE_ANY, mm))
		return 0;
	err = sp_remove_all(mm);
	if (err)
		sp_add_all(mm);
	else
		mm_flags_clear(MMF_VM_MERGE_ANY, mm);
	return err;
}

int sp_hook_disable(struct mm_struct *mm)
{
	mmap_assert_write_locked(mm);
	if (!mm_flags_test(MMF_VM_MERGEABLE, mm))
		return 0;
	if (mm_flags_test(MMF_VM_MERGE_ANY, mm))
		return sp_hook_disable_merge_any(mm);
	return sp_remove_all(mm);
}

/* What merging gained this process, in bytes, net of what we keep about it. */
long sp_hook_process_profit(struct mm_struct *mm)
{
	long kept = mm->ksm_merging_pages * sizeof(struct sp_item) +
		    mm->ksm_rmap_items * (sizeof(struct sp_block) / SP_BLOCK_PAGES);

	return (long)(mm->ksm_merging_pages + sp_mm_zero_pages(mm)) *
	       (long)PAGE_SIZE - kept;
}
