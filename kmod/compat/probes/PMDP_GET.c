// SPDX-License-Identifier: GPL-2.0-only
/* Accessors of a PMD */
#include <linux/mm.h>
pmd_t probe(pmd_t *pmd);
pmd_t probe(pmd_t *pmd)
{
	return pmd_same(pmdp_get(pmd), pmdp_get_lockless(pmd)) ? *pmd : __pmd(0);
}
