// SPDX-License-Identifier: GPL-2.0-only
/* mm_trace_rss_stat() is told the count */
#include <linux/mm.h>
void probe(struct mm_struct *mm);
void probe(struct mm_struct *mm)
{
	mm_trace_rss_stat(mm, 0, 0);
}
