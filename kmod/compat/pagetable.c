// SPDX-License-Identifier: GPL-2.0-only
/* Page-table descent with what every kernel of the matrix offers. */
#include "compat.h"

/*
 * The middle-level table that covers @addr, at @addr's entry; NULL where there is
 * none. Sets where it, or the hole, ends.
 */
static pmd_t *sp_pmd_table(struct mm_struct *mm, unsigned long addr, unsigned long *end)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	*end = (addr & PGDIR_MASK) + PGDIR_SIZE;
	if (!pgd_present(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	*end = (addr & P4D_MASK) + P4D_SIZE;
	if (!p4d_present(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	*end = (addr & PUD_MASK) + PUD_SIZE;
	if (!pud_present(*pud) || pud_leaf(*pud))
		return NULL;
	return pmd_offset(pud, addr);
}

static pmd_t *sp_pmd(struct mm_struct *mm, unsigned long addr)
{
	unsigned long end;

	return sp_pmd_table(mm, addr, &end);
}

/* Terabytes may have next to nothing in them: the loop over what is none is what counts. */
static bool sp_visit_pmds(struct vm_area_struct *vma, pmd_t *table,
			  unsigned long addr, unsigned long end,
			  sp_pmd_visitor visit, void *arg)
{
	unsigned long base = addr & PMD_MASK;
	unsigned int i, nr = DIV_ROUND_UP(end - base, PMD_SIZE);

	for (i = 0; i < nr; i++) {
		unsigned long start;

		if (i + 8 <= nr && sp_eight_none(table + i)) {
			i += 7;
			continue;
		}
		if (pmd_none(pmdp_get_lockless(table + i)))
			continue;
		start = base + i * PMD_SIZE;
		if (visit(vma, table + i, max(addr, start), min(end, start + PMD_SIZE), arg))
			return true;
	}
	return false;
}

bool sp_walk_pmds(struct vm_area_struct *vma, unsigned long addr, unsigned long end,
		  sp_pmd_visitor visit, void *arg)
{
	mmap_assert_locked(vma->vm_mm);
	while (addr < end) {
		unsigned long table_end;
		pmd_t *table = sp_pmd_table(vma->vm_mm, addr, &table_end);

		table_end = min(table_end, end);
		if (table && sp_visit_pmds(vma, table, addr, table_end, visit, arg))
			return true;
		addr = table_end;
		cond_resched();
	}
	return false;
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
