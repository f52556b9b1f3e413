// SPDX-License-Identifier: GPL-2.0-only
/* Memory failure asks KSM who maps a page */
#include <linux/ksm.h>
void probe(struct folio *folio, struct list_head *to_kill);
void probe(struct folio *folio, struct list_head *to_kill)
{
	collect_procs_ksm(folio, &folio->page, to_kill, 0);
}
