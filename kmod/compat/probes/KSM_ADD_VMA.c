// SPDX-License-Identifier: GPL-2.0-only
/* Told of a new mapping: 6.4 to 6.15 */
#include <linux/ksm.h>
void probe(struct vm_area_struct *vma);
void probe(struct vm_area_struct *vma)
{
	ksm_add_vma(vma);
}
