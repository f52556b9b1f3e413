// SPDX-License-Identifier: GPL-2.0-only
/* Flags of a new mapping are asked for, in place of ksm_add_vma() */
#include <linux/ksm.h>
vma_flags_t probe(struct mm_struct *mm, vma_flags_t flags);
vma_flags_t probe(struct mm_struct *mm, vma_flags_t flags)
{
	return ksm_vma_flags(mm, NULL, flags);
}
