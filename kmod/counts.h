/* SPDX-License-Identifier: GPL-2.0-only */
/* What the module counts, but for what stripes.h has. */
#ifndef SAMEPAGE_COUNTS_H
#define SAMEPAGE_COUNTS_H

#include <linux/percpu.h>
#include <linux/stddef.h>

/* What happened: each CPU has its part of each count. */
struct sp_counts {
	unsigned long pages_scanned;
	unsigned long pages_tracked;	/* in-tree's rmap items */
	unsigned long pages_skipped;
	unsigned long blocks;
	unsigned long items;
	unsigned long stables;
	unsigned long merges;
	unsigned long merges_failed;
	unsigned long unmerged;		/* by faults of any process */
	unsigned long stale_candidates;
	unsigned long sample_collisions;
	unsigned long huge_seen, huge_left;	/* in this pass, so far */
	unsigned long huge_split;
	unsigned long kept;		/* see timing.c */
	unsigned long lock_waits;	/* of scanners for one another */
};

DECLARE_PER_CPU(struct sp_counts, sp_counts);
unsigned long sp_counted_at(size_t offset);
#define sp_counted(count)	sp_counted_at(offsetof(struct sp_counts, count))
#define sp_count(count)		this_cpu_inc(sp_counts.count)
#define sp_uncount(count)	this_cpu_dec(sp_counts.count)
#define sp_count_by(count, by)	this_cpu_add(sp_counts.count, by)

/* Of passes; see scan.c. */
struct sp_passes {
	unsigned long full_scans;
	unsigned long huge_examined, huge_spared;	/* in the last one */
};

extern struct sp_passes sp_passes;

#endif
