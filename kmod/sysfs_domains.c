// SPDX-License-Identifier: GPL-2.0-only
/* What makes a security domain, under /sys/kernel/mm/samepage. */
#include <linux/kstrtox.h>
#include <linux/string.h>

#include "samepage.h"
#include "attrs.h"
#include "control.h"

static ssize_t domain_by_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", sp_domain_by_names[sp_domain_policy()]);
}

/* Who may read in-tree's counters depends on the policy, whether or not all could be unmerged. */
static int sp_set_policy(enum sp_domain_by by)
{
	static DEFINE_MUTEX(one_at_a_time);
	int err;

	mutex_lock(&one_at_a_time);
	err = sp_domain_set(by, sp_domain_level());
	err = sysfs_update_group(sp_kernel.mm_kobj, &sp_ksm_group) ?: err;
	mutex_unlock(&one_at_a_time);
	return err;
}

static ssize_t domain_by_store(struct kobject *kobj, struct kobj_attribute *attr,
			       const char *buf, size_t count)
{
	int by = sysfs_match_string(sp_domain_by_names, buf);
	int err = by < 0 ? by : sp_set_policy(by);

	return err ?: count;
}

static struct sp_attr sp_attr_domain_by = {
	.attr = __ATTR(domain_by, 0644, domain_by_show, domain_by_store),
};

static long sp_show_level(void)
{
	return sp_domain_level();
}

static ssize_t domain_cgroup_level_store(struct kobject *kobj, struct kobj_attribute *attr,
					 const char *buf, size_t count)
{
	unsigned int level;
	int err = kstrtouint(buf, 10, &level);

	err = err ?: sp_domain_set(sp_domain_policy(), level);
	return err ?: count;
}

static struct sp_attr sp_attr_domain_cgroup_level = {
	.attr = __ATTR(domain_cgroup_level, 0644, sp_compute_show, domain_cgroup_level_store),
	.compute = sp_show_level,
};

static long sp_show_timing(void)
{
	return sp_all_timing_safe();
}

static ssize_t timing_safe_store(struct kobject *kobj, struct kobj_attribute *attr,
				 const char *buf, size_t count)
{
	unsigned int on;
	int err = kstrtouint(buf, 10, &on);

	if (err || on > 1)
		return -EINVAL;
	err = sp_timing_set(on);
	return err ?: count;
}

static struct sp_attr sp_attr_timing_safe = {
	.attr = __ATTR(timing_safe, 0644, sp_compute_show, timing_safe_store),
	.compute = sp_show_timing,
};

static struct attribute *sp_domain_attrs[] = {
	&sp_attr_domain_by.attr.attr,
	&sp_attr_domain_cgroup_level.attr.attr,
	&sp_attr_timing_safe.attr.attr,
	NULL,
};

const struct attribute_group sp_domain_group = {
	.name = "samepage",
	.attrs = sp_domain_attrs,
};
