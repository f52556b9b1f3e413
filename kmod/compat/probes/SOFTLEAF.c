// SPDX-License-Identifier: GPL-2.0-only
/* Entries that are not present have a type of their own */
#include <linux/mm.h>
#include <linux/leafops.h>
bool probe(pte_t entry);
bool probe(pte_t entry)
{
	return softleaf_is_migration(softleaf_from_pte(entry));
}
