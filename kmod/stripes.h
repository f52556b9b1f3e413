/* SPDX-License-Identifier: GPL-2.0-only */
/* Stripes of the trees, and the locks that scanners share them by. Their order: samepage.h. */
#ifndef SAMEPAGE_STRIPES_H
#define SAMEPAGE_STRIPES_H

#include <linux/jump_label.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>

#include "counts.h"

/*
 * The trees are divided by the low bits of the brief key, so that scanners which
 * look for different contents seldom meet.
 */
#define SP_STRIPES	16

struct sp_stripe {
	struct mutex merging;		/* who looks for twins */
	spinlock_t lock;		/* all below, and what candidates' slots say */
	/* unstable.c */
	u32 **segments;			/* of buckets, each a page */
	unsigned long nr_segments;	/* of them there are */
	unsigned int max_segments;	/* there is room for */
	u32 nr_buckets;			/* in use */
	u32 bucket_mask;		/* rounded up to a power of two, less 1 */
	unsigned long candidates;
	/* stable.c */
	struct rb_root tree;
	struct list_head orphans;
	unsigned long shared, sharing, chains, chain_dups;
} ____cacheline_aligned;

extern struct sp_stripe sp_stripes[SP_STRIPES];

static inline struct sp_stripe *sp_stripe_of(u32 brief)
{
	return &sp_stripes[brief % SP_STRIPES];
}

#define sp_for_each_stripe(stripe) \
	for (stripe = sp_stripes; stripe < sp_stripes + SP_STRIPES; stripe++)

/* A sum over all stripes; exact under sp_scan_lock held for writing. */
#define sp_stripes_sum(count) sp_stripes_sum_at(offsetof(struct sp_stripe, count))
unsigned long sp_stripes_sum_at(size_t offset);

/*
 * More than one scanner? Else whoever holds sp_scan_lock is alone, and the locks
 * of stripes and records are not taken: they would cost a tenth of a look at a page,
 * and asking for it a hundredth, if the code were not patched. Changed with
 * sp_scan_lock held for writing.
 */
DECLARE_STATIC_KEY_FALSE(sp_parallel);

static inline bool sp_is_parallel(void)
{
	return static_branch_unlikely(&sp_parallel);
}

static inline void sp_count_wait(bool is_locked)
{
	if (is_locked)
		sp_count(lock_waits);
}

static inline void sp_stripe_lock(struct sp_stripe *stripe)
{
	if (sp_is_parallel())
		spin_lock(&stripe->lock);
}

static inline void sp_stripe_unlock(struct sp_stripe *stripe)
{
	if (sp_is_parallel())
		spin_unlock(&stripe->lock);
}

#endif
