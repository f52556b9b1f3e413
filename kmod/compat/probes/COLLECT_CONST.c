// SPDX-License-Identifier: GPL-2.0-only
/* Memory failure asks KSM who maps a page, and it and what it calls take pointers to const */
#include "KSM_COLLECT_PROCS.c"
void collect_procs_ksm(const struct folio *folio, const struct page *page,
		       struct list_head *to_kill, int force_early);
