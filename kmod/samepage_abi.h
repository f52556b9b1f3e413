/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/* What programs say to /dev/samepage. */
#ifndef SAMEPAGE_ABI_H
#define SAMEPAGE_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Why a page is not merged, or that it is. */
enum samepage_reason {
	SAMEPAGE_MERGED,
	SAMEPAGE_ZERO,			/* the zero page, of which there is one */
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
	SAMEPAGE_OVER_BUDGET,		/* the scanner has not come to it: its tenant has had its percent */
	SAMEPAGE_EXCLUDED,		/* its cgroup takes no part */
	SAMEPAGE_REASONS
};

struct samepage_why {
	__s32 pid;			/* 0: one's own */
	__u32 reasons;			/* SAMEPAGE_REASONS, as the caller knows it */
	__u64 start, end;		/* addresses; end 0: to the last one */
	__u64 pages[SAMEPAGE_REASONS];	/* out: how many for each reason */
};

#define SAMEPAGE_IOC_WHY	_IOWR('m', 0x50, struct samepage_why)

/* Whose domain is chosen; it counts where domain_by is "explicit". */
enum samepage_whose {
	SAMEPAGE_PROCESS,		/* for whoever may attach to it by ptrace() */
	SAMEPAGE_CGROUP,		/* and all below it; for CAP_SYS_ADMIN */
};

struct samepage_domain {
	__u32 whose;
	__u32 reserved;			/* 0 */
	__u64 id;			/* the pid (0: one's own), or the cgroup's id */
	__u64 name;			/* any number; to clear: 0 */
};

#define SAMEPAGE_IOC_SET_DOMAIN		_IOW('m', 0x51, struct samepage_domain)
#define SAMEPAGE_IOC_CLEAR_DOMAIN	_IOW('m', 0x52, struct samepage_domain)

/* How a cgroup and all below it take part; for CAP_SYS_ADMIN. */
struct samepage_share {
	__u64 cgroup;			/* its id */
	__u32 weight;			/* 1 to 10000 among all tenants; 100: as a user */
	__u32 percent;			/* of a CPU at most, to 1600; 0: no limit */
	__u32 excluded;			/* 1: nothing of it is merged */
	__u32 timing_safe;		/* 1: merged so, apart from what is not */
};

#define SAMEPAGE_IOC_SET_SHARE		_IOW('m', 0x53, struct samepage_share)
#define SAMEPAGE_IOC_CLEAR_SHARE	_IOW('m', 0x54, struct samepage_share)

/* Pages of the caller's memory whose contents all domains may share; for CAP_SYS_ADMIN. */
struct samepage_contents {
	__u64 start, end;		/* addresses of whole pages */
};

#define SAMEPAGE_IOC_SHARE_CONTENTS	_IOW('m', 0x55, struct samepage_contents)
#define SAMEPAGE_IOC_CLEAR_CONTENTS	_IO('m', 0x56)

#endif
