// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reading the page-table entries of a block: all that a settled page costs in a pass.
 *
 * Needs the page-table lock and the space's records.
 */
#include <linux/hash.h>
#include <linux/mm.h>

#include "samepage.h"
#include "entries.h"

static bool sp_is_clean(pte_t entry)
{
	return pte_present(entry) && !pte_dirty(entry);
}

/* By eights that mostly say the same. */
struct sp_entries sp_read_entries(pte_t *ptep)
{
	struct sp_entries entries = { };
	unsigned int at, i;

	for (at = 0; at < SP_BLOCK_PAGES; at += 8) {
		pteval_t any = 0, all = ~0UL;

#pragma GCC unroll 8
		for (i = 0; i < 8; i++) {
			/* Ours, but for the bits that the processor sets. */
			any |= native_pte_val(ptep[at + i]);
			all &= native_pte_val(ptep[at + i]);
		}
		if (!any)
			entries.none |= 0xffULL << at;
		else if ((all & _PAGE_PRESENT) && !(any & _PAGE_DIRTY_BITS))
			entries.clean |= 0xffULL << at;
		else if (!(all & _PAGE_DIRTY))	/* else: all were written, or are elsewhere */
			for (i = at; i < at + 8; i++)
				entries.clean |= (u64)sp_is_clean(ptep_get(ptep + i)) << i;
	}
	return entries;
}

/* Where writes do not show in entries, that a page is there is all they tell. */
u64 sp_read_present(pte_t *ptep)
{
	u64 present = 0;
	unsigned int i;

	for (i = 0; i < SP_BLOCK_PAGES; i++)
		present |= (u64)!!pte_present(ptep_get(ptep + i)) << i;
	return present;
}

/* Which of these sharers map the page that their record says. */
static u64 sp_still_sharing(const struct sp_block *block, pte_t *ptep, u64 sharers)
{
	const pteval_t mask = PTE_PFN_MASK;
	u64 same = sharers;
	unsigned int i;

	for (i = 0; i < SP_BLOCK_PAGES; i++) {
		pteval_t frame;

		if (!(sharers >> i & 1))
			continue;
		frame = READ_ONCE(block->slot[i].item->stable->pfn) << PAGE_SHIFT;
		if ((frame ^ native_pte_val(ptep_get(ptep + i))) & mask)
			same &= ~sp_bit(i);
	}
	return same;
}

/* Two sets of entries with the same sum are the same, but by an accident of one in 2^64. */
static u64 sp_sum_entries(pte_t *ptep)
{
	unsigned int i;
	u64 sum = 0;

#pragma GCC unroll 16
	for (i = 0; i < SP_BLOCK_PAGES; i++)
		sum = sum * GOLDEN_RATIO_64 + native_pte_val(ptep[i]);
	return sum;
}

/*
 * The same for those of @clean, but by their entries' sum while it stays: mostly
 * nothing has come between two passes.
 */
u64 sp_clean_sharers(struct sp_block *block, pte_t *ptep, u64 clean)
{
	u64 sum = sp_sum_entries(ptep), same;

	if (sum && block->shared_sum == sum)
		return block->sharers & clean;
	same = sp_still_sharing(block, ptep, block->sharers & clean);
	block->shared_sum = same == block->sharers ? sum : 0;
	return same;
}
