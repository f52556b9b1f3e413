// SPDX-License-Identifier: GPL-2.0-only
/* Mappings have locks of their own */
#include <linux/mm.h>
void probe(struct vm_area_struct *vma);
void probe(struct vm_area_struct *vma)
{
	vma_start_write(vma);
}
