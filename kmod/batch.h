/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A batch: what the collector found to do in a stretch of one address space.
 * What it says is a hint: by the time a page is merged it may be gone, so
 * merging looks each one up anew.
 */
#ifndef SAMEPAGE_BATCH_H
#define SAMEPAGE_BATCH_H

#include "samepage.h"

#define SP_BATCH_PAGES 256
#define SP_TURN_NS	NSEC_PER_MSEC	/* about, of a scanner's time */

enum sp_todo {
	SP_TODO_SIGN,		/* unchanged, as far as is known, and not filed */
	SP_TODO_ADOPT,		/* a merged page that came by fork */
	SP_TODO_LOST,		/* a sharer whose page was copied */
	SP_TODO_GONE,		/* not there any more */
};

/* What few pages are. */
#define SP_CROWDED	BIT(0)		/* signed in full: signature.c */
#define SP_COMMON	BIT(1)		/* for all domains: contents.c */
#define SP_ALONE	BIT(2)		/* merged, with a twin or not: timing.c, contents.c */

struct sp_found {
	struct sp_block *block;
	struct page *page;		/* to compare with, not to follow */
	union {
		struct sp_stable *stable;	/* SP_TODO_ADOPT */
		u64 sample;			/* SP_TODO_SIGN */
	};
	u64 full;			/* where the sample is crowded */
	u16 nid;
	u8 index;
	u8 todo;
	u8 special;			/* SP_TODO_SIGN */
};

struct sp_batch {
	struct sp_space *space;
	unsigned long at;	/* all below is done */
	u64 began;		/* local_clock() */
	unsigned int steps;	/* mappings and page tables */
	unsigned int budget;	/* pages that may still be looked at */
	unsigned int passed;	/* pages passed by, not yet taken off the budget */
	unsigned int count;	/* entries of found[] */
	bool by_dirty;		/* writes show as dirty entries */
	bool reexamine;		/* what is settled counts for nothing */
	bool refile;		/* what another candidate stood for is not settled */
	unsigned long cleaned_from, cleaned_to;	/* to be flushed */
	struct sp_found found[SP_BATCH_PAGES];
};

/* collect.c: needs mmap_lock; false where the batch ends before the mapping does. */
bool sp_collect_vma(struct sp_batch *batch, struct vm_area_struct *vma,
		    unsigned long start);
bool sp_batch_takes_long(struct sp_batch *batch);
void sp_take_signatures(struct sp_batch *batch);

/* match.c */
void sp_match_page(struct sp_batch *batch, struct sp_found *found);

static inline bool sp_is_sharer(const struct sp_block *block, unsigned int index)
{
	return block->sharers & sp_bit(index);
}

static inline void sp_count_merge(int err)
{
	if (err)
		sp_count(merges_failed);
	else
		sp_count(merges);
}

/* twins.c: needs `merging` of the key's stripe, and the records of the page's space. */
int sp_try_twins(struct sp_block *block, unsigned int index, const struct sp_key *key,
		 u32 signature);
void sp_note_part(const struct sp_found *found, const struct sp_key *key, u32 signature);
void sp_unsettle_equals(const struct sp_key *key, struct sp_space *own);

#endif
