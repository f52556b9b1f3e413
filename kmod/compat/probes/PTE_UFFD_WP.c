// SPDX-License-Identifier: GPL-2.0-only
/* Named pte_uffd() */
#include <linux/mm.h>
pte_t probe(pte_t entry);
pte_t probe(pte_t entry)
{
	return pte_uffd_wp(entry) ? pte_mkuffd_wp(entry) : entry;
}
