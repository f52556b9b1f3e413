// SPDX-License-Identifier: GPL-2.0-only
/*
 * Huge pages: whether merging some of its parts is worth splitting one.
 *
 * The parts of a huge page are filed like other pages, but a twin is only noted
 * at first (sp_block.twinned). Once so many have one that what they save is
 * worth more than the huge mapping (huge_min_twins), and nobody used the page
 * since the last pass, it is opened: its parts are tried anew, and the first
 * merge splits it. Two parts meet only where both their huge pages are open.
 *
 * The marks are hints: a twin may be gone when its turn comes. Needs the space's
 * records.
 */
#include <linux/bitops.h>
#include <linux/mm.h>

#include "samepage.h"

/* In how many parts of the huge page at @start a twin was noted. */
static unsigned int sp_huge_twins(struct sp_space *space, unsigned long start)
{
	struct sp_block *block;
	unsigned int twins = 0;
	unsigned long at;

	sp_for_each_block_in(space, start, start + PMD_SIZE, at, block)
		twins += hweight64(block->twinned);
	return twins;
}

/* Have enough parts of the huge page at @start twins to split it? */
bool sp_huge_worth_splitting(struct sp_space *space, unsigned long start)
{
	unsigned int twins = sp_huge_twins(space, start);

	return twins && twins >= READ_ONCE(sp_tunables.huge_min_twins);
}

/* Parts of a block are to be looked at anew. */
static void sp_parts_changed(struct sp_block *block, u64 parts)
{
	for (; parts; parts &= parts - 1)
		sp_slot_changed(block, __ffs64(parts));
}

/* So are those that were passed by though they have a twin. */
static void sp_retry_twinned(struct sp_block *block)
{
	sp_parts_changed(block, block->twinned & ~block->sharers);
}

/* Until its next visit parts of the huge page at @start may be merged, or not. */
void sp_huge_open(struct sp_space *space, unsigned long start, bool open)
{
	struct sp_block *block;
	unsigned long at;

	sp_for_each_block_in(space, start, start + PMD_SIZE, at, block) {
		block->spared = !open;
		if (open)
			sp_retry_twinned(block);
	}
}

/* All of the huge page at @start has changed. */
void sp_huge_changed(struct sp_space *space, unsigned long start)
{
	struct sp_block *block;
	unsigned long at;

	sp_for_each_block_in(space, start, start + PMD_SIZE, at, block) {
		block->twinned = 0;
		sp_parts_changed(block, block->candidates);
		block->settled &= block->sharers;
	}
}

/* A pass is done with the huge page at @start, which is one yet. */
void sp_huge_count(struct sp_space *space, unsigned long start)
{
	if (!space->tenant->due)
		return;	/* others' pass is long: this is not the first look in it */
	sp_count(huge_seen);
	if (sp_huge_twins(space, start))
		sp_count(huge_left);
}

/* The block's pages are small now: what was spared for its neighbours' sake is tried. */
void sp_huge_no_more(struct sp_block *block)
{
	block->spared = false;
	sp_retry_twinned(block);
	block->twinned = 0;
}

/* The counts of the pass that ends are those that are shown. No scanner is at work. */
void sp_huge_pass_ends(void)
{
	static unsigned long seen, left;

	sp_passes.huge_examined = sp_counted(huge_seen) - seen;
	sp_passes.huge_spared = sp_counted(huge_left) - left;
	seen += sp_passes.huge_examined;
	left += sp_passes.huge_spared;
}
