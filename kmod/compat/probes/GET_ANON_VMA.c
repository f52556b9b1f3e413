// SPDX-License-Identifier: GPL-2.0-only
/* What takes references to and locks of an anon_vma is in a public header */
#include <linux/mm.h>
#include <linux/rmap.h>
void probe(struct anon_vma *anon_vma);
void probe(struct anon_vma *anon_vma)
{
	get_anon_vma(anon_vma);
	if (anon_vma_trylock_read(anon_vma))
		anon_vma_unlock_read(anon_vma);
	put_anon_vma(anon_vma);
}
