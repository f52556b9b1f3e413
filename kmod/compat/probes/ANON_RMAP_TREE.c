// SPDX-License-Identifier: GPL-2.0-only
/* The anon_vma's interval tree under a new name */
#include <linux/mm.h>
#include <linux/rmap.h>
struct anon_vma_chain *probe(struct anon_vma *anon_vma);
struct anon_vma_chain *probe(struct anon_vma *anon_vma)
{
	return anon_rmap_tree_iter_first(anon_vma, 0, 0);
}
