// SPDX-License-Identifier: GPL-2.0-only
/* There at all? */
#include <linux/ksm.h>
int probe(struct mm_struct *mm);
int probe(struct mm_struct *mm)
{
	return ksm_disable(mm);
}
