// SPDX-License-Identifier: GPL-2.0-only
/* ksm_might_need_to_copy() works on folios */
#include <linux/ksm.h>
struct folio *probe(struct folio *folio, struct vm_area_struct *vma);
struct folio *probe(struct folio *folio, struct vm_area_struct *vma)
{
	return ksm_might_need_to_copy(folio, vma, 0);
}
