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

/* Absent, huge and vanishing page tables are seen to here or by the kernel. */
pte_t *sp_pte_lock_in(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
		      spinlock_t **ptl)
{
#if !defined(SP_HAVE_PTE_LOCK_CHECKED) && !defined(SP_HAVE_PTE_LOCK_EXTERN)
	/* With mmap_lock held, a page table does not go away again. */
	pmd_t entry = pmdp_get_lockless(pmd);

	if (!pmd_present(entry) || pmd_leaf(entry) || pmd_bad(entry))
		return NULL;
#endif
	return pte_offset_map_lock(mm, pmd, addr, ptl);
}

pte_t *sp_pte_lock(struct mm_struct *mm, unsigned long addr, spinlock_t **ptl)
{
	pmd_t *pmd = sp_pmd(mm, addr);

	return pmd ? sp_pte_lock_in(mm, pmd, addr, ptl) : NULL;
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
