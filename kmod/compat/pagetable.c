// SPDX-License-Identifier: GPL-2.0-only
/* Page-table descent with what every kernel of the matrix offers. */
#include "compat.h"

static pmd_t *sp_pmd(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (!pgd_present(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (!p4d_present(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (!pud_present(*pud) || pud_leaf(*pud))
		return NULL;
	return pmd_offset(pud, addr);
}

pte_t *sp_pte_lock(struct mm_struct *mm, unsigned long addr, spinlock_t **ptl)
{
	pmd_t *pmd = sp_pmd(mm, addr);

	/* Sees to absent, huge and vanishing page tables itself. */
	return pmd ? pte_offset_map_lock(mm, pmd, addr, ptl) : NULL;
}

pmd_t *sp_pmd_lock_huge(struct mm_struct *mm, unsigned long addr,
			spinlock_t **ptl, pmd_t *entry)
{
	pmd_t *pmd = sp_pmd(mm, addr);

	if (!pmd)
		return NULL;
	*ptl = pmd_lock(mm, pmd);
	*entry = pmdp_get(pmd);
	if (pmd_present(*entry) && pmd_leaf(*entry))
		return pmd;
	spin_unlock(*ptl);
	return NULL;
}
