// SPDX-License-Identifier: GPL-2.0-only
/* There at all? */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/swapops.h>
struct folio *probe(swp_entry_t entry);
struct folio *probe(swp_entry_t entry)
{
	return pfn_swap_entry_folio(entry);
}
