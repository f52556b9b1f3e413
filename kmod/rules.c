// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rules about cgroups (version 2), each for its cgroup and all below it that has none.
 *
 * A rule holds a reference to its cgroup, so that the id stays its own. Those of cgroups that
 * were removed go when the next rule comes or goes, all at unload. They are changed under
 * their mutex, and read under RCU.
 */
#include <linux/capability.h>
#include <linux/cgroup.h>
#include <linux/err.h>
#include <linux/slab.h>

#include "rules.h"

struct sp_rule {
	struct cgroup *cgroup;
	u64 value;
	struct rcu_head rcu;
};

/* The cgroup whose rule holds for the task, and its value; 0: there is none. Needs RCU. */
u64 sp_ruled(struct sp_rules *rules, struct task_struct *task, u64 *value)
{
	struct cgroup *cgroup = xa_empty(&rules->by_cgroup) ? NULL : task_dfl_cgroup(task);
	const struct sp_rule *rule;

	for (; cgroup; cgroup = cgroup_parent(cgroup)) {
		rule = xa_load(&rules->by_cgroup, cgroup_id(cgroup));
		if (rule) {
			*value = rule->value;
			return cgroup_id(cgroup);
		}
	}
	return 0;
}

static void sp_rule_drop(struct sp_rule *rule)
{
	cgroup_put(rule->cgroup);
	kfree_rcu(rule, rcu);
}

/* Those of cgroups that were removed, or all. Needs the mutex. */
static void sp_rules_prune(struct sp_rules *rules, bool all)
{
	struct sp_rule *rule;
	unsigned long id;

	xa_for_each(&rules->by_cgroup, id, rule) {
		if (!all && (READ_ONCE(rule->cgroup->self.flags) & CSS_ONLINE))
			continue;
		xa_erase(&rules->by_cgroup, id);
		sp_rule_drop(rule);
	}
}

static int sp_rule_store(struct sp_rules *rules, u64 id, u64 value)
{
	struct cgroup *cgroup = cgroup_get_from_id(id);
	struct sp_rule *rule, *old;

	if (IS_ERR(cgroup))
		return -ENOENT;
	rule = kzalloc(sizeof(*rule), GFP_KERNEL);
	if (!rule) {
		cgroup_put(cgroup);
		return -ENOMEM;
	}
	rule->cgroup = cgroup;
	rule->value = value;
	old = xa_store(&rules->by_cgroup, id, rule, GFP_KERNEL);
	if (xa_is_err(old)) {
		sp_rule_drop(rule);
		return xa_err(old);
	}
	if (old)
		sp_rule_drop(old);
	return 0;
}

/* For CAP_SYS_ADMIN: 0, -EPERM, -ENOENT: no such cgroup, -ENOMEM. */
int sp_rule_set(struct sp_rules *rules, u64 cgroup, u64 value)
{
	int err;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	mutex_lock(&rules->mutex);
	sp_rules_prune(rules, false);
	err = sp_rule_store(rules, cgroup, value);
	mutex_unlock(&rules->mutex);
	return err;
}

/* For CAP_SYS_ADMIN: 0, -EPERM, -ENOENT: there is no rule. */
int sp_rule_clear(struct sp_rules *rules, u64 cgroup)
{
	struct sp_rule *rule;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	mutex_lock(&rules->mutex);
	sp_rules_prune(rules, false);
	rule = xa_erase(&rules->by_cgroup, cgroup);
	if (rule)
		sp_rule_drop(rule);
	mutex_unlock(&rules->mutex);
	return rule ? 0 : -ENOENT;
}

/* Whoever read them does so no more. */
void sp_rules_destroy(struct sp_rules *rules)
{
	mutex_lock(&rules->mutex);
	sp_rules_prune(rules, true);
	mutex_unlock(&rules->mutex);
	xa_destroy(&rules->by_cgroup);
}
