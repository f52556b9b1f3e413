// SPDX-License-Identifier: GPL-2.0-only
/* ksm_might_need_to_copy() in terms of folios, or of pages as before. */
#include "../samepage.h"

#ifdef SP_HAVE_KSM_COPY_FOLIO
sp_copy_type *sp_hook_might_need_to_copy(sp_copy_type *folio,
					 struct vm_area_struct *vma,
					 unsigned long addr)
{
	return sp_copy_if_needed(folio, vma, addr);
}
#else
sp_copy_type *sp_hook_might_need_to_copy(sp_copy_type *page,
					 struct vm_area_struct *vma,
					 unsigned long addr)
{
	struct folio *folio = page_folio(page);
	struct folio *copy;

	if (folio_test_large(folio))
		return page;
	copy = sp_copy_if_needed(folio, vma, addr);
	/* NULL, an error, or a small folio, whose page has the same address. */
	return (struct page *)copy;
}
#endif
