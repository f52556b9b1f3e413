/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/* What programs say to /dev/samepage. */
#ifndef SAMEPAGE_ABI_H
#define SAMEPAGE_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Why a page is not merged, or that it is. */
enum samepage_reason {
	SAMEPAGE_MERGED,
	SAMEPAGE_ZERO,			/* the zero page in place of an empty one */
	SAMEPAGE_NOT_REGISTERED,	/* no MADV_MERGEABLE, no PR_SET_MEMORY_MERGE */
	SAMEPAGE_NOT_ANONYMOUS,
	SAMEPAGE_NOT_YET,		/* the scanner has not come to it */
	SAMEPAGE_VOLATILE,		/* it changes from pass to pass */
	SAMEPAGE_UNIQUE,		/* nobody has its equal */
	SAMEPAGE_FORKED,		/* the same page, shared by fork, stands for it */
	SAMEPAGE_OTHER_DOMAIN,		/* only another domain has its equal; UNIQUE to whoever is not root */
	SAMEPAGE_CHAIN_FULL,		/* its equals have max_page_sharing sharers */
	SAMEPAGE_PINNED,		/* a device may write to it */
	SAMEPAGE_HUGE_SPARED,		/* part of a huge page with too few twins */
	SAMEPAGE_SWAPPED,
	SAMEPAGE_REASONS
};

struct samepage_why {
	__s32 pid;			/* 0: one's own */
	__u32 reasons;			/* SAMEPAGE_REASONS, as the caller knows it */
	__u64 start, end;		/* addresses; end 0: to the last one */
	__u64 pages[SAMEPAGE_REASONS];	/* out: how many for each reason */
};

#define SAMEPAGE_IOC_WHY	_IOWR('m', 0x50, struct samepage_why)

#endif
