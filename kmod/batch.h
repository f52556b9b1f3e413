/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A batch: the pages of one block that lie in one mergeable mapping, as the
 * collector found them. What it says is a hint: by the time a page is merged it
 * may be gone, so merging looks each one up anew.
 */
#ifndef SAMEPAGE_BATCH_H
#define SAMEPAGE_BATCH_H

#include "samepage.h"

struct sp_batch {
	struct sp_space *space;
	unsigned long base;	/* of the block */
	unsigned long start;	/* what was looked at, exclusive end */
	unsigned long end;
	unsigned int budget;	/* pages that may still be looked at */
	unsigned int count;	/* entries of found[] */
	u64 present;		/* slots whose page is there */
	struct sp_found {
		struct page *page;		/* to compare with, not to follow */
		struct sp_stable *stable;	/* merged already, or NULL */
		u64 signature;
		u16 nid;
		u8 index;
	} found[SP_BLOCK_PAGES];
};

static inline unsigned int sp_index(unsigned long addr)
{
	return (addr & ~SP_BLOCK_MASK) >> PAGE_SHIFT;
}

/* collect.c: needs mmap_lock; true when the batch has pages. */
bool sp_collect_vma(struct sp_batch *batch, struct vm_area_struct *vma,
		    unsigned long start);
void sp_take_signatures(struct sp_batch *batch);

/* match.c */
void sp_match_page(struct sp_block *block, struct sp_found *found);

#endif
