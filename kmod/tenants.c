// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tenants: who shares the scanners' time, and what an administrator said of it.
 *
 * A cgroup of which something was said is a tenant, with all below it of which nothing was.
 * Else a tenant is a user; with domain_by "cgroup" and a level the cgroup that is the domain
 * (without one, whoever may make cgroups would make tenants); with "none" there is one.
 * Whoever runs in a user namespace is who made the outermost one: the users in it are that
 * one's at will. Where root made it, the namespace is a tenant.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/sched.h>
#include <linux/user_namespace.h>

#include "samepage.h"
#include "rules.h"

static SP_RULES(sp_shares);

static u64 sp_packed(const struct sp_share *share)
{
	return share->weight | (u64)share->percent << 16 | (u64)share->excluded << 32 |
	       (u64)share->timing_safe << 33;
}

static struct sp_share sp_unpacked(u64 packed)
{
	return (struct sp_share) {
		.weight = packed,
		.percent = packed >> 16,
		.excluded = packed >> 32 & 1,
		.timing_safe = packed >> 33 & 1,
	};
}

static void sp_name_user(const struct cred *cred, struct sp_tenant_name *name)
{
	struct user_namespace *ns = cred->user_ns;

	name->by = SP_TENANT_USER;
	name->who = __kuid_val(cred->euid);
	if (ns == &init_user_ns)
		return;
	while (ns->parent != &init_user_ns)
		ns = ns->parent;
	name->who = __kuid_val(ns->owner);
	if (!uid_eq(ns->owner, GLOBAL_ROOT_UID))
		return;
	name->by = SP_TENANT_NAMESPACE;
	name->who = ns->ns.inum;
}

/* Whose memory is the task's, and what share has it? Needs RCU. */
void sp_tenant_of(struct task_struct *task, struct sp_tenant_name *name, struct sp_share *share)
{
	u64 packed = SP_WEIGHT_DEFAULT;

	*name = (struct sp_tenant_name) { .by = SP_TENANT_SHARE };
	name->who = sp_ruled(&sp_shares, task, &packed);
	*share = sp_unpacked(packed);
	if (name->who)
		return;
	if (sp_domain_policy() == SP_BY_NONE) {
		name->by = SP_TENANT_ALL;
	} else if (sp_domain_policy() == SP_BY_CGROUP && sp_domain_level()) {
		name->by = SP_TENANT_CGROUP;
		name->who = sp_domain_cgroup(task);
	} else {
		sp_name_user(__task_cred(task), name);
	}
}

int sp_share_set(u64 cgroup, const struct sp_share *share)
{
	int err = sp_rule_set(&sp_shares, cgroup, sp_packed(share));

	if (!err)
		sp_registry_forgive();
	return err;
}

int sp_share_clear(u64 cgroup)
{
	int err = sp_rule_clear(&sp_shares, cgroup);

	if (!err)
		sp_registry_forgive();
	return err;
}

void sp_shares_destroy(void)
{
	sp_rules_destroy(&sp_shares);
}
