/* SPDX-License-Identifier: GPL-2.0-only */
/* What an administrator said of cgroups: a number for each. */
#ifndef SAMEPAGE_RULES_H
#define SAMEPAGE_RULES_H

#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/xarray.h>

struct task_struct;

struct sp_rules {
	struct mutex mutex;		/* who changes them */
	struct xarray by_cgroup;	/* by its id; readers: RCU */
};

#define SP_RULES(rules) struct sp_rules rules = {			\
	.mutex = __MUTEX_INITIALIZER((rules).mutex),			\
	.by_cgroup = XARRAY_INIT((rules).by_cgroup, 0),			\
}

u64 sp_ruled(struct sp_rules *rules, struct task_struct *task, u64 *value);
int sp_rule_set(struct sp_rules *rules, u64 cgroup, u64 value);
int sp_rule_clear(struct sp_rules *rules, u64 cgroup);
void sp_rules_destroy(struct sp_rules *rules);

#endif
