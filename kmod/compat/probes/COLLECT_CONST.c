// SPDX-License-Identifier: GPL-2.0-only
/* collect_procs_ksm() and what it calls take pointers to const */
#include <linux/ksm.h>
void collect_procs_ksm(const struct folio *folio, const struct page *page,
		       struct list_head *to_kill, int force_early);
