// SPDX-License-Identifier: GPL-2.0-only
/* Whole processes can be registered, by prctl() */
#include <linux/ksm.h>
int probe(struct mm_struct *mm);
int probe(struct mm_struct *mm)
{
	return mm ? ksm_enable_merge_any(mm) : MMF_VM_MERGE_ANY;
}
