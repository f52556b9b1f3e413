// SPDX-License-Identifier: GPL-2.0-only
/* mm->flags behind accessors */
#include <linux/mm.h>
bool probe(struct mm_struct *mm);
bool probe(struct mm_struct *mm)
{
	return mm_flags_test(MMF_VM_MERGEABLE, mm);
}
