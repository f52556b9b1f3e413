// SPDX-License-Identifier: GPL-2.0-only
/* There at all? */
#include <linux/ksm.h>
long probe(struct mm_struct *mm);
long probe(struct mm_struct *mm)
{
	return ksm_process_profit(mm);
}
