// SPDX-License-Identifier: GPL-2.0-only
/* pte_offset_map_lock() is a function of its own, no inline wrapper */
#include <linux/mm.h>
pte_t *pte_offset_map_lock(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
			   spinlock_t **ptlp)
{
	return NULL;
}
