// SPDX-License-Identifier: GPL-2.0-only
/* pte_offset_map_lock() may fail: it looks at the PMD itself */
#include <linux/mm.h>
pte_t *probe(struct mm_struct *mm, pmd_t *pmd, spinlock_t **ptl);
pte_t *probe(struct mm_struct *mm, pmd_t *pmd, spinlock_t **ptl)
{
	return __pte_offset_map_lock(mm, pmd, 0, ptl);
}
