// SPDX-License-Identifier: GPL-2.0-only
/* ksm_stat asks whether a process has mergeable mappings */
#include <linux/ksm.h>
bool probe(struct mm_struct *mm);
bool probe(struct mm_struct *mm)
{
	return ksm_process_mergeable(mm);
}
