// SPDX-License-Identifier: GPL-2.0-only
/* Zero pages placed by KSM are counted, and told apart by a dirty entry */
#include <linux/ksm.h>
long probe(struct mm_struct *mm, pte_t entry);
long probe(struct mm_struct *mm, pte_t entry)
{
	return is_ksm_zero_pte(entry) + mm_ksm_zero_pages(mm);
}
