// SPDX-License-Identifier: GPL-2.0-only
/* Told of a new mapping */
#include <linux/ksm.h>
void probe(struct vm_area_struct *vma);
void probe(struct vm_area_struct *vma)
{
	ksm_add_vma(vma);
}
