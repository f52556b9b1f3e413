// SPDX-License-Identifier: GPL-2.0-only
/* What ksm_vma_flags() and ksm_process_mergeable() of newer kernels ask for. */
#include "../samepage.h"

#ifdef SP_HAVE_KSM_VMA_FLAGS
/* The flags of a new mapping, as sp_hook_add_vma() would have them. */
vma_flags_t sp_hook_vma_flags(struct mm_struct *mm, const struct file *file,
			      vma_flags_t flags)
{
	bool dax = file && file->f_mapping && IS_DAX(file->f_mapping->host);

	if (!mm_flags_test(MMF_VM_MERGE_ANY, mm))
		return flags;
	if (!dax && sp_flags_compatible(vma_flags_to_legacy(flags)))
		vma_flags_set(&flags, VMA_MERGEABLE_BIT);
	sp_hook_new_mapping(mm);
	return flags;
}
#endif

#ifdef SP_HAVE_KSM_PROCESS_MERGEABLE
bool sp_hook_process_mergeable(struct mm_struct *mm)
{
	mmap_assert_locked(mm);
	return sp_has_mergeable(mm);
}
#endif
