/* SPDX-License-Identifier: GPL-2.0-only */
/* Security domains: pages merge only within one. */
#ifndef SAMEPAGE_DOMAIN_H
#define SAMEPAGE_DOMAIN_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/refcount.h>
#include <linux/types.h>

struct seq_file;
struct sp_space;
struct task_struct;

/* What makes a domain. */
enum sp_domain_by { SP_BY_NONE, SP_BY_USER, SP_BY_CGROUP, SP_BY_EXPLICIT, SP_NR_BY };
extern const char *const sp_domain_by_names[SP_NR_BY];

/* Whose memory a domain is. */
struct sp_domain_name {
	enum sp_domain_by by;
	const void *within;		/* the user namespace, else NULL */
	u64 who;			/* uid, the cgroup's id, or SP_ADMINISTRATOR */
	u64 chosen;			/* a number, where somebody chose */
	bool timing_safe;		/* by its share; not where all domains are */
};

#define SP_ADMINISTRATOR U64_MAX	/* no user has this number */
#define SP_EVERYBODY	U16_MAX		/* the number of contents for all, contents.c */

struct sp_domain {
	struct sp_domain_name name;
	struct list_head list;		/* sp_domain_lock */
	refcount_t refs;		/* of spaces and of stable nodes */
	u16 id;
	atomic_long_t spaces;		/* registered address spaces */
	atomic_long_t shared;		/* stable nodes, those that are just going included */
	atomic_long_t copies;		/* of merged pages, noticed by the scanner */
	atomic64_t scan_ns;		/* of the scanners' time */
	long sum_sharers, sum_zero, sum_blocks;	/* sp_scan_lock for writing: while they are listed */
};

bool sp_domain_settle(struct sp_space *space);
void sp_domain_leave(struct sp_space *space);
void sp_domain_hold(u16 id);
void sp_domain_release(u16 id);
int sp_domain_set(enum sp_domain_by by, unsigned int level);
enum sp_domain_by sp_domain_policy(void);
unsigned int sp_domain_level(void);
u64 sp_domain_cgroup(struct task_struct *task);
bool sp_any_domain(bool (*is_it)(u16 id, void *arg), void *arg);
void sp_domains_show(struct seq_file *file);
void sp_domains_destroy(void);

#endif
