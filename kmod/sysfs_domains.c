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

static ssize_t domain_by_store(struct kobject *kobj, struct kobj_attribute *attr,
			       const char *buf, size_t count)
{
	int by = sysfs_match_string(sp_domain_by_names, buf);
	int err = by < 0 ? by : sp_domain_set(by, sp_domain_level());

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

static struct attribute *sp_domain_attrs[] = {
	&sp_attr_domain_by.attr.attr,
	&sp_attr_domain_cgroup_level.attr.attr,
	NULL,
};

const struct attribute_group sp_domain_group = {
	.name = "samepage",
	.attrs = sp_domain_attrs,
};
