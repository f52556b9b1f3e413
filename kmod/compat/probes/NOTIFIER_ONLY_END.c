// SPDX-License-Identifier: GPL-2.0-only
/* __mmu_notifier_invalidate_range_end() has a second parameter */
#include <linux/mmu_notifier.h>
void probe(struct mmu_notifier_range *range);
void probe(struct mmu_notifier_range *range)
{
	__mmu_notifier_invalidate_range_end(range, false);
}
