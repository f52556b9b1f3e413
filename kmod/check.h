/* SPDX-License-Identifier: GPL-2.0-only */
/* Checking what the module knows against itself and against the page tables. */
#ifndef SAMEPAGE_CHECK_H
#define SAMEPAGE_CHECK_H

#include <linux/seq_file.h>

#include "samepage.h"

struct sp_mappings;

/* What a check counted, and how often something was not as it must be. */
struct sp_check {
	struct seq_file *out;		/* NULL: the kernel log */
	unsigned long faults;
	unsigned long spaces, blocks;
	unsigned long tracked, candidates, sharers;
	unsigned long filed;		/* found in the unstable tree */
	unsigned long nodes, shared, sharing, chains, dups;
	unsigned long buried, left;	/* nodes out of the tree, and their sharers */
	unsigned long stale;		/* nodes in the tree whose folio has gone */
	unsigned long compared;		/* merged pages whose content was signed anew */
	unsigned long mappings;		/* of them that the reverse map finds */
	unsigned long unreached;	/* and does not find: forks of processes that are gone */
	unsigned long missed;		/* of those, sharers' own: swapped out, then moved */
	unsigned long unwalked;		/* merged pages with too many mappings, or too little memory */
	struct sp_mappings *found;	/* of the page that is looked at; NULL without memory */
};

__printf(2, 3) void sp_check_fault(struct sp_check *check, const char *format, ...);

/* One fault more, with the place, unless @condition holds. */
#define sp_check_that(check, condition, format, ...)				\
	do {									\
		if (!(condition))						\
			sp_check_fault(check, #condition ": " format, ##__VA_ARGS__); \
	} while (0)

/* No scanner may be at work. */
void sp_check_records(struct sp_check *check);
void sp_check_unstable(struct sp_check *check);
void sp_check_stable(struct sp_check *check);
void sp_check_kept(struct sp_check *check);
void sp_check_gone(struct sp_check *check, const struct sp_item *item);

/* check.c */
void sp_check_pass(void);
void sp_check_init(void);
void sp_check_exit(void);

#endif
