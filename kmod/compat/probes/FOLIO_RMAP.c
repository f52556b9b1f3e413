// SPDX-License-Identifier: GPL-2.0-only
/* The reverse map counts folios, by page-table level */
#include <linux/mm.h>
#include <linux/rmap.h>
void probe(struct folio *folio, struct vm_area_struct *vma);
void probe(struct folio *folio, struct vm_area_struct *vma)
{
	folio_add_anon_rmap_pte(folio, &folio->page, vma, 0, RMAP_NONE);
}
